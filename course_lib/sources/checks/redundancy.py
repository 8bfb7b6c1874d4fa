"""Claims about redundancy in models and in data, and about the words for it."""

import numpy as np

from course_lib.redundancy.duplicates import first_copies
from course_lib.redundancy.shingles import jaccard, shingle_sets
from course_lib.sources.checks.registry import checks, normal


def _test_error(features: int, seed: int, samples: int = 100) -> float:
    """Test error of the least-norm fit on random ReLU features."""
    generator = np.random.default_rng(seed)
    truth = normal(20, seed=1) / np.sqrt(20)
    x, fresh = generator.normal(size=(samples, 20)), generator.normal(size=(500, 20))
    y = x @ truth + 0.2 * generator.normal(size=samples)
    weight = generator.normal(size=(20, features)) / np.sqrt(20)
    hidden, fresh_hidden = np.maximum(x @ weight, 0), np.maximum(fresh @ weight, 0)
    return float(np.mean((fresh_hidden @ (np.linalg.pinv(hidden) @ y) - fresh @ truth) ** 2))


@checks("C02")
def find_the_second_descent() -> str:
    """Median test error for fewer, as many and many more features than the 100 samples."""
    sizes = (5, 10, 20, 50, 100, 300, 1000)
    error = {p: np.median([_test_error(p, seed) for seed in range(3)]) for p in sizes}
    assert error[100] > 10 * error[50] and min(error, key=error.get) == 1000
    return (
        f"100 samples: test error {error[20]:.2f} with 20 parameters, {error[100]:.0f} with 100, "
        f"{error[1000]:.2f} with 1000: the best of {len(sizes)} sizes"
    )


@checks("C03")
def merge_twin_neurons() -> str:
    """Two equal neurons: drop one, or drop it and give its outgoing weight to the other."""
    hidden = np.maximum(normal(1000, 5) @ normal(5, seed=1), 0)
    output = 3 * hidden + 2 * hidden
    dropped, merged = np.abs(output - 3 * hidden).max(), np.abs(output - 5 * hidden).max()
    assert dropped > 1 and merged < 1e-9
    return f"dropping a twin neuron costs up to {dropped:.0f}, merging it into the other costs 0"


@checks("C105")
def find_copies() -> str:
    """Exact copies in four texts, and the likeness of two that differ in one word."""
    texts = [
        "the cat sat on the mat today",
        "the cat sat on the mat today",
        "the cat sat on the mat now",
        "a dog ran in the park",
    ]
    kept = len(set(first_copies(texts).tolist()))
    likeness = float(jaccard(shingle_sets(texts), np.array([[0, 2]]))[0])
    assert kept == 3 and round(likeness, 2) == 0.67
    return (
        f"exact comparison removes {4 - kept} of 4 texts, and misses one that is "
        f"{likeness:.0%} alike"
    )


@checks("C104")
def clip_and_prune() -> str:
    """The same numbers clipped to ±1, and pruned at 1."""
    w = np.array([-2.0, -0.1, 0.05, 3.0])
    clipped, pruned = np.clip(w, -1, 1), np.where(np.abs(w) > 1, w, 0)
    assert not np.any(clipped == pruned)
    return f"of {w.tolist()} clipping makes {clipped.tolist()}, pruning {pruned.tolist()}"


@checks("C126")
def prune_to_sparsity() -> str:
    """The sparsity of a matrix after magnitude pruning."""
    w = normal(100, 100)
    sparsity = np.mean(w * (np.abs(w) > np.quantile(np.abs(w), 0.7)) == 0)
    assert round(sparsity, 3) == 0.7
    return f"after magnitude pruning the matrix has {sparsity:.0%} zeros: pruning is sparsification"
