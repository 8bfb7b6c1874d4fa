"""A verdict in words, the same ones everywhere; colour only where the place shows it."""

import textwrap

from course_lib.exercises.engine.judge import NOT_ATTEMPTED, PASSED, Verdict

GREEN, RED, BOLD, PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[0m"


def headline(verdict: Verdict) -> str:
    """One line: mark, exercise, how many cases.

    >>> headline(Verdict("quantize_linear", "failed", 4, 6))
    '✘ quantize_linear · 4 of 6 cases'
    """
    if verdict.status == NOT_ATTEMPTED:
        return f"○ {verdict.exercise} · not attempted"
    mark = "✔" if verdict.status == PASSED else "✘"
    return f"{mark} {verdict.exercise} · {verdict.passed} of {verdict.total} cases"


def words(verdict: Verdict) -> str:
    """The whole verdict as plain text."""
    if verdict.status == PASSED:
        return headline(verdict)
    if verdict.status == NOT_ATTEMPTED:
        return f'{headline(verdict)}\n  Write it above. hint("{verdict.exercise}") helps.'
    lines = [headline(verdict), f"  {verdict.case}"]
    lines += [f"    {what:<10}{text}" for what, text in verdict.details]
    if verdict.cause:
        lines += textwrap.wrap(
            f"Likely cause: {verdict.cause}", 92, initial_indent="  ", subsequent_indent="  "
        )
    return "\n".join([*lines, f'  hint("{verdict.exercise}") says more.'])


def coloured(verdict: Verdict) -> str:
    """The same words with the headline in colour and bold."""
    first, *rest = words(verdict).split("\n")
    colour = GREEN if verdict.status == PASSED else RED if verdict.status != NOT_ATTEMPTED else ""
    return "\n".join([f"{colour}{BOLD}{first}{PLAIN}", *rest])
