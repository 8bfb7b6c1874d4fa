"""A model's weights, quantized and packed for a file, and the model that such a file gives back.

`pack_model` makes a mapping of plain tensors, which `measure.size` and safetensors can write. A
weight "w" that is quantized to n bits in R rows becomes

    w.codes          uint8      q − q_min, n bits each (`packing`)
    w.scale          float16    R numbers
    w.zero_point     uint8      z − q_min, n bits each; absent if symmetric: 2ⁿ⁻¹ − 1 throughout

Every other tensor stays as it is. Nothing else needs to be stored: the number of bytes tells n, the
number of scales tells R, and the model knows its shapes.

A scale in float16 is off by up to 2⁻¹¹ of itself. It is rounded *before* the codes are chosen, so
they are chosen among the levels that come back, and |x − x̂| ≤ s/2 still holds between the outermost
ones. As these move, the range may reach up to (2ⁿ − 1) 2⁻¹¹ s further: an eighth of s at 8 bits.
Scales below 2⁻¹⁴, where float16 has fewer digits, lose more.

Axes: O outputs, I inputs, R rows sharing one scale.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.quantization.calibration import Range, minmax_range
from course_lib.quantization.linear import Format, Grid, dequantize, fit, quantize
from course_lib.quantization.packing import pack, unpack
from course_lib.quantization.rows import check_finite, to_rows


@dataclass(frozen=True)
class Scheme:
    """How a weight is quantized.

    format: the codes.
    granularity: "tensor", "channel" or a group size, as in `rows.to_rows`.
    calibrate: (rows, format) -> (low, high); one of `calibration`.
    """

    format: Format
    granularity: str | int
    calibrate: Callable[[Tensor, Format], Range] = minmax_range


def every_linear(model: nn.Module, scheme: Scheme | torch.dtype) -> dict[str, Scheme | torch.dtype]:
    """The weight of each nn.Linear -> the scheme. The embedding is left out: add it if it is meant.

    >>> model = nn.ModuleDict({"embedding": nn.Embedding(9, 4), "up": nn.Linear(4, 8)})
    >>> every_linear(model, torch.float16) | {"embedding.weight": torch.bfloat16}
    {'up.weight': torch.float16, 'embedding.weight': torch.bfloat16}
    """
    linears = (name for name, part in model.named_modules() if isinstance(part, nn.Linear))
    return {f"{name}.weight".removeprefix("."): scheme for name in linears}


def pack_model(model: nn.Module, schemes: Mapping[str, Scheme | torch.dtype]) -> dict[str, Tensor]:
    """The tensors of the model, those with a scheme packed; see the module's text for their names.

    Args:
        model: any module; it is left as it is.
        schemes: a tensor's name -> how to quantize it, or a float type to store it in. Others stay.

    Raises:
        ValueError: a name that the model does not have; a number beyond the float type; different
            schemes for two names of one tensor; what `pack_weight` refuses.

    >>> model = nn.Linear(32, 4)
    >>> packed = pack_model(model, every_linear(model, Scheme(Format(4), granularity=8)))
    >>> {name: tensor.nbytes for name, tensor in packed.items()}
    {'weight.codes': 64, 'weight.scale': 32, 'weight.zero_point': 8, 'bias': 16}
    """
    tensors = model.state_dict()
    if unknown := schemes.keys() - tensors.keys():
        raise ValueError(f"schemes must name tensors of the model; it has no {sorted(unknown)}")
    packed, tied = {}, {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in tied:
            tied[place] = name, _parts(name, tensor, schemes.get(name))
        first, parts = tied[place]
        if schemes.get(first) != schemes.get(name):
            raise ValueError(f"schemes must be the same for tied tensors; {first} is {name}")
        packed |= {name + part: stored for part, stored in parts.items()}
    return packed


def _parts(name: str, tensor: Tensor, scheme: Scheme | torch.dtype | None) -> dict[str, Tensor]:
    """What stands for a tensor in a file: ending of its name -> what is stored."""
    if isinstance(scheme, Scheme):
        return {f".{part}": stored for part, stored in pack_weight(tensor, scheme).items()}
    if scheme is None:
        return {"": tensor}
    stored = tensor.to(scheme)
    check_finite(stored, f"{name}, in {scheme},")
    return {"": stored}


def unpack_model(packed: Mapping[str, Tensor], model: nn.Module) -> nn.Module:
    """A new model, shaped as `model`, with the weights that `packed` holds, dequantized.

    Raises:
        ValueError: packed lacks a tensor of the model, or has one of another shape.
    """
    model = copy.deepcopy(model)
    for name, tensor in model.state_dict().items():
        parts = {p: packed[f"{name}.{p}"] for p in PARTS if f"{name}.{p}" in packed}
        if name not in packed and "codes" not in parts:
            raise ValueError(f"packed must hold {name} or {name}.codes; it has neither")
        stored = unpack_weight(parts, tensor.shape) if parts else packed[name]
        if stored.shape != tensor.shape:
            raise ValueError(
                f"{name} must have shape {tuple(tensor.shape)}; got {tuple(stored.shape)}"
            )
        tensor.copy_(stored)  # the tensors of a state_dict are those of the model
    return model


def quantize_model(model: nn.Module, schemes: Mapping[str, Scheme | torch.dtype]) -> nn.Module:
    """A new model with the weights that a packed file would give back: unpack(pack(model)).

    Its weights are ordinary floats on the levels of their grids: it is as good as the file, and as
    large and as fast as `model`. Args, Raises: as for `pack_model`.

    >>> model = nn.Linear(64, 2)
    >>> small = quantize_model(model, every_linear(model, Scheme(Format(2), "channel")))
    >>> [len(row.unique()) for row in small.weight]
    [4, 4]
    """
    return unpack_model(pack_model(model, schemes), model)


PARTS = ("codes", "scale", "zero_point")


def pack_weight(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file: codes, scale and, if affine, zero_point.

    Raises:
        ValueError: more than 8 bits; a scale beyond float16; what `to_rows` and `quantize` refuse.

    >>> parts = pack_weight(torch.randn(4, 32), Scheme(Format(8, symmetric=True), "channel"))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codes': (128,), 'scale': (4,)}
    """
    rows, format = to_rows(weight, scheme.granularity), scheme.format
    grid = fit(*scheme.calibrate(rows, format), format)
    scale = grid.scale.to(torch.float16).clamp(min=2**-24)  # the smallest float16 above 0
    check_finite(scale, "scale, in float16,")
    grid = Grid(scale.to(grid.scale.dtype), grid.zero_point, format)
    codes = quantize(rows, grid).to(torch.int16) - format.lowest
    parts = {"codes": pack(codes, format.bits), "scale": scale.flatten()}
    if not format.symmetric:
        parts["zero_point"] = pack(grid.zero_point, format.bits)
    return parts


def unpack_weight(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that `pack_weight`'s parts stand for, in float32.

    >>> weight = torch.tensor([[0.0, 0.5, 1.0, 1.5]])
    >>> unpack_weight(pack_weight(weight, Scheme(Format(2), "channel")), weight.shape)
    tensor([[0.0000, 0.5000, 1.0000, 1.5000]])
    """
    count, R = shape.numel(), len(parts["scale"])
    bits = len(parts["codes"]) // -(-count // 8)  # eight codes fill n bytes
    scale = parts["scale"].to(torch.float32)[:, None]  # (R,) -> (R, 1)
    if "zero_point" in parts:
        zero_point = unpack(parts["zero_point"], bits, R).to(torch.int32)[:, None]
    else:
        zero_point = torch.full_like(scale, 2 ** (bits - 1) - 1, dtype=torch.int32)
    codes = unpack(parts["codes"], bits, count).view(R, -1)  # (N,) -> (R, C)
    return dequantize(codes, Grid(scale, zero_point, Format(bits))).view(shape)
