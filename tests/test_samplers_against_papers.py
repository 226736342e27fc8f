"""Our tables against a second, direct reading of the papers, on any subset of the levels."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion import Denoiser, Schedule, ddim, ddpm, dpmpp_2m, sample

EXACT = {"atol": 1e-9, "rtol": 0}
LINEAR, COSINE = Schedule.linear(1000), Schedule.cosine(1000)


def uneven(seed: int, S: int) -> tuple[int, ...]:
    inner = random.Random(seed).sample(range(1, 1000), S - 1)
    return (1000, *sorted(inner, reverse=True), 0)


SUBSETS = {
    "uneven 12": uneven(1, 12),
    "uneven 77": uneven(2, 77),
    "S not dividing T": LINEAR.levels(333),
    "quadratic": LINEAR.levels(25, "quadratic"),
    "not down to 0": (1000, 640, 333, 20),
    "not up from T": (700, 699, 3, 0),
    "one step": (1000, 0),
}
subsets = pytest.mark.parametrize("levels", SUBSETS.values(), ids=SUBSETS.keys())
schedules = pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])


def ancestral(alpha_bar: list[float], network, levels, x: Tensor, noise, variance: str) -> Tensor:
    """DDPM Algorithm 2 on a subset, whose betas are 1 - ᾱ_t/ᾱ_s; x0 by eq. 15, then eq. 6, 7."""
    for t, s in pairwise(levels):
        eps = network(x, torch.full((len(x),), float(t)))
        x0 = (x - math.sqrt(1 - alpha_bar[t]) * eps) / math.sqrt(alpha_bar[t])
        x0 = x0.clamp(-1, 1)
        alpha = alpha_bar[t] / alpha_bar[s]
        beta = 1 - alpha
        mean = (
            math.sqrt(alpha_bar[s]) * beta / (1 - alpha_bar[t]) * x0
            + math.sqrt(alpha) * (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * x
        )
        beta_tilde = (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * beta
        x = mean
        if s > 0:
            x = mean + math.sqrt(beta_tilde if variance == "small" else beta) * noise(s)
    return x


def implicit(alpha: list[float], network, levels, x: Tensor, noise, eta: float) -> Tensor:
    """DDIM eq. 12 with the sigma of eq. 16; the paper's alpha is our alpha_bar."""
    for t, s in pairwise(levels):
        eps = network(x, torch.full((len(x),), float(t)))
        x0 = ((x - math.sqrt(1 - alpha[t]) * eps) / math.sqrt(alpha[t])).clamp(-1, 1)
        eps = (x - math.sqrt(alpha[t]) * x0) / math.sqrt(1 - alpha[t])
        sigma = (
            eta * math.sqrt((1 - alpha[s]) / (1 - alpha[t])) * math.sqrt(1 - alpha[t] / alpha[s])
        )
        x = math.sqrt(alpha[s]) * x0 + math.sqrt(1 - alpha[s] - sigma**2) * eps
        x = x + sigma * noise(s) if sigma else x
    return x


def end(schedule: Schedule, network, plan, x: Tensor, noise) -> Tensor:
    *_, last = sample(Denoiser(network, schedule, "eps"), plan, x, noise)
    return last.x


@schedules
@subsets
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_the_papers_posterior_of_the_subset(toy, start, shared, schedule, levels, variance):
    paper = ancestral(schedule.alpha_bar.tolist(), toy, levels, start, shared, variance)
    ours = end(schedule, toy, ddpm(schedule, levels, variance), start, shared)
    torch.testing.assert_close(ours, paper, **EXACT)


@schedules
@subsets
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_the_papers_equation_12(toy, start, shared, schedule, levels, eta):
    paper = implicit(schedule.alpha_bar.tolist(), toy, levels, start, shared, eta)
    ours = end(schedule, toy, ddim(schedule, levels, eta), start, shared)
    torch.testing.assert_close(ours, paper, **EXACT)


@schedules
@subsets
def test_ddim_with_eta_one_is_ddpm(toy, start, shared, schedule, levels):
    assert ddim(schedule, levels, eta=1.0) == ddpm(schedule, levels)
    paper = ancestral(schedule.alpha_bar.tolist(), toy, levels, start, shared, "small")
    ours = end(schedule, toy, ddim(schedule, levels, eta=1.0), start, shared)
    torch.testing.assert_close(ours, paper, **EXACT)


@schedules
@subsets
def test_no_sampler_adds_noise_to_the_clean_picture(schedule, levels):
    plans = [
        *(ddim(schedule, levels, eta) for eta in (0.0, 0.5, 1.0)),
        *(ddpm(schedule, levels, variance) for variance in ("small", "large")),
        dpmpp_2m(schedule, levels),
    ]
    for plan in plans:
        assert [(row.t, row.s) for row in plan] == list(pairwise(levels))
        assert all(row.D == 0 for row in plan if row.s == 0)
    for plan in plans[1:5]:
        assert all(row.D > 0 for row in plan if row.s > 0)


@schedules
@subsets
def test_large_variance_is_beta_of_the_subset_and_keeps_the_mean(schedule, levels):
    alpha_bar = schedule.alpha_bar.tolist()
    rows = zip(ddpm(schedule, levels, "large"), ddpm(schedule, levels, "small"), strict=True)
    for large, small in rows:
        assert (large.A, large.B, large.C) == (small.A, small.B, small.C)
        if large.s:
            beta = 1 - alpha_bar[large.t] / alpha_bar[large.s]
            assert pytest.approx(beta, rel=1e-12) == large.D**2
            assert large.D > small.D


