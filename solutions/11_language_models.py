# %% [markdown]
# # 11 · Language models
#
# **Which of all this works on a real language model, after training, without training?**
#
# Somebody hands you a trained model. You have its weights, a few pages of text, one processor and an
# evening. You cannot train it again. What do you do? There are six answers with names that everybody drops:
# Wanda, AWQ, GPTQ, SparseGPT, SmoothQuant, rotation. They are three ideas, each told twice. Here you build
# them all, find out on which models they fail and why, and put them into one table, in bytes of files.
#
# * **Afterwards you can** say what an error in a weight costs before you run the model; round and prune
#   with repair, column by column; take an outlier out of the way without changing the function; judge a
#   compressed model by more than its perplexity; and read a paper's table.
# * **You need** chapters 03 (Optimal Brain Surgeon) and 05 (grids, groups), and what a Cholesky
#   factorization is.
# * **Time:** two sittings, of two and a half and three hours. The first ends behind Exercise 6, where it
#   says **Pause**.
# * **Core:** Exercises 1, 2, 4, 5, 7, 9 and the whole of section 4. **Extra:** folding (3), SparseGPT's
#   choice (6), the rotation (8), flips (10), your own recipe (11).
#
# Two models. **TinyLM** is the clean witness: its weights were never rounded to fewer than 16 bits.
# **SmolLM2-135M**, in its version for chats ("Instruct"), is the real one. But the file that it comes in
# holds its weights in **Q4_1**, 16 levels for each 32 of them (chapter 05 found out). So what you see of it
# is what a *second* rounding costs. We shall say so beside every table.
#
# ## 1. Where does rounding fail?
#
# Round every weight of TinyLM's linear layers to the nearest of $2^n$ levels. 64 neighbours share a
# scale and a zero-point: chapter 05's affine scheme. The embedding stays as it is.

# %% tags=["collapsed"]
# Imports
import copy
import math
from itertools import islice

import torch
import torch.nn.functional as F
from IPython.display import display

from course_lib.data.text import wikipedia_articles
from course_lib.exercises import check, hint, yours
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear, pack_model, pack_tensors, unpack_model
from course_lib.formats.sparse import Sparse
from course_lib.language_models import recipes
from course_lib.language_models.awq import clipped, scaled
from course_lib.language_models.gptq import gptq as library_gptq
from course_lib.language_models.quantized_inputs import quantized_inputs
from course_lib.language_models.rotation import random_hadamard, rotated
from course_lib.language_models.smoothquant import input_maxima, smoothed
from course_lib.language_models.wanda import row_mask, wanda_score
from course_lib.measure.divergence import estimate, paired_difference, token_divergences
from course_lib.measure.quality import token_losses
from course_lib.measure.size import size
from course_lib.measure.yardstick import (
    held_out_sample,
    smollm2_calibration,
    spread_windows,
    tiny_calibration,
    tiny_quality,
    wikipedia_sample,
)
from course_lib.models import pretrained
from course_lib.models.llama import Llama, rotate
from course_lib.models.moments import Moments, output_error
from course_lib.models.parts import linear_weights, record_inputs, walk_blocks
from course_lib.models.walk import treat_blocks
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
from course_lib.plots.redundancy import draw_heat_map
from course_lib.pruning.masks import magnitude_pruned
from course_lib.quantization.calibration import mse_range

torch.set_grad_enabled(False)
tiny, tokenizer = pretrained.tiny()
has_smollm2 = pretrained.has_smollm2()
if has_smollm2:
    smol, smol_tokenizer = pretrained.smollm2()

# %%
windows = tiny_calibration(tokenizer)  # (B, T) = (32, 256), of the text TinyLM was trained on
made = {}  # name -> (model, how each of its weights goes into a file)


def groups(bits: int) -> Scheme:
    """Affine codes; 64 weights share a scale and a zero-point."""
    return Scheme(Format(bits), granularity=64)


def held_out_bits(model: torch.nn.Module) -> float:
    """On held-out text."""
    return tiny_quality(model, tokenizer).bits_per_byte


dense_bits = held_out_bits(tiny)
print(f"TinyLM           {dense_bits:.3f} bits per byte")
nearest_bits = {}
for bits in (8, 4, 3, 2):
    made[f"nearest, {bits} bits"] = recipes.nearest_model(tiny, groups(bits))
    nearest_bits[bits] = held_out_bits(made[f"nearest, {bits} bits"][0])
    print(f"  nearest, {bits} bits {nearest_bits[bits]:.3f}")

# %% [markdown] slide="1. Where"
# Four bits cost a hundredth of a bit per byte, three cost 0.075, two cost more than half a bit. The
# question is **where**. Chapter 05 measured the error of the weights. But nobody reads the weights. What
# the next layer is given is $Wx$, so ask for the error of the *output*. Let $\delta$ be one row of $\hat W
# - W$, and let the columns $x$ run over many tokens:
#
# $$\mathbb{E}\big[(\delta^\top x)^2\big] \;=\; \delta^\top G\, \delta , \qquad
#   G = \mathbb{E}[x\,x^\top] .$$
#
# $G$, the **Gram matrix**, is $I \times I$ for a layer with $I$ inputs. All the text that you ever
# showed the layer is in it; you may forget the tokens. (Twice $G$ is the Hessian of this loss, the same
# for every row: chapter 03.) And its diagonal, $G_{jj} = \mathbb{E}[x_j^2]$, is the **power** of input $j$.
#
# ## Exercise 1: second moments
#
# Text comes in batches. And a model runs in half precision: in `float16` a sum beyond 65,504 is
# infinite, and `bfloat16` has three digits.


# %% exercise="second_moments"
def second_moments(batches: list[torch.Tensor]) -> torch.Tensor:
    """The mean of x xᵀ over all rows x of all batches, (I, I), in float32; in float64 if they are.

    Batches are (n, I), all of one dtype; n may differ and be 0, not everywhere. Half precision is
    made float32 before anything is multiplied.
    """
    ### BEGIN SOLUTION
    wide = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in batches]
    total = sum(x.T @ x for x in wide)  # (I, n) (n, I) -> (I, I)
    return total.div(sum(map(len, wide)))
    ### END SOLUTION


# %% check="second_moments" points=1
check(second_moments)

# %% [markdown]
# One **walk** collects $G$ for all layers: block by block, from the first to the last, and in a block
# stage by stage, since query, key and value share an input, and so do gate and up. Whatever is done to
# a layer is done there and then, and the walk goes on with what the treated layer gives. Below, nothing
# is done but remembering. (`stage.moments.gram` is your $G$.)
#
# **Guess before you run:** at 3 bits, the relative error of the *weights* is nearly the same in all 28
# matrices. And that of the outputs, from the best to the worst matrix?

# %%
moments = {}  # name of a weight -> the moments of what flows into it, in the exact model


def remember(stage) -> None:
    moments.update(dict.fromkeys(stage.weight_names, stage.moments))


treat_blocks(copy.deepcopy(tiny), windows, remember)


def output_share(change: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> float:
    """Error of the output, as a share of the output, both root mean squares."""
    return (output_error(change, gram).sum() / output_error(weight, gram).sum()).sqrt().item()


def power_met(rows: torch.Tensor, gram: torch.Tensor) -> float:
    """Σ rᵀGr over all rows r, beside what they would give if each met the mean power of an input."""
    blind = rows.square().sum() * gram.diagonal().mean()
    return (output_error(rows, gram).sum() / blind).item()


weight_share, rounding_share, met_by_errors, met_by_weights = {}, {}, {}, {}
rounded, _ = made["nearest, 3 bits"]
for name, weight in linear_weights(tiny).items():
    gram, change = moments[name].gram, rounded.get_parameter(name) - weight
    weight_share[name] = (change.norm() / weight.norm()).item()
    rounding_share[name] = output_share(change, weight, gram)
    met_by_errors[name], met_by_weights[name] = power_met(change, gram), power_met(weight, gram)

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Does it hold here? And a figure behind a guess: output errors of all 28 matrices
assert 1.172 < dense_bits < 1.174 and nearest_bits[8] < dense_bits + 0.002
assert 0.008 < nearest_bits[4] - dense_bits < 0.013
assert 0.07 < nearest_bits[3] - dense_bits < 0.08 and nearest_bits[2] > dense_bits + 0.6
kinds = ["query", "key", "value", "output", "gate", "up", "down"]
spread = max(rounding_share.values()) / min(rounding_share.values())
assert 0.18 < min(weight_share.values()) < max(weight_share.values()) < 0.21 and 2.5 < spread < 4
assert max(rounding_share, key=rounding_share.get).split(".")[-2] in ("gate", "up")
assert 0.9 < min(met_by_errors.values()) < max(met_by_errors.values()) < 1.1
assert max(met_by_weights, key=met_by_weights.get) == "blocks.1.attention.key.weight"
assert min(met_by_weights, key=met_by_weights.get) == "blocks.1.mlp.up.weight"
assert 7.5 < max(met_by_weights.values()) < 9 and 0.65 < min(met_by_weights.values()) < 0.75
table = torch.tensor(list(rounding_share.values())).view(4, 7)  # in the order of the model
figure, (axes,) = new_figure(height=3)
draw_heat_map(
    axes, 100 * table.numpy(), [f"block {b}" for b in range(4)], kinds, "output error (%)", ".0f"
)
axes.set_title(
    f"3 bits: alike as weights, but outputs err by {100 * table.min():.0f} to {100 * table.max():.0f} %"
)
predict(
    "The worst matrix's output error is how many times that of the best?",
    ["the same", "1.5 times", "3 times", "10 times"],
    f"3 times: from {100 * table.min():.0f} to {100 * table.max():.0f} %. The weights' own errors: "
    f"{100 * min(weight_share.values()):.0f} to {100 * max(weight_share.values()):.0f} %",
    Picture(
        figure,
        "Heat map of output errors in percent, 4 blocks by 7 kinds of matrices: "
        + "; ".join(
            f"block {b}: " + ", ".join(f"{100 * v:.0f}" for v in row) for b, row in enumerate(table)
        ),
    ),
)
for label, found in (("errors", met_by_errors), ("weights", met_by_weights)):
    low, high = min(found, key=found.get), max(found, key=found.get)
    print(
        f"{label:8}meet {found[low]:.2f} ({low}) to {found[high]:.2f} times ({high}) the mean power"
    )

# %% [markdown]
# The keys err least, by a tenth; gate and up in the middle of the model by a fifth and more, with the same
# levels and the same relative error of the weights. What differs? Not what the *errors* meet. In all 28
# matrices they meet the mean power of the inputs, to within a tenth. **Rounding errs blindly.** What differs is
# what the *weights* meet. The keys of block 1 were trained to lie where much flows in, eight times the mean
# power; its `up` meets less than the mean. So the one has a large output beside its error, the other a
# small one. (Reckon: the weights err by 19.5 %; $19.5 / \sqrt{8.23}$ is 7, and $19.5 / \sqrt{0.70}$ is 23.)
#
# Whoever knows $G$ need not err blindly. Write the price out, $\sum_{jk} \delta_j \delta_k G_{jk}$, and there
# are two ways to lower it: keep $\delta_j$ small where $G_{jj}$ is large (section 2), or choose signs that
# make the terms with $j \ne k$ cancel (section 3). Section 5 has a third: change what flows.
#
# ### What flows through a real model
#
# TinyLM is small and tame. Look at SmolLM2. Below stands the largest number in the **residual stream**, the
# vector of 576 numbers that each token carries from block to block, for the first token of a window and for
# all others.
#
# **Guess:** how many times is the largest of these numbers larger than a typical one?

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure behind a guess: the largest number in the residual stream, block by block
if has_smollm2:
    page = torch.tensor(smol_tokenizer.encode(wikipedia_sample()).ids[:1025])
    first, others, typical, strange = [], [], [], []
    for _, (stream, _, _) in walk_blocks(smol, page[:512][None]):
        size_of = stream[0].abs()  # (T, D)
        first.append(size_of[0].max().item())
        others.append(size_of[1:].max().item())
        typical.append(size_of[1:].median().item())
        strange.append(divmod(int(size_of[1:].argmax()), 576))  # (place − 1, number) of the largest
    assert (
        min(first[12:29]) > 20_000
        and max(others[12:28]) < 2_000
        and first[12] > 5_000 * typical[12]
    )
    assert min(others[3:10]) > 400 and max(others[3:10]) < 900 and strange[5][1] == 507
    assert smol_tokenizer.decode([int(page[1 + strange[5][0]])]) == " the"
    figure, (axes,) = new_figure(height=3.2)
    for values, name, colour in (
        (first, "largest, first token", RED),
        (others, "largest, all other tokens", BLUE),
        (typical, "median, all other tokens", BLACK),
    ):
        axes.semilogy(range(30), values, "o-", markersize=3, color=colour, label=name)
    axes.set(xlabel="block that is given it", ylabel="|x| in the residual stream")
    axes.set_title("SmolLM2: in blocks 12 to 28 the first token carries one number beyond 20,000")
    axes.legend(frameon=False)
    predict(
        "SmolLM2, block 20: how many times a typical number is the largest one?",
        ["10", "100", "1,000", "more than 5,000"],
        f"more than 5,000: {first[20]:,.0f} against a median of {typical[20]:.1f}",
        Picture(
            figure,
            "Lines over 30 blocks, logarithmic. The first token's largest number is near 800 in blocks 3 to 9, "
            f"{first[10]:,.0f} in block 10 and {first[11]:,.0f} in block 11, beyond 20,000 in blocks 12 to 28, and "
            "falls in the last. The largest of the other tokens is near 600 in blocks 3 to 9 and "
            f"{min(others[12:28]):,.0f} to {max(others[12:28]):,.0f} from block 12 to 27; their median is a few units.",
        ),
    )

# %% [markdown] slide="Wanda"
# These are **massive activations** (Sun, Chen, Kolter and Liu, 2024): one or two numbers, in always the same
# places, on very few tokens. In blocks 3 to 9 of this window some early “ the” carries one, too, at the same
# number 507 of 576. From block 12 on the first token alone does, whatever it says: in all of
# ten windows. Keep this picture. You will meet that token again.
#
# ## 2. Weigh errors by what flows in
#
# ### Wanda
#
# Set the weight $W_{ij}$ to zero and leave all others. Then $\delta$ has one entry, and
#
# $$\delta^\top G\,\delta = W_{ij}^2\, G_{jj} .$$
#
# Its root, $|W_{ij}| \cdot \sqrt{G_{jj}}$, is the score of **Wanda** (Sun et al., 2024): weight times the
# size of what meets it. It is Optimal Brain Damage of chapter 03 with the exact curvature, for
# each output by itself. And since it asks what happens to an output, weights are compared **within a row**.
#
# ## Exercise 2: Wanda's mask


# %% exercise="wanda_mask"
def wanda_mask(weight: torch.Tensor, inputs: torch.Tensor, density: float) -> torch.Tensor:
    """True where a weight stays: in each row, the round(density · I) largest |w_ij| · ‖x_j‖₂.

    weight (O, I), mask bool (O, I). ‖x_j‖₂ is the length of column j of the inputs (N, I), the root
    of its sum of squares. Of equal scores the first stay. weight and inputs have one dtype; reckon
    float16 in float32 or wider.
    """
    ### BEGIN SOLUTION
    wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    score = weight.abs() * torch.linalg.vector_norm(wide, dim=0)  # (O, I) · (I,)
    order = score.argsort(descending=True, stable=True)
    kept = order[:, : round(density * weight.shape[1])]
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, kept, True)
    ### END SOLUTION


