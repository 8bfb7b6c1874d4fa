"""A key-value cache in n bits a number: keys rounded channel by channel, values token by token.

Rows of numbers become codes between their own least and largest number:

    m = min x      s = (max x − m) / (2ⁿ − 1)      q = round((x − m) / s)      x̂ = s · q + m

Not the grid of `quantization.linear`, whose zero-point is an integer so that 0 stays 0. Here no
level need be 0: a row from 5 to 7 uses all its codes between 5 and 7. That is what a cache wants,
whose channels may lie far from 0, and what GGUF's Q4_1 stores.

s and m are float16, rounded before the codes are chosen.

Source: Liu, Yuan, Jin, Zhong, Xu, Braverman, Chen and Hu, 2024, "KIVI: A Tuning-Free Asymmetric
2bit Quantization for KV Cache".

Axes: R rows sharing one scale, C numbers in a row, N = R · C; B batch, T new tokens, S tokens kept,
G key-value heads, E head width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from course_lib.formats.packing import pack, unpack
from course_lib.models.finite import check_finite
from course_lib.quantization.rows import check_rows


def encode_rows(rows: Tensor, bits: int) -> dict[str, Tensor]:
    """The parts that stand for rows: packed codes, and a scale and a least number for each row.

    Between the outermost levels |x − x̂| ≤ s/2. As s and m are rounded to float16, a number may lie
    up to 2⁻¹¹ (|m| + (2ⁿ − 1) s) outside of these; more below 2⁻¹⁴, where float16 has fewer digits.

    Args:
        rows: (R, C), floats.
        bits: n, from 2 to 8.

    Returns:
        codes (n · ⌈N/8⌉,) uint8, scale (R,) and low (R,) float16.

    Raises:
        TypeError: rows are not floats.
        ValueError: bits outside 2 … 8; rows are empty, not (R, C), NaN, infinite or beyond float16.

    >>> parts = encode_rows(torch.tensor([[5.0, 7.25, 8.0]]), bits=2)
    >>> parts["low"].tolist(), parts["scale"].tolist()
    ([5.0], [1.0])
    >>> decode_rows(parts, bits=2, count=3).tolist()
    [[5.0, 7.0, 8.0]]
    """
    check_rows(rows)
    x = rows.to(torch.promote_types(rows.dtype, torch.float32))
    low = x.amin(dim=1, keepdim=True).to(torch.float16)  # (R, 1)
    check_finite(low, "the least number of a row, in float16,")
    scale = ((x.amax(dim=1, keepdim=True) - low) / (2**bits - 1)).to(torch.float16)
    check_finite(scale, "scale, in float16,")
    scale = scale.clamp(min=2**-24)  # the smallest float16 above 0
    codes = ((x - low) / scale).round().clamp(0, 2**bits - 1)
    return {"codes": pack(codes, bits), "scale": scale.flatten(), "low": low.flatten()}


def decode_rows(parts: Mapping[str, Tensor], bits: int, count: int) -> Tensor:
    """The levels that `encode_rows`'s parts stand for, s · q + m: (R, C), float32.

    Args:
        bits: n.
        count: N.

    Raises:
        ValueError: what `unpack` refuses.
    """
    scale, low = (parts[name].float()[:, None] for name in ("scale", "low"))  # (R,) -> (R, 1)
    codes = unpack(parts["codes"], bits, count).view(len(scale), -1)  # (N,) -> (R, C)
    return codes * scale + low


class QuantizedCache:
    """A layer's cache in n bits a number; the latest tokens stay floats.

    As soon as `group` tokens are older than the last `residual`, they are rounded together. Rows
    of `group` numbers share a scale:

        keys      one channel of `group` tokens       (or `group` channels of one token: naive)
        values    `group` channels of one token

    A few channels of the keys are large for every token. Along a token they would set the scale of
    all its other numbers; along a channel they keep it to themselves. Values have no such channels.
    The paper rounds all keys of a window at once and values one by one: here both leave together.
    A pass sees its own tokens, and those before that are not rounded yet, as floats.

    Args:
        bits: n, from 2 to 8.
        group: tokens rounded together, and channels in a row; it must divide E.
        residual: the latest tokens that stay floats.
        keys_by_channel: False is the naive way.

    Source: Liu, Yuan, Jin, Zhong, Xu, Braverman, Chen and Hu, 2024, "KIVI: A Tuning-Free Asymmetric
    2bit Quantization for KV Cache".

    >>> cache = QuantizedCache(bits=8, group=4, residual=2)
    >>> keys = torch.arange(28.0).view(1, 1, 7, 4)
    >>> cache.append(keys, keys)[0].equal(keys), cache.place(1), cache.rounded
    (True, 7, 4)
    """

    def __init__(
        self, bits: int, group: int = 32, residual: int = 32, keys_by_channel: bool = True
    ):
        if not 2 <= bits <= 8 or group < 1 or residual < 0:
            raise ValueError(
                "bits must be from 2 to 8, group at least 1 and residual at least 0; "
                f"got {bits=}, {group=}, {residual=}"
            )
        self.bits, self.group, self.residual = bits, group, residual
        self.keys_by_channel = keys_by_channel
        self.groups: list[dict[str, dict[str, Tensor]]] = []  # "key", "value" -> its parts
        self.floats: dict[str, Tensor] = {}

    @property
    def rounded(self) -> int:
        """How many tokens are held as codes."""
        return len(self.groups) * self.group

    def place(self, count: int) -> int:
        return self.rounded + (self.floats["key"].shape[2] if self.floats else 0)

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if key.shape[3] % self.group:
            raise ValueError(f"group must divide the head width {key.shape[3]}; got {self.group}")
        new = {"key": key, "value": value}
        if self.floats:
            new = {name: torch.cat([self.floats[name], new[name]], dim=2) for name in new}
        self.floats = new
        everything = self._all("key"), self._all("value")
        while self.floats["key"].shape[2] >= self.residual + self.group:
            self._round_oldest()
        return everything

    def parts(self) -> dict[str, Tensor]:
        """All that the cache holds, as a file would hold it: codes are packed."""
        parts = {f"{name}:floats": x for name, x in self.floats.items()}
        for number, group in enumerate(self.groups):
            for name, coded in group.items():
                parts |= {f"{number}.{name}:{part}": x for part, x in coded.items()}
        return parts

    def _all(self, name: str) -> Tensor:
        """The keys or values of all tokens, (B, G, S, E)."""
        floats = self.floats[name]
        B, G, _, E = floats.shape
        shape = (B, G, E, self.group) if self._by_channel(name) else (B, G, self.group, E)
        count = B * G * self.group * E
        found = []
        for group in self.groups:
            x = decode_rows(group[name], self.bits, count).view(shape).to(floats.dtype)
            found.append(x.transpose(2, 3) if self._by_channel(name) else x)
        return torch.cat([*found, floats], dim=2)

    def _round_oldest(self) -> None:
        coded = {}
        for name, x in self.floats.items():
            old = x[:, :, : self.group]
            old = old.transpose(2, 3) if self._by_channel(name) else old
            coded[name] = encode_rows(old.reshape(-1, self.group), self.bits)  # -> (R, C)
        self.groups.append(coded)
        self.floats = {name: x[:, :, self.group :].clone() for name, x in self.floats.items()}

    def _by_channel(self, name: str) -> bool:
        return name == "key" and self.keys_by_channel
