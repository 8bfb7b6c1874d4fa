"""One walk through a decoder, for every method that treats its layers one after the other.

The layers of a block are treated in four stages; those of a stage share their input:

    x    → attention_norm → query, key, value → mix → output → + x = x'
    x'   → mlp_norm → gate, up → products → down → + x'

Each stage is given what the *treated* layers before it make of the calibration tokens: a layer can
then make up for errors before it, and sees the inputs that it will really have. Every part of a
block runs once, after what stands before it was treated. What is held: the tokens' states, one
stage's inputs, one stage's moments; so memory does not grow with the number of blocks.

Axes: B windows, T tokens, D model width, I inputs of a stage's layers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from course_lib.models.llama import Block, Llama, rotary_tables
from course_lib.models.moments import Moments
from course_lib.models.parts import AT_ONCE, DOWN, GATE_UP, OUTPUT, QKV


@dataclass(frozen=True, eq=False)
class Stage:
    """The layers of a block that share an input, and the moments of that input.

    number: of the block, from 0.
    block: the block itself; what stands before the stage has been treated.
    names: of the layers in the block, one of parts.STAGES.
    moments: of the inputs that the layers will be given.
    """

    number: int
    block: Block
    names: tuple[str, ...]
    moments: Moments

    @property
    def layers(self) -> list[nn.Linear]:
        return [self.block.get_submodule(name) for name in self.names]

    @property
    def weight_names(self) -> list[str]:
        """The names of the layers' weights in the whole model."""
        return [f"blocks.{self.number}.{name}.weight" for name in self.names]


Treat = Callable[[Stage], Tensor | None]


@torch.no_grad()
def treat_blocks(
    model: Llama,
    tokens: Tensor,
    treat: Treat,
    blocks: range | None = None,
    states: Tensor | None = None,
    progress: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """In place: treat the linear layers of a decoder, block by block and stage by stage.

    Args:
        model: changed by `treat`; hand over a copy.
        tokens: of the calibration text, (B, T).
        treat: changes or replaces a stage's layers. If it folds a scale s (I,) into what stands
            before the stage, so that the stage's inputs are from now on x / s, it returns s, of any
            float type.
        blocks: which blocks; all by default. To go on after the first n, `range(n, L)`.
        states: what block `blocks[0]` is given, (B, T, D): the result of an earlier call. By
            default the tokens' embeddings.
        progress: whether a bar shows the blocks.
        weights: how often each place of a window counts in the moments, (T,); once by default.

    Returns:
        What the block after the last treated one is given, (B, T, D).

    Raises:
        ValueError: tokens are not (B, T) or too long; blocks that there are not; blocks that do not
            begin at 0, and no states.

    >>> from course_lib.models.pretrained import tiny
    >>> seen = []
    >>> states = treat_blocks(tiny()[0], torch.zeros(1, 5).long(), lambda s: seen.append(s.names))
    >>> len(seen), seen[1], tuple(states.shape)
    (16, ('attention.output',), (1, 5, 192))
    """
    blocks = range(model.config.layers) if blocks is None else blocks
    _check(model, tokens, blocks, states)
    config, places = model.config, torch.arange(tokens.shape[1], device=tokens.device)
    tables = rotary_tables(places, config.head_width, config.rope_base)
    states = model.embedding(tokens) if states is None else states.clone()  # (B, T, D)
    for number in tqdm(blocks, desc="blocks", disable=not progress):
        _treat_block(number, model.blocks[number], states, tables, treat, weights)
    return states


def _treat_block(
    number: int,
    block: Block,
    states: Tensor,
    tables: tuple[Tensor, Tensor],
    treat: Treat,
    weights: Tensor | None,
) -> None:
    """In place, the states too: they become what the treated block makes of them."""

    def treated(names: tuple[str, ...], x: Tensor) -> tuple[Tensor, ...]:
        """The stage's inputs once its layers are treated, a few windows at a time."""
        moments = Moments.empty(x.shape[-1], torch.promote_types(x.dtype, torch.float32), x.device)
        for some in x.split(AT_ONCE):
            moments.add(some, weights)
        scale = treat(Stage(number, block, names, moments))
        return (x if scale is None else (x / scale).to(x.dtype)).split(AT_ONCE)

    attention, mlp = block.attention, block.mlp
    parts = treated(QKV, block.attention_norm(states))
    parts = treated(OUTPUT, torch.cat([attention.mix(some, *tables) for some in parts]))
    for x, some in zip(states.split(AT_ONCE), parts, strict=True):
        x += attention.output(some)
    parts = treated(GATE_UP, block.mlp_norm(states))
    parts = treated(DOWN, torch.cat([mlp.products(some) for some in parts]))
    for x, some in zip(states.split(AT_ONCE), parts, strict=True):
        x += mlp.down(some)


def _check(model: Llama, tokens: Tensor, blocks: range, states: Tensor | None) -> None:
    L, D, context = model.config.layers, model.config.width, model.config.context
    if tokens.dim() != 2 or not tokens.numel() or tokens.shape[1] > context:
        raise ValueError(
            f"tokens must have shape (B, T), T at most {context}; got {tuple(tokens.shape)}"
        )
    if blocks.step != 1 or not 0 <= blocks.start <= blocks.stop <= L:
        raise ValueError(f"blocks must lie in range(0, {L}), one by one; got {blocks}")
    if states is None and blocks.start != 0:
        raise ValueError(f"blocks from {blocks.start} on need states; got none")
    if states is not None and states.shape != (*tokens.shape, D):
        raise ValueError(f"states must have shape {(*tokens.shape, D)}; got {tuple(states.shape)}")
