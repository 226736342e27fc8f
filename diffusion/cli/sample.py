"""python -m diffusion sample"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch import Tensor

from diffusion.backends import accelerated
from diffusion.cli.problem import as_sentence, check_writable, one_sentence
from diffusion.device import pick_device
from diffusion.files import replacing
from diffusion.labels import asked
from diffusion.model import WEIGHTS, DiffusionModel, weights_hash
from diffusion.noise import check_seed
from diffusion.pictures import save_animation, save_png, sheet, to_uint8
from diffusion.recipe import Recipe, check_batch, check_guidance, draw

MAX_COUNT = 1_000_000
MAX_BYTES = 4 * 2**30  # of all pictures together
MAX_FRAMES = 250  # of an animation
MAX_FRAME_BYTES = 512 * 2**20  # of all frames together, before they are packed
LONGEST_SUFFIX = 6  # of what is taken for a file's name, with its dot


def sample(
    out: Annotated[Path, typer.Option(help="FILE.npz, FILE.png (one grid) or a folder for PNGs.")],
    model: Annotated[
        str, typer.Option(help="A model's folder, or a Hugging Face Hub name user/model.")
    ] = "checkpoints/cartoonset-64",
    sampler: Annotated[str, typer.Option(help="ddpm, ddim or dpmpp_2m.")] = "ddim",
    steps: Annotated[int, typer.Option(help="Calls of the network per picture.")] = 50,
    eta: Annotated[float, typer.Option(help="ddim: fresh noise, 0 none to 1 like ddpm.")] = 0.0,
    variance: Annotated[str, typer.Option(help="ddpm: small or large.")] = "small",
    spacing: Annotated[str, typer.Option(help="Levels visited: uniform or quadratic.")] = "uniform",
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Keep predicted pictures in [-1, 1].")
    ] = True,
    finish: Annotated[
        str, typer.Option(help="none, or crisp: sharper edges, plainer areas.")
    ] = "none",
    label: Annotated[
        list[str] | None, typer.Option(help="Ask for attribute=value; repeatable.")
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="How strongly labels are followed: 0 not, 1 plainly.")
    ] = 1.0,
    count: Annotated[int, typer.Option(help="How many pictures.")] = 16,
    seed: Annotated[int, typer.Option(help="Picture i, from 0, is that of seed + i.")] = 0,
    frames: Annotated[
        Path | None, typer.Option(help="Also save the animation: FILE.gif or FILE.mp4.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Pictures computed together; they stay the same.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    backend: Annotated[
        str, typer.Option(help="auto, openvino, bfloat16, float16 or float32.")
    ] = "auto",
) -> None:
    """Draw pictures with a trained model; the same seed gives the same picture."""
    with one_sentence():
        recipe = Recipe(sampler, steps, eta, variance, spacing, clip, finish)
        seeds = _seeds(seed, count)
        check_batch(batch)
        write = _writer(out)
        if frames is not None:
            _check_animation(frames)
        trained = accelerated(DiffusionModel.from_pretrained(model, pick_device(device)), backend)
        recipe.plan(trained.schedule)
        wishes = asked(trained.labels, label or [])
        check_guidance(guidance)
        _check_pictures(trained, count)
        film = Film(recipe.steps, count, trained.shape) if frames is not None else None
        check_writable(out if write is _save_folder else out.parent)
        if frames is not None:
            check_writable(frames.parent)

        pixels = _draw(trained, seeds, recipe, batch, film, wishes, guidance)
        about = {**_about(model), "recipe": recipe.to_json()}
        if label:
            about |= {"labels": label, "guidance": guidance}
        with as_sentence(out):
            write(out, pixels, seeds, about)
        if film is not None:
            with as_sentence(frames), replacing(frames) as temporary:
                save_animation(temporary, film.pictures(), kind=frames.suffix)
    typer.echo(f"Drew {count:,} in {out}" + (f", their animation in {frames}" if frames else ""))


class Film:
    """Pictures on their way from noise: at most MAX_FRAMES moments, the first and last included."""

    def __init__(self, steps: int, count: int, shape: tuple[int, int, int]):
        moments = min(steps + 1, MAX_FRAMES)
        self._slots = {i * steps // (moments - 1): i for i in range(moments)}
        channels, height, width = shape
        each = moments * channels * height * width
        if each * count > MAX_FRAME_BYTES:
            raise ValueError(
                f"an animation of {count:,} pictures is too large; "
                f"ask for at most {MAX_FRAME_BYTES // each:,} with --frames"
            )
        self._pixels = np.empty((moments, count, height, width, channels), dtype=np.uint8)

    def add(self, first: int, done: int, x: Tensor) -> None:
        """Keep x, the pictures from number `first` on after `done` steps, if its moment counts."""
        if done in self._slots:
            self._pixels[self._slots[done], first : first + len(x)] = to_uint8(x)

    def pictures(self) -> Iterator:
        """One sheet per moment."""
        return map(sheet, self._pixels)


def _draw(
    model: DiffusionModel,
    seeds: range,
    recipe: Recipe,
    batch: int | None,
    film: Film | None,
    labels: tuple[int, ...] | None,
    guidance: float,
) -> np.ndarray:
    from tqdm import tqdm

    with tqdm(total=len(seeds) * recipe.steps, desc="Drawing", unit=" calls") as bar:

        def watch(first: int, done: int, x: Tensor) -> None:
            bar.update(len(x) if done else 0)
            if film is not None:
                film.add(first, done, x)

        return draw(model, seeds, recipe, batch, watch, labels, guidance)


def _save_npz(path: Path, pixels: np.ndarray, seeds: range, about: dict) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, pixels)


def _save_grid(path: Path, pixels: np.ndarray, seeds: range, about: dict) -> None:
    with replacing(path) as temporary:
        save_png(temporary, sheet(pixels), {**about, "seed": seeds[0], "count": len(seeds)})


def _save_folder(path: Path, pixels: np.ndarray, seeds: range, about: dict) -> None:
    from PIL import Image

    digits = max(len(str(seeds[-1])), 6)  # so that names sort like seeds
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=".drawing-") as work:
        for seed, picture in zip(seeds, pixels, strict=True):
            name = f"{seed:0{digits}d}.png"
            save_png(Path(work, name), Image.fromarray(picture), {**about, "seed": seed})
        for file in Path(work).iterdir():
            os.replace(file, path / file.name)


def _writer(out: Path) -> Callable[[Path, np.ndarray, range, dict], None]:
    """How to write what --out names."""
    suffix = out.suffix.lower()
    if suffix in (".npz", ".png"):
        if out.is_dir():
            raise ValueError(f"{out} is a folder; give --out a name that is free")
        return _save_npz if suffix == ".npz" else _save_grid
    # A folder's name may have a dot in it as well, as in faces-0.5.
    if any(map(str.isalpha, suffix)) and len(suffix) <= LONGEST_SUFFIX and not out.is_dir():
        raise ValueError(f"--out cannot be a {suffix} file; choose FILE.npz, FILE.png or a folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose FILE.npz, FILE.png or a folder for --out")
    return _save_folder


def _seeds(seed: int, count: int) -> range:
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"{count} pictures asked for; choose a --count of 1 to {MAX_COUNT:,}")
    check_seed(seed)
    check_seed(seed + count - 1)
    return range(seed, seed + count)


def _check_animation(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ValueError(f"{path} is not an animation's name; end --frames in .gif or .mp4")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give --frames a name that is free")
    if suffix == ".mp4" and find_spec("av") is None:
        raise ValueError("MP4 needs PyAV; run `pip install av`, or end --frames in .gif")


def _check_pictures(model: DiffusionModel, count: int) -> None:
    channels, height, width = model.shape
    if channels != 3:
        raise ValueError(f"the model draws {channels} channels, not RGB; draw it from Python")
    most = MAX_BYTES // (channels * height * width)
    if count > most:
        raise ValueError(f"{count:,} pictures of {width} px do not fit; ask for at most {most:,}")


def _about(model: str) -> dict:
    """Which model drew: its name and, for a folder, its weights."""
    local = (Path(model) / WEIGHTS).is_file()
    return {"model": model, **({"weights": weights_hash(model)} if local else {})}
