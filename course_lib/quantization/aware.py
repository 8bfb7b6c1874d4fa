"""Quantization-aware training: a model whose linear layers compute with rounded weights and learn.

    y = Q_x(x) · Q_w(W)ᵀ + b

The weight W stays a float, and the optimizer moves it; forward sees only its level. When W has
moved far enough, the level changes. Nothing is trained here: an aware model is a model, for
`training.train` or for `distillation.training.distill`, where the float model may be the teacher.

What has been learned goes to a file by `formats.aware.exported`.

Sources: Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"; Ma et al., 2024, "The Era of 1-bit LLMs: All Large Language
Models are in 1.58 Bits" (`bit_linear`).

Axes: O outputs, I inputs, T tokens.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.parts import record_inputs, replace_modules
from course_lib.quantization.roundings import TokenInput, ToSigns
from course_lib.quantization.ternary import absmean_signs


class AwareLinear(nn.Linear):
    """A linear layer that rounds its weight, and perhaps its input, on the way.

    Its weight and bias are the very parameters of the layer that it is made of.

    Args:
        layer: whose place it takes.
        rounding: of the weight; one of `roundings`.
        inputs: of the input, if that is rounded, too.

    >>> layer = nn.Linear(3, 1, bias=False)
    >>> layer.weight = nn.Parameter(torch.tensor([[1.0, 0.1, -0.9]]))
    >>> AwareLinear(layer, ToSigns())(torch.tensor([1.0, 1.0, 0.0])).item()  # 0.95, as float16
    0.9501953125
    """

    def __init__(self, layer: nn.Linear, rounding: nn.Module, inputs: nn.Module | None = None):
        O, I = layer.weight.shape  # noqa: E741
        super().__init__(I, O, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.rounding, self.inputs = rounding, inputs

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.inputs is None else self.inputs(x)
        return F.linear(x, self.rounding(self.weight), self.bias)


def bit_linear(layer: nn.Linear, bits: int = 8) -> AwareLinear:
    """BitNet b1.58's layer: weights −α, 0, α with α = mean |w|, inputs of 8 bits a token.

    The paper has a norm before it, which the blocks of a Llama have before most of their layers.

    Source: Ma et al., 2024, "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits".

    >>> layer = bit_linear(nn.Linear(4, 2))
    >>> layer.rounding(layer.weight).abs().unique().numel() <= 2
    True
    """
    return AwareLinear(layer, ToSigns(absmean_signs, "tensor"), TokenInput(bits))


def aware_model(
    model: nn.Module,
    quantizer: Callable[[Tensor], nn.Module],
    inputs: Callable[[Tensor], nn.Module] | None = None,
    calibration: Tensor | tuple[Tensor, ...] = (),
) -> nn.Module:
    """A copy whose linear layers compute with rounded weights; all its parameters learn.

    Ranges are calibrated first: those of weights on the weights, those of inputs on what reaches
    each layer when its own weights and those of the others are rounded.

    Args:
        model: left as it is; embeddings and norms are not rounded.
        quantizer: weight (O, I) -> its rounding, such as `partial(LearnedStep, format=Format(3))`.
        inputs: inputs (N, I) that a layer was given -> their rounding; none if not given.
        calibration: what the model takes, to record those inputs.

    Raises:
        ValueError: the model has no linear layer; what the roundings refuse.

    >>> from functools import partial
    >>> from course_lib.quantization.linear import Format
    >>> from course_lib.quantization.roundings import LearnedStep
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> aware = aware_model(model, partial(LearnedStep, format=Format(2)))
    >>> sorted(name for name, _ in aware.named_parameters() if "log_step" in name)
    ['0.rounding.log_step', '2.rounding.log_step']
    >>> aware(torch.randn(3, 8)).sum().backward()
    """
    aware = replace_modules(
        model, nn.Linear, lambda layer: AwareLinear(layer, quantizer(layer.weight))
    ).requires_grad_()
    layers = list(aware_layers(aware).values())
    if not layers:
        raise ValueError("model must have linear layers (nn.Linear); it has none")
    if inputs is not None:
        for layer, x in zip(layers, record_inputs(aware, calibration, layers), strict=True):
            layer.inputs = inputs(x)
    return aware


def aware_layers(model: nn.Module) -> dict[str, AwareLinear]:
    """The layers that round, by name, each once."""
    return {n: part for n, part in model.named_modules() if isinstance(part, AwareLinear)}


@torch.no_grad()
def settled(model: nn.Module) -> nn.Module:
    """A copy with the rounded weights in place of those that learned; its outputs are the same.

    A layer whose input is not rounded is an ordinary linear layer again; one whose input is keeps
    that rounding, and its parameter.

    >>> aware = aware_model(nn.Linear(8, 4), lambda weight: ToSigns())
    >>> x, plain = torch.randn(3, 8), settled(aware)
    >>> type(plain).__name__, torch.equal(plain(x), aware(x))
    ('Linear', True)
    """
    return replace_modules(model, AwareLinear, _settled)


def _settled(layer: AwareLinear) -> nn.Linear:
    weight = layer.rounding(layer.weight)
    plain = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
    plain.weight, plain.bias = nn.Parameter(weight), layer.bias
    return plain if layer.inputs is None else AwareLinear(plain, nn.Identity(), layer.inputs)
