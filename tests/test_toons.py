"""Cartoons of several styles as one set of pictures."""

import numpy as np
import pytest
import torch

from diffusion import DiffusionModel, toons
from diffusion.cartoons import Drawing, Stopped, draw_into, face
from diffusion.data import load_images
from diffusion.toons import MIXED, load_built_in
from diffusion.train_config import TrainConfig
from diffusion.training import Trainer


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Five pictures of every style, drawn in this process."""
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path))
    monkeypatch.setattr(toons, "EACH", 5)
    monkeypatch.setattr(
        Drawing, "_have_drawn", lambda self: draw_into(self.folder, self.style, self.size, 5)
    )


def test_every_picture_is_labelled_with_the_style_that_drew_it(few):
    images = load_images("toons", 16, progress=False)
    assert len(images) == 5 * len(MIXED)
    for i in (0, 7, 29):
        style = MIXED[images.labels.values[i, 0]]
        assert images.names[i].startswith(style)
        np.testing.assert_array_equal(images.pixels[i], face(style, i // len(MIXED), 16)[0])


def test_a_batch_is_read_like_a_stretch(few):
    pixels = load_images("toons", 16, progress=False).pixels
    chosen = np.array([3, 0, 11, 3])
    np.testing.assert_array_equal(pixels[chosen], np.array(pixels)[chosen])
    assert pixels[2:9].shape == (7, 16, 16, 3)


def test_who_waits_for_all_styles_can_be_told_to_stop(few, monkeypatch):
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: None)
    with pytest.raises(Stopped):
        load_built_in("toons", 16, progress=False, stopped=lambda: True)


def test_every_author_and_licence_is_named(few):
    source = load_images("toons", 16, progress=False).source
    for author in ("Johan Melin", "Draftbit", "The Visual Team", "DiceBear", "Natalia Spivak"):
        assert author in source.author
    assert source.licence == "CC BY 4.0, CC0 1.0"


def test_a_run_with_other_labels_begins_as_the_model_draws_when_nothing_is_asked():
    small = {"images": 64, "size": 16, "widths": (16,), "batch": 2}
    elder = Trainer(TrainConfig(**small, labels={"glasses": ("no", "yes")}))
    for parameter in elder.ema.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model = DiffusionModel(elder.ema, elder.schedule, labels={"glasses": ("no", "yes")})
    trainer = Trainer(TrainConfig(**small, labels={"style": MIXED}))
    tables = [table.weight.clone() for table in trainer.network.labels]
    trainer.begin_with(model)
    for before, table in zip(tables, trainer.network.labels, strict=True):
        torch.testing.assert_close(table.weight, before)
        torch.nn.init.zeros_(table.weight)
    x, time = torch.randn(2, 3, 16, 16), torch.tensor([500.0, 20.0])
    with torch.no_grad():
        torch.testing.assert_close(trainer.network(x, time), elder.ema(x, time))
