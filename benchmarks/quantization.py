"""Quantization: this library beside PyTorch, torchao, NumPy and re-stated published procedures.

    OMP_NUM_THREADS=1 python -m benchmarks.quantization             the first five tables
    OMP_NUM_THREADS=1 python -m benchmarks.quantization smollm2     10 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.quantization kernels

05_linear_quantization quotes the second, SmolLM2's table, and the third, the times of PyTorch's
kernels for 8 and 4 bits. The other tables by name: codes, activations, packing, memory, search,
and hqq, which needs `pip install hqq`.

The weight is 4096 × 4096: Student-t numbers of 5 degrees of freedom times 0.02, each row with a
log-normal gain. Times are CPU seconds of one thread, the median; the sides take turns.
Quality is the signal-to-error ratio 10 log₁₀ Σ x² / Σ (x − x̂)² in dB. Extra memory is the growth of
a fresh process's peak during one call, as a multiple of the weight.
"""

import warnings
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor
from torch.ao.quantization import HistogramObserver, PerChannelMinMaxObserver

from benchmarks.measuring import (
    QUICK,
    cpu_seconds,
    decibels,
    extra_bytes,
    in_a_fresh_process,
    report,
    run_tables,
)
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.formats.packing import pack, unpack
from course_lib.measure.size import size
from course_lib.measure.yardstick import smollm2_quality
from course_lib.models import pretrained
from course_lib.quantization.calibration import minmax_range, mse_range, percentile_range
from course_lib.quantization.histogram import histogram
from course_lib.quantization.linear import Format, Grid, dequantize, fit_grid, quantize
from course_lib.quantization.rows import to_rows

INT8, INT4, GROUP = Format(8, symmetric=True), Format(4), 128
WIDTH = 4096
WITHIN = 0.02  # dB that a range of activations may be behind the peer's
NEAR = 1e-6  # percentiles nearer than this, as a share, are equal but for rounding


def heavy_tailed(R: int = WIDTH, C: int = WIDTH) -> Tensor:
    """Student-t(5) · 0.02, with log-normal gains of the rows."""
    torch.manual_seed(0)
    gains = torch.randn(R, 1).mul(0.3).exp()
    return torch.distributions.StudentT(5.0).sample((R, C)) * 0.02 * gains


# ---------------------------------------------------------------- codes and values


