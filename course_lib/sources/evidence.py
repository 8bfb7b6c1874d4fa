"""Run the checks of claims."""

from collections.abc import Iterator

from course_lib.sources.checks import (  # noqa: F401 (each registers its checks)
    acceleration,
    codebooks,
    distillation,
    models,
    objective,
    pruning,
    quantization,
    redundancy,
    samples,
    sparsification,
)
from course_lib.sources.checks.registry import CHECKS
from course_lib.sources.claims import CHECKED, Claim, all_claims


def evidence(claim: str) -> str:
    """What the check of a claim finds; it raises AssertionError if the verdict does not hold.

    >>> evidence("C87")
    'a 3 × 4 matrix holds 12 weights, not 3'
    """
    return CHECKS[claim]()


def evidence_on(topic: str) -> Iterator[tuple[Claim, str]]:
    """(claim, evidence) for each claim of a topic that is checked here, one check after another."""
    for claim in all_claims().values():
        if claim.topic == topic and claim.evidence == CHECKED:
            yield claim, evidence(claim.id)
