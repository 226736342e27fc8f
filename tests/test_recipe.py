from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import randomised

from diffusion import DiffusionModel, Noise, Schedule, UNetConfig, ddim, ddpm, dpmpp_2m, sample
from diffusion.pictures import to_uint8
from diffusion.recipe import Recipe, default_batch, draw

SCHEDULE = Schedule.cosine(100)
SEEDS = range(3, 8)


@pytest.fixture(scope="module")
def model(tiny) -> DiffusionModel:
    return DiffusionModel(randomised(tiny), SCHEDULE).to("cpu")


def test_a_recipe_chooses_the_table_of_its_sampler():
    levels = SCHEDULE.levels(7)
    assert Recipe("ddpm", 7).plan(SCHEDULE) == ddpm(SCHEDULE, levels)
    assert Recipe("ddpm", 7, variance="large").plan(SCHEDULE) == ddpm(SCHEDULE, levels, "large")
    assert Recipe("ddim", 7, eta=0.3).plan(SCHEDULE) == ddim(SCHEDULE, levels, 0.3)
    assert Recipe("dpmpp_2m", 7).plan(SCHEDULE) == dpmpp_2m(SCHEDULE, levels)


def test_spacing_decides_the_levels():
    levels = SCHEDULE.levels(7, "quadratic")
    assert Recipe("ddim", 7, spacing="quadratic").plan(SCHEDULE) == ddim(SCHEDULE, levels)


def test_a_recipe_comes_back_from_json():
    recipe = Recipe("ddim", 12, 0.5, spacing="quadratic", clip=False)
    assert Recipe(**json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "euler"}, "unknown sampler 'euler'; choose one of ddpm, ddim, dpmpp_2m"),
        ({"variance": "huge"}, "unknown variance 'huge'; choose one of small, large"),
        ({"spacing": "odd"}, "unknown spacing 'odd'; choose one of uniform, quadratic"),
        ({"finish": "matt"}, "unknown finish 'matt'; choose one of none, crisp"),
        ({"steps": 0}, "0 steps asked for; choose a whole number from 1 up"),
        ({"steps": 2.5}, "2.5 steps asked for; choose a whole number from 1 up"),
        ({"steps": True}, "True steps asked for; choose a whole number from 1 up"),
        ({"eta": 2}, "eta 2 is outside 0 to 1; 0 is DDIM, 1 is DDPM"),
        ({"eta": -0.1}, "eta -0.1 is outside 0 to 1; 0 is DDIM, 1 is DDPM"),
        ({"eta": float("nan")}, "eta nan is outside 0 to 1; 0 is DDIM, 1 is DDPM"),
        ({"eta": "1"}, "eta '1' is not a number; choose 0 to 1"),
        ({"clip": "no"}, "clip is 'no'; choose true or false"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_sentence(settings, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole message is compared
        Recipe(**settings)
    assert str(refused.value) == message


def test_more_steps_than_levels_are_refused():
    with pytest.raises(ValueError, match=r"^1200 steps asked of a 100-step schedule; choose 1 to"):
        Recipe(steps=1200).plan(SCHEDULE)


def test_drawing_is_walking_the_plan_from_the_noise_of_the_seeds(model):
    recipe = Recipe("ddpm", 6)
    noise = Noise(SEEDS, model.shape)
    *_, last = sample(model.denoiser(), recipe.plan(SCHEDULE), noise(SCHEDULE.T), noise)
    np.testing.assert_array_equal(draw(model, SEEDS, recipe), to_uint8(last.x))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
def test_the_batch_does_not_change_the_pictures(model, sampler):
    recipe = Recipe(sampler, 6, eta=0.5)
    together = draw(model, SEEDS, recipe).astype(int)
    for batch in (1, 2, 4):
        assert abs(draw(model, SEEDS, recipe, batch) - together).max() <= 2


def test_clipping_is_the_recipes_choice(model):
    clipped, free = (draw(model, SEEDS, Recipe(steps=6, clip=clip)) for clip in (True, False))
    assert (clipped != free).any()


def test_a_watcher_sees_the_noise_and_every_step_of_every_batch(model):
    seen = []
    recipe = Recipe("ddim", 3)
    pixels = draw(model, SEEDS, recipe, 2, lambda first, done, x: seen.append((first, done, x)))
    assert [(first, done) for first, done, _ in seen] == [
        (first, done) for first in (0, 2, 4) for done in range(4)
    ]
    torch.testing.assert_close(seen[4][2], Noise(range(5, 7), model.shape)(SCHEDULE.T))
    np.testing.assert_array_equal(to_uint8(seen[-1][2]), pixels[4:])


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_no_pictures_is_refused_instead_of_drawing_nothing(model, batch):
    said = f"a batch of {batch} pictures; choose a --batch of 1 or more"
    with pytest.raises(ValueError, match=said):
        draw(model, SEEDS, Recipe("ddim", 2), batch)


def test_the_default_batch_keeps_memory_bounded(model, tiny):
    large = DiffusionModel(randomised(replace(tiny, size=512)), SCHEDULE)
    assert default_batch(model) == 256
    assert default_batch(large) == 1


def test_guidance_of_nothing_asked_computes_every_picture_once():
    network = randomised(UNetConfig(size=16, widths=(16, 32), labels=(3,)))
    model = DiffusionModel(network, SCHEDULE, labels={"hair": ("a", "b", "c")})
    rows = []
    network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    recipe = Recipe("ddim", 3)
    guided = draw(model, SEEDS, recipe, labels=(-1,), guidance=3.0)
    assert rows == [5] * 3
    np.testing.assert_array_equal(guided, draw(model, SEEDS, recipe, labels=(-1,)))
    np.testing.assert_array_equal(guided, draw(model, SEEDS, recipe))


def test_labels_are_checked_before_they_are_moved_to_the_device():
    network = randomised(UNetConfig(size=16, widths=(16, 32), labels=(3,))).to("meta")
    model = DiffusionModel(network, SCHEDULE, labels={"hair": ("a", "b", "c")})
    with pytest.raises(ValueError, match=r"^labels of hair from 3 to 3; choose 0 to 2, or -1"):
        draw(model, SEEDS, Recipe("ddim", 2), labels=(3,))
    assert model.denoiser([[2]]).labels.device.type == "meta"