def int8_ours(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and values of int8 per channel, by this library."""
    rows = to_rows(weight, "channel")
    grid = fit_grid(*minmax_range(rows), INT8)
    codes = quantize(rows, grid)
    return codes, dequantize(codes, grid)


def torch_parameters(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and zero-points of torch's observer, on the restricted range."""
    observer = PerChannelMinMaxObserver(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127
    )
    observer(weight)
    return observer.calculate_qparams()


def int8_torch(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torch: observer, quantize_per_channel, dequantize."""
    scale, zero_point = torch_parameters(weight)
    stored = torch.quantize_per_channel(weight, scale, zero_point, 0, torch.qint8)
    return stored.int_repr(), stored.dequantize()


def int8_fake(weight: Tensor) -> Tensor:
    """Values alone, by torch: observer, fake_quantize_per_channel_affine."""
    scale, zero_point = torch_parameters(weight)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point.int(), 0, -127, 127)


def int4_ours(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and values of int4 in groups of 128, by this library."""
    rows = to_rows(weight, GROUP)
    grid = fit_grid(*minmax_range(rows), INT4)
    codes = quantize(rows, grid)
    return codes.view_as(weight), dequantize(codes, grid).view_as(weight)


def int4_torchao(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torchao's primitives."""
    from torchao.quantization import quant_primitives as ao

    block = (1, GROUP)
    scale, zero = ao.choose_qparams_affine(
        weight, ao.MappingType.ASYMMETRIC, block, torch.uint8, quant_min=0, quant_max=15
    )
    codes = ao.quantize_affine(weight, block, scale, zero, torch.uint8, 0, 15)
    return codes, ao.dequantize_affine(codes, block, scale, zero, torch.uint8, 0, 15)


def codes_tables() -> None:
    """Int8 per channel and int4 in groups: times, codes, quality."""
    weight = heavy_tailed()
    tables = [
        ("int8 per channel", {"course_lib": int8_ours, "torch, quantize and dequantize": int8_torch,
                              "torch, fake_quantize (no codes)": int8_fake}, 0.45),
        ("int4, groups of 128", {"course_lib": int4_ours, "torchao": int4_torchao}, 0.4),
    ]  # fmt: skip
    for title, sides, goal in tables:
        ours, peer = [f(weight) for f in sides.values()][:2]
        differ = int((ours[0] != peer[0]).sum())
        quality = [decibels(weight, values) for _, values in (ours, peer)]
        del ours, peer
        memory = [in_a_fresh_process(extra_memory, f) for f in list(sides.values())[:2]]
        seconds = cpu_seconds({name: lambda f=f: f(weight) for name, f in sides.items()})
        report(
            f"{WIDTH}², {title}: {differ} codes differ",
            seconds,
            goal,
            method=title,
            quality=quality,
            unit="dB",
            memory=memory,
        )


# ---------------------------------------------------------------- the search of a range


def gptq_grid(rows: Tensor, format: Format) -> Grid:
    """The range search in the GPTQ authors' published code, re-stated from its description.

    79 shares of the range below the whole, a hundredth apart, are tried on all rows at once. The
    error is Σ |x − x̂|^2.4, and a row keeps the scale and zero-point that did best.
    """
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    best = torch.full_like(low, torch.inf)
    scale, zero = torch.ones_like(low), torch.zeros_like(low)
    for i in range(80):
        share = 1 - i / 100
        trial_scale = (share * high - share * low) / format.highest
        trial_zero = torch.round(-share * low / trial_scale)
        s, z = trial_scale[:, None], trial_zero[:, None]
        values = s * (torch.clamp(torch.round(rows / s) + z, 0, format.highest) - z)
        values -= rows
        error = values.abs_().pow_(2.4).sum(1)
        better = error < best
        best[better] = error[better]
        scale[better], zero[better] = trial_scale[better], trial_zero[better]
    return Grid(scale[:, None], zero[:, None].to(torch.int32), format)


def search_ours(rows: Tensor) -> Grid:
    """The grid with the least squared error over 80 shares, by this library."""
    return fit_grid(*mse_range(rows, INT4), INT4)


def search_tables(outputs: int = WIDTH // (64 if QUICK else 4), repeats: int = 3) -> None:
    """Int4 by MSE, in groups and per channel, on a quarter of the weight: the peer is slow."""
    weight = heavy_tailed()[:outputs].clone()
    for granularity in (GROUP, "channel"):
        rows = to_rows(weight, granularity)
        sides = {"course_lib": search_ours, "GPTQ's search": lambda rows: gptq_grid(rows, INT4)}
        quality = [
            decibels(rows, dequantize(quantize(rows, grid), grid))
            for grid in (search(rows) for search in sides.values())
        ]
        calls = {name: lambda f=f, rows=rows: f(rows) for name, f in sides.items()}
        title = f"MSE range of {outputs} × {WIDTH}, int4, {granularity}"
        told = {"method": f"MSE clip, {granularity}", "quality": quality, "unit": "dB"}
        report(title, cpu_seconds(calls, repeats), 0.1, **told)


def clipped(weight: Tensor) -> Tensor:
    """Values of int4 in groups of 128, each clipped where the squared error is least."""
    rows = to_rows(weight, GROUP)
    grid = search_ours(rows)
    return dequantize(quantize(rows, grid), grid).view_as(weight)


def hqq_table(outputs: int = WIDTH // (16 if QUICK else 1)) -> None:
    """Int4 in groups of 128, the best of each: a searched clip beside hqq's zero-points."""
    from hqq.core.quantize import Quantizer

    def hqq(weight: Tensor) -> Tensor:
        options = {"nbits": 4, "group_size": GROUP, "optimize": True, "axis": 1, "device": "cpu"}
        options["compute_dtype"] = torch.float32
        return Quantizer.dequantize(*Quantizer.quantize(weight, **options)).float()

    weight = heavy_tailed()[:outputs].clone()
    sides = {"course_lib, MSE clip": clipped, "hqq, optimized": hqq}
    quality = [decibels(weight, side(weight)) for side in sides.values()]
    seconds = cpu_seconds({name: lambda f=f: f(weight) for name, f in sides.items()}, 3)
    told = {"method": "int4, groups of 128, clipped", "quality": quality, "unit": "dB"}
    report(f"{outputs} × {WIDTH}, there and back", seconds, 0.2, **told)


# ---------------------------------------------------------------- activations


def observed(x: Tensor) -> Grid:
    """One grid for all of x, by torch's HistogramObserver, 8 bits."""
    observer = HistogramObserver(dtype=torch.quint8)
    observer(x)
    scale, zero_point = observer.calculate_qparams()
    return Grid(scale[:, None], zero_point.to(torch.int32)[:, None], Format(8))


def searched(x: Tensor) -> Grid:
    """The same by this library: a histogram, and the MSE range of its bins."""
    centres, counts = histogram(x)
    return fit_grid(*mse_range(centres, Format(8), counts), Format(8))


def activation_tables() -> None:
    """The MSE range of 2048 tokens of 4096 numbers, some channels loud; and its percentiles."""
    torch.manual_seed(1)
    x = torch.randn(2048, WIDTH) * torch.randn(WIDTH).mul(1.2).exp()
    flat = to_rows(x, "tensor")
    sides = {"course_lib": searched, "HistogramObserver": observed}
    minmax, *quality = [
        decibels(flat, dequantize(quantize(flat, grid), grid))
        for grid in (fit_grid(*minmax_range(flat), Format(8)), *(f(x) for f in sides.values()))
    ]
    seconds = cpu_seconds({name: lambda f=f: f(x) for name, f in sides.items()})
    title = f"MSE range of activations, 2048 × {WIDTH}; min–max would be {minmax:.3f} dB"
    near = WITHIN / quality[1]
    told = {"method": "MSE range of activations", "quality": quality, "unit": "dB", "equal": near}
    report(title, seconds, 1.0, **told)

    ours, peer = torch.cat(percentile_range(flat)).flatten(), np.percentile(x, [0.1, 99.9])
    calls = {
        "course_lib": lambda: percentile_range(flat),
        "numpy.percentile": lambda: np.percentile(flat.numpy(), [0.1, 99.9]),
    }
    gap = np.abs(ours.numpy() - peer).max() / np.abs(peer).max()
    title = f"percentiles 0.1 and 99.9 of 2048 × {WIDTH}, apart by {gap:.0e}"
    same = {"quality": (float(gap > NEAR), 0), "unit": "differ", "more": False}
    report(title, cpu_seconds(calls), 0.5, method="percentiles", **same)


# ---------------------------------------------------------------- packing


def pack_halves(codes: Tensor) -> Tensor:
    """Two codes a byte, as hqq does: the first half of the rows above, the second below."""
    half = len(codes) // 2
    return (codes[:half] << 4) | codes[half:]


def unpack_halves(packed: Tensor) -> Tensor:
    """What `pack_halves` packed."""
    half = len(packed)
    codes = torch.empty((2 * half, *packed.shape[1:]), dtype=torch.uint8)
    codes[:half] = (packed & 0xF0) >> 4
    codes[half:] = packed & 0x0F
    return codes


def pack_loop(codes: Tensor) -> Tensor:
    """Two codes a byte, as quanto does: zeros, then each part moved into place."""
    half = len(codes) // 2
    packed = torch.zeros((half, *codes.shape[1:]), dtype=torch.uint8)
    for k in range(2):
        packed |= codes[k * half : (k + 1) * half] << (4 * k)
    return packed


def unpack_loop(packed: Tensor) -> Tensor:
    """What `pack_loop` packed."""
    return torch.cat([(packed & (15 << (4 * k))) >> (4 * k) for k in range(2)])


def packing_table() -> None:
    """Pack and unpack 16.8 million codes of 4 bits."""
    torch.manual_seed(2)
    codes = torch.randint(16, (WIDTH, WIDTH), dtype=torch.uint8)
    sides = {
        "course_lib": lambda: unpack(pack(codes, 4), 4, codes.numel()).view_as(codes),
        "as hqq does": lambda: unpack_halves(pack_halves(codes)),
        "as quanto does": lambda: unpack_loop(pack_loop(codes)),
    }
    assert all(torch.equal(f(), codes) for f in sides.values())
    same = {"quality": (0, 0, 0), "unit": "codes differ", "more": False}
    title = f"pack and unpack {codes.numel():,} codes of 4 bits"
    report(title, cpu_seconds(sides, 11), 1.0, method="pack and unpack", **same)


# ---------------------------------------------------------------- memory


def search_groups(weight: Tensor) -> Grid:
    """The MSE range of a weight in groups."""
    return search_ours(to_rows(weight, GROUP))


def extra_memory(function: Callable) -> int:
    """How many bytes the peak memory grows by while `function` runs."""
    weight = torch.randn(WIDTH, WIDTH)
    function(weight[:2].clone())  # loads what is loaded once
    return extra_bytes(function, weight)


def memory_table() -> None:
    """Each function's extra peak memory, its results included, in a process of its own."""
    print("extra peak memory, as a multiple of the weight (goal ≤ 2)")
    functions = [int8_ours, int8_torch, int4_ours, int4_torchao, search_groups, searched, observed]
    for function in functions:
        multiple = in_a_fresh_process(extra_memory, function) / (4 * WIDTH**2)
        print(f"    {function.__name__:44} {multiple:8.2f}")


# ---------------------------------------------------------------- kernels


def kernel_table() -> None:
    """CPU milliseconds of a linear layer of 4096², and each kernel's share of float32's time."""
    torch.manual_seed(0)
    weight = torch.randn(WIDTH, WIDTH)
    codes8 = torch.randint(-127, 128, (WIDTH, WIDTH), dtype=torch.int8)
    codes4 = torch.randint(16, (WIDTH, WIDTH), dtype=torch.int32)
    packed4 = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes4, 8)
    scales8 = torch.ones(WIDTH, dtype=torch.bfloat16)
    scales4 = torch.ones(WIDTH // 64, WIDTH, 2, dtype=torch.bfloat16)  # and zero-points
    for tokens in (1, 64):
        x = torch.randn(tokens, WIDTH)
        half, x8 = x.bfloat16(), x.to(torch.int8)
        sides = {
            "float32": lambda x=x: torch.nn.functional.linear(x, weight),
            "int8 weights, bfloat16 inputs": lambda x=half: torch.ops.aten._weight_int8pack_mm(
                x, codes8, scales8
            ),
            "int4 weights, bfloat16 inputs": lambda x=half: (
                torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed4, 64, scales4)
            ),
            "int8 on both sides": lambda x=x8: torch._int_mm(x, codes8.T),
        }
        seconds = cpu_seconds(sides, 15)
        print(f"4096 × 4096, {tokens} tokens")
        for name, value in seconds.items():
            print(f"    {name:32} {1e3 * value:8.2f} ms  {value / seconds['float32']:.2f}")


# ---------------------------------------------------------------- a language model


def smollm2_table() -> None:
    """SmolLM2's perplexity and file, dense and by bits and sharers of a scale, symmetric min–max.

    The embedding has 8 bits a row in every case, and the norms stay in float32.
    """
    model, tokenizer = pretrained.smollm2()
    print(f"float32              {smollm2_quality(model, tokenizer).perplexity:.2f}", flush=True)
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    changed = deepcopy(model)
    changed.load_state_dict(half)
    perplexity = smollm2_quality(changed, tokenizer).perplexity
    print(f"float16              {perplexity:.2f}  {size(half).bytes:,} bytes", flush=True)
    for bits in (8, 4, 3, 2):
        for share in ("tensor", "channel", 64):
            embedding = {"embedding.weight": Scheme(INT8, "channel")}
            scheme = Scheme(Format(bits, symmetric=True), share)
            tensors = pack_model(model, every_linear(model, scheme) | embedding)
            perplexity = smollm2_quality(unpack_model(tensors, model), tokenizer).perplexity
            count = size(tensors).bytes
            print(f"{bits} bits, {share!s:12} {perplexity:.6g}  {count:,} bytes", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch announces the end of its quantized tensors
    torch.set_num_threads(1)
    tables = {
        "codes": codes_tables,
        "activations": activation_tables,
        "packing": packing_table,
        "memory": memory_table,
        "search": search_tables,
        "hqq": hqq_table,
        "smollm2": smollm2_table,
        "kernels": kernel_table,
    }
    run_tables(tables, ("codes", "activations", "packing", "memory", "search"))
