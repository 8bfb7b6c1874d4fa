"""GPTQ: the authors' codes, the exhaustive optimum of small layers, least squares, the extremes."""

import itertools

import pytest
import torch

from benchmarks import authors
from course_lib.formats.linear import Codes, Scheme, fit_stored, nearest_codes
from course_lib.language_models import gptq as module
from course_lib.language_models.gptq import gptq
from course_lib.models.moments import output_error
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format, fit_grid
from course_lib.quantization.rows import to_rows


def layer(outputs: int, inputs: int, dtype=torch.float64, tokens: int = 200):
    """A weight, and the Gram matrix of inputs that depend on each other and differ in size."""
    x = torch.randn(tokens, inputs, dtype=dtype) @ torch.randn(inputs, inputs, dtype=dtype)
    x *= torch.rand(inputs, dtype=dtype).mul(3).exp()
    return torch.randn(outputs, inputs, dtype=dtype), x.T @ x / tokens


def total(weight, codes, gram) -> float:
    return output_error(weight - codes.weight, gram).sum().item()


# ------------------------------------------------------------------ the same as the authors


@pytest.mark.parametrize("format", [Format(4), Format(3, symmetric=True), Format(2)], ids=str)
@pytest.mark.parametrize("group", [32, 96])
@pytest.mark.parametrize(
    "how", [{}, {"act_order": True}, {"static_groups": False}], ids=lambda how: "".join(how)
)
def test_codes_are_those_of_the_authors(format, group, how):
    """In float64: no number is near enough to the middle of two levels to fall either way."""
    weight, gram = layer(40, 96)
    theirs, values = authors.gptq(
        weight, 2 * gram, format.bits, group, format.symmetric, **how, block=32
    )
    ours = gptq(weight, gram, Scheme(format, group), **how)
    assert torch.equal(ours.codes, theirs.to(format.dtype))
    torch.testing.assert_close(ours.weight, values)


def test_float32_falls_another_way_now_and_then_and_errs_no_more():
    """Wider than a panel and no multiple of a strip."""
    weight, gram = layer(48, 300, torch.float32, tokens=900)
    theirs, values = authors.gptq(weight, 2 * gram, 4, 100)
    ours = gptq(weight, gram, Scheme(Format(4), 100))
    assert (ours.codes != theirs).double().mean() < 0.01
    ratio = total(weight, ours, gram) / output_error(weight - values, gram).sum().item()
    assert ratio < 1.001


@pytest.mark.parametrize("act_order", [False, True])
def test_panels_and_strips_change_nothing(act_order, monkeypatch):
    weight, gram = layer(6, 50)
    scheme = Scheme(Format(3), 10)
    codes = gptq(weight, gram, scheme, act_order).codes
    for panel, strip in ((1, 1), (7, 3), (50, 50)):
        monkeypatch.setattr(module, "PANEL", panel)
        monkeypatch.setattr(module, "STRIP", strip)
        assert torch.equal(gptq(weight, gram, scheme, act_order).codes, codes)


def test_the_grid_is_the_schemes_own_or_one_that_is_given():
    weight, gram = layer(8, 32)
    scheme = Scheme(Format(3), 16, mse_range)
    grid = fit_stored(to_rows(weight, 16), scheme)
    fitted, given = gptq(weight, gram, scheme), gptq(weight, gram, grid, static_groups=False)
    assert torch.equal(fitted.codes, given.codes)
    assert torch.equal(fitted.grid.scale, grid.scale)
    assert torch.equal(fitted.grid.zero_point, grid.zero_point)
    assert fitted.grid.zero_point.dtype == torch.int32


@pytest.mark.parametrize("granularity", ["tensor", "channel", 32])
def test_one_scale_for_a_row_or_for_all_is_the_same_fitted_on_the_way(granularity):
    """Before the first column nothing has moved."""
    weight, gram = layer(8, 32)
    scheme = Scheme(Format(4), granularity)
    codes = gptq(weight, gram, scheme)
    assert torch.equal(gptq(weight, gram, scheme, static_groups=False).codes, codes.codes)
    assert codes.grid.scale.shape == (1 if granularity == "tensor" else 8, 1)


# ------------------------------------------------------------------ brute force


@pytest.mark.parametrize("act_order", [False, True])
def test_never_better_than_the_best_codes_and_on_average_better_than_rounding(act_order):
    """All 3⁶ codes of 2 symmetric bits, for each of 150 outputs with 6 inputs."""
    weight, gram = layer(150, 6)
    scheme = Scheme(Format(2, symmetric=True), "channel")
    ours, nearest = gptq(weight, gram, scheme, act_order), nearest_codes(weight, scheme)
    every = torch.tensor(list(itertools.product((-1, 0, 1), repeat=6)), dtype=torch.float64)
    best = torch.stack(
        [output_error(row - scale * every, gram).min()
         for row, scale in zip(weight, ours.grid.scale, strict=True)]
    )  # fmt: skip
    errors, rounded = (output_error(weight - c.weight, gram) for c in (ours, nearest))
    assert (errors > best * (1 - 1e-9)).all() and (rounded > best * (1 - 1e-9)).all()
    assert errors.mean() < 0.8 * rounded.mean()


def test_without_correlation_it_is_rounding_to_nearest():
    weight = torch.randn(5, 12)
    gram = torch.diag(torch.rand(12) + 0.1)
    for how in ({}, {"act_order": True}):
        codes = gptq(weight, gram, Scheme(Format(4), 4), **how)
        assert torch.equal(codes.codes, nearest_codes(weight, Scheme(Format(4), 4)).codes)


