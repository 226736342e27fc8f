"""Somebody's own pictures: what is taken, and what is refused and leaves nothing."""

from __future__ import annotations

import gc
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import uploads, wording_train
from demo.uploads import ReadingOthersError, UploadError, Uploads
from diffusion.data import load_images

ROOT = Path(__file__).parents[1]


def picture(seed: int = 0, kind: str = "PNG", size: int = 24) -> bytes:
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST).save(buffer, kind)
    return buffer.getvalue()


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def faces(count: int = 20) -> dict[str, bytes]:
    return {f"face{i:05d}.png": picture(i) for i in range(count)}


def many(count: int) -> dict[str, bytes]:
    same = picture()
    return {f"face{i:05d}.png": same for i in range(count)}


def large_png(side: int) -> bytes:
    """A PNG of side × side white pixels, without the memory that drawing it would take."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        packed = struct.pack(">I", len(content)) + kind + content
        return packed + struct.pack(">I", zlib.crc32(kind + content))

    packer, rows = zlib.compressobj(), []
    for _ in range(side):
        rows.append(packer.compress(b"\0" + b"\xff" * side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = b"".join(rows) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        entry = zipfile.ZipInfo("face.png")
        entry.external_attr = 0o120777 << 16
        file.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def locked(content: bytes) -> bytes:
    """An archive whose members say that they are encrypted."""
    for kind, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        head, *rest = content.split(kind)
        rest = [part[: flags - 4] + b"\1" + part[flags - 3 :] for part in rest]
        content = kind.join([head, *rest])
    return content


def spelling(letters: bytes) -> bytes:
    """A picture, uncompressed, among whose pixels these bytes are the last."""
    return picture(kind="BMP")[: -len(letters)] + letters


def progressive(scans: int, thumbnails: int = 0) -> bytes:
    """A JPEG that goes over its pixels so often, and carries smaller ones as a camera's does."""
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24)).save(
        buffer, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * thumbnails
    )
    content = buffer.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (scans - 10) + content[-2:]


# Random bytes have them now and then: a tag, and the end of an archive.
BY_CHANCE = {"a tag": b"<svg/", "an archive": b"PK\5\6" + bytes(18)}

BAD = {
    "a text": ({"notes.png": b"not a picture"}, "notes.png is not a picture"),
    "a program": ({"run.exe": b"MZ"}, "run.exe is not a picture"),
    "100 megapixels": ({"huge.png": large_png(10_000)}, "at most 50 megapixels"),
    "a bomb": (
        {"bomb.zip": archive({"white.bmp": b"\0" * 40_000_000})},
        "white.bmp would unpack to far too much",
    ),
    "a large bomb": (
        {"bomb.zip": archive({f"{i}.bmp": b"\0" * 60_000_000 for i in range(20)})},
        "bomb.zip would unpack to far too much",
    ),
    "a way out": ({"out.zip": archive({"../../face.png": picture()})}, "leaves the archive"),
    "a root": ({"out.zip": archive({"/etc/face.png": picture()})}, "leaves the archive"),
    "a link": ({"links.zip": link()}, "face.png in the .zip is a link to another file"),
    "picture and archive": (
        {"both.png": picture() + archive({"x.png": picture()})},
        "both.png is a picture with something else hidden in it",
    ),
    "picture and script": (
        {"both.gif": picture(kind="GIF") + b"<script>alert(1)</script>"},
        "both.gif is a picture with something else hidden in it",
    ),
    "pictures and scripts": (
        {f"{i}.bmp": spelling(b"<svg/") for i in range(20)},
        "0.bmp is a picture with something else hidden in it",
    ),
    "a picture for hours": (
        {"slow.jpg": progressive(1000)},
        "slow.jpg would take too long to read; save it again as a picture",
    ),
    "archive after a picture": (
        {"both.zip": picture() + archive(faces())},
        "both.zip is not a .zip archive",
    ),
    "one picture": ({"face.png": picture()}, "One picture is too few to learn from; give"),
    "30,000 pictures": ({"many.zip": archive(many(30_000), zipfile.ZIP_STORED)}, "over 20,000"),
    "an empty archive": ({"empty.zip": archive({})}, "empty.zip has no pictures in it"),
    "an archive of texts": ({"texts.zip": archive({"a.txt": b"a"})}, "has no pictures in it"),
    "half an archive": ({"half.zip": archive(faces())[:400]}, "half.zip is not a .zip archive"),
    "a locked archive": (
        {"locked.zip": locked(archive(faces()))},
        "locked.zip is locked with a password; make the archive without one",
    ),
    "no file": ({}, "Choose your pictures first"),
}


