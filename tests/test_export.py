"""`course export`: one column of the lecturer's own file changes, and not a byte besides."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.classroom.grading.grade import Grade, Result, as_json
from course_lib.classroom.reports.class_report import read_grades
from course_lib.classroom.reports.csv_cells import NotACsvFile, decode, encode, read_table
from course_lib.classroom.reports.export import NotAGradebook, fill, summary
from course_lib.cli import main

CHAPTER = "05_linear_quantization"
# As Canvas' gradebook_exporter.rb writes it: a column that is hidden, one that is read-only.
CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Pruning (71),Linear quantization (72),"
    "Current Score\n"
    ",,,,,,Manual Posting,\n"
    "    Points Possible,,,,,4.00,14.00,(read only)\n"
    '"Doe, Jane",101,s-101,jdoe,"A, and B",3.00,,75.00\n'
    '"Müller, Ægir ""Æ""",102,s-102,aegir@uni.example,A,,2.00,\n'
    '"Lee, Ann",103,s-103,alee,A,1.00,EX,\n'
    '"Student, Test",104,,testy,A,,,\n'
)
# As Moodle's worksheet is: quotes where there is a space, CRLF inside a feedback.
MOODLE = (
    'Identifier,"Full name","Email address",Status,Grade,"Maximum Grade","Grade can be changed",'
    '"Last modified (grade)","Feedback comments"\n'
    '"Participant 101","Jane Doe",jane@uni.example,"Submitted for grading - ",,14.00,Yes,-,'
    '"well\r\ndone, ""Jane"""\n'
    '"Participant 102","Ægir Müller",aegir@uni.example,"No submission",-,14.00,Yes,-,\n'
    '"Participant 103","Ann Lee",ann@uni.example,Graded,3.00,14.00,No,-,\n'
)


def graded(student: str, points: float = 7, possible: int = 14, status: str = "") -> Grade:
    result = Result("quantize_linear", points, possible, "failed")
    return Grade(student, CHAPTER, (result,), status)


def column(data: bytes, at: int) -> list[str]:
    """A column as the csv module reads it, and not as the code under test does."""
    return [row[at] for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))]


def test_canvas_gets_the_points_and_nothing_else_changes():
    grades = [graded("jdoe", 9), graded("AEGIR@uni.example", 0), graded("alee"), graded("nobody")]
    filled = fill(CANVAS.encode(), grades, "canvas")
    want = CANVAS.replace("3.00,,75.00", "3.00,9,75.00").replace("A,,2.00,", "A,,0,")
    assert filled.data.decode() == want
    assert (filled.column, filled.written, filled.scaled) == ("Linear quantization (72)", 2, "")
    assert filled.no_row == ("nobody",)
    assert filled.no_grade == ("Student, Test · testy · 104",)
    assert filled.kept == ("Lee, Ann · alee · 103 · s-103",), "an excused student stays excused"


def test_moodle_gets_the_points_and_nothing_else_changes():
    grades = [graded("Jane Doe_101"), graded("102", 14), graded("ann")]
    filled = fill(MOODLE.encode(), grades, "moodle")
    want = MOODLE.replace("grading - ,,14", "grading - ,7,14").replace('- ",,14', '- ",7,14')
    assert filled.data.decode() == want.replace(",-,14.00,Yes", ",14,14.00,Yes")
    assert filled.kept == ("Ann Lee · Participant 103 · ann@uni.example",), "Moodle locks this one"


@pytest.mark.parametrize(
    "name",
    [
        "jdoe",
        "JDOE",
        "101",
        "s-101",
        "Doe, Jane",
        "Jane Doe",
        "doejane_101",
        "JDOE",
    ],
)
def test_a_student_is_found_however_the_submission_was_called(name):
    filled = fill(CANVAS.encode(), [graded(name, 5)], "canvas")
    assert column(filled.data, 6)[3] == "5", name


@pytest.mark.parametrize(
    "name", ["Participant 102", "102", "aegir", "Ægir Müller", "Ægir Müller_102"]
)
def test_a_student_is_found_in_moodles_worksheet(name):
    assert column(fill(MOODLE.encode(), [graded(name, 5)], "moodle").data, 4)[2] == "5"


