"""Levels for a density instead of numbers: those with the least mean squared error.

    min over c of ∫ p(x) min over j (x − c_j)² dx

A density p is put on a fine grid of places, each weighing p(x) times the place's width, and then
the best levels of so many weighted numbers are found exactly (`optimal_kmeans`). So it needs no
start, and no density for which Lloyd's steps end at the best levels.

The grid is even in u, x = sinh(u): fine where |x| < 1, and wide in the tails.

Source: Max, 1960, "Quantizing for Minimum Distortion", whose tables for the normal density these
levels agree with; Lloyd, 1982, "Least Squares Quantization in PCM".
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from course_lib.quantization.optimal_kmeans import optimal_levels

PLACES = 2**17


def normal(x: Tensor) -> Tensor:
    """The normal density of variance 1, but for a factor: exp(−x²/2)."""
    return (-(x**2) / 2).exp()


def laplace(x: Tensor) -> Tensor:
    """Laplace's density of variance 1, but for a factor: exp(−√2 |x|)."""
    return (-math.sqrt(2) * x.abs()).exp()


def student(freedom: float) -> Callable[[Tensor], Tensor]:
    """Student's t density of variance 1, ν > 2 degrees of freedom: (1 + x²/(ν − 2))^(−(ν + 1)/2).

    >>> student(5.0)(torch.tensor([0.0])).item()
    1.0
    """
    if not freedom > 2:
        raise ValueError(f"freedom must be above 2, or there is no variance; got {freedom}")
    return lambda x: (1 + x**2 / (freedom - 2)) ** (-(freedom + 1) / 2)


def lloyd_max(
    density: Callable[[Tensor], Tensor], k: int, low: float = -60.0, high: float = 60.0
) -> Tensor:
    """The k levels with the least mean squared error for a density on [low, high].

    Args:
        density: of places (P,), float64, to values (P,) of at least 0; a factor does not matter.
        k: from 1 to 256.
        low, high: outside, the density counts as 0.

    Returns:
        (1, k), ascending, float32.

    Raises:
        ValueError: low is not below high; the density is negative, not finite or 0 throughout; k.

    >>> lloyd_max(normal, 4)
    tensor([[-1.5104, -0.4528,  0.4528,  1.5104]])
    """
    x, weight = _grid(density, low, high)
    return optimal_levels(x[None], k, weight[None]).float()


def mean_squared_error(
    density: Callable[[Tensor], Tensor], levels: Tensor, low: float = -60.0, high: float = 60.0
) -> float:
    """E (x − x̂)² under a density, x̂ the nearest of the levels (1, k).

    >>> round(mean_squared_error(normal, lloyd_max(normal, 4)), 4)
    0.1175
    """
    x, weight = _grid(density, low, high)
    levels = levels.double()
    middles = levels[0, :-1] / 2 + levels[0, 1:] / 2
    error = x - levels[0, torch.bucketize(x, middles)]
    return ((weight * error.square()).sum() / weight.sum()).item()


def _grid(density: Callable[[Tensor], Tensor], low: float, high: float) -> tuple[Tensor, Tensor]:
    """Places (P,) in the middle of even intervals of u = arsinh(x), and what they weigh (P,)."""
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"low must be below high, and both finite; got {low=}, {high=}")
    ends = math.asinh(low), math.asinh(high)
    share = (torch.arange(PLACES, dtype=torch.float64) + 0.5) / PLACES
    u = ends[0] + (ends[1] - ends[0]) * share
    weight = density(u.sinh()) * u.cosh()
    if not (weight.isfinite().all() and weight.min() >= 0 and weight.sum() > 0):
        raise ValueError("density must be finite, at least 0, and somewhere above 0; it is not")
    return u.sinh(), weight / weight.sum()


@cache
def normal_levels(bits: int) -> tuple[float, ...]:
    """The 2ⁿ levels for the normal density of variance 1, to go with the scale `codebook.rms`.

    >>> [round(level, 4) for level in normal_levels(2)]
    [-1.5104, -0.4528, 0.4528, 1.5104]
    """
    return tuple(lloyd_max(normal, 2**bits)[0].tolist())
