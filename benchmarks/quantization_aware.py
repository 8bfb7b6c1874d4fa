"""Quantization-aware training: what a step costs, and what TinyLM is worth at few bits.

    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware           a step beside a float step
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware tinylm    some 45 CPU minutes a seed
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware adaround  beside GPTQ, 5 CPU minutes

The second rounds TinyLM's 28 linear layers, leaves embedding and norms, and trains all of it at
equal steps on equal windows: rounded after training, QAT, QAT with the float teacher, and the
float controls that are trained just as long. Times are CPU seconds of one thread, the median; the
sides take turns.
"""

import copy
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measuring import cpu_seconds, report
from course_lib.data.batches import random_windows
from course_lib.data.text import bible_chapters, split
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.formats.aware import exported
from course_lib.formats.linear import Codes, Scheme, fit_stored, nearest_codes
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.language_models.gptq import gptq
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models.llama import Llama
from course_lib.models.moments import Moments, output_error
from course_lib.models.parts import record_inputs
from course_lib.models.pretrained import tiny
from course_lib.models.training import make_optimizers, rate_factor
from course_lib.quantization.aware import aware_model
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format
from course_lib.quantization.rounding import adaround
from course_lib.quantization.roundings import LearnedStep, OnGrid, ToSigns
from course_lib.quantization.rows import to_rows
from course_lib.quantization.ternary import absmean_signs, best_signs

STEPS, WINDOWS, LENGTH, SEEDS = 200, 4, 256, (0, 1, 2)
RATE = 0.1  # of the rate that TinyLM was trained with
QUANTIZERS = {
    "8 bits, learned step": partial(LearnedStep, format=Format(8)),
    "4 bits, learned step": partial(LearnedStep, format=Format(4)),
    "3 bits, learned step": partial(LearnedStep, format=Format(3)),
    "2 bits, learned step": partial(LearnedStep, format=Format(2)),
    "1.58 bits, best signs": lambda weight: ToSigns(best_signs),
}


def text_tokens() -> Tensor:
    """The chapters that TinyLM was trained on."""
    _, tokenizer = tiny()
    return torch.tensor(tokenizer.encode(split(bible_chapters("kjv"))[0]).ids)


def loss_of(student: Tensor, teacher: Tensor | None, targets: Tensor) -> Tensor:
    """Soft targets where there is a teacher, else cross-entropy."""
    if teacher is not None:
        return soft_target_loss(student, teacher)
    return F.cross_entropy(student.flatten(0, 1), targets.flatten())


def trained(
    model: Llama, batches: Sequence[tuple], teacher: nn.Module | None = None, rate: float = RATE
) -> Llama:
    """The model, trained in place."""
    factor = lambda step: rate * rate_factor(step, len(batches))  # noqa: E731
    distill(model.requires_grad_(), batches, loss_of, make_optimizers(model), teacher, factor)
    return model


def step_table() -> None:
    """CPU seconds of a training step, forward, backward and update, by what is rounded."""
    teacher, _ = tiny()
    generator = torch.Generator().manual_seed(0)
    batch = [random_windows(text_tokens(), WINDOWS, LENGTH, generator)]
    makers = {
        "learned step": QUANTIZERS["4 bits, learned step"],
        "fixed grid": partial(OnGrid, format=Format(4)),
        "best signs": QUANTIZERS["1.58 bits, best signs"],
        "absmean": lambda weight: ToSigns(absmean_signs, "tensor"),
    }
    plain = copy.deepcopy(teacher)
    for name, make in makers.items():
        aware = aware_model(teacher, make)
        sides: dict[str, Callable] = {
            name: partial(trained, aware, batch),
            "float": partial(trained, plain, batch),
        }
        cpu_seconds(sides, 2)
        report("a training step of TinyLM, 1024 tokens", cpu_seconds(sides, 9), 1.5)


def tinylm_table(seeds: Sequence[int] = SEEDS) -> None:
    """Bits per byte on the held-out sample and the file's bytes, each seed."""
    teacher, tokenizer = tiny()
    tokens = text_tokens()
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        batches = [random_windows(tokens, WINDOWS, LENGTH, generator) for _ in range(STEPS)]
        for name, quantizer in {"float": None, **QUANTIZERS}.items():
            made = aware_model(teacher, quantizer) if quantizer else copy.deepcopy(teacher)
            values = [tiny_quality(made, tokenizer).bits_per_byte]
            for taught in (None, teacher):
                student = trained(copy.deepcopy(made), batches, taught)
                plain, schemes = exported(student)
                packed = pack_model(plain, schemes)
                loaded = unpack_model(packed, teacher)
                values.append(tiny_quality(loaded, tokenizer).bits_per_byte)
            print(
                f"seed {seed}  {name:24} before {values[0]:.3f}, after {STEPS} steps "
                f"{values[1]:.3f}, with the teacher {values[2]:.3f}  {size(packed).bytes:,} bytes",
                flush=True,
            )


def adaround_table() -> None:
    """The output's error over that of nearest: AdaRound and GPTQ on the same layers and grids."""
    model, tokenizer = tiny()
    names = [f"blocks.{n}.{part}" for n in (0, 3) for part in ("attention.query", "mlp.down")]
    layers = [model.get_submodule(name) for name in names]
    seen = record_inputs(model, tiny_calibration(tokenizer, 16), layers)
    for bits in (2, 3, 4):
        for name, layer, x in zip(names, layers, seen, strict=True):
            weight, gram = layer.weight.detach(), Moments.empty(x.shape[1]).add(x).gram
            scheme = Scheme(Format(bits), "channel", mse_range)
            grid = fit_stored(to_rows(weight, "channel"), scheme)
            sides = {
                "GPTQ": gptq(weight, gram, grid),
                "GPTQ, act order": gptq(weight, gram, grid, act_order=True),
                "AdaRound": Codes(adaround(weight, gram, grid), grid),
            }
            nearest = output_error(weight - nearest_codes(weight, scheme).weight, gram).sum()
            shares = {
                side: float(output_error(weight - codes.weight, gram).sum() / nearest)
                for side, codes in sides.items()
            }
            found = ", ".join(f"{side} {share:.3f}" for side, share in shares.items())
            print(f"{bits} bits, {name:24} {found}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    single = {"tinylm": tinylm_table, "adaround": adaround_table}
    if sys.argv[1:]:
        sys.exit(single[sys.argv[1]]() if sys.argv[1] in single else f"one of {', '.join(single)}")
    step_table()
