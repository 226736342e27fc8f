"""python -m diffusion evaluate | guidance | report: measure models against real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffusion.cli.measurement import Measurement
from diffusion.cli.options import numbers, taking
from diffusion.cli.problem import one_sentence
from diffusion.evaluation import Setting, grid
from diffusion.recipe import Recipe
from diffusion.results import write_report

TABLE_GUIDANCE = (0.0, 1.0, 2.0, 3.0, 5.0)
TABLE_INTERVAL = (0.1, 0.8)


@taking(Measurement)
def evaluate(
    measurement: Measurement,
    samplers: Annotated[str, typer.Option(help="ddpm, ddim, dpmpp_2m, as a,b.")] = "ddim",
    steps: Annotated[str, typer.Option(help="Numbers of steps, as 10,20,50.")] = "50",
    eta: Annotated[str, typer.Option(help="Of ddim, as 0,0.5,1.")] = "0",
    variance: Annotated[str, typer.Option(help="Of ddpm, as small,large.")] = "small",
    spacing: Annotated[str, typer.Option(help="uniform or quadratic.")] = "uniform",
    guidance: Annotated[str, typer.Option(help="As 0,1,2; 0 draws at random.")] = "0",
    finish: Annotated[str, typer.Option(help="none or crisp; see sample.")] = "none",
) -> None:
    """Measure models against real pictures; a second call goes on, or adds rows to the file."""
    with one_sentence():
        settings = grid(
            samplers.split(","),
            numbers(steps, int, "--steps"),
            numbers(eta, float, "--eta"),
            variance.split(","),
            numbers(guidance, float, "--guidance"),
            spacing,
            finish,
        )
        measurement.run(settings)


@taking(Measurement, count=200)
def guidance(
    measurement: Measurement,
    ddpm_steps: Annotated[int, typer.Option(help="Steps of DDPM.")] = 1000,
    ddim_steps: Annotated[int, typer.Option(help="Steps of DDIM.")] = 50,
) -> None:
    """Table of attribute fidelity against guidance, under DDPM and DDIM, and of the naive way."""
    with one_sentence():
        recipes = (Recipe("ddim", ddim_steps), Recipe("ddpm", ddpm_steps))
        measurement.run([setting for recipe in recipes for setting in guidance_settings(recipe)])


def report(
    results: Annotated[Path, typer.Argument(help="FILE.json of `evaluate` or `guidance`.")],
) -> None:
    """Write FILE.md and FILE.png beside FILE.json again, without measuring anything."""
    with one_sentence():
        table, plot = write_report(results)
        typer.echo(f"Wrote {table} and {plot}")


def guidance_settings(recipe: Recipe) -> list[Setting]:
    """Each strength as it should be, in an interval, and with the eps of the unclipped x0."""
    settings = [Setting(recipe, w) for w in TABLE_GUIDANCE]
    strong = [w for w in TABLE_GUIDANCE if w > 1]
    settings += [Setting(recipe, w, interval=TABLE_INTERVAL) for w in strong]
    return settings + [Setting(recipe, w, rederive=False) for w in strong]