def test_composed_and_decomposed_letters_are_one():
    decomposed = "A\u030agren"
    data = "Username,Grade\n\u00c5gren,-\n".encode()
    assert fill(data, [graded(decomposed, 1)], "moodle").written == 1


def test_what_a_file_name_cannot_hold_may_be_missing():
    data = b'Identifier,"Full name",Grade\n"Participant 7","Pat O\'Brien",\n"Participant 8",X,\n'
    assert fill(data, [graded("Pat OBrien_7", 3)], "moodle").written == 1
    data = 'Student,ID,Linear quantization (7)\n"O\'Brien-Ægir, Pat",7,\n'.encode()
    assert fill(data, [graded("obrienægirpat_7", 3)], "canvas").written == 1


def test_the_id_tells_two_of_one_name_apart():
    data = b'Student,ID,Linear quantization (7)\n"Doe, Jane",1,\n"Doe, Jane",2,\n'
    filled = fill(data, [graded("doejane_2", 3)], "canvas")
    assert filled.data == data.replace(b"2,\n", b"2,3\n")
    filled = fill(data, [graded("someoneelse_2", 3)], "canvas")
    assert filled.written == 0, "an ID with another name is not that student's"
    filled = fill(data[:-15], [graded("doejane_2", 3)], "canvas")
    assert filled.written == 0, "a name with another ID neither"


def test_names_in_two_columns():
    data = b"LastName,FirstName,ID,SIS Login ID,Section,Linear quantization (7)\nDoe,Jane,1,x,A,\n"
    for name in ("Jane Doe", "Doe, Jane"):
        assert fill(data, [graded(name, 3)], "canvas").data.endswith(b"A,3\n")
    data = b'"First name","Last name","Assignment: 05 Linear quantization (Real)"\nJane,Doe,-\n'
    for name in ("Jane Doe", "Doe, Jane", "Jane Doe_77"):
        assert fill(data, [graded(name, 3)], "moodle").data.endswith(b"Doe,3\n")


def test_a_name_that_fits_two_rows_fits_none():
    data = b"Student,ID,Linear quantization (7)\nJane Doe,1,\nJane Doe,2,\n"
    filled = fill(data, [graded("Jane Doe"), graded("2", 3)], "canvas")
    assert filled.no_row == ("Jane Doe (fits 2 rows)",)
    assert filled.data == data.replace(b"2,\n", b"2,3\n")


def test_two_students_in_one_row_are_named_and_neither_is_written():
    data = b"Student,ID,Linear quantization (7)\nJane Doe,1,4\n"
    filled = fill(data, [graded("Jane Doe"), graded("1")], "canvas")
    assert filled.data == data and len(filled.no_row) == 2
    assert "not alone" in filled.no_row[0]


def test_a_login_goes_before_the_same_word_in_an_address():
    data = b"Username,Email address,Grade\njane,x@a.example,\nother,jane@b.example,\n"
    filled = fill(data, [graded("jane", 3)], "moodle")
    assert filled.data == data.replace(b"x@a.example,", b"x@a.example,3")


def test_points_are_scaled_where_the_file_counts_otherwise():
    filled = fill(MOODLE.replace("14.00", "100.00").encode(), [graded("101", 5)], "moodle")
    assert column(filled.data, 4)[1] == "35.71"
    assert filled.scaled == "14 points became 100"
    assert "14 points became 100" in summary(filled, [])
    german = CANVAS.replace("14.00", '"7,00"').encode()
    assert column(fill(german, [graded("jdoe", 7)], "canvas").data, 6)[3] == "3.5"


def test_what_was_not_graded_is_not_zero():
    nothing = Grade("jdoe", CHAPTER, (), "NOT GRADED")
    filled = fill(CANVAS.encode(), [nothing], "canvas")
    assert filled.data == CANVAS.encode() and filled.written == 0


