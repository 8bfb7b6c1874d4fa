"""Arithmetic with the last bits changed, as far as IEEE 754 leaves them open.

+ − × ÷ √ and comparisons of two numbers are the same on every machine. Sums, products of matrices,
decompositions and functions like tanh are not: their last bits depend on the order of additions.
Here these are changed by up to 256 units in the last place. Equal values are changed equally, so
what is computed twice stays equal.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

UNITS = 256
SUMS = {np.add, np.matmul, np.vecdot, np.matvec, np.vecmat}
FUNCTIONS = {np.exp, np.log, np.log2, np.sin, np.cos, np.tanh, np.power}
PYTORCH = re.compile(
    r"(add|b|badd)?mm|mv|dot|sum|mean|var|var_mean|cumsum|convolution|exp|log|pow|sin|cos|tanh"
    r"|sigmoid|_(log_)?softmax(_backward_data)?|mse_loss(_backward)?|nll_loss_forward|addc(mul|div)_"
    r"|linalg_vector_norm|native_(layer|batch)_norm|_linalg_(svd|eigh)"
)


class Noisy(np.ndarray):
    """An array whose sums and decompositions come out a little different."""

    seed = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [np.asarray(one) if isinstance(one, Noisy) else one for one in inputs]
        if out:
            options["out"] = tuple(np.asarray(one) for one in out)
        result = getattr(ufunc, method)(*plain, **options)
        added = ufunc in SUMS and (method == "reduce" or ufunc is not np.add)
        if (added or ufunc in FUNCTIONS) and np.asarray(plain[0]).dtype.kind == "f":
            result = _changed(result)
        if out:
            out[0][...] = result
            return out[0]
        return result.view(Noisy) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function, types, args, kwargs):
        result = super().__array_function__(function, types, args, kwargs)
        if function.__module__ != "numpy.linalg":
            return result
        return tuple(map(_changed, result)) if isinstance(result, tuple) else _changed(result)


class _NoisyTorch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if PYTORCH.fullmatch(function.overloadpacket.__name__):
            for one in result if isinstance(result, tuple | list) else [result]:
                if torch.is_floating_point(one):
                    one.copy_(torch.from_numpy(np.asarray(_changed(one.detach().numpy()))))
        return result


class _NoisyGenerator:
    def __init__(self, *seed):
        self._numbers = np.random.Generator(np.random.PCG64(*seed))

    def __getattr__(self, name):
        def draw(*args, **kwargs):
            numbers = getattr(self._numbers, name)(*args, **kwargs)
            return numbers.view(Noisy) if isinstance(numbers, np.ndarray) else numbers

        return draw


def _changed(values):
    """Each value times 1 ± a few last places; how many depends on the value and the seed alone."""
    kind = getattr(values, "dtype", None)
    if kind is None or kind.kind != "f":
        return values
    plain = np.asarray(values)
    with np.errstate(all="ignore"):
        share = np.nan_to_num(np.sin(Noisy.seed + 1e5 * plain.astype(np.float64)))
        changed = (plain * (1 + UNITS * np.finfo(kind).eps * share)).astype(kind)
    return changed.view(type(values)) if isinstance(values, np.ndarray) else changed[()]


@contextmanager
def perturbed(seed: int) -> Iterator[None]:
    """NumPy and PyTorch compute with other last bits, for arrays that are made in here."""
    array = np.array
    Noisy.seed = seed
    with (
        patch.object(np, "array", lambda *args, **kwargs: array(*args, **kwargs).view(Noisy)),
        patch.object(np.random, "default_rng", _NoisyGenerator),
        _NoisyTorch(),
    ):
        yield
