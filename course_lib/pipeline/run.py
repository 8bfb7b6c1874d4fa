"""A recipe as text, and its run, which can be cut at any time and goes on where it was.

[{"do": "Prune", "density": 0.5, "method": "wanda"}, {"do": "Heal", "steps": 100, …}]
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from tqdm.auto import tqdm

from course_lib.models.llama import Llama
from course_lib.pipeline.state import State, load_state, save_state
from course_lib.pipeline.steps import Given, Step

STEPS = {step.__name__: step for step in get_args(Step)}


def to_dicts(recipe: Sequence[Step]) -> list[dict[str, Any]]:
    """The recipe as JSON can hold it.

    >>> from course_lib.pipeline.steps import Prune
    >>> to_dicts([Prune(0.5)])
    [{'do': 'Prune', 'density': 0.5, 'method': 'magnitude'}]
    """
    return [{"do": type(step).__name__, **asdict(step)} for step in recipe]


def from_dicts(steps: Iterable[dict[str, Any]]) -> tuple[Step, ...]:
    """The recipe that `to_dicts` wrote.

    Raises:
        ValueError: a step that there is not, or that has other settings, or a method unknown to it.

    >>> from_dicts([{"do": "Heal", "steps": 9}])
    (Heal(steps=9, rate=0.1, teacher=True),)
    """
    recipe = []
    for step in steps:
        settings = dict(step)
        name = settings.pop("do", None)
        try:
            recipe.append(STEPS[name](**settings))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a step must be one of {', '.join(STEPS)}; got {step}") from error
    return tuple(recipe)


def run(
    recipe: Sequence[Step],
    given: Given,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = False,
) -> State:
    """What the steps make of the dense model, one after the other.

    Args:
        seed: of all that is drawn: windows to train with, weights of a `Restart`.
        folder: where the state after each step is kept; what stands there is not done again. Two
            recipes that begin alike share their beginning. Nothing is kept if not given.
        progress: whether a bar shows the steps.

    Raises:
        ValueError: a step comes where it cannot; what the methods refuse.

    >>> from course_lib.pipeline.steps import DropLayers, tiny_given
    >>> len(run([DropLayers(1)], tiny_given()).model.blocks)
    3
    """
    state, key = State(given.dense), _fingerprint(given.dense, seed)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for step in tqdm(recipe, "recipe", disable=not progress):
        key = hashlib.sha256((key + json.dumps(to_dicts([step]))).encode()).hexdigest()
        path = None if folder is None else folder / f"{key[:24]}.safetensors"
        if path is not None and path.exists():
            state = load_state(path)
            continue
        state = step(state, given, seed)
        if path is not None:
            save_state(state, path)
    return state


def _fingerprint(model: Llama, seed: int) -> str:
    found = hashlib.sha256(str(seed).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
