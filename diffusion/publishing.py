"""A finished run made into a model folder to share: weights, sheets, curve and model card."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image

from diffusion.data import Source
from diffusion.files import replacing
from diffusion.model import CONFIG, WEIGHTS, DiffusionModel
from diffusion.pictures import save_png, sheet
from diffusion.recipe import Recipe, draw
from diffusion.runs import Run, RunError
from diffusion.training import TrainConfig
from diffusion.unet import gflop, parameter_count

SAMPLE_SEEDS = range(64)
SAMPLE_RECIPE = Recipe("ddim", 50)
SHEETS_OVER_TIME = 6
PREDICTS = {
    "v": "v",
    "eps": "the noise",
    "x0": "the clean picture",
    "dual": "v, the clean picture and a gate between them for every pixel",
}


def publish(
    run: Run, folder: Path, title: str, source: Source, hardware: str, history: str = ""
) -> Path:
    """Write the run's averaged weights with samples.png, progress.png, loss.png and README.md.

    The samples are seeds 0 to 63, all of them; `history` tells what the run's settings do not.
    Raises RunError when the run has no model yet.
    """
    if not (run.model_folder / CONFIG).is_file():
        raise RunError(f"{run.folder} has no model yet; let it train for a minute")
    if find_spec("matplotlib") is None:
        raise RunError("the loss curve is drawn with matplotlib; pip install matplotlib first")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        with replacing(folder / name) as temporary:
            shutil.copyfile(run.model_folder / name, temporary)
    model = DiffusionModel.from_pretrained(folder)
    pictures = draw(model, SAMPLE_SEEDS, SAMPLE_RECIPE)
    settings = {**SAMPLE_RECIPE.to_json(), "seeds": "0-63"}
    save_png(folder / "samples.png", sheet(pictures, columns=8), settings)
    _progress(run).save(folder / "progress.png", optimize=True)
    _loss_curve(run, folder / "loss.png")
    (folder / "README.md").write_text(_card(run, model, title, source, hardware, history))
    return folder


def _progress(run: Run) -> Image.Image:
    """The run's previews, a few of them, from the first to the last in equal ratios."""
    paths = sorted(run.previews.glob("*.png"))
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


def _card(
    run: Run, model: DiffusionModel, title: str, source: Source, hardware: str, history: str
) -> str:
    _, config = run.config()
    records = run.metrics()
    images, hours = records[-1]["images"], records[-1]["seconds"] / 3600
    network, size = model.network, model.shape[1]
    command = f"python -m diffusion train --data ARCHIVE --images {config.images} --out runs/NAME"
    if config.prediction != "v":
        command += f" --prediction {config.prediction}"
    if config.ema != TrainConfig.ema:
        command += f" --ema {config.ema:g}"
    held_out = (
        f"{config.held_out:,} of them, the last by their names' SHA-256, were never trained on."
        if config.held_out
        else "None of them were held out."
    )
    widths = ", ".join(map(str, config.widths))
    weight = "1, every level" if config.min_snr is None else f"min-SNR, gamma {config.min_snr:g}"
    optimizer = f"AdamW, batch {config.batch}, learning rate {config.lr:g}"
    flip = " Half of the pictures were mirrored." if config.flip else ""
    told = f"\n{history}\n" if history else ""
    return f"""---
license: {source.licence.lower().replace(" ", "-")}
library_name: cartoon-diffusion
pipeline_tag: unconditional-image-generation
tags: [diffusion, ddpm, ddim]
---

# {title}

A diffusion model of {size}×{size} pictures, {parameter_count(network) / 1e6:.1f} M weights and
{gflop(network):.2f} GFLOP per picture and step.

![Seeds 0 to 63, all of them, DDIM with 50 steps](samples.png)

Seeds 0 to 63, all of them, by DDIM with 50 steps and η 0:
`python -m diffusion sample --model . --steps 50 --count 64 --out samples.png`

## Data

[{source.name}]({source.url}) by {source.author}, {source.licence}. {source.note}
{held_out}{flip}

The weights may be used with the same attribution: "trained on {source.name}, {source.author},
{source.licence}".

## Training

`{command}`
{told}
| | |
|---|---|
| images seen | {images:,} |
| hardware | {hardware}, {hours:.1f} hours |
| network | U-Net on 2×2 folded pixels, widths {widths}, attention at 8×8 |
| predicts | {PREDICTS[config.prediction]}, {config.schedule} schedule, T = {config.T} |
| loss weight | {weight} |
| optimizer | {optimizer}, average of weights {config.ema:g} |
| precision | {config.precision} |

![Loss against images seen](loss.png)

The same 16 seeds by DDIM with 20 steps, from the first step to the last; each sheet after the
second has seen twice as many images as the one before:

![Sixteen seeds over the training](progress.png)

## Limits

It draws what the data holds: one style, frontal faces, a plain white background, and the skin
tones, hair and glasses that its authors drew. It takes no wishes: every picture is a draw at
random. Small flaws in hair and glasses remain. Quality was judged by eye and by the test suite;
no distance to the data was measured.
"""
