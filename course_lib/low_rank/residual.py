"""What an approximation of a weight lost, given back by two thin matrices.

A weight W that was rounded or pruned to Ŵ leaves a residual E = W − Ŵ. Of rank r,

    B A  nearest to E         W  ≈  Ŵ + B A          at the price of r (O + I) numbers

is the truncated SVD of E; where the layer's outputs count, the first r directions of E's outputs.
The first is LQER's, which for the second scales E's columns by the inputs' sizes; with the inputs'
Gram matrix G the best one has a closed form, too.

Once B A is there, Ŵ need not hold what B A holds. So approximate W − B A anew, and again:

    Ŵ_t = approximate(W − B_{t−1} A_{t−1})        B_t A_t nearest to W − Ŵ_t

Where `approximate` gives the nearest of its kind to its input, as keeping the k largest weights
does, neither step can raise ‖W − Ŵ − B A‖, so the error never rises. Rounding promises no such
thing: its range follows its input, and a larger input has coarser levels.

Sources: Zhang et al., 2024, "LQER: Low-Rank Quantization Error Reconstruction for LLMs"; Zhang,
Wong, Xiao, Constantinides and Zhao, 2025, "QERA: An Analytical Framework for Quantization Error
Reconstruction" (the best one on the outputs); Li et al., 2024, "LoftQ: LoRA-Fine-Tuning-Aware
Quantization for Large Language Models" (the loop, with rounding); Zhou and Tao, 2011, "GoDec:
Randomized Low-rank & Sparse Matrix Decomposition in Noisy Case" and Yu et al., 2017, "On
Compressing Deep Models by Low Rank and Sparse Decomposition" (the loop, with the largest weights);
Saha et al., 2024, "Compressing Large Language Models using Low Rank and Low Precision
Decomposition" and Zhang and Papyan, 2025, "OATS: Outlier-Aware Pruning Through Sparse and Low Rank
Decomposition" (both loops, with the inputs in mind).

Axes: O outputs, I inputs, r rank.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.low_rank.output_aware import output_factors
from course_lib.low_rank.svd import Factors, truncated
from course_lib.models.finite import check_finite


@torch.no_grad()
def give_back(
    weight: Tensor, approximation: Tensor, rank: int, gram: Tensor | None = None
) -> Factors:
    """The factors B, A of rank r that bring Ŵ + B A nearest to W.

        min ‖W − Ŵ − B A‖_F        or, with G,        min mean ‖(W − Ŵ − B A) x‖²

    Args:
        weight: W, (O, I), any float type.
        approximation: Ŵ, (O, I), such as a weight that comes back from a file.
        rank: r, from 0 to min(O, I).
        gram: G, the mean of x xᵀ, (I, I), from `moments.Moments`.

    Returns:
        The factors, in the weight's dtype; what is missing is taken in float32 or wider.

    Raises:
        ValueError: the shapes differ; NaN or infinity; what `truncated` or `output_factors` refuse.

    >>> weight = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    >>> give_back(weight, torch.eye(2), rank=1).product.round(decimals=4)
    tensor([[1.5000, 1.5000],
            [1.5000, 1.5000]])
    """
    _check(weight, approximation)
    wide = torch.promote_types(weight.dtype, torch.float32)
    missing = weight.to(wide) - approximation.to(wide)
    found = truncated(missing, rank) if gram is None else output_factors(missing, gram, rank)
    return Factors(*(factor.to(weight.dtype) for factor in found))


@torch.no_grad()
def alternate(
    weight: Tensor,
    approximate: Callable[[Tensor], Tensor],
    rank: int,
    rounds: int,
    gram: Tensor | None = None,
) -> tuple[Tensor, Factors]:
    """Ŵ and B, A in turns, each made for what the other leaves of W.

    One round is `give_back(weight, approximate(weight), rank, gram)`.

    Args:
        weight, rank, gram: as for `give_back`.
        approximate: what is to stand for W − B A, in its shape: rounded, or with many zeros.
        rounds: at least 1.

    Returns:
        Ŵ and the factors of the last round, which need not be the best one.

    Raises:
        ValueError: fewer rounds than 1; what `give_back` refuses.

    >>> from course_lib.models.selection import largest_masks
    >>> def two_largest(w):
    ...     return w * largest_masks({"w": w}, 2)["w"]
    >>> weight = torch.ones(3, 3) + torch.diag(torch.tensor([0.0, 4.0, 9.0]))
    >>> for rounds in (1, 10):
    ...     sparse, (left, right) = alternate(weight, two_largest, rank=1, rounds=rounds)
    ...     print(round((weight - sparse - left @ right).norm().item(), 1))
    1.1
    0.0
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}")
    rest = weight
    for _ in range(rounds):
        approximation = approximate(rest)
        factors = give_back(weight, approximation, rank, gram)
        rest = weight - factors.product
    return approximation, factors


def _check(weight: Tensor, approximation: Tensor) -> None:
    if weight.dim() != 2 or weight.shape != approximation.shape:
        raise ValueError(
            "weight and approximation must have one shape (O, I); "
            f"got {tuple(weight.shape)} and {tuple(approximation.shape)}"
        )
    check_finite(weight, "weight")
    check_finite(approximation, "approximation")
