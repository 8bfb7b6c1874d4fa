"""The claims of the source documents, read from `claims.toml`, where the fields are explained."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

VERDICTS = ("holds", "holds if", "imprecise", "wrong")
DOCUMENTS = ("S0", "S1", "S2", "S3", "S4")
CHECKED, RUN_ELSEWHERE, LOOKED_UP = "checked here", "run elsewhere", "looked up"


@dataclass(frozen=True)
class Claim:
    """One claim, restated, with the verdict on it and the correct form."""

    id: str  # C01 … C129
    sources: tuple[str, ...]  # of DOCUMENTS
    place: str  # the documents' own section numbers
    topic: str
    verdict: str  # of VERDICTS
    says: str
    correct: str
    literature: str  # empty where there is none to cite
    evidence: str  # CHECKED, RUN_ELSEWHERE or LOOKED_UP


@cache
def all_claims() -> dict[str, Claim]:
    """Id -> claim, in the order of the documents.

    >>> all_claims()["C51"].verdict
    'wrong'
    """
    table = tomllib.loads(files(__package__).joinpath("claims.toml").read_text("utf-8"))
    return {
        name: Claim(id=name, **{**fields, "sources": tuple(fields["sources"])})
        for name, fields in table.items()
    }


def topics() -> list[str]:
    """Every topic once, in the order of its first claim.

    >>> topics()[:2]
    ['language models', 'redundancy']
    """
    return list(dict.fromkeys(claim.topic for claim in all_claims().values()))


def count_verdicts(claims: Iterable[Claim]) -> dict[str, int]:
    """Verdict -> how many of the claims have it.

    >>> count_verdicts([all_claims()["C51"], all_claims()["C52"]])
    {'holds': 0, 'holds if': 1, 'imprecise': 0, 'wrong': 1}
    """
    verdicts = [claim.verdict for claim in claims]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}
