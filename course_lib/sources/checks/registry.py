"""Which function checks which claim."""

from collections.abc import Callable

import numpy as np

CHECKS: dict[str, Callable[[], str]] = {}


def checks(claim: str) -> Callable:
    """Register the decorated function as the check of a claim.

    Raises:
        ValueError: the claim has a check already.
    """

    def register(function: Callable[[], str]) -> Callable[[], str]:
        if claim in CHECKS:
            raise ValueError(f"{claim} is checked by {CHECKS[claim].__name__} already")
        CHECKS[claim] = function
        return function

    return register


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, float64."""
    return np.random.default_rng(seed).normal(size=shape)


def mse(one: np.ndarray, other: np.ndarray) -> float:
    """Mean squared difference."""
    return float(np.mean((one - other) ** 2))
