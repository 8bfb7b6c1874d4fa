# %% [markdown]
# # 05 · Linear quantization
#
# **How many bits does a weight need?**
#
# In TinyLM's file a weight has 16 bits, a `float16`. In chapter 00 you threw away 12 of them, and the
# model hardly noticed. Here you learn to do it properly: which numbers to keep, who shares a scale,
# what happens to a weight that does not fit, how two 4-bit codes get into one byte, and why fewer bits
# are sometimes faster and sometimes not.
#
# * **Afterwards you can** quantize a model per tensor, channel and group, pack it into a file, choose a
#   range by search, and say before you measure whether fewer bits will be faster.
# * **You need** chapter 00, and a little of matrices and means.
# * **Time:** two sittings of about three hours. The first ends behind Exercise 8, where it says **Pause**.
# * **Core:** Exercises 1, 2, 4 to 8 and 12, and both experiments. **Extra:** the byte (Exercise 3), packing
#   (9, 10), the detector (11), your own codes (13), and the rules of calibration.
#
# The method is a ruler. Lay a ruler with evenly spaced marks along the weights, and move each weight
# to the nearest mark. Then you need not store the weight: the number of its mark will do. That is
# **linear** (or *uniform*) quantization. All the art is in choosing the ruler.
#
# ## Look first
#
# This is a row of a real layer, the last `down` matrix of TinyLM. Its 512 weights make one output.
# The red lines are the marks of the ruler; each weight moves to the nearest one.
#
# Two sliders. **bits**: with $n$ bits there are $2^n - 1$ marks, evenly to both sides of zero.
# **one scale for each**: who shares a ruler. All weights of the `tensor`, the weights of one output
# `channel` (one row), or a group of `64` neighbours in a row (then the lines are the ruler of the row's first group).
#
# **Guess before you move anything:** what does the ruler look like at 3 bits, if the whole tensor
# shares it?

# %% tags=["collapsed"]
# Imports
import warnings
from copy import deepcopy

import torch
import torch.nn.functional as F

from course_lib.data.text import bible_chapters, split
from course_lib.device import best_device
from course_lib.exercises import check, hint, yours
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.measure.latency import latency, seconds
from course_lib.measure.quality import quality
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality, wikipedia_sample
from course_lib.models import pretrained
from course_lib.models.parts import record_inputs
from course_lib.plots.explore import explore
from course_lib.plots.figure import BLUE, COLOURS, GREEN, ORANGE, RED, Picture, new_figure
from course_lib.plots.levels import draw_curves, draw_levels
from course_lib.plots.predict import predict
from course_lib.quantization import calibration, histogram
from course_lib.quantization.integer_linear import dynamic_linear
from course_lib.quantization.linear import Format, dequantize, fake_quantize, fit_grid, quantize
from course_lib.quantization.rows import to_rows

device = best_device()
tiny, tokenizer = pretrained.tiny()
tiny.to(device)
layer = tiny.blocks[3].mlp.down.weight
print(f"the layer of this chapter: {tuple(layer.shape)}, {layer.numel():,} weights")
assert layer.numel() == 98_304


# %%
def on_grid(weight: torch.Tensor, bits: int, share: str | int) -> torch.Tensor:
    """The weight rounded to symmetric grids: one a tensor, a channel or a group of `share`."""
    rows = to_rows(weight, share)  # those who share a scale stand in one row
    grid = fit_grid(*calibration.minmax_range(rows), Format(bits, symmetric=True))
    return fake_quantize(rows, grid).view_as(weight)


def relative_error(changed: torch.Tensor, weight: torch.Tensor) -> float:
    """Root mean square of the error, as a share of the root mean square of the weights."""
    return ((changed - weight).norm() / weight.norm()).item()


