"""A training run as a folder, so that a page, a command line and a restart see the same run.

config.json             how to train; only the budget grows, and the learning rate is halved;
                        and by what it knows the pictures and labels that it began with
metrics.jsonl           a line every two seconds: step, images, loss, speed, lr, seconds
previews/NNNNNNN.png    16 fixed seeds, after so many images
checkpoint.safetensors  weights, average, optimizer and step in one file
model/                  the averaged weights, ready to sample; model@DECAY/ of more averages
pictures/               what it learns from, decoded, when that was sent to a page
status.json             pid, state, heartbeat, and how it ended
lock                    held by the process that trains here
stop                    touch it, and the run saves itself and ends
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from diffusion.cartoons import Stopped
from diffusion.data import Images, Source, is_decoded, load_images
from diffusion.denoiser import ANY
from diffusion.device import MEMORY_FULL, out_of_memory
from diffusion.files import bytes_of, read_text, replacing, size_of, write_json, write_text
from diffusion.labels import load_labels
from diffusion.model import CONFIG, DiffusionModel
from diffusion.pictures import roughness, save_png, sheet
from diffusion.processes import process_exists
from diffusion.recipe import Recipe, draw
from diffusion.run_card import run_card
from diffusion.toons import BUILT_IN, load_built_in
from diffusion.train_config import TrainConfig
from diffusion.training import Progress, Trainer

LOCK_SECONDS = 2.0  # that a process may hold the lock only to look whether it is held
STARTING_SECONDS = 600.0  # that a process may take until it holds the lock
PULSE_SECONDS = 2.0  # between heartbeats, and lines of metrics
METRICS_KEPT = 256  # runs whose metrics this process remembers
PREVIEW_BYTES = 32 * 2**20  # of all previews; beyond it, every second one goes
FIRST_SECONDS = 5.0  # until the first preview and checkpoint, at most
ROUGHNESS_OF = 256  # pictures of the data
HALVINGS = 3  # of the learning rate, before a run is given up
BUSY = {"starting", "preparing", "running"}
# Why a run ended early, for those who have their own words for it.
REASONS = NOT_A_NUMBER, DISK_FULL, TIME_OVER = "not a number", "disk full", "time over"
# By what a run knows its pictures, their labels, and those that it holds out; see Images.
KEYS = ("key", "labels_key", "held_out_mark")
PREVIEW_SEEDS = range(16)
PREVIEW_STEPS = 20
PREVIEW_GUIDANCE = 2.0  # of the second half of the seeds, which ask for something


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says what to do."""


class NotANumberError(RunError):
    """The loss, or the weights, have become infinite or undefined."""

    def __init__(self, images: int):
        super().__init__(
            f"the loss is not a number after {images:,} images; start again with a smaller --lr"
        )


@dataclass(frozen=True)
class Pulse:
    """What a running training tells about itself now and then; a line of metrics.jsonl."""

    step: int
    images: int  # pictures seen
    loss: float  # mean since the last pulse
    images_per_second: float  # since the last pulse
    lr: float
    seconds: float  # of training, over all sessions of the run
    seconds_left: float


