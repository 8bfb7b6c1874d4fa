"""Linear layers whose inputs are quantized too: W8A8 and W4A4, n bits a weight and an activation.

    y = W x̂        x̂ = s · clamp(round(x / s), −q, q)        q = 2ⁿ⁻¹ − 1

    static, per tensor     s = max |x| / q over a calibration text, one number for a layer
    dynamic, per token     s = max |x| / q of each token, found as it comes

Static costs nothing at run time, but one huge number anywhere on the calibration text makes s large
for all tokens; dynamic makes it large for one token. The products here are of floats; those of the
codes (`quantization.integer_linear`) are equal to them up to rounding.

Source: the two granularities are those of Xiao et al., 2023, "SmoothQuant: Accurate and Efficient
Post-Training Quantization for Large Language Models".

Axes: T tokens, I inputs, O outputs.
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.finite import check_finite
from course_lib.models.llama import Llama
from course_lib.quantization.calibration import minmax_range
from course_lib.quantization.linear import Format, Grid, fake_quantize, fit_grid


class InputQuantized(nn.Linear):
    """A linear layer, with the same weight, that rounds its input to symmetric codes of n bits.

    Args:
        linear: the layer; its weight and bias are shared, not copied.
        bits: n, from 2 to 16.
        largest: max |x|, one number, for a static scale; a scale for each token if not given.

    Raises:
        ValueError: bits outside 2 … 16; largest is not one finite number ≥ 0. When it runs: an
            input is NaN or infinite.

    >>> linear = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(linear.weight)
    >>> x = torch.tensor([[7.0, 0.6], [0.7, 0.06]])
    >>> [round(y, 3) for y in InputQuantized(linear, bits=4)(x).flatten().tolist()]
    [8.0, 0.8]
    >>> InputQuantized(linear, bits=4, largest=torch.tensor(7.0))(x).flatten().tolist()
    [8.0, 1.0]
    """

    def __init__(self, linear: nn.Linear, bits: int, largest: Tensor | None = None):
        super().__init__(*linear.weight.T.shape, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.format = Format(bits, symmetric=True)
        scale = None if largest is None else _static_scale(largest, self.format)
        self.register_buffer("input_scale", scale)  # (1, 1) or none; it belongs into a file

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O), in the dtype of x."""
        rows = x.reshape(-1, x.shape[-1])  # (…, I) -> (T, I)
        if self.input_scale is None:
            grid = fit_grid(*minmax_range(rows), self.format)
        else:
            check_finite(rows, "the input")
            zero_point = torch.zeros_like(self.input_scale, dtype=torch.int32)
            grid = Grid(self.input_scale, zero_point, self.format)
        return F.linear(fake_quantize(rows, grid).to(x.dtype).view_as(x), self.weight, self.bias)


def _static_scale(largest: Tensor, format: Format) -> Tensor:
    check_finite(largest, "largest")
    if largest.numel() != 1 or largest < 0:
        raise ValueError(f"largest must be one number ≥ 0; got {largest}")
    largest = largest.view(1, 1)
    return fit_grid(-largest, largest, format).scale


def quantized_inputs(model: Llama, bits: int, maxima: Mapping[str, Tensor] | None = None) -> Llama:
    """A copy of a decoder whose blocks' linear layers round their inputs; weights stay as they are.

    The embedding and the head are left alone, as in the papers.

    Args:
        bits: n, from 2 to 16.
        maxima: for static scales, the name of each layer's weight -> max |x| of each channel, (I,),
            as `smoothquant.input_maxima` gives them. By default the scales are dynamic.

    Raises:
        ValueError: bits outside 2 … 16; maxima lack a layer, or are not finite.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.tensor([[3, 1, 4, 1, 5]])
    >>> exact = model(tokens)
    >>> errors = [(quantized_inputs(model, n)(tokens) - exact).abs().max() for n in (16, 8, 4)]
    >>> bool(errors[0] < 0.01 < errors[1] < 1 < errors[2])
    True
    """
    model = copy.deepcopy(model)
    for name, layer in list(model.blocks.named_modules()):
        if isinstance(layer, nn.Linear):
            largest = None if maxima is None else _largest(maxima, f"blocks.{name}.weight")
            model.blocks.set_submodule(name, InputQuantized(layer, bits, largest))
    return model


def _largest(maxima: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in maxima:
        raise ValueError(f"maxima must hold every linear layer of the blocks; {name} is missing")
    check_finite(maxima[name], f"the maxima of {name}")
    return maxima[name].amax()
