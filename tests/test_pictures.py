from __future__ import annotations

import math
import sys
import weakref

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torchvision.utils import make_grid

from diffusion.pictures import from_uint8, read_settings, save_animation, save_png, sheet, to_uint8


def noise_pictures(count: int, width: int = 20, height: int = 14) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def test_bytes_survive_the_way_to_a_tensor_and_back():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    x = from_uint8(pixels)
    assert x.shape == (1, 3, 16, 16)
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(x), pixels)


def test_values_outside_the_range_are_clipped():
    x = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0]).reshape(1, 1, 1, 5)
    assert to_uint8(x).ravel().tolist() == [0, 0, 128, 255, 255]


def test_a_sheet_is_nearly_square_and_white_between_the_pictures():
    pixels = np.zeros((5, 8, 8, 3), dtype=np.uint8)
    picture = sheet(pixels)
    assert picture.size == (3 * 10 + 2, 2 * 10 + 2)
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert picture.getpixel((2, 2)) == (0, 0, 0)
    assert picture.getpixel((30, 20)) == (255, 255, 255)  # the place of the sixth
    assert sheet(pixels, columns=5).size == (5 * 10 + 2, 10 + 2)


def test_a_picture_alone_is_its_own_sheet():
    pixels = np.asarray(noise_pictures(1)[0])[None]
    np.testing.assert_array_equal(np.asarray(sheet(pixels)), pixels[0])


@pytest.mark.parametrize("count", [1, 2, 5, 16])
@pytest.mark.parametrize("columns", [None, 1, 4, 30])
@pytest.mark.parametrize("gap", [0, 2])
def test_a_sheet_is_torchvisions_grid_and_needs_no_torchvision(count, columns, gap, monkeypatch):
    pixels = np.stack([np.asarray(picture) for picture in noise_pictures(count)])
    grid = make_grid(
        torch.as_tensor(pixels).permute(0, 3, 1, 2),
        nrow=columns or math.ceil(math.sqrt(count)),
        padding=gap,
        pad_value=255,
    )
    monkeypatch.setitem(sys.modules, "torchvision.utils", None)
    np.testing.assert_array_equal(np.asarray(sheet(pixels, columns, gap)), grid.permute(1, 2, 0))


def test_a_sheet_reads_row_by_row():
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    pixels += np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    picture = sheet(pixels)
    places = [(2, 2), (12, 2), (2, 12), (12, 12)]
    assert [picture.getpixel(place)[0] for place in places] == [0, 1, 2, 3]


def test_a_png_carries_its_settings(tmp_path):
    settings = {"recipe": {"eta": 0.5}, "seed": 7, "model": "vélo"}
    picture = noise_pictures(1)[0]
    save_png(tmp_path / "a.png", picture, settings)
    assert read_settings(tmp_path / "a.png") == settings
    assert Image.open(tmp_path / "a.png").tobytes() == picture.tobytes()


def test_a_png_without_settings_has_none(tmp_path):
    save_png(tmp_path / "a.png", noise_pictures(1)[0])
    assert read_settings(tmp_path / "a.png") is None


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_gif_has_every_picture_and_stays_on_the_last_for_a_second(tmp_path, count):
    save_animation(tmp_path / "a.gif", noise_pictures(count), fps=25)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (count, (20, 14), 0)
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert durations == [40] * (count - 1) + [1000]


@pytest.mark.parametrize("count", [1, 30])
def test_an_mp4_has_every_picture_and_stays_on_the_last_for_a_second(tmp_path, count):
    save_animation(tmp_path / "a.MP4", noise_pictures(count), fps=25)
    assert mp4_frames(tmp_path / "a.MP4") == [(20, 14)] * (count + 25)


def test_an_mp4_is_packed_while_its_pictures_are_drawn(tmp_path):
    alive = []

    def drawn():
        for i in range(60):
            picture = Image.new("RGB", (32, 32), (4 * i, 0, 0))
            alive.append(weakref.ref(picture))
            yield picture
            del picture
            assert sum(made() is not None for made in alive) <= 3

    save_animation(tmp_path / "a.mp4", drawn())
    assert len(mp4_frames(tmp_path / "a.mp4")) == 60 + 25


def test_an_mp4_of_odd_sides_loses_the_odd_row_and_column(tmp_path):
    save_animation(tmp_path / "a.mp4", noise_pictures(2, 21, 15))
    assert set(mp4_frames(tmp_path / "a.mp4")) == {(20, 14)}


def test_an_mp4_shows_the_colours_it_was_given(tmp_path):
    save_animation(tmp_path / "a.mp4", [Image.new("RGB", (32, 32), (200, 60, 40))] * 3)
    with av.open(str(tmp_path / "a.mp4")) as film:
        shown = next(film.decode(video=0)).to_ndarray(format="rgb24")
    assert abs(shown.astype(int) - (200, 60, 40)).max() <= 8


def test_the_kind_may_differ_from_the_paths_ending(tmp_path):
    save_animation(tmp_path / "a.partial", noise_pictures(3), kind=".gif")
    with Image.open(tmp_path / "a.partial") as gif:
        assert gif.format == "GIF"


@pytest.mark.parametrize(("name", "count"), [("a.webm", 3), ("a.gif", 0)])
def test_an_animation_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, name, count):
    with pytest.raises(ValueError, match=r"^(animations end in|an animation needs)[^\n]+$"):
        save_animation(tmp_path / name, noise_pictures(count))
    assert not list(tmp_path.iterdir())


def mp4_frames(path) -> list[tuple[int, int]]:
    with av.open(str(path)) as film:
        return [(frame.width, frame.height) for frame in film.decode(video=0)]