def test_the_column_is_found_by_the_chapter_or_named():
    with pytest.raises(NotAGradebook, match=r'no columns are called 03_x.*"Pruning \(71\)", "Lin'):
        fill(CANVAS.encode(), [Grade("jdoe", "03_x", graded("jdoe").results)], "canvas")
    for name in ("Pruning", "Pruning (71)"):
        filled = fill(CANVAS.encode(), [graded("jdoe", 2, 4)], "canvas", name)
        assert column(filled.data, 5)[3] == "2"
    for heading in (
        "05_linear_quantization",
        "Chapter 5: Linear Quantization",
        "linear quantization",
    ):
        data = CANVAS.replace("Linear quantization", heading).encode()
        assert fill(data, [graded("jdoe")], "canvas").column == f"{heading} (72)"


def test_a_chapter_within_another_chapters_name_is_not_that_chapter():
    data = CANVAS.replace("Pruning (71)", "Structured pruning (71)").encode()
    with pytest.raises(NotAGradebook, match="no columns are called 03_pruning"):
        fill(data, [Grade("jdoe", "03_pruning", graded("jdoe").results)], "canvas")


@pytest.mark.parametrize("name", ["Current Score", "Section", "ID"])
def test_a_column_that_holds_no_points_is_not_written(name):
    with pytest.raises(NotAGradebook, match="no columns are called"):
        fill(CANVAS.encode(), [graded("jdoe")], "canvas", name)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04\0\0", "zero bytes"),
        ("Student,ID".encode("utf-16"), "zero bytes"),
        (b'Student,ID,"Linear\n', "unexpected end of data"),
        (b"name,points\nx,1\n", "no column says who a row is about. It has: name, points"),
        ("Vollständiger Name,Bewertung\n".encode(), "With English as your language"),
    ],
)
def test_what_is_no_gradebook_is_refused_with_the_reason(data, says):
    with pytest.raises(NotACsvFile, match=says):
        fill(data, [graded("x")], "moodle")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="system must be one of .*got blackboard"):
        fill(b"", [graded("x")], "blackboard")


def test_a_row_that_ends_early_is_named():
    with pytest.raises(NotAGradebook, match="the row of x ends before the column Grade"):
        fill(b"Username,A,Grade\nx\n", [graded("x")], "moodle")


def test_bytes_in_another_encoding_stay():
    data = "Student;ID;Linear quantization (7)\r\nM\u00fcller;5;\r\n".encode("cp1252")
    assert fill(data, [graded("5", 3)], "canvas").data == data.replace(b";5;", b";5;3")
    data = "Student,ID,Linear quantization (7)\n\u738b,5,\n".encode("gbk")
    assert fill(data, [graded("5", 3)], "canvas").data == data.replace(b",5,", b",5,3")


def test_the_summary_cannot_steer_a_terminal():
    evil = graded("\x1b[2J\u202eevil\nsecond line", status="MALFORMED")
    text = summary(fill(CANVAS.encode(), [evil], "canvas"), [evil])
    assert "\x1b" not in text and "\u202e" not in text and "?[2J?evil?second line" in text
    assert "1 submissions that could not be read" in text


# Any file that a spreadsheet or an exporter may write.
ODD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
SPECIAL = st.sampled_from(
    ["", " ", "a,b", "a;b", 'say "hi"', "two\nlines", "\r\n", "\t", "=1+1", "-"]
)


@st.composite
def gradebooks(draw):
    """(file, students, position of the column) with any names, quoting, ends and delimiter."""
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    before = draw(st.lists(ODD | SPECIAL, min_size=1, max_size=4))
    students = draw(
        st.lists(st.integers(1, 999).map("u{}".format), min_size=1, max_size=5, unique=True)
    )
    file = io.StringIO(newline="")
    both = end == "\r\n"  # else the writer leaves one of them bare in a cell
    quoting = csv.QUOTE_MINIMAL if both and draw(st.booleans()) else csv.QUOTE_ALL
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    headings = [f"{i} {text}" for i, text in enumerate(before)]
    writer.writerow(["Username", *headings, "Grade", "Comment"])
    for student in students:
        writer.writerow([student, *before, draw(ODD | SPECIAL), draw(ODD | SPECIAL)])
    text = file.getvalue()
    text = text if draw(st.booleans()) else text.removesuffix(end)
    mark = draw(st.sampled_from(["", "\ufeff"]))
    return (mark + text).encode(), students, len(before) + 1, delimiter


