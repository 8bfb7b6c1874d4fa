"""Packed layers beside the float64 product of our own dequantized weights.

What may differ. bfloat16 has 8 binary digits: rounding to it moves a number by at most u = 2⁻⁸ of
itself; sums of I products in float32 move by at most I 2⁻²⁴ Σ |x w|. So with x in bfloat16 already

    int4    s → s (1 ± u), m = (8 − z) s → m (1 ± u)      u Σ |x| s (|q − z| + |8 − z|)
    int8    s → s (1 ± u)                                 u |y|
    both                                                  u |y| for the output, the float32 sums

up to terms of u². Between a kernel and its stand-in only the order of the sums differs, which may
tip the output's last rounding: 2 u |y|, and twice the sums' share.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.acceleration import kernels
from course_lib.acceleration.kernels import (
    Int4WeightLinear,
    Int8HeadLinear,
    Int8Linear,
    Int8WeightLinear,
)
from course_lib.acceleration.trials import available
from course_lib.formats.linear import (
    Codes,
    Format,
    Scheme,
    encode_linear,
    nearest_codes,
    read_codes,
)
from course_lib.quantization.integer_linear import dynamic_linear
from course_lib.quantization.linear import Grid

U = 2.0**-8  # eight binary digits, the leading one included
ROWS = Scheme(Format(8, symmetric=True), "channel")


def case(seed: int, rows: int, inputs: int, outputs: int, scheme: Scheme) -> tuple[Tensor, Codes]:
    """x in bfloat16 numbers, and the codes of a weight that is not centred."""
    dice = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=dice) * 0.1 + 0.05
    x = torch.randn(rows, inputs, generator=dice).bfloat16().float()
    return x, nearest_codes(weight, scheme)


def sums_share(x: Tensor, weight: Tensor) -> Tensor:
    return x.shape[1] * 2.0**-24 * (x.abs().double() @ weight.abs().double().T)


def int4_share(x: Tensor, codes: Codes) -> Tensor:
    """u Σ |x| s (|q − z| + |8 − z|), and a little more for the terms of u²."""
    grid, shape = codes.grid, codes.codes.shape
    middle = 8 if grid.format.symmetric else 0
    moved = codes.codes.reshape(len(grid.scale), -1).double() - grid.zero_point
    slack = grid.scale.double() * (moved.abs() + (8 - middle - grid.zero_point).abs())
    return 1.01 * U * (x.abs().double() @ slack.view(shape).T)


shapes = st.tuples(st.integers(1, 5), st.sampled_from([32, 64, 96]), st.sampled_from([16, 48, 7]))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(2, 4), st.booleans(), st.booleans(), st.integers(0, 999))
def test_int4_is_our_weights_product_within_what_bfloat16_rounds(
    shape, bits, symmetric, native, seed
):
    x, codes = case(seed, *shape, Scheme(Format(bits, symmetric), 32))
    exact = x.double() @ codes.weight.double().T
    found = Int4WeightLinear(codes, native=native)(x)
    slack = int4_share(x, codes) + sums_share(x, codes.weight)
    assert found.dtype == torch.float32
    assert ((found - exact).abs() <= slack * (1 + U) + 1.01 * U * exact.abs()).all()


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(2, 8), st.booleans(), st.integers(0, 999))
def test_int8_is_our_weights_product_within_what_bfloat16_rounds(shape, bits, native, seed):
    x, codes = case(seed, *shape, Scheme(Format(bits, symmetric=True), "channel"))
    exact = x.double() @ codes.weight.double().T
    found = Int8WeightLinear(codes, native=native)(x)
    slack = sums_share(x, codes.weight)
    assert ((found - exact).abs() <= slack * (1 + U) + 2.02 * U * exact.abs()).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("native", [True, False])
def test_int4_holds_our_codes_exactly(symmetric, native):
    """Unit inputs read the weight out; in float32 nothing is rounded on the way."""
    _, codes = case(0, 1, 64, 16, Scheme(Format(4, symmetric), 32))
    layer = Int4WeightLinear(codes, native=native).float()  # the scales keep bfloat16's numbers
    scale = codes.grid.scale.bfloat16().float()
    middle = 8 if symmetric else 0
    offset = ((8 - middle - codes.grid.zero_point) * scale).bfloat16().float()
    rows = codes.codes.reshape(len(scale), -1).float()
    assert torch.equal(layer(torch.eye(64)).T, ((rows + middle - 8) * scale + offset).view(16, 64))


def test_symmetric_codes_keep_a_weight_of_zero_and_affine_ones_nearly():
    weight = torch.linspace(-0.05, 0.3, 32).repeat(16, 1)
    weight[:, ::4] = 0
    one = torch.eye(32)[::4]
    for symmetric in (True, False):
        codes = nearest_codes(weight, Scheme(Format(4, symmetric), 32))
        found = Int4WeightLinear(codes)(one)
        z, s = codes.grid.zero_point[0].item(), codes.grid.scale[0].item()
        limit = 0 if symmetric else 1.01 * U * abs(8 - z) * s
        assert found.abs().max() <= limit


@pytest.mark.parametrize("rows", [1, 5])
def test_int8_on_both_sides_is_the_courses_own_integer_layer(rows):
    """Symmetric inputs here, affine there; without the kernel the same bit for bit."""
    x, codes = case(1, rows, 48, 7, ROWS)
    step = x.abs().amax(1, keepdim=True) / 127
    exact = ((x / step).round() * step).double() @ codes.weight.double().T
    found = Int8Linear(codes)(x)
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(found, Int8Linear(codes, native=False)(x))
    affine = dynamic_linear(x, codes.codes, codes.grid)
    steps = step + (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) / 255  # half a step each
    assert ((found - affine).abs() <= steps * codes.weight.abs().sum(1) / 2 * 1.01).all()


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(2, 8), st.sampled_from([1e-9, 1.0, 1e9]), st.integers(0, 999))
def test_the_heads_two_digits_are_sixteen_bits(shape, bits, size, seed):
    """An input is off by half a step of the second digit; the rest is float32's rounding."""
    x, codes = case(seed, *shape, Scheme(Format(bits, symmetric=True), "channel"))
    x = x * size
    exact = x.double() @ codes.weight.double().T
    step = x.abs().amax(1, keepdim=True).double() / 127 / 254
    limit = 0.51 * step * codes.weight.abs().sum(1) + 4 * sums_share(x, codes.weight)
    found = Int8HeadLinear(codes)(x)
    assert ((found - exact).abs() <= limit).all()
    assert torch.equal(found, Int8HeadLinear(codes, native=False)(x))


