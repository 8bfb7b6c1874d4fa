"""Exercises of 10_acceleration: what a layer and a cache cost before anything runs.

Axes: B batch, I inputs, O outputs, L layers, G key-value heads, E head width, S tokens.
"""

import math
from collections.abc import Callable

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ----------------------------------------------------------------------- layer_bound


def layer_bound(
    batch: int, inputs: int, outputs: int, bits: float, bandwidth: float, peak: float
) -> tuple[int, int, float]:
    """Bytes, operations, and the least seconds of y = x Wᵀ, x (B, I), W (O, I), y (B, O).

    bits: of a weight, its share of scales included, such as 4.5; W is filled up to a whole byte
    once, at its end. x and y are float32. Each byte of W, x and y passes the memory once, at
    bandwidth bytes a second; a product and its sum are two operations, at peak operations a second.
    Memory and arithmetic work at the same time. Returns (bytes, operations, seconds), the first two
    int, the last float.
    """
    moved = math.ceil(inputs * outputs * bits / 8) + 4 * batch * (inputs + outputs)
    operations = 2 * batch * inputs * outputs
    return moved, operations, max(moved / bandwidth, operations / peak)


LAYER = ("batch", "inputs", "outputs", "bits", "bandwidth", "peak")


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)

    def drawn(batch: int, bits: float, bandwidth: float, peak: float) -> tuple:
        return batch, draw.number(200, 900), draw.number(900, 3000), bits, bandwidth, peak

    labelled = {
        "one token, float32": drawn(1, 32, 2e10, 1.2e11),
        "one token, 4 bits and their scales": drawn(1, 4.5, 2e10, 1.2e11),
        "64 tokens, float32": drawn(64, 32, 2e10, 1.2e11),
        "64 tokens, 4 bits": drawn(64, 4.25, 2e10, 1.2e11),
        "a GPU, one token": drawn(1, 16, 3.35e12, 9.9e14),
        "a GPU, 4096 tokens": drawn(4096, 16, 3.35e12, 9.9e14),
        "more activations than weights": drawn(5000, 2, 1e9, 1e15),
        "a weight that ends inside a byte": (2, 3, 2 * draw.number(2, 9) + 1, 3.0, 1e9, 1e9),
        "a quarter of a bit in the last byte": (2, 17, 32 * draw.number(1, 9) + 1, 4.25, 1e9, 1e9),
        "one number": (1, 1, 1, 1.0, 1e3, 1e3),
        "a slow memory": drawn(8, 8, 1.0, 1e18),
        "slow arithmetic": drawn(8, 8, 1e18, 1.0),
        "slow arithmetic, one token": drawn(1, 32, 1e18, 1.0),
        "more inputs than outputs": (draw.number(2, 9), 4096, 17, 8.5, 2e10, 1e11),
    }
    return labelled_cases(LAYER, labelled)


def _bound(moved: Callable | None = None, operations: Callable | None = None, combine=max):
    """layer_bound with another count, or another way to make one time of two."""

    def wrong(batch, inputs, outputs, bits, bandwidth, peak):
        known = layer_bound(batch, inputs, outputs, bits, bandwidth, peak)
        count = moved(batch, inputs, outputs, bits) if moved else known[0]
        work = operations(batch, inputs, outputs) if operations else known[1]
        return count, work, combine(count / bandwidth, work / peak)

    return wrong


def _weight_bytes(inputs, outputs, bits) -> int:
    return math.ceil(inputs * outputs * bits / 8)


LAYER_BOUND = Exercise(
    reference=layer_bound,
    cases=_layers,
    relative_tolerance=1e-9,
    absolute_tolerance=0.0,
    hints=(
        "Three tensors pass the memory: W, x and y. Which of them know the batch?",
        "How many products does one output need? How many outputs are there? And a sum is an "
        "operation as well.",
        "bytes = ceil(I · O · bits / 8) + 4 · B · (I + O), operations = 2 · B · I · O; while the "
        "memory works, the arithmetic works too, so the slower of the two decides: max.",
    ),
    properties=(
        Property(
            "bytes and operations are int, seconds are float",
            lambda _, value: tuple(map(type, value)) == (int, int, float),
            form=True,
        ),
    ),
    misconceptions=(
        Misconception(
            "the weight read once for each token",
            _bound(lambda b, i, o, bits: b * _weight_bytes(i, o, bits) + 4 * b * (i + o)),
            "the weight was counted for each row of x. A weight that was read once serves all B "
            "rows: this is the whole reason for batches.",
        ),
        Misconception(
            "the weight alone",
            _bound(lambda b, i, o, bits: _weight_bytes(i, o, bits)),
            "x and y pass the memory, too. For one token they are nothing; for thousands they "
            "are more than W.",
        ),
        Misconception(
            "activations at the weight's bits",
            _bound(lambda b, i, o, bits: math.ceil((i * o + b * (i + o)) * bits / 8)),
            "x and y were counted at the weight's bits. Fewer bits for the weights leave them "
            "float32: four bytes a number.",
        ),
        Misconception(
            "products without sums",
            _bound(operations=lambda b, i, o: b * i * o),
            "only the products were counted. A processor's peak counts product and sum, two "
            "operations; with one convention here and another there all is off by two.",
        ),
        Misconception(
            "one after the other",
            _bound(combine=lambda memory, arithmetic: memory + arithmetic),
            "the two times were added. Memory fetches the next numbers while the arithmetic uses "
            "the last ones; a lower bound takes the slower of the two.",
        ),
        Misconception(
            "the faster of the two",
            _bound(combine=min),
            "the smaller time was taken. Nothing is done before both are done.",
        ),
    ),
)


