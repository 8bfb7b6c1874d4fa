"""Claims that the documents' code samples make, recomputed without their frameworks."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.sources.checks.registry import checks, mse, normal


@checks("C66")
def cut_inputs_to_ids() -> str:
    """Token ids of random numbers between 0 and 1."""
    ids = np.random.default_rng(0).random((100, 10)).astype(np.int64)
    assert not ids.any()
    return (
        f"of {ids.size:,} inputs, {np.count_nonzero(ids == 0):,} become token 0: one text, "
        "again and again"
    )


@checks("C68")
def compare_cross_entropies() -> str:
    """Cross-entropy from a class id and from the one-hot vector."""
    logits = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    sparse = F.cross_entropy(logits, torch.tensor([1])).item()
    one_hot = F.cross_entropy(logits, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)).item()
    as_number = -(1 * logits.log_softmax(dim=1)).sum().item()
    assert np.isclose(sparse, one_hot) and not np.isclose(sparse, as_number)
    return (
        f"the class id and its one-hot vector give {sparse:.2f}; the id taken as a target "
        f"{as_number:.2f}"
    )


@checks("C70")
def divide_magnitudes_by_the_norm() -> str:
    """|w|/‖w‖ of a normal matrix, and of a pruned one that is all zero."""
    w = normal(100, 100)
    after = np.abs(w) / np.linalg.norm(w)
    with np.errstate(invalid="ignore"):
        pruned = np.zeros(10) / np.linalg.norm(np.zeros(10))
    lost = int(np.sum(w < 0) - np.sum(after < 0))
    assert lost > 4000 and np.isclose(np.linalg.norm(after), 1) and np.isnan(pruned).all()
    return (
        f"{lost:,} of 10,000 signs are lost, the norm becomes 1, and an all-zero tensor becomes NaN"
    )


@checks("C71")
def ask_for_an_impossible_probability() -> str:
    """NumPy's choice with the probabilities 4 and −3."""
    try:
        np.random.default_rng(0).choice([0, 1], p=[4, 1 - 4])
    except ValueError as error:
        message = str(error)
    assert "probabilities" in message.lower()
    return "α = 4 asks for the probabilities 4 and −3, and NumPy refuses"


@checks("C72")
def quantize_at_random() -> str:
    """The sample with a legal α = 0.4, against deleting the layer."""
    w = 0.05 * normal(20_000)
    drawn = np.sign(w) * np.random.default_rng(1).choice([0, 1], size=w.shape, p=[0.4, 0.6])
    random_error, deleted = mse(drawn, w), mse(0 * w, w)
    assert set(np.unique(drawn)) == {-1, 0, 1} and random_error > 100 * deleted
    return (
        f"values −1, 0, 1; squared error {random_error:.2f}, and {deleted:.4f} for deleting "
        "the layer"
    )


def _count_lstm() -> dict[str, int]:
    """Parameters of the printed model, by layer, as Keras counts them."""
    return {
        "embedding": 1000 * 128,
        "LSTM": 4 * ((128 + 128) * 128 + 128),
        "dense": 128 * 10 + 10,
    }


@checks("C74")
def count_the_lstm() -> str:
    """LSTM(128) on 128 inputs, by hand and by PyTorch, which has a second bias."""
    torch_count = sum(p.numel() for p in nn.LSTM(128, 128).parameters())
    count = _count_lstm()["LSTM"]
    assert count == 131_584 == torch_count - 4 * 128
    return f"four gates: {count:,} (PyTorch has a second bias: {torch_count:,}); printed 128,256"


@checks("C75")
def count_the_dense_layer() -> str:
    """A dense layer of 10 outputs on 128 inputs."""
    count = sum(p.numel() for p in nn.Linear(128, 10).parameters())
    assert count == _count_lstm()["dense"] == 1290
    return f"{count:,} with the bias; printed 1,280"


@checks("C76")
def add_up_the_rows() -> str:
    """The true total, and the sum of the printed rows."""
    total, rows = sum(_count_lstm().values()), 128_000 + 128_256 + 1_280
    assert total == 260_874 and rows == 257_536
    return (
        f"true total {total:,}; the printed rows add up to {rows:,}, the printed total is 1,288,880"
    )


@checks("C78")
def count_zeros() -> str:
    """Entries and non-zeros of a layer before and after pruning."""
    layer = nn.Linear(128, 10)
    before = sum(p.numel() for p in layer.parameters())
    with torch.no_grad():
        layer.weight.zero_()
    after = sum(p.numel() for p in layer.parameters())
    left = sum(int(p.count_nonzero()) for p in layer.parameters())
    assert before == after == 1290 and left <= 10
    return f"with every weight set to zero the count is still {after:,}; non-zeros: {left}"


@checks("C89")
def divide_by_the_parameters() -> str:
    """The squared error of 100 samples, divided by 11,110 parameters."""
    squared = normal(100) ** 2
    printed, right = squared.sum() / 11_110, squared.mean()
    assert printed < right / 100
    return f"100 samples: mean squared error {right:.2f}; divided by 11,110 weights {printed:.4f}"


def _train_with_decay(decay: float) -> nn.Linear:
    torch.manual_seed(0)
    x, y = torch.randn(50, 10), torch.randn(50, 1)
    model = nn.Linear(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=decay)
    for _ in range(50):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    return model


@checks("C113")
def look_for_zeros_after_weight_decay() -> str:
    """Zeros after 50 steps, with the printed weight_decay and a hundred times it."""
    zeros = [
        sum(int((p == 0).sum()) for p in _train_with_decay(decay).parameters())
        for decay in (0.01, 1.0)
    ]
    assert zeros == [0, 0]
    return f"zeros among 11 parameters: {zeros[0]} with weight_decay 0.01, {zeros[1]} with 1"


@checks("C118")
def count_what_was_removed() -> str:
    """Parameters and zeros of the printed sample's model before and after training."""
    model = _train_with_decay(0.01)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 11 and all(bool((p != 0).all()) for p in model.parameters())
    return f"before 11 parameters, after {parameters}, all different from zero"
