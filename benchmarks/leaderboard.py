"""SmolLM2 under everything that works after training: the table that 11_language_models quotes.

    python -m benchmarks.language_models leaderboard FOLDER     rows that stand there are not redone
    python -m benchmarks.language_models gguf FILE              one result as llama.cpp runs it

Each row is made from the dense model and 16 windows of 512 tokens of Wikipedia, written as a packed
file, weighed, loaded again and measured from there, on 4,096 tokens of an article of its own. The
embedding has 8 bits and a scale for each token throughout, except in the first row. Minutes are CPU
minutes of one core for the making alone.

The rows of 4 bits, and pruning by magnitude, also answer whose error it is. The first token of each
window is read by the dense model and all others by the compressed one ("first token dense"), or the
other way round ("first token compressed"): keys and values of the first are handed over in the
cache. The losses are those of the places from 9 on.

The weights of SmolLM2 had been rounded before, to Q4_1 in groups of 32.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from course_lib.data.batches import consecutive_windows
from course_lib.data.text import bible_chapters
from course_lib.formats.forms import AnyScheme
from course_lib.formats.gguf_model import write_gguf
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear, pack_tensors, unpack_model
from course_lib.formats.sparse import Sparse
from course_lib.language_models import recipes
from course_lib.language_models.quantized_inputs import quantized_inputs
from course_lib.language_models.rotation import random_hadamard, rotated
from course_lib.language_models.smoothquant import input_maxima
from course_lib.language_models.sparsegpt import sparsegpt
from course_lib.language_models.wanda import row_mask
from course_lib.measure.divergence import Estimate, estimate, paired_difference
from course_lib.measure.size import size
from course_lib.measure.yardstick import (
    smollm2_calibration,
    smollm2_quality,
    spread_windows,
    wikipedia_sample,
)
from course_lib.models import pretrained
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights
from course_lib.models.walk import Stage, treat_blocks
from course_lib.quantization.calibration import mse_range

WINDOW, FIRST, COUNTED = 512, 64, 8  # tokens; how often a first one counts; places left out
EIGHT = Scheme(Format(8, symmetric=True), "channel")
Made = tuple[Llama, dict[str, AnyScheme]]
Make = Callable[[Llama, Tensor], Made]


def groups(bits: int) -> Scheme:
    """Affine codes, 64 weights a scale."""
    return Scheme(Format(bits), 64)


def first_counts(tokens: Tensor) -> Tensor:
    """(T,): the first place of a window counts as 64 others."""
    return torch.ones(tokens.shape[1]).index_fill(0, torch.tensor(0), FIRST)


def nearest(scheme: Scheme) -> Make:
    return lambda model, tokens: recipes.nearest_model(model, scheme)


def gptq(bits: int, act_order: bool, weighted: bool = False) -> Make:
    def make(model: Llama, tokens: Tensor) -> Made:
        weights = first_counts(tokens) if weighted else None
        return recipes.gptq_model(model, tokens, groups(bits), act_order, weights=weights)

    return make


def awq(bits: int) -> Make:
    return lambda model, tokens: recipes.awq_model(model, tokens, groups(bits))


def sparse(prune: Callable[[Llama, Tensor], Llama]) -> Make:
    """Zeros are left out of the file; the weights that stay have 16 bits."""

    def make(model: Llama, tokens: Tensor) -> Made:
        pruned = prune(model, tokens)
        return pruned, every_linear(pruned, Sparse())

    return make


def by_magnitude(model: Llama, tokens: Tensor) -> Llama:
    """Half of each row, the smaller weights, set to 0."""
    pruned = copy.deepcopy(model)
    for weight in linear_weights(pruned).values():
        weight.mul_(row_mask(weight.abs(), 0.5))
    return pruned


def first_counts_too(model: Llama, tokens: Tensor) -> Llama:
    """SparseGPT, half of the weights, where the first token of a window counts more."""
    pruned = copy.deepcopy(model)

    def treat(stage: Stage) -> None:
        for layer in stage.layers:
            layer.weight.copy_(sparsegpt(layer.weight, stage.moments.gram, 0.5))

    treat_blocks(pruned, tokens, treat, weights=first_counts(tokens))
    return pruned


def eight_and_eight(static: bool, smooth: bool) -> Make:
    def make(model: Llama, tokens: Tensor) -> Made:
        if smooth:
            return recipes.smoothquant_model(model, tokens, EIGHT, static)
        model, codes = recipes.nearest_model(model, EIGHT)
        return quantized_inputs(model, 8, input_maxima(model, tokens) if static else None), codes

    return make


def turned(model: Llama) -> Llama:
    dice = torch.Generator().manual_seed(0)
    width, hidden = model.config.width, model.config.mlp_width
    return rotated(model, random_hadamard(width, dice), random_hadamard(hidden, dice))


def four_and_four(turn: bool, repair: bool) -> Make:
    """4 bits a weight and an input; a scale for each token, and for each channel of a weight."""

    def make(model: Llama, tokens: Tensor) -> Made:
        model, scheme = turned(model) if turn else model, Scheme(Format(4), "channel", mse_range)
        made = (
            recipes.gptq_model(model, tokens, scheme, True)
            if repair
            else recipes.nearest_model(model, scheme)
        )
        return quantized_inputs(made[0], 4), made[1]

    return make


def rotated_only(model: Llama, tokens: Tensor) -> Made:
    return recipes.nearest_model(turned(model), groups(4))


def from_the_bible(model: Llama, tokens: Tensor) -> Made:
    _, tokenizer = pretrained.smollm2()
    text = "\n\n".join(bible_chapters("kjv"))
    other = spread_windows(tokenizer, text, *tokens.shape)
    return gptq(4, True, True)(model, other)


ROWS: dict[str, Make] = {
    "dense, float16": lambda model, tokens: (model, every_linear(model, torch.float16)),
    "nearest, 4 bits": nearest(groups(4)),
    "GPTQ, 4 bits": gptq(4, False),
    "GPTQ act-order, 4 bits": gptq(4, True),
    "GPTQ act-order, first token × 64, 4 bits": gptq(4, True, True),
    "AWQ, 4 bits": awq(4),
    "GPTQ, first token × 64, 4 bits": gptq(4, False, True),
    "Wanda, 50 %": sparse(lambda m, t: recipes.wanda_model(m, t, 0.5)),
    "SparseGPT, 50 %": sparse(lambda m, t: recipes.sparsegpt_model(m, t, 0.5)),
    "magnitude, 50 %": sparse(by_magnitude),
    "nearest, 8 bits a channel": nearest(EIGHT),
    "nearest, 3 bits": nearest(groups(3)),
    "AWQ, 3 bits": awq(3),
    "GPTQ act-order, first token × 64, 3 bits": gptq(3, True, True),
    "W8A8, static": eight_and_eight(True, False),
    "W8A8 SmoothQuant, static": eight_and_eight(True, True),
    "W8A8, per token": eight_and_eight(False, False),
    "W4A4, per token": four_and_four(False, False),
    "W4A4 rotated": four_and_four(True, False),
    "W4A4 rotated, GPTQ act-order": four_and_four(True, True),
    "Wanda, 2:4": sparse(lambda m, t: recipes.wanda_model(m, t, (2, 4))),
    "SparseGPT, 2:4": sparse(lambda m, t: recipes.sparsegpt_model(m, t, (2, 4))),
    "nearest, MSE ranges, 4 bits": nearest(Scheme(Format(4), 64, mse_range)),
    "rotated, nearest, 4 bits": rotated_only,
    "GPTQ act-order, first token × 64, 4 bits, Bible": from_the_bible,
    "GPTQ act-order, first token × 64, 2 bits": gptq(2, True, True),
    "AWQ, 2 bits": awq(2),
    "SparseGPT, first token × 64, 50 %": sparse(first_counts_too),
    "nearest, 2 bits": nearest(groups(2)),
}


def file_of(model: Llama, schemes: dict[str, AnyScheme]) -> dict[str, Tensor]:
    """The tensors of a file: what has no scheme of its own in 16 bits, but for scales of inputs."""
    tensors = {
        name: t if name.endswith("input_scale") else t.half()
        for name, t in model.state_dict().items()
    }
    is_dense = torch.float16 in schemes.values()
    own = {} if is_dense else {name: EIGHT for name in tensors if name in EMBEDDINGS}
    weights = {
        n: model.get_parameter(n) for n in own | schemes if n in dict(model.named_parameters())
    }
    exact = {n: w for n, w in weights.items() if not isinstance((own | schemes)[n], Sparse)}
    return pack_tensors(tensors | exact, own | schemes)


EMBEDDINGS = ("embedding.weight", "head.weight")


@torch.no_grad()
def read_by_two(first: nn.Module, rest: nn.Module, tokens: Tensor, count: int = 1) -> Tensor:
    """Losses at the places from 9 on, (N,): one model reads the first tokens of each window."""
    inputs, targets = consecutive_windows(tokens, WINDOW)  # (B, T)
    losses = []
    for some, wanted in zip(inputs.split(2), targets.split(2), strict=True):
        cache = first.empty_cache()
        first(some[:, :count], cache)
        logits = rest(some[:, count:], cache)[:, COUNTED - count :]
        losses.append(
            F.cross_entropy(
                logits.float().flatten(0, 1), wanted[:, COUNTED:].flatten(), reduction="none"
            )
        )
    return torch.cat(losses)


def logits_of(model: nn.Module, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Of a window at a time: the logits (T, V), and the tokens that came (T,)."""
    for inputs, targets in zip(*consecutive_windows(tokens, WINDOW), strict=True):
        yield model(inputs[None])[0], targets


