"""Exercises of 10_acceleration: layers that vanish into their neighbours.

Axes: O outputs, I inputs, D model width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, labelled_cases

# ----------------------------------------------------------------------- fold_batch_norm


def fold_batch_norm(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    gain: Tensor,
    shift: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer that does what a layer and the BatchNorm behind it do.

    weight: (O, I) of a linear layer, or (O, I, k) or (O, I, k, k) of a convolution. bias: (O,) or
    None. mean, variance, gain, shift: (O,), float; variance ≥ 0. At evaluation BatchNorm makes
    gain · (y − mean) / √(variance + epsilon) + shift of the layer's output y, for each of the O.
    Returns a weight of the same shape and a bias (O,), in the weight's dtype; the inputs stay as
    they are. No number on the way is rounded to less than float64.
    """
    factor = gain * (variance.double() + epsilon).rsqrt()  # (O,)
    before = 0 if bias is None else bias
    shape = (-1,) + (1,) * (weight.dim() - 1)
    folded = weight * factor.reshape(shape)
    moved = (before - mean.double()) * factor + shift
    return folded.to(weight.dtype), moved.to(weight.dtype)


NORM = ("weight", "bias", "mean", "variance", "gain", "shift", "epsilon")


def _normed(draw: Draw, *shape: int, bias: bool = True, size: float = 1.0, epsilon=1e-5) -> tuple:
    outputs = shape[0]
    return (
        size * draw.normal(*shape),
        size * draw.normal(outputs) if bias else None,
        size * (1 + draw.normal(outputs)),
        size**2 * (0.1 + 3 * draw.uniform(outputs)),
        draw.normal(outputs),
        draw.normal(outputs),
        epsilon,
    )


def _norms(seed: int) -> list[Case]:
    draw = Draw(seed)
    dead = _normed(draw, 6, 3, 3, 3)
    dead[3][::2], dead[4][1::3] = 0, 0  # no variance, no gain
    still, far = list(_normed(draw, 3, 4)), list(_normed(draw, 3, 4))
    still[3], still[4] = torch.zeros(3), 1e-30 * still[4]  # a factor of 1e-30 / √1e-60
    far[1:4] = torch.full((3,), 3e38), torch.full((3,), -3e38), torch.full((3,), 1e38)
    still, far = tuple(still), tuple(far)
    half = tuple(x.half() if torch.is_tensor(x) else x for x in _normed(draw, 4, 5)[:2])
    double = tuple(x.double() if torch.is_tensor(x) else x for x in _normed(draw, 3, 4))
    huge = tuple(x.double() for x in _normed(draw, 3, 4)[:-1])
    huge = tuple(1e60 * x for x in huge[:3]) + huge[3:]
    bfloat = tuple(x.bfloat16() for x in _normed(draw, 4, 5)[:2])
    labelled = {
        "a linear layer": _normed(draw, 3, 2),
        "a linear layer without bias": _normed(draw, 4, 3, bias=False),
        "a convolution": _normed(draw, 4, 2, 3, 3),
        "a convolution without bias": _normed(draw, 5, 3, 3, 3, bias=False),
        "as many outputs as inputs": _normed(draw, 3, 3, 3, 3),
        "a square matrix": _normed(draw, 4, 4),
        "a convolution in one dimension": _normed(draw, 4, 2, 4),
        "one output": _normed(draw, 1, 3, 1, 1),
        "one number": _normed(draw, 1, 1),
        "outputs that never vary, and some without gain": dead,
        "a large epsilon": _normed(draw, 4, 3, epsilon=0.5),
        "no epsilon": _normed(draw, 4, 3, epsilon=0.0),
        "very small outputs": _normed(draw, 4, 3, size=1e-9, epsilon=1e-20),
        "very large outputs": _normed(draw, 4, 3, size=1e9),
        "float16, its statistics in float32": half + _normed(draw, 4, 5)[2:],
        "bfloat16, its statistics in float32": bfloat + _normed(draw, 4, 5)[2:],
        "float64": double[:-1] + (1e-12,),
        "float64, larger than float32 knows": huge + (1e-5,),
        "an epsilon smaller than float32 knows": still[:-1] + (1e-60,),
        "sums larger than float32 knows": far,
    }
    return labelled_cases(NORM, labelled)


def _folded_with(factor: Callable | None = None, moved: Callable | None = None, axis: int = 0):
    """fold_batch_norm with another factor or another bias, or along another axis."""

    def wrong(weight, bias, mean, variance, gain, shift, epsilon):
        w, v, g = weight.double(), variance.double(), gain.double()
        right = g / (v + epsilon).sqrt()
        scale = factor(g, v, epsilon) if factor else right
        shape = [1] * w.dim()
        shape[axis] = -1
        before = torch.zeros_like(mean) if bias is None else bias
        bias = before.double(), mean.double(), shift.double()
        out = moved(scale, *bias) if moved else (bias[0] - bias[1]) * scale + bias[2]
        return (w * scale.reshape(shape)).to(weight.dtype), out.to(weight.dtype)

    return wrong


