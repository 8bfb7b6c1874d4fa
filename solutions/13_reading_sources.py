# %% [markdown]
# # 13 · Reading sources
#
# **How do you read a source that is sometimes wrong?**
#
# This course walks through five articles, S0 to S4, that were found on the web. They are good
# company: between them they name nearly every idea that you have met. They are also like much of what
# is written about compression: copied in places, and with little in them that shows they were run.
# Chapter after chapter has mended one of their formulas.
#
# Here you read all five with a pencil. They make 129 claims that are worth stating. Each one is
# restated below in our own words, judged, and where it can be computed, computed.
#
# The point is not that five articles have errors. The point is that you can find them, alone, in a
# minute each, and that next time it may be a famous paper, or your own.
#
# * **Afterwards you can** restate a claim, find the smallest computation that could refute it, run it,
#   and give a verdict that says no more than you know.
# * **You need** chapter 00. Chapters 01, 02, 05 and 08 explain most of the methods that are judged here;
#   where one is new to you, read its claims as a stranger would. That is practice, too.
# * **Time:** about three hours.
# * **Core:** the three first readings, your six guesses, the claim on a real model, Exercises 1 to 3 and
#   5. **Extra:** Exercises 4 and 6; all checks by topic, which you may leaf through; the glossary.

# %% tags=["collapsed"]
# Imports, and the table of claims
from copy import deepcopy
from textwrap import fill

import numpy as np
import torch
from torch import nn

from course_lib.device import best_device
from course_lib.exercises import check, hint, yours
from course_lib.measure.yardstick import tiny_quality
from course_lib.models import pretrained
from course_lib.plots.claims import draw_verdicts, explore_table
from course_lib.plots.figure import BLUE, GREEN, RED, Picture, new_figure
from course_lib.plots.predict import predict
from course_lib.pruning.masks import apply_masks, magnitude_masks
from course_lib.quantization.rounded import rounded
from course_lib.sources.claims import (
    CHECKED,
    DOCUMENTS,
    VERDICTS,
    all_claims,
    count_verdicts,
    topics,
)
from course_lib.sources.evidence import evidence, evidence_on

device = best_device()
claims = all_claims()

# %% [markdown] slide="Four verdicts"
# ## Four verdicts
#
# A claim is rarely just true or false. Four words do:
#
# * **holds**: as it stands.
# * **holds if**: under a condition that is not stated. Most of what experts say is of this kind.
# * **imprecise**: something true is near it. A quantity is missing, or two things are mixed up.
# * **wrong**: a computation or a publication contradicts it.
#
# Some claims are not made in words. A formula claims that it can be used, a sample that it runs. We count
# these too: C31 to C34 are one formula of S1.
#
# **Guess before you look.**

# %% slide=True
verdicts = count_verdicts(claims.values())
predict("Of the 129 claims, how many are wrong?", [5, 15, 30, 45, 60, 75], verdicts["wrong"])

# %%
print(", ".join(f"{verdict} {number}" for verdict, number in verdicts.items()))

# %% tags=["collapsed"]
# Does it hold here?
assert sum(verdicts.values()) == 129 and verdicts["wrong"] == 45 and verdicts["holds"] == 3

# %% [markdown]
# Only three hold just as they stand. Most of what is right is right under a condition that nobody
# states. Now by document. (A claim that stands in two documents counts for both.)

# %%
by_document = {
    document: count_verdicts(c for c in claims.values() if document in c.sources)
    for document in DOCUMENTS
}

# %% tags=["collapsed"] slide=True
# Figure: verdicts by document
figure, (axes,) = new_figure(height=3.4)
draw_verdicts(axes, by_document)
axes.set_title("About half of what S2 and S3 claim is wrong. S0, S1 and S4 do better")
wrong = {document: of["wrong"] / sum(of.values()) for document, of in by_document.items()}
assert all(0.45 < wrong[document] < 0.55 for document in ("S2", "S3"))
assert all(wrong[document] <= 0.25 for document in ("S0", "S1", "S4"))

