"""Exercise of 07_quantization_aware: the best three levels for a row.

Axes: O rows that have one α each, I numbers in a row.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# What rounding may cost, by the dtype of α: as a share of ‖w‖², and of α.
ROUNDING = {torch.float32: 3e-6, torch.float64: 1e-12}


def best_ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes, alpha): for each row w the t in {−1, 0, 1} and the α ≥ 0 with the least ‖w − α t‖².

    weight (O, I) is float and finite, I ≥ 1. codes (O, I) are int8; alpha (O, 1) is float32, or
    float64 where the weight is: reckon in that. Least means least of all 3ᴵ codes, but for what
    floats lose, at any scale: the largest |w| of a row may be from 1e-30 to 3e38, in float64 from
    1e-200 to 1e200. Of codes with equal errors any will do, and in a row of zeros any t and α with
    α t = 0. The weight stays as it is.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    largest = wide.abs().amax(dim=1, keepdim=True)
    tiny = torch.finfo(wide.dtype).tiny
    sizes = wide.abs().div(largest.clamp(min=tiny))  # from 0 to 1: no sum or square overflows
    ordered = sizes.sort(descending=True).values
    count = torch.arange(1, weight.shape[1] + 1, device=weight.device)
    gained = ordered.cumsum(dim=1).square().div(count)  # S² / k for each k
    least = ordered.gather(1, gained.argmax(dim=1, keepdim=True))  # (O, 1)
    chosen = sizes >= least
    mean = (sizes * chosen).sum(dim=1, keepdim=True).div(chosen.sum(dim=1, keepdim=True))
    return wide.sign().where(chosen, 0).to(torch.int8), largest * mean


def _weights(seed: int) -> list[Case]:
    draw = Draw(seed)
    by_hand = torch.tensor([[4.0, -2.0, 0.5, 0.0], [1.0, -1.0, 1.0, 1.0]])
    zeros, single = _matrix(draw, 5, 6), torch.zeros(4, 7)
    zeros[draw.order(5)[:2]] = 0
    single[torch.arange(4), draw.integers(0, 7, 4)] = draw.normal(4)
    slowly = 1 - 0.02 * torch.arange(8) * draw.uniform(4, 1)
    steeply = draw.uniform(5, 1) * 0.8 ** torch.arange(9)
    labelled = {
        "by hand": by_hand * draw.number(1, 9),
        "normal weights": _matrix(draw, 5, 12),
        "uniform weights": draw.uniform(5, 10) - 0.5,
        "heavy tails": _matrix(draw, 5, 12, power=3),
        "more rows than columns": _matrix(draw, 9, 3),
        "one row": _matrix(draw, 1, 8),
        "one number in a row": _matrix(draw, 6, 1),
        "one number": -0.1 - draw.uniform(1, 1),
        "many numbers in a row": _matrix(draw, 4, 400),
        "no rows": torch.zeros(0, 5),
        "all of one size": _signed(draw, torch.full((3, 6), 0.7) * draw.number(1, 9)),
        "all below 0": -draw.uniform(4, 6) - 0.1,
        "falling slowly: the last belongs to them": slowly,
        "falling steeply": steeply,
        "rising steeply": -steeply.flip(1),
        "one number that is not 0": single,
        "rows of zeros": zeros,
        "zeros alone": torch.zeros(draw.number(1, 4), 5),
        "views": _matrix(draw, 7, 5).T[:, ::2],
        **_close(draw),
        **_in_scales_and_dtypes(draw),
    }
    return labelled_cases(("weight",), {label: (weight,) for label, weight in labelled.items()})


def _matrix(draw: Draw, *shape: int, power=1, scale=1.0, dtype=torch.float32) -> Tensor:
    """Each row has a size of its own, so that none can borrow another's α."""
    rows = draw.normal(*shape).sign() * draw.normal(*shape).abs() ** power
    gains = torch.logspace(-0.5, 0.5, shape[0])[draw.order(shape[0]), None]
    return (scale * (gains * rows).double()).to(dtype)


def _topped(draw: Draw, size: float, dtype=torch.float32) -> Tensor:
    """Rows whose largest |w| is this."""
    rows = draw.normal(4, 8).double()
    return (size * (rows / rows.abs().amax(dim=1, keepdim=True))).to(dtype)


def _signed(draw: Draw, sizes: Tensor) -> Tensor:
    """With random signs, in a random order."""
    signs = 2 * draw.integers(0, 2, *sizes.shape) - 1
    return (signs * sizes)[:, draw.order(sizes.shape[1])]


