"""What chapter 06 claims of one layer, one sample and one network, on all of them.

    OMP_NUM_THREADS=1 python -m benchmarks.coding_controls layers   decibels, TinyLM's 28 matrices
    OMP_NUM_THREADS=1 python -m benchmarks.coding_controls clever   levels made for the code
    OMP_NUM_THREADS=1 python -m benchmarks.coding_controls text     losses on all 59 chapters
    OMP_NUM_THREADS=1 python -m benchmarks.coding_controls digits   small dense networks, five seeds

Decibels are 10 log₁₀ Σ x² / Σ (x − x̂)². A difference of two losses is paired by chapter; its
standard error is that of the chapters.

Axes: R rows, C numbers in a row, N numbers, k levels.
"""

import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.coding import accuracy
from course_lib.data.images import digits
from course_lib.data.text import bible_chapters, split
from course_lib.deep_compression import (
    Recipe,
    drop_dead_units,
    prune_gradually,
    share_and_retrain,
    teacher_loss,
)
from course_lib.formats.codebook import FixedLevels
from course_lib.formats.entropy import code_entropy
from course_lib.formats.even_coded import EvenCoded, decode_even, encode_even, step_for
from course_lib.formats.model_file import AnyScheme, every_linear, pack_model, unpack_model
from course_lib.formats.shared import Shared
from course_lib.measure.quality import token_losses
from course_lib.measure.size import size
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.models.pretrained import tiny
from course_lib.quantization.codebook import absmax, lookup, nearest_codes, rms
from course_lib.quantization.floats import E2M1, E4M3, decode, encode
from course_lib.quantization.kmeans import lloyd, squared_error, start_levels
from course_lib.quantization.lloyd_max import normal_levels
from course_lib.quantization.optimal_kmeans import optimal_levels
from course_lib.quantization.rows import to_rows
from course_lib.quantization.shared_values import SharedValues


def decibels(changed: Tensor, x: Tensor) -> float:
    return 10 * math.log10(float(x.square().sum() / (changed.double() - x).square().sum()))


def on_levels(rows: Tensor, levels: Tensor, scale: Tensor | None = None) -> float:
    return decibels(lookup(nearest_codes(rows, levels, scale), levels, scale), rows)


def clipped(rows: Tensor, k: int) -> float:
    """k even levels, the best of 40 ends."""
    return max(
        on_levels(rows, float(rows.abs().max()) * end / 40 * torch.linspace(-1, 1, k)[None])
        for end in range(1, 41)
    )


def row_scales(weight: Tensor, k: int) -> float:
    """k even levels in units of each row's rms, the best of 25 ends."""
    ends = torch.linspace(1.2, 3.6, 25)
    return max(on_levels(weight, t * torch.linspace(-1, 1, k)[None], rms(weight)) for t in ends)


def even_coded(rows: Tensor, bits: float) -> float:
    parts = encode_even(rows, EvenCoded(step_for([rows], bits)))
    return decibels(decode_even(parts, rows.shape), rows)


def entropy(codes: Tensor) -> float:
    cells = (codes - codes.min()).long()
    return float(code_entropy(cells, int(cells.max()) + 1))


def above_least(rows: Tensor, least: Tensor, start: str) -> float:
    found = lloyd(rows, start_levels(rows, least.shape[1], start))
    return float(squared_error(rows, found).sum() / squared_error(rows, least).sum() - 1)


def of_matrix(weight: Tensor) -> dict[str, float]:
    """What better levels, a better scale and a better code win on one matrix."""
    rows = weight.reshape(1, -1)  # (O, I) -> (1, O · I)
    best = {bits: optimal_levels(rows, 2**bits) for bits in (2, 3, 4)}
    found = {bits: on_levels(rows, levels) for bits, levels in best.items()}
    even = torch.linspace(float(rows.min()), float(rows.max()), 8)[None]
    four = clipped(rows, 16)
    blocks = to_rows(weight, 16)
    unit = absmax(blocks).max() / 6 / 448
    scales = encode(absmax(blocks) / 6 / unit, E4M3)
    codes = encode(blocks / (decode(scales, E4M3) * unit), E2M1, saturate=True)
    codes = codes.where(codes != 8, 0)  # −0.0 is 0.0
    return {
        "8 levels, k-means over even ones": found[3] - on_levels(rows, even),
        "8 levels, k-means over clipped ones": found[3] - clipped(rows, 8),
        "16 levels, k-means over clipped ones": found[4] - four,
        "16 levels, a scale for each row": row_scales(weight, 16) - four,
        **{
            f"Huffman over the best levels, {bits} bits": even_coded(rows, bits) - value
            for bits, value in found.items()
        },
        "Lloyd above the least, linear, %": 100 * above_least(rows, best[4], "linear"),
        "Lloyd above the least, density, %": 100 * above_least(rows, best[4], "density"),
        "NVFP4, entropy of the codes": entropy(codes),
        "NVFP4, entropy of the scales, a weight": entropy(scales) / 16,
    }


