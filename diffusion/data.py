"""Pictures to learn from: any folder, .zip or .tgz of images, decoded once into a cache.

The cache is one memory-mapped uint8 array, keyed by the content of the source and the size, so
a second run starts at once and a batch is read straight from the page cache of the system.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from diffusion.cache import cache_dir

if TYPE_CHECKING:
    from diffusion.labels import Labels

VERSION = 1  # raise it when the pixels of a cache would change
MIN_SIZE, MAX_SIZE = 8, 512  # pixels per side of a training picture
MAX_PIXELS = 50_000_000  # of one source image
MAX_BYTES = 64 * 2**20  # of one source image's file
MAX_IMAGES = 1_000_000
BATCH, BATCH_BYTES = 256, 256 * 2**20  # files read ahead of the decoders
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}

# Google's CartoonSet: 500×500 with a wide transparent margin; this box holds every face, and
# its 448 pixels are an exact multiple of 64.
CARTOONSET_NAME = re.compile(r"cs\d+")
CARTOONSET_BOX = (25, 12, 473, 460)


class DataError(ValueError):
    """A source that cannot be used; the message is one sentence saying why."""


@dataclass(frozen=True)
class Source:
    """Where the pictures came from; what their licence asks to be said."""

    name: str
    author: str
    licence: str
    url: str
    note: str = ""  # what was done to the pictures before training

    @property
    def credit(self) -> str:
        """Name, author and licence, as Markdown."""
        return f"[{self.name}]({self.url}) by {self.author}, {self.licence}"


def licence_id(sources: Iterable[Source]) -> str:
    """As the Hub names the licence of them all: the first that asks for something, if one does."""
    names = [name.strip() for source in sources for name in source.licence.split(",")]
    asking = [name for name in names if not name.startswith("CC0")]
    return (asking or names)[0].lower().replace(" ", "-")


@dataclass(frozen=True)
class Images:
    """Decoded pictures: `pixels` uint8 (N, size, size, 3), memory-mapped, and their names."""

    pixels: np.ndarray
    names: tuple[str, ...]
    key: str  # of the content and the size
    skipped: int = 0  # files that looked like images and could not be read
    labels: Labels | None = None  # of every picture, where they are known
    source: Source | None = None  # where that is known

    def __len__(self) -> int:
        return len(self.names)

    def split(self, held_out: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices to train on, and the `held_out` last names in order of their SHA-256."""
        if not 0 <= held_out < len(self):
            raise DataError(
                f"{held_out} of {len(self)} pictures held out leaves none to learn from"
            )
        digest = [hashlib.sha256(name.encode()).digest() for name in self.names]
        order = np.array(sorted(range(len(self)), key=digest.__getitem__))
        return np.sort(order[: len(self) - held_out]), np.sort(order[len(self) - held_out :])


def load_images(
    source: str | Path, size: int, progress: bool = True, complete: bool = False
) -> Images:
    """Decode a folder, .zip or .tgz of images to size×size RGB on white, or open the cache of it.

    The name of a built-in style of cartoons is a source as well; its pictures may still be being
    drawn, unless `complete` asks to wait for all of them and their labels. Broken images are
    skipped and counted. Raises DataError, in one sentence, for a missing or empty source, an
    archive whose paths leave it, or absurd sizes.
    """
    from diffusion import toons
    from diffusion.cartoons import STYLES, load_cartoons

    if str(source) == toons.NAME:
        return toons.load_toons(size, progress)
    if str(source) in STYLES:
        return load_cartoons(str(source), size, progress, complete)
    if not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"pictures of {size} px; choose {MIN_SIZE} to {MAX_SIZE}")
    source = Path(source)
    if not (source.is_dir() or source.is_file()):
        raise DataError(f"there is no {source}; give a folder, .zip or .tgz of images")
    if is_decoded(source):
        return open_decoded(source, size)
    key = _content_key(source, size)
    folder = cache_dir("images") / key
    if not (folder / "images.json").is_file():
        _decode_into(folder, source, size, progress)
    return _open(folder, key, size)


def is_decoded(folder: Path) -> bool:
    """Whether a folder holds decoded pictures, as a cache does, instead of image files."""
    return (folder / "images.json").is_file() and (folder / "pixels.u8").is_file()


def open_decoded(folder: Path, size: int) -> Images:
    """The decoded pictures of a folder; raises DataError when they have another size."""
    try:
        return _open(folder, folder.name, size)
    except (KeyError, OSError, ValueError):
        raise DataError(f"{folder} does not hold pictures of {size} px; start a new run") from None


def _open(folder: Path, key: str, size: int) -> Images:
    about = json.loads((folder / "images.json").read_text())
    shape = (len(about["names"]), size, size, 3)
    if (folder / "pixels.u8").stat().st_size != math.prod(shape):
        # A map of fewer bytes than there are would show pieces of several pictures as one.
        raise DataError(
            f"{folder} does not hold {shape[0]:,} pictures of {size} px; delete it and start again"
        )
    pixels = np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="r", shape=shape)
    return Images(pixels, tuple(about["names"]), key, about["skipped"])


