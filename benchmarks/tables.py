"""A table that a benchmark measured, put into the page of docs/ that is about it."""

from __future__ import annotations

import re
from pathlib import Path

from diffusion.files import read_text, write_text

TABLE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- end -->)", re.DOTALL)


def put_table(page: Path, text: str) -> None:
    """Replace what stands between the page's marks `table` and `end`."""
    write_text(page, TABLE.sub(lambda _: f"{text}\n", read_text(page)))
