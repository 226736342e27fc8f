"""Where decoded data sets and other recomputable files live."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(kind: str) -> Path:
    """The folder for one kind of cached file: $CARTOON_CACHE, else ~/.cache/cartoon-diffusion."""
    root = os.environ.get("CARTOON_CACHE") or Path.home() / ".cache" / "cartoon-diffusion"
    folder = Path(root) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder
