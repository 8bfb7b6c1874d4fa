"""Exercise of 11_language_models: the moments of what flows into a layer.

Axes: I inputs, n tokens of a batch.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, labelled_cases


def second_moments(batches: list[Tensor]) -> Tensor:
    """The mean of x xᵀ over all rows x of all batches, (I, I), in float32; in float64 if they are.

    Batches are (n, I), all of one dtype; n may differ and be 0, not everywhere. Half precision is
    made float32 before anything is multiplied.
    """
    wide = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in batches]
    total = sum(x.T @ x for x in wide)  # (I, n) (n, I) -> (I, I)
    return total.div(sum(map(len, wide)))


def _batches(seed: int) -> list[Case]:
    draw = Draw(seed)

    def batch(inputs: int, *tokens: int) -> list[Tensor]:
        """Whole numbers, so that float32 sums are exact; each channel has a sign of its own."""
        signs = 1.0 - 2 * draw.integers(0, 2, inputs)
        signs[:2] = torch.tensor([1.0, -1.0])[:inputs]
        return [signs * draw.integers(1, 9, n, inputs) for n in tokens]

    dead = batch(5, 4, 2)
    for x in dead:
        x[:, 1:3] = torch.tensor([0.0, -0.0])
    half = [(100 * x).half() for x in batch(4, 5, 3)]
    rounded = [(x + 128).to(torch.bfloat16) for x in batch(3, 40, 60)]
    labelled = {
        "two batches": (batch(3, 4, 4),),
        "batches of different size": (batch(4, 1, 7, 2),),
        "one batch": (batch(5, 6),),
        "one token": (batch(4, 1),),
        "an empty batch": (batch(3, 0, 5, 0, 2),),
        "one input": (batch(1, 3, 4),),
        "inputs that are always zero": (dead,),
        "very small": ([2.0**-30 * x for x in batch(4, 3, 5)],),
        "very large": ([2.0**30 * x for x in batch(4, 3, 5)],),
        "one batch is far larger": ([2.0 ** (9 * i) * x for i, x in enumerate(batch(3, 4, 2))],),
        "float16, whose products do not fit": (half,),
        "bfloat16, many tokens": (rounded,),
        "float64": ([2.0**100 * x.double() for x in batch(4, 3, 6)],),
        "float64, sums that nearly cancel": ([_nearly_cancelling(draw) for _ in range(2)],),
    }
    return labelled_cases(("batches",), labelled)


def _nearly_cancelling(draw: Draw) -> Tensor:
    """(4, 3) in float64: the sum over x₀ x₁ is a small number that float32 cannot hold beside 1."""
    x = draw.integers(1, 9, 2, 3).double().repeat(2, 1)
    x[2:, 1] = -x[2:, 1] * (1 + 2.0**-28)
    return x


def _mean_of(batches: list[Tensor], change=lambda x: x) -> Tensor:
    wide = torch.promote_types(batches[0].dtype, torch.float32)
    x = change(torch.cat([x.to(wide) for x in batches]))
    return x.T @ x / len(x)


def _mean_of_means(batches):
    return torch.stack([_mean_of([x]) for x in batches]).mean(dim=0)


def _last_batch(batches):
    return _mean_of([batches[-1]]) * (len(batches[-1]) / sum(map(len, batches)))


def _in_half(batches):
    total = sum(x.T @ x for x in batches)
    return (total / sum(map(len, batches))).to(torch.promote_types(total.dtype, torch.float32))


SECOND_MOMENTS = Exercise(
    reference=second_moments,
    cases=_batches,
    absolute_tolerance=0.0,
    hints=(
        "For one batch x (n, I), what is x.T @ x? Its entry (j, k) is the sum over the tokens of "
        "x_j · x_k.",
        "Keep two things while you go through the batches: the sum of x.T @ x, and the number of "
        "tokens. Divide once, at the end.",
        "wide = torch.promote_types(batches[0].dtype, torch.float32). For each batch x = "
        "x.to(wide), total = total + x.T @ x, count = count + len(x).",
    ),
    misconceptions=(
        Misconception(
            "mean of the batches' means",
            _mean_of_means,
            "you averaged the batches. Then a token of a small batch counts more than one of a "
            "large batch, and an empty batch gives NaN. Sum first; divide by the number of tokens.",
        ),
        Misconception(
            "sum instead of mean",
            lambda batches: _mean_of(batches) * sum(map(len, batches)),
            "you gave the sum. It grows with the number of tokens; divide by that number.",
        ),
        Misconception(
            "divided by the number of batches",
            lambda batches: _mean_of(batches) * (sum(map(len, batches)) / len(batches)),
            "you divided by the number of batches. The mean is over tokens, the rows of all "
            "batches.",
        ),
        Misconception(
            "the mean was taken off",
            lambda batches: _mean_of(batches, lambda x: x - x.mean(dim=0)),
            "that is the covariance: you took the mean of each channel off. The layer is given x "
            "itself, mean and all, and an error in its weight is multiplied by that.",
        ),
        Misconception(
            "multiplied in half precision",
            _in_half,
            "you multiplied in the batches' dtype. In float16, 300 · 300 is infinite; in bfloat16 "
            "a product keeps three digits. Convert to float32 before you multiply.",
        ),
        Misconception(
            "the last batch alone",
            _last_batch,
            "only the last batch is in the sum: the earlier ones were overwritten. Add to the "
            "total, do not set it.",
        ),
    ),
)