def send(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """As Gradio puts what it was sent: each file in a folder of its own."""
    paths = []
    for i, content in enumerate(files.values()):
        path = folder / "sent" / str(i) / "blob"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        paths.append(path)
    return paths


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("files", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_upload_is_refused_in_one_sentence_and_leaves_nothing(tmp_path, files, sentence):
    staged = Uploads(tmp_path / "staged")
    good = staged.take(send(tmp_path, faces()), list(faces()))
    before = everything(tmp_path)
    paths = send(tmp_path, files)
    with pytest.raises(UploadError) as refusal:
        staged.take(paths, list(files))
    said = str(refusal.value)
    assert sentence in said
    assert said.endswith(".")
    assert "\n" not in said
    assert str(tmp_path) not in said
    assert everything(tmp_path) == before  # and the good upload is still there
    assert staged.move(good.token, tmp_path / "run", 64) == 20


def test_pictures_are_taken_as_files_or_as_an_archive_and_become_plain_pixels(tmp_path):
    staged = Uploads(tmp_path / "staged")
    content = {**faces(), "broken.jpg": b"no", "__MACOSX/._face.png": b"no", "notes.txt": b"no"}
    packed = staged.take(send(tmp_path, {"all.zip": archive(content)}), ["all.zip"])
    assert (packed.pictures, packed.skipped) == (20, 1)
    loose = staged.take(send(tmp_path, faces()), list(faces()))
    for name, upload in (("one", packed), ("two", loose)):
        assert staged.move(upload.token, tmp_path / name, 64) == 20
    one, two = (load_images(tmp_path / name, 64) for name in ("one", "two"))
    assert one.pixels.shape == (20, 64, 64, 3)
    assert np.array_equal(one.pixels, two.pixels)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "images.json",
        "pixels.u8",
    ]
    assert set(json.loads((tmp_path / "one" / "images.json").read_text())) == {"names", "skipped"}
    assert not everything(tmp_path / "sent")


def test_an_upload_is_averaged_to_the_size_of_the_run(tmp_path):
    staged = Uploads(tmp_path / "staged")
    whole = staged.take(send(tmp_path, faces()), list(faces()))
    half = staged.take(send(tmp_path, faces()), list(faces()))
    staged.move(whole.token, tmp_path / "whole", 64)
    staged.move(half.token, tmp_path / "half", 32)
    large, small = load_images(tmp_path / "whole", 64), load_images(tmp_path / "half", 32)
    mean = large.pixels.reshape(20, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(small.pixels - mean).max() <= 0.5


def test_letters_that_pixels_happen_to_spell_are_no_script(tmp_path):
    files = faces()
    name = next(iter(files))
    files[name] += b"\x91\xe5<svg\x03\xf7\x1b"  # after the end of the picture
    assert Uploads(tmp_path / "staged").take(send(tmp_path, files), list(files)).pictures == 20


@pytest.mark.parametrize("letters", BY_CHANCE.values(), ids=BY_CHANCE.keys())
@pytest.mark.parametrize("packed", [False, True])
def test_a_picture_that_spells_something_else_is_left_out_alone(tmp_path, letters, packed):
    files = {f"{i}.bmp": picture(i, "BMP") for i in range(20)} | {"7.bmp": spelling(letters)}
    if packed:
        files = {"all.zip": archive(files)}
    upload = Uploads(tmp_path / "staged").take(send(tmp_path, files), list(files))
    assert (upload.pictures, upload.skipped) == (19, 1)


def test_a_jpeg_that_goes_over_its_pixels_too_often_is_left_out_alone(tmp_path, monkeypatch):
    prepared, preparation = [], uploads.preparation

    def noted(size):
        prepare = preparation(size)
        return lambda entry: prepared.append(entry[0]) or prepare(entry)

    monkeypatch.setattr(uploads, "preparation", noted)
    most = uploads.MOST_SCANS
    files = {
        **faces(),
        "slow.jpg": progressive(most + 1),
        "film.jpg": progressive(most) + b"\xff\xda" * 99,
    }
    files["camera.jpg"] = progressive(10, thumbnails=200)
    upload = Uploads(tmp_path / "staged").take(send(tmp_path, files), list(files))
    assert (upload.pictures, upload.skipped) == (22, 1)
    assert set(files) - set(prepared) == {"slow.jpg"}  # nobody waited for it


def test_scans_cannot_hide_behind_a_marker_that_a_reader_passes_over():
    hidden = progressive(500).replace(b"\xff\xda", b"\xff\x02\xff\xff\xff\xda")
    assert uploads._scans(hidden) == 500


def test_files_of_other_kinds_are_left_out_and_counted(tmp_path):
    files = {"Thumbs.db": b"x", **faces(), "film.mov": b"x", "IMG_1.HEIC": b"x", "notes": b"x"}
    upload = Uploads(tmp_path / "staged").take(send(tmp_path, files), list(files))
    assert (upload.pictures, upload.skipped) == (20, 4)
    assert not everything(tmp_path / "sent")
    told = wording_train.taken(upload.pictures, upload.skipped)
    assert told == "20 pictures are ready. 4 files were no usable pictures and are left out."


def test_a_long_name_has_its_suffix_all_the_same(tmp_path):
    files = {f"{'summer ' * 20}{name}": content for name, content in faces().items()}
    upload = Uploads(tmp_path / "staged").take(send(tmp_path, files), list(files))
    assert (upload.pictures, upload.skipped) == (20, 0)


def test_a_token_opens_nothing_else(tmp_path):
    staged = Uploads(tmp_path / "staged")
    (tmp_path / "secret").mkdir()
    for token in ("../secret", str(tmp_path / "secret"), "", "."):
        with pytest.raises(UploadError, match="choose them again"):
            staged.move(token, tmp_path / "run", 64)
    assert (tmp_path / "secret").is_dir()


def grow_old(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def taken(folder: Path, count: int) -> list[str]:
    """Tokens of so many uploads, each eleven minutes older than the next."""
    staged, tokens = Uploads(folder / "staged"), []
    for _ in range(count):
        for path in staged.folder.glob("*"):
            grow_old(path, 660)
        tokens.append(staged.take(send(folder, faces()), list(faces())).token)
    return tokens


def test_uploads_that_nobody_uses_make_room_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "KEPT", 3)
    tokens = taken(tmp_path, 5)
    assert {path.name for path in (tmp_path / "staged").iterdir()} == set(tokens[2:])


def test_uploads_that_take_too_much_of_the_disk_make_room_for_others(tmp_path, monkeypatch):
    one = 20 * 64 * 64 * 3
    monkeypatch.setattr(uploads, "KEPT_BYTES", round(2.5 * one))
    tokens = taken(tmp_path, 4)
    assert {path.name for path in (tmp_path / "staged").iterdir()} == set(tokens[1:])


@pytest.mark.parametrize(("limit", "most"), [("KEPT", 3), ("KEPT_BYTES", 20 * 64 * 64 * 3)])
def test_young_uploads_are_never_thrown_out_for_a_newcomer(tmp_path, monkeypatch, limit, most):
    staged = Uploads(tmp_path / "staged")
    tokens = [staged.take(send(tmp_path, faces()), list(faces())).token for _ in range(2)]
    monkeypatch.setattr(uploads, limit, most)
    if limit == "KEPT":
        tokens.append(staged.take(send(tmp_path, faces()), list(faces())).token)
    with pytest.raises(UploadError, match="choose yours again in ten minutes"):
        staged.take(send(tmp_path, faces()), list(faces()))
    assert {path.name for path in staged.folder.iterdir()} == set(tokens)
    assert not everything(tmp_path / "sent")


def test_pictures_that_are_being_read_are_thrown_out_only_when_nobody_can_read_them(tmp_path):
    staged = Uploads(tmp_path / "staged")
    young, old = (staged.folder / f".reading-{age}" for age in ("young", "old"))
    for folder in (young, old):
        folder.mkdir(parents=True)
    grow_old(young, 1800)
    grow_old(old, 3700)
    staged.take(send(tmp_path, faces()), list(faces()))
    assert young.exists()
    assert not old.exists()
    with pytest.raises(UploadError, match="choose them again"):
        staged.move(young.name, tmp_path / "run", 64)


def test_after_an_hour_an_upload_goes_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "LOOKS", 0.05)
    staged = Uploads(tmp_path / "staged")
    upload = staged.take(send(tmp_path, faces()), list(faces()))
    before = set(threading.enumerate())
    staged.clear_now_and_then()
    (timer,) = set(threading.enumerate()) - before
    time.sleep(0.2)
    path = staged.folder / upload.token
    assert path.exists()
    grow_old(path, 3700)
    timer.join(1)
    assert not path.exists()
    del staged  # as when its page is closed
    gc.collect()
    timer.join(5)
    assert not timer.is_alive()


def test_while_pictures_are_read_others_are_refused_at_once_and_keep_theirs(tmp_path, monkeypatch):
    reading, read, decode = threading.Event(), threading.Event(), uploads._decode

    def slowly(given, work):
        reading.set()
        assert read.wait(60)
        return decode(given, work)

    staged = Uploads(tmp_path / "staged")
    monkeypatch.setattr(uploads, "_decode", slowly)
    first = threading.Thread(
        target=staged.take, args=(send(tmp_path / "first", faces()), list(faces()))
    )
    first.start()
    assert reading.wait(60)
    files = send(tmp_path / "second", faces())
    began = time.monotonic()
    with pytest.raises(ReadingOthersError) as refusal:
        staged.take(files, list(faces()))
    assert time.monotonic() - began < 1
    assert str(refusal.value) == wording_train.READING_OTHERS
    read.set()
    first.join()
    assert staged.take(files, list(faces())).pictures == 20


def test_pictures_that_would_take_a_processor_for_hours_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_SECONDS", 2.0)
    large = large_png(7071)
    packed = archive({f"{i}.png": large for i in range(100)}, zipfile.ZIP_STORED)
    began = time.thread_time()
    with pytest.raises(UploadError, match=r"^These pictures take too long to read; give fewer"):
        Uploads(tmp_path / "staged").take(send(tmp_path, {"all.zip": packed}), ["all.zip"])
    assert time.thread_time() - began < 10
    assert not everything(tmp_path)


def test_pictures_count_by_their_pixels_and_those_of_a_phone_are_never_too_many(
    tmp_path, monkeypatch
):
    assert uploads.MOST_PIXELS > 1000 * 4032 * 3024
    assert uploads.MOST * 512 * 512 < uploads.MOST_PIXELS
    monkeypatch.setattr(uploads, "MOST_PIXELS", 20 * 24 * 24)
    staged = Uploads(tmp_path / "staged")
    assert staged.take(send(tmp_path, faces(20)), list(faces(20))).pictures == 20
    with pytest.raises(UploadError, match=r"^These pictures take too long to read; give fewer"):
        staged.take(send(tmp_path, faces(21)), list(faces(21)))


def test_a_file_that_is_named_many_times_counts_once(tmp_path):
    path, *_ = send(tmp_path, {"all.zip": archive(faces())})
    upload = Uploads(tmp_path / "staged").take([path] * 5, ["all.zip"] * 5)
    assert upload.pictures == 20


def test_what_archives_unpack_to_is_counted_over_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_UNPACKED", 3 * sum(map(len, faces().values())) // 2)
    staged, one = Uploads(tmp_path / "staged"), archive(faces())
    assert staged.take(send(tmp_path, {"one.zip": one}), ["one.zip"]).pictures == 20
    with pytest.raises(UploadError, match=r"^two\.zip would unpack to far too much"):
        staged.take(send(tmp_path, {"one.zip": one, "two.zip": one}), ["one.zip", "two.zip"])


def test_an_archive_with_a_long_list_of_entries_is_refused_before_it_is_read(tmp_path, monkeypatch):
    packed = archive(dict.fromkeys((f"{i:0200d}.txt" for i in range(50_000)), b""))
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "__init__", None)  # it would read the list
        with pytest.raises(UploadError, match="over 20,000"):
            Uploads(tmp_path / "staged").take(send(tmp_path, {"all.zip": packed}), ["all.zip"])
    assert not everything(tmp_path)