# %% check="wanda_mask" points=2
check(wanda_mask)

# %% [markdown]
# **Guess before you run:** half of the weights of each row of TinyLM go. By how much does Wanda beat the
# magnitude? (To choose by magnitude is to believe that all inputs have one size. So your mask does it, too.)
#
# The last lines ask both models how uneven their inputs are: $\sqrt{G_{jj}}$ of the strongest of a layer's
# inputs, beside that of the median one. For SmolLM2 the first token of each window is left out.


# %% tags=["nbval-ignore-output"] slide=True
def by_magnitude(model: Llama) -> Llama:
    """Half of each row stays, by Wanda's rule for inputs that all have size 1."""
    pruned, mask = copy.deepcopy(model), yours("wanda_mask")
    for weight in linear_weights(pruned).values():
        weight *= mask(weight, torch.eye(weight.shape[1]), 0.5)
    return pruned


def unevenness(some_moments) -> list[float]:
    """√G_jj of each layer's strongest input, divided by that of its median input; sorted."""
    sizes = [found.gram.diagonal().sqrt() for found in some_moments]
    return sorted((s.max() / s.median()).item() for s in sizes)


made["magnitude, 50 %"] = by_magnitude(tiny), {}
made["Wanda, 50 %"] = recipes.wanda_model(tiny, windows, 0.5), {}
halved = {name: held_out_bits(made[f"{name}, 50 %"][0]) for name in ("magnitude", "Wanda")}
for name, value in halved.items():
    print(f"TinyLM, half of the weights, by {name:10} {value:.3f} bits per byte")

uneven, found = {"TinyLM": unevenness(moments.values())}, []
if has_smollm2:
    no_first = torch.ones(512).index_fill(0, torch.tensor(0), 0.0)
    treat_blocks(
        smol,
        smollm2_calibration(smol_tokenizer, 2),
        lambda s: found.append(s.moments),
        weights=no_first,
    )
    uneven["SmolLM2"] = unevenness(found)
for name, values in uneven.items():
    print(
        f"{name:8} strongest input / median input, in a typical layer: {values[len(values) // 2]:.0f}"
    )

# %% [markdown]
# A small gain. On SmolLM2, its 30 blocks under the same two programs leave a perplexity of **407** by magnitude
# and of **53** by Wanda (stored; dense 23.6; **its weights had been rounded before, to Q4_1**).
#
# The formula says when the two differ: as far as $\sqrt{G_{jj}}$ differs from input to input, and in SmolLM2 it
# differs almost four times as much. But that is a comparison of two models which differ in everything. It is a
# suspicion. What we need is a model **with uneven inputs and nothing else changed**. It can be built.
# Multiply column $j$ of $W$ by any $s_j > 0$, and divide its input by it:
#
# $$W x = (W \,\mathrm{diag}(s))\,(x / s) .$$
#
# Nobody need divide at run time: where $x$ comes from a norm, the norm's weights can be divided once and for
# all. It is the same function, with other weights and other inputs.
#
# ## Exercise 3: fold a scale


