"""A decoder in a file that says its own shape, and the plain model that the file gives back.

A safetensors file holds the weights; its metadata holds the config, as JSON. A model of which parts
were removed has blocks of different shapes: without the config nobody could know the heads.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from course_lib.models.llama import Llama
from course_lib.models.llama_config import BlockShape, LlamaConfig


def config_to_json(config: LlamaConfig) -> str:
    """All numbers of a config, as one line of JSON.

    >>> config = LlamaConfig(9, width=8, layers=1, heads=2, kv_heads=1, mlp_width=4, context=4)
    >>> config_to_json(config)[:44]
    '{"vocabulary": 9, "width": 8, "layers": 1, "'
    >>> config_from_json(config_to_json(config)) == config
    True
    """
    return json.dumps(asdict(config))


def config_from_json(text: str) -> LlamaConfig:
    """The config that `config_to_json` wrote.

    Raises:
        ValueError: the text is no such config, or one that cannot be.
    """
    try:
        numbers = json.loads(text)
        shapes = [BlockShape(tuple(b["groups"]), b["mlp_width"]) for b in numbers.pop("blocks")]
        return LlamaConfig(**numbers, blocks=tuple(shapes))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"text must be a LlamaConfig as JSON; got {text[:80]!r}") from error


def save_llama(model: Llama, path: Path) -> None:
    """Write the model's weights and its config into one safetensors file."""
    weights = {name: weight.detach().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, path, {"config": config_to_json(model.config)})


def load_llama(path: Path) -> Llama:
    """The model that `save_llama` wrote: on the CPU, without gradients, in the dtype of the file.

    Raises:
        ValueError: the file has no config, or one that is none.
        RuntimeError: the weights do not fit the config.
    """
    with safe_open(path, framework="pt") as file:
        config = (file.metadata() or {}).get("config")
        if config is None:
            raise ValueError(f"{path} must hold a config, as save_llama writes it; it has none")
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return llama_of(config_from_json(config), weights)


class _NoInitialization(TorchFunctionMode):
    """Where this is on, `torch.nn.init` leaves tensors alone."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", "") == "torch.nn.init":
            return None
        return function(*args, **(kwargs or {}))


def empty_llama(config: LlamaConfig) -> Llama:
    """A model that knows its shapes and has no numbers: it takes no memory."""
    with torch.device("meta"), _NoInitialization():
        return Llama(config)


def llama_of(config: LlamaConfig, weights: dict[str, Tensor]) -> Llama:
    """A model that uses these very tensors: nothing is allocated or drawn at random before."""
    model = empty_llama(config)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)
