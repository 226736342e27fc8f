"""Built-in cartoons: the same wherever they are drawn, labelled, licensed, and ready early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo import offered
from diffusion import cartoons
from diffusion.cartoons import (
    STYLES,
    Drawing,
    Stopped,
    attributes,
    draw_into,
    face,
    load_cartoons,
    source,
)
from diffusion.data import load_images
from diffusion.image_files import DataError
from diffusion.labels import Labels
from diffusion.run_training import _resident
from diffusion.train_config import TrainConfig
from diffusion.training import Trainer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Styles of 60 pictures, in a cache of this test's own, drawn in this process when asked."""
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path))
    monkeypatch.setattr(cartoons, "COUNT", 60)
    monkeypatch.setattr(cartoons, "FIRST", 20)
    monkeypatch.setattr(cartoons, "CHUNK", 10)
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self))


def draw_some(drawing: Drawing, count: int = 60) -> None:
    draw_into(drawing.folder, drawing.style, drawing.size, count)


@pytest.mark.parametrize("style", STYLES)
def test_a_face_is_a_function_of_its_number_and_every_label_has_a_name(style):
    (one, labels), (again, same) = face(style, 3, 32), face(style, 3, 32)
    assert np.array_equal(one, again)
    assert labels == same
    assert one.shape == (32, 32, 3)
    assert not np.array_equal(one, face(style, 4, 32)[0])
    faces = [face(style, number, 8)[1] for number in range(40)]
    Labels(np.array(faces), attributes(style))  # refuses a label outside its names
    assert len({tuple(values) for values in faces}) > 30


@pytest.mark.parametrize("style", STYLES)
def test_every_style_says_who_drew_it_and_under_which_licence(style):
    made = source(style)
    assert made.author
    assert made.url.startswith("https://")
    assert made.licence in ("CC BY 4.0", "CC0 1.0")


def test_a_label_says_what_is_seen():
    """Faces with the darkest hair are darker at the top than those with the lightest."""
    names = attributes("toon-head")
    colour = list(names).index("hair_color")
    tops = {"2c1b18": [], "d6b370": []}
    for number in range(60):
        picture, labels = face("toon-head", number, 32)
        name = names["hair_color"][labels[colour]]
        if name in tops:
            tops[name].append(picture[3:9, 12:20].mean())
    assert np.mean(tops["2c1b18"]) < np.mean(tops["d6b370"]) - 30


def test_pictures_are_read_while_others_are_still_to_be_drawn(few, monkeypatch):
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self, 20))
    images = load_images("pixel-art", 8, progress=False)
    assert (len(images), images.pixels.drawn, images.labels) == (60, 20, None)
    assert np.array_equal(images.pixels[[4, 19]][1], face("pixel-art", 19, 8)[0])
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self))
    assert np.array_equal(images.pixels[[40]][0], face("pixel-art", 40, 8)[0])  # had to wait


def test_a_training_on_a_gpu_does_not_wait_for_cartoons_that_are_being_drawn(few, monkeypatch):
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self, 20))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device=None: (2**40, 2**40))
    images = load_images("pixel-art", 8, progress=False)
    assert _resident(images, torch.device("cuda")) is images.pixels
    draw_some(images.pixels)
    assert images.pixels.complete
    if torch.cuda.is_available():
        there = _resident(images, torch.device("cuda"))
        assert np.array_equal(there.cpu(), images.pixels)


def test_an_interrupted_drawing_goes_on_where_it_stopped(few):
    drawing = Drawing("pixel-art", 8)
    draw_some(drawing, 20)
    with open(drawing.folder / "pixels.u8", "ab") as file:
        file.write(b"half a picture")
    assert drawing.drawn == 20
    images = load_cartoons("pixel-art", 8, progress=False, complete=True)
    assert (drawing.folder / "pixels.u8").stat().st_size == 60 * 8 * 8 * 3
    for number in (19, 20, 59):
        picture, labels = face("pixel-art", number, 8)
        assert np.array_equal(images.pixels[number], picture)
        assert tuple(images.labels.values[number]) == labels


