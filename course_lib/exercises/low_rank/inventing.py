"""Exercise of 09_low_rank: TinyLM in factors, at three fifths of its numbers.

Axes: B windows, T tokens of a window, O outputs, I inputs, K = min(O, I).
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.exercises.language_models.inventing import loss_beside, shuffled
from course_lib.measure.yardstick import (
    tiny_calibration,
    tiny_quality,
)
from course_lib.models import pretrained
from course_lib.models.llama import Llama
from course_lib.models.parts import DOWN, GATE_UP, OUTPUT, QKV, embed, linear_weights
from course_lib.models.walk import Stage, treat_blocks

# Bits per byte at this share: truncated SVD 2.60; the outputs' directions 1.614 with even shares,
# 1.520 with one rank for all, 1.516 by shares of energy; aimed at the dense model's outputs as
# well, 1.458. Four other texts of 32 windows: even 1.60 to 1.62, by energy 1.50 to 1.52; three of
# them, aimed: 1.446 to 1.457.
SHARE, LOSS = 0.6, 1.505  # asked for
FLOOR = 1.25  # whoever is better has trained, or seen the text: the best without is 1.359
WINDOWS = 32  # of the calibration text
MOST = 1.4  # times: see `_beside`. Factors of the calibration text: 0.8 to 1.14; of other text that
# TinyLM was trained on: 1.29; with a third of the held-out text among it: 1.5, of that alone: 4.2

Factors = dict[str, tuple[Tensor, Tensor]]


def energy_shares(model: Llama, tokens: Tensor) -> dict[str, Tensor]:
    """What share of a layer's output energy each output direction has: name -> (K,), falling."""
    shares: dict[str, Tensor] = {}

    def look(stage: Stage) -> None:
        for name, layer in zip(stage.weight_names, stage.layers, strict=True):
            weight = layer.weight
            energies = torch.linalg.eigvalsh(weight @ stage.moments.gram @ weight.T).flip(0)
            shares[name] = energies[: min(weight.shape)] / energies.sum()

    treat_blocks(model, tokens, look)  # nothing is changed
    return shares


def ranks_by_gain(gains: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, int]:
    """A rank costs O + I numbers: the highest gains for each number, until SHARE of all is spent.

    gains: what each further rank of a layer is worth, falling.
    """
    layer = torch.cat([torch.full((len(gains[n]),), i) for i, n in enumerate(gains)])
    cost = torch.tensor([sum(weights[name].shape) for name in gains])[layer]
    order = (torch.cat([gain.cpu() for gain in gains.values()]) / cost).argsort(descending=True)
    budget = SHARE * sum(weight.numel() for weight in weights.values())
    paid = order[cost[order].cumsum(0) <= budget]
    return dict(zip(gains, layer[paid].bincount(minlength=len(gains)).tolist(), strict=True))


