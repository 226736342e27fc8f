"""Options that several commands share, declared once as the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, TypeVar, get_type_hints

Command = Callable[..., None]
Number = TypeVar("Number", int, float)


def taking(kind: type, **defaults: object) -> Callable[[Command], Command]:
    """Give a command, beside its own options, one for each field of a dataclass.

    The decorated function is called with an instance of `kind` before its own options.
    `defaults` replace those of the fields.
    """
    hints = get_type_hints(kind, include_extras=True)

    def option(field: Field) -> inspect.Parameter:
        default = defaults.get(field.name, field.default)
        return inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is MISSING else default,
            annotation=hints[field.name],
        )

    shared = [option(field) for field in fields(kind)]

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @wraps(command)
        def run(**given: Any) -> None:
            command(kind(**{option.name: given.pop(option.name) for option in shared}), **given)

        keywords = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in own]
        run.__signature__ = inspect.Signature([*shared, *keywords])
        return run

    return decorate


def numbers(
    text: str, kind: Callable[[str], Number], option: str, example: str = "10,20"
) -> list[Number]:
    """The numbers of an option such as 10,20; raises ValueError for anything else."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text!r} are no numbers; write them as {example}") from None
