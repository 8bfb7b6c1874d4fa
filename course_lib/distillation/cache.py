"""The teacher asked once, its answers on disk: the k likeliest tokens of each position.

Of a distribution p over V tokens the cache keeps the k largest p_i, as logarithms, and their token
numbers. All other tokens count as one more outcome, "something else", with what is left:

    loss = T² · (Σ_{i in top k} p_i ln(p_i / q_i) + p_rest ln(p_rest / q_rest))

This is the KL of two coarser distributions, so it is never larger than the full one, but for the
rounding of ln p to float16: that is off by up to 2⁻¹¹ of itself, so the loss of a student that
equals the teacher is not 0 but up to 0.003 (measured at T = 4, with all tokens kept). To leave the
rest out and scale the top k up to 1 would teach the student that nothing else ever comes.

Axes: … positions, k tokens kept, V vocabulary, B windows, T tokens of a window.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from course_lib.models.training import frozen

AT_ONCE = 16  # windows
SMALLEST = 1e-6  # no probability of the rest is taken to be smaller


@dataclass(frozen=True)
class TopK:
    """ln p of the k likeliest tokens at each position, most likely first, and which they are."""

    log_probabilities: Tensor  # (…, k) float16
    tokens: Tensor  # (…, k) int16, or int32 for a vocabulary above 32,768
    temperature: float

    @property
    def bytes(self) -> int:
        """What the numbers take, without the file's header."""
        return sum(t.numel() * t.element_size() for t in (self.log_probabilities, self.tokens))

    def __getitem__(self, rows: Tensor) -> "TopK":
        """The answers for some of the rows."""
        return TopK(self.log_probabilities[rows], self.tokens[rows], self.temperature)


def top_k(logits: Tensor, k: int, temperature: float = 1.0) -> TopK:
    """The k largest probabilities of softmax(logits / T).

    Args:
        logits: (…, V).
        k: from 1 to V.
        temperature: T > 0. What is stored is good for this T only.

    >>> kept = top_k(torch.tensor([[1.0, 3.0, 2.0]]), k=2)
    >>> kept.tokens.tolist(), kept.log_probabilities.exp().sum().item() < 1
    ([[1, 2]], True)
    """
    if not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"k must be from 1 to {logits.shape[-1]}; got {k}")
    values, tokens = (logits.detach() / temperature).log_softmax(dim=-1).topk(k, dim=-1)
    integer = torch.int16 if logits.shape[-1] <= 2**15 else torch.int32
    return TopK(values.half(), tokens.to(integer), float(temperature))


@torch.no_grad()
def ask_teacher(teacher: nn.Module, windows: Tensor, k: int, temperature: float = 1.0) -> TopK:
    """The teacher's answers on all windows (B, T), a few at a time: `TopK` of (B, T, k)."""
    with frozen(teacher):
        parts = [top_k(teacher(some), k, temperature) for some in windows.split(AT_ONCE)]
    return TopK(
        torch.cat([part.log_probabilities for part in parts]),
        torch.cat([part.tokens for part in parts]),
        temperature,
    )


def top_k_loss(student: Tensor, kept: TopK) -> Tensor:
    """T² · KL over k + 1 outcomes, the top k and the rest, averaged over the positions.

    Args:
        student: logits (…, V).
        kept: of (…, k).

    >>> logits = torch.tensor([[1.0, 3.0, 2.0]])
    >>> round(top_k_loss(logits, top_k(logits, k=2)).item(), 4) + 0
    0.0
    """
    log_q = (student / kept.temperature).log_softmax(dim=-1).gather(-1, kept.tokens.long())
    log_p = kept.log_probabilities.to(log_q.dtype)
    p = log_p.exp()
    p_rest = (1 - p.sum(dim=-1)).clamp(min=SMALLEST)
    q_rest = (1 - log_q.exp().sum(dim=-1)).clamp(min=SMALLEST)
    gap = (log_p - log_q).masked_fill(p == 0, 0)  # where the teacher says never, nothing is asked
    loss = (p * gap).sum(dim=-1) + p_rest * (p_rest.log() - q_rest.log())
    return kept.temperature**2 * loss.mean()


def save_top_k(kept: TopK, path: Path) -> int:
    """Write the answers to a file; its bytes."""
    tensors = {
        "log_probabilities": kept.log_probabilities.contiguous().cpu(),
        "tokens": kept.tokens.contiguous().cpu(),
    }
    save_file(tensors, path, {"temperature": repr(kept.temperature)})
    return path.stat().st_size


def load_top_k(path: Path) -> TopK:
    """What `save_top_k` wrote, on the CPU."""
    with safe_open(path, framework="pt") as file:
        values, tokens = file.get_tensor("log_probabilities"), file.get_tensor("tokens")
        return TopK(values, tokens, float(file.metadata()["temperature"]))
