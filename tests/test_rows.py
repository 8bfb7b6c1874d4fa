import pytest
import torch
from on_accelerator import run_on_accelerator

from course_lib.quantization import rows as rows_module
from course_lib.quantization.rows import blocks, check_rows, to_rows


@pytest.mark.parametrize(
    "granularity, shape", [("tensor", (1, 96)), ("channel", (8, 12)), (4, (24, 4))]
)
def test_a_row_holds_neighbours_and_goes_back(granularity, shape):
    weight = torch.arange(96.0).view(8, 12)
    rows = to_rows(weight, granularity)
    assert rows.shape == shape
    assert torch.equal(rows.flatten(), torch.arange(96.0))
    assert torch.equal(rows.view_as(weight), weight)


def test_a_convolution_is_a_matrix_too():
    weight = torch.randn(8, 3, 2, 2)
    assert torch.equal(to_rows(weight, "channel")[5], weight[5].flatten())
    assert to_rows(weight, 6).shape == (16, 6)


def test_a_transposed_weight_is_copied_in_its_own_order():
    weight = torch.arange(12.0).view(3, 4).T
    assert torch.equal(to_rows(weight, 3), weight)


@pytest.mark.parametrize(
    "weight, granularity, message",
    [
        (
            torch.zeros(4, 12),
            5,
            "must divide the 12 inputs of an output; got 5, which leaves 2 over",
        ),
        (torch.zeros(4, 12), 24, "must divide the 12 inputs"),
        (torch.zeros(4, 12), 0, 'must be "tensor", "channel" or a group size; got 0'),
        (torch.zeros(4, 12), "row", "got 'row'"),
        (torch.zeros(12), "channel", r"must have shape \(O, I\).*got \(12,\)"),
    ],
)
def test_what_is_no_granularity_is_refused(weight, granularity, message):
    with pytest.raises(ValueError, match=message):
        to_rows(weight, granularity)


@pytest.mark.parametrize("shape", [(1, 1), (1, 100), (100, 1), (7, 13), (10, 10), (3, 25)])
def test_blocks_cover_a_matrix_once_and_are_small(shape, monkeypatch):
    monkeypatch.setattr(rows_module, "BLOCK", 20)
    seen = torch.zeros(shape)
    for i, j in blocks(seen):
        assert seen[i, j].numel() <= 20
        seen[i, j] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    "rows, error, message",
    [
        (torch.zeros(3), ValueError, r"rows must have shape \(R, C\); got \(3,\)"),
        (torch.zeros(2, 0), ValueError, r"rows must not be empty; got shape \(2, 0\)"),
        (torch.zeros(2, 2, dtype=torch.int32), TypeError, "rows must be a tensor of floats"),
        (torch.tensor([[0.0], [torch.nan]]), ValueError, r"got 1 NaN or infinity.*at \[1, 0\]"),
        (torch.tensor([[-torch.inf, torch.inf]]), ValueError, r"got 2 NaN or infinity.*\[0, 0\]"),
    ],
)
def test_bad_rows_are_named(rows, error, message):
    with pytest.raises(error, match=message):
        check_rows(rows)


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from course_lib.formats.linear import Scheme, decode_linear, encode_linear
from course_lib.quantization import calibration, histogram, integer_linear, linear, midrise

with accelerator() as put:
    x, weight = put(torch.zeros(3, 12)), put(torch.zeros(8, 12))
    found = []
    for format in (linear.Format(4), linear.Format(8, symmetric=True)):
        histogram.KL_BINS = 2 ** (format.bits - 1) + 2  # three thresholds are enough here
        for choose in (calibration.minmax_range, calibration.percentile_range,
                       calibration.mse_range, histogram.kl_range):
            grid = linear.fit_grid(*choose(weight, format), format)
            codes = linear.quantize(weight, grid)
            found += [linear.dequantize(codes, grid), calibration.rounding_error(weight, grid)]
        found.append(integer_linear.dynamic_linear(x, codes, grid))
        parts = encode_linear(weight, Scheme(format, 4))
        found += [*parts.values(), decode_linear(parts, weight.shape)]
    found.append(calibration.mse_range(*histogram.histogram(x)[:1], linear.Format(4))[0])
    found += [midrise.quantize_midrise(x, -1.0, 1.0, 3), midrise.printed_codes(x, -1.0, 1.0, 3)]
    found.append(midrise.dequantize_midrise(found[-1], -1.0, 1.0, 3))
    assert all(tensor.device.type == "toygpu" for tensor in found)
"""


@pytest.mark.slow
def test_everything_runs_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
