"""How many images a machine should compute at once, measured."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.film import KEPT, LENSES
from diffusion.model import DiffusionModel
from diffusion.slots import Capacity

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
GOOD_ENOUGH = 0.95  # of the best images per second: a smaller batch moves everybody sooner
PATIENCE = 3.0  # how much longer than alone an image may take in a `quick` batch
EVERYBODY_MOVES = 2.0  # seconds in which every image in flight should come one call further
MEMORY = 2**31  # bytes that the films of all images in flight may fill
WORTH_IT = 1.05  # times more images per second from twice the batch, to go on
TICK = 0.0015  # seconds, about, that a tick takes beside the network: noise, mixing, pictures
BUDGET = 4.0  # seconds, after which no larger batch is tried


def measure(model: DiffusionModel, repeats: int = 2) -> Capacity:
    """Time batches of growing size, until more images at once bring nothing more."""
    begun, seconds = time.perf_counter(), {}
    for size in SIZES:
        try:
            seconds[size] = TICK + _seconds(model, size, repeats)
        except torch.OutOfMemoryError:
            break
        flat = size / seconds[size] < WORTH_IT * _best_of_half(seconds, size)
        if flat or time.perf_counter() - begun > BUDGET:
            break
    return capacity(seconds, picture_bytes=_bytes(model))


def _best_of_half(seconds: dict[int, float], size: int) -> float:
    """Images per second of the best batch of half the size or less."""
    return max((n / seconds[n] for n in seconds if 2 * n <= size), default=0.0)


def capacity(seconds: dict[int, float], picture_bytes: int) -> Capacity:
    """The capacity of a machine that needs seconds[n] for a batch of n images."""
    rate = {size: size / seconds[size] for size in seconds}
    full = next(n for n in sorted(rate) if rate[n] >= GOOD_ENOUGH * max(rate.values()))
    patient = [n for n in seconds if n <= full and seconds[n] <= PATIENCE * seconds[min(seconds)]]
    in_flight = min(EVERYBODY_MOVES * rate[full], MEMORY / (KEPT * len(LENSES) * picture_bytes))
    return Capacity(max(patient), full, rate[full], max(int(in_flight), full))


@torch.no_grad()
def _seconds(model: DiffusionModel, images: int, repeats: int) -> float:
    x = torch.zeros(images, *model.shape, device=model.device)
    t = torch.full((images,), model.schedule.T, device=model.device)
    denoise = model.denoiser()
    timed = [_timed(denoise, x, t) for _ in range(1 + repeats)]
    return min(timed[1:])  # what disturbs a measurement only makes it slower


def _timed(denoise: Denoiser, x: Tensor, t: Tensor) -> float:
    start = time.perf_counter()
    x0, _ = denoise(x, t)
    x0[0, 0, 0, 0].item()  # waits until the device is done
    return time.perf_counter() - start


def _bytes(model: DiffusionModel) -> int:
    channels, height, width = model.shape
    return channels * height * width
