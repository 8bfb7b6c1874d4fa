"""Codebooks and floats of few bits as files: what comes back, what it costs, what is refused."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from course_lib.formats.codebook import (
    NF4,
    Codebook,
    FixedLevels,
    codebook_parts,
    decode_codebook,
)
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.model_file import (
    every_linear,
    pack_model,
    pack_tensors,
    quantize_model,
    unpack_model,
    unpack_tensors,
)
from course_lib.quantization.block_floats import decode_mx, decode_nvfp4, encode_mx, encode_nvfp4
from course_lib.quantization.codebook import logarithmic_levels, nearest_codes, rms
from course_lib.quantization.floats import E2M1, E2M3, E4M3, E5M2
from course_lib.quantization.kmeans import kmeans, squared_error
from course_lib.quantization.lloyd_max import normal_levels
from course_lib.quantization.optimal_kmeans import optimal_levels

LOG3 = tuple(logarithmic_levels(3)[0].tolist())
# scheme, bits a weight of a 64 × 128 matrix, without the header
SCHEMES = {
    "k-means, tensor": (Codebook(4), 4 + 16 * 16 / 8192),
    "k-means, rows": (Codebook(3, "channel", kmeans), 3 + 8 * 16 / 128),
    "k-means, groups": (Codebook(2, 32), 2 + 4 * 16 / 32),
    "NF4": (NF4, 4 + 16 * 32 / 8192 + (128 * 8 + 32 + 32) / 8192),
    "logarithmic": (FixedLevels(LOG3, "channel"), 3 + 7 * 32 / 8192 + 16 / 128),
    "Lloyd–Max": (FixedLevels(normal_levels(2), 64, rms), 2 + 4 * 32 / 8192 + 16 / 64),
    "FP4": (FewBits(E2M1), 4 + 16 / 128 + 32 / 8192),
    "FP6": (FewBits(E2M3, "tensor"), 6 + (16 + 32) / 8192),
    "FP8": (FewBits(E4M3, 32), 8 + 16 / 32 + 32 / 8192),
    "FP8, wide": (FewBits(E5M2), 8 + 16 / 128 + 32 / 8192),
    "MXFP4": (MX(), 4.25 + 32 / 8192),
    "MXFP8": (MX(E4M3), 8.25 + 32 / 8192),
    "NVFP4": (NVFP4(), 4.5 + 32 / 8192),
}
schemes = pytest.mark.parametrize("name", SCHEMES)


def there_and_back(weight: torch.Tensor, scheme) -> torch.Tensor:
    return unpack_tensors(pack_tensors({"w": weight}, {"w": scheme}), {"w": weight})["w"]


@schemes
def test_a_file_gives_back_the_quantized_model_at_its_bytes(name, tmp_path):
    scheme, bits = SCHEMES[name]
    model = nn.Sequential(nn.Linear(128, 64, bias=False), nn.LayerNorm(64))
    before = copy.deepcopy(model.state_dict())
    packed = pack_model(model, every_linear(model, scheme))
    parts = [part for key, part in packed.items() if key.startswith("0.weight:")]
    assert 8 * sum(part.nbytes for part in parts) / 8192 == pytest.approx(bits)
    save_file(packed, tmp_path / "model")
    loaded = unpack_model(load_file(tmp_path / "model"), model)
    weight = quantize_model(model, every_linear(model, scheme))[0].weight
    assert torch.equal(loaded[0].weight, weight) and weight.dtype == torch.float32
    assert torch.equal(model[0].weight, before["0.weight"])
    power = before["0.weight"].square().sum()
    decibels = 10 * (power / (weight - before["0.weight"]).square().sum()).log10()
    assert decibels > 3 * bits


@schemes
def test_what_comes_back_is_written_as_itself(name):
    """Levels that are fitted to the weight may move; the fixed ones hold what they gave."""
    scheme, _ = SCHEMES[name]
    if isinstance(scheme, Codebook) or "Lloyd" in name or name in ("NF4", "MXFP4", "NVFP4"):
        pytest.skip("the second scale or codebook need not be the first")
    once = there_and_back(torch.randn(64, 128), scheme)
    assert torch.allclose(there_and_back(once, scheme), once, rtol=1e-3)


def test_codes_are_the_nearest_of_the_levels_that_come_back():
    weight = torch.randn(8, 64)
    for scheme in (Codebook(3), FixedLevels(LOG3, "channel"), NF4, Codebook(2, "channel")):
        packed = pack_tensors({"w": weight}, {"w": scheme})
        values = unpack_tensors(packed, {"w": weight})["w"]
        levels = packed["w:levels"].float()
        rows = weight.view(len(levels), -1) if isinstance(scheme, Codebook) else weight
        if "w:scale" in packed:
            levels = levels * packed["w:scale"].float()[:, None]
        if scheme is NF4:
            levels = torch.stack([v.unique().repeat(16)[:16].sort().values for v in values])
        least = (rows[:, :, None] - levels[:, None, :]).abs().amin(dim=2)
        assert torch.allclose((values.view_as(rows) - rows).abs(), least, atol=1e-6)


def test_files_hold_what_the_methods_give():
    weight = torch.randn(16, 96)
    best = optimal_levels(weight.view(1, -1), 8).half().float()
    error = (there_and_back(weight, Codebook(3)) - weight).double().square().sum()
    assert error.item() == pytest.approx(squared_error(weight.view(1, -1), best).item())
    mx = decode_mx(*encode_mx(weight.view(-1, 32))).view_as(weight)
    assert torch.equal(there_and_back(weight, MX()), mx)
    nv = decode_nvfp4(*encode_nvfp4(weight.view(-1, 16))).view_as(weight)
    assert torch.equal(there_and_back(weight, NVFP4()), nv)


def test_codes_that_a_method_chose_are_written_as_they_are():
    levels = torch.randn(1, 5).sort(dim=1).values
    codes = torch.randint(5, (1, 60))
    parts = codebook_parts(codes, levels, bits=3)
    assert torch.equal(decode_codebook(parts, torch.Size((6, 10))), levels[0][codes.view(6, 10)])
    assert torch.equal(nearest_codes(levels[0][codes], levels).long(), codes)


@schemes
@pytest.mark.parametrize(
    "weight",
    [torch.zeros(2, 64), torch.full((2, 64), 0.37), torch.full((2, 64), 1e-30),
     torch.eye(2, 64) * 1e4],
    ids=["zero", "constant", "tiny", "large"],
)  # fmt: skip
def test_nasty_weights(name, weight):
    values = there_and_back(weight, SCHEMES[name][0])
    assert values.isfinite().all()
    if name not in ("k-means, groups", "Lloyd–Max"):
        # A quarter is lost where a scale clips, or where 1e-30 is below the scale's own reach.
        assert ((values - weight).abs() <= 0.26 * weight.abs() + 2e-7).all()


@schemes
def test_halves_and_bad_weights(name):
    scheme = SCHEMES[name][0]
    weight = torch.randn(4, 64)
    back = there_and_back(weight.bfloat16(), scheme)
    assert torch.allclose(back, there_and_back(weight.bfloat16().float(), scheme), atol=0.05)
    for wrong in (torch.nan, torch.inf):
        weight[1, 2] = wrong
        with pytest.raises(ValueError, match="must be finite"):
            pack_tensors({"w": weight}, {"w": scheme})


def test_shapes_that_do_not_fit_are_refused():
    for scheme in (MX(), NVFP4(), NF4, Codebook(2, 32)):
        with pytest.raises(ValueError, match="a group size must divide the 40 inputs"):
            pack_tensors({"w": torch.randn(2, 40)}, {"w": scheme})
    with pytest.raises(ValueError, match="levels must be at most 2\\^2 a row; got 5"):
        codebook_parts(torch.zeros(1, 8, dtype=torch.uint8), torch.arange(5.0)[None], bits=2)
    with pytest.raises(ValueError, match="must be finite; got"):
        pack_tensors({"w": torch.full((2, 64), 1e6)}, {"w": FewBits(E4M3)})


@schemes
def test_a_damaged_file_is_refused(name):
    weight = torch.randn(4, 64)
    packed = pack_tensors({"w": weight}, {"w": SCHEMES[name][0]})
    for key, part in packed.items():
        damaged = [torch.cat([part.flatten(), part.flatten()[:1].repeat(2)]), part.flatten()[:-1]]
        if part.is_floating_point():
            damaged.append(torch.full_like(part, torch.nan))
        for wrong in damaged:
            with pytest.raises(ValueError):
                unpack_tensors({**packed, key: wrong}, {"w": weight})


def test_a_code_beyond_the_levels_is_refused():
    packed = pack_tensors({"w": torch.randn(4, 64)}, {"w": FixedLevels(LOG3, "channel")})
    packed["w:codes"] = torch.full_like(packed["w:codes"], 255)
    with pytest.raises(ValueError, match="codes must be from 0 to 6; got 7 to 7"):
        unpack_tensors(packed, {"w": torch.randn(4, 64)})
    packed = pack_tensors({"w": torch.randn(4, 64)}, {"w": MX()})
    packed["w:exponents"] = torch.full_like(packed["w:exponents"], 255)
    with pytest.raises(ValueError, match="the decoded weight must be finite"):
        unpack_tensors(packed, {"w": torch.randn(4, 64)})
    packed["w:float"] = torch.tensor([4, 3, 7, 9], dtype=torch.uint8)
    with pytest.raises(ValueError, match="float must be 4 bytes"):
        unpack_tensors(packed, {"w": torch.randn(4, 64)})
