"""The command line: python -m diffusion COMMAND."""

from __future__ import annotations

from diffusion.cli import app
from diffusion.compiled import compute_with_torch
from diffusion.device import keep_memory
from diffusion.processes import print_anything

keep_memory()
compute_with_torch()
print_anything()
app(prog_name="python -m diffusion")
