"""Asked against got, face by face, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from demo import wording_make
from demo.wishes import Labels
from diffusion.denoiser import ANY
from diffusion.palette import Palette
from diffusion.reader import AttributeReader


@dataclass(frozen=True)
class Verdict:
    """One face: what it shows, and whether that is what was asked, attribute by attribute."""

    words: str  # the alternative text
    granted: dict[str, bool]  # of the attributes that were asked for

    def to_json(self) -> dict:
        """As it travels to the browser, attributes under the names that controls have."""
        granted = {wording_make.attribute(name): right for name, right in self.granted.items()}
        return {"words": self.words, "granted": granted}


@dataclass(frozen=True)
class OrderedReader:
    """A reader's answers on the attributes of a model, in the model's order."""

    reader: AttributeReader
    labels: Labels

    @property
    def accuracy(self) -> Mapping[str, float]:
        """How often it is right, by attribute."""
        return self.reader.accuracy

    @property
    def palette(self) -> Palette:
        """The colours of the attributes that are some."""
        return self.reader.palette

    def read(self, pixels: np.ndarray) -> np.ndarray:
        """The index of each attribute's most likely value: int64 (N, attributes)."""
        known = list(self.reader.labels)
        return self.reader.read(pixels)[:, [known.index(name) for name in self.labels]]


def verdicts(
    asked: Sequence[int], pixels: np.ndarray, reader: AttributeReader | OrderedReader
) -> list[Verdict]:
    """What a reader sees in finished pictures, uint8 (N, H, W, 3), in order.

    `asked` has an index for each of the reader's attributes, or is empty.
    """
    wishes = dict(zip(reader.labels, asked, strict=bool(asked)))
    return [_verdict(wishes, row, reader.labels) for row in reader.read(pixels)]


def _verdict(wishes: Mapping[str, int], row: np.ndarray, labels: Labels) -> Verdict:
    got = dict(zip(labels, row.tolist(), strict=True))
    parts = [wording_make.seen(name, labels[name], index) for name, index in got.items()]
    granted = {name: got[name] == wish for name, wish in wishes.items() if wish != ANY}
    return Verdict(wording_make.face(parts), granted)
