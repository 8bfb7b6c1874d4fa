"""How near the library comes to what is possible: decibels, bytes a second, growth with size.

    OMP_NUM_THREADS=1 python -m benchmarks.limits                               all three
    OMP_NUM_THREADS=1 python -m benchmarks.limits decibels bandwidth growth     or one of them

Decibels are 10 log₁₀ Σ x² / Σ (x − x̂)². No code of R bits a number does better than Shannon's
bound: 6.02 R for normal numbers; for others it is what their entropy allows at most.
Lloyd–Max levels are the best of 2^R levels that each take R bits.

Bytes a second are those that a function must read and write, over the CPU seconds of its fastest
turn; the share is of the most that anything reached in the same run, a plain copy or a plain read
for example. A matrix in float32 times a vector is such a read itself.

The exponent is the slope of log seconds over log size, four sizes, each twice the one before. That
of the formula holds for large sizes; below, what every call costs makes it smaller.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measuring import QUICK, cpu_seconds, decibels, run_tables
from benchmarks.results import exponent
from course_lib.acceleration.kernels import Int4WeightLinear, Int8WeightLinear
from course_lib.acceleration.packed_model import packed_bytes
from course_lib.data.text import bible_chapters
from course_lib.formats.bits import encode_bits
from course_lib.formats.even_coded import EvenCoded, step_for
from course_lib.formats.linear import Scheme
from course_lib.formats.linear import nearest_codes as even_codes
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.packing import pack, unpack
from course_lib.language_models.gptq import gptq
from course_lib.low_rank.randomized import randomized
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.codebook import lookup, nearest_codes
from course_lib.quantization.histogram import histogram
from course_lib.quantization.kmeans import kmeans
from course_lib.quantization.linear import Format, Grid, dequantize, fit_grid, quantize
from course_lib.quantization.lloyd_max import lloyd_max, normal, student
from course_lib.quantization.optimal_kmeans import optimal_levels
from course_lib.redundancy.minhash import near_duplicates

BITS = (2, 3, 4, 8)
NUMBERS = 2**17 if QUICK else 2**20
LARGE = 2**24 if QUICK else 2**25  # numbers that no cache holds
FREEDOM = 5.0
# For normal numbers, by bits: entropy-coded even levels, Lloyd–Max, even levels. Jayant and Noll,
# 1984, "Digital Coding of Waveforms".
IN_THEORY = {
    2: (10.51, 9.30, 9.25),
    3: (16.53, 14.62, 14.27),
    4: (22.55, 20.22, 19.38),
    8: (46.63, 43.85, 40.57),
}

# ---------------------------------------------------------------- decibels


def student_entropy(freedom: float) -> float:
    """h in bits of Student's t, scaled to variance 1."""
    half = (freedom + 1) / 2
    digamma = [
        float(torch.digamma(torch.tensor(x, dtype=torch.float64))) for x in (half, freedom / 2)
    ]
    beta = math.lgamma(freedom / 2) + math.lgamma(0.5) - math.lgamma(half)
    nats = half * (digamma[0] - digamma[1]) + math.log(freedom) / 2 + beta
    return nats / math.log(2) - math.log2(freedom / (freedom - 2)) / 2


def shannon(bits: float, entropy: float | None = None) -> float:
    """The bound in dB for numbers of variance 1; `entropy` in bits, that of normal ones if None."""
    gauss = math.log2(2 * math.pi * math.e) / 2
    return 20 * math.log10(2) * (bits + gauss - (gauss if entropy is None else entropy))


def even(x: Tensor, bits: int) -> Tensor:
    """Even levels, zero among them, in the range with the least squared error."""
    rows = x.view(1, -1)
    centres, counts = histogram(rows)
    grid = fit_grid(*mse_range(centres, Format(bits), counts), Format(bits))
    return dequantize(quantize(rows, grid), grid)


def best_levels(x: Tensor, bits: int, density: Callable[[Tensor], Tensor]) -> Tensor:
    """Lloyd and Max's levels for the density."""
    levels = lloyd_max(density, 2**bits)
    return lookup(nearest_codes(x.view(1, -1), levels), levels)