def _close(draw: Draw) -> dict[str, Tensor]:
    """Rows with two sets of numbers that are good, or nearly as good, together."""

    def peaks(first: float) -> Tensor:
        """One large number, eight about 1: the best k is 1 or 9, as S² / k has two peaks."""
        others = 1 + 0.01 * draw.uniform(4, 8)
        return _signed(draw, torch.cat([torch.full((4, 1), first), others], dim=1))

    def nearly(off: Tensor) -> Tensor:
        """3 + δ, 1, 1, 1: k = 1 is the best for δ > 0, else k = 4; the errors differ by 3 |δ|."""
        return _signed(draw, torch.cat([3 + off[:, None], torch.ones(len(off), 3).to(off)], dim=1))

    three = torch.tensor([10.0] + 4 * [3.5] + 40 * [1.1])  # S² / k: 100, 115 and 103

    def stairs() -> Tensor:
        """Each next number is a little below half the mean of those before: S² / k rises slowly up
        to a turn, and falls as slowly. Whoever goes by turns stays at any k."""
        sizes = torch.cat([10 + draw.uniform(4, 1), torch.ones(4, 150)], dim=1).double()
        turn = draw.integers(6, 18, 4, 1)
        for j in range(24):
            below = torch.where(j < turn, 0.06, 0.17) / sizes.shape[1]
            sizes = torch.cat([sizes, sizes.mean(dim=1, keepdim=True) * (0.5 - below)], dim=1)
        return _signed(draw, sizes)

    deltas = torch.tensor([1.0, -1.0, 0.5, -0.5])
    return {
        "two peaks, and the first is higher": peaks(4.5),
        "two peaks, and the second is higher": peaks(3.5),
        "three peaks, and the middle one is the highest": _signed(
            draw, three + 0.01 * draw.uniform(4, 45)
        ),
        "S² / k rises and falls slowly, in float64": stairs(),
        "two sets are equally good": nearly(torch.zeros(3)) * draw.number(1, 9),
        "two sets are nearly as good": nearly(1e-2 * deltas),
        "two sets are nearly as good, in float64": nearly(1e-9 * deltas.double()),
    }


def _in_scales_and_dtypes(draw: Draw) -> dict[str, Tensor]:
    double, half, brain = torch.float64, torch.float16, torch.bfloat16
    far = torch.ones(6, 1)
    far[draw.order(6)[:3], 0] = torch.tensor([1e9, 1e-9, 1e-28])
    return {
        "rows from 1e-28 to 1e9": far * _matrix(draw, 6, 8),
        "very small": _matrix(draw, 4, 8, scale=1e-28),
        "the largest of a row is about 1e-30": _topped(draw, 1.01e-30),
        "very large: the sum of a row is beyond float32": 1e38 * (1 + 2 * draw.uniform(3, 9)),
        "float64": _matrix(draw, 4, 9, dtype=double),
        "float64, very small": _matrix(draw, 4, 8, dtype=double, scale=1e-198),
        "float64, the largest of a row is about 1e-200": _topped(draw, 1.01e-200, double),
        "float64, very large": _matrix(draw, 4, 8, dtype=double, scale=1e198),
        "float16": _matrix(draw, 4, 40, dtype=half),
        "float16, the sum of a row does not fit": (3e4 + 3e4 * draw.uniform(3, 20)).half(),
        "bfloat16": _matrix(draw, 4, 40, dtype=brain),
    }


def _is_ternary(inputs: dict, value: list) -> bool:
    if not (isinstance(value, list) and len(value) == 2):  # a long tensor is slow to unpack
        return False
    weight, (codes, alpha) = inputs["weight"], value
    return (
        (codes.shape, codes.dtype) == (weight.shape, torch.int8)
        and alpha.shape == (len(weight), 1)
        and alpha.dtype == torch.promote_types(weight.dtype, torch.float32)
        and bool(((codes >= -1) & (codes <= 1)).all() & alpha.isfinite().all() & (alpha >= 0).all())
    )


def _parts(inputs: dict, value: list) -> tuple[Tensor, Tensor, Tensor]:
    """w, t and α in float64, each row divided by its largest |w|."""
    weight, (codes, alpha) = inputs["weight"].double(), value
    largest = weight.abs().amax(dim=1, keepdim=True)
    largest = largest.where(largest > 0, 1)
    return weight / largest, codes.double(), alpha.double() / largest


