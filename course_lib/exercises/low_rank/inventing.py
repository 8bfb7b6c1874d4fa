"""Exercise of 09_low_rank: TinyLM in factors, at three fifths of its numbers.

Axes: B windows, T tokens of a window, O outputs, I inputs, K = min(O, I).
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.exercises.language_models.inventing import shuffled
from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models import pretrained
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights
from course_lib.models.walk import Stage, treat_blocks

SHARE, LOSS = 0.6, 1.55  # asked for: with even ranks 1.614; other texts: 1.60 to 1.62, and
# 1.50 to 1.52 by shares of energy
FLOOR = 1.25  # whoever is better has trained, or seen the text: the best without is 1.359
WINDOWS = 32  # of the calibration text

Factors = dict[str, tuple[Tensor, Tensor]]


def input_grams(model: Llama, tokens: Tensor) -> dict[str, Tensor]:
    """G, the mean of x xᵀ over what flows into each linear layer of the blocks: name -> (I, I)."""
    grams: dict[str, Tensor] = {}

    def look(stage: Stage) -> None:
        grams.update(dict.fromkeys(stage.weight_names, stage.moments.gram))

    treat_blocks(model, tokens, look)
    return grams


def shared_out(gains: dict[str, Tensor], costs: dict[str, int], budget: int) -> dict[str, int]:
    """Ranks by name: steps are bought in the order of gain for each number, while they are paid.

    gains: what each further rank of a layer is worth, falling.
    costs: the numbers that a rank of the layer takes, O + I.
    """
    layer = torch.cat([torch.full((len(gains[n]),), i) for i, n in enumerate(gains)])
    cost = torch.tensor([costs[name] for name in gains])[layer]
    order = (torch.cat([gains[name].cpu() for name in gains]) / cost).argsort(descending=True)
    paid = order[cost[order].cumsum(0) <= budget]
    ranks = layer[paid].bincount(minlength=len(gains))
    return dict(zip(gains, ranks.tolist(), strict=True))


def factor_tiny(model: Llama, tokens: Tensor) -> Factors:
    """TinyLM's linear layers as factors with at most 60 % of their numbers, nothing trained.

    For each of the 28 weights W (O, I) of the blocks, named as `linear_weights` of `models.parts`
    does ("blocks.0.attention.query.weight", …), a pair (left (O, r), right (r, I)), float32: left @
    right stands for W. Each layer may have its own r. All pairs together have at most 0.6 of the
    1,572,864 numbers of the weights. tokens (B, T) are a text to calibrate with; the model stays as
    it is. Asked for: at most 1.55 bits per byte on held-out text (dense: 1.173; the best known:
    1.36; less than 1.25 comes of training), within a minute.
    """
    weights, grams = linear_weights(model), input_grams(model, tokens)
    found = {n: torch.linalg.eigh(w @ grams[n] @ w.T) for n, w in weights.items()}  # ascending
    energies = {n: values.flip(0)[: min(weights[n].shape)] for n, (values, _) in found.items()}
    shares = {name: energy / energy.sum() for name, energy in energies.items()}
    costs = {name: sum(weight.shape) for name, weight in weights.items()}
    budget = int(SHARE * sum(weight.numel() for weight in weights.values()))
    ranks = shared_out(shares, costs, budget)
    firsts = {n: vectors.flip(1)[:, : ranks[n]] for n, (_, vectors) in found.items()}  # (O, r)
    return {name: (first, first.T @ weights[name]) for name, first in firsts.items()}


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
        and pair[0].shape[1] == len(pair[1])
        for name, pair in value.items()
    )


def _share(inputs: dict, value: dict[str, list[Tensor]]) -> float:
    """Numbers of all factors, as a share of the weights'."""
    stored = sum(part.numel() for pair in value.values() for part in pair)
    return stored / sum(weight.numel() for weight in linear_weights(inputs["model"]).values())


def _loss(inputs: dict, value: dict[str, list[Tensor]]) -> float:
    """Bits per byte on held-out text, each weight replaced by its factors' product."""
    model = copy.deepcopy(inputs["model"])
    for name, (left, right) in value.items():
        model.get_parameter(name).copy_(left @ right)
    return tiny_quality(model, pretrained.tiny()[1]).bits_per_byte


def _what_was_reached(inputs: dict, value: dict[str, list[Tensor]]) -> str:
    return (
        f"{100 * _share(inputs, value):.2f} % of the numbers (asked: at most 60 %), "
        f"{_loss(inputs, value):.3f} bits per byte (asked: at most {LOSS}; dense: 1.173)"
    )


