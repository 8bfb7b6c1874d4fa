"""Exercises of 11_language_models: which weights stay.

Axes: O outputs, I inputs, N tokens, C columns of a block.
"""

from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ---------------------------------------------------------------------------- wanda_mask


def wanda_mask(weight: Tensor, inputs: Tensor, density: float) -> Tensor:
    """True where a weight stays: in each row, the round(density · I) largest |w_ij| · ‖x_j‖₂.

    weight (O, I), mask bool (O, I). ‖x_j‖₂ is the length of column j of the inputs (N, I), the root
    of its sum of squares. Of equal scores the first stay. weight and inputs have one dtype; reckon
    float16 in float32 or wider.
    """
    wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    score = weight.abs() * torch.linalg.vector_norm(wide, dim=0)  # (O, I) · (I,)
    order = score.argsort(descending=True, stable=True)
    kept = order[:, : round(density * weight.shape[1])]
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, kept, True)


def _layer(draw: Draw, outputs: int, inputs: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Some channels are large, some are large for a few tokens only, some have a mean."""
    x = draw.normal(tokens, inputs) * (1 + 9 * draw.uniform(inputs).square())
    x *= draw.uniform(tokens, inputs) < 0.1 + 0.9 * draw.uniform(inputs)
    return draw.normal(outputs, inputs), x + draw.normal(inputs) * draw.integers(0, 2, inputs)


def _layers_and_inputs(seed: int) -> list[Case]:
    draw = Draw(seed)
    layer = partial(_layer, draw)
    quiet_row, x = layer(5, 12, 9)
    quiet_row *= torch.tensor([1e-9, 1.0, 1e9, 1.0, 1e-4])[:, None]
    dead, dead_x = layer(4, 10, 8)
    dead_x[:, draw.order(10)[:6]] = 0
    equal = torch.tensor([[3.0, 0, 4, 5], [4.0, 5, 3, 0]])  # each column has length 5
    signs = torch.tensor([1.0, -1.0])[draw.integers(0, 2, 3, 40)]
    far = (1e4 + 4e4 * draw.uniform(40, 20).square()) * (0.1 + 0.9 * draw.uniform(20))
    small, small_x = layer(4, 12, 9)
    large, large_x = layer(4, 12, 9)
    uneven, uneven_x = layer(4, 12, 9)
    sizes = 10 ** (12 * draw.uniform(12) - 6)
    labelled = {
        "two rows": (*layer(2, 4, 3), 0.5),
        "large weights, large inputs": (*layer(6, 12, 30), 0.5),
        "rows of very different size": (quiet_row, x, 0.3),
        "most stay": (*layer(3, 9, 5), 0.7),
        "half a weight: round(4.5) is 4": (*layer(3, 9, 5), 0.5),
        "as many outputs and tokens as inputs": (*layer(6, 6, 6), 0.5),
        "one token": (*layer(4, 9, 1), 0.3),
        "inputs that are always zero": (dead, dead_x, 0.6),
        "nothing flows in": (draw.normal(3, 7), torch.zeros(4, 7), 0.4),
        "equal scores": (signs, equal.repeat(1, 10)[:, draw.order(40)], 3 / 8),
        "weights of zero": (torch.tensor([[-0.0, 0.0, 2.0, -0.0, 0.0]]), draw.normal(3, 5), 0.6),
        "all stay": (*layer(3, 4, 5), 1.0),
        "none stays": (*layer(3, 4, 5), 0.0),
        "one input": (draw.normal(3, 1), draw.normal(4, 1), 1.0),
        "very small inputs": (small, 1e-9 * small_x, 0.25),
        "very large inputs": (large, 1e9 * large_x, 0.75),
        "inputs of very different size": (uneven / sizes, uneven_x * sizes, 0.5),
        "float16, lengths that do not fit": (draw.normal(4, 20).half(), far.half(), 0.5),
        "float16, nearly equal scores": (*_nearly_equal_in_half(draw), 0.5),
        "float64, nearly equal scores": (*_nearly_equal(draw), 0.5),
    }
    return labelled_cases(("weight", "inputs", "density"), labelled)


def _nearly_equal(draw: Draw) -> tuple[Tensor, Tensor]:
    """In float64, scores that differ by one part in 10⁹: float32 is too coarse for them.

    The weights make the small differences, the lengths of the inputs the larger ones.
    """
    weights = torch.stack([draw.order(12) for _ in range(3)]) / 12
    return 1 + 1e-9 * weights.double(), 1 + 1e-9 * draw.order(12).double().expand(2, 12)


def _nearly_equal_in_half(draw: Draw) -> tuple[Tensor, Tensor]:
    """In float16, weights of ± 1; the lengths, root(64² + (k/4)²), are too close for float16.

    They grow from left to right, so that those taken for equal stay in the wrong order.
    """
    signs = 1.0 - 2 * draw.integers(0, 2, 3, 12)
    inputs = torch.stack([torch.full((12,), 64.0), torch.arange(12) / 4])
    return signs.half(), inputs.half()


def _top_of_rows(score: Tensor, density: float) -> Tensor:
    order = score.argsort(dim=1, descending=True, stable=True)
    kept = order[:, : round(density * score.shape[1])]
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, kept, True)


def _lengths(inputs: Tensor) -> Tensor:
    return torch.linalg.vector_norm(inputs.double(), dim=0)


WANDA_MASK = Exercise(
    reference=wanda_mask,
    cases=_layers_and_inputs,
    hints=(
        "How far does the output of row i move if w_ij alone becomes zero? It is w_ij · x_j, for "
        "each token.",
        "The root of the sum of squares over all tokens: |w_ij| · ‖x_j‖₂, where ‖x_j‖₂ = "
        "inputs.float().square().sum(dim=0).sqrt().",
        "Within each row: order = score.argsort(dim=1, descending=True, stable=True). The first "
        "round(density · I) columns of `order` stay; scatter True there.",
    ),
    properties=(
        Property(
            "each row keeps round(density · I) weights",
            lambda inputs, mask: bool(
                (mask.sum(dim=1) == round(inputs["density"] * mask.shape[1])).all()
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "per matrix",
            lambda w, x, density: _top_of_rows(
                (w.double().abs() * _lengths(x)).view(1, -1), density
            ).view_as(w),
            "you compared scores over the whole matrix. A row of small weights then loses all of "
            "its inputs, and its output is gone. Wanda compares within a row: each output keeps "
            "the same share.",
        ),
        Misconception(
            "magnitude alone",
            lambda w, x, density: _top_of_rows(w.double().abs(), density),
            "you looked at the weights alone. A small weight that meets a large input moves the "
            "output more than a large weight whose input is always near zero.",
        ),
        Misconception(
            "mean of the inputs",
            lambda w, x, density: _top_of_rows(
                w.double().abs() * x.double().mean(dim=0).abs(), density
            ),
            "you took the mean of each input. Positive and negative values cancel in it, so a "
            "channel that swings widely around zero looks silent. Take the root of the sum of "
            "squares.",
        ),
        Misconception(
            "sum of magnitudes",
            lambda w, x, density: _top_of_rows(
                w.double().abs() * x.double().abs().sum(dim=0), density
            ),
            "you added up |x_j|. The error of the output is measured by squares, and squares give "
            "the few tokens with a huge value more weight: ‖x_j‖₂ is the root of their sum.",
        ),
        Misconception(
            "root forgotten",
            lambda w, x, density: _top_of_rows(w.double().abs() * _lengths(x).square(), density),
            "you multiplied |w| by ‖x‖², so inputs count twice as much as weights. The error that "
            "a weight leaves is w² ‖x‖²; its root is |w| ‖x‖.",
        ),
        Misconception(
            "mask inverted",
            lambda w, x, density: ~_top_of_rows(-w.double().abs() * _lengths(x), density),
            "density is the share that stays, and True means that a weight stays: you removed that "
            "share, the lowest scores.",
        ),
    ),
)

# ------------------------------------------------------------------------ sparsegpt_mask


def sparsegpt_mask(weight: Tensor, diagonal: Tensor, density: float) -> Tensor:
    """True where a weight stays: of the whole block, the round(density · O · C) largest w² / d².

    weight (O, C), mask bool (O, C). d = diagonal (C,), positive, of the same dtype, is that of U,
    where UᵀU = H⁻¹; each column has its own. Of equal scores the first stay, counted row by row.
    """
    score = (weight / diagonal).abs().flatten()  # (O, C) -> (O · C,); its square has the same order
    order = score.argsort(descending=True, stable=True)
    kept = order[: round(density * len(score))]
    mask = torch.zeros_like(score, dtype=torch.bool)
    mask[kept] = True
    return mask.view_as(weight)  # (O · C,) -> (O, C)


def _blocks(seed: int) -> list[Case]:
    draw = Draw(seed)

    def block(outputs: int, columns: int) -> tuple[Tensor, Tensor]:
        return draw.normal(outputs, columns), (1.5 * draw.normal(columns)).exp()

    loud, some = block(4, 8)
    loud *= torch.tensor([0.01, 1.0, 100.0, 1.0])[:, None]
    signs = torch.tensor([1.0, -1.0])[draw.integers(0, 2, 5, 8)]
    powers = 2.0 ** draw.integers(-3, 4, 8)
    tiny, tiny_d = block(5, 6)
    fine, fine_d = draw.order(15).double().view(3, 5) / 15, draw.order(5).double()
    labelled = {
        "two rows": (*block(2, 3), 0.5),
        "half stays": (*block(4, 8), 0.5),
        "rows of very different size": (loud, some, 0.5),
        "few stay": (*block(6, 5), 0.1),
        "most stay": (*block(3, 7), 0.8),
        "half a weight: round(4.5) is 4": (*block(3, 3), 0.5),
        "as many rows as columns": (*block(6, 6), 0.5),
        "equal scores": (signs * powers, powers, 13 / 40),
        "weights of zero": (torch.tensor([[-0.0, 0.0, 3.0], [0.0, -0.0, 0.0]]), some[:3], 0.5),
        "one row": (*block(1, 9), 1 / 3),
        "one column": (draw.normal(9, 1), some[:1].clone(), 1 / 3),
        "one weight": (*block(1, 1), 1.0),
        "all stay": (*block(2, 3), 1.0),
        "none stays": (*block(2, 3), 0.0),
        "a very small diagonal": (tiny, 1e-9 * tiny_d, 0.4),
        "a very large diagonal": (tiny, 1e9 * tiny_d, 0.3),
        "very small weights": (1e-9 * tiny, tiny_d, 0.6),
        "float64, nearly equal scores": (1 + 1e-9 * fine, 1 + 1e-9 * fine_d, 0.4),
    }
    return labelled_cases(("weight", "diagonal", "density"), labelled)


def _top(score: Tensor, density: float) -> Tensor:
    return _top_of_rows(score.reshape(1, -1), density).view_as(score)


SPARSEGPT_MASK = Exercise(
    reference=sparsegpt_mask,
    cases=_blocks,
    hints=(
        "Optimal Brain Surgeon says what it costs to remove w_j if all others may make up for it: "
        "w_j² / [H⁻¹]_jj. In SparseGPT only the columns to the right may: w_j² / U_jj².",
        "Divide by the diagonal, column by column: weight / diagonal. Squared or in magnitude, the "
        "order is the same.",
        "All rows of the block compete: flatten the scores, argsort(descending=True, stable=True), "
        "keep the first round(density · numel), and give them back the block's shape.",
    ),
    properties=(
        Property(
            "the block keeps round(density · O · C) weights",
            lambda inputs, mask: int(mask.sum()) == round(inputs["density"] * mask.numel()),
        ),
    ),
    misconceptions=(
        Misconception(
            "per row",
            lambda w, d, density: _top_of_rows((w / d).abs(), density),
            "each row kept the same share: that is Wanda's rule. SparseGPT repairs the rows "
            "afterwards, so it lets all weights of the block compete.",
        ),
        Misconception(
            "magnitude alone",
            lambda w, d, density: _top(w.abs(), density),
            "you left out the diagonal, or divided all columns by one number. 1 / U_jj² says how "
            "much of the error remains once the "
            "later columns have made up for it: a large U_jj means that they can.",
        ),
        Misconception(
            "times the diagonal",
            lambda w, d, density: _top((w * d).abs(), density),
            "you multiplied by U_jj. U belongs to the inverse of H: where inputs are large and "
            "independent, U_jj is small, and the weight matters. Divide.",
        ),
        Misconception(
            "diagonal not squared",
            lambda w, d, density: _top(w.square() / d, density),
            "the score is w² / U_jj², or |w| / U_jj: weight and diagonal have the same power. "
            "(Optimal Brain Surgeon's w² / [H⁻¹]_jj looks like yours, but [H⁻¹]_jj is itself a sum "
            "of squares of U.)",
        ),
        Misconception(
            "mask inverted",
            lambda w, d, density: ~_top(-(w / d).abs(), density),
            "density is the share that stays, and True means that a weight stays: you removed that "
            "share, the lowest scores.",
        ),
    ),
)
