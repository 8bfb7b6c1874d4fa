"""A model's parts: which weights there are, what its modules are given, one module for another.

Nobody else walks through a model: a method asks here, and works on tensors.

Axes: B windows, T tokens, D model width, N = B · T, I inputs of a module.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.llama import Block, Llama, rotary_tables

AT_ONCE = 8  # windows that go through a block together

# The linear layers of a block that share an input, in the order in which they run.
QKV = ("attention.query", "attention.key", "attention.value")
OUTPUT = ("attention.output",)
GATE_UP = ("mlp.gate", "mlp.up")
DOWN = ("mlp.down",)
STAGES = (QKV, OUTPUT, GATE_UP, DOWN)


def linear_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weight of each linear layer by name, each once; no biases, no embeddings of its own.

    >>> list(linear_weights(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Conv1d(3, 1, 1))))
    ['0.weight']
    """
    return _weights_of(model, nn.Linear)


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of linear and convolution layers by name, each once; no biases, no embeddings.

    An embedding that a linear layer shares (tied weights) is one of its weights, and listed.

    >>> list(prunable_weights(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    ['0.weight', '2.weight']
    """
    return _weights_of(model, nn.Linear | nn.Conv1d | nn.Conv2d)


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every 2-D parameter by name, the embedding's too.

    >>> list(matrices(nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 3))))
    ['0.weight', '1.weight']
    """
    return {name: p for name, p in model.named_parameters() if p.dim() == 2}


def _weights_of(model: nn.Module, kinds: type) -> dict[str, nn.Parameter]:
    """By name, each once: a tied weight under its first name, be that an embedding's."""
    of_layers: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            if not isinstance(module._parameters.get("weight"), nn.Parameter):
                raise ValueError(
                    f"the weight of {name} must be a parameter; it is computed from others "
                    "(weight_norm, nn.utils.prune): remove that first"
                )
            of_layers.add(id(module.weight))
    return {name: p for name, p in model.named_parameters() if id(p) in of_layers}


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> the first name of the same tensor, as tied weights have several.

    The same is what lies in one place of memory with one shape, strides and dtype.

    >>> tied = torch.ones(2)
    >>> first_names({"embedding": tied, "bias": torch.ones(2), "head": tied})
    {'embedding': 'embedding', 'bias': 'bias', 'head': 'embedding'}
    """
    first, names = {}, {}
    for name, t in tensors.items():
        place = t.data_ptr() or id(t)  # a tensor without numbers lies nowhere
        names[name] = first.setdefault((t.device, place, t.shape, t.stride(), t.dtype), name)
    return names


def replace_modules(
    model: nn.Module, kind: type[nn.Module], convert: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """A copy of the model with each module of just this kind replaced by convert(module).

    A module that stands in several places is converted once and stands in all of them.

    >>> replace_modules(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.ReLU, lambda _: nn.Tanh())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): Tanh()
    )
    """
    model = copy.deepcopy(model)
    made: dict[nn.Module, nn.Module] = {}

    def converted(module: nn.Module) -> nn.Module:
        if module not in made:
            made[module] = convert(module).train(module.training)
        return made[module]

    if type(model) is kind:
        return converted(model)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # all of them: named_children leaves out twins
            if type(child) is kind:
                setattr(parent, name, converted(child))
    return model


@torch.no_grad()
def record_inputs(
    model: nn.Module, arguments: Tensor | tuple[Tensor, ...], modules: Sequence[nn.Module]
) -> list[Tensor]:
    """What each of some modules of a model is given while it runs on `arguments`: (N, I) each.

    Args:
        model: a whole model, or a block of one.
        arguments: tokens (B, T), or all that the model takes.
        modules: of the model; each is called once.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> [tuple(x.shape) for x in record_inputs(model, torch.ones(5, 2), [model[0], model[2]])]
    [(5, 2), (5, 3)]
    """
    seen: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, given: tuple) -> None:
        seen[module] = given[0].flatten(0, -2).clone()  # (B, T, I) -> (N, I); it may be changed

    hooks = [module.register_forward_pre_hook(record) for module in modules]
    try:
        model(*arguments) if isinstance(arguments, tuple) else model(arguments)
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[module] for module in modules]


def embed(model: Llama, tokens: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """What the first block is given: x (B, T, D), and the angles' cosines and sines (T, E).

    Args:
        tokens: (B, T); the first of them stands at place `start` of its text.

    >>> from course_lib.models.pretrained import tiny
    >>> [tuple(part.shape) for part in embed(tiny()[0], torch.zeros(1, 5).long())]
    [(1, 5, 192), (5, 32), (5, 32)]
    """
    places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
    cos, sin = rotary_tables(places, model.config.head_width, model.config.rope_base)
    return model.embedding(tokens), cos, sin  # (B, T) -> (B, T, D)


def read_logits(model: Llama, x: Tensor) -> Tensor:
    """What the last norm and the head make of x, be it from the last block or from an earlier one.

    Args:
        x: (…, D).

    Returns:
        (…, V).

    Source: nostalgebraist, 2020, "Interpreting GPT: The Logit Lens".

    >>> from course_lib.models.pretrained import tiny
    >>> read_logits(tiny()[0], torch.zeros(5, 192)).shape
    torch.Size([5, 2048])
    """
    x = model.norm(x)  # then (…, D) -> (…, V)
    return F.linear(x, model.embedding.weight) if model.config.tied else model.head(x)


@torch.no_grad()
def walk_blocks(model: Llama, tokens: Tensor) -> Iterator[tuple[Block, tuple[Tensor, ...]]]:
    """Each block of a decoder with the arguments that reach it, from the first to the last.

    Whoever walks may change a block before asking for the next, which then gets what the changed
    block gives: so a method that goes layer by layer sees the errors it has made so far.

    Args:
        tokens: (B, T).

    Yields:
        block and (x, cos, sin): x (B, T, D) as the block is given it. `block(*arguments)` runs it,
        `record_inputs(block, arguments, [block.mlp.down])` looks inside.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> [tuple(x.shape) for _, (x, _, _) in walk_blocks(model, torch.zeros(1, 5).long())]
    [(1, 5, 192), (1, 5, 192), (1, 5, 192), (1, 5, 192)]
    """
    x, cos, sin = embed(model, tokens)
    for block in model.blocks:
        yield block, (x, cos, sin)
        x = torch.cat([block(some, cos, sin) for some in x.split(AT_ONCE)])


class WithFeatures(nn.Module):
    """A model that gives, with its output, what one of its layers gave on the way.

    The layer's name is that of `named_modules`. The parameters are the model's own.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> output, features = WithFeatures(model, "1")(torch.zeros(5, 4))
    >>> output.shape, features.shape
    (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    def __init__(self, model: nn.Module, layer: str):
        super().__init__()
        self.model, self.layer = model, layer
        model.get_submodule(layer)  # an unknown name is an error now

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing is kept: the layer is watched during this call alone."""
        seen: list[Tensor] = []
        hook = self.model.get_submodule(self.layer).register_forward_hook(
            lambda module, inputs, output: seen.append(output.clone())  # it may be changed later
        )
        try:
            output = self.model(*inputs)
        finally:
            hook.remove()
        return output, seen[-1]
