"""Adapters beside full fine-tuning: what TinyLM learns of another text, and what it forgets.

    OMP_NUM_THREADS=1 python -m benchmarks.adapters learn wikipedia    30 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters learn asv          30 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters change             5 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters starts             5 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters merging            3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters steps              3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.adapters short              3 CPU minutes

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

from benchmarks.measuring import cpu_seconds, extra_bytes, in_a_fresh_process
from benchmarks.structured import processor
from course_lib.data.batches import random_windows
from course_lib.data.text import HELD_OUT_EVERY, bible_chapters, split, wikipedia_articles
from course_lib.formats.codebook import NF4
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import every_linear, quantize_model
from course_lib.language_models.qlora import qlora
from course_lib.low_rank.adapters import (
    adapter_tensors,
    add_adapters,
    load_adapters,
    merged,
    trainable,
    unmerged,
)
from course_lib.measure.quality import quality
from course_lib.measure.yardstick import EVERY, FIRST, tiny_quality
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights
from course_lib.models.pretrained import smollm2, tiny
from course_lib.models.training import (
    follow_rate,
    make_optimizers,
    next_token_loss,
    rate_factor,
    train,
)
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


def lora(rank: int, alpha: float = ALPHA) -> Learner:
    return lambda model, generator: add_adapters(model, rank, alpha, generator)


def all_linear(model: Llama, _: torch.Generator) -> Llama:
    names = linear_weights(model).keys()
    return only(model, lambda name, _: name in names)


LAST = "blocks.3.mlp.down.weight"  # 98,304 numbers; with the norms 100,032, and LoRA 8 108,544
METHODS: dict[str, tuple[Learner, tuple[float, ...]]] = {
    "full": (lambda m, _: only(m, lambda *_: True), (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
    "LoRA 8": (lora(8), (1e-3, 3e-3, 1e-2, 3e-2)),
    "LoRA 1": (lora(1), (3e-3, 1e-2, 3e-2)),
    "LoRA 32": (lora(32), (3e-3, 1e-2, 3e-2)),
    "linear layers": (all_linear, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
    "QLoRA 8": (lambda m, g: qlora(m, NF4, 8, ALPHA, g), (3e-3, 1e-2)),
    "last matrix, norms": (lambda m, _: only(m, lambda n, p: n == LAST or p.dim() == 1),
                           (1e-3, 3e-3, 1e-2, 3e-2)),
    "norms": (lambda m, _: only(m, lambda n, p: p.dim() == 1), (3e-3, 1e-2, 3e-2, 1e-1)),
    **{f"LoRA {r}": (lora(r), (3e-3, 1e-2)) for r in (2, 4, 16)},
    "QLoRA 8, even levels": (lambda m, g: qlora(m, EVEN, 8, ALPHA, g), (3e-3, 1e-2)),
}  # fmt: skip
SCALES: dict[str, tuple[Learner, tuple[float, ...]]] = {  # α / r another: 1 / √r, × 4, / 4
    "LoRA 32, alpha 90.5": (lora(32, ALPHA * 32**0.5), (1e-3, 3e-3, 1e-2)),
    "LoRA 8, alpha 64": (lora(8, 64.0), (1e-3, 3e-3)),
    "LoRA 8, alpha 4": (lora(8, 4.0), (1e-2, 3e-2)),
}

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
    make, _ = (METHODS | SCALES)[method]
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

    The last figures: the old loss of full fine-tuning, and of fine-tuning the linear layers, where
    their new loss is the same: between two of their smaller rates (None: outside of them).
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
        same = [at_equal_new_loss(every[name], new[0]) for name in ("full", "linear layers")]
        table[method] = (best, count, file_bytes(model), *new, *old, *same)
    print_header(f"learned from {text}; every rate at seed 0")
    print(f"STORED_RATES_{text.upper()} =", every)
    print(f"STORED_LEARNED_{text.upper()} =", table, flush=True)
    return table


def scales_table(text: str = "wikipedia") -> dict[str, dict[float, tuple[float, float]]]:
    """Method -> rate -> new and old loss at seed 0, with α / r another than in the other tables."""
    table = {m: {r: one_run(text, m, r, 0) for r in rates} for m, (_, rates) in SCALES.items()}
    print_header(f"other scales, learned from {text}")
    print(f"STORED_SCALES_{text.upper()} =", table, flush=True)
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


# ---------------------------------------------------------------- is the change of low rank?


def energy(matrices: list[Tensor], first: int = 8) -> float:
    """The share of the squares' sum that lies in each matrix's first directions, their mean."""
    values = [torch.linalg.svdvals(matrix).square() for matrix in matrices]
    return statistics.mean((v[:first].sum() / v.sum()).item() for v in values)


def of_rank(change: Tensor, rank: int) -> Tensor:
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    return u[:, :rank] * s[:rank] @ v[:rank]


def by_muon(text: str, rates: tuple[float, ...] = (0.002, 0.005, 0.02)) -> tuple[float, Llama]:
    """All of TinyLM trained as the house does, at the best rate of Muon's; AdamW's is 1e-3."""
    found = {}
    for rate in rates:
        model = learner("full", 0)
        optimizers = make_optimizers(model)
        for optimizer, its in zip(optimizers, (rate, 1e-3), strict=True):
            optimizer.param_groups[0]["lr"] = its
        schedules = follow_rate(optimizers, lambda step: rate_factor(step, STEPS))
        train(model, windows(text, 0, STEPS), next_token_loss, optimizers, schedules, longest=1.0)
        found[rate] = model
    best = min(found, key=lambda rate: new_and_old(found[rate], text)[0])
    return best, found[best]


@torch.no_grad()
def truncations(base: Llama, tuned: Llama, text: str) -> dict[int | None, tuple[float, float]]:
    """Rank of what is kept of each linear layer's change -> new and old loss; None is all of it.

    What else has learned (the embedding, norms) stays.
    """
    found = {None: new_and_old(tuned, text)}
    for rank in (0, *RANKS, 64):
        cut = copy.deepcopy(tuned)
        for name, weight in linear_weights(cut).items():
            start = linear_weights(base)[name]
            weight.copy_(start + of_rank(weight - start, min(rank, *weight.shape)))
        found[rank] = new_and_old(cut, text)
    return {rank: rounded(pair) for rank, pair in found.items()}


def change_table(text: str = "wikipedia") -> dict[str, tuple]:
    """How -> rate, share of the change in 8 directions, its sizes beside W's, loss when truncated.

    Two sizes: ‖ΔW‖ / ‖W‖ in the Frobenius norm and in the spectral norm, means over the layers.
    """
    base, table = tiny()[0], {}
    linear = linear_weights(base)
    drawn = torch.Generator().manual_seed(0)
    noise = [torch.randn(weight.shape, generator=drawn) for weight in linear.values()]
    print_header(f"the change of fine-tuning on {text}")
    print(f"# in 8 directions: W {energy(list(linear.values())):.3f}, noise {energy(noise):.3f}")
    for name in ("full", "linear layers", "linear layers, a third of the rate", "LoRA 8", "Muon"):
        if name == "Muon":
            rate, tuned = by_muon(text)
        else:
            method = name.partition(",")[0]
            runs = {r: one_run(text, method, r, 0) for r in METHODS[method][1]}
            rate = min(runs, key=lambda r: runs[r][0]) / (3 if "third" in name else 1)
            tuned = learner(method, 0)
            fine_tune(tuned, text, rate, 0)
        tuned = merged(tuned)
        changes = {n: (w - linear[n]).detach() for n, w in linear_weights(tuned).items()}
        sizes = [
            round(
                statistics.mean((norm(c) / norm(linear[n])).item() for n, c in changes.items()), 3
            )
            for norm in (torch.linalg.matrix_norm, lambda m: torch.linalg.matrix_norm(m, 2))
        ]
        table[name] = (
            rate, round(energy(list(changes.values())), 3), *sizes, truncations(base, tuned, text)
        )  # fmt: skip
        print(f"# {name}: {table[name]}", flush=True)
    print(f"STORED_CHANGE_{text.upper()} =", table, flush=True)
    return table


# ---------------------------------------------------------------- fewer steps


def short_table(text: str = "wikipedia", rate: float = 3e-3) -> dict[int, tuple[float, ...]]:
    """Steps of full fine-tuning at a large rate -> new loss, its spread, old loss, its spread."""
    table = {}
    for steps in (30, 40, 50):
        found = []
        for seed in range(3):
            model = learner("full", seed)
            fine_tune(model, text, rate, seed, steps)
            found.append(new_and_old(model, text))
        table[steps] = tuple(
            round(of(some), 4)
            for some in zip(*found, strict=True)
            for of in (statistics.mean, statistics.stdev)
        )
        print(f"# {steps} steps: {table[steps]}", flush=True)
    print_header(f"full fine-tuning in few steps on {text}, rate {rate:g}, three seeds")
    print(f"STORED_SHORT_{text.upper()} =", table, flush=True)
    return table


# ---------------------------------------------------------------- where it starts


def started(model: nn.Module, left: float | None, right: float | None, seed: int) -> nn.Module:
    """The adapters with other factors at the start: normal of these sizes; None leaves them."""
    generator = torch.Generator().manual_seed(seed + 100)
    for name, parameter in trainable(model).items():
        size = left if name.endswith("left") else right
        if size is not None:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(size * drawn)
    return model


def starts_table(text: str = "asv", rate: float = 1e-2) -> dict[str, tuple[float, ...]]:
    """Start -> new loss before and after training, old loss after."""
    sizes = {  # of B and A
        "A random, B 0": (None, None),
        "both 0": (0.0, 0.0),
        "A 0, B random": (8**-0.5, 0.0),
        "both random": (8**-0.5, None),
    }
    table = {}
    for name, (left, right) in sizes.items():
        model = started(learner("LoRA 8", 0), left, right, 0)
        before, _ = new_and_old(model, text)
        fine_tune(model, text, rate, 0)
        table[name] = tuple(round(v, 3) for v in (before, *new_and_old(model, text)))
        print(f"# {name}: {table[name]}", flush=True)
    print_header(f"LoRA 8 from four starts on {text}, rate {rate:g}")
    print(f"STORED_STARTS_{text.upper()} =", table, flush=True)
    return table


# ---------------------------------------------------------------- merging


def merging_table(text: str = "asv") -> dict[str, tuple]:
    """Where the change goes -> share of it that rounding loses, new and old loss, W that returns.

    The share is the norm of what merging missed over that of the change, of all layers together;
    the last figure, of weights that are what they were once the change is taken out again.
    """
    base, _ = tiny()
    runs = {r: one_run(text, "LoRA 8", r, 0) for r in METHODS["LoRA 8"][1]}
    rate = min(runs, key=lambda r: runs[r][0])
    tuned = learner("LoRA 8", 0)
    fine_tune(tuned, text, rate, 0)
    tensors = adapter_tensors(tuned)
    table = {"beside a float32 base": (0.0, *rounded(new_and_old(tuned, text)), 1.0)}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        model = copy.deepcopy(base).to(dtype)
        one = merged(load_adapters(model, tensors))
        back = unmerged(one, tensors)
        same = [a == b for a, b in pairs(linear_weights(back), linear_weights(model))]
        share = statistics.mean(s.float().mean().item() for s in same)
        held = {n: w.double() for n, w in linear_weights(model).items()}
        wanted = {n: held[n] + linear_change(tensors, n) for n in held}
        missed = relative(linear_weights(one), wanted, held)
        losses = rounded(new_and_old(one.float(), text))
        table[f"into {str(dtype)[6:]}"] = (round(missed, 5), *losses, round(share, 3))
    for name, scheme in {"NF4": NF4, "even levels": EVEN}.items():
        table |= into_four_bits(name, scheme, text, rate)
    print_header(f"LoRA 8 merged, learned from {text}, rate {rate:g}")
    print(f"STORED_MERGED_{text.upper()} =", table, flush=True)
    return table


def into_four_bits(name: str, scheme: object, text: str, rate: float) -> dict[str, tuple]:
    """QLoRA 8 beside its base, and merged and quantized again; the start as well."""
    method = {"NF4": "QLoRA 8", "even levels": "QLoRA 8, even levels"}[name]
    start, tuned = learner(method, 0), learner(method, 0)
    fine_tune(tuned, text, rate, 0)
    one = merged(tuned)
    again = quantize_model(one, every_linear(one, scheme))
    held = linear_weights(merged(start))
    missed = relative(linear_weights(again), linear_weights(one), held)
    return {
        f"{name}, untrained": (0.0, *rounded(new_and_old(start, text)), None),
        f"beside {name}": (0.0, *rounded(new_and_old(tuned, text)), None),
        f"into {name} again": (round(missed, 3), *rounded(new_and_old(again, text)), None),
    }


def linear_change(tensors: dict[str, Tensor], weight: str) -> Tensor:
    """(α / r) B A of one layer, float64."""
    left, right, alpha = (
        tensors[weight.removesuffix("weight") + part].double()
        for part in ("left", "right", "alpha")
    )
    return left @ right * (alpha / len(right))


def pairs(some: dict[str, Tensor], others: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    return ((tensor, others[name]) for name, tensor in some.items())


def relative(
    found: dict[str, Tensor], wanted: dict[str, Tensor], start: dict[str, Tensor]
) -> float:
    """‖found − wanted‖ / ‖wanted − start‖ over all layers."""
    off = sum((f.double() - w.double()).square().sum() for f, w in pairs(found, wanted))
    change = sum((s.double() - w.double()).square().sum() for s, w in pairs(start, wanted))
    return (off / change).sqrt().item()


def rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in values)


# ---------------------------------------------------------------- time and memory of a step


def steps_table(repeats: int = 5) -> dict[str, tuple]:
    """Method -> CPU seconds of a step, extra bytes at its peak, bytes of gradients and optimizer.

    Of TinyLM on 8 windows of 256 tokens, and of SmolLM2 on one window of 128.
    """
    table = {}
    for model, shape in (("TinyLM", (8, 256)), ("SmolLM2", (1, 128))):
        methods = ("full", "linear layers", "LoRA 8", "LoRA 32", "QLoRA 8")
        steppers = {method: stepper(model, method, shape) for method in methods[:5]}
        seconds = cpu_seconds({n: s for n, (s, _) in steppers.items()}, repeats)
        held = {name: optimizer_bytes(state) for name, (_, state) in steppers.items()}
        del steppers
        for method in methods:
            peak = in_a_fresh_process(step_peak, model, method, shape)
            ratio = round(seconds[method] / seconds["full"], 2)
            table[model, method] = (
                round(seconds[method], 3),
                ratio,
                round(peak / 1e6),
                held[method],
            )
            print(f"# {model}, {method}: {table[model, method]}", flush=True)
    print_header("a step: CPU seconds, ratio to full, peak MB beyond the model, bytes of AdamW")
    print("STORED_STEPS =", table, flush=True)
    return table


def stepper(name: str, method: str, shape: tuple[int, int]) -> tuple[Callable, object]:
    """A function that makes one step, and the optimizer that it uses."""
    model, _ = tiny() if name == "TinyLM" else smollm2()
    tuned = METHODS[method][0](model, torch.Generator().manual_seed(0))
    del model
    optimizer = torch.optim.AdamW(trainable(tuned).values(), lr=1e-5)
    tokens = torch.randint(2000, (shape[0], shape[1] + 1))
    batch = [(tokens[:, :-1], tokens[:, 1:])]
    return lambda: train(tuned, batch, next_token_loss, [optimizer]), optimizer


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    return sum(t.nbytes for state in optimizer.state.values() for t in state.values())


def step_peak(name: str, method: str, shape: tuple[int, int]) -> int:
    """What the first two steps need beyond the model: gradients, AdamW's state, activations."""
    torch.set_num_threads(1)
    step, _ = stepper(name, method, shape)
    return extra_bytes(lambda: (step(), step()))


def main() -> None:
    torch.set_num_threads(1)
    name, *arguments = sys.argv[1:] or ["learn", "wikipedia"]
    tables = {"learn": learned_table, "change": change_table, "starts": starts_table}
    tables |= {"scales": scales_table, "short": short_table}
    tables |= {"merging": merging_table, "steps": steps_table}
    tables[name](*arguments)


if __name__ == "__main__":
    main()
