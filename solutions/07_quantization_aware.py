# %% [markdown]
# # 07 · Quantization-aware training
#
# **Can a model learn to live with few bits, and which layers need more of them?**
#
# Chapter 05 rounded a finished model and stopped at three bits: below that it fell apart. But nobody had told the model what was
# coming. Let it compute with rounded weights *while it learns*, and it may move them to places where rounding does no harm.
# Everybody would think of that. There is one snag: rounding has no slope. You will see that the usual way around it is
# simply wrong, that it works, and why.
#
# The articles that this course follows stop before this point. S3 lists XNOR-Net and networks of one bit among its references
# (with authors who did not write them, chapter 13); S2 §5.2 prints a "quantizer" that draws its signs at random, which
# keeps nothing of the weights. So this chapter follows the papers.
#
# * **Afterwards you can** train through rounding, and say when the false gradient leads astray; let the distance between
#   levels learn, too; make the best three values of a row and store them in 1.6 bits; hand out bits to layers under a
#   budget of bytes; and tell which part of the gain is training, and which would have come for less.
# * **You need** chapter 05 (grids, codes, scales). Chapter 08 (a teacher's soft targets) and chapter 11 (GPTQ, Gram matrix)
#   appear as rivals and helpers; you need not have read them.
# * **Time:** three hours for the core, five for everything. The first sitting ends where it says **Pause**.
# * **Core:** Exercises 1, 2, 3, 6, 7, and the pictures of sections 1 and 4. **Extra:** trits (4), folding (5), your own
#   two bits (8).
#
# ## 1. A staircase has no slope
#
# A weight $w$ of a layer is to be rounded in every forward pass: with step $s$ and the codes from $q_{min}$ to $q_{max}$,
#
# $$\hat w = s \cdot \mathrm{clamp}\!\left(\mathrm{round}\!\left(\frac{w}{s}\right),\ q_{min},\ q_{max}\right).$$
#
# The loss $L$ is a function of $\hat w$. To learn, the optimizer asks for $\partial L / \partial w = \partial L / \partial \hat w
# \cdot \partial \hat w / \partial w$. And the second factor?

# %% tags=["collapsed"]
# Imports
import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.data.batches import random_windows
from course_lib.data.text import bible_chapters, split
from course_lib.exercises import check, hint, yours
from course_lib.formats.aware import exported
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import every_linear, pack_model, quantize_model, unpack_model
from course_lib.formats.trits import unpack_trits
from course_lib.measure.latency import cpu_seconds
from course_lib.measure.yardstick import tiny_quality
from course_lib.models import pretrained
from course_lib.models.parts import linear_weights
from course_lib.models.training import next_token_loss, train
from course_lib.plots.explore import explore
from course_lib.plots.figure import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Picture,
    new_figure,
)
from course_lib.plots.predict import predict
from course_lib.plots.redundancy import draw_heat_map
from course_lib.quantization.aware import aware_layers, aware_model
from course_lib.quantization.learned_step import best_step, first_step, lsq
from course_lib.quantization.roundings import LearnedStep, OnGrid, ToSigns
from course_lib.quantization.straight_through import round_through, smooth_round
from course_lib.quantization.ternary import absmean_signs, best_signs, threshold_signs

tiny, tokenizer = pretrained.tiny()
text = torch.tensor(tokenizer.encode(split(bible_chapters("kjv"))[0]).ids)  # what it was trained on


def held_out_bits(model: nn.Module) -> float:
    """Bits per byte on four chapters that TinyLM has never seen."""
    with torch.no_grad():
        return tiny_quality(model, tokenizer).bits_per_byte


# %%
layer = nn.Linear(6, 3, bias=False)
x, aim = torch.randn(20, 6), torch.randn(20, 3)
rounded = (layer.weight / 0.25).round().clamp(-2, 1) * 0.25
loss = (x @ rounded.T - aim).square().mean()
loss.backward()
print("the loss:", round(loss.item(), 3), "  its gradient by the weights:", layer.weight.grad.unique())

