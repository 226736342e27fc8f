"""The sheets of a run: what its fixed seeds looked like after so many images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from diffusion.denoiser import ANY
from diffusion.files import bytes_of, replacing, size_of
from diffusion.model import DiffusionModel
from diffusion.pictures import roughness, save_png, sheet
from diffusion.recipe import Recipe, draw

SEEDS = range(16)
STEPS = 20
GUIDANCE = 2.0  # of the second half of the seeds, which ask for something
MOST_BYTES = 32 * 2**20  # of all sheets; beyond it, every second one goes


class Previews:
    """The folder of a run's sheets, NNNNNNN.png after so many images."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, model: DiffusionModel, images: int, data_roughness: float | None = None) -> None:
        """Draw the fixed seeds with the averaged weights: DDIM, eta 0.

        The PNG also says how rough the pictures are, and those that are learned from. With
        labels, the second half of the pictures asks for a value of every attribute.
        """
        recipe = Recipe("ddim", steps=min(STEPS, model.schedule.T))
        labels = preview_labels(model) if model.labels else None
        drawn = draw(model, SEEDS, recipe, len(SEEDS), labels=labels, guidance=GUIDANCE)
        picture = sheet(drawn, columns=4)
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / f"{images:07d}.png") as temporary:
            about = {
                "images": images,
                "seeds": list(SEEDS),
                "roughness": roughness(drawn),
                "data_roughness": data_roughness,
            }
            save_png(temporary, picture, about)
        self.thin(MOST_BYTES)

    def paths(self) -> list[Path]:
        """The sheets, in the order of the images seen; as text, ten million come before two."""
        # Whoever looks at them with another program may leave a copy there.
        found = [path for path in self.folder.glob("*.png") if path.stem.isdecimal()]
        return sorted(found, key=lambda path: int(path.stem))

    def thin(self, most_bytes: int, few: int = 2) -> None:
        """Delete every second sheet until all take at most so many bytes, or are so few.

        The first and the last stay.
        """
        paths = self.paths()
        while len(paths) > few and size_of(self.folder) > most_bytes:
            _delete(set(paths) - set(_every_second(paths)))
            if len(left := self.paths()) == len(paths):
                return
            paths = left

    def cut(self, images: int) -> None:
        """Delete the sheets that came after so many images."""
        _delete(path for path in self.paths() if int(path.stem) > images)

    def thinned_bytes(self, few: int = 2) -> int:
        """What thin could free, were no byte allowed."""
        kept = before = self.paths()
        while len(kept) > few:
            kept = _every_second(kept)
        return bytes_of(set(before) - set(kept))


def preview_labels(model: DiffusionModel) -> np.ndarray:
    """What the fixed seeds ask for: the first half nothing, the others one value after another."""
    half = len(SEEDS) // 2
    counts = np.array([len(values) for values in model.labels.values()])
    # Spread over the values of each attribute, so that eleven skins are not only the first eight.
    wishes = (np.arange(half)[:, None] * counts) // half
    wishes = np.where(counts > half, wishes, np.arange(half)[:, None] % counts)
    return np.concatenate([np.full((half, len(counts)), ANY), wishes])


def still_noise(rough: float, data: float) -> bool:
    """Whether previews are noise, by their roughness and that of the pictures learned from."""
    return rough > 1.5 * data + 1.5  # drawn with sharp edges, pictures are rough themselves


def _every_second(paths: list[Path]) -> list[Path]:
    """The first, every second of the others, and the last."""
    return paths[:-1:2] + paths[-1:]


def _delete(sheets: Iterable[Path]) -> None:
    for path in sheets:
        with contextlib.suppress(PermissionError):  # on Windows, while somebody looks at it
            path.unlink(missing_ok=True)
