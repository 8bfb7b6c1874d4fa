"""The pictures of `course report`: bars of plain HTML and CSS.

They fit a phone, can be read aloud, and every share stands there as a number, too. Colours: Okabe
and Ito, 2008, as in the course's figures.
"""

from collections import Counter
from collections.abc import Sequence

from course_lib.classroom.reports.class_report import GROUPS, Guessed, Tally
from course_lib.classroom.reports.report_html import number, shown

BINS = 10  # of the points
NARROW = 7  # percent: a narrower part of a bar has no number in it
KINDS = {
    "passed": "passed",
    "known": "known misconception",
    "unknown": "other wrong answer",
    "stopped": "stopped: too slow, crashed, …",
    "blank": "not attempted",
}
STYLE = """
.stack { display: flex; height: 1.6rem; margin: .4rem 0; border-radius: 3px; overflow: hidden }
.stack div { color: white; font-size: .8rem; line-height: 1.6rem; text-align: center;
  min-width: 2px; box-shadow: inset 1px 0 white }
.passed { background: var(--blue) }
.known { background: var(--orange); color: black !important }
.unknown { background: var(--red); color: black !important }
.stopped { background: #000 }
.blank { background: #D6D6D6; color: black !important }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .8rem 0 }
.legend i { display: inline-block; width: .9rem; height: .9rem; margin-right: .4rem;
  vertical-align: -.1rem; border-radius: 2px }
.meter { height: .35rem; margin: .2rem 0 .4rem; background: var(--paper) }
.meter div { height: 100% }
.columns { display: flex; align-items: flex-end; gap: 3px; height: 8rem; margin: 1rem 0 0 }
.columns div { flex: 1; background: var(--blue); min-height: 1px; position: relative }
.columns span { position: absolute; bottom: 100%; width: 100%; text-align: center;
  font-size: .75rem }
.axis { display: flex; justify-content: space-between; border-top: 1px solid var(--ink);
  font-size: .8rem }
.guess { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr; gap: .15rem .7rem;
  font-size: .9rem }
.guess i { display: inline-block; height: 1rem; background: #56B4E9; min-width: 1px;
  margin-right: .5rem; vertical-align: middle }
.guess .true { background: var(--blue) }
"""


def legend() -> str:
    """What the colours of a stack mean."""
    keys = "".join(f'<span><i class="{kind}"></i>{text}</span>' for kind, text in KINDS.items())
    return f'<div class="legend small">{keys}</div>'


def stack(one: Tally) -> str:
    """One bar for one exercise; its parts in words for whoever does not see it."""
    parts = {kind: count for kind, count in _parts(one).items() if count}
    words = ", ".join(f"{KINDS[kind]}: {count}" for kind, count in parts.items())
    bars = ""
    for kind, count in parts.items():
        percent = 100 * count / one.students
        text = f"{percent:.0f}" if percent >= NARROW else ""
        bars += (
            f'<div class="{kind}" style="flex: {count}" title="{KINDS[kind]}: {count}">{text}</div>'
        )
    return f'<div class="stack" role="img" aria-label="{words}">{bars}</div>'


def columns(points: Sequence[float], possible: float) -> str:
    """How many students have how many points, as columns."""
    bins = min(BINS, int(possible)) or 1
    shares = [one / possible if possible else 0 for one in points]
    counts = Counter(min(int(bins * share), bins - 1) for share in shares)
    bars = "".join(
        f'<div style="height: {100 * counts[i] / max(counts.values()):.0f}%">'
        f"<span>{counts[i] or ''}</span></div>"
        for i in range(bins)
    )
    return (
        f'<div class="columns" role="img" aria-label="students by points">{bars}</div>'
        '<div class="axis"><span>0</span><span>points; above a column, how many students</span>'
        f"<span>{number(possible)}</span></div>"
    )


def guess_bars(one: Guessed) -> str:
    """How often each guess was made; the darker bar is what was measured."""
    most = max(count for _, count in one.counts)
    rows = "".join(
        f"<span>{shown(guess)}</span><div><i{' class=true' * (guess == one.measured)} "
        f'style="width: {80 * count / most:.0f}%"></i>{count}</div>'
        for guess, count in one.counts
    )
    return f'<div class="guess">{rows}</div>'


def _parts(one: Tally) -> dict[str, int]:
    """Kind -> how many students."""
    sums = {kind: sum(group.count for group in getattr(one, kind)) for kind in GROUPS}
    return {"passed": one.passed, **sums, "blank": one.blank}
