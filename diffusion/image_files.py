"""The image files in a folder, a .zip or a .tgz, none of which may lead out of it."""

from __future__ import annotations

import contextlib
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

MAX_BYTES = 64 * 2**20  # of one source image's file
BATCH, BATCH_BYTES = 256, 256 * 2**20  # files read ahead of the decoders
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
LINKS = "links that lead out"  # beside suffixes, a kind of what is left out
MOST_KINDS = 3  # named in a sentence


class DataError(ValueError):
    """A source that cannot be used; the message is one sentence saying why."""


def image_files(source: Path, other: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every image file, in an order that the content alone decides.

    Files of other kinds are counted in `other`.
    """
    if source.is_dir():
        return _folder_files(source, other)
    with _unpacking(source):
        if zipfile.is_zipfile(source):
            return _zip_files(source, other)
        if tarfile.is_tarfile(source):
            return _tar_files(source, other)
    raise DataError(f"{source} is neither a folder nor a .zip or .tgz archive of images")


def batches(files: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """So many files together as are worth decoding at once, and as memory holds."""
    batch, held = [], 0
    for path, content in files:
        batch.append((path, content))
        held += len(content)
        if len(batch) == BATCH or held > BATCH_BYTES:
            yield batch
            batch, held = [], 0
    yield batch


@contextlib.contextmanager
def _unpacking(source: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a broken archive brings all kinds of errors out of zlib and co.
        raise DataError(f"{source} cannot be unpacked ({error}); make the archive again") from error


def _folder_files(source: Path, other: Counter[str]) -> Iterator[tuple[str, bytes]]:
    folder = open_folder(source)
    other.update(folder.other)
    for path in folder.pictures:
        _check_bytes(path, path.stat().st_size)
        yield path.relative_to(source).as_posix(), path.read_bytes()


@dataclass(frozen=True)
class Folder:
    """What lies in a folder and below it."""

    pictures: list[Path]
    other: Counter[str]  # files by their kind


def open_folder(source: Path) -> Folder:
    """Look through a folder; files in an order that their names alone decide."""
    inside = source.resolve()
    pictures, other = [], Counter()
    # By their parts: paths themselves are compared without regard to case on Windows.
    for path in sorted(source.rglob("*"), key=lambda path: path.relative_to(source).parts):
        if not path.exists():  # a link to nothing, or to itself
            continue
        if inside not in path.resolve().parents:
            other[LINKS] += 1
        elif path.is_file():
            name = path.relative_to(source).as_posix()
            if is_image_name(name):
                pictures.append(path)
            else:
                _count(name, other)
    return Folder(pictures, other)


def _zip_files(source: Path, other: Counter[str]) -> Iterator[tuple[str, bytes]]:
    with _unpacking(source), zipfile.ZipFile(source) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            check_inside(source, entry.filename)
            if entry.is_dir():
                continue
            if not is_image_name(entry.filename):
                _count(entry.filename, other)
                continue
            _check_bytes(entry.filename, entry.file_size)
            yield entry.filename, archive.read(entry)


def _tar_files(source: Path, other: Counter[str]) -> Iterator[tuple[str, bytes]]:
    with _unpacking(source), tarfile.open(source, "r:*") as archive:
        for member in archive:
            check_inside(source, member.name)
            if not member.isfile():
                continue
            if not is_image_name(member.name):
                _count(member.name, other)
                continue
            _check_bytes(member.name, member.size)
            yield member.name, archive.extractfile(member).read()


def _count(name: str, other: Counter[str]) -> None:
    """Count a file of another kind, unless it is hidden."""
    path = PurePosixPath(name)
    if not _hidden(path):
        other[path.suffix.lower() or "no suffix"] += 1


def is_image_name(name: str) -> bool:
    """Whether a file of this path is taken for a picture: by its suffix, hidden files never."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not _hidden(path)


def _hidden(path: PurePosixPath) -> bool:
    """Whether a file or a folder it lies in is hidden, as those are that editors write."""
    return any(part.startswith(".") and part != ".." for part in path.parts)


def check_inside(source: str | Path, name: str) -> None:
    """Raise DataError when a path in an archive leads out of it."""
    path = PureWindowsPath(name)  # splits at both kinds of slash
    if path.drive or path.root or ".." in path.parts:
        raise DataError(f"{source} has a path that leaves the archive ({name}); it was not opened")


def _check_bytes(name: str | Path, count: int) -> None:
    if count > MAX_BYTES:
        raise DataError(f"{name} has {count:,} bytes; give images of at most {MAX_BYTES:,}")


def told_kinds(other: Mapping[str, int]) -> str:
    """How many files are of other kinds, and which kinds are the most frequent."""
    kinds = [kind for kind, _ in Counter(other).most_common(MOST_KINDS)]
    more = ["…"] if len(other) > len(kinds) else []
    return f"{sum(other.values()):,} of other kinds ({', '.join([*kinds, *more])})"
