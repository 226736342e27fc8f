"""Cartoons of several styles as one set of pictures, each labelled with its style.

Picture i is number i // len(MIXED) of style i % len(MIXED), so that every stretch holds all styles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion.cartoons import STYLES, Drawing, check, load_cartoons, source
from diffusion.data import Images
from diffusion.sources import Source

NAME = "toons"
MIXED = ("toon-head", "personas", "big-ears", "pixel-art", "moods", "dylan")
EACH = 2_000  # pictures of a style
BUILT_IN = (*STYLES, NAME)  # pictures that need no download


def load_built_in(
    name: str,
    size: int,
    progress: bool = True,
    complete: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Images:
    """The pictures of one of BUILT_IN, as load_toons and load_cartoons give them."""
    if name == NAME:
        return load_toons(size, progress, stopped)
    return load_cartoons(name, size, progress, complete, stopped)


def load_toons(
    size: int, progress: bool = True, stopped: Callable[[], bool] = lambda: False
) -> Images:
    """EACH pictures of all MIXED styles with the attribute `style`; they are drawn first.

    Raises DataError for sizes that are not drawn, when a package is missing, or when drawing
    fails; raises Stopped when `stopped()` while they are drawn.
    """
    from diffusion.labels import Labels

    for style in MIXED:
        check(style, size)
    drawings = [Drawing(style, size, EACH, stopped) for style in MIXED]
    for drawing in drawings:
        drawing.wait(EACH, progress)
    count = EACH * len(MIXED)
    names = tuple(f"{MIXED[i % len(MIXED)]}-{i // len(MIXED):05d}" for i in range(count))
    labels = Labels((np.arange(count) % len(MIXED))[:, None], {"style": MIXED})
    key = "+".join(drawing.folder.name for drawing in drawings)
    return Images(Mixture(drawings), names, key, labels=labels, source=toons_source())


def source_of(built_in: str) -> Source:
    """Who drew pictures of BUILT_IN, and under which licences."""
    return toons_source() if built_in == NAME else source(built_in)


def toons_source() -> Source:
    """Who drew the styles, and under which licences."""
    sources = [source(style) for style in MIXED]
    return Source(
        f"{len(MIXED)} styles of DiceBear: {', '.join(one.name for one in sources)}",
        ", ".join(dict.fromkeys(one.author for one in sources)),
        ", ".join(sorted({one.licence for one in sources})),
        "https://www.dicebear.com/licenses/",
        " ".join(one.note for one in sources),
    )


class Mixture:
    """Drawings side by side, uint8 (N, size, size, 3), picture by picture in turn."""

    dtype = np.dtype(np.uint8)

    def __init__(self, drawings: list[Drawing]):
        self._drawings = drawings
        self.shape = (sum(map(len, drawings)), *drawings[0].shape[1:])
        self.nbytes = int(np.prod(self.shape))

    @property
    def complete(self) -> bool:
        """Whether no picture has to be waited for."""
        return all(drawing.complete for drawing in self._drawings)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        numbers, styles = np.divmod(np.atleast_1d(wanted), len(self._drawings))
        pictures = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for style in np.unique(styles):
            here = styles == style
            pictures[here] = self._drawings[style][numbers[here]]
        return pictures.reshape(np.shape(wanted) + self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype)
