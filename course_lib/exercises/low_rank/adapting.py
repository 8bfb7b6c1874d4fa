"""Exercises of 09_low_rank: a layer with an adapter, and the adapter added into its weight.

Axes: I inputs, O outputs, r rank; an adapter is B A, with B = left (O, r) and A = right (r, I).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, labelled_cases

NAMES = ("weight", "left", "right", "alpha")


def _integers(draw: Draw, *shape: int) -> Tensor:
    """From −3 to 3, never 0: sums and products of few of them are exact in every dtype."""
    return (draw.integers(1, 4, *shape) * (2 * draw.integers(0, 2, *shape) - 1)).float()


# ------------------------------------------------------------------------- lora_linear


def lora_linear(x: Tensor, weight: Tensor, left: Tensor, right: Tensor, alpha: float) -> Tensor:
    """A frozen linear layer and its adapter: y = x Wᵀ + (α/r) · (x Aᵀ) Bᵀ, (…, O).

    x (…, I) with any axes before the last, weight W (O, I), left B (O, r), right A (r, I), r ≥ 1.
    Gradients flow to x, B and A. W is frozen: no gradient reaches it, even if it asks for one. x
    and W have one dtype, A and B one that is as fine or finer: what A and B make is reckoned in
    theirs and added there, and y is in the dtype of x.
    """
    base = x @ weight.detach().T  # (…, I) (I, O) -> (…, O)
    within = (x.to(right.dtype) @ right.T).div(len(right))  # (…, I) (I, r) -> (…, r)
    return (base + alpha * within @ left.T).to(x.dtype)  # (…, r) (r, O) -> (…, O)


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)
    inputs, outputs = draw.number(5, 8), draw.number(3, 5)
    a = draw.number(3, 8)

    def layer(*before: int, sizes=(inputs, outputs, 3), alpha: float = a):
        i, o, r = sizes
        x, weight = _integers(draw, *before, i), _integers(draw, o, i)
        return x, weight, _integers(draw, o, r), _integers(draw, r, i), alpha

    start, frozen, view = layer(4), layer(3), layer(3, 2)
    by_hand = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 5.0]])
    labelled = {
        "by hand": (*by_hand, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 2.0 * a),
        "as many inputs as outputs": layer(2, sizes=(3, 3, 2)),
        "more inputs than outputs": layer(4),
        "more outputs than inputs": layer(4, sizes=(3, 6, 2)),
        "one input, no batch": layer(),
        "texts of tokens": layer(2, 3),
        "four axes": layer(2, 1, 3),
        "no inputs at all": layer(0),
        "rank 1": layer(3, sizes=(5, 4, 1)),
        "a rank above both widths": layer(3, sizes=(3, 2, 7)),
        "one of each": layer(1, sizes=(1, 1, 1)),
        "alpha is 0": layer(3, alpha=0.0),
        "alpha is the rank": layer(3, alpha=3.0),
        "alpha below 1": layer(3, alpha=0.125),
        "an adapter at its start: B is 0": (*start[:2], torch.zeros_like(start[2]), *start[3:]),
        "a weight of zeros": (frozen[0], torch.zeros_like(frozen[1]), *frozen[2:]),
        "x is a view": (view[0].transpose(0, 1), *view[1:]),
        **_one_output(draw),
    }
    return labelled_cases(("x", *NAMES), labelled)


def _one_output(draw: Draw) -> dict[str, tuple]:
    """Of any dtype and scale: a single number, differentiated with weight 1, as it is."""
    half, brain, fine = torch.float16, torch.bfloat16, torch.float32

    def scaled(scale: float, dtype: torch.dtype):
        """All numbers above 0: no sum is rounding alone."""
        shapes = ((1, 5), (1, 5), (1, 3), (3, 5))
        parts = (scale * _integers(draw, *shape).abs().to(dtype) for shape in shapes)
        return *parts, float(draw.number(4, 9))

    return {
        "very large numbers": scaled(1e9, fine),
        "float64": scaled(1e60, torch.float64),
        "bfloat16": _halved(draw, brain, brain),
        "bfloat16, the adapter in float32": _halved(draw, brain, fine),
        "float16, the adapter in float32": _halved(draw, half, fine),
        "bfloat16, and α/r is between two of its numbers": _fine_scale(draw, brain),
        "float16, and α/r is between two of its numbers": _fine_scale(draw, half),
    }


def _fine_scale(draw: Draw, dtype: torch.dtype) -> tuple:
    """α/r is 1 and half a step of the dtype of x: about 3/4 more than an integer, never a tie."""
    half = 256 if dtype == torch.bfloat16 else 2048
    x, weight = torch.tensor([[1.0, draw.number(1, 4)]]), _integers(draw, 1, 2)
    right = torch.tensor([[3 * half / 8 + draw.number(-3, 4), 0.0]]).repeat(2, 1)
    return x.to(dtype), weight.to(dtype), torch.ones(1, 2), right, 2 + 2 / half


def _halved(draw: Draw, dtype: torch.dtype, fine: torch.dtype) -> tuple:
    """One output, exact in half precision, but for A x beside a finer adapter.

    Of its two numbers, which B subtracts, one is odd, and too large to be odd there.
    """
    x, weight = _integers(draw, 1, 4), _integers(draw, 1, 4)
    left, right = _integers(draw, 1, 2).sign(), _integers(draw, 2, 4)
    if fine != dtype:
        x[0, :3] = torch.tensor([3.0, 3.0, 1 + 2 * draw.number(0, 2)])
        right[:, :3] = 64 if dtype == torch.bfloat16 else 512
        right[:, 2], left[0, 1] = torch.tensor([1.0, 0.0]), -left[0, 0]
    return x.to(dtype), weight.to(dtype), left.to(fine), right.to(fine), 2.0 * draw.number(1, 4)


def _lora(
    scale: Callable = lambda alpha, r: alpha / r,
    base: Callable = lambda x, weight: x @ weight.detach().T,
    change: Callable = lambda x, left, right: x.to(right.dtype) @ right.T @ left.T,
):
    """lora_linear with another scale, another base or another adapter."""

    def wrong(x, weight, left, right, alpha):
        made = base(x, weight) + scale(alpha, len(right)) * change(x, left, right)
        return made.to(x.dtype)

    return wrong


@torch.no_grad()
def _cut_off(x, weight):
    return x @ weight.T


LORA_LINEAR = Exercise(
    reference=lora_linear,
    cases=_layers,
    differentiable=("x", "weight", "left", "right"),
    relative_tolerance=1e-4,
    absolute_tolerance=1e-5,
    hints=(
        "Two layers stand side by side, and their outputs are added: one is frozen, W. The other "
        "is two thin layers, one behind the other. Which of A and B reads x?",
        "A (r, I) reads x: x Aᵀ has r numbers for each input. B (O, r) makes O of them. r is how "
        "many rows A has. `weight.detach()` has the numbers of W, and no gradient goes back "
        "through it to W; but x needs the gradient that comes through W.",
        "base = x @ weight.detach().T; change = x.to(right.dtype) @ right.T @ left.T; then "
        "(base + alpha / len(right) * change).to(x.dtype).",
    ),
    misconceptions=(
        Misconception(
            "alpha without the rank",
            _lora(lambda alpha, r: alpha),
            "the adapter was multiplied by α. It is α/r: then a larger rank needs no other "
            "learning rate.",
        ),
        Misconception(
            "divided by the root of the rank",
            _lora(lambda alpha, r: alpha / r**0.5),
            "the adapter was multiplied by α/√r. That is a later proposal (rank-stabilized LoRA, "
            "Kalajdzievski, 2023). LoRA, and this exercise, have α/r.",
        ),
        Misconception(
            "the weight learns, too",
            _lora(base=lambda x, weight: x @ weight.T),
            "every value is right, but a gradient reaches W. Then the whole layer is trained, and "
            "its optimizer needs the memory that LoRA saves. Take weight.detach().",
        ),
        Misconception(
            "the base is cut off from x",
            _lora(base=_cut_off),
            "every value is right, but x gets no gradient through W: no_grad and x.detach() cut "
            "the layers below off, whose adapters must learn, too. Only W is frozen; detach W.",
        ),
        Misconception(
            "A and B change places",
            _lora(change=lambda x, left, right: x @ (left @ right)),
            "x was multiplied by B A itself. B A (O, I) is a weight like W, so x meets its "
            "transpose: x Aᵀ Bᵀ.",
        ),
        Misconception(
            "the adapter rounded to the dtype of x",
            _lora(change=lambda x, left, right: x @ right.to(x.dtype).T @ left.to(x.dtype).T),
            "A and B were rounded to the dtype of x. They are kept in a finer one because small "
            "steps of training would be lost in bfloat16; take x to their dtype instead.",
        ),
    ),
)

# ------------------------------------------------------------------------ merge_adapter


def merge_adapter(weight: Tensor, left: Tensor, right: Tensor, alpha: float) -> Tensor:
    """The one weight that stands for a layer and its adapter: W + (α/r) · B A, (O, I).

    weight W (O, I) in any float dtype, left B (O, r) and right A (r, I) in one of their own, r ≥ 1.
    The sum is in the dtype of W and rounded to it once, at the end; until then all is reckoned in
    float32, or in float64 where W is. W, B and A stay as they are.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    change = alpha * left.to(wide).div(len(right)) @ right.to(wide)  # (O, r) (r, I) -> (O, I)
    return (weight + change).to(weight.dtype)  # the sum is in the wider dtype


