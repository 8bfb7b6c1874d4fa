"""What `make bench` found, as data and as a page: results.json and RESULTS.md.

Every section stays as it was last run, with its own day, load and command, so one can be run anew.
"""

import json
import math
import os
import platform
import statistics
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.measuring import Comparison

FOLDER = Path(__file__).resolve().parent
STORE, PAGE = FOLDER / "results.json", FOLDER / "RESULTS.md"
BUSY = 0.5  # of a core, used by others before the run begins
SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "i8mm")
EXTRA = "no package of the course; `pip install` it, and its rows appear"
PEERS = {  # package -> why it may be missing
    "torch": "",
    "torchao": "",
    "scikit-learn": "",
    "datasketch": "",
    "dahuffman": "",
    "nbgrader": "",
    "ckwrap": EXTRA,
    "hqq": EXTRA,
    "rensa": EXTRA,
}
NOT_RUN = {
    "optimum-quanto": "compiles kernels; its packing is re-stated in `benchmarks/quantization.py`",
    "GPTQ, SparseGPT, Wanda, AWQ": "the authors' code is written for CUDA; the algorithms are "
    "re-stated in `benchmarks/authors.py`",
    "L0Dense": "the authors' layer is no package; its formulas are re-stated",
    "otter-grader": "wants a file of tests of its own for each question",
}


def machine() -> dict[str, str]:
    """The machine and the versions, in words."""
    flags = set(_cpu_line("flags").split()) | set(_cpu_line("Features").split())
    return {
        "processor": _cpu_line("model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "instruction sets": ", ".join(name for name in SETS if name in flags) or "unknown",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "PyTorch": version("torch"),
        "NumPy": version("numpy"),
    }


def peers() -> dict[str, str]:
    """The version of each peer, or why there is none."""
    return {name: _version(name, why) for name, why in PEERS.items()} | {
        name: f"not run: {why}" for name, why in NOT_RUN.items()
    }


def _version(name: str, why: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"not installed here: {why or 'make test brings it'}"


def _cpu_line(key: str) -> str:
    """The first line of /proc/cpuinfo of that key; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def load_in_words(load: float, cores: int | None = None) -> str:
    """The load average before the run, and whether others were at work."""
    state = "a busy machine" if load > BUSY else "an idle machine"
    return f"load {load:.1f} on {cores or os.cpu_count()} cores before it began: {state}"


def read(path: Path = STORE) -> dict:
    """What was stored; nothing at first."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {"machine": {}, "sections": {}}


def write(results: Mapping, folder: Path = FOLDER) -> None:
    """Both files."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / STORE.name).write_text(text + "\n", "utf-8")
    (folder / PAGE.name).write_text(page(results), "utf-8")


def circumstances(results: Mapping) -> str:
    """When the comparisons were made, and what should be known of it."""
    used = [one for one in results["sections"].values() if one["comparisons"]]
    days = sorted({one["when"][:10] for one in used})
    words = [" and ".join(dict.fromkeys([days[0], days[-1]]))] if days else []
    words += ["QUICK"] * any(one["quick"] for one in used)
    words += ["on a busy machine"] * any(one["load"] > BUSY for one in used)
    return ", ".join(words)


def comparisons(results: Mapping) -> list[tuple[dict, Comparison]]:
    """Every comparison, with its section."""
    sections = results["sections"].values()
    return [(one, Comparison(**line)) for one in sections for line in one["comparisons"]]


# ---------------------------------------------------------------- the page


def page(results: Mapping) -> str:
    """RESULTS.md."""
    sections = results["sections"]
    parts = [
        "# Results\n",
        "Made by `make bench`; never edited. `make bench QUICK=1` takes minutes and smaller sizes; "
        '`make bench ARGS="limits sizes"` runs some sections anew. Times are CPU seconds of one '
        "thread. The sides of a comparison take turns, and what counts is their ratio.\n",
        *(f"- {key}: {value}" for key, value in results["machine"].items()),
        "\n## Methods beside peers\n",
        *summary(results),
        "\n## Peers\n",
        *(f"- {name}: {said}" for name, said in results.get("peers", {}).items()),
    ]
    for name, section in sections.items():
        parts += section_text(name, section)
    return "\n".join(parts) + "\n"


def section_text(name: str, section: Mapping) -> list[str]:
    """A section's heading, what it was, and what it printed."""
    size = "QUICK, " if section["quick"] else ""
    head = [f"\n## {section['title']}\n", f"`{section['command']}`, section `{name}`, {size}"]
    head[-1] += f"{section['when']}, {load_in_words(section['load'], section['cores'])}; "
    head[-1] += f"{section['seconds']:.0f} CPU seconds.\n"
    if section["problem"]:
        head.append(f"**{section['problem']}**\n")
    return [*head, "```", *section["output"], "```"] if section["output"] else head


HEAD = (
    "| | method | workload | peer | time, ours ÷ peer (of one turn) | memory | quality, ours; peer "
    "| goal | |"
)


def summary(results: Mapping) -> list[str]:
    """The table of all comparisons, and how many are ahead."""
    rows = [row for one, found in comparisons(results) for row in rows_of(one, found)]
    if not rows:
        return ["Nothing was compared yet."]
    ahead = sum("ahead" in row for row in rows)
    said = (
        f"{ahead} of {len(rows)} rows are *ahead*: faster in every turn, and no worse in quality. "
        "A row whose quality was not compared is none of them. A goal is the first peer's alone, "
        "and meant for the full sizes: a QUICK row that does not meet it may do so there."
    )
    return [said + "\n", HEAD, "|---" * 9 + "|", *rows]


def rows_of(section: Mapping, found: Comparison) -> list[str]:
    """A row of the table for each peer of one comparison."""
    rows = []
    for number, peer in enumerate(found.peers):
        middle, least, most = found.ratio(peer)
        memory = found.memory_ratio(peer)
        goal, met = (_goal(found), found.is_met()) if number == 0 else ("–", None)
        words = {True: "met", False: "**not met**", None: ""}[met]
        words = ", ".join(filter(None, [words, "ahead" if found.is_ahead(peer) else ""]))
        cells = (
            section["chapter"],
            found.method + (" (QUICK)" if section["quick"] else ""),
            found.title,
            peer,
            f"{middle:.3f} ({least:.2f} to {most:.2f})",
            "–" if memory is None else f"{memory:.2f}",
            _quality(found, peer),
            goal,
            words or "–",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _goal(found: Comparison) -> str:
    if found.goal is None:
        return "–"
    memory = "" if found.memory_goal is None else f", memory ≤ {found.memory_goal:g}"
    return f"≤ {found.goal:g}{memory}"


def _quality(found: Comparison, peer: str) -> str:
    if found.as_good(peer) is None:
        return "not compared"
    mine, theirs = found.quality[found.ours], found.quality[peer]
    worse = "" if found.as_good(peer) else ", worse"
    return f"{mine:.5g}; {theirs:.5g} {found.unit}{worse}"


# ---------------------------------------------------------------- numbers


def exponent(sizes: list[float], seconds: list[float]) -> float:
    """The slope of log seconds over log size, by least squares: seconds ~ size^exponent."""
    return statistics.linear_regression(*(_logs(numbers) for numbers in (sizes, seconds))).slope


def _logs(numbers: list[float]) -> list[float]:
    return [math.log(number) for number in numbers]
