"""Exercises of 13_reading_sources: six pieces of the documents' formulas and code, repaired."""

import torch
from torch import Tensor, nn

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------------ row_importance


def row_importance(weight: Tensor) -> Tensor:
    """Each row's share of the lengths (L2 norms) of all rows; zeros for a matrix of zeros.

    weight: (O, I), however large or small. Returns (O,), in the dtype of `weight`.
    """
    lengths = weight.norm(dim=1)
    return (lengths / lengths.sum()).nan_to_num()


def _matrices(seed: int) -> list[Case]:
    draw = Draw(seed)
    dead = draw.normal(4, 5)
    dead[2] = 0
    matrices = {
        "two rows": torch.tensor([[3.0, -4.0], [0.0, 15.0]]),
        "rows of very different size": torch.logspace(-3, 3, 5)[:, None] * draw.normal(5, 8),
        "a dead row": dead,
        "a wide matrix": draw.normal(2, 9),
        "a tall matrix": draw.normal(12, 3),
        "a matrix of zeros": torch.zeros(3, 4),
        "a billion times larger": 1e9 * draw.normal(4, 3),
        "a billion times smaller": 1e-9 * draw.normal(4, 3),
        "as small as float64 knows": 1e-60 * draw.normal(3, 4).double(),
        "zeros in float64": torch.zeros(2, 2, dtype=torch.float64),
        "one row": draw.normal(1, 6),
        "one column": torch.cat([draw.normal(3, 1), torch.tensor([[-0.0]])]),
    }
    return labelled_cases(("weight",), {label: (matrix,) for label, matrix in matrices.items()})


ROW_IMPORTANCE = Exercise(
    reference=row_importance,
    cases=_matrices,
    absolute_tolerance=0.0,
    hints=(
        "The printed formula divides each length by itself. By what should it divide?",
        "By the same number for all rows, so that the order stays: the sum of all lengths.",
        "weight.norm(dim=1) has a length for each row. For a matrix of zeros the division gives "
        "NaN, and tensor.nan_to_num() turns that into 0.",
    ),
    properties=(
        Property(
            "no share is negative",
            lambda inputs, value: bool((torch.as_tensor(value) >= 0).all()),
        ),
    ),
    misconceptions=(
        Misconception(
            "as printed",
            lambda w: (0.01 * w).norm(dim=1) / w.norm(dim=1),
            "every row was divided by its own length, so each got the same number, λ. Nothing is "
            "left to rank by.",
        ),
        Misconception(
            "signed sums",
            lambda w: (w.sum(dim=1) / w.sum()).nan_to_num(),
            "you added up the weights with their signs. A row with +5 and −5 is not unimportant.",
        ),
        Misconception(
            "squared lengths",
            lambda w: (w.square().sum(dim=1) / w.square().sum()).nan_to_num(),
            "those are shares of the squared lengths. The order is the same, the shares are not: "
            "take the root.",
        ),
        Misconception(
            "columns",
            lambda w: (w.norm(dim=0) / w.norm(dim=0).sum()).nan_to_num(),
            "you measured the columns. A row (dim=1 is summed away) holds what one output reads.",
        ),
        Misconception(
            "not a share",
            lambda w: w.norm(dim=1),
            "those are the lengths themselves. They rank well; to compare layers, divide by their "
            "sum.",
        ),
        Misconception(
            "zero divided by zero",
            lambda w: w.norm(dim=1) / w.norm(dim=1).sum(),
            "a matrix of zeros gives 0/0 = NaN. Its rows are of no importance: that is 0.",
        ),
    ),
)

# -------------------------------------------------------------------- stochastic_ternary


def stochastic_ternary(weight: Tensor, uniform: Tensor) -> Tensor:
    """sign(w) · s where uniform < |w| / s, else 0, with s = max |w|.

    weight, uniform: of equal shape and dtype; s is the largest of all. The result has their dtype.
    """
    scale = weight.abs().max()
    hit = uniform * scale < weight.abs()
    return scale * weight.sign() * hit


