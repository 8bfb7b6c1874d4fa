"""Exercises of 04_structured_pruning: the weights that stay make up for those that go.

Axes: N examples, I inputs, K of them that stay, O outputs.
"""

from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def _related(draw: Draw, examples: int, inputs: int) -> Tensor:
    """Inputs (N, I) that foretell each other in part."""
    shared = draw.normal(examples, inputs // 2 + 1) @ draw.normal(inputs // 2 + 1, inputs)
    return shared + 0.5 * draw.normal(examples, inputs)


def _rising(inputs: Tensor) -> Tensor:
    """From 0 to twice as large: a mean of the means of unequal parts shows."""
    return inputs * torch.linspace(0, 2, len(inputs))[:, None]


# ---------------------------------------------------------------------------- refit_kept


def refit_kept(weight: Tensor, inputs: Tensor, keep: Tensor) -> Tensor:
    """V (O, K), which makes of the K inputs that stay nearly what W (O, I) made of all.

    With inputs x, the rows of X (N, I), and keep (I,), bool, V is the minimum of

        mean over x of ‖W x − V x_stay‖² + λ ‖V − W_stay‖²,   λ = 10⁻⁴ · mean of x_j² over x and j,

    j of the inputs that stay; these are not all 0. λ makes the minimum unique where the inputs that
    stay foretell each other, or where N < K. Reckon in float64; V is in the dtype of W.
    """
    X = inputs.double()
    stay = X[:, keep]
    moments = stay.T @ stay  # (N, K) -> (K, K): N times the mean, and so is all below
    moments.diagonal().add_(1e-4 * moments.diagonal().mean())
    lost = X[:, ~keep] @ weight[:, ~keep].double().T  # (N, I − K) (I − K, O) -> (N, O)
    moved = torch.linalg.solve(moments, stay.T @ lost)  # (K, O)
    return (weight[:, keep] + moved.T).to(weight.dtype)


def _cut(draw: Draw, outputs: int, inputs: int, examples: int, stay: int) -> tuple[Tensor, ...]:
    x = _related(draw, examples, inputs)
    return draw.normal(outputs, inputs), x, draw.order(inputs) < stay


def _cuts(seed: int) -> list[Case]:
    draw = Draw(seed)
    cut = partial(_cut, draw)
    size = draw.number(1, 9)
    quarter = torch.tensor([[100.0, 0.0, 0.0], [0.0, 1.0, 1.0]])  # λ = 0.250025
    twin = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    w, x, keep = cut(4, 8, 20, 5)
    many = cut(2, 5, 3701, 3)
    labelled = {
        "by hand: λ is ¼, and two thirds come back": (
            torch.tensor([[1.0, 1.0, 3.0]]) * size,
            quarter,
            torch.tensor([True, True, False]),
        ),
        "the lost input is three times the other": (
            torch.tensor([[1.0, 2.0]]) * size,
            twin,
            torch.tensor([True, False]),
        ),
        "seven inputs, four stay": cut(3, 7, 20, 4),
        "as many outputs and examples as inputs": cut(6, 6, 6, 3),
        **_spoiled_cuts(draw),
        "fewer examples than inputs": cut(3, 9, 4, 6),
        "one example": cut(3, 6, 1, 4),
        "many examples, the later ones larger": (many[0], _rising(many[1]), many[2]),
        "one stays": cut(3, 6, 20, 1),
        "one goes": cut(3, 6, 20, 5),
        "all stay": cut(3, 5, 20, 5),
        "one input": (1 + draw.uniform(1, 1), draw.normal(4, 1), torch.tensor([True])),
        "one output": cut(1, 8, 20, 4),
        "weights of zero": (
            torch.tensor([[0.0, -0.0, 1.0, 0.0, -2.0]]),
            _related(draw, 12, 5),
            torch.tensor([True, False, True, True, False]),
        ),
        "views": (w.T.clone().T, x.T.clone().T, keep.repeat_interleave(2)[::2]),
        **_scaled_cuts(draw),
    }
    return labelled_cases(("weight", "inputs", "keep"), labelled)


def _spoiled_cuts(draw: Draw) -> dict[str, tuple[Tensor, ...]]:
    """Of seven inputs the first four stay; some are twins, silent, or of another size."""
    twin_goes, twins_stay, silent, silent_goes, loud, quiet = (
        (*_cut(draw, 3, 7, 20, 4)[:2], torch.arange(7) < 4) for _ in range(6)
    )
    twin_goes[1][:, 6] = 3 * twin_goes[1][:, 0]
    twins_stay[1][:, 1] = -2 * twins_stay[1][:, 0]
    silent[1][:, 2] = 0
    silent_goes[1][:, 5] = 0
    loud[1][:, 4:] *= 1e3
    quiet[1][:, 4:] *= 1e-3
    return {
        "a twin goes": twin_goes,
        "twins stay": twins_stay,
        "an input that is always 0 stays": silent,
        "an input that is always 0 goes": silent_goes,
        "what goes is far larger": loud,
        "what goes is far smaller": quiet,
    }


def _scaled_cuts(draw: Draw) -> dict[str, tuple[Tensor, ...]]:
    def cut(of_weight=1.0, of_inputs=1.0, dtype=torch.float32, shift: float = 0.0):
        weight, inputs, keep = _cut(draw, 3, 7, 20, 4)
        return of_weight * weight.to(dtype), of_inputs * inputs.to(dtype) + shift, keep

    rows, sizes = torch.tensor([1e-9, 1.0, 1e9])[:, None], 10 ** (4 * draw.uniform(7) - 2)
    brain, half = cut(), cut()
    return {
        "inputs with a mean": cut(shift=5.0),
        "inputs of very different size": cut(1 / sizes, sizes),
        "rows of very different size": cut(rows),
        "very small inputs": cut(1, 1e-9),
        "very large inputs": cut(1, 1e9),
        "float16": cut(dtype=torch.float16),
        "bfloat16, inputs in float32": (brain[0].bfloat16(), *brain[1:]),
        "inputs in float16, too large to be squared": (half[0], (200 * half[1]).half(), half[2]),
        "what goes nearly cancels": _cancelling(draw),
        "float64": cut(dtype=torch.float64),
        "float64, smaller than float32 knows": cut(1e-60, 1e-60, torch.float64),
    }


def _cancelling(draw: Draw) -> tuple[Tensor, ...]:
    """The input that goes is three times one that stays, and read with the opposite sign."""
    weight, inputs = draw.normal(9, 4), draw.normal(20, 4)
    weight[:, 0], inputs[:, 3] = -3 * weight[:, 3], 3 * inputs[:, 0]
    return weight, inputs, torch.arange(4) < 3


def _balanced(inputs, value: Tensor) -> bool:
    """The derivative by V is 0: mean (W x − V x_stay) x_stayᵀ = λ (V − W_stay)."""
    keep, w, x = inputs["keep"], inputs["weight"].double(), inputs["inputs"].double()
    v, stay = value.double(), x[:, keep]
    pull = (x @ w.T - stay @ v.T).T @ stay / len(x)
    level = 1e-4 * stay.square().mean()
    held = level * (v - w[:, keep])
    terms = (x.abs() @ w.abs().T + stay.abs() @ v.abs().T).T @ stay.abs() / len(x)
    terms += level * (v.abs() + w[:, keep].abs())
    rounding = max(10 * torch.finfo(value.dtype).eps, 1e-6)
    return bool(((pull - held).abs() <= rounding * terms).all())


def _silent_ones_stay(inputs, value: Tensor) -> bool:
    keep = inputs["keep"]
    silent = (inputs["inputs"][:, keep] == 0).all(0)
    old = inputs["weight"][:, keep][:, silent].double()
    return bool(torch.isclose(value[:, silent].double(), old, rtol=1e-5, atol=1e-12).all())


def _solved(level_of, towards_what_was: bool = True):
    """V for another λ, of (X, keep); or held near 0 instead of near what the weights were."""

    def wrong(weight, inputs, keep):
        X, W = inputs.double(), weight.double()
        stay = X[:, keep]
        held = W[:, keep] * towards_what_was
        target = X @ W.T - stay @ held.T  # (N, O)
        moments = stay.T @ stay / len(X)
        moments.diagonal().add_(level_of(X, keep))
        moved = torch.linalg.solve(moments, stay.T @ target / len(X))
        return (held + moved.T).to(weight.dtype)

    return wrong


def _level(X, keep):
    return 1e-4 * X[:, keep].square().mean()


def _least_squares(weight, inputs, keep):
    """Without damping, the shortest."""
    X = inputs.double()
    return (torch.linalg.pinv(X[:, keep]) @ X @ weight.double().T).T.to(weight.dtype)


REFIT_KEPT = Exercise(
    reference=refit_kept,
    cases=_cuts,
    absolute_tolerance=0.0,
    hints=(
        "Call what moves Δ = V − W_stay. Then W x − V x_stay = W_gone x_gone − Δ x_stay: foretell "
        "what was lost from what is left. That is least squares, for all outputs at once.",
        "With G = XᵀX / N, set the derivative by Δ to zero: Δ (G_stay,stay + λ 1) = W_gone "
        "G_gone,stay. The λ pulls Δ to 0, and so V to W_stay.",
        "G = X.T @ X / len(X) in .double(). λ = 1e-4 * G_ss.diagonal().mean(), where G_ss = "
        "G[keep][:, keep]. torch.linalg.solve(G_ss + λ 1, G[keep][:, ~keep] @ W_goneᵀ) is Δᵀ. The "
        "1 in float64, too: torch.eye is float32 unless you say otherwise.",
    ),
    properties=(
        Property(
            "mean (W x − V x_stay) x_stayᵀ = λ (V − W_stay): the derivative by V is zero", _balanced
        ),
        Property("the column of an input that is always 0 stays as it was", _silent_ones_stay),
    ),
    misconceptions=(
        Misconception(
            "columns cut",
            lambda w, x, keep: w[:, keep],
            "the columns that stay are what they were. They can make up for what went as far as "
            "their inputs foretell it: move them.",
        ),
        Misconception(
            "only what moved",
            lambda w, x, keep: (refit_kept(w, x, keep).double() - w[:, keep].double()).to(w.dtype),
            "that is Δ, by which the columns move. Add the columns.",
        ),
        Misconception(
            "not held",
            _least_squares,
            "that is least squares without λ. Where the inputs that stay foretell each other, or "
            "examples are few, many V fit the examples equally well, and one of these is a guess.",
        ),
        Misconception(
            "held near zero",
            _solved(_level, towards_what_was=False),
            "your λ pulls V to 0, as ridge regression does. Here it holds V near W_stay: where "
            "nothing was lost nothing may move, and a silent input keeps its column.",
        ),
        Misconception(
            "the same λ for all",
            _solved(lambda X, keep: 1e-4),
            "λ is 10⁻⁴ whatever the inputs are. With inputs a thousand times larger it does "
            "nothing, with smaller ones it rules. Measure it in the mean of x_j².",
        ),
        Misconception(
            "λ of all inputs",
            _solved(lambda X, keep: 1e-4 * X.square().mean()),
            "you took the mean of x_j² over all inputs. What goes is no part of the system that "
            "you solve: only the inputs that stay set its scale.",
        ),
    ),
)

# -------------------------------------------------------------------------- repair_error


def repair_error(weight: Tensor, inputs: Tensor) -> Tensor:
    """For each input, the error of W x that is left if it goes and the others are refitted: (I,).

    weight W (O, I); inputs x, the rows of X (N, I). Entry i is the least mean over x of
    ‖W x − V x‖² that a V (O, I) reaches whose column i is 0. XᵀX can be inverted: no input is
    foretold by the others. I may be 800, and there are 2 seconds: do not refit I times. Reckon in
    float64, whatever comes in; the result is float64.
    """
    X = inputs.double()
    inverse = torch.linalg.inv((X.T @ X).div(len(X)))  # (I, I)
    return weight.double().square().sum(dim=0) / inverse.diagonal()


def _of_six(draw: Draw, of_weight: float = 1, of_inputs: float = 1) -> tuple[Tensor, Tensor]:
    """A layer of three outputs and six inputs, and 40 examples."""
    return of_weight * draw.normal(3, 6), of_inputs * _related(draw, 40, 6)


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)

    def layer(outputs: int, inputs: int, examples: int) -> tuple[Tensor, Tensor]:
        return draw.normal(outputs, inputs), _related(draw, examples, inputs)

    unread = draw.normal(3, 5) * torch.tensor([1.0, 0.0, -1.0, 1.0, -0.0])
    w, x = layer(4, 7, 30)
    by_hand = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    labelled = {
        "by hand": (by_hand[0] * draw.number(1, 9), by_hand[1]),
        "six inputs": _of_six(draw),
        "inputs that foretell nothing": (draw.normal(3, 4), torch.diag(1.0 + torch.arange(4))),
        "as many outputs as inputs": layer(5, 5, 30),
        "hardly more examples than inputs": layer(3, 6, 9),
        "many examples, the later ones larger": (
            draw.normal(2, 5),
            _rising(_related(draw, 3701, 5)),
        ),
        "one input": layer(3, 1, 8),
        "one output": layer(1, 6, 25),
        "an input that nobody reads": (unread, _related(draw, 30, 5)),
        "views": (w.T.clone().T, x.T.clone().T),
        **_odd_layers(draw),
        "800 inputs": (draw.normal(5, 800), draw.normal(900, 800)),
    }
    return labelled_cases(("weight", "inputs"), labelled)


