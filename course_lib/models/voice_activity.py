"""The course's speech model: Silero's network that says of each 32 ms whether somebody speaks.

    chunk     512 samples and the 64 before them; 64 more by reflection at the end     (640,)
    fourier   4 windows of 256 samples: real and imaginary part of 129 frequencies     (258, 4)
              magnitude of both                                                        (129, 4)
    encoder   four convolutions with ReLU, two of them with stride 2                   (128, 1)
    cell      an LSTM cell, whose state goes from chunk to chunk                       (128,)
    head      σ(w · ReLU(h) + b)                                                       ()

Only the cell has to wait for the chunk before; all else runs for every chunk at once. Its two
matrices are plain `nn.Linear`, so whatever treats a model's linear layers treats them, too.

The weights arrive in the package silero-vad (see `data.lock`), in float32.

Source: Silero, 2024, "Silero VAD: Pre-trained Enterprise-Grade Voice Activity Detector".

Axes: B recordings, N samples, C chunks, H the cell's width (128), F frequencies (129).
"""

import copy
import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from course_lib.data.packages import package_file
from course_lib.data.speech import CHUNK
from course_lib.models.finite import check_finite

CONTEXT = 64  # samples of the chunk before, and of the reflection behind
WINDOW, HOP = 256, 128  # samples
FREQUENCIES = WINDOW // 2 + 1
WIDTH = 128
FILE = "data/silero_vad_16k.safetensors"
NAMES = {  # in the package's file -> here
    "stft_conv.": "fourier.",
    "conv1.": "encoder.0.",
    "conv2.": "encoder.2.",
    "conv3.": "encoder.4.",
    "conv4.": "encoder.6.",
    "lstm_cell.weight_ih": "cell.input.weight",
    "lstm_cell.weight_hh": "cell.state.weight",
    "lstm_cell.bias_ih": "cell.input.bias",
    "lstm_cell.bias_hh": "cell.state.bias",
    "final_conv.": "head.",
}