# %% tags=["collapsed"] slide=True
# Figure with sliders: a row of weights and its ruler
def levels_of_row(bits: int, share: str | int, row: int) -> list[float]:
    """The levels of one row of the layer, or of its first group."""
    rows, format = to_rows(layer, share), Format(bits, symmetric=True)
    scale = fit_grid(*calibration.minmax_range(rows), format).scale
    first = {"tensor": 0, "channel": row}.get(share, row * len(rows) // len(layer))
    return (scale[first] * torch.arange(format.lowest, format.highest + 1, device=device)).tolist()


def draw_ruler(bits: int, one_scale_for_each: str | int) -> Picture:
    """One row's histogram with the levels that its weights may move to."""
    changed, row = on_grid(layer, bits, one_scale_for_each), 35
    levels = levels_of_row(bits, one_scale_for_each, row)
    figure, (axes,) = new_figure(height=3.2)
    largest = layer.abs().max().item()
    draw_levels(axes, layer[row].tolist(), levels, (-1.05 * largest, 1.05 * largest))
    error, zeros = relative_error(changed, layer), (changed == 0).float().mean().item()
    who = {"tensor": "the tensor", "channel": "each channel"}.get(one_scale_for_each, "each group")
    axes.set_title(
        f"{bits} bits, one scale for {who}: error {error:.0%} of the layer, {zeros:.0%} become 0"
    )
    return Picture(
        figure,
        f"Histogram of a row's weights, a narrow hill around 0, and {len(levels)} red lines, the "
        f"levels at {bits} bits with one scale for {who}. Relative error {error:.0%}.",
    )


explore(
    draw_ruler, bits=([2, 3, 4, 6, 8], 3), one_scale_for_each=(["tensor", "channel", 64], "tensor")
)
coarse, fine = (relative_error(on_grid(layer, 3, share), layer) for share in ("tensor", 64))
print(f"3 bits: error {coarse:.0%} with one scale, {fine:.0%} with one for 64 weights")
assert coarse > 3 * fine

# %% [markdown] slide="The formula"
# At 3 bits, with one ruler for the whole tensor, this row has little use for any mark but zero: 93 of
# 100 of its weights go there. A few huge weights elsewhere in the layer stretched the ruler. Give the
# row a ruler of its own, and it fits. Give each 64 weights one, and it fits better still. Keep that
# picture: it is the chapter.
#
# ## The formula, as it is printed
#
# Now in numbers. Let $x$ be a weight in the range $[a, b]$, and $n$ the number of bits. Article S1
# (§4.2) prints
#
# $$x_q = \text{round}\left(\frac{x - a}{b - a} \cdot 2^n - 0.5\right) .$$
#
# The fraction says where in the range $x$ lies, from 0 to 1. Times $2^n$ it says in which of $2^n$
# equal cells. The idea is good. Do what one should do with every formula: **try it at its ends.**
# What should come out at $x = a$? At $x = b$? With three bits, eight codes have names: 0 to 7.


# %% slide=True
def as_printed(x: torch.Tensor, a: float, b: float, n: int) -> torch.Tensor:
    return ((x - a) / (b - a) * 2**n - 0.5).round().int()


x = torch.tensor([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0])
print("x        ", x.tolist())
print("3 bits   ", as_printed(x, -1, 1, 3).tolist())
in_a_byte = as_printed(torch.tensor([0.9, 1.0]), -1, 1, 8)
print("8 bits   ", in_a_byte.tolist(), "stored in a byte:", in_a_byte.to(torch.uint8).tolist())
print("outside  ", as_printed(torch.tensor([-1.2, 1.3]), -1, 1, 8).tolist())

# %% [markdown] slide="The formula"
# Three things go wrong.
#
# * **The upper end overflows.** $x = b$ gets code $2^n$: 8 with three bits, 256 with eight. A byte
#   ends at 255 and wraps around, so the largest weight of the layer becomes the smallest. If $b$ is
#   the largest weight, as it usually is, this happens every single time.
# * **Borders fall to both sides.** `round` takes a tie to the even neighbour. So −0.75 falls into the
#   cell below it and −0.5 into the one above, and no border ever gets code 1, 3, 5 or 7.
# * **Outside the range there is no rule**, and weights outside it will soon be there on purpose.
#
# And one thing is missing: how to get from the code back to a weight.
#
# There are two ways to repair it. Either keep the $2^n$ cells, round down, clamp, and decode to the
# middle of a cell. Or put the $2^n$ levels *onto* the range, the first on $a$ and the last on $b$:
#
# $$q = \text{round}\left(\frac{\text{clamp}(x, a, b) - a}{s}\right), \qquad
#   \hat x = a + s\,q, \qquad s = \frac{b - a}{2^n - 1} .$$
#
# Here $q$ is the code, $\hat x$ the weight that it stands for, and $s$ the **step** between two levels.
# Note the $-1$: eight levels have seven steps between them, as eight fence posts have seven gaps. We
# take the second way, since it keeps both ends exactly. What does it cost?
#
# Article S3 (§4.2) has a shorter way to eight bits, for weights from 0 to 1. It is one line of NumPy,
# `np.round(W * 256).astype(np.uint8)`, and prints the shape of the result as proof that it worked.
# The shape is fine. The last line below has the numbers.

# %%
n, a, b = 4, -1.0, 1.0
x = torch.linspace(a, b, 100_001, dtype=torch.float64)
cells = ((x - a) / (b - a) * 2**n).floor().clamp(0, 2**n - 1)
width, step = (b - a) / 2**n, (b - a) / (2**n - 1)
errors = {
    "cells, decoded to their middle": a + (cells + 0.5) * width - x,
    "cells, decoded to their lower end": a + cells * width - x,
    "levels on the ends": a + ((x - a) / step).round() * step - x,
}
squares = {name: error.square().mean().item() for name, error in errors.items()}
for name, value in squares.items():
    print(f"{name:36} mean squared error {value:.6f}")
s3_weights = torch.tensor([0.0, 0.25, 0.5, 0.999, 1.0])
s3_codes = (s3_weights * 256).round().to(torch.int32).to(torch.uint8)
print(
    "S3's way, of weights", [round(w, 3) for w in s3_weights.tolist()], "codes", s3_codes.tolist()
)

# %% [markdown]
# Levels on the ends cost a little, since there is one step fewer. A decoder that does not match its
# coder costs a factor of four. Coder and decoder are one thing; never change only one of them.
#
# In S3's line 0.999 and 1 get code 0. That is the overflow of above, in other clothes.
#
# ## Exercises 1, 2 and 3: the formula, repaired; the way back; S3's byte
#
# Write the third so that `codes / 255` comes as near to the weight as a byte allows.


# %% exercise="quantize_linear"
def quantize_linear(weight: torch.Tensor, low: float, high: float, bits: int) -> torch.Tensor:
    """Codes 0 … 2**bits − 1 of `weight` on an even grid from `low` to `high`, in uint8.

    Reckon in weight's dtype; low < high, and bits are from 1 to 8.
    """
    ### BEGIN SOLUTION
    levels = 2**bits - 1
    position = (weight.clamp(low, high) - low) / (high - low)
    return (position * levels).round().to(torch.uint8)
    ### END SOLUTION


# %% check="quantize_linear" points=2
check(quantize_linear)


# %% exercise="dequantize_linear"
def dequantize_linear(codes: torch.Tensor, low: float, high: float, bits: int) -> torch.Tensor:
    """The float32 weights that uint8 codes stand for: 0 for `low`, 2**bits − 1 for `high`."""
    ### BEGIN SOLUTION
    return low + codes * (high - low) / (2**bits - 1)
    ### END SOLUTION


# %% check="dequantize_linear" points=1
check(dequantize_linear)


# %% exercise="to_uint8"
def to_uint8(weight: torch.Tensor) -> torch.Tensor:
    """uint8 codes of weights from 0 to 1: codes / 255 is as near as weight's dtype can tell."""
    ### BEGIN SOLUTION
    return (weight * 255).round().to(torch.uint8)
    ### END SOLUTION


# %% check="to_uint8" points=1
check(to_uint8)

# %% [markdown] slide="How large"
# ## How large is the error?
#
# S0 (§4.2) says what quantization wants: the $\theta_q$ with the least $\|\theta - \theta_q\|$. As it stands there,
# the answer is $\theta_q = \theta$, error zero and no bit saved. What is missing is that $\theta_q$ must lie **on a
# grid**. Then the best that one can do, weight by weight, is to round. What does that cost?
#
# Rounding moves $x$ by at most half a step: $|x - \hat x| \le s/2$. That is the **bound**. What is
# typical? Suppose that within a step the weights lie evenly, as dust on the ruler. Then the error $e$
# takes all values from $-s/2$ to $s/2$ alike, and its mean square is
#
# $$\frac{1}{s} \int_{-s/2}^{s/2} e^2 \, de \;=\; \frac{s^2}{12} .$$
#
# One more bit halves the step, so it quarters the mean squared error (that is 6 decibels, a number
# engineers know by heart). The formula knows nothing of weights, layers or models. Does it hold?
#
# Below, the step stands in *widths*, too. By the width of the hill of weights we mean the root of their
# mean square, 0.19 here.
#
# And one more question. The **bound** more than halves with every bit. Does the **error** fall with every
# bit, for any weights? The last lines try four.

# %% slide=True
low, high = layer.min().item(), layer.max().item()
code, decode = yours("quantize_linear"), yours("dequantize_linear")

width = layer.square().mean().sqrt().item()  # of the hill of weights
print("bits      step   in widths   measured error²   step²/12    ratio")
ratios = {}
for bits in range(8, 1, -1):
    step = (high - low) / (2**bits - 1)
    error = decode(code(layer, low, high, bits), low, high, bits) - layer
    measured, predicted = error.square().mean().item(), step**2 / 12
    ratios[bits] = measured / predicted
    print(
        f"{bits:>4}  {step:8.3f}   {step / width:9.1f}   {measured:15.1e}    {predicted:.1e}"
        f"   {ratios[bits]:6.2f}"
    )
print(f"width of the hill {width:.2f}, its square {width**2:.3f}")
print("the four levels at 2 bits:", [round(low + q * step, 2) for q in range(4)])

print("\nlargest error of 0, 1/3, 2/3, 1:")
thirds = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])
for bits in (2, 3, 4):
    error = (decode(code(thirds, 0, 1, bits), 0, 1, bits) - thirds).abs().max().item()
    print(f"{bits} bits: {error:.3f}, bound {0.5 / (2**bits - 1):.3f}")

# %% tags=["collapsed"]
# Does it hold here?
assert as_printed(torch.linspace(-1, 1, 9), -1, 1, 3).tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8]
assert in_a_byte.to(torch.uint8)[1] == 0 and as_printed(torch.tensor(1.3), -1, 1, 8) == 294
assert [round(v, 6) for v in squares.values()] == [0.001302, 0.005207, 0.001481]
assert s3_codes.tolist()[-2:] == [0, 0]
assert all(0.96 < ratios[bits] < 1.04 for bits in range(3, 9)) and ratios[2] > 1.4
assert measured > 5 * width**2 and 0.18 < width < 0.2
assert 2.6 < (high - low) / 7 / width < 3 and 6 < (high - low) / 3 / width < 7
up = (code(layer, low, high, 2) == 2).double().mean()
assert 0.78 < up < 0.82
at_two = (decode(code(thirds, 0, 1, 2), 0, 1, 2) - thirds).abs().max()
assert at_two < 1e-6 < (decode(code(thirds, 0, 1, 3), 0, 1, 3) - thirds).abs().max()

# %% [markdown] slide="Zero has"
# From 8 bits down to 3 it holds within a few per cent. A formula that knows nothing of neural networks!
# At 2 bits it fails badly. The error is five times the weights' own mean square: it would be better
# to delete the layer. Look at the four levels. The hill of weights stands at zero, and there is no
# level at zero. Four fifths of the weights are thrown up to 0.47 and one fifth down to −0.78, and a
# typical weight is 0.19. Nothing lies evenly within a step that is wider than the whole hill. So, before
# you use $s^2/12$, compare the step with the width of the hill. A step of 2.8 widths (3 bits) still does well
# here, one of 6.5 widths (2 bits) does not. To be safe, stay below two.
#
# And the error does not fall with every bit. The last four weights sit exactly on the 2-bit grid. Three
# bits miss it. (Four hit it again: 15 steps can be cut into thirds, 7 cannot.) That looks like a puzzle
# without use. It will come back in this chapter, and bite.
#
# ## Zero has to be on the ruler
#
# With levels on $a$ and $b$, where is zero? In general between two levels. But zero is special. It is
# padding, it is every pruned weight (chapter 03), it is what ReLU gives. So let the code of zero be an
# integer, the **zero-point** $z$, and measure from there (Jacob et al., 2018):
#
# $$q = \text{clamp}\big(\text{round}(x / s) + z,\; 0,\; 2^n - 1\big), \qquad \hat x = s\,(q - z) .$$
#
# This is called **affine** (or asymmetric). If $z = 0$ and the codes run from $-m$ to $m$ with
# $m = 2^{n-1} - 1$, it is **symmetric**: at 8 bits from −127 to 127. The code −128 stays unused, so
# that the codes of $x$ and $-x$ are opposites. S1 speaks of a scaling factor alone, which is the
# symmetric case; S2 (§3.2.4) names both and gives no formula for either. Here you write them.
#
# ## Exercises 4 and 5: affine and symmetric
#
# In the affine one the range must hold zero. Since the zero-point is rounded, the grid then stands up to half
# a step beside the range, and one end of it may be missed by as much. And a tensor may be all zeros: mind the
# division.
#
# Then: which one is better? It depends on the data, so below the exercises are two kinds of it. Weights go
# to both sides of zero. The other kind is what flows inside an MLP. TinyLM's MLP has three matrices, `gate`,
# `up` and `down`, and computes $W_\text{down}\,(\text{SiLU}(W_\text{gate}\,x) \odot W_\text{up}\,x)$, where
# $\odot$ multiplies entry by entry and $\text{SiLU}(u) = u \cdot \text{sigmoid}(u)$ is a smooth ReLU. The
# output of SiLU is often negative, but never below −0.28, while it reaches 19 upwards.


