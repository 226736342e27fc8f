from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from diffusion import Schedule

SIZES = (1, 2, 10, 50, 1000, 4000)


@pytest.mark.parametrize("T", SIZES)
@pytest.mark.parametrize("kind", [Schedule.linear, Schedule.cosine])
def test_level_0_is_clean_and_level_T_nearly_noise_for_any_T(kind, T):
    schedule = kind(T)
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha_bar.shape == (T + 1,)
    assert schedule.alpha_bar[0] == 1
    assert schedule.noise[0] == 0
    assert 0 < schedule.alpha_bar[T] < 0.01
    assert (schedule.alpha_bar.diff() < 0).all()
    assert (schedule.beta[1:] <= 0.999).all()


@pytest.mark.parametrize("kind", [Schedule.linear, Schedule.cosine])
def test_signal_and_noise_are_the_two_sides_of_alpha_bar(kind):
    schedule = kind()
    torch.testing.assert_close(schedule.signal**2, schedule.alpha_bar)
    torch.testing.assert_close(schedule.signal**2 + schedule.noise**2, torch.ones(1001).double())
    torch.testing.assert_close(schedule.snr[1:], (schedule.signal / schedule.noise)[1:] ** 2)


def test_linear_betas_rise_from_1e4_to_002_as_in_the_ddpm_paper():
    expected = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(Schedule.linear().beta[1:], expected, atol=1e-15, rtol=0)
    alpha_bar = torch.cumprod(1 - expected, dim=0)
    torch.testing.assert_close(Schedule.linear().alpha_bar[1:], alpha_bar, atol=1e-12, rtol=0)


def test_linear_betas_scale_with_T_so_that_the_end_stays_as_noisy():
    short, long = (Schedule.linear(T).alpha_bar[-1].log().item() for T in (500, 4000))
    assert short == pytest.approx(long, rel=0.05)


def test_linear_takes_other_ends():
    schedule = Schedule.linear(10, beta_start=0.1, beta_end=0.3)
    expected = torch.linspace(0.1, 0.3, 10, dtype=torch.float64)
    torch.testing.assert_close(schedule.beta[1:], expected)


def test_cosine_follows_the_squared_cosine_and_ends_at_2e_9():
    schedule = Schedule.cosine(1000)
    assert schedule.alpha_bar[-1].item() == pytest.approx(2.4e-9, rel=0.02)
    t = torch.arange(1001, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    # The cap on beta moves the last levels alone.
    torch.testing.assert_close(schedule.alpha_bar[:-1], (f / f[0])[:-1], atol=1e-12, rtol=1e-9)


def test_fifty_steps_of_a_thousand_visit_every_twentieth_level():
    assert Schedule.cosine(1000).levels(50) == tuple(range(1000, -1, -20))


def test_quadratic_spacing_spends_its_steps_near_the_clean_picture():
    assert Schedule.cosine(1000).levels(10, "quadratic") == (
        *(1000, 810, 640, 490, 360, 250),
        *(160, 90, 40, 10, 0),
    )


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("T", [1, 2, 3, 10, 37, 1000])
def test_every_step_count_gets_levels_that_fall_strictly_from_T_to_0(T, spacing):
    schedule = Schedule.linear(T)
    for S in range(1, T + 1):
        levels = schedule.levels(S, spacing)
        assert len(levels) == S + 1
        assert (levels[0], levels[-1]) == (T, 0)
        assert all(type(level) is int for level in levels)
        assert all(t > s for t, s in pairwise(levels))


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_numpys_integers_count_steps_as_well(kind, spacing):
    levels = Schedule.cosine(1000).levels(kind(20), spacing)
    assert levels == Schedule.cosine(1000).levels(20, spacing)
    assert all(type(level) is int for level in levels)


@pytest.mark.parametrize("S", [1, 7, 30, 333])
def test_uniform_levels_are_the_rounded_even_ones(S):
    levels = Schedule.linear(1000).levels(S)
    even = [1000 * (S - i) / S for i in range(S + 1)]
    assert all(abs(level - exact) <= 0.5 for level, exact in zip(levels, even, strict=True))


def test_too_many_steps_are_refused_with_the_next_move():
    with pytest.raises(ValueError, match=r"^1200 steps asked of a 1000-step schedule; choose 1 to"):
        Schedule.linear(1000).levels(1200)


@pytest.mark.parametrize("S", [0, -1, 11, 2.0, 2.5, True, "5", None])
def test_step_counts_that_are_none_are_refused(S):
    with pytest.raises(ValueError, match="steps asked of a 10-step schedule; choose 1 to 10"):
        Schedule.linear(10).levels(S)


def test_an_unknown_spacing_is_refused():
    with pytest.raises(ValueError, match="choose 'uniform' or 'quadratic'"):
        Schedule.linear(10).levels(5, "logarithmic")


@pytest.mark.parametrize("T", [0, -5, 2.5, True, 10**9])
def test_a_schedule_without_a_sensible_T_is_refused(T):
    with pytest.raises(ValueError, match="choose a whole number"):
        Schedule.cosine(T)


@pytest.mark.parametrize("beta", [0, -0.1, 1.0, float("nan")])
def test_betas_outside_0_to_1_are_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        Schedule.linear(10, beta_start=beta)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="choose 'linear' or 'cosine'"):
        Schedule("sigmoid", 10)


def test_equal_settings_make_equal_hashable_schedules():
    assert Schedule.linear(10) == Schedule.linear(10)
    assert Schedule.linear(10) != Schedule.linear(10, beta_end=0.5)
    assert len({Schedule.cosine(10), Schedule.cosine(10), Schedule.linear(10)}) == 2


@pytest.mark.parametrize("schedule", [Schedule.linear(123), Schedule.cosine(50)])
def test_a_schedule_survives_json(schedule):
    again = Schedule(**json.loads(json.dumps(schedule.to_json())))
    assert again == schedule
    assert torch.equal(again.alpha_bar, schedule.alpha_bar)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("cosine", 10, 1e-4, 0.02), r"^a cosine schedule has no betas; leave them out, or choose"),
        (("linear", 10, "1e-4", 0.02), r"^beta '1e-4' is no number in \(0, 0.999\]$"),
        (("linear", 10, 1e-20, 0.02), "leave no noise at the first one or no signal at the last"),
        (("linear", 10_000, 0.9, 0.9), "leave no noise at the first one or no signal at the last"),
    ],
)
def test_betas_that_no_sampler_can_walk_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Schedule(*settings)
