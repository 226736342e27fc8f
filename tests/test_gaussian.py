"""Samplers on data whose best denoiser is known: a Gaussian N(MEAN, SPREAD²).

There E[x0 | x_t] is affine in x_t, so a whole sampling is affine in x_T and the z's. One run on
a batch of unit vectors gives its coefficients, and with them the exact mean and spread of the
samples: no random numbers, and no statistics, are involved.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from diffusion import Schedule, ddim, ddpm, dpmpp_2m, sample

MEAN, SPREAD = 0.4, 0.5

SAMPLERS = {
    "ddpm small": ddpm,
    "ddpm large": lambda schedule, levels: ddpm(schedule, levels, "large"),
    "ddim 0": ddim,
    "ddim 0.5": lambda schedule, levels: ddim(schedule, levels, 0.5),
    "ddim 1": lambda schedule, levels: ddim(schedule, levels, 1.0),
    "dpmpp_2m": dpmpp_2m,
}
every = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
first_order = pytest.mark.parametrize(
    "sampler", list(SAMPLERS.values())[:5], ids=list(SAMPLERS)[:5]
)
schedules = pytest.mark.parametrize(
    "schedule", [Schedule.linear(8000), Schedule.cosine(8000)], ids=["linear", "cosine"]
)


def marginal(schedule: Schedule, t: int) -> tuple[float, float]:
    """The mean and the spread of x_t when x0 is data."""
    signal, noise = schedule.signal[t].item(), schedule.noise[t].item()
    return signal * MEAN, (signal**2 * SPREAD**2 + noise**2) ** 0.5


def sampled(schedule: Schedule, plan) -> tuple[float, float]:
    """The mean and the spread of the samples of a plan that starts from x_t's own marginal."""
    mean, spread = marginal(schedule, plan[0].t)
    noisy = [row.s for row in plan if row.D]
    x = torch.full((len(noisy) + 2, 1), mean, dtype=torch.float64)
    x[1] += spread  # row 0 is the mean; row 1 moves x_T, row 2 + i the i-th z, by one deviation

    def denoise(x, t):
        signal, noise = schedule.signal[t][:, None], schedule.noise[t][:, None]
        gain = SPREAD**2 * signal / (signal**2 * SPREAD**2 + noise**2)
        x0 = MEAN + gain * (x - signal * MEAN)
        return x0, (x - signal * x0) / noise

    def noise(s):
        z = torch.zeros_like(x)
        z[2 + noisy.index(s)] = 1
        return z

    *_, last = sample(denoise, plan, x, noise)
    return last.x[0].item(), (last.x[1:] - last.x[0]).norm().item()


@every
@schedules
@pytest.mark.parametrize("S", [1, 10, 100])
def test_the_mean_of_the_samples_is_the_datas(schedule, sampler, S):
    mean, _ = sampled(schedule, sampler(schedule, schedule.levels(S)))
    assert mean == pytest.approx(MEAN, abs=1e-9)


@first_order
@schedules
def test_the_error_of_the_spread_halves_when_the_steps_double(schedule, sampler):
    errors = [
        abs(sampled(schedule, sampler(schedule, schedule.levels(S)))[1] - SPREAD)
        for S in (100, 200, 400)
    ]
    assert errors[-1] < 0.02
    for coarse, fine in pairwise(errors):
        assert 1.6 < coarse / fine < 2.2


@schedules
def test_with_few_steps_dpmpp_2m_is_far_closer_than_ddim(schedule):
    levels = schedule.levels(40)
    first = abs(sampled(schedule, ddim(schedule, levels))[1] - SPREAD)
    second = abs(sampled(schedule, dpmpp_2m(schedule, levels))[1] - SPREAD)
    assert second < first / 10


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2)], ids=["ddim", "dpmpp_2m"])
def test_ddim_is_of_first_and_dpmpp_2m_of_second_order(sampler, order):
    """Between two levels where all is smooth, the flow is known: deviations scale with spread."""
    schedule = Schedule.cosine(8000)
    errors = []
    for S in (40, 80, 160):
        levels = range(7200, 799, -6400 // S)
        plan = sampler(schedule, levels)
        assert len(plan) == S
        errors.append(abs(sampled(schedule, plan)[1] - marginal(schedule, 800)[1]))
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.2)


@schedules
def test_too_small_and_too_large_variance_err_on_their_own_side(schedule):
    """DDPM section 3.2: beta-tilde is exact for a point, beta for unit variance; data lie between.

    With SPREAD 0.5 the truth is between the two.
    """
    levels = schedule.levels(200)
    assert sampled(schedule, ddpm(schedule, levels, "small"))[1] < SPREAD
    assert sampled(schedule, ddpm(schedule, levels, "large"))[1] > SPREAD
