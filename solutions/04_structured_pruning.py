# %% [markdown]
# # 04 · Structured pruning
#
# **Can whole neurons, heads and layers go, so that it really gets smaller and faster?**
#
# Chapter 03 set single weights to zero. Weigh the file afterwards: it is as large as before. Stop the clock:
# as slow. A zero takes as many bytes and as much time as any other number. To win something, whole rows and
# columns must go, so that smaller matrices are left. That is **structured pruning**. It asks three new questions.
# What has to go together? How do the others make up for it? And what do you get for it, in bytes and on the clock?
#
# * **Afterwards you can** remove hidden units, channels, heads and layers for real; repair what is left in closed
#   form; choose what goes, and say why the usual scores fail; compare depth with width at equal bytes and
#   at equal time; and count whether a method that decides token by token pays.
# * **You need** chapter 03 (Optimal Brain Surgeon), least squares, and the parts of a block (chapter 01).
# * **Time:** about four hours, in two sittings. The first ends behind section 5, where it says **Pause**.
# * **Core:** Exercises 1 to 6 and 9. **Extra:** two of four (7, 8), your own (10).
#
# ## 1. Masked, smaller, faster
#
# Take one block of a language model of width 768, with random weights: time does not ask what they are. Its MLP
# has 2,048 hidden units, and half of them go. Once they are **masked**: the columns of `down` that
# belong to them are zero. Once they are **removed**: 1,024 rows of `gate` and `up` and 1,024 columns of `down` are no
# longer there. Both compute the same function.

# %% tags=["collapsed"]
# Imports
import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import nn

from course_lib.data.images import digits
from course_lib.exercises import check, hint, yours
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import every_linear, quantize_model
from course_lib.measure.latency import latency
from course_lib.measure.quality import accuracy
from course_lib.measure.size import count_parameters, size
from course_lib.measure.yardstick import (
    held_out_sample,
    smollm2_calibration,
    spread_windows,
    tiny_calibration,
    tiny_quality,
)
from course_lib.models import pretrained
from course_lib.models.digits_cnn import DigitsCNN
from course_lib.models.digits_mlp import train_digits
from course_lib.models.layers import layer_influence, view_without_layers
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.parts import embed, read_logits, record_inputs
from course_lib.models.training import next_token_loss
from course_lib.plots.explore import explore
from course_lib.plots.figure import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    Picture,
    new_figure,
)
from course_lib.plots.predict import predict
from course_lib.pruning.adaptive import adaptive_units, highest_units, width_sensitivity
from course_lib.pruning.by_token import RunByToken, run_by_token, token_products
from course_lib.pruning.chain import shrink_chain
from course_lib.pruning.contextual import (
    contextual,
    contextual_products,
    fit_predictor,
    fit_predictors,
    oracles,
    static_scorers,
)
from course_lib.pruning.decoder import shrink_heads, shrink_mlps, shrink_width, whole_groups
from course_lib.pruning.depth import greedy_order, layers_off
from course_lib.pruning.early_exit import EarlyExit, confidences, early_exit
from course_lib.pruning.group_scores import mlp_scores, output_errors, repair_errors
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.n_of_m import n_of_m_decoder
from course_lib.pruning.refit import refit_columns
from course_lib.pruning.repair import fold_mean, refit
from course_lib.pruning.skipping import Router, at_random, by_routers, fit_routers
from course_lib.pruning.unit_order import keep_one_by_one
from course_lib.redundancy.removal import without_units

torch.set_grad_enabled(False)
tiny, tokenizer = pretrained.tiny()
text = tiny_calibration(tokenizer)  # (B, T) = (32, 256), of the text TinyLM was trained on


def held_out_bits(model: nn.Module) -> float:
    """Bits per byte of what was made of TinyLM, on text that it never saw."""
    return tiny_quality(model, tokenizer).bits_per_byte


dense_bits = held_out_bits(tiny)

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
wide = LlamaConfig(
    vocabulary=8, width=768, layers=1, heads=12, kv_heads=4, mlp_width=2048, context=64
)
whole = Llama(wide).requires_grad_(False)
off = torch.rand(1, 2048).argsort() < 1024  # half of the units
masked, removed = without_units(whole, off), shrink_mlps(whole, list(~off))


def ratio(small: nn.Module, large: nn.Module, inputs: tuple) -> float:
    """Time of one module beside another's, on the same inputs."""
    times = 30 if len(inputs[0]) == 1 else 4
    return latency(
        lambda: [small(*inputs) for _ in range(times)],
        lambda: [large(*inputs) for _ in range(times)],
        repeats=9,
    ).ratio


clock = {}
print("            parameters   bytes     time beside the dense one: MLP, block")
for name, model in (("dense", whole), ("masked", masked), ("removed", removed)):
    block, weights = model.blocks[0], dict(model.blocks[0].named_parameters())
    print(f"{name:9}{count_parameters(block):13,}{size(weights).bytes:11,}", end="")
    for batch in () if name == "dense" else (1, 64):
        x, cos, sin = embed(whole, torch.zeros(batch, 1, dtype=torch.long))
        x = torch.randn_like(x)
        clock[name, batch] = (
            ratio(block.mlp, whole.blocks[0].mlp, (x,)),
            ratio(block, whole.blocks[0], (x, cos, sin)),
        )
        print("   batch {}: {:.2f}, {:.2f}".format(batch, *clock[name, batch]), end="")
    print()

