"""Attributes that are colours, read from the pixels alone: a witness that learned nothing.

Cartoons are painted with a few exact colours, so the colour of the palette that most pixels are
near to tells which one was used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

NEAR = 16.0  # grey levels, Euclidean over red, green and blue: a pixel has a colour
FEWEST = 20 / 64**2  # share of the pixels below which no colour of the palette is there

Palette = Mapping[str, Sequence[str | None]]  # attribute -> a colour per value, as "1e1514"


def colours_of(values: Sequence[str] | Mapping[str, object]) -> tuple[str | None, ...] | None:
    """The colours of an attribute's values; None when they have none.

    `values` maps names to colours, or lists names that are colours themselves. One value may be
    without a colour (None): the one that is meant where no colour of the others shows.
    """
    colours = tuple(values.values()) if isinstance(values, Mapping) else tuple(values)
    wrong = [colour for colour in colours if colour is not None and not _is_colour(colour)]
    if wrong or colours.count(None) > 1 or colours.count(None) == len(colours):
        return None
    return tuple(None if colour is None else str(colour).lower() for colour in colours)


def seen(pixels: np.ndarray, colours: Sequence[str | None]) -> np.ndarray:
    """The index of the colour that most pixels of each uint8 (N, H, W, 3) are near to: int64 (N,).

    Too few of them mean the value without a colour, if there is one.
    """
    named = [i for i, colour in enumerate(colours) if colour is not None]
    rgb = np.array([list(bytes.fromhex(colours[i])) for i in named], dtype=np.float32)
    counts = np.stack([_near(picture, rgb) for picture in pixels])
    index = np.array(named)[counts.argmax(axis=1)]
    if len(named) < len(colours):
        few = counts.max(axis=1) < FEWEST * pixels.shape[1] * pixels.shape[2]
        index = np.where(few, list(colours).index(None), index)
    return index


def _near(picture: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """How many pixels are near to each colour, and nearest to it."""
    pixels = picture.reshape(-1, 3).astype(np.float32)
    squares = ((pixels[:, None] - rgb) ** 2).sum(axis=2)
    close = squares.min(axis=1) <= NEAR**2
    return np.bincount(squares.argmin(axis=1)[close], minlength=len(rgb))


def _is_colour(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{6}", value) is not None
