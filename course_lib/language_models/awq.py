"""AWQ: the weights that meet large inputs are rounded more finely. Nothing else is changed.

Rounding errs by up to half a step, whatever the weight. What an error costs depends on what flows
in: channel j of x multiplies it. So the columns of W are scaled by s, and x by 1/s (`folding`): a
column with s = 2 has half the error, relative to its weights, as long as its group's step stays
what it was. Which s? Large inputs get large scales; how large is tried out:

    s_j = (mean |x_j|)^α        α ∈ {0, 0.05 … 0.95}, the one with the least output error

The second search is for the ranges of the groups: where the largest weights are clipped, the step
is smaller for all others. Each group tries the shares γ ∈ {1, 0.95 … 0.55} of its largest weight.

Output errors are δᵀ G δ from the Gram matrix G (`moments`), and need no tokens any more. The
authors' program runs the layers again for each candidate. And it measures what the scales of query,
key, value, gate and up do to the output of the whole attention or MLP, here to the layers' own.

Source: Lin et al., 2024, "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression
and Acceleration".

Axes: O outputs, I inputs, R rows sharing a range, C numbers in a row (a group, or all I).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.formats.linear import Scheme
from course_lib.language_models.columns import check_layer
from course_lib.language_models.folding import fold_scale, shared_by_heads
from course_lib.models.finite import check_finite
from course_lib.models.llama import Llama
from course_lib.models.moments import Moments, output_error
from course_lib.models.walk import Stage, treat_blocks
from course_lib.quantization.calibration import Range, minmax_range
from course_lib.quantization.linear import Format, fake_quantize, fit_grid
from course_lib.quantization.rows import row_blocks, to_rows

EXPONENTS = tuple(step / 20 for step in range(20))  # α
SHARES = 10  # how many γ: 1, 0.95 … 0.55
FLOOR = 1e-4  # of the largest mean |x|: a channel where nothing flows has a scale, too


@torch.no_grad()
def search_scale(
    weights: Sequence[Tensor], moments: Moments, quantize: Callable[[Tensor], Tensor]
) -> Tensor:
    """The scale of the channels that lets layers with one input be rounded at the least cost.

        s(α) = m^α / √(max m^α · min m^α)        m = mean |x| of each channel
        α* = argmin Σ ‖(Q(W diag(s)) diag(1/s) − W) x‖²

    α = 0 is among the candidates, so the error is never above that of Q(W).

    Args:
        weights: W of each layer, (O, I); O may differ.
        moments: of their input x.
        quantize: Q, a weight (O, I) -> the weight that its codes stand for.

    Returns:
        s (I,), positive, float32 or wider; ones if nothing flows in.

    Raises:
        TypeError: weights are not floats.
        ValueError: a weight or the moments are NaN or infinite, or their shapes differ.

    >>> weight = torch.tensor([[0.5, 1.0, 3.0]])
    >>> moments = Moments.empty(3).add(torch.tensor([[100.0, 1.0, 1.0]]))
    >>> search_scale([weight], moments, torch.round)
    tensor([3.9811, 0.2512, 0.2512])
    """
    wide = [_wide(weight, moments.gram) for weight in weights]
    check_finite(moments.mean_abs, "mean_abs")
    mean = moments.mean_abs.clamp(min=FLOOR * moments.mean_abs.max())
    best, least = torch.ones_like(mean), None
    for exponent in EXPONENTS:
        scale = _normalized(mean**exponent)
        error = sum(_scaled_error(weight, moments.gram, scale, quantize) for weight in wide)
        if least is None or error < least:
            best, least = scale, error
    return best


def _normalized(scale: Tensor) -> Tensor:
    """Geometrically centred on 1; of nothing but zeros, ones."""
    if scale.max() == 0:
        return torch.ones_like(scale)
    return scale / (scale.max() * scale.min()).sqrt()


def _scaled_error(weight: Tensor, gram: Tensor, scale: Tensor, quantize: Callable) -> float:
    change = quantize(weight * scale) / scale - weight
    return output_error(change, gram).sum().item()


@torch.no_grad()
@without_autocast
def search_clip(weight: Tensor, gram: Tensor, format: Format, granularity: str | int) -> Range:
    """The range of each group that costs its part of the output the least: low and high, (R, 1).

        [max(low, −γ m), min(high, γ m)]        low ≤ 0 ≤ high, m = max |w| of the group
        γ* = argmin over {1, 0.95 … 0.55} of δᵀ G δ

    where G is the group's part of the Gram matrix: how the errors of two groups add up is left out,
    as in the authors' program. γ = 1 is among the candidates.

    Args:
        weight: (O, I).
        gram: of its inputs, (I, I).
        format: of the codes.
        granularity: "channel" or the group size, which divides I.

    Returns:
        low and high, (R, 1) each, for a `Scheme`: `calibrate=lambda rows, format: (low, high)`.

    Raises:
        TypeError: the weight is not of floats.
        ValueError: weight or gram are NaN or infinite, or do not fit; the granularity is "tensor",
            or what `to_rows` refuses.

    >>> weight, gram = torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.tensor([9, 9, 9, 0.1]).diag()
    >>> search_clip(weight, gram, Format(2), "channel")
    (tensor([[0.]]), tensor([[3.3000]]))
    """
    if granularity == "tensor":
        raise ValueError('granularity must be "channel" or a group size; got "tensor"')
    weight = _wide(weight, gram)
    rows = to_rows(weight, granularity)  # (O, I) -> (R, C)
    C = rows.shape[1]
    per_output = weight.shape[1] // C
    # (I, I) -> (I/C, C, C): the squares along the diagonal
    grams = torch.stack([gram[i : i + C, i : i + C] for i in range(0, len(gram), C)])
    low, high = minmax_range(rows)
    low, high = low.clamp(max=0), high.clamp(min=0)  # as the levels will be stretched to hold 0
    largest = torch.maximum(low.abs(), high.abs())
    share = torch.ones_like(low)
    for i in row_blocks(weight):  # of outputs; each has I/C rows
        i = slice(i.start * per_output, i.stop * per_output)
        share[i] = _best_share(rows[i], low[i], high[i], grams, format)
    return torch.maximum(low, -share * largest), torch.minimum(high, share * largest)


def _best_share(rows: Tensor, low: Tensor, high: Tensor, grams: Tensor, format: Format) -> Tensor:
    """γ* of the rows of some outputs: (R, 1). Errors in steps, w/s − q, need the fewest passes."""
    largest = torch.maximum(low.abs(), high.abs())
    whole = fit_grid(low, high, format).scale
    shares = 1 - torch.arange(SHARES, device=rows.device, dtype=rows.dtype) / 20
    errors = []
    for share in shares:
        ends = torch.maximum(low, -share * largest), torch.minimum(high, share * largest)
        grid = fit_grid(*ends, format)
        zero_point = grid.zero_point.to(rows.dtype)
        change = torch.addcmul(zero_point, rows, 1 / grid.scale)
        change -= change.round().clamp_(format.lowest, format.highest)
        per_group = change.view(-1, len(grams), rows.shape[1]).transpose(0, 1)  # (I/C, O, C)
        error = (per_group @ grams).mul_(per_group).sum(dim=2)  # (I/C, O, C) -> (I/C, O)
        errors.append(error.T.reshape(-1, 1) * (grid.scale / whole).square())  # (R, 1)
    chosen = torch.stack(errors).argmin(dim=0)  # (K, R, 1) -> (R, 1); of equal ones the widest
    return shares[chosen]


def _wide(weight: Tensor, gram: Tensor) -> Tensor:
    """A weight in the Gram matrix's type, once both are finite and fit."""
    check_layer(weight, gram)
    check_finite(gram, "gram")
    return weight.to(gram.dtype)


