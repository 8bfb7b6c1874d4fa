"""Each token goes through some of the layers: a rule says which, before each layer.

    x_t ← block(x)_t    if the rule lets token t in,     else x_t stays as it is

What the tokens after it need of a token that does not go in are its keys and values. They are made
of the x that it has, so that nothing is missing: this costs two of the block's seven matrices, the
smallest. The rule sees x as the layer is given it. So it cannot look at a later layer, and a token
is never ruled by the tokens that follow it.

Here every block runs for all tokens, and what was not wanted is thrown away: this is to measure the
loss with. `token_products` counts what a machine needs that leaves out what can be left out, and
`early_exit.exit_step` leaves it out.

Sources: Elbayad et al., 2020, "Depth-Adaptive Transformer"; Schuster et al., 2022,
"Confident Adaptive Language Modeling" (keys and values of tokens that have left).

Axes: B windows, T tokens, D model width, V vocabulary, L layers, H query heads, E head width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.models.llama import Block, Llama
from course_lib.models.parts import embed, read_logits
from course_lib.models.selection import check_mask

# (number of a layer, x (B, T, D) that it is given) -> True for the tokens that go in, (B, T).
Rule = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class ByToken:
    """What a decoder gave, and which token went through which layer."""

    logits: Tensor  # (B, T, V)
    used: Tensor  # (L, B, T) bool

    @property
    def layers(self) -> Tensor:
        """How many layers each token used: (B, T)."""
        return self.used.sum(dim=0)


@torch.no_grad()
def run_by_token(model: Llama, tokens: Tensor, rule: Rule) -> ByToken:
    """The decoder's logits where each token goes through the layers that the rule lets it into.

    Args:
        tokens: (B, T).
        rule: asked once for each layer, from the first to the last.

    Raises:
        ValueError: the rule's answer is not bool of shape (B, T).

    >>> from course_lib.models.pretrained import tiny
    >>> tokens = torch.arange(9)[None]
    >>> run_by_token(tiny()[0], tokens, lambda number, x: (tokens > 4) | (number < 2)).layers
    tensor([[2, 2, 2, 2, 2, 4, 4, 4, 4]])
    """
    x, cos, sin = embed(model, tokens)
    used = []
    for number, block in enumerate(model.blocks):
        used.append(rule(number, x))
        check_mask("what the rule gives", used[-1], tuple(tokens.shape))
        x = torch.where(used[-1].unsqueeze(-1), block(x, cos, sin), x)  # (B, T) -> (B, T, 1)
    return ByToken(read_logits(model, x), torch.stack(used))


class RunByToken(nn.Module):
    """A decoder under a rule, to be measured like any other: tokens to logits."""

    def __init__(self, model: Llama, rule: Rule):
        super().__init__()
        self.model, self.config, self.rule = model, model.config, rule

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        return run_by_token(self.model, tokens, self.rule).logits


def token_products(model: Llama, used: Tensor, heads: Tensor | int = 1) -> Tensor:
    """Products of two numbers that each token needs: (B, T), int64.

    A layer that is used: its matrices, and 2 H E for each token up to this one, as query · key and
    as weight · value. One that is not: key and value alone. Each time that the head is asked: V D.

    Args:
        used: (L, B, T) bool, from `run_by_token`; windows begin at their first token.
        heads: how often each token asks the head, (B, T), or one number for all.

    Raises:
        ValueError: used is not bool, or not for the model's L layers.

    >>> from course_lib.models.pretrained import tiny
    >>> used = torch.tensor([True, True, True, False]).view(4, 1, 1)
    >>> token_products(tiny()[0], used).tolist(), token_products(tiny()[0], used, heads=3).tolist()
    ([[1598592]], [[2385024]])
    """
    if used.dim() != 3:
        raise ValueError(f"used must be (L, B, T); got shape {tuple(used.shape)}")
    check_mask("used", used, (len(model.blocks), *used.shape[1:]))
    seen = torch.arange(1, used.shape[2] + 1, device=used.device)  # (T,), the token itself too
    total = torch.zeros(used.shape[1:], dtype=torch.int64, device=used.device)
    for block, inside in zip(model.blocks, used, strict=True):
        whole, kept = _matrices(block)
        attended = 2 * block.attention.output.in_features * seen
        total += torch.where(inside, whole + attended, kept)
    return total + heads * model.embedding.weight.numel()


def _matrices(block: Block) -> tuple[int, int]:
    """Weights of a block's matrices, and of key and value alone."""
    kept = block.attention.key.weight.numel() + block.attention.value.weight.numel()
    return sum(p.numel() for p in block.parameters() if p.dim() == 2), kept
