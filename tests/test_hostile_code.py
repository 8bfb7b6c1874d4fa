"""Submitted code that wants more than to be right. Rows 1 to 31 of the table of hostile inputs, and
others: none gains a point, none is noticed by the next submission, the neighbour or the host."""

import functools
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import hypothesis
import pytest
import torch

from course_lib.classroom.grading.sandbox import (
    BAD_TYPE,
    CRASHED,
    EXITED,
    MEMORY,
    PROTOCOL_ERROR,
    TIMEOUT,
    Job,
    Sandbox,
    best_tier,
    pack_cases,
    tiers,
)
from course_lib.exercises.engine.judge import judge
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Property

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ("course_lib.data.batches",)
SECRET = "COURSE_TEST_SECRET"
RIGHT = "def double(x):\n    return 2 * x"


def double(x):
    """Twice as much."""
    return 2 * x


def cases(seed: int) -> list[Case]:
    draw = Draw(seed)
    return [Case(f"length {n}", {"x": draw.normal(n)}) for n in (3, 1, 5)]


EXERCISE = Exercise(double, cases, hints=())
CASES = EXERCISE.cases(20261126)
PACKED = pack_cases(CASES)


@pytest.fixture(scope="module")
def sandbox():
    if best_tier() != "bubblewrap":
        pytest.skip("bubblewrap does not work on this machine")
    os.environ[SECRET] = "do not read me"
    with Sandbox(LIBRARY, "bubblewrap") as one:
        yield one
    del os.environ[SECRET]


def send(sandbox, source: str, seconds: float = 5.0):
    """The reply to one answer."""
    return sandbox.run(Job((textwrap.dedent(source),), "double", PACKED, seconds))


def verdict(reply) -> str:
    """A status of the sandbox, or the judge's."""
    return reply.status or judge(EXERCISE, CASES, list(reply.outcomes)).status


def told(sandbox, source: str, seconds: float = 20.0):
    """What a function `look()` in the source gives, called in the sandbox."""
    source = textwrap.dedent(source) + "\ndef double(x):\n    return look()"
    reply = send(sandbox, source, seconds)
    assert reply.status == "" and not reply.outcomes[0].error, (reply.outcomes, reply.text)
    return reply.outcomes[0].value


def still_right(sandbox) -> bool:
    """Whether a right answer still passes, whatever came before."""
    return verdict(send(sandbox, RIGHT, 20)) == "passed"


def family(sandbox) -> list[str]:
    """The processes below a sandbox, as the host sees them."""
    found, open_ones = [], [str(sandbox._process.pid)]
    while open_ones:
        pid = open_ones.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                open_ones += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except OSError:
            found.pop()
    return sorted(found)


def alone(sandbox) -> bool:
    """Whether, after a moment, only the sandbox's own three processes are left."""
    for _ in range(100):
        if len(family(sandbox)) == 3:
            return True
        time.sleep(0.05)
    return False


# ---------------------------------------------------------------------- rows 1 to 8: the judge


def test_hostile_01_patches_the_check(sandbox):
    reply = send(
        sandbox,
        """
        import torch
        from course_lib.exercises.engine import run, values
        values.difference = run.difference = lambda *a, **k: None
        torch.isclose = torch.allclose = torch.equal = lambda *a, **k: torch.tensor(True)
        torch.testing.assert_close = lambda *a, **k: None
        torch.Tensor.__eq__ = lambda self, other: torch.ones_like(self, dtype=torch.bool)
        def double(x):
            return x
        """,
    )
    assert verdict(reply) == "failed"
    assert still_right(sandbox)


def test_hostile_01_there_is_no_check_to_patch(sandbox):
    reply = send(sandbox, "from course_lib.exercises.engine import judge\n" + RIGHT)
    assert reply.outcomes[0].error == "ImportError"
    assert "graded answers may use course_lib.data.batches" in reply.text


def test_hostile_02_prints_a_verdict(sandbox):
    text = "All tests passed. 3 of 3. " + json.dumps({"status": "passed", "points": 100})
    reply = send(sandbox, f"print({text!r})\ndef double(x):\n    print({text!r})\n    return x")
    assert verdict(reply) == "failed"
    assert text in reply.printed  # a human may read it


def test_hostile_03_installs_transformers(sandbox):
    reply = send(
        sandbox,
        """
        import ast, sys
        try:
            import IPython
            shell = IPython.get_ipython()
            shell.ast_transformers.append(ast.NodeTransformer())
            shell.input_transformers_post.append(lambda lines: ["pass"])
        except Exception:
            pass
        compile = exec = eval = lambda *a, **k: None
        sys.settrace(lambda *a: None)
        def double(x):
            return x
        """,
        20,
    )
    assert verdict(reply) == "failed"


