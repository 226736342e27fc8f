"""What the page says: in Compare, and wherever it is.

wording_make.py and wording_train.py have the words of the other tabs.
"""

from __future__ import annotations

import math

from diffusion.recipe import Recipe
from diffusion.scales import scale_of

TITLE = "Cartoon Diffusion"
COMPARE, MAKE, TRAIN = "Compare", "Make", "Train"  # the tabs
LEDE = "Same network, same noise. Two ways back to a picture."
DUPLICATE = "Duplicate this Space"
# The header's HTML takes these by name.
HEADER = {
    "title": TITLE,
    "pill": "A training is going: watch it",
    "broken": "The connection to the server broke. What is here stays; reload to go on drawing.",
    "reload": "Reload",
}

RUN, STOP, NEW_SEED = "Run", "Stop", "New seed"
SEED, FACES, ETA, MORE = "Seed", "Faces", "η", "More"
SAMPLER, SPACING = "sampler", "steps at"
SIDES = {"left": "Left", "right": "Right"}
SAMPLERS = {
    "ddpm": "DDPM",
    "ddpm_large": "DDPM, large variance",
    "ddim": "DDIM",
    "dpmpp_2m": "DPM-Solver++(2M)",
}
SPACINGS = {"uniform": "even levels", "quadratic": "more near the picture"}
TRY = "Try"
LENSES = {"x": "picture so far", "x0": "predicted picture", "eps": "predicted noise"}

# Where a screen waits in vain.
SILENCE = {
    "lost": "The server did not answer; try again.",
    "broken": "The connection to the server broke. Reload the page to go on drawing.",
}

# The stage's HTML takes these by name; words in [brackets] are filled in by its script.
STAGE = {
    "lede": LEDE,
    "recorded": "Recorded · seed [seed]",
    "left": SAMPLERS["ddpm"],
    "right": SAMPLERS["ddim"],
    "calls": " calls",
    "noise": " · [noise] % noise",
    "seconds": "[seconds] s",
    "calls_hint": "How often the network was called",
    "noise_hint": "1 − ᾱ: the noise's weight, squared; the picture's is ᾱ, and both add up to 1.",
    "canvas": "[subject] by [sampler], [lens]: [noise] % noise",
    "face": "face [face]",
    "faces": "[faces] faces",
    "enlarge": "Enlarge face [face] in both panes",
    "reduce": "Show all faces again",
    "blank": "no prediction before the first call",
    "timeline": "Timeline from all noise to picture",
    "position": "call [calls] of [total], [noise] % noise",
    "all_noise": "all noise",
    "picture": "picture",
    "back": "One step back",
    "play": "Play",
    "pause": "Pause",
    "forward": "One step on",
    "speed": "Speed",
    "clock": "What both panes share while they play",
    "clock_calls": "same calls",
    "clock_noise": "same noise",
    "hint": "Press Run, or change something first.",
    "hint_recorded": "Press Run to draw these faces live, or change something first.",
    "progress": "[percent] percent drawn",
    "stopped": "Stopped.",
    "png": "PNG",
    "png_hint": "Save the finished faces, with all settings inside",
    "mp4": "MP4",
    "mp4_hint": "Save both panes as a film",
    "gif": "GIF",
    "gif_hint": "Save both panes as an animation that plays anywhere",
    "link": "Copy link",
    "link_hint": "Copy an address that opens with these settings",
    "saving": "Making the [kind] …",
    "saved": "Saved [name].",
    "copied": "Link copied. It opens with these settings; Run draws the same faces.",
    "not_copied": "Copy this address: [link]",
    **SILENCE,
    "replay": "Replay",
    "drop": "Drop the picture: its settings come back.",
    "too_large": "A picture made here has less than 4 MB; this file is larger.",
}
VIEW = {"show": "Show", "more": MORE, **{f"lens_{name}": words for name, words in LENSES.items()}}
SETUP = {
    "pixels": "Pixels",
    "sharp": "sharp",
    "smooth": "smooth",
    "open": "Open a picture",
    "open_hint": "A PNG saved here brings its settings back; or drop it anywhere on the page",
    "reset": "Back to the defaults",
}
EQUATION = {
    "summary": "The equation of this step",
    "before": "No step yet: press Run, or move along the timeline.",
    "step": "Step [calls] of [total], from level t = [t] to s = [s]",
    "coefficient": "coefficient",
    "size": "size of the term (RMS)",
}
QUALITY = {
    "title": "Distance from real faces (FD) after so many calls of the network. Lower is better.",
    "left": "Left",
    "right": "Right",
    "floor": "real faces",
    "calls": "calls",
    "call": "1 call",
    "count": "[calls] calls",
    "with_eta": "[name] (η [eta])",
    "measured": "[side], [name], [count]: FD [distance].",
    "between": "[side], [name], [count]: FD about [distance].",
    "unmeasured": "[side], [name], [count]: not measured.",
}
FEATURES = {
    "efficientnet-lite0": "EfficientNet-Lite0",
    "inception": "Inception",
    "haar": "Haar wavelets",
}
TERMS = {
    "x": "picture before the step",
    "x0": "predicted picture",
    "eps": "predicted noise",
    "x0_previous": "predicted one step before",
    "z": "fresh noise",
}


