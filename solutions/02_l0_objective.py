# %% [markdown] slide="02 · The L0"
# # 02 · The L0 objective
#
# **You may keep $k$ weights. Which ones?**
#
# All of pruning is in that question. The article S0 writes it as one formula:
#
# $$\min_{\theta'} L(\theta') \quad \text{subject to} \quad \|\theta'\|_0 \le k .$$
#
# Here $\theta'$ are the weights of the pruned model and $L$ is its loss. $\|\theta'\|_0$ counts the
# weights that are not zero, and $k$ is your budget. The formula is short, and nobody can solve it for
# a real model. In this chapter you solve it where that is possible, see exactly why it gets hard, and
# then take the simplest of the cheap answers to real networks.
#
# * **Afterwards you can** tell what L0, L1 and L2 ask for, choose weights by four methods, choose $\lambda$
#   without fooling yourself, prune a network and train it again under its mask, and weigh the file.
# * **You need** chapter 00, least squares, and what a gradient is.
# * **Time:** about four hours.
# * **Core:** Exercises 1 to 5 and 9, the race, real networks, the file. **Extra:** cross-validation (Exercise
#   6), the repaired formulas (7, 8), learned masks (10), 92 % zeros (11).
#
# ## Two weights
#
# Start so small that you can see everything. The article S4 has this example: a linear model with
# two weights, $\theta = [1, 2]$, and the loss
#
# $$L(\theta) = \|X\theta - y\|_2^2 = \sum_i (x_i^\top \theta - y_i)^2 .$$
#
# A row $x_i$ of $X$ is one example, $y_i$ is its target. S4 gives no $X$ and no $y$, so nothing can
# be computed. Let us supply four rows. Go downhill from $[1, 2]$ along the gradient
# $\nabla L = 2X^\top(X\theta - y)$. How long may a step be? The gradient changes by at most $\Lambda =
# 2\sigma_{\max}(X)^2$ for each unit that you walk, where $\sigma_{\max}$ is the largest singular
# value. A step of length $1/\Lambda$ never makes $L$ larger. Above $2/\Lambda$ the steps diverge.

# %% tags=["collapsed"]
# Imports
import copy
import math

import torch
from sklearn.linear_model import lars_path
from torch import nn

from course_lib.data.batches import random_windows
from course_lib.data.images import Digits, digits
from course_lib.data.text import bible_chapters, split
from course_lib.device import best_device
from course_lib.exercises import check, hint, yours
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.sparse import Sparse
from course_lib.measure.latency import latency
from course_lib.measure.quality import accuracy
from course_lib.measure.size import count_parameters, size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models import pretrained
from course_lib.models.digits_mlp import DigitsMLP, cross_entropy, train_digits
from course_lib.models.parts import prunable_weights
from course_lib.models.tokenizer import tokens_of
from course_lib.plots.explore import explore
from course_lib.plots.figure import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, Picture, new_figure
from course_lib.plots.predict import predict
from course_lib.plots.watch import watch
from course_lib.pruning.cross_validation import cross_validation_errors, k_folds
from course_lib.pruning.hard_concrete import (
    add_gates,
    expected_l0,
    fixed_gates,
    open_probability,
    remove_gates,
    sample_gates,
)
from course_lib.pruning.iterative_thresholding import (
    ista,
    iterative_hard_thresholding,
)
from course_lib.pruning.least_squares import (
    best_subset,
    gradient,
    lipschitz_constant,
    orthogonal_matching_pursuit,
    ridge,
    squared_error,
)
from course_lib.pruning.masks import (
    apply_masks,
    hold_masks,
    magnitude_masks,
    magnitude_pruned,
)
from course_lib.pruning.objective import l0, project, soft_threshold

device = best_device()

# %%
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
y = torch.tensor([1.0, 2.0, 3.0, 5.0])
bound = 2 / lipschitz_constant(X)

ends = {}
for share in (0.5, 0.9, 1.1):
    theta = torch.tensor([1.0, 2.0])
    for _ in range(100):
        theta = theta - share * bound * gradient(X, y, theta)
    ends[share] = theta
    loss = squared_error(X, y, theta)
    print(f"steps of {share} · 2/Λ:  " + (f"L = {loss:.2f}" if loss < 1e3 else "diverged"))
print(f"L of S4's [1, 2]:    L = {squared_error(X, y, torch.tensor([1.0, 2.0])):.2f}")
minimum = ridge(X, y, 0.0)
print(
    f"closed form: θ = [{minimum[0]:.2f}, {minimum[1]:.2f}], L = {squared_error(X, y, minimum):.2f}"
)

# %% [markdown] slide="Three ways"
# ## Three ways to ask for less
#
# Now ask for a simpler model. Add a price on $\theta$, with a number $\lambda \ge 0$ that says how
# much you care:
#
# $$L(\theta) + \lambda \|\theta\|_2^2, \qquad L(\theta) + \lambda \|\theta\|_1, \qquad
# L(\theta) + \lambda \|\theta\|_0 .$$
#
# $\|\theta\|_2^2 = \sum \theta_i^2$ is called **ridge** (Hoerl and Kennard, 1970). $\|\theta\|_1 =
# \sum |\theta_i|$ is called **lasso** (Tibshirani, 1996). $\|\theta\|_0$ is what we really mean.
# (People call it a norm. It is none: doubling $\theta$ does not double it.)
#
# With the ridge the minimum has a closed form. Set the gradient to zero and solve.
#
# ## Exercise 1: ridge


# %% exercise="ridge_closed_form"
def ridge_closed_form(features: torch.Tensor, targets: torch.Tensor, penalty: float):
    """The θ (P,) of least ‖Xθ − y‖₂² + λ‖θ‖₂², in X's dtype."""
    ### BEGIN SOLUTION
    gram = features.T @ features
    eye = torch.eye(len(gram), device=gram.device)
    return torch.linalg.solve(gram + penalty * eye, features.T @ targets)
    ### END SOLUTION


# %% check="ridge_closed_form" points=1
check(ridge_closed_form)

# %% [markdown]
# Look at all three at once. The grey curves are the points of equal loss. The coloured shape is the
# set of points that have the same penalty as the solution: a circle for L2, a diamond for L1, and for
# L0 the two axes. The solution is where curve and shape just touch. Circles touch anywhere. Diamonds
# like to touch at a corner, and at a corner one weight is zero.
#
# **Guess before you move the slider:** which penalties set a weight to exactly zero, and which one never
# does? Which of them leaves the other weight unshrunk?

# %%
solve_ridge = yours("ridge_closed_form")


def penalised(penalty: float) -> dict[str, torch.Tensor]:
    """The exact minimum for each penalty at the same λ."""
    supports = [best_subset(X, y, k) for k in range(3)]
    prices = [squared_error(X, y, t) + penalty * l0(t) for t in supports]
    return {
        "L2": solve_ridge(X, y, penalty),
        "L1": ista(X, y, penalty, steps=500),
        "L0": supports[torch.stack(prices).argmin()],
    }


# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure with a slider: three penalties
assert squared_error(X, y, ends[1.1]) > 1e3
assert torch.allclose(minimum, torch.tensor([4 / 3, 2.0])) and torch.allclose(ends[0.9], minimum)
across, up = torch.meshgrid(torch.linspace(-1, 4, 120), torch.linspace(-1, 4, 120), indexing="xy")
landscape = (
    (torch.stack([across, up], -1) @ X.T - y).square().sum(-1)
)  # (120, 120, 4) -> (120, 120)