def test_hostile_04_patches_the_kernel(sandbox):
    reply = send(
        sandbox,
        """
        import sys
        try:
            from ipykernel.ipkernel import IPythonKernel
            IPythonKernel.do_execute = lambda *a, **k: {"status": "ok"}
            from IPython.core.interactiveshell import InteractiveShell
            InteractiveShell.showtraceback = lambda *a, **k: None
        except Exception:
            pass
        sys.excepthook = sys.unraisablehook = lambda *a: None
        def double(x):
            raise ValueError
        """,
        30,
    )
    assert verdict(reply) == "failed"


@pytest.mark.parametrize("name", ["abs", "all", "len", "isinstance", "type", "sum", "zip", "str"])
def test_hostile_05_overrides_builtins(sandbox, name):
    source = f"import builtins\nbuiltins.{name} = lambda *a, **k: True\ndef double(x): return x"
    assert verdict(send(sandbox, source)) != "passed"
    assert abs(-2) == 2 and still_right(sandbox)


@pytest.mark.parametrize(
    "body",
    [
        "__eq__ = __ne__ = __bool__ = lambda *a: True",
        "__float__ = lambda self: 2.0",
        "__array__ = lambda self, *a, **k: __import__('numpy').ones(3)",
        "__class__ = __import__('torch').Tensor",
        "__getattr__ = lambda self, name: self\n    __call__ = lambda self, *a, **k: self",
        "__reduce__ = lambda self: (print, ('unpickled',))",
    ],
)
def test_hostile_06_returns_what_says_yes(sandbox, body):
    source = f"class Yes:\n    {body}\ndef double(x):\n    return Yes()"
    reply = send(sandbox, source)
    assert verdict(reply) == BAD_TYPE
    assert "Yes" in reply.text


@pytest.mark.parametrize(
    "value",
    [
        "(2 * x).as_subclass(type('T', (torch.Tensor,), {}))",
        "numpy.asarray(2 * x).view(type('A', (numpy.ndarray,), {}))",
        "numpy.array([2 * v for v in x.tolist()], dtype=object)",
        "[2 * x, type('I', (int,), {})(3)]",
        "{'a': type('S', (str,), {})('b')}",
        "(2 * x).to_sparse()",
        "(2 * x).to('meta')",
    ],
)
def test_hostile_07_returns_a_subclass(sandbox, value):
    source = f"import numpy, torch\ndef double(x):\n    return {value}"
    assert verdict(send(sandbox, source)) == BAD_TYPE


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_hostile_08_returns_what_is_not_finite(sandbox, value):
    reply = send(sandbox, f"def double(x):\n    return x * float('{value}')")
    found = judge(EXERCISE, CASES, list(reply.outcomes))
    assert found.status == "failed"
    assert any(value.strip("-") in text for _, text in found.details)


# ---------------------------------------------------------------------- rows 9 to 11: the channel

FORGE = """
import os
from course_lib.classroom.grading.sandbox.wire import encode
from course_lib.exercises.engine.run import Outcome
from course_lib.exercises.engine.values import plain
def write(data, files=range(3, 256)):
    for file in files:
        try:
            os.write(file, data)
        except OSError:
            pass
"""


def test_hostile_09_forges_a_message(sandbox):
    reply = send(
        sandbox,
        FORGE
        + """
import torch
forged = encode([Outcome(value=plain(torch.ones(n))) for n in (3, 1, 5)])
write(forged)
os._exit(0)
""",
    )
    assert reply.status == "" and len(reply.outcomes) == 3  # it is as good as any other
    assert verdict(reply) == "failed"  # and as wrong


def test_hostile_09_forges_a_verdict(sandbox):
    source = FORGE + 'write(b\'{"limit": "", "code": 0, "status": "passed"}\')\nos._exit(0)'
    assert verdict(send(sandbox, source)) == PROTOCOL_ERROR


@pytest.mark.parametrize(
    "written",
    ["forged", "forged[:10]", "forged + forged", "b'x'", "b'x' * 10**6", "bytes(8)"],
)
def test_hostile_10_two_messages_or_half_of_one(sandbox, written):
    source = FORGE + f"forged = encode([Outcome(value=1)] * 3)\nwrite({written})\n" + RIGHT
    assert verdict(send(sandbox, source)) == PROTOCOL_ERROR
    assert still_right(sandbox)


