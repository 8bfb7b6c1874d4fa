"""CSR and BSR beside the dense layer and beside SciPy."""

import copy
import warnings

import pytest
import scipy.sparse
import torch

from course_lib.acceleration import kernels
from course_lib.acceleration.sparse_linear import BsrLinear, CsrLinear
from course_lib.acceleration.trials import available


def sparse_weight(outputs: int, inputs: int, share: float, block: int = 1) -> torch.Tensor:
    dice = torch.Generator().manual_seed(0)
    kept = torch.rand(outputs // block, inputs // block, generator=dice) < share
    kept = kept.repeat_interleave(block, 0).repeat_interleave(block, 1)
    return torch.randn(outputs, inputs, generator=dice) * kept


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 2, 9])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_product_is_the_dense_one(native, rows, share):
    """Sums in another order: 64 terms of float32."""
    weight, bias, x = sparse_weight(32, 64, share, 4), torch.arange(32.0), torch.randn(rows, 64)
    dense = x @ weight.T + bias
    for layer in (CsrLinear(weight, bias, native), BsrLinear(weight, bias, 4, native)):
        assert torch.allclose(layer(x), dense, rtol=1e-5, atol=1e-5)
        assert torch.allclose(layer(x.view(rows, 1, 64)), dense.view(rows, 1, 32), atol=1e-5)


def test_what_is_stored_is_scipys():
    weight = sparse_weight(24, 36, 0.2, 3)
    csr, ours = scipy.sparse.csr_matrix(weight.numpy()), CsrLinear(weight)
    bsr = scipy.sparse.bsr_matrix(weight.numpy(), blocksize=(3, 3))
    blocks = BsrLinear(weight, block=3)
    for theirs, layer in ((csr, ours), (bsr, blocks)):
        assert layer.starts.tolist() == theirs.indptr.tolist()
        assert layer.columns.tolist() == theirs.indices.tolist()
        assert torch.equal(layer.values, torch.from_numpy(theirs.data))


def test_a_number_takes_64_bits_and_32_bit_places():
    layer = CsrLinear(sparse_weight(64, 64, 0.1))
    stored = layer.values.numel()
    assert sum(b.nbytes for b in layer.buffers()) == 8 * stored + 4 * 65


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_come_out_in_their_type(dtype):
    weight, x = sparse_weight(32, 64, 0.1, 16).to(dtype), torch.randn(3, 64, dtype=dtype)
    for layer in (CsrLinear(weight), BsrLinear(weight)):
        assert layer(x).dtype == dtype and torch.allclose(layer(x), x @ weight.T, rtol=0.02)


def test_a_kernel_that_is_missing_is_not_called(monkeypatch):
    gone = dict.fromkeys(available(), "this PyTorch has none")
    monkeypatch.setattr(kernels, "available", lambda: gone)
    weight, x = sparse_weight(32, 64, 0.1, 16), torch.randn(3, 64)
    for layer in (CsrLinear(weight), BsrLinear(weight)):
        assert not layer.native and torch.allclose(layer(x), x @ weight.T, atol=1e-5)


def test_a_copy_and_a_state_dict_give_the_same_layer():
    weight, x = sparse_weight(32, 64, 0.1, 16), torch.randn(3, 64)
    for layer in (CsrLinear(weight), BsrLinear(weight)):
        assert torch.equal(copy.deepcopy(layer)(x), layer(x))
        assert layer.state_dict().keys() == {"starts", "columns", "values"}


def test_no_warning_reaches_a_reader():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsrLinear(torch.eye(4))(torch.ones(2, 4))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"block must divide \(6, 8\); got 4"):
        BsrLinear(torch.ones(6, 8), block=4)
    with pytest.raises(ValueError, match="weight must be finite"):
        CsrLinear(torch.tensor([[float("nan")]]))
    with pytest.raises(ValueError, match="the weight must have shape"):
        CsrLinear(torch.ones(3))
