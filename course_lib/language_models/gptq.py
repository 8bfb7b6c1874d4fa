"""GPTQ: round a layer's weights column by column; later columns make up for earlier errors.

Rounding each weight to the nearest level makes the error of the weights small. What counts is the
error of the output, ‖(W − Ŵ) x‖². With the triangle of `inverse`, column j has the target

    t_j = w_j + Σ_{i<j} (w_i − ŵ_i) V_ij        ŵ_j = the level nearest to t_j

Columns are taken in strips: one by one inside a strip, from strip to strip by a product of
matrices. That changes the speed and nothing else.

Source: Frantar, Ashkboos, Hoefler, Alistarh, 2023, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers".

Axes: O outputs, I inputs, R rows sharing one scale, K groups of inputs, G inputs of a group,
C columns of a strip.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.formats.linear import Codes, Scheme, fit_stored
from course_lib.language_models.columns import Levels, check_layer, slices
from course_lib.language_models.inverse import Factor, damped_factor, repaired, targets
from course_lib.quantization.linear import Grid
from course_lib.quantization.rows import to_rows

PANEL, STRIP = 256, 32  # columns


@without_autocast
@torch.no_grad()
def gptq(
    weight: Tensor,
    gram: Tensor,
    scheme: Scheme | Grid,
    act_order: bool = False,
    static_groups: bool = True,
    damping: float = 0.01,
) -> Codes:
    """The codes of a weight, chosen so that the layer's output errs little.

    An input that is always 0 in G carries nothing, and its weights are rounded to nearest. (The
    authors' code sets them to 0. Another text may need them.)

    Args:
        weight: W, (O, I), any float type. The layers of a stage may lie on top of each other.
        gram: G, the mean of x xᵀ, (I, I), from `moments.Moments`.
        scheme: how the grid is fitted, or a grid of R rows.
        act_order: take the columns by falling G_jj, so that inputs of much power come first, while
            many are left to make up for their errors.
        static_groups: fit every group's grid to W. If not, each group's grid is fitted when its
            first column's turn comes, to what the columns before it have made of the group. (The
            authors' code leaves out columns of the same block of 128.)
        damping: as in `inverse.damped_factor`.

    Returns:
        Codes (O, I) with the grid of R rows, ready for a file.

    Raises:
        ValueError: the shapes do not fit; a group size that does not divide I; NaN or infinity;
            act_order with groups that are not static.

    >>> from course_lib.formats.linear import Format, nearest_codes
    >>> from course_lib.models.moments import Moments
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...>
    >>> x = torch.randn(500, 32) @ torch.randn(32, 32)
    >>> weight, scheme = torch.randn(8, 32), Scheme(Format(3), granularity=16)
    >>> codes = gptq(weight, Moments.empty(32).add(x).gram, scheme)
    >>> both = codes, nearest_codes(weight, scheme)
    >>> errors = [((weight - c.weight) @ x.T).square().mean().item() for c in both]
    >>> errors[0] < 0.8 * errors[1]
    True
    """
    _check(weight, gram, act_order, static_groups)
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    grid = scheme
    if isinstance(scheme, Scheme):
        grid = fit_stored(to_rows(weight, scheme.granularity), scheme)
    levels = Levels(grid, *weight.shape)
    grouped = isinstance(scheme, Scheme) and isinstance(scheme.granularity, int)
    refit = scheme if grouped and not static_groups else None  # a whole row is fitted at the start
    columns, groups = weight.T.contiguous(), levels.group  # (O, I) -> (I, O)
    if act_order:
        order = gram.diagonal().argsort(descending=True, stable=True)
        gram, columns = gram[order][:, order], columns[order]
        groups = [groups[i] for i in order.tolist()]
    steps = _rounded(columns, damped_factor(gram, damping), levels, groups, refit)
    if act_order:
        steps = steps[order.argsort()]
    by_group = steps.view(len(levels.scale), -1, len(weight))  # (I, O) -> (K, G, O)
    by_group += levels.zero_point[:, None]
    codes = steps.T.to(grid.format.dtype).contiguous()  # (I, O) -> (O, I)
    return Codes(codes, levels.grid())


def _rounded(
    weight: Tensor, factor: Factor, levels: Levels, groups: list[int], refit: Scheme | None
) -> Tensor:
    """q − z of each weight, as floats: (I, O), in the order of `weight`.

    A panel is a group if its grid is fitted on the way, else as wide as is fast.
    """
    inputs = len(weight)
    unit = factor.unit.to(weight.dtype)
    change, steps = torch.zeros_like(weight), torch.empty_like(weight)
    for panel in slices(0, inputs, inputs // len(levels.scale) if refit else PANEL):
        target = targets(weight, change, unit, panel)  # (C, O)
        if refit:
            rows = repaired(weight, target, unit, panel).T  # (G, O) -> (O, G)
            levels.put(groups[panel.start], fit_stored(rows, refit))
        for strip in slices(panel.start, panel.stop, STRIP):
            done = slice(panel.start, strip.start)
            ahead = target[strip.start - panel.start : strip.stop - panel.start]
            ahead.addmm_(unit[done, strip].T, change[done])
            _round_strip(ahead, strip, unit[strip, strip], groups, levels, (weight, change, steps))
    return steps


def _round_strip(
    target: Tensor,
    strip: slice,
    unit: Tensor,
    groups: list[int],
    levels: Levels,
    parts: tuple[Tensor, Tensor, Tensor],
) -> None:
    """In place, change and steps: column by column, the level nearest to the target.

    target: (C, O), without what the columns of the strip ask of each other.
    """
    weight, change, steps = (part[strip] for part in parts)
    carried = unit.T.contiguous()  # (C, C): row j holds what goes to column j
    for j, k in enumerate(groups[strip]):
        wanted = torch.addmv(target[j], change[:j].T, carried[j, :j])
        levels.steps(wanted, k, out=steps[j])
        torch.addcmul(weight[j], steps[j], levels.scale[k], value=-1, out=change[j])


def _check(weight: Tensor, gram: Tensor, act_order: bool, static_groups: bool) -> None:
    check_layer(weight, gram)
    if act_order and not static_groups:
        raise ValueError("act_order needs static_groups: a group's columns do not come together")
