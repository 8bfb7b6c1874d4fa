"""Claims about cost and speed, by counting."""

import torch
from torch import nn

from course_lib.sources.checks.registry import checks


@checks("C19")
def add_the_teacher() -> str:
    """Operations to train one billion parameters on 20 billion tokens; a 4-billion teacher's."""
    training, teacher = 6 * 1e9 * 20e9, 2 * 4e9 * 20e9
    assert teacher > training
    return f"training {training:.1e} operations; a teacher four times as large adds {teacher:.1e}"


@checks("C21")
def run_a_pipeline() -> str:
    """Stage times of one request and of 16, on one device and on a pipeline of four."""

    def pipeline(requests: int, stages: int = 4) -> int:
        return requests + stages - 1

    assert pipeline(1) == 4 and pipeline(16) == 19
    return (
        f"4 stages: one request takes {pipeline(1)} stage times, on 1 device or on 4; 16 requests "
        f"take 64 on 1 device, {pipeline(16)} on 4"
    )


@checks("C22")
def fold_a_norm() -> str:
    """Values moved by relu(a·x + b), and BatchNorm folded into a linear layer."""
    torch.manual_seed(0)
    linear, norm = nn.Linear(6, 8).double(), nn.BatchNorm1d(8).double().eval()
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        x = torch.randn(20, 6, dtype=torch.float64)
        folded = x @ (gain[:, None] * linear.weight).T + gain * (linear.bias - norm.running_mean)
        assert torch.allclose(norm(linear(x)), folded)
    return (
        "counted by hand: relu(a·x + b) moves 6 values apart, 2 fused, with 3 operations in both; "
        "computed: BatchNorm folds"
    )