# ----------------------------------------------------------------------- cache_bytes


def cache_bytes(
    layers: int, heads: int, kv_heads: int, head_width: int, tokens: int, batch: int, bits: int
) -> int:
    """Bytes of the keys and values of `tokens` tokens, for each of `batch` texts, in all layers.

    heads query heads share kv_heads key-value heads, each head_width numbers wide. bits of 16 or 32
    are floats, and nothing else is stored. At 8, 4 or 2 bits, the numbers of one key or value (one
    token, one head) fill whole bytes, and carry a scale and a minimum, each float16.
    """
    stored = math.ceil(head_width * bits / 8) + (4 if bits < 16 else 0)
    return 2 * layers * kv_heads * tokens * batch * stored


CACHE = ("layers", "heads", "kv_heads", "head_width", "tokens", "batch", "bits")


def _caches(seed: int) -> list[Case]:
    draw = Draw(seed)
    tokens = draw.number(300, 9000)
    labelled = {
        "TinyLM, float32": (4, 6, 2, 32, 256, 1, 32),
        "SmolLM2, float16": (30, 9, 3, 64, tokens, 1, 16),
        "SmolLM2 at 8 bits": (30, 9, 3, 64, tokens, 1, 8),
        "SmolLM2 at 4 bits": (30, 9, 3, 64, tokens, 1, 4),
        "SmolLM2 at 2 bits, 32 texts": (30, 9, 3, 64, tokens, 32, 2),
        "Llama-2-7B: no sharing": (32, 32, 32, 128, 4096, draw.number(2, 9), 16),
        "Llama-3-70B": (80, 64, 8, 128, 128 * 1024, 1, 16),
        "one key-value head for all": (draw.number(5, 40), 16, 1, 80, 1000, 3, 8),
        "a head that ends inside a byte": (3, 4, 2, 1 + 4 * draw.number(1, 9), tokens, 2, 2),
        "5 numbers at 4 bits": (2, 2, 1, 5, tokens, 1, 4),
        "nothing read yet": (12, 12, 4, 64, 0, 1, 16),
        "one of each": (1, 1, 1, 1, 1, 1, 2),
    }
    return labelled_cases(CACHE, labelled)


def _cached(stored: Callable | None = None, times: Callable | None = None):
    """cache_bytes with other bytes for a head's numbers, or another count of them."""

    def wrong(layers, heads, kv_heads, head_width, tokens, batch, bits):
        known = math.ceil(head_width * bits / 8) + (4 if bits < 16 else 0)
        one = stored(head_width, bits) if stored else known
        count = 2 * layers * kv_heads * tokens * batch
        return (times(layers, heads, kv_heads, tokens, batch) if times else count) * one

    return wrong


CACHE_BYTES = Exercise(
    reference=cache_bytes,
    cases=_caches,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "Begin with one token in one layer: which vectors are kept, and how long are they?",
        "Queries are asked once and forgotten. What is kept is a key and a value for each "
        "key-value head.",
        "2 · L · G · tokens · batch vectors, of ceil(E · bits / 8) bytes, and 4 more each below 16 "
        "bits.",
    ),
    properties=(
        Property("the number of bytes is an int", lambda _, value: type(value) is int, form=True),
    ),
    misconceptions=(
        Misconception(
            "a key and a value for each query head",
            _cached(times=lambda n, heads, g, s, b: 2 * n * heads * s * b),
            "every query head got keys and values of its own. They share those of the kv_heads: "
            "that is what grouped queries are for.",
        ),
        Misconception(
            "keys alone",
            _cached(times=lambda n, heads, g, s, b: n * g * s * b),
            "only one of key and value was counted.",
        ),
        Misconception(
            "one layer",
            _cached(times=lambda n, heads, g, s, b: 2 * g * s * b),
            "each layer has keys and values of its own.",
        ),
        Misconception(
            "scales are free",
            _cached(lambda width, bits: math.ceil(width * bits / 8)),
            "each vector of few bits carries a scale and a minimum, 4 bytes. At 2 bits and a head "
            "of 64 numbers that is a fifth of all.",
        ),
        Misconception(
            "scales for floats, too",
            _cached(lambda width, bits: math.ceil(width * bits / 8) + 4),
            "numbers of 16 or 32 bits are floats. They need neither scale nor minimum.",
        ),
        Misconception(
            "rounded down",
            _cached(lambda width, bits: width * bits // 8 + (4 if bits < 16 else 0)),
            "the last, half-filled byte of a vector was lost. It is a byte of the file as well.",
        ),
    ),
)
