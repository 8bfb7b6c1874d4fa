"""Choose λ by k-fold cross-validation, without letting the validation rows help the fit.

Split the rows into folds. For each fold fit on all the other rows, for every λ, and measure the
mean squared error on the fold itself. The choice is the λ of least error, averaged over the folds:

    argmin_λ  mean over folds f of  ‖X_f θ(λ, rows outside f) − y_f‖₂² / |f|

Whatever is learned from data belongs to the fit: the means that centre features and targets come
from the training rows alone, and so must a choice of features. The chosen λ's own error is too low
an estimate of the error on new data, because λ was chosen for having a low one.

Axes: N rows, P features.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.pruning.least_squares import check_regression


def k_folds(rows: int, folds: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Split rows at random into folds of nearly equal size; each row is validated exactly once.

    Returns:
        For each fold the numbers of its training rows and of its validation rows.

    Raises:
        ValueError: folds is not from 2 to rows.

    >>> [(len(training), len(validation)) for training, validation in k_folds(rows=7, folds=3)]
    [(4, 3), (5, 2), (5, 2)]
    """
    if not 2 <= folds <= rows:
        raise ValueError(f"folds must be from 2 to {rows}, the number of rows; got {folds}")
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split(folds)
    return [(torch.cat(parts[:i] + parts[i + 1 :]), part) for i, part in enumerate(parts)]


def cross_validation_errors(
    fit: Callable[[Tensor, Tensor, float], Tensor],
    features: Tensor,
    targets: Tensor,
    penalties: Sequence[float],
    folds: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """Mean squared error on each fold's validation rows, of a fit to its other rows, for each λ.

    Args:
        fit: (features, targets, λ) -> θ, for example `ridge` or `ista`.
        features: X, (N, P).
        targets: y, (N,).
        penalties: the λ to try.
        folds: from `k_folds`.

    Returns:
        Errors, (len(folds), len(penalties)).

    Source: Stone, 1974, "Cross-Validatory Choice and Assessment of Statistical Predictions".

    >>> from course_lib.pruning.least_squares import ridge
    >>> X, y = torch.arange(6.0)[:, None], 2 * torch.arange(6.0) + 1
    >>> errors = cross_validation_errors(ridge, X, y, [0.0, 10.0], k_folds(rows=6, folds=2))
    >>> errors.shape, int(errors.mean(dim=0).argmin())
    (torch.Size([2, 2]), 0)
    """
    check_regression(features, targets)
    errors = []
    for training, validation in folds:
        X, y = features[training], targets[training]
        feature_means, target_mean = X.mean(dim=0), y.mean()
        for penalty in penalties:
            theta = fit(X - feature_means, y - target_mean, penalty)
            predicted = (features[validation] - feature_means) @ theta + target_mean
            errors.append((predicted - targets[validation]).square().mean())
    return torch.stack(errors).view(len(folds), -1)  # (folds · penalties,) -> (folds, penalties)
