"""Exercises of 10_acceleration: speculation, its rule and its gain.

Axes: V vocabulary.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------- accept_or_resample


def accept_or_resample(
    draft: Tensor, target: Tensor, token: int, uniform_accept: float, uniform_resample: float
) -> int:
    """The token that comes at a place for which a draft model drew `token`.

    draft q and target p, (V,), are the two models' probabilities at that place; q of `token` is not
    0. u = uniform_accept and v = uniform_resample are from 0 to 1, 1 excluded.

        u < p(token) / q(token):   the token itself
        else:                      the first token j with r(0) + … + r(j) > v · (sum of all r),
                                   where r = max(p − q, 0)

    So a token that p gives no chance never comes. Reckon in float64, whatever comes in.
    """
    p, q = torch.stack([target, draft]).double()
    if uniform_accept < p[token] / q[token]:
        return token
    up_to = torch.relu(p - q).cumsum(dim=0)  # (V,)
    return int(torch.searchsorted(up_to, uniform_resample * up_to[-1], right=True))


def _chances(draw: Draw, count: int, sharp: float = 2.0) -> Tensor:
    return (sharp * draw.normal(count)).double().softmax(0).float()


def _apart(draft: Tensor, target: Tensor, places: Tensor) -> int:
    """A v with which the first token beyond it is clear: in the middle of a token's share of r."""
    r = (target.double() - draft.double()).clamp(min=0)
    token = int(places[r[places] > 0][0])
    return float((r.cumsum(0)[token] - r[token] / 2) / r.sum())


def _refused(draw: Draw, draft: Tensor, target: Tensor) -> tuple:
    """The token that the draft overrates most, and a u that refuses it."""
    token = int((draft.double() - target.double()).argmax())
    ratio = float(target.double()[token] / draft.double()[token])
    u = ratio + (1 - ratio) * (0.1 + 0.8 * float(draw.uniform(1)))
    return draft, target, token, u, _apart(draft, target, draw.order(len(draft)))