@schedules
@subsets
def test_every_row_without_history_lands_on_the_forward_process(schedule, levels):
    """With the true x0 and eps, the mean and variance of x_s are those of DDPM eq. 4."""
    for plan in (ddim(schedule, levels, 0.7), ddpm(schedule, levels)):
        for row in plan:
            assert pytest.approx(schedule.alpha_bar[row.s].item(), abs=1e-12) == row.A**2
            variance = 1 - schedule.alpha_bar[row.s].item()
            assert pytest.approx(variance, abs=1e-12) == row.B**2 + row.D**2


@schedules
@subsets
def test_dpmpp_2m_rows_add_up_to_the_first_order_and_start_and_end_with_it(schedule, levels):
    plan = dpmpp_2m(schedule, levels)
    for row, first in zip(plan, ddim(schedule, levels), strict=True):
        torch.testing.assert_close((row.A + row.C, row.B), (first.A, first.B))
        assert row.D == 0
    assert plan[0].C == 0
    assert all((row.C != 0) == (row.s > 0) for row in plan[1:])


@schedules
@subsets
def test_dpmpp_2m_is_algorithm_2_of_its_paper(toy, start, shared, schedule, levels):
    """x_i = σ_i/σ_j·x_j − α_i(e^{−h} − 1)·D with D = (1 + 1/2r)·x0_j − 1/2r·x0_k."""
    signal, noise = schedule.signal.tolist(), schedule.noise.tolist()

    def log_snr(t: int) -> float:
        return math.log(signal[t]) - math.log(noise[t]) if t else math.inf

    x, previous = start, None
    for t, s in pairwise(levels):
        x0 = torch.tanh(toy(x, torch.full((5,), float(t))))
        h, guess = log_snr(s) - log_snr(t), x0
        if previous is not None and s > 0:
            r = (log_snr(t) - log_snr(previous[0])) / h
            guess = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous[1]
        x = noise[s] / noise[t] * x - signal[s] * math.expm1(-h) * guess
        previous = (t, x0)
    denoise = Denoiser(lambda x, time: torch.tanh(toy(x, time)), schedule, "x0")
    *_, last = sample(denoise, dpmpp_2m(schedule, levels), start, shared)
    torch.testing.assert_close(last.x, x, **EXACT)


def test_a_plan_cut_in_two_starts_again_with_a_first_order_step(toy, start, shared):
    levels = COSINE.levels(10)
    denoise = Denoiser(toy, COSINE)
    *_, half = sample(denoise, dpmpp_2m(COSINE, levels)[:5], start, shared)
    restarted = next(sample(denoise, dpmpp_2m(COSINE, levels)[5:], half.x, shared))
    first_order = next(sample(denoise, ddim(COSINE, levels[5:]), half.x, shared))
    torch.testing.assert_close(restarted.x, first_order.x, **EXACT)
    # While in one piece, the sixth row does use the fifth prediction.
    whole = list(sample(denoise, dpmpp_2m(COSINE, levels), start, shared))
    assert (whole[5].x - restarted.x).abs().max() > 1e-3


def test_inversion_then_sampling_returns_the_picture_better_with_more_steps(toy, start, shared):
    picture = start.clamp(-1, 1)
    errors = []
    for S in (25, 50, 100, 200):
        levels = COSINE.levels(S)
        # Up to 90 % of the levels: the last ones leave no picture to come back from.
        down = tuple(level for level in levels if level <= 900)
        denoise = Denoiser(toy, COSINE, "v", clip=False)
        *_, noisy = sample(denoise, ddim(COSINE, down[::-1]), picture, shared)
        *_, back = sample(denoise, ddim(COSINE, down), noisy.x, shared)
        errors.append((back.x - picture).abs().max().item())
    assert all(fine < 0.7 * coarse for coarse, fine in pairwise(errors))
    assert errors[-1] < 0.05
    assert shared.asked == []


@pytest.mark.parametrize("sampler", [ddim, ddpm, dpmpp_2m])
@pytest.mark.parametrize(
    "levels", [(), (10,), (1001, 0), (10, -1), (10, 10, 0), (10, 5, 7, 0), (0, 5, 3)]
)
def test_levels_that_do_not_fall_strictly_are_refused_in_one_sentence(sampler, levels):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        sampler(LINEAR, levels)


def test_levels_may_ascend_for_deterministic_ddim_alone():
    assert [row.s for row in ddim(LINEAR, (0, 10, 1000))] == [10, 1000]
    for refused in (
        lambda: ddim(LINEAR, (0, 10, 1000), eta=0.1),
        lambda: ddpm(LINEAR, (0, 10, 1000)),
        lambda: dpmpp_2m(LINEAR, (0, 10, 1000)),
    ):
        with pytest.raises(ValueError, match="levels must fall strictly"):
            refused()


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan"), float("inf")])
def test_an_eta_outside_0_to_1_is_refused(eta):
    with pytest.raises(ValueError, match="is outside 0 to 1; 0 is DDIM, 1 is DDPM"):
        ddim(LINEAR, (1000, 0), eta)


def test_an_unknown_variance_is_refused():
    with pytest.raises(ValueError, match="choose 'small' or 'large'"):
        ddpm(LINEAR, (1000, 0), "medium")