# %% exercise="fit_affine"
def fit_affine(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, zero_point), 0-dim in weight's dtype and in int32, of an even grid of 2**bits levels.

    The zero-point is the code of zero, rounded. The scale is (high − low) / (2**bits − 1) of the
    shortest range that holds all weights and zero, and 1 if all weights are zero.
    """
    ### BEGIN SOLUTION
    low, high = weight.min().clamp(max=0), weight.max().clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().int()
    ### END SOLUTION


# %% check="fit_affine" points=2
check(fit_affine)


# %% exercise="fit_symmetric"
def fit_symmetric(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The scale with which codes −m … m, m = 2**(bits−1) − 1, just reach the largest |weight|.

    0-dim, in weight's dtype; scale 1 if all weights are zero.
    """
    ### BEGIN SOLUTION
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.where(scale == 0, torch.ones_like(scale), scale)
    ### END SOLUTION


# %% check="fit_symmetric" points=1
check(fit_symmetric)

# %%
_, held_out = split(bible_chapters("kjv"))
tokens = torch.tensor(tokenizer.encode(held_out[:8_000]).ids[:1024], device=device).view(4, 256)
mlp = tiny.blocks[3].mlp
into_gate, into_down = record_inputs(tiny, tokens, [mlp.gate, mlp.down])  # (1024, 192), (1024, 512)
gate = F.silu(mlp.gate(into_gate))

fit_to_one, fit_to_both = yours("fit_symmetric"), yours("fit_affine")
print(f"SiLU output: smallest {gate.min():.2f}, largest {gate.max():.1f}")
print(f"{'mean squared error at 4 bits':30}{'symmetric':>10}{'affine':>10}{'ratio':>8}")
gains = {}
for name, data in {"weights": layer, "SiLU output": gate}.items():
    scale, (step, zero) = fit_to_one(data, 4), fit_to_both(data, 4)
    symmetric = scale * (data / scale).round()
    affine = step * (((data / step).round() + zero).clamp(0, 15) - zero)
    error = [(values - data).square().mean().item() for values in (symmetric, affine)]
    gains[name] = error[0] / error[1]
    print(f"{name:30}{error[0]:10.2g}{error[1]:10.2g}{gains[name]:8.1f}")

# %% [markdown]
# Data that reach far to one side only waste half of a symmetric grid: one bit, a factor of nearly four.
# For weights the zero-point buys less, a quarter of the error here, and it costs storage and arithmetic.
# So a common choice at 8 bits is: weights symmetric, activations affine. With fewer bits and smaller
# groups it buys more: symmetric codes leave one of $2^n$ unused, and a small group is seldom centred.
# Many 4-bit formats are affine.
#
# ## Who shares a scale?
#
# The step follows the largest weight. So ask of every layer: how much larger than a typical weight is
# its largest one?


# %% tags=["collapsed"] slide=True
# Figure: how much larger than a typical weight is each layer's largest?
def largest_over_typical(model: torch.nn.Module) -> list[float]:
    """max|w| / (root mean square of w), for every linear layer, in order of size."""
    weights = (p for name, p in model.blocks.named_parameters() if p.dim() == 2)
    return sorted((w.abs().max() / w.square().mean().sqrt()).item() for w in weights)


models = {"TinyLM": tiny}
if pretrained.has_smollm2():
    smol, smol_tokenizer = pretrained.smollm2()
    models["SmolLM2"] = smol.to(device)
outliers = {name: largest_over_typical(model) for name, model in models.items()}

figure, (axes,) = new_figure(height=3)
for (name, values), colour in zip(outliers.items(), COLOURS, strict=False):
    share = [100 * i / (len(values) - 1) for i in range(len(values))]
    axes.plot(share, values, "o-", markersize=3, color=colour, label=name)
axes.set(xlabel="layers, from the mildest to the wildest (%)", ylim=(0, None))
axes.set_ylabel("largest |weight|,\nin typical weights")
axes.set_title("A few weights are huge, and they decide the step for all the others")
axes.legend(frameon=False)
assert 1.2 < gains["weights"] < 1.5 and gains["SiLU output"] > 3
assert (gate < 0).float().mean() > 0.5 and gate.min() > -0.28 and gate.max() > 19
assert outliers["TinyLM"][0] < 4 and outliers["TinyLM"][-1] > 10
assert "SmolLM2" not in outliers or outliers["SmolLM2"][-1] > 50

Picture(
    figure,
    "Lines, largest weight over typical weight for all layers, sorted: "
    + "; ".join(f"{name} goes from {of[0]:.0f} to {of[-1]:.0f}" for name, of in outliers.items()),
)

# %% [markdown] slide="Who shares"
# In TinyLM the largest weight is 4 to 11 times a typical one. In SmolLM2 it goes up to 51 times. With
# 15 levels from −51 to 51, a typical weight of 1 lies in the cell of zero. These are **outliers**. They
# are few, but we do not know whether the model can do without them. (For outliers among the
# *activations* it cannot: Dettmers et al., 2022.) They need not spoil it for everyone, though. Let fewer weights share a scale.
#
# * **Per tensor:** one scale.
# * **Per channel:** one scale for each row of $W$. A row makes one output, $y_i = \sum_j W_{ij} x_j$. So
#   its scale can be pulled out of the sum, and costs one multiplication an output.
# * **Per group:** one scale for $G$ neighbours in a row. The scale changes within the sum. That is
#   more work, and more to store.
#
# A scale is stored in 16 bits, so $n$ bits and groups of $G$ cost $n + 16/G$ bits a weight.
#
# **Guess:** by what factor does the error of our layer fall, at 4 bits, from one scale for the tensor
# to one a channel? And then from a channel to groups of 64?
#
# Then we plant one bad weight: a single one of the 98,304 becomes ten times the largest.

# %% slide=True
print("one scale for      bits a weight   relative error")
by_share = {}
for share in ("tensor", "channel", 128, 64, 32, 16):
    by_share[share] = relative_error(on_grid(layer, 4, share), layer)
    cost = 4 + 16 * len(to_rows(layer, share)) / layer.numel()
    print(f"{share!s:18} {cost:13.3f}   {by_share[share]:13.1%}")

planted = layer.clone()
planted[5, 7] = 10 * layer.abs().max()
erased = (on_grid(planted, 4, "tensor") == 0).double().mean().item()
predict(
    "One scale for the tensor, 4 bits. What share of the layer's weights becomes exactly zero?",
    ["1 in 98,304", "1 in 192", "about half", "nearly all"],
    f"nearly all: {erased:.1%}",
)

# %% tags=["collapsed"]
# The planted weight's damage; does it hold here?
assert by_share["tensor"] > 2.8 * by_share["channel"] and by_share["channel"] < 1.4 * by_share[64]
assert erased > 0.99
for share in ("tensor", "channel", 64):
    noise = (on_grid(planted, 4, share) - planted).norm() / layer.norm()
    print(f"one scale for {share!s:8} error {by_share[share]:.1%} before, {noise:.1%} after")
    damage = noise / by_share[share]
    assert noise > 0.99 if share == "tensor" else damage < 1.2

# %% [markdown]
# From the tensor to a channel is the great step, and it is almost free. Per channel is the least that
# anybody should use. Each halving of a group then buys about ten per cent, at a price that doubles: 4.25
# bits for groups of 64, 5 for groups of 16. With a whole bit you could halve the error instead.
#
# And the planted weight? Per tensor, this one weight erases the layer: all but four of the others
# become zero. Per channel it costs one row of 192, per group 64 weights of 98,304. Groups are an
# insurance.
#
# ## Exercises 6 and 7: per channel, per group
#
# In the second you may call your `quantize_per_channel`: a group is a short row. If the group does not
# divide the row, raise a `ValueError`.


