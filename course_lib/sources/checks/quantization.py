"""Claims about grids: their ends, zero, decoders, and what the printed formulas do."""

import numpy as np
import torch

from course_lib.quantization.midrise import dequantize_midrise, printed_codes, quantize_midrise
from course_lib.sources.checks.registry import checks, mse, normal


def symmetric(w: np.ndarray, bits: int) -> np.ndarray:
    """w rounded to an even grid around zero that reaches max |w|.

    >>> symmetric(np.array([-1.0, 0.3]), 2)
    array([-1.,  0.])
    """
    scale = np.abs(w).max() / (2 ** (bits - 1) - 1)
    return np.round(w / scale) * scale


def affine(w: np.ndarray, bits: int) -> np.ndarray:
    """w rounded to an even grid from min to max that holds zero.

    >>> affine(np.array([0.0, 1.0, 3.0]), 2)
    array([0., 1., 3.])
    """
    low, high = min(w.min(), 0.0), max(w.max(), 0.0)
    scale = (high - low) / (2**bits - 1)
    zero_point = np.round(-low / scale)
    codes = np.clip(np.round(w / scale) + zero_point, 0, 2**bits - 1)
    return scale * (codes - zero_point)


def lloyd(w: np.ndarray, levels: int) -> np.ndarray:
    """w rounded to the levels that Lloyd's iteration finds from the quantiles."""
    centres = np.quantile(w, (np.arange(levels) + 0.5) / levels)
    for _ in range(30):
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, w)
        centres = np.bincount(nearest, w, levels) / np.maximum(
            np.bincount(nearest, None, levels), 1
        )
    return centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, w)]


def _relu_outputs() -> np.ndarray:
    return np.maximum(normal(20_000), 0)


@checks("C04")
def shrink_to_bytes() -> str:
    """Bytes and largest error of int8 codes with one scale."""
    w = normal(20_000).astype(np.float32)
    step = np.abs(w).max() / 127
    codes = np.round(w / step).astype(np.int8)
    worst = np.abs(codes * step - w).max()
    assert w.nbytes == 4 * codes.nbytes and worst <= 0.5001 * step
    return f"{w.nbytes // codes.nbytes} times smaller; largest error {worst / step:.2f} of a step"


@checks("C11")
def minimize_without_a_grid() -> str:
    """The distance to θ itself, and to the nearest point of a grid."""
    theta = normal(50)
    free, on_grid = np.linalg.norm(theta - theta), np.linalg.norm(theta - symmetric(theta, 3))
    assert free == 0 < on_grid
    return f"without a grid θq = θ is best, at distance {free:.0f}; on a 3-bit grid {on_grid:.2f}"


@checks("C12")
def compare_weight_and_output_error() -> str:
    """w = (0.4, 0.4) with x = (1, 1) on whole numbers: the nearest point and a farther one."""
    w, x = np.array([0.4, 0.4]), np.ones(2)
    points = {"(0, 0)": np.zeros(2), "(1, 0)": np.array([1.0, 0.0])}
    weight = {name: np.linalg.norm(w - q) for name, q in points.items()}
    output = {name: abs((w - q) @ x) for name, q in points.items()}
    assert weight["(0, 0)"] < weight["(1, 0)"] and output["(0, 0)"] > output["(1, 0)"]
    each = [f"{k}: weights {weight[k]:.2f}, output {output[k]:.1f}" for k in points]
    return "error of " + "; ".join(each)


@checks("C26")
def round_one_sided_data() -> str:
    """4-bit error on ReLU outputs, with a scale alone and with a zero-point."""
    x = _relu_outputs()
    alone, shifted = mse(symmetric(x, 4), x), mse(affine(x, 4), x)
    assert alone > 3 * shifted
    return (
        f"ReLU outputs at 4 bits: a zero-point makes the squared error {alone / shifted:.1f} "
        "times smaller"
    )


@checks("C27")
def round_to_other_levels() -> str:
    """4-bit error of even and uneven levels, on normal and on uniform data."""
    w = normal(20_000)
    even, fitted = mse(affine(w, 4), w), mse(lloyd(w, 16), w)
    flat = np.random.default_rng(1).uniform(-1, 1, 20_000)
    levels = np.sort(np.concatenate([-np.logspace(-2, 0, 8), np.logspace(-2, 0, 8)]))
    nearest = levels[np.abs(flat[:, None] - levels).argmin(axis=1)]
    flat_even, logarithmic = mse(affine(flat, 4), flat), mse(nearest, flat)
    assert fitted < 0.5 * even and logarithmic > 3 * flat_even
    return (
        f"normal data: even levels {even:.3f}, fitted ones {fitted:.3f}; "
        f"uniform data: even levels {flat_even:.4f}, logarithmic ones {logarithmic:.4f}"
    )


