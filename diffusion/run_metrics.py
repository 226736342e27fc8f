"""The lines of a run's metrics.jsonl; a page asks for all runs every other second."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

METRICS_KEPT = 256  # runs whose metrics this process remembers


@dataclass
class _Read:
    """What was read of a file of metrics: so many bytes, and the last line of them."""

    bytes: int = 0
    last: bytes = b""
    records: list[dict] = field(default_factory=list)

    def go_on(self, file: BinaryIO) -> bool:
        """Read the whole lines that came since; False when the file is not the same any more."""
        file.seek(self.bytes - len(self.last))
        content = file.read()
        if not content.startswith(self.last):
            return False
        new = content[len(self.last) : content.rfind(b"\n") + 1]
        if new:
            lines = new.splitlines(keepends=True)
            self.bytes, self.last = self.bytes + len(new), lines[-1]
            self.records += parsed(lines)
        return True


_READ: dict[Path, _Read] = {}
_READING = threading.Lock()


def records(path: Path) -> list[dict]:
    """What is in the file; every line is read once, and half a line, cut short, is left out."""
    with _READING:
        read = _READ.pop(path, None) or _Read()
        try:
            with open(path, "rb") as file:
                if not read.go_on(file):
                    read = _Read()
                    read.go_on(file)
        except FileNotFoundError:
            return []
        except PermissionError:  # on Windows, while it is being replaced
            pass
        _READ[path] = read
        if len(_READ) > METRICS_KEPT:
            del _READ[next(iter(_READ))]  # the one that was asked for longest ago
        return list(read.records)


def parsed(lines: Iterable[str | bytes]) -> list[dict]:
    """The records of these lines, without those that are none."""
    return [record for line in lines if (record := _record(line))]


def _record(line: str | bytes) -> dict | None:
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None
