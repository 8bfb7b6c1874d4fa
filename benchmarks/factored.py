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
    decoder_spectra,
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
from course_lib.models.parts import STAGES, embed, linear_weights
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


@dataclass
class Known:
    """A model, a calibration text (B, T), and what is found out from both, once each."""

    model: Llama
    text: Tensor
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
        """Nats per token on a quarter of the text."""
        windows = self.text[::4]
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

    def scaled(self, ranks: Mapping[str, int]) -> Llama:
        """ASVD: columns scaled by (mean |x|)^½."""
        weight, moments = self.model.get_parameter, self.moments
        return with_factors(
            self.model,
            {n: scaled_factors(weight(n), moments[n].mean_abs**0.5, r) for n, r in ranks.items()},
        )

    def aware(self, ranks: Mapping[str, int]) -> Llama:
        """Each layer for itself, on the inputs that the model as it is gives."""
        weight, moments = self.model.get_parameter, self.moments
        return with_factors(
            self.model,
            {n: output_factors(weight(n), moments[n].gram, r) for n, r in ranks.items()},
        )

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
        return factor_decoder(self.model, ranks, self.text, self.progress)

    def jointly(self, share: float) -> Llama:
        """Query, key and value are one matrix, so are gate and up: they share A. Even shares."""
        shapes = {}
        for number in range(len(self.model.blocks)):
            for names in STAGES:
                full = [f"blocks.{number}.{name}.weight" for name in names]
                shapes[tuple(full)] = (sum(self.shapes[n][0] for n in full), self.shapes[full[0]][1])
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
