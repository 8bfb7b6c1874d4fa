"""Exercises of 11_language_models: how far apart two models are, and TinyLM in few bits.

Axes: N tokens, V vocabulary, B windows, T tokens of a window.
"""

import math

import torch
from torch import Tensor

from course_lib.data.text import bible_chapters, split
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.formats.linear import Codes, Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.language_models.gptq import gptq
from course_lib.language_models.recipes import gptq_model, nearest_model
from course_lib.language_models.walk import Stage, treat_blocks
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models import pretrained
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights
from course_lib.quantization.calibration import Range, minmax_range, mse_range
from course_lib.quantization.linear import Format

# ------------------------------------------------------------------------------- mean_kl


def mean_kl(logits: Tensor, dense_logits: Tensor) -> Tensor:
    """The mean over the tokens of KL(dense ‖ other) = Σ_v p_v ln(p_v / q_v), in nats.

    A row of logits (N, V) is a token's: p is softmax of dense_logits, q of logits. Reckon in
    float64; the answer is a 0-d tensor of it. A logit may be −∞: a word that is never said. Where
    p_v is 0 it adds nothing; where only q_v is 0 the answer is infinite.
    """
    q = logits.double().log_softmax(dim=1)  # ln q, (N, V)
    p = dense_logits.double().log_softmax(dim=1)
    terms = (p.exp() * (p - q)).where(p > -torch.inf, 0.0)
    return terms.sum(dim=1).mean()


def _two_models(seed: int) -> list[Case]:
    draw = Draw(seed)

    def pair(tokens: int, vocabulary: int, apart: float = 1.0) -> tuple[Tensor, Tensor]:
        dense = 2 * draw.normal(tokens, vocabulary)
        return dense + apart * draw.normal(tokens, vocabulary), dense

    exact = 100 + draw.normal(3, 4).double()
    never, dense = pair(4, 6)
    never[:, 1] = dense[:, 1] = -torch.inf
    dense[2, 3] = -torch.inf
    lost, kept = pair(3, 5)
    lost[1, 2] = -torch.inf
    shifted = pair(4, 5)
    near = pair(6, 9, apart=1e-4)
    half = (40 * draw.normal(3, 6)).half()
    levels, level = pair(4, 5), 1000 * draw.normal(4, 1)
    sure = 1000 * draw.normal(4, 5)
    labelled = {
        "two tokens": pair(2, 3),
        "two models": pair(4, 6),
        "as many tokens as words": pair(5, 5),
        "one token": pair(1, 7),
        "equal models": (shifted[1].clone(), shifted[1]),
        "logits far from zero": (shifted[0] + 1000.0, shifted[1] - 500.0),
        "each token at a level of its own": (levels[0] + level, levels[1] + level.flip(0)),
        "very sure": tuple(20 * part for part in pair(4, 5)),
        "so sure that a softmax is 0": (sure.roll(1, dims=1), sure),
        "nearly equal models": near,
        "words that are never said": (never, dense),
        "a word that only the dense model says": (lost, kept),
        "one word": pair(3, 1),
        "float16": (half, (half + draw.normal(3, 6)).half()),
        "float64, nearly equal": (exact + 1e-5 * draw.normal(3, 4).double(), exact),
    }
    return labelled_cases(("logits", "dense_logits"), labelled)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """KL of each row, softmax(first) to softmax(second): (N,)."""
    p, q = (logits.double().log_softmax(dim=1) for logits in (first, second))
    return (p.exp() * (p - q)).where(p > -torch.inf, 0.0).sum(dim=1)


def _unguarded(logits, dense_logits):
    p, q = (one.double().log_softmax(dim=1) for one in (dense_logits, logits))
    return (p.exp() * (p - q)).sum(dim=1).mean()


def _cross_entropy(logits, dense_logits):
    p, q = (one.double().log_softmax(dim=1) for one in (dense_logits, logits))
    return -(p.exp() * q).where(p > -torch.inf, 0.0).sum(dim=1).mean()


