"""A sandbox that is asked in good faith: every tier gives the outcomes that a call here gives."""

import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from course_lib.classroom.grading.sandbox import (
    BAD_TYPE,
    CRASHED,
    EXITED,
    TIMEOUT,
    WEAK,
    Job,
    Sandbox,
    SandboxError,
    best_tier,
    library,
    pack_cases,
    seccomp,
    tiers,
    worker,
)
from course_lib.classroom.grading.sandbox.library import COURSE, build_library, closure
from course_lib.classroom.lesson import read_lessons
from course_lib.exercises.engine.catalogue import by_chapter
from course_lib.exercises.engine.judge import judge
from course_lib.exercises.engine.run import run
from course_lib.exercises.engine.spec import Case
from course_lib.exercises.engine.values import difference

LIBRARY = ("course_lib.data.batches", "course_lib.models.parts")
TWO = [Case("two", {"x": 2}), Case("three", {"x": 3})]
RIGHT = "def f(x): return 2 * x"


@pytest.fixture(scope="module", params=["bubblewrap", "process"])
def sandbox(request):
    """A sandbox of each tier that serves many jobs."""
    if not (tiers.forks(request.param) and tiers.starts(request.param)):
        pytest.skip(f"{request.param} does not work on this machine")
    with Sandbox(LIBRARY, request.param) as one:
        yield one


def send(sandbox, *blocks, cases=TWO, seconds=20.0):
    return sandbox.run(Job(blocks, "f", pack_cases(cases), seconds))


def values(reply) -> list:
    assert reply.status == "", reply
    return [one.value for one in reply.outcomes]


# ---------------------------------------------------------------------- blocks and outcomes


def test_outcomes_come_back(sandbox):
    assert values(send(sandbox, RIGHT)) == [4, 6]


def test_blocks_share_one_namespace_and_one_that_fails_stops_no_other(sandbox):
    reply = send(sandbox, "import math", "k = 3", "1 / 0", "def g(x): return k * x", "f = g")
    assert values(reply) == [6, 9]
    assert reply.text == "ZeroDivisionError: division by zero"


def test_a_later_answer_may_call_an_earlier_one_that_comes_later(sandbox):
    assert values(send(sandbox, "def f(x): return g(x)", "def g(x): return x + 1")) == [3, 4]


def test_what_a_call_prints_is_kept_for_a_human(sandbox):
    reply = send(sandbox, "print('once')\ndef f(x):\n    print('called with', x)\n    return x")
    assert reply.printed == "once\ncalled with 2\ncalled with 3\n"
    assert len(send(sandbox, "print('é' * 10**5)\n" + RIGHT).printed) == worker.PRINTED


def test_an_exception_is_an_outcome_with_the_answers_own_line(sandbox):
    reply = send(sandbox, "def f(x):\n    raise ValueError('no')  # here")
    first = reply.outcomes[0]
    assert (reply.status, first.error, first.message) == ("", "ValueError", "no")
    assert first.line == "raise ValueError('no')  # here"


def test_a_stub_is_an_outcome_that_the_judge_knows(sandbox):
    reply = send(sandbox, "def f(x): raise NotImplementedError")
    assert (reply.outcomes[0].error, reply.outcomes[0].message) == ("NotImplementedError", "")


def test_a_function_that_is_missing(sandbox):
    reply = send(sandbox, "def g(x): return x")
    assert (reply.status, reply.outcomes[0].error) == ("", "NameError")
    assert reply.outcomes[0].message == "there is no function 'f'"


@pytest.mark.parametrize(
    "source, error, line",
    [
        ("def f(x) return x", "SyntaxError", "def f(x) return x"),
        ("y = 1\nimport nowhere\ndef f(x): return x", "ModuleNotFoundError", "import nowhere"),
        ("f = 1 / 0", "ZeroDivisionError", "f = 1 / 0"),
    ],
)  # fmt: skip
def test_a_block_that_fails_says_why_in_every_outcome(sandbox, source, error, line):
    reply = send(sandbox, source)
    assert [(one.error, one.line) for one in reply.outcomes] == [(error, line)] * 2
    assert reply.text.startswith(error)


def test_what_cannot_be_called_is_an_outcome(sandbox):
    assert send(sandbox, "f = 3").outcomes[0].error == "TypeError"


