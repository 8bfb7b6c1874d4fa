"""Exercises of 05_linear_quantization: a grid found out, computed with, and beaten.

Axes: O outputs, I inputs, B batch, G numbers of a group.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.linear_quantization.granularity import search_clip
from course_lib.models import pretrained

# --------------------------------------------------------------------------- detect_grid


def detect_grid(weight: Tensor) -> Tensor:
    """[group, levels] of the linear quantization that `weight` (O, I) went through; [0, 0] if none.

    group: the largest of 16, 32, 64, 128 such that each group of a row lies on an even grid of its
    own. levels: how many levels the widest of these grids has, at most 256. The step of a group is
    its smallest gap that is not zero.
    """
    found = torch.zeros(2, dtype=torch.int64, device=weight.device)
    for group in (16, 32, 64, 128):
        if weight.shape[1] % group:
            continue
        numbers = weight.reshape(-1, group).sort().values  # (groups, G)
        gaps, span = numbers.diff(), (numbers.amax(1) - numbers.amin(1))[:, None]
        real = gaps > 1e-4 * span  # smaller gaps are float noise within one level
        step = gaps.where(real, torch.inf).amin(dim=1, keepdim=True)
        off_grid = (gaps / step - (gaps / step).round()).abs().amax()
        levels = (span / step).round().amax() + 1
        answer = torch.stack([torch.full_like(levels, group), levels]).long()
        found = torch.where((off_grid < 0.05) & (levels <= 256), answer, found)
    return found


def _went_through(
    draw: Draw, group: int, levels: int, shape: tuple[int, int] = (16, 128), symmetric: bool = False
) -> Tensor:
    """Random weights on a grid of its own for each group: both ends and two neighbours are used."""
    codes = draw.integers(0, levels, shape[0] * shape[1] // group, group)
    neighbour = draw.number(0, levels - 1)
    codes[:, :4] = torch.tensor([0, levels - 1, neighbour, neighbour + 1])
    codes = codes[:, draw.order(group)]
    steps = 0.001 + 0.01 * draw.uniform(len(codes), 1)
    low = -steps * (levels - 1) / 2 if symmetric else -steps * levels * draw.uniform(len(codes), 1)
    return (low + steps * codes).view(shape)


def _checkpoints(seed: int) -> list[Case]:
    draw = Draw(seed)
    pruned, spoiled = _went_through(draw, 32, draw.number(5, 17)), _went_through(draw, 64, 8)
    pruned[0, :32] = 0
    spoiled[-1, -2] += 0.37 * (spoiled[-1, -16:].sort().values.diff().amax())
    gaps = 1.55 + 0.4 * draw.uniform(14)
    even, uneven = torch.arange(16.0), torch.cat([torch.tensor([0.0, 1.0]), 1 + gaps.cumsum(0)])
    every_level = torch.cat([torch.arange(256.0)[::2], torch.arange(256.0)[1::2]]).view(2, 128)
    every_level[:, -2:] = torch.tensor([[0.0, 255.0], [0.0, 255.0]])
    every_level[:, 0] = 1
    few = _went_through(draw, 32, 4, (3, 96))
    many = torch.cat([few, _went_through(draw, 32, draw.number(6, 20), (1, 96))])
    two_largest = torch.cat([torch.arange(0.0, 30, 2), torch.tensor([29.0])]).repeat(2, 1)
    last_off = torch.cat([torch.arange(15.0), torch.tensor([15.4])]).repeat(2, 1)
    scale = 0.1 + draw.uniform(2, 1)
    far = 1000 + 1e-4 * _went_through(draw, 64, draw.number(5, 17)).double()
    weights = {
        "quantized in groups": _went_through(draw, 2 ** draw.number(5, 7), draw.number(5, 17)),
        "in other groups, very small weights": 1e-9
        * _went_through(draw, 4 ** draw.number(2, 4), draw.number(3, 9)),
        "never quantized": draw.normal(16, 128),
        "symmetric, a group is a row": _went_through(
            draw, 128, 2 * draw.number(3, 9) - 1, symmetric=True
        ),
        "few levels, very large weights": 1e9 * _went_through(draw, 16, draw.number(2, 5)),
        "some weights were pruned": pruned,
        "one group has a grid, the other has none": torch.stack([even, uneven]),
        "one weight, in the last group, is off": spoiled,
        "the last row has more levels, rows of 96": many,
        "only the two largest are neighbours": scale * two_largest,
        "only the largest is off": scale * last_off,
        "the quiet row has more levels": torch.cat([1e6 * few, many[-1:]]),
        "256 levels": every_level[:, draw.order(128)],
        "257 levels": every_level.where(every_level < 255, torch.tensor(256.0)),
        "rows of 24": torch.arange(48.0).view(2, 24),
        "float64, far from zero": far,
    }
    return [Case(label, {"weight": weight}) for label, weight in weights.items()]


def _distinct(weight: Tensor, group: int) -> int:
    changes = weight.reshape(-1, group).sort().values.diff() > 0
    return int(changes.sum(dim=1).max()) + 1


def _few_values(weight):
    for group in (128, 64, 32, 16):
        if weight.shape[1] % group == 0 and _distinct(weight, group) < group:
            return torch.tensor([group, _distinct(weight, group)])
    return torch.tensor([0, 0])


def _smallest_group(weight):
    for group in (16, 32, 64, 128):
        found = detect_grid(weight.reshape(-1, group)) if weight.shape[1] % group == 0 else [0]
        if found[0]:
            return torch.stack([torch.tensor(group), found[1]])
    return torch.tensor([0, 0])


def _steps_not_levels(weight):
    found = detect_grid(weight)
    return torch.where(found[0] > 0, found - torch.tensor([0, 1]), found)


def _in_bits(weight):
    found = detect_grid(weight)
    return torch.stack([found[0], found[1].clamp(min=1).log2().ceil().long()])


DETECT_GRID = Exercise(
    reference=detect_grid,
    cases=_checkpoints,
    seconds=4.0,
    hints=(
        "Sort the numbers of one group. If they lie on a grid, what is true of their gaps?",
        "Every gap is a multiple of the smallest gap that is not zero: gap / step is an integer.",
        "Two groups with different steps do not share a grid. So try 16, 32, 64, 128 and keep the "
        "largest that fits. The levels of a group: span / step + 1.",
    ),
    misconceptions=(
        Misconception(
            "few different values",
            _few_values,
            "you looked for groups with fewer values than numbers. Two groups of 32 with 16 levels "
            "each hold 32 values among 64 numbers: fewer, and yet two grids. Ask whether the gaps "
            "are multiples of one step.",
        ),
        Misconception(
            "smallest group",
            _smallest_group,
            "a part of a group lies on the group's grid as well. So the smallest size that fits "
            "says nothing: look for the largest.",
        ),
        Misconception(
            "steps instead of levels",
            _steps_not_levels,
            "you counted the steps of the grid. It has one level more than steps.",
        ),
        Misconception(
            "bits instead of levels",
            _in_bits,
            "you answered in bits. Asked are levels; there need not be a power of two of them.",
        ),
    ),
)

# ------------------------------------------------------------------------ integer_linear


def integer_linear(
    x_codes: Tensor, x_scale: Tensor, x_zero_point: Tensor, w_codes: Tensor, w_scale: Tensor
) -> Tensor:
    """x · wᵀ from int8 codes: x = x_scale (x_codes − x_zero_point), w = w_scale w_codes.

    x_codes (B, I), w_codes (O, I), w_scale (O,), the rest one number each. The result has the
    scales' dtype. Only the last step may use floats: sums of products are exact integers.
    """
    products = x_codes.int()[:, None, :] * w_codes  # (B, O, I) in int32
    sums = products.sum(dim=2) - x_zero_point * w_codes.sum(dim=1)  # (B, O)
    return sums * (x_scale * w_scale)


def _integer_inputs(seed: int) -> list[Case]:
    draw = Draw(seed)
    names = ("x_codes", "x_scale", "x_zero_point", "w_codes", "w_scale")
    zero_point = draw.number(-60, 60) * 2 + 1

    def codes(rows: int, inputs: int) -> Tensor:
        return draw.integers(-128, 128, rows, inputs).to(torch.int8)

    def coded(batch: int, outputs: int, inputs: int, zero_point: int) -> list[Tensor]:
        zero, scales = torch.tensor(zero_point, dtype=torch.int32), 0.1 + draw.uniform(outputs + 1)
        return [codes(batch, inputs), scales[-1], zero, codes(outputs, inputs), scales[:-1].clone()]

    double = coded(2, 3, draw.number(20, 40), zero_point)
    double[1], double[4] = double[1].double() * 1e-9, double[4].double() * (1 + 1e-7)
    labelled = {
        "a zero-point of 0": coded(2, 3, 4, 0),
        "another zero-point": coded(2, 3, 8, zero_point),
        "a long row": coded(3, 2, 200, -zero_point),
        "as many outputs as inputs and rows": coded(4, 4, 4, draw.number(-128, 128)),
        "one input": coded(1, 1, 1, -128),
        "sums that cancel": _cancelling(draw, coded(2, 3, 200, -17)),
        "large sums that nearly cancel": _nearly_cancelling(draw),
        "the largest codes": _filled(coded(2, 2, 3000, 127), -128),
        "float64 scales": double,
    }
    return labelled_cases(names, labelled)


def _filled(inputs: list[Tensor], code: int) -> list[Tensor]:
    return [inputs[0].fill_(code), inputs[1], inputs[2], inputs[3].fill_(code), inputs[4]]


def _cancelling(draw: Draw, inputs: list[Tensor]) -> list[Tensor]:
    """Every product comes a second time with the other sign: only exact sums give exactly zero."""
    x, x_scale, zero_point, w, w_scale = inputs
    order, w = draw.order(2 * x.shape[1]), w.clamp(min=-127)
    twice = torch.cat([x, x], dim=1)[:, order], torch.cat([w, -w], dim=1)[:, order]
    return [twice[0], x_scale, zero_point, twice[1], w_scale]


def _nearly_cancelling(draw: Draw) -> list[Tensor]:
    """Inputs of −1, 0 or 1 step, a far zero-point, large weights: 2²⁶ − 2²⁶ leaves some hundreds.

    The sums are odd, and beyond 2²⁴ float32 knows no odd numbers.
    """
    steps, w = draw.integers(-1, 2, 2, 6000), draw.integers(100, 128, 3, 6000)
    steps[:, :3], w[:, :3] = torch.tensor([1, 0, 0]), torch.tensor([101, 101, 101])
    steps[:, 3:] *= draw.integers(0, 2, 5997)
    w[:, 3:] -= w[:, 3:] % 2
    scales, zero = 0.1 + draw.uniform(4), torch.tensor(120, dtype=torch.int32)
    return [(steps + 120).to(torch.int8), scales[3], zero, w.to(torch.int8), scales[:3].clone()]


def _int8_products(x, x_scale, zero_point, w, w_scale):
    sums = (x[:, None, :] * w).sum(dim=2) - zero_point * w.int().sum(dim=1)
    return sums * (x_scale * w_scale)


def _int8_difference(x, x_scale, zero_point, w, w_scale):
    shifted = (x - zero_point.to(torch.int8)).int()
    return (shifted[:, None, :] * w.int()).sum(dim=2) * (x_scale * w_scale)


INTEGER_LINEAR = Exercise(
    reference=integer_linear,
    cases=_integer_inputs,
    absolute_tolerance=0.0,
    hints=(
        "Write out x · wᵀ with both codes: which scales can be pulled out of the sum?",
        "Σ (x − z) w = Σ x w − z Σ w. The second sum depends on the weight alone.",
        "int8 · int8 does not fit into int8. Convert to int32 before you multiply.",
    ),
    misconceptions=(
        Misconception(
            "products in int8",
            _int8_products,
            "the products were taken in int8, where 100 · 100 wraps to 16. Convert to int32 first.",
        ),
        Misconception(
            "zero-point forgotten",
            lambda x, xs, z, w, ws: integer_linear(x, xs, torch.zeros_like(z), w, ws),
            "code 0 is not zero: the code of zero is x_zero_point. Its share, x_zero_point times "
            "the sum of a weight row, has to be taken off.",
        ),
        Misconception(
            "zero-point subtracted in int8",
            _int8_difference,
            "x_codes − x_zero_point was taken in int8, where −127 − 5 wraps to 124.",
        ),
        Misconception(
            "scale of the weight forgotten",
            lambda x, xs, z, w, ws: integer_linear(x, xs, z, w, torch.ones_like(ws)),
            "each output channel has a scale of its own, w_scale, and it is missing.",
        ),
        Misconception(
            "zero-point added",
            lambda x, xs, z, w, ws: integer_linear(x, xs, -z, w, ws),
            "the zero-point's share was added. x is x_scale · (x_codes − x_zero_point): minus.",
        ),
    ),
)

# -------------------------------------------------------------------- better_than_minmax


SHARES = tuple(sign * k / 50 for k in range(4, 17) for sign in (1, -1))


def better_than_minmax(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes (O, I) from −4 to 3, scales (O, 1)) with codes · scales as near to `weight` as can be.

    Asked for: at most 38 % of the mean squared error of the symmetric min–max grid of 3 bits.
    """
    size = torch.linalg.vector_norm(weight, torch.inf, dim=1)  # (O,), the largest magnitudes
    scales = torch.stack([share * size for share in SHARES], dim=1)  # (O, candidates)
    tried = scales[:, None, :]  # (O, 1, candidates)
    codes = (weight[:, :, None] / tried).round().clamp(-4, 3)  # (O, I, candidates)
    error = torch.linalg.vector_norm(codes * tried - weight[:, :, None], dim=1)  # (O, candidates)
    best = torch.argmin(error, dim=1, keepdim=True)  # (O, 1)
    return codes.take_along_dim(best[:, None], dim=2).squeeze(2), scales.take_along_dim(best, dim=1)


