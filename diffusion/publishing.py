"""A finished run made into a model folder to share: weights, sheets, curve and model card."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion.card import ASKED_SEEDS, ASKED_W, Card
from diffusion.denoiser import ANY
from diffusion.files import read_text, replacing, write_json
from diffusion.model import CONFIG, WEIGHTS, DiffusionModel, weights_hash
from diffusion.pictures import save_png, sheet
from diffusion.reader import AttributeReader
from diffusion.recipe import Recipe, draw
from diffusion.results import FILE as RESULTS
from diffusion.results import check_plots, of_weights
from diffusion.results import read as read_results
from diffusion.run_card import MODEL
from diffusion.runs import Run, RunError
from diffusion.sources import Source

SAMPLE_SEEDS = range(64)
SAMPLE_RECIPE = Recipe("ddim", 50)
SHEETS_OVER_TIME = 6
SHIPPED = "checkpoints"  # the project's folder of models that come with it


def publish(
    run: Run,
    folder: Path,
    title: str,
    source: Source,
    hardware: str,
    history: str = "",
    reader: Path | None = None,
    results: Path | None = None,
) -> Path:
    """Write the run's averaged weights with samples.png, progress.png, loss.png and README.md.

    The samples are seeds 0 to 63, all of them, and with labels also asked.png; `history` tells
    what the run's settings do not. `reader` is a folder whose reader.safetensors goes along,
    `results` a file of `python -m diffusion evaluate` on these weights: it goes along as
    results.json, and its table into the card. Raises RunError when the run has no model yet, when
    the folder is a run, or when the results are those of other weights, and ValueError where plots
    cannot be drawn.
    """
    _check_no_run(folder)
    if not (run.model_folder / CONFIG).is_file():
        raise RunError(f"{run.folder} has no model yet; let it train for a minute")
    measured = None if results is None else _measured(results, run)
    check_plots()
    data, config = run.config()
    reads = None if reader is None else AttributeReader.load(reader)
    if reads is not None:
        reads.check_size(config.size)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        shutil.copyfile(run.model_folder / WEIGHTS, temporary)
    _put_config(run.model_folder, folder, source)
    _put_results(measured, folder)
    model = DiffusionModel.from_pretrained(folder)
    pictures = draw(model, SAMPLE_SEEDS, SAMPLE_RECIPE)
    settings = {**SAMPLE_RECIPE.to_json(), "seeds": "0-63"}
    save_png(folder / "samples.png", sheet(pictures, columns=8), settings)
    if reads is not None:
        reads.save(folder)
    if model.labels:
        save_png(
            folder / "asked.png", _asked(model), {**SAMPLE_RECIPE.to_json(), "guidance": ASKED_W}
        )
    _progress(run).save(folder / "progress.png", optimize=True)
    _loss_curve(run, folder / "loss.png")
    card = Card(
        data,
        config,
        run.metrics(),
        model,
        title,
        source,
        hardware,
        history,
        measured,
        reader,
        f"{SHIPPED}/{folder.name}" if folder.resolve().parent.name == SHIPPED else MODEL,
    )
    (folder / "README.md").write_text(card.text(), encoding="utf-8")
    return folder


def _check_no_run(folder: Path) -> None:
    """Raise RunError for the folder of a run, whose config.json the model's would replace."""
    there = Run(folder)
    if there.checkpoint_path.is_file() or there.metrics_path.is_file() or _began(there):
        raise RunError(f"{folder} is a run; choose another --out")


def _began(run: Run) -> bool:
    """Whether config.json is that of a run; a model's has no `data`, and a `format` instead."""
    try:
        return "data" in json.loads(read_text(run.config_path))
    except (OSError, TypeError, ValueError):
        return False


def _measured(results: Path, run: Run) -> dict:
    measured = read_results(results)
    if not of_weights(measured, weights_hash(run.model_folder)):
        raise RunError(
            f"{results} measured other weights; "
            f"run `python -m diffusion evaluate --model {run.model_folder}` first"
        )
    return measured


def _put_config(made: Path, folder: Path, source: Source) -> None:
    """The model's config.json; whoever begins with the model learns from it whom to name."""
    config = json.loads((made / CONFIG).read_text(encoding="utf-8"))
    config["training"]["source"] = asdict(source)
    write_json(folder / CONFIG, config)


def _put_results(measured: dict | None, folder: Path) -> None:
    """The model's results.json; one of an earlier model goes away."""
    if measured is None:
        (folder / RESULTS).unlink(missing_ok=True)
    else:
        write_json(folder / RESULTS, measured)


def _asked(model: DiffusionModel) -> Image.Image:
    """A row of eight pictures, always of the same seeds, for every value of every attribute."""
    rows = []
    for i, values in enumerate(model.labels.values()):
        for value in range(len(values)):
            labels = [ANY] * len(model.labels)
            labels[i] = value
            rows.append(draw(model, ASKED_SEEDS, SAMPLE_RECIPE, labels=labels, guidance=ASKED_W))
    return sheet(np.concatenate(rows), columns=len(ASKED_SEEDS))


def _progress(run: Run) -> Image.Image:
    """The run's previews, a few of them, from the first to the last in equal ratios."""
    paths = run.previews.paths()
    if not paths:
        raise RunError(f"{run.folder} has no previews yet; let it train for a minute")
    final = int(paths[-1].stem)
    ratios = [2.0**-power for power in range(SHEETS_OVER_TIME - 2, -1, -1)]
    wanted = [0, *(final * ratio for ratio in ratios)]
    chosen = [min(paths, key=lambda path: abs(int(path.stem) - images)) for images in wanted]
    sheets = [Image.open(path) for path in dict.fromkeys(chosen)]
    width, height = sheets[0].size
    strip = Image.new("RGB", (width * len(sheets), height), "white")
    for i, one in enumerate(sheets):
        strip.paste(one, (i * width, 0))
    return strip


def _loss_curve(run: Run, path: Path) -> None:
    from matplotlib.figure import Figure

    records = run.metrics()
    images = [record["images"] for record in records]
    losses = torch.tensor([record["loss"] for record in records])
    window = max(len(records) // 100, 1)
    smooth = losses.unfold(0, window, 1).mean(dim=1)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(images, losses, color="#DCD8D0", linewidth=0.7)
    axes.plot(images[window - 1 :], smooth, color="#1C1B1A", linewidth=1.2)
    axes.set(xlabel="images seen", ylabel="loss", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
