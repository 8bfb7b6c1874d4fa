# %% [markdown] slide="1. What is"
# # 03 · Pruning
#
# **By what score does a weight go, and what does it cost to find out?**
#
# Chapter 02 asked which $k$ weights should stay, and answered: the largest. That is a score: the
# magnitude. There are a dozen others in the papers, some of them dear. S2 names random pruning, gradient
# pruning and an importance $I(p)$; S3 calls small weights unimportant. Who is right? There is only one
# way to know: take the weight out and look. On a network small enough you can do that for *every*
# weight, and then no score can hide.
#
# * **Afterwards you can** derive the scores from one Taylor expansion and say when each of them fails;
#   remove weights with repair (Optimal Brain Surgeon); split a budget over layers; prune on a schedule,
#   and compare it fairly; test a lottery ticket; tell static from dynamic sparsity.
# * **You need** chapter 02, gradients, and what a matrix inverse is.
# * **Time:** five to six hours, in two sittings. The first ends behind section 3, where it says **Pause**.
# * **Core:** Exercises 1, 2, 4 to 8 and 12. **Extra:** Hutchinson's estimator (Exercise 3), sparsity
#   that is not pruning (9 to 11).
#
# ## 1. What is importance?
#
# A weight's **importance** is what the loss rises by when the weight is set to zero. Not more and not
# less. Let $w$ be the weights of a trained network, $P$ of them, $L(w)$ its mean loss over the training
# data, and $e_q$ the vector with a one at place $q$ and zeros elsewhere. The truth about weight $q$ is
#
# $$\Delta_q = L(w - w_q e_q) - L(w) .$$
#
# To know all of them costs $P$ passes over the data. So take a network with few weights: digits shrunk
# to $4 \times 4$ pixels, 16 inputs, 8 hidden units with tanh, 10 outputs. That is $P = 208$ weights, and
# 18 biases, which stay. It is trained with weight decay, as most networks are, down to a minimum of
#
# $$J(w) = L(w) + \tfrac{\lambda}{2} \|w\|_2^2 , \qquad \lambda = 0.001,$$
#
# and really to the minimum, with no early stopping: by a method that learns the curvature as it goes
# (L-BFGS), in double precision. (The biases are trained and priced along; only weights are taken out, so
# $w$ holds these alone.) The weights, one after the other, are one long row. Then take every weight out,
# one at a time.

# %% tags=["collapsed"]
# Imports
import copy
import itertools
import math

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn
from torch.func import functional_call, grad, vmap

from course_lib.data.batches import consecutive_windows
from course_lib.data.images import Digits, digits
from course_lib.data.text import bible_chapters, split
from course_lib.device import best_device
from course_lib.exercises import check, hint, yours
from course_lib.measure.quality import accuracy
from course_lib.measure.yardstick import tiny_quality
from course_lib.models import pretrained
from course_lib.models.digits_mlp import DigitsMLP, cross_entropy, train_digits
from course_lib.models.parts import linear_weights, prunable_weights, record_inputs
from course_lib.models.training import next_token_loss
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
from course_lib.plots.watch import watch
from course_lib.pruning.activations import products, threshold_activations, thresholds_for
from course_lib.pruning.activity import UnitActivity
from course_lib.pruning.allocation import masks_at, sensitivity
from course_lib.pruning.allocation import split_budget as exact_split
from course_lib.pruning.autoencoder import (
    SparseAutoencoder,
    train_autoencoder,
    variance_explained,
)
from course_lib.pruning.curvature import exact_hessian, predicted_increase
from course_lib.pruning.curvature import hutchinson_diagonal as estimated_diagonal
from course_lib.pruning.evidence import collect_evidence
from course_lib.pruning.lottery import find_ticket, shuffled_masks
from course_lib.pruning.masks import apply_masks, hold_masks, masks_by_score
from course_lib.pruning.obs import damped_inverse, layer_hessian, obs_prune, obs_saliency
from course_lib.pruning.schedules import cubic_density, follow_density
from course_lib.pruning.scores import (
    gradient_magnitude,
    magnitude,
    random_scores,
    saliency,
    taylor,
)

# %% tags=["nbval-ignore-output"]
device = best_device()
data, PRICE = digits(), 1e-3  # this small network stays on the CPU; the others go to `device`


def shrunk(images: torch.Tensor) -> torch.Tensor:
    """Images of 4×4 pixels, each the mean of four."""
    squares = images.double().view(-1, 1, 8, 8)  # (N, 64) -> (N, 1, 8, 8)
    return F.avg_pool2d(squares, 2).flatten(1)  # (N, 1, 4, 4) -> (N, 16)


pixels, labels = shrunk(data.train_images), data.train_labels
test_pixels, test_labels = shrunk(data.test_images), data.test_labels


def minimise(loss, parameters: list, steps: int) -> None:
    """In place: L-BFGS down to a minimum of loss() + λ/2 · ‖parameters‖²."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=steps, history_size=20, tolerance_grad=1e-9, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        J = loss() + PRICE / 2 * sum(p.square().sum() for p in parameters)
        J.backward()
        return J

    optimizer.step(closure)


def small_network(seed: int) -> nn.Module:
    """16-8-10 with tanh, trained to a minimum of J."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 10)).double()
    minimise(lambda: F.cross_entropy(network(pixels), labels), list(network.parameters()), 1000)
    return network.requires_grad_(False)


network = small_network(seed=2)


# %% tags=["nbval-ignore-output"]
def one_row(network: nn.Module) -> torch.Tensor:
    """All weights of a small network: (8, 16) and (10, 8) -> (208,)."""
    return torch.cat([part.detach().flatten() for part in linear_weights(network).values()])


def by_name(row: torch.Tensor) -> dict[str, torch.Tensor]:
    """(208,) -> the two weight matrices."""
    return {"0.weight": row[:128].view(8, 16), "2.weight": row[128:].view(10, 8)}


def training_loss(network: nn.Module):
    """L, a function of the network's weights in one row."""

    def loss(row: torch.Tensor, images=pixels) -> torch.Tensor:
        return F.cross_entropy(functional_call(network, by_name(row), (images,)), labels)

    return loss


@torch.no_grad()
def rises(L, row: torch.Tensor) -> torch.Tensor:
    """By how much the loss rises without each weight alone, (208,)."""
    without = row.repeat(208, 1).fill_diagonal_(0)  # row q: all weights but w_q
    return vmap(L, chunk_size=52)(without) - L(row)


def right(row: torch.Tensor) -> float:
    """Accuracy on the test images in percent."""
    logits = functional_call(network, by_name(row), (test_pixels,))
    return 100 * float((logits.argmax(1) == test_labels).double().mean())


w, L = one_row(network), training_loss(network)
truth = rises(L, w)
print(f"loss {L(w):.2f}, test accuracy {right(w):.0f} %")
print(f"without one weight the loss rises by {truth.min():.0e} to {truth.max():.1f}")

# %% [markdown] slide="1. What is"
# The dearest weight costs more than a hundred thousand times what the cheapest costs. That is what makes
# pruning possible, and what makes the choice matter.
#
# Now the candidates. Let $g = \nabla L(w)$ be the gradient, $g^{(n)}$ that of image $n$ alone, and $H$
# the matrix of second derivatives of $L$, the **Hessian**, with $h_q = H_{qq}$ on its diagonal.
#
# | score | formula | what it costs for $P$ weights |
# |---|---|---|
# | random | a random number | nothing |
# | magnitude | $\lvert w_q \rvert$ | nothing |
# | gradient | $\lvert g_q \rvert$ | one pass forward and back over the data |
# | Taylor | $\lvert g_q w_q \rvert$ | the same |
# | gradient by image | $\frac1N \sum_n \lvert g^{(n)}_q \rvert$ | the same, image by image |
# | Taylor by image (Molchanov et al., 2017) | $\frac1N \sum_n \lvert g^{(n)}_q w_q \rvert$ | the same, image by image |
# | OBD, Optimal Brain Damage (LeCun, Denker, Solla, 1989) | $\frac12 h_q w_q^2$ | about $2P$ such passes, for the exact $h_q$ |
# | OBD with Hutchinson's $h$ | the same with $h$ estimated from 10 random vectors | about 20 such passes |
# | OBD with Fisher's $h$ | the same with $\frac1N \sum_n (g^{(n)}_q)^2$ for $h_q$ | one pass, image by image |
#
# (Molchanov's group scores whole feature maps by it. LeCun's group has a rule of its own for an
# approximate $h$, at the price of one more pass back.)
#
# You will derive most of them in section 2. First let them compete. A score need only *rank* the weights,
# so we ask for **Spearman's rank correlation** with the truth: 1 if both put all weights into the same
# order, 0 if they have nothing to do with one another.
#
# **Guess before you look:** magnitude, gradient or Taylor, which ranks the weights best? And does it
# matter whether the mean over the images is taken before the magnitude or after it?


# %%
def all_scores(network: nn.Module, row: torch.Tensor, loss) -> dict[str, torch.Tensor]:
    """Every score of every weight of a small network."""
    dice = torch.Generator().manual_seed(0)
    images = [(x[None], y[None]) for x, y in zip(pixels, labels, strict=True)]
    each = vmap(grad(one_image_loss(network)), in_dims=(None, 0, 0))(row, pixels, labels)
    by_image = collect_evidence(network, images, lambda m, one: F.cross_entropy(m(one[0]), one[1]))
    fisher = torch.cat([by_image.squared[name].flatten() for name in by_name(row)])
    g, h = grad(loss)(row), exact_hessian(lambda w: loss(w["w"]), {"w": row}).diagonal()
    guessed = estimated_diagonal(lambda w: loss(w["w"]), {"w": row}, 10, dice)["w"]
    return {
        "random": random_scores(row, dice),
        "magnitude": magnitude(row),
        "gradient": gradient_magnitude(g),
        "Taylor": taylor(row, g),
        "gradient by image": each.abs().mean(0),
        "Taylor by image": taylor(row, each.abs().mean(0)),
        "OBD, Hutchinson": saliency(row, guessed),
        "OBD, Fisher": saliency(row, fisher),
        "OBD, exact": saliency(row, h),
    }


def one_image_loss(network: nn.Module):
    """A function of (weights in a row, one image, its label)."""

    def loss(row, image, label):
        logits = functional_call(network, by_name(row), (image[None],))
        return F.cross_entropy(logits, label[None])

    return loss


def rank_correlation(score: torch.Tensor, truth: torch.Tensor) -> float:
    return float(spearmanr(score.detach(), truth).statistic)


scores = all_scores(network, w, L)
found = {name: rank_correlation(score, truth) for name, score in scores.items()}

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure behind a guess: every score against the truth
assert truth.max() > 1e5 * truth.min().abs() and L(w) < 0.25 and right(w) > 88
assert len(w) == 208 and sum(p.numel() for p in network.parameters()) == 208 + 18
assert 0.66 < found["magnitude"] < 0.84 and abs(found["random"]) < 0.3
assert (
    abs(found["gradient"] - found["magnitude"]) < 0.02 > abs(found["Taylor"] - found["magnitude"])
)
edge = torch.tensor([True, False, False, True] * 4 * 8)  # the pixel that a first-layer weight reads
groups = [(~edge).nonzero()[:, 0], edge.nonzero()[:, 0], torch.arange(128, 208)]
alike = [rank_correlation(w[part].abs(), truth[part]) for part in groups]
brightness = pixels.square().mean(0).sqrt()
assert min(alike) > 0.94 and brightness[edge[:16]].max() < 0.2 < 0.5 < brightness[~edge[:16]].min()
assert found["OBD, exact"] > 0.985 and 0.96 < found["OBD, Fisher"] < found["OBD, exact"]
assert found["OBD, Hutchinson"] < found["magnitude"] - 0.05
assert found["gradient by image"] < found["magnitude"] - 0.1
assert found["magnitude"] + 0.1 < found["Taylor by image"] < found["OBD, exact"]

figure, axes = new_figure(rows=3, columns=3, height=6.2)
readers = ("reads the middle of the image", "reads the left or right edge", "last layer")
for one, (name, score) in zip(axes, scores.items(), strict=True):
    for part, colour, reader in zip(groups, (BLUE, SKY, ORANGE), readers, strict=True):
        some = part[score[part] > 0]  # a logarithm has no place for estimates below zero
        one.loglog(score[some], truth[some], ".", color=colour, markersize=4, label=reader)
    one.set_title(f"{name}: {found[name]:.2f}", fontsize=9)
    one.set_xticks([]), one.minorticks_off(), one.set_xlabel("score (log)", fontsize=8)
