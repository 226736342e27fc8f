"""What a training will bring on this machine, told before it starts.

The speed is measured for two seconds in a process of its own, as the training will be one; what
so many images gave comes from runs that `python -m benchmarks.strip` measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from demo import wording_train as wording

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).parent / "assets" / "milestones.json"
KNOWN_FOR = 600.0  # seconds that a measured speed holds
LONGEST = 120.0  # seconds that measuring may take
# Who may ask for a speed that is not known, one of them served and the others waiting: pages that
# show an estimate, and visitors who have pressed Train.
LOOKING, PRESSED = 2, 4
# Previews, checkpoints, and the start of the process take their share of the minutes.
STARTING, SHARE = 4.0, 0.94


class BeingMeasured(ValueError):
    """Others wait for the machine already."""


class Speeds:
    """Images per second of each kind of training, measured when first asked for."""

    def __init__(self, nice: int, device: str = "auto"):
        self._common = ("--nice", str(nice), "--device", device)
        self._known: dict[tuple[str, ...], tuple[float, float]] = {}
        self._lock = threading.Lock()  # one measurement at a time, or they would share the cores
        # Who waits holds one of the threads that Gradio answers everybody with.
        self._looking = threading.BoundedSemaphore(LOOKING)
        self._pressed = threading.BoundedSemaphore(PRESSED)

    def get(self, options: tuple[str, ...], pressed: bool = False) -> float:
        """Images per second with these options of `python -m diffusion probe`.

        Who has `pressed` Train does not stand back for estimates. Raises RuntimeError when it
        cannot be measured, ValueError when others leave no time for it, BeingMeasured when too
        many wait already.
        """
        if known := self._fresh(options):
            return known
        places = self._pressed if pressed else self._looking
        if not places.acquire(blocking=False):
            raise BeingMeasured(wording.BEING_MEASURED)
        try:
            with self._lock:
                return self._fresh(options) or self._anew(options)
        finally:
            places.release()

    def _fresh(self, options: tuple[str, ...]) -> float | None:
        speed, when = self._known.get(options, (None, 0.0))
        return speed if time.monotonic() - when < KNOWN_FOR else None

    def _anew(self, options: tuple[str, ...]) -> float:
        speed = self._measure(options)
        self._known[options] = (speed, time.monotonic())
        return speed

    def _measure(self, options: tuple[str, ...]) -> float:
        command = [sys.executable, "-m", "diffusion", "probe", *self._common, *options]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=True,
                start_new_session=True,  # as the training's process
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
    return json.loads(FILE.read_text()) if FILE.is_file() else {"milestones": [], "needed": {}}


@cache
def _milestones() -> list[Milestone]:
    return [Milestone(**known) for known in _file()["milestones"]]


def images_needed(style: str, size: int) -> int | None:
    """About how many images faces of this style and size took to stop being noise, from nothing.

    None where no run was measured.
    """
    return _file()["needed"].get(f"{style}-{size}")
