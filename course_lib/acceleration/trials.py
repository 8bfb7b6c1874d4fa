"""Which kernels this PyTorch has on this processor: each is tried once, on a tiny product.

A kernel that is there may still be slow: without AVX-512 or AVX2 the same operation runs one number
at a time. The clock tells, not this table.
"""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

SIZE = 32  # inputs and outputs


def available() -> dict[str, str | None]:
    """Kernel -> None if it is there and right, else what happened when it was tried.

    >>> list(available())
    ['int4 weights', 'int8 weights', 'int8 both sides', 'csr', 'bsr']
    """
    return {name: _reason(name) for name in TRIALS}


@functools.cache
def _reason(name: str) -> str | None:
    """The largest codes are tried: where 16-bit sums overflow, that shows."""
    try:
        with warnings.catch_warnings():  # sparse tensors are "in beta"
            warnings.simplefilter("ignore")
            found = TRIALS[name]()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return str(error).partition("\n")[0]
    wanted = 127 * 127 * SIZE
    wrong = (found.double() != wanted).any().item()
    return f"it gives {found.flatten()[0].item()} where {wanted} is right" if wrong else None


def _int4() -> Tensor:
    """(15 − 8) · 1 + 120 = 127; float32, which holds the sum."""
    ops, codes = torch.ops.aten, torch.full((SIZE, SIZE), 15, dtype=torch.int32)
    pairs = torch.tensor([1.0, 120.0]).expand(1, SIZE, 2).contiguous()
    packed = ops._convert_weight_to_int4pack_for_cpu(codes, 8)
    return ops._weight_int4pack_mm_for_cpu(torch.full((1, SIZE), 127.0), packed, SIZE, pairs)


def _int8_weights() -> Tensor:
    codes = torch.full((SIZE, SIZE), 127, dtype=torch.int8)
    return torch.ops.aten._weight_int8pack_mm(torch.full((1, SIZE), 127.0), codes, torch.ones(SIZE))


def _int8() -> Tensor:
    codes = torch.full((SIZE, SIZE), 127, dtype=torch.int8)
    return torch._int_mm(codes, codes.T)


def _sparse(block: tuple[int, int] | None) -> Tensor:
    weight = torch.full((SIZE, SIZE), 127.0)
    sparse = weight.to_sparse_csr() if block is None else weight.to_sparse_bsr(block)
    return torch.cat([sparse @ weight, (sparse @ weight[0])[:, None]], dim=1)


TRIALS: dict[str, Callable[[], Tensor]] = {
    "int4 weights": _int4,
    "int8 weights": _int8_weights,
    "int8 both sides": _int8,
    "csr": lambda: _sparse(None),
    "bsr": lambda: _sparse((16, 16)),
}
