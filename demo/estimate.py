"""What a training will bring on this machine, told before it starts.

The speed is measured for two seconds in a process of its own, as the training will be one; what
so many images gave comes from runs that `python -m benchmarks.strip` measured.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from demo import wording_train as wording
from diffusion.processes import own_session, python

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).parent / "assets" / "milestones.json"
KNOWN_FOR = 600.0  # seconds that a measured speed holds,
DOUBTED_FOR = 10.0  # and one that was measured while this machine worked for somebody
LONGEST = 120.0  # seconds that measuring may take
# Who may ask for a speed that is not known, one of them served and the others waiting: pages that
# show an estimate, and visitors who have pressed Train.
LOOKING, PRESSED = 2, 4
# Previews, checkpoints, and the start of the process take their share of the minutes.
STARTING, SHARE = 4.0, 0.94


class BeingMeasured(ValueError):
    """Others wait for the machine already."""


@dataclass(frozen=True)
class _Measured:
    speed: float  # images per second
    when: float  # of time.monotonic
    doubtful: bool  # whether it may have been too low


class Speeds:
    """Images per second of each kind of training, measured when first asked for."""

    def __init__(self, nice: int, device: str = "auto", busy: Callable[[], bool] = lambda: False):
        """`busy` tells whether this machine works for somebody: then what is measured gives way."""
        self._common = ("--nice", str(nice), "--device", device)
        self._busy = busy
        self._known: dict[tuple[str, ...], _Measured] = {}
        self._lock = threading.Lock()  # one measurement at a time, or they would share the cores
        # Who waits holds one of the threads that Gradio answers everybody with.
        self._looking = threading.BoundedSemaphore(LOOKING)
        self._pressed = threading.BoundedSemaphore(PRESSED)

    def get(self, options: tuple[str, ...], pressed: bool = False) -> float:
        """Images per second with these options of `python -m diffusion probe`.

        Who has `pressed` Train does not stand back for estimates, and has a doubtful number
        measured again. Raises RuntimeError when it cannot be measured, ValueError when others
        leave no time for it, BeingMeasured when too many wait already.
        """
        if known := self._fresh(options, pressed):
            return known
        places = self._pressed if pressed else self._looking
        if not places.acquire(blocking=False):
            raise BeingMeasured(wording.BEING_MEASURED)
        try:
            with self._lock:
                return self._fresh(options, pressed) or self._anew(options)
        finally:
            places.release()

    def _fresh(self, options: tuple[str, ...], pressed: bool) -> float | None:
        known = self._known.get(options)
        if known is None or (pressed and known.doubtful):
            return None
        holds = DOUBTED_FOR if known.doubtful else KNOWN_FOR
        return known.speed if time.monotonic() - known.when < holds else None

    def _anew(self, options: tuple[str, ...]) -> float:
        busy = self._busy()
        speed = self._measure(options)
        doubtful = busy or self._busy()
        if doubtful and (known := self._known.get(options)):
            speed = max(speed, known.speed)
        self._known[options] = _Measured(speed, time.monotonic(), doubtful)
        return speed

    def _measure(self, options: tuple[str, ...]) -> float:
        try:
            done = subprocess.run(
                **python("-m", "diffusion", "probe", *self._common, *options),
                cwd=ROOT,
                capture_output=True,
                encoding="utf-8",
                timeout=LONGEST,
                check=True,
                **own_session(),  # as the training's process
            )
            return float(json.loads(done.stdout)["images_per_second"])
        except subprocess.TimeoutExpired:
            raise ValueError(wording.TOO_BUSY) from None
        except (subprocess.SubprocessError, ValueError, KeyError) as error:
            said = getattr(error, "stderr", None) or str(error)
            raise RuntimeError(str(said).strip().splitlines()[-1]) from None


def images_in(minutes: float, speed: float) -> int:
    """How many images a run of so many minutes sees."""
    return max(round((60 * minutes - STARTING) * SHARE * speed), 1)


@dataclass(frozen=True)
class Milestone:
    """What a measured run had come to."""

    style: str
    title: str
    size: int
    images: int
    measured: str  # on which machine
    picture: str  # a data URI
    preset: str = "tiny"  # the network; of no account where it came with the start
    start: str = ""  # from nothing; "shipped": from the shipped model


def milestone(
    style: str, size: int, images: int, preset: str = "tiny", start: str = ""
) -> Milestone | None:
    """The last one that so many images reach; of another style where this was not measured.

    None when no run of this size with this network, or from this start, was measured.
    """
    all_known = [
        known
        for known in _milestones()
        if (known.size, known.start) == (size, start) and (start or known.preset == preset)
    ]
    of_style = [known for known in all_known if known.style == style] or all_known
    reached = [known for known in of_style if known.images <= images]
    return max(reached, key=lambda known: known.images, default=None)


@cache
def _file() -> dict:
    if not FILE.is_file():
        return {"milestones": [], "needed": {}}
    return json.loads(FILE.read_text("utf-8"))


@cache
def _milestones() -> list[Milestone]:
    return [Milestone(**known) for known in _file()["milestones"]]


def images_needed(style: str, size: int) -> int | None:
    """About how many images faces of this style and size took to stop being noise, from nothing.

    None where no run was measured.
    """
    return _file()["needed"].get(f"{style}-{size}")
