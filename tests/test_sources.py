"""The claims of the source documents: complete, consistent, and each checked where it says so."""

import time

import pytest

from course_lib.sources.checks.registry import CHECKS, checks
from course_lib.sources.claims import (
    CHECKED,
    DOCUMENTS,
    LOOKED_UP,
    RUN_ELSEWHERE,
    VERDICTS,
    all_claims,
    count_verdicts,
)
from course_lib.sources.evidence import evidence, evidence_on

CLAIMS = all_claims()


def test_there_are_129_claims_numbered_in_order():
    assert list(CLAIMS) == [f"C{n:02}" for n in range(1, 130)]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_a_claim_is_complete(claim):
    assert claim.verdict in VERDICTS
    assert claim.sources and set(claim.sources) <= set(DOCUMENTS)
    assert claim.evidence in {CHECKED, RUN_ELSEWHERE, LOOKED_UP}
    assert claim.place and claim.topic
    assert claim.says.endswith((".", "?")) and claim.correct.endswith(".")


def test_every_check_has_its_claim_and_every_computable_claim_its_check():
    assert set(CHECKS) == {claim.id for claim in CLAIMS.values() if claim.evidence == CHECKED}


@pytest.mark.parametrize("claim", CHECKS)
def test_a_check_confirms_its_verdict_in_one_sentence(claim):
    found = evidence(claim)
    assert found == evidence(claim), "a check draws its numbers from seeds"
    assert 10 < len(found) < 125 and "\n" not in found


def test_all_checks_take_a_few_seconds_together():
    start = time.process_time()
    for claim in CHECKS:
        evidence(claim)
    assert time.process_time() - start < 20


def test_a_claim_cannot_be_checked_twice():
    with pytest.raises(ValueError, match="C51 is checked by score_anything already"):
        checks("C51")(lambda: "")


def test_evidence_on_goes_through_one_topic():
    seen = [claim for claim, _ in evidence_on("sparsification")]
    assert {claim.topic for claim in seen} == {"sparsification"}
    assert [claim.id for claim in seen] == ["C24", "C53", "C54", "C62"]


def test_verdicts_are_counted():
    assert count_verdicts(CLAIMS.values()) == {
        "holds": 3,
        "holds if": 38,
        "imprecise": 43,
        "wrong": 45,
    }
