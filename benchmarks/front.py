"""Loss against bytes of TinyLM's whole file, for the methods of every chapter: the front.

    OMP_NUM_THREADS=1 python -m benchmarks.front FOLDER     makes course_lib/challenge/front.json

Each result is a file that was written, read again and measured from there, on
`yardstick.held_out_sample`. A folder keeps results and states, so that a run that was cut goes
on where it was. Where nothing is said of the embedding, it has 8 bits and a scale for each token,
and what is not a matrix has float16. Seed 0 throughout: how much the seed matters, `orders` tells.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import torch

from benchmarks.structured import processor
from course_lib.challenge.picture import FRONT
from course_lib.data.batches import random_windows
from course_lib.distillation.language import new_student
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.formats.codebook import NF4, Codebook
from course_lib.formats.corrected import Corrected
from course_lib.formats.even_coded import EvenCoded, step_for
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.forms import AnyScheme
from course_lib.formats.linear import Codes, Scheme, nearest_codes
from course_lib.formats.model_file import pack_tensors
from course_lib.formats.two_of_four import TwoOfFour
from course_lib.formats.vectors import Vectors
from course_lib.language_models.recipes import sparsegpt_model
from course_lib.low_rank.residual import give_back
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.llama import Llama
from course_lib.models.moments import Moments
from course_lib.models.parts import linear_weights, record_inputs
from course_lib.models.training import make_optimizers, rate_factor
from course_lib.pipeline.compressed_file import load_compressed, save_compressed
from course_lib.pipeline.run import run, to_dicts
from course_lib.pipeline.state import packed, ranks_of
from course_lib.pipeline.steps import (
    CutUnits,
    DropLayers,
    Given,
    Heal,
    LowRank,
    Prune,
    Quantize,
    Round,
    Step,
    tiny_given,
)
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.floats import E4M3
from course_lib.quantization.linear import Format
from course_lib.quantization.rounding import adaround

EMBEDDING = "embedding.weight"
EIGHT = Scheme(Format(8), "channel")
E8, E4 = Quantize(8, part="embedding"), Quantize(4, part="embedding")
Made = tuple[Llama, dict[str, AnyScheme]]  # a plain model, and how the blocks' weights are stored
HEALED = 200  # steps


def group_scheme(bits: int) -> Scheme:
    """64 weights a scale, the range of the least squared error."""
    return Scheme(Format(bits), 64, mse_range)


RECIPES: dict[tuple[str, str], tuple[Step, ...]] = {
    ("00", "float16"): (),
    ("03", "half of the weights, by magnitude"): (E8, Prune(0.5)),
    ("03", "half of the weights, by magnitude, healed"): (E8, Prune(0.5), Heal(HEALED, 0.2)),
    ("04", "4/5 of the units, refitted"): (CutUnits(0.8), E8),
    ("04", "3/5 of the units, refitted"): (CutUnits(0.6), E8),
    ("04", "3/5 of the units, refitted, healed"): (CutUnits(0.6), Heal(HEALED, 0.2), E8),
    ("04", "one layer of four dropped, healed"): (DropLayers(1), Heal(HEALED, 0.2), E8),
    ("05", "8 bits, a scale for each row"): (E8, Quantize(8)),
    ("05", "4 bits, a scale for each row"): (E8, Quantize(4)),
    ("05", "4 bits, groups of 64"): (E8, Quantize(4, 64)),
    ("05", "3 bits, groups of 64"): (E8, Quantize(3, 64)),
    ("05", "2 bits, groups of 64"): (E8, Quantize(2, 64)),
    ("07", "4 bits, trained"): (E8, Round(4), Heal(HEALED, 0.03)),
    ("07", "3 bits, trained"): (E8, Round(3), Heal(HEALED, 0.1)),
    ("07", "2 bits, trained"): (E8, Round(2), Heal(HEALED, 0.3)),
    ("09", "low rank, 4/5 of the numbers"): (LowRank(0.8), E8),
    ("09", "low rank, 3/5 of the numbers, healed"): (LowRank(0.6), Heal(HEALED, 0.2), E8),
    ("11", "half of the weights, Wanda"): (E8, Prune(0.5, "wanda")),
    ("11", "half of the weights, SparseGPT"): (E8, Prune(0.5, "sparsegpt")),
    ("11", "4 bits, GPTQ"): (E8, Quantize(4, 64, "gptq")),
    ("11", "3 bits, GPTQ"): (E8, Quantize(3, 64, "gptq")),
    ("11", "2 bits, GPTQ"): (E8, Quantize(2, 64, "gptq")),
    ("11", "4 bits, AWQ"): (E8, Quantize(4, 64, "awq")),
    ("11", "3 bits, AWQ"): (E8, Quantize(3, 64, "awq")),
    ("12", "embedding 4 bits, blocks 3, trained"): (E4, Round(3), Heal(HEALED, 0.1)),
    ("12", "embedding 4 bits, blocks 2.8, coded, trained"): (
        E4,
        Round(2.8, True),
        Heal(HEALED, 0.2),
    ),
    ("12", "embedding 4 bits, blocks 2.4, coded, trained"): (
        E4,
        Round(2.4, True),
        Heal(HEALED, 0.2),
    ),
    ("12", "embedding 4 bits, blocks 2, coded, trained"): (E4, Round(2, True), Heal(HEALED, 0.2)),
    ("12", "half pruned, embedding 4 bits, blocks 2, coded, trained"): (
        E4,
        Prune(0.5),
        Round(2, True),
        Heal(HEALED, 0.2),
    ),
    ("12", "4/5 of the units, embedding 4 bits, blocks 2.8, coded, trained"): (
        CutUnits(0.8),
        E4,
        Round(2.8, True),
        Heal(HEALED, 0.2),
    ),
}


def each_layer(scheme: AnyScheme) -> Callable[[Given], Made]:
    """All linear layers of the blocks under one scheme."""
    return lambda given: (given.dense, dict.fromkeys(linear_weights(given.dense.blocks), scheme))


def even(bits: float) -> Callable[[Given], Made]:
    """Even levels under Huffman's code, one step for all."""

    def make(given: Given) -> Made:
        weights = linear_weights(given.dense.blocks)
        scheme = EvenCoded(step_for(list(weights.values()), bits))
        return given.dense, dict.fromkeys(weights, scheme)

    return make


