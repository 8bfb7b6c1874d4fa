"""Exercises of 04_structured_pruning: channels and heads, with all that must go along with them.

Axes: C channels, P places of a picture, K of channels or heads that stay, O outputs, D model width,
H query heads, G key-value heads, E head width.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ----------------------------------------------------------------------- remove_channels


def remove_channels(layers: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """The tensors of convolution → BatchNorm → ReLU → flatten → linear, with K of the C channels.

    conv.weight (C, I, k, k); norm.weight, norm.bias, norm.running_mean, norm.running_var (C,);
    norm.num_batches_tracked (); linear.weight (O, C · P), as a channel's picture has P places, and
    linear.bias (O,). keep (C,), bool: True for the channels that stay, in their order, at least
    one. The network that is left gives what the old one would if the channels that go gave 0 behind
    the ReLU. Returns a new dictionary with the same names; the inputs stay as they are.
    """
    small = dict(layers)
    for name in (
        "conv.weight",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
    ):
        small[name] = layers[name][keep]
    columns = keep.repeat_interleave(layers["linear.weight"].shape[1] // len(keep))  # (C · P,)
    small["linear.weight"] = layers["linear.weight"][:, columns]
    return small


STATISTICS = ("norm.running_mean", "norm.running_var")


def _layers(
    draw: Draw, channels: int, places: int, outputs=3, inputs=2, kernel=3, size=1.0
) -> dict:
    return {
        "conv.weight": size * draw.normal(channels, inputs, kernel, kernel),
        "norm.weight": draw.normal(channels),
        "norm.bias": draw.normal(channels),
        "norm.running_mean": size * draw.normal(channels),
        "norm.running_var": size**2 * (0.1 + draw.uniform(channels)),
        "norm.num_batches_tracked": torch.tensor(draw.number(1, 999)),
        "linear.weight": size * draw.normal(outputs, channels * places),
        "linear.bias": size * draw.normal(outputs),
    }


def _convolutions(seed: int) -> list[Case]:
    draw = Draw(seed)
    layers = partial(_layers, draw)
    labelled = {
        "four channels, two stay": (layers(4, 2), torch.tensor([True, False, False, True])),
        "the first stay": (layers(6, 4), torch.arange(6) < 3),
        "the last stay": (layers(6, 4), torch.arange(6) > 2),
        "every second stays": (layers(8, 5), torch.arange(8) % 2 == 0),
        "any stay": (layers(9, 4), draw.order(9) < 5),
        "as many places as channels": (layers(4, 4, 4, 4), draw.order(4) < 2),
        "one place": (layers(7, 1), draw.order(7) < 4),
        "one channel": (layers(1, 6), torch.tensor([True])),
        "one stays": (layers(7, 4), draw.order(7) == 0),
        "all stay": (layers(5, 3), torch.ones(5, dtype=torch.bool)),
        "a convolution with one place": (layers(6, 4, kernel=1), draw.order(6) < 3),
        "one output, one input": (layers(6, 4, 1, 1), draw.order(6) < 3),
        "the size of DigitsCNN: 32 channels, 2 × 2 places": (
            layers(32, 4, 10, 32),
            draw.order(32) < 16,
        ),
        **_odd_convolutions(draw),
    }
    return labelled_cases(("layers", "keep"), labelled)


def _odd_convolutions(draw: Draw) -> dict[str, tuple]:
    """Zeros, views, scales and dtypes."""
    layers = partial(_layers, draw)

    def held_as(dtype: torch.dtype, some: dict, size: float = 1.0) -> dict:
        return {n: size * x.to(dtype) if x.is_floating_point() else x for n, x in some.items()}

    silent, turned, mixed = layers(6, 4), layers(6, 4), held_as(torch.float16, layers(5, 3))
    for name in ("norm.weight", "norm.bias", "norm.running_mean"):
        silent[name][::2] = 0
    turned |= {name: x.T.clone().T for name, x in turned.items() if x.dim() == 2}
    mixed |= {name: mixed[name].float() for name in STATISTICS}
    tiny = held_as(torch.float64, layers(5, 2), 1e-60)
    idle, each = layers(6, 4), layers(5, 3)
    for name in ("conv.weight", "norm.weight", "norm.bias", *STATISTICS):
        idle[name][0] = 0
    idle["linear.weight"][:, :4] = 0
    dtypes = {"conv": torch.float16, "norm": torch.float32, "linear": torch.bfloat16}
    each = {name: x.to(dtypes[name.split(".")[0]]) for name, x in each.items()}
    each |= {name: each[name].double() for name in STATISTICS}
    return {
        "silent channels stay": (silent, torch.tensor([True, True, True, False, True, False])),
        "a channel of zeros stays, that nobody reads": (idle, torch.arange(6) < 3),
        "views": (turned, torch.arange(12).remainder(4).eq(0)[::2]),
        "very small weights": (layers(6, 4, size=1e-9), draw.order(6) < 3),
        "very large weights": (layers(6, 4, size=1e9), draw.order(6) < 3),
        "float16, its statistics in float32": (mixed, draw.order(5) < 3),
        "a dtype for each": (each, draw.order(5) < 3),
        "float64": (held_as(torch.float64, layers(6, 4)), draw.order(6) < 4),
        "float64, smaller than float32 knows": (tiny, draw.order(5) < 3),
    }


def _logits(layers: dict[str, Tensor], places: int, keep: Tensor | None = None) -> Tensor:
    """Of three pictures of one row; a channel that is not kept gives 0 behind the ReLU."""
    wide = {name: tensor.double() for name, tensor in layers.items()}
    kernel = wide["conv.weight"]
    x = Draw(0).normal(3, kernel.shape[1], 1, places).double()
    x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    norm = (wide[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    hidden = F.batch_norm(x, *norm).relu()
    hidden = hidden if keep is None else hidden * keep[:, None, None]
    return F.linear(hidden.flatten(1), wide["linear.weight"], wide["linear.bias"])


def _gives_the_same(inputs, value) -> bool:
    layers, keep = inputs["layers"], inputs["keep"]
    places = layers["linear.weight"].shape[1] // len(keep)
    old, new = _logits(layers, places, keep), _logits(value, places)
    return bool(((old - new).abs() <= 1e-9 * old.abs().max()).all())


def _with(columns_of=None, statistic_of=None):
    """The right tensors, but for the linear layer's columns or BatchNorm's statistics."""

    def wrong(layers, keep):
        small = remove_channels(layers, keep)
        if columns_of:
            places = layers["linear.weight"].shape[1] // len(keep)
            small["linear.weight"] = layers["linear.weight"][:, columns_of(keep, places)]
        for name in STATISTICS if statistic_of else ():
            small[name] = statistic_of(name, layers[name], keep)
        return small

    return wrong


def _strided(keep, places):
    return keep.repeat(places)


def _first(name, statistic, keep):
    return statistic[: int(keep.sum())]


def _fresh(name, statistic, keep):
    """What a new BatchNorm begins with."""
    return torch.full_like(statistic[keep], float(name.endswith("var")))


def _in_place(layers, keep):
    layers.update(remove_channels(layers, keep))
    return layers


REMOVE_CHANNELS = Exercise(
    reference=remove_channels,
    cases=_convolutions,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "Shapes that fit prove little. Number the channels 0, 1, 2, … and follow each number "
        "through every tensor: is it the same channel everywhere?",
        "BatchNorm keeps four numbers about a channel: two are trained, two are measured. And for "
        "C = 2, P = 3, in which order does flatten lay out the six numbers?",
        "The running mean and variance are [keep], as the rest. Flatten puts the P numbers of a "
        "channel side by side: keep.repeat_interleave(P), not keep.repeat(P).",
    ),
    properties=(
        Property(
            "the smaller network gives what the old one gives with the other channels at 0",
            _gives_the_same,
        ),
    ),
    misconceptions=(
        Misconception(
            "as the colleague wrote it",
            _with(_strided, _first),
            "both faults are still there. Follow one channel through every tensor: which of "
            "BatchNorm's numbers are its own, and which columns of the linear layer read it?",
        ),
        Misconception(
            "strided columns",
            _with(_strided),
            "BatchNorm is right now, the linear layer is not. keep.repeat(P) is laid out place "
            "after place; flatten goes through one channel's picture, then through the next one's.",
        ),
        Misconception(
            "statistics of the first channels",
            _with(statistic_of=_first),
            "the columns are right now, BatchNorm is not: its running mean and variance are those "
            "of the first K channels, and not of the K that stay.",
        ),
        Misconception(
            "fresh statistics",
            _with(statistic_of=_fresh),
            "running mean 0 and variance 1 are what a new BatchNorm begins with. These were "
            "measured in training, and each channel has its own: they go along as they are.",
        ),
        Misconception(
            "one column for each channel",
            _with(lambda keep, places: keep.nonzero()[:, 0]),
            "the linear layer kept one column for each channel. A channel is a picture of P "
            "places, and each has a column.",
        ),
        Misconception(
            "in place",
            _in_place,
            "the tensors are right, but they were written into the dictionary that was passed in: "
            "the old network is gone.",
        ),
    ),
)

# -------------------------------------------------------------------------- remove_heads


def remove_heads(
    query: Tensor, key: Tensor, value: Tensor, output: Tensor, keep: Tensor, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(query, key, value, output) of an attention with fewer heads, of which some share keys.

    H query heads of width E: query (H · E, D), output (D, H · E). G = kv_heads key-value heads:
    key, value (G · E, D). The E rows of a head (of output: its columns) stand side by side. Each
    key-value head serves H / G neighbours, the first one the first H / G query heads, and so on.
    keep (H,), bool: True for the query heads that stay, at least one. A key-value head goes with
    the last of its query heads, not before. What stays keeps its order and dtype; the inputs stay
    as they are.
    """
    E = len(query) // len(keep)
    serves = keep.view(kv_heads, -1).any(dim=1)  # (H,) -> (G,)
    rows, kv_rows = keep.repeat_interleave(E), serves.repeat_interleave(E)
    return query[rows], key[kv_rows], value[kv_rows], output[:, rows]


