"""One file for a compressed decoder: tensors and a recipe, never code.

A safetensors file holds the parts of each tensor, as `formats.model_file` packs them. Its metadata
has one entry, "about": one line of JSON with the config, the ranks of the layers that are two small
ones, and the recipe, which says how the file was made and which nobody runs (`about`). So one file
is all that somebody else needs, and the same model gives the same bytes.

Such files are passed on, and the next reader does not know who wrote one. Nothing is allocated by
what a file claims: its header, the config and every part are compared with what they may be before
they are decoded, and a number that is not finite is refused. What is not right raises a ValueError.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from course_lib.formats.model_file import unpack_tensors
from course_lib.formats.parts import FLOATS
from course_lib.low_rank.layers import replace_layer
from course_lib.low_rank.svd import Factors
from course_lib.models.finite import check_finite
from course_lib.models.llama import Llama
from course_lib.models.llama_config import LlamaConfig
from course_lib.models.llama_file import empty_llama
from course_lib.models.parts import first_names
from course_lib.pipeline.about import MOST_PARAMETERS, About, about_from_json, about_to_json

MOST_BYTES = 256_000_000
LONGEST_HEADER = 4_000_000  # bytes: names, shapes and what the file says of itself
MOST_TENSORS = 20_000


@dataclass(frozen=True)
class Compressed:
    """What a file gave back.

    model: float32, on the CPU, without gradients.
    recipe: what its maker says was done: words, not facts.
    bytes: of the file.
    """

    model: Llama
    recipe: list[dict[str, Any]]
    bytes: int


def save_compressed(
    path: Path,
    packed: Mapping[str, Tensor],
    config: LlamaConfig,
    ranks: Mapping[str, int] | None = None,
    recipe: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Write the file; how many bytes it has. A tensor of several names is written once.

    Args:
        packed: `model_file.pack_model(model, schemes)`.
        config: of the model.
        ranks: name of a linear layer's weight -> r, where a `FactoredLinear` stands in its place.
        recipe: JSON objects, one a step.

    Raises:
        ValueError: `load_compressed` would refuse the config, the ranks, the recipe or the names.

    >>> from tempfile import TemporaryDirectory
    >>> from course_lib.formats.linear import Format, Scheme
    >>> from course_lib.formats.model_file import every_linear, pack_model
    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> packed = pack_model(model, every_linear(model, Scheme(Format(4), granularity=64)))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.safetensors")
    ...     written = save_compressed(path, packed, model.config, recipe=[{"bits": 4}])
    ...     back = load_compressed(path)
    >>> back.bytes == written, back.recipe
    (True, [{'bits': 4}])
    """
    names = first_names(packed)
    same = {name: first for name, first in names.items() if name != first}
    about = About(config, ranks or {}, recipe, same)
    text = about_to_json(about)
    shapes = _skeleton(about).state_dict().keys()
    if wrong := {name.partition(":")[0] for name in packed} ^ shapes:
        raise ValueError(f"packed must hold this model's tensors; it differs in {sorted(wrong)}")
    tensors = {
        name: packed[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        for name in dict.fromkeys(names.values())
    }
    save_file(tensors, path, {"about": text})
    return Path(path).stat().st_size


def load_compressed(path: Path) -> Compressed:
    """The model that a file holds, and what the file says of itself; the file may be a stranger's.

    Raises:
        ValueError: not such a file: another format, too large, cut off; a config or ranks out of
            bounds; tensors that are not this model's; a damaged part; NaN or infinity.
        OSError: there is no file, or it may not be read.
    """
    size = _checked_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = about_from_json((file.metadata() or {}).get("about", ""))
            names = list(file.keys())
            if len(names) > MOST_TENSORS:
                raise ValueError(f"a file must hold at most {MOST_TENSORS} tensors; {len(names)}")
            model = _skeleton(about)
            packed = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"the file must be one of safetensors: {str(error)[:200]}") from None
    for name, first in about.same.items():
        if name in packed or first not in packed:
            raise ValueError(f"same must name tensors that are stored once; got {ascii(name)[:80]}")
        packed[name] = packed[first]
    weights = _decoded(packed, model)
    model.load_state_dict(weights, assign=True)
    return Compressed(model.eval().requires_grad_(False), list(about.recipe), size)


def _checked_size(path: Path) -> int:
    """Bytes of the file, once its size and that of its header are in bounds."""
    if not os.path.isfile(path):  # a pipe would be waited for, for ever
        if os.path.exists(path):
            raise ValueError("path must be that of a file")
        raise FileNotFoundError(2, "there is no such file", str(path))
    size = os.stat(path).st_size
    if size > MOST_BYTES:
        raise ValueError(f"a file must have at most {MOST_BYTES:,} bytes; got {size:,}")
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or header > min(size - 8, LONGEST_HEADER):
        raise ValueError(
            "the file must be one of safetensors: its first 8 bytes must give the length of a "
            f"header of at most {LONGEST_HEADER:,} bytes; it has {size:,} bytes"
        )
    return size


def _skeleton(about: About) -> Llama:
    """The model without numbers, its layers replaced where there are ranks."""
    model = empty_llama(about.config)
    layers = dict(model.named_parameters())
    for name, rank in about.ranks.items():
        shape = layers[name].shape if name in layers else ()
        if len(shape) != 2 or name == "embedding.weight" or rank > min(shape):
            raise ValueError(
                "ranks must name linear layers' weights, none above min(O, I); "
                f"got {ascii(name)[:80]}: {rank}"
            )
        left, right = (torch.empty(s, device="meta") for s in ((shape[0], rank), (rank, shape[1])))
        replace_layer(model, name.removesuffix(".weight"), Factors(left, right))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"a model must have at most {MOST_PARAMETERS:,} numbers; {parameters:,}")
    return model


def _decoded(packed: Mapping[str, Tensor], model: Llama) -> dict[str, Tensor]:
    """The model's weights, float32 and finite."""
    weights = unpack_tensors(packed, model.state_dict())
    for name, weight in weights.items():
        if weight.dtype not in FLOATS:
            raise ValueError(f"{name} must be floats; got {weight.dtype}")
        weights[name] = weight.to(torch.float32)
        check_finite(weights[name], name)
    return weights