MEAN_KL = Exercise(
    reference=mean_kl,
    cases=_two_models,
    absolute_tolerance=1e-13,
    hints=(
        "log_softmax gives ln p without computing a tiny p first: dense_logits.double()"
        ".log_softmax(dim=1).",
        "KL is the dense model's mean of ln p − ln q: (p.exp() * (p − q)).sum(dim=1), with p and q "
        "in logarithms. Then the mean over tokens.",
        "−∞ − (−∞) is NaN, and 0 · NaN, too. Replace the terms whose ln p is −∞: "
        "terms.where(p > −torch.inf, 0.0).",
    ),
    properties=(Property("KL is never below zero", lambda inputs, value: value >= -1e-13),),
    misconceptions=(
        Misconception(
            "the other way round",
            lambda logits, dense: _kl(logits, dense).mean(),
            "that is KL(other ‖ dense), weighed by what the small model says. Asked is what the "
            "dense model says: p of dense_logits in front. The two differ.",
        ),
        Misconception(
            "sum over the tokens",
            lambda logits, dense: _kl(dense, logits).sum(),
            "you added up the tokens. The mean does not grow with the length of the text.",
        ),
        Misconception(
            "mean over the words, too",
            lambda logits, dense: _kl(dense, logits).mean() / logits.shape[1],
            "you took the mean over all N · V entries (as F.kl_div does by default). A token's KL "
            "is the sum over its words.",
        ),
        Misconception(
            "in bits",
            lambda logits, dense: _kl(dense, logits).mean().div(math.log(2)),
            "you used log2: the number is in bits. Nats have the natural logarithm.",
        ),
        Misconception(
            "cross entropy",
            _cross_entropy,
            "that is the cross entropy, −Σ p ln q. It is not zero for equal models: the dense "
            "model's own entropy has to be taken off, Σ p (ln p − ln q).",
        ),
        Misconception(
            "NaN where neither says a word",
            _unguarded,
            "where both logits are −∞, you subtracted infinity from infinity. A word that the "
            "dense model never says adds nothing: replace such terms by 0.",
        ),
    ),
)

# --------------------------------------------------------------------------------- flips


def flips(logits: Tensor, dense_logits: Tensor) -> Tensor:
    """Share of the tokens whose first choice changed, from 0 to 1: a 0-d tensor in float64.

    A token's first choice is the word with the largest logit in its row of (N, V); of equal logits
    the first. Logits are compared as they are, −∞ included.
    """
    changed = logits.argmax(dim=1) != dense_logits.argmax(dim=1)  # (N,)
    return changed.double().mean()


def _choices(seed: int) -> list[Case]:
    draw = Draw(seed)

    def pair(tokens: int, vocabulary: int, changed: int) -> tuple[Tensor, Tensor]:
        """`changed` of the tokens, anywhere, have another first choice; the rest is noise.

        The first choices have logits of 7 to 9, no other is near.
        """
        dense, logits = draw.normal(2, tokens, vocabulary)
        first = draw.integers(0, vocabulary, tokens, 1)
        moved = draw.order(tokens)[:, None] < changed
        step = draw.integers(1, max(vocabulary, 2), tokens, 1)
        other = torch.where(moved, (first + step) % vocabulary, first)
        return logits.scatter(1, other, 7.0 + draw.number(0, 2)), dense.scatter(1, first, 9.0)

    tied, losers = 5 * draw.uniform(5, 24), torch.tensor([[8], [8], [17], [8], [8]])[draw.order(5)]
    tied[:, [8, 17]] = 9.0
    broken = (
        tied.scatter(1, losers, 6.0) if draw.number(0, 2) else tied.scatter(1, 25 - losers, 6.0)
    )
    never, dense = (part - 20 for part in pair(7, 5, draw.number(2, 6)))
    kept, choice = (never.argmax(1) == dense.argmax(1))[:, None], dense.argmax(1, keepdim=True)
    never, dense = (
        torch.where(kept, part.scatter(1, (choice + step) % 5, -torch.inf), part)
        for part, step in ((never, 1), (dense, 2))
    )
    order = draw.order(8)
    fine = 1 + 1e-12 * torch.stack([draw.order(8) for _ in range(9)]).double()
    labelled = {
        "two tokens": pair(2, 3, 1),
        "some changed": pair(9, 6, draw.number(2, 7)),
        "many tokens": pair(60, 12, draw.number(5, 50)),
        "none changed": pair(8, 5, 0),
        "all changed": pair(5, 4, 5),
        "as many tokens as words": pair(6, 6, draw.number(1, 5)),
        "one token": pair(1, 5, 1),
        "one word": pair(4, 1, 0),
        "equal logits": (broken, tied),
        "all logits below zero": tuple(part - 20 for part in pair(7, 5, draw.number(2, 6))),
        "words that are never said": (never, dense),
        "very large logits": tuple(1e9 * part for part in pair(7, 5, draw.number(1, 6))),
        "very small logits": tuple(1e-30 * part for part in pair(7, 5, draw.number(1, 6))),
        "float16": tuple(part.half() for part in pair(7, 5, draw.number(1, 6))),
        "float64, nearly equal logits": (fine[:, order].roll(1, 0), fine),
    }
    return labelled_cases(("logits", "dense_logits"), labelled)


