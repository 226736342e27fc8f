"""What is meant by the time that something takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from diffusion.compiled import use_threads
from diffusion.device import keep_memory

Clock = Callable[[], float]


def clock(busy: bool) -> Clock:
    """Seconds on the wall; on a machine that does other things too, CPU seconds of one thread.

    Others on the same cores double the first from one minute to the next, and hardly change the
    second. What other threads of the process do meanwhile counts as well.
    """
    keep_memory()  # as the page and the command line do
    if not busy:
        return time.perf_counter
    use_threads(1)
    return time.process_time