def aimed(weight: Tensor, inputs: Tensor, aim: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B A of least ‖aim − X (B A)ᵀ‖², drawn a little towards W; inputs X (N, I), aim (N, O)."""
    gram, dense = (inputs.T @ inputs).double(), weight.double()
    pull = 0.01 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    gram += pull
    wanted = (inputs.T @ aim).double() + pull @ dense.T  # (I, O)
    full = torch.linalg.solve(gram, wanted).T  # (O, I): what it would be if any rank were allowed
    first = torch.linalg.eigh(full @ gram @ full.T)[1].flip(1)[:, :rank]  # (O, r)
    return first.float(), (first.T @ full).float()


def aimed_factors(model: Llama, tokens: Tensor, ranks: dict[str, int]) -> Factors:
    """Each layer is given what the small model gives so far, and aims at what the dense one makes.

    Two streams run side by side, the dense x and the small y. A layer that writes into the stream
    makes up for x − y, too.
    """
    small, found = copy.deepcopy(model), {}
    (x, *tables), y = embed(model, tokens), model.embedding(tokens)  # (B, T, D)

    def treat(number: int, names: tuple[str, ...], given: Tensor, made: Tensor, missing=0.0):
        for name in names:
            dense, layer = (m.blocks[number].get_submodule(name) for m in (model, small))
            aim, place = (dense(given) + missing).flatten(0, 1), f"blocks.{number}.{name}.weight"
            left, right = aimed(dense.weight, made.flatten(0, 1), aim, ranks[place])
            layer.weight.copy_(left @ right)
            found[place] = left, right

    for number, (dense, block) in enumerate(zip(model.blocks, small.blocks, strict=True)):
        given, made = dense.attention_norm(x), block.attention_norm(y)
        treat(number, QKV, given, made)
        given, made = dense.attention.mix(given, *tables), block.attention.mix(made, *tables)
        treat(number, OUTPUT, given, made, x - y)
        x, y = x + dense.attention.output(given), y + block.attention.output(made)
        given, made = dense.mlp_norm(x), block.mlp_norm(y)
        treat(number, GATE_UP, given, made)
        given, made = dense.mlp.products(given), block.mlp.products(made)
        treat(number, DOWN, given, made, x - y)
        x, y = x + dense.mlp.down(given), y + block.mlp.down(made)
    return found


def factor_tiny(model: Llama, tokens: Tensor) -> Factors:
    """TinyLM's linear layers as factors with at most 60 % of their numbers, nothing trained.

    For each of the 28 weights W (O, I) of the blocks, named as `linear_weights` of `models.parts`
    does ("blocks.0.attention.query.weight", …), a pair (left (O, r), right (r, I)), float32: left @
    right stands for W. Each layer may have its own r ≥ 1. All pairs together have at most 0.6 of
    the 1,572,864 numbers of the weights. tokens (B, T) are a text to calibrate with, its windows in
    any order; the model stays as it is. Asked for: at most 1.505 bits per byte on held-out text
    (dense: 1.173; the best known: 1.36; less than 1.25 comes of training), within two minutes.
    """
    ranks = ranks_by_gain(energy_shares(model, tokens), linear_weights(model))
    return aimed_factors(model, tokens, ranks)


def _tiny_and_text(seed: int) -> list[Case]:
    """One text for all seeds: with another one, the loss that is reached moves by 0.01."""
    draw, (model, tokenizer) = Draw(seed), pretrained.tiny()
    windows = tiny_calibration(tokenizer, WINDOWS)
    inputs = {"model": shuffled(model, draw), "tokens": windows[draw.order(WINDOWS)]}
    return [Case("TinyLM, its channels and hidden units in another order", inputs)]


def _are_factors(inputs: dict, value: dict[str, list[Tensor]]) -> bool:
    """A pair for each linear layer, float32, whose product has the shape of the weight."""
    weights = linear_weights(inputs["model"])
    return value.keys() == weights.keys() and all(
        len(pair) == 2
        and all(part.dim() == 2 and part.dtype == torch.float32 for part in pair)
        and (len(pair[0]), pair[1].shape[1]) == weights[name].shape
        and pair[0].shape[1] == len(pair[1]) >= 1
        for name, pair in value.items()
    )


def _share(inputs: dict, value: dict[str, list[Tensor]]) -> float:
    """Numbers of all factors, as a share of the weights'."""
    stored = sum(part.numel() for pair in value.values() for part in pair)
    return stored / sum(weight.numel() for weight in linear_weights(inputs["model"]).values())


def _replaced(inputs: dict, value: dict[str, list[Tensor]]) -> Llama:
    """The model, each weight replaced by its factors' product."""
    model = copy.deepcopy(inputs["model"])
    for name, (left, right) in value.items():
        model.get_parameter(name).copy_(left @ right)
    return model


def _loss(inputs: dict, value: dict[str, list[Tensor]]) -> float:
    """Bits per byte on held-out text."""
    return tiny_quality(_replaced(inputs, value), pretrained.tiny()[1]).bits_per_byte


def _beside(inputs: dict, value: dict[str, list[Tensor]]) -> float:
    """See `loss_beside`; the text that was given is the calibration text."""
    seen = inputs["tokens"][:, :-1], inputs["tokens"][:, 1:]
    return loss_beside(_replaced(inputs, value), inputs["model"], seen)


def _what_was_reached(inputs: dict, value: dict[str, list[Tensor]]) -> str:
    return (
        f"{100 * _share(inputs, value):.2f} % of the numbers (asked: at most 60 %), "
        f"{_loss(inputs, value):.3f} bits per byte (asked: at most {LOSS}; dense: 1.173)"
    )


def _even_rank(weight: Tensor) -> int:
    return int(SHARE * weight.numel() / sum(weight.shape))


def _even(model: Llama) -> dict[str, int]:
    return {name: _even_rank(weight) for name, weight in linear_weights(model).items()}


def _of_the_ranks(model: Llama) -> dict[str, int]:
    return {n: int(SHARE * min(w.shape)) for n, w in linear_weights(model).items()}


def _plain(ranks: Callable[[Llama], dict[str, int]]):
    """Truncated SVD."""

    def wrong(model, tokens):
        found, chosen = {}, ranks(model)
        for name, weight in linear_weights(model).items():
            U, S, V = torch.linalg.svd(weight, full_matrices=False)
            found[name] = U[:, : chosen[name]] * S[: chosen[name]], V[: chosen[name]]
        return found

    return wrong


def _outputs(ranks: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, int]]):
    """The outputs' first directions, U_r U_rᵀ W; ranks(H of each layer, weights)."""

    def wrong(model, tokens):
        weights, moments = linear_weights(model), {}

        def look(stage: Stage) -> None:
            for name in stage.weight_names:
                moments[name] = weights[name] @ stage.moments.gram @ weights[name].T

        treat_blocks(model, tokens, look)
        chosen, found = ranks(moments, weights), {}
        for name, weight in weights.items():
            first = torch.linalg.eigh(moments[name])[1].flip(1)[:, : chosen[name]]
            found[name] = first, first.T @ weight
        return found

    return wrong


