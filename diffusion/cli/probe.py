"""python -m diffusion probe"""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import typer

from diffusion.cli.problem import one_sentence
from diffusion.cli.train import images_per_second
from diffusion.cpus import cpus
from diffusion.data import Images
from diffusion.device import pick_device, precision_name
from diffusion.processes import give_way
from diffusion.train_config import PRESETS, TrainConfig, settings_of

PICTURES = 256


def probe(
    preset: Annotated[str, typer.Option(help=f"{', '.join(PRESETS)}.")] = "tiny",
    size: Annotated[int | None, typer.Option(help="Picture side in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    start: Annotated[str, typer.Option("--from", help="Measure this model's network.")] = "",
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 2.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    nice: Annotated[int, typer.Option(help="Give way to other programs: 0 to 19.")] = 0,
) -> None:
    """Measure how many images a training of this kind sees in a second, as JSON."""
    with one_sentence():
        give_way(nice)
        where = pick_device(device)
        settings = settings_of(
            preset, start, size=size, batch=batch, precision=precision_name(where), threads=cpus()
        )
        config = TrainConfig(images=1, **settings)
        rng = np.random.default_rng(0)
        shape = (PICTURES, config.size, config.size, 3)
        pictures = rng.integers(0, 256, shape, dtype=np.uint8)
        noise = Images(pictures, tuple(map(str, range(PICTURES))), "noise")
        speed = images_per_second(config, noise, where, seconds)
        typer.echo(json.dumps({"images_per_second": round(speed, 1)}))
