"""Tensors to pictures: bytes, sheets, PNG files and animations."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

SETTINGS_KEY = "cartoon-diffusion"  # the PNG text chunk that says how a picture was made


def to_uint8(x: Tensor) -> np.ndarray:
    """(B, C, H, W) in [-1, 1] to uint8 (B, H, W, C); what lies outside is clipped."""
    if x.device.type == "cpu":
        return _to_uint8(x.detach().float().numpy()).transpose(0, 2, 3, 1)
    pixels = x.detach().float().clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)
    return pixels.cpu().numpy().transpose(0, 2, 3, 1)


def _to_uint8(x: np.ndarray) -> np.ndarray:
    """The same numbers from NumPy, in half the time: a network leaves torch's code out of cache."""
    pixels = x.clip(-1, 1)
    pixels += 1
    pixels *= 127.5
    with np.errstate(invalid="ignore"):  # what is no number becomes some grey
        return np.rint(pixels, out=pixels).astype(np.uint8)


def from_uint8(pixels: np.ndarray | Tensor) -> Tensor:
    """uint8 (B, H, W, C) to float32 (B, C, H, W) in [-1, 1]."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def sheet(pixels: np.ndarray, columns: int | None = None, gap: int = 2) -> Image.Image:
    """uint8 (B, H, W, 3) as one picture with gaps between and around; see `tiled`.

    A picture alone stays as it is.
    """
    around = 0 if len(pixels) == 1 else gap
    grid = tiled(pixels, columns, gap)
    border = ((around, around), (around, around), (0, 0))
    return Image.fromarray(np.pad(grid, border, constant_values=255))


def tiled(pixels: np.ndarray, columns: int | None = None, gap: int = 0) -> np.ndarray:
    """uint8 (B, H, W, 3) side by side, `columns` wide (by default nearly square), row by row.

    White gaps are between the pictures, and white is where the last row ends early.
    """
    count, height, width, channels = pixels.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    # Every place with the gap below and right of it; what is beyond the last is cut off again.
    places = np.full((rows * columns, height + gap, width + gap, channels), 255, np.uint8)
    places[:count, :height, :width] = pixels
    tiles = places.reshape(rows, columns, *places.shape[1:]).swapaxes(1, 2)
    grid = tiles.reshape(rows * (height + gap), columns * (width + gap), channels)
    return np.ascontiguousarray(grid[: len(grid) - gap, : grid.shape[1] - gap])


def roughness(pixels: np.ndarray) -> float:
    """How much neighbouring pixels of uint8 (B, H, W, C) differ crosswise, in grey levels.

    The diagonal detail of the finest Haar wavelet: noise has much of it, drawn faces little.
    """
    x = np.asarray(pixels, dtype=np.float32)
    height, width = (side - side % 2 for side in x.shape[1:3])
    x = x[:, :height, :width]
    crosswise = x[:, 0::2, 0::2] - x[:, 0::2, 1::2] - x[:, 1::2, 0::2] + x[:, 1::2, 1::2]
    return float(np.abs(crosswise).mean() / 4)


def save_png(
    path: str | Path | BinaryIO, picture: Image.Image, settings: Mapping | None = None
) -> None:
    """Write a PNG that carries the settings that made it."""
    about = PngImagePlugin.PngInfo()
    if settings is not None:
        about.add_text(SETTINGS_KEY, json.dumps(settings, sort_keys=True))
    picture.save(path, format="PNG", pnginfo=about)


def read_settings(path: str | Path) -> dict | None:
    """The settings inside a PNG written by `save_png`, or None."""
    with Image.open(path) as image:
        text = getattr(image, "text", {}).get(SETTINGS_KEY)
    return None if text is None else json.loads(text)


def save_animation(
    path: str | Path, pictures: Iterable[Image.Image], fps: int = 25, kind: str | None = None
) -> None:
    """Write an animation of pictures of one size; the last one stays for a second.

    `kind` is "gif" or "mp4", by default what the path ends in. In a GIF, pictures that look the
    same one after the other become one that stays longer.
    """
    path, pictures = Path(path), iter(pictures)
    kind = (kind or path.suffix).lower().removeprefix(".")
    if kind not in ("gif", "mp4"):
        raise ValueError(f"animations end in .gif or .mp4, not {path.suffix!r}")
    first = next(pictures, None)
    if first is None:
        raise ValueError("an animation needs at least one picture")
    pictures = itertools.chain([first], pictures)
    if kind == "gif":
        _save_gif(path, pictures, fps)
    else:
        _save_mp4(path, pictures, fps, first.size)


def _save_gif(path: Path, pictures: Iterable[Image.Image], fps: int) -> None:
    # Noise has no good palette: the fast quantiser is fifty times quicker and looks the same.
    frames = [p.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for p in pictures]
    durations = [max(1000 // fps, 20)] * (len(frames) - 1) + [1000]
    frames[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )


def _save_mp4(path: Path, pictures: Iterable[Image.Image], fps: int, size: tuple[int, int]) -> None:
    import av

    width, height = (side - side % 2 for side in size)  # H.264 wants even sides
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"crf": "18", "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in _staying(pictures, fps):
            frame = av.VideoFrame.from_image(picture.convert("RGB").crop((0, 0, width, height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _staying(pictures: Iterable[Image.Image], fps: int) -> Iterator[Image.Image]:
    """The pictures one by one, and the last of them for a second more."""
    for picture in pictures:  # the last one is needed below
        yield picture
    yield from itertools.repeat(picture, fps)
