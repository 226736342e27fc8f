"""Fixtures of several test files, and a cache of the tests' own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before anything is imported: no test, and no process that a test starts, sees the user's cache
# or runs.
os.environ["CARTOON_CACHE"] = tempfile.mkdtemp(prefix="cartoon-tests-")
os.environ["CARTOON_RUNS"] = tempfile.mkdtemp(prefix="cartoon-runs-")

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import Shared, Toy
from torch import Tensor

from diffusion import UNetConfig


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
