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
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from demo import wording_train as wording
from diffusion.data import ABOUT, MAX_PIXELS, PIXELS, preparation
from diffusion.files import size_of
from diffusion.image_files import MAX_BYTES, SUFFIXES, DataError, check_inside

SIZE = 64  # pixels per side that uploads are kept at
MOST = 20_000  # pictures
MOST_BYTES = 5 * 10**9  # of all files together: a thousand photos of a phone
MOST_SENT = 200 * 10**6  # bytes of one file, most likely an archive
MOST_UNPACKED = 10**9  # bytes, of all archives together
MOST_LISTED = 10**7  # bytes of an archive's list of what is in it: MOST names and as many of macOS
MOST_RATIO, SUSPICIOUS = 100, 10**7  # unpacked to packed, of files larger than that
# What reading all pictures of an upload may cost. A thousand photos of 12 megapixels are 12.2
# billion pixels and take 200 seconds of a processor, MOST pictures of 512×512 take 260.
MOST_PIXELS, MOST_SECONDS = 16 * 10**9, 600.0
# How often a JPEG may go over its pixels: cameras do it ten times, 100 times take four seconds of
# 50 megapixels, and 80,000 fit into a megabyte.
MOST_SCANS = 100
SPARE = 200 * 10**6  # bytes that stay free on the disk
# Uploads that wait for their run: how many, how much of the disk, how long; and for how long
# they wait even when others need their place.
KEPT, KEPT_BYTES, KEPT_SECONDS, SAFE_SECONDS = 40, 10**9, 3600, 600
LOOKS = 60  # seconds from one look at what is old to the next
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
ZIP_START = b"PK"
ENCRYPTED = 1  # the flag of an archive's member
# Markers of a JPEG that a length follows, and its end; they do not occur among packed pixels.
MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xda", b"\xd9"
# A tag has something behind its name; <svg alone is found in one of 500 megabytes of pixels.
SCRIPT = re.compile(rb"<script|<\?php|<html|<svg[\s/>:]", re.IGNORECASE)


class UploadError(ValueError):
    """Why an upload is refused, in one sentence."""


