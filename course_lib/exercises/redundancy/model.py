"""Exercises of 01_redundancy: directions, units and twins that a model does not need.

Axes: N tokens, F hidden units, I inputs, O outputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------------ effective_rank


def effective_rank(matrix: Tensor) -> Tensor:
    """exp of the entropy (in nats) of the singular values, taken as shares of their sum.

    matrix: (O, I), not all zeros, however large or small. Returns a 0-d tensor of its dtype.
    """
    values = torch.linalg.svdvals(matrix)
    return torch.special.entr(values / values.sum()).sum().exp()


def _matrices(seed: int) -> list[Case]:
    draw = Draw(seed)
    wide = draw.normal(4, 9)
    left, right = draw.normal(6, 2), draw.normal(2, 5)
    turned = torch.linalg.qr(draw.normal(4, 4)).Q
    inputs = {
        "three equal directions": (torch.eye(3),),
        "two and a half": (torch.diag(torch.tensor([2.0, 2.0, 1.0])),),
        "a zero among the singular values": (torch.diag(torch.tensor([3.0, 1.0, 0.0])),),
        "a random matrix": (wide,),
        "a product of thin matrices": (left @ right,),
        "a rotated diagonal": (turned @ torch.diag(torch.tensor([4.0, 1.0, 0.5, 0.1])),),
        "the same, a hundred times larger": (100 * wide,),
        "a billion times larger": (1e9 * draw.normal(5, 3),),
        "a billion times smaller": (1e-9 * draw.normal(3, 5),),
        "as small as float64 knows": (1e-60 * draw.normal(4, 6).double(),),
        "in float64": (draw.normal(7, 3).double(),),
        "one strong direction": (torch.diag(torch.cat([torch.tensor([1e4]), draw.uniform(9)])),),
        "many directions": (draw.normal(40, 25),),
        "one row": (draw.normal(1, 6),),
        "one column": (draw.normal(5, 1),),
        "one number": (torch.tensor([[-2.5]]),),
    }
    return labelled_cases(("matrix",), inputs)


def _rank_of_shares(shares):
    return torch.special.entr(shares).sum().exp()


def _energy_shares(matrix):
    energy = torch.linalg.svdvals(matrix).square()
    return _rank_of_shares(energy / energy.sum())


def _stable(matrix):
    energy = torch.linalg.svdvals(matrix).square()
    return energy.sum() / energy[0]


def _entropy_only(matrix):
    values = torch.linalg.svdvals(matrix)
    return torch.special.entr(values / values.sum()).sum()


def _bits_and_exp(matrix):
    values = torch.linalg.svdvals(matrix)
    return (torch.special.entr(values / values.sum()).sum() / torch.tensor(2.0).log()).exp()


def _zero_times_log(matrix):
    values = torch.linalg.svdvals(matrix)
    shares = values / values.sum()
    return (-(shares * shares.log()).sum()).exp()


EFFECTIVE_RANK = Exercise(
    reference=effective_rank,
    cases=_matrices,
    relative_tolerance=1e-4,
    hints=(
        "torch.linalg.svdvals gives the singular values. Divided by their sum they are shares.",
        "The entropy is −Σ p ln p. torch.special.entr(p) is −p ln p, and 0 where p is 0.",
        "n equal shares have the entropy ln n. exp turns it back into n.",
    ),
    properties=(
        Property(
            "between one and the smaller side of the matrix",
            lambda inputs, v: bool(0.999 <= v <= 1.001 * min(inputs["matrix"].shape)),
        ),
    ),
    misconceptions=(
        Misconception(
            "squares",
            _energy_shares,
            "you took shares of σ², the energy. It is a useful count as well, and smaller; the "
            "effective rank of Roy and Vetterli takes shares of σ.",
        ),
        Misconception(
            "stable rank",
            _stable,
            "Σ σ² / σ₁² is the stable rank. It looks at the largest singular value alone.",
        ),
        Misconception(
            "entropy left as it is",
            _entropy_only,
            "that is the entropy, in nats. Its exponential is a number of directions.",
        ),
        Misconception(
            "bits and exp",
            _bits_and_exp,
            "the entropy is in bits (log₂) but was raised to a power of e. Use ln and exp, or log₂ "
            "and 2 to the power.",
        ),
        Misconception(
            "rank",
            lambda matrix: torch.linalg.matrix_rank(matrix).float(),
            "that is the ordinary rank. It counts every direction that is not exactly zero, and "
            "noise makes all of them so.",
        ),
        Misconception(
            "zero times minus infinity",
            _zero_times_log,
            "where a singular value is zero, ln 0 is −∞ and 0 · ∞ is no number. The term −p ln p "
            "goes to 0 with p: use torch.special.entr, or leave such values out.",
        ),
    ),
)

# ---------------------------------------------------------------------------- dead_units


def dead_units(batches: list[Tensor], tolerance: float) -> Tensor:
    """True for each unit whose largest |h| over all batches is at most tolerance · RMS: (F,).

    batches: values after the activation, (N, F) each, N need not be equal. RMS: root mean square
    of all values of all batches; where it is 0, all units are dead.
    """
    hidden = torch.cat(batches)
    return hidden.abs().amax(dim=0) <= tolerance * hidden.square().mean().sqrt()


def _batches(seed: int) -> list[Case]:
    draw = Draw(seed)
    silu = torch.nn.functional.silu
    inputs = {
        "two batches after ReLU": (_hidden(draw, torch.relu), 0.0),
        "two batches after SiLU": (_hidden(draw, silu), 0.02),
        "the same, ten times larger": (_hidden(draw, silu, 10), 0.02),
        "a billion times larger": (_hidden(draw, silu, 1e9), 0.02),
        "a billion times smaller": (_hidden(draw, silu, 1e-9), 0.02),
        "a unit that wakes up once": ([torch.eye(4)[:, :3], torch.zeros(4, 3)], 0.0),
        "a unit that cancels itself": ([torch.tensor([[1.0, 2.0, 0.0], [1.0, -2.0, 0.01]])], 0.1),
        "batches of different sizes": (
            [torch.zeros(1, 2), torch.tensor([[0.0, 1.0]] * 5), torch.tensor([[0.2, 0.0]])],
            0.25,
        ),
        "a loud short batch, a quiet long one": (
            [torch.tensor([[10.0, 0.015, 0.025]]), torch.tensor([[0.1, 0.015, 0.025]] * 9)],
            0.01,
        ),
        "values far from zero": ([torch.tensor([[5.0, 6.0, 0.4], [6.0, 5.0, 0.4]])], 0.1),
        "the last unit is the loud one": ([torch.tensor([[0.5, 0.1, 9.0], [0.2, 0.1, 9.0]])], 0.09),
        "a spark in a long text": (_spark(draw), 0.5),
        "hardly more than zero": ([torch.tensor([[1.0, 1e-9, -0.0]])], 0.0),
        "less than float32 can hold": (
            [torch.tensor([[1.0, 1e-60, 0.0]], dtype=torch.float64)],
            0.0,
        ),
        "all on the limit": ([torch.full((2, 2), 2.0)], 1.0),
        "nothing wakes anything": ([torch.zeros(3, 4), torch.zeros(2, 4)], 0.1),
        "a unit alone": ([draw.normal(1, 1), draw.normal(2, 1)], 0.5),
        "many units": (_some_dead(draw), 0.05),
    }
    return labelled_cases(("batches", "tolerance"), inputs)


def _hidden(draw: Draw, activation, gain=1.0) -> list[Tensor]:
    """Six units: usual, asleep in the first batch, dead, tiny, negative only, usual."""
    batches = []
    for number in range(2):
        h = draw.normal(8, 6)
        h[:, 1] = h[:, 1].abs() if number else -9 - h[:, 1].abs()
        h[:, 2] = -12 - h[:, 2].abs()
        h[:, 3] = 0.01 * h[:, 3].clamp(-1, 1)
        h[:, 4] = -1 - h[:, 4].abs()
        batches.append(gain * activation(h))
    return batches


def _spark(draw: Draw) -> list[Tensor]:
    """300 tokens; unit 1 is awake for a single one of them."""
    h = draw.normal(3000, 3)
    h[:, 1] = 0
    h[draw.number(0, 3000), 1] = 2
    return [h[:100], h[100:]]


def _some_dead(draw: Draw) -> list[Tensor]:
    """Twenty units, each at its own loudness: far below the limit or far above it."""
    loud = 10.0 ** (draw.integers(0, 2, 20) * 3 - 3)
    batches = [(0.5 + draw.uniform(n, 20)) * loud for n in (3, 1, 6)]
    batches[1] = torch.where(draw.uniform(20) < 0.5, batches[1], 0.0)
    return batches


def _rms(hidden):
    return hidden.square().mean().sqrt()


def _any_batch(batches, tolerance):
    small = [h.abs().amax(dim=0) <= tolerance * _rms(torch.cat(batches)) for h in batches]
    return torch.stack(small).any(dim=0)


def _rms_of_each(batches, tolerance):
    return torch.stack([h.abs().amax(dim=0) <= tolerance * _rms(h) for h in batches]).all(dim=0)


def _mean_of_values(batches, tolerance):
    hidden = torch.cat(batches)
    return hidden.mean(dim=0).abs() <= tolerance * _rms(hidden)


def _no_abs(batches, tolerance):
    hidden = torch.cat(batches)
    return hidden.amax(dim=0) <= tolerance * _rms(hidden)


DEAD_UNITS = Exercise(
    reference=dead_units,
    cases=_batches,
    hints=(
        "A unit is dead if nothing ever wakes it. Look at all the data at once: torch.cat.",
        "Its largest absolute value decides: .abs().amax(dim=0) goes over tokens, not over units.",
        "Compare it with tolerance times the root mean square of all values, with ≤, so that "
        "tolerance 0 finds exact zeros.",
    ),
    misconceptions=(
        Misconception(
            "first batch only",
            lambda batches, t: batches[0].abs().amax(dim=0) <= t * _rms(batches[0]),
            "you looked at one batch. A unit may sleep there and be all that knows the next one: "
            "remove it, and the damage shows where you did not look.",
        ),
        Misconception(
            "dead in some batch",
            _any_batch,
            "a unit that sleeps in one batch was called dead. It has to sleep in all of them.",
        ),
        Misconception(
            "a yardstick for each batch",
            _rms_of_each,
            "each batch was measured with its own RMS. One yardstick for all: the RMS of all "
            "values together.",
        ),
        Misconception(
            "mean of the values",
            _mean_of_values,
            "positive and negative values cancelled in the mean, and rare large ones vanished in "
            "it. What counts is the largest absolute value.",
        ),
        Misconception(
            "sign forgotten",
            _no_abs,
            "you took the largest value instead of the largest absolute value. SiLU goes below "
            "zero, and a unit that is always at −0.2 does something.",
        ),
        Misconception(
            "absolute tolerance",
            lambda batches, t: torch.cat(batches).abs().amax(dim=0) <= t,
            "the tolerance was taken as a value instead of as a share of the root mean square. "
            "Then multiplying everything by ten brings units back to life.",
        ),
    ),
)

# --------------------------------------------------------------------------- merge_twins


def merge_twins(incoming: Tensor, outgoing: Tensor, keep: int, drop: int) -> tuple[Tensor, Tensor]:
    """(incoming, outgoing) without unit `drop`, and the same outgoing · relu(incoming · x) as ever.

    incoming (F, I), outgoing (O, F), and incoming[drop] = c · incoming[keep] for some c > 0; some
    of its numbers may be 0, but not all. All other rows of `incoming` stay as they are.
    """
    c = incoming[drop].norm() / incoming[keep].norm()
    merged = outgoing.clone()
    merged[:, keep] += c * outgoing[:, drop]
    return (
        torch.cat([incoming[:drop], incoming[drop + 1 :]]),
        torch.cat([merged[:, :drop], merged[:, drop + 1 :]], dim=1),
    )


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)
    c = 0.2 + 3 * float(draw.uniform(1))
    third = _twins(draw, (6, 4, 3), 1, 4, 0.5)
    third[0][5] = 3 * third[0][1]
    sparse = [_twins(draw, (4, 4, 2), 0, 2, c, kept) for kept in ([0, 2, -2, 0], [-3, 0, 0, 0])]
    doubles = [tensor.double() for tensor in _twins(draw, (5, 3, 3), 0, 3, c)[:2]]
    inputs = {
        "equal rows": _twins(draw, (4, 3, 2), 0, 2, 1.0),
        "a twin of twice the length": _twins(draw, (5, 4, 3), 1, 3, 2.0),
        "a shorter twin": _twins(draw, (5, 4, 3), 2, 4, 0.3),
        "the first unit goes": _twins(draw, (4, 3, 2), 3, 0, 1.7),
        "two units in all": _twins(draw, (2, 3, 1), 0, 1, 0.5),
        "one input, one output": _twins(draw, (3, 1, 1), 2, 1, c),
        "a row that begins and ends with 0": sparse[0],
        "a row with a single number": sparse[1],
        "a third twin stays": third,
        "a twin a million times as long": _twins(draw, (4, 3, 2), 1, 2, 1e6),
        "tiny rows": _twins(draw, (5, 3, 2), 1, 3, c, scale=1e-9),
        "huge rows": _twins(draw, (5, 3, 2), 3, 1, c, scale=1e9),
        "in float64": (1e-60 * doubles[0], 1e60 * doubles[1], 0, 3),
        "any two": _twins(draw, (12, 9, 7), *draw.order(12)[:2].tolist(), c),
    }
    return labelled_cases(("incoming", "outgoing", "keep", "drop"), inputs)


def _twins(draw: Draw, shape: tuple, keep: int, drop: int, c: float, kept=None, scale=1.0) -> tuple:
    """A case's inputs. shape: units, inputs, outputs; kept: the row of unit `keep`, else random."""
    units, width, outputs = shape
    incoming = scale * draw.normal(units, width)
    if kept:
        incoming[keep] = torch.tensor(kept, dtype=torch.float32)
    incoming[drop] = c * incoming[keep]
    return incoming, draw.normal(outputs, units), keep, drop