# ------------------------------------------------------------------ the same without the kernel


def both(make, x: Tensor) -> tuple[Tensor, Tensor]:
    return make(True)(x), make(False)(x)


MAKERS = {
    "int4": lambda codes, native: Int4WeightLinear(codes, native=native),
    "int8": lambda codes, native: Int8WeightLinear(codes, native=native),
    "both": lambda codes, native: Int8Linear(codes, native=native),
    "head": lambda codes, native: Int8HeadLinear(codes, native=native),
}
SCHEMES = {"int4": Scheme(Format(4), 64)} | dict.fromkeys(("int8", "both", "head"), ROWS)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_the_stand_in_gives_what_the_kernel_gives(kind, rows):
    x, codes = case(rows, rows, 128, 32, SCHEMES[kind])
    kernel, floats = both(lambda native: MAKERS[kind](codes, native), x)
    slack = 2 * U * kernel.abs() + 2 * sums_share(x, codes.weight)
    assert ((kernel - floats).abs() <= 1.01 * slack).all()


def test_a_kernel_that_is_missing_is_not_called(monkeypatch):
    gone = dict.fromkeys(available(), "this PyTorch has none")
    monkeypatch.setattr(kernels, "available", lambda: gone)
    for kind, make in MAKERS.items():
        x, codes = case(0, 2, 128, 32, SCHEMES[kind])
        layer = make(codes, True)
        assert not layer.native and torch.equal(layer(x), make(codes, False)(x))