# %% [markdown]
# Zero, for every weight. Of course: a staircase is level wherever it has a slope at all. No optimizer moves anything on such a
# gradient, however long it runs.
#
# **Pretend.** Bengio, Léonard and Courville (2013) tried the crudest thing: go forward up the stairs, and come back as if there
# had been a ramp. Where round stands, take the slope of the identity, 1; where clamp cuts, keep its own slope, 0. That is the
# **straight-through estimator**:
#
# $$\frac{\partial \hat w}{\partial w} := \begin{cases} 1 & \text{where } \mathrm{round}(w/s) \text{ needed no clipping}\\
#   0 & \text{where it was clipped.} \end{cases}$$
#
# ## Exercise 1: straight through


# %% exercise="straight_through"
def straight_through(
    x: torch.Tensor, step: torch.Tensor, lowest: int, highest: int
) -> torch.Tensor:
    """x on its nearest levels, s · clamp(round(x / s), lowest, highest), with a gradient for x.

    x is float, of any shape; step s > 0, in its dtype, is one number, (), or one for each row of x
    (O, I), as (O, 1). Ties go to the even code; lowest ≤ 0 ≤ highest. Backward, ∂x̂/∂x is 1 where
    round(x / s) needed no clipping, 0 elsewhere: half a step beyond the last level still learns.
    No gradient reaches s. ±∞ are clipped like all else; NaN stays NaN, with gradient 0. The result
    is in the shape and dtype of x; x and s stay as they are.
    """
    ### BEGIN SOLUTION
    codes = (x / step).round()
    clipped = codes.clamp(lowest, highest)
    through = torch.where(codes == clipped, x - x.detach(), 0.0)  # 0, but not its derivative
    return (clipped * step).detach() + through
    ### END SOLUTION


# %% check="straight_through" points=2
check(straight_through)

# %% [markdown]
# Now one weight alone, so that you can watch it. Its levels are the whole numbers; the loss is $\frac12 (\hat w - 0.3)^2$. The
# best that it can do is to stay at level 0. Each step subtracts a tenth of the gradient.
#
# **Guess before you run:** where does it end? And of the last 200 steps, how many does it spend at level 1, which is more than twice
# as far from the aim as level 0?

# %%
through = yours("straight_through")


def swing(aim: float, rate: float, steps: int) -> tuple[list[float], list[float]]:
    """The weight and its level at each of some steps of gradient descent, from 0.1 on."""
    weight, weights, levels = torch.tensor(0.1), [], []
    for _ in range(steps):
        weight.requires_grad_()
        level = through(weight, torch.tensor(1.0), -8, 7)
        (slope,) = torch.autograd.grad((level - aim).square() / 2, weight)
        weights.append(weight.item())
        levels.append(level.item())
        weight = (weight - rate * slope).detach()
    return weights, levels


swings = {aim: swing(aim, 0.1, 400) for aim in (0.1, 0.3, 0.5, 0.9)}
at_one = {aim: sum(levels[-200:]) / 200 for aim, (_, levels) in swings.items()}
for aim, share in at_one.items():
    print(f"aim {aim}: level 1 in {share:.0%} of the last 200 steps")

# %% tags=["collapsed"]
# Figure behind a guess: a weight that cannot decide
figure, (axes,) = new_figure(height=2.8)
weights, levels = swings[0.3]
axes.plot(weights[:90], color=BLUE, label="the weight")
axes.step(range(90), levels[:90], where="post", color=ORANGE, linewidth=1, label="its level")
axes.axhline(0.3, color=BLACK, linewidth=1, linestyle=":", label="the aim")
axes.axhline(0.5, color=RED, linewidth=1, label="where the level changes")
axes.set(xlabel="step", ylabel="value", ylim=(-0.1, 1.1))
axes.legend(frameon=False, ncols=2, fontsize=8)
predict(
    "The aim is 0.3. Of the last 200 steps, how many has the weight spent at level 1?",
    ["none", "30 %", "50 %"],
    f"{at_one[0.3]:.0%}; with the aim at 0.9, {at_one[0.9]:.0%}",
    Picture(
        figure,
        "A weight climbs from 0.1 to 0.5 in 14 steps, and then goes up and down around 0.5, where its level jumps "
        "between 0 and 1: about three steps of ten at 1.",
    ),
)
assert all(abs(share - aim) < 0.02 for aim, share in at_one.items())

