"""The command line: python -m diffusion COMMAND."""

from __future__ import annotations

from diffusion.cli import app
from diffusion.device import keep_memory

keep_memory()
app(prog_name="python -m diffusion")
