"""The lottery ticket on the digits with its controls: the table that 03_pruning quotes.

    OMP_NUM_THREADS=1 python -m benchmarks.lottery      2 CPU minutes

The digits MLP, 64-300-100-10, is pruned by magnitude in 11 rounds, each of which leaves 1/√2 of the
weights: two rounds halve them. A figure is the mean of five seeds ± their standard deviation, in
percent of 540 test images (one image is 0.19 points): at the end of training and, in brackets,
after three of its twenty epochs. A seed is a network's first values and the order of its images;
the split into training and test images is one. A training is 400 steps; the ticket of round r has
cost r + 1 trainings. A small dense network has as many parameters as the ticket, biases included.

The networks of a row are trained side by side, in one tensor for each layer; each is what it
would be alone (the test compares them). A weight that is masked in every forward pass and starts at
zero gets no gradient, so it stays zero: no hook is needed here.
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
from course_lib.pruning.masks import magnitude_masks

SEEDS, ROUNDS = (
    range(5),
    (5, 7, 9, 11),
)  # the last gets controls of as many steps as its ticket cost
EPOCH = 20  # steps
STEPS, FEW, EARLY = 20 * EPOCH, 3 * EPOCH, EPOCH
RATE, DECAY = 5e-3, 1e-4
Networks = list[nn.Module]


def density(round_number: int) -> float:
    """Share of the weights that a round leaves: 0.177, 0.088, 0.044 and 0.022 after ROUNDS."""
    return 2 ** (-round_number / 2)


# ---------------------------------------------------------------- networks side by side


class SideBySide(nn.Module):
    """S networks of one shape under their masks: (S, B, I) in, logits (S, B, C) out."""

    def __init__(self, networks: Networks, masks: Sequence[Masks]):
        super().__init__()
        stacked, _ = stack_module_state(networks)
        self.names, self.values = list(stacked), nn.ParameterList(stacked.values())
        self.masks = {name: torch.stack([m[name] for m in masks]) for name in masks[0]}
        self.shape = [copy.deepcopy(networks[0])]  # in a list: its parameters are not ours

    def forward(self, images: Tensor) -> Tensor:
        """Each network reads its own images."""
        values = dict(zip(self.names, self.values, strict=True))
        for name, mask in self.masks.items():
            values[name] = values[name] * mask
        return vmap(lambda v, x: functional_call(self.shape[0], v, (x,)))(values, images)

    @torch.no_grad()
    def networks(self) -> Networks:
        """A copy of each as a network of its own."""
        found = [copy.deepcopy(self.shape[0]) for _ in self.values[0]]
        for i, network in enumerate(found):
            network.load_state_dict({n: v[i] for n, v in zip(self.names, self.values, strict=True)})
        return found


def batches(count: int, seeds: Sequence[int], start: int, stop: int) -> Iterator[Tensor]:
    """Numbers of images (S, B) from step `start` on: each seed has its own orders of `count`."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    step = 0
    while step < stop:
        orders = [torch.randperm(count, generator=generator) for generator in generators]
        for rows in torch.stack(orders).split(BATCH, dim=1):
            if start <= step < stop:
                yield rows
            step += 1