def test_outcomes_with_a_status_can_be_looked_at(sandbox):
    reply = send(sandbox, "def f(x): return object() if x == 3 else x")
    assert reply.status == BAD_TYPE and reply.outcomes[0].value == 2
    assert reply.text == "it returned a value of type object"
    reply = send(sandbox, "def f(x):\n    while x == 3: pass\n    return x", seconds=1)
    assert reply.status == TIMEOUT and reply.outcomes[0].value == 2
    assert send(sandbox, "import sys\ndef f(x): sys.exit()").status == EXITED
    assert send(sandbox, "import os\ndef f(x): os._exit(1)").status == CRASHED


def test_gradients_altered_inputs_and_modules(sandbox):
    linear = nn.Linear(2, 1)
    cases = [Case("", {"x": torch.ones(3, 2, requires_grad=True), "model": linear})]
    reply = send(
        sandbox, "def f(x, model):\n    model.weight.data += 1\n    return model(x)", cases=cases
    )
    direct = run(lambda x, model: model(x), cases)[0]
    assert reply.outcomes[0].altered == ("model",)
    reply = send(sandbox, "def f(x, model): return model(x)", cases=cases)
    assert difference(reply.outcomes[0].value, direct.value) is None
    assert difference(reply.outcomes[0].gradients, direct.gradients) is None
    cut = send(sandbox, "def f(x, model): return model(x.detach()).detach()", cases=cases)
    assert cut.outcomes[0].gradients == {}


ZOO = """
import numpy, torch
def f():
    names = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32"
    names += " float64 complex64 complex128 float8_e4m3fn float8_e5m2"
    found = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names.split()}
    empty = torch.empty(0, 3, dtype=torch.bfloat16)
    more = [None, True, 2**70, float("-inf"), "ü", numpy.arange(3.0), torch.tensor(4), empty]
    return {"all": found, "more": more, "nested": [[], {}, [{"a": (1, [2.5])}]]}
"""


def test_every_type_comes_back_as_it_would_here(sandbox):
    here: dict = {}
    exec(ZOO, here)
    case = [Case("", {})]
    (value,) = values(send(sandbox, ZOO, cases=case))
    assert repr(value) == repr(run(here["f"], case)[0].value)


def test_the_same_job_gives_the_same_outcomes(sandbox):
    source = (
        "import torch\ndef f(x): return [list({'a', 'b', 'c', 'd'}), torch.randn(3), hash('x')]"
    )
    one, other = send(sandbox, source), send(sandbox, source)
    assert repr(one.outcomes) == repr(other.outcomes)


def test_a_job_leaves_nothing_behind(sandbox):
    send(sandbox, "import builtins, torch\nbuiltins.mark = torch.mark = 1\n" + RIGHT)
    source = "import torch\ndef f(x): return 'mark' in globals() or hasattr(torch, 'mark')"
    assert values(send(sandbox, source)) == [False, False]


def test_a_case_has_its_time_and_all_cases_more(sandbox):
    cases = [Case(str(n), {"x": n}) for n in range(8)]
    source = "import time\ndef f(x):\n    time.sleep(0.6)\n    return x"
    assert values(send(sandbox, source, cases=cases, seconds=1.5)) == list(range(8))


# ---------------------------------------------------------------------- the library


def test_an_answer_imports_what_it_may(sandbox):
    source = "from course_lib.models.parts import prunable_weights\ndef f(x): return x"
    assert values(send(sandbox, source)) == [2, 3]


@pytest.mark.parametrize(
    "line",
    ["import course_lib.quantization.linear"]
    + ["from course_lib.exercises.engine import judge", "from course_lib import classroom, doctor"],
)
def test_an_answer_is_told_what_it_may_import(sandbox, line):
    reply = send(sandbox, f"{line}\n{RIGHT}")
    assert reply.outcomes[0].error == "ImportError"
    assert "is not there; graded answers may use course_lib.data.batches, course_lib" in reply.text


def test_what_a_notebook_calls_beside_its_answers_is_there_and_does_nothing(sandbox):
    source = f"from course_lib.exercises import check, hint, progress, yours\n{RIGHT}"
    source += "\nhint('f')\ncheck(f)\nprogress()"
    assert values(send(sandbox, source)) == [4, 6]
    reference = "from course_lib.exercises import yours\ndef f(x): return yours('to_uint8')(x)"
    assert send(sandbox, reference).outcomes[0].error == "AttributeError"


