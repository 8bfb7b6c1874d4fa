"""The course from a wheel: `pip install …whl && course start DIR`, without git and make."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest

from course_lib.classroom.files import ROOT, lesson_sources
from course_lib.classroom.learner import start
from course_lib.classroom.lesson import grade_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PARTS = ("course_lib", "solutions", "pyproject.toml", "README.md", "LICENSE")
LOCKS = ("data.lock", "requirements.lock")
FIRST = lesson_sources()[0].stem
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree, with a learner's leftovers in it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*PARTS, *LOCKS):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    start(folder / "notebooks")
    (folder / "notebooks" / f"{FIRST}.mine-20260101-120000.ipynb").write_text("mine", "utf-8")
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", folder]
    subprocess.run([*PIP, *build], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`course` of a new environment that holds the wheel, and sees the packages of this one."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    paths = {"base": place, "platbase": place, "installed_base": place}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    subprocess.run(
        [*PIP, f"--python={place}", "install", "--no-deps", "--no-index", wheel], check=True
    )
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    command = Path(sysconfig.get_path("scripts", "venv", paths)) / "course"

    def course(*words: str, folder: Path = place) -> subprocess.CompletedProcess:
        environment = {**os.environ, "XDG_DATA_HOME": str(place / "home"), "PYTHONUTF8": "1"}
        environment.pop("PYTHONPATH", None)
        options = {"capture_output": True, "encoding": "utf-8", "cwd": folder}
        return subprocess.run([command, *words], env=environment, **options)

    return course


@pytest.fixture(scope="module")
def learner(installed, tmp_path_factory) -> Path:
    """The folder that `course start` filled."""
    folder = tmp_path_factory.mktemp("learner") / "my course"
    done = installed("start", str(folder))
    assert (done.returncode, done.stderr) == (0, ""), done
    return folder


def test_the_wheel_holds_lessons_locks_and_licences_and_no_leftovers(wheel):
    names = {name.partition("/share/removing-redundancy/")[2] for name in ZipFile(wheel).namelist()}
    for source in lesson_sources():
        stem = source.stem
        wanted = {f"notebooks/{stem}.ipynb", f"solutions/{stem}.ipynb", f"solutions/{stem}.py"}
        assert wanted <= names
    assert {*LOCKS, "notebooks/GLOSSARY.md", "solutions/GLOSSARY.md"} <= names
    assert not [name for name in ZipFile(wheel).namelist() if ".mine-" in name]
    files = {"texts/wikipedia.json.bz2", "texts/wikipedia.md"}
    files |= {"sounds/speech.safetensors", "sounds/speech.md"}
    assert {f"course_lib/data/{file}" for file in files} <= set(ZipFile(wheel).namelist())


def test_start_gives_the_notebooks_that_a_checkout_makes(learner, wheel):
    for name in [f"{source.stem}.ipynb" for source in lesson_sources()] + ["GLOSSARY.md"]:
        made = wheel.parent / "notebooks" / name
        assert (learner / name).read_bytes() == made.read_bytes()


def test_doctor_is_content(installed):
    done = installed("doctor")
    assert done.returncode == 0, done.stdout
    assert "NO  " not in done.stdout and "make lab" not in done.stdout


def test_check_and_reset_act_on_the_learners_folder(installed, learner):
    notebook = learner / f"{FIRST}.ipynb"
    untouched = notebook.read_bytes()
    shorter = nbformat.read(notebook, 4)  # the exercises only, which take no time
    shorter.cells = [c for c in shorter.cells if grade_id(c) or "import check" in c.source]
    nbformat.write(shorter, notebook)
    done = installed("check", "00", folder=learner)
    assert done.returncode == 1 and not done.stderr
    assert done.stdout.count("not attempted") == 3 and "error" not in done.stdout
    assert "is restored" in installed("reset", "00", folder=learner).stdout
    assert notebook.read_bytes() == untouched


def test_outside_such_a_folder_one_is_told_how_to_make_it(installed):
    done = installed("check", "00")
    assert done.returncode == 2 and "course start" in done.stderr


def test_data_is_there_and_not_fetched_again(installed):
    done = installed("data")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already satisfied") == 6
