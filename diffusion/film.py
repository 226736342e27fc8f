"""What a sampling shows while it goes on: pictures that any number of viewers read at their pace.

The one who computes adds stills and never waits; a viewer reads the newest one, or the one after
the last that he saw. Nothing is queued, so a viewer who does not read costs nothing.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion.pictures import to_uint8
from diffusion.samplers import Frame, Step, mix

KEPT = 250  # stills of one film
LENSES = ("x", "x0", "eps")  # what a still has pictures of


@dataclass(frozen=True)
class Sizes:
    """Root mean squares, over all images, of what one step mixed."""

    x: float  # before the step, at level t
    x0: float  # predicted at level t
    eps: float  # predicted at level t
    x0_previous: float  # predicted one step earlier; at the first step x0 itself
    z: float  # 0 where the step adds no fresh noise

    def to_json(self) -> dict[str, float]:
        """By name, as numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Still:
    """The pictures of one request after so many calls of the network.

    Pictures are uint8 (images, H, W, C). `x0` and `eps` are what the last call predicted, drawn
    to the same scale as x; before the first call there are none, and no sizes.
    """

    calls: int
    level: int  # that x has come to
    seconds: float  # since the first call began
    x: np.ndarray
    x0: np.ndarray | None = None
    eps: np.ndarray | None = None
    sizes: Sizes | None = None

    def seen(self, lens: str) -> np.ndarray | None:
        """The pictures through one of LENSES."""
        return getattr(self, lens)

    @property
    def nbytes(self) -> int:
        """Memory held by the pictures."""
        pictures = (self.seen(lens) for lens in LENSES)
        return sum(seen.nbytes for seen in pictures if seen is not None)


def first_still(level: int, x: Tensor) -> Still:
    """Before the first call: x_T alone."""
    return Still(0, level, 0.0, to_uint8(x))


def still(calls: int, seconds: float, row: Step, frame: Frame) -> Still:
    """After a call: what the row made of the frame's x_t."""
    x, x0, eps = (to_uint8(getattr(frame, lens)) for lens in LENSES)
    return Still(calls, frame.s, seconds, x, x0, eps, sizes(row, frame))


def sizes(row: Step, frame: Frame) -> Sizes:
    """How large everything is that the row mixed into frame.x."""
    mixed = [frame.x_t, frame.x0, frame.eps, frame.x0_previous]
    if row.D:
        mean = mix(row.A, row.B, row.C, 0.0, frame.x0, frame.eps, frame.x0_previous, None)
        mixed.append(mean.sub_(frame.x).div_(row.D))
    rms = [norm / math.sqrt(frame.x.numel()) for norm in _norms(mixed)]
    return Sizes(*rms) if row.D else Sizes(*rms, z=0.0)


def _norms(parts: list[Tensor]) -> list[float]:
    if parts[0].device.type == "cpu":  # several times as fast as torch's norm of so few numbers
        flat = [part.float().numpy().ravel() for part in parts]
        return [math.sqrt(np.dot(part, part)) for part in flat]
    # One at a time, each would wait for the device.
    return torch.stack([torch.linalg.vector_norm(part) for part in parts]).tolist()


@dataclass(frozen=True)
class Place:
    """Where in the waiting line a request stands."""

    number: int  # 1 is next
    # About how long until it begins: what is before it takes so long to compute, but a shorter
    # request that comes later may go first.
    seconds: float


class Film:
    """The stills of one request in order: evenly chosen ones, always the first and the last."""

    def __init__(self, calls: int):
        self.calls = calls  # in the whole film
        self._stride = 1 if calls < KEPT else math.ceil(calls / (KEPT - 1))
        self._stills: list[Still] = []
        self._nbytes = 0
        self._place: Place | None = None
        self._problem: str | None = None
        self._watchers: set[Callable[[], None]] = set()
        self._lock = threading.Lock()

    @property
    def kept_calls(self) -> list[int]:
        """After which calls there is, or will be, a still."""
        return [calls for calls in range(self.calls + 1) if self.wants(calls)]

    def wants(self, calls: int) -> bool:
        """Whether the still after so many calls is one of those that are kept."""
        return calls % self._stride == 0 or calls == self.calls

    def add(self, newest: Still) -> None:
        """The next still, of a number of calls that the film `wants`."""
        with self._lock:
            self._stills.append(newest)
            self._nbytes += newest.nbytes
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
        """Memory held by the stills."""
        return self._nbytes

    def at(self, calls: int) -> Still:
        """The newest still after at most so many calls; raises LookupError before the first."""
        with self._lock:
            index = bisect.bisect_right(self._stills, calls, key=lambda kept: kept.calls)
            if not index:
                raise LookupError("nothing is computed yet")
            return self._stills[index - 1]

    @property
    def stills(self) -> tuple[Still, ...]:
        """All that there are so far."""
        with self._lock:
            return tuple(self._stills)

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
