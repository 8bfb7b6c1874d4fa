"""Structured and dynamic pruning on the clock, and layers of SmolLM2 dropped by three rules.

    OMP_NUM_THREADS=1 python -m benchmarks.structured             70 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.structured layers      424 choices of 1.4 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.structured alone       3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.structured scores      80 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.structured texts       60 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.structured healing     6 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.structured n_of_m      30 CPU seconds

Times are CPU seconds of one thread; the sides take turns, and the figure is the median. What is
smaller is cut for real, what is masked has zeros in the same places.
"""

import copy
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measuring import cpu_seconds
from course_lib.data.text import bible_chapters, split
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.formats.two_of_four import TwoOfFour
from course_lib.measure.quality import quality
from course_lib.measure.yardstick import (
    EVERY,
    FIRST,
    smollm2_calibration,
    smollm2_quality,
    tiny_calibration,
    tiny_quality,
)
from course_lib.models.layers import layer_influence, view_without_layers
from course_lib.models.llama import MLP, Llama, LlamaConfig
from course_lib.models.parts import embed, record_inputs
from course_lib.models.pretrained import smollm2, tiny
from course_lib.models.training import next_token_loss
from course_lib.pruning.adaptive import highest_units
from course_lib.pruning.by_token import Rule, run_by_token
from course_lib.pruning.contextual import contextual_products, fetched, top_units
from course_lib.pruning.decoder import shrink_mlps
from course_lib.pruning.depth import greedy_order, influence_order, layers_off, run_losses
from course_lib.pruning.early_exit import generate_early
from course_lib.pruning.group_scores import mlp_scores
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.n_of_m import n_of_m_decoder
from course_lib.pruning.skipping import by_routers
from course_lib.pruning.unit_order import keep_one_by_one
from course_lib.redundancy.removal import without_units

MOST = 8  # layers that go
REPEATS = 15
WIDE = LlamaConfig(
    vocabulary=8, width=768, layers=1, heads=12, kv_heads=4, mlp_width=2048, context=64
)

# ---------------------------------------------------------------- layers of SmolLM2


def choosing_loss(model: Llama, windows: Tensor) -> Callable[[Llama], float]:
    """Nats per token of calibration windows; the model runs in bfloat16, which is faster here."""
    half = Llama(model.config).requires_grad_(False)
    half.load_state_dict(model.state_dict())
    half = half.bfloat16()
    number = {id(block): half.blocks[i] for i, block in enumerate(model.blocks)}
    inputs, targets = windows[:, :-1], windows[:, 1:]

    def loss(view: Llama) -> float:
        stay = [number[id(block)] for block in view.blocks]
        gone = [all(block is not kept for kept in stay) for block in half.blocks]
        small = view_without_layers(half, torch.tensor(gone))
        return next_token_loss(lambda x: small(x).float(), (inputs, targets)).item()

    return loss


def print_row(model: Llama, tokenizer, rule: str, gone: list[int], losses: dict) -> None:
    """The held-out perplexity without these layers; each choice is measured once."""
    key = tuple(sorted(gone))
    if key not in losses:
        view = view_without_layers(model, layers_off(gone, len(model.blocks)))
        losses[key] = smollm2_quality(view, tokenizer)
    found = losses[key]
    numbers = ", ".join(map(str, gone))
    print(f"{rule:10} {len(gone)}  {found.perplexity:9.2f}  {found.bits_per_byte:7.3f}", end="")
    print(f"   {numbers}", flush=True)


@torch.no_grad()
def layers_table() -> None:
    """Drop 1 … 8 layers: chosen on other articles, measured on 4,096 tokens."""
    model, tokenizer = smollm2()
    windows = smollm2_calibration(tokenizer, 2)
    loss, losses = choosing_loss(model, windows), {}
    print(f"SmolLM2, {time.strftime('%Y-%m-%d')}, {processor()}; layers are numbered from 0")
    print("rule       n  perplexity  bits/byte   layers that go", flush=True)
    print_row(model, tokenizer, "dense", [], losses)
    order = influence_order(model, windows)
    for count in range(1, MOST + 1):
        print_row(model, tokenizer, "influence", order[:count], losses)
    for count in range(1, MOST + 1):
        start = int(run_losses(model, count, loss).argmin())
        print_row(model, tokenizer, "run", list(range(start, start + count)), losses)
    order, _ = greedy_order(model, MOST, loss)
    for count in range(1, MOST + 1):
        print_row(model, tokenizer, "greedy", order[:count], losses)


def skips(layer: int, tokens: slice) -> Rule:
    """Tokens at these places of a window skip one layer; they still give it keys and values."""

    def rule(number: int, x: Tensor) -> Tensor:
        inside = torch.ones(x.shape[:2], dtype=torch.bool)
        inside[:, tokens] = number != layer
        return inside

    return rule


