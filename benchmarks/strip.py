"""What a training looks like after so many minutes: `python -m benchmarks.strip`.

Trains a built-in style as the page does, halts the clock at each mark, draws 16 fixed seeds,
uncurated, and measures 300 others: the Fréchet distance, times 1,000, on Haar wavelets to 2,000
drawings that were never trained on. Writes the strip, and what the page's estimate knows of
earlier runs.
"""

from __future__ import annotations

import io
import json
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

from demo.estimate import FILE, images_in
from demo.messages import data_uri
from demo.trainings import CHECKPOINT_SECONDS, PREVIEW_SECONDS
from diffusion import DiffusionModel
from diffusion.cartoons import COUNT, FIRST, STYLES, face
from diffusion.cpus import cpus
from diffusion.device import pick_device, precision_name
from diffusion.distances import Gaussian, frechet
from diffusion.features import features, haar
from diffusion.files import read_text, write_json
from diffusion.pictures import read_settings, sheet
from diffusion.previews import still_noise
from diffusion.recipe import Recipe, draw
from diffusion.run_training import train_run
from diffusion.runs import Run
from diffusion.train_config import PRESETS, TrainConfig, settings_of

SHOWN, MEASURED, REFERENCE = range(16), range(1000, 1300), 2000
RECIPE = Recipe("ddim", steps=20)
UNIT = 1000  # the distances are small
SCALE, LINE = 2, 22  # of the strip: pixels per pixel, and per line of words


@dataclass(frozen=True)
class Mark:
    """What the run had come to after so many minutes."""

    minutes: float
    images: int
    distance: float
    pictures: np.ndarray  # uint8 (16, H, W, 3)


def main(
    style: Annotated[str, typer.Option(help=", ".join(STYLES))] = "toon-head",
    size: Annotated[int, typer.Option(help="Picture side in pixels.")] = 32,
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "tiny",
    start: Annotated[str, typer.Option("--from", help="Begin with this model's weights.")] = "",
    marks: Annotated[str, typer.Option(help="Minutes.")] = "0,1,2,5,10,15",
    out: Annotated[Path, typer.Option(help="The strip.")] = Path("docs/training.png"),
    keep: Annotated[bool, typer.Option(help="Note what it gave for the page's estimate.")] = True,
) -> None:
    """Print a line for each mark, and write the strip."""
    minutes = [float(mark) for mark in marks.split(",")]
    options = ("--from", start) if start else ("--preset", preset, "--size", str(size))
    command = [sys.executable, "-m", "diffusion", "probe", *options]
    probed = subprocess.run(command, capture_output=True, text=True, check=True)
    speed = json.loads(probed.stdout)["images_per_second"]
    config = _config(size, preset, start, images_in(minutes[-1], speed))
    print(f"{speed:.0f} images/s in a probe: {config.images:,} images in {minutes[-1]:g} minutes")
    run = Run(Path("out") / f"strip-{style}-{config.size}")
    shutil.rmtree(run.folder, ignore_errors=True)
    run.create(style, config)
    reference, floor = _reference(style, config.size)
    print(f"distance of as many other drawings: {floor:.1f}")
    print("minutes    images  distance")
    reached = []
    for at in minutes:
        _train_until(run, 60 * at)
        reached.append(_measure(run, at, reference))
        print(f"{at:>7g}  {reached[-1].images:>8,}  {reached[-1].distance:>8.1f}", flush=True)
    seen = reached[-1].images
    print(f"the estimate was {config.images:,} images, {config.images / seen:.2f} of what happened")
    out.parent.mkdir(parents=True, exist_ok=True)
    _strip(reached).save(out, optimize=True)
    if keep:
        _note(run, reached, {"style": style, "size": config.size, **_begun(preset, start)})


def _config(size: int, preset: str, start: str, images: int) -> TrainConfig:
    settings = settings_of(
        preset,
        start,
        size=None if start else size,
        pool=FIRST,
        threads=cpus(),
        precision=precision_name(pick_device()),
    )
    return TrainConfig(images=images, **settings)


