"""The file keeps to its bits, even levels come near Shannon's bound, and damage is refused."""

import math

import pytest
import torch

from course_lib.formats.even_coded import EvenCoded, decode_even, encode_even, even_codes
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.models.pretrained import tiny


def gaussian(count=2**17, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def decibels(x, back):
    return 10 * math.log10(x.double().square().sum() / (back - x).double().square().sum())


def file_of(weight, bits):
    packed = pack_tensors({"w": weight}, {"w": EvenCoded(bits)})
    return packed["w:even_coded"], unpack_tensors(packed, {"w": weight})["w"]


@pytest.mark.parametrize("bits", [1.5, 2, 3, 4, 6.5, 8])
def test_the_file_takes_the_bits_that_were_asked_for(bits):
    weight = gaussian().view(256, 512)
    stream, back = file_of(weight, bits)
    assert 0.97 * bits * weight.numel() / 8 < len(stream) <= bits * weight.numel() / 8
    assert back.shape == weight.shape


@pytest.mark.parametrize(("bits", "gap"), [(2, 2.2), (3, 2.15), (4, 1.95), (8, 1.95)])
def test_how_far_a_gaussian_is_from_shannon(bits, gap):
    """1.53 dB are in the nature of even levels; the rest is whole bits, blocks and tables."""
    weight = gaussian()
    _, back = file_of(weight, bits)
    assert 6.0206 * bits - decibels(weight, back) < gap


def test_tinylm_at_four_bits_within_two_decibels_of_a_gaussians_bound():
    weight = tiny()[0].embedding.weight.detach()
    _, back = file_of(weight, 4)
    assert (
        4 * 6.0206 - decibels(weight, back) < 0.7
    )  # its tails are heavy: the bound is a Gaussian's


def test_no_weight_is_off_by_more_than_a_step():
    weight = gaussian(5000)
    codes, step = even_codes(weight, 3)
    error = (codes * step - weight).abs()
    assert error.max() < step
    assert (error <= 0.501 * step).float().mean() > 0.8


def test_to_move_is_better_than_to_round():
    """At equal bits, against nearest levels with the finest step that fits."""
    from course_lib.formats.bits import stream_size

    weight = gaussian()
    _, back = file_of(weight, 2)
    for step in torch.linspace(0.5, 2, 200):
        codes = (weight / step).round().int()
        if stream_size(torch.bincount(codes - codes.min())) <= 2 * len(weight) / 8:
            break
    assert decibels(weight, back) > decibels(weight, codes * step) + 0.4


def test_more_bits_than_there_are_levels():
    weight = gaussian(2000)
    stream, back = file_of(weight, 200)
    assert len(stream) < 100 * 2000 / 8
    assert (back - weight).abs().max() <= weight.abs().max() / 2**14


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e37])
def test_every_scale(scale):
    weight = gaussian(20_000)
    assert decibels(weight * scale, file_of(weight * scale, 5)[1]) == pytest.approx(
        decibels(weight, file_of(weight, 5)[1]), abs=0.1
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype):
    weight = gaussian(20_000).to(dtype)
    back = decode_even(encode_even(weight, EvenCoded(5)), weight.shape)
    assert back.dtype == torch.float32
    assert decibels(weight, back) > 26


def test_zeros_nothing_and_one_number():
    zeros = torch.zeros(3, 5000)
    stream, back = file_of(zeros, 1.1)
    assert back.equal(zeros) and len(stream) < 2000
    assert file_of(torch.empty(0, 4), 3)[1].shape == (0, 4)
    assert file_of(torch.tensor(0.0), 200)[1].equal(torch.tensor(0.0))
    assert file_of(torch.tensor(2.5), 200)[1].item() == pytest.approx(2.5, rel=1e-3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number(bad):
    with pytest.raises(ValueError, match="tensor"):
        even_codes(torch.tensor([1.0, bad]), 4)


def test_fewer_bits_than_huffman_has():
    with pytest.raises(ValueError, match=r"bits must be at least 1\..* got 0.9"):
        even_codes(gaussian(), 0.9)


def test_a_damaged_file_and_one_of_another_tensor():
    weight = gaussian(1000).view(20, 50)
    parts = encode_even(weight, EvenCoded(4))
    with pytest.raises(ValueError, match=r"tensor of \(20, 51\); got 1000 codes"):
        decode_even(parts, (20, 51))
    stream = parts["even_coded"]
    for at in range(0, len(stream), 7):
        broken = stream.clone()
        broken[at] ^= 4
        with pytest.raises(ValueError, match="damaged"):
            decode_even({"even_coded": broken}, weight.shape)
