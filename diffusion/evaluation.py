"""How good a model's pictures are, and what they cost: one row of numbers per setting.

Every row is measured against the same training pictures, and beside the rows stands the floor:
as many real pictures that the model never saw, measured in the same way; or against all those that
it never saw, and the floor is of training pictures. Pictures are drawn in chunks that are kept in
the cache, so that a measurement goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from diffusion import compiled
from diffusion.backends import accelerated
from diffusion.cache import cache_dir
from diffusion.data import Images
from diffusion.denoiser import EVERYWHERE
from diffusion.distances import Gaussian, copy_rate, frechet, kid, precision_recall
from diffusion.features import VERSION as features_version
from diffusion.features import Extractor, extractors, features
from diffusion.files import replacing
from diffusion.model import DiffusionModel, ModelError
from diffusion.noise import EVALUATION, generator
from diffusion.reader import AttributeReader, chance, fidelity, palette_fidelity
from diffusion.recipe import Recipe, default_batch, draw
from diffusion.schedule import Schedule

LEAST = 4  # pictures per row: a kernel distance needs as many
REFERENCE = 5000  # pictures that distances are measured to, where there are as many
AGAINST = ("training", "unseen")  # which ones those are
CHUNK = 100  # pictures drawn and kept together
VERSION = 1  # raise it when the same settings would give other pictures

Watch = Callable[[int], None]  # told how many calls of the network were made


@dataclass(frozen=True)
class Setting:
    """How pictures are drawn for one row.

    With guidance 0 the model draws at random; otherwise every picture asks for the attributes of
    one real held-out picture. `interval` and `rederive` are those of Denoiser.
    """

    recipe: Recipe = field(default_factory=Recipe)
    guidance: float = 0.0
    interval: tuple[float, float] = EVERYWHERE
    rederive: bool = True

    def calls(self, schedule: Schedule) -> int:
        """Rows that the network computes per picture: guidance takes two where it acts."""
        levels = [row.t for row in self.recipe.plan(schedule)]
        if self.guidance in (0, 1):
            return len(levels)
        low, high = (bound * schedule.T for bound in self.interval)
        return len(levels) + sum(low <= t <= high for t in levels)

    def to_json(self) -> dict:
        """The settings as JSON types."""
        return {
            **self.recipe.to_json(),
            "guidance": self.guidance,
            "interval": list(self.interval),
            "rederive": self.rederive,
        }


@dataclass(frozen=True)
class Faces:
    """The real pictures that a model is measured against."""

    images: Images
    held_out: int
    count: int  # pictures per row
    names: tuple[str, ...]  # of the extractors
    against: str = AGAINST[0]  # the pictures that distances are measured to

    def __post_init__(self) -> None:
        check_against(self.against)
        if self.count < LEAST:
            raise ValueError(
                f"{self.count} pictures tell nothing; choose a --count of {LEAST} or more"
            )
        if self.held_out < LEAST:
            raise ValueError(
                f"the model kept {self.held_out or 'no'} pictures back, so there is nothing to "
                f"measure it by; train one with --held-out {LEAST} or more"
            )
        if self.held_out < self.count:
            raise ValueError(
                f"a row needs as many held-out pictures as are drawn, {self.count:,}; "
                f"there are {self.held_out:,}, so choose a smaller --count"
            )
        trained_on = len(self.images) - self.held_out
        if self.against == "unseen" and trained_on < self.count:
            raise ValueError(
                f"the floor needs as many training pictures as are drawn, {self.count:,}; "
                f"there are {trained_on:,}, so choose a smaller --count"
            )

    @cached_property
    def training(self) -> np.ndarray:
        """Indices of the pictures that were trained on, in a fixed random order."""
        chosen, _ = self.images.split(self.held_out)
        return generator(0, EVALUATION).permutation(chosen)

    @cached_property
    def reference(self) -> np.ndarray:
        """Indices of the pictures that distances are measured to."""
        chosen = self._all_unseen if self.against == "unseen" else self.training
        return np.sort(chosen[:REFERENCE])

    @cached_property
    def floor(self) -> np.ndarray:
        """Indices of `count` real pictures of the other kind: the best that a model can be."""
        if self.against == "unseen":
            return np.sort(self.training[: self.count])
        return self.unseen

    @cached_property
    def unseen(self) -> np.ndarray:
        """Indices of `count` held-out pictures."""
        return np.sort(self._all_unseen[: self.count])

    @cached_property
    def _all_unseen(self) -> np.ndarray:
        """Indices of all held-out pictures, in a fixed random order."""
        _, held_out = self.images.split(self.held_out)
        return generator(0, EVALUATION, level=1).permutation(held_out)

    @cached_property
    def extractors(self) -> dict[str, Extractor]:
        """What turns pictures into features."""
        known = extractors()
        missing = [name for name in self.names if name not in known]
        if missing:
            raise ValueError(
                f"no extractor {', '.join(missing)} here; choose {', '.join(known)}, "
                "or install the extra `evaluation`"
            )
        return {name: known[name]() for name in self.names}

    @cached_property
    def reference_features(self) -> dict[str, np.ndarray]:
        """Features of the reference by extractor, kept in the cache."""
        return {
            name: self._cached(name, extract, self.reference)
            for name, extract in self.extractors.items()
        }

    @cached_property
    def gaussians(self) -> dict[str, Gaussian]:
        """The reference as Fréchet distances see it."""
        return {name: Gaussian.of(rows) for name, rows in self.reference_features.items()}

    def measure(self, pixels: np.ndarray, copies: bool = True) -> dict:
        """Distances to the reference by extractor and, unless it is left out, the copy rate."""
        compiled.compute_with_torch()  # whoever drew may have left it one thread
        measured = {}
        for name, extract in self.extractors.items():
            rows, reference = features(pixels, extract), self.reference_features[name]
            value, error = kid(rows, reference)
            precision, recall = precision_recall(rows, reference)
            measured[name] = {
                "frechet": frechet(Gaussian.of(rows), self.gaussians[name]),
                "kid": value,
                "kid_error": error,
                "precision": precision,
                "recall": recall,
            }
        if not copies:
            return {"distances": measured}
        rate = copy_rate(pixels, self.images.pixels, np.sort(self.training))
        return {"distances": measured, "copies": rate}

    def labels(self, asked: Mapping[str, Sequence[str]]) -> np.ndarray:
        """What the unseen pictures show, as wishes: int64 (count, attributes).

        `asked` has the names of each attribute's values, as the model or the reader knows them;
        raises ValueError where the pictures' labels have others.
        """
        labels = self.images.labels
        if labels is None:
            raise ValueError("guided pictures ask for real pictures' labels; add --labels")
        chosen = labels.only(list(asked))
        for name, values in asked.items():
            if tuple(chosen.names[name]) != tuple(values):
                raise ValueError(
                    f"the values of {name} are {', '.join(chosen.names[name])} in the pictures' "
                    f"labels, but {', '.join(values)} for the model or its reader; give the labels "
                    "that it was trained with"
                )
        return chosen.values[self.unseen]

    def _cached(self, name: str, extract: Extractor, indices: np.ndarray) -> np.ndarray:
        what = f"{features_version}:{name}:{self.images.key}:".encode()
        digest = hashlib.sha256(what + indices.tobytes())
        path = cache_dir("features") / f"{digest.hexdigest()[:24]}.npy"
        if not path.is_file():
            rows = features(self.images.pixels[indices], extract)
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, rows)
        return np.load(path)


@dataclass(frozen=True)
class Subject:
    """A model to measure, with the hash of its weights."""

    name: str
    model: DiffusionModel
    weights: str

    @classmethod
    def load(cls, name: str, device: torch.device, backend: str) -> Subject:
        """A folder's or the Hub's model, its network computed in that way; raises ModelError."""
        model = DiffusionModel.from_pretrained(name, device)
        if model.shape[0] != 3:
            raise ModelError(f"{name} draws {model.shape[0]} channels; only RGB can be measured")
        return cls(name, accelerated(model, backend), model.version)

    def about(self) -> dict:
        """What a results file tells of the model, as JSON types."""
        return {
            "weights": self.weights,
            "prediction": self.model.prediction,
            "schedule": self.model.schedule.to_json(),
            "training": dict(self.model.training),
        }

    def pictures_key(self, setting: Setting, faces: Faces, seed: int) -> str:
        """What decides a row's pictures, as a hash."""
        model = self.model
        what = [*self._decisive(setting, faces, seed), model.prediction, model.schedule.to_json()]
        return _hash(what)

    def row_key(self, setting: Setting, faces: Faces, seed: int) -> str:
        """A row's name in a results file: models that draw the same pictures have a row each."""
        return _hash([self.name, self.pictures_key(setting, faces, seed)])

    def old_row_key(self, setting: Setting, faces: Faces, seed: int) -> str:
        """The row's name in older files, where models of equal weights shared it."""
        return _hash(self._decisive(setting, faces, seed))

    def _decisive(self, setting: Setting, faces: Faces, seed: int) -> list:
        asked = faces.labels(self.model.labels).tolist() if setting.guidance else None
        return [VERSION, self.weights, self.model.backend, setting.to_json(), seed, asked]


