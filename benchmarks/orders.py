"""Pruning, quantization, distillation: in which order? And is a pruned model worth its past?

    OMP_NUM_THREADS=1 python -m benchmarks.orders order FOLDER [seed …]    5 CPU minutes a seed
    OMP_NUM_THREADS=1 python -m benchmarks.orders past FOLDER [seed …]     4 CPU minutes a seed
    OMP_NUM_THREADS=1 python -m benchmarks.orders best FOLDER [seed …]     3 CPU minutes a seed

The first: TinyLM, embedding of 4 bits; half of the blocks' weights pruned by magnitude, even levels
coded to 2 bits a weight, and 100 steps of training by the dense model, in every order that makes
sense; the training in one piece, or half of it after each of the other two. Beside them the same
without pruning, and at equal bytes.

The second: a layer and two fifths of the MLPs' units removed, then 200 steps; beside it a model of
the same shape that starts from random weights, with the teacher and without.

The third: the front's two best recipes around 3 % more loss, for the spread over seeds.

Losses are bits per byte of `yardstick.held_out_sample`, bytes those of the whole file. The seed
draws windows, and weights where they are random. The folder keeps states.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.pipeline.run import run
from course_lib.pipeline.state import packed
from course_lib.pipeline.steps import (
    CutUnits,
    DropLayers,
    Heal,
    Prune,
    Quantize,
    Restart,
    Round,
    Step,
    tiny_given,
)

STEPS, PAST_STEPS = 100, 200
EMBEDDING = Quantize(4, part="embedding")
P, Q, D = Prune(0.5), Round(2.0, coded=True), Heal(STEPS, 0.2)
HALF = Heal(STEPS // 2, 0.2)
ORDERS: dict[str, Sequence[Step]] = {
    "prune, quantize": (P, Q),
    "quantize, prune": (Q, P),
    "distil, prune, quantize": (D, P, Q),
    "distil, quantize, prune": (D, Q, P),
    "prune, distil, quantize": (P, D, Q),
    "quantize, distil, prune": (Q, D, P),
    "prune, quantize, distil": (P, Q, D),
    "quantize, prune, distil": (Q, P, D),
    "prune, distil, quantize, distil": (P, HALF, Q, HALF),
    "quantize, distil, prune, distil": (Q, HALF, P, HALF),
    "quantize": (Q,),
    "quantize, distil": (Q, D),
    "coarser: quantize, distil": (Round(1.9, coded=True), D),
}
SMALLER = (DropLayers(1), CutUnits(0.6))
PASTS: dict[str, Sequence[Step]] = {
    "pruned": SMALLER,
    "pruned, text": (*SMALLER, Heal(PAST_STEPS, 0.2, teacher=False)),
    "pruned, teacher": (*SMALLER, Heal(PAST_STEPS, 0.2)),
    "pruned, teacher, full rate": (*SMALLER, Heal(PAST_STEPS, 1.0)),
    "from scratch, text": (*SMALLER, Restart(), Heal(PAST_STEPS, 1.0, teacher=False)),
    "from scratch, teacher": (*SMALLER, Restart(), Heal(PAST_STEPS, 1.0)),
}
BEST: dict[str, Sequence[Step]] = {
    f"blocks {bits} bits": (EMBEDDING, Round(bits, coded=True), Heal(PAST_STEPS, 0.2))
    for bits in (2.8, 2.4)
}


def table(recipes: Mapping[str, Sequence[Step]], folder: Path, seeds: Sequence[int]) -> dict:
    """Recipe -> bytes of the last seed's file, and the loss for each seed; printed as it grows."""
    given, found = tiny_given(), {}
    for name, recipe in recipes.items():
        losses = []
        for seed in seeds:
            state = run(recipe, given, seed, folder)
            losses.append(round(tiny_quality(state.model, given.tokenizer).bits_per_byte, 4))
        found[name] = (size(packed(state)).bytes, *losses)
        print(f"    {name!r}: {found[name]},", flush=True)
    return found


def main(name: str, folder: str, *seeds: str) -> None:
    """The table of that name."""
    chosen = [int(seed) for seed in seeds or "012"]
    if name == "order":
        table({n: (EMBEDDING, *r) for n, r in ORDERS.items()}, Path(folder), chosen)
    elif name == "past":
        table(PASTS, Path(folder), chosen)
    elif name == "best":
        table(BEST, Path(folder), chosen)
    else:
        sys.exit(f"order, past or best; got {name}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
