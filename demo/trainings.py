"""The trainings of all visitors: folders under one root, each run by a process of its own.

Everything is on disk, so the page can be reloaded, restarted or opened on another device and
shows the same; this process only starts trainers, reads their folders and touches `stop`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from demo import wording_train as wording
from demo.uploads import Uploads
from diffusion.cartoons import STYLES
from diffusion.files import read_text, size_of, try_writing, write_json
from diffusion.model import CONFIG
from diffusion.processes import own_session, python
from diffusion.runs import Run
from diffusion.train_config import TrainConfig

ROOT = Path(__file__).parent.parent
MB = 10**6
NICE = 19
HOSTED_MINUTES, MOST_MINUTES = 10.0, 24 * 60.0
MOST_RUNS = 200
# Of all runs together, on the disk; CARTOON_RUNS_MB in the environment is another number.
MOST_BYTES, HOSTED_BYTES = 4000 * MB, 1000 * MB
SHEETS = 16  # a time-lapse of so few is not made shorter when there is no room
PREVIEW_SECONDS = CHECKPOINT_SECONDS = 30.0
DELETED = ".deleted-"  # how the name of a run begins that is being deleted
PAGE, LOG = "page.json", "log.txt"  # in a run's folder, beside what the trainer writes


class Refused(ValueError):
    """What a visitor may not or cannot do, in one sentence."""


@dataclass(frozen=True)
class Rules:
    """What this page allows."""

    most_minutes: float = MOST_MINUTES  # that may be asked for
    most_bytes: int = MOST_BYTES
    forgets: bool = False  # whether the disk is lost when the machine sleeps

    @property
    def latest_minutes(self) -> float:
        """After so many a trainer ends, whatever is left to do.

        What is asked for is turned into images by an estimate, and loading takes time as well.
        """
        return 1.5 * self.most_minutes + 1

    @classmethod
    def here(cls) -> Rules:
        """Those of a Space on a Space, else those of one's own machine.

        Raises ValueError when CARTOON_RUNS_MB is no number.
        """
        if os.environ.get("SPACE_ID"):
            return cls(HOSTED_MINUTES, _bytes(HOSTED_BYTES), forgets=True)
        return cls(most_bytes=_bytes(MOST_BYTES))


class Trainings:
    """All runs under one folder; at most one trains at a time."""

    def __init__(self, root: Path, rules: Rules | None = None, device: str = "auto"):
        """`device` is what they train on, a name of `diffusion.device.DEVICES`.

        Raises OSError where nothing can be written under the root.
        """
        self.root = root
        self.rules = rules or Rules.here()
        self.device = device
        self.uploads = Uploads(root / ".uploads")
        self._lock = threading.Lock()  # around starting and deleting
        root.mkdir(parents=True, exist_ok=True)
        try_writing(root)  # a folder and a key that are there already can be read-only
        self.operator = _operator_key(root / ".operator")
        for path in root.glob(f"{DELETED}*"):  # a page ended while it deleted them
            shutil.rmtree(path, ignore_errors=True)

    def runs(self) -> list[Run]:
        """The newest first."""
        found = [Run(path) for path in self.root.iterdir() if path.name[0] != "."]
        found = [run for run in found if _is_there(run)]
        return sorted(found, key=lambda run: (_mtime(run.config_path), run.folder.name))[::-1]

    def find(self, name: object) -> Run:
        """The run of that name; raises Refused when there is none."""
        # Compared with what is there: the name comes from a browser.
        for run in self.runs():
            if run.folder.name == name:
                return run
        raise Refused(wording.GONE)

    def going(self) -> Run | None:
        """The run that is being trained."""
        return next((run for run in self.runs() if run.alive), None)

    def start(self, title: str, data: str, config: TrainConfig, owner: str) -> Run:
        """Begin a run in a new folder. `data` is a built-in style, or the token of an upload."""
        with self._lock:
            self._refuse_second()
            self._refuse_full()
            self._make_places()
            if (used := self._make_room()) >= self.rules.most_bytes:
                raise Refused(wording.disk_refused(used, self.rules.most_bytes))
            kind = data if data in STYLES else "own"
            name = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            run = Run(self.root / name)
            try:
                run.folder.mkdir(parents=True)
                if kind == "own":
                    title = wording.title(self.uploads.move(data, run.pictures, config.size))
                    data = str(run.pictures.resolve())
                about = {"title": title, "owner": _hash(owner), "created": time.time()}
                write_json(run.folder / PAGE, about)
                run.create(data, config)
                self._spawn(run, self.rules.latest_minutes)
            except BaseException:
                shutil.rmtree(run.folder, ignore_errors=True)
                raise
            return run

    def stop(self, name: object, owner: object, operator: object = None) -> None:
        """Ask the trainer to save and end."""
        run = self._owned(name, owner, operator)
        if run.alive:  # also while it only starts: the trainer finds the file there
            run.stop_path.touch()

    def resume(self, name: object, owner: object, more: int = 0, operator: object = None) -> None:
        """Train on from the last checkpoint, to the end of the budget and `more` images."""
        with self._lock:
            run = self._owned(name, owner, operator)
            self._refuse_second()
            if run.made_room:
                raise Refused(wording.MADE_ROOM)
            # The trainer adds them itself, as soon as it has found that the run can go on.
            self._spawn(run, self.rules.latest_minutes, more)

    def delete(self, name: object, owner: object, operator: object = None) -> None:
        """Remove a run that nobody trains."""
        with self._lock:
            run = self._owned(name, owner, operator)
            if run.alive:
                raise Refused(wording.STILL_RUNNING)
            try:
                self._remove(run)
            except PermissionError:  # on Windows
                raise Refused(wording.IN_USE) from None

    def may(self, run: Run, owner: object, operator: object = None) -> bool:
        """Whether the browser of that name started the run, or a key given is the operator's."""
        return self.is_owner(hashed_owner(run), owner, operator)

    def is_owner(self, hashed: str, owner: object, operator: object = None) -> bool:
        """The same of a run whose `hashed_owner` is known already."""
        if self._is_operator(operator) or self._is_operator(owner):
            return True
        if not isinstance(owner, str) or not owner:
            return False
        return hmac.compare_digest(_hash(owner), hashed)

    def _is_operator(self, key: object) -> bool:
        return isinstance(key, str) and hmac.compare_digest(key.encode(), self.operator.encode())

    def _owned(self, name: object, owner: object, operator: object) -> Run:
        run = self.find(name)
        if not self.may(run, owner, operator):
            raise Refused(wording.NOT_YOURS)
        return run

    def _refuse_second(self) -> None:
        if run := self.going():
            raise Refused(wording.busy(seconds_left(run)))

    def _refuse_full(self) -> None:
        """Raise Refused when runs are too many, or too large, whatever they gave up."""
        runs = self.runs()
        idle = _idle(runs)
        old = self._dispensable(idle)
        if len(runs) - len(old) >= MOST_RUNS:
            raise Refused(wording.RUNS_FULL.format(count=MOST_RUNS))
        spare = sum(run.bytes for run in old)
        spare += sum(run.previews.thinned_bytes(SHEETS) for run in idle if run not in old)
        used = sum(run.bytes for run in runs)
        if used - spare >= self.rules.most_bytes:
            raise Refused(wording.disk_refused(used, self.rules.most_bytes))

    def _make_room(self) -> int:
        """Have old runs give up what they can, while all take too much; returns what they take.

        What is being trained is left alone. All others give up previews, whoever started them and
        the newest last; that one, and those of the command line, keep everything else.
        """
        runs = self.runs()
        used = sum(run.bytes for run in runs)
        for run, give_up in self._sacrifices(runs):
            if (over := used - self.rules.most_bytes) <= 0:
                break
            before = run.bytes
            with contextlib.suppress(OSError):
                give_up(run, over)
            used += run.bytes - before
        return used

    def _sacrifices(self, runs: list[Run]) -> Iterator[tuple[Run, Callable[[Run, int], None]]]:
        """What is given up first comes first; models only where nothing is kept for good."""
        idle = _idle(runs)
        old = self._dispensable(idle)
        yield from ((run, _shorten) for run in idle)
        yield from ((run, _drop_checkpoint) for run in old)
        yield from ((run, lambda run, _: self._remove(run)) for run in old)

    def _dispensable(self, idle: list[Run]) -> list[Run]:
        """Where nothing is kept for good, visitors' runs that go for newer ones; not the newest."""
        return _of_visitors(idle[:-1]) if self.rules.forgets else []

    def _make_places(self) -> None:
        """Delete the oldest runs while there are too many, as above."""
        runs = self.runs()
        for run in self._dispensable(_idle(runs))[: max(len(runs) - MOST_RUNS + 1, 0)]:
            self._remove(run)

    def _remove(self, run: Run) -> None:
        # Out of sight first: nobody sees half a run.
        gone = self.root / f"{DELETED}{secrets.token_hex(4)}"
        run.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _spawn(self, run: Run, most_minutes: float, more: int = 0) -> None:
        run.stop_path.unlink(missing_ok=True)
        options = {
            "--out": run.folder.resolve(),
            "--nice": NICE,
            "--preview-every": PREVIEW_SECONDS,
            "--checkpoint-every": CHECKPOINT_SECONDS,
            "--at-most": most_minutes,
            "--device": self.device,
        }
        if more:
            options["--more"] = more
        words = [word for option in options.items() for word in option]
        with open(run.folder / LOG, "wb") as log:
            process = subprocess.Popen(
                **python("-m", "diffusion", "train", "--resume", *words),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **own_session(),  # it outlives this page
            )
        run.write_status("starting", run.status().get("images", 0), pid=process.pid)
        threading.Thread(target=self._wait_for, args=(process, run), daemon=True).start()

    def _wait_for(self, process: subprocess.Popen, run: Run) -> None:
        """Make room while a trainer saves, and take note of its end.

        When it could not even say why it ended, that is done in its place.
        """
        while (code := _ended(process, CHECKPOINT_SECONDS)) is None:
            with self._lock:
                self._make_room()
        status = run.status() if run.exists else {}
        if code > 0 and status.get("pid") == process.pid and status.get("state") == "starting":
            with contextlib.suppress(OSError):
                said = (run.folder / LOG).read_text("utf-8", "replace").strip().splitlines()
                run.write_status("failed", status.get("images", 0), said[-1] if said else "")


