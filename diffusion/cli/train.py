"""python -m diffusion train"""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from diffusion.cli.problem import one_sentence
from diffusion.data import Images, load_images
from diffusion.device import pick_device, training_precision
from diffusion.labels import load_labels
from diffusion.runs import Run, RunError, labels_of, train_run
from diffusion.training import PRESETS, TrainConfig, Trainer

PROBE_SECONDS = 8.0


def train(
    data: Annotated[str, typer.Option(help="A folder, .zip or .tgz of images.")] = "",
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/first"),
    preset: Annotated[
        str, typer.Option(help="tiny (32 px), small (64 px) or base (GPU).")
    ] = "small",
    minutes: Annotated[float | None, typer.Option(help="Train for about so long.")] = None,
    images: Annotated[int | None, typer.Option(help="Train on so many images.")] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, batches and noise.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    size: Annotated[int | None, typer.Option(help="Picture side in pixels.")] = None,
    prediction: Annotated[
        str, typer.Option(help="What the network predicts: v, eps, x0, dual.")
    ] = "v",
    schedule: Annotated[str, typer.Option(help="cosine or linear.")] = "cosine",
    min_snr: Annotated[float | None, typer.Option(help="Gamma of min-SNR weighting; off.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weight average.")] = None,
    more_ema: Annotated[
        list[float] | None, typer.Option(help="Also keep an average of this decay; repeatable.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A CSV of the images' attributes, to ask for later.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(help="Columns of --labels to learn, as a,b,c; all.")
    ] = None,
    widths: Annotated[
        str | None, typer.Option(help="Channels per resolution, as 32,64,128,256.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror half of the images.")] = False,
    held_out: Annotated[
        int | None, typer.Option(help="Images kept back; 1000 of 5000 or more, else 0.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    preview_every: Annotated[float, typer.Option(help="Seconds between previews.")] = 60.0,
    checkpoint_every: Annotated[
        float, typer.Option(help="Seconds between checkpoints; a crash loses what came after.")
    ] = 60.0,
) -> None:
    """Train a model from nothing. Ctrl-C saves; --resume goes on exactly where it was."""
    with one_sentence():
        run, where = Run(out), pick_device(device)
        if not resume:
            if not data:
                raise ValueError("no --data given; give a folder, .zip or .tgz of images")
            overrides = {
                "size": size,
                "batch": batch,
                "lr": lr,
                "ema": ema,
                "more_emas": tuple(more_ema or ()),
                "widths": _numbers(widths),
                "seed": seed,
                "prediction": prediction,
                "schedule": schedule,
                "min_snr": min_snr,
                "flip": flip,
                "held_out": held_out,
                "threads": threads or os.cpu_count(),
                "precision": _precision(precision, where),
            }
            wanted = attributes.split(",") if attributes else None
            _start(run, data, preset, minutes, images, overrides, where, labels, wanted)
        elif minutes is not None or images is not None:
            raise ValueError(
                "--resume keeps the run's own budget; leave --minutes and --images out"
            )
        _follow(run, where, preview_every, checkpoint_every)


def _start(
    run: Run,
    data: str,
    preset: str,
    minutes: float | None,
    images: int | None,
    overrides: dict,
    device: torch.device,
    labels_file: Path | None,
    attributes: list[str] | None,
) -> None:
    if run.exists:
        raise RunError(f"{run.folder} holds a run; add --resume, or choose another --out")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose {', '.join(PRESETS)}")
    if (minutes is None) == (images is None):
        raise ValueError("give a budget: either --minutes or --images")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"{minutes:g} minutes is no budget; give a positive number")
    given = {key: value for key, value in overrides.items() if value is not None}
    config = TrainConfig(**{"images": 1 if images is None else images, **PRESETS[preset], **given})
    pictures = load_images(data, config.size)
    if "held_out" not in given:
        config = replace(config, held_out=1000 if len(pictures) >= 5000 else 0)
    pictures.split(config.held_out)  # refuses too many before there is a run
    if labels_file is not None:
        labels = load_labels(labels_file, pictures.names, attributes)
        config = replace(config, labels=labels.names, labels_file=str(labels_file.resolve()))
    elif attributes:
        raise ValueError("--attributes chooses columns of a file; add --labels FILE.csv")
    if minutes is not None:
        speed = _images_per_second(config, pictures, device)
        budget = max(int(minutes * 60 * speed), config.batch)
        config = replace(config, images=budget)
        typer.echo(f"{speed:.1f} images/s here: {budget:,} images in {minutes:g} minutes.")
    run.create(str(Path(data).resolve()), config)


def _images_per_second(config: TrainConfig, pictures: Images, device: torch.device) -> float:
    """Measure real steps of a trainer that is then thrown away."""
    torch.set_num_threads(config.threads)
    trainer = Trainer(replace(config, images=10**9), device)
    labels = labels_of(pictures, config)
    steps = trainer.run(pictures.pixels, np.arange(len(pictures)), labels)
    for _ in range(2):  # the first steps allocate and choose kernels
        next(steps).loss.item()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < PROBE_SECONDS or count < 3:
        next(steps).loss.item()
        count += 1
    return count * config.batch / (time.perf_counter() - start)


def _follow(run: Run, device: torch.device, preview_every: float, checkpoint_every: float) -> None:
    from tqdm import tqdm

    stop = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.append(True))
    total = run.config()[1].images
    pulses = train_run(run, device, preview_every, checkpoint_every, stopped=lambda: bool(stop))
    first = pulse = next(pulses, None)  # a refusal comes here, before there is a bar
    begun = first.images if first else 0
    with tqdm(total=total, initial=begun, unit="img", unit_scale=True, smoothing=0.1) as bar:
        for pulse in chain([first] if first else [], pulses):
            bar.n = pulse.images
            bar.set_postfix(loss=f"{pulse.loss:.4f}", refresh=False)
            bar.refresh()
    if pulse is not None and pulse.images < total:
        typer.echo(f"Stopped after {pulse.images:,} images; go on with --resume --out {run.folder}")
    else:
        typer.echo(f"Trained; the model is in {run.model_folder}")


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"widths {text!r} are no numbers; write them as 32,64,128,256") from None


def _precision(name: str, device: torch.device) -> str:
    if name == "auto":
        return str(training_precision(device)).removeprefix("torch.")
    return name