def test_the_folder_holds_the_modules_and_what_they_import_alone(tmp_path):
    build_library(tmp_path, ["course_lib.data.text"])
    modules = {
        ".".join(p.relative_to(tmp_path).with_suffix("").parts) for p in tmp_path.rglob("*.py")
    }
    modules = {name for name in modules if not name.endswith("__init__")}
    engine = {name.rpartition(".")[2] for name in modules if "exercises" in name}
    assert engine == {"run", "spec", "state", "values"}
    assert not {n for n in modules if ".classroom." in n and ".sandbox." not in n}
    assert {n.split(".")[1] for n in modules} == {
        "data",
        "models",
        "device",
        "exercises",
        "classroom",
        "places",
    }
    assert (tmp_path / "course_lib/data/texts/wikipedia.json.bz2").is_file()
    assert not (tmp_path / "course_lib/models/checkpoints").exists()


def test_a_folder_of_the_course_means_all_in_it(tmp_path):
    build_library(tmp_path, ["course_lib.models"])
    there = {path.name for path in (tmp_path / "course_lib/models").glob("*.py")}
    assert there == {path.name for path in (COURSE / "models").glob("*.py")} | {"__init__.py"}
    assert (tmp_path / "course_lib/models/checkpoints/tiny.safetensors").is_file()


@pytest.mark.parametrize("name", ["course_lib.nothing", "torch", "solutions", "course_lib.x.y", ""])
def test_a_module_that_is_none_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=f"library must name modules of course_lib.*{name}"):
        build_library(tmp_path, [name])


def test_what_a_module_imports_is_found_wherever_it_stands():
    assert closure(["course_lib.data.text"]) >= {"course_lib.data.text", "course_lib.data.packages"}


TOY = '''
def alone(x):
    """One line.

    >>> alone(1)
    """
    return x


def needed(x):
    return needed(x - 1) if x else 0


def needs(x):
    return needed(x)
'''


def test_the_chapters_exercises_are_withheld_where_nothing_needs_them(tmp_path, monkeypatch):
    course, folder = tmp_path / "course_lib", tmp_path / "child"
    shutil.copytree(COURSE, course, ignore=shutil.ignore_patterns("texts", "checkpoints"))
    (course / "data" / "toy.py").write_text(TOY, "utf-8")
    monkeypatch.setattr(library, "COURSE", course)
    folder.mkdir()
    build_library(folder, ["course_lib.data.toy"], ("alone", "needed", "no_such_function"))
    toy: dict = {}
    exec((folder / "course_lib/data/toy.py").read_text("utf-8"), toy)
    assert toy["needs"](3) == 0
    with pytest.raises(NotImplementedError, match="alone is an exercise of this chapter"):
        toy["alone"](1)


# ---------------------------------------------------------------------- whole chapters


def answers() -> dict[str, str]:
    """Exercise -> the model answer's cell."""
    cells = r'^# %% exercise="(\w+)".*?\n(.*?)(?=^# %%)'
    sources = [lesson.path.read_text("utf-8") for lesson in read_lessons()]
    return dict(m for s in sources for m in re.findall(cells, s, re.DOTALL | re.MULTILINE))


IMPORTS = """
import copy, itertools, math, torch
import torch.nn.functional as F
from torch import Tensor, nn
"""


@pytest.mark.parametrize("chapter", ["00_start_here", "05_linear_quantization"])
def test_the_model_answers_of_a_chapter_pass(chapter):
    sources, exercises = answers(), by_chapter()[chapter]
    blocks = (IMPORTS, *(sources[exercise.name] for exercise in exercises))
    library = ("course_lib.data", "course_lib.models", "course_lib.device")
    with Sandbox(library, best_tier()) as sandbox:
        for exercise in exercises:
            cases = exercise.cases(15)
            job = Job(blocks, exercise.name, pack_cases(cases), 5 * exercise.seconds)
            reply = sandbox.run(job)
            assert reply.status == "", (exercise.name, reply)
            assert judge(exercise, cases, list(reply.outcomes)).status == "passed"


# ---------------------------------------------------------------------- starting and ending


def test_tiers_and_their_order(monkeypatch):
    assert best_tier() in tiers.TIERS and WEAK == ("process",)
    monkeypatch.setenv("PATH", "")
    assert not tiers.starts("bubblewrap") and tiers.starts("process")
    monkeypatch.delenv(tiers.CONTAINER, raising=False)
    assert not tiers.starts("container")
    monkeypatch.setenv(tiers.CONTAINER, "podman run image")
    assert tiers.starts("container")


