"""What a piece of work cannot avoid: the bytes it moves, and the operations it does.

Each weight is read once, each input once, each output is written once. Softmax, norms, rotations,
and what a kernel writes down in between, are left out: a count, then, from below. What it means in
seconds says `roofline`.

Axes: B batch, T tokens of this pass, S tokens in the cache before it, I inputs, O outputs, H query
heads, G key-value heads, E head width, D model width, F hidden width of the MLP, V vocabulary.
"""

from dataclasses import dataclass

from course_lib.models.llama_config import LlamaConfig


@dataclass(frozen=True)
class Work:
    """bytes: Q, moved between memory and processor. operations: W; a product and its sum are two.

    >>> Work(8, 1) + Work(2, 3)
    Work(bytes=10, operations=4)
    """

    bytes: float
    operations: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.bytes + other.bytes, self.operations + other.operations)


def linear_work(
    batch: int,
    inputs: int,
    outputs: int,
    weight_bits: float = 32,
    activation_bits: float = 32,
    density: float = 1.0,
) -> Work:
    """A linear layer on B rows: Q = (ρ I O b_w + B (I + O) b_a) / 8 bytes, W = 2 ρ B I O.

    Args:
        batch: B, rows of inputs; in a decoder, windows times tokens.
        inputs, outputs: I and O.
        weight_bits: b_w of each weight that is stored, with its share of scales and indices: 4.5
            for 4 bits and two 16-bit numbers for each group of 64; 64 for float32 with a 32-bit
            index.
        activation_bits: b_a of each input and output.
        density: ρ, the share of weights that are stored and multiplied.

    Raises:
        ValueError: a number that is not above 0; density above 1.

    >>> linear_work(1, 4096, 4096, weight_bits=4.5)
    Work(bytes=9469952.0, operations=33554432.0)
    """
    _check_positive(
        batch=batch, inputs=inputs, outputs=outputs, weight_bits=weight_bits,
        activation_bits=activation_bits, density=density,
    )  # fmt: skip
    if density > 1:
        raise ValueError(f"density must be from 0 to 1; got {density}")
    weights = density * inputs * outputs
    moved = weights * weight_bits + batch * (inputs + outputs) * activation_bits
    return Work(moved / 8, 2 * batch * weights)


def attention_work(
    batch: int,
    tokens: int,
    cached: int,
    heads: int,
    kv_heads: int,
    head_width: int,
    cache_bits: float = 32,
    activation_bits: float = 32,
) -> Work:
    """Causal attention of T tokens to themselves and to S before them, the four matrices aside.

        Q = B (2 G E (S + T) b_c + 2 H E T b_a) / 8     keys and values; queries and outputs
        W = 4 B H E (S T + T (T + 1) / 2)               a product for the score, one for the mixture

    Each token meets itself and what stands before it. A kernel that multiplies first and masks
    afterwards does up to twice as much.

    Args:
        batch, tokens, cached: B, T and S.
        heads, kv_heads, head_width: H, G and E.
        cache_bits: b_c, of a number in the cache.
        activation_bits: b_a, of a number of queries and outputs.

    Raises:
        ValueError: a number that is not above 0 (cached may be 0).

    >>> attention_work(1, tokens=1, cached=99, heads=2, kv_heads=1, head_width=4)
    Work(bytes=3264.0, operations=3200.0)
    """
    _check_positive(
        batch=batch, tokens=tokens, heads=heads, kv_heads=kv_heads,
        head_width=head_width, cache_bits=cache_bits, activation_bits=activation_bits,
    )  # fmt: skip
    if not cached >= 0:
        raise ValueError(f"cached must be 0 or more; got {cached}")
    cache = 2 * kv_heads * head_width * (cached + tokens) * cache_bits
    own = 2 * heads * head_width * tokens * activation_bits
    pairs = cached * tokens + tokens * (tokens + 1) / 2
    return Work(batch * (cache + own) / 8, 4 * batch * heads * head_width * pairs)


def decoder_work(
    config: LlamaConfig,
    batch: int,
    tokens: int,
    cached: int,
    weight_bits: float = 32,
    activation_bits: float = 32,
    head_bits: float | None = None,
) -> dict[str, Work]:
    """One pass of a decoder, by part: "linear" layers of the blocks, "attention", "head".

    The cache holds numbers of `activation_bits`. The head gives the logits of every token, as
    `Llama` does; the few rows of the embedding that are looked up are left out.

    Args:
        config: the model's shape; its blocks may differ.
        batch, tokens, cached: B, T and S.
        weight_bits: of the blocks' linear layers, as in `linear_work`.
        activation_bits: of activations, keys and values.
        head_bits: of the head's weights; `weight_bits` if not given.

    >>> from course_lib.models.pretrained import TINY
    >>> work = decoder_work(TINY, batch=1, tokens=1, cached=0)
    >>> {part: int(work[part].operations) for part in work}
    {'linear': 3145728, 'attention': 3072, 'head': 786432}
    """
    none, rows, D, E = Work(0, 0), batch * tokens, config.width, config.head_width
    work = {"linear": none, "attention": none}
    for shape in config.shapes:
        H, G, F = sum(shape.groups), len(shape.groups), shape.mlp_width
        layers = [(D, H * E), (D, G * E), (D, G * E), (H * E, D), (D, F), (D, F), (F, D)]
        for inputs, outputs in layers:
            work["linear"] += linear_work(rows, inputs, outputs, weight_bits, activation_bits)
        work["attention"] += attention_work(
            batch, tokens, cached, H, G, E, activation_bits, activation_bits
        )
    head_bits = weight_bits if head_bits is None else head_bits
    work["head"] = linear_work(rows, D, config.vocabulary, head_bits, activation_bits)
    return work


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0; got {number}")
