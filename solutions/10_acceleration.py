# %% [markdown]
# # 10 · Acceleration
#
# **Why is my compressed model not faster?**
#
# You did everything right. The weights have 4 bits, the file is six times smaller, the text is nearly as good as before. Then
# you start the clock, and nothing has changed. In this chapter a clock answers why.
#
# First you guess a table of times, then you measure it, and then you derive one rule that
# explains most of its cells, and shows which it does not explain. The rule fits into a line. With it you go through what is sold as acceleration: fusion,
# small caches, guessing ahead, many processors. At the end your own model runs in other people's engines.
#
# * **Afterwards you can** say from bytes and operations how fast a layer can be at best; tell why 4 bits win for one
#   reader and lose on a prompt; fold, join and fuse, and say what each of them saves; count a cache and
#   make it small; speculate and write the same text, as far as arithmetic is exact; split a layer over two processes; and write
#   a file that llama.cpp reads.
# * **You need** chapter 05 (scales, groups, codes); the parts of a block (chapter 01); section 7 uses probabilities.
# * **Time:** about four hours, in two sittings. The first ends behind section 5, where it says **Pause**.
# * **Core:** Exercises 1, 3, 4, 6, 7 and 10. **Extra:** BatchNorm (2), the cache in few bits (5), a repair (8), workers (9),
#   your own (11).
#
# ## 1. Smaller three times, faster never
#
# TinyLM, three times compressed. **4 bits in the file:** chapter 05's file, read back. **Nine tenths are zero:** only
# the largest tenth of each matrix stays. **4 bits in memory:** the codes stay codes, and each product
# turns those that it needs into floats. Beside each, the time in which it writes 32 tokens.
#
# One word on the clock. Times here are *seconds of the processor*, in one thread: what this program used,
# whatever else your machine does. The sides take turns, and a figure is the median. What to read are the ratios.

# %% tags=["collapsed"]
# Imports
import copy
import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType, dequantize
from torch import nn

from course_lib.acceleration.attention import attention_traffic, plain_attention
from course_lib.acceleration.batch_norm import fold_batch_norms
from course_lib.acceleration.cache import ThroughCache
from course_lib.acceleration.drafts import LookUp, ModelDraft
from course_lib.acceleration.export.llama_cpp import LlamaCpp, has_llama_cpp
from course_lib.acceleration.export.onnx import export_onnx, has_onnx, open_onnx, run_onnx
from course_lib.acceleration.fusion import fuse_model, has_compiler
from course_lib.acceleration.kernels import Int4WeightLinear, Int8Linear, Int8WeightLinear
from course_lib.acceleration.packed_model import fast_model, packed_bytes, packed_model
from course_lib.acceleration.parallel import (
    bubble,
    pipeline_parallel,
    schedule,
    tensor_parallel,
)
from course_lib.acceleration.quantized_cache import QuantizedCache
from course_lib.acceleration.roofline import measure_machine
from course_lib.acceleration.sparse_linear import CsrLinear
from course_lib.acceleration.speculative import speculative_generate
from course_lib.acceleration.trials import available
from course_lib.acceleration.workers import Workers
from course_lib.data.images import digits
from course_lib.exercises import check, hint, yours
from course_lib.formats.gguf_model import q4_1_range, write_gguf
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear, pack_model, quantize_model
from course_lib.measure.calls import count_calls
from course_lib.measure.latency import CPU_CLOCK, cpu_seconds
from course_lib.measure.size import count_parameters, size
from course_lib.measure.yardstick import held_out_sample, tiny_calibration, tiny_quality
from course_lib.models import pretrained
from course_lib.models.digits_cnn import DigitsCNN
from course_lib.models.layers import view_without_layers
from course_lib.models.llama import Llama, generate, rotary_tables
from course_lib.plots.explore import explore
from course_lib.plots.figure import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    RED,
    Picture,
    new_figure,
)
from course_lib.plots.predict import predict
from course_lib.plots.roofline import draw_roofline
from course_lib.pruning.depth import layers_off

torch.set_grad_enabled(False)
torch.set_num_threads(1)  # one core, so that a second of work is a second
tiny, tokenizer = pretrained.tiny()
tiny.requires_grad_(False)
text = tiny_calibration(tokenizer, 8)  # (B, T) = (8, 256), of what TinyLM was trained on


def tokens_of(text: str) -> torch.Tensor:
    """(1, T)."""
    return torch.tensor([tokenizer.encode(text).ids])


# %% tags=["nbval-ignore-output"] slide=True
FOUR, EIGHT = Scheme(Format(4), 64), Scheme(Format(8, symmetric=True), "channel")
schemes = every_linear(tiny, FOUR) | {"embedding.weight": EIGHT}
masked = copy.deepcopy(tiny)
for name in every_linear(tiny, FOUR):
    w = masked.get_parameter(name)
    w.mul_(w.abs() > w.abs().flatten().quantile(0.9))

prompt = tokens_of("And the king said unto")
compressed = {
    "float32": (tiny, tiny.state_dict()),
    "4 bits in the file": (quantize_model(tiny, schemes), pack_model(tiny, schemes)),
    "nine tenths are zero": (masked, masked.state_dict()),
    "4 bits in memory": (packed_model(tiny, schemes, native=False), pack_model(tiny, schemes)),
}
writing = cpu_seconds({n: partial(generate, m, prompt, 32) for n, (m, _) in compressed.items()}, 5)
print("                      bytes of the file   time beside float32")
for name, (_, parts) in compressed.items():
    print(f"{name:22}{size(parts).bytes:17,}{writing[name] / writing['float32']:18.1f}")

# %% tags=["collapsed"]
# Does it hold here? Bounds are wide, for a busy machine
beside = {name: value / writing["float32"] for name, value in writing.items()}
assert 6 < size(tiny.state_dict()).bytes / size(pack_model(tiny, schemes)).bytes < 7
assert 0.4 < beside["4 bits in the file"] < 2.5 and 0.4 < beside["nine tenths are zero"] < 2.5