def test_bad_arguments_are_named():
    with pytest.raises(
        ValueError, match="tier must be one of bubblewrap, container, process; got 'vm'"
    ):
        Sandbox((), "vm")
    with pytest.raises(ValueError, match="library must name modules of course_lib"):
        Sandbox(("numpy",), "process")


@pytest.mark.skipif(sys.platform != "linux", reason="a warm process is started on Linux only")
def test_a_child_that_does_not_start_is_an_error_that_says_why(monkeypatch):
    says_no = ["sh", "-c", "echo no sandbox today >&2"]
    monkeypatch.setattr(worker, "command", lambda *a, **k: says_no)
    with pytest.raises(SandboxError, match="did not start: no sandbox today"):
        Sandbox((), "process")


def test_a_sandbox_that_was_ended_starts_again(sandbox):
    os.killpg(sandbox._process.pid, signal.SIGKILL)
    assert values(send(sandbox, RIGHT)) == [4, 6]


def test_a_sandbox_ended_in_the_middle_of_a_job(sandbox):
    """It is no fault of the job: it is run once more."""
    assert values(send(sandbox, RIGHT)) == [4, 6]
    first = sandbox._process.pid
    stop = threading.Timer(1.0, lambda: os.killpg(first, signal.SIGKILL))
    stop.start()
    assert values(send(sandbox, "import time\ntime.sleep(4)\n" + RIGHT)) == [4, 6]
    assert sandbox._process.pid != first


def test_sandboxes_in_threads(sandbox):
    found: dict[int, list] = {}

    def work(number: int):
        with Sandbox(LIBRARY, sandbox.tier) as one:
            found[number] = [values(send(one, f"def f(x): return {number}")) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: [[1, 1]] * 5, 2: [[2, 2]] * 5}
    assert values(send(sandbox, RIGHT)) == [4, 6]


def family(pid: int) -> list[Path]:
    """A process and all below it."""
    found, open_ones = [], [str(pid)]
    while open_ones:
        found.append(Path("/proc", open_ones.pop()))
        for task in (found[-1] / "task").glob("*"):
            with contextlib.suppress(OSError):
                open_ones += (task / "children").read_text().split()
    return found


def gone(processes: list[Path]) -> bool:
    """Whether, within the time that a job of ten seconds takes, none of them is left."""
    for _ in range(400):
        if not any(process.exists() for process in processes):
            return True
        time.sleep(0.05)
    return False


def test_nothing_is_left_when_a_sandbox_is_closed(sandbox):
    with Sandbox(("course_lib.device",), sandbox.tier) as one:
        folder, processes = one._path, family(one._process.pid)
        assert folder.is_dir() and len(processes) == (3 if one.tier == "bubblewrap" else 1)
    assert not folder.exists() and gone(processes)


