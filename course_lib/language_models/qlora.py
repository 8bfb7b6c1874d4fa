"""QLoRA: adapters in floats on a base whose weights stay packed while it learns.

LoRA's base needs no gradients, so it need not be made of floats either. Here each linear layer
holds the parts that a file would hold, in any form of `formats.forms`, and makes floats of them
when it is called:

    y = x Ŵᵀ + (α / r) x Aᵀ Bᵀ         Ŵ = decode(parts)
    ∂x = ∂y Ŵ + …                      decoded once more

Between the calls Ŵ is nowhere: autograd would keep it for the second line, four bytes a weight.
Decoding twice is what that costs in time. The codes get no gradient: what they lose by rounding,
A and B can learn to give back, as far as rank r goes.

The authors take NF4 with double quantization, `formats.codebook.NF4`; even levels, as
`formats.linear.Scheme(Format(4), 64)`, do as well here.

Axes: O outputs, I inputs, r rank.

Source: Dettmers et al., 2023, "QLoRA: Efficient Finetuning of Quantized LLMs".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.formats.forms import AnyScheme
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.low_rank.adapters import add_adapters
from course_lib.models.parts import replace_modules

WEIGHT = "packed"  # the name before the colon of each part's buffer


class PackedLinear(nn.Module):
    """y = x Ŵᵀ + bias, where Ŵ is held as the parts of its form: buffers, as `packed:codes`.

    Gradients flow to x, none to the parts or the bias. To another device it may be moved; cast to
    another dtype, its scales would be rounded.

    Args:
        weight: W, (O, I); what is kept of it are the parts.
        scheme: how they are made, as for `formats.model_file.pack_tensors`.
        bias: (O,), kept as it is.

    Raises:
        TypeError, ValueError: weight is no matrix; what the scheme's encoder refuses.

    >>> from course_lib.formats.codebook import NF4
    >>> layer = PackedLinear(torch.randn(32, 64), NF4)
    >>> sum(part.nbytes for part in layer.buffers()), 4 * 32 * 64
    (1128, 8192)
    """

    def __init__(self, weight: Tensor, scheme: AnyScheme, bias: Tensor | None = None):
        super().__init__()
        if weight.dim() != 2:
            raise ValueError(f"weight must have shape (O, I); got {tuple(weight.shape)}")
        self.out_features, self.in_features = weight.shape
        for name, part in pack_tensors({WEIGHT: weight.detach()}, {WEIGHT: scheme}).items():
            self.register_buffer(name, part)
        self.register_buffer("bias", None if bias is None else bias.detach())

    @property
    def weight(self) -> Tensor:
        """Ŵ, (O, I), decoded: a new tensor with each call, of float32 in most forms."""
        like = {WEIGHT: torch.empty(self.out_features, self.in_features, device="meta")}
        parts = {name: part for name, part in self._buffers.items() if name.startswith(WEIGHT)}
        return unpack_tensors(parts, like)[WEIGHT]

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O), computed in the dtype of x."""
        return _Product.apply(x, self)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class _Product(torch.autograd.Function):
    """x Ŵᵀ + bias, which keeps the layer for its gradient, and not Ŵ."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return F.linear(x, layer.weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.weight.to(grad.dtype), None  # (…, O) (O, I) -> (…, I)


def qlora(
    model: nn.Module,
    scheme: AnyScheme,
    rank: int,
    alpha: float,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A copy of a model: each `nn.Linear` packed, and an adapter beside it that alone learns.

    Before training its logits are those of
    `quantize_model(model, every_linear(model, scheme))`. `low_rank.adapters` saves, loads and
    merges what it learns; a start other than A random and B 0 comes in by `load_adapters`.

    Args:
        model: left as it is.
        scheme: of all linear weights; `NF4` is that of the paper.
        rank, alpha, generator: as for `lora.LoRALinear`.

    Raises:
        TypeError, ValueError: what the scheme's encoder and `add_adapters` refuse.

    >>> from course_lib.formats.codebook import NF4
    >>> qlora(nn.Sequential(nn.Linear(64, 8)), NF4, rank=2, alpha=4.0)
    Sequential(
      (0): LoRALinear(
        64, 8, rank=2, alpha=4
        (base): PackedLinear(64, 8, bias=True)
      )
    )
    """
    return packed_linears(add_adapters(model, rank, alpha, generator), scheme)


def packed_linears(model: nn.Module, scheme: AnyScheme) -> nn.Module:
    """A copy of a model with a `PackedLinear` in the place of each `nn.Linear`.

    Args: as for `qlora`.

    >>> packed_linears(nn.Sequential(nn.Linear(8, 4)), torch.bfloat16)[0].weight.dtype
    torch.bfloat16
    """

    def pack(linear: nn.Linear) -> PackedLinear:
        return PackedLinear(linear.weight, scheme, linear.bias)

    return replace_modules(model, nn.Linear, pack)
