"""The commands of python -m diffusion, one file each."""

import typer

from diffusion.cli.evaluate import evaluate, guidance, report
from diffusion.cli.probe import probe
from diffusion.cli.problem import OneSentenceGroup
from diffusion.cli.publish import publish
from diffusion.cli.reader import reader
from diffusion.cli.sample import sample
from diffusion.cli.train import train

app = typer.Typer(
    cls=OneSentenceGroup,
    add_completion=False,
    no_args_is_help=True,
    help="Train and sample small diffusion models.",
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(sample)
app.command()(evaluate)
app.command()(guidance)
app.command()(report)
app.command()(publish)
app.command()(probe)
app.command()(reader)
