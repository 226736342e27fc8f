"""One call of the network for many: a batch of parts in, each image's own row done.

A batch's images may come from different requests, with levels, labels, guidance and samplers of
their own; what holds for all of them is said once, which a network computes faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.samplers import mix
from diffusion.walks import Part, joined


@torch.no_grad()
def compute(parts: list[Part]) -> tuple[Tensor, Tensor, Tensor]:
    """x after the row of each image; clean image and noise, predicted on the way.

    All parts are of walks on one model; the images come in the order of the parts.
    """
    x = joined([part.x for part in parts])
    t = _per_image([part.row.t for part in parts], parts).to(x.device)
    x0, eps = _denoiser(parts, x.device)(x, t)
    A, B, C, D = (
        _coefficients([getattr(part.row, name) for part in parts], parts, x) for name in "ABCD"
    )
    previous = _previous(parts, x0) if any(part.row.C for part in parts) else x0
    z = None
    if any(part.row.D for part in parts):
        z = joined([_noise(part) for part in parts])
    return mix(A, B, C, D, x0, eps, previous, z), x0, eps


def rows(parts: list[Part]) -> list[slice]:
    """Which images of the batch are those of each part."""
    found, first = [], 0
    for part in parts:
        found.append(slice(first, first + len(part)))
        first += len(part)
    return found


def halves(parts: list[Part]) -> tuple[list[Part], list[Part]]:
    """The same images in two batches; a part in the middle is cut."""
    half = sum(len(part) for part in parts) // 2
    left, right = [], []
    for part, place in zip(parts, rows(parts), strict=True):
        cut = min(max(half - place.start, 0), len(part))
        if cut:
            left.append(part.cut(0, cut))
        if cut < len(part):
            right.append(part.cut(cut, len(part)))
    return left, right


def finite(x: Tensor) -> list[bool]:
    """Whether each image is made of numbers alone."""
    if x.device.type == "cpu":  # NumPy, as in `to_uint8`
        return np.isfinite(x.float().flatten(1).numpy().sum(1)).tolist()
    return x.flatten(1).sum(1).isfinite().tolist()


def _denoiser(parts: list[Part], device: torch.device) -> Denoiser:
    requests = [part.walk.request for part in parts]
    labels = None
    # Where nothing is asked there is no need to say so for every image.
    if any(request.asks for request in requests):
        labels = _per_image([part.walk.labels for part in parts], parts).to(device)
    guidance = _common([float(request.guidance) for request in requests], parts)
    clip = _common([request.recipe.clip for request in requests], parts)
    return parts[0].walk.model.denoiser(labels, guidance, clip)


def _previous(parts: list[Part], x0: Tensor) -> Tensor:
    """The clean image of each one's step before; at its first step, that of this one."""
    places = zip(parts, rows(parts), strict=True)
    return joined(
        [x0[own] if part.x0_previous is None else part.x0_previous for part, own in places]
    )


def _noise(part: Part) -> Tensor:
    return part.walk.noise(part) if part.row.D else torch.zeros_like(part.x)


def _coefficients(values: list[float], parts: list[Part], x: Tensor) -> Tensor | float:
    """One number for all images, or a column that broadcasts over x."""
    column = _common(values, parts)
    if not torch.is_tensor(column):
        return column
    return column.to(x.dtype).to(x.device).reshape(-1, *[1] * (x.ndim - 1))


def _common(values: list, parts: list[Part]) -> Tensor | float | bool:
    """The one value that all parts have, else one row per image."""
    return values[0] if len(set(values)) == 1 else _per_image(values, parts)


def _per_image(values: Sequence, parts: list[Part]) -> Tensor:
    """One row per image from one value per part."""
    owners = zip(values, parts, strict=True)
    return torch.tensor([value for value, part in owners for _ in range(len(part))])