def coded(x: Tensor, bits: int) -> Tensor:
    """Even levels under Huffman's code, what its file gives back; no more than the bits."""
    packed = pack_tensors({"x": x}, {"x": EvenCoded(step_for([x], bits))})
    return unpack_tensors(packed, {"x": x})["x"]


def decibel_table() -> None:
    """Three ways to spend R bits a number, beside the bound and what theory says of each."""
    generator = torch.Generator().manual_seed(0)
    gauss = torch.randn(NUMBERS, generator=generator)
    chi = torch.randn(5, NUMBERS, generator=generator).square().sum(0)
    heavy = torch.randn(NUMBERS, generator=generator) * ((FREEDOM - 2) / chi).sqrt()
    entropy = student_entropy(FREEDOM)
    print(f"{NUMBERS:,} numbers, dB; in brackets what theory says of endless many")
    print(f"{'':22}  Shannon   even, coded       Lloyd–Max         even, best range")
    for bits in BITS:
        found = [coded(gauss, bits), best_levels(gauss, bits, normal), even(gauss, bits)]
        cells = [
            f"{decibels(gauss, values):6.2f} ({theory:5.2f})"
            for values, theory in zip(found, IN_THEORY[bits], strict=True)
        ]
        print(f"normal, {bits} bits{'':8} {shannon(bits):8.2f}   " + "    ".join(cells), flush=True)
    for bits in BITS:
        found = [coded(heavy, bits), best_levels(heavy, bits, student(FREEDOM)), even(heavy, bits)]
        cells = [f"{decibels(heavy, values):6.2f}{'':8}" for values in found]
        bound = shannon(bits, entropy)
        print(f"Student-t(5), {bits} bits  ≤{bound:7.2f}   " + "    ".join(cells), flush=True)


# ---------------------------------------------------------------- bytes a second


def bandwidth_table() -> None:
    """What moves many bytes, beside a plain read and a plain copy."""
    x = torch.randn(LARGE)
    for plain, moves in (("copying", streams(x)), ("reading", products(x))):
        rates = gigabytes(moves)
        limit = max(rates.values())
        print(f"{f'{plain}, the fastest seen':40} {limit:6.2f} GB/s")
        for name, rate in rates.items():
            print(f"    {name:36} {rate:6.2f}        {rate / limit:.2f} of it", flush=True)


Move = tuple[Callable[[], object], int]  # the call, and its bytes


def gigabytes(moves: dict[str, Move], turns: int = 7) -> dict[str, float]:
    """10⁹ bytes a second of each, in its fastest turn; each drives the others out of the caches."""
    calls = {name: call for name, (call, _) in moves.items()}
    cpu_seconds(calls, 1)
    seconds = cpu_seconds(calls, turns)
    return {name: count / min(seconds[name].turns) / 1e9 for name, (_, count) in moves.items()}


def streams(x: Tensor) -> dict[str, Move]:
    """What reads numbers and writes others: the bytes of both count."""
    out = torch.empty_like(x)
    rows = x.view(-1, 4096)
    grid = fit_grid(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), Format(8))
    codes = quantize(rows, grid)
    fours = codes.flatten() & 15
    packed = pack(fours, 4)
    both = x.nbytes + codes.nbytes
    return {
        "a plain copy": (lambda: out.copy_(x), 2 * x.nbytes),
        "quantize to 8 bits, a grid for a row": (lambda: quantize(rows, grid), both),
        "dequantize": (lambda: dequantize(codes, grid), both),
        "pack 4 bits": (lambda: pack(fours, 4), fours.nbytes + packed.nbytes),
        "unpack 4 bits": (
            lambda: unpack(packed, 4, fours.numel()), fours.nbytes + packed.nbytes
        ),
    }  # fmt: skip