# %% [markdown] slide="2. A table"
# Six times smaller on disk, and about 1.0 on the clock: the file's codes became floats when it was read. Nine tenths zeros, and 1.0: a
# zero is multiplied like any other number, and weighs as much. And where the codes stay codes, it was
# several times *slower* when we measured: each product first writes down the floats that the file had saved.
#
# So a smaller file is not faster by itself. When is it? For that we leave the model aside and look at one layer.
#
# ## 2. A table to guess
#
# One layer of 4,096 inputs and 4,096 outputs, as models of seven billion parameters have them. Nine ways to do it,
# each by its own **kernel**, a routine for one kind of numbers on one kind of processor:
#
# | | what the processor is given |
# |---|---|
# | float32 | 16.8 million floats |
# | bfloat16 | floats of half the length, inputs too |
# | 8 bits, both sides | weights and inputs are integers, and are multiplied as integers; inputs are rounded as they come (dynamic quantization) |
# | 8-bit weights | integers in memory; each becomes a float inside the product; inputs bfloat16 |
# | 4-bit weights | the same, in groups of 64 |
# | half of it zeros | float32, half of the weights set to zero |
# | 2 of 4 | float32, two in each four set to zero |
# | 90 % zeros, CSR | only the others are stored, each with its column |
# | half removed | float32, 2,048 outputs are no longer there |
#
# And six loads. A model does two different things. In **prefill** it reads a prompt, all tokens at once. In **decode** it writes,
# one token after the other. Take 1, 8 or 64 readers: in decode the layer gets 1, 8 or 64 rows, one new token for each. In
# prefill, with a prompt of 16 tokens each, 16, 128 or 1,024. The layer knows no more than that. It
# multiplies rows, and never asks whose they are. We write $B$ for their number.
#
# **Write down your guesses before you go on**, as ratios to float32: nine ways, six loads. At least for the corners.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
SIDE = 4096
weight = torch.randn(SIDE, SIDE) / 64
codes4, codes8 = nearest_codes(weight, FOUR), nearest_codes(weight, EIGHT)
largest_two = weight.view(-1, 4).abs().topk(2, dim=1).indices  # (N / 4, 2)
two_of_four = torch.zeros(SIDE * SIDE // 4, 4).scatter_(1, largest_two, 1.0).view(SIDE, SIDE)
tenth = weight.abs() > weight.abs().flatten()[:1_000_000].quantile(0.9)


def linear(w: torch.Tensor) -> nn.Linear:
    """A layer with this weight."""
    layer = nn.Linear(*reversed(w.shape), bias=False, device="meta")
    layer.weight = nn.Parameter(w, requires_grad=False)
    return layer


ways = {  # way -> the layer, and the kind of numbers that it is given
    "float32": (linear(weight), torch.float32),
    "bfloat16": (linear(weight.bfloat16()), torch.bfloat16),
    "8 bits, both sides": (Int8Linear(codes8), torch.float32),
    "8-bit weights": (Int8WeightLinear(codes8), torch.bfloat16),
    "4-bit weights": (Int4WeightLinear(codes4), torch.bfloat16),
    "half of it zeros": (linear(weight * (torch.rand_like(weight) > 0.5)), torch.float32),
    "2 of 4": (linear(weight * two_of_four), torch.float32),
    "90 % zeros, CSR": (CsrLinear(weight * tenth), torch.float32),
    "half removed": (linear(weight[: SIDE // 2].clone()), torch.float32),
}
for name, reason in available().items():
    if reason:
        print(f"This PyTorch has no kernel for {name} on this processor: {reason}")
stored = {name: packed_bytes(layer) for name, (layer, _) in ways.items()}
LOADS = (1, 8, 16, 64, 128, 1024)  # rows: 1, 8, 64 in decode; 16, 128, 1,024 in prefill
COMPARED = {"float32", "half of it zeros", "2 of 4", "half removed"}  # on each load, however slow


def has_kernel(layer: nn.Module) -> bool:
    return getattr(layer, "native", True)


clock, timed = {}, {name for name, (layer, _) in ways.items() if has_kernel(layer)}
for rows in LOADS:  # the sides take turns: float32's 67 MB drive the others from the caches
    x = torch.randn(rows, SIDE)
    given = {kind: x.to(kind) for kind in (torch.float32, torch.bfloat16)}
    sides = {n: partial(layer, given[kind]) for n, (layer, kind) in ways.items() if n in timed}
    found = cpu_seconds(sides, 7 if rows < 100 else 3)
    clock |= {(name, rows): value for name, value in found.items()}
    timed = {n for n in timed if n in COMPARED or clock[n, rows] < 0.5}  # without a unit: stop
print(", ".join(f"{name}: {count / 1e6:.1f} MB" for name, count in stored.items()))


# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Three guesses, and behind the last one the table
WHOSE = (
    "decode\n1 reader",
    "decode\n8 readers",
    "prefill\n1 reader",
    "decode\n64 readers",
    "prefill\n8 readers",
    "prefill\n64 readers",
)


def ratio(name: str, rows: int) -> float:
    """Time of a way beside float32 on as many rows; NaN where it was not timed."""
    return clock.get((name, rows), math.nan) / clock["float32", rows]


def draw_table() -> Picture:
    """Nine ways, six loads: times beside float32."""
    table = torch.tensor([[ratio(name, rows) for rows in LOADS] for name in ways])
    figure, (axes,) = new_figure(height=4)
    axes.imshow(table.log2().clamp(-3, 3), cmap="PuOr_r", vmin=-3, vmax=3, aspect="auto")
    for row, values in enumerate(table.tolist()):
        for column, value in enumerate(values):
            text = "not timed" if math.isnan(value) else f"{value:.2f}"
            colour = "white" if value < 0.35 else BLACK
            axes.text(column, row, text, ha="center", va="center", color=colour, size=9)
    names = [f"{name}  ({stored[name] / 1e6:.0f} MB)" for name in ways]
    axes.set_yticks(range(len(ways)), names)
    heads = [f"{rows:,} row{'s' * (rows > 1)}" for rows in LOADS]
    axes.set_xticks(
        range(6), [f"{head}\n{load}" for head, load in zip(heads, WHOSE, strict=True)], size=8
    )
    axes.grid(False)
    axes.set_title("Time beside float32: what wins changes with the rows")
    lines = [
        f"{name} " + ", ".join(f"{v:.2f}" for v in row)
        for name, row in zip(ways, table.tolist(), strict=True)
    ]
    return Picture(
        figure, "Times beside float32 for 1, 8, 16, 64, 128, 1,024 rows: " + "; ".join(lines)
    )


predict(
    "One reader, one token. The 4-bit weights have a seventh of the bytes. What is their time beside float32?",
    ["about 0.15", "about 0.3", "about 1"],
    f"{ratio('4-bit weights', 1):.2f}",
)
predict(
    "And when 64 readers' prompts are read, 1,024 rows?",
    ["about 0.15", "about 1", "about 2"],
    f"{ratio('4-bit weights', 1024):.2f}",
)
predict(
    "Nine tenths are zeros, and only the others are stored (CSR): 1 row, 8 rows, 1,024 rows?",
    ["0.1, 0.1, 0.1", "0.2, 0.2, 0.2", "0.4, 0.2, 2"],
    ", ".join(f"{ratio('90 % zeros, CSR', rows):.2f}" for rows in (1, 8, 1024)),
    draw_table(),
)

# %% tags=["collapsed"]
# Does it hold here? Only what no processor can change, and wide
for rows in LOADS:
    assert 0.4 < ratio("half of it zeros", rows) < 2.5 and 0.4 < ratio("2 of 4", rows) < 2.5
assert sum(ratio("half removed", rows) for rows in LOADS) < 0.95 * len(LOADS)
x = torch.randn(3, SIDE)
for name, codes in (("4-bit weights", codes4), ("8-bit weights", codes8)):
    layer, kind = ways[name]
    wanted = x.to(kind).float() @ codes.weight.T
    assert (layer(x.to(kind)).float() - wanted).abs().max() < 0.02 * wanted.abs().max()
assert 7 < stored["float32"] / stored["4-bit weights"] < 7.2

# %% tags=["collapsed"]
# The same table from a core without units for bfloat16 and int8, stored
# ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 and the cells above,
# 2026-11-26, one core of the same server; its kernel for int8 on both sides gave wrong sums there
STORED_AVX2 = {  # way: time beside float32 for 1, 8, 16, 64, 128, 1,024 rows
    "bfloat16": (0.98, 1.36, 2.02, 3.85, 4.34, 7.17),
    "8-bit weights": (0.50, 0.53, 0.85, 1.63, 1.74, 2.07),
    "4-bit weights": (0.41, 0.54, 0.87, 1.63, 1.87, 2.14),
    "half of it zeros": (1.03, 1.12, 1.12, 1.06, 0.96, 1.00),
    "2 of 4": (1.03, 0.99, 1.03, 0.99, 0.94, 0.98),
    "90 % zeros, CSR": (0.45, 0.21, 0.20, 0.24, 0.33, 1.30),
    "half removed": (0.53, 0.46, 0.48, 0.48, 0.45, 0.49),
}
print("only AVX2; rows    " + "".join(f"{rows:7,}" for rows in LOADS))
for name, row in STORED_AVX2.items():
    print(f"{name:19}" + "".join(f"{value:7.2f}" for value in row))

# %% [markdown] slide="3. One rule"
# On the machine that made this page (a server's processor of 2024, with units for bfloat16 and int8): three lines of the table are
# easy. A mask costs about 1.0 everywhere, in any pattern. What is *removed* saves its share everywhere.
# The rest looks like a riddle. 4-bit weights take about 0.3 for one row, about as long as float32 for 64, and nearly twice as long for 1,024. Integers on
# both sides are the other way round: not much for one row, a quarter for many. Scattered weights win most at 8.
# The files did not change from one column to the next. What did?
#
# **Without such units** two lines turn round. The folded cell has the same table from the same core, told to use nothing newer than AVX2, which
# most laptops have. There bfloat16 is *slower* than float32, four times on 128 rows, and the kernel for integers on both sides gave wrong sums and was left out. The
# other lines keep their shape. So what is said below about bfloat16 and int8 need not hold on *your* processor. Your table does.
#
# ## 3. One rule
#
# A processor does two things at once: it fetches bytes from memory, and it computes. Say it fetches $\beta$ bytes a second (its
# **memory bandwidth**), and does $\pi$ operations a second (its **peak**). A piece of work that must move $Q$ bytes and do $W$ operations cannot be done before both
# are done:
#
# $$\text{time} \;\ge\; \max\left(\frac{Q}{\beta},\; \frac{W}{\pi}\right) .$$
#
# That is the whole rule. It is called the **roofline** (Williams et al., 2009). Now count, for a layer of $I$ inputs and
# $O$ outputs with $b$ bits a weight, on $B$ rows. Each output needs $I$ products and as many sums:
#
# $$W = 2\,B\,I\,O, \qquad Q = \frac{I\,O\,b}{8} + 4\,B\,(I + O) .$$
#
# Look where $B$ stands. Operations grow with the rows. The weights' bytes do **not**: a weight that was fetched once serves all the rows.
# For one row each weight is fetched, used in two operations, and dropped. That is the worst thing that you can do
# to a processor. For 1,024 rows it is used in 2,048. (In the exercise W is a matrix of weights, not the operations.)
#
# ## Exercise 1: the bound


# %% exercise="layer_bound"
def layer_bound(
    batch: int, inputs: int, outputs: int, bits: float, bandwidth: float, peak: float
) -> tuple[int, int, float]:
    """Bytes, operations, and the least seconds of y = x Wᵀ, x (B, I), W (O, I), y (B, O).

    bits: of a weight, its share of scales included, such as 4.5; W is filled up to a whole byte
    once, at its end. x and y are float32. Each byte of W, x and y passes the memory once, at
    bandwidth bytes a second; a product and its sum are two operations, at peak operations a second.
    Memory and arithmetic work at the same time. Returns (bytes, operations, seconds), the first two
    int, the last float.
    """
    ### BEGIN SOLUTION
    moved = math.ceil(inputs * outputs * bits / 8) + 4 * batch * (inputs + outputs)
    operations = 2 * batch * inputs * outputs
    return moved, operations, max(moved / bandwidth, operations / peak)
    ### END SOLUTION


# %% check="layer_bound" points=2
check(layer_bound)

# %% [markdown]
# Where do $\beta$ and $\pi$ come from? Measure them: the fastest that this core reads a large matrix, and the fastest that
# it multiplies two square ones, in each kind of number. A data sheet promises more. This is what programs get.
#
# The kernels for 8-bit and 4-bit weights and for CSR are no square products of anything, and they have an arithmetic
# of their own: a code must become a float before it is multiplied; a scattered weight must look for its
# input. So each of them gets a $\pi$ of its own: the most operations a second that *this way* reached in the table. Memory is the same for all.
# This is a fit, of one number for each line of the table: one cell of each line agrees because $\pi$ was taken from it. Look at the others.

# %% tags=["nbval-ignore-output"]
bound_of = yours("layer_bound")
kinds = [torch.float32, torch.bfloat16] + [torch.int8] * (available()["int8 both sides"] is None)
machines = {kind: measure_machine(kind, 0.6, clock=CPU_CLOCK) for kind in kinds}
beta = machines[torch.float32].bandwidth
print(f"one core reads {beta / 1e9:.1f} GB/s, and does, in 10⁹ operations a second,")
for kind, machine in machines.items():
    print(f"  {str(kind).removeprefix('torch.'):10}{machine.peak / 1e9:8.0f}")

work = {}  # way -> its bits a weight, as stored, and its share of the operations
for name, count in stored.items():
    share = {"90 % zeros, CSR": 0.1, "half removed": 0.5}.get(name, 1.0)
    work[name] = 8 * count / SIDE**2, share
own_peak = {
    name: max(share * 2 * n * SIDE**2 / clock[name, n] for n in LOADS if (name, n) in clock)
    for name, (_, share) in work.items()
    if (name, 1) in clock
}
print("\nin its own way      10⁹/s    B*    the clock over the bound, at rows")
print(" " * 33 + "".join(f"{rows:7,}" for rows in LOADS))
for name, peak in own_peak.items():
    bits, share = work[name]
    least = {n: bound_of(n, SIDE, SIDE, bits, beta, peak / share)[2] for n in LOADS}
    over = "".join(f"{clock.get((name, n), math.nan) / least[n]:7.1f}" for n in LOADS)
    print(f"{name:19}{peak / 1e9:6.0f}{peak * bits / (16 * beta * share):8.1f}{over}")


# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure with a slider: one way, its two walls, and what was measured
def draw_walls(way: str) -> Picture:
    """Time over rows: bytes over bandwidth, operations over this way's peak, and the clock."""
    bits, share = work[way]
    figure, (axes,) = new_figure(height=3.4)
    if way not in own_peak:
        axes.set_title(f"{way}: no kernel here")
        return Picture(figure, f"{way}: no kernel here")
    rows = [n for n in LOADS if (way, n) in clock]
    line = [2**k for k in range(11)]
    for how, colour in (("memory", BLUE), ("arithmetic", ORANGE)):
        walls = {"memory": (beta, 1e30), "arithmetic": (1e30, own_peak[way] / share)}[how]
        seconds = [bound_of(n, SIDE, SIDE, bits, *walls)[2] for n in line]
        axes.plot(line, [1000 * s for s in seconds], "-", color=colour, label=f"what {how} asks")
    axes.plot(
        rows, [1000 * clock[way, n] for n in rows], "o", color=BLACK, label=f"{way}, measured"
    )
    dense = [1000 * clock["float32", n] for n in rows]
    axes.plot(rows, dense, ":", color=RED, label="float32, measured")
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="milliseconds")
    axes.legend(frameon=False, fontsize=9)
    ridge = own_peak[way] * bits / (16 * beta * share)
    axes.set_title(f"{way}: from {ridge:.0f} row{'s' * (round(ridge) != 1)} on, arithmetic decides")
    told = ", ".join(f"{n}: {1000 * clock[way, n]:.1f}" for n in rows)
    return Picture(
        figure, f"{way}, milliseconds over rows, above two lines, memory and arithmetic. {told}."
    )


explore(draw_walls, way=(list(ways), "4-bit weights"))

# %% [markdown]
# Two lines. The clock never stands below the higher one, beyond what a clock errs; mostly it stands within a factor of two above it. Where the printed
# number is near 1 you see the rule. Where it is 2 to 4 you see what the rule does not know: how well a kernel is written for this shape.
# The bound is a floor, not a forecast.
#
# The line of memory is flat: the weights weigh what they weigh. The line of arithmetic rises with the rows. Left
# of their crossing you wait for bytes, and fewer bits help. Right of it you wait for arithmetic, and fewer bits help no more.
#
# Where is that? Bytes over bandwidth equal operations over peak, activations aside:
#
# $$\frac{I O\, b}{8\,\beta} = \frac{2 B\, I O}{\pi} \quad\Longrightarrow\quad B^* = \frac{\pi\, b}{16\,\beta} .$$
#
# $I$ and $O$ are gone: it is the machine's number, and that of your bits. At $B^*$ a way's *own* time begins to grow. It has not lost yet: float32 still waits
# for *its* bytes, which are more. **The answer to our question changes its sign** only where this way's arithmetic takes as long as those,
# at $B = \pi\, b_0 / (16\,\beta)$ rows, with $\pi$ of this way and $b_0 = 32$ bits of the other. For our 4-bit weights that is about a dozen
# rows here, when $B^*$ is about 2. Now read the table again.
#
# * **A mask:** the same $Q$, the same $W$. About 1.0 in every cell, whatever the pattern.
# * **Half removed:** both halve. About one half in every cell, on any machine, as long as this layer is what you wait for. That is why chapter 04 exists.
# * **bfloat16:** half of the bytes, and on this processor eight times the peak. So here it wins everywhere, more on the right. (On one row
#   it should take 0.5. It takes about 0.8: its kernel for one row does not read at full speed.) Without such units it has no peak to win by.
# * **8-bit and 4-bit weights:** a quarter and a seventh of the bytes. But each product has to make its floats first, and that is dear: their own
#   peak is a fraction of float32's. And with fewer bits $B^*$ moves to the *left*, $B^* \propto b$. So they
#   have left the memory's line after a few rows. **They are for few rows**, a dozen against a float32 that reads at full speed. For a prompt they are the wrong tool, and good engines then unpack the
#   whole matrix once and multiply floats.
# * **8 bits, both sides:** the arithmetic itself is faster, where there are units for it. It wins where arithmetic decides.
# * **CSR:** a weight takes 64 bits, with its column, so a tenth of the weights is a fifth of the bytes; and a tenth
#   of the operations, at a peak that is far lower. It gains on few rows. That it *loses* on 1,024 the rule does not say: there the
#   kernel falls to about a quarter of its own best.
# * **float32 itself on 8 rows** takes about three times as long as on one, and stands far above both lines (the printed 3 to 4). The library first writes the
#   matrix down in an order that it likes, and then multiplies. (Laid out beforehand, 8 rows took about two thirds of that: still twice what the bytes take.)
#   So much of what the others "win" on 8 and 16 rows is float32's own weakness. Choose your baseline with care.
#
# S1 (§2.2) says that GPUs and TPUs make inference faster. They do, for dense products in the types that they have units for: more $\beta$ and far more
# $\pi$. Scattered zeros win little there either; for 2 of 4 some GPUs have units (Mishra et al., 2021), for numbers of 16 bits and fewer and for TF32, not for float32. And S2 (§3.3) says that
# sparsity lowers the cost of computing: your table has three lines of zeros, and one of them was faster, sometimes.
#
# ### The roof
#
# The usual picture has another axis. **Intensity** is operations for each byte, $W / Q$. What can be reached is the lower of
# $\pi$ and $\beta \cdot W/Q$: a slope, then a roof. The corner, at $\pi / \beta$, is the **ridge point**.
# In the figure a hollow circle is what the roof allows, a filled one what the clock found. (4-bit weights are multiplied as bfloat16,
# so they stand under its roof; unpacking keeps them far below it.)

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure: the roofline, and some cells of the table under it
roofs = {str(kind).removeprefix("torch."): machine.peak for kind, machine in machines.items()}
points, roof_of = (
    {},
    {"8 bits, both sides": "int8", "bfloat16": "bfloat16", "4-bit weights": "bfloat16"},
)
for name in ("float32", "bfloat16", "8 bits, both sides", "4-bit weights"):
    for rows in (1, 1024):
        roof = roof_of.get(name, "float32")
        if (name, rows) in clock and roof in roofs:
            moved, operations, _ = bound_of(rows, SIDE, SIDE, work[name][0], 1.0, 1.0)
            label = f"{name}, {rows} row{'s' * (rows > 1)}"
            points[label] = operations / moved, operations / clock[name, rows], roof
figure, (axes,) = new_figure(height=3.6)
draw_roofline(axes, beta, roofs, points)
axes.set_title("One row: at most the slope. 1,024 rows: at most the roof")
Picture(
    figure,
    "Operations a second over operations a byte, log-log: a slope and flat roofs. "
    + "; ".join(f"{n}: {y / 1e9:.0f} at {x:.1f}" for n, (x, y, _) in points.items()),
)

# %% tags=["collapsed"]
# The crossing on a GPU, and what 4.5 bits win on the way
print("a GPU (H100), products in bfloat16: rows from which arithmetic decides")
GPU = 3.35e12, 989e12  # bytes and operations a second, by the data sheet
corner = {bits: GPU[1] * bits / (16 * GPU[0]) for bits in (16, 8, 4.5)}
for bits, rows in corner.items():
    print(f"  weights of {bits:4} bits: {rows:4.0f}")
gpu_gain = {}
for rows in (1, 83, 200, 295):
    long, short = (max(bits / 8 / GPU[0], 2 * rows / GPU[1]) for bits in (16, 4.5))
    gpu_gain[rows] = long / short
    print(f"  {rows:3} rows: 4.5 bits are {gpu_gain[rows]:.1f} times as fast as 16")
assert [round(rows) for rows in corner.values()] == [295, 148, 83]
assert [round(gain, 1) for gain in gpu_gain.values()] == [3.6, 3.6, 1.5, 1.0]

# %% [markdown]
# With the two numbers of a GPU's data sheet (3.35 TB/s and 989 · 10¹² operations a second in bfloat16, for the H100, SXM, without sparsity) $B^*$ is 295 rows
# for 16 bits. A single reader uses a third of a percent of the arithmetic that was paid for. That is why servers collect readers into batches.
# And 4-bit weights? From 83 rows on their own time grows. Up to there they are 3.6 times as fast as 16 bits; then they win less and less, and from 295 rows on
# nothing, if unpacking were free. It is not, so a full server may become *slower*.
#
# ## 4. What the rule leaves out
#
# Back to TinyLM. It has 8 MB in float32. At this core's bandwidth that is half a millisecond a token, and less if they stay in the processor's
# caches, between one token and the next. How long does it take?


# %% tags=["nbval-ignore-output"]
def prefix(model: nn.Module) -> list:
    """A cache that has read ten tokens."""
    cache = model.empty_cache()
    model(prompt.expand(1, -1), cache)
    return cache


def one_token(model: nn.Module) -> torch.Tensor:
    """The next token, from a cache that stays as it is."""
    return model(prompt[:, -1:], [dict(layer) for layer in cache])


cache, packed = prefix(tiny), packed_model(tiny, schemes)
sides = {
    "float32": partial(one_token, tiny),
    "4 bits, with kernels": partial(one_token, packed),
}
token_time = cpu_seconds(sides, 41)
floor = 4 * count_parameters(tiny) / beta
calls = count_calls(sides["float32"])
print(f"bytes over bandwidth    {1000 * floor:5.2f} ms")
for name, value in token_time.items():
    print(f"{name:24}{1000 * value:5.2f} ms")
print(
    f"calls of PyTorch        {calls:5}, {1e6 * (token_time['float32'] - floor) / calls:.1f} µs each, if they are all of the rest"
)

# %% tags=["collapsed"]
# Does it hold here?
assert 200 < calls < 500

# %% [markdown] slide="4. What"
# Two thirds of the time or more are not for weights at all. A token is some three hundred calls of PyTorch, and each call costs a few
# microseconds before it has computed anything: Python, checks, a new tensor. So the rule gets a third part, with $n$ calls of $\tau$ seconds:
#
# $$\text{time} \;\approx\; \max\left(\frac{Q}{\beta}, \frac{W}{\pi}\right) + n\,\tau .$$
#
# $\tau$ is a mean: a call that only looks at a tensor in another shape costs a microsecond, a product of one row several. So $n\,\tau$ tells how long
# many calls take, not what one call less saves. You will see that in section 5.
#
# A small model waits for its calls. There, a seventh of the bytes wins nothing, or loses: there is little to win, and a packed layer makes calls of its own. A large model
# notices them less: its calls are as many for each layer, but each moves megabytes. Here is SmolLM2, 68 times as large. Its table is stored:
# it takes minutes. Each reader has read 16 tokens before the clock starts; 4-bit and 8-bit weights are those of `fast_model`, which joins matrices that read the
# same inputs, and packs them.

# %% tags=["collapsed"]
# A stored table: SmolLM2 in five forms
# OMP_NUM_THREADS=1 python -m benchmarks.decoding smollm2, 2026-11-26, one core of an x86 server (AVX-512, AMX)
STORED_SMOLLM2 = {  # form: MB in memory; ms for a token of 1, 8, 64 readers; ms to read 256 tokens
    "float32": (538, 58.7, 140.5, 230.3, 574),
    "bfloat16": (269, 64.4, 70.2, 102.2, 194),
    "8-bit weights": (135, 38.1, 70.1, 300.5, 1123),
    "4-bit weights": (88, 23.3, 49.4, 268.2, 1051),
    "4 bits, unpacked at each product": (88, 287.1, 391.0, 534.1, 1311),
}  # fmt: skip
print("SmolLM2, beside float32            MB   a token: 1 reader    8   64   256 tokens read")
dense_row = STORED_SMOLLM2["float32"]
for name, row in STORED_SMOLLM2.items():
    shares = [value / whole for value, whole in zip(row[1:], dense_row[1:], strict=True)]
    print("{:32}{:5.0f}{:20.2f}{:7.2f}{:5.2f}{:10.2f}".format(name, row[0], *shares))
for name in ("float32", "4-bit weights"):  # this core read 15.3 GB/s in the same minutes
    size_mb, one_reader = STORED_SMOLLM2[name][:2]
    print(
        f"{name}, one reader: {one_reader:.0f} ms, of which its bytes ask {size_mb / 15.3:.0f} ms"
    )

# %% [markdown] slide="4. What"
# There is the promise, and its limits, on a real model. With 4-bit weights one reader gets a token in 0.40 of the time, and eight readers get theirs in 0.35, beside a float32 that is weak
# at few rows. For sixty-four readers nothing is left of the gain, and a prompt takes nearly *twice as long as in float32*. bfloat16 is the other way round (on this
# processor, which has units for it): nothing for one reader, less than half of the time for sixty-four, a third for a prompt. And codes that are unpacked at each product are five
# times slower for one reader than no compression at all.
#
# Bandwidth alone would allow a sixth for 4 bits, not 0.40. The bytes explain most of float32's time, and a quarter of the other's. Where is the rest? In one run of 25.5 ms a token the packed layers took
# 12.2 (their kernel reads at half of the memory's speed, as in section 3), the head 5.2, the norms 1.6, and attention and all other calls 6.5. When the weights are small, what was small before is what you wait for.
#
# So, why is your compressed model not faster? Four answers, in the order in which to look.
#
# 1. **It is not small where it computes.** The codes became floats on loading; the mask is a matrix of floats. *Look at the bytes in memory, not at the file.*
# 2. **The kernel pays for unpacking.** Left of $B^*$ it is paid by time in which you wait for memory anyhow; right of it you pay, and a few rows further on you lose. *Time it at your batch.*
# 3. **You do not wait for the weights.** Calls, attention, the cache, a tokenizer. *Compare with bytes over bandwidth.*
# 4. **There is no kernel** for what you have on what you have. *Ask, as `available()` does, and time it.*
#
# The remaining sections go at the other terms: the calls and the traffic between them (fusion), the bytes that are not weights (the cache),
# the one row at a time (speculation), the one processor (parallel work), and Python itself (engines).
#
# ## 5. Fusion
#
# S1 (§2.2) says that operator fusion lowers computation and memory accesses. Half right. There are two things of that name, and
# it pays to keep them apart.
#
# **Traffic.** Take $\text{relu}(2x + 1)$ on $N$ numbers. As three calls, each reads $N$ numbers and writes $N$: $6N$ numbers travel. In one
# pass, $2N$. The operations are $3N$ both times. No arithmetic is saved, and the arithmetic was not what one waited for.
#
# Python cannot write such a pass, but it can do the three calls on a piece so small that it stays in the processor's cache.
# **Guess:** a third of the traffic. What of the time?

# %% tags=["nbval-ignore-output"]
N, PIECE = 16_000_000, 65_536
x, first, second, third, whole = (torch.randn(N) for _ in range(5))


def three_calls() -> torch.Tensor:
    torch.mul(x, 2, out=first)
    torch.add(first, 1, out=second)
    return torch.clamp(second, min=0, out=third)


def piece_by_piece() -> torch.Tensor:
    for start in range(0, N, PIECE):
        part = whole[start : start + PIECE]
        torch.mul(x[start : start + PIECE], 2, out=part)
        part.add_(1).clamp_(min=0)
    return whole


assert piece_by_piece().equal(three_calls())
chain = cpu_seconds({"as usual": lambda: (2 * x + 1).relu(), "3": three_calls, "1": piece_by_piece})
print(f"three calls into tensors that are there   1.00   {6 * 4 * N / 1e6:.0f} MB")
print(
    f"piece by piece                            {chain['1'] / chain['3']:.2f}   {2 * 4 * N / 1e6:.0f} MB"
)
print(
    f"(2 * x + 1).relu(), as one writes it      {chain['as usual'] / chain['3']:.2f}   and memory is asked for anew"
)

# %% [markdown]
# Somewhere between a third and two thirds; our loop has calls of its own to pay. And look at the last line. Written as one
# writes it, it took two and a half to three times as long here: each of the three results is a new tensor, whose memory the system must hand out first.
# (What that costs is the system's affair: with half as many numbers it may cost nothing, for small blocks are kept and used again.)
#
# `torch.compile` writes such passes for you: it looks at the calls, writes C++, and has it compiled. That takes
# a while, so here are stored rows. The first is beside the three calls; both write into a tensor that is there. On your machine: `torch.compile(function)`, and call it twice.

# %% tags=["collapsed", "nbval-ignore-output"]
# Stored rows: torch.compile, from an empty store
# OMP_NUM_THREADS=1 python -m benchmarks.decoding compiled, 2026-11-26, one core of an x86 server
STORED_COMPILED = {  # what: CPU seconds to compile, and the time beside that without
    "relu(2x + 1)": (13, 0.33),
    "TinyLM, 64 tokens": (14, 0.74),
}  # fmt: skip
for name, (took, beside_plain) in STORED_COMPILED.items():
    print(f"{name:18} {took:4.0f} s to compile, then {beside_plain:.2f} of the time")
print(
    "a C++ compiler was found here"
    if has_compiler()
    else "There is no C++ compiler here: the rows above are stored ones."
)

# %% [markdown]
# A third of the traffic, a third of the time: with one pass, and no loop in Python, it comes out as the bytes promised.
#
# **Algebra.** A BatchNorm multiplies each channel by a number and adds one. The convolution before it multiplies
# and adds, too. Two linear steps in a row are one: here operations really go, and so do calls and traffic. That is **BatchNorm folding** (Jacob et al., 2018).
# It must be *used* for that, not trained: in training the numbers come from the batch.
#
# ## Exercise 2: fold a BatchNorm


# %% exercise="fold_batch_norm"
def fold_batch_norm(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    gain: torch.Tensor,
    shift: torch.Tensor,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of one layer that does what a layer and the BatchNorm behind it do.

    weight: (O, I) of a linear layer, or (O, I, k) or (O, I, k, k) of a convolution. bias: (O,) or
    None. mean, variance, gain, shift: (O,), float; variance ≥ 0. At evaluation BatchNorm makes
    gain · (y − mean) / √(variance + epsilon) + shift of the layer's output y, for each of the O.
    Returns a weight of the same shape and a bias (O,), in the weight's dtype; the inputs stay as
    they are. No number on the way is rounded to less than float64.
    """
    ### BEGIN SOLUTION
    factor = gain * (variance.double() + epsilon).rsqrt()  # (O,)
    before = 0 if bias is None else bias
    shape = (-1,) + (1,) * (weight.dim() - 1)
    folded = weight * factor.reshape(shape)
    moved = (before - mean.double()) * factor + shift
    return folded.to(weight.dtype), moved.to(weight.dtype)
    ### END SOLUTION


# %% check="fold_batch_norm" points=2
check(fold_batch_norm)

# %% tags=["nbval-ignore-output"]
data, fold_norm = digits(), yours("fold_batch_norm")
torch.manual_seed(0)
cnn = DigitsCNN()
cnn.train()(data.train_images)  # its BatchNorms see the images once
cnn.eval()
images = data.test_images
folded, untouched = copy.deepcopy(cnn), cnn(images)
for place, norm in enumerate(cnn):
    if isinstance(norm, nn.BatchNorm2d):
        layer, statistics = folded[place - 1], (norm.running_mean, norm.running_var)
        w, b = fold_norm(layer.weight, None, *statistics, norm.weight, norm.bias, norm.eps)
        layer.weight, layer.bias = nn.Parameter(w), nn.Parameter(b)
        folded[place] = nn.Identity()
print(f"largest difference of a logit: {(folded(images) - untouched).abs().max():.0e}")
print(
    f"calls of PyTorch: {count_calls(lambda: cnn(images))}, folded {count_calls(lambda: folded(images))}"
)

# %% tags=["collapsed"]
# Does it hold here?
assert (folded(images) - untouched).abs().max() < 1e-3 * untouched.abs().max()
assert (fold_batch_norms(cnn)(images) - folded(images)).abs().max() < 1e-4 * untouched.abs().max()
assert count_calls(lambda: folded(images)) < count_calls(lambda: cnn(images))

# %% [markdown]
# A language model has no BatchNorm. Its RMSNorm divides by a length that is different for each token, and that cannot be folded: it
# is not linear. But then it multiplies channel $i$ by a gain $w_i$, always the same, and the next thing that happens is a
# matrix. (Chapter 11 moves scales through norms in this way.)
#
# ## Exercise 3: fold the gains


# %% exercise="fold_gains"
def fold_gains(block: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a decoder's block that does the same, and whose two norms have no gain.

    attention_norm.weight and mlp_norm.weight: (D,), the gains w of w · x / √(mean(x²) + ε).
    Matrices (outputs, inputs): attention.query.weight and the same of key, value and output;
    mlp.gate.weight and the same of up and down. All float, and a tensor keeps its dtype. Returns a
    new dictionary with the same names, in which both gains are ones; what need not change is equal
    to what it was. The inputs stay as they are.
    """
    ### BEGIN SOLUTION
    readers = {
        "attention_norm.weight": ("attention.query", "attention.key", "attention.value"),
        "mlp_norm.weight": ("mlp.gate", "mlp.up"),
    }
    folded = dict(block)
    for norm, names in readers.items():
        gain = block[norm]
        folded[norm] = torch.ones_like(gain)
        for name in names:
            product = block[f"{name}.weight"] * gain  # each column by its input's gain
            folded[f"{name}.weight"] = product.to(block[f"{name}.weight"].dtype)
    return folded
    ### END SOLUTION


# %% check="fold_gains" points=2
check(fold_gains)

# %% [markdown]
# One more step of this kind. Query, key and value read the same $x$: three matrices one above the other are one
# matrix. `gate` and `up`, too. That saves calls, and neither bytes nor operations. `fuse_model` does both to a copy.

# %% tags=["nbval-ignore-output"]
without_gains, fold = copy.deepcopy(tiny), yours("fold_gains")
for block in without_gains.blocks:
    block.load_state_dict(fold(block.state_dict()))
fused = fuse_model(tiny)
tokens = text[:4]
for name, model in (("gains folded", without_gains), ("and matrices joined", fused)):
    print(
        f"{name:20} largest difference of a logit: {(model(tokens) - tiny(tokens)).abs().max():.0e}"
    )
cache = prefix(tiny)
models = {
    "as it is": tiny,
    "fused": fused,
    "4 bits, packed": packed,
    "4 bits, joined and packed": fast_model(tiny, FOUR),
}
sides = {name: partial(one_token, model) for name, model in models.items()}
fusing = cpu_seconds(sides, 41)
for name, side in sides.items():
    print(
        f"{name:27}{count_calls(side):4} calls, time of a token {fusing[name] / fusing['as it is']:.2f}"
    )

# %% tags=["collapsed"]
# Does it hold here?
largest = tiny(tokens).abs().max()
for model in (without_gains, fused):
    assert (model(tokens) - tiny(tokens)).abs().max() < 1e-4 * largest
assert count_calls(sides["fused"]) < 0.95 * count_calls(sides["as it is"])

# %% [markdown]
# The same logits, as far as floats go, with a quarter of the calls gone; and of the time next to nothing, in our runs between nothing and a tenth. The calls that went were the
# cheap ones. So what is it good for? A quantizer finds one matrix with one set of inputs. And where the weights have 4 bits, a call is a dear one, for the inputs are rounded at the door
# of each packed layer: packed alone, TinyLM is no faster than in float32; joined before it is packed, it took seven to nine tenths of the time. That is what `fast_model` does, and SmolLM2's table.
#
# ### Attention
#
# The most famous fusion is in attention (Dao et al., 2022). By its formula, $\text{softmax}(q k^\top / \sqrt{E})\, v$ with queries $q$, keys $k$, values $v$ of width $E$, each head makes a
# table of scores, all queries by all keys, writes it, reads it, writes the probabilities, reads them. A fused kernel goes through the
# keys in blocks, keeps a running maximum and a running sum, and never writes the table. It does the same products. SmolLM2's heads, 1,024
# tokens: **guess** how the bytes compare, and the times.

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Attention by its formula, the same into tensors that are there, and in one pass; the guess
HEADS, LENGTH, E = 9, 1024, 64
q, k, v = torch.randn(1, HEADS, LENGTH, E), *torch.randn(2, 1, 3, LENGTH, E)
scores, chances = torch.empty(2, 1, HEADS, LENGTH, LENGTH)
heads_out = torch.empty(1, HEADS, LENGTH, E)


def into_tables() -> torch.Tensor:
    """The formula, whose two tables are there before."""
    keys, values = (x.repeat_interleave(3, dim=1) for x in (k, v))
    torch.matmul(q / math.sqrt(E), keys.transpose(2, 3), out=scores)
    torch.softmax(scores, -1, out=chances)
    return torch.matmul(chances, values, out=heads_out)


sides = {
    "formula": partial(plain_attention, q, k, v),
    "formula, into tables that are there": into_tables,
    "fused": partial(F.scaled_dot_product_attention, q, k, v, enable_gqa=True),
}
traffic = attention_traffic(1, HEADS, 3, LENGTH, LENGTH, E)
for side in sides.values():
    assert (side() - sides["fused"]()).abs().max() < 1e-4
assert traffic == (157_286_400, 6_291_456)
assert round(4 * HEADS * LENGTH**2 * E / traffic[0]) == 15  # operations a byte of the formula
times = cpu_seconds(sides, 7)
attending = {LENGTH: times}
print(f"1,024 tokens: the fused kernel moves {traffic[0] / traffic[1]:.0f} times fewer bytes")
predict(
    "And it does as many products. How many times faster is it?",
    ["1", "3", "25"],
    "\n".join(f"{times['formula'] / value:.1f}  {n}" for n, value in times.items()),
)

# %% [markdown] slide="Attention"
# Three to four times in our runs, not 25. And half of that is not the bytes: written into tables that are there, the formula is nearly twice as fast. The system
# had to hand out 38 MB for each table, as in the chain above. What is left for the fused kernel to win are the passes over the tables.
#
# Ask the rule. The formula does 15 operations for each byte that it moves, and the ridge of this core is at about 13. So it waits for arithmetic already, and the rule promises a
# fusion *nothing*. On a GPU it promises much: there the ridge is at 295, the formula stands far to the left, and the bytes are what it waits for. That is why the paper
# is about GPUs. A fusion moves you along the slope, up to the roof and no further.
#
# | | bytes | operations | calls |
# |---|---|---|---|
# | a chain in one pass, `torch.compile` | fewer | the same | fewer |
# | attention in one pass | far fewer | the same | fewer |
# | BatchNorm folded | fewer | fewer | fewer |
# | gains folded | the same | fewer, by next to nothing | fewer |
# | matrices joined | the same | the same | fewer (no time here) |
#
# So S1's sentence needs its "if": **fusion saves traffic and calls; operations only where algebra folds.**
#
# **Pause.** Here ends the first sitting.
#
# ## 6. The bytes that are not weights
#
# While it writes, a model keeps a key and a value for each token that it has read, in each layer and key-value head: the **KV cache**. Each new token reads
# the weights, *and all of the cache*. The weights are shared by all readers. The cache is not: each reader has his own.
# So what a batch does for weights, it does not do here.
#
# ## Exercise 4: bytes of a cache
#
# In models of today several query heads share one key and value (grouped queries; Ainslie et al., 2023).


# %% exercise="cache_bytes"
def cache_bytes(
    layers: int, heads: int, kv_heads: int, head_width: int, tokens: int, batch: int, bits: int
) -> int:
    """Bytes of the keys and values of `tokens` tokens, for each of `batch` texts, in all layers.

    heads query heads share kv_heads key-value heads, each head_width numbers wide. bits of 16 or 32
    are floats, and nothing else is stored. At 8, 4 or 2 bits, the numbers of one key or value (one
    token, one head) fill whole bytes, and carry a scale and a minimum, each float16.
    """
    ### BEGIN SOLUTION
    stored = math.ceil(head_width * bits / 8) + (4 if bits < 16 else 0)
    return 2 * layers * kv_heads * tokens * batch * stored
    ### END SOLUTION


# %% check="cache_bytes" points=1
check(cache_bytes)

# %% [markdown]
# Move the sliders. Weights at 4.5 bits, the cache at what you choose. **Guess first:** a model of seven billion parameters without grouped
# queries, one reader: from how many tokens on is the cache larger than the weights?

# %% tags=["collapsed"] slide=True
# Figure with sliders: weights against cache
SHAPES = {  # model -> parameters, layers, heads, key-value heads, head width
    "SmolLM2 (135M)": (134_515_008, 30, 9, 3, 64),
    "Llama-2-7B": (6_738_415_616, 32, 32, 32, 128),
    "Llama-3-8B": (8_030_261_248, 32, 32, 8, 128),
    "Llama-3-70B": (70_553_706_496, 80, 64, 8, 128),
}
count_cache, CONTEXTS = yours("cache_bytes"), [2**k for k in range(7, 18)]


def overtakes(model: str, readers: int, bits: int) -> float:
    """The context at which the cache is as large as the weights at 4.5 bits."""
    parameters, *shape = SHAPES[model]
    return parameters * 4.5 / 8 / count_cache(*shape, 1, readers, bits)


def draw_cache(model: str, readers: int, cache_bits: int) -> Picture:
    """Gigabytes over the context: the weights' flat line, and the cache's slope."""
    parameters, *shape = SHAPES[model]
    figure, (axes,) = new_figure(height=3.3)
    weights = parameters * 4.5 / 8e9
    cached = [count_cache(*shape, n, readers, cache_bits) / 1e9 for n in CONTEXTS]
    axes.plot(CONTEXTS, [weights] * len(CONTEXTS), color=BLUE, label="weights, 4.5 bits")
    axes.plot(
        CONTEXTS,
        cached,
        "o-",
        color=ORANGE,
        label=f"cache, {cache_bits} bits, {readers} reader{'s' * (readers > 1)}",
    )
    axes.set(xscale="log", yscale="log", xlabel="tokens of each reader", ylabel="gigabytes")
    axes.set_xticks(CONTEXTS[::2], [f"{n:,}" for n in CONTEXTS[::2]])
    axes.legend(frameon=False)
    at = overtakes(model, readers, cache_bits)
    where = (
        f"from {at:,.0f} tokens on the cache is larger"
        if at < CONTEXTS[-1]
        else "the weights stay larger"
    )
    axes.set_title(f"{model}: {where}")
    return Picture(
        figure,
        f"{model}, {readers} readers: weights {weights:.2f} GB; cache {cached[0]:.3g} to {cached[-1]:.3g} GB.",
    )


assert count_parameters(tiny) == 1_967_808
real = prefix(tiny)
held = sum(x.nbytes for layer in real for x in layer.values())
assert held == count_cache(4, 6, 2, 32, prompt.shape[1], 1, 32)
explore(
    draw_cache,
    model=(list(SHAPES), "Llama-2-7B"),
    readers=([1, 8, 64], 1),
    cache_bits=([16, 8, 4, 2], 16),
)

# %% [markdown]
# Llama-2-7B: 7,200 tokens. Llama-3-8B, with a quarter of the key-value heads: 34,000. With 64 readers, divide by 64: 113 tokens each.
# **The better the weights are compressed, the sooner the cache is what you wait for.** A server with many readers is a machine that reads
# caches. On the clock, SmolLM2 in float32, stored:

# %% tags=["collapsed"]
# Stored rows: SmolLM2's next token after long texts
# OMP_NUM_THREADS=1 python -m benchmarks.decoding contexts, 2026-11-26, one core of an x86 server
STORED_CONTEXTS = {  # (readers, tokens before): MB of the cache; ms for a token of each reader: cache copied, room taken
    (1, 64): (3, 57.1, 56.6), (1, 512): (24, 64.0, 61.0),
    (1, 1024): (47, 85.2, 71.2), (1, 2000): (92, 105.4, 78.1),
    (8, 64): (24, 148.7, 144.9), (8, 512): (189, 227.4, 168.2),
    (8, 1024): (377, 331.0, 202.3), (8, 2000): (737, 574.6, 248.5),
}  # fmt: skip
print("SmolLM2, float32: weights 538 MB                 time beside that after 64 tokens")
print("                                      cache   copied for each token   room taken at once")
for (readers, seen), (megabytes, *took) in STORED_CONTEXTS.items():
    copied, in_room = (
        t / t64 for t, t64 in zip(took, STORED_CONTEXTS[readers, 64][1:], strict=True)
    )
    who = f"{readers} reader{'s' * (readers > 1):2}after {seen:5,} tokens"
    print(f"{who:34}{megabytes:6.0f} MB{copied:15.2f}{in_room:22.2f}")
assert 7_000 < overtakes("Llama-2-7B", 1, 16) < 7_500  # the guess above
assert 34_000 < overtakes("Llama-3-8B", 1, 16) < 35_000

# %% [markdown]
# One reader who has read 2,000 tokens waits nearly twice as long for the next one, though his cache is a sixth of the weights. But most of that is not reading. To append a token to a tensor is to write
# the whole tensor anew. Where the room for all tokens was taken at once (`PreallocatedCache`), he waits 1.4 times as long. Eight readers wait nearly four times as long, or 1.7 times: their caches weigh more than the model. Of the 104 ms
# that these cost with their room taken, 50 are for the bytes, at this core's bandwidth; the rest is attention's own work.
#
# ### Fewer bits for it
#
# A cache can be quantized like a weight, but nobody can calibrate it beforehand: it is written while you read. And it has a
# structure of its own. Here are keys and values of one head of TinyLM. (A layer's keys are $(B, G, S, E)$: texts, key-value heads, tokens, channels of a head. So are its values.)

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure: keys and values of one head, token by token
some_cache = tiny.empty_cache()
tiny(text[:1, :128], some_cache)
figure, both = new_figure(columns=2, height=3.2)
for axes, part in zip(both, ("key", "value"), strict=True):
    picture = some_cache[2][part][0, 0]  # (S, E)
    far = picture.abs().max()
    shown = axes.imshow(picture, cmap="PuOr", vmin=-far, vmax=far, aspect="auto")
    axes.set(xlabel="channel", ylabel="token", title=f"{part}s")
    axes.grid(False)
    figure.colorbar(shown, ax=axes)
figure.suptitle("A channel of the keys is large at every token; none of the values is")
Picture(
    figure, "Two heat maps, 128 tokens by 32 channels. Keys show vertical stripes, values do not."
)

# %% [markdown]
# The keys have a stripe: one channel is large, at every token, with a sign of its own. (In TinyLM's heads there are one to three of them, of 32.) Quantize the keys token by token, and such
# a channel sets the step for all the others. Quantize them **channel by channel**, and it keeps its step to itself. Values have hardly any such stripes, and
# what a token's value is off by should depend on this token alone: **token by token**. That is KIVI (Liu, Yuan, Jin, Zhong, Xu, Braverman, Chen and Hu, 2024).
#
# ## Exercise 5: keys by channel, values by token


# %% exercise="quantize_cache"
def quantize_cache(
    keys: torch.Tensor, values: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values after they were held in few bits: keys by channel, values by token.

    keys, values: (B, G, S, E), float, finite. Numbers that share a grid: in keys those of one text,
    head and channel, over the S tokens; in values those of one text, head and token, over the E
    channels (Liu et al., 2024). A grid has 2^bits even levels, the lowest at the smallest of its
    numbers, the highest at the largest; each number becomes the nearest level. Where all are equal,
    they stay. The same shapes and dtypes; float64 on the way.
    """

    ### BEGIN SOLUTION
    def rounded(x: torch.Tensor, axis: int) -> torch.Tensor:
        wide = x.double()
        low, high = wide.amin(axis, keepdim=True), wide.amax(axis, keepdim=True)
        step = (high - low) / (2**bits - 1)
        codes = ((wide - low) / step).round().nan_to_num()  # 0 / 0 where all are equal
        return (low + codes * step).to(x.dtype)

    return rounded(keys, 2), rounded(values, 3)
    ### END SOLUTION


# %% check="quantize_cache" points=2
check(quantize_cache)

# %% [markdown]
# Does it pay? `QuantizedCache` holds such a cache: 32 tokens at a time are rounded, with a scale for each channel of these 32 (keys) or each token (values).
# It can do the naive way, too: keys token by token. (KIVI leaves the latest tokens as floats, a residual window. Here nothing stays a float, so that we see more.)
# TinyLM reads the held-out text 32 tokens at a time. **Guess:** at which number of bits does the naive way break?

# %% slide=True
ways_to_round = {"by channel": True, "naive": False}
cached_bits = {"float32": tiny_quality(ThroughCache(tiny, dict, 32), tokenizer).bits_per_byte}
print(f"float32: {cached_bits['float32']:.3f} bits per byte")
for bits in (8, 4, 3, 2):
    for name, by_channel in ways_to_round.items():
        make = partial(QuantizedCache, bits, residual=0, keys_by_channel=by_channel)
        found = tiny_quality(ThroughCache(tiny, make, 32), tokenizer)
        cached_bits[bits, name] = found.bits_per_byte
    print(
        f"{bits} bits: keys by channel {cached_bits[bits, 'by channel']:.3f}, naive {cached_bits[bits, 'naive']:.3f}"
    )

# %% tags=["collapsed"]
# Does it hold here? And the bytes that a cache of 2 bits really has
assert abs(cached_bits[4, "by channel"] - cached_bits["float32"]) < 0.003
assert abs(cached_bits[4, "naive"] - cached_bits["float32"]) < 0.003
assert 0.005 < cached_bits[2, "by channel"] - cached_bits["float32"] < 0.02
assert cached_bits[2, "naive"] > cached_bits[2, "by channel"] + 0.01
two_bits = [QuantizedCache(2, residual=0) for _ in tiny.blocks]
tiny(text[:1], two_bits)
in_file = sum(size(layer.parts()).bytes for layer in two_bits)
plain_cache = count_cache(4, 6, 2, 32, 256, 1, 16)
print(
    f"256 tokens: {plain_cache:,} bytes in float16, {in_file:,} in a file of 2 bits, header and all"
)
STORED_CACHES = {  # SmolLM2, 4,096 tokens of Wikipedia, 32 at a time: perplexity
    "float32": 23.70, "8 bits, by channel": 23.70, "8 bits, naive": 23.71,
    "4 bits, by channel": 23.82, "4 bits, naive": 23.85, "3 bits, by channel": 24.30,
    "3 bits, naive": 25.17, "2 bits, by channel": 30.12, "2 bits, naive": 58.66,
}  # fmt: skip
# OMP_NUM_THREADS=1 python -m benchmarks.decoding caches, 2026-11-26; stripes, 2026-11-26
STORED_STRIPES = {"key": 10.4, "value": 2.7}  # SmolLM2, largest channel over median, median head
print(f"\nSmolLM2, stored, perplexity; float32: {STORED_CACHES['float32']:.2f}")
for bits in (8, 4, 3, 2):
    by_channel, naive = (STORED_CACHES[f"{bits} bits, {way}"] for way in ways_to_round)
    print(f"{bits} bits: keys by channel {by_channel:.2f}, naive {naive:.2f}")
print("\nthe largest channel's mean size over the median one's, in the median head")
for part, of_smollm2 in STORED_STRIPES.items():
    sizes = torch.stack([layer[part][0].abs().mean(dim=1) for layer in some_cache])  # (L, G, E)
    stripe = (sizes.amax(dim=2) / sizes.median(dim=2).values).median().item()
    print(f"{part}s: TinyLM {stripe:.1f}, SmolLM2 {of_smollm2} (stored)")
    assert stripe > 3 if part == "key" else stripe < 2

# %% [markdown]
# Down to 4 bits it does not matter how: **either way is as good as float32**, or nearly. (Differences of 0.001 bits per byte mean nothing.) At 3 bits the naive way begins to lose; at 2 the difference is the method. TinyLM loses 0.011 bits per byte by channel and 0.028 naively; SmolLM2, whose
# keys have larger stripes (ten times the median channel, not four), goes from a perplexity of 23.7 to 30 by channel, and to 59 naively. (KIVI's paper loses less at 2 bits: it keeps the latest tokens as floats, and its models are
# fifty times as large.) A baseline makes a method look good: at 4 bits there is nothing to be clever about.
#
# And the bytes are real ones: not an eighth of float16's but a quarter. Each 32 numbers share a scale and a minimum in float16, one bit more a number: three of sixteen. The rest is the file's
# header, which names every group.
#
# ### Forgetting
#
# The other way to a small cache is to forget. Keep a sliding window, the latest tokens, and drop the others? It goes wrong at the moment when the
# *first* tokens leave. Attention is a softmax: its weights sum to one, so a head that looks for nothing must still look somewhere, and models learn to look at the first
# tokens then, the **attention sinks**. Keep those few, and it works (Xiao et al., 2024). SmolLM2, a cache of 256 tokens, windows of 2,048, stored:

# %% tags=["collapsed"]
# Stored rows: SmolLM2 with a cache of 256 tokens
# OMP_NUM_THREADS=1 python -m benchmarks.decoding sinks, 2026-11-26, one core of an x86 server
STORED_SINKS = {  # what stays in the cache: perplexity
    "all tokens": 21.4,
    "the last 256": 45.4,
    "the first 4 and the last 252": 22.0,
}  # fmt: skip
for name, perplexity in STORED_SINKS.items():
    print(f"{name:30}{perplexity:8.1f}")

# %% [markdown]
# Dropping the oldest doubles the perplexity. Keeping four of them, and 252 of the latest, costs next to nothing: 22.0 instead of 21.4, with an eighth of the cache. Nothing in those four tokens *means* anything; they are the place where attention
# goes when it goes nowhere. (A small model need not have sinks. TinyLM over 3,657 tokens with a window of 256: 1.159 bits per byte without its first four, 1.160 with them. Ask the model that you have.)
#
# ## 7. Guess ahead
#
# In decode, a pass has one row, and you know from section 3 what that means: the processor waits for bytes, and its arithmetic is idle. A pass over
# five rows would fetch the same weights. It would cost about the same. But which five rows? The next token must be known before the one after it can be computed.
#
# Unless you guess. Let something cheap, the **draft**, guess $\gamma$ tokens. Let the model read all of them in one pass: it then says, for each place,
# what it would have written there. As long as the guesses agree with it, they stand. Where the first one differs, the model's own
# token comes, and the rest is thrown away. This is **speculative decoding** (Leviathan et al., 2023). At the worst it gives one token for a pass, as before.
#
# How much does a pass over $\gamma + 1$ tokens cost? Measure it, as a multiple of a pass over one: call it $v$.

# %% tags=["nbval-ignore-output"]
cache = prefix(tiny)
passes = {
    n: partial(
        lambda some: tiny(some, [dict(layer) for layer in cache]), torch.arange(n)[None] + 100
    )
    for n in (1, 2, 3, 5, 9, 17)
}
pass_times = cpu_seconds(passes, 21)
print("TinyLM, a pass over n tokens beside one: ", end="")
print(", ".join(f"{n}: {t / pass_times[1]:.2f}" for n, t in pass_times.items()))
print("a layer of 4,096 × 4,096, 8 rows beside 1: ", end="")
print(
    ", ".join(
        f"{n} {clock[n, 8] / clock[n, 1]:.1f}"
        for n in ("float32", "bfloat16", "4-bit weights")
        if (n, 8) in clock
    )
)

# %% tags=["collapsed"]
# Stored rows: SmolLM2's pass over a few tokens of one text. And does TinyLM's hold here?
# OMP_NUM_THREADS=1 python -m benchmarks.decoding passes, 2026-11-26, one core of an x86 server
STORED_PASSES = {  # form: ms for a pass over 1, 2, 5, 8 tokens
    "float32": (55.3, 59.7, 94.2, 118.8),
    "bfloat16": (54.2, 58.1, 59.1, 59.2),
    "8-bit weights": (33.4, 37.0, 53.4, 60.3),
    "4-bit weights": (21.0, 25.0, 36.5, 43.0),
}  # fmt: skip
print("SmolLM2, a pass over n tokens beside one       2      5      8")
for name, (single, *more) in STORED_PASSES.items():
    print(f"{name:40}" + "".join(f"{took / single:7.2f}" for took in more))
assert pass_times[5] < 5 * pass_times[1]

# %% [markdown] slide="Draws"
# TinyLM: five tokens for about 1.2 times the price of one. That is not the roofline: TinyLM waits for its calls, and five rows share these. In a large model it is the weights' bytes that
# they share, and there the rule says that rows are free left of $B^*$. **It holds for SmolLM2 in bfloat16.** In float32 five rows
# should be free, too, and cost 1.7 times as much as one: the library's float32 kernel is weak on a few rows (section 3). And with 8-bit and 4-bit weights $B^*$ is small, so that each row costs something:
# **a model that is quantized in this way has less to win from speculation.** A server with full batches has nothing to win: it has no idle arithmetic.
#
# ### Draws, too
#
# With the most likely token each time, "agree" is clear. But models also *draw* tokens at random. Then the draft draws $x$ with its probability $q(x)$,
# and the model has $p(x)$. We want a rule for accepting, such that what comes out is distributed as $p$, exactly, however bad the draft.
#
# Think of a token $x$ that the draft likes too much, $q(x) > p(x)$: it comes too often. So accept it only with chance $p(x)/q(x)$. A token
# that the draft likes too little: accept it always, and it still comes too seldom; $p(x) - q(x)$ is missing. What was refused must make up for just
# that: after a refusal draw from $r = \max(p - q, 0)$, scaled to a sum of 1. Token $x$ then comes with probability
#
# $$\underbrace{\min(q(x),\, p(x))}_{\text{accepted}} \;+\; \underbrace{\sum_y \max(q(y) - p(y), 0)}_{\text{chance of a refusal}} \cdot \frac{\max(p(x) - q(x), 0)}{\sum_y \max(p(y) - q(y), 0)} \;=\; p(x),$$
#
# since the two sums are equal: what $q$ has too much in some places it has too little in others. And $\alpha = \sum_x \min(p(x), q(x))$ is the chance that a guess is accepted, the **acceptance rate**.
#
# ## Exercise 6: accept, or draw again


# %% exercise="accept_or_resample"
def accept_or_resample(
    draft: torch.Tensor,
    target: torch.Tensor,
    token: int,
    uniform_accept: float,
    uniform_resample: float,
) -> int:
    """The token that comes at a place for which a draft model drew `token`.

    draft q and target p, (V,), are the two models' probabilities at that place; q of `token` is not
    0. u = uniform_accept and v = uniform_resample are from 0 to 1, 1 excluded.

        u < p(token) / q(token):   the token itself
        else:                      the first token j with r(0) + … + r(j) > v · (sum of all r),
                                   where r = max(p − q, 0)

    So a token that p gives no chance never comes. Reckon in float64, whatever comes in.
    """
    ### BEGIN SOLUTION
    q, p = draft.double(), target.double()
    if uniform_accept * q[token] < p[token]:
        return token
    left = (p - q).clamp(min=0).cumsum(dim=0)
    return int((left > uniform_resample * left[-1]).nonzero()[0])
    ### END SOLUTION


# %% check="accept_or_resample" points=2
check(accept_or_resample)

# %% [markdown]
# Do not believe it: count. Three tokens, a draft that has little idea, and all draws of a fine grid.

# %%
q, p = (torch.tensor(row, dtype=torch.float64) for row in ([0.6, 0.3, 0.1], [0.2, 0.3, 0.5]))
grid = [(k + 0.5) / 50 for k in range(50)]
came, rule = torch.zeros_like(p), yours("accept_or_resample")
for token in range(3):
    for u in grid:
        for v in grid:
            came[rule(q, p, token, u, v)] += q[token] / len(grid) ** 2
alpha = torch.minimum(p, q).sum().item()
print(f"draft {q.tolist()}, model {p.tolist()}, α = {alpha:.1f}")
print(f"what came out: {[round(share, 2) for share in came.tolist()]}")

# %% tags=["collapsed"]
# Does it hold here?
assert (came - p).abs().max() < 0.02

# %% [markdown]
# ## Exercise 7: what it wins
#
# Say each guess is accepted with chance $\alpha$, whatever came before. A round gives one token in any case, a second if the first guess stood, and so on:
# $1 + \alpha + \dots + \alpha^\gamma$ in the mean. It costs one pass of the model and $\gamma$ steps of the draft, each $c$ passes long.


# %% exercise="speculation_gain"
def speculation_gain(alpha: float, gamma: int, cost: float) -> float:
    """How many times faster speculation is than the plain loop, on average.

    In a round the draft model draws gamma γ tokens, and the target model reads them all at once.
    Each is accepted with probability alpha α, 0 to 1, as long as those before it were. The token
    after the last accepted one is the target's own, so a round gives 1 + α + … + α^γ tokens on
    average. cost c: the time of one draft step; the target's pass takes 1, whatever it reads. γ may
    be 0, and so may α; α may also be 1.
    """
    ### BEGIN SOLUTION
    tokens = sum(alpha**drafted for drafted in range(gamma + 1))
    return tokens / (1 + gamma * cost)
    ### END SOLUTION


# %% check="speculation_gain" points=1
check(speculation_gain)

# %% [markdown]
# Now real drafts for TinyLM. Its own first layers, one, two or three of its four, with its own head: no training, no bytes.
# And a draft that is no model at all: **prompt look-up**. If the last three tokens (or two, or one) stood in the text before, guess what followed
# them there. (Yang et al., 2023; Saxena, 2023.) The text: 100 tokens after the beginning of a held-out chapter.
#
# **Guess before you run:** three of four layers agree with all four more often than not. Do they make it faster?

# %% tags=["nbval-ignore-output"] slide=True
start = tokens_of(held_out_sample()[:400])[:, :100]
plain_text, one_pass = generate(tiny, start, 100), pass_times[1]
steps = {"look-up": lambda: LookUp().propose(start, 4)}  # what four guesses cost, or one
drafts = {"look-up": LookUp}
for layers in (1, 2, 3):
    early = view_without_layers(tiny, layers_off(range(layers, 4), 4))
    drafts[f"{layers} of 4 layers"] = partial(ModelDraft, early)
    steps[f"{layers} of 4 layers"] = partial(
        lambda m, seen: m(start[:, -1:], [dict(s) for s in seen]), early, cache[:layers]
    )
costs = {n: t / one_pass / (4 if n == "look-up" else 1) for n, t in cpu_seconds(steps, 15).items()}

sides = {
    name: lambda make=make: speculative_generate(tiny, make(), start, 100, gamma=4)
    for name, make in drafts.items()
}
spent = cpu_seconds(sides | {"plain": lambda: generate(tiny, start, 100)}, 3)
count_of = partial(yours("speculation_gain"), gamma=4, cost=0)  # 1 + α + … + α⁴
gained = {}
print("                               tokens a pass")
print("4 guesses a round      α      c   counted   1 + … + α⁴")
for name, side in sides.items():
    found = side()
    assert found.tokens.equal(plain_text)
    print(f"{name:18}{found.acceptance:6.2f}{costs[name]:7.2f}", end="")
    print(f"{found.tokens_per_round:10.2f}{count_of(found.acceptance):13.2f}")
    gained[name] = found, spent["plain"] / spent[name]

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# The guess. And do the counts hold here?
assert all(found.rounds + found.accepted == 100 for found, _ in gained.values())
assert gained["3 of 4 layers"][0].acceptance > gained["1 of 4 layers"][0].acceptance
assert gained["look-up"][0].rounds < 60
for layers in (1, 2, 3):  # four guesses each time: the formula counts the tokens
    found = gained[f"{layers} of 4 layers"][0]
    assert abs(found.tokens_per_round / count_of(found.acceptance) - 1) < 0.15
predict(
    "Guesses by the model's own first three of four layers, four in each round. How fast does it write?",
    ["twice as fast", "as fast as before", "half as fast"],
    f"{gained['3 of 4 layers'][1]:.1f} times as fast; by look-up {gained['look-up'][1]:.1f} times",
)

# %% tags=["collapsed", "nbval-ignore-output"]
# Times faster: by tokens a pass over what a round costs, and by the clock
print("times faster        tokens a pass / (v + 4c)   clock")
for name, (found, times_faster) in gained.items():
    formula = found.tokens_per_round / (pass_times[5] / one_pass + 4 * costs[name])
    print(f"{name:18}{formula:26.2f}{times_faster:8.2f}")

# %% [markdown]
# The same text every time, token for token: that is asserted above, and it is the point of the method. But with four guesses a round **all three drafts that are models lose.** Their
# guesses are not bad. They are dear: one layer of four, with the head, is no small part of the model. The formula says so before any clock does:
# with $\alpha$ no larger than $c$ there is nothing to win, and much only if $c$ is small. A draft of 1 billion parameters before a model of 70 has a seventieth of the bytes.
#
# Look at the two columns of tokens. For the models your formula's count is right to a few percent: they guess four times a round. For look-up it is too high, for look-up often finds
# nothing to guess. What one round gives, over what it costs, is divided by $v + 4c$ here and not by $1 + 4c$: Exercise 7 takes a pass to cost 1, whatever it reads, and you have measured that five tokens
# cost $v$. (The $c$ are in passes over one token, too.) The clock is slower still, by up to a quarter in our runs: somebody must cut the caches back and compare tokens, and no formula pays him.
#
# Look-up costs next to nothing, and wins, since the Bible
# repeats itself. (So does TinyLM: left to itself, it soon runs in circles.) SmolLM2, stored: a text to be copied, and one to be invented.

# %% tags=["collapsed"]
# Stored rows: SmolLM2, look-up, 4 guesses a round
# OMP_NUM_THREADS=1 python -m benchmarks.decoding look_up, 2026-11-26, one core of an x86 server
STORED_LOOK_UP = {  # numbers, text: α, tokens for each pass, times faster, and how many of 64 are the plain loop's
    ("float32", "copy"): (0.57, 1.73, 1.08, 64), ("float32", "story"): (0.16, 1.07, 0.81, 64),
    ("bfloat16", "copy"): (0.71, 2.21, 1.95, 53), ("bfloat16", "story"): (0.16, 1.07, 1.02, 64),
}  # fmt: skip
print("                  α   tokens a pass   times faster   the same")
for (kind, name), (alpha, per_pass, gain, alike) in STORED_LOOK_UP.items():
    print(f"{kind:9}{name:6}{alpha:5.2f}{per_pass:14.2f}{gain:15.2f}{alike:8} of 64")

# %% tags=["collapsed"] slide=True
# Figure: when speculation wins
figure, (axes,) = new_figure(height=3.3)
gain_of = yours("speculation_gain")
rates = [k / 100 for k in range(100)]
for cost, colour in ((0.0, GREEN), (0.05, BLUE), (0.2, ORANGE), (0.5, RED)):
    best = [max(gain_of(alpha, gamma, cost) for gamma in range(9)) for alpha in rates]
    axes.plot(rates, best, color=colour, label=f"a guess costs {cost:.2g} of a pass")
axes.axhline(1, color=BLACK, linewidth=0.8)
axes.set(xlabel="α, the chance that a guess is accepted", ylabel="times faster", ylim=(0.9, 5))
axes.legend(frameon=False)
axes.set_title("With the best γ up to 8: it wins where α is above c, and much where c is small")
assert max(gain_of(0.5, gamma, 0.5) for gamma in range(1, 9)) <= 1 + 1e-9
Picture(
    figure,
    "Gain over α for guesses of 0, 0.05, 0.2 and 0.5 of a pass: all rise steeply near 1, and each stays at 1 until α is as large as that cost.",
)

# %% [markdown]
# Look-up on SmolLM2 in float32 hardly wins even where the text repeats itself, and *loses* where it does not, though a guess by look-up costs nothing. What costs is the check: a pass of five rows takes 1.7 times as long as one of a
# single row there, as you saw above. In bfloat16 rows are nearly free, and look-up writes the copy about twice as fast.
#
# One more thing about bfloat16. There the two loops wrote the same copy for 53 of 64 tokens, and then they parted. The rule is exact; the arithmetic is not: five rows in one pass are summed in another order than five single rows, and of two tokens that
# are nearly equally likely the other one won. In float32 all 64 were equal. "Exact" ends where rounding begins. **Speculation sells idle arithmetic. Before you buy, look whether yours is idle.**
#
# ### A round, and a colleague's faults
#
# What is left is bookkeeping, and there the errors are. The model has read the guesses, so its cache holds them. Those that were refused must leave it. A colleague
# wrote a round. It runs, and its first rounds are right.


# %% tags=["nbval-ignore-output"]
def colleagues_round(model, cache, unread, drafted):
    cache = [dict(layer) for layer in cache]
    logits = model(torch.cat([unread, drafted], dim=1), cache)  # (1, γ + 1, V)
    best = logits.argmax(dim=-1)  # (1, γ + 1)
    accepted = int((drafted == best[:, :-1]).sum())
    keep = cache[0]["key"].shape[2] - drafted.shape[1] + accepted
    for layer in cache:
        layer["key"], layer["value"] = layer["key"][:, :keep], layer["value"][:, :keep]
    return best[:, : accepted + 1], cache


def write_by(
    one_round, model: nn.Module, tokens: torch.Tensor, count: int
) -> tuple[torch.Tensor, int]:
    """At least `count` tokens more, by rounds with look-up; and how many rounds."""
    cache, rounds, goal = model.empty_cache(), 0, tokens.shape[1] + count
    model(tokens[:, :-1], cache)
    while tokens.shape[1] < goal:
        guess = LookUp().propose(tokens, min(4, goal - tokens.shape[1]))
        new, cache = one_round(model, cache, tokens[:, -1:], guess.tokens[None])
        tokens, rounds = torch.cat([tokens, new], dim=1), rounds + 1
    return tokens, rounds


wanted = generate(tiny, start, 60)
written, rounds = write_by(colleagues_round, tiny, start, 60)
same = (written[:, :160] == wanted[:, : written.shape[1]]).int().cumprod(1).sum() - 100
print(f"the colleague's {written.shape[1] - 100} tokens agree with the model's own for {same}")

# %% [markdown]
# ## Exercise 8: repair a round
#
# Two faults. Find them on paper, or print how many tokens the cache holds after a round with a refusal.


# %% exercise="verify_drafts"
def verify_drafts(
    model: Llama, cache: list[dict], unread: torch.Tensor, drafted: torch.Tensor
) -> tuple[torch.Tensor, list[dict]]:
    """A round of greedy speculation: (the tokens that are certain now, the cache after it).

    The model has read S tokens, and `cache` holds them: for each layer {"key", "value"}, each
    (1, G, S, E); an empty dictionary where S is 0. unread (1, 1) is the token after them, certain,
    not yet read. drafted (1, γ) are guesses of what follows it; γ may be 0. The model reads all of
    them in one call.

    Drafts are accepted up to the first that is not the model's most likely token there. Then comes
    the model's own: A accepted drafts and it are (1, A + 1). The new cache holds S + 1 + A tokens:
    those before, unread, the accepted drafts. `cache` itself stays as it is.
    """
    ### BEGIN SOLUTION
    cache = [dict(layer) for layer in cache]
    best = model(torch.cat([unread, drafted], dim=1), cache).argmax(dim=-1)  # (1, γ + 1)
    accepted = int((drafted == best[:, :-1]).long().cumprod(dim=1).sum())
    keep = cache[0]["key"].shape[2] - drafted.shape[1] + accepted
    for layer in cache:
        layer["key"], layer["value"] = layer["key"][:, :, :keep], layer["value"][:, :, :keep]
    return best[:, : accepted + 1], cache
    ### END SOLUTION


# %% check="verify_drafts" points=2
check(verify_drafts)

# %% tags=["collapsed", "nbval-ignore-output"]
# The same loop by your round
written, rounds = write_by(yours("verify_drafts"), tiny, start, 60)
print(f"60 tokens in {rounds} rounds; the model's own: {written[:, :160].equal(wanted)}")
assert same < 60 and written[:, :160].equal(wanted) and rounds < 45

# %% [markdown] slide="8. Two"
# ## 8. Two processors
#
# S1 (§2.2) says that model parallelism makes inference faster. There are two ways to share out a model, and the sentence is true of one of them.
#
# **Pipeline parallelism.** The first worker has the first half of the layers, the second the rest. One request passes through the first, then through the second: it
# takes as long as before, plus the way between. While the second works, the first can take the next request. With $s$ stages and $m$ requests (or **micro-batches**, pieces of a batch) all is done after
# $m + s - 1$ ticks instead of $m \cdot s$ on one worker; each stage is idle for a share of the time, the **pipeline bubble**:
#
# $$\text{bubble} = \frac{s - 1}{m + s - 1}$$
#
# (Huang et al., 2019). Four stages and one request: 4 ticks, as on one worker. Sixteen micro-batches: 19 ticks in place of 64, bubble 0.16.
#
# **Tensor parallelism.** Each worker has a part of *each* layer (Shoeybi et al., 2019). Then one request is done sooner: each worker fetches half of the weights. The art is to talk seldom.
# Take an MLP, $W_2\,\text{silu}(W_1 x)$. Split $W_1$ by rows: each worker has some of the hidden units, whole, so that it can take their silu. Split $W_2$ by
# columns: just those that read its units. Then each has a summand of the output, and one sum at the end, an **all-reduce**, is all that must travel.
#
# (Shoeybi et al. write $xW$, so that they split by columns first. It is the same cut.)
#
# ## Exercise 9: an MLP on several workers


# %% exercise="tensor_parallel_mlp"
def tensor_parallel_mlp(
    x: torch.Tensor, first_weight: torch.Tensor, second_weight: torch.Tensor, workers: int
) -> list[torch.Tensor]:
    """What each of several workers contributes to an MLP; the sum of all is its output.

    The MLP is W₂ silu(W₁ x) for each row of x (T, D); first_weight W₁ (F, D), second_weight
    W₂ (D, F). Worker w alone holds the hidden units of its part, and reckons with nothing else: no
    number travels before the sum. The units stay in their order. Each worker has F // workers of
    them, and the first F % workers have one more. A worker without units contributes zeros.

    The result: a list of `workers` tensors (T, D), in the dtype of x.
    """
    ### BEGIN SOLUTION
    firsts = first_weight.tensor_split(workers)
    seconds = second_weight.tensor_split(workers, dim=1)
    return [F.silu(x @ w1.T) @ w2.T for w1, w2 in zip(firsts, seconds, strict=True)]
    ### END SOLUTION


# %% check="tensor_parallel_mlp" points=2
check(tensor_parallel_mlp)

# %% [markdown]
# Now for real: two processes of your machine, which talk over its loopback. Eight texts of 64 tokens through TinyLM.

# %%
texts = text[:, :64]
serial = tiny(texts)
with Workers(2) as workers:
    by_tensor = tensor_parallel(workers, tiny, texts)
    whole_batch = pipeline_parallel(workers, tiny, texts, micro_batches=1)
    by_pieces = pipeline_parallel(workers, tiny, texts, micro_batches=4)
for name, found in (
    ("tensor", by_tensor),
    ("pipeline", whole_batch),
    ("4 micro-batches", by_pieces),
):
    sent = found.traffic[0]
    print(
        f"{name:16} the first worker hands over {sent.bytes:9,} bytes in {sent.messages} messages;",
        end=" ",
    )
    print("weights a worker: " + ", ".join(f"{count:,}" for count in found.parameters))

# %% tags=["collapsed"]
# Does it hold here?
for found in (by_tensor, whole_batch, by_pieces):
    assert (found.logits - serial).abs().max() < 1e-3
stream = 8 * 64 * 192 * 4  # bytes of x: (B, T, D) in float32
assert by_tensor.traffic[0].messages == 2 * 4 and by_tensor.traffic[0].bytes == 8 * stream
assert (whole_batch.traffic[0].messages, by_pieces.traffic[0].messages) == (1, 4)
assert whole_batch.traffic[0].bytes == by_pieces.traffic[0].bytes == stream
assert bubble(4, 1) == 0.75 and round(bubble(4, 16), 2) == 0.16 and bubble(2, 4) == 0.2


# %% tags=["collapsed"] slide=True
# Figure with a slider: four stages of a pipeline at work
def draw_pipeline(micro_batches: int) -> Picture:
    """Who works on what at which tick."""
    figure, (axes,) = new_figure(height=2.4)
    ticks = schedule(4, micro_batches)
    for tick, working in enumerate(ticks):
        for stage, piece in enumerate(working):
            if piece is not None:
                axes.barh(stage, 1, left=tick, color=COLOURS[piece % 3], edgecolor="white")
                axes.text(tick + 0.5, stage, piece + 1, ha="center", va="center", size=8)
    axes.set(xlabel="tick", ylabel="stage", xlim=(0, 19))
    axes.set_yticks(range(4), range(1, 5))
    axes.set_xticks(range(0, 20, 2))
    axes.invert_yaxis()
    axes.grid(False)
    share, one = bubble(4, micro_batches), 4 * micro_batches
    pieces = f"{micro_batches} micro-batch{'es' * (micro_batches > 1)}"
    axes.set_title(f"{pieces}: {len(ticks)} ticks, one worker needs {one}; idle {share:.0%}")
    return Picture(figure, f"Four stages, {pieces}: a staircase of {len(ticks)} ticks.")


for count in (1, 2, 4, 8, 16):
    working = [piece for tick in schedule(4, count) for piece in tick]
    assert abs(working.count(None) / len(working) - bubble(4, count)) < 1e-9
explore(draw_pipeline, micro_batches=([1, 2, 4, 8, 16], 4))

# %% [markdown]
# The same logits all three times. A worker holds 60 % of the numbers, not 50, as both have the embedding. And what travels is different by nature: the pipeline sends the stream (what goes from layer to layer, 192 numbers a token) once, at the cut. Tensor
# parallelism sums it twice a layer, 8 times here, and **everybody waits each time**. So tensor parallelism needs fast wires, within one machine; a pipeline gets along with slow ones.
#
# On one laptop the two workers share one memory. As long as one core cannot use all that it gives, two of them read more than one, and win something; a core that can leaves nothing to win in decode. S1's sentence becomes: **a pipeline raises throughput, not
# the speed of a request; tensor parallelism can cut the latency, if the wires are fast. And both make a model fit that would not fit.**
#
# ## 9. Other people's engines
#
# All that we timed so far was PyTorch, called from Python, three hundred times a token. Nobody ships that. What is shipped is a file, and an **engine** that
# reads it: a program without Python, with kernels for its processor. You will write your own model into such a file.
#
# **GGUF** is the file of llama.cpp. Its quantized matrices are blocks of 32 weights. `Q4_1` is affine: each block has a float16 scale, a float16
# minimum, and 32 codes of 4 bits. 20 bytes, 5 bits a weight. `Q4_0` has a scale alone (4.5 bits), `Q8_0` codes of 8 bits (8.5).
#
# ## Exercise 10: a block of GGUF


# %% exercise="pack_q4_1"
def pack_q4_1(block: torch.Tensor) -> torch.Tensor:
    """32 weights as the 20 bytes, uint8 (20,), that a GGUF file's block of kind Q4_1 has.

    block (32,), floats; reckon in float64. With low and high its least and largest weight,

        minimum m = low,   scale s = (high − low) / 15,   both rounded to float16
        code of a weight w = (w − m) / s, rounded, and at least 0 and at most 15

    with the *rounded* m and s, for a reader knows no others. Where s is 0, all codes are 0. Bytes 0
    and 1 hold s, bytes 2 and 3 m, low byte first. Byte 4 + i holds the code of weight i in its low
    four bits, and that of weight i + 16 in its high four. |w| is at most 30,000.
    """
    ### BEGIN SOLUTION
    w = block.double()
    low, high = w.aminmax()
    head = torch.stack([(high - low) / 15, low]).half()  # s and m as a reader will find them
    scale, minimum = head.double()
    codes = ((w - minimum) / scale.where(scale > 0, torch.inf)).round().clamp(0, 15)
    codes = codes.to(torch.uint8)
    return torch.cat([head.view(torch.uint8), codes[:16] | codes[16:] << 4])
    ### END SOLUTION


# %% check="pack_q4_1" points=2
check(pack_q4_1)

# %% [markdown]
# A row of TinyLM through your blocks, read back by the `gguf` package, which knows nothing of you. Then the whole model: `write_gguf` writes matrices, tokenizer, shapes and
# names; llama.cpp runs it in this process, with one thread.

# %% tags=["collapsed"]
# A row through your blocks and back
pack_block = yours("pack_q4_1")
row = tiny.blocks[0].mlp.up.weight[0]  # (192,): six blocks
in_bytes = torch.cat([pack_block(block) for block in row.view(-1, 32)])
back = torch.from_numpy(dequantize(in_bytes.numpy(), GGMLQuantizationType.Q4_1))
half_step = (row.view(-1, 32).amax(1) - row.view(-1, 32).amin(1)).max() / 30
print(
    f"{row.numel()} weights in {in_bytes.numel()} bytes; largest error {(back - row).abs().max():.4f}, half a step is {half_step:.4f}"
)
assert in_bytes.numel() == 120 and (back - row).abs().max() < 1.05 * half_step

# %% tags=["nbval-ignore-output"]
GGUF_SCHEMES = {  # kind of block -> how it is rounded
    "float32": None,
    "Q8_0": Scheme(Format(8, symmetric=True), 32),
    "Q4_1": Scheme(Format(4), 32, q4_1_range),
    "Q4_0": Scheme(Format(4, symmetric=True), 32),
}
# OMP_NUM_THREADS=1 python -m benchmarks.decoding llama_cpp, 2026-11-26, one core of an x86 server
STORED_LLAMA_CPP = {  # kind: bytes of the file, times faster than PyTorch, largest error of a log probability
    "float32": (7_934_528, 2.8, 0.0000),
    "Q8_0": (2_159_168, 4.4, 0.1471),
    "Q4_1": (1_299_008, 4.5, 0.2009),
    "Q4_0": (1_176_128, 3.2, 0.1902),
}  # fmt: skip
engine, by_codes = dict(STORED_LLAMA_CPP), {}
for kind, scheme in GGUF_SCHEMES.items():
    matrices = every_linear(tiny, scheme) | {"embedding.weight": scheme} if scheme else {}
    codes = {n: nearest_codes(tiny.get_parameter(n), s) for n, s in matrices.items()}
    same = copy.deepcopy(tiny)
    for name, chosen in codes.items():
        same.get_parameter(name).copy_(chosen.weight)
    moved = same(prompt).log_softmax(-1) - tiny(prompt).log_softmax(-1)
    by_codes[kind] = moved.abs().max().item()
    if has_llama_cpp():
        with TemporaryDirectory() as folder:
            path = Path(folder, "tiny.gguf")
            write_gguf(path, tiny, tokenizer, codes)
            llama = LlamaCpp(path)
            sides = {
                "engine": partial(llama.write, prompt[0], 32),
                "ours": partial(generate, tiny, prompt, 32),
            }
            spent, written = cpu_seconds(sides, 5), sides["engine"]()
            found = llama.log_probabilities(prompt[0], 2048) - same(prompt)[0].log_softmax(-1)
            speed = spent["ours"] / spent["engine"]
            engine[kind] = path.stat().st_size, speed, found.abs().max().item()
        print(f"{kind:8}{written.text!r}")
if not has_llama_cpp():
    print("The package xllamacpp is not installed (extra `edge`): the stored table follows.")
print("\n                   times faster   a log probability, largest error")
print("kind         bytes than PyTorch   by the engine   by the codes")
for kind, (count, speed, error) in engine.items():
    print(f"{kind:8}{count:10,}{speed:13.1f}{error:16.4f}{by_codes[kind]:15.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert engine["float32"][2] < 1e-3 and all(error < 0.5 for _, _, error in engine.values())
assert engine["Q4_1"][0] < 0.17 * engine["float32"][0]
assert 0.15 < by_codes["Q8_0"] < 0.29 and min(by_codes["Q4_1"], by_codes["Q4_0"]) > 2

# %% [markdown]
# Your own model, written and read by a program that shares no line with this course. Look at the first row: **float32, not a bit removed, and more than twice as fast.** That is mostly section 4's
# third term: there is no Python, and a token is no longer three hundred calls. With codes it is two and a half to five times as fast. TinyLM at 4 bits is six times smaller, *and at last it is faster*, most of it without a bit removed.
#
# But the rows do not stand in the order of their bytes. `Q4_0` has the fewest, and is the slowest of the three with codes: another kernel. TinyLM lies in the processor's caches, so that kernels decide here and not the memory. With a model of gigabytes
# it is the other way round.
#
# In float32 its logits are ours to five digits. With codes they are not quite, though the weights are the same: this engine rounds the inputs of each layer to 8 bits, too, and multiplies integers by integers.
# (It joins two lines of your table: the bytes of 4-bit weights, and the arithmetic of 8 bits on both sides.) A log probability is off by up to 0.2. Compare it with the last column, what the codes themselves do to it: at 4 bits
# the engine adds less than a tenth of that, at 8 bits more than half as much. If you compare engines, compare
# with the dequantized weights, as we did here, or you take one error for the other.
#
# **ONNX** is a graph: a list of standard operations and the weights. onnxruntime runs it on servers, desktops and in browsers. **ExecuTorch** is PyTorch's own: a `.pte` file, a program for one length of
# text, planned beforehand to the last byte, for phones; XNNPACK computes it. To export takes seconds, so ExecuTorch stands here as a stored table.

# %% tags=["collapsed", "nbval-ignore-output"]
# TinyLM as a graph in ONNX; stored rows of ExecuTorch
if has_onnx():
    with TemporaryDirectory() as folder:
        path = Path(folder, "tiny.onnx")
        export_onnx(tiny, path)
        session, graph_bytes = open_onnx(path), path.stat().st_size
    sides = {
        "onnxruntime": lambda: run_onnx(session, texts[:1]),
        "PyTorch": lambda: tiny(texts[:1]),
    }
    difference = (sides["onnxruntime"]() - sides["PyTorch"]()).abs().max()
    graph = cpu_seconds(sides, 15)
    assert difference < 1e-3
    print(
        f"ONNX: {graph_bytes / 1e6:.1f} MB, largest difference of a logit {difference:.0e}, ",
        end="",
    )
    print(f"64 tokens in {graph['onnxruntime'] / graph['PyTorch']:.2f} of PyTorch's time")
else:
    print("onnx or onnxruntime is not installed (extra `edge`). Stored: 8.2 MB, difference 3e-05.")

# OMP_NUM_THREADS=1 python -m benchmarks.decoding engines, 2026-11-26, one core of an x86 server
STORED_EXECUTORCH = {  # kind: seconds to export, MB, largest error of a logit, time for 128 tokens beside PyTorch's
    "float32": (15.5, 9.58, 2.5e-5, 0.90),
    "float16": (11.3, 4.83, 0.20, 0.83),
    "int8": (20.2, 3.74, 0.76, 0.63),
}  # fmt: skip
print(
    "ExecuTorch, stored: "
    + "; ".join(
        f"{n} {row[1]:.1f} MB, a logit off by up to {row[2]:.2g}, {row[3]:.2f} of PyTorch's time"
        for n, row in STORED_EXECUTORCH.items()
    )
)

# %% [markdown]
# ### The documents' sample
#
# S0 (§5.2) and S1 (§5) end with three lines for TensorFlow Lite: a converter, an optimization, a type. They do run, and they do what they say in code: the type
# is float16, so the file shrinks by two. The text beside them speaks of 8-bit integers. Those would have come *without* the line of the type (the weights alone; the inputs are rounded as they
# come), or with a sample of data (all of it). In chapter 05's words: float16 storage; int8 weights with dynamic ranges; int8 on both sides with calibrated ranges.
#
# The names have moved on. TensorFlow Lite is called **LiteRT** since 2024; its file is still a `.tflite`. Quantizing in the converter is deprecated: today one converts first
# (from PyTorch, too), in float32, and quantizes the file afterwards, with a tool of its own. We did not run LiteRT here. What it does is what
# you have just seen done by ExecuTorch: a graph without Python, kernels for that processor, weights of 4, 2 or 1 bytes. (The int8 file has two bytes a weight, for its embedding stayed float32.)
#
# ### A phone, a browser, a server
#
# S1 (§6) says that compression brings large models to phones, to the edge and into the cloud. Count first.

# %% tags=["collapsed"]
# Gigabytes of weights and of a cache
print(
    "                 16 bits   4.5 bits   cache, 8,192 tokens, 16 bits    in all, 4.5 bits   (GB)"
)
for name, (parameters, *shape) in SHAPES.items():
    held = count_cache(*shape, 8192, 1, 16) / 1e9
    wide, narrow = parameters * 2 / 1e9, parameters * 4.5 / 8e9
    print(f"{name:15}{wide:9.1f}{narrow:10.1f}{held:20.2f}{narrow + held:26.1f}")
print(f"GPT-3 (175B)   {350:9.1f}{175 * 4.5 / 8:10.1f}")
assert 3.7 < 6_738_415_616 * 4.5 / 8e9 < 3.9 and 175 * 4.5 / 8 > 90

# %% [markdown]
# So S1's sentence is true with a number beside it: 8 billion parameters at 4 bits, with grouped queries, fit into a good phone, 175 billion into no phone at any number of bits that works.
#
# | | phone | browser | server |
# |---|---|---|---|
# | how many rows? | one reader: decode, far left of $B^*$ | one reader | many readers, prompts: right of $B^*$, if the batch is full |
# | what one waits for | bytes of weights; calls, if the model is small | the download, once; then as a phone | arithmetic in prefill; caches in decode |
# | so | 4-bit weights, a planned file, look-up if the text repeats itself | few bytes, coded (chapter 06); WebAssembly has 4 GB (16 with 64-bit addresses, which not every browser has in 2026) | 8 bits on *both* sides, small caches, grouped queries, batches |
# | file | `.pte`, `.tflite`, `.gguf` | `.onnx`, `.gguf` | safetensors, `.gguf`, `.onnx` |
#
# Whoever asks "which method is fastest?" has left out the half of the question that decides: **on how many rows, on which machine?**
#
# ## 10. Your own: write faster
#
# `generate` is the plain loop: one token, one pass, three hundred calls. Make it faster, and exactly as good: the same tokens. There are two ways, and they add up. *Fewer
# passes:* speculate. *Cheaper passes:* fold, join, compute the rotary tables once, take the cache's room at once instead of copying it for each
# token (`PreallocatedCache` in `course_lib.acceleration.cache`), leave out Python where it does nothing. The judge takes turns with the plain loop and counts seconds of the processor, of all threads.
#
# You could call `speculative_generate` and be done: one line, about 0.7 of the plain loop's time. Consider that the mark to beat. Fusing the model first makes it worse, for the copy is paid in each call. The loop that we
# wrote for this takes 0.35 on the judge's texts (more on shorter ones: it prepares itself first). How far do you get?
#
# ## Exercise 11: invent


# %% exercise="fast_decode"
def fast_decode(model: Llama, tokens: torch.Tensor, count: int) -> torch.Tensor:
    """tokens (1, T), and after them the `count` most likely next ones, one after another.

    Exactly what `generate(model, tokens, count)` of `models.llama` gives, (1, T + count), for less.
    model is an ordinary decoder in float32, not to be changed; T + count fits into its context.
    Asked for: at most 0.8 of the CPU seconds of `generate`, on the same texts. Seconds of all
    threads count, so more threads gain nothing.
    """
    ### BEGIN SOLUTION
    text, goal = tokens[0].tolist(), tokens.shape[1] + count
    config, head = model.config, (model.embedding if model.config.tied else model.head).weight
    H, G, E, D = config.heads, config.kv_heads, config.head_width, config.width
    cos, sin = rotary_tables(torch.arange(goal), E, config.rope_base)  # once, not at each token
    sin = torch.cat([-sin[:, : E // 2], sin[:, E // 2 :]], dim=1)
    layers = []
    for block in model.blocks:  # gains folded, matrices joined, the cache's room taken at once
        mix, mlp = block.attention, block.mlp
        inward = torch.cat([mix.query.weight, mix.key.weight, mix.value.weight])
        inward = (inward * block.attention_norm.weight).T.contiguous()
        gates = torch.cat([mlp.gate.weight, mlp.up.weight]) * block.mlp_norm.weight
        room = torch.empty(2, 1, G, goal, E)
        layers.append((inward, mix.output.weight.T, gates.T.contiguous(), mlp.down.weight.T, room))
    scores = (head * model.norm.weight).T

    def norm(x):
        return F.rms_norm(x, (D,), eps=config.norm_epsilon)

    def choices(new, seen):
        """The most likely token after each of the new ones, which follow `seen` others."""
        x, stop = model.embedding.weight[new], seen + len(new)
        mask = torch.ones(len(new), stop).bool().tril(seen) if len(new) > 1 else None
        for inward, outward, gates, down, room in layers:
            joined = (norm(x) @ inward).view(len(new), H + 2 * G, E)
            turned = joined[:, : H + G]
            turned = turned * cos[seen:stop, None] + turned.roll(E // 2, 2) * sin[seen:stop, None]
            room[0, 0, :, seen:stop] = turned[:, H:].transpose(0, 1)
            room[1, 0, :, seen:stop] = joined[:, H + G :].transpose(0, 1)
            keys, values = room[:, :, :, :stop]
            queries = turned[None, :, :H].transpose(1, 2)
            mixed = F.scaled_dot_product_attention(queries, keys, values, mask, enable_gqa=True)
            x = torch.addmm(x, mixed[0].transpose(0, 1).flatten(1), outward)
            gate, up = (norm(x) @ gates).chunk(2, dim=1)
            x = torch.addmm(x, F.silu(gate) * up, down)
        return (norm(x) @ scores).argmax(dim=1).tolist()

    def look_up(most):
        """What followed the last three tokens, or two, or one, where they stood before."""
        for length in (3, 2, 1):
            for begin in range(len(text) - length - 1, -1, -1):
                if text[begin : begin + length] == text[-length:]:
                    return text[begin + length : begin + length + most]
        return []

    seen = 0
    with torch.inference_mode():
        while len(text) < goal:
            drafted = look_up(min(4, goal - len(text) - 1))
            best = choices(text[seen:] + drafted, seen)[-len(drafted) - 1 :]
            agreed = 0
            while agreed < len(drafted) and drafted[agreed] == best[agreed]:
                agreed += 1
            text += best[: agreed + 1]
            seen = len(text) - 1
    return torch.tensor([text])
    ### END SOLUTION


# %% check="fast_decode" points=4 tags=["nbval-ignore-output"]
check(fast_decode)

# %% [markdown] question="served_slower" points=2
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **A vendor shows that his 4-bit model answers three times as fast as the float16 one, to one reader. You put it on your server with 200 readers, whose prompts are long, and it is slower than before.** Is the
# vendor lying? Explain both figures by one rule, and say what you would use on the server instead.
#
# <!-- BEGIN SOLUTION -->
# No. Time is at least the larger of bytes over bandwidth and operations over peak. One reader is one row: the weights are fetched for two operations each, so bytes decide, and a quarter of them takes a
# third of the time. In the long prompts a fetched weight serves hundreds or thousands of rows: operations decide, 4-bit weights do as many of them (they are unpacked to floats first), and unpacking comes on top. In decode 200 readers are 200 rows. The crossing is at
# B* = π b / (16 β), and with fewer bits it lies at fewer rows: 83 and 295 for 4.5 and 16 bits on an H100. So the 4-bit layer waits for arithmetic, the float16 one still for bytes: 4 bits could win 1.5 times there, if unpacking were free. On the server: numbers that are *multiplied* in fewer bits (int8 or FP8 on both sides), fewer rows or columns (structured pruning), and, as the readers' caches are what decode
# waits for, smaller caches.
#
# *One point* for bytes against operations, with rows that decide (prompts, above all; "200 is more than B*" alone is not enough). *One point* for a remedy that lowers operations' time, or the cache's bytes, with its reason.
# <!-- END SOLUTION -->

# %% [markdown] question="phone_plan" points=2
# **A team wants an 8-billion model on a phone that has 6 GB to spare and reads 50 GB/s, for texts of 16,000 tokens, at twelve tokens a second. They propose: 90 % of the weights set to zero, then 8 bits, then a draft model of 1 billion
# parameters.** Go through it with numbers: what fits, what is fast enough, what would you change? (32 layers, 8 key-value heads of width 128.)
#
# <!-- BEGIN SOLUTION -->
# Zeros save nothing where dense kernels run: neither bytes in memory nor time. (Stored sparsely, 8 bits and a column of 16 for a tenth of the weights, 2.4 GB would fit; but few phones have a fast kernel for it, and nine tenths of zeros ruin the model: chapter 03.) 8 bits are 8 GB: it does not fit. At 4.5 bits, 4.5 GB; 4.5 / 50 = 90 ms a token, eleven tokens a second at best.
# The cache: 2 · 32 · 8 · 128 · 16,000 · 2 bytes = 2.1 GB in float16: it does not fit beside the weights, and reading it costs 42 ms more. At 4 bits 0.56 GB and 11 ms: 5.1 GB, 101 ms, 9.9 tokens a second. It fits, and is too slow: something must be guessed ahead.
# The draft of 1 billion: 0.56 GB at 4.5 bits and a small cache of its own, less than 0.2 GB: 5.8 of 6 GB, it just fits. A guess costs about an eighth of a pass. By Exercise 7 with four guesses it wins 2.3 / 1.5 = 1.5 times at α = 0.6, and 2.2 times at 0.8, if
# a pass over five rows costs as much as one over one row; if the phone's 4-bit kernel makes it cost 1.7, as SmolLM2's here, next to nothing and 1.5 times. So it is the part of their plan that can help. Look-up needs no memory, and wins where the text repeats itself.
# So: 4 bits by a good method (chapter 11), cache at 4 bits or less (keys by channel), look-up or the draft; then measure the pass over five rows, and α.
#
# *One point* for the weights: what fits, and its time. *One point* for the cache's bytes, or for saying why zeros do not help and when the draft does.
# <!-- END SOLUTION -->

# %% [markdown]
# ## In numbers

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# The chapter in numbers
own_loop = yours("fast_decode")
own_times = cpu_seconds(
    {"plain": partial(generate, tiny, start, 100), "own": partial(own_loop, tiny, start, 100)}, 3
)
assert own_loop(tiny, start, 100).equal(plain_text)
print("one layer, time beside float32        1 row   64 rows   1,024 rows")
for name in ways:
    if name != "float32":
        print(f"  {name:34}" + "".join(f"{ratio(name, rows):10.2f}" for rows in (1, 64, 1024)))
print(
    f"this core: {beta / 1e9:.0f} GB/s; float32 {machines[torch.float32].peak / 1e9:.0f} · 10⁹ operations a second"
)
four_bits = STORED_SMOLLM2["4-bit weights"]
print(
    f"SmolLM2, 4-bit weights: one reader {four_bits[1] / dense_row[1]:.2f}, a prompt of 256 tokens {four_bits[-1] / dense_row[-1]:.1f} (stored)"
)
print(
    f"attention in one pass, 1,024 tokens: 25 times fewer bytes, {attending[1024]['formula'] / attending[1024]['fused']:.1f} times faster"
)
print(
    f"Llama-2-7B: the cache outweighs 4-bit weights from {overtakes('Llama-2-7B', 1, 16):,.0f} tokens on"
)
print(
    f"TinyLM, cache of 2 bits: {cached_bits['float32']:.3f} bits per byte become {cached_bits[2, 'by channel']:.3f}, naive {cached_bits[2, 'naive']:.3f}"
)
for name in ("look-up", "3 of 4 layers"):
    print(
        f"guessed by {name}: α {gained[name][0].acceptance:.2f}, {gained[name][1]:.1f} times as fast"
    )
print(f"yours: {own_times['own'] / own_times['plain']:.2f} of the plain loop's time")
print(f"TinyLM in llama.cpp, Q4_1: {engine['Q4_1'][1]:.1f} times as fast as PyTorch")

# %% [markdown] slide="In numbers"
# Why is my compressed model not faster? Because time is not in the file. **It is in the bytes that are fetched and in the operations that are done, whichever takes longer, and in the calls.** Fewer bits
# help where bytes decide: few rows. Faster arithmetic helps where operations decide: many rows. What is really gone helps everywhere. A zero helps nobody who does not know of it.
#
# And three habits. Before you measure, divide: bytes by bandwidth, operations by peak; then you know what to hope for, and who is lying. Time on the number of rows that you will have. And choose
# your baseline with care: float32 on eight rows was slow by itself, and would have made anything look good. Which methods keep a real model's quality at these bits: chapter 11.
