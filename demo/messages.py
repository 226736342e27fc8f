"""What travels to the browser: small dictionaries, each with the stills that are new."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from demo import wording
from demo.backend import Tick
from demo.equations import equation
from demo.settings import Comparison
from diffusion import Schedule
from diffusion.film import Film, Still
from diffusion.pictures import tiled
from diffusion.recipe import Recipe

CLEAN_BELOW = 0.25  # share of noise under which compression would be seen


@dataclass(frozen=True)
class Quality:
    """Of JPEG, for pictures with little noise and with more."""

    clean: int = 88
    noisy: int = 75


LIVE = Quality()
# Gradio does not hand on a message that equals the one before it.
_numbers = itertools.count()


def start(run: str, comparison: Comparison, schedule: Schedule, size: int) -> dict:
    """Opens a run: what both panes show, their levels, and how much noise each level holds."""
    return {
        "type": "start",
        "run": run,
        "seed": str(comparison.seed),  # a seed may be larger than a JavaScript number
        "faces": comparison.faces,
        "size": size,
        "T": schedule.T,
        "words": wording.drawing(comparison.faces, comparison.seed),
        "panes": [_pane(recipe, schedule) for recipe in comparison.recipes],
    }


def _pane(recipe: Recipe, schedule: Schedule) -> dict:
    levels = schedule.levels(recipe.steps, recipe.spacing)
    return {
        "sampler": recipe.sampler,
        "title": wording.title(recipe),
        "how": wording.how(recipe),
        "levels": list(levels),
        "noise": [round(1 - schedule.alpha_bar[level].item(), 4) for level in levels],
        "kept": Film(recipe.steps).kept_calls,
        "equation": equation(recipe, schedule),
    }


def frame(
    run: str,
    number: int,
    tick: Tick,
    before: Tick | None,
    lens: str,
    words: str,
    schedule: Schedule,
) -> dict:
    """One tick through a lens; `words` tell the outcome when it is the last.

    Stills that were already in the tick `before`, the last one sent, are left out.
    """
    stills = [
        still_seen(pane, still, [lens], schedule)
        for pane, still in enumerate(tick.stills)
        if before is None or before.stills[pane] is not still
    ]
    message = {"type": "frame", "run": run, "number": number, "stills": stills, "done": tick.done}
    return {**message, "words": words} if tick.done else message


def still_seen(
    pane: int, still: Still, lenses: Iterable[str], schedule: Schedule, quality: Quality = LIVE
) -> dict:
    """A still through some lenses."""
    noise = 1 - schedule.alpha_bar[still.level].item()
    return {
        "pane": pane,
        "calls": still.calls,
        "seconds": round(still.seconds, 2),
        "sizes": still.sizes and {k: float(f"{v:.4g}") for k, v in still.sizes.to_json().items()},
        "images": {
            lens: picture(seen, noise if lens == "x" else _noise_in(lens), quality)
            for lens in lenses
            if (seen := still.seen(lens)) is not None
        },
    }


def size(message: dict) -> int:
    """The bytes of a frame, nearly all of them its pictures."""
    return sum(len(image) for still in message["stills"] for image in still["images"].values())


def heard() -> dict:
    """The press has come, though nothing can be told of it yet."""
    return {"type": "heard", "id": next(_numbers)}


def beat(run: str) -> dict:
    """The run goes on, though this browser is too far behind to be sent pictures."""
    return {"type": "beat", "id": next(_numbers), "run": run}


def aside(run: str, text: str) -> dict:
    """Something to say while a run waits or goes on."""
    return {"type": "aside", "id": next(_numbers), "run": run, "words": text}


def problem(text: str) -> dict:
    """One sentence; whatever the page shows stays."""
    return {"type": "problem", "id": next(_numbers), "words": text}


def stopped(run: str) -> dict:
    """The run was stopped by its visitor; the last message of it."""
    return {"type": "stopped", "run": run}


def picture(pictures: np.ndarray, noise: float, quality: Quality = LIVE) -> str:
    """One pane's faces at native size as a data URI: PNG when clean, JPEG on the way there.

    `noise` is the pane's share of noise: the less there is, the more of the compression shows.
    """
    image, buffer = Image.fromarray(tiled(pictures)), io.BytesIO()
    if noise == 0:
        image.save(buffer, "PNG", compress_level=1)
    elif noise < CLEAN_BELOW:
        image.save(buffer, "JPEG", quality=quality.clean, subsampling=0)
    else:
        image.save(buffer, "JPEG", quality=quality.noisy, subsampling=2)
    return data_uri(f"image/{'png' if noise == 0 else 'jpeg'}", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as an address that a browser reads."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def outcome(stills: Iterable[Still], comparison: Comparison) -> str:
    """Calls and seconds of both panes, the quicker one first; measured, never assumed."""
    pairs = zip(comparison.recipes, stills, strict=True)
    return " ".join(
        wording.result(wording.name(recipe), still.calls, still.seconds)
        for recipe, still in sorted(pairs, key=lambda pair: pair[1].seconds)
    )


def _noise_in(lens: str) -> float:
    """How much noise there is in what the network predicts: a clean picture has none to speak of,
    but is not worth a PNG in every frame."""
    return CLEAN_BELOW / 2 if lens == "x0" else 1.0
