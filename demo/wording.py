"""Every word on the page, in one place."""

from __future__ import annotations

import math

TITLE = "Cartoon Diffusion"
LEDE = "Same network, same noise. Two ways back to a picture."
DUPLICATE = "Duplicate this Space"

RUN, STOP, NEW_SEED = "Run", "Stop", "New seed"
SEED, FACES, DDPM_STEPS, DDIM_STEPS, ETA = "Seed", "Faces", "DDPM steps", "DDIM steps", "η"

# The stage's HTML takes these by name; words in [brackets] are filled in by its script.
STAGE = {
    "lede": LEDE,
    "recorded": "Recorded · seed [seed]",
    "ddpm": "DDPM",
    "ddpm_how": "adds fresh noise each step",
    "ddim": "DDIM",
    "calls": " calls",
    "noise": " · [noise] % noise",
    "seconds": "[seconds] s",
    "calls_hint": "How often the network was called",
    "noise_hint": "The part of the picture's variance that is noise: 1 − ᾱ",
    "canvas": "[faces] faces by [sampler]: [noise] % noise",
    "timeline": "Timeline from all noise to picture",
    "position": "call [calls] of [total], [noise] % noise",
    "left": "all noise",
    "right": "picture",
    "back": "One step back",
    "play": "Play",
    "pause": "Pause",
    "forward": "One step on",
    "speed": "Speed",
    "hint": "Press Run to draw these faces live, or change something first.",
    "going": "Drawing [faces] faces from seed [seed].",
    "stopped": "Stopped.",
}


def ddim_how(eta: float) -> str:
    """What DDIM adds at this eta."""
    return "adds none (η 0)" if eta == 0 else f"adds a part of it (η {eta:g})"


def result(sampler: str, calls: int, seconds: float) -> str:
    """The measured outcome of one pane."""
    return f"{sampler}: {calls} {'call' if calls == 1 else 'calls'}, {seconds:.1f} s."


def waiting(number: int, seconds: float) -> str:
    """Where in the line a visitor stands."""
    return f"Place {number} in line; your turn comes within {_duration(seconds)}."


CPU_INSTEAD = "No GPU could be had for this run; this Space's own CPU draws it, more slowly."
GPU_LOST = "The GPU was taken away before the run was done; press Run to try again."


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(math.ceil(seconds), 1)} s"
    return f"{math.ceil(seconds / 60)} minutes"


def whole_number(name: str, text: object, low: int, high: int) -> str:
    """Why a field is refused, and what to do."""
    return f"{name} is {text!s:.40}; choose a whole number from {low} to {high}."


def eta_refused(text: object) -> str:
    """Why eta is refused."""
    return f"η is {text!s:.40}; choose a number from 0 (DDIM) to 1 (DDPM)."


def faces_refused(text: object, choices: tuple[int, ...]) -> str:
    """Why the number of faces is refused."""
    return f"{text!s:.40} faces; choose {', '.join(map(str, choices[:-1]))} or {choices[-1]}."


def failed(error: Exception) -> str:
    """An error that nobody foresaw."""
    return f"The run ended early ({type(error).__name__}); press Run to try again."
