"""Exercise of 04_structured_pruning: TinyLM with three fifths of its MLP units.

Axes: B windows, T tokens of a window, N tokens of all windows, D model width, F hidden units of an
MLP, O outputs, I inputs.
"""

import copy

import torch
from torch import Tensor, nn

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.exercises.language_models.inventing import shuffled
from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models import pretrained
from course_lib.models.llama import Block, Llama
from course_lib.models.llama_config import BlockShape
from course_lib.models.parts import record_inputs, walk_blocks
from course_lib.pruning.adaptive import highest_units
from course_lib.pruning.decoder import shrink_mlps
from course_lib.pruning.group_scores import group_norm, output_errors
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.smaller import keep_outputs, with_weight

UNITS, LOSS = 1228, 1.2525  # asked for
WINDOWS, LENGTH = 64, 256  # of the calibration text
WIDTHS = (387, 227, 307, 307)  # the first block is the dearest, the second the cheapest


def fitted(weight: Tensor, inputs: Tensor, target: Tensor, damping: float = 1e-3) -> Tensor:
    """V (O, I) of least ‖target − inputs Vᵀ‖², drawn a little towards the weight."""
    X = inputs.double()
    gram = X.T @ X
    gain = damping * gram.diagonal().mean()
    damped = gram + gain * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(damped, X.T @ target.double() + gain * weight.double().T).T


def last_standing(weight: Tensor, inputs: Tensor, count: int, damping: float = 1e-3) -> Tensor:
    """The `count` inputs that are left when the cheapest goes, the others are refitted, and so on."""
    X, stays = inputs.double(), torch.ones(len(weight.T), dtype=torch.bool)
    gram = X.T @ X
    inverse = torch.linalg.inv(gram + damping * gram.diagonal().mean() * torch.eye(len(gram)))
    for _ in range(len(gram) - count):
        cost = weight.square().sum(0) / inverse.diagonal()
        gone = cost.where(stays, torch.inf).argmin()
        step = inverse[gone] / inverse[gone, gone]
        weight = weight - torch.outer(weight[:, gone], step)
        inverse = inverse - torch.outer(step, inverse[gone])
        stays[gone] = False
        inverse[gone, gone] = 1.0  # of what is gone nobody divides by 0
    return stays


def narrow_block(dense: Block, given: tuple, block: Block, arguments: tuple, count: int) -> None:
    """In place: `block` stands for `dense`, on a stream that is no longer what `dense` is given."""
    attention, mlp = block.attention, block.mlp
    mixed, products = record_inputs(dense, given, [dense.attention.output, dense.mlp.down])
    middle = given[0].flatten(0, 1) + dense.attention.output(mixed)  # (B, T, D) -> (N, D)
    end, stream = middle + dense.mlp.down(products), arguments[0].flatten(0, 1)
    (mixed,) = record_inputs(block, arguments, [attention.output])
    attention.output.weight.copy_(fitted(attention.output.weight, mixed, middle - stream))
    (products,) = record_inputs(block, arguments, [mlp.down])
    missing = end - stream - attention.output(mixed)
    weight = fitted(mlp.down.weight, products, missing)
    keep = last_standing(weight, products, count)
    weight = fitted(mlp.down.weight[:, keep], products[:, keep], missing)
    mlp.gate, mlp.up = keep_outputs(mlp.gate, keep), keep_outputs(mlp.up, keep)
    mlp.down = with_weight(mlp.down, weight.to(mlp.down.weight.dtype), None)


def narrow_tiny(model: Llama, tokens: Tensor) -> Llama:
    """TinyLM with at most 1228 of the 2048 hidden units of its MLPs, nothing trained.

    Each MLP may keep its own number of units, at least 1. Attention keeps its shapes and the
    embedding its numbers; all other numbers may change. tokens (B, T) are a text to calibrate
    with, the model stays as it is. Asked for: at most BAR bits per byte on held-out text (dense: 1.173).
    """
    small = copy.deepcopy(model)
    walks = zip(walk_blocks(model, tokens), walk_blocks(small, tokens), WIDTHS, strict=True)
    for (dense, given), (block, arguments), count in walks:
        narrow_block(dense, given, block, arguments, count)
    groups = model.config.shapes[0].groups
    small.config = model.config.with_shapes([BlockShape(groups, count) for count in WIDTHS])
    return small


def _tiny_and_text(seed: int) -> list[Case]:
    """One text for all seeds: with another one, the loss that is reached moves."""
    draw, (model, tokenizer) = Draw(seed), pretrained.tiny()
    windows = tiny_calibration(tokenizer, WINDOWS)
    inputs = {"model": shuffled(model, draw), "tokens": windows[draw.order(WINDOWS)]}
    return [Case("TinyLM, its channels and hidden units in another order", inputs)]
