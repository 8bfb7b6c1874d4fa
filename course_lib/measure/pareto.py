"""Which of many results are worth having: those that no other beats in size and in loss."""

import math
from collections.abc import Sequence
from itertools import groupby


def pareto_front(sizes: Sequence[float], losses: Sequence[float]) -> list[bool]:
    """For each point, whether no other dominates it: Pareto-optimal.

    One point dominates another if neither its size nor its loss is larger, and one of the two is
    smaller. So of points that are equal in both, all are on the front, or none.

    Args:
        sizes, losses: N numbers each, in any units; +∞ is a number. Less is better.

    Returns:
        N times True or False, in the order of the points.

    Raises:
        ValueError: their numbers differ, or one is NaN.

    Source: Pareto, 1906, "Manuale di economia politica".

    >>> pareto_front([4, 2, 2, 3], [1.0, 2.0, 2.0, 2.0])
    [True, True, True, False]
    """
    if len(sizes) != len(losses):
        raise ValueError(
            f"sizes and losses must be of the same points; got {len(sizes)} and {len(losses)}"
        )
    points = list(zip(sizes, losses, strict=True))
    if any(math.isnan(number) for point in points for number in point):
        raise ValueError("sizes and losses must not be NaN; got at least one")
    front, least = set(), None  # of all points that are smaller
    for _, same_size in groupby(sorted(points), key=lambda point: point[0]):
        best = next(same_size)
        if least is None or best[1] < least:
            front.add(best)
            least = best[1]
    return [point in front for point in points]
