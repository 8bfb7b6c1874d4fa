"""The rule of speculative decoding: which guesses stay, what is drawn instead, what that saves.

With q for the draft's probabilities, p for the model's, and x ~ q the token that was guessed:

    x stays with probability min(1, p(x) / q(x))
    else the token is drawn from max(p − q, 0) / Σ max(p − q, 0), and the later guesses are dropped
    if all γ stay, one more token is drawn from the model's last p

What comes out is distributed as p, whatever q is: x comes out with min(p, q) from the first line,
and with max(p − q, 0) from the second. A bad draft costs time, never quality. At temperature 0 p
and q hold a single 1, and the rule reads: a guess stays if it is the model's own choice.

A guess that is tested stays with the chance α = Σ min(p, q). Were it the same everywhere, a round
would give 1 + α + … + α^γ = (1 − α^{γ+1}) / (1 − α) tokens.

Sources: Leviathan et al., 2023, "Fast Inference from Transformers via Speculative Decoding"; Chen
et al., 2023, "Accelerating Large Language Model Decoding with Speculative Sampling".

Axes: γ guesses of a round, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.models.finite import check_finite


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature), in float32 or wider; at 0, a single 1: (…, V) -> (…, V).

    >>> probabilities(torch.tensor([0.0, 2.0, 2.0]), temperature=0).tolist()
    [0.0, 1.0, 0.0]
    """
    check_temperature(temperature)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    return (logits / temperature).softmax(dim=-1)


def acceptance_rate(draft: Tensor, target: Tensor) -> Tensor:
    """α = Σ_v min(p_v, q_v), the chance that a guess stays: (…, V), (…, V) -> (…).

    >>> round(acceptance_rate(torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])).item(), 4)
    0.6
    """
    return torch.minimum(draft, target).sum(dim=-1)


def accept_or_resample(draft: Tensor, target: Tensor, drafted: Tensor, uniforms: Tensor) -> Tensor:
    """The tokens that one round adds: the guesses that stay, then one of the model's.

    Args:
        draft: q for each guess, (γ, V); each row sums to 1.
        target: p for each guess and for the token after the last of them, (γ + 1, V).
        drafted: the guesses, drawn from q: (γ,) int64. γ may be 0.
        uniforms: numbers from 0 to below 1, (γ + 1,): a guess stays if u q(x) < p(x); the last one
            draws the model's token.

    Returns:
        From 1 to γ + 1 tokens, int64.

    Raises:
        ValueError: the shapes do not fit; a uniform is out of range; a probability is not finite.

    Source: Leviathan et al., 2023, algorithm 1.

    >>> q, p = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.1, 0.9], [1.0, 0.0]])
    >>> accept_or_resample(q, p, torch.tensor([1]), torch.tensor([0.99, 0.5])).tolist()
    [1, 0]
    >>> accept_or_resample(q, p, torch.tensor([0]), torch.tensor([0.99, 0.5])).tolist()
    [1]
    """
    _check_round(draft, target, drafted, uniforms)
    places = torch.arange(len(drafted), device=drafted.device)
    stays = uniforms[:-1] * draft[places, drafted] < target[places, drafted]  # (γ,)
    kept = int(stays.int().cumprod(dim=0).sum())
    left = target[kept]  # (V,)
    if kept < len(drafted):
        left = (left - draft[kept]).clamp(min=0)
        left = left if left.any() else target[kept]  # p = q but for rounding
    heaped = left.cumsum(dim=0)
    token = torch.searchsorted(heaped, uniforms[-1:] * heaped[-1], right=True)
    last = left.nonzero()[-1]  # rounding may carry u past the last token that is possible
    return torch.cat([drafted[:kept], torch.minimum(token, last)])


def keep_matching(drafted: Tensor, chosen: Tensor) -> Tensor:
    """`accept_or_resample` at temperature 0: guesses stay until the model chose something else.

    Args:
        drafted: (γ,) int64.
        chosen: the model's choice at each guess's place and after the last, (γ + 1,).

    >>> keep_matching(torch.tensor([5, 6, 7]), torch.tensor([5, 6, 2, 9])).tolist()
    [5, 6, 2]
    """
    if chosen.shape != (len(drafted) + 1,):
        raise ValueError(
            f"chosen must have one token more than drafted; got {tuple(chosen.shape)} and "
            f"{tuple(drafted.shape)}"
        )
    kept = int((drafted == chosen[:-1]).int().cumprod(dim=0).sum())
    return chosen[: kept + 1]


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens of a round if each guess stays with chance α: (1 − α^{γ+1}) / (1 − α).

    >>> expected_tokens(0.5, 2), expected_tokens(1.0, 4)
    (1.75, 5.0)
    """
    if not 0 <= alpha <= 1 or gamma < 0:
        raise ValueError(f"alpha must be from 0 to 1 and gamma at least 0; got {alpha} and {gamma}")
    return float(sum(alpha**i for i in range(gamma + 1)))


def speed_up(alpha: float, gamma: int, draft_cost: float, check_cost: float = 1.0) -> float:
    """How many times faster than one token a pass: expected tokens / (γ c + v).

    With v = 1 this is (1 − α^{γ+1}) / ((1 − α) (γ c + 1)), theorem 3.8 of Leviathan et al., 2023.

    Args:
        alpha: α, the chance that a guess stays.
        gamma: γ, the guesses of a round.
        draft_cost: c, the time of a guess divided by the time of a step of the model.
        check_cost: v, the time of a pass over γ + 1 tokens divided by that of a step. It is near 1
            as long as moving the weights takes longer than multiplying by them.

    >>> speed_up(0.8, 4, draft_cost=0.05) > 2, speed_up(0.3, 4, draft_cost=0.5) < 1
    (True, True)
    """
    if draft_cost < 0 or check_cost <= 0:
        raise ValueError(
            f"draft_cost must be at least 0 and check_cost above 0; got {draft_cost}, {check_cost}"
        )
    return expected_tokens(alpha, gamma) / (gamma * draft_cost + check_cost)


def check_temperature(temperature: float) -> None:
    """Raise unless it is a finite number, at least 0."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be finite and at least 0; got {temperature}")


def _check_round(draft: Tensor, target: Tensor, drafted: Tensor, uniforms: Tensor) -> None:
    gamma, V = len(drafted), target.shape[-1]
    shapes = [tuple(t.shape) for t in (draft, target, drafted, uniforms)]
    if shapes != [(gamma, V), (gamma + 1, V), (gamma,), (gamma + 1,)]:
        raise ValueError(
            "draft, target, drafted, uniforms must be (γ, V), (γ + 1, V), (γ,), (γ + 1,); "
            f"got {shapes}"
        )
    if not ((uniforms >= 0) & (uniforms < 1)).all():
        raise ValueError(f"uniforms must be from 0 to below 1; got {uniforms.tolist()}")
    check_finite(target, "target")
    if gamma:
        check_finite(draft, "draft")
