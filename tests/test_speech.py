import io
import json
import math
import tarfile
import wave

import librivox_speech
import numpy as np
import pytest
import torch

from course_lib.data import speech
from course_lib.data.speech import CHUNK, RATE, from_mu_law, labelled_audio, mu_law, sentences


def power(samples: torch.Tensor) -> float:
    return samples.square().mean().item()


def test_every_code_of_8_bits_comes_back():
    codes = torch.arange(256, dtype=torch.uint8)
    assert mu_law(from_mu_law(codes)).equal(codes)
    samples = torch.linspace(-1, 1, 999)
    # Half a step, where steps are widest: the curve's slope at 1 is 255 / (256 ln 256).
    torch.testing.assert_close(from_mu_law(mu_law(samples)), samples, rtol=0, atol=0.022)


def test_the_sentences_are_speech_from_end_to_end():
    assert sum(map(len, sentences())) / RATE == pytest.approx(22.36, abs=0.01)
    for sentence in sentences():
        assert sentence.abs().max() < 1 and 1e-4 < power(sentence) < 0.1


def test_labels_say_where_the_sentences_are():
    audio, labels = labelled_audio(seed=3)
    chunks = audio.view(-1, CHUNK)
    assert not chunks[labels == 0].any()
    assert labels.numel() == len(chunks) == 1125
    assert (labels == speech.BORDER).sum() <= 10  # five beginnings and five ends
    said = torch.cat(sentences())
    torch.testing.assert_close(audio.square().sum(), said.square().sum())
    assert chunks[labels == 1].any(dim=1).all()


def test_every_pause_is_at_least_a_second():
    for seed in range(20):
        _, labels = labelled_audio(seed)
        silent = torch.cat([torch.ones(1), (labels != 0).float(), torch.ones(1)]).nonzero()
        runs = silent[:, 0].diff() - 1
        assert len(runs[runs > 0]) == 6
        # Two chunks of a pause may be partly speech.
        assert runs[runs > 0].min() >= RATE // CHUNK - 1


@pytest.mark.parametrize("snr", [20.0, 10.0, 0.0, -10.0])
def test_noise_has_the_power_that_is_asked_for(snr):
    clean, noisy = labelled_audio(1), labelled_audio(1, snr)
    assert clean.labels.equal(noisy.labels)
    found = 10 * math.log10(power(torch.cat(sentences())) / power(noisy.audio - clean.audio))
    assert found == pytest.approx(snr, abs=0.01)


def test_noise_is_pink():
    noise = speech.pink_noise(2**16, torch.Generator().manual_seed(0))
    octaves = torch.fft.rfft(noise).abs().square()
    sums = torch.stack([octaves[2**i : 2 ** (i + 1)].sum() for i in range(8, 15)])
    assert sums.max() / sums.min() < 1.3  # an octave holds as much as the next; measured 1.07


def test_the_seed_decides():
    assert labelled_audio(1, 5).audio.equal(labelled_audio(1, 5).audio)
    assert not labelled_audio(1).labels.equal(labelled_audio(2).labels)


@pytest.mark.parametrize("snr", [math.nan, -math.inf])
def test_a_level_that_is_none_is_refused(snr):
    with pytest.raises(ValueError, match="snr must be a number of decibels"):
        labelled_audio(0, snr)


def test_the_file_is_what_its_script_writes():
    codes = [mu_law(sentence) for sentence in sentences()]
    assert librivox_speech.SPEECH.read_bytes() == librivox_speech.stored(codes)
    assert librivox_speech.SPEECH.stat().st_size < 400_000


def test_sentences_are_read_from_an_archive(tmp_path):
    sound, samples = io.BytesIO(), np.arange(-RATE, RATE, dtype="<i2")
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    words = [("<sil>", 0.0, 0.5), ("so", 0.5, 0.25), ("<sil>", 0.75, 0.05), ("it", 0.8, 0.4)]
    aligned = {"w": [{"t": t, "b": b, "d": d} for t, b, d in [*words, ("<sil>", 1.2, 0.8)]]}
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as tar:
        for name, data in (("a.wav", sound.getvalue()), ("a.json", json.dumps(aligned).encode())):
            info = tarfile.TarInfo(f"p/test/data/librivox/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (found,) = librivox_speech.sentences(tmp_path / "p.tar.gz")
    wanted = torch.from_numpy(samples[RATE // 2 : round(1.2 * RATE)].astype("f4")) / 2**15
    assert found.equal(mu_law(wanted))


def test_the_note_beside_the_file_names_its_source_and_licence():
    note = librivox_speech.SPEECH.with_name("speech.md").read_text("utf-8")
    assert "public domain" in note and "pocketsphinx 5.1.1" in note