def steps_label(sampler: str) -> str:
    """The label of a side's number of steps."""
    return {"ddpm_large": "DDPM", "dpmpp_2m": "DPM-Solver++"}.get(
        sampler, SAMPLERS.get(sampler, "DDPM")
    ) + " steps"


def labels(left: str, right: str) -> dict[str, str]:
    """The labels of both sides' fields of steps and η, with these samplers."""
    left_steps, right_steps = steps_label(left), steps_label(right)
    if left_steps == right_steps:
        left_steps, right_steps = f"{SIDES['left']} steps", f"{SIDES['right']} steps"
    return {
        "left_steps": left_steps,
        "right_steps": right_steps,
        "left_eta": f"{SIDES['left']} {ETA}",
        "right_eta": f"{SIDES['right']} {ETA}" if left == right == "ddim" else ETA,
    }


def how(recipe: Recipe) -> str:
    """What a sampler does with fresh noise, for the line over its pane."""
    if recipe.sampler == "dpmpp_2m":
        return "adds none, looks back once"
    if recipe.sampler == "ddpm":
        much = "more fresh noise" if recipe.variance == "large" else "fresh noise"
        return f"adds {much} each step"
    amount = {0.0: "none", 1.0: "all of it"}.get(recipe.eta, "a part of it")
    return f"adds {amount} (η {recipe.eta:g})"


def name(recipe: Recipe) -> str:
    """A sampler's name, as short as it can be told apart from others."""
    if recipe.sampler == "ddpm":
        return "DDPM (large variance)" if recipe.variance == "large" else "DDPM"
    if recipe.sampler == "ddim":
        return f"DDIM (η {recipe.eta:g})" if recipe.eta else "DDIM"
    return SAMPLERS["dpmpp_2m"]


def curve(sampler: str, eta: float) -> str:
    """The label of a curve of measured quality."""
    if sampler == "ddim":
        return f"DDIM η {eta:g}" if eta else "DDIM"
    return {"ddpm_large": "DDPM, large", "dpmpp_2m": "DPM-Solver++"}.get(sampler, "DDPM")


def floor(distance: float, count: int, extractor: str) -> str:
    """How far as many real faces are, and how all of it was measured."""
    shown = f"{distance:.0f}" if distance >= 10 else f"{distance:.2g}"
    features = f"{FEATURES.get(extractor, extractor)}{scale_of(extractor).told}"
    return f"Real faces: {shown} (N = {count:,}, {features})."


def title(recipe: Recipe) -> str:
    """A pane's heading."""
    return "DDPM" if recipe.sampler == "ddpm" else SAMPLERS[recipe.sampler]


def result(sampler: str, calls: int, seconds: float) -> str:
    """The measured outcome of one pane."""
    return f"{sampler}: {calls} {'call' if calls == 1 else 'calls'}, {seconds:.1f} s."


def waiting(number: int, seconds: float) -> str:
    """Where in the line a visitor stands."""
    return f"Place {number} in line; your turn comes in about {_duration(seconds)}."


def drawing(faces: int, seed: int) -> str:
    """What goes on while pictures are drawn."""
    return f"Drawing {faces} {'face' if faces == 1 else 'faces'} from seed {seed}."


