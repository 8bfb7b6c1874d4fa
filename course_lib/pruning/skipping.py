"""Tokens skip a layer that would hardly turn their x: a linear router foretells who.

    influence of a layer on a token     1 − cos(x before, x after)     its mean is the layer's own
    router                              w · x + b ≈ influence          skip if at most a threshold

To foretell costs D products, where a layer has several hundred thousand. Controls: as many tokens
drawn at random, and the oracle, who has computed the layer already.

Sources: Raposo et al., 2024, "Mixture-of-Depths: Dynamically Allocating Compute in
Transformer-Based Language Models" (routers, trained with the model); Men et al., 2024, "ShortGPT:
Layers in Large Language Models are More Redundant Than You Expect" (influence).

Axes: B windows, T tokens, D model width, L layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.llama import Llama
from course_lib.models.parts import embed
from course_lib.pruning.by_token import Rule
from course_lib.pruning.contextual import fit_predictor


@dataclass(frozen=True)
class Router:
    """Lets those tokens in whose score exceeds a threshold."""

    score: nn.Module  # (…, D) -> (…, 1)
    threshold: float

    def __call__(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T) bool."""
        return self.score(x).squeeze(-1) > self.threshold


@torch.no_grad()
def token_influence(model: Llama, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What each layer is given, (L, B, T, D), and how much it turns it, 1 − cos: (L, B, T).

    >>> from course_lib.models.pretrained import tiny
    >>> given, influence = token_influence(tiny()[0], torch.arange(9)[None])
    >>> given.shape, influence.shape
    (torch.Size([4, 1, 9, 192]), torch.Size([4, 1, 9]))
    """
    x, cos, sin = embed(model, tokens)
    given, influence = [], []
    for block in model.blocks:
        after = block(x, cos, sin)
        given.append(x)
        influence.append(1 - F.cosine_similarity(x, after, dim=-1))
        x = after
    return torch.stack(given), torch.stack(influence)


@torch.no_grad()
def fit_routers(
    model: Llama, tokens: Tensor, layers: Iterable[int], share: float
) -> dict[int, Router]:
    """A router for each of some layers, fitted by least squares on a calibration text.

    Args:
        tokens: (B, T).
        layers: their numbers, from 0 to L − 1.
        share: of the text's tokens that are to skip such a layer, from 0 to 1.

    Raises:
        ValueError: share or a number is out of range.

    >>> from course_lib.models.pretrained import tiny
    >>> routers = fit_routers(tiny()[0], torch.arange(40)[None], layers=[2], share=0.25)
    >>> list(routers), routers[2](torch.zeros(1, 3, 192)).shape
    ([2], torch.Size([1, 3]))
    """
    numbers = list(layers)
    if not 0 <= share <= 1 or not set(numbers) <= set(range(len(model.blocks))):
        raise ValueError(
            f"share must be from 0 to 1, layers from 0 to {len(model.blocks) - 1}; "
            f"got {share} and {numbers}"
        )
    given, influence = token_influence(model, tokens)
    routers = {}
    for number in numbers:
        x = given[number].flatten(0, 1)  # (B, T, D) -> (B · T, D)
        score = fit_predictor(x, influence[number].flatten()[:, None], rank=1)
        ordered = score(x).flatten().sort().values
        gone = round(share * len(ordered))
        threshold = ordered[gone - 1].item() if gone else -torch.inf
        routers[number] = Router(score, threshold)
    return routers


def by_routers(routers: dict[int, Router]) -> Rule:
    """The rule for `run_by_token`: where there is no router, all tokens go in.

    >>> by_routers({})(0, torch.zeros(1, 3, 192)).tolist()
    [[True, True, True]]
    """

    def rule(number: int, x: Tensor) -> Tensor:
        if number in routers:
            return routers[number](x)
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    return rule


def at_random(layers: Iterable[int], share: float, generator: torch.Generator) -> Rule:
    """The control: each token skips these layers with this probability.

    >>> rule = at_random([2], 1.0, torch.Generator().manual_seed(0))
    >>> rule(1, torch.zeros(1, 2, 4)).tolist(), rule(2, torch.zeros(1, 2, 4)).tolist()
    ([[True, True]], [[False, False]])
    """
    chosen = set(layers)

    def rule(number: int, x: Tensor) -> Tensor:
        drawn = torch.rand(x.shape[:2], generator=generator)  # on the CPU, as the generator is
        return (drawn >= share).to(x.device) | (number not in chosen)

    return rule