def _draws(seed: int) -> list[Case]:
    draw = Draw(seed)
    few = torch.tensor([0.5, -1.0, 0.25, -0.25, 0.0])
    far = torch.cat([draw.uniform(11), -1e4 * (1 + draw.uniform(1))])
    rows = torch.tensor([[0.01], [1.0], [0.1]]) * (0.5 + draw.uniform(3, 5))
    inputs = {
        "five weights": (few, torch.tensor([0.4, 0.9, 0.3, 0.2, 0.0])),
        "on the border": (few, torch.tensor([0.5, 0.0, 0.25, 0.1, 0.5])),
        "a matrix": (0.05 * draw.normal(6, 8), draw.uniform(6, 8)),
        "rows of different size": (rows, draw.uniform(3, 5)),
        "all negative": (-draw.uniform(12), draw.uniform(12)),
        "one far weight, the last": (far, torch.cat([1e-4 * draw.uniform(11), draw.uniform(1)])),
        "a billion times larger": (1e9 * draw.normal(9), draw.uniform(9)),
        "a billion times smaller": (1e-9 * draw.normal(9), draw.uniform(9)),
        "as small as float64 knows": (1e-60 * draw.normal(9).double(), draw.uniform(9).double()),
        "zeros": (torch.tensor([0.0, -0.0, 0.0, 0.0]), draw.uniform(4)),
        "one weight": (draw.normal(1), draw.uniform(1)),
        "the draw of 0 hits all but zeros": (few, torch.zeros(5)),
    }
    return labelled_cases(("weight", "uniform"), inputs)


