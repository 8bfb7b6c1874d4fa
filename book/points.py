"""What of a lesson's prose stands on a slide: Markdown in, less of it out."""

import re

ENOUGH, LONGEST = 50, 240  # letters of what is said below a picture
MOST = 3  # formulas on a slide; the notes have the rest
HEADING = re.compile(r"^#{1,4} +(.*)$", flags=re.M)
SENTENCE = re.compile(
    r"(?:(?<=[.?!])(?<!et al\.)|(?<=[.?!]\*\*)|(?<=[.?!][\"”)]))\s+(?=[A-ZÀ-Þ0-9*\"“$(`])"
)
GUESS = re.compile(r"\*\*(?:And )?[Gg]uess\b([^*]*)\*\*")
KEY = re.compile(r"^\*\*|\*\*[^*]*\s[^*]*\s[^*]*\*\*|^\S+ \*\*")


def sections(source: str, heading: str) -> list[tuple[str, str]]:
    """(heading, text) of a cell's parts; what stands before its first heading is under the last."""
    pieces = HEADING.split(source)
    parts = [(heading, pieces[0].strip()), *zip(pieces[1::2], pieces[2::2], strict=True)]
    parts = [(name, text.strip()) for name, text in parts]
    return parts[1:] if len(parts) > 1 and not parts[0][1] else parts


def key_points(text: str) -> list[str]:
    """Formulas, tables and lists; of the prose what is bold and what stands beside a formula."""
    text = re.sub(r"(?m)\s*(\$\$.+?\$\$)\s*", r"\n\n\1\n\n", text, flags=re.S)
    blocks = paragraphs(text)
    formula = [block.startswith("$$") for block in blocks]
    points: list[str] = []
    for index, block in enumerate(blocks):
        if formula[index] or block.startswith("|"):
            points.append(block)
        elif re.match(r"(\*|-|\d+\.) ", block):
            points.append("\n".join(shortened(item) for item in items(block)))
        elif not GUESS.search(block):
            told = sentences(block)
            near = {0} if index and formula[index - 1] else set()
            near |= {len(told) - 1} if index + 1 < len(blocks) and formula[index + 1] else set()
            kept = [one for n, one in enumerate(told) if n in near or KEY.search(one)]
            points += [" ".join(kept)] if kept else []
    formulas = [n for n, point in enumerate(points) if point.startswith("$$")]
    return points[: formulas[MOST]] if len(formulas) > MOST else points or opening(blocks)


def opening(blocks: list[str]) -> list[str]:
    """The first sentences of a part that has nothing else to show."""
    return [sentences(block)[0] for block in blocks][:4]


def paragraphs(text: str) -> list[str]:
    """The blocks of a Markdown text."""
    return [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]


def sentences(block: str) -> list[str]:
    """The sentences of a paragraph; what is bold stays together."""
    told: list[str] = []
    for piece in SENTENCE.split(" ".join(block.split())):
        if told and told[-1].count("**") % 2:
            told[-1] += f" {piece}"
        else:
            told.append(piece)
    return told


def items(block: str) -> list[str]:
    """The points of a list."""
    return re.split(r"\n(?=(?:\*|-|\d+\.) )", block)


def shortened(item: str) -> str:
    """A point's first sentence, and its second if the first is a mere name."""
    told = sentences(item)
    return " ".join(told[: 1 if len(told[0]) > 40 else 2])


def question_of(text: str) -> str:
    """What a prose guess asks, else nothing."""
    block = next((one for one in paragraphs(text) if GUESS.search(one)), "")
    if not block:
        return ""
    found = GUESS.search(block)
    inner, rest = found[1].strip(), block[found.end() :].lstrip(": ")
    if rest and (not inner or inner.endswith((":", "."))):
        asked = rest
    else:
        asked = inner.partition(": ")[2] or f"guess {inner}"
        asked += rest if rest.startswith(",") else f" {rest}"
    return asked[0].upper() + asked[1:]


def finding(text: str) -> str:
    """The sentences of a reading that stand below its picture: what is bold, else the first."""
    blocks = [block for block in paragraphs(text) if not GUESS.search(block)]
    told = [one for block in blocks for one in sentences(block)]
    kept = ""
    for one in [one for one in told if KEY.search(one)] or told:
        if len(kept) < ENOUGH and len(kept) + len(one) < LONGEST:
            kept += f"{one} "
    return kept.rstrip()


def plain(text: str) -> str:
    """A heading without marks."""
    return re.sub(r"[*`]", "", text).strip()
