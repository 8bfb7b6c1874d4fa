"""Attention by its formula, and how many bytes it moves beside the fused one.

    y = softmax(q kᵀ / √E) v

Written so, it makes a table of H · T · S scores, writes it, reads it, writes the probabilities and
reads them again. A fused kernel goes through the keys in blocks that stay in the cache of the
processor, with a running maximum and a running sum for the softmax, and never writes the table. It
does the same products, and moves less: that is all of its gain.

Source: Dao et al., 2022, "FlashAttention: Fast and Memory-Efficient Exact Attention with
IO-Awareness". PyTorch's `scaled_dot_product_attention` is such a kernel.

Axes: B batch, H query heads, G key-value heads, T queries, S keys, E head width.
"""

from torch import Tensor


def plain_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √E) v, each step a tensor of its own.

    Args:
        q: (B, H, T, E).
        k, v: (B, G, S, E); each serves the H/G query heads that stand side by side.
        seen: (T, S) bool, whether query t may look at key s; None: at all of them.

    Returns:
        (B, H, T, E).

    Raises:
        ValueError: G does not divide H.

    >>> import torch
    >>> q, k, v = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    >>> fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    >>> torch.allclose(plain_attention(q, k, v), fused, atol=1e-5)
    True
    """
    H, G = q.shape[1], k.shape[1]
    if H % G:
        raise ValueError(f"the key-value heads must divide the query heads; got {G} and {H}")
    k, v = (x.repeat_interleave(H // G, dim=1) for x in (k, v))  # (B, G, S, E) -> (B, H, S, E)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)  # (B, H, T, S)
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1) @ v  # (B, H, T, S) @ (B, H, S, E) -> (B, H, T, E)


def attention_traffic(
    batch: int, heads: int, kv_heads: int, tokens: int, seen: int, head_width: int, bits: int = 32
) -> tuple[int, int]:
    """Bytes moved by the formula and by a fused kernel, at least.

        fused     queries, keys, values read and the result written: B · (2 H T E + 2 G S E) numbers
        plain     the same, and the table four times: written and read as scores, and as
                  probabilities: B · 4 H T S more

    At least: the plain way moves the table twice more for a mask of its own, and the fused one
    reads keys and values again for every block of queries.

    Args:
        batch, heads, kv_heads, tokens, seen, head_width: B, H, G, T, S, E, at least 1.
        bits: of a number.

    Returns:
        (plain, fused).

    >>> attention_traffic(1, heads=9, kv_heads=3, tokens=1024, seen=1024, head_width=64)
    (157286400, 6291456)
    """
    if min(batch, heads, kv_heads, tokens, seen, head_width, bits) < 1:
        raise ValueError(
            "all counts must be at least 1; got "
            f"{(batch, heads, kv_heads, tokens, seen, head_width, bits)}"
        )
    fused = 2 * batch * head_width * (heads * tokens + kv_heads * seen)
    plain = fused + 4 * batch * heads * tokens * seen
    return plain * bits // 8, fused * bits // 8
