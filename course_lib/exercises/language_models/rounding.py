"""Exercises of 11_language_models: weights rounded one column at a time, and what is made up for.

Axes: O outputs, I inputs.
"""

from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# --------------------------------------------------------------------------- gptq_column


def gptq_column(weight: Tensor, factor: Tensor, column: int, scale: Tensor, bits: int) -> Tensor:
    """A new weight (O, I): column w_j rounded to ŵ_j, later columns moved, earlier ones untouched.

    ŵ_j = scale · code, the nearest for codes −m … m, m = 2**(bits − 1) − 1, bits ≥ 2; scale (O, 1).
    Column k > j becomes w_k − (w_j − ŵ_j) · U_jk / U_jj. factor U (I, I) is upper triangular. All
    tensors have one dtype, float32 or float64; reckon in it or wider, answer in it.
    """
    largest = 2 ** (bits - 1) - 1
    old = weight[:, column : column + 1]  # (O, 1)
    rounded = (old / scale).round().clamp(-largest, largest) * scale
    error = (old - rounded) / factor[column, column]
    later = weight[:, column + 1 :] - error * factor[column, column + 1 :]
    return torch.cat([weight[:, :column], rounded, later], dim=1)


def _one_step(
    draw: Draw,
    outputs: int,
    inputs: int,
    column: int,
    bits: int = 4,
    beyond: int = 0,
    power: int = 0,
) -> tuple:
    """Multiples of powers of two, so that the step is exact in float32, in any order.

    Every weight is at most 3/8 of a step from a level; codes reach `beyond` the largest, those
    of the column both ways.
    """
    largest, scale = 2 ** (bits - 1) - 1 + beyond, 2.0 ** draw.integers(-2, 3, outputs, 1)
    codes = draw.integers(-largest, largest + 1, outputs, inputs)
    if beyond:
        codes[:2, column] = torch.tensor([-largest, largest])
    codes = codes + draw.integers(-3, 4, outputs, inputs) / 8
    factor = (draw.integers(1, 8, inputs, inputs) / 4).triu(1)
    factor += torch.diag(2.0 ** (power + draw.integers(-1, 2, inputs)))
    signs = 1.0 - 2 * draw.integers(0, 2, inputs, inputs)
    signs.fill_diagonal_(1)
    return codes * scale, factor * signs, column, scale, bits


def _columns(seed: int) -> list[Case]:
    draw = Draw(seed)
    layer = partial(_one_step, draw)
    sizes = 2.0 ** torch.tensor([[-30.0], [0], [30], [-10]])
    weight, factor, column, scale, bits = layer(4, 6, 2)
    weight[:, column, None] = scale * (draw.number(3, 7) + 0.25)
    exact = layer(3, 5, 1)
    double = layer(3, 5, 2)
    fine = double[0].double() + 2.0**-30 * draw.integers(1, 9, 3, 5)
    labelled = {
        "the first column": layer(2, 3, 0),
        "a column in the middle": layer(4, 6, draw.number(1, 5)),
        "the last column": layer(3, 4, 3),
        "weights beyond the grid": layer(6, 5, draw.number(1, 4), bits=3, beyond=6),
        "two bits": layer(4, 5, 2, bits=2, beyond=1),
        "eight bits": layer(3, 5, 1, bits=8),
        "rows of very different size": (weight * sizes, factor, column, scale * sizes, bits),
        "weights on the grid already": (exact[0].div(exact[3]).round() * exact[3], *exact[1:]),
        "one weight": layer(1, 1, 0),
        "a very small diagonal": layer(3, 5, 1, power=-26),
        "a very large diagonal": layer(3, 5, 2, power=20),
        "float64": (fine, double[1].double(), 2, double[3].double(), 4),
    }
    return labelled_cases(("weight", "factor", "column", "scale", "bits"), labelled)


