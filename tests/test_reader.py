from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffusion.data import Images
from diffusion.labels import Labels
from diffusion.model import ModelError
from diffusion.reader import (
    FILE,
    AttributeReader,
    ReaderNetwork,
    chance,
    fidelity,
    palette_fidelity,
    train_reader,
)

COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)])
NAMES = {"colour": ("red", "green", "blue"), "spot": ("no", "yes")}
PALETTE = {"colour": ("c81e1e", "1ec81e", "1e1ec8")}


def faces(count: int, seed: int = 0) -> Images:
    """Plain pictures of three colours, half of them with a white spot."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(3, size=count), rng.integers(2, size=count)], axis=1)
    pixels = np.tile(COLOURS[values[:, 0]][:, None, None].astype(np.uint8), (1, 16, 16, 1))
    pixels[values[:, 1] == 1, 4:10, 4:10] = 255
    names = tuple(f"face{i}" for i in range(count))
    return Images(pixels, names, "key", labels=Labels(values, NAMES, PALETTE))


@pytest.fixture(scope="module")
def reader() -> AttributeReader:
    *_, last = train_reader(faces(400), held_out=80, epochs=6)
    return last


def test_a_trained_reader_reads_pictures_it_has_not_seen(reader):
    assert reader.held_out == 80
    assert min(reader.accuracy.values()) > 0.95
    other = faces(100, seed=1)
    assert (reader.read(other.pixels) == other.labels.values).mean() > 0.95


def test_the_accuracy_is_that_of_the_held_out_pictures(reader):
    images = faces(400)
    _, unseen = images.split(80)
    assert reader.accuracy == fidelity(reader, images.pixels[unseen], images.labels.values[unseen])


def test_training_is_a_function_of_the_seed():
    one, other, third = (
        next(train_reader(faces(150), 20, seed, epochs=1)).network.head.weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_a_reader_comes_back_from_its_folder(reader, tmp_path):
    path = reader.save(tmp_path)
    assert path.stat().st_size < 2**20
    again = AttributeReader.load(tmp_path)
    pixels = faces(50, seed=2).pixels
    np.testing.assert_array_equal(again.read(pixels), reader.read(pixels))
    assert (again.labels, again.accuracy, again.held_out) == (NAMES, reader.accuracy, 80)
    assert again.palette == PALETTE
    assert again.size == reader.size == 16


def test_a_reader_is_loaded_on_a_thread_that_ends_with_it(reader, tmp_path, monkeypatch):
    """A team of threads that stays with the page's first thread would halve the network's speed."""
    reader.save(tmp_path)
    load, threads = torch.nn.Module.load_state_dict, []

    def noted(*given, **named):
        threads.append(threading.current_thread())
        return load(*given, **named)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", noted)
    AttributeReader.load(tmp_path)
    assert len(threads) == 1
    assert not threads[0].is_alive()


def test_a_file_that_is_no_reader_is_refused(tmp_path):
    with pytest.raises(ModelError, match="python -m diffusion reader"):
        AttributeReader.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="no reader of this version"):
        AttributeReader.load(tmp_path)


@pytest.mark.parametrize(
    "palette",
    [
        {"colour": ("red; background: url(//evil.example)", "1ec81e", "1e1ec8")},
        {"colour": ('"><script>1</script>', "1ec81e", "1e1ec8")},
        {"colour": (1, 2, 3)},
        {"colour": ("c81e1e", "1ec81e")},
        {"shade": ("c81e1e", "1ec81e", "1e1ec8")},
    ],
)
def test_a_palette_that_is_not_the_labels_colours_is_refused(reader, tmp_path, palette):
    replace(reader, palette=palette).save(tmp_path)
    with pytest.raises(ModelError, match="no reader of this version"):
        AttributeReader.load(tmp_path)


def test_a_value_may_be_without_a_colour(reader, tmp_path):
    palette = {"colour": ("c81e1e", None, "1e1ec8")}
    replace(reader, palette=palette).save(tmp_path)
    assert AttributeReader.load(tmp_path).palette == palette


def test_what_was_not_asked_does_not_count():
    network = ReaderNetwork(5).eval()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    blind = AttributeReader(network, NAMES)  # always answers with the first value
    asked = np.array([[0, -1], [1, -1], [0, -1], [-1, -1]])
    assert fidelity(blind, faces(4).pixels, asked) == {"colour": pytest.approx(2 / 3)}


def test_a_picture_whose_label_is_not_known_teaches_nothing_about_it():
    images = faces(200)
    images.labels.values[:, 1] = -1
    *_, reader = train_reader(images, 40, epochs=4)
    assert reader.accuracy.keys() == {"colour"}
    assert reader.accuracy["colour"] > 0.9


def test_fewer_pictures_than_a_batch_are_learned_from():
    few = faces(50)
    first, *_, last = train_reader(few, 10, epochs=30)
    assert min(last.accuracy.values()) > 0.9
    assert first.network is last.network


def test_a_batch_of_which_nothing_is_known_is_passed_over():
    images = faces(100)
    images.labels.values[:] = -1
    *_, reader = train_reader(images, 5, epochs=2)
    assert reader.accuracy == {}


def test_a_reader_without_held_out_pictures_is_refused():
    with pytest.raises(ValueError, match="choose 1 or more"):
        next(train_reader(faces(20), 0))


def test_the_palette_is_a_second_witness(reader):
    images = faces(30, seed=3)
    assert palette_fidelity(reader, images.pixels, images.labels.values) == {"colour": 1.0}
    wrong = (images.labels.values + 1) % 3
    assert palette_fidelity(reader, images.pixels, wrong) == {"colour": 0.0}


def test_chance_is_how_often_two_draws_agree():
    asked = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [-1, 0]])
    assert chance(asked, ["a", "b"]) == {"a": pytest.approx(0.5), "b": pytest.approx(0.52)}


@pytest.mark.parametrize("part", ["labels", "accuracy", "palette"])
def test_a_part_of_a_reader_that_is_no_object_is_refused(reader, tmp_path, part):
    path = reader.save(tmp_path)
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    save_file(reader.network.state_dict(), path, about | {part: "[1, 2]"})
    with pytest.raises(ModelError, match="no reader of this version"):
        AttributeReader.load(tmp_path)
