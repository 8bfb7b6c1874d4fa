"""Exercise of 06_codebooks: a matrix of TinyLM in 3 bits a weight. Axes: O outputs, I inputs."""

import math

from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.formats.codebook import Codebook
from course_lib.formats.even_coded import EvenCoded, step_for
from course_lib.formats.forms import AnyScheme
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.vectors import Vectors
from course_lib.measure.size import size
from course_lib.models import pretrained
from course_lib.quantization.calibration import mse_range

BITS, DECIBELS = 3, 15.8  # asked for; even levels under Huffman's code reach 16.0 to 16.1
HEADER = 112  # bytes of a file with one part, or a few more
MOST = 64  # bits a weight: larger files are not opened


def packed_as(weight: Tensor, scheme: AnyScheme) -> dict[str, Tensor]:
    """A file of the one tensor, in this scheme."""
    return pack_tensors({"weight": weight}, {"weight": scheme})


def even_coded(weight: Tensor, bits: float) -> EvenCoded:
    """Even levels under Huffman's code, the file's header counted among the bits."""
    return EvenCoded(step_for([weight], bits - 8 * HEADER / weight.numel()))


def squeeze(weight: Tensor) -> dict[str, Tensor]:
    """A matrix of TinyLM as a file holds it, in at most 3 bits a weight, everything counted.

    weight: (O, I), float32. What you return must be a file of the one tensor "weight", as
    `pack_tensors({"weight": weight}, …)` of `formats.model_file` makes them: `unpack_tensors` gives
    it back, ŵ. Its bytes are those that `measure.size` counts, header included. Asked for: at least
    15.8 dB, 10 log₁₀ Σ w² / Σ (w − ŵ)² (8 levels by k-means: 13.7 to 14.6 dB, and 3.01 bits).
    """
    return packed_as(weight, even_coded(weight, BITS))


def _matrices(seed: int) -> list[Case]:
    """Two of the MLPs' twelve, their rows and columns in another order."""
    draw, (model, _) = Draw(seed), pretrained.tiny()
    blocks = [model.blocks[draw.number(0, len(model.blocks))].mlp for _ in range(2)]
    wide = {
        "a wide matrix of TinyLM": blocks[0].down.weight,
        "a tall matrix of TinyLM": (blocks[1].gate, blocks[1].up)[draw.number(0, 2)].weight,
    }
    return [
        Case(label, {"weight": w.detach()[draw.order(w.shape[0])][:, draw.order(w.shape[1])]})
        for label, w in wide.items()
    ]


def _bits(inputs: dict, packed: dict[str, Tensor]) -> float:
    return size(packed, inputs["weight"].numel()).bits_per_parameter


def _restored(inputs: dict, packed: dict[str, Tensor]) -> Tensor:
    if _bits(inputs, packed) > MOST:
        raise ValueError(f"a file must be of at most {MOST} bits a weight")
    return unpack_tensors(packed, {"weight": inputs["weight"]})["weight"]


def _decibels(inputs: dict, packed: dict[str, Tensor]) -> float:
    weight = inputs["weight"].detach().cpu().double()
    noise = float((_restored(inputs, packed).double() - weight).square().sum())
    return 10 * math.log10(float(weight.square().sum()) / noise) if noise else math.inf


def _what_was_reached(inputs: dict, packed: dict[str, Tensor]) -> str:
    return (
        f"{_bits(inputs, packed):.4f} bits a weight (asked: at most {BITS}), "
        f"{_decibels(inputs, packed):.2f} dB (asked: at least {DECIBELS})"
    )


def _in_float16(weight):
    file = packed_as(weight, even_coded(weight, BITS))
    return {"weight": unpack_tensors(file, {"weight": weight})["weight"].half()}


SQUEEZE = Exercise(
    reference=squeeze,
    cases=_matrices,
    compare=False,
    reached=_what_was_reached,
    seconds=60.0,
    hints=(
        "Eight levels for every weight are a code of fixed length: 3 bits are gone before the "
        "codebook has a byte, and the best eight levels reach 14.6 dB. What if there were more "
        "levels, and the frequent ones took fewer bits?",
        "Even levels with a small step, and Huffman's code for their numbers: the scheme EvenCoded "
        "of `formats.even_coded`. The step decides both error and bytes. The smaller the better, "
        "as long as the file keeps to its size.",
        "step_for([weight], bits) finds the step, but counts the part alone. measure.size counts "
        "the file: names, dtypes and shapes are a header of about 100 bytes. Take 8 · 112 / "
        "weight.numel() off the 3 bits, then pack_tensors.",
    ),
    properties=(
        Property(
            'a file of the one tensor "weight" that `unpack_tensors` reads',
            lambda inputs, packed: _restored(inputs, packed).shape == inputs["weight"].shape,
            form=True,
        ),
        Property(
            "at most 3 bits a weight, the file's header counted",
            lambda inputs, packed: _bits(inputs, packed) <= BITS,
        ),
        Property(
            "at least 15.8 dB between the weight and what the file gives back",
            lambda inputs, packed: _decibels(inputs, packed) >= DECIBELS,
        ),
    ),
    misconceptions=(
        Misconception(
            "eight levels by k-means",
            lambda weight: packed_as(weight, Codebook(3)),
            "the best eight levels that there are, and each weight takes 3 bits. With a code of "
            "fixed length you cannot do better, and the codebook and the header are still to pay. "
            "Not all levels are equally frequent: let the code know.",
        ),
        Misconception(
            "eight even levels in each row",
            lambda weight: packed_as(weight, Scheme(Format(3), "channel", mse_range)),
            "a grid with eight even levels for each row: the scales alone make it larger than 3 "
            "bits, and even levels without Huffman's code waste what the rare ones could save.",
        ),
        Misconception(
            "pairs of weights",
            lambda weight: packed_as(weight, Vectors(2, 6)),
            "64 vectors for pairs of weights: better than eight levels, and their codebook is more "
            "than the 3 bits leave. Codes of unequal length gain more than a second dimension.",
        ),
        Misconception(
            "fewer bits than there are",
            lambda weight: packed_as(weight, even_coded(weight, 2.5)),
            "even levels under Huffman's code, that is the way; but you left half a bit of each "
            "weight unused. A bit is worth 6 dB: make the step smaller.",
        ),
        Misconception(
            "rounded, and stored as float16",
            _in_float16,
            "the weights have few values, and 16 bits each in the file. Rounding saves nothing by "
            "itself: write the codes, under Huffman's code.",
        ),
    ),
)
