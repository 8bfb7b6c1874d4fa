# %% [markdown]
# # 03 · Pruning
#
# **By what score does a weight go, and what does it cost to find out?**
#
# Chapter 02 asked which $k$ weights should stay, and answered: the largest. That is a score: the
# magnitude. There are a dozen others in the papers, some of them dear. S2 names random pruning,
# gradient pruning and an importance $I(p)$; S3 calls small weights unimportant. Who is right? There is
# only one way to know: take the weight out and look. On a network small enough you can do that for
# *every* weight, and then no score can hide.
#
# * **Afterwards you can** derive the scores from one Taylor expansion and say when each of them fails;
#   remove weights with repair (Optimal Brain Surgeon); split a budget over layers; prune on a schedule,
#   and compare it fairly; test a lottery ticket; tell static from dynamic sparsity.
# * **You need** chapter 02, gradients, and what a matrix inverse is.
# * **Time:** about four hours.
# * **Core:** Exercises 1, 2, 4 to 8 and 12. **Extra:** Hutchinson's estimator (Exercise 3), sparsity that is
#   not pruning (9 to 11).
#
# ## 1. What is importance?
#
# A weight's **importance** is what the loss rises by when the weight is set to zero. Not more and not
# less. Let $w$ be the weights of a trained network, $P$ of them, $L(w)$ its mean loss over the training
# data, and $e_q$ the vector with a one at place $q$ and zeros elsewhere. The truth about weight $q$ is
#
# $$\Delta_q = L(w - w_q e_q) - L(w) .$$
#
# To know all of them costs $P$ passes over the data. So take a network with few weights: digits shrunk to
# $4 \times 4$ pixels, 16 inputs, 8 hidden units with tanh, 10 outputs. That is $P = 208$ weights, and 18
# biases, which stay. It is trained as everybody trains, with weight decay, down to a minimum of
#
# $$J(w) = L(w) + \tfrac{\lambda}{2} \|w\|_2^2 , \qquad \lambda = 0.001,$$
#
# and really to the minimum: by a second-order method (L-BFGS), in double precision.

# %% tags=["collapsed"]
# Imports
import copy
import math

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn
from torch.func import functional_call, grad, vmap

from course_lib.data.batches import random_windows
from course_lib.data.images import digits
from course_lib.data.text import bible_chapters, split
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
    COLOURS,
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
from course_lib.pruning.lottery import find_ticket, rewound, shuffled_masks
from course_lib.pruning.masks import apply_masks, hold_masks, magnitude_masks, masks_by_score
from course_lib.pruning.obs import damped_inverse, layer_hessian, obs_prune, obs_saliency
from course_lib.pruning.schedules import cubic_density, follow_density
from course_lib.pruning.scores import (
    gradient_magnitude,
    magnitude,
    random_scores,
    saliency,
    taylor,
)

# %%
data, PRICE = digits(), 1e-3


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
    return network


# %% [markdown]
# The weights of both layers, one after the other, are one long row $w$. Then $L$ is a function of that
# row, and so are its gradient and everything else. Now take every weight out, one at a time.

# %% tags=["nbval-ignore-output"]
network = small_network(seed=2)
weights = {name: w.detach() for name, w in linear_weights(network).items()}
w = torch.cat([part.flatten() for part in weights.values()])  # (8, 16), (10, 8) -> (208,)


def by_name(row: torch.Tensor) -> dict[str, torch.Tensor]:
    """(208,) -> the two weight matrices."""
    return {"0.weight": row[:128].view(8, 16), "2.weight": row[128:].view(10, 8)}


def L(row: torch.Tensor, images=pixels) -> torch.Tensor:
    """The training loss of the network with these weights."""
    return F.cross_entropy(functional_call(network, by_name(row), (images,)), labels)


def right(row: torch.Tensor) -> float:
    """Accuracy on the test images in percent."""
    logits = functional_call(network, by_name(row), (test_pixels,))
    return 100 * float((logits.argmax(1) == test_labels).double().mean())


without = w.repeat(208, 1).fill_diagonal_(0)  # row q: all weights but w_q
with torch.no_grad():
    truth = vmap(L, chunk_size=52)(without) - L(w)
print(f"loss {L(w):.2f}, test accuracy {right(w):.0f} %")
print(f"without one weight the loss rises by {truth.min():.6f} to {truth.max():.2f}")

