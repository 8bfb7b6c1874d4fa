"""Mixed precision: how many bits for each layer, when the file may have so many bytes?

For layer l and choice k let c_lk be the loss that it costs and b_lk the bytes that it takes. Choose
one k for each layer, so that

    Σ c_lk is least      subject to      Σ b_lk ≤ budget

This takes for granted that losses add up, which is nearly so where they are small. Three ways:

    exact      integer linear programming: no assignment of these costs is better
    greedy     from the smallest file on, always the step that saves most loss for a byte
    order      the most sensitive layer first gets the widest choice that leaves room for the others

What a choice costs may be measured (`measured_costs`), or predicted from the loss's curvature: half
the mean second derivative of a weight times the squared error of rounding (`curvature_costs`).

A file's header counts as well. Its bytes hardly depend on the choice: take them off the budget.

Sources: Dong et al., 2019, "HAWQ: Hessian AWare Quantization of Neural Networks with
Mixed-Precision" (order, by the largest eigenvalue); Dong et al., 2020, "HAWQ-V2: Hessian Aware
trace-Weighted Quantization of Neural Networks" (the mean of the trace, times the squared error).

Axes: L layers, K choices.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from course_lib.models.finite import check_finite

MOST = 2**40  # bytes


def exact_bits(costs: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The choice of each layer with the least Σ costs of all that fit the budget: (L,) int64.

    Args:
        costs: c, (L, K), floats: any unit, any sign, finite.
        sizes: b, (L, K), integers: bytes, at least 0.
        budget: bytes, that Σ b may not exceed.

    Raises:
        ValueError: shapes that do not fit; a cost that is not finite; no choice fits the budget.

    Source: scipy.optimize.milp, that is HiGHS: branch and bound on the linear program.

    >>> costs = torch.tensor([[9.0, 1.0, 0.0], [4.0, 2.0, 0.0]])
    >>> sizes = torch.tensor([[2, 3, 4], [2, 3, 4]])
    >>> exact_bits(costs, sizes, budget=6).tolist()
    [1, 1]
    """
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import csr_array, kron, vstack

    costs, sizes = _checked(costs, sizes, budget)
    L, K = costs.shape
    once = kron(csr_array(torch.eye(L).numpy()), torch.ones(1, K).numpy())  # (L, L·K)
    unit = math.gcd(*sizes.flatten().tolist()) or 1
    rows = vstack([once, csr_array((sizes.flatten()[None] // unit).double().numpy())])
    found = milp(
        _even(costs).flatten().numpy(),
        constraints=LinearConstraint(rows, [1.0] * L + [0.0], [1.0] * L + [float(budget // unit)]),
        integrality=torch.ones(L * K).numpy(),
        bounds=(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise RuntimeError(f"the solver gave no answer: {found.message}")
    choice = torch.from_numpy(found.x).view(L, K).argmax(dim=1)
    if total_of(sizes, choice) > budget:
        raise RuntimeError("the solver's answer exceeds the budget; it computes in floats")
    return choice


def greedy_bits(costs: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """From the smallest file, again and again the step that saves most loss for a byte: (L,).

    A step gives one layer another choice that costs less; those that no longer fit are passed over.
    A step that takes no bytes comes first. Args, Raises: as for `exact_bits`.

    >>> costs = torch.tensor([[9.0, 1.0, 0.0], [4.0, 2.0, 0.0]])
    >>> sizes = torch.tensor([[2, 3, 4], [2, 3, 4]])
    >>> greedy_bits(costs, sizes, budget=6).tolist()
    [1, 1]
    """
    costs, sizes = _checked(costs, sizes, budget)
    choice = _smallest(costs, sizes)
    while True:
        now = choice[:, None]
        saved = costs.gather(1, now) - costs  # (L, K)
        more = sizes - sizes.gather(1, now)
        room = budget - total_of(sizes, choice)
        possible = (saved > 0) & (more <= room)
        if not possible.any():
            return choice
        rate = torch.where(more > 0, saved / more.clamp(min=1), torch.inf)
        best = torch.where(possible, rate, -torch.inf).argmax()
        choice[best // costs.shape[1]] = best % costs.shape[1]


def order_bits(sensitivity: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The most sensitive layers first get the largest choice that still leaves room: (L,) int64.

    Args:
        sensitivity: (L,), such as the trace of a layer's Hessian over its weights.
        sizes, budget: as for `exact_bits`; a larger choice is taken to be a better one.

    Raises: as for `exact_bits`.

    >>> sizes = torch.tensor([[2, 3, 4], [2, 3, 4]])
    >>> order_bits(torch.tensor([1.0, 5.0]), sizes, budget=6).tolist()
    [0, 2]
    """
    if sensitivity.dim() != 1 or len(sensitivity) != len(sizes):
        raise ValueError(
            f"sensitivity must have shape ({len(sizes)},); got {tuple(sensitivity.shape)}"
        )
    _, sizes = _checked(sensitivity[:, None].expand(sizes.shape), sizes, budget)
    choice = sizes.argmin(dim=1)
    room = budget - total_of(sizes, choice)
    for l in sensitivity.argsort(descending=True, stable=True).tolist():  # noqa: E741
        more = sizes[l] - sizes[l, choice[l]]
        fits = torch.where(more <= room, more, -1)
        choice[l] = fits.argmax()
        room -= int(fits.amax())
    return choice


def curvature_costs(traces: Tensor, counts: Tensor, errors: Tensor) -> Tensor:
    """½ · tr H / n · Σ (w − ŵ)²: what rounding costs if errors are spread evenly, (L, K).

    Args:
        traces: tr H of each layer's weights, (L,).
        counts: n, how many weights, (L,).
        errors: Σ (w − ŵ)² of each choice, (L, K).

    >>> curvature_costs(torch.tensor([8.0]), torch.tensor([4]), torch.tensor([[3.0, 1.0]]))
    tensor([[3., 1.]])
    """
    if traces.shape != counts.shape or traces.shape != errors.shape[:1] or errors.dim() != 2:
        shapes = tuple(traces.shape), tuple(counts.shape), tuple(errors.shape)
        raise ValueError(f"traces, counts, errors must be (L,), (L,), (L, K); got {shapes}")
    return (traces / counts / 2)[:, None] * errors


@torch.no_grad()
def measured_costs(
    model: nn.Module,
    rounded: Mapping[str, Sequence[Tensor]],
    loss: Callable[[nn.Module], float],
) -> Tensor:
    """By how much the loss grows when one layer alone has rounded weights, (L, K) float64.

    Args:
        model: left as it is.
        rounded: name of a parameter -> its values under each of K choices.
        loss: of the model, on a text for example; asked 1 + L · K times.

    Raises:
        ValueError: a name that there is not; another number of choices than the first has.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> choices = {"weight": [torch.tensor([[2.0]]), torch.tensor([[5.0]])]}
    >>> costs = measured_costs(layer, choices, lambda m: m(torch.ones(1)).item())
    >>> round((costs[0, 1] - costs[0, 0]).item(), 3)
    3.0
    """
    parameters = dict(model.named_parameters())
    if unknown := rounded.keys() - parameters.keys():
        raise ValueError(f"rounded must name parameters of the model; got {sorted(unknown)}")
    if len({len(choices) for choices in rounded.values()}) != 1:
        raise ValueError("rounded must have as many choices for each layer, and a layer at least")
    dense, costs = loss(model), []
    for name, choices in rounded.items():
        weight = parameters[name]
        kept = weight.detach().clone()
        try:
            for values in choices:
                weight.copy_(values)
                costs.append(loss(model) - dense)
        finally:
            weight.copy_(kept)
    return torch.tensor(costs, dtype=torch.float64).view(len(rounded), -1)


def total_of(values: Tensor, choice: Tensor) -> float:
    """Σ over the layers of values[l, choice[l]], costs or bytes.

    >>> total_of(torch.tensor([[1, 2], [5, 7]]), torch.tensor([0, 1]))
    8
    """
    return values.gather(1, choice[:, None]).sum().item()


def _smallest(costs: Tensor, sizes: Tensor) -> Tensor:
    """Of each layer the choice of least bytes; of equal ones that of least cost."""
    least = sizes == sizes.amin(dim=1, keepdim=True)
    return costs.masked_fill(~least, torch.inf).argmin(dim=1)


def _even(costs: Tensor) -> Tensor:
    """Costs from 0 for each layer, the largest 10³: to the solver, 10⁻⁶ more is no difference."""
    costs = costs - costs.amin(dim=1, keepdim=True)
    top = costs.amax()
    return costs / torch.where(top > 0, top, 1) * 1e3


def _checked(costs: Tensor, sizes: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """Costs in float64 and bytes in int64, on the CPU."""
    check_finite(costs, "costs")
    if costs.dim() != 2 or costs.shape != sizes.shape or sizes.is_floating_point():
        raise ValueError(
            "costs and sizes must have one shape (L, K), sizes of integers; "
            f"got {tuple(costs.shape)} and {tuple(sizes.shape)} of {sizes.dtype}"
        )
    sizes = sizes.cpu().long()
    if sizes.amin() < 0 or sizes.amax() > MOST:
        raise ValueError(f"sizes must be from 0 to 2**40; got {sizes.amin()} to {sizes.amax()}")
    least = int(sizes.amin(dim=1).sum())
    if not budget >= least:
        raise ValueError(f"budget must be at least {least} bytes, or nothing fits; got {budget}")
    return costs.detach().cpu().double(), sizes
