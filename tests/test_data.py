from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import data, image_files
from diffusion.cartoons import Stopped
from diffusion.data import CARTOONSET_BOX, load_images
from diffusion.image_files import DataError
from diffusion.sources import Source, attribution_is_enough, licence_id

ONE_SENTENCE = r"^[^\n]+$"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Each test has a cache of its own, which holds finished data sets and nothing else."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CARTOON_CACHE", str(folder))
    yield folder
    left = list(folder.rglob("*")) if folder.exists() else []
    assert not [path for path in left if path.name.startswith(".")]


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def plain(colour: str | tuple = "red", side: int = 16) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def png(picture: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    (picture or plain()).save(buffer, "PNG")
    return buffer.getvalue()


def loaded(source: Path, size: int = 8) -> data.Images:
    return load_images(source, size, progress=False)


def only(source: Path, size: int = 8) -> np.ndarray:
    images = loaded(source, size)
    assert (len(images), images.skipped) == (1, 0)
    return np.array(images.pixels[0])


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, entries: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


COLOURS = {"a.png": "red", "deep/er/b.PNG": "lime", "deep/c.jpg": "blue"}


def entries() -> dict[str, bytes]:
    content = {name: png(plain(colour)) for name, colour in COLOURS.items()}
    hidden = {".hidden.png": png(), "deep/.ipynb_checkpoints/c-checkpoint.png": png()}
    return {**content, **hidden, "notes.txt": b"hello", "__MACOSX/._a.png": b"x"}


def make_folder(tmp_path: Path) -> Path:
    for name, content in entries().items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


MAKERS = {
    "folder": make_folder,
    "zip": lambda tmp_path: zipped(tmp_path / "faces.zip", entries()),
    "tgz": lambda tmp_path: tarred(tmp_path / "faces.tgz", entries()),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_folder_or_an_archive_gives_all_its_pictures_and_nothing_else(tmp_path, make):
    images = loaded(make(tmp_path))
    assert sorted(images.names) == ["a", "b", "c"]
    assert images.skipped == 0
    assert images.pixels.shape == (3, 8, 8, 3)
    assert images.pixels.dtype == np.uint8
    by_name = dict(zip(images.names, images.pixels, strict=True))
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 255, 0)), ("c", (0, 0, 255))):
        assert (by_name[name] == colour).all()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_files_of_other_kinds_are_counted_and_hidden_ones_are_not(tmp_path, make):
    path = make(tmp_path)
    for _ in range(2):  # decoded, and from the cache
        assert loaded(path).other == {".txt": 1}


def test_what_was_read_and_what_was_left_out_is_told_in_a_sentence(source):
    for name in "ab":
        plain().save(source / f"{name}.png")
    assert loaded(source).told == "2 pictures."
    (source / "c.png").write_bytes(b"no picture")
    assert loaded(source).told == "2 pictures; 1 broken left out."
    (source / "d.HEIC").write_bytes(b"a phone's")
    told = "2 pictures; 1 broken and 1 of other kinds (.heic) left out."
    assert loaded(source).told == told
    for name in ("e.heic", "f.mov", "g.mov", "h.tif", "LICENSE"):
        (source / name).write_bytes(b"")
    told = "2 pictures; 1 broken and 6 of other kinds (.heic, .mov, no suffix, …) left out."
    assert loaded(source).told == told


def test_a_folder_of_links_says_that_links_are_not_followed(source, tmp_path):
    for i in range(3):
        plain().save(tmp_path / f"{i}.png")
        os.symlink(tmp_path / f"{i}.png", source / f"{i}.png")
    os.symlink("itself.png", source / "itself.png")
    with pytest.raises(DataError, match=r"^3 links lead out of .*; give the folder they point to$"):
        loaded(source)
    plain().save(source / "good.png")
    assert loaded(source).told == "1 picture; 3 of other kinds (links that lead out) left out."


def test_a_folder_is_read_in_an_order_that_knows_upper_case(source, monkeypatch):
    for name in ("b.png", "C.png", "A.png", "a/d.png"):
        (source / name).parent.mkdir(exist_ok=True)
        plain().save(source / name)
    monkeypatch.setattr(Path, "__lt__", lambda one, other: str(one).lower() < str(other).lower())
    assert loaded(source).names == ("A", "C", "d", "b")


