"""Claims about what to prune: scores, thresholds, masks, order of steps."""

import math

import numpy as np

from course_lib.sources.checks.registry import checks, mse, normal

LAMBDA = 0.01  # as the documents have it


def printed_importance(p: np.ndarray, penalty: float = LAMBDA) -> float:
    """‖λp‖ / ‖p‖, as printed in S2.

    >>> round(printed_importance(np.array([3.0, -4.0])), 12)
    0.01
    """
    return float(np.linalg.norm(penalty * p) / np.linalg.norm(p))


@checks("C06")
def rescale_two_layers() -> str:
    """W₁·10 and W₂/10 compute the same function; compare the half of the weights that is kept."""
    first, second, x = normal(16, 8), normal(4, 16, seed=1), normal(50, 8, seed=2)
    outputs, masks = [], []
    for factor in (1, 10):
        pair = first * factor, second / factor
        outputs.append(np.maximum(x @ pair[0].T, 0) @ pair[1].T)
        sizes = np.abs(np.concatenate([w.ravel() for w in pair]))
        masks.append(sizes > np.median(sizes))
    changed = np.mean(masks[0] != masks[1])
    assert np.allclose(*outputs) and changed > 0.2
    return f"the same function, written at another scale: {changed:.0%} of the mask changes"


@checks("C07")
def drop_quiet_neurons() -> str:
    """A dead neuron dropped; one at 0.01 with an outgoing weight of 1000 dropped, and folded."""
    loud = np.maximum(normal(50), 0)
    dead, quiet = np.zeros(50), np.full(50, 0.01)
    output = loud + 1000 * quiet
    free = np.abs((loud + 5 * dead) - loud).max()
    dropped, folded = np.abs(output - loud).max(), np.abs(output - (loud + 10)).max()
    assert free == 0 and abs(dropped - 10) < 1e-9 > folded
    return (
        f"a dead neuron costs 0; a quiet one costs {dropped:.0f}, and 0 if its constant is "
        "folded in"
    )


@checks("C13")
def prune_and_train_on() -> str:
    """Zeros after pruning and after 20 gradient steps of least squares, with and without a mask."""
    x, y = normal(100, 20), normal(100, seed=1)
    start = 0.2 * normal(20, seed=2)
    mask = np.abs(start) > 0.1
    zeros = {}
    for name, held in (("no mask", np.ones(20)), ("mask", mask)):
        w = start * mask
        for _ in range(20):
            w = (w - 0.001 * 2 * x.T @ (x @ w - y)) * held
        zeros[name] = int(np.sum(w == 0))
    pruned = int(np.sum(~mask))
    assert zeros == {"no mask": 0, "mask": pruned} and pruned > 3
    return (
        f"{pruned} of 20 weights pruned; trained on, {zeros['no mask']} are zero, {pruned} "
        "with a mask"
    )


@checks("C14")
def compare_the_threshold_with_fresh_weights() -> str:
    """Shares of a wide and of a narrow fresh layer (Glorot's uniform rule) that lie below 0.1."""
    shares = {}
    for shape in ((784, 256), (64, 32)):
        limit = math.sqrt(6 / sum(shape))
        w = np.random.default_rng(0).uniform(-limit, limit, shape)
        shares[shape] = np.mean(np.abs(w) < 0.1)
    assert shares[784, 256] == 1 and shares[64, 32] < 0.5
    return (
        f"0.1 prunes {shares[784, 256]:.0%} of a fresh 784 × 256 layer, {shares[64, 32]:.0%} of a "
        "64 × 32 one"
    )


@checks("C25")
def narrow_a_network() -> str:
    """Parameters of 64-128-128-10, and with 64 neurons fewer in the first hidden layer."""

    def count(*widths: int) -> int:
        return sum(a * b + b for a, b in zip(widths, widths[1:], strict=False))

    before, after = count(64, 128, 128, 10), count(64, 64, 128, 10)
    assert (before, after) == (26_122, 13_770)
    return f"64 neurons fewer: {before:,} parameters become {after:,}, in 3 layers as before"


