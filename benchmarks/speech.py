"""Silero's voice-activity network under the course's methods: file bytes, agreement, error.

    OMP_NUM_THREADS=1 python -m benchmarks.speech                 every method, one table
    OMP_NUM_THREADS=1 python -m benchmarks.speech sensitivity 3   one layer at a time, at 3 bits
    OMP_NUM_THREADS=1 python -m benchmarks.speech trained         the package's other training

Audio: 36 s of speech at known places, three seeds, each with noise at 30, 10 and 0 dB.
Agreement and distance are with the float32 network; wrong is against the labels. Every file is
written and stat-ed; what is measured is what it gives back. float16 holds what has no scheme. Where
a row does not say otherwise the network is `lean`.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from course_lib.data.packages import package_file
from course_lib.data.speech import labelled_audio
from course_lib.formats.codebook import NF4, Codebook
from course_lib.formats.forms import AnyScheme
from course_lib.formats.linear import Scheme, nearest_codes
from course_lib.formats.model_file import pack_model, quantize_model, unpack_model
from course_lib.formats.shared import Shared
from course_lib.formats.sparse import Sparse
from course_lib.low_rank.layers import with_factors
from course_lib.low_rank.svd import saving_rank, truncated
from course_lib.measure.decisions import agreement, distance, wrong_share
from course_lib.measure.size import size
from course_lib.models.parts import prunable_weights
from course_lib.models.voice_activity import (
    VoiceActivity,
    lean,
    speech_probabilities,
    voice_activity,
)
from course_lib.pruning.masks import apply_masks, magnitude_pruned
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format
from course_lib.quantization.sensitivity import measured_costs

SEEDS = (0, 1, 2)
NOISE = (30.0, 10.0, 0.0)  # decibels of speech over noise
GROUP = 32  # wanted; a layer takes the divisor of its inputs that is nearest
ONNX = "data/silero_vad_16k_sequence.onnx"

Packed = tuple[nn.Module, dict[str, Tensor]]  # shaped as what the file holds, and the file


@dataclass(frozen=True)
class Row:
    """What one method leaves: file bytes, and three measures in the order of NOISE."""

    bytes: int
    agreement: list[float]
    distance: list[float]
    wrong: list[float]


@cache
def recordings() -> tuple[Tensor, Tensor]:
    """Audio (9, N) and labels (9, C): the seeds of the first noise, then of the next."""
    made = [labelled_audio(seed, snr) for snr in NOISE for seed in SEEDS]
    return torch.stack([m.audio for m in made]), torch.stack([m.labels for m in made])


@cache
def reference() -> Tensor:
    """The float32 network's probabilities, (9, C)."""
    return speech_probabilities(voice_activity(), recordings()[0])


def measured(packed: Packed) -> Row:
    """One row of the table, from what the file gives back."""
    like, tensors = packed
    audio, labels = recordings()
    found = speech_probabilities(unpack_model(tensors, like), audio)
    per_noise = [x.chunk(len(NOISE)) for x in (found, reference(), labels)]
    return Row(
        size(tensors).bytes,
        [agreement(p, q) for p, q, _ in zip(*per_noise, strict=True)],
        [distance(p, q) for p, q, _ in zip(*per_noise, strict=True)],
        [wrong_share(p, label) for p, _, label in zip(*per_noise, strict=True)],
    )


# ---------------------------------------------------------------- methods


def packed_as(model: nn.Module, scheme: Callable[[Tensor], AnyScheme]) -> Packed:
    """Each weight of a linear layer or convolution by its scheme, all else in float16."""
    schemes = dict.fromkeys(dict(model.named_parameters()), torch.float16)
    schemes |= {name: scheme(weight) for name, weight in prunable_weights(model).items()}
    return model, pack_model(model, schemes)


