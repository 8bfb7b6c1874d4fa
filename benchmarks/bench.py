"""`make bench`: every section in a process of its own, its tables printed and kept.

    make bench                    all sections
    make bench QUICK=1            smaller sizes, under five minutes
    make bench ARGS="limits"      one section anew; the others stay

Writes RESULTS.md and results.json beside this file. Ends with 1 if a section failed. A section
whose peer is not installed is no failure: it says so.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from benchmarks import results
from benchmarks.measuring import RECORD

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Section:
    """One command, `python -m module arguments`.

    quick: its arguments in a quick run; None: it takes no part there.
    needs: modules without which there is nothing to run.
    """

    name: str
    chapter: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()

    def command(self, quick: bool) -> list[str]:
        """What is run."""
        return ["-m", self.module, *(self.quick if quick else self.arguments)]


def _methods(name: str, chapter: str, title: str, module: str = "", **more) -> Section:
    return Section(name, chapter, title, f"benchmarks.{module or name}", **more)


SECTIONS = (
    Section("limits", "", "Limits: decibels, and growth with size", "benchmarks.limits",
            ("decibels", "growth"), ("decibels", "growth")),
    Section("bandwidth", "", "Limits: bytes a second", "benchmarks.limits", ("bandwidth",),
            ("bandwidth",)),
    Section("feedback", "", "Feedback of a check", "benchmarks.course", ("feedback",),
            quick=("feedback",)),
    Section("sizes", "", "Sizes of the course", "benchmarks.course", ("sizes",), ("sizes",)),
    Section("open", "", "Open tasks", "benchmarks.course", ("open",)),
    _methods("redundancy", "01", "Duplicates beside datasketch", quick=(), needs=("datasketch",)),
    _methods("pruning", "03", "Pruning beside PyTorch and papers", quick=("top", "gates")),
    _methods("quantization", "05", "Quantization beside PyTorch, torchao and published searches",
             quick=("codes", "activations", "packing", "search"), needs=("torchao",)),
    _methods("hqq", "05", "Int4 beside hqq", "quantization", arguments=("hqq",), quick=("hqq",),
             needs=("hqq",)),
    _methods("codebooks", "06", "Codebooks and floats of few bits", quick=("codes", "floats")),
    _methods("coding", "06", "Huffman's code beside dahuffman", quick=(), needs=("dahuffman",)),
    _methods("training", "07", "A training step that rounds", "quantization_aware"),
    _methods("distillation", "08", "Distillation's loss beside PyTorch", arguments=("loss",),
             quick=("loss",)),
    _methods("low_rank", "09", "Low rank beside PyTorch and scikit-learn",
             quick=("truncated", "outputs")),
    _methods("acceleration", "10", "What is really faster"),
    _methods("language_models", "11", "Language models beside the authors' algorithms",
             quick=("gptq", "sparsegpt", "wanda")),
    _methods("classroom", "", "Grading a class beside nbgrader",
             arguments=("20", "--peer", "2"), needs=("nbgrader",)),
    Section("notebooks", "", "Each notebook", "benchmarks.course", ("notebooks",)),
    Section("setup", "", "Set-up, cold and warm", "benchmarks.course", ("setup",)),
    Section("test", "", "make test", "benchmarks.course", ("test",)),
)  # fmt: skip


def run_section(section: Section, quick: bool, load: float = 0.0, root: Path = ROOT) -> dict:
    """Run it, print what it prints, and give back all that is kept of it.

    load: the machine's, before anything of ours ran.
    """
    absent = [name for name in section.needs if not find_spec(name)]
    command, begun = section.command(quick), datetime.now(UTC)
    kept = {
        "chapter": section.chapter,
        "title": section.title,
        "command": " ".join(["python", *command]),
        "quick": quick,
        "when": begun.strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(load, 2),
        "cores": os.cpu_count(),
        "seconds": 0.0,
        "problem": f"not run: {', '.join(absent)} is not installed" if absent else "",
        "output": [],
        "comparisons": [],
    }
    print(f"\n== {section.title}\n{kept['command']}", flush=True)
    if absent:
        print(kept["problem"], flush=True)
        return kept
    before = _children_seconds()
    with tempfile.TemporaryDirectory() as folder:
        kept |= _watched([sys.executable, *command], Path(folder), quick, root)
    return kept | {"seconds": round(_children_seconds() - before, 1)}


def _watched(command: list[str], folder: Path, quick: bool, root: Path) -> dict:
    """The lines that a command printed, the comparisons that it recorded, and how it failed."""
    record, errors = folder / "record", folder / "errors"
    record.touch()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment |= {RECORD: str(record)} | ({"BENCH_QUICK": "1"} if quick else {})
    output = []
    with errors.open("w") as file, subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=file, text=True
    ) as process:  # fmt: skip
        for line in process.stdout:
            print(line, end="", flush=True)
            output.append(line.rstrip())
    problem = ""
    if process.returncode:
        said = errors.read_text("utf-8").strip().splitlines() or ["it said nothing"]
        problem = f"failed ({process.returncode}): {said[-1].strip()}"
        print("\n".join(said), flush=True)
    found = [_short(json.loads(line)) for line in record.read_text("utf-8").splitlines()]
    return {"output": output, "comparisons": found, "problem": problem}


def _short(comparison: dict) -> dict:
    """With as many digits as mean something."""
    turns = comparison["turns"].items()
    return comparison | {"turns": {name: [float(f"{t:.4g}") for t in ts] for name, ts in turns}}


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def choose(
    names: Sequence[str], quick: bool, sections: Sequence[Section] = SECTIONS
) -> list[Section]:
    """The sections of these names; of no names all, in a quick run those that take part."""
    known = {section.name: section for section in sections}
    if strange := set(names) - known.keys():
        raise ValueError(f"no section is called {', '.join(strange)}; there are {', '.join(known)}")
    chosen = [known[name] for name in names] or sections
    return [section for section in chosen if not quick or section.quick is not None]


def bench(chosen: Sequence[Section], quick: bool, folder: Path = results.FOLDER) -> int:
    """Run sections one after the other; after each, both files are written anew."""
    store, load = folder / results.STORE.name, os.getloadavg()[0]
    for section in chosen:
        kept = run_section(section, quick, load)
        found = results.read(store)
        found["sections"][section.name] = kept
        order = [s.name for s in SECTIONS if s.name in found["sections"]]
        order += [name for name in found["sections"] if name not in order]
        found["sections"] = {name: found["sections"][name] for name in order}
        found |= {"machine": results.machine(), "peers": results.peers()}
        results.write(found, folder)
    done = [results.read(store)["sections"][section.name] for section in chosen]
    print(f"\n{sum(one['seconds'] for one in done):.0f} CPU seconds; see {folder / 'RESULTS.md'}")
    return int(any(one["problem"].startswith("failed") for one in done))


if __name__ == "__main__":
    is_quick = "--quick" in sys.argv[1:]
    try:
        wanted = choose([name for name in sys.argv[1:] if name != "--quick"], is_quick)
    except ValueError as error:
        sys.exit(str(error))
    sys.exit(bench(wanted, is_quick))