def _as_given(weight, bias, mean, variance, gain, shift, epsilon):
    """fold_batch_norm whose steps are rounded to the dtypes that it was given."""
    factor = gain / (variance + epsilon).sqrt()
    before = torch.zeros_like(mean) if bias is None else bias
    moved = (before - mean) * factor + shift
    folded = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
    return folded.to(weight.dtype), moved.to(weight.dtype)


FOLD_BATCH_NORM = Exercise(
    reference=fold_batch_norm,
    cases=_norms,
    hints=(
        "Write both steps as one formula: y = W x + b, then z = g (y − m) / √(v + ε) + s. Multiply "
        "out.",
        "What stands before x is the new weight, what stands alone is the new bias. Each of the O "
        "outputs has a factor of its own: a row of W.",
        "factor = gain / √(variance + epsilon); weight · factor by row, (bias − mean) · factor + "
        "shift. No bias is a bias of 0.",
    ),
    misconceptions=(
        Misconception(
            "the old bias kept its size",
            _folded_with(moved=lambda f, b, m, s: b - m * f + s),
            "the old bias was added as it was. It stands before BatchNorm, so it is multiplied by "
            "the factor, as the weight is.",
        ),
        Misconception(
            "the variance without its root",
            _folded_with(lambda g, v, e: g / (v + e)),
            "it was divided by the variance. BatchNorm divides by its root, the deviation.",
        ),
        Misconception(
            "epsilon outside the root",
            _folded_with(lambda g, v, e: g / (v.sqrt() + e)),
            "epsilon stands under the root, beside the variance.",
        ),
        Misconception(
            "epsilon forgotten",
            _folded_with(lambda g, v, e: g / v.clamp(min=1e-300).sqrt()),
            "epsilon is missing. Where an output never varies, the factor explodes.",
        ),
        Misconception(
            "the mean with the wrong sign",
            _folded_with(moved=lambda f, b, m, s: (b + m) * f + s),
            "the mean is subtracted from y, so it is subtracted from the bias.",
        ),
        Misconception(
            "rounded on the way",
            _as_given,
            "the formula is right, but steps of it were rounded to float32: there an epsilon of "
            "1e-60 is 0, and a sum of large numbers infinite. Take .double() first.",
        ),
    ),
)


# ----------------------------------------------------------------------- fold_gains


