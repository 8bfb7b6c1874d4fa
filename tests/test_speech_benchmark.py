"""`benchmarks.speech`: what its table says of a method is what the method's file gives back."""

import pytest
import torch

from benchmarks import speech
from course_lib.data.speech import CHUNK
from course_lib.formats.linear import Scheme
from course_lib.models.voice_activity import has_voice_activity, lean, voice_activity
from course_lib.quantization.linear import Format

needs_package = pytest.mark.skipif(not has_voice_activity(), reason="silero-vad is not installed")


@pytest.fixture
def short(monkeypatch):
    """Five seconds of each recording, which hold speech and none."""
    audio, labels = speech.recordings()
    count = 5 * 16_000 // CHUNK
    monkeypatch.setattr(
        speech, "recordings", lambda: (audio[:, : count * CHUNK], labels[:, :count])
    )
    whole = speech.reference()
    monkeypatch.setattr(speech, "reference", lambda: whole[:, :count])


@needs_package
def test_lean_costs_nothing_and_every_group_divides(short):
    model = lean(voice_activity())
    row = speech.measured((model, speech.pack_model(model, {})))
    assert row.agreement == pytest.approx([1, 1, 1], abs=0.01) and max(row.distance) < 1e-4
    assert row.bytes < 0.72 * 1_239_756
    small = speech.measured(speech.packed_as(model, speech.linear(8, "group")))
    assert small.bytes < 0.27 * row.bytes and min(small.agreement) > 0.95


@needs_package
def test_a_scale_for_a_tensor_is_too_coarse_and_one_for_a_channel_is_not(short):
    """8 bits: the largest weight of a convolution is 75 times its root mean square."""
    model = lean(voice_activity())
    rows = [
        speech.measured(speech.packed_as(model, speech.linear(8, r))) for r in ("tensor", "channel")
    ]
    assert rows[0].distance[1] > 0.2 and rows[1].distance[1] < 0.05  # measured 0.46 and 0.01


@needs_package
def test_every_method_gives_a_file_that_loads():
    sizes = {}
    for name, (like, tensors) in speech.methods(voice_activity()):
        speech.unpack_model(tensors, like)
        sizes[name] = sum(t.nbytes for t in tensors.values())
    assert len(sizes) > 30
    half = sizes["float16, lean"]
    for share in (75, 50, 25):
        assert sizes[f"low rank, {share} % of the numbers"] < (share / 100 + 0.02) * half
    assert sizes["codebook, 16 levels"] < half / 3.8
    assert sizes["50 % in each layer, 16 levels, Huffman"] < 0.7 * sizes["codebook, 16 levels"]


def test_a_group_is_the_divisor_nearest_to_32():
    assert speech.nearest_group(torch.zeros(2, 129, 3)) == 43
    assert speech.linear(4, "group")(torch.zeros(2, 64)) == Scheme(Format(4, symmetric=True), 32)
