"""What an exercise is: data. Inputs, a reference, properties, known wrong answers, hints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from course_lib.exercises.engine.state import standard_state


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    `inputs` holds the arguments by name, in the order of the reference's parameters. Where a tensor
    among them requires a gradient, the returned value is differentiated by it.
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
    """What any right answer has. `holds(inputs, value)` sees one case and its returned value.

    `form`: it is about types and shapes, and all else rests on it. Where it does not hold, no later
    property is asked, nor what was reached: an odd shape may broadcast to more than fits in memory.
    """

    text: str
    holds: Callable[[dict[str, Any], Any], bool]
    form: bool = False


@dataclass(frozen=True)
class Misconception:
    """A wrong implementation that learners write, and what to tell them about it."""

    name: str
    function: Callable
    explanation: str


@dataclass(frozen=True)
class Pace:
    """What a right answer's time is held against: the same cases, the same run.

    plain: does what is asked, without haste; a function that a module of the course defines.
    at_most: the share of the plain function's CPU seconds that an answer may take.
    """

    plain: Callable
    at_most: float


@dataclass(frozen=True)
class Exercise:
    """All that is known about one exercise; its name is the name of the function asked for.

    `cases(seed)` makes the inputs: notebooks use seed 0, a grader its own. `differentiable` names
    those by which the returned value will be differentiated: then its gradient is judged as well.
    Where many answers are right, `compare` is False: only the properties decide, and that every
    number is real. Then `reached(inputs, value)` says in one line what was reached and is asked.
    Where an answer must also be quick, `pace` says how quick.
    """

    reference: Callable
    cases: Callable[[int], list[Case]]
    hints: tuple[str, ...]
    misconceptions: tuple[Misconception, ...] = ()
    properties: tuple[Property, ...] = ()
    differentiable: tuple[str, ...] = ()
    compare: bool = True
    reached: Callable[[dict[str, Any], Any], str] | None = None
    relative_tolerance: float = 1e-5
    absolute_tolerance: float = 1e-6
    seconds: float = 2.0
    pace: Pace | None = None

    def __post_init__(self):
        make, wanted = self.cases, self.differentiable

        @standard_state()
        def cases(seed: int = 0) -> list[Case]:
            made = make(seed)
            for tensor in (case.inputs[name] for case in made for name in wanted):
                if torch.is_tensor(tensor) and tensor.is_floating_point():
                    tensor.requires_grad_()
            return made

        object.__setattr__(self, "cases", cases)

    @property
    def name(self) -> str:
        return self.reference.__name__