def _errors(inputs: dict, value: list) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row, (O,): ‖w − α t‖², the least of it, and ‖w‖²."""
    w, codes, alpha = _parts(inputs, value)
    sums = w.abs().sort(dim=1, descending=True).values.cumsum(dim=1)
    gained = sums.square() / torch.arange(1, w.shape[1] + 1)
    energy = w.square().sum(dim=1)
    return (w - alpha * codes).square().sum(dim=1), energy - gained.amax(dim=1), energy


def _least(inputs: dict, value: list) -> bool:
    found, least, energy = _errors(inputs, value)
    return bool((found <= least + ROUNDING[value[1].dtype] * energy).all())


def _mean_of_chosen(inputs: dict, value: list) -> bool:
    w, codes, alpha = _parts(inputs, value)
    k = codes.abs().sum(dim=1, keepdim=True)
    mean = (w * codes).sum(dim=1, keepdim=True) / k.clamp(min=1)
    return bool(((alpha - mean).abs() <= ROUNDING[value[1].dtype] * mean.abs())[k > 0].all())


def _error_reached(inputs: dict, value: list) -> str:
    found, least, energy = _errors(inputs, value)
    if not energy.any():
        return "‖w − α t‖² = 0" if not found.any() else "‖w − α t‖² is not 0, for a row of zeros"
    row = int(((found - least) / energy.where(energy > 0, 1)).argmax())
    share, best = float(found[row] / energy[row]), float(least[row] / energy[row])
    return f"‖w − α t‖² is {share:.6g} of ‖w‖² in row {row} (the least: {best:.6g})"


def _ruled(threshold: Callable, alpha: Callable | None = None) -> Callable:
    """sign(w) where |w| is above a threshold (O, 1), and the mean |w| there, or another α."""

    def wrong(weight):
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        sizes = wide.abs()
        chosen = sizes > threshold(sizes)
        count = chosen.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (sizes / count * chosen).sum(dim=1, keepdim=True)
        return (wide.sign() * chosen).to(torch.int8), mean if alpha is None else alpha(sizes)

    return wrong


def _mean(sizes: Tensor) -> Tensor:
    return (sizes / sizes.shape[1]).sum(dim=1, keepdim=True)


def _largest(sizes: Tensor) -> Tensor:
    return sizes.amax(dim=1, keepdim=True)


def _one_for_all(weight):
    codes, alpha = best_ternary(weight.reshape(1, -1)) if weight.numel() else best_ternary(weight)
    return codes.view(weight.shape), alpha.expand(len(weight), 1).clone()


def _mean_of_all(weight):
    codes, _ = best_ternary(weight)
    return codes, _mean(weight.to(torch.promote_types(weight.dtype, torch.float32)).abs())


def _alternating(weight):
    """Codes for α, then α for the codes, ten times."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    sizes, alpha = wide.abs(), _mean(wide.abs())
    for _ in range(10):
        chosen = sizes > alpha / 2
        count = chosen.sum(dim=1, keepdim=True).clamp(min=1)
        alpha = (sizes / count * chosen).sum(dim=1, keepdim=True)
    return (wide.sign() * chosen).to(torch.int8), alpha


BEST_TERNARY = Exercise(
    reference=best_ternary,
    cases=_weights,
    compare=False,
    reached=_error_reached,
    hints=(
        "If you knew which numbers get no zero, which α would be the best for them? And if you "
        "knew only how many, which would they be?",
        "For k numbers that are not 0, the best α is their mean |w|, S / k, and it takes S² / k "
        "off ‖w‖². So they are the k largest |w|, and k is where S² / k is largest: try all of "
        "them, k = 1 … I. There may be two peaks.",
        "sizes = |w| / the largest of its row, so that nothing overflows (mind a row of zeros); S "
        "= sizes.sort(dim=1, descending=True).values.cumsum(dim=1); k = (S.square() / "
        "torch.arange(1, I + 1)).argmax(dim=1, keepdim=True), counted from 0. The threshold is the "
        "sorted number at k, α is S at k over k + 1, times the largest.",
    ),
    properties=(
        Property(
            "codes (O, I) in int8, −1, 0 or 1; alpha (O, 1), finite, ≥ 0, float32 or float64",
            _is_ternary,
            form=True,
        ),
        Property("alpha is the mean |w| of the numbers whose code is not 0", _mean_of_chosen),
        Property("no other codes have a smaller error", _least),
    ),
    misconceptions=(
        Misconception(
            "a threshold of 0.7 · mean |w|",
            _ruled(lambda sizes: 0.7 * _mean(sizes)),
            "this is the rule of Li et al. (2016). It is near the best for weights that are normal "
            "or uniform, and α is right for its codes; other rows have better ones. Try every k.",
        ),
        Misconception(
            "the mean |w| as α",
            _ruled(lambda sizes: _mean(sizes) / 2, _mean),
            "this is the rule of Ma et al. (2024): α is the mean |w| of all, and w / α is rounded. "
            "It is quick, but its α is too small: it counts numbers whose code is 0.",
        ),
        Misconception(
            "the largest |w| as α",
            _ruled(lambda sizes: _largest(sizes) / 2, _largest),
            "α is the largest |w|, as if this were a grid that must reach it. With three levels "
            "that sends nearly all to 0. α is the mean |w| of the chosen ones.",
        ),
        Misconception(
            "one α for all rows",
            _one_for_all,
            "all rows have one α. Every row has its own: sort and sum along dim 1.",
        ),
        Misconception(
            "right codes, and the mean of all",
            _mean_of_all,
            "the codes are the best, but α is the mean |w| of the whole row. It is the mean of "
            "those whose code is not 0.",
        ),
        Misconception(
            "by turns, until nothing changes",
            _alternating,
            "you took codes for α and α for the codes by turns. No step makes it worse, but it "
            "stops at the first pair that fits each other, and S² / k can have two peaks.",
        ),
    ),
)
