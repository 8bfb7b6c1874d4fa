"""SmoothQuant: inputs that are hard to round lend some of their spread to weights that are easy.

A few channels of x are a hundred times larger than the others. One scale for all of x is then so
coarse that the others are rounded to nothing; weights have no such columns. A scale s folded
between them (`folding`) makes the first smaller and the second larger, by as much as we like:

    s_j = (max |x_j|)^α / (max |W_j|)^(1 − α)        α = ½: both then reach √(max |x_j| max |W_j|)

Here all four stages of a block are smoothed; the authors fold into the norms only, so `output` and
`down` stay as they were.

Source: Xiao et al., 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models".

Axes: O outputs, I inputs.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.language_models.folding import fold_scale, shared_by_heads
from course_lib.models.finite import check_finite
from course_lib.models.llama import Llama
from course_lib.models.walk import Stage, treat_blocks

FLOOR = 1e-5  # of the largest channel: one where nothing flows, or that nobody reads, has a scale


def smoothing_scale(maxima: Tensor, weights: Sequence[Tensor], alpha: float = 0.5) -> Tensor:
    """s_j = (max |x_j|)^α / (max |W_j|)^(1 − α), for layers that share an input.

    Args:
        maxima: max |x_j| of each channel over a calibration text, (I,).
        weights: W of each layer, (O, I); W_j are the columns of all of them.
        alpha: α, from 0 (weights alone count) to 1 (inputs alone).

    Returns:
        s (I,), positive. Channels below 10⁻⁵ of the largest count as that much; if all inputs or
        all weights are 0, s is 1.

    Raises:
        TypeError: maxima or a weight are not of floats.
        ValueError: maxima or a weight are NaN or infinite, a maximum is below 0, shapes differ,
            alpha is outside 0 … 1.

    >>> smoothing_scale(torch.tensor([16.0, 1.0]), [torch.tensor([[1.0, -1.0]])])
    tensor([4., 1.])
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1; got {alpha}")
    check_finite(maxima, "maxima")
    if maxima.dim() != 1 or maxima.min() < 0:
        raise ValueError(f"maxima must have shape (I,) and be ≥ 0; got {tuple(maxima.shape)}")
    columns = torch.zeros_like(maxima, dtype=torch.promote_types(maxima.dtype, torch.float32))
    for weight in weights:
        check_finite(weight, "weight")
        if weight.dim() != 2 or weight.shape[1] != len(maxima):
            raise ValueError(
                f"weights must have shape (O, {len(maxima)}); got {tuple(weight.shape)}"
            )
        columns = torch.maximum(columns, weight.abs().amax(dim=0).to(columns))
    if maxima.max() == 0 or columns.max() == 0:
        return torch.ones_like(columns)
    inputs = maxima.to(columns).clamp(min=FLOOR * maxima.max())
    return inputs**alpha / columns.clamp(min=FLOOR * columns.max()) ** (1 - alpha)


def smoothed(model: Llama, tokens: Tensor, alpha: float = 0.5, progress: bool = False) -> Llama:
    """A copy of a decoder that does the same, each stage with `smoothing_scale` folded in.

    Args:
        tokens: of the calibration text, (B, T).
        alpha: as for `smoothing_scale`.
        progress: whether a bar shows the blocks.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.arange(60).view(2, 30)
    >>> torch.allclose(smoothed(model, tokens)(tokens), model(tokens), atol=1e-3)
    True
    """
    model = copy.deepcopy(model)

    def treat(stage: Stage) -> Tensor:
        maxima = shared_by_heads(stage.moments.max_abs, stage.block, stage.names, torch.amax)
        scale = smoothing_scale(maxima, [layer.weight for layer in stage.layers], alpha)
        scale = shared_by_heads(scale, stage.block, stage.names, torch.amax)
        fold_scale(stage.block, stage.names, scale)
        return scale

    treat_blocks(model, tokens, treat, progress=progress)
    return model


def input_maxima(model: Llama, tokens: Tensor, progress: bool = False) -> dict[str, Tensor]:
    """The name of each linear layer's weight in the blocks -> max |x_j| of each channel, (I,).

    Args: as for `smoothed`.

    >>> from course_lib.models.pretrained import tiny
    >>> maxima = input_maxima(tiny()[0], torch.arange(60).view(2, 30))
    >>> maxima["blocks.0.mlp.down.weight"].shape
    torch.Size([512])
    """
    maxima = {}

    def treat(stage: Stage) -> None:
        maxima.update(dict.fromkeys(stage.weight_names, stage.moments.max_abs))

    treat_blocks(model, tokens, treat, progress=progress)
    return maxima