def _share(changed: Tensor) -> Tensor:
    return changed.double().mean()


def _last_choice(logits: Tensor) -> Tensor:
    return logits.shape[1] - 1 - logits.flip(1).argmax(dim=1)


FLIPS = Exercise(
    reference=flips,
    cases=_choices,
    relative_tolerance=1e-12,
    absolute_tolerance=1e-12,
    hints=(
        "The first choice of each token: logits.argmax(dim=1), one word number for each row.",
        "Compare the two rows of word numbers with !=. How many are True, as a share?",
        "(a != b).double().mean(): bool has no mean, so convert it first.",
    ),
    properties=(
        Property("the answer is a share from 0 to 1", lambda inputs, value: 0 <= value <= 1),
    ),
    misconceptions=(
        Misconception(
            "share that stayed",
            lambda logits, dense: _share(logits.argmax(dim=1) == dense.argmax(dim=1)),
            "you counted the tokens whose first choice is the same. Flips are the others.",
        ),
        Misconception(
            "number instead of share",
            lambda logits, dense: (logits.argmax(dim=1) != dense.argmax(dim=1)).sum().double(),
            "you gave the number of tokens. Divide by how many there are.",
        ),
        Misconception(
            "along the tokens",
            lambda logits, dense: _share(logits.argmax(dim=0) != dense.argmax(dim=0)),
            "argmax went along the tokens: for each word, where it is likeliest. Each row is a "
            "token; the first choice is within the row, dim=1.",
        ),
        Misconception(
            "any logit changed",
            lambda logits, dense: _share((logits != dense).any(dim=1)),
            "you counted the tokens whose logits changed at all. Nearly every logit changes when "
            "a weight is rounded; a flip is another first choice.",
        ),
        Misconception(
            "last of equal logits",
            lambda logits, dense: _share(_last_choice(logits) != _last_choice(dense)),
            "of equal logits you took the last. argmax takes the first.",
        ),
    ),
)

# ------------------------------------------------------------------------- compress_tiny

BITS, LOSS = 3.25, 1.205  # asked for; the section's best reaches 3.13 and 1.211
WINDOWS, LENGTH = 64, 256  # of the calibration text
SENSITIVE = ("attention.value", "blocks.0.mlp.down")  # what loses most for each bit saved


def round_layer(name: str, weight: Tensor, gram: Tensor) -> Codes:
    """GPTQ in 3 bits, or 4 where it pays; in its ranges, what flows in weighs the errors."""

    def calibrate(rows: Tensor, format: Format) -> Range:
        return mse_range(rows, format, gram.diagonal().expand(rows.shape))

    bits = 4 if any(part in name for part in SENSITIVE) else 3
    return gptq(weight, gram, Scheme(Format(bits), "channel", calibrate), act_order=True)


def compress_tiny(model: Llama, tokens: Tensor) -> dict[str, Tensor]:
    """TinyLM as a file holds it, its linear layers in 3.25 bits a weight or less, nothing trained.

    `pack_model` of `formats.model_file` makes such a file. Its parts of the linear layers, headers
    included, are counted; the embedding stays. The norms may change. tokens (B, T) are a text to
    calibrate with. Asked for: at most 1.205 bits per byte on held-out text (dense: 1.173).
    """
    codes = {}

    def treat(stage: Stage) -> None:
        for name in stage.weight_names:
            codes[name] = round_layer(name, model.get_parameter(name), stage.moments.gram)

    treat_blocks(model, tokens, treat)  # nothing is changed: the inputs are the exact model's
    return pack_model(model, codes)


def _shuffled(model: Llama, draw: Draw) -> Llama:
    """In place: the same function, with the channels and the hidden units in another order."""
    channels, units = draw.order(model.config.width), draw.order(model.config.mlp_width)
    readers = ("embedding", "query", "key", "value", "gate", "up")
    for name, weight in model.named_parameters():
        kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
        weight.copy_(weight[:, channels] if kind in readers else weight[channels])
        if kind in ("gate", "up"):
            weight.copy_(weight[units])
        elif kind == "down":
            weight.copy_(weight[:, units])
    return model


def _tiny_and_text(seed: int) -> list[Case]:
    """One text for all seeds: with another one, the loss that is reached moves by 0.003."""
    draw, (model, tokenizer) = Draw(seed), pretrained.tiny()
    chapters = split(bible_chapters("kjv"))[0].split("\n\n")
    ids = tokenizer.encode("\n\n".join(chapters[::19])).ids
    windows = torch.tensor(ids[: WINDOWS * LENGTH]).view(WINDOWS, LENGTH)  # (N,) -> (B, T)
    inputs = {"model": _shuffled(model, draw), "tokens": windows[draw.order(WINDOWS)]}
    return [Case("TinyLM, its channels and hidden units in another order", inputs)]