# %% [markdown]
# It never ends. At level 0 the slope is $-0.3$, so the weight climbs, past ½, to level 1; there the slope is $+0.7$, and it is
# thrown back. It cannot rest at its best level, and spends there 70 % of the time and at the other 30 %: **on average its level is
# the aim**, 0.3. The false gradient has built what engineers call dithering: a value between two levels, written as a rhythm.
#
# That is both sides of it. A weight looks for the place between its levels where it is *needed*, over many steps, and by this
# finds out which level is the better one on the whole: the side on which it spends more time. But when you stop,
# it stands wherever it happens to be. A weight with its aim half-way never decides.
#
# ### What gradient is it, then?
#
# Blur the stairs: add to $w/s$ noise $u$, even between $-\frac12$ and $\frac12$, before rounding. The mean of
# $\mathrm{round}(w + u)$ is $w$ itself, a ramp, with slope 1. So for a loss that is *straight*, the estimator is the true
# gradient of the blurred loss. A loss that curves, $L(\hat w) = \frac12 h\, \hat w^2 + b\,\hat w$, becomes a chain of straight
# pieces from level to level when it is blurred, with the slope $L'(m)$ of the middle $m$ on each. The estimator says, on the average
# over $u$, $L'(w)$. Its error is $h\,(w - m)$: it has one sign below the middle, the other above, and none on the average.
#
# Do not believe it, measure it: the slope of the blurred loss by finite differences, beside the mean of what the estimator says.

# %%
h, b, many = 2.0, -1.0, 200_000
u = (torch.arange(many) + 0.5) / many - 0.5  # evenly spread: no chance in it


def curved(level: torch.Tensor) -> torch.Tensor:
    return h * level.square() / 2 + b * level


def blurred(weight: float) -> float:
    """The mean of the loss over the noise."""
    return curved((weight + u.double()).round()).mean().item()


print("   w   slope of the blurred loss   the estimator   their difference   h (w − m)")
bias = {}
for weight in (0.1, 0.3, 0.5, 0.7, 0.9, 1.3):
    true = (blurred(weight + 0.01) - blurred(weight - 0.01)) / 0.02
    moved = torch.full((many,), weight, requires_grad=True)
    curved(round_through(moved + u)).mean().backward()
    estimate = moved.grad.sum().item()
    middle = int(weight) + 0.5
    bias[weight] = estimate - true, h * (weight - middle)
    print(f"{weight:4.1f}{true:20.3f}{estimate:22.3f}{bias[weight][0]:17.3f}{bias[weight][1]:17.3f}")
assert all(abs(found - expected) < 0.01 for found, expected in bias.values())
for width in (0.2, 1.0):
    ramp = torch.tensor([0.1, 0.45, 0.5], requires_grad=True)
    smooth_round(ramp, width).sum().backward()
    print(f"noise {width} steps wide: slopes at 0.1, 0.45, 0.5:", ramp.grad.tolist())

# %% [markdown]
# So the wrong gradient is the right one of a smoother loss, up to an error that changes its sign in every cell. (The last rows say
# why one does not simply take the true gradient of a *narrow* blur: it is zero at most places and large at a few, and
# a weight at 0.1 hears nothing.)
#
# ## 2. The step learns, too
#
# Where do the levels lie? Chapter 05 chose the step $s$ that spoils the weights least. But the loss knows better than the weights, and
# $s$ is only a number. **LSQ** (learned step size quantization: Esser et al., 2020) trains it. Straight through, with
# $v = w/s$,
#
# $$\frac{\partial \hat w}{\partial s} = \begin{cases} \mathrm{round}(v) - v & q_{min} < v < q_{max}\\ q_{min}\ \text{or}\ q_{max} & \text{beyond.}\end{cases}$$
#
# Read it: a clipped weight wants the step to grow, by as much as its code is worth. One that lies between wants its own level to come
# nearer. All $N$ weights of a step pull at it together, so their pull is divided by $\sqrt{N q_{max}}$; otherwise the step
# would run where a weight walks.
#
# ## Exercise 2: a step that learns