def _decode_into(folder: Path, source: Path, size: int, progress: bool) -> None:
    from tqdm import tqdm

    prepare = preparation(size)
    names, skipped = [], 0
    # Decode beside the target: a cache is there completely or not at all.
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".decoding-"))
    try:
        with (
            open(work / "pixels.u8", "wb") as pixels,
            ThreadPoolExecutor(os.cpu_count()) as pool,
            contextlib.closing(_files(source)) as files,
            tqdm(desc="Decoding images", unit=" images", disable=not progress) as bar,
        ):
            for batch in _batches(files):
                for (path, _), picture in zip(batch, pool.map(prepare, batch), strict=True):
                    if picture is None:
                        skipped += 1
                        continue
                    if len(names) == MAX_IMAGES:
                        raise DataError(f"{source} has over {MAX_IMAGES:,} images; give fewer")
                    pixels.write(picture.tobytes())
                    names.append(PurePosixPath(path).stem)
                bar.update(len(batch))
        if not names:
            broken = f" ({skipped} broken files were skipped)" if skipped else ""
            raise DataError(f"no images in {source}{broken}; give a folder, .zip or .tgz of images")
        (work / "images.json").write_text(json.dumps({"names": names, "skipped": skipped}))
        with contextlib.suppress(OSError):  # another process was first: its copy is the same
            os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def preparation(size: int) -> Callable[[tuple[str, bytes]], np.ndarray | None]:
    """A function from (path, bytes) to uint8 (size, size, 3), or None for a broken image."""
    from torchvision.transforms import v2

    shrink = v2.Resize(size, interpolation=v2.InterpolationMode.BILINEAR, antialias=True)

    def prepare(entry: tuple[str, bytes]) -> np.ndarray | None:
        path, content = entry
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{path} has {image.width}×{image.height} pixels; "
                        f"give images of at most {MAX_PIXELS // 10**6} megapixels"
                    )
                picture = on_white(image)
        except DataError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{path} is too large ({error})") from error
        except Exception:  # a broken file brings all kinds of errors out of Pillow
            return None
        if CARTOONSET_NAME.fullmatch(PurePosixPath(path).stem) and picture.size == (500, 500):
            picture = picture.crop(CARTOONSET_BOX)
        # Square first: a sliver of an image must not grow to gigabytes.
        square = v2.functional.center_crop(picture, [min(picture.size)] * 2)
        return np.asarray(shrink(square))

    return prepare


def on_white(image: Image.Image) -> Image.Image:
    """RGB, upright, with transparent pixels blended onto white."""
    image = ImageOps.exif_transpose(image)  # cameras store how they were held
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scaling
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every image file, in an order that the content alone decides."""
    if source.is_dir():
        return _folder_files(source)
    with _unpacking(source):
        if zipfile.is_zipfile(source):
            return _zip_files(source)
        if tarfile.is_tarfile(source):
            return _tar_files(source)
    raise DataError(f"{source} is neither a folder nor a .zip or .tgz archive of images")


def _batches(files: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
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


def _folder_files(source: Path) -> Iterator[tuple[str, bytes]]:
    for path in _folder_paths(source):
        _check_bytes(path, path.stat().st_size)
        yield path.relative_to(source).as_posix(), path.read_bytes()


def _folder_paths(source: Path) -> list[Path]:
    inside = source.resolve()
    return sorted(
        path
        for path in source.rglob("*")
        if _is_image_name(path.name) and path.is_file() and inside in path.resolve().parents
    )


def _zip_files(source: Path) -> Iterator[tuple[str, bytes]]:
    with _unpacking(source), zipfile.ZipFile(source) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
            check_inside(source, entry.filename)
            if entry.is_dir() or not _is_image_name(entry.filename):
                continue
            _check_bytes(entry.filename, entry.file_size)
            yield entry.filename, archive.read(entry)


def _tar_files(source: Path) -> Iterator[tuple[str, bytes]]:
    with _unpacking(source), tarfile.open(source, "r:*") as archive:
        for member in archive:
            check_inside(source, member.name)
            if not member.isfile() or not _is_image_name(member.name):
                continue
            _check_bytes(member.name, member.size)
            yield member.name, archive.extractfile(member).read()


def _is_image_name(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def check_inside(source: str | Path, name: str) -> None:
    """Raise DataError when a path in an archive leads out of it."""
    path = PureWindowsPath(name)  # splits at both kinds of slash
    if path.drive or path.root or ".." in path.parts:
        raise DataError(f"{source} has a path that leaves the archive ({name}); it was not opened")


def _check_bytes(name: str | Path, count: int) -> None:
    if count > MAX_BYTES:
        raise DataError(f"{name} has {count:,} bytes; give images of at most {MAX_BYTES:,}")


def _content_key(source: Path, size: int) -> str:
    digest = hashlib.sha256(f"{VERSION}:{size}:".encode())
    paths = _folder_paths(source) if source.is_dir() else [source]
    for path in paths:
        if source.is_dir():
            digest.update(
                f"{path.relative_to(source).as_posix()}\0{path.stat().st_size}\0".encode()
            )
        with open(path, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()[:24]
