import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from course_lib.formats.linear import Scheme, decode_linear, encode_linear
from course_lib.formats.model_file import (
    every_linear,
    pack_model,
    quantize_model,
    stored_bytes,
    unpack_model,
)
from course_lib.measure.size import size
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.quantization.calibration import mse_range, percentile_range
from course_lib.quantization.linear import Format, fit_grid
from course_lib.quantization.rows import to_rows

schemes = st.builds(
    Scheme,
    format=st.builds(Format, bits=st.integers(2, 8), symmetric=st.booleans()),
    granularity=st.sampled_from(["tensor", "channel", 4, 12]),
    calibrate=st.sampled_from([percentile_range, mse_range]),
)


def small_llama() -> Llama:
    torch.manual_seed(0)
    return Llama(
        LlamaConfig(
            vocabulary=50, width=32, layers=2, heads=2, kv_heads=1, mlp_width=64, context=16
        )
    )


def read_bits(parts: dict[str, Tensor], shape: tuple[int, ...], bits: int) -> np.ndarray:
    """The weight that a file's parts stand for, bit by bit, as the module's text describes them."""

    def numbers(packed: Tensor, count: int) -> np.ndarray:
        length = -(-count // 8)
        columns = packed.numpy().reshape(bits, length).astype(object)
        whole = sum(column << (8 * k) for k, column in enumerate(columns))  # 8 codes of n bits
        codes = np.concatenate([(whole >> (bits * k)) & (2**bits - 1) for k in range(8)])
        return codes[:count].astype(np.int64)

    scale = parts["scale"].numpy().astype(np.float64)
    if "zero_point" in parts:
        zero_point = numbers(parts["zero_point"], len(scale))
    else:
        zero_point = np.full(len(scale), 2 ** (bits - 1) - 1)
    codes = numbers(parts["codes"], int(np.prod(shape))).reshape(len(scale), -1)
    return ((codes - zero_point[:, None]) * scale[:, None]).reshape(shape)


# ------------------------------------------------------------------ one weight


@settings(max_examples=60)
@given(schemes, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_parts_mean_what_the_text_says_bit_by_bit(scheme, outputs, seed):
    weight = torch.randn(outputs, 12, generator=torch.Generator().manual_seed(seed))
    parts = encode_linear(weight, scheme)
    values = decode_linear(parts, weight.shape)
    assert np.allclose(values, read_bits(parts, (outputs, 12), scheme.format.bits), rtol=1e-6)
    bytes_needed = scheme.format.bits * -(-weight.numel() // 8)
    assert parts["codes"].nbytes == bytes_needed
    assert parts["scale"].nbytes == 2 * len(to_rows(weight, scheme.granularity))
    assert ("zero_point" in parts) == (not scheme.format.symmetric)


@settings(max_examples=60)
@given(schemes, st.integers(0, 2**32 - 1))
def test_each_number_becomes_the_nearest_level_that_the_file_gives_back(scheme, seed):
    """The levels are those of the scale as float16 holds it, and of the fitted zero-point."""
    weight = torch.randn(3, 12, generator=torch.Generator().manual_seed(seed))
    rows, format = to_rows(weight, scheme.granularity), scheme.format
    grid = fit_grid(*scheme.calibrate(rows, format), format)
    parts = encode_linear(weight, scheme)
    scale = parts["scale"][:, None]  # (R,) -> (R, 1)
    assert torch.equal(scale, grid.scale.half())
    levels = (torch.arange(format.lowest, format.highest + 1) - grid.zero_point) * scale.double()
    nearest = (rows.double()[:, :, None] - levels[:, None, :]).abs().amin(dim=2)
    values = to_rows(decode_linear(parts, weight.shape), scheme.granularity)
    torch.testing.assert_close((rows - values).double().abs(), nearest, rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", [Format(2), Format(8), Format(4, symmetric=True)], ids=str)
@pytest.mark.parametrize(
    "weight",
    [torch.zeros(2, 8), torch.full((2, 8), 0.37), torch.full((2, 8), -5.0), torch.tensor([[1.5]]),
     torch.full((2, 8), 1e-30), torch.tensor([[-1e4, 1e4], [0.0, 3.0]])],
    ids=["all zero", "constant", "negative only", "one element", "tiny", "large"],
)  # fmt: skip
def test_nasty_weights_come_back_within_a_step(format, weight):
    values = decode_linear(encode_linear(weight, Scheme(format, "channel")), weight.shape)
    step = (weight.amax(1, True).clamp(min=0) - weight.amin(1, True).clamp(max=0)) / (
        2 ** (format.bits - format.symmetric) - 1
    )
    # The scale's float16: relative 2⁻¹¹, absolute 2⁻²⁵ below its normal numbers, for each step.
    off = weight.abs() * 2**-11 + 2**format.bits * 2**-24
    assert ((values - weight).abs() <= step * (0.5 + 2**-11) + off).all()
    assert (values[weight == 0] == 0).all()


def test_a_convolution_comes_back_in_its_shape():
    weight = torch.randn(4, 3, 2, 2)
    values = decode_linear(encode_linear(weight, Scheme(Format(8), "channel")), weight.shape)
    assert values.shape == weight.shape and (values - weight).abs().max() < 0.02


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ValueError, match=r"bits must be from 2 to 8.*got 9"):
        encode_linear(torch.randn(2, 8), Scheme(Format(9), "channel"))
    with pytest.raises(ValueError, match="scale, in float16, must be finite; got 1"):
        encode_linear(torch.tensor([[1e6, -1e6], [0.0, 1.0]]), Scheme(Format(2), "channel"))
    with pytest.raises(ValueError, match="a group size must divide the 8 inputs"):
        encode_linear(torch.randn(2, 8), Scheme(Format(4), 3))
    with pytest.raises(ValueError, match="rows must be finite"):
        encode_linear(torch.tensor([[torch.nan, 1.0]]), Scheme(Format(4), "tensor"))


# ------------------------------------------------------------------ a model, and its file

SCHEMES = {
    "int8 per channel": Scheme(Format(8, symmetric=True), "channel"),
    "int4 in groups, MSE": Scheme(Format(4), 16, mse_range),
    "int3 per tensor": Scheme(Format(3), "tensor"),
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_file_written_statted_and_loaded_is_the_quantized_model(name, tmp_path):
    model = small_llama()
    before = copy.deepcopy(model.state_dict())
    mapping = every_linear(model, SCHEMES[name]) | {"embedding.weight": torch.float16}
    packed = pack_model(model, mapping)
    save_file(packed, tmp_path / "model")
    measured = size(packed, sum(p.numel() for p in model.parameters()))
    assert measured.bytes == (tmp_path / "model").stat().st_size
    assert measured.bytes < 0.6 * size(model.state_dict()).bytes

    loaded = unpack_model(load_file(tmp_path / "model"), model)
    small = quantize_model(model, mapping)
    tokens = torch.randint(50, (2, 16))
    with torch.no_grad():
        assert torch.equal(loaded(tokens), small(tokens))
        assert not torch.equal(loaded(tokens), model(tokens))
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, small.state_dict()[key])
        assert tensor.dtype == torch.float32
        assert torch.equal(model.state_dict()[key], before[key])  # the model is left as it is
        if key not in mapping:
            assert torch.equal(tensor, before[key])


@pytest.mark.parametrize("bits", range(2, 9))
def test_each_bit_saves_an_eighth_of_a_byte_per_weight(bits):
    model = nn.Linear(256, 64, bias=False)
    packed = pack_model(model, every_linear(model, Scheme(Format(bits, symmetric=True), "channel")))
    assert sum(tensor.nbytes for tensor in packed.values()) == 256 * 64 * bits // 8 + 64 * 2
    assert size(packed).bytes - 256 * 64 * bits // 8 < 400  # the scales and the file's own header


def bfloat16_by_bits(x: np.ndarray) -> np.ndarray:
    """The upper 16 of a float32's bits, rounded to nearest, ties to even."""
    bits = x.view(np.uint32).astype(np.uint64)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)).view(np.float32)


def test_float_types_round_as_ieee_says():
    model = nn.Linear(200, 50)
    weight = model.weight.detach().numpy()
    half = quantize_model(model, {"weight": torch.float16})
    assert np.array_equal(half.weight.detach(), weight.astype(np.float16).astype(np.float32))
    brain = quantize_model(model, {"weight": torch.bfloat16})
    assert np.array_equal(brain.weight.detach(), bfloat16_by_bits(weight))
    assert torch.equal(half.bias, model.bias) and torch.equal(brain.bias, model.bias)


def test_a_number_beyond_the_float_type_is_refused():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1e5, 1.0]])
    assert quantize_model(model, {"weight": torch.bfloat16}).weight[0, 1] == 1
    with pytest.raises(ValueError, match="weight, in torch.float16, must be finite; got 1 NaN or"):
        pack_model(model, {"weight": torch.float16})


