import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.redundancy.units import dead_units, merge_twins, twin_heads


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def merged_and_removed(incoming, outgoing):
    """Both matrices without the twins, whose outgoing weights must be zero."""
    heads = twin_heads(incoming)
    merged = merge_twins(incoming, outgoing, heads)
    stays = heads == torch.arange(len(heads))
    assert (merged[:, ~stays] == 0).all()
    return incoming[stays], merged[:, stays]


def test_a_unit_that_sleeps_through_one_batch_is_not_dead():
    asleep, awake = torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 2.0]])
    assert dead_units(asleep).tolist() == [True, False]
    assert dead_units(torch.cat([asleep, awake])).tolist() == [False, False]
    assert (dead_units(asleep) & dead_units(awake)).tolist() == [False, False]


def test_dead_relu_units_are_those_with_a_negative_bias_that_no_input_lifts():
    x, weight = normal(500, 4), normal(6, 4, seed=1)
    bias = torch.tensor([0.0, -99.0, 0.5, -99.0, 0.0, -1.0])
    hidden = torch.relu(x @ weight.T + bias)
    assert dead_units(hidden).tolist() == [False, True, False, True, False, False]
    assert dead_units(hidden.view(5, 100, 6)).tolist() == dead_units(hidden).tolist()


def test_silu_units_are_never_quite_dead():
    hidden = F.silu(normal(500, 3) - torch.tensor([0.0, 0.0, 12.0]))
    assert dead_units(hidden).tolist() == [False, False, False]
    assert dead_units(hidden, tolerance=0.05).tolist() == [False, False, True]
    assert dead_units(1000 * hidden, tolerance=0.05).tolist() == [False, False, True]


def test_each_of_two_twins_is_needed_until_the_other_has_been_told():
    x = normal(100, 4)
    incoming, outgoing = normal(3, 4, seed=1), torch.tensor([[3.0, 1.0, 2.0]]).double()
    incoming[2] = incoming[0]
    y = torch.relu(x @ incoming.T) @ outgoing.T
    dropped = torch.relu(x @ incoming[:2].T) @ outgoing[:, :2].T
    fewer, merged = merged_and_removed(incoming, outgoing)
    assert (dropped - y).abs().max() > 1
    assert merged.tolist() == [[5.0, 1.0]]
    torch.testing.assert_close(torch.relu(x @ fewer.T) @ merged.T, y, rtol=0, atol=1e-12)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 9)), min_size=1, max_size=10))
@settings(deadline=None)
def test_merging_scaled_twins_keeps_a_relu_layer_exactly(units):
    directions = normal(4, 5, seed=2)  # the last column is the bias
    incoming = torch.stack([scale * directions[which] for which, scale in units])
    outgoing, x = normal(3, len(units), seed=3), normal(50, 5)
    x[:, 4] = 1
    fewer, merged = merged_and_removed(incoming, outgoing)
    assert twin_heads(incoming).tolist() == [
        [w for w, _ in units].index(which) for which, _ in units
    ]
    assert len(fewer) == merged.shape[1] == len({which for which, _ in units})
    expected = torch.relu(x @ incoming.T) @ outgoing.T
    torch.testing.assert_close(torch.relu(x @ fewer.T) @ merged.T, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", [F.gelu, F.silu, torch.tanh])
def test_equal_rows_merge_under_any_activation_and_scaled_ones_do_not(activation):
    x, incoming, outgoing = normal(50, 4), normal(3, 4, seed=1), normal(2, 3, seed=2)
    for scale, exact in ((1.0, True), (2.0, False)):
        incoming[1] = scale * incoming[0]
        fewer, merged = merged_and_removed(incoming, outgoing)
        error = activation(x @ fewer.T) @ merged.T - activation(x @ incoming.T) @ outgoing.T
        assert (error.abs().max() < 1e-12) == exact


def test_a_chain_of_near_twins_does_not_become_one():
    angles = torch.tensor([0.0, 0.1, 0.2])
    incoming = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert twin_heads(incoming, cosine=0.99).tolist() == [0, 0, 2]  # cos 0.1 = .995, cos 0.2 = .98


def test_opposite_and_empty_rows_are_no_twins():
    incoming = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [0.0, 0.0], [0.0, 0.0]])
    assert twin_heads(incoming).tolist() == [0, 1, 2, 3]
    assert torch.equal(merge_twins(incoming, torch.ones(1, 4), torch.arange(4)), torch.ones(1, 4))


def test_bad_arguments():
    with pytest.raises(ValueError, match="tolerance must not be negative"):
        dead_units(torch.ones(2, 2), tolerance=-1)
    with pytest.raises(ValueError, match="hidden must have shape"):
        dead_units(torch.ones(0, 2))
    with pytest.raises(ValueError, match="incoming must have shape"):
        twin_heads(torch.ones(2))
    with pytest.raises(ValueError, match="must agree in F"):
        merge_twins(torch.ones(3, 2), torch.ones(1, 4), torch.arange(3))
