"""Errors that a person can act on, as one sentence without a traceback."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from diffusion.device import MEMORY_FULL, out_of_memory
from diffusion.files import try_writing


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Print the message of an expected error and exit with code 1."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise _told(MEMORY_FULL if out_of_memory(error) else str(error)) from None


class OneSentenceGroup(TyperGroup):
    """Commands whose usage errors, such as `--seed abc`, are told like all other errors."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            said = error.format_message().rstrip(".")
            advice = f"see python -m diffusion {ctx.invoked_subcommand or ''} --help"
            raise _told(f"{said[0].lower()}{said[1:]}; {' '.join(advice.split())}") from None


def check_writable(folder: Path) -> None:
    """Raise ValueError unless files can be written under a folder, which need not be there yet."""
    with as_sentence(folder):
        try_writing(folder)


@contextlib.contextmanager
def as_sentence(path: Path) -> Iterator[None]:
    """Turn an OSError into a ValueError that says where nothing can be written, and why."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"cannot write {path} ({reason}); choose another place") from None


def _told(message: str) -> typer.Exit:
    colour = None if os.environ.get("NO_COLOR") else "red"  # no-color.org
    typer.secho(f"{message.rstrip('.')}.", fg=colour, err=True)
    return typer.Exit(1)
