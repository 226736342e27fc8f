"""What the engine costs, and what it gives: `python -m benchmarks.engine`.

Everything is measured in turns within one run, and told as the median of the ratios: a noisy
machine disturbs both sides of a ratio alike.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
import typer

from demo import backend, messages
from demo.backend import follow
from demo.recorded import MODEL
from demo.settings import Comparison
from diffusion import DiffusionModel, Noise, sample
from diffusion.device import pick_device
from diffusion.engine import Engine, Showing
from diffusion.film import Film
from diffusion.pictures import to_uint8
from diffusion.recipe import Recipe, draw
from diffusion.residents import Residents
from diffusion.walks import Request

LONG = Recipe("ddpm", 1000)


def main(device: str = "auto", rounds: int = 7) -> None:
    """Print one table: what is measured, the ratio, and the goal."""
    model = DiffusionModel.from_pretrained(MODEL, pick_device(device))
    residents = Residents(model.device)
    residents.keep("m", model)
    engine = Engine(residents, finished=0)  # nothing is remembered: every run is computed
    engine.start("m")
    _drawn(engine, [_request(Recipe("ddim", 2))])
    print(f"{model.device.type}, {torch.get_num_threads()} threads; {engine.capacity}\n")
    ddim, ddpm = Recipe("ddim", 50), Recipe("ddpm", 50)
    for name, goal, ratio in (
        ("plain loop / bare network, DDIM-50, 4 faces", 1.03, _loop(model, ddim, rounds)),
        ("engine / bare network, DDIM-50, 4 faces", 1.03, _overhead(engine, model, ddim, rounds)),
        ("engine / bare network, DDPM-50, 4 faces", 1.03, _overhead(engine, model, ddpm, rounds)),
        ("comparison with a viewer / without", 1.05, _viewer(engine, model, rounds)),
        ("eight DDIM-50 of 4 faces / one batch of 32", 1.1, _eight(engine, model, rounds)),
        ("one-face DDIM-20 among fifteen DDPM-1000 / alone", 4.0, _among(engine, rounds)),
    ):
        print(f"{name:<50} {ratio:6.3f}   goal: at most {goal}")
    print()
    for name, off in _differences(engine, model):
        p99 = np.percentile(off, 99)
        print(f"{name:<50} mean {off.mean():.4f}, p99 {p99:.0f}, max {off.max()} of 255")
    engine.close()


def _overhead(engine: Engine, model: DiffusionModel, recipe: Recipe, rounds: int) -> float:
    return _ratio(lambda: _drawn(engine, [_request(recipe)]), _bare(model, recipe, 4), rounds)


def _loop(model: DiffusionModel, recipe: Recipe, rounds: int) -> float:
    return _ratio(lambda: draw(model, range(4), recipe, batch=4), _bare(model, recipe, 4), rounds)


def _bare(model: DiffusionModel, recipe: Recipe, images: int) -> Callable[[], None]:
    """The network alone, as often as a recipe calls it."""
    x = torch.randn(images, *model.shape, device=model.device)
    plan = recipe.plan(model.schedule)
    times = [torch.full((images,), float(row.t), device=model.device) for row in plan]

    @torch.no_grad()
    def calls() -> None:
        for t in times:
            output = model.network(x, t)
        output[0, 0, 0, 0].item()

    return calls


def _viewer(engine: Engine, model: DiffusionModel, rounds: int) -> float:
    """Both panes of a comparison, every still compressed for the page, against nobody looking."""
    recipes = Recipe("ddpm", 100), Recipe("ddim", 20)
    comparison = Comparison(0, 4, recipes)

    async def watch() -> None:
        with engine.submit([_request(recipe) for recipe in recipes]) as showing:
            before = None
            async for tick in follow(showing.films):
                await asyncio.to_thread(
                    messages.frame, "run", 1, tick, before, comparison, model.schedule
                )
                before = tick

    pace, backend.INTERVAL = backend.INTERVAL, 0.0  # the time of computing, not of watching
    try:
        return _ratio(
            lambda: asyncio.run(watch()),
            lambda: _drawn(engine, [_request(recipe) for recipe in recipes]),
            rounds,
        )
    finally:
        backend.INTERVAL = pace


def _eight(engine: Engine, model: DiffusionModel, rounds: int) -> float:
    recipe = Recipe("ddim", 50)
    return _ratio(
        lambda: _drawn(engine, *([_request(recipe, seed=4 * i)] for i in range(8))),
        lambda: draw(model, range(32), recipe, batch=32),
        rounds,
    )


def _among(engine: Engine, rounds: int) -> float:
    def once() -> float:
        return _seconds(lambda: _drawn(engine, [_request(Recipe("ddim", 20), images=1)]))

    alone = [once() for _ in range(rounds)]
    crowd = [engine.submit([_request(LONG, seed=100 * i)]) for i in range(1, 16)]
    _wait([showing.films[0] for showing in crowd], calls=4)
    among = [once() for _ in range(rounds)]
    for showing in crowd:
        showing.close()
    return statistics.median(among) / statistics.median(alone)


def _differences(engine: Engine, model: DiffusionModel) -> list[tuple[str, np.ndarray]]:
    """Pictures of the engine against those of the plain loop, 64 seeds by DDIM-50."""
    recipe = Recipe("ddim", 50)
    asked = [_request(recipe, seed=4 * i) for i in range(16)]
    plain = np.stack([_plain(model, request) for request in asked]).astype(int)
    alone = [_drawn(engine, [request])[0] for request in asked]
    together = _drawn(engine, *([request] for request in asked))
    rows = [
        ("fp32, alone, against the plain loop", np.abs(np.stack(alone) - plain)),
        ("fp32, among strangers", np.abs(np.stack(together) - plain)),
    ]
    low = replace(model, network=deepcopy(model.network).bfloat16())
    engine.models.keep("low", low)
    asked = [replace(request, model="low") for request in asked]
    plain_low = np.stack([_plain(low, request) for request in asked]).astype(int)
    together = _drawn(engine, *([request] for request in asked))
    return [
        *rows,
        ("bf16, among strangers, against bf16 alone", np.abs(np.stack(together) - plain_low)),
        ("bf16, alone, against fp32", np.abs(plain_low - plain)),
    ]


def _plain(model: DiffusionModel, request: Request) -> np.ndarray:
    noise = Noise(request.seeds, model.shape, model.device)
    plan = request.recipe.plan(model.schedule)
    *_, last = sample(model.denoiser(), plan, noise(model.schedule.T), noise)
    return to_uint8(last.x)


def _request(recipe: Recipe, seed: int = 0, images: int = 4) -> Request:
    return Request("m", tuple(range(seed, seed + images)), recipe)


def _drawn(engine: Engine, *visitors: list[Request]) -> list[np.ndarray]:
    """The pictures of all visitors' requests, asked for at the same moment."""
    showings: list[Showing] = [engine.submit(requests) for requests in visitors]
    films = [film for showing in showings for film in showing.films]
    _wait(films)
    for showing in showings:
        showing.close()
    return [film.at(film.calls).pictures for film in films]


def _wait(films: list[Film], calls: int | None = None) -> None:
    """Until every film has come so far; by default, to its end."""
    changed = threading.Event()
    for film in films:
        film.watch(changed.set)
    while not all(film.reached >= min(calls or film.calls, film.calls) for film in films):
        changed.wait()
        changed.clear()


def _ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> float:
    """The median of ours / theirs, measured in turns."""
    ours(), theirs()
    return statistics.median(_seconds(ours) / _seconds(theirs) for _ in range(rounds))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
