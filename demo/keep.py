"""What visitors take with them: PNGs that know how they were made, and films of both panes."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from demo import wording
from demo.reels import Reel
from demo.settings import Comparison, read_comparison
from demo.theme import INK, MUTED, PAPER, SAMPLER_COLOURS, font_file
from demo.wishes import Labels
from diffusion import __version__
from diffusion.film import LENSES, Still
from diffusion.pictures import SETTINGS_KEY, save_animation, save_png, tiled

ENLARGED = 4  # times, in a PNG
GAP = 2  # pixels between faces, and four times that between panes, before enlarging
MOST_BYTES, MOST_PIXELS = 4_000_000, 4_000_000  # of a picture that is given back
MOST_MOMENTS = 512  # of an animation
GIF_MOMENTS = 100  # a GIF of noise is large
PANE = {"mp4": 384, "gif": 256}  # pixels, about; faces are enlarged by whole numbers
FPS = {"mp4": 25, "gif": 20}
TYPES = {"png": "image/png", "mp4": "video/mp4", "gif": "image/gif"}


@dataclass(frozen=True)
class Settings:
    """What a PNG says of itself."""

    comparison: Comparison
    face: int | None  # the one that is shown, None for all
    weights: str
    panes: int = 2  # that are shown: both, or the right one alone

    def to_json(self) -> dict:
        """What is written into the PNG; `read` is the way back."""
        return {
            "compare": self.comparison.fields(),
            "face": self.face,
            "panes": self.panes,
            "weights": self.weights,
            "versions": {"cartoon-diffusion": __version__, "torch": version("torch")},
        }


@dataclass(frozen=True)
class Given:
    """A picture that a visitor brought back."""

    settings: Settings
    pixels: np.ndarray  # uint8 (height, width, 3)


def png(reel: Reel, face: int | None) -> bytes:
    """The finished faces of all panes, or one of them, with all settings inside.

    Raises ValueError, with a sentence, for a run that did not finish.
    """
    if not reel.done:
        raise ValueError(wording.NOT_FINISHED)
    face = check_face(face, reel)
    settings = Settings(reel.comparison, face, reel.weights, len(reel.films))
    buffer = io.BytesIO()
    picture = Image.fromarray(sheet([still.x for still in reel.last], face))
    save_png(buffer, picture, settings.to_json())
    return buffer.getvalue()


def sheet(panes: Sequence[np.ndarray], face: int | None) -> np.ndarray:
    """Panes side by side, enlarged without smoothing; uint8 (height, width, 3) on white."""
    first, *others = (_block(pictures, face) for pictures in panes)
    between = np.full((len(first), 4 * GAP, 3), 255, np.uint8)
    row = np.concatenate([first, *(part for block in others for part in (between, block))], axis=1)
    return row.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


@dataclass(frozen=True)
class Picture:
    """A PNG that was saved here, before it is known which model it is of."""

    fields: dict[str, object]  # of the form; not checked yet
    face: object
    panes: int
    weights: str
    pixels: np.ndarray

    def given(self, T: int, labels: Labels) -> Given:
        """With every field checked against its model; raises ValueError in one sentence."""
        comparison = read_comparison(T, labels, **self.fields)
        if not _is_face(self.face, comparison):
            raise ValueError(wording.NOT_OURS)
        return Given(Settings(comparison, self.face, self.weights, self.panes), self.pixels)


def read(content: bytes) -> Picture:
    """What a PNG says of itself; raises ValueError, in one sentence, if it is none of ours."""
    if len(content) > MOST_BYTES:
        raise ValueError(wording.STAGE["too_large"])
    try:
        # A list of formats: Pillow must not try its many others on a stranger's bytes.
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(wording.NOT_OURS)
        image.load()
        about = json.loads(image.text[SETTINGS_KEY])
        fields = {str(name): value for name, value in about["compare"].items()}
        face, weights, panes = about["face"], str(about["weights"])[:64], about.get("panes", 2)
        if panes not in (1, 2):
            raise ValueError(wording.NOT_OURS)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise ValueError(wording.NOT_OURS) from None
    except Exception:  # OSError, SyntaxError, struct.error: whatever Pillow stumbles over
        raise ValueError(wording.NOT_A_PNG) from None
    for name in ("T", "labels"):
        fields.pop(name, None)
    return Picture(fields, face, int(panes), weights, np.asarray(image.convert("RGB")))


def verdict(given: Given, panes: Sequence[np.ndarray]) -> str:
    """Whether both panes, drawn again, look as the given picture does."""
    again = sheet(panes[-given.settings.panes :], given.settings.face)
    if again.shape != given.pixels.shape:
        return wording.OTHER_SIZE
    difference = np.abs(again.astype(int) - given.pixels.astype(int))
    alike = difference.mean() <= 1 and np.percentile(difference, 99) <= 8
    return wording.verdict(int(difference.max()), alike)


def animation(
    reel: Reel, kind: str, moments: Sequence[Sequence[int]], lens: str, face: int | None
) -> bytes:
    """Both panes as an MP4 or GIF; a moment is the calls made by each pane.

    Raises ValueError, with a sentence, for wishes that make no film.
    """
    if kind not in FPS or lens not in LENSES:
        raise ValueError(wording.NOTHING_YET)
    face = check_face(face, reel)
    chosen = _check_moments(moments)
    if kind == "gif":
        chosen = chosen[:: -(-len(chosen) // GIF_MOMENTS)] + chosen[-1:]
    # Not a NamedTemporaryFile: on Windows nobody else can open one.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"film.{kind}")
        save_animation(path, _frames(reel, chosen, lens, face, PANE[kind]), FPS[kind])
        return path.read_bytes()


def file_name(reel: Reel, kind: str, face: int | None) -> str:
    """What a browser calls the file."""
    one = "" if face is None else f"-face-{face + 1}"
    return f"cartoon-diffusion-seed-{reel.comparison.seed}{one}.{kind}"


def check_face(face: object, reel: Reel) -> int | None:
    """The number of a face that the reel has, or None for all; raises ValueError."""
    if not _is_face(face, reel.comparison):
        raise ValueError(wording.NOTHING_YET)
    return face


def _is_face(face: object, comparison: Comparison) -> bool:
    """Whether it is the number of a face, or None for all."""
    if face is None:
        return True
    whole = isinstance(face, int) and not isinstance(face, bool)  # 1.0 would be in a range, too
    return whole and face in range(comparison.faces)


def _check_moments(moments: object) -> list[tuple[int, int]]:
    pairs = [
        tuple(pair)
        for pair in (moments if isinstance(moments, list) else [])
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
    ]
    if not 0 < len(pairs) <= MOST_MOMENTS:
        raise ValueError(wording.NOTHING_YET)
    return pairs


def _frames(
    reel: Reel, moments: Sequence[tuple[int, int]], lens: str, face: int | None, pane: int
) -> Iterator[Image.Image]:
    """One picture per moment, with captions."""
    size, faces = reel.films[0].at(0).x.shape[1], 1 if face is not None else reel.comparison.faces
    side = round(faces**0.5)
    scale = max(round(pane / (side * size)), 1)
    width = scale * (side * size + (side - 1) * GAP)
    layout = _Layout(width)
    opening = layout.opening(reel.comparison)
    for moment in moments:
        picture = opening.copy()
        for left, film, calls in zip(layout.lefts, reel.films, moment, strict=True):
            still = film.at(max(calls, 0))
            picture.paste(_pane_image(still, lens, face, scale), (left, layout.top))
            layout.caption(picture, left, still, film.calls)
        yield picture


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # Letter by letter: the other engine is not on every machine, and captions would differ.
    return ImageFont.truetype(font_file(name), size, layout_engine=ImageFont.Layout.BASIC)


class _Layout:
    """Where things stand in a frame of an animation."""

    margin, top, line = 16, 44, 18

    def __init__(self, width: int):
        self.width = width
        self.lefts = (self.margin, 2 * self.margin + width)
        self.size = (3 * self.margin + 2 * width, self.top + width + 4 * self.line)
        self.title = _font("SourceSansPro-Bold", 18)
        self.how = _font("SourceSansPro-Regular", 15)
        self.mono = _font("IBMPlexMono-Regular", 13)

    def opening(self, comparison: Comparison) -> Image.Image:
        """What stays the same from frame to frame."""
        picture = Image.new("RGB", self.size, PAPER)
        draw = ImageDraw.Draw(picture)
        for left, recipe in zip(self.lefts, comparison.recipes, strict=True):
            words = wording.title(recipe)
            colour = SAMPLER_COLOURS.get(recipe.sampler, INK)
            draw.text((left, 30), words, colour, self.title, anchor="ls")
            after = left + draw.textlength(words, self.title) + 8
            draw.text((after, 30), wording.how(recipe), MUTED, self.how, anchor="ls")
        bottom = self.size[1] - 14
        about = f"{wording.TITLE} · seed {comparison.seed}"
        draw.text((self.margin, bottom), about, MUTED, self.how, anchor="ls")
        return picture

    def caption(self, picture: Image.Image, left: int, still: Still, calls: int) -> None:
        """The counter below a pane."""
        place = (left, self.top + self.width + 20)
        words = f"{still.calls} / {calls}{wording.STAGE['calls']}"
        ImageDraw.Draw(picture).text(place, words, MUTED, self.mono, anchor="ls")


def _pane_image(still: Still, lens: str, face: int | None, scale: int) -> Image.Image:
    seen = still.seen(lens)
    if seen is None:  # nothing is predicted before the first call
        seen = np.full_like(still.x, 232)
    block = _block(seen, face).repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(block)


def _block(pictures: np.ndarray, face: int | None) -> np.ndarray:
    """uint8 (faces, H, W, 3) as one square, row by row with gaps, or one of them."""
    return tiled(pictures, gap=GAP) if face is None else pictures[face]
