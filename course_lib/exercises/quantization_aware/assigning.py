"""Exercise of 07_quantization_aware: how many bits each layer gets, out of one budget.

Source: Sinha and Zoltners, 1979, "The Multiple-Choice Knapsack Problem".

Axes: L layers, K choices for each.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

NEVER = 2**40  # the error of what does not fit


def assign_bits(errors: Tensor, sizes: Tensor, budget: int) -> list[int]:
    """A choice for each of L layers: the least total error within a budget of bytes.

    If layer l takes choice k, 0 ≤ k < K, it adds errors[l, k] to the loss and takes sizes[l, k]
    bytes: both (L, K), int64, 0 or more. Choices are in no order: more bytes may bring more error,
    and one of 0 bytes leaves the layer out. Returned: a list of L ints, the choice of each layer,
    whose sizes add up to at most `budget`, and whose errors add up to the least that this allows,
    to the last unit. Where several lists reach it, any of them is right; one at least fits.

    L is at most 28 and K at most 5: too many lists to try them all. A choice takes at most 200
    bytes, and a list's errors add up to less than 10⁸: float64 holds every sum, float32 does not.
    """
    spent = torch.arange(budget + 1, device=sizes.device)
    least, chosen = torch.zeros_like(spent), []  # error of the layers so far, in at most 0, 1, …
    for error, size in torch.stack([errors, sizes], dim=1):  # (L, K) twice -> (L, 2, K)
        before = spent - size[:, None]  # (K, 1 + budget)
        sums = error[:, None] + torch.where(before >= 0, least[before.relu()], NEVER)
        least, choice = sums.min(dim=0)
        chosen.append(choice)
    choices, left = [], len(spent) - 1
    for layer in reversed(range(len(errors))):
        choices.insert(0, int(chosen[layer][left]))
        left -= sizes[layer, choices[0]]
    return choices


def _measured(draw: Draw, layers: int, choices: int, share: float, top: int = 400) -> tuple:
    """The more bytes, the less error, as a rule; a budget between the least and the most bytes."""
    numbers = draw.integers(8, 60, layers, 1)
    sizes = (numbers * torch.arange(2, choices + 2)) // 2  # of 2, 3, … bits, as it were
    size = top * draw.uniform(layers, 1) ** 2 + 5
    errors = size * 0.45 ** torch.arange(choices) * (0.6 + 0.8 * draw.uniform(layers, choices))
    low, high = int(sizes.amin(dim=1).sum()), int(sizes.amax(dim=1).sum())
    return errors.long(), sizes, low + int(share * (high - low))


def _tables(seed: int) -> list[Case]:
    draw = Draw(seed)
    rising, free, zero = (_measured(draw, layers, 4, 0.4) for layers in (9, 8, 5))
    rising[0][::2] = rising[0][::2].flip(1)  # of every other layer: more bytes, more error
    free[1][:, draw.number(0, 4)] = 0
    zero[0].zero_()
    both = torch.stack(_measured(draw, 10, 4, 0.4)[:2], dim=2)  # (L, K, 2)
    errors, sizes = torch.stack([layer[draw.order(4)] for layer in both]).unbind(2)
    large, a, equal = _measured(draw, 14, 4, 0.5), draw.number(1, 9), draw.order(4)
    larger = _measured(draw, 28, 4, 0.4)
    labelled = {
        **_by_hand(a),
        "six layers": _measured(draw, 6, 4, 0.4),
        "twelve layers": _measured(draw, 12, 4, 0.5),
        "twenty-eight layers": _measured(draw, 28, 4, 0.3),
        "twenty-eight layers, much to spend": _measured(draw, 28, 5, 0.7),
        "choices in no order": (errors, sizes, int(sizes.double().mean(dim=1).sum())),
        "more bytes, more error": rising,
        "choices of 0 bytes": free,
        "0 bytes to spend": (free[0], free[1], 0),
        **_of_budgets(draw),
        "no error anywhere": zero,
        "all choices alike": (torch.full((6, 4), a), torch.full((6, 4), 7), 42),
        "equal layers": (a * equal.repeat(7, 1), 3 * equal.flip(0).repeat(7, 1), 30),
        "one layer": _measured(draw, 1, 5, 0.5),
        "one choice": _measured(draw, 5, 1, 0.0),
        "one layer, one choice": _measured(draw, 1, 1, 0.0),
        **_of_large_errors(draw, a, large, larger),
    }
    return labelled_cases(("errors", "sizes", "budget"), labelled)


def _of_large_errors(draw: Draw, a: int, large: tuple, larger: tuple) -> dict[str, tuple]:
    return {
        "large errors": (large[0] + 5_000_000 + draw.integers(0, 9, 14, 4), *large[1:]),
        "large errors, twenty-eight layers": (larger[0] + 3_500_000, *larger[1:]),
        **{
            f"{saved} of twenty-eight large errors saved": (
                torch.stack([3_500_000 + draw.order(28), torch.zeros(28, dtype=torch.int64)], 1),
                torch.tensor([0, 7]).repeat(28, 1),
                7 * saved,
            )
            for saved in (5, 9)
        },
        "errors that float32 takes for equal": (
            2**24 + torch.eye(2, dtype=torch.int64).repeat(2, 1)[draw.order(4)],
            torch.full((4, 2), a),
            4 * a,
        ),
    }


def _by_hand(a: int) -> dict[str, tuple]:
    tables = {
        "by hand: the best for each byte is not the best": (
            [[7 * a, 0], [5 * a, 0], [5 * a, 0]],
            [[0, 6], [0, 5], [0, 5]],
            10,
        ),
        "by hand: a choice that no price per byte would take": (
            [[10 * a, 6 * a, 0], [9 * a, 8 * a, a]],
            [[0, 5, 9], [0, 4, 10]],
            6,
        ),
        "the last byte counts": ([[9, 0], [8 * a + 9, 0], [9, 5]], [[0, 4], [0, 5], [0, 5]], 9),
    }
    return {
        label: (torch.tensor(errors), torch.tensor(sizes), budget)
        for label, (errors, sizes, budget) in tables.items()
    }


def _of_budgets(draw: Draw) -> dict[str, tuple]:
    few, many = _measured(draw, 6, 4, 0.0), _measured(draw, 6, 4, 1.0)
    return {
        "exactly the least bytes": few,
        "one byte more than the least": (*few[:2], few[2] + 1),
        "exactly the most bytes": many,
        "one byte less than the most": (*many[:2], many[2] - 1),
        "more than all layers could take": (*many[:2], 5 * many[2] + draw.number(0, 9)),
    }


def _total(table: Tensor, choices: list[int]) -> int:
    return sum(int(row[k]) for row, k in zip(table, choices, strict=True))


def _least(inputs: dict) -> int:
    """The least total error that the budget allows."""
    return _total(inputs["errors"], assign_bits(**inputs))


def _are_choices(inputs: dict, value: list[int]) -> bool:
    layers, choices = inputs["errors"].shape
    return (
        type(value) is list
        and len(value) == layers
        and all(type(k) is int and 0 <= k < choices for k in value)
    )


def _what_was_reached(inputs: dict, value: list[int]) -> str:
    return (
        f"error {_total(inputs['errors'], value)} (asked: {_least(inputs)}), "
        f"{_total(inputs['sizes'], value)} bytes (asked: at most {inputs['budget']})"
    )


def _cheapest(errors: Tensor, sizes: Tensor) -> list[int]:
    """Of each layer the choice of fewest bytes, and of those the one of least error."""
    return [
        min(range(len(e)), key=lambda k: (s[k], e[k]))
        for e, s in zip(errors.tolist(), sizes.tolist(), strict=True)
    ]


def _greedy(worth: Callable[[int, int], float]):
    """From the cheapest: again and again the change worth most, of (error saved, bytes), fits."""

    def wrong(errors, sizes, budget):
        found, e, s = _cheapest(errors, sizes), errors.tolist(), sizes.tolist()
        while True:
            left = budget - _total(sizes, found)
            changes = [
                (worth(e[layer][now] - e[layer][k], s[layer][k] - s[layer][now]), layer, k)
                for layer, now in enumerate(found)
                for k in range(len(e[0]))
                if e[layer][k] < e[layer][now] and s[layer][k] - s[layer][now] <= left
            ]
            if not changes:
                return found
            _, layer, k = max(changes)
            found[layer] = k

    return wrong


def _the_same_for_all(errors, sizes, budget):
    fitting = [k for k in range(sizes.shape[1]) if int(sizes[:, k].sum()) <= budget]
    if not fitting:
        return _cheapest(errors, sizes)
    return [min(fitting, key=lambda k: int(errors[:, k].sum()))] * len(errors)


def _an_equal_share(errors, sizes, budget):
    found = _cheapest(errors, sizes)
    for layer, (e, s) in enumerate(zip(errors.tolist(), sizes.tolist(), strict=True)):
        fitting = [k for k in range(len(e)) if s[k] * len(errors) <= budget]
        found[layer] = min(fitting, key=lambda k: (e[k], s[k]), default=found[layer])
    return found


def _by_price(errors, sizes, budget):
    """Each layer's least error + λ · bytes, at the least of many λ whose choices fit."""
    for price in [0.0, *torch.logspace(-6, 8, 3000, dtype=torch.float64).tolist()]:
        found = (errors.double() + price * sizes.double()).argmin(dim=1).tolist()
        if _total(sizes, found) <= budget:
            return found
    return _cheapest(errors, sizes)


