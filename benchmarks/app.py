"""The page in a process of its own, as `python app.py` starts it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.space import answers, end, free_port

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0  # seconds, after which the measurement is given up


@dataclass(frozen=True)
class App:
    """A page that answers."""

    address: str
    pid: int
    seconds: float  # from the start of the process to the first answer


@contextlib.contextmanager
def started(*options: str, **environment: str) -> Iterator[App]:
    """The page, started with these options of app.py; it ends with the block."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the page ends on both
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,  # to end what the page starts as well
    ) as process:
        try:
            while not answers(address):
                if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                    raise SystemExit("the page did not start; run `python app.py` to see why")
                time.sleep(0.02)
            yield App(address, process.pid, time.perf_counter() - begun)
        finally:
            end(process)
