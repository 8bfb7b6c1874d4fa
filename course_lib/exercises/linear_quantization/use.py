"""Exercises of 05_linear_quantization: a grid found out, computed with, and beaten.

Axes: O outputs, I inputs, B batch, G numbers of a group.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
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


def _went_through(group: int, levels: int, seed: int, symmetric: bool = False) -> Tensor:
    """A small random (16, 128) matrix after linear quantization in groups."""
    generator = torch.Generator().manual_seed(seed)
    groups = 0.01 * torch.randn(16, 128, generator=generator).view(-1, group)
    low, high = groups.aminmax(dim=1, keepdim=True)
    if symmetric:
        step = 2 * groups.abs().amax(dim=1, keepdim=True) / (levels - 1)
        return ((groups / step).round() * step).view(16, 128)
    step = (high - low) / (levels - 1)
    return (((groups - low) / step).round() * step + low).view(16, 128)


def _checkpoints(seed: int) -> list[Case]:
    pruned = _went_through(32, 16, 5)
    pruned[0, :32] = 0
    gaps = 1.55 + 0.4 * torch.rand(14, generator=torch.Generator().manual_seed(0))
    even, uneven = torch.arange(16.0), torch.cat([torch.tensor([0.0, 1.0]), 1 + gaps.cumsum(0)])
    every_level = torch.cat([torch.arange(256.0)[::2], torch.arange(256.0)[1::2]]).view(2, 128)
    every_level[:, -2:] = torch.tensor([[0.0, 255.0], [0.0, 255.0]])
    every_level[:, 0] = 1
    never = torch.randn(16, 128, generator=torch.Generator().manual_seed(2))
    weights = {
        "4 bits in groups of 32": _went_through(32, 16, 0),
        "3 bits in groups of 64": _went_through(64, 8, 1),
        "never quantized": never,
        "15 levels, symmetric, a group is a row": _went_through(128, 15, 3, symmetric=True),
        "2 bits in groups of 16": _went_through(16, 4, 4),
        "some weights were pruned": pruned,
        "one group has a grid, the other has none": torch.stack([even, uneven]),
        "256 levels": every_level,
        "257 levels": every_level.where(every_level < 255, torch.tensor(256.0)),
        "rows of 24": torch.arange(48.0).view(2, 24),
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
    """x · wᵀ in float32 from int8 codes: x = x_scale (x_codes − x_zero_point), w = w_scale w_codes.

    x_codes (B, I), w_codes (O, I), w_scale (O,), the rest one number each. Only the last step may
    use floats: sums of products are exact integers.
    """
    products = x_codes.int()[:, None, :] * w_codes  # (B, O, I) in int32
    sums = products.sum(dim=2) - x_zero_point * w_codes.sum(dim=1)  # (B, O)
    return sums * (x_scale * w_scale)


def _integer_inputs(seed: int) -> list[Case]:
    return [
        _coded("a zero-point of 0", 2, 3, 4, 0),
        _coded("a zero-point of 5", 2, 3, 8, 5),
        _coded("a long row", 3, 2, 200, -17),
        _cancelling(),
    ]


def _coded(label: str, batch: int, outputs: int, inputs: int, zero_point: int) -> Case:
    generator = torch.Generator().manual_seed(inputs)

    def codes(rows):
        return torch.randint(-127, 128, (rows, inputs), generator=generator).to(torch.int8)

    values = {
        "x_codes": codes(batch),
        "x_scale": torch.tensor(0.02),
        "x_zero_point": torch.tensor(zero_point, dtype=torch.int32),
        "w_codes": codes(outputs),
        "w_scale": torch.rand(outputs, generator=generator) + 0.1,
    }
    return Case(label, values)


def _cancelling() -> Case:
    """Every product comes a second time with the other sign: only exact sums give exactly zero."""
    case = _coded("sums that cancel", 2, 3, 200, -17)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    x, w = case.inputs["x_codes"], case.inputs["w_codes"]
    twice = {
        "x_codes": torch.cat([x, x], dim=1)[:, order],
        "w_codes": torch.cat([w, -w], dim=1)[:, order],
    }
    return Case(case.label, case.inputs | twice)


def _int8_products(x, x_scale, zero_point, w, w_scale):
    sums = (x[:, None, :] * w).sum(dim=2) - zero_point * w.int().sum(dim=1)
    return sums * (x_scale * w_scale)


def _int8_difference(x, x_scale, zero_point, w, w_scale):
    shifted = (x - zero_point.to(torch.int8)).int()
    return (shifted[:, None, :] * w.int()).sum(dim=2) * (x_scale * w_scale)


INTEGER_LINEAR = Exercise(
    reference=integer_linear,
    cases=_integer_inputs,
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

    Asked for: at most 42 % of the mean squared error of the symmetric min–max grid of 3 bits.
    """
    size = weight.abs().amax(dim=1)  # (O,)
    scales = torch.stack([share * size for share in SHARES], dim=1)  # (O, candidates)
    tried = scales[:, None, :]  # (O, 1, candidates)
    codes = (weight[:, :, None] / tried).round().clamp(-4, 3)  # (O, I, candidates)
    error = (codes * tried - weight[:, :, None]).norm(dim=1)  # (O, candidates)
    best = error.argmin(dim=1, keepdim=True)  # (O, 1)
    return codes.take_along_dim(best[:, None], dim=2).squeeze(2), scales.take_along_dim(best, dim=1)


def _real_layer(seed: int) -> list[Case]:
    model, _ = pretrained.tiny()
    weight = model.blocks[1].mlp.down.weight.detach()[::4].clone()
    return [Case("the MLP's `down` of TinyLM's second block", {"weight": weight})]


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


def _scaled(weight: Tensor, scale: Tensor, low: int = -4) -> tuple[Tensor, Tensor]:
    return (weight / scale).round().clamp(low, 3).to(torch.int8), scale


BETTER_THAN_MINMAX = Exercise(
    reference=better_than_minmax,
    cases=_real_layer,
    compare=False,
    seconds=20.0,
    hints=(
        "The largest weight of a row is rare. What if it is clipped, and all others get a finer "
        "grid? search_clip finds the best clip of each row.",
        "Eight codes are there, −4 … 3. The symmetric grid uses only seven of them: let the search "
        "use all.",
        "The eighth code lies on the negative side. A row whose large weights are positive may be "
        "turned around: a negative scale is a scale, too.",
    ),
    properties=(
        Property("codes are whole numbers from −4 to 3, of the weight's shape", _is_a_code),
        Property(
            "there is one scale for each row, (O, 1)",
            lambda inputs, value: value[1].shape == (len(inputs["weight"]), 1),
        ),
        Property(
            "mean squared error is at most 42 % of symmetric min–max's",
            lambda inputs, value: _share_of_minmax_error(inputs, value) <= 0.42,
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
            lambda w: _scaled(w, search_clip(w, 3, torch.linspace(0.2, 1, 81)), low=-3),
            "a search for the best clip leaves 45 %. Good! But your codes go from −3 to 3, and "
            "three bits name eight of them: the code −4 is there for the taking.",
        ),
        Misconception(
            "one scale for all",
            lambda w: _scaled(w, (w.abs().max() / 3).expand(len(w), 1).clone()),
            "all rows share the scale of the largest one. That is worse than min–max per row.",
        ),
        Misconception(
            "a quarter of every row's range",
            lambda w: _scaled(w, 0.25 * w.abs().amax(dim=1, keepdim=True) / 3),
            "every row was clipped at a quarter of its range. That much clipping costs more than "
            "the finer grid gains: the best clip depends on the row, so measure it.",
        ),
    ),
)