def nearest_group(weight: Tensor) -> int:
    """The divisor of the weight's inputs that is nearest to 32: 43 of 387.

    >>> nearest_group(torch.zeros(2, 129, 3)), nearest_group(torch.zeros(2, 128))
    (43, 32)
    """
    inputs = weight[0].numel()
    return min((g for g in range(1, inputs + 1) if inputs % g == 0), key=lambda g: abs(g - GROUP))


def linear(bits: int, granularity: str, **more: Callable) -> Callable[[Tensor], Scheme]:
    """Weight -> `Scheme`, symmetric; the granularity "group" is `nearest_group`."""

    def scheme(weight: Tensor) -> Scheme:
        rows = nearest_group(weight) if granularity == "group" else granularity
        return Scheme(Format(bits, symmetric=True), rows, **more)

    return scheme


def pruned(model: nn.Module, density: float, per_layer: bool) -> Packed:
    """The smallest weights out; the others in float16 under a bitmap."""
    half = magnitude_pruned(model, density, per_layer).half()
    return model, pack_model(half, dict.fromkeys(prunable_weights(half), Sparse()))


def low_rank(model: nn.Module, share: float) -> Packed:
    """Two factors for each matrix that is large enough, with a share of the numbers it had."""
    factors = {}
    for name, weight in prunable_weights(model).items():
        matrix = weight.flatten(1)  # (O, I, k) -> (O, I · k)
        if rank := round(share * saving_rank(*matrix.shape)):
            factors[name] = truncated(matrix, rank)
    return packed_as(with_factors(model, factors), lambda _: torch.float16)


def shared(model: nn.Module, bits: int) -> Packed:
    """Half of each layer out, 2ⁿ levels for what stays, places and codes under Huffman's code."""
    kept = magnitude_pruned(model, 0.5, per_layer=True)
    weights = prunable_weights(kept)
    small = quantize_model(kept, dict.fromkeys(weights, Codebook(bits, "tensor", _fit_nonzero)))
    apply_masks(prunable_weights(small), {name: w != 0 for name, w in weights.items()})
    return packed_as(small, lambda _: Shared())


def _fit_nonzero(rows: Tensor, k: int) -> Tensor:
    """The best levels of one row's numbers, zeros left out."""
    return Codebook(8).fit(rows[rows != 0][None], k)  # (1, C) -> (1, n) -> (1, k)


def methods(whole: VoiceActivity) -> Iterator[tuple[str, Packed]]:
    """Name -> what is stored, from the largest idea to the smallest file."""
    small = lean(whole)
    yield "float32", (whole, pack_model(whole, {}))
    yield "float32, lean", (small, pack_model(small, {}))
    yield "float16", packed_as(whole, lambda _: torch.float16)
    yield "float16, lean", packed_as(small, lambda _: torch.float16)
    for bits in (8, 4, 3):
        for rows in ("tensor", "channel", "group"):
            yield f"{bits} bits, {rows}, not lean", packed_as(whole, linear(bits, rows))
            yield f"{bits} bits, {rows}", packed_as(small, linear(bits, rows))
    for bits in (4, 3):
        for rows in ("tensor", "channel", "group"):
            scheme = linear(bits, rows, calibrate=mse_range)
            yield f"{bits} bits, {rows}, least squares", packed_as(small, scheme)
    yield "50 % by magnitude, not lean", pruned(whole, 0.5, False)
    for density in (0.5, 0.3):
        for per_layer in (False, True):
            name = f"{100 - 100 * density:.0f} % by magnitude"
            where = "in each layer" if per_layer else "over all layers"
            yield f"{name}, {where}", pruned(small, density, per_layer)
    for share in (1.0, 0.75, 0.5, 0.25):
        yield f"low rank, {100 * share:.0f} % of the numbers", low_rank(small, share)
    for bits in (4, 3):
        yield f"codebook, {2**bits} levels", packed_as(small, lambda _, b=bits: Codebook(b))
        yield f"50 % in each layer, {2**bits} levels, Huffman", shared(small, bits)
    yield "NF4 in groups of 64 where they fit", packed_as(small, _nf4)