class LSTMCell(nn.Module):
    """One step of an LSTM at a time, as two linear layers.

        i, f, g, o = W x + b + V h + d,     c ← σ(f) c + σ(i) tanh(g),     h ← σ(o) tanh(c)

    >>> LSTMCell(3, 5)(torch.zeros(7, 2, 3)).shape
    torch.Size([7, 2, 5])
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.input = nn.Linear(inputs, 4 * width)
        self.state = nn.Linear(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """All C steps, from a state of zeros: (C, B, I) -> h, (C, B, H)."""
        given = self.input(x)  # (C, B, I) -> (C, B, 4H), for all steps at once
        h = c = given.new_zeros(*x.shape[1:-1], given.shape[-1] // 4)
        states = []
        for step in given:
            i, f, g, o = (step + self.state(h)).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states)


class VoiceActivity(nn.Module):
    """Chunks with their context in (B, C, 576), probabilities of speech out (B, C).

    >>> VoiceActivity()(torch.zeros(2, 3, 576)).shape
    torch.Size([2, 3])
    """

    def __init__(self):
        super().__init__()
        self.fourier = nn.Conv1d(1, 2 * FREQUENCIES, WINDOW, stride=HOP, bias=False)
        self.encoder = nn.Sequential(
            nn.Conv1d(FREQUENCIES, 128, 3, padding=1), nn.ReLU(),
            nn.Conv1d(128, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(64, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(64, WIDTH, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.cell = LSTMCell(WIDTH, WIDTH)
        self.head = nn.Conv1d(WIDTH, 1, 1)

    def forward(self, chunks: Tensor) -> Tensor:
        B, C, _ = chunks.shape
        x = F.pad(chunks.flatten(0, 1), (0, CONTEXT), "reflect")  # (B, C, 576) -> (B·C, 640)
        real, imaginary = self.fourier(x[:, None]).split(FREQUENCIES, dim=1)  # (B·C, F, 4) each
        x = self.encoder((real**2 + imaginary**2).sqrt())  # (B·C, F, 4) -> (B·C, H, 1)
        x = self.cell(x.view(B, C, -1).transpose(0, 1))  # (B·C, H, 1) -> (C, B, H)
        x = self.head(x.relu().permute(1, 2, 0))  # (C, B, H) -> (B, H, C) -> (B, 1, C)
        return x[:, 0].sigmoid()


def has_voice_activity() -> bool:
    """Whether the package with the network is installed."""
    try:
        package_file("silero_vad", FILE)
    except FileNotFoundError:
        return False
    return True


def voice_activity() -> VoiceActivity:
    """Silero's network, version 6.2.3, for 16 kHz, ready to use: on the CPU, without gradients.

    Raises:
        FileNotFoundError: the package is not installed; the message names the remedy.
    """
    weights = {}
    for name, weight in load_file(package_file("silero_vad", FILE)).items():
        theirs = next(part for part in NAMES if name.startswith(part))
        weights[name.replace(theirs, NAMES[theirs])] = weight
    model = VoiceActivity().eval().requires_grad_(False)
    model.load_state_dict(weights)
    return model


class Fourier(nn.Module):
    """The convolution `fourier` with its numbers computed: a file need not hold them.

    >>> Fourier()(torch.zeros(2, 1, 640)).shape, len(Fourier().state_dict())
    (torch.Size([2, 258, 4]), 0)
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("basis", fourier_basis(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.basis[:, None], stride=HOP)  # (B, 1, 640) -> (B, 2F, 4)


def fourier_basis() -> Tensor:
    """Cosines, then sines, under a Hann window: (2F, 256).

        cos(2π f n / 256) · sin²(π n / 256)    and    −sin(2π f n / 256) · sin²(π n / 256)

    >>> fourier_basis()[1, 128].item(), fourier_basis().shape
    (-1.0, torch.Size([258, 256]))
    """
    n = torch.arange(WINDOW, dtype=torch.float64)
    turns = n * torch.arange(FREQUENCIES)[:, None] % WINDOW  # (F, 256), small: exact
    angles = 2 * math.pi / WINDOW * turns
    window = (math.pi / WINDOW * n).sin().square()
    return torch.cat([angles.cos() * window, -angles.sin() * window]).float()


def lean(model: VoiceActivity) -> nn.Module:
    """A copy that computes the same from 72 % of the numbers: what nothing needs is not there.

    - `fourier` is a formula.
    - The third convolution sees two places, and gives one: its first tap only meets padding. The
      fourth sees one place: its first and last tap only meet padding.
    - The cell adds two biases: one holds their sum.

    >>> [sum(p.numel() for p in m.parameters()) for m in (VoiceActivity(), lean(VoiceActivity()))]
    [309633, 222593]
    """
    model = copy.deepcopy(model)
    model.fourier = Fourier().to(model.head.weight)
    for number, taps in ((4, slice(1, 3)), (6, slice(1, 2))):
        layer = model.encoder[number]
        layer.weight = _like(layer.weight, layer.weight[..., taps].clone())
        layer.kernel_size, layer.padding = layer.weight.shape[2:], (0,)
    cell = model.cell
    cell.input.bias = _like(cell.input.bias, cell.input.bias + cell.state.bias)
    cell.state.bias = None
    return model


def _like(old: nn.Parameter, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), old.requires_grad)


@torch.no_grad()
def speech_probabilities(model: nn.Module, audio: Tensor) -> Tensor:
    """The probability that somebody speaks in each chunk of 512 samples.

    Args:
        model: a `VoiceActivity`, or one with other layers in the places of its own.
        audio: (N,) or (B, N) from −1 to 1, at 16 kHz, N ≥ 1; the last chunk is filled with zeros.
            The first has zeros for context, and a state of zeros.

    Returns:
        (C,) or (B, C), with C = ⌈N / 512⌉.

    Raises:
        ValueError: audio is of another shape, or holds NaN or infinity.

    >>> speech_probabilities(VoiceActivity(), torch.zeros(1000)).shape
    torch.Size([2])
    """
    if audio.dim() not in (1, 2) or not audio.numel() or not audio.is_floating_point():
        raise ValueError(
            "audio must be floats (N,) or (B, N), not empty; "
            f"got {tuple(audio.shape)}, {audio.dtype}"
        )
    check_finite(audio, "audio")
    many = audio if audio.dim() == 2 else audio[None]
    filled = F.pad(many, (CONTEXT, -many.shape[1] % CHUNK))
    found = model(filled.unfold(1, CONTEXT + CHUNK, CHUNK))  # (B, N) -> (B, C, 576) -> (B, C)
    return found if audio.dim() == 2 else found[0]
