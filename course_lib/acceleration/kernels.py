"""Linear layers that compute with small numbers as they are stored, where PyTorch has a kernel.

    class               weight                    input             kernel of PyTorch
    Int4WeightLinear    4 bits, groups            bfloat16          _weight_int4pack_mm_for_cpu
    Int8WeightLinear    8 bits, a scale a row     bfloat16          _weight_int8pack_mm
    Int8Linear          8 bits, a scale a row     8 bits a token    _int_mm
    Int8HeadLinear      8 bits, a scale a row     two times 8 bits  _int_mm
    CsrLinear           float32, most are zero    float32           sparse matrix products
    BsrLinear           the same, in blocks       float32           sparse matrix products

The first two read fewer bytes and turn each weight into a float inside the kernel: good for one row
of inputs, slow for many. Their kernels are written for bfloat16; with float32 inputs they run, and
are slower than a dense layer. Int8Linear also multiplies in integers: good for many rows.

Each is made from this course's own codes (`formats.linear.Codes`), and gives the same with
`native=False`, or where a kernel is missing: then it makes floats of the weight, and multiplies
those. Bytes packed for a kernel are in the order that one processor likes, so they are in no
`state_dict`: store the parts of `formats.linear`, and pack when you load.

Axes: B rows of inputs, I inputs, O outputs, G group size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.acceleration.trials import available
from course_lib.device import without_autocast
from course_lib.formats.linear import Codes
from course_lib.formats.packing import pack, unpack
from course_lib.quantization.integer_linear import integer_matmul

GROUPS = (32, 64, 128, 256)  # those that the 4-bit kernel knows


class KernelLinear(nn.Module):
    """What they share: rows in, the kernel or what stands in for it, the bias, the shape back."""

    name = ""  # of its kernel in `available()`

    def __init__(self, weight: Tensor, bias: Tensor | None, native: bool):
        """weight: anything of shape (O, I) on the device that will be used."""
        super().__init__()
        if weight.dim() != 2:
            raise ValueError(f"the weight must have shape (O, I); got {tuple(weight.shape)}")
        self.out_features, self.in_features = weight.shape
        self.native = native and weight.device.type == "cpu" and available()[self.name] is None
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O), in the dtype of x."""
        if self.native and x.device.type != "cpu":
            raise ValueError(f"this layer was packed for the cpu, the input is on {x.device}")
        rows = x.reshape(-1, self.in_features).contiguous()  # (…, I) -> (B, I)
        y = (self.by_kernel(rows) if self.native else self.by_floats(rows)).to(x.dtype)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], self.out_features)  # (B, O) -> (…, O)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, native={self.native}"


