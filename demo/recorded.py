"""Real runs of the shipped weights, shown before the first Run and before the first Make.

`python -m demo.recorded` makes them. Showing them needs neither the model nor the queue, and Run
and Make compute the same faces live.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from demo import messages, settings
from demo.backend import Begun, LocalBackend
from demo.markup import ASSETS
from demo.reels import Reel
from demo.settings import Comparison
from demo.verdicts import verdicts
from diffusion import DiffusionModel
from diffusion.files import write_text
from diffusion.film import LENSES, Film, Still
from diffusion.reader import AttributeReader, reader_beside

MODEL = Path(__file__).parent.parent / "checkpoints" / "cartoonset-64"
FILE, MADE_FILE = ASSETS / "recorded.json", ASSETS / "recorded_make.json"
RUN, MADE = "recorded", "recorded-make"
# Noise is most of the bytes: fewer and smaller pictures of what is not on show at first.
MOST = {"x": 51, "x0": 26, "eps": 26}  # stills per pane
QUALITY = {
    "x": messages.Quality(clean=56, noisy=28),
    "x0": messages.Quality(clean=44),
    "eps": messages.Quality(noisy=9),
}


def record(model: DiffusionModel) -> dict:
    """A run with the default settings; fewer and smaller stills than a live run has."""
    comparison = settings.read_comparison(model.schedule.T)
    films = asyncio.run(_films(model, comparison))
    return {
        "weights": model.version,
        "start": messages.start(RUN, comparison, model.schedule, model.shape[1]),
        "stills": [
            messages.still_seen(pane, still, [lens], model.schedule, QUALITY[lens])
            for pane, film in enumerate(films)
            for lens in LENSES
            for still in _few(film, MOST[lens])
        ],
        "words": messages.outcome([film.at(film.calls) for film in films], comparison),
    }


def record_made(model: DiffusionModel, reader: AttributeReader | None) -> dict:
    """The faces of Make's default settings, when they are done."""
    order = settings.read_order({}, {})
    (film,) = asyncio.run(_films(model, order))
    final = film.at(film.calls)
    message = {
        "weights": model.version,
        "start": messages.start(MADE, order, model.schedule, model.shape[1]),
        "fields": {name: order.fields()[name] for name in settings.ORDER},
        "image": messages.picture(final.x, noise=0),
    }
    if reader is not None:
        message["verdicts"] = [verdict.to_json() for verdict in verdicts((), final.x, reader)]
    return message


async def _films(model: DiffusionModel, comparison: Comparison) -> tuple[Film, ...]:
    backend = LocalBackend(model)
    async for event in backend.stream(comparison):
        if isinstance(event, Begun):
            films = event.films
    backend.close()
    return films


def _few(film: Film, most: int) -> list[Still]:
    stills = film.stills
    return [*stills[: -1 : -(-len(stills) // most)], stills[-1]]


def load(weights: str) -> dict | None:
    """The recorded run as messages; None when these weights drew none."""
    return _kept(FILE, weights)


@cache
def reel(weights: str) -> Reel | None:
    """The recorded run as films, as far as it was recorded."""
    kept = load(weights)
    if kept is None:
        return None
    panes = kept["start"]["panes"]
    stills: list[dict[int, Still]] = [{} for _ in panes]
    for still in kept["stills"]:
        pane, calls = still["pane"], still["calls"]
        seen = {lens: _faces(uri, kept["start"]) for lens, uri in still["images"].items()}
        new = Still(calls, panes[pane]["levels"][calls], still["seconds"], seen.get("x"))
        stills[pane][calls] = replace(stills[pane].get(calls, new), **seen)
    films = tuple(Film(len(pane["levels"]) - 1) for pane in panes)
    for film, known in zip(films, stills, strict=True):
        for calls in sorted(known):
            film.add(known[calls])
    comparison = settings.read_comparison(kept["start"]["T"])
    return Reel(comparison, films, kept["weights"])


def load_made(weights: str) -> dict | None:
    """The recorded faces of Make; None when these weights drew none."""
    return _kept(MADE_FILE, weights)


@cache
def _kept(file: Path, weights: str) -> dict | None:
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return kept if kept.get("weights") == weights else None


@cache
def made(weights: str) -> Reel | None:
    """The recorded faces of Make as a film that is done."""
    kept = load_made(weights)
    if kept is None:
        return None
    film = Film(len(kept["start"]["panes"][0]["levels"]) - 1)
    film.add(Still(film.calls, 0, 0.0, _faces(kept["image"], kept["start"])))
    return Reel(settings.read_order({}, {}), (film,), kept["weights"])


def _faces(uri: str, start: dict) -> np.ndarray:
    """uint8 (faces, H, W, 3) from a pane's picture; the way back from `messages.tile`."""
    content = base64.b64decode(uri.split(",", 1)[1])
    tiled = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    side, size = round(start["faces"] ** 0.5), start["size"]
    rows = tiled.reshape(side, size, side, size, 3).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, size, size, 3))


if __name__ == "__main__":
    shipped = DiffusionModel.from_pretrained(MODEL)
    runs = {FILE: record(shipped), MADE_FILE: record_made(shipped, reader_beside(MODEL))}
    for file, run in runs.items():
        write_text(file, json.dumps(run))
        print(f"{file}: {file.stat().st_size:,} bytes")
