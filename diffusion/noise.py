"""The random numbers: a function of (seed, level), the same on every device and batch size.

Image i of a request with seed k is the picture of seed k + i. Its starting noise x_T is the
draw of level T and the fresh noise z of the step that lands on level s is the draw of level s,
so two samplers with the same seed share every random number that they both use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_SEED = 2**63 - 1

# The second word of the Philox key keeps streams of different purpose apart.
SAMPLING, TRAINING, EVALUATION = 0, 1, 2


def generator(
    seed: int, purpose: int = SAMPLING, level: int = 0, branch: int = 0
) -> np.random.Generator:
    """A NumPy generator that depends on its arguments alone.

    The counter's low words stay free for the draws themselves; with the level there instead,
    the streams of neighbouring levels would overlap. Raises ValueError for a bad seed.
    """
    check_seed(seed)
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, 0, level, branch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def noise(seed: int, level: int, shape: Sequence[int], branch: int = 0) -> Tensor:
    """Standard normal float32 noise of one image (`shape` without the batch), on the CPU."""
    draw = generator(seed, SAMPLING, level, branch).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(draw)


@dataclass(frozen=True)
class Noise:
    """Noise of a batch as a function of the level: `Noise(range(7, 11), (3, 64, 64))(level)`."""

    seeds: Sequence[int]
    shape: Sequence[int]
    device: torch.device | str = "cpu"
    branch: int = 0

    def __call__(self, level: int) -> Tensor:
        """(B, *shape) float32 on `device`, image i drawn from seeds[i] alone."""
        draws = self.empty()
        self.fill(draws, level, range(len(draws)))
        return self.placed(draws)

    def empty(self) -> Tensor:
        """Room for one level's noise, on the host; for a GPU in memory that it can fetch from."""
        pinned = torch.device(self.device).type == "cuda"
        return torch.empty(len(self.seeds), *self.shape, dtype=torch.float32, pin_memory=pinned)

    def fill(self, draws: Tensor, level: int, images: Sequence[int]) -> None:
        """Draw a level's noise of some of the images into their rows."""
        rows = draws.numpy()
        for i in images:
            rng = generator(self.seeds[i], SAMPLING, level, self.branch)
            rng.standard_normal(out=rows[i], dtype=np.float32)

    def placed(self, draws: Tensor) -> Tensor:
        """Drawn noise on the device."""
        return draws.to(self.device, non_blocking=draws.is_pinned())


def check_seed(seed: int) -> None:
    """Raise ValueError unless 0 <= seed < 2⁶³."""
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed!r} cannot be used; choose a whole number from 0 to 2⁶³ - 1")
