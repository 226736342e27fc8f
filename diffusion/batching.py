"""How many images a machine should compute at once, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.device import out_of_memory
from diffusion.film import KEPT, LENSES
from diffusion.graphs import SIZES  # powers of two, into which OpenVINO cuts batches, too
from diffusion.model import DiffusionModel
from diffusion.slots import Capacity

GOOD_ENOUGH = 0.95  # of the best images per second: a smaller batch moves everybody sooner
PATIENCE = 3.0  # how much longer than alone an image may take in a `quick` batch
EVERYBODY_MOVES = 2.0  # seconds in which every image in flight should come one call further
MEMORY = 2**31  # bytes that the films of all images in flight may fill
WORTH_IT = 1.05  # times the images per second, from twice the batch, to try one more
# Seconds, about, that a tick takes beside the network, and that on a CPU each image in company
# adds: noise, mixing, pictures. Where the network is fast, they decide whom company slows down.
TICK, IMAGE = 0.0006, 0.001
BUDGET = 4.0  # seconds, after which nothing more is tried


def measure(
    model: DiffusionModel, passes: int = 3, given_up: Callable[[], bool] = lambda: False
) -> Capacity:
    """Time batches of growing size, until more images at once bring nothing more.

    A size is compared with its half of a moment ago, and the median of the passes counts: on a
    machine that does other things too, times of different moments cannot be compared. No further
    size is tried once the measurement is `given_up`.
    """
    end = time.perf_counter() + BUDGET

    def over() -> bool:
        return given_up() or time.perf_counter() > end

    alone, gains = [], {size: [] for size in SIZES[1:]}
    try:
        for _ in range(passes):
            _one_pass(model, alone, gains, over)
    except (RuntimeError, MemoryError) as error:
        if not (alone and out_of_memory(error)):
            raise
        # The sizes before are what there is room for.
    seconds = {1: min(alone)}
    for size, tries in gains.items():
        if tries:
            seconds[size] = 2 * seconds[size // 2] / statistics.median_high(tries)
    around = IMAGE if model.device.type == "cpu" else 0.0
    return capacity(seconds, picture_bytes=_bytes(model), around=around)


def _one_pass(
    model: DiffusionModel,
    alone: list[float],
    gains: dict[int, list[float]],
    over: Callable[[], bool],
) -> None:
    """Add the seconds of one image, and of each size its images per second over its half's."""
    before = TICK + _seconds(model, 1)
    alone.append(before)
    for size, tries in gains.items():
        if over():
            break
        now = TICK + _seconds(model, size)
        tries.append(2 * before / now)
        if tries[-1] < WORTH_IT:
            break
        before = now


def capacity(seconds: dict[int, float], picture_bytes: int, around: float = 0.0) -> Capacity:
    """The capacity of a machine that needs seconds[n] for a batch of n images.

    `around` is what each image takes beside the network, in seconds.
    """
    rate = {size: size / seconds[size] for size in seconds}
    full = next(n for n in sorted(rate) if rate[n] >= GOOD_ENOUGH * max(rate.values()))
    waits = {n: seconds[n] + n * around for n in seconds if n <= full}
    patient = [n for n, wait in waits.items() if wait <= PATIENCE * waits[min(waits)]]
    in_flight = min(EVERYBODY_MOVES * rate[full], MEMORY / (KEPT * len(LENSES) * picture_bytes))
    return Capacity(max(patient), full, rate[full], max(int(in_flight), full))


@torch.no_grad()
def _seconds(model: DiffusionModel, images: int) -> float:
    x = torch.zeros(images, *model.shape, device=model.device)
    t = torch.full((images,), model.schedule.T, device=model.device)
    denoise = model.denoiser()
    return min(_timed(denoise, x, t) for _ in range(2))  # the first of a size has to be prepared


def _timed(denoise: Denoiser, x: Tensor, t: Tensor) -> float:
    start = time.perf_counter()
    x0, _ = denoise(x, t)
    x0[0, 0, 0, 0].item()  # waits until the device is done
    return time.perf_counter() - start


def _bytes(model: DiffusionModel) -> int:
    channels, height, width = model.shape
    return channels * height * width
