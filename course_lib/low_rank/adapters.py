"""Adapters on a whole model: put on, trained alone, saved, loaded, merged into it, taken out.

`add_adapters` gives each linear layer a `lora.LoRALinear` around it and freezes all else. A file
holds what was learned, `left`, `right` and `alpha` of each layer, and nothing of the base: many
such files serve one base. `merged` makes the model as fast as it was.

Only linear layers get adapters: no embedding, and no head that is tied to one, since a change of
one would be a change of both.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from course_lib.low_rank.lora import LoRALinear, features_of, merge
from course_lib.models.finite import check_finite
from course_lib.models.parts import replace_modules

PARTS = ("left", "right", "alpha")


def add_adapters(
    model: nn.Module,
    rank: int,
    alpha: float,
    generator: torch.Generator | None = None,
    names: Sequence[str] | None = None,
) -> nn.Module:
    """A copy of a model that gives the same, and in which adapters alone have gradients.

    Args:
        model: left as it is.
        rank, alpha, generator: as for `LoRALinear`; layers draw in the order of the model.
        names: of the layers that get an adapter; by default each `nn.Linear`.

    Raises:
        ValueError: no layer, a name of none, a layer whose weight is tied to another module's,
            adapters that are there already; what `LoRALinear` refuses.

    >>> model = add_adapters(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4)), 2, 4.0)
    >>> list(trainable(model))
    ['0.left', '0.right', '2.left', '2.right']
    """
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    wanted = set(linear if names is None else names)

    def adapt(base: nn.Module, _: str) -> LoRALinear:
        return LoRALinear(base, rank, alpha, generator)

    return _with_adapters(model, wanted, adapt)


def _with_adapters(
    model: nn.Module, names: set[str], adapt: Callable[[nn.Module, str], LoRALinear]
) -> nn.Module:
    """A frozen copy with adapt(layer, name) in the place of each layer that is named."""
    modules = dict(model.named_modules())
    if not names:
        raise ValueError("at least one layer must get an adapter; got none")
    if _adapted(model):
        raise ValueError("model must have no adapters yet; `merged` takes those that it has in")
    if unknown := names - modules.keys():
        raise ValueError(f"layers must be the model's own; it has no {', '.join(sorted(unknown))}")
    owners = Counter(id(p) for module in modules.values() for p in _own(module))
    copies: dict[int, object] = {}  # id of a module -> what the copy has in its place
    for name, module in modules.items():
        if name in names:
            if any(owners[id(p)] > 1 for p in _own(module)):
                raise ValueError(f"{name} must not get an adapter: it is tied to another module")
            base = copy.deepcopy(module, copies)
            copies[id(module)] = adapt(base, name).train(module.training)
    model = copy.deepcopy(model, copies).requires_grad_(False)
    for layer in _adapted(model).values():
        layer.left.requires_grad_()
        layer.right.requires_grad_()
    return model


def _adapted(model: nn.Module) -> dict[str, LoRALinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def _own(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module._parameters.values() if p is not None]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, for those that have gradients: what an optimizer is to be given.

    >>> sum(p.numel() for p in trainable(add_adapters(nn.Linear(6, 4), 2, 4.0)).values())
    20
    """
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All that a file of the adapters needs to hold: `left`, `right` and `alpha` of each layer.

    A safetensors file of them is as small as they are; in float16 half of that. Copies: training
    that goes on does not change them.

    >>> tensors = adapter_tensors(add_adapters(nn.Sequential(nn.Linear(6, 4)), 2, 4.0))
    >>> {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    {'0.left': (4, 2), '0.right': (2, 6), '0.alpha': ()}
    """
    tensors = {}
    for name, layer in _adapted(model).items():
        parts = {"left": layer.left, "right": layer.right}
        parts["alpha"] = torch.tensor(layer.alpha, dtype=layer.left.dtype)
        for part, tensor in parts.items():
            tensors[f"{name}.{part}".lstrip(".")] = tensor.detach().clone()
    return tensors


def load_adapters(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with the adapters that `adapter_tensors` gave, on the layers that it names.

    Args:
        model: without adapters, left as it is; its weights should be those of the base that the
            adapters were trained on. Nothing can check that.
        tensors: of any float type.

    Raises:
        ValueError: no adapter; a name or a shape that does not fit to the model; a part that is
            missing or too many; NaN or infinity; what `add_adapters` refuses.

    >>> base = nn.Sequential(nn.Linear(6, 4))
    >>> tuned = add_adapters(base, 2, 4.0)
    >>> tuned[0].left.data += 1
    >>> again = load_adapters(base, adapter_tensors(tuned))
    >>> torch.equal(again(torch.ones(6)), tuned(torch.ones(6)))
    True
    """
    parts = _by_layer(model, tensors)

    @torch.no_grad()
    def adapt(base: nn.Module, name: str) -> LoRALinear:
        left, right, alpha = parts[name]
        layer = LoRALinear(base, len(right), alpha, torch.Generator())  # A is drawn for nothing
        layer.left.copy_(left)
        layer.right.copy_(right)
        return layer

    return _with_adapters(model, set(parts), adapt)


def merged(model: nn.Module) -> nn.Module:
    """A copy of a model in which each layer and its adapter are one `nn.Linear`; see `merge`.

    A layer of packed codes becomes a matrix of floats: to be small again it has to be quantized
    again, and loses some of what it learned. Nothing in the copy has gradients.

    >>> merged(add_adapters(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), 2, 4.0))
    Sequential(
      (0): Linear(in_features=6, out_features=4, bias=True)
      (1): ReLU()
    )
    """

    def plain(layer: LoRALinear) -> nn.Linear:
        weight = merge(layer.base.weight, layer.left, layer.right, layer.alpha)
        return _linear(weight, layer.base.bias)

    return replace_modules(model, LoRALinear, plain)


def unmerged(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a merged model without the change again, up to the rounding of both sums.

    Args:
        model: from `merged`; left as it is.
        tensors: from `adapter_tensors`, of the same adapters.

    Raises: as `load_adapters`.

    >>> model = add_adapters(nn.Sequential(nn.Linear(6, 4)), 2, 4.0)
    >>> back = unmerged(merged(model), adapter_tensors(model))
    >>> torch.equal(back[0].weight, model[0].base.weight)  # nothing was learned yet
    True
    """
    copies: dict[int, object] = {}
    for name, (left, right, alpha) in _by_layer(model, tensors).items():
        layer = model.get_submodule(name)
        weight = merge(layer.weight, left, right, -alpha)
        copies[id(layer)] = _linear(weight, layer.bias).train(layer.training)
    return copy.deepcopy(model, copies)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Of these numbers, without drawing others first."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return linear


def _by_layer(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Layer -> its left, right and α, once they fit to the model."""
    modules, layers = dict(model.named_modules()), {}
    for name, tensor in tensors.items():
        check_finite(tensor, name)
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor
    for name, parts in layers.items():
        if name not in modules or parts.keys() != set(PARTS):
            raise ValueError(
                f"tensors must hold {', '.join(PARTS)} of layers of the model; "
                f"got {', '.join(parts)} of {name or 'the model'}"
            )
        left, right, alpha = (parts[part] for part in PARTS)
        outputs, inputs = features_of(modules[name])
        axes = [part.dim() for part in (left, right, alpha)]
        if axes != [2, 2, 0] or left.shape != (outputs, len(right)) or right.shape[1] != inputs:
            raise ValueError(
                f"{name} must have left ({outputs}, r), right (r, {inputs}) and alpha (); "
                f"got {tuple(left.shape)}, {tuple(right.shape)} and {tuple(alpha.shape)}"
            )
        layers[name] = left, right, alpha.item()
    return layers
