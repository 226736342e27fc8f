"""How far each browser is behind, and what it looks at.

Gradio has no backpressure: acknowledgements make up for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from diffusion.film import LENSES

# What is on the way to one browser before the next frames are skipped: enough for a line with
# much delay, and no more than a slow line carries in a second.
WINDOW, WINDOW_BYTES = 12, 800_000
RECEIPTS = 4  # that are asked for in a window: one for each frame would be most of the requests


@dataclass
class Viewer:
    """One run shown in one browser."""

    run: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    lens: str = LENSES[0]
    sent: int = 0
    asked: int = 0  # the last frame whose receipt was asked for
    on_the_way: dict[int, int] = field(default_factory=dict)  # bytes by frame number
    halted: asyncio.Event = field(default_factory=asyncio.Event)  # its visitor pressed Stop

    @property
    def behind(self) -> bool:
        """Whether a frame sent now would only arrive late."""
        return len(self.on_the_way) >= WINDOW or sum(self.on_the_way.values()) >= WINDOW_BYTES

    def send(self, size: int) -> bool:
        """The next frame, of so many bytes, is on the way; whether to ask for its receipt."""
        self.sent += 1
        self.on_the_way[self.sent] = size
        since = [size for number, size in self.on_the_way.items() if number > self.asked]
        due = len(since) >= WINDOW / RECEIPTS or sum(since) >= WINDOW_BYTES / RECEIPTS
        if due:
            self.asked = self.sent
        return due

    def receive(self, number: int) -> None:
        """The browser has that frame, and those before it."""
        for earlier in [sent for sent in self.on_the_way if sent <= number]:
            del self.on_the_way[earlier]


class Viewers:
    """The runs that browsers are watching now, by an unguessable name."""

    def __init__(self) -> None:
        self._open: dict[str, Viewer] = {}

    @contextlib.contextmanager
    def watch(self) -> Iterator[Viewer]:
        """A viewer for the length of one run."""
        viewer = Viewer()
        self._open[viewer.run] = viewer
        try:
            yield viewer
        finally:
            del self._open[viewer.run]

    def acknowledge(self, receipt: object) -> None:
        """The browser has a frame: {"run": name, "number": 3}; anything else is ignored."""
        viewer, number = self._named(receipt), _item(receipt, "number")
        if viewer and isinstance(number, int) and number <= viewer.sent:
            viewer.receive(number)

    def look(self, wish: object) -> None:
        """Send the rest of a run through a lens: {"run": name, "lens": "x0"}."""
        viewer, lens = self._named(wish), _item(wish, "lens")
        if viewer and lens in LENSES:
            viewer.lens = lens

    def halt(self, wish: object) -> None:
        """End a run: {"run": name}; on the loop that streams it."""
        if viewer := self._named(wish):
            viewer.halted.set()

    def _named(self, message: object) -> Viewer | None:
        run = _item(message, "run")
        return self._open.get(run) if isinstance(run, str) else None

    def __len__(self) -> int:
        return len(self._open)


def _item(message: object, name: str) -> object:
    return message.get(name) if isinstance(message, dict) else None
