"""Where the pictures are computed: the page sees a stream of ticks and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from demo.settings import Comparison
from diffusion import DiffusionModel, Frame, Noise, Schedule, sample
from diffusion.pictures import to_uint8


@dataclass(frozen=True)
class Tick:
    """Both panes after the same number of network calls; a pane that is done waits."""

    calls: tuple[int, ...]  # made by each pane
    levels: tuple[int, ...]  # that each pane has come to
    seconds: tuple[float, ...]  # since the start, for each pane until it was done
    pictures: tuple[np.ndarray, ...]  # per pane uint8 (faces, H, W, 3): x at its level
    done: bool


class LocalBackend:
    """The model in this process. Visitors take turns call by call."""

    def __init__(self, model: DiffusionModel):
        self.model = model
        self._turn = threading.Lock()

    @property
    def schedule(self) -> Schedule:
        """The model's schedule."""
        return self.model.schedule

    def stream(self, comparison: Comparison) -> Generator[Tick, None, None]:
        """Walk both plans in step, first tick before any call; closing it ends the work."""
        T, shape = self.schedule.T, self.model.shape
        noise = Noise(comparison.seeds, shape, self.model.device)
        x = noise(T)
        plans = [recipe.plan(self.schedule) for recipe in comparison.recipes]
        walks = [
            sample(self.model.denoiser(clip=recipe.clip), plan, x, noise)
            for recipe, plan in zip(comparison.recipes, plans, strict=True)
        ]
        panes = range(len(plans))
        pictures, levels = [to_uint8(x) for _ in panes], [T for _ in panes]
        calls, seconds = [0 for _ in panes], [0.0 for _ in panes]
        start = time.perf_counter()
        while True:
            done = all(calls[i] == len(plans[i]) for i in panes)
            yield Tick(tuple(calls), tuple(levels), tuple(seconds), tuple(pictures), done)
            if done:
                return
            for i in panes:
                if calls[i] < len(plans[i]):
                    frame = self._next(walks[i])
                    pictures[i], levels[i] = to_uint8(frame.x), frame.s
                    calls[i] += 1
                    seconds[i] = time.perf_counter() - start

    def _next(self, walk: Iterator[Frame]) -> Frame:
        with self._turn:
            return next(walk)
