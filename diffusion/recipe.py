"""How a picture is drawn, as a value, and the function that draws pictures so.

A model, a seed and a recipe decide a picture: the same three give the same picture alone or in
any batch, from the command line, the page or a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion.ahead import Ahead, Drawers
from diffusion.denoiser import ANY, EVERYWHERE
from diffusion.finish import FINISHES, finished
from diffusion.model import DiffusionModel
from diffusion.noise import Noise
from diffusion.pictures import to_uint8
from diffusion.samplers import Plan, ddim, ddpm, dpmpp_2m, noise_levels, sample
from diffusion.schedule import Schedule

SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")
VARIANCES = ("small", "large")
SPACINGS = ("uniform", "quadratic")
MAX_GUIDANCE = 20.0

Watch = Callable[[int, int, Tensor], None]  # watch(first, done, x); see draw


@dataclass(frozen=True)
class Recipe:
    """A sampler with its settings; raises ValueError, in one sentence, for settings that are none.

    `eta` is read by ddim alone and `variance` by ddpm alone.
    """

    sampler: str = "ddim"  # or "ddpm", "dpmpp_2m"
    steps: int = 50
    eta: float = 0.0  # 0 to 1: how much fresh noise a step of ddim adds
    variance: str = "small"  # or "large": the fresh noise of a step of ddpm
    spacing: str = "uniform"  # or "quadratic": which levels the steps visit
    clip: bool = True  # keep the predicted clean image in [-1, 1]
    finish: str = "none"  # or "crisp": what follows the last step

    def __post_init__(self) -> None:
        for name, choices in (
            ("sampler", SAMPLERS),
            ("variance", VARIANCES),
            ("spacing", SPACINGS),
            ("finish", FINISHES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(choices)}"
                )
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ValueError(f"{self.steps} steps asked for; choose a whole number from 1 up")
        if not isinstance(self.eta, (int, float)):
            raise ValueError(f"eta {self.eta!r} is not a number; choose 0 to 1")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta {self.eta:g} is outside 0 to 1; 0 is DDIM, 1 is DDPM")
        if not isinstance(self.clip, bool):
            raise ValueError(f"clip is {self.clip!r}; choose true or false")

    def plan(self, schedule: Schedule) -> Plan:
        """The sampler's table on this schedule; raises ValueError for more steps than levels."""
        levels = schedule.levels(self.steps, self.spacing)
        if self.sampler == "ddpm":
            return ddpm(schedule, levels, self.variance)
        if self.sampler == "ddim":
            return ddim(schedule, levels, self.eta)
        return dpmpp_2m(schedule, levels)

    def to_json(self) -> dict:
        """The settings as JSON types; `Recipe(**value)` is the way back."""
        settings = asdict(self)
        if self.finish == "none":  # unsaid, as before there was any
            del settings["finish"]
        return settings


def draw(
    model: DiffusionModel,
    seeds: Sequence[int],
    recipe: Recipe,
    batch: int | None = None,
    watch: Watch | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    guidance: float = 1.0,
    interval: tuple[float, float] = EVERYWHERE,
    rederive: bool = True,
) -> np.ndarray:
    """One picture per seed, uint8 (N, H, W, C), in the order of the seeds.

    `labels` has an index per attribute of the model, -1 for any: one row for all pictures, or
    (N, attributes); `guidance`, `interval` and `rederive` say how they are followed (see Denoiser).

    At most `batch` pictures are computed together; the size decides speed and memory, not the
    pictures. `watch(first, done, x)` sees seeds[first:first + len(x)] before the first step
    (done = 0, x is x_T) and after every step, the last time what is finished.

    Raises ValueError for a batch below 1, labels of another shape, and more steps than levels.
    """
    check_batch(batch)
    plan = recipe.plan(model.schedule)
    rows = _rows(labels, len(seeds), model)
    watch = watch or (lambda first, done, x: None)
    batch = default_batch(model) if batch is None else batch
    channels, height, width = model.shape
    pixels = np.empty((len(seeds), height, width, channels), dtype=np.uint8)
    with Drawers(model.device) as drawers:
        for first in range(0, len(seeds), batch):
            asked = None if rows is None else rows[first : first + batch]
            denoise = model.denoiser(asked, guidance, recipe.clip, interval, rederive)
            noise = Noise(seeds[first : first + batch], model.shape, model.device)
            noise = Ahead(noise, noise_levels(plan), drawers)
            x = noise(model.schedule.T)
            watch(first, 0, x)
            for done, frame in enumerate(sample(denoise, plan, x, noise), start=1):
                x = finished(frame, recipe.finish).x
                watch(first, done, x)
            pixels[first : first + batch] = to_uint8(x)
    return pixels


def check_batch(batch: int | None) -> None:
    """Raise ValueError unless so many pictures can be computed together; None leaves it open."""
    if batch is not None and batch < 1:
        raise ValueError(f"a batch of {batch} pictures; choose a --batch of 1 or more")


def check_guidance(guidance: float) -> None:
    """Raise ValueError unless the guidance is a number from 0 to MAX_GUIDANCE."""
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise ValueError(f"guidance {guidance:g}; choose 0 to {MAX_GUIDANCE:g}")


def _rows(
    labels: Sequence[int] | np.ndarray | None, count: int, model: DiffusionModel
) -> Tensor | None:
    if labels is None:
        return None
    labels = np.asarray(labels, dtype=np.int64)
    rows = torch.as_tensor(labels)  # on the CPU, where the model can check them
    attributes = len(model.labels)
    if rows.shape not in ((attributes,), (count, attributes)):
        raise ValueError(
            f"labels {tuple(rows.shape)} for {attributes} attributes of {count} pictures"
        )
    if (labels == ANY).all():
        return None  # the same picture, and guidance would compute it twice
    return rows.expand(count, attributes)


def default_batch(model: DiffusionModel) -> int:
    """How many pictures to compute together: 16 of 64 px on a CPU, 256 elsewhere."""
    pixels = 2**16 if model.device.type == "cpu" else 2**20
    return max(pixels // (model.shape[1] * model.shape[2]), 1)