# %% exercise="learned_step"
def learned_step(
    x: torch.Tensor, step: torch.Tensor, lowest: int, highest: int
) -> torch.Tensor:
    """x on its nearest levels, x̂ = s · clamp(round(x / s), lowest, highest); s learns, too.

    x (O, I) is float and finite, I ≥ 1. step s (O, 1), above 0, is float32, or float64 where x is:
    reckon in its dtype; x̂ is in that of x. Ties go to the even code; lowest ≤ 0 < highest.
        ∂x̂/∂x = 1 where lowest < x/s < highest, else 0: at an end itself, too
        ∂x̂/∂s = round(x/s) − x/s where that is 1, else the end that x/s is at or beyond
    The gradient of s is summed over its row and multiplied by g = 1 / √(I · highest): LSQ's rules
    (Esser et al., 2020). x and s stay as they are.
    """
    ### BEGIN SOLUTION
    place = x / step
    code = place.round().clamp(lowest, highest)
    inside = (place > lowest) & (place < highest)
    pull = torch.where(inside, code - place, code) * (x.shape[1] * highest) ** -0.5
    through = torch.where(inside, x - x.detach(), 0.0)  # 0, but not its derivative
    return (code * step.detach() + through + pull * (step - step.detach())).to(x.dtype)
    ### END SOLUTION


# %% check="learned_step" points=3
check(learned_step)

# %% [markdown]
# Let it run on one matrix of TinyLM, `down` of block 1, at two bits. The loss is the squared error of the weights, and only the
# steps move, by Adam. Two starts: the authors', $2\,\overline{|w|}/\sqrt{q_{max}}$, and the best of 80 tries.
#
# **Guess before you run:** do both come to the same end? And is the error there the least?