ASKED = 0.38  # between the best of positive scales, 38.9 %, and the best of all, 37.1 %


def _real_layer(seed: int) -> list[Case]:
    """A real matrix; rows, columns and unit are drawn, and the errors' shares are the same."""
    model, _ = pretrained.tiny()
    draw, weight = Draw(seed), model.blocks[1].mlp.down.weight.detach()[::4]
    weight = weight[draw.order(len(weight))][:, draw.order(weight.shape[1])]
    label = "every fourth row of `down` of TinyLM's second block, in another order"
    return [Case(label, {"weight": 2.0 ** draw.number(-3, 4) * weight})]


def _share_of_minmax_error(inputs: dict, value: list[Tensor]) -> float:
    """The mean squared error of an answer, as a share of symmetric min–max's."""
    weight, (codes, scale) = inputs["weight"], value
    minmax = weight.abs().amax(dim=1, keepdim=True) / 3
    before = ((weight / minmax).round() * minmax - weight).square().mean()
    return float((codes.float() * scale - weight).square().mean() / before)


def _is_a_code(inputs: dict, value: list[Tensor]) -> bool:
    codes = value[0]
    whole = bool((codes.float() == codes.float().round()).all())
    return whole and codes.shape == inputs["weight"].shape and -4 <= codes.min() <= codes.max() <= 3


