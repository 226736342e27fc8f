"""What a model is asked for, as text that fits into an address: "3.-.0", one index per attribute.

A dash leaves an attribute open; the order is the model's. Nothing at all asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demo import wording_make as wording
from demo.numbers import read_number
from diffusion.denoiser import ANY
from diffusion.recipe import MAX_GUIDANCE

Labels = Mapping[str, Sequence[str]]  # a model's attributes and their values
OPEN, BETWEEN = "-", "."
GUIDANCE = "2"  # how strictly wishes are followed, unless somebody says otherwise


def read_asked(labels: Labels, text: object) -> tuple[int, ...]:
    """An index per attribute, -1 where it is open; () when nothing is asked.

    Raises ValueError with one sentence.
    """
    parts = str(text or "").strip()[:200].split(BETWEEN)
    if set(parts) <= {"", OPEN}:
        return ()
    if len(parts) != len(labels):
        raise ValueError(wording.asked_refused(text, list(labels)))
    return tuple(
        _index(name, part, len(values))
        for part, (name, values) in zip(parts, labels.items(), strict=True)
    )


def asked_text(asked: Sequence[int]) -> str:
    """The way back from `read_asked`."""
    return BETWEEN.join(OPEN if index == ANY else str(index) for index in asked)


def in_words(labels: Labels, asked: Sequence[int]) -> list[str]:
    """What is asked for, attribute by attribute, as "dark glasses"."""
    return [
        wording.seen(name, values, index)
        for index, (name, values) in zip(asked, labels.items(), strict=bool(asked))
        if index != ANY
    ]


def read_guidance(given: object) -> float:
    """A strength from what a form holds; raises ValueError with one sentence."""
    guidance = read_number(given)
    if guidance is None or not 0 <= guidance <= MAX_GUIDANCE:
        raise ValueError(wording.guidance_refused(given, MAX_GUIDANCE))
    return guidance


def _index(name: str, part: str, count: int) -> int:
    if part == OPEN:
        return ANY
    if part.isascii() and part.isdigit() and len(part) <= 9 and int(part) < count:
        return int(part)
    raise ValueError(wording.unknown_value(name, part, count))
