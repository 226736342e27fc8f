"""The built-in cartoons that the form of Train offers, each with a face, its author and licence.

`python -m demo.offered` draws the faces: reading a style's definition takes a second, and a page
that starts has no second to lose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo.markup import ASSETS
from demo.messages import data_uri
from diffusion.cartoons import STYLES, face, source

FIRST = ("toon-head", "pixel-art")  # the others are under Advanced
NUMBER, SIZE = 4, 64  # of the face


@dataclass(frozen=True)
class Offered:
    """A style as a visitor may choose it."""

    name: str
    title: str
    credit: str  # author and licence

    @property
    def picture(self) -> str:
        """A face of one of FIRST, as a data URI."""
        return data_uri("image/png", picture_file(self.name).read_bytes())


def first() -> list[Offered]:
    """The styles that the form shows at once."""
    return [_offered(name) for name in FIRST]


def others() -> list[Offered]:
    """The styles under Advanced."""
    return [_offered(name) for name in STYLES if name not in FIRST]


def picture_file(style: str) -> Path:
    """Where the face of one of FIRST is."""
    return ASSETS / f"{style}.png"


def drawn(style: str) -> np.ndarray:
    """The face that stands for a style, uint8 (SIZE, SIZE, 3)."""
    return face(style, NUMBER, SIZE)[0]


def _offered(style: str) -> Offered:
    made = source(style)
    return Offered(style, STYLES[style].title, f"{made.author}, {made.licence}")


def main() -> None:
    """Draw the faces of FIRST."""
    for style in FIRST:
        Image.fromarray(drawn(style)).save(picture_file(style), optimize=True)


if __name__ == "__main__":
    main()
