"""Muon beside PyTorch's own, and its orthogonalization beside the singular value decomposition."""

import pytest
import torch

from course_lib.models.muon import Muon, orthogonalize


def after_five_steps(values: torch.Tensor) -> torch.Tensor:
    """What becomes of singular values: s <- 3.4445 s - 4.775 s^3 + 2.0315 s^5, from length one."""
    s = values / values.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return s


@pytest.mark.parametrize("shape", [(6, 6), (4, 15), (15, 4)])
def test_singular_values_move_by_the_polynomial_and_vectors_stay(shape):
    u, s, vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    expected = u @ after_five_steps(s).diag() @ vt
    torch.testing.assert_close(orthogonalize(u @ s.diag() @ vt), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 192), (192, 192), (512, 192)])
def test_singular_values_of_tinylms_shapes_end_near_one(shape):
    """The polynomial takes all that begin above 0.008 into 0.68 ... 1.20 (Jordan et al., 2024)."""
    matrix = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalize(matrix))
    begin = torch.linalg.svdvals(matrix) / matrix.norm()
    assert values.max() < 1.205 and values[begin > 0.008].min() > 0.675
    assert (begin > 0.008).float().mean() > 0.8


def test_the_scale_of_a_gradient_does_not_matter():
    gradient = torch.randn(5, 9)
    torch.testing.assert_close(orthogonalize(1000 * gradient), orthogonalize(gradient))
    assert not orthogonalize(torch.zeros(5, 9)).any()


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_steps_agree_with_pytorchs(shape):
    """PyTorch's computes in bfloat16, 8 bits: steps of 0.02 agree to a few per cent of a step."""
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    optimizers = Muon([ours], lr=0.02), torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
