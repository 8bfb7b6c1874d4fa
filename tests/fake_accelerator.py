"""An accelerator that is not there: tensors with shapes and a device, but no numbers.

A function that makes a tensor without `device=` mixes it with those of its inputs: it fails here as
it would on a GPU. Changing PyTorch's global state is what this does, so it runs as its own process:

    python tests/fake_accelerator.py      prints "exercise: case: error" for every failing call
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from course_lib.exercises.engine.catalogue import all_exercises
from course_lib.exercises.engine.spec import Case

# References that ask a tensor for a number (a count, an index), which a fake one has not: they
# are followed up to that place. On cuda, tests/test_device.py follows them to their end.
ASK_FOR_NUMBERS = {
    "keep_largest", "kept_by_mean", "sparsify_digits",
    "split_budget", "next_masks", "prune_digits", "compress_tiny", "narrow_tiny",
    # a mask or counts decide on the shape of the result
    "remove_units", "fold_constants", "remove_channels", "remove_heads", "refit_kept",
    "lloyd_step", "best_levels", "mx_block", "code_lengths", "decode_canonical", "layer_bytes",
    "squeeze", "accept_or_resample",
    # how many ranks a layer gets
    "factor_tiny",
    # the model's choices decide on what is kept
    "verify_drafts", "fast_decode",
    # the answer is a list of Python's numbers
    "ranks_for_budget", "assign_bits",
    # a file is written, an order chosen
    "meet_budget", "order_that_loses", "small_file",
}  # fmt: skip


@functools.cache
def register() -> None:
    """Add the device: before the first backward, of a case's teacher say, which counts devices."""
    _setup_privateuseone_for_python_backend("toygpu")


def _apply(module: nn.Module, convert: Callable, recurse: bool = True) -> nn.Module:
    """What Module.to() does, for fake tensors: the original swaps storages, which they lack.

    A parameter that stands in two places (tied weights) stays one parameter.
    """
    moved: dict[int, torch.Tensor] = {}
    for part in module.modules() if recurse else [module]:
        for tensors in (part._parameters, part._buffers):
            for name, old in tensors.items():
                if old is not None:
                    if id(old) not in moved:
                        with torch.no_grad():
                            new = convert(old)
                        parameter = isinstance(old, nn.Parameter)
                        moved[id(old)] = nn.Parameter(new, old.requires_grad) if parameter else new
                    tensors[name] = moved[id(old)]
    return module


def _tensor(data, *, device=None, of=torch.tensor, **options) -> torch.Tensor:
    """torch.tensor, on the device, too: one fake number that keeps its value could not move."""
    made = of(data, **options)
    if device is None or torch.device(device).type == "cpu":
        return made
    return torch.where(torch.ones(made.shape, dtype=torch.bool), made, made).to(device)


@contextlib.contextmanager
def accelerator() -> Iterator[Callable]:
    """A function that puts inputs on the fake device; to be used once in a process."""
    register()
    nn.Module._apply = _apply
    torch.tensor = _tensor
    FakeTensorMode.__deepcopy__ = lambda mode, memo: mode  # copies of a tensor share its mode
    with FakeTensorMode() as mode:

        def put(value):
            if isinstance(value, nn.Module):
                return value._apply(put)
            return mode.from_tensor(value).to("toygpu:0") if torch.is_tensor(value) else value

        yield lambda inputs: tree_map(put, inputs)


def shortened(value):
    """Of many batches to train on, two: a step on the next ones takes the same way."""
    are_many = isinstance(value, list) and len(value) > 20 and isinstance(value[0], tuple)
    return value[:2] if are_many else value


def failures(function: Callable, cases: list[Case], put: Callable) -> list[str]:
    """The cases on which `function` fails on the device, each with its error."""
    found = []
    for case in cases:
        inputs = put({name: shortened(value) for name, value in case.inputs.items()})
        try:
            function(*inputs.values())
        except ValueError:
            pass  # a case of bad input, refused as it should be
        except Exception as error:
            asks = isinstance(error, DataDependentOutputException | DynamicOutputShapeException)
            if asks and function.__name__ in ASK_FOR_NUMBERS:
                continue
            found.append(f"{case.label}: {type(error).__name__}: {str(error).splitlines()[0]}")
    return found


def _forgetful(x: torch.Tensor) -> torch.Tensor:
    return x + torch.arange(3)


def main() -> int:
    register()
    forgetful = [Case("three", {"x": torch.zeros(3)})]
    calls = [(e.name, e.reference, e.cases()) for e in all_exercises().values()]
    with accelerator() as put:
        if not failures(_forgetful, forgetful, put):
            print("the fake accelerator does not notice a forgotten device=")
            return 2
        found = [f"{name}: {f}" for name, ref, cases in calls for f in failures(ref, cases, put)]
    print("\n".join(found))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
