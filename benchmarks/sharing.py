"""Layers that share: blocks that are one, and one basis for several weights, at equal numbers.

    OMP_NUM_THREADS=1 python -m benchmarks.sharing tied        minutes
    OMP_NUM_THREADS=1 python -m benchmarks.sharing basis       minutes
    OMP_NUM_THREADS=1 python -m benchmarks.sharing smollm2     minutes

Losses are bits per byte on the yardstick, those of blocks that are tied on three stretches of
held-out text, the yardstick's first; SmolLM2's are perplexities. All factors of a table are made
from the dense model's inputs, and every weight gets the same share of its numbers. What is counted
are the numbers of the linear layers, as a share of all.
"""

import copy
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.given_back import begin, loss_of, losses
from benchmarks.structured import healed
from course_lib.low_rank.output_aware import output_factors
from course_lib.low_rank.sharing import shared_basis, shared_count, tie_blocks
from course_lib.low_rank.svd import Factors
from course_lib.measure.size import count_parameters
from course_lib.measure.yardstick import (
    smollm2_calibration,
    smollm2_quality,
    tiny_calibration,
    tiny_quality,
)
from course_lib.models.layers import view_without_layers
from course_lib.models.llama import Llama
from course_lib.models.parts import DOWN, GATE_UP, OUTPUT, QKV, linear_weights
from course_lib.models.pretrained import smollm2, tiny
from course_lib.models.walk import Stage, treat_blocks

Layer = tuple[int, str]  # block, name in it
Groups = list[list[Layer]]  # whose weights share a basis

# ---------------------------------------------------------------- tied blocks


def without(model: Llama, *gone: int) -> Llama:
    off = torch.zeros(len(model.blocks), dtype=torch.bool)
    off[list(gone)] = True
    return copy.deepcopy(view_without_layers(model, off))


def tied_table(steps: int = 40, seeds: int = 3, windows: int = 512) -> dict:
    """What shares -> parameters; bits per byte at once; after some steps on the text, each seed."""
    model, tokenizer = tiny()
    text, table = tiny_calibration(tokenizer, windows), {}
    pairs = text[:, :-1], text[:, 1:]
    sides = {
        "dense": model,
        "pairs are one: the first": tie_blocks(model, 2),
        "pairs are one: the mean": tie_blocks(model, 2, mean=True),
        "all are one: the first": tie_blocks(model, 4),
        "blocks 1 and 3 dropped": without(model, 1, 3),
        "blocks 1 to 3 dropped": without(model, 1, 2, 3),
    }
    begin(f"TinyLM, {steps} steps, {seeds} seeds")
    for name, start in sides.items():
        ends = [healed(start, pairs, steps, None, seed) for seed in range(seeds)]
        after = tuple(round(tiny_quality(end, tokenizer).bits_per_byte, 4) for end in ends)
        table[name] = (count_parameters(start), losses(start, tokenizer), after)
        print(f"    {name!r}: {table[name]},", flush=True)
    return table


# ---------------------------------------------------------------- a shared basis


def across(group: int, names: Sequence[str], layers: int) -> Groups:
    """The same weight of neighbouring blocks."""
    starts = range(0, layers, group)
    return [[(i, name) for i in range(s, s + group)] for name in names for s in starts]


def within(names: Sequence[str], layers: int, group: int = 1) -> Groups:
    """Different weights that read the same input, in a block or in neighbouring ones."""
    starts = range(0, layers, group)
    return [[(i, name) for i in range(s, s + group) for name in names] for s in starts]


def plans(layers: int) -> dict[str, Groups]:
    """Name -> which weights share, all weights in it."""
    last = OUTPUT + DOWN
    reads = within(QKV, layers) + within(GATE_UP, layers)
    return {
        "each its own": across(1, QKV + GATE_UP + last, layers),
        "equal inputs": reads + across(1, last, layers),
        "pairs of blocks, query to up": across(2, QKV + GATE_UP, layers) + across(1, last, layers),
        "pairs of blocks": across(2, QKV + GATE_UP + last, layers),
        "equal inputs, and pairs for the others": reads + across(2, last, layers),
        "equal inputs in pairs of blocks": within(QKV, layers, 2)
        + within(GATE_UP, layers, 2)
        + across(2, last, layers),
    }