@without_autocast
def _product(rows: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """x wᵀ as the kernels for weights do it: x rounded to dtype, sums in float32, then rounded."""
    return F.linear(rows.to(dtype).float(), weight).to(dtype)


class Int4WeightLinear(KernelLinear):
    """y = x ŵᵀ with 4-bit codes, which stay 4 bits in memory until a product needs them.

        ŵ = (q − 8) s + m      with      m = (8 − z) s

    is what the kernel computes, in place of our s (q − z). Both s and m are held in `dtype`. In
    bfloat16 each is off by up to 2⁻⁸ of itself; and as m is then no exact multiple of s, a weight
    of 0 may come back as large as 2⁻⁸ |8 − z| s. Symmetric codes have z = 8, so m = 0, and keep 0.

    Args:
        codes: (O, I), at most 4 bits, in groups; from `nearest_codes`, `read_codes` or a method.
        bias: (O,).
        dtype: what inputs are rounded to, and scales are held in.
        native: False: floats, even where there is a kernel.

    Raises:
        ValueError: more than 4 bits; rows of codes that are not groups of neighbours in an output.

    >>> from course_lib.formats.linear import Format, Scheme, nearest_codes
    >>> weight = torch.arange(16.0).repeat(16, 2)
    >>> layer = Int4WeightLinear(nearest_codes(weight, Scheme(Format(4), 32)))
    >>> layer(torch.ones(1, 32))[0, :2]
    tensor([240., 240.])
    """

    name = "int4 weights"

    def __init__(
        self,
        codes: Codes,
        bias: Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        native: bool = True,
    ):
        super().__init__(codes.codes, bias, native)
        grid, outputs = codes.grid, self.out_features
        groups = len(grid.scale) // outputs  # in an output
        if grid.format.bits > 4 or groups * outputs != len(grid.scale):
            raise ValueError(
                "codes must have at most 4 bits, and groups within an output; "
                f"got {grid.format.bits} bits and {len(grid.scale)} scales for {outputs} outputs"
            )
        self.group, middle = self.in_features // groups, 8 if grid.format.symmetric else 0
        self.native = self.native and self.group in GROUPS and outputs % 16 == 0
        scale = grid.scale.to(dtype)
        offset = (8 - middle - grid.zero_point) * scale  # m, in dtype
        pairs = torch.cat([scale, offset], dim=1).view(
            outputs, groups, 2
        )  # (O·I/G, 2) -> (O, I/G, 2)
        self.register_buffer("pairs", pairs.transpose(0, 1).contiguous(), persistent=False)
        whole = codes.codes.to(torch.int32) + middle  # 0 … 15
        convert = torch.ops.aten._convert_weight_to_int4pack_for_cpu
        packed = convert(whole, 8) if self.native else pack(whole, 4)
        self.register_buffer("packed", packed, persistent=False)

    def by_kernel(self, rows: Tensor) -> Tensor:
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
        return multiply(rows.to(self.pairs.dtype), self.packed, self.group, self.pairs)

    def by_floats(self, rows: Tensor) -> Tensor:
        shape = self.out_features, self.in_features
        codes = unpack(self.packed, 4, shape[0] * shape[1])
        codes = codes.view(shape[0], -1, self.group)  # (O·I,) -> (O, I/G, G)
        scale, offset = self.pairs.float().transpose(0, 1)[..., None].unbind(2)  # (O, I/G, 1) each
        weight = ((codes.float() - 8) * scale + offset).view(shape)
        return _product(rows, weight, self.pairs.dtype)


class Int8WeightLinear(KernelLinear):
    """y = s (x qᵀ) with 8-bit codes, which become floats inside the kernel.

    Args:
        codes: (O, I), symmetric, with one scale an output.
        bias, dtype, native: as for `Int4WeightLinear`.

    Raises:
        ValueError: affine codes; another number of scales than outputs.

    >>> from course_lib.formats.linear import Format, Scheme, nearest_codes
    >>> weight = torch.full((2, 16), 127.0)
    >>> codes = nearest_codes(weight, Scheme(Format(8, symmetric=True), "channel"))
    >>> Int8WeightLinear(codes)(torch.ones(1, 16))
    tensor([[2032., 2032.]])
    """

    name = "int8 weights"

    def __init__(
        self,
        codes: Codes,
        bias: Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        native: bool = True,
    ):
        super().__init__(codes.codes, bias, native)
        _check_rows(codes)
        self.native = self.native and self.in_features % 16 == 0  # it reads 16 codes at once
        self.register_buffer("codes", codes.codes.to(torch.int8).contiguous(), persistent=False)
        self.register_buffer("scale", codes.grid.scale.flatten().to(dtype), persistent=False)

    def by_kernel(self, rows: Tensor) -> Tensor:
        return torch.ops.aten._weight_int8pack_mm(rows.to(self.scale.dtype), self.codes, self.scale)

    def by_floats(self, rows: Tensor) -> Tensor:
        return _product(rows, self.codes.float() * self.scale.float()[:, None], self.scale.dtype)


class Int8Linear(KernelLinear):
    """Integers on both sides: each row of inputs gets a scale of its own as it comes ("dynamic").

        y = s_x s_w Σ q_x q_w      q_x = round(x / s_x)      s_x = max |x| / 127

    Symmetric codes need no corrections; `quantization.integer_linear` has those for others. The
    sums are exact, so the kernel and its stand-in give the same numbers, bit for bit.

    Args:
        codes: (O, I), symmetric, with one scale an output; I at most 32,768, as sums are int32.
        bias, native: as for `Int4WeightLinear`.

    Raises:
        ValueError: as for `Int8WeightLinear`; more inputs.

    >>> from course_lib.formats.linear import Format, Scheme, nearest_codes
    >>> codes = nearest_codes(torch.eye(2), Scheme(Format(8, symmetric=True), "channel"))
    >>> Int8Linear(codes)(torch.tensor([[2.0, 127.0]])).round()
    tensor([[  2., 127.]])
    """

    name = "int8 both sides"

    def __init__(self, codes: Codes, bias: Tensor | None = None, native: bool = True):
        super().__init__(codes.codes, bias, native)
        _check_rows(codes)
        if self.in_features > 2**15:
            raise ValueError(f"codes must have at most {2**15} inputs; got {self.in_features}")
        self.register_buffer("codes", codes.codes.to(torch.int8).contiguous(), persistent=False)
        self.register_buffer("scale", codes.grid.scale.flatten().float(), persistent=False)

    def by_kernel(self, rows: Tensor) -> Tensor:
        return self._scaled(rows, lambda q: torch._int_mm(q, self.codes.T))

    def by_floats(self, rows: Tensor) -> Tensor:
        return self._scaled(rows, lambda q: integer_matmul(q, self.codes))

    def _scaled(self, rows: Tensor, product) -> Tensor:
        rows = rows.float()
        step = _step(rows)
        return product((rows / step).round_().to(torch.int8)) * step * self.scale.float()


class Int8HeadLinear(Int8Linear):
    """Integers on both sides, and each input in two digits: made for a head, whose outputs count.

        y = s_w (s₁ Σ q₁ q_w + s₂ Σ q₂ q_w)      s₁ = max |x| / 127      s₂ = s₁ / 254

    q₁ = round(x / s₁), and q₂ = round((x − q₁ s₁) / s₂) says what q₁ left. So an input is off by at
    most max |x| / 64,516, and an output is never rounded to bfloat16: of two tokens with nearly the
    same logit, the same one stays ahead. Both digits of all rows go through one product.

    Args, Raises: as for `Int8Linear`.

    >>> from course_lib.formats.linear import Format, Scheme, nearest_codes
    >>> codes = nearest_codes(127 * torch.eye(2), Scheme(Format(8, symmetric=True), "channel"))
    >>> Int8HeadLinear(codes)(torch.tensor([[2.003, 127.0]])) / 127
    tensor([[  2.0039, 127.0000]])
    """

    def by_kernel(self, rows: Tensor) -> Tensor:
        return self._scaled(
            rows, lambda q: torch._int_mm(self.codes, q.T).T
        )  # this way round is faster

    def _scaled(self, rows: Tensor, product) -> Tensor:
        rows = rows.float()
        first = _step(rows)  # (B, 1)
        scaled = rows / first
        high = scaled.round()
        low = ((scaled - high) * 254).round()
        digits = torch.cat([high, low]).to(torch.int8)  # (B, I) -> (2·B, I)
        high, low = product(digits).float().chunk(2)  # (2·B, O) -> (B, O) each
        return (high + low / 254) * first * self.scale


def _step(rows: Tensor) -> Tensor:
    """s_x of each row, (B, I) -> (B, 1): max |x| / 127, above 0; NaN stays NaN."""
    step = rows.abs().amax(dim=1, keepdim=True) / 127
    return step.clamp(min=torch.finfo(torch.float32).tiny)


def _check_rows(codes: Codes) -> None:
    format, scales = codes.grid.format, len(codes.grid.scale)
    if not format.symmetric or format.bits > 8 or scales != len(codes.codes):
        raise ValueError(
            "codes must be symmetric, of at most 8 bits, with one scale an output; got "
            f"{format} and {scales} scales for {len(codes.codes)} outputs"
        )
