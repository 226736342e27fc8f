"""The films that browsers may still ask about: other lenses, files to keep."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from demo.settings import Comparison
from diffusion import Schedule
from diffusion.film import Film, Still

LIMIT = 2**29  # bytes of pictures; films that the engine keeps too are not held twice
MOST = 256  # reels


@dataclass(frozen=True)
class Reel:
    """What one run shows: its settings, and a film per pane that may still grow."""

    comparison: Comparison
    films: tuple[Film, ...]
    weights: str  # which weights drew it
    schedule: Schedule | None = None  # of the model that drew it; none: the shipped one's

    @property
    def nbytes(self) -> int:
        """Memory held by the pictures."""
        return sum(film.nbytes for film in self.films)

    @property
    def done(self) -> bool:
        """Whether both panes came to the picture."""
        return all(film.done for film in self.films)

    @property
    def last(self) -> list[Still]:
        """The newest still of each pane; raises LookupError before the first."""
        return [film.at(film.calls) for film in self.films]


class Reels:
    """The last runs by their unguessable names.

    Of those that have ended, the one leaves that was not asked for the longest.
    """

    def __init__(self, limit: int = LIMIT):
        self._limit = limit
        self._reels: OrderedDict[str, Reel] = OrderedDict()
        self._held_always: dict[str, Reel] = {}
        self._growing: set[str] = set()  # runs that are still being drawn
        self._lock = threading.Lock()

    def hold(self, run: str, reel: Reel) -> None:
        """Remember a run for good: one that every visitor is shown."""
        self._held_always[run] = reel

    def keep(self, run: str, reel: Reel) -> None:
        """Remember a run; of one that began anew, what it shows now."""
        with self._lock:
            self._reels[run] = reel
            self._reels.move_to_end(run)
            self._trim()

    @contextmanager
    def growing(self, run: str) -> Iterator[None]:
        """While a run goes on it stays; its films grow, so afterwards there may be too much."""
        with self._lock:
            self._growing.add(run)
        try:
            yield
        finally:
            with self._lock:
                self._growing.discard(run)
                if run in self._reels:
                    self._reels.move_to_end(run)  # somebody has looked at it until now
                self._trim()

    def get(self, run: object) -> Reel | None:
        """The reel of that name, if it is still here."""
        if not isinstance(run, str):
            return None
        with self._lock:
            if run in self._reels:
                self._reels.move_to_end(run)
            return self._held_always.get(run) or self._reels.get(run)

    def _trim(self) -> None:
        for run in [run for run in self._reels if run not in self._growing]:
            if len(self._reels) <= 1 or (len(self._reels) <= MOST and self._held() <= self._limit):
                return
            del self._reels[run]

    def _held(self) -> int:
        # Equal runs share their films.
        films = {id(film): film for reel in self._reels.values() for film in reel.films}
        return sum(film.nbytes for film in films.values())