def _column_with(row_of, clamped: bool = True, sign: int = -1):
    """The step with another row to spread the error by, without the clamp, or with another sign."""

    def wrong(weight, factor, column, scale, bits):
        largest = 2 ** (bits - 1) - 1
        old = weight[:, column : column + 1]
        codes = (old / scale).round()
        rounded = (codes.clamp(-largest, largest) if clamped else codes) * scale
        row = row_of(factor, column)[column + 1 :]
        later = weight[:, column + 1 :] + sign * (old - rounded) * row
        return torch.cat([weight[:, :column], rounded, later], dim=1)

    return wrong


def _by_the_book(factor: Tensor, j: int) -> Tensor:
    return factor[j] / factor[j, j]


def _by_the_inverse(factor: Tensor, j: int) -> Tensor:
    inverse = factor.T @ factor
    return inverse[j] / inverse[j, j]


GPTQ_COLUMN = Exercise(
    reference=gptq_column,
    cases=_columns,
    relative_tolerance=1e-12,  # every step is exact
    absolute_tolerance=0.0,
    hints=(
        "First round: which level is nearest to each weight of the column? code = (w / scale)"
        ".round(), clamped to −m … m; the level is code · scale.",
        "error = (old − rounded) / U_jj, one number for each row, (O, 1). Row j of U, from j + 1 "
        "on, says how much of it each later column takes.",
        "later = weight[:, j + 1 :] − error * factor[j, j + 1 :]. Put together with torch.cat: "
        "weight[:, :j], the rounded column, later.",
    ),
    properties=(
        Property(
            "earlier columns are as they were",
            lambda inputs, value: value[:, : inputs["column"]].equal(
                inputs["weight"][:, : inputs["column"]]
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "nothing made up for",
            _column_with(lambda u, j: 0 * u[j]),
            "the column was rounded, and nothing else happened. The point of GPTQ is the second "
            "half: the columns that are still free move, so that the output errs less. (Column j "
            "of U is 0 below the diagonal. Row j says who moves.)",
        ),
        Misconception(
            "not divided by the diagonal",
            _column_with(lambda u, j: u[j]),
            "the error has to be divided by U_jj. Check with the column itself: moved by "
            "(w_j − ŵ_j) · U_jj / U_jj, it arrives just at ŵ_j.",
        ),
        Misconception(
            "divided by the squared diagonal",
            _column_with(lambda u, j: u[j] / u[j, j].square()),
            "you divided by U_jj². That square is what the score of SparseGPT divides by. The "
            "step needs U_jk / U_jj: one power above, one below.",
        ),
        Misconception(
            "wrong sign",
            _column_with(_by_the_book, sign=1),
            "the error was added. With this sign the later columns double the damage instead of "
            "making up for it: w_k − (w_j − ŵ_j) · U_jk / U_jj.",
        ),
        Misconception(
            "row of the whole inverse",
            _column_with(_by_the_inverse),
            "you used row j of UᵀU, the inverse of the whole Hessian. That is right for the first "
            "column alone: afterwards the earlier columns are fixed, they may make up for nothing "
            "any more, and row j of U knows it.",
        ),
        Misconception(
            "no clamp",
            _column_with(_by_the_book, clamped=False),
            "a weight beyond the grid got a level that there is not: its code needs more bits. "
            "Clamp the codes to −m … m. The error is then large, and is spread like any other.",
        ),
    ),
)

# ---------------------------------------------------------------------------------- gptq


def gptq(weight: Tensor, hessian: Tensor, scale: Tensor, bits: int) -> Tensor:
    """GPTQ's int8 codes (O, I), −m … m with m = 2**(bits − 1) − 1, of the levels scale · code.

    Columns are taken from first to last: each one rounded, its error spread over the later ones by
    U, upper triangular with UᵀU = H⁻¹. hessian H (I, I) is positive definite; add no damping. scale
    is (O, 1), bits 2 … 8. All tensors have one dtype, float32 or float64; reckon in it or wider.
    """
    largest, weight = 2 ** (bits - 1) - 1, weight.clone()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(weight, dtype=torch.int8)
    for j, row in enumerate(factor):
        old = weight[:, j, None]  # (O, 1)
        code = (old / scale).round().clamp(-largest, largest)
        weight -= (old - code * scale) / row[j] * row  # columns before j: U_jk = 0
        codes[:, j, None] = code
    return codes


def _aimed(
    draw: Draw, hessian: Tensor, scale: Tensor, bits: int, beyond: int = 0, off: float = 0.35
) -> Tensor:
    """A weight each column of which, when its turn comes, is `off` of a step from a level at most.

    So rounding in another order, or in float32, changes no code. Beyond the largest code by up to
    `beyond`. Where off is above 0.4, just so much, to one side or the other.
    """
    largest, outputs = 2 ** (bits - 1) - 1, len(scale)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian.double()), upper=True)
    weight, carried = torch.zeros(2, outputs, len(hessian), dtype=torch.float64)
    for j, row in enumerate(factor):
        codes = draw.integers(-largest - beyond, largest + beyond + 1, outputs, 1)
        if off > 0.4:
            away = off * (1.0 - 2 * draw.integers(0, 2, outputs, 1))
        else:
            away = off * (2 * draw.uniform(outputs, 1) - 1)
        target = scale.double() * (codes + away.double())
        weight[:, j, None] = target - carried[:, j, None]
        error = target - scale.double() * codes.clamp(-largest, largest)
        carried -= error / row[j] * row
    return weight