@pytest.mark.parametrize("instructions", ["default", "avx2"])
def test_older_instructions_give_the_same(instructions, tmp_path):
    """PyTorch chooses its kernels by the processor; this variable takes the older ones."""
    script = "import sys, torch, test_kernels as t; torch.save(t.outputs(), sys.argv[1])"
    place = tmp_path / "outputs.pt"
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    environment = os.environ | {"ATEN_CPU_CAPABILITY": instructions, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", script, place], env=environment, check=True, timeout=120)
    old, new = torch.load(place), outputs()
    for kind, (x, codes) in cases().items():
        slack = 2 * U * new[kind].abs() + 2 * sums_share(x, codes.weight)
        assert ((old[kind] - new[kind]).abs() <= 1.01 * slack).all()


def cases() -> dict[str, tuple[Tensor, Codes]]:
    return {kind: case(3, 3, 128, 32, SCHEMES[kind]) for kind in MAKERS}


def outputs() -> dict[str, Tensor]:
    return {kind: MAKERS[kind](codes, True)(x) for kind, (x, codes) in cases().items()}


# ------------------------------------------------------------------ shapes, types, edges


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("inputs, outputs", [(64, 1), (64, 7), (128, 16)])
@pytest.mark.parametrize("native", [True, False])
def test_any_number_of_outputs_and_any_leading_axes(kind, inputs, outputs, native):
    x, codes = case(0, 6, inputs, outputs, SCHEMES[kind])
    layer = MAKERS[kind](codes, native)
    rows = layer(x)
    assert rows.shape == (6, outputs)
    assert torch.allclose(layer(x.view(2, 3, inputs)), rows.view(2, 3, outputs), rtol=2 * U)
    assert torch.allclose(layer(x[0]), rows[0], rtol=2 * U, atol=1e-6)
    assert layer(x[:0]).shape == (0, outputs)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("inputs", [1, 7, 24, 40])
def test_inputs_that_the_int8_kernel_cannot_read_go_by_floats(inputs):
    """It reads 16 codes at once, past the last one where their number is another."""
    x, codes = case(0, 2, inputs, 5, ROWS)
    layer = Int8WeightLinear(codes)
    assert not layer.native
    assert torch.allclose(layer(x), x @ codes.weight.T, rtol=2.1 * U, atol=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("native", [True, False])
def test_not_a_number_comes_out_as_one(kind, native):
    x, codes = case(0, 3, 64, 16, SCHEMES[kind])
    x[1, 5], x[2, 3] = float("nan"), float("inf")
    found = MAKERS[kind](codes, native)(x)
    assert found[0].isfinite().all() and not found[1:].isfinite().any()


@pytest.mark.parametrize("kind", MAKERS)
def test_zeros_and_a_bias(kind):
    x, codes = case(0, 3, 64, 16, SCHEMES[kind])
    bias = torch.arange(16.0)
    layer = type(MAKERS[kind](codes, True))(codes, bias)
    assert torch.equal(layer(torch.zeros(3, 64)), bias.expand(3, 16))
    assert torch.equal(layer(x), MAKERS[kind](codes, True)(x) + bias)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_files_parts_make_the_same_layer(kind):
    dice = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, 64, generator=dice) for n in (16, 3))
    parts = encode_linear(weight, SCHEMES[kind])
    codes, back = nearest_codes(weight, SCHEMES[kind]), read_codes(parts, weight.shape)
    assert torch.equal(codes.codes, back.codes) and codes.grid.format == back.grid.format
    assert torch.equal(MAKERS[kind](codes, True)(x), MAKERS[kind](back, True)(x))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_copy_works_and_a_state_dict_holds_no_packed_bytes(kind):
    x, codes = case(0, 3, 64, 16, SCHEMES[kind])
    layer = MAKERS[kind](codes, True)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert not layer.state_dict() and not list(layer.parameters())


def test_a_weight_takes_its_bits_in_memory():
    for native in (True, False):
        _, codes = case(0, 1, 1024, 64, Scheme(Format(4), 64))
        bytes_ = sum(b.nbytes for b in Int4WeightLinear(codes, native=native).buffers())
        assert bytes_ == 1024 * 64 * (4 + 32 / 64) / 8
    _, codes = case(0, 1, 1024, 64, ROWS)
    assert sum(b.nbytes for b in Int8WeightLinear(codes).buffers()) == 1024 * 64 + 2 * 64


def test_codes_that_do_not_fit_are_refused():
    weight = torch.randn(16, 64)
    with pytest.raises(ValueError, match="at most 4 bits, and groups within an output; got 5 bits"):
        Int4WeightLinear(nearest_codes(weight, Scheme(Format(5), 32)))
    with pytest.raises(ValueError, match="1 scales for 16 outputs"):
        Int4WeightLinear(nearest_codes(weight, Scheme(Format(4), "tensor")))
    for layer in (Int8WeightLinear, Int8Linear):
        with pytest.raises(ValueError, match="symmetric, of at most 8 bits"):
            layer(nearest_codes(weight, Scheme(Format(8), "channel")))
        with pytest.raises(ValueError, match="32 scales for 16 outputs"):
            layer(nearest_codes(weight, Scheme(Format(8, symmetric=True), 32)))
    grid = Grid(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int32), Format(8, symmetric=True))
    with pytest.raises(ValueError, match="at most 32768 inputs; got 32769"):
        Int8Linear(Codes(torch.ones(1, 32769, dtype=torch.int8), grid))
    with pytest.raises(ValueError, match="the weight must have shape"):
        Int8Linear(Codes(torch.ones(4, dtype=torch.int8), grid))
