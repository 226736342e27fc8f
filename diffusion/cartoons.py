"""Cartoon faces that are drawn here, without a download: a function of (style, number, size).

The drawings are DiceBear's (MIT); each style has an author and a licence of its own, which travel
with the pictures. `python -m diffusion.cartoons STYLE SIZE COUNT` draws into the cache: two files
grow there, picture after picture, so that a training may begin on the first while the rest are
drawn, and a drawing that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diffusion.cache import cache_dir
from diffusion.data import MAX_SIZE, MIN_SIZE, Images
from diffusion.denoiser import ANY
from diffusion.image_files import DataError
from diffusion.processes import python
from diffusion.sources import Source

if TYPE_CHECKING:
    from diffusion.labels import Labels

VERSION = 1  # raise it when the pixels of a cache would change
COUNT = 10_000  # pictures of a style
FIRST = 1_000  # of them that a training waits for
CHUNK = 50  # pictures from one write to the next
PATIENCE = 30.0  # seconds without a new picture, after which another process draws on
FAILURES = 3  # of processes one after the other that drew nothing, before it is given up
PIXELS, LABELS = "pixels.u8", "labels.i8"
LOG = "log.txt"  # beside them; what the process that draws has to say
NONE = "none"  # the value of a part that a face does not have


class Stopped(Exception):
    """Nobody wants the pictures any more that are being waited for."""


@dataclass(frozen=True)
class Style:
    """A style of DiceBear's as it is drawn here."""

    name: str
    title: str
    parts: tuple[str, ...]  # the attributes a picture is labelled with
    colours: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)  # what differs from DiceBear's own


_CHEERFUL = {
    "scale": 1.3,
    "translateY": 5,
    "beardProbability": 20,
    "eyesVariant": ["bow", "happy", "wide"],
    "eyebrowsVariant": ["happy", "neutral", "raised"],
    "mouthVariant": ["agape", "laugh", "smile"],
}
STYLES = {
    style.name: style
    for style in (
        Style(
            "toon-head",
            "Toon heads",
            ("hair", "rearHair", "beard", "eyes", "eyebrows", "mouth", "clothes"),
            ("hair", "skin", "clothes"),
            _CHEERFUL,
        ),
        Style(
            "pixel-art",
            "Pixel art",
            ("hair", "hat", "glasses", "beard", "eyes", "mouth", "clothes"),
            ("hair", "skin", "clothing"),
        ),
        Style(
            "big-ears",
            "Big ears",
            ("hair", "frontHair", "head", "ears", "eyes", "nose", "mouth"),
            ("hair", "skin"),
        ),
        Style(
            "personas",
            "Personas",
            ("hair", "facialHair", "eyes", "nose", "mouth", "clothes"),
            ("hair", "skin", "clothing"),
        ),
        Style("moods", "Moods", ("face", "eyes", "mouth"), ("face", "background")),
        Style("dylan", "Dylan", ("hair", "facialHair", "mood"), ("hair", "skin", "background")),
    )
}


def load_cartoons(
    style: str,
    size: int,
    progress: bool = True,
    complete: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Images:
    """The COUNT pictures of a style; they may still be being drawn, and reading one waits for it.

    With `complete` it returns when all are drawn, with their labels. Raises DataError for sizes
    that are not drawn, when a package is missing, or when drawing fails; waiting raises Stopped
    when `stopped()`.
    """
    check(style, size)
    drawing = Drawing(style, size, stopped=stopped)
    drawing.wait(COUNT if complete else FIRST, progress)
    labels = read_labels(style, drawing.folder) if drawing.drawn == COUNT else None
    names = tuple(f"{style}-{number:05d}" for number in range(COUNT))
    return Images(drawing, names, drawing.folder.name, labels=labels, source=source(style))


def check(style: str, size: int) -> None:
    """Raise DataError unless pictures of this style and size can be drawn."""
    if style not in STYLES:
        raise DataError(f"there is no style {style!r}; choose {', '.join(STYLES)}")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"pictures of {size} px; choose {MIN_SIZE} to {MAX_SIZE}")
    try:
        import dicebear  # noqa: F401
        import dicebear_styles  # noqa: F401
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"drawing cartoons needs {error.name}; pip install dicebear-core dicebear-styles"
            " resvg_py"
        ) from None


