"""Somebody's own pictures: what is taken, and what is refused and leaves nothing."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import uploads
from demo.uploads import UploadError, Uploads
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
    "archive after a picture": (
        {"both.zip": picture() + archive(faces())},
        "both.zip is not a .zip archive",
    ),
    "one picture": ({"face.png": picture()}, "One picture is too few to learn from; give"),
    "30,000 pictures": ({"many.zip": archive(many(30_000), zipfile.ZIP_STORED)}, "over 20,000"),
    "an empty archive": ({"empty.zip": archive({})}, "empty.zip has no pictures in it"),
    "an archive of texts": ({"texts.zip": archive({"a.txt": b"a"})}, "has no pictures in it"),
    "half an archive": ({"half.zip": archive(faces())[:400]}, "half.zip is not a .zip archive"),
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


def test_a_token_opens_nothing_else(tmp_path):
    staged = Uploads(tmp_path / "staged")
    (tmp_path / "secret").mkdir()
    for token in ("../secret", str(tmp_path / "secret"), "", "."):
        with pytest.raises(UploadError, match="choose them again"):
            staged.move(token, tmp_path / "run", 64)
    assert (tmp_path / "secret").is_dir()


def test_uploads_that_nobody_uses_make_room_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "KEPT", 3)
    staged = Uploads(tmp_path / "staged")
    tokens = [staged.take(send(tmp_path, faces()), list(faces())).token for _ in range(5)]
    left = {path.name for path in (tmp_path / "staged").iterdir()}
    assert len(left) <= 3
    assert tokens[-1] in left


def test_uploads_that_take_too_much_of_the_disk_make_room_for_others(tmp_path, monkeypatch):
    one = 20 * 64 * 64 * 3
    monkeypatch.setattr(uploads, "KEPT_BYTES", round(2.5 * one))
    staged = Uploads(tmp_path / "staged")
    tokens = [staged.take(send(tmp_path, faces()), list(faces())).token for _ in range(4)]
    assert {path.name for path in (tmp_path / "staged").iterdir()} == set(tokens[1:])


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