@pytest.mark.parametrize(
    ("licences", "name", "enough"),
    [
        (["CC BY 4.0"], "cc-by-4.0", True),
        (["CC0 1.0"], "cc0-1.0", True),
        (["CC BY 4.0, CC0 1.0", "CC-BY-4.0"], "cc-by-4.0", True),
        (["CC BY 4.0", "CC BY 3.0"], "other", True),
        (["CC BY 4.0", "CC BY-NC 4.0"], "other", False),
        (["CC BY 4.0", "CC BY-SA 4.0"], "other", False),
        (["CC BY 4.0", "All rights reserved"], "other", False),
        (["CC0 1.0", "CC BY-SA 4.0"], "cc-by-sa-4.0", False),
        (["MIT"], "mit", False),
        (["MIT License"], "other", False),
        (["my own"], "other", False),
        ([""], "other", False),
    ],
    ids=str,
)
def test_a_licence_is_named_only_where_it_is_the_only_one_that_asks(licences, name, enough):
    sources = [Source("Faces", "Somebody", licence, "https://example.org") for licence in licences]
    assert licence_id(sources) == licence_id(sources[::-1]) == name
    assert attribution_is_enough(sources) is enough


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "gif", "bmp"])
def test_every_usual_format_is_read(source, suffix):
    plain("white").save(source / f"face.{suffix}")
    assert only(source).min() > 250


def test_transparent_pixels_become_white(source):
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 8, 16))
    picture.save(source / "face.png")
    pixels = only(source, 16)
    assert (pixels[:, :8] == (0, 0, 255)).all()
    assert (pixels[:, 8:] == 255).all()


def test_half_transparent_black_becomes_grey(source):
    Image.new("RGBA", (16, 16), (0, 0, 0, 128)).save(source / "face.png")
    assert (abs(only(source).astype(int) - 127) <= 1).all()