class Drawing:
    """Pictures uint8 (count, size, size, 3) in a file that another process may still be filling.

    Reads like an array; an index that is not drawn yet is waited for, which raises Stopped when
    `stopped()` and DataError when drawing fails again and again.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        style: str,
        size: int,
        count: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ):
        self.style, self.size, self.count = style, size, count or COUNT
        self.stopped = stopped
        self.folder = cache_dir("images") / _key(style, size)
        self.folder.mkdir(exist_ok=True)
        self.shape = (self.count, size, size, 3)
        self._pixels = np.empty((0, size, size, 3), np.uint8)  # what is mapped
        self._child: subprocess.Popen | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures."""
        return int(np.prod(self.shape))

    @property
    def drawn(self) -> int:
        """How many pictures are there, with their labels."""
        return _drawn(self.folder, self.style, self.size)

    @property
    def complete(self) -> bool:
        """Whether no picture has to be waited for."""
        return self.drawn >= self.count

    def wait(self, count: int, progress: bool = False) -> None:
        """Return when the first `count` pictures are drawn; have them drawn if nobody does."""
        from tqdm import tqdm

        drawn = self.drawn
        if drawn < self.count:
            self._have_drawn()
        if drawn >= count:
            return
        since, failures = time.monotonic(), 0
        with tqdm(desc="Drawing", total=count, initial=drawn, disable=not progress) as bar:
            while drawn < count:
                if self.stopped():
                    raise Stopped
                time.sleep(0.05)
                if (now := self.drawn) > drawn:
                    bar.update(min(now, count) - drawn)
                    drawn, since, failures = now, time.monotonic(), 0
                elif self._child and self._child.poll():
                    if (failures := failures + 1) == FAILURES:
                        raise DataError(self._why_not())
                    self._have_drawn()
                elif time.monotonic() - since > PATIENCE:
                    self._have_drawn()
                    since = time.monotonic()

    def _have_drawn(self) -> None:
        if self._child and self._child.poll() is None:
            return
        # In a process of its own: drawing would hold up the training's thread.
        about = [self.style, str(self.size), str(self.count)]
        # It may outlive the training, and holds none of its files: its run can be deleted.
        with open(self.folder / LOG, "wb") as log:
            self._child = subprocess.Popen(
                **python("-m", "diffusion.cartoons", *about),
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        threading.Thread(target=self._child.wait, daemon=True).start()  # leave no zombie

    def _why_not(self) -> str:
        """What the process that drew said last, in a sentence."""
        log = self.folder / LOG
        said = log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        return f"pictures of {self.style} cannot be drawn ({said[-1][:200]}); see {log}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        numbers = np.arange(self.count)[index]
        last = int(np.max(numbers, initial=-1))
        if last >= len(self._pixels):
            self.wait(last + 1)
            path, drawn = self.folder / PIXELS, min(self.drawn, self.count)
            self._pixels = np.memmap(path, np.uint8, "r", shape=(drawn, *self.shape[1:]))
        # Counted from the first: while not all are mapped, an index from the end means another.
        return self._pixels[index if len(self._pixels) == self.count else numbers]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype)


def draw_into(folder: Path, style: str, size: int, count: int = COUNT) -> None:
    """Draw what is missing of the first `count` pictures, unless another process does so now."""
    from filelock import FileLock, Timeout

    with contextlib.suppress(Timeout), FileLock(folder / "lock", timeout=0):
        start = _drawn(folder, style, size)
        width = len(attributes(style))
        with open(folder / PIXELS, "ab") as pixels, open(folder / LABELS, "ab") as labels:
            pixels.truncate(start * size * size * 3)
            labels.truncate(start * width)
            for first in range(start, count, CHUNK):
                faces = [face(style, i, size) for i in range(first, min(first + CHUNK, count))]
                pixels.write(b"".join(picture.tobytes() for picture, _ in faces))
                labels.write(np.array([values for _, values in faces], np.int8).tobytes())
                pixels.flush()
                labels.flush()


