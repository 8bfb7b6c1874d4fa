"""Scale the inputs of a block's layers, channel by channel, without changing what the block does.

    W x = (W diag(s)) (x / s)

W diag(s) is a weight like any other. Nor does x / s cost anything, where what makes x can make
x / s just as well:

    query key value    x is attention_norm's     its weight / s
    output             x mixes values            the rows of value / s, if s suits (below)
    gate up            x is mlp_norm's           its weight / s
    down               x is silu(gate) · up      the rows of up / s

A value head feeds H/G query heads, each of which hands its mixture to channels of `output` of its
own. One row of value can only be divided by one number: s must be the same for these query heads.

Axes: I inputs of a layer, H query heads, G value heads (G divides H), E head width, D = H · E.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.language_models.rotation import TurnedMLP
from course_lib.models.finite import check_finite
from course_lib.models.llama import Block
from course_lib.models.parts import DOWN, GATE_UP, OUTPUT, QKV, STAGES

BEFORE = {
    QKV: "attention_norm",
    OUTPUT: "attention.value",
    GATE_UP: "mlp_norm",
    DOWN: "mlp.up",
}


@torch.no_grad()
def fold_scale(block: Block, names: tuple[str, ...], scale: Tensor) -> None:
    """In place: W ← W diag(s) in the layers of a stage, and what stands before gives x / s.

    The block's output stays the same up to rounding, as long as x / s and W diag(s) are within the
    float type.

    Args:
        block: of a decoder.
        names: of the stage's layers, one of `parts.STAGES`.
        scale: s, positive, (I,); for `output`, as `shared_by_heads` makes it.

    Raises:
        ValueError: unknown names, or `down` where its inputs are turned online; a scale that is not
            (I,), not positive or not finite, or differs between query heads that share a value
            head; a weight would leave its float type. Then the block is left as it was.

    >>> from course_lib.models.parts import DOWN
    >>> from course_lib.models.pretrained import tiny
    >>> block = tiny()[0].blocks[0]
    >>> x, scale = torch.randn(5, 192), torch.rand(512) + 0.5
    >>> before = block.mlp(x)
    >>> fold_scale(block, DOWN, scale)
    >>> torch.allclose(block.mlp(x), before, atol=1e-4)
    True
    """
    if names not in BEFORE:
        raise ValueError(f"names must be one of {STAGES}; got {names}")
    if names == DOWN and isinstance(block.mlp, TurnedMLP):
        raise ValueError(
            "names must not be those of down where what up makes is turned before down sees it"
        )
    layers = [block.get_submodule(name) for name in names]
    _check_scale(scale, layers[0])
    source = block.get_submodule(BEFORE[names])
    scale = scale.to(source.weight.device, torch.float64)
    divisor = scale
    if names == OUTPUT:
        divisor = _of_value_heads(block, scale)  # (D,) -> (G · E,)
    if source.weight.dim() == 2:
        divisor = divisor[:, None]  # one number a row
    new = {source: source.weight / divisor} | {layer: layer.weight * scale for layer in layers}
    new = {module: weight.to(module.weight.dtype) for module, weight in new.items()}
    for weight in new.values():
        check_finite(weight, f"a weight of {', '.join(names)} or before, scaled,")
    for module, weight in new.items():
        module.weight.copy_(weight)


def shared_by_heads(
    values: Tensor, block: Block, names: tuple[str, ...], pool: Callable[..., Tensor]
) -> Tensor:
    """One number for all the query heads that share a value head; other stages' stay as they are.

    Args:
        values: of the stage's inputs, (I,).
        block, names: as for `fold_scale`.
        pool: `torch.mean` or `torch.amax`, over the query heads.

    >>> from course_lib.models.parts import OUTPUT
    >>> from course_lib.models.llama import LlamaConfig
    >>> block = Block(LlamaConfig(9, 8, layers=1, heads=4, kv_heads=2, mlp_width=4, context=4))
    >>> shared_by_heads(torch.arange(8.0), block, OUTPUT, torch.mean)
    tensor([1., 2., 1., 2., 5., 6., 5., 6.])
    """
    if names != OUTPUT:
        return values
    heads = _heads(block, values)
    return pool(heads, dim=1, keepdim=True).expand_as(heads).reshape(-1)


def _heads(block: Block, values: Tensor) -> Tensor:
    """(H·E,) -> (G, H/G, E)."""
    attention = block.attention
    if len(set(attention.groups)) > 1:
        raise ValueError(
            "every key-value head must serve equally many query heads; here they serve "
            f"{', '.join(map(str, attention.groups))}"
        )
    return values.view(attention.kv_heads, -1, attention.head_width)


def _of_value_heads(block: Block, scale: Tensor) -> Tensor:
    heads = _heads(block, scale)
    if not heads.equal(heads[:, :1].expand_as(heads)):
        raise ValueError(
            "scale must be the same for the query heads that share a value head; "
            f"it differs by up to {(heads - heads[:, :1]).abs().max():.1g}"
        )
    return heads[:, 0].reshape(-1)  # (G, E) -> (G · E,)


def _check_scale(scale: Tensor, layer: nn.Linear) -> None:
    if scale.shape != (layer.in_features,):
        raise ValueError(f"scale must have shape ({layer.in_features},); got {tuple(scale.shape)}")
    check_finite(scale, "scale")
    if (scale <= 0).any():
        raise ValueError(f"scale must be positive; got {scale.min()}")
