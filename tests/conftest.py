"""Fixtures of several test files, and a cache of the tests' own."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

# Before anything is imported: no test, and no process that a test starts, sees the user's cache
# or runs.
os.environ["CARTOON_CACHE"] = tempfile.mkdtemp(prefix="cartoon-tests-")
os.environ["CARTOON_RUNS"] = tempfile.mkdtemp(prefix="cartoon-runs-")
# Several processes of tests share the cores: teams of threads would wait for each other.
if (processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ["OMP_NUM_THREADS"] = str(max(os.cpu_count() // processes, 1))

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import Shared, Toy
from torch import Tensor

from diffusion import UNetConfig
from diffusion.cartoons import COUNT, LABELS, PIXELS, Drawing, face

DIFFERENT = 50  # of the built-in cartoons of a style that tests learn from


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def start() -> Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def shared() -> Shared:
    return Shared((5, 6))


@pytest.fixture(scope="session", autouse=True)
def _cache():
    yield
    import shutil

    shutil.rmtree(os.environ["CARTOON_CACHE"], ignore_errors=True)
    shutil.rmtree(os.environ["CARTOON_RUNS"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _threads():
    """Training sets the number of threads; the next test gets the old one back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> UNetConfig:
    return UNetConfig(size=16, widths=(16, 32))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve 20×20 pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(12):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((20, 20)).save(folder / f"face{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def drawn_cartoons() -> None:
    """Built-in cartoons for those who train on them: some faces again and again.

    Where none are there, the first to ask has ten thousand drawn, by a process that outlives it.
    """
    for style, size in itertools.product(("pixel-art", "toon-head"), (16, 32)):
        faces = (face(style, number, size) for number in range(DIFFERENT))
        pictures, labels = zip(*faces, strict=True)
        folder = Drawing(style, size).folder
        for name, kept in ((PIXELS, np.stack(pictures)), (LABELS, np.array(labels, np.int8))):
            (folder / name).write_bytes(kept.tobytes() * (COUNT // DIFFERENT))


@pytest.fixture(scope="module")
def in_a_hurry():
    """Nobody watches: ticks come as fast as they are computed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demo.backend.INTERVAL", 0.001)
        yield
