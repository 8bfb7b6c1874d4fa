"""Mixed precision: how many bits for each layer, when the file may have so many bytes?

For layer l and choice k let c_lk be the loss that it costs and b_lk the bytes that it takes. Choose
one k for each layer, so that

    Σ c_lk is least      subject to      Σ b_lk ≤ budget

This takes for granted that losses add up, which is nearly so where they are small. Three ways:

    exact      no assignment is better (`models.knapsack`)
    greedy     from the smallest file on, always the step that saves most loss for a byte
    order      the most sensitive layer first gets the widest choice that leaves room for the others

What a choice costs is for `sensitivity` to say, and how many bytes it takes for
`formats.model_file.stored_bytes`. The rest of a file counts as well: take it off the budget.

Source: Dong et al., 2019, "HAWQ: Hessian AWare Quantization of Neural Networks with
Mixed-Precision" (order, by the largest eigenvalue of each layer's Hessian).

Axes: L layers, K choices.
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.models.knapsack import cheapest_choice, checked_costs, checked_sizes


def exact_bits(costs: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The choice of each layer with the least Σ costs of all that fit the budget: (L,) int64.

    Of equal sums, the one of least bytes.

    Args:
        costs: c, (L, K), floats: any unit, any sign, finite. Summed in float64.
        sizes: b, (L, K), integers: bytes, at least 0.
        budget: bytes, that Σ b may not exceed.

    Raises:
        TypeError: costs are not floats, or sizes are not integers.
        ValueError: shapes that do not fit; a cost that is not finite; no choice fits the budget.

    >>> costs = torch.tensor([[9.0, 1.0, 0.0], [4.0, 2.0, 0.0]])
    >>> sizes = torch.tensor([[2, 3, 4], [2, 3, 4]])
    >>> exact_bits(costs, sizes, budget=6).tolist()
    [1, 1]
    """
    return cheapest_choice(costs, sizes, budget)


def greedy_bits(costs: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """From the smallest file, again and again the step that saves most loss for a byte: (L,).

    A step gives one layer another choice that costs less; those that no longer fit are passed over.
    A step that takes no bytes comes first. Args, Raises: as for `exact_bits`.

    >>> costs = torch.tensor([[9.0, 1.0, 0.0], [4.0, 2.0, 0.0]])
    >>> sizes = torch.tensor([[2, 3, 4], [2, 3, 4]])
    >>> greedy_bits(costs, sizes, budget=6).tolist()
    [1, 1]
    """
    costs, sizes = checked_costs(costs, sizes), checked_sizes(sizes, budget)
    choice = sizes.argmin(dim=1)
    while True:
        now = choice[:, None]
        saved, more = costs.gather(1, now) - costs, sizes - sizes.gather(1, now)  # (L, K)
        possible = (saved > 0) & (more <= budget - total_of(sizes, choice))
        if not possible.any():
            return choice
        best = int((saved / more).where(possible, -torch.inf).argmax())
        choice[best // costs.shape[1]] = best % costs.shape[1]


def order_bits(sensitivity: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The most sensitive layers first get the largest choice that still leaves room: (L,) int64.

    Args:
        sensitivity: (L,), such as the mean of a layer's second derivatives.
        sizes, budget: as for `exact_bits`; a larger choice is taken to be a better one.

    Raises: as for `exact_bits`.

    >>> sizes = torch.tensor([[2, 3, 4], [2, 3, 4]])
    >>> order_bits(torch.tensor([1.0, 5.0]), sizes, budget=6).tolist()
    [0, 2]
    """
    sizes = checked_sizes(sizes, budget)
    check_finite(sensitivity, "sensitivity")
    if sensitivity.shape != sizes.shape[:1]:
        raise ValueError(
            f"sensitivity must have shape ({len(sizes)},); got {tuple(sensitivity.shape)}"
        )
    choice = sizes.argmin(dim=1)
    room = budget - total_of(sizes, choice)
    for l in sensitivity.argsort(descending=True, stable=True).tolist():  # noqa: E741
        more = sizes[l] - sizes[l, choice[l]]
        fits = more.masked_fill(more > room, -1)
        choice[l] = fits.argmax()
        room -= int(fits.amax())
    return choice


def total_of(values: Tensor, choice: Tensor) -> float:
    """Σ over the layers of values[l, choice[l]], costs or bytes.

    >>> total_of(torch.tensor([[1, 2], [5, 7]]), torch.tensor([0, 1]))
    8
    """
    return values.gather(1, choice[:, None]).sum().item()
