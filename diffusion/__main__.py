"""The command line: python -m diffusion train | sample."""

from __future__ import annotations

from diffusion.cli import app

app(prog_name="python -m diffusion")
