"""Several models in memory, within a bound."""

import os

import pytest

from diffusion import DiffusionModel, ModelError, Schedule, UNet, UNetConfig
from diffusion.model import WEIGHTS
from diffusion.residents import Residents


def model():
    return DiffusionModel(UNet(UNetConfig(size=16, widths=(16,))), Schedule.cosine(10))


@pytest.fixture
def folders(tmp_path):
    return [str(model().save_pretrained(tmp_path / name)) for name in "abc"]


def test_a_model_is_loaded_once(folders):
    residents = Residents()
    assert residents.get(folders[0]) is residents.get(folders[0])


def test_the_least_recently_used_leaves(folders):
    a, b, c = folders
    size = Residents().get(a).nbytes
    residents = Residents(limit=2 * size)
    residents.get(a), residents.get(b), residents.get(a), residents.get(c)
    assert [name in residents for name in folders] == [True, False, True]


def test_a_model_larger_than_the_limit_is_still_served(folders):
    residents = Residents(limit=1)
    assert residents.get(folders[0]).model.shape == (3, 16, 16)


def test_new_weights_are_a_new_version(folders):
    residents = Residents()
    before = residents.get(folders[0])
    model().save_pretrained(folders[0])
    os.utime(os.path.join(folders[0], WEIGHTS), ns=(1, 1))
    after = residents.get(folders[0])
    assert after.version != before.version
    assert after.model is not before.model


def test_a_kept_model_stays_whatever_the_limit(folders):
    residents = Residents(limit=1)
    residents.keep("mine", kept := model())
    for folder in folders:
        residents.get(folder)
    assert residents.get("mine").model is kept


def test_a_missing_model_is_a_sentence():
    with pytest.raises(ModelError, match="no model in runs/nothing"):
        Residents().get("runs/nothing")
