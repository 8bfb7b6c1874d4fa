"""SparseGPT: remove weights column by column; later columns make up for those that go.

With the triangle of `inverse`, setting weight j of an output to 0 costs R_jj² t_j², where t_j is
its target when its turn comes. Which weights go is decided for some columns at once, by what each
would cost by itself, on the weights w' as the columns before have left them:

    score_ij = R_jj² w'_ij²  =  w'_ij² / U_jj²        U of the papers: UᵀU = H⁻¹

Unstructured, the weights of 128 columns compete, of all outputs together, so an output may keep
more than another. For n of m, the m columns of each output compete. What stays may be rounded to a
grid in the same pass: then the columns to come make up for both.

Source: Frantar and Alistarh, 2023, "SparseGPT: Massive Language Models Can be Accurately Pruned in
One-Shot".

Axes: O outputs, I inputs, C columns that are decided together.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.language_models.columns import Levels, check_layer, slices
from course_lib.language_models.inverse import Factor, damped_factor, repaired, targets
from course_lib.models.n_of_m import check_n_of_m, largest_of_few
from course_lib.models.selection import largest_masks
from course_lib.quantization.linear import Grid

BLOCK, STRIP = 128, 32  # columns


@without_autocast
@torch.no_grad()
def sparsegpt(
    weight: Tensor,
    gram: Tensor,
    density: float | tuple[int, int],
    grid: Grid | None = None,
    damping: float = 0.01,
) -> Tensor:
    """The weight with zeros, chosen and made up for so that the layer's output errs little.

    An input that is always 0 in G loses its weights first. Of equal scores the first stay.

    Args:
        weight: W, (O, I), any float type. For layers of a stage, call it for each.
        gram: G, the mean of x xᵀ, (I, I), from `moments.Moments`.
        density: share of weights that stay in each block of 128 columns, from 0 to 1; or (n, m):
            n of every m neighbours of an output stay.
        grid: of R rows, to whose levels what stays is rounded.
        damping: as in `inverse.damped_factor`.

    Returns:
        The new weight, (O, I): in the old one's dtype; with a grid in float32 or wider, on its
        levels.

    Raises:
        ValueError: the shapes do not fit; density out of range; m does not divide I; NaN or
            infinity.

    >>> weight, gram = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    >>> sparsegpt(weight, gram, (1, 2), damping=0.0)
    tensor([[0., 3.]])
    """
    check_layer(weight, gram)
    if isinstance(density, tuple):
        check_n_of_m(weight.shape[1], *density)
    elif not 0 <= density <= 1:
        raise ValueError(f"density must be from 0 to 1; got {density}")
    factor = damped_factor(gram, damping)
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    levels = None if grid is None else Levels(grid, *weight.shape)
    columns = wide.T.contiguous()  # (O, I) -> (I, O)
    pruned = _pruned(columns, factor, density, levels).T.contiguous()  # (I, O) -> (O, I)
    return pruned if levels else pruned.to(weight.dtype)


def _pruned(
    weight: Tensor, factor: Factor, density: float | tuple[int, int], levels: Levels | None
) -> Tensor:
    """The new weight, (I, O) as the old one. A strip for n of m is m columns."""
    n, m = density if isinstance(density, tuple) else (None, None)
    unit = factor.unit.to(weight.dtype)
    root = factor.diagonal.to(weight.dtype).masked_fill(factor.dead, 0)[:, None]  # R_jj, (I, 1)
    change, pruned = torch.zeros_like(weight), torch.empty_like(weight)
    for block in slices(0, len(weight), max(m, BLOCK // m * m) if m else BLOCK):
        target = targets(weight, change, unit, block)  # (C, O)
        if m is None:
            score = repaired(weight, target, unit, block) * root[block]
            kept = largest_masks({"score": score}, round(density * score.numel()))["score"]
        for strip in slices(block.start, block.stop, m or STRIP):
            done = slice(block.start, strip.start)
            here = slice(strip.start - block.start, strip.stop - block.start)
            target[here].addmm_(unit[done, strip].T, change[done])
            if m is not None:
                score = repaired(weight, target[here], unit, strip).abs_() * root[strip]
                kept_here = largest_of_few(score, n, dim=0)
            else:
                kept_here = kept[here]
            parts = (weight, change, pruned)
            _prune_strip(target[here], ~kept_here, unit[strip, strip], strip, parts, levels)
    return pruned


def _prune_strip(
    target: Tensor,
    gone: Tensor,
    unit: Tensor,
    strip: slice,
    parts: tuple[Tensor, ...],
    levels: Levels | None,
) -> None:
    """In place, change and pruned: column by column, 0 or the target (or the level next to it).

    target, gone: (C, O), the target without what the strip's columns ask of each other.
    """
    weight, change, pruned = (part[strip] for part in parts)
    groups = levels.group[strip] if levels else None
    carried = unit.T.contiguous()  # (C, C): row j holds what goes to column j
    for j in range(len(target)):
        wanted = torch.addmv(target[j], change[:j].T, carried[j, :j], out=pruned[j])
        wanted.masked_fill_(gone[j], 0)
        if levels:
            k = groups[j]
            levels.steps(wanted, k, out=wanted).mul_(levels.scale[k])
        torch.sub(weight[j], wanted, out=change[j])
