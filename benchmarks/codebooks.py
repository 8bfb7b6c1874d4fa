"""Codebooks and floats of few bits: this library beside ckwrap, scikit-learn and PyTorch.

    OMP_NUM_THREADS=1 python -m benchmarks.codebooks            times: kmeans, codes and floats
    OMP_NUM_THREADS=1 python -m benchmarks.codebooks decibels   of normal numbers and TinyLM
    OMP_NUM_THREADS=1 python -m benchmarks.codebooks tiny       TinyLM's loss and bits, by format
    OMP_NUM_THREADS=1 python -m benchmarks.codebooks nf4        is NF4's table the best of its kind?

ckwrap (Ckmeans.1d.dp, Wang and Song) is none of the course's packages: `pip install ckwrap` first,
or its rows are left out. Times are CPU seconds of one thread, the median; the sides take turns.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from benchmarks.measuring import cpu_seconds, report, run_tables
from course_lib.formats.codebook import NF4, Codebook, FixedLevels
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import every_linear, pack_model, pack_tensors, unpack_tensors
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.pretrained import tiny
from course_lib.quantization.block_floats import decode_mx, encode_mx
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.codebook import (
    absmax,
    logarithmic_levels,
    lookup,
    midpoints,
    nearest_codes,
    rms,
)
from course_lib.quantization.floats import E2M1, E4M3, E5M2, encode
from course_lib.quantization.kmeans import kmeans, squared_error, start_levels
from course_lib.quantization.linear import Format
from course_lib.quantization.lloyd_max import normal_levels
from course_lib.quantization.normal_float import normal_float
from course_lib.quantization.optimal_kmeans import optimal_levels

# ---------------------------------------------------------------- times


def kmeans_table(count: int = 1_500_000, k: int = 16) -> None:
    """The best codebook of 1.5 million weights, Student-t(5) · 0.02, and the codes."""
    torch.manual_seed(0)
    rows = torch.distributions.StudentT(5.0).sample((1, count)) * 0.02
    numbers = rows[0].double().numpy()
    start = start_levels(rows, k, "density")
    sides: dict[str, Callable] = {
        "course_lib, exact": lambda: nearest_codes(rows, optimal_levels(rows, k))
    }
    errors = [squared_error(rows, optimal_levels(rows, k)).item()]
    try:
        from ckwrap import ckmeans
    except ImportError:
        print("no ckwrap here")
    else:
        sides["ckwrap, exact"] = lambda: ckmeans(numbers, k)
        errors.append(ckmeans(numbers, k).withinss.sum())
    title, error = f"{count:,} weights, {k} levels", {"unit": "squared error", "more": False}
    goal = 0.15 if len(sides) > 1 else None
    seconds = cpu_seconds(sides, 3)
    report(title, seconds, goal, method="k-means, exact", quality=errors, **error)

    theirs = KMeans(k, init=start.T.numpy(), n_init=1, max_iter=50, tol=0)
    sides = {
        "course_lib, 50 Lloyd steps": lambda: kmeans(rows, k, "density", steps=50),
        "scikit-learn, 50 Lloyd steps": lambda: theirs.fit(rows.T.numpy()),
    }
    seconds = cpu_seconds(sides, 1)
    errors_by_lloyd = [squared_error(rows, kmeans(rows, k, "density")).item(), theirs.inertia_]
    title = f"{title}, from even quantiles by Lloyd"
    report(title, seconds, 0.5, method="k-means, Lloyd", quality=errors_by_lloyd, **error)
    for name in ("linear", "density", "random"):
        error = squared_error(rows, kmeans(rows, k, name)).item()
        print(f"    {name:10} start: {error / errors[0] - 1:.4%} above the least squared error")


def plain_nf4(rows: Tensor, levels: Tensor) -> Tensor:
    """Scale, divide, and search the nearest of 16 levels: what one writes first."""
    scale = rows.abs().amax(dim=1, keepdim=True)
    return torch.bucketize(rows / scale, midpoints(levels)[0])


def nf4_table(width: int = 4096) -> None:
    """NF4 of 16.8 million weights: a scale for 64, and the codes."""
    torch.manual_seed(0)
    rows, levels = torch.randn(width * width // 64, 64) * 0.02, normal_float()
    sides = {
        "course_lib": lambda: nearest_codes(rows, levels, absmax(rows)),
        "plain search": lambda: plain_nf4(rows, levels),
    }
    differ = int((sides["course_lib"]() != sides["plain search"]()).sum())
    both = [lookup(side(), levels, absmax(rows)) for side in sides.values()]
    told = {"quality": [decibel([rows], [values]) for values in both], "unit": "dB"}
    del both
    title = f"NF4 of {width * width:,} weights: {differ} codes differ"
    report(title, cpu_seconds(sides), 0.5, method="NF4, codes", **told)
    codes = sides["course_lib"]()
    scale = absmax(rows)
    sides = {
        "course_lib": lambda: lookup(codes, levels, scale),
        "levels[codes] * scale": lambda: levels[0][codes.long()] * scale,
    }
    differ = int((sides["course_lib"]() != sides["levels[codes] * scale"]()).sum())
    same = {"quality": (differ, 0), "unit": "values differ", "more": False}
    title = f"NF4 of {width * width:,} weights, from codes to values"
    report(title, cpu_seconds(sides), 1.0, method="NF4, values", **same)


def float_table(count: int = 2**24) -> None:
    """Floats of few bits: codes of 16.8 million numbers."""
    torch.manual_seed(0)
    x = torch.randn(count)
    rows = x.view(-1, 32)
    pairs = {"E4M3": (E4M3, torch.float8_e4m3fn), "E5M2": (E5M2, torch.float8_e5m2)}
    for name, (format, dtype) in pairs.items():
        sides = {"course_lib": lambda f=format: encode(x, f), "torch": lambda d=dtype: x.to(d)}
        seconds = cpu_seconds(sides, 5)
        share = seconds["course_lib"] / seconds["torch"]
        print(f"{name}, any format by one formula: {share:.0f} times torch's time for its one")
    sides = {
        "course_lib": lambda: decode_mx(*encode_mx(rows)),
        "nearest level, by search": lambda: plain_mx(rows),
    }
    differ = int((decode_mx(*encode_mx(rows)) != plain_mx(rows)).sum())
    told = {"quality": [decibel([rows], [side()]) for side in sides.values()], "unit": "dB"}
    title = f"MXFP4 of {count:,} numbers and back: {differ} ties fall to the other side"
    report(title, cpu_seconds(sides, 5), 1.0, method="MXFP4", **told)


def plain_mx(rows: Tensor) -> Tensor:
    """MXFP4 by floor, log2 and a search; ties go down, which random numbers do not meet."""
    scale = torch.exp2(rows.abs().amax(dim=1, keepdim=True).log2().floor() - 2)
    levels = torch.cat([-E2M1.levels[1:].flip(0), E2M1.levels])
    return levels[torch.bucketize(rows / scale, midpoints(levels[None])[0])] * scale


# ---------------------------------------------------------------- quality


def power_levels(bits: int) -> tuple[float, ...]:
    """The logarithmic levels as a tuple."""
    return tuple(logarithmic_levels(bits)[0].tolist())


def schemes() -> dict[str, object]:
    """Name -> scheme, by bits."""
    found: dict[str, object] = {}
    for bits in (2, 3, 4):
        even = Format(bits, symmetric=True)
        top = max(normal_levels(bits))
        shrunk = tuple(level / top for level in normal_levels(bits))
        found |= {
            f"{bits} even, row, absmax": Scheme(even, "channel"),
            f"{bits} even, row, MSE": Scheme(even, "channel", mse_range),
            f"{bits} even affine, row, MSE": Scheme(Format(bits), "channel", mse_range),
            f"{bits} even, groups of 64": Scheme(even, 64),
            f"{bits} even, groups of 32": Scheme(even, 32),
            f"{bits} k-means, tensor": Codebook(bits),
            f"{bits} k-means, row, Lloyd": Codebook(bits, "channel", density_start),
            f"{bits} k-means, row, exact": Codebook(bits, "channel"),
            f"{bits} Lloyd–Max normal, row, absmax": FixedLevels(shrunk, "channel"),
            f"{bits} Lloyd–Max normal, row, rms": FixedLevels(normal_levels(bits), "channel", rms),
            f"{bits} logarithmic, row, absmax": FixedLevels(power_levels(bits), "channel"),
            f"{bits} normal float, groups of 64, scales doubly": FixedLevels(
                tuple(normal_float(bits)[0].tolist()), 64, double=True
            ),
        }
    return found | {
        "4 NF4 with float16 scales": FixedLevels(NF4.levels, 64),
        "4 FP4, row": FewBits(E2M1),
        "4 FP4, tensor": FewBits(E2M1, "tensor"),
        "4 FP4, groups of 32": FewBits(E2M1, 32),
        "4 MXFP4": MX(),
        "4 NVFP4": NVFP4(),
        "8 FP8 E4M3, row": FewBits(E4M3),
        "8 FP8 E5M2, row": FewBits(E5M2),
        "8 even, row, absmax": Scheme(Format(8, symmetric=True), "channel"),
    }


def density_start(rows: Tensor, k: int) -> Tensor:
    """k-means of each row from even quantiles."""
    return kmeans(rows, k, "density")


def there_and_back(weight: Tensor, scheme: object) -> tuple[Tensor, float]:
    """The weight that a file gives back, and the bits of a weight in it, header left out."""
    packed = pack_tensors({"w": weight}, {"w": scheme})
    bits = 8 * sum(part.nbytes for part in packed.values()) / weight.numel()
    return unpack_tensors(packed, {"w": weight})["w"], bits


def decibel(weights: list[Tensor], values: list[Tensor]) -> float:
    """10 log₁₀ Σ x² / Σ (x − x̂)² over several weights."""
    pairs = list(zip(weights, values, strict=True))
    error = sum((v.double() - w.double()).square().sum() for w, v in pairs)
    return 10 * (sum(w.double().square().sum() for w, _ in pairs) / error).log10().item()


def decibel_table() -> None:
    """Decibels and bits of each scheme, on normal numbers (1024 × 1024) and TinyLM's matrices."""
    torch.manual_seed(0)
    model, _ = tiny()
    weights = [p.detach() for n, p in model.named_parameters() if n in every_linear(model, NF4)]
    gauss = torch.randn(1024, 1024)
    print(f"{'':46} normal dB   bits    TinyLM dB   bits")
    for name, scheme in schemes().items():
        value, bits = there_and_back(gauss, scheme)
        line = f"{name:46} {decibel([gauss], [value]):8.2f} {bits:8.3f}"
        both = [there_and_back(weight, scheme) for weight in weights]
        count = sum(weight.numel() for weight in weights)
        bits = sum(b * w.numel() for (_, b), w in zip(both, weights, strict=True)) / count
        print(f"{line}   {decibel(weights, [v for v, _ in both]):8.2f} {bits:8.3f}", flush=True)


