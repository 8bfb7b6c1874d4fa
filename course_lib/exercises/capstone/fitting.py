"""Exercise of 12_capstone: a model pruned until its file fits, to the last bytes.

Axes: N numbers of all matrices together.
"""

from bisect import bisect_right
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.sparse import Sparse
from course_lib.measure.size import size

SPARE = 32  # bytes that may be left over


def meet_budget(tensors: dict[str, Tensor], budget: int) -> dict[str, Tensor]:
    """The tensors, pruned so far that their file, header and all, takes at most `budget` bytes.

    Of the matrices (two axes) as many numbers stay as fit: the largest |w| of all matrices
    together, of equal ones any. All others become 0. Vectors stay whole. Returned is what
    `pack_tensors` of `formats.model_file` makes of all in float16, each matrix as `Sparse()`; its
    bytes are those of the file that `size` of `measure.size` writes. At most 32 bytes of the budget
    may be left over, and if all numbers fit, none is pruned. If the file is too large even with all
    matrices 0, raise a ValueError. There are a matrix and a vector at least, float32; each |w| is 0
    or from 0.001 to 100. `tensors` stays as it is. For 2,000 numbers you have five seconds.
    """
    schemes = {name: Sparse() for name, tensor in tensors.items() if tensor.dim() > 1}
    sizes = torch.cat([tensors[name].abs().flatten() for name in schemes])
    places = sizes.argsort(descending=True).argsort()  # 0 for the largest

    def packed(count: int) -> dict[str, Tensor]:
        halves = {name: tensor.half() for name, tensor in tensors.items()}
        parts = iter(places.split([tensors[name].numel() for name in schemes]))
        for name in schemes:
            place = next(parts).view_as(halves[name])
            halves[name] = halves[name].where(place < count, 0)
        return pack_tensors(halves, schemes)

    def written(count: int) -> int:
        return size(packed(count)).bytes

    if written(0) > budget:
        raise ValueError("the budget must hold the vectors and the header; it does not")
    return packed(bisect_right(range(1, len(sizes) + 1), budget, key=written))


