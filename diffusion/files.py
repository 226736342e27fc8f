"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move it there once it is safely on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        temporary.touch()  # with the user's usual permissions, whoever writes into it
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def process_exists(pid: int) -> bool:
    """Whether some process has this id now; it need not be the one that once had it.

    A process that has ended and that nobody asked how does not exist any more.
    """
    with contextlib.suppress(OSError, IndexError):  # there is no /proc outside Linux
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1]
        return not state.startswith(("Z", "X"))
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is somebody else's
    return True


def size_of(folder: Path) -> int:
    """Bytes of all files under a folder; what is deleted meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def write_json(path: Path, value: object) -> None:
    """Write JSON for people and programs: indented, with a final newline."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def _remove_leftovers(folder: Path) -> None:
    """Delete what processes left that were killed while they wrote here."""
    for path in folder.iterdir():
        match = re.fullmatch(r"\..+\.(\d+)\.\d+\.partial", path.name)
        if match and not process_exists(int(match[1])):
            path.unlink(missing_ok=True)