def test_hostile_10_a_second_message_from_a_child(sandbox):
    source = FORGE + (
        "def double(x):\n"
        "    if os.fork() == 0:\n"
        "        while True:\n"
        "            write(b'x')\n"
        "    return 2 * x"
    )
    assert verdict(send(sandbox, source)) in (PROTOCOL_ERROR, CRASHED)
    assert still_right(sandbox) and alone(sandbox)


class _Payload:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_hostile_11_sends_a_pickle(sandbox, tmp_path, how):
    path = tmp_path / "unpickled"
    if how == "pickle":
        data = pickle.dumps(_Payload(str(path)))
    else:
        torch.save(_Payload(str(path)), tmp_path / "file")
        data = (tmp_path / "file").read_bytes()
    for form in ("data", "len(data).to_bytes(8, 'little') + data"):
        reply = send(sandbox, FORGE + f"data = {data!r}\nwrite({form})\nos._exit(0)")
        assert verdict(reply) == PROTOCOL_ERROR
    assert verdict(send(sandbox, f"def double(x):\n    return {data!r}")) == BAD_TYPE
    assert not path.exists()


def test_hostile_a_reply_of_ten_gigabytes(sandbox):
    began = time.monotonic()
    source = FORGE + "while True:\n    os.write(3, bytes(2**20))"
    assert verdict(send(sandbox, source, 2)) in (PROTOCOL_ERROR, CRASHED, TIMEOUT)
    for size, status in ((10 * 2**30, "failed"), (60 * 2**20, PROTOCOL_ERROR)):
        sparse = FORGE + f"os.ftruncate(3, {size})\nos._exit(0)"
        assert verdict(send(sandbox, sparse, 2)) == status  # the first is refused by the kernel
    assert time.monotonic() - began < 60
    assert still_right(sandbox)


def test_hostile_a_value_of_nested_lists(sandbox):
    source = "def double(x):\n    a = []\n    for _ in range(10**5):\n        a = [a]\n    return a"
    assert verdict(send(sandbox, source)) == BAD_TYPE
    source = "def double(x):\n    a = []\n    a.append(a)\n    return a"
    assert verdict(send(sandbox, source)) == BAD_TYPE
    source = (
        "def double(x):\n    a = []\n    for _ in range(18):\n        a = [a, a, a]\n    return a"
    )
    assert verdict(send(sandbox, source, 2)) in (TIMEOUT, MEMORY, CRASHED, PROTOCOL_ERROR)
    assert still_right(sandbox)


def test_hostile_a_patched_encoder(sandbox):
    source = """
    import torch
    from course_lib.exercises.engine import run, values
    from course_lib.classroom.grading.sandbox import answer, wire
    values.plain = run.plain = lambda *a: "whatever you expect"
    answer.encode = lambda outcomes, text="", ended="": wire.encode(outcomes, "passed")
    def double(x):
        return 2 * x
    """
    assert verdict(send(sandbox, source)) == "failed"


def test_hostile_lone_surrogates_everywhere(sandbox):
    source = "print('\\ud800')\ndef double(x):\n    raise ValueError('\\udfff' * 9)"
    reply = send(sandbox, source)
    for text in (reply.printed, reply.outcomes[0].message):
        text.encode("utf-8")
    assert verdict(reply) == "failed"


# ---------------------------------------------------------------------- rows 12 to 16: secrets


def test_hostile_12_reads_tests_and_solutions(sandbox):
    places = [ROOT / n for n in ("", "tests", "solutions", "notebooks", "course_lib", ".git")]
    places += [Path.home() / n for n in (".ssh", ".bashrc", ".local")]
    places += [Path(n) for n in ("/etc/passwd", "/etc/shadow", "/home", "/var", "/mnt", "/opt")]
    there = [str(path) for path in places if path.exists()]
    assert len(there) > 6
    look = f"import os\ndef look():\n    return [p for p in {there} if os.path.exists(p)]"
    pythons = [Path(sys.prefix), Path(sys.base_prefix)]  # the way to Python itself is there
    inside = [p for p in there if any(python.is_relative_to(p) for python in pythons)]
    assert told(sandbox, look) == inside
    look = """
    import os
    def look():
        found = []
        for folder, folders, files in os.walk("/"):
            folders[:] = [f for f in folders if folder != "/" or f not in ("usr", "sys", "dev")]
            folders[:] = [f for f in folders if not f.startswith("python3.")]
            found += [f for f in files if f.startswith("05_linear")]
            found += [f for f in folders if f in ("solutions", "linear_quantization", ".git")]
        return found
    """
    assert told(sandbox, look, 60) == []


