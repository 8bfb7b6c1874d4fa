"""Exercise of 12_capstone: all of TinyLM in one small file."""

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.exercises.engine.spec import Exercise, Misconception, Property
from course_lib.exercises.language_models.inventing import file_loss
from course_lib.exercises.quantization_aware.inventing import (
    Batches,
    beside,
    tiny_and_batches,
)
from course_lib.formats.aware import exported
from course_lib.formats.even_coded import EvenCoded, step_for
from course_lib.formats.linear import Codes, Scheme, nearest_codes
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.language_models.recipes import gptq_model
from course_lib.measure.size import size
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights
from course_lib.models.training import make_optimizers, rate_factor
from course_lib.pruning.masks import magnitude_pruned
from course_lib.quantization.aware import aware_model
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.even_steps import EvenSteps
from course_lib.quantization.linear import Format

BYTES, LOSS = 790_000, 1.22  # asked for: a fifth of the file in float16, and 4 % more loss
FLOOR = 1.19  # whoever is better saw the held-out text
STEPS = 60
BITS, RATE = 2.8, 0.2  # of a weight of the blocks, after Huffman's code; of TinyLM's learning rate
LIKE = 0.5
MOST = 2.3  # times: see `beside`. Files of the batches: one pass over them 1.0 to 1.6, two 1.97,
# three 1.82; of the held-out text alone 2.4 and more. Of both in turns (2.0 to 2.1) it gains no
# more than a second pass does, 0.01, and passes
EMBEDDING = "embedding.weight"


def rounded_student(model: Llama) -> tuple[Llama, Codes]:
    """A copy on even levels, its embedding at 4 bits and done with learning; the embedding."""
    codes = nearest_codes(model.embedding.weight, Scheme(Format(4), "channel", mse_range))
    step = step_for(list(linear_weights(model.blocks).values()), BITS)
    student = aware_model(model, lambda _: EvenSteps(step))
    with torch.no_grad():
        student.embedding.weight.copy_(codes.weight)
    student.embedding.requires_grad_(False)
    return student, codes


def learn(student: Llama, teacher: Llama, batches: Batches) -> None:
    """In place: a step for each batch, towards the teacher's logits."""
    distill(
        student, batches, lambda own, aim, _: soft_target_loss(own, aim), make_optimizers(student),
        teacher, lambda k: RATE * rate_factor(k, len(batches)),
    )  # fmt: skip


def as_file(student: Llama, embedding: Codes) -> dict[str, Tensor]:
    """Codes of the blocks and the embedding, norms in float16."""
    settled, schemes = exported(student)
    norms = {name for name, weight in settled.named_parameters() if weight.dim() == 1}
    return pack_model(
        settled, schemes | dict.fromkeys(norms, torch.float16) | {EMBEDDING: embedding}
    )


def small_file(model: Llama, batches: Batches) -> dict[str, Tensor]:
    """All of TinyLM, as `pack_model` of `formats.model_file` makes it, in 790,000 bytes at most.

    The bytes are those of the file that `size` of `measure.size` writes: the embedding counts, and
    norms and header do. (In float16 it has 3.94 million.) Any form that `pack_model` knows will do,
    for each tensor its own; the shapes are those of `model`, which stays as it is. batches are 60
    pairs (inputs, targets), (4, 128) each, of a text that TinyLM was trained on: take as many steps
    as you like, but there is no other text.

    Asked for: at most 1.22 bits per byte on held-out text, within four minutes. (Dense: 1.173;
    embedding at 4 bits, blocks at 3 by GPTQ, not trained: 863,000 bytes and 1.21. Less than 1.19
    would take the held-out text.)
    """
    student, embedding = rounded_student(model)
    learn(student, model, batches)
    return as_file(student, embedding)


def _is_a_file(inputs: dict, packed: dict[str, Tensor]) -> bool:
    return (
        type(packed) is dict
        and all(type(name) is str for name in packed)
        and {name.partition(":")[0] for name in packed} == inputs["model"].state_dict().keys()
        and all(torch.is_tensor(part) for part in packed.values())
        and unpack_model(packed, inputs["model"]) is not None  # or it raises
    )


def _bytes(inputs: dict, packed: dict[str, Tensor]) -> int:
    return size(packed).bytes


def _likeness(inputs: dict, packed: dict[str, Tensor]) -> float:
    """The cosine between the file's embedding and the model's; of another order it is about 0."""
    back = unpack_model(packed, inputs["model"]).embedding.weight
    return float(F.cosine_similarity(back.flatten(), inputs["model"].embedding.weight.flatten(), 0))


def _what_was_reached(inputs: dict, packed: dict[str, Tensor]) -> str:
    return (
        f"{_bytes(inputs, packed):,} bytes (asked: at most {BYTES:,}), "
        f"{file_loss(inputs, packed):.3f} bits per byte (asked: at most {LOSS}; dense: 1.173)"
    )


