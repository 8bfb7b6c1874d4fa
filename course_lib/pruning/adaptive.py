"""Each layer its own width: measure what its MLP loses alone, then split one budget of units.

    min Σ_l loss_l(d_l)    s.t.  Σ_l round(d_l F_l) ≤ round(density · Σ_l F_l)

`allocation` has the problem and its exact answer for single weights; here whole hidden units go,
cut for real and, if wanted, mended. A unit of any layer costs 3 D weights, so a budget of units is
one of weights.

Sources: Han et al., 2015, "Learning both Weights and Connections for Efficient Neural
Networks" (sensitivities); Sinha and Zoltners, 1979, "The Multiple-Choice Knapsack Problem".

Axes: B windows, T tokens, L layers, F hidden units of an MLP, S densities.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.models.llama import MLP, Llama
from course_lib.models.parts import record_inputs
from course_lib.models.selection import highest_masks
from course_lib.pruning.allocation import Sensitivity, split_budget
from course_lib.pruning.repair import refit
from course_lib.pruning.smaller import Mend, keep_inputs, keep_outputs


def highest_units(scores: Sequence[Tensor], densities: Sequence[float]) -> list[Tensor]:
    """For each layer a mask of its round(d · F) highest scores: what `shrink_mlps` takes.

    Args:
        scores: (F,) of each layer.
        densities: one for each layer, from 0 to 1.

    Raises:
        ValueError: a density is out of range or keeps no unit; there are not as many as layers.

    >>> highest_units([torch.tensor([1.0, 3.0, 2.0])], [2 / 3])
    [tensor([False,  True,  True])]
    """
    if len(scores) != len(densities):
        raise ValueError(f"densities must be {len(scores)}, one a layer; got {len(densities)}")
    masks = []
    for score, density in zip(scores, densities, strict=True):
        if not 0 <= density <= 1 or (k := round(density * len(score))) < 1:
            raise ValueError(
                f"a density must be from 0 to 1 and keep one of {len(score)} units; got {density}"
            )
        masks.append(highest_masks({"units": score}, k)["units"])
    return masks


@torch.no_grad()
def width_sensitivity(
    model: Llama,
    scores: Sequence[Tensor],
    densities: Sequence[float],
    measure: Callable[[Llama], float],
    tokens: Tensor | None = None,
    mend: Mend = refit,
) -> Sensitivity:
    """Narrow each MLP alone to each density, and measure: L · S + 1 measurements, of a copy.

    Args:
        scores: of each layer's units, (F,): the highest stay.
        densities: S shares of a layer's units; each keeps a unit at least.
        measure: the loss of a model, a finite number; on other text than the final judgement's.
        tokens: calibration text (B, T), on which each narrowed `down` is mended; without, none is.
        mend: `repair.refit`.

    Returns:
        Losses by layer and density; its `sizes` are in units.

    Raises:
        ValueError: scores are not L; a density is out of range; a loss is not finite.

    >>> from course_lib.models.pretrained import tiny
    >>> scores = [torch.arange(512.0)] * 4
    >>> width = lambda model: model.blocks[1].mlp.down.in_features
    >>> found = width_sensitivity(tiny()[0], scores, [0.5, 1.0], width)
    >>> found.sizes, found.increases.tolist()
    ((512, 512, 512, 512), [[0.0, 0.0], [-256.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    """
    if len(scores) != len(model.blocks):
        raise ValueError(f"scores must be {len(model.blocks)}, one a layer; got {len(scores)}")
    model = copy.deepcopy(model)
    mlps = [block.mlp for block in model.blocks]
    given = [None] * len(mlps)
    if tokens is not None:
        given = record_inputs(model, tokens, [mlp.down for mlp in mlps])
    dense, losses = float(measure(model)), []
    for block, mlp, score, inputs in zip(model.blocks, mlps, scores, given, strict=True):
        for density in densities:
            (keep,) = highest_units([score], [density])
            block.mlp = _narrower(mlp, keep, inputs, mend)
            losses.append(float(measure(model)))
        block.mlp = mlp
    table = torch.tensor(losses, dtype=torch.float64).view(len(mlps), -1)  # (L · S,) -> (L, S)
    check_finite(table, "the losses that measure gives")
    names = tuple(f"blocks.{number}.mlp" for number in range(len(mlps)))
    return Sensitivity(names, tuple(map(len, scores)), tuple(densities), dense, table)


def adaptive_units(scores: Sequence[Tensor], found: Sensitivity, density: float) -> list[Tensor]:
    """Masks of the units that stay: the widths of least summed loss with `density` of all units.

    Args:
        scores: those that `found` was measured with.
        found: from `width_sensitivity`.
        density: share of all units that may stay.

    Raises:
        ValueError: as `split_budget`.

    >>> found = Sensitivity(("a", "b"), (4, 4), (0.25, 1.0), 0.0, torch.tensor([[9.0, 0], [1, 0]]))
    >>> [int(mask.sum()) for mask in adaptive_units([torch.arange(4.0)] * 2, found, 0.7)]
    [4, 1]
    """
    return highest_units(scores, split_budget(found.losses, found.sizes, found.densities, density))


def _narrower(mlp: MLP, keep: Tensor, inputs: Tensor | None, mend: Mend) -> MLP:
    small = copy.copy(mlp)
    small._modules = dict(mlp._modules)  # a shallow copy has the other's own dictionary
    small.gate, small.up = keep_outputs(mlp.gate, keep), keep_outputs(mlp.up, keep)
    small.down = keep_inputs(mlp.down, keep, inputs, mend)
    return small
