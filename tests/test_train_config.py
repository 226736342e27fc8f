"""A run's settings as a value: what they refuse, and the learning rate of every step."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pytest

from diffusion.data import Images
from diffusion.model import ModelError
from diffusion.train_config import (
    PRESETS,
    TrainConfig,
    check_held_out,
    fewest_held_out,
    images_seen,
    learned_from,
    learning_rate,
    marks_of,
    never_seen,
)

TINY = TrainConfig(images=64, size=16, widths=(16, 32), batch=4, T=50)


def with_(**changes: object) -> TrainConfig:
    return dataclasses.replace(TINY, **changes)


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    config = with_(images=4000, batch=4, warmup=50, lr=1e-3)
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[0] == pytest.approx(1e-3 / 50)
    assert np.diff(rates[:50]) == pytest.approx(1e-3 / 50)
    assert rates[49:501] == pytest.approx([1e-3] * 452)
    assert (np.diff(rates[501:]) < 0).all()
    assert rates[750] == pytest.approx(1e-3 / 2)
    assert 0 < rates[-1] < 1e-7


def test_a_short_run_warms_up_for_a_tenth_of_it():
    config = with_(images=400, batch=4, warmup=200, lr=1e-3)
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates.index(max(rates)) == 9
    assert learning_rate(with_(images=1), 0) == TINY.lr


def rates_of(config: TrainConfig) -> list[float]:
    return [learning_rate(config, step) for step in range(config.steps)]


def test_images_after_the_end_rise_to_half_of_the_rate_and_fall_to_nothing_again():
    config = with_(images=4000, batch=4, warmup=50, lr=1e-3)
    longer = config.extend(2000, step=1000)
    assert rates_of(longer)[:1000] == rates_of(config)
    added = rates_of(longer)[1000:]
    assert len(added) == 500
    assert np.diff(added[:50]) == pytest.approx(0.5e-3 / 50)
    assert added[49:251] == pytest.approx([0.5e-3] * 202)
    assert (np.diff(added[251:]) < 0).all()
    assert 0 < added[-1] < 1e-7
    again = longer.extend(2000, step=1500)
    assert rates_of(again)[:1500] == rates_of(longer)
    assert rates_of(again)[1500:] == added


def test_images_added_while_the_rate_falls_go_on_from_the_rate_that_was_reached():
    config = with_(images=4000, batch=4, warmup=50, lr=1e-3)
    longer = config.extend(4000, step=700)
    rates = rates_of(longer)
    assert rates[:700] == rates_of(config)[:700]
    assert rates[700] == learning_rate(config, 700)
    assert (np.diff(rates[500:]) <= 0).all()
    assert 0 < rates[-1] < 1e-7


def test_images_added_before_the_rate_falls_might_have_been_there_from_the_start():
    config = with_(images=4000, batch=4)
    assert config.extend(4000, step=400) == with_(images=8000, batch=4)


def test_images_added_twice_at_the_same_step_are_one_extension():
    config = with_(images=4000, batch=4)
    assert config.extend(1, 1000).extend(999, 1000) == config.extend(1000, 1000)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_survives_json(preset):
    config = TrainConfig(images=7, min_snr=5.0, **PRESETS[preset]).extend(70, step=1)
    assert TrainConfig(**json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    "absurd",
    [
        {"images": 0},
        {"batch": 0},
        {"size": 18},
        {"widths": (7,)},
        {"schedule": "sigmoid"},
        {"T": 0},
        {"prediction": "score"},
        {"precision": "float8"},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"ema": 1.0},
        {"min_snr": 0.0},
        {"snr_floor": 0.0},
        {"snr_floor": 6.0, "min_snr": 5.0},
        {"snr_floor": 1.0, "prediction": "eps"},
        {"seed": -1},
        {"threads": 0},
        {"threads": -1},
        {"held_out": -1},
    ],
    ids=str,
)
def test_absurd_settings_are_refused_in_one_sentence(absurd):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        with_(**absurd)


@pytest.mark.parametrize(
    ("training", "seen"),
    [
        ({}, 0),
        ({"images": 100}, 100),
        ({"images": 100, "step": 10, "batch": 4}, 40),
        ({"images": 39, "step": 10, "batch": 4}, 39),
        ({"images": 100, "step": 10, "batch": 4, "seen_before": 7}, 47),
    ],
    ids=str,
)
def test_a_model_has_seen_the_pictures_of_its_steps_and_those_of_its_start(training, seen):
    assert images_seen(training) == seen


def keyed(key: str) -> Images:
    """Pictures of which only the key matters."""
    return Images(np.empty((0, 16, 16, 3), np.uint8), (), key)


def test_the_fewest_held_out_before_are_the_most_that_can_be_held_out():
    before = fewest_held_out({"data_key": "a", "held_out": 9, "held_out_before": {"a": 5, "b": 7}})
    assert before == {"a": 5, "b": 7}
    again = fewest_held_out({"data_key": "b", "held_out": 6, "held_out_before": before})
    assert again == {"a": 5, "b": 6}
    assert fewest_held_out({"held_out": 1000}) == {}  # the shipped models
    config = TrainConfig(images=1, held_out=6, held_out_before=before)
    for key in ("b", "c"):
        check_held_out(config, keyed(key))
    with pytest.raises(ValueError, match=r"give --held-out 5$"):
        check_held_out(config, keyed("a"))
    with pytest.raises(ValueError, match=r"held out cannot be read; take another model$"):
        fewest_held_out({"held_out_before": [5]})


def numbered(names: Sequence[int], shade: int = 0, key: str = "all") -> Images:
    pixels = np.full((len(names), 2, 2, 3), shade, np.uint8)
    return Images(pixels, tuple(f"face{name}" for name in names), key)


def test_what_was_never_seen_is_counted_in_a_part_of_the_pictures_as_well():
    faces = numbered(range(60))
    training = {"held_out": 20, "held_out_mark": faces.mark(20)}
    assert never_seen(training, faces) == 20
    _, unseen = faces.split(20)
    part = numbered(range(30))
    assert never_seen(training, part) == sum(i < 30 for i in unseen)
    assert never_seen(training, numbered(range(90))) == 20
    assert never_seen({"held_out": 20}, part) == 20  # models that note no mark, as the shipped ones
    assert never_seen({}, part, usual=9) == 9
    for odd in ({"held_out": [1]}, {"held_out": 20, "held_out_mark": 7}):
        with pytest.raises(ValueError, match=r"cannot be read; take another model$"):
            never_seen(odd, part)


def test_what_a_model_has_seen_is_not_held_out_from_a_part_of_its_pictures_either():
    faces = numbered(range(60))
    marks = marks_of({"held_out_marks": ["older"], "held_out_mark": faces.mark(20)})
    assert marks == ("older", faces.mark(20))
    assert marks_of({"held_out": 1000}) == ()  # the shipped models
    config = with_(held_out=20, held_out_marks=marks)
    check_held_out(config, numbered(range(60), key="as an archive"))
    check_held_out(config, numbered(range(60), shade=9, key="others of the same names"))
    _, unseen = faces.split(20)
    gone = set(range(0, 60, 4)) - {next(i for i in unseen if faces.mark(20)[:64] == sha256(i))}
    part = numbered(sorted(set(range(60)) - gone), key="part")
    left = len(set(unseen) - gone)
    with pytest.raises(ValueError, match=rf"give --held-out {left}$"):
        check_held_out(config, part)
    check_held_out(with_(held_out=left, held_out_marks=marks), part)


def sha256(number: int) -> str:
    return hashlib.sha256(f"face{number}".encode()).hexdigest()


@pytest.mark.parametrize("training", [{"images": "many"}, {"images": 4, "step": 1}, {"images": []}])
def test_notes_of_a_training_that_are_none_are_one_sentence(training):
    with pytest.raises(ModelError, match=r"^how many pictures .* take another model$"):
        images_seen(training)
    with pytest.raises(ValueError, match=r"came from cannot be read; take another model$"):
        learned_from({"learned_before": 5})
