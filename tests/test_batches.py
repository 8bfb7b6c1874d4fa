import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data.batches import consecutive_windows, random_windows
from course_lib.data.images import digits


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


def test_digits_are_split_evenly_and_do_not_overlap():
    data = digits()
    assert data.train_images.dtype == torch.float32
    assert data.train_images.min() >= 0 and data.train_images.max() <= 1
    counts = data.test_labels.bincount()
    assert counts.max() - counts.min() <= 3
    train = {tuple(row) for row in data.train_images.tolist()}
    assert sum(tuple(row) in train for row in data.test_images.tolist()) == 0
    assert not torch.equal(digits(1).test_labels, data.test_labels)