def _nf4(weight: Tensor) -> AnyScheme:
    return NF4 if weight[0].numel() % NF4.granularity == 0 else linear(4, "group")(weight)


def table() -> None:
    """Every method: bytes, and three measures at 30, 10 and 0 dB."""
    print(f"{'':44}{'bytes':>10}  {'agreement, %':20}{'mean |p − q|':22}wrong, %")
    for name, packed in methods(voice_activity()):
        row = measured(packed)
        print(
            f"{name:44}{row.bytes:>10,}  {_three(row.agreement, 100, 2)}  "
            f"{_three(row.distance, 1, 4)}  {_three(row.wrong, 100, 2)}",
            flush=True,
        )


def _three(numbers: list[float], unit: float, digits: int) -> str:
    return " ".join(f"{unit * number:6.{digits}f}" for number in numbers)


# ---------------------------------------------------------------- where it hurts


def sensitivity(bits: int) -> None:
    """One layer at a time at few bits, per tensor and per channel: how far probabilities move."""
    model, weights = voice_activity(), prunable_weights(voice_activity())
    rounded = {
        name: [nearest_codes(w, linear(bits, rows)(w)).weight for rows in ("tensor", "channel")]
        for name, w in weights.items()
    }
    costs = measured_costs(
        model, rounded, lambda m: distance(speech_probabilities(m, recordings()[0]), reference())
    )
    print(f"{bits} bits: mean |p − q|, per tensor and per channel")
    for (name, weight), cost in zip(weights.items(), costs.tolist(), strict=True):
        far = (weight.abs().max() / weight.square().mean().sqrt()).item()
        print(f"    {name:20}{weight.numel():8,} weights, largest / rms {far:6.1f}", end="")
        print("".join(f"{c:10.4f}" for c in cost), flush=True)


def other_training() -> VoiceActivity:
    """The weights of the package's ONNX files, in our network: trained anew, and not our own."""
    import onnx

    graph = onnx.load(package_file("silero_vad", ONNX)).graph
    array = onnx.numpy_helper.to_array
    theirs = {i.name: torch.from_numpy(array(i).copy()) for i in graph.initializer}
    model = voice_activity()
    lstm = next(node for node in graph.node if node.op_type == "LSTM")
    weights = [theirs[name][0] for name in lstm.input[1:4]]  # (1, 4H, …) -> (4H, …)
    ours = [_reordered(w) for w in (*weights[:2], *weights[2].chunk(2))]
    parts = ("input.weight", "state.weight", "input.bias", "state.bias")
    cell = {f"cell.{part}": weight for part, weight in zip(parts, ours, strict=True)}
    convolutions = {
        f"encoder.{2 * i}.{part}": theirs[f"encoder.{i}.{part}"]
        for i in range(4)
        for part in ("weight", "bias")
    }
    head = {f"head.{part}": theirs[f"output.{part}"] for part in ("weight", "bias")}
    fourier = {"fourier.weight": theirs["stft.forward_basis_buffer"]}
    model.load_state_dict(cell | convolutions | head | fourier)
    return model


def _reordered(weight: Tensor) -> Tensor:
    """ONNX's gates i, o, f, g as i, f, g, o: (4H, …)."""
    i, o, f, g = weight.chunk(4)
    return torch.cat([i, f, g, o])


def trained() -> None:
    """How far two trainings of one network are from each other: what a difference is worth."""
    row = measured((voice_activity(), pack_model(other_training(), {})))
    print(f"the other training: agreement {_three(row.agreement, 100, 2)} %,", end=" ")
    print(f"mean |p − q| {_three(row.distance, 1, 4)}, wrong {_three(row.wrong, 100, 2)} %")


if __name__ == "__main__":
    chosen, *numbers = sys.argv[1:] or ["table"]
    {"table": table, "sensitivity": sensitivity, "trained": trained}[chosen](*map(int, numbers))
