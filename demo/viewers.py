"""How far each browser is behind. Gradio has no backpressure: acknowledgements make up for it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

WINDOW = 12  # frames on the way to one browser before the next ones are skipped


@dataclass
class Viewer:
    """One run shown in one browser."""

    run: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    sent: int = 0
    acknowledged: int = 0

    @property
    def behind(self) -> bool:
        """Whether a frame sent now would only arrive late."""
        return self.sent - self.acknowledged >= WINDOW


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
        if not isinstance(receipt, dict):
            return
        run, number = receipt.get("run"), receipt.get("number")
        viewer = self._open.get(run) if isinstance(run, str) else None
        if viewer and isinstance(number, int) and viewer.acknowledged < number <= viewer.sent:
            viewer.acknowledged = number

    def __len__(self) -> int:
        return len(self._open)
