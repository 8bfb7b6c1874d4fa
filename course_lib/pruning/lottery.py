"""The lottery ticket: prune, put the weights that stay back to where they were, train again.

Let θ_t be the weights after t steps of training, T all of them, and m a mask. A round of iterative
magnitude pruning with rewinding to step t is

    train θ_t ⊙ m to the end  →  θ_T        m ← the largest |θ_T|, fewer than before

The weights θ_t ⊙ m are called a ticket; a winning one, if trained alone it reaches what the whole
network reaches. At t = 0 it is the network's own beginning (Frankle and Carbin, 2019); large
networks need a small t > 0 (Frankle et al., 2020).

What the ticket owes to its mask and what to its values, controls tell: the same mask with other
values (`rewound` to the state of a network that was drawn anew), the same values with another mask
(`shuffled_masks`), and no mask at all: a dense network with as many weights. The last one matters
most: Crowley et al., 2018, and Liu et al., 2019, found small networks that were trained from the
beginning to do as well as networks whose units had been pruned, or better.

Sources: Frankle and Carbin, 2019, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural
Networks"; Frankle et al., 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis"
(rewinding to a later step).
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from course_lib.models.finite import is_fake
from course_lib.models.parts import prunable_weights
from course_lib.pruning.masks import apply_masks, magnitude_masks

Masks = dict[str, Tensor]


def rewound(
    model: nn.Module, early: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> nn.Module:
    """A copy of the model with its state of an earlier step, θ_t ⊙ m: biases too, mask kept.

    No optimizer's memory comes along: make a new one, and let it `hold_masks`.

    Args:
        model: the trained network, or any other of its shape.
        early: what the model's `state_dict` was then, copied then (`early_state` does).
        masks: a bool tensor for each pruned weight, by the weight's name.

    Raises:
        ValueError: `early` is the model's present state, or of another model; a mask is not bool,
            or of no weight.

    Source: Frankle and Carbin, 2019, "The Lottery Ticket Hypothesis".

    >>> model = nn.Linear(2, 1, bias=False)
    >>> early = {"weight": torch.tensor([[3.0, 4.0]])}
    >>> rewound(model, early, {"weight": torch.tensor([[False, True]])}).weight.tolist()
    [[0.0, 4.0]]
    """
    _check_early(model.state_dict(), early)
    ticket = copy.deepcopy(model)
    ticket.load_state_dict(early)
    weights = dict(ticket.named_parameters())
    for name, mask in masks.items():
        if name not in weights or mask.dtype != torch.bool:
            raise ValueError(
                f"masks must be bool tensors by names of weights; got {mask.dtype} for {name!r}"
            )
    apply_masks(weights, masks)
    return ticket


def early_state(optimizer: torch.optim.Optimizer, model: nn.Module, step: int) -> dict[str, Tensor]:
    """A copy of the model's state after `step` more steps of the optimizer; empty until then.

    Args:
        step: 0 for the state now.

    Raises:
        ValueError: step is negative.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters())
    >>> now, later = early_state(optimizer, model, 0), early_state(optimizer, model, 1)
    >>> list(now), list(later)
    (['weight', 'bias'], [])
    >>> optimizer.step()
    >>> list(later)
    ['weight', 'bias']
    """
    if step < 0:
        raise ValueError(f"step must be at least 0; got {step}")
    state: dict[str, Tensor] = {}
    taken = 0

    def watch(*_) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            state.update(_copied(model))  # a hook cannot remove itself here

    if step == 0:
        return _copied(model)
    optimizer.register_step_post_hook(watch)
    return state


def shuffled_masks(masks: Mapping[str, Tensor], generator: torch.Generator) -> Masks:
    """For each mask one with as many True at random places: a control for the choice of weights.

    Args:
        masks: bool tensors by name, of any shapes.
        generator: on the CPU, so that a seed gives the same masks on every device.

    >>> masks = {"a": torch.tensor([[True, True, False], [False, False, False]])}
    >>> shuffled = shuffled_masks(masks, torch.Generator().manual_seed(0))
    >>> shuffled["a"].shape, int(shuffled["a"].sum())
    (torch.Size([2, 3]), 2)
    """
    shuffled = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        shuffled[name] = mask.flatten()[order].view(mask.shape)  # (entries,) -> the mask's shape
    return shuffled


def find_ticket(
    trained: nn.Module,
    early: Mapping[str, Tensor],
    densities: Iterable[float],
    train: Callable[[nn.Module, Masks], None],
) -> Iterator[tuple[Masks, nn.Module]]:
    """Iterative magnitude pruning with rewinding: for each density its masks, and the network.

    A ticket is `rewound(network, early, masks)`. Weights that one round prunes never return.

    Args:
        trained: the whole network after its training; it is left as it is.
        early: its state at the step that is rewound to, from `early_state`.
        densities: share of the linear and convolution weights that stay, none above the one before;
            the paper takes a fifth of the weights each round.
        train: trains a network in place under masks (`hold_masks`), all the way to its end.

    Yields:
        The masks that were cut from the network before, and the network trained under them.

    Raises:
        ValueError: a density rises, or is out of range.

    Source: Frankle and Carbin, 2019, "The Lottery Ticket Hypothesis".

    >>> model = nn.Linear(4, 1, bias=False)
    >>> model.weight = nn.Parameter(torch.tensor([[1.0, 4.0, 2.0, 3.0]]))
    >>> early = {"weight": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}
    >>> grow = lambda network, masks: network.weight.data.mul_(2)
    >>> [n.weight.tolist() for _, n in find_ticket(model, early, (0.5, 0.25), grow)][-1]
    [[0.0, 0.0, 0.0, 8.0]]
    """
    last, network = 1.0, trained
    for density in densities:
        if not 0 <= density <= last:
            raise ValueError(
                f"densities must not rise, and be from 0 to 1; got {density} after {last}"
            )
        masks = magnitude_masks(prunable_weights(network), density)
        network, last = rewound(network, early, masks), density
        train(network, masks)
        yield masks, network


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _in_one_place(one: Tensor, other: Tensor) -> bool:
    return one is other or (not is_fake(one) and one.data_ptr() == other.data_ptr() != 0)


def _check_early(state: Mapping[str, Tensor], early: Mapping[str, Tensor]) -> None:
    shapes, wanted = ({n: tuple(v.shape) for n, v in s.items()} for s in (early, state))
    for name in shapes.keys() | wanted.keys():
        if shapes.get(name) != wanted.get(name):
            raise ValueError(
                f"early must be a state of this model; {name!r} is {shapes.get(name, 'missing')}, "
                f"in the model {wanted.get(name, 'missing')}"
            )
    if any(_in_one_place(early[name], value) for name, value in state.items()):
        raise ValueError(
            "early must be a copy from then; this is the model's present state, for `state_dict()` "
            "does not copy: training moved it along"
        )
