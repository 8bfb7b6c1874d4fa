"""What of a lesson's prose stands on a slide: Markdown in, less of it out."""

import re

ENOUGH, LONGEST = 50, 190  # letters of what is said below a picture, or before a formula
MOST = 3  # formulas on a slide; the notes have the rest
HEADING = re.compile(r"^#{1,4} +(.*)$", flags=re.M)
SENTENCE = re.compile(
    r"(?:(?<=[.?!])(?<!et al\.)|(?<=[.?!]\*\*)|(?<=[.?!][\"”)]))\s+(?=[A-ZÀ-Þ0-9*\"“$(`])"
)
GUESS = re.compile(r"\*\*(?:And )?[Gg]uess\b([^*]*)\*\*")
BOLD = re.compile(r"\*\*[^*]*\s[^*]*\s[^*]*\*\*")  # three words or more
KEY = re.compile(rf"^\*\*|^\S+ \*\*|{BOLD.pattern}")
ITEM = re.compile(r"(?:\*|-|\d+\.) ")
GOALS = "* **Afterwards"
POINTS_BACK = ("It ", "They ", "Their ", "This ")  # such a sentence needs the one before it


def sections(source: str, heading: str) -> list[tuple[str, str]]:
    """(heading, text) of a cell's parts; what stands before its first heading is under the last."""
    pieces = HEADING.split(source)
    parts = [(heading, pieces[0].strip()), *zip(pieces[1::2], pieces[2::2], strict=True)]
    parts = [(name, text.strip()) for name, text in parts]
    return parts[1:] if len(parts) > 1 and not parts[0][1] else parts


def key_points(text: str) -> list[str]:
    """Formulas, tables and lists; of the prose what is bold and what stands beside a formula."""
    blocks = paragraphs(re.sub(r"\s*(\$\$.+?\$\$)\s*", r"\n\n\1\n\n", text, flags=re.S))
    formula = [block.startswith("$$") for block in blocks]
    points: list[str] = []
    for index, block in enumerate(blocks):
        if formula[index] or block.startswith("|"):
            points.append(block)
        elif ITEM.match(block):
            points += [] if block.startswith(GOALS) else [shortened(block)]
        elif not GUESS.search(block):
            told = sentences(block)
            near = {0} if index and formula[index - 1] else set()
            after = blocks[index + 1] if index + 1 < len(blocks) else ""
            leads = after.startswith("$$") or (ITEM.match(after) and not after.startswith(GOALS))
            near |= introduction(told) if leads else set()
            kept = [one for n, one in enumerate(told) if n in near or KEY.search(one)]
            points += [" ".join(kept)] if kept else []
    formulas = [n for n, point in enumerate(points) if point.startswith("$$")]
    if len(formulas) > MOST:
        end = formulas[MOST - 1] + 1
        return [*points[:end], sentences(points[end])[0]]
    return points or opening(blocks)


def introduction(told: list[str]) -> set[int]:
    """Which sentences lead to the formula or list behind a paragraph: the last, what it needs."""
    first = len(told) - 1
    while first and (len(told[first]) < ENOUGH or told[first].startswith(POINTS_BACK)):
        first -= 1
    return set(range(max(first, len(told) - 2), len(told)))


def opening(blocks: list[str]) -> list[str]:
    """Of a part that has nothing else to show the first sentences, as a list."""
    told = [sentences(block) for block in blocks if not GUESS.search(block)]
    if len(told) == 1:
        kept = told[0][len(told[0][0]) < ENOUGH // 2 :][:5]
    else:
        kept = [first(one, 2 * ENOUGH) for one in told[:4]]
    return ["\n".join(f"* {one}" for one in kept)]


def first(told: list[str], letters: int, most: int = LONGEST) -> str:
    """The first sentences that have so many letters together, without those that are too long."""
    kept = ""
    for one in told:
        if len(kept) < letters and len(kept) + len(one) < most:
            kept += f"{one} "
    return kept.rstrip()


def paragraphs(text: str) -> list[str]:
    """The blocks of a Markdown text, but for the line that says to pause."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text)]
    return [block for block in blocks if block and not block.startswith(("---", "**Pause"))]


def sentences(block: str) -> list[str]:
    """The sentences of a paragraph; what is bold stays together, and brackets are left out."""
    told: list[str] = []
    for piece in SENTENCE.split(" ".join(block.split())):
        if told and (told[-1].count("**") % 2 or (told[-1][0] == "(" and ")" not in told[-1])):
            told[-1] += f" {piece}"
        else:
            told.append(piece)
    return [one for one in told if not re.fullmatch(r"\(.*[.?!]?\)\.?", one)] or told


def shortened(block: str) -> str:
    """A list of which each point has its first sentence, and its second if that is a mere name."""
    told = [sentences(item) for item in re.split(rf"\n(?={ITEM.pattern})", block)]
    return "\n".join(" ".join(one[: 1 if len(one[0]) > ENOUGH else 2]) for one in told)


def question_of(text: str) -> str:
    """What a prose guess asks, else nothing; a short one after the sentence before it."""
    blocks = paragraphs(text)
    place = next((n for n, block in enumerate(blocks) if GUESS.search(block)), None)
    if place is None:
        return ""
    block, found = blocks[place], GUESS.search(blocks[place])
    inner, rest = found[1].strip(), block[found.end() :].strip()
    if rest and (inner.endswith((":", ".")) or rest.startswith(":")):
        asked = rest.lstrip(": ")
    else:
        asked = inner.partition(": ")[2] or f"guess {inner}".strip()
        asked += rest if rest.startswith(",") else f" {rest}"
    above = [one for one in blocks[max(place - 1, 0) : place] if not ITEM.match(one)]
    told = " ".join([*above, block[: found.start()]])
    short = len(asked) < ENOUGH or asked.startswith("guess")
    context = sentences(told)[-1] if short and told.strip() else ""
    return f"{context} {asked[0].upper()}{asked[1:]}".strip()


def finding(text: str) -> str:
    """The sentences of a reading that stand below its picture: what is bold, else the first."""
    plain_prose = [one for one in paragraphs(text) if not re.match(r"\||\$\$|(\*|-|\d+\.) ", one)]
    told = [one for block in plain_prose if not GUESS.search(block) for one in sentences(block)]
    told = [one for one in told if not one.endswith(":")]
    return first([one for one in told if BOLD.search(one)] or told, ENOUGH)


def plain(text: str) -> str:
    """A heading without marks."""
    return re.sub(r"[*`]", "", text).strip()