def test_hostile_12_reads_the_course_where_pip_put_it(sandbox, monkeypatch):
    """A folder among Python's own, which the child sees, stands for the installed course."""
    course = Path(hypothesis.__file__).parent
    look = f"import os\ndef look(): return os.listdir({str(course)!r})"
    assert "__init__.py" in told(sandbox, look)
    monkeypatch.setattr(tiers, "COURSE", course)
    with Sandbox(LIBRARY, "bubblewrap") as other:
        assert told(other, look) == []


def test_hostile_13_looks_for_secrets_in_the_process(sandbox):
    look = """
    import gc, inspect, linecache, sys
    def look():
        kinds = {"Exercise", "Misconception", "Property", "Verdict"}
        found = [type(o).__name__ for o in gc.get_objects() if type(o).__name__ in kinds]
        frame, names = sys._getframe(), set()
        while frame:
            names |= set(frame.f_locals)
            frame = frame.f_back
        found += sorted(names & {"seed", "expected", "reference", "exercise", "verdict"})
        found += [m for m in sys.modules if "exercises." in m and "engine" not in m]
        text = "".join("".join(linecache.getlines(f)) for f in list(linecache.cache))
        return found + [w for w in ("Twice as" + " much", "2026" + "1126") if w in text]
    """
    assert told(sandbox, look) == []


def test_hostile_14_reads_other_processes(sandbox):
    look = f"""
    import ctypes, os
    def look():
        environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
        names, i = [], 0
        while environ[i]:
            names.append(environ[i].split(b"=")[0].decode())
            i += 1
        secret = os.environ.get({SECRET!r}, "")
        return [os.listdir("/proc"), secret, {SECRET!r} in names, sorted(os.environ)]
    """
    processes, secret, known, names = told(sandbox, look)
    assert (processes, secret, known) == ([], "", False)
    assert set(names) <= {"PATH", "HOME", "LANG", "PWD", "LC_CTYPE"} | {
        n for n in names if n.startswith(("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TORCH"))
    }


def test_hostile_14_the_parents_command_line(sandbox):
    look = """
    import os
    def look():
        found = []
        for pid in range(1, 300):
            for name in ("cmdline", "environ", "fd", "root", "mem", "maps"):
                found += [pid] if os.path.exists(f"/proc/{pid}/{name}") else []
        return [found, os.path.exists("/proc/self"), os.path.exists("/dev/fd/3")]
    """
    assert told(sandbox, look) == [[], False, False]


@pytest.mark.parametrize(
    "name",
    ["solutions", "course_lib.exercises.catalogue", "course_lib.exercises.linear_quantization"]
    + ["course_lib.exercises.engine.judge", "course_lib.exercises.engine.notebook"]
    + ["course_lib.quantization.linear", "course_lib.classroom.build", "course_lib.sources.claims"],
)
def test_hostile_15_imports_the_reference(sandbox, name):
    reply = send(sandbox, f"import {name}\n" + RIGHT)
    assert reply.outcomes[0].error in ("ImportError", "ModuleNotFoundError")


def test_hostile_15_imports_it_by_path_and_by_hook(sandbox):
    look = f"""
    import importlib.util, os, sys
    def look():
        found = []
        sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "_Library"]
        sys.path += [{str(ROOT)!r}, {str(ROOT.parent)!r}, "/", "/work/main", ".."]
        for name in ("quantization.linear", "exercises.engine.judge", "classroom.build"):
            try:
                found.append(importlib.util.find_spec("course_lib." + name))
            except ImportError:
                pass
        return [f for f in found if f]
    """
    assert told(sandbox, look) == []


def test_hostile_16_wants_hidden_labels(sandbox):
    labels = torch.tensor([7.0, 77.0, 777.0])
    hits = Property("most are right", lambda inputs, value: (value == labels).float().mean() > 0.5)
    exercise = Exercise(double, lambda seed: [Case("", {"x": torch.ones(3)})], (), (), (hits,))
    source = """
    import gc, torch
    def double(x):
        tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.numel() == 3]
        return next((t for t in tensors if 777.0 in t.tolist()), x)
    """
    packed = pack_cases(exercise.cases(0))
    reply = sandbox.run(Job((textwrap.dedent(source),), "double", packed, 10))
    assert b"777" not in packed and labels.numpy().tobytes() not in packed
    assert judge(exercise, exercise.cases(0), list(reply.outcomes)).status == "failed"


# ---------------------------------------------------------------------- rows 17 to 25: the clock


def test_hostile_17_patches_time(sandbox):
    source = """
    import signal, time
    time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
    signal.setitimer = signal.alarm = lambda *a: 0
    def double(x):
        while True: pass
    """
    began = time.monotonic()
    assert verdict(send(sandbox, source, 0.5)) == TIMEOUT
    assert time.monotonic() - began > 0.5


