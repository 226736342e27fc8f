"""What travels to the browser: small dictionaries, each with the panes that changed."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from demo import wording
from demo.backend import Tick
from demo.settings import Comparison
from diffusion import Schedule

CLEAN_BELOW = 0.25  # share of noise under which compression would be seen
CLEAN_QUALITY, NOISY_QUALITY = 88, 75  # of JPEG


def start(run: str, comparison: Comparison, schedule: Schedule, size: int) -> dict:
    """Opens a run: the levels of both panes, and how much noise each level holds."""
    panes = []
    for recipe in comparison.recipes:
        levels = schedule.levels(recipe.steps, recipe.spacing)
        noise = [round(1 - schedule.alpha_bar[level].item(), 4) for level in levels]
        panes.append({"levels": list(levels), "noise": noise})
    return {
        "type": "start",
        "run": run,
        "seed": str(comparison.seed),  # a seed may be larger than a JavaScript number
        "faces": comparison.faces,
        "size": size,
        "T": schedule.T,
        "panes": panes,
        "how": wording.ddim_how(comparison.recipes[1].eta),
    }


def frame(
    run: str,
    number: int,
    tick: Tick,
    before: Tick | None,
    comparison: Comparison,
    schedule: Schedule,
    quality: int = NOISY_QUALITY,
) -> dict:
    """One tick; the last one also tells the outcome.

    `images` has one data URI per pane, None where nothing changed since the tick `before`, the
    last one that was sent. `quality` is that of noisy JPEGs.
    """
    noise = [
        1 - schedule.alpha_bar[level].item() for level in (still.level for still in tick.stills)
    ]
    changed = [before is None or before.calls[i] < made for i, made in enumerate(tick.calls)]
    message = {
        "type": "frame",
        "run": run,
        "number": number,
        "calls": list(tick.calls),
        "seconds": [round(still.seconds, 2) for still in tick.stills],
        "images": [
            picture(still.x, share, quality) if new else None
            for still, share, new in zip(tick.stills, noise, changed, strict=True)
        ],
        "done": tick.done,
    }
    if tick.done:
        message["words"] = _outcome(tick, comparison)
    return message


def size(frame: dict) -> int:
    """The bytes of a frame, nearly all of them its pictures."""
    return sum(len(image) for image in frame["images"] if image)


def aside(run: str, text: str) -> dict:
    """Something to say while a run waits or goes on."""
    return {"type": "aside", "run": run, "words": text}


def problem(text: str) -> dict:
    """One sentence; whatever the page shows stays."""
    return {"type": "problem", "words": text}


def picture(pictures: np.ndarray, noise: float, quality: int = NOISY_QUALITY) -> str:
    """One pane's faces at native size as a data URI: PNG when clean, JPEG on the way there.

    `noise` is the pane's share of noise: the less there is, the more of the compression shows.
    """
    image, buffer = Image.fromarray(tile(pictures)), io.BytesIO()
    if noise == 0:
        image.save(buffer, "PNG", compress_level=1)
    elif noise < CLEAN_BELOW:
        image.save(buffer, "JPEG", quality=CLEAN_QUALITY, subsampling=0)
    else:
        image.save(buffer, "JPEG", quality=quality, subsampling=2)
    kind = "png" if noise == 0 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def tile(pictures: np.ndarray) -> np.ndarray:
    """uint8 (n², H, W, 3) as one square picture (nH, nW, 3), row by row."""
    side = round(len(pictures) ** 0.5)
    _, height, width, channels = pictures.shape
    rows = pictures.reshape(side, side, height, width, channels).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(side * height, side * width, channels))


def _outcome(tick: Tick, comparison: Comparison) -> str:
    quickest = sorted(range(len(tick.calls)), key=lambda i: tick.stills[i].seconds)
    return " ".join(
        wording.result(comparison.recipes[i].sampler.upper(), tick.calls[i], tick.stills[i].seconds)
        for i in quickest
    )
