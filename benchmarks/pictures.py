"""The README's three pictures, drawn from what was measured: the front, results.json, chapter 10.

python -m benchmarks.pictures      writes README-quality.png, README-peers.png, README-speed.png
"""

import re
from pathlib import Path

import nbformat
from matplotlib.figure import Figure

from benchmarks import results
from benchmarks.measuring import Comparison
from course_lib.challenge.picture import FrontPoint, load_front
from course_lib.measure.pareto import pareto_front
from course_lib.plots.figure import BLACK, BLUE, GREEN, ORANGE, RED, SKY, new_figure

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "solutions" / "10_acceleration.ipynb"
TABLE = re.compile(r"Times beside float32 for ([\d, ]+) rows: ([^\]]+)")
KINDS = {"removed": ORANGE, "fewer bits": BLUE, "trained": GREEN, "combined": RED}
MARKS = {"removed": "s", "fewer bits": "o", "trained": "^", "combined": "D"}
REMOVED = ("half of the weights", "2 of 4, SparseGPT", "low rank")  # in chapters of other kinds
ROWS = {1: SKY, 8: BLUE, 64: ORANGE, 1024: RED}
GREY = "#999999"


def kind(point: FrontPoint) -> str:
    """How a method makes a model smaller; empty for the dense one."""
    if point.chapter == "00":
        return ""
    both = point.chapter == "12" or point.method == "2 of 4, SparseGPT, 4 bits"
    if both:
        return "combined"
    if point.chapter in {"03", "04"} or point.method.startswith(REMOVED):
        return "removed"
    return "trained" if point.chapter in {"07", "08"} else "fewer bits"


def draw_quality(points: tuple[FrontPoint, ...]) -> Figure:
    """Bits per byte against megabytes, a colour and a mark for each kind, the front as a line."""
    figure, (axes,) = new_figure(height=3.8)
    sizes, losses = [p.bytes / 1e6 for p in points], [p.bits_per_byte for p in points]
    on_front = pareto_front(sizes, losses)
    best = sorted((s, loss) for s, loss, on in zip(sizes, losses, on_front, strict=True) if on)
    axes.step(*zip(*best, strict=True), where="post", color=BLACK, linewidth=1, zorder=1)
    for name, colour in KINDS.items():
        own = [p for p in points if kind(p) == name]
        xs, ys = [p.bytes / 1e6 for p in own], [p.bits_per_byte for p in own]
        axes.scatter(xs, ys, s=34, c=colour, marker=MARKS[name], label=name, zorder=2)
    for dense in (p for p in points if not kind(p)):
        axes.plot(dense.bytes / 1e6, dense.bits_per_byte, "*", color=BLACK, markersize=12)
        axes.annotate("float16", (dense.bytes / 1e6, dense.bits_per_byte), (-8, 10),
                      textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    axes.set(xscale="log", xlabel="size of the file (MB)", ylabel="bits per byte (less is better)")
    axes.set_xticks([0.6, 0.8, 1, 1.5, 2, 3, 4], ["0.6", "0.8", "1", "1.5", "2", "3", "4"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.set_title("Fewer bits cost less than fewer weights; both, and training, reach furthest")
    return figure


def goals(found: list[Comparison]) -> list[Comparison]:
    """Of each method with a goal its slowest workload; the fastest beside its peer first."""

    def ratio(one: Comparison) -> float:
        return one.ratio(one.peers[0])[0]

    asked = sorted((one for one in found if one.goal is not None and one.peers), key=ratio)
    slowest = {(one.method, one.peers[0]): one for one in asked}
    return sorted(slowest.values(), key=ratio)


def draw_peers(found: list[Comparison], circumstances: str = "") -> Figure:
    """A bar from 1 to our time over the peer's for each method; its goal as a mark."""
    rows = goals(found)
    figure, (axes,) = new_figure(height=1.3 + 0.21 * len(rows))
    for place, one in enumerate(rows):
        ratio = one.ratio(one.peers[0])[0]
        colour = GREEN if one.is_ahead(one.peers[0]) else GREY if ratio <= 1 else ORANGE
        axes.barh(place, ratio - 1, left=1, height=0.65, color=colour)
        axes.plot([one.goal] * 2, [place - 0.4, place + 0.4], color=BLACK, linewidth=1.5)
        axes.text(max(ratio, 1) * 1.1, place, f"{ratio:.2g}", va="center", size=7)
    names = [f"{one.method} / {one.peers[0]}" for one in rows]
    axes.set_yticks(range(len(rows)), names, size=7)
    label = "our time ÷ the peer's: left of 1 we are faster; | is the goal"
    axes.set(xscale="log", xlabel=f"{label}\n{circumstances}".strip())
    low = min((one.ratio(one.peers[0])[0] for one in rows), default=0.1)
    axes.set_xlim(min(low, 0.1) / 2, 3)
    axes.axvline(1, color=BLACK, linewidth=1)
    axes.xaxis.set_major_formatter("{x:g}")
    ahead = sum(one.is_ahead(one.peers[0]) for one in rows)
    title = f"{ahead} of {len(rows)}: faster, and no worse (green). Slower: orange"
    axes.set_title(title + ". Grey: quality not compared", size=10, loc="left", x=-0.5)
    return figure


def speed_table(lesson: Path = LESSON) -> dict[str, dict[int, float]]:
    """Way -> rows -> time beside float32, as chapter 10's page shows it."""
    cells = nbformat.read(lesson, 4).cells
    texts = [o["data"].get("text/plain", "") for c in cells for o in c.get("outputs", ())
             if "data" in o]  # fmt: skip
    found = next(match for text in texts if (match := TABLE.search(text)))
    rows = [int(part.replace(",", "")) for part in found[1].split(", ")]
    table = {}
    for line in found[2].split("; "):
        match = re.fullmatch(r"(.*?) ((?:[\d.]+|nan)(?:, (?:[\d.]+|nan))*)", line.strip())
        table[match[1]] = dict(zip(rows, map(float, match[2].split(", ")), strict=True))
    return table


def draw_speed(table: dict[str, dict[int, float]]) -> Figure:
    """A dot for each number of rows; left of the line is faster than float32."""
    figure, (axes,) = new_figure(height=3.8)
    ways = [name for name in table if name != "float32"][::-1]
    for place, way in enumerate(ways):
        values = [table[way][rows] for rows in ROWS]
        axes.plot([min(values), max(values)], [place] * 2, color=GREY, linewidth=1, zorder=1)
        axes.scatter(values, [place] * len(ROWS), c=list(ROWS.values()), s=46, zorder=2)
    for rows, colour in ROWS.items():
        axes.scatter([], [], c=colour, s=46, label=f"{rows:,} row{'s' * (rows > 1)}")
    axes.axvline(1, color=BLACK, linewidth=1)
    axes.set_yticks(range(len(ways)), ways)
    axes.set(xscale="log", xlabel="← faster      time beside float32      slower →")
    axes.set_xticks([0.2, 0.3, 0.5, 1, 2], ["0.2", "0.3", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title("Smaller is faster for one row; for many, often not. Zeros alone never are")
    return figure


def main() -> None:
    """Write all three."""
    stored = results.read()
    found = [comparison for _, comparison in results.comparisons(stored)]
    pictures = {
        "quality": draw_quality(load_front().points),
        "peers": draw_peers(found, results.circumstances(stored)),
        "speed": draw_speed(speed_table()),
    }
    for name, figure in pictures.items():
        figure.savefig(ROOT / f"README-{name}.png", format="png")


if __name__ == "__main__":
    main()
