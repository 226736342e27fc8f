"""Training with labels, and further averages of the weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from diffusion.noise import TRAINING, generator
from diffusion.recipe import Recipe, draw
from diffusion.train_config import TrainConfig
from diffusion.training import Trainer, some_labels

LABELS = {"colour": ("red", "green", "blue"), "size": ("small", "large")}
TINY = TrainConfig(images=64, size=16, widths=(16, 32), batch=8, T=50, labels=LABELS)
INDICES = np.arange(10)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.stack([INDICES % 3, INDICES % 2], axis=1)


def train(trainer: Trainer, pixels: np.ndarray, labels: np.ndarray, steps: int) -> list[float]:
    run = trainer.run(pixels, INDICES, labels)
    return [next(run).loss.item() for _ in range(steps)]


def test_every_number_of_attributes_is_kept_equally_often():
    labels = np.full((40_000, 4), 2)
    kept = (some_labels(labels, np.random.default_rng(0)) != -1).sum(axis=1)
    assert np.bincount(kept) / len(labels) == pytest.approx([1 / 5] * 5, abs=0.01)


def test_attributes_are_forgotten_independently_and_never_changed():
    labels = np.tile([[0, 1, 2, 3]], (20_000, 1))
    some = some_labels(labels, np.random.default_rng(0))
    assert ((some == -1) | (some == labels)).all()
    assert (some != -1).mean(axis=0) == pytest.approx([0.5] * 4, abs=0.02)
    subsets = np.unique((some != -1) @ (1 << np.arange(4)))
    assert len(subsets) == 16


def test_what_is_not_known_stays_unknown():
    labels = np.full((100, 3), -1)
    assert (some_labels(labels, np.random.default_rng(0)) == -1).all()


def test_labels_belong_to_the_pictures_of_the_batch(pixels, labels):
    trainer = Trainer(TINY)
    for step in range(5):
        batch = trainer.batch(pixels, INDICES, step, labels)
        rng = generator(TINY.seed, TRAINING, level=step)
        chosen = INDICES[rng.integers(10, size=8)]
        known = batch.labels.numpy() != -1
        assert (batch.labels.numpy() == labels[chosen])[known].all()
        assert batch.labels.dtype == torch.int64


def test_forgetting_is_a_function_of_the_seed_and_the_step(pixels, labels):
    one, other = Trainer(TINY), Trainer(TINY)
    train(other, pixels, labels, 2)
    for step in (0, 5, 10**6):
        a, b = (trainer.batch(pixels, INDICES, step, labels).labels for trainer in (one, other))
        assert torch.equal(a, b)
    steps = [one.batch(pixels, INDICES, step, labels).labels for step in (0, 1)]
    assert not torch.equal(*steps)


def test_labels_change_nothing_else_of_a_batch(pixels, labels):
    plain = Trainer(dataclasses.replace(TINY, labels={})).batch(pixels, INDICES, 3)
    asked = Trainer(TINY).batch(pixels, INDICES, 3, labels)
    assert plain.labels is None
    for name in ("x0", "t", "eps"):
        assert torch.equal(getattr(plain, name), getattr(asked, name))


def test_a_run_with_labels_and_averages_goes_on_bit_for_bit(pixels, labels):
    config = dataclasses.replace(TINY, more_emas=(0.5, 0.9))
    straight, first, second = (Trainer(config) for _ in range(3))
    losses = train(straight, pixels, labels, 6)
    train(first, pixels, labels, 3)
    second.load({name: value.clone() for name, value in first.state().items()})
    assert train(second, pixels, labels, 3) == losses[3:]
    for name, value in straight.state().items():
        assert torch.equal(second.state()[name], value), name


def test_every_average_follows_with_its_own_decay(pixels, labels):
    config = dataclasses.replace(TINY, ema=0.05, more_emas=(0.0,))
    trainer = Trainer(config)
    for step in range(3):
        before = trainer.ema.stem.weight.clone()
        train(trainer, pixels, labels, 1)
        decay = min(0.05, (1 + step) / (10 + step))
        expected = decay * before + (1 - decay) * trainer.network.stem.weight
        torch.testing.assert_close(trainer.ema.stem.weight, expected)
        assert torch.equal(trainer.averages[0.0].stem.weight, trainer.network.stem.weight)
    assert trainer.model().training["ema"] == 0.05
    assert trainer.model(0.0).training["ema"] == 0.0


def test_two_averages_with_one_decay_are_refused():
    with pytest.raises(ValueError, match="two averages with the same decay"):
        dataclasses.replace(TINY, more_emas=(TINY.ema,))


@pytest.mark.slow
def test_a_trained_model_draws_what_is_asked():
    """Plain pictures of three colours: after seconds, a colour asked for is the colour drawn."""
    colours = np.array([(230, 40, 40), (40, 230, 40), (40, 40, 230)], dtype=np.uint8)
    labels = np.arange(30)[:, None] % 3
    pixels = np.tile(colours[labels[:, 0]][:, None, None], (1, 16, 16, 1))
    config = TrainConfig(
        images=6_000,
        size=16,
        widths=(16, 32),
        batch=32,
        lr=3e-3,
        T=100,
        ema=0.98,
        labels={"colour": ("red", "green", "blue")},
    )
    trainer = Trainer(config)
    for _ in trainer.run(pixels, np.arange(30), labels):
        pass
    model = trainer.model()
    for value in range(3):
        drawn = draw(model, range(6), Recipe("ddim", 20), labels=(value,), guidance=2.0)
        assert (drawn.mean(axis=(1, 2)).argmax(axis=1) == value).all()
    anything = draw(model, range(40), Recipe("ddim", 20), labels=(-1,))
    assert len(set(anything.mean(axis=(1, 2)).argmax(axis=1).tolist())) == 3