Picture(
    figure,
    "Bars: claims of S0 to S4 by verdict; S2 makes the most claims, nearly half of them wrong; "
    "S3's are half wrong too, those of S0, S1 and S4 a quarter at most.",
)

# %% [markdown]
# S2 and S3 are the ones that print the most formulas and code. This is no reason to write fewer
# formulas. A formula can be caught; "efficiency improves" cannot. And the shares depend on how one cuts a
# text into claims: one formula of S2 gives five of them, one printed table five more.
#
# Here are all of them. Choose a document, a topic, a verdict. (By keyboard, Space opens a list.
# Without widgets you see the whole table; it scrolls.)

# %% tags=["collapsed"]
# All claims as a table to choose from
rows = [
    {
        "id": claim.id,
        "document": ", ".join(claim.sources),
        "topic": claim.topic,
        "verdict": claim.verdict,
        "claim": f"{claim.says} ({claim.place})",
        "correct form": claim.correct + f" ({claim.literature})" * bool(claim.literature),
    }
    for claim in claims.values()
]
explore_table(rows, document=DOCUMENTS, topic=topics(), verdict=VERDICTS)

# %% [markdown] slide=["Five steps", "First reading"]
# ## Five steps
#
# 1. **Find the claim.** One sentence, or one formula. Note the place.
# 2. **Restate it** in your own words. If you cannot, you have found something already.
# 3. **Ask what would refute it**, and choose the *smallest* such computation: two numbers, a matrix
#    of zeros, the ends of the range, a count by hand.
# 4. **Run it**, and give a verdict.
# 5. **Write down the correct form**, and the paper that has it. A reader who only breaks things has
#    done half of the work.
#
# Three claims, in full.
#
# ### First reading: "the number of parameters determines the complexity" (S2 §2.2)
#
# *Restated:* if I know how many parameters a model has, I know how complicated a function it can be.
#
# *What would refute it:* a model with one single parameter that can do everything. Take
#
# $$f_a(x) = \operatorname{sign}\bigl(\sin(\pi a x)\bigr),$$
#
# a wave with one parameter, the frequency $a$. Take six points $x_i = 10^{-i}$ and label each of
# them + or −, as you like: there are $2^6 = 64$ ways. For how many is there an $a$ that gets all six
# right? **Guess.** Two signs per point, one knob.


