"""Lines of text as pictures: what stands in them is known, so a reader's mistakes can be counted.

Words come from the Wikipedia articles, letters from the font DejaVu Sans, which matplotlib brings.
A clean picture is too easy to tell readers apart, so it is spoiled by an amount d:

    turned     by up to 1.5 d degrees, to either side
    blurred    by a Gaussian of 0.75 d pixels
    faded      ink and paper are 1 − 0.4 d of their full distance apart
    noisy      each pixel by a normal number with a standard deviation of 0.2 d, full distance = 1

Axes: N lines, W pixels of a line.
"""

import re
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from course_lib.data.packages import package_file
from course_lib.data.text import wikipedia_articles

HEIGHT, WIDTH = 48, 320  # pixels
LETTER, MARGIN = 24, 10  # pixels
FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
TURN, BLUR, FADE, NOISE = 1.5, 0.75, 0.4, 0.2  # at d = 1
WORD = re.compile(r"[\x21-\x7e]{1,12}")  # printable ASCII, short enough for three on a line


class Lines(NamedTuple):
    """Pictures and what stands in them.

    images: (N, 3, 48, 320) float32, −1 is black and 1 white; noise may go beyond.
    texts: N lines of words.
    """

    images: Tensor
    texts: list[str]


def rendered_lines(count: int, seed: int = 0, spoiled: float = 0.0) -> Lines:
    """Pictures of lines of consecutive words, from places of the articles that the seed chooses.

    Args:
        count: N, at least 1.
        seed: of places and of what spoils; the same lines, whatever `spoiled` is.
        spoiled: d, from 0 for clean pictures to 1 for ones that a person reads with some effort.

    Raises:
        ValueError: count is below 1, or spoiled is out of range.

    >>> lines = rendered_lines(2)
    >>> lines.images.shape, [len(text) > 5 for text in lines.texts]
    (torch.Size([2, 3, 48, 320]), [True, True])
    """
    if count < 1 or not 0 <= spoiled <= 1:
        raise ValueError(
            f"count must be at least 1 and spoiled from 0 to 1; got {count} and {spoiled}"
        )
    font = _font()
    places, dirt = (np.random.default_rng((seed, use)) for use in range(2))
    words = _words()
    starts = places.integers(len(words) - WIDTH, size=count)
    texts = [_line(words, int(start), font) for start in starts]
    pictures = [_spoil(_draw(text, font), spoiled, dirt) for text in texts]
    grey = torch.from_numpy(np.stack(pictures)).float()  # (N, 48, W), 0 is black and 1 white
    return Lines((2 * grey - 1)[:, None].repeat(1, 3, 1, 1), texts)  # -> (N, 3, 48, W)


def _font() -> ImageFont.FreeTypeFont:
    path = str(package_file("matplotlib", FONT))
    return ImageFont.truetype(path, LETTER, layout_engine=ImageFont.Layout.BASIC)


@cache
def _words() -> tuple[str, ...]:
    words = " ".join(wikipedia_articles().values()).split()
    return tuple(word for word in words if WORD.fullmatch(word))


def _line(words: tuple[str, ...], start: int, font: ImageFont.FreeTypeFont) -> str:
    """As many words from `start` on as fit between the margins."""
    line = words[start]
    for word in words[start + 1 : start + WIDTH]:
        longer = f"{line} {word}"
        if font.getlength(longer) > WIDTH - 2 * MARGIN:
            break
        line = longer
    return line


def _draw(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    picture = Image.new("L", (WIDTH, HEIGHT), 255)
    ImageDraw.Draw(picture).text((MARGIN, HEIGHT / 2), text, 0, font, anchor="lm")
    return picture


def _spoil(picture: Image.Image, amount: float, dirt: np.random.Generator) -> np.ndarray:
    """The picture turned, blurred, faded and noisy, (48, W), 0 is black and 1 white."""
    angle, noise = dirt.uniform(-1, 1), dirt.normal(size=(HEIGHT, WIDTH))
    turned = picture.rotate(TURN * amount * angle, Image.Resampling.BILINEAR, fillcolor=255)
    blurred = turned.filter(ImageFilter.GaussianBlur(BLUR * amount))
    ink = np.asarray(blurred) / 255 - 0.5
    return 0.5 + ink * (1 - FADE * amount) + NOISE * amount * noise