def modes() -> dict[str, tuple[Image.Image, tuple[int, int, int], dict]]:
    """A picture of every mode, its colour as RGB on white, and how to save it."""
    palette = plain((10, 200, 30)).quantize(4)
    hole = Image.new("P", (16, 16), 0)
    hole.putpalette([255, 0, 0, 0, 255, 0])
    sixteen = Image.fromarray(np.full((16, 16), 0x8040, dtype=np.uint16))
    return {
        "palette": (palette, (10, 200, 30), {"format": "PNG"}),
        "transparent palette": (hole, (255, 255, 255), {"format": "PNG", "transparency": 0}),
        "transparent colour": (
            plain(),
            (255, 255, 255),
            {"format": "PNG", "transparency": (255, 0, 0)},
        ),
        "grey": (Image.new("L", (16, 16), 77), (77, 77, 77), {"format": "PNG"}),
        "grey and alpha": (Image.new("LA", (16, 16), (0, 0)), (255, 255, 255), {"format": "PNG"}),
        "bilevel": (Image.new("1", (16, 16), 1), (255, 255, 255), {"format": "PNG"}),
        "cmyk": (Image.new("CMYK", (16, 16), (255, 0, 0, 0)), (0, 255, 255), {"format": "JPEG"}),
        "16 bit": (sixteen, (128, 128, 128), {"format": "PNG"}),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_colour_mode_becomes_rgb_on_white(source, mode):
    picture, colour, how = modes()[mode]
    picture.save(source / ("face.jpg" if how["format"] == "JPEG" else "face.png"), **how)
    assert abs(only(source).astype(int) - colour).max() <= 3


@pytest.mark.parametrize("wide", [True, False])
def test_a_long_picture_is_cropped_to_its_middle(source, wide):
    picture = Image.new("RGB", (48, 16) if wide else (16, 48), "black")
    picture.paste("white", (16, 0, 32, 16) if wide else (0, 16, 16, 32))
    picture.save(source / "face.png")
    assert (only(source, 16) == 255).all()


def test_shrinking_averages_so_that_a_fine_checkerboard_becomes_grey(source):
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(source / "board.png")
    inside = only(source, 16)[1:-1, 1:-1].astype(int)
    assert abs(inside - 127.5).max() < 3


def test_a_tiny_picture_is_enlarged(source):
    plain("red", side=1).save(source / "dot.png")
    assert (only(source, 32) == (255, 0, 0)).all()


@pytest.mark.parametrize(("name", "cropped"), [("cs123", True), ("csa1", False), ("face", False)])
def test_cartoonset_pictures_are_cropped_to_the_face(source, name, cropped):
    left, top, right, bottom = CARTOONSET_BOX
    picture = Image.new("RGB", (500, 500), "black")
    picture.paste("white", CARTOONSET_BOX)
    picture.save(source / f"{name}.png")
    assert (right - left, bottom - top) == (448, 448)
    assert (only(source, 64) == 255).all() == cropped


def test_only_pictures_of_cartoonsets_own_size_are_cropped(source):
    picture = Image.new("RGB", (400, 400), "black")
    picture.paste("white", (25, 12, 375, 388))
    picture.save(source / "cs7.png")
    assert not (only(source, 64) == 255).all()


def test_the_second_call_opens_the_cache_without_decoding(source, monkeypatch):
    plain().save(source / "face.png")
    first = loaded(source)
    monkeypatch.setattr(data, "preparation", lambda size: pytest.fail("decoded again"))
    second = loaded(source)
    assert second.key == first.key
    assert second.names == first.names
    assert np.array_equal(second.pixels, first.pixels)
    assert isinstance(second.pixels, np.memmap)


def test_a_cache_remembers_what_was_skipped(source):
    plain().save(source / "face.png")
    (source / "broken.png").write_bytes(b"no picture")
    assert (loaded(source).skipped, loaded(source).skipped) == (1, 1)


def test_other_content_names_or_sizes_make_another_cache(source):
    plain("red").save(source / "face.png")
    keys = {loaded(source).key, loaded(source, 16).key}
    plain("lime").save(source / "face.png")
    changed = loaded(source)
    assert (changed.pixels[0] == (0, 255, 0)).all()
    keys.add(changed.key)
    (source / "face.png").rename(source / "other.png")
    keys.add(loaded(source).key)
    assert len(keys) == 4


def test_the_same_content_elsewhere_shares_the_cache(source, tmp_path):
    plain().save(source / "face.png")
    key = loaded(source).key
    assert loaded(source.rename(tmp_path / "moved")).key == key


def damaged() -> dict[str, bytes]:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    jpg, whole = io.BytesIO(), png(noisy)
    noisy.save(jpg, "JPEG")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    return {
        "text.png": b"this is no picture",
        "empty.png": b"",
        "truncated.jpg": jpg.getvalue()[: len(jpg.getvalue()) // 2],
        "truncated.png": whole[: len(whole) // 2],
        "head_only.png": whole[:20],
        "flipped.png": bytes(flipped),
        "gif.gif": b"GIF89a\x10\x00\x10\x00",
        "webp.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
        "bmp.bmp": b"BM" + bytes(20),
    }


def test_broken_pictures_are_skipped_and_counted(tmp_path):
    good = {"good.png": png()}
    images = loaded(zipped(tmp_path / "faces.zip", {**damaged(), **good}))
    assert images.names == ("good",)
    assert images.skipped == len(damaged())


@pytest.mark.parametrize("name", damaged())
def test_each_kind_of_damage_alone_leaves_one_sentence(source, name):
    (source / name).write_bytes(damaged()[name])
    with pytest.raises(DataError, match=r"^no images in .*1 broken files were skipped"):
        loaded(source)


def no_folder(tmp_path):
    return tmp_path / "nowhere"


def empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def folder_of_text(tmp_path):
    folder = empty_folder(tmp_path)
    (folder / "readme.txt").write_text("hello")
    return folder


def empty_zip(tmp_path):
    return zipped(tmp_path / "empty.zip", {})


def empty_tgz(tmp_path):
    return tarred(tmp_path / "empty.tgz", {})


def empty_file(tmp_path):
    (tmp_path / "empty.zip").touch()
    return tmp_path / "empty.zip"


def no_archive(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"PK but not really" * 100)
    return tmp_path / "faces.zip"


def half_a_zip(tmp_path):
    path = zipped(tmp_path / "faces.zip", entries())
    path.write_bytes(path.read_bytes()[:-40])
    return path


def half_a_tgz(tmp_path):
    rng = np.random.default_rng(0)
    path = tarred(
        tmp_path / "faces.tgz",
        {
            f"{i}.png": png(Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)))
            for i in range(9)
        },
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def a_bit_of_a_tgz(tmp_path):
    path = half_a_tgz(tmp_path)
    path.write_bytes(path.read_bytes()[:60])
    return path


def flip_middle(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 8] = bytes(byte ^ 0xFF for byte in content[middle : middle + 8])
    path.write_bytes(content)
    return path


def zip_with_a_flipped_byte(tmp_path):
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    return flip_middle(zipped(tmp_path / "faces.zip", {"a.png": png(noisy)}))


def tgz_with_a_flipped_byte(tmp_path):
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    return flip_middle(tarred(tmp_path / "faces.tgz", {"a.png": png(noisy)}))


def a_device(tmp_path):
    return Path("/dev/zero")


BAD_SOURCES = [
    no_folder,
    empty_folder,
    folder_of_text,
    empty_zip,
    empty_tgz,
    empty_file,
    no_archive,
    half_a_zip,
    half_a_tgz,
    a_bit_of_a_tgz,
    zip_with_a_flipped_byte,
    tgz_with_a_flipped_byte,
    a_device,
]


@pytest.mark.parametrize("make", BAD_SOURCES, ids=lambda make: make.__name__)
def test_a_bad_source_is_refused_in_one_sentence_and_leaves_no_cache(tmp_path, cache, make):
    path = make(tmp_path)
    with pytest.raises(DataError, match=ONE_SENTENCE) as error:
        loaded(path)
    assert str(path) in str(error.value)
    assert not cache.exists() or not list((cache / "images").iterdir())


LEAVING = ["../face.png", "deep/../../face.png", "/tmp/face.png", "..\\face.png", "C:\\face.png"]


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_whose_paths_leave_it_is_refused(tmp_path, pack, name):
    archive = pack(tmp_path / "faces.archive", {"good.png": png(), name: png()})
    with pytest.raises(DataError, match="has a path that leaves the archive"):
        loaded(archive)


def test_links_and_devices_in_a_tar_are_left_alone(tmp_path):
    outside = tmp_path / "secret.png"
    plain("black").save(outside)
    archive = tarred(
        tmp_path / "faces.tgz",
        {
            "good.png": png(),
            "soft.png": special("soft.png", tarfile.SYMTYPE, str(outside)),
            "hard.png": special("hard.png", tarfile.LNKTYPE, "good.png"),
            "device.png": special("device.png", tarfile.CHRTYPE),
            "pipe.png": special("pipe.png", tarfile.FIFOTYPE),
        },
    )
    assert loaded(archive).names == ("good",)


def test_links_in_a_folder_that_lead_out_of_it_are_left_alone(source, tmp_path):
    plain().save(source / "good.png")
    plain("black").save(tmp_path / "secret.png")
    os.symlink(tmp_path / "secret.png", source / "secret.png")
    assert loaded(source).names == ("good",)


@pytest.mark.parametrize("size", [0, 7, -64, 513, 100_000, 64.0, "64", None])
def test_absurd_sizes_are_refused(source, size):
    plain().save(source / "face.png")
    with pytest.raises(DataError, match=r"^pictures of .* px; choose 8 to 512$"):
        load_images(source, size, progress=False)


@pytest.mark.parametrize("side", [8000, 20_000])
def test_a_picture_of_absurdly_many_pixels_is_refused(source, side):
    Image.new("1", (side, side)).save(source / "huge.png")
    plain().save(source / "good.png")
    with pytest.raises(DataError, match=r"^huge\.png (has|is too large)") as error:
        loaded(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_bomb_in_an_archive_is_refused_before_it_is_unpacked(tmp_path, pack):
    archive = pack(tmp_path / "faces.archive", {"bomb.png": bytes(image_files.MAX_BYTES + 1)})
    assert archive.stat().st_size < 10**6
    with pytest.raises(DataError, match=r"^bomb\.png has 67,108,865 bytes; give images of at most"):
        loaded(archive)


def test_files_are_read_ahead_within_limits():
    small = [("a", bytes(10))] * (image_files.BATCH + 1)
    assert [len(batch) for batch in image_files.batches(iter(small))] == [image_files.BATCH, 1]
    large = [("a", bytes(image_files.BATCH_BYTES // 2 + 1))] * 5
    assert [len(batch) for batch in image_files.batches(iter(large))] == [2, 2, 1]


def test_too_many_pictures_are_refused(source, monkeypatch):
    monkeypatch.setattr(data, "MAX_IMAGES", 2)
    for name in "abc":
        plain().save(source / f"{name}.png")
    with pytest.raises(DataError, match="has over 2 images; give fewer"):
        loaded(source)


def test_a_full_disk_leaves_no_half_cache(source, cache, monkeypatch):
    plain().save(source / "face.png")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(data.json, "dumps", full)
    with pytest.raises(OSError, match="no space left"):
        loaded(source)
    assert not list((cache / "images").iterdir())


@pytest.fixture
def many(source) -> data.Images:
    for i in range(30):
        plain((i, i, i), side=8).save(source / f"face{i}.png")
    return loaded(source)


def test_the_last_names_by_their_sha_256_are_held_out(many):
    train, held_out = many.split(7)
    by_digest = sorted(many.names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert {many.names[i] for i in held_out} == set(by_digest[-7:])
    assert sorted([*train, *held_out]) == list(range(30))


def test_the_same_faces_are_held_out_from_a_larger_set_or_an_archive(many, tmp_path):
    _, held_out = many.split(7)
    content = {f"x/face{i}.png": png(plain((i, i, i), 8)) for i in range(29, -1, -1)}
    archived = loaded(tarred(tmp_path / "faces.tgz", content))
    assert archived.names != many.names
    _, again = archived.split(7)
    assert {archived.names[i] for i in again} == {many.names[i] for i in held_out}


def test_held_out_pictures_are_found_again_in_a_part_of_all_and_among_more(many):
    mark = many.mark(7)
    assert many.since(mark) == 7
    assert many.has(mark)
    train, held_out = many.split(7)
    first = next(i for i in held_out if many.mark(7).startswith(sha256(many.names[i])))
    part = of(many, [*train[:5], *held_out])
    assert (part.since(mark), part.has(mark)) == (7, True)
    rest = of(many, [*train, *(i for i in held_out if i != first)])
    assert (rest.since(mark), rest.has(mark)) == (6, False)
    others = dataclasses.replace(many, pixels=255 - many.pixels)
    assert (others.since(mark), others.has(mark)) == (7, False)  # of the same names
    assert many.mark(0) == ""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def of(images: data.Images, chosen: list[int]) -> data.Images:
    """Some of the pictures."""
    names = tuple(images.names[i] for i in chosen)
    return dataclasses.replace(images, pixels=images.pixels[chosen], names=names)


def test_nothing_may_be_held_out(many):
    train, held_out = many.split(0)
    assert (len(train), len(held_out)) == (30, 0)


@pytest.mark.parametrize("count", [30, 31, -1])
def test_holding_out_too_many_is_refused(many, count):
    with pytest.raises(DataError, match=r"of 30 pictures held out"):
        many.split(count)


def test_a_decoded_folder_is_not_opened_at_another_size(source, cache):
    for colour in ("red", "blue"):
        plain(colour).save(source / f"{colour}.png")
    loaded(source, 16)
    [folder] = (path.parent for path in cache.rglob("pixels.u8"))
    assert loaded(folder, 16).pixels.shape == (2, 16, 16, 3)
    for size in (8, 32):
        with pytest.raises(DataError, match=f"does not hold pictures of {size} px"):
            loaded(folder, size)


def test_decoded_pictures_are_known_by_what_they_are_and_not_by_their_folder(tmp_path):
    def decoded(folder, colour, name):
        folder.mkdir(parents=True)
        (folder / "pixels.u8").write_bytes(plain(colour).tobytes())
        (folder / "images.json").write_text(json.dumps({"names": [name], "skipped": 0}))
        return loaded(folder, 16).key

    red = decoded(tmp_path / "one" / "pictures", "red", "00000")
    assert decoded(tmp_path / "two" / "pictures", "red", "00000") == red
    assert decoded(tmp_path / "moved", "red", "00000") == red
    assert decoded(tmp_path / "three" / "pictures", "blue", "00000") != red
    assert decoded(tmp_path / "four" / "pictures", "red", "00001") != red


@pytest.fixture
def old_name(source) -> Path:
    """A picture whose name is Latin-1, as old disks and archives have them."""
    path = source / os.fsdecode(b"caf\xe9.png")
    try:
        path.write_bytes(png())
    except OSError:
        pytest.skip("this disk takes no such name")
    return path


def test_pictures_whose_names_are_not_utf_8_are_learned_from(source, old_name):
    (source / "other.png").write_bytes(png(plain("blue")))
    images = loaded(source)
    assert images.names == (old_name.stem, "other")
    assert [len(part) for part in images.split(1)] == [1, 1]
    assert loaded(source).key == images.key


def test_what_a_killed_process_left_in_the_cache_goes_after_a_day(source, cache):
    (source / "face.png").write_bytes(png())
    folder = cache / "images"
    old, young = (folder / f"{data.DECODING}{age}" for age in ("old", "young"))
    for work in (old, young):
        work.mkdir(parents=True)
        (work / "pixels.u8").write_bytes(b"x")
    for path in (old / "pixels.u8", old):
        os.utime(path, (path.stat().st_mtime - data.LEFT_SECONDS - 60,) * 2)
    loaded(source)
    assert (old.exists(), young.exists()) == (False, True)
    shutil.rmtree(young)


def test_who_reads_pictures_can_be_stopped_and_leaves_nothing(source, cache, monkeypatch):
    monkeypatch.setattr(data, "LOOKS", 0.0)
    (source / "face.png").write_bytes(png())
    asked = []
    for ends in ([True], [False, True]):  # while they are told apart, and while they are decoded
        asked.append(iter(ends))
        with pytest.raises(Stopped):
            load_images(source, 8, progress=False, stopped=asked[-1].__next__)
        assert next(asked[-1], None) is None
    assert not [*(cache / "images").iterdir()]
