"""What the Train tab's script asks the server, and the answers."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from demo import wording_train as wording
from demo.estimate import BeingMeasured, Speeds, images_in, images_needed, milestone
from demo.messages import data_uri
from demo.readings import Readings
from demo.training_settings import (
    OWN,
    SHIPPED,
    Asked,
    read_minutes,
    read_owner,
    read_training,
    read_uploaded,
)
from demo.trainings import NICE, Refused, Trainings, about, hashed_owner, seconds_left
from demo.uploads import ReadingOthersError, UploadError
from diffusion.cartoons import STYLES
from diffusion.film import Film
from diffusion.image_files import DataError
from diffusion.model import CONFIG, WEIGHTS, ModelError
from diffusion.pictures import read_settings, save_animation
from diffusion.previews import still_noise
from diffusion.runs import BUSY, Run, RunError
from diffusion.train_config import TrainConfig

POINTS = 240  # of the loss line
FILM_SIDE, FILM_FPS = 512, 6
# Seconds that a request waits for pictures to be read: proxies cut one that is silent for 60.
PATIENCE = 20.0
FRESH = 0.5  # seconds that an answer to everybody's polling may be old

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Desk:
    """Answers what the tab's script asks; each answer is bounded, and a refusal is a sentence."""

    def __init__(self, runs: Trainings, busy: Callable[[], bool] = lambda: False):
        """`busy` tells whether the machine that trains draws for somebody just now."""
        self.trainings = runs
        self._draws = busy
        self._readings = Readings()  # of pictures: no request has to last as long
        self._speeds = Speeds(NICE, runs.device, self._works)
        self._filming = threading.Lock()
        self._answers: dict[object, tuple[float, Any]] = {}
        self._looking = threading.Lock()  # of all who ask at once, one works an answer out

    def answer(self, function: Callable[[dict], dict], wish: object) -> dict:
        """The function's answer, or {"problem": sentence}."""
        try:
            return function(wish if isinstance(wish, dict) else {})
        except (Refused, UploadError, RunError, DataError, ModelError, ValueError) as refusal:
            return {"problem": str(refusal)}
        except Exception as error:
            log.exception("the Train tab could not answer")
            return {"problem": wording.failed(error)}

    # What everybody sees

    def look(self, wish: dict) -> dict:
        """The runs, the one that is going, and details of the one named in `run`."""
        known = self._fresh("runs", lambda: list(self._summaries()))
        runs = [summary for _, summary in known]
        going = next((run for run in runs if run["live"]), None)
        keys = _keys(wish)
        shown = [
            {**summary, "mine": self.trainings.is_owner(hashed, **keys)}
            for hashed, summary in known
        ]
        used = sum(run["bytes"] for run in runs)
        found = {
            "runs": shown,
            "total": wording.total(len(runs), used, self.trainings.rules.most_bytes),
            "going": going and {key: going[key] for key in ("name", "percent")},
        }
        if going:
            found["busy"] = wording.busy(going["left"])
        names = [run["name"] for run in runs]
        if wish.get("run") in names:
            summary = shown[names.index(wish["run"])]
            key = ("run", summary["name"], summary["mine"])
            found["run"] = {**self._fresh(key, lambda: self._details(summary)), **summary}
        return found

    def _summaries(self) -> Iterator[tuple[str, dict]]:
        """Of every run whose it is, which is told nobody, and what anybody may know."""
        for run in self.trainings.runs():
            # No run at all, one with files of somebody else, or it goes right now.
            with contextlib.suppress(RunError, OSError, ValueError):
                yield hashed_owner(run), self._summary(run)

    def _summary(self, run: Run) -> dict:
        data, config = run.config()
        status, live = run.status(), run.alive
        state = status.get("state", "stopped")
        if state in BUSY and not live:
            state = "dead"
        records = run.metrics()
        images = records[-1]["images"] if records else status.get("images", 0)
        known = STYLES[data].title if data in STYLES else Path(data).stem
        return {
            "name": run.folder.name,
            "title": about(run).get("title") or known,
            "state": state,
            "words": wording.STATES.get(state, state),
            "live": live,
            "size": config.size,
            "images": images,
            "total": config.images,
            "percent": min(round(100 * images / config.images), 100),
            "seconds": records[-1]["seconds"] if records else 0,
            "left": seconds_left(run) if live else None,
            "speed": records[-1]["images_per_second"] if records else None,
            "bytes": run.bytes,
            "preview": max((int(path.stem) for path in run.previews.paths()), default=None),
            "model": (run.model_folder / CONFIG).is_file(),
            "goes_on": not run.made_room,
        }

    def _details(self, summary: dict) -> dict:
        run = self.trainings.find(summary["name"])
        _, config = run.config()
        records = run.metrics()
        return {
            "loss": _line(records),
            "previews": _previews(run, records),
            "problem": _problem(run, config, summary["state"], summary["mine"]),
            "advice": _advice(run, config, summary["live"]),
        }

    def preview(self, wish: dict) -> dict:
        """One sheet of a run, after `images` images."""
        run, images = self.trainings.find(wish.get("run")), wish.get("images")
        for path in run.previews.paths():
            if int(path.stem) == images:
                with contextlib.suppress(FileNotFoundError):  # it has just been thinned out
                    return {"uri": data_uri("image/png", path.read_bytes())}
        raise Refused(wording.GONE)

    # Before a run

    def estimate(self, wish: dict) -> dict:
        """Images per second here, the images that will be seen, and what that number gave."""
        asked = self._asked(wish)
        if going := self.trainings.going():
            return {"words": wording.busy(seconds_left(going)), "busy": True}
        try:
            speed = self._speeds.get(asked.probe)
        except BeingMeasured as told:
            return {"words": str(told), "busy": True}
        images = images_in(asked.minutes, speed)
        found: dict = {"words": wording.estimate(speed, images, asked.minutes)}
        start = SHIPPED if asked.config.start else ""
        if known := milestone(asked.style, asked.config.size, images, asked.network, start):
            same = known.style == asked.style
            found["picture"] = known.picture
            found["caption"] = wording.milestone(known.images, known.title, known.measured, same)
        return found

    def start(self, wish: dict) -> dict:
        """Begin a run."""
        asked = self._asked(wish)
        upload, is_own = wish.get("upload"), asked.style == OWN
        if is_own and not isinstance(upload, str):
            raise Refused(wording.NO_PICTURES)
        owner = read_owner(wish)
        if going := self.trainings.going():
            raise Refused(wording.busy(seconds_left(going)))
        images = images_in(asked.minutes, self._speeds.get(asked.probe, pressed=True))
        config = replace(asked.config, images=max(images, asked.config.batch))
        title, data = ("", upload) if is_own else (STYLES[asked.style].title, asked.style)
        run = self.trainings.start(title, data, config, owner)
        self._forget()
        return {"run": run.folder.name}

    def take(self, wish: dict) -> dict:
        """Pictures that were uploaded: {"owner", "files": [{"path", "name"}, ...]}.

        With `later`, the same can be asked again: at once where there is no `problem`.
        """
        files = wish.get("files")
        files = files if isinstance(files, list) else []
        given = [entry for entry in files if isinstance(entry, dict)]
        said = [entry.get("path") for entry in given]
        names = [str(entry.get("name")) for entry in given]
        owner = wish.get("owner")
        if not owner:  # nobody knows who may ask for it later
            return self._read([read_uploaded(path) for path in said], names)
        reading = self._reading(str(owner), said, names)
        wait([reading], PATIENCE)
        if not reading.done():
            return {"words": wording.READING_YOURS, "later": True}
        return reading.result()

    def _reading(self, owner: str, said: list, names: list[str]) -> Future[dict]:
        """Of the files of a visitor, which goes on when no request waits for it."""
        of = [owner, *map(str, said)]
        going = self._readings.find(of)
        if going and not going.done():
            return going
        try:
            paths = [read_uploaded(path) for path in said]
        except Refused:
            found = self._readings.find(of)
            if found is None or (found.done() and found.result().get("later")):
                raise
            return found  # it took the files away
        return self._readings.begin(of, lambda: self.answer(lambda _: self._read(paths, names), {}))

    def _read(self, paths: list[Path], names: list[str]) -> dict:
        try:
            upload = self.trainings.uploads.take(paths, names)
        except ReadingOthersError as told:
            return {"problem": str(told), "later": True}
        words = wording.taken(upload.pictures, upload.skipped)
        return {"upload": upload.token, "words": words}

    def _asked(self, wish: dict) -> Asked:
        return read_training(wish, self.trainings.rules, self.trainings.device)

    # With a run of one's own

    def stop(self, wish: dict) -> dict:
        """Save and end."""
        self.trainings.stop(wish.get("run"), **_keys(wish))
        return {}

    def resume(self, wish: dict) -> dict:
        """Go on, where the run is finished for `minutes` more."""
        run = self.trainings.find(wish.get("run"))
        _, config = run.config()
        more, records = 0, run.metrics()
        if records and records[-1]["step"] >= config.steps:
            speed = records[-1]["images"] / max(records[-1]["seconds"], 1)
            minutes = read_minutes(wish, self.trainings.rules)
            more = max(round(60 * minutes * speed), config.batch)
        self.trainings.resume(wish.get("run"), more=more, **_keys(wish))
        self._forget()
        return {}

    def remove(self, wish: dict) -> dict:
        """Delete a run."""
        self.trainings.delete(wish.get("run"), **_keys(wish))
        self._forget()
        return {}

    # What anybody may take along

    def film(self, wish: dict) -> dict:
        """The time-lapse as an MP4."""
        run = self.trainings.find(wish.get("run"))
        # Packing takes a core and memory: one film at a time, and nobody waits in a thread.
        if not self._filming.acquire(blocking=False):
            raise Refused(wording.FILMS_BUSY)
        try:
            content = _film(run)
        finally:
            self._filming.release()
        return {"name": f"{run.folder.name}.mp4", "uri": data_uri("video/mp4", content)}

    def model(self, wish: dict) -> dict:
        """The model folder as a .zip."""
        run = self.trainings.find(wish.get("run"))
        if not (run.model_folder / CONFIG).is_file():
            raise Refused(wording.NO_MODEL)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:  # weights do not compress
            for name in (CONFIG, WEIGHTS, "README.md"):
                archive.write(run.model_folder / name, f"{run.folder.name}/{name}")
        return {
            "name": f"{run.folder.name}.zip",
            "uri": data_uri("application/zip", buffer.getvalue()),
        }

    def _fresh(self, key: object, look: Callable[[], Answer]) -> Answer:
        """The same answer for all who ask within half a second."""
        with self._looking:
            now = time.monotonic()
            self._answers = {
                old: answer for old, answer in self._answers.items() if now - answer[0] < FRESH
            }
            if key not in self._answers:
                found = look()
                self._answers[key] = (time.monotonic(), found)
            return self._answers[key][1]

    def _forget(self) -> None:
        """Whoever has changed something sees it at once."""
        with self._looking:
            self._answers.clear()

    def _works(self) -> bool:
        """Whether the machine that trains has something else to do just now."""
        runs = self.trainings
        return self._draws() or runs.uploads.reading or runs.going() is not None