for one in axes[::3]:
    one.set_ylabel("rise of the loss", fontsize=9)
names = axes[0].get_legend_handles_labels()
figure.legend(*names, loc="outside lower center", ncols=3, frameon=False, markerscale=2)
figure.suptitle("Gradient and Taylor draw the very picture that magnitude draws")

predict(
    "Which of these ranks the 208 weights best: magnitude, gradient, or Taylor (gradient times weight)?",
    ["magnitude", "gradient", "Taylor", "they tie"],
    f"they tie, at {found['magnitude']:.2f}, {found['gradient']:.2f} and {found['Taylor']:.2f}",
    Picture(
        figure,
        "Nine scatter plots of score against the true rise of the loss, each with its rank "
        "correlation: exact OBD, Fisher's and Taylor by image lie near a line; magnitude, gradient and "
        "Taylor form one and the same picture of two bands; Hutchinson's is broader and lacks the "
        "estimates below zero; the gradient by image and random are clouds.",
    ),
)

# %% [markdown] slide="1. What is"
# Three scores tie. That is no accident. At a minimum of $J$ its gradient is zero:
#
# $$\nabla J = g + \lambda w = 0 \quad\Longrightarrow\quad g = -\lambda w .$$
#
# So $|g_q| = \lambda |w_q|$ and $|g_q w_q| = \lambda w_q^2$: both are magnitude in disguise. **At a
# trained minimum the mean gradient knows nothing but the price that you put on the weights.** Put none,
# and it is zero. "Gradient pruning" (S2) with the mean gradient of a trained network makes sense only as
# long as the network is not trained to the end, or with other data. (SNIP prunes *before* training, by
# Taylor's score: Lee, Ajanthan, Torr, 2019.)
#
# But the mean is zero because the images pull this way and that, not because none of them pulls. Drop the
# sign image by image, then take the mean, and Taylor ranks almost without fault: 0.96. **The mean
# gradient knows nothing; the gradients of single images know nearly all.** Molchanov's group takes the
# mean there, too (their section 2.2). Fisher's score does the same with squares: up to the half, it is
# the mean of $(g^{(n)}_q w_q)^2$.
#
# Look at magnitude. It costs nothing, and beats two dearer scores: a Hessian estimated from ten random
# vectors (its picture lacks the estimates below zero; Exercise 3 will help it), and the gradient by
# image, which forgets to multiply by $w$. Where it errs is plain to see: it draws two bands. The upper
# one (blue) are the weights that read the middle of the image. In the lower one are those that read the
# left and right edges, which are nearly always dark (light blue), and the last layer (orange). Among the
# weights of one colour magnitude ranks almost without fault, at 0.95 or better. **What it does not know
# is what comes into the weight, and how much hangs on what it passes on.** Three scores know: the exact
# curvature, and the two that take the images one by one, in a single pass. Does all this hang on the
# seed?

# %% tags=["nbval-ignore-output"]
identity = float((grad(L)(w) + PRICE * w).abs().max() / (PRICE * w).abs().max())
print(f"largest |g + λw|, beside the largest |λw|: {identity:.0e}")
table = {name: [value] for name, value in found.items()}
for seed in (3, 4):
    another = small_network(seed)
    its_row, its_loss = one_row(another), training_loss(another)
    its_truth = rises(its_loss, its_row)
    for name, score in all_scores(another, its_row, its_loss).items():
        table[name].append(rank_correlation(score, its_truth))
for name, values in table.items():
    print(f"{name:24}" + "".join(f"{value:7.2f}" for value in values))

# %% [markdown]
# ### Other units
#
# Here the pixels all run from 0 to 1. Suppose somebody measures the left half of the image from 0 to 16,
# as the file does. The network need not care: divide the weights of these pixels by 16, and it computes
# the same function, with the same loss, and the same truth about every weight.
#
# **Guess before you run:** which scores change their minds?

# %% tags=["nbval-ignore-output"] slide=True
left_half = torch.tensor([0, 1, 4, 5, 8, 9, 12, 13])
rescaled = {}
for factor in (1, 4, 16):
    units = torch.ones(16, dtype=w.dtype)
    units[left_half] = factor
    # (128,) -> (8, 16) -> (128,)
    rescaled_row = torch.cat([(w[:128].view(8, 16) / units).flatten(), w[128:]])

    def same_loss(row, units=units):
        return L(row, pixels * units)

    slope = grad(same_loss)(rescaled_row)
    bend = exact_hessian(lambda w: same_loss(w["w"]), {"w": rescaled_row}).diagonal()
    scores_now = [magnitude(rescaled_row), gradient_magnitude(slope)]
    scores_now += [taylor(rescaled_row, slope), saliency(rescaled_row, bend)]
    rescaled[factor] = [rank_correlation(score, truth) for score in scores_now]
    assert torch.allclose(same_loss(rescaled_row), L(w))