def scaled(model: Llama, tokens: Tensor, scheme: Scheme, progress: bool = False) -> Llama:
    """A copy of a decoder that does the same, scaled for being rounded by a scheme.

    As in the authors' program, all scales are found for the inputs of the exact model.

    Args:
        tokens: of the calibration text, (B, T).
        scheme: how every linear layer of the blocks will be quantized.
        progress: whether a bar shows the blocks.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.arange(60).view(2, 30)
    >>> ready = scaled(model, tokens, Scheme(Format(3), 64))
    >>> torch.allclose(ready(tokens), model(tokens), atol=1e-3)
    True
    """
    model = copy.deepcopy(model)

    def treat(stage: Stage) -> Tensor:
        mean = shared_by_heads(stage.moments.mean_abs, stage.block, stage.names, torch.mean)
        weights = [layer.weight for layer in stage.layers]
        scale = search_scale(weights, replace(stage.moments, mean_abs=mean), quantize)
        # A power of equal numbers may differ in the last bit, at the end of a processor's vector.
        scale = shared_by_heads(scale, stage.block, stage.names, torch.mean)
        fold_scale(stage.block, stage.names, scale)
        return scale

    def quantize(weight: Tensor) -> Tensor:
        rows = to_rows(weight, scheme.granularity)
        grid = fit_grid(*scheme.calibrate(rows, scheme.format), scheme.format)
        return fake_quantize(rows, grid).view_as(weight)

    treat_blocks(model, tokens, treat, progress=progress)
    return model


def clipped(
    model: Llama, tokens: Tensor, scheme: Scheme, progress: bool = False
) -> dict[str, Scheme]:
    """For the weight of each linear layer of the blocks, a scheme with the ranges that cost least.

    The schemes are for `model_file.pack_model`. The authors do not clip query and key, since what
    counts is their product; here it pays.

    Args: as for `scaled`, whose result is a good model to clip.

    >>> from course_lib.models.pretrained import tiny
    >>> schemes = clipped(tiny()[0], torch.arange(60).view(2, 30), Scheme(Format(3), 64))
    >>> len(schemes), next(iter(schemes))
    (28, 'blocks.0.attention.query.weight')
    """
    schemes = {}

    def treat(stage: Stage) -> None:
        for name, layer in zip(stage.weight_names, stage.layers, strict=True):
            gram = stage.moments.gram
            found = search_clip(layer.weight, gram, scheme.format, scheme.granularity)
            schemes[name] = replace(scheme, calibrate=lambda *_, found=found: found)

    treat_blocks(model, tokens, treat, progress=progress)
    return schemes
