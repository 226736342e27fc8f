"""python -m diffusion evaluate | guidance: measure models against real pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer

from diffusion.cli.problem import one_sentence
from diffusion.data import load_images
from diffusion.device import pick_device
from diffusion.evaluation import (
    REFERENCE,
    Faces,
    Setting,
    Subject,
    chance_of,
    evaluate_row,
    floor_row,
    grid,
)
from diffusion.features import extractors
from diffusion.labels import load_labels
from diffusion.model import DiffusionModel, ModelError, weights_hash
from diffusion.reader import AttributeReader, reader_beside
from diffusion.recipe import Recipe, check_guidance
from diffusion.results import Results
from diffusion.training import PRECISIONS

HELD_OUT = 1000  # where a model does not say what it never saw
TABLE_GUIDANCE = (0.0, 1.0, 2.0, 3.0, 5.0)
TABLE_INTERVAL = (0.1, 0.8)

Number = TypeVar("Number", int, float)
Models = Annotated[list[str], typer.Option(help="A model's folder; repeatable.")]
Data = Annotated[str, typer.Option(help="The images it was trained on: folder, .zip or .tgz.")]
Out = Annotated[Path, typer.Option(help="FILE.json; FILE.md and FILE.png come beside it.")]
Labels = Annotated[Path | None, typer.Option(help="The CSV of the images' attributes.")]
Count = Annotated[int, typer.Option(help="Pictures per row.")]
Reader = Annotated[
    Path | None, typer.Option(help="Folder with reader.safetensors; the first model's.")
]
Names = Annotated[str | None, typer.Option(help="Feature extractors, as a,b; all that are here.")]
Batch = Annotated[int | None, typer.Option(help="Pictures computed together.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16, of the network.")]
Seed = Annotated[int, typer.Option(help="Of the first picture.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; torch's choice.")]


def evaluate(
    model: Models,
    data: Data,
    out: Out,
    labels: Labels = None,
    samplers: Annotated[str, typer.Option(help="ddpm, ddim, dpmpp_2m, as a,b.")] = "ddim",
    steps: Annotated[str, typer.Option(help="Numbers of steps, as 10,20,50.")] = "50",
    eta: Annotated[str, typer.Option(help="Of ddim, as 0,0.5,1.")] = "0",
    variance: Annotated[str, typer.Option(help="Of ddpm, as small,large.")] = "small",
    spacing: Annotated[str, typer.Option(help="uniform or quadratic.")] = "uniform",
    guidance: Annotated[str, typer.Option(help="As 0,1,2; 0 draws at random.")] = "0",
    count: Count = 1000,
    seed: Seed = 0,
    reader: Reader = None,
    features: Names = None,
    batch: Batch = None,
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = None,
) -> None:
    """Measure models against real pictures; a second call goes on, or adds rows to the file."""
    with one_sentence():
        settings = grid(
            samplers.split(","),
            _numbers(steps, int, "--steps"),
            _numbers(eta, float, "--eta"),
            variance.split(","),
            _numbers(guidance, float, "--guidance"),
            spacing,
        )
        _measure(
            model, data, out, labels, settings, count, seed, reader, features, batch, device,
            precision, threads,
        )  # fmt: skip


def guidance(
    model: Models,
    data: Data,
    out: Out,
    labels: Labels = None,
    count: Count = 200,
    seed: Seed = 0,
    reader: Reader = None,
    features: Names = None,
    batch: Batch = None,
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = None,
    ddpm_steps: Annotated[int, typer.Option(help="Steps of DDPM.")] = 1000,
    ddim_steps: Annotated[int, typer.Option(help="Steps of DDIM.")] = 50,
) -> None:
    """Table of attribute fidelity against guidance, under DDPM and DDIM, and of the naive way."""
    with one_sentence():
        settings = [
            setting
            for recipe in (Recipe("ddim", ddim_steps), Recipe("ddpm", ddpm_steps))
            for setting in guidance_settings(recipe)
        ]
        _measure(
            model, data, out, labels, settings, count, seed, reader, features, batch, device,
            precision, threads,
        )  # fmt: skip


def guidance_settings(recipe: Recipe) -> list[Setting]:
    """Each strength as it should be, in an interval, and with the eps of the unclipped x0."""
    settings = [Setting(recipe, w) for w in TABLE_GUIDANCE]
    strong = [w for w in TABLE_GUIDANCE if w > 1]
    settings += [Setting(recipe, w, interval=TABLE_INTERVAL) for w in strong]
    return settings + [Setting(recipe, w, rederive=False) for w in strong]


def _measure(
    models: Sequence[str],
    data: str,
    out: Path,
    labels: Path | None,
    settings: Sequence[Setting],
    count: int,
    seed: int,
    reader_folder: Path | None,
    names: str | None,
    batch: int | None,
    device: str,
    precision: str,
    threads: int | None,
) -> None:
    from tqdm import tqdm

    if out.suffix != ".json":
        raise ValueError(f"{out} is no results file; end --out in .json")
    if threads:
        torch.set_num_threads(threads)
    for setting in settings:
        check_guidance(setting.guidance)
    where = pick_device(device)
    subjects = [subject_of(name, where, precision) for name in models]
    for subject in subjects:
        for setting in settings:
            setting.recipe.plan(subject.model.schedule)  # refuses before anything is drawn
    reader = reader_beside(reader_folder or models[0])
    faces = _faces(subjects, data, labels, count, names, reader, settings)
    results = Results(out, _shared(faces, data, seed, where, precision, reader))
    missing = [
        (subject, setting, key)
        for subject in subjects
        for setting in settings
        if (key := subject.row_key(setting, faces, seed)) not in results
    ]
    calls = sum(s.calls(subject.model.schedule) for subject, s, _ in missing) * count
    with tqdm(total=calls, desc="Measuring", unit=" calls", unit_scale=True) as bar:
        if results.floor is None:
            results.add_floor(floor_row(faces, reader))
        for subject, setting, key in missing:
            bar.set_postfix_str(f"{subject.name}, {setting.recipe.sampler}, w {setting.guidance:g}")
            row = evaluate_row(subject, setting, faces, seed, reader, batch, bar.update)
            results.add(key, row, _about(subject))
    written = results.write_report()
    typer.echo(written[0].read_text())
    typer.echo(f"Wrote {out}, {written[0]} and {written[1]}")


def subject_of(name: str, device: torch.device, precision: str) -> Subject:
    """The model in a folder, its network in that number format, ready to be measured."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose {', '.join(PRECISIONS)}")
    model = DiffusionModel.from_pretrained(name, device)
    if model.shape[0] != 3:
        raise ModelError(f"{name} draws {model.shape[0]} channels; only RGB can be measured")
    model.network.to(PRECISIONS[precision])
    return Subject(name, model, weights_hash(name))


