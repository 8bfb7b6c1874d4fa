"""Exercise of 11_language_models: the residual stream turned, the function kept.

Axes: O outputs, I inputs, D width of the residual stream.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, labelled_cases


def rotate_pair(
    reader: Tensor, norm_weight: Tensor, writer: Tensor, rotation: Tensor
) -> tuple[Tensor, Tensor]:
    """(reader, writer) for a residual stream whose tokens, rows x, have become x Q.

    The reader (O, D) was given norm(x) · norm_weight (D,) and is given norm(x Q) from now on: the
    norm's weights move into it. The writer (D, I) adds W y to the stream. rotation Q (D, D) is
    orthogonal, in float64: reckon in it. New tensors, each in the dtype of the old one.
    """
    folded = reader * norm_weight.double()  # (O, D) · (D,)
    return (folded @ rotation).to(reader.dtype), (rotation.T @ writer.double()).to(writer.dtype)


def _hadamard(draw: Draw, power: int) -> Tensor:
    """(D, D), D = 4^power, entries ± 2^−power: rows and signs shuffled, exact in every dtype."""
    H, two = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double()
    for _ in range(2 * power):
        H = torch.kron(H, two)
    D = len(H)
    signs = 1 - 2 * draw.integers(0, 2, 2, D).double()
    return H[draw.order(D)] * signs[0] * signs[1][:, None] / 2**power


def _pairs(seed: int) -> list[Case]:
    draw = Draw(seed)

    def pair(outputs: int, power: int, inputs: int, size: float = 1.0) -> tuple:
        """Whole numbers and norms of quarters: with such a rotation every product is exact."""
        D = 4**power
        reader, writer = draw.integers(-9, 10, outputs, D), draw.integers(-9, 10, D, inputs)
        norm = draw.integers(1, 9, D) / 4
        norm[0] *= -1
        return size * reader, norm, size * writer, _hadamard(draw, power)

    def any_turn(D: int, *dtypes: torch.dtype, size: float = 1) -> tuple:
        """Numbers of any kind: only reckoned in float64 they are what they should be."""
        reader, writer, turn = (draw.normal(n, m).double() for n, m in ((3, D), (D, 4), (D, D)))
        made = (size * reader, 0.5 + draw.uniform(D).double() / 3, size * writer)
        parts = (part.to(dtype) for part, dtype in zip(made, dtypes, strict=True))
        return (*parts, torch.linalg.qr(turn).Q)

    plain = pair(3, 1, 4)
    order = torch.eye(4, dtype=torch.float64).roll(1, dims=0)
    half, brain, single, double = torch.float16, torch.bfloat16, torch.float32, torch.float64
    labelled = {
        "a width of 4": pair(3, 1, 2),
        "a width of 16": pair(5, 2, 6),
        "square matrices": pair(4, 1, 4),
        "norm weights of one": (plain[0], torch.ones(4), *plain[2:]),
        "channels that change places": (*pair(2, 1, 3)[:3], order),
        "a width of 1": (*pair(3, 0, 2)[:3], torch.tensor([[-1.0]], dtype=torch.float64)),
        "one output, one input": pair(1, 2, 1),
        "very small weights": pair(3, 1, 2, size=2.0**-30),
        "very large weights": pair(3, 1, 2, size=2.0**30),
        "any rotation": any_turn(5, single, single, single),
        "float16": any_turn(6, half, half, half),
        "bfloat16, a norm in float32": any_turn(5, brain, single, brain),
        "a dtype for each": any_turn(4, brain, half, single),
        "float64": any_turn(5, double, double, double, size=1e60),
    }
    return labelled_cases(("reader", "norm_weight", "writer", "rotation"), labelled)


def _pair_with(reader_of, writer_of):
    """Each part made by a function of float64 tensors, in the dtype that it should have."""

    def wrong(reader, norm_weight, writer, rotation):
        n, q = norm_weight.double(), rotation
        return (
            reader_of(reader.double(), n, q).to(reader.dtype),
            writer_of(writer.double(), n, q).to(writer.dtype),
        )

    return wrong


def _right_reader(reader, norm_weight, rotation):
    return (reader * norm_weight) @ rotation


def _right_writer(writer, norm_weight, rotation):
    return rotation.T @ writer


ROTATE_PAIR = Exercise(
    reference=rotate_pair,
    cases=_pairs,
    relative_tolerance=1e-9,  # so that float32 shows, in each dtype but the halves
    absolute_tolerance=0.0,
    hints=(
        "The reader is given x Q instead of x. Q Qᵀ = 1, so a row r of the reader keeps its "
        "product with x if it becomes r Q: (x Q) · (r Q) = x · r.",
        "‖x Q‖ = ‖x‖: a norm without weights commutes with Q, one with weights does not. So "
        "multiply the reader's columns by norm_weight first, then turn it.",
        "The writer adds W y, a column; as a row it becomes (W y)ᵀ Q, which is (Qᵀ W) y. So: "
        "(reader * norm_weight) @ Q and Q.T @ writer, in float64, converted back.",
    ),
    misconceptions=(
        Misconception(
            "turned back",
            _pair_with(lambda r, n, q: (r * n) @ q.T, lambda w, n, q: q @ w),
            "reader Qᵀ and Q writer fit each other, but they fit a stream x Qᵀ. Ours became x Q, "
            "and so did the embedding.",
        ),
        Misconception(
            "writer not transposed",
            _pair_with(_right_reader, lambda w, n, q: q @ w),
            "the writer was multiplied by Q. What it adds is the column W y; to turn it as the "
            "row x Q is turned, multiply by Qᵀ from the left.",
        ),
        Misconception(
            "norm forgotten",
            _pair_with(lambda r, n, q: r @ q, _right_writer),
            "norm_weight is missing: after the turn the norm has no weights any more, so they have "
            "to be in the reader.",
        ),
        Misconception(
            "norm after the turn",
            _pair_with(lambda r, n, q: (r @ q) * n, _right_writer),
            "you multiplied by norm_weight after turning. Its numbers belong to the old channels, "
            "and Q has mixed these: fold first, turn then.",
        ),
        Misconception(
            "norm in the writer",
            _pair_with(lambda r, n, q: r @ q, lambda w, n, q: q.T @ (n[:, None] * w)),
            "you put norm_weight into the writer. Between the writer and the reader the stream is "
            "added up and divided by its length: only the reader stands behind the norm.",
        ),
        Misconception(
            "only the reader",
            _pair_with(_right_reader, lambda w, n, q: w),
            "the reader was turned, the writer was not: it adds to channels that have moved.",
        ),
    ),
)