def _film(run: Run) -> bytes:
    sheets = run.previews.paths()
    if not sheets:
        raise Refused(wording.NO_MODEL)
    # Read at once: meanwhile the trainer thins them out.
    chosen = [_content(sheets[i]) for i in Film(calls=len(sheets) - 1).kept_calls]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        save_animation(path, map(_enlarged, filter(None, chosen)), FILM_FPS)
        return path.read_bytes()


def _content(path: Path) -> bytes:
    """Of a file; nothing when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def _enlarged(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as sheet:
        scale = max(FILM_SIDE // sheet.width, 1)
        size = (sheet.width * scale, sheet.height * scale)
        return sheet.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _line(records: list[dict]) -> list[list[float]]:
    """The smoothed loss: [images, loss], at most POINTS of them."""
    smooth, points = None, []
    for record in records:
        smooth = record["loss"] if smooth is None else 0.85 * smooth + 0.15 * record["loss"]
        points.append([record["images"], round(smooth, 5)])
    stride = -(-len(points) // POINTS) or 1
    return points[::-stride][::-1]


def _previews(run: Run, records: list[dict]) -> list[list[float]]:
    """[images, seconds] of every sheet."""
    found, i = [], 0
    for images in (int(path.stem) for path in run.previews.paths()):
        while i < len(records) - 1 and records[i]["images"] < images:
            i += 1
        found.append([images, records[i]["seconds"] if records and images else 0])
    return found


def _problem(run: Run, config: TrainConfig, state: str, mine: bool) -> str:
    if state in ("failed", "stopped"):
        return _reason(run, mine)
    if state != "dead":
        return ""
    if run.made_room:
        return ""  # it says so already
    images = config.images_after(run.saved_step())
    if not images:
        return wording.NOTHING_KEPT
    # Others have no button to continue with.
    return (wording.ENDED if mine else wording.ENDED_FOREIGN).format(images=images)


def _reason(run: Run, mine: bool) -> str:
    """Why a run ended early, and what its owner can do about it."""
    status = run.status()
    if known := wording.REASONS.get(status.get("reason", "")):
        told, next_move = known
        return f"{told} {next_move}" if mine and not run.made_room else told
    said = status.get("message", "").strip()
    return said[:1].upper() + said[1:].rstrip(".") + "." if said else ""


def _advice(run: Run, config: TrainConfig, live: bool) -> str:
    if run.made_room and not live:
        return wording.MADE_ROOM
    if config.halved:
        return wording.went_back(config.halved[-1] * config.batch)
    paths = run.previews.paths()
    latest = read_settings(paths[-1]) or {} if paths else {}
    rough, of_data = latest.get("roughness"), latest.get("data_roughness")
    if not latest.get("images") or rough is None or of_data is None:
        return ""
    if not still_noise(rough, of_data):
        return ""
    style, _ = run.config()
    needed = None if config.start else images_needed(style, config.size)
    return wording.still_noise(latest["images"], needed)


def _keys(wish: Mapping) -> dict[str, object]:
    """By what a browser may do something with a run."""
    return {key: wish.get(key) for key in ("owner", "operator")}
