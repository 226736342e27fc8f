"""python -m diffusion publish"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffusion.cli.problem import check_writable, one_sentence
from diffusion.publishing import publish as publish_run
from diffusion.runs import Run
from diffusion.sources import Source
from diffusion.toons import BUILT_IN, source_of


def publish(
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    title: Annotated[str, typer.Option(help="The model card's title.")],
    data_name: Annotated[
        str, typer.Option(help="What the pictures are called; known of built-in ones.")
    ] = "",
    data_author: Annotated[str, typer.Option(help="Who made them.")] = "",
    data_licence: Annotated[str, typer.Option(help="Under which licence.")] = "",
    data_url: Annotated[str, typer.Option(help="Where they are.")] = "",
    data_note: Annotated[str, typer.Option(help="What was done to them.")] = "",
    hardware: Annotated[str, typer.Option(help="What it was trained on.")] = "CPU",
    history: Annotated[str, typer.Option(help="What the run's settings do not tell.")] = "",
    reader: Annotated[
        Path | None, typer.Option(help="Folder of a reader.safetensors to put beside.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="JSON of `evaluate` on this run's model; its table goes into the card."),
    ] = None,
) -> None:
    """Turn a run into a model folder with samples, loss curve and model card."""
    with one_sentence():
        check_writable(out)
        source = _source(Run(run), data_name, data_author, data_licence, data_url, data_note)
        folder = publish_run(Run(run), out, title, source, hardware, history, reader, results)
        typer.echo(f"Published to {folder}")


def _source(run: Run, *told: str) -> Source:
    *needed, _ = told
    data, _ = run.config()
    if data in BUILT_IN and not any(told):
        return source_of(data)
    if not all(needed):
        raise ValueError(
            "a card says whose pictures a model learned from; "
            "give --data-name, --data-author, --data-licence and --data-url"
        )
    return Source(*told)