def _attention(
    draw: Draw, heads: int, groups: int, width: int, D: int, size=1.0, dtype=torch.float32
) -> tuple[Tensor, ...]:
    """query, key, value and output."""
    shapes = ((heads * width, D), *[(groups * width, D)] * 2, (D, heads * width))
    return tuple(size * draw.normal(*shape).to(dtype) for shape in shapes)


def _mask(*stays: int) -> Tensor:
    return torch.tensor(stays, dtype=torch.bool)


def _attentions(seed: int) -> list[Case]:
    draw = Draw(seed)

    def case(heads: int, groups: int, width: int, D: int, keep: Tensor) -> tuple:
        return *_attention(draw, heads, groups, width, D), keep, groups

    labelled = {
        "six heads on two: one goes": case(6, 2, 3, 5, _mask(1, 0, 1, 1, 1, 1)),
        "a whole group goes": case(6, 2, 3, 5, _mask(1, 1, 1, 0, 0, 0)),
        "the first group goes, and one more": case(6, 2, 3, 5, _mask(0, 0, 0, 1, 0, 1)),
        "two of each group go": case(6, 2, 4, 8, _mask(0, 1, 0, 0, 0, 1)),
        "the middle group goes": case(9, 3, 2, 7, _mask(1, 0, 1, 0, 0, 0, 0, 1, 1)),
        "every second stays": case(8, 2, 3, 5, torch.arange(8) % 2 == 0),
        "as many groups as heads in each": case(9, 3, 2, 4, _mask(0, 1, 0, 1, 0, 0, 0, 0, 0)),
        "any stay": case(12, 4, 2, 6, draw.order(12) < 4),
        "each head has its own keys": case(5, 5, 3, 4, draw.order(5) < 3),
        "all heads share one": case(5, 1, 3, 4, draw.order(5) < 2),
        "as wide as its heads": case(6, 2, 2, 12, draw.order(6) < 4),
        "all stay": case(6, 3, 2, 5, torch.ones(6, dtype=torch.bool)),
        "one stays": case(8, 4, 2, 5, draw.order(8) == 0),
        "one head": case(1, 1, 3, 4, _mask(1)),
        "heads of width 1": case(8, 4, 1, 5, draw.order(8) < 3),
        "a model of width 1": case(6, 3, 2, 1, draw.order(6) < 3),
        "TinyLM: 6 heads on 2": case(6, 2, 32, 192, draw.order(6) < 3),
        **_odd_attentions(draw),
    }
    names = ("query", "key", "value", "output", "keep", "kv_heads")
    return labelled_cases(names, labelled)


