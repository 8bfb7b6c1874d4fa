"""Moments: the averages over recorded inputs, and the output error that they tell."""

import pytest
import torch

from course_lib.models.moments import Moments, output_error


def test_batches_give_what_all_at_once_gives():
    """In float64 against NumPy-like sums; float32 is off by its own rounding of 1000 products."""
    x = torch.randn(1000, 7) * torch.tensor([1.0, 1e-3, 1e3, 1, 0, 5, 1])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        moments = Moments.empty(7, dtype)
        for some in x.split([1, 99, 400, 500]):
            assert moments.add(some) is moments
        wide = x.double()
        size = wide.square().mean(0).sqrt()
        gram = (moments.gram.double() - wide.T @ wide / 1000).abs() / (size[:, None] * size + 1e-30)
        assert gram.max() < tolerance
        torch.testing.assert_close(moments.mean_abs, wide.abs().mean(0).to(dtype))
        assert torch.equal(moments.max_abs, x.abs().amax(0).to(dtype))
        assert moments.count == 1000


def test_the_gram_matrix_tells_the_output_error():
    x, weight = torch.randn(2, 50, 6), torch.randn(4, 6)
    other = weight.round()
    moments = Moments.empty(6).add(x)  # more axes count as tokens
    direct = (x @ weight.T - x @ other.T).square().mean(dim=(0, 1))
    torch.testing.assert_close(output_error(weight - other, moments.gram), direct)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    x = (torch.ones(5000, 1) * 300).to(dtype)  # 300² is beyond float16
    moments = Moments.empty(1).add(x)
    assert moments.gram.dtype == torch.float32
    assert moments.gram.item() == pytest.approx(x[0].item() ** 2, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = Moments.empty(1).add(torch.full((1, 1), 1.001)).gram.item()
    assert again == pytest.approx(1.001**2, rel=1e-6)


def test_one_token_and_one_input():
    moments = Moments.empty(3).add(torch.tensor([[1.0, 0.0, -2.0]]))
    assert moments.gram.tolist() == [[1, 0, -2], [0, 0, 0], [-2, 0, 4]]
    assert Moments.empty(1).add(torch.tensor([[3.0]])).gram.tolist() == [[9]]


def test_an_input_that_counts_three_times_is_as_good_as_three():
    x, times = torch.randn(4, 5, 6), torch.tensor([3.0, 1.0, 1.0, 0.0, 2.0])
    often = torch.cat([x[:, i].repeat(int(n), 1) for i, n in enumerate(times)])
    for parts in ([x], x.split(3)):
        moments = Moments.empty(6)
        for some in parts:
            moments.add(some, times)
        expected = Moments.empty(6).add(often)
        torch.testing.assert_close(moments.gram, expected.gram)
        torch.testing.assert_close(moments.mean_abs, expected.mean_abs)
        assert moments.count == expected.count == 28
    assert torch.equal(moments.max_abs, x.abs().amax((0, 1)))  # of all, whatever they count


def test_weights_that_cannot_be_are_refused():
    moments, x = Moments.empty(2), torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"weights must broadcast to \(3,\); got \(2,\)"):
        moments.add(x, torch.ones(2))
    for wrong in (torch.tensor([1.0, -1.0, 1.0]), torch.zeros(3)):
        with pytest.raises(ValueError, match="weights must be at least 0, and not all 0"):
            moments.add(x, wrong)
    with pytest.raises(ValueError, match="weights must be finite"):
        moments.add(x, torch.tensor([1.0, torch.nan, 1.0]))
    assert moments.count == 0


def test_bad_input_is_refused():
    moments = Moments.empty(3)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\); got \(2, 4\)"):
        moments.add(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="x must have shape"):
        moments.add(torch.zeros(3))
    with pytest.raises(ValueError, match="x must not be empty"):
        moments.add(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="x must be finite; got 1 NaN"):
        moments.add(torch.tensor([[0.0, torch.nan, 1.0]]))
    with pytest.raises(TypeError, match="x must be a tensor of floats"):
        moments.add(torch.zeros(2, 3, dtype=torch.int64))
    assert moments.count == 0 and not moments.gram.any()
    with pytest.raises(ValueError, match="inputs must be at least 1 and dtype float32"):
        Moments.empty(3, torch.float16)