STOCHASTIC_TERNARY = Exercise(
    reference=stochastic_ternary,
    cases=_draws,
    absolute_tolerance=0.0,
    hints=(
        "A probability lies between 0 and 1. Which number made of w and s = max |w| does?",
        "|w| / s. A uniform number u is below it with just that probability.",
        "Where u < |w| / s, the result is sign(w) · s, elsewhere 0. Written as u · s < |w|, it "
        "needs no division and is right for a tensor of zeros too.",
    ),
    properties=(
        Property(
            "there are at most three values: −s, 0, s",
            lambda inputs, value: bool(
                ((value == 0) | (value.abs() == inputs["weight"].abs().max())).all()
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "one probability for all",
            lambda w, u: w.abs().max() * w.sign() * (u < 0.5),
            "every weight got the same chance, whatever its size. That is noise, not a code: the "
            "result says nothing about |w|.",
        ),
        Misconception(
            "scale lost",
            lambda w, u: w.sign() * (u * w.abs().max() < w.abs()),
            "the values are −1, 0 and 1, as in the source. Weights are smaller: multiply by s.",
        ),
        Misconception(
            "sign lost",
            lambda w, u: w.abs().max() * (u * w.abs().max() < w.abs()),
            "negative weights became positive. The text says 0 or 1, but weights have signs.",
        ),
        Misconception(
            "comparison turned round",
            lambda w, u: w.abs().max() * w.sign() * (u * w.abs().max() > w.abs()),
            "large weights are dropped and small ones kept. u lies below |w|/s more often, the "
            "larger |w| is.",
        ),
        Misconception(
            "not random",
            lambda w, u: w.abs().max() * w.sign() * (w.abs() > w.abs().max() / 2),
            "you rounded to the nearest of the three values and ignored the draws. Then every "
            "weight below s/2 is lost for good; drawn, it survives on average.",
        ),
        Misconception(
            "own value kept",
            lambda w, u: w * (u * w.abs().max() < w.abs()),
            "a weight that is hit kept its own value, so there are as many values as before. "
            "Ternary means three.",
        ),
    ),
)

# ------------------------------------------------------------------------ sign_and_scale


def sign_and_scale(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(signs, scales): int8 signs −1 or 1 (1 for zero), and the mean |w| of each row.

    weight: (O, I). signs: (O, I). scales: (O,), in the dtype of `weight`.
    """
    signs = torch.where(weight < 0, -1, 1).to(torch.int8)
    return signs, weight.abs().mean(dim=1)


def _signed(seed: int) -> list[Case]:
    draw = Draw(seed)
    wide = draw.integers(-2, 3, 3, 17).float()  # small whole numbers, zeros among them
    matrices = {
        "three rows": torch.tensor([[1.0, -3.0], [-0.5, -0.5], [0.0, 2.0]]),
        "a normal matrix": draw.normal(4, 8),
        "rows of different size": torch.tensor([[0.01], [1.0], [100.0]]) * draw.normal(3, 6),
        "pruned to zeros": torch.zeros(2, 4),
        "zero has no sign": torch.tensor([[0.0, -0.0, -1.0], [-0.0, 2.0, -0.0]]),
        "zeros among whole numbers": wide,
        "a billion times larger": 1e9 * draw.normal(3, 5),
        "a billion times smaller": 1e-9 * draw.normal(3, 5),
        "as small as float64 knows": 1e-60 * draw.normal(3, 5).double(),
        "one far weight": torch.cat([draw.normal(2, 6), 1e6 * draw.normal(2, 1)], dim=1),
        "one column": draw.normal(5, 1),
        "one row": draw.normal(1, 5),
    }
    return labelled_cases(("weight",), {label: (matrix,) for label, matrix in matrices.items()})


SIGN_AND_SCALE = Exercise(
    reference=sign_and_scale,
    cases=_signed,
    absolute_tolerance=0.0,
    hints=(
        "One bit a weight: its sign. One float a row: how large its weights are.",
        "Which s makes Σ(w − s·sign(w))² least? Set the derivative to zero: s = mean |w|.",
        "torch.sign gives 0 for zero, and one bit has no third value: use "
        "torch.where(weight < 0, -1, 1), then .to(torch.int8).",
    ),
    properties=(
        Property(
            "every sign is −1 or 1",
            lambda inputs, value: bool((value[0].abs() == 1).all()),
        ),
    ),
    misconceptions=(
        Misconception(
            "as printed",
            lambda w: (torch.ones_like(w, dtype=torch.int8), w.norm(dim=1)),
            "the source takes |w| and divides by the norm. All signs are lost, and a network "
            "without signs computes something else.",
        ),
        Misconception(
            "norm as scale",
            lambda w: (torch.where(w < 0, -1, 1).to(torch.int8), w.norm(dim=1)),
            "the norm of a row grows with its length; with n weights it is about √n times as large "
            "as one of them. The mean of |w| is the best scale.",
        ),
        Misconception(
            "a third value",
            lambda w: (w.sign().to(torch.int8), w.abs().mean(dim=1)),
            "torch.sign gives 0 for a weight of zero. One bit holds two values; here zero counts "
            "as +1.",
        ),
        Misconception(
            "signed mean",
            lambda w: (torch.where(w < 0, -1, 1).to(torch.int8), w.mean(dim=1)),
            "you averaged the weights with their signs. They cancel, and the scale is near zero.",
        ),
        Misconception(
            "largest weight",
            lambda w: (torch.where(w < 0, -1, 1).to(torch.int8), w.abs().amax(dim=1)),
            "with the largest weight as scale every other weight is made too large.",
        ),
        Misconception(
            "one scale for all rows",
            lambda w: (torch.where(w < 0, -1, 1).to(torch.int8), w.abs().mean()),
            "rows differ in size by factors; give each its own scale.",
        ),
    ),
)

# ---------------------------------------------------------------------- count_lstm_model


def count_lstm_model(
    vocabulary: int, width: int, hidden: int, classes: int
) -> tuple[int, int, int]:
    """Parameters of Embedding(vocabulary, width), LSTM(hidden) and Dense(classes), as in Keras."""
    embedding = vocabulary * width
    lstm = 4 * (width * hidden + hidden * hidden + hidden)
    dense = hidden * classes + classes
    return embedding, lstm, dense


def _shapes(seed: int) -> list[Case]:
    draw = Draw(seed)
    shapes = {
        "the source's model": (1000, 128, 128, 10),
        "narrow embedding": (500, 16, 64, 3),
        "one of each": (1, 1, 1, 1),
        "small": (7, 5, 3, 2),
        "a large vocabulary": (9000, 64, 30, 9000),
        "any sizes": tuple(draw.integers(2, 200, 4).tolist()),
        "other sizes": tuple(draw.integers(2, 200, 4).tolist()),
        "a wide state": (draw.number(2, 50), draw.number(2, 9), draw.number(50, 99), 2),
    }
    names = ("vocabulary", "width", "hidden", "classes")
    return labelled_cases(names, shapes)


def _lstm(width: int, hidden: int, gates: int = 4, biases: int = 1) -> int:
    return gates * (width * hidden + hidden * hidden + biases * hidden)


COUNT_LSTM_MODEL = Exercise(
    reference=count_lstm_model,
    cases=_shapes,
    hints=(
        "An embedding is a table: a row for each token. It has no bias.",
        "An LSTM has four gates. Each reads the input and the hidden state, and has a bias.",
        "A gate: width · hidden for the input, hidden · hidden for the state, hidden for the bias.",
    ),
    misconceptions=(
        Misconception(
            "biases forgotten",
            lambda v, w, h, c: (v * w, _lstm(w, h, biases=0), h * c),
            "no bias was counted. Each gate and each output of the dense layer has one.",
        ),
        Misconception(
            "the dense layer's bias",
            lambda v, w, h, c: (v * w, _lstm(w, h), h * c),
            "the dense layer lacks its bias: that is the printed 1,280. Add one for each class.",
        ),
        Misconception(
            "one gate",
            lambda v, w, h, c: (v * w, _lstm(w, h, gates=1), h * c + c),
            "you counted one gate. An LSTM has four: input, forget, output, and the candidate.",
        ),
        Misconception(
            "no recurrence",
            lambda v, w, h, c: (v * w, 4 * (w * h + h), h * c + c),
            "the matrices that read the previous hidden state are missing: hidden · hidden a gate.",
        ),
        Misconception(
            "two biases",
            lambda v, w, h, c: (v * w, _lstm(w, h, biases=2), h * c + c),
            "that is right for PyTorch's nn.LSTM, which keeps two biases a gate. The source uses "
            "Keras, which keeps one.",
        ),
        Misconception(
            "state as wide as the input",
            lambda v, w, h, c: (v * w, 4 * (2 * w * h + h), h * c + c),
            "the hidden state has `hidden` numbers, not `width`. In the source both are 128, which "
            "hides it.",
        ),
    ),
)

# -------------------------------------------------------------------- sparsify_at_random


def sparsify_at_random(weight: Tensor, keep: float, uniform: Tensor) -> Tensor:
    """w / keep where uniform < keep, else 0: on average w itself.

    weight, uniform: of equal shape and dtype, which the result has, too. A `keep` that is 0 or
    less, or more than 1, is a ValueError.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, not {keep}")
    return torch.where(uniform < keep, weight / keep, 0.0)


def _keeps(seed: int) -> list[Case]:
    draw = Draw(seed)
    few, border = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.49, 0.5, 0.1])
    above = torch.tensor([0.3, 0.2999999999, 0.300000005], dtype=torch.float64)
    some, doubles = draw.number(20, 60) / 100, (draw.normal(8).double(), draw.uniform(8).double())
    names = ("weight", "keep", "uniform")
    cases = {
        "three weights": (few, 0.5, border),
        "the source's 0.7": (draw.normal(5, 6), 0.7, draw.uniform(5, 6)),
        "few are kept": (draw.normal(40), 0.1, draw.uniform(40)),
        "some are kept": (draw.normal(30), some, draw.uniform(30)),
        "hardly any are kept": (draw.normal(4), 1e-9, torch.tensor([0.0, 1e-8, 0.5, 5e-10])),
        "all are kept": (few, 1.0, border),
        "a billion times larger": (1e9 * draw.normal(8), some, draw.uniform(8)),
        "a billion times smaller": (1e-9 * draw.normal(8), some, draw.uniform(8)),
        "as small as float64 knows": (1e-60 * doubles[0], some, doubles[1]),
        "near the border, in float64": (few.double(), 0.3, above),
        "zeros": (torch.tensor([0.0, -0.0]), 0.5, torch.tensor([0.1, 0.1])),
        "keep none": (few, 0.0, border),
        "an impossible probability": (few, 1.5, border),
        "a little more than all": (few, 1.001, border),
        "a negative probability": (few, -0.5, border),
    }
    return labelled_cases(names, cases)