def products(x: Tensor, side: int = 4096) -> dict[str, Move]:
    """A matrix times one vector: the bytes of the matrix count."""
    torch.manual_seed(0)
    weight, vector = torch.randn(side, side), torch.randn(1, side)
    eight = Int8WeightLinear(even_codes(weight, Scheme(Format(8, symmetric=True), "channel")))
    four = Int4WeightLinear(even_codes(weight, Scheme(Format(4), 64)))
    return {
        "a plain read": (lambda: x.view(-1, side) @ vector[0], x.nbytes),
        "matrix × vector, float32": (lambda: F.linear(vector, weight), weight.nbytes),
        "matrix × vector, 8-bit weights": (lambda: eight(vector), packed_bytes(eight)),
        "matrix × vector, 4-bit weights": (lambda: four(vector), packed_bytes(four)),
    }


# ---------------------------------------------------------------- growth

Maker = Callable[[int], Callable[[], object]]


def normal_rows(count: int) -> Tensor:
    """(count / 128, 128) normal numbers."""
    return torch.randn(count // 128, 128, generator=torch.Generator().manual_seed(0))


def int4(rows: Tensor) -> Grid:
    """The grid of every row, from end to end."""
    return fit_grid(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), Format(4))


def square_layer(side: int) -> tuple[Tensor, Tensor]:
    """A weight, and the Gram matrix of inputs that hang together."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * side, side, generator=generator)
    x += torch.randn(2 * side, 1, generator=generator)
    return torch.randn(side, side, generator=generator), x.T @ x / len(x)


def texts(count: int, length: int = 46) -> list[str]:
    """Runs of words of the King James Bible."""
    words = " ".join(bible_chapters("kjv")).split()
    return [" ".join(words[i * length : (i + 1) * length]) for i in range(count)]


def _with(make: Callable, call: Callable) -> Maker:
    """For a size, the call on what was made of that size beforehand."""

    def maker(size: int) -> Callable[[], object]:
        made = make(size)
        return lambda: call(made)

    return maker


def growers() -> dict[str, tuple[Maker, int, float]]:
    """Name -> (what to call, its smallest size, the exponent that its formula has)."""
    small = 1 if QUICK else 2
    four = Scheme(Format(4), 128)
    flat = normal_rows
    return {
        "quantize, numbers": (_with(flat, lambda r: quantize(r, int4(r))), small * 2**19, 1),
        "MSE clip, numbers": (_with(flat, lambda r: mse_range(r, Format(4))), small * 2**17, 1),
        "Huffman's code, numbers": (
            _with(flat, lambda r: encode_bits(quantize(r, int4(r)))), small * 2**18, 1
        ),
        "k-means, exact, numbers": (
            _with(flat, lambda r: optimal_levels(r.view(1, -1), 16)), small * 2**15, 1
        ),
        "k-means, 20 Lloyd steps, numbers": (
            _with(flat, lambda r: kmeans(r.view(1, -1), 16, steps=20)), small * 2**17, 1
        ),
        "GPTQ, side of a square": (
            _with(square_layer, lambda made: gptq(*made, four)), small * 128, 3
        ),
        "randomized SVD, side": (
            _with(lambda side: square_layer(side)[0], lambda w: randomized(w, 32)), small * 128, 2
        ),
        "MinHash, documents": (_with(texts, lambda t: near_duplicates(t, 0.7)), small * 500, 1),
    }  # fmt: skip


def growth_table(times: int = 4) -> None:
    """Seconds at four sizes, and the exponent beside that of the formula."""
    print(f"{'CPU seconds at four sizes, each twice the last':52} exponent, of the formula")
    for name, (maker, first, theory) in growers().items():
        sizes = [first * 2**k for k in range(times)]
        calls = {str(size): maker(size) for size in sizes}
        next(iter(calls.values()))()  # loads what is loaded once
        seconds = list(cpu_seconds(calls, 3).values())
        found = exponent([float(size) for size in sizes], seconds)
        shown = " ".join(f"{value:8.4f}" for value in seconds)
        print(f"{name + f', from {first:,}':46} {shown}  {found:5.2f}  {theory}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {"decibels": decibel_table, "bandwidth": bandwidth_table, "growth": growth_table}
    run_tables(tables, tuple(tables))