@torch.no_grad()
def alone_table() -> dict:
    """Layer of SmolLM2 -> influence; nats more if all tokens skip it, the first one, the others."""
    model, tokenizer = smollm2()
    windows = smollm2_calibration(tokenizer, 2)
    influence = layer_influence(model, windows)
    model, places, table = model.bfloat16(), (slice(None), slice(1), slice(1, None)), {}

    def loss(rule: Rule) -> float:
        logits = run_by_token(model, windows[:, :-1], rule).logits[:, 8:].float()
        return F.cross_entropy(logits.flatten(0, 1), windows[:, 9:].flatten()).item()

    dense = loss(by_routers({}))
    for layer in range(len(model.blocks)):
        rises = [round(loss(skips(layer, some)) - dense, 3) for some in places]
        table[layer] = (round(influence[layer].item(), 4), *rises)
        print(f"    {layer}: {table[layer]},", flush=True)
    return table


def processor() -> str:
    """The processor's name, and PyTorch's version."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor()}, PyTorch {torch.__version__}"


# ---------------------------------------------------------------- tables of TinyLM


def unit_masks(model: Llama, text: Tensor, keep: float) -> dict[str, list[Tensor]]:
    """Which units of each MLP stay, by every score; the last rule asks again after each removal."""
    scores = mlp_scores(model, text[:, :-1], text[:, 1:])
    dice = torch.Generator().manual_seed(0)
    for draw in ("random", "random, again", "random, once more"):
        scores[draw] = [torch.rand(len(score), generator=dice) for score in scores["norm"]]
    masks = {name: highest_units(score, [keep] * len(score)) for name, score in scores.items()}
    downs = [block.mlp.down for block in model.blocks]
    masks["one by one"] = [
        keep_one_by_one(down.weight, layer_hessian(x), round(keep * down.in_features))
        for down, x in zip(downs, record_inputs(model, text, downs), strict=True)
    ]
    return masks


@torch.no_grad()
def scores_table(keeps: tuple[float, ...] = (0.8, 0.6, 0.4), windows: int = 32) -> dict:
    """(rule, share of units that stays) -> bits per byte cut, and refitted."""
    model, tokenizer = tiny()
    text, table = tiny_calibration(tokenizer, windows), {}
    for keep in keeps:
        for rule, masks in unit_masks(model, text, keep).items():
            both = shrink_mlps(model, masks), shrink_mlps(model, masks, text)
            found = tuple(round(tiny_quality(m, tokenizer).bits_per_byte, 4) for m in both)
            table[rule, keep] = found
            print(f"    {(rule, keep)}: {found},", flush=True)
    return table


@torch.no_grad()
def texts_table(firsts: tuple[int, ...] = (FIRST, 2, 11), keep: float = 0.6) -> dict:
    """Rule -> bits per byte, refitted, on every 14th held-out chapter from each of these on."""
    model, tokenizer = tiny()
    chapters = split(bible_chapters("kjv"))[1].split("\n\n")
    stretches = ["\n\n".join(chapters[first::EVERY]) for first in firsts]
    calibration, table = tiny_calibration(tokenizer), {}
    masks = {"dense": None} | unit_masks(model, calibration, keep)
    for rule, stay in masks.items():
        small = model if stay is None else shrink_mlps(model, stay, calibration)
        found = [quality(small, tokenizer, text).bits_per_byte for text in stretches]
        table[rule] = tuple(round(value, 4) for value in found)
        print(f"    {rule!r}: {table[rule]},", flush=True)
    return table


HEALING_RATE = 1e-3


def healed(
    model: Llama,
    windows: tuple[Tensor, Tensor],
    steps: int,
    teacher: Llama | None,
    seed: int,
    rate: float = HEALING_RATE,
) -> Llama:
    """A copy, trained on 8 windows a step; the rate of AdamW falls to zero."""
    model = copy.deepcopy(model).requires_grad_(True)
    dice = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(windows[0]), generator=dice) for _ in range(1 + steps)])
    batches = [(windows[0][rows], windows[1][rows]) for rows in order.split(8)[:steps]]

    def loss(logits: Tensor, answer: Tensor | None, targets: Tensor) -> Tensor:
        if answer is not None:
            return soft_target_loss(logits, answer)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B, T, V) -> (B · T, V)

    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0)
    with torch.enable_grad():
        distill(model, batches, loss, [optimizer], teacher, lambda k: 1 - k / steps)
    return model.requires_grad_(False)


def healing_table(steps: int = 40, seeds: int = 3, windows: int = 512) -> dict:
    """What is trained, by whom -> bits per byte before and after, for each seed."""
    model, tokenizer = tiny()
    text, table = tiny_calibration(tokenizer), {}
    masks = unit_masks(model, text, 0.6)["output error"]
    text_windows = tiny_calibration(tokenizer, windows)
    pairs = text_windows[:, :-1], text_windows[:, 1:]
    sides = {
        "cut, text": (shrink_mlps(model, masks), None),
        "cut, teacher": (shrink_mlps(model, masks), model),
        "refitted, text": (shrink_mlps(model, masks, text), None),
        "refitted, teacher": (shrink_mlps(model, masks, text), model),
        "dense, text": (model, None),
        "dense, text, rate / 10": (model, None),
    }
    for name, (start, teacher) in sides.items():
        rate = HEALING_RATE / 10 if "rate" in name else HEALING_RATE
        ends = [healed(start, pairs, steps, teacher, seed, rate) for seed in range(seeds)]
        found = [round(tiny_quality(m, tokenizer).bits_per_byte, 4) for m in (start, *ends)]
        table[name] = tuple(found)
        print(f"    {name!r}: {tuple(found)},", flush=True)
    return table


def as_in_a_file(model: Llama, scheme) -> tuple[int, Llama]:
    """Bytes of the blocks' matrices in a file, headers aside, and what that file gives back."""
    schemes = every_linear(model, scheme)
    packed = pack_model(model.half() if scheme in FLOAT16 else model, schemes)
    parts = [t for name, t in packed.items() if name.split(":")[0] in schemes]
    loaded = unpack_model(packed, model).float()
    return sum(t.numel() * t.element_size() for t in parts), loaded


