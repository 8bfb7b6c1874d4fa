"""What a rounded or pruned model lost, given back by rank; and what else the bytes would buy.

    OMP_NUM_THREADS=1 python -m benchmarks.given_back spectrum     10 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.given_back bits         150 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.given_back spread       3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.given_back loftq        90 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.given_back sparse       76 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.given_back smollm2      about 15 CPU minutes

Every loss is that of what a file gives back. Layers are treated one after the other, on the inputs
that the treated ones before them give. Bytes are those of the linear layers' parts; the rest of the
model is the same throughout. `spread` repeats the rows that decide on two more stretches of
held-out text: each is easier or harder as a whole, so look at differences.

"outputs" is what was given back by the Gram matrix, "weights" without it.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.structured import processor
from course_lib.data.text import bible_chapters, split
from course_lib.formats.corrected import Corrected
from course_lib.formats.linear import Codes, Scheme, nearest_codes
from course_lib.formats.model_file import pack_tensors, quantize_model, unpack_tensors
from course_lib.formats.sparse import Sparse
from course_lib.language_models.gptq import gptq
from course_lib.language_models.sparsegpt import sparsegpt
from course_lib.language_models.wanda import row_mask, wanda_score
from course_lib.low_rank.residual import alternate
from course_lib.measure.quality import quality, token_losses
from course_lib.measure.yardstick import (
    EVERY,
    FIRST,
    smollm2_calibration,
    smollm2_quality,
    tiny_calibration,
    tiny_quality,
)
from course_lib.models.llama import Llama
from course_lib.models.moments import output_error
from course_lib.models.parts import STAGES, linear_weights
from course_lib.models.pretrained import smollm2, tiny
from course_lib.models.walk import Stage, treat_blocks
from course_lib.quantization.linear import Format

Choose = Callable[[Tensor, Tensor, str], Codes | Tensor]  # weight, gram, its name -> its like
TINY_PRICE, SMOLLM2_PRICE = 0.138, 0.046  # bits a weight, of a rank in every linear layer
FIRSTS = (FIRST, 2, 11)  # every 14th held-out chapter from each of these on

# ---------------------------------------------------------------- a model, given back


class GivenBack(NamedTuple):
    """A model as its file gives it back.

    bytes: of the linear layers' parts.
    errors: name -> squared error of the weight and of the outputs, as shares of their own squares.
    """

    model: Llama
    bytes: int
    errors: dict[str, tuple[float, float]]


@torch.no_grad()
def given_back(
    model: Llama,
    tokens: Tensor,
    choose: Choose,
    rank: int = 0,
    of: str = "outputs",
    rounds: int = 1,
) -> GivenBack:
    """Every linear layer replaced by what `choose` makes of it, and a product of this rank."""
    model, count, errors = copy.deepcopy(model), 0, {}

    def treat(stage: Stage) -> None:
        nonlocal count
        gram = stage.moments.gram
        for name, layer in zip(stage.weight_names, stage.layers, strict=True):
            weight, made = layer.weight, []

            def approximate(rest: Tensor, name: str = name, made: list = made) -> Tensor:
                made.append(choose(rest, gram, name))
                return made[-1].weight if isinstance(made[-1], Codes) else made[-1]

            r = min(rank, *weight.shape)
            aware = gram if of == "outputs" else None
            approximation, factors = alternate(weight, approximate, r, rounds, aware)
            base = made[-1] if isinstance(made[-1], Codes) else Sparse()
            stored = approximation if base is made[-1] else approximation.half()
            parts = pack_tensors({name: stored}, {name: Corrected(base, factors) if r else base})
            back = unpack_tensors(parts, {name: weight})[name].float()
            count += sum(part.nbytes for part in parts.values())
            errors[name] = relative_errors(weight, weight - back, gram)
            weight.copy_(back)

    treat_blocks(model, tokens, treat)
    return GivenBack(model, count, errors)


def relative_errors(weight: Tensor, change: Tensor, gram: Tensor) -> tuple[float, float]:
    """Squared error of the weight and of the outputs, as shares of their own squares."""
    outputs = output_error(change, gram).sum() / output_error(weight, gram).sum()
    return (change.square().sum() / weight.square().sum()).item(), outputs.item()


def nearest(bits: int, group: int | str = 64) -> Choose:
    return lambda weight, gram, name: nearest_codes(weight, Scheme(Format(bits), group))


def by_gptq(bits: int, group: int | str = 64) -> Choose:
    """With columns by falling power."""
    scheme = Scheme(Format(bits), group)
    return lambda weight, gram, name: gptq(weight, gram, scheme, act_order=True)


def mixed(wide: set[str], low: Choose, high: Choose) -> Choose:
    """Some layers by `high`, the others by `low`."""
    return lambda weight, gram, name: (high if name in wide else low)(weight, gram, name)


def kinds_by_rise(model: Llama, tokens: Tensor, low: int) -> list[str]:
    """The seven kinds of layers, those first that are worth a bit more.

    By how much the calibration loss rises, for each weight, if this kind alone has `low` bits.
    """
    weights = {f"blocks.{name}": w for name, w in linear_weights(model.blocks).items()}

    def rise(kind: str) -> float:
        names = [name for name in weights if kind in name]
        rounded = quantize_model(model, dict.fromkeys(names, Scheme(Format(low), 64)))
        loss = sum(token_losses(rounded, window).mean().item() for window in tokens)
        return (loss - dense) / sum(weights[name].numel() for name in names)

    dense = sum(token_losses(model, window).mean().item() for window in tokens)
    return sorted((name for names in STAGES for name in names), key=rise, reverse=True)


def wide_layers(model: Llama, kinds: Sequence[str], share: float) -> set[str]:
    """Names of layers that hold at most this share of all weights: kind by kind, block by block."""
    weights = {f"blocks.{name}": w for name, w in linear_weights(model.blocks).items()}
    room, wide = share * sum(w.numel() for w in weights.values()), set()
    for name in (name for kind in kinds for name in weights if kind in name):
        if weights[name].numel() <= room:
            room -= weights[name].numel()
            wide.add(name)
    return wide


# ---------------------------------------------------------------- TinyLM


def stretches() -> list[str]:
    chapters = split(bible_chapters("kjv"))[1].split("\n\n")
    return ["\n\n".join(chapters[first::EVERY]) for first in FIRSTS]


def loss_of(model: Llama, tokenizer: Tokenizer) -> float:
    return round(tiny_quality(model, tokenizer).bits_per_byte, 4)


def losses(model: Llama, tokenizer: Tokenizer) -> tuple[float, ...]:
    """Bits per byte on three stretches of held-out text, the yardstick's first."""
    return tuple(round(quality(model, tokenizer, text).bits_per_byte, 4) for text in stretches())