def _hessian(draw: Draw, inputs: int, loud: float = 1.0) -> Tensor:
    """2 XᵀX / N of tokens whose channels depend on each other; one channel is `loud` times as loud.

    The loud one is never the first: what the order of columns is shows.
    """
    x = draw.normal(3 * inputs, inputs).cumsum(dim=1)  # a random walk: neighbours are alike
    x[:, -1] *= loud
    return 2 * x.T @ x / len(x)


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)

    def layer(
        hessian: Tensor, outputs: int, bits: int, size: Tensor | float = 1.0, **aim: float
    ) -> tuple:
        scale = (0.5 + draw.uniform(outputs, 1)) * size
        return _aimed(draw, hessian, scale, bits, **aim).float(), hessian, scale, bits

    def correlated(inputs: int) -> Tensor:
        return _hessian(draw, inputs)

    def all_alike(inputs: int) -> Tensor:
        """Of tokens in which every channel depends on every other, however far it stands."""
        x = draw.normal(3 * inputs, inputs) + 2 * draw.normal(3 * inputs, 1)
        return x.T @ x / len(x)

    sizes = torch.tensor([[1e-9], [1.0], [1e9], [1e-4]])
    independent = torch.diag(0.1 + draw.uniform(6))
    exact, scale = _hessian(draw, 8).double(), 0.5 + draw.uniform(4, 1).double()
    fine = _aimed(draw, exact, scale, 4, off=0.5 - 1e-7)
    labelled = {
        "three columns": layer(correlated(3), 2, 4),
        "inputs that depend on each other": layer(correlated(6), 4, 4),
        "one input is far larger": layer(_hessian(draw, 8, loud=60.0), 5, 4, off=0.45),
        "independent inputs": layer(independent, 3, 4),
        "weights beyond the grid": layer(correlated(6), 5, 3, beyond=3),
        "two bits": layer(correlated(7), 4, 2, beyond=1),
        "eight bits": layer(correlated(5), 3, 8),
        "many columns": layer(all_alike(140), 3, 3),
        "rows of very different size": layer(correlated(6), 4, 4, sizes),
        "a very small Hessian": layer(2.0**-60 * correlated(9), 5, 4, off=0.45),
        "a very large Hessian": layer(2.0**60 * correlated(9), 5, 4, off=0.45),
        "one output": layer(correlated(9), 1, 3),
        "one input": layer(correlated(1), 5, 3, beyond=1),
        "float64, next to the borders": (fine, exact, scale, 4),
    }
    return labelled_cases(("weight", "hessian", "scale", "bits"), labelled)


