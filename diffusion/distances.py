"""Distances between two sets of pictures, given as features (N, D), and what else sets tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.noise import EVALUATION, generator

KID_HALVES = 100  # random halves of both sets, for KID's error bar
NEIGHBOURS = 3  # of precision and recall
COPY_SIDE = 32  # pixels at which a copy is looked for
COPY_RMSE = 5.0  # grey levels: nearer than that to a training picture is a copy
READ = 1024  # training pictures in memory at once
SHRUNK = 128  # pictures made small at once, each of their bytes a float


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of features, float64; what a Fréchet distance compares."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """The Gaussian of features (N, D), N at least 2."""
        if len(features) < 2:
            raise ValueError(f"a distance of {len(features)} pictures; give at least 2")
        x = torch.from_numpy(np.asarray(features, dtype=np.float64))
        return cls(x.mean(dim=0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def frechet(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2·(C1·C2)^½), Fréchet distance squared (arXiv 1706.08500 eq. 6).

    It falls with the number of pictures: compare only sets of the same size.
    """
    root = _square_root(one.covariance)
    # C1·C2 has the eigenvalues of this symmetric product.
    shared = torch.linalg.eigvalsh(root @ other.covariance @ root).clamp(min=0).sqrt().sum()
    apart = (one.mean - other.mean).square().sum()
    return (apart + one.covariance.trace() + other.covariance.trace() - 2 * shared).item()


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def kid(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Kernel Inception Distance (arXiv 1801.01401 section 4) and its standard error.

    The unbiased squared MMD with the kernel (x·y/D + 1)³ of all pictures against all; the error
    is the spread over random halves of both sets (the delete-half jackknife). Near zero that is too
    large, up to √3 times: what varies there is the share of pairs of pictures, and halves have a
    quarter as many pairs.
    """
    x, y = (torch.from_numpy(np.asarray(rows, dtype=np.float32)) for rows in (features, reference))
    if min(len(x), len(y)) < 4:
        raise ValueError("a kernel distance needs at least 4 pictures on both sides")
    kernels = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    rng = generator(0, EVALUATION, level=2)
    halves = [_mmd(kernels, _half(len(x), rng), _half(len(y), rng)) for _ in range(KID_HALVES)]
    value = _mmd(kernels, torch.ones(len(x)).double(), torch.ones(len(y)).double())
    return value, float(np.std(halves))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _half(count: int, rng: np.random.Generator) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.float64)
    chosen[torch.from_numpy(rng.permutation(count)[: count // 2])] = 1
    return chosen


def _mmd(kernels: tuple[Tensor, Tensor, Tensor], x: Tensor, y: Tensor) -> float:
    """Squared MMD of the pictures that x and y, 0 or 1 each, choose; eq. 4 of arXiv 1801.01401."""
    xx, yy, xy = kernels
    m, n = x.sum(), y.sum()
    within_x = _form(x, xx, x) - (x * xx.diagonal()).sum()
    within_y = _form(y, yy, y) - (y * yy.diagonal()).sum()
    between = _form(x, xy, y)
    return (within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * between / (m * n)).item()


def _form(x: Tensor, kernel: Tensor, y: Tensor) -> Tensor:
    return x @ (kernel @ y.to(kernel.dtype)).double()


def precision_recall(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """How many pictures lie among the reference, and how much of the reference is covered.

    A picture lies among a set when it is nearer to one of its members than that member's third
    nearest neighbour (arXiv 1904.06991). Computed with as many reference pictures as pictures,
    because both grow with the size of the set that surrounds; of the larger set a random part,
    always the same, since sets may be ordered by what they show. Results files that do not name
    `precision_recall` were measured with the first pictures of it instead.
    """
    count = min(len(features), len(reference))
    x, y = (torch.from_numpy(_some(rows, count)) for rows in (features, reference))
    between = torch.cdist(x, y)
    precision = (between <= _radii(y)).any(dim=1).double().mean().item()
    recall = (_radii(x) >= between.T).any(dim=1).double().mean().item()
    return precision, recall


def _some(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) == count:
        return np.asarray(rows)
    chosen = generator(0, EVALUATION, level=5).permutation(len(rows))[:count]
    return np.asarray(rows)[np.sort(chosen)]


def _radii(x: Tensor) -> Tensor:
    # The nearest neighbour of a picture is itself.
    return torch.cdist(x, x).kthvalue(min(NEIGHBOURS + 1, len(x)), dim=1).values


def nearest(
    pixels: np.ndarray, training: np.ndarray, chosen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest training picture and its index, for each of uint8 (N, H, W, 3).

    The distance is the root mean squared difference at 32 px, in grey levels. With `chosen` only
    those rows of `training` count, and indices are places in `chosen`. Training pictures are read
    a few at a time, so that they may be more than fit into memory.
    """
    chosen = np.arange(len(training)) if chosen is None else chosen
    x = _small(pixels)
    distance = torch.full((len(x),), torch.inf)
    index = torch.zeros(len(x), dtype=torch.int64)
    for first in range(0, len(chosen), READ):
        y = _small(training[chosen[first : first + READ]])
        here = _closest(x, y)
        # Squares from the difference itself: in `_closest` two large numbers cancel.
        apart = (x - y[here]).square().mean(dim=1).sqrt()
        nearer = apart < distance
        distance = torch.where(nearer, apart, distance)
        index = torch.where(nearer, first + here, index)
    return distance.numpy(), index.numpy()


def _closest(x: Tensor, y: Tensor) -> Tensor:
    """For each row of x the index of the nearest row of y."""
    length = y.square().sum(1)
    return torch.cat([(length - 2 * rows @ y.T).argmin(dim=1) for rows in x.split(256)])


def copy_rate(pixels: np.ndarray, training: np.ndarray, chosen: np.ndarray | None = None) -> float:
    """The share of pictures that are copies of a training picture; `chosen` as in `nearest`."""
    return float((nearest(pixels, training, chosen)[0] < COPY_RMSE).mean())


def _small(pixels: np.ndarray) -> Tensor:
    rows = []
    for first in range(0, len(pixels), SHRUNK):
        batch = torch.from_numpy(np.ascontiguousarray(pixels[first : first + SHRUNK]))
        x = batch.permute(0, 3, 1, 2).float()
        rows.append(F.interpolate(x, size=(COPY_SIDE, COPY_SIDE), mode="area").flatten(1))
    return torch.cat(rows)
