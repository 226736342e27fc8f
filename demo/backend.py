"""Where the pictures are computed: the page sees a stream of ticks and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from demo.settings import Comparison
from diffusion import DiffusionModel, Noise, sample
from diffusion.pictures import to_uint8


@dataclass(frozen=True)
class Tick:
    """Both panes after the same number of network calls; a pane that is done waits."""

    calls: tuple[int, ...]  # made by each pane
    seconds: tuple[float, ...]  # since the start, for each pane until it was done
    pictures: tuple[np.ndarray, ...]  # per pane uint8 (faces, H, W, 3): x at its level
    done: bool


class LocalBackend:
    """The model in this process. Visitors take turns call by call."""

    def __init__(self, model: DiffusionModel):
        self.model = model
        self._turn = threading.Lock()

    @property
    def schedule(self):  # noqa: ANN201
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
        pictures, seconds = [to_uint8(x)] * len(plans), [0.0] * len(plans)
        calls = [0] * len(plans)
        start = time.perf_counter()
        yield Tick(tuple(calls), tuple(seconds), tuple(pictures), done=False)
        while any(made < len(plan) for made, plan in zip(calls, plans, strict=True)):
            for i, plan in enumerate(plans):
                if calls[i] < len(plan):
                    pictures[i] = to_uint8(self._next(walks[i]))
                    calls[i] += 1
                    seconds[i] = time.perf_counter() - start
            done = all(made == len(plan) for made, plan in zip(calls, plans, strict=True))
            yield Tick(tuple(calls), tuple(seconds), tuple(pictures), done)

    def _next(self, walk: Iterator) -> torch.Tensor:
        with self._turn:
            return next(walk).x
