"""Contextual sparsity: each token uses a few hidden units of an MLP, foretold before any runs.

    y = Σ_i a_i d_i     a_i = silu(g_i · x) (u_i · x)     effect of unit i on a token: |a_i| ‖d_i‖

Here i goes through the k units whose effect a *scorer* takes to be the largest. A token needs the
rows g_i and u_i and the column d_i of these units and no others. Scorers:

    static       the mean effect over a calibration text: the same units for all tokens, a control
    predictor    √effect ≈ W x + b, W of low rank: R (D + F) products, in closed form
    oracle       the effects themselves: it costs what it would save, and shows what can be reached

(`activations` zeros small products, once they are all there.) On the clock the rows that are used
must be fetched from where they lie, for one token at a time: tokens of a batch use different ones.

Source: Liu et al., 2023, "Deja Vu: Contextual Sparsity for Efficient LLMs at Inference Time" (there
the predictor, of two matrices too, is trained); Izenman, 1975, "Reduced-Rank Regression for the
Multivariate Linear Model" (the closed form).

Axes: B windows, T tokens, N = B · T, D model width, F hidden units, K that are used, R rank.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, check_floats
from course_lib.models.llama import MLP, Llama
from course_lib.models.parts import record_inputs, replace_modules

DAMPING = 1e-3
Scorer = Callable[[Tensor], Tensor]  # x (…, D) that an MLP is given -> scores of its units (…, F)


def unit_effects(mlp: MLP, x: Tensor) -> Tensor:
    """|a_i| ‖d_i‖ of each unit for each token: (…, D) -> (…, F). Their mean is a contribution.

    >>> from course_lib.models.pretrained import tiny
    >>> unit_effects(tiny()[0].blocks[0].mlp, torch.zeros(3, 192)).shape
    torch.Size([3, 512])
    """
    return mlp.products(x).abs() * mlp.down.weight.norm(dim=0)


def top_units(scores: Tensor, k: int) -> Tensor:
    """True at the k highest scores of each row: (…, F) bool.

    Raises:
        ValueError: k is not from 1 to F; scores are empty.

    >>> top_units(torch.tensor([[0.1, -5.0, 0.3]]), k=2).tolist()
    [[True, False, True]]
    """
    check_floats(scores, "scores")
    if not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"k must be from 1 to {scores.shape[-1]}; got {k}")
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter(-1, scores.topk(k, dim=-1).indices, True)


class ContextualMLP(nn.Module):
    """The gated MLP of another, of which each token uses the k units that score highest.

    All units are computed and the others thrown away: to measure the loss with. `fetched` is what
    saves time.
    """

    def __init__(self, mlp: MLP, scorer: Scorer, k: int):
        super().__init__()
        self.mlp, self.scorer, self.k = mlp, scorer, k
        self.down = mlp.down

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        used = top_units(self.scorer(x), self.k)
        return self.down(torch.where(used, self.mlp.products(x), 0))


def contextual(model: Llama, scorers: Sequence[Scorer], k: int) -> Llama:
    """A copy of the model whose tokens use k units of each MLP.

    Args:
        scorers: one for each layer: `oracles`, `static_scorers` or `fit_predictors` of this model.
        k: from 1 to F.

    Raises:
        ValueError: there is not one scorer for each layer; k is out of range.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> contextual(model, oracles(model), 512)(torch.arange(9)[None]).shape
    torch.Size([1, 9, 2048])
    """
    widths = [block.mlp.down.in_features for block in model.blocks]
    if len(scorers) != len(widths) or not 1 <= k <= min(widths):
        raise ValueError(
            f"scorers must be {len(widths)}, one a layer, and k from 1 to {min(widths)}; "
            f"got {len(scorers)} and {k}"
        )
    left = iter(scorers)
    return replace_modules(model, MLP, lambda mlp: ContextualMLP(mlp, next(left), k))


def oracles(model: Llama) -> list[Scorer]:
    """Scorers that compute all of their MLP: what no predictor of one-by-one effects can beat.

    >>> from course_lib.models.pretrained import tiny
    >>> len(oracles(tiny()[0]))
    4
    """
    return [partial(unit_effects, block.mlp) for block in model.blocks]


@torch.no_grad()
def static_scorers(model: Llama, tokens: Tensor) -> list[Scorer]:
    """Scorers that give every token the mean effects on a calibration text (B, T).

    >>> from course_lib.models.pretrained import tiny
    >>> scorers = static_scorers(tiny()[0], torch.arange(9)[None])
    >>> scorers[0](torch.zeros(2, 5, 192)).shape
    torch.Size([2, 5, 512])
    """
    means = [unit_effects(mlp, x).mean(dim=0) for mlp, x in _given(model, tokens)]
    return [lambda x, mean=mean: mean.expand(*x.shape[:-1], -1) for mean in means]


@torch.no_grad()
def fit_predictors(model: Llama, tokens: Tensor, rank: int) -> list[nn.Sequential]:
    """A predictor of √effect for each layer, fitted on a calibration text.

    Args:
        tokens: (B, T).
        rank: R, from 1 to D or F.

    Raises: as for `fit_predictor`.

    >>> from course_lib.models.pretrained import tiny
    >>> fit_predictors(tiny()[0], torch.arange(99)[None], rank=8)[0]
    Sequential(
      (0): Linear(in_features=192, out_features=8, bias=False)
      (1): Linear(in_features=8, out_features=512, bias=True)
    )
    """
    return [fit_predictor(x, unit_effects(mlp, x).sqrt(), rank) for mlp, x in _given(model, tokens)]


@without_autocast
@torch.no_grad()
def fit_predictor(inputs: Tensor, wanted: Tensor, rank: int) -> nn.Sequential:
    """The linear map of this rank that errs least: a matrix D → R, then one R → F with a bias.

    W = argmin ‖Y − X W‖² + λ ‖W‖², of X and Y without their means; then W V Vᵀ, where V are the R
    main directions of what is foretold, X W.

    Args:
        inputs: X, (N, D).
        wanted: Y, (N, F).
        rank: R, from 1 to the smaller of D and F.

    Raises:
        ValueError: the shapes do not fit, rank is out of range, NaN or infinity.

    Source: Izenman, 1975, "Reduced-Rank Regression for the Multivariate Linear Model".

    >>> x = torch.randn(50, 3)
    >>> y = x @ torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, 4.0]]) + 7
    >>> bool((fit_predictor(x, y, rank=1)(x) - y).abs().max() < 0.1)
    True
    """
    if inputs.dim() != 2 or wanted.dim() != 2 or len(inputs) != len(wanted):
        raise ValueError(
            "inputs must have shape (N, D) and wanted (N, F); "
            f"got {tuple(inputs.shape)} and {tuple(wanted.shape)}"
        )
    most = min(inputs.shape[1], wanted.shape[1])
    if not 1 <= rank <= most:
        raise ValueError(f"rank must be from 1 to {most}; got {rank}")
    check_finite(inputs, "inputs")
    check_finite(wanted, "wanted")
    x, y = inputs.double(), wanted.double()
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x  # (D, D)
    level = DAMPING * gram.diagonal().mean()
    damped = gram + (level + (level == 0)) * torch.eye(len(gram)).to(gram)
    weight = torch.linalg.solve(damped, x.T @ y)  # (D, F)
    main = torch.linalg.eigh(weight.T @ gram @ weight).eigenvectors[:, -rank:]  # (F, R)
    made = nn.Sequential(nn.Linear(x.shape[1], rank, bias=False), nn.Linear(rank, y.shape[1])).to(
        inputs
    )  # its device and dtype
    made[0].weight.copy_((weight @ main).T)
    made[1].weight.copy_(main)
    made[1].bias.copy_(mean_y - mean_x @ weight @ main @ main.T)
    return made.requires_grad_(False)


def fetched(gate: Tensor, up: Tensor, down_rows: Tensor, x: Tensor, units: Tensor) -> Tensor:
    """The MLP of one token with some units alone: nothing is read of the others.

    Args:
        gate, up: (F, D).
        down_rows: downᵀ, (F, D), with each row in one piece.
        x: (D,).
        units: numbers of those that are used, (K,).

    Returns:
        (D,).

    >>> gate, up, down_rows = torch.ones(3, 2), torch.ones(3, 2), torch.eye(3, 2)
    >>> fetched(gate, up, down_rows, torch.tensor([9.0, 1.0]), torch.tensor([1])).round()
    tensor([  0., 100.])
    """
    a = F.silu(gate.index_select(0, units) @ x) * (up.index_select(0, units) @ x)  # (K,)
    return a @ down_rows.index_select(0, units)


def contextual_products(width: int, k: int, mlp_width: int, rank: int = 0) -> int:
    """Products of two numbers for a token of an MLP: 3 D K with K units, R (D + F) to foretell.

    >>> contextual_products(192, 512, 512), contextual_products(192, 128, 512, rank=32)
    (294912, 96256)
    """
    return 3 * width * k + rank * (width + mlp_width)


def _given(model: Llama, tokens: Tensor) -> list[tuple[MLP, Tensor]]:
    """Each MLP, with what it is given: (N, D)."""
    mlps = [block.mlp for block in model.blocks]
    return list(zip(mlps, record_inputs(model, tokens, mlps), strict=True))