print("left half times   magnitude   gradient   Taylor   OBD")
for factor, values in rescaled.items():
    print(f"{factor:15}{values[0]:12.2f}{values[1]:11.2f}{values[2]:9.2f}{values[3]:6.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert identity < 0.01
assert all(min(v) > 0.985 for n, v in table.items() if n == "OBD, exact")
assert min(table["Taylor by image"]) > max(table["magnitude"]) + 0.1
assert all(m > max(a, b) for m, a, b in zip(table["magnitude"], table["OBD, Hutchinson"], table["gradient by image"], strict=True))  # fmt: skip
assert rescaled[1][0] > rescaled[4][0] + 0.08 and rescaled[4][0] > rescaled[16][0] + 0.05
assert rescaled[1][1] > rescaled[16][1] + 0.2
assert max(abs(rescaled[1][i] - rescaled[16][i]) for i in (2, 3)) < 0.01

# %% [markdown]
# Magnitude and gradient do, and both get worse, for opposite reasons: magnitude now undervalues the
# weights of the left half, the gradient overvalues them. Taylor and OBD do not move. Count the units and
# you see why: $w$ is measured in something, $g$ in loss per something, $h$ in loss per something squared.
# Of the four only $g w$ and $h w^2$ are **in units of loss**. If a weight is divided by $s$ and its input
# multiplied, then $g \to s g$ and $h \to s^2 h$, and these two products stay. A score in other units
# compares weights only where their scales are alike. (This is the trick with the layer times ten from
# chapter 02, in one layer.)
#
# ## Exercise 1: the Taylor score
#
# In practice gradients come example by example. Here is asked for the plain one, of the mean loss. Mind
# what is averaged, and when the sign is dropped.


# %% exercise="taylor_score"
def taylor_score(weight: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """First-order score |w · g| of each weight, in the weight's shape and dtype.

    gradients: (N, *weight.shape), one for each example; g is their mean.
    """
    ### BEGIN SOLUTION
    return (weight * gradients.mean(0)).abs()
    ### END SOLUTION


# %% check="taylor_score" points=1
check(taylor_score)

# %% [markdown] slide=["2. Expand", "A derivation"]
# ## 2. Expand
#
# Where do the scores come from? From one formula. Change the weights by $\delta$, a vector as long as
# $w$:
#
# $$L(w + \delta) = L(w) + g^\top \delta + \tfrac12 \delta^\top H \delta + \ldots$$
#
# The dots are of third order in $\delta$ and above. To remove weight $q$ take $\delta = -w_q e_q$. Then
#
# $$\Delta_q \approx -g_q w_q + \tfrac12 h_q w_q^2 .$$
#
# The first term alone gives Taylor's score. OBD says: *at a minimum the gradient is zero*, so the second
# term is all there is. LeCun calls it the weight's **saliency**. To prune several weights, OBD adds
# their scores up; so it makes three assumptions. The step is small (no dots), we stand at a minimum ($g
# = 0$), and weights do not interact ($H$ is diagonal).
#
# ### A derivation that loses the weight
#
# S2 §4.2.1 sets out on the same road. It wants an importance $I(p)$ of a parameter $p$, writes down a
# "regularised loss" $\frac12\|\lambda p\|_2^2$, expands it to second order around its minimum, and
# arrives at
#
# $$I(p) = \frac{\|\lambda \cdot p\|_2}{\|p\|_2} .$$
#
# The idea is right: expand, and at the minimum the first order drops out. That is just what LeCun did.
# Two things went wrong on the way. What was expanded is the penalty alone: the loss is missing. Its
# only minimum is $p = 0$. And the formula is not what the expansion gives; it was put in at the end. What
# does it say?
#
# $\|\lambda p\| = \lambda \|p\|$, so $I(p) = \lambda$: every parameter is as important as every other.
# The weight has cancelled out. (S2 notes that $\lambda$, being positive, may be moved, and does not see
# that nothing is left without it.) Now the same road, walked to its end.
#
# ## Exercise 2: OBD where it is exact
#
# For a squared error there are no dots: $L(\theta) = \|X\theta - y\|_2^2$ is its own expansion. Find its
# $H$.


# %% exercise="obd_saliency"
def obd_saliency(
    features: torch.Tensor, targets: torch.Tensor, theta: torch.Tensor
) -> torch.Tensor:
    """½ H_ii θ_i² for each weight of L(θ) = ‖Xθ − y‖₂², (P,) in θ's dtype.

    features X (N, P), targets y (N,). θ (P,) is at the minimum of L, so this is by how much L rises
    exactly when that weight alone is set to zero. H is the Hessian of L.
    """
    ### BEGIN SOLUTION
    return features.square().sum(0) * theta.square()
    ### END SOLUTION


# %% check="obd_saliency" points=2
check(obd_saliency)

# %%
obd = yours("obd_saliency")
X = torch.tensor([[10.0, 0.0], [0.0, 1.0], [10.0, 1.0], [20.0, 1.0]])
theta = torch.tensor([0.2, 1.0])
rises = [float((X @ (theta * stay)).sub(X @ theta).square().sum()) for stay in torch.eye(2).flip(0)]
print("θ = (0.2, 1): magnitude says that the first weight goes, S2 says either")
expected = obd(X, X @ theta, theta)
print(f"OBD: {expected[0]:.0f} and {expected[1]:.0f}; measured: {rises[0]:.0f} and {rises[1]:.0f}")

# %% [markdown]
# The small weight stands on the large input, and is worth eight times the large one.
#
# ### Predicted and measured
#
# A prediction is worth what it says about numbers, not only about ranks. So draw sets of weights at
# random, 200 of each size, remove each set, and plot what the loss did against what was predicted. The
# line is $y = x$. Two predictions: OBD's sum of $\frac12 h_q w_q^2$, and the whole second-order formula,
# with gradient and with all of $H$ (`predicted_increase`). Move the slider from one weight to eighty.
#
# **Guess before you move it:** for single weights, is OBD's half $h w^2$ right? And which prediction
# lasts longer?

# %%
g, H = grad(L)(w), exact_hessian(lambda w: L(w["w"]), {"w": w})
h, dice = H.diagonal(), torch.Generator().manual_seed(0)
predicted = {}
for count in (1, 2, 5, 10, 20, 40, 80):
    sets = torch.stack([torch.randperm(208, generator=dice)[:count] for _ in range(200)])
    changes = torch.zeros(200, 208, dtype=w.dtype).scatter(1, sets, -w[sets])  # δ of each set
    with torch.no_grad():
        measured = vmap(L, chunk_size=50)(w + changes) - L(w)
    obd_sums = saliency(w, h)[sets].sum(1)
    whole = torch.stack([predicted_increase(change, g, H) for change in changes])
    predicted[count] = (obd_sums, whole, measured)

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure with a slider: predicted and measured rise of the loss
assert torch.allclose(expected, torch.tensor([24.0, 3.0])) and abs(rises[0] - 24) < 0.01
assert abs(rises[1] - 3) < 0.01


def share_of(count: int, which: int) -> float:
    """Median of predicted ÷ measured."""
    return float((predicted[count][which] / predicted[count][2]).median())


def draw_predictions(weights_removed: int) -> Picture:
    """Predicted against measured, for 200 sets of so many weights."""
    *guesses, measured = predicted[weights_removed]
    figure, axes = new_figure(columns=2, height=3.6)
    names = ("OBD, the sum of ½hw²", "whole second order")
    ranks = [rank_correlation(guess, measured) for guess in guesses]
    for which, (one, guess, colour) in enumerate(zip(axes, guesses, (ORANGE, BLUE), strict=True)):
        low, high = float(measured.clamp(min=1e-5).min()) / 2, float(measured.max()) * 2
        one.loglog([low, high], [low, high], "-", color=BLACK, linewidth=0.8)
        one.loglog(guess.clamp(min=low), measured.clamp(min=low), ".", color=colour)
        one.set(
            xlabel="predicted rise of the loss",
            title=f"{names[which]}\npredicted ÷ measured, median: {share_of(weights_removed, which):.2f}",
        )
    axes[0].set_ylabel("measured rise of the loss")
    figure.suptitle(
        f"{weights_removed} removed: how well they rank the sets, {ranks[0]:.2f} and {ranks[1]:.2f}"
    )
    return Picture(
        figure, f"Two scatter plots with the line y = x, {weights_removed} removed at once."
    )


assert 0.65 < share_of(1, 0) < 0.85 and 0.95 < share_of(1, 1) < 1.02
assert share_of(10, 1) < 0.9 and share_of(20, 1) < 0.85 and share_of(80, 1) < 0.77
obd_sums, whole, measured = predicted[80]
assert 0.9 < share_of(80, 0) < 1.1 and -0.4 < ((whole - obd_sums) / measured).median() < -0.1
assert 0.15 < ((measured - whole) / measured).median() < 0.4
set_ranks = {
    c: [rank_correlation(guess, found[2]) for guess in found[:2]] for c, found in predicted.items()
}
assert (
    set_ranks[20][1] > 0.87
    and set_ranks[20][1] > set_ranks[20][0] + 0.04
    and set_ranks[80][0] < 0.45
    and set_ranks[80][0] + 0.1 < set_ranks[80][1] < 0.7
)
explore(draw_predictions, weights_removed=(list(predicted), 1))

# %% [markdown]
# Two things to see. With one weight, OBD's half $h w^2$ typically gives three quarters of the truth. Its
# second assumption is broken: we stand at a minimum of $J$ and not of $L$, so $g = -\lambda w$, and the
# term $-g_q w_q = \lambda w_q^2$ is missing. With it nearly all points lie on the line. Whoever trains
# with weight decay should score with the whole formula.
#
# With many weights, both fail, and in the ranks, which are what pruning needs, the whole formula fails
# later. It knows how weights *interact* (the rest of $H$), and ranks sets of twenty well. But there it
# promises three quarters of the damage, at eighty seven tenths, and its ranks are poor. OBD's are worse;
# that its sum comes out right at eighty, in the middle, is luck: the interactions that it leaves out take
# about a third away, and the gradient and the dots would add about a third. The step is no longer small,
# and no second derivative says what happens far away. **A score says what one weight costs now.** It does
# not say what half of them cost together.
#
# ## Exercise 3: a diagonal without a Hessian
#
# TinyLM has 1,572,864 weights in its linear layers, and $H$ has as many squared: ten terabytes. But $Hv$
# for *one* vector $v$ is cheap. It is the gradient of the number $g^\top v$: one more pass back through
# the pass back. (That $Hv$ costs little more than $g$ is due to Pearlmutter, 1994, who goes another way.)
# Let $v$ have entries $\pm 1$ by the toss of a coin. Then
#
# $$(v \odot Hv)_i = H_{ii} v_i^2 + \sum_{j \ne i} v_i v_j H_{ij} = h_i + \text{noise of mean } 0
# \text{ and variance } \sum_{j \ne i} H_{ij}^2 .$$
#
# Average $v \odot Hv$ over $K$ such $v$, and the variance falls to a $K$-th (Hutchinson, 1989; Bekas,
# Kokiopoulou, Saad, 2007). You are given the $v$.


# %% exercise="hutchinson_diagonal"
def hutchinson_diagonal(
    features: torch.Tensor, labels: torch.Tensor, theta: torch.Tensor, probes: torch.Tensor
) -> torch.Tensor:
    """Estimate of the diagonal of a Hessian H: the mean over the probes v of v ⊙ (Hv), (P,).

    H is the Hessian by θ (P,) of the mean over N examples of the logistic loss, the binary
    cross-entropy of the logits Xθ: features X (N, P), labels (N,) of 0. and 1. H itself is not
    needed, and Xθ may be as large as ±200. probes (K, P) of ±1. All are of one dtype, float32 or
    float64, and so is the result.
    """
    ### BEGIN SOLUTION
    theta = nn.Parameter(theta)
    loss = F.binary_cross_entropy_with_logits(features @ theta, labels)
    (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
    products = [torch.autograd.grad(slope, theta, v, retain_graph=True) for v in probes]
    return (probes * torch.stack([product for (product,) in products])).mean(0)
    ### END SOLUTION


# %% check="hutchinson_diagonal" points=2
check(hutchinson_diagonal)

# %% [markdown]
# How many probes does it take until the estimate ranks weights better than their magnitudes do, which
# are free?
#
# **Guess before you run:** 3, 10, 30, 100?

# %% tags=["nbval-ignore-output"] slide=True
probe_counts = (1, 3, 10, 30, 100, 300)
by_probes = {}
for count in probe_counts:
    ranks = []
    for seed in range(10):
        signs = (
            torch.randint(2, (count, 208), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
        )
        estimate = (signs * (signs.double() @ H)).mean(0)
        both = (saliency(w, estimate), saliency(w, estimate.abs()))
        ranks.append([rank_correlation(score, truth) for score in both])
    by_probes[count] = torch.tensor(ranks).mean(0).tolist()  # (10, 2) -> (2,)
print("probes              " + "".join(f"{count:7}" for count in probe_counts))
for i, what in enumerate(("ranks               ", "ranks, |estimate|   ")):
    print(what + "".join(f"{by_probes[count][i]:7.2f}" for count in probe_counts))
print(
    f"magnitude, at no cost: {found['magnitude']:.2f}; Fisher, at one pass: {found['OBD, Fisher']:.2f}"
)

# %% tags=["collapsed"]
# Does it hold here?
assert by_probes[1][0] < 0.35 and by_probes[10][0] < found["magnitude"] - 0.05
assert by_probes[100][0] > found["magnitude"] + 0.05 and h.min() > 0
assert by_probes[1][1] > found["magnitude"] + 0.05
assert by_probes[300][0] < by_probes[300][1] < found["OBD, Fisher"]

# %% [markdown] slide="3. Remove"
# Some tens. The noise of weight $i$ comes from its couplings with all others. Where $H$ is positive
# definite, $H_{ij}^2 < h_i h_j$, so measured by $h_i$ it can be great only where $h_i$ is small: the small
# ones drown first, and small ones are what pruning looks for. Many come out negative, and *the lowest
# go*. Here no true $h_i$ is negative, so the sign is an error that one can see. Drop it (second line), and
# a single probe beats magnitude. **Ask what your estimator cannot be right about before you rank by it.**
#
# Still, three hundred probes do not reach what Fisher's stand-in, the mean of squared gradients, gives in
# one pass. Why does that work at all? For cross-entropy, and with labels drawn from the model's own
# probabilities, the mean of $g^{(n)} g^{(n)\top}$ *is* on average the main part of $H$, the one without
# the logits' own second derivatives (the Fisher matrix). With the true labels in their place it is called
# the **empirical** Fisher, and it is a stand-in that can fail (Kunstner, Balles, Hennig, 2019). In
# section 4 you will see it fail.
#
# ## 3. Remove, and repair
#
# OBD leaves all other weights where they are. But they could move a little and make up for the loss.
# Which move is best? Ask for the $\delta$ of least $\frac12 \delta^\top H \delta$ among all that set
# weight $q$ to zero:
#
# $$\min_\delta \tfrac12 \delta^\top H \delta \quad \text{subject to} \quad \delta_q = -w_q .$$
#
# One constraint, one Lagrange multiplier $\mu$. Set the derivative of $\frac12\delta^\top H\delta +
# \mu(\delta_q + w_q)$ to zero:
#
# $$H\delta + \mu e_q = 0 \;\Rightarrow\; \delta = -\mu H^{-1} e_q ; \qquad
# \delta_q = -\mu [H^{-1}]_{qq} = -w_q \;\Rightarrow\; \mu = \frac{w_q}{[H^{-1}]_{qq}} .$$
#
# So the move, and what it costs, are
#
# $$\delta = -\frac{w_q}{[H^{-1}]_{qq}} H^{-1} e_q , \qquad
# \tfrac12 \delta^\top H \delta = \frac{w_q^2}{2\,[H^{-1}]_{qq}} .$$
#
# This is **Optimal Brain Surgeon**, OBS (Hassibi and Stork, 1992). Beside OBD's $\frac12 h_q w_q^2$
# stands $1/[H^{-1}]_{qq}$ in the place of $h_q$. If $H$ is positive definite, it is never larger, since
# OBD's move $-w_q e_q$ is one of those among which OBS chooses, and much smaller where other weights can
# take over. Whoever has no choice but OBD pays the full price; OBS pays what is left after help.
#
# Then the next weight. May the same formula be used again, though the weights have moved? After the move
# the gradient is $H\delta = -\mu e_q$: zero for every weight that stays. So we stand at a minimum again,
# that of the problem without $q$, and the costs add up.
#
# The next move must leave weight $q$ alone, so $q$ has to leave the problem. In $H$ you would cross out
# row and column $q$. What becomes of the inverse? Put $q$ last and write both in blocks:
#
# $$H = \begin{pmatrix} A & b \\ b^\top & c \end{pmatrix}, \qquad
# H^{-1} = \begin{pmatrix} B & u \\ u^\top & v \end{pmatrix} .$$
#
# The upper blocks of $H H^{-1} = 1$ say $AB + b u^\top = 1$ and $Au + bv = 0$. The second gives $b =
# -Au/v$; put into the first, $A\,(B - u u^\top / v) = 1$. So $A^{-1} = B - uu^\top/v$. For all rows and
# columns at once that is a change of rank one, a step of Gauss's elimination:
#
# $$H^{-1} \leftarrow H^{-1} - \frac{H^{-1} e_q\, e_q^\top H^{-1}}{[H^{-1}]_{qq}} .$$
#
# No second inversion: not as long as you trust the first $H$. (The paper computes $H$ anew after each
# removal.)
#
# ## Exercise 4: one step of the surgeon


# %% exercise="obs_step"
def obs_step(
    weight: torch.Tensor, inverse: torch.Tensor, index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, inverse) after weight `index` went and the others moved to make up for it.

    weight (I,); inverse (I, I) is the inverse Hessian, with zeros in the rows and columns of
    weights that went before. In the result, the weight that went is exactly 0, and so are its row
    and column of the inverse, which is that of the Hessian without it. Both are in the inputs'
    dtype; the inputs stay as they are.
    """
    ### BEGIN SOLUTION
    column = inverse[:, index] / inverse[index, index]
    weight = weight - weight[index] * column
    inverse = inverse - torch.outer(column, inverse[index])
    weight[index] = 0
    inverse[index] = inverse[:, index] = 0
    return weight, inverse
    ### END SOLUTION


# %% check="obs_step" points=2
check(obs_step)

# %% [markdown]
# Now the race on the 208 weights: one Hessian, inverted once. It is that of $J$, $H + \lambda I$: we
# stand at the minimum of $J$, and this matrix is positive definite. Your step removes weight after
# weight. Beside it, without repair: random, magnitude, OBD. But OBS does two things that OBD does not.
# It repairs, and it *asks again* after each removal. To tell them apart there is one more: after each
# removal ask the whole formula of section 2, interactions included, which weight is cheapest *now*, and
# repair nothing.
#
# **Guess before you run:** take out 140 of the 208 weights, two thirds, with no training afterwards. The
# dense network reads 91 % of the test images. OBD is left with four in ten. And OBS?

# %% tags=["nbval-ignore-output"]
step_out = yours("obs_step")
H_J = H + PRICE * torch.eye(208, dtype=w.dtype)
moved_w, inverse, order, repaired = w, damped_inverse(H_J), [], {0: w}
for count in range(1, 161):
    q = int(obs_saliency(moved_w, inverse).argmin())
    moved_w, inverse = step_out(moved_w, inverse, q)
    order.append(q)
    repaired[count] = moved_w
asked, left_w = [], w.clone()  # asks again, repairs nothing
for _ in range(160):
    slope = H_J @ (left_w - w)  # the formula's gradient where we stand now
    costs = -slope * left_w + saliency(left_w, H_J.diagonal())
    costs[asked] = torch.inf
    asked.append(int(costs.argmin()))
    left_w[asked[-1]] = 0
dice = torch.Generator().manual_seed(0)
orders = {
    "random": torch.randperm(208, generator=dice),
    "magnitude": w.abs().argsort(),
    "OBD": saliency(w, H_J.diagonal()).argsort(),
    "asked again": torch.tensor(asked),
    "OBS": torch.tensor(order),
}


def cut(order: torch.Tensor, count: int) -> torch.Tensor:
    """w with the first `count` weights of an order set to zero, the others as they were."""
    return w.index_fill(0, order[:count], 0)


counts = range(0, 161, 10)
lines = {name: [right(cut(order, c)) for c in counts] for name, order in orders.items()}
lines["OBS, without its repair"] = lines.pop("OBS")
lines["OBS"] = [right(repaired[c]) for c in counts]

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure behind a guess: accuracy as weights go
at_140 = {name: line[14] for name, line in lines.items()}
assert at_140["OBS"] > 80 and 30 < at_140["OBD"] < 55 and at_140["magnitude"] < 65
assert (
    at_140["OBS, without its repair"] < at_140["OBS"] - 12
    and lines["OBS"][10] > lines["OBS"][0] - 3
)
assert at_140["OBD"] + 14 < at_140["asked again"] < at_140["OBS"] - 14
figure, (axes,) = new_figure()
colours = (BLACK, BLUE, ORANGE, PURPLE, SKY, GREEN)
for (name, line), colour in zip(lines.items(), colours, strict=True):
    axes.plot(counts, line, "o-", color=colour, markersize=3, label=name)
axes.set(xlabel="weights removed, of 208", ylabel="test accuracy (%)", ylim=(0, 100))
axes.set_title("One inverse Hessian repairs what none of these choices saves")
axes.legend(frameon=False)
predict(
    "140 of 208 weights gone, no training: what does OBS read?",
    ["about 45 %", "about 60 %", "about 75 %", "more than 80 %"],
    f"more than 80 %: {at_140['OBS']:.0f} %",
    Picture(
        figure,
        "Accuracy against weights removed: random falls at once, magnitude from about 50 weights on, OBD, "
        "OBS without repair and the formula asked again from about 100; OBS stays near 90 % until 120 and "
        "above 80 % at 140.",
    ),
)

# %% [markdown]
# Both count. To ask again is worth about twenty points here, and to repair as well another twenty:
# OBS's own choice without its repair is no better than the other that asks again. But is a network after
# pruning not trained again anyway, and would training not do the same? Let us train, all weights that
# are left and the biases, to a minimum, from each of the choices; from three random ones, as one draw may
# be lucky.
#
# **Guess before you run:** after training, is OBD's choice better than magnitude's? Than a random one?

# %% tags=["nbval-ignore-output"] slide=True
after_training = {}
draws = {f"random {i}": torch.randperm(208, generator=dice) for i in (2, 3)}
for name, order in (orders | draws).items():
    stays = torch.ones_like(w).index_fill(0, order[:140], 0)
    begin = repaired[140] if name == "OBS" else w * stays
    free = begin.clone().requires_grad_()
    biases = {n: p.clone().requires_grad_() for n, p in network.named_parameters() if "bias" in n}

    def loss(free=free, stays=stays, biases=biases):
        tensors = by_name(free * stays) | biases
        return F.cross_entropy(functional_call(network, tensors, (pixels,)), labels)

    minimise(loss, [free, *biases.values()], 200)
    after_training[name] = float(loss().detach())
    print(f"{name:12} loss {L(begin):.2f}, trained again {after_training[name]:.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert after_training["OBS"] < after_training["magnitude"] - 0.03
assert abs(after_training["asked again"] - after_training["magnitude"]) < 0.15
assert after_training["OBD"] > after_training["magnitude"] + 0.15
assert after_training["OBD"] > after_training["random"] - 0.25
assert float(L(repaired[140])) < after_training["magnitude"] + 0.08

# %% [markdown]
# OBD's choice, the best by a wide margin for one weight, is here about as bad as a random one for 140,
# even after training. Each of these weights was cheap alone, while its neighbours stood; together they
# were not. Magnitude, which knows less, did less harm. (In fairness: LeCun's group removes some, trains,
# and computes $h$ anew.) Ask OBD's question again after each removal, and its choice is as good as
# magnitude's. OBS is best before and after; its repair alone, with no training, comes about as far as
# training comes from the magnitudes' choice.
#
# ### Why it scales
#
# OBS needs the inverse of a $P \times P$ matrix. Too much for a network, but look at one linear layer by
# itself. Let its inputs on $N$ tokens be the rows of $X$, and ask that each output $Xw$ stay what it
# was. The loss is $\frac1N\|X(w + \delta) - Xw\|_2^2$: least squares, with no dots, $g = 0$ exactly, and
# $H = \frac2N X^\top X$, which is the same for every output. Then OBS's repair is *exact*: what stays is
# least squares on the inputs that stay. (And OBD's $\frac12 h_q w_q^2$ is $w_q^2$ times the mean square
# of its input: a score that chapter 11 will meet as Wanda.) Try it on one matrix of TinyLM, 192 inputs,
# 512 outputs, on 4,096 training tokens; judge it on other windows of that text, which were not used for
# $H$. The output error is squared, as a share of the outputs' squares.

# %% tags=["nbval-ignore-output"]
tiny, tokenizer = pretrained.tiny()
tiny.to(device)
chapters = split(bible_chapters("kjv"))[0].split("\n\n")[::8]
tokens = torch.tensor(tokenizer.encode("\n\n".join(chapters)).ids, device=device)
dice = torch.Generator().manual_seed(0)
inputs, targets = consecutive_windows(tokens, 128)  # no token is in two of them
drawn = torch.randperm(len(inputs), generator=dice)[:64].tolist()
windows = [(inputs[i : i + 1], targets[i : i + 1]) for i in drawn]
layer = tiny.blocks[0].mlp.up
seen, unseen = (
    record_inputs(tiny, torch.cat([x for x, _ in part]), [layer])[0]
    for part in (windows[:32], windows[32:])
)
hessian, dense_bits = layer_hessian(seen), tiny_quality(tiny, tokenizer).bits_per_byte


def rows_kept(scores: torch.Tensor, density: float) -> torch.Tensor:
    """The layer's weights with the same share kept in each row."""
    by_row = {str(i): score for i, score in enumerate(scores)}
    return layer.weight * torch.stack(
        list(masks_by_score(by_row, density, per_layer=True).values())
    )


one_layer = {}
print("share kept                       output error   bits per byte")
for density in (0.5, 0.2):
    pruned_layers = {
        "magnitude": rows_kept(magnitude(layer.weight), density),
        "OBD": rows_kept(
            saliency(layer.weight, hessian.diagonal().float().expand(512, 192)), density
        ),
        "OBS": obs_prune(layer.weight, hessian, density, damping=0.01),
    }
    for name, weight in pruned_layers.items():
        error = F.linear(unseen, weight - layer.weight).square().sum()
        error = float(error / F.linear(unseen, layer.weight).square().sum())
        model = copy.deepcopy(tiny)
        model.blocks[0].mlp.up.weight.data.copy_(weight)
        one_layer[density, name] = (
            error,
            tiny_quality(model, tokenizer).bits_per_byte - dense_bits,
        )
        print(f"{100 * density:10.0f} %  {name:18}{100 * error:12.1f} %", end="")
        print(f"{dense_bits:10.3f} + {one_layer[density, name][1]:.3f}")

# %% tags=["collapsed"]
# Does it hold here?
assert one_layer[0.5, "OBS"][0] < 0.11 * one_layer[0.5, "magnitude"][0]
assert one_layer[0.2, "OBS"][0] < 0.35 * one_layer[0.2, "magnitude"][0]
assert one_layer[0.2, "OBS"][1] < 0.3 * one_layer[0.2, "magnitude"][1]
assert abs(one_layer[0.2, "OBD"][0] / one_layer[0.2, "magnitude"][0] - 1) < 0.15

# %% [markdown]
# Which weights go hardly matters here: OBD's choice is hardly better than magnitude's. That the others
# move matters a lot. At half of the weights the repaired layer errs a tenth as much, on tokens that the
# repair has not seen. The inputs of a language model's layers hang together, so they can stand in for one
# another. (The `damping` adds a little to the diagonal of $H$, in case some inputs say nothing new.)
# SparseGPT, in chapter 11, is this step in one fixed order of the inputs, and so fast enough for billions
# of weights.
#
# **Pause.** Here the first sitting ends. What you have so far is what one weight costs, and what repair
# is worth; the rest is about real networks.
#
# ## 4. All scores, real networks
#
# Back to scores without repair. Take TinyLM, and the three digits networks of chapter 02
# (64-300-100-10). Every score but one gets the same data: 32 windows of 128 tokens, for the digits the
# training images. One pass forward and back gives $g$ and Fisher's $h$ together (`collect_evidence`). An
# example $n$ is now a window, so $g^{(n)}$ is the gradient of a mean over 128 tokens. Hutchinson's
# estimator gets an eighth of the data, four of the windows, and 8 probes; that is at least twice as many
# passes. It comes twice, with its sign and without.
#
# One more score joins: **signed** Taylor, $-g_q w_q$. Where it is negative, it promises that the loss
# *falls* without the weight. So let those weights go first whose removal is promised to make the model
# better. Everybody else drops the sign. Why?
#
# **Guess before you run:** remove the tenth of TinyLM's weights that is promised to improve it most.
# What happens?


# %% tags=["nbval-ignore-output"]
def mean_size(model: nn.Module, batches: list, loss) -> dict[str, torch.Tensor]:
    """Mean over batches of |g|, by name: the sign goes first."""
    total: dict[str, torch.Tensor] = {}
    for batch in batches:
        for name, g in collect_evidence(model, [batch], loss).gradient.items():
            total[name] = total.get(name, 0) + g.abs() / len(batches)
    return total


evidence = collect_evidence(tiny, windows[:32], next_token_loss)
sizes_of_g = mean_size(tiny, windows[:32], next_token_loss)
layers = {name: w.detach() for name, w in prunable_weights(tiny).items()}
few = tuple(torch.cat(part) for part in zip(*windows[:4], strict=True))


def language_loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return next_token_loss(lambda inputs: functional_call(tiny, weights, (inputs,)), few)


dice = torch.Generator().manual_seed(0)
curvature = estimated_diagonal(language_loss, layers, 8, dice)
fisher, gradients = evidence.squared, evidence.gradient
tiny_scores = {
    "random": {n: random_scores(w, dice) for n, w in layers.items()},
    "magnitude": {n: magnitude(w) for n, w in layers.items()},
    "gradient": {n: gradient_magnitude(gradients[n]) for n in layers},
    "Taylor": {n: taylor(w, gradients[n]) for n, w in layers.items()},
    "Taylor by window": {n: taylor(w, sizes_of_g[n]) for n, w in layers.items()},
    "OBD, Fisher": {n: saliency(w, fisher[n]) for n, w in layers.items()},
    "OBD, Hutchinson": {n: saliency(w, curvature[n]) for n, w in layers.items()},
    "OBD, |Hutchinson|": {n: saliency(w, curvature[n].abs()) for n, w in layers.items()},
    "signed Taylor": {n: -gradients[n] * w for n, w in layers.items()},
}


# %% tags=["nbval-ignore-output"] slide=True
def bits(masks: dict[str, torch.Tensor]) -> float:
    """Held-out bits per byte of TinyLM under masks."""
    model = copy.deepcopy(tiny)
    apply_masks({n: w.detach() for n, w in prunable_weights(model).items()}, masks)
    return tiny_quality(model, tokenizer).bits_per_byte


shares_left, tiny_lines = (0.9, 0.7, 0.5), {}
contest = [(name, False) for name in tiny_scores]
contest += [(name, True) for name in ("magnitude", "Taylor", "OBD, Fisher")]
for name, per_layer in watch(contest, "scores"):
    tiny_lines[name, per_layer] = [
        bits(masks_by_score(tiny_scores[name], share, per_layer)) for share in shares_left
    ]

print(f"TinyLM, dense {dense_bits:.2f} bits per byte      90 %    70 %    50 % of the weights left")
for (name, per_layer), line in tiny_lines.items():
    where = "per layer" if per_layer else "global"
    print(f"{name:18}{where:18}" + "".join(f"{value:8.2f}" for value in line))

# %% [markdown]
# Read the last line of the global ones first. The tenth of the weights whose removal was promised to
# *lower* the loss most: the model is worse than guessing, which needs 3.2 bits per byte (chapter 00).
# Three weights in ten, thrown out at random, do less harm. All these weights push the same way. Each
# alone goes a little downhill; together they are one giant step, and there the straight line has long
# left the loss. Hutchinson's estimate with its sign is in like trouble. It is right on average, but half
# of its $h$ come out negative, mostly by chance (of 250 weights drawn at random and computed one by one,
# 48 have a negative $h$ on these four windows: a fifth), and the lowest go: **a ranking picks an
# estimator's worst errors first.** Without the sign it comes back to life, but not as far as magnitude.
#
# Magnitude, which costs nothing, beats all of these. Only two scores beat it, and they tie: Taylor window
# by window, and OBD with Fisher's $h$; and the more is removed, the more they do. At half of the weights
# they need 1.29 bits per byte, globally; magnitude in its better setting, per layer, 1.33.
#
# Now the digits, where everything is so easy. **Guess:** the same winner?

# %%
data = Digits(*(part.to(device) for part in data))
networks, starts = [], []
for seed in range(3):
    torch.manual_seed(seed)
    networks.append(DigitsMLP().to(device))
    starts.append(copy.deepcopy(networks[-1].state_dict()))  # step 0, for section 6
    train_digits(networks[-1], data, seed=seed)
examples = [(x[None], y[None]) for x, y in zip(data.train_images, data.train_labels, strict=True)]


def test_accuracy(model: nn.Module) -> float:
    return 100 * accuracy(model, data.test_images, data.test_labels)


def image_loss(model: nn.Module, one: tuple) -> torch.Tensor:
    return cross_entropy(model, *one)


def digit_scores(model: nn.Module, seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """Scores of a digits network from the training images, one by one."""
    found, sizes = (f(model, examples, image_loss) for f in (collect_evidence, mean_size))
    layers = {name: w.detach() for name, w in prunable_weights(model).items()}
    dice = torch.Generator().manual_seed(seed)
    return {
        "random": {n: random_scores(w, dice) for n, w in layers.items()},
        "magnitude": {n: magnitude(w) for n, w in layers.items()},
        "gradient": {n: gradient_magnitude(found.gradient[n]) for n in layers},
        "Taylor": {n: taylor(w, found.gradient[n]) for n, w in layers.items()},
        "Taylor by image": {n: taylor(w, sizes[n]) for n, w in layers.items()},
        "OBD, Fisher": {n: saliency(w, found.squared[n]) for n, w in layers.items()},
    }


def pruned(model: nn.Module, masks: dict[str, torch.Tensor]) -> nn.Module:
    model = copy.deepcopy(model)
    apply_masks({n: w.detach() for n, w in prunable_weights(model).items()}, masks)
    return model


digit_shares, digit_lines = (0.5, 0.3, 0.2, 0.1), {}
every = [digit_scores(model, seed) for seed, model in enumerate(networks)]
for name in every[0]:
    for per_layer in (False, True):
        digit_lines[name, per_layer] = [
            sum(
                test_accuracy(pruned(model, masks_by_score(scored[name], share, per_layer)))
                for model, scored in zip(networks, every, strict=True)
            ) / 3
            for share in digit_shares
        ]  # fmt: skip
dense_accuracy = sum(map(test_accuracy, networks)) / 3

# To explain and not to choose: Fisher's h from images that the networks have not learned, the test's
others = [(x[None], y[None]) for x, y in zip(data.test_images, data.test_labels, strict=True)]
unlearned = []
for model in networks:
    found_there, layers_there = collect_evidence(model, others, image_loss), prunable_weights(model)
    scored = {n: saliency(w, found_there.squared[n]) for n, w in layers_there.items()}
    unlearned.append(test_accuracy(pruned(model, masks_by_score(scored, 0.2))))
unlearned_accuracy = sum(unlearned) / 3

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Does it hold here? And a figure behind a guess: two networks, two winners
fisher_line, magnitude_line = tiny_lines["OBD, Fisher", False], tiny_lines["magnitude", False]
assert fisher_line[2] < magnitude_line[2] - 0.05 and abs(fisher_line[0] - magnitude_line[0]) < 0.01
best_magnitude = min(magnitude_line[2], tiny_lines["magnitude", True][2])
assert fisher_line[2] < best_magnitude - 0.02
assert tiny_lines["signed Taylor", False][0] > max(3.2, tiny_lines["random", False][1] + 0.3)
guessing = tiny_quality(tiny, tokenizer)
assert 3.1 < guessing.tokens * 11 / guessing.bytes < 3.2
negative = sum(int((c < 0).sum()) for c in curvature.values()) / 1_572_864
assert 0.4 < negative < 0.55
assert tiny_lines["OBD, Hutchinson", False][0] > magnitude_line[0] + 0.1
assert magnitude_line[2] + 0.02 < tiny_lines["OBD, |Hutchinson|", False][2] < 1.7
assert abs(tiny_lines["Taylor by window", False][2] - fisher_line[2]) < 0.03
assert tiny_lines["OBD, Fisher", True][2] > fisher_line[2] + 0.01
assert all(tiny_lines[n, False][2] > magnitude_line[2] + 0.2 for n in ("Taylor", "gradient"))
assert digit_lines["magnitude", False][2] > digit_lines["OBD, Fisher", False][2] + 8
assert abs(digit_lines["Taylor by image", False][2] - digit_lines["OBD, Fisher", False][2]) < 10
halfway = (digit_lines["OBD, Fisher", False][2] + digit_lines["magnitude", False][2]) / 2
assert halfway < unlearned_accuracy < digit_lines["magnitude", False][2] - 2
assert all(
    digit_lines[n, p][2] < 50 for n in ("Taylor", "gradient", "random") for p in (False, True)
)

with torch.no_grad():
    memorised = [float(cross_entropy(m, data.train_images, data.train_labels)) for m in networks]
assert max(memorised) < 0.01
figure, (left, right_side) = new_figure(columns=2, height=4)
for (name, per_layer), line in digit_lines.items():
    colour = dict(zip(every[0], (BLACK, BLUE, PURPLE, RED, SKY, GREEN), strict=True))[name]
    style, there = "o--" if per_layer else "o-", name.replace("image", "window")
    left.plot([100 - 100 * s for s in digit_shares], line, style, color=colour, markersize=3)
    if (there, per_layer) in tiny_lines:
        right_side.plot(
            [100 - 100 * s for s in shares_left],
            tiny_lines[there, per_layer],
            style,
            color=colour,
            markersize=3,
            label=None if per_layer else name.replace("image", "example"),
        )
left.set(
    xlabel="weights set to zero (%)", ylabel="test accuracy (%)", title="Digits: magnitude wins"
)
right_side.set(
    xlabel="weights set to zero (%)",
    ylabel="bits per byte (cut at 2.1)",
    ylim=(1.1, 2.1),
)
right_side.set(title="TinyLM: Fisher wins, Taylor level")
names = right_side.get_legend_handles_labels()
figure.legend(*names, loc="outside lower center", ncols=6, frameon=False, columnspacing=1)
figure.suptitle("Two networks, two winners (dashed: a budget for each layer)")
predict(
    "Digits with two weights in ten left: which score is best?",
    ["OBD with Fisher's h, as for TinyLM", "magnitude", "Taylor", "they tie"],
    f"magnitude, {digit_lines['magnitude', False][2]:.0f} %; Fisher {digit_lines['OBD, Fisher', False][2]:.0f} %, "
    f"Taylor {digit_lines['Taylor', False][2]:.0f} %, random {digit_lines['random', False][2]:.0f} %. "
    f"With the test images, Fisher's h gives {unlearned_accuracy:.0f} %",
    Picture(
        figure,
        "Digits: accuracy against zeros, magnitude highest, then Fisher and Taylor by image together, far "
        "below them Taylor, gradient and random. TinyLM: bits per byte, Fisher and Taylor by window "
        "global lowest, then magnitude per layer and global, far above them Taylor, gradient and random.",
    ),
)

# %% [markdown]
# Not the same winner. The digits networks know their 1257 training images almost by heart: the mean loss
# is below 0.01, so nearly every $g^{(n)}$ is near zero, and the squared gradients are those of the few
# images that are still doubtful. A score that is measured on what a network has memorised says what
# *those few* images need. Measured on the test images, for once, Fisher's $h$ makes good most of what it
# lacks, though not all of it. TinyLM, with a million tokens of text, is far from zero loss, and there it
# works. Taylor from the mean gradient does badly on both.
#
# So by what score does a weight go? What we have seen says: start with magnitude. If you have data that
# the model has not memorised, take OBD with Fisher's $h$ or Taylor example by example, one pass,
# globally. If you can afford the inverse of a layer's $H$, repair. The rest are there to be known.
#
# ### Whose budget?
#
# Global or per layer is a question about budgets, and there is an honest way to answer it:
# **sensitivity**. Prune each layer alone, to several densities, and measure the loss (Han, Pool, Tran,
# Dally, 2015). On *training* text: the held-out text must not choose. Then give each layer the density
# at which the sum of the losses is least and the budget is kept. S2's *adaptive pruning*, of which it
# says only that the strategy adjusts itself, can be read like this.
#
# ## Exercise 5: split the budget


# %% exercise="split_budget"
def split_budget(losses: torch.Tensor, kept: torch.Tensor, budget: int) -> torch.Tensor:
    """The choice s of each layer, int64 (L,): least Σ losses[l, s_l] with Σ kept[l, s_l] ≤ budget.

    losses (L, S), float: by how much the loss rose when layer l alone was pruned by choice s (noise
    may make it negative). kept (L, S), int64: how many weights that leaves. The choices of a layer
    are in no order, and there are at most 5000 combinations, so you may try all. One of them fits.
    """
    ### BEGIN SOLUTION
    prices, counts = losses.tolist(), kept.tolist()

    def total(table, some):
        return sum(row[s] for row, s in zip(table, some, strict=True))

    every = itertools.product(range(losses.shape[1]), repeat=losses.shape[0])
    fitting = [some for some in every if total(counts, some) <= budget]
    best = min(fitting, key=lambda some: total(prices, some))
    return torch.tensor(best, device=losses.device)
    ### END SOLUTION


# %% check="split_budget" points=2
check(split_budget)

# %% [markdown]
# TinyLM has 28 matrices. With five densities each that is $5^{28}$ combinations; the library finds the
# best one by dynamic programming, on 112 measurements. That takes for granted that the losses of
# matrices add up. A coarser way: prune each of the four *blocks* as a whole, all its matrices alike.
# That is 16 measurements, and $5^4$ combinations, which your function can try.
#
# **Guess before you run:** which split is better, the fine one or the coarse one? And is it worth the
# trouble?

# %% tags=["nbval-ignore-output"] slide=True
split_mine = yours("split_budget")
choices, sizes = [1.0, 0.7, 0.5, 0.3, 0.2], {name: w.numel() for name, w in layers.items()}


@torch.no_grad()
def calibration_loss(model: nn.Module) -> float:
    return float(next_token_loss(model, few))


def at_densities(densities: dict[str, float]) -> dict[str, torch.Tensor]:
    return masks_at(tiny_scores["magnitude"], densities)


alone = sensitivity(tiny, choices[1:], calibration_loss, tiny_scores["magnitude"])
fine = torch.cat([torch.zeros(28, 1).double(), alone.increases], dim=1)  # dense costs nothing
blocks = [[name for name in layers if name.startswith(f"blocks.{b}.")] for b in range(4)]
coarse = torch.zeros(4, 5)
for b, names in enumerate(blocks):
    for c, density in enumerate(choices[1:], start=1):
        model = pruned(tiny, at_densities(dict.fromkeys(names, density)))
        coarse[b, c] = calibration_loss(model) - alone.dense
kept = torch.tensor(
    [[sum(round(d * sizes[n]) for n in names) for d in choices] for names in blocks]
)

split_bits = {}
print("share kept   one budget   all the same   split by matrix   split by block")
for share in (0.5, 0.3):
    by_matrix = dict(zip(layers, exact_split(fine, alone.sizes, choices, share), strict=True))
    mine = split_mine(coarse, kept, round(share * 1_572_864)).tolist()
    by_block = {name: choices[c] for names, c in zip(blocks, mine, strict=True) for name in names}
    split_bits[share] = [
        bits(masks_by_score(tiny_scores["magnitude"], share)),
        bits(masks_by_score(tiny_scores["magnitude"], share, per_layer=True)),
        bits(at_densities(by_matrix)),
        bits(at_densities(by_block)),
    ]
    print(f"{100 * share:8.0f} %" + "".join(f"{value:15.2f}" for value in split_bits[share]))
    print(f"             the blocks keep {[choices[c] for c in mine]}")
sums = fine.view(4, 7, 5).sum(1)  # (28, 5) -> (4, 7, 5) -> (4, 5)
print(
    f"block 0 at 20 %: its matrices alone add up to {sums[0, 4]:.1f} nats, together {coarse[0, 4]:.1f}"
)

# %% tags=["collapsed"]
# Does it hold here?
assert all(row[3] < row[1] - 0.01 and row[2] < row[1] for row in split_bits.values())
assert max(split_bits[0.3][2:]) < split_bits[0.3][1] - 0.25
assert abs(split_bits[0.3][2] - split_bits[0.3][3]) < 0.12
assert coarse[0, 4] > 1.6 * sums[0, 4] and coarse[0, 4] > 4 * coarse[1:, 4].max()

# %% [markdown]
# It is worth it: at three weights in ten, three to four tenths of a bit per byte beside pruning all alike.
# But the two splits come out about the same, though the coarse one had a seventh of the measurements to
# make. (Which one is ahead by a few hundredths changes with the windows that one measures on.) The fine
# one has far more to choose from, and rests on a wrong sum. Damage within block 0 does not add up, it
# compounds: see the last line. The coarse one has measured just that. **Measure what you are going to
# do.**
#
# ## 5. All at once, or little by little?
#
# A score says what a weight costs *now*. When others have gone and training has moved what is left, it
# costs something else. So prune some, train, and score again. Chapter 02 did that in one stroke. The
# classic is **rounds**: cut, train, cut again (Han, Pool, Tran, Dally, 2015). Between rounds, two
# mistakes wait for you: to let a pruned weight back in, and to cut a share of all weights instead of a
# share of those that are left.
#
# ## Exercises 6 and 7: the next round, and a plan that ends at the budget
#
# Exercise 6 is a **repair**. Here is what people write; it looks right in the first round, and in the
# second it is not:
#
#     threshold = torch.cat([w.abs().flatten() for w in weights.values()]).quantile(share)
#     return {name: w.abs() > threshold for name, w in weights.items()}


# %% exercise="next_masks"
def next_masks(
    weights: dict[str, torch.Tensor], masks: dict[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """The masks of the next round, bool by name: True where a weight stays.

    Of the R weights whose mask is True, in all layers together, the round(share · R) of least
    magnitude go (Python's round: 2.5 becomes 2); of equal magnitudes the first stay, in the order
    of the dictionary and of the entries. A weight whose mask is False never returns, even if it is
    not zero.
    """
    ### BEGIN SOLUTION
    kept = torch.cat([masks[name].flatten() for name in weights])
    size = torch.cat([weight.abs().flatten() for weight in weights.values()])
    left = int(kept.sum())
    order = torch.where(kept, size, -torch.inf).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(kept)
    chosen[order[: left - round(share * left)]] = True
    parts = iter(chosen.split([weight.numel() for weight in weights.values()]))
    return {name: next(parts).view_as(weight) for name, weight in weights.items()}
    ### END SOLUTION


# %% check="next_masks" points=2
check(next_masks)


# %% exercise="kept_at_rounds"
def kept_at_rounds(total: int, final: int, rounds: int) -> torch.Tensor:
    """How many of `total` weights stay after each of the rounds, int64 (rounds,).

    Every round keeps the same share of what is left, so after round r (1, 2, …) it is
    total · (final / total)^(r / rounds), rounded to the nearest integer; after the last round it is
    exactly `final`. 1 ≤ final ≤ total, and total may be billions.
    """
    ### BEGIN SOLUTION
    return torch.tensor(
        [round(total * (final / total) ** (r / rounds)) for r in range(1, rounds + 1)]
    )
    ### END SOLUTION


# %% check="kept_at_rounds" points=1
check(kept_at_rounds)

# %% [markdown]
# Rounds may also become so small that there is one after every step: $T$ rounds in $T$ steps. Zhu and
# Gupta (2017) do that, but with other shares. They let the density fall as a **cubic**: with $t$ the
# step, and $\rho$ the final density,
#
# $$\rho(t) = \rho + (1 - \rho)\,(1 - t/T)^3 ,$$
#
# fast while there is much to spare, slowly at the end. Now a fair race, to 5 % of the digits' weights.
# Everybody gets the same 8 epochs, 160 steps, with the same learning rate, which rises and falls once.
# (It was chosen for nobody: it is the one that trained the networks.) The dense network gets them, too.
# Two things can differ, and we vary them one at a time: *how many cuts* there are (one; 8, equally far
# apart; one after every step; the cubic), and *when the last one comes* (after step 40, 80 or 120).
#
# **Guess before you look:** more rounds are better, say the papers. Are they, at equal steps? And what
# hurts more, few cuts or late ones?

# %% tags=["nbval-ignore-output"]
plan_of_rounds = yours("kept_at_rounds")
STEPS, SIZE = 160, sum(w.numel() for w in prunable_weights(networks[0]).values())
FINAL = round(0.05 * SIZE)


def in_rounds(rounds: int, last: int):
    """Density at a step: cuts after steps last / rounds, 2 · last / rounds, …, last."""
    kept = [SIZE, *plan_of_rounds(SIZE, FINAL, rounds).tolist()]
    return lambda step: kept[min(step * rounds // last, rounds)] / SIZE


plans = {
    "one cut": lambda last: in_rounds(1, last),
    "8 cuts": lambda last: in_rounds(8, last),
    "every step": lambda last: in_rounds(last, last),
    "cubic": lambda last: lambda step: cubic_density(step, 0, last, FINAL / SIZE),
}


def trained_on(density_at) -> list[float]:
    """Test accuracies of the three networks after 160 more steps under a plan."""
    accuracies = []
    for seed, model in enumerate(copy.deepcopy(networks)):
        cut_here = prunable_weights(model)
        train_digits(
            model, data, epochs=8, seed=10 + seed,
            prepare=lambda opt, parts=cut_here: follow_density(opt, parts, density_at),
        )  # fmt: skip
        left_here = sum(int((w != 0).sum()) for w in cut_here.values())
        assert left_here <= FINAL or density_at(STEPS) == 1
        accuracies.append(test_accuracy(model))
    return accuracies


lasts = (40, 80, 120)
race = {(name, last): plans[name](last) for name in plans for last in lasts}
race |= {("one cut", 0): lambda step: FINAL / SIZE, ("dense", 0): lambda step: 1.0}
finish = {plan: trained_on(at) for plan, at in watch(race.items(), "plans")}
mean = {plan: sum(values) / 3 for plan, values in finish.items()}
print("last cut after step      0     40     80    120")
for name in plans:
    line = [
        f"{mean[name, last]:7.1f}" if (name, last) in mean else "      –" for last in (0, *lasts)
    ]
    print(f"{name:18}" + "".join(line))
print(f"dense, no cut     {mean['dense', 0]:7.1f}")

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Does it hold here? And a figure behind a guess: when the weights go
for last in lasts:
    assert mean["8 cuts", last] > mean["one cut", last] + 1.2
    assert min(mean["every step", last], mean["cubic", last]) > 95
    assert abs(mean["every step", last] - mean["cubic", last]) < 1.5
assert mean["one cut", 0] > mean["one cut", 80] + 8 and mean["one cut", 120] < 55
assert mean["8 cuts", 40] > mean["one cut", 0] + 1 and mean["8 cuts", 120] < mean["one cut", 0] - 15
assert mean["every step", 80] > mean["8 cuts", 80] + 3 and mean["dense", 0] < mean["cubic", 80] + 2

figure, (left, right_side) = new_figure(columns=2, height=3.6)
for name, colour in zip(plans, (ORANGE, RED, SKY, GREEN), strict=True):
    left.semilogy([100 * race[name, 80](s) for s in range(STEPS + 1)], color=colour, label=name)
    places = [last for last in (0, *lasts) if (name, last) in mean]
    right_side.plot(places, [mean[name, last] for last in places], "-", color=colour)
    for last in places:
        right_side.plot([last] * 3, finish[name, last], "o", color=colour, markersize=3)
right_side.axhline(mean["dense", 0], color=BLACK, linewidth=0.8)
right_side.text(0, mean["dense", 0] + 1, "dense, trained as long", fontsize=8)
left.set(xlabel="step", ylabel="weights left (%)", title="Four plans that end after step 80")
left.legend(frameon=False)
right_side.set(
    xlabel="step of the last cut, of 160", ylabel="test accuracy (%), three seeds", ylim=(25, 105)
)
right_side.set_title("A late cut must be a small one")
predict(
    "5 % of the weights left, the last cut after step 120 of 160: one cut, or one at every step?",
    [
        "both read about 95 %",
        "one cut 85 %, every step 90 %",
        "one cut below 55 %, every step 96 %",
    ],
    f"one cut {mean['one cut', 120]:.0f} %, every step {mean['every step', 120]:.0f} %",
    Picture(
        figure,
        "Left: density against step for four plans. Right: accuracy against the step of the last cut: one "
        "cut falls from 94 to below 40, 8 cuts from 96 to about 60, every step and the cubic stay at 96.",
    ),
)

# %% [markdown] slide="6. The lottery"
# Read the table by columns: among plans that end together, more cuts are better. The papers are right.
# Read it by rows: one cut at step 120 is ruin, and 8 cuts that end there lose to a single one before the
# first step. **What counts is how large a cut is, and how many steps are left after it.** The last of 8
# cuts takes a third of what is left, and 40 steps at a falling rate do not heal that; cuts of every step
# are so small that there is hardly anything to heal. The cubic's *shape* does nothing here: equal shares
# at every step do as well. (Had we compared 8 late cuts with one early cut, and nothing else, we should
# have written that rounds do harm.) Papers that praise rounds train to the end after each: they pay for
# it in steps. Blalock et al. (2020) read 81 papers and found that they can hardly be compared: other
# networks, other data, other training. Now you know how to look.
#
# (One score lives on the training itself: **movement** (Sanh, Wolf, Rush, 2020), $S_q = -\sum_t
# g_q^{(t)} w_q^{(t)}$ over the steps $t$. A weight that training pushes away from zero gains; one that
# is pushed towards zero loses, however large it is. `collect_movement` in the library keeps the count.
# It is made for fine-tuning a pretrained model to a new task, where magnitudes tell of the old one.)
#
# ## 6. The lottery ticket
#
# Pruned networks are small, and good. So why not train the small one from the beginning? Because it
# would not get there, said experience. Frankle and Carbin (2019) found an exception. Train, prune, and
# **rewind**: put the weights that are left back to where they were at step 0, with the mask kept, and
# train again. Such a *winning ticket*, they found, gets as far as the whole network did. It was there from
# the start, they say; the large network is a bag with many tickets. For large networks one has to rewind
# to an early step and not to step 0 (Frankle et al., 2020).
#
# It is a claim about the pair of mask and starting values. So take the pair apart:
#
# * the mask, with starting values drawn **anew**;
# * the starting values, with the mask **shuffled** within each layer;
# * **no mask**: a small dense network with one hidden layer, 64-$m$-10, and as many parameters. This is
#   what Crowley, Turner, Storkey, O'Boyle (2018) asked, of networks whose channels were pruned, in *is it
#   time to nip it in the bud?* (S4 recommends it, with the arXiv number of another paper, Blalock's.)
#
# ## Exercise 8: rewind


# %% exercise="rewind"
def rewind(
    early: dict[str, torch.Tensor], trained: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """All tensors of a network as they were early on, and zero where the mask is False.

    early, trained: the same names, shapes and dtypes, float or integer. masks: bool, True where a
    weight stays, for some of the names. What has no mask (a bias, a buffer) goes back, too. The
    inputs stay as they are.
    """
    ### BEGIN SOLUTION
    rewound = copy.deepcopy(early)
    for name, mask in masks.items():
        rewound[name][~mask] = 0
    return rewound
    ### END SOLUTION


# %% check="rewind" points=1
check(rewind)

# %% [markdown]
# Here is one ticket, live: five rounds, each of which keeps half, down to 3 % of the weights. Every
# training has 20 epochs. We look at it after the fourth round and after the fifth.
#
# **Guess before you run:** put the ticket and its three controls in order.

# %% tags=["nbval-ignore-output"] slide=True
go_back = yours("rewind")
rounds = [0.5, 0.25, 0.125, 0.0625, 0.03125]


def train_under(model: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    """In place: twenty epochs, masks held."""
    train_digits(model, data, prepare=lambda opt: hold_masks(opt, prunable_weights(model), masks))


def fresh(seed: int) -> nn.Module:
    """The network at step 0."""
    torch.manual_seed(seed)
    return DigitsMLP().to(device)


def ticket_and_controls(masks: dict[str, torch.Tensor], winner: nn.Module) -> dict[str, float]:
    """Test accuracies of a trained ticket, and of its three controls after as long a training."""
    anew, moved = fresh(100), fresh(0)
    anew.load_state_dict(go_back(anew.state_dict(), winner.state_dict(), masks))
    shuffled = shuffled_masks(masks, torch.Generator().manual_seed(0))
    moved.load_state_dict(go_back(starts[0], winner.state_dict(), shuffled))
    # as many parameters: 64 · m + m + m · 10 + 10 = weights left + 300 + 100 + 10 biases
    m = round((sum(int(mask.sum()) for mask in masks.values()) + 400) / 75)
    torch.manual_seed(0)
    dense_small = nn.Sequential(nn.Linear(64, m), nn.ReLU(), nn.Linear(m, 10)).to(device)
    for model, held in ((anew, masks), (moved, shuffled), (dense_small, {})):
        train_under(model, held)
    names = ("ticket", "mask, values anew", "values, mask shuffled", "small dense network")
    return dict(zip(names, map(test_accuracy, (winner, anew, moved, dense_small)), strict=True))


found_tickets = list(find_ticket(networks[0], starts[0], watch(rounds, "rounds"), train_under))
sixteenth, last_one = (ticket_and_controls(*found) for found in found_tickets[-2:])
print(
    f"weights left              6 %     3 %     (the whole network: {test_accuracy(networks[0]):.1f})"
)
for name in sixteenth:
    print(f"{name:22}{sixteenth[name]:7.1f}{last_one[name]:8.1f}")

# %% tags=["collapsed"]
# Does it hold here?
assert all(torch.equal(value, starts[0][name]) for name, value in fresh(0).state_dict().items())
assert sixteenth["ticket"] > max(v for n, v in sixteenth.items() if n != "ticket") + 0.4
assert last_one["ticket"] < last_one["small dense network"] + 0.6
assert (
    last_one["values, mask shuffled"] + 3 < last_one["mask, values anew"] < last_one["ticket"] + 0.3
)

# %% [markdown]
# At 6 % the ticket is ahead of all three. At 3 % it has nothing on the small dense network, which has as
# many parameters and needed no search. And one seed is an anecdote. Five seeds, with eleven rounds that
# leave $1/\sqrt2$ each, take two CPU minutes. Here is what they gave, measured on 26 November 2026 (Intel
# Xeon, one thread) by `OMP_NUM_THREADS=1 python -m benchmarks.lottery`: test accuracy in percent after 20
# epochs, mean of five seeds ± their standard deviation. One test image is 0.19.
#
# | weights left | 8.8 % | 4.4 % | 2.2 % |
# |---|---|---|---|
# | ticket, rewound to step 0 | 97.8 ± 0.3 | 97.6 ± 0.4 | 97.0 ± 0.7 |
# | the mask, values drawn anew | 96.8 ± 0.6 | 96.6 ± 0.5 | 94.3 ± 1.5 |
# | the values, mask shuffled | 97.2 ± 0.2 | 94.7 ± 0.5 | 74.6 ± 4.9 |
# | round by round, not rewound | 97.9 ± 0.4 | 97.3 ± 0.5 | 95.0 ± 0.9 |
# | one cut, one more training | 97.9 ± 0.3 | 96.4 ± 0.9 | 83.0 ± 5.3 |
# | small dense network | 97.5 ± 0.3 | 97.1 ± 0.2 | 96.9 ± 0.2 |
# | the whole network | 97.8 ± 0.2 | | |

# %% tags=["collapsed"] slide=True
# The same, drawn, and what all of them can do after 3 epochs (mean and standard deviation)
measured_tickets = {
    "ticket, rewound to step 0": (
        [(97.8, 0.3), (97.6, 0.4), (97.0, 0.7)], [(96.6, 0.6), (95.0, 0.3), (92.6, 2.1)]),
    "ticket, rewound to step 20": (
        [(97.8, 0.2), (97.7, 0.7), (97.2, 0.3)], [(96.3, 0.4), (94.6, 0.9), (92.9, 1.9)]),
    "mask, values anew": (
        [(96.8, 0.6), (96.6, 0.5), (94.3, 1.5)], [(86.2, 1.6), (67.7, 4.6), (56.3, 8.5)]),
    "values, mask shuffled": (
        [(97.2, 0.2), (94.7, 0.5), (74.6, 4.9)], [(78.7, 5.3), (57.0, 6.8), (23.0, 7.5)]),
    "one cut, one more training": (
        [(97.9, 0.3), (96.4, 0.9), (83.0, 5.3)], [(96.3, 0.4), (83.4, 2.5), (37.5, 4.6)]),
    "small dense network": (
        [(97.5, 0.3), (97.1, 0.2), (96.9, 0.2)], [(90.3, 1.0), (87.5, 2.1), (85.0, 1.3)]),
}  # fmt: skip
figure, axes = new_figure(columns=2, height=4.2)
colours = (GREEN, SKY, BLUE, RED, ORANGE, PURPLE)
for (name, both), colour in zip(measured_tickets.items(), colours, strict=True):
    for one, values in zip(axes, both, strict=True):
        centre, spread = map(torch.tensor, zip(*values, strict=True))
        one.plot([8.8, 4.4, 2.2], centre, "o-", color=colour, markersize=3, label=name)
        one.fill_between([8.8, 4.4, 2.2], centre - spread, centre + spread, color=colour, alpha=0.2)
for one, whole_network, epochs in zip(axes, (97.8, 94.7), (20, 3), strict=True):
    one.axhline(whole_network, color=BLACK, linewidth=0.8, label="the whole network")
    one.set_xscale("log", base=2)
    one.set_xticks([8.8, 4.4, 2.2], ["8.8", "4.4", "2.2"])
    one.invert_xaxis()
    one.set(xlabel="weights left (%)", title=f"after {epochs} epochs")
axes[0].set_ylim(70, 100)
axes[0].set_ylabel("test accuracy (%)")
names = axes[0].get_legend_handles_labels()
figure.legend(*names, loc="outside lower center", ncols=3, frameon=False)
Picture(
    figure,
    "Accuracy against weights left, after 20 and after 3 epochs. After 20, tickets and the small dense "
    "network stay above 96.5 %, the shuffled mask and the single cut fall. After 3, the tickets lead.",
)

# %% [markdown] slide="6. The lottery"
# What do you read there?
#
# * **There is such a thing as a ticket.** At 4.4 % it reaches the whole network. The mask alone ends a
#   point lower, the values alone three. At 2.2 % the values alone are lost, and rewinding beats going on
#   from where one is, by two points.
# * **It is above all quick.** After three epochs, at 4.4 %, the ticket is at 95 %: level with the
#   *whole* network at that time, seven points ahead of the small dense one.
# * **Nip it in the bud?** In the end the small dense network is half a point behind at 4.4 %, no more
#   than the spread, and level at 2.2 %. It needs no search (the ticket of the last column cost twelve
#   trainings), no place for each weight in the file, no sparse kernel. (Trained for as many steps as that
#   whole search, it reads 97.1 ± 0.5; the single cut, trained so long, 87.4 ± 3.5.)
# * **One cut is enough for a while.** At 8.8 % nothing beats it by more than the spread. Only further
#   down do the rounds pay.
#
# And what can our size not show? Whether any of this holds for large networks on hard data. There,
# rewinding to step 0 fails, and rewinding to an early step is what works (Frankle et al., 2020). Here
# the two do alike.
#
# ## 7. Sparsity that is not pruning
#
# S2 names two more ways to make parameters sparse: random sparse matrices and a sparse autoencoder. The
# first removes weights and gives them back; the second leaves all weights where they are. Both are worth
# knowing, for what they really do.
#
# ### By chance
#
# S2 §4.1.3 keeps a parameter $p$ "with probability $p$": the value is its own probability. A weight of
# −0.3 has none. Two letters are needed: let the weight $w$ stay with probability $\pi$, whatever $w$ is.
# If it just stays as it is, the mean over many draws is $\pi w$: every draw is too weak. What must stand
# there instead, for the mean to be $w$?
#
# ## Exercise 9: random, and right on average


# %% exercise="sparsify"
def sparsify(weight: torch.Tensor, uniform: torch.Tensor, keep: float) -> torch.Tensor:
    """A random sparse tensor whose mean over many draws is `weight`; of weight's shape and dtype.

    An entry stays where uniform < keep, so with probability `keep` (above 0, at most 1); the others
    are 0. uniform: numbers from 0 to below 1, drawn for you, in the weight's shape. The value is
    there to be differentiated by weight.
    """
    ### BEGIN SOLUTION
    return torch.where(uniform < keep, weight / keep, 0.0)
    ### END SOLUTION


# %% check="sparsify" points=1
check(sparsify)

# %% [markdown]
# As noise in training, drawn anew each time, this is DropConnect (Wan et al., 2013; there the weights
# that stay are not enlarged, which is made up for when training is over). Drawn once and kept, without
# the factor, it is pruning at random: the first line of the tables above.
#
# ### Which units sleep?
#
# A unit that is zero on almost all data could go. Its score is **APoZ**, the average percentage of zeros
# (Hu, Peng, Tai, Tang, 2016), measured batch by batch over a data set. The last batch is smaller. Mind
# it.
#
# ## Exercise 10: APoZ


# %% exercise="average_zeros"
def average_zeros(batches: list[torch.Tensor]) -> torch.Tensor:
    """APoZ of each unit: of its activations in all rows of all batches, the share that is zero.

    batches: each (B, U), of one floating dtype; B differs, and may be 0. Only 0 (and −0.0) counts:
    what is tiny or negative does not (after ReLU, nothing is negative). Returns (U,) in float32.
    """
    ### BEGIN SOLUTION
    zeros = torch.stack([(batch == 0).sum(0) for batch in batches]).sum(0)
    return zeros.div(sum(map(len, batches)))
    ### END SOLUTION


# %% check="average_zeros" points=1
check(average_zeros)

# %% tags=["nbval-ignore-output"]
count_zeros = yours("average_zeros")
first, relu = networks[0][0], networks[0][1]
with torch.no_grad():
    hidden_units = [relu(first(batch)) for batch in data.train_images.split(64)]
measured_products = products(tiny, few[0])
asleep, language = count_zeros(hidden_units), count_zeros(measured_products)
print(f"digits: a hidden unit is zero on {100 * asleep.mean():.0f} % of the images on average;")
print(
    f"        {int((asleep > 0.9).sum())} of {len(asleep)} on more than 90 %, {int((asleep == 1).sum())} on all"
)
print(
    f"TinyLM: a product of its MLP is exactly zero on {100 * language.mean():.0f} % of the tokens"
)

# %% [markdown]
# TinyLM's MLP has no ReLU, so nothing is exactly zero. Its hidden values are products, $a =
# \text{silu}(Gx) \odot Ux$, and the output is $Da$, with $G$, $U$, $D$ the three matrices. But very many
# $a_i$ are *almost* zero: that is **activation sparsity**. Zero all with $|a_i|$ at most a threshold, one
# for each layer, and look at the held-out text. The slider moves the share that goes; the threshold that
# gives it was found on training text.
#
# **Guess before you move it:** how many of the products can go before the model needs 1 % more bits per
# byte?

# %% tags=["nbval-ignore-output"]
shares_gone, sparse_bits = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95), {}
for share in shares_gone:
    thresholds = thresholds_for(measured_products, share, per_layer=True)
    sparse_bits[share] = tiny_quality(
        threshold_activations(tiny, thresholds), tokenizer
    ).bits_per_byte
fixed_bits = {0.0: dense_bits}
for share in (0.3, 0.5):  # the same share, but of the units: the same ones for every token
    model = copy.deepcopy(tiny)
    for block, a in zip(model.blocks, measured_products, strict=True):
        activity = UnitActivity()
        activity.add(a)
        sleepiest = activity.mean().argsort()[: round(share * 512)]
        block.mlp.down.weight.data[:, sleepiest] = 0
    fixed_bits[share] = tiny_quality(model, tokenizer).bits_per_byte
allowed = max(share for share, value in sparse_bits.items() if value < 1.01 * dense_bits)
print("share of products zeroed   each token its own   the same units always")
for share in (0.3, 0.5, 0.8):
    fixed = f"{fixed_bits[share]:.2f}" if share in fixed_bits else "–"
    print(f"{100 * share:22.0f} %{sparse_bits[share]:21.3f}{fixed:>24}")
print(f"within 1 % of dense: up to {100 * allowed:.0f} % of the products")

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure with a slider: the products of TinyLM's MLPs
assert (
    allowed == 0.8
    and sparse_bits[0.8] < 1.009 * dense_bits
    and sparse_bits[0.9] > 1.015 * dense_bits
)
assert sparse_bits[0.5] < dense_bits + 0.004 and fixed_bits[0.5] > magnitude_line[2] + 0.15
assert (
    float(language.max()) == 0 and 0.2 < float(asleep.mean()) < 0.4 and int((asleep == 1).sum()) > 5
)
all_products = torch.cat([a.flatten() for a in measured_products]).abs()
energy = all_products.sort(descending=True).values.square().cumsum(0)
energy = energy / energy[-1]


def draw_products(share_zeroed: float) -> Picture:
    """The products' sizes with the thresholds, and the loss that they cost."""
    thresholds = thresholds_for(measured_products, share_zeroed, per_layer=True)
    figure, (left, right_side) = new_figure(columns=2, height=3.4)
    left.hist(all_products.clamp(min=1e-3).log10().cpu().numpy(), bins=60, color=SKY)
    for threshold in thresholds:
        left.axvline(math.log10(max(threshold, 1e-3)), color=RED, linewidth=1)
    left.set(
        xlabel="log10 of |product| (first bar: all below 0.001)",
        ylabel="how often",
        yticks=[],
        title="red: each layer's threshold",
    )
    right_side.plot(
        [100 * s for s in sparse_bits],
        list(sparse_bits.values()),
        "o-",
        color=BLUE,
        label="each token its own",
    )
    right_side.plot(
        [100 * s for s in fixed_bits],
        list(fixed_bits.values()),
        "s--",
        color=ORANGE,
        label="the same units always",
    )
    right_side.plot(100 * share_zeroed, sparse_bits[share_zeroed], "o", color=RED, markersize=10)
    right_side.set(xlabel="products set to zero (%)", ylabel="bits per byte", ylim=(1.1, 1.75))
    right_side.legend(frameon=False)
    figure.suptitle(
        f"{100 * share_zeroed:.0f} % of the products zeroed: {sparse_bits[share_zeroed]:.3f} bits per byte, dense {dense_bits:.3f}"
    )
    return Picture(
        figure,
        f"Left: histogram of the products' sizes with thresholds; right: bits per byte against the share zeroed, flat up to 80 % if each token chooses, steep for fixed units; {100 * share_zeroed:.0f} % marked.",
    )


assert 0.94 < float(energy[len(energy) // 10]) < 0.99
explore(draw_products, share_zeroed=(list(sparse_bits), 0.8))

# %% [markdown]
# Four of five products may go, and the model hardly notices: a tenth of them carries more than nine
# tenths of the sum of squares. But look at the other line. Take away the half of the *units* that is
# least active, the same for all tokens, and the model loses more than with half of its weights. So most
# units are needed, only not now.
# **Which fifth is needed changes with every token.** That is the case for **dynamic pruning** (S2 §8):
# decide while the model runs. CATS (Lee et al., 2024) puts the threshold on $\text{silu}(Gx)$, before
# $U$ and $D$ are read; TEAL (Liu et al., 2025) before every matrix; Deja Vu (Liu et al., 2023) trains
# small networks that foretell what will hardly matter. (Our threshold comes last of all, and would spare
# only $D$.) What is saved is memory traffic for one token at a time; whether that makes it faster,
# chapter 10 measures.
#
# ### A code of few numbers
#
# And the sparse autoencoder? It takes hidden states $x$ of a model and writes each as a sum of $k$ out
# of many directions $f_j$: $z = \text{the } k \text{ largest of } \text{ReLU}(E(x - b))$, $\hat x = b +
# \sum_j z_j f_j$, with the matrix $E$, the $f_j$ and $b$ trained to make $\hat x$ like $x$ (Makhzani and
# Frey, 2014; Gao et al., 2024). Sparse is the *code* $z$. No weight of the model becomes zero, as S2 would
# have it: this is a microscope, not a compressor.
#
# ## Exercise 11: the k largest, if positive


# %% exercise="top_k_codes"
def top_k_codes(x: torch.Tensor, k: int) -> torch.Tensor:
    """A sparse code of each row of x (B, F): the k largest numbers of ReLU(x), zeros elsewhere.

    1 ≤ k ≤ F. A row with fewer than k positive numbers has fewer that are not zero; no two positive
    ones of a row are equal. Of x's shape and dtype; there to be differentiated by x.
    """
    ### BEGIN SOLUTION
    values, places = x.relu().topk(k)
    return torch.zeros_like(x).scatter(1, places, values)
    ### END SOLUTION


# %% check="top_k_codes" points=1
check(top_k_codes)

# %% [markdown]
# TinyLM's states before its last block's MLP, 192 numbers each, as codes of $k$ = 8 out of 768 features.
# The control is the best that a *fixed* set of directions can do: PCA with 8 components, and with 16, as
# a code must also say *which* features it uses.
#
# **Guess before you run:** 8 numbers that may choose their directions, against 8 and 16 that may not.

# %% tags=["nbval-ignore-output"]
states, unseen_states = (
    record_inputs(tiny, torch.cat([x for x, _ in part]), [tiny.blocks[-1].mlp_norm])[0]
    for part in (windows[:48], windows[48:])
)
torch.manual_seed(0)
autoencoder = SparseAutoencoder(192, features=768, k=8).to(device)
train_autoencoder(autoencoder, states, steps=300)
middle = states.mean(0)
with torch.no_grad():
    explained = {
        "8 of 768 features": variance_explained(unseen_states, autoencoder(unseen_states), middle)
    }
    codes = autoencoder.encode(unseen_states)
directions = torch.linalg.svd(states - middle, full_matrices=False).Vh
for count in (8, 16):
    basis = directions[:count]  # the first principal components: (count, 192)
    back = (unseen_states - middle) @ basis.T @ basis + middle
    explained[f"PCA, {count} components"] = variance_explained(unseen_states, back, middle)
for name, share in explained.items():
    print(f"{name:20} explain {100 * share:.0f} % of the variance of unseen states")
print(f"zeros: {100 * (codes == 0).double().mean():.0f} % of the code, ", end="")
print(f"{sum(int((p == 0).sum()) for p in autoencoder.parameters())} of the parameters")

# %% tags=["collapsed"]
# Does it hold here?
assert explained["8 of 768 features"] > explained["PCA, 16 components"] + 0.08
assert explained["PCA, 16 components"] > explained["PCA, 8 components"]
assert (codes == 0).double().mean() > 0.98 and all(
    int((p == 0).sum()) < 9 for p in autoencoder.parameters()
)

# %% [markdown]
# Eight numbers that choose beat sixteen that cannot. That is like the finding with the products: what
# matters is few, and other for each token. It is what people use to look for meaning in a model's states
# (Bricken et al., 2023). No weight has become zero.
#
# ## 8. Your own: one weight in twenty
#
# Three trained digits networks are given. Return copies with **at most 5 % of their weights not zero**
# whose mean accuracy on the test images is **within one point** of the dense networks'. You have the race
# of section 5, and as many steps as you have patience for: the check allows two minutes. All of the
# library is there. `train_digits` takes a `Digits` with test images; you have none, so give it
# `Digits(images, labels, images, labels)`. (If your sparse networks come out ahead of the dense ones,
# train the dense ones as long before you write a paper.)
#
# Done? Then a second goal, which no check asks for: how near can you come to dense with **2 %**?
#
# ## Exercise 12: prune the digits


# %% exercise="prune_digits"
def prune_digits(
    models: list[nn.Module], images: torch.Tensor, labels: torch.Tensor
) -> list[nn.Module]:
    """A copy of each trained DigitsMLP, in order, with at most 5 % of its weights not zero.

    The mean of their accuracies on test images is to be within one point of the dense ones'. The
    zeros stand in the weights of the linear layers themselves; biases are free. images (1257, 64),
    labels (1257,). The check shows all images, the test's too, turned or mirrored in one way, so
    learn from those given and do not call digits().
    """
    ### BEGIN SOLUTION
    pruned = copy.deepcopy(models)
    for model in pruned:
        layers = prunable_weights(model)

        def prepare(optimizer, layers=layers):
            follow_density(optimizer, layers, lambda step: cubic_density(step, 0, 300, 0.05))

        examples = Digits(images, labels, images, labels)
        train_digits(model, examples, epochs=24, rate=1e-2, prepare=prepare)
    return pruned
    ### END SOLUTION


# %% check="prune_digits" points=4 tags=["nbval-ignore-output"]
check(prune_digits)

# %% tags=["collapsed", "nbval-ignore-output"] slide="In numbers"
# The chapter in numbers
twentieth = yours("prune_digits")(networks, data.train_images, data.train_labels)
sparse_accuracy = sum(map(test_accuracy, twentieth)) / 3
control = copy.deepcopy(networks)
for model in control:
    train_digits(model, data, epochs=24, rate=1e-2)
control_accuracy = sum(map(test_accuracy, control)) / 3
print(
    "ranks of 208 weights, beside the truth: "
    + ", ".join(
        f"{n} {found[n]:.2f}"
        for n in ("magnitude", "gradient", "Taylor", "OBD, Fisher", "OBD, exact")
    )
)
print(
    f"140 of them removed: OBD {at_140['OBD']:.0f} %, OBS with repair {at_140['OBS']:.0f} % of the test images"
)
print(
    f"one matrix of TinyLM at 20 %: error {100 * one_layer[0.2, 'magnitude'][0]:.0f} % by magnitude, {100 * one_layer[0.2, 'OBS'][0]:.0f} % with repair"
)
print(
    f"TinyLM at 50 %, bits per byte: magnitude, per layer, {best_magnitude:.2f}, OBD with Fisher's h {fisher_line[2]:.2f}, dense {dense_bits:.2f}"
)
print(
    f"TinyLM at 30 %: all the same {split_bits[0.3][1]:.2f}, split by block {split_bits[0.3][3]:.2f}"
)
print(
    f"digits at 5 %, 160 steps, last cut after 80: one cut {mean['one cut', 80]:.0f} %, 8 cuts {mean['8 cuts', 80]:.0f} %, every step {mean['every step', 80]:.0f} %, dense {mean['dense', 0]:.0f} %"
)
print(
    f"TinyLM without 80 % of its products: {sparse_bits[0.8]:.3f} bits per byte, dense {dense_bits:.3f}"
)
print(
    f"digits at 5 %, yours: {sparse_accuracy:.1f} %, dense {dense_accuracy:.1f} %, dense, 24 epochs more {control_accuracy:.1f} %"
)
assert sparse_accuracy > dense_accuracy - 1

# %% [markdown] question="which_controls" points=2
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **A paper prunes 5 % of a network in twenty rounds, training after each, and beats a method that
# prunes once.** It says: rounds win. Which two controls do you ask for, and what would each of the
# two results mean?
#
# <!-- BEGIN SOLUTION -->
# *Equal steps:* the rounds trained twenty times as long. Let the single cut be followed by as many
# steps; if it catches up, the time won. *The same last cut:* as many steps after the last cut in
# both. If rounds lose their lead then, it was the time left to heal. Also good: the dense network
# trained as much longer, for “better than before” may be training alone.
#
# *One point* for each control that comes with what its result would say.
# <!-- END SOLUTION -->

# %% [markdown] question="worth_a_ticket" points=2
# **The winning ticket at 4.4 % of the weights reaches 97.6 ± 0.4 %, a small dense network of as many
# weights 97.1 ± 0.2 %, for a tenth of the training.** When would you look for a ticket, and what does
# the experiment teach even if you never do?
#
# <!-- BEGIN SOLUTION -->
# To get a good network it is seldom worth it: ten trainings for half a point, and scattered zeros do
# not make a processor faster. It might be, where the mask is used many times or each stored weight is
# dear. What it teaches: a sparse network *can* be trained from its start, if the start is the one
# that belongs to the mask; so that sparse ones fail from other starts is a matter of the start, not
# of the number of weights.
#
# *One point* for gain against price. *One point* for what is learned about the start.
# <!-- END SOLUTION -->

# %% [markdown] slide="In numbers"
# ## In numbers: what to take along
#
# Importance is the rise of the loss, and one Taylor expansion says what each score
# leaves out. At a minimum the mean gradient is the price of the weights, and the single ones know more. A
# score wants the units of loss, a small step, and data that the model has not memorised. To ask again and
# to repair was worth more than a cleverer score. Damage compounds: measure what you are going to do. Train
# the control as long, and vary one thing at a time. And what is needed changes with every token. All of
# this was unstructured pruning, weight by weight. Whole units, heads and layers, which really make a
# model faster when they go: chapter 04.
