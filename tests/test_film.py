"""A film: evenly chosen stills that any number of viewers read at their own pace."""

import numpy as np
import pytest
import torch

from diffusion import Noise, Schedule, ddim, ddpm, dpmpp_2m, sample
from diffusion.film import KEPT, Film, Place, Still, first_still, sizes, still
from diffusion.pictures import to_uint8


def filmed(calls):
    film = Film(calls)
    for made in range(calls + 1):
        if film.wants(made):
            film.add(Still(made, calls - made, made / 10, np.full((1, 2, 2, 3), made % 256)))
    return film


@pytest.mark.parametrize("calls", [1, 2, 20, 248, 249, 250, 251, 498, 997, 1000, 100_000])
def test_a_film_is_bounded_even_and_has_both_ends(calls):
    film = filmed(calls)
    kept = sorted({film.at(made).calls for made in range(calls + 1)})
    assert len(kept) <= KEPT
    assert kept == film.kept_calls
    assert (kept[0], kept[-1]) == (0, calls)
    gaps = set(np.diff(kept[:-1]).tolist())
    assert len(gaps) <= 1
    assert film.done


def test_kept_tells_which_still_stands_for_a_call():
    film = filmed(1000)
    for calls in (0, 1, 3, 4, 5, 997, 999, 1000, 2000):
        assert film.at(calls).calls == film.kept(calls)


def test_nothing_is_there_before_the_first_still():
    film = Film(5)
    assert film.reached == -1
    with pytest.raises(LookupError):
        film.at(3)


def test_watchers_hear_of_stills_places_and_problems_until_they_leave():
    film, heard = Film(2), []
    watcher = lambda: heard.append((film.reached, film.place, film.problem))  # noqa: E731
    film.watch(watcher)
    film.move(Place(2, 5.0))
    film.add(Still(0, 9, 0.0, np.zeros((1, 2, 2, 3))))
    film.fail("It ended.")
    film.unwatch(watcher)
    film.add(Still(1, 5, 0.0, np.zeros((1, 2, 2, 3))))
    assert heard == [(-1, Place(2, 5.0), None), (0, None, None), (0, None, "It ended.")]


PLANS = {"ddpm": ddpm, "ddim": lambda *given: ddim(*given, eta=0.5), "dpmpp_2m": dpmpp_2m}


@pytest.mark.parametrize("sampler", PLANS)
def test_a_still_shows_what_the_step_mixed_and_how_large_it_was(sampler):
    schedule = Schedule.cosine()
    plan = PLANS[sampler](schedule, schedule.levels(6))
    noise = Noise(range(2), (3, 8, 8))

    def denoise(x, t):
        x0 = torch.tanh(x * t[:, None, None, None] / 1000)
        return x0, x - 0.3 * x0

    for row, frame in zip(plan, sample(denoise, plan, noise(schedule.T), noise), strict=True):
        shown = still(1, 0.0, row, frame)
        for lens in ("x", "x0", "eps"):
            np.testing.assert_array_equal(shown.seen(lens), to_uint8(getattr(frame, lens)))
        measured = shown.sizes
        mixed = {"x": frame.x_t, "x0": frame.x0, "eps": frame.eps, "x0_previous": frame.x0_previous}
        for name, value in mixed.items():
            assert getattr(measured, name) == pytest.approx(value.square().mean().sqrt().item())
        drawn = noise(row.s).square().mean().sqrt().item() if row.D else 0.0
        assert measured.z == pytest.approx(drawn, rel=1e-3)
    assert sizes(plan[-1], frame).z == 0


def test_before_the_first_call_there_is_noise_and_no_guess():
    x = Noise([3], (3, 4, 4))(1000)
    opening = first_still(1000, x)
    np.testing.assert_array_equal(opening.x, to_uint8(x))
    assert (opening.x0, opening.eps, opening.sizes, opening.calls) == (None, None, None, 0)
    assert opening.nbytes == 48
