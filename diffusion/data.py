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
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from diffusion.cache import cache_dir
from diffusion.cpus import cpus
from diffusion.image_files import (
    LINKS,
    DataError,
    batches,
    image_files,
    open_folder,
    told_kinds,
)
from diffusion.sources import Source

if TYPE_CHECKING:
    from diffusion.labels import Labels

VERSION = 1  # raise it when the pixels of a cache would change
PIXELS, ABOUT = "pixels.u8", "images.json"  # the files of decoded pictures
MIN_SIZE, MAX_SIZE = 8, 512  # pixels per side of a training picture
MAX_PIXELS = 50_000_000  # of one source image
MAX_IMAGES = 1_000_000
LOOKS = 1.0  # seconds from one look at whether to stop to the next
DECODING, LEFT_SECONDS = ".decoding-", 24 * 3600  # a folder that is worked in; when it is left over
# Google's CartoonSet: 500×500 with a wide transparent margin; this box holds every face, and
# its 448 pixels are an exact multiple of 64.
CARTOONSET = "CartoonSet"
CARTOONSET_NAME = re.compile(r"cs\d+")
CARTOONSET_BOX = (25, 12, 473, 460)


@dataclass(frozen=True)
class Images:
    """Decoded pictures: `pixels` uint8 (N, size, size, 3), memory-mapped, and their names."""

    pixels: np.ndarray
    names: tuple[str, ...]
    key: str  # of the content and the size
    skipped: int = 0  # files that looked like images and could not be read
    other: Mapping[str, int] = field(default_factory=dict)  # further files, by their kind
    labels: Labels | None = None  # of every picture, where they are known
    source: Source | None = None  # where that is known

    def __len__(self) -> int:
        return len(self.names)

    @property
    def told(self) -> str:
        """How many pictures there are and what was left out, as a sentence."""
        left = [f"{self.skipped:,} broken"] if self.skipped else []
        left += [told_kinds(self.other)] if self.other else []
        left_out = f"; {' and '.join(left)} left out" if left else ""
        return f"{len(self):,} picture{'' if len(self) == 1 else 's'}{left_out}."

    def split(self, held_out: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices to train on, and the `held_out` last names in order of their SHA-256."""
        if not 0 <= held_out < len(self):
            raise DataError(
                f"{held_out} of {len(self)} pictures held out leaves none to learn from"
            )
        order = np.array(sorted(range(len(self)), key=self._digests.__getitem__))
        return np.sort(order[: len(self) - held_out]), np.sort(order[len(self) - held_out :])

    def mark(self, held_out: int) -> str:
        """What finds the `held_out` last pictures again, in a part of these or among more.

        SHA-256, in hexadecimal, of the first one's name and of its pixels; "" where there is none.
        """
        if not held_out:
            return ""
        first = min(self.split(held_out)[1], key=self._digests.__getitem__)
        return f"{self._digests[first]}-{self._shown(first)}"

    def since(self, mark: str) -> int:
        """How many names come from the marked one on, in the order of their SHA-256."""
        return sum(own >= mark.partition("-")[0] for own in self._digests)

    def has(self, mark: str) -> bool:
        """Whether the marked picture is one of these, and not another of the same name."""
        name, _, shown = mark.partition("-")
        return any(own == name and self._shown(i) == shown for i, own in enumerate(self._digests))

    def _shown(self, index: int) -> str:
        """SHA-256 of a picture; "" for those still being drawn, whose names tell them apart."""
        there = isinstance(self.pixels, np.ndarray)
        return hashlib.sha256(self.pixels[index].tobytes()).hexdigest() if there else ""

    @cached_property
    def _digests(self) -> list[str]:
        return [hashlib.sha256(_bytes_of(name)).hexdigest() for name in self.names]


def load_images(
    source: str | Path,
    size: int,
    progress: bool = True,
    complete: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Images:
    """Decode a folder, .zip or .tgz of images to size×size RGB on white, or open the cache of it.

    The name of a built-in style of cartoons is a source as well; its pictures may still be being
    drawn, unless `complete` asks to wait for all of them and their labels. Broken images are
    skipped and counted. Raises DataError, in one sentence, for a missing or empty source, an
    archive whose paths leave it, or absurd sizes; raises Stopped when `stopped()` meanwhile.
    """
    from diffusion.toons import BUILT_IN, load_built_in

    if str(source) in BUILT_IN:
        return load_built_in(str(source), size, progress, complete, stopped)
    if not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"pictures of {size} px; choose {MIN_SIZE} to {MAX_SIZE}")
    source = Path(source)
    if not (source.is_dir() or source.is_file()):
        raise DataError(f"there is no {source}; give a folder, .zip or .tgz of images")
    if is_decoded(source):
        return open_decoded(source, size)
    given = open_folder(source) if source.is_dir() else None
    look = _now_and_then(stopped)
    key = _content_key(source, given.pictures if given else [source], size, look)
    folder = cache_dir("images") / key
    if not (folder / ABOUT).is_file():
        _decode_into(folder, source, size, progress, look)
    images = _open(folder, key, size)
    # The key of a folder is that of its pictures alone: what else there is may have changed.
    return replace(images, other=given.other) if given else images


def is_decoded(folder: Path) -> bool:
    """Whether a folder holds decoded pictures, as a cache does, instead of image files."""
    return (folder / ABOUT).is_file() and (folder / PIXELS).is_file()


def open_decoded(folder: Path, size: int) -> Images:
    """The decoded pictures of a folder; raises DataError when they have another size."""
    try:
        images = _open(folder, folder.name, size)
    except (KeyError, OSError, ValueError):
        raise DataError(f"{folder} does not hold pictures of {size} px; start a new run") from None
    return replace(images, key=_decoded_key(images, size))


def _open(folder: Path, key: str, size: int) -> Images:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    shape = (len(about["names"]), size, size, 3)
    if (folder / PIXELS).stat().st_size != math.prod(shape):
        # A map of fewer bytes than there are would show pieces of several pictures as one.
        raise DataError(
            f"{folder} does not hold {shape[0]:,} pictures of {size} px; delete it and start again"
        )
    pixels = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r", shape=shape)
    return Images(pixels, tuple(about["names"]), key, about["skipped"], about.get("other", {}))


def _decode_into(
    folder: Path, source: Path, size: int, progress: bool, look: Callable[[], None]
) -> None:
    from tqdm import tqdm

    prepare = preparation(size)
    names, skipped, other = [], 0, Counter()
    _remove_leftovers(folder.parent)
    # Decode beside the target: a cache is there completely or not at all.
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=DECODING))
    try:
        with (
            open(work / PIXELS, "wb") as pixels,
            ThreadPoolExecutor(cpus()) as pool,
            contextlib.closing(image_files(source, other)) as files,
            tqdm(desc="Decoding images", unit=" images", disable=not progress) as bar,
        ):
            for batch in batches(files):
                for (path, _), picture in zip(batch, pool.map(prepare, batch), strict=True):
                    if picture is None:
                        skipped += 1
                        continue
                    if len(names) == MAX_IMAGES:
                        raise DataError(f"{source} has over {MAX_IMAGES:,} images; give fewer")
                    pixels.write(picture.tobytes())
                    names.append(PurePosixPath(path).stem)
                bar.update(len(batch))
                look()
        if not names:
            raise DataError(_nothing_in(source, skipped, other))
        about = {"names": names, "skipped": skipped, "other": other}
        (work / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        with contextlib.suppress(OSError):  # another process was first: its copy is the same
            os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Delete what processes left that were killed while they decoded, a day ago or earlier."""
    for work in folder.glob(f"{DECODING}*"):
        with contextlib.suppress(OSError):  # another process was quicker
            changed = max(path.stat().st_mtime for path in (work, *work.iterdir()))
            if time.time() - changed > LEFT_SECONDS:
                shutil.rmtree(work, ignore_errors=True)


def _nothing_in(source: Path, skipped: int, other: Mapping[str, int]) -> str:
    """Why a source has no pictures, in a sentence."""
    if other.keys() == {LINKS} and not skipped:
        lead = "1 link leads" if other[LINKS] == 1 else f"{other[LINKS]:,} links lead"
        return (
            f"{lead} out of {source}, and such links are not followed; "
            "give the folder they point to"
        )
    found = [f"{skipped} broken files were skipped"] if skipped else []
    found += [f"{told_kinds(other)} were left alone"] if other else []
    why = f" ({', '.join(found)})" if found else ""
    return f"no images in {source}{why}; give a folder, .zip or .tgz of images"


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


def _decoded_key(images: Images, size: int) -> str:
    digest = hashlib.sha256(f"{VERSION}:{size}:{json.dumps(images.names)}:".encode())
    digest.update(images.pixels)
    return digest.hexdigest()[:24]


def _content_key(source: Path, paths: Sequence[Path], size: int, look: Callable[[], None]) -> str:
    digest = hashlib.sha256(f"{VERSION}:{size}:".encode())
    for path in paths:
        if source.is_dir():
            name = path.relative_to(source).as_posix()
            digest.update(_bytes_of(f"{name}\0{path.stat().st_size}\0"))
        with open(path, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
                look()
    return digest.hexdigest()[:24]


def _now_and_then(stopped: Callable[[], bool]) -> Callable[[], None]:
    """To be called often: raises Stopped when `stopped()`, which is asked once a second."""
    from diffusion.cartoons import Stopped

    asked = time.monotonic()

    def look() -> None:
        nonlocal asked
        if time.monotonic() - asked < LOOKS:
            return
        asked = time.monotonic()
        if stopped():
            raise Stopped

    return look


def _bytes_of(name: str) -> bytes:
    """A file's name as the disk has it: old disks and archives have some that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape")