def _adapter(
    draw: Draw, *sizes: int, dtype=torch.float32, of_adapter=torch.float32, alpha: float = 4.0
) -> tuple:
    """W, B and A of few bits: (α/r) B A and the sum are exact in float32; B is no bfloat16.

    sizes: O, I, r, where α/r is a power of two, or a small number.
    """
    o, i, r = sizes
    weight, left = draw.integers(-400, 401, o, i) / 256, draw.integers(-1280, 1281, o, r) / 1024
    right = draw.integers(-80, 81, r, i) / 256
    return weight.to(dtype), left.to(of_adapter), right.to(of_adapter), alpha


def _adapters(seed: int) -> list[Case]:
    draw = Draw(seed)
    a = 2.0 * draw.number(1, 5)
    adapter = partial(_adapter, draw, alpha=a)
    start, cancel, view = adapter(4, 5, 2), adapter(4, 6, 2), adapter(5, 4, 2)
    by_hand = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    labelled = {
        "by hand": (*by_hand, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), a),
        "as many outputs as inputs": adapter(4, 4, 2),
        "more outputs than inputs": adapter(6, 3, 2),
        "more inputs than outputs": adapter(3, 7, 2),
        "rank 1": adapter(4, 5, 1),
        "rank 4": adapter(5, 6, 4),
        "a rank above both widths": adapter(2, 3, 8),
        "one number": adapter(1, 1, 1),
        "alpha is 0": adapter(4, 5, 2, alpha=0.0),
        "alpha below the rank": adapter(4, 5, 4, alpha=0.5),
        "an adapter at its start: B is 0": (start[0], torch.zeros_like(start[1]), *start[2:]),
        "the adapter takes the weight away": (-cancel[1] @ cancel[2], *cancel[1:3], 2.0),
        "views": (*(part.T.clone().T for part in view[:3]), view[3]),
        **_of_dtypes(draw),
    }
    return labelled_cases(NAMES, labelled)


