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

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from diffusion import run_metrics
from diffusion.data import Images
from diffusion.device import out_of_memory
from diffusion.files import read_text, replacing, size_of, write_json, write_text
from diffusion.model import CONFIG, DiffusionModel
from diffusion.previews import Previews
from diffusion.processes import process_exists
from diffusion.run_card import run_card
from diffusion.sources import Source
from diffusion.toons import BUILT_IN
from diffusion.train_config import TrainConfig
from diffusion.training import Trainer

LOCK_SECONDS = 2.0  # that a process may hold the lock only to look whether it is held
STARTING_SECONDS = 600.0  # that a process may take until it holds the lock
HALVINGS = 3  # of the learning rate, before a run is given up
BUSY = {"starting", "preparing", "running"}
# Why a run ended early, for those who have their own words for it.
REASONS = NOT_A_NUMBER, DISK_FULL, TIME_OVER = "not a number", "disk full", "time over"
# By what a run knows its pictures, their labels, and those that it holds out; see Images.
KEYS = ("key", "labels_key", "held_out_mark")


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
        self.previews = Previews(self.folder / "previews")
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

    def note_places(self, data: str, labels_file: str) -> None:
        """Write down where the same pictures, and the same labels, are from now on."""
        _, config, keys = self._read_config()
        self._write_config(data, replace(config, labels_file=labels_file), keys)

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
        return run_metrics.records(self.metrics_path)

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
        """Draw the fixed seeds, see Previews; raise RunError when the run was deleted."""
        self._check_there()
        self.previews.save(model, images, data_roughness)

    def _check_there(self) -> None:
        # Whatever is written would make the folder again.
        if not self.exists:
            raise RunError(f"{self.folder} was deleted while it was being trained")

    def _cut_back(self, step: int, images: int) -> None:
        """Forget what came after a checkpoint: it comes again, or was another attempt."""
        self._cut_metrics(step)
        self.previews.cut(images)

    def _cut_metrics(self, step: int) -> None:
        if self.metrics_path.exists():
            records = run_metrics.parsed(read_text(self.metrics_path).splitlines())
            kept = [record for record in records if record["step"] <= step]
            write_text(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept))


def labels_key(labels: np.ndarray) -> str:
    """Of the labels (N, attributes) of a run's pictures, whatever the order of a file's rows."""
    return hashlib.sha256(str(labels.shape).encode() + labels.astype("<i8").tobytes()).hexdigest()


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