def up_or_down(bits: int) -> Callable[[Given], Made]:
    """AdaRound, a scale for each row."""

    def make(given: Given) -> Made:
        weights = linear_weights(given.dense.blocks)
        layers = [given.dense.blocks.get_submodule(n.removesuffix(".weight")) for n in weights]
        schemes = {}
        inputs = record_inputs(given.dense, given.calibration, layers)
        for (name, weight), x in zip(weights.items(), inputs, strict=True):
            near = nearest_codes(weight, Scheme(Format(bits), "channel", mse_range))
            gram = Moments.empty(x.shape[1]).add(x).gram
            schemes[name] = Codes(adaround(weight, gram, near.grid), near.grid)
        return given.dense, schemes

    return make


def corrected(bits: int, rank: int) -> Callable[[Given], Made]:
    """Few bits, and what they lost given back in a few directions."""

    def make(given: Given) -> Made:
        schemes = {}
        for name, weight in linear_weights(given.dense.blocks).items():
            near = nearest_codes(weight, group_scheme(bits))
            schemes[name] = Corrected(near, give_back(weight, near.weight, rank))
        return given.dense, schemes

    return make


def two_of_four(values: Scheme | None) -> Callable[[Given], Made]:
    """SparseGPT, two of four weights; what stays is stored as it is, or in few bits."""

    def make(given: Given) -> Made:
        model = sparsegpt_model(given.dense, given.calibration, (2, 4))
        return model, dict.fromkeys(linear_weights(model.blocks), TwoOfFour(values))

    return make


def student(given: Given) -> Made:
    """A small model of its own, taught by TinyLM for 400 steps."""
    model = new_student(0)
    dice = torch.Generator().manual_seed(0)
    batches = [random_windows(given.text, 8, 128, dice) for _ in range(400)]
    distill(
        model, batches, lambda s, t, _: soft_target_loss(s, t), make_optimizers(model), given.dense,
        lambda step: rate_factor(step, 400),
    )  # fmt: skip
    return model.requires_grad_(False), dict.fromkeys(linear_weights(model.blocks), torch.float16)


