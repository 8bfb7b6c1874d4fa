"""A model on its way through a recipe, and what is settled about its file already.

    model      a Llama; its linear layers may be factored, and may compute with rounded weights
    stored     parts, as the file will hold them; what is stored does not learn any more
    zeros      name of a weight -> where it has to stay zero
    trained    how many steps of training went in

A state can be written and read back, so that a recipe goes on where it stopped. The file is private
to the run; what is handed on is what `packed` gives.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from course_lib.formats.aware import exported
from course_lib.formats.forms import AnyScheme
from course_lib.formats.model_file import pack_tensors
from course_lib.formats.sparse import Sparse
from course_lib.low_rank.layers import FactoredLinear, replace_layer
from course_lib.low_rank.svd import Factors
from course_lib.models.llama import Llama
from course_lib.models.llama_file import config_from_json, config_to_json, llama_of
from course_lib.quantization.aware import AwareLinear, aware_layers
from course_lib.quantization.even_steps import EvenSteps
from course_lib.quantization.linear import Format
from course_lib.quantization.roundings import LearnedStep


@dataclass(frozen=True, eq=False)
class State:
    """See the module's text. Steps give new states and leave old ones as they are."""

    model: Llama
    stored: Mapping[str, Tensor] = field(default_factory=dict)
    zeros: Mapping[str, Tensor] = field(default_factory=dict)
    trained: int = 0

    @property
    def stored_names(self) -> set[str]:
        """The weights whose parts are settled."""
        return {key.partition(":")[0] for key in self.stored}


def ranks_of(model: nn.Module) -> dict[str, int]:
    """The weight that a factored layer stands for, by name -> its rank.

    >>> ranks_of(nn.Sequential(nn.Linear(2, 3)))
    {}
    """
    return {
        f"{name}.weight": layer.right.out_features
        for name, layer in model.named_modules()
        if isinstance(layer, FactoredLinear)
    }


def packed(state: State) -> dict[str, Tensor]:
    """All tensors of the model as its file holds them, for `compressed_file`.

    What was stored stays as it was; a layer that rounds gives its codes; of a weight with zeros
    only the others are stored; whatever else there is becomes float16.

    >>> from course_lib.models.pretrained import tiny
    >>> sum(part.nbytes for part in packed(State(tiny()[0])).values())
    3935616
    """
    model, schemes = _settled(state.model)
    done = state.stored_names
    tensors = {name: t for name, t in model.state_dict().items() if name not in done}
    left = tensors.keys() - schemes.keys()
    for name in left & state.zeros.keys():
        tensors[name], schemes[name] = tensors[name].half(), Sparse()
    schemes |= dict.fromkeys(left - state.zeros.keys(), torch.float16)
    return pack_tensors(tensors, {n: s for n, s in schemes.items() if n in tensors}) | state.stored


def _settled(model: Llama) -> tuple[Llama, dict[str, AnyScheme]]:
    """The model with the weights that it computes with, and how those that are rounded are kept."""
    if not aware_layers(model):
        return model, {}
    return exported(model)


def _roundings(model: nn.Module, kind: type) -> dict[str, nn.Module]:
    layers = aware_layers(model).items()
    return {name: layer.rounding for name, layer in layers if isinstance(layer.rounding, kind)}


def save_state(state: State, path: Path) -> None:
    """Write a state, all of it or nothing: a run that is cut leaves no half file."""
    tensors = {f"model/{n}": t.detach() for n, t in state.model.state_dict().items()}
    tensors |= {f"stored/{n}": t for n, t in state.stored.items()}
    tensors |= {f"zeros/{n}": t for n, t in state.zeros.items()}
    learned = _roundings(state.model, LearnedStep)
    even = _roundings(state.model, EvenSteps)
    shape = {
        "config": config_to_json(state.model.config),
        "ranks": json.dumps(ranks_of(state.model)),
        "learned": json.dumps({n: r.format.bits for n, r in learned.items()}),
        "even": json.dumps({n: r.step for n, r in even.items()}),
        "trained": str(state.trained),
    }
    unfinished = path.with_suffix(".part")
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, unfinished, shape)
    unfinished.replace(path)


def load_state(path: Path) -> State:
    """What `save_state` wrote, on the CPU."""
    with safe_open(path, framework="pt") as file:
        shape = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "stored": {}, "zeros": {}}
    for name, tensor in tensors.items():
        kind, _, own = name.partition("/")
        parts[kind][own] = tensor
    model = _model_of(shape, parts["model"])
    return State(model, parts["stored"], parts["zeros"], int(shape["trained"]))


def _model_of(shape: Mapping[str, str], weights: Mapping[str, Tensor]) -> Llama:
    ranks: dict[str, int] = json.loads(shape["ranks"])
    plain = {name: t for name, t in weights.items() if ".rounding." not in name}
    for name in ranks:  # the dense layer that two small ones will stand for
        layer = name.removesuffix(".weight")
        left, right = plain.pop(f"{layer}.left.weight"), plain.pop(f"{layer}.right.weight")
        plain[name] = left.new_empty(len(left), right.shape[1])
    model = llama_of(config_from_json(shape["config"]), plain)
    for name in ranks:
        layer = name.removesuffix(".weight")
        factors = Factors(weights[f"{layer}.left.weight"], weights[f"{layer}.right.weight"])
        replace_layer(model, layer, factors)
    for name, bits in json.loads(shape["learned"]).items():
        _make_aware(model, name, LearnedStep(_weight(model, name), Format(bits)))
    for name, step in json.loads(shape["even"]).items():
        _make_aware(model, name, EvenSteps(step))
    model.load_state_dict(copy.copy(dict(weights)))
    return model.eval().requires_grad_(False)


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_submodule(name).weight


def _make_aware(model: nn.Module, name: str, rounding: nn.Module) -> None:
    model.set_submodule(name, AwareLinear(model.get_submodule(name), rounding))
