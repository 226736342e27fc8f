"""What a network should predict, by measurement: `python -m benchmarks.recipe`.

Trains one network in several ways on the same pictures, batches and noise, as long each, and
measures all of them alike. It goes on where it was stopped, and puts the table into
docs/recipe.md. On two CPU cores it takes hours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.tables import check_page, put_table
from diffusion.data import load_images
from diffusion.device import pick_device
from diffusion.evaluation import Faces, Setting, Subject, drawn
from diffusion.pictures import save_png, sheet
from diffusion.recipe import Recipe
from diffusion.results import read
from diffusion.runs import Run

WAYS = {
    "dual-cosine": ["--prediction", "dual"],
    "v-cosine": ["--prediction", "v"],
    "dual-cosine-snr5": ["--prediction", "dual", "--min-snr", "5"],
    "eps-cosine": ["--prediction", "eps"],
    "dual-linear": ["--prediction", "dual", "--schedule", "linear"],
    "x0-cosine": ["--prediction", "x0"],
}
EMAS = {"dual-cosine-snr5": (0.99, 0.9995)}  # further averages to measure, by way
COMMON = ["--ema", "0.998", "--more-ema", "0.99", "--more-ema", "0.9995"]
ATTRIBUTES = "skin,hair_color,glasses,facial_hair,long_hair"
STEPS = 50
SHOWN = 16  # pictures of each model


def main(
    data: Annotated[Path, typer.Option(help="CartoonSet: a folder, .zip or .tgz.")],
    labels: Annotated[Path, typer.Option(help="The CSV of its attributes.")],
    images: Annotated[int, typer.Option(help="Pictures seen by each way.")] = 164_000,
    count: Annotated[int, typer.Option(help="Pictures drawn to measure each.")] = 500,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    runs: Annotated[Path, typer.Option(help="Where the runs are kept.")] = Path("runs"),
    backend: Annotated[str, typer.Option(help="What draws.")] = "bfloat16",
    train: Annotated[bool, typer.Option(help="Else only what is trained is measured.")] = True,
    page: Annotated[Path, typer.Option(help="Its table is replaced; the JSON goes beside.")] = (
        Path("docs/recipe.md")
    ),
) -> None:
    """Train every way, measure it, and write the table."""
    check_page(page)
    if train:
        for name, options in WAYS.items():
            _train(runs / name, data, labels, images, threads, options)
    results = runs / "recipe.json"
    words = ["--data", data, "--steps", STEPS, "--count", count, "--backend", backend]
    words += ["--threads", threads, "--out", results]
    _run("evaluate", *words, *(word for model in _models(runs) for word in ("--model", model)))
    text = table(results, data)
    put_table(page, text)
    shutil.copyfile(results, page.with_suffix(".json"))
    save_png(page.with_suffix(".png"), pictures(results, data), {"rows": "as in the table"})
    print(text)


def table(out: Path, data: Path) -> str:
    """One line for every model that was measured, the best distance first."""
    results = read(out)
    lines = [
        f"{results['count']:,} pictures per row, as many real ones in the last:",
        "",
        "| predicts | schedule | weight | average | images | minutes | FD | KID ×1000 | W-FD | "
        "precision | recall | copies | off white |",
        f"| --- | --- | --- | ---: | {'---: | ' * 9}".rstrip(),
    ]
    for row in _ranked(results):
        about = results["models"][row["model"]]
        training = about["training"]
        weight = f"min-SNR {training['min_snr']:g}" if training["min_snr"] else "1"
        lines.append(
            f"| {about['prediction']} | {about['schedule']['kind']} | {weight} | "
            f"{training['ema']:g} | {training['images']:,} | {training['seconds'] / 60:.0f} | "
            f"{_distances(row, results)} | {_off_white(row, results, data):.2f} |"
        )
    floor = _distances(results["floor"], results)
    lines.append(f"| real, unseen | | | | | | {floor} | {_floor_off_white(results, data):.2f} |")
    return "\n".join(lines)


def pictures(out: Path, data: Path) -> Image.Image:
    """The first pictures of every model, a row each in the table's order, real ones last."""
    results = read(out)
    rows = [_drawn(row, results, data)[:SHOWN] for row in _ranked(results)]
    faces = _faces(results, data)
    rows.append(faces.images.pixels[faces.unseen[:SHOWN]])
    return sheet(np.concatenate(rows), columns=SHOWN)


def _ranked(results: dict) -> list[dict]:
    first, *_ = results["extractors"]
    return sorted(results["rows"].values(), key=lambda row: row["distances"][first]["frechet"])


def _distances(row: dict, results: dict) -> str:
    first, *_ = results["extractors"]
    values = row["distances"][first]
    return (
        f"{values['frechet']:.1f} | {1000 * values['kid']:.1f} ± {1000 * values['kid_error']:.1f} "
        f"| {1000 * row['distances']['haar']['frechet']:.1f} | {values['precision']:.2f} | "
        f"{values['recall']:.2f} | {row['copies']:.1%}"
    )


def _off_white(row: dict, results: dict, data: Path) -> float:
    return _edge(_drawn(row, results, data))


def _drawn(row: dict, results: dict, data: Path) -> np.ndarray:
    """The pictures that a row was measured on."""
    subject = Subject.load(row["model"], pick_device("cpu"), results["machine"].split(", ")[1])
    setting = Setting(Recipe("ddim", STEPS))
    return drawn(subject, setting, _faces(results, data), results["seed"])[0]


def _floor_off_white(results: dict, data: Path) -> float:
    faces = _faces(results, data)
    return _edge(faces.images.pixels[faces.unseen])


def _faces(results: dict, data: Path) -> Faces:
    images = load_images(data, 64, progress=False)
    return Faces(images, results["held_out"], results["count"], tuple(results["extractors"]))


def _edge(pixels: np.ndarray) -> float:
    """Mean distance from white, in grey levels, over the outermost ring of pixels."""
    ring = np.ones(pixels.shape[1:3], dtype=bool)
    ring[1:-1, 1:-1] = False
    return float((255 - pixels[:, ring].astype(np.float64)).mean())


def _models(runs: Path) -> list[Path]:
    models = []
    for name in WAYS:
        run = Run(runs / name)
        if run.status().get("state") == "finished":
            averages = [f"model@{ema:g}" for ema in EMAS.get(name, [])]
            models += [run.folder / folder for folder in ("model", *averages)]
    return models


def _train(
    folder: Path, data: Path, labels: Path, images: int, threads: int, options: list[str]
) -> None:
    run = Run(folder)
    if run.status().get("state") == "finished":
        return
    if run.exists:
        _run("train", "--resume", "--out", folder)
        return
    words = ["--data", data, "--labels", labels, "--attributes", ATTRIBUTES, "--images", images]
    _run("train", *words, "--threads", threads, *COMMON, *options, "--out", folder)


def _run(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "diffusion", *map(str, words)], check=True)


if __name__ == "__main__":
    typer.run(main)
