"""The file keeps to its bits, even levels come near Shannon's bound, and damage is refused."""

import math

import pytest
import torch

from course_lib.formats.even_coded import EvenCoded, decode_even, encode_even, even_codes, step_for
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.models.parts import matrices
from course_lib.models.pretrained import tiny


def gaussian(count=2**17, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def decibels(x, back):
    return 10 * math.log10(x.double().square().sum() / (back - x).double().square().sum())


def file_of(weight, bits):
    packed = pack_tensors({"w": weight}, {"w": EvenCoded(step_for([weight], bits))})
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


def test_one_step_for_all_of_tinylm_and_one_for_each():
    weights = {name: weight.detach() for name, weight in matrices(tiny()[0]).items()}
    alone = {name: EvenCoded(step_for([weight], 4)) for name, weight in weights.items()}
    common = dict.fromkeys(weights, EvenCoded(step_for(list(weights.values()), 4)))
    reached = []
    for schemes in (alone, common):
        packed = pack_tensors(weights, schemes)
        back = unpack_tensors(packed, weights)
        taken = sum(part.nbytes for part in packed.values())
        assert taken <= sum(weight.numel() for weight in weights.values()) / 2
        reached.append(
            decibels(*(torch.cat([x.flatten() for x in d.values()]) for d in (weights, back)))
        )
    assert reached[1] > reached[0] + 0.2
    assert 4 * 6.0206 - reached[1] < 1.45  # Shannon's bound for Gaussian numbers of equal power


def test_no_weight_is_off_by_more_than_a_step():
    weight = gaussian(5000)
    error = (even_codes(weight, 0.4) * 0.4 - weight).abs()
    assert error.max() < 0.4
    assert (error <= 0.2001).float().mean() > 0.8


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
    assert (back - weight).abs().max() <= 1.001 * weight.abs().max() / (2**14 - 1)


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e37])
def test_every_scale(scale):
    weight = gaussian(20_000)
    assert decibels(weight * scale, file_of(weight * scale, 5)[1]) == pytest.approx(
        decibels(weight, file_of(weight, 5)[1]), abs=0.1
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype):
    weight = gaussian(20_000).to(dtype)
    back = decode_even(encode_even(weight, EvenCoded(0.15)), weight.shape)
    assert back.dtype == torch.float32
    assert decibels(weight, back) > 26


def test_zeros_nothing_and_one_number():
    def back(tensor):
        packed = pack_tensors({"w": tensor}, {"w": EvenCoded(0.5)})
        return unpack_tensors(packed, {"w": tensor})["w"]

    for tensor in (torch.zeros(3, 500), torch.empty(0, 4), torch.tensor(0.0), torch.tensor(2.5)):
        assert back(tensor).equal(tensor)
    with pytest.raises(ValueError, match="not zero; got none"):
        step_for([torch.zeros(3)], 4)
    with pytest.raises(ValueError, match="not zero; got none"):
        step_for([], 4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number(bad):
    tensor = torch.tensor([1.0, bad])
    with pytest.raises(ValueError, match="tensor must be finite"):
        step_for([tensor], 4)
    with pytest.raises(ValueError, match="tensor must be finite"):
        encode_even(tensor, EvenCoded(1.0))


@pytest.mark.parametrize("step", [0.0, -1.0, torch.nan, 1e-6])
def test_what_is_no_step(step):
    with pytest.raises(ValueError, match="step must be above 0, and the largest number 16383"):
        encode_even(torch.tensor([1.0, 2.0]), EvenCoded(step))


def test_fewer_bits_than_huffman_has():
    with pytest.raises(ValueError, match=r"bits must be at least 1\..* got 0.9"):
        step_for([gaussian()], 0.9)


def test_a_damaged_file_and_one_of_another_tensor():
    weight = gaussian(1000).view(20, 50)
    parts = encode_even(weight, EvenCoded(0.2))
    with pytest.raises(ValueError, match=r"tensor of \(20, 51\); got 1000 codes"):
        decode_even(parts, (20, 51))
    stream = parts["even_coded"]
    for at in range(0, len(stream), 7):
        broken = stream.clone()
        broken[at] ^= 4
        with pytest.raises(ValueError, match="damaged"):
            decode_even({"even_coded": broken}, weight.shape)