# %% tags=["collapsed", "nbval-ignore-output"]
# Does it hold here? And a guess
x = torch.randn(3, 1, 768)
assert (masked.blocks[0].mlp(x) - removed.blocks[0].mlp(x)).abs().max() < 1e-4
assert abs(count_parameters(removed.blocks[0]) / count_parameters(whole.blocks[0]) - 0.625) < 0.001
assert count_parameters(masked.blocks[0]) == count_parameters(whole.blocks[0])
assert all(clock["masked", b][0] > 0.8 for b in (1, 64))
assert all(clock["removed", b][0] < min(0.85, clock["masked", b][0] - 0.1) for b in (1, 64))
assert all(clock["removed", b][1] < min(0.95, clock["masked", b][1] - 0.05) for b in (1, 64))
predict(
    "Half of the MLP's units are masked. What of its time is left? And if they are removed?",
    ["masked 0.5, removed 0.5", "masked 0.8, removed 0.5", "masked 1.0, removed 0.5 to 0.65"],
    "batch 64: masked {:.2f}, removed {:.2f}; batch 1: masked {:.2f}, removed {:.2f}".format(
        *(clock[n, b][0] for b in (64, 1) for n in ("masked", "removed"))
    ),
)

# %% [markdown]
# **A mask is a wish.** The masked block has all its parameters, all its bytes and all its time. The removed one has
# 62 % of the parameters, and its MLP takes about half of the time, the block about 0.7: attention, which nobody
# touched, takes the rest. No trick is needed for that, no special kernel, no format. What is left is an ordinary,
# smaller model.
#
# ## 2. What goes together
#
# A hidden unit of an MLP is a row of `gate`, a row of `up` and a column of `down`. They go together or not at all:
# leave one of them, and the shapes do not fit. Who else hangs together? Move the slider. What is coloured must
# go at once.


# %% tags=["collapsed"]
# Figure with a slider: the seven matrices of one block of TinyLM, and what goes together
HANGS_TOGETHER = {  # part -> matrix -> (rows, columns) that go
    "MLP unit": {"gate": ((300, 306), None), "up": ((300, 306), None), "down": (None, (300, 306))},
    "query head": {"query": ((64, 96), None), "output": (None, (64, 96))},
    "key-value head": {
        "query": ((0, 96), None), "key": ((0, 32), None), "value": ((0, 32), None),
        "output": (None, (0, 96)),
    },
    "residual number": {
        **{name: (None, (100, 103)) for name in ("query", "key", "value", "gate", "up")},
        **{name: ((100, 103), None) for name in ("output", "down")},
    },
}  # fmt: skip
GOES = {  # numbers of TinyLM that go with one of them
    "MLP unit": 3 * 192,
    "query head": 2 * 32 * 192,
    "key-value head": (2 * 96 + 2 * 32) * 192,
    "residual number": 4 * (2 * 192 + 2 * 64 + 3 * 512 + 2) + 2048 + 1,
}
SHAPES = {n: tuple(w.shape) for n, w in (
    (name.split(".")[-2], p) for name, p in tiny.blocks[0].named_parameters() if p.dim() == 2
)}  # fmt: skip


def draw_together(what_goes: str) -> Picture:
    """Seven matrices to scale, and the rows and columns that go with one part."""
    figure, (axes,) = new_figure(height=3.7)
    left = 0
    for name in ("query", "key", "value", "output", "gate", "up", "down"):
        rows, columns = SHAPES[name]
        axes.add_patch(plt_rectangle((left, -rows), columns, rows, SKY, 0.25))
        gone = HANGS_TOGETHER[what_goes].get(name)
        if gone is not None:
            r, c = gone[0] or (0, rows), gone[1] or (0, columns)
            axes.add_patch(plt_rectangle((left + c[0], -r[1]), c[1] - c[0], r[1] - r[0], RED, 1))
        axes.text(left + columns / 2, 14, name, ha="center", size=9)
        left += columns + 60
    axes.set(xlim=(-20, left - 40), ylim=(-535, 60), aspect="equal")
    axes.axis("off")
    place = (
        "in every block, the embedding and all norms: " if what_goes == "residual number" else ""
    )
    figure.suptitle(f"One {what_goes} is, {place}{GOES[what_goes]:,} numbers of TinyLM")
    return Picture(
        figure,
        f"The seven matrices of a block, to scale; red is what goes with one {what_goes}: "
        + "; ".join(
            f"{'rows' if where[0] else 'columns'} of {name}"
            for name, where in HANGS_TOGETHER[what_goes].items()
        ),
    )


def plt_rectangle(corner: tuple, width: float, height: float, colour: str, alpha: float):
    """A filled rectangle of this colour."""
    return Rectangle(corner, width, height, facecolor=colour, edgecolor=BLACK, lw=0.4, alpha=alpha)


small = shrink_width(tiny, torch.arange(192) < 191)
assert count_parameters(tiny) - count_parameters(small) == GOES["residual number"]
small = shrink_mlps(tiny, [torch.arange(512) < 511] * 4)
assert count_parameters(tiny) - count_parameters(small) == 4 * GOES["MLP unit"]
for mask, part in (([1, 1, 0, 1, 1, 1], "query head"), ([0, 0, 0, 1, 1, 1], "key-value head")):
    small = shrink_heads(tiny, [torch.tensor(mask).bool()] * 4)
    assert count_parameters(tiny) - count_parameters(small) == 4 * GOES[part]
explore(draw_together, what_goes=(list(HANGS_TOGETHER), "MLP unit"))

# %% [markdown]
# A unit, a head, a channel is private to its block. The residual stream is not: everybody writes into it and reads
# from it, in every block. So nobody can narrow it in one place alone.
#
# S1 §3.1 says that removing neurons lowers the number of *layers* and parameters. The second is right. A layer with
# half of its neurons is still a layer; you will remove layers, too, in section 7, and it is another
# operation. S2 §3.2.1 speaks of fully connected and convolutional networks, to which these pictures add heads and
# layers (Michel et al., 2019, for heads). Its last step is called rebuilding the model. That is the right word for what you do now.
#
# ## Exercise 1: remove units
#
# For the start two linear layers with a ReLU between them.