def train_together(
    networks: Networks,
    data: Digits,
    masks: Sequence[Masks],
    start: int = 0,
    stop: int = STEPS,
    seeds: Sequence[int] = SEEDS,
    at: int = FEW,
) -> tuple[Networks, Networks]:
    """The networks after step `at` and after step `stop`, trained from step `start` on."""
    model = SideBySide(networks, masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    steps, then = iter(range(start + 1, stop + 1)), networks

    def watch(*_) -> None:
        nonlocal then
        if next(steps) == at:
            then = model.networks()

    def loss(model: nn.Module, rows: Tensor) -> Tensor:
        logits = model(data.train_images[rows]).flatten(0, 1)  # (S, B, C) -> (S · B, C)
        mean = F.cross_entropy(logits, data.train_labels[rows].flatten())
        return len(rows) * mean  # the sum of the networks' own losses

    optimizer.register_step_post_hook(watch)
    schedule = follow_rate([optimizer], lambda step: rate_factor(start + step, stop))
    train(model, batches(len(data.train_images), seeds, start, stop), loss, [optimizer], schedule)
    return then, model.networks()


# ---------------------------------------------------------------- what is compared


def new_networks(make: type[nn.Module] = DigitsMLP, seeds: Sequence[int] = SEEDS) -> Networks:
    """One for each seed."""
    networks = []
    for seed in seeds:
        torch.manual_seed(seed)
        networks.append(make())
    return networks


def cut(networks: Networks, share: float) -> list[Masks]:
    """Masks by magnitude for each."""
    return [magnitude_masks(prunable_weights(network), share) for network in networks]


def with_values(networks: Networks, masks: Sequence[Masks]) -> Networks:
    """Copies of the networks under masks."""
    states = [copy.deepcopy(network.state_dict()) for network in networks]
    return [rewound(*parts) for parts in zip(networks, states, masks, strict=True)]


def small_networks(round_number: int) -> Networks:
    """Dense networks 64-h-10 with as many parameters as the ticket."""
    sizes = {name: p.numel() for name, p in DigitsMLP().named_parameters()}
    weights = sum(size for name, size in sizes.items() if name.endswith("weight"))
    count = density(round_number) * weights + sum(sizes.values()) - weights
    hidden = round((count - 10) / (64 + 1 + 10))
    return new_networks(
        lambda: nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    )


def iterative(
    dense: Networks, early: Networks | None, data: Digits, start: int = 0
) -> Iterator[tuple[int, list[Masks], tuple[Networks, Networks]]]:
    """Round, masks and trained networks of pruning round by round; rewound to `early` if given."""
    trained = (dense, dense)
    for round_number in range(1, ROUNDS[-1] + 1):
        masks = cut(trained[1], density(round_number))
        values = with_values(early or trained[1], masks)
        trained = train_together(values, data, masks, start)
        if round_number in ROUNDS:
            yield round_number, masks, trained


def controls(
    begin: Networks, masks: list[Masks], data: Digits, share: float
) -> dict[str, tuple[Networks, Networks]]:
    """The ticket's mask with other values, its values with other masks; one training each."""
    generator = torch.Generator().manual_seed(0)
    random = [
        {n: torch.rand(m.shape, generator=generator) for n, m in one.items()} for one in masks
    ]
    shuffled = [shuffled_masks(one, generator) for one in masks]
    anywhere = [magnitude_masks(scores, share) for scores in random]
    anew = new_networks(seeds=[1000 + seed for seed in SEEDS])
    return {
        name: train_together(with_values(values, chosen), data, chosen)
        for name, values, chosen in (
            ("the mask, values drawn anew", anew, masks),
            ("the values, mask shuffled", begin, shuffled),
            ("the values, mask anywhere", begin, anywhere),
        )
    }


def without_search(
    dense: Networks, data: Digits, round_number: int
) -> dict[str, tuple[Networks, Networks]]:
    """One cut of the trained network, and small dense networks: one training, and equal steps."""
    masks, none = cut(dense, density(round_number)), [{}] * len(dense)
    once, small = with_values(dense, masks), small_networks(round_number)
    rows = {
        "one cut, one more training": train_together(once, data, masks),
        "small dense network": train_together(small, data, none),
    }
    if round_number == ROUNDS[-1]:
        steps = STEPS * round_number
        rows["one cut, steps as the ticket"] = train_together(once, data, masks, 0, steps)
        rows["small dense, steps as the ticket"] = train_together(
            small, data, none, 0, steps + STEPS
        )
    return rows


# ---------------------------------------------------------------- the table


def percent(networks: Networks, data: Digits) -> tuple[float, float]:
    """Mean and standard deviation of the test accuracies."""
    found = [100 * accuracy(n, data.test_images, data.test_labels) for n in networks]
    return statistics.mean(found), statistics.stdev(found)


def print_row(name: str, share: float, pair: tuple[Networks, Networks], data: Digits) -> None:
    """Accuracy at the end, and in brackets after few epochs."""
    (few, spread_few), (end, spread) = (percent(networks, data) for networks in pair)
    print(f"{name:34} {100 * share:5.1f} %   {end:.2f} ± {spread:.2f}", end="")
    print(f"   ({few:.2f} ± {spread_few:.2f})", flush=True)


def main() -> None:
    """Print every row as soon as it is known."""
    data, begin, none = digits(), new_networks(), [{} for _ in SEEDS]
    early, _ = train_together(begin, data, none, at=EARLY)
    whole = train_together(begin, data, none)
    print_row("the whole network", 1.0, whole, data)
    for round_number, masks, pair in iterative(whole[1], begin, data):
        share = density(round_number)
        rows = {"ticket, rewound to step 0": pair}
        rows |= controls(begin, masks, data, share)
        rows |= without_search(whole[1], data, round_number)
        for name, found in rows.items():
            print_row(name, share, found, data)
    for name, values, start in (
        (f"ticket, rewound to step {EARLY}", early, EARLY),
        ("round by round, not rewound", None, 0),
    ):
        for round_number, _, pair in iterative(whole[1], values, data, start):
            print_row(name, density(round_number), pair, data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
