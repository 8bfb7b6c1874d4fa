"""Models of low rank: what each way loses at which budget, what breaks, bytes, times, spectra.

    OMP_NUM_THREADS=1 python -m benchmarks.factored tiny        3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.factored texts       9 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.factored bytes       1 CPU minute
    OMP_NUM_THREADS=1 python -m benchmarks.factored times       2 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.factored spectra     1 CPU minute; SmolLM2 3
    OMP_NUM_THREADS=1 python -m benchmarks.factored smollm2     40 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.factored broken      10 CPU minutes

Shares are those of the numbers of the blocks' linear layers; embedding and norms stay. Tables are
printed as a lesson stores them.
"""

import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from benchmarks.measuring import cpu_seconds
from course_lib.data.text import bible_chapters, split
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.low_rank.budgets import (
    even_ranks,
    numbers,
    ranks_by_energy,
    ranks_by_loss,
)
from course_lib.low_rank.decoder import (
    factor_decoder,
    layer_shapes,
    rank_losses,
)
from course_lib.low_rank.layers import FactoredLinear, replace_layer, with_factors
from course_lib.low_rank.output_aware import output_factors, output_spectrum, scaled_factors
from course_lib.low_rank.svd import Factors, saving_rank, truncated
from course_lib.measure.quality import quality
from course_lib.measure.size import size
from course_lib.measure.yardstick import (
    EVERY,
    FIRST,
    smollm2_calibration,
    smollm2_quality,
    tiny_calibration,
    tiny_quality,
    wikipedia_sample,
)
from course_lib.models.llama import Llama
from course_lib.models.moments import Moments
from course_lib.models.parts import STAGES, linear_weights, record_inputs, walk_blocks
from course_lib.models.pretrained import smollm2, tiny
from course_lib.models.training import next_token_loss
from course_lib.models.walk import Stage, treat_blocks
from course_lib.pruning.adaptive import highest_units
from course_lib.pruning.decoder import shrink_mlps
from course_lib.pruning.group_scores import mlp_scores

SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def processor() -> str:
    """Date, the processor's name, and PyTorch's version."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    day = time.strftime("%Y-%m-%d")
    return f"# {day}, {name or platform.processor()}, PyTorch {torch.__version__}"


def show(table: dict, key: object, found: object) -> None:
    """Into the table, and onto the screen as its line."""
    table[key] = found
    print(f"    {key!r}: {found},", flush=True)


# ---------------------------------------------------------------- ways to choose ranks and factors


def first(factors: Mapping[str, Factors], ranks: Mapping[str, int]) -> dict[str, Factors]:
    """The first columns of B and rows of A."""
    return {n: Factors(factors[n].left[:, :r], factors[n].right[:r]) for n, r in ranks.items()}


@dataclass
class Known:
    """A model, a calibration text (B, T), and what is found out from both, once each."""

    model: Llama
    text: Tensor
    measured: int = 4  # a window out of so many is what losses are measured on
    progress: bool = False

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        return layer_shapes(self.model)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Of what each layer of the model as it is is given."""
        found = {}

        def look(stage: Stage) -> None:
            found.update(dict.fromkeys(stage.weight_names, stage.moments))

        treat_blocks(self.model, self.text, look, progress=self.progress)
        return found

    @cached_property
    def spectra(self) -> dict[str, Tensor]:
        """Of the outputs."""
        weight = self.model.get_parameter
        return {n: output_spectrum(weight(n), m.gram) for n, m in self.moments.items()}

    @cached_property
    def relative(self) -> dict[str, Tensor]:
        return {name: s / s.norm() for name, s in self.spectra.items()}

    def loss(self, model: Llama) -> float:
        """Nats per token on some of the windows."""
        windows = self.text[:: self.measured]
        return next_token_loss(model, (windows[:, :-1], windows[:, 1:])).item()

    def losses(self, parts: tuple[int, ...]) -> dict[str, dict[int, float]]:
        """Of each layer at its largest saving rank divided by each of these."""
        ranks = {
            n: sorted({max(1, saving_rank(*s) // p) for p in parts}) for n, s in self.shapes.items()
        }
        return rank_losses(self.model, ranks, self.text, self.loss, self.progress)

    @cached_property
    def two_losses(self) -> dict[str, dict[int, float]]:
        return self.losses((8, 2))

    @cached_property
    def dense(self) -> float:
        return self.loss(self.model)

    def budget(self, share: float) -> int:
        return round(share * numbers(self.shapes, {}))

    # ranks

    def even(self, share: float) -> dict[str, int]:
        return even_ranks(self.shapes, self.budget(share))

    def by_energy(self, share: float, spectra: dict[str, Tensor] | None = None) -> dict[str, int]:
        chosen = self.relative if spectra is None else spectra
        return ranks_by_energy(chosen, self.shapes, self.budget(share))

    def by_loss(self, share: float) -> dict[str, int]:
        return ranks_by_loss(
            self.two_losses, self.dense, self.relative, self.shapes, self.budget(share)
        )

    # models

    @cached_property
    def scaled_whole(self) -> dict[str, Factors]:
        """ASVD, columns scaled by (mean |x|)^½, at full rank: the first columns are lower ranks."""
        weight, moments = self.model.get_parameter, self.moments
        return {
            n: scaled_factors(weight(n), moments[n].mean_abs ** 0.5, min(shape))
            for n, shape in self.shapes.items()
        }

    @cached_property
    def aware_whole(self) -> dict[str, Factors]:
        """Of the outputs, on the inputs that the model as it is gives, at full rank."""
        weight, moments = self.model.get_parameter, self.moments
        return {
            n: output_factors(weight(n), moments[n].gram, min(shape))
            for n, shape in self.shapes.items()
        }

    def scaled(self, ranks: Mapping[str, int]) -> Llama:
        return with_factors(self.model, first(self.scaled_whole, ranks))

    def aware(self, ranks: Mapping[str, int]) -> Llama:
        return with_factors(self.model, first(self.aware_whole, ranks))

    def walked(self, ranks: Mapping[str, int]) -> Llama:
        """On the inputs that the factored layers give; nothing is made up for."""
        small = with_factors(self.model, {})

        def treat(stage: Stage) -> None:
            for name, weight in zip(stage.names, stage.weight_names, strict=True):
                if weight in ranks:
                    whole = stage.block.get_submodule(name).weight
                    factors = output_factors(whole, stage.moments.gram, ranks[weight])
                    replace_layer(stage.block, name, factors)

        treat_blocks(small, self.text, treat)
        return small

    def made_up(self, ranks: Mapping[str, int]) -> Llama:
        return factor_decoder(self.model, ranks, self.text, True, self.progress)

    def jointly(self, share: float) -> Llama:
        """Query, key and value are one matrix, so are gate and up: they share A. Even shares."""
        shapes = {}
        for number in range(len(self.model.blocks)):
            for names in STAGES:
                full = [f"blocks.{number}.{name}.weight" for name in names]
                shapes[tuple(full)] = (
                    sum(self.shapes[n][0] for n in full),
                    self.shapes[full[0]][1],
                )
        factors = {}
        for names, rank in even_ranks(shapes, self.budget(share)).items():
            whole = torch.cat([self.model.get_parameter(n) for n in names])  # (O + O' + …, I)
            left, right = output_factors(whole, self.moments[names[0]].gram, rank)
            parts = left.split([self.shapes[n][0] for n in names])
            factors |= {n: Factors(part, right) for n, part in zip(names, parts, strict=True)}
        return with_factors(self.model, factors)


WAYS: dict[str, Callable[[Known, float], Llama]] = {
    "plain": lambda k, share: factor_decoder(k.model, k.even(share)),
    "ASVD": lambda k, share: k.scaled(k.even(share)),
    "outputs": lambda k, share: k.aware(k.even(share)),
    "outputs, stacked": lambda k, share: k.jointly(share),
    "outputs, on treated inputs": lambda k, share: k.walked(k.even(share)),
    "made up": lambda k, share: k.made_up(k.even(share)),
    "made up, absolute energy": lambda k, share: k.made_up(k.by_energy(share, k.spectra)),
    "made up, energy": lambda k, share: k.made_up(k.by_energy(share)),
    "made up, loss": lambda k, share: k.made_up(k.by_loss(share)),
    "plain, loss": lambda k, share: factor_decoder(k.model, k.by_loss(share)),
    "outputs, loss": lambda k, share: k.aware(k.by_loss(share)),
}


def tiny_table(shares: tuple[float, ...] = SHARES) -> dict:
    """Way -> bits per byte at each share of the numbers."""
    model, tokenizer = tiny()
    known, table = Known(model, tiny_calibration(tokenizer)), {}
    print(f"{processor()}; bits per byte at {shares} of the numbers")
    print(f"    # dense: {tiny_quality(model, tokenizer).bits_per_byte:.4f}")
    for name, way in WAYS.items():
        models = (way(known, share) for share in shares)
        found = [round(tiny_quality(m, tokenizer).bits_per_byte, 4) for m in models]
        show(table, name, tuple(found))
    return table


def random_windows(tokenizer: Tokenizer, seed: int, windows: int) -> Tensor:
    """Of the chapters that TinyLM was trained on: (windows, 256)."""
    tokens = torch.tensor(tokenizer.encode(split(bible_chapters("kjv"))[0]).ids)
    draw = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - 256, (windows, 1), generator=draw)
    return tokens[starts + torch.arange(256)]


TEXTS = ("outputs", "made up", "made up, energy", "made up, loss", "outputs, loss")


def texts_table(shares: tuple[float, ...] = (0.8, 0.5), seeds: int = 5) -> dict:
    """(way, share, windows) -> bits per byte for each draw of calibration windows."""
    model, tokenizer = tiny()
    table, chapters = {}, split(bible_chapters("kjv"))[1].split("\n\n")
    print(f"{processor()}; a number for each of {seeds} draws")
    for windows in (4, 8, 32, 128):
        drawn = [Known(model, random_windows(tokenizer, s, windows)) for s in range(seeds)]
        for share in shares:
            for name in TEXTS:
                models = [WAYS[name](known, share) for known in drawn]
                found = [round(tiny_quality(m, tokenizer).bits_per_byte, 4) for m in models]
                show(table, (name, share, windows), tuple(found))
    known = Known(model, tiny_calibration(tokenizer))
    stretches = ["\n\n".join(chapters[first::EVERY]) for first in (FIRST, 2, 11)]
    for name in ("dense", *TEXTS):
        small = model if name == "dense" else WAYS[name](known, 0.5)
        found = [round(quality(small, tokenizer, text).bits_per_byte, 4) for text in stretches]
        show(table, (name, "stretches"), tuple(found))
    return table


# ---------------------------------------------------------------- bytes


def in_a_file(model: Llama, scheme: Scheme | torch.dtype) -> tuple[int, Llama]:
    """The bytes of a file, its embedding in float16, and the model that it gives back."""
    schemes = every_linear(model, scheme) | {"embedding.weight": torch.float16}
    packed = pack_model(model, schemes)
    return size(packed).bytes, unpack_model(packed, model)


def bytes_table() -> dict:
    """(what, share that stays, bits) -> kilobytes of the file, bits per byte."""
    model, tokenizer = tiny()
    text, table = tiny_calibration(tokenizer), {}
    known = Known(model, text)
    scores = mlp_scores(model, text[:, :-1], text[:, 1:])["output error"]
    made = {("whole", 1.0): model}
    for share in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
        made["factored", share] = WAYS["made up, loss"](known, share)
    for keep in (0.9, 0.8, 0.6, 0.4, 0.2):
        small = shrink_mlps(model, highest_units(scores, [keep] * 4), text)
        count = sum(w.numel() for w in linear_weights(small.blocks).values())
        made["fewer units", round(count / numbers(known.shapes, {}), 3)] = small
    print(f"{processor()}; the file's kB, bits per byte")
    for (what, share), small in made.items():
        for bits in (16, 8, 6, 5, 4, 3, 2):
            scheme = torch.float16 if bits == 16 else Scheme(Format(bits), "channel")
            count, again = in_a_file(small, scheme)
            found = tiny_quality(again, tokenizer).bits_per_byte
            show(table, (what, share, bits), (round(count / 1000), round(found, 3)))
    for bits in (4, 3, 2):
        count, again = in_a_file(model, Scheme(Format(bits), 64))
        found = tiny_quality(again, tokenizer).bits_per_byte
        show(table, ("whole, groups of 64", 1.0, bits), (round(count / 1000), round(found, 3)))
    return table


# ---------------------------------------------------------------- times


def times_table(repeats: int = 15) -> dict:
    """(O, I, batch) -> (share of the numbers, CPU seconds of both products / of the one) pairs."""
    table = {}
    print(f"{processor()}; share of the numbers, time of two products over time of one")
    for outputs, inputs in ((576, 576), (1536, 576), (576, 1536), (4096, 4096)):
        rounds = max(1, 4096**2 // (outputs * inputs) // 4)
        ranks = [max(1, saving_rank(outputs, inputs) * k // 8) for k in (1, 2, 4, 6, 7, 8)]
        for batch in (1, 64):
            x, weight = torch.randn(batch, inputs), torch.randn(outputs, inputs)
            layers = {0: weight_layer(weight)}
            for rank in ranks:
                factors = Factors(torch.randn(outputs, rank), torch.randn(rank, inputs))
                layers[rank] = FactoredLinear(factors).requires_grad_(False)
            sides = {
                rank: lambda layer=layer, x=x, n=rounds: [layer(x) for _ in range(n)]
                for rank, layer in layers.items()
            }
            found = cpu_seconds(sides, repeats)
            pairs = [
                (
                    round(r * (outputs + inputs) / (outputs * inputs), 3),
                    round(found[r] / found[0], 3),
                )
                for r in ranks
            ]
            show(table, (outputs, inputs, batch), tuple(pairs))
    return table


def weight_layer(weight: Tensor) -> nn.Linear:
    """A linear layer without a bias."""
    layer = nn.Linear(*reversed(weight.shape), bias=False).requires_grad_(False)
    layer.weight.copy_(weight)
    return layer


# ---------------------------------------------------------------- spectra


def stage_inputs(model: Llama, tokens: Tensor) -> Iterator[tuple[int, tuple[str, ...], Tensor]]:
    """Number of the block, names of a stage's layers, and what they are given: (B, T, I)."""
    for number, (block, given) in enumerate(walk_blocks(model, tokens)):
        firsts = [block.get_submodule(names[0]) for names in STAGES]
        for names, x in zip(STAGES, record_inputs(block, given, firsts), strict=True):
            yield number, names, x.view(*tokens.shape, -1)


def mean_products(x: Tensor) -> Tensor:
    """Mean of x xᵀ over all axes but the last."""
    return Moments.empty(x.shape[-1]).add(x).gram


def summary(spectrum: Tensor) -> tuple[float, float]:
    """Energy in the first quarter of the directions; share of the directions that hold 99 %."""
    energy = spectrum.double().square()
    share = energy.cumsum(0) / energy.sum()
    count = len(share)
    return share[count // 4 - 1].item(), ((share < 0.99).sum().item() + 1) / count


def spectra_of(weight: Tensor, grams: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is looked at -> its spectrum."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(weight.shape, generator=draw) * weight.std()
    shuffled = weight.flatten()[torch.randperm(weight.numel(), generator=draw)].view_as(weight)
    found = {
        "weight": torch.linalg.svdvals(weight),
        "its numbers, shuffled": torch.linalg.svdvals(shuffled),
        "noise": torch.linalg.svdvals(noise),
    }
    for name, gram in grams.items():
        found[f"inputs, {name}"] = torch.linalg.eigvalsh(gram.double()).flip(0).clamp(0).sqrt()
        found[f"outputs, {name}"] = output_spectrum(weight, gram)
        found[f"outputs of noise, {name}"] = output_spectrum(noise, gram)
    return found


def spectra_table(which: str = "tiny") -> dict:
    """(kind, what) -> energy of the first quarter, directions for 99 %: means over the blocks."""
    model, tokenizer = tiny() if which == "tiny" else smollm2()
    tokens = tiny_calibration(tokenizer) if which == "tiny" else smollm2_calibration(tokenizer, 8)
    sums: dict[tuple[str, str], list[tuple[float, float]]] = {}
    shares: dict[str, list[float]] = {}
    for number, names, x in stage_inputs(model, tokens):
        mean = x.flatten(0, 1).mean(0)
        later = x[:, 4:]
        grams = {
            "all": mean_products(x),
            "without the mean": mean_products(x - mean),
            "without the mean, from the 5th token on": mean_products(
                later - later.flatten(0, 1).mean(0)
            ),
        }
        share = (mean.square().sum() / grams["all"].trace()).item()
        shares.setdefault(names[0], []).append(round(share, 3))
        for name in names:
            weight = model.blocks[number].get_submodule(name).weight
            for what, spectrum in spectra_of(weight, grams).items():
                sums.setdefault((name, what), []).append(summary(spectrum))
    table = {}
    print(f"{processor()}; {which}: energy of the first quarter, directions for 99 %")
    for key, pairs in sums.items():
        show(
            table, key, tuple(round(sum(part) / len(part), 3) for part in zip(*pairs, strict=True))
        )
    print("    # share of the mean in the inputs' energy, block by block")
    for name, found in shares.items():
        show(table, (name, "mean"), tuple(found))
    return table


# ---------------------------------------------------------------- SmolLM2


def smollm2_table(shares: tuple[float, ...] = (0.95, 0.9, 0.8, 0.7)) -> dict:
    """Way -> perplexity at each share; first at 90 % of every layer's rank."""
    model, tokenizer = smollm2()
    known, table = Known(model, smollm2_calibration(tokenizer), 16), {}
    nine_tenths = {name: round(0.9 * min(shape)) for name, shape in known.shapes.items()}
    share = numbers(known.shapes, nine_tenths) / numbers(known.shapes, {})
    print(f"{processor()}; perplexity; 90 % of the ranks are {share:.3f} of the numbers")

    def perplexity(small: Llama) -> float:
        return float(f"{smollm2_quality(small, tokenizer).perplexity:.4g}")

    show(table, "dense", perplexity(model))
    show(table, "plain, 90 % of the rank", perplexity(factor_decoder(model, nine_tenths)))
    show(table, "ASVD, 90 % of the rank", perplexity(known.scaled(nine_tenths)))
    show(table, "outputs, 90 % of the rank", perplexity(known.aware(nine_tenths)))
    for name in SMOLLM2_WAYS:
        found = []
        for share in shares:
            found.append(perplexity(WAYS[name](known, share)))
            print(f"    # {name} {share}: {found[-1]}", flush=True)
        show(table, name, tuple(found))
    return table


SMOLLM2_WAYS = (
    "plain",
    "ASVD",
    "outputs",
    "made up",
    "made up, energy",
    "outputs, loss",
    "made up, loss",
)


def broken_table(tokens_used: int = 512) -> dict:
    """What is cut to 90 % of its rank, and what is mended then -> perplexity of 512 tokens.

    Mends of each cut layer, E = W − Ŵ:
        a direction     E v vᵀ is given back, v the inputs' first direction (from other text)
        a bias          E μ is added to every output, μ the inputs' mean
        first token     there the layer is whole
    """
    model, tokenizer = smollm2()
    ids = tokenizer.encode(wikipedia_sample()).ids[: tokens_used + 1]
    tokens = torch.tensor(ids)[None]
    cut, mends = {}, {}
    for number, names, x in stage_inputs(model, smollm2_calibration(tokenizer, 4)):
        v = torch.linalg.eigh(mean_products(x).double()).eigenvectors[:, -1:].float()  # (I, 1)
        for name in names:
            whole = f"blocks.{number}.{name}"
            weight = model.get_parameter(f"{whole}.weight")
            cut[whole] = truncated(weight, round(0.9 * min(weight.shape))).product
            missing = weight - cut[whole]
            mends[whole] = {
                "nothing": (cut[whole], None, False),
                "a direction": (cut[whole] + missing @ v @ v.T, None, False),
                "a bias": (cut[whole], missing @ x.flatten(0, 1).mean(0), False),
                "first token": (cut[whole], None, True),
            }
    kinds = [name for names in STAGES for name in names]
    sets = {"all": list(cut), "none": []}
    sets |= {f"{kind} alone": [n for n in cut if n.endswith(kind)] for kind in kinds}
    sets |= {f"all but {kind}": [n for n in cut if not n.endswith(kind)] for kind in kinds}
    tried = [(some, "nothing") for some in sets]
    for mend in ("a direction", "a bias", "first token"):
        tried += [(some, mend) for some in ("all", "attention.value alone", "mlp.up alone")]
    table = {}
    print(f"{processor()}; perplexity of {tokens_used} tokens")
    for some, mend in tried:
        found = loss_with(model, tokens, {name: mends[name][mend] for name in sets[some]})
        show(table, (some, mend), float(f"{math.exp(found):.4g}"))
    return table


Mended = tuple[Tensor, Tensor | None, bool]


def loss_with(model: Llama, tokens: Tensor, layers: Mapping[str, Mended]) -> float:
    """Nats per token while named layers have other weights, a bias, or keep their first token."""
    hooks = []
    for name, (weight, bias, keep_first) in layers.items():

        def other(
            layer: nn.Module,
            given: tuple,
            output: Tensor,
            weight: Tensor = weight,
            bias: Tensor | None = bias,
            keep_first: bool = keep_first,
        ) -> Tensor:
            new = F.linear(given[0], weight, bias)
            return torch.cat([output[:, :1], new[:, 1:]], dim=1) if keep_first else new

        hooks.append(model.get_submodule(name).register_forward_hook(other))
    try:
        return next_token_loss(model, (tokens[:, :-1], tokens[:, 1:])).item()
    finally:
        for hook in hooks:
            hook.remove()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tables = {
        "tiny": tiny_table,
        "texts": texts_table,
        "bytes": bytes_table,
        "times": times_table,
        "spectra": spectra_table,
        "smollm2": smollm2_table,
        "broken": broken_table,
    }
    if sys.argv[1:2] and sys.argv[1] in tables:
        tables[sys.argv[1]](*sys.argv[2:])
    else:
        sys.exit(f"python -m benchmarks.factored {'|'.join(tables)}")