def test_twins_share_their_error():
    """Of two equal inputs, the second's weight makes up for all that the first one's lost."""
    weight = torch.tensor([[0.4, 0.4]], dtype=torch.float64)
    grid = fit_grid(torch.zeros(1, 1), torch.full((1, 1), 3.0), Format(2))
    codes = gptq(weight, torch.ones(2, 2, dtype=torch.float64), grid, damping=1e-9)
    assert codes.codes.tolist() == [[0, 1]]  # 0.8 in all; each to nearest gives 0


# ------------------------------------------------------------------ extremes


def test_dead_inputs_are_rounded_to_nearest_and_change_nothing_else():
    weight, gram = layer(7, 12)
    dead, live = [0, 5, 11], [1, 2, 3, 4, 6, 7, 8, 9, 10]
    gram[dead] = 0
    gram[:, dead] = 0
    grid = fit_stored(weight, Scheme(Format(4), "channel"))
    codes = gptq(weight, gram, grid).codes
    alone = gptq(weight[:, live], gram[live][:, live], grid).codes
    assert torch.equal(codes[:, live], alone)
    nearest = nearest_codes(weight, Scheme(Format(4), "channel")).codes
    assert torch.equal(codes[:, dead], nearest[:, dead])
    nothing = gptq(weight, torch.zeros_like(gram), grid).codes
    assert torch.equal(nothing, nearest)


@pytest.mark.parametrize("act_order", [False, True])
def test_one_token_twins_and_a_matrix_that_is_no_gram_matrix(act_order):
    weight, gram = layer(7, 12, torch.float32)
    x = torch.randn(1, 12)
    twice = torch.arange(12) // 2
    twins = gram[twice][:, twice]
    scheme = Scheme(Format(3), 6)
    for some in (
        x.T @ x,
        twins,
        gram - 0.9 * gram.diagonal().diag(),
        x.T @ x - x.square().diag_embed()[0],
    ):
        for damping in (0.0, 0.01):
            codes = gptq(weight, some, scheme, act_order, damping=damping)
            assert codes.codes.max() <= 7 and codes.weight.isfinite().all()
    rounded = total(weight, nearest_codes(weight, scheme), x.T @ x)
    assert total(weight, gptq(weight, x.T @ x, scheme, act_order), x.T @ x) < 0.1 * rounded


def test_constant_zero_tiny_and_huge_weights():
    _, gram = layer(1, 8, torch.float32)
    assert not gptq(torch.zeros(3, 8), gram, Scheme(Format(4), 4)).weight.any()
    for size in (1e-3, 1e4):
        codes = gptq(torch.full((3, 8), size), gram, Scheme(Format(4), 4))
        torch.testing.assert_close(codes.weight, torch.full((3, 8), size), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="scale, in float16, must be finite"):
        gptq(torch.full((3, 8), 1e8), gram, Scheme(Format(4), 4))
    one = gptq(torch.tensor([[0.3]]), torch.tensor([[2.0]]), Scheme(Format(2), "channel"))
    assert one.codes.tolist() == [[3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_computed_in_float32(dtype):
    weight, gram = layer(6, 16, torch.float32)
    weight = torch.nn.Parameter(weight.to(dtype))
    codes = gptq(weight, gram, Scheme(Format(4), 8))
    assert torch.equal(codes.codes, gptq(weight.detach().float(), gram, Scheme(Format(4), 8)).codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gptq(weight, gram, Scheme(Format(4), 8)).codes, codes.codes)
    assert codes.weight.dtype == torch.float32


def test_inputs_are_left_alone_and_layers_may_lie_on_top_of_each_other():
    weight, gram = layer(10, 16)
    before = weight.clone(), gram.clone()
    scheme = Scheme(Format(4), 8)
    whole = gptq(weight, gram, scheme, static_groups=False)
    assert torch.equal(weight, before[0]) and torch.equal(gram, before[1])
    parts = [gptq(part, gram, scheme, static_groups=False) for part in weight.split([3, 7])]
    assert torch.equal(torch.cat([part.codes for part in parts]), whole.codes)
    assert torch.equal(torch.cat([part.grid.scale for part in parts]), whole.grid.scale)


def test_bad_input_is_refused():
    weight, gram = layer(4, 12, torch.float32)
    scheme = Scheme(Format(4), 4)
    with pytest.raises(ValueError, match="a group size must divide the 12 inputs"):
        gptq(weight, gram, Scheme(Format(4), 5))
    with pytest.raises(ValueError, match="act_order needs static_groups"):
        gptq(weight, gram, scheme, act_order=True, static_groups=False)
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="weight must be finite"):
            gptq(weight.clone().fill_(wrong), gram, scheme)
        with pytest.raises(ValueError, match="gram must be finite"):
            gptq(weight, gram.clone().fill_(wrong), scheme)
    for shapes in ((weight[0], gram), (weight, gram[:5, :5])):
        with pytest.raises(ValueError, match=r"weight must have shape \(O, I\) and gram \(I, I\)"):
            gptq(*shapes, scheme)
    for rows in (3, 20):
        grid = fit_grid(torch.zeros(rows, 1), torch.ones(rows, 1), Format(4))
        with pytest.raises(ValueError, match=f"the grid must have 1 row.*got {rows}"):
            gptq(weight, gram, grid)


def test_a_result_is_codes_in_the_formats_dtype():
    weight, gram = layer(4, 12, torch.float32)
    for format in (Format(4), Format(8, symmetric=True)):
        codes = gptq(weight, gram, Scheme(format, 4))
        assert isinstance(codes, Codes) and codes.codes.dtype == format.dtype
        assert codes.codes.is_contiguous() and codes.codes.shape == weight.shape