def _of_dtypes(draw: Draw) -> dict[str, tuple]:
    """In half precision large enough that many sums lie near the middle of two numbers."""
    half, brain = torch.float16, torch.bfloat16
    large = partial(_adapter, draw, 16, 24, 4)

    def scaled(scale: float, dtype=torch.float32):
        """All numbers above 0: sums in another order agree where α/r is no power of two."""
        parts = (0.1 + draw.uniform(*shape).to(dtype) for shape in ((3, 4), (3, 2), (2, 4)))
        weight, left, right = parts
        return scale * weight, scale * left, right, 0.7

    return {
        "bfloat16, the adapter in float32": large(dtype=brain),
        "float16, the adapter in float32": large(dtype=half),
        "all in bfloat16": large(dtype=brain, of_adapter=brain, alpha=2.0),
        "all in float16": large(dtype=half, of_adapter=half, alpha=2.0),
        "float16, B A is too large for it": _overflowing(draw),
        "float32, the adapter in bfloat16": large(of_adapter=brain),
        "float64, the adapter in float32": large(dtype=torch.float64),
        "float64": scaled(1e60, torch.float64),
        "very small numbers": scaled(1e-15),
        "very large numbers": scaled(1e15),
    }


def _overflowing(draw: Draw) -> tuple:
    """(α/r) B A fits into float16, and B A does not."""
    left, right = 256.0 + 8 * draw.integers(0, 9, 5, 2), 256.0 + 8 * draw.integers(0, 9, 2, 6)
    return 16 * _integers(draw, 5, 6).half(), left.half(), right.half(), 1 / 64