def _inverse_factor(hessian: Tensor) -> Tensor:
    return torch.linalg.cholesky(torch.linalg.inv(hessian.double()), upper=True)


def _gptq_with(rows_of=_inverse_factor, lowest: int = 0, to_code=torch.round):
    """GPTQ that spreads errors by other rows, has more codes, or finds them otherwise."""

    def wrong(weight, hessian, scale, bits):
        largest, weight = 2 ** (bits - 1) - 1, weight.double()
        codes = torch.empty_like(weight, dtype=torch.int8)
        for j, row in enumerate(rows_of(hessian)):
            old = weight[:, j, None].clone()
            code = to_code(old / scale).clamp(-largest - lowest, largest)
            weight[:, j:] -= (old - code * scale) / row[j] * row[j:]
            codes[:, j, None] = code.to(torch.int8)
        return codes

    return wrong


def _damped(hessian: Tensor) -> Tensor:
    mean = hessian.diagonal().mean()
    return _inverse_factor(hessian + 0.01 * mean * torch.eye(len(hessian)).to(hessian))


GPTQ = Exercise(
    reference=gptq,
    cases=_layers,
    hints=(
        "Exercise gptq_column is one step of it. What is missing is U, and a loop over the "
        "columns; each step works on the weight that the last one left.",
        "torch.linalg.cholesky(hessian) factors H; torch.cholesky_inverse of that is H⁻¹; "
        "torch.linalg.cholesky(…, upper=True) of that is U.",
        "For each j: old = w[:, j, None]; code = (old / scale).round().clamp(−m, m); then "
        "w[:, j:] −= (old − code · scale) / U[j, j] · U[j, j:]. Keep the codes; work on a clone.",
    ),
    properties=(
        Property(
            "no code is larger than m",
            lambda inputs, codes: bool((codes.int().abs() < 2 ** (inputs["bits"] - 1)).all()),
        ),
    ),
    misconceptions=(
        Misconception(
            "each weight to the nearest level",
            _gptq_with(lambda hessian: torch.eye(len(hessian)).to(hessian)),
            "every weight was rounded by itself. The error of each column has to be spread over "
            "the later ones before their turn comes. (Without upper=True torch.linalg.cholesky "
            "gives a lower triangle: right of the diagonal its rows are empty; nobody is told.)",
        ),
        Misconception(
            "factor of the Hessian itself",
            _gptq_with(lambda hessian: torch.linalg.cholesky(hessian.double(), upper=True)),
            "you factored H. Its rows say which inputs move together; how to make up for an error "
            "stands in the factor of the inverse, UᵀU = H⁻¹.",
        ),
        Misconception(
            "rows of the whole inverse",
            _gptq_with(lambda hessian: torch.linalg.inv(hessian.double())),
            "you spread the errors by the rows of H⁻¹. That is right for the first column; then "
            "the inverse must be that of the columns which are still free. The rows of its "
            "Cholesky factor U are just that, for all steps at once.",
        ),
        Misconception(
            "damped",
            _gptq_with(_damped),
            "1 % of the mean diagonal was added to H, as the paper does. It makes the inverse of "
            "a doubtful H safe, and the repair worse: where one input is large, 1 % of the mean is "
            "more than the others have. Here H is sound: add nothing.",
        ),
        Misconception(
            "cut off instead of rounded",
            _gptq_with(to_code=torch.trunc),
            "you cut the digits behind the point off, as .to(torch.int8) does. Take the nearest "
            "level: round() first.",
        ),
        Misconception(
            "one code too many",
            _gptq_with(lowest=1),
            "the codes went down to −m − 1. The grid is symmetric: −m … m. With 3 bits that is "
            "−3 … 3.",
        ),
    ),
)
