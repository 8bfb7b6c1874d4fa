"""Tickets: values back and masks kept; the benchmark's side-by-side training; rows of its table."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from course_lib.data.images import digits
from course_lib.measure.quality import accuracy
from course_lib.models.parts import prunable_weights
from course_lib.models.training import follow_rate, rate_factor, train
from course_lib.pruning.lottery import early_state, find_ticket, rewound, shuffled_masks
from course_lib.pruning.masks import hold_masks, magnitude_masks

ROOT = Path(__file__).resolve().parent.parent


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def learn(model, masks=None, steps=5, watch=None):
    """A few steps on random data; `watch` is called with the optimizer before the first."""
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    seen = watch(optimizer) if watch else None
    if masks:
        hold_masks(optimizer, prunable_weights(model), masks)
    for _ in range(steps):
        x = torch.randn(16, 4, generator=generator)
        optimizer.zero_grad()
        (model(x) - x[:, :3]).square().mean().backward()
        optimizer.step()
    return seen


def test_values_are_back_biases_and_buffers_too_and_the_mask_is_kept():
    model = network()
    early = copy.deepcopy(model.state_dict())
    learn(model)
    before = copy.deepcopy(model.state_dict())
    masks = magnitude_masks(prunable_weights(model), 0.3)
    ticket = rewound(model, early, masks)
    for name, value in ticket.state_dict().items():
        assert value.equal(early[name] * masks[name] if name in masks else early[name])
        assert before[name].equal(model.state_dict()[name])
    assert any(not early[name].equal(before[name]) for name in early)


def test_the_ticket_is_not_the_large_weights_of_the_beginning():
    """The mask comes from the end: at the beginning other weights are the largest."""
    model = network()
    early = copy.deepcopy(model.state_dict())
    learn(model, steps=40)
    masks = magnitude_masks(prunable_weights(model), 0.3)
    others = magnitude_masks({name: early[name] for name in masks}, 0.3)
    assert any(not masks[name].equal(others[name]) for name in masks)


def test_the_state_of_a_step_is_a_copy_and_is_taken_after_it():
    model, twin = (copy.deepcopy(m) for m in [network()] * 2)
    states = learn(model, watch=lambda o: [early_state(o, model, step) for step in (0, 2, 9)])
    for value, now in zip(states[0].values(), twin.state_dict().values(), strict=True):
        assert value.equal(now)
    learn(twin, steps=2)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(states[1][name], value)
    assert states[2] == {}


def test_shuffled_masks_keep_the_counts_and_move_the_places():
    masks = {"a": torch.rand(20, 30) < 0.2, "b": torch.rand(7) < 0.5, "c": torch.zeros(3).bool()}
    shuffled = shuffled_masks(masks, torch.Generator().manual_seed(0))
    again = shuffled_masks(masks, torch.Generator().manual_seed(0))
    for name, mask in masks.items():
        assert shuffled[name].shape == mask.shape
        assert shuffled[name].sum() == mask.sum()
        assert shuffled[name].equal(again[name])
    assert not shuffled["a"].equal(masks["a"])


def test_shuffling_is_uniform():
    """One True among five, 5,000 times: each place 1,000 times, give or take five times √800."""
    generator = torch.Generator().manual_seed(0)
    mask = {"a": torch.tensor([True, False, False, False, False])}
    counts = sum(shuffled_masks(mask, generator)["a"].long() for _ in range(5000))
    assert ((counts - 1000).abs() < 142).all()


def test_rounds_prune_what_is_left_and_begin_at_the_early_state():
    model = network()
    early = copy.deepcopy(model.state_dict())
    learn(model)
    begun = []

    def begin_and_train(ticket, masks):
        begun.append(copy.deepcopy(ticket.state_dict()))
        learn(ticket, masks)

    left, last = [], None
    for masks, trained in find_ticket(model, early, (0.5, 0.25, 0.25, 0.1), begin_and_train):
        for name, weight in prunable_weights(trained).items():
            assert not weight[~masks[name]].any()
            assert begun[-1][name].equal(early[name] * masks[name])
            assert last is None or not (masks[name] & ~last[name]).any()
        left.append(sum(int(mask.sum()) for mask in masks.values()))
        last = masks
    assert left == [round(d * 56) for d in (0.5, 0.25, 0.25, 0.1)]


def test_one_round_is_magnitude_pruning_with_rewinding():
    model = network()
    early = copy.deepcopy(model.state_dict())
    learn(model)
    ((masks, trained),) = find_ticket(model, early, [0.4], learn)
    by_hand = rewound(model, early, magnitude_masks(prunable_weights(model), 0.4))
    learn(by_hand, masks)
    for name, value in by_hand.state_dict().items():
        assert value.equal(trained.state_dict()[name])


def wrong(call, says):
    model = nn.Linear(2, 1)
    early = copy.deepcopy(model.state_dict())
    mask = {"weight": torch.tensor([[True, False]])}
    with pytest.raises(ValueError, match=says):
        call(model, early, mask)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, e, k: rewound(m, m.state_dict(), k), "early must be a copy"),
        (lambda m, e, k: rewound(m, {}, k), "early must be a state of this model; '.*' is missing"),
        (lambda m, e, k: rewound(m, e | {"x": e["bias"]}, k), "'x' is .*, in the model missing"),
        (lambda m, e, k: rewound(m, e | {"bias": torch.ones(2)}, k), r"'bias' is \(2,\)"),
        (lambda m, e, k: rewound(m, e, {"weight": torch.ones(1, 2)}), "masks must be bool .*float"),
        (lambda m, e, k: rewound(m, e, {"other": k["weight"]}), "masks must .* for 'other'"),
        (lambda m, e, k: rewound(m, e, {"weight": k["weight"].T}), "the mask of 'weight'"),
        (lambda m, e, k: early_state(torch.optim.SGD(m.parameters()), m, -1), "at least 0; got -1"),
        (
            lambda m, e, k: list(find_ticket(m, e, [0.5, 0.6], learn_nothing)),
            "must not rise",
        ),
        (lambda m, e, k: list(find_ticket(m, e, [1.2], learn_nothing)), "densities must"),
    ],
)
def test_bad_input_is_refused(call, says):
    wrong(call, says)


def learn_nothing(network, masks):
    """Training that does nothing."""


# ---------------------------------------------------------------- the benchmark


@pytest.fixture(scope="module")
def bench():
    """benchmarks/lottery.py, which is no part of the library."""
    place = ROOT / "benchmarks" / "lottery.py"
    spec = importlib.util.spec_from_file_location("benchmarks_lottery", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alone(bench, network, data, masks, seed, stop):
    """What `train_together` does, for one network: `hold_masks`, no vmap, no fused optimizer."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=bench.RATE, weight_decay=bench.DECAY)
    hold_masks(optimizer, prunable_weights(network), masks)
    rows = (r[0] for r in bench.batches(len(data.train_images), [seed], 0, stop))

    def loss(model, rows):
        return nn.functional.cross_entropy(model(data.train_images[rows]), data.train_labels[rows])

    schedule = follow_rate([optimizer], lambda step: rate_factor(step, stop))
    train(network, rows, loss, [optimizer], schedule)
    return network


