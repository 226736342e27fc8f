"""What an image costs, as a picture: `python -m benchmarks.scaling` draws docs/scaling.png.

Three curves: against the images of one batch, against the steps S, and against the visitors who
press Run at the same moment (the engine, four faces of DDIM-20 each, all seeds different). On a
machine that does other things too, `--busy` computes with one thread and counts CPU seconds.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from pathlib import Path

import typer

from benchmarks.clocks import Clock, clock
from demo.recorded import MODEL
from diffusion import DiffusionModel, compiled
from diffusion.backends import accelerated
from diffusion.batching import measure
from diffusion.device import apart, pick_device
from diffusion.engine import Engine
from diffusion.film import Film
from diffusion.recipe import Recipe, draw
from diffusion.residents import Residents
from diffusion.walks import Request

BATCHES = (1, 2, 4, 8, 16, 32, 64)
STEPS = (5, 10, 20, 50, 100, 200)
VISITORS = (1, 2, 4, 8, 16, 30)
FACES = 4  # of a visitor, and of a run of some steps
SHORT = 5  # steps of a run of some images: all cost the same


def main(
    out: Path = Path("docs/scaling.png"), device: str = "auto", rounds: int = 3, busy: bool = False
) -> None:
    """Measure, print and draw."""
    now = clock(busy)
    model = accelerated(DiffusionModel.from_pretrained(MODEL, pick_device(device)))
    curves = {
        "images in one batch": ("ms per image and step", apart(_batches, model, rounds, now)),
        f"steps S, batch of {FACES}": ("ms per image", apart(_steps, model, rounds, now)),
        "visitors at once, DDIM-20, 4 faces": ("ms per image", _visitors(model, rounds, now)),
    }
    for name, (unit, costs) in curves.items():
        print(f"{name} ({unit}):", ", ".join(f"{n}: {cost:.1f}" for n, cost in costs.items()))
    threads = f"{compiled.THREADS} thread" + "s" * (compiled.THREADS > 1)
    where = threads if model.device.type == "cpu" else model.device.type
    _plot(curves, f"{where}, {model.backend}", out)


def _batches(model: DiffusionModel, rounds: int, now: Clock) -> dict[int, float]:
    def once(images: int) -> float:
        recipe = Recipe("ddim", SHORT)
        return _seconds(lambda: draw(model, range(images), recipe, images), now) / images / SHORT

    return _medians(once, BATCHES, rounds)


def _steps(model: DiffusionModel, rounds: int, now: Clock) -> dict[int, float]:
    def once(steps: int) -> float:
        return (
            _seconds(lambda: draw(model, range(FACES), Recipe("ddim", steps), FACES), now) / FACES
        )

    return _medians(once, STEPS, rounds)


def _visitors(model: DiffusionModel, rounds: int, now: Clock) -> dict[int, float]:
    models = Residents(model.device)
    models.keep("m", model)
    engine = Engine(models, apart(measure, model), finished=0)  # every run is computed

    def once(visitors: int) -> float:
        return _seconds(lambda: _everybody(engine, visitors), now) / visitors / FACES

    try:
        return _medians(once, VISITORS, rounds)
    finally:
        engine.close()


def _everybody(engine: Engine, visitors: int) -> None:
    recipe = Recipe("ddim", 20)
    seeds = [tuple(range(FACES * i, FACES * i + FACES)) for i in range(visitors)]
    showings = [engine.submit([Request("m", asked, recipe)]) for asked in seeds]
    for showing in showings:
        _wait(showing.films[0])
        showing.close()


def _wait(film: Film) -> None:
    came = threading.Event()
    film.watch(lambda: film.done and came.set())
    if not film.done:
        came.wait()


def _medians(once: Callable[[int], float], sizes: tuple[int, ...], rounds: int) -> dict[int, float]:
    """Milliseconds for each size, measured in turns after a first time that does not count."""
    tries = [[once(size) for size in sizes] for _ in range(1 + rounds)][1:]
    return {
        size: 1e3 * statistics.median(column)
        for size, column in zip(sizes, zip(*tries, strict=True), strict=True)
    }


def _seconds(work: Callable[[], object], now: Clock) -> float:
    start = now()
    work()
    return now() - start


def _plot(curves: dict, machine: str, out: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, places = plt.subplots(1, len(curves), figsize=(11, 3.4), constrained_layout=True)
    for place, (name, (unit, costs)) in zip(places, curves.items(), strict=True):
        place.plot(list(costs), list(costs.values()), marker="o", color="#0F766E", clip_on=False)
        ticks = list(costs)
        if name.startswith("steps"):  # whose cost is a straight line
            ticks = [steps for steps in ticks if 10 * steps >= ticks[-1]]  # there is room for these
        else:
            place.set_xscale("log", base=2)
        place.set_xticks(ticks, map(str, ticks))
        place.set_ylim(bottom=0)
        place.set_xlabel(name)
        place.set_ylabel(unit)
        place.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"What an image costs ({machine})", fontsize=11)
    figure.savefig(out, dpi=130)
    print(f"drawn in {out}")


if __name__ == "__main__":
    typer.run(main)
