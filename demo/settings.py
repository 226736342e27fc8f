"""What a visitor asks for: read from the form, the raw API, an address or a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from demo import wording
from demo.numbers import read_number, read_whole
from demo.wishes import GUIDANCE, Labels, asked_text, read_asked, read_guidance
from diffusion.noise import MAX_SEED
from diffusion.recipe import SPACINGS, Recipe

FACES = (1, 4, 16)
SIDES = ("left", "right")
LONGEST_NAME = 255  # of a model: that of a folder
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
    model: str = ""  # the name of a training; none: the page's own model
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
    count = read_whole(given["faces"])
    if count not in FACES:
        raise ValueError(wording.faces_refused(given["faces"], FACES))
    wanted = _wanted(labels, given)
    return Comparison(faces=count, recipes=_recipes(given, T), **wanted)


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
        "model": str(given["model"])[:LONGEST_NAME],
        "asked": asked,
        "guidance": guidance if asked else 1.0,
    }


def _recipes(given: Mapping[str, object], T: int) -> tuple[Recipe, ...]:
    samplers = {
        side: _one_of(f"{side} sampler", given[f"{side}_sampler"], tuple(SAMPLERS))
        for side in SIDES
    }
    labels = wording.labels(**samplers)
    return tuple(_recipe(side, samplers[side], labels, given, T) for side in SIDES)


def _recipe(
    side: str, sampler: str, labels: Mapping[str, str], given: Mapping[str, object], T: int
) -> Recipe:
    steps, eta = f"{side}_steps", f"{side}_eta"
    return Recipe(
        **SAMPLERS[sampler],
        steps=whole_within(labels[steps], given[steps], 1, T),
        # A number that the sampler does not read may be anything.
        eta=_eta(labels[eta], given[eta]) if sampler == "ddim" else 0.0,
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
    number = read_whole(value)
    if number is None or not low <= number <= high:
        raise ValueError(wording.whole_number(name, value, low, high))
    return number


def _eta(name: str, value: object) -> float:
    eta = read_number(value)
    if eta is None or not 0 <= eta <= 1:
        raise ValueError(wording.eta_refused(name, value))
    return eta
