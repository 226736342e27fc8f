"""What a visitor asks for: read from the form, the raw API, an address or a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from demo import wording
from demo.wishes import GUIDANCE, Labels, asked_text, read_asked, read_guidance
from diffusion.noise import MAX_SEED
from diffusion.recipe import SPACINGS, Recipe

FACES = (1, 4, 16)
SIDES = ("left", "right")
FINISHES = {"nothing": "none", "crisp": "crisp"}  # the first when the field is empty
# What a side can choose, and the settings of a recipe that it stands for.
SAMPLERS = {
    "ddpm": {"sampler": "ddpm"},
    "ddpm_large": {"sampler": "ddpm", "variance": "large"},
    "ddim": {"sampler": "ddim"},
    "dpmpp_2m": {"sampler": "dpmpp_2m"},
}
# Every field of the form, in the order in which the page and its API take them.
DEFAULTS: dict[str, str | int] = {
    "seed": "7",
    "faces": 4,
    "left_steps": "100",
    "right_steps": "20",
    "right_eta": "0",
    "left_sampler": "ddpm",
    "left_eta": "0",
    "left_spacing": "uniform",
    "right_sampler": "ddim",
    "right_spacing": "uniform",
    "model": "",
    "asked": "",
    "guidance": GUIDANCE,
    "finish": "",
}
# Of Make: whoever orders a face wants to keep it, so it is made crisp.
ORDER = {name: DEFAULTS[name] for name in ("seed", "asked", "guidance", "model")}
ORDER |= {"finish": "crisp"}
MADE = 16  # faces of one press of Make
RECIPE = Recipe("ddim", 20, finish="crisp")


@dataclass(frozen=True)
class Comparison:
    """One press of Run: one recipe for each pane, on the same seeds."""

    seed: int
    faces: int
    recipes: tuple[Recipe, ...]
    model: str = ""  # the name of a training; none: the shipped model
    asked: tuple[int, ...] = ()  # an index per attribute of the model, -1 for any; (): nothing
    guidance: float = 1.0  # how strictly that is followed

    @property
    def seeds(self) -> range:
        """The seed of each face."""
        return range(self.seed, self.seed + self.faces)

    def fields(self) -> dict[str, str | int]:
        """The form as it would be filled in; `read_comparison` is the way back.

        One recipe alone is that of the right side.
        """
        fields = {**DEFAULTS, "seed": str(self.seed), "faces": self.faces, "model": self.model}
        if self.recipes[0].finish != "none":
            fields["finish"] = self.recipes[0].finish
        if self.asked:
            fields |= {"asked": asked_text(self.asked), "guidance": f"{self.guidance:.17g}"}
        for side, recipe in zip(SIDES[-len(self.recipes) :], self.recipes, strict=True):
            fields |= {
                f"{side}_sampler": choice(recipe),
                f"{side}_steps": str(recipe.steps),
                f"{side}_eta": f"{recipe.eta:.17g}",
                f"{side}_spacing": recipe.spacing,
            }
        return fields


def choice(recipe: Recipe) -> str:
    """Which of SAMPLERS a recipe is of."""
    return (
        "ddpm_large" if (recipe.sampler, recipe.variance) == ("ddpm", "large") else recipe.sampler
    )


def read_comparison(T: int, labels: Labels = MappingProxyType({}), **fields: object) -> Comparison:
    """Check every field of DEFAULTS; one that is left out has its default.

    T and labels are the model's. Raises ValueError with one sentence that says what to choose.
    """
    given = {**DEFAULTS, **fields}
    count = _whole(given["faces"])
    if count not in FACES:
        raise ValueError(wording.faces_refused(given["faces"], FACES))
    wanted = _wanted(labels, given)
    recipes = (_recipe("left", given, T), _recipe("right", given, T))
    return Comparison(faces=count, recipes=recipes, **wanted)


def read_order(labels: Labels, fields: Mapping[str, object]) -> Comparison:
    """What Make is asked for, of ORDER's fields, as a comparison with one pane.

    Raises ValueError with one sentence.
    """
    given = {**ORDER, **fields}
    recipe = replace(RECIPE, finish=_finish(given))
    return Comparison(faces=MADE, recipes=(recipe,), **_wanted(labels, given))


def _wanted(labels: Labels, given: Mapping[str, object]) -> dict[str, Any]:
    """What Run and Make both ask for: the fields of ORDER, as a Comparison takes them."""
    seed = whole_within(wording.SEED, given["seed"], 0, MAX_SEED - max(FACES))
    asked, guidance = read_asked(labels, given["asked"]), read_guidance(given["guidance"])
    return {
        "seed": seed,
        "model": str(given["model"])[:80],
        "asked": asked,
        "guidance": guidance if asked else 1.0,
    }


def _recipe(side: str, given: Mapping[str, object], T: int) -> Recipe:
    sampler = _one_of(f"{side} sampler", given[f"{side}_sampler"], tuple(SAMPLERS))
    # A number that the sampler does not read may be anything.
    eta = _eta(given[f"{side}_eta"]) if sampler == "ddim" else 0.0
    return Recipe(
        **SAMPLERS[sampler],
        steps=whole_within(wording.steps_label(sampler), given[f"{side}_steps"], 1, T),
        eta=eta,
        spacing=_one_of(f"{side} spacing", given[f"{side}_spacing"], SPACINGS),
        finish=_finish(given),
    )


def _finish(given: Mapping[str, object]) -> str:
    return FINISHES[_one_of("finish", given["finish"] or "nothing", tuple(FINISHES))]


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(wording.choice_refused(name, value, choices))
    return str(value)


def whole_within(name: str, value: object, low: int, high: int) -> int:
    """An int from what a form holds; raises ValueError with one sentence when it is none."""
    number = _whole(value)
    if number is None or not low <= number <= high:
        raise ValueError(wording.whole_number(name, value, low, high))
    return number


def _whole(value: object) -> int | None:
    """An int from an int, 4.0 or " 4 "; None from anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, int):
        return value
    text = str(value).strip()
    # ASCII digits only, and no more than a seed has: int() takes far stranger strings.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None


def _eta(value: object) -> float:
    try:
        eta = float(str(value).strip().replace(",", ".")[:20])
    except ValueError:
        raise ValueError(wording.eta_refused(value)) from None
    if not 0 <= eta <= 1:
        raise ValueError(wording.eta_refused(value))
    return eta
