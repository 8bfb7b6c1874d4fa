# %% [markdown]
# # 06 · Codebooks
#
# **What if the levels need not be even, and a code need not have a fixed length?**
#
# Chapter 05 laid a ruler along the weights: evenly spaced marks, and for each weight a code of so many bits,
# the same for all. Both are habits. Nothing says that the marks must be even. A list of levels, wherever you
# like, is a **codebook**: the file holds the list once, and for each weight its place in the list. And nothing
# says that all codes must be equally long. The letter E is one dot in Morse's alphabet, Q takes four signs.
#
# You will do both, and then let them compete. At equal bytes, which one wins: the cleverest levels with codes
# of one length, or even levels with codes of unequal length? Keep a guess in mind.
#
# * **Afterwards you can** find the best levels there are, and prove it; say what a float of 4 or 8 bits is and
#   why it needs a scale; build Huffman's code and read it; say how far any quantizer is from the limit; and
#   weigh a compressed network honestly.
# * **You need** chapter 05 (levels, scales, groups, decibels), and for section 8 pruning (chapter 02 or 03).
# * **Time:** about seven hours for all, five and a half for the core, in three sittings: sections 1 to 3, 4 and 5,
#   6 to 10. Behind sections 3 and 5 it says **Pause**.
# * **Core:** Exercises 1, 2, 4 to 8 and 10. **Extra:** the exact optimum (3), bytes of a layer (9), vectors.
#
# ## 1. Levels where the weights are
#
# The layer of chapter 05 again, the last `down` matrix of TinyLM: 98,304 weights. The upright lines are levels,
# and each weight moves to the nearest one.
#
# Two sliders: how many **levels**, and where. `even` spreads them from the smallest weight to the largest.
# `even, clipped` is even too, but ends where the squared error is least (Exercise 8 of chapter 05). `k-means`
# puts them wherever they leave the least squared error. **Guess before you move anything:** k-means has 8
# levels to place. Where do they go?

# %% tags=["collapsed"]
# Imports
import heapq
import math
from collections import Counter
from dataclasses import replace

import torch

from course_lib.data.images import digits
from course_lib.deep_compression import (
    Recipe,
    drop_dead_units,
    prune_gradually,
    share_and_retrain,
    teacher_loss,
)
from course_lib.exercises import check, hint, yours
from course_lib.formats.bits import decode_bits, encode_bits, stream_size
from course_lib.formats.codebook import NF4, Codebook, FixedLevels
from course_lib.formats.entropy import code_entropy
from course_lib.formats.even_coded import EvenCoded, decode_even, encode_even, even_codes, step_for
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.huffman import canonical_codes
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import every_linear, pack_model, pack_tensors, unpack_model
from course_lib.formats.packing import pack, unpack
from course_lib.formats.shared import SPANS, Shared, gap_symbols
from course_lib.formats.sparse import Sparse
from course_lib.formats.vectors import Vectors, decode_vectors, encode_vectors
from course_lib.measure.latency import latency
from course_lib.measure.quality import accuracy
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models import pretrained
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.plots.explore import explore
from course_lib.plots.figure import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Picture,
    new_figure,
)
from course_lib.plots.levels import draw_levels
from course_lib.plots.predict import predict
from course_lib.quantization.block_floats import decode_mx, encode_mx
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.codebook import absmax, logarithmic_levels, lookup, nearest_codes, rms
from course_lib.quantization.floats import E2M1, E2M3, E3M2, E4M3, E5M2, Float, decode, encode
from course_lib.quantization.kmeans import lloyd, squared_error, start_levels
from course_lib.quantization.linear import Format
from course_lib.quantization.lloyd_max import (
    lloyd_max,
    mean_squared_error,
    normal,
    normal_levels,
)
from course_lib.quantization.normal_float import normal_float
from course_lib.quantization.optimal_kmeans import optimal_levels
from course_lib.quantization.rows import to_rows
from course_lib.quantization.shared_values import SharedValues
from course_lib.quantization.vectors import fit_stages
from course_lib.quantization.vectors import lloyd as lloyd_vectors
from course_lib.quantization.vectors import nearest as nearest_vector

tiny, tokenizer = pretrained.tiny()
tiny.requires_grad_(False)
layer = tiny.blocks[3].mlp.down.weight
weights = layer.reshape(1, -1)  # (1, N): one row, all weights share the levels


# %% tags=["collapsed"]
# Four helpers: to round, to measure in decibels, two kinds of even levels
def on_levels(rows: torch.Tensor, levels: torch.Tensor, scale=None) -> torch.Tensor:
    """Each number moved to the nearest level; `scale` is one number a row."""
    return lookup(nearest_codes(rows, levels, scale), levels, scale)


def decibels(changed: torch.Tensor, rows: torch.Tensor) -> float:
    """How far the squared error lies below the weights' squares. 3 dB: half of the error. 6: a quarter."""
    left = (changed.double() - rows.double()).square().sum()
    return 10 * math.log10(rows.double().square().sum() / left)


def even_levels(rows: torch.Tensor, k: int) -> torch.Tensor:
    """k levels, evenly from the smallest number to the largest."""
    return torch.linspace(float(rows.min()), float(rows.max()), k)[None]


def clipped_levels(rows: torch.Tensor, k: int) -> torch.Tensor:
    """k even levels from −t to t, with the best of 40 ends t."""
    ends = rows.abs().max() * torch.arange(1, 41) / 40
    tried = [t * torch.linspace(-1, 1, k)[None] for t in ends]
    return min(tried, key=lambda levels: squared_error(rows, levels).item())


# %% tags=["collapsed"] slide=True
# Figure with sliders: the layer and its levels
WAYS = {"even": even_levels, "even, clipped": clipped_levels, "k-means": optimal_levels}


def draw_codebook(levels: int, where: str) -> Picture:
    """The layer's histogram, and the levels that its weights move to."""
    book = WAYS[where](weights, levels)
    figure, (axes,) = new_figure(height=3.2)
    draw_levels(axes, weights[0].tolist(), book[0].tolist(), (-2.1, 2.1))
    gained = decibels(on_levels(weights, book), weights)
    side = "below" if gained > 0 else "above"
    axes.set_title(
        f"{levels} levels, {where}: the error is {abs(gained):.1f} dB {side} the weights"
    )
    return Picture(
        figure,
        f"Histogram of the layer's weights, a narrow hill around 0, and {levels} upright lines, the "
        f"levels ({where}), from {float(book.min()):.2f} to {float(book.max()):.2f}. {gained:.1f} dB.",
    )


explore(draw_codebook, levels=([2, 4, 8, 16, 32], 8), where=(list(WAYS), "even"))

# %% [markdown] slide="1. Levels"
# K-means puts its levels close together where weights are many, and lets them go wide where weights are few.
# With 8 even levels from end to end, five of the eight stand where there is almost nothing. (All five together serve
# 0.1 % of the weights.)
#
# How does it find them? Say the levels are $c_1 < c_2 < \dots < c_k$. We want the least
# $\sum_i (w_i - \hat w_i)^2$, where $\hat w_i$ is the level that weight $w_i$ moves to. There are two questions in
# this, and each is easy if the other one is answered.
#
# * If the *levels* are given, each weight should move to the nearest one. So a **cell**, all weights of one
#   level, ends halfway to the next level.
# * If the *cells* are given, each level should be the mean of its cell. (The mean is the number with the least
#   squared distance to all.)
#
# So do the one, then the other, and again. That is **Lloyd's method** (Lloyd, 1982; he wrote it in 1957), and
# its result is **k-means**. Neither of the two can raise the error. So it falls until nothing moves any more.
#
# ## Exercises 1 and 2: the nearest level; one step of Lloyd
#
# In the first, do not compare each weight with each level: with 256 levels that is 256 times the layer. The
# levels are sorted. In the second, a level may find that no weight is nearest to it. Its mean would be 0 / 0.