# %% exercise="fold_scale"
def fold_scale(
    norm_weight: torch.Tensor, weights: list[torch.Tensor], scale: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(norm_weight / s, [W · diag(s) for each W]): the layers' inputs shrink, their columns grow.

    norm_weight (I,), each W (O, I), O may differ; scale s (I,), positive, in float32 or float64.
    New tensors, each in the dtype of the old one, rounded once.
    """
    ### BEGIN SOLUTION
    folded = [(weight * scale).to(weight.dtype) for weight in weights]  # (O, I) · (I,)
    return (norm_weight / scale).to(norm_weight.dtype), folded
    ### END SOLUTION


# %% check="fold_scale" points=2
check(fold_scale)

# %% [markdown]
# Now build TinyLM's twin: draw $s_j = e^z$, $z$ normal, for each input that comes from a norm. It does what
# TinyLM does, to the last bits of a float.
#
# ### AWQ: the same fold, on purpose
#
# Rounding moves $W_{ij}$ by up to half a step, whatever $W_{ij}$ is, and that costs $\delta_{ij}^2 G_{jj}$.
# Which weights deserve a finer step? Those that meet much. But 64 neighbours share one. **AWQ** (Lin et al.,
# 2024) gets it by a detour: it folds a scale, rounds $W\,\mathrm{diag}(s)$, and so the error of column $j$,
# on the way back, is divided by $s_j$. How large should $s$ be? It tries $s_j = (\text{mean } |x_j|)^\alpha$
# for twenty $\alpha$ from 0 to 0.95, and takes the one with the least output error $\delta^\top G\,\delta$.
#
# **Guess before you run:** which of these four can tell the twins apart, and which cannot? Half of the
# weights by magnitude, half by Wanda, 4 bits to the nearest, 4 bits with AWQ's scale.

# %% tags=["nbval-ignore-output"] slide=True
twin, dice, fold = copy.deepcopy(tiny), torch.Generator().manual_seed(0), yours("fold_scale")
for block in twin.blocks:
    attention, mlp = block.attention, block.mlp
    for norm, layers in (
        (block.attention_norm, (attention.query, attention.key, attention.value)),
        (block.mlp_norm, (mlp.gate, mlp.up)),
    ):
        s = torch.randn(192, generator=dice).exp()
        shrunk, grown = fold(norm.weight, [layer.weight for layer in layers], s)
        norm.weight.copy_(shrunk)
        for layer, weight in zip(layers, grown, strict=True):
            layer.weight.copy_(weight)
twin_off = (twin(windows[:4]) - tiny(windows[:4])).abs().max().item()
print(f"the twin's logits differ by {twin_off:.0e}" if twin_off < 1e-3 else "no twin")


def awq_scale_only(model: Llama, bits: int) -> Llama:
    """AWQ's scales folded in, then every weight to its nearest level."""
    return recipes.nearest_model(scaled(model, windows, groups(bits)), groups(bits))[0]


four_ways = {
    "half, by magnitude": by_magnitude,
    "half, by Wanda": lambda model: recipes.wanda_model(model, windows, 0.5),
    "4 bits, nearest": lambda model: recipes.nearest_model(model, groups(4))[0],
    "4 bits, AWQ's scale": lambda model: awq_scale_only(model, 4),
}
on_twins = {}
print("bits per byte          TinyLM   its twin")
for label, way in four_ways.items():
    on_twins[label] = [held_out_bits(way(model)) for model in (tiny, twin)]
    print("{:22}{:7.3f}{:11.3f}".format(label, *on_twins[label]))

# %% [markdown] slide="From the surgeon"
# There is the cause, alone. The same function, and what looks only at the weights falls: magnitude loses half
# a bit more, and rounding to 4 bits becomes worse than rounding to 2 was. Of the two that look at what flows
# in, Wanda does not notice at all (its score $|W_{ij} s_j| \cdot \sqrt{G_{jj}} / s_j$ is what it was), and AWQ
# finds the way back. **A method that weighs inputs gains where inputs are uneven, and as TinyLM comes they
# hardly are.** Ask your model first; it takes one line.
#
# And the massive activations, are they behind SmolLM2's 407? No. Let the dense model read the first token of
# each window, and hand its keys and values to the pruned one: from place 9 on that one has a perplexity of 441,
# where it had 396 by itself. Its ruin is in what the other 511 tokens meet.
#
# AWQ has a second half: chapter 05's clipping with the right error. Each group tries shorter ranges and takes
# the one with the least $\delta^\top G\,\delta$, instead of the least $\|\delta\|^2$. You will see both halves
# apart, in one table with what comes now. For $G$ holds more than the powers on its diagonal. The rest of it says
# how inputs hang together. Who uses that, can **repair**.
#
# ## 3. Repair what rounding broke
#
# ### From the surgeon to GPTQ
#
# S0 §4.2 asks for the quantized weights that are nearest to the weights. That is a stand-in: what counts is
# the layer's output. So let weights leave their nearest step on purpose, where it helps the output.
#
# Chapter 03's surgeon takes a weight out and lets all others make up for it. Rounding is the same operation
# with another goal: weight $j$ goes to $\hat w_j$, not to zero. With $H = 2G$, the others do best to move
# by
#
# $$\delta = - \frac{w_j - \hat w_j}{[H^{-1}]_{jj}}\; H^{-1} e_j ,
#   \qquad \text{at the price}\quad \frac{(w_j - \hat w_j)^2}{2\,[H^{-1}]_{jj}} .$$
#
# (A factor in $H$ cancels in $\delta$: $G$ will do.) Then weight $j$ is fixed for good, and $H^{-1}$ loses
# its row and column. OBQ (Frantar, Singh and Alistarh,
# 2022) does that weight by weight, cheapest first, with an own $H^{-1}$ for each row. GPTQ (Frantar et
# al., 2023) observes that the order hardly matters. So let **all rows take the columns in one order**,
# $1, 2, \dots, I$. Then they share all those inverses, and the inverses are known beforehand. Factor
# $H^{-1} = U^\top U$ with $U$ upper triangular. The row of $H^{-1}$ that step $j$ needs, after the
# first $j - 1$ columns were taken out, is $U_{jj}$ times row $j$ of $U$. So
#
# $$w_k \leftarrow w_k - \frac{w_j - \hat w_j}{U_{jj}} \, U_{jk} \qquad (k > j) .$$
#
# One factorization for the layer, one line a column. The sentence about $U$ is the heart of it; the cell behind
# the exercise takes columns out of a real inverse, one after another, and looks.
#
# ## Exercise 4: one column of GPTQ

# %% tags=["collapsed"]
# Does it hold here?
assert 0.005 < halved["magnitude"] - halved["Wanda"] < 0.03 < 0.1 < halved["Wanda"] - dense_bits
assert 2 < uneven["TinyLM"][14] < 4.5 and (not has_smollm2 or 8 < uneven["SmolLM2"][60] < 14)
assert on_twins["half, by magnitude"][1] > on_twins["half, by magnitude"][0] + 0.35
assert on_twins["4 bits, nearest"][1] > max(nearest_bits[4] + 0.5, nearest_bits[2])
assert abs(on_twins["half, by Wanda"][1] - on_twins["half, by Wanda"][0]) < 0.002
assert abs(on_twins["4 bits, AWQ's scale"][1] - nearest_bits[4]) < 0.006


# %% exercise="gptq_column"
def gptq_column(
    weight: torch.Tensor, factor: torch.Tensor, column: int, scale: torch.Tensor, bits: int
) -> torch.Tensor:
    """A new weight (O, I): column w_j rounded to ŵ_j, later columns moved, earlier ones untouched.

    ŵ_j = scale · code, the nearest for codes −m … m, m = 2**(bits − 1) − 1, bits ≥ 2; scale (O, 1).
    Column k > j becomes w_k − (w_j − ŵ_j) · U_jk / U_jj. factor U (I, I) is upper triangular. All
    tensors have one dtype, float32 or float64; reckon in it or wider, answer in it.
    """
    ### BEGIN SOLUTION
    largest = 2 ** (bits - 1) - 1
    old = weight[:, column : column + 1]  # (O, 1)
    rounded = (old / scale).round().clamp(-largest, largest) * scale
    error = (old - rounded) / factor[column, column]
    later = weight[:, column + 1 :] - error * factor[column, column + 1 :]
    return torch.cat([weight[:, :column], rounded, later], dim=1)
    ### END SOLUTION


# %% check="gptq_column" points=2
check(gptq_column)

# %% [markdown]
# Watch it on a small layer: 16 outputs of the `key` of TinyLM's second block, with its 192 inputs, 3 bits,
# one scale for each output. Move **columns done**. On the left, how far each weight now stands from where
# it began, in steps. On the right, the output error so far: of GPTQ, whose columns to the right are moved
# but not yet rounded, and of rounding alone.
#
# **Guess before you move it:** where does the error of the blue line come from, if every column is repaired?

# %%
one_column = yours("gptq_column")
name = "blocks.1.attention.key.weight"
small, small_gram = linear_weights(tiny)[name][:16], moments[name].gram  # (O, I), (I, I)
damped = small_gram + 0.01 * small_gram.diagonal().mean() * torch.eye(192)  # a Hessian's half
left = torch.linalg.inv(damped.double())  # H⁻¹
wide = torch.linalg.cholesky(left, upper=True)  # UᵀU = H⁻¹
for j, row in enumerate(wide):
    assert torch.allclose(left[j], row[j] * row, atol=1e-3 * left[j].abs().max())  # the heart
    left = left - torch.outer(left[:, j], left[j]) / left[j, j]  # column j is taken out
factor, scale = wide.float(), small.abs().amax(dim=1, keepdim=True) / 3

steps = [small]
for column in range(192):
    steps.append(one_column(steps[-1], factor, column, scale, bits=3))
nearest_now = (small / scale).round() * scale


def error_after(count: int) -> tuple[float, float]:
    """Output error with `count` columns done: GPTQ's, and of rounding without repair."""
    halfway = torch.cat([nearest_now[:, :count], small[:, count:]], dim=1)
    changes = steps[count] - small, halfway - small
    return tuple(output_share(change, small, small_gram) for change in changes)


with_repair, without = zip(*map(error_after, range(193)), strict=True)


# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure with a slider: column by column
def draw_columns(columns_done: int) -> Picture:
    """How far the weights were moved, and what the output error is so far."""
    figure, (left, right) = new_figure(columns=2, height=3.2)
    moved = ((steps[columns_done] - small) / scale).numpy()
    image = left.imshow(moved, cmap="RdBu", vmin=-1.5, vmax=1.5, aspect="auto")
    left.axvline(columns_done - 0.5, color="black")
    left.set(xlabel="input", ylabel="output", yticks=[])
    left.grid(False)
    figure.colorbar(image, ax=left, label="moved by (steps)")
    for values, label, colour in ((with_repair, "with repair", BLUE), (without, "without", ORANGE)):
        right.plot([100 * v for v in values], color=colour, label=label)
        right.plot(columns_done, 100 * values[columns_done], "o", color=colour)
    right.set(xlabel="columns done", ylabel="output error (%)", ylim=(0, None))
    right.legend(frameon=False)
    share = with_repair[columns_done] / without[columns_done] if columns_done else 1
    figure.suptitle(
        f"{columns_done} columns done: the output errs by {share:.0%} of what rounding alone costs"
        if columns_done
        else "Nothing done yet"
    )
    return Picture(
        figure,
        f"{columns_done} of 192 columns rounded. Left: changes of the weights in steps; left of the line at "
        f"most half a step from where GPTQ wanted them, right of it moved in repair. Right: output error with "
        f"repair {with_repair[columns_done]:.0%}, without {without[columns_done]:.0%}.",
    )


explore(draw_columns, columns_done=([0, 1, 24, 48, 96, 144, 168, 180, 191, 192], 96))

# %% [markdown]
# At first the blue line rises a third as steeply as the orange one, later two thirds to four fifths as steeply. It does
# rise: an error can be made up only as far as the inputs still to come can stand in for the one that was
# rounded. What is new in an input nobody can replace, and the fewer columns are left, the more is new. Look
# at the left picture, too: right of the line weights move
# before their turn comes, some by more than half a step, away from what was trained. In the end the
# *weights* err more than by rounding, and the outputs half as much.
#
# ## Exercise 5: GPTQ


# %% exercise="gptq"
def gptq(
    weight: torch.Tensor, hessian: torch.Tensor, scale: torch.Tensor, bits: int
) -> torch.Tensor:
    """GPTQ's int8 codes (O, I), −m … m with m = 2**(bits − 1) − 1, of the levels scale · code.

    Columns are taken from first to last: each one rounded, its error spread over the later ones by
    U, upper triangular with UᵀU = H⁻¹. hessian H (I, I) is positive definite; add no damping. scale
    is (O, 1), bits 2 … 8. All tensors have one dtype, float32 or float64; reckon in it or wider.
    """
    ### BEGIN SOLUTION
    largest, weight = 2 ** (bits - 1) - 1, weight.clone()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(weight, dtype=torch.int8)
    for j, row in enumerate(factor):
        old = weight[:, j, None]  # (O, 1)
        code = (old / scale).round().clamp(-largest, largest)
        weight -= (old - code * scale) / row[j] * row  # columns before j: U_jk = 0
        codes[:, j, None] = code
    return codes
    ### END SOLUTION


# %% check="gptq" points=3
check(gptq)

# %% [markdown]
# Three things separate this from what people run. **Damping**: $H$ of real inputs is often singular, so one
# adds a hundredth of its mean diagonal to the diagonal. **Blocks**: columns are treated a few dozen at a
# time, and all later ones are told in a single matrix product; the codes are the same. **Order**:
# *act-order* takes the inputs of greatest power first, as long as many columns are left to make up for
# them.
#
# Now the whole model, walked through block by block, and AWQ in halves. AWQ clips; so GPTQ may, too, in its last
# row, with chapter 05's ranges of least squared error. **Guess before you run:** at 3 bits rounding costs 0.075.
# What share of it is left to GPTQ? Which half of AWQ gains? And does repair save the twin, whose 4 bits to the
# nearest were a ruin?

# %% tags=["nbval-ignore-output"] slide=True
own = yours("gptq")(small, damped, scale, 3) * scale
share = output_share(own - small, small, small_gram) / output_share(
    nearest_now - small, small, small_gram
)
print(f"yours, the small layer: {share:.0%} of the output error of rounding to nearest\n")


def awq_clip_only(model: Llama, bits: int) -> Llama:
    """Every weight to its nearest level, in the ranges that cost the output least."""
    model = copy.deepcopy(model)
    for name, scheme in clipped(model, windows, groups(bits)).items():
        weight = model.get_parameter(name)
        weight.copy_(nearest_codes(weight, scheme).weight)
    return model


def squares(bits: int) -> Scheme:
    """64 weights share a range: that of the least squared error of the weights (chapter 05)."""
    return Scheme(Format(bits), 64, mse_range)


methods = {
    "nearest": lambda bits: recipes.nearest_model(tiny, groups(bits)),
    "nearest, least squares": lambda bits: recipes.nearest_model(tiny, squares(bits)),
    "AWQ, scale only": lambda bits: (awq_scale_only(tiny, bits), {}),
    "AWQ, clip only": lambda bits: (awq_clip_only(tiny, bits), {}),
    "AWQ": lambda bits: recipes.awq_model(tiny, windows, groups(bits)),
    "GPTQ": lambda bits: recipes.gptq_model(tiny, windows, groups(bits)),
    "GPTQ act-order": lambda bits: recipes.gptq_model(tiny, windows, groups(bits), True),
    "GPTQ act-order, least squares": lambda bits: recipes.gptq_model(
        tiny, windows, squares(bits), True
    ),
}
rounding = {}
print("TinyLM, bits per byte           4 bits   3 bits   2 bits")
for label, method in methods.items():
    for bits in (4, 3, 2):
        made[f"{label}, {bits} bits"] = method(bits)
        rounding[label, bits] = held_out_bits(made[f"{label}, {bits} bits"][0])
    print("{:30}{:8.3f}{:9.3f}{:9.3f}".format(label, *(rounding[label, b] for b in (4, 3, 2))))
gptq_twin = held_out_bits(recipes.gptq_model(twin, windows, groups(4), True)[0])
both = recipes.gptq_model(scaled(twin, windows, groups(4)), windows, groups(4), True)[0]
print(
    f"its twin, GPTQ act-order:       {gptq_twin:.3f}; scaled by AWQ before {held_out_bits(both):.3f}"
)

# %% tags=["collapsed"]
# Does it hold here?
left_over = {
    (label, bits): (value - dense_bits) / (nearest_bits[bits] - dense_bits)
    for (label, bits), value in rounding.items()
}
assert share < 0.65 and with_repair[96] < 0.55 * without[96]
steep = [
    (with_repair[z] - with_repair[a]) / (without[z] - without[a]) for a, z in ((0, 20), (144, 192))
]
assert 0.25 < steep[0] < 0.42 and 0.57 < steep[1] < 0.8
assert ((steps[96] - small) / scale)[:, 96:].abs().max() > 0.55
assert (own - small).norm() > 1.05 * (nearest_now - small).norm()
in_order, by_power, best = "GPTQ", "GPTQ act-order", "GPTQ act-order, least squares"
for bits in (3, 2):
    assert 0.38 < left_over[by_power, bits] < 0.56 and 0.24 < left_over[best, bits] < 0.4
    assert abs(rounding["AWQ", bits] - rounding["AWQ, clip only", bits]) < 0.015
    assert rounding["AWQ, scale only", bits] > rounding["AWQ", bits] + 0.015
    assert rounding["AWQ", bits] < rounding["nearest, least squares", bits] - 0.005
    assert rounding["AWQ", bits] > rounding[in_order, bits] + 0.004
    assert rounding["AWQ", bits] > rounding[best, bits] + 0.01
assert all(left_over[label, bits] < 1 for label in (in_order, by_power, best) for bits in (4, 3, 2))
assert max(rounding[label, 4] for label in methods) < dense_bits + 0.0155
assert nearest_bits[4] + 0.1 < gptq_twin < on_twins["4 bits, nearest"][1] - 0.35
assert held_out_bits(both) < nearest_bits[4] + 0.003

# %% [markdown]
# GPTQ leaves about half of the loss at 3 bits and at 2, and a third with ranges by least squares. That has cost a
# second of CPU time and no training. AWQ gains, too, nearly all of it with the **clip**, and two thirds of that or
# more are left if no input is weighed at all (least squares). For TinyLM's inputs are rather even. (At 4 bits nothing
# costs more than 0.015. A loss on so little text tells no more there; section 6 has a finer measure.)
#
# The twin says what repair is *not*. GPTQ takes half a bit off the ruin and leaves it far worse than AWQ's scale,
# which finds the way back without repairing anything. Scaled first and then repaired, the twin is as good as TinyLM.
# Weighing and repair are two things.
#
# ### SparseGPT
#
# Now let $\hat w_j$ be either $w_j$ or 0. That is pruning with repair (Frantar and Alistarh, 2023), column
# by column, with the same $U$. What is new is the **choice**. By the price above, removing weight $w_{ij}$
# when column $j$'s turn comes costs $w_{ij}^2 / (2\, U_{jj}^2)$. So for some columns at a time, 128 in the
# paper, the weights with the least $w^2 / U_{jj}^2$ go.
#
# ## Exercise 6: SparseGPT's choice inside a block


# %% exercise="sparsegpt_mask"
def sparsegpt_mask(weight: torch.Tensor, diagonal: torch.Tensor, density: float) -> torch.Tensor:
    """True where a weight stays: of the whole block, the round(density · O · C) largest w² / d².

    weight (O, C), mask bool (O, C). d = diagonal (C,), positive, of the same dtype, is that of U,
    where UᵀU = H⁻¹; each column has its own. Of equal scores the first stay, counted row by row.
    """
    ### BEGIN SOLUTION
    score = (weight / diagonal).abs().flatten()  # (O, C) -> (O · C,); its square has the same order
    order = score.argsort(descending=True, stable=True)
    kept = order[: round(density * len(score))]
    mask = torch.zeros_like(score, dtype=torch.bool)
    mask[kept] = True
    return mask.view_as(weight)  # (O · C,) -> (O, C)
    ### END SOLUTION


# %% check="sparsegpt_mask" points=2
check(sparsegpt_mask)

# %% [markdown]
# Two guesses. **Choice or repair?** SparseGPT has a better choice and a repair. The control takes a given mask,
# of the magnitude or of Wanda, and refits what stays of each row by least squares on $G$: no better choice, the best
# repair. **Guess** how much of SparseGPT's lead over Wanda that reaches.
#
# **2:4** means that of each four neighbours two must go. Some processors multiply such matrices twice as
# fast. It leaves less choice. **Guess:** who suffers more from it, the one that repairs or the one that does not?


# %% tags=["nbval-ignore-output"] slide=True
def refitted(mask_of) -> Llama:
    """`mask_of`(weight, gram) says what stays, as many in each row; that is refitted, layer by layer."""
    model = copy.deepcopy(tiny)

    def treat(stage) -> None:
        gram = stage.moments.gram
        damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
        for layer in stage.layers:
            stay = mask_of(layer.weight, gram).nonzero()[:, 1].view(len(layer.weight), -1)  # (O, K)
            rows = damped[stay]  # (O, K, I)
            inner = rows.gather(2, stay[:, None].expand(-1, stay.shape[1], -1))  # (O, K, K)
            best = torch.linalg.solve(inner, rows @ layer.weight[..., None])  # (O, K, 1)
            layer.weight.copy_(torch.zeros_like(layer.weight).scatter(1, stay, best.squeeze(2)))

    treat_blocks(model, windows, treat)
    return model


refit = {
    "magnitude": held_out_bits(refitted(lambda w, gram: row_mask(w.abs(), 0.5))),
    "Wanda": held_out_bits(refitted(lambda w, gram: row_mask(wanda_score(w, gram), 0.5))),
}
for label, prune in (("Wanda", recipes.wanda_model), ("SparseGPT", recipes.sparsegpt_model)):
    for density, where in ((0.5, "50 %"), ((2, 4), "2:4")):
        made[f"{label}, {where}"] = prune(tiny, windows, density), {}
        halved[label, where] = held_out_bits(made[f"{label}, {where}"][0])
print("TinyLM, half of the weights   as chosen   refitted     2:4   bits per byte")
print("{:26}{:13.3f}{:11.3f}".format("magnitude", halved["magnitude"], refit["magnitude"]))
wanda = halved["Wanda"], refit["Wanda"], halved["Wanda", "2:4"]
print("{:26}{:13.3f}{:11.3f}{:8.3f}".format("Wanda", *wanda))
print(
    "{:26}{:24.3f}{:8.3f}".format("SparseGPT", *(halved["SparseGPT", w] for w in ("50 %", "2:4")))
)

# %% tags=["collapsed"]
# Does it hold here?
assert halved["SparseGPT", "50 %"] - dense_bits < 0.55 * (halved["Wanda", "50 %"] - dense_bits)
assert all(abs(value - halved["SparseGPT", "50 %"]) < 0.02 for value in refit.values())
suffers = [halved[label, "2:4"] - halved[label, "50 %"] for label in ("Wanda", "SparseGPT")]
assert 0.28 < suffers[0] < 0.37 and 0.08 < suffers[1] < 0.13

# %% [markdown]
# All of it. Refitted, the masks of magnitude and of Wanda come within a hundredth of a bit of SparseGPT: 1.236 and
# 1.238 beside its 1.243. On TinyLM the choice hardly matters, and the repair halves what pruning costs. And 2:4 costs
# Wanda three times what it costs SparseGPT, 0.33 against 0.10: whoever repairs can live with less choice.
#
# ---
# **Pause.** You have two of the three ideas: weigh errors by what flows in, and repair. The second sitting begins
# with the real model. If you come back another day, run the notebook from the top.
#
# ## 4. The real model
#
# SmolLM2 at 4 bits, groups of 64. Round-to-nearest: perplexity 30.2 (dense 23.6; **the weights had been
# rounded before, to Q4_1**). Plain GPTQ, calibrated on 16 windows of 512 tokens of Wikipedia, does what it
# did for TinyLM, layer by layer.
#
# **Guess:** what is its perplexity?

# %% tags=["collapsed"]
# Stored: SmolLM2 after training (python -m benchmarks.language_models leaderboard FOLDER, 2026-11-26)
# name -> bytes, perplexity, KL and its standard error, flips, CPU minutes on one core
STORED = {
    "dense, float16": (269057328, 23.63, 0.0000, 0.0000, 0.001, 0.0),
    "nearest, 4 bits": (85782736, 30.18, 0.3631, 0.0071, 0.308, 0.0),
    "GPTQ, 4 bits": (85782736, 30.71, 0.3268, 0.0076, 0.299, 0.6),
    "GPTQ act-order, 4 bits": (85782736, 28.28, 0.2139, 0.0061, 0.226, 0.6),
    "GPTQ act-order, first token × 64, 4 bits": (85782736, 26.96, 0.1491, 0.0048, 0.203, 0.7),
    "AWQ, 4 bits": (85782736, 27.22, 0.1737, 0.0051, 0.213, 1.8),
    "GPTQ, first token × 64, 4 bits": (85782736, 28.72, 0.2253, 0.0059, 0.248, 0.7),
    "Wanda, 50 %": (147970120, 53.05, 0.9095, 0.0157, 0.465, 0.6),
    "SparseGPT, 50 %": (147970120, 50.19, 0.8578, 0.0166, 0.448, 0.7),
    "magnitude, 50 %": (147970120, 406.95, 3.1008, 0.0306, 0.774, 0.0),
    "nearest, 8 bits a channel": (135007656, 23.76, 0.0048, 0.0001, 0.049, 0.0),
    "nearest, 3 bits": (72304304, 75.21, 1.3605, 0.0195, 0.570, 0.0),
    "AWQ, 3 bits": (72304304, 45.74, 0.7424, 0.0140, 0.422, 1.8),
    "GPTQ act-order, first token × 64, 3 bits": (72304304, 43.41, 0.6659, 0.0147, 0.379, 0.6),
    "W8A8, static": (135027608, 61.36, 1.0477, 0.0166, 0.497, 0.5),
    "W8A8 SmoothQuant, static": (135027608, 32.61, 0.3494, 0.0078, 0.319, 1.1),
    "W8A8, per token": (135007656, 24.47, 0.0362, 0.0009, 0.114, 0.0),
    "W4A4, per token": (82023296, 27573.58, 7.2377, 0.0450, 0.966, 0.2),
    "W4A4 rotated": (110433328, 170.30, 2.0555, 0.0257, 0.661, 0.3),
    "W4A4 rotated, GPTQ act-order": (110433328, 57.66, 0.9644, 0.0163, 0.474, 1.0),
    "Wanda, 2:4": (147969138, 203.58, 2.2949, 0.0260, 0.679, 0.5),
    "SparseGPT, 2:4": (147970114, 99.08, 1.5549, 0.0226, 0.558, 0.7),
    "nearest, MSE ranges, 4 bits": (85782736, 32.18, 0.3870, 0.0078, 0.328, 0.3),
    "rotated, nearest, 4 bits": (114192768, 46.66, 0.7225, 0.0119, 0.428, 0.1),
    "GPTQ act-order, first token × 64, 4 bits, Bible": (
        85782736,
        32.21,
        0.3275,
        0.0070,
        0.295,
        0.7,
    ),
    "GPTQ act-order, first token × 64, 2 bits": (58825776, 3408.58, 5.0657, 0.0475, 0.888, 0.7),
    "AWQ, 2 bits": (58825776, 1.27e06, 11.0903, 0.0513, 0.984, 1.7),
    "SparseGPT, first token × 64, 50 %": (147970120, 47.33, 0.7874, 0.0153, 0.434, 0.8),
    "nearest, 2 bits": (58825776, 6.19e05, 10.4128, 0.0595, 0.992, 0.0),
}
# who is compressed: all, all but the first token of a window, the first alone -> perplexity from place 9 on
STORED_FIRST = {
    "nearest, 4 bits": (28.90, 28.34, 22.96),
    "GPTQ, 4 bits": (29.36, 26.56, 25.44),
    "GPTQ act-order, 4 bits": (27.23, 25.68, 24.26),
    "GPTQ act-order, first token × 64, 4 bits": (25.94, 25.87, 22.82),
    "AWQ, 4 bits": (26.20, 26.46, 23.42),
    "GPTQ, first token × 64, 4 bits": (27.67, 27.57, 22.99),
    "magnitude, 50 %": (396.14, 441.45, 24.48),
    "nearest, MSE ranges, 4 bits": (30.73, 29.19, 23.27),
    "rotated, nearest, 4 bits": (44.76, 33.64, 26.58),
}
# beside nearest, 4 bits: by how much loss and KL are higher, nats, and standard errors over 8 windows (a second
# processor, where the perplexities are 31.64, 27.11 and 27.29)
STORED_BESIDE = {
    "GPTQ, 4 bits": (0.0473, 0.0097, -0.0378, 0.0086),
    "GPTQ act-order, first token × 64, 4 bits": (-0.1071, 0.0177, -0.2126, 0.0054),
    "AWQ, 4 bits": (-0.1005, 0.0225, -0.1892, 0.0046),
}
STORED_BESIDE_AWQ = -0.0066, 0.0210, -0.0234, 0.0063  # GPTQ act-order, first token × 64
# W8A8, static, nothing but inputs rounded, the first 1,024 tokens: which layers' -> perplexity
STORED_STATIC = {"none": 24.52, "all": 64.32, "down": 52.31, "all but down": 28.64}

# %% tags=["collapsed"] slide=True
# A guess: what GPTQ makes of SmolLM2 (stored; printed in section 6)
rtn, plain = (STORED[name] for name in ("nearest, 4 bits", "GPTQ, 4 bits"))
assert 30 < rtn[1] < 30.5 and plain[1] > rtn[1] + 0.2 and rtn[2] > plain[2] + 0.02
assert 23.58 < STORED["dense, float16"][1] < 23.65
assert STORED_BESIDE["GPTQ, 4 bits"][0] > 4 * STORED_BESIDE["GPTQ, 4 bits"][1]
assert STORED_BESIDE["GPTQ, 4 bits"][2] < -4 * STORED_BESIDE["GPTQ, 4 bits"][3]
assert STORED_FIRST["magnitude, 50 %"][1] > STORED_FIRST["magnitude, 50 %"][0]
assert 400 < STORED["magnitude, 50 %"][1] < 415 and 52 < STORED["Wanda, 50 %"][1] < 54
predict(
    f"SmolLM2, 4 bits: dense 23.6, round-to-nearest {rtn[1]:.1f}. And GPTQ?",
    ["about 25", "about 27", "about 29", "no better than round-to-nearest"],
    "no better than round-to-nearest: 30.7 on one processor, 31.6 on another",
)

# %% [markdown]
# It does **not beat rounding**. How bad it is depends on the processor, on the last digits of its sums: 30.7 on
# one, 31.6 on another. Window by window, on the second: the loss is above rounding's in seven of eight, by
# 0.047 ± 0.010 nats on average. A mystery: on the clean
# witness GPTQ gained at every number of bits. Before you read on, name your suspects. Here are four.
#
# 1. The program is wrong. (On one Hessian its codes equal those of the paper's algorithm, written down plainly
#    a second time; a test says so.)
# 2. These weights were rounded before, so rounding to nearest has an easy time.
# 3. $G$ came from other text. Perhaps what holds there does not hold here.
# 4. $G$ is a *mean* over tokens. Perhaps some tokens count more than a mean says.
#
# Number 2 can be tried on the clean witness: round TinyLM to 4 bits in groups of 32 first, as Q4_1 does,
# then again in groups of 64. **Guess:** does GPTQ lose there, too?

# %% tags=["collapsed", "nbval-ignore-output"]
# Suspect 2: TinyLM, rounded twice
twice, _ = recipes.nearest_model(tiny, Scheme(Format(4), 32))
before = held_out_bits(twice)
again = {
    "nearest": held_out_bits(recipes.nearest_model(twice, groups(4))[0]),
    "GPTQ": held_out_bits(recipes.gptq_model(twice, windows, groups(4))[0]),
    "GPTQ act-order": held_out_bits(recipes.gptq_model(twice, windows, groups(4), True)[0]),
}
print(f"TinyLM, rounded to 4 bits in groups of 32: {before:.3f} bits per byte")
for label, bits_now in again.items():
    print(f"   and again, in groups of 64, {label:15} {bits_now:.3f}")
assert again["GPTQ"] < again["nearest"] + 0.001 and 1.18 < before < 1.195
assert again["GPTQ act-order"] < again["nearest"] - 0.002

# %% [markdown]
# A second rounding does not by itself turn GPTQ into the loser. For 3 and 4, look into one layer: `value`
# in block 18 of SmolLM2 (any from 12 to 18 would do, as you will see). Calibrate it on eight windows of
# Wikipedia, with exact inputs, so no earlier layer is to blame. Measure its output error on two windows of
# another article, **apart for the first token of a window and for all others**. (Two windows have two first
# tokens. That is few, and the layers before it will be asked, too.)

# %% tags=["nbval-ignore-output"]
BLOCK, FIRST = 18, 64


def first_counts(times: float) -> torch.Tensor:
    """(T,): the first place of a window counts as so many others."""
    return torch.ones(512).index_fill(0, torch.tensor(0), times)


def errors_apart(weight: torch.Tensor, exact: torch.Tensor, x: torch.Tensor) -> list[float]:
    """Output error, as a share of the output: of all other tokens, and of the first of a window."""
    off = F.linear(x, weight - exact).square().sum(-1)  # (B, T)
    whole = F.linear(x, exact).square().sum(-1)
    return [(off[:, at].sum() / whole[:, at].sum()).sqrt().item() for at in (slice(1, None), 0)]


if has_smollm2:
    both, by_block = (
        torch.cat([smollm2_calibration(smol_tokenizer, 8), page[:1024].view(2, 512)]),
        {},
    )
    for number, (block, arguments) in enumerate(islice(walk_blocks(smol, both), BLOCK + 1)):
        if number < 10:
            continue
        value = block.attention.value
        exact, (given,) = value.weight.clone(), record_inputs(block, arguments, [value])
        given = given.view(10, 512, -1)  # (N, I) -> (B, T, I)
        calibrated, tested = given[:8], given[8:]
        gram = Moments.empty(576).add(calibrated).gram
        candidates = {
            "nearest": nearest_codes(exact, groups(4)).weight,
            "GPTQ": library_gptq(exact, gram, groups(4)).weight,
        }
        by_block[number] = [errors_apart(w, exact, tested)[1] for w in candidates.values()]

    weighted_gram = Moments.empty(576).add(calibrated, first_counts(FIRST)).gram
    candidates["GPTQ act-order"] = library_gptq(exact, gram, groups(4), act_order=True).weight
    candidates["GPTQ, first token × 64"] = library_gptq(exact, weighted_gram, groups(4)).weight
    apart = {label: errors_apart(weight, exact, tested) for label, weight in candidates.items()}
    print("SmolLM2, value of block 18       output error, as a share of the output")
    print(f"{'':26}all other tokens   first token")
    for label in ("nearest", "GPTQ", "GPTQ act-order"):
        print(f"{label:26}{apart[label][0]:16.0%}{apart[label][1]:14.0%}")

# %% [markdown]
# Suspect 3 has an alibi: on other text, for all tokens but one, GPTQ has half the error of rounding. But
# look at the **first token**. What rounding gets wrong by a third, GPTQ gets wrong by 120 %: nothing is
# left of its value. In the average it is one token of 512. So $G$ hardly knows it.
#
# Does one token of 512 matter? It does if all others look at it. Two questions to the block: where does its
# attention go, and how large is the value that it finds there?

# %% tags=["nbval-ignore-output"]
if has_smollm2:
    stream, cos, sin = arguments
    attention, normed = block.attention, given[8:]
    q = attention.query(normed).view(2, 512, 9, 64).transpose(1, 2)  # (B, T, D) -> (B, 9, T, 64)
    k = attention.key(normed).view(2, 512, 3, 64).transpose(1, 2)  # (B, T, 192) -> (B, 3, T, 64)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin).repeat_interleave(3, dim=1)  # 9/3 heads share
    scores = (q @ k.transpose(2, 3)) / 64**0.5  # (B, 9, T, T)
    future = torch.ones(512, 512, dtype=torch.bool).triu(1)
    looks = scores.masked_fill(future, -torch.inf).softmax(-1)
    on_first = looks[:, :, 8:, 0].mean((0, 2))  # of each head, from place 9 on
    lengths = F.linear(normed, exact).norm(dim=2)  # (B, T)
    print("attention on the first token, head by head:", [f"{a:.0%}" for a in on_first.tolist()])
    print(
        f"length of its value: {lengths[:, 0].mean():.1f}; of the other tokens' {lengths[:, 1:].mean():.1f}"
    )

# %% [markdown]
# Two heads of nine put all their attention there; the mean of all nine is above 60 %. (The first eight places are
# left out: there the first token has few rivals.) That is an **attention sink** (Xiao, Tian, Chen, Han and Lewis,
# 2024): softmax must give its weight to something, and
# a head that has nothing to say gives it to a token whose value is nearly nothing. Whoever spoils that
# value speaks to every token at once.
#
# That is a story. Now the test. Let the model run to its end with the rounded `value` in block 18, all else
# exact, and take the loss on 1,024 tokens. Then twice more: the first token gets the
# **exact** value and all others the rounded one; and the other way round. And since any token might be one that
# matters, the same with another one. **Change `PLACE`** once you have seen the answer: can you find a second
# token that carries any of the damage?

# %% tags=["nbval-ignore-output"]
PLACE = 100  # of the other token
HOW = "exact, the others rounded", "rounded, the others exact"


def losses_with(weight: torch.Tensor, other: torch.Tensor, place: int = 0) -> torch.Tensor:
    """Loss of each token with this `value`, and another one for the token at a place of a window."""

    def two_values(module, inputs, output):
        output[:, place] = F.linear(inputs[0][:, place], other)
        return output

    value.weight.copy_(weight)
    handle, x = value.register_forward_hook(two_values), stream[8:]
    for later in smol.blocks[BLOCK:]:
        x = later(x, cos, sin)
    handle.remove()
    value.weight.copy_(exact)
    logits = F.linear(smol.norm(x), smol.embedding.weight)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), page[1:1025], reduction="none")


