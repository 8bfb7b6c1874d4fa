# %% [markdown]
# # 01 · Redundancy
#
# **How much of a language model, and of the text it learned from, is not needed? And how would you
# know?**
#
# In chapter 00 a model lost three quarters of its bits and hardly noticed. Something in it was
# redundant. The articles that this course follows name two kinds (S4 §1.1): **data redundancy**,
# text that comes again and again, and **model redundancy**, parameters that add nothing. They give
# no way to measure either. In this chapter you build the measures, point them at a real text and two
# real models, and find that they do not agree. That disagreement is the useful part.
#
# Keep one idea in mind. *Redundant* is not a property of a thing. It is a property of a thing
# **given what else is there**. Of two equal pages in a book, either may go. Not both.
#
# * **Afterwards you can** find copies and near copies in a text of any size, tell skill from memory
#   where test text has leaked, and ask a model four questions about its redundancy.
# * **You need** chapter 00.
# * **Time:** about four hours.
# * **Core:** Exercises 1 to 3 and 8 to 10; the leak; sections 3 to 5. **Extra:** near copies without comparing everything with everything (Exercises 4 to 7; run the cells all the same, the leak needs them).

# %% tags=["collapsed"]
# Imports, TinyLM, and the text
import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.data.images import digits
from course_lib.data.text import bible_chapters, bible_verses, split
from course_lib.device import best_device
from course_lib.exercises import check, hint, progress, yours
from course_lib.formats.entropy import code_entropy
from course_lib.measure.quality import token_losses
from course_lib.measure.yardstick import tiny_quality, wikipedia_sample
from course_lib.models import layers, pretrained
from course_lib.models.lstm import LSTM, train_briefly
from course_lib.models.ngram import fit_ngram, token_probabilities
from course_lib.models.parts import record_inputs
from course_lib.plots.explore import explore
from course_lib.plots.figure import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, Picture, new_figure
from course_lib.plots.predict import predict
from course_lib.plots.redundancy import draw_heat_map
from course_lib.plots.watch import watch
from course_lib.redundancy import minhash, removal, shingles, spectra, units
from course_lib.redundancy.duplicates import first_copies

device = best_device()
tiny, tokenizer = pretrained.tiny()
tiny.to(device)
chapters = bible_chapters("kjv")
train_text, held_out = split(chapters)
encoded = tokenizer.encode(held_out)
lines = tokenizer.encode_batch(train_text.splitlines(keepends=True))
train_tokens = torch.tensor([token for line in lines for token in line.ids], device=device)
held_tokens = torch.tensor(encoded.ids, device=device)
held_bytes, vocabulary = len(held_out.encode()), tokenizer.get_vocab_size()
print(f"to learn from: {len(train_tokens):,} tokens;  held out: {len(held_tokens):,}")
assert len(train_tokens) == 1_101_192

# %% [markdown] slide="1 · Three kinds"
# ## 1 · Three kinds of model, one text
#
# Language models were tables of counts first. Shannon (1948) counted letters and words. Jelinek and
# Mercer (1980) mixed counts of different lengths for speech recognition. Hochreiter and Schmidhuber
# (1997) built the **LSTM**, which reads token after token and carries a state along. The Transformer
# (Vaswani et al., 2017) reads all tokens at once. S2 §1.1 tells this as a story of progress. Let us
# measure it, on one text with one tokenizer.
#
# An **n-gram model** predicts a token from the $n-1$ tokens before it. Take $n = 2$. Let $C(v, w)$ be
# how often token $w$ followed token $v$, and $C(v) = \sum_w C(v, w)$. The plain share
# $C(v,w)/C(v)$ says that a pair never seen is impossible, and one such pair in a new text costs
# infinitely many bits. So keep something back for surprises. How much? Witten and Bell (1991) look at
# how often $v$ surprised you so far: $T(v)$ different tokens have followed it. So
#
# $$p(w \mid v) = \frac{C(v, w) + T(v) \, p(w)}{C(v) + T(v)} ,$$
#
# where $p(w)$ is the **unigram**: how common $w$ is by itself. Sum over $w$: the numerator gives
# $C(v) + T(v)$. The row sums to one, with nothing to tune. A longer context is mixed with the next
# shorter one in the same way.
#
# ## Exercise 1: a bigram that sums to one
#
# A row of `pairs` that is all zero belongs to a token that nothing ever followed. There, the unigram
# is all you know.


# %% exercise="interpolated_bigram"
def interpolated_bigram(pairs: torch.Tensor, unigram: torch.Tensor) -> torch.Tensor:
    """p(w | v) after Witten and Bell, row v for each token v: (V, V), float32.

    pairs: (V, V), int64, how often w (column) followed v (row). unigram: (V,), float32, p(w).
    """
    ### BEGIN SOLUTION
    total = pairs.sum(dim=1, keepdim=True)
    followers = (pairs > 0).sum(dim=1, keepdim=True)
    mixed = (pairs + followers * unigram) / (total + followers)
    return torch.where(total > 0, mixed, unigram)
    ### END SOLUTION


# %% check="interpolated_bigram" points=2
check(interpolated_bigram)

# %% [markdown]
# Now count the Bible. The library's `fit_ngram` does so for every order up to five at once. Your
# bigram and the library's have to agree to the last digit shown. **Numbers stored** are the counts
# above zero, those of the shorter contexts included.
#
# **Guess first:** does the model get better with every token of context?

# %% slide=True
bigram = yours("interpolated_bigram")

ngram = fit_ngram(train_tokens, order=5, vocabulary=vocabulary)
by_order = token_probabilities(ngram, held_tokens)  # (order, tokens)
ngram_bits = -by_order[:, 1:].log2().sum(dim=1) / held_bytes
seen = train_tokens[:50_000]
seen_bytes = len(tokenizer.decode(seen.tolist()).encode())
seen_bits = -token_probabilities(ngram, seen)[:, 1:].log2().sum(dim=1) / seen_bytes
every = torch.arange(vocabulary, device=device)
unigram = token_probabilities(ngram, every)[0]
places = train_tokens[:-1] * vocabulary + train_tokens[1:]
pairs = torch.bincount(places, minlength=vocabulary**2).view(vocabulary, vocabulary)
by_hand = bigram(pairs, unigram)[held_tokens[:-1], held_tokens[1:]]
assert torch.allclose(by_hand, by_order[1, 1:], rtol=1e-3)

