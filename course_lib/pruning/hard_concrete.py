"""Hard-concrete gates: learn which weights stay, by gradient descent on the expected ‖θ‖₀.

Each weight, or each input of a layer, gets a gate z in [0, 1] that multiplies it. The gate is
random, and a number log α, learned together with the weights, says how open it tends to be:

    s = sigmoid((log u − log(1 − u) + log α) / β)     u uniform in (0, 1)
    z = min(1, max(0, s · (ζ − γ) + γ))               γ < 0 < 1 < ζ, so z is often exactly 0 or 1

z is a plain function of log α once u is drawn, so the gradient passes straight through the sample.
The chance that a gate is not zero has a closed form, and its sum is the expected ‖θ‖₀:

    P(z ≠ 0) = sigmoid(log α − β log(−γ / ζ))

So L(θ ⊙ z) + λ Σ P(z ≠ 0) can be lowered by gradient descent. After training the noise is left out.

Source: Louizos et al., 2018, "Learning Sparse Neural Networks through L0 Regularization".

Axes: B batch, O outputs, I inputs.
"""

import copy
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.parts import replace_modules

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # the paper's


def _stretch(s: Tensor) -> Tensor:
    """From (0, 1) to (γ, ζ), then cut back to [0, 1]."""
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def sample_gates(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Random gates z in [0, 1], differentiable in log α.

    Args:
        log_alpha: log α of each gate, any shape.
        uniform: u of each gate, from `torch.rand_like(log_alpha)`.

    Source: Louizos et al., 2018, "Learning Sparse Neural Networks through L0
    Regularization".

    >>> sample_gates(torch.zeros(3), torch.tensor([0.01, 0.5, 0.99]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _stretch(((uniform.logit() + log_alpha) / BETA).sigmoid())


def open_probability(log_alpha: Tensor) -> Tensor:
    """P(z ≠ 0) = sigmoid(log α − β log(−γ / ζ)) of each gate; the sum is the expected ‖z‖₀.

    Source: Louizos et al., 2018, "Learning Sparse Neural Networks through L0
    Regularization".

    >>> open_probability(torch.tensor([-5.0, 0.0, 5.0]))
    tensor([0.0323, 0.8318, 0.9986])
    """
    return (log_alpha - BETA * math.log(-GAMMA / ZETA)).sigmoid()


def fixed_gates(log_alpha: Tensor) -> Tensor:
    """The gates without noise: ẑ = min(1, max(0, sigmoid(log α) · (ζ − γ) + γ)).

    Source: Louizos et al., 2018, "Learning Sparse Neural Networks through L0
    Regularization".

    >>> fixed_gates(torch.tensor([-5.0, 0.0, 5.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _stretch(log_alpha.sigmoid())


class L0Linear(nn.Module):
    """A linear layer with a gate for each weight, or for each input: y = x (W ⊙ z)ᵀ + b.

    Gates are drawn anew in each forward pass while training, and fixed in evaluation.

    Args:
        linear: the layer whose weight (O, I) and bias are taken over.
        gate: what a gate multiplies, "weight" or "input" (a whole column of W).
        start: log α = log(start / (1 − start)) at first, plus noise of standard deviation 0.01.
            From 11/12 upwards all fixed gates are 1 before training.

    Raises:
        ValueError: gate is neither, or start is not between 0 and 1.

    Source: Louizos et al., 2018, "Learning Sparse Neural Networks through L0
    Regularization".

    >>> layer = L0Linear(nn.Linear(4, 3), gate="input")
    >>> layer(torch.ones(2, 4)).shape, layer.log_alpha.shape
    (torch.Size([2, 3]), torch.Size([4]))
    """

    def __init__(
        self, linear: nn.Linear, gate: Literal["weight", "input"] = "weight", start: float = 0.95
    ):
        super().__init__()
        if gate not in ("weight", "input"):
            raise ValueError(f'gate must be "weight" or "input"; got {gate!r}')
        if not 0 < start < 1:
            raise ValueError(f"start must be between 0 and 1; got {start}")
        self.weight, self.bias = linear.weight, linear.bias
        gates = torch.empty_like(self.weight if gate == "weight" else self.weight[0])
        self.log_alpha = nn.Parameter(gates.normal_(math.log(start / (1 - start)), 0.01))

    def gates(self) -> Tensor:
        """z: (O, I) or (I,); random in training mode."""
        if self.training:
            return sample_gates(self.log_alpha, torch.rand_like(self.log_alpha))
        return fixed_gates(self.log_alpha)

    def forward(self, x: Tensor) -> Tensor:
        z = self.gates()
        if z.dim() == 1:  # x ⊙ z gives the same as W ⊙ z and is smaller
            return F.linear(x * z, self.weight, self.bias)
        return F.linear(x, self.weight * z, self.bias)

    def expected_l0(self) -> Tensor:
        """Expected number of non-zero weights, Σ P(z ≠ 0) over the weights; a 0-d tensor."""
        weights_per_gate = self.weight.numel() // self.log_alpha.numel()
        return open_probability(self.log_alpha).sum() * weights_per_gate

    def to_linear(self) -> nn.Linear:
        """A plain layer with the weights W ⊙ ẑ, zeros included."""
        linear = nn.Linear(
            self.weight.shape[1], self.weight.shape[0], self.bias is not None, self.weight.device
        )
        linear.weight = nn.Parameter((self.weight * fixed_gates(self.log_alpha)).detach())
        linear.bias = copy.deepcopy(self.bias)
        return linear


def add_gates(
    model: nn.Module, gate: Literal["weight", "input"] = "weight", start: float = 0.95
) -> nn.Module:
    """A copy of the model in which each nn.Linear is an `L0Linear`.

    >>> add_gates(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
    Sequential(
      (0): L0Linear()
      (1): ReLU()
    )
    """
    return replace_modules(model, nn.Linear, lambda layer: L0Linear(layer, gate, start))


def remove_gates(model: nn.Module) -> nn.Module:
    """A copy of the model in which each `L0Linear` is a plain layer with its fixed gates applied.

    >>> remove_gates(add_gates(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """
    return replace_modules(model, L0Linear, L0Linear.to_linear)


def expected_l0(model: nn.Module) -> Tensor:
    """Expected ‖θ‖₀ of all gated weights: Σ P(z ≠ 0), differentiable in every log α; a 0-d tensor.

    Raises:
        ValueError: the model has no gates.

    >>> model = add_gates(nn.Sequential(nn.Linear(10, 10)))
    >>> 98 < expected_l0(model).item() < 100
    True
    """
    layers = [layer for layer in model.modules() if isinstance(layer, L0Linear)]
    if not layers:
        raise ValueError("model must have gates, from add_gates; it has none")
    return torch.stack([layer.expected_l0() for layer in layers]).sum()
