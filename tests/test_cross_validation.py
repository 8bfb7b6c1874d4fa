"""Folds, their errors against scikit-learn, and that validation rows do not leak."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LassoCV

from course_lib.pruning.cross_validation import cross_validation_errors, k_folds
from course_lib.pruning.iterative_thresholding import ista
from course_lib.pruning.least_squares import ridge


def data(rows=40, features=15):
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(rows, features, dtype=torch.float64, generator=generator) + 3
    noise = torch.randn(rows, dtype=torch.float64, generator=generator)
    return columns, columns[:, :3] @ torch.tensor([2.0, -1.5, 1.0]).double() + 5 + noise


@pytest.mark.parametrize(("rows", "folds"), [(10, 2), (11, 3), (7, 7)])
def test_each_row_is_validated_once_and_never_trained_on_meanwhile(rows, folds):
    splits = k_folds(rows, folds)
    assert torch.cat([v for _, v in splits]).sort().values.tolist() == list(range(rows))
    for training, validation in splits:
        assert torch.cat([training, validation]).sort().values.tolist() == list(range(rows))
        assert len(validation) in (rows // folds, -(-rows // folds))


def test_folds_depend_on_the_seed_alone():
    assert k_folds(20, 4, seed=1)[0][1].equal(k_folds(20, 4, seed=1)[0][1])
    assert not k_folds(20, 4, seed=1)[0][1].equal(k_folds(20, 4, seed=2)[0][1])


@pytest.mark.parametrize("folds", [1, 6])
def test_the_number_of_folds_must_fit(folds):
    with pytest.raises(ValueError, match=f"folds must be from 2 to 5.*got {folds}"):
        k_folds(5, folds)


def test_errors_and_choice_agree_with_sklearn():
    columns, targets = data()
    folds = k_folds(40, 5)
    penalties = [100.0, 30.0, 10.0, 3.0, 1.0]
    alphas = [penalty / (2 * 32) for penalty in penalties]  # each fit sees 32 rows
    splits = [(t.numpy(), v.numpy()) for t, v in folds]
    peer = LassoCV(alphas=alphas, cv=splits, tol=1e-10, max_iter=10**5)
    peer.fit(columns.numpy(), targets.numpy())
    errors = cross_validation_errors(ista, columns, targets, penalties, folds)
    np.testing.assert_allclose(errors.numpy(), peer.mse_path_.T, rtol=1e-6)
    assert alphas[int(errors.mean(dim=0).argmin())] == peer.alpha_


def test_validation_rows_do_not_change_the_fit():
    """Another validation target changes that row's error, and no prediction."""
    columns, targets = data()
    folds = k_folds(40, 5)
    seen = []

    def fit(features, centred, penalty):
        seen.append(ridge(features, centred, penalty))
        return seen[-1]

    cross_validation_errors(fit, columns, targets, [1.0], folds[:1])
    row = folds[0][1][0]
    columns[row], targets[row] = 100.0, -1000.0
    cross_validation_errors(fit, columns, targets, [1.0], folds[:1])
    assert seen[0].equal(seen[1])


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="features must have shape"):
        cross_validation_errors(ridge, torch.ones(4, 2), torch.ones(3), [1.0], k_folds(4, 2))