if has_smollm2:
    exact_losses, rise, bad = losses_with(exact, exact), {}, candidates["GPTQ"]
    for label, weight in candidates.items():
        rise[label] = paired_difference(losses_with(weight, weight), exact_losses)
    for place, who in ((0, "first token"), (PLACE, f"token at place {PLACE}")):
        for_it = losses_with(bad, exact, place), losses_with(exact, bad, place)
        for losses, how in zip(for_it, HOW, strict=True):
            rise[f"GPTQ, {who} {how}"] = paired_difference(losses, exact_losses)
    print("SmolLM2, only `value` of block 18 rounded: rise of the loss, in 1/1000 nats")
    for label, found in rise.items():
        if label != "GPTQ, first token × 64":
            print(f"{label:60}{1000 * found.mean:6.1f} ± {1000 * found.error:.1f}")

# %% tags=["collapsed"]
# Does it hold here?
if has_smollm2:
    assert apart["GPTQ"][0] < 0.65 * apart["nearest"][0]
    assert apart["nearest"][1] < 0.4 and apart["GPTQ"][1] > 1 and apart["GPTQ act-order"][1] < 0.85
    assert on_first.mean() > 0.55 and (on_first > 0.97).sum() == 2
    assert lengths[:, 1:].mean() > 4 * lengths[:, 0].mean()
    assert rise["GPTQ"].mean > 0.02 and rise["GPTQ"].mean > 2.5 * rise["GPTQ"].error
    mended, alone = (rise[f"GPTQ, first token {how}"].mean for how in HOW)
    assert abs(mended) < 0.004 and rise["nearest"].mean < 0.005
    assert abs(alone / rise["GPTQ"].mean - 1) < 0.2
    assert PLACE != 100 or abs(list(rise.values())[-1].mean) < 0.002