def test_every_linear_is_every_linear():
    model = small_llama()
    names = every_linear(model, torch.float16)
    assert len(names) == 2 * 7 and set(names) < set(model.state_dict())
    assert every_linear(nn.Linear(2, 2), torch.float16) == {"weight": torch.float16}


def test_other_weights_stay_as_they_are():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    packed = pack_model(model, {"0.weight": SCHEMES["int8 per channel"]})
    assert set(packed) == {"0.weight:codes", "0.weight:scale"} | (
        set(model.state_dict()) - {"0.weight"}
    )
    assert packed["1.num_batches_tracked"].dtype == torch.int64
    small = unpack_model(packed, model)
    assert torch.equal(small[1].running_var, model[1].running_var)


def test_a_tied_weight_is_stored_once_and_has_one_scheme():
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(64, 32), "head": nn.Linear(32, 64, bias=False)}
    )
    model.head.weight = model.embedding.weight
    scheme = Scheme(Format(4), 16)
    both = {"embedding.weight": scheme, "head.weight": scheme}
    once = size(pack_model(model.embedding, {"weight": scheme})).bytes
    assert once < size(pack_model(model, both)).bytes < once + 300  # more names, no more numbers
    small = quantize_model(model, both)
    assert small.head.weight is small.embedding.weight
    assert torch.equal(
        small.head.weight, quantize_model(model.embedding, {"weight": scheme}).weight
    )
    with pytest.raises(ValueError, match="same for tied.*embedding.weight is head.weight"):
        pack_model(model, {"head.weight": scheme})
    assert every_linear(model, scheme) == both  # a tied name is a name too


