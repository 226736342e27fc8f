"""python -m diffusion train"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from diffusion.cartoons import FIRST, STYLES
from diffusion.cli.options import numbers
from diffusion.cli.problem import check_writable, one_sentence
from diffusion.cpus import cpus
from diffusion.data import Images, load_images
from diffusion.device import pick_device, precision_name
from diffusion.labels import load_labels
from diffusion.processes import give_way
from diffusion.run_pictures import labels_of, relocate
from diffusion.run_training import train_run
from diffusion.runs import Run, RunError
from diffusion.toons import BUILT_IN
from diffusion.train_config import (
    TrainConfig,
    check_held_out,
    held_out_of,
    settings_of,
)
from diffusion.training import Trainer

PROBE_SECONDS = 8.0
NOTHING_HELD_OUT = (
    "None is held back: to measure the model later with `evaluate`, start with --held-out N."
)
# Options that a run takes up each time it is trained; the others are decided when it begins.
ALSO_RESUMED = {"out", "data", "labels", "resume", "more", "at_most", "device", "nice"}
ALSO_RESUMED |= {"preview_every", "checkpoint_every"}


def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help=f"A folder, .zip or .tgz of images, or {', '.join(BUILT_IN)}. "
            "With --resume: where the run's pictures are now."
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/first"),
    preset: Annotated[
        str, typer.Option(help="tiny (32 px), small (64 px) or base (GPU).")
    ] = "small",
    minutes: Annotated[float | None, typer.Option(help="Train for about so long.")] = None,
    images: Annotated[int | None, typer.Option(help="Train on so many images.")] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, batches and noise.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    start: Annotated[
        str, typer.Option("--from", help="Begin with this model's weights: a folder or Hub name.")
    ] = "",
    more: Annotated[
        int | None, typer.Option(help="With --resume: train on so many images more.")
    ] = None,
    at_most: Annotated[
        float | None, typer.Option(help="Stop, saved, after so many minutes at the latest.")
    ] = None,
    nice: Annotated[int, typer.Option(help="Give way to other programs: 0 to 19.")] = 0,
    size: Annotated[int | None, typer.Option(help="Picture side in pixels.")] = None,
    prediction: Annotated[
        str | None,
        typer.Option(help="What the network predicts: v, eps, x0, dual (best at 64 px); v."),
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or linear; cosine.")] = None,
    min_snr: Annotated[float | None, typer.Option(help="Gamma of min-SNR weighting; off.")] = None,
    snr_floor: Annotated[
        float | None, typer.Option(help="Least SNR in the weights, for many colours; off.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weight average.")] = None,
    more_ema: Annotated[
        list[float] | None, typer.Option(help="Also keep an average of this decay; repeatable.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A CSV of the images' attributes, to ask for later. "
            "With --resume: where the run's labels are now."
        ),
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
        if resume:
            _check_resumed(context)
        if more is not None and (not resume or more < 1):
            raise ValueError("--more adds images to a run; give --resume and a number from 1 up")
        give_way(nice)
        if not resume:
            if not data:
                raise ValueError("no --data given; give a folder, .zip or .tgz of images")
            overrides = {
                "size": size,
                "batch": batch,
                "lr": lr,
                "ema": ema,
                "more_emas": tuple(more_ema or ()),
                "widths": _widths(widths),
                "seed": seed,
                "prediction": prediction,
                "schedule": schedule,
                "min_snr": min_snr,
                "snr_floor": snr_floor,
                "flip": flip,
                "held_out": held_out,
                "threads": cpus() if threads is None else threads,
                "precision": _precision(precision, where),
            }
            wanted = attributes.split(",") if attributes else None
            given = settings_of(preset, _resolved(start) if start else "", **overrides)
            _start(run, data, minutes, images, given, where, labels, wanted)
        elif data or labels:
            _refuse_alive(run)
            relocate(run, _resolved(data) if data else "", str(labels.resolve()) if labels else "")
        _follow(run, where, preview_every, checkpoint_every, at_most, more or 0)


def _resolved(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def _check_resumed(context: typer.Context) -> None:
    """Raise ValueError when an option was given that a run does not take up again."""
    ignored = [
        option.opts[0]
        for option in context.command.params
        if option.name not in ALSO_RESUMED
        and context.get_parameter_source(option.name).name == "COMMANDLINE"
    ]
    if ignored:
        raise ValueError(
            f"--resume keeps the run's own budget and settings; leave {', '.join(ignored)} out"
        )


def _refuse_alive(run: Run) -> None:
    if run.alive:
        raise RunError(f"{run.folder} is being trained; stop it first")


def _start(
    run: Run,
    data: str,
    minutes: float | None,
    images: int | None,
    given: dict,
    device: torch.device,
    labels_file: Path | None,
    attributes: list[str] | None,
) -> None:
    if run.exists:
        raise RunError(f"{run.folder} holds a run; add --resume, or choose another --out")
    check_writable(run.folder)
    if (minutes is None) == (images is None):
        raise ValueError("give a budget: either --minutes or --images")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"{minutes:g} minutes is no budget; give a positive number")
    built_in = data in BUILT_IN
    if data in STYLES:
        given.setdefault("pool", FIRST)
    config = TrainConfig(images=1 if images is None else images, **given)
    pictures = load_images(data, config.size, complete=built_in and bool(attributes))
    if "held_out" not in given:
        config = replace(config, held_out=held_out_of(len(pictures)))
    pictures.split(config.held_out)  # refuses too many before there is a run
    check_held_out(config, pictures)
    typer.echo(pictures.told)
    if not config.held_out:
        typer.echo(NOTHING_HELD_OUT)
    if labels_file is not None:
        labels = load_labels(labels_file, pictures.names, attributes)
        typer.echo(f"{labels.known:,} of {len(pictures):,} pictures have labels.")
        config = replace(config, labels=labels.names, labels_file=str(labels_file.resolve()))
    elif attributes and built_in:
        chosen = pictures.labels.only(attributes)
        config = replace(config, labels=chosen.names)
    elif attributes:
        raise ValueError("--attributes chooses columns of a file; add --labels FILE.csv")
    if minutes is not None:
        speed = images_per_second(config, pictures, device, PROBE_SECONDS)
        budget = max(int(minutes * 60 * speed), config.batch)
        config = replace(config, images=budget)
        typer.echo(f"{speed:.1f} images/s here: {budget:,} images in {minutes:g} minutes.")
    run.create(data if built_in else str(Path(data).resolve()), config)


def images_per_second(
    config: TrainConfig, pictures: Images, device: torch.device, seconds: float
) -> float:
    """Measure real steps of a trainer that is then thrown away."""
    torch.set_num_threads(config.threads)
    trainer = Trainer(replace(config, images=10**9), device)
    labels = labels_of(pictures, config)
    steps = trainer.run(pictures.pixels, np.arange(len(pictures)), labels)
    for _ in range(2):  # the first steps allocate and choose kernels
        next(steps).loss.item()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or count < 3:
        next(steps).loss.item()
        count += 1
    return count * config.batch / (time.perf_counter() - start)


def _follow(
    run: Run,
    device: torch.device,
    preview_every: float,
    checkpoint_every: float,
    at_most: float | None,
    more: int,
) -> None:
    from tqdm import tqdm

    stop = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.append(True))
    pulses = train_run(
        run,
        device,
        preview_every,
        checkpoint_every,
        stopped=lambda: bool(stop),
        more=more,
        at_most=60 * (math.inf if at_most is None else at_most),
    )
    first = next(pulses, None)  # a refusal comes here, before there is a bar
    if first is not None:
        total = run.config()[1].images
        bar = tqdm(total=total, initial=first.images, unit="img", unit_scale=True, smoothing=0.1)
        with bar:
            for pulse in chain([first], pulses):
                bar.n = pulse.images
                bar.set_postfix(loss=f"{pulse.loss:.4f}", refresh=False)
                bar.refresh()
    status = run.status()
    if status["state"] == "stopped":
        seen = f"{status['images']:,} images"
        typer.echo(f"Stopped after {seen}; go on with --resume --out {run.folder}")
    elif first is None:
        typer.echo(f"{run.folder} is already trained; add --more IMAGES to train it on")
    else:
        typer.echo(f"Trained; the model is in {run.model_folder}")


def _widths(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(numbers(text, int, "--widths", "32,64,128,256"))


def _precision(name: str, device: torch.device) -> str:
    if name == "auto":
        return precision_name(device)
    return name
