"""How many processors this process may use at once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpus() -> int:
    """Those that the system lets it run on, and no more than its container has time for.

    A container with the time of 2 processors on a machine of 64 sees all 64. So many threads
    spend its time in a moment, and then all of them wait for the next period.
    """
    try:
        there = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        there = os.cpu_count() or 1
    return max(min([there, *map(math.ceil, _shares())]), 1)


def _shares() -> Iterator[float]:
    """Processors whose time each of the control groups around this process grants."""
    for group in _groups():
        # The two versions of control groups: "QUOTA PERIOD" in one file, or a number in each.
        share = _numbers(group / "cpu.max") or [
            *_numbers(group / "cpu.cfs_quota_us"),
            *_numbers(group / "cpu.cfs_period_us"),
        ]
        if len(share) == 2 and min(share) > 0:
            yield share[0] / share[1]


def _groups() -> Iterator[Path]:
    """Folders of the groups, from this process's own to the outermost that is to be seen."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, own in (line.split(":", 2) for line in lines):
        if not controllers or "cpu" in controllers.split(","):
            root = GROUPS / controllers
            inner = root / own.lstrip("/")
            yield from (inner, *inner.parents[: len(Path(own).parts) - 1])


def _numbers(file: Path) -> list[int]:
    """The numbers in a file; none where there is no such file, or it says "max"."""
    try:
        return [int(word) for word in file.read_text(encoding="utf-8").split()]
    except (OSError, ValueError):
        return []