def layers_table() -> None:
    """Smallest, middle and largest of TinyLM's 28 linear layers, and the last `down`."""
    state = tiny()[0].state_dict()
    found = {
        name: of_matrix(state[name].double().float()) for name in every_linear(tiny()[0], None)
    }
    for name in found["blocks.3.mlp.down.weight"]:
        values = [row[name] for row in found.values()]
        last = found["blocks.3.mlp.down.weight"][name]
        line = min(values), statistics.median(values), sorted(values)[-2], max(values), last
        print(f"{name:42}" + "".join(f"{value:8.2f}" for value in line))
    print(f"{'':42}     min  median  second     max    last `down`")


def halved(fits: Callable[[float], bool], low: float, high: float, times: int = 20) -> float:
    """The smallest exponent found that fits; the high one does."""
    for _ in range(times):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def made_for_code(x: Tensor, price: float, rounds: int = 60) -> tuple[Tensor, Tensor]:
    """(cells, levels): Lloyd's method for (x − c)² + price · bits, from even levels."""
    step = math.sqrt(6 * price / math.log(2))
    cells = (x / step).round().long()
    for _ in range(rounds):
        _, cells, counts = cells.unique(return_inverse=True, return_counts=True)
        levels = torch.zeros(len(counts), dtype=x.dtype).index_add(0, cells, x) / counts
        bits = (len(x) / counts).log2()
        apart = levels.diff()
        borders = (levels[1:] + levels[:-1]) / 2 + price * bits.diff() / (2 * apart)
        cells = torch.bucketize(x, borders.cummax(0).values)
    return cells, levels


def of_means(x: Tensor, cells: Tensor) -> float:
    """Decibels if each cell's level is the mean of its numbers."""
    _, cells, counts = cells.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(counts), dtype=x.dtype).index_add(0, cells, x) / counts
    return decibels(means[cells], x)


def clever_row(x: Tensor, bits: int) -> tuple[float, float, float]:
    """Ideal coder, dB: even levels; the means of their cells; levels made for the code."""
    power = float(x.square().mean())
    step = 2.0 ** halved(lambda e: entropy((x / 2.0**e).round()) <= bits, -12.0, 0.0)
    codes = (x / step).round()
    price = power * 2.0 ** halved(
        lambda e: entropy(made_for_code(x, power * 2.0**e)[0]) <= bits, -16.0, 0.0, 12
    )
    made = of_means(x, made_for_code(x, price)[0])
    return decibels(codes * step, x), of_means(x, codes.long()), made


def clever_table() -> None:
    """The last `down` matrix in 2, 3 and 4 bits."""
    x = tiny()[0].blocks[3].mlp.down.weight.detach().flatten().double()
    for bits in (2, 3, 4):
        print(f"{bits} bits: " + "  ".join(f"{value:.2f}" for value in clever_row(x, bits)))


def paired(one: Tensor, other: Tensor, weight: Tensor) -> tuple[float, float]:
    """Mean difference in bits per byte, and its standard error over chapters."""
    difference = one - other
    mean = float(difference.sum() / weight.sum())
    left, n = difference - mean * weight, len(weight)
    return mean, float((left.square().sum() * n / (n - 1)).sqrt() / weight.sum())


def text_schemes(matrices: dict[str, Tensor]) -> dict[str, dict[str, AnyScheme]]:
    """The forms that chapter 06 compares in loss by a few thousandths."""
    table = torch.tensor(normal_levels(3))
    ends = table / table.max()

    def fixed(levels: Tensor, group: str | int, unit: Callable) -> dict[str, AnyScheme]:
        return dict.fromkeys(matrices, FixedLevels(tuple(levels.tolist()), group, unit))

    def one_step(bits: float) -> dict[str, AnyScheme]:
        return dict.fromkeys(matrices, EvenCoded(step_for(list(matrices.values()), bits)))

    own = {
        bits: {name: EvenCoded(step_for([w], bits)) for name, w in matrices.items()}
        for bits in (2, 3, 4)
    }
    down = {name: scheme for name, scheme in own[3].items() if "down" in name}
    return {
        "row, absmax": fixed(ends, "channel", absmax),
        "row, absmax, best factor": fixed(0.65 * ends, "channel", absmax),
        "row, rms": fixed(table, "channel", rms),
        "64, absmax, best factor": fixed(0.825 * ends, 64, absmax),
        "64, rms": fixed(table, 64, rms),
        **{f"own steps, {bits}": scheme for bits, scheme in own.items()},
        **{f"one step, {bits}": one_step(bits) for bits in (2, 3, 4, 3.11)},
        "one step, 3, `down` its own beside it": one_step(3) | down,
    }


