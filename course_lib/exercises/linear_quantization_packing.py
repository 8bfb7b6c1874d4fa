"""Exercises of 05_linear_quantization: codes in bytes, in integer arithmetic, and found out.

Axes: O outputs, I inputs, B batch, G numbers of a group, N any count.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception

# ---------------------------------------------------------------- pack_int4, unpack_int4


def pack_int4(codes: Tensor) -> Tensor:
    """Codes 0 … 15 (N,) two to a byte, the first in the low four bits; an odd end gets a 0."""
    if len(codes) % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return codes[0::2] | (codes[1::2] << 4)


def unpack_int4(packed: Tensor, count: int) -> Tensor:
    """The `count` codes 0 … 15 that pack_int4 put into bytes."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=1)  # (N/2, 2)
    return pairs.flatten()[:count]


def _nibbles() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(16, (n,), dtype=torch.uint8, generator=generator) for n in (8, 7, 1, 30)]


PACK_INT4 = Exercise(
    reference=pack_int4,
    cases=lambda: [Case(f"{len(codes)} codes", {"codes": codes}) for codes in _nibbles()],
    hints=(
        "codes[0::2] are the first of each pair, codes[1::2] the second.",
        "Shift the second by four bits and put both together: first | (second << 4).",
        "With an odd count the last byte holds one code; append a zero first.",
    ),
    misconceptions=(
        Misconception(
            "high bits first",
            lambda codes: pack_int4(codes) >> 4 | pack_int4(codes) << 4,
            "the two codes of a byte are swapped: the first belongs into the low four bits.",
        ),
        Misconception(
            "first half with second half",
            lambda codes: (
                (padded := torch.cat([codes, codes.new_zeros(len(codes) % 2)])).view(2, -1)[0]
                | padded.view(2, -1)[1] << 4
            ),
            "you joined the first half of the codes with the second half. Neighbours share a byte.",
        ),
        Misconception(
            "last code lost",
            lambda codes: codes[0::2][: len(codes) // 2] | (codes[1::2] << 4),
            "with an odd count the last code is gone. Fill up with a zero.",
        ),
        Misconception(
            "three bits",
            lambda codes: pack_int4(codes) & 15 | ((pack_int4(codes) >> 4) << 3),
            "the second code was shifted by three bits, so it overlaps the first. A 4-bit code "
            "takes four.",
        ),
        Misconception(
            "not packed",
            lambda codes: codes.clone(),
            "each code still takes a byte of its own. The file would be as large as with int8.",
        ),
    ),
)

UNPACK_INT4 = Exercise(
    reference=unpack_int4,
    cases=lambda: [
        Case(f"{len(c)} codes", {"packed": pack_int4(c), "count": len(c)}) for c in _nibbles()
    ],
    hints=(
        "packed & 15 keeps the low four bits, packed >> 4 the high four.",
        "Low and high take turns: stack them as columns of (N/2, 2), then flatten.",
    ),
    misconceptions=(
        Misconception(
            "swapped",
            lambda packed, count: torch.stack([packed >> 4, packed & 15], 1).flatten()[:count],
            "high and low four bits are swapped.",
        ),
        Misconception(
            "all low, then all high",
            lambda packed, count: torch.cat([packed & 15, packed >> 4])[:count],
            "first came all the low halves and then all the high ones. They take turns.",
        ),
        Misconception(
            "filling kept",
            lambda packed, count: torch.stack([packed & 15, packed >> 4], 1).flatten(),
            "the filling of an odd end was kept: `count` says how many codes there are.",
        ),
        Misconception(
            "not shifted down",
            lambda packed, count: torch.stack([packed & 15, packed & 240], 1).flatten()[:count],
            "the high four bits were cut out but not shifted down: 3 became 48.",
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


def _integer_inputs() -> list[Case]:
    generator = torch.Generator().manual_seed(0)

    def case(label: str, batch: int, outputs: int, inputs: int, zero_point: int) -> Case:
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

    return [
        case("a zero-point of 0", 2, 3, 4, 0),
        case("a zero-point of 5", 2, 3, 8, 5),
        case("a long row", 3, 2, 200, -17),
    ]


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
    relative_tolerance=1e-4,
    absolute_tolerance=1e-4,
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

# --------------------------------------------------------------------------- detect_grid


def detect_grid(weight: Tensor) -> Tensor:
    """[group, levels] of the linear quantization that `weight` (O, I) went through; [0, 0] if none.

    group: the largest of 16, 32, 64, 128 such that each group of a row lies on an even grid of its
    own. levels: how many levels the widest of these grids has, at most 256.
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


def _checkpoints() -> list[Case]:
    pruned = _went_through(32, 16, 5)
    pruned[0, :32] = 0
    even, uneven = torch.arange(16.0), torch.arange(16.0) + 2.6 * (torch.arange(16) > 7)
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

CHAPTER = "05_linear_quantization"
EXERCISES = (
    PACK_INT4,
    UNPACK_INT4,
    INTEGER_LINEAR,
    DETECT_GRID,
)
