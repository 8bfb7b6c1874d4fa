"""Exercise of 09_low_rank: the two factors whose outputs are nearest to a layer's.

Axes: N inputs that were seen, O outputs, I inputs, r rank.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.low_rank.factors import all_finite, are_factors


def output_aware_factors(weight: Tensor, inputs: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(left, right), B (O, r) and A (r, I): what B A makes of the inputs is nearest to W's outputs.

    Of all products of rank r, B A has the least mean of ‖W x − B A x‖² over x, the rows of inputs
    (N, I). Where N < I, or where an input is always 0 or foretold by the others, more than one B A
    does that: any will do, if its numbers are finite. How B and A share it is free. weight W (O, I)
    and inputs are float, in any precision; rank r is from 0 to min(O, I). Reckon in float64; both
    factors are in the dtype of W.
    """
    W = weight.double()
    outputs = inputs.double() @ W.T  # (N, I) (I, O) -> (N, O)
    directions = torch.linalg.eigh(outputs.T @ outputs).eigenvectors  # (O, O), the least first
    left = directions.flip(1)[:, :rank]
    return left.to(weight.dtype), (left.T @ W).to(weight.dtype)


def _correlated(draw: Draw, examples: int, inputs: int, mean: float = 0.0) -> Tensor:
    """Inputs (N, I) that mostly move together, along a few directions."""
    few = max(1, inputs // 3)
    common = 3 * draw.normal(examples, few) @ draw.normal(few, inputs)
    return common + 0.3 * draw.normal(examples, inputs) + mean


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)

    def layer(outputs: int, inputs: int, examples: int, rank: int) -> tuple:
        return draw.normal(outputs, inputs), _correlated(draw, examples, inputs), rank

    size = draw.number(1, 9)
    twins = torch.tensor([[5.0, -5.0], [1.0, 1.0]]) * size, torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    large = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[size, 0.0], [0.0, 3 * size]])
    w, x, _ = layer(7, 8, 30, 2)
    growing = layer(6, 5, 3701, 2)
    labelled = {
        "by hand: the weaker row meets the larger input": (*large, 1),
        "by hand: two inputs that are always equal": (*twins, 1),
        "more inputs than outputs": layer(5, 9, 40, 2),
        "more outputs than inputs": layer(9, 6, 40, 2),
        "as many outputs as inputs": layer(8, 8, 40, 3),
        "as many examples as inputs and outputs": layer(6, 6, 6, 2),
        "rank 0": layer(4, 6, 20, 0),
        "full rank, wide": layer(4, 7, 30, 4),
        "full rank, tall": layer(7, 4, 30, 4),
        "one output": layer(1, 6, 20, 1),
        "one input": layer(6, 1, 20, 1),
        "fewer examples than inputs": layer(7, 9, 4, 3),
        "fewer examples than the rank": layer(7, 9, 2, 4),
        "one example": layer(5, 6, 1, 1),
        "many examples, the later ones larger": (
            growing[0],
            growing[1] * torch.linspace(0, 2, 3701)[:, None],
            growing[2],
        ),
        "views": (w.T.clone().T, x.T.clone().T, 2),
        **_spoiled(draw),
        **_scaled(draw),
    }
    return labelled_cases(("weight", "inputs", "rank"), labelled)


def _spoiled(draw: Draw) -> dict[str, tuple[Tensor, Tensor, int]]:
    """Inputs that are silent, foretold, far from zero, or large where the layer hardly looks."""
    (w, dead), (v, u) = ((draw.normal(6, 8), _correlated(draw, 40, 8)) for _ in range(2))
    dead[:, draw.order(8)[:3]] = 0
    plane = draw.normal(40, 2) @ draw.normal(2, 8)
    sizes = 10 ** (3 * draw.uniform(8) - 1.5)
    fading, loud = torch.tensor([1.0, 1e-2, 1e-4]), torch.tensor([30.0, 20, *[1.0] * 6])
    axes = torch.linalg.qr(draw.normal(8, 8)).Q  # a direction in each column
    return {
        "inputs that are always zero": (w, dead, 2),
        "no input is ever anything but zero": (v, torch.zeros(10, 8), 2),
        "a matrix of zeros": (torch.zeros(6, 8), u, 2),
        "inputs in a plane": (draw.normal(6, 8), plane, 3),
        "inputs with a large mean": (draw.normal(6, 8), _correlated(draw, 40, 8, mean=9.0), 2),
        "inputs of very different size": (w / sizes, _correlated(draw, 40, 8) * sizes, 3),
        "large where the layer hardly looks": (
            draw.normal(6, 8) / loud**1.5 @ axes.T,
            draw.normal(40, 8) * loud @ axes.T,
            3,
        ),
        "outputs that fade": (draw.normal(6, 8), draw.normal(40, 3) * fading @ axes[:, :3].T, 3),
    }


def _scaled(draw: Draw) -> dict[str, tuple[Tensor, Tensor, int]]:
    def layer(of_weight=1.0, of_inputs=1.0, dtype=torch.float32, rank: int = 2) -> tuple:
        weight, inputs = draw.normal(6, 8).double(), _correlated(draw, 40, 8).double()
        return (of_weight * weight).to(dtype), (of_inputs * inputs).to(dtype), rank

    brain, half = layer(), layer(of_inputs=60)
    return {
        "very small weights": layer(1e-20),
        "very large weights": layer(1e20),
        "very small inputs": layer(of_inputs=1e-20),
        "very large inputs": layer(of_inputs=1e20),
        "both very large": layer(1e18, 1e18),
        "float16": layer(dtype=torch.float16),
        "float16, inputs too large to be squared": (half[0].half(), half[1].half(), 2),
        "bfloat16": layer(dtype=torch.bfloat16, rank=3),
        "bfloat16, inputs in float32": (brain[0].bfloat16(), *brain[1:]),
        "float64": layer(dtype=torch.float64),
        "float64, smaller than float32 knows": layer(1e-60, 1e-60, torch.float64),
    }


