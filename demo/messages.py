"""What travels to the browser: small dictionaries, each with one image of both panes."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from demo import wording
from demo.backend import Tick
from demo.settings import Comparison
from diffusion import Schedule

CLEAN_BELOW = 0.5  # share of noise under which compression would be seen


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


def frame(run: str, number: int, tick: Tick, noise: float, comparison: Comparison) -> dict:
    """One tick; `noise` is the share of noise in the cleaner pane. The last one says so."""
    message = {
        "type": "frame",
        "run": run,
        "number": number,
        "calls": list(tick.calls),
        "seconds": [round(seconds, 2) for seconds in tick.seconds],
        "image": picture(tick, noise),
        "done": tick.done,
    }
    if tick.done:
        quickest = sorted(range(len(tick.calls)), key=lambda i: tick.seconds[i])
        message["words"] = " ".join(
            wording.result(comparison.recipes[i].sampler.upper(), tick.calls[i], tick.seconds[i])
            for i in quickest
        )
    return message


def problem(text: str) -> dict:
    """One sentence; whatever the page shows stays."""
    return {"type": "problem", "words": text}


def picture(tick: Tick, noise: float) -> str:
    """All panes side by side at native size, as a data URI: PNG at the end, JPEG before."""
    panes = np.concatenate([tile(pictures) for pictures in tick.pictures], axis=1)
    image, buffer = Image.fromarray(panes), io.BytesIO()
    if tick.done:
        image.save(buffer, "PNG", compress_level=1)
        kind = "png"
    else:
        # Without chroma subsampling the panes are coded apart: equal noise stays equal.
        quality, subsampling = (90, 0) if noise < CLEAN_BELOW or not any(tick.calls) else (75, 2)
        image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def tile(pictures: np.ndarray) -> np.ndarray:
    """uint8 (n², H, W, 3) as one square picture (nH, nW, 3), row by row."""
    side = round(len(pictures) ** 0.5)
    _, height, width, channels = pictures.shape
    rows = pictures.reshape(side, side, height, width, channels).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(side * height, side * width, channels))