# %%
matrix = tiny.blocks[1].mlp.down.weight.detach()
learn = yours("learned_step")
starts = {"authors' start": first_step(matrix, Format(2)), "best of 80": best_step(matrix, Format(2))}
ends = {}
for label, start in starts.items():
    log_step = start.log().requires_grad_()
    optimizer, errors = torch.optim.Adam([log_step], lr=0.03), []
    for _ in range(100):
        loss = (learn(matrix, log_step.exp(), -2, 1) - matrix).square().sum()
        errors.append((loss / matrix.square().sum()).item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ends[label] = errors[0], errors[-1]
    print(f"{label:16} relative error {errors[0]:.4f}, after 100 steps {errors[-1]:.4f}")

# %% tags=["collapsed"]
# Does it hold here? And a guess
predict(
    "Two starts of the steps: 100 steps later?",
    ["both have the least error", "both have the same error, a little above the least", "they stay apart"],
    f"{ends["authors' start"][1]:.4f} and {ends['best of 80'][1]:.4f}; the best of 80 had {ends['best of 80'][0]:.4f}",
)
assert abs(ends["authors' start"][1] - ends["best of 80"][1]) < 3e-4
assert ends["best of 80"][0] + 3e-4 < ends["best of 80"][1] < 0.8 * ends["authors' start"][0]

# %% [markdown]
# They meet, and *not* at the least error. Where codes stay as they are, $\hat w = s \cdot$ code, and its true derivative by $s$ is the
# code alone. LSQ's is $\mathrm{round}(v) - v$: the estimator has let the slope through $v = w/s$ as well. So it ends where
# *its* gradient is zero, half a per cent above. Nobody minds. The loss of a model is not the error of its weights, and from the authors'
# start, which is too wide at more than three bits, the way to the end matters more than the last half per cent.
#
# (A step may not turn negative, and an optimizer does not know that. The library's `LearnedStep` learns $\ln s$: an update multiplies.)
#
# ## 3. A model in two bits
#
# Now TinyLM. `aware_model` puts such a rounding, with a step for each output, in front of each of the 28 linear layers; embedding
# and norms stay floats. The loop is that of any training. Twenty steps, 10,000 tokens: next to nothing.
#
# But who does the work? In such a model, more can learn than the weights: the steps, and the gains of its nine norms, 1,728 numbers
# that multiply the stream. So train each alone, too.
#
# **Guess before you run:** rounded to two bits, TinyLM needs 1.77 bits per byte (float: 1.17). After twenty steps? And who
# brings most of it: weights, steps or norms?


# %% tags=["nbval-ignore-output"]
def codes_of(model: nn.Module) -> torch.Tensor:
    """The codes of all linear layers, one after the other."""
    return torch.cat([l.rounding.codes(l.weight)[0].flatten() for l in aware_layers(model).values()])


def taught(parts: str, rate: float, steps: int = 20) -> tuple[nn.Module, list[torch.Tensor]]:
    """TinyLM in two bits after some steps in which `parts` learn, and its codes at each step."""
    model = aware_model(tiny, partial(LearnedStep, format=Format(2)))
    kinds = {"norms": "norm", "steps": "log_step", "weights": ".weight", "all": ""}
    for name, parameter in model.named_parameters():
        others = parts == "weights" and ("norm" in name or "embedding" in name)
        parameter.requires_grad_(kinds[parts] in name and not others)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    draw = torch.Generator().manual_seed(0)
    seen = [codes_of(model)]
    for _ in range(steps):
        train(model, [random_windows(text, 4, 128, draw)], next_token_loss, [optimizer])
        seen.append(codes_of(model))
    return model, seen


float_bits = held_out_bits(tiny)
two_bits_before = held_out_bits(aware_model(tiny, partial(LearnedStep, format=Format(2))))
print(f"float {float_bits:.3f}, rounded to two bits {two_bits_before:.3f} bits per byte; after 20 steps:")
after, codes = {}, {}
for parts, rate in (("all", 1e-3), ("weights", 1e-3), ("steps", 3e-2), ("norms", 3e-2)):
    model, codes[parts] = taught(parts, rate)
    after[parts] = held_out_bits(model)
    print(f"  {parts:8} learn: {after[parts]:.3f}")
first, *_, before_last, last = codes["all"]
ever = torch.stack([seen != first for seen in codes["all"]]).any(dim=0)
moved = {
    "are at another level now": (last != first).float().mean().item(),
    "were at another one in between, too": ever.float().mean().item(),
    "changed in the last step": (last != before_last).float().mean().item(),
}
for label, share in moved.items():
    print(f"of all weights, {share:.2%} {label}")

# %% tags=["collapsed", "nbval-ignore-output"]
# Does it hold here? And a guess
won = {parts: (two_bits_before - bits) / (two_bits_before - after["all"]) for parts, bits in after.items()}
predict(
    "Two bits, twenty steps: what part of the gain do the 1,728 numbers of the norms bring alone?",
    ["next to nothing", "a quarter", "more than two thirds"],
    f"{won['norms']:.0%}; the steps alone {won['steps']:.0%}, the weights alone {won['weights']:.0%}",
)
assert after["all"] < 1.5 and won["norms"] > 0.6 and won["weights"] > 0.7
assert moved["are at another level now"] < 0.04

# %% [markdown]
# Read that twice. Twenty steps, and more than half of the damage is mended, though **one weight in sixty** stands at another level
# than before. And most of it can be had with no weight moved at all: rounding to two bits makes every layer's output a little too
# small or too large, and 1,728 gains put that right. (Chapter 11's methods know this trick. GPTQ, which trains nothing,
# reaches 1.40.) So when a paper trains for a million steps, ask for this control: what do the scales alone bring?
#
# ## Exercise 7: repair the loop
#
# A colleague has written such a loop by hand, for a small network. It runs, and its loss falls, a little. Three things are wrong.
# (Hints: which numbers can learn at all? What is the step at the end, and whose is it? And what does she hand back?)