def _merged(change: Callable, sign: float = 1.0):
    def wrong(weight, left, right, alpha):
        wide = torch.promote_types(weight.dtype, torch.float32)
        delta = sign * change(weight, left.to(wide), right.to(wide), alpha)
        return (weight.to(wide) + delta).to(weight.dtype)

    return wrong


def _in_its_dtype(weight, left, right, alpha):
    return weight + (alpha / len(right) * left.to(weight.dtype)) @ right.to(weight.dtype)


def _in_place(weight, left, right, alpha):
    weight.copy_(merge_adapter(weight, left, right, alpha))
    return weight


def _not_rounded(weight, left, right, alpha):
    wide = torch.promote_types(weight.dtype, torch.float32)
    return merge_adapter(weight.to(wide), left, right, alpha)


MERGE_ADAPTER = Exercise(
    reference=merge_adapter,
    cases=_adapters,
    absolute_tolerance=0.0,
    hints=(
        "x Wᵀ + (α/r) x Aᵀ Bᵀ = x (W + (α/r) B A)ᵀ. What has the shape of W?",
        "Take all three to float32 first. bfloat16 keeps 8 bits: whoever rounds B A to it, and "
        "then the sum again, rounds twice.",
        "wide = torch.promote_types(weight.dtype, torch.float32); then (weight.to(wide) + "
        "alpha / len(right) * left.to(wide) @ right.to(wide)).to(weight.dtype).",
    ),
    misconceptions=(
        Misconception(
            "rounded twice",
            _merged(lambda w, b, a, alpha: (alpha / len(a) * b @ a).to(w.dtype)),
            "(α/r) B A was rounded to the dtype of W, and then the sum was rounded again. In "
            "bfloat16 that moves many weights to the wrong neighbor. Round once, at the end.",
        ),
        Misconception(
            "reckoned in the weight's dtype",
            _in_its_dtype,
            "B and A were taken to the dtype of W before they were multiplied. In half precision "
            "they are rounded there, then their products, then the sum; and B A may be too large.",
        ),
        Misconception(
            "alpha without the rank",
            _merged(lambda w, b, a, alpha: alpha * b @ a),
            "the adapter was multiplied by α. The layer that you merge has α/r.",
        ),
        Misconception(
            "taken away",
            _merged(lambda w, b, a, alpha: alpha / len(a) * b @ a, sign=-1.0),
            "the adapter was subtracted. That is how it is taken out again (unmerging).",
        ),
        Misconception(
            "in place",
            _in_place,
            "the sum was written into `weight`. Whoever merges twice, or wants the base back, has "
            "lost it; make a new tensor.",
        ),
        Misconception(
            "not in the weight's dtype",
            _not_rounded,
            "the numbers are right, but in float32: the merged layer would take more bytes than "
            "the layer that it replaces. Give the dtype of W back.",
        ),
    ),
)