def _plain(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    U, S, V = torch.linalg.svd(weight, full_matrices=False)
    return U[:, :rank] * S[:rank], V[:rank]


def _even(model: Llama) -> dict[str, int]:
    return {n: int(SHARE * w.numel() / sum(w.shape)) for n, w in linear_weights(model).items()}


def _plain_of_ranks(ranks: Callable[[Llama], dict[str, int]]):
    def wrong(model, tokens):
        weights, chosen = linear_weights(model), ranks(model)
        return {name: _plain(weight, chosen[name]) for name, weight in weights.items()}

    return wrong


def _of_the_ranks(model: Llama) -> dict[str, int]:
    return {name: int(SHARE * min(w.shape)) for name, w in linear_weights(model).items()}


def _outputs(shares: Callable | None):
    """Factors of the outputs' first directions, with an even budget, or one by these gains."""

    def wrong(model, tokens):
        weights, grams = linear_weights(model), input_grams(model, tokens)
        found = {n: torch.linalg.eigh(w @ grams[n] @ w.T) for n, w in weights.items()}
        costs, ranks = {n: sum(w.shape) for n, w in weights.items()}, _even(model)
        if shares:
            gains = {n: shares(e.flip(0))[: min(weights[n].shape)] for n, (e, _) in found.items()}
            budget = int(SHARE * sum(weight.numel() for weight in weights.values()))
            ranks = shared_out(gains, costs, budget)
        firsts = {n: vectors.flip(1)[:, : ranks[n]] for n, (_, vectors) in found.items()}
        return {name: (first, first.T @ weights[name]) for name, first in firsts.items()}

    return wrong


FACTOR_TINY = Exercise(
    reference=factor_tiny,
    cases=_tiny_and_text,
    compare=False,
    reached=_what_was_reached,
    seconds=60.0,
    hints=(
        "Factors of the outputs' first directions, and in each layer the same share of the "
        "numbers: 1.614 bits per byte. (Truncated SVD: 2.60.) What is left to choose are the "
        "ranks. Does each layer need its numbers as much as the next?",
        "One rank more costs a layer O + I numbers, and keeps one eigenvalue of H = W G Wᵀ, the "
        "energy of an output direction. But whose? `down` writes large numbers into the stream, "
        "and `query` small ones into a softmax: by energy alone `down` takes nearly all, and the "
        "loss is 2.88. What can be compared is a layer's share of its own energy.",
        "treat_blocks(model, tokens, look) with a `look` that only writes stage.moments.gram down. "
        "values, U = torch.linalg.eigh(W @ G @ W.T), ascending. A rank gains value / values.sum() "
        "/ (O + I): buy in falling order until 60 % are spent. left = the last r columns of U, "
        "right = left.T @ W: 1.516. There is more to find. Let each layer aim at what the dense "
        "model would give there: 1.455. Measure what each rank of one layer costs in loss: 1.393. "
        "Both: 1.36.",
    ),
    properties=(
        Property(
            "a pair of float32 tensors, (O, r) and (r, I), for each of the 28 weights, by name",
            _are_factors,
            form=True,
        ),
        Property(
            "all pairs together have at most 60 % of the weights' numbers",
            lambda inputs, value: _share(inputs, value) <= SHARE,
        ),
        Property(
            "with these products for its weights TinyLM needs at most 1.55 bits per byte, and not "
            "less than 1.25: nothing is to be trained",
            lambda inputs, value: FLOOR <= _loss(inputs, value) <= LOSS,
        ),
    ),
    misconceptions=(
        Misconception(
            "60 % of the ranks",
            _plain_of_ranks(_of_the_ranks),
            "each layer has 60 % of its singular values, and 89 % of its numbers: a rank of a "
            "square weight costs two rows. It takes r (O + I) ≤ 0.6 · O I.",
        ),
        Misconception(
            "truncated SVD",
            _plain_of_ranks(_even),
            "small enough, but nearest to the weights and not to the outputs. The weights are of "
            "full rank; what flows through them is not. There is a text to calibrate with.",
        ),
        Misconception(
            "even ranks",
            _outputs(None),
            "the right factors for these ranks, and the same share of numbers in each layer: it is "
            "what there is to beat. Which layer lives on few directions, and which needs many?",
        ),
        Misconception(
            "energies of different layers",
            _outputs(lambda energy: energy),
            "the ranks go where the outputs are largest, and that is `down`, whose numbers are a "
            "hundred times another's. An error counts against the size of what it spoils: take "
            "each direction's share of its own layer's energy.",
        ),
    ),
)
