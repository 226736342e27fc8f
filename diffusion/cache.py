"""Where decoded data sets and other recomputable files live."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(kind: str) -> Path:
    """The folder for one kind of cached file: $CARTOON_CACHE, else ~/.cache/cartoon-diffusion.

    Raises OSError where there can be none.
    """
    folder = Path(os.environ.get("CARTOON_CACHE") or _at_home()) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _at_home() -> Path:
    try:
        return Path.home() / ".cache" / "cartoon-diffusion"
    except RuntimeError as error:  # who runs this has no home
        raise OSError(f"{error} Say in CARTOON_CACHE where files may be kept.") from None
