"""The page of `course report`: a lecturer's view of a class, fit to be shown to others."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from course_lib.classroom.grading.grade import Grade
from course_lib.classroom.reports import class_pictures
from course_lib.classroom.reports.class_pictures import columns, guess_bars, legend, stack
from course_lib.classroom.reports.class_report import (
    GROUPS,
    Group,
    Guessed,
    Tally,
    guessed,
    readable,
    tally,
    worst,
)
from course_lib.classroom.reports.grade_pages import IN_WORDS, TIERS
from course_lib.classroom.reports.report_html import chapter_title, number, page, prose, shown
from course_lib.exercises.engine.judge import NOT_ATTEMPTED

MOST = 20  # answers that only one student gave
LONGEST = 300  # characters of a wrong value
STYLE = """
.overview { border-collapse: collapse; width: 100% }
.overview td { padding: 0 .7rem 0 0; vertical-align: middle }
.overview td:nth-child(2) { width: 75%; padding: 0 }
.overview code { font-size: .8rem; overflow-wrap: normal }
.overview .stack { margin: .15rem 0 }
.wrong { margin: 1rem 0 }
.wrong .count { float: right; margin-left: 1rem; font-variant-numeric: tabular-nums }
.numbers { display: flex; flex-wrap: wrap; gap: .5rem 2.2rem; margin: 1rem 0 }
.numbers b { display: block; font-size: 1.5rem; line-height: 1.2 }
ol { padding-left: 1.4rem }
li { margin: .7rem 0 }
@media (max-width: 34rem) { .overview td:nth-child(2) { width: 50% } }
"""


def class_page(grades: Sequence[Grade]) -> str:
    """The HTML page of a class's grades in one chapter.

    Raises:
        ValueError: there is no grade.

    >>> class_page([])
    Traceback (most recent call last):
    ValueError: grades must hold at least one; got none
    """
    if not grades:
        raise ValueError("grades must hold at least one; got none")
    title = f"{chapter_title(grades[0].chapter)}: what the class got wrong"
    tallies = tally(grades)
    parts = [f"<h1>{shown(title)}</h1>", _numbers(grades), _unread(grades)]
    if tallies:
        parts += [_say(tallies), _overview(tallies), _points(readable(grades))]
        parts += map(_section, tallies)
    parts += [_guesses(guessed(grades)), _how(grades)]
    return page(title, class_pictures.STYLE + STYLE, "\n".join(parts))


def _numbers(grades: Sequence[Grade]) -> str:
    """The class in three numbers."""
    facts = {"submissions": len(grades)}
    if read := readable(grades):
        middle, possible = median(grade.points for grade in read), read[0].possible
        results = [result for grade in read for result in grade.results]
        tried = sum(result.status != NOT_ATTEMPTED for result in results) / len(results)
        facts["median"] = f"{number(middle)} of {number(possible)} points"
        facts["of the answers were attempted"] = f"{100 * tried:.0f} %"
    lines = "".join(f"<p><b>{value}</b>{label}</p>" for label, value in facts.items())
    return f'<div class="numbers">{lines}</div>'


def _unread(grades: Sequence[Grade]) -> str:
    """The submissions that count nowhere, by why they do not."""
    statuses = Counter(grade.status for grade in grades if not readable([grade]))
    notes = [
        f"{count} ({shown(IN_WORDS.get(status, status or 'no results'))})"
        for status, count in sorted(statuses.items())
    ]
    return f'<p class="small soft">Not counted below: {", ".join(notes)}.</p>' if notes else ""


def _say(tallies: Sequence[Tally]) -> str:
    """What most students got wrong; of a misconception, what the exercise says of it."""
    items = ""
    for exercise, group in worst(tallies):
        known, link = group.explanation, shown(exercise)
        items += (
            f"<li><b>{prose(group.name if known else 'A wrong answer without a name')}</b> · "
            f'<a href="#{link}"><code>{link}</code></a> · {group.count} students<br>'
            + (prose(group.explanation) if known else _came(group))
        )
    return f"<h2>What to say in the next lecture</h2><ol>{items}</ol>" if items else ""


def _came(group: Group) -> str:
    return f"<code>{shown(group.name[:LONGEST])}</code>" if group.name else ""


def _overview(tallies: Sequence[Tally]) -> str:
    rows = "\n".join(
        f'<tr><td><a href="#{shown(one.exercise)}"><code>{shown(one.exercise)}</code></a>'
        f"<td>{stack(one)}"
        for one in tallies
    )
    return (
        f"<h2>The exercises, hardest first</h2>{legend()}"
        f'<table class="overview">{rows}</table>'
        '<p class="small soft">In percent of the submissions that could be read.</p>'
    )


def _points(read: Sequence[Grade]) -> str:
    points, possible = [grade.points for grade in read], read[0].possible
    full = sum(one == possible for one in points)
    title = f"<h2>Points: {full} of {len(points)} have them all</h2>"
    return title + columns(points, possible)


def _section(one: Tally) -> str:
    """One exercise: what several students gave, each in full; what one alone gave is folded."""
    name = shown(one.exercise)
    groups = [(kind, group) for kind in GROUPS for group in getattr(one, kind)]
    several = "".join(_wrong(*both, one) for both in groups if both[1].count > 1)
    single = [_wrong(*both, one) for both in groups if both[1].count == 1]
    many = f"{len(single)} answer{'s' * (len(single) > 1)} that no one else gave"
    folded = f"<details><summary>{many}</summary>{''.join(single[:MOST])}</details>"
    return (
        f'<h2 id="{name}"><code>{name}</code></h2>'
        f"<p>{one.passed} of {one.students} passed; {one.blank} did not attempt it.</p>"
        f"{stack(one)}{several}{folded if single else ''}"
    )


def _wrong(kind: str, group: Group, one: Tally) -> str:
    """Equal wrong answers: how many, what came out, why, and an answer to look at."""
    share = 100 * group.count / one.students
    if kind == "known":
        label = f"<b>{prose(group.name)}</b>"
    else:
        said = "Other" if kind == "unknown" else IN_WORDS.get(group.status, group.status)
        label = ": ".join(filter(None, [prose(said), _came(group)]))
    source = f"<pre>{shown(group.example)}</pre>"
    example = f"<details><summary>One such answer</summary>{source}</details>"
    return (
        f'<div class="wrong"><span class="count">{group.count} ({share:.0f} %)</span>{label}'
        f'<div class="meter"><div class="{kind}" style="width: {share:.1f}%"></div></div>'
        f"{prose(group.explanation)}{example if group.example else ''}</div>\n"
    )


def _guesses(questions: Sequence[Guessed]) -> str:
    """What the class guessed before it measured, beside what came out."""
    parts = "".join(
        f"<h3>{shown(one.question)}</h3><p>{sum(count for _, count in one.counts)} guesses. "
        f"Measured: <b>{shown(one.measured)}</b></p>{guess_bars(one)}"
        for one in questions
    )
    return f"<h2>Guessed, then measured</h2>{parts}" if parts else ""


def _how(grades: Sequence[Grade]) -> str:
    tiers = sorted({TIERS.get(grade.tier, grade.tier) for grade in grades if grade.tier})
    versions = sorted({grade.version for grade in grades if grade.version})
    return (
        "<h2>How this was made</h2>"
        '<p class="small soft">Every answer was called on inputs that the notebook does not show, '
        f"in {shown(' or '.join(tiers) or 'no sandbox')}, and its values were judged. A known "
        "misconception gives the student&rsquo;s own values on every input. Other wrong answers "
        "are put together where their first wrong value is the same. Examples stand without "
        "comments, and no student is named: see grades.csv. "
        f"Course version {shown(', '.join(versions) or 'unknown')}.</p>"
    )
