"""Many submissions: none lost, none graded twice; a bad one stops no other."""

import threading
from dataclasses import replace

import pytest
from in_process import RIGHT, SEED, STUB, TOY, WRONG, run_here, submission

from course_lib.classroom.grading import gradebook
from course_lib.classroom.grading.grade import grade
from course_lib.classroom.grading.gradebook import (
    STORE,
    Terms,
    course_version,
    grade_all,
    graded,
    key,
)
from course_lib.classroom.grading.sandbox import Reply, SandboxError

TERMS = Terms(TOY, SEED, "none")


def call(one, terms):
    """`graded`, with a sandbox that is none."""
    return replace(grade(one, terms.assignment, terms.seed, run_here), tier=terms.tier)


@pytest.fixture
def calls():
    """What was graded, in the order in which it was begun."""
    return []


@pytest.fixture
def counted(calls):
    def counted(one, terms):
        calls.append(one.student)
        return call(one, terms)

    return counted


def a_class(size):
    """So many different submissions: right, wrong and blank."""
    kinds = [RIGHT, WRONG, STUB]
    return [submission(f"s{i:03}", f"{kinds[i % 3]}  # {i}") for i in range(size)]


def run(given, out, call, jobs=2, terms=TERMS):
    return dict(grade_all(given, terms, out, jobs, call))


def points(grades):
    return {student: made.points for student, made in grades.items()}


def test_every_submission_gets_its_grade(tmp_path, counted, calls):
    grades = run(a_class(30), tmp_path, counted)
    assert points(grades) == {f"s{i:03}": int(i % 3 == 0) for i in range(30)}
    assert sorted(calls) == sorted(grades) and {one.tier for one in grades.values()} == {"none"}


def test_a_second_run_grades_only_what_changed(tmp_path, counted, calls):
    given = a_class(6)
    first = run(given, tmp_path, counted)
    calls.clear()
    assert run(given, tmp_path, counted) == first and calls == []
    given[4] = submission("s004", f"{RIGHT}  # at last")
    assert points(run(given, tmp_path, counted))["s004"] == 1 and calls == ["s004"]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, counted, calls):
    given, done = a_class(9), []
    for student, _ in grade_all(given, TERMS, tmp_path, 1, counted):
        done.append(student)
        if len(done) == 4:
            break  # as the generator is closed, so is the run
    stored = set(calls)
    calls.clear()
    assert points(run(given, tmp_path, counted)) == points(run(given, tmp_path / "other", call))
    assert not set(calls) & set(done) and len(stored | set(calls)) == 9


def test_half_a_stored_grade_is_none(tmp_path, counted, calls):
    run([submission()], tmp_path, counted)
    (stored,) = (tmp_path / STORE).iterdir()
    stored.write_text(stored.read_text()[:100])
    assert points(run([submission()], tmp_path, counted)) == {"ada": 1}
    assert calls == ["ada", "ada"]


def test_two_equal_submissions_get_one_grade_each_with_its_own_name_and_notes(tmp_path, counted):
    given = [submission("ada"), submission("bob", notes=("late",))]
    grades = run(given, tmp_path, counted, jobs=1)
    assert {name: (made.student, made.notes) for name, made in grades.items()} == {
        "ada": ("ada", ()),
        "bob": ("bob", ("late",)),
    }
    assert grades["ada"].results == grades["bob"].results
    assert len(list((tmp_path / STORE).iterdir())) == 1
    assert b"late" not in next((tmp_path / STORE).iterdir()).read_bytes()


def test_of_equal_submissions_graded_at_once_the_first_grade_counts(tmp_path):
    both, points = threading.Barrier(2, timeout=30), iter([0, 1])

    def undecided(one, terms):
        both.wait()
        made = call(one, terms)
        return replace(made, results=(replace(made.results[0], points=next(points)),))

    grades = run([submission("ada"), submission("bob")], tmp_path, undecided)
    assert grades["ada"].points == grades["bob"].points


