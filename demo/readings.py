"""What takes longer than a request may: it goes on, and whoever asks again gets what came of it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

# What came of it is kept for whoever has not heard yet: how many answers, and for how long.
KEPT, KEPT_SECONDS = 1000, 3600


class Readings:
    """Answers that threads work out, each under the names of whom and what it is for."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[float, Future[dict]]] = {}  # the oldest first
        self._lock = threading.Lock()

    def find(self, names: Sequence[str]) -> Future[dict] | None:
        """What is going on under these names, or came of it."""
        with self._lock:
            self._forget()
            _, found = self._kept.get(_key(names), (0.0, None))
            return found

    def begin(self, names: Sequence[str], work: Callable[[], dict]) -> Future[dict]:
        """Have a thread work, unless one does so already under these names.

        `work` raises nothing: what is kept of an error would hold all that it was about.
        """
        key, coming = _key(names), Future[dict]()
        with self._lock:
            self._forget()
            _, known = self._kept.pop(key, (0.0, None))
            if known and not known.done():
                coming = known
            self._kept[key] = (time.monotonic(), coming)
        if coming is not known:
            # A server that ends does not wait for it.
            run = threading.Thread(target=lambda: coming.set_result(work()), daemon=True)
            run.start()
        return coming

    def _forget(self) -> None:
        done = [key for key, (_, found) in self._kept.items() if found.done()]
        then = time.monotonic() - KEPT_SECONDS
        for i, key in enumerate(done):
            if len(done) - i > KEPT or self._kept[key][0] < then:
                del self._kept[key]


def _key(names: Sequence[str]) -> bytes:
    """Short: 20,000 paths are megabytes."""
    return hashlib.sha256(json.dumps(list(names)).encode()).digest()
