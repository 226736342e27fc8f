"""Errors that a person can act on, as one sentence without a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Print the message of an expected error and exit with code 1."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise _told(str(error)) from None


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


def _told(message: str) -> typer.Exit:
    typer.secho(f"{message.rstrip('.')}.", fg="red", err=True)
    return typer.Exit(1)