def _files(seed: int) -> list[Case]:
    draw = Draw(seed)
    tensors = _tensors(draw, (30, 40), (20, 40))
    far = tensors | {"a": 20 * tensors["a"]}
    tied = {name: t.sign() * (1 + (t.abs() > 1)) for name, t in tensors.items()}
    many = _tensors(draw, *[(draw.number(5, 20), 8) for _ in range(9)])
    holed = {name: t.where(draw.uniform(*t.shape) < 0.5, 0) for name, t in tensors.items()}
    holed["norm"] = holed["a"][:5].flatten()
    least, most = (_bytes(tensors, share) for share in (0.0, 1.0))
    budgets = {
        "half of the bytes": most // 2,
        "a tenth of the way from the least to the most": least + (most - least) // 10,
        "just the least": least,
        "one byte less than the least": least - 1,
        "just what all takes": most,
        "one byte less than all takes": most - 1,
        "more than all takes": most + draw.number(1000, 9000),
    }
    labelled = {
        **{label: (tensors, budget) for label, budget in budgets.items()},
        "one matrix has larger numbers": (far, 2 * _bytes(far, 1.0) // 5),
        "all numbers have one of two sizes": (tied, 3 * _bytes(tied, 1.0) // 10),
        "ten small tensors: the header counts": (many, _bytes(many, 0.3)),
        "half of the numbers are 0 from the start": (holed, _bytes(holed, 0.2)),
        "half of them 0, and room for all": (holed, most + 5000),
        "one number in the matrix": ({"a": tensors["a"][:1, :1], "b": tensors["norm"]}, 9999),
        "one row, long and thin": (_tensors(draw, (1, 2000)), draw.number(1000, 2000)),
    }
    return labelled_cases(("tensors", "budget"), labelled)


def _tensors(draw: Draw, *shapes: tuple[int, int]) -> dict[str, Tensor]:
    """Matrices a, b, … and a norm before the last; each |w| from 0.001 to 100."""
    matrices = {chr(97 + i): _away(draw.normal(*shape)) for i, shape in enumerate(shapes)}
    last = {name: matrices.pop(name) for name in [max(matrices)]}
    return matrices | {"norm": _away(draw.normal(draw.number(20, 60)))} | last


def _away(numbers: Tensor) -> Tensor:
    return numbers + 0.001 * torch.where(numbers < 0, -1.0, 1.0)


def _half(tensors: dict[str, Tensor], keep: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """In float16, matrices pruned by |w|: keep(|w|) says what stays."""
    return {
        name: t.half() if t.dim() < 2 else t.half().where(keep(t.abs()), 0)
        for name, t in tensors.items()
    }


def _packed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return pack_tensors(tensors, {name: Sparse() for name, t in tensors.items() if t.dim() > 1})


def _pruned(tensors: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Packed, with about this share of all numbers of the matrices."""
    sizes = torch.cat([t.abs().flatten() for t in tensors.values() if t.dim() > 1]).sort().values
    count = len(sizes) - int(share * len(sizes))
    bound = sizes[count] if count < len(sizes) else torch.inf
    return _packed(_half(tensors, lambda w: w >= bound))


def _bytes(tensors: dict[str, Tensor], share: float) -> int:
    return size(_pruned(tensors, share)).bytes


def _stored(inputs: dict, value: dict) -> dict[str, Tensor]:
    return unpack_tensors(value, inputs["tensors"])


def _is_packed(inputs: dict, value: dict) -> bool:
    most = sum(4 * t.numel() for t in inputs["tensors"].values()) + 9999
    if not (
        type(value) is dict
        and all(torch.is_tensor(part) for part in value.values())
        and sum(part.nbytes for part in value.values()) <= most
    ):
        return False
    stored = _stored(inputs, value)
    again = _packed({name: tensor.half() for name, tensor in stored.items()})
    return again.keys() == value.keys() and all(
        part.dtype == value[name].dtype and part.equal(value[name]) for name, part in again.items()
    )


def _pairs(inputs: dict, value: dict) -> list[tuple[Tensor, Tensor]]:
    """(in float16, as stored) of each tensor."""
    stored = _stored(inputs, value)
    return [(tensor.half(), stored[name]) for name, tensor in inputs["tensors"].items()]


def _kept_or_zero(inputs: dict, value: dict) -> bool:
    return all(
        bool(((new == old) | ((new == 0) & (old.dim() > 1))).all())
        for old, new in _pairs(inputs, value)
    )


def _largest_kept(inputs: dict, value: dict) -> bool:
    matrices = [(old.abs(), new) for old, new in _pairs(inputs, value) if old.dim() > 1]
    kept = torch.cat([old[new != 0] for old, new in matrices])
    gone = torch.cat([old[new == 0] for old, new in matrices])
    return not len(kept) or not len(gone) or bool(kept.min() >= gone.max())


def _left(inputs: dict, value: dict) -> int:
    return inputs["budget"] - size(value).bytes


def _used_up(inputs: dict, value: dict) -> bool:
    if _bytes(inputs["tensors"], 1.0) <= inputs["budget"]:
        return all(old.equal(new) for old, new in _pairs(inputs, value))
    return _left(inputs, value) <= SPARE


def _what_was_reached(inputs: dict, value: dict) -> str:
    matrices = [pair for pair in _pairs(inputs, value) if pair[0].dim() > 1]
    kept, of = (sum(int((pair[i] != 0).sum()) for pair in matrices) for i in (1, 0))
    return (
        f"a file of {size(value).bytes} bytes (asked: {inputs['budget'] - SPARE} to "
        f"{inputs['budget']}), {kept} of {of} numbers kept"
    )


def _checked(function: Callable) -> Callable:
    """What refuses a budget that is too small, as it should, and is wrong in another way."""

    def wrong(tensors, budget):
        if _bytes(tensors, 0.0) > budget:
            raise ValueError
        return function(tensors, budget)

    return wrong


def _searched(make: Callable, fits: Callable) -> Callable:
    """Of the counts k that fit, one whose next does not: by bisection."""

    def wrong(tensors, budget):
        low, high = 0, sum(t.numel() for t in tensors.values() if t.dim() > 1) + 1
        while high - low > 1:
            k = (low + high) // 2
            low, high = (k, high) if fits(make(tensors, k)) <= budget else (low, k)
        return make(tensors, low)

    return _checked(wrong)


def _of_all(tensors: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    return _pruned(tensors, k / sum(t.numel() for t in tensors.values() if t.dim() > 1))


def _each_alone(tensors: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """The same share of each matrix."""
    share = k / sum(t.numel() for t in tensors.values() if t.dim() > 1)

    def keep(w: Tensor) -> Tensor:
        return w.flatten().argsort(descending=True).argsort().view_as(w) < share * w.numel()

    return _packed(_half(tensors, keep))


def _with_zeros(tensors, budget):
    """As many numbers as two bytes each allow, and the others as zeros."""
    count = (budget - sum(2 * t.numel() for t in tensors.values() if t.dim() < 2)) // 2
    every = torch.cat([t.abs().flatten() for t in tensors.values() if t.dim() > 1])
    bound = every.sort(descending=True).values[: max(count, 1)][-1]
    return _half(tensors, lambda w: w >= bound)


def _coarse(tensors, budget):
    """The largest share in steps of a twentieth."""
    for twentieths in range(20, 0, -1):
        if size(made := _pruned(tensors, twentieths / 20)).bytes <= budget:
            return made
    return _pruned(tensors, 0.0)


MEET_BUDGET = Exercise(
    reference=meet_budget,
    cases=_files,
    compare=False,
    reached=_what_was_reached,
    seconds=5.0,
    hints=(
        "Nobody can tell the bytes of such a file from the count k of numbers kept: Sparse takes "
        "another form where it is smaller, and the header grows by a digit here and there. So "
        "write a function that makes the file for a given k, and measure it.",
        "There are thousands of k, and twelve or so that you need to try: halve. Keep a `low` that "
        "fits and a `high` that does not; try the middle; stop where they are neighbours. That "
        "needs no more than this: low fits, and one number more does not. (bisect_right of "
        "Python's own `bisect` does it, with a `key`.)",
        "Equal |w| must not all come or go together: rank them. places = "
        "sizes.argsort(descending=True).argsort() gives each number of all matrices a place of its "
        "own, and `places < k` keeps just k. Try k = 0 first (ValueError), and let `high` start "
        "one above the count of all numbers.",
    ),
    properties=(
        Property(
            "parts that `pack_tensors` makes, of all tensors, in float16", _is_packed, form=True
        ),
        Property("each number of a matrix is as it was or 0; vectors are whole", _kept_or_zero),
        Property("no number that was dropped is larger than one that stayed", _largest_kept),
        Property(
            "the file takes at most `budget` bytes", lambda inputs, value: _left(inputs, value) >= 0
        ),
        Property(f"all is kept if it fits; else at most {SPARE} bytes are left over", _used_up),
    ),
    misconceptions=(
        Misconception(
            "the header is forgotten",
            _searched(_of_all, lambda packed: sum(part.nbytes for part in packed.values())),
            "you added up the bytes of the parts. A file says in a header what they are called, "
            "and where they lie: with small tensors that is much. Measure the file.",
        ),
        Misconception(
            "the share of the bytes is the share of the numbers",
            _checked(lambda tensors, budget: _pruned(tensors, min(budget / _bytes(tensors, 1), 1))),
            "you kept the share of the numbers that the budget is of the whole file. What stays "
            "has to say where it stands, and that takes bytes, too. Measure, and search.",
        ),
        Misconception(
            "each matrix by itself",
            _searched(_each_alone, lambda packed: size(packed).bytes),
            "each matrix kept the same share. Asked are the largest of all matrices together: "
            "where numbers are small, more may go.",
        ),
        Misconception(
            "with the zeros",
            _checked(_with_zeros),
            "you counted two bytes for each number kept, but the zeros are in the file as well. "
            "A zero that is stored takes as much as any number: pack with `Sparse()`.",
        ),
        Misconception(
            "in steps of five per cent",
            _checked(_coarse),
            "you tried twenty shares. Between two of them lie many numbers that would fit: halve "
            "the distance until one number more is too many.",
        ),
        Misconception(
            "equal numbers come and go together",
            _searched(_of_all, lambda packed: size(packed).bytes),
            "you set a bound for |w|. Where many are equal it keeps all or none of them, and much "
            "of the budget is left over. Rank them instead.",
        ),
    ),
)
