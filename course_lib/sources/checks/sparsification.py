"""Claims about zeros: what they save, and how to place them at random."""

import numpy as np

from course_lib.sources.checks.registry import checks, mse, normal


@checks("C24")
def store_zeros() -> str:
    """Bytes of a 512 × 512 matrix with 30 % zeros: dense, and as CSR (value and index 4 bytes)."""
    dense = 4 * 512 * 512
    kept = round(0.7 * 512 * 512)
    csr = 8 * kept + 4 * 513
    assert csr > dense > 8 * round(0.49 * 512 * 512) + 4 * 513
    return (
        f"30 % zeros: dense {dense:,} bytes, as a sparse matrix {csr:,}; that pays only above "
        "about 50 % zeros"
    )


@checks("C53")
def use_a_weight_as_a_probability() -> str:
    """Which standard normal weights are probabilities at all."""
    legal = np.mean((normal(100_000) >= 0) & (normal(100_000) <= 1))
    refused = 0
    for value in (-0.3, 2.0):
        try:
            np.random.default_rng(0).binomial(1, value)
        except ValueError:
            refused += 1
    assert refused == 2 and 0.33 < legal < 0.35
    return f"of normal weights only {legal:.0%} lie between 0 and 1; −0.3 and 2.0 are refused"


@checks("C54")
def drop_at_random_and_by_size() -> str:
    """30 % of weights dropped at random, with and without 1/π, and by magnitude."""
    w = normal(200_000)
    kept = np.random.default_rng(1).random(200_000) < 0.7
    shrunk, unbiased = (w * kept) @ w / (w @ w), (w * kept / 0.7) @ w / (w @ w)
    by_size = mse(np.where(np.abs(w) > np.quantile(np.abs(w), 0.3), w, 0), w)
    at_random = mse(w * kept, w)
    assert abs(shrunk - 0.7) < 0.01 > abs(unbiased - 1) and at_random > 10 * by_size
    return (
        f"mean size {shrunk:.2f}, divided by the keep-probability {unbiased:.2f}; "
        f"squared error {at_random:.2f} at random, {by_size:.3f} by magnitude"
    )


@checks("C62")
def count_the_kept() -> str:
    """How many of 100,000 are kept with probability 0.7, on average over 2000 draws."""
    kept = np.random.default_rng(0).binomial(100_000, 0.7, 2000)
    assert abs(kept.mean() - 70_000) < 20 and abs(kept.std() - np.sqrt(21_000)) < 10
    return (
        f"kept of 100,000: {round(kept.mean(), -2):,.0f}, give or take {kept.std():.0f} in 2,000 "
        f"draws (√(n·p·(1 − p)) is {np.sqrt(21_000):.0f})"
    )