# %% [markdown]
# The dearest weight costs more than a hundred thousand times what the cheapest costs. That is what makes
# pruning possible, and what makes the choice matter.
#
# Now the candidates. Let $g = \nabla L(w)$ be the gradient, $g^{(n)}$ that of image $n$ alone, and $H$ the
# matrix of second derivatives of $L$, the **Hessian**, with $h_q = H_{qq}$ on its diagonal.
#
# | score | formula | what it costs for $P$ weights |
# |---|---|---|
# | random | a random number | nothing |
# | magnitude | $\lvert w_q \rvert$ | nothing |
# | gradient | $\lvert g_q \rvert$ | one pass forward and back over the data |
# | Taylor (Molchanov et al., 2017) | $\lvert g_q w_q \rvert$ | the same |
# | mean gradient by image | $\frac1N \sum_n \lvert g^{(n)}_q \rvert$ | the same, image by image |
# | OBD, Optimal Brain Damage (LeCun, Denker, Solla, 1989) | $\frac12 h_q w_q^2$ | up to $P$ such passes, for the exact $h_q$ |
# | OBD with Hutchinson's $h$ | the same with $h$ estimated from 10 random vectors | about 20 such passes |
# | OBD with Fisher's $h$ | the same with $\frac1N \sum_n (g^{(n)}_q)^2$ for $h_q$ | one pass, image by image |
#
# You will derive them in section 2. First let them compete. A score need only *rank* the weights, so we
# ask for **Spearman's rank correlation** with the truth: 1 if both put all weights into the same order, 0
# if they have nothing to do with one another.
#
# **Guess before you look:** which scores beat plain magnitude here, and which does it beat?


