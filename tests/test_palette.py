from __future__ import annotations

import numpy as np

from diffusion.palette import colours_of, seen

HAIR = ("1e1514", "ed6f2f", None)


def painted(*colours: tuple[int, int, int], share: float = 0.3) -> np.ndarray:
    """One white picture for each colour, with so much of it painted."""
    pictures = np.full((len(colours), 64, 64, 3), 255, np.uint8)
    for picture, colour in zip(pictures, colours, strict=True):
        picture[: int(64 * share)] = colour
    return pictures


def test_the_colour_that_most_pixels_are_near_to_is_seen():
    pictures = painted((30, 21, 20), (237, 111, 47), (232, 105, 52))
    pictures[1, 60:] = (30, 21, 20)  # an outline of the other colour
    assert seen(pictures, HAIR).tolist() == [0, 1, 1]


def test_too_few_pixels_of_any_colour_mean_the_value_without_one():
    few = painted((30, 21, 20))
    few[:, 1:] = 255
    few[:, 0, 19:] = 255
    assert seen(few, HAIR).tolist() == [2]
    assert seen(few, HAIR[:2]).tolist() == [0]


def test_a_colour_outside_the_palette_is_not_taken_for_one_of_it():
    assert seen(painted((0, 0, 255)), HAIR).tolist() == [2]


def test_which_attributes_are_colours():
    assert colours_of(["FBDBD1", "603d30"]) == ("fbdbd1", "603d30")
    assert colours_of({"black": "1e1514", "bald": None}) == ("1e1514", None)
    assert colours_of(["no", "yes"]) is None
    assert colours_of({"a": None, "b": None}) is None
    assert colours_of({"bald": None}) is None
