"""One choice for each layer, of least cost in all, that a budget of bytes or weights allows.

    min Σ_l c_l(k_l)    s.t.  Σ_l b_l(k_l) ≤ budget

is the multiple-choice knapsack. It is exact for any costs, rising or not, up to the rounding of
their sum. Layer after layer, a list holds the sums (size, cost) that no other one beats in both. Of
those it holds the ones that can still win: for any price λ ≥ 0 of a byte, no sum will end below

    cost so far + λ · (size so far − budget) + Σ_later min_k (c_l(k) + λ · b_l(k))

Sources: Nemhauser and Ullmann, 1969, "Discrete Dynamic Programming and Capital Allocation" (the
list); Sinha and Zoltners, 1979, "The Multiple-Choice Knapsack Problem" (the bound).

Axes: L layers, K choices, S sums.
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite


def cheapest_choice(costs: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The choice of each layer with the least Σ costs of all that fit the budget: (L,) int64.

    Of equal sums, the one with the least size.

    Args:
        costs: c, (L, K), floats: any unit, any sign, finite. Summed in float64.
        sizes: b, (L, K), integers, at least 0.
        budget: that Σ b may not exceed.

    Returns:
        On the CPU.

    Raises:
        TypeError: costs are not floats, or sizes are not integers.
        ValueError: shapes that do not fit; a cost that is not finite; no choice fits the budget.

    >>> costs = torch.tensor([[9.0, 1.0, 0.0], [4.0, 2.0, 0.0]])
    >>> sizes = torch.tensor([[2, 3, 4], [2, 3, 4]])
    >>> cheapest_choice(costs, sizes, budget=6).tolist()
    [1, 1]
    """
    costs, sizes = checked_costs(costs, sizes), checked_sizes(sizes, budget)
    price = _price(costs, sizes, budget)
    priced = costs + price * sizes.double()  # (L, K)
    fewest = _fewest(priced, sizes).argmin(dim=1, keepdim=True)
    enough = costs.gather(1, fewest).sum()  # of one that fits
    later = priced.amin(dim=1).flip(0).cumsum(0).flip(0) - price * budget  # (L,), own layer too
    slack = 1e-12 * (costs.abs().amax(dim=1).sum() + price * budget)
    later = torch.cat([later[1:], later.new_tensor([-price * budget])])
    return _cheapest(costs, sizes, budget, price, later, enough + slack)


def _cheapest(
    costs: Tensor, sizes: Tensor, budget: int, price: float, later: Tensor, most: Tensor
) -> Tensor:
    """`later` (L,) bounds what follows a layer, less λ · budget; sums above `most` cannot win."""
    size, cost, kept = sizes.new_zeros(1), costs.new_zeros(1), []
    for l, bound in enumerate(later):  # noqa: E741
        size = (size[:, None] + sizes[l]).flatten()  # (S, K) -> (S · K,)
        cost = (cost[:, None] + costs[l]).flatten()
        hopeful = (size <= budget) & (cost + price * size.double() + bound <= most)
        order = hopeful.nonzero().squeeze(1)
        order = order[cost[order].argsort(stable=True)]
        order = order[size[order].argsort(stable=True)]  # least size first, then least cost
        best = cost[order].cummin(0).values
        order = torch.cat([order[:1], order[1:][cost[order][1:] < best[:-1]]])
        size, cost = size[order], cost[order]
        kept.append(order)
    at, choice = len(cost) - 1, torch.empty(len(costs), dtype=torch.int64)  # the least cost is last
    for l in reversed(range(len(costs))):  # noqa: E741
        at, choice[l] = divmod(int(kept[l][at]), costs.shape[1])
    return choice


def _price(costs: Tensor, sizes: Tensor, budget: int) -> float:
    """The least λ, by bisection, at which min_k (cost + λ · size) takes at most the budget."""

    def fits(price: float) -> bool:
        return int(_fewest(costs + price * sizes.double(), sizes).amin(dim=1).sum()) <= budget

    if fits(0.0):
        return 0.0
    spread = float(costs.amax() - costs.amin())
    low, high = 0.0, max(spread / max(1, budget), torch.finfo(costs.dtype).tiny)
    while not fits(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _fewest(priced: Tensor, sizes: Tensor) -> Tensor:
    """The sizes of each layer's choices of least price; a number beyond all for the others."""
    dear = priced > priced.amin(dim=1, keepdim=True)
    return sizes.masked_fill(dear, torch.iinfo(sizes.dtype).max)


def checked_costs(costs: Tensor, sizes: Tensor) -> Tensor:
    """Costs in float64 on the CPU, once they are finite and of the sizes' shape (L, K)."""
    check_finite(costs, "costs")
    if costs.dim() != 2 or costs.shape != sizes.shape:
        raise ValueError(
            "costs and sizes must have one shape (L, K); "
            f"got {tuple(costs.shape)} and {tuple(sizes.shape)}"
        )
    return costs.detach().cpu().double()


def checked_sizes(sizes: Tensor, budget: int) -> Tensor:
    """Sizes in int64 on the CPU, once they are (L, K), none is negative, and something fits."""
    if sizes.is_floating_point() or sizes.is_complex():
        raise TypeError(f"sizes must be integers; got {sizes.dtype}")
    if sizes.dim() != 2 or not sizes.numel() or sizes.amin() < 0:
        raise ValueError(
            f"sizes must have shape (L, K) and be at least 0; got {tuple(sizes.shape)}"
            + (f", at least {int(sizes.amin())}" if sizes.numel() else "")
        )
    sizes = sizes.cpu().long()
    least = int(sizes.amin(dim=1).sum())
    if not budget >= least:
        raise ValueError(f"budget must be at least {least}, or nothing fits; got {budget}")
    return sizes
