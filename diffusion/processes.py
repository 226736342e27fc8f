"""Other processes of this machine: starting them, giving way to them, asking whether they live."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NICEST = 19  # of give_way
IDLE = 10  # from this degree on, Windows lets a process compute only when all others rest


def python(*words: object) -> dict[str, Any]:
    """Keywords of Popen that start this very Python with these words; it reads and writes UTF-8.

    The process started is the one that runs: its pid is what it calls its own.
    """
    executable, environment = sys.executable, {**os.environ, "PYTHONUTF8": "1"}
    base = getattr(sys, "_base_executable", executable)
    if sys.platform == "win32" and base != executable:
        # A virtual environment's python.exe only starts the real one, under another pid.
        environment["__PYVENV_LAUNCHER__"], executable = executable, base
    return {"args": [executable, *map(str, words)], "env": environment}


def own_session() -> dict[str, Any]:
    """Keywords of Popen for a process that neither Ctrl-C nor the end of this one reaches."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags}
    return {"start_new_session": True}


def give_way(nice: int) -> None:
    """Let every other program go first, to this degree: 0, not at all, to 19.

    Raises ValueError for any other number.
    """
    if not 0 <= nice <= NICEST:
        raise ValueError(f"a degree of {nice}; choose --nice 0, not at all, to {NICEST}")
    if not nice:
        return
    if sys.platform == "win32":
        import psutil

        degree = psutil.IDLE_PRIORITY_CLASS if nice >= IDLE else psutil.BELOW_NORMAL_PRIORITY_CLASS
        psutil.Process().nice(degree)
        return
    os.nice(nice)
    # Desktops share the processor among sessions: one that this process leads gives way as well,
    # but never the session of the shell, or the page, that it was started from.
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice), encoding="utf-8")


def process_exists(pid: int) -> bool:
    """Whether some process has this id now; it need not be the one that once had it.

    A process that has ended and that nobody asked how does not exist any more.
    """
    import psutil

    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.AccessDenied:
        return True  # it is somebody else's
    except (psutil.NoSuchProcess, ValueError):
        return False


def print_anything() -> None:
    """Have print show `?` for what the console, or the file behind it, cannot write."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