def test_one_that_cannot_be_graded_stops_no_other_and_is_tried_again(tmp_path):
    def fails(one, terms):
        if one.student == "s001":
            raise OSError("no more processes")
        return call(one, terms)

    grades = run(a_class(6), tmp_path, fails)
    assert isinstance(grades.pop("s001"), OSError) and len(points(grades)) == 5
    assert run(a_class(6), tmp_path, call)["s001"].points == 0


def test_submissions_are_read_only_a_few_ahead(tmp_path):
    read, most = 0, 0

    def given():
        nonlocal read
        for one in a_class(40):
            read += 1
            yield one

    for done, _ in enumerate(grade_all(given(), TERMS, tmp_path, 2, call)):
        most = max(most, read - done)
    assert read == 40 and most <= gradebook.AHEAD * 2 + 2


def test_the_key_depends_on_all_that_the_grade_depends_on():
    one, other = submission(), replace(TERMS, assignment=replace(TOY, points={"to_uint8": 9}))
    keys = {
        key(one, TERMS),
        key(submission(answer=WRONG), TERMS),
        key(submission(status="MALFORMED"), TERMS),
        key(one, replace(TERMS, seed=8)),
        key(one, replace(TERMS, tier="bubblewrap")),
        key(one, other),
        key(one, replace(TERMS, assignment=replace(TOY, given=()))),
    }
    assert len(keys) == 7
    assert key(submission("bob", notes=("x",)), TERMS) == key(one, TERMS)


def test_another_version_of_the_course_grades_again(tmp_path, counted, calls, monkeypatch):
    run([submission()], tmp_path, counted)
    monkeypatch.setattr(gradebook, "course_version", lambda: "another")
    run([submission()], tmp_path, counted)
    assert calls == ["ada", "ada"]


class FakeSandbox:
    """Counts how many there are, and how many were closed."""

    made, closed = [], []

    def __init__(self, library, tier, withheld):
        self.made.append(self)

    def close(self):
        self.closed.append(self)

    def run(self, job):
        if "sandbox breaks" in job.blocks[-1]:
            raise RuntimeError("the sandbox itself broke")
        return run_here(job)


@pytest.fixture
def sandboxes(monkeypatch):
    monkeypatch.setattr(gradebook, "Sandbox", FakeSandbox)
    monkeypatch.setattr(gradebook.atexit, "register", lambda *_: None)
    gradebook._free.cache_clear()
    FakeSandbox.made, FakeSandbox.closed = [], []
    yield FakeSandbox
    gradebook._free.cache_clear()


def test_a_sandbox_serves_one_submission_after_another(tmp_path, sandboxes):
    grades = run(a_class(12), tmp_path, graded)
    assert len(points(grades)) == 12 and 1 <= len(sandboxes.made) <= 2
    assert {one.version for one in grades.values()} == {course_version()}


def test_a_sandbox_that_broke_is_closed_and_not_used_again(tmp_path, sandboxes):
    given = [submission("ada", f"{RIGHT}  # sandbox breaks"), submission("bob")]
    grades = run(given, tmp_path, graded, jobs=1)
    assert isinstance(grades["ada"], RuntimeError) and grades["bob"].points == 1
    assert sandboxes.closed == sandboxes.made[:1] and len(sandboxes.made) == 2


def test_a_sandbox_that_cannot_run_anything_is_no_students_fault(tmp_path, sandboxes, monkeypatch):
    def run(self, job):
        return Reply("CRASHED", printed="PermissionError: [Errno 13]")

    monkeypatch.setattr(sandboxes, "run", run)
    grades = dict(grade_all(a_class(2), TERMS, tmp_path, 1))
    assert [type(one) for one in grades.values()] == [SandboxError] * 2
    assert "PermissionError" in str(grades["s000"]) and not list((tmp_path / STORE).iterdir())
    assert sandboxes.closed == sandboxes.made