def _schemes(model: Llama, blocks: object, embedding_bits: int) -> dict:
    """The blocks' weights under one scheme, the embedding at some bits, norms in float16."""
    schemes = dict.fromkeys(dict(model.named_parameters()), torch.float16)
    schemes |= dict.fromkeys((f"blocks.{n}" for n in linear_weights(model.blocks)), blocks)
    return schemes | {EMBEDDING: Scheme(Format(embedding_bits), "channel", mse_range)}


def _nearest(bits: int, embedding_bits: int) -> Callable:
    scheme = Scheme(Format(bits), 64, mse_range)
    return lambda model, batches: pack_model(model, _schemes(model, scheme, embedding_bits))


def _by_gptq(model: Llama, batches: Batches) -> dict[str, Tensor]:
    tokens = torch.cat([inputs for inputs, _ in batches])
    made, codes = gptq_model(model, tokens, Scheme(Format(3), 64, mse_range), act_order=True)
    return pack_model(made, _schemes(made, torch.float16, 4) | codes)


def _coded(bits: float) -> Callable:
    """Even levels, coded, and nothing learned."""

    def made(model: Llama, batches: Batches) -> dict[str, Tensor]:
        step = step_for(list(linear_weights(model.blocks).values()), bits)
        return pack_model(model, _schemes(model, EvenCoded(step), 4))

    return made


def _zeros_in_codes(model: Llama, batches: Batches) -> dict[str, Tensor]:
    blocks = magnitude_pruned(copy.deepcopy(model), 0.5)
    return pack_model(blocks, _schemes(blocks, Scheme(Format(4), 64, mse_range), 4))


SMALL_FILE = Exercise(
    reference=small_file,
    cases=partial(tiny_and_batches, steps=STEPS, every=24),
    compare=False,
    reached=_what_was_reached,
    seconds=240.0,
    hints=(
        "Where are the bytes? The embedding has a fifth of the numbers: at 8 bits it takes half of "
        "the budget. At 4 bits with a scale for each token it takes a quarter and costs 0.009. "
        "Then count what is left for the blocks' 1.57 million weights.",
        "Codes of equal length waste bits, since small weights are many: `EvenCoded` in "
        "formats.even_coded writes even levels under Huffman's code, and step_for finds the step "
        "for so many bits. At 2.8 bits it fits. Untrained it is not good enough; what next?",
        "aware_model(model, lambda _: EvenSteps(step)) computes with those levels and learns, "
        "`distill` with soft_target_loss lets the float model teach, make_optimizers has the "
        "optimizers; a fifth of their rate will do. Put the rounded embedding in before, and let "
        "it rest. pack_model(*exported(…)) writes the file, with schemes for embedding and norms.",
    ),
    properties=(
        Property(
            "a file of TinyLM's names, of tensors, that `unpack_model` can read",
            _is_a_file,
            form=True,
        ),
        Property(
            "a file of the model that was given: the tokens' vectors are about what they were",
            lambda inputs, packed: _likeness(inputs, packed) >= LIKE,
        ),
        Property(
            f"the file takes at most {BYTES:,} bytes",
            lambda inputs, packed: _bytes(inputs, packed) <= BYTES,
        ),
        Property(
            f"the model that the file gives back needs at most {LOSS} bits per byte",
            lambda inputs, packed: file_loss(inputs, packed) <= LOSS,
        ),
        Property(
            f"it needs {FLOOR} bits per byte or more: less takes the held-out text",
            lambda inputs, packed: not file_loss(inputs, packed) < FLOOR,
        ),
        Property(
            "made of the batches, not of the held-out text: what the file costs in loss is not far "
            "less on the latter",
            lambda inputs, packed: not beside(inputs, packed) > MOST,
        ),
    ),
    misconceptions=(
        Misconception(
            "the embedding forgotten",
            _nearest(3, 8),
            "the blocks are at 3 bits, and the embedding at 8: that alone is 400,000 bytes.",
        ),
        Misconception(
            "GPTQ alone",
            _by_gptq,
            "GPTQ's codes of 3 bits are good enough, and too many: each takes 3 bits, however "
            "often it occurs. Codes that come often may be shorter.",
        ),
        Misconception(
            "coded, and nothing learned",
            _coded(BITS),
            "the file is small enough, and no weight has learned to live on its level.",
        ),
        Misconception(
            "too coarse",
            _coded(2.0),
            "the file is far below the budget: there are bits left, and the loss shows it.",
        ),
        Misconception(
            "zeros in codes of equal length",
            _zeros_in_codes,
            "half of the weights are zero, and each zero takes 4 bits, like any other code.",
        ),
    ),
)