def test_a_batch_is_the_same_whether_the_pool_is_drawn_or_still_growing(few, monkeypatch):
    config = TrainConfig(images=400, size=16, widths=(16, 32), batch=4, T=50, pool=20)
    complete = load_cartoons("pixel-art", 16, progress=False, complete=True)
    indices = np.arange(60)
    trainer = Trainer(config)
    seen = [trainer.batch(complete.pixels, indices, step).x0 for step in (0, 3, 30)]
    growing = Drawing("pixel-art", 16)
    (growing.folder / "pixels.u8").unlink()
    (growing.folder / "labels.i8").unlink()
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self, self.drawn + 20))
    monkeypatch.setattr(cartoons, "PATIENCE", 0.0)
    for step, x0 in zip((0, 3, 30), seen, strict=True):
        assert trainer.batch(growing, indices, step).x0.equal(x0)


def test_the_pool_begins_small_and_grows_by_what_was_seen():
    config = TrainConfig(images=4000, size=16, widths=(16, 32), batch=4, T=50, pool=20)
    numbers = np.arange(60 * 16 * 16 * 3).reshape(60, -1) // 768  # picture i is all i
    pixels = numbers.astype(np.uint8).reshape(60, 16, 16, 3)
    trainer = Trainer(config)

    def largest(steps):
        batches = [trainer.batch(pixels, np.arange(60), step).x0 for step in steps]
        return max(round((float(x0.max()) + 1) * 127.5) for x0 in batches)

    assert largest([0] * 1) < 20
    assert largest(range(5)) < 36
    assert largest(range(10, 200)) == 59


def test_unknown_sizes_are_refused_in_one_sentence():
    with pytest.raises(DataError, match=r"^pictures of 4 px; choose 8 to 512$"):
        load_images("toon-head", 4)


@pytest.mark.parametrize("style", offered.FIRST)
def test_the_face_beside_a_style_in_the_form_is_one_that_it_draws(style):
    with Image.open(offered.picture_file(style)) as shown:
        difference = np.abs(np.asarray(shown, np.int16) - offered.drawn(style))
    assert difference.max() <= 2  # of 255: versions of the drawing package round differently


def test_pictures_that_cannot_be_drawn_are_given_up_and_the_reason_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path))
    monkeypatch.setattr(cartoons, "PATIENCE", 0.1)
    started = []

    def failing(*_):
        started.append("again")
        return {"args": [sys.executable, "-c", "raise OSError('no space left on device')"]}

    monkeypatch.setattr(cartoons, "python", failing)
    drawing = Drawing("pixel-art", 8)
    with pytest.raises(DataError) as error:
        drawing.wait(10)
    assert str(error.value) == (
        "pictures of pixel-art cannot be drawn (OSError: no space left on device); "
        f"see {drawing.folder / 'log.txt'}"
    )
    assert len(started) == cartoons.FAILURES


def test_who_waits_for_pictures_can_be_told_to_stop(few, monkeypatch):
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: None)
    answers = iter([False, False, True])
    with pytest.raises(Stopped):
        load_cartoons("pixel-art", 8, progress=False, stopped=answers.__next__)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what a process holds")
def test_who_draws_for_a_training_holds_no_file_of_its_run(tmp_path):
    """On Windows a run cannot be deleted while a process holds one."""
    script = (
        "import json, os\n"
        "from diffusion.cartoons import Drawing\n"
        "drawing = Drawing('pixel-art', 8, 10)\n"
        "drawing._have_drawn()\n"
        "held = f'/proc/{drawing._child.pid}/fd'\n"
        "print(json.dumps({name: os.readlink(f'{held}/{name}') for name in os.listdir(held)}))\n"
        "drawing.wait(10)"
    )
    run, environment = tmp_path / "run", {**os.environ, "CARTOON_CACHE": str(tmp_path / "cache")}
    run.mkdir()
    with open(run / "log.txt", "wb") as log:
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )
    held = json.loads((run / "log.txt").read_text())
    assert {held["0"], held["1"]} == {os.devnull}
    assert Path(held["2"]).is_relative_to(tmp_path / "cache")
    assert not [path for path in held.values() if path.startswith(str(run))]


def test_a_drawing_of_few_pictures_is_as_long_as_it_says_and_counts_from_its_own_end(few):
    draw_some(Drawing("pixel-art", 8))  # 60, by somebody else
    drawing = Drawing("pixel-art", 8, 30)
    assert drawing[:].shape == drawing.shape == (30, 8, 8, 3)
    assert np.array_equal(drawing[-1], face("pixel-art", 29, 8)[0])
    with pytest.raises(IndexError):
        drawing[30]


def test_an_index_from_the_end_is_the_same_picture_while_others_are_still_drawn(few, monkeypatch):
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self, 20))
    drawing = Drawing("pixel-art", 8)
    assert np.array_equal(drawing[:-50][-1], face("pixel-art", 9, 8)[0])
