"""The two commands and the wheel: what they install, and what `course doctor` says about it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import resolve
import which_torch
import yaml
from jupyterlab import write_page_config
from jupyterlab_server.config import get_page_config
from packaging.requirements import Requirement
from rattler import MatchSpec

from course_lib import doctor
from course_lib.journal import journal_file

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where they differ


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for by name."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines]
    return [r for r in found if r.name != PROJECT["name"]]


def test_the_lock_pins_exact_versions_and_nothing_else():
    lines = LOCK.splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line) for line in lines)
    assert lines == sorted(lines, key=str.upper)
    names = [normal(line.partition("==")[0]) for line in lines]
    assert len(set(names)) == len(names)
    assert "torch==2.13.0" in lines  # any other build is several GB of CUDA


def test_every_direct_requirement_is_locked_within_its_range():
    locked = doctor.read_lock(LOCK)
    for requirement in direct("classroom", "edge", "site", "test"):
        assert requirement.specifier.contains(locked[normal(requirement.name)]), requirement


def test_what_make_installs_without_its_requirements_is_locked_too():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    bare = re.search(r"^BARE := (.+)$", makefile, flags=re.M)[1].split()
    assert set(bare) <= doctor.read_lock(LOCK).keys()
    assert not set(bare) & {r.name for r in direct("classroom", "edge", "site", "test")}
    assert makefile.count(" --no-deps $(BARE)") == 1  # make lock
    assert makefile.count(" --no-deps -c requirements.lock $(BARE)") == 1  # set-up


def test_conda_gets_the_same_versions():
    locked = doctor.read_lock(LOCK)
    text = (ROOT / "environment.yml").read_text("utf-8")
    dependencies = yaml.safe_load(text)["dependencies"]
    specs = [MatchSpec(item, strict=True) for item in dependencies if isinstance(item, str)]
    pinned = {spec.name.normalized: str(spec.version).strip("=.*") for spec in specs}
    assert pinned.pop("python") == ">=3.11,<3.15"
    assert pinned.pop("pip") == "None"  # any pip will do
    names = {CONDA_NAMES.get(r.name, r.name): r.name for r in direct("classroom")}
    assert {names[name]: version for name, version in pinned.items()} == {
        name: locked[normal(name)] for name in names.values()
    }


def test_what_carries_models_and_texts_is_pinned_with_a_hash():
    text = (ROOT / "data.lock").read_text("utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 6
    assert all(re.fullmatch(r"\S+==\S+(\s+--hash=sha256:[0-9a-f]{64})+", line) for line in lines)


@pytest.mark.parametrize("file", ["requirements.lock", "data.lock", "environment.yml", ".ci/run"])
def test_no_address_where_names_and_versions_belong(file):
    assert "://" not in (ROOT / file).read_text("utf-8")


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):(?!=)", text, flags=re.M))
    assert targets - {"install"} == set(re.findall(r"^([a-z]+):.*##", text, flags=re.M))


def test_the_graders_menus_are_off_for_learners(tmp_path, monkeypatch):
    """What `make` writes names an extension that is installed, and JupyterLab obeys it."""
    write_page_config(tmp_path)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    page = get_page_config([str(Path(sys.prefix) / "share" / "jupyter" / "labextensions")])
    assert "@jupyter/nbgrader" in page["disabledExtensions"]
    assert "@jupyter/nbgrader" in [one["name"] for one in page["federated_extensions"]]


def test_whoever_has_torch_or_a_gpu_is_told_nothing_before_set_up():
    script = ROOT / "tools" / "which_torch.py"
    done = subprocess.run([sys.executable, script], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_which_torch_names_the_line_that_gets_the_small_build():
    said = which_torch.announcement({"torch": "2.13.0", "nvidia-cudnn-cu13": "9"})
    assert "CUDA build" in said and said.endswith(f"{which_torch.CPU_INDEX} make lab")
    assert which_torch.CPU_INDEX in (ROOT / "README.md").read_text("utf-8")


def test_a_development_container_is_set_up_by_make():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8")
    container = json.loads(text)
    assert container["image"].rpartition(":")[2] in resolve.PYTHONS
    word, target = container["postCreateCommand"].split()
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert word == "make" and f"\n{target.replace('.venv', '$(VENV)')}: $(LOCKS)\n" in makefile
    python = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert Path(python).parent.parent == Path(target).parent


def test_binder_installs_what_the_lock_pins():
    lines = (ROOT / ".binder" / "requirements.txt").read_text("utf-8").splitlines()
    options = dict(line.split() for line in lines if not line.startswith("#"))
    assert (ROOT / ".binder" / options["-c"]).resolve() == ROOT / "requirements.lock"
    assert options["-e"].removeprefix(".[").removesuffix("]") in PROJECT["optional-dependencies"]
    runtime = (ROOT / ".binder" / "runtime.txt").read_text("utf-8").strip()
    assert runtime.removeprefix("python-") in resolve.PYTHONS
    assert (ROOT / ".binder" / "postBuild").read_text("utf-8").endswith("\ncourse data\n")
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)


LOCKED = {"torch": "2.13.0", "numpy": "2.4.6", "nbgrader": "0.9.6"}
WANTED = {"torch": False, "numpy": False, "nbgrader": True}


def test_doctor_names_a_missing_package_and_the_remedy():
    finding = doctor.packages_finding(LOCKED, WANTED, {"torch": "2.13.0"}.get)
    assert (finding.ok, finding.vital, finding.detail) == (False, True, "missing: numpy")
    assert finding.remedy == "make lab"


def test_doctor_names_another_version_but_lets_the_course_run():
    installed = {"torch": "2.14.0", "numpy": "2.4.6", "nbgrader": "0.9.5"}.get
    finding = doctor.packages_finding(LOCKED, WANTED, installed)
    assert (finding.ok, finding.vital) == (False, False)
    assert "torch 2.14.0 (tested with 2.13.0)" in finding.detail
    assert "nbgrader 0.9.5 (tested with 0.9.6)" in finding.detail


def test_doctor_does_not_miss_an_extra():
    installed = {"torch": "2.13.0", "numpy": "2.4.6"}.get
    finding = doctor.packages_finding(LOCKED, WANTED, installed)
    assert finding.ok and finding.detail == "2 as locked, torch 2.13.0"


def test_doctor_reads_which_packages_are_wanted_from_the_project():
    wanted = doctor.wanted_packages()
    assert wanted.items() >= {"torch": False, "nbgrader": True, "ruff": True}.items()
    assert sum(not extra for extra in wanted.values()) == len(PROJECT["dependencies"])


def test_doctor_reports_where_torch_is_missing():
    code = (
        "import sys; sys.modules['torch'] = None; from course_lib import cli; cli.main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "torch cannot be imported" in done.stdout and not done.stderr


def test_doctor_names_an_absent_model():
    needed = doctor.file_finding("a text", "no_such_package", "text.py", optional=False)
    optional = doctor.file_finding("a model", "no_such_package", "x.gguf", optional=True)
    assert not needed.ok and needed.vital and needed.remedy == "course data"
    assert not optional.ok and not optional.vital and "go on without it" in optional.detail


@pytest.mark.parametrize("minor", range(10, 16))
def test_doctor_accepts_the_pythons_that_were_tried(minor):
    finding = doctor.python_finding((3, minor))
    assert finding.ok == (11 <= minor <= 14)
    assert "Python 3.11 to 3.14" in finding.remedy


def test_every_place_names_the_same_pythons():
    minors = range(doctor.OLDEST[1], doctor.NEWEST[1] + 1)
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"]]
    assert named == list(resolve.PYTHONS) == [f"3.{minor}" for minor in minors]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"{doctor.OLDEST} <= sys.version_info[:2] <= {doctor.NEWEST}" in makefile
    for minor in minors:
        assert f" python3.{minor} " in makefile
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in readme


def test_doctor_says_where_progress_is_kept(tmp_path, monkeypatch):
    finding = doctor.progress_finding(tmp_path / "new" / "progress.jsonl")
    assert finding.ok and finding.detail.endswith("progress.jsonl")
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    finding = doctor.progress_finding(tmp_path / "new" / "progress.jsonl")
    assert not finding.ok and "writable" in finding.remedy and not finding.vital


@pytest.mark.parametrize(("vital", "status"), [(True, 1), (False, 0)])
def test_doctor_exits_with_1_only_if_the_course_cannot_run(vital, status, monkeypatch, capsys):
    bad = doctor.Finding("x", False, "broken", "mend it", vital=vital)
    monkeypatch.setattr(doctor, "examine", lambda: iter([bad]))
    assert doctor.report() == status
    assert "remedy: mend it" in capsys.readouterr().out


def test_doctor_on_this_machine():
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["packages"].ok, findings["packages"].detail
    assert findings["progress"].detail == str(journal_file())
    assert findings["King James Bible"].ok and findings["device"].ok