def measured(model: Llama, dense_logits: list[Tensor], tokens: Tensor) -> dict:
    """Perplexity, KL and flips, means and standard errors; the loss and the KL of each token."""
    losses, kl, flipped = [], [], []
    for (logits, targets), dense in zip(logits_of(model, tokens), dense_logits, strict=True):
        losses.append(F.cross_entropy(logits, targets, reduction="none"))
        flipped.append(logits.argmax(1) != dense.argmax(1))
        q, p = logits.log_softmax(1), dense.log_softmax(1)
        kl.append((p.exp() * (p - q)).sum(1))
    losses = torch.cat(losses)
    row = {"perplexity": losses.double().mean().exp().item()}
    for name, values in {"kl": torch.cat(kl), "flips": torch.cat(flipped).float()}.items():
        found = estimate(values)
        row[name] = [found.mean, found.error]
    by_token = {"losses": losses, "divergences": torch.cat(kl)}
    return row | {name: [round(x, 4) for x in values.tolist()] for name, values in by_token.items()}


def whose_error(model: Llama, dense: Llama, tokens: Tensor, name: str) -> dict[str, float]:
    """Mean losses from place 9 on; the first eight tokens for plain GPTQ alone."""
    sides = {"first token dense": (dense, model, 1), "first token compressed": (model, dense, 1)}
    if name == "GPTQ, 4 bits":
        sides["first eight dense"] = (dense, model, COUNTED)
    return {n: read_by_two(*side[:2], tokens, side[2]).mean().item() for n, side in sides.items()}


