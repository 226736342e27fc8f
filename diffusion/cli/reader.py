"""python -m diffusion reader"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from diffusion.cli.problem import check_writable, one_sentence
from diffusion.data import Images
from diffusion.model import CONFIG, read_config
from diffusion.reader import EPOCHS, drawn_size, train_reader
from diffusion.train_config import held_out_of, never_seen

USUAL_SIZE = 64  # pixels per side, where there is no model


def reader(
    data: Annotated[str, typer.Option(help="A folder, .zip or .tgz of real images, or toons.")],
    out: Annotated[Path, typer.Option(help="The model folder that gets reader.safetensors.")],
    labels: Annotated[
        Path | None, typer.Option(help="The CSV of their attributes, unless they bring their own.")
    ] = None,
    attributes: Annotated[
        str | None, typer.Option(help="Columns of --labels to read, as a,b,c; all.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Picture side in pixels; as of the model in --out, else 64."),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            help="Images kept back; as many as of the model in --out, else 1000 of 5000 or more, "
            "else a tenth."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="How often every image is seen.")] = EPOCHS,
    seed: Annotated[int, typer.Option(help="Decides weights and batches.")] = 0,
) -> None:
    """Train the network that tells which attributes a picture shows, on real images."""
    from tqdm import tqdm

    from diffusion.data import load_images
    from diffusion.labels import load_labels

    with one_sentence():
        if epochs < 1:
            raise ValueError(f"{epochs} epochs train nothing; choose --epochs of 1 or more")
        size = _size(out, size)
        check_writable(out)
        images = load_images(data, size, complete=True)
        wanted = attributes.split(",") if attributes else None
        if labels is not None:
            images = replace(images, labels=load_labels(labels, images.names, wanted))
        elif images.labels is None:
            raise ValueError("these images bring no attributes; add --labels FILE.csv")
        elif wanted:
            images = replace(images, labels=images.labels.only(wanted))
        if held_out is None:
            held_out = _held_out_of_model(out, images) or _usual_held_out(len(images))
        typer.echo(f"{images.told} {images.labels.known:,} have labels.")
        trained = None
        with tqdm(train_reader(images, held_out, seed, epochs), total=epochs, unit="epoch") as bar:
            for trained in bar:
                bar.set_postfix(worst=f"{min(trained.accuracy.values(), default=0):.3f}")
        trained.save(out)
        for name, right in trained.accuracy.items():
            typer.echo(f"{name}: {right:.1%} of {trained.held_out:,} held-out images read right")


def _size(folder: Path, asked: int | None) -> int:
    """Pixels per side of the pictures to learn from: a reader must know those of its model."""
    drawn = drawn_size(folder)
    if None not in (asked, drawn) and asked != drawn:
        raise ValueError(f"the model in {folder} draws {drawn} px, not {asked}; leave --size out")
    return (drawn or USUAL_SIZE) if asked is None else asked


def _held_out_of_model(folder: Path, images: Images) -> int:
    """How many of the pictures the model in a folder never saw; 0 where it does not say."""
    if not (folder / CONFIG).is_file():
        return 0
    return never_seen(read_config(folder).get("training", {}), images)


def _usual_held_out(count: int) -> int:
    return held_out_of(count) or max(count // 10, 1)