def bit_rows(model: Llama, tokens: Tensor) -> dict[str, tuple]:
    """Name -> arguments of `given_back`: ranks on four bases, and the same bytes spent on bits."""
    rows: dict[str, tuple] = {}
    bases = {
        "nearest, 3 bits": nearest(3), "nearest, 3 bits, channel": nearest(3, "channel"),
        "nearest, 2 bits": nearest(2), "GPTQ, 3 bits": by_gptq(3),
    }  # fmt: skip
    for base, choose in bases.items():
        rows[base] = (choose,)
        for rank in (1, 2, 4, 8, 16, 32, 64):
            rows[f"{base}, rank {rank}, outputs"] = (choose, rank)
        for rank in (8, 16, 32, 64) if base.startswith("nearest, 3") else (8,):
            rows[f"{base}, rank {rank}, weights"] = (choose, rank, "weights")
    kinds = {low: kinds_by_rise(model, tokens[:8], low) for low in (2, 3)}
    for name, how in (("nearest", nearest), ("GPTQ", by_gptq)):
        for bits in (4, 5, 8):
            rows[f"{name}, {bits} bits"] = (how(bits),)
        for bits, group in ((2, 32), (2, 16), (3, 32), (3, 16)):
            rows[f"{name}, {bits} bits, groups of {group}"] = (how(bits, group),)
        for low in (2, 3):
            for rank in (1, 2, 4):
                wide = wide_layers(model, kinds[low], TINY_PRICE * rank)
                as_much = f"{name}, {low} and {low + 1} bits, as rank {rank}"
                rows[as_much] = (mixed(wide, how(low), how(low + 1)),)
    return rows