# %% [markdown]
# Both ways. Give the first token its exact value, and the whole damage is gone. Give *only* the first token
# the rounded one, and the whole damage is back. Do the same to another token, and nothing happens. In this
# layer nothing else counts.
#
# ### Why just that token?
#
# GPTQ made the error small for the mean token; why so large for this one? Ask which columns of $W$ it moved
# most, what the first token looks like, and how much of each input is its **own**: the part of its power that no
# combination of the other 575 can foretell, $1 / [G^{-1}]_{jj}$.
#
# One more test both ways. **Guess:** your `gptq` takes the columns from first to last. What will the first
# token's error be if that token's main input comes first, and what if it comes last? (One scale a row here, so
# that an order may be changed freely.)


# %% tags=["nbval-ignore-output"]
def first_error(order: list[int]) -> float:
    """Output error of the first token if your GPTQ takes the columns in this order."""
    codes = yours("gptq")(exact[:, order], hessian[order][:, order], row_scale, 4)
    weight = torch.empty_like(exact)
    weight[:, order] = codes * row_scale
    return errors_apart(weight, exact, tested)[1]


if has_smollm2:
    step_size = nearest_codes(exact, groups(4)).grid.scale.view(192, 9).repeat_interleave(64, dim=1)
    moved = {label: ((w - exact) / step_size).abs().mean(0) for label, w in candidates.items()}
    power = calibrated[:, 0].square().mean(0)  # of the first token's inputs
    odd = int(power.argmax())
    tiny_bit = 1e-6 * torch.eye(576).double()
    own_share = 1 / torch.linalg.inv(gram.double() + tiny_bit).diagonal() / gram.diagonal()
    print(f"input {odd}: {power[odd] / power.sum():.0%} of the power of the first token's inputs")
    print(
        f"its own part for the mean token: {own_share[odd]:.1%}; of the median input: {own_share.median():.0%}"
    )
    hessian = gram + 0.01 * gram.diagonal().mean() * torch.eye(576)
    row_scale = exact.abs().amax(dim=1, keepdim=True) / 7
    rest = [j for j in range(576) if j != odd]
    orders = {
        "as it comes": list(range(576)),
        f"{odd} first": [odd, *rest],
        f"{odd} last": [*rest, odd],
    }
    by_order = {label: first_error(order) for label, order in orders.items()}
    by_rounding = errors_apart((exact / row_scale).round() * row_scale, exact, tested)[1]
    print(
        "error of the first token:", ", ".join(f"{k} {v:.0%}" for k, v in by_order.items()), end=""
    )
    print(f"; rounding alone {by_rounding:.0%}")

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure: how far the columns were moved
if has_smollm2:
    figure, (axes,) = new_figure(height=3)
    for label, colour in (("GPTQ", RED), ("GPTQ, first token × 64", BLUE), ("nearest", BLACK)):
        axes.plot(moved[label], ".", markersize=3, color=colour, label=label)
    axes.plot(odd, moved["GPTQ"][odd], "o", color=RED, fillstyle="none", markersize=10)
    axes.set(xlabel="input, in the order of GPTQ", ylabel="mean change (steps)", ylim=(0, None))
    axes.set_title(
        f"GPTQ moved one column most: that of input {odd}, of which the first token is made"
    )
    axes.legend(frameon=False)
    assert odd == int(moved["GPTQ"].argmax()) and power[odd] / power.sum() > 0.7
    assert 0.45 < moved["GPTQ act-order"][odd] < 0.7
    assert (
        gram.diagonal() > gram.diagonal()[odd]
    ).sum() < 20  # of those that act-order takes first
    assert moved["GPTQ"][odd] > 0.9 and moved["GPTQ, first token × 64"][odd] < 0.4
    assert own_share[odd] < 0.03 and 0.25 < own_share.median() < 0.45
    assert 0.24 < moved["nearest"].mean() < 0.26
    as_it_comes, taken_first, taken_last = by_order.values()
    assert taken_first < 0.6 * as_it_comes and taken_last > 0.9 * as_it_comes
    assert taken_first < 1.25 * by_rounding < 0.75 * as_it_comes
    display(
        Picture(
            figure,
            "Mean change of each of 576 columns in steps. Nearest: all at 0.25. GPTQ: most between 0.25 and "
            f"0.45, but column {odd}, ringed, at {moved['GPTQ'][odd]:.2f}. With the first token weighted it is at "
            f"{moved['GPTQ, first token × 64'][odd]:.2f}, and two others above 0.7.",
        )
    )

# %% [markdown]
# There it is. The first token is, to three quarters, one input: number 507, the massive activation, seen
# through the norm. In ordinary tokens that input says next to nothing new: all but a hundredth of it can be told
# from the other 575, where of the median input a third is its own. So to GPTQ, an error on its weight is nearly
# free: *other columns make up for it*. And
# number 507 comes late, when the errors of five hundred columns are waiting for somebody to take them. It
# takes them. For ordinary tokens all cancels. The first token has 507 and not the others: nothing cancels,
# and it gets the bare error, a whole step on average, four times what rounding does. Take 507 first, and it has
# nothing to take: the harm is gone, 38 % beside rounding's own 41 %. (Act-order takes strong inputs
# first, and 507 is among them: half a step.)
#
# **GPTQ does not make errors small. It makes them cancel, for tokens like those it has seen.** A rare kind of
# token for which they do not cancel is free game, and if that token matters, the model pays.
#
# ### The remedy
#
# Then let it count. Weigh the first token 64 times in $G$; nothing else changes. (In the walk: `weights`,
# one number for each place of a window.) The blue points of the figure are that candidate: 507 stays where it was,
# and two other columns move further instead. **Guess:** what becomes of the first token, and of the whole model?

# %% tags=["collapsed", "nbval-ignore-output"]
# What became of them: the layer, the layers before it, and the whole of SmolLM2 (stored)
if has_smollm2:
    label = "GPTQ, first token × 64"
    print(f"value of block 18, {label}: error of the first token {apart[label][1]:.0%}, ", end="")
    print(
        f"of the others {apart[label][0]:.0%}, loss {1000 * rise[label].mean:+.1f} ± {1000 * rise[label].error:.1f}"
    )
    print("error of the first token, `value` of the blocks before, nearest and plain GPTQ:")
    print("   ".join(f"{n}: {a:.0%} {b:.0%}" for n, (a, b) in by_block.items()), "\n")
    assert all(by_block[n][1] < by_block[n][0] for n in (10, 11))
    assert all(by_block[n][1] > 1.5 * by_block[n][0] for n in range(12, 19))
    assert apart[label][1] < apart["nearest"][1]
    assert apart[label][0] < 0.65 * apart["nearest"][0] and abs(rise[label].mean) < 0.006