def test_hostile_18_reports_its_own_size(sandbox):
    source = """
    import torch
    torch.Tensor.numel = torch.Tensor.nelement = lambda self: 1
    torch.count_nonzero = torch.Tensor.count_nonzero = lambda *a, **k: torch.tensor(0)
    def double(x):
        return x
    """
    reply = send(sandbox, source)
    assert reply.outcomes[0].value.data.numel() == 3
    assert int(reply.outcomes[0].value.data.count_nonzero()) == 3


@pytest.mark.parametrize("how", ["sys.exit(0)", "raise SystemExit('passed')", "exit()", "quit(0)"])
def test_hostile_19_exits(sandbox, how):
    assert verdict(send(sandbox, f"import sys\ndef double(x):\n    {how}")) == EXITED
    assert verdict(send(sandbox, f"import sys\n{how}\n" + RIGHT)) == EXITED


CRASHES = {
    "exit": "os._exit(0)",
    "exit with a code": "os._exit(3)",
    "segmentation fault": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "kills itself": "os.kill(os.getpid(), 9)",
    "becomes another program": "os.execv('/bin/true', ['true'])",
}


@pytest.mark.parametrize("how", CRASHES)
def test_hostile_20_crashes(sandbox, how):
    assert still_right(sandbox)  # an earlier exercise keeps its points
    for place in ("", "def double(x):\n    "):
        reply = send(sandbox, f"import ctypes, os\n{place}{CRASHES[how]}\n")
        assert verdict(reply) == CRASHED
        assert reply.text
    assert still_right(sandbox)


def test_hostile_20_kills_whom_it_can(sandbox):
    source = """
    import contextlib, os
    for pid in {-1, 0x7fff, *range(1, 99)} - {os.getpid()}:
        with contextlib.suppress(OSError):
            os.kill(pid, 9)
    def double(x):
        return 2 * x
    """
    assert verdict(send(sandbox, source)) == "passed"
    assert still_right(sandbox)


def test_hostile_21_never_ends(sandbox):
    reply = send(sandbox, "def double(x):\n    while True: pass", 0.5)
    assert verdict(reply) == TIMEOUT
    assert "is there a loop that never ends?" in reply.text
    assert verdict(send(sandbox, "while True: pass\n" + RIGHT, 0.5)) == TIMEOUT


def test_hostile_22_ignores_signals(sandbox):
    source = """
    import signal
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True: pass
    """
    assert verdict(send(sandbox, source, 0.5)) == TIMEOUT
    assert alone(sandbox) and still_right(sandbox)


@pytest.mark.parametrize("place", ["", "def double(x):\n  "])
def test_hostile_23_swallows_every_exception(sandbox, place):
    source = place + "while True:\n    try:\n      while True: pass\n    except BaseException: pass"
    assert verdict(send(sandbox, source, 0.5)) == TIMEOUT
    assert alone(sandbox)


def test_hostile_24_sleeps(sandbox):
    source = "import time\ndef double(x):\n    time.sleep(10**6)"
    assert verdict(send(sandbox, source, 0.5)) == TIMEOUT
    source = "import ctypes\ndef double(x):\n    ctypes.CDLL(None).pause()"
    assert verdict(send(sandbox, source, 0.5)) == TIMEOUT
    source = "import os, signal\ndef double(x):\n    os.kill(os.getpid(), signal.SIGSTOP)"
    assert verdict(send(sandbox, source, 0.5)) == TIMEOUT
    assert alone(sandbox) and still_right(sandbox)


def test_hostile_25_leaves_something_to_run_later(sandbox):
    source = """
    import atexit, threading, time
    atexit.register(time.sleep, 1000)
    def later():
        time.sleep(1000)
    threading.Thread(target=later, daemon=False).start()
    class Late:
        def __del__(self): time.sleep(1000)
    late = Late()
    def double(x):
        return 2 * x
    """
    began = time.monotonic()
    assert verdict(send(sandbox, source)) == "passed"
    assert time.monotonic() - began < 20
    assert alone(sandbox)


def test_hostile_many_steps_that_are_none(sandbox):
    """The way to say "the next case begins" gives no more time than all cases have."""
    source = """
    import os, time
    while True:
        try:
            os.write(4, b".")
            time.sleep(0.1)
        except BaseException: pass
    """
    began = time.monotonic()
    assert verdict(send(sandbox, source, 0.2)) == TIMEOUT
    assert time.monotonic() - began < 20


# ---------------------------------------------------------------------- rows 26 to 31: the machine