@checks("C30")
def code_the_largest_weight() -> str:
    """The printed formula at the upper end, and in a byte."""
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    codes = printed_codes(ends, -1.0, 1.0, 8).long()
    wrapped = int(codes[1].to(torch.uint8))
    assert codes.tolist() == [0, 256] and wrapped == 0
    return (
        f"the largest weight gets code {int(codes[1])} at 8 bits; in a byte that is "
        f"{wrapped}, the smallest"
    )


@checks("C31")
def code_the_edges() -> str:
    """The printed formula at the edges between 16 bins."""
    edges = torch.arange(8, dtype=torch.float64) / 16
    codes = printed_codes(edges, 0.0, 1.0, 4).long().tolist()
    down = quantize_midrise(edges, 0.0, 1.0, 4).long().tolist()
    assert codes == [0, 0, 2, 2, 4, 4, 6, 6] and down == list(range(8))
    return f"edges of the first 8 bins: printed {codes}, floor {down}"


@checks("C32")
def decode() -> str:
    """4-bit codes decoded at the middle of their bins, and at the lower edge."""
    u = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codes = quantize_midrise(u, 0.0, 1.0, 4)
    middle = (dequantize_midrise(codes, 0.0, 1.0, 4) - u).square().mean().item()
    edge = (codes.double() / 16 - u).square().mean().item()
    assert 3.9 < edge / middle < 4.1
    return f"without the half in the decoder the squared error is {edge / middle:.1f} times larger"


@checks("C33")
def code_outside_the_range() -> str:
    """The printed codes of −1.2 and 1.3 when the range is ±1."""
    outside = torch.tensor([-1.2, 1.3], dtype=torch.float64)
    codes = printed_codes(outside, -1.0, 1.0, 8).long()
    assert codes.min() < 0 and codes.max() > 255
    return (
        f"−1.2 and 1.3 get the codes {codes.tolist()}, in a byte {codes.to(torch.uint8).tolist()}"
    )


@checks("C34")
def code_zero() -> str:
    """What zero becomes on [−1, 1] at 8 bits."""
    zero = torch.zeros(1, dtype=torch.float64)
    decoded = dequantize_midrise(quantize_midrise(zero, -1.0, 1.0, 8), -1.0, 1.0, 8).item()
    exact = affine(np.array([-1.0, 0.0, 1.0]), 8)[1]
    assert decoded != 0 == exact
    return f"zero is decoded to {decoded:.4f}; with an integer zero-point to {exact:.0f}"


@checks("C41")
def count_after_quantization() -> str:
    """Parameters and bits before and after rounding to int8."""
    w = normal(100, 100).astype(np.float32)
    codes = np.round(w / np.abs(w).max() * 127).astype(np.int8)
    assert codes.size == w.size
    return (
        f"{w.size:,} parameters stay {codes.size:,}; {8 * w.nbytes:,} bits become "
        f"{8 * codes.nbytes:,}"
    )


@checks("C47")
def compare_symmetric_and_asymmetric() -> str:
    """Ratio of the two errors on data around zero and on one-sided data."""
    w, x = normal(20_000), _relu_outputs()
    centred = mse(symmetric(w, 8), w) / mse(affine(w, 8), w)
    one_sided = mse(symmetric(x, 4), x) / mse(affine(x, 4), x)
    assert 0.7 < centred < 1.4 and one_sided > 3
    return (
        f"error of symmetric by asymmetric: {centred:.1f} around zero, {one_sided:.1f} on one side"
    )


@checks("C91")
def quantize_without_integers() -> str:
    """float16 halves the bytes and rounds, with no integer in sight."""
    w = normal(1000).astype(np.float32)
    halves = w.astype(np.float16)
    worst = np.max(np.abs(halves - w) / np.abs(w))
    assert halves.nbytes * 2 == w.nbytes and 0 < worst <= 2**-11
    return f"float16: half the bytes, relative error up to {worst:.5f}, and no integers"


@checks("C96")
def overflow_a_byte() -> str:
    """round(256·W) of 10,000 uniform random numbers from 0 to 1."""
    w = np.random.default_rng(0).random(10_000)
    codes = np.round(256 * w).astype(np.int64)
    overflowing = codes == 256
    wrapped = codes.astype(np.uint8)[overflowing]
    assert overflowing.any() and not wrapped.any() and w[overflowing].min() > 0.998
    return f"{overflowing.sum()} of 10,000 weights, all above 0.998, become 0"


@checks("C97")
def decode_instead_of_shape() -> str:
    """Shape and error of two codings; only the error tells them apart."""
    w = np.random.default_rng(0).random(10_000)
    printed = np.round(256 * w).astype(np.int64).astype(np.uint8)
    repaired = np.round(255 * w).astype(np.uint8)
    errors = mse(printed / 256, w), mse(repaired / 255, w)
    assert printed.shape == repaired.shape and errors[0] > 100 * errors[1]
    return f"equal shapes; squared error {errors[0]:.1e} as printed, {errors[1]:.1e} with 255 steps"