CPU_INSTEAD = "No GPU could be had for this run; this Space's own CPU draws it, more slowly."
GPU_LOST = "The GPU was taken away before the run was done; try it again."


LONG = (1000, 50)  # steps of both panes of the longest example


def examples(seconds: float) -> list[dict]:
    """One click and one sentence each; `fields` are what differs from the defaults.

    `seconds` are those that LONG takes on this machine.
    """
    left, right = map(str, LONG)
    longest = _duration(seconds)
    return [
        {
            "name": "Equal budget: 10 calls each",
            "says": "Ten calls each: DDIM keeps what the noise began, DDPM changes its mind.",
            "fields": {"left_steps": "10", "right_steps": "10"},
        },
        {
            "name": "DDIM in 5",
            "says": "Five calls against a hundred: eyes and mouth agree, colours and hair not yet.",
            "fields": {"left_sampler": "ddim", "left_steps": "100", "right_steps": "5"},
        },
        {
            "name": "η from 0 to 1",
            "says": "Same steps, same noise: only η differs, and with η 1 DDIM is DDPM.",
            "fields": {
                "left_sampler": "ddim",
                "left_steps": "50",
                "left_eta": "0",
                "right_steps": "50",
                "right_eta": "1",
            },
        },
        {
            "name": f"DDPM {left} (about {longest})",
            "says": f"{left} calls, as in the DDPM paper: about {longest} on this machine.",
            "fields": {"left_steps": left, "right_steps": right},
        },
    ]


GONE = "These pictures are no longer here; draw them again."
BACK_TO_OWN = "Back to this page's model"


def kept_late(kind: str) -> str:
    """Why a file cannot be made."""
    return f"These pictures are no longer here; draw them again, then save the {kind}."


NOT_FINISHED = "The run was stopped early; let it finish to save its faces, or save the film."
NOTHING_YET = "Nothing is drawn yet; try again after the first step."
NOT_OURS = "This picture carries no settings; drop a PNG that was saved on this page."
NOT_A_PNG = "This is not a PNG; drop a picture that was saved on this page."
RESTORED = "The picture's settings are back. Replay draws it again, alone, and compares."
REPLAY_GONE = "The picture is no longer here; drop it again to replay it."


def other_weights(weights: str) -> str:
    """A picture of another model."""
    return (
        f"The picture's settings are back, but other weights drew it ({weights!s:.12}): "
        "Replay tells how much differs."
    )


OTHER_SIZE = (
    "Replay: not compared, as the given picture has another size; drop the file as it was saved."
)


def verdict(largest: int, alike: bool) -> str:
    """What a replay found: `largest` is the largest difference, of 255."""
    if largest == 0:
        return "Replay: identical."
    if alike:
        return f"Replay: same picture (max {largest}/255)."
    return f"Replay: different (max {largest}/255)."


def choice_refused(field: str, value: object, choices: tuple[str, ...]) -> str:
    """Why a choice is refused."""
    return (
        f"{field.capitalize()} is {value!s:.40}; choose {', '.join(choices[:-1])} or {choices[-1]}."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(math.ceil(seconds), 1)} s"
    return f"{math.ceil(seconds / 60)} minutes"


def whole_number(name: str, text: object, low: int, high: int) -> str:
    """Why a field is refused, and what to do."""
    return f"{name} is {text!s:.40}; choose a whole number from {low} to {high}."


def eta_refused(name: str, text: object) -> str:
    """Why eta is refused."""
    return f"{name} is {text!s:.40}; choose a number from 0 (DDIM) to 1 (DDPM)."


def faces_refused(text: object, choices: tuple[int, ...]) -> str:
    """Why the number of faces is refused."""
    return f"{text!s:.40} faces; choose {', '.join(map(str, choices[:-1]))} or {choices[-1]}."


def failed(error: Exception) -> str:
    """An error that nobody foresaw."""
    return f"The run ended early ({type(error).__name__}); try it again."


FILMS_BUSY = "Several films are being made; try again in a few seconds."


def not_made(error: Exception) -> str:
    """A file that could not be made, for a reason that nobody foresaw."""
    return f"The file could not be made ({type(error).__name__}); try it again."