# %% exercise="remove_units"
def remove_units(
    weight: torch.Tensor, bias: torch.Tensor, following: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(weight, bias, following) of following · relu(weight · x + bias), smaller by hidden units.

    weight (H, I), bias (H,), following (O, H). keep (H,), bool: True for the units that stay, K of
    them, at least one; they stay in their order. The result is (K, I), (K,) and (O, K), each in its
    own dtype; the inputs stay as they are.
    """
    ### BEGIN SOLUTION
    return weight[keep], bias[keep], following[:, keep]
    ### END SOLUTION


# %% check="remove_units" points=1
check(remove_units)

# %% [markdown]
# ### Neurons that are always near zero
#
# Which units? S0 §3.1 says: those whose activation is always close to zero. (Hu et al., 2016, count how often it is
# zero.) Two things are missing there. A small activation may meet a large weight. And a unit that says 5 on every image is
# as useless as one that says 0: its output can move into the next layer's bias. What a unit contributes is what *varies*.
#
# ## Exercise 2: fold what is constant


# %% exercise="fold_constants"
def fold_constants(
    weight: torch.Tensor, bias: torch.Tensor, inputs: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, bias) of the layer W h + b without some of its inputs; b takes over their means.

    weight W (O, H), bias b (O,). inputs (N, H): what the layer was given for N examples. keep (H,),
    bool: True for the inputs that stay, K of them, at least one. An input that goes counts as its
    mean over the N examples from now on, so its weights times its mean move into b. The result is
    (O, K) and (O,), each in its own dtype (all float; reckon float16 in float32 or wider).
    """
    ### BEGIN SOLUTION
    lost = weight[:, ~keep].double() @ inputs[:, ~keep].double().mean(0)  # (O, H − K) (H − K,)
    return weight[:, keep], (bias + lost).to(bias.dtype)
    ### END SOLUTION


# %% check="fold_constants" points=2
check(fold_constants)

# %% [markdown]
# Now a network 64-128-128-10 that reads digits, 26,122 parameters. Half of its first hidden layer goes, and 13,770
# are left. Three ways to choose: at random (the mean of five draws); the units of smallest mean activation; the units of smallest
# (standard deviation × length of the outgoing weights). Each is cut by your first function, and then folded by your second.
#
# **Guess before you run:** the network reads 97 % of the test images. Half of its units by the smallest activation, cut?

# %% tags=["nbval-ignore-output"]
data = digits()
with torch.enable_grad():
    torch.manual_seed(0)
    three_layers = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    train_digits(three_layers, data, epochs=10)


def without_half(model: nn.Sequential, keep: torch.Tensor, fold: bool) -> nn.Sequential:
    """The first hidden layer keeps some units; the second's bias takes over the others' means."""
    first, second, small = model[0], model[2], copy.deepcopy(model)
    hidden = first(data.train_images).relu()  # (N, H)
    weight, bias, following = yours("remove_units")(first.weight, first.bias, second.weight, keep)
    if fold:
        following, second_bias = yours("fold_constants")(second.weight, second.bias, hidden, keep)
        small[2].bias = nn.Parameter(second_bias)
    small[0] = nn.Linear(64, int(keep.sum()))
    small[0].weight, small[0].bias = nn.Parameter(weight), nn.Parameter(bias)
    small[2].weight = nn.Parameter(following)
    return small


hidden = three_layers[0](data.train_images).relu()
dice = torch.Generator().manual_seed(0)
choices = {
    "at random": [torch.rand(128, generator=dice) for _ in range(5)],
    "mean activation": [hidden.mean(0)],
    "deviation × weights": [hidden.std(0) * three_layers[2].weight.norm(dim=0)],
}


def right(model: nn.Module) -> float:
    return 100 * accuracy(model, data.test_images, data.test_labels)


print(f"dense: {count_parameters(three_layers):,} parameters, {right(three_layers):.0f} % right")
halves = {}
for name, scores in choices.items():
    masks = [highest_units([score], [0.5])[0] for score in scores]
    for fold in (False, True):
        small = [without_half(three_layers, keep, fold) for keep in masks]
        halves[name, fold] = sum(map(right, small)) / len(small)
    print(f"{name:20} cut {halves[name, False]:.0f} %, folded {halves[name, True]:.0f} %")
print(f"each with {count_parameters(small[0]):,} parameters")

# %% tags=["collapsed"]
# Does it hold here?
assert count_parameters(three_layers) == 26_122 and count_parameters(small[0]) == 13_770
assert halves["deviation × weights", True] > right(three_layers) - 4
assert halves["deviation × weights", True] > halves["mean activation", True] - 1
assert all(halves[name, True] > halves[name, False] for name in choices)

# %% [markdown]
# XXX
#
# ### And the residual stream?
#
# It can be cut, in the whole model at once. Take the numbers of $x$ whose mean square before the last norm is smallest.
#
# **Guess before you run:** 16 of the 192 numbers go, one in twelve, 8 % of the parameters. Beside it, as many
# parameters in MLP units. Which costs more?

# %%
strength = record_inputs(tiny, text, [tiny.norm])[0].square().mean(0)  # (N, D) -> (D,)
narrow = shrink_width(tiny, highest_units([strength], [176 / 192])[0])
scores = mlp_scores(tiny, text[:, :-1], text[:, 1:])  # you will meet them in section 5
fewer = shrink_mlps(tiny, highest_units(scores["output error"], [441 / 512] * 4))
for name, model in (
    ("dense", tiny),
    ("176 of 192 of the stream", narrow),
    ("441 of 512 units", fewer),
):
    print(
        f"{name:26}{count_parameters(model):11,} parameters, {held_out_bits(model):.3f} bits per byte"
    )

# %% tags=["collapsed"]
# Does it hold here?
assert abs(count_parameters(narrow) / count_parameters(fewer) - 1) < 0.001
narrow_bits, fewer_bits = held_out_bits(narrow), held_out_bits(fewer)
assert 1.27 < narrow_bits < 1.31 and fewer_bits < 1.205 and 1.172 < dense_bits < 1.174

# %% [markdown]
# XXX
#
# ## 3. Channels
#
# In a convolutional network the unit is a **channel**: one filter of a convolution, with all that follows it. A small
# network for the digits has three convolutions of 16, 32 and 32 channels, each with BatchNorm (Ioffe and Szegedy, 2015) and a
# ReLU, then a flattening and a linear layer. A channel that goes takes along its filter; its four numbers in
# BatchNorm, which are scale, shift, running mean and running variance; and in the next layer its slice of
# every filter, or, after the flattening, a column for each place of its picture.
#
# ## Exercise 3: repair the channels
#
# A colleague has written this. All shapes fit, it runs, no test of hers complains. She saved the network, and its answers are
# wrong.


# %%
def colleagues_channels(layers: dict, keep: torch.Tensor) -> dict:
    """Convolution → BatchNorm → ReLU → flatten → linear, with some of the channels."""
    stays = keep.nonzero()[:, 0]
    small = dict(layers)
    for name in ("conv.weight", "norm.weight", "norm.bias"):
        small[name] = layers[name][stays]
    for name in ("norm.running_mean", "norm.running_var"):
        small[name] = layers[name][: len(stays)]
    places = layers["linear.weight"].shape[1] // len(keep)
    small["linear.weight"] = layers["linear.weight"][:, keep.repeat(places)]
    return small


def last_part(channels: int) -> nn.Sequential:
    """Convolution → BatchNorm → ReLU → flatten → linear, for pictures of 32 channels and 2 × 2 places."""
    layers = {
        "conv": nn.Conv2d(32, channels, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(channels), "relu": nn.ReLU(),
        "flatten": nn.Flatten(), "linear": nn.Linear(channels * 4, 10),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers)).eval()


torch.manual_seed(0)
part, pictures = last_part(8), torch.randn(50, 32, 2, 2)
for values in (part.norm.running_mean, part.norm.bias):
    values.normal_()
sleeping = torch.tensor([0, 1, 0, 1, 1, 0, 0, 0]).bool()
part.norm.weight[sleeping], part.norm.bias[sleeping] = (
    0,
    -1,
)  # these channels give 0 behind the ReLU
halved = last_part(5)
halved.load_state_dict(colleagues_channels(part.state_dict(), ~sleeping))
off_by = (halved(pictures) - part(pictures)).abs().max() / part(pictures).abs().max()
print(
    f"channels went that give 0 everywhere; the answers change by {100 * off_by:.0f} % of the largest"
)

# %% [markdown]
# Write one that is right. A channel that gives 0 everywhere must go without a trace.


# %% exercise="remove_channels"
def remove_channels(layers: dict[str, torch.Tensor], keep: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of convolution → BatchNorm → ReLU → flatten → linear, with K of the C channels.

    conv.weight (C, I, k, k); norm.weight, norm.bias, norm.running_mean, norm.running_var (C,);
    norm.num_batches_tracked (); linear.weight (O, C · P), as a channel's picture has P places, and
    linear.bias (O,). keep (C,), bool: True for the channels that stay, in their order, at least
    one. The network that is left gives what the old one would if the channels that go gave 0 behind
    the ReLU. Returns a new dictionary with the same names; the inputs stay as they are.
    """
    ### BEGIN SOLUTION
    small = dict(layers)
    for name in (
        "conv.weight",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
    ):
        small[name] = layers[name][keep]
    columns = keep.repeat_interleave(layers["linear.weight"].shape[1] // len(keep))  # (C · P,)
    small["linear.weight"] = layers["linear.weight"][:, columns]
    return small
    ### END SOLUTION


# %% check="remove_channels" points=2
check(remove_channels)

# %% [markdown]
# Now train the network, and keep in each convolution half of the filters, those of largest norm (Li et al., 2017). Then
# a quarter. Three ways: **cut** and nothing else; **folded**, your Exercise 2; **refitted**, which section 4 explains: the
# weights of the next layer that stay are chosen anew, by least squares.
#
# **Guess before you run:** dense, it reads 98 % of the test images. With half of the channels, cut? And refitted?

# %% tags=["nbval-ignore-output"]
halved.load_state_dict(yours("remove_channels")(part.state_dict(), ~sleeping))
traceless = (halved(pictures) - part(pictures)).abs().max().item()
with torch.enable_grad():
    torch.manual_seed(0)
    cnn = DigitsCNN()
    train_digits(cnn, data, epochs=5)
channels = {}
print(f"dense: {count_parameters(cnn):,} parameters, {right(cnn):.0f} % right")
for share in (0.5, 0.25):
    filters = {name: cnn.get_submodule(name).weight.flatten(1) for name in ("1", "4", "8")}
    keep = {n: highest_units([f.norm(dim=1)], [share])[0] for n, f in filters.items()}
    ways = {
        "cut": shrink_chain(cnn, keep),
        "folded": shrink_chain(cnn, keep, data.train_images[:512], fold_mean),
        "refitted": shrink_chain(cnn, keep, data.train_images[:512], refit),
    }
    print(f"{share:.0%} of the channels, {count_parameters(ways['cut']):,} parameters:", end="")
    for name, model in ways.items():
        channels[share, name] = right(model)
        print(f"  {name} {channels[share, name]:.0f} %", end="")
    print()

# %% tags=["collapsed", "nbval-ignore-output"]
# Does it hold here? And a guess
assert off_by > 0.05 and traceless < 1e-5 and right(cnn) > 96
assert channels[0.5, "cut"] < 45 and channels[0.5, "refitted"] > right(cnn) - 4
assert channels[0.5, "cut"] + 10 < channels[0.5, "folded"] < channels[0.5, "refitted"] - 15
assert channels[0.25, "refitted"] > channels[0.25, "folded"] + 30
predict(
    "Half of the channels of every convolution go, nothing is trained. What share of the digits is read?",
    ["cut 90, refitted 97", "cut 50, refitted 75", "cut below 40, refitted above 93"],
    f"cut {channels[0.5, 'cut']:.0f} %, folded {channels[0.5, 'folded']:.0f} %, refitted "
    f"{channels[0.5, 'refitted']:.0f} %; dense {right(cnn):.0f} %",
)

# %% [markdown]
# XXX
#
# ## 4. Repair in closed form
#
# How does one refit without training? A layer makes $Wx$ of its inputs $x$. Of these, only $x_K$ stay, the
# $K$ that were kept. Look for the matrix $V$ that makes of them nearly what $W$ made of all:
#
# $$\min_V \; \mathbb{E}\, \| W x - V x_K \|^2 .$$
#
# Set the derivative by $V$ to zero: $\mathbb{E}\,(Wx - V x_K)\, x_K^\top = 0$. With the second moments $G =
# \mathbb{E}\, x x^\top$ that is $W G_{\cdot K} = V G_{KK}$, where $G_{\cdot K}$ are the columns of $G$ that stay and
# $G_{KK}$ the rows and columns that stay. So
#
# $$V = W\, G_{\cdot K}\, G_{KK}^{-1} .$$
#
# (He et al., 2017, do it for channels.) Read it this way: split $W x = W_K x_K + W_R\, x_R$, $R$ for removed. The first part is there. The second is
# foretold from $x_K$ by linear regression, $x_R \approx G_{RK} G_{KK}^{-1} x_K$, and the regression is multiplied into $W_K$. What no
# regression can foretell is lost. It is chapter 03's surgeon, with many weights out at once, and all rows of $W$ share one $G$.
#
# One trouble: if the inputs that stay foretell one another, $G_{KK}$ has no inverse, and if there are few examples, it
# has one that believes in accidents. So add a price, $\lambda \|V - W_K\|^2$, the **damping**. It holds $V$ where $W_K$ was,
# unless moving pays.
#
# ## Exercise 4: refit


# %% exercise="refit_kept"
def refit_kept(weight: torch.Tensor, inputs: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """V (O, K), which makes of the K inputs that stay nearly what W (O, I) made of all.

    With inputs x, the rows of X (N, I), and keep (I,), bool, V is the minimum of

        mean over x of ‖W x − V x_stay‖² + λ ‖V − W_stay‖²,   λ = 10⁻⁴ · mean of x_j² over x and j,

    j of the inputs that stay; these are not all 0. λ makes the minimum unique where the inputs that
    stay foretell each other, or where N < K. Reckon in float64; V is in the dtype of W.
    """
    ### BEGIN SOLUTION
    X = inputs.double()
    stay = X[:, keep]
    moments = stay.T @ stay  # (N, K) -> (K, K): N times the mean, and so is all below
    moments.diagonal().add_(1e-4 * moments.diagonal().mean())
    lost = X[:, ~keep] @ weight[:, ~keep].double().T  # (N, I − K) (I − K, O) -> (N, O)
    moved = torch.linalg.solve(moments, stay.T @ lost)  # (K, O)
    return (weight[:, keep] + moved.T).to(weight.dtype)
    ### END SOLUTION


# %% check="refit_kept" points=2
check(refit_kept)

# %% [markdown]
# On TinyLM's `down`, layer by layer. Its inputs are the 512 products of the hidden units. Keep the units of highest
# output error (section 5), refit on 8,192 tokens of the training text, and measure the error of the output on other
# text: $\mathbb{E}\|Wx - Vx_K\|^2$ as a share of $\mathbb{E}\|Wx\|^2$.
#
# **Guess:** in which layer is repair worth most? And with only 500 tokens for 307 units, does a refit help or harm?

# %% tags=["nbval-ignore-output"]
refit_weight = yours("refit_kept")
downs = [block.mlp.down for block in tiny.blocks]
unseen = spread_windows(tokenizer, held_out_sample(), 12, 256)
given, given_later = (record_inputs(tiny, some, downs) for some in (text, unseen))


def error_share(change: torch.Tensor, weight: torch.Tensor, x: torch.Tensor) -> float:
    """E‖change x‖² beside E‖W x‖²."""
    return ((x @ change.T).square().sum() / (x @ weight.T).square().sum()).item()


def local_errors(number: int, keep: torch.Tensor) -> tuple[float, float]:
    """Of one layer's `down` with fewer inputs, on unseen text: cut, refitted."""
    weight, x = downs[number].weight, given_later[number]
    mended = torch.zeros_like(weight)
    mended[:, keep] = refit_weight(weight, given[number], keep)
    return error_share(weight * ~keep, weight, x), error_share(mended - weight, weight, x)


kept_shares, local = (0.9, 0.8, 0.6, 0.4, 0.2), {}
for share in kept_shares:
    masks = highest_units(scores["output error"], [share] * 4)
    local[share] = [local_errors(number, keep) for number, keep in enumerate(masks)]

keep = highest_units(scores["output error"], [0.6] * 4)[3]
weight, x, dampings = downs[3].weight, given[3], (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
by_damping = {}
for tokens in (500, 1500, 8192):
    moments = layer_hessian(x[:: len(x) // tokens][:tokens])
    for damping in dampings:
        mended = torch.zeros_like(weight)
        mended[:, keep] = refit_columns(weight, moments, keep, damping)
        by_damping[tokens, damping] = error_share(mended - weight, weight, given_later[3])

# %% tags=["collapsed", "nbval-ignore-output"]
# Does it hold here? And the figure
cut_error = local[0.6][3][0]
gain = [1 - mended / cut for cut, mended in local[0.6]]
assert gain[0] > 0.5 and max(gain[1:]) < 0.4 and min(gain) > 0.15
assert by_damping[500, 1e-6] > cut_error > by_damping[500, 0.1]
assert by_damping[8192, 1e-4] < cut_error - 0.02
figure, (left, right_side) = new_figure(columns=2, height=3.6)
for number, colour in enumerate((RED, BLUE, GREEN, ORANGE)):
    cut, mended = zip(*(local[share][number] for share in kept_shares), strict=True)
    at = [100 * share for share in kept_shares]
    left.plot(at, [100 * e for e in cut], "--", color=colour)
    left.plot(at, [100 * e for e in mended], "o-", color=colour, label=f"layer {number}")
left.set(
    xlabel="units kept (%)", ylabel="error of the output (%)", title="dashed: cut; lines: refitted"
)
left.legend(frameon=False)
for tokens, colour in ((500, RED), (1500, ORANGE), (8192, BLUE)):
    values = [100 * by_damping[tokens, d] for d in dampings]
    right_side.semilogx(dampings, values, "o-", color=colour, label=f"{tokens:,} tokens")
right_side.axhline(100 * cut_error, color=BLACK, linestyle="--", linewidth=1, label="cut")
right_side.set(
    xlabel="damping, beside the mean input power", title="layer 3, 307 units kept", ylim=(0, 60)
)
right_side.legend(frameon=False)
figure.suptitle("A refit mends half in layer 0; with few tokens and little damping it harms")
Picture(
    figure,
    "Left: errors of four layers over the share of units kept, cut dashed, refitted below; the gap is widest in "
    "layer 0. Right: error over the damping; with 500 tokens it is above the cut's at little damping, with 8,192 "
    "flat and below it.",
)

# %% [markdown]
# XXX
#
# ## 5. By which score?
#
# Which units go? Here are the candidates for a hidden unit $i$ of TinyLM's MLP, with $a_i$ its product and $g_i$, $u_i$, $d_i$ its row of `gate`, its row of
# `up` and its column of `down`:
#
# | score | formula | it knows |
# |---|---|---|
# | norm (Li et al., 2017; Fang et al., 2023) | $\sqrt{\lVert g_i\rVert^2 + \lVert u_i\rVert^2 + \lVert d_i\rVert^2}$ | weights |
# | product of norms | $\lVert g_i\rVert\, \lVert u_i\rVert\, \lVert d_i\rVert$ | weights |
# | Taylor (Molchanov et al., 2017) | $\lvert \sum_o g_{oi}\, d_{oi} \rvert$, $g$ the gradient of the loss | gradients |
# | contribution (chapter 01) | $\mathbb{E}\,\lvert a_i\rvert \cdot \lVert d_i\rVert$ | activations |
# | output error | $\mathbb{E}\, a_i^2 \cdot \lVert d_i\rVert^2$: the squared error of the output without $i$ | activations |
# | repair error | that error, once the others were refitted | second moments |
#
# The last one looks dear: a refit for each unit. It is not. Removing input $i$ and refitting the others is the surgeon's
# problem of chapter 03, for all rows of $W$ at once. A row that loses $w_i$ pays $w_i^2 / [G^{-1}]_{ii}$, so all rows together pay
#
# $$\frac{\sum_o w_{oi}^2}{[G^{-1}]_{ii}} .$$
#
# $1/[G^{-1}]_{ii}$ is what is left of input $i$ when all others have foretold what they can. So this score knows that a twin costs nothing.
#
# ## Exercise 5: repair errors, all at once


# %% exercise="repair_error"
def repair_error(weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """For each input, the error of W x that is left if it goes and the others are refitted: (I,).

    weight W (O, I); inputs x, the rows of X (N, I). Entry i is the least mean over x of
    ‖W x − V x‖² that a V (O, I) reaches whose column i is 0. XᵀX can be inverted: no input is
    foretold by the others. I may be 800, and there are 2 seconds: do not refit I times. Reckon in
    float64, whatever comes in; the result is float64.
    """
    ### BEGIN SOLUTION
    X = inputs.double()
    inverse = torch.linalg.inv(X.T @ X / len(X))  # (I, I)
    return weight.double().square().sum(dim=0) / inverse.diagonal()
    ### END SOLUTION


# %% check="repair_error" points=2
check(repair_error)

# %% [markdown]
# Now all of them: in every layer of TinyLM 80, 60 or 40 % of the units stay, the highest. Once cut, and
# once with `down` refitted, block by block, on what the shrunk blocks before it give. All 48 measurements take a minute and a half, so they
# are stored; the cell makes eight of them again.
#
# **Guess before you look**, two things. Which score wins? And is the order after the repair the order before it?

# %% tags=["collapsed", "nbval-ignore-output"]
# Figure behind a guess, with a slider: the stored table of scores
# OMP_NUM_THREADS=1 python -m benchmarks.structured scores, 2026-11-26, one core of an x86 server
STORED_SCORES = {  # (rule, share of the units that stays): bits per byte cut, and refitted
    ("norm", 0.8): (1.242, 1.202),
    ("norm", 0.6): (1.551, 1.295),
    ("norm", 0.4): (2.08, 1.511),
    ("norm product", 0.8): (1.237, 1.2),
    ("norm product", 0.6): (1.515, 1.285),
    ("norm product", 0.4): (2.033, 1.501),
    ("Taylor", 0.8): (1.281, 1.223),
    ("Taylor", 0.6): (1.483, 1.32),
    ("Taylor", 0.4): (1.864, 1.507),
    ("contribution", 0.8): (1.234, 1.204),
    ("contribution", 0.6): (1.402, 1.3),
    ("contribution", 0.4): (1.691, 1.468),
    ("output error", 0.8): (1.218, 1.196),
    ("output error", 0.6): (1.339, 1.261),
    ("output error", 0.4): (1.587, 1.414),
    ("repair error", 0.8): (1.224, 1.197),
    ("repair error", 0.6): (1.376, 1.264),
    ("repair error", 0.4): (1.678, 1.443),
    ("random", 0.8): (1.305, 1.228),
    ("random", 0.6): (1.585, 1.335),
    ("random", 0.4): (2.021, 1.548),
    ("repair error, asked again", 0.8): (1.217, 1.197),
    ("repair error, asked again", 0.6): (1.347, 1.258),
    ("repair error, asked again", 0.4): (1.581, 1.399),
}
again = {}
for rule in ("norm", "contribution", "output error", "repair error"):
    masks = highest_units(scores[rule], [0.6] * 4)
    again[rule] = (
        masks,
        held_out_bits(shrink_mlps(tiny, masks)),
        held_out_bits(shrink_mlps(tiny, masks, text)),
    )
    _, *both = again[rule]
    assert all(abs(m - s) < 0.006 for m, s in zip(both, STORED_SCORES[rule, 0.6], strict=True))
ORDER = [
    "random", "norm", "norm product", "Taylor", "contribution", "output error", "repair error",
]  # fmt: skip


def draw_scores(units_kept_in_percent: int) -> Picture:
    """Two bars for each rule: cut, and refitted."""
    both = [STORED_SCORES[rule, units_kept_in_percent / 100] for rule in ORDER]
    figure, (axes,) = new_figure(height=3.6)
    for shift, which, colour in ((-0.2, 0, ORANGE), (0.2, 1, BLUE)):
        values = [pair[which] - dense_bits for pair in both]
        axes.bar(
            [i + shift for i in range(len(ORDER))],
            values,
            0.38,
            color=colour,
            label=("cut", "refitted")[which],
        )
        for i, value in enumerate(values):
            axes.text(i + shift, value, f"{value:.2f}", ha="center", va="bottom", size=8)
    axes.set_xticks(range(len(ORDER)), ORDER, size=9)
    axes.set_ylabel("bits per byte more than dense")
    axes.legend(frameon=False)
    spread = [max(pair[w] for pair in both) - min(pair[w] for pair in both) for w in (0, 1)]
    axes.set_title(
        f"{units_kept_in_percent} % kept: from best to worst {spread[0]:.2f} when cut, {spread[1]:.2f} when refitted"
    )
    return Picture(
        figure,
        f"Bars, {units_kept_in_percent} % of the units kept, bits per byte cut and refitted: "
        + "; ".join(f"{r} {c:.2f}, {m:.2f}" for r, (c, m) in zip(ORDER, both, strict=True)),
    )


predict(
    "60 % of the units stay. Contribution is far better than the norm when cut, 1.40 and 1.55. And refitted?",
    ["as far ahead", "half as far", "they tie", "the norm wins by as much"],
    "they tie: {:.2f} and {:.2f}".format(*(again[r][2] for r in ("contribution", "norm"))),
)
explore(draw_scores, units_kept_in_percent=([80, 60, 40], 60))

# %% [markdown]
# Three surprises. The winner is not the cleverest score: the plain output error beats the repair error, cut and
# refitted. The refit makes up for more than any score can: random units with a refit are better
# than the best norm without. And the order changes: contribution loses its lead over the norm. Each wants a reason, and each reason a test.
#
# ### Why norms mislead
#
# A norm knows the weights. It does not know how often the gate opens. So take the two factors of the output error, $\mathbb{E}\, a_i^2$ and
# $\lVert d_i \rVert^2$, one at a time. And build a **twin**, as in chapter 11: multiply each row of `up` by some $s_i > 0$, divide the column of `down` by
# it. It is the same function, so the truth about its units is the same.
#
# **Guess:** which of these scores tells the twins apart?

# %%
twin, dice = copy.deepcopy(tiny), torch.Generator().manual_seed(0)
for block in twin.blocks:
    s = torch.randn(512, generator=dice).exp()
    block.mlp.up.weight *= s[:, None]
    block.mlp.down.weight /= s
print("60 % of the units, cut, bits per byte      TinyLM   its twin")
by_part = {}
for model in (tiny, twin):
    some = mlp_scores(model, text[:, :-1], text[:, 1:])
    inputs = record_inputs(model, text, [block.mlp.down for block in model.blocks])
    some["mean a²: how active"] = [x.square().mean(0) for x in inputs]
    some["length of d: how loud"] = [block.mlp.down.weight.norm(dim=0) for block in model.blocks]
    for name in (
        "norm",
        "norm product",
        "mean a²: how active",
        "length of d: how loud",
        "output error",
    ):
        found = held_out_bits(shrink_mlps(model, highest_units(some[name], [0.6] * 4)))
        by_part.setdefault(name, []).append(found)
for name, (own, of_twin) in by_part.items():
    print(f"{name:40}{own:9.3f}{of_twin:11.3f}")

# %% tags=["collapsed"]
# Does it hold here?
assert by_part["mean a²: how active"][0] < by_part["length of d: how loud"][0] - 0.04
assert by_part["length of d: how loud"][0] < by_part["norm product"][0] - 0.05
for name in ("norm product", "output error"):
    assert abs(by_part[name][0] - by_part[name][1]) < 0.004
assert by_part["mean a²: how active"][1] > by_part["mean a²: how active"][0] + 0.06
assert by_part["length of d: how loud"][1] > by_part["length of d: how loud"][0] + 0.06

# %% [markdown]
# XXX
#
# ### Why repair changes the order

# %%
print("layer    of the units' error the others cannot foretell     rare and strong: E a⁴ / (E a²)²")
print(
    "         gone by norm, spared    gone by output error       gone by contribution, output error"
)
why = []
unforetold = [r / o for r, o in zip(scores["repair error"], scores["output error"], strict=True)]
for number, x in enumerate(record_inputs(tiny, text, downs)):
    by_norm, by_error, by_contribution = (
        ~again[rule][0][number] for rule in ("norm", "output error", "contribution")
    )
    peaked = (x**4).mean(0) / x.square().mean(0).square()
    why.append((
        unforetold[number][by_norm & ~by_error].mean().item(),
        unforetold[number][by_error & ~by_norm].mean().item(),
        peaked[by_contribution & ~by_error].median().item(),
        peaked[by_error & ~by_contribution].median().item(),
    ))  # fmt: skip
    print("{:5}{:17.2f}{:23.2f}{:31.0f}{:10.0f}".format(number, *why[-1]))

# %% tags=["collapsed"]
# Does it hold here?
assert all(norm < error - 0.08 for norm, error, *_ in why)
assert all(contribution > 1.8 * error for *_, contribution, error in why)

# %% [markdown]
# XXX
#
# ### Why the cleverest score does not win
#
# The repair error takes it that *one* unit goes and 511 stay to help. But 205 go. A unit that was cheap because of its
# neighbour is no longer cheap when the neighbour has gone, too. That can be tested: add up what the score promised for the units that went,
# and measure what the refit leaves of the error. And it can be mended: take out the cheapest, refit, ask again, take out
# the next, 205 times in each layer. (Each step is one of chapter 03's: a column over a number. `keep_one_by_one` does it, in the spirit of Kurtic et al., 2023.)

# %% tags=["nbval-ignore-output"]
hessians = [layer_hessian(x) for x in given]
asked = [keep_one_by_one(down.weight, H, 307) for down, H in zip(downs, hessians, strict=True)]
asked_bits = held_out_bits(shrink_mlps(tiny, asked)), held_out_bits(shrink_mlps(tiny, asked, text))
promises = []
print("share of the output's power    layer 0   layer 1   layer 2   layer 3")
for name, masks in (("asked once", again["repair error"][0]), ("asked again", asked)):
    rows = []
    for down, H, keep, score in zip(downs, hessians, masks, scores["repair error"], strict=True):
        W, G = down.weight.double(), H / 2
        mended = torch.zeros_like(W)
        mended[:, keep] = refit_columns(W, H, keep)
        power = ((W @ G) * W).sum()
        left = (((mended - W) @ G) * (mended - W)).sum() / power
        rows.append((float(score[~keep].sum() / power), float(left)))
    promises.append(rows)
    for what, values in zip(("promised", "left"), zip(*rows, strict=True), strict=True):
        print(f"{name:12}{what:15}" + "".join(f"{100 * v:8.1f} %" for v in values))
print("bits per byte: cut {:.3f}, refitted {:.3f}".format(*asked_bits), "(asked again)")

# %% tags=["collapsed"]
# Does it hold here?
once, repeatedly = promises
assert once[0][1] > 1.7 * once[0][0] and all(left < 1.3 * promised for promised, left in once[1:])
assert all(
    again_left < once_left for (_, once_left), (_, again_left) in zip(once, repeatedly, strict=True)
)
assert (
    asked_bits[0] < again["repair error"][1] - 0.015
    and asked_bits[1] < again["repair error"][2] - 0.003
)
for keep in (0.6, 0.4):
    plain, best = (STORED_SCORES[r, keep][1] for r in ("output error", "repair error, asked again"))
    assert best < plain

# %% [markdown]
# XXX
#
# **Pause.** Here the first sitting ends.
#
# ## 6. Heads
#
# TinyLM has six query heads in each layer and two key-value heads, each of which serves three neighbours (**grouped
# queries**, Ainslie et al., 2023). What may go alone? A query head may: rows of `query`, columns of `output`. A key-value head
# only with all its query heads. And when the last of these has gone, nobody reads it, so it goes as well.
#
# ## Exercise 6: remove heads


# %% exercise="remove_heads"
def remove_heads(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    keep: torch.Tensor,
    kv_heads: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(query, key, value, output) of an attention with fewer heads, of which some share keys.

    H query heads of width E: query (H · E, D), output (D, H · E). G = kv_heads key-value heads:
    key, value (G · E, D). The E rows of a head (of output: its columns) stand side by side. Each
    key-value head serves H / G neighbours, the first one the first H / G query heads, and so on.
    keep (H,), bool: True for the query heads that stay, at least one. A key-value head goes with
    the last of its query heads, not before. What stays keeps its order and dtype; the inputs stay
    as they are.
    """
    ### BEGIN SOLUTION
    E = len(query) // len(keep)
    serves = keep.view(kv_heads, -1).any(dim=1)  # (H,) -> (G,)
    rows, kv_rows = keep.repeat_interleave(E), serves.repeat_interleave(E)
    return query[rows], key[kv_rows], value[kv_rows], output[:, rows]
    ### END SOLUTION


# %% check="remove_heads" points=2
check(remove_heads)

# %% [markdown]
# Take out one, two and three query heads of each layer, those of least repair error, and refit `output`. Then three in another way: the
# better of the two key-value heads stays, with its three query heads. **Guess:** three of six, wherever they are cheapest, against a whole group. Which one makes
# the cache of keys and values smaller?

# %% tags=["nbval-ignore-output"]
outputs = [block.attention.output for block in tiny.blocks]
mixed = record_inputs(tiny, text, outputs)
head_scores = [
    repair_errors(o.weight, layer_hessian(x), 6) for o, x in zip(outputs, mixed, strict=True)
]
plans = {f"{k} of 6 heads": highest_units(head_scores, [k / 6] * 4) for k in (5, 4, 3)}
plans["the first group"] = [whole_groups(torch.tensor([True, False]), (3, 3))] * 4
plans["the second group"] = [whole_groups(torch.tensor([False, True]), (3, 3))] * 4
heads_bits = {}
print("stay                parameters   cache, bytes a token   bits per byte, cut and refitted")
for name, masks in plans.items():
    small = shrink_heads(tiny, masks, text)
    cache = sum(2 * 2 * 32 * len(shape.groups) for shape in small.config.shapes)  # in float16
    heads_bits[name] = held_out_bits(shrink_heads(tiny, masks)), held_out_bits(small), cache
    print(f"{name:18}{count_parameters(small):12,}{cache:15}", end="")
    print("{:24.3f}{:9.3f}".format(*heads_bits[name]))
per_head = highest_units(
    scores["output error"], [1 - 64 / 3 / 512] * 4
)  # as many weights as a head
unit_bits = held_out_bits(shrink_mlps(tiny, per_head, text))
print(f"as many parameters as one head of six, in MLP units, refitted: {unit_bits:.3f}")
