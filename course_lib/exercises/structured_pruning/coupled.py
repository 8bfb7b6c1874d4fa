"""Exercises of 04_structured_pruning: channels and heads, with all that must go along with them.

Axes: C channels, P places of a picture, K of channels or heads that stay, O outputs, D model width,
H query heads, G key-value heads, E head width.
"""

from torch import Tensor

from course_lib.exercises.engine.spec import Exercise

# ----------------------------------------------------------------------- remove_channels


def remove_channels(layers: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """The tensors of convolution → BatchNorm → ReLU → flatten → linear, with K of the C channels.

    conv.weight (C, I, k, k); norm.weight, norm.bias, norm.running_mean, norm.running_var: (C,) each;
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


REMOVE_CHANNELS = Exercise(reference=remove_channels, cases=lambda seed: [], hints=())

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


REMOVE_HEADS = Exercise(reference=remove_heads, cases=lambda seed: [], hints=())
