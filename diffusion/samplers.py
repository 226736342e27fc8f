"""DDPM, DDIM and DPM-Solver++(2M) as tables, and the one loop that walks them.

Every step re-mixes the predicted clean image and the predicted noise:

    x_s = A·x0 + B·eps + C·x0_previous + D·z

A sampler is a function from (schedule, levels) to a plan, a tuple of such rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Step:
    """One row: from level t to level s with the four coefficients of the update."""

    t: int
    s: int
    A: float  # of x0, the clean image predicted at level t
    B: float  # of eps, the noise predicted at level t
    C: float = 0.0  # of the x0 predicted one step earlier
    D: float = 0.0  # of z, fresh noise


Plan = tuple[Step, ...]


@dataclass(frozen=True)
class Frame:
    """What one step shows, each (B, ...): x at level s, and what it was mixed from."""

    t: int
    s: int
    x: Tensor
    x0: Tensor  # predicted at level t
    eps: Tensor  # predicted at level t
    x_t: Tensor  # x before the step, at level t
    x0_previous: Tensor  # predicted one step earlier; at the first step x0 itself


def ddim(schedule: Schedule, levels: Sequence[int], eta: float = 0.0) -> Plan:
    """DDIM: eta = 0 is deterministic, eta = 1 is DDPM (DDIM eq. 12 and 16).

    With eta = 0 the levels may also ascend, which turns a picture into its noise (inversion).
    Raises ValueError for eta outside [0, 1] or levels that are not strictly monotonic.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta {eta:g} is outside 0 to 1; 0 is DDIM, 1 is DDPM")
    _check(schedule, levels, ascending_too=eta == 0)
    return tuple(ddim_step(schedule, t, s, eta) for t, s in pairwise(levels))


def ddpm(schedule: Schedule, levels: Sequence[int], variance: str = "small") -> Plan:
    """DDPM's ancestral sampling (DDPM Algorithm 2) on any descending levels.

    The variance of a step is beta-tilde ("small", the posterior's, DDPM eq. 7) or beta
    ("large"), DDPM section 3.2. Both have the mean of eq. 7, which is DDIM's with eta = 1.
    """
    if variance not in ("small", "large"):
        raise ValueError(f"unknown variance {variance!r}; choose 'small' or 'large'")
    small = ddim(schedule, levels, eta=1.0)
    if variance == "small":
        return small
    alpha_bar = schedule.alpha_bar.tolist()
    return tuple(
        replace(row, D=math.sqrt(1 - alpha_bar[row.t] / alpha_bar[row.s]) if row.s else 0.0)
        for row in small
    )


def dpmpp_2m(schedule: Schedule, levels: Sequence[int]) -> Plan:
    """DPM-Solver++(2M), second order and deterministic (arXiv 2211.01095 Algorithm 2).

    The first row and the one that lands on level 0 are of first order.
    """
    _check(schedule, levels)
    signal, noise = schedule.signal.tolist(), schedule.noise.tolist()
    rows, t_previous = [], None
    for t, s in pairwise(levels):
        correction = 0.0
        if t_previous is not None and s > 0:
            h = _log_snr(schedule, s) - _log_snr(schedule, t)
            r = (_log_snr(schedule, t) - _log_snr(schedule, t_previous)) / h
            correction = (signal[s] - signal[t] * noise[s] / noise[t]) / (2 * r)
        rows.append(Step(t, s, A=signal[s] + correction, B=noise[s], C=-correction))
        t_previous = t
    return tuple(rows)


def ddim_step(schedule: Schedule, t: int, s: int, eta: float) -> Step:
    """DDIM's row from level t to level s (DDIM eq. 12 and 16)."""
    alpha_bar_t, alpha_bar_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    std = 0.0
    if eta:  # DDIM eq. 16
        std = eta * math.sqrt(
            (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
        )
    direction = math.sqrt(max(1 - alpha_bar_s - std**2, 0.0))  # DDIM eq. 12
    return Step(t, s, A=math.sqrt(alpha_bar_s), B=direction, D=std)


@torch.no_grad()
def sample(
    denoise: Denoise, plan: Plan, x: Tensor, noise: Callable[[int], Tensor]
) -> Iterator[Frame]:
    """Walk the plan from x, yielding a Frame after every step.

    `denoise(x, t)` returns (x0, eps) for t an int64 tensor (B,); `noise(s)` returns z shaped
    like x, and is not called for rows with D = 0. A caller that wants only the picture writes
    `*_, last = sample(...)`.
    """
    x0_previous = None
    for row in plan:
        x_t, t = x, torch.full((x.shape[0],), row.t, dtype=torch.int64, device=x.device)
        x0, eps = denoise(x_t, t)
        # A + C is the first-order A, so a plan cut in two starts again with a first-order step.
        x0_previous = x0 if x0_previous is None else x0_previous
        z = noise(row.s).to(x) if row.D else None
        x = mix(row.A, row.B, row.C, row.D, x0, eps, x0_previous, z)
        yield Frame(row.t, row.s, x, x0, eps, x_t, x0_previous)
        x0_previous = x0


def noise_levels(plan: Plan) -> list[int]:
    """The levels whose noise a walk of the plan needs, in order: its start's, then each z's."""
    return [plan[0].t, *(row.s for row in plan if row.D)]


def mix(
    A: float | Tensor,
    B: float | Tensor,
    C: float | Tensor,
    D: float | Tensor,
    x0: Tensor,
    eps: Tensor,
    x0_previous: Tensor,
    z: Tensor | None,
) -> Tensor:
    """One row's update; coefficients are floats, or tensors that broadcast over the batch."""
    x = A * x0
    _add(x, B, eps)
    if torch.is_tensor(C) or C:
        _add(x, C, x0_previous)
    if z is not None:
        _add(x, D, z)
    return x


def _add(x: Tensor, coefficient: float | Tensor, y: Tensor) -> None:
    """x += coefficient·y in one pass over memory."""
    if torch.is_tensor(coefficient):
        x.addcmul_(coefficient, y)
    else:
        x.add_(y, alpha=coefficient)


def _log_snr(schedule: Schedule, t: int) -> float:
    return math.log(schedule.signal[t].item() / schedule.noise[t].item())


def _check(schedule: Schedule, levels: Sequence[int], ascending_too: bool = False) -> None:
    if len(levels) < 2 or any(not 0 <= level <= schedule.T for level in levels):
        raise ValueError(f"a plan needs two levels or more, each from 0 to {schedule.T}")
    falling = all(t > s for t, s in pairwise(levels))
    rising = all(t < s for t, s in pairwise(levels))
    if not (falling or (rising and ascending_too)):
        raise ValueError("levels must fall strictly; they may rise only for DDIM with eta = 0")
