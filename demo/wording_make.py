"""All wording of the Make screen: attributes as people say them."""

from __future__ import annotations

from collections.abc import Sequence

ANY = "any"
ATTRIBUTES = {
    "skin": "Skin",
    "hair_color": "Hair",
    "glasses": "Glasses",
    "facial_hair": "Beard",
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


def unknown_attribute(name: str, known: Sequence[str]) -> str:
    """The model cannot be asked for this."""
    if not known:
        return "This model draws at random; it takes no wishes."
    return f"There is no attribute {name}; choose among {', '.join(known)}."


def unknown_value(name: str, given: object, count: int) -> str:
    """The attribute has no such value."""
    return f"{attribute(name)} {given!s:.20} cannot be asked for; choose -1 (any) to {count - 1}."


def guidance_refused(given: object, most: float) -> str:
    """Not a strength."""
    return f"Guidance {given!s:.20} cannot be used; choose 0 to {most:g}."
