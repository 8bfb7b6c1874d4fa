"""A sparse autoencoder: a hidden state as the sum of a few out of many directions.

A hidden state x has D numbers, and one of them alone means little. Give it M > D directions d_j of
length one, and allow it k of them:

    z = the k largest of E (x − b), or 0 where they are negative        x̂ = b + Σ_j z_j d_j

All weights stay: what is sparse is the code z. Its entries are called features; a feature that no
input turns on is dead. A code is k numbers and k places of log₂ M bits each, so the fair control is
PCA with k components, and PCA with 2 k for whoever counts a place as a number.

Sources: Makhzani and Frey, 2014, "k-Sparse Autoencoders"; Bricken et al., 2023, "Towards
Monosemanticity: Decomposing Language Models With Dictionary Learning" (directions of length one, on
a language model); Gao et al., 2024, "Scaling and Evaluating Sparse Autoencoders" (both together).

Axes: N hidden states, D their width, M features, k features of one code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.finite import check_finite, is_fake
from course_lib.models.training import follow_rate, train

BATCH = 512  # hidden states of one step
RATE = 3e-3


class SparseAutoencoder(nn.Module):
    """Hidden states (…, D) in, each as b plus at most k of M directions out.

    Source: Gao et al., 2024, "Scaling and Evaluating Sparse Autoencoders".

    >>> autoencoder = SparseAutoencoder(width=4, features=16, k=3)
    >>> x = torch.randn(5, 4)
    >>> codes = autoencoder.encode(x)
    >>> codes.shape, int((codes != 0).sum(1).max()) <= 3, autoencoder(x).shape
    (torch.Size([5, 16]), True, torch.Size([5, 4]))
    """

    def __init__(self, width: int, features: int, k: int):
        super().__init__()
        if not 1 <= k <= features:
            raise ValueError(f"k must be from 1 to features={features}; got {k}")
        start = F.normalize(torch.randn(features, width), dim=1)
        self.k = k
        self.encoder = nn.Parameter(start.clone())  # E, (M, D): each feature looks where it points
        self.decoder = nn.Parameter(start.T.clone())  # (D, M), of any length: see `directions`
        self.bias = nn.Parameter(torch.zeros(width))  # b

    def directions(self) -> Tensor:
        """d_j, of length one, as columns: (D, M). (Free lengths would make codes of any size.)"""
        return F.normalize(self.decoder, dim=0)

    def encode(self, x: Tensor) -> Tensor:
        """z (…, M), at most k positive entries in a row; gradients pass to these alone."""
        scores = F.linear(x - self.bias, self.encoder)  # (…, D) -> (…, M)
        values, places = scores.topk(self.k, dim=-1)
        return torch.zeros_like(scores).scatter(-1, places, values.relu())

    def decode(self, codes: Tensor) -> Tensor:
        """b + Σ_j z_j d_j, (…, D)."""
        return F.linear(codes, self.directions(), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def train_autoencoder(
    autoencoder: SparseAutoencoder, hidden: Tensor, steps: int, seed: int = 0
) -> Tensor:
    """Train in place on hidden states, from b = their mean, to the least ‖x̂ − x‖₂².

    Args:
        autoencoder: of the hidden states' width.
        hidden: (N, D), on the autoencoder's device; of any scale.
        steps: of Adam, with 512 hidden states each, drawn at random.
        seed: of the draws.

    Returns:
        The unexplained share of the variance at each step, before it: (steps,).

    Raises:
        ValueError: hidden is not (N, D) with the autoencoder's D, not finite, or all rows are one.

    >>> hidden = torch.eye(8).repeat(40, 1)
    >>> losses = train_autoencoder(SparseAutoencoder(8, features=16, k=2), hidden, steps=60)
    >>> bool(losses[-1] < 0.5 * losses[0])
    True
    """
    if hidden.dim() != 2 or hidden.shape[1] != len(autoencoder.bias):
        raise ValueError(
            f"hidden must have shape (N, {len(autoencoder.bias)}); got {tuple(hidden.shape)}"
        )
    check_finite(hidden, "hidden")
    variance = hidden.var(dim=0, correction=0).sum()
    if not is_fake(variance) and not variance > 0:
        raise ValueError("hidden must vary; all its rows are equal")
    with torch.no_grad():
        autoencoder.bias.copy_(hidden.mean(dim=0))
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randint(len(hidden), (BATCH,), generator=generator) for _ in range(steps))
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=RATE)
    falling = max(1, 0.3 * steps)  # the last steps, in which the rate goes to zero
    schedules = follow_rate([optimizer], lambda step: min(1.0, (steps - step) / falling))

    def loss(autoencoder: nn.Module, rows: Tensor) -> Tensor:
        x = hidden[rows.to(hidden.device)]
        return (autoencoder(x) - x).square().sum(dim=1).mean() / variance

    return train(autoencoder, rows, loss, [optimizer], schedules)


def variance_explained(x: Tensor, reconstruction: Tensor, mean: Tensor) -> float:
    """1 − Σ ‖x̂ − x‖₂² / Σ ‖x − mean‖₂²: 1 if the reconstruction is right, 0 if it is the mean.

    Args:
        x: (N, D).
        reconstruction: (N, D).
        mean: (D,), of the hidden states that were trained on.

    >>> x, mean = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([2.0, 0.0])
    >>> variance_explained(x, x, mean), variance_explained(x, mean.expand(2, 2), mean)
    (1.0, 0.0)
    """
    left, whole = ((x - other).float().square().sum() for other in (reconstruction, mean))
    return float(1 - left / whole)


@torch.no_grad()
def dead_share(autoencoder: SparseAutoencoder, hidden: Tensor) -> float:
    """The share of features that no hidden state (N, D) turns on.

    >>> autoencoder = SparseAutoencoder(2, features=4, k=1)
    >>> dead_share(autoencoder, torch.ones(3, 2)) >= 0.75  # one row three times, one feature
    True
    """
    alive = torch.stack([(autoencoder.encode(x) > 0).any(dim=0) for x in hidden.split(4096)])
    return 1 - float(alive.any(dim=0).float().mean())