def draw_penalties(penalty: float) -> Picture:
    """Level curves of L and, for each penalty, its shape through the solution."""
    figure, axes = new_figure(columns=3, height=3.1)
    found = penalised(penalty)
    for one, (name, theta), colour in zip(axes, found.items(), (BLUE, GREEN, RED), strict=True):
        levels = squared_error(X, y, theta) + torch.tensor([0.02, 2, 8, 20, 40])
        one.contour(across, up, landscape, levels=levels, colors="#999999", linewidths=0.8)
        if name == "L0":
            kept = int(l0(theta))
            for line in (one.axhline, one.axvline) if kept == 1 else ():
                line(0, color=colour, linewidth=2)
        else:
            shape = across**2 + up**2 if name == "L2" else across.abs() + up.abs()
            reach = float((theta**2).sum() if name == "L2" else theta.abs().sum())
            if reach > 0:
                one.contour(across, up, shape, levels=[reach], colors=colour, linewidths=2)
        one.plot(*minimum, "x", color=BLACK)
        one.plot(*theta, "o", color=colour)
        one.set(title=f"{name}: [{theta[0]:.2f}, {theta[1]:.2f}]", xlabel="first weight")
        one.set(xlim=(-1, 4), ylim=(-1, 4), aspect="equal")
    axes[0].set_ylabel("second weight")
    zeros = {name: int(2 - l0(theta)) for name, theta in found.items()}
    figure.suptitle(
        f"λ = {penalty}: zeros with L2 {zeros['L2']}, L1 {zeros['L1']}, L0 {zeros['L0']}"
    )
    return Picture(
        figure, f"Three panels, λ = {penalty}: level curves, the penalty's shape, the solution."
    )


steps = [0, 1, 2, 5, 10, 20, 22, 30, 50]
zeros = {p: {name: 2 - int(l0(t)) for name, t in penalised(p).items()} for p in steps}
assert all(z["L2"] == 0 for z in zeros.values())
first = {name: min(p for p in steps if zeros[p][name]) for name in ("L1", "L0")}
print(f"first zero, of these λ: L0 at λ = {first['L0']}, L1 at λ = {first['L1']}, L2 never")
explore(draw_penalties, penalty=(steps, 20))

# %% [markdown] slide="One weight at a time"
# L2 pulls the point towards zero and never sets it there. L1 pulls as well, and at some $\lambda$ a
# weight is exactly zero. L0 does not pull at all: it leaves the solution alone until dropping a weight
# is worth its price, and then jumps. (Do not compare the $\lambda$ at which they do it. For L0 it is a
# price for each weight, for L1 a price for each unit of length: measure $y$ in other units, and the order
# turns round.)
#
# ## One weight at a time
#
# Take the simplest loss of all, $L(\theta) = \|\theta - z\|_2^2$: stay near to $z$. Now every weight
# decides for itself, and all three problems have closed forms. For L2 you get $z/(1+\lambda)$. For L0 a
# weight costs $\lambda$ if it stays and $z^2$ if it goes. So it stays if $|z| > \sqrt\lambda$, as
# it is: a **hard threshold**. For L1 you find out yourself.
#
# The hard threshold stands in S1, as the formula of weight pruning:
#
# $$W' = \begin{cases} W & \text{if } |W| > t \\ 0 & \text{otherwise.} \end{cases}$$
#
# It is right if you read it entry by entry. One detail decides who is in and who is out at
# $|W| = t$: S1 and S2 drop such a weight, S0's code keeps it. In this course it goes.
#
# ## Exercises 2 and 3: the L1 answer, and the hard threshold


# %% exercise="minimise_l1"
def minimise_l1(z: torch.Tensor, penalty: float) -> torch.Tensor:
    """The θ of least ‖θ − z‖₂² + λ‖θ‖₁, of z's shape and dtype; z may require a gradient."""
    ### BEGIN SOLUTION
    return z.sign() * (z.abs() - penalty / 2).clamp(min=0)
    ### END SOLUTION


# %% check="minimise_l1" points=1
check(minimise_l1)


# %% exercise="hard_threshold"
def hard_threshold(weight: torch.Tensor, threshold: float) -> torch.Tensor:
    """A copy of `weight`, each entry zeroed whose magnitude is not larger than the threshold."""
    ### BEGIN SOLUTION
    return torch.where(weight.abs() > threshold, weight, 0.0)
    ### END SOLUTION


# %% check="hard_threshold" points=1
check(hard_threshold)

# %% tags=["collapsed"] slide=True
# Figure: what each penalty does to one weight
soft, hard = yours("minimise_l1"), yours("hard_threshold")

z = torch.linspace(-2, 2, 401)
price = 1.0
figure, (axes,) = new_figure()
axes.plot(z, z, ":", color=BLACK, label="no penalty")
axes.plot(z, z / (1 + price), color=BLUE, label="L2: shrinks all, zeroes none")
axes.plot(z, soft(z, price), color=GREEN, label="L1: shrinks all, zeroes the small")
axes.plot(z, hard(z, math.sqrt(price)), color=RED, label="L0: zeroes the small, leaves the rest")
axes.set(xlabel="z, the weight without penalty", ylabel="θ, the weight with penalty")
axes.set_title("Only L0 leaves the large weights alone (all three at λ = 1)")
axes.legend(frameon=False)
assert (hard(z, 1.0)[z.abs() > 1.01] == z[z.abs() > 1.01]).all()
assert (soft(z, price)[z.abs() > 0.51].abs() < z[z.abs() > 0.51].abs()).all()

Picture(
    figure, "Curves of θ against z: L2 a flatter line, L1 flat at zero then shifted, L0 a jump."
)

# %% [markdown]
# Your answer for L1 is the **soft threshold** (Donoho and Johnstone, 1994).
#
# ## Weight decay does not prune
#
# S4 writes the L1 penalty into its formula, calls it redundancy removal, and then hands
# `weight_decay=0.01` to the optimizer. In `torch.optim.SGD` that is the *L2* penalty
# $\frac{0.01}{2}\|\theta\|_2^2$. (Its sample also stops with `NameError`: its data are missing.) We
# give it data: ten inputs of which three matter.
#
# **Guess before you run:** ten weights, four trainings: weight decay weak and strong, L1 in the loss, L1
# as a soft threshold. How many exact zeros does each end with?

# %% slide=True
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(100, 10, generator=generator)
truth = torch.tensor([2.0, -1.0, 0.5] + 7 * [0.0])
outputs = inputs @ truth + 0.1 * torch.randn(100, generator=generator)


def trained(weight_decay: float = 0.0, l1: float = 0.0, threshold: bool = False) -> torch.Tensor:
    """Weights after S4's loop, with an L1 term in the loss or with a soft threshold after a step."""
    torch.manual_seed(0)
    model, rate = nn.Linear(10, 1), 0.01
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, weight_decay=weight_decay)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (model(inputs)[:, 0] - outputs).square().mean()
        (loss + (0 if threshold else l1) * model.weight.abs().sum()).backward()
        optimizer.step()
        if threshold:
            model.weight.data = soft_threshold(model.weight.data, rate * l1)
    return model.weight.detach()[0]


recipes = {
    "weight decay 0.01, as in S4": trained(weight_decay=0.01),
    "weight decay 1": trained(weight_decay=1.0),
    "L1 in the loss, gradient descent": trained(l1=0.1),
    "L1 as a soft threshold (ISTA)": trained(l1=0.1, threshold=True),
}
for name, weights in recipes.items():
    print(f"{name:34} {int((weights == 0).sum())} zeros of 10, ‖θ‖₁ = {weights.abs().sum():.2f}")

# %% [markdown]
# Weight decay makes no zeros, however strong. That was to be expected. The third line may surprise
# you: even the *right* penalty makes no zeros when gradient descent gets it. Near zero the gradient of
# $|\theta|$ flips between $+1$ and $-1$, so the weight hops around zero and never lands on it. The
# remedy is the last line. Step down the gradient of $L$ alone, then apply the soft threshold. This is
# **ISTA** (Daubechies, Defrise, De Mol, 2004). Zeros need a step that makes zeros.
#
# ### Three optimizers, one option, three meanings
#
# S4 calls `weight_decay` L2 regularization. That depends on the optimizer. Take two weights, both 1 at
# the start. The first sees steep random gradients, the second gradients a hundred times flatter.
#
# **Guess before you run:** which of the two does `weight_decay` shrink more, in SGD, Adam, AdamW?

# %% slide=True
gradients = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
gradients *= torch.tensor([10.0, 0.1])  # steep, flat


