"""Distillation: a student of TinyLM alone and with its teacher; the loss beside PyTorch's.

    OMP_NUM_THREADS=1 python -m benchmarks.distillation student     9 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.distillation beginning   9 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.distillation loss

The first prints the table that 08_distillation quotes, the second the same for a student who reads
the beginning of the Bible alone. Equal time is equal CPU time on one thread.
"""

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.measuring import cpu_seconds, extra_bytes, in_a_fresh_process, report
from course_lib.data.batches import consecutive_windows
from course_lib.data.text import bible_chapters, split
from course_lib.distillation.cache import ask_teacher
from course_lib.distillation.fused import fused_mixed_loss
from course_lib.distillation.language import BATCH, new_student, train_student
from course_lib.measure.yardstick import tiny_quality
from course_lib.models import pretrained
from course_lib.models.tokenizer import tokens_of

STEPS, LENGTH, SEEDS, KEPT = 300, 64, (0, 1, 2), 32


def student_table(apart: int = 7) -> None:
    """Bits per byte of the student on the held-out sample, by what it learned from.

    Args:
        apart: every so many windows of the training text one is read: with 7 they come from all
            over the text, with 1 from its beginning.
    """
    teacher, tokenizer = pretrained.tiny()
    train_text, _ = split(bible_chapters("kjv"))
    tokens = tokens_of(tokenizer, train_text)
    inputs, targets = (w[::apart][: STEPS * BATCH] for w in consecutive_windows(tokens, LENGTH))
    assert len(inputs) == STEPS * BATCH
    few = (inputs[::10], targets[::10])
    start = time.process_time()
    kept = ask_teacher(teacher, inputs, KEPT)
    print(f"cache of {inputs.numel():,} tokens: {time.process_time() - start:.1f} s, ", end="")
    print(f"{kept.bytes / 1e6:.1f} MB", flush=True)
    step_seconds = {}
    for seed in SEEDS:
        for name, windows, options, steps in (
            ("alone", (inputs, targets), {}, STEPS),
            ("online, equal time", (inputs, targets), {"teacher": teacher}, STEPS),
            ("cached", (inputs, targets), {"kept": kept}, STEPS),
            ("alone, a tenth of the text", few, {}, STEPS),
            ("the same, stopped at its best", few, {}, 120),
            ("cached, a tenth of the text", few, {"kept": kept[::10]}, STEPS),
        ):
            if "teacher" in options:
                train_student(new_student(9), windows, 20, teacher)  # only to be timed
                start = time.process_time()
                train_student(new_student(9), windows, 20, teacher)
                steps = round(STEPS * step_seconds["alone"] * 20 / (time.process_time() - start))
            student, start = new_student(seed), time.process_time()
            train_student(student, windows, steps, seed=seed, **options)
            spent = time.process_time() - start
            step_seconds[name] = spent / steps
            value = tiny_quality(student, tokenizer).bits_per_byte
            print(f"seed {seed}  {name:30} {steps} steps  {spent:5.1f} s  {value:.3f}", flush=True)


def logits_and_labels() -> tuple:
    """512 examples of 8192 classes."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(512, 8192, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher, torch.randint(8192, (512,), generator=generator)


def ours(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> None:
    """This library's loss and its gradient."""
    student.grad = None
    fused_mixed_loss(student, teacher, labels, 4.0, 0.7).backward()


def peer(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> None:
    """The same with PyTorch's cross_entropy and kl_div."""
    student.grad = None
    soft = F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean")
    (0.3 * F.cross_entropy(student, labels) + 0.7 * 16 * soft).backward()


def extra_memory(function: Callable) -> int:
    """By how many bytes a fresh process's peak memory grows during one call."""
    inputs = logits_and_labels()
    small = [x.detach()[:2].clone() for x in inputs]
    function(small[0].requires_grad_(), *small[1:])  # loads what is loaded once
    return extra_bytes(function, *inputs)


def loss_table() -> None:
    """CPU seconds and extra memory of forward and backward, 512 × 8192."""
    memory = [in_a_fresh_process(extra_memory, function) for function in (ours, peer)]
    inputs = logits_and_labels()
    gradients = []
    for function in (ours, peer):
        function(*inputs)
        gradients.append(inputs[0].grad)
    assert torch.allclose(*gradients, atol=1e-8)
    sides = {"course_lib": lambda: ours(*inputs), "PyTorch": lambda: peer(*inputs)}
    same = {"quality": (0, 0), "unit": "gradients differ", "more": False}
    title = "cross-entropy and KL, 512 × 8192, forward and backward"
    told = {"method": "distillation's loss", "memory": memory, "memory_goal": 0.7} | same
    report(title, cpu_seconds(sides, repeats=15), 1.0, **told)


if __name__ == "__main__":
    tables = {
        "student": student_table,
        "beginning": lambda: student_table(apart=1),
        "loss": loss_table,
    }
    if len(sys.argv) != 2 or sys.argv[1] not in tables:
        sys.exit(f"which table? python -m benchmarks.distillation {' | '.join(tables)}")
    tables[sys.argv[1]]()