def _odd_attentions(draw: Draw) -> dict[str, tuple]:
    """Zeros, views, scales and dtypes; six heads on three."""

    def attention(size=1.0, dtype=torch.float32) -> tuple[Tensor, ...]:
        return _attention(draw, 6, 3, 2, 5, size, dtype)

    def any_stay() -> Tensor:
        return draw.order(6) < 3

    q, k, v, o = attention()
    q[:2] = 0  # head 0
    dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    mixed = [x.to(dtype) for x, dtype in zip(attention(), dtypes, strict=True)]
    turned = [x.T.clone().T for x in attention()]
    return {
        "very small weights": (*attention(1e-9), any_stay(), 3),
        "very large weights": (*attention(1e9), any_stay(), 3),
        "zeros stay": (q, -0.0 * k, 0 * v, 0 * o, _mask(1, 0, 0, 1, 1, 0), 3),
        "views": (*turned, torch.arange(12).remainder(8).lt(4)[::2], 3),
        "a dtype for each": (*mixed, any_stay(), 3),
        "float64, smaller than float32 knows": (*attention(1e-60, torch.float64), any_stay(), 3),
    }


def _attended(parts, served: list[int], keep: Tensor | None = None) -> Tensor:
    """What four tokens get; served: how many query heads each key-value head has."""
    query, key, value, output = (part.double() for part in parts)
    E = len(key) // len(served)
    x = Draw(0).normal(4, query.shape[1]).double()
    q, k, v = (
        (x @ part.T).unflatten(1, (-1, E)).transpose(0, 1)  # (T, H·E) -> (H, T, E)
        for part in (query, key, value)
    )
    counts = torch.tensor(served)
    k, v = (part.repeat_interleave(counts, dim=0) for part in (k, v))
    heads = F.scaled_dot_product_attention(q, k, v)
    heads = heads if keep is None else heads * keep[:, None, None]
    return heads.transpose(0, 1).flatten(1) @ output.T  # (H, T, E) -> (T, H·E) -> (T, D)


