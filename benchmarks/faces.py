"""docs/faces.png: 64 drawn faces, seeds 0 to 63, none left out, beside 64 real ones.

`python -m benchmarks.faces --data cartoonset9k-64.zip` draws with the shipped model, or --model.
The real ones are the first that the model never saw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from demo.recorded import MODEL
from diffusion import DiffusionModel
from diffusion.backends import accelerated
from diffusion.data import load_images
from diffusion.pictures import save_png, sheet
from diffusion.recipe import Recipe, draw
from diffusion.train_config import never_seen

COUNT, COLUMNS = 64, 8
BETWEEN = 32  # white pixels


def main(
    data: Annotated[str, typer.Option(help="What it learned from: folder, .zip, .tgz or toons.")],
    model: Annotated[str, typer.Option(help="The model's folder.")] = str(MODEL),
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("docs/faces.png"),
    steps: Annotated[int, typer.Option(help="Of DDIM.")] = 50,
) -> None:
    """Draw, and put real faces beside."""
    loaded = DiffusionModel.from_pretrained(model)
    drawn = draw(accelerated(loaded), range(COUNT), Recipe("ddim", steps))
    images = load_images(data, loaded.shape[1])
    _, unseen = images.split(never_seen(loaded.training, images) or COUNT)
    real = np.asarray(images.pixels[unseen[:COUNT]])
    left, right = (sheet(pictures, columns=COLUMNS) for pictures in (drawn, real))
    both = Image.new("RGB", (left.width + BETWEEN + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + BETWEEN, 0))
    save_png(out, both, {"left": f"seeds 0-63, ddim {steps}, {loaded.version}", "right": "real"})
    print(f"{out}: drawn on the left, real on the right")


if __name__ == "__main__":
    typer.run(main)