@checks("C29")
def prune_at_the_threshold() -> str:
    """Weights that lie exactly at t = 0.5, under the two rules."""
    w = np.array([[0.5, -0.2], [-0.5, 0.1]])
    strict, loose = np.sum(np.abs(w) > 0.5), np.sum(np.abs(w) >= 0.5)
    assert (strict, loose) == (0, 2)
    return f"at the threshold itself: > keeps {strict} of 4 weights, ≥ keeps {loose}"


@checks("C43")
def rank_by_l1_and_l2() -> str:
    """|w| and w² on single weights; L1 and L2 norms on two groups."""
    w = normal(1000)
    same = np.array_equal(np.argsort(np.abs(w)), np.argsort(w**2))
    groups = np.array([[3.0, 0, 0, 0], [1.6, 1.6, 0, 0]])
    l1, l2 = np.abs(groups).sum(axis=1), np.linalg.norm(groups, axis=1)
    assert same and l1[0] < l1[1] and l2[0] > l2[1]
    return (
        "1000 weights: the same ranking; (3,0,0,0) and (1.6,1.6,0,0): "
        f"L1 {l1[0]:.1f} < {l1[1]:.1f}, L2 {l2[0]:.1f} > {l2[1]:.1f}"
    )


@checks("C45")
def compare_gradient_and_curvature() -> str:
    """At the minimum of least squares: gradient, true cost of removing, ½·H·w²."""
    x = normal(50, 5)
    y = x @ np.array([3.0, 2, 1, 0.5, 0.1]) + 0.1 * normal(50, seed=1)
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    gradient = np.abs(2 * x.T @ (x @ w - y)).max()
    least = np.sum((x @ w - y) ** 2)
    costs = [np.sum((x @ np.where(np.arange(5) == i, 0, w) - y) ** 2) - least for i in range(5)]
    saliency = 0.5 * np.diag(2 * x.T @ x) * w**2
    assert gradient < 1e-9 and np.allclose(saliency, costs)
    return (
        f"gradient 0 everywhere, yet removing a weight costs {min(costs):.1f} to {max(costs):.0f}; "
        "½·H·w² is exact here"
    )


@checks("C51")
def score_anything() -> str:
    """The printed importance of vectors of all lengths and sizes."""
    scores = {
        round(printed_importance(normal(length, seed=i) * size), 12)
        for i, (length, size) in enumerate([(1, 1e-6), (1, 1e6), (5, 1), (1000, 1e3)])
    }
    assert scores == {LAMBDA}
    return f"‖λp‖/‖p‖ of four vectors, from 10⁻⁶ to 10⁶ in size: {scores.pop()} each time"


@checks("C52")
def keep_all_or_nothing() -> str:
    """Parameters of 200 that are kept at three thresholds."""
    scores = np.array([printed_importance(w) for w in normal(200, 1)])
    kept = [int(np.sum(scores > threshold)) for threshold in (0.005, 0.0101, 0.5)]
    assert kept == [200, 0, 0]
    return f"kept of 200 at θ = 0.005, 0.0101, 0.5: {kept}"


@checks("C57")
def differentiate_the_penalty() -> str:
    """The gradient of ½‖λp‖² where p is not zero, and the length of λp/‖p‖."""
    p = normal(4)
    gradient = LAMBDA**2 * p
    claimed = LAMBDA * p / np.linalg.norm(p)
    assert np.linalg.norm(gradient) > 0 and not np.allclose(gradient, claimed)
    return (
        "the penalty's gradient λ²p is zero at p = 0 only, and λp/‖p‖ is a vector, set equal to a "
        "number"
    )


@checks("C58")
def move_lambda() -> str:
    """λ·‖p‖/‖p‖."""
    p = normal(4)
    left = LAMBDA * np.linalg.norm(p) / np.linalg.norm(p)
    assert np.isclose(left, LAMBDA)
    return f"with λ in front, I = λ·‖p‖/‖p‖ = {left:.2f}: nothing of p is left"