def test_the_list_of_as_many_pictures_as_are_taken_is_short_enough(tmp_path):
    names = [f"faces of somebody/summer/IMG_{i:020d}.jpeg" for i in range(uploads.MOST)]
    both = [*names, *(f"__MACOSX/{name}" for name in names)]
    (path,) = send(tmp_path, {"all.zip": archive(dict.fromkeys(both, b""), zipfile.ZIP_STORED)})
    assert uploads._listed(path) < uploads.MOST_LISTED


def test_no_file_is_replaced_while_it_is_mapped(tmp_path, monkeypatch):
    staged = Uploads(tmp_path / "staged")
    upload = staged.take(send(tmp_path, faces()), list(faces()))
    with monkeypatch.context() as patch:
        patch.setattr(np, "memmap", None)
        assert staged.move(upload.token, tmp_path / "half", 32) == 20
    assert load_images(tmp_path / "half", 32).pixels.shape == (20, 32, 32, 3)


def test_files_that_are_too_large_are_refused_in_one_sentence(tmp_path, monkeypatch):
    staged = Uploads(tmp_path / "staged")
    monkeypatch.setattr(uploads, "MAX_BYTES", 10)
    with pytest.raises(UploadError, match=r"^face00000\.png is over 0 MB; give a smaller one\.$"):
        staged.take(send(tmp_path, faces()), list(faces()))
    monkeypatch.setattr(uploads, "MOST_BYTES", 1000)
    with pytest.raises(UploadError, match=r"^These files are over 0 MB together; give fewer"):
        staged.take(send(tmp_path, faces()), list(faces()))
    assert not everything(tmp_path)


