import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data.batches import consecutive_windows, random_windows


@given(st.integers(2, 200), st.integers(1, 20))
def test_consecutive_windows_predict_each_token_once(count, length):
    tokens = torch.arange(count)
    if count <= length:
        with pytest.raises(ValueError, match="N > length"):
            consecutive_windows(tokens, length)
        return
    inputs, targets = consecutive_windows(tokens, length)
    assert torch.equal(targets, inputs + 1)
    assert targets.flatten().tolist() == list(range(1, 1 + targets.numel()))
    assert count - 1 - targets.numel() < length


def test_the_same_seed_gives_the_same_windows():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return random_windows(torch.arange(1000), 4, 16, generator)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_random_windows_reach_both_ends():
    generator = torch.Generator().manual_seed(0)
    inputs, targets = random_windows(torch.arange(10), 500, 4, generator)
    assert inputs.min() == 0 and targets.max() == 9


@pytest.mark.parametrize("tokens", [torch.arange(4), torch.zeros(2, 9).long(), torch.tensor([])])
def test_tokens_that_fill_no_window_are_refused(tokens):
    with pytest.raises(ValueError, match=r"N > length; got \("):
        random_windows(tokens, 2, 4, torch.Generator())
    with pytest.raises(ValueError, match=r"N > length; got \("):
        consecutive_windows(tokens, 4)
