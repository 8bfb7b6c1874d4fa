"""Every exercise's checker, tested against right answers, wrong answers and automatic mutants."""

import inspect
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from judging import (
    SEEDS,
    cases_of,
    is_rejected,
    is_wrong,
    run_once,
    seconds_for_a_mutant,
    seeds_of,
    verdict_on,
    verdict_on_own,
)
from mutants import mutants

from course_lib.exercises.engine.catalogue import all_exercises
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED
from course_lib.exercises.engine.values import difference, plain

EXERCISES = list(all_exercises().values())
SURVIVORS = tomllib.loads((Path(__file__).parent / "surviving_mutants.toml").read_text("utf-8"))
REJECTED_AT_LEAST = 0.95
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
each_seed = pytest.mark.parametrize(
    ("exercise", "seed"),
    [pytest.param(e, seed, id=f"{e.name}-{seed}") for e in EXERCISES for seed in seeds_of(e)],
)
each_misconception = pytest.mark.parametrize(
    ("exercise", "known", "seed"),
    [
        pytest.param(e, m, seed, id=f"{e.name}-{m.name.replace(' ', '-')}-{seed}")
        for e in EXERCISES
        for m in e.misconceptions
        for seed in seeds_of(e)
    ],
)


def takes_floats(exercise) -> bool:
    """Whether a tensor of floats is among its inputs: then one is float64, and stays it."""
    values = [value for case in exercise.cases() for value in case.inputs.values()]
    return any(torch.is_tensor(v) and v.is_floating_point() for v in values)


@each_seed
def test_the_reference_passes(exercise, seed):
    cases = cases_of(exercise, seed)
    verdict = verdict_on_own(exercise, exercise.reference, seed)
    assert (verdict.status, verdict.passed) == (PASSED, len(cases))


@each_exercise
def test_cases_are_equal_for_equal_seeds_and_name_the_parameters_in_order(exercise):
    first, second = cases_of(exercise, 0), exercise.cases()
    inputs = [plain([case.inputs for case in cases]) for cases in (first, second)]
    near = exercise.relative_tolerance, exercise.absolute_tolerance  # some inputs are trained
    assert difference(*inputs, *near) is None
    labels = [[case.label for case in cases_of(exercise, seed)] for seed in SEEDS]
    assert labels[0] == labels[1] == labels[2] and len({*labels[0]}) == len(labels[0])
    parameters = list(inspect.signature(exercise.reference).parameters)
    assert all(list(case.inputs) == parameters for case in first)


@each_exercise
def test_another_seed_makes_other_inputs(exercise):
    inputs = [plain([case.inputs for case in cases_of(exercise, seed)]) for seed in SEEDS]
    assert all(difference(inputs[a], inputs[b]) for a, b in ((0, 1), (1, 2), (0, 2)))


@each_exercise
def test_a_table_of_remembered_values_fails_at_another_seed(exercise):
    """Even with the right gradients: what the reference gives at one seed, case by case."""
    first = seeds_of(exercise)[0]
    old = run_once(exercise.reference, cases_of(exercise, first), exercise.seconds)
    for seed in {*SEEDS} - {first}:
        cases = cases_of(exercise, seed)
        remembered = old
        if exercise.differentiable:
            new = run_once(exercise.reference, cases, exercise.seconds)
            remembered = [replace(o, gradients=n.gradients) for o, n in zip(old, new, strict=True)]
        assert is_wrong(exercise, cases, remembered)


@each_exercise
def test_the_stub_is_not_attempted(exercise):
    def stub(*_):
        raise NotImplementedError

    assert verdict_on(exercise, stub).status == NOT_ATTEMPTED


@each_exercise
def test_returning_nothing_fails(exercise):
    assert is_rejected(exercise, lambda *_: None)


@each_exercise
def test_there_are_hints_and_at_least_three_misconceptions(exercise):
    assert exercise.hints and exercise.reference.__doc__
    assert 3 <= len(exercise.misconceptions) <= 6


@each_misconception
def test_a_misconception_fails_under_its_own_name(exercise, known, seed):
    verdict = verdict_on_own(exercise, known.function, seed)
    assert verdict.status == FAILED
    assert verdict.misconception == known.name


@each_exercise
def test_mutants_of_the_reference_are_rejected(exercise):
    seconds = seconds_for_a_mutant(exercise)
    rejected = {
        change: is_rejected(exercise, mutant, seconds=seconds)
        for change, mutant in mutants(exercise.reference, bool(exercise.differentiable))
        if change != "inputs in float32" or exercise.compare and takes_floats(exercise)
    }
    survivors = {change for change, was in rejected.items() if not was}
    assert survivors == set(SURVIVORS.get(exercise.name, {})), "update surviving_mutants.toml"
    assert sum(rejected.values()) >= REJECTED_AT_LEAST * len(rejected), survivors
