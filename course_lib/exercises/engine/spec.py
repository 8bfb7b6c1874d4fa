"""What an exercise is: data. Inputs, a reference, properties, known wrong answers, hints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    `inputs` holds the arguments by name, in the order of the reference's parameters.
    """

    label: str
    inputs: dict[str, Any]


def labelled_cases(names: tuple[str, ...], inputs: dict[str, tuple]) -> list[Case]:
    """A case for each label, its inputs under these names.

    >>> labelled_cases(("x", "y"), {"a pair": (1, 2)})
    [Case(label='a pair', inputs={'x': 1, 'y': 2})]
    """
    return [Case(label, dict(zip(names, some, strict=True))) for label, some in inputs.items()]


@dataclass(frozen=True)
class Property:
    """What any right answer has. `holds(inputs, value)` sees one case and its returned value."""

    text: str
    holds: Callable[[dict[str, Any], Any], bool]


@dataclass(frozen=True)
class Misconception:
    """A wrong implementation that learners write, and what to tell them about it."""

    name: str
    function: Callable
    explanation: str


@dataclass(frozen=True)
class Exercise:
    """All that is known about one exercise; its name is the name of the function asked for.

    Where many answers are right, `compare` is False: only the properties decide.
    """

    reference: Callable
    cases: Callable[[], list[Case]]
    hints: tuple[str, ...]
    misconceptions: tuple[Misconception, ...] = ()
    properties: tuple[Property, ...] = ()
    compare: bool = True
    relative_tolerance: float = 1e-5
    absolute_tolerance: float = 1e-6
    seconds: float = 2.0

    @property
    def name(self) -> str:
        return self.reference.__name__