FLOAT16 = (torch.float16, TwoOfFour())


@torch.no_grad()
def n_of_m_table(windows: int = 32) -> dict:
    """TinyLM's linear layers with 2 of 4 -> bytes of their parts, bits per byte."""
    model, tokenizer = tiny()
    text, table = tiny_calibration(tokenizer, windows), {}
    three, four = (Format(bits, symmetric=True) for bits in (3, 4))
    sparse = n_of_m_decoder(model, 2, 4, text)
    half = TwoOfFour(Scheme(four, granularity=32))  # of 64 weights 32 stay
    rows = {
        "dense, float16": (model, torch.float16),
        "dense, 4 bits": (model, Scheme(four, granularity=64)),
        "dense, 3 bits": (model, Scheme(three, granularity=64)),
        "2 of 4, float16": (n_of_m_decoder(model, 2, 4), TwoOfFour()),
        "2 of 4, refitted, float16": (sparse, TwoOfFour()),
        "2 of 4, refitted, 4 bits": (sparse, half),
    }
    for name, (made, scheme) in rows.items():
        count, loaded = as_in_a_file(copy.deepcopy(made), scheme)
        table[name] = count, round(tiny_quality(loaded, tokenizer).bits_per_byte, 4)
        print(f"    {name!r}: {table[name]},", flush=True)
    return table


# ---------------------------------------------------------------- time


Sides = dict[str, Callable]


def repeated(function: Callable, times: int) -> Callable:
    """One call of it is too short for the clock."""
    return lambda: [function() for _ in range(times)]


def report_ratios(
    title: str, sides: dict[str, Callable], goals: dict[str, str], times: int
) -> None:
    """Microseconds of each side, and their ratio to the first."""
    seconds = cpu_seconds({name: repeated(f, times) for name, f in sides.items()}, REPEATS)
    first = next(iter(seconds.values()))
    print(title)
    for name, value in seconds.items():
        print(f"    {name:44} {value / times * 1e6:10.0f} µs   {value / first:6.3f}", end="")
        print(f"   (goal {goals[name]})" if name in goals else "", flush=True)