# %% slide=True
def frequency(labels: list[int]) -> int:
    """The a that gives point i, at 10**−i, the sign labels[i − 1]."""
    return 1 + sum((1 - label) // 2 * 10**i for i, label in enumerate(labels, 1))


labels = [+1, -1, -1, +1, -1, +1]
a = frequency(labels)
signs = [int(np.sign(np.sin(np.pi * a / 10**i))) for i in range(1, 7)]
print(f"a = {a:,}: signs {signs}")
print(evidence("C40"))

# %% tags=["collapsed"]
# Does it hold here?
assert signs == labels

# %% [markdown] slide="Second reading"
# All 64. One number with many digits is as good as many numbers (Vapnik, 1995, has this example).
#
# *Verdict:* **imprecise.** Count and complexity go together in practice; the one does not determine
# the other. *Correct form:* count the bits that the parameters need. This whole course lives on the
# gap between the two.
#
# ### Second reading: "the importance of a parameter" (S2 §4.1.1)
#
# $$I(p) = \frac{\lVert \lambda p \rVert_2}{\lVert p \rVert_2}$$
#
# Here $p$ is a parameter, or a vector of them, and $\lambda$ a positive number. Parameters with a
# small $I$ are to be pruned.
#
# *Restated:* the importance of $p$ is its length, weighted, and divided by its length.
#
# *What would refute it:* two parameters, one important and one not, with the same $I$. Try the
# largest and the smallest that you can think of.


# %% slide=True
def importance(p: np.ndarray, penalty: float = 0.01) -> float:
    """‖λp‖ / ‖p‖, as printed."""
    return float(np.linalg.norm(penalty * p) / np.linalg.norm(p))


for p in (np.array([1e6]), np.array([1e-6]), np.array([3.0, -4.0, 12.0])):
    print(f"I({p.tolist()}) = {importance(p):.4f}")

# %% [markdown]
# *Verdict:* **wrong.** $\lVert\lambda p\rVert = \lambda\lVert p\rVert$, and the length cancels. Every
# parameter of every model has the importance $\lambda$. So a threshold keeps everything or nothing;
# and the worked case, in which two parameters come out at 0.5 and 0.3 with $\lambda = 0.01$, cannot
# be.
#
# How does such a formula come about? The source *derives* it, with a Taylor expansion, over a page.
# The expansion is of the penalty instead of the loss, and the result is put in by hand at the end.
# **A derivation is no evidence. Two numbers are.**
#
# *Correct form:* at a minimum of the training loss, removing the weight $w_i$ costs about
# $\frac12 H_{ii} w_i^2$, where $H$ is the matrix of second derivatives of the loss (LeCun, Denker,
# Solla, 1989, "Optimal Brain Damage"). Where you have no second derivatives, the plain size $|w_i|$
# is a strong baseline (Han, Pool, Tran, Dally, 2015).
#
# ### Exercise 1: an importance that ranks
#
# What is the smallest repair? Divide by something that is the *same for all*. Let row $i$ of a
# matrix have the weights $w_i$. Its share of the whole is
#
# $$I_i = \frac{\lVert w_i \rVert_2}{\sum_j \lVert w_j \rVert_2} .$$
#
# A matrix of zeros has rows of importance 0.


# %% exercise="row_importance"
def row_importance(weight: torch.Tensor) -> torch.Tensor:
    """Each row's share of the lengths (L2 norms) of all rows; zeros for a matrix of zeros.

    weight: (O, I), however large or small. Returns (O,), in the dtype of `weight`.
    """
    ### BEGIN SOLUTION
    lengths = weight.norm(dim=1)
    return (lengths / lengths.sum()).nan_to_num()
    ### END SOLUTION


# %% check="row_importance" points=2
check(row_importance)

# %% [markdown] slide="Third reading"
# ### Third reading: "prune by the absolute value or the relative size of weights" (S0 §3.1)
#
# *Restated:* a weight that is small matters little. S0 names two ways to be small, absolute and relative,
# and does not say when to use which. Its example is one threshold for the absolute value.
#
# *What would refute it:* the same function, written with other weights. In a network
# $W_2 \operatorname{relu}(W_1 x)$ multiply $W_1$ by 10 and divide $W_2$ by 10. Not one output
# changes. Which half of the weights is small, does.

# %% slide=True
print(evidence("C06"))

# %% [markdown]
# *Verdict:* **holds if** we read "relative" as: within one layer, or normalized. The source has the right
# word and does not explain it. *Paper:* Han, Pool, Tran, Dally, 2015, who set one threshold for each
# layer. The claim is good practice; the condition is what makes it so.
#
# ### What cannot be computed
#
# S4 lists "Pruning neural networks: is it time to nip it in the bud?" as arXiv 2003.03033. No
# computation helps here, but the smallest refutation is smaller still: open the link. It is another
# paper, Blalock et al., 2020, "What is the State of Neural Network Pruning?" The one that is named is
# Crowley, Turner, Storkey, O'Boyle, 2018, arXiv 1810.04622. Two other references in these documents
# could not be traced at all. Say it in just these words. "Could not be traced" is what you know;
# "made up" is not.
#
# ## Your turn: guess six verdicts
#
# Write one of the four verdicts behind each claim, before you run the cell below. (Five of them can be
# computed. One you have to look up.)

# %%
guesses = {
    "C02": "?",
    "C22": "?",
    "C37": "?",
    "C85": "?",
    "C112": "?",
    "C122": "?",
}
for claim in guesses:
    print(f"{claim:>4} {'/'.join(claims[claim].sources)}: {claims[claim].says}")

# %%
for name, guess in guesses.items():
    print(f"{name:>4} you: {guess:<9} verdict: {claims[name].verdict}")
    looked_up = f"{claims[name].correct} ({claims[name].literature})"
    found = evidence(name) if claims[name].evidence == CHECKED else looked_up
    print(fill(f"→ {found}", 78, initial_indent="     ", subsequent_indent="       "))
hits = sum(claims[name].verdict == guess for name, guess in guesses.items())
print(f"{hits} of {len(guesses)}")

# %% tags=["collapsed"]
# Does it hold here?
assert {claims[name].verdict for name in guesses} == set(VERDICTS)

# %% [markdown]
# ## One claim on a real model
#
# S2 says of pruning that it has "a certain effect" on quality and of quantization that its effect is
# "larger" (§3.3); in general pruning costs little, compression and quantization may cost more (§9.3).
# Many people believe it, for rounding *every* weight sounds worse than dropping the small ones.
#
# To compare, both need the same size. TinyLM's file holds 16 bits a weight. To make a matrix $r$ times
# smaller than that, either round each weight to $16/r$ bits (one even grid a row, as in chapter 00), or
# keep the largest $1/r$ of the weights. We give pruning two advantages: it need not pay for the positions
# of the weights that stay, and it may choose the better of two thresholds, one for each layer or one for
# all. Both treat the same matrices, the embedding too. (Rounding does not pay for its scales either: one
# a row, a sixth of a bit for a weight in most rows.)
#
# **Guess:** which is better, in bits per byte of held-out text, at 2, 4 and 8 times smaller?


# %% slide=True
def pruned_to(model: nn.Module, share: float, per_layer: bool) -> nn.Module:
    """A copy of the model that keeps this share of the weights of all its matrices."""
    copy = deepcopy(model)
    matrices = {name: p for name, p in copy.named_parameters() if p.dim() == 2}
    apply_masks(matrices, magnitude_masks(matrices, share, per_layer))
    return copy


def measure(model: nn.Module) -> float:
    """Bits per byte of the course's held-out text."""
    return tiny_quality(model, tokenizer).bits_per_byte


tiny, tokenizer = pretrained.tiny()
tiny.to(device)

dense = measure(tiny)
times_smaller = (2, 4, 8)
quantized = [measure(rounded(tiny, 16 // r)) for r in times_smaller]
pruned = [
    min(measure(pruned_to(tiny, 1 / r, per_layer)) for per_layer in (True, False))
    for r in times_smaller
]
for r, q, p in zip(times_smaller, quantized, pruned, strict=True):
    print(f"{r} times smaller: {16 // r} bits {q:.2f}   1/{r} of the weights {p:.2f}")

# %% tags=["collapsed"] slide=True
# Figure: rounding against pruning at the same size
figure, (axes,) = new_figure(height=3.8)
axes.plot(times_smaller, quantized, "o-", color=BLUE, label="rounded to 16/r bits")
axes.plot(times_smaller, pruned, "s-", color=RED, label="largest 1/r of the weights kept")
axes.axhline(dense, color=GREEN, linestyle="--", label="16 bits, all weights")
axes.set_xscale("log", base=2)
axes.set_xticks(times_smaller, [str(r) for r in times_smaller])
axes.set(xlabel="times smaller, r", ylabel="bits per byte (lower is better)", ylim=(0, None))
axes.set_title("Up to 4 times smaller, quantization is better. At 8 the order turns")
axes.legend(frameon=False, loc="lower right")
assert all(q < p - 0.1 for q, p in zip(quantized[:2], pruned[:2], strict=True))
assert 1.03 < quantized[1] / dense < 1.04 and pruned[1] > 2 * dense
assert pruned[2] < quantized[2] - 0.3 and pruned[2] > 2 * dense

Picture(
    figure,
    "Lines: rounded weights stay near the dense model up to 4 times smaller and then collapse; "
    "pruned ones are worse from the start, and better only at 8 times, where both are useless.",
)

# %% [markdown]
# *Verdict:* **wrong** as a general rule. At 4 bits the model loses 3 %, and pruned to the same
# size the model is ruined. At 2 bits the order turns, but there both have failed. This is TinyLM,
# without training afterwards. Kuzmin, Nagel, van Baalen, Behboodi, Blankevoort, 2023, "Pruning vs
# Quantization: Which is Better?", compared many models, with training too: quantization is ahead
# in most cases, and pruning only at very high compression.
#
# S2 names no size, and a comparison without one can come out as you like. We added *at the same size* to
# get a claim that can fail, and left out the rebuilding that S2 puts after pruning. The verdict is on the
# general rule, tested in this way.
#
# ## All checks, by topic
#
# Each check is a small function that draws its numbers from a seed, computes, asserts the verdict and
# says what it found. (They are in the folder `course_lib/sources/checks/`.) This cell defines how
# they are shown. (The other 43 claims needed a trained model, TensorFlow, a stopwatch, longer
# training or a library. A few of them you met above; the rest are in the table only.)


# %%
def show(topic: str) -> None:
    """Each claim of a topic that can be checked here: verdict, claim, what the check found."""
    for claim, found in evidence_on(topic):
        heading = f"{claim.id} {'/'.join(claim.sources)} · {claim.verdict.upper()} · {claim.says}"
        print(fill(heading, 78, subsequent_indent="    "))
        print(fill(f"→ {found}", 78, initial_indent="    ", subsequent_indent="      "))


show("redundancy")
show("language models")

# %% [markdown]
# C02 is double descent (Belkin, Hsu, Ma, Mandal, 2019): with as many parameters as samples the model
# is at its worst, with ten times as many at its best. "Too many parameters over-fit" is what all of
# us learned. It is half of the curve. (With more noise a small model can be as good. So it is no law,
# either way.)
#
# ### The objective

# %%
show("objective")

# %% [markdown]
# ### Pruning

# %%
show("pruning")

# %% [markdown]
# ### Sparsification

# %% slide=True
show("sparsification")

# %% [markdown]
# ### Exercise 2: a weight is not a probability
#
# S2 §4.1.3 keeps "$p$ with probability $p$": one letter for the weight and for its chance. Give each
# its own. Let $q$ (`keep`) be the probability of keeping, and $u$ (`uniform`) a number drawn evenly
# between 0 and 1 for each weight $w$:
#
# $$w \;\to\; \begin{cases} w / q & u < q \\ 0 & \text{otherwise.}\end{cases}$$
#
# The division makes the mean come out as $w$. That is dropout on weights, DropConnect (Wan et al.,
# 2013). Raise a `ValueError` unless `0 < keep <= 1`.


# %% exercise="sparsify_at_random"
def sparsify_at_random(weight: torch.Tensor, keep: float, uniform: torch.Tensor) -> torch.Tensor:
    """w / keep where uniform < keep, else 0: on average w itself.

    weight, uniform: of equal shape and dtype, which the result has, too. A `keep` that is 0 or
    less, or more than 1, is a ValueError.
    """
    ### BEGIN SOLUTION
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, not {keep}")
    return torch.where(uniform < keep, weight / keep, 0.0)
    ### END SOLUTION


# %% check="sparsify_at_random" points=2
check(sparsify_at_random)

# %% [markdown]
# ### Low rank and codebooks

# %% slide=True
show("low rank and codebooks")

# %% [markdown]
# ### Exercise 3: where did the signs go?
#
# S2's `compress_model` replaces a tensor by $|w| / \lVert w \rVert$. It has as many numbers as before and takes as many bytes; what is gone is the signs, and the norm. What *would* compress is the other half: keep
# **only** the signs, one bit each, and one scale $s_i$ for each row $i$. Which scale makes
# $\sum_j (w_{ij} - s_i \operatorname{sign} w_{ij})^2$ least? Set its derivative to zero:
#
# $$s_i = \frac1m \sum_{j=1}^m |w_{ij}| ,$$
#
# with $m$ weights in a row. This is the code of XNOR-Net (Rastegari, Ordonez, Redmon, Farhadi, 2016),
# the paper that S3 cites under a wrong title. Zero gets the sign +1, since one bit has no third value.


# %% exercise="sign_and_scale"
def sign_and_scale(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(signs, scales): int8 signs −1 or 1 (1 for zero), and the mean |w| of each row.

    weight: (O, I). signs: (O, I). scales: (O,), in the dtype of `weight`.
    """
    ### BEGIN SOLUTION
    signs = torch.where(weight < 0, -1, 1).to(torch.int8)
    return signs, weight.abs().mean(dim=1)
    ### END SOLUTION


# %% check="sign_and_scale" points=2
check(sign_and_scale)

# %% [markdown]
# How much of a matrix survives in its signs? Compare your code with the printed one on a normal
# matrix. The printed one is decoded with the norm, which the source throws away.

# %%
weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
signs, scales = yours("sign_and_scale")(weight)
decoded = signs * scales[:, None]
printed = weight.abs() / weight.norm() * weight.norm()
lost = {
    name: ((weight - code).square().sum() / weight.square().sum()).item()
    for name, code in {"1 bit, signs and scales": decoded, "32 bits, as printed": printed}.items()
}
for name, share in lost.items():
    print(f"{name:<24} squared error {share:.0%} of the weights' energy")

# %% tags=["collapsed"]
# Does it hold here?
one_bit, as_printed = lost.values()
assert 0.3 < one_bit < 0.4 and as_printed > 5 * one_bit and as_printed > 1

# %% [markdown]
# One bit for each weight is more than five times nearer than 32 bits without the sign; and deleting the matrix
# (100 %) would be nearer than the printed code as well.
#
# ### Quantization

# %%
show("quantization")

# %% [markdown]
# ### Exercise 4: a random quantizer whose probabilities are possible
#
# S2's `quantize_model(alpha=4)` multiplies each sign by 0 or 1, drawn with the probabilities
# $\alpha = 4$ and $1-\alpha = -3$. NumPy refuses. With a legal $\alpha$ it would be worse: every
# weight has the same chance, so the result says nothing about its size.
#
# The idea can be saved. Let $s = \max |w|$, and let each weight be hit with a probability that is its
# own relative size:
#
# $$w \;\to\; \begin{cases} s \cdot \operatorname{sign} w & u < |w|/s \\ 0 & \text{otherwise,}
# \end{cases} \qquad u \text{ drawn evenly between 0 and 1.}$$
#
# On average this is $s \cdot \operatorname{sign} w \cdot |w|/s = w$. It was made for gradients:
# TernGrad (Wen et al., 2017). The draws come as an argument, so that your function is
# deterministic. Think of a tensor of zeros.


# %% exercise="stochastic_ternary"
def stochastic_ternary(weight: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """sign(w) · s where uniform < |w| / s, else 0, with s = max |w|.

    weight, uniform: of equal shape and dtype; s is the largest of all. The result has their dtype.
    """
    ### BEGIN SOLUTION
    scale = weight.abs().max()
    hit = uniform * scale < weight.abs()
    return scale * weight.sign() * hit
    ### END SOLUTION


# %% check="stochastic_ternary" points=2
check(stochastic_ternary)

# %% [markdown]
# ### Distillation

# %%
show("distillation")

# %% [markdown]
# ### Exercise 5: divide by the right number
#
# S3 prints the mean squared error with $\frac1n$, and has said before that $n$ is the number of
# weights. Then a larger model has a smaller error, whatever it predicts. The average is over the
# numbers that were predicted. With batches there is a second trap: they need not be equally long.
# Return a tensor.


# %% exercise="mse_over_batches"
def mse_over_batches(
    model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """Mean squared error over every target number of all batches, (inputs, targets) each.

    The targets may have any number of axes. Returns a 0-d tensor in their dtype.
    """
    ### BEGIN SOLUTION
    total, count = 0.0, 0
    for inputs, targets in batches:
        total = total + (model(inputs) - targets).square().sum()
        count += targets.numel()
    return total / count
    ### END SOLUTION


# %% check="mse_over_batches" points=2
check(mse_over_batches)

# %% [markdown]
# ### Code samples
#
# S2 prints a program and, below it, its output. These can be checked without running anything: an
# output has to agree with itself, and with a count by hand.

# %%
show("code samples")

# %% [markdown]
# ### Exercise 6: count by hand
#
# The printed table gives the embedding, the LSTM (long short-term memory) and the dense layer, and a
# total that is not even their sum. An LSTM has four gates. With inputs of width $e$ and a hidden
# state of width $h$, each gate has a matrix for the input ($e \cdot h$), a matrix for the state
# ($h \cdot h$), and a bias ($h$). A dense layer has a bias as well.


# %% exercise="count_lstm_model"
def count_lstm_model(
    vocabulary: int, width: int, hidden: int, classes: int
) -> tuple[int, int, int]:
    """Parameters of Embedding(vocabulary, width), LSTM(hidden) and Dense(classes), as in Keras."""
    ### BEGIN SOLUTION
    embedding = vocabulary * width
    lstm = 4 * (width * hidden + hidden * hidden + hidden)
    dense = hidden * classes + classes
    return embedding, lstm, dense
    ### END SOLUTION


# %% check="count_lstm_model" points=2
check(count_lstm_model)

# %%
by_hand = yours("count_lstm_model")(1000, 128, 128, 10)
in_print = (128_000, 128_256, 1_280)
for name, count, claimed in zip(("embedding", "LSTM", "dense"), by_hand, in_print, strict=True):
    print(f"{name:<10} {count:>9,}   printed {claimed:>9,}")
print(
    f"{'total':<10} {sum(by_hand):>9,}   printed {1_288_880:>9,}, rows add up to {sum(in_print):,}"
)

# %% tags=["collapsed"]
# Does it hold here?
assert sum(by_hand) == 260_874 and sum(in_print) == 257_536

# %% [markdown]
# ### Speed, and words

# %%
show("acceleration")
show("terms")

# %% [markdown]
# ## Where to look first
#
# Errors have habits. Six questions find a third of what is not right here, and none of them needs a
# GPU.

# %% slide=True
questions = {
    "Does one letter mean two things?": ["C53", "C87", "C89", "C93"],
    "What happens at the ends, and at zero?": ["C30", "C31", "C33", "C34", "C96", "C124"],
    "Where did the sign go?": ["C70", "C72", "C85", "C88", "C94"],
    "Does the code do what the text says?": ["C16", "C69", "C98", "C99", "C118"],
    "Could this output have come out otherwise?": ["C76", "C77", "C78", "C95", "C97", "C101"],
    "Does the cited work exist, and say so?": ["C80", "C81", "C103", "C121"],
}
for question, found in questions.items():
    print(f"{question:<44} {len(found)}: {', '.join(found)}")

# %% tags=["collapsed"]
# Does it hold here?
all_found = {name for found in questions.values() for name in found}
not_right = [c for c in claims.values() if c.verdict in ("wrong", "imprecise")]
assert all_found <= {c.id for c in not_right} and 0.3 < len(all_found) / len(not_right) < 0.36

# %% [markdown] question="a_claim_of_yours" points=3
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **Take a sentence about small or fast models from somewhere else**: a paper's abstract, a product's
# page, the news. Quote it with its place. Restate it so that it can be checked (which model, compared
# with what, measured how, on which machine), give one of the four verdicts, or write down the
# experiment that would decide.
#
# <!-- BEGIN SOLUTION -->
# Any sentence will do. A good answer has a quotation and where it stands; a restatement in which
# every comparison has two sides and every number a unit and a condition; and a verdict with its
# evidence, or an experiment that could turn out either way.
#
# *One point* for each of the three.
# <!-- END SOLUTION -->

# %% [markdown] question="kindly" points=2
# **Write to the author of one of the claims that are wrong.** At most four sentences: what is right
# in it, what is not, how you know, and a sentence that could stand in its place.
#
# <!-- BEGIN SOLUTION -->
# For example: “Thank you for the section on how a student's loss is made up; it sent me to the
# original. There each part is averaged over the samples, (1−α)·CE + α·T²·KL (Hinton et al., 2015),
# where yours is divided by the number of the model's parameters, so that a larger student would be
# pulled less by the same data. I tried both on a small network. Perhaps: ‘both losses are means over
# the batch, and the soft one is multiplied by T²’.” Any claim that the chapter calls wrong will do.
#
# *One point* for the right correction with its source or experiment. *One point* for words that an
# author would like to read.
# <!-- END SOLUTION -->

# %% [markdown]
# And one more, which no table shows: **what is missing?** None of the five documents has a decoder, a
# zero-point, a mask, a temperature, fine-tuning, or one measured result. You cannot see a gap by
# reading. You see it when you try to run what you read.
#
# Now do it yourself. Take the last paper or post that you believed. Find three claims, restate them,
# choose for each the smallest computation that could refute it, and run it. If all three hold, you
# have lost ten minutes, and know something that you only believed before.
#
# ## Glossary
#
# The field's words, in English and Chinese. Where the documents use another Chinese word than the
# standard one, both stand there.
#
# | English | 中文 | in the documents, if different | chapter |
# |---|---|---|---|
# | large language model | 大语言模型 | 大规模语言模型, 大模型 | 00 |
# | redundancy | 冗余 | | 01 |
# | deduplication | 去重 | | 01 |
# | over-fitting, generalization | 过拟合, 泛化 | | 01 |
# | recurrent neural network | 循环神经网络 | 递归神经网络 (recursive) | 01 |
# | regularization, L1 and L2 norm | 正则化, L1/L2 范数 | | 02 |
# | sparsity, to make sparse | 稀疏性, 稀疏化 | | 02 |
# | cross-validation | 交叉验证 | | 02 |
# | pruning | 剪枝 | 修剪 (in S2 all compression); 权重裁剪 (clipping) | 02 |
# | importance score, saliency | 重要性, 显著性 | | 03 |
# | mask | 掩码 | missing | 02 |
# | fine-tuning | 微调 | missing; 模型重建 (rebuilding) is not explained | 03 |
# | structured pruning: neuron, channel, head | 结构化剪枝: 神经元, 通道, 注意力头 | | 04 |
# | quantization, dequantization | 量化, 反量化 | | 05 |
# | scale, zero-point | 缩放因子, 零点 | zero-point missing | 05 |
# | symmetric, asymmetric (affine) | 对称, 非对称 | 不对称量化 | 05 |
# | calibration | 校准 | missing | 05 |
# | uniform, non-uniform | 均匀, 非均匀 | 线性, 非线性 | 05, 06 |
# | codebook, weight sharing, k-means | 码本, 权重共享, K 均值 | | 06 |
# | quantization-aware training | 量化感知训练 | | 07 |
# | knowledge distillation | 知识蒸馏 | 知识迁移, 迁移学习 (transfer learning) | 08 |
# | teacher, student | 教师模型, 学生模型 | | 08 |
# | temperature, soft targets | 温度, 软目标 | missing | 08 |
# | low-rank decomposition | 低秩分解 | | 09 |
# | operator fusion | 算子融合 | | 10 |
# | model parallelism | 模型并行 | | 10 |
# | latency, throughput | 延迟, 吞吐量 | | 10 |
#
# ## In numbers

# %% slide=True
# How many claims, and the claim on a real model
evidences = [claim.evidence for claim in claims.values()]
checked = evidences.count(CHECKED)
print(f"claims: {len(claims)}; " + ", ".join(f"{k} {v}" for k, v in verdicts.items()))
print(f"checked by a function in this chapter: {checked}; ", end="")
print(
    f"run elsewhere: {evidences.count('run elsewhere')}; looked up: {evidences.count('looked up')}"
)
print(
    f"4 bits or a quarter of the weights: {quantized[1]:.2f} or {pruned[1]:.2f} bits per byte, ",
    end="",
)
print(f"dense {dense:.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert checked == 86 and verdicts == {"holds": 3, "holds if": 38, "imprecise": 43, "wrong": 45}
