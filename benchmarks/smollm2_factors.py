"""SmolLM2's linear layers as factors: where plain SVD breaks it, what output-aware factors keep.

    OMP_NUM_THREADS=1 python -m benchmarks.smollm2_factors broken     3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.smollm2_factors values     1 CPU minute
    OMP_NUM_THREADS=1 python -m benchmarks.smollm2_factors factors    9 CPU minutes

`broken`: every layer of some kinds keeps 90 % of its rank (and 180 % of its numbers, where it is
square); perplexity on the first 512 tokens of the Wikipedia text. Then E = W − Ŵ is given back
along the first 1 or 4 directions of the layer's *inputs*, of 576 or more, and once for the first
token alone. `values`: what is it about E, in the value matrices? `factors`: perplexity on the
yardstick, 4,096 tokens, and numbers kept.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.structured import processor
from course_lib.low_rank.budgets import even_ranks, numbers, ranks_by_energy
from course_lib.low_rank.decoder import decoder_spectra, factor_decoder, layer_shapes
from course_lib.low_rank.svd import truncated
from course_lib.measure.quality import token_losses
from course_lib.measure.yardstick import smollm2_calibration, smollm2_quality, wikipedia_sample
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights, record_inputs
from course_lib.models.pretrained import smollm2
from course_lib.models.walk import treat_blocks

KINDS = ("query", "key", "value", "output", "gate", "up", "down")


def of_kind(name: str) -> str:
    """The word "value" of "blocks.0.attention.value.weight"."""
    return name.split(".")[-2]


def cut_to(model: Llama, share: float, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """Name -> E = W − Ŵ, where Ŵ keeps this share of the rank."""
    lost = {}
    for name in layer_shapes(model):
        if "all" not in kinds and of_kind(name) not in kinds:
            continue
        weight = model.get_parameter(name)
        lost[name] = weight - truncated(weight, round(share * min(weight.shape))).product
    return lost


def input_directions(model: Llama, tokens: Tensor) -> dict[str, Tensor]:
    """Name -> the first four eigenvectors of G, the largest first: (I, 4)."""
    found = {}

    def look(stage) -> None:
        vectors = torch.linalg.eigh(stage.moments.gram.double())[1].flip(1)[:, :4].float()
        found.update(dict.fromkeys(stage.weight_names, vectors))

    treat_blocks(model, tokens, look)
    return found


@contextmanager
def without(model: Llama, lost: dict[str, Tensor]) -> Iterator[None]:
    """The model with W − E in these layers; afterwards with W again."""
    kept = {name: model.get_parameter(name).clone() for name in lost}
    for name, error in lost.items():
        model.get_parameter(name).sub_(error)
    try:
        yield
    finally:
        for name, weight in kept.items():
            model.get_parameter(name).copy_(weight)


@contextmanager
def with_bias(model: Llama, biases: dict[str, Tensor]) -> Iterator[None]:
    """These layers give a vector more, the same for each token."""
    hooks = [
        model.get_submodule(name.removesuffix(".weight")).register_forward_hook(
            lambda module, given, output, bias=bias: output + bias
        )
        for name, bias in biases.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def perplexity(model: Llama, page: Tensor) -> float:
    """Of a page that is read in one window."""
    mean = token_losses(model, page, len(page) - 1).double().mean().item()
    return round(math.exp(mean), 1)


@contextmanager
def first_token_exact(model: Llama, lost: dict[str, Tensor]) -> Iterator[None]:
    """Within `without`: these layers answer the first token of each window as W does."""

    def exact(name: str) -> Callable:
        def hook(module: nn.Module, given: tuple, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, 0] += F.linear(given[0][:, 0], lost[name])
            return output

        return hook

    layers = {name: model.get_submodule(name.removesuffix(".weight")) for name in lost}
    hooks = [layer.register_forward_hook(exact(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def broken_table(
    model: Llama, page: Tensor, calibration: Tensor, kinds: tuple[str, ...] = (*KINDS, "all")
) -> dict[str, tuple[float, ...]]:
    """Kind that is cut -> perplexity; 1 and 4 input directions given back; first token exact."""
    errors, directions = cut_to(model, 0.9, kinds), input_directions(model, calibration)
    table = {"none": (perplexity(model, page),)}
    for kind in kinds:
        lost = {n: e for n, e in errors.items() if kind in ("all", of_kind(n))}
        row = []
        for count in (0, 1, 4):
            rest = {
                n: e - e @ directions[n][:, :count] @ directions[n][:, :count].T
                for n, e in lost.items()
            }
            with without(model, rest):
                row.append(perplexity(model, page))
        with without(model, lost), first_token_exact(model, lost):
            row.append(perplexity(model, page))
        table[kind] = tuple(row)
        print(f"# {kind}: {table[kind]}", flush=True)
    return table


@torch.no_grad()
def values_table(model: Llama, page: Tensor, calibration: Tensor) -> dict[str, float]:
    """What stands in the place of E in the 30 value matrices -> perplexity.

    g is the first eigenvector of G, x̄ the mean of the inputs: both of the calibration text.
    """
    errors, means = cut_to(model, 0.9, ("value",)), {}
    layers = [model.get_submodule(name.removesuffix(".weight")) for name in errors]
    for name, x in zip(errors, record_inputs(model, calibration, layers), strict=True):
        means[name] = x.mean(dim=0)
    first = {name: vectors[:, :1] for name, vectors in input_directions(model, calibration).items()}
    generator = torch.Generator().manual_seed(0)
    noise = {n: torch.randn(e.shape, generator=generator) for n, e in errors.items()}
    drawn = {n: torch.randn(e.shape[1], 1, generator=generator) for n, e in errors.items()}
    drawn = {n: vector / vector.norm() for n, vector in drawn.items()}
    places = {
        "E": errors,
        "noise as large as E": {n: z * errors[n].norm() / z.norm() for n, z in noise.items()},
        "E, g given back": {n: e - e @ first[n] @ first[n].T for n, e in errors.items()},
        "E, a random direction given back": {
            n: e - e @ drawn[n] @ drawn[n].T for n, e in errors.items()
        },
        "E along g alone": {n: e @ first[n] @ first[n].T for n, e in errors.items()},
    }
    table = {}
    for label, lost in places.items():
        with without(model, lost):
            table[label] = perplexity(model, page)
    with without(model, errors), with_bias(model, {n: e @ means[n] for n, e in errors.items()}):
        table["E, and a bias E x̄"] = perplexity(model, page)
    cosines = [(first[n][:, 0] @ m / m.norm()).abs().item() for n, m in means.items()]
    table["layers in which g is x̄ (cosine above 0.99)"] = sum(c > 0.99 for c in cosines)
    return table


@torch.no_grad()
def factors_table(shares: tuple[float, ...] = (0.95, 0.9)) -> dict[str, tuple[float, float]]:
    """How -> numbers kept, as a share, and perplexity."""
    model, tokenizer = smollm2()
    tokens = smollm2_calibration(tokenizer, 8)
    shapes = layer_shapes(model)
    total = numbers(shapes, {})
    ranks = {n: round(0.9 * min(shape)) for n, shape in shapes.items()}
    spectra = {n: s / s.norm() for n, s in decoder_spectra(model, tokens).items()}
    ways: dict[str, Callable[[], Llama]] = {
        "dense": lambda: model,
        "plain, 90 % of the rank": lambda: factor_decoder(model, ranks),
        "outputs, 90 % of the rank": lambda: factor_decoder(model, ranks, tokens),
    }
    for share in shares:
        even = even_ranks(shapes, int(share * total))
        energy = ranks_by_energy(spectra, shapes, int(share * total))
        ways |= {
            f"plain, {share:.0%} of the numbers": lambda r=even: factor_decoder(model, r),
            f"outputs, {share:.0%} of the numbers": lambda r=even: factor_decoder(model, r, tokens),
            f"outputs, by shares of energy, {share:.0%} of the numbers": lambda r=energy: (
                factor_decoder(model, r, tokens)
            ),
        }
    table = {}
    for label, make in ways.items():
        small = make()
        kept = sum(p.numel() for p in linear_weights(small.blocks).values()) / total
        table[label] = round(kept, 3), float(f"{smollm2_quality(small, tokenizer).perplexity:.4g}")
        print(f"# {label}: {table[label]}", flush=True)
        del small
    return table


def main() -> None:
    print(f"# {time.strftime('%Y-%m-%d')}, {processor()}, one thread")
    if sys.argv[1:] == ["factors"]:
        print("STORED_FACTORS =", factors_table())
        return
    model, tokenizer = smollm2()
    page = torch.tensor(tokenizer.encode(wikipedia_sample()).ids[:513])
    tokens = smollm2_calibration(tokenizer, 2)
    if sys.argv[1:] == ["values"]:
        print("STORED_VALUES =", values_table(model, page, tokens))
    else:
        print("STORED_BROKEN =", broken_table(model, page, tokens))


if __name__ == "__main__":
    main()
