import pytest
import quick
import torch
from hypothesis import settings
from jupyterlab import SCREENSHOTS, lab_server

from course_lib import journal
from course_lib.classroom.files import lesson_sources
from course_lib.classroom.learner import write
from course_lib.classroom.lesson import read_lessons
from course_lib.classroom.pages import write_pages
from course_lib.classroom.student import student_notebook
from course_lib.models import pretrained

settings.register_profile("course", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("course")


def pytest_addoption(parser):
    parser.addoption("--screenshots", action="store_true", help="keep pictures in artifacts/")
    parser.addoption("--every-notebook", action="store_true", help="open all of them in JupyterLab")
    parser.addoption("--quick", action="store_true", help="only what a change reaches: quick.py")


LONG = ("test_book.py", "test_wholly_graded.py")  # begun first: nobody waits for them at the end


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda one: one.path.name not in LONG)
    if config.getoption("quick"):
        chapters = quick.changed_chapters(quick.changed_files())
        exercises = quick.exercises_of(chapters)
        wanted = [one for one in items if quick.is_wanted(one, chapters, exercises)]
        config.hook.pytest_deselected(items=[one for one in items if one not in set(wanted)])
        items[:] = wanted


def pytest_runtest_logreport(report):
    """What failed is named at once: all tests take half an hour."""
    if report.failed:
        print(f"\nFAILED {report.nodeid}", flush=True)


@pytest.fixture(scope="session")
def tiny():
    """TinyLM and its tokenizer."""
    return pretrained.tiny()


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2 and its tokenizer; tests that ask for it are skipped where it is absent."""
    if not pretrained.has_smollm2():
        pytest.skip("SmolLM2's package is not installed (see data.lock)")
    return pretrained.smollm2()


@pytest.fixture(autouse=True)
def own_progress(tmp_path_factory, monkeypatch):
    """No test writes into the progress of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("progress")
    monkeypatch.setattr(journal, "journal_file", lambda: folder / "progress.jsonl")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    """The learner's notebooks, fresh from their sources: notebooks/ may hold a learner's own."""
    folder = tmp_path_factory.mktemp("lab")
    for lesson in read_lessons():
        write(folder / f"{lesson.path.stem}.ipynb", student_notebook(lesson))
    write_pages(folder, lesson_sources())
    SCREENSHOTS.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def lab_address(lab_folder, tmp_path_factory):
    """A JupyterLab that serves them."""
    with lab_server(lab_folder, tmp_path_factory.mktemp("home")) as address:
        yield address
