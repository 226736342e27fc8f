"""A table that a benchmark measured, put into the page of docs/ that is about it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from diffusion.files import read_text, write_text

TABLE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- end -->)", re.DOTALL)


def check_page(page: Path) -> None:
    """End the command before it measures anything, unless the table will have a place."""
    if not (page.is_file() and TABLE.search(read_text(page))):
        sys.exit(f"{page} has no place for the table: lines <!-- table --> and <!-- end -->")


def put_table(page: Path, text: str) -> None:
    """Replace what stands between the page's marks `table` and `end`; see `check_page`."""
    write_text(page, TABLE.sub(lambda _: f"{text}\n", read_text(page)))
