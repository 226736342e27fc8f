"""All wording of the Make screen: attributes as people say them."""

from __future__ import annotations

from collections.abc import Sequence

from demo.wording import SILENCE

LEDE = "Faces made to order."
NO_WISHES = "Faces from noise; this model draws at random and takes no wishes."

# The screen's HTML takes these by name; words in [brackets] are filled in by its script.
SCREEN = {
    "lede": LEDE,
    "recorded": "Recorded · seed [seed]",
    "make": "Make",
    "stop": "Stop",
    "seed_label": "Seed",
    "dice": "New seed",
    "guidance_label": "Guidance w",
    "guidance_hint": "How strictly wishes are followed: 0 ignores them, 1 follows, 2 insists "
    "and costs twice the work a step; much more costs variety",
    "crisp": "Crisp",
    "crisp_hint": "After the last step, edges are drawn sharper and plain areas made plain; "
    "without it the faces stay as the sampler leaves them",
    "clear": "Clear wishes",
    "hint": "Choose what the faces should have, or leave all open, and press Make.",
    "stopped": "Stopped.",
    **SILENCE,
    "saved": "Saved [name].",
    "more": "16 more",
    "face": "Face",
    "asked": "What was asked for",
    "before": "The face before",
    "after": "The next face",
    "seed_words": "seed [seed]",
    "png": "Save PNG",
    "png_hint": "The face four times as large, with all settings inside",
    "how": "How was this made?",
    "how_hint": "Draw this face again in Compare, step by step, by two samplers",
    "close": "Close",
}

MODEL = "Kind"
MODELS = {"cartoonset-64": "CartoonSet", "toons-64": "six styles of cartoons"}
CREDIT = "The shipped models learned from other people's art."
CREDITS = {
    "cartoonset-64": '<a href="https://google.github.io/cartoonset/" target="_blank" '
    'rel="noopener">CartoonSet</a> by Google LLC, '
    '<a href="https://creativecommons.org/licenses/by/4.0/" target="_blank" rel="noopener">'
    "CC BY 4.0</a>.",
    "toons-64": '<a href="https://www.dicebear.com/licenses/" target="_blank" rel="noopener">'
    "DiceBear</a>: Toon Head by Johan Melin, Big Ears (Face Generator) by The Visual Team, "
    "Personas by Draftbit and Dylan by Natalia Spivak, remixed, CC BY 4.0; Pixel Art and Moods "
    "by DiceBear, CC0 1.0.",
}
ANY = "any"
ATTRIBUTES = {
    "skin": "Skin",
    "hair_color": "Hair",
    "glasses": "Glasses",
    "facial_hair": "Beard",
    "style": "Style",
    "long_hair": "Length",
}
VALUES = {
    "hair_color": {
        "black": "black",
        "darkbrown": "dark brown",
        "brown": "brown",
        "auburn": "auburn",
        "orange": "orange",
        "darkblond": "dark blond",
        "gold": "gold",
        "lightblond": "light blond",
        "silver": "silver",
        "bluegrey": "blue-grey",
        "bald": "bald",
    },
    "glasses": {"none": "none", "clear/tinted": "clear or tinted", "dark": "dark"},
    "facial_hair": {"no": "none", "yes": "yes"},
    "long_hair": {"no": "short", "yes": "long"},
    "style": {
        "toon-head": "toon heads",
        "personas": "personas",
        "big-ears": "big ears",
        "pixel-art": "pixel art",
        "moods": "moods",
        "dylan": "Dylan",
    },
}
SEEN = {
    "glasses": {"none": "no glasses", "clear/tinted": "glasses", "dark": "dark glasses"},
    "facial_hair": {"no": "no beard", "yes": "beard"},
    "long_hair": {"no": "short hair", "yes": "long hair"},
}


def attribute(name: str) -> str:
    """A control's label."""
    return ATTRIBUTES.get(name, name.replace("_", " ").capitalize())


def value(name: str, values: Sequence[str], index: int) -> str:
    """What a choice is called; -1 is "any"."""
    if index < 0:
        return ANY
    if name == "skin":
        return f"tone {index + 1} of {len(values)}"
    return VALUES.get(name, {}).get(values[index], values[index])


def seen(name: str, values: Sequence[str], index: int) -> str:
    """A value of a face in a sentence, as "dark brown hair"."""
    told = value(name, values, index)
    if name == "skin":
        return f"skin {told}"
    if name == "hair_color":
        return told if told == "bald" else f"{told} hair"
    return SEEN.get(name, {}).get(values[index], f"{attribute(name).lower()} {told}")


def face(parts: Sequence[str]) -> str:
    """What a picture shows, for those who do not see it."""
    return f"Face: {', '.join(parts)}." if parts else "Face."


def as_asked(right: int, of: int, accuracy: float | None) -> str:
    """How many faces came as asked."""
    read = f", as read by a network that is right {accuracy:.0%} of the time" if accuracy else ""
    return f"{right} of {of} faces came as asked{read}."


def drawn_by(title: str) -> str:
    """Which of the models that ship draws."""
    return f"Drawn by another model: {title}."


def model_refused(name: object, known: Sequence[str]) -> str:
    """Make has no such model."""
    others = ", ".join(name for name in known if name)
    return f"There is no model {name!s:.40}; choose {others or 'none'}, or leave it out."


def asked_for(parts: Sequence[str], guidance: float) -> str:
    """Over the panes of Compare, while they draw what was asked for."""
    if not parts:
        return "Nothing is asked for: every attribute is left open."
    return f"Asked for: {', '.join(parts)}; guidance {guidance:g}."


ASK_NOTHING = "Ask for nothing"
FINISHED = "After the last step both pictures are made crisp, which no sampler does by itself."
UNFINISH = "Leave them as they are"


def asked_refused(text: object, known: Sequence[str]) -> str:
    """The model's attributes are others."""
    if not known:
        return "This model draws at random; it takes no wishes."
    return (
        f"Asked for {text!s:.40}; give one number for each of {', '.join(known)}, "
        "with dots between, and - where anything will do."
    )


def unknown_value(name: str, given: object, count: int) -> str:
    """The attribute has no such value."""
    return (
        f"{attribute(name)} {given!s:.20} cannot be asked for; choose 0 to {count - 1}, "
        "or - for any."
    )


def guidance_refused(given: object, most: float) -> str:
    """Not a strength."""
    return f"Guidance {given!s:.20} cannot be used; choose 0 to {most:g}."
