"""The shipped model: what the README and its card promise of it."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import quality, recorded, settings
from diffusion import DiffusionModel, results
from diffusion.card import Card
from diffusion.denoiser import ANY
from diffusion.film import LENSES
from diffusion.model import CONFIG, WEIGHTS
from diffusion.pictures import read_settings
from diffusion.reader import AttributeReader
from diffusion.recipe import Recipe, draw
from diffusion.sources import licence_id
from diffusion.toons import BUILT_IN
from diffusion.train_config import TrainConfig, learned_from

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
FOLDER = CHECKPOINTS / "cartoonset-64"
ALL = sorted(path.parent for path in CHECKPOINTS.glob(f"*/{CONFIG}"))
every_model = pytest.mark.parametrize("folder", ALL, ids=lambda folder: folder.name)


@pytest.fixture(scope="module")
def model():
    return DiffusionModel.from_pretrained(FOLDER)


@every_model
def test_a_model_folder_has_less_than_32_mb(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) < 32 * 2**20


@every_model
def test_the_weights_are_an_ordinary_file_under_32_mb(folder):
    content = (folder / WEIGHTS).read_bytes()
    assert 2**20 < len(content) < 32 * 2**20
    header = int.from_bytes(content[:8], "little")
    assert all(key == "__metadata__" or "dtype" in about
               for key, about in json.loads(content[8 : 8 + header]).items())  # fmt: skip


@every_model
def test_the_card_names_data_licence_and_command(folder):
    card = (folder / "README.md").read_text()
    for part in ("CC BY 4.0", "python -m diffusion train", "images seen", "## Limits"):
        assert part in card
    for name in ("samples.png", "loss.png", "progress.png", "asked.png"):
        assert f"({name})" in card
        assert (folder / name).is_file()


@every_model
def test_the_quality_on_the_card_is_that_of_its_results(folder):
    measured = results.read(folder / results.FILE)
    section = f"\n\n## Quality\n\n{results.conditions(measured)}\n\n{results.table(measured)}\n\n##"
    assert section in (folder / "README.md").read_text()


@every_model
def test_the_card_is_what_publishing_writes_but_for_the_history_of_the_training(folder):
    written, model = (folder / "README.md").read_text(), DiffusionModel.from_pretrained(folder)
    settings = {field.name for field in fields(TrainConfig)} & model.training.keys()
    config = TrainConfig(**{name: model.training[name] for name in settings}, labels=model.labels)
    title = re.search(r"^# (.*)$", written, re.MULTILINE)[1]
    data = next((name for name in BUILT_IN if f"--data {name} " in written), "faces.zip")
    card = Card(
        data,
        config,
        [{"images": config.images, "seconds": model.training["seconds"]}],
        model,
        title,
        learned_from(model.training)[-1],
        "two CPU cores",
        "",
        results.read(folder / results.FILE),
        folder,
        f"checkpoints/{folder.name}",
    )
    told, there = (text.split("\n## ") for text in (card.text(), written))
    assert len(told) == len(there)
    for part, section in zip(told, there, strict=True):
        assert part == section or part.startswith("Training\n")


def test_the_data_of_the_flagship_is_attributed():
    card = (FOLDER / "README.md").read_text()
    assert "CartoonSet" in card
    assert "Google" in card


@every_model
def test_what_can_be_asked_for_can_be_read(folder):
    reader = AttributeReader.load(folder)
    labels = DiffusionModel.from_pretrained(folder).labels
    assert dict(reader.labels) == labels
    assert min(reader.accuracy.values()) > 0.95


@pytest.mark.slow
@every_model
def test_faces_come_as_they_were_asked(folder):
    """Every value of every attribute, guidance 2."""
    model, reader = DiffusionModel.from_pretrained(folder), AttributeReader.load(folder)
    right = []
    for i, values in enumerate(model.labels.values()):
        asked = np.full((len(values), len(model.labels)), ANY)
        asked[:, i] = range(len(values))
        pictures = draw(model, range(len(asked)), Recipe("ddim", 10), labels=asked, guidance=2.0)
        right += (reader.read(pictures)[:, i] == asked[:, i]).tolist()
    assert np.mean(right) > 0.8


def test_the_quality_that_is_shown_was_measured_on_these_weights(model):
    assert quality.load(FOLDER, model.version) is not None


def test_make_shows_recorded_faces_of_these_weights(model):
    kept = recorded.load_made(model.version)
    order = settings.read_order({}, {})
    faces = recorded.made(model.version).last[0].x
    assert len(faces) == len(kept["verdicts"]) == len(order.seeds)
    drawn = draw(model, order.seeds[::4], order.recipes[0])
    assert np.abs(faces[::4].astype(int) - drawn).mean() <= 1


def tiles(picture, columns, size=64, gap=2):
    """The pictures of a sheet, in order."""
    step = size + gap
    rows = picture.shape[0] // step
    corners = [(gap + row * step, gap + i * step) for row in range(rows) for i in range(columns)]
    return np.stack([picture[y : y + size, x : x + size] for y, x in corners])


def test_seeds_0_to_63_are_faces_on_white_and_the_sheet_shows_all_of_them(model):
    pictures = tiles(np.asarray(Image.open(FOLDER / "samples.png")), columns=8)
    assert len(pictures) == 64
    corners = pictures[:, [0, 0, -1, -1], [0, -1, 0, -1]].reshape(64, -1)
    assert (corners.min(axis=1) >= 250).sum() >= 60
    # Something is drawn in each: a face covers a good part of its picture.
    assert ((pictures.min(axis=3) < 200).mean(axis=(1, 2)) > 0.1).all()
    assert read_settings(FOLDER / "samples.png")["seeds"] == "0-63"
    some = range(0, 64, 9)  # one of every row and of every column
    drawn = draw(model, some, Recipe("ddim", 50))
    assert np.abs(pictures[some].astype(int) - drawn).mean() <= 1


def test_the_same_seed_is_the_same_face_alone_or_among_16(model):
    recipe = Recipe("ddpm", 10)
    together = draw(model, range(16), recipe, batch=16).astype(int)
    alone = draw(model, [11], recipe).astype(int)
    assert np.abs(together[11] - alone[0]).max() <= 2


def test_run_lands_on_the_faces_of_the_recorded_run(model):
    comparison = settings.read_comparison(model.schedule.T)
    reel = recorded.reel(model.version)
    assert reel.comparison == comparison
    assert reel.weights == model.version
    for recipe, still in zip(comparison.recipes, reel.last, strict=True):
        drawn = draw(model, comparison.seeds[:2], recipe)
        assert still.calls == recipe.steps
        assert np.abs(still.x[:2].astype(int) - drawn).mean() <= 1


def test_the_recorded_run_is_small_and_shows_every_lens(model):
    assert recorded.FILE.stat().st_size < 1_000_000
    for film in recorded.reel(model.version).films:
        for lens in LENSES:
            assert sum(still.seen(lens) is not None for still in film.stills) >= 20


@every_model
def test_a_model_and_its_card_name_whose_pictures_it_learned_from(folder):
    sources = learned_from(DiffusionModel.from_pretrained(folder).training)
    assert "CartoonSet10k" in [source.name for source in sources]
    card = (folder / "README.md").read_text()
    assert card.startswith(f"---\nlicense: {licence_id(sources)}\n")
    for source in sources:
        assert source.credit in card
        assert f"{source.name}, {source.author}, {source.licence}" in card
