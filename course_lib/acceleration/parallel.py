"""One model in several processes: cut across every layer, or between layers.

Tensor parallel: each worker has a part of every layer. The first matrix of a pair is cut by its
outputs, the second by its inputs, and nothing need be said in between:

    W₂ f(W₁ x) = Σ_w W₂[:, w] f(W₁[w, :] x)

so a block needs two sums over the workers (all-reduce): one behind the attention, whose heads are
shared out, one behind the MLP, whose units are. A worker's part is a model with fewer heads and
units: what `pruning.decoder` makes. Pruning throws the other part away, this adds it back.

Pipeline parallel: each worker has some whole layers, a stage. x is sent on once per stage. One
batch alone would keep one stage busy at a time, so it is cut into m micro-batches that follow each
other. At s stages they need m + s − 1 ticks, and s − 1 of a stage's ticks are idle: the bubble is
(s − 1) / (m + s − 1).

Only the first makes one token come sooner, and it talks 2 L times a pass. The second gives more
tokens a second, not a sooner one.

Sources: Shoeybi et al., 2019, "Megatron-LM: Training Multi-Billion Parameter Language Models Using
Model Parallelism"; Huang et al., 2019, "GPipe: Efficient Training of Giant Neural Networks using
Pipeline Parallelism".

Axes: B texts, T tokens, D model width, V vocabulary, L layers, H query heads, G key-value heads,
F hidden units, I inputs, O outputs, s stages, m micro-batches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.acceleration.parallel_worker import Span, Traffic, stage_logits, summed_logits
from course_lib.acceleration.workers import Workers
from course_lib.models.layers import view_without_layers
from course_lib.models.llama import Llama
from course_lib.pruning.decoder import shrink_heads, shrink_mlps, whole_groups


@dataclass(frozen=True)
class Parallel:
    """What a model gave that several workers ran together, and what they sent for it."""

    logits: Tensor  # (B, T, V)
    traffic: list[Traffic]  # for each worker
    parameters: list[int]  # how many each worker held
    spans: list[Span]  # of a pipeline: who worked when


def bubble(stages: int, micro_batches: int) -> float:
    """The share of time in which a stage of a pipeline is idle: (s − 1) / (m + s − 1).

    Source: Huang et al., 2019, section 2.3.

    >>> bubble(4, 1), round(bubble(4, 16), 3)
    (0.75, 0.158)
    """
    _check_pipeline(stages, micro_batches)
    return (stages - 1) / (micro_batches + stages - 1)


def schedule(stages: int, micro_batches: int) -> list[list[int | None]]:
    """Which micro-batch each stage works on, tick by tick; None where it is idle.

    Every stage takes a micro-batch at the tick after the stage before it did.

    >>> for tick in schedule(2, 3):
    ...     print(tick)
    [0, None]
    [1, 0]
    [2, 1]
    [None, 2]
    """
    _check_pipeline(stages, micro_batches)
    return [
        [tick - stage if 0 <= tick - stage < micro_batches else None for stage in range(stages)]
        for tick in range(micro_batches + stages - 1)
    ]


def split_pair(first: Tensor, second: Tensor, workers: int) -> list[tuple[Tensor, Tensor]]:
    """Each worker's part of a pair of linear layers: rows of the first, columns of the second.

    Args:
        first: (F, I), weight of the layer before f.
        second: (O, F), weight of the layer behind f.
        workers: from 1 to F. Where F cannot be shared out evenly, the first ones get one more.

    Returns:
        For each worker views of both: (F', I) and (O, F'). Σ_w second_w f(first_w x) is what the
        pair gives, if f takes each number by itself.

    >>> parts = split_pair(torch.ones(5, 3), torch.ones(2, 5), workers=2)
    >>> [(tuple(a.shape), tuple(b.shape)) for a, b in parts]
    [((3, 3), (2, 3)), ((2, 3), (2, 2))]
    """
    if first.dim() != 2 or second.dim() != 2 or len(first) != second.shape[1]:
        raise ValueError(
            "first (F, I) and second (O, F) must fit; "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    _check_count("workers", workers, len(first))
    return list(zip(first.tensor_split(workers), second.tensor_split(workers, dim=1), strict=True))


def tensor_shares(model: Llama, workers: int) -> list[Llama]:
    """Each worker's part of every layer: some key-value heads with theirs, some hidden units.

    The norms, the embedding and the head are in all of them.

    Args:
        workers: at most G of every layer.

    >>> from course_lib.models.pretrained import tiny
    >>> [(part.config.heads, part.config.mlp_width) for part in tensor_shares(tiny()[0], 2)]
    [(3, 256), (3, 256)]
    """
    shapes = model.config.shapes
    fewest = min(min(len(shape.groups), shape.mlp_width) for shape in shapes)
    _check_count("workers", workers, fewest)
    heads = [
        [whole_groups(own, s.groups) for own in _owned(len(s.groups), workers)] for s in shapes
    ]
    units = [_owned(shape.mlp_width, workers) for shape in shapes]
    return [
        shrink_mlps(shrink_heads(model, [h[w] for h in heads]), [u[w] for u in units])
        for w in range(workers)
    ]


def stage_shares(model: Llama, stages: int) -> list[Llama]:
    """Some whole layers for each stage, in order; they share the model's weights.

    Every stage has the embedding, of which the first and the last make use.

    >>> from course_lib.models.pretrained import tiny
    >>> [len(stage.blocks) for stage in stage_shares(tiny()[0], 3)]
    [2, 1, 1]
    """
    _check_count("stages", stages, len(model.blocks))
    return [view_without_layers(model, ~own) for own in _owned(len(model.blocks), stages)]


def tensor_parallel(workers: Workers, model: Llama, tokens: Tensor) -> Parallel:
    """The model's logits (B, T, V) of tokens (B, T), each layer run by all workers together.

    Args:
        model: on the CPU, as the workers are.
    """
    _check_cpu(model, tokens)
    shares = tensor_shares(model, len(workers))
    answers = workers.run(summed_logits, [(share, tokens) for share in shares])
    logits, traffic = zip(*answers, strict=True)
    return Parallel(logits[0], list(traffic), _parameters(shares), [])


def pipeline_parallel(
    workers: Workers, model: Llama, tokens: Tensor, micro_batches: int
) -> Parallel:
    """The model's logits (B, T, V) of tokens (B, T), each worker a stage.

    Args:
        model: on the CPU, as the workers are.
        micro_batches: m, from 1 to B.
    """
    _check_cpu(model, tokens)
    _check_count("micro_batches", micro_batches, len(tokens))
    stages = stage_shares(model, len(workers))
    cut = tokens.tensor_split(micro_batches)
    answers = workers.run(stage_logits, [(stage, cut) for stage in stages])
    logits, traffic, spans = zip(*answers, strict=True)
    start = min(span.start for own in spans for span in own)
    together = [span.since(start) for own in spans for span in own]
    return Parallel(torch.cat(logits[-1]), list(traffic), _parameters(stages), together)


def _owned(count: int, workers: int) -> list[Tensor]:
    """For each worker a mask (count,): neighbours, as evenly as can be."""
    parts = torch.arange(count).tensor_split(workers)
    return [torch.isin(torch.arange(count), part) for part in parts]


def _parameters(shares: list[Llama]) -> list[int]:
    return [sum(p.numel() for p in share.parameters()) for share in shares]


def _check_pipeline(stages: int, micro_batches: int) -> None:
    if stages < 1 or micro_batches < 1:
        raise ValueError(
            f"stages and micro_batches must be at least 1; got {stages} and {micro_batches}"
        )


def _check_count(name: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise ValueError(f"{name} must be from 1 to {most}; got {count}")


def _check_cpu(model: Llama, tokens: Tensor) -> None:
    places = {model.embedding.weight.device.type, tokens.device.type}
    if places != {"cpu"}:
        raise ValueError(f"model and tokens must be on the CPU; got {sorted(places)}")
    if tokens.dim() != 2 or not tokens.numel():
        raise ValueError(f"tokens must be (B, T) with B, T ≥ 1; got {tuple(tokens.shape)}")