PAIRS = (
    ("row, absmax", "row, rms"),
    ("row, absmax, best factor", "row, rms"),
    ("64, absmax, best factor", "64, rms"),
    ("one step, 2", "own steps, 2"),
    ("one step, 3", "own steps, 3"),
    ("one step, 4", "own steps, 4"),
    ("one step, 3.11", "one step, 3, `down` its own beside it"),
)


@torch.no_grad()
def text_table() -> None:
    """Differences of TinyLM's loss on all held-out chapters."""
    model, tokenizer = tiny()
    chapters = split(bible_chapters("kjv"))[1].split("\n\n")
    tokens = [torch.tensor(tokenizer.encode(chapter).ids) for chapter in chapters]
    weight = torch.tensor([len(chapter.encode()) for chapter in chapters]).double() * math.log(2)
    state = model.state_dict()
    matrices = {name: state[name].detach() for name in every_linear(model, None)}
    found = {}
    for name, schemes in text_schemes(matrices).items():
        changed = unpack_model(pack_model(model, schemes), model)
        losses = [token_losses(changed, part).double().sum().item() for part in tokens]
        found[name] = torch.tensor(losses)
        print(f"{name:42}{float(found[name].sum() / weight.sum()):8.4f}", flush=True)
    for one, other in PAIRS:
        print(
            "{:62}{:+.4f} ± {:.4f}".format(
                f"{one} − {other}", *paired(found[one], found[other], weight)
            )
        )


def small_dense(h: int, bits: int, data, loss: Callable, seed: int) -> tuple[nn.Module, int]:
    """A network 64-h-10, 60 epochs from scratch, written in so many bits: as read, its bytes."""
    torch.manual_seed(100 + seed)
    small = nn.Sequential(nn.Linear(64, h), nn.ReLU(), nn.Linear(h, 10))
    train_digits(small, data, 60, seed=seed, loss=loss)
    state = {n: p if p.dim() == 2 else p.half().float() for n, p in small.state_dict().items()}
    small.load_state_dict(state)
    coded = {n: EvenCoded(step_for([p], bits)) for n, p in state.items() if p.dim() == 2}
    packed = pack_model(small, coded)
    written = {n: part.half() if "bias" in n else part for n, part in packed.items()}
    return unpack_model(packed, small), size(written).bytes


def digits_table(seeds: int = 5) -> None:
    """Points of accuracy against the dense network, and bytes; 30 + 10 epochs."""
    data, rows = digits(), {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        dense = DigitsMLP()
        train_digits(dense, data, seed=seed)
        loss, full = teacher_loss(dense), accuracy(dense, data)

        def note(name: str, model: nn.Module, count: int, full: float = full) -> None:
            rows.setdefault(name, []).append((round(accuracy(model, data) - full, 2), count))

        for density, counts in ((0.07, (8, 2)), (0.052, (8,))):
            recipe = Recipe(density=density, epochs=30, retraining=10)
            pruned = drop_dead_units(prune_gradually(dense, data, recipe, loss, seed))
            names = [name for name, _ in pruned.named_parameters()]
            for count in counts:
                few = {name: 8 if "bias" in name else count for name in names}
                before = SharedValues(pruned, few).model()
                after = share_and_retrain(pruned, data, replace(recipe, values=count), loss, seed)
                for when, model in (("before", before), ("retrained", after)):
                    packed = pack_model(model, dict.fromkeys(names, Shared()))
                    note(f"{density:.1%}, {count} values, {when}", model, size(packed).bytes)
        note("64-101-10, 4 bits", *small_dense(101, 4, data, loss, seed))
        print(f"seed {seed}", flush=True)
    for name, row in rows.items():
        points = [one for one, _ in row]
        mean, spread = statistics.mean(points), statistics.stdev(points)
        print(f"{name:28}{mean:+.2f} (standard deviation {spread:.2f})  {row}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {
        "layers": layers_table,
        "clever": clever_table,
        "text": text_table,
        "digits": digits_table,
    }
    known = len(sys.argv) == 2 and sys.argv[1] in tables
    sys.exit(tables[sys.argv[1]]() if known else f"one of {', '.join(tables)}")
