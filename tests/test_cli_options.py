"""Options that commands share are declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from diffusion.cli.options import taking


@dataclass(frozen=True)
class Shared:
    name: Annotated[str, typer.Option(help="Whose.")]
    count: Annotated[int, typer.Option(help="How many.")] = 1000


def app(seen):
    commands = typer.Typer()

    @commands.command()
    @taking(Shared)
    def many(shared: Shared, steps: Annotated[int, typer.Option(help="Own.")] = 5) -> None:
        """Many."""
        seen.append((shared, steps))

    @commands.command()
    @taking(Shared, count=200)
    def few(shared: Shared) -> None:
        """Few."""
        seen.append(shared)

    return commands


def test_a_command_gets_the_shared_options_as_one_value_and_its_own_beside_it():
    seen = []
    words = ["many", "--name", "a", "--count", "3", "--steps", "7"]
    assert CliRunner().invoke(app(seen), words).exit_code == 0
    assert CliRunner().invoke(app(seen), ["many", "--name", "b"]).exit_code == 0
    assert seen == [(Shared("a", 3), 7), (Shared("b", 1000), 5)]


def test_a_command_may_have_another_default():
    seen = []
    assert CliRunner().invoke(app(seen), ["few", "--name", "a"]).exit_code == 0
    assert seen == [Shared("a", 200)]


def test_a_shared_option_without_a_default_is_required():
    done = CliRunner().invoke(app([]), ["few"])
    assert done.exit_code == 2
    assert "--name" in done.stderr