def _is_there(run: Run) -> bool:
    """Whether that is a run; a folder of somebody else, such as lost+found, is none."""
    with contextlib.suppress(OSError):
        return run.exists
    return False


def about(run: Run) -> dict:
    """What the page noted about a run; {} for one that a command started."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(read_text(run.folder / PAGE))
    return {}


def hashed_owner(run: Run) -> str:
    """Who may stop a run, in a form that gives nobody that right; "" for the operator alone."""
    return str(about(run).get("owner", ""))


def seconds_left(run: Run) -> float | None:
    """Until a run is done; None when it is getting ready and does not know yet."""
    records = run.metrics()
    if not records or run.status().get("state") != "running":
        return None
    left, budget = records[-1]["seconds_left"], run.config()[1].steps
    # Nothing left with steps to go: that was said before the budget grew.
    return left if left or records[-1]["step"] >= budget else None


def _idle(runs: list[Run]) -> list[Run]:
    """Those that nobody trains, the oldest first; the list begins with the newest."""
    return [run for run in reversed(runs) if not run.alive]


def _of_visitors(runs: list[Run]) -> list[Run]:
    """Those that were started on the page: whatever else is there, somebody put there to stay."""
    return [run for run in runs if about(run)]


def _shorten(run: Run, over: int) -> None:
    run.previews.thin(size_of(run.previews.folder) - over, SHEETS)


def _drop_checkpoint(run: Run, _: int) -> None:
    if (run.model_folder / CONFIG).is_file():
        run.checkpoint_path.unlink(missing_ok=True)


def _ended(process: subprocess.Popen, seconds: float) -> int | None:
    """The exit status, or None when it has not ended after so many seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _bytes(otherwise: int) -> int:
    given = os.environ.get("CARTOON_RUNS_MB", "").strip()
    if not given:
        return otherwise
    if not given.isdecimal() or not int(given):
        raise ValueError(f"CARTOON_RUNS_MB is {given:.40}; give a whole number of megabytes.")
    return int(given) * MB


def _operator_key(path: Path) -> str:
    """A secret that only who can read this machine's files knows."""
    with contextlib.suppress(OSError):
        if key := read_text(path).strip():
            return key
    key = secrets.token_urlsafe(24)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(key)
    return key


def _hash(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()


def _mtime(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