def _what_was_reached(inputs: dict, value: list[Tensor]) -> str:
    share = 100 * _share_of_minmax_error(inputs, value)
    return f"{share:.1f} % of min–max's error (asked: at most 38.0 %; the least possible: 37.1 %)"


def _scaled(weight: Tensor, scale: Tensor, low: int = -4) -> tuple[Tensor, Tensor]:
    return (weight / scale).round().clamp(low, 3).to(torch.int8), scale


def _clipped(weight: Tensor) -> Tensor:
    """Exercise 8's scales."""
    return search_clip(weight, 3, torch.linspace(0.2, 1, 81))


def _one_scale(weight: Tensor) -> tuple[Tensor, Tensor]:
    codes, scale = better_than_minmax(weight.view(1, -1))
    return codes.view_as(weight), scale.expand(len(weight), 1).clone()


def _positive_scales(weight: Tensor) -> tuple[Tensor, Tensor]:
    tried = weight.abs().amax(dim=1, keepdim=True) * torch.linspace(0.1, 0.3, 21)
    errors = [_scaled(weight, one[:, None]) for one in tried.T]
    errors = torch.stack([(c * s - weight).square().sum(dim=1) for c, s in errors], dim=1)
    return _scaled(weight, tried.gather(1, errors.argmin(dim=1, keepdim=True)))


