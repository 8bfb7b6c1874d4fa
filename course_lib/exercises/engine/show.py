"""A verdict in words, the same ones everywhere; colour only where the place shows it."""

import itertools
import textwrap

from course_lib.exercises.engine.judge import NOT_ATTEMPTED, PASSED, Verdict

GREEN, RED, BOLD, PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[0m"


def bar(done: int, of: int, width: int = 20) -> str:
    """How much of a whole is done.

    >>> bar(1, 4, width=8)
    '██░░░░░░'
    """
    full = width * done // max(of, 1)
    return "█" * full + "░" * (width - full)


def progress_table(chapters: dict[str, list[str]], status: dict[str, str]) -> str:
    """Chapter by chapter, a bar and the state of each exercise; then a bar for all of them.

    >>> print(progress_table({"00_start": ["a", "b"]}, {"a": "passed"}))
    00_start                  ██████████░░░░░░░░░░   1 of 2
        ✔ a                               ○ b
    <BLANKLINE>
    1 of 2 exercises passed   ██████████░░░░░░░░░░
    """
    marks = {PASSED: "✔", NOT_ATTEMPTED: "○"}
    lines, total, done = [], 0, 0
    for chapter, names in chapters.items():
        passed = sum(status.get(name) == PASSED for name in names)
        lines.append(f"{chapter:<26}{bar(passed, len(names))}   {passed} of {len(names)}")
        cells = [f"{marks.get(status.get(name, NOT_ATTEMPTED), '✘')} {name}" for name in names]
        for left, right in itertools.zip_longest(cells[::2], cells[1::2], fillvalue=""):
            lines.append(f"    {left:<34}{right}".rstrip())
        total, done = total + len(names), done + passed
    lines += ["", f"{f'{done} of {total} exercises passed':<26}{bar(done, total)}"]
    return "\n".join(lines)


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
    details = [f"    {what:<10}{text}" for what, text in verdict.details]
    if verdict.status == PASSED:
        return "\n".join([headline(verdict), *details])
    if verdict.status == NOT_ATTEMPTED:
        return f'{headline(verdict)}\n  Write it above. hint("{verdict.exercise}") helps.'
    lines = [headline(verdict), f"  {verdict.case}", *details]
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
