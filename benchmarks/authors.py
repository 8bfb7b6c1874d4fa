"""GPTQ, SparseGPT, Wanda and AWQ, written plainly as their papers and authors' code state them.

They are what the tests compare codes and masks with, and what the benchmark runs beside the
library. After each column, every column of its block to the right of it is moved; after each block,
every column to the right of that.

Sources: Frantar et al., 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers"; Frantar and Alistarh, 2023, "SparseGPT: Massive Language Models Can be Accurately
Pruned in One-Shot"; Sun et al., 2024, "A Simple and Effective Pruning Approach for Large Language
Models"; Lin et al., 2024, "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression
and Acceleration".

Axes: O outputs, I inputs.
"""

import torch
from torch import Tensor


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper U with UᵀU = H⁻¹."""
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian)).to(hessian)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)


def minmax_levels(part: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, int, int]:
    """Scale and zero-point of each row (O, 1), the lowest and the highest code.

    Symmetric as the library has it, without the lowest of 2ⁿ codes; scales are float16 numbers.
    """
    low, high = part.amin(1, keepdim=True).clamp(max=0), part.amax(1, keepdim=True).clamp(min=0)
    if symmetric:
        most = 2 ** (bits - 1) - 1
        scale, zero, codes = torch.maximum(-low, high) / most, torch.zeros_like(low), (-most, most)
    else:
        scale = (high - low) / (2**bits - 1)
        zero, codes = (-low / scale).round(), (0, 2**bits - 1)
    return scale.half().to(scale.dtype), zero, *codes


def gptq(
    weight: Tensor,
    hessian: Tensor,
    bits: int,
    group: int,
    symmetric: bool = False,
    act_order: bool = False,
    static_groups: bool = True,
    block: int = 128,
    damping: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Codes and new weight, both (O, I)."""
    weight, inputs = weight.clone(), weight.shape[1]
    levels = [
        minmax_levels(weight[:, i : i + group], bits, symmetric) for i in range(0, inputs, group)
    ]
    order = hessian.diagonal().argsort(descending=True, stable=True)
    if not act_order:
        order = torch.arange(inputs)
    weight, hessian = weight[:, order], hessian[order][:, order]
    U = inverse_factor(hessian, damping)
    codes, values = torch.zeros_like(weight), torch.zeros_like(weight)
    for start in range(0, inputs, block):
        stop = min(start + block, inputs)
        part, errors = weight[:, start:stop].clone(), torch.zeros_like(weight[:, start:stop])
        for j in range(stop - start):
            i = start + j
            if not static_groups and i % group == 0:
                levels[i // group] = minmax_levels(weight[:, i : i + group], bits, symmetric)
            scale, zero, lowest, highest = levels[int(order[i]) // group]
            column = part[:, j : j + 1]
            code = ((column / scale).round() + zero).clamp(lowest, highest)
            value = scale * (code - zero)
            error = (column - value) / U[i, i]
            part[:, j:] -= error @ U[i : i + 1, i:stop]
            codes[:, i : i + 1], values[:, i : i + 1] = code, value
            errors[:, j : j + 1] = error
        weight[:, stop:] -= errors @ U[start:stop, stop:]
    back = order.argsort()
    return codes[:, back], values[:, back]


def sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    density: float | tuple[int, int],
    levels: tuple[Tensor, Tensor, int, int] | None = None,
    block: int = 128,
    damping: float = 0.01,
) -> Tensor:
    """The new weight (O, I). The authors' code removes one weight more in each block."""
    weight, inputs = weight.clone(), weight.shape[1]
    U = inverse_factor(hessian, damping)
    for start in range(0, inputs, block):
        stop = min(start + block, inputs)
        part, errors = weight[:, start:stop].clone(), torch.zeros_like(weight[:, start:stop])
        values, root = torch.zeros_like(part), U.diagonal()[start:stop]
        gone = torch.zeros_like(part, dtype=torch.bool)
        if not isinstance(density, tuple):
            score = part**2 / root**2
            count = score.numel() - round(density * score.numel())
            gone = score < torch.sort(score.flatten())[0][count]
        for j in range(stop - start):
            if isinstance(density, tuple) and j % density[1] == 0:
                n, m = density
                score = part[:, j : j + m] ** 2 / root[j : j + m] ** 2
                gone.scatter_(1, j + score.topk(m - n, dim=1, largest=False)[1], True)
            column = part[:, j].clone()
            value = column.clone()
            value[gone[:, j]] = 0
            if levels is not None:
                scale, zero, lowest, highest = levels
                code = ((value[:, None] / scale).round() + zero).clamp(lowest, highest)
                value = (scale * (code - zero)).flatten()
            values[:, j] = value
            error = (column - value) / U[start + j, start + j]
            part[:, j:] -= error[:, None] @ U[start + j : start + j + 1, start + j : stop]
            errors[:, j] = error
        weight[:, start:stop] = values
        weight[:, stop:] -= errors @ U[start:stop, stop:]
    return weight


def wanda(weight: Tensor, power: Tensor, density: float) -> Tensor:
    """The mask of what stays, (O, I); power: the mean of each input's square, (I,)."""
    score = weight.abs() * power.sqrt()
    order = torch.sort(score, dim=-1, stable=True)[1]
    gone = torch.zeros_like(score, dtype=torch.bool)
    gone.scatter_(1, order[:, : weight.shape[1] - round(density * weight.shape[1])], True)
    return ~gone


def awq_clip(weight: Tensor, x: Tensor, bits: int, group: int, outputs: int = 64) -> Tensor:
    """The largest |w| that each group keeps, (O, I / group); outputs are computed on all tokens x.

    Affine codes of the clipped weights, from their minimum to their maximum, not stretched to 0.
    """
    inputs = x.view(1, len(x), -1, group)  # (N, I) -> (1, N, I/C, C)
    found = []
    for part in weight.split(outputs):
        part = part.view(len(part), 1, -1, group)  # (O, I) -> (O, 1, I/C, C)
        largest = part.abs().amax(-1, keepdim=True)
        exact = (inputs * part).sum(-1)  # (O, N, I/C)
        best, least = largest.clone(), torch.full_like(largest, torch.inf)
        for step in range(10):
            bound = largest * (1 - step / 20)
            clipped = part.clamp(-bound, bound)
            low, high = clipped.amin(-1, keepdim=True), clipped.amax(-1, keepdim=True)
            scale = (high - low).clamp(min=1e-5) / (2**bits - 1)
            zero = (-(low / scale).round()).clamp(0, 2**bits - 1)
            codes = ((clipped / scale).round() + zero).clamp(0, 2**bits - 1)
            error = ((inputs * ((codes - zero) * scale)).sum(-1) - exact).square().mean(1)
            error = error.view_as(least)  # (O, I/C) -> (O, 1, I/C, 1)
            best, least = torch.where(error < least, bound, best), torch.minimum(error, least)
        found.append(best.view(len(part), -1))
    return torch.cat(found)