def make_row(
    name: str, dense: Llama, dense_logits: list[Tensor], tokenizer: Tokenizer, tokens: Tensor
) -> dict:
    """Made, packed, weighed, unpacked, measured."""
    start = time.process_time()
    model, schemes = ROWS[name](dense, smollm2_calibration(tokenizer))
    minutes = (time.process_time() - start) / 60
    packed = file_of(model, schemes)
    row = {"name": name, "bytes": size(packed).bytes, "minutes": minutes}
    loaded = unpack_model(packed, model)
    row |= measured(loaded, dense_logits, tokens)
    if name.endswith("4 bits") or name == "magnitude, 50 %":
        late = torch.tensor(row["losses"]).view(-1, WINDOW)[:, COUNTED:]  # (N,) -> (B, T)
        row["whose error"] = {"compressed": late.mean().item()}
        row["whose error"] |= whose_error(loaded, dense, tokens, name)
    return row


@torch.no_grad()
def leaderboard(folder: str, *names: str) -> None:
    """Make the rows that the folder does not have, one file each, then print all."""
    place, (dense, tokenizer) = Path(folder), pretrained.smollm2()
    place.mkdir(parents=True, exist_ok=True)
    tokens = torch.tensor(tokenizer.encode(wikipedia_sample()).ids)
    dense_logits = [logits for logits, _ in logits_of(dense, tokens)]
    for number, name in enumerate(ROWS):
        path = place / f"{number:02}.json"
        if not path.exists() and (not names or name in names):
            path.write_text(
                json.dumps(make_row(name, dense, dense_logits, tokenizer, tokens)), "utf-8"
            )
        if path.exists():
            print_row(json.loads(path.read_text("utf-8")))
    rows = {row["name"]: row for row in map(json.loads, (p.read_text() for p in place.glob("*")))}
    if "nearest, 4 bits" in rows:
        print(
            "\nbeside nearest, 4 bits, nats a token; the errors are those of the mean over windows"
        )
        base = rows["nearest, 4 bits"]
        for name, row in rows.items():
            loss, kl = (beside(row[key], base[key]) for key in ("losses", "divergences"))
            print(
                f"{name:48} loss {loss.mean:+.4f} ± {loss.error:.4f}, "
                f"KL {kl.mean:+.4f} ± {kl.error:.4f}"
            )


