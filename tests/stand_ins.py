"""Small stand-ins for a trained network and for fresh noise."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import UNet, UNetConfig
from diffusion.results import FORMAT
from diffusion.slots import Capacity

CAPACITY = Capacity(quick=8, full=32, images_per_second=1000.0, in_flight=256)


class Toy:
    """A smooth random function of x (B, features) and the time, in float64."""

    def __init__(self, features: int = 6, seed: int = 0):
        rng = torch.Generator().manual_seed(seed)
        self.mixing = torch.randn(features, features, generator=rng, dtype=torch.float64) / 2
        self.shift = torch.randn(features, generator=rng, dtype=torch.float64)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        angle = time.double()[:, None] / 1000
        return torch.tanh(x @ self.mixing + torch.sin(3 * angle + self.shift)) * (1 + angle)


class Shared:
    """Fresh noise as a function of the level, float64; remembers the levels asked for."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self.asked: list[int] = []

    def __call__(self, level: int) -> Tensor:
        self.asked.append(level)
        rng = torch.Generator().manual_seed(level)
        return torch.randn(self.shape, generator=rng, dtype=torch.float64)


class OnDisk:
    """Pictures in a file, of which only so many fit into memory."""

    def __init__(self, pixels: np.ndarray, most: int = 1024):
        self.pixels, self.most = pixels, most

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        assert len(index) <= self.most
        return self.pixels[index]


def randomised(config: UNetConfig, seed: int = 0, std: float = 0.02) -> UNet:
    """A UNet whose zero-initialised layers are random too, so that every part has a say."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(config)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=std)
    return network.eval()


def measured(sampler: str, steps: int, distance: float, **changed: object) -> dict:
    """A row of measured results, of Haar features."""
    told = {
        "frechet": distance, "kid": distance / 100, "kid_error": 0.001, "precision": 1.0,
        "recall": 1.0,
    }  # fmt: skip
    row = {
        "model": "faces", "sampler": sampler, "steps": steps, "eta": 0.0, "variance": "small",
        "spacing": "uniform", "clip": True, "guidance": 0.0, "interval": [0.0, 1.0],
        "rederive": True, "calls": steps, "seconds": 1.0, "copies": 0.0,
        "distances": {"haar": told},
    }  # fmt: skip
    return row | changed


def results(*rows: dict, **changed: object) -> dict:
    """A results file of one model, whose weights are "aaaaaaaaaaaa", with these rows."""
    value = {
        "format": FORMAT, "data": "faces.zip", "count": 1000, "seed": 0, "reference": 5000,
        "extractors": ["haar"], "machine": "cpu",
        "models": {"faces": {"weights": "aaaaaaaaaaaa", "training": {"images": 8}}},
        "floor": {"distances": measured("", 0, 37.0)["distances"], "copies": 0.0},
        "rows": {str(i): row for i, row in enumerate(rows)},
    }  # fmt: skip
    return value | changed


@contextlib.contextmanager
def recordings_shown() -> Iterator[None]:
    """The recorded runs are shown whichever weights draw."""
    from demo import recorded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "_kept", lambda file, weights: json.loads(file.read_text()))
        for name in ("reel", "made"):
            patch.setattr(recorded, name, getattr(recorded, name).__wrapped__)
        yield


def wait(until: Callable[[], object], seconds: float = 120) -> None:
    """Return when `until()` holds; fail when it does not come to hold."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def awaited(coroutine):
    """What a coroutine returns; in a thread, because Playwright's loop occupies this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result(timeout=120)


def hard_to_use(page, *parts: str) -> list[tuple[str, str, str]]:
    """What axe finds in these parts of a page: the rule, the element and what is wrong with it."""
    from axe_playwright_python.sync_playwright import Axe

    where = {"include": [[part] for part in parts]}
    found = Axe().run(page, context=where, options={"resultTypes": ["violations"]})
    return [
        (problem["id"], node["html"][:120], node.get("failureSummary", "")[:300])
        for problem in found.response["violations"]
        for node in problem["nodes"]
    ]