def _faces(
    subjects: Sequence[Subject],
    data: str,
    labels: Path | None,
    count: int,
    names: str | None,
    reader: AttributeReader | None,
    settings: Sequence[Setting],
) -> Faces:
    models = [subject.model for subject in subjects]
    sizes = {model.shape[1] for model in models}
    kept = {int(model.training.get("held_out", HELD_OUT)) for model in models}
    if len(sizes) > 1 or len(kept) > 1:
        raise ValueError(
            "these models differ in size or in what they never saw; measure them apart"
        )
    attributes = {tuple(model.labels) for model in models}
    if any(setting.guidance for setting in settings):
        if len(attributes) > 1 or not any(attributes):
            raise ValueError("guided pictures need models with the same labels; use --guidance 0")
        if labels is None:
            raise ValueError("guided pictures ask for real pictures' attributes; add --labels")
    images = load_images(data, sizes.pop())
    if labels is not None:
        wanted = list(dict.fromkeys([*max(attributes), *(reader.labels if reader else ())]))
        images = replace(images, labels=load_labels(labels, images.names, wanted or None))
    chosen = names.split(",") if names else list(extractors())
    return Faces(images, kept.pop(), count, tuple(chosen))


def _shared(
    faces: Faces,
    data: str,
    seed: int,
    device: torch.device,
    precision: str,
    reader: AttributeReader | None,
) -> dict:
    """What all rows of a file have in common."""
    shared = {
        "data": Path(data).name,
        "data_key": faces.images.key,
        "count": faces.count,
        "seed": seed,
        "reference": min(REFERENCE, len(faces.training)),
        "held_out": faces.held_out,
        "extractors": list(faces.names),
        "machine": f"{device.type}, {precision}, torch {torch.__version__}",
    }
    if reader is not None:
        shared["reader"] = {"accuracy": dict(reader.accuracy), "held_out": reader.held_out}
        if faces.images.labels is not None:
            shared["chance"] = chance_of(faces, reader)
    return shared


def _about(subject: Subject) -> dict:
    return {
        "weights": subject.weights,
        "prediction": subject.model.prediction,
        "schedule": subject.model.schedule.to_json(),
        "training": dict(subject.model.training),
    }


def _numbers(text: str, kind: Callable[[str], Number], option: str) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text!r} are no numbers; write them as 10,20") from None