def _by_energy(share: bool):
    """Ranks where a number gains most energy; of each layer's own, or of all."""

    def ranks(moments, weights):
        found = {n: torch.linalg.eigvalsh(H).flip(0) for n, H in moments.items()}
        gains = {
            n: (e / e.sum() if share else e)[: min(weights[n].shape)] for n, e in found.items()
        }
        return ranks_by_gain(gains, weights)

    return ranks


FACTOR_TINY = Exercise(
    reference=factor_tiny,
    cases=_tiny_and_text,
    compare=False,
    reached=_what_was_reached,
    seconds=120.0,
    hints=(
        "Factors of the outputs' first directions, U_r U_rᵀ W: 1.614 bits per byte with the same "
        "share of numbers in each layer, 1.520 with the same rank. (Truncated SVD: 2.60.) Two "
        "things are free: which layer gets how much, and what a layer aims at.",
        "How much: by energy for each number nearly all goes to `down`, which writes large numbers "
        "(2.88); by each direction's share of its own layer's energy, 1.516. That needs a second "
        "idea, or a better judge than energy: what does one layer's rank cost in *loss*? Measured, "
        "layer by layer on a little text, it gives 1.39.",
        "What it aims at: a layer is given what the layers before it got wrong. Run the dense and "
        "the small model side by side. Fit each layer's outputs, on the small model's inputs, to "
        "what the dense layer gives on its own; where it writes into the stream, add what the "
        "stream lacks. With M the least-squares weight and G of the small model's inputs, the "
        "best of rank r is U_r U_rᵀ M, with U_r of M G Mᵀ. So 1.516 becomes 1.458, and 1.39 "
        "becomes 1.36.",
    ),
    properties=(
        Property(
            "float32 pairs (O, r) and (r, I), r ≥ 1, for each of the 28 weights, by name",
            _are_factors,
            form=True,
        ),
        Property(
            "all pairs together have at most 60 % of the weights' numbers",
            lambda inputs, value: _share(inputs, value) <= SHARE,
        ),
        Property(
            "with these products for its weights TinyLM needs at most 1.505 bits per byte, and not "
            "less than 1.25: nothing is to be trained",
            lambda inputs, value: FLOOR <= _loss(inputs, value) <= LOSS,
        ),
        Property(
            "made for the calibration text, not for the held-out one: what the factors cost in "
            "loss is not far less on the latter",
            lambda inputs, value: _beside(inputs, value) <= MOST,
        ),
    ),
    misconceptions=(
        Misconception(
            "60 % of the ranks",
            _plain(_of_the_ranks),
            "each layer has 60 % of its singular values, and 89 % of its numbers: a rank of a "
            "square weight costs a row and a column. It takes r (O + I) ≤ 0.6 · O I.",
        ),
        Misconception(
            "truncated SVD",
            _plain(_even),
            "small enough, but nearest to the weights and not to the outputs. The weights are of "
            "full rank; what flows through them is not. There is a text to calibrate with.",
        ),
        Misconception(
            "the same share for each layer",
            _outputs(lambda moments, weights: {n: _even_rank(w) for n, w in weights.items()}),
            "the right factors for these ranks, and the same share of numbers in each layer. Which "
            "layer lives on few directions, and which needs many?",
        ),
        Misconception(
            "energies of different layers",
            _outputs(_by_energy(share=False)),
            "the ranks go where the outputs are largest, and that is `down`, whose energy is 30 to "
            "200 times that of `gate`. An error counts against the size of what it spoils: a "
            "direction's share of its own layer's energy says more.",
        ),
        Misconception(
            "shares of energy alone",
            _outputs(_by_energy(share=True)),
            "the ranks go by each layer's own energy, and each layer aims at what it would give "
            "if nothing before it had changed. But much has. It can make up for that: aim at what "
            "the dense model gives there. Or ask the loss, not the energy, for the ranks.",
        ),
    ),
)