class Run:
    """The folder of one run and the files in it."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.config_path = self.folder / "config.json"
        self.metrics_path = self.folder / "metrics.jsonl"
        self.checkpoint_path = self.folder / "checkpoint.safetensors"
        self.status_path = self.folder / "status.json"
        self.stop_path = self.folder / "stop"
        self.lock_path = self.folder / "lock"
        self.previews = self.folder / "previews"
        self.model_folder = self.folder / "model"
        self.pictures = self.folder / "pictures"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_path.is_file()

    def create(self, data: str, config: TrainConfig) -> None:
        """Write config.json; raise RunError when the folder holds a run already."""
        if self.exists:
            raise RunError(f"{self.folder} holds a run; add --resume, or choose another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_config(data, config, {})

    def extend(self, images: int) -> None:
        """Give a run that nobody else trains so many images more."""
        data, config, keys = self._read_config()
        self._write_config(data, config.extend(images, self.saved_step()), keys)

    def move(self, data: str = "", labels: str = "") -> None:
        """Learn from the same pictures and the same labels at other places.

        `data` is a folder or an archive, `labels` a file; "" is where they were. Raises RunError
        when they are others, or when the run does not know which pictures it had.
        """
        there, config, keys = self._read_config()
        if data and (there in BUILT_IN or not keys["key"]):
            raise RunError(
                f"{self.folder} does not know its pictures at another place; leave --data out"
            )
        if labels and not config.labels_file:
            raise RunError(f"{self.folder} learns no labels of a file; leave --labels out")
        config = replace(config, labels_file=labels or config.labels_file)
        if data:
            images = load_images(data, config.size)
            self.check_pictures(images)
        else:
            images = _pictures(self, progress=True, stopped=lambda: False)
        _labels(self, images, config)
        self._write_config(data or there, config, keys)

    def remember(self, images: Images, labels: np.ndarray | None) -> None:
        """Note by what the run knows what it begins with; from then on it takes nothing else."""
        data, config, known = self._read_config()
        keys = {
            "key": images.key,
            "labels_key": "" if labels is None else labels_key(labels),
            "held_out_mark": images.mark(config.held_out),
        }
        if keys != known:
            self._write_config(data, config, keys)

    def check_whole(self) -> None:
        """Raise RunError when training would begin from nothing and replace the run's model."""
        if self.made_room:
            raise RunError(
                f"{self.folder} has a model and no checkpoint to go on from; put it back, or "
                f"start a new run with --from {self.model_folder} to begin with that model"
            )

    def check_pictures(self, images: Images) -> None:
        """Raise RunError unless they are those that the run began with, as far as it knows."""
        data, _, keys = self._read_config()
        if keys["key"] in ("", images.key):
            return
        if data in BUILT_IN:
            raise RunError(
                "the cartoons of this run were drawn by other versions of the project or of its "
                "packages; go back to those or start a new run"
            )
        raise RunError("the pictures of this run have changed; put them back or start a new run")

    def check_labels(self, labels: np.ndarray | None) -> None:
        """Raise RunError unless they are those that the run began with, as far as it knows."""
        known = self._read_config()[2]["labels_key"]
        if known and (labels is None or labels_key(labels) != known):
            raise RunError("the labels of this run have changed; put them back or start a new run")

    def go_back(self, reason: NotANumberError) -> None:
        """From the checkpoint on, learn at half the rate; raise the reason after many times."""
        data, config, keys = self._read_config()
        if len(config.halved) >= HALVINGS:
            raise reason
        halved = replace(config, halved=(*config.halved, self.saved_step()))
        self._write_config(data, halved, keys)

    def _write_config(self, data: str, config: TrainConfig, keys: Mapping[str, str]) -> None:
        known = {name: key for name, key in keys.items() if key}
        write_json(self.config_path, {"data": data, **known, **config.to_json()})

    def config(self) -> tuple[str, TrainConfig]:
        """The data source and the settings the run was started with."""
        data, config, _ = self._read_config()
        return data, config

    def key(self) -> str:
        """Of the pictures the run began with; "" where that is not known."""
        return self._read_config()[2]["key"]

    def _read_config(self) -> tuple[str, TrainConfig, dict[str, str]]:
        try:
            settings = json.loads(read_text(self.config_path))
            data, keys = settings.pop("data"), {name: settings.pop(name, "") for name in KEYS}
            return data, TrainConfig(**settings), keys
        except FileNotFoundError:
            raise RunError(
                f"there is no run in {self.folder}; start one without --resume"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.config_path} cannot be read ({error}); start a new run"
            ) from None

    def status(self) -> dict:
        """state, pid, heartbeat, images, message and reason; {} when there is none."""
        try:
            return json.loads(read_text(self.status_path))
        except (FileNotFoundError, ValueError):
            return {}

    @property
    def alive(self) -> bool:
        """Whether another process is training here now: it holds the lock, or just starts."""
        status = self.status()
        state, pid = status.get("state"), status.get("pid")
        if state not in BUSY or pid in (None, os.getpid()):
            return False
        silent = time.time() - status.get("heartbeat", 0)
        if state == "starting" and silent < STARTING_SECONDS and process_exists(pid):
            return True
        try:
            return _held(self.lock_path)
        except OSError:  # a disk without locks
            return process_exists(pid)

    @property
    def made_room(self) -> bool:
        """Whether it has a model and nothing to go on from: training would begin from nothing."""
        return (self.model_folder / CONFIG).is_file() and not self.checkpoint_path.exists()

    @property
    def announced(self) -> bool:
        """Whether whoever started this process has told already that it trains here.

        From then on the run can be stopped, although the process has not looked at it yet.
        """
        status = self.status()
        return status.get("state") == "starting" and status.get("pid") == os.getpid()

    @property
    def bytes(self) -> int:
        """What the folder takes on the disk."""
        return size_of(self.folder)

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl; half a line, cut short by a crash, is left out."""
        return _records(self.metrics_path)

    def saved_step(self) -> int:
        """Of the checkpoint; 0 when there is none that can be read."""
        try:
            with safe_open(self.checkpoint_path, framework="pt") as file:
                return int(file.get_tensor("step"))
        except (OSError, KeyError, RuntimeError, SafetensorError):
            return 0

    def save(self, trainer: Trainer, seconds: float, source: Source | None = None) -> None:
        """Write the checkpoint and then the model with its card, each in one piece.

        Raises RunError, and keeps the files that are there, when the weights are not numbers, and
        when the run was deleted.
        """
        self._check_there()
        tensors = {key: value.contiguous() for key, value in trainer.state().items()}
        if not all(value.isfinite().all() for value in tensors.values()):
            raise NotANumberError(trainer.images)
        tensors["seconds"] = torch.tensor(seconds, dtype=torch.float64)
        with replacing(self.checkpoint_path) as temporary:
            temporary.write_bytes(to_bytes(tensors))  # save_file would leave files of its own
        keys = self._read_config()[2]
        about = {
            "seconds": round(seconds),
            "source": source and asdict(source),
            "data_key": keys["key"],
            "held_out_mark": keys["held_out_mark"],
        }
        for decay in trainer.averages:
            model = trainer.model(decay, **about)
            folder = model.save_pretrained(self.folder_of(decay, trainer.config))
            write_text(folder / "README.md", run_card(model, trainer.images, seconds))

    def folder_of(self, ema: float, config: TrainConfig) -> Path:
        """Where the model of one of the run's weight averages is."""
        name = self.model_folder.name
        return self.folder / (name if ema == config.ema else f"{name}@{ema:g}")

    def load(self, trainer: Trainer) -> float:
        """Bring the trainer to the checkpoint, if there is one; returns the seconds trained."""
        if not self.checkpoint_path.exists():
            self._cut_back(0, 0)
            return 0.0
        try:
            with safe_open(self.checkpoint_path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            trainer.load(state)
        except (KeyError, RuntimeError, SafetensorError) as error:
            if out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"{self.checkpoint_path} cannot be used ({reason}); start a new run"
            ) from error
        self._cut_back(trainer.step, trainer.images)
        return state["seconds"].item()

    def write_status(
        self,
        state: str,
        images: int,
        message: str = "",
        pid: int | None = None,
        reason: str = "",
    ) -> None:
        """Say what the process does that trains here, by default this one.

        `message` is a sentence for the command line, and `reason` one of REASONS, or "", for
        programs with words of their own.
        """
        status = {"state": state, "pid": pid or os.getpid(), "heartbeat": time.time()}
        told = {"images": images, "message": message, "reason": reason}
        write_json(self.status_path, {**status, **told})

    def add_metrics(self, pulse: Pulse) -> None:
        """Append one line; raise RunError when the run was deleted."""
        self._check_there()
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(pulse)) + "\n")

    def save_preview(
        self, model: DiffusionModel, images: int, data_roughness: float | None = None
    ) -> None:
        """Draw the fixed seeds with the averaged weights: DDIM, eta 0.

        The PNG also says how rough the pictures are, and those that are learned from. With
        labels, the second half of the pictures asks for a value of every attribute. Raises RunError
        when the run was deleted.
        """
        self._check_there()
        recipe = Recipe("ddim", steps=min(PREVIEW_STEPS, model.schedule.T))
        labels = preview_labels(model) if model.labels else None
        drawn = draw(
            model,
            PREVIEW_SEEDS,
            recipe,
            len(PREVIEW_SEEDS),
            labels=labels,
            guidance=PREVIEW_GUIDANCE,
        )
        picture = sheet(drawn, columns=4)
        self.previews.mkdir(exist_ok=True)
        with replacing(self.previews / f"{images:07d}.png") as temporary:
            about = {
                "images": images,
                "seeds": list(PREVIEW_SEEDS),
                "roughness": roughness(drawn),
                "data_roughness": data_roughness,
            }
            save_png(temporary, picture, about)
        self.thin_previews(PREVIEW_BYTES)

    def preview_paths(self) -> list[Path]:
        """The previews, in the order of the images seen; as text, ten million come before two."""
        # Whoever looks at them with another program may leave a copy there.
        found = [path for path in self.previews.glob("*.png") if path.stem.isdecimal()]
        return sorted(found, key=lambda path: int(path.stem))

    def thin_previews(self, most_bytes: int, few: int = 2) -> None:
        """Delete every second preview until all take at most so many bytes, or are so few.

        The first and the last stay.
        """
        paths = self.preview_paths()
        while len(paths) > few and size_of(self.previews) > most_bytes:
            _delete(set(paths) - set(_every_second(paths)))
            if len(left := self.preview_paths()) == len(paths):
                return
            paths = left

    def thinned_bytes(self, few: int = 2) -> int:
        """What thin_previews could free, were no byte allowed."""
        kept = before = self.preview_paths()
        while len(kept) > few:
            kept = _every_second(kept)
        return bytes_of(set(before) - set(kept))

    def _check_there(self) -> None:
        # Whatever is written would make the folder again.
        if not self.exists:
            raise RunError(f"{self.folder} was deleted while it was being trained")

    def _cut_back(self, step: int, images: int) -> None:
        """Forget what came after a checkpoint: it comes again, or was another attempt."""
        self._cut_metrics(step)
        _delete(path for path in self.preview_paths() if int(path.stem) > images)

    def _cut_metrics(self, step: int) -> None:
        if self.metrics_path.exists():
            records = _parsed(read_text(self.metrics_path).splitlines())
            kept = [record for record in records if record["step"] <= step]
            write_text(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept))


