"""The lottery ticket on the digits with its controls: the table that 03_pruning quotes.

    OMP_NUM_THREADS=1 python -m benchmarks.lottery      6 CPU minutes

The digits MLP, 64-300-100-10, is pruned by magnitude in 16 rounds, each of which leaves 2^(−1/3) of
the weights: three rounds halve them. A figure is the mean of ten seeds and their standard
deviation, in percent of 540 test images (one image is 0.19 points). A seed is a network's first
values and the order of the images; the split into training and test images is one. The ten are
trained side by side, in one tensor for each layer; each is what it would be alone.

Steps: a training is 400 steps (20 epochs); the ticket of round r has cost r + 1 trainings.
"""

import copy
import statistics
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from course_lib.data.images import Digits, digits
from course_lib.measure.quality import accuracy
from course_lib.models.digits_mlp import BATCH, DigitsMLP
from course_lib.models.parts import prunable_weights
from course_lib.models.training import follow_rate, rate_factor, train
from course_lib.pruning.lottery import Masks, rewound, shuffled_masks
from course_lib.pruning.masks import hold_masks, magnitude_masks

SEEDS, ROUNDS, EPOCH = range(10), (7, 10, 13, 16), 20
STEPS, FEW, REWIND = 20 * EPOCH, 3 * EPOCH, EPOCH
RATE, DECAY = 5e-3, 1e-4


def density_of(round_number: int) -> float:
    """Share of the weights that the round leaves."""
    return 2 ** (-round_number / 3)


class SideBySide(nn.Module):
    """S networks of one shape: rows of images (S, B, I) in, logits (S, B, C) out."""

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        stacked, _ = stack_module_state(networks)
        self.names, self.values = list(stacked), nn.ParameterList(stacked.values())
        self.shape = [copy.deepcopy(networks[0])]  # in a list: its parameters are not ours

    def forward(self, images: Tensor) -> Tensor:
        values = dict(zip(self.names, self.values, strict=True))
        return vmap(lambda v, x: functional_call(self.shape[0], v, (x,)))(values, images)

    @torch.no_grad()
    def networks(self) -> list[nn.Module]:
        """A copy of each as a network of its own."""
        found = [copy.deepcopy(self.shape[0]) for _ in self.values[0]]
        for i, network in enumerate(found):
            network.load_state_dict({n: v[i] for n, v in zip(self.names, self.values, strict=True)})
        return found


def batches(count: int, seeds: Sequence[int], start: int, stop: int) -> Iterator[Tensor]:
    """Numbers of images (S, B), from step `start` on: each seed has its own order of `count`."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    step = 0
    while True:
        orders = [torch.randperm(count, generator=generator) for generator in generators]
        for rows in torch.stack(orders).split(BATCH, dim=1):
            if step >= stop:
                return
            if step >= start:
                yield rows
            step += 1


def train_together(
    networks: Sequence[nn.Module],
    data: Digits,
    masks: Sequence[Masks] = (),
    start: int = 0,
    stop: int = STEPS,
    seeds: Sequence[int] = SEEDS,
    at: int = FEW,
) -> tuple[list[nn.Module], list[nn.Module]]:
    """The networks after step `at` and after step `stop`, trained from step `start` on."""
    model = SideBySide(networks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    if masks:
        weights = dict(zip(model.names, model.values, strict=True))
        hold_masks(optimizer, weights, {n: torch.stack([m[n] for m in masks]) for n in masks[0]})
    seen: list[list[nn.Module]] = []
    steps = iter(range(start + 1, stop + 1))

    def watch(*_) -> None:
        if next(steps) == at:
            seen.append(model.networks())

    def loss(model: nn.Module, rows: Tensor) -> Tensor:
        logits = model(data.train_images[rows]).flatten(0, 1)  # (S, B, C) -> (S · B, C)
        mean = F.cross_entropy(logits, data.train_labels[rows].flatten())
        return len(rows) * mean  # so that each network has its own mean's gradient

    optimizer.register_step_post_hook(watch)
    schedule = follow_rate([optimizer], lambda step: rate_factor(min(start + step, stop-1), stop))
    train(model, batches(len(data.train_images), seeds, start, stop), loss, [optimizer], schedule)
    return (seen or [[]])[0], model.networks()
