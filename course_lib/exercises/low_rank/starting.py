"""Exercise of 09_low_rank: where an adapter beside a rounded weight starts, to be repaired.

Axes: O outputs, I inputs, r rank.
"""

import math

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.low_rank.factors import are_factors

NEAR = 1.0005  # times the least error that rank r allows
STEPS = 2  # of B's and A's dtype at 1: what rounding them may cost, as a share of what is missing
SUMS = 16  # steps of float32 (or float64) at 1: what sums may cost, as a share of W


def adapter_start(weight: Tensor, rounded: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The start of an adapter that brings a rounded weight Ŵ as near to W as rank r allows.

    weight W and rounded Ŵ are (O, I), in float dtypes, and 1 ≤ r ≤ min(O, I). Returns left B (O, r)
    and right A (r, I), in the dtype of W. Many pairs are right: ‖W − (Ŵ + B A)‖_F is to be at most
    1.0005 times the least that rank r reaches, but for what it costs to round B and A to their
    dtype. Reckon in float32, or in float64 where W is. W and Ŵ stay as they are.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    missing = weight.to(wide) - rounded  # the difference is in the wider dtype
    U, S, Vt = torch.linalg.svd(missing, full_matrices=False)  # (O, K), (K,), (K, I)
    left, right = U * S.sqrt(), S.sqrt()[:, None] * Vt
    return left[:, :rank].to(weight.dtype), right[:rank].to(weight.dtype)


def as_given(weight: Tensor, rounded: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The start that the lesson prints for repair. It runs, and two things are wrong with it."""
    U, S, Vt = torch.linalg.svd(weight.float(), full_matrices=False)
    left, right = U * S, S[:, None] * Vt
    return left[:, :rank].to(weight.dtype), right[:rank].to(weight.dtype)


def _rounded(weight: Tensor, bits: int) -> Tensor:
    """To 2ᵇ even levels in each row, from its least weight to its largest."""
    low, high = weight.float().amin(1, keepdim=True), weight.float().amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return (low + step * ((weight.float() - low) / step).round()).to(weight.dtype)


def _weights(seed: int) -> list[Case]:
    draw = Draw(seed)

    def layer(o: int, i: int, rank: int, bits: int = 2, dtype=torch.float32, scale: float = 1.0):
        weight = draw.normal(o, i) @ torch.diag(0.2 + 2 * draw.uniform(i))
        weight = weight.to(dtype)
        return scale * weight, scale * _rounded(weight, bits), rank

    view, few, whole, same = layer(9, 7, 3), layer(8, 6, 3), layer(7, 9, 2), layer(6, 8, 2)
    fine, low = draw.normal(9, 8), draw.normal(7, 2) @ draw.normal(2, 9)
    shifted = whole[0] - 1 - 5 * draw.uniform(1)
    by_hand = torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    scale = 0.5 * draw.number(1, 9)
    labelled = {
        "by hand: the corners are missing": (*(scale * part for part in by_hand), 1),
        "four levels a row": layer(10, 8, 3, 2),
        "16 levels a row": layer(12, 10, 4, 4),
        "256 levels a row": layer(10, 12, 3, 8),
        "many more outputs than inputs": layer(40, 6, 2),
        "many more inputs than outputs": layer(5, 50, 2),
        "rank 1": layer(8, 9, 1),
        "the full rank": layer(6, 9, 6),
        "one number": (1 + draw.uniform(1, 1), torch.ones(1, 1), 1),
        "one row": layer(1, 9, 1),
        "nothing is stored: Ŵ is 0": (few[0], torch.zeros_like(few[1]), few[2]),
        "nothing is missing: Ŵ is W": (same[0], same[0].clone(), same[2]),
        "what is missing has this rank": (whole[0], whole[0] - low, 2),
        "Ŵ is W, shifted": (whole[0], shifted, 2),
        "Ŵ is twice W": (few[0], 2 * few[0], 3),
        "views": (view[0].T.clone().T, view[1].T.clone().T, view[2]),
        "float16": layer(10, 12, 3, 2, torch.float16),
        "bfloat16": layer(12, 10, 4, 2, torch.bfloat16),
        "float32, Ŵ in float16": (few[0], few[1].half(), few[2]),
        "bfloat16, Ŵ in float32": (fine.bfloat16(), _rounded(fine.bfloat16().float(), 8), 3),
        "float64, smaller than float32 knows": layer(8, 7, 3, 2, torch.float64, 1e-60),
        "very small weights": layer(8, 7, 3, scale=1e-12),
        "very large weights": layer(8, 7, 3, scale=1e12),
    }
    return labelled_cases(("weight", "rounded", "rank"), labelled)


def _errors(inputs: dict, value) -> tuple[float, float, float]:
    """What is missing with the adapter, at the least, and what rounding may add, each ‖·‖_F."""
    weight, missing = inputs["weight"].double(), inputs["weight"].double() - inputs["rounded"]
    left, right = value
    found = torch.linalg.matrix_norm(missing - left.double() @ right.double())
    least = torch.linalg.svdvals(missing)[inputs["rank"] :].norm()
    dtype = inputs["weight"].dtype
    step, fine = (torch.finfo(d).eps for d in (dtype, torch.promote_types(dtype, torch.float32)))
    noise = STEPS * step * missing.norm() + SUMS * fine * weight.norm()
    return float(found), float(least), float(noise)


def _near(inputs: dict, value) -> bool:
    found, least, noise = _errors(inputs, value)
    return found <= math.hypot(NEAR * least, noise)


def _what_was_reached(inputs: dict, value) -> str:
    found, least, _ = _errors(inputs, value)
    alone = float((inputs["weight"].double() - inputs["rounded"]).norm())
    return (
        f"‖W − (Ŵ + B A)‖ = {found:.5g} (the least: {least:.5g}; without an adapter: {alone:.5g}; "
        f"asked: at most {NEAR} times the least)"
    )


def _start(of, split=lambda s: (s.sqrt(), s.sqrt()), which=lambda s, rank: s[:rank]):
    """adapter_start of another matrix, with other shares of the singular values, or others."""

    def wrong(weight, rounded, rank):
        wide = torch.promote_types(weight.dtype, torch.float32)
        U, S, Vt = torch.linalg.svd(of(weight.to(wide), rounded.to(wide)), full_matrices=False)
        one, other = split(which(S, rank))
        left, right = which(U.T, rank).T * one, other[:, None] * which(Vt, rank)
        return left.to(weight.dtype), right.to(weight.dtype)

    return wrong


def _zero_and_random(weight, rounded, rank):
    left = weight.new_zeros(len(weight), rank)
    return left, torch.randn(rank, weight.shape[1]).to(weight) / weight.shape[1] ** 0.5


def _missing(weight, rounded):
    return weight - rounded


ADAPTER_START = Exercise(
    reference=adapter_start,
    cases=_weights,
    compare=False,
    reached=_what_was_reached,
    hints=(
        "With your B and A, compare Ŵ + B A with W. Of what is B A made, and what does Ŵ have "
        "already?",
        "Ŵ + B A should be W: so B A should be W − Ŵ, as far as rank r goes. The truncated SVD is "
        "the nearest of rank r (Eckart and Young). And U Σ Vᵀ has each singular value once.",
        "U, S, Vt = torch.linalg.svd(weight.float() - rounded.float(), full_matrices=False), in "
        "float64 where W is; then the first columns of U * S.sqrt() and the first rows of "
        "S.sqrt()[:, None] * Vt, both in the dtype of W.",
    ),
    properties=(
        Property("two tensors, (O, r) and (r, I), in the dtype of W", are_factors, form=True),
        Property("Ŵ + B A is as near to W as rank r allows", _near),
    ),
    misconceptions=(
        Misconception(
            "as given",
            as_given,
            "the start is as it was. B A is made of W, which Ŵ holds already: the layer begins "
            "with W nearly twice. And each singular value is in B and in A, so squared in B A.",
        ),
        Misconception(
            "W twice",
            _start(lambda weight, rounded: weight),
            "the singular values are shared rightly, but B A is made of W: Ŵ + B A is nearly 2 W. "
            "The adapter has to hold what Ŵ lacks, W − Ŵ.",
        ),
        Misconception(
            "singular values squared",
            _start(_missing, lambda s: (s, s)),
            "B A is made of W − Ŵ, but each singular value is in B and in A, so squared in B A. "
            "Give each of them the root, or one of them all.",
        ),
        Misconception(
            "the wrong sign",
            _start(lambda weight, rounded: rounded - weight),
            "the adapter holds Ŵ − W, so what is missing is doubled. Ŵ + B A should be W.",
        ),
        Misconception(
            "B is 0",
            _zero_and_random,
            "B is 0 and A random: LoRA's own start, right where W is whole. Here Ŵ + 0 lacks what "
            "rounding took, and training has to find it again.",
        ),
        Misconception(
            "the last directions",
            _start(_missing, which=lambda s, rank: s[len(s) - rank :]),
            "the r smallest singular values were taken. torch.linalg.svd sorts from the largest "
            "on (eigh from the smallest).",
        ),
    ),
)