def _hash(what: list) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def floor_row(faces: Faces, reader: AttributeReader | None = None) -> dict:
    """The row of the real pictures: the best that a model can reach with so many pictures.

    Training pictures, being copies of themselves, have no copy rate.
    """
    pixels = faces.images.pixels[faces.floor]
    return faces.measure(pixels, copies=faces.against != "unseen") | floor_read(faces, reader)


def floor_read(faces: Faces, reader: AttributeReader | None) -> dict:
    """What the floor's row tells of attributes; nothing without a reader and labels.

    Nor of training pictures: the reader learned from them.
    """
    if faces.against == "unseen":
        return {}
    return _read(reader, faces.images.pixels[faces.unseen], faces)


def _read(reader: AttributeReader | None, pixels: np.ndarray, faces: Faces) -> dict:
    """How often each picture shows what its unseen picture does, by the reader and the palette.

    Nothing without a reader and labels. Where no attribute was asked for, this is chance.
    """
    if reader is None or faces.images.labels is None:
        return {}
    asked = faces.labels(reader.labels)
    return {
        "fidelity": fidelity(reader, pixels, asked),
        "palette": palette_fidelity(reader, pixels, asked),
    }


def check_against(against: str) -> None:
    """Raise ValueError unless distances can be measured to these pictures."""
    if against not in AGAINST:
        raise ValueError(f"--against is {against}; choose {' or '.join(AGAINST)}")