# %% exercise="nearest_level"
def nearest_level(weights: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The code of the level nearest to each weight: q = argmin over j of |w − c_j|, uint8.

    weights: float, any shape, also none, finite. levels: (k,), the c_j, of the same dtype, each
    above the one before, k from 1 to 256. Codes have the weights' shape and count from 0. A weight
    just midway between two levels gets the lower one. Reckon in float64: |w − c_j| may be beyond
    float16, and (c_j + c_{j+1}) / 2 between two float32.
    """
    ### BEGIN SOLUTION
    wide = levels.double()
    midpoints = (wide[:-1] + wide[1:]) / 2  # (k − 1,), where one cell ends and the next begins
    return torch.bucketize(weights.double(), midpoints).to(torch.uint8)
    ### END SOLUTION


# %% check="nearest_level" points=1
check(nearest_level)


# %% exercise="lloyd_step"
def lloyd_step(weights: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The levels after one step of Lloyd's method: the mean of the weights nearest to each.

    weights: (N,), float, finite; N may be 0. levels: (k,), of the same dtype, each above the one
    before. A weight just midway between two levels belongs to the lower one. A level that no weight
    is nearest to stays where it is. Reckon in float64; the result, (k,), has the levels' dtype.
    """
    ### BEGIN SOLUTION
    old, wide = levels.double(), weights.double()
    codes = torch.bucketize(wide, (old[:-1] + old[1:]) / 2)  # (N,), the cell of each weight
    counts = torch.bincount(codes, minlength=len(old))  # (k,)
    sums = torch.zeros_like(old).index_add(0, codes, wide)  # (k,)
    return torch.where(counts > 0, sums / counts, old).to(levels.dtype)
    ### END SOLUTION


# %% check="lloyd_step" points=2
check(lloyd_step)

# %% [markdown]
# Now let it run, from 8 even levels. And a comparison that is often left out. Even levels from end to end are
# a weak opponent: chapter 05 knows to clip. **Guess:** how much does k-means win over even levels that end where
# it is best?

# %%
once = yours("lloyd_step")
book, falling = even_levels(weights, 8)[0], []
for _ in range(100):
    falling.append(decibels(on_levels(weights, book[None]), weights))
    book = once(weights[0], book)
print("Lloyd from even levels, dB after so many steps:")
print("   ".join(f"{n}: {falling[n]:.2f}" for n in (0, 1, 2, 5, 20, 50, 99)))

gains = {
    k: [decibels(on_levels(weights, way(weights, k)), weights) for way in WAYS.values()]
    for k in (4, 8, 16, 32)
}

# %% tags=["collapsed"] slide=True
# The guess, the table, the same for other layers; does it hold here?
predict(
    "Eight even levels that end where it is best, or the eight levels of k-means. What does k-means win?",
    ["0.4 dB", "3 dB", "12 dB"],
    f"{gains[8][2] - gains[8][1]:.1f} dB; over even levels from end to end {gains[8][2] - gains[8][0]:.1f} dB",
)
print("dB       even   even, clipped   k-means: dB   more than clipped")
for k, row in gains.items():
    print("{:6}{:7.1f}{:16.1f}{:14.1f}{:20.1f}".format(k, *row, row[2] - row[1]))
# OMP_NUM_THREADS=1 python -m benchmarks.coding_controls layers, 2026-11-26, one core of an x86 server
STORED_LAYERS = {  # TinyLM's 28 linear layers, dB: least, median, the last but one, most
    "8 levels, k-means over even ones": (4.49, 5.92, 9.81, 11.73),
    "8 levels, k-means over clipped ones": (0.33, 0.40, 0.46, 0.49),
    "16 levels, k-means over clipped ones": (0.78, 0.97, 1.23, 1.32),
    "16 levels, a scale for each row": (0.04, 0.19, 0.93, 1.12),
    "Huffman over the best levels, 2 bits": (0.51, 0.77, 1.13, 1.24),
    "Huffman over the best levels, 3 bits": (1.32, 1.65, 2.09, 2.43),
    "Huffman over the best levels, 4 bits": (1.80, 2.16, 2.64, 3.53),
    "Lloyd above the least, linear, %": (0.00, 0.09, 9.63, 10.26),
    "Lloyd above the least, density, %": (0.01, 0.25, 2.86, 3.82),
    "NVFP4, entropy of the codes": (3.90, 3.90, 3.90, 3.90),
    "NVFP4, entropy of the scales, a weight": (0.22, 0.22, 0.24, 0.24),
}
print(
    "\n8 levels, k-means wins over (dB)      least  median  last but one  most   (28 layers, stored)"
)
for name in ("even ones", "clipped ones"):
    print(
        "{:33}{:10.1f}{:8.1f}{:14.1f}{:6.1f}".format(
            name, *STORED_LAYERS[f"8 levels, k-means over {name}"]
        )
    )
assert all(b > a - 1e-4 for a, b in zip(falling, falling[1:], strict=False)) and falling[-1] > 13.7
assert gains[8][2] - gains[8][0] > 11 and 0.3 < gains[8][2] - gains[8][1] < 0.5
assert 8.5 < gains[16][1] - gains[16][0] < 9.5
assert 1.1 < gains[16][2] - gains[16][1] < 1.4 and 2.5 < gains[32][2] - gains[32][1] < 3.5
served = torch.bincount(nearest_codes(weights, even_levels(weights, 8))[0].long(), minlength=8)
assert served.sort().values[:5].sum() < 200 and gains[4][0] < -6

# %% [markdown]
# Nearly twelve decibels over the even levels from end to end, and 0.4 over those that were clipped. **Nearly all that
# k-means seems to win with few levels, clipping wins too.** (Four even levels from end to end leave five times the
# weights' squares as error. All zeros would be better!) Only where levels are many does it pay: 1.2 dB with
# 16, 3 dB with 32. Then there are levels to spare for the few large weights, and even levels would have to
# leave either these or the hill in the middle badly served.
#
# One layer is one layer, and of TinyLM's 28 this one, with its long tails, gains most. The lower lines, stored, have all: over
# even levels from end to end k-means typically wins six decibels, not twelve. Over clipped ones it is 0.3 to 0.5 in each.
#
# ### Better for which numbers?
#
# S1 (§3.2) says that non-linear quantization preserves accuracy better, S0 (§3.2) names it, and S2 (§3.2.3) names
# K-means. (S2, §4.1.4, has a formula for compression, too, $p / \sqrt{\|p\|_2}$. It divides all weights by one number, so as
# many different ones are left as before, in as many bytes.) The list of levels costs something: $n$ weights of $b$ bits become
# $n$ codes of $\log_2 k$ bits and $k$ weights of $b$ bits. For a layer the list is nothing; for a row of 256 weights with 16 levels of its
# own it is two bits a weight, and one if the levels are in float16.
#
# But better for *which* weights? Try three kinds of numbers. Non-linear levels here: k-means, which looks at the numbers,
# and **logarithmic quantization** (Miyashita et al., 2016), which does not: levels $0$ and $\pm 1, \pm\frac12, \pm\frac14 \dots$
# times a scale, or finer, by powers of $\sqrt2$.

# %%
generator = torch.Generator().manual_seed(0)
kinds = {
    "spread evenly": torch.rand(1, 98_304, generator=generator) * 2 - 1,
    "normal": torch.randn(1, 98_304, generator=generator),
    "the layer": weights,
}
roots = 2 ** (-torch.arange(7) / 2)  # 1, 0.71, 0.5 … 0.125
finer = torch.cat([-roots, torch.zeros(1), roots.flip(0)])[None]


def best_end(numbers: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The table, −1 to 1, times the best of 40 ends."""
    tried = [numbers.abs().max() * end / 40 * table for end in range(1, 41)]
    return min(tried, key=lambda levels: squared_error(numbers, levels).item())


matched = {}
print("16 levels (dB)   even, clipped   powers of 2   powers of √2   k-means")
for name, numbers in kinds.items():
    books = (
        clipped_levels(numbers, 16),
        best_end(numbers, logarithmic_levels(4)),
        best_end(numbers, finer),
        optimal_levels(numbers, 16),
    )
    matched[name] = [decibels(on_levels(numbers, levels), numbers) for levels in books]
    print("{:15}{:15.1f}{:14.1f}{:15.1f}{:10.1f}".format(name, *matched[name]))

# %% tags=["collapsed"]
# Does it hold here?
assert abs(matched["spread evenly"][3] - matched["spread evenly"][0]) < 0.1
assert all(log < even - 3 for even, log, _, _ in matched.values())
assert abs(matched["the layer"][2] - matched["the layer"][0]) < 0.2
assert all(matched[name][0] - matched[name][2] > 0.3 for name in ("spread evenly", "normal"))
assert 0.7 < matched["normal"][3] - matched["normal"][0] < 1
p = weights[0]
assert len(p.unique()) == len((p / p.norm().sqrt()).unique())

# %% [markdown]
# Non-linear is not better. It is better **where it matches the numbers**. For numbers spread evenly the best
# levels are even. Powers of two match none of the three: nine of the 15 lie within an eighth of the largest,
# where a squared error has little to win. (They are cheap to multiply with: a shift.) Powers of $\sqrt2$ do as well as clipped
# even levels on our layer, with its long tails, and nowhere else.
#
# ## 2. How near does Lloyd come?
#
# Lloyd stops when no step improves anything. Is that the best there is? Think of a blindfolded man who walks
# downhill until it goes up on all sides. He is in *a* valley.
#
# In one dimension we can know. The cells of the best levels are runs of the sorted weights. So we only choose
# where one run ends and the next begins. Let $F_m(b)$ be the least error of the first $b$ weights in $m$ cells. The
# last of the $m$ cells begins somewhere, at $a$, and what lies before it must be done in the best way, too:
#
# $$F_m(b) = \min_{a < b} \; F_{m-1}(a) + \text{error of the weights } a \dots b - 1 \text{ about their mean} .$$
#
# That is **dynamic programming** (Fisher, 1958; Wang and Song, 2011). You do it for twelve weights. The library's
# `optimal_levels` does it for a million: the best $a$ only moves up as $b$ does, so most $a$ need not be tried.
#
# ## Exercise 3: the best levels there are


# %% exercise="best_levels"
def best_levels(weights: torch.Tensor, k: int) -> torch.Tensor:
    """The k levels with the least Σ (w − ŵ)², ŵ the level nearest to w; exact, ascending, (k,).

    weights: (N,), float, in any order, N from 1 to 12; k is at most the number of different ones.
    Each cell is a run of the sorted weights, its level the run's mean. Least error of the first b
    weights in m cells: F_m(b) = min over a < b of F_{m−1}(a) + error of the weights a … b − 1
    about their mean. Reckon in float64; the result has the weights' dtype.
    """
    ### BEGIN SOLUTION
    ordered = weights.double().sort().values
    count = len(ordered)
    runs = {(a, b): ordered[a:b] for b in range(1, count + 1) for a in range(b)}
    means = {ends: run.mean().item() for ends, run in runs.items()}
    errors = {ends: (run - means[ends]).square().sum().item() for ends, run in runs.items()}
    least = [(0.0, ())] + [(math.inf, ())] * count  # (F_0(b), the levels) for b = 0 … N
    for _ in range(k):
        least = [(math.inf, ())] + [
            min((least[a][0] + errors[a, b], (*least[a][1], means[a, b])) for a in range(b))
            for b in range(1, count + 1)
        ]
    return torch.tensor(least[count][1], dtype=weights.dtype, device=weights.device)
    ### END SOLUTION


# %% check="best_levels" points=3
check(best_levels)

# %% [markdown]
# Lloyd has to start somewhere. Han et al. (2016) compare three starts: **linear**, evenly from end to end;
# **density**, with equally many weights between levels; **random**, some of the weights. (Linear left the most
# accurate network, but for 3 bits; that was on pruned weights, and after fine-tuning.) A fourth one is what is used
# today, **k-means++** (Arthur and Vassilvitskii, 2007): each next level is one of the weights, drawn with a chance as its
# squared distance from the levels so far. We compare all four with the optimum, 16 levels each: for the whole
# layer, for each row of 512 weights, and for rows of the same weights shuffled, so that all rows are alike.
#
# **Guess:** how much larger than the least possible is Lloyd's squared error?


# %%
def spread_out(rows: torch.Tensor, k: int) -> torch.Tensor:
    """k-means++: a start of k levels for each row, (R, C) -> (R, k)."""
    generator = torch.Generator().manual_seed(0)
    levels = rows[:, :1]
    while levels.shape[1] < k:
        distance = (rows[:, :, None] - levels[:, None]).square().amin(dim=2)  # (R, C)
        drawn = torch.multinomial(distance, 1, generator=generator)
        levels = torch.cat([levels, rows.gather(1, drawn)], dim=1)
    return levels.sort(dim=1).values


mix = torch.randperm(layer.numel(), generator=torch.Generator().manual_seed(0))
shuffled = layer.flatten()[mix].view_as(layer)
whole, by_row, mixed = "one codebook for the layer", "one for each row", "rows, shuffled"
starts, least, above = ("linear", "density", "random", "k-means++"), {}, {}
for name, rows in {whole: weights, by_row: layer, mixed: shuffled}.items():
    least[name] = optimal_levels(rows, 16)
    for start in starts:
        begin = spread_out(rows, 16) if start == "k-means++" else start_levels(rows, 16, start)
        ratio = (
            squared_error(rows, lloyd(rows, begin)).sum() / squared_error(rows, least[name]).sum()
        )
        above[name, start] = float(ratio - 1)

# Beyond two widths of its row's hill a weight is far out, (O, I)
far = layer.abs() > 2 * rms(layer)


def excess(levels: torch.Tensor) -> tuple[float, float, float]:
    """Levels far out; how far the error of far weights, and of others, is above the least, in %."""
    wrong, best = (
        (on_levels(layer, some) - layer).double().square() for some in (levels, least[by_row])
    )
    more = 100 * (wrong - best) / best.sum()
    out = (levels.abs() > 2 * rms(layer)).double().sum(dim=1).mean().item()
    return out, more[far].sum().item(), more[~far].sum().item()


lloyds = {start: excess(lloyd(layer, start_levels(layer, 16, start))) for start in starts[:2]}

# %% tags=["collapsed"] slide=True
# The guess, the tables; does it hold here?
predict(
    "A codebook of 16 levels for each row of 512 weights. Lloyd's squared error lies above the least by",
    ["less than 1 %", "about 5 %", "about 40 %"],
    f"{above[by_row, 'linear']:.0%} from a linear start, {above[by_row, 'density']:.0%} from a density start; "
    f"for the whole layer {above[whole, 'linear']:.1%} and {above[whole, 'density']:.1%}",
)
print("16 levels, squared error above the least possible, after Lloyd")
for name in (whole, by_row, mixed):
    print(f"{name:28}" + "".join(f"{s}: {above[name, s]:6.1%}   " for s in starts))
print(
    "\nLloyd in rows       levels far out   error above the least, %: of weights far out   of the others"
)
for start, (out, of_far, of_others) in lloyds.items():
    print(f"from {start:15}{out:14.1f}{of_far:46.0f}{of_others:16.0f}")
print(f"{'the best levels':20}{excess(least[by_row])[0]:14.1f}")
print(f"weights far out: {far.double().mean():.1%}")
print("all 28 layers, each with one codebook of 16 levels; Lloyd above the least (stored):")
for start in ("linear", "density"):
    _, middle, _, most = STORED_LAYERS[f"Lloyd above the least, {start}, %"]
    print(f"from {start:10}median {middle:5.2f} %, most {most:5.2f} %")
assert above[whole, "linear"] < 0.005 and 0.005 < above[whole, "density"] < 0.03
for name in (by_row, mixed):
    assert min(above[name, start] for start in ("linear", "density", "random")) > 0.3
assert 0.08 < above[by_row, "k-means++"] < 0.22 and 0.03 < far.double().mean() < 0.06
assert lloyds["density"][0] + 0.8 < excess(least[by_row])[0] < lloyds["linear"][0] - 1.5
assert lloyds["density"][1] > 0.8 * sum(lloyds["density"][1:])
assert lloyds["linear"][1] < -5 and lloyds["linear"][2] > 40

# %% [markdown] slide="How dense"
# On the whole layer Lloyd is all but perfect from these starts. (Not on each: over the 28 layers it is typically 0.1 to 0.3 % off,
# and at the worst 10.) With few weights it leaves 40 to 52 % more error than need be, and with shuffled rows no less: it is
# because they are few, not because rows differ. Why? Look at the lower table. From a
# density start nearly all of the excess lies at the 4.6 % of the weights that are far out: 2.0 levels of 16 are there, and the
# best have 3.3. From a linear start it is the other way round: 5.4 levels out there, more than the best have, so the far
# weights have *less* error than in the best codebook, and the middle pays for it. (Large weights may matter more: that is
# the reason that Han et al. give for linear.) A level moves to the mean of
# *its own* weights. It cannot jump over its neighbour, and to send one more level into the tail, all levels in
# between would have to shift a little, each against the weights that hold it. With thousands of weights
# in a cell these shifts are smooth. With 32, they stick. Even k-means++, which sends levels out by itself, is some
# 15 % off.
#
# So a start with the levels where they belong must mend it. Where is that? Theory has an answer, and it is not what you may think.
#
# ### How dense should levels be?
#
# Suppose that levels are many, and near $x$ there are $\lambda(x)$ of them on a unit of length. Their distance is
# $1/\lambda$, and the squared error there $1 / (12 \lambda^2)$ (chapter 05). With the weights' density $p(x)$ we want
# the least
#
# $$\int \frac{p(x)}{12\,\lambda(x)^2}\,dx \qquad \text{while} \qquad \int \lambda(x)\,dx = k .$$
#
# One level more near $x$ lowers the error there by $p / (6 \lambda^3)$: that is the derivative of $p / (12 \lambda^2)$ by $\lambda$, but
# for its sign. Move a level from one place to another: at the best, nothing is won by it. So this gain is the same everywhere, and
#
# $$\lambda(x) \;\propto\; p(x)^{1/3} .$$
#
# **The cube root of the density.** (Panter and Dite, 1951.) Where there are eight times as many weights, there
# are only twice as many levels. For a normal density $e^{-x^2/2}$ the cube root is $e^{-x^2/6}$: again a normal density,
# but $\sqrt3$ times as wide. So the levels stand where *that* hill has as much for each of them: they are the quantiles of a
# hill $\sqrt3$ times as wide as the weights'. "As many weights for each level" would be the quantiles of the hill itself.

# %%
steps = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
quantiles = torch.special.ndtri(steps).float()[None]  # each level gets 1/16 of a normal hill
rules = {
    "even, best end": min(
        (t * torch.linspace(-1, 1, 16)[None] for t in torch.linspace(2, 3, 21)),
        key=lambda levels: mean_squared_error(normal, levels),
    ),
    "as many weights for each": quantiles,
    "by the cube root": math.sqrt(3) * quantiles,
    "the best (Lloyd-Max)": lloyd_max(normal, 16),
}
print("16 levels for a normal density      dB")
normal_db = {n: -10 * math.log10(mean_squared_error(normal, r)) for n, r in rules.items()}
for name, value in normal_db.items():
    print(f"{name:32}{value:6.2f}")

found = lloyd(layer, math.sqrt(3) * quantiles * rms(layer))
mended = float(squared_error(layer, found).sum() / squared_error(layer, least[by_row]).sum() - 1)
print(f"\nrows, Lloyd from the cube root: {mended:.0%} above the least")

# %% tags=["collapsed"] slide=True
# Figure: four rules for sixteen levels; does it hold here?
figure, (axes,) = new_figure(height=3.4)
x = torch.linspace(-4.2, 4.2, 200)
axes.fill_between(x, 4.2 * (-(x**2) / 2).exp(), color=SKY, alpha=0.35, linewidth=0)
for height, ((name, levels), colour) in enumerate(
    zip(rules.items(), (ORANGE, RED, BLUE, GREEN), strict=True)
):
    axes.vlines(levels[0].tolist(), height + 0.1, height + 0.7, color=colour, linewidth=2)
    axes.text(-7.3, height + 0.3, f"{name}\n{normal_db[name]:.1f} dB", size=9, va="center")
axes.set(xlim=(-7.4, 4.2), ylim=(0, 4.4), yticks=[], xlabel="weight, in widths of the hill")
axes.set_xticks(range(-4, 5))
axes.spines["left"].set_visible(False)
axes.grid(False)
axes.set_title("The best levels spread as the cube root of the density, not as the density")
assert normal_db["as many weights for each"] < 17 < 19 < normal_db["even, best end"]
assert 19.8 < normal_db["by the cube root"] < 20 < normal_db["the best (Lloyd-Max)"] < 20.3
assert mended < 0.15
ends = [float(rules[name].max()) for name in ("by the cube root", "the best (Lloyd-Max)")]
Picture(
    figure,
    "Four rows of 16 marks over a normal hill. Marks with equally many weights each crowd in the middle; those "
    f"by the cube root reach {ends[0]:.1f} widths out, the best ones {ends[1]:.1f}, and inside they look alike. "
    + "; ".join(f"{name}: {value:.1f} dB" for name, value in normal_db.items()),
)

# %% [markdown]
# "As many weights for each level" sounds fair, and is the worst of the four by 3 dB, worse than even levels. The
# cube root comes within 0.3 dB of the best. And Lloyd from a start by the cube root ends 10 % above the
# optimum, not 40 to 52: where the levels start is what counts.
#
# The best levels for a known density are called **Lloyd-Max** levels (Max, 1960): every level is the mean of its
# cell, every cell ends halfway. (So it is wherever Lloyd stops; but for the normal density, whose logarithm is a
# concave curve, only the best levels have it.) You need no weights to compute them, and no list in the file.
#
# ## 3. A scale and a table: NF4
#
# A codebook for the whole layer ignores what chapter 05 taught: rows are of different size. A codebook for each row
# costs 16 levels a row. The way in between: *one* table for all, in units of a **scale** that each row or
# block has for itself. Which unit? Two come to mind: the row's largest magnitude (**absmax**), and its width,
# the root of the mean square (**rms**). Take the Lloyd-Max table of 8 levels, $\pm 0.25$ to $\pm 2.15$ widths.
# With rms as the unit it is used as it is. With absmax it is shrunk so that its last level meets the largest. And,
# as you know from section 1, the dull one gets its best setting too: the shrunk table times one factor, the same for all rows.

# %%
table = torch.tensor([normal_levels(3)])
dense_bits = tiny_quality(tiny, tokenizer).bits_per_byte


def loss_and_bits(scheme: object) -> tuple[float, float]:
    """TinyLM's bits per byte with linear layers in this form; their bits a weight in the file."""
    chosen = scheme if isinstance(scheme, dict) else every_linear(tiny, scheme)
    packed = pack_model(tiny, chosen)
    count = sum(tiny.state_dict()[name].numel() for name in chosen)
    stored = sum(part.nbytes for key, part in packed.items() if key.partition(":")[0] in chosen)
    loss = tiny_quality(unpack_model(packed, tiny), tokenizer).bits_per_byte
    return loss, 8 * stored / count


print(f"8 levels; TinyLM dense {dense_bits:.3f}       layer, dB   normal, dB   TinyLM, loss   bits")
units = {}
bell = torch.randn(192, 512, generator=torch.Generator().manual_seed(0))
meets = table / table.max()  # its last level is 1
for share, group in (("row", "channel"), ("block of 64", 64)):
    rows, bells = to_rows(layer, group), to_rows(bell, group)
    factors = [i / 40 for i in range(20, 41)]
    best = max(factors, key=lambda f: decibels(on_levels(rows, f * meets, absmax(rows)), rows))
    ways = {
        "absmax": (absmax, meets),
        "absmax, a factor": (absmax, best * meets),
        "rms": (rms, table),
    }
    for name, (unit, levels) in ways.items():
        decibel = [decibels(on_levels(x, levels, unit(x)), x) for x in (rows, bells)]
        scheme = FixedLevels(tuple(levels[0].tolist()), group, unit)
        units[share, name] = (*decibel, *loss_and_bits(scheme))
        line = "{:13}{:20}{:10.1f}{:13.1f}{:15.3f}{:7.2f}"
        print(line.format(share, name, *units[share, name]))
    print(f"{'':13}(the factor is {best:.3f})")

# %% tags=["collapsed"]
# Stored: the loss on all held-out text; does it hold here?
# OMP_NUM_THREADS=1 python -m benchmarks.coding_controls text, 2026-11-26, one core of an x86 server
STORED_TEXT = {  # bits per byte, all 59 held-out chapters: the first form minus the other, its standard error
    ("row, absmax", "row, rms"): (0.0211, 0.0023),
    ("row, absmax, best factor", "row, rms"): (0.0028, 0.0018),
    ("64, absmax, best factor", "64, rms"): (-0.0117, 0.0013),
    ("one step, 2", "own steps, 2"): (0.0531, 0.0035),
    ("one step, 3", "own steps, 3"): (0.0068, 0.0015),
    ("one step, 4", "own steps, 4"): (0.0000, 0.0007),
    ("one step, 3.11", "one step, 3, `down` its own beside it"): (0.0008, 0.0011),
}
for (one, other), (difference, error) in list(STORED_TEXT.items())[:3]:
    print(f"59 chapters: {one} − {other}: {difference:+.4f} ± {error:.4f}")
print(
    "\n16 levels, wins over even, clipped (dB)  least  median  last but one  most   (28 layers, stored)"
)
for name, stored in {
    "k-means": "k-means over clipped ones",
    "even, a scale for each row": "a scale for each row",
}.items():
    print(
        "{:33}{:12.1f}{:8.1f}{:14.1f}{:6.1f}".format(name, *STORED_LAYERS[f"16 levels, {stored}"])
    )
for share, gap in (("row", 1.8), ("block of 64", 0.2)):
    assert units[share, "rms"][0] > units[share, "absmax"][0] + gap
assert units["row", "rms"][2] < units["row", "absmax"][2] - 0.02
assert units["row", "rms"][1] - units["row", "absmax"][1] > 1.8
assert abs(units["row", "rms"][0] - units["row", "absmax, a factor"][0]) < 0.15
assert units["block of 64", "absmax, a factor"][0] > units["block of 64", "rms"][0] + 0.3

# %% [markdown]
# With rows, absmax as it stands costs two decibels, for normal numbers as for the layer. The table is right for a hill of width 1 and ends
# at 2.15, and the largest of 512 numbers lies further out. **But nearly all of that is one factor.** Times 0.65, absmax
# is within a tenth of rms; and in blocks of 64, where the largest lies nearer to 2.15, it is 0.4 dB *ahead*. In the loss, too
# (lower lines, all held-out text). So the unit was not bad, the table did not fit it.
#
# And absmax has its charm: if the ends are ±1, nothing is clipped. So fit a table *to it*.
# **NF4** (normal float, Dettmers et al., 2023) is that: blocks of 64 divided by their largest, and 16 levels at
# quantiles of the normal density, shifted so that one of them is 0, and the ends are ±1. Each level should then be
# used about equally often. You know by now what to think of that.
#
# ## Exercise 4: NF4's table


# %% exercise="normal_float_levels"
def normal_float_levels(bits: int, last: float) -> torch.Tensor:
    """The 2**bits levels of a normal float, ascending from −1 to 1, float32.

    NF4 is bits = 4, last = 0.9677083. With n = 2**(bits − 1) and Φ⁻¹ the quantiles of the normal
    density (torch.special.ndtri): n levels above 0 are Φ⁻¹(p), p in n even steps from ½ to `last`,
    without ½. n − 1 levels below 0 are −Φ⁻¹(p), p in n − 1 even steps from ½ to `last`, without ½.
    One level is 0. All are divided by the largest. bits from 2 to 8, ½ < last < 1; in float64,
    rounded to float32 at the end.
    """
    ### BEGIN SOLUTION
    half = 2 ** (bits - 1)
    above = torch.linspace(0.5, last, half + 1, dtype=torch.float64)  # the first is ½: the level 0
    below = torch.linspace(0.5, last, half, dtype=torch.float64)[1:].flip(0)
    levels = torch.cat([-torch.special.ndtri(below), torch.special.ndtri(above)])
    return (levels / levels[-1]).float()
    ### END SOLUTION


# %% check="normal_float_levels" points=2
check(normal_float_levels)

# %% [markdown]
# Equally often? And if they were, would that be good? Take blocks of 64 normal numbers, the case that NF4 was
# made for. Once as it is used, in units of each block's largest. Once in the unit in which its levels *are* the
# quantiles: $\Phi^{-1}(0.9677) = 1.85$ widths. Then NF4 beside other tables of 15 or 16 levels, the best one among them. (A number
# counts there as its block's scale squared: an error of so much in units of the scale is so much more in the block.) **Guess:** is the
# table of quantiles the best one for normal numbers?

# %%
generator = torch.Generator().manual_seed(0)
fit, test = (torch.randn(2**12, 64, generator=generator) for _ in range(2))
own = yours("normal_float_levels")(4, 0.9677083)[None]
stretched = absmax(test).mean().expand(len(test), 1)  # the same for all blocks
usage = {}
for name, unit in {
    "the block's largest": absmax(test),
    "1.85 widths": torch.full((len(test), 1), 1.848),
    f"{stretched[0, 0]:.1f} widths": stretched,
}.items():
    codes = nearest_codes(test, own, unit)
    shares = 100 * torch.bincount(codes.flatten().long(), minlength=16) / codes.numel()
    usage[name] = shares, decibels(lookup(codes, own, unit), test)
    print(f"NF4 in units of {name:20} {usage[name][1]:.1f} dB")

flat, power = (fit / absmax(fit)).reshape(1, -1), absmax(fit).square().expand_as(fit).reshape(1, -1)


def with_fixed(levels: torch.Tensor, fixed: dict[int, float]) -> torch.Tensor:
    """Lloyd's method for `flat`, each number counted `power` times; some levels stay where they are."""
    levels = levels.clone()
    for place, value in fixed.items():
        levels[0, place] = value
    for _ in range(60):
        cells = nearest_codes(flat, levels)[0].long()
        sums, counts = (
            torch.zeros(16).index_add(0, cells, x) for x in ((flat * power)[0], power[0])
        )
        for j in range(16):
            levels[0, j] = fixed.get(j, sums[j] / counts[j])
    return levels


free = optimal_levels(flat, 16, power)
fp4 = torch.cat([-E2M1.levels[1:].flip(0), E2M1.levels])[None] / 6
tables = {
    "even, 15 levels": torch.linspace(-1, 1, 15)[None],
    "FP4 (section 4), 15 levels": fp4,
    "NF4": own,
    "the best with −1, 0 and 1": with_fixed(free, {0: -1.0, 7: 0.0, 15: 1.0}),
    "the best": free,
}
block_tables = {}
for name, levels in tables.items():
    scheme = FixedLevels(tuple(levels[0].tolist()), 64)
    value = decibels(on_levels(test, levels, absmax(test)), test)
    block_tables[name] = (value, *loss_and_bits(scheme))
doubly = loss_and_bits(NF4)

# %% tags=["collapsed"] slide=True
# The guess, the table, how often each level is used; does it hold here?
predict(
    "Is NF4's table, quantiles of the normal density, the best table of 16 levels for normal numbers?",
    ["yes", "no, another one is 0.4 dB better", "no, another one is 3 dB better"],
    f"no: {block_tables['NF4'][0]:.1f} dB, the best {block_tables['the best'][0]:.1f} dB",
)
print("16 levels for blocks of 64          normal, dB   TinyLM, loss   bits")
for name, row in block_tables.items():
    print("{:32}{:14.2f}{:15.3f}{:7.2f}".format(name, *row))
print("{:46}{:15.3f}{:7.2f}".format("NF4, its scales quantized too", *doubly))
figure, axes = new_figure(columns=2, height=2.6)
for one, (name, (shares, value)) in zip(axes, usage.items(), strict=False):
    one.bar(range(16), shares.tolist(), color=BLUE)
    one.set(xlabel="level", ylim=(0, 11), title=f"in units of {name}: {value:.1f} dB")
    one.set_xticks([0, 7, 15], ["−1", "0", "1"])
axes[0].set_ylabel("used, % of the numbers")
figure.suptitle("NF4's levels: used equally, they are worse by over four decibels")
assert usage["the block's largest"][1] > usage["1.85 widths"][1] + 3.5
assert 19.5 < usage[f"{stretched[0, 0]:.1f} widths"][1] < 20.2
assert usage["the block's largest"][0].min() < 2.5 and usage["the block's largest"][0].max() > 8.5
assert usage["1.85 widths"][0].min() > 5 and usage["1.85 widths"][0].max() < 7.6
assert 0.35 < block_tables["the best"][0] - block_tables["NF4"][0] < 0.55
price = block_tables["the best"][0] - block_tables["the best with −1, 0 and 1"][0]
assert 0.4 < price / (block_tables["the best"][0] - block_tables["NF4"][0]) < 0.6
assert block_tables["NF4"][0] > max(block_tables[n][0] for n in list(tables)[:2]) + 1
assert abs(block_tables["NF4"][1] - block_tables["the best"][1]) < 0.005
assert (
    abs(doubly[0] - block_tables["NF4"][1]) < 0.002
    and doubly[1] < 4.15 < 4.25 < block_tables["NF4"][2]
)
Picture(
    figure,
    "Two bar charts, how often each of NF4's 16 levels is used. "
    + "; ".join(
        f"in units of {name} from {shares.min():.0f} to {shares.max():.0f} %, {value:.1f} dB"
        for name, (shares, value) in list(usage.items())[:2]
    ),
)

# %% [markdown]
# The intention fails, and luckily. In the unit in which NF4's levels are quantiles they are used equally, 6 % each, and the
# error lies only 16 dB down: the fair and bad rule of section 2. What saves NF4 is the other unit. The largest of 64 normal
# numbers lies at 2.6 widths, so dividing by it stretches the table by 2.6 / 1.85 = 1.4, a good part of the way to
# $\sqrt3$. Now the levels are used unequally, 2 to 9 %, and the error lies 20.8 dB down. (The stretch alone, 2.6 widths
# for all blocks, brings 19.9.) **NF4 is good because its
# levels are not used as equally as intended.** (Yoshida, 2023, says so.) The best table gets 0.4 dB more; about half of it is the
# price of the fixed levels at −1, 0 and 1.
#
# And in the loss of TinyLM? 1.187 against 1.186, a difference that another text might turn round. Know why a table is good, and then do not fight for its last decibel.
#
# The 0.25 are the scales, 16 bits for 64 weights. They are numbers like others, so quantize them, too: 8 bits
# each, and a step for 256 of them. That is **double quantization** (in the paper with floats of 8 bits). Of the 0.25
# bits 0.13 are left, and the loss hardly changes.
#
# ---
# **Pause.** Here the first sitting ends. If you come back another day, run the notebook from the top.

# %% [markdown] slide="4. What a float"
# ## 4. What a float is
#
# A **few-bit float** is a codebook, too, one that was made for arithmetic. It has a sign, $E$ bits of exponent
# and $M$ bits of mantissa. With the exponent field $f$ and the mantissa field $g$, whole numbers,
#
# $$x = \pm\, 2^{\,f - \text{bias}} \left(1 + \frac{g}{2^M}\right), \qquad
#   \text{and if } f = 0: \quad x = \pm\, 2^{\,1 - \text{bias}} \cdot \frac{g}{2^M} .$$
#
# The **bias** makes small numbers possible: $f$ counts from 0, $f - \text{bias}$ from below 0. As a rule it is $2^{E-1} - 1$: 1 for
# two bits of exponent, 3 for three, 7 for four, 15 for five.
#
# Within one power of two the levels are even, $2^M$ of them. From one power to the next their distance doubles. In the
# last stretch before zero ($f = 0$) it stays as it is: these are the **subnormal** numbers, and without them there
# would be a hole around zero. E4M3 and E5M2 have 8 bits (Micikevicius et al., 2022), E2M1 has 4 and is
# called FP4 (Rouhani et al., 2023). Not every code is a number. E4M3 keeps the two with all ones for NaN, so
# $2^8 \cdot 1.75 = 448$ is its largest, not 480; and as zero has two codes, 0.0 and −0.0, its 256 codes are 253 levels. E5M2 keeps a whole
# exponent for infinities and NaN, E2M1 keeps nothing. Move the slider. The upper line is the ruler as it is; on the lower one each
# power of two has the same length.

# %% tags=["collapsed"]
# Figure with a slider: the levels of a float on a line
FORMATS = {"E2M1": E2M1, "E2M3": E2M3, "E3M2": E3M2, "E4M3": E4M3, "E5M2": E5M2}


def draw_float(format: str) -> Picture:
    """The numbers of sign + of a format, on an even line and on one of powers of two."""
    chosen = FORMATS[format]
    levels = chosen.levels
    normal_from = 2.0 ** (1 - chosen.bias)
    figure, axes = new_figure(rows=2, height=3.3)
    for one in axes:
        for some, colour, label in (
            (levels[(levels > 0) & (levels < normal_from)], ORANGE, "subnormal"),
            (levels[levels >= normal_from], BLUE, "normal"),
        ):
            one.vlines(some.tolist(), 0, 1, color=colour, linewidth=1.2, label=label)
        one.set(yticks=[], ylim=(0, 1))
        one.grid(False)
        one.spines["left"].set_visible(False)
    axes[0].set(xlim=(0, 1.02 * chosen.highest), xlabel="level, on an even ruler")
    axes[1].set_xscale("log", base=2)
    axes[1].set(
        xlim=(float(levels[1]) / 1.3, 1.3 * chosen.highest),
        xlabel="level, each power of two equally long",
    )
    axes[1].legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8)
    powers = chosen.highest / float(levels[1])
    axes[0].set_title(
        f"{format}: {len(levels)} levels from 0 to {chosen.highest:g}; the largest is {powers:,.0f} times the smallest"
    )
    return Picture(
        figure,
        f"The {len(levels)} levels of {format} from 0 to {chosen.highest:g} as lines. On the even line they crowd "
        f"at zero; with powers of two evenly, each has {2**chosen.mantissa_bits} of them, and the subnormal ones thin out.",
    )


explore(draw_float, format=(list(FORMATS), "E2M1"))

# %% [markdown]
# So a float of 4 bits has the levels 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their opposites. To round to one of them you need
# no list. Find the power of two that the number lies in; that says how far apart the levels are there; divide, round,
# multiply. Two rules need stating. A **tie** goes to the level with an even mantissa, as IEEE 754 wants it. And what is
# beyond the largest **saturates** here, it becomes the largest. (Others make it infinity, or NaN.) The exercise has other
# letters: $e = f - \text{bias}$ is the exponent itself, and $m = 2^M + g$ counts the steps from zero.
#
# ## Exercise 5: round to a float


# %% exercise="round_to_float"
def round_to_float(
    weights: torch.Tensor, mantissa_bits: int, bias: int, highest: float
) -> torch.Tensor:
    """Each weight, rounded to the nearest number that a small float can hold; in weights' dtype.

    Such a float is ±m · 2^(e − M): M = mantissa_bits, e whole and at least 1 − bias, m whole and
    below 2^(M + 1), and at most `highest`, which is one of these numbers. e is the exponent of the
    weight, 2^e ≤ |w| < 2^(e + 1), or 1 − bias where that is larger. A tie goes to the even m. What
    is beyond ±highest becomes ±highest, infinity too; NaN stays NaN. Every sign stays, that of −0.0
    too, and of what becomes zero. Weights: any shape, also none, float16 to float64; M from 1 to
    10, bias from 0 to 15; reckon in float64.
    """
    ### BEGIN SOLUTION
    size = weights.double().abs().clamp(max=highest)
    exponent = (torch.frexp(size).exponent - 1).clamp(min=1 - bias)
    step = 2.0 ** (exponent - mantissa_bits)
    return ((size / step).round() * step).copysign(weights).to(weights.dtype)
    ### END SOLUTION


# %% check="round_to_float" points=3
check(round_to_float)

# %% [markdown]
# A float has its scale built in, the exponent. Does it still need one from outside? Round the layer, first as it is,
# then with its largest weight brought to the largest level: for the tensor, for each row, for each block of 32.
#
# Then the question that everybody asks: 8 bits, a scale for each row. **Guess:** integers, 255 even levels, or the float E4M3?

# %%
round_off = yours("round_to_float")
shares = ("no scale", "tensor", "channel", 32)
print("dB" + " " * 8 + "".join(f"{share!s:>10}" for share in shares))
float_db = {}
for name, form in FORMATS.items():
    for share in shares:
        rows = weights if share == "no scale" else to_rows(layer, share)
        scale = torch.ones(1, 1) if share == "no scale" else absmax(rows) / form.highest
        rounded = round_off(rows / scale, form.mantissa_bits, form.bias, form.highest)
        float_db[name, share] = decibels(rounded * scale, rows)
    print(f"{name:10}" + "".join(f"{float_db[name, share]:10.1f}" for share in shares))
share_zero = (round_off(weights, 1, 1, 6.0) == 0).double().mean().item()
print(
    f"E2M1 without a scale: {share_zero:.0%} of the weights become 0, for its smallest level is 0.5"
)


def in_int8(rows: torch.Tensor) -> torch.Tensor:
    scale = absmax(rows) / 127
    return (rows / scale).round() * scale


def in_e4m3(rows: torch.Tensor) -> torch.Tensor:
    scale = absmax(rows) / 448
    return round_off(rows / scale, 3, 7, 448.0) * scale


order = torch.randperm(512, generator=torch.Generator().manual_seed(0))
uneven = layer * 2.0 ** torch.linspace(-6, 6, 512)[order]  # columns from 1/64 to 64 times as large
eight = {}
for name, rows in {"the layer": layer, "columns of unequal size": uneven}.items():
    both = [way(rows) for way in (in_int8, in_e4m3)]
    typical = [((new - rows) / rows).abs().median().item() for new in both]
    eight[name] = (*(decibels(new, rows) for new in both), *typical)
# %% tags=["collapsed"] slide=True
# The guess, the table; does it hold here?
predict(
    "8 bits, one scale for each row of the layer. Which leaves the smaller squared error?",
    ["E4M3, by 10 dB", "about equal", "int8, by 10 dB"],
    f"int8, by {eight['the layer'][0] - eight['the layer'][1]:.0f} dB",
)
print("a scale for each row       dB: int8   E4M3     error of a typical weight: int8   E4M3")
for name, row in eight.items():
    print("{:25}{:9.1f}{:7.1f}{:38.1%}{:7.1%}".format(name, *row))
assert 0.75 < share_zero < 0.88 and float_db["E2M1", "no scale"] < 4
assert float_db["E2M1", "channel"] > float_db["E2M1", "tensor"] + 5
assert abs(float_db["E4M3", "channel"] - float_db["E4M3", "no scale"]) < 0.5
assert 9 < eight["the layer"][0] - eight["the layer"][1] < 11.5
even, odd = eight["the layer"], eight["columns of unequal size"]
assert even[2] < 0.012 and odd[2] > 0.7 and 0.02 < even[3] < 0.024 and 0.02 < odd[3] < 0.024

# %% [markdown]
# **The fewer exponent bits, the more a float needs a scale.** E4M3 does not care: its largest level is 229,376 times its
# smallest, so the layer fits in anywhere. E2M1's is 12 times. Without a scale four of five weights become 0; with one
# for the tensor it has 12 dB, for each row 19.
#
# And integers win at 8 bits, by ten decibels. E4M3 spends its 253 levels on fifteen powers of two, as many on
# the stretch from 1/64 to 1/32 as on that from 128 to 256. The weights of a row do not need that. When does
# it help? Where a row holds numbers of unequal size. In the lower line each column was multiplied by a factor
# between 1/64 and 64. The float is off by 2 % for a typical weight in both lines, and by at most 1/16 for all that are
# not subnormal. The integers lose the small columns altogether: a typical weight is off by most of itself. In
# decibels they still look better, 36 to 32, because a squared error sees only the large ones. **Even levels
# promise an error, floats promise a share**, down to their smallest normal number. Which one you need, your
# numbers decide. (Activations have columns of unequal size: chapter 11.)
#
# ### Blocks
#
# So 4-bit floats come in a **block format**: each small block has a scale, and the hardware multiplies it in.
#
# * **MXFP4**: 32 neighbours share a power of two, 8 bits. $4 + 8/32 = 4.25$ bits.
# * **NVFP4**: 16 neighbours share a scale that is an E4M3 number; all blocks of a tensor share one `float32` more.
#   $4 + 8/16 = 4.5$ bits. (Alvarez et al., 2025.)
#
# MX takes $2^e$ with $e = \lfloor \log_2 \max|x| \rfloor - 2$. The 2 is the exponent of E2M1's largest level, $6 = 1.5 \cdot 2^2$. So
# the largest of a block lands between 4 and 8, and what is beyond 6 saturates.
#
# ## Exercise 6: a block of MXFP4


# %% exercise="mx_block"
def mx_block(values: torch.Tensor) -> tuple[torch.Tensor, int]:
    """One block as MXFP4: a multiple of a shared power of two for each number, and its exponent e.

    values: (C,), float, finite. e = ⌊log₂ max |x|⌋ − 2, cut to −127 … 127; −127 if all are zero.
    The multiples, in the dtype of values, are of ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}: the nearest to
    x / 2ᵉ, the largest for what is beyond it. Halfway between two, the one that has an even
    mantissa: 0, 1, 2 or 4. No number on the way is rounded or too large, even for float16.
    """
    ### BEGIN SOLUTION
    wide = values.double()
    largest = wide.abs().max()
    exponent = int(largest.frexp().exponent) - 3 if largest > 0 else -127  # largest = m · 2ᵉ, m < 1
    exponent = min(max(exponent, -127), 127)
    size = (wide.abs() / 2.0**exponent).clamp(max=6)
    step = 2.0 ** (size.frexp().exponent - 2).clamp(min=-1)  # 0.5 below 2, 1 below 4, then 2
    multiples = (size / step).round() * step  # torch rounds ties to even
    return (multiples * wide.sign()).to(values.dtype), exponent
    ### END SOLUTION


# %% check="mx_block" points=2
check(mx_block)

# %% [markdown]
# NVFP4 has smaller blocks *and* a finer scale, and on TinyLM the smaller error. **Guess: which of the two is it?** Do
# not compare the two products, which differ in both. Cross them: blocks of 32 and 16, each with three kinds
# of scale.


# %%
def scale_of(rows: torch.Tensor, kind: str) -> torch.Tensor:
    """One scale for each block, (R, C) -> (R, 1), by which its largest should come near 6."""
    largest = absmax(rows)
    if kind == "2ᵉ, rounded down (MX)":
        return 2.0 ** (largest.log2().floor() - 2)
    if kind == "E4M3 (NVFP4)":
        unit = largest.max() / 6 / 448
        return decode(encode(largest / 6 / unit, E4M3), E4M3) * unit
    return largest / 6


linear_weights = [tiny.state_dict()[name] for name in every_linear(tiny, None)]
kinds = ("2ᵉ, rounded down (MX)", "E4M3 (NVFP4)", "any number")
crossed, cut_share, others_alone = {}, {}, {}
for kind in kinds:
    for block in (32, 16):
        left = of_cut = total = 0.0
        for weight in linear_weights:
            rows = to_rows(weight, block)
            scale = scale_of(rows, kind)
            rounded = decode(encode(rows / scale, E2M1, saturate=True), E2M1) * scale
            error = (rounded - rows).double().square()
            left += error.sum().item()
            of_cut += (
                error[rows.abs() > 6 * scale].sum().item()
            )  # of the numbers beyond the largest
            total += rows.double().square().sum().item()
        crossed[kind, block] = 10 * math.log10(total / left)
        cut_share[kind, block] = of_cut / left
        others_alone[kind, block] = 10 * math.log10(total / (left - of_cut))

blocks = torch.cat([to_rows(weight, 32) for weight in linear_weights])
cut = (absmax(blocks) / scale_of(blocks, kinds[0]) > 6).double().mean().item()
print(f"MX: in {cut:.0%} of the blocks of 32 the largest is beyond 6, and cut")
for block in (32, 16):
    print(
        f"MX, blocks of {block}: {cut_share[kinds[0], block]:.0%} of the error is that of cut numbers; "
        f"the others alone have {others_alone[kinds[0], block]:.1f} dB"
    )
few = {"FP4, row": FewBits(E2M1), "MXFP4": MX(), "NVFP4": NVFP4(), "FP4, 32": FewBits(E2M1, 32)}
four = {name: loss_and_bits(scheme) for name, scheme in few.items()}
print("\nTinyLM       loss   bits")
for name, (loss, bits) in four.items():
    print(f"{name:9}{loss:8.3f}{bits:7.2f}")

# %% tags=["collapsed"] slide=True
# Figure behind a guess: block and scale crossed; does it hold here?
mx, fine, free_scale = (crossed[kind, 32] for kind in kinds)
mx16, fine16, free16 = (crossed[kind, 16] for kind in kinds)
figure, (axes,) = new_figure(height=2.3)
for block, colour, above_line in ((32, BLUE, -0.32), (16, ORANGE, 0.2)):
    values = [crossed[kind, block] for kind in kinds]
    axes.plot(values, range(3), "o", color=colour, markersize=9, label=f"blocks of {block}")
    for height, value in enumerate(values):
        axes.text(value, height + above_line, f"{value:.2f}", ha="center", size=9, color=colour)
axes.set_yticks(range(3), kinds)
axes.set(xlabel="dB, FP4 on all linear layers", ylim=(-0.6, 2.6), xlim=(18.6, 21))
axes.legend(frameon=False, loc="lower right")
axes.set_title("The finer scale wins a decibel; smaller blocks win nothing under MX's scale")
predict(
    "FP4 with NVFP4's scale and blocks is 1.6 dB better than with MX's. What would blocks of 16 alone win, with MX's scale?",
    ["1.6 dB, all of it", "0.8 dB, half of it", "nothing"],
    f"nothing ({mx16 - mx:+.2f} dB); the finer scale alone, in blocks of 32, wins {fine - mx:.1f} dB",
    Picture(
        figure,
        "Three kinds of scale, blocks of 32 and of 16, dB: "
        + "; ".join(f"{k}: {crossed[k, 32]:.2f} and {crossed[k, 16]:.2f}" for k in kinds),
    ),
)
assert -0.3 < mx16 - mx < -0.03 and 0.9 < fine - mx < 1.2 and 1.4 < fine16 - mx < 1.8
assert 0.45 < fine16 - fine < 0.75 and free_scale - fine < 0.1 and free16 - fine16 < 0.15
assert 0.35 < cut < 0.5 and others_alone[kinds[0], 16] - others_alone[kinds[0], 32] > 0.15
assert 0.12 < cut_share[kinds[0], 32] < 0.18 < 0.19 < cut_share[kinds[0], 16] < 0.25
assert cut_share[kinds[1], 16] < 0.03
assert four["NVFP4"][0] < four["FP4, 32"][0] < four["MXFP4"][0] and four["MXFP4"][1] < 4.26

# %% [markdown]
# It is mostly the scale: 1.0 of the 1.6 dB. And that is free, for an E4M3 number takes 8 bits, as a power of two does. Smaller
# blocks under MX's scale win *nothing*, they even lose a
# little. How can that be? A smaller block has a scale that fits better, we said in chapter 05. But MX rounds its scale
# down to a power of two, and in two of five blocks the largest number then lies beyond 6 and is cut, by up to
# a quarter. Twice as many blocks have twice as many largest numbers to cut: these few have 15 % of the error in blocks of
# 32, and 22 % in blocks of 16. All the other numbers do gain by smaller blocks, 0.2 dB. With E4M3 scales hardly anything is cut,
# and blocks of 16 win their 0.6 dB. But they cost a quarter of a bit more, and a
# quarter of a bit is worth 1.5 dB to whoever can spend it on finer levels.
#
# In loss, MXFP4 is behind even one scale for a whole row; NVFP4 is the best of the four, with as many bits as FP4 in blocks of 32. What
# speaks for both is the hardware, which multiplies them as they are (chapter 10).
#
# ## 5. Codes of unequal length
#
# Everything so far gave each weight a code of the same length.
#
# Quantize the layer as chapter 05 first did: 15 even levels, from the largest weight to its opposite, and 4 bits
# for each code. If frequent codes could have shorter names, how many bits would a code
# take on average? **Guess now**, before you look at the counts.

# %% tags=["collapsed"] slide=True
# A guess first
step = float(weights.abs().max()) / 7
codes = (weights[0] / step).round().long() + 7  # from 0 to 14
predict(
    "Fifteen even levels from end to end, four bits for each code. With names of unequal length a code takes on average",
    ["3.5 bits", "2.6 bits", "1.7 bits"],
    f"{8 * len(encode_bits(codes)) / len(codes):.1f} bits",
)

# %%
counts = torch.bincount(codes, minlength=15)
print("code  " + "".join(f"{code:6}" for code in range(-7, 8)))
print("count " + "".join(f"{count:6}" for count in counts.tolist()))

# %% [markdown] slide="5. Codes"
# More than half of the codes are 0. The name of a code that occurs all the time should be short.
#
# How short? Give a code the share $p$ of all names: the code $0$ all names that begin with the bit 0, that is half
# of them. A name of $\ell$ bits takes the share $2^{-\ell}$, since so many of all long strings of bits begin with it. No
# name may be the beginning of another one, or a reader would not know where it ends (a **prefix code**). So the
# shares must not overlap, and together they fill at most everything:
#
# $$\sum_j 2^{-\ell_j} \le 1 , \qquad
#   \text{and the mean length } \sum_j p_j\,\ell_j \;\ge\; H = \sum_j p_j \log_2 \frac{1}{p_j} .$$
#
# The first is Kraft's inequality (Kraft, 1949), and it holds the other way round, too: lengths that keep to it have a prefix code. You will
# see one made of them below. The second follows from it, since the logarithm of a mean is at least the mean of logarithms:
# $H - \sum_j p_j \ell_j = \sum_j p_j \log_2 (2^{-\ell_j} / p_j) \le \log_2 \sum_j 2^{-\ell_j} \le 0$.
#
# $H$ is the **entropy** (Shannon, 1948). It is reached if each code gets the share that it needs, $2^{-\ell_j} = p_j$, a length of
# $\log_2 (1/p_j)$ bits. But lengths are whole numbers. The best whole ones are found by an argument of two lines
# (Huffman, 1952). The two rarest codes should have the longest names, and these can differ in the last bit alone. So join
# the two into one code, whose count is the sum of theirs, and solve the smaller problem.
#
# ## Exercise 7: Huffman's lengths
#
# Only the lengths are asked for: whenever two groups are joined, all codes in them get one bit longer. `heapq`, a
# queue that gives back its smallest entry, is imported.


# %% exercise="code_lengths"
def code_lengths(counts: torch.Tensor) -> torch.Tensor:
    """Bits of each symbol in a prefix code for which Σ count · length is the least possible.

    counts: how often each symbol occurs, int64 (K,), from 0 to 10⁹. Returns int64 (K,): 0 for a
    symbol that does not occur, 1 if it is the only one. Otherwise Σ 2^−length over those that occur
    is 1. Several answers are right where counts are equal. No length is too large.
    """
    ### BEGIN SOLUTION
    lengths = torch.zeros_like(counts)
    heap = [(count, [symbol]) for symbol, count in enumerate(counts.tolist()) if count]
    heapq.heapify(heap)
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    while len(heap) > 1:
        (one, symbols), (other, more) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[symbols + more] += 1
        heapq.heappush(heap, (one + other, symbols + more))
    return lengths
    ### END SOLUTION


# %% check="code_lengths" points=3
check(code_lengths)

# %%
huffman = yours("code_lengths")


def mean_length(counts: torch.Tensor) -> float:
    """Bits of a code on average, by Huffman."""
    return (counts * huffman(counts)).sum().item() / counts.sum().item()


books = {
    "15 even levels, end to end": codes,
    "16 even levels, clipped": nearest_codes(weights, clipped_levels(weights, 16))[0].long(),
    "16 levels of k-means": nearest_codes(weights, optimal_levels(weights, 16))[0].long(),
}
lengths_of = {}
print(f"{'':32}entropy   Huffman   (bits a code)")
for name, book_codes in books.items():
    lengths_of[name] = float(code_entropy(book_codes, 16)), mean_length(torch.bincount(book_codes))
    print("{:32}{:7.2f}{:10.2f}".format(name, *lengths_of[name]))

print("\na coin that shows heads nine times in ten; tosses coded together: bits a toss")
coin = {}
for tosses in (1, 2, 3, 4, 6):
    heads = torch.tensor([bin(word).count("1") for word in range(2**tosses)])
    chances = 9**heads  # out of 10 to the power of tosses
    coin[tosses] = mean_length(chances) / tosses
    print(f"{tosses}: {coin[tosses]:.3f}", end="   ")
coin_entropy = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
print(f"\nentropy: {coin_entropy:.3f}")

# %% tags=["collapsed"] slide=True
# Figure: Huffman's lengths beside log₂(1/p); does it hold here?
figure, (axes,) = new_figure(height=3.2)
lengths = huffman(counts)
seen = counts > 0
exact = (counts.sum() / counts.clamp(min=1)).log2()
places = torch.arange(-7, 8)
axes.bar(places[seen].tolist(), lengths[seen].tolist(), color=SKY, label="Huffman's bits")
axes.plot(places[seen].tolist(), exact[seen].tolist(), "o", color=BLUE, label="log₂(1/p)")
axes.set(xlabel="code", ylabel="bits", xticks=range(-7, 7), yticks=range(0, 17, 4), ylim=(0, 20))
axes.axhline(4, color=RED, linestyle="--", label="fixed length")
axes.legend(frameon=False, ncols=3, loc="upper center")
axes.set_title(
    "Huffman names a frequent code in 1 bit, a rare one in 12; fixed length takes 4 for all"
)
even_entropy, even_huffman = lengths_of["15 even levels, end to end"]
assert 1.5 < even_entropy < 1.65 and 1.65 < even_huffman < 1.77
assert lengths_of["16 levels of k-means"][0] > 3.5 and codes.eq(7).double().mean() > 0.5
assert coin[1] == 1 and 0.6 < coin[2] < 0.7 and coin[6] - coin_entropy < 0.03
assert lengths[7] == 1 and lengths.max() == 12
Picture(
    figure,
    "Bars, Huffman's length of each of the codes −7 to 6: 1 bit in the middle, up to 12 at the ends. Points, "
    "log₂(1/p), lie near the three middle bars' ends and above the others; a dashed line at 4 bits.",
)

# %% [markdown]
# Whole bits: the three frequent codes take 1, 2 and 3 of them, where they need 0.8, 2.2 and 2.3. That leaves an eighth of all names for the
# other codes, which are 2 % of all, so these have shorter names than they need. It costs 0.14 bits a code.
#
# Of the four bits, 2.3 were air. The stretched ruler of chapter 05 was not so wasteful after all: it was badly
# *written down*. K-means leaves little air: its levels are used much less unequally, 3.6 of 4 bits. Keep this in mind.
#
# Where one code takes far more than half, whole bits hurt. A coin with nine heads in ten has 0.47 bits of surprise a toss, and
# Huffman needs a whole bit. Code several tosses together, and it comes down. (Arithmetic coding does that
# without a table of names, and so does what many of today's coders use, asymmetric numeral systems: Duda, 2013.)
#
# ### The canonical code
#
# Must the file hold all names? No. Sort the codes by length, those of equal length by number, and count upwards
# in binary; where the length grows, append zeros. Now the lengths alone say everything, half a byte for each code, if none is
# longer than 15 bits. (Here none is, but only by luck: your `code_lengths` knows no limit. The library has one and finds the best lengths under it by
# another method: Larmore and Hirschberg, 1990.) If lengths keep to Kraft's inequality, the counting never runs out of names.
# Such a code is called **canonical**. (Schwartz and Kallick, 1964.)
#
#     symbol     0    1    2    3
#     length     1    3    2    3
#     name       0  110   10  111
#
# ## Exercise 8: read a canonical code


# %% exercise="decode_canonical"
def decode_canonical(bits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The symbols, int64 (M,), that a stream of bits holds in the canonical code of these lengths.

    bits: 0 or 1, uint8 (N,); N may be 0. lengths: of a prefix code, int64 (K,), 0 for a symbol
    without a code, at most 40. Codes count upwards as binary numbers: the shortest first, of equal
    lengths the lower symbol first, and a 0 is appended for each bit that a code is longer than the
    one before. Raises ValueError if the last bits are no whole code.
    """
    ### BEGIN SOLUTION
    number, before, symbols = 0, 0, {}
    for length, symbol in sorted((n, s) for s, n in enumerate(lengths.tolist()) if n):
        number <<= length - before
        symbols[length, number] = symbol
        number, before = number + 1, length
    found, number, length = [], 0, 0
    for bit in bits.tolist():
        number, length = 2 * number + bit, length + 1
        if (length, number) in symbols:
            found.append(symbols[length, number])
            number, length = 0, 0
    if length:
        raise ValueError(f"bits must end where a code ends; {length} are left over")
    return torch.tensor(found, dtype=torch.int64)
    ### END SOLUTION


# %% check="decode_canonical" points=2
check(decode_canonical)

# %% [markdown]
# Write 2,000 codes, read them again, and then do some harm: flip one bit. With codes of a fixed
# length that spoils one weight. **Guess:** how many codes are spoiled here? Try 250 places, with the codes of k-means and with
# those of the clipped even levels.

# %% slide=True
read_names = yours("decode_canonical")
spoiled = {}
for name in ("16 levels of k-means", "16 even levels, clipped"):
    sample = books[name][:2000]
    lengths = huffman(torch.bincount(sample, minlength=16))
    names = canonical_codes(lengths).tolist()
    text = "".join(f"{names[code]:0{lengths[code]}b}" for code in sample.tolist())
    bits = torch.tensor([int(bit) for bit in text], dtype=torch.uint8)
    read = read_names(bits, lengths)
    told = "equal" if read.equal(sample) else "different"
    print(f"{name}: 2,000 codes in {len(bits)} bits; read again: {told}")
    wrong, shifted, before = [], 0, sample.tolist()
    for place in range(1000, 1250):
        harmed = bits.clone()
        harmed[place] ^= 1
        after = read_names(harmed, lengths).tolist()
        same = next(n for n in range(2000) if after[n] != before[n])
        tail = 0
        while after[-1 - tail] == before[-1 - tail]:
            tail += 1
        wrong.append(len(before) - same - tail)
        shifted += len(after) != len(before)
    spoiled[name] = sorted(wrong), shifted / len(wrong)

# %% tags=["collapsed"] slide=True
# The guess; does it hold here?
predict(
    "One bit of Huffman's stream is flipped. How many of the 2,000 codes come out wrong, in a typical case?",
    ["1", "2 or 3", "about 50", "half of all that follow"],
    "; ".join(
        f"{name}: {wrong[len(wrong) // 2]}, at most {wrong[-1]}; in {shifted:.0%} of the cases there are more or fewer codes than before"
        for name, (wrong, shifted) in spoiled.items()
    ),
)
assert read.equal(sample) and len(bits) < 2000 * 3.8
for wrong, shifted in spoiled.values():
    assert 1 <= wrong[len(wrong) // 2] <= 4 and wrong[-1] < 60 and 0.1 < shifted < 0.7

# %% [markdown]
# A few codes are wrong, then the reader falls into step by luck. But in nearly three cases of ten (here; other codes and other places have other
# shares) a code more or less came out, and then every weight behind it stands in its neighbour's place. A file with codes of unequal length therefore carries a check sum.
#
# There is another price: to know where a code begins, one has to have read all before. The library writes where each block
# of 1,024 codes begins, for 1/64 of a bit, so a shift ends with its block, and it can read the blocks side by side, from a table
# that says for any 15 bits which code they begin with. Section 9 has the time.
#
# ---
# **Pause.** Here the second sitting ends.
#
# ## 6. The contest
#
# **At equal bytes**, everything counted, which leaves less error?
#
# * **The cleverest levels**: the best $2^R$ levels there are, and codes of $R$ bits.
# * **The dullest levels**: even ones, without end, and Huffman's code. The step is the smallest with which the file keeps to
#   $R$ bits a weight. (`EvenCoded` of the library. It has one trick that rounding to the nearest has not: a weight near the
#   middle of two levels goes to the one with the shorter name, where the bits saved are worth more than the error. DeepCABAC,
#   Wiedemann et al., 2020, compresses networks in much this way: even levels, a price for a bit, and arithmetic coding.)
#
# **Guess** who wins at 3 bits on our layer, and by how many decibels. One bit is worth 6.


# %%
def even_and_coded(rows: torch.Tensor, bits: float) -> tuple[float, float]:
    """Decibels of even levels under Huffman's code, and the bits a weight that it took."""
    parts = encode_even(rows, EvenCoded(step_for([rows], bits)))
    taken = 8 * parts["even_coded"].nbytes / rows.numel()
    return decibels(decode_even(parts, rows.shape), rows), taken


def best_fixed(rows: torch.Tensor, bits: int) -> float:
    return decibels(on_levels(rows, optimal_levels(rows, 2**bits)), rows)


def nearest_and_coded(rows: torch.Tensor, bits: float) -> float:
    """The same without the trick: each weight goes to the nearest level."""
    low, high = -10.0, 0.0  # log₂ of the step; the high one fits
    for _ in range(14):
        middle = (low + high) / 2
        codes = (rows / 2**middle).round().long().flatten()
        fits = 8 * stream_size(torch.bincount(codes - codes.min())) <= bits * rows.numel()
        low, high = (low, middle) if fits else (middle, high)
    return decibels((rows / 2**high).round() * 2**high, rows)


contest, used, plain = {}, {}, {}
for bits in (2, 3, 4, 5, 6):
    fixed = decibels(on_levels(weights, clipped_levels(weights, 2**bits)), weights)
    contest[bits] = (fixed, best_fixed(weights, bits), *even_and_coded(weights, bits))
    used[bits] = even_codes(weights, step_for([weights], bits)).unique(return_counts=True)[1]
    plain[bits] = nearest_and_coded(weights, bits)
leads = {bits: row[2] - row[1] for bits, row in contest.items()}

# %% tags=["collapsed"] slide=True
# Figure behind a guess: where the error is; the table
best16, step16 = optimal_levels(weights, 16), step_for([weights], 4)
misses = {
    "16 levels of k-means": (on_levels(weights, best16) - weights)[0].square(),
    f"{len(used[4])} even levels under Huffman's code": (
        even_codes(weights, step16) * step16 - weights
    )[0].square(),
}
bins = ((weights[0] + 2.1) / 0.06).long()  # of width 0.06
middles = (torch.arange(70) + 0.5) * 0.06 - 2.1
present = torch.bincount(bins, minlength=70)
figure, (axes,) = new_figure(height=3.2)
for (name, squares), colour in zip(misses.items(), (RED, BLUE), strict=True):
    mean = (torch.zeros(70).index_add(0, bins, squares) / present).sqrt()
    shown = present > 0
    axes.plot(middles[shown].tolist(), mean[shown].tolist(), ".-", color=colour, label=name)
axes.set(xlabel="weight", ylabel="typical error (rms)", yscale="log", ylim=(0.002, 2))
axes.legend(frameon=False, loc="upper center")
axes.set_title("4 bits: with a fixed length the far weights pay, under a code none does")
predict(
    "3 bits a weight, everything counted. Even levels under Huffman's code against the best 8 levels:",
    ["2.5 dB worse", "about equal", "2.5 dB better"],
    f"{leads[3]:.1f} dB better",
    Picture(
        figure,
        "Root mean squared error over the weight, 4 bits. K-means' 16 levels: lowest around 0, and at the ends "
        "dozens of times as high. Even levels under Huffman's code: about the same everywhere.",
    ),
)
print(
    "layer, dB   even, clipped   k-means   even + Huffman, bits   without the trick   levels that it uses"
)
for bits, row in contest.items():
    line = "{:9}{:16.1f}{:10.1f}{:14.1f} in {:.3f}".format(bits, *row)
    print(f"{line}{plain[bits]:16.1f}{len(used[bits]):17}")
print(
    f"of the {len(used[4])} levels at 4 bits, {int((used[4] < 10).sum())} serve fewer than ten weights"
)
both_clever = {}
for bits in (3, 4):
    clever = nearest_codes(weights, optimal_levels(weights, 2**bits))[0].long()
    shorter = mean_length(torch.bincount(clever))
    both_clever[bits] = shorter, even_and_coded(weights, shorter)[0]
    print(
        f"k-means' {2**bits} levels under Huffman's code, too: {contest[bits][1]:.1f} dB in {shorter:.2f} bits; "
        f"even levels in as many {both_clever[bits][1]:.1f}"
    )
served = torch.bincount(clever)
of_cell = 100 * torch.zeros(16).index_add(0, clever, misses["16 levels of k-means"])
of_cell = of_cell / misses["16 levels of k-means"].sum()
print(
    f"a cell of k-means' 16 levels has from {served.min():,} to {served.max():,} weights, "
    f"and from {of_cell.min():.0f} to {of_cell.max():.0f} % of the error"
)
# OMP_NUM_THREADS=1 python -m benchmarks.coding_controls clever, 2026-11-26, one core of an x86 server
STORED_CLEVER = {  # bits, ideal coder: dB of even levels, of the means of their cells, of levels made for the code
    2: (10.15, 10.56, 10.55),
    3: (16.46, 16.56, 16.53),
    4: (22.58, 22.60, 22.60),
}
print("\nideal coder (stored), dB   even levels   means of their cells   levels made for the code")
for bits, row in STORED_CLEVER.items():
    print("{:9} bits{:24.2f}{:23.2f}{:27.2f}".format(bits, *row))
print(
    "\nHuffman over the best levels, dB      least  median  last but one  most   (28 layers, stored)"
)
for bits in (2, 3, 4):
    row = STORED_LAYERS[f"Huffman over the best levels, {bits} bits"]
    print("{:9} bits{:28.2f}{:8.2f}{:14.2f}{:6.2f}".format(bits, *row))
assert 0.4 < contest[2][2] - plain[2] < 0.8 and 0.05 < contest[3][2] - plain[3] < 0.3
assert contest[4][2] - plain[4] < 0.1
assert 0.4 < (used[4] < 10).double().mean() < 0.5 and 50 < len(used[4]) < 60
assert of_cell.min() > 4.5 and of_cell.max() < 12 and served.max() > 200 * served.min()

# %% [markdown] slide="6. The contest"
# The dull ones win, at every number of bits: by 1.1 decibels at 2 bits, by 2.4 at 3, and by 3.5 to 3.8 from 4 bits on, more
# than half a bit for each weight. (The list of levels we even give to the other side.) At 2 bits half of the lead is the trick; at 4
# bits the trick does next to nothing. And as in section 1, at 3 and 4 bits no layer gains more than this one. Over all 28 the lead is typically 0.8, 1.6 and
# 2.2 dB at 2, 3 and 4 bits: from an eighth of a bit to a good third.
#
# And if k-means gets Huffman's code, too? Its 16 levels take 3.65 bits then, for the same 18.8 dB. Even levels in as many bits have
# 20.3. Levels that are used much alike leave a code little to shorten. The cleverest opponent would choose its levels *for* the code (entropy-constrained
# quantization: Chou et al., 1989). That one does win, with an ideal coder on both sides (stored lines): 0.4 dB at 2 bits, 0.1 at 3, nothing at 4. And even levels get all
# of it, if each moves to the mean of its cell.
#
# Why? Think of what a level *costs*. With codes of a fixed length a level costs a place: 16 places, no more, and the 16 must serve
# the hill and the far weights alike. So those at the ends are wide. In the best codebook a cell far out, with 39 weights, has about
# as much of the error as one in the crowd, with 11,000 (that is what the cube root says). With codes of unequal
# length a level costs nothing as long as nobody uses it. Even + Huffman uses 54 levels at 4 bits, nearly half of
# them for fewer than ten weights. Every weight, near or far, gets the same small step.
#
# Now derive it. Let the step $\Delta$ be small. A code's probability is $p(x)\,\Delta$, so the entropy of the codes, the rate $R$ of
# an ideal coder, is
#
# $$R = \sum_x p(x)\Delta \log_2 \frac{1}{p(x)\Delta} \;\approx\; h - \log_2 \Delta, \qquad h = \int p(x) \log_2 \frac{1}{p(x)}\,dx,$$
#
# and the error is $D = \Delta^2 / 12$. The $h$ is the **differential entropy** of the density. (It may be negative: halve all
# numbers, and it falls by one bit.) Together (Gish and Pierce, 1968), beside Shannon's bound for *any* quantizer, of any dimension and any
# cleverness, and beside the best levels with a fixed length (Panter and Dite, 1951):
#
# $$D_\text{even, coded} = \frac{1}{12}\, 2^{2(h - R)}, \qquad
#   D_\text{any} \ge \frac{1}{2 \pi e}\, 2^{2(h - R)}, \qquad
#   D_\text{fixed} = \frac{1}{12} \Big(\int p^{1/3}\Big)^3 2^{-2R} .$$
#
# Where does $1 / (2 \pi e)$ come from? No cell of its size has less error than a ball, and in very many dimensions a ball of
# volume 1 has $1 / (2 \pi e)$ in each coordinate, where a cube has $1/12$.
#
# Even levels are $2 \pi e / 12 = 1.42$ times the bound, 1.53 dB, **a quarter of a bit, for every smooth density**, as long as the step is
# small and the coder ideal. Nothing cleverer can win more than that. And the best levels of a fixed length? That depends on $p$. For a
# normal density they are 4.35 dB above the bound. For numbers spread evenly over an interval they are the even levels, and Huffman has nothing to shorten.
#
# So here is a test of the explanation. If unequal use is what Huffman lives on, its lead must vanish for numbers spread
# evenly, and grow with the tails.

# %%
u = torch.rand(1, 2**17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
u = u.clamp(1e-12, 1 - 1e-12)
shapes = {  # numbers; (∫ p^⅓)³; 2^2h
    "spread evenly": (u - 0.5, 1.0, 1.0),
    "normal": (torch.special.ndtri(u), 6 * math.sqrt(3) * math.pi, 2 * math.pi * math.e),
    "Laplace": ((u - 0.5).sign() * -torch.log1p(-2 * (u - 0.5).abs()), 108, 4 * math.e**2),
    "the layer": (weights, None, None),
}
print("4 bits, dB       best levels, formula   even + Huffman, formula     lead, formula")
lead, theory = {}, {}
for name, (numbers, cube, spread) in shapes.items():
    numbers = numbers.float()
    fixed, (coded, _) = best_fixed(numbers, 4), even_and_coded(numbers, 4)
    lead[name], power = coded - fixed, float(numbers.double().square().mean())
    formulas = [10 * math.log10(12 * power * 4**4 / x) if x else math.nan for x in (cube, spread)]
    theory[name] = (fixed - formulas[0], formulas[1] - coded, formulas[1] - formulas[0])
    line = f"{name:15}{fixed:13.2f}{formulas[0]:9.2f}{coded:17.2f}{formulas[1]:9.2f}"
    print(line + f"{lead[name]:+11.2f}{theory[name][2]:7.2f}")

small = float(weights.std()) / 20
small_codes = (weights / small).round().long()
small_codes -= small_codes.min()
h = float(code_entropy(small_codes, int(small_codes.max()) + 1)) + math.log2(small)


def bound(bits: float) -> float:
    """Shannon's lower bound for single weights like the layer's, in decibels."""
    least = 2 ** (2 * (h - bits)) / (2 * math.pi * math.e)
    return 10 * math.log10(float(weights.square().mean()) / least)


print("\nShannon's bound for the layer, dB: ", end="")
print(", ".join(f"{bits} bits {bound(bits):.1f}" for bits in contest))

# %% tags=["collapsed"] slide=True
# Figure: decibels over bits; does it hold here?
figure, (axes,) = new_figure(height=3.6)
rates = list(contest)
axes.plot(rates, [bound(bits) for bits in rates], "k--", label="Shannon's bound")
for column, label, colour, mark in (
    (2, "even + Huffman", BLUE, "o-"),
    (1, "k-means, the best there is", RED, "s-"),
    (0, "even, clipped", ORANGE, "^-"),
):
    axes.plot(rates, [contest[b][column] for b in rates], mark, color=colour, label=label)
axes.set(xlabel="bits a weight", ylabel="dB", xticks=rates)
axes.legend(frameon=False, loc="upper left")
axes.set_title("Dull levels and Huffman: 2 dB from the limit at every rate")
gap = {bits: bound(bits) - row[2] for bits, row in contest.items()}
assert all(row[3] <= bits for bits, row in contest.items())
assert all(even > contest[bits][1] + 0.8 for bits, (_, even) in both_clever.items())
assert 0.9 < leads[2] < 1.4 and 2.2 < leads[3] < 2.7 and min(leads[4], leads[5], leads[6]) > 3.3
assert all(1.5 < gap[bits] < 2.3 for bits in rates)
assert lead["spread evenly"] < 0 and 1.8 < lead["normal"] < 2.2 and lead["Laplace"] > 4.4
for name in (
    "normal",
    "Laplace",
):  # what the best levels do better than their formula, of the whole
    better, missing, by_theory = theory[name]
    assert 0.5 < better / (by_theory - lead[name]) < 0.75 and missing > 0.2
Picture(
    figure,
    "Decibels over bits from 2 to 6, four rising lines. Even levels with Huffman run about 2 dB below Shannon's bound; "
    "k-means lies 1 to 4 dB below them, clipped even levels lower still, most at many bits.",
)

# %% [markdown]
# The lead follows the shape, as it should: none for numbers spread evenly, 2 dB for normal ones, nearly 5 for Laplace's. By the
# formulas it is 0, 2.8 and 5.6; a good half of what is missing is that 16 levels do better than their formula, which is one for many, and the rest
# is the file: whole bits, and where blocks begin. (Numbers spread evenly even lose half
# a decibel. 16 even levels would fill four bits to the last. Ours have one at zero, so an interval around zero holds 15 whole steps and
# two halves, and the halves want names as well.) Our layer lies between
# normal and Laplace. And its even levels end 1.8 to 2.1 dB below Shannon's bound at all rates: a third of a bit is all that
# the cleverest method in the world could still save in squared error. (For weights that know nothing of each other, that is.)
#
# ### And in loss?
#
# All linear layers of TinyLM in 2, 3 and 4 bits; a step for each matrix, so that each keeps to its bits. Beside it
# **one step for all**: then every weight of the model has the same error, a matrix of larger weights gets more bits, and the
# decibels of all together are the best that there are. **Guess:** is the loss the best, too? (The cell takes a while.)

# %%
state = tiny.state_dict()
matrices = {name: state[name] for name in every_linear(tiny, None)}


def together(steps: dict[str, float]) -> tuple[float, float, float]:
    """Loss, bits, and decibels of all matrices together, even levels of these steps."""
    packed = pack_model(tiny, {name: EvenCoded(step) for name, step in steps.items()})
    model = unpack_model(packed, tiny)
    flat = [
        torch.cat([some[name].flatten() for name in matrices])
        for some in (model.state_dict(), matrices)
    ]
    stored = sum(part.nbytes for key, part in packed.items() if key.partition(":")[0] in matrices)
    loss = tiny_quality(model, tokenizer).bits_per_byte
    return loss, 8 * stored / len(flat[0]), decibels(*flat)


language, own_step, one_step = {}, {}, {}
for bits in (2, 3, 4):
    own_step[bits] = {n: step_for([w], bits) for n, w in matrices.items()}
    one_step[bits] = dict.fromkeys(matrices, step_for(list(matrices.values()), bits))
    language["k-means, a tensor", bits] = loss_and_bits(Codebook(bits))
    language["Huffman, own steps", bits] = together(own_step[bits])
    language["Huffman, one step", bits] = together(one_step[bits])

own_down = {name: step for name, step in own_step[3].items() if "down" in name}
others = {name: weight for name, weight in matrices.items() if name not in own_down}
steps_for = {
    "a step for each matrix": own_step[3],
    "one step for all": one_step[3],
    "`down` its own, one for the others": own_down
    | dict.fromkeys(others, step_for(list(others.values()), 3)),
    "one step as it was, `down` its own": one_step[3] | own_down,
    "one step for all, in as many bits": dict.fromkeys(
        matrices, step_for(list(matrices.values()), 3.11)
    ),
}
story = {name: together(steps) for name, steps in steps_for.items()}

# %% tags=["collapsed"] slide=True
# The guess, the tables; figure: loss over bits; does it hold here?
predict(
    "At 3 bits one step for all matrices has more decibels than a step for each. Its loss is",
    ["lower", "the same", "higher"],
    f"higher, {language['Huffman, one step', 3][0]:.3f} against {language['Huffman, own steps', 3][0]:.3f}",
)
print("TinyLM's linear layers             2 bits           3 bits           4 bits")
for name in ("k-means, a tensor", "Huffman, own steps", "Huffman, one step"):
    cells = [language[name, bits] for bits in (2, 3, 4)]
    decibel = [f" ({row[2]:.1f} dB)" if len(row) > 2 else " " * 10 for row in cells]
    print(
        f"{name:26}"
        + "".join(f"{row[0]:8.3f}{more}" for row, more in zip(cells, decibel, strict=True))
    )
print("\nabout 3 bits                           loss   bits")
for name, (loss, bits, _) in story.items():
    print(f"{name:36}{loss:8.3f}{bits:7.2f}")
print("\none step − own steps on all 59 held-out chapters (stored):")
for bits in (2, 3, 4):
    print(
        "   {} bits {:+.4f} ± {:.4f}".format(
            bits, *STORED_TEXT[f"one step, {bits}", f"own steps, {bits}"]
        ),
        end="",
    )
print(
    "\nin 3.11 bits, one step − `down` its own: {:+.4f} ± {:.4f}".format(
        *list(STORED_TEXT.values())[-1]
    )
)
figure, (axes,) = new_figure(height=3.8)
for name, colour, mark in (("Huffman, own steps", BLUE, "o-"), ("k-means, a tensor", RED, "s-")):
    points = [language[name, bits] for bits in (3, 4)]
    axes.plot(
        [row[1] for row in points], [row[0] for row in points], mark, color=colour, label=name
    )
others = {
    "Lloyd-Max,\nrows, rms": units["row", "rms"][:1:-1],
    "blocks of 64,\nrms": units["block of 64", "rms"][:1:-1],
    "FP4, rows": four["FP4, row"][::-1],
    "MXFP4": four["MXFP4"][::-1],
    "NVFP4": four["NVFP4"][::-1],
    "NF4": doubly[::-1],
}
for (name, (bits, loss)), shift in zip(
    others.items(), ((-8, -25), (-14, -25), (-6, 12), (5, 6), (-8, -17), (6, -5)), strict=True
):
    axes.plot(bits, loss, "D", color=GREEN, markersize=5)
    axes.annotate(name, (bits, loss), shift, textcoords="offset points", size=8.5)
axes.axhline(dense_bits, color="black", linestyle="--")
axes.text(2.96, dense_bits + 0.002, "dense", size=9)
axes.set(xlabel="bits a weight of the linear layers", ylabel="bits per byte", xlim=(2.92, 4.65))
axes.legend(frameon=False)
axes.set_title("At 3 and 4 bits Huffman has the lowest loss of the forms drawn here")
for bits in (2, 3, 4):
    assert language["Huffman, own steps", bits][0] < language["k-means, a tensor", bits][0] - 0.008
    assert language["Huffman, own steps", bits][2] < language["Huffman, one step", bits][2] - 0.05
for bits, gap in ((2, 0.02), (3, 0.004)):
    assert language["Huffman, own steps", bits][0] < language["Huffman, one step", bits][0] - gap
kept, alike, moved, grown, as_many = (row[0] for row in story.values())
assert moved > kept + 0.004 and grown < alike - 0.006 and abs(as_many - grown) < 0.006
assert 3.08 < story["one step as it was, `down` its own"][1] < 3.14
assert as_many < alike - 0.004
Picture(
    figure,
    "Bits per byte over bits a weight. Even levels with Huffman: "
    + ", ".join(f"{language['Huffman, own steps', b][0]:.3f} at {b} bits" for b in (3, 4))
    + "; k-means "
    + ", ".join(f"{language['k-means, a tensor', b][0]:.3f}" for b in (3, 4))
    + "; "
    + ", ".join(
        f"{n.replace(chr(10), ' ')} {loss:.3f} at {b:.2f}" for n, (b, loss) in others.items()
    ),
)

# %% [markdown]
# At 3 bits 1.211, where k-means has 1.263; at 4 bits 1.181, less than NVFP4 with 4.5 bits.
#
# And at 2 and 3 bits one step for all has more decibels *and* more loss. (At 4 bits the two are equal, if one takes more text.) So a decibel is not a
# decibel. Who is hurt? A tempting answer: the one step gives few bits to the small weights of `down`, which read the largest inputs of a
# block. Give `down` its own step, and the loss falls from 1.218 to 1.206! But the file has grown by a tenth of a bit, and with as many bits one step for all has 1.210: it
# was the bits. (On all the held-out text those two are equal.) At equal bytes (third line) nothing is won. So it is not that, and what counts is the error of a layer's *output*, which chapter 11 will weigh.
#
# ## 7. Vectors
#
# Take two neighbouring weights together, as a point in the plane. A codebook of 64 *points* takes 6 bits for two weights: 3 bits
# a weight, as before. This is **vector quantization** (Linde, Buzo and Gray, 1980): k-means in the plane. What can it
# win? Eight levels along each axis are 64 points, too, on a grid.

# %% tags=["collapsed"]
# Figure: 64 points for two weights, on a grid and free
pairs = layer.reshape(-1, 2)
eight_levels = optimal_levels(weights, 8)[0]
grid = torch.cartesian_prod(eight_levels, eight_levels)
free_points = lloyd_vectors(pairs, grid, 100)
figure, axes = new_figure(columns=2, height=4.5)
for one, points, name in (
    (axes[0], grid, "8 levels for each weight"),
    (axes[1], free_points, "64 points for a pair (two lie outside)"),
):
    one.plot(*pairs[::12].T.tolist(), ".", color=SKY, markersize=1.5, alpha=0.6)
    one.plot(*points.T.tolist(), ".", color=RED, markersize=7)
    one.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), aspect="equal", xlabel="a weight", title=name)
    one.set(xticks=[-0.5, 0, 0.5], yticks=[-0.5, 0, 0.5])
axes[0].set_ylabel("its neighbour")
figure.suptitle("A grid wastes its corners: free points go where pairs are")
Picture(
    figure,
    "Two scatter plots of neighbouring weights, a round cloud. Left 64 points on a grid, those in the corners far from any pair; "
    "right 64 points of a vector codebook, spread over the round cloud; two of them lie outside the picture.",
)

# %% [markdown]
# Three things, and they can be told apart.
#
# * **Shape.** A normal cloud is round, a grid is square. The corners of the grid are wasted.
# * **Cells.** Hexagons cover a plane better than squares: 0.17 dB; in many dimensions up to 1.53 dB, which is just what separates even
#   levels from Shannon's bound.
# * **Dependence.** If neighbours know something of each other, the cloud is not round, and points can follow it.
#
# To tell them apart: numbers spread evenly fill the square and have no corners to save, so they win by *cells* alone. And if the layer's weights
# are shuffled, *dependence* goes, and the rest stays. **Guess:** what do neighbours in the layer know of each other?
#
# More weights at once, then? 256 fours take 2 bits a weight, and a codebook of 1,024 numbers for each matrix. Why not 8 weights at
# once, with $2^{16}$ points? The codebook would be larger than the layer. **Stages** are the way out: a second codebook for
# what the first left over, $v \approx u_1 + u_2$. Two books of 64 make 4,096 sums. The easy search takes the best of the first book, then the best of the
# second; the hard one tries all sums.


# %%
def in_pairs(numbers: torch.Tensor, rounds: int = 100) -> float:
    """Decibels of 64 points for two numbers, by Lloyd from a grid of 8 × 8 levels."""
    vectors, levels = numbers.reshape(-1, 2), optimal_levels(numbers.reshape(1, -1), 8)[0]
    points = lloyd_vectors(vectors, torch.cartesian_prod(levels, levels), rounds)
    return decibels(points[nearest_vector(vectors, points)], vectors)


def in_fours(numbers: torch.Tensor) -> tuple[float, float]:
    """Decibels of sums of two books of 64: searched stage by stage, and the best of all sums."""
    vectors = numbers.reshape(-1, 4)
    books, chosen = fit_stages(vectors, [64, 64])
    by_stages = books[0][chosen[0]] + books[1][chosen[1]]
    sums = (books[0][:, None] + books[1][None]).reshape(-1, 4)
    return decibels(by_stages, vectors), decibels(sums[nearest_vector(vectors, sums)], vectors)


evenly = torch.rand(192, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
by_vectors = {
    name: (best_fixed(numbers.reshape(1, -1), 3), in_pairs(numbers), *in_fours(numbers))
    for name, numbers in {
        "spread evenly": evenly,
        "normal": bell,
        "the layer": layer,
        "the layer, shuffled": shuffled,
    }.items()
}

# %% tags=["collapsed"] slide=True
# The guess, the table; does it hold here?
won = {name: row[1] - row[0] for name, row in by_vectors.items()}
predict(
    f"Pairs win {won['the layer']:.1f} dB over single weights of the layer. Its weights shuffled, so that no pair is one of neighbours, pairs win",
    ["nothing", "half as much", "as much as before, or more"],
    f"{won['the layer, shuffled']:.1f} dB",
)
print("3 bits, dB          single weights   pairs   fours, stage by stage   fours, best sum")
for name, row in by_vectors.items():
    print("{:20}{:14.2f}{:8.2f}{:24.2f}{:18.2f}".format(name, *row))
codebook_bits = {
    name: 16 * count / layer.numel() for name, count in (("pairs", 128), ("fours", 512))
}
print("the codebooks in bfloat16, bits a weight more:", end="")
print(", ".join(f" {name} {bits:.2f}" for name, bits in codebook_bits.items()))
drawn = decode_vectors(encode_vectors(evenly, Vectors(2, 6)), evenly.shape)
by_chance = decibels(drawn, evenly) - by_vectors["spread evenly"][0]
print(f"spread evenly, pairs from a start drawn at random: {by_chance:+.2f} dB")
assert 0.05 < won["spread evenly"] < 0.17 and 0.6 < won["normal"] < 0.85 and by_chance < 0.04
assert 0.75 < won["the layer"] < 1.1 and won["the layer, shuffled"] > won["the layer"]
for name in ("normal", "the layer", "the layer, shuffled"):
    _, two, easy, hard = by_vectors[name]
    assert 0.5 < hard - easy < 0.9 and abs(hard - two) < 0.35
assert contest[3][2] > by_vectors["the layer"][1] + 1

# %% [markdown]
# Neighbours know nothing of each other that pairs could use: shuffled, the layer gains even a little more. Cells bring the 0.1 dB of
# the first line (and only because Lloyd starts from the grid; from a random start it finds none of it). So nearly all
# that pairs win is shape. But shape is just what Huffman's code gets too, and without a codebook: 16.2 dB
# against 14.6. So for the disk vectors are the harder way to the same thing. In memory, where codes must have one length
# (section 9), they are a way that is left.
#
# Fours, searched stage by stage, fall behind pairs. It is not the sums that are poor, it is the search: with the *same* two books the best
# sum wins some 0.7 dB back, and draws level with pairs (for numbers spread evenly it wins 0.2, and stays behind); it takes 32 times as many distances. This is the point of AQLM (Egiazarian et al.,
# 2024), which chooses the codes of all stages together, for the outputs of a layer, and so brings language models to 2 bits.
#
# ### Where Huffman does not win
#
# In section 6 the embedding stayed as it was. Here, stored, are all matrices of TinyLM, its embedding included, which is also the head:
# Huffman's 3 bits cost more now, 1.268. At 2 bits fours win, and at 4 bits clipped rows of fixed length come close. But look at the
# bytes. Below the table Huffman gets as many as they have.

# %% tags=["collapsed"]
# Stored: the loss of TinyLM, all matrices in one form
# OMP_NUM_THREADS=1 python -m benchmarks.coding tinylm, 2026-11-26, one core of an x86 server
STORED_LOSS = {  # form: bits -> (bits per byte, bytes of the file)
    "even levels, fixed length, row": {2: (1.960, 527_824), 3: (1.310, 774_720), 4: (1.196, 1_021_608)},
    "even levels, fixed length, 64": {2: (1.832, 576_832), 3: (1.269, 826_448), 4: (1.197, 1_076_048)},
    "vectors of 4": {2: (1.619, 564_528), 3: (1.309, 780_560), 4: (1.205, 1_115_464)},
    "even levels, Huffman, one step": {2: (2.278, 502_144), 3: (1.290, 747_866), 4: (1.209, 993_647)},
    "even levels, Huffman, a step for each": {
        2: (1.909, 501_899), 3: (1.268, 747_363), 4: (1.195, 993_680),
    },
}  # fmt: skip
print(f"{'TinyLM, all matrices':40}" + "".join(f"{bits:7} bits         " for bits in (2, 3, 4)))
for name, row in STORED_LOSS.items():
    print(
        f"{name:40}"
        + "".join(f"{loss:7.3f}, {size / 1000:5.0f} kB  " for loss, size in row.values())
    )

# %%
everything = {name: weight for name, weight in state.items() if weight.dim() == 2}
beside = 10_083  # bytes of norms, names and shapes, the same in all these files
fair = {}
for name, bits in (("vectors of 4", 2), ("even levels, fixed length, row", 4)):
    loss, count = STORED_LOSS[name][bits]
    rate = 8 * (count - beside) / sum(weight.numel() for weight in everything.values())
    packed = pack_model(tiny, {n: EvenCoded(step_for([w], rate)) for n, w in everything.items()})
    now = tiny_quality(unpack_model(packed, tiny), tokenizer).bits_per_byte
    fair[name] = loss, now, count, size(packed).bytes
    print("{:32}{:.3f}, Huffman {:.3f}, in {:,} and {:,} bytes".format(name, *fair[name]))

# %% tags=["collapsed"]
# Does it hold here?
for name, margin in (("vectors of 4", -0.01), ("even levels, fixed length, row", 0.006)):
    stored_loss, now, count, bytes_now = fair[name]
    assert 0.995 < bytes_now / count < 1.003 and now < stored_loss + margin

# %% [markdown]
# The win of the vectors was one of bytes: their codebooks weigh a tenth of the file. At equal bytes Huffman is ahead by a little, and at
# 4 bits it is a tie. So with the embedding in few bits the lead shrinks. (One step for all rows of a matrix may not be what an embedding
# needs, whose rows are tokens, frequent and rare. That is a guess; we have not tested it.)
#
# ## 8. Deep Compression
#
# Now all together, in the steps of Han et al. (2016) and their *Deep Compression*. (It is the first reference of S3, under other authors'
# names and with hashing in its title, which it does not have.) A network for digits, 64-300-100-10, 50,200 weights. Four steps, each
# a function of the library, in this order in the cell:
#
# * **Prune**, to 7 % (`prune_gradually`). Ours: the weights go a few at a time (Zhu and Gupta, 2017), and then units that nothing reads
#   any more (`drop_dead_units`).
# * Let the weights that stay **share** eight values a layer, by k-means (`SharedValues`).
# * **Retrain** the eight values (`share_and_retrain`): all weights of a value move together, so a value's gradient is the sum of theirs.
# * **Write** values and gaps between them under Huffman's code (`Shared`).
#
# And the loss is ours: the network learns not only the labels but what the dense network says of each image, its teacher (`teacher_loss`; chapter 08 explains it).
# Forty epochs here, and the cell takes a while; the stored table has ninety.

# %% tags=["nbval-ignore-output"]
data = digits()
torch.manual_seed(0)
dense_net = DigitsMLP()
train_digits(dense_net, data, seed=0)


def percent(model: torch.nn.Module) -> float:
    return 100 * accuracy(model, data.test_images, data.test_labels)


recipe, loss = Recipe(epochs=30, retraining=10), teacher_loss(dense_net)
pruned = drop_dead_units(prune_gradually(dense_net, data, recipe, loss))
names = [name for name, _ in pruned.named_parameters()]
few_values = {}  # (values of a layer, whether they were retrained) -> the network
for count in (8, 2):
    values = {name: 8 if "bias" in name else count for name in names}
    few_values[count, "before retraining"] = SharedValues(pruned, values).model()
    few_values[count, "retrained"] = share_and_retrain(
        pruned, data, replace(recipe, values=count), loss
    )
in_half = {name: weight.half() for name, weight in dense_net.state_dict().items()}
files = {
    "dense, float32": (dense_net, dense_net.state_dict()),
    "dense, float16": (dense_net, in_half),
    "pruned, float16 and gaps": (pruned, pack_model(pruned, dict.fromkeys(names, Sparse()))),
}
for (count, when), model in few_values.items():
    files[f"{count} values, {when}"] = model, pack_model(model, dict.fromkeys(names, Shared()))
print(f"{'':32}accuracy     bytes   smaller by")
full, stages = size(dense_net.state_dict()).bytes, {}
for name, (model, tensors) in files.items():
    stages[name] = percent(model), size(tensors).bytes
    print("{:32}{:7.2f} %{:10,}{:9.1f}x".format(name, *stages[name], full / stages[name][1]))
back = unpack_model(files["8 values, retrained"][1], dense_net)
print(f"the file, loaded and evaluated again: {percent(back):.2f} %")
longer = prune_gradually(dense_net, data, replace(recipe, density=1.0, epochs=40), loss)
print(
    f"control, the dense network trained 40 epochs more, by the same teacher: {percent(longer):.2f} %"
)

# %% tags=["collapsed"]
# Stored: Deep Compression on the digits, five seeds
# OMP_NUM_THREADS=1 python -m benchmarks.coding digits, 2026-11-26, one core of an x86 server
STORED_DIGITS = {  # share of the weights that stay: (points of accuracy, bytes of the file) of each seed
    0.07: ((-0.19, 4263), (-0.19, 4263), (0.19, 4301), (0.00, 4279), (0.19, 4346)),
    0.035: ((-0.19, 2784), (-0.19, 2760), (-0.19, 2768), (-0.19, 2757), (-0.56, 2759)),
}
# OMP_NUM_THREADS=1 python -m benchmarks.coding_controls digits, forty epochs, the same day and server
STORED_CONTROLS = {
    "7.0%, 8 values, before": ((0.19, 4242), (-0.37, 4311), (0.19, 4288), (0.19, 4302), (0.00, 4294)),
    "7.0%, 8 values, retrained": ((0.00, 4242), (-0.37, 4311), (0.19, 4288), (0.19, 4302), (-0.37, 4294)),
    "7.0%, 2 values, before": ((-0.56, 3511), (-1.30, 3544), (-1.30, 3550), (-0.93, 3531), (-0.37, 3521)),
    "7.0%, 2 values, retrained": ((-0.19, 3511), (-0.93, 3544), (-0.56, 3550), (-0.19, 3531), (0.00, 3521)),
    "5.2%, 8 values, retrained": ((0.00, 3513), (0.19, 3519), (0.00, 3576), (0.19, 3550), (-0.56, 3525)),
    "64-101-10, 4 bits": ((-0.74, 4255), (-0.19, 4255), (0.00, 4255), (-0.56, 4255), (-0.19, 4255)),
}  # fmt: skip
print("forty epochs, five seeds       points   standard deviation   bytes")
for name, runs in STORED_CONTROLS.items():
    points = torch.tensor([run[0] for run in runs])
    count = sum(run[1] for run in runs) / len(runs)
    print(f"{name:27}{points.mean():+10.2f}{points.std():21.2f}{count:8,.0f}")
print("\nninety epochs")
for density, runs in STORED_DIGITS.items():
    points = torch.tensor([run[0] for run in runs])
    smaller = torch.tensor([202_872 / run[1] for run in runs])
    print(
        f"{density:.1%} stay: {round(points.mean().item(), 2) + 0.0:+.2f} points of accuracy (standard deviation {points.std():.2f}), "
        f"{smaller.mean():.1f} times smaller"
    )

# %% [markdown]
# The accuracy holds, and the file is 48 times smaller. What does retraining do? One network says little: one test image of the 540 is
# 0.19 points, and with eight values retraining made ours worse by one, as we had it. So look at five seeds (stored lines). With eight values a
# layer nothing was lost that could be mended: +0.04 points against the dense network before retraining, −0.07 after it. With two values 0.9 points
# are lost, and retraining brings half a point back, in every seed something.
#
# This network has weights to spare. With ninety epochs it is
# 47 times smaller at no loss that five seeds show (0.00, with a standard error of 0.09 points; the share of weights was chosen on the
# same test images), and 73 times smaller at a quarter of a point.
#
# ### What a headline leaves out
#
# "47 times smaller". Four questions for every such figure.
#
# * **Smaller than what?** Than `float32`. The network in `float16` has the same accuracy and half of the bytes: from there it is 24
#   times. A good part of any headline that starts at 32 bits is this two.
# * **What is in the file?** Han et al. (2016) count values, gaps and codebooks. Is Huffman's table counted? The biases? A header? Here
#   everything is: the number is the size of the file.
# * **Smaller than what *else*?** Would a network that was small from the start do as well? One of 64-101-10, dense, by the same teacher, 60 epochs
#   from scratch, its weights on even levels under Huffman's code at 4 bits, not retrained: as many bytes, and a third of a point behind
#   the dense network (0.34, with a standard error of 0.13), two images. So nearly all of the 47 is that the dense network is far too large for these digits. What is left for pruning and sharing is
#   a quarter of a point (−0.07 against −0.34 in the stored lines), and five seeds are hardly enough to see it.
# * **What else changed?** The compressed network was trained for many more epochs than the dense one, by a teacher. The control says what
#   that alone does: here next to nothing.
#
# And where do the bytes go? **Guess:** what takes more, the values of the weights or their places?

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure behind a guess: the file's bytes, taken apart
BYTES_OF = ("values", "places (gaps)", "codebooks", "heads, names")


def taken_apart(model: torch.nn.Module) -> dict[str, int]:
    """Bytes of all layers' parts in a file of shared values."""
    found = dict.fromkeys(BYTES_OF[:3], 0)
    for weight in model.state_dict().values():
        flat = weight.flatten()
        places = flat.nonzero().squeeze(1)
        book, cells = flat[places].unique(return_inverse=True)
        found["codebooks"] += 2 * len(book)
        found["values"] += len(encode_bits(cells))
        found["places (gaps)"] += min(len(encode_bits(gap_symbols(places, s))) for s in SPANS)
    return found


parts_bytes = taken_apart(few_values[8, "retrained"])
parts_bytes["heads, names"] = stages["8 values, retrained"][1] - sum(parts_bytes.values())
figure, (axes,) = new_figure(height=1.9)
left = 0
for (name, count), colour in zip(parts_bytes.items(), (BLUE, ORANGE, RED, SKY), strict=True):
    axes.barh(0, count, left=left, color=colour, label=f"{name}: {count:,}")
    left += count
axes.set(yticks=[], xlabel="bytes", xlim=(0, left))
axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
axes.spines["left"].set_visible(False)
axes.grid(False)
figure.suptitle("Most of the file says where the weights are, not what they are")
assert parts_bytes["places (gaps)"] > 1.4 * parts_bytes["values"]
assert all(
    stages[n][0] > stages["dense, float32"][0] - 1.5
    for n in ("8 values, retrained", "pruned, float16 and gaps")
)
assert (
    40 < full / stages["8 values, retrained"][1] < 55 and full / stages["dense, float16"][1] > 1.99
)
assert percent(back) == stages["8 values, retrained"][0]
predict(
    "Seven weights in a hundred stay, and have one of eight values. What takes more of the file?",
    ["the values", "both the same", "the places"],
    f"the places: {parts_bytes['places (gaps)']:,} bytes; the values {parts_bytes['values']:,}",
    Picture(
        figure,
        "One bar, the file's bytes: " + ", ".join(f"{n} {c:,}" for n, c in parts_bytes.items()),
    ),
)

# %% [markdown]
# Nearly twice as much for *where* as for *what*. It can hardly be otherwise: of 50,200 places 7 % are taken. Were they strewn at random, the
# entropy would be 0.37 bits for each place, 2,296 bytes, about what the gaps take. (Layers that keep unequal shares need a
# little less.) So do not save on the values first. Two ways to some 3,530 bytes are in the stored lines: 7 % of the weights with two values, −0.37 points;
# 5.2 % with eight, −0.04. (Four seeds of five are on this side; 0.34 points, with a standard error of 0.27.)
# Structured pruning (chapter 04) has no places to store at all.
#
# What if a gap is wider than its code can say? Han et al. then store a zero as if it were a value, a filler, and count from there. That is Exercise 9. (Our files give such
# a gap a symbol of its own and store no value. Behind the exercise both are weighed.)
#
# ## Exercise 9: the bytes of a layer
#
# You may call your `code_lengths`.


# %% exercise="layer_bytes"
def layer_bytes(weight: torch.Tensor, gap_bits: int) -> tuple[int, int]:
    """Bytes of a pruned layer of shared values in a file: in codes of equal length, and Huffman's.

    weight: (O, I), float, zeros and at least one other number. Going row by row, an entry is stored
    for each number that is not zero: its value, and its gap, the zeros before it, in gap_bits bits.
    Of more than 2^gap_bits − 1 zeros in a row before a number, each 2^gap_bits-th is stored as an
    entry, too, of value zero and the largest gap; gaps are counted from there (Han et al., 2016).
    Zeros behind the last number are not stored. The k different values stored are a codebook of
    float16; a value takes ⌈log₂ k⌉ bits. With Huffman, values and gaps each have the best prefix
    code for their own counts, and its lengths are stored in 4 bits for each of the k values and
    2^gap_bits gaps. Codebook, values, gaps, lengths of values, lengths of gaps stand apart: each is
    filled up to a whole byte once, at its end.
    """
    ### BEGIN SOLUTION
    flat, widest = weight.flatten(), 2**gap_bits
    places = flat.nonzero().squeeze(1)
    zeros = places.diff(prepend=places.new_tensor([-1])) - 1  # before each number
    fillers = int((zeros // widest).sum())
    gaps = (zeros % widest).bincount(minlength=widest)
    gaps[-1] += fillers
    _, values = flat[places].unique(return_counts=True)
    if fillers:
        values = torch.cat([values, values.new_tensor([fillers])])
    k, entries = len(values), len(places) + fillers
    widths = (k - 1).bit_length(), gap_bits
    equal = sum(math.ceil(entries * width / 8) for width in widths)

    def coded(counts):
        bits = int((counts * code_lengths(counts)).sum())
        return math.ceil(bits / 8) + math.ceil(len(counts) / 2)

    return 2 * k + equal, 2 * k + coded(values) + coded(gaps)
    ### END SOLUTION


# %% check="layer_bytes" points=3
check(layer_bytes)

# %% [markdown]
# How wide should a gap's code be? Too narrow, and fillers eat the file; too wide, and every gap pays for the widest. **Guess** the best width,
# with codes of equal length and with Huffman's, on a layer of normal numbers of which 7 % stay.

# %%
bell_ = torch.randn(300, 100, generator=torch.Generator().manual_seed(0))
few_left = bell_ * (bell_.abs() >= bell_.abs().flatten().kthvalue(27_900).values)  # 7 % stay
stay = few_left[few_left != 0][None]
few_left[few_left != 0] = on_levels(stay, optimal_levels(stay, 8))[0]
count_bytes = yours("layer_bytes")
widths = {gap_bits: count_bytes(few_left, gap_bits) for gap_bits in range(1, 9)}
best_equal = min(widths, key=lambda bits: widths[bits][0])
best_huffman = min(widths, key=lambda bits: widths[bits][1])

# %% tags=["collapsed"] slide=True
# The guess, the table; fillers or a symbol of their own; does it hold here?
predict(
    "With Huffman's code the best width of a gap's code is",
    ["narrower than with codes of equal length", "the same", "wider, and too wide costs little"],
    f"{best_huffman} bits against {best_equal}; 8 bits take {widths[8][1] / widths[best_huffman][1] - 1:.0%} more bytes than the best",
)
print("bits of a gap  " + "".join(f"{gap_bits:7}" for gap_bits in widths))
for which, name in enumerate(("equal lengths", "Huffman")):
    print(f"{name:15}" + "".join(f"{both[which]:7,}" for both in widths.values()))
places = few_left.flatten().nonzero().squeeze(1)
values_alone = few_left.flatten()[places].unique(return_inverse=True)[1]
for span in (15, 63):
    streams = [torch.bincount(x) for x in (values_alone, gap_symbols(places, span))]
    own_symbol = 2 * 8 + sum(
        math.ceil(mean_length(x) * int(x.sum()) / 8) + (len(x) + 1) // 2 for x in streams
    )
    filled = widths[span.bit_length()][1]
    print(
        f"gaps up to {span}: Huffman with fillers {filled:,} bytes, with a symbol of its own {own_symbol:,}"
    )
    assert own_symbol < filled
    assert own_symbol < 0.92 * filled or span == 63
assert best_equal in (5, 6) and best_huffman in (6, 7, 8) and widths[3][0] > 1.5 * widths[5][0]
assert (
    widths[best_huffman][1] < widths[best_equal][0] and widths[8][1] < 1.1 * widths[best_huffman][1]
)

# %% [markdown]
# With equal lengths the best width is five or six bits, and three would cost more than half as much again. With Huffman's code width costs next to nothing: symbols that
# never come have no bits, but for half a byte in the table. It is the lesson of section 6 once more. (And a symbol of its own for a wide gap saves
# an eighth of the bytes at four bits and a hundredth at six: a filler costs the name of a value as well.)
#
# ## 9. What decoding costs
#
# A file that is small on disk has to be read. Take the layer at about 3 bits: codes of a fixed length, packed, and a look into
# the table of levels; or Huffman's stream. Beside both, what the layer is for: one product with one token, and with 256.

# %% tags=["nbval-ignore-output"]
levels8 = optimal_levels(weights, 8)
fixed_codes = nearest_codes(weights, levels8)
packed = pack(fixed_codes, 3)
coded_stream = encode_bits((even_codes(layer, own_step[3]["blocks.3.mlp.down.weight"]) + 100).int())
one_token, many = torch.randn(1, 512), torch.randn(256, 512)


def read_fixed() -> torch.Tensor:
    return lookup(unpack(packed, 3, layer.numel()).view(1, -1), levels8)


def read_huffman() -> torch.Tensor:
    return decode_bits(coded_stream)


clock = {
    "reading fixed codes / product with one token": (read_fixed, lambda: one_token @ layer.T),
    "reading Huffman's codes / reading fixed codes": (read_huffman, read_fixed),
    "reading Huffman's codes / product with 256 tokens": (read_huffman, lambda: many @ layer.T),
}
times = {name: latency(*both, repeats=9).ratio for name, both in clock.items()}
for name, value in times.items():
    print(f"{name:52}{value:8.1f}")
assert times["reading Huffman's codes / reading fixed codes"] > 1

# %% [markdown]
# Huffman's stream takes some thirty times as long to read as packed codes, and each takes longer than the product for one token, for
# which all the weights would have to be read again. Bits of unequal length are read one after the other; hardware likes to
# read many at once, at places that it knows beforehand. That is why the formats of section 4 exist, and we know of no chip that multiplies
# Huffman's codes. (These are CPU figures of one program. And who reads the file once, when
# the model starts, pays once.) But a fast enough program can decode on the way: DFloat11 (Zhang et al., 2025) keeps the exponents of
# 16-bit weights under Huffman's code in the GPU's memory, and decodes a block's weights before each use.
#
# So: **for the disk and the wire, code; for the memory that is read at every token, a fixed length**, unless your decoder keeps up with the memory.
# Chapter 10 goes on from here.
#
# ## 10. Your own: 3 bits
#
# A decibel is not a decibel: an error in one matrix hurts more than the same error in another. So let each matrix have a
# **price**, what a squared error in it costs. (Chapter 11 will measure such prices. Here they are given.) You get the three matrices of an
# MLP of TinyLM, their prices, and 3.0 bits a weight on average; everything counts: scales, tables, the file's header. Any form of file that the library
# can read is allowed: `[form.scheme.__name__ for form in FORMS]`, from `course_lib.formats.forms`, names them.
#
# The best 8 levels reach about 14 dB, the prices counted, and with their tables they are over 3 bits already. Even levels under Huffman's code reach 16 with 3 bits for
# each matrix, and 13.6 to 17.7 with one step for all. Asked for are 20.2. Which matrix should get how many bits? That stands nowhere in this chapter.
#
# ## Exercise 10: invent


# %% exercise="squeeze"
def squeeze(weights: dict[str, torch.Tensor], prices: dict[str, float]) -> dict[str, torch.Tensor]:
    """Three matrices of TinyLM in one file, at most 3 bits a weight on average, everything counted.

    weights: name -> (O, I), float32. prices: name -> what a squared error in it costs, above 0.
    What you return must be a file of these tensors, as `pack_tensors(weights, …)` of
    `formats.model_file` makes them: `unpack_tensors` gives them back, ŵ. Its bytes are those that
    `measure.size` counts, header included. Asked for: at least 20.2 dB,
    10 log₁₀ Σ price · w² / Σ price · (w − ŵ)², both sums over all weights of all matrices.
    (8 levels by k-means: 13.8 to 14.6, and 3.01 bits. Even levels under Huffman's code, 3 bits for
    each matrix: 16.0 to 16.1. One step for all: 13.6 to 17.7.)
    """
    ### BEGIN SOLUTION
    roots = {name: math.sqrt(price) for name, price in prices.items()}
    numbers = sum(weight.numel() for weight in weights.values())
    header = 8 * (8 + 96 * len(weights)) / numbers  # bits a weight: names, dtypes and shapes
    step = step_for([roots[name] * weight for name, weight in weights.items()], 3 - header)
    return pack_tensors(weights, {name: EvenCoded(step / roots[name]) for name in weights})
    ### END SOLUTION


# %% check="squeeze" points=4
check(squeeze)

# %% [markdown] question="a_headline" points=2
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them. A good answer says not only what to ask or
# choose, but by how much it matters: this chapter has the numbers.
#
# **A paper: "Our method compresses the network 60 times without loss, while quantization alone reaches 8 times."** What do you ask, before you believe
# that the method is 7.5 times better? Name three things, and say what each could change.
#
# <!-- BEGIN SOLUTION -->
# *Smaller than what:* from float32, or float16? It halves both figures, but not their ratio; ask whether both start alike. *What is counted:* places of the
# weights that stay, codebooks, Huffman's tables, biases, scales, the header: weigh the file. *What else was done:* the pruned network was retrained, perhaps with
# a teacher; was the quantized one, too, and the dense one as long? *At what loss:* "without loss" on one seed and a test of 540
# images means ± 0.2 points; and a network far too large for its task gives any method 60 times.
#
# (Here a small dense network in 4 bits was a third of a point behind one that was 47 times compressed.)
#
# *One point* for what is counted, or from where. *One point* for a control: equal training, other seeds, or a smaller dense network.
# <!-- END SOLUTION -->

# %% [markdown] question="which_format" points=2
# **You ship one language model in two ways: as a download to telephones, and on a chip that multiplies FP4 in blocks.** Which form do you choose for
# each, and why not the same for both?
#
# <!-- BEGIN SOLUTION -->
# Download: bytes count, and it is read once. Even levels and Huffman (or arithmetic) coding, a step for each matrix; in squared error it is within a third of a bit of what
# is possible. On arrival it is decoded to what the telephone multiplies. Chip: the weights are read at every token, at places known beforehand, so a fixed length and the
# levels that the hardware has; NVFP4 if it can, since a fine scale is worth more than small blocks. Not the same: unequal lengths have to
# be read in order, which is slower than the product; and a fixed length gives away a tenth to six tenths of a bit on the wire, with the layer and the bits. (One file for both, NVFP4 under Huffman's code
# for the download? It saves a little: the codes have 3.9 bits of entropy of their 4, the scales 0.2 of their half bit.)
#
# *One point* for each form with its reason.
# <!-- END SOLUTION -->

# %% [markdown]
# ## In numbers

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# The chapter in numbers
mlp = {name: state[f"blocks.3.mlp.{name}.weight"].clone() for name in ("gate", "up", "down")}
own_file = yours("squeeze")(mlp, {"gate": 1.0, "up": 4.0, "down": 16.0})
print(f"""one layer, 98,304 weights, dB          3 bits   4 bits
  even levels, clipped                 {contest[3][0]:6.1f}   {contest[4][0]:6.1f}
  k-means, the best there is           {contest[3][1]:6.1f}   {contest[4][1]:6.1f}
  pairs, 64 points (and a codebook)    {by_vectors["the layer"][1]:6.1f}
  even levels and Huffman              {contest[3][2]:6.1f}   {contest[4][2]:6.1f}
  Shannon's bound                      {bound(3):6.1f}   {bound(4):6.1f}
Lloyd above the optimum, rows of 512   {above[by_row, "density"]:.0%} from quantiles, {mended:.0%} from the cube root
16 levels, blocks of 64 normal numbers NF4 {block_tables["NF4"][0]:.1f} dB, the best {block_tables["the best"][0]:.1f} dB
TinyLM, {dense_bits:.3f} bits per byte         MXFP4 {four["MXFP4"][0]:.3f} (4.25 bits), NVFP4 {four["NVFP4"][0]:.3f} (4.5)
  3 bits                               k-means {language["k-means, a tensor", 3][0]:.3f}, Huffman {language["Huffman, own steps", 3][0]:.3f}
  4 bits                               k-means {language["k-means, a tensor", 4][0]:.3f}, Huffman {language["Huffman, own steps", 4][0]:.3f}
digits, a file 47 times smaller        0.00 points, standard deviation 0.19, five seeds (stored)
  as many bytes, small and dense       −0.34 points, standard deviation 0.30, five seeds (stored)
yours: {size(own_file, 3 * layer.numel()).bits_per_parameter:.3f} bits a weight""")

# %% [markdown] slide="In numbers"
# What if the levels need not be even? Then put them where theory says: as the **cube root** of the density. It is worth a
# decibel at 4 bits. (Typically five times as much as a scale for each row. But a scale that does not fit costs more: nine decibels, from end to end.) And what if a code need not have a fixed length? Then the levels may be even again,
# and you are a third of a bit from the least squared error that anybody can reach, for weights that know nothing of each other. Who can spare the time to decode should spend
# thought on lengths, not on levels.
#
# And four habits. Before you praise a clever method, give the dull one its best setting: with 8 levels clipping took all but 0.4 of k-means' twelve decibels, and one factor
# made up for absmax.
# When two things differ in two ways, cross them. When decibels and loss disagree, believe the loss, and test a story before you tell it. And ask of
# every ratio: than what, than what else, and what is in the file? How to train for few bits: chapter 07.
