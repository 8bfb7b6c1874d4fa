"""Quantization-aware training: what a step costs, and what TinyLM is worth at few bits.

    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware                  42 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware tinylm [seed …]  6 CPU minutes a seed
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware half_width       5.5 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware longer           7 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware adaround         96 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware sensitivity      130 CPU seconds

The first prints the cost of a training step, beside that of a float step; the sides take turns.

The second rounds TinyLM's 28 linear layers, leaves embedding and norms, and trains all of it: 100
steps of 4 windows of 128 tokens, the same for all, on the text that TinyLM was trained on. Losses
are bits per byte of what the file gives back, on `yardstick.held_out_sample`. Bits a weight count
all that the file holds for the linear layers, scales too. What the seed draws is the windows.

A rate is a share of the one that TinyLM was trained with. It was chosen for each number of bits
among 0.03, 0.1, 0.3 and 0.6, by one run each on windows of another seed; float is trained with each
of those that were chosen.

`half_width` and `longer` are in `benchmarks.half_width`, `adaround` and `sensitivity` in
`benchmarks.rounded_layers`.
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
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.llama import Llama
from course_lib.models.parts import linear_weights
from course_lib.models.pretrained import tiny
from course_lib.models.training import make_optimizers, rate_factor
from course_lib.quantization.aware import aware_model
from course_lib.quantization.linear import Format
from course_lib.quantization.roundings import LearnedStep, OnGrid, ToSigns
from course_lib.quantization.ternary import absmean_signs, best_signs

STEPS, WINDOWS, LENGTH = 100, 4, 128
Quantizer = Callable[[Tensor], nn.Module]
RATES = (0.03, 0.1, 0.3)


def learned(bits: int) -> Quantizer:
    """A learned step a channel."""
    return partial(LearnedStep, format=Format(bits))


def best_ternary(weight: Tensor) -> ToSigns:
    """−α, 0, α of the least squared error, one α a channel."""
    return ToSigns(best_signs)


def absmean(weight: Tensor) -> ToSigns:
    """BitNet b1.58's, one α a matrix."""
    return ToSigns(absmean_signs, "tensor")


QUANTIZERS: dict[str, tuple[Quantizer, float]] = {
    "8 bits, learned step": (learned(8), 0.03),
    "4 bits, learned step": (learned(4), 0.03),
    "3 bits, learned step": (learned(3), 0.1),
    "2 bits, learned step": (learned(2), 0.3),
    "ternary, best signs": (best_ternary, 0.3),
    "ternary, absmean": (absmean, 0.3),
}


def text_tokens() -> Tensor:
    """The chapters that TinyLM was trained on."""
    _, tokenizer = tiny()
    return torch.tensor(tokenizer.encode(split(bible_chapters("kjv"))[0]).ids)


def drawn_batches(tokens: Tensor, seed: int, steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    """Windows of the text, at random."""
    generator = torch.Generator().manual_seed(seed)
    return [random_windows(tokens, WINDOWS, LENGTH, generator) for _ in range(steps)]


def loss_of(student: Tensor, teacher: Tensor | None, targets: Tensor) -> Tensor:
    """Soft targets where there is a teacher, else cross-entropy."""
    if teacher is not None:
        return soft_target_loss(student, teacher)
    return F.cross_entropy(student.flatten(0, 1), targets.flatten())


def trained(
    model: Llama, batches: Sequence[tuple], rate: float, teacher: nn.Module | None = None
) -> Llama:
    """A copy of the model, trained."""
    model = copy.deepcopy(model).requires_grad_()
    distill(
        model, batches, loss_of, make_optimizers(model), teacher,
        lambda step: rate * rate_factor(step, len(batches)),
    )  # fmt: skip
    return model


def from_file(model: Llama, like: Llama) -> tuple[Llama, float, int]:
    """What the packed file gives back; bits a weight of the linear layers; bytes of the file."""
    packed = pack_model(*exported(model))
    weights = linear_weights(like)
    stored = sum(part.nbytes for key, part in packed.items() if key.partition(":")[0] in weights)
    bits = 8 * stored / sum(weight.numel() for weight in weights.values())
    return unpack_model(packed, like), bits, size(packed).bytes


def step_table() -> None:
    """CPU seconds of a training step, forward, backward and update, by what is rounded."""
    teacher, _ = tiny()
    tokens = text_tokens()
    makers = {
        "learned step, 4 bits": learned(4),
        "fixed grid, 4 bits": partial(OnGrid, format=Format(4)),
        "ternary, best signs": best_ternary,
        "ternary, absmean": absmean,
    }

    def step(model: Llama, batch: tuple, optimizers: list[torch.optim.Optimizer]) -> None:
        distill(model, [batch], loss_of, optimizers)

    for length in (128, 256):
        batch = random_windows(tokens, WINDOWS, length, torch.Generator().manual_seed(0))
        models = {name: aware_model(teacher, make) for name, make in makers.items()}
        models["float"] = copy.deepcopy(teacher).requires_grad_()
        sides = {n: partial(step, m, batch, make_optimizers(m)) for n, m in models.items()}
        cpu_seconds(sides, 2)
        seconds = cpu_seconds(sides, 9)
        for name in makers:
            both = {name: seconds[name], "float": seconds["float"]}
            title = f"a training step of TinyLM, {WINDOWS * length} tokens"
            report(title, both, 1.5, method=name)


def tinylm_table(*seeds: str) -> None:
    """Bits per byte before and after training, alone and with the float model as the teacher."""
    teacher, tokenizer = tiny()
    tokens = text_tokens()

    def loss(model: Llama) -> float:
        return tiny_quality(model, tokenizer).bits_per_byte

    print(f"seed  {'':22} rate  before   after  taught  bits a weight  bytes of the file")
    for seed in map(int, seeds or "012"):
        batches = drawn_batches(tokens, seed)
        for rate in RATES:
            after = loss(trained(teacher, batches, rate))
            print(
                f"{seed:4}  {'float':22} {rate:.2f}  {loss(teacher):.4f}  {after:.4f}", flush=True
            )
        for name, (quantizer, rate) in QUANTIZERS.items():
            aware = aware_model(teacher, quantizer)
            made = (aware, trained(aware, batches, rate), trained(aware, batches, rate, teacher))
            files = [from_file(model, teacher) for model in made]
            losses = "  ".join(f"{loss(loaded):.4f}" for loaded, _, _ in files)
            _, bits, count = files[-1]
            print(
                f"{seed:4}  {name:22} {rate:.2f}  {losses}  {bits:13.3f}  {count:17,}", flush=True
            )


def main(name: str = "step", *arguments: str) -> None:
    """The table of that name."""
    from benchmarks import half_width, rounded_layers

    tables: dict[str, Callable[..., None]] = {
        "step": step_table,
        "tinylm": tinylm_table,
        "half_width": half_width.table,
        "longer": half_width.longer_table,
        "adaround": rounded_layers.adaround_table,
        "sensitivity": rounded_layers.sensitivity_table,
    }
    if name not in tables:
        sys.exit(f"one of {', '.join(tables)}; got {name}")
    tables[name](*arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
