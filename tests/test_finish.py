"""What follows the last step: only soft edges and mottling change, and only in the last picture."""

import numpy as np
import torch
from stand_ins import randomised

from diffusion import DiffusionModel, Schedule
from diffusion.finish import crisp, flattened, sharpened
from diffusion.pictures import to_uint8
from diffusion.recipe import Recipe, draw

GREY = 1 / 127.5  # one grey level


def halves(left=-0.5, right=0.7, size=16):
    """Two plain areas side by side, (1, 3, size, size)."""
    x = torch.full((1, 3, size, size), left)
    x[..., size // 2 :] = right
    return x


def test_plain_areas_with_hard_edges_stay_as_they_are():
    assert (crisp(halves()) - halves()).abs().max() < 0.01 * GREY


def test_mottling_of_two_grey_levels_leaves_areas_plain():
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mottled = halves() + 2 * GREY * noise
    assert (crisp(mottled) - halves()).square().mean().sqrt() < GREY
    assert (mottled - halves()).square().mean().sqrt() > 1.9 * GREY


def test_a_soft_edge_becomes_steeper():
    hard = halves()
    around = torch.nn.functional.pad(hard, (1, 1, 1, 1), mode="replicate")
    soft = (hard + torch.nn.functional.avg_pool2d(around, 3, 1)) / 2
    steepest = [x.diff(dim=3).max().item() for x in (soft, crisp(soft), hard)]
    assert steepest[0] * 1.2 < steepest[1] <= steepest[2]


def test_no_pixel_leaves_the_range_of_those_around_it():
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    around = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    brightest = torch.nn.functional.max_pool2d(around, 3, 1)
    darkest = -torch.nn.functional.max_pool2d(-around, 3, 1)
    y = sharpened(x)
    assert bool(((darkest <= y) & (y <= brightest)).all())
    assert -1 <= flattened(x).min() <= flattened(x).max() <= 1
    assert bool((crisp(3 * x).abs() <= 1).all())


def test_every_picture_is_made_crisp_by_itself():
    x = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(2)) * 2 - 1
    torch.testing.assert_close(crisp(x)[1:2], crisp(x[1:2]))


def test_only_the_last_picture_is_finished(tiny):
    model = DiffusionModel(randomised(tiny), Schedule.cosine(100)).to("cpu")
    seen = {finish: [] for finish in ("none", "crisp")}
    pixels = {
        finish: draw(
            model,
            range(3),
            Recipe("ddim", 4, finish=finish),
            watch=lambda first, done, x, finish=finish: seen[finish].append(x),
        )
        for finish in seen
    }
    for plain, crisped in zip(seen["none"][:-1], seen["crisp"][:-1], strict=True):
        assert torch.equal(plain, crisped)
    assert torch.equal(seen["crisp"][-1], crisp(seen["none"][-1]))
    np.testing.assert_array_equal(pixels["crisp"], to_uint8(crisp(seen["none"][-1])))
    assert np.abs(pixels["crisp"].astype(int) - pixels["none"]).mean() > 1


def test_a_recipe_without_a_finish_is_written_as_before_there_was_one():
    assert "finish" not in Recipe().to_json()
    assert Recipe(**Recipe(finish="crisp").to_json()) == Recipe(finish="crisp")
