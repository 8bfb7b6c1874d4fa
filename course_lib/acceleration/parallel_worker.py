"""What runs inside a worker: its end of the wire, and the two ways of running a shared-out model.

A worker is a process of its own (`workers.Workers`). It imports this module by name: a function
from a notebook's cell it could not import.

Axes: B texts, T tokens, D model width, V vocabulary.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from course_lib.models.llama import Llama
from course_lib.models.parts import embed, read_logits


@dataclass(frozen=True)
class Traffic:
    """What a worker handed to the wire: in an all-reduce, the tensor that it gave to be summed.

    A ring of n workers then moves 2 (n − 1) / n of these bytes from each: with two, just as many.
    """

    messages: int
    bytes: int


@dataclass(frozen=True)
class Span:
    """When a stage worked on a micro-batch, in seconds."""

    stage: int
    micro_batch: int
    start: float
    stop: float

    def since(self, zero: float) -> "Span":
        """The same, counted from another moment."""
        return replace(self, start=self.start - zero, stop=self.stop - zero)


class Wire:
    """One worker's end of the connections between all; it counts what it sends."""

    def __init__(self, rank: int, workers: int):
        self.rank, self.workers = rank, workers
        self._sent: list[int] = []  # bytes
        self._under_way: list[tuple[dist.Work, Tensor]] = []

    def sum(self, x: Tensor) -> Tensor:
        """Σ of the workers' x, to all of them (all-reduce)."""
        x = x.contiguous()
        self._sent.append(x.nbytes)
        dist.all_reduce(x)
        return x

    def send(self, x: Tensor, to: int) -> None:
        """x to one worker; who sends does not wait until it has come."""
        x = x.contiguous()
        self._sent.append(x.nbytes)
        self._under_way.append((dist.isend(x, to), x))

    def receive(self, like: Tensor, source: int) -> Tensor:
        """What another worker sends, of the shape and dtype of `like`."""
        x = torch.empty_like(like)
        dist.recv(x, source)
        return x

    def finish(self) -> Traffic:
        """Wait until all has arrived; what was sent since the last time."""
        for work, _ in self._under_way:
            work.wait()
        traffic = Traffic(len(self._sent), sum(self._sent))
        self._sent, self._under_way = [], []
        return traffic


@torch.no_grad()
def summed_logits(wire: Wire, share: Llama, tokens: Tensor) -> tuple[Tensor, Traffic]:
    """Logits (B, T, V) of the whole model by a worker that has a share of each layer."""
    x, cos, sin = embed(share, tokens)
    for block in share.blocks:
        x = x + wire.sum(block.attention(block.attention_norm(x), cos, sin))
        x = x + wire.sum(block.mlp(block.mlp_norm(x)))
    return read_logits(share, x), wire.finish()


@torch.no_grad()
def stage_logits(
    wire: Wire, stage: Llama, micro_batches: Sequence[Tensor]
) -> tuple[list[Tensor], Traffic, list[Span]]:
    """Some layers' turn at each micro-batch (B, T): logits (B, T, V), if they are the last ones."""
    logits, spans = [], []
    for number, tokens in enumerate(micro_batches):
        x, cos, sin = embed(stage, tokens)
        if wire.rank > 0:
            x = wire.receive(x, wire.rank - 1)
        start = time.perf_counter()
        for block in stage.blocks:
            x = block(x, cos, sin)
        if wire.rank + 1 < wire.workers:
            wire.send(x, wire.rank + 1)
        else:
            logits.append(read_logits(stage, x))
        spans.append(Span(wire.rank, number, start, time.perf_counter()))
    return logits, wire.finish(), spans
