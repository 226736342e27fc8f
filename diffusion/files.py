"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from diffusion.processes import process_exists

Result = TypeVar("Result")

WAITS = (0.01, 0.02, 0.04, 0.08, *[0.2] * 9)  # seconds; see `_patiently`


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move it there once it is safely on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        temporary.touch()  # with the user's usual permissions, whoever writes into it
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        _patiently(lambda: os.replace(temporary, path))
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8, which another process may replace meanwhile."""
    return _patiently(lambda: path.read_text(encoding="utf-8"))


def write_text(path: Path, text: str) -> None:
    """Replace a text file, the same bytes on every system: in UTF-8, its lines as they are."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def try_writing(folder: Path) -> None:
    """Raise OSError unless files can be written under a folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=there):
        pass


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder; what is deleted meanwhile counts nothing."""
    walk = os.walk(folder)
    return bytes_of(os.path.join(place, name) for place, _, names in walk for name in names)


def bytes_of(paths: Iterable[str | Path]) -> int:
    """Bytes of these files; what is deleted meanwhile counts nothing."""
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            total += os.lstat(path).st_size
    return total


def write_json(path: Path, value: object) -> None:
    """Write JSON for people and programs: indented, with a final newline."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _patiently(do: Callable[[], Result]) -> Result:
    """Do something with a file, on Windows again and again for two seconds while it is refused.

    There a file cannot be replaced while anybody reads it, nor read while it is being replaced.
    """
    for seconds in WAITS if sys.platform == "win32" else ():
        with contextlib.suppress(PermissionError):
            return do()
        time.sleep(seconds)
    return do()


def _remove_leftovers(folder: Path) -> None:
    """Delete what processes left that were killed while they wrote here."""
    with contextlib.suppress(ImportError):  # the library alone does without psutil
        for path in folder.iterdir():
            match = re.fullmatch(r"\..+\.(\d+)\.\d+\.partial", path.name)
            if match and not process_exists(int(match[1])):
                path.unlink(missing_ok=True)
