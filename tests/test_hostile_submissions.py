"""The table of hostile and broken submissions: 43 rows, and which file tests them.

Rows 1 to 31 and 40, what code does while it runs: test_hostile_code.py. Rows 32 to 39, what is
handed in: test_hostile_files.py. Rows 35, 40 and 43, what is graded: test_hostile_reports.py. Rows
41 and 42, what people read: test_hostile_pages.py. A test is called test_hostile_NN_… after its
row; those without a number came later, as did test_hostile_values.py: values that swell a judge.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
ROWS = {
    "test_hostile_code.py": {*range(1, 32), 40},
    "test_hostile_files.py": {*range(32, 40)},
    "test_hostile_reports.py": {35, 40, 43},
    "test_hostile_pages.py": {41, 42},
    "test_hostile_values.py": set(),
}


def test_every_row_is_tested_where_this_table_says():
    found = {
        path.name: {
            int(row) for row in re.findall(r"^def test_hostile_(\d+)_", path.read_text(), re.M)
        }
        for path in HERE.glob("test_hostile_*.py")
        if path != Path(__file__)
    }
    assert found == ROWS
    assert set().union(*found.values()) == {*range(1, 44)}