def bits_table() -> dict:
    """Name -> bytes of the linear layers, bits per byte."""
    model, tokenizer = tiny()
    tokens, table = tiny_calibration(tokenizer), {}
    begin("TinyLM")
    for name, arguments in bit_rows(model, tokens).items():
        found = given_back(model, tokens, *arguments)
        table[name] = (found.bytes, loss_of(found.model, tokenizer))
        print(f"    {name!r}: {table[name]},", flush=True)
    return table


DECIDE = (
    "nearest, 3 bits", "nearest, 3 bits, rank 1, outputs", "nearest, 3 bits, rank 8, outputs",
    "nearest, 3 bits, rank 8, weights", "nearest, 3 and 4 bits, as rank 1", "nearest, 4 bits",
    "GPTQ, 3 bits", "GPTQ, 3 bits, rank 8, outputs", "GPTQ, 3 and 4 bits, as rank 1",
)  # fmt: skip


def spread_table() -> dict:
    """Name -> bits per byte on three stretches of held-out text."""
    model, tokenizer = tiny()
    tokens, table = tiny_calibration(tokenizer), {}
    begin("TinyLM, three stretches")
    for name, arguments in bit_rows(model, tokens).items():
        if name in DECIDE:
            table[name] = losses(given_back(model, tokens, *arguments).model, tokenizer)
            print(f"    {name!r}: {table[name]},", flush=True)
    return table


def loftq_table(most: int = 5) -> dict:
    """(base, rank, on what) -> for 1, 2, … rounds: errors of weights and outputs, bits per byte."""
    model, tokenizer = tiny()
    tokens, table = tiny_calibration(tokenizer), {}
    begin("TinyLM")
    sides = [
        (f"{name}, {bits} bits", how(bits), 8, of)
        for bits in (2, 3)
        for name, how, of in (
            ("nearest", nearest, "weights"),
            ("nearest", nearest, "outputs"),
            ("GPTQ", by_gptq, "outputs"),
        )
    ]
    for name, choose, rank, of in sides:
        row = []
        for rounds in range(1, most + 1):
            found = given_back(model, tokens, choose, rank, of, rounds)
            means = [statistics.mean(some) for some in zip(*found.errors.values(), strict=True)]
            row.append((*(round(mean, 5) for mean in means), loss_of(found.model, tokenizer)))
        table[name, rank, of] = row
        print(f"    {(name, rank, of)}: {row},", flush=True)
    return table


def largest(weight: Tensor, gram: Tensor, density: float) -> Tensor:
    return weight * row_mask(weight.abs(), density)


def wanda(weight: Tensor, gram: Tensor, density: float) -> Tensor:
    return weight * row_mask(wanda_score(weight, gram), density)


def pruned(rule: Callable, budget: float, rank: int) -> Choose:
    """What stays so that it and the factors are a share `budget` of the weight's numbers."""

    def choose(weight: Tensor, gram: Tensor, name: str) -> Tensor:
        O, I = weight.shape  # noqa: E741
        return rule(weight, gram, budget - min(rank, O, I) * (O + I) / (O * I))

    return choose


def sparse_table(budgets: tuple[float, ...] = (0.5,)) -> dict:
    """(rule, numbers, rank, rounds) -> bytes of the linear layers, bits per byte."""
    model, tokenizer = tiny()
    tokens, table = tiny_calibration(tokenizer), {}
    begin("TinyLM")
    rules = {
        "magnitude": (largest, "weights"), "Wanda": (wanda, "outputs"),
        "SparseGPT": (sparsegpt, "outputs"),
    }  # fmt: skip
    for budget in budgets:
        for name, (rule, of) in rules.items():
            for rank, rounds in ((0, 1), (2, 1), (2, 20), (8, 1), (8, 5), (8, 20), (16, 20)):
                if name == "SparseGPT" and rounds > 5:
                    continue
                choose = pruned(rule, budget, rank)
                found = given_back(model, tokens, choose, rank, of, rounds)
                table[name, budget, rank, rounds] = (found.bytes, loss_of(found.model, tokenizer))
                print(f"    {(name, budget, rank, rounds)}: "
                      f"{table[name, budget, rank, rounds]},", flush=True)  # fmt: skip
    return table


# ---------------------------------------------------------------- spectra


