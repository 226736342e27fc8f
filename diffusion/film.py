"""What a sampling shows while it goes on: pictures that any number of viewers read at their pace.

The one who computes adds stills and never waits; a viewer reads the newest one, or the one after
the last that he saw. Nothing is queued, so a viewer who does not read costs nothing.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

KEPT = 250  # stills of one film, beside the first and the last


@dataclass(frozen=True)
class Still:
    """The pictures of one request after so many calls of the network."""

    calls: int
    level: int  # that x has come to
    seconds: float  # since the first call began
    pictures: np.ndarray  # uint8 (images, H, W, C)


@dataclass(frozen=True)
class Place:
    """Where in the waiting line a request stands."""

    number: int  # 1 is next
    seconds: float  # until everything before it is computed: it begins no later than that


class Film:
    """The stills of one request in order: evenly chosen ones, always the first and the last."""

    def __init__(self, calls: int):
        self.calls = calls  # in the whole film
        self._stride = math.ceil(calls / KEPT)
        self._stills: list[Still] = []
        self._place: Place | None = None
        self._problem: str | None = None
        self._watchers: set[Callable[[], None]] = set()
        self._lock = threading.Lock()

    def wants(self, calls: int) -> bool:
        """Whether the still after so many calls is one of those that are kept."""
        return calls % self._stride == 0 or calls == self.calls

    def add(self, still: Still) -> None:
        """The next still, of a number of calls that the film `wants`."""
        with self._lock:
            self._stills.append(still)
            self._place = None
        self._tell()

    def move(self, place: Place) -> None:
        """The request has come to another place in the line."""
        self._place = place
        self._tell()

    def fail(self, problem: str) -> None:
        """The request ended early; `problem` is a sentence for whoever asked."""
        self._problem = problem
        self._tell()

    @property
    def place(self) -> Place | None:
        """Where the request waits; None once it has begun."""
        return self._place

    @property
    def problem(self) -> str | None:
        """Why the film ends early, in a sentence."""
        return self._problem

    @property
    def reached(self) -> int:
        """The calls of the newest still; -1 before the first."""
        with self._lock:
            return self._stills[-1].calls if self._stills else -1

    @property
    def done(self) -> bool:
        """Whether the last still is there."""
        return self.reached == self.calls

    @property
    def nbytes(self) -> int:
        """Memory held by the pictures."""
        with self._lock:
            return sum(still.pictures.nbytes for still in self._stills)

    def at(self, calls: int) -> Still:
        """The newest still after at most so many calls; raises LookupError before the first."""
        with self._lock:
            index = bisect.bisect_right(self._stills, calls, key=lambda still: still.calls)
            if not index:
                raise LookupError("nothing is computed yet")
            return self._stills[index - 1]

    def kept(self, calls: int) -> int:
        """The largest number of calls, at most `calls`, whose still is kept."""
        return self.calls if calls >= self.calls else calls - calls % self._stride

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after every change, on the thread that made it; it must not block."""
        with self._lock:
            self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Stop calling `watcher`."""
        with self._lock:
            self._watchers.discard(watcher)

    def _tell(self) -> None:
        with self._lock:
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher()