class ReadingOthersError(UploadError):
    """Other pictures are being read; these can be, as they are, a little later."""


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
        # A large picture takes a gigabyte of memory and many a processor for minutes.
        self._reading = threading.Lock()

    @property
    def reading(self) -> bool:
        """Whether somebody's pictures are being read at this moment."""
        return self._reading.locked()

    def take(self, files: Sequence[Path], names: Sequence[str]) -> Upload:
        """Decode image files, or one .zip of them, each once; the files are deleted.

        Raises UploadError; with a ReadingOthersError the files stay.
        """
        if not self._reading.acquire(blocking=False):
            raise ReadingOthersError(wording.READING_OTHERS)
        try:
            return self._take(files, names)
        finally:
            self._reading.release()

    def move(self, token: str, folder: Path, size: int) -> int:
        """Bring an upload into a run's folder, at this size; returns how many pictures it has."""
        # Compared with what is there: the token comes from a browser.
        staged = next((path for path in self._staged() if path.name == token), None)
        if staged is None:
            raise UploadError(wording.STAGING_GONE)
        about = json.loads((staged / ABOUT).read_text("utf-8"))
        if size != SIZE:
            _shrink(staged / PIXELS, size)
        shutil.move(staged, folder)
        return len(about["names"])

    def clear_old(self) -> None:
        """Delete pictures that no run came for, and what a page left that ended while it read."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if _age(path) > KEPT_SECONDS:
                shutil.rmtree(path, ignore_errors=True)

    def clear_now_and_then(self) -> None:
        """Clear what is old every minute, as long as somebody else holds this object."""
        held = weakref.ref(self)

        def clear() -> None:
            while uploads := held():
                with contextlib.suppress(OSError):
                    uploads.clear_old()
                del uploads
                time.sleep(LOOKS)

        threading.Thread(target=clear, name="uploads", daemon=True).start()

    def _take(self, files: Sequence[Path], names: Sequence[str]) -> Upload:
        try:
            self._make_room()
            token = secrets.token_urlsafe(16)
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".reading-") as work:
                given = dict(zip(files, names, strict=True))
                pictures, skipped = _decode(given, Path(work))
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
            _delete(files)

    def _staged(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.is_dir() and path.name[0] != "."]

    def _make_room(self) -> None:
        """Delete the oldest pictures for new ones; raises UploadError when all are too young."""
        self.clear_old()
        kept = 0
        for i, path in enumerate(sorted(self._staged(), key=_age)):
            kept += size_of(path)
            if i < KEPT - 1 and kept <= KEPT_BYTES:
                continue
            if _age(path) < SAFE_SECONDS:
                raise UploadError(wording.TOO_MANY_WAIT)
            shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    with contextlib.suppress(OSError):  # gone, or a run has taken it
        return time.time() - path.stat().st_mtime
    return 0.0


def _delete(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other files of the same upload
            path.parent.rmdir()


class _Allowance:
    """What one upload may still cost, all its files together; what is too much is refused."""

    def __init__(self) -> None:
        self._pixels, self._unpacked = MOST_PIXELS, MOST_UNPACKED
        # This thread's own: nobody is refused because others keep the machine busy.
        self._end = time.thread_time() + MOST_SECONDS

    def unpack(self, name: str, count: int) -> None:
        self._unpacked -= count
        if self._unpacked < 0:
            raise UploadError(wording.a_bomb(name))

    def decode(self, pixels: int) -> None:
        self._pixels -= pixels
        if self._pixels < 0:
            raise UploadError(wording.TOO_MUCH_TO_READ)
        self.check_time()

    def check_time(self) -> None:
        if time.thread_time() > self._end:
            raise UploadError(wording.TOO_MUCH_TO_READ)


def _decode(given: Mapping[Path, str], work: Path) -> tuple[int, int]:
    if not given:
        raise UploadError(wording.NO_PICTURES)
    if len(given) > MOST:
        raise UploadError(wording.too_many(MOST))
    if sum(path.stat().st_size for path in given) > MOST_BYTES:
        raise UploadError(wording.too_much(MOST_BYTES))
    prepare, allowance = preparation(SIZE), _Allowance()
    kept, skipped, first_bad = 0, 0, ""
    with open(work / PIXELS, "wb") as pixels:
        for name, content in _contents(given, allowance):
            if kept == MOST:
                raise UploadError(wording.too_many(MOST))
            allowance.decode(count := _pixels_of(name, content))
            told = _suspicion(content) if count else wording.not_a_picture
            picture = None if told else prepare((name, content))
            if picture is None:
                told = told or wording.not_a_picture
                skipped, first_bad = skipped + 1, first_bad or told(name)
                continue
            if kept % 256 == 0 and shutil.disk_usage(work).free < SPARE:
                raise UploadError(wording.DISK_FULL)
            pixels.write(picture.tobytes())
            kept += 1
    if not kept:
        if first_bad:
            raise UploadError(first_bad)
        raise UploadError(wording.empty(_shown(next(iter(given.values())))))
    if kept < wording.MIN_PICTURES:
        raise UploadError(wording.too_few(kept))
    numbers = [f"{number:05d}" for number in range(kept)]
    about = {"names": numbers, "skipped": skipped}
    (work / ABOUT).write_text(json.dumps(about), "utf-8")
    return kept, skipped


def _contents(given: Mapping[Path, str], allowance: _Allowance) -> Iterator[tuple[str, bytes]]:
    for path, said in given.items():
        name, suffix = _shown(said), PurePath(said).suffix.lower()
        if suffix == ".zip":
            yield from _unzipped(path, name, allowance)
        elif suffix not in SUFFIXES:
            yield name, b""  # counted: folders of photos have films and databases in them
        elif path.stat().st_size > MAX_BYTES:
            raise UploadError(wording.too_big(name, MAX_BYTES))
        else:
            yield name, path.read_bytes()


def _unzipped(path: Path, name: str, allowance: _Allowance) -> Iterator[tuple[str, bytes]]:
    allowance.check_time()  # an archive without pictures takes time as well
    with open(path, "rb") as file:
        if file.read(2) != ZIP_START or not zipfile.is_zipfile(path):
            raise UploadError(f"{name} is not a .zip archive; make it again.")
    try:
        if _listed(path) > MOST_LISTED:
            raise UploadError(wording.too_many(MOST))
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            allowance.unpack(name, sum(entry.file_size for entry in entries))
            for entry in entries:
                _check_entry(name, entry)
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


def _listed(path: Path) -> int:
    """Bytes of an archive's list of what is in it, which is read whole when it is opened."""
    with open(path, "rb") as file:  # as ZipFile itself finds it; the file may say several sizes
        return zipfile._EndRecData(file)[zipfile._ECD_SIZE]