# A share of |W| |x|: right answers, of whatever make, stay below half of it in float32.
ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6, torch.float64: 1e-6}


def _output_error(inputs: dict, value: list) -> float:
    """Root of the mean over x of ‖W x − B A x‖²."""
    X, W = inputs["inputs"].double(), inputs["weight"].double()
    left, right = (part.double() for part in value)
    wrong = X @ W.T - X @ right.T @ left.T
    return float(wrong.square().sum(1).mean().sqrt())


def _least_error(inputs: dict) -> float:
    outputs = inputs["inputs"].double() @ inputs["weight"].double().T
    left_out = torch.linalg.svdvals(outputs)[inputs["rank"] :]
    return float((left_out.square().sum() / len(outputs)).sqrt())


def _rounding(inputs: dict) -> float:
    """What rounded factors may add: a share of |W| |x|, which W x may be far below."""
    terms = inputs["inputs"].abs().double() @ inputs["weight"].abs().double().T
    return ROUNDING[inputs["weight"].dtype] * float(terms.square().sum(1).mean().sqrt())


def _nearest(inputs: dict, value: list) -> bool:
    asked = 1.0005**0.5 * _least_error(inputs) + _rounding(inputs)
    return _output_error(inputs, value) <= asked


def _error_reached(inputs: dict, value: list) -> str:
    return (
        f"mean ‖W x − B A x‖² = {_output_error(inputs, value) ** 2:.6g} "
        f"(the least: {_least_error(inputs) ** 2:.6g})"
    )


def _factors_of(products: Callable[..., tuple[Tensor, Tensor]]):
    """Factors from float64 (W, X, r), in the dtype of W."""

    def wrong(weight, inputs, rank):
        left, right = products(weight.double(), inputs.double(), rank)
        return left.to(weight.dtype), right.to(weight.dtype)

    return wrong


def _truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    U, S, Vt = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] * S[:rank], Vt[:rank]


def _columns_scaled(W, X, rank):
    sizes = X.abs().mean(0).sqrt()
    sizes[sizes == 0] = 1
    left, right = _truncated(W * sizes, rank)
    return left, right / sizes


def _whitened(W, X, rank):
    L = torch.linalg.cholesky(X.T @ X / len(X))
    left, right = _truncated(W @ L, rank)
    return left, right @ torch.linalg.inv(L)


def _largest_inputs(W, X, rank):
    directions = torch.linalg.eigh(X.T @ X).eigenvectors.flip(1)[:, :rank]
    return W @ directions, directions.T


def _without_the_mean(W, X, rank):
    outputs = X @ W.T
    about = outputs - outputs.mean(0)
    left = torch.linalg.eigh(about.T @ about).eigenvectors.flip(1)[:, :rank]
    return left, left.T @ W


def _last_directions(W, X, rank):
    outputs = X @ W.T
    left = torch.linalg.eigh(outputs.T @ outputs).eigenvectors[:, :rank]
    return left, left.T @ W


OUTPUT_AWARE_FACTORS = Exercise(
    reference=output_aware_factors,
    cases=_layers,
    compare=False,
    reached=_error_reached,
    hints=(
        "Forget W for a moment. The outputs y = W x are points in O dimensions. Which r directions "
        "hold the most of them? And what does it cost to keep of y only its part along these?",
        "Let U_r (O, r) be the first r eigenvectors of Σ y yᵀ, that is PCA of the outputs without "
        "taking a mean off. U_r U_rᵀ y is the nearest to y that r directions allow, and y is W x.",
        "outputs = inputs.double() @ weight.double().T; torch.linalg.eigh(outputs.T @ outputs) "
        "sorts the smallest first, so its eigenvectors.flip(1)[:, :rank] are U_r. B is U_r, A is "
        "U_rᵀ W. Nothing is inverted.",
    ),
    properties=(
        Property("left is (O, r) and right is (r, I), both in W's dtype", are_factors, form=True),
        Property("all numbers are finite", all_finite),
        Property("the mean of ‖W x − B A x‖² over the inputs is the least that r allows", _nearest),
    ),
    misconceptions=(
        Misconception(
            "the nearest to W",
            _factors_of(lambda W, X, rank: _truncated(W, rank)),
            "that is the truncated SVD of W, and the inputs were never looked at. It spends its "
            "rank on what W could do, not on what W is used for.",
        ),
        Misconception(
            "columns scaled",
            _factors_of(_columns_scaled),
            "you scaled each column by the size of its input, as ASVD does. That knows which "
            "inputs are large, and not which of them move together.",
        ),
        Misconception(
            "the largest inputs",
            _factors_of(_largest_inputs),
            "you kept the directions in which the *inputs* are largest. W may hardly look there: "
            "what counts is how much of the output they make.",
        ),
        Misconception(
            "the mean was taken off",
            _factors_of(_without_the_mean),
            "these are the directions in which the outputs vary about their mean. But B A has to "
            "make the mean as well, and no bias adds it: the second moment, not the covariance.",
        ),
        Misconception(
            "the last directions",
            _factors_of(_last_directions),
            "torch.linalg.eigh sorts the eigenvalues from small to large. You kept the directions "
            "with the least of the outputs.",
        ),
        Misconception(
            "a second moment that must be inverted",
            _factors_of(_whitened),
            "whitening by a Cholesky factor is right where XᵀX can be inverted. With fewer "
            "examples than inputs, or an input that is always 0, it cannot. The outputs' own "
            "directions ask for no inverse.",
        ),
    ),
)
