"""The folder that uploads come into, and what clears it.

Gradio forgets the file of an upload that breaks off: it would stay for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from diffusion.cache import cache_dir

VARIABLE = "GRADIO_TEMP_DIR"  # where Gradio puts uploads
OWN = "page-uploads"  # a folder where nothing else is
EVERY = 900  # seconds from one look to the next


def use_own_folder() -> None:
    """Let uploads come into a folder of their own, unless the user named another."""
    if not os.environ.get(VARIABLE):
        with contextlib.suppress(OSError):  # then it is the folder that Gradio chooses
            os.environ[VARIABLE] = str(cache_dir(OWN))


@contextlib.asynccontextmanager
async def sweeping(_app: object, kept: float) -> AsyncIterator[None]:
    """For as long as the server runs, delete now and then what is older than `kept` seconds.

    In a folder that the user named, others may have files: it is left alone.
    """
    folder = Path(os.environ.get(VARIABLE, ""))
    task = asyncio.create_task(_now_and_then(folder, kept)) if folder.name == OWN else None
    try:
        yield
    finally:
        if task:
            task.cancel()


async def _now_and_then(folder: Path, kept: float) -> None:
    while True:
        await asyncio.to_thread(sweep, folder, kept)
        await asyncio.sleep(EVERY)


def sweep(folder: Path, kept: float) -> None:
    """Delete files, and empty folders, that nobody changed for `kept` seconds."""
    inside = [
        Path(place, name)
        for place, folders, names in os.walk(folder, topdown=False)
        for name in (*names, *folders)
    ]
    for path in [path for path in inside if _age(path) > kept]:
        with contextlib.suppress(OSError):  # a folder is not empty, or somebody was quicker
            path.rmdir() if path.is_dir() else path.unlink()


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:  # gone
        return 0.0