print(
    "SmolLM2 (weights rounded before, to Q4_1), 4 bits, groups of 64; dense 23.6, and 22.8 from place 9"
)
print(f"{'':34}perplexity    KL   from place 9 on, where is it compressed?")
print(f"{'':52}all of it   all but the first token   the first alone")
for label in ("nearest", "AWQ", "GPTQ", "GPTQ act-order", "GPTQ, first token × 64", "GPTQ act-order, first token × 64"):  # fmt: skip
    (_, perplexity, kl, *_), ways = STORED[label + ", 4 bits"], STORED_FIRST[label + ", 4 bits"]
    print(f"{label:34}{perplexity:10.1f}{kl:8.3f}{ways[0]:7.1f}{ways[1]:18.1f}{ways[2]:25.1f}")
counted, _ = recipes.gptq_model(tiny, windows, groups(3), True, weights=first_counts(FIRST)[:256])
counted_bits = held_out_bits(counted)
print(
    f"TinyLM, 3 bits, act-order: {rounding['GPTQ act-order', 3]:.3f}, first token × 64 {counted_bits:.3f}"
)
assert abs(counted_bits - rounding["GPTQ act-order", 3]) < 0.015
near, bad, good = (STORED_FIRST[n + ", 4 bits"] for n in ("nearest", "GPTQ", "GPTQ act-order, first token × 64"))  # fmt: skip
assert bad[0] > near[0] > near[1] > near[0] - 0.8 and bad[1] < near[1] - 1.5
assert bad[2] > near[2] + 2 and good[2] < near[2] and abs(good[0] - good[1]) < 0.2
assert 0.35 < math.log(bad[0] / bad[1]) / math.log(bad[0] / 22.79) < 0.45

# %% [markdown] slide="5. Move"
# The last three columns are the test of above for the whole model. Let the dense model read the first token
# of each window, and hand its keys and values over to the compressed one, which reads the rest. Rounding
# hardly cares. Plain GPTQ falls from 29.4 to 26.6, far below rounding. So GPTQ *is* the better method for
# 511 tokens of 512, and one token takes it all back. And the dense model, with nothing compressed but its
# first token, rises from 22.8 to 25.4 with GPTQ, to 23.0 with rounding.
#
# What does the **one number** bring, counting the first token 64 times? In the order of the columns 30.7 becomes
# 28.7, with act-order 28.3 becomes 27.0, and the KL of 0.21 becomes 0.15. (The rest of the way from rounding's
# 30.2 is act-order.) To hand over the first token's keys and values does as much: 25.7 with act-order,
# against 25.9. A difference of two or three tenths between such numbers is noise.
#
# **What is shown, and what is not.** Shown: in one layer the loss that GPTQ adds goes through the first token, both
# ways, and through one input of it that comes late, both ways; GPTQ spoils the first token's value in the blocks 12
# to 18, where it carries the jump, and not in 10 and 11, where it does not; in the whole model two fifths of the loss
# go this way, more than GPTQ leads rounding by on all other tokens. Not shown: that every model has this (on TinyLM
# the same count moves the loss by a hundredth at most, and up), or that 64 is the best count. You are in good company. IntactKV (Liu et al., 2024)
# lets the dense model read the first tokens and keeps their keys and values, which is our test made into a method.
# RSQ (Sung et al., 2025) weighs tokens in GPTQ's Hessian by the attention they get.
#
# ## 5. Move the difficulty
#
# So far the activations stayed floats. If they are to be integers as well, a layer multiplies codes by codes (chapter
# 05). **W8A8** means 8 bits for weights and activations, **W4A4** means 4. The inputs' scale is either fixed
# beforehand, one number for a layer (**static**), or found for each token as it comes (**per token**). What flows in
# SmolLM2 you saw. No rounded layer reads the stream itself, a norm stands between; but the massive ones are made by
# `down` of block 11, from inputs of up to 3,157 for the first token, and of about 20 for any other. What will
# one scale for all tokens do to that, with 255 levels? You will be asked.
#
# Massive inputs, mild weights: let them share the trouble. **SmoothQuant** (Xiao et al., 2023) folds a
# scale, exactly as AWQ does, with another aim. Divide input $j$ by
#
# $$s_j = \frac{\max |x_j|^{\,\alpha}}{\max_i |W_{ij}|^{\,1-\alpha}} .$$
#
# With $\alpha = \frac12$ both sides then reach $\sqrt{\max|x_j| \cdot \max_i|W_{ij}|}$: input and weight
# are equally hard.
#
# ## Exercise 7: SmoothQuant's scale


# %% exercise="smoothing_scale"
def smoothing_scale(
    activation_max: torch.Tensor, weight: torch.Tensor, alpha: float
) -> torch.Tensor:
    """SmoothQuant's s (I,): s_j = a_j^α / (max_i |W_ij|)^(1 − α), α from 0 to 1.

    activation_max a (I,) is max |x_j|, ≥ 0; weight W (O, I). Where a_j or all of column j is 0, s_j
    is 1. Both have one float dtype; s and the reckoning are in float32, in float64 if they are.
    """
    ### BEGIN SOLUTION
    wide = torch.promote_types(weight.dtype, torch.float32)
    inputs, columns = activation_max.to(wide), weight.abs().to(wide).amax(0)  # (O, I) -> (I,)
    scale = inputs**alpha / columns ** (1 - alpha)
    return scale.where((inputs > 0) & (columns > 0), 1.0)
    ### END SOLUTION


# %% check="smoothing_scale" points=2
check(smoothing_scale)

# %% [markdown] slide="Rotation"
# ### Rotation
#
# There is a more radical way. That the trouble sits in *coordinates* is an accident: the residual stream is
# a vector, and we may turn its axes. With an orthogonal $Q$, let every token carry $xQ$ instead of $x$.
# What reads the stream undoes it, what writes to it turns what it writes. For the writer $W_2$ and the
# reader $W_1$,
#
# $$W_1\, x = (W_1 Q)\,(Q^\top x), \qquad x + W_2\,y \;\to\; Q^\top x + (Q^\top W_2)\, y .$$
#
# (Columns here: a token that carries $xQ$ as a row carries $Q^\top x$ as a column.) The norm between them
# does not mind, since a rotation keeps lengths, if its weights are folded into the reader first. Let $Q$ mix all
# coordinates evenly, with signs drawn at random: then a vector with *few* large numbers becomes one of many middling
# ones. That is **QuaRot** (Ashkboos et al., 2024). Its $Q$ is a Hadamard matrix, of nothing but $\pm 1$, divided by
# $\sqrt{D}$.
#
# ## Exercise 8: turn a reader and a writer


