"""Adapters beside full fine-tuning: what TinyLM learns of another text, and what it forgets.

    OMP_NUM_THREADS=1 python -m benchmarks.adapters learn wikipedia    30 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters learn asv          30 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters change             5 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters starts             5 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters merging            3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters steps              3 CPU minutes

TinyLM has learned the King James Bible. It goes on learning for 200 steps of 4 windows of 128
tokens, on articles of Wikipedia or on the American Standard Version, and is measured on held-out
text of both kinds: five articles (the first 4,000 characters of each) or four chapters, and the
yardstick's four chapters of the King James Bible; for the American Standard Version these are the
same four chapters in either words. Figures are bits per byte.

All learn with AdamW (β 0.9 and 0.95, no weight decay), gradients clipped to length 1, the rate
going up over 20 steps and down over the last 40. Each method has the best of its own rates, by its
loss on new held-out text at seed 0; then two more seeds. A seed draws the windows and A. Every run
is kept as a line of a file in the cache folder, so that `learn` may be stopped and goes on.
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache

import torch
from safetensors.torch import save
from torch import Tensor, nn

from benchmarks.structured import processor
from course_lib.data.batches import random_windows
from course_lib.data.text import HELD_OUT_EVERY, bible_chapters, split, wikipedia_articles
from course_lib.formats.codebook import NF4
from course_lib.formats.linear import Format, Scheme
from course_lib.language_models.qlora import qlora
from course_lib.low_rank.adapters import adapter_tensors, add_adapters, trainable
from course_lib.measure.quality import quality
from course_lib.measure.yardstick import EVERY, FIRST, tiny_quality
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights
from course_lib.models.pretrained import tiny
from course_lib.models.training import follow_rate, next_token_loss, rate_factor, train
from course_lib.places import cache_folder

STEPS, BATCH, LENGTH, SEEDS = 200, 4, 128, (0, 1, 2)
ALPHA, RANKS = 16.0, (1, 2, 4, 8, 16, 32)
EVEN = Scheme(Format(4), 64)
Learner = Callable[[Llama, torch.Generator], nn.Module]

# ---------------------------------------------------------------- who learns what


def only(model: Llama, learns: Callable[[str, Tensor], bool]) -> Llama:
    """A copy in which these parameters alone have gradients."""
    model = copy.deepcopy(model).requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns(name, parameter))
    return model


def lora(rank: int) -> Learner:
    return lambda model, generator: add_adapters(model, rank, ALPHA, generator)


def all_linear(model: Llama, _: torch.Generator) -> Llama:
    names = linear_weights(model).keys()
    return only(model, lambda name, _: name in names)


LAST = f"blocks.{3}.mlp.down.weight"  # 98,304 numbers; with the norms 100,032, and LoRA 8 108,544
METHODS: dict[str, tuple[Learner, tuple[float, ...]]] = {
    "full": (lambda m, _: only(m, lambda *_: True), (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)),
    "LoRA 8": (lora(8), (1e-3, 3e-3, 1e-2, 3e-2)),
    "LoRA 1": (lora(1), (3e-3, 1e-2, 3e-2)),
    "LoRA 32": (lora(32), (3e-3, 1e-2, 3e-2)),
    "linear layers": (all_linear, (3e-4, 1e-3, 3e-3)),
    "QLoRA 8": (lambda m, g: qlora(m, NF4, 8, ALPHA, g), (3e-3, 1e-2)),
    "last matrix, norms": (lambda m, _: only(m, lambda n, p: n == LAST or p.dim() == 1),
                           (1e-3, 3e-3, 1e-2)),
    "norms": (lambda m, _: only(m, lambda n, p: p.dim() == 1), (3e-3, 1e-2, 3e-2)),
    **{f"LoRA {r}": (lora(r), (3e-3, 1e-2)) for r in (2, 4, 16)},
    "QLoRA 8, even levels": (lambda m, g: qlora(m, EVEN, 8, ALPHA, g), (3e-3, 1e-2)),
}  # fmt: skip

# ---------------------------------------------------------------- one run


@cache
def texts(name: str) -> tuple[Tensor, str]:
    """Tokens to learn from, and held-out text of the same kind."""
    _, tokenizer = tiny()
    if name == "asv":
        documents = bible_chapters("asv")
        held_out = documents[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY][FIRST::EVERY]
    else:
        documents = list(wikipedia_articles().values())
        held_out = [d[:4000] for d in documents[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY]]
    return torch.tensor(tokenizer.encode(split(documents)[0]).ids), "\n\n".join(held_out)


def windows(text: str, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return (random_windows(texts(text)[0], BATCH, LENGTH, generator) for _ in range(steps))


def fine_tune(model: nn.Module, text: str, rate: float, seed: int, steps: int = STEPS) -> Tensor:
    """Train in place what has gradients; the loss of each step."""
    optimizer = torch.optim.AdamW(
        trainable(model).values(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    schedules = follow_rate([optimizer], lambda step: rate_factor(step, steps))
    batches = windows(text, seed, steps)
    return train(model, batches, next_token_loss, [optimizer], schedules, longest=1.0)


def new_and_old(model: nn.Module, text: str) -> tuple[float, float]:
    """Bits per byte of held-out text of the new kind and of the old."""
    _, tokenizer = tiny()
    new = quality(model, tokenizer, texts(text)[1]).bits_per_byte
    return new, tiny_quality(model, tokenizer).bits_per_byte


def learner(method: str, seed: int) -> nn.Module:
    make, _ = METHODS[method]
    return make(tiny()[0], torch.Generator().manual_seed(seed))


def file_bytes(model: nn.Module) -> int:
    """What a file of all that has learned weighs, in float16."""
    tensors = adapter_tensors(model) or trainable(model)
    return len(save({name: tensor.detach().half() for name, tensor in tensors.items()}))


# ---------------------------------------------------------------- what is learned and forgotten


def one_run(text: str, method: str, rate: float, seed: int) -> tuple[float, float]:
    """New and old loss after training; a run that was made is not made again."""
    file = cache_folder() / "adapters.jsonl"
    key = [text, method, rate, seed, STEPS, BATCH, LENGTH]
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    for line in lines:
        *done, new, old = json.loads(line)
        if done == key:
            return new, old
    model = learner(method, seed)
    fine_tune(model, text, rate, seed)
    found = [round(value, 4) for value in new_and_old(model, text)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps([*key, *found]) + "\n")
    print(f"# {text}, {method}, {rate:g}, seed {seed}: {found}", flush=True)
    return tuple(found)


def learned_table(text: str) -> dict[str, tuple]:
    """Method -> best rate, trained numbers, file's bytes, new loss, old loss, each ± over seeds.

    The last two figures: full fine-tuning's old loss where its new loss is the same, at one of its
    smaller rates or between two of them (none if it never gets so low, or so high).
    """
    every = {
        method: {rate: one_run(text, method, rate, 0) for rate in rates}
        for method, (_, rates) in METHODS.items()
    }
    table = {}
    for method, runs in every.items():
        best = min(runs, key=lambda rate: runs[rate][0])
        found = [one_run(text, method, best, seed) for seed in SEEDS]
        new, old = (
            (round(statistics.mean(v), 3), round(statistics.stdev(v), 4))
            for v in zip(*found, strict=True)
        )
        model = learner(method, 0)
        count = sum(p.numel() for p in trainable(model).values())
        same = at_equal_new_loss(every["full"], statistics.mean(n for n, _ in found))
        table[method] = (best, count, file_bytes(model), *new, *old, same)
    print_header(f"learned from {text}; every rate at seed 0")
    print(f"STORED_RATES_{text.upper()} =", every)
    print(f"STORED_LEARNED_{text.upper()} =", table, flush=True)
    return table


def at_equal_new_loss(runs: dict[float, tuple[float, float]], new: float) -> float | None:
    """The old loss, linear between the two runs whose new losses enclose `new`; by rising rate."""
    points = [runs[rate] for rate in sorted(runs)]
    for (first, old), (second, older) in zip(points, points[1:], strict=False):
        if second <= new <= first:
            return round(old + (older - old) * (first - new) / (first - second), 3)
    return None


def print_header(title: str) -> None:
    print(f"# {time.strftime('%Y-%m-%d')}, {processor()}, one thread: {title}")


def main() -> None:
    torch.set_num_threads(1)
    name, *arguments = sys.argv[1:] or ["learn", "wikipedia"]
    {"learn": learned_table}[name](*arguments)


if __name__ == "__main__":
    main()