def _small_share(draw: Draw, draft: Tensor, target: Tensor) -> tuple:
    """In float16, v in the smallest share of r that is 10⁻⁶ or more, of the last quarter."""
    draft, target, token, u, _ = _refused(draw, draft.half(), target.half())
    r = target.double() - draft.double()
    places = torch.arange(len(r))[(r > 1e-6) & (torch.arange(len(r)) > 3 * len(r) // 4)]
    return draft, target, token, u, _apart(draft, target, places[r[places].argsort()])


def _taken(draw: Draw, draft: Tensor, target: Tensor) -> tuple:
    """The same token, and a u that takes it."""
    draft, target, token, _, v = _refused(draw, draft, target)
    return draft, target, token, 0.9 * float(target.double()[token] / draft.double()[token]), v


def _places(seed: int) -> list[Case]:
    draw = Draw(seed)

    def pair(count: int = 9, sharp: float = 2.0) -> tuple[Tensor, Tensor]:
        return _chances(draw, count, sharp), _chances(draw, count, sharp)

    same = _chances(draw, 6)
    by_hand = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    longer = torch.tensor([0.0, 0.125, 0.125, 0.75]), torch.tensor([0.0, 0.375, 0.5, 0.125])
    forbidden = torch.tensor([0.5, 0.25, 0.25, 0.0]), torch.tensor([0.0, 0.5, 0.0, 0.5])
    u, v = float(draw.uniform(1)), float(draw.uniform(1))
    labelled = {
        "by hand: half of the zeros are refused, and a 2 comes": (*by_hand, 0, 0.75, v),
        "by hand: the other half are taken": (*by_hand, 0, 0.25 + u / 8, v),
        "u of p / q refuses": (*by_hand, 0, 0.5, v),
        "v of 0: the first token that p likes more than q does": (*longer, 3, 0.5 + u / 2, 0.0),
        "v of nearly 1: the last one": (*longer, 3, 0.5 + u / 2, 0.999999),
        "v as near to 1 as float64 comes": (*longer, 3, 0.5 + u / 2, ALMOST),
        "v at the end of the first one's share": (*longer, 3, 0.5 + u / 2, 0.4),
        "p has no chance for the token, and u is 0": (*forbidden, 0, 0.0, v),
        "p likes the token more than q does": (*by_hand, 2, 0.999, v),
        "the same probabilities, and u nearly 1": (same, same.clone(), 4, ALMOST, v),
        **_drawn(draw, pair),
        "one token": (torch.ones(1), torch.ones(1), 0, u, v),
        "one token, it gets twice the sum": (torch.tensor([0.5]), torch.ones(1), 0, u, v),
    }
    names = ("draft", "target", "token", "uniform_accept", "uniform_resample")
    return labelled_cases(names, labelled)


def _drawn(draw: Draw, pair) -> dict[str, tuple]:
    far = pair(40, 6.0)
    rare, half, brain = pair(64, 3.0), pair(), pair()
    tiny, near = _exact(1 - 3e-7, 1e-7, 1e-7, 1e-7), 0.2 + 0.04 * float(draw.uniform(1))
    seldom = _exact(0.5, 1e-20, 0.5), _exact(0.75, 5e-21, 0.25)
    hair_below = _taken(draw, *pair())
    hair_below = *hair_below[:3], hair_below[3] / 0.9 * (1 - 1e-12), near
    small = torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([0.25, 1e-10, 0.125, 0.625])
    inside = _apart(*small, torch.tensor([1]))
    return {
        **{f"nine tokens, refused, {name} time": _refused(draw, *pair()) for name in _TIMES},
        "nine tokens, taken": _taken(draw, *pair()),
        "2,048 tokens, refused": _refused(draw, *pair(2048)),
        "2,048 tokens, taken": _taken(draw, *pair(2048)),
        "far apart": _refused(draw, *far),
        "what differs is very small, float64": (
            _exact(0.25, 0.25, 0.5, 0.0),
            _exact(0.25 + 1e-14, 0.25 + 3e-14, 0.5 - 4e-14, 0.0),
            *(2, 1 - 4e-14, near),
        ),
        "a small share between two large ones": (*small, 3, 0.75, inside),
        "u a hair below p / q": hair_below,
        "p sees one token alone": (tiny.flip(0), tiny, 3, 0.5, float(draw.uniform(1)) / 2),
        "a token that is hardly ever drafted, taken": (*seldom, 1, 0.25, near),
        "a token that is hardly ever drafted, refused": (*seldom, 1, 0.75, near),
        "float16": _refused(draw, *(x.half() for x in half)),
        "float16, a token with a small share": _small_share(draw, *pair(2048, 2.0)),
        "bfloat16": _refused(draw, *(x.bfloat16() for x in brain)),
        "float16 and float64": _refused(draw, half[1].half(), half[0].double()),
        "views": _refused(draw, *(x.repeat_interleave(2)[::2] for x in rare)),
    }


ALMOST = 1 - 2**-53  # the largest number below 1 that float64 knows
_TIMES = ("first", "second", "third")


def _exact(*chances: float) -> Tensor:
    return torch.tensor(chances, dtype=torch.float64)


def _never_without_chance(inputs, value: int) -> bool:
    return bool(inputs["target"][value] > 0)


def _rule(accepts, residual, pick=None):
    """The exercise with another condition, other r, or another way to pick from r."""

    def wrong(draft, target, token, uniform_accept, uniform_resample):
        q, p = draft.double(), target.double()
        if accepts(p, q, token, uniform_accept):
            return token
        r = residual(p, q, token)
        return (pick or _inverse)(r, uniform_resample)

    return wrong


def _inverse(r: Tensor, v: float) -> int:
    up_to = r.cumsum(0)
    return min(int((up_to <= v * up_to[-1]).sum()), len(r) - 1)


def _ratio(p, q, token, u):
    return u < float(p[token] / q[token])


def _left(p, q, token):
    return (p - q).clamp(min=0)


ACCEPT_OR_RESAMPLE = Exercise(
    reference=accept_or_resample,
    cases=_places,
    hints=(
        "Two cases. The token is taken with probability p / q (always, where p is larger). If it "
        "is refused, another one is drawn, but not from p: from what p has more than q.",
        "r = (p − q).clamp(min=0). Its cumulative sums cut the line from 0 to Σ r into pieces, one "
        "for each token; v · Σ r is a place on that line. In whose piece does it lie?",
        "Pieces that end at the place or before it do not hold it: int((r.cumsum(0) <= v * "
        "r.cumsum(0)[-1]).sum()) counts them. Begin with draft.double() and target.double().",
    ),
    properties=(
        Property("a token comes that the target model gives a chance", _never_without_chance),
    ),
    misconceptions=(
        Misconception(
            "drawn again from p",
            _rule(_ratio, lambda p, q, token: p),
            "after a refusal you drew from p. Then tokens that q likes come too often: they had "
            "their chance to be taken already. Draw from what p has more than q.",
        ),
        Misconception(
            "the most likely one instead",
            _rule(_ratio, _left, lambda r, v: int(r.argmax())),
            "after a refusal you took the token that p has most more of. That is no draw: v says "
            "which token, each with a chance of its share of r.",
        ),
        Misconception(
            "taken only where greedy",
            _rule(lambda p, q, token, u: token == int(p.argmax()), _left),
            "you took the draft where it is the target's most likely token, as greedy decoding "
            "does. Here the text is drawn: u against p / q decides.",
        ),
        Misconception(
            "u against p",
            _rule(lambda p, q, token, u: u < float(p[token]), _left),
            "you compared u with p. The draft drew this token with probability q, and in all it "
            "should come with probability p: take the share p / q of the draws.",
        ),
        Misconception(
            "|p − q|",
            _rule(_ratio, lambda p, q, token: (p - q).abs()),
            "where q is larger than p nothing is missing: r is 0 there, not |p − q|.",
        ),
        Misconception(
            "v on a line of length 1",
            _rule(_ratio, _left, lambda r, v: min(int((r.cumsum(0) <= v).sum()), len(r) - 1)),
            "r adds up to less than 1, so v often lies beyond its end. Divide r by its sum, or "
            "multiply v by it.",
        ),
    ),
)

# --------------------------------------------------------------------- speculation_gain


def speculation_gain(alpha: float, gamma: int, cost: float) -> float:
    """How many times faster speculation is than the plain loop, on average.

    In a round the draft model draws gamma γ tokens, and the target model reads them all at once.
    Each is accepted with probability alpha α, 0 to 1, as long as those before it were. The token
    after the last accepted one is the target's own, so a round gives 1 + α + … + α^γ tokens on
    average. cost c: the time of one draft step; the target's pass takes 1, whatever it reads. γ may
    be 0, and so may α; α may also be 1.
    """
    tokens = sum(alpha**place for place in range(gamma + 1))
    return tokens / (gamma * cost + 1)


def _settings(seed: int) -> list[Case]:
    draw = Draw(seed)
    a, c = (float(x) for x in draw.uniform(2))
    labelled = {
        "half are accepted": (0.5, 3, 0.1 + c / 10),
        "most are accepted": (0.8 + 0.1 * a, draw.number(3, 8), 0.05),
        "a draft that costs nothing": (0.3 + 0.5 * a, draw.number(2, 9), 0.0),
        "a draft as slow as the model": (0.9, 4, 1.0 + c),
        "one token drafted": (0.2 + 0.5 * a, 1, 0.2 + c / 2),
        "none drafted": (0.7 * a, 0, c),
        "none accepted": (0.0, draw.number(2, 6), 0.1 + c / 10),
        "all accepted": (1.0, draw.number(2, 6), 0.1 + c / 10),
        "a hair less than all": (1 - 1e-14, draw.number(5, 9), 0.02 * c),
        "hardly any": (1e-9, draw.number(2, 6), 0.3 * c),
        "many drafted": (0.99, 100 + draw.number(0, 50), 0.01 * (1 + c)),
    }
    return labelled_cases(("alpha", "gamma", "cost"), labelled)


def _tokens(alpha: float, gamma: int) -> float:
    return sum(alpha**place for place in range(gamma + 1))


SPECULATION_GAIN = Exercise(
    reference=speculation_gain,
    cases=_settings,
    relative_tolerance=1e-9,
    absolute_tolerance=0.0,
    hints=(
        "The plain loop gives one token in a time of 1. What does a round give, and how long does "
        "it take?",
        "A round takes γ draft steps and one pass of the model: γ c + 1. Tokens over time is the "
        "answer.",
        "1 + α + … + α^γ is (1 − α^(γ+1)) / (1 − α), but for α = 1 that is 0 / 0. Add the powers "
        "up: sum(alpha**i for i in range(gamma + 1)).",
    ),
    properties=(
        Property(
            "a round gives at most γ + 1 tokens",
            lambda inputs, gain: (
                gain * (inputs["gamma"] * inputs["cost"] + 1) <= inputs["gamma"] + 1 + 1e-6
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "without the target's own token",
            lambda alpha, gamma, cost: (_tokens(alpha, gamma) - 1) / (gamma * cost + 1),
            "you counted the accepted drafts alone. The pass that checks them gives one token "
            "more, even where none is accepted.",
        ),
        Misconception(
            "each draft by itself",
            lambda alpha, gamma, cost: (1 + alpha * gamma) / (gamma * cost + 1),
            "1 + α γ would be right if a draft counted whatever became of those before it. The "
            "first that is refused ends the round: the i-th is accepted with probability α^i.",
        ),
        Misconception(
            "the draft is free",
            lambda alpha, gamma, cost: _tokens(alpha, gamma),
            "those are the tokens of a round. It takes longer than a plain step: γ draft steps of "
            "c.",
        ),
        Misconception(
            "the target's pass forgotten",
            lambda alpha, gamma, cost: _tokens(alpha, gamma) / max(gamma * cost, 1),
            "a round takes the γ draft steps and the target's pass as well: γ c + 1.",
        ),
        Misconception(
            "γ powers",
            lambda alpha, gamma, cost: (
                sum(alpha**place for place in range(gamma)) / (gamma * cost + 1)
            ),
            "the sum goes to α^γ, so it has γ + 1 terms: if all γ drafts are accepted, the "
            "target's own token follows them.",
        ),
        Misconception(
            "γ passes of the target",
            lambda alpha, gamma, cost: _tokens(alpha, gamma) / (gamma * (cost + 1) or 1),
            "the target model reads all drafts in one pass, which takes 1. That is the whole "
            "trick.",
        ),
    ),
)