def after(optimizer_class: type, weight_decay: float) -> torch.Tensor:
    """Both weights after 200 steps along these gradients."""
    weights = nn.Parameter(torch.ones(2))
    optimizer = optimizer_class([weights], lr=1e-3, weight_decay=weight_decay)
    for row in gradients:
        weights.grad = row.clone()
        optimizer.step()
    return weights.detach()


shrunk = {}
for optimizer_class in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    name = optimizer_class.__name__
    shrunk[name] = 100 * (after(optimizer_class, 0.0) - after(optimizer_class, 0.1))
    print(f"{name:6} the steep weight lost {shrunk[name][0]:5.2f} %, the flat one ", end="")
    print(f"{shrunk[name][1]:5.2f} %")

# %% tags=["collapsed"]
# Does it hold here?
assert [int((w == 0).sum()) for w in recipes.values()] == [0, 0, 0, 7]
by_formula = 100 * (1 - (1 - 1e-3 * 0.1) ** 200)
assert all((shrunk[name] - by_formula).abs().max() < 0.1 for name in ("SGD", "AdamW"))
assert shrunk["Adam"][0] < 0.5 and shrunk["Adam"][1] > 10

# %% [markdown] slide="Why not just"
# SGD and AdamW multiply every weight by $1 - \eta\omega$ a step, with learning rate $\eta$ and weight
# decay $\omega$: 2 % in 200 steps. In SGD that is the gradient of the L2 penalty. Adam adds the same
# gradient to the loss's, and then divides both by the size of recent gradients. So the steep weight is
# hardly decayed and the flat one is decayed hard. AdamW takes the decay out of that division, and then
# it is no longer the gradient of a penalty (Loshchilov and Hutter, 2019). None of the three makes a zero.
#
# ## Why not just try all?
#
# Back to S0's formula. With $P$ weights there are $\binom{P}{k}$ ways to choose $k$ of them. With a
# squared loss the best values for each choice are an ordinary least-squares fit. (For a network each
# choice is a whole training.) So try them all.
#
# | weights $P$ | kept $k$ | choices |
# |---:|---:|---:|
# | 2 | 1 | 2 |
# | 12 | 3 | 220 |
# | 40 | 10 | 847,660,528 |
# | 1,572,864 | 157,286 | a number of 222,057 digits |
#
# The last line is TinyLM at a density of one in ten. No cleverness removes this wall in general: the
# problem is NP-hard (Natarajan, 1995). What remains are cheap methods that are often right:
#
# * **Magnitude**: fit all weights, keep the $k$ largest, fit those again. This is pruning with
#   retraining (Han, Pool, Tran, Dally, 2015).
# * **OMP**, orthogonal matching pursuit (Pati, Rezaiifar, Krishnaprasad, 1993): begin with $\theta = 0$.
#   $k$ times: take what is left unexplained, $r = y - X\theta$. Of the columns $X_j$ that are not chosen
#   yet, choose the one with the largest $|X_j^\top r| / \|X_j\|_2$, which points most along $r$. Then fit
#   $\theta$ anew, by least squares, on all columns chosen so far.
# * **Lasso**: start with $\lambda$ so large that $\theta = 0$, lower it until $k$ weights are in, then fit
#   those again without the penalty.
# * **IHT**, iterative hard thresholding (Blumensath and Davies, 2008): take a gradient step, keep the
#   $k$ largest, and repeat.
#
# You build the last one, since it is gradient descent on S0's very formula. First the **projection**:
# of all points with at most $k$ non-zeros, the one nearest to $\theta$. To zero $\theta_i$ costs
# $\theta_i^2$ of distance, so the small ones go.
#
# ## Exercises 4 and 5: project, and one step of IHT
#
# $\theta$ is a vector. Of equal magnitudes, those with the smaller index stay. Exactly $k$ may stay. With $\Pi_k$ for the
# projection, a step of IHT is
#
# $$\theta \leftarrow \Pi_k\big(\theta - \tfrac{1}{\Lambda} \nabla L(\theta)\big) .$$
#
# In Exercise 5 call the projection as `project(theta, k)`.