@given(gradebooks(), st.data())
def test_all_other_bytes_stay(book, data):
    file, students, at, delimiter = book
    chosen = data.draw(st.lists(st.sampled_from(students), unique=True, min_size=1))
    filled = fill(file, [graded(name, 6) for name in chosen], "moodle")
    rows = read_table(decode(file))
    assert [row[0].value for row in rows if row[0].value][1:] == students
    odd = ("ex", "n/a")
    kept = {row[0].value for row in rows if row[at:] and row[at].value.strip().casefold() in odd}
    # What is expected is put together from the original's bytes, around the cells of the column.
    pieces = [
        b"6" + cell.end.encode()
        if i == at and row[0].value in {*chosen} - kept
        else encode([[cell]])
        for row in rows
        for i, cell in enumerate(row)
    ]
    assert encode(rows) == file and filled.data == b"".join(pieces)
    text = filled.data.decode("utf-8-sig")
    again = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    before = list(
        csv.reader(io.StringIO(file.decode("utf-8-sig"), newline=""), delimiter=delimiter)
    )
    for old, new in zip(before, again, strict=True):
        assert new[at] == ("6" if old[0] in {*chosen} - kept else old[at])
        assert [*old[:at], *old[at + 1 :]] == [*new[:at], *new[at + 1 :]]


@given(st.text(st.characters(exclude_characters="\0")), st.binary())
def test_any_text_that_can_be_read_comes_back_byte_for_byte(text, raw):
    for data in (text.encode("utf-8", "surrogatepass"), raw.replace(b"\0", b"")):
        try:
            rows = read_table(decode(data))
        except NotACsvFile:
            continue
        assert encode(rows) == data


@given(st.floats(0, 1e6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_what_is_written_is_a_plain_number(share, possible, maximum):
    data = f"Username,Grade,Maximum Grade\nada,-,{maximum}\n".encode()
    grade = graded("ada", min(share, possible), possible)
    cell = column(fill(data, [grade], "moodle").data, 1)[1]
    assert set(cell) <= set("0123456789.") and cell[0] not in "=+-@\t\r."
    assert float(cell) == pytest.approx(grade.points * maximum / possible, abs=0.0051)


def test_on_the_command_line(tmp_path, capsys):
    folder = tmp_path / "out" / "jdoe"
    folder.mkdir(parents=True)
    (folder / "grade.json").write_text(as_json(graded("jdoe", 9)))
    file = tmp_path / "gradebook.csv"
    file.write_bytes(CANVAS.encode())
    assert main(["export", str(tmp_path / "out"), "--canvas", str(file)]) == 0
    said = capsys.readouterr().out
    assert "1 grades in the column Linear quantization (72)" in said
    assert "3 rows without a grade" in said and "Lee, Ann" in said
    assert (tmp_path / "gradebook_filled.csv").read_bytes() == CANVAS.replace(
        "3.00,,75", "3.00,9,75"
    ).encode()
    assert file.read_bytes() == CANVAS.encode(), "the lecturer's own file stays as it was"
    assert main(["export", str(tmp_path / "out"), "--canvas", str(file), "--column", "x"]) == 2
    assert "no columns are called x" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "out"), "--moodle", str(file)]) == 2
    assert "no column is for points, as moodle writes one" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--canvas", str(file)]) == 2
    assert "holds no STUDENT/grade.json" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "out"), "--canvas", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_grades_of_several_chapters_are_refused(tmp_path):
    for student, chapter in (("a", CHAPTER), ("b", "03_pruning")):
        (tmp_path / student).mkdir()
        text = as_json(Grade(student, chapter, graded("x").results))
        (tmp_path / student / "grade.json").write_text(text)
    with pytest.raises(LookupError, match="several chapters: 03_pruning, 05_linear"):
        read_grades(tmp_path)
