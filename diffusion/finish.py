"""What may follow the last step: edges drawn sharper, plain areas made plain.

For pictures in flat colours alone. The errors that a network leaves at low noise are soft edges
and faint mottling, which cartoons have none of; docs/distance.md tells what they cost. No sampler
has this step, so it is never taken unasked, and pictures that took it say so.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.samplers import Frame

FINISHES = ("none", "crisp")
SHARPER = 0.4  # of the difference between a pixel and the mean around it, added once more
ALIKE = 5 / 127.5  # how far apart colours of one area are: five grey levels
RADIUS = 2  # pixels around that are looked at for the same colour
ROUNDS = 2


def finished(frame: Frame, finish: str) -> Frame:
    """The frame as it is; of the last step, at level 0, with x crisp if `finish` says so."""
    return replace(frame, x=crisp(frame.x)) if finish == "crisp" and frame.s == 0 else frame


def crisp(x: Tensor) -> Tensor:
    """(B, C, H, W) in [-1, 1] with sharper edges and plainer areas, each picture on its own."""
    x = sharpened(x.clamp(-1, 1))
    for _ in range(ROUNDS):
        x = flattened(x)
    return x


def sharpened(x: Tensor) -> Tensor:
    """An unsharp mask without halos: no pixel leaves the range of the 3×3 around it."""
    around = F.pad(x, (1, 1, 1, 1), mode="replicate")
    darkest, brightest = -F.max_pool2d(-around, 3, 1), F.max_pool2d(around, 3, 1)
    return (x + SHARPER * (x - F.avg_pool2d(around, 3, 1))).clamp(darkest, brightest)


def flattened(x: Tensor) -> Tensor:
    """The mean of the pixels around, each weighed by how like its colour is to the middle's.

    A bilateral filter (Tomasi and Manduchi, ICCV 1998): areas become plain, edges stay.
    """
    height, width = x.shape[-2:]
    around = F.pad(x, (RADIUS,) * 4, mode="replicate")
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for down in range(2 * RADIUS + 1):
        for right in range(2 * RADIUS + 1):
            neighbour = around[..., down : down + height, right : right + width]
            apart = (neighbour - x).square().sum(dim=1, keepdim=True)
            weight = torch.exp(-apart / (2 * ALIKE**2))
            total += weight * neighbour
            weights += weight
    return total / weights
