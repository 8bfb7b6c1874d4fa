"""Codes that a method chose itself: written as they are, and back bit by bit."""

import pytest
import torch

from course_lib.formats.linear import (
    Codes,
    Scheme,
    decode_linear,
    encode_linear,
    fit_stored,
    nearest_codes,
    parts_of,
    stored_grid,
)
from course_lib.formats.model_file import pack_model, pack_tensors, unpack_model, unpack_tensors
from course_lib.quantization.linear import Format, Grid, fit_grid
from course_lib.quantization.rows import to_rows

FORMATS = [Format(bits, symmetric) for bits in (2, 3, 4, 8) for symmetric in (False, True)]


def chosen(format: Format, granularity: str | int) -> Codes:
    """Codes that no rounding to nearest gives."""
    weight = torch.randn(6, 24)
    grid = fit_stored(to_rows(weight, granularity), Scheme(format, granularity))
    codes = torch.randint(format.lowest, format.highest + 1, weight.shape)
    return Codes(codes.to(format.dtype), grid)


@pytest.mark.parametrize("granularity", ["tensor", "channel", 8])
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_what_is_written_comes_back_bit_by_bit(format, granularity):
    codes = chosen(format, granularity)
    back = decode_linear(parts_of(codes.codes, codes.grid), codes.codes.shape)
    assert torch.equal(back, codes.weight) and back.dtype == torch.float32
    packed = pack_tensors({"w": torch.zeros(6, 24)}, {"w": codes})
    assert torch.equal(unpack_tensors(packed, {"w": back})["w"], codes.weight)


def test_nearest_codes_are_what_a_scheme_writes():
    weight, scheme = torch.randn(6, 24), Scheme(Format(3), 8)
    codes = nearest_codes(weight, scheme)
    one, other = encode_linear(weight, scheme), parts_of(codes.codes, codes.grid)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(decode_linear(one, weight.shape), codes.weight)


def test_a_model_is_written_from_its_codes():
    model = torch.nn.Sequential(torch.nn.Linear(24, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    codes = chosen(Format(4), 8)
    with torch.no_grad():
        model[0].weight.copy_(codes.weight)
    packed = pack_model(model, {"0.weight": codes})
    assert packed["0.weight:codes"].numel() == 6 * 24 // 2
    back = unpack_model(packed, model)
    for one, other in zip(model.parameters(), back.parameters(), strict=True):
        assert torch.equal(one, other)


def test_tied_weights_are_written_once():
    layer = torch.nn.Linear(24, 6, bias=False)
    model = torch.nn.Sequential(layer, layer)
    codes = chosen(Format(4), 8)
    packed = pack_model(model, {"0.weight": codes, "1.weight": codes})
    assert packed["0.weight:codes"] is packed["1.weight:codes"]


def test_a_stored_grid_stays_as_it_is():
    grid = fit_grid(-torch.rand(5, 1), torch.rand(5, 1), Format(4))
    once = stored_grid(grid)
    assert torch.equal(stored_grid(once).scale, once.scale) and once.scale.dtype == torch.float32
    assert ((once.scale - grid.scale).abs() <= grid.scale * 2**-11).all()
    tiny = stored_grid(Grid(torch.full((1, 1), 1e-30), grid.zero_point[:1], Format(4)))
    assert tiny.scale.item() == 2**-24
    with pytest.raises(ValueError, match="scale, in float16, must be finite"):
        stored_grid(Grid(torch.full((1, 1), 1e6), grid.zero_point[:1], Format(4)))


def test_bad_input_is_refused():
    codes = chosen(Format(4), 8)
    between = Grid(codes.grid.scale * 1.0001, codes.grid.zero_point, codes.grid.format)
    with pytest.raises(ValueError, match="scale must hold float16 numbers above 0"):
        parts_of(codes.codes, between)
    for wrong in (0.0, torch.nan, torch.inf, -1.0):
        grid = Grid(torch.full_like(codes.grid.scale, wrong), codes.grid.zero_point, Format(4))
        with pytest.raises(ValueError, match="scale must hold float16 numbers above 0"):
            parts_of(codes.codes, grid)
    with pytest.raises(ValueError, match="codes must be from 0 to 15; got 1 to 16"):
        parts_of(torch.arange(1, 17).repeat(9), codes.grid)
    with pytest.raises(ValueError, match="codes must fill 18 rows of equal length; got 17"):
        parts_of(torch.zeros(17), codes.grid)
    with pytest.raises(ValueError, match="codes must fill 18 rows"):
        parts_of(torch.zeros(0), codes.grid)
    with pytest.raises(ValueError, match=r"the weight's shape \(6, 25\); got \(6, 24\)"):
        pack_tensors({"w": torch.zeros(6, 25)}, {"w": codes})
    wide = Grid(codes.grid.scale, codes.grid.zero_point, Format(12))
    with pytest.raises(ValueError, match="bits must be from 2 to 8"):
        parts_of(codes.codes, wide)