def _bits(inputs: dict, packed: dict[str, Tensor]) -> float:
    """Of a file with all but the embedding and the norms, for each weight of a linear layer."""
    rest = inputs["model"].state_dict().keys() - linear_weights(inputs["model"]).keys()
    count = sum(weight.numel() for weight in linear_weights(inputs["model"]).values())
    return size({k: part for k, part in packed.items() if k not in rest}, count).bits_per_parameter


def _loss(inputs: dict, packed: dict[str, Tensor]) -> float:
    """Bits per byte on held-out text."""
    _, tokenizer = pretrained.tiny()
    return tiny_quality(unpack_model(packed, inputs["model"]), tokenizer).bits_per_byte


def _what_was_reached(inputs: dict, packed: dict[str, Tensor]) -> str:
    return (
        f"{_bits(inputs, packed):.2f} bits a weight (asked: at most {BITS}), "
        f"{_loss(inputs, packed):.3f} bits per byte (asked: at most {LOSS}; dense: 1.173)"
    )


def _nearest(bits: int, calibrate=minmax_range):
    """Every weight at its nearest level."""
    return lambda model, tokens: pack_model(
        *nearest_model(model, Scheme(Format(bits), "channel", calibrate))
    )


def _in_float16(model, tokens):
    rounded, _ = nearest_model(model, Scheme(Format(4), "channel"))
    return pack_model(rounded, every_linear(rounded, torch.float16))


def _best_of_the_section(model, tokens):
    scheme = Scheme(Format(3), "channel", mse_range)
    return pack_model(*gptq_model(model, tokens, scheme, act_order=True))


COMPRESS_TINY = Exercise(
    reference=compress_tiny,
    cases=_tiny_and_text,
    compare=False,
    reached=_what_was_reached,
    seconds=60.0,
    hints=(
        "GPTQ with act-order, 3 bits per channel and ranges of least squared error: 1.211 bits per "
        "byte in 3.13 bits a weight. An eighth of a bit is left: what would you buy with it?",
        "Round one kind of layer at a time and look at the loss: `value`, one weight in 32, costs "
        "as much as `gate`, one in four. Of all kinds `down` costs most, and of all blocks the "
        "first. Who deserves 4 bits? Or smaller groups: 96 divides 192, 128 divides 512.",
        "A second gain costs nothing: let every layer's moments be those of the exact model, "
        "treat_blocks with a `treat` that only writes codes down. Then gptq(weight, "
        "stage.moments.gram, scheme, act_order=True) for each name, and pack_model(model, codes).",
    ),
    properties=(
        Property(
            "the file has the model's embedding",
            lambda inputs, packed: packed["embedding.weight"].equal(
                inputs["model"].embedding.weight.cpu()
            ),
        ),
        Property(
            "the linear layers take at most 3.25 bits a weight",
            lambda inputs, packed: _bits(inputs, packed) <= BITS,
        ),
        Property(
            "the model that the file gives back needs at most 1.205 bits per byte",
            lambda inputs, packed: _loss(inputs, packed) <= LOSS,
        ),
    ),
    misconceptions=(
        Misconception(
            "each weight to the nearest level",
            _nearest(3),
            "the file is small enough, but every weight was rounded by itself. The calibration "
            "text knows which errors matter: GPTQ halves the loss that rounding adds.",
        ),
        Misconception(
            "the nearest level of clipped ranges",
            _nearest(3, mse_range),
            "ranges of least squared error are a good start, but the weights were still rounded "
            "one by one, and nobody looked at what flows into them.",
        ),
        Misconception(
            "four bits",
            _nearest(4),
            "with 4 bits everywhere the loss is easily met, and the file is too large: 4.1 bits a "
            "weight. Only some of the layers can have a fourth bit.",
        ),
        Misconception(
            "rounded, and stored as float16",
            _in_float16,
            "the weights have 16 levels in each row, and 16 bits each in the file. Rounding saves "
            "nothing by itself: the codes have to be packed.",
        ),
        Misconception(
            "the best of the section",
            _best_of_the_section,
            "GPTQ with act-order and ranges of least squared error, 3 bits per channel: good, and "
            "it is the bar to beat. There is an eighth of a bit left to spend. Where do errors "
            "hurt most?",
        ),
    ),
)