def test_nothing_is_left_when_the_parent_is_killed_in_the_middle_of_a_job(sandbox):
    script = (
        "import sys\n"
        "from course_lib.classroom.grading.sandbox import Job, Sandbox, pack_cases\n"
        f"with Sandbox(('course_lib.models.muon',), {sandbox.tier!r}) as one:\n"
        "    print('ready', flush=True)\n"
        "    one.run(Job(('import time\\ntime.sleep(5)',), 'f', pack_cases([]), 5))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(COURSE.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout.readline() == b"ready\n"
        time.sleep(1)
        processes = family(parent.pid)
        assert len(processes) > 2
        parent.kill()
    assert gone(processes)


def test_memory_and_open_files_stay_flat(sandbox):
    def taken() -> tuple[int, int]:
        warm = Path("/proc", str(sandbox._process.pid))
        for _ in range(2 if sandbox.tier == "bubblewrap" else 0):
            # the eldest child: younger ones come and go
            warm = Path("/proc", (warm / "task" / warm.name / "children").read_text().split()[0])
        pages = int((warm / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))

    send(sandbox, RIGHT)
    memory, files = taken()
    for _ in range(40):
        send(sandbox, RIGHT)
    assert taken()[0] < memory + 5e6 and taken()[1] == files


# ---------------------------------------------------------------------- one child for each job


@pytest.fixture
def once(monkeypatch):
    """As where a process cannot fork: macOS, Windows, a container."""
    monkeypatch.setattr(worker, "forks", lambda tier: False)


def test_a_child_for_each_job(once):
    with Sandbox(LIBRARY, "process") as sandbox:
        reply = send(sandbox, "print('hello')\ndef f(x):\n    print(x)\n    return 2 * x")
        assert values(reply) == [4, 6] and reply.printed == "hello\n2\n3\n"
        assert send(sandbox, "import os\ndef f(x): os._exit(0)").status == CRASHED


def test_a_child_for_each_job_that_is_late(once, monkeypatch):
    monkeypatch.setattr(worker, "START_SECONDS", 1)
    monkeypatch.setattr(worker, "SPARE_SECONDS", 1)
    with Sandbox(LIBRARY, "process") as sandbox:
        source = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"
        assert send(sandbox, source, seconds=0.1).status == TIMEOUT


@pytest.mark.skipif(os.name != "posix", reason="the container's stand-in is a shell script")
def test_a_container_that_is_configured(tmp_path, monkeypatch):
    """Its stand-in runs what it is told to run in the image, and keeps what it was told."""
    client = tmp_path / "client"
    client.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/told\nshift 4\nexec env -i PATH="$PATH" "$@"\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv(tiers.CONTAINER, f"{client} run -v {{library}}:{{library}}:ro image")
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{python}:{os.environ['PATH']}")
    monkeypatch.setattr(tiers, "environment", without_path)
    with Sandbox(LIBRARY, "container") as sandbox:
        assert values(send(sandbox, RIGHT)) == [4, 6]
        told = (tmp_path / "told").read_text()
        assert f"-v {sandbox._path}:{sandbox._path}:ro image env PYTHON" in told
        assert re.search(r"timeout -s KILL \d+ python -s -P -m course_lib.*warm once", told)


def without_path(folder: Path) -> dict[str, str]:
    """The stand-in has no image, so `python` must be found on our own PATH."""
    found = ENVIRONMENT(folder)
    return {name: found[name] for name in found if name.startswith("PYTHON")}


ENVIRONMENT = tiers.environment


# ---------------------------------------------------------------------- the walls' own parts


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter_refuses_what_it_lists_and_allows_the_rest(machine):
    """The filter, run by hand: the kernel's own rules for BPF, in ten lines."""
    column, arch, clone, socket = seccomp.MACHINES[machine]
    refused, allowed = 0x50001, seccomp.ALLOW

    def word(number, first=0, machine=arch):
        seen, at, held = {0: number, 4: machine, 16: first}, 0, 0
        code = seccomp.program(machine_name)
        steps = [code[i : i + 8] for i in range(0, len(code), 8)]
        while True:
            kind, yes, no, k = struct.unpack("<HBBI", steps[at])
            at += 1
            if kind == seccomp.RETURN:
                return k
            if kind == seccomp.LOAD:
                held = seen[k]
            else:
                holds = {seccomp.EQUAL: held == k, seccomp.AT_LEAST: held >= k}
                at += yes if holds.get(kind, bool(held & k)) else no

    machine_name = machine
    for numbers in seccomp.REFUSED.values():
        assert word(numbers[column]) == refused
    listed = {numbers[column] for numbers in seccomp.REFUSED.values()}
    for number in set(range(400)) - listed - {clone, socket}:
        assert word(number) == allowed
    assert word(clone, 0x3D0F00) == word(clone, 17) == allowed  # a thread, a fork
    assert word(clone, 0x10000000 | 17) == word(clone, 0x20000) == refused
    assert word(socket, 1) == allowed and word(socket, 2) == word(socket, 40) == refused
    assert word(seccomp.CLONE3) == 0x50000 | 38
    assert word(0, machine=0x40000003) == seccomp.KILL


def test_the_module_of_the_walls_needs_no_pytorch(tmp_path):
    build_library(tmp_path, ())
    script = (
        "import course_lib.classroom.grading.sandbox.isolate, sys; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", script], env={"PYTHONPATH": tmp_path}, check=True)


def test_every_module_of_the_parent_can_be_imported_where_there_is_no_linux():
    script = (
        "import sys, subprocess, tempfile, course_lib.exercises.engine.judge, course_lib.places;"
    )
    script += "sys.platform = 'win32'; sys.modules['resource'] = None;"
    script += "from course_lib.classroom.grading.sandbox import best_tier; print(best_tier())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=COURSE.parent)
    assert done.stdout.split() == [b"process"], done.stderr