ASSIGN_BITS = Exercise(
    reference=assign_bits,
    cases=_tables,
    compare=False,
    reached=_what_was_reached,
    hints=(
        "Whoever takes what saves most error for a byte, again and again, ends below the best: a "
        "dear step may leave bytes over that buy nothing. Ask a smaller question first: what is "
        "the least error of the first l layers in at most b bytes, for every b?",
        "That is a row of numbers, least[b]. With one more layer, least′[b] = the smallest over k "
        "of errors[l, k] + least[b − sizes[l, k]], where b − sizes[l, k] ≥ 0. Write down which k "
        "it was, for each l and b; from the last layer, b = budget, walk back. "
        "`scipy.optimize.milp` finds it, too; it stops a ten-thousandth above the least, unless "
        'options={"mip_rel_gap": 0}.',
        "least = [0] * (budget + 1). For each layer: new[b], choice[b] = min((e + least[b - s], k) "
        "for k, (e, s) in enumerate(…) if s <= b), infinity if none; keep `choice`, least = new. "
        "Then b = budget; for each layer from the last: k = choice[b], b -= s of that k.",
    ),
    properties=(
        Property("a list of L ints, each from 0 to K − 1", _are_choices, form=True),
        Property(
            "the chosen sizes add up to at most `budget`",
            lambda inputs, value: _total(inputs["sizes"], value) <= inputs["budget"],
        ),
        Property(
            "the chosen errors add up to the least that the budget allows",
            lambda inputs, value: _total(inputs["errors"], value) <= _least(inputs),
        ),
    ),
    misconceptions=(
        Misconception(
            "the most for each byte",
            _greedy(lambda saved, cost: saved / cost if cost > 0 else float("inf")),
            "step by step you took what saves most error for a byte. The last bytes may then be "
            "too few for anything: two lesser steps that fill the budget can save more.",
        ),
        Misconception(
            "the most at once",
            _greedy(lambda saved, cost: saved),
            "step by step you took what saves most error, whatever it costs. Smaller savings that "
            "cost little may add up to more.",
        ),
        Misconception(
            "the same for all",
            _the_same_for_all,
            "all layers got the same choice. Some layers hardly notice fewer bits, and others "
            "could use what they give up.",
        ),
        Misconception(
            "an equal share of the bytes",
            _an_equal_share,
            "each layer got the same share of the budget. What one layer leaves over, another "
            "could use.",
        ),
        Misconception(
            "one price for all bytes",
            _by_price,
            "every layer took its least error + λ · bytes, with one price λ. That is the best for "
            "the bytes that it takes; but of the choices between, which lie above the line from "
            "one to the next, it takes none, and leaves bytes over.",
        ),
        Misconception(
            "the least error, whatever it takes",
            lambda errors, sizes, budget: errors.argmin(dim=1).tolist(),
            "each layer took its least error, and together they are larger than the budget.",
        ),
    ),
)
