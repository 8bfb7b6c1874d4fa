"""Exercises of 04_structured_pruning: hidden units go, and a bias takes over what is constant.

Axes: N examples, I inputs, H hidden units, K of them that stay, O outputs.
"""

from torch import Tensor

from course_lib.exercises.engine.spec import Exercise

# -------------------------------------------------------------------------- remove_units


def remove_units(
    weight: Tensor, bias: Tensor, following: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(weight, bias, following) of following · relu(weight · x + bias), smaller by hidden units.

    weight (H, I), bias (H,), following (O, H). keep (H,), bool: True for the units that stay, K of
    them, at least one; they stay in their order. The result is (K, I), (K,) and (O, K), each in its
    own dtype; the inputs stay as they are.
    """
    return weight[keep], bias[keep], following[:, keep]


REMOVE_UNITS = Exercise(reference=remove_units, cases=lambda seed: [], hints=())

# ------------------------------------------------------------------------ fold_constants


def fold_constants(
    weight: Tensor, bias: Tensor, inputs: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """(weight, bias) of the layer W h + b without some of its inputs; b takes over their means.

    weight W (O, H), bias b (O,). inputs (N, H): what the layer was given for N examples. keep (H,),
    bool: True for the inputs that stay, K of them, at least one. An input that goes counts as its
    mean over the N examples from now on, so its weights times its mean move into b. The result is
    (O, K) and (O,), each in its own dtype (all float; reckon float16 in float32 or wider).
    """
    lost = weight[:, ~keep].double() @ inputs[:, ~keep].double().mean(0)  # (O, H − K) (H − K,)
    return weight[:, keep], (bias + lost).to(bias.dtype)


FOLD_CONSTANTS = Exercise(reference=fold_constants, cases=lambda seed: [], hints=())