def fold_gains(block: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a decoder's block that does the same, and whose two norms have no gain.

    attention_norm.weight and mlp_norm.weight: (D,), the gains w of w · x / √(mean(x²) + ε).
    Matrices (outputs, inputs): attention.query.weight and the same of key, value and output;
    mlp.gate.weight and the same of up and down. All float, and a tensor keeps its dtype. Returns a
    new dictionary with the same names, in which both gains are ones; what need not change is equal
    to what it was. The inputs stay as they are.
    """
    folded = dict(block)
    for norm, readers in READERS.items():
        gain = block[norm]
        folded[norm] = torch.ones_like(gain)
        for name in readers:
            product = block[name] * gain  # each column by its input's gain
            folded[name] = product.to(block[name].dtype)
    return folded


READERS = {
    "attention_norm.weight": (
        "attention.query.weight",
        "attention.key.weight",
        "attention.value.weight",
    ),
    "mlp_norm.weight": ("mlp.gate.weight", "mlp.up.weight"),
}


def _block(draw: Draw, width: int, heads: int, kv: int, hidden: int, size: float = 1.0) -> dict:
    return {
        "attention_norm.weight": 1 + draw.normal(width),
        "attention.query.weight": size * draw.normal(heads, width),
        "attention.key.weight": size * draw.normal(kv, width),
        "attention.value.weight": size * draw.normal(kv, width),
        "attention.output.weight": size * draw.normal(width, heads),
        "mlp_norm.weight": 1 + draw.normal(width),
        "mlp.gate.weight": size * draw.normal(hidden, width),
        "mlp.up.weight": size * draw.normal(hidden, width),
        "mlp.down.weight": size * draw.normal(width, hidden),
    }


def _blocks(seed: int) -> list[Case]:
    draw = Draw(seed)

    def held_as(dtype: torch.dtype, block: dict) -> dict:
        return {name: tensor.to(dtype) for name, tensor in block.items()}

    by_hand = {name: torch.ones_like(part) for name, part in _block(draw, 2, 2, 1, 3).items()}
    by_hand["attention_norm.weight"] = torch.tensor([2.0, 3.0])
    by_hand["mlp_norm.weight"] = torch.tensor([5.0, 7.0])
    zeros = _block(draw, 5, 4, 2, 6)
    zeros["mlp_norm.weight"][1::2] = 0
    tiny = {n: x * 1e-60 for n, x in held_as(torch.float64, _block(draw, 4, 4, 2, 6)).items()}
    mixed = held_as(torch.bfloat16, _block(draw, 6, 4, 2, 5))
    mixed |= {name: (1 + draw.normal(6)).half().float() for name in READERS}  # more digits than 8
    labelled = {
        "gains of 2 and 3, then of 5 and 7, and every weight 1": (by_hand,),
        "a small block": (_block(draw, 4, 6, 2, 5),),
        "every matrix square": (_block(draw, 4, 4, 4, 4),),
        "TinyLM's proportions": (_block(draw, 12, 12, 4, 32),),
        "gains that are zero": (zeros,),
        "width one": (_block(draw, 1, 2, 1, 3),),
        "very small weights": (_block(draw, 4, 4, 2, 6, 1e-9),),
        "very large weights": (_block(draw, 4, 4, 2, 6, 1e9),),
        "float16": (held_as(torch.float16, _block(draw, 4, 4, 2, 6)),),
        "bfloat16, its gains in float32": (mixed,),
        "float64": (held_as(torch.float64, _block(draw, 3, 4, 2, 6)),),
        "float64, smaller than float32 knows": (tiny,),
    }
    return labelled_cases(("block",), labelled)


def _fold_with(times: Callable | None = None, skip=(), more=(), ones: bool = True):
    """fold_gains along another axis, or for fewer or more matrices, or with the gain left there."""

    def wrong(block):
        folded = dict(block)
        for norm, readers in READERS.items():
            gain = block[norm].double()
            folded[norm] = torch.ones_like(block[norm]) if ones else block[norm]
            room = norm.removesuffix("_norm.weight")
            for name in (*readers, *(name for name in more if name.startswith(f"{room}."))):
                if name not in skip:
                    wide = block[name].double()
                    product = times(wide, gain) if times else wide * gain
                    folded[name] = product.to(block[name].dtype)
        return folded

    return wrong


def _rows(weight: Tensor, gain: Tensor) -> Tensor:
    """By row where the shapes allow it."""
    rows = min(len(weight), len(gain))
    scaled = weight.clone()
    scaled[:rows] *= gain[:rows, None]
    return scaled


def _behind(block):
    """The gain goes into the rows of the matrices that write, not into the columns that read."""
    folded = dict(block)
    for norm, name in (("attention_norm", "attention.output"), ("mlp_norm", "mlp.down")):
        gain, wide = block[f"{norm}.weight"], block[f"{name}.weight"].double()
        folded[f"{norm}.weight"] = torch.ones_like(gain)
        folded[f"{name}.weight"] = (wide * gain.double()[:, None]).to(block[f"{name}.weight"].dtype)
    return folded


FOLD_GAINS = Exercise(
    reference=fold_gains,
    cases=_blocks,
    absolute_tolerance=0.0,
    hints=(
        "Who reads the normed x? Write q = W (w · x̂), with x̂ for the x that is only divided.",
        "W (w · x̂) = (W with column i multiplied by wᵢ) x̂. Three matrices read the first norm, two "
        "the second.",
        "block[name] * gain multiplies the columns of query, key, value by attention_norm's gain "
        "and of gate, up by mlp_norm's; then both gains become torch.ones_like.",
    ),
    misconceptions=(
        Misconception(
            "by row",
            _fold_with(_rows),
            "rows were multiplied. The gain belongs to a matrix's inputs, its columns: entry (o, "
            "i) meets input i.",
        ),
        Misconception(
            "value left out",
            _fold_with(skip=("attention.value.weight",)),
            "value reads the same normed x as query and key do.",
        ),
        Misconception(
            "up left out",
            _fold_with(skip=("mlp.up.weight",)),
            "gate and up both read the normed x; only one of them got the gain.",
        ),
        Misconception(
            "the gain stayed",
            _fold_with(ones=False),
            "the matrices are right, but the norms still multiply as well: the gain counts twice.",
        ),
        Misconception(
            "into the matrices behind",
            _behind,
            "the gain went into output and down. Those write into the residual stream; between the "
            "norm and them stand softmax or SiLU, and through these no factor passes.",
        ),
        Misconception(
            "divided",
            _fold_with(lambda w, g: w / g),
            "the matrices were divided by the gain. What the norm does not multiply any more, they "
            "must.",
        ),
    ),
)