def beside(values: list[float], others: list[float]) -> Estimate:
    """Mean of the differences; its error takes windows, not tokens, as drawn by themselves."""
    by_window = (torch.tensor(some).view(-1, WINDOW).mean(1) for some in (values, others))
    return paired_difference(*by_window)


def print_row(row: dict) -> None:
    """One line, and what the first token has to do with it."""
    print(
        f"{row['name']:48}{row['bytes'] / 1e6:8.1f} MB  perplexity {row['perplexity']:10.2f}  "
        f"KL {row['kl'][0]:.4f} ± {row['kl'][1]:.4f}  flips {row['flips'][0]:.1%}  "
        f"{row['minutes']:.2f} min",
        flush=True,
    )
    for name, loss in row.get("whose error", {}).items():
        print(f"    {name:30} perplexity {math.exp(loss):8.2f}", flush=True)


@torch.no_grad()
def gguf_file(path: str) -> None:
    """GPTQ's SmolLM2 as blocks of Q4_0, the embedding as Q8_0: written, weighed, read, measured.

    The package's own file is of Q4_1: half a bit more for each weight of the blocks.
    """
    dense, tokenizer = pretrained.smollm2()
    calibration = smollm2_calibration(tokenizer)
    scheme, weights = Scheme(Format(4, symmetric=True), 32), first_counts(calibration)
    model, codes = recipes.gptq_model(dense, calibration, scheme, True, weights=weights)
    embedding = Scheme(Format(8, symmetric=True), 32)
    codes["embedding.weight"] = nearest_codes(model.embedding.weight, embedding)
    write_gguf(Path(path), model, tokenizer, codes)
    loaded, _ = pretrained.read_llama(Path(path))
    found = [smollm2_quality(some, tokenizer).perplexity for some in (dense, loaded)]
    print(
        f"{path}: {Path(path).stat().st_size / 1e6:.1f} MB, perplexity {found[1]:.2f} "
        f"(dense {found[0]:.2f})\n    llama-cli -m {path}"
    )
