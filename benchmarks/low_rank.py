"""Truncated, randomized and output-aware factors beside their peers.

    OMP_NUM_THREADS=1 python -m benchmarks.low_rank        3 CPU minutes

CPU seconds of one thread, sides that take turns. Beside each time of the randomized SVD stands its
error over the least possible one.
"""

from collections.abc import Iterator

import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from benchmarks.measuring import cpu_seconds, report
from course_lib.low_rank.output_aware import output_factors
from course_lib.low_rank.randomized import randomized
from course_lib.low_rank.svd import error_norms, truncated

WIDTH, RANK = 2048, 64


def matrices(width: int = WIDTH) -> Iterator[tuple[str, Tensor]]:
    """Spectra that fall fast, slowly and not at all: (width, width) each."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(width, width, generator=generator)
    left, right = (torch.linalg.qr(part).Q for part in (noise, noise.T.contiguous()))
    place = torch.arange(1, width + 1)
    yield "falls as 1/k", (left / place) @ right
    yield "falls as 1/√k", (left / place.sqrt()) @ right
    yield "noise", noise


def compare_randomized(repeats: int = 3) -> None:
    """Randomized against the whole SVD, `torch.svd_lowrank` and scikit-learn's."""
    for name, matrix in matrices():
        array = matrix.numpy()
        seconds = cpu_seconds(
            {
                "ours": lambda m=matrix: randomized(m, RANK),
                "torch.linalg.svd": lambda m=matrix: torch.linalg.svd(m, full_matrices=False),
                "torch.svd_lowrank": lambda m=matrix: torch.svd_lowrank(m, RANK + 16, niter=4),
                "scikit-learn": lambda a=array: randomized_svd(a, RANK, random_state=0),
            },
            repeats,
        )
        report(f"rank {RANK} of {WIDTH}², {name}", seconds, goal=0.1)
        least = error_norms(torch.linalg.svdvals(matrix), RANK).frobenius
        u, s, v = torch.svd_lowrank(matrix, RANK + 16, niter=4)
        peer = (u[:, :RANK] * s[:RANK]) @ v[:, :RANK].T
        a, b, c = randomized_svd(array, RANK, random_state=0)
        other = torch.from_numpy((a * b) @ c)
        sides = {"ours": randomized(matrix, RANK).product, "torch": peer, "scikit-learn": other}
        errors = {side: ((matrix - p).norm() / least).item() for side, p in sides.items()}
        print("    error:", ", ".join(f"{side} {e:.4f}" for side, e in errors.items()), flush=True)


def compare_output_aware(repeats: int = 5) -> None:
    """Factors for the outputs against a plain truncation, for a layer's shapes."""
    generator = torch.Generator().manual_seed(0)
    for outputs, inputs in ((576, 576), (1536, 576), (576, 1536), (2048, 2048)):
        weight = torch.randn(outputs, inputs, generator=generator)
        x = torch.randn(2 * inputs, inputs, generator=generator)
        gram = x.T @ x / len(x)
        seconds = cpu_seconds(
            {
                "for the outputs": lambda w=weight, g=gram: output_factors(w, g, RANK),
                "truncated SVD": lambda w=weight: truncated(w, RANK),
            },
            repeats,
        )
        report(f"rank {RANK} of {outputs} × {inputs}", seconds, goal=1.3)


if __name__ == "__main__":
    compare_randomized()
    compare_output_aware()
