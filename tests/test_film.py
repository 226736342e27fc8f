"""A film: evenly chosen stills that any number of viewers read at their own pace."""

import numpy as np
import pytest

from diffusion.film import KEPT, Film, Place, Still


def filmed(calls):
    film = Film(calls)
    for made in range(calls + 1):
        if film.wants(made):
            film.add(Still(made, calls - made, made / 10, np.full((1, 2, 2, 3), made % 256)))
    return film


@pytest.mark.parametrize("calls", [1, 2, 20, 250, 251, 999, 1000])
def test_a_film_is_bounded_even_and_has_both_ends(calls):
    film = filmed(calls)
    kept = sorted({film.at(made).calls for made in range(calls + 1)})
    assert len(kept) <= KEPT + 1
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