# %% exercise="quantize_per_channel"
def quantize_per_channel(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes (O, I) in int8, scales (O, 1)): symmetric, one scale for each output channel.

    The scales are in weight's dtype; a row of zeros gets scale 1.
    """
    ### BEGIN SOLUTION
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True) / largest
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale
    ### END SOLUTION


# %% check="quantize_per_channel" points=2
check(quantize_per_channel)


# %% exercise="quantize_per_group"
def quantize_per_group(
    weight: torch.Tensor, group: int, bits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes (O, I) in int8, scales (O, I / group)): one scale for `group` neighbours in a row.

    Symmetric; scales in weight's dtype, and 1 for a group of zeros. A `group` that does not divide
    a row is a ValueError.
    """
    ### BEGIN SOLUTION
    if weight.shape[1] % group:
        raise ValueError(f"group must divide a row of {weight.shape[1]} numbers; got {group}")
    groups = weight.reshape(-1, group)  # (O, I) -> (O · I/G, G)
    codes, scale = quantize_per_channel(groups, bits)
    return codes.reshape(weight.shape), scale.reshape(len(weight), -1)
    ### END SOLUTION


# %% check="quantize_per_group" points=2
check(quantize_per_group)

# %% [markdown] slide="Clipping"
# ## Clipping against rounding
#
# There is another answer to outliers: let them go. If the ruler ends at $t < \max|w|$, weights beyond
# it are **clipped** to $t$, and all others get a finer step $s = t / m$, where $m = 2^{n-1} - 1$. Two
# errors pull in opposite directions,
#
# $$\underbrace{\frac{s^2}{12} \cdot P(|w| \le t)}_{\text{rounding: grows with } t} \;+\;
#   \underbrace{\frac{1}{N} \sum_{|w_i| > t} (|w_i| - t)^2}_{\text{clipping: falls with } t} ,$$
#
# with $N$ weights and $P(|w| \le t)$ the share of them that lies inside. Somewhere in between is the
# best $t$. The line is the formula for rounding, the points are measured. (Where the ruler is long and has
# few marks, at the right of 2 and 3 bits, the points lie below the line: there a step is more than two
# widths of the hill, most weights round to zero, and $s^2/12$ is too much.) Move the slider: **with fewer bits,
# does the best $t$ go up or down?**

# %%
shares = torch.linspace(0.06, 1, 48)
magnitude = layer.abs()


def clipping_and_rounding(bits: int) -> tuple[dict, dict]:
    """Measured and predicted mean squared errors for each share of the largest weight."""
    measured = {"rounding": [], "clipping": [], "both": []}
    predicted = {"rounding": []}
    largest_code = 2 ** (bits - 1) - 1
    for end in shares.tolist():
        t = end * magnitude.max()
        step, inside = t / largest_code, magnitude <= t
        square = ((magnitude / step).round().clamp(max=largest_code) * step - magnitude).square()
        parts = ((square * inside).mean().item(), (square * ~inside).mean().item())
        for name, value in zip(measured, (*parts, sum(parts)), strict=True):
            measured[name].append(value)
        predicted["rounding"].append((step**2 / 12 * inside.float().mean()).item())
    return measured, predicted


def best_end(bits: int) -> tuple[float, float]:
    """The share of the largest weight with the least error, and how much less than with all."""
    both = clipping_and_rounding(bits)[0]["both"]
    least = min(both)
    return shares[both.index(least)].item(), both[-1] / least


# %% tags=["collapsed"] slide=True
# Figure with a slider, table: where should the ruler end?
def draw_clipping(bits: int) -> Picture:
    """Rounding and clipping errors over the end of the ruler."""
    measured, predicted = clipping_and_rounding(bits)
    end, gain = best_end(bits)
    figure, (axes,) = new_figure(height=3.2)
    draw_curves(axes, shares.tolist(), measured, predicted)
    axes.axvline(end, color="black", linestyle=":")
    axes.set(xlabel="end of the ruler t, as a share of the largest weight", ylabel="error²")
    axes.set(yscale="log", ylim=(1e-7, 0.1))
    axes.set_title(
        f"{bits} bits: end the ruler at {end:.0%}, and error² is {gain:.1f} times smaller"
    )
    return Picture(
        figure,
        f"Points: rounding error rises and clipping error falls with the end of the ruler; at {bits} "
        f"bits their sum is least at {end:.0%} of the largest weight.",
    )


explore(draw_clipping, bits=([2, 3, 4, 5, 6, 8], 4))

print("bits   best end of the ruler   error² of min–max / error² there")
ends = {bits: best_end(bits) for bits in (8, 6, 4, 3, 2)}
for bits, (end, gain) in ends.items():
    print(f"{bits:>4}   {end:20.0%}   {gain:12.1f}")
assert ends[8][0] > ends[4][0] > ends[2][0] and ends[8][1] < 2 and ends[4][1] > 8
for bits, lowest in ((2, 0.1), (3, 0.7), (4, 0.97), (8, 0.97)):
    found, formula = (of["rounding"] for of in clipping_and_rounding(bits))
    ratio = torch.tensor(found) / torch.tensor(formula)  # of measured to predicted, for each t
    narrow = shares * magnitude.max().cpu() / (2 ** (bits - 1) - 1) < 2 * width
    assert lowest < ratio.min() and ratio.max() < 1.04 and ratio[narrow].min() > 0.97
    assert bits > 3 or ratio.min() < 0.75

# %% [markdown]
# With eight bits there are levels to spare: reach far. With few bits the step is dear: clip boldly. To
# do so one has to search, since $P$ is the data's own. That search is the most useful small tool of
# quantization; GPTQ's code and many others have it.
#
# ## Exercise 8: search the clip
#
# `shrink` holds the candidates, as shares of a row's largest magnitude. Each row chooses for itself.


# %% exercise="search_clip"
def search_clip(weight: torch.Tensor, bits: int, shrink: torch.Tensor) -> torch.Tensor:
    """Scales (O, 1) of symmetric grids, in weight's dtype; no row is all zeros.

    A grid ends at the share of max|row|, out of the candidates `shrink` (in any order), that
    leaves the row the least mean squared error.
    """
    ### BEGIN SOLUTION
    largest = 2 ** (bits - 1) - 1
    scales = weight.abs().amax(dim=1)[:, None] * shrink / largest  # (O, candidates)
    tried = scales[:, None, :]  # (O, 1, candidates)
    codes = (weight[:, :, None] / tried).round().clamp(-largest, largest)
    errors = (codes * tried - weight[:, :, None]).square().mean(dim=1)  # (O, candidates)
    return scales.gather(1, errors.argmin(dim=1, keepdim=True))
    ### END SOLUTION


# %% check="search_clip" points=3
check(search_clip)

# %% [markdown] slide="Calibration"
# ---
# **Pause.** Here the first sitting ends. You have a ruler, and you know who shares it and where it ends. In
# the second it meets activations, files, two language models, and the clock. If you come back another day,
# run the notebook from the top.
#
# ## Calibration
#
# The weights lie there; you can search at leisure. **Activations**, the inputs of a layer, are
# different with every text. So one runs the model on some sample texts, looks, and fixes a range. This is
# **calibration**. Four common rules:
#
# * **min–max:** the whole range seen.
# * **percentile:** leave out the farthest 0.1 % at each end.
# * **mean squared error:** search, as you just did.
# * **KL divergence** (Migacz, 2017): keep the *shape* of the histogram. Count the magnitudes $|x|$ in 2048
#   bins. Try each bin as the last one kept. $P$ is the histogram up to there, with all that lies beyond
#   added to its last bin: that is what clipping does. $Q$ is the histogram up to there, without the rest,
#   as seen through $2^{n-1}$ levels: bins of one level share its counts alike, but empty bins stay empty.
#   Divide both by their sums and take the end with the least $\text{KL}(P \,\|\, Q) = \sum P \ln (P / Q)$.
#
# Here they are on the input of our layer, over 1,024 tokens. The number is the signal-to-noise
# ratio in decibels, $10 \log_{10} \big(\sum x^2 / \sum (x - \hat x)^2\big)$: more is better, and one bit
# is worth 6. **Guess which rule wins at 8 bits, and which at 4.**


# %% slide=True
def decibels(rows: torch.Tensor, ends: calibration.Range, format: Format) -> float:
    error = calibration.rounding_error(rows, fit_grid(*ends, format))
    return 10 * torch.log10(rows.square().sum() / error.sum()).item()