# %% exercise="keep_largest"
def keep_largest(theta: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest magnitudes of the vector θ (P,), zeros elsewhere, in θ's dtype.

    Of equal magnitudes the first by index stay.
    """
    ### BEGIN SOLUTION
    kept, left = torch.zeros_like(theta), theta.abs()
    for _ in range(k):
        i = left.argmax()
        kept[i] = theta[i]
        left[i] = -torch.inf
    return kept
    ### END SOLUTION


# %% check="keep_largest" points=2
check(keep_largest)


# %% exercise="iht_step"
def iht_step(features: torch.Tensor, targets: torch.Tensor, theta: torch.Tensor, k: int):
    """One step 1/Λ against the gradient of ‖Xθ − y‖₂², then the k largest magnitudes, others 0."""
    ### BEGIN SOLUTION
    slope = 2 * features.T @ (features @ theta - targets)
    step = 1 / (2 * torch.linalg.matrix_norm(features, 2) ** 2)
    return project(theta - step * slope, k)
    ### END SOLUTION


# %% check="iht_step" points=2
check(iht_step)

# %% [markdown]
# Now a race. There are 12 features, of which 3 matter, and 60 noisy rows. The features share a common
# part, so that any two of them have correlation $\rho$. Brute force over all 220 choices knows the
# best. How often, in 200 such problems, does each method find it?
#
# **Guess before you run:** at $\rho = 0$ all are good. Who breaks first as $\rho$ grows? Magnitude is
# the crudest of the four. Will it be the worst?

# %%
one_step = yours("iht_step")


def problem(rho: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """X (60, 12) with correlation ρ between any two features, and y from three of them."""
    made = torch.Generator().manual_seed(seed)
    common = torch.randn(60, 1, generator=made, dtype=torch.float64)
    own = torch.randn(60, 12, generator=made, dtype=torch.float64)
    X = math.sqrt(rho) * common + math.sqrt(1 - rho) * own
    matter = torch.randperm(12, generator=made)[:3]
    noise = torch.randn(60, generator=made, dtype=torch.float64)
    return X, X[:, matter] @ torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64) + noise


def fitted_again(X, y, theta):
    """Least squares on the features where θ is not zero."""
    chosen = (theta != 0).to(X.dtype)
    return chosen * (torch.linalg.pinv(X * chosen) @ y)


def by_magnitude(X, y, k):
    return fitted_again(X, y, project(ridge(X, y, 0.0), k))


def by_lasso(X, y, k):
    _, _, path = lars_path(X.numpy(), y.numpy(), method="lasso")  # exact; (features, λ)
    enough = next(theta for theta in torch.from_numpy(path.T) if l0(theta) >= k)
    return fitted_again(X, y, project(enough, k))


def by_iht(X, y, k):
    return fitted_again(X, y, iterative_hard_thresholding(X, y, k, steps=500))


methods = {
    "magnitude": by_magnitude,
    "OMP": orthogonal_matching_pursuit,
    "lasso": by_lasso,
    "IHT": by_iht,
}
correlations, trials = (0.0, 0.6, 0.9, 0.95), 200
found = {name: [] for name in methods}
for rho in correlations:
    races = [problem(rho, seed) for seed in range(trials)]
    best = [best_subset(A, b, 3) for A, b in races]
    for name, method in methods.items():
        pairs = zip(races, best, strict=True)
        same = [torch.equal(method(A, b, 3) != 0, theta != 0) for (A, b), theta in pairs]
        found[name].append(100 * sum(same) / trials)


# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure: how often each method finds the best subset
A, b = races[0]
theta, library = torch.zeros(12, dtype=A.dtype), iterative_hard_thresholding(A, b, 3, steps=100)
for _ in range(100):
    theta = one_step(A, b, theta, 3)
assert torch.allclose(theta, library)  # your step, repeated, is the library's IHT

figure, (axes,) = new_figure()
for (name, shares), colour in zip(found.items(), (ORANGE, BLUE, GREEN, RED), strict=True):
    errors = [math.sqrt(share * (100 - share) / trials) for share in shares]
    axes.errorbar(correlations, shares, errors, fmt="o-", color=colour, label=name, capsize=3)
axes.set(xlabel="correlation ρ of any two features", ylabel=f"best subset found (% of {trials})")
axes.set(ylim=(0, 104))
axes.set_title("The more alike the features, the harder to tell which of them matter")
axes.legend(frameon=False)
assert all(found["IHT"][i] < min(found[m][i] for m in methods if m != "IHT") for i in (1, 2, 3))
assert all(a >= b for shares in found.values() for a, b in zip(shares, shares[1:], strict=False))
assert min(found["magnitude"][0], found["OMP"][0]) >= 95
assert found["OMP"][-1] > found["magnitude"][-1] > found["lasso"][-1] > found["IHT"][-1]

Picture(
    figure,
    "Lines with error bars fall with correlation: IHT first and deepest; OMP holds out best, then "
    "magnitude, then the lasso.",
)

# %% [markdown]
# (The bars are one standard error.) IHT is gradient descent on S0's formula, and does worst (at ρ =
# 0.95 it gets 500 steps; with ten times as many it finds 35 %, and is still last). OMP does best. The
# crude recipe "fit everything, keep the largest, fit again" comes second. Why does IHT fail? It
# starts from zero, where it knows only how each feature goes with $y$ by itself. Let it start from
# the full fit instead, which has already sorted out who does what. (Below it stands what keeping the
# largest weights does with and without a second fit, for one problem.)

# %% tags=["nbval-ignore-output"]
from_full = 0
for (A, b), theta in zip(races, best, strict=True):  # ρ = 0.95 still
    start = ridge(A, b, 0.0)
    for _ in range(100):
        start = one_step(A, b, start, 3)
    from_full += torch.equal(start != 0, theta != 0)
from_full = 100 * from_full / trials
print(f"IHT at ρ = 0.95: {found['IHT'][-1]:.1f} % from zero, {from_full:.1f} % from the full fit")

A, b = problem(0.95, seed=1)
full = ridge(A, b, 0.0)
best = float(squared_error(A, b, best_subset(A, b, 3)))
plain = float(squared_error(A, b, project(full, 3)))
again = float(squared_error(A, b, by_magnitude(A, b, 3)))
print(
    f"loss of the best three {best:.0f}, of the largest three {plain:.0f}, "
    f"of the largest three, fitted again, {again:.0f}"
)

# %% [markdown]
# Look twice. At the full fit the gradient is zero, so the first step only keeps the three largest:
# that is magnitude, which found 64 %. The steps after it hardly change the choice. What helped is the
# fit before the choice, not IHT. The methods that do better fit before each choice (OMP, the lasso)
# or once before the only one (magnitude). Remember this when you prune networks: **train, then prune,
# then train again.**
#
# One warning. Keeping the largest weights is *sure* to be the exact answer only if the features are
# uncorrelated and of equal length. Without the second fit it can be terrible, as the last line shows.
#
# ## Two questions that look like one
#
# S0 says in words: "keep the performance while the number of parameters is minimal". Its formula says:
# least loss with at most $k$ parameters. These are two different questions. Here is the best loss for
# each $k$, by brute force. The formula reads the plot from below: choose $k$, look up. The words read
# it from the left: choose a loss, go to the right, and stop at the first $k$ whose loss is small enough.

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure: a budget, or a loss to keep
assert from_full > found["IHT"][-1] + 20
assert plain > 2 * best and again < 1.5 * best
A, b = problem(0.5, seed=3)
losses = [float(squared_error(A, b, best_subset(A, b, k))) for k in range(13)]
allowed = 1.1 * losses[-1]
fewest = next(k for k, loss in enumerate(losses) if loss <= allowed)

figure, (axes,) = new_figure(height=3)
axes.plot(range(13), losses, "o-", color=BLUE, label="best subset of k")
axes.axhline(allowed, color=RED, linestyle="--", label="the full fit's loss + 10 %")
axes.axvline(8, color=GREEN, linestyle=":", label="a budget of k = 8")
axes.set(xlabel="k, weights that stay", ylabel="loss L", ylim=(0, None))
axes.set_title(f"A budget of 8 uses all 8. To keep the loss within 10 %, {fewest} are enough")
axes.legend(frameon=False)
assert losses == sorted(losses, reverse=True) and fewest == 4 and losses[3] < 1.1 * allowed

Picture(
    figure,
    "Line: the best loss falls steeply up to three weights and is almost flat after that; three are "
    "just above the allowed loss, four just below it.",
)

# %% [markdown]
# ## How large should λ be?
#
# S4 asks this and answers: cross-validation. Right. Cut the rows into folds. For each fold, fit on all
# other rows, for every $\lambda$, and measure the error on the fold. Take the $\lambda$ with the least
# mean error (Stone, 1974). S4 then describes a single hold-out set, which is a noisier thing.
#
# A fit knows no intercept here. So subtract the means of the features before the fit, and add the mean
# of the targets to the prediction. Careful: *whose* means?
#
# ## Exercise 6: validate without a leak
#
# `folds` is a list of pairs (training rows, validation rows), `penalties` a list of numbers, and
# `ridge(features, targets, penalty)` is given. Take the mean within each fold first, then the mean of the
# folds, so that each fold counts once. Return a tensor with one error for each penalty.


# %% exercise="validation_errors"
def validation_errors(features: torch.Tensor, targets: torch.Tensor, penalties, folds):
    """For each λ the mean squared error on the folds' validation rows, averaged over the folds.

    A tensor (λ,) in the features' dtype. Each fold counts once, however many rows it has.
    """
    ### BEGIN SOLUTION
    rows = []
    for training, validation in folds:
        X, y = features[training], targets[training]
        errors = []
        for penalty in penalties:
            theta = ridge(X - X.mean(dim=0), y, penalty)
            predicted = (features[validation] - X.mean(dim=0)) @ theta + y.mean()
            errors.append((predicted - targets[validation]).square().mean())
        rows.append(torch.stack(errors))
    return torch.stack(rows).mean(dim=0)
    ### END SOLUTION


# %% check="validation_errors" points=2
check(validation_errors)

# %%
made = torch.Generator().manual_seed(0)
A = torch.randn(40, 20, generator=made, dtype=torch.float64)
truth = torch.tensor([2.0, -1.5, 1.0, 0.5] + 16 * [0.0], dtype=torch.float64)
b = A @ truth + 2 * torch.randn(40, generator=made, dtype=torch.float64)

prices = [0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0]


def lasso(features, targets, penalty):
    return ista(features, targets, penalty, steps=150)


errors = cross_validation_errors(lasso, A, b, prices, k_folds(40, 5))
mean, spread = errors.mean(dim=0), errors.std(dim=0) / math.sqrt(5)
chosen = int(mean.argmin())
simplest = max(i for i in range(len(prices)) if mean[i] <= mean[chosen] + spread[chosen])
kept = [int(l0(lasso(A - A.mean(0), b - b.mean(), price))) for price in prices]

# %% tags=["collapsed"] slide=True
# Figure: the validation error of each λ
figure, (axes,) = new_figure()
axes.errorbar(range(len(prices)), mean, spread, fmt="o-", color=BLUE, capsize=3)
axes.plot(chosen, mean[chosen], "o", color=RED, markersize=10, label="least error")
axes.plot(
    simplest, mean[simplest], "s", color=GREEN, markersize=10, label="simplest within the bar"
)
labels = [f"{price:g}\n{k}" for price, k in zip(prices, kept, strict=True)]
axes.set_xticks(range(len(prices)), labels)
axes.set(xlabel="λ, and below it how many of the 20 weights stay", ylabel="validation error")
axes.set_title(
    f"λ = {prices[chosen]:g} predicts best; λ = {prices[simplest]:g} is within one standard error"
)
axes.legend(frameon=False)
assert prices[chosen] == 20 and prices[simplest] == 40 and kept[0] == 20
assert kept[simplest] < kept[chosen]

Picture(
    figure, "Validation error with error bars against λ: high at 0, least at 20, high beyond 80."
)

# %% [markdown]
# Too small a $\lambda$ fits noise, too large a one forgets the signal. The green square follows a
# common rule: the simplest model whose error is within one standard error of the best. For compression
# there is a blunter way: fix $k$, and take the $\lambda$ that gives it.
#
# ## The score that you chose by is too good
#
# You tried many $\lambda$ and reported the least error. Part of that least error is luck. And it
# gets much worse if you *choose features* before the folds are cut. Here is a disaster in a few lines:
# 50 rows, 2000 features, and targets that are **pure noise**. Nothing can predict them. An honest
# error is 1 or more, the variance of the targets.
#
# **Guess before you run:** we keep the 5 features that correlate best with the targets, then validate
# on five folds. Does it matter whether we choose them before or inside the folds?


# %% slide=True
def noise_error(seed: int, choose_inside: bool) -> float:
    """Five-fold error of ridge on five features chosen from 2000, where all is noise."""
    made = torch.Generator().manual_seed(seed)
    X = torch.randn(50, 2000, generator=made, dtype=torch.float64)
    y = torch.randn(50, generator=made, dtype=torch.float64)

    def choose(rows):
        part, level = X[rows], y[rows].mean()
        return ((part - part.mean(0)).T @ (y[rows] - level)).abs().topk(5).indices

    errors = []
    for fold in k_folds(50, 5, seed=seed):
        features = choose(fold[0] if choose_inside else torch.arange(50))
        errors.append(cross_validation_errors(ridge, X[:, features], y, [1.0], [fold]))
    return float(torch.stack(errors).mean())


leaky, honest = (sum(noise_error(s, how) for s in range(20)) / 20 for how in (False, True))
print(f"chosen on all rows, before the folds: error {leaky:.2f}")
print(f"chosen inside each fold:              error {honest:.2f}")

# %% [markdown] slide="Repairing a formula"
# Chosen before, five columns of noise seem to explain almost half of another column of noise. The
# validation rows had helped to choose, so they were no longer new. Everything that is learned from data
# belongs *inside* the fold: means, features, masks. And once $\lambda$ is chosen, its error has to be
# measured again on rows that nobody has touched (Hastie, Tibshirani, Friedman, 2009).
#
# ## Repairing a formula
#
# Now to S3. It calls this "the absolute value of each weight":
#
# $$|w_i| = \frac{w_i}{\|W\|_1}$$
#
# and prunes where it is below a threshold. Try it on $W = (3, -4, 1)$: the "absolute values" are 0.375,
# −0.5 and 0.125, and at a threshold of 0.2 only the first weight stays. The largest one is gone. What was
# meant is each weight's share of the total.
#
# S3 also says which weights are unimportant: those "smaller than the mean". Read it with magnitudes,
# to be kind: a weight stays if $|w| \ge$ the mean of all $|w|$. How many is that? Nobody asked for this
# number. It just comes out.
#
# ## Exercises 7 and 8: the repaired formula; the mean rule and its k


# %% exercise="relative_magnitude"
def relative_magnitude(weight: torch.Tensor) -> torch.Tensor:
    """Each weight's share of ‖W‖₁, by magnitude, in weight's shape and dtype; not all are zero."""
    ### BEGIN SOLUTION
    magnitude = weight.abs()
    return magnitude / magnitude.sum()
    ### END SOLUTION


# %% check="relative_magnitude" points=1
check(relative_magnitude)


# %% exercise="kept_by_mean"
def kept_by_mean(weight: torch.Tensor) -> int:
    """How many weights have at least the mean magnitude: the k that the mean rule really keeps."""
    ### BEGIN SOLUTION
    magnitude = weight.abs()
    return int((magnitude >= magnitude.mean()).sum())
    ### END SOLUTION


# %% check="kept_by_mean" points=1
check(kept_by_mean)

# %%
count_kept = yours("kept_by_mean")
tiny, tokenizer = pretrained.tiny()
tiny.to(device)

made = torch.Generator().manual_seed(0)
tensors = {
    "evenly spread": torch.rand(100_000, generator=made) - 0.5,
    "bell-shaped": torch.randn(100_000, generator=made),
    "TinyLM, one MLP matrix": tiny.state_dict()["blocks.0.mlp.up.weight"],
    "the same but for one weight of 100,000": None,
}
giant = tensors["TinyLM, one MLP matrix"].clone()
giant[0, 0] = 100_000
tensors["the same but for one weight of 100,000"] = giant
shares = {name: 100 * count_kept(tensor) / tensor.numel() for name, tensor in tensors.items()}
for name, share in shares.items():
    print(f"{name:38} the mean rule keeps {share:5.1f} %")

# %% [markdown]
# The rule decides for you how much to prune, and one odd weight changes its mind: in the last line it keeps that weight alone. A budget is yours
# to set: choose $k$, and let the projection find the threshold.
#
# ## Real networks
#
# Three small networks that read handwritten digits, 64-300-100-10, trained with different seeds. Then
# the projection: the largest weights stay, all in one stroke. Either of the whole network (**global**)
# or of each layer by itself (**per layer**).
#
# Then the same with TinyLM and its 1,572,864 weights in linear layers; embedding and norms stay as they are.
#
# **Guess before you run:** for the digits, global is better than per layer. For the language model,
# too?

# %%
data = Digits(*(part.to(device) for part in digits()))
networks = []
for seed in range(3):
    torch.manual_seed(seed)
    networks.append(DigitsMLP().to(device))
    train_digits(networks[-1], data, seed=seed)
weights_in_all = sum(w.numel() for w in prunable_weights(networks[0]).values())


def mean_accuracy(models: list[nn.Module]) -> float:
    """Accuracy on the 540 test images in percent, mean of the models."""
    each = [accuracy(model, data.test_images, data.test_labels) for model in models]
    return 100 * sum(each) / len(each)


def retrain(model, images, labels, masks, epochs):
    """In place: train on under the masks, which are held in every step."""
    weights, seen = prunable_weights(model), Digits(images, labels, images, labels)
    train_digits(model, seen, epochs, prepare=lambda opt: hold_masks(opt, weights, masks))


dense_accuracy = mean_accuracy(networks)
densities = [1.0, 0.5, 0.3, 0.2, 0.1, 0.05]
digit_curves = {}
for per_layer in (False, True):
    pruned = [[magnitude_pruned(m, d, per_layer) for m in networks] for d in densities]
    digit_curves[per_layer] = [mean_accuracy(models) for models in pruned]

tiny_densities = [1.0, 0.9, 0.7, 0.5, 0.3]
tiny_curves = {}
for per_layer in (False, True):
    pruned = [magnitude_pruned(tiny, d, per_layer) for d in tiny_densities]
    tiny_curves[per_layer] = [tiny_quality(m, tokenizer).bits_per_byte for m in pruned]

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure behind a guess: pruning digits and TinyLM
assert 0.5 < leaky < 0.62 and honest > 1
printed = torch.tensor([3.0, -4.0, 1.0]) / 8
assert printed.tolist() == [0.375, -0.5, 0.125] and (printed >= 0.2).tolist() == [
    True,
    False,
    False,
]
values = list(shares.values())
assert 49 < values[0] < 51 and 41 < values[1] < 44 and 38 < values[2] < 46
assert count_kept(giant) == 1
assert dense_accuracy > 96.5 and digit_curves[False][3] > digit_curves[True][3] + 3
assert sum(w.numel() for w in prunable_weights(tiny).values()) == 1_572_864
assert [math.comb(P, k) for P, k in ((2, 1), (12, 3), (40, 10))] == [2, 220, 847_660_528]
logarithm = math.lgamma(1_572_865) - math.lgamma(157_287) - math.lgamma(1_572_864 - 157_286 + 1)
assert int(logarithm / math.log(10)) + 1 == 222_057

figure, (left, right) = new_figure(columns=2)
for per_layer, colour in ((False, BLUE), (True, ORANGE)):
    label = "per layer" if per_layer else "global"
    zeros = [100 * (1 - d) for d in densities]
    left.plot(zeros, digit_curves[per_layer], "o-", color=colour, label=label)
    zeros = [100 * (1 - d) for d in tiny_densities]
    right.plot(zeros, tiny_curves[per_layer], "o-", color=colour, label=label)
left.set(xlabel="weights set to zero (%)", ylabel="test accuracy (%)", title="Digits: global wins")
right.set(xlabel="weights set to zero (%)", ylabel="bits per byte (lower is better)")
right.set(title="TinyLM: per layer wins")
left.legend(frameon=False)
dense_bits, half_bits = tiny_curves[False][0], tiny_curves[False][3]
assert tiny_curves[False][1] < 1.01 * dense_bits and half_bits > 1.1 * dense_bits
assert tiny_curves[True][3] > 1.1 * dense_bits
assert all(tiny_curves[True][i] < tiny_curves[False][i] for i in (3, 4))

predict(
    "One budget for the whole of TinyLM, or one for each layer: which loses less at half the weights?",
    ["one budget", "one for each layer", "no difference"],
    "one for each layer" if tiny_curves[True][3] < half_bits else "one budget",
    Picture(
        figure,
        "Two plots: digits accuracy falls after 70 % zeros, later for global; TinyLM's bits per "
        "byte rise after 30 % zeros, less for per layer.",
    ),
)

# %% [markdown]
# A tenth of a language model's weights vanish without a trace. Half of them do not. And the winner
# changes sides. For the digits a budget for each layer starves the small last layer, which has few
# weights and needs them. In TinyLM the layers' weights differ in scale, and a global threshold
# strips the layers whose weights happen to be small. **Magnitudes are comparable only where scales
# are**: in the digits network, multiply one layer, weights and biases, by ten and divide the next layer's
# weights by ten. ReLU lets the factor through, so the function is the same, but the global choice is
# another. Chapter 03 finds better scores.
#
# ## Train again, under the mask
#
# A pruned network is not finished. The weights that stay can take over the work of those that went, if
# they are trained once more. The zeros must stay zeros. S0's sample does something else: it zeroes
# the weights below 0.1 of a **fresh** network and *then* trains, with no mask.
#
# **Guess before you run:** after that training, how many of the zeros are left?

# %% tags=["nbval-ignore-output"] slide=True
results = {}
for start, threshold in (("PyTorch", 0.0), ("PyTorch", 0.05), ("PyTorch", 0.1), ("Keras", 0.1)):
    torch.manual_seed(0)
    fresh = DigitsMLP().to(device)
    if start == "Keras":  # how Keras begins: wider limits, and biases of zero
        for module in fresh.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    weights = prunable_weights(fresh)
    apply_masks(weights, {name: w.abs() >= threshold for name, w in weights.items()})
    stay = [100 * int(l0(w)) / w.numel() for w in weights.values()]
    before = 1 - sum(int(l0(w)) for w in weights.values()) / weights_in_all
    train_digits(fresh, data, epochs=5)
    after = 1 - sum(int(l0(w)) for w in weights.values()) / weights_in_all
    results[start, threshold] = (before, after, mean_accuracy([fresh]), stay)
    print(
        f"{start:7} threshold {threshold:4}: {100 * before:3.0f} % zeros, "
        f"{100 * after:3.0f} % after training, accuracy {results[start, threshold][2]:.0f} %; stay "
        f"in the three layers: {', '.join(f'{share:.0f} %' for share in stay)}"
    )

# %% [markdown] slide="Train again"
# At 0.05 training refills the zeros: gradients know nothing of a mask. (Those that stay zero get no
# gradient: their pixel is black in every image, or their neuron is never switched on.)
#
# At 0.1, S0's own number, it depends on who made the fresh weights. PyTorch draws them up to
# $1/\sqrt{\text{inputs}}$ in size, which is 0.058 for 300 inputs and 0.1 for 100. So two whole layers are
# zero from the start. Learning can start only from the random biases, and it starts late. Keras, which S0
# uses, draws up to $\sqrt{6 / (\text{inputs} + \text{outputs})}$ (Glorot and Bengio, 2010), with biases of
# zero. In a network as small as ours that is 0.13, 0.12 and 0.23: 22, 19 and 58 % of the weights stay, and
# the network learns as if nothing had happened. But from 784 inputs to 256 outputs the limit is 0.076.
# There nothing stays; and with biases of zero no gradient passes, so such a layer stays zero for ever. A
# threshold on fresh weights measures the initialiser.
#
# To hold the zeros, mask the weights after each step. And mask what the optimizer **remembers**. With
# momentum $\mu$ and step $\eta$, SGD keeps a velocity $v$:
#
# $$v \leftarrow \mu v + \nabla L, \qquad w \leftarrow w - \eta v .$$
#
# The velocity still holds gradients from before the pruning. If you mask only
# the weights, it goes on collecting; on the day the mask changes, such a weight leaps.
#
# ## Exercise 9: a step that cannot revive
#
# `mask` is True where a weight stays. Return both: pruned weights are zero after the step (even if they
# were not before), and so is their velocity.


# %% exercise="masked_momentum_step"
def masked_momentum_step(
    weight: torch.Tensor,
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    mask: torch.Tensor,
    rate: float,
    momentum: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, velocity) after one SGD step with momentum under which no pruned weight returns.

    The inputs stay as they are; mask is bool, True where a weight stays.
    """
    ### BEGIN SOLUTION
    velocity = (momentum * velocity + gradient) * mask
    return (weight - rate * velocity) * mask, velocity
    ### END SOLUTION


# %% check="masked_momentum_step" points=2
check(masked_momentum_step)

# %% [markdown]
# The library's `hold_masks` does this for any optimizer. Here is what it buys, with a control that
# belongs into every such table: the dense network, trained just as much longer.

# %% tags=["nbval-ignore-output"]
step_once = yours("masked_momentum_step")
w, v = torch.tensor([0.0, 2.0]), torch.ones(2)
for _ in range(50):
    w, v = step_once(w, v, torch.ones(2), torch.tensor([False, True]), 0.01, 0.9)
print(f"50 steps with momentum: pruned weight {w[0]:.0f}, its velocity {v[0]:.0f}")

table = {}
for density in (1.0, 0.1, 0.05):
    models = copy.deepcopy(networks)
    for model in models:
        masks = magnitude_masks(prunable_weights(model), density)
        retrain(model, data.train_images, data.train_labels, masks, epochs=6)
    most = max(sum(int(l0(w)) for w in prunable_weights(model).values()) for model in models)
    at_once = digit_curves[False][densities.index(density)]
    table[density] = (at_once, mean_accuracy(models), most)

print("weights left   at once   trained again")
for density, (at_once, again, _) in table.items():
    print(f"{100 * density:>10.0f} %{at_once:>9.1f} %{again:>12.1f} %")

# %% [markdown]
# At one weight in ten, accuracy comes back from ruins to within a point of the dense network.
#
# A language model is slower to train: TinyLM took an hour. Here it gets 16 steps, 16,384 tokens from all
# over the Bible. That is one in 67 of its training text, and one in 500 of the tokens it learned from, since
# it read the text seven times. The dense model gets them too, as the control.
#
# **Guess before you run:** how much of the damage do 16 steps repair?

# %% tags=["nbval-ignore-output"] slide=True
train_text, _ = split(bible_chapters("kjv"))
train_tokens = tokens_of(tokenizer, train_text).to(device)


def train_again(model: torch.nn.Module, density: float, steps: int = 16) -> float:
    """In place: TinyLM pruned per layer, trained under its mask; bits per byte afterwards."""
    weights, order = prunable_weights(model), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    hold_masks(optimizer, weights, magnitude_masks(weights, density, per_layer=True))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        inputs, targets = random_windows(train_tokens, 8, 128, order)
        logits = model(inputs).flatten(0, 1)  # (B, T, V) -> (B · T, V)
        loss = torch.nn.functional.cross_entropy(logits, targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(int(l0(w)) for w in weights.values()) <= density * 1_572_864 + len(weights)
    return tiny_quality(model, tokenizer).bits_per_byte


print("TinyLM's weights left   at once   16 steps later   (bits per byte)")
healed = {}
for density in watch((1.0, 0.5, 0.3), "trained again"):
    at_once = tiny_curves[True][tiny_densities.index(density)]
    healed[density] = train_again(copy.deepcopy(tiny).requires_grad_(), density)
    print(f"{100 * density:>21.0f} %{at_once:>10.2f}{healed[density]:>17.2f}")

# %% [markdown]
# The dense control does not gain: 16 steps teach it nothing new, they even disturb it a little. So what the
# pruned models gain is repair, not more training. At five weights in ten about three tenths of the damage
# is undone, at three weights in ten about four. (How far patience goes is chapter 03's subject.)
#
# ## What did we save?
#
# S2 prunes a model, prints its parameter count, finds it unchanged, and blames the random data. The
# reason is simpler. A zero is a number. It stands in its place, takes its 32 bits, and is multiplied
# like any other.

# %% tags=["nbval-ignore-output"]
tenth = magnitude_pruned(tiny, 0.1)
print(f"parameters: {count_parameters(tiny):,} before, {count_parameters(tenth):,} after")

tokens = torch.randint(0, 2048, (2, 256), device=device)
with torch.no_grad():
    speed = latency(lambda: tenth(tokens), lambda: tiny(tokens), repeats=15)
print(f"time for a pass, 90 % zeros ÷ dense: {speed.ratio:.2f}")

# %% [markdown] slide="What did we save?"
# The file does not shrink by itself either. Zeros have to be left out, and then one must note *where*
# they were. Let a tensor have $P$ weights of $b$ bytes each, row after row, $k$ of them not zero. The $k$
# values are stored in their order, and beside them one of these:
#
# | form | what is stored beside the values | bytes |
# |---|---|---|
# | bitmap | one bit for each of the $P$ weights: zero or not | $bk + P/8$ |
# | gaps | for each value its distance from the one before, 8 bits | $(b+1)\,k$, a little more if gaps exceed 255 |
# | indices | for each value its position, 32 bits | $(b+4)\,k$ |
#
# A gap above 255 does not fit into 8 bits. Then a *filler* stands in between: a value of zero with the gap
# 255 (Han, Mao, Dally, 2016). The reader adds the gaps up, and has the positions.
#
# The scheme `Sparse` takes the smallest form for each tensor, or the dense one. A file holds a "values" and a
# "bitmap", "gaps" or "indices" for each. Files, measured:

# %%
shares_kept = [1.0, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
stored, forms = [], []
for density in shares_kept:
    half = {k: t.half() for k, t in magnitude_pruned(tiny, density, True).state_dict().items()}
    packed = pack_tensors(half, dict.fromkeys(half, Sparse()))
    back = unpack_tensors(packed, half)
    assert all(torch.equal(back[name], half[name]) for name in half)
    stored.append(size(packed).bytes / 1e6)
    forms.append({n.split(":")[1] for n in packed if ":" in n} & {"bitmap", "gaps", "indices"})

# %% tags=["collapsed"] slide=True
# Does it hold here? And a figure: the sparse file's size
assert results["PyTorch", 0.05][0] > 0.6 and results["PyTorch", 0.05][1] < 0.1
assert results["PyTorch", 0.1][0] > 0.9
assert results["PyTorch", 0.1][2] < results["PyTorch", 0.0][2] - 20
assert results["PyTorch", 0.1][3][1:] == [0, 0] and min(results["Keras", 0.1][3]) > 15
assert results["Keras", 0.1][2] > results["PyTorch", 0.0][2] - 2
assert [limit <= 0.1 for limit in (1 / math.sqrt(64), 1 / math.sqrt(300), 1 / math.sqrt(100))] == [
    False,
    True,
    True,
]
limits = [round(math.sqrt(6 / both), 3) for both in (64 + 300, 300 + 100, 100 + 10, 784 + 256)]
assert limits == [0.128, 0.122, 0.234, 0.076]
assert w[0] == 0 and v[0] == 0
assert all(most <= round(density * weights_in_all) for density, (_, _, most) in table.items())
assert table[0.1][1] > table[0.1][0] + 15 and table[0.1][1] > dense_accuracy - 1
assert 66 < len(train_tokens) / (16 * 8 * 128) < 68 and 7 < 4000 * 8 * 256 / len(train_tokens) < 8
assert abs(healed[1.0] - dense_bits) < 0.03
repaired = [  # of the damage that is left beside the control
    (at_once - healed[density]) / (at_once - healed[1.0])
    for density, at_once in zip((0.5, 0.3), tiny_curves[True][3:5], strict=True)
]
assert 0.24 < repaired[0] < 0.36 and 0.33 < repaired[1] < 0.45
assert count_parameters(tenth) == count_parameters(tiny)
assert speed.ratio > 0.4  # a tenth of the work, and nowhere near a tenth of the time

dense_megabytes = size({k: t.half() for k, t in tiny.state_dict().items()}).bytes / 1e6
figure, (axes,) = new_figure(height=3.3)
zeros = [100 * (1 - d) for d in shares_kept]
axes.plot(zeros, stored, "o-", color=BLUE, label="sparse file, indices counted")
ideal = [dense_megabytes - (1 - d) * 1_572_864 * 2 / 1e6 for d in shares_kept]
axes.plot(zeros, ideal, ":", color=BLACK, label="if places cost nothing")
axes.axhline(dense_megabytes, color=RED, linestyle="--", label="dense float16 file")
axes.set(xlabel="weights set to zero (%)", ylabel="file (MB)", ylim=(0, None))
axes.set_title("Half of the linear layers' weights are zero, and the file is a third smaller")
axes.legend(frameon=False)
assert 0.6 < stored[3] / dense_megabytes < 0.7 and forms[3] == {"bitmap"} and "gaps" in forms[6]

Picture(
    figure, "Line: file size falls with sparsity, above the ideal line; embedding stays at 0.8 MB."
)

# %% [markdown] slide="Learn the mask"
# Compare with chapter 00: 4 bits for each weight took TinyLM to a quarter of its float16 size with
# hardly any loss. Zeroing half of it costs more quality and saves less. Pruning has to be good to be
# worth it. (What remains at the right is the embedding, which was not pruned; the gap between the lines
# is the price of the places.)
#
# ## Learn the mask
#
# All methods so far train, then choose. Can training choose? $\|\theta\|_0$ has no gradient: it stays
# the same until it jumps. Louizos, Welling and Kingma (2018) make it smooth by chance. Give each weight
# a **gate** $g \in [0, 1]$ that multiplies it. (The paper's letter is $z$.) The gate is random: draw $u$
# evenly from $(0, 1)$, and
#
# $$s = \text{sigmoid}\Big(\tfrac{1}{\beta}\big(\log\tfrac{u}{1-u} + \log\alpha\big)\Big), \qquad
# g = \min\big(1, \max(0,\; s(\zeta - \gamma) + \gamma)\big).$$
#
# $\log\alpha$ is learned: the larger, the more open is the gate. $\beta = \frac23$ says how sharply it
# decides. $\gamma = -0.1$ and $\zeta = 1.1$ stretch $s$ beyond $[0, 1]$ before it is cut off, so that $g$
# is *exactly* 0 or 1 with positive chance.

# %% tags=["collapsed"] slide=True
# Figure: how a gate behaves
draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
figure, axes = new_figure(columns=3, height=2.8)
for one, log_alpha in zip(axes, (-2.0, 0.0, 2.0), strict=True):
    gates = sample_gates(torch.full_like(draws, log_alpha), draws)
    one.hist(gates.numpy(), bins=40, range=(0, 1), color=PURPLE)
    measured, formula = float((gates > 0).float().mean()), open_probability(torch.tensor(log_alpha))
    one.set(title=f"log α = {log_alpha:g}: open {100 * measured:.0f} %", xlabel="gate g", yticks=[])
    assert abs(measured - formula) < 0.01
axes[0].set_ylabel("how often")
figure.suptitle("A hard-concrete gate is often exactly 0 or exactly 1")

Picture(figure, "Three histograms of the gate: piled up at 0, at both ends, and piled up at 1.")

# %% [markdown]
# The expected number of non-zeros is the sum of the chances that a gate is open. *That* is smooth in
# $\log\alpha$, and gradient descent can lower it.
#
# ## Exercise 10: the expected L0
#
# Find the chance that $g \ne 0$. When is $s(\zeta - \gamma) + \gamma > 0$? Solve for $u$. (It ends in a sigmoid.)


# %% exercise="expected_open_gates"
def expected_open_gates(log_alpha: torch.Tensor, beta: float, gamma: float, zeta: float):
    """Expected number of hard-concrete gates that are not zero, a 0-d tensor in log_alpha's dtype.

    It is there to be differentiated by log_alpha (any shape).
    """
    ### BEGIN SOLUTION
    return (log_alpha - beta * math.log(-gamma / zeta)).sigmoid().sum()
    ### END SOLUTION


# %% check="expected_open_gates" points=2
check(expected_open_gates)

# %% [markdown]
# Now train weights and gates of one *fresh* digits network together, with the loss $L + \lambda\,
# \mathbb{E}\|g\|_0$. After training the gates are removed (`remove_gates`). The noise is left out: each gate
# becomes the one number
#
# $$\hat g = \min\big(1, \max(0,\; \text{sigmoid}(\log\alpha)\,(\zeta - \gamma) + \gamma)\big) .$$
#
# It is multiplied into its weight, and an ordinary linear layer with the weights $W \odot \hat g$ remains
# ($\odot$ multiplies entry by entry). Where $\hat g = 0$ stands a real zero.
#
# Beside it: the same number of weights chosen by magnitude, in one stroke, and retrained as long.

# %% tags=["nbval-ignore-output"]
PRICE, EPOCHS = 1e-3, 20
torch.manual_seed(0)
gated = add_gates(DigitsMLP().to(device))


def gated_loss(model, images, labels):
    return cross_entropy(model, images, labels) + PRICE * expected_l0(model)


train_digits(gated, data, EPOCHS, rate=0.05, loss=gated_loss)
learned = remove_gates(gated)
gates_left = sum(int(l0(w)) for w in prunable_weights(learned).values())
learned_density = gates_left / weights_in_all

stroke = magnitude_pruned(networks[0], learned_density)
again = copy.deepcopy(stroke)
masks = {name: w != 0 for name, w in prunable_weights(again).items()}
retrain(again, data.train_images, data.train_labels, masks, EPOCHS)
scores = {
    "hard concrete": mean_accuracy([learned]),
    "magnitude, one stroke": mean_accuracy([stroke]),
    "magnitude, trained again": mean_accuracy([again]),
}

print(f"gates left open: {100 * learned_density:.1f} % of {weights_in_all:,} weights")
for name, score in scores.items():
    print(f"{name:26} {score:.1f} %")

# %% [markdown]
# The gates found a sparse network in a single training, with no schedule and no threshold: only a
# price. You cannot order a number of weights, though; you set $\lambda$ and take what comes. And look
# at the last line. Plain magnitude, trained again for as long, is about as good here. A careful study
# found the same at large scale (Gale, Elsen, Hooker, 2019). Simple methods are hard to beat, so always
# put them beside yours.
#
# ## Exercise 11, your own: 92 % zeros
#
# The three digits networks are given, trained. Return copies with **at most 8 % of their weights not
# zero** (the weights of the three linear layers; biases are free) whose mean accuracy on the test
# images is **within two points** of the dense networks'. You get the training images only. `retrain`
# from above is there, and all of the library. Pruning alone will not do: at 8 %
# accuracy falls to about half. What brought it back, above? And how much training does it take?
#
# The check trains for a few seconds. It has three networks of its own, and there the ten digits go
# by other names: a 3 may be called 7. So only the models, images and labels that you are handed will
# help. Return one network for each model, in the same order.


# %% exercise="sparsify_digits"
def sparsify_digits(models: list[nn.Module], images: torch.Tensor, labels: torch.Tensor):
    """A copy of each trained DigitsMLP, in order, with at most 8 % of its weights not zero.

    The zeros stand in the weights themselves. `labels` names the ten digits in another way.
    """
    ### BEGIN SOLUTION
    pruned = copy.deepcopy(models)
    for model in pruned:
        for density, epochs in ((0.2, 2), (0.08, 6)):
            masks = magnitude_masks(prunable_weights(model), density)
            retrain(model, images, labels, masks, epochs)
    return pruned
    ### END SOLUTION


# %% check="sparsify_digits" points=4
check(sparsify_digits)

# %% [markdown] question="no_zeros" points=2
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **Explain without a formula why weight decay never makes an exact zero and a soft threshold does**,
# and why plain gradient descent on the L1 penalty does not either.
#
# <!-- BEGIN SOLUTION -->
# Weight decay pulls with a force in proportion to the weight. The closer to zero, the weaker the
# pull: it gets small, and the least wish of the data holds it off zero. The L1 penalty pulls with the
# same force at any size, so a weight that the data want less than that goes to zero and stays. But a
# gradient step has a finite length: it jumps over zero, to and fro, and never meets it. The soft
# threshold stops at zero on the way.
#
# *One point* for proportional against constant pull. *One point* for the step that jumps over.
# <!-- END SOLUTION -->

# %% [markdown] question="chosen_and_judged" points=2
# **You try 20 values of λ, and print the smallest of 20 validation errors as the error of your
# method.** Why is it too good, even if nothing leaked? What do you print instead, and when is the
# difference large?
#
# <!-- BEGIN SOLUTION -->
# Each of the 20 errors is a true error plus noise, and the smallest is likely one whose noise was
# low: you chose by the very number that you print. Choose by the validation set, then measure once on
# data that took no part, or choose inside each fold and judge outside (nested). The difference is
# large where the validation set is small, the candidates many and about equally good.
#
# *One point* for the choice by noise. *One point* for data that took no part in it.
# <!-- END SOLUTION -->

# %% [markdown]
# ## In numbers

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# The chapter in numbers
sparsify = yours("sparsify_digits")
sparse = sparsify(networks, data.train_images, data.train_labels)
sparse_accuracy = mean_accuracy(sparse)
sparse_weights = sparse[0].state_dict()
sparse_file = size(pack_tensors(sparse_weights, dict.fromkeys(sparse_weights, Sparse()))).bytes
dense_file = size(networks[0].state_dict()).bytes
print("exact zeros of 10: weight decay 0, L1 by gradient 0, L1 by soft threshold 7")
print(
    f"best subset found at ρ = 0.95: magnitude {found['magnitude'][-1]:.1f} %, OMP "
    f"{found['OMP'][-1]:.1f} %, lasso {found['lasso'][-1]:.1f} %, IHT {found['IHT'][-1]:.1f} %"
)
print(f"validation error on pure noise: {leaky:.2f} with a leak, {honest:.2f} without")
per_layer_bits = tiny_curves[True][3]
print(f"TinyLM, half of each layer zero: {dense_bits:.2f} -> {per_layer_bits:.2f} bits per byte,")
print(f"    16 steps later {healed[0.5]:.2f}")
print(f"TinyLM's file: {dense_megabytes:.2f} -> {stored[3]:.2f} MB")
print(
    f"digits at 92 % zeros: {dense_accuracy:.1f} -> {sparse_accuracy:.1f} %, "
    f"file {dense_file / sparse_file:.1f} times smaller"
)
assert 0.1 < learned_density < 0.25
assert abs(scores["hard concrete"] - scores["magnitude, trained again"]) < 1.5
assert sparse_accuracy > dense_accuracy - 1 and dense_file > 7 * sparse_file

# %% [markdown] slide="In numbers"
# What to take along. L0 is the right question, and only small cases can be answered exactly. L1 and L2
# are different questions, and only L1 makes zeros, with a thresholding step. Fit, choose, fit again.
# Hold the mask. Count the places of the zeros in the file. And magnitude is a score that you can
# beat: that is chapter 03.