def grams_of(model: Llama, tokens: Tensor) -> dict[Layer, Tensor]:
    """Of the inputs that each layer of the dense model has."""
    grams: dict[Layer, Tensor] = {}

    def look(stage: Stage) -> None:
        grams.update({(stage.number, name): stage.moments.gram for name in stage.names})

    treat_blocks(model, tokens, look)
    return grams


def shared_by_authors(weights: list[Tensor], rank: int, grams: list[Tensor]) -> list[Factors]:
    """The best for inputs of which each layer brings its share: B_l too."""
    mean = torch.stack(grams).mean(dim=0)
    left, right = output_factors(torch.cat(weights), mean, rank)
    return [Factors(part, right) for part in left.split([len(weight) for weight in weights])]


@torch.no_grad()
def shared_model(
    model: Llama, groups: Groups, grams: dict[Layer, Tensor], budget: float, share=shared_basis
) -> tuple[float, Llama]:
    """The numbers, as a share of the dense layers'; the model, each weight B_l A."""
    small, count = copy.deepcopy(model), 0
    for group in groups:
        layers = [small.blocks[i].get_submodule(name) for i, name in group]
        weights = [layer.weight.clone() for layer in layers]
        numbers, O = (sum(f(w) for w in weights) for f in (Tensor.numel, len))  # noqa: E741
        I = weights[0].shape[1]  # noqa: E741
        rank = min(int(budget * numbers / (I + O)), I, O)
        factors = share(weights, rank, [grams[layer] for layer in group])
        count += shared_count(factors)
        for layer, factor in zip(layers, factors, strict=True):
            layer.weight.copy_(factor.product)
    return count / sum(w.numel() for w in linear_weights(model.blocks).values()), small


def basis_table(budgets: tuple[float, ...] = (0.75, 0.6, 0.5)) -> dict:
    """(which share, budget, whose B) -> numbers as a share, bits per byte."""
    model, tokenizer = tiny()
    grams, table = grams_of(model, tiny_calibration(tokenizer)), {}
    begin("TinyLM")
    for budget in budgets:
        for name, groups in plans(len(model.blocks)).items():
            crossing = any(len({i for i, _ in group}) > 1 for group in groups)
            sides = {"own": shared_basis} | ({"authors'": shared_by_authors} if crossing else {})
            for whose, share in sides.items():
                numbers, small = shared_model(model, groups, grams, budget, share)
                table[name, budget, whose] = (round(numbers, 3), loss_of(small, tokenizer))
                print(f"    {(name, budget, whose)}: {table[name, budget, whose]},", flush=True)
    return table


def smollm2_table(budget: float = 0.8) -> dict:
    """Which share -> numbers as a share, perplexity."""
    model, tokenizer = smollm2()
    grams, table = grams_of(model, smollm2_calibration(tokenizer)), {}
    begin(f"SmolLM2, {budget} of the numbers")
    for name, groups in plans(len(model.blocks)).items():
        if name in ("each its own", "equal inputs", "pairs of blocks"):
            numbers, small = shared_model(model, groups, grams, budget)
            perplexity = smollm2_quality(small, tokenizer).perplexity
            table[name] = (round(numbers, 3), round(perplexity, 2))
            print(f"    {name!r}: {table[name]},", flush=True)
    return table


TABLES = {"tied": tied_table, "basis": basis_table, "smollm2": smollm2_table}

if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) != 2 or sys.argv[1] not in TABLES:
        sys.exit(f"python -m benchmarks.sharing {' | '.join(TABLES)}")
    start = time.process_time()
    TABLES[sys.argv[1]]()
    print(f"# {time.process_time() - start:.0f} CPU seconds")
