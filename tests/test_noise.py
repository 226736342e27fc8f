from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffusion import Noise, noise
from diffusion.noise import MAX_SEED, SAMPLING, TRAINING, generator

# Changing these values changes every picture that anybody ever made with a seed.
GOLDEN = {
    (7, 1000): [0.21528655, -0.22220957, 2.013556, 0.9610325, 0.6319306, -0.18247533],
    (0, 0): [0.059911035, 0.015559634, -1.1644385],
}


@pytest.mark.parametrize(("where", "values"), GOLDEN.items())
def test_the_numbers_are_those_of_every_version(where, values):
    drawn = noise(*where, shape=(len(values),))
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn, torch.tensor(values), atol=1e-7, rtol=1e-6)


def test_the_same_arguments_give_the_same_numbers_bit_for_bit():
    assert torch.equal(noise(3, 4, (3, 8, 8)), noise(3, 4, (3, 8, 8)))


def test_a_larger_picture_begins_with_the_same_numbers():
    assert torch.equal(noise(3, 4, (2, 8)).flatten(), noise(3, 4, (100,))[:16])


def test_image_i_of_a_batch_is_the_picture_of_seed_k_plus_i():
    batch = Noise(range(7, 11), (3, 4, 4))(12)
    assert batch.shape == (4, 3, 4, 4)
    for i in range(4):
        assert torch.equal(batch[i], noise(7 + i, 12, (3, 4, 4)))


def test_noise_depends_neither_on_the_batch_nor_on_the_order_of_the_levels():
    one, many = Noise([9], (5,)), Noise([2, 9, 4], (5,))
    forward = {level: many(level)[1] for level in (1, 2, 3)}
    backward = {level: one(level)[0] for level in (3, 2, 1)}
    for level in (1, 2, 3):
        assert torch.equal(forward[level], backward[level])


def test_seeds_levels_branches_and_purposes_have_streams_that_do_not_meet():
    """No run of eight bytes of one stream occurs in another, wherever it starts."""
    drawn = {
        key: generator(*key).bytes(4096)
        for key in itertools.product((0, 1, 2), (SAMPLING, TRAINING), (0, 1, 2, 500), (0, 1))
    }
    seen: dict[bytes, tuple] = {}
    for key, stream in drawn.items():
        for start in range(0, len(stream), 8):
            word = stream[start : start + 8]
            assert seen.setdefault(word, key) == key


def test_a_branch_gives_other_noise_than_the_trunk():
    trunk, branch = (Noise([5], (1000,), branch=b)(10) for b in (0, 1))
    assert abs(torch.corrcoef(torch.cat([trunk, branch]))[0, 1]) < 0.15


def test_the_numbers_are_standard_normal():
    drawn = noise(123, 456, (1_000_000,)).double()
    assert drawn.mean().item() == pytest.approx(0, abs=0.004)
    assert drawn.std().item() == pytest.approx(1, abs=0.003)
    assert (drawn**3).mean().item() == pytest.approx(0, abs=0.012)
    assert (drawn**4).mean().item() == pytest.approx(3, abs=0.03)
    inside = (drawn.abs() < 1).double().mean().item()
    assert inside == pytest.approx(0.6827, abs=0.002)


@pytest.mark.parametrize("along", ["seed", "level"])
def test_neighbouring_seeds_and_levels_are_uncorrelated(along):
    rows = [noise(i, 5, (4096,)) if along == "seed" else noise(5, i, (4096,)) for i in range(16)]
    correlation = torch.corrcoef(torch.stack(rows)) - torch.eye(16)
    assert correlation.abs().max() < 0.1


@pytest.mark.parametrize("seed", [0, MAX_SEED, np.int64(5)])
def test_every_seed_below_2_to_the_63_works(seed):
    assert noise(seed, 1000, (4,)).isfinite().all()


@pytest.mark.parametrize("seed", ["abc", "7", -1, 2**63, 1.5, 2.0, None])
def test_what_is_no_seed_is_refused_in_one_sentence(seed):
    with pytest.raises(ValueError, match=r"^seed .* choose a whole number from 0 to 2⁶³ - 1$"):
        noise(seed, 0, (4,))
