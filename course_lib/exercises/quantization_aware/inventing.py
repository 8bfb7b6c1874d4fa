"""Exercise of 07_quantization_aware: TinyLM at two bits a weight, in forty steps.

Axes: B windows, T tokens of a window, D model width.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.text import bible_chapters, split
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.exercises.language_models.inventing import (
    file_bits,
    file_loss,
    loss_beside,
    shuffled,
)
from course_lib.formats.aware import exported
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.language_models.recipes import gptq_model, nearest_model
from course_lib.models import pretrained
from course_lib.models.llama import Llama
from course_lib.models.parts import embed, linear_weights
from course_lib.models.tokenizer import tokens_of
from course_lib.models.training import follow_rate, next_token_loss, train
from course_lib.quantization.aware import aware_model
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format
from course_lib.quantization.roundings import LearnedStep

# Bits per byte, of three orders of the batches: each weight at its nearest level 1.66; GPTQ 1.40;
# trained on the text, 1.399; on the teacher's logits, 1.346; on what its blocks give as well, 1.292
# to 1.304; from GPTQ's codes on, 1.284.
BITS, LOSS = 2.125, 1.33  # asked for; codes, scales, zero-points and headers are 2.121
FLOOR = 1.22  # whoever is better took many more steps (with twice as many: 1.257), or saw the text
STEPS, WINDOWS, LENGTH = 40, 4, 128
RATE = 2.5e-3
SEEN = 8  # batches that are looked at
MOST = 1.45  # times: see `beside`. Files of the batches: at most 1.21; with held-out text in one
# batch of eight 1.61, of three 2.12

Batches = list[tuple[Tensor, Tensor]]


class Watched(nn.Module):
    """A Llama whose output is (logits, what each block gives), (B, T, V) and L times (B, T, D)."""

    def __init__(self, model: Llama):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, *tables = embed(self.model, tokens)
        made = []
        for block in self.model.blocks:
            x = block(x, *tables)
            made.append(x)
        return F.linear(self.model.norm(x), self.model.embedding.weight), made


def two_bit_model(model: Llama) -> Llama:
    """A copy that computes with 2 bits a weight and learns all but its embedding."""
    aware = aware_model(model, partial(LearnedStep, format=Format(2)))
    aware.embedding.requires_grad_(False)
    return aware


def imitate(student: Llama, teacher: Llama, batches: Batches) -> None:
    """In place: a step for each batch, towards the teacher's logits and what its blocks give."""

    def loss(own: tuple, aim: tuple, targets: Tensor) -> Tensor:
        pairs = zip(own[1], aim[1], strict=True)
        apart = [F.mse_loss(a, b) / b.square().mean() for a, b in pairs]
        return soft_target_loss(own[0], aim[0]) + 5 * sum(apart)

    optimizers = [_optimizer(student)]
    distill(Watched(student), batches, loss, optimizers, Watched(teacher), _share)


def _optimizer(student: Llama) -> torch.optim.Optimizer:
    learning = [p for p in student.parameters() if p.requires_grad]
    return torch.optim.AdamW(learning, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)


def _share(step: int) -> float:
    """Of the learning rate: up over four steps, flat, and down over the second half."""
    return min(1.0, (step + 1) / 4, (STEPS - step) / (STEPS / 2))


def two_bits(model: Llama, batches: Batches) -> dict[str, Tensor]:
    """TinyLM as a file holds it, its linear layers in 2.125 bits a weight, trained in 40 steps.

    `pack_model` of `formats.model_file` makes such a file, and `exported` of `formats.aware` makes
    what it needs of an aware model. All parts of the 28 linear weights, scales and the file's
    header included, take at most 2.125 bits a weight. The embedding stays, bit for bit; the norms
    may learn, and are float32. model is the float TinyLM, which stays as it is. batches are 40
    pairs (inputs, targets), (4, 128) each, of a text that TinyLM was trained on: each batch is for
    one step, and there is no other text.

    Asked for: at most 1.33 bits per byte on held-out text, within two minutes. (Dense: 1.173;
    rounded to 2 bits: 1.66; by GPTQ: 1.40; trained on the batches' targets: 1.40. Less than 1.22
    would take more steps, or the held-out text.)
    """
    student = two_bit_model(model)
    imitate(student, model, batches)
    return pack_model(*exported(student))


def tiny_and_batches(seed: int, steps: int, every: int) -> list[Case]:
    """TinyLM, and a batch for each step, of every so manyth chapter that it was trained on.

    One text for all seeds, in another order: that moves the loss that is reached by 0.01.
    """
    draw, (model, tokenizer) = Draw(seed), pretrained.tiny()
    chapters = split(bible_chapters("kjv"))[0].split("\n\n")
    tokens = tokens_of(tokenizer, "\n\n".join(chapters[::every]))
    shape = steps * WINDOWS, LENGTH + 1
    windows = tokens[: math.prod(shape)].view(shape)  # (N,) -> (steps · B, T + 1)
    batches = windows[draw.order(len(windows))].split(WINDOWS)
    inputs = {
        "model": shuffled(model, draw),
        "batches": [(batch[:, :-1], batch[:, 1:]) for batch in batches],
    }
    return [Case("TinyLM, its channels and hidden units in another order", inputs)]