def chance_of(faces: Faces, reader: AttributeReader) -> dict[str, float]:
    """How often an attribute would be right without asking, over the unseen pictures."""
    return chance(faces.labels(reader.labels), list(reader.labels))


def evaluate_row(
    subject: Subject,
    setting: Setting,
    faces: Faces,
    seed: int = 0,
    reader: AttributeReader | None = None,
    batch: int | None = None,
    watch: Watch = lambda calls: None,
) -> dict:
    """One row: settings, calls, seconds, distances, copies, and what was got of what was asked.

    It has no seconds when pictures came out of the cache that were drawn in other circumstances.
    """
    pixels, seconds = drawn(subject, setting, faces, seed, batch, watch)
    return {
        "model": subject.name,
        **setting.to_json(),
        "calls": setting.calls(subject.model.schedule),
        **({} if seconds is None else {"seconds": round(seconds, 2)}),
        **faces.measure(pixels),
        **_read(reader, pixels, faces),
    }


def drawn(
    subject: Subject,
    setting: Setting,
    faces: Faces,
    seed: int,
    batch: int | None = None,
    watch: Watch = lambda calls: None,
) -> tuple[np.ndarray, float | None]:
    """The pictures of a row, uint8 (count, H, W, 3), and the seconds that drawing them took.

    None instead of seconds when some were drawn before, and not as they would be now.
    """
    model = subject.model
    asked = faces.labels(model.labels) if setting.guidance else None
    folder = cache_dir("samples") / subject.pictures_key(setting, faces, seed)
    now = _circumstances(model, batch)
    pixels, seconds, alike = [], 0.0, True
    for seeds in _chunks(range(seed, seed + faces.count)):
        rows = None if asked is None else asked[seeds.start - seed : seeds.stop - seed]
        path = folder / f"{seeds.start}-{seeds.stop}.npz"
        if not path.is_file():
            _draw(path, model, seeds, setting, rows, batch)
        with np.load(path) as kept:
            pixels.append(kept["pixels"])
            seconds += float(kept["seconds"])
            alike &= str(kept["circumstances"]) == now
        watch(len(seeds) * setting.calls(model.schedule))
    return np.concatenate(pixels), seconds if alike else None


def _circumstances(model: DiffusionModel, batch: int | None) -> str:
    """What decides how long drawing takes, and not what is drawn."""
    what = {
        "device": model.device.type,
        "torch": release(torch.__version__),
        "threads": compiled.THREADS,
        "batch": default_batch(model) if batch is None else batch,
    }
    return json.dumps(what)


def release(version: str) -> str:
    """A package's version without what tells how it was built, which changes no row."""
    return version.split("+")[0]


def _draw(
    path: Path,
    model: DiffusionModel,
    seeds: range,
    setting: Setting,
    labels: np.ndarray | None,
    batch: int | None,
) -> None:
    start = time.perf_counter()
    chunk = draw(
        model,
        seeds,
        setting.recipe,
        batch,
        labels=labels,
        guidance=setting.guidance if labels is not None else 1.0,
        interval=setting.interval,
        rederive=setting.rederive,
    )
    seconds = time.perf_counter() - start
    circumstances = _circumstances(model, batch)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, pixels=chunk, seconds=seconds, circumstances=circumstances)


def _chunks(seeds: range) -> Iterator[range]:
    for first in range(0, len(seeds), CHUNK):
        yield seeds[first : first + CHUNK]


def grid(
    samplers: Sequence[str],
    steps: Sequence[int],
    etas: Sequence[float],
    variances: Sequence[str],
    guidances: Sequence[float] = (0.0,),
    spacing: str = "uniform",
    finish: str = "none",
) -> list[Setting]:
    """Every combination that means something: eta belongs to ddim, variance to ddpm."""
    kinds = {"ddim": [{"eta": eta} for eta in etas], "ddpm": [{"variance": v} for v in variances]}
    recipes = [
        Recipe(sampler, count, spacing=spacing, finish=finish, **kind)
        for sampler in samplers
        for count in steps
        for kind in kinds.get(sampler, [{}])
    ]
    return [Setting(recipe, guidance) for guidance in guidances for recipe in recipes]
