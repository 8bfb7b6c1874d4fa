"""One student's grade as a page in itself: points, verdicts, likely causes, the answers."""

from textwrap import dedent

from course_lib.classroom.grading.grade import Grade, Result
from course_lib.classroom.grading.sandbox import (
    BAD_TYPE,
    CRASHED,
    EXITED,
    MEMORY,
    PROTOCOL_ERROR,
    TIMEOUT,
)
from course_lib.classroom.reports.report_html import (
    chapter_title,
    likely_cause,
    number,
    page,
    prose,
    shown,
)
from course_lib.classroom.submissions.submission import MALFORMED, MISSING, REJECTED
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED

# What a status means to whoever handed the answer in: an exercise's, then a submission's.
IN_WORDS = {
    PASSED: "passed",
    FAILED: "not right yet",
    NOT_ATTEMPTED: "not attempted",
    BAD_TYPE: "gave back something that the exercise does not ask for",
    PROTOCOL_ERROR: "gave back no values that could be read",
    EXITED: "ended the program instead of giving back a value",
    CRASHED: "crashed",
    TIMEOUT: "took too long and was stopped",
    MEMORY: "took too much memory and was stopped",
    MALFORMED: "the notebook could not be read",
    REJECTED: "what was handed in was not opened",
    MISSING: "no notebook of this chapter was handed in",
}
TIERS = {
    "bubblewrap": "a bubblewrap sandbox, without network and without other files",
    "container": "a container",
    "process": "a plain process, which is a weak sandbox",
}
STYLE = """
.points { font-size: 1.3rem; font-weight: 600; margin: .8rem 0 .3rem }
.bar { height: .6rem; border-radius: .3rem; background: var(--line); overflow: hidden }
.bar div { height: 100%; background: var(--blue) }
table { border-collapse: collapse; width: 100%; margin: 1.2rem 0 }
td { padding: .25rem .5rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td code { font-size: .8rem }
td:nth-child(2) { white-space: nowrap; text-align: right; padding-right: 1rem }
h2 .points { float: right; margin: 0 0 0 1rem; font-size: 1rem }
"""


def student_page(grade: Grade) -> str:
    """The HTML page of one student's grade.

    >>> "2 of 2 points" in student_page(Grade("Ada", "05_x", (Result("f", 2, 2, "passed"),)))
    True
    """
    body = [
        f"<h1>{shown(chapter_title(grade.chapter))}</h1>",
        f"<p><bdi>{shown(grade.student)}</bdi></p>",
        f'<p class="points">{number(grade.points)} of {number(grade.possible)} points</p>',
        f'<div class="bar"><div style="width: {_percent(grade)}%"></div></div>',
    ]
    if grade.status:
        body.append(f'<p class="say">{prose(IN_WORDS.get(grade.status, grade.status))}.</p>')
    body += [f'<p class="say">{shown(note)}</p>' for note in grade.notes]
    if not grade.status:
        body.append(f"<table>{''.join(map(_row, grade.results))}</table>")
        body += map(_section, grade.results)
    body += [*_guesses(grade), "<h2>How this was graded</h2>", _how(grade)]
    return page(f"{chapter_title(grade.chapter)}: {grade.student}", STYLE, "\n".join(body))


def _percent(grade: Grade) -> int:
    return round(100 * grade.points / grade.possible) if grade.possible else 0


def _points(result: Result) -> str:
    return f"{number(result.points)} of {number(result.possible)}"


def _verdict(result: Result) -> str:
    """A mark and the verdict in words."""
    mark = {PASSED: "✔", NOT_ATTEMPTED: "○"}.get(result.status, "✘")
    words = IN_WORDS.get(result.status, result.status)
    some = f": {result.passed} of {result.cases} cases" if result.status == FAILED else ""
    return f"{mark} {shown(words + some)}"


def _row(result: Result) -> str:
    name = shown(result.exercise)
    link = f'<a href="#{name}"><code>{name}</code></a>'
    return f"<tr><td>{link}<td>{_points(result)}<td>{_verdict(result)}\n"


def _section(result: Result) -> str:
    name = shown(result.exercise)
    verdict, cause = likely_cause(result.words)
    details = dedent(verdict.partition("\n")[2]).strip("\n")  # its headline stands in the heading
    parts = [
        f'<h2 id="{name}"><span class="points">{_points(result)}</span><code>{name}</code></h2>',
        f"<p>{_verdict(result)}</p>",
    ]
    if cause:
        parts.append(f'<p class="say"><b>Likely cause:</b> {prose(cause)}</p>')
    if details and result.status != NOT_ATTEMPTED:
        parts.append(f"<pre>{shown(details)}</pre>")
    if result.answer:
        source = f"<pre>{shown(result.answer)}</pre>"
        parts.append(f"<details><summary>Your answer</summary>{source}</details>")
    return "\n".join(parts)


def guesses(grade: Grade) -> list[tuple[str, str, str]]:
    """(question, guess, measured) of each guess that was handed in; others are left out."""
    fields = ("question", "guess", "measured")
    whole = [one for one in grade.guesses if isinstance(one, dict) and {*fields} <= {*one}]
    return [tuple(str(one[field]) for field in fields) for one in whole]


def _guesses(grade: Grade) -> list[str]:
    lines = [
        f"<p>{shown(question)}<br>You guessed <b>{shown(guess)}</b>; "
        f"measured: <b>{shown(measured)}</b></p>"
        for question, guess, measured in guesses(grade)
    ]
    return ["<h2>Your guesses</h2>", *lines] if lines else []


def _how(grade: Grade) -> str:
    where = TIERS.get(grade.tier, grade.tier or "no sandbox: nothing was run")
    return (
        '<p class="small soft">Each answer was called on inputs that the notebook does not show, '
        f"in {shown(where)}. Only the values that it gave back were judged: compared with the "
        "reference&rsquo;s, or asked for what every right answer has. What it printed counts for "
        f"nothing. Course version {shown(grade.version or 'unknown')}.</p>"
    )
