"""Linear layers that store and multiply only the weights that are not zero.

    CsrLinear    each number that is not zero, with its column: 64 bits a number
    BsrLinear    each block of k × k in which a number is not zero, with its column of blocks

A product with scattered numbers reads an input wherever a column says so, so it takes many zeros to
win. With bits for the places instead of numbers a file is smaller (`formats.sparse`), but nothing
here multiplies from those.

Where PyTorch has no such product (it needs a library of the processor's maker), `available()` says
so, and the layers make the dense matrix again and multiply that.

Axes: B rows of inputs, I inputs, O outputs, K numbers or blocks that are stored, k side of a block.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.acceleration.kernels import KernelLinear
from course_lib.models.finite import check_finite


class _SparseLinear(KernelLinear):
    """What both share; `block` is k, or None for single numbers."""

    def __init__(self, weight: Tensor, bias: Tensor | None, native: bool, block: int | None):
        super().__init__(weight, bias, native)
        check_finite(weight, "weight")
        self.native = self.native and weight.dtype in (torch.float32, torch.float64)
        with warnings.catch_warnings():  # PyTorch says once that these tensors are in beta
            warnings.simplefilter("ignore")
            found = weight.detach()
            found = found.to_sparse_bsr((block, block)) if block else found.to_sparse_csr()
        # Plain buffers, which any `.to` moves. 32-bit places: the kernel would convert others.
        self.register_buffer("starts", found.crow_indices().to(torch.int32))  # (O + 1,) or fewer
        self.register_buffer("columns", found.col_indices().to(torch.int32))  # (K,)
        self.register_buffer("values", found.values())  # (K,) or (K, k, k)

    def matrix(self) -> Tensor:
        """The weight, as a sparse tensor of PyTorch."""
        make = torch.sparse_csr_tensor if self.values.dim() == 1 else torch.sparse_bsr_tensor
        shape = (self.out_features, self.in_features)
        return make(self.starts, self.columns, self.values, shape, check_invariants=False)

    def by_kernel(self, rows: Tensor) -> Tensor:
        rows = rows.to(self.values.dtype)
        if len(rows) == 1:
            return (self.matrix() @ rows[0])[None]  # (O,) -> (1, O)
        return (self.matrix() @ rows.T).T  # (O, B) -> (B, O)

    def by_floats(self, rows: Tensor) -> Tensor:
        return F.linear(rows.to(self.values.dtype), self.matrix().to_dense())


class CsrLinear(_SparseLinear):
    """y = x wᵀ by compressed sparse rows: w's numbers that are not zero, row by row.

    Args:
        weight: (O, I), float32 or float64 for the kernel; other floats go by the dense product.
        bias: (O,).
        native: False: the dense product.

    Raises:
        ValueError: not a matrix; NaN or infinity.

    >>> CsrLinear(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))(torch.tensor([[3.0, 5.0]]))
    tensor([[10.,  0.]])
    """

    name = "csr"

    def __init__(self, weight: Tensor, bias: Tensor | None = None, native: bool = True):
        super().__init__(weight, bias, native, None)


class BsrLinear(_SparseLinear):
    """The same by blocks of k × k numbers: a block is stored if one of its numbers is not zero.

    Args:
        weight, bias, native: as for `CsrLinear`.
        block: k, which must divide O and I.

    Raises:
        ValueError: as `CsrLinear`; a block that does not divide the shape.

    >>> layer = BsrLinear(torch.eye(4), block=2)
    >>> tuple(layer.values.shape), layer(torch.arange(4.0))
    ((2, 2, 2), tensor([0., 1., 2., 3.]))
    """

    name = "bsr"

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, block: int = 16, native: bool = True
    ):
        if block < 1 or any(size % block for size in weight.shape):
            raise ValueError(f"block must divide {tuple(weight.shape)}; got {block}")
        super().__init__(weight, bias, native, block)