def _without(matrix, drop, dim):
    rest = [unit for unit in range(matrix.shape[dim]) if unit != drop]
    return matrix[rest] if dim == 0 else matrix[:, rest]


def _merged(new_column, new_row=None) -> Callable:
    """Wrong mergers: what becomes of the kept unit's outgoing column, and incoming row."""

    def merge(incoming, outgoing, keep, drop):
        c = incoming[drop].norm() / incoming[keep].norm()
        first, second = incoming.clone(), outgoing.clone()
        second[:, keep] = new_column(outgoing[:, keep], outgoing[:, drop], c)
        if new_row:
            first[keep] = new_row(incoming[keep], incoming[drop])
        return _without(first, drop, 0), _without(second, drop, 1)

    return merge


def _same_function(inputs, value) -> bool:
    x = Draw(3).normal(inputs["incoming"].shape[1], 7).to(inputs["incoming"].dtype)
    before = inputs["outgoing"] @ (inputs["incoming"] @ x).relu()
    error = value[1] @ (value[0] @ x).relu() - before
    return bool(error.abs().max() <= 1e-4 * before.abs().max())


MERGE_TWINS = Exercise(
    reference=merge_twins,
    cases=_layers,
    hints=(
        "Write down what the two units add to y: outgoing_k h_k + outgoing_d h_d. What is h_d?",
        "relu(c z) = c relu(z) for c > 0, so h_d = c h_k: the kept unit needs outgoing_k + c · "
        "outgoing_d. And c is the ratio of the lengths of the two incoming rows.",
        "Change a clone of `outgoing`, then leave row `drop` out of one matrix and column `drop` "
        "out of the other.",
    ),
    properties=(Property("the layer computes the same as before", _same_function),),
    misconceptions=(
        Misconception(
            "dropped without a word",
            _merged(lambda kept, gone, c: kept),
            "the twin is gone, and so is what it added to the output. Each of two twins is needed "
            "as long as the other has not taken over its outgoing weights.",
        ),
        Misconception(
            "scale forgotten",
            _merged(lambda kept, gone, c: kept + gone),
            "you added the outgoing weights as they are. The twin was c times as loud, so its "
            "weights count c times; equal rows (c = 1) hide the mistake.",
        ),
        Misconception(
            "scale upside down",
            _merged(lambda kept, gone, c: kept + gone / c),
            "the ratio is upside down. If the dropped row was twice as long, its values were twice "
            "as large, and the kept unit has to do twice the work for it.",
        ),
        Misconception(
            "averaged",
            _merged(lambda kept, gone, c: (kept + c * gone) / 2),
            "you took the mean of the outgoing weights. Two units were adding up; one alone has to "
            "give their sum.",
        ),
        Misconception(
            "both sides added",
            _merged(lambda kept, gone, c: kept + gone, lambda kept, gone: kept + gone),
            "you added the incoming rows as well as the outgoing columns. The unit is louder now "
            "and also counted more: the product grows twice.",
        ),
    ),
)