def _every_second(paths: list[Path]) -> list[Path]:
    """The first, every second of the others, and the last."""
    return paths[:-1:2] + paths[-1:]


def _delete(previews: Iterable[Path]) -> None:
    for path in previews:
        with contextlib.suppress(PermissionError):  # on Windows, while somebody looks at it
            path.unlink(missing_ok=True)


def preview_labels(model: DiffusionModel) -> np.ndarray:
    """What the fixed seeds ask for: the first half nothing, the others one value after another."""
    half = len(PREVIEW_SEEDS) // 2
    counts = np.array([len(values) for values in model.labels.values()])
    # Spread over the values of each attribute, so that eleven skins are not only the first eight.
    wishes = (np.arange(half)[:, None] * counts) // half
    wishes = np.where(counts > half, wishes, np.arange(half)[:, None] % counts)
    return np.concatenate([np.full((half, len(counts)), ANY), wishes])


def train_run(
    run: Run,
    device: torch.device | str = "cpu",
    preview_seconds: float = 60.0,
    checkpoint_seconds: float = 60.0,
    stopped: Callable[[], bool] = lambda: False,
    progress: bool = True,
    more: int = 0,
    at_most: float = math.inf,
) -> Iterator[Pulse]:
    """Train the run in its folder from its last checkpoint, yielding a pulse now and then.

    It goes on to the end of the budget, which grows by `more` images as soon as it can go on.
    Ends early, with everything saved, when `stopped()`, when the run's `stop` file appears or after
    `at_most` seconds, also while pictures are being drawn or decoded.
    When the loss is no longer a number, the last checkpoint is taken up at half the learning
    rate. Raises RunError when another process is training here, when that did not help, and when
    the run has a model whose checkpoint is gone.
    """
    lock = FileLock(run.lock_path, timeout=LOCK_SECONDS, thread_local=False)
    try:
        run.config()
        if run.alive:
            raise Timeout(str(run.lock_path))
        lock.acquire()
    except Timeout:
        pid = run.status().get("pid")
        raise RunError(f"{run.folder} is being trained by process {pid}; stop it first") from None
    try:
        run.check_whole()
        if not run.announced:
            run.stop_path.unlink(missing_ok=True)  # a left-over; who stops it from now on means it
        ends = _Ending(run, stopped, at_most)
        while not (
            yield from _train(
                run, device, preview_seconds, checkpoint_seconds, ends, progress, more
            )
        ):
            more = 0  # it has grown already
    finally:
        lock.release()