@checks("C60")
def score_p1_and_p2() -> str:
    """The printed importance of a large and a small number with λ = 0.01."""
    scores = [printed_importance(np.array([p])) for p in (7.0, -0.3)]
    assert np.allclose(scores, LAMBDA)
    return f"I(7) = {scores[0]:.2f}, I(−0.3) = {scores[1]:.2f}: neither 0.5 nor 0.3 can occur"


@checks("C61")
def prune_the_whole_model() -> str:
    """How many of 100,000 parameters have an importance above 0.5."""
    w = normal(100_000)
    kept = int(np.sum(np.abs(LAMBDA * w) / np.abs(w) > 0.5))
    assert kept == 0
    return f"above θ = 0.5 lie {kept} of 100,000: the whole model is pruned"


@checks("C85")
def prune_below_the_mean() -> str:
    """Squared error of cutting w < mean(w), and of cutting |w| < mean |w|."""
    w = normal(100_000)
    signed = mse(np.where(w < w.mean(), 0, w), w)
    small = np.abs(w) < np.abs(w).mean()
    absolute = mse(np.where(small, 0, w), w)
    assert signed > 4 * absolute
    return (
        f"cutting below the mean costs {signed:.2f}, below the mean magnitude {absolute:.2f}, and "
        f"that cuts {small.mean():.0%}, whatever you wanted"
    )


@checks("C86")
def fine_tune_with_the_mask() -> str:
    """Least squares with correlated features: loss cut by magnitude, then fitted on under it."""
    shared = normal(100, 1)
    x = normal(100, 10, seed=1) + 2 * shared
    y = x @ np.linspace(0.1, 1, 10)
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    kept = np.abs(w) > 0.55  # halfway between two weights: least squares is exact to 1e-15 only
    cut = np.mean((x[:, kept] @ w[kept] - y) ** 2)
    tuned = np.mean((x[:, kept] @ np.linalg.lstsq(x[:, kept], y, rcond=None)[0] - y) ** 2)
    assert tuned < cut / 3
    return f"half the weights cut: loss {cut:.1f}; the rest fine-tuned under the mask: {tuned:.1f}"


@checks("C87")
def count_a_matrix() -> str:
    """The number of weights of an n × d matrix."""
    count = np.zeros((3, 4)).size
    assert count == 12
    return f"a 3 × 4 matrix holds {count} weights, not 3"


@checks("C88")
def keep_by_signed_share() -> str:
    """Which of (3, −4, 1) have a share of at least 0.2, with and without the sign."""
    w = np.array([3.0, -4.0, 1.0])
    share = w / np.abs(w).sum()
    signed, absolute = w[share >= 0.2].tolist(), w[np.abs(share) >= 0.2].tolist()
    assert signed == [3.0] and absolute == [3.0, -4.0]
    return f"shares {share.round(3).tolist()}: signed keeps {signed}, by magnitude {absolute}"


@checks("C94")
def index_with_a_condition() -> str:
    """W[W > 0.01] of a normal matrix."""
    w = normal(100, 100)
    kept = w[w > 0.01]
    assert kept.ndim == 1 and kept.min() > 0 and w.min() < -3
    return f"100 × 100 weights become a list of {len(kept)}; {w.min():.2f}, the largest, is gone"


@checks("C95")
def prune_even_numbers() -> str:
    """The share of U[0, 1) below 0.01."""
    w = np.random.default_rng(0).random(10_000)
    removed = np.mean(w <= 0.01)
    assert 0.005 < removed < 0.015 and w.min() >= 0
    return f"{removed:.1%} of the weights are removed, and none is negative"


@checks("C124")
def compare_threshold_rules() -> str:
    """What four printed rules keep of (0.1, −0.1, 0.2) at t = 0.1."""
    w = np.array([0.1, -0.1, 0.2])
    kept = {
        "S0": ~(np.abs(w) < 0.1),
        "S1 and S2": np.abs(w) > 0.1,
        "S3's words": np.abs(w) >= 0.1,
        "S3's code": w > 0.1,
    }
    counts = {name: int(mask.sum()) for name, mask in kept.items()}
    assert list(counts.values()) == [3, 1, 3, 1]
    return "kept of (0.1, −0.1, 0.2): " + ", ".join(f"{k} {v}" for k, v in counts.items())
