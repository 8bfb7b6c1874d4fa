"""One function a method, on whole models: a decoder and a calibration text in, a smaller one out.

What comes out is an ordinary model with new numbers in its linear layers, the embedding left alone;
where they lie on a grid, the codes come with it, and

    pack_model(model, codes)        of `formats.model_file`

is what a file holds: the very model, without another rounding.

Axes: B windows, T tokens, O outputs, I inputs.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.formats.linear import Codes, Scheme, nearest_codes
from course_lib.language_models.awq import clipped, scaled
from course_lib.language_models.gptq import gptq
from course_lib.language_models.quantized_inputs import quantized_inputs
from course_lib.language_models.smoothquant import input_maxima, smoothed
from course_lib.language_models.sparsegpt import sparsegpt
from course_lib.language_models.wanda import row_mask, wanda_score
from course_lib.models.llama import Llama
from course_lib.models.n_of_m import n_of_m_mask
from course_lib.models.parts import linear_weights
from course_lib.models.walk import Stage, treat_blocks

Coded = tuple[Llama, dict[str, Codes]]
Density = float | tuple[int, int]


@torch.no_grad()
def nearest_model(model: Llama, scheme: Scheme) -> Coded:
    """Every weight of the blocks at its nearest level: the model and its codes. No text is needed.

    >>> from course_lib.formats.linear import Format
    >>> from course_lib.models.pretrained import tiny
    >>> model, codes = nearest_model(tiny()[0], Scheme(Format(4), 64))
    >>> len(codes), codes["blocks.0.mlp.down.weight"].weight.shape
    (28, torch.Size([192, 512]))
    """
    model, codes = copy.deepcopy(model), {}
    for name, weight in linear_weights(model.blocks).items():
        name = f"blocks.{name}"
        codes[name] = nearest_codes(weight, scheme)
        weight.copy_(codes[name].weight)
    return model, codes


def gptq_model(
    model: Llama,
    tokens: Tensor,
    scheme: Scheme,
    act_order: bool = False,
    static_groups: bool = True,
    damping: float = 0.01,
    progress: bool = False,
    weights: Tensor | None = None,
) -> Coded:
    """`gptq` on every linear layer, on the inputs that the layers before it now give.

    Args:
        tokens: of the calibration text, (B, T).
        scheme, act_order, static_groups, damping: as for `gptq`.
        progress: whether a bar shows the blocks.
        weights: how often each place of a window counts, (T,); as for `treat_blocks`.

    Returns:
        The new model, and the codes of its weights by name.
    """
    model, codes = copy.deepcopy(model), {}

    def treat(stage: Stage) -> None:
        def chosen(weight: Tensor) -> Codes:
            gram = stage.moments.gram
            return gptq(weight, gram, scheme, act_order, static_groups, damping)

        matrices = [layer.weight for layer in stage.layers]
        if scheme.granularity == "tensor":
            parts = [chosen(weight) for weight in matrices]
        else:  # rows do not know of each other: one pass for the layers of a stage
            parts = _split(chosen(torch.cat(matrices)), [len(weight) for weight in matrices])
        for name, weight, part in zip(stage.weight_names, matrices, parts, strict=True):
            weight.copy_(part.weight)
            codes[name] = part

    treat_blocks(model, tokens, treat, progress=progress, weights=weights)
    return model, codes


def _split(codes: Codes, outputs: list[int]) -> list[Codes]:
    """The codes of layers that lay on top of each other, where each output has rows of its own."""
    rows_each, parts, start = len(codes.grid.scale) // len(codes.codes), [], 0
    for count in outputs:
        stop = start + count
        rows = slice(start * rows_each, stop * rows_each)
        parts.append(Codes(codes.codes[start:stop], codes.grid[rows]))
        start = stop
    return parts


def wanda_model(model: Llama, tokens: Tensor, density: Density, progress: bool = False) -> Llama:
    """Every linear layer's mask by `wanda`: a share of each row, or n of m, and no repair.

    Args:
        tokens: of the calibration text, (B, T).
        density: share of each output's weights that stay; or (n, m).
    """

    def pruned(weight: Tensor, stage: Stage) -> Tensor:
        score = wanda_score(weight, stage.moments.gram)
        mask = (
            n_of_m_mask(score, *density) if isinstance(density, tuple) else row_mask(score, density)
        )
        return weight.masked_fill(~mask, 0)

    return _each_layer(model, tokens, pruned, progress)


def sparsegpt_model(
    model: Llama, tokens: Tensor, density: Density, damping: float = 0.01, progress: bool = False
) -> Llama:
    """`sparsegpt` on every linear layer. Args: as for `wanda_model`, damping as for `sparsegpt`."""

    def pruned(weight: Tensor, stage: Stage) -> Tensor:
        return sparsegpt(weight, stage.moments.gram, density, damping=damping)

    return _each_layer(model, tokens, pruned, progress)


def _each_layer(
    model: Llama, tokens: Tensor, change: Callable[[Tensor, Stage], Tensor], progress: bool
) -> Llama:
    model = copy.deepcopy(model)

    def treat(stage: Stage) -> None:
        for layer in stage.layers:
            layer.weight.copy_(change(layer.weight, stage))

    treat_blocks(model, tokens, treat, progress=progress)
    return model


@torch.no_grad()
def awq_model(model: Llama, tokens: Tensor, scheme: Scheme, progress: bool = False) -> Coded:
    """AWQ: scales folded into the model, then ranges that clip, then every weight to its nearest.

    Args:
        tokens: of the calibration text, (B, T).
        scheme: its own ranges serve while the scales are searched.
        progress: whether a bar shows the blocks, twice.

    Returns:
        The new model, norms included, and the codes of its weights by name.
    """
    model = scaled(model, tokens, scheme, progress)
    codes = {}
    for name, chosen in clipped(model, tokens, scheme, progress).items():
        weight = model.get_parameter(name)
        codes[name] = nearest_codes(weight, chosen)
        weight.copy_(codes[name].weight)
    return model, codes


def smoothquant_model(
    model: Llama,
    tokens: Tensor,
    scheme: Scheme,
    static: bool,
    alpha: float = 0.5,
    progress: bool = False,
) -> Coded:
    """SmoothQuant: smoothed, every weight to its nearest level, and inputs of as many bits.

    Args:
        tokens: of the calibration text, (B, T).
        scheme: of the weights; its bits are the inputs', too.
        static: whether a layer's inputs have one scale for all tokens, or each token its own.
        alpha: as for `smoothing_scale`.
        progress: whether a bar shows the blocks.

    Returns:
        The new model, whose layers round their inputs, and the codes of its weights by name.
    """
    model, codes = nearest_model(smoothed(model, tokens, alpha, progress), scheme)
    maxima = input_maxima(model, tokens, progress) if static else None
    return quantized_inputs(model, scheme.format.bits, maxima), codes
