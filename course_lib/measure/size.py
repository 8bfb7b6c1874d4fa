"""How large a model is: its file's bytes, its parameters, and where they sit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from course_lib.models.parts import first_names

# Part of a model -> what the names of its parameters contain.
LLAMA_PARTS = {
    "embedding": "embedding.",
    "attention": "attention.",
    "MLP": "mlp.",
    "norms": "norm.",
}


@dataclass(frozen=True)
class Size:
    """A file's bytes, and the parameters that it stands for."""

    bytes: int
    parameters: int

    @property
    def bits_per_parameter(self) -> float:
        """8 · bytes / parameters, with everything else that the file holds."""
        return 8 * self.bytes / self.parameters


def size(tensors: Mapping[str, Tensor], parameters: int | None = None) -> Size:
    """The size of a safetensors file that holds the tensors: written, read back, compared.

    A tensor that has several names (tied weights) is written once; the file notes the other names.

    Args:
        tensors: by name; packed ones, where the file is to be small.
        parameters: for how many the tensors stand; by default, one for each of their numbers.

    Raises:
        RuntimeError: the file did not give back what was written.

    >>> size({"weight": torch.zeros(100)}).bytes > 400
    True
    >>> packed = torch.zeros(500, dtype=torch.uint8)  # 1000 parameters of 4 bits each
    >>> round(size({"packed": packed}, parameters=1000).bits_per_parameter, 1)
    4.6
    """
    _check_tensors(tensors)
    names = first_names(tensors)
    unique = {name: tensors[name].detach().cpu() for name in dict.fromkeys(names.values())}
    other_names = {name: first for name, first in names.items() if name != first}
    # Clones, since views of one storage (rows of a matrix, say) may not stand in one file.
    clones = {name: t.clone(memory_format=torch.contiguous_format) for name, t in unique.items()}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.safetensors"
        save_file(clones, path, other_names or None)
        if not _equal(load_file(path), unique):
            raise RuntimeError("the file does not give back the tensors that were written")
        count = path.stat().st_size
    return Size(count, parameters or sum(tensor.numel() for tensor in unique.values()))


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors[{name!r}] must be a Tensor; got {type(tensor).__name__}")
        if tensor.layout != torch.strided or tensor.is_meta:
            raise ValueError(
                f"tensors[{name!r}] must be dense and have numbers; "
                f"got {tensor.layout} on {tensor.device}"
            )
    if not any(tensor.numel() for tensor in tensors.values()):
        raise ValueError("tensors must hold at least one number; got none")


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Same names, shapes, dtypes and bytes; a NaN equals itself."""
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape
        and a[name].dtype == b[name].dtype
        and torch.equal(_bytes(a[name]), _bytes(b[name]))
        for name in a
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)  # (…) -> (bytes,)


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learned; tied weights count once.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_by_part(model: nn.Module, parts: Mapping[str, str] = LLAMA_PARTS) -> dict[str, int]:
    """Part -> number of its parameters; tied weights count once, where they stand first.

    Args:
        parts: part -> what the names of its parameters contain. The first part that fits, counts.

    Raises:
        ValueError: a parameter fits no part.

    >>> layers = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    >>> parameters_by_part(layers, {"first layer": "0.", "second layer": "1."})
    {'first layer': 8, 'second layer': 3}
    """
    counts = dict.fromkeys(parts, 0)
    for name, parameter in model.named_parameters():
        part = next((part for part, text in parts.items() if text in name), None)
        if part is None:
            raise ValueError(f"parts must fit every parameter; none fits {name}")
        counts[part] += parameter.numel()
    return counts
