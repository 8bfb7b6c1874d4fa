"""Learn from what a teacher computes on the way, not only from what it answers.

Sources: Romero et al., 2015, "FitNets: Hints for Thin Deep Nets"; Zagoruyko and Komodakis, 2017,
"Paying More Attention to Attention".

Axes: … examples (and positions), D student's width, E teacher's width, B batch, K channels, H rows,
W columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def hint_loss(student: Tensor, teacher: Tensor, projection: nn.Module) -> Tensor:
    """Mean squared difference of projection(student) and teacher, over examples and widths.

    The projection is learned together with the student and thrown away afterwards. Without it the
    widths could not differ, and the student would have to use the teacher's very coordinates.

    Args:
        student: features (…, D).
        teacher: features (…, E).
        projection: from D to E, `nn.Linear(D, E)` for example.

    Source: Romero et al., 2015, "FitNets: Hints for Thin Deep Nets".

    >>> hint_loss(torch.zeros(2, 3), torch.ones(2, 5), nn.Linear(3, 5, bias=False))
    tensor(1., grad_fn=<MseLossBackward0>)
    """
    projected = projection(student)
    if projected.shape != teacher.shape:
        raise ValueError(
            "projection(student) must have the teacher's shape; "
            f"got {tuple(projected.shape)} and {tuple(teacher.shape)}"
        )
    wide = torch.promote_types(projected.dtype, torch.float32)  # squares overflow in half precision
    return F.mse_loss(projected.to(wide), teacher.to(wide))


def attention_map(features: Tensor) -> Tensor:
    """Where a layer is active: mean square over K, of length one. (B, K, H, W) -> (B, H·W)

    In float32 at least; a silent layer's map is zero.

    >>> attention_map(torch.tensor([[[[0.0, 2.0]], [[0.0, 1.0]]]]))
    tensor([[0., 1.]])
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    unit = wide.abs().amax(dim=(1, 2, 3), keepdim=True)  # squares may over- or underflow
    wide = wide / unit.clamp(min=torch.finfo(wide.dtype).tiny)
    return F.normalize(wide.square().mean(dim=1).flatten(1), dim=1)  # (B, H, W) -> (B, H·W)


def attention_transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the two attention maps, averaged over the batch.

    The channels need not agree in number, so no projection is needed.

    Args:
        student, teacher: features (B, K, H, W) with their own K, and H, W in common.

    Source: Zagoruyko and Komodakis, 2017, "Paying More Attention to Attention".
    """
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            "student and teacher must agree in batch, height and width; "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    difference = attention_map(student) - attention_map(teacher)
    return difference.square().sum(dim=1).mean()
