"""Exercise of 07_quantization_aware: five codes of three values in a byte. N is any count."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def pack_trits(codes: Tensor) -> Tensor:
    """N codes −1, 0, 1, int8 of any shape, five to a byte: (L,) uint8, with L = ⌈N / 5⌉.

    A code t is written as the digit t + 1. The digits, in reading order (the last axis fastest),
    are filled up with digits 0 to 5 · L and cut into five runs of length L, d₀ first. The runs lie
    over each other: byte j is d₀[j] + 3 · d₁[j] + 9 · d₂[j] + 27 · d₃[j] + 81 · d₄[j]. No codes
    make no bytes. The codes stay as they are.
    """
    length = -(-codes.numel() // 5)  # ⌈N / 5⌉
    digits = F.pad(codes.flatten() + 1, (0, 5 * length - codes.numel()))
    worth = 3 ** torch.arange(5, device=codes.device)  # 1, 3, 9, 27, 81
    return (digits.view(5, length) * worth[:, None]).sum(dim=0).to(torch.uint8)


def _codes(seed: int) -> list[Case]:
    draw = Draw(seed)

    def some(*shape: int) -> Tensor:
        return draw.integers(-1, 2, *shape).to(torch.int8)

    def all_of(code: int, count: int) -> Tensor:
        return torch.full((count,), code, dtype=torch.int8)

    few = draw.number(3, 9)
    labelled = {
        "by hand: 2 + 3 + 9 + 27 + 0": torch.tensor([1, 0, 0, 0, -1], dtype=torch.int8),
        "five codes": some(5),
        "one code": some(1),
        "four codes": some(4),
        "six codes": some(6),
        "nine codes": some(9),
        "ten codes": some(10),
        "one more than can be divided by five": some(5 * few + 1),
        "two more": some(5 * few + 2),
        "three more": some(5 * few + 3),
        "four more": some(5 * few + 4),
        "a matrix": some(few, 7),
        "a matrix of rows of five": some(few, 5),
        "five rows": some(5, few),
        "as many rows as columns": some(7, 7),
        "three axes": some(2, 3, few),
        "one number, no axis": some(),
        "no code": some(0),
        "rows without a code": some(few, 0),
        "all −1": all_of(-1, 5 * few - 2),
        "all 0": all_of(0, 5 * few - 3),
        "all 1: the largest byte is 242": all_of(1, 5 * few),
        "the last ones are −1, like the filling": torch.cat([some(5 * few), all_of(-1, 3)]),
        "every byte there is": _digits(draw.order(243)).to(torch.int8) - 1,
        "many codes": some(1000 + draw.number(0, 200)),
        "a view: transposed": some(few, 6).T,
        "a view: every other column": some(4, 2 * few)[:, ::2],
    }
    return labelled_cases(("codes",), {label: (codes,) for label, codes in labelled.items()})


def _digits(packed: Tensor) -> Tensor:
    """The five runs that lie over each other, (L,) -> (5, L)."""
    return torch.stack([packed // 3**k % 3 for k in range(5)])


def _comes_back(inputs: dict, packed: Tensor) -> bool:
    codes = inputs["codes"].flatten().long()
    return _digits(packed.long()).flatten()[: len(codes)].equal(codes + 1)


def _packed(digit: Callable = lambda t: t + 1, worth: tuple = (1, 3, 9, 27, 81), filling: int = 0):
    """pack_trits with other digits, another worth of the runs, or another filling."""

    def wrong(codes):
        length = -(-codes.numel() // 5)
        digits = F.pad(
            digit(codes.flatten().long()), (0, 5 * length - codes.numel()), value=filling
        )
        runs = digits.view(5, length) * torch.tensor(worth, device=codes.device)[:, None]
        return runs.sum(dim=0).to(torch.uint8)

    return wrong


def _neighbours(codes):
    length = -(-codes.numel() // 5)
    digits = F.pad(codes.flatten().long() + 1, (0, 5 * length - codes.numel()))
    worth = torch.tensor([1, 3, 9, 27, 81], device=codes.device)
    return (digits.view(length, 5) * worth).sum(dim=1).to(torch.uint8)


PACK_TRITS = Exercise(
    reference=pack_trits,
    cases=_codes,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "Ten decimal digits make a number below 10¹⁰. What do five digits 0, 1, 2 make, below 3⁵?",
        "Flatten, add 1, fill up with 0 to 5 · L digits. Then view(5, L): each row is a run, and "
        "each column the five digits of one byte. What is each row worth?",
        "digits = F.pad(codes.flatten() + 1, (0, 5 * length - codes.numel())); (digits.view(5, "
        "length) * torch.tensor([[1], [3], [9], [27], [81]])).sum(0).to(torch.uint8). ⌈N / 5⌉ is "
        "-(-N // 5).",
    ),
    properties=(Property("unpacking gives the codes back", _comes_back),),
    misconceptions=(
        Misconception(
            "neighbours share a byte",
            _neighbours,
            "you packed five neighbours into a byte. The format cuts all digits into five runs and "
            "lays them over each other: view(5, L), not view(L, 5). Then a whole run is read at "
            "once, with no digit to be moved.",
        ),
        Misconception(
            "the first run is worth the most",
            _packed(worth=(81, 27, 9, 3, 1)),
            "the order of the digits is turned round: the first run is worth 1, the last one 81.",
        ),
        Misconception(
            "filled up with the code 0",
            _packed(filling=1),
            "the filling is the code 0, digit 1. The format fills up with digit 0. Both come back "
            "rightly, but the same weights should make the same file.",
        ),
        Misconception(
            "−1 is the digit 2",
            _packed(lambda t: t % 3),
            "t % 3 makes 0, 1, 2 of 0, 1, −1. The format writes t + 1: −1 is 0, 0 is 1, 1 is 2.",
        ),
        Misconception(
            "a run is worth a power of two",
            _packed(worth=(1, 2, 4, 8, 16)),
            "the runs are worth 1, 2, 4, 8, 16: these are bits. A digit has three values, so each "
            "run is worth three times the one before.",
        ),
        Misconception(
            "two bits a code",
            _packed(worth=(1, 4, 16, 64, 256)),
            "each run is worth four times the one before. That gives every code two bits, and the "
            "fifth does not fit into a byte: its digits are gone.",
        ),
    ),
)