def _is_a_file(inputs: dict, packed: dict[str, Tensor]) -> bool:
    """Parts of the 28 weights, and the embedding and the norms as they are named in the model."""
    model = inputs["model"]
    rest = model.state_dict().keys() - linear_weights(model).keys()
    return (
        type(packed) is dict  # asked first: a long tensor is large once it is gone through
        and {name.partition(":")[0] for name in packed} == model.state_dict().keys()
        and all(torch.is_tensor(part) for part in packed.values())
        and all(packed[name].dtype == torch.float32 for name in rest)
        and packed["embedding.weight"].equal(model.embedding.weight.cpu())
    )


def beside(inputs: dict, packed: dict[str, Tensor]) -> float:
    """See `loss_beside`; the text that was given is that of the first batches."""
    seen = tuple(torch.cat(parts) for parts in zip(*inputs["batches"][:SEEN], strict=True))
    return loss_beside(unpack_model(packed, inputs["model"]), inputs["model"], seen)


def _what_was_reached(inputs: dict, packed: dict[str, Tensor]) -> str:
    return (
        f"{file_bits(inputs, packed):.3f} bits a weight (asked: at most {BITS}), "
        f"{file_loss(inputs, packed):.3f} bits per byte (asked: at most {LOSS}; dense: 1.173)"
    )


def _rounded(bits: int):
    """Every weight at its nearest level, in ranges of least squared error."""
    scheme = Scheme(Format(bits), "channel", mse_range)
    return lambda model, batches: pack_model(*nearest_model(model, scheme))


def _by_gptq(model, batches):
    tokens = torch.cat([inputs for inputs, _ in batches])
    return pack_model(*gptq_model(model, tokens, Scheme(Format(2), "channel", mse_range)))


def _by_the_text(model, batches):
    student = two_bit_model(model)
    optimizer = _optimizer(student)
    train(student, batches, next_token_loss, [optimizer], follow_rate([optimizer], _share))
    return pack_model(*exported(student))


def _in_floats(model, batches):
    rounded, _ = nearest_model(model, Scheme(Format(2), "channel", mse_range))
    return pack_model(rounded, every_linear(rounded, torch.float16))


TWO_BITS = Exercise(
    reference=two_bits,
    cases=partial(tiny_and_batches, steps=STEPS, every=48),
    compare=False,
    reached=_what_was_reached,
    seconds=120.0,
    hints=(
        "aware_model(model, partial(LearnedStep, format=Format(2))) computes with 2 bits a weight, "
        "and pack_model(*exported(…)) fits. Trained on the targets it comes to 1.40, where GPTQ is "
        "without a step: 5,120 words of text tell little. Who can say more about each of them?",
        "The float model gives a whole distribution for each token: as a teacher, with "
        "distill(…, soft_target_loss, …), it brings 1.346. Take a rate of 2e-3 and more, and let "
        "it fall to 0 over the second half. What else does the teacher compute on the way, that "
        "the student has to compute as well?",
        "What each block gives, (B, T, D). Student and teacher have the same widths, so compare "
        "them block by block: loss = soft_target_loss + 5 · Σ over blocks of mean (a − b)² / mean "
        "b². A module whose forward returns both, logits and the blocks' outputs, will do for "
        "distill: 1.30. To start at GPTQ's codes gives 0.01 more.",
    ),
    properties=(
        Property(
            "a file of TinyLM's names, the embedding as it was, and the norms in float32",
            _is_a_file,
            form=True,
        ),
        Property(
            "the linear layers take at most 2.125 bits a weight",
            lambda inputs, packed: file_bits(inputs, packed) <= BITS,
        ),
        Property(
            "the model that the file gives back needs at most 1.33 bits per byte, and not less "
            "than 1.22: that takes more than 40 steps",
            lambda inputs, packed: FLOOR <= file_loss(inputs, packed) <= LOSS,
        ),
        Property(
            "made of the batches, not of the held-out text: what the file costs in loss is not far "
            "less on the latter",
            lambda inputs, packed: beside(inputs, packed) <= MOST,
        ),
    ),
    misconceptions=(
        Misconception(
            "rounded, and nothing learned",
            _rounded(2),
            "every weight went to its nearest level, and none has learned. Let the model compute "
            "with the levels while it trains: the weights behind them stay floats.",
        ),
        Misconception(
            "GPTQ alone",
            _by_gptq,
            "GPTQ chose the codes, layer by layer, and nothing was trained. At 2 bits that is "
            "where a training on the text ends, too; it is a good place to start.",
        ),
        Misconception(
            "three bits",
            _rounded(3),
            "the loss is low enough, and the file is too large: 3.1 bits a weight.",
        ),
        Misconception(
            "rounded, and stored as floats",
            _in_floats,
            "the weights lie on four levels, but the file holds 16 bits for each. `exported` gives "
            "the codes and `pack_model` packs them.",
        ),
        Misconception(
            "the text alone",
            _by_the_text,
            "trained through the rounding, on the text's next tokens. In forty steps they say "
            "little. The float model knows more about each of them: let it teach.",
        ),
    ),
)