def _attends_the_same(inputs, value) -> bool:
    *parts, keep, groups = inputs.values()
    size = max(float(parts[0].abs().max()) ** 2, 1e-300)  # query and key grow together
    parts = [parts[0].double() / size, *parts[1:]]
    value = [value[0].double() / size, *value[1:]]
    served = [int(group.sum()) for group in keep.view(groups, -1)]
    old = _attended(parts, [len(keep) // groups] * groups, keep)
    new = _attended(value, [count for count in served if count])
    return bool(((old - new).abs() <= 1e-9 * old.abs().max()).all())


def _cut(rows_of=None, serves_of=None, output_of=None):
    """The right cut, but for the rows of each head, the key-value heads, or the output."""

    def wrong(query, key, value, output, keep, kv_heads):
        E = len(query) // len(keep)
        serves = (serves_of or _any_of_its_own)(keep, kv_heads)
        rows, kv_rows = ((rows_of or Tensor.repeat_interleave)(x, E) for x in (keep, serves))
        last = output_of(output, rows) if output_of else output[:, rows]
        return query[rows], key[kv_rows], value[kv_rows], last

    return wrong


def _any_of_its_own(keep, kv_heads):
    return keep.view(kv_heads, -1).any(dim=1)


REMOVE_HEADS = Exercise(
    reference=remove_heads,
    cases=_attentions,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "How wide is a head? query has H · E rows, and H is len(keep). Which rows are head 0's?",
        "keep.repeat_interleave(E) says it for every row of query and every column of output. For "
        "keys and values ask first: which key-value heads still serve anybody?",
        "keep.view(kv_heads, -1) has a row for each key-value head: those that it serves. "
        ".any(dim=1) is True where one of them stays. Then again repeat_interleave(E).",
    ),
    properties=(
        Property(
            "the smaller attention gives what the old one gives with the other heads at 0",
            _attends_the_same,
        ),
    ),
    misconceptions=(
        Misconception(
            "strided rows",
            _cut(rows_of=Tensor.repeat),
            "keep.repeat(E) says True, False, … row by row. The E rows of a head stand side by "
            "side: repeat_interleave.",
        ),
        Misconception(
            "with the first of its heads",
            _cut(serves_of=lambda keep, groups: keep.view(groups, -1).all(dim=1)),
            "a key-value head went as soon as one of its query heads did. The others still need "
            "it: it goes with the last.",
        ),
        Misconception(
            "all keys and values stay",
            _cut(serves_of=lambda keep, groups: torch.ones(groups, dtype=bool, device=keep.device)),
            "no key-value head went. Those that serve nobody any more still fill the cache: that "
            "is what you pay for each token of a long text.",
        ),
        Misconception(
            "strided groups",
            _cut(serves_of=lambda keep, groups: keep.view(-1, groups).any(dim=0)),
            "you gave query head h the key-value head h modulo G. Neighbours share one: with six "
            "heads on two, 0, 1, 2 read the first and 3, 4, 5 the second.",
        ),
        Misconception(
            "rows of the output",
            _cut(output_of=lambda output, rows: output[: len(rows)][rows[: len(output)]]),
            "you cut rows of the output matrix. A head is read by its columns; the rows are the "
            "model's own width, and that stays.",
        ),
        Misconception(
            "masked",
            _cut(output_of=lambda output, rows: output * rows),
            "the output's columns are zeros now and still there. They have to go, as there is "
            "nobody left whom they read.",
        ),
    ),
)