def _refusing(function):
    """The function, refusing what is no probability as it should."""

    def refuse(weight, keep, uniform):
        if not 0 < keep <= 1:
            raise ValueError("keep")
        return function(weight, keep, uniform)

    return refuse


SPARSIFY_AT_RANDOM = Exercise(
    reference=sparsify_at_random,
    cases=_keeps,
    absolute_tolerance=0.0,
    hints=(
        "The source uses one letter for two things: the weight and the probability of keeping it.",
        "A uniform number is below `keep` with probability `keep`. What does that make the mean?",
        "The mean is keep · w. Divide what is kept by `keep`, and refuse a `keep` outside (0, 1].",
    ),
    misconceptions=(
        Misconception(
            "the weight as its own probability",
            _refusing(lambda w, keep, u: torch.where(u < w, w, 0.0)),
            "the weight served as its own probability, as printed. −1 is never kept, 2 always: "
            "they are no probabilities.",
        ),
        Misconception(
            "not scaled",
            _refusing(lambda w, keep, u: torch.where(u < keep, w, 0.0)),
            "what is kept was not divided by `keep`, so on average the layer shrinks to keep · w.",
        ),
        Misconception(
            "multiplied",
            _refusing(lambda w, keep, u: torch.where(u < keep, w * keep, 0.0)),
            "you multiplied by `keep`. The kept weights must make up for the dropped ones: divide.",
        ),
        Misconception(
            "keep taken for drop",
            _refusing(lambda w, keep, u: torch.where(u >= keep, w / (1 - keep), 0.0)),
            "you took `keep` for the probability of dropping, as nn.Dropout's p is. Here it is the "
            "probability of keeping.",
        ),
        Misconception(
            "comparison turned round",
            _refusing(lambda w, keep, u: torch.where(u > keep, w / keep, 0.0)),
            "u > keep happens with probability 1 − keep. Compare the other way round.",
        ),
        Misconception(
            "anything goes",
            lambda w, keep, u: torch.where(u < keep, w / keep, 0.0),
            "a `keep` of 0 or of 1.5 went through. It is no probability to keep by: raise a "
            "ValueError.",
        ),
    ),
)