def first_share(matrix: Tensor, rank: int) -> float:
    """Which part of a matrix's squares its first r directions hold."""
    squares = torch.linalg.svdvals(matrix.double()).square()
    return (squares[:rank].sum() / squares.sum()).item()


@torch.no_grad()
def spectrum_table(rank: int = 8) -> dict:
    """Matrix -> the median, over layers, of what its first r directions hold: alone, and of G^½."""
    (model, tokenizer), shares = tiny(), {}
    dice = torch.Generator().manual_seed(0)

    def treat(stage: Stage) -> None:
        gram = stage.moments.gram.double()
        values, vectors = torch.linalg.eigh(gram)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        for layer in stage.layers:
            W = layer.weight
            sides = {"W": W, "noise": torch.randn(W.shape, generator=dice)}
            for bits in (2, 3, 4):
                sides[f"E, nearest, {bits} bits"] = W - nearest(bits)(W, gram, "").weight
            sides["E, GPTQ, 3 bits"] = W - by_gptq(3)(W, gram.float(), "").weight
            for name, matrix in sides.items():
                both = first_share(matrix, rank), first_share(matrix.double() @ root, rank)
                shares.setdefault(name, []).append(both)

    treat_blocks(model, tiny_calibration(tokenizer), treat)
    begin(f"TinyLM, the first {rank} directions")
    table = {
        name: tuple(round(statistics.median(some), 3) for some in zip(*both, strict=True))
        for name, both in shares.items()
    }
    for name, row in table.items():
        print(f"    {name!r}: {row},")
    return table


# ---------------------------------------------------------------- SmolLM2


def smollm2_rows(model: Llama, tokens: Tensor) -> dict[str, tuple]:
    """Name -> arguments of `given_back`."""
    kinds = kinds_by_rise(model, tokens[:2], 3)
    wide = {rank: wide_layers(model, kinds, SMOLLM2_PRICE * rank) for rank in (4, 16)}
    return {
        "nearest, 3 bits": (nearest(3),),
        "nearest, 3 bits, rank 16, outputs": (nearest(3), 16),
        "nearest, 3 and 4 bits, as rank 16": (mixed(wide[16], nearest(3), nearest(4)),),
        "nearest, 3 bits, rank 16, weights": (nearest(3), 16, "weights"),
        "GPTQ, 3 bits": (by_gptq(3),),
        "GPTQ, 3 bits, rank 16, outputs": (by_gptq(3), 16),
        "GPTQ, 3 and 4 bits, as rank 16": (mixed(wide[16], by_gptq(3), by_gptq(4)),),
        "nearest, 3 bits, rank 4, outputs": (nearest(3), 4),
        "nearest, 3 and 4 bits, as rank 4": (mixed(wide[4], nearest(3), nearest(4)),),
        "nearest, 3 bits, groups of 32": (nearest(3, 32),),
        "nearest, 4 bits": (nearest(4),),
        "GPTQ, 4 bits": (by_gptq(4),),
    }


def smollm2_table(*names: str) -> dict:
    """Name -> bytes of the linear layers, perplexity."""
    model, tokenizer = smollm2()
    tokens, table = smollm2_calibration(tokenizer, windows=8), {}
    begin("SmolLM2")
    for name, arguments in smollm2_rows(model, tokens).items():
        if not names or name in names:
            found = given_back(model, tokens, *arguments)
            perplexity = smollm2_quality(found.model, tokenizer).perplexity
            table[name] = (found.bytes, round(perplexity, 2))
            print(f"    {name!r}: {table[name]},", flush=True)
    return table


def begin(what: str) -> None:
    print(f"# {' '.join(sys.argv[1:])}: {what}, {time.strftime('%Y-%m-%d')}, {processor()}")


TABLES = {
    "spectrum": spectrum_table,
    "bits": bits_table,
    "spread": spread_table,
    "loftq": loftq_table,
    "sparse": sparse_table,
    "smollm2": smollm2_table,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    if not sys.argv[1:] or sys.argv[1] not in TABLES:
        sys.exit(f"python -m benchmarks.given_back {' | '.join(TABLES)}")
    start = time.process_time()
    TABLES[sys.argv[1]](*sys.argv[2:])
    print(f"# {time.process_time() - start:.0f} CPU seconds")