def test_what_does_not_fit_is_refused():
    model = nn.Linear(8, 4)
    with pytest.raises(ValueError, match=r"must name tensors that there are; got \['w'\]"):
        pack_model(model, {"w": torch.float16})
    packed = pack_model(model, every_linear(model, SCHEMES["int8 per channel"]))
    with pytest.raises(ValueError, match="packed must hold bias; it does not"):
        unpack_model({name: t for name, t in packed.items() if name != "bias"}, model)
    with pytest.raises(ValueError, match=r"weight must have shape \(8, 4\); got \(4, 8\)"):
        unpack_model({"weight": torch.zeros(4, 8), "bias": torch.zeros(8)}, nn.Linear(4, 8))


def test_a_loader_refuses_what_nobody_here_wrote():
    model = nn.Linear(8, 4)
    packed = pack_model(model, every_linear(model, SCHEMES["int8 per channel"]))
    with pytest.raises(ValueError, match="nothing but the model; it has other"):
        unpack_model(packed | {"other:codes": torch.zeros(2)}, model)
    with pytest.raises(ValueError, match=r"no form here has the parts .*'colour'"):
        unpack_model(packed | {"weight:colour": torch.zeros(2)}, model)


@pytest.mark.parametrize("foreign", [8, "int8", Format(8), None.__class__])
def test_a_foreign_scheme_is_refused_by_name(foreign):
    with pytest.raises(TypeError, match="must be Scheme, Codes, Sparse, .* or a torch"):
        pack_model(nn.Linear(8, 4), {"weight": foreign})


@pytest.mark.parametrize("seed", range(5))
def test_a_file_has_the_stored_bytes_and_beside_them_no_more_than_with_the_widest_scheme(seed):
    model, widths = small_llama(), (2, 3, 4, 8)
    names = list(every_linear(model, None))
    schemes = [Scheme(Format(bits), 8) for bits in widths]
    sizes = stored_bytes({name: model.get_parameter(name) for name in names}, schemes)
    assert sizes.shape == (len(names), 4) and (sizes.diff(dim=1) > 0).all()

    def beside(choice: Tensor) -> tuple[int, int]:
        """Bytes of the other tensors, and of those with the header."""
        packed = pack_model(model, {n: schemes[k] for n, k in zip(names, choice, strict=True)})
        stored = sizes.gather(1, choice[:, None]).sum().item()
        return sum(part.nbytes for part in packed.values()) - stored, size(packed).bytes - stored

    widest = beside(torch.full((len(names),), 3))
    mixed = beside(torch.randint(4, (len(names),), generator=torch.Generator().manual_seed(seed)))
    assert mixed[0] == widest[0] < mixed[1] <= widest[1]


def test_stored_bytes_of_other_forms():
    weight = torch.randn(4, 6)
    assert stored_bytes({"w": weight}, [None, torch.float16, torch.bfloat16]).tolist() == [
        [96, 48, 48]
    ]
    with pytest.raises(ValueError, match="w, in torch.float16, must be finite"):
        stored_bytes({"w": weight * 1e6}, [torch.float16])
