"""What a compressed file says of itself, read as if a stranger had written it.

One line of JSON: config, the numbers of a LlamaConfig; ranks, of the layers that are two small
ones; recipe, a list of objects that the reader shows and nobody runs; same, the other names of
tensors that are stored once. Whatever is too large, too deep or of another kind is refused before
it costs anything.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from course_lib.models.llama_config import BlockShape, LlamaConfig

LONGEST = 100_000  # characters
DEEPEST = 8  # lists and objects within each other
MOST_PARAMETERS = 64_000_000
# The largest that each number of a config may be; all are at least 1.
LARGEST = {
    "vocabulary": 200_000,
    "width": 4096,
    "layers": 64,
    "heads": 256,
    "kv_heads": 256,
    "mlp_width": 16_384,
    "context": 8192,
    "each_head": 1024,
}
WIDEST_HEADS = 8192  # all heads of a block side by side
LARGEST_REAL = {"rope_base": 1e9, "norm_epsilon": 1.0}


@dataclass(frozen=True)
class About:
    """All that a file says beside its tensors.

    config: of the model.
    ranks: name of a linear layer's weight -> r, where the layer is two small ones.
    recipe: what was done, step by step.
    same: a tensor's name -> the name under which it is stored.
    """

    config: LlamaConfig
    ranks: Mapping[str, int] = field(default_factory=dict)
    recipe: Sequence[Mapping[str, Any]] = ()
    same: Mapping[str, str] = field(default_factory=dict)


def about_to_json(about: About) -> str:
    """One line of JSON that `about_from_json` takes.

    Raises:
        ValueError: it would not: what `about_from_json` refuses, or no JSON at all.

    >>> config = LlamaConfig(9, width=8, layers=1, heads=2, kv_heads=1, mlp_width=4, context=4)
    >>> about_from_json(about_to_json(About(config, {"head.weight": 2}))).ranks
    {'head.weight': 2}
    """
    try:
        text = json.dumps(
            {
                "config": asdict(about.config),
                "ranks": dict(about.ranks),
                "recipe": list(about.recipe),
                "same": dict(about.same),
            },
            allow_nan=False,
        )
    except (TypeError, RecursionError) as error:
        raise ValueError(f"recipe must be JSON: {error}") from None
    about_from_json(text)
    return text


def about_from_json(text: str) -> About:
    """What the text says, once it was checked.

    Raises:
        ValueError: not JSON of the four, too long, too deep; a number that is NaN, infinite or
            beyond its bounds; a config that cannot be.
    """
    found = parse_json(text)
    if type(found) is not dict or found.keys() != {one.name for one in fields(About)}:
        raise ValueError("about must be JSON with config, ranks, recipe and same, no more, no less")
    ranks, recipe, same = found["ranks"], found["recipe"], found["same"]
    if type(ranks) is not dict or not all(_is_count(rank, 4096) for rank in ranks.values()):
        raise ValueError("ranks must be an object: a layer's name -> a number from 1 to 4096")
    if type(recipe) is not list or not all(type(step) is dict for step in recipe):
        raise ValueError("recipe must be a list of objects")
    if type(same) is not dict or not all(type(name) is str for name in same.values()):
        raise ValueError("same must be an object: a tensor's name -> another's")
    return About(_config(found["config"]), ranks, recipe, same)


def parse_json(text: str, longest: int = LONGEST) -> Any:
    """What JSON of a stranger holds: short, flat, and with finite numbers alone.

    Args:
        longest: how many characters it may have.

    Raises:
        ValueError: no JSON, or not such.

    >>> parse_json('[1, {"a": null}]')
    [1, {'a': None}]
    >>> parse_json("[1e999]")
    Traceback (most recent call last):
    ValueError: JSON must have finite numbers below 1e300; got inf
    """
    if len(text) > longest:
        raise ValueError(f"JSON must have at most {longest} characters; got {len(text)}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"text must be JSON: {str(error)[:100]}") from None
    level = [found]
    for _ in range(DEEPEST + 1):
        for one in level:
            if type(one) in (int, float) and not abs(one) < 1e300:
                raise ValueError(
                    f"JSON must have finite numbers below 1e300; got {ascii(one)[:20]}"
                )
        inner = [one.values() if type(one) is dict else one for one in level if _holds(one)]
        level = [one for held in inner for one in held]
    if level:
        raise ValueError(f"JSON must be at most {DEEPEST} lists and objects deep")
    return found


def _holds(value: Any) -> bool:
    return type(value) in (dict, list)


def _is_count(value: Any, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest


def _config(found: Any) -> LlamaConfig:
    names = {one.name for one in fields(LlamaConfig)}
    if type(found) is not dict or found.keys() != names:
        raise ValueError(f"config must be an object of {', '.join(sorted(names))}")
    for name, largest in LARGEST.items():
        given = found[name]
        if not _is_count(given, largest) and (name, given) != ("each_head", None):
            raise ValueError(f"config's {name} must be from 1 to {largest}; got {_short(given)}")
    for name, most in LARGEST_REAL.items():
        if type(found[name]) not in (int, float) or not 0 < found[name] <= most:
            raise ValueError(
                f"config's {name} must be above 0, at most {most:g}; got {_short(found[name])}"
            )
    if type(found["tied"]) is not bool or type(found["blocks"]) is not list:
        raise ValueError("config's tied must be true or false, and blocks a list")
    config = LlamaConfig(**(found | {"blocks": tuple(map(_block, found["blocks"]))}))
    heads = max(sum(shape.groups) for shape in config.shapes)
    if heads * config.head_width > WIDEST_HEADS:
        raise ValueError(
            f"config's heads must be at most {WIDEST_HEADS} wide side by side; "
            f"got {heads} of {config.head_width}"
        )
    return config


def _block(found: Any) -> BlockShape:
    fits = type(found) is dict and found.keys() == {"groups", "mlp_width"}
    groups = found["groups"] if fits else None
    if (
        type(groups) is not list
        or not all(_is_count(size, LARGEST["heads"]) for size in groups)
        or not math.fsum(groups) <= LARGEST["heads"]
        or not _is_count(found["mlp_width"], LARGEST["mlp_width"])
    ):
        raise ValueError(f"a block must have groups and mlp_width in bounds; got {_short(found)}")
    return BlockShape(tuple(groups), found["mlp_width"])


def _short(value: Any) -> str:
    """The first of it, in ASCII."""
    return ascii(value)[:80]
