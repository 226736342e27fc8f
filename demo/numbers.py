"""Numbers as forms hold them: text that people write, or what JSON brings in its place."""

from __future__ import annotations

import math
import re

# ASCII digits only: int() and float() take far stranger strings.
WHOLE = re.compile(r"\d{1,19}", re.ASCII)  # no more digits than a seed has
NUMBER = re.compile(r"[+-]?(\d{1,40}([.,]\d{0,40})?|[.,]\d{1,40})(e[+-]?\d{1,3})?", re.ASCII | re.I)


def read_whole(value: object) -> int | None:
    """An int from an int, 4.0 or " 4 "; None from anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, int):
        return value
    text = str(value).strip()
    return int(text) if WHOLE.fullmatch(text) else None


def read_number(value: object) -> float | None:
    """A finite float from a number, "0.5", " 0,5 " or "5e-4"; None from anything else."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, (int, float)):
        text = str(value).strip()
        value = text.replace(",", ".") if NUMBER.fullmatch(text) else math.nan
    try:
        number = float(value)
    except OverflowError:  # an int that is longer than any float
        return None
    return number if math.isfinite(number) else None