def test_networks_side_by_side_train_as_each_would_alone(bench):
    """20 steps: float32 sums in another order drift apart by 1e-4 at most; Adam amplifies it."""
    data, stop = digits(), 20
    begin = bench.new_networks(seeds=[0, 1, 2])
    masks = bench.cut(begin, 0.2)
    values = bench.with_values(begin, masks)
    then, end = bench.train_together(values, data, masks, stop=stop, seeds=[0, 1, 2], at=5)
    for seed in range(3):
        peer = alone(bench, copy.deepcopy(values[seed]), data, masks[seed], seed, stop)
        for name, value in peer.state_dict().items():
            torch.testing.assert_close(end[seed].state_dict()[name], value, rtol=1e-3, atol=1e-3)
        weights = prunable_weights(end[seed])
        assert all(not weights[name][~masks[seed][name]].any() for name in weights)
        five = then[seed].state_dict()
        assert not five["0.weight"].equal(values[seed].state_dict()["0.weight"])
        assert not five["0.weight"].equal(end[seed].state_dict()["0.weight"])


def test_training_from_an_early_step_goes_on_with_its_images_and_rate(bench):
    whole = list(bench.batches(1257, [3, 4], 0, 45))
    rest = list(bench.batches(1257, [3, 4], 25, 45))
    assert len(whole) == 45
    assert all(a.equal(b) for a, b in zip(whole[25:], rest, strict=True))
    first_epoch = torch.cat(whole[:20], dim=1)
    assert first_epoch.sort().values.equal(torch.arange(1257).expand(2, -1))


TABLE = {  # of the module's output: share 17.7 %, mean of five seeds, at the end and after 3 epochs
    "whole": (97.78, 94.67),
    "ticket": (97.67, 97.00),
    "shuffled": (97.70, 88.70),
    "small": (97.85, 93.22),
}


def test_rows_of_the_table_come_out_again(bench):
    """One seed of the five, five rounds. Standard deviations: at most 0.4 at the end, 1 before."""
    data, begin, none = digits(), bench.new_networks(seeds=[0]), [{}]

    def trained(networks, masks):
        return bench.train_together(networks, data, masks, seeds=[0])

    rows = {"whole": trained(begin, none), "small": trained(bench.small_networks(5)[:1], none)}
    rows["ticket"] = rows["whole"]
    for round_number in range(1, 6):
        masks = bench.cut(rows["ticket"][1], bench.density(round_number))
        rows["ticket"] = trained(bench.with_values(begin, masks), masks)
    shuffled = [shuffled_masks(masks[0], torch.Generator().manual_seed(0))]
    rows["shuffled"] = trained(bench.with_values(begin, shuffled), shuffled)
    for name, pair in rows.items():
        few, end = (100 * accuracy(n, data.test_images, data.test_labels) for (n,) in pair)
        assert end == pytest.approx(TABLE[name][0], abs=1.5), name
        assert few == pytest.approx(TABLE[name][1], abs=4), name


@pytest.mark.parametrize("round_number", [5, 7, 9, 11])
def test_small_networks_have_as_many_parameters_as_the_ticket(bench, round_number):
    parameters = sum(p.numel() for p in bench.small_networks(round_number)[0].parameters())
    ticket = round(bench.density(round_number) * 50_200) + 410
    assert parameters == pytest.approx(ticket, abs=38)  # half a hidden neuron
