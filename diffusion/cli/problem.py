"""Errors that a person can act on, as one sentence without a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Print the message of an expected error and exit with code 1."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        typer.secho(f"{str(error).rstrip('.')}.", fg="red", err=True)
        raise typer.Exit(1) from None
