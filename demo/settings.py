"""What a visitor asks for, read from the form or the raw API."""

from __future__ import annotations

from dataclasses import dataclass

from demo import wording
from diffusion.noise import MAX_SEED
from diffusion.recipe import Recipe

FACES = (1, 4, 16)


@dataclass(frozen=True)
class Comparison:
    """One press of Run: two recipes on the same seeds."""

    seed: int
    faces: int
    recipes: tuple[Recipe, Recipe]

    @property
    def seeds(self) -> range:
        """The seed of each face."""
        return range(self.seed, self.seed + self.faces)


DEFAULTS = {"seed": "7", "faces": 4, "ddpm_steps": "100", "ddim_steps": "20", "eta": "0"}


def read_comparison(
    seed: object, faces: object, ddpm_steps: object, ddim_steps: object, eta: object, T: int
) -> Comparison:
    """Check every field; raises ValueError with one sentence that says what to choose."""
    if _whole(faces) not in FACES:
        raise ValueError(wording.faces_refused(faces, FACES))
    count = _whole(faces)
    return Comparison(
        _within(wording.SEED, seed, 0, MAX_SEED - max(FACES)),
        count,
        (
            Recipe("ddpm", _within(wording.DDPM_STEPS, ddpm_steps, 1, T)),
            Recipe("ddim", _within(wording.DDIM_STEPS, ddim_steps, 1, T), eta=_eta(eta)),
        ),
    )


def _within(name: str, value: object, low: int, high: int) -> int:
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
