"""Silero's network written again: the same numbers, and which of its weights nothing needs."""

import copy
import math
from importlib.util import find_spec

import pytest
import torch
from on_accelerator import run_on_accelerator
from torch import nn

from course_lib.data.packages import package_file
from course_lib.data.speech import labelled_audio
from course_lib.measure.size import count_parameters
from course_lib.models.parts import linear_weights, prunable_weights
from course_lib.models.voice_activity import (
    LSTMCell,
    VoiceActivity,
    fourier_basis,
    has_voice_activity,
    lean,
    speech_probabilities,
    voice_activity,
)

# Sums of float32 in another order, over 1,125 steps of a state: measured 2e-5 at most.
SAME = 1e-4
needs_package = pytest.mark.skipif(not has_voice_activity(), reason="silero-vad is not installed")
needs_onnx = pytest.mark.skipif(
    not (find_spec("onnx") and find_spec("onnxruntime")), reason="onnxruntime is not installed"
)


def network() -> VoiceActivity:
    """Random weights, and a Fourier basis that is one."""
    model = VoiceActivity().eval().requires_grad_(False)
    model.fourier.weight.copy_(fourier_basis()[:, None])
    return model


def test_the_cell_is_torchs_cell():
    ours, theirs = LSTMCell(3, 5), nn.LSTM(3, 5)
    for suffix, part in (("ih", ours.input), ("hh", ours.state)):
        getattr(theirs, f"weight_{suffix}_l0").data.copy_(part.weight)
        getattr(theirs, f"bias_{suffix}_l0").data.copy_(part.bias)
    x = torch.randn(7, 2, 3)
    torch.testing.assert_close(ours(x), theirs(x)[0])


@needs_package
@needs_onnx
def test_it_computes_what_the_packages_onnx_file_computes():
    """With that file's weights, which are not those of the safetensors file."""
    import onnxruntime

    from benchmarks.speech import ONNX, other_training

    audio = labelled_audio(seed=0, snr=10).audio
    chunks = nn.functional.pad(audio, (64, 0)).unfold(0, 576, 512)
    zeros = torch.zeros(1, 1, 128).numpy()
    session = onnxruntime.InferenceSession(package_file("silero_vad", ONNX))
    given = {"input": chunks.numpy(), "h": zeros, "c": zeros}
    theirs = torch.from_numpy(session.run(["speech_probs"], given)[0]).flatten()
    torch.testing.assert_close(
        speech_probabilities(other_training(), audio), theirs, rtol=0, atol=SAME
    )


@needs_package
def test_it_hears_speech_where_speech_is():
    audio, labels = labelled_audio()
    speaks = speech_probabilities(voice_activity(), audio) > 0.5
    known = labels >= 0
    assert (speaks == labels)[known].float().mean() > 0.97  # measured 0.986


@needs_package
def test_the_fourier_weights_are_a_formula():
    weight = voice_activity().fourier.weight[:, 0]
    torch.testing.assert_close(weight, fourier_basis(), rtol=0, atol=2e-7)  # measured 8e-8


def test_lean_computes_the_same_from_fewer_numbers():
    model, audio = network(), torch.randn(3, 5000) / 4
    before = copy.deepcopy(model.state_dict())
    small = lean(model)
    torch.testing.assert_close(
        speech_probabilities(small, audio), speech_probabilities(model, audio)
    )
    dropped = 258 * 256 + 64 * 64 + 2 * 128 * 64 + 512
    assert count_parameters(model) - count_parameters(small) == dropped == 87_040
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())
    assert not any(p.requires_grad for p in small.parameters())


def test_the_librarys_walks_find_every_weight():
    names = {"cell.input.weight", "cell.state.weight"}
    assert linear_weights(network()).keys() == names
    convolutions = {f"encoder.{i}.weight" for i in (0, 2, 4, 6)} | {"head.weight"}
    assert prunable_weights(lean(network())).keys() == names | convolutions
    assert prunable_weights(network()).keys() == names | convolutions | {"fourier.weight"}


def test_many_recordings_at_once_are_each_by_itself():
    model, audio = network(), torch.randn(3, 2000)
    alone = torch.stack([speech_probabilities(model, one) for one in audio])
    torch.testing.assert_close(speech_probabilities(model, audio), alone)


def test_a_chunk_knows_what_was_before_and_not_what_comes():
    model, audio = network(), torch.randn(4 * 512)
    found = speech_probabilities(model, audio)
    torch.testing.assert_close(speech_probabilities(model, audio[: 2 * 512]), found[:2])
    assert not torch.equal(speech_probabilities(model, audio[512:]), found[1:])


def test_the_last_chunk_is_filled_with_zeros():
    model, audio = network(), torch.randn(700)
    filled = nn.functional.pad(audio, (0, 324))
    torch.testing.assert_close(
        speech_probabilities(model, audio), speech_probabilities(model, filled)
    )
    assert speech_probabilities(model, audio[:1]).shape == (1,)


@pytest.mark.parametrize(
    "audio", [torch.zeros(0), torch.zeros(2, 0), torch.zeros(2, 2, 9), torch.zeros(9).long()]
)
def test_what_is_no_audio_is_refused(audio):
    with pytest.raises(ValueError, match="audio must be floats"):
        speech_probabilities(network(), audio)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_audio_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="audio must be finite"):
        speech_probabilities(network(), torch.tensor([0.0, value]))


def test_an_absent_package_names_its_remedy(monkeypatch):
    monkeypatch.setattr("course_lib.data.packages.find_spec", lambda name: None)
    assert not has_voice_activity()
    with pytest.raises(FileNotFoundError, match="course data"):
        voice_activity()


def test_it_runs_where_its_weights_are():
    run_on_accelerator(
        """
import torch
from fake_accelerator import accelerator
from course_lib.models.voice_activity import VoiceActivity, lean, speech_probabilities
with accelerator() as put:
    model = put(VoiceActivity())
    for made in (model, lean(model)):
        assert speech_probabilities(made, put(torch.ones(2, 1000))).device.type == "toygpu"
"""
    )
