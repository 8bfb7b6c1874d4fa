"""Exercise of 12_capstone: which of many results are worth having. N is the number of results."""

import math

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def pareto_front(sizes: list[float], losses: list[float]) -> list[bool]:
    """For each of N results, whether no other one dominates it: N times True or False, in order.

    Of both numbers less is better. One result dominates another if neither its size nor its loss is
    larger, and at least one of the two is smaller. So results that are equal in both do not
    dominate each other. +∞ and −∞ are numbers like any other: +∞ equals +∞. No results, no answers:
    []. If a number is NaN, or one list is longer than the other, raise a ValueError. The lists stay
    as they are.
    """
    points = list(zip(sizes, losses, strict=True))
    if any(math.isnan(number) for point in points for number in point):
        raise ValueError("sizes and losses must be numbers; got NaN")
    return [
        not any(s <= size and m <= loss and (s < size or m < loss) for s, m in points)
        for size, loss in points
    ]


def _results(seed: int) -> list[Case]:
    draw, inf, nan = Draw(seed), math.inf, float("nan")  # another object than math.nan
    a, b = draw.number(1, 9), draw.number(10, 19)
    labelled = {
        "by hand": ([4 * a, 2 * a, 3 * a, a], [1.0, 2.0, 2.5, 4.0]),
        "results of random methods": _many(draw, 12, 50),
        "many results, many of them equal in one": _many(draw, 120, 15),
        "one result": ([b], [float(a)]),
        "no result": ([], []),
        "two equal ones": ([a, a, b], [2.0, 2.0, 3.0]),
        "two equal ones, and a better one": ([b, a, b], [2.0, 2.0, 2.0]),
        "equal ones far apart": ([a, b, 2 * b, a], [3.0, 2.0, 2.5, 3.0]),
        "of one size": (5 * [b], [float(x) for x in draw.order(5).tolist()]),
        "of one loss": (draw.order(6).tolist(), 6 * [float(a)]),
        "all equal": (4 * [b], 4 * [float(a)]),
        "each larger one is better": _line(draw, -1),
        "each larger one is worse": _line(draw, 1),
        "smaller by one byte": ([10**9 + a, 10**9 + a - 1], [1.25, 1.25]),
        "better in the last digit": ([b, b], [1.0, math.nextafter(1.0, 0)]),
        "infinite losses": ([b, a, b, 2 * b], [inf, inf, 3.0, inf]),
        "the smallest has an infinite loss": ([b, a, a + b], [2.0, inf, 1.0]),
        "infinite in both, and alone so": ([inf, inf, inf], [inf, inf, float(a)]),
        "nothing but infinities": ([inf, inf], [inf, inf]),
        "infinities below zero": ([-inf, a, -inf, b], [inf, -inf, inf, float(a)]),
        "numbers below zero": ([0, a, -a], [-1.0, -2.0, -0.5]),
        "minus zero equals zero": ([0.0, -0.0, float(a)], [-0.0, 0.0, -float(b)]),
        "a loss is not a number": ([a, b], [2.0, nan]),
        "a size is not a number": ([nan, a, b], [1.0, 2.0, 3.0]),
        "a size without a loss": ([a, b, 2 * b], [2.0, 1.0]),
        "a loss without a size": ([a, b], [2.0, 1.0, 3.0]),
        "losses without any size": ([], [float(a)]),
    }
    return labelled_cases(("sizes", "losses"), labelled)


def _many(draw: Draw, count: int, values: int) -> tuple[list[int], list[float]]:
    """Near a falling curve, some on it: a front of several results, and ties in either."""
    sizes = draw.integers(1, values, count)
    above = draw.integers(0, values, count) * draw.integers(0, 3, count)
    return sizes.tolist(), ((4 * values) // sizes + above).double().tolist()


def _line(draw: Draw, slope: int) -> tuple[list[int], list[float]]:
    """Seven results on a straight line, in any order."""
    sizes = draw.order(7) + 1
    return sizes.tolist(), (10.0 + slope * sizes).double().tolist()


def _checked(function):
    """What refuses NaN as it should, and is wrong in another way."""

    def wrong(sizes, losses):
        points = list(zip(sizes, losses, strict=True))
        if any(math.isnan(number) for point in points for number in point):
            raise ValueError
        return [function(points, *point) for point in points]

    return wrong


def _running(sizes, losses):
    """From the smallest: better than all before it. Sorted by size alone."""
    if any(map(math.isnan, [*sizes, *losses])) or len(sizes) != len(losses):
        raise ValueError
    front, least = [False] * len(sizes), math.inf
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        if losses[i] < least:
            front[i], least = True, losses[i]
    return front


PARETO_FRONT = Exercise(
    reference=pareto_front,
    cases=_results,
    hints=(
        "Turn the definition into one condition: when does a result (s, m) dominate another, "
        "(size, loss)? Two comparisons with ≤, and one of the two with <.",
        "A result is on the front if that condition holds for none of all results, itself "
        "included: it does not dominate itself, because nothing of it is smaller.",
        "not any(… for s, m in points) says it for one result; a list of these is the answer. "
        "NaN compares as False with everything, so look for it first, with math.isnan.",
    ),
    properties=(
        Property(
            "a list of N times True or False",
            lambda inputs, value: (
                type(value) is list
                and len(value) == len(inputs["sizes"])
                and all(type(one) is bool for one in value)
            ),
            form=True,
        ),
        Property(
            "of one result or more, at least one is on the front",
            lambda inputs, value: any(value) or not value,
        ),
    ),
    misconceptions=(
        Misconception(
            "equal results put each other out",
            _checked(lambda points, s, m: sum(p[0] <= s and p[1] <= m for p in points) == 1),
            "a result was dropped because another one is equal to it. Nothing of that one is "
            "smaller: both stay.",
        ),
        Misconception(
            "smaller in both",
            _checked(lambda points, s, m: not any(p[0] < s and p[1] < m for p in points)),
            "a result was dropped only where another is smaller in both. One that has the same "
            "loss in fewer bytes, or the same bytes at less loss, dominates, too.",
        ),
        Misconception(
            "smaller in either",
            _checked(lambda points, s, m: not any(p[0] < s or p[1] < m for p in points)),
            "a result was dropped where another is smaller in one of the two, whatever the other "
            "costs. So only one that is best in both could stay.",
        ),
        Misconception(
            "one after the other, by size",
            _running,
            "you went through the results by size and kept each that lowers the loss. Of equal "
            "sizes the order matters then (sort by loss, too), equal results both stay, and an "
            "infinite loss is not above the first, infinite bound.",
        ),
        Misconception(
            "the least loss of each size",
            _checked(lambda points, s, m: m == min(p[1] for p in points if p[0] == s)),
            "you kept the least loss of each size. A smaller result may have a loss as low or "
            "lower, and then it dominates.",
        ),
    ),
)