BETTER_THAN_MINMAX = Exercise(
    reference=better_than_minmax,
    cases=_real_layer,
    compare=False,
    reached=_what_was_reached,
    seconds=20.0,
    hints=(
        "The largest weight of a row is rare. What if it is clipped, and all others get a finer "
        "grid? search_clip finds the best clip of each row.",
        "Eight codes are there, −4 … 3. The symmetric grid uses only seven of them: let the search "
        "itself use all. That leaves 39 %. What is still unfair about eight codes?",
        "The eighth code lies on the negative side. A row whose large weights are positive may be "
        "turned around: a negative scale is a scale, too. Search among both signs.",
    ),
    properties=(
        Property(
            "codes are whole numbers from −4 to 3, of the weight's shape", _is_a_code, form=True
        ),
        Property(
            "there is one scale for each row, (O, 1)",
            lambda inputs, value: value[1].shape == (len(inputs["weight"]), 1),
            form=True,
        ),
        Property(
            "mean squared error is at most 38 % of symmetric min–max's",
            lambda inputs, value: _share_of_minmax_error(inputs, value) <= ASKED,
        ),
    ),
    misconceptions=(
        Misconception(
            "min–max itself",
            lambda w: _scaled(w, w.abs().amax(dim=1, keepdim=True) / 3),
            "this is the min–max grid that you are to beat: the largest weight of each row decides "
            "how coarse everything else becomes.",
        ),
        Misconception(
            "min–max over four",
            lambda w: _scaled(w, w.abs().amax(dim=1, keepdim=True) / 4),
            "dividing by 4 brings the eighth code into play and clips what is large and positive. "
            "That leaves 57 % of the error. Nobody said that a quarter is the best share: search.",
        ),
        Misconception(
            "seven codes of eight",
            lambda w: _scaled(w, _clipped(w), low=-3),
            "a search for the best clip leaves 45 %. Good! But your codes go from −3 to 3, and "
            "three bits name eight of them: the code −4 is there for the taking.",
        ),
        Misconception(
            "the eighth code afterwards",
            lambda w: _scaled(w, _clipped(w)),
            "these are the scales that are best for seven codes, used with eight. That leaves "
            "40 %. With the code −4 another scale may be better: let the search know of it.",
        ),
        Misconception(
            "one scale for all",
            _one_scale,
            "the same scale serves every row. It is a good one, but rows differ: search for each.",
        ),
        Misconception(
            "positive scales",
            _positive_scales,
            "a search over scales with all eight codes: 39 %, the best that positive scales can "
            "do. But the grid reaches farther to one side than to the other, and some rows have "
            "their long tail on the wrong one.",
        ),
    ),
)
