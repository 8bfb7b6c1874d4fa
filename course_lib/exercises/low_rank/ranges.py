"""Exercise of 09_low_rank: a basis of what a matrix does mostly, from a few products.

Axes: O outputs, I inputs, c columns of noise.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.low_rank.factors import with_spectrum


def range_finder(weight: Tensor, noise: Tensor, rounds: int) -> Tensor:
    """Q (O, c), orthonormal columns that span the columns of (W Wᵀ)ᵗ W Ω, for t = rounds ≥ 0.

    weight W (O, I) and noise Ω (I, c) have one dtype, float32 or float64, and so has Q; c is from 1
    to min(O, I). After each product, by W or by Wᵀ, the columns are made orthonormal: that leaves
    their span as it is, lets directions that W hardly stretches survive rounding, and holds however
    large or small the numbers of W are. Where the rank of W is below c, the columns left over are
    any that keep Q orthonormal.
    """
    basis = torch.linalg.qr(weight @ noise).Q  # (O, I) (I, c) -> (O, c)
    for _ in range(rounds):
        back = torch.linalg.qr(weight.T @ basis).Q  # (I, O) (O, c) -> (I, c)
        basis = torch.linalg.qr(weight @ back).Q
    return basis


def _matrix(
    draw: Draw, outputs: int, inputs: int, columns: int, rounds: int, size: float = 1.0
) -> tuple[Tensor, Tensor, int]:
    return size * draw.normal(outputs, inputs), draw.normal(inputs, columns), rounds


def _matrices(seed: int) -> list[Case]:
    draw = Draw(seed)
    matrix = partial(_matrix, draw)
    low = draw.integers(-4, 5, 8, 2).float() @ draw.integers(-4, 5, 2, 7).float()
    by_hand = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0], [1.0]])
    w, noise, _ = matrix(10, 7, 3, 1)
    labelled = {
        "by hand": (by_hand[0] * draw.number(1, 9), by_hand[1], 1),
        "no round": matrix(12, 9, 3, 0),
        "one round": matrix(12, 9, 3, 1),
        "two rounds": matrix(12, 9, 3, 2),
        "more inputs than outputs": matrix(7, 15, 4, 1),
        "a square matrix": matrix(9, 9, 4, 1),
        "one column of noise": matrix(8, 11, 1, 1),
        "as many columns as inputs": matrix(9, 4, 4, 1),
        "as many columns as outputs": matrix(4, 9, 4, 1),
        "one output": matrix(1, 6, 1, 2),
        "one input": matrix(6, 1, 1, 2),
        "one number": matrix(1, 1, 1, 1),
        "a lower rank than columns": (low, draw.normal(7, 4), 1),
        "a matrix of zeros": (torch.zeros(6, 5), draw.normal(5, 2), 2),
        "very small": matrix(10, 8, 3, 2, 1e-20),
        "very large": matrix(10, 8, 3, 2, 1e20),
        "twenty rounds": matrix(8, 6, 2, 20),
        "views": (w.T.clone().T, noise.T.clone().T, 1),
        "float64": (*(part.double() for part in matrix(12, 9, 3, 1)[:2]), 1),
        **_hardly_stretched(draw),
    }
    return labelled_cases(("weight", "noise", "rounds"), labelled)


def _hardly_stretched(draw: Draw) -> dict[str, tuple[Tensor, Tensor, int]]:
    """One direction is stretched 3000 times less than the first (in float64, 10⁶), and counts."""

    def steep(rounds: int, size: float = 1.0) -> tuple[Tensor, Tensor, int]:
        weight = size * with_spectrum(draw, 9, 8, 1, 0.02, 1 / 3000, *[1e-6] * 5)
        return weight.float(), draw.normal(8, 3), rounds

    double = with_spectrum(draw, 9, 8, 1, 1e-3, 1e-6, *[1e-9] * 5)
    return {
        "a direction is hardly stretched, three rounds": steep(3),
        "a direction is hardly stretched, one round": steep(1),
        "a direction is hardly stretched, all is very small": steep(2, 1e-20),
        "float64, a direction is hardly stretched": (double, draw.normal(8, 3).double(), 2),
    }


def _is_a_basis(inputs: dict, value: Tensor) -> bool:
    weight, columns = inputs["weight"], inputs["noise"].shape[1]
    return value.shape == (len(weight), columns) and value.dtype == weight.dtype


def _rounding(inputs: dict) -> float:
    return 100 * torch.finfo(inputs["weight"].dtype).eps


def _off_orthonormal(_: dict, value: Tensor) -> float:
    """The largest entry of QᵀQ − 1."""
    gram = value.double().T @ value.double()
    return float((gram - torch.eye(len(gram)).double()).abs().max())


def _off_the_span(inputs: dict, value: Tensor) -> float:
    """How far a direction that should be in the span is from it, times σ of the last one / σ₁."""
    W, Q = inputs["weight"].double(), value.double()
    U, S, _ = torch.linalg.svd(W, full_matrices=False)
    count = min(Q.shape[1], int(S.gt(1e-12 * S[0]).sum()))
    if count == 0:
        return 0.0
    exact = range_finder(W, inputs["noise"].double(), inputs["rounds"])
    wanted = exact if count == Q.shape[1] else U[:, :count]
    return float((wanted - Q @ (Q.T @ wanted)).abs().max() * S[count - 1] / S[0])


def _qr_of_powers(weight, noise, rounds):
    basis = weight @ noise
    for _ in range(rounds):
        basis = weight @ (weight.T @ basis)
    return torch.linalg.qr(basis).Q


def _qr_once_a_round(weight, noise, rounds):
    basis = torch.linalg.qr(weight @ noise).Q
    for _ in range(rounds):
        basis = torch.linalg.qr(weight @ (weight.T @ basis)).Q
    return basis


def _unit_columns(weight, noise, rounds):
    basis = F.normalize(weight @ noise, dim=0, eps=0.0)
    for _ in range(rounds):
        basis = F.normalize(weight @ F.normalize(weight.T @ basis, dim=0, eps=0.0), dim=0, eps=0.0)
    return basis


RANGE_FINDER = Exercise(
    reference=range_finder,
    cases=_matrices,
    compare=False,
    reached=lambda inputs, value: (
        f"QᵀQ is off 1 by {_off_orthonormal(inputs, value):.1e}, "
        f"the span by {_off_the_span(inputs, value):.1e} (asked: at most {_rounding(inputs):.1e})"
    ),
    hints=(
        "W Ω mixes the columns of W at random, and what W stretches most is most of each mixture. "
        "torch.linalg.qr makes columns orthonormal and leaves their span alone.",
        "A round is Wᵀ and then W. Each makes large directions larger still beside small ones; "
        "after a few products without QR the small ones are below the last digit.",
        "Q = torch.linalg.qr(weight @ noise).Q; then `rounds` times: Z = torch.linalg.qr(weight.T "
        "@ Q).Q and Q = torch.linalg.qr(weight @ Z).Q.",
    ),
    properties=(
        Property("Q is (O, c), in W's dtype", _is_a_basis, form=True),
        Property(
            "the columns of Q are orthonormal: QᵀQ = 1",
            lambda inputs, value: _off_orthonormal(inputs, value) <= _rounding(inputs),
        ),
        Property(
            "the columns of Q span those of (W Wᵀ)ᵗ W Ω, small directions too",
            lambda inputs, value: _off_the_span(inputs, value) <= _rounding(inputs),
        ),
    ),
    misconceptions=(
        Misconception(
            "orthonormal at the end alone",
            _qr_of_powers,
            "the products are right, and only the last was made orthonormal. By then what W "
            "stretches 3000 times less is 3000²ᵗ⁺¹ times smaller, and rounded away; large numbers "
            "overflow, small ones vanish. QR after each product keeps all c directions alive.",
        ),
        Misconception(
            "orthonormal once a round",
            _qr_once_a_round,
            "QR came after Wᵀ and W together. For a W of common size that does nearly as well. But "
            "W Wᵀ is as large as the square of W, and in float32 that of 10²⁰ is infinite, that of "
            "10⁻²⁰ is nearly 0: after each product, the text says.",
        ),
        Misconception(
            "columns of length 1",
            _unit_columns,
            "each column has length 1, but they are not at right angles, and they turn to the "
            "same direction, all of them. Take torch.linalg.qr(…).Q.",
        ),
        Misconception(
            "one round too few",
            lambda weight, noise, rounds: range_finder(weight, noise, max(rounds - 1, 0)),
            "W Ω was counted as a round. With no round at all it is what you begin with: t rounds "
            "are 2t + 1 products.",
        ),
        Misconception(
            "the exact directions",
            lambda weight, noise, rounds: torch.linalg.svd(weight).U[:, : noise.shape[1]],
            "these are W's singular vectors, which the noise only comes near to. To get them you "
            "took the whole SVD, and that is what the range finder saves.",
        ),
    ),
)
