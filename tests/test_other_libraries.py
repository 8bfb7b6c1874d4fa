"""The book's page "In other libraries": its examples run, and its tables show what they print."""

import doctest
import re

import pytest

from course_lib.classroom.files import ROOT

PAGE = (ROOT / "book" / "other_libraries.md").read_text("utf-8")
FIRST, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])[−-]?\d+(?:\.\d+)?(?![\w.])")


def examples(section: str) -> str:
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def numbers(text: str) -> set[float]:
    return {float(number.replace("−", "-")) for number in NUMBER.findall(text)}


def heading(section: str) -> str:
    return section.partition("\n")[0]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("section", SECTIONS, ids=heading)
def test_the_examples_run_and_print_what_stands_there(section):
    source = examples(FIRST) + "\n" + examples(section)
    test = doctest.DocTestParser().get_doctest(source, {}, heading(section), None, None)
    said: list[str] = []
    done = doctest.DocTestRunner().run(test, out=said.append)
    assert done.failed == 0, "".join(said)
    assert done.attempted == source.count("\n>>>") + 1 > 5


@pytest.mark.parametrize("section", SECTIONS, ids=heading)
def test_every_number_that_a_table_shows_is_printed_below_it(section):
    """Bold numbers are results. Behind the first column no other has decimals, but for code."""
    parsed = doctest.DocTestParser().get_examples(examples(section))
    printed = numbers("\n".join(example.want for example in parsed))
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    results = [bold for row in rows for bold in re.findall(r"\*\*(.*?)\*\*", row)]
    assert {n for bold in results for n in numbers(bold)} <= printed
    assert all(numbers(bold) for bold in results)
    assert len(results) >= 2 or heading(section) == "The same"
    for row in rows:
        rest = re.sub(r"\*\*.*?\*\*|`[^`]*`", "", row.partition("|")[2])
        assert not re.search(r"\d\.\d", rest), row


def test_names_in_code_that_look_like_ours_exist():
    """A table names functions; each of them stands in an example."""
    code = "\n".join(examples(section) for section in SECTIONS)
    for name in re.findall(
        r"`([a-z_]+)(?:\([^`]*\))?`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    ):
        if name not in ("weight_orig", "hold_masks"):
            assert name in code, name
