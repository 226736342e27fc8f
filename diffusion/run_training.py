"""Training in a run's folder: a stop or a crash loses little, and a new start goes on."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from filelock import FileLock, Timeout

from diffusion.cartoons import Stopped
from diffusion.data import Images
from diffusion.device import MEMORY_FULL, out_of_memory
from diffusion.model import DiffusionModel
from diffusion.pictures import roughness
from diffusion.run_pictures import pictures_of, run_labels
from diffusion.runs import (
    DISK_FULL,
    LOCK_SECONDS,
    NOT_A_NUMBER,
    TIME_OVER,
    NotANumberError,
    Pulse,
    Run,
    RunError,
)
from diffusion.training import Progress, Trainer

PULSE_SECONDS = 2.0  # between heartbeats, and lines of metrics
FIRST_SECONDS = 5.0  # until the first preview and checkpoint, at most
ROUGHNESS_OF = 256  # pictures of the data


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
        images = pictures_of(run, progress, ends)
        chosen, _ = images.split(config.held_out)
        labels = run_labels(run, images, config)
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
