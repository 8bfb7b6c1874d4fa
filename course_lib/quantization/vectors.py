"""Vector quantization: d neighbouring weights share one code, and a codebook holds k vectors.

    cell       i(v) = argmin_j ‖v − c_j‖²         c_j ← mean of the vectors v with i(v) = j

These are Lloyd's two steps; neither can make the error larger. A codebook of k vectors costs log₂ k
bits for d weights, and its own k · d numbers.

With stages, the next codebook quantizes what the one before left over, and the vectors that come
back are sums: v ≈ c⁽¹⁾ + c⁽²⁾ + … So m stages of k vectors reach kᵐ sums with m k stored ones.

Sources: Linde, Buzo and Gray, 1980, "An Algorithm for Vector Quantizer Design"; Juang and Gray,
1982, "Multiple Stage Vector Quantization for Speech Coding"; Egiazarian et al., 2024, "Extreme
Compression of Large Language Models via Additive Quantization" (AQLM, which chooses the codes of
all stages together, for a layer's outputs).

Axes: N vectors, d numbers in one, k vectors of a codebook.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.models.finite import check_finite

CHUNK = 2**14  # vectors at a time, so that their distances stay small
SAMPLE = 2**16  # vectors that a codebook is fitted to


class Stages(NamedTuple):
    """Codebooks (k, d), one for each stage, and each stage's codes (N,), int64."""

    codebooks: list[Tensor]
    codes: list[Tensor]


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The number of the codebook's nearest vector: (N,), int64; of equally near ones the first.

    Raises:
        ValueError: vectors (N, d) and codebook (k, d) do not fit, or the codebook is empty.

    >>> nearest(torch.tensor([[0.0, 1.0], [5.0, 5.0]]), torch.tensor([[4.0, 4.0], [0.0, 0.0]]))
    tensor([1, 0])
    """
    _check(vectors, codebook)
    half_norms = codebook.square().sum(1) / 2
    found = vectors.new_empty(len(vectors), dtype=torch.int64)
    for chunk, out in zip(vectors.split(CHUNK), found.split(CHUNK), strict=True):
        # ‖v − c‖² / 2 = ‖v‖² / 2 + (‖c‖² / 2 − v · c): the first term is the same for all c
        torch.argmin(torch.addmm(half_norms, chunk, codebook.T, alpha=-1), dim=1, out=out)
    return found


def lloyd(vectors: Tensor, codebook: Tensor, rounds: int = 25) -> Tensor:
    """The codebook (k, d) after Lloyd's two steps, `rounds` times or until nothing moves.

    An empty cell's vector moves to the vector of those at hand that lies farthest from its own.

    Args:
        vectors: (N, d), finite.
        codebook: (k, d), to begin with.

    Raises:
        ValueError: NaN or infinity, no vectors; what `nearest` refuses.

    Source: Lloyd, 1982, "Least Squares Quantization in PCM"; Linde, Buzo and Gray, 1980.

    >>> vectors = torch.tensor([[0.0], [1.0], [8.0], [10.0]])
    >>> lloyd(vectors, torch.tensor([[0.0], [1.0]])).flatten().tolist()
    [0.5, 9.0]
    """
    check_finite(vectors, "vectors")
    for _ in range(rounds):
        cells = nearest(vectors, codebook)
        counts = torch.bincount(cells, minlength=len(codebook))
        moved = torch.zeros_like(codebook).index_add_(0, cells, vectors)
        moved /= counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero().squeeze(1)
        if len(empty):
            errors = (vectors - codebook[cells]).square().sum(1)
            empty = empty[: len(vectors)]
            moved[empty] = vectors[errors.topk(len(empty)).indices]
        if moved.equal(codebook):
            break
        codebook = moved
    return codebook


def fit_stages(vectors: Tensor, sizes: Sequence[int], seed: int = 0) -> Stages:
    """Codebooks for the vectors, a stage for each size, and the vectors' codes.

    Each codebook begins with vectors drawn at random, and learns from at most 2¹⁶ of them. It is
    rounded to bfloat16, as a file holds it, before the codes are chosen: what the rounding changes,
    the next stage sees.

    Args:
        vectors: (N, d), finite.
        sizes: k of each stage; at most N.

    Raises:
        ValueError: NaN or infinity; no size, or one that is not from 1 to N.

    Source: Juang and Gray, 1982, "Multiple Stage Vector Quantization for Speech Coding".

    >>> vectors = torch.tensor([[1.0, 2.0], [1.5, 2.0], [-1.0, -2.0], [-1.5, -2.0]])
    >>> stages = fit_stages(vectors, [2, 2])
    >>> restored(stages).equal(vectors)
    True
    """
    if not sizes or not all(1 <= k <= len(vectors) for k in sizes):
        raise ValueError(f"sizes must be from 1 to {len(vectors)}, at least one; got {sizes}")
    check_finite(vectors, "vectors")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
    largest = float(vectors.abs().max())
    unit = 2.0 ** math.frexp(largest)[1] if largest else 1.0  # so that squares are float32 numbers
    left, stages = vectors.float() / unit, Stages([], [])
    for k in sizes:
        sample = left[order[:SAMPLE]]
        codebook = lloyd(sample, sample[:k]).to(torch.bfloat16).float()
        codes = nearest(left, codebook)
        left = left - codebook[codes]
        stages.codebooks.append(codebook * unit)
        stages.codes.append(codes)
    return stages


def restored(stages: Stages) -> Tensor:
    """The vectors (N, d) that come back: the sum of all stages' vectors."""
    pairs = zip(stages.codebooks, stages.codes, strict=True)
    return sum(codebook[codes] for codebook, codes in pairs)


def _check(vectors: Tensor, codebook: Tensor) -> None:
    if vectors.dim() != 2 or codebook.dim() != 2 or vectors.shape[1] != codebook.shape[1]:
        raise ValueError(
            f"vectors and codebook must have shapes (N, d) and (k, d); got {tuple(vectors.shape)} "
            f"and {tuple(codebook.shape)}"
        )
    if not len(codebook) or not len(vectors):
        raise ValueError("vectors and codebook must not be empty")