OTHERS: dict[tuple[str, str], Callable[[Given], Made]] = {
    ("06", "k-means, 16 levels a matrix"): each_layer(Codebook(4)),
    ("06", "k-means, 8 levels a matrix"): each_layer(Codebook(3)),
    ("06", "NF4, scales in 8 bits"): each_layer(NF4),
    ("06", "FP8, a scale for each row"): each_layer(FewBits(E4M3)),
    ("06", "MXFP4"): each_layer(MX()),
    ("06", "NVFP4"): each_layer(NVFP4()),
    ("06", "even levels, coded, 4 bits"): even(4),
    ("06", "even levels, coded, 3 bits"): even(3),
    ("06", "even levels, coded, 2.5 bits"): even(2.5),
    ("06", "vectors of 4, two stages, 4 bits"): each_layer(Vectors(4, 8, 2)),
    ("07", "3 bits, AdaRound"): up_or_down(3),
    ("07", "2 bits, AdaRound"): up_or_down(2),
    ("08", "a student of a fifth, taught"): student,
    ("09", "3 bits, 8 directions given back"): corrected(3, 8),
    ("11", "2 of 4, SparseGPT"): two_of_four(None),
    ("11", "2 of 4, SparseGPT, 4 bits"): two_of_four(Scheme(Format(4), 32, mse_range)),
}


def file_of_recipe(recipe: tuple[Step, ...], given: Given, folder: Path, path: Path) -> None:
    """The file that a recipe makes."""
    state = run(recipe, given, 0, folder)
    save_compressed(
        path, packed(state), state.model.config, ranks_of(state.model), to_dicts(recipe)
    )


def file_of_schemes(make: Callable[[Given], Made], given: Given, path: Path) -> None:
    """The file of a model and its blocks' schemes: the rest as the module's text says."""
    model, own = make(given)
    schemes: dict[str, AnyScheme] = {f"blocks.{name}": scheme for name, scheme in own.items()}
    schemes[EMBEDDING] = EIGHT
    tensors = dict(model.state_dict())
    for name, tensor in tensors.items():
        if schemes.get(name, TwoOfFour()) == TwoOfFour():  # what stays is stored as it is
            tensors[name] = tensor.half()
    save_compressed(path, pack_tensors(tensors, schemes), model.config)


def point(make: Callable[[Path], None], given: Given) -> tuple[int, float]:
    """Bytes of a file, and the loss of the model that it gives back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        make(path)
        found = load_compressed(path)
        return found.bytes, tiny_quality(found.model, given.tokenizer).bits_per_byte


def makers(given: Given, folder: Path) -> dict[tuple[str, str], Callable[[Path], None]]:
    """Chapter and method -> what writes its file."""
    made = {key: partial(file_of_recipe, r, given, folder) for key, r in RECIPES.items()}
    made |= {key: partial(file_of_schemes, make, given) for key, make in OTHERS.items()}
    return dict(sorted(made.items()))


def main(folder: str) -> None:
    """Measure all, print them, write the front."""
    given, points, kept = tiny_given(), [], Path(folder) / "points.json"
    done = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for (chapter, method), make in makers(given, Path(folder)).items():
        count, loss = done.get(f"{chapter} {method}") or point(make, given)
        done[f"{chapter} {method}"] = count, loss
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(done), "utf-8")
        points.append(
            {"chapter": chapter, "method": method, "bytes": count, "bits_per_byte": round(loss, 4)}
        )
        print(f"{chapter}  {method:60} {count:9,}  {loss:.4f}", flush=True)
    front = {
        "measured": date.today().isoformat(),
        "machine": processor(),
        "command": "python -m benchmarks.front FOLDER",
        "points": points,
    }
    FRONT.write_text(json.dumps(front, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) != 2:
        sys.exit("python -m benchmarks.front FOLDER")
    main(sys.argv[1])