def _train(
    run: Run,
    device: torch.device | str,
    preview_seconds: float,
    checkpoint_seconds: float,
    ends: _Ending,
    progress: bool,
    more: int,
) -> Generator[Pulse, None, bool]:
    """One attempt; returns whether it came to its end, and did not go back to learn more slowly."""
    _, config = run.config()
    if more:
        config = config.extend(more, run.saved_step())
    torch.set_num_threads(config.threads)
    images_before = run.status().get("images", 0)
    state, message = "failed", "the training process ended unexpectedly; resume the run"
    trainer, reason = None, ""
    try:
        run.write_status("preparing", images_before)
        images = _pictures(run, progress, ends)
        chosen, _ = images.split(config.held_out)
        labels = _labels(run, images, config)
        trainer = Trainer(config, device)
        if config.start and not run.checkpoint_path.exists():
            trainer.begin_with(DiffusionModel.from_pretrained(config.start, device))
        seconds_before = run.load(trainer)
        if not trainer.step:
            run.remember(images, labels)
        if more:  # only now: whoever repeats what failed shall not get it twice
            run.extend(more)
        meter = _Meter(config.batch, seconds_before, trainer.step)
        run.write_status("running", trainer.images)
        rough = roughness(images.pixels[chosen[:ROUGHNESS_OF]])
        if not trainer.step:
            run.save_preview(trainer.model(), 0, rough)
        for done in trainer.run(_resident(images, trainer.device), chosen, labels):
            meter.losses.append(done.loss)
            last = done.step == done.steps or ends()
            if meter.due("pulse", PULSE_SECONDS) or last:
                pulse = meter.pulse(done)
                _check_loss(pulse)
                run.add_metrics(pulse)
                run.write_status("running", done.images)
                yield pulse
            if last:
                break
            if meter.due("checkpoint", meter.soon(checkpoint_seconds)):
                run.save(trainer, meter.seconds, images.source)
            if meter.due("preview", meter.soon(preview_seconds)):
                run.save_preview(trainer.model(), done.images, rough)
        run.save(trainer, meter.seconds, images.source)
        run.save_preview(trainer.model(), trainer.images, rough)
        state, message = "finished" if trainer.step == config.steps else "stopped", ""
        reason = ends.reason
    except Stopped:
        if trainer and trainer.step:
            run.save(trainer, meter.seconds, images.source)
        state, message, reason = "stopped", "", ends.reason
    except NotANumberError as error:
        message, reason = str(error), NOT_A_NUMBER
        run.go_back(error)  # raises it when that has not helped
        state, message, reason = "preparing", "", ""
    except (RunError, ValueError, OSError) as error:
        message, reason = str(error), DISK_FULL if _is_disk_full(error) else ""
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        message = MEMORY_FULL
        raise RunError(message) from error
    finally:
        if run.exists:
            seen = trainer.images if trainer else images_before
            run.write_status(state, seen, message, reason=reason)
    return state != "preparing"