inputs = into_down.reshape(1, -1)
centres, counts = histogram.histogram(inputs)
rules = {
    "min–max": lambda format: calibration.minmax_range(inputs),
    "percentile 99.9": lambda format: calibration.percentile_range(inputs, format),
    "mean squared error": lambda format: calibration.mse_range(centres, format, counts),
    "KL divergence": lambda format: histogram.kl_range(inputs, format),
}
print(
    f"inputs of `down`: half of them below {inputs.abs().median():.1f}, the largest {inputs.abs().max():.0f}"
)
later = torch.tensor(tokenizer.encode(held_out[20_000:30_000]).ids[:1024], device=device)
(unseen,) = record_inputs(tiny, later.view(4, 256), [tiny.blocks[3].mlp.down])
print(f"{'dB':20}{'8 bits':>8}{'4 bits':>8}    on tokens that no rule saw: 8 bits, 4 bits")
decibels_of = {}
for name, rule in rules.items():
    decibels_of[name] = [
        decibels(rows.reshape(1, -1), rule(Format(bits)), Format(bits))
        for rows in (inputs, unseen)
        for bits in (8, 4)
    ]
    print("{:20}{:8.1f}{:8.1f}{:39.1f}{:8.1f}".format(name, *decibels_of[name]))

# %% [markdown]
# The same percentile loses eleven decibels at 8 bits and gains six at 4. A fixed rule cannot know how
# dear a step is; the search does. But it had to win: the score is the very thing that it minimises, on
# the very tokens that it saw. On tokens that no rule saw the order is the same. And KL, which TensorRT made popular, comes last: it cares for the
# shape of the hill and throws the outliers away, and these inputs *are* their outliers. It was made for the
# activations of image networks. A rule is as good as the data it was made for, so measure.
#
# ## From codes to bytes
#
# A code of 4 bits in an `int8` tensor still takes a byte: nothing is saved. Two codes must share one.
# With codes 0 … 15, the first goes into the low four bits of the byte, the second into the high four:
#
#     first   0b0101        byte  0b0011_0101
#     second  0b0011
#
# Symmetric 4-bit codes run from −7 to 7. Add 7 before you pack, subtract it after.
#
# ## Exercises 9 and 10: pack and unpack


# %% exercise="pack_int4"
def pack_int4(codes: torch.Tensor) -> torch.Tensor:
    """Codes 0 … 15 (N,), uint8, two to a byte, the first in the low four bits; odd ends get a 0."""
    ### BEGIN SOLUTION
    if len(codes) % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return codes[0::2] | (codes[1::2] << 4)
    ### END SOLUTION


# %% check="pack_int4" points=1
check(pack_int4)