def _odd_layers(draw: Draw) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs that are nearly alike, scales and dtypes."""
    nearly_twins, nearer, shifted, uneven, half, brain = (_of_six(draw) for _ in range(6))
    nearly_twins[1][:, 4] = nearly_twins[1][:, 1] + 1e-3 * draw.normal(40)
    close = nearer[1].double()
    close[:, 4] = close[:, 1] + 1e-4 * draw.normal(40)
    sizes = 10 ** (3 * draw.uniform(6) - 1.5)
    return {
        "nearly twins": nearly_twins,
        "float64, more nearly twins": (nearer[0], close),
        "inputs with a mean": (shifted[0], shifted[1] + 10),
        "inputs of very different size": (uneven[0] / sizes, uneven[1] * sizes),
        "very small inputs": _of_six(draw, of_inputs=1e-9),
        "very large inputs": _of_six(draw, of_inputs=1e9),
        "very small weights": _of_six(draw, of_weight=1e-9),
        "weights too large to be squared in float32": _of_six(draw, of_weight=1e25),
        "float16": (half[0].half(), half[1].half()),
        "bfloat16, inputs in float32": (brain[0].bfloat16(), brain[1]),
        "float64": tuple(part.double() for part in _of_six(draw)),
        "float64, smaller than float32 knows": tuple(
            1e-60 * part.double() for part in _of_six(draw)
        ),
    }


BY_FORCE = 10  # inputs, at most: so many are refitted one after another


def _as_by_force(inputs, value: Tensor) -> bool:
    W, X = inputs["weight"].double(), inputs["inputs"].double()
    if X.shape[1] > BY_FORCE:
        return True
    target, errors = X @ W.T, []
    for place in range(X.shape[1]):
        others = torch.cat([X[:, :place], X[:, place + 1 :]], dim=1)
        left = target - others @ (torch.linalg.pinv(others) @ target)
        errors.append(left.square().sum() / len(X))
    errors = torch.stack(errors)
    return torch.allclose(value, errors, rtol=1e-5, atol=1e-9 * float(errors.max()))


def _of_moments(error_of):
    """error_of(W, G, N) in float64."""

    def wrong(weight, inputs):
        X = inputs.double()
        return error_of(weight.double(), X.T @ X / len(X), len(X))

    return wrong


def _squares(W: Tensor) -> Tensor:
    return W.square().sum(0)


def _own(G: Tensor) -> Tensor:
    """[G⁻¹]_ii."""
    return torch.linalg.inv(G).diagonal()


REPAIR_ERROR = Exercise(
    reference=repair_error,
    cases=_layers,
    absolute_tolerance=0.0,
    hints=(
        "Optimal Brain Surgeon removes one weight of one output: the error that is left is "
        "½ w² / [H⁻¹]_ii, with H = 2 XᵀX / N. Here w_i goes in every output.",
        "With G = XᵀX / N = H / 2 that is w² / [G⁻¹]_ii. G depends on the inputs alone, so all "
        "outputs share it, and their errors add up.",
        "G = X.T @ X / len(X) and torch.linalg.inv(G).diagonal(), in .double(); then "
        "weight.double().square().sum(0) / that diagonal.",
    ),
    properties=(
        Property("as by force: each input left out in turn, and the others refitted", _as_by_force),
    ),
    misconceptions=(
        Misconception(
            "the others stay",
            _of_moments(lambda W, G, N: _squares(W) * G.diagonal()),
            "that is Σ w² G_ii: the error if the other columns stay as they are. It cannot see "
            "that another input says the same.",
        ),
        Misconception(
            "times the inverse",
            _of_moments(lambda W, G, N: _squares(W) * _own(G)),
            "you multiplied by [G⁻¹]_ii. An input that the others nearly foretell has a *large* "
            "[G⁻¹]_ii, and costs little: divide.",
        ),
        Misconception(
            "summed over the examples",
            _of_moments(lambda W, G, N: N * _squares(W) / _own(G)),
            "you took XᵀX, so the error is a sum over the examples. A mean is asked for: XᵀX / N.",
        ),
        Misconception(
            "twice",
            _of_moments(lambda W, G, N: 2 * _squares(W) / _own(G)),
            "that is twice the error. With the Hessian H = 2 G the formula is ½ w² / [H⁻¹]_ii: the "
            "½ and the 2 cancel.",
        ),
        Misconception(
            "mean over the outputs",
            _of_moments(lambda W, G, N: W.square().mean(0) / _own(G)),
            "you took the mean over the outputs. ‖W x‖² adds them up.",
        ),
        Misconception(
            "each output by itself",
            _of_moments(lambda W, G, N: W.square() / _own(G)),
            "you have a number for each weight. Input i goes as a whole: add up over the outputs.",
        ),
    ),
)