class _Ending:
    """Whether a run is to end before its budget does."""

    def __init__(self, run: Run, stopped: Callable[[], bool], at_most: float):
        self._run, self._stopped, self._latest = run, stopped, time.monotonic() + at_most
        self.reason = ""  # one of REASONS, where it ends without being asked to

    def __call__(self) -> bool:
        if self._stopped() or self._run.stop_path.exists():
            return True
        if time.monotonic() > self._latest:
            self.reason = TIME_OVER
        return bool(self.reason)


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _pictures(run: Run, progress: bool, stopped: Callable[[], bool]) -> Images:
    """What the run learns from; raises Stopped when `stopped()` before it is there."""
    data, config = run.config()
    if data in BUILT_IN:
        images = load_built_in(data, config.size, progress, bool(config.labels), stopped)
        run.check_pictures(images)
        return images
    # The place of its own pictures is stored as it was before the run, or all runs, were moved.
    # os.path: the old place may be one that this user may not look at.
    if not os.path.exists(data) and is_decoded(run.pictures):
        data = str(run.pictures)
    if run.key() and not Path(data).exists():
        raise RunError(f"there is no {data}; say with --data where the run's pictures are now")
    images = load_images(data, config.size, progress, stopped=stopped)
    run.check_pictures(images)
    return images


def still_noise(rough: float, data: float) -> bool:
    """Whether previews are noise, by their roughness and that of the pictures learned from."""
    return rough > 1.5 * data + 1.5  # drawn with sharp edges, pictures are rough themselves


def _labels(run: Run, images: Images, config: TrainConfig) -> np.ndarray | None:
    """What the run learns about its pictures, from the place that the config names."""
    if config.labels_file and not os.path.exists(config.labels_file):
        raise RunError(
            f"there is no {config.labels_file}; say with --labels where the run's labels are now"
        )
    labels = labels_of(images, config)
    run.check_labels(labels)
    return labels


def labels_key(labels: np.ndarray) -> str:
    """Of the labels (N, attributes) of a run's pictures, whatever the order of a file's rows."""
    return hashlib.sha256(str(labels.shape).encode() + labels.astype("<i8").tobytes()).hexdigest()