# %% exercise="rotate_pair"
def rotate_pair(
    reader: torch.Tensor, norm_weight: torch.Tensor, writer: torch.Tensor, rotation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(reader, writer) for a residual stream whose tokens, rows x, have become x Q.

    The reader (O, D) was given norm(x) · norm_weight (D,) and is given norm(x Q) from now on: the
    norm's weights move into it. The writer (D, I) adds W y to the stream. rotation Q (D, D) is
    orthogonal, in float64: reckon in it. New tensors, each in the dtype of the old one.
    """
    ### BEGIN SOLUTION
    folded = reader * norm_weight.double()  # (O, D) · (D,)
    return (folded @ rotation).to(reader.dtype), (rotation.T @ writer.double()).to(writer.dtype)
    ### END SOLUTION


# %% check="rotate_pair" points=2
check(rotate_pair)

# %% [markdown]
# The library turns all of TinyLM; and the inputs of `down`, which are no part of the stream, are turned as they come,
# at run time. The logits stay: that is the test of every rotation. Then both sides are rounded. **Guess** which
# pays more at 4 bits, to repair or to rotate, and whether the gains add up.
#
# One measure is borrowed from section 6: **KL**, how far a model's next-token distribution is from the dense one's,
# in nats a token. The loss on so short a text would depend on which signs were drawn. (Three draws of them are
# averaged; behind the mean stand the least and the largest.)

# %% tags=["nbval-ignore-output"]
text = torch.tensor(tokenizer.encode(held_out_sample()).ids)
eight, four = Scheme(Format(8, symmetric=True), "channel"), Scheme(Format(4), "channel", mse_range)


def distance(model: torch.nn.Module, dense: Llama = tiny) -> float:
    """KL to a dense model, in nats a token."""
    return token_divergences(model, dense, text)[0].mean().item()


def turned(model: Llama, seed: int) -> Llama:
    """The same function, the stream and the inputs of `down` turned by Hadamard matrices."""
    dice = torch.Generator().manual_seed(seed)
    return rotated(model, random_hadamard(192, dice), random_hadamard(512, dice))


off = (turned(tiny, 0)(windows[:4]) - tiny(windows[:4])).abs().max().item()
print(f"rotated TinyLM: logits differ by at most {off:.0e}" if off < 1e-4 else "rotation failed")
plain, smooth = (recipes.nearest_model(m, eight)[0] for m in (tiny, smoothed(tiny, windows)))
both_sides = {
    "W8A8, static": [quantized_inputs(plain, 8, input_maxima(tiny, windows))],
    "W8A8, static, SmoothQuant": [quantized_inputs(smooth, 8, input_maxima(smooth, windows))],
    "W8A8, per token": [quantized_inputs(plain, 8)],
}
for label, draws in (
    ("W4A4", [tiny]),
    ("W4A4, rotated", [turned(tiny, seed) for seed in range(3)]),
):
    both_sides[label] = [quantized_inputs(recipes.nearest_model(m, four)[0], 4) for m in draws]
    repaired = [recipes.gptq_model(m, windows, four, True) for m in draws]
    both_sides[f"{label}, GPTQ"] = [quantized_inputs(model, 4) for model, _ in repaired]
    made[f"{label}, GPTQ"] = both_sides[f"{label}, GPTQ"][0], repaired[0][1]
made["W8A8, per token"] = both_sides["W8A8, per token"][0], recipes.nearest_model(tiny, eight)[1]
print("TinyLM                             KL")
for label, models in both_sides.items():
    both_sides[label] = sorted(map(distance, models))
    low, *_, high = both_sides[label] * 2
    mean, spread = sum(both_sides[label]) / len(models), f"   {low:.3f} to {high:.3f}"
    print(f"{label:28}{mean:9.4f}{spread if len(models) > 1 else ''}")
print("4 bits on one side alone               as they are   rotated")
ways = [distance(quantized_inputs(model, 4)) for model in (tiny, turned(tiny, 0))]
both_sides["inputs"] = ways
print("{:38}{:13.4f}{:10.4f}".format("inputs, a scale for each token", *ways))
for label, model in (("weights, groups of 64", tiny), ("weights rounded to 4 bits before", twice)):
    ways = [
        distance(recipes.nearest_model(m, groups(4))[0], model) for m in (model, turned(model, 0))
    ]
    both_sides[label] = ways
    print("{:38}{:13.4f}{:10.4f}".format(label, *ways))

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Two guesses: a token before and after it is turned; one static scale for SmolLM2 (stored)
alone, repaired, rotation, together = (
    sum(both_sides[f"W4A4{rest}"]) / len(both_sides[f"W4A4{rest}"])
    for rest in ("", ", GPTQ", ", rotated", ", rotated, GPTQ")
)
assert off < 1e-4 and both_sides["W8A8, per token"][0] < 0.01
assert both_sides["W8A8, static, SmoothQuant"][0] < 0.85 * both_sides["W8A8, static"][0] < 0.02
assert alone - 0.045 < repaired < alone - 0.015 and rotation < 0.75 * alone
assert together < min(both_sides["W4A4, rotated"]) - 0.015 and together < 0.62 * alone
assert abs((alone - together) / (2 * alone - repaired - rotation) - 1) < 0.25
assert both_sides["inputs"][1] < 0.7 * both_sides["inputs"][0]
assert abs(both_sides["weights, groups of 64"][1] / both_sides["weights, groups of 64"][0] - 1) < 0.12  # fmt: skip
assert STORED_STATIC["down"] > STORED_STATIC["none"] + 5 * (STORED_STATIC["all but down"] - STORED_STATIC["none"])  # fmt: skip
assert both_sides["weights rounded to 4 bits before"][1] > 1.25 * both_sides["weights rounded to 4 bits before"][0]  # fmt: skip
assert 55 < STORED["W8A8, static"][1] < 65 and STORED["W8A8 SmoothQuant, static"][1] < 33
assert STORED["W8A8, per token"][1] < 24.6 and STORED["W4A4, per token"][1] > 10_000
assert STORED["W4A4 rotated, GPTQ act-order"][1] < 0.5 * STORED["W4A4 rotated"][1]
if has_smollm2:
    before_turn = stream[8, 0]  # the first token of a window, as block 18 is given it
    after_turn = before_turn @ random_hadamard(576, torch.Generator().manual_seed(0)).float()
    figure, panels = new_figure(columns=2, height=3)
    for axes, values, title in zip(panels, (before_turn, after_turn), ("x", "x Q"), strict=True):
        axes.semilogy(values.abs(), ".", markersize=3, color=BLUE)
        axes.set(xlabel="number", title=title, ylim=(0.01, 1e5))
    panels[0].set_ylabel("size")
    figure.suptitle(
        f"SmolLM2's first token: one number of {before_turn.abs().max():,.0f} becomes 576 of about "
        f"{after_turn.abs().median():,.0f}"
    )
    assert before_turn.abs().max() > 20_000 and after_turn.abs().max() < 2_000
    predict(
        "SmolLM2's first token, block 18: 576 numbers, the largest beyond 20,000. And after the turn?",
        ["still 20,000", "about 5,000", "about 1,000", "about 3"],
        f"about 1,000: the largest is {after_turn.abs().max():,.0f}",
        Picture(
            figure,
            f"Sizes of 576 numbers, logarithmic. Before: one at {before_turn.abs().max():,.0f}, most others "
            f"below 100. After: nearly all about {after_turn.abs().median():,.0f}.",
        ),
    )
predict(
    "SmolLM2 in W8A8, one static scale for the inputs of a layer: what perplexity?",
    ["about 24", "about 26", "about 35", "about 60"],
    f"about 60: {STORED['W8A8, static'][1]:.1f}",
)

# %% [markdown] slide="6. Whom"
# On TinyLM, 8 bits on both sides cost next to nothing if each token has its own scale, and little if one scale
# serves all. At 4 bits rotation pays three times what repair pays, and **the gains add up**. Weights alone gain
# nothing from being turned; what rotation mends is the inputs. And weights that were
# rounded before *lose*: rounding to nearest had an easy time on the old grid (suspect 2), and the turn has smeared it.
# That is the clean form of what SmolLM2 shows in section 6, where "rotated, nearest, 4 bits" is the worst of its
# kind, 46.7 beside 30.2.
#
# On SmolLM2 the same ladder has steep steps. One scale for all tokens, set by the massive activations, takes even 8
# bits to 61.4. That is `down` for the most part. (Measured on a quarter of the text, nothing but inputs rounded:
# dense 24.5, all layers 64.3, `down` alone 52.3, all but `down` 28.6.) SmoothQuant gets three quarters of the way
# back, 32.6. A scale for each token does it all, 24.5, and needs no text: the first token then ruins no scale but its
# own. With 4 bits on both sides the model is gone (27,574); rotated it has 170.3, and with GPTQ on top 57.7.
#
# ## 6. Whom do you believe?
#
# So far one number judged, mostly: the loss on a text. But a compressed model may lose nothing on the *average* and
# still say other things: better here, worse there. Its users see other answers. So compare it with the
# **dense model**, token by token. Let $p$ be the dense model's distribution of the next token and $q$ the
# other's:
#
# $$\text{KL} = \frac1N \sum_{t} \sum_v p_{t,v} \ln \frac{p_{t,v}}{q_{t,v}}, \qquad
#   \text{flips} = \frac1N \sum_t \big[\arg\max q_t \ne \arg\max p_t\big] .$$
#
# Both are 0 only for a model that says the same. Flips are what a user of greedy decoding sees (Dutta et
# al., 2024, count them among answers to test questions).
#
# ## Exercises 9 and 10: KL and flips


# %% exercise="mean_kl"
def mean_kl(logits: torch.Tensor, dense_logits: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens of KL(dense ‖ other) = Σ_v p_v ln(p_v / q_v), in nats.

    A row of logits (N, V) is a token's: p is softmax of dense_logits, q of logits. Reckon in
    float64; the answer is a 0-d tensor of it. A logit may be −∞: a word that is never said. Where
    p_v is 0 it adds nothing; where only q_v is 0 the answer is infinite.
    """
    ### BEGIN SOLUTION
    q = logits.double().log_softmax(dim=1)  # ln q, (N, V)
    p = dense_logits.double().log_softmax(dim=1)
    terms = (p.exp() * (p - q)).where(p > -torch.inf, 0.0)
    return terms.sum(dim=1).mean()
    ### END SOLUTION


# %% check="mean_kl" points=2
check(mean_kl)


# %% exercise="flips"
def flips(logits: torch.Tensor, dense_logits: torch.Tensor) -> torch.Tensor:
    """Share of the tokens whose first choice changed, from 0 to 1: a 0-d tensor in float64.

    A token's first choice is the word with the largest logit in its row of (N, V); of equal logits
    the first. Logits are compared as they are, −∞ included.
    """
    ### BEGIN SOLUTION
    changed = logits.argmax(dim=1) != dense_logits.argmax(dim=1)  # (N,)
    return changed.double().mean()
    ### END SOLUTION


# %% check="flips" points=1
check(flips)

# %% [markdown]
# Two schemes of 4 bits that you have met lose about the same on the held-out text: rounding to nearest, and
# GPTQ. (AWQ stands beside them.) Each difference comes with its standard error, **paired**: both models
# read the same tokens, and find the same ones hard, so one takes the differences first and then their
# spread. **Guess:** of the answers that GPTQ changed, were as many mended as spoiled?

# %% tags=["nbval-ignore-output"]
kl_of, flips_of = yours("mean_kl"), yours("flips")
pages = text[: len(text) // 256 * 256].view(-1, 256)  # (N,) -> (B, T)
came = text[1 : pages.numel() + 1]  # the right answers
dense_logits = tiny(pages).flatten(0, 1)  # (B, T, V) -> (N, V)
dense_right, dense_losses = dense_logits.argmax(1) == came, token_losses(tiny, text)
print("TinyLM, 4 bits    loss beside the dense model, nats      KL     flips   spoiled, mended")
apart_from = {}
for name in ("nearest, 4 bits", "AWQ, 4 bits", "GPTQ, 4 bits"):
    model = made[name][0]
    lost = paired_difference(token_losses(model, text), dense_losses)
    logits = model(pages).flatten(0, 1)
    kl, flipped = float(kl_of(logits, dense_logits)), float(flips_of(logits, dense_logits))
    right = logits.argmax(1) == came
    spoiled, mended = int((dense_right & ~right).sum()), int((right & ~dense_right).sum())
    apart_from[name] = lost, kl, flipped, spoiled, mended
    print(
        f"{name:20}{lost.mean:20.4f} ± {lost.error:.4f}{kl:14.4f}{flipped:9.1%}{spoiled:9}{mended:9}"
    )
first_two = [token_losses(made[name][0], text) for name in ("nearest, 4 bits", "GPTQ, 4 bits")]
between = paired_difference(*first_two)
print(f"nearest beside GPTQ: loss {between.mean:+.4f} ± {between.error:.4f}")

# %% tags=["collapsed"]
# Does it hold here?
(near, near_kl, near_flips, *near_answers), (_, awq_kl, *_), (_, gptq_kl, gptq_flips, *gptq_answers) = apart_from.values()  # fmt: skip
assert near_kl > 1.6 * gptq_kl and near_flips > gptq_flips + 0.01 and awq_kl < near_kl
assert abs(between.mean) < 2 * between.error
assert 0.09 < gptq_flips < 0.112 < near_flips < 0.138
assert near_answers[0] > 1.3 * near_answers[1]
assert STORED["GPTQ, 4 bits"][2] < STORED["nearest, 4 bits"][2] - 0.02

# %% [markdown]
# By the loss nobody can tell the two apart: the difference is below twice its standard error. By KL, rounding is
# almost twice as far from the dense model, and it has changed every eighth answer, GPTQ every tenth. Most changed
# answers were wrong before and after; of the others more were spoiled than mended. (Rounding's 103 against 57 is no
# accident; GPTQ's 64 against 45 might be one: a fair coin is as far off in one case of twelve, and on two threads, whose sums
# end in other digits, it came to 67 against 54.) AWQ's loss is
# even above rounding's (by 0.008 ± 0.006 nats, paired), and its KL below. Which would you ship? The loss is about
# *this text*; KL and flips are about *this model*, and KL has by far the smaller error bars.
#
# Section 4, once more, by KL: on SmolLM2 plain GPTQ has the higher perplexity, and the lower KL, by 0.038 ± 0.009
# nats, in all eight windows. Repair did get something. But on TinyLM it nearly halved the KL, and here it takes
# off a tenth.
#
# ### The leaderboard
#
# **Before you look**, write down an order. Which of these is nearest to the dense model: 8 bits a channel;
# 4 bits by GPTQ; 3 bits by GPTQ; half of the weights by SparseGPT; 2:4 by SparseGPT; W4A4 rotated with
# GPTQ? And which has the smallest *file*? Each row is packed into a file as in chapter 05 (the embedding
# with 8 bits a row), weighed, loaded again, and measured from there. A mask costs a bit a weight, and what
# stays of a sparse matrix takes 16.

# %% tags=["collapsed", "nbval-ignore-output"]
# TinyLM's leaderboard: pack, weigh, load, measure
embedding = {"embedding.weight": eight}


def in_a_file(name: str) -> tuple[int, torch.nn.Module]:
    """Bytes of the packed file, and the model that it gives back."""
    model, codes = made[name]
    halves = {n: t.half() for n, t in model.state_dict().items() if n in linear_weights(model)}
    heads = {n: eight for n in ("head.weight",) if n in halves}
    how = codes if codes else every_linear(model, Sparse())
    tensors = model.state_dict() | ({} if codes else halves)
    packed = pack_tensors(tensors, how | heads | embedding)
    return size(packed).bytes, unpack_model(packed, model)


rows = [
    "nearest, 8 bits", "nearest, 4 bits", "AWQ, 4 bits", "GPTQ act-order, 4 bits",
    "AWQ, 3 bits", "GPTQ act-order, 3 bits", "GPTQ act-order, least squares, 2 bits",
    "SparseGPT, 50 %", "SparseGPT, 2:4", "W4A4, rotated, GPTQ",
]  # fmt: skip
board, dense_bytes = {}, size({n: t.half() for n, t in tiny.state_dict().items()}).bytes
print(f"TinyLM, {dense_bytes / 1e6:.2f} MB in float16")
print("                                         MB   bits per byte       KL           flips")
for name in rows:
    count, loaded = in_a_file(name)
    kl, flipped = token_divergences(loaded, tiny, text)
    board[name] = count, held_out_bits(loaded), estimate(kl), estimate(flipped.float())
    count, loss, kl, flipped = board[name]
    print(
        f"{name:37}{count / 1e6:7.2f}{loss:13.3f}{kl.mean:13.4f} ± {kl.error:.4f}{flipped.mean:9.1%}"
    )

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# SmolLM2's leaderboard, 29 rows (stored), and both as a picture
print("SmolLM2, its weights rounded before, to Q4_1. Stored 2026-11-26, AMD EPYC, one core:")
print("python -m benchmarks.language_models leaderboard FOLDER")
print(f"{'sorted by KL':50}MB    perplexity      KL           flips  minutes")
for label, row in sorted(STORED.items(), key=lambda item: item[1][2]):
    count, perplexity, kl, kl_error, flip_share, minutes = row
    print(
        f"{label:46}{count / 1e6:6.1f} {perplexity:13,.1f}{kl:11.4f} ± {kl_error:.4f}"
        f"{flip_share:8.1%}{minutes:8.1f}"
    )

assert board["GPTQ act-order, 3 bits"][2].mean < 0.7 * board["SparseGPT, 50 %"][2].mean
assert board["GPTQ act-order, 3 bits"][0] < 0.5 * board["SparseGPT, 50 %"][0]
repaired, thinned = (STORED[n] for n in ("GPTQ act-order, first token × 64, 3 bits", "SparseGPT, first token × 64, 50 %"))  # fmt: skip
assert repaired[2] < 0.9 * thinned[2] and repaired[0] < 0.5 * thinned[0]
assert abs(STORED_BESIDE_AWQ[0]) < STORED_BESIDE_AWQ[1]
assert STORED_BESIDE_AWQ[2] < -3 * STORED_BESIDE_AWQ[3]
answers = {  # what the table below says
    "nearest, 8 bits a channel": (135.0, 0.005), "W8A8, per token": (135.0, 0.036),
    "GPTQ act-order, first token × 64, 4 bits": (85.8, 0.15), "AWQ, 4 bits": (85.8, 0.17),
    "GPTQ act-order, first token × 64, 3 bits": (72.3, 0.67),
    "W4A4 rotated, GPTQ act-order": (110.4, 0.96), "SparseGPT, first token × 64, 50 %": (148.0, 0.79),
}  # fmt: skip
for label, (megabytes, kl) in answers.items():
    assert abs(STORED[label][0] / 1e6 - megabytes) < 0.06 and abs(STORED[label][2] / kl - 1) < 0.05
figure, panels = new_figure(columns=2, height=3.8)
sides = {
    "TinyLM": {n: (b[0], b[2].mean) for n, b in board.items()},
    "SmolLM2 (Q4_1 before)": {n: (s[0], s[2]) for n, s in STORED.items() if s[2] > 1e-4},
}
families = {
    "nearest": (BLACK, "nearest"), "AWQ": (ORANGE, "AWQ"), "GPTQ": (BLUE, "GPTQ"),
    "SparseGPT": (GREEN, "SparseGPT"), "Wanda": (RED, "Wanda"), "W": (SKY, "W8A8, W4A4"),
    "": (PURPLE, "others"),
}  # fmt: skip
for axes, (title, points) in zip(panels, sides.items(), strict=True):
    for label, (count, kl) in points.items():
        colour, name = next(f for start, f in families.items() if label.startswith(start))
        axes.semilogy(count / 1e6, kl, "o", color=colour, markersize=5, alpha=0.7, label=name)
    axes.set(xlabel="file (MB)", ylabel="KL to the dense model (nats)", title=title)
    axes.set_ylim(1e-4, 20)
    axes.margins(x=0.12)
    marks = {}
    for label, (count, _) in points.items():
        if " bits" in label:  # of several files with as many bits the first, which is not rotated
            marks.setdefault(label.split(" bits")[0][-1], count / 1e6)
    for bits, where in marks.items():
        axes.text(where, 1.4e-4, f"{bits} bits", ha="center", size=8)
handles, labels = panels[1].get_legend_handles_labels()
unique = dict(zip(labels, handles, strict=True))
figure.legend(unique.values(), unique, loc="outside lower center", ncols=4, frameon=False)
figure.suptitle("Bits are cheaper than zeros: 3 bits beat half of the weights, in half the bytes")
Picture(
    figure,
    "Two scatter plots, KL over megabytes, logarithmic. TinyLM: from 8 bits at 2 MB and KL 0.0003 the points "
    "rise to 2 bits at 0.9 MB and KL 0.6; pruned models lie far above at more than 2 MB. SmolLM2 alike, at "
    "higher KL.",
)

# %% [markdown] slide="The leaderboard"
# **Which one do I take?** For SmolLM2-135M, 269.1 MB in float16 (its weights rounded before, to Q4_1):
#
# | you can afford | take | file, MB | KL, nats | CPU minutes |
# |---|---|---|---|---|
# | 8 bits a weight | the nearest level, a scale for each channel; stop reading | 135.0 | 0.005 | 0 |
# | the same, and inputs of 8 bits | the same, a scale for each token | 135.0 | 0.036 | 0 |
# | 4 bits, groups of 64 | GPTQ, act-order, the first token counted 64 times | 85.8 | 0.15 | 0.7 |
# | the same, in a tool without such counts | AWQ | 85.8 | 0.17 | 1.8 |
# | 3 bits, groups of 64 | GPTQ as above; look at KL before you trust it | 72.3 | 0.67 | 0.6 |
# | 4 bits, and inputs of 4 bits | rotate, then GPTQ with act-order | 110.4 | 0.96 | 1.0 |
# | half of the weights | SparseGPT, the first token counted 64 times | 148.0 | 0.79 | 0.8 |
# | 2 bits | nothing here keeps the model: train (chapter 07) | | | |
#
# And one to avoid: GPTQ in the order of the columns, before you have looked at the first token. **Half of the
# weights gone costs more than three quarters of the bits gone**, and saves fewer bytes. (The survivors are stored in
# 16 bits and a bit for the mask, 9 bits a weight against 4.3; with 8 bits for each survivor it would be 5.) Pruning
# pays where a processor skips the zeros (chapter 10), not in the file. Rotated files are larger than 4 bits need be:
# the head takes in the last norm's weights before it is turned, the embedding does not, so the file
# holds both.
#
# How sure is that? The ± of the long table takes tokens for independent; between windows the spread says up to twice
# as much. Of GPTQ with its counts and AWQ the loss cannot say which is better (0.007 ± 0.021 nats, paired, over
# windows); by KL GPTQ is nearer by 0.023 ± 0.006, in seven windows of eight.
#
# And the ranges of least squared error of *weights*, chapter 05's search, which helped TinyLM at 3 bits and 2, make
# SmolLM2 on its old grid worse at 4: 32.2 instead of 30.2.
#
# Our methods leave out some of the originals: AWQ here judges a scale by the layer's own output, not by the whole
# attention's or MLP's, and clips query and key, too; SmoothQuant treats all four stages with one α; and the rotation
# turns neither the heads' values nor the cache.
#
# ## 7. What the calibration text does
#
# How much text, and which? Three guesses about GPTQ at 3 bits on TinyLM, and then the cell.

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# A guess: GPTQ with less text, and with other text
other = spread_windows(tokenizer, "\n\n".join(wikipedia_articles().values()), 32, 256)
texts = {
    "1 window of 256 tokens": windows[16:17],
    "4 windows": windows[::8],
    "32 windows": windows,
    "32 windows of Wikipedia": other,
}
calibrated_on = {
    label: held_out_bits(recipes.gptq_model(tiny, some, groups(3))[0])
    for label, some in texts.items()
}
one, four_windows, full, wiki = calibrated_on.values()
predict(
    f"GPTQ at 3 bits with 32 windows: {full:.3f}; nearest, without any text: {nearest_bits[3]:.3f}. And "
    "with one window of 256 tokens?",
    ["as good as with 32", "half of the gain", "nothing gained", "twice the gain"],
    f"nothing gained: {one:.3f}; with 4 windows {four_windows:.3f}, with 32 of Wikipedia {wiki:.3f}",
)

# %% tags=["collapsed"]
# Does it hold here?
assert STORED["nearest, MSE ranges, 4 bits"][1] > STORED["nearest, 4 bits"][1] + 1.5
bible = STORED["GPTQ act-order, first token × 64, 4 bits, Bible"]
assert bible[1] > STORED["nearest, 4 bits"][1] + 1 and abs(bible[2] - 0.33) < 0.005
assert one > full + 0.03 and four_windows < full + 0.03 and full < wiki < full + 0.02
assert one > nearest_bits[3] - 0.01

# %% [markdown]
# One window is no better than none. Four windows, a thousand tokens, are most of the way. Wikipedia instead of the
# King James Bible costs a hundredth of a bit per byte. SmolLM2, judged on Wikipedia, minds far more: calibrated on
# the Bible, GPTQ (act-order, first token × 64) comes to 32.2 and a KL of 0.33, on Wikipedia to 27.0 and 0.15, and
# rounding, which needs no text, has 30.2 and 0.36. Use what your model will read, and a few thousand tokens of it.
#
# ## 8. What a paper's table says
#
# | | dense | without $G$ | with |
# |---|---|---|---|
# | OPT-125M, 4 bits, WikiText-2 (Frantar et al., 2023, table 3) | 27.65 | nearest 37.28 | GPTQ 31.12 |
# | LLaMA-2-7B, 50 %, WikiText-2 (Sun et al., 2024, table 3) | 5.12 | magnitude 14.89 | SparseGPT 6.51, Wanda 6.42 |
# | SmolLM2-135M, 4 bits, ours | 23.6 | nearest 30.2 | GPTQ 30.7 to 31.6 |
# | SmolLM2-135M, 50 %, ours | 23.6 | magnitude 406.9 | SparseGPT 50.2, Wanda 53.0 |
#
# Same methods, other verdicts. Before you read on: **find three reasons** why the first row and the third need not
# agree. Read such a table with three questions.
#
# * **Same model, same rule?** OPT has 125 million weights, too, but another architecture, and its weights were never
#   rounded to 4 bits. GPTQ's table 3 has a scale per row; ours has groups of 64, where rounding has less left to
#   repair. The magnitudes of the second row are compared within a layer, ours within a row.
# * **Which text calibrates, which judges?** GPTQ takes 128 windows of 2,048 tokens of web text; ours are 16 of
#   512 from Wikipedia. You saw what a text can do.
# * **What is a row's price?** A perplexity without bytes says nothing. Nor do bytes without minutes. And look at the
#   weakest row first: a baseline that is too weak makes any method look good.
#
# ## 9. Exercise 11: invent
#
# TinyLM's linear layers at **3.25 bits a weight** or less, in bytes of the file, without training. GPTQ
# with act-order, 3 bits per channel, and ranges of least squared error takes 3.13 bits and reaches about 1.21
# bits per byte. Get to **1.207**. An eighth of a bit is left to spend. Where? (The check has a text of its own to
# calibrate with, and puts channels and hidden units into another order: the same function, so your bits per byte
# there will differ in the third digit from those at home.)


# %% exercise="compress_tiny"
def compress_tiny(model: Llama, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """TinyLM as a file holds it, its linear layers in 3.25 bits a weight or less, nothing trained.

    `pack_model` of `formats.model_file` makes such a file. Its parts of the linear layers, headers
    included, are counted; the embedding stays. The norms may change. tokens (B, T) are a text to
    calibrate with. Asked for: at most 1.207 bits per byte on held-out text (dense: 1.173).
    """
    ### BEGIN SOLUTION
    codes = {}
    four_bits = ("attention.value", "blocks.0.mlp.down")

    def treat(stage):
        gram = stage.moments.gram

        def calibrate(rows, format):  # what flows in weighs the errors of a range, too
            return mse_range(rows, format, gram.diagonal().expand(rows.shape))

        for name in stage.weight_names:
            scheme = Scheme(
                Format(4 if any(p in name for p in four_bits) else 3), "channel", calibrate
            )
            codes[name] = library_gptq(model.get_parameter(name), gram, scheme, act_order=True)

    treat_blocks(model, tokens, treat)  # nothing is changed: the inputs are the exact model's
    return pack_model(model, codes)
    ### END SOLUTION


# %% check="compress_tiny" points=3
check(compress_tiny)

# %% [markdown] question="worse_than_rounding" points=2
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **A colleague compresses a chat model with GPTQ. In every layer the output error on held-out text is half of what
# rounding has, and the model is worse than the rounded one.** "So output error is a useless measure," she says. What do
# you say, what do you ask her to measure first, and which outcome would prove you wrong?
#
# <!-- BEGIN SOLUTION -->
# The measure is a mean over tokens, and a mean can hide one kind of token that matters more than its share. I would ask
# for the output error by place, the first token of a window by itself. If that one is worse than with rounding, let the
# dense model read the first token and hand its keys and values over: the loss should fall below rounding's. If it does
# not, or if another token's exchange does as much, I am wrong, and the cause is elsewhere: in the text that calibrated,
# say.
#
# *One point* for a mean that hides something (a token, an output), and a measurement that takes it apart. *One point*
# for a test that could come out the other way, and for saying how.
# <!-- END SOLUTION -->

# %% [markdown] question="same_function" points=2
# **A paper shows that Wanda beats magnitude by far on one model and not at all on another, and says: "the first model
# is larger, so its redundancy is of another kind."** What else could it be? Describe one experiment that changes only
# what you suspect, and what you expect of four methods in it.
#
# <!-- BEGIN SOLUTION -->
# The inputs of the first may be more uneven: Wanda and magnitude differ only as far as the sizes of a layer's inputs do.
# Take the second model and fold random scales through its norms. It is the same function of the same size, with uneven
# inputs. I expect magnitude and rounding to nearest to get much worse, and Wanda and AWQ's scale to stay. If magnitude
# stays too, size may be the reason after all.
#
# *One point* for the inputs' unevenness, by the score's formula. *One point* for an experiment that leaves the function
# alone, with what is expected of the methods.
# <!-- END SOLUTION -->

# %% [markdown]
# ## In numbers

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# The chapter in numbers
recipe = yours("compress_tiny")(copy.deepcopy(tiny), tiny_calibration(tokenizer, 64))
linear_names = linear_weights(tiny)
linear_parts = {k: t for k, t in recipe.items() if k.split(":")[0] in linear_names}
weights_in = sum(w.numel() for w in linear_names.values())
own_bits = size(linear_parts, weights_in).bits_per_parameter
own_loss = held_out_bits(unpack_model(recipe, tiny))
print(f"TinyLM, {dense_bits:.3f} bits per byte in float16:      4 bits   3 bits   2 bits")
for label in ("nearest", "AWQ, scale only", "AWQ, clip only", "GPTQ act-order", "GPTQ act-order, least squares"):  # fmt: skip
    print("  {:45}{:9.3f}{:9.3f}{:9.3f}".format(label, *(rounding[label, b] for b in (4, 3, 2))))
print(
    f"half of the weights: magnitude {halved['magnitude']:.3f}, Wanda {halved['Wanda']:.3f}, ",
    end="",
)
print(f"SparseGPT {halved['SparseGPT', '50 %']:.3f}")
print(f"the twin, uneven: magnitude {on_twins['half, by magnitude'][1]:.3f}, ", end="")
print(f"Wanda {on_twins['half, by Wanda'][1]:.3f}")
print(f"invented: {own_bits:.2f} bits a weight, {own_loss:.3f} bits per byte")
print("SmolLM2 (Q4_1 before), 4 bits, KL to the dense model:")
for label in ("nearest", "GPTQ", "GPTQ act-order, first token × 64", "AWQ"):
    print(f"  {label:34}{STORED[label + ', 4 bits'][2]:.2f}")
if has_smollm2:
    print(
        f"SmolLM2, `value` of block 18, GPTQ beside nearest: {apart['GPTQ'][0] / apart['nearest'][0]:.1f} ",
        end="",
    )
    print(
        f"times the error of 511 tokens, {apart['GPTQ'][1] / apart['nearest'][1]:.1f} times that of the first"
    )
assert own_bits <= 3.25 and own_loss < 1.22  # the check asks for 1.207, with its own text

# %% [markdown] slide="In numbers"
# Which of all this works? **Repair**, if its mean is over the tokens that matter: on the clean witness it halves
# what 3 bits, 2 bits and half of the weights cost. **Weighing** works where inputs are uneven: not on TinyLM as
# it comes, on its uneven twin and on SmolLM2 very much; its clip helped TinyLM, too. **Rotation** is what
# 4-bit activations need. And 8 bits need nothing but a scale for each token.
#
# And four habits. Ask what an error meets before you make it small. Look at the token that is not like the
# others: an average has already forgotten it. Test a cause both ways, and change nothing else: mend it, and the harm
# must go; do only it, and the harm must come. And judge a copy by its distance to the original, not by its marks on
# one exam.
