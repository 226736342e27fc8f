"""Noise drawn before it is asked for, while the network computes: the same numbers, sooner."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from diffusion.cpus import cpus
from diffusion.noise import Noise

MOST = 8  # threads that draw for one GPU


class Drawers(AbstractContextManager):
    """Threads that draw noise. NumPy draws without Python's lock, and never with torch's threads.

    One is enough beside a CPU that computes the network, whose cores it takes time from; a GPU is
    faster than one thread draws. They start with the first drawing.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        beside_a_cpu = torch.device(device).type == "cpu"
        self._count = 1 if beside_a_cpu else min(MOST, cpus())
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="noise")

    def begin(self, noise: Noise, level: int) -> Pending:
        """Begin to draw `noise(level)`."""
        draws = noise.empty()
        count = min(self._count, len(draws))
        parts = [range(i, len(draws), count) for i in range(count)]
        return Pending(
            noise, draws, [self._threads.submit(noise.fill, draws, level, part) for part in parts]
        )

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def __exit__(self, *raised: object) -> None:
        self.close()


class Pending:
    """Noise on its way."""

    def __init__(self, noise: Noise, draws: Tensor, parts: list[Future]):
        self._noise, self._draws, self._parts = noise, draws, parts

    def result(self) -> Tensor:
        """The noise, as soon as it is there."""
        for part in self._parts:
            part.result()
        return self._noise.placed(self._draws)


class Ahead:
    """A Noise that is one level ahead of whoever asks, if they ask for `levels` in order."""

    def __init__(self, noise: Noise, levels: Iterable[int], drawers: Drawers):
        self._noise, self._levels, self._drawers = noise, iter(levels), drawers
        self._now: tuple[int, Tensor] | None = None
        self._next: tuple[int, Pending] | None = None

    def __call__(self, level: int) -> Tensor:
        """noise(level); the same level may be asked for several times in a row."""
        if self._now is None or self._now[0] != level:
            if self._next and self._next[0] == level:
                z = self._next[1].result()
            else:
                z = self._noise(level)
            self._now = level, z
            self._look_ahead(level)
        return self._now[1]

    def _look_ahead(self, level: int) -> None:
        """Levels fall: what is not below was asked for already."""
        coming = next((other for other in self._levels if other < level), None)
        self._next = None if coming is None else (coming, self._drawers.begin(self._noise, coming))
