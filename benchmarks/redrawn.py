"""Where a model's distance to real faces comes from: `python -m benchmarks.redrawn --data ZIP`.

Real faces that the model never saw are noised to some level and drawn on from there, so that only
the levels below it can do harm. Beside them, the same faces spoiled a little by hand tell what
the distance sees. Replaces the table of docs/distance.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from benchmarks.tables import check_page, put_table
from diffusion.data import load_images
from diffusion.denoiser import at_level
from diffusion.device import pick_device
from diffusion.evaluation import Faces, Subject
from diffusion.model import DiffusionModel
from diffusion.noise import EVALUATION, generator
from diffusion.pictures import from_uint8, to_uint8
from diffusion.samplers import ddim, sample
from diffusion.train_config import never_seen

LEVELS = (20, 100, 200, 400, 1000)
STRIDE = 20  # levels from one step to the next: DDIM with 50 steps
BATCH = 16


def main(
    data: Annotated[Path, typer.Option(help="The images it was trained on.")],
    model: Annotated[str, typer.Option(help="A model's folder.")] = "checkpoints/cartoonset-64",
    count: Annotated[int, typer.Option(help="Faces per row.")] = 1000,
    backend: Annotated[str, typer.Option(help="What draws.")] = "openvino",
    page: Annotated[Path, typer.Option(help="Its table is replaced.")] = Path("docs/distance.md"),
) -> None:
    """Measure every row and write the table."""
    check_page(page)
    subject = Subject.load(model, pick_device("cpu"), backend)
    images = load_images(data, 64)
    held_out = never_seen(subject.model.training, images)
    faces = Faces(images, held_out, count, ("efficientnet-lite0",))
    real = faces.images.pixels[faces.unseen]
    lines = ["| faces | FD | KID ×1000 | RMSE |", "| --- | ---: | ---: | ---: |"]
    for name, pixels in rows(subject.model, np.ascontiguousarray(real)):
        lines.append(f"| {name} | {_distances(faces, pixels)} | {_rmse(pixels, real):.1f} |")
        print(lines[-1], flush=True)
    about = f"{count:,} unseen faces, weights {subject.weights}, {backend}:"
    put_table(page, "\n".join([about, "", *lines]))


def rows(model: DiffusionModel, real: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What is measured, with its name: uint8 (N, H, W, 3), each made from the same real faces."""
    yield "real, unseen", real
    for level in LEVELS:
        yield f"noised to level {level}, drawn on", redrawn(model, real, level)
    rng = generator(0, EVALUATION, level=3)
    for grey in (0.5, 1, 2):
        noise = rng.standard_normal(real.shape, dtype=np.float32)
        yield f"noise of {grey:g} grey levels", _bytes(real + grey * noise)
    for part in (0.1, 0.2):
        yield f"blurred, {part:.0%} of each pixel from its neighbours", _bytes(_blurred(real, part))
    shift = rng.standard_normal((len(real), 1, 1, 3), dtype=np.float32)
    shifted = np.where(real.min(axis=3, keepdims=True) > 250, real, real + 4 * shift)
    yield "colours shifted by 4 grey levels, white kept", _bytes(shifted)


def redrawn(model: DiffusionModel, real: np.ndarray, level: int) -> np.ndarray:
    """The faces noised to a level (DDPM eq. 4) and drawn from there to level 0 with DDIM."""
    denoise, plan = model.denoiser(), ddim(model.schedule, range(level, -1, -STRIDE))
    rng = generator(0, EVALUATION, level=4)
    drawn = []
    for first in range(0, len(real), BATCH):
        x0 = from_uint8(real[first : first + BATCH])
        eps = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
        *_, last = sample(denoise, plan, _noised(model, x0, eps, level), _never)
        drawn.append(to_uint8(last.x))
    return np.concatenate(drawn)


def _noised(model: DiffusionModel, x0: Tensor, eps: Tensor, level: int) -> Tensor:
    signal, noise = at_level(model.schedule, torch.full((len(x0),), level), x0)
    return signal * x0 + noise * eps


def _never(level: int) -> Tensor:
    raise AssertionError("DDIM asks for no fresh noise")


def _blurred(pixels: np.ndarray, part: float) -> np.ndarray:
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    mean = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, stride=1)
    return torch.lerp(x, mean, part).permute(0, 2, 3, 1).numpy()


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _distances(faces: Faces, pixels: np.ndarray) -> str:
    (values,) = faces.measure(pixels)["distances"].values()
    kid, error = 1000 * values["kid"], 1000 * values["kid_error"]
    return f"{values['frechet']:.1f} | {kid:.1f} ± {error:.1f}"


def _rmse(pixels: np.ndarray, real: np.ndarray) -> float:
    """In grey levels."""
    return float(np.sqrt(np.square(pixels.astype(np.float64) - real).mean()))


if __name__ == "__main__":
    typer.run(main)
