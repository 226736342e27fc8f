"""python -m diffusion reader"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from diffusion.cli.problem import one_sentence


def reader(
    data: Annotated[str, typer.Option(help="A folder, .zip or .tgz of real images, or toons.")],
    out: Annotated[Path, typer.Option(help="The model folder that gets reader.safetensors.")],
    labels: Annotated[
        Path | None, typer.Option(help="The CSV of their attributes, unless they bring their own.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(help="Columns of --labels to read, as a,b,c; all.")
    ] = None,
    size: Annotated[int, typer.Option(help="Picture side in pixels.")] = 64,
    held_out: Annotated[
        int | None, typer.Option(help="Images kept back; 1000 of 5000 or more, else a tenth.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="How often every image is seen.")] = 12,
    seed: Annotated[int, typer.Option(help="Decides weights and batches.")] = 0,
) -> None:
    """Train the network that tells which attributes a picture shows, on real images."""
    from tqdm import tqdm

    from diffusion.data import load_images
    from diffusion.labels import load_labels
    from diffusion.reader import train_reader

    with one_sentence():
        images = load_images(data, size, complete=True)
        wanted = attributes.split(",") if attributes else None
        if labels is not None:
            images = replace(images, labels=load_labels(labels, images.names, wanted))
        elif images.labels is None:
            raise ValueError("these images bring no attributes; add --labels FILE.csv")
        elif wanted:
            images = replace(images, labels=images.labels.only(wanted))
        if held_out is None:
            held_out = 1000 if len(images) >= 5000 else max(len(images) // 10, 1)
        if epochs < 1:
            raise ValueError(f"{epochs} epochs train nothing; choose --epochs of 1 or more")
        trained = None
        with tqdm(train_reader(images, held_out, seed, epochs), total=epochs, unit="epoch") as bar:
            for trained in bar:
                bar.set_postfix(worst=f"{min(trained.accuracy.values(), default=0):.3f}")
        trained.save(out)
        for name, right in trained.accuracy.items():
            typer.echo(f"{name}: {right:.1%} of {trained.held_out:,} held-out images read right")