def _check_entry(name: str, entry: zipfile.ZipInfo) -> None:
    check_inside(name, entry.filename)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UploadError(wording.a_link(_shown(entry.filename)))
    if entry.flag_bits & ENCRYPTED:
        raise UploadError(wording.locked(name))
    swollen = entry.file_size > MOST_RATIO * max(entry.compress_size, 1)
    if entry.file_size > MAX_BYTES or (swollen and entry.file_size > SUSPICIOUS):
        raise UploadError(wording.a_bomb(_shown(entry.filename)))


def _is_picture_name(entry: zipfile.ZipInfo) -> bool:
    name = PurePath(entry.filename)
    hidden = name.name.startswith(".") or "__MACOSX" in name.parts
    return not entry.is_dir() and not hidden and name.suffix.lower() in SUFFIXES


def _pixels_of(name: str, content: bytes) -> int:
    """How many pixels a picture has, 0 when it is none; raises UploadError when it is more."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = MAX_PIXELS + 1
    except Exception:  # a broken file brings all kinds of errors out of Pillow
        return 0
    if pixels > MAX_PIXELS:
        raise UploadError(wording.too_large(name, MAX_PIXELS // 10**6))
    return pixels


def _suspicion(content: bytes) -> Callable[[str], str] | None:
    """What is said of a picture, by its name, that is left out unread; None when it is read."""
    # Nothing but pixels would be kept of it; but bytes of photos spell anything by chance.
    if _is_something_else(content):
        return wording.two_things
    return wording.too_slow if _scans(content) > MOST_SCANS else None


def _scans(content: bytes) -> int:
    """How often a JPEG goes over its pixels; 0 for a picture of another kind."""
    if not content.startswith(JPEG_START):
        return 0
    scans, marker = 0, MARKER.search(content)
    while marker and marker[1] != JPEG_END:
        scans += marker[1] == JPEG_SCAN
        length = int.from_bytes(content[marker.end() : marker.end() + 2], "big")
        # What it says is passed over: a camera puts a smaller JPEG there.
        marker = MARKER.search(content, marker.end() + length)
    return scans


def _is_something_else(content: bytes) -> bool:
    """Whether the bytes of a picture can be taken for an archive or a program as well."""
    return zipfile.is_zipfile(io.BytesIO(content)) or SCRIPT.search(content) is not None


def _shrink(path: Path, size: int) -> None:
    """Average the square blocks of every picture; the size divides SIZE."""
    block, smaller = SIZE // size, path.with_suffix(".smaller")
    # Not mapped: Windows replaces no file that is.
    with open(path, "rb") as source, open(smaller, "wb") as file:
        while pixels := source.read(256 * SIZE * SIZE * 3):
            whole = np.frombuffer(pixels, np.uint8).reshape(-1, size, block, size, block, 3)
            file.write(whole.mean(axis=(2, 4)).round().astype(np.uint8).tobytes())
    smaller.replace(path)


def _shown(name: str) -> str:
    """A file's name as a sentence may show it."""
    last = PurePath(str(name).replace("\\", "/")).name or "the file"
    return "".join(letter if letter.isprintable() else "?" for letter in last)[:60]