print("order   numbers stored   bits per byte: text it counted   held-out text")
for order in range(1, 6):
    print(f"{order:>5}{ngram.parameters(order):>17,}", end="")
    print(f"{seen_bits[order - 1]:>33.2f}{ngram_bits[order - 1]:>16.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert ngram_bits[2] < ngram_bits[1] < ngram_bits[0] and ngram_bits[2] + 0.02 < ngram_bits[4]
assert abs(ngram_bits[3] - ngram_bits[2]) < 0.005

# %% [markdown]
# On the text that it counted, every order is better than the one before. On held-out text the
# fourth order brings nothing, and the fifth does harm. Three quarters of the numbers in the 5-gram
# model, those of orders four and five, buy nothing on a new text. That is redundancy you can count,
# and it is **over-fitting** you can see. Remember it for section 5.
#
# Now an LSTM, trained here for some seconds, and TinyLM, which took an hour. All are judged on the
# same text: the 59 chapters that nobody has learned from. (Of a network, the numbers stored are its
# parameters.)
#
# **Guess before you look:** who is better, the LSTM or the trigram table?

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
lstm = LSTM(vocabulary, width=64).to(device)
train_briefly(lstm, train_tokens, steps=150)
lstm_losses = token_losses(lstm, held_tokens, length=256)
lstm_bits = lstm_losses.sum().item() / math.log(2) / held_bytes
tiny_losses = token_losses(tiny, held_tokens).cpu()
tiny_bits = tiny_losses.sum().item() / math.log(2) / held_bytes
parameters = {
    name: sum(p.numel() for p in model.parameters())
    for name, model in {"LSTM": lstm, "TinyLM": tiny}.items()
}

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure behind a guess: bits per byte against numbers stored
figure, (axes,) = new_figure(height=3.8)
stored = [ngram.parameters(order) for order in range(1, 6)]
axes.semilogx(stored, ngram_bits.tolist(), "o-", color=BLUE, label="n-gram, counted in a second")
for order, (x, y) in enumerate(zip(stored, ngram_bits.tolist(), strict=True), start=1):
    axes.annotate(f"n = {order}", (x, y), xytext=(0, 8), textcoords="offset points", ha="center")
axes.plot(parameters["LSTM"], lstm_bits, "s", color=ORANGE, markersize=9, label="LSTM, seconds")
axes.plot(parameters["TinyLM"], tiny_bits, "D", color=RED, markersize=9, label="TinyLM, an hour")
axes.set(xlabel="numbers stored", ylabel="held-out bits per byte", ylim=(1.0, 2.6))
axes.set_title("A table of counts beats a young LSTM, and then more counts stop helping")
axes.legend(frameon=False)
assert tiny_bits < ngram_bits[2] < lstm_bits < 2.2 and stored[4] > parameters["TinyLM"]
assert 1.37 < ngram_bits[2] < 1.38 and 1.40 < ngram_bits[4] < 1.41 and 1.17 < tiny_bits < 1.18

predict(
    "Who predicts held-out text better, the table of three-token counts or the LSTM?",
    ["the table", "the LSTM"],
    "the table" if ngram_bits[2] < lstm_bits else "the LSTM",
    Picture(
        figure,
        "Bits per byte against numbers stored: n-grams fall to 1.37 at order three and rise to 1.41 "
        "at order five; the LSTM lies above their curve, TinyLM below at 1.17.",
    ),
)

# %% [markdown]
# So "n-gram, then LSTM, then Transformer" is no ladder on which every step is better. Half a million
# counts, made in a second, beat the LSTM that trained for some seconds. (It is young. Its cost is in
# training, the table's is in storage.) And the 5-gram model stores more numbers than TinyLM has parameters, and predicts worse than
# the 3-gram, which stores a quarter as many. The number of parameters says what a model weighs. It
# does not say what it is worth: S2 §2.2 lets the count "directly determine" the complexity.
#
# ## 2 · Redundancy in data
#
# Start with the easy kind: texts that are *equal*. But equal how?
#
# ## Exercise 2: keep the first copy
#
# Two texts count as equal here if they differ in nothing but case and white space. (For
# case, `str.casefold` knows all alphabets.)


# %% exercise="keep_first"
def keep_first(documents: list[str]) -> list[int]:
    """Indices of the first copy of each text, where case and white space do not matter.

    A run of white space (whatever str.split() splits at) is as good as one blank, and none
    counts at the ends of a text. Case is what str.casefold() takes away. All else is kept.
    """
    ### BEGIN SOLUTION
    first: dict[str, int] = {}
    for index, text in enumerate(documents):
        first.setdefault(" ".join(text.casefold().split()), index)
    return list(first.values())
    ### END SOLUTION


# %% check="keep_first" points=1
check(keep_first)

# %%
keep = yours("keep_first")

verses = list(bible_verses("kjv").values())
removed = {
    "letter by letter": len(verses) - len(set(verses)),
    "case and white space": len(verses) - len(keep(verses)),
    "punctuation too": (
        first_copies([" ".join(shingles.words(v)) for v in verses]) != np.arange(len(verses))
    ).sum(),
}
for rule, count in removed.items():
    print(f"{rule:22}{count:>5} of {len(verses):,} verses are copies of an earlier one")

# %% tags=["collapsed"]
# Does it hold here?
assert verses.count("And the LORD spake unto Moses, saying,") == 72
assert removed["letter by letter"] == 268 and removed["punctuation too"] == 309

# %% [markdown] slide="How alike"
# Nobody doctored this text, and it repeats itself. (Exodus, Leviticus and Numbers say "And the
# LORD spake unto Moses, saying," 72 times.) How many copies you find depends on what you call a copy.
# Change one word, and every exact method is blind.
#
# ### How alike are two texts?
#
# Slide a window of three words over a text. Each run of three words is a **shingle** (Broder, 1997). Let
# $A$ be the *set* of shingles of one text and $B$ that of another. Their **Jaccard similarity** is
#
# $$J(A, B) = \frac{|A \cap B|}{|A \cup B|} ,$$
#
# common shingles, divided by all shingles that either has. It is 1 for copies, 0 for strangers.
#
# ## Exercise 3: Jaccard similarity of shingles


# %% exercise="shingle_jaccard"
def shingle_jaccard(first: list[str], second: list[str], width: int) -> float:
    """|A ∩ B| / |A ∪ B| of the sets of runs of `width` words.

    first, second: words as they are, at least `width` of them. A run is equal to another if all
    its words are, in their order.
    """
    ### BEGIN SOLUTION
    a = {tuple(first[i : i + width]) for i in range(len(first) - width + 1)}
    b = {tuple(second[i : i + width]) for i in range(len(second) - width + 1)}
    return len(a & b) / len(a | b)
    ### END SOLUTION


# %% check="shingle_jaccard" points=2
check(shingle_jaccard)

# %% [markdown]
# Now compare all 1,189 chapters with each other: 706,266 pairs. Which chapters of the Bible are
# copies? Nobody tells the program that the books of Kings and Isaiah share a story.

# %% tags=["collapsed"]
# Names of chapters
number = list(
    dict.fromkeys(verse // 1000 for verse in bible_verses("kjv"))
)  # 1000 · book + chapter
books = {
    9: "1 Sam",
    10: "2 Sam",
    11: "1 Kings",
    12: "2 Kings",
    13: "1 Chron",
    14: "2 Chron",
    15: "Ezra",
    16: "Nehemiah",
    19: "Psalm",
    23: "Isaiah",
}


def chapter_name(index: int) -> str:
    """Such as Isaiah 37."""
    book, chapter = divmod(number[index], 1000)
    return f"{books.get(book, f'book {book}')} {chapter}"


# %% slide=True
similarity_of = yours("shingle_jaccard")

chapter_sets = shingles.shingle_sets(chapters)
alike = shingles.similar_pairs(chapter_sets, threshold=0.3)
alike_by = shingles.jaccard(chapter_sets, alike)
held = [index % 20 == 10 for index in range(len(chapters))]
print(f"{len(alike)} pairs of chapters with J ≥ 0.3; the first eight:")
for place in np.argsort(-alike_by)[:8]:
    one, other = alike[place]
    by_you = similarity_of(shingles.words(chapters[one]), shingles.words(chapters[other]), 3)
    assert math.isclose(by_you, alike_by[place], rel_tol=1e-6)
    note = "   one of them is held out!" if held[one] or held[other] else ""
    print(f"J = {by_you:.2f}   {chapter_name(one):>9}  {chapter_name(other)}{note}")

# %% [markdown] slide="Without comparing"
# They come out by themselves: 2 Kings 19 is Isaiah 37, Ezra 2 is Nehemiah 7, 2 Samuel 22 is Psalm 18.
# And two of the pairs are trouble. One chapter was held out to test TinyLM; its twin was
# in the training text. We come back to that.
#
# ### Without comparing everything with everything
#
# Seven hundred thousand pairs are no trouble. A web crawl has $10^{10}$ pages and $10^{20}$ pairs.
# Broder's way out is a little miracle. Take a hash function $H$, which puts all shingles of the world
# in a random order. Look at the *first* shingle of $A \cup B$ in that order. Any of them may be it,
# each with the same chance. Now, $A$ and $B$ have the same first shingle exactly if this one lies in
# both. So
#
# $$P\bigl(\min H(A) = \min H(B)\bigr) = \frac{|A \cap B|}{|A \cup B|} = J(A, B) .$$
#
# Keep one number of a text, its minimum, and you have a coin that lands "equal" with probability $J$.
# Keep $K$ numbers from $K$ hash functions, the text's **signature**, and you can toss it $K$ times.
# The share of equal positions estimates $J$ with standard error $\sqrt{J (1 - J) / K}$, however long
# the texts are.
#
# ## Exercise 4: the signature
#
# Shingles are numbers $x$ here. Hash function $k$ is $H_k(x) = (\alpha_k x + \beta_k) \bmod M$ with a
# prime $M$, the factors $\alpha_k$ and the shifts $\beta_k$. (Functions this simple cannot bring the numbers into every
# order, so the chances are only nearly equal. That is good enough, as you will see.)


# %% exercise="minhash_signature"
def minhash_signature(
    shingles: torch.Tensor, factors: torch.Tensor, shifts: torch.Tensor, prime: int
) -> torch.Tensor:
    """The minimum over the shingles of (factor · x + shift) mod prime, for each of K hashes: (K,).

    shingles: (S,) numbers from 0 to prime − 1. factors, shifts: (K,), below prime, too. All int64,
    and prime is below 2³¹, so that no product is too large.
    """
    ### BEGIN SOLUTION
    hashed = (factors[:, None] * shingles + shifts[:, None]) % prime
    return hashed.amin(dim=1)
    ### END SOLUTION


# %% check="minhash_signature" points=2
check(minhash_signature)

# %% [markdown]
# ## Exercise 5: the estimate


# %% exercise="estimate_jaccard"
def estimate_jaccard(signatures: torch.Tensor) -> torch.Tensor:
    """The share of equal positions of every two signatures: (N, K) -> (N, N), float32."""
    ### BEGIN SOLUTION
    equal = signatures[:, None] == signatures[None, :]  # (N, K) -> (N, N, K)
    return equal.float().mean(dim=2)
    ### END SOLUTION


# %% check="estimate_jaccard" points=1
check(estimate_jaccard)

# %% [markdown]
# Two translations of one book are a corpus of near duplicates that nobody had to invent: verse by
# verse, the American Standard Version (1901) revises the King James Version. Take 400 verses of each,
# sign all of them with your function, and hold the estimates against the truth.

# %%
sign, estimate = yours("minhash_signature"), yours("estimate_jaccard")

asv = bible_verses("asv")
both = [(text, asv[verse]) for verse, text in bible_verses("kjv").items() if verse in asv]
some = both[:400]
verse_sets = shingles.shingle_sets([text for pair in some for text in pair])
prime, K = 2**31 - 1, 128
generator = torch.Generator().manual_seed(0)
factors = torch.randint(1, prime, (K,), generator=generator)
shifts = torch.randint(prime, (K,), generator=generator)
rows = [
    verse_sets.indices[a:b]
    for a, b in zip(verse_sets.indptr[:-1], verse_sets.indptr[1:], strict=True)
]
signatures = torch.stack(
    [sign(torch.from_numpy(row.astype(np.int64)) % prime, factors, shifts, prime) for row in rows]
)
guesses = np.array([float(estimate(signatures[i : i + 2])[0, 1]) for i in range(0, 800, 2)])
exact = shingles.jaccard(verse_sets, np.arange(800).reshape(400, 2))
error = np.sqrt((exact * (1 - exact)).clip(1e-9) / K)
inside = (np.abs(guesses - exact) <= 2 * error + 1e-9).mean()

# %% tags=["collapsed"] slide=True
# Figure: estimates against the truth
figure, (axes,) = new_figure(height=3.6)
x = np.linspace(0, 1, 101)
band = 2 * np.sqrt(x * (1 - x) / K)
axes.fill_between(x, x - band, x + band, color=BLUE, alpha=0.2, label="two standard errors")
axes.plot(exact, guesses, ".", color=BLACK, markersize=4, label="one verse, two translations")
axes.set(xlabel="Jaccard similarity", ylabel="estimate from 128 numbers")
axes.set_title(f"{100 * inside:.0f} % of the estimates lie where the theory puts 95 %")
axes.legend(frameon=False)
assert 0.9 < inside < 0.99

Picture(figure, "Estimated against true similarity: points along the diagonal, within the band.")

# %% [markdown]
# ### Find the pairs, do not test them
#
# Signatures make a comparison cheap, but there are still too many pairs. So cut each signature into
# $b$ **bands** of $r$ rows, $b \, r = K$. Put texts whose band agrees *throughout* into one bucket.
# Whoever shares a bucket in at least one band is a **candidate**, and only candidates are compared
# (Indyk and Motwani, 1998).
#
# ## Exercise 6: who becomes a candidate?
#
# Two texts have similarity $J$. With what probability is at least one of $b$ bands of $r$ rows equal
# throughout?


# %% exercise="band_probability"
def band_probability(similarity: torch.Tensor, bands: int, rows: int) -> torch.Tensor:
    """How likely at least one of `bands` bands of `rows` positions is equal throughout.

    similarity: of any shape, from 0 to 1. The result has its shape and dtype.
    """
    ### BEGIN SOLUTION
    return 1 - (1 - similarity**rows) ** bands
    ### END SOLUTION


# %% check="band_probability" points=2
check(band_probability)

# %% [markdown]
# A formula is a promise. The dots below are counts: of 4,000 pairs of verses, the share that
# really shared a bucket. Move the slider. Few rows find everybody, many rows find only copies.

# %%
probability = yours("band_probability")

sample_pairs = both[:4000]
all_sets = shingles.shingle_sets([text for pair in sample_pairs for text in pair])
two = np.arange(8000).reshape(4000, 2)
true_j = shingles.jaccard(all_sets, two)
all_signatures = minhash.minhash_signatures(all_sets, hashes=K)
agree = all_signatures[0::2] == all_signatures[1::2]  # (pairs, K)
curves = {}
for rows_in_band in (1, 2, 4, 8, 16, 32):
    shared = agree.reshape(4000, -1, rows_in_band).all(axis=2).any(axis=1)
    bins = np.digitize(true_j, np.linspace(0, 1, 11)[1:-1])
    dots = [(true_j[bins == k].mean(), shared[bins == k].mean()) for k in range(10)]
    curves[rows_in_band] = np.array(dots).T


# %% tags=["collapsed"] slide=True
# Figure with a slider: who becomes a candidate
def draw_curve(rows_in_a_band: int) -> Picture:
    """The S-curve of 128 hashes in bands of so many rows, and what was counted."""
    bands = K // rows_in_a_band
    figure, (axes,) = new_figure(height=3.4)
    grid = torch.linspace(0, 1, 201)
    axes.plot(grid, probability(grid, bands, rows_in_a_band), color=BLUE, label="1 − (1 − Jʳ)ᵇ")
    axes.plot(*curves[rows_in_a_band], "o", color=ORANGE, label="counted on 4,000 pairs")
    axes.set(
        xlabel="Jaccard similarity J", ylabel="share that become candidates", ylim=(-0.03, 1.03)
    )
    axes.set_title(f"b = {bands} bands of r = {rows_in_a_band} rows turn J into yes or no")
    axes.legend(frameon=False, loc="center right")
    return Picture(figure, f"S-curve for {bands} bands of {rows_in_a_band} rows; counts lie on it.")


for rows_in_band, (_, found) in curves.items():
    by_formula = probability(torch.from_numpy(true_j), K // rows_in_band, rows_in_band).numpy()
    expected = [by_formula[bins == k].mean() for k in range(10)]
    assert np.abs(found - expected).max() < 0.08
explore(draw_curve, rows_in_a_band=([1, 2, 4, 8, 16, 32], 4))

# %% [markdown]
# ## Exercise 7: choose the bands
#
# You are given a number of hash functions and a demand: a pair of this similarity may be missed with
# this probability at most. More rows make fewer candidates, and so less work. Find the best choice.


# %% exercise="choose_bands"
def choose_bands(hashes: int, similarity: float, missed: float) -> tuple[int, int]:
    """(bands, rows), bands · rows = hashes, with the most rows that a demand allows.

    The demand: a pair of this similarity is missed with probability `missed` or less.
    """
    ### BEGIN SOLUTION
    divisors = [rows for rows in range(1, hashes + 1) if hashes % rows == 0]
    good = [r for r in divisors if (1 - similarity**r) ** (hashes / r) <= missed]
    return hashes // max(good), max(good)
    ### END SOLUTION


# %% check="choose_bands" points=2
check(choose_bands)

# %%
bands, band_rows = yours("choose_bands")(K, 0.5, 0.15)
near, near_j = minhash.near_duplicates(verses, threshold=0.5, hashes=K, bands=bands)
sets_of_verses = shingles.shingle_sets(verses)
truth = shingles.similar_pairs(sets_of_verses, 0.5)
print(f"b = {bands}, r = {band_rows}: {len(near):,} of {len(truth):,} pairs with J ≥ 0.5 found,")
print(f"with {len(verses):,} verses and {len(verses) * (len(verses) - 1) // 2:,} pairs")
truth_j = shingles.jaccard(sets_of_verses, truth)
alike_not_equal = int((truth_j < 1).sum())
print(
    f"{alike_not_equal:,} of the pairs are alike and not equal; {(near_j < 1).sum():,} of them found"
)

# %% tags=["collapsed"]
# Does it hold here?
assert (bands, band_rows) == (32, 4) and 0.97 < len(near) / len(truth) <= 1
assert alike_not_equal == 1730 and math.comb(72, 2) == 2556

# %% [markdown]
# Why so few missed? You allowed 15 % at $J = 0.5$ exactly, and most pairs are more alike than that. Most
# are equal: one verse and its 71 copies alone make 2,556 pairs.
#
# ### The leak
#
# TinyLM was tested on chapters that it never saw. But some held-out *verses* have a near copy in the
# training text. Is the model better there because it learned English, or because it remembers?
#
# **Guess:** by how much does TinyLM's honest figure change if the leaked verses do not count?

# %%
chapter_of = [number.index(verse // 1000) for verse in bible_verses("kjv")]
is_held = np.array([held[chapter] for chapter in chapter_of])
leaked = np.zeros(len(verses), dtype=bool)
for one, other in truth:
    leaked[one] |= is_held[one] and not is_held[other]
    leaked[other] |= is_held[other] and not is_held[one]
is_leaked = leaked[is_held]
print(f"{is_leaked.sum()} of {len(is_leaked):,} held-out verses", end=" ")
print("have a near copy in the training text")

# %% tags=["collapsed"]
# Which verse does each token belong to? And bits per byte, verse by verse
ends, place = [], 0  # of each held-out verse, in characters
for verse in np.flatnonzero(is_held):
    place = held_out.index(verses[verse], place) + len(verses[verse])
    ends.append(place)
starts = np.array([first for first, _ in encoded.offsets])[1:]
owner = np.searchsorted(ends, starts, side="right").clip(max=len(ends) - 1)  # verse of each token
sizes = np.array([len(verses[v].encode()) + 1 for v in np.flatnonzero(is_held)])


def on_verses(token_bits: torch.Tensor, which: np.ndarray) -> float:
    """Bits per byte of those verses, from the bits of each held-out token."""
    of_verse = np.bincount(owner, weights=token_bits.cpu().numpy(), minlength=len(ends))
    return of_verse[which].sum() / sizes[which].sum()


# %% slide=True
bits = {"3-gram": -by_order[2, 1:].log2(), "5-gram": -by_order[4, 1:].log2()}
bits["TinyLM"] = tiny_losses / math.log(2)
print("bits per byte     all    leaked    the rest")
leak = {}
for name, per_token in bits.items():
    leak[name] = [on_verses(per_token, which) for which in (sizes > 0, is_leaked, ~is_leaked)]
    print(f"{name:12}{leak[name][0]:>9.2f}{leak[name][1]:>10.2f}{leak[name][2]:>12.2f}")

copied = {verses[b if is_held[a] else a] for a, b in truth if is_held[a] != is_held[b]}
kept = [
    line.ids
    for line, verse in zip(lines, train_text.splitlines(), strict=True)
    if verse not in copied
]
without_copies = torch.tensor([token for ids in kept for token in ids], device=device)
again = token_probabilities(fit_ngram(without_copies, 5, vocabulary), held_tokens)[4, 1:]
easy = on_verses(-again.log2(), is_leaked)
print(f"5-gram that never saw the copies, on the same leaked verses: {easy:.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert all(on_leaked < 0.8 * on_rest for _, on_leaked, on_rest in leak.values())
assert leak["5-gram"][1] < 0.7 and is_leaked.mean() < 0.05 and 1.2 < easy < 1.3

# %% [markdown]
# On verses that leaked, every model looks better. Is that memory? Some of them are formulas, "And the
# LORD spake unto Moses", and easy for anybody; most are stories told twice. So take their near copies
# out of the training text and count again: the 5-gram now needs 1.25 bits where it needed 0.58, and
# 1.43 on the rest. Most of the gap was memory; the remainder is that these verses are easy. For
# TinyLM you would have to train again to know.
#
# Here the leak is small, so the total hardly moves. It need not be small: Lee et al. (2022) found over
# 4 % of the validation examples of common data sets in the training text as well. **Find the clusters of
# near copies first, then put each cluster on one side, whole.** A test that shares text with the training
# measures memory.
#
# ### What does a duplicate cost?
#
# A small LSTM reads bytes. Once it trains on ordinary text, 250 steps. Once on the same text with a
# single passage of 1,000 bytes repeated until it fills three quarters of it: same number of steps.
# As a yardstick, clean text again, but for half as long. Three seeds each.
#
# **Guess:** copies are harmless text, only boring. What is 250 steps with copies worth?


# %% tags=["nbval-ignore-output"]
def as_bytes(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), device=device)


clean, passage = as_bytes(train_text[:400_000]), as_bytes(chapters[333])[:1000]
heavy = torch.cat([clean, passage.repeat(3 * len(clean) // len(passage))])
unseen = as_bytes(held_out[:20_000])
settings = {
    "clean, 250 steps": (clean, 250),
    "3/4 copies, 250 steps": (heavy, 250),
    "clean, 125 steps": (clean, 125),
}
outcome = {}
for name, (text, steps) in watch(settings.items(), "three trainings, three seeds each"):
    for seed in range(3):
        torch.manual_seed(seed)
        reader = LSTM(256, width=48).to(device)
        train_briefly(reader, text, steps, seed)
        scores = [
            token_losses(reader, t, length=64).mean() / math.log(2) for t in (unseen, passage)
        ]
        outcome[name, seed] = [float(score) for score in scores]
duplicate_cost = {n: np.array([outcome[n, s] for s in range(3)]).T for n in settings}
for name, (on_unseen, on_passage) in duplicate_cost.items():
    spread = on_unseen.max() - on_unseen.min()
    print(f"{name:23} held-out {on_unseen.mean():.2f} (spread {spread:.2f})", end="")
    print(f"   the passage {on_passage.mean():.2f}")

# %% tags=["collapsed"] slide=True
# Figure: what the steps bought
figure, (axes,) = new_figure(height=2.8)
for offset, (label, index, colour) in enumerate(
    (("held-out text", 0, BLUE), ("the repeated passage", 1, ORANGE))
):
    values = [scores[index].mean() for scores in duplicate_cost.values()]
    positions = np.arange(3) + 0.38 * offset - 0.19
    axes.barh(positions, values, height=0.36, color=colour, label=label)
    for y, scores in zip(positions, duplicate_cost.values(), strict=True):
        axes.plot(scores[index], [y] * 3, ".", color=BLACK, markersize=5)
axes.set_yticks(range(3), list(duplicate_cost))
axes.invert_yaxis()
axes.set_xlabel("bits per byte (lower is better); dots: single seeds")
axes.set_title("Copies bought the memory of one passage for half of the training")
figure.legend(loc="outside lower center", ncols=2, frameon=False)
full, copied, short = (duplicate_cost[name][0] for name in settings)
assert full.max() + 0.2 < copied.min() and abs(copied.mean() - short.mean()) < 0.15
assert duplicate_cost["3/4 copies, 250 steps"][1].max() < 2.2

Picture(
    figure,
    "Bars: with copies the held-out text costs as many bits as after half of the steps without, "
    "while the repeated passage becomes cheap.",
)

# %% [markdown] slide="Question one"
# The model with copies did as many steps, and is as good as one that did half of them. (The copies
# are English too: the first few teach something. The next thousand do not.) What the steps bought
# instead is a passage known better than anything else: worthless, and sometimes dangerous, since a
# model recites what it saw often (Lee et al., 2022). Removing duplicates is a rare compression: the data
# shrinks, and here, for the same number of steps, the model gets better. S4 §1.3 says of all removal that it improves generalisation.
# For data, here, that is right.
#
# ## 3 · Redundancy in the model
#
# Now the other kind. Which of TinyLM's two million parameters add nothing? You will ask three
# questions here, and a fourth in section 4.
#
# ### Question one: do the matrices use all their directions?
#
# A matrix $W$ stretches space along perpendicular directions, by its **singular values** $\sigma_1
# \ge \sigma_2 \ge \dots$ If few of them are large, few directions matter, and chapter 09 can drop the
# rest. Count them softly: take $s_i = \sigma_i / \sum_j \sigma_j$ as shares, and
#
# $$\text{effective rank} = \exp\Bigl(-\sum_i s_i \ln s_i\Bigr)$$
#
# (Roy and Vetterli, 2007). The exponent is the entropy of the shares. Where all singular values are
# equal, it is the logarithm of how many there are, and the effective rank is their number.
#
# ## Exercise 8: effective rank


# %% exercise="effective_rank"
def effective_rank(matrix: torch.Tensor) -> torch.Tensor:
    """exp of the entropy (in nats) of the singular values, taken as shares of their sum.

    matrix: (O, I), not all zeros, however large or small. Returns a 0-d tensor of its dtype.
    """
    ### BEGIN SOLUTION
    values = torch.linalg.svdvals(matrix)
    return torch.special.entr(values / values.sum()).sum().exp()
    ### END SOLUTION


# %% check="effective_rank" points=2
check(effective_rank)

# %% [markdown]
# A number needs a yardstick. Here it is a matrix of pure random numbers of the same shape.
#
# Each of TinyLM's four layers (its *blocks*) has seven matrices. Four belong to the attention: `query`
# and `key` decide at which tokens a token looks, `value` what it takes from them, `output` what of it is
# added to the stream. Three belong to the MLP, which is *gated* (Shazeer, 2020). For an input $x$ it computes
#
# $$\text{MLP}(x) = D \, \bigl( \text{SiLU}(G x) \cdot (U x) \bigr), \qquad
# \text{SiLU}(z) = \frac{z}{1 + e^{-z}} ,$$
#
# with the matrices `mlp.gate` ($G$), `mlp.up` ($U$) and `mlp.down` ($D$); the product in the middle is
# taken number by number. Each of those products is a *hidden unit*. SiLU is a smooth relative of
# $\text{ReLU}(z) = \max(z, 0)$.
#
# **Guess:** how much of a random matrix's effective rank does a trained one have? Half?

# %%
rank = yours("effective_rank")

kinds = ["attention.query", "attention.key", "attention.value", "attention.output"]
kinds += ["mlp.gate", "mlp.up", "mlp.down"]
names = [kind.split(".")[1] for kind in kinds]
generator = torch.Generator().manual_seed(0)
ratio = np.zeros((4, len(kinds)))
for layer, block in enumerate(tiny.blocks):
    for column, kind in enumerate(kinds):
        weight = block.get_submodule(kind).weight
        noise = torch.randn(weight.shape, generator=generator).to(device)
        ratio[layer, column] = 100 * float(rank(weight) / rank(noise))

# %% tags=["collapsed"] slide=True
# Figure: effective rank, against noise
figure, (axes,) = new_figure(height=3)
draw_heat_map(axes, ratio, [f"layer {i}" for i in range(4)], names, "% of a random matrix", ".0f")
axes.set_title("By their spectra, TinyLM's matrices are as full as noise")
assert ratio.min() > 93 and ratio.max() < 104

Picture(figure, "Heat map: every matrix has about as much effective rank as a random one.")

# %% [markdown]
# Nothing to be had. Every matrix uses its directions nearly as evenly as noise does. (TinyLM was
# trained with Muon, an optimizer whose steps use all directions alike. Models differ here.)
#
# A matrix may be full while what flows through it is not. So ask the same of the **activations**, the
# vectors that each block is given. And there is one more place to look: the *codes*. Round a matrix to
# 4 bits, as in chapter 00, with 15 levels. If level $q$ is used with frequency $f_q$, a coder that gives
# short names to frequent levels (Huffman's, in chapter 06) needs at least $-\sum_q f_q \log_2 f_q$ bits a
# weight on average, the **entropy** of the codes.
#
# **Guess:** how many of the 4 bits does it save, with one scale for each row? With one for the matrix?

# %% slide=True
stream = record_inputs(tiny, held_tokens[:2048].view(8, 256), list(tiny.blocks))
noise = torch.randn(stream[0].shape, generator=generator).to(device)
full = [100 * float(rank(x - x.mean(dim=0)) / rank(noise)) for x in stream]
print("inputs of the blocks, % of noise's effective rank:", [round(share) for share in full])

print(f"{'bits a code needs':20}one scale a row   one for the matrix")
entropies = np.zeros((len(kinds), 2))
for row, kind in enumerate(kinds):
    for block in tiny.blocks:
        weight = block.get_submodule(kind).weight
        for column, largest in enumerate((weight.abs().amax(1, keepdim=True), weight.abs().amax())):
            codes = (7 * weight / largest).round().int() + 7  # 0 … 14
            entropies[row, column] += float(code_entropy(codes, levels=15)) / 4
    print(f"{names[row]:20}{entropies[row, 0]:>15.1f}{entropies[row, 1]:>21.1f}")

# %% tags=["collapsed"]
# Does it hold here?
square = torch.randn(192, 192, generator=generator).to(device)
assert 0.75 < float(rank(square)) / 192 < 0.85 and 0.985 < float(rank(noise)) / 192 < 0.995
assert all(74 < share < 88 for share in full)
assert entropies[:, 0].min() > 3.0 and entropies[:, 0].max() < 3.5
assert entropies[:, 1].min() < 2.2 and (entropies[:, 1] < entropies[:, 0]).all()

# %% [markdown]
# Here is something at last. What flows through TinyLM has four fifths of the effective rank of noise;
# the matrices had nearly all of theirs. (Compare each with noise of its own shape only. A square random
# matrix reaches 80 % of its side, a tall one 99 %.) And of 4 bits a weight, more than half a bit is air, even with a
# scale for each row, because the levels at the ends are hardly used. With one scale for the matrix
# it is far more, and that is a bad sign: a few huge weights stretched the ruler, most codes crowd around zero,
# and the bits that the coder saves were lost before (chapter 05).
#
# ### Question two: are there units that do nothing, or that do the same?
#
# A hidden unit of an MLP is **dead** if its value $h$ is zero whatever comes in. With ReLU that
# happens: a unit whose input is always negative gives exact zeros. SiLU is zero at 0 and nowhere else.
# It flattens out, though: SiLU(−10) is −0.0005. So TinyLM's units can be *nearly* dead. Compare with the
# root mean square (RMS) of all values. And use *all* the data: a unit that sleeps through one batch may
# be all that knows the next one.
#
# ## Exercise 9: dead units


# %% exercise="dead_units"
def dead_units(batches: list[torch.Tensor], tolerance: float) -> torch.Tensor:
    """True for each unit whose largest |h| over all batches is at most tolerance · RMS: (F,).

    batches: values after the activation, (N, F) each, N need not be equal. RMS: root mean square
    of all values of all batches; where it is 0, all units are dead.
    """
    ### BEGIN SOLUTION
    hidden = torch.cat(batches)
    return hidden.abs().amax(dim=0) <= tolerance * hidden.square().mean().sqrt()
    ### END SOLUTION


# %% check="dead_units" points=2
check(dead_units)

# %% [markdown]
# Two units of a layer with ReLU are **twins** if their incoming rows point the same way:
# $g_\text{drop} = c \, g_\text{keep}$ with $c > 0$. Then $h_\text{drop} = c \, h_\text{keep}$ for every
# input, and one of them is enough. S0 §2.1 defines a
# redundant parameter as one that "contributes little or nothing". Twins show why that misses the
# point: *each* of them contributes, fully. Each is redundant only *given the other*.
#
# ## Exercise 10: merge twins
#
# A colleague removed a twin: row `drop` of `incoming` and column `drop` of `outgoing` are gone. The model
# broke. Repair the method, so that the layer computes exactly what it computed before. Row `keep` and all
# other incoming rows stay as they are.


# %% exercise="merge_twins"
def merge_twins(
    incoming: torch.Tensor, outgoing: torch.Tensor, keep: int, drop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(incoming, outgoing) without unit `drop`, and the same outgoing · relu(incoming · x) as ever.

    incoming (F, I), outgoing (O, F), and incoming[drop] = c · incoming[keep] for some c > 0; some
    of its numbers may be 0, but not all. All other rows of `incoming` stay as they are.
    """
    ### BEGIN SOLUTION
    c = incoming[drop].norm() / incoming[keep].norm()
    merged = outgoing.clone()
    merged[:, keep] += c * outgoing[:, drop]
    return (
        torch.cat([incoming[:drop], incoming[drop + 1 :]]),
        torch.cat([merged[:, :drop], merged[:, drop + 1 :]], dim=1),
    )
    ### END SOLUTION


# %% check="merge_twins" points=3
check(merge_twins)

# %% [markdown]
# Now look for both in TinyLM. First the sleepers, on one batch and then on more and more text. Then the
# twins. A unit of TinyLM has two incoming rows, $h = \text{SiLU}(g \cdot x)\,(u \cdot x)$. Its $u$ enters
# as a plain factor: for a twin, one $u$ may be any multiple of the other, a negative one too. But SiLU,
# unlike ReLU, is no multiple of itself at another scale, so both need the same $g$. Where no two rows $g$
# even point the same way, there are no twins.

# %% tags=["nbval-ignore-output"] slide=True
asleep, merge = yours("dead_units"), yours("merge_twins")

windows = train_tokens[: 32 * 256].view(32, 256)
downs = [block.mlp.down for block in tiny.blocks]
hidden = [record_inputs(tiny, window[None], downs)[1] for window in windows]  # of layer 1
quiet = {count: int(asleep([torch.cat(hidden)[:count]], 0.5).sum()) for count in (16, 256, 8192)}
print("units of layer 1 (of 512) whose |h| stayed below half the RMS:")
for count, units_asleep in quiet.items():
    print(f"   in {count:>5,} tokens  {units_asleep:>4}")
dead = [int(asleep([h], 0.01).sum()) for h in record_inputs(tiny, windows[:8], downs)]
print("below a hundredth of the RMS, layer by layer:", dead)

gates = [block.mlp.gate.weight for block in tiny.blocks]
twins = [int((units.twin_heads(g, 0.9).cpu() != torch.arange(len(g))).sum()) for g in gates]
print("gate rows with a twin (cosine ≥ 0.9), layer by layer:", twins)

# %% tags=["collapsed"]
# Does it hold here?
assert -0.0005 < F.silu(torch.tensor(-10.0)) < -0.0004
assert quiet[16] > 100 and quiet[8192] < 5 and not any(dead) and not any(twins)

# %% [markdown] slide="Question three"
# Two lessons. On one line of text a third of the units look asleep; on a few pages, next to none.
# Whoever removes on the evidence of one batch removes the specialists. And the deeper result: no dead
# units, no twins. So the second question found nothing at all.
#
# ### Question three: how much do the parts do?
#
# In a block, $x \leftarrow x + \text{attention}(x)$ and $x \leftarrow x + \text{MLP}(x)$: everything
# *adds to* a stream $x$. So ask of each **head** and each hidden **unit** $j$ how much it adds,
# compared with what is there:
#
# $$\text{contribution}_j = \frac{\text{mean over tokens of } \lVert W_j x_j \rVert}
# {\text{mean over tokens of } \lVert x \rVert} ,$$
#
# where $x_j$ are the part's values and $W_j$ its columns of the sublayer's last matrix. And ask of
# each layer how much it turns the stream around, its **influence** (Men et al., 2024):
# $1 - \text{mean} \cos(x_\text{before}, x_\text{after})$. SmolLM2 has thirty layers to compare.

# %%
text = windows[:8]
influence = {"TinyLM": layers.layer_influence(tiny, text).cpu().numpy()}
heads = {"TinyLM": layers.head_contributions(tiny, text).cpu()}
if pretrained.has_smollm2():
    smol, smol_tokenizer = pretrained.smollm2()
    smol.to(device)
    encyclopedia = torch.tensor(smol_tokenizer.encode(wikipedia_sample()).ids, device=device)
    influence["SmolLM2"] = layers.layer_influence(smol, encyclopedia[None, :512]).cpu().numpy()
    heads["SmolLM2"] = layers.head_contributions(smol, encyclopedia[None, :512]).cpu()

# %% tags=["collapsed"] slide=True
# Figure: influence layer by layer, SmolLM2's as stored for readers who do not have the model
# python -m benchmarks.redundancy layers, 2026-11-26, two cores of an x86 server
SMOLLM2_INFLUENCE = """1.005 0.170 0.040 0.035 0.037 0.035 0.035 0.035 0.042 0.038 0.038 0.037 0.029
0.027 0.025 0.029 0.033 0.028 0.041 0.046 0.059 0.048 0.048 0.071 0.153 0.028 0.030 0.048 0.048
0.240"""
stored = np.array(SMOLLM2_INFLUENCE.split(), dtype=float)
assert np.abs(influence.get("SmolLM2", stored) - stored).max() < 0.01
influence["SmolLM2"] = stored

figure, axes = new_figure(columns=2, height=3.2)
for one, (name, values) in zip(axes, influence.items(), strict=True):
    one.plot(range(len(values)), values, "o", color=BLUE)
    one.set(xlabel=f"layer of {name}", ylabel="influence (1 − cosine)", yscale="log")
    one.set(xticks=range(0, len(values), 1 + len(values) // 6), ylim=(0.01, 2))
figure.suptitle("The first layers turn the stream around; the middle layers nudge it")
smallest = int(influence["SmolLM2"].argmin())
assert influence["SmolLM2"][2:24].min() > 0.02 and influence["SmolLM2"][2:24].max() < 0.08
assert smallest == 14 and influence["SmolLM2"][0] > 30 * influence["SmolLM2"][smallest]

Picture(figure, "Dots: influence is largest in the first and last layers, smallest in the middle.")

# %% [markdown]
# And the heads: how much does each one add? (On a logarithmic scale: −1 is a tenth of the stream's
# length; each map has a scale of its own.) SmolLM2's map is drawn where the model is installed.

# %% tags=["collapsed", "nbval-ignore-output"] slide=True
# Figure: contributions of the heads
figure, axes = new_figure(columns=len(heads), height=4)
for one, (name, values) in zip(axes, heads.items(), strict=True):
    every_nth = max(1, len(values) // 8)
    rows = [str(i) if i % every_nth == 0 else "" for i in range(len(values))]
    columns = [str(i) for i in range(values.shape[1])]
    draw_heat_map(one, values.log10().numpy(), rows, columns, "contribution (log₁₀)")
    one.set(xlabel=f"head of {name}", ylabel="layer")
figure.suptitle("TinyLM's first heads write its stream; all others add a little each")
first, later = heads["TinyLM"][0], heads["TinyLM"][1:]
assert first.min() > 10 and later.max() < 0.3 and later.min() > 0.05

Picture(
    figure,
    "Heat maps: in TinyLM the heads of the first layer add ten times the stream's length and more, "
    "later ones a twelfth to a quarter; in SmolLM2 none adds more than a third.",
)

# %% [markdown]
# There it is. Layers 2 to 23 of SmolLM2 have an influence of 0.02 to 0.08. ($1 - \cos$ is small for small
# angles: 0.03 is a turn of 14 degrees.) What happens if some of them go? Removing a layer is easy: since it only adds to $x$, leave it out.
#
# The loss is measured on 512 tokens of Wikipedia, the same ones that chose the layers (new ones would
# be fairer): the least influential layers removed, against layers chosen at random, twice. That takes
# minutes, so the numbers are stored. Where SmolLM2 is installed, the next cell removes four layers
# again, on half as many tokens, and the one after it makes sure that the loss rises as it should.
#
# The figure shows the **perplexity**, $e^{\text{loss}}$ with the mean loss of a token in nats: among so
# many equally likely tokens the model seems to choose.
#
# **Guess:** how many of thirty layers can go before the perplexity doubles?

# %%
if pretrained.has_smollm2():
    off = removal.lowest(torch.from_numpy(influence["SmolLM2"]), 4 / 30).to(device)
    kept = [block for block, out in zip(smol.blocks, off.tolist(), strict=True) if not out]
    before = float(token_losses(smol, encyclopedia[:257], length=256).mean())
    all_blocks, smol.blocks = smol.blocks, torch.nn.ModuleList(kept)
    after = float(token_losses(smol, encyclopedia[:257], length=256).mean())
    smol.blocks = all_blocks

# %% tags=["collapsed"] slide=True
# Figure with a slider: perplexity with layers removed
# python -m benchmarks.redundancy layers, 2026-11-26, two cores of an x86 server
gone = (0, 1, 2, 3, 4, 6, 8)
chosen_loss = dict(zip(gone, (3.127, 3.255, 3.427, 3.523, 3.765, 4.073, 4.516), strict=True))
random_loss = {
    0: (3.127, 3.127),
    1: (3.211, 4.474),
    2: (3.586, 4.568),
    3: (4.275, 4.893),
    4: (4.499, 7.840),
    6: (4.813, 8.340),
    8: (8.441, 11.277),
}
assert not pretrained.has_smollm2() or 0.3 < after - before < 0.8


def draw_removed(layers_removed: int) -> Picture:
    """Perplexity with so many of SmolLM2's 30 layers left out."""
    figure, (axes,) = new_figure(height=2.6)
    values = [chosen_loss[layers_removed], *random_loss[layers_removed]]
    names = ["least influential", "at random", "at random, again"]
    for name, value, colour in zip(names, values, (GREEN, ORANGE, ORANGE), strict=True):
        axes.plot(math.exp(value), name, "o", color=colour, markersize=10)
    axes.axvline(math.exp(chosen_loss[0]), color=BLACK, linestyle="--")
    axes.set(xlabel="perplexity (dashed: all 30 layers)", xscale="log", xlim=(10, 1e5))
    axes.set_ylim(2.5, -0.5)
    axes.set_title(
        f"{layers_removed} of 30 layers removed: perplexity {math.exp(values[0]):.0f} "
        f"if chosen, up to {math.exp(max(values[1:])):,.0f} if not"
    )
    return Picture(figure, f"Dots: perplexity with {layers_removed} layers removed.")


assert math.exp(chosen_loss[4] - chosen_loss[0]) < 2 < math.exp(chosen_loss[6] - chosen_loss[0])
assert min(random_loss[1]) < chosen_loss[1] < max(random_loss[1])
explore(draw_removed, layers_removed=(list(chosen_loss), 4))

# %% [markdown]
# Four may go, an eighth of the layers, for less than a factor of two; with six the perplexity has more
# than doubled. And look at the orange dots: random layers can be harmless or a catastrophe. One of the two single
# random layers hurt *less* than the one with the least influence. The measure is good. It is no oracle.
#
# ## 4 · Half of it: at random, or chosen?
#
# Is redundancy a property of the model, so that it does not matter *which* half goes? Test it. Remove
# a share of TinyLM's hidden units, heads and weights (those of the linear layers; the embedding stays
# whole). Once at random (two seeds), once chosen: the smallest contributions for units and heads, the
# smallest magnitudes for weights.
#
# **Guess first:** the weights. Half of them at random, or half of them chosen: how far apart?


# %%
def bits_of(model: torch.nn.Module) -> float:
    """Bits per byte of the course's held-out text, as in chapter 00."""
    return tiny_quality(model, tokenizer).bits_per_byte


contribution = {
    "units": layers.unit_contributions(tiny, windows[:8]),
    "heads": heads["TinyLM"].to(device),
}
shares = (0.125, 0.5)
lost = {}
for share in shares:
    for part, remove in (("units", removal.without_units), ("heads", removal.without_heads)):
        lost[part, "chosen", share] = [
            bits_of(remove(tiny, removal.lowest(contribution[part], share)))
        ]
        lost[part, "random", share] = []
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            scores = torch.rand(contribution[part].shape, generator=generator).to(device)
            lost[part, "random", share].append(bits_of(remove(tiny, removal.lowest(scores, share))))
    lost["weights", "chosen", share] = [bits_of(removal.without_weights(tiny, share, torch.abs))]
    lost["weights", "random", share] = []
    for seed in range(2):
        torch.manual_seed(seed)
        lost["weights", "random", share].append(
            bits_of(removal.without_weights(tiny, share, torch.rand_like))
        )
whole = bits_of(tiny)

# %% tags=["collapsed"] slide=True
# Figure: removed at random, or chosen
figure, axes = new_figure(columns=3, height=3.2)
x = [0, *(100 * s for s in shares)]
for one, part in zip(axes, ("weights", "units", "heads"), strict=True):
    for how, colour in (("random", ORANGE), ("chosen", BLUE)):
        middle = [whole, *(np.mean(lost[part, how, s]) for s in shares)]
        one.plot(x, middle, "o-", color=colour, label=how)
        for s in shares:
            one.plot([100 * s] * len(lost[part, how, s]), lost[part, how, s], ".", color=colour)
    one.set(xlabel=f"{part} removed (%)", ylim=(1.0, 4.5))
axes[0].set_ylabel("bits per byte")
axes[0].legend(frameon=False)
figure.suptitle("The same half: for weights fatal at random, cheap when chosen; for units less so")
half = {
    (p, h): np.mean(lost[p, h, 0.5])
    for p in ("weights", "units", "heads")
    for h in ("random", "chosen")
}
assert all(half[p, "random"] > half[p, "chosen"] + 0.2 for p in ("weights", "units", "heads"))
assert half["weights", "chosen"] < 1.2 * whole and half["weights", "random"] > ngram_bits[0]
assert min(lost["weights", "random", 0.125]) > half["weights", "chosen"]
assert half["units", "random"] < 2.2 and 1.3 * whole < half["heads", "random"] < 3

Picture(figure, "Three panels: loss grows steeply with random removal, slowly with chosen removal.")

# %% [markdown]
# Half of the weights at random: the model is a ruin, worse than counting single tokens. Half of them
# chosen by nothing more clever than magnitude: a dent. An *eighth* of the weights at random does more
# damage than a chosen half. Units and heads tell the same story, less loudly.
#
# Why is the chosen half so cheap? A tempting answer: the others take over its work. Nothing was trained
# again, so nobody took over anything. Is it perhaps only small?
#
# **Guess before you run:** the smaller half of the weights holds what share of their squares?

# %% slide=True
squares = [
    block.get_submodule(kind).weight.detach().square().flatten()
    for block in tiny.blocks
    for kind in kinds
]
small = sum(float(s.sort().values[: len(s) // 2].sum()) for s in squares)
small /= sum(float(s.sum()) for s in squares)
as_much = []
for seed in range(2):
    torch.manual_seed(seed)
    as_much.append(bits_of(removal.without_weights(tiny, small, torch.rand_like)))
print(f"the smaller half of the weights holds {100 * small:.0f} % of their squares")
print(f"whole {whole:.2f} bits per byte; without the smaller half {half['weights', 'chosen']:.2f};")
print(f"without {100 * small:.0f} % of the weights at random {np.mean(as_much):.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert 0.06 < small < 0.075
assert abs(np.mean(as_much) - half["weights", "chosen"]) < 0.08

# %% [markdown]
# Remove 7 % of the weights at random, with as much of the squares in them, and the damage is about the
# same. To first order that is the whole secret: what counts is how much goes, not how many.
#
# So put the answers side by side. Spectra of the matrices: full. Dead units and twins: none. What
# flows through: four fifths. Codes of 4 bits: more than half a bit of air. Layers of SmolLM2: four of
# thirty, if the perplexity may almost double. Weights of the linear layers: half of them, if chosen,
# for a seventh more bits per byte. The answer depends on the question. And weights can overlap in
# ways that none of these measures sees: Denil et al. (2013) could, in their best case, predict 95 %
# of a network's weights from the other 5 %, and no accuracy was lost. That is why the next chapters
# are about **choosing**, and about repairing what is left.
#
# ## 5 · "Redundancy causes over-fitting"
#
# S0 §2.1 says that redundancy causes over-fitting and lowers generalisation (§1.2 says the second as
# well). S4 §1.3 promises the reverse for removing it. Test the claim where it can fail. First, exactly: put a twin
# into a layer and split the outgoing weight. The function is the same for every input. A parameter
# that changes nothing cannot over-fit.
#
# Second, in training. Take 150 images of digits. Map each to $m$ random features
# $\text{relu}(W x)$, fit a linear classifier on them by least squares (of all perfect fits, the one
# with the smallest weights), and let $m$ grow from 10 to 3,000, far beyond the 150 images.
#
# **Guess before you run:** ten features are too few. From $m = 60$ on, which $m$ is worst?

# %%
generator = torch.Generator().manual_seed(0)
incoming = torch.randn(5, 4, generator=generator)
outgoing = torch.randn(3, 5, generator=generator)
wider = torch.cat([incoming, 2 * incoming[:1]])
split_up = torch.cat([outgoing, outgoing[:, :1] / 4], dim=1)
split_up[:, 0] /= 2  # half of it stays; the twin is twice as loud and gets a quarter
inputs = torch.randn(4, 1000, generator=generator)
difference = (
    (split_up @ (wider @ inputs).relu() - outgoing @ (incoming @ inputs).relu()).abs().max()
)
again = merge(wider, split_up, 0, 5)
print(f"with and without the twin, outputs differ by less than 0.0001: {bool(difference < 1e-4)}")

images, labels, test_images, test_labels = digits()
images, labels = images[:150].double(), labels[:150]
targets = F.one_hot(labels, 10).double() - 0.1
features = (10, 30, 60, 100, 130, 150, 170, 220, 400, 1000, 3000)
wrong = {m: [] for m in features}
for m in features:
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        random_map = torch.randn(64, m, generator=generator, dtype=torch.float64)
        fit = torch.linalg.pinv((images @ random_map).relu()) @ targets
        guess = ((test_images.double() @ random_map).relu() @ fit).argmax(dim=1)
        wrong[m].append(100 * float((guess != test_labels).double().mean()))
mean_wrong = {m: float(np.mean(values)) for m, values in wrong.items()}

# %% tags=["collapsed"] slide=True
# Figure: test errors against the number of features
assert difference < 1e-4
assert torch.allclose(again[1], outgoing, atol=1e-5)
figure, (axes,) = new_figure(height=3.2)
axes.semilogx(features, list(mean_wrong.values()), "o-", color=PURPLE)
axes.axvline(150, color=BLACK, linestyle="--", label="as many features as images")
axes.set(xlabel="random features m", ylabel="test errors (%)", ylim=(0, None))
axes.set_title("Over-fitting peaks where the model just fits; twenty times larger is best")
axes.legend(frameon=False)
best = min(mean_wrong, key=mean_wrong.get)
assert best == 3000 and mean_wrong[150] > 5 * mean_wrong[3000]
assert mean_wrong[150] > 2 * mean_wrong[60] and mean_wrong[150] > 2 * mean_wrong[220]
assert max((m for m in features if m >= 60), key=mean_wrong.get) in (150, 170)
assert mean_wrong[60] < mean_wrong[10]

Picture(
    figure,
    "Test errors fall to 17 % at 60 features, rise to a peak near 150, then fall to their minimum at "
    "3,000.",
)

# %% [markdown] question="half_of_what" points=3
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **A newspaper writes: “Half of a neural network is redundant.”** Which three questions do you ask
# before you believe or deny it? For each say which measurement of this chapter shows that the answer
# matters.
#
# <!-- BEGIN SOLUTION -->
# *Which half?* Half of TinyLM's linear layers taken at random ruins it, the half of small weights
# costs about 0.2 bits per byte: same share, other half. *Redundant by what measure, and how large is
# the loss that still counts as none?* The effective rank says that almost nothing is redundant, where
# magnitude says that much is. *Half of which network, on which data?* A twin neuron can be merged
# exactly, most neurons have no twin; and a text the model has seen before forgives more than one it
# has not. Also good: is it trained again afterwards?
#
# *One point* for each question that comes with a measurement.
# <!-- END SOLUTION -->

# %% [markdown] question="a_leak" points=2
# **Some verses of the held-out text stand in the training text as well.** TinyLM reads these at 0.89
# bits per byte and the rest at 1.18. What do you do with the held-out text, and what may you still
# say about a model that was measured before you knew?
#
# <!-- BEGIN SOLUTION -->
# Take the copies out of the held-out text, near-copies too (by MinHash, since equality misses most of
# them), and measure again; or take them out of the training text and train again. Until then the old
# number is a lower bound of the loss on new text. How far it is off follows from the share of the
# copies: with few of them hardly, but differences between models as small as that are worth nothing.
# And the better a model is at remembering, the more it is flattered.
#
# *One point* for removing copies that are alike, not only equal. *One point* for what the old number
# is still worth.
# <!-- END SOLUTION -->

# %% [markdown] slide="5 ·"
# This is **double descent** (Belkin et al., 2019). Here too many parameters over-fit, until there are
# far too many, and then they do best of all. (With more noise a small model can be as good; chapter
# 13.) So the claim is no law. What you measured in this chapter is sharper:
#
# | more of… | on new data, predictions became… | where |
# |---|---|---|
# | counts in an n-gram table | no better at order 4, worse at order 5 | section 1 |
# | copies in the training text | worse | section 2 |
# | exact twins in a layer | neither better nor worse | section 5 |
# | features, far beyond the data | better | section 5 |
#
# "Redundancy" in those sentences means four different things. Say which, and measure it.
#
# ## In numbers

# %% tags=["collapsed"] slide=True
# The chapter's main numbers
print("held-out bits per byte, 3-gram / 5-gram   ", end="")
print(f"{ngram_bits[2]:.2f} / {ngram_bits[4]:.2f}")
print(f"TinyLM                                     {tiny_bits:.2f}")
print(
    f"TinyLM on verses that leaked / the rest    {leak['TinyLM'][1]:.2f} / {leak['TinyLM'][2]:.2f}"
)
print(
    f"verses that are copies; alike, not equal   {removed['letter by letter']} / {alike_not_equal:,}"
)
print(f"effective rank, against noise              {ratio.min():.0f} to {ratio.max():.0f} %")
print(f"half of the linear layers gone: magnitude  {half['weights', 'chosen']:.1f} bits per byte")
assert 1.3 < half["weights", "chosen"] < 1.6 and half["weights", "random"] > 3

# %% [markdown]
# The next chapter makes "choose" precise: of all sets of $k$ weights, which should stay?

# %% tags=["nbval-ignore-output"]
progress()
