"""Speech at known places: five sentences that were read aloud, with silence or noise around them.

The sentences lie in `sounds/`, 8 bits a sample; `tools/librivox_speech.py` made the file. They
begin and end with a word, so whoever puts them into silence knows where speech is, and need not ask
the model that is to be judged.

Axes: N samples, P sentences, C chunks of 512 samples.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from course_lib.data.packages import package_file

RATE = 16_000  # samples a second
CHUNK = 512  # samples for which there is one label: 32 ms
SECONDS = 36  # of labelled audio: 1,125 whole chunks
SHORTEST_PAUSE = RATE  # samples
MU = 255
SPEECH = "data/sounds/speech.safetensors"
BORDER = -1  # the label of a chunk that is partly speech


class LabelledAudio(NamedTuple):
    """Samples (N,) from −1 to 1, and labels (C,): 1 speech, 0 none, −1 some of both."""

    audio: Tensor
    labels: Tensor


@cache
def sentences() -> tuple[Tensor, ...]:
    """Five sentences of *Sense and Sensibility*, samples (N,) each; sounds/speech.md says whose.

    >>> [round(len(sentence) / RATE, 1) for sentence in sentences()]
    [6.6, 2.5, 4.8, 5.6, 2.8]
    """
    stored = load_file(package_file("course_lib", SPEECH))
    return from_mu_law(stored["codes"]).split(stored["lengths"].tolist())


def labelled_audio(seed: int = 0, snr: float = math.inf) -> LabelledAudio:
    """36 s: the sentences in random order, 1 s or more before and after each, noise over it all.

    Args:
        seed: of the order, the pauses and the noise.
        snr: 10 log₁₀ of the sentences' mean power over the noise's, in decibels; ∞ is no noise.

    Raises:
        ValueError: snr is NaN or −∞.

    >>> audio, labels = labelled_audio(seed=1, snr=10)
    >>> len(audio) / RATE, len(labels), labels.unique().tolist()
    (36.0, 1125, [-1, 0, 1])
    """
    if math.isnan(snr) or snr == -math.inf:
        raise ValueError(f"snr must be a number of decibels, or inf; got {snr}")
    generator = torch.Generator().manual_seed(seed)
    spoken = [sentences()[i] for i in torch.randperm(len(sentences()), generator=generator)]
    audio, speaks = torch.zeros(SECONDS * RATE), torch.zeros(SECONDS * RATE)
    at = 0
    for pause, sentence in zip(_pauses(spoken, generator), spoken, strict=True):
        at += pause
        audio[at : at + len(sentence)] = sentence
        speaks[at : at + len(sentence)] = 1
        at += len(sentence)
    power = torch.cat(spoken).square().mean()
    audio += pink_noise(len(audio), generator) * (power * 10 ** (-snr / 10)).sqrt()
    share = speaks.view(-1, CHUNK).mean(1)  # (N,) -> (C,)
    whole = (share == 0) | (share == 1)
    return LabelledAudio(audio, torch.where(whole, share, BORDER).long())


def _pauses(spoken: list[Tensor], generator: torch.Generator) -> list[int]:
    """Samples before each sentence; as much as the shortest, or more, is left after the last."""
    places = len(spoken) + 1
    free = SECONDS * RATE - sum(map(len, spoken)) - places * SHORTEST_PAUSE
    cuts = torch.randint(free + 1, (len(spoken),), generator=generator).sort().values
    return (cuts.diff(prepend=cuts.new_zeros(1)) + SHORTEST_PAUSE).tolist()


def pink_noise(count: int, generator: torch.Generator) -> Tensor:
    """Noise of mean power 1 whose power falls as 1/f, as that of many rooms does: (count,).

    >>> noise = pink_noise(1000, torch.Generator().manual_seed(0))
    >>> round(noise.square().mean().item(), 4)
    1.0
    """
    spectrum = torch.fft.rfft(torch.randn(count, generator=generator))
    frequency = torch.arange(len(spectrum)).clamp(min=1)
    noise = torch.fft.irfft(spectrum / frequency.sqrt(), count)
    return noise / noise.square().mean().sqrt()


def mu_law(samples: Tensor) -> Tensor:
    """Samples from −1 to 1 as codes of 8 bits, finer where it is quiet.

        y = sign(x) ln(1 + 255 |x|) / ln 256,      code = round(255 (y + 1) / 2)

    Source: ITU-T, 1988, Recommendation G.711 (there in straight pieces).

    >>> mu_law(torch.tensor([-1.0, -0.01, 0.01, 1.0])).tolist()
    [0, 98, 157, 255]
    """
    curve = samples.sign() * (MU * samples.abs()).log1p() / math.log1p(MU)
    return ((curve.clamp(-1, 1) + 1) / 2 * MU).round().to(torch.uint8)


def from_mu_law(codes: Tensor) -> Tensor:
    """The samples that `mu_law`'s codes stand for, float32.

    >>> [round(x, 4) for x in from_mu_law(torch.tensor([0, 98, 157, 255])).tolist()]
    [-1.0, -0.0102, 0.0102, 1.0]
    """
    curve = codes.float() / MU * 2 - 1
    return curve.sign() * (curve.abs() * math.log1p(MU)).expm1() / MU