# %% exercise="unpack_int4"
def unpack_int4(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` uint8 codes 0 … 15 that pack_int4 put into bytes; zeros at the end count, too."""
    ### BEGIN SOLUTION
    pairs = torch.stack([packed & 15, packed >> 4], dim=1)  # (N/2, 2)
    return pairs.flatten()[:count]
    ### END SOLUTION


# %% check="unpack_int4" points=1
check(unpack_int4)

# %% [markdown]
# From here on a size is that of a file. `pack_model` packs the weights (of any number of bits from 2 to
# 8), adds the scales in `float16`, and leaves the norms alone; `size` writes the file, asks the file
# system, and reads it back.
#
# ## What is "float16 quantization"?
#
# S0 and S1 explain quantization by the example of 8-bit integers (S0 §2.2, S1 §2.1). Their code sample
# (S0 §5.2, S1 §5) calls the TensorFlow Lite converter with `supported_types = [tf.float16]`. That makes
# no integers. It stores each weight as
# a shorter *float*: no scale, no zero-point, no calibration, half the bytes. With that line left out,
# the same converter gives int8. (Run in TensorFlow 2.21: 2.00 and 3.85 times smaller.) `bfloat16` is a
# third choice, with the range of `float32` and fewer digits. **Guess:** which of the three has the
# smallest error? Which is the least exact, and why does nobody mind?

# %%
embedding = {"embedding.weight": Scheme(Format(8, symmetric=True), "channel")}


def stored(bits: int, share: str | int, symmetric: bool = True, model=tiny) -> dict:
    """The model as it goes to a file: linear layers as said, the embedding at 8 bits a row."""
    scheme = Scheme(Format(bits, symmetric), share)
    return pack_model(model, every_linear(model, scheme) | embedding)


float32_bytes = size(tiny.state_dict()).bytes
files = {
    dtype: {k: v.to(dtype) for k, v in tiny.state_dict().items()}
    for dtype in (torch.float16, torch.bfloat16)
}
weights_of = {
    str(dtype).removeprefix("torch."): (layer.to(dtype).float(), size(files[dtype]).bytes)
    for dtype in files
}
weights_of["int8"] = (on_grid(layer, 8, "channel"), size(stored(8, "channel")).bytes)
print(f"{'float32':10}{float32_bytes / 1e6:7.2f} MB   smaller by   error of our layer")
for name, (changed, count) in weights_of.items():
    print(
        f"{name:10}{count / 1e6:7.2f} MB{float32_bytes / count:9.2f}x"
        f"{relative_error(changed, layer):20.4%}"
    )

# %% [markdown]
# TinyLM's weights come from a `float16` file, so `float16` gives them back exactly. (Was this checkpoint
# rounded before? Keep asking.) So the honest size to start from is that of the `float16` file, 3.94 MB: to
# count from `float32` would credit the quantizer with 16 bits a weight that nobody needed. From here on we
# count from `float16`, and int8 makes TinyLM half as large, not a quarter. The three differ in *where* they spend their levels. A float has a step
# that grows with the number: fine near zero, coarse far out, always the same share. An integer has one
# step. In the end 0.8 % of error is nothing to a language model, as you are about to see.
#
# ## The experiment: TinyLM
#
# Every linear layer at 8, 4, 3 and 2 bits, symmetric, with a scale for the tensor, for each channel, for
# each group of 64. The embedding gets 8 bits a row, in every case. The file is written, loaded, and the
# loaded model reads the course's held-out sample (`tiny_quality`). Quality is **perplexity**: among how
# many equally likely tokens the model seems to choose. Lower is better. The dense model has 17.0 there,
# which is the 1.173 bits per byte of the other chapters.
#
# **Write down your guess for the nine cells below 8 bits.** At 4 bits, does it matter who shares a
# scale? At 3?

# %%
dense, dense_file = tiny_quality(tiny, tokenizer).perplexity, size(files[torch.float16]).bytes


def shown(perplexity: float) -> str:
    """No more digits than mean something."""
    return (
        f"{perplexity:.1f}"
        if perplexity < 30
        else f"{perplexity:.0f}"
        if perplexity < 1000
        else "> 1000"
    )


measured = {}
for bits in (8, 4, 3, 2):
    for share in ("tensor", "channel", 64):
        tensors = stored(bits, share)
        perplexity = tiny_quality(unpack_model(tensors, tiny), tokenizer).perplexity
        measured[bits, share] = (perplexity, size(tensors).bytes)

print(f"float16: perplexity {dense:.1f}, {dense_file / 1e6:.2f} MB")
print("bits" + "".join(f"{f'one for each {share}':>26}" for share in ("tensor", "channel", 64)))
for bits in (8, 4, 3, 2):
    cells = [measured[bits, share] for share in ("tensor", "channel", 64)]
    print(f"{bits:>4}" + "".join(f"{shown(p):>14}, {count / 1e6:.2f} MB   " for p, count in cells))


def searched(bits: int) -> float:
    """Perplexity of affine codes in groups of 64, each with its own best clip."""
    scheme = Scheme(Format(bits), 64, calibration.mse_range)
    tensors = pack_model(tiny, every_linear(tiny, scheme) | embedding)
    return tiny_quality(unpack_model(tensors, tiny), tokenizer).perplexity


affine = unpack_model(stored(2, 64, symmetric=False), tiny)
better = {
    "2 bits, symmetric, min–max": measured[2, 64][0],
    "2 bits, affine, min–max": tiny_quality(affine, tokenizer).perplexity,
    "2 bits, affine, searched": searched(2),
    "3 bits, symmetric, min–max": measured[3, 64][0],
    "3 bits, affine, searched": searched(3),
}
for name, perplexity in better.items():
    print(f"groups of 64, {name:28} perplexity {shown(perplexity)}")

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure: perplexity over file size
figure, (axes,) = new_figure()
for share, colour in zip(("tensor", "channel", 64), (RED, ORANGE, BLUE), strict=True):
    points = [measured[bits, share][::-1] for bits in (8, 4, 3)]
    label = f"one scale for {'the tensor' if share == 'tensor' else 'a channel' if share == 'channel' else '64 weights'}"
    axes.plot(
        [count / 1e6 for count, _ in points],
        [p for _, p in points],
        "o-",
        color=colour,
        label=label,
    )
for bits in (8, 4, 3):
    axes.annotate(
        f"{bits} bits",
        (measured[bits, 64][1] / 1e6, dense),
        (0, -18),
        textcoords="offset points",
        ha="center",
    )
axes.axhline(dense, color="black", linestyle="--", label="float16, 3.94 MB")
axes.set(xlabel="file (MB)", ylabel="perplexity (lower is better)", yscale="log", ylim=(13, 130))
axes.set_yticks([15, 20, 30, 50, 100], ["15", "20", "30", "50", "100"])
axes.minorticks_off()
axes.set_title("The same bits, the same bytes: who shares a scale decides")
axes.legend(frameon=False)
extra = measured[3, 64][1] / measured[3, "tensor"][1]
assert extra < 1.06 and round(dense_file / 1e6, 2) == 3.94
worse = {key: p / dense for key, (p, _) in measured.items()}
assert worse[8, "tensor"] < 1.01 and worse[4, "tensor"] > 1.2 > 1.08 > worse[4, 64]
assert worse[3, "tensor"] > 4 and 1.2 < worse[3, 64] < 1.5 and worse[2, 64] > 50
steps = list(better.values())
assert steps == sorted(steps, reverse=True) and steps[2] < 60 and 1.13 < steps[-1] / dense < 1.17
assert decibels_of["percentile 99.9"][0] < decibels_of["min–max"][0] - 8
assert decibels_of["percentile 99.9"][1] > decibels_of["min–max"][1] + 4
columns = list(zip(*decibels_of.values(), strict=True))  # rules as in `rules`
assert all(column.index(max(column)) == 2 and column.index(min(column)) == 3 for column in columns)
errors = {name: relative_error(changed, layer) for name, (changed, _) in weights_of.items()}
assert dense_file / weights_of["int8"][1] > 1.9 and float32_bytes / weights_of["int8"][1] > 3.8
assert errors["float16"] < errors["bfloat16"] < errors["int8"] < 0.02

Picture(
    figure,
    "Perplexity over file size at 8, 4 and 3 bits. With one scale for the tensor it climbs to about "
    "110, with one for 64 weights it stays near 23; the files are almost equally large.",
)

# %% [markdown]
# For five per cent more bytes, 3 bits go from ruin to usable. Two bits fail with each of the three. One
# reason is simple: two symmetric bits are three levels. Use the fourth (affine), and search the
# clip (the last five lines above), and the same 2 bits get a long way back, though they are still bad. The
# same makes three bits good: 15 % above the dense model. To go on from here one needs levels that are not
# even (chapter 06), training (07), or a look at what comes into the layer (11).

#
# ## The experiment: SmolLM2
#
# The same with a real language model of 135 million parameters, on Wikipedia. All twelve cells would
# take your machine some minutes; so here is the table as `python -m benchmarks.quantization smollm2` printed it
# on 2026-11-26, on two cores of an x86 server, over 4,097 tokens (`smollm2_quality`). Below it two cells
# are measured now, over the first 512 of these tokens. (As before: symmetric, min–max, scales in `float16`,
# the embedding at 8 bits a row, norms in `float32`.)
#
# **Guess first.** TinyLM's perplexity rose by 28 % at 4 bits per tensor. SmolLM2 has outliers of 51
# typical weights. What will it be?

# %% tags=["collapsed"] slide=True
# The stored table
STORED_DENSE, STORED_FILE = 23.70, 269_057_328  # float16
STORED = {  # (bits, one scale for each): (perplexity, bytes of the file)
    (8, "tensor"): (25.46, 134_766_892),
    (8, "channel"): (23.83, 135_077_992),
    (8, 64): (23.73, 138_085_288),
    (4, "tensor"): (5_170_000.0, 81_682_604),
    (4, "channel"): (46.45, 81_993_704),
    (4, 64): (37.54, 85_001_008),
    (3, "tensor"): (1_530_000_000.0, 68_411_532),
    (3, "channel"): (14_200.0, 68_722_640),
    (3, 64): (246.5, 71_729_952),
    (2, "tensor"): (25_100_000_000_000.0, 55_140_380),
    (2, "channel"): (82_700_000.0, 55_451_488),
    (2, 64): (8_670_000.0, 58_458_816),
}


def any_size(perplexity: float) -> str:
    return shown(perplexity) if perplexity < 1000 else f"{perplexity:.0e}"


print(f"float16: perplexity {STORED_DENSE:.1f}, {STORED_FILE / 1e6:.1f} MB")
print("bits" + "".join(f"{f'one for each {share}':>26}" for share in ("tensor", "channel", 64)))
for bits in (8, 4, 3, 2):
    cells = [STORED[bits, share] for share in ("tensor", "channel", 64)]
    print(
        f"{bits:>4}" + "".join(f"{any_size(p):>14}, {count / 1e6:5.1f} MB  " for p, count in cells)
    )

# %% [markdown]
# At 8 bits per channel half a per cent is lost. At 4 bits per tensor the perplexity is five
# **million**: the vocabulary has 49,152 tokens, so blind guessing would be a hundred times better. The
# same four bits with a scale for 64 weights give a working model, if a worse one. The difference in
# bytes is 4 %. That is what outliers do, and what groups are for.
#
# ## Too good to be true
#
# Two cells of the table now, on 512 tokens. And one more scheme, the first one of this chapter: levels from
# the smallest to the largest weight, the repaired formula, without a zero-point. Four bits, in groups of 32.
# Look at what happens.


# %%
def levels_on_the_ends(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Exercises 1 and 2 in one, with a range for each group."""
    rows = to_rows(weight, group)
    low, high = rows.aminmax(dim=1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return (low + ((rows - low) / step).round() * step).view_as(weight)


if pretrained.has_smollm2():
    wikipedia = wikipedia_sample()
    wikipedia = wikipedia[: smol_tokenizer.encode(wikipedia[:4_000]).offsets[512][1]]
    scores = {"dense": quality(smol, smol_tokenizer, wikipedia, length=512).perplexity}
    sizes = {}
    for share in ("tensor", 64):
        tensors = stored(4, share, model=smol)
        changed = unpack_model(tensors, smol)
        scores[share] = quality(changed, smol_tokenizer, wikipedia, length=512).perplexity
        sizes[share] = size(tensors).bytes
        del tensors, changed
    print(
        f"now, 512 tokens: dense {scores['dense']:.0f}, 4 bits with groups of 64 {scores[64]:.0f}, "
        f"4 bits per tensor {shown(scores['tensor'])}"
    )
    perfect = deepcopy(smol)
    for weight in perfect.blocks.parameters():
        if weight.dim() == 2:
            weight.copy_(levels_on_the_ends(weight, 4, 32))
    scores["trap"] = quality(perfect, smol_tokenizer, wikipedia, length=512).perplexity
    print(f"dense                  {scores['dense']:.2f}")
    print(f"4 bits, groups of 32   {scores['trap']:.2f}")
    for old, new in zip(smol.blocks.parameters(), perfect.blocks.parameters(), strict=True):
        if old.dim() == 2:
            rows = to_rows(old, 32)
            grid = fit_grid(*calibration.minmax_range(rows), Format(4))
            new.copy_(fake_quantize(rows, grid).view_as(old))
    scores["affine"] = quality(perfect, smol_tokenizer, wikipedia, length=512).perplexity
    print(f"the same, affine       {scores['affine']:.2f}")
    del perfect
else:
    print("SmolLM2 is not installed: only the stored table. `course doctor` names the command.")

# %% [markdown]
# Four bits, and *no loss at all*. (Affine, as in Exercise 4, there is one.) Publish it?
#
# Stop. When a result is perfect, look for the mistake. Here is a clue: the error of one layer for three
# group sizes. Smaller groups have narrower ranges, so the error should fall.

# %% slide=True
if pretrained.has_smollm2():
    suspect = smol.blocks[11].mlp.down.weight
    clue = {g: relative_error(levels_on_the_ends(suspect, 4, g), suspect) for g in (64, 32, 16)}
    for group, error in clue.items():
        print(f"4 bits, groups of {group}: error {error:.1%}")
    own = {g: relative_error(levels_on_the_ends(layer, 4, g), layer) for g in (64, 32, 16)}
    print("TinyLM's layer:", ", ".join(f"{g}: {error:.1%}" for g, error in own.items()))

# %% tags=["collapsed"]
# Does it hold here?
assert STORED[4, "tensor"][0] > 100 * 49_152 and STORED[4, 64][0] < 1.6 * STORED_DENSE
assert STORED[8, "channel"][0] < 1.006 * STORED_DENSE
assert STORED[4, 64][1] < 1.05 * STORED[4, "tensor"][1]
assert 1.57 < STORED[4, 64][0] / STORED_DENSE < 1.6 and 5e6 < STORED[4, "tensor"][0] < 5.5e6
assert 1.03 < worse[4, 64] < 1.05 and 1.26 < worse[4, "tensor"] < 1.31
if pretrained.has_smollm2():
    assert scores["tensor"] > 1e5 and 1.2 < scores[64] / scores["dense"] < 1.9
    assert all(count == STORED[4, share][1] for share, count in sizes.items())
    assert abs(scores["trap"] / scores["dense"] - 1) < 1e-3 and 26 < scores["affine"] < 28
    assert clue[32] < 1e-6 and clue[16] > 0.05 and own[64] > own[32] > own[16]

# %% [markdown]
# 8.2 %, then **nothing**, then 5.5 %. TinyLM's layer behaves as it should. Do you see it? Remember the four
# weights $0, \frac13, \frac23, 1$, which two bits kept exactly and three bits did not.
#
# The package's file is called `SmolLM2-135M-Instruct.Q4_1.gguf`. Its weights **were quantized before**:
# to 16 levels between the smallest and the largest of each 32 neighbours. We "quantized" to the very same
# grid, and measured nothing. (The affine scheme of Exercise 4, in the same groups, does not fall into the
# trap, and gets 26.8: it moves the grid until zero lies on it, away from the old levels.) The dense
# baseline of the table above is a dequantized 4-bit model, and every figure in it says what a *second*
# quantization costs. The traps you may fall into outside of
# this course look the same: a downloaded checkpoint, a wonderful result.
#
# ## Exercise 11: a detector
#
# Was this weight quantized before, in groups of what size, to how many levels? Numbers on an even grid
# have a signature: sort them, and every gap is a whole multiple of one step.


# %% exercise="detect_grid"
def detect_grid(weight: torch.Tensor) -> torch.Tensor:
    """[group, levels] of the linear quantization that `weight` (O, I) went through; [0, 0] if none.

    group: the largest of 16, 32, 64, 128 such that each group of a row lies on an even grid of its
    own. levels: how many levels the widest of these grids has, at most 256. The step of a group is
    its smallest gap that is not zero.
    """
    ### BEGIN SOLUTION
    found = torch.zeros(2, dtype=torch.int64, device=weight.device)
    for group in (16, 32, 64, 128):
        if weight.shape[1] % group:
            continue
        numbers = weight.reshape(-1, group).sort().values  # (groups, G)
        gaps, span = numbers.diff(), (numbers.amax(1) - numbers.amin(1))[:, None]
        real = gaps > 1e-4 * span  # smaller gaps are float noise within one level
        step = gaps.where(real, torch.inf).amin(dim=1, keepdim=True)
        off_grid = (gaps / step - (gaps / step).round()).abs().amax()
        levels = (span / step).round().amax() + 1
        answer = torch.stack([torch.full_like(levels, group), levels]).long()
        found = torch.where((off_grid < 0.05) & (levels <= 256), answer, found)
    return found
    ### END SOLUTION


# %% check="detect_grid" points=3
check(detect_grid)

# %%
detect = yours("detect_grid")
print("TinyLM, `down` of block 3:       group, levels =", detect(layer).tolist())
if pretrained.has_smollm2():
    found = detect(smol.blocks[11].attention.query.weight).tolist()
    print("SmolLM2, `query` of block 11:    group, levels =", found)
    embedded = detect(smol.embedding.weight[:4096]).tolist()
    print("SmolLM2, its embedding:          group, levels =", embedded)

# %% [markdown] slide="Smaller"
# The last line is a blind spot. The package says that the embedding was stored in 8 bits, in groups of
# 32. But the detector takes the smallest gap for the step, so each group must use two neighbouring
# levels. With 16 levels that is all but certain. With 255 levels and 32 numbers it is not. "Not found"
# is no proof of innocence.
#
# ## Smaller, but faster?
#
# S1 and S3 say that quantization makes a model faster. Sometimes. A linear layer with $N$ weights, applied
# to $T$ tokens at once, has to **read** $N$ weights and to do $N\,T$ multiplications. With $n$ bits a
# weight, a memory of $R$ bytes a second and a processor of $M$ multiplications a second,
#
# $$\text{time} \;\ge\; \max\left(\frac{N\,n/8}{R},\; \frac{N\,T}{M}\right).$$
#
# If $T$ is small, reading decides: the step is **memory-bound**. If $T$ is large, it is
# **compute-bound**. A chatbot that writes token by token has $T = 1$. Reading your prompt has $T$ = all of
# it. Look for the bend on your own machine. (Your numbers will differ from anybody else's.)

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure: time for each token, measured on this machine
matrix = torch.randn(2048, 4096)  # on the CPU, whose int8 kernel comes with PyTorch
batches = [torch.randn(count, 4096) for count in (1, 2, 4, 8, 16, 32, 64, 128)]
each = [seconds(lambda x=x: F.linear(x, matrix), repeats=5) / len(x) for x in batches]

figure, (axes,) = new_figure(height=3)
axes.loglog(
    [len(x) for x in batches], [1e3 * t for t in each], "o-", color=BLUE, label="float32, measured"
)
axes.axhline(1e3 * min(each), color=ORANGE, linestyle="--", label="floor: multiplying, at best")
axes.loglog(
    [len(x) for x in batches],
    [1e3 * each[0] / len(x) for x in batches],
    "--",
    color=GREEN,
    label="reading, shared by all",
)
axes.set(xlabel="tokens at once", ylabel="time for each token (ms)")
axes.set_title(
    f"Many tokens at once: each is up to {each[0] / min(each):.0f} times cheaper than one alone"
)
axes.legend(frameon=False)
assert each[-1] < 0.6 * each[0]
assert detect(layer).tolist() == [0, 0]
assert not pretrained.has_smollm2() or (found == [32, 16] and embedded == [0, 0])

Picture(
    figure,
    "Time for each token over tokens at once: it falls, as long as reading the weights is shared, "
    "and flattens where multiplying decides.",
)

# %% [markdown] slide="Smaller"
# On the left, the time is that of reading the weights, and fewer **bytes** help: 8 bits can be 4 times
# as fast as 32, 4 bits 8 times (and more, if the codes fit into the processor's cache and the floats do
# not). *Any* number format does, as long as unpacking keeps up. On the right,
# the bytes no longer matter. There one needs cheaper **multiplications**: both sides in int8, and a
# processor that multiplies integers faster than floats. Four-bit weights do nothing for it; they are
# turned back into larger numbers before they are multiplied.
#
# So what does int8 need? Both the weight and the input as codes, $w = s_w\,q_w$ and
# $x = s_x\,(q_x - z)$, and then (Jacob et al., 2018):
#
# $$y = \sum_j x_j w_j = s_x s_w \left( \sum_j q_{x,j}\, q_{w,j} \;-\; z \sum_j q_{w,j} \right) .$$
#
# Both sums are integers. The second one does not depend on the input at all. ($s_w$ is that of the
# weight's row. Affine codes run from 0 to 255, and `int8` ends at 127: subtract 128 from code and
# zero-point alike, and $q_x - z$ stays the same.)
#
# ## Exercise 12: a linear layer in integers
#
# Below it two questions wait. Does it work on a real layer with real inputs, each token with a range of its
# own ("dynamic")? And is it exact, that is, the same as multiplying the dequantized numbers?
#
# Then the clock. Two ways to use 8-bit weights, each beside `float32` in the same run: PyTorch's own int8
# kernel; and the way that many write first, which is to dequantize the weight, then multiply. **Guess**
# which of them is faster than `float32`, with one token and with 64.


# %% exercise="integer_linear"
def integer_linear(
    x_codes: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w_codes: torch.Tensor,
    w_scale: torch.Tensor,
) -> torch.Tensor:
    """x · wᵀ from int8 codes: x = x_scale (x_codes − x_zero_point), w = w_scale w_codes.

    x_codes (B, I), w_codes (O, I), w_scale (O,), the rest one number each. The result has the
    scales' dtype. Only the last step may use floats: sums of products are exact integers.
    """
    ### BEGIN SOLUTION
    products = x_codes.int()[:, None, :] * w_codes  # (B, O, I) in int32
    sums = products.sum(dim=2) - x_zero_point * w_codes.sum(dim=1)  # (B, O)
    return sums * (x_scale * w_scale)
    ### END SOLUTION


# %% check="integer_linear" points=2
check(integer_linear)

# %% tags=["nbval-ignore-output"] slide=True
x = into_down[:256]  # (T, I)
w_grid = fit_grid(*calibration.minmax_range(layer), Format(8, symmetric=True))
w_codes = quantize(layer, w_grid)
x_grid = fit_grid(*calibration.minmax_range(x), Format(8))
in_integers = dynamic_linear(x, w_codes, w_grid)
in_floats = dequantize(quantize(x, x_grid), x_grid) @ dequantize(w_codes, w_grid).T
difference = relative_error(in_integers, in_floats)
loss = relative_error(in_integers, x @ layer.T)
print(f"integers against dequantized floats: {'equal' if difference < 1e-5 else 'different'}")
print(f"8-bit layer against float32:         {loss:.1%} error")
scale = matrix.abs().amax(dim=1) / 127
codes = (matrix / scale[:, None]).round().to(torch.int8)
ways = {"dequantize, then multiply": lambda x: F.linear(x, codes * scale[:, None])}
if "fbgemm" in torch.backends.quantized.supported_engines:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch will move this kernel to another package
        zeros = torch.zeros(len(scale), dtype=torch.long)
        tensor = torch.quantize_per_channel(matrix, scale.double(), zeros, 0, torch.qint8)
        prepacked = torch.ops.quantized.linear_prepack(tensor, None)
    ways["int8 kernel"] = lambda x: torch.ops.quantized.linear_dynamic(x, prepacked, True)

print("time, as a share of float32    1 token   64 tokens")
speed = {}
for name, way in ways.items():
    few, many = (
        latency(lambda: way(x), lambda: F.linear(x, matrix), repeats=9).ratio  # noqa: B023
        for x in (batches[0], batches[6])
    )
    speed[name] = (few, many)
    print(f"{name:28}{few:10.2f}{many:12.2f}")

# %% [markdown]
# * **Dequantize, then multiply** reads a quarter of the bytes and is *slower*: it writes the large matrix
#   out and reads it again. Small on disk is not small on the way.
# * **The int8 kernel** here wins on both sides. With one token it reads a quarter of the bytes, once. With 64
#   it multiplies integers, and how much that gains depends on the processor. On one core of an x86 server
#   with int8 instructions (AVX-512 VNNI) a layer of 4096² took 22 ms with 64 tokens in `float32`, and 4.5
#   with int8 on both sides: a fifth. A processor without such instructions gains little.
# * **Four bits** halve the bytes once more. On the same core one token took 4.6 ms in `float32`. With `bfloat16` inputs it took 1.0 to 1.2 ms with int8 weights and 1.0 with int4: half the bytes, and hardly less time. With 64 tokens int4 weights took 25 ms, more than `float32`: there the multiplications decide, and four-bit weights are turned back into `bfloat16` first. (All from `python -m benchmarks.quantization kernels`, one
#   thread, CPU time, 2026-11-26.)
#
# So the rule: *few-bit weights for writing token by token, int8 on both sides for large batches.*
# Chapter 10 takes it from here.
#
# ## Exercise 13: invent
#
# The input is a real layer, every fourth row of the `down` matrix of TinyLM's second block. You have three
# bits: codes from −4 to 3, and one scale for each row. The symmetric min–max grid leaves a certain
# mean squared error. **Leave at most 38 % of it.**
#
# There is no formula to find here, and no single right answer: your codes and scales are multiplied,
# compared with the weight, and that is the result. Exercise 8's clipping leaves 45 %. With the eighth
# code, −4, its scales leave 40 %, and one scale for the whole matrix, well chosen, does as well. A
# search among all positive scales leaves 39 %. For the rest you need an idea. No codes and scales can
# leave less than 37 %.


# %% exercise="better_than_minmax"
def better_than_minmax(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes (O, I) from −4 to 3, scales (O, 1)) with codes · scales as near to `weight` as can be.

    Asked for: at most 38 % of the mean squared error of the symmetric min–max grid of 3 bits.
    """
    ### BEGIN SOLUTION
    shares = [sign * k / 50 for k in range(4, 17) for sign in (1, -1)]
    size = torch.linalg.vector_norm(weight, torch.inf, dim=1)  # (O,), the largest magnitudes
    scales = torch.stack([share * size for share in shares], dim=1)  # (O, candidates)
    tried = scales[:, None, :]  # (O, 1, candidates)
    codes = (weight[:, :, None] / tried).round().clamp(-4, 3)  # (O, I, candidates)
    error = torch.linalg.vector_norm(codes * tried - weight[:, :, None], dim=1)  # (O, candidates)
    best = torch.argmin(error, dim=1, keepdim=True)  # (O, 1)
    return codes.take_along_dim(best[:, None], dim=2).squeeze(2), scales.take_along_dim(best, dim=1)
    ### END SOLUTION


# %% check="better_than_minmax" points=3
check(better_than_minmax)

# %% [markdown] question="one_scale_for_all" points=2
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **A chip multiplies with one scale for the whole matrix.** At 8 bits SmolLM2 lives with that, at 4
# bits its perplexity is five million. Explain both by the step, and name something that you could do
# on that chip.
#
# <!-- BEGIN SOLUTION -->
# One step is set by the largest weight of the whole matrix. At 8 bits there are 127 of them on either
# side, enough for rows of small weights too; at 4 bits there are 7, and a row whose weights are below
# half a step is rounded to nothing. On the chip: a scale for each *output* channel can be applied
# after the multiplication, since the sum over inputs does not see it; or divide the rows, or input
# channels, by their size beforehand and put the factor into the layer before; or clip the few largest
# weights.
#
# *One point* for the step that the largest weight sets. *One point* for a way that leaves the
# multiplication as it is.
# <!-- END SOLUTION -->

# %% [markdown] question="lost_nothing" points=2
# **A colleague rounds a model to 4 bits in groups of 32, and its perplexity does not change in the
# fourth digit.** What do you suspect? How do you find out in five minutes, and what would convince
# you?
#
# <!-- BEGIN SOLUTION -->
# That the weights have been on such a ruler before: somebody published a rounded model in float16.
# Take one group of 32 and count different values, or ask for the greatest common step: 16 values or
# fewer, evenly spaced, and it is so. What would convince me: the same result on weights that were
# never rounded, or with another size of group or number of bits, by which the old ruler is not hit.
#
# *One point* for the suspicion and its test. *One point* for an experiment that cannot be lucky.
# <!-- END SOLUTION -->

# %% [markdown]
# ## In numbers

# %% tags=["collapsed"] slide=True
# The chapter in numbers
real = tiny.blocks[1].mlp.down.weight[::4]
codes, scales = yours("better_than_minmax")(real)
minmax = real.abs().amax(dim=1, keepdim=True) / 3
before = ((real / minmax).round() * minmax - real).square().mean()
left = ((codes * scales - real).square().mean() / before).item()
print(f"""TinyLM, {dense_file / 1e6:.2f} MB and perplexity {dense:.1f} in float16:
  8 bits per channel     {measured[8, "channel"][1] / 1e6:.2f} MB   {measured[8, "channel"][0]:.1f}
  4 bits, groups of 64   {measured[4, 64][1] / 1e6:.2f} MB   {measured[4, 64][0]:.1f}
  4 bits per tensor      {measured[4, "tensor"][1] / 1e6:.2f} MB   {measured[4, "tensor"][0]:.1f}
SmolLM2, {STORED_FILE / 1e6:.1f} MB and perplexity {STORED_DENSE:.1f} in float16 (stored, 2026-11-26):
  8 bits per channel     {STORED[8, "channel"][1] / 1e6:.1f} MB   {STORED[8, "channel"][0]:.1f}
  4 bits, groups of 64    {STORED[4, 64][1] / 1e6:.1f} MB   {shown(STORED[4, 64][0])}
  4 bits per tensor       {STORED[4, "tensor"][1] / 1e6:.1f} MB   five million
rounding error             step²/12, within 4 % down to 3 bits
best end of the ruler      {ends[8][0]:.0%} of the largest weight at 8 bits, {ends[4][0]:.0%} at 4
invented, 3 bits           {left:.1%} of min–max's error is left; the least possible is 37.1 %""")
assert difference < 1e-5 and loss < 0.05
assert speed["dequantize, then multiply"][0] > 1
assert "int8 kernel" not in speed or min(speed["int8 kernel"]) < 1
assert left <= 0.38 and measured[8, "channel"][0] < 1.01 * dense

# %% [markdown] slide="In numbers"
# How many bits does a weight need? **Eight**, if you do nothing but give each channel a scale: one per
# cent at most. **Four**, if 64 weights share one: TinyLM pays 4 %, SmolLM2 58 % (and its weights were
# rounded before). So measure on your model. **Three**, on TinyLM, if you search: 15 %. Below that,
# rounding a finished model is not enough. Choose other levels (chapter 06), or train for them (07).
#
# And four habits: try a formula at its ends. Match the decoder to the coder. Weigh files, not promises.
# When a result is perfect, ask what was done to the data before it came to you.
