"""The Make screen's server side: what can be asked for, what was got, and how to say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from demo import wording, wording_make
from demo.settings import whole_within
from diffusion.denoiser import ANY
from diffusion.noise import MAX_SEED
from diffusion.reader import AttributeReader
from diffusion.recipe import MAX_GUIDANCE, Recipe
from diffusion.walks import Request

FACES, MOST_FACES = 16, 64  # drawn at once, and at most
RECIPE = Recipe("ddim", 20)
GUIDANCE = 2.0

Values = Mapping[str, Sequence[str]]  # a model's attributes and their values


@dataclass(frozen=True)
class Choice:
    """One value that can be asked for; `colour` is a swatch's, as "#1e1514"."""

    index: int  # -1 for any
    words: str
    colour: str | None = None


@dataclass(frozen=True)
class Order:
    """One press of Make: pictures of consecutive seeds that all ask for the same."""

    seed: int
    count: int
    wishes: tuple[int, ...]  # an index per attribute of the model, -1 for any
    guidance: float = GUIDANCE

    def request(self, model: str) -> Request:
        """The order as the engine takes it."""
        seeds = tuple(range(self.seed, self.seed + self.count))
        return Request(model, seeds, RECIPE, self.wishes or None, self.guidance)


def read_order(
    labels: Values,
    wishes: Mapping[str, object],
    seed: object = 0,
    count: object = FACES,
    guidance: object = GUIDANCE,
) -> Order:
    """Check what a form or a program asks for; attributes left out are open.

    `wishes` map attributes to indices, -1 for any. Raises ValueError with one sentence.
    """
    for name in wishes:
        if name not in labels:
            raise ValueError(wording_make.unknown_attribute(str(name)[:20], list(labels)))
    indices = tuple(
        _index(name, wishes.get(name, ANY), len(values)) for name, values in labels.items()
    )
    return Order(
        whole_within(wording.SEED, seed, 0, MAX_SEED - MOST_FACES),
        whole_within(wording.FACES, count, 1, MOST_FACES),
        indices,
        _strength(guidance),
    )


def choices(labels: Values, palette: Mapping[str, Sequence[str | None]]) -> dict[str, list[Choice]]:
    """For every attribute "any" and its values, with a colour where it is one."""
    found = {}
    for name, values in labels.items():
        colours = palette.get(name, [None] * len(values))
        found[name] = [Choice(ANY, wording_make.ANY)]
        for index, colour in enumerate(colours):
            words = wording_make.value(name, values, index)
            found[name].append(Choice(index, words, colour and f"#{colour}"))
    return found


@dataclass(frozen=True)
class Verdict:
    """One face: what it shows, and whether that is what was asked, attribute by attribute."""

    words: str  # the alternative text
    granted: dict[str, bool]  # of the attributes that were asked for


def verdicts(order: Order, pixels: np.ndarray, reader: AttributeReader) -> list[Verdict]:
    """What a reader sees in the finished pictures, uint8 (N, H, W, 3), in order."""
    wishes = dict(zip(reader.labels, order.wishes, strict=True))
    return [_verdict(wishes, row, reader.labels) for row in reader.read(pixels)]


def _verdict(wishes: Mapping[str, int], row: np.ndarray, labels: Values) -> Verdict:
    got = dict(zip(labels, row.tolist(), strict=True))
    parts = [wording_make.seen(name, labels[name], index) for name, index in got.items()]
    granted = {name: got[name] == wish for name, wish in wishes.items() if wish != ANY}
    return Verdict(wording_make.face(parts), granted)


def _index(name: str, given: object, count: int) -> int:
    if isinstance(given, (int, str)) and not isinstance(given, bool):
        text = str(given).strip()
        if text == str(ANY) or (text.isascii() and text.isdigit() and int(text[:9]) < count):
            return int(text)
    raise ValueError(wording_make.unknown_value(name, given, count))


def _strength(given: object) -> float:
    try:
        guidance = float(str(given).strip().replace(",", ".")[:20])
    except ValueError:
        guidance = -1.0
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise ValueError(wording_make.guidance_refused(given, MAX_GUIDANCE))
    return guidance
