"""Claims about low rank, k-means and other ways to store fewer numbers."""

import numpy as np
import torch
from torch import nn

from course_lib.sources.checks.quantization import affine, lloyd
from course_lib.sources.checks.registry import checks, mse, normal


@checks("C05")
def factor_a_matrix() -> str:
    """Numbers stored by two factors, and the error of rank 10 on a random matrix."""
    stored = {rank: rank * (100 + 100) for rank in (49, 51)}
    values = np.linalg.svd(normal(100, 100), compute_uv=False)
    error = np.sqrt(np.sum(values[10:] ** 2) / np.sum(values**2))
    assert stored[49] < 10_000 < stored[51] and error > 0.7
    return (
        f"100 × 100 numbers: rank 49 stores {stored[49]:,}, rank 51 {stored[51]:,}; a random one "
        f"loses {error:.0%} at rank 10"
    )


@checks("C48")
def share_weights() -> str:
    """Compression ratio and error of 16 shared values for 20,000 weights."""
    w = normal(20_000)
    ratio = 20_000 * 32 / (20_000 * 4 + 16 * 32)
    shared, even = mse(lloyd(w, 16), w), mse(affine(w, 4), w)
    assert ratio < 8 and shared < 0.5 * even
    return f"{ratio:.2f} times smaller, not 8; squared error {shared:.3f}, even levels {even:.3f}"


@checks("C55")
def divide_by_the_root_of_the_norm() -> str:
    """Bytes, zeros and norm of p/√‖p‖."""
    p = normal(1000)
    scaled = p / np.sqrt(np.linalg.norm(p))
    assert scaled.nbytes == p.nbytes and np.all(scaled != 0)
    return (
        f"{p.size} numbers stay {scaled.size}, none is zero; "
        f"the norm goes from {np.linalg.norm(p):.1f} to {np.linalg.norm(scaled):.1f}"
    )


@checks("C63")
def divide_p4() -> str:
    """The norm of p/√‖p‖ for ‖p‖ = 10."""
    p = normal(50)
    p *= 10 / np.linalg.norm(p)
    after = np.linalg.norm(p / np.sqrt(10))
    assert np.isclose(after, np.sqrt(10))
    return f"norm 10 becomes {after:.2f}; {p.size} numbers stay {p.size}"


@checks("C100")
def multiply_two_linear_layers() -> str:
    """Two linear layers without activation, and the one layer that they are."""
    torch.manual_seed(0)
    first, second = nn.Linear(100, 100).double(), nn.Linear(100, 10).double()
    x = torch.randn(20, 100, dtype=torch.float64)
    weight = second.weight @ first.weight
    bias = second.weight @ first.bias + second.bias
    assert torch.allclose(second(first(x)), x @ weight.T + bias)
    before = sum(p.numel() for layer in (first, second) for p in layer.parameters())
    after = weight.numel() + bias.numel()
    return (
        f"{before:,} parameters compute what {after:,} do: {before // after} times smaller, exactly"
    )