def half_of_the_units() -> None:
    """A block whose MLP lost half of its units, beside zeros in their places and beside 2 of 4."""
    torch.manual_seed(0)
    dense = Llama(WIDE).requires_grad_(False)
    off = torch.rand(1, WIDE.mlp_width).argsort() < WIDE.mlp_width // 2
    models = {
        "dense": dense,
        "half of the units gone": shrink_mlps(dense, list(~off)),
        "the same units masked": without_units(dense, off),
        "2 of 4, by dense kernels": n_of_m_decoder(dense, 2, 4),
    }
    weights = [sum(p.numel() for p in m.blocks.parameters()) for m in models.values()]
    print(
        f"A block of width 768 has {weights[0]:,} weights, the smaller one {weights[1]:,}", end=""
    )
    print(f": {weights[1] / weights[0]:.3f}")
    goals = {
        "half of the units gone": "≤ 0.65",
        "the same units masked": "1.0",
        "2 of 4, by dense kernels": "1.0",
    }
    for batch in (1, 64):
        tokens = torch.zeros(batch, 1, dtype=torch.long)
        x, cos, sin = embed(dense, tokens)
        given = (torch.randn_like(x), cos, sin)
        sides = {n: lambda m=m, g=given: m.blocks[0](*g) for n, m in models.items()}
        report_ratios(f"A block, batch {batch}, one token each", sides, goals, 100 // batch + 5)
        sides = {n: lambda m=m, x=given[0]: m.blocks[0].mlp(x) for n, m in models.items()}
        report_ratios(f"Its MLP alone, batch {batch}", sides, {}, 100 // batch + 5)


def depth_or_width() -> None:
    """TinyLM without a layer, and with as many weights less in its MLPs; then narrower still."""
    dense, tokenizer = tiny()
    text = tiny_calibration(tokenizer)
    scores = mlp_scores(dense, text[:8, :-1], text[:8, 1:])["contribution"]
    gone = view_without_layers(dense, layers_off([2], 4))  # the one that costs least
    models = {"dense": dense, "3 layers of 4": gone}
    for units in (341, 256, 192, 128):
        keep = highest_units(scores, [units / 512] * 4)
        models[f"{units} units of 512, refitted"] = shrink_mlps(dense, keep, text)
    print("TinyLM: weights of its blocks, bits per byte")
    for name, model in models.items():
        count = sum(p.numel() for p in model.blocks.parameters())
        loss = tiny_quality(model, tokenizer).bits_per_byte
        print(f"    {name:44} {count:10,}   {loss:6.3f}", flush=True)
    for batch, length in ((1, 1), (64, 1), (1, 256)):
        tokens = text[:1, :1].expand(batch, 1) if length == 1 else text[:1]
        sides = {n: lambda m=m, t=tokens: walk(m, t) for n, m in models.items()}
        report_ratios(f"TinyLM's blocks, {batch} × {length} tokens", sides, {}, 20)


def walk(model: Llama, tokens: Tensor) -> Tensor:
    """Through all blocks; the head, which all have, is left out."""
    x, cos, sin = embed(model, tokens)
    for block in model.blocks:
        x = block(x, cos, sin)
    return x


def units_by_token() -> None:
    """One token of an MLP of SmolLM2's size: all units, or a share, foretold and fetched."""
    torch.manual_seed(0)
    width, units, rank = 576, 1536, 64
    mlp = MLP(replace(WIDE, width=width, mlp_width=units, heads=9, kv_heads=3))
    mlp.requires_grad_(False)
    rows, x = mlp.down.weight.T.contiguous(), torch.randn(width)
    predictor = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, units))
    predictor.requires_grad_(False)

    def foretold(k: int) -> Tensor:
        chosen = predictor(x).topk(k, sorted=False).indices
        return fetched(mlp.gate.weight, mlp.up.weight, rows, x, chosen)

    def masked(k: int) -> Tensor:
        return mlp.down(torch.where(top_units(predictor(x), k), mlp.products(x), 0))

    sides: Sides = {"all units": lambda: mlp(x)}
    for share in (2, 4, 10):
        k = units // share
        needed = contextual_products(width, k, units, rank) / contextual_products(
            width, units, units
        )
        sides[f"1/{share} of them fetched, products {needed:.2f}"] = lambda k=k: foretold(k)
    sides["1/4 of them, the others thrown away"] = lambda: masked(units // 4)
    report_ratios("An MLP 576-1536, one token", sides, {}, 100)


def early_exits() -> None:
    """TinyLM goes on with a text, 32 + 64 tokens, one by one; the head is asked, or is not."""
    model, tokenizer = tiny()
    start = tiny_calibration(tokenizer, 1)[:, :32]
    settings = {
        "nobody is asked": (1.0, []),
        "asked after 1, 2 and 3, nobody is sure": (1.0, None),
        "asked after 1, 2 and 3, sure at 0.8": (0.8, None),
        "asked after 3, sure at 0.8": (0.8, [3]),
        "asked after 2, sure at 0.5": (0.5, [2]),
    }
    sides = {}
    for name, (threshold, asked) in settings.items():
        _, layers = generate_early(model, start, 64, threshold, asked)
        mean = sum(layers) / len(layers)
        sides[f"{name}: {mean:.2f} layers"] = lambda t=threshold, a=asked: generate_early(
            model, start, 64, t, a
        )
    report_ratios("TinyLM, 95 tokens one by one", sides, {}, 1)


def times() -> None:
    """Everything that is timed."""
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}, {torch.get_num_threads()} thread")
    half_of_the_units()
    depth_or_width()
    units_by_token()
    early_exits()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tables = {
        "layers": layers_table,
        "alone": alone_table,
        "scores": scores_table,
        "texts": texts_table,
        "healing": healing_table,
        "n_of_m": n_of_m_table,
    }
    tables.get(sys.argv[-1], times)()