# ---------------------------------------------------------------------- mse_over_batches


def mse_over_batches(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean squared error over every target number of all batches, (inputs, targets) each.

    The targets may have any number of axes. Returns a 0-d tensor in their dtype.
    """
    errors = [(model(inputs) - targets).flatten() for inputs, targets in batches]
    return torch.cat(errors).square().mean()


def _batches(seed: int) -> list[Case]:
    draw = Draw(seed)
    one, three = draw.module(lambda: nn.Linear(4, 1)), draw.module(lambda: nn.Linear(5, 3))
    deep = draw.module(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    doubles = draw.module(lambda: nn.Linear(3, 2).double())

    def some(model, width: int, outputs: int, *sizes: tuple[int, ...], scale=1.0) -> tuple:
        pairs = [(draw.normal(*n, width), scale * draw.normal(*n, outputs)) for n in sizes]
        return model, pairs

    quiet, far = draw.module(lambda: nn.Linear(2, 2)), some(three, 5, 3, (4,), (4,))
    quiet.requires_grad_(False).weight.mul_(1e-9), quiet.bias.zero_()
    far[1][1][1][2, 1] = 1e4
    inputs = {
        "one batch, one output": some(one, 4, 1, (6,)),
        "two equal batches": some(one, 4, 1, (4,), (4,)),
        "a short last batch": some(one, 4, 1, (8,), (8,), (1,)),
        "a short first batch": some(one, 4, 1, (2,), (7,)),
        "three outputs": some(three, 5, 3, (4,), (2,)),
        "two layers": some(deep, 3, 2, (5,), (draw.number(1, 5),)),
        "targets with three axes": some(three, 5, 3, (2, 4), (1, 6)),
        "a single number": some(one, 4, 1, (1,)),
        "one far target": far,
        "targets of a billion": some(one, 4, 1, (3,), (5,), scale=1e9),
        "tiny numbers": some(quiet, 2, 2, (4,), (3,), scale=1e-9),
        "in float64": (doubles, [_doubles(pair) for pair in some(None, 3, 2, (4,), (1,))[1]]),
        "many batches": some(deep, 3, 2, *[(1 + i % 3,) for i in range(draw.number(10, 20))]),
    }
    return labelled_cases(("model", "batches"), inputs)


def _doubles(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].double(), 1e60 * pair[1].double()


def _squared(model, batches) -> list[Tensor]:
    return [(model(x) - y).square() for x, y in batches]


MSE_OVER_BATCHES = Exercise(
    reference=mse_over_batches,
    cases=_batches,
    absolute_tolerance=0.0,
    hints=(
        "A mean is a sum divided by how many numbers were added. How many were?",
        "Not weights, not batches: one squared error for each number in `targets`.",
        "Add up the squared errors of all batches, add up targets.numel(), divide once at the end.",
    ),
    misconceptions=(
        Misconception(
            "by the number of weights",
            lambda model, batches: (
                sum(s.sum() for s in _squared(model, batches))
                / sum(p.numel() for p in model.parameters())
            ),
            "you divided by the number of parameters, as the source does. Then a larger model has "
            "a smaller error, whatever it predicts.",
        ),
        Misconception(
            "mean of the batches' means",
            lambda model, batches: sum(s.mean() for s in _squared(model, batches)) / len(batches),
            "you averaged the batches' means. The single sample of a short last batch then counts "
            "as much as a whole batch.",
        ),
        Misconception(
            "by the number of batches",
            lambda model, batches: sum(s.sum() for s in _squared(model, batches)) / len(batches),
            "you divided by the number of batches. The result grows with the batch size.",
        ),
        Misconception(
            "by the number of samples",
            lambda model, batches: (
                sum(s.sum() for s in _squared(model, batches)) / sum(len(y) for _, y in batches)
            ),
            "with three outputs each sample has three errors. Count the numbers in `targets`.",
        ),
        Misconception(
            "not divided",
            lambda model, batches: sum(s.sum() for s in _squared(model, batches)),
            "that is the sum of squared errors. More data would look worse.",
        ),
        Misconception(
            "the last batch only",
            lambda model, batches: _squared(model, batches)[-1].mean(),
            "only the last batch was counted: is something overwritten in the loop?",
        ),
    ),
)

CHAPTER = "13_reading_sources"
EXERCISES = (
    ROW_IMPORTANCE,
    SPARSIFY_AT_RANDOM,
    SIGN_AND_SCALE,
    STOCHASTIC_TERNARY,
    MSE_OVER_BATCHES,
    COUNT_LSTM_MODEL,
)