FULL = """
import sys
from pathlib import Path
from demo import uploads
uploads.SPARE = 0  # the disk is so small that it would be refused before it is full
folder = Path(sys.argv[1])
sent = sorted((folder / "sent").iterdir())
try:
    uploads.Uploads(folder / "staged").take(sent, [path.name for path in sent])
except uploads.UploadError as refusal:
    print(refusal)
print(sorted(str(path) for path in folder.rglob("*") if path.is_file()))
"""


def test_a_full_disk_is_said_in_one_sentence_and_nothing_is_kept(tmp_path):
    """On a disk of one megabyte, of this test's own."""
    (tmp_path / "disk").mkdir()
    script = tmp_path / "full.py"
    script.write_text(FULL)
    (tmp_path / "faces.zip").write_bytes(archive(many(200)))
    inside = (
        f"mount -t tmpfs -o size=1m none {tmp_path}/disk && mkdir {tmp_path}/disk/sent"
        f" && cp {tmp_path}/faces.zip {tmp_path}/disk/sent/"
        f" && PYTHONPATH={ROOT} {sys.executable} {script} {tmp_path}/disk"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inside], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("this system lets nobody mount a disk of their own")
    assert done.stdout == (
        "The disk is full, and nothing was kept; delete a run, or give fewer pictures.\n[]\n"
    ), done.stderr