def face(style: str, number: int, size: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """One picture, uint8 (size, size, 3), and its labels, an index for each attribute."""
    import resvg_py
    from dicebear import Avatar

    options = {"seed": str(number), "size": size, **STYLES[style].options}
    avatar = Avatar(_definition(style), options)
    drawn = resvg_py.svg_to_bytes(
        svg_string=avatar.to_string(),
        width=size,
        height=size,
        background="#ffffff",
        skip_system_fonts=True,
    )
    with Image.open(io.BytesIO(bytes(drawn))) as image:
        picture = np.asarray(image.convert("RGB"))
    return picture, _labels(style, avatar.to_json()["options"])


@cache
def attributes(style: str) -> dict[str, tuple[str, ...]]:
    """The names of each attribute's values, in the order of the indices."""
    about, meta = STYLES[style], _json(style)
    names = {}
    for part in about.parts:
        variants = about.options.get(f"{part}Variant") or sorted(
            meta["components"][part]["variants"]
        )
        likely = meta["components"][part].get("probability", 100)
        names[_snake(part)] = ((NONE,) if likely < 100 else ()) + tuple(variants)
    for colour in about.colours:
        values = meta["colors"][colour]["values"]
        names[f"{_snake(colour)}_color"] = tuple(value.lstrip("#") for value in values)
    return names


def read_labels(style: str, folder: Path) -> Labels:
    """The labels of a style that is drawn completely."""
    from diffusion.labels import Labels

    names = attributes(style)
    values = np.fromfile(folder / LABELS, np.int8).reshape(COUNT, len(names))
    return Labels(values.astype(np.int64), names)


def source(style: str) -> Source:
    """Who drew the style, and under which licence."""
    meta = _json(style)["meta"]
    return Source(
        meta["source"]["name"],
        meta["creator"]["name"],
        meta["license"]["name"],
        meta["source"]["url"],
        f"Drawn by DiceBear's style {style}. {meta['license']['text']}.",
    )


def _labels(style: str, options: Mapping[str, Any]) -> tuple[int, ...]:
    about = STYLES[style]
    found = [options.get(f"{part}Variant", NONE) for part in about.parts]
    # A bald head has no hair colour.
    colours = [options.get(f"{colour}Color") or [""] for colour in about.colours]
    found += [colour[0].lstrip("#") for colour in colours]
    return tuple(
        names.index(value) if value else ANY
        for names, value in zip(attributes(style).values(), found, strict=True)
    )


def _drawn(folder: Path, style: str, size: int) -> int:
    bytes_each = {PIXELS: size * size * 3, LABELS: len(attributes(style))}
    try:
        return min((folder / name).stat().st_size // each for name, each in bytes_each.items())
    except FileNotFoundError:
        return 0


@cache
def _definition(style: str) -> Any:
    from dicebear import Style as Definition

    return Definition(_json(style))


@cache
def _json(style: str) -> dict:
    from importlib.resources import files

    return json.loads(files("dicebear_styles").joinpath(f"{style}.json").read_text("utf-8"))


def _key(style: str, size: int) -> str:
    from importlib.metadata import version

    drawn_by = [version(name) for name in ("dicebear-core", "dicebear-styles", "resvg-py")]
    about = json.dumps([VERSION, style, size, COUNT, drawn_by, dict(STYLES[style].options)])
    return f"{style}-{size}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def main(style: str, side: str, many: str = str(COUNT)) -> None:
    """Draw a style into the cache."""
    size, count = int(side), int(many)
    check(style, size)
    draw_into(Drawing(style, size).folder, style, size, count)


if __name__ == "__main__":
    main(*sys.argv[1:])
