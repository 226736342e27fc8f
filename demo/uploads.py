"""Somebody's own pictures: checked, decoded to plain pixels and put aside until a run begins.

Nothing of an upload is kept but its pixels: no file, no name of a path, no metadata. Whatever is
wrong with it is said in one sentence, and nothing of it stays.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import secrets
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from demo import wording_train as wording
from diffusion.data import (
    MAX_BYTES,
    MAX_PIXELS,
    SUFFIXES,
    DataError,
    check_inside,
    preparation,
)
from diffusion.files import size_of

SIZE = 64  # pixels per side that uploads are kept at
MOST = 20_000  # pictures
MOST_BYTES = 10**9  # of all files together, those of an archive unpacked
MOST_SENT = 200 * 10**6  # bytes of one file, most likely an archive
MOST_RATIO, SUSPICIOUS = 100, 10**7  # unpacked to packed, of files larger than that
SPARE = 200 * 10**6  # bytes that stay free on the disk
# Uploads that wait for their run: how many, how much of the disk, how long.
KEPT, KEPT_BYTES, KEPT_SECONDS = 16, 10**9, 3600
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
ZIP_START = b"PK"
# A tag has something behind its name; <svg alone is found in one of 500 megabytes of pixels.
SCRIPT = re.compile(rb"<script|<\?php|<html|<svg[\s/>:]", re.IGNORECASE)


class UploadError(ValueError):
    """Why an upload is refused, in one sentence."""


@dataclass(frozen=True)
class Upload:
    """Pictures that wait for a run."""

    token: str
    pictures: int
    skipped: int


class Uploads:
    """The pictures that wait for their runs, in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder

    def take(self, files: Sequence[Path], names: Sequence[str]) -> Upload:
        """Decode image files, or one .zip of them; the files are deleted in any case.

        Raises UploadError.
        """
        try:
            self._clear_old()
            token = secrets.token_urlsafe(16)
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".reading-") as work:
                pictures, skipped = _decode(files, names, Path(work))
                Path(work).rename(self.folder / token)
                Path(work).mkdir()  # for the clean-up that is about to come
            return Upload(token, pictures, skipped)
        except DataError as error:
            raise UploadError(f"{str(error).rstrip('.')}.") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UploadError(wording.DISK_FULL) from None
            raise
        finally:
            for path in files:
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other files of the same upload
                    path.parent.rmdir()

    def move(self, token: str, folder: Path, size: int) -> int:
        """Bring an upload into a run's folder, at this size; returns how many pictures it has."""
        # Compared with what is there: the token comes from a browser.
        staged = next((path for path in self._staged() if path.name == token), None)
        if staged is None:
            raise UploadError(wording.STAGING_GONE)
        about = json.loads((staged / "images.json").read_text())
        if size != SIZE:
            _shrink(staged / "pixels.u8", size)
        shutil.move(staged, folder)
        return len(about["names"])

    def _staged(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.is_dir()]

    def _clear_old(self) -> None:
        newest_first = sorted(self._staged(), key=lambda path: -path.stat().st_mtime)
        kept = 0
        for i, path in enumerate(newest_first):
            kept += size_of(path)
            old = time.time() - path.stat().st_mtime > KEPT_SECONDS
            if old or i >= KEPT - 1 or kept > KEPT_BYTES:
                shutil.rmtree(path, ignore_errors=True)