# %%
def all_scores(network: nn.Module, row: torch.Tensor, loss) -> dict[str, torch.Tensor]:
    """Every score of every weight of a small network."""
    dice = torch.Generator().manual_seed(0)
    images = [(x[None], y[None]) for x, y in zip(pixels, labels, strict=True)]
    each = vmap(grad(one_image_loss(network)), in_dims=(None, 0, 0))(row, pixels, labels)
    by_image = collect_evidence(network, images, lambda m, one: F.cross_entropy(m(one[0]), one[1]))
    fisher = torch.cat([by_image.squared[name].flatten() for name in weights])
    g, h = grad(loss)(row), exact_hessian(lambda w: loss(w["w"]), {"w": row}).diagonal()
    guessed = estimated_diagonal(lambda w: loss(w["w"]), {"w": row}, 10, dice)["w"]
    return {
        "random": random_scores(row, dice),
        "magnitude": magnitude(row),
        "gradient": gradient_magnitude(g),
        "Taylor": taylor(row, g),
        "mean gradient by image": each.abs().mean(0),
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

# %% tags=["collapsed"]
# Does it hold here? And a figure behind a guess: every score against the truth
assert truth.max() > 1e5 * truth.min().abs() and L(w) < 0.25 and right(w) > 88
assert len(w) == 208 and sum(p.numel() for p in network.parameters()) == 208 + 18
assert 0.66 < found["magnitude"] < 0.84 and abs(found["random"]) < 0.3
assert abs(found["gradient"] - found["magnitude"]) < 0.02 > abs(found["Taylor"] - found["magnitude"])
assert found["OBD, exact"] > 0.985 and 0.96 < found["OBD, Fisher"] < found["OBD, exact"]
assert found["OBD, Hutchinson"] < found["magnitude"] - 0.05
assert found["mean gradient by image"] < found["magnitude"] - 0.1

figure, axes = new_figure(rows=2, columns=4, height=4.6)
for one, (name, score), colour in zip(axes, scores.items(), COLOURS, strict=True):
    one.loglog(score.abs(), truth.clamp(min=1e-9), ".", color=colour, markersize=4)
    one.set_title(f"{name}: {found[name]:.2f}", fontsize=9)
    one.set_xticks([]), one.minorticks_off(), one.set_xlabel("score", fontsize=8)
axes[0].set_ylabel("rise of the loss")
axes[4].set_ylabel("rise of the loss")
figure.suptitle("Magnitude is a fair guide; gradient and Taylor draw the very same picture")

predict(
    "Which of these ranks the 208 weights best: magnitude, gradient, or Taylor (gradient times weight)?",
    ["magnitude", "gradient", "Taylor", "they tie"],
    f"they tie, at {found['magnitude']:.2f}, {found['gradient']:.2f} and {found['Taylor']:.2f}",
    Picture(
        figure,
        "Eight scatter plots of score against the true rise of the loss, each with its rank "
        "correlation: exact OBD and Fisher's lie on a line, magnitude, gradient and Taylor form one "
        "and the same broad band, Hutchinson's and the mean gradient by image a broader one, random "
        "none.",
    ),
)

# %% [markdown]
# Three scores tie, to the last digit. That is no accident. At a minimum of $J$ its gradient is zero:
#
# $$\nabla J = g + \lambda w = 0 \quad\Longrightarrow\quad g = -\lambda w .$$
#
# So $|g_q| = \lambda |w_q|$ and $|g_q w_q| = \lambda w_q^2$: both are magnitude in disguise. **At a trained
# minimum the gradient knows nothing but the price that you put on the weights.** Put none, and it is
# zero. "Gradient pruning" (S2) of a trained network makes sense only as long as the network is not
# trained to the end, or with other data.
#
# Look at the others. Magnitude costs nothing and beats two cleverer scores: a Hessian estimated from ten random
# vectors, and the mean gradient by image. Only two beat it: the exact curvature, and Fisher's, which costs a
# single pass. Does that hang on the seed?

# %% tags=["nbval-ignore-output"]
identity = float((grad(L)(w) + PRICE * w).abs().max() / (PRICE * w).abs().max())
print(f"largest |g + λw|, beside the largest |λw|: {identity:.0e}")
table = {name: [value] for name, value in found.items()}
for seed in (3, 4):
    network = small_network(seed)
    row = torch.cat([w.detach().flatten() for w in linear_weights(network).values()])
    with torch.no_grad():
        rise = vmap(L, chunk_size=52)(row.repeat(208, 1).fill_diagonal_(0)) - L(row)
    for name, score in all_scores(network, row, L).items():
        table[name].append(rank_correlation(score, rise))
for name, values in table.items():
    print(f"{name:24}" + "".join(f"{value:7.2f}" for value in values))
network = small_network(seed=2)

# %% [markdown]
# ### Other units
#
# Here the pixels all run from 0 to 1. Suppose somebody measures the left half of the image from 0 to 16, as
# the camera did. The network need not care: divide the weights of these pixels by 16, and it computes
# the same function, with the same loss, and the same truth about every weight.
#
# **Guess before you run:** which scores change their minds?

# %% tags=["nbval-ignore-output"]
left_half = torch.tensor([0, 1, 4, 5, 8, 9, 12, 13])
rescaled = {}
for factor in (1, 4, 16):
    units = torch.ones(16, dtype=w.dtype)
    units[left_half] = factor
    row = torch.cat([(w[:128].view(8, 16) / units).flatten(), w[128:]])  # (128,) -> (8, 16) -> (128,)

    def same_loss(row, units=units):
        return L(row, pixels * units)

    g = grad(same_loss)(row)
    h = exact_hessian(lambda w: same_loss(w["w"]), {"w": row}).diagonal()
    scores_now = [magnitude(row), gradient_magnitude(g), taylor(row, g), saliency(row, h)]
    rescaled[factor] = [rank_correlation(score, truth) for score in scores_now]
    assert torch.allclose(same_loss(row), L(w))
print("left half times   magnitude   gradient   Taylor   OBD")
for factor, values in rescaled.items():
    print(f"{factor:15}{values[0]:12.2f}{values[1]:11.2f}{values[2]:9.2f}{values[3]:6.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert identity < 0.01
assert all(min(v) > 0.985 for n, v in table.items() if n == "OBD, exact")
assert all(m > max(a, b) for m, a, b in zip(table["magnitude"], table["OBD, Hutchinson"], table["mean gradient by image"], strict=True))  # fmt: skip
assert rescaled[1][0] > rescaled[4][0] + 0.08 and rescaled[4][0] > rescaled[16][0] + 0.05
assert rescaled[1][1] > rescaled[16][1] + 0.2
assert max(abs(rescaled[1][i] - rescaled[16][i]) for i in (2, 3)) < 0.01

# %% [markdown]
# Magnitude and gradient do, in opposite directions. Taylor and OBD do not move. Count the units and you see
# why: $w$ is measured in something, $g$ in loss per something, $h$ in loss per something squared. Only
# $g w$ and $h w^2$ are **in units of loss**. If a weight is divided by $s$ and its input multiplied, then
# $g \to s g$ and $h \to s^2 h$, and these two products stay. A score in other units compares weights only
# where their scales are alike. (This is the trick with the layer times ten from chapter 02, in one layer.)
#
# ## Exercise 1: the Taylor score
#
# In practice gradients come example by example. Mind what is averaged, and when the sign is dropped.


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

# %% [markdown]
# ## 2. Expand
#
# Where do the scores come from? From one formula. Change the weights by $\delta$, a vector as long as $w$:
#
# $$L(w + \delta) = L(w) + g^\top \delta + \tfrac12 \delta^\top H \delta + \ldots$$
#
# The dots are of third order in $\delta$. To remove weight $q$ take $\delta = -w_q e_q$. Then
#
# $$\Delta_q \approx -g_q w_q + \tfrac12 h_q w_q^2 .$$
#
# The first term alone gives Taylor's score. OBD says: *at a minimum the gradient is zero*, so the second
# term is all there is. To prune several weights, OBD adds their scores up; so it makes three assumptions.
# The step is small (no dots), we stand at a minimum ($g = 0$), and weights do not interact ($H$ is diagonal).
#
# ### A derivation that loses the weight
#
# S2 §4.2.1 sets out on the same road. It wants an importance $I(p)$ of a parameter $p$, writes down the
# penalty $J(p) = \frac12\|\lambda p\|_2^2$, expands it to second order around its minimum, and arrives at
#
# $$I(p) = \frac{\|\lambda \cdot p\|_2}{\|p\|_2} .$$
#
# The idea is right: expand, and at the minimum the first order drops out. That is just what LeCun did. Two
# things went wrong on the way. What was expanded is the penalty alone, without the loss, and its only
# minimum is $p = 0$. And the formula is not what the expansion gives; it was put in at the end. See what it
# says.

# %%
for size, scale in ((1, 1.0), (1, 1e-6), (1000, 1.0), (1000, 1e6)):
    p = scale * torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    importance = (0.01 * p).norm() / p.norm()  # S2's λ = 0.01
    print(f"{size:4} parameters of size about {scale:g}: I(p) = {importance:.4f}")

# %% [markdown]
# $\|\lambda p\| = \lambda \|p\|$, so $I(p) = \lambda$: every parameter is as important as every other. The
# weight has cancelled out. (S2 notes that $\lambda$ may be taken out of the fraction, and does not see that
# nothing is left inside.) Now the same road, walked to its end.
#
# ## Exercise 2: OBD where it is exact
#
# For a squared error there are no dots: $L(\theta) = \|X\theta - y\|_2^2$ is its own expansion. Find its $H$.


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
print(f"θ = {theta.tolist()}: magnitude says that the first weight goes, S2 says either")
print(f"OBD: {obd(X, X @ theta, theta).tolist()}, measured: {[round(rise, 1) for rise in rises]}")

# %% [markdown]
# The small weight stands on the large input, and is worth eight times the large one.
#
# ### Predicted and measured
#
# A prediction is worth what it says about numbers, not only about ranks. So draw sets of weights at random,
# 200 of each size, remove each set, and plot what the loss did against what was predicted. The line is $y = x$.
# Two predictions: OBD's sum of $\frac12 h_q w_q^2$, and the whole second-order formula, with gradient and
# with all of $H$ (`predicted_increase`). Move the slider from one weight to eighty.
#
# **Guess before you move it:** for single weights, is OBD's half $h w^2$ right? And which prediction lasts longer?

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

# %% tags=["collapsed"]
# Does it hold here? And a figure with a slider: predicted and measured rise of the loss
assert obd(X, X @ theta, theta).tolist() == [24.0, 3.0] and [round(r, 3) for r in rises] == [24.0, 3.0]


def share_of(count: int, which: int) -> float:
    """Median of predicted ÷ measured."""
    return float((predicted[count][which] / predicted[count][2]).median())


def draw_predictions(weights_removed: int) -> Picture:
    """Predicted against measured, for 200 sets of so many weights."""
    *guesses, measured = predicted[weights_removed]
    figure, axes = new_figure(columns=2, height=3.6)
    names = ("OBD, the sum of ½hw²", "whole second order")
    for one, guess, name, colour in zip(axes, guesses, names, (ORANGE, BLUE), strict=True):
        low, high = float(measured.clamp(min=1e-5).min()) / 2, float(measured.max()) * 2
        one.loglog([low, high], [low, high], "-", color=BLACK, linewidth=0.8)
        one.loglog(guess.clamp(min=low), measured.clamp(min=low), ".", color=colour)
        one.set(xlabel="predicted rise of the loss", title=f"{name}: ranks {rank_correlation(guess, measured):.2f}")
    axes[0].set_ylabel("measured rise of the loss")
    figure.suptitle(f"{weights_removed} removed: predicted ÷ measured {share_of(weights_removed, 0):.2f} and {share_of(weights_removed, 1):.2f}")
    return Picture(figure, f"Two scatter plots with the line y = x, {weights_removed} weights removed at once.")


assert 0.55 < share_of(1, 0) < 0.9 and 0.95 < share_of(1, 1) < 1.05
assert share_of(10, 1) < 0.97 and 0.6 < share_of(80, 1) < 0.9 and share_of(80, 0) < share_of(80, 1) + 0.1
assert rank_correlation(*predicted[80][1:]) < 0.8 < rank_correlation(*predicted[10][1:])
explore(draw_predictions, weights_removed=(list(predicted), 1))
