"""NF4: sixteen levels at quantiles of the normal density, and scales that are quantized in turn.

A block of 64 weights is divided by its largest |w|, so that it lies in [−1, 1], and each weight
gets the nearest of 16 fixed levels. They are where a normal density of variance 1 has quantiles at
even distances, eight from ½ up and seven from ½ down, with 0 between; then divided by the largest:

    c = Φ⁻¹(p) / Φ⁻¹(1 − δ)      p even from ½ to 1 − δ      δ = ½ (1/32 + 1/30)

The δ keeps the last quantile from being infinite. So each level is used about equally often by
normal weights. That is not what makes the squared error least: see `lloyd_max`.

A float32 scale for 64 weights is half a bit a weight. Double quantization stores the scales as
codes of 8 bits, 256 of which share a float32 step, after their mean is taken off:

    s ≈ m + t q        8/64 + 32/(64 · 256) = 0.127 bits a weight

The paper takes floats of 8 bits for q; here they are even levels.

Axes: R rows sharing one scale.

Source: Dettmers et al., 2023, "QLoRA: Efficient Finetuning of Quantized LLMs".
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite, is_fake
from course_lib.quantization.linear import fit_symmetric, quantize

BLOCK = 64  # weights that share a scale
SCALES = 256  # scales that share a step


def normal_float(bits: int = 4) -> Tensor:
    """The 2ⁿ levels of a normal float, from −1 to 1, one of them 0: (1, 2ⁿ), float32.

    Args:
        bits: n, from 2 to 8; 4 is NF4.

    Raises:
        ValueError: bits outside 2 … 8.

    >>> normal_float(2)
    tensor([[-1.0000,  0.0000,  0.4358,  1.0000]])
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8; got {bits}")
    half = 2 ** (bits - 1)
    last = 1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2  # 1 − δ
    up = torch.linspace(0.5, last, half + 1, dtype=torch.float64)
    down = torch.linspace(0.5, last, half, dtype=torch.float64)[1:]
    levels = torch.cat([-torch.special.ndtri(down).flip(0), torch.special.ndtri(up)])
    return (levels / levels[-1]).float()[None]


def quantize_scales(scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales as codes of 8 bits: s ≈ m + t q.

    Args:
        scale: (R, 1), at least 0.

    Returns:
        Codes q (R,), int8; steps t (⌈R/256⌉,), float32; the mean m (), float32.

    Raises:
        ValueError: a scale is below 0, NaN or infinite; not (R, 1).

    >>> codes, step, mean = quantize_scales(torch.tensor([[1.0], [2.0], [3.0]]))
    >>> codes.tolist(), mean.item()
    ([-127, 0, 127], 2.0)
    """
    check_finite(scale, "scale")
    if scale.dim() != 2 or scale.shape[1] != 1 or (not is_fake(scale) and (scale < 0).any()):
        raise ValueError(
            f"scale must have shape (R, 1) and be at least 0; got {tuple(scale.shape)}, "
            f"from {scale.min():g}"
        )
    scale = scale.float()
    mean = scale.double().mean().float() if scale.device.type != "mps" else scale.mean()
    rows = _in_rows(scale[:, 0] - mean)
    grid = fit_symmetric(*(end[:, None] for end in rows.aminmax(dim=1)), bits=8)
    return quantize(rows, grid).flatten()[: len(scale)], grid.scale[:, 0], mean


def dequantize_scales(codes: Tensor, step: Tensor, mean: Tensor) -> Tensor:
    """The scales m + t q that `quantize_scales`' codes stand for, at least 0: (R, 1), float32.

    Raises:
        ValueError: not a step for each 256 codes.

    >>> parts = quantize_scales(torch.tensor([[1.0], [2.0], [3.0]]))
    >>> dequantize_scales(*parts).flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    if codes.dim() != 1 or step.shape != (-(-len(codes) // SCALES),) or mean.shape != ():
        raise ValueError(
            f"codes must have shape (R,), and step a number for each {SCALES} of them; "
            f"got {tuple(codes.shape)}, {tuple(step.shape)} and a mean {tuple(mean.shape)}"
        )
    values = _in_rows(codes.float()) * step[:, None]
    return (mean + values.flatten()[: len(codes), None]).clamp(min=0)


def _in_rows(numbers: Tensor) -> Tensor:
    """(R,) -> (⌈R/256⌉, 256), filled up with zeros."""
    missing = -len(numbers) % SCALES
    return torch.nn.functional.pad(numbers, (0, missing)).view(-1, SCALES)
