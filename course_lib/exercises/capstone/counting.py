"""Exercise of 12_capstone: the bytes of a whole model under a recipe.

Axes: O outputs, I inputs.
"""

import math

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

Shapes = dict[str, tuple[int, ...]]


def recipe_bytes(
    shapes: dict[str, tuple[int, ...]], tied: dict[str, str], recipe: dict[str, tuple[int, int]]
) -> int:
    """Bytes of a model's tensors under a recipe, as `pack_tensors` stores them, without a header.

    shapes: name -> shape, each axis ≥ 1. tied: name -> the name whose tensor it shares; that one is
    stored once, under the latter name. recipe: text -> (n, G); the first text that is part of a
    tensor's name decides. Where none is, or the shape has fewer than two axes, a number takes two
    bytes. Else (O, I, …) is O rows, each of I · … numbers, cut into groups of G; a row's last group
    is shorter if G does not divide it. Stored are a code of n bits (2 to 8) for each number, a
    float16 scale and a zero-point of n bits for each group. The codes of a whole tensor are packed
    in one go: eight of them into n bytes, the last eight filled up with zeros. So are, for
    themselves, its zero-points.
    """
    total = 0
    for name, shape in shapes.items():
        if name in tied:
            continue
        count = math.prod(shape)
        entries = [entry for text, entry in recipe.items() if text in name]
        if not entries or len(shape) < 2:
            total += 2 * count
            continue
        bits, group = entries[0]
        in_a_row = count // shape[0]
        groups = shape[0] * -(-in_a_row // group)
        total += bits * math.ceil(count / 8) + 2 * groups + bits * math.ceil(groups / 8)
    return total


def _models(seed: int) -> list[Case]:
    draw = Draw(seed)
    a, b = draw.number(3, 12), 8 * draw.number(2, 9)
    matrix, ragged = {"up": (a, b)}, {"up": (a, 8 * b + draw.number(1, 8))}
    tiny = _transformer(draw)
    both = {"head": "embedding"}
    spread = {"down": (3, 16), "up": (2, 64), "": (4, 32)}
    labelled = {
        "one matrix at 4 bits": (matrix, {}, {"up": (4, 8)}),
        "the same matrix in floats": (matrix, {}, {}),
        "a text that fits no name": (matrix, {}, {"down": (4, 8)}),
        "numbers that are no multiple of eight": ({"up": (a, 9), "down": (5, 3)}, {}, {"": (3, 3)}),
        "one scale for each row": (matrix, {}, {"up": (3, b)}),
        "groups longer than a row": (matrix, {}, {"up": (2, 4 * b + a)}),
        "the last group of a row is shorter": (ragged, {}, {"up": (4, 8)}),
        "groups of one number": ({"up": (a, 5)}, {}, {"up": (8, 1)}),
        "one number in a matrix": ({"up": (1, 1)}, {}, {"up": (draw.number(2, 9), 4)}),
        "norms and biases stay": (
            {"norm": (b,), "up.weight": (a, b), "up.bias": (a,), "factor": ()}, {},
            {"up": (4, 8), "norm": (2, 8)},
        ),
        "a convolution": ({"conv": (a, 3, 3, 5)}, {}, {"conv": (4, 32)}),
        "a convolution in groups that fit": ({"conv": (a, 4, 2, 2)}, {}, {"conv": (3, 8)}),
        **_named(a, b),
        **_tied(a, b),
        "equal shapes that are not tied": ({"up": (a, b), "gate": (a, b)}, {}, {"": (3, 8)}),
        "three names for one": (
            {"a": (a, b), "b": (a, b), "c": (a, b), "d": (a,)}, {"b": "a", "c": "a"}, {"": (6, 8)},
        ),
        "tied vectors": ({"up": (a, b), "norm": (b,), "other": (b,)}, {"other": "norm"}, {}),
        "a decoder at mixed bits": (tiny, both, spread),
        "a decoder, another recipe": (tiny, both, {"embedding": (8, 16), "block.1": (2, 8)}),
        "nothing at all": ({}, {}, {"": (4, 8)}),
    }  # fmt: skip
    return labelled_cases(("shapes", "tied", "recipe"), labelled)


def _named(a: int, b: int) -> dict[str, tuple]:
    return {
        "the first text that fits": (
            {"a.up": (a, b), "b.up": (a, b), "b.down": (b, a)}, {},
            {"b.": (3, 8), "up": (5, 16), "": (8, 8)},
        ),
        "the first text that fits, though a later one is longer": (
            {"a.up": (a, b), "b.up": (a, b)}, {}, {"up": (3, 8), "b.up": (8, 16)},
        ),
        "a text fits where it stands in the name, letter by letter": (
            dict.fromkeys(("block.1.up", "block.10.up", "block-1.up", "Block.1.up"), (a, b)), {},
            {"block.1": (2, 8)},
        ),
    }  # fmt: skip


def _tied(a: int, b: int) -> dict[str, tuple]:
    shapes, both = {"embedding": (b, a), "head": (b, a)}, {"head": "embedding"}
    return {
        "a tied matrix": (shapes, both, {"": (4, 32)}),
        "a tied matrix in floats": (shapes, both, {}),
        "tied, and the recipe names the other": (
            shapes, both, {"head": (2, 8), "embedding": (4, 8)},
        ),
        "tied, and the recipe names the other alone": (
            shapes, both, {"head": (2, 8)},
        ),
        "tied, the other name first": (
            {"head": (a, b), "up": (b, a), "embedding": (a, b)}, both, {"embedding": (3, 8)},
        ),
    }  # fmt: skip


def _transformer(draw: Draw) -> Shapes:
    """A small decoder; its hidden units are no multiple of a group."""
    width, hidden, tokens = 8 * draw.number(2, 6), draw.number(40, 90), draw.number(90, 200)
    shapes: Shapes = {"embedding": (tokens, width)}
    for i in range(3):
        shapes[f"block.{i}.norm"] = (width,)
        shapes[f"block.{i}.query.weight"] = (width, width)
        shapes[f"block.{i}.up.weight"] = (hidden, width)
        shapes[f"block.{i}.down.weight"] = (width, hidden)
    return shapes | {"norm": (width,), "head": (tokens, width)}


def _wrong(once=True, first=True, two_axes=True, whole_rows=True, packed=None, scale=2, zeros=None):
    """The reference with one rule changed.

    packed: (count, bits) -> bytes of codes; zeros: the same of zero-points.
    """
    packed = packed or (lambda count, bits: bits * math.ceil(count / 8))
    zeros = zeros or packed

    def wrong(shapes, tied, recipe):
        total = 0
        for name, shape in shapes.items():
            count = math.prod(shape)
            entries = [entry for text, entry in recipe.items() if text in name]
            if once and name in tied:
                continue
            if not entries or (two_axes and len(shape) < 2):
                total += 2 * count
                continue
            bits, group = entries[0 if first else -1]
            rows = shape[0] if whole_rows and len(shape) > 1 else 1
            groups = rows * math.ceil(count / rows / group)
            total += packed(count, bits) + scale * groups + zeros(groups, bits)
        return total

    return wrong


RECIPE_BYTES = Exercise(
    reference=recipe_bytes,
    cases=_models,
    hints=(
        "Go through the names one by one. Three questions: is it stored under another name? Does "
        "the recipe say anything about it? And has it two axes?",
        "Of a quantized tensor three things are stored: codes, one for each number; scales, two "
        "bytes for each group; zero-points, one for each group. How many groups has a row of I · … "
        "numbers, if the last may be shorter? Then all rows.",
        "m codes of n bits take n · ⌈m / 8⌉ bytes: m = 9 and n = 3 make 6 bytes, though 27 bits "
        "would fit into 4. math.prod(shape) is the number of numbers; shape[0] that of rows.",
    ),
    properties=(
        Property("an int, 0 or more", lambda inputs, value: type(value) is int and value >= 0),
    ),
    misconceptions=(
        Misconception(
            "tied twice",
            _wrong(once=False),
            "a tied tensor was counted under each of its names. It is stored once: leave out the "
            "names that `tied` has.",
        ),
        Misconception(
            "rounded up to a byte, not to eight codes",
            _wrong(packed=lambda count, bits: math.ceil(bits * count / 8)),
            "you rounded the bits up to whole bytes. `pack` fills up to eight codes, and eight of "
            "n bits fill n bytes: n · ⌈m / 8⌉.",
        ),
        Misconception(
            "groups run on through the rows",
            _wrong(whole_rows=False),
            "you divided all numbers of the tensor by G. A group ends with its row, so each row "
            "has ⌈I / G⌉ of them.",
        ),
        Misconception(
            "a zero-point has a byte of its own",
            _wrong(zeros=lambda groups, bits: groups),
            "each zero-point took a byte. They are packed as the codes are: n · ⌈groups / 8⌉.",
        ),
        Misconception(
            "vectors, too",
            _wrong(two_axes=False),
            "norms or biases were quantized because a text fits their name. What has fewer than "
            "two axes stays in two bytes a number.",
        ),
        Misconception(
            "the last text that fits",
            _wrong(first=False),
            "of several texts that fit a name you took the last. The first decides, so that a "
            "recipe can end with what holds for all others.",
        ),
    ),
)