def test_hostile_26_leaves_a_daemon(sandbox):
    source = """
    import os, signal, time
    def double(x):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                for _ in range(10**6):
                    open("/tmp/alive", "w").write("here")
                    time.sleep(0.01)
            os._exit(0)
        time.sleep(0.1)
        return 2 * x
    """
    assert verdict(send(sandbox, source)) == "passed"
    assert alone(sandbox)
    assert told(sandbox, "import os\ndef look(): return os.listdir('/tmp')") == []


BOMBS = {
    "forks": """
        import os
        while True:
            try: os.fork()
            except OSError: pass
    """,
    "threads": """
        import threading, time
        while True:
            try: threading.Thread(target=time.sleep, args=(1000,)).start()
            except RuntimeError: pass
    """,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_hostile_27_a_bomb_of(sandbox, kind):
    most, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            tasks = 0
            for pid in family(sandbox):
                try:
                    tasks += len(os.listdir(f"/proc/{pid}/task"))
                except OSError:
                    continue
            most[0] = max(most[0], tasks)

    with Sandbox(LIBRARY, "bubblewrap") as neighbour:
        watcher = threading.Thread(target=count)
        watcher.start()
        bomb = threading.Thread(target=lambda: found.append(send(sandbox, BOMBS[kind], 4)))
        found = []
        bomb.start()
        while bomb.is_alive():
            assert verdict(send(neighbour, RIGHT, 30)) == "passed"
        bomb.join()
        stop.set()
        watcher.join()
    assert verdict(found[0]) in (TIMEOUT, MEMORY)
    assert 5 < most[0] < 30
    assert alone(sandbox) and still_right(sandbox)


def test_hostile_27_how_many_processes_there_may_be(sandbox):
    look = """
    import os
    def look():
        n = 0
        try:
            while n < 1000:
                os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
                n += 1
        except OSError:
            return n
    """
    assert 10 < told(sandbox, look) < 16
    nested = "import ctypes\ndef look(): return ctypes.CDLL(None).unshare(0x10000000)"
    assert told(sandbox, nested) == -1


MEMORY_BOMBS = {
    "objects": "while True: held.append(bytearray(10**8))",
    "a tensor": "held.append(torch.ones(10**11))",
    "many tensors": "while True: held.append(torch.ones(10**8))",
    "a list": "held = [0] * 10**12",
    "shared memory": "while True: m = mmap.mmap(-1, 10**8); m.write(bytes(10**8)); held.append(m)",
    "processes": "os.fork(); os.fork(); held.append(bytearray(b'x') * 10**9); time.sleep(100)",
}


@pytest.mark.parametrize("kind", MEMORY_BOMBS)
def test_hostile_28_a_memory_bomb_of(sandbox, kind):
    start = "import mmap, os, time, torch\ndef double(x):\n    held = []\n    "
    assert verdict(send(sandbox, start + MEMORY_BOMBS[kind], 60)) == MEMORY
    assert still_right(sandbox)


def test_hostile_28_memory_beside_the_limits(sandbox):
    look = """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    def look():
        found = [libc.shmget(0, 10**6, 0o1600), libc.syscall(319, b"a", 0)]
        found += [libc.semget(0, 1, 0o1600), libc.msgget(0, 0o1600)]
        return found
    """
    assert told(sandbox, look) == [-1, -1, -1, -1]


def test_hostile_29_fills_the_disk(sandbox):
    look = """
    import os
    def look():
        written = 0
        for number in range(10):
            try:
                with open(f"/tmp/{number}", "wb", buffering=0) as file:
                    while True:
                        written += file.write(bytes(2**20))
            except OSError:
                pass
        for file in range(3, 30):
            try: os.posix_fallocate(file, 0, 2**40)
            except OSError: pass
        return written
    """
    assert told(sandbox, look, 60) <= 2 * 64 * 2**20
    look = """
    import os
    def look():
        found = []
        for folder in ("/", "/course", "/course/course_lib", "/dev", "/usr", "/proc", "/sys",
                       "/etc", "/bin", "/dev/pts", os.path.dirname(os.__file__)):
            try:
                open(os.path.join(folder, "mark"), "w").close()
                found.append(folder)
            except OSError: pass
        return found
    """
    assert told(sandbox, look) == []


def test_hostile_30_prints_a_gigabyte(sandbox):
    source = """
    import sys
    line = "x" * 10**6
    for _ in range(1000):
        try: sys.stdout.write(line)
        except OSError: pass
    def double(x):
        return 2 * x
    """
    reply = send(sandbox, source, 30)
    assert len(reply.printed) <= 4000 and set(reply.printed) == {"x"}
    assert verdict(reply) == "passed"


def test_hostile_31_wants_the_network(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0course-test")
        local.listen()
        look = f"""
        import socket
        def look():
            found = []
            for family, address in ((socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
                                    (socket.AF_INET, ("1.1.1.1", 53)),
                                    (socket.AF_INET6, ("::1", {server.getsockname()[1]})),
                                    (socket.AF_VSOCK, (2, 1)),
                                    (socket.AF_UNIX, "\\0course-test")):
                try:
                    with socket.socket(family, socket.SOCK_STREAM) as one:
                        one.settimeout(2)
                        one.connect(address)
                    found.append(str(address))
                except OSError:
                    pass
            return found
        """
        socket.create_connection(server.getsockname()).close()
        assert told(sandbox, look) == []


# ---------------------------------------------------------------------- beyond the table


def test_hostile_40_a_right_answer_that_warns(sandbox):
    source = """
    import sys, warnings
    import numpy as np
    warnings.simplefilter("error")
    warnings.warn("deprecated", DeprecationWarning) if False else None
    print("a line"); print("another", file=sys.stderr)
    def double(x):
        warnings.warn("this is only a warning")
        np.float32(1) / np.float32(0)
        print("working", flush=True)
        print("on it", file=sys.stderr)
        return 2 * x
    """
    reply = send(sandbox, source)
    assert verdict(reply) == "passed"
    assert "a line" in reply.printed and "working" in reply.printed


NEXT = {  # what one job does -> what the next one must not find
    "open('/tmp/mark', 'w').write('x')": "os.path.exists('/tmp/mark')",
    "open('/dev/shm/mark', 'w').write('x')": "os.path.exists('/dev/shm/mark')",
    "os.symlink('/course', '/tmp/course_lib')": "os.path.lexists('/tmp/course_lib')",
    "open('/tmp/torch.py', 'w').write('1/0')": "'/tmp' in torch.__file__",
    "torch.mark = 1": "hasattr(torch, 'mark')",
    "os.environ['MARK'] = 'x'": "'MARK' in os.environ",
    "os.setpriority(0, 0, 19)": "os.getpriority(0, 0) == 19",
    "os.umask(0)": "os.umask(0o22) == 0",
    "resource.setrlimit(7, (9, 9))": "resource.getrlimit(7)[0] < 10",
    "torch.set_default_dtype(torch.float64)": "torch.get_default_dtype() != torch.float32",
    "torch.manual_seed(4711)": "torch.initial_seed() == 4711",
    "call(248, b'user', b'mark', b'x', 1, -3)": "call(250, 10, -3, b'user', b'mark', 0) > 0",
}


@pytest.mark.parametrize("what", NEXT)
def test_hostile_leaves_to_the_next_job(sandbox, what):
    start = "import ctypes, os, resource, torch\ncall = ctypes.CDLL(None).syscall\n"
    assert verdict(send(sandbox, start + what + "\n" + RIGHT)) == "passed"
    assert told(sandbox, start + f"def look(): return bool({NEXT[what]})") is False


@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="root alone may look into it")
def test_hostile_reads_the_other_jobs_answers(sandbox):
    """The warm process, from which every job is copied, never held a job."""
    mark = "".join(f"{n:03x}" for n in range(400, 600))
    send(sandbox, f"mark = {mark!r}\n" + RIGHT)
    assert alone(sandbox)
    warm = family(sandbox)
    found = searched = 0
    for pid in warm:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                place, rights = line.split()[:2]
                start, end = (int(x, 16) for x in place.split("-"))
                if rights.startswith("rw") and start < 2**47:
                    memory.seek(start)
                    part = memory.read(end - start)
                    searched += len(part)
                    found += mark[:100].encode() in part
    assert searched > 10**7 and found == 0


def test_hostile_open_files_of_others(sandbox):
    look = """
    import fcntl, os
    def look():
        found = []
        for file in range(1024):
            try:
                os.fstat(file)
                found.append(file)
            except OSError: pass
        return found
    """
    assert told(sandbox, look) == [0, 1, 2, 3, 4]


def test_hostile_wants_rights(sandbox):
    look = """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    def tried(name, *arguments):
        try: return getattr(os, name)(*arguments)
        except OSError: return "refused"
    def look():
        head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.capget(head, data)
        libc.syscall.restype = ctypes.c_long
        return {
            "capabilities": list(data),
            "no new privileges": libc.prctl(39, 0, 0, 0, 0),
            "looked into": libc.prctl(3, 0, 0, 0, 0),
            "bounding": sum(libc.prctl(23, n, 0, 0, 0) == 1 for n in range(41)),
            "ptrace 1": libc.ptrace(16, 1, 0, 0),
            "kill 1": libc.kill(1, 9),
            "mount": libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None),
            "umount": libc.umount2(b"/proc", 2),
            "chroot": tried("chroot", "/tmp"),
            "setuid": tried("setuid", 0),
            "setns": libc.setns(3, 0),
            "unshare": libc.unshare(0x20000),
            "bpf": libc.syscall(321, 0, 0, 0),
            "io_uring": libc.syscall(425, 1, 0),
            "renice": tried("setpriority", 0, 0, -5),
            "mknod": tried("mknod", "/tmp/d", 0o060666, os.makedev(8, 0)),
            "hostname": libc.sethostname(b"x", 1),
            "alive": os.getppid(),
        }
    """
    found = told(sandbox, look)
    assert found["capabilities"] == [0] * 6
    assert (found["no new privileges"], found["looked into"], found["bounding"]) == (1, 0, 0)
    assert found["alive"] == 1
    refused = {"kill 1", "capabilities", "no new privileges", "looked into", "bounding", "alive"}
    assert {name: found[name] for name in found if name not in refused} == {
        name: "refused" if name in ("chroot", "setuid", "renice", "mknod") else -1
        for name in found
        if name not in refused
    }
    assert still_right(sandbox)


def test_hostile_raises_its_limits(sandbox):
    look = """
    import resource
    def look():
        found = []
        for name in ("AS", "NPROC", "FSIZE", "NOFILE", "CPU", "CORE"):
            try:
                resource.setrlimit(getattr(resource, "RLIMIT_" + name), (-1, -1))
                found.append(name)
            except (ValueError, OSError): pass
        return found
    """
    assert told(sandbox, look) == []


def test_hostile_programs_that_give_rights(sandbox):
    if not shutil.which("su"):
        pytest.skip("no program here gives rights")
    look = """
    import subprocess
    def look():
        silent = dict(capture_output=True, stdin=subprocess.DEVNULL)
        return subprocess.run(["su", "-c", "id"], **silent).returncode
    """
    assert told(sandbox, look) != 0


def test_hostile_talks_to_a_neighbour(sandbox):
    """Two submissions that run at once do not find each other."""
    source = """
    import os, socket, time
    def look():
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.bind("\\0meeting")
            except OSError:
                return "met"
            open("/tmp/meeting", "w").close()
            time.sleep(3)
            return os.listdir("/tmp")
    """
    with Sandbox(LIBRARY, "bubblewrap") as neighbour:
        found = []
        threads = [
            threading.Thread(target=lambda one=one: found.append(told(one, source)))
            for one in (sandbox, neighbour)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [["meeting"], ["meeting"]]


def test_hostile_recursion(sandbox):
    reply = send(sandbox, "def double(x):\n    return double(x)")
    assert reply.outcomes[0].error == "RecursionError"
    source = "import sys\nsys.setrecursionlimit(10**8)\ndef double(x):\n    "
    source += "return eval('double(x)', globals(), locals())"
    assert verdict(send(sandbox, source)) in (CRASHED, MEMORY, TIMEOUT, "failed")
    assert still_right(sandbox)


def test_hostile_exceptions_that_bite(sandbox):
    source = """
    class Bad(Exception):
        def __str__(self): raise SystemExit
    def double(x):
        raise Bad
    """
    assert verdict(send(sandbox, source)) in ("failed", EXITED)
    for name in ("KeyboardInterrupt", "GeneratorExit", "BaseException"):
        assert verdict(send(sandbox, f"def double(x):\n    raise {name}")) == CRASHED
    assert still_right(sandbox)


def test_hostile_names_that_are_odd(sandbox):
    for name in ("", "no name", "__builtins__", "os.system", "𝓭ouble"):
        reply = sandbox.run(Job((RIGHT,), name, PACKED, 2))
        assert verdict(reply) != "passed"


@pytest.mark.parametrize(
    "source", ["\0", "\ud800", "(" * 10**5, "x = " + "1+" * 10**5 + "1", "é" * 10]
)
def test_hostile_source_that_is_no_python(sandbox, source):
    assert verdict(send(sandbox, source)) != "passed"
    assert still_right(sandbox)


def test_the_host_is_as_it_was(sandbox):
    """After all that: only the sandbox's own processes, and no file of its jobs."""
    assert alone(sandbox)
    assert not Path("/tmp/alive").exists() and not Path("/tmp/meeting").exists()
    listed = functools.partial(subprocess.run, capture_output=True, text=True)
    assert "mark" not in listed(["ipcs", "-a"]).stdout if shutil.which("ipcs") else True