def _decode(files: Sequence[Path], names: Sequence[str], work: Path) -> tuple[int, int]:
    if not files:
        raise UploadError(wording.NO_PICTURES)
    if len(files) > MOST:
        raise UploadError(wording.too_many(MOST))
    if sum(path.stat().st_size for path in files) > MOST_BYTES:
        raise UploadError(wording.too_much(MOST_BYTES))
    prepare, kept, skipped, first_bad = preparation(SIZE), 0, 0, ""
    with open(work / "pixels.u8", "wb") as pixels:
        for name, content in _contents(files, names):
            if kept == MOST:
                raise UploadError(wording.too_many(MOST))
            picture = prepare((name, content)) if _is_picture(name, content) else None
            if picture is None:
                skipped, first_bad = skipped + 1, first_bad or name
                continue
            if kept % 256 == 0 and shutil.disk_usage(work).free < SPARE:
                raise UploadError(wording.DISK_FULL)
            pixels.write(picture.tobytes())
            kept += 1
    if not kept:
        if first_bad:
            raise UploadError(wording.not_a_picture(first_bad))
        raise UploadError(wording.empty(_shown(names[0])))
    if kept < wording.MIN_PICTURES:
        raise UploadError(wording.too_few(kept))
    numbers = [f"{number:05d}" for number in range(kept)]
    (work / "images.json").write_text(json.dumps({"names": numbers, "skipped": skipped}))
    return kept, skipped


def _contents(files: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for path, given in zip(files, names, strict=True):
        name = _shown(given)
        if PurePath(name).suffix.lower() == ".zip":
            yield from _unzipped(path, name)
        elif PurePath(name).suffix.lower() not in SUFFIXES:
            raise UploadError(wording.not_a_picture(name))
        elif path.stat().st_size > MAX_BYTES:
            raise UploadError(wording.too_big(name, MAX_BYTES))
        else:
            yield name, path.read_bytes()


def _unzipped(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    with open(path, "rb") as file:
        if file.read(2) != ZIP_START or not zipfile.is_zipfile(path):
            raise UploadError(f"{name} is not a .zip archive; make it again.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise UploadError(wording.a_bomb(name))
            for entry in entries:
                _check_entry(path, name, entry)
            pictures = [entry for entry in entries if _is_picture_name(entry)]
            if len(pictures) > MOST:
                raise UploadError(wording.too_many(MOST))
            for entry in pictures:
                yield _shown(entry.filename), archive.read(entry)
    except (DataError, UploadError, OSError):
        raise
    except Exception as error:  # a broken archive brings all kinds of errors out of zlib and co.
        raise UploadError(
            f"{name} cannot be unpacked ({type(error).__name__}); make the archive again."
        ) from None


def _check_entry(path: Path, name: str, entry: zipfile.ZipInfo) -> None:
    check_inside(name, entry.filename)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UploadError(wording.a_link(_shown(entry.filename)))
    swollen = entry.file_size > MOST_RATIO * max(entry.compress_size, 1)
    if entry.file_size > MAX_BYTES or (swollen and entry.file_size > SUSPICIOUS):
        raise UploadError(wording.a_bomb(_shown(entry.filename)))


def _is_picture_name(entry: zipfile.ZipInfo) -> bool:
    name = PurePath(entry.filename)
    hidden = name.name.startswith(".") or "__MACOSX" in name.parts
    return not entry.is_dir() and not hidden and name.suffix.lower() in SUFFIXES


def _is_picture(name: str, content: bytes) -> bool:
    """Whether the content is what the name says; raises UploadError when it is that and more."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = MAX_PIXELS + 1
    except Exception:  # a broken file brings all kinds of errors out of Pillow
        return False
    if pixels > MAX_PIXELS:
        raise UploadError(wording.too_large(name, MAX_PIXELS // 10**6))
    if zipfile.is_zipfile(io.BytesIO(content)) or SCRIPT.search(content):
        raise UploadError(wording.two_things(name))
    return True


def _shrink(path: Path, size: int) -> None:
    """Average the square blocks of every picture; the size divides SIZE."""
    block = SIZE // size
    whole = np.memmap(path, np.uint8, "r").reshape(-1, size, block, size, block, 3)
    smaller = path.with_suffix(".smaller")
    with open(smaller, "wb") as file:
        for first in range(0, len(whole), 256):
            mean = whole[first : first + 256].mean(axis=(2, 4))
            file.write(mean.round().astype(np.uint8).tobytes())
    smaller.replace(path)


def _shown(name: str) -> str:
    """A file's name as a sentence may show it."""
    last = PurePath(str(name).replace("\\", "/")).name or "the file"
    return "".join(letter if letter.isprintable() else "?" for letter in last)[:60]
