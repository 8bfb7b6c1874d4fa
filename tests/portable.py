"""`make portable`: would another processor print the same?

Every claim's check and every solved notebook is run again under other arithmetics, each in its own
process: as a processor of another kind, or with another number of threads, would add the same
numbers in another order. What prints something else, or fails, is named.

    make portable                 everything; about a minute a notebook and arithmetic
    make portable ARGS="05 13"    the notebooks of these chapters

To mend what differs: round coarser, print a band, or choose data that lie off the edge.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from course_lib.classroom.check import CellResult, run_nbval
from course_lib.classroom.files import find_source, lesson_sources
from course_lib.sources.checks.registry import CHECKS
from course_lib.sources.evidence import evidence

CELL_SECONDS = 300
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

# Who adds, in this order: PyTorch's own loops, oneDNN, MKL, OpenBLAS (for NumPy and SciPy), NumPy's
# own loops. On other processors than x86-64 most of these settings change nothing.
ARITHMETICS: dict[str, dict[str, str]] = {
    "one thread": ONE_THREAD,
    "two threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    "AVX2": ONE_THREAD
    | {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    },
    "baseline": ONE_THREAD
    | {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    },
    "MKL compatible": ONE_THREAD | {"MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Prescott"},
}


def fingerprint() -> str:
    """A hash of the last bits of sums, products, singular values, exp and tanh."""
    x = torch.randn(257, 130, generator=torch.Generator().manual_seed(0))
    y = np.random.default_rng(0).normal(size=(100, 30))
    numbers = x.exp().sum(0), x @ x.T, torch.linalg.svdvals(x), y.T @ y, np.tanh(y), np.exp(y)
    return hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in numbers)).hexdigest()[:8]


def claims() -> dict[str, str]:
    """Claim -> what its check says."""
    said = {}
    for claim in CHECKS:
        try:
            said[claim] = evidence(claim)
        except AssertionError as error:
            said[claim] = f"AssertionError {error}"
    return said


def claims_under(settings: dict[str, str]) -> tuple[str, dict[str, str]]:
    """`fingerprint` and `claims`, in a new process under an arithmetic."""
    code = "import json, portable as p; print(json.dumps([p.fingerprint(), p.claims()]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return tuple(json.loads(done.stdout))


def red_cells(notebook: Path, settings: dict[str, str]) -> list[CellResult]:
    """The cells that fail under an arithmetic, or print something else than is stored."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as progress:
        os.environ.update(settings, XDG_DATA_HOME=progress)
        try:
            results = run_nbval([notebook], compare=True, seconds=CELL_SECONDS)
        finally:
            os.environ.clear()
            os.environ.update(before)
    return [one for one in results if not one.passed]


def differences(
    settings: dict[str, str], native: dict[str, str], notebooks: list[Path]
) -> Iterator[tuple[str, list[str]]]:
    """(part, what differs in it) under an arithmetic, for the claims and for each notebook."""
    _, said = claims_under(settings)
    yield "claims", [f"{claim}: {text}" for claim, text in said.items() if text != native[claim]]
    for path in notebooks:
        red = red_cells(path, settings)
        yield path.stem[:2], [f"[{one.cell + 1}] {one.first_line}\n{one.text}" for one in red]


def main(chapters: list[str]) -> int:
    """Print how many outputs differ, arithmetic × part, and which; 1 if any does."""
    paths = [find_source(name) for name in chapters] if chapters else lesson_sources()
    notebooks = [path.with_suffix(".ipynb") for path in paths]
    native, found = claims(), []
    print(f"{'':15}claims", *(f"{path.stem[:2]:>6}" for path in notebooks))
    for name, settings in ARITHMETICS.items():
        print(f"{name:15}", end="", flush=True)
        for part, texts in differences(settings, native, notebooks):
            print(f"{len(texts) or 'equal':>6} ", end="", flush=True)
            found += [f"\n{name}, {part}: {text}" for text in texts]
        print()
    print(*found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
