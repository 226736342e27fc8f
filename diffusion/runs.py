"""A training run as a folder, so that a page, a command line and a restart see the same run.

config.json             how to train, fixed when the run starts
metrics.jsonl           a line every two seconds: step, images, loss, speed, lr, seconds
previews/NNNNNNN.png    16 fixed seeds, after so many images
checkpoint.safetensors  weights, average, optimizer and step in one file
model/                  the averaged weights, ready to sample; model@DECAY/ of more averages
status.json             pid, state, heartbeat
stop                    touch it, and the run saves itself and ends
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from diffusion.data import Images, load_images
from diffusion.denoiser import ANY
from diffusion.files import process_exists, replacing, write_json
from diffusion.labels import load_labels
from diffusion.model import DiffusionModel
from diffusion.pictures import save_png, sheet
from diffusion.recipe import Recipe, draw
from diffusion.training import Progress, TrainConfig, Trainer

PULSE_SECONDS = 2.0  # between heartbeats, and lines of metrics
SILENT_SECONDS = 120.0  # without a heartbeat, the process is taken for dead
PREVIEW_SEEDS = range(16)
PREVIEW_STEPS = 20
PREVIEW_GUIDANCE = 2.0  # of the second half of the seeds, which ask for something


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says what to do."""


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
        self.previews = self.folder / "previews"
        self.model_folder = self.folder / "model"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_path.is_file()

    def create(self, data: str, config: TrainConfig) -> None:
        """Write config.json; raise RunError when the folder holds a run already."""
        if self.exists:
            raise RunError(f"{self.folder} holds a run; add --resume, or choose another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.config_path, {"data": data, **config.to_json()})

    def config(self) -> tuple[str, TrainConfig]:
        """The data source and the settings the run was started with."""
        try:
            settings = json.loads(self.config_path.read_text())
            return settings.pop("data"), TrainConfig(**settings)
        except FileNotFoundError:
            raise RunError(
                f"there is no run in {self.folder}; start one without --resume"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.config_path} cannot be read ({error}); start a new run"
            ) from None

    def status(self) -> dict:
        """state, pid, heartbeat, images and message; {} when there is none."""
        try:
            return json.loads(self.status_path.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    @property
    def alive(self) -> bool:
        """Whether a process is training here now."""
        status = self.status()
        pid, silent = status.get("pid"), time.time() - status.get("heartbeat", 0)
        if status.get("state") != "running" or silent > SILENT_SECONDS:
            return False  # after a crash, the pid may be another program's by now
        return pid not in (None, os.getpid()) and process_exists(pid)

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl; half a line, cut short by a crash, is left out."""
        with contextlib.suppress(FileNotFoundError):
            lines = self.metrics_path.read_text().splitlines()
            return [record for line in lines if (record := _record(line))]
        return []

    def save(self, trainer: Trainer, seconds: float) -> None:
        """Write the checkpoint and then the model, each in one piece.

        Raises RunError, and keeps the files that are there, when the weights are not numbers.
        """
        tensors = {key: value.contiguous() for key, value in trainer.state().items()}
        if not all(value.isfinite().all() for value in tensors.values()):
            raise _not_a_number(trainer.images)
        tensors["seconds"] = torch.tensor(seconds, dtype=torch.float64)
        with replacing(self.checkpoint_path) as temporary:
            temporary.write_bytes(to_bytes(tensors))  # save_file would leave files of its own
        for decay in trainer.averages:
            model = trainer.model(decay, seconds=round(seconds))
            model.save_pretrained(self.folder_of(decay, trainer.config))

    def folder_of(self, ema: float, config: TrainConfig) -> Path:
        """Where the model of one of the run's weight averages is."""
        name = self.model_folder.name
        return self.folder / (name if ema == config.ema else f"{name}@{ema:g}")

    def load(self, trainer: Trainer) -> float:
        """Bring the trainer to the checkpoint, if there is one; returns the seconds trained."""
        if not self.checkpoint_path.exists():
            self._cut_metrics(0)
            return 0.0
        try:
            with safe_open(self.checkpoint_path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            trainer.load(state)
        except (KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"{self.checkpoint_path} cannot be used ({reason}); start a new run"
            ) from error
        self._cut_metrics(trainer.step)
        return state["seconds"].item()

    def write_status(self, state: str, images: int, message: str = "") -> None:
        """Say that the process is here, and what it does."""
        status = {"state": state, "pid": os.getpid(), "heartbeat": time.time()}
        write_json(self.status_path, {**status, "images": images, "message": message})

    def add_metrics(self, pulse: Pulse) -> None:
        """Append one line."""
        with open(self.metrics_path, "a") as file:
            file.write(json.dumps(asdict(pulse)) + "\n")

    def save_preview(self, model: DiffusionModel, images: int) -> None:
        """Draw the fixed seeds with the averaged weights: DDIM, eta 0.

        With labels, the second half of the pictures asks for a value of every attribute.
        """
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
            save_png(temporary, picture, {"images": images, "seeds": list(PREVIEW_SEEDS)})

    def _cut_metrics(self, step: int) -> None:
        kept = [record for record in self.metrics() if record["step"] <= step]
        if self.metrics_path.exists():
            with replacing(self.metrics_path) as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))


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
) -> Iterator[Pulse]:
    """Train the run in its folder from its last checkpoint, yielding a pulse now and then.

    Ends early, with everything saved, when `stopped()` or when the run's `stop` file appears.
    Raises RunError when another process is training here or the loss is no longer a number.
    """
    if run.alive:
        raise RunError(
            f"{run.folder} is being trained by process {run.status()['pid']}; stop it first"
        )
    data, config = run.config()
    torch.set_num_threads(config.threads)
    images = load_images(data, config.size, progress)
    chosen, _ = images.split(config.held_out)
    labels = labels_of(images, config)
    trainer = Trainer(config, device)
    seconds_before = run.load(trainer)
    run.stop_path.unlink(missing_ok=True)
    meter = _Meter(config.batch, seconds_before, trainer.step)
    state, message = "failed", "the training process ended unexpectedly; resume the run"
    try:
        run.write_status("running", trainer.images)
        if not trainer.step:
            run.save_preview(trainer.model(), 0)
        for done in trainer.run(_resident(images, trainer.device), chosen, labels):
            meter.losses.append(done.loss)
            last = done.step == done.steps or stopped() or run.stop_path.exists()
            if meter.due("pulse", PULSE_SECONDS) or last:
                pulse = meter.pulse(done)
                _check_loss(pulse)
                run.add_metrics(pulse)
                run.write_status("running", done.images)
                yield pulse
            if last:
                break
            if meter.due("checkpoint", checkpoint_seconds):
                run.save(trainer, meter.seconds)
            if meter.due("preview", preview_seconds):
                run.save_preview(trainer.model(), done.images)
        run.save(trainer, meter.seconds)
        run.save_preview(trainer.model(), trainer.images)
        state, message = "finished" if trainer.step == config.steps else "stopped", ""
    except RunError as error:
        message = str(error)
        raise
    finally:
        run.write_status(state, trainer.images, message)


def labels_of(images: Images, config: TrainConfig) -> np.ndarray | None:
    """The pictures' labels as the config names them; raises DataError when they are not there."""
    if not config.labels:
        return None
    labels = images.labels
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
        raise _not_a_number(pulse.images)


def _not_a_number(images: int) -> RunError:
    return RunError(
        f"the loss is not a number after {images:,} images; start again with a smaller --lr"
    )


def _resident(images: Images, device: torch.device):
    """The pictures where the batches are made: on a GPU if they fit, else the memory map."""
    if device.type == "cuda" and images.pixels.nbytes < torch.cuda.mem_get_info()[0] // 4:
        return torch.tensor(images.pixels, device=device)
    return images.pixels


def _record(line: str) -> dict | None:
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None