def labels_of(images: Images, config: TrainConfig) -> np.ndarray | None:
    """The pictures' labels as the config names them; raises DataError when they are not there."""
    if not config.labels:
        return None
    labels = images.labels.only(list(config.labels)) if images.labels else None
    if config.labels_file:
        labels = load_labels(config.labels_file, images.names, list(config.labels))
    if labels is None or dict(labels.names) != dict(config.labels):
        raise RunError("the labels are not those that the run began with; start a new run")
    return labels.values


class _Meter:
    """Seconds trained, recent losses and speed, and what is due again."""

    def __init__(self, batch: int, seconds_before: float, step: int):
        self.losses: list[torch.Tensor] = []
        self._batch = batch
        self._start = time.perf_counter() - seconds_before
        self._began = self._pulsed = (time.perf_counter(), step)
        self._last: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def due(self, what: str, every: float) -> bool:
        now = time.perf_counter()
        if now - self._last.setdefault(what, now) < every:
            return False
        self._last[what] = now
        return True

    def soon(self, every: float) -> float:
        """`every` so many seconds, but more often in the first two minutes: most happens then."""
        return min(every, max(FIRST_SECONDS, self.seconds / 4))

    def pulse(self, done: Progress) -> Pulse:
        speed, overall = self._speed(self._pulsed, done), self._speed(self._began, done)
        loss = torch.stack(self.losses).mean().item()
        self.losses.clear()
        self._pulsed = (time.perf_counter(), done.step)
        left = (done.steps - done.step) * self._batch / overall
        return Pulse(
            done.step,
            done.images,
            loss,
            round(speed, 1),
            done.lr,
            round(self.seconds, 1),
            round(left),
        )

    def _speed(self, since: tuple[float, int], done: Progress) -> float:
        when, step = since
        return (done.step - step) * self._batch / max(time.perf_counter() - when, 1e-9)


def _check_loss(pulse: Pulse) -> None:
    if not math.isfinite(pulse.loss):
        raise NotANumberError(pulse.images)


def _resident(images: Images, device: torch.device):
    """The pictures where the batches are made: on a GPU if they fit, else the memory map.

    Cartoons that are still being drawn stay where they are: the first batches need few of them.
    """
    pixels = images.pixels
    there = isinstance(pixels, np.ndarray) or pixels.complete
    if device.type == "cuda" and there:
        free, _ = torch.cuda.mem_get_info(device)
        if pixels.nbytes < free // 4:
            return torch.from_numpy(np.array(pixels)).to(device)
    return pixels


_ASKING = threading.Lock()


def _held(path: Path) -> bool:
    """Whether somebody holds a lock file, which is found out by trying to hold it."""
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0, thread_local=False)
    with _ASKING:  # two that ask at once would each take the other for a trainer
        try:
            lock.acquire()
        except Timeout:
            return True
        lock.release()
    return False


@dataclass
class _Read:
    """What was read of a file of metrics: so many bytes, and the last line of them."""

    bytes: int = 0
    last: bytes = b""
    records: list[dict] = field(default_factory=list)

    def go_on(self, file: BinaryIO) -> bool:
        """Read the whole lines that came since; False when the file is not the same any more."""
        file.seek(self.bytes - len(self.last))
        content = file.read()
        if not content.startswith(self.last):
            return False
        new = content[len(self.last) : content.rfind(b"\n") + 1]
        if new:
            lines = new.splitlines(keepends=True)
            self.bytes, self.last = self.bytes + len(new), lines[-1]
            self.records += _parsed(lines)
        return True


_READ: dict[Path, _Read] = {}
_READING = threading.Lock()


def _records(path: Path) -> list[dict]:
    """A page asks for all runs every other second: every line is read once."""
    with _READING:
        read = _READ.pop(path, None) or _Read()
        try:
            with open(path, "rb") as file:
                if not read.go_on(file):
                    read = _Read()
                    read.go_on(file)
        except FileNotFoundError:
            return []
        except PermissionError:  # on Windows, while it is being replaced
            pass
        _READ[path] = read
        if len(_READ) > METRICS_KEPT:
            del _READ[next(iter(_READ))]  # the one that was asked for longest ago
        return list(read.records)


def _parsed(lines: Iterable[str | bytes]) -> list[dict]:
    return [record for line in lines if (record := _record(line))]


def _record(line: str | bytes) -> dict | None:
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None
