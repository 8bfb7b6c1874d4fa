"""deploy/: what can be known of an image and a chart's values without building either."""

import re
import shlex
import subprocess

import pytest
import resolve
import yaml

from course_lib.classroom.files import ROOT

DEPLOY = ROOT / "deploy"
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "CMD"}
CHART = {"4.4.0": "5.5.0"}  # the chart's version and the JupyterHub in it, by its change log


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows) of the Dockerfile, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


def values() -> dict:
    return yaml.safe_load((DEPLOY / "config.yaml").read_text("utf-8"))


def test_the_dockerfile_is_made_of_instructions():
    words = [word for word, _ in instructions()]
    assert words[0] == "FROM" and {*words} == INSTRUCTIONS


def test_every_command_is_one_for_a_shell():
    commands = [text for word, text in instructions() if word == "RUN"]
    for command in commands:
        done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command
    targets = re.findall(r"make (\S+)", "\n".join(commands))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert [
        f"\n{target.replace('.venv', '$(VENV)')}: $(LOCKS)\n" in makefile for target in targets
    ] == [True]


def test_the_image_has_a_python_of_the_course_and_the_locked_versions():
    (base,) = [text for word, text in instructions() if word == "FROM"]
    assert re.fullmatch(r"python:(3\.\d+)-slim-bookworm", base)[1] in resolve.PYTHONS
    pinned = [text for _, text in instructions() if "jupyterhub==" in text]
    assert len(pinned) == 1 and "-c requirements.lock" in pinned[0]
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert "\njupyterhub==" not in lock.lower(), "else the lock's version is to be taken"
    named = {text.partition("==")[0].split()[-1] for _, text in instructions() if "==" in text}
    assert named == {"jupyterhub"}, "all other versions come from requirements.lock"


def test_hub_and_image_have_one_version_of_jupyterhub_and_say_one_chart():
    ((chart, hub),) = CHART.items()
    assert f"jupyterhub=={hub}" in (DEPLOY / "Dockerfile").read_text("utf-8")
    for name in ("config.yaml", "README.md"):
        text = (DEPLOY / name).read_text("utf-8")
        assert f"chart {chart} (JupyterHub {hub})" in " ".join(text.split()), name
    assert f"--version {chart} " in (DEPLOY / "README.md").read_text("utf-8")


def test_the_image_gets_what_make_needs_and_nothing_else():
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*", "all that is not named stays outside"
    taken = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert taken == sorted(taken) and all((ROOT / name).exists() for name in taken)
    needed = {"Makefile", "pyproject.toml", "requirements.lock", "data.lock", "README.md"}
    assert needed | {"course_lib", "notebooks", "solutions", "tools"} <= {*taken}
    assert not {"tests", ".git", ".venv", "benchmarks"} & {*taken}


def test_the_values_are_those_of_a_class():
    user = values()["singleuser"]
    (project,) = re.findall(
        r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M
    )
    assert user["image"]["tag"] == project
    assert f"removing-redundancy:{project}" in (DEPLOY / "Dockerfile").read_text("utf-8")
    sizes = {name: int(text.removesuffix("G")) for name, text in user["memory"].items()}
    assert sizes["limit"] > sizes["guarantee"]
    assert user["extraEnv"]["OMP_NUM_THREADS"] == str(user["cpu"]["limit"])
    assert user["networkPolicy"]["egressAllowRules"] == {"nonPrivateIPs": False}
    readme = (DEPLOY / "README.md").read_text("utf-8")
    for name, size in sizes.items():
        assert re.search(rf"\b{size} GB", readme), f"{name} is explained"


def test_what_a_server_does_at_its_start_leaves_a_learners_work_alone(tmp_path, monkeypatch):
    from course_lib.cli import main

    *shell, script = values()["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
    assert shell == ["sh", "-c"]
    words = shlex.split(script.partition("||")[0])
    assert words[:2] == ["course", "start"] and words[2].startswith("/home/jovyan/")
    (tmp_path / "05_linear_quantization.ipynb").write_text("mine")
    for _ in range(2):
        assert main([words[1], str(tmp_path)]) == 0
    assert (tmp_path / "05_linear_quantization.ipynb").read_text() == "mine"
    assert (tmp_path / "00_start_here.ipynb").exists()


@pytest.mark.parametrize("name", ["README.md", "config.yaml"])
def test_no_secret_is_handed_on(name):
    text = (DEPLOY / name).read_text("utf-8")
    assert values()["hub"]["config"]["DummyAuthenticator"]["password"] == "CHANGE-ME"
    assert not re.search(r"(token|secret|key):\s*[0-9a-f]{16}", text, re.I)