def _train_until(run: Run, seconds: float) -> None:
    """Train on, as the page has it done, until so many seconds of training; the clock halts."""
    clock = [0.0, time.perf_counter()]

    def over() -> bool:
        return clock[0] + time.perf_counter() - clock[1] >= seconds

    if records := run.metrics():
        clock[0] = records[-1]["seconds"]
    pulses = train_run(
        run, pick_device(), PREVIEW_SECONDS, CHECKPOINT_SECONDS, stopped=over, progress=False
    )
    for pulse in pulses:
        clock[:] = pulse.seconds, time.perf_counter()


def _reference(style: str, size: int) -> tuple[Gaussian, float]:
    """Drawings that no training sees, and how far others of them are from these."""
    count = REFERENCE + len(MEASURED)
    drawn = np.stack([face(style, COUNT + i, size)[0] for i in range(count)])
    rows = features(drawn, haar)
    reference = Gaussian.of(rows[:REFERENCE])
    return reference, UNIT * frechet(Gaussian.of(rows[REFERENCE:]), reference)


def _measure(run: Run, minutes: float, reference: Gaussian) -> Mark:
    model = DiffusionModel.from_pretrained(run.model_folder, pick_device())
    measured = features(draw(model, MEASURED, RECIPE), haar)
    distance = UNIT * frechet(Gaussian.of(measured), reference)
    pictures = draw(model, SHOWN, RECIPE, len(SHOWN))
    return Mark(minutes, run.status()["images"], distance, pictures)


def _strip(reached: list[Mark]) -> Image.Image:
    """The sheets side by side, under each its minute and its distance."""
    sheets = [sheet(mark.pictures, columns=4, gap=1) for mark in reached]
    width, height = (SCALE * side for side in sheets[0].size)
    gap, font = 12, ImageFont.load_default(16)
    whole = Image.new("RGB", ((width + gap) * len(sheets) - gap, height + 2 * LINE + 6), "white")
    pen = ImageDraw.Draw(whole)
    for i, (mark, one) in enumerate(zip(reached, sheets, strict=True)):
        left = i * (width + gap)
        whole.paste(one.resize((width, height), Image.Resampling.NEAREST), (left, 0))
        minutes = f"{mark.minutes:g} min, {mark.images:,} images"
        pen.text((left + 2, height + 4), minutes, fill="#1C1B1A", font=font)
        distance = f"distance {mark.distance:.0f}"
        pen.text((left + 2, height + 4 + LINE), distance, fill="#6B6862", font=font)
    return whole


def _begun(preset: str, start: str) -> dict:
    """What tells a run from others of its style and size: its network, or what it began with."""
    return {"preset": "", "start": "shipped"} if start else {"preset": preset, "start": ""}


def _note(run: Run, reached: list[Mark], kind: dict) -> None:
    """For the page's estimate: the pictures by images seen, and when the noise was gone."""
    known = json.loads(read_text(FILE)) if FILE.is_file() else {"milestones": [], "needed": {}}
    others = [m for m in known["milestones"] if any(m[key] != kind[key] for key in kind)]
    _, config = run.config()
    measured = f"{cpus()} cores, {config.precision}, {platform.machine()}"
    for mark in reached:
        buffer = io.BytesIO()
        sheet(mark.pictures[:8], columns=4, gap=0).save(buffer, "PNG", optimize=True)
        others.append(
            {
                **kind,
                "title": STYLES[kind["style"]].title,
                "images": mark.images,
                "measured": measured,
                "picture": data_uri("image/png", buffer.getvalue()),
            }
        )
    if not kind["start"] and (cleared := _cleared(run)):
        known["needed"][f"{kind['style']}-{config.size}"] = cleared
    write_json(FILE, {"milestones": others, "needed": known["needed"]})


def _cleared(run: Run) -> int | None:
    """The images of the first preview that is hardly rougher than the pictures."""
    for path in run.previews.paths():
        found = read_settings(path) or {}
        if found.get("data_roughness") is None or not found["images"]:
            continue
        if not still_noise(found["roughness"], found["data_roughness"]):
            return found["images"]
    return None


if __name__ == "__main__":
    typer.run(main)
