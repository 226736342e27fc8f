"""What the engine costs, and what it gives: `python -m benchmarks.engine`.

Everything is measured in turns within one run, and told as the median of the ratios: a noisy
machine disturbs both sides of a ratio alike. On one that does other things too, `--busy` computes
with one thread and counts CPU seconds, also those of noise drawn while the network computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import typer

from benchmarks.clocks import Clock, clock
from demo import backend, messages
from demo.backend import follow
from demo.recorded import MODEL
from diffusion import DiffusionModel, Noise, compiled, sample
from diffusion.backends import accelerated
from diffusion.batching import measure
from diffusion.device import apart, pick_device
from diffusion.engine import Engine
from diffusion.film import Film
from diffusion.pictures import to_uint8
from diffusion.recipe import Recipe, draw
from diffusion.residents import Residents
from diffusion.slots import Capacity
from diffusion.walks import Request


def main(device: str = "auto", backend: str = "auto", rounds: int = 7, busy: bool = False) -> None:
    """Print one table: what is measured, the ratio, and the goal."""
    seconds = clock(busy)
    model = DiffusionModel.from_pretrained(MODEL, pick_device(device))
    model = accelerated(model, backend)
    bench = Bench(model, apart(measure, model), rounds, seconds)
    where = f"{model.device.type}, {compiled.THREADS} threads, {model.backend}"
    print(f"{where}; {bench.capacity}\n")
    ddim, ddpm = Recipe("ddim", 50), Recipe("ddpm", 50)
    for name, goal, work in (
        ("plain loop / bare network, DDIM-50, 4 faces", 1.03, lambda: bench.loop(ddim)),
        ("engine / bare network, DDIM-50, 4 faces", 1.03, lambda: bench.overhead(ddim)),
        ("engine / bare network, DDPM-50, 4 faces", 1.03, lambda: bench.overhead(ddpm)),
        ("comparison with a viewer / without", 1.05, bench.viewer),
        ("eight DDIM-50 of 4 faces / one batch of 32", 1.1, bench.eight),
        ("one-face DDIM-20 among fifteen DDPM-1000 / alone", 4.0, bench.among),
    ):
        print(f"{name:<50} {work():6.3f}   goal: at most {goal}", flush=True)
    print()
    for name, off in bench.differences():
        p99 = np.percentile(off, 99)
        print(f"{name:<50} mean {off.mean():.4f}, p99 {p99:.0f}, max {off.max()} of 255")


@dataclass(frozen=True)
class Bench:
    """One model on one machine; only one thread computes at any time."""

    model: DiffusionModel
    capacity: Capacity
    rounds: int
    clock: Clock

    def loop(self, recipe: Recipe) -> float:
        """`draw` against the network alone."""
        ours = partial(apart, draw, self.model, range(4), recipe, 4)
        return self._ratio(ours, partial(apart, self._bare, recipe))

    def overhead(self, recipe: Recipe) -> float:
        """The engine against the network alone."""
        ours = partial(self._drawn, [_request(recipe)])
        return self._ratio(ours, partial(apart, self._bare, recipe))

    def viewer(self) -> float:
        """Both panes of a comparison, every still compressed for a page, against nobody looking."""
        recipes = Recipe("ddpm", 100), Recipe("ddim", 20)
        requests = [_request(recipe) for recipe in recipes]

        def watching() -> None:
            asyncio.run(self._watched(requests))

        pace, backend.INTERVAL = backend.INTERVAL, 0.0  # the time of computing, not of looking
        try:
            return self._ratio(watching, partial(self._drawn, requests))
        finally:
            backend.INTERVAL = pace

    def eight(self) -> float:
        """Eight visitors at once against their pictures in one batch."""
        recipe = Recipe("ddim", 50)
        visitors = [[_request(recipe, seed=4 * i)] for i in range(8)]
        one_batch = partial(apart, draw, self.model, range(32), recipe, 32)
        return self._ratio(partial(self._drawn, *visitors), one_batch)

    def among(self) -> float:
        """A short request in a crowd of long ones against the same alone."""
        short = [_request(Recipe("ddim", 20), images=1)]
        with self._engine() as engine:
            alone = [self._seconds(partial(_draw, engine, short)) for _ in range(self.rounds)]
            long = Recipe("ddpm", 1000)
            crowd = [engine.submit([_request(long, seed=100 * i)]) for i in range(1, 16)]
            _wait([showing.films[0] for showing in crowd], calls=4)
            among = [self._seconds(partial(_draw, engine, short)) for _ in range(self.rounds)]
        return statistics.median(among) / statistics.median(alone)

    def differences(self) -> list[tuple[str, np.ndarray]]:
        """Pictures of the engine against those of the plain loop: 64 seeds, DDIM-50."""
        visitors = [[_request(Recipe("ddim", 50), seed=4 * i)] for i in range(16)]
        exact, low = (
            replace(self, model=accelerated(self.model, way)) for way in ("float32", "bfloat16")
        )
        plain, plain_low = (
            np.concatenate([apart(_plain, bench.model, asked) for [asked] in visitors]).astype(int)
            for bench in (exact, low)
        )
        alone = np.concatenate([exact._drawn(requests)[0] for requests in visitors])
        together = np.concatenate(exact._drawn(*visitors))
        together_low = np.concatenate(low._drawn(*visitors))
        return [
            ("fp32, alone, against the plain loop", np.abs(alone - plain)),
            ("fp32, among strangers", np.abs(together - plain)),
            ("bf16, among strangers, against bf16 alone", np.abs(together_low - plain_low)),
            ("bf16, alone, against fp32", np.abs(plain_low - plain)),
        ]

    @contextlib.contextmanager
    def _engine(self) -> Iterator[Engine]:
        residents = Residents(self.model.device)
        residents.keep("m", self.model)
        engine = Engine(residents, self.capacity, finished=0)  # every run is computed
        try:
            yield engine
        finally:
            engine.close()

    def _drawn(self, *visitors: list[Request]) -> list[np.ndarray]:
        with self._engine() as engine:
            return _draw(engine, *visitors)

    async def _watched(self, requests: list[Request]) -> None:
        schedule, before = self.model.schedule, None
        with self._engine() as engine, engine.submit(requests) as showing:
            async for tick in follow(showing.films):
                await asyncio.to_thread(messages.frame, "", 1, tick, before, "x", "", schedule)
                before = tick

    @torch.no_grad()
    def _bare(self, recipe: Recipe) -> None:
        """The network alone on four images, as often as the recipe calls it."""
        x = torch.zeros(4, *self.model.shape, device=self.model.device)
        for row in recipe.plan(self.model.schedule):
            t = torch.full((4,), float(row.t), device=x.device)
            output = self.model.compute(x, t)
        output[0, 0, 0, 0].item()

    def _seconds(self, work: Callable[[], object]) -> float:
        start = self.clock()
        work()
        return self.clock() - start

    def _ratio(self, ours: Callable[[], object], theirs: Callable[[], object]) -> float:
        """The median of ours / theirs, measured in turns."""
        ours(), theirs()
        return statistics.median(
            self._seconds(ours) / self._seconds(theirs) for _ in range(self.rounds)
        )


def _draw(engine: Engine, *visitors: list[Request]) -> list[np.ndarray]:
    """The pictures of all visitors' requests, asked for at the same moment."""
    showings = [engine.submit(requests) for requests in visitors]
    films = [film for showing in showings for film in showing.films]
    _wait(films)
    for showing in showings:
        showing.close()
    return [film.at(film.calls).x for film in films]


def _wait(films: list[Film], calls: int | None = None) -> None:
    """Until every film has come so far; by default, to its end."""
    came = threading.Event()

    def there() -> bool:
        return all(film.reached >= min(calls or film.calls, film.calls) for film in films)

    for film in films:
        film.watch(lambda: there() and came.set())  # waking for every still would cost time
    if not there():
        came.wait()


def _plain(model: DiffusionModel, request: Request) -> np.ndarray:
    noise = Noise(request.seeds, model.shape, model.device)
    plan = request.recipe.plan(model.schedule)
    *_, last = sample(model.denoiser(), plan, noise(model.schedule.T), noise)
    return to_uint8(last.x)


def _request(recipe: Recipe, seed: int = 0, images: int = 4) -> Request:
    return Request("m", tuple(range(seed, seed + images)), recipe)


if __name__ == "__main__":
    typer.run(main)
