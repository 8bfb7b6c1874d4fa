"""The least time that a piece of work can take: that of its bytes, or that of its operations.

A processor reads β bytes and does π operations a second, both at once. Work that moves Q bytes and
does W operations takes at least

    seconds ≥ max(Q / β, W / π)

W / Q is the work's intensity. Below π / β, the ridge, memory decides; above it, arithmetic. Drawn
over the intensity, the operations a second that can be reached, min(π, β · W / Q), look like a
roof. `work` counts Q and W.

Source: Williams, Waterman and Patterson, 2009, "Roofline: An Insightful Visual Performance Model
for Multicore Architectures".
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.acceleration.work import Work

READ = 2**25  # float32 numbers, 128 MiB: as slow as 1 GiB where we measured


@dataclass(frozen=True)
class Machine:
    """bandwidth: β, bytes a second. peak: π, operations a second, of one kind of number.

    >>> Machine(bandwidth=20e9, peak=100e9).ridge
    5.0
    """

    bandwidth: float
    peak: float

    def __post_init__(self):
        if not (self.bandwidth > 0 and self.peak > 0):
            raise ValueError(f"bandwidth and peak must be above 0; got {self}")

    @property
    def ridge(self) -> float:
        """π / β, operations a byte: the intensity from which arithmetic decides."""
        return self.peak / self.bandwidth


def bound(work: Work, machine: Machine) -> float:
    """The least seconds: max(Q / β, W / π).

    >>> bound(Work(bytes=100, operations=300), Machine(bandwidth=10, peak=100))
    10.0
    """
    return max(work.bytes / machine.bandwidth, work.operations / machine.peak)


def intensity(work: Work) -> float:
    """W / Q, operations a byte.

    >>> intensity(Work(bytes=100, operations=300))
    3.0
    """
    return work.operations / work.bytes


def measure_machine(
    dtype: torch.dtype = torch.float32,
    seconds: float = 1.0,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Machine:
    """β and π as this machine shows them at its best: the fastest of many short tries.

        β    a float32 matrix of 128 MiB times a vector: nothing reads weights faster
        π    a product of two square matrices of `dtype`; int8 ones are summed in int32

    So a roof is what others reached here, not what a data sheet says. As many threads work as
    PyTorch has.

    Args:
        dtype: float32, bfloat16, float16, int8, …: of the numbers that are multiplied.
        seconds: how long to try, about; half of it for each.
        device: where.
        clock: what counts seconds. On a busy machine take `time.process_time`, with one thread.

    Raises:
        ValueError: seconds not above 0.

    >>> machine = measure_machine(seconds=0.01)
    >>> machine.bandwidth > 1e6 and machine.peak > 1e6
    True
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be above 0; got {seconds}")
    side = 1024 if torch.device(device).type == "cpu" else 4096
    numbers = torch.ones(READ, device=device).view(-1, 8192)
    vector = torch.ones(8192, device=device)
    square = torch.ones(side, side, device=device).to(dtype)
    product = torch._int_mm if dtype == torch.int8 else torch.matmul
    reading = _fastest(lambda: numbers @ vector, seconds / 2, clock, numbers)
    multiplying = _fastest(lambda: product(square, square.T), seconds / 2, clock, square)
    return Machine(numbers.nbytes / reading, 2 * side**3 / multiplying)


def _fastest(
    function: Callable[[], Tensor], budget: float, clock: Callable[[], float], like: Tensor
) -> float:
    """Seconds of the fastest call within a budget of seconds; three calls at least."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget:
        start = clock()
        function()
        if like.device.type != "cpu":
            torch.accelerator.synchronize(like.device)
        times.append(max(clock() - start, 1e-9))
    return min(times)
