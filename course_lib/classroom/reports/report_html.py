"""What the reports have in common: one page in itself, and text of others as nothing but text.

A page asks for nothing outside of it, and its own policy forbids scripts. What a submission
printed, raised or is called stands there as characters: markup is escaped, and what steers a
terminal or turns the direction of reading is shown by a sign of its own.
"""

import re
import unicodedata
from html import escape

LONGEST = 20_000  # characters of one text
JOINERS = "\u200c\u200d"  # parts of letters and of emoji
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root { --blue: #0072B2; --orange: #E69F00; --red: #D55E00; --purple: #CC79A7; --grey: #BBB;
  --ink: #1A1A1A; --soft: #5A5A5A; --line: #DDD; --paper: #F6F6F4 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 50rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: white; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; padding-top: .9rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
h2 code { font-size: 1.05rem }
a { color: var(--blue) }
p { margin: .4rem 0 }
pre, code { font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace }
pre { margin: .5rem 0; padding: .6rem .8rem; background: var(--paper); border-radius: 4px;
  white-space: pre-wrap; max-height: 30rem; overflow: auto }
summary { cursor: pointer; color: var(--blue) }
bdi { unicode-bidi: isolate }
.soft { color: var(--soft) }
.small { font-size: .87rem }
.say { margin: .5rem 0; padding: .5rem .8rem; border-left: 4px solid var(--orange);
  background: #FFF8E8 }
"""


def shown(text: object) -> str:
    """Any text as HTML that shows it, and does nothing else.

    >>> shown("<script>"), shown("\\x1b[31mred"), shown("\\u202e")
    ('&lt;script&gt;', '␛[31mred', '[U+202E]')
    """
    text = str(text).replace("\r\n", "\n")
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}\n… ({len(text) - LONGEST:,} characters more)"
    return escape("".join(c if c.isprintable() or c == "\n" else _sign(c) for c in text))


def prose(text: str) -> str:
    """An explanation as a sentence of its own: a capital first, backticks as code.

    >>> prose("the `scale` is zero.")
    'The <code>scale</code> is zero.'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", shown(text[:1].upper() + text[1:]))


def _sign(c: str) -> str:
    """What stands for a character that has no picture of its own."""
    if c in JOINERS or c == "\t" or unicodedata.category(c) == "Zs":
        return c
    if ord(c) < 0x20:
        return chr(0x2400 + ord(c))
    return f"[U+{ord(c):04X}]"


def page(title: str, style: str, body: str) -> str:
    """A whole HTML page; `title` is any text, `style` and `body` are the caller's own HTML."""
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{shown(title)}</title>
<style>{STYLE}{style}</style>
<body>
{body}
</body>
</html>
"""


def number(points: float) -> str:
    """Points without needless decimals.

    >>> number(2.0), number(2.5)
    ('2', '2.5')
    """
    return f"{float(points):.2f}".rstrip("0").rstrip(".")


def chapter_title(chapter: str) -> str:
    """
    >>> chapter_title("05_linear_quantization")
    '05 · Linear quantization'
    """
    digits, _, words = chapter.partition("_")
    return f"{digits} · {words.replace('_', ' ').capitalize()}" if words else chapter


def likely_cause(words: str) -> tuple[str, str]:
    """A verdict's words without the likely cause, and that alone, on one line.

    >>> likely_cause("✘ f · 0 of 1 cases\\n  Likely cause: no\\n  clamp.\\n  hint(…) says more.")
    ('✘ f · 0 of 1 cases\\n  hint(…) says more.', 'no clamp.')
    """
    found = re.search(r"\n  Likely cause: (.*?)(?=\n  hint\(|\Z)", words, re.DOTALL)
    if not found:
        return words, ""
    return words.replace(found[0], "", 1), " ".join(found[1].split())
