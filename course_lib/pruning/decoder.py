"""A decoder's parts removed for real: MLP units, attention heads, residual width. Layers: `depth`.

What goes together, in a block (rows are outputs, columns are inputs):

    MLP unit          a row of gate and of up, a column of down
    query head        E rows of query, E columns of output
    key-value head    E rows of key and of value, with all the query heads that it serves
    residual width    a column of query, key, value, gate, up and a row of output, down in *every*
                      block, a column of the embedding and a number of every norm

The last matrix of a sublayer (down, output) can be mended by `repair`; the model has no biases, so
`fold_mean` has nothing to fold into. The config says what is left, block by block.

Sources: Michel et al., 2019, "Are Sixteen Heads Really Better than One?" (heads); Ma et al.,
2023, "LLM-Pruner: On the Structural Pruning of Large Language Models" (what goes together).

Axes: B windows, T tokens, L layers, D model width, H query heads, G key-value heads, E head width,
F hidden units of an MLP.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from course_lib.models.llama import Block, Llama
from course_lib.models.parts import record_inputs, walk_blocks
from course_lib.models.selection import check_keep
from course_lib.pruning.repair import refit
from course_lib.pruning.smaller import Mend, keep_inputs, keep_outputs


@torch.no_grad()
def shrink_mlps(
    model: Llama, keep: Sequence[Tensor], tokens: Tensor | None = None, mend: Mend = refit
) -> Llama:
    """A copy of the model whose MLPs have fewer hidden units; each layer may keep its own number.

    Args:
        keep: for each layer, True for the units that stay: (F,) bool.
        tokens: calibration text, (B, T). With it each `down` is mended, block by block, on what the
            shrunk blocks before it give. Without, nothing makes up for what went.
        mend: `repair.refit`.

    Raises:
        ValueError: keep has not L masks; one does not fit, or keeps nothing; what `mend` refuses.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> small = shrink_mlps(model, [torch.arange(512) < 300] * 4)
    >>> small.config.mlp_width, small.blocks[0].mlp.down
    (300, Linear(in_features=300, out_features=192, bias=False))
    """
    model = copy.deepcopy(model)
    shapes = list(model.config.shapes)
    for number, (block, arguments) in enumerate(_walk(model, keep, tokens)):
        mlp, mask = block.mlp, keep[number]
        check_keep(mask, mlp.down.in_features)
        given = _given(mlp.down, block, arguments)
        mlp.gate, mlp.up = keep_outputs(mlp.gate, mask), keep_outputs(mlp.up, mask)
        mlp.down = keep_inputs(mlp.down, mask, given, mend)
        shapes[number] = replace(shapes[number], mlp_width=mlp.down.in_features)
    model.config = model.config.with_shapes(shapes)
    return model


@torch.no_grad()
def shrink_heads(
    model: Llama, keep: Sequence[Tensor], tokens: Tensor | None = None, mend: Mend = refit
) -> Llama:
    """A copy of the model with fewer query heads; a key-value head that serves none goes, too.

    Args:
        keep: for each layer, True for the query heads that stay: (H,) bool. `whole_groups` makes
            such a mask of one for key-value heads.
        tokens, mend, Raises: as for `shrink_mlps`; it is `output` that is mended.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> small = shrink_heads(model, [torch.tensor([True, True, False, False, False, False])] * 4)
    >>> small.config.heads, small.config.kv_heads, small.config.head_width
    (2, 1, 32)
    """
    model = copy.deepcopy(model)
    shapes = list(model.config.shapes)
    for number, (block, arguments) in enumerate(_walk(model, keep, tokens)):
        attention, mask = block.attention, keep[number]
        check_keep(mask, attention.heads)
        given = _given(attention.output, block, arguments)
        served = [int(group.sum()) for group in mask.split(attention.groups)]
        _cut_heads(attention, mask, torch.tensor(served, device=mask.device) > 0)
        attention.output = keep_inputs(attention.output, mask, given, mend)
        groups = tuple(count for count in served if count)
        attention.groups, attention.heads, attention.kv_heads = groups, sum(groups), len(groups)
        shapes[number] = replace(shapes[number], groups=groups)
    model.config = model.config.with_shapes(shapes)
    return model


def whole_groups(keep: Tensor, groups: Sequence[int]) -> Tensor:
    """A mask of key-value heads (G,) as one of all the query heads that they serve: (H,).

    Args:
        groups: how many each serves, from `BlockShape.groups`.

    >>> whole_groups(torch.tensor([True, False]), (3, 2)).tolist()
    [True, True, True, False, False]
    """
    check_keep(keep, len(groups))
    return keep.repeat_interleave(torch.tensor(groups, device=keep.device))


@torch.no_grad()
def shrink_width(model: Llama, keep: Tensor) -> Llama:
    """A copy of the model whose residual stream is narrower: the same cut in all its blocks.

    RMSNorm divides by the root of a mean over D, which is now one over K. So that a part of x that
    was 0 for every token can go without a trace, w ← w √(D/K) and ε ← ε D/K.

    Args:
        keep: True for the components of x that stay, (D,) bool, K of them.

    Raises:
        ValueError: keep does not fit, or keeps nothing.

    >>> from course_lib.models.pretrained import tiny
    >>> shrink_width(tiny()[0], torch.arange(192) < 100).blocks[3].mlp.down
    Linear(in_features=512, out_features=100, bias=False)
    """
    config = model.config
    check_keep(keep, config.width)
    model, K = copy.deepcopy(model), int(keep.sum())
    growth = config.width / K
    for block in model.blocks:
        for part, last in ((block.attention, "output"), (block.mlp, "down")):
            for name, layer in part.named_children():
                setattr(part, name, (keep_outputs if name == last else keep_inputs)(layer, keep))
    norms = [norm for b in model.blocks for norm in (b.attention_norm, b.mlp_norm)]
    for norm in (*norms, model.norm):
        norm.weight = nn.Parameter(norm.weight[keep] * growth**0.5, norm.weight.requires_grad)
        norm.epsilon *= growth
    table = model.embedding.weight
    model.embedding = nn.Embedding.from_pretrained(table[:, keep], freeze=not table.requires_grad)
    if not config.tied:
        model.head = keep_inputs(model.head, keep)
    model.config = replace(
        config,
        width=K,
        norm_epsilon=config.norm_epsilon * growth,
        each_head=None if config.heads * config.head_width == K else config.head_width,
    )
    return model


def _walk(
    model: Llama, keep: Sequence[Tensor], tokens: Tensor | None
) -> Iterator[tuple[Block, tuple[Tensor, ...] | None]]:
    """Each block, with what reaches it if there are tokens."""
    if len(keep) != len(model.blocks):
        raise ValueError(f"keep must hold {len(model.blocks)} masks, one a layer; got {len(keep)}")
    if tokens is None:
        return ((block, None) for block in model.blocks)
    return walk_blocks(model, tokens)


def _given(layer: nn.Linear, block: Block, arguments: tuple[Tensor, ...] | None) -> Tensor | None:
    return None if arguments is None else record_inputs(block, arguments, [layer])[0]


def _cut_heads(attention: nn.Module, keep: Tensor, keep_kv: Tensor) -> None:
    """In place: the rows of query, key and value that belong to the heads that stay."""
    E = attention.head_width
    rows, kv_rows = keep.repeat_interleave(E), keep_kv.repeat_interleave(E)  # (H,) -> (H·E,)
    attention.query = keep_outputs(attention.query, rows)
    attention.key = keep_outputs(attention.key, kv_rows)
    attention.value = keep_outputs(attention.value, kv_rows)
