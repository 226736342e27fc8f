"""How much noise each level holds, and which levels a sampler visits.

Level 0 is the clean image and level T is (nearly) pure noise, so the last step of every
sampler is an ordinary step: x_t = signal[t]·x0 + noise[t]·eps (DDPM eq. 4).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Integral

import torch
from torch import Tensor

MAX_BETA = 0.999
MAX_T = 100_000


@dataclass(frozen=True)
class Schedule:
    """The noise schedule on T + 1 levels; build one with `linear` or `cosine`.

    `alpha_bar`, `signal` and `noise` are float64 tensors of shape (T + 1,), indexed by level.
    Schedules are plain values: equal settings make equal, hashable schedules. Raises ValueError
    for settings that are none, or that leave level 1 without noise or level T without signal.
    """

    kind: str
    T: int
    beta_start: float | None = None
    beta_end: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "cosine"):
            raise ValueError(f"unknown schedule {self.kind!r}; choose 'linear' or 'cosine'")
        if not isinstance(self.T, int) or isinstance(self.T, bool) or not 1 <= self.T <= MAX_T:
            raise ValueError(
                f"a schedule of {self.T} levels; choose a whole number from 1 to {MAX_T}"
            )
        betas = (self.beta_start, self.beta_end)
        if self.kind == "cosine":
            if betas != (None, None):
                raise ValueError("a cosine schedule has no betas; leave them out, or choose linear")
            return
        for beta in betas:
            if not isinstance(beta, (int, float)) or not 0 < beta <= MAX_BETA:
                raise ValueError(f"beta {beta!r} is no number in (0, {MAX_BETA}]")
        if not (self.alpha_bar[-1] > 0 and self.alpha_bar[1] < 1):
            raise ValueError(
                f"betas from {self.beta_start:g} to {self.beta_end:g} over {self.T} levels leave "
                "no noise at the first one or no signal at the last; choose others"
            )

    @classmethod
    def linear(
        cls, T: int = 1000, beta_start: float | None = None, beta_end: float | None = None
    ) -> Schedule:
        """Betas rising linearly from 1e-4 to 0.02 (DDPM section 4), scaled by 1000 / T."""
        scale = 1000 / max(T, 1)
        return cls(
            "linear",
            T,
            min(1e-4 * scale, MAX_BETA) if beta_start is None else beta_start,
            min(0.02 * scale, MAX_BETA) if beta_end is None else beta_end,
        )

    @classmethod
    def cosine(cls, T: int = 1000) -> Schedule:
        """alpha_bar falling as a squared cosine (arXiv 2102.09672 eq. 17), beta at most 0.999."""
        return cls("cosine", T)

    @cached_property
    def beta(self) -> Tensor:
        """Variance added by step t, float64 (T + 1,); beta[0] = 0 (DDPM eq. 2)."""
        if self.kind == "linear":
            # Counted from the end, so that a single step takes the large beta.
            beta = torch.linspace(self.beta_end, self.beta_start, self.T, dtype=torch.float64)
            beta = beta.flip(0)
        else:
            level = torch.arange(self.T + 1, dtype=torch.float64)
            f = torch.cos((level / self.T + 0.008) / 1.008 * math.pi / 2) ** 2
            beta = (1 - f[1:] / f[:-1]).clamp(max=MAX_BETA)
        return torch.cat([torch.zeros(1, dtype=torch.float64), beta])

    @cached_property
    def alpha_bar(self) -> Tensor:
        """The product of 1 - beta up to level t, float64 (T + 1,); alpha_bar[0] = 1."""
        return torch.cumprod(1 - self.beta, dim=0)

    @cached_property
    def signal(self) -> Tensor:
        """√alpha_bar: how much of x0 is left in x_t, float64 (T + 1,)."""
        return self.alpha_bar.sqrt()

    @cached_property
    def noise(self) -> Tensor:
        """√(1 - alpha_bar): how much eps there is in x_t, float64 (T + 1,)."""
        return (1 - self.alpha_bar).sqrt()

    @cached_property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), float64 (T + 1,); infinite at 0."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def to_json(self) -> dict:
        """The settings as JSON types; `Schedule(**value)` is the way back."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def levels(self, S: int, spacing: str = "uniform") -> tuple[int, ...]:
        """Choose the S + 1 levels that S steps visit, from T down to 0, strictly decreasing.

        "uniform" is round(T(S-i)/S); "quadratic", round(T(i/S)²), spends more steps where the
        picture is nearly clean (DDIM appendix D.2). Raises ValueError unless 1 <= S <= T.
        """
        if not isinstance(S, Integral) or isinstance(S, bool) or not 1 <= S <= self.T:
            raise ValueError(f"{S} steps asked of a {self.T}-step schedule; choose 1 to {self.T}")
        S = int(S)  # the square of one of NumPy's small integers would overflow
        if spacing == "uniform":
            ascending = [round(self.T * i / S) for i in range(S + 1)]
        elif spacing == "quadratic":
            ascending = [round(self.T * i**2 / S**2) for i in range(S + 1)]
        else:
            raise ValueError(f"unknown spacing {spacing!r}; choose 'uniform' or 'quadratic'")
        return tuple(reversed(_apart(ascending)))


def _apart(levels: list[int]) -> list[int]:
    """Move duplicates of an ascending list apart, keeping both ends where they are."""
    levels, last = list(levels), levels[-1]
    for i in range(1, len(levels)):
        levels[i] = max(levels[i], levels[i - 1] + 1)
    levels[-1] = last
    for i in range(len(levels) - 2, -1, -1):
        levels[i] = min(levels[i], levels[i + 1] - 1)
    return levels