def tiny_table() -> None:
    """TinyLM's bits per byte, its linear layers quantized and its embedding in 8 bits a row."""
    model, tokenizer = tiny()
    print(f"{'dense':46} {tiny_quality(model, tokenizer).bits_per_byte:.4f}", flush=True)
    embedding = {"embedding.weight": Scheme(Format(8, symmetric=True), "channel")}
    packed = pack_model(model, embedding)
    like = model.state_dict()
    base = unpack_tensors(packed, like)
    for name, scheme in {"(embedding alone)": None, **schemes()}.items():
        chosen = every_linear(model, scheme) if scheme else {}
        packed = pack_model(model, chosen)
        parts = [t for key, t in packed.items() if key.partition(":")[0] in chosen]
        count = sum(like[n].numel() for n in chosen) or 1
        bits = 8 * sum(part.nbytes for part in parts) / count
        changed = deepcopy(model)
        values = unpack_tensors(packed, like)
        changed.load_state_dict({n: values[n] if n in chosen else base[n] for n in like})
        loss = tiny_quality(changed, tokenizer).bits_per_byte
        print(f"{name:46} {loss:.4f}  {bits:.3f} bits", flush=True)


def nf4_check() -> None:
    """Blocks of 64 normal numbers over their largest: NF4 beside the best tables of 16 levels."""
    torch.manual_seed(0)
    fit, test = (torch.randn(2**16, 64) for _ in range(2))
    unit = [rows / absmax(rows) for rows in (fit, test)]
    flat, weight = unit[0].view(1, -1), absmax(fit).square().expand_as(fit).reshape(1, -1)
    inner = flat[flat.abs() < 1][None]
    tables = {
        "NF4": normal_float(),
        "best for x / largest": optimal_levels(flat, 16),
        "best for x (each weighed by its block's scale²)": optimal_levels(flat, 16, weight),
        "the same, with −1, 0 and 1 kept": with_ends_and_zero(flat, weight),
        "even, 15": torch.linspace(-1, 1, 15)[None],
        "FP4": torch.cat([-E2M1.levels[1:].flip(0), E2M1.levels])[None] / 6,
    }
    print(f"{inner.shape[1] / flat.shape[1]:.4f} of the numbers are not their block's largest")
    for name, levels in tables.items():
        value = lookup(nearest_codes(test, levels, absmax(test)), levels, absmax(test))
        share = lookup(nearest_codes(unit[1], levels), levels) - unit[1]
        print(f"{name:50} {decibel([test], [value]):.3f} dB  {share.square().mean():.6f}")
        if levels.shape[1] == 16:
            print("    ", [round(level, 4) for level in levels[0].tolist()])


def with_ends_and_zero(flat: Tensor, weight: Tensor) -> Tensor:
    """Lloyd steps from NF4 in which −1, 0 and 1 stay where they are."""
    levels = normal_float()
    fixed = (levels.abs() == 1) | (levels == 0)
    for _ in range(200):
        codes = nearest_codes(flat, levels)[0].long()
        total = torch.zeros(16, dtype=torch.float64).index_add(0, codes, weight[0].double())
        first = torch.zeros(16, dtype=torch.float64).index_add(
            0, codes, (weight * flat)[0].double()
        )
        levels = torch.where(fixed, levels, (first / total).float())
    return levels


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {
        "kmeans": kmeans_table,
        "codes": nf4_table,
        "floats": float_table,
        "decibels": decibel_table,
        "tiny": tiny_table,
        "nf4": nf4_check,
    }
    run_tables(tables, ("kmeans", "codes", "floats"))
