"""From a network's output to the pair (x0, eps) that every sampler works with.

Samplers never learn what the network predicts: x_t = signal·x0 + noise·eps holds for the pair
that a Denoiser returns, also after x0 was clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffusion.schedule import Schedule

PREDICTIONS = ("v", "eps", "x0", "dual")
GATE_SHIFT = 4.0  # of a dual network's gate: an untrained one is nearly a v-network
ANY = -1  # the label value that leaves an attribute open
EVERYWHERE = (0.0, 1.0)  # the interval of t/T that holds every level

Network = Callable[..., Tensor]  # network(x, time) or network(x, time, labels)


@dataclass(frozen=True)
class Denoiser:
    """denoise(x, t) -> (x0, eps), both shaped like x and in x's dtype.

    The network is called with x and the time 1000·t/T, float (B,), and with labels when there
    are any: int64 (B, attributes), -1 for "any". Guidance mixes clean images as
    x0_any + guidance·(x0_asked - x0_any) (classifier-free guidance, arXiv 2207.12598): 0 ignores
    the labels, 1 is the plain conditional model, other values cost two rows of the batch. The
    paper's w is this guidance - 1.
    `clip` and `guidance` hold for all images, or are tensors (B,) with one value for each.
    Outside of `interval`, bounds of t/T, guidance is 1 (arXiv 2404.07724): labels still hold, and
    a step costs one row.

    After clipping, eps is that of the clipped x0, so that the pair explains x. With
    `rederive=False` it stays what the network meant, as many implementations have it: a mistake
    kept for comparison, since strong guidance then burns the colours.

    A "dual" network answers with 2C + 1 channels: v, a clean image, and a gate between them.
    """

    network: Network
    schedule: Schedule
    prediction: str = "v"
    clip: bool | Tensor = True
    labels: Tensor | ArrayLike | None = None
    guidance: float | Tensor = 1.0
    interval: tuple[float, float] = EVERYWHERE
    rederive: bool = True

    def __post_init__(self) -> None:
        check_prediction(self.prediction)
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance from {low:g} to {high:g} of the noise; choose 0 to 1")
        if self.labels is not None:
            object.__setattr__(self, "labels", torch.as_tensor(self.labels))

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the clean image and the noise in x, each image at its own level t, int64 (B,).

        At level 0 there is nothing to remove: x0 is x itself, and eps is what the network sees
        at level 1, which is what DDIM inversion needs for its first step. Raises ValueError unless
        the labels have a row for each image.
        """
        levels = _levels(self.schedule, t, x)
        meant = self._guided_x0(x, levels)
        x0 = self._clipped(meant)
        shown = x0 if self.rederive else meant
        eps = torch.addcmul(x, levels.signal, shown, value=-1).div_(levels.noise)
        return x0 if levels.clean is None else torch.where(levels.clean, x, x0), eps

    def _clipped(self, x0: Tensor) -> Tensor:
        if isinstance(self.clip, Tensor):
            return torch.where(_expand(self.clip.to(x0.device), x0.ndim), x0.clamp(-1, 1), x0)
        return x0.clamp(-1, 1) if self.clip else x0

    def _guided_x0(self, x: Tensor, levels: _Levels) -> Tensor:
        if self.labels is None:
            return self._x0(x, levels, None)
        if self.labels.ndim != 2 or len(self.labels) != len(x):
            raise ValueError(
                f"labels of shape {tuple(self.labels.shape)} for {len(x)} images; "
                "give (images, attributes), a row for each image, -1 for any"
            )
        w = torch.as_tensor(self.guidance, dtype=x.dtype).expand(len(x))
        low, high = (bound * self.schedule.T for bound in self.interval)
        if self.interval != EVERYWHERE:
            outside = (levels.t < low) | (levels.t > high)
            w = torch.where(outside.to(w.device) & (w != 0), 1.0, w)
        labels = torch.where((w == 0).to(x.device)[:, None], ANY, self.labels.to(x.device))
        twice = ((w != 0) & (w != 1)).nonzero()[:, 0].to(x.device)
        if not len(twice):
            return self._x0(x, levels, labels)
        labels = torch.cat([labels, torch.full_like(labels[twice], ANY)])
        both = self._x0(torch.cat([x, x[twice]]), levels.and_again(twice), labels)
        x0, anything = both.split([len(x), len(twice)])
        mixed = anything + _expand(w.to(x.device)[twice], x.ndim) * (x0[twice] - anything)
        return x0.index_put((twice,), mixed)

    def _x0(self, x: Tensor, levels: _Levels, labels: Tensor | None) -> Tensor:
        asked = () if labels is None else (labels,)
        output = self.network(x, levels.time, *asked)
        # A network that works channels-last answers so; the algebra below would run slowly on it.
        output = output.to(x.dtype).contiguous()
        return to_x0(self.prediction, output, x, levels.signal, levels.noise)


def to_x0(prediction: str, output: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """The clean image that a network's output means, given the image x it looked at."""
    if prediction == "v":
        # arXiv 2202.00512 appendix D
        return torch.addcmul(signal * x, noise, output, value=-1)
    if prediction == "eps":
        return (x - noise * output) / signal  # DDPM eq. 15, DDIM eq. 9
    if prediction == "dual":
        return _gated_x0(output, x, signal, noise)
    return output


def _gated_x0(output: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Per pixel, the clean image itself or the one that v means (after arXiv 2203.04304).

    Where a picture is plain, as on a white background, the clean colour is known and v is not:
    it would have to repeat the noise exactly. tanh ends at -1 and 1, so white can be white.
    """
    channels = x.shape[1]
    v, clean, gate = output.split([channels, channels, 1], dim=1)
    x0 = to_x0("v", v, x, signal, noise)
    tanh = 2 * torch.sigmoid(2 * clean) - 1  # torch.tanh takes three times as long on a CPU
    return torch.lerp(x0, tanh, torch.sigmoid(gate - GATE_SHIFT))


def output_channels(prediction: str, channels: int) -> int:
    """How many channels a network of this prediction answers with, for pictures of `channels`."""
    return 2 * channels + 1 if prediction == "dual" else channels


def target(prediction: str, x0: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """What a v, eps or x0 network should answer for x_t = signal·x0 + noise·eps."""
    return {"v": signal * eps - noise * x0, "eps": eps, "x0": x0}[prediction]


def prediction_error(
    prediction: str, output: Tensor, x0: Tensor, eps: Tensor, signal: Tensor, noise: Tensor
) -> Tensor:
    """How far a network's output for x_t = signal·x0 + noise·eps is off, shaped like x0.

    In units of what the network predicts; "dual" in units of v, whose error is that of x0 divided
    by the noise.
    """
    if prediction == "dual":
        return (to_x0(prediction, output, signal * x0 + noise * eps, signal, noise) - x0) / noise
    return output - target(prediction, x0, eps, signal, noise)


def check_prediction(prediction: str) -> None:
    """Raise ValueError unless the prediction is one of PREDICTIONS."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction {prediction!r}; choose one of {PREDICTIONS}")


def at_level(schedule: Schedule, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """signal and noise of levels t (B,), in x's dtype and on its device, shaped (B, 1, ...)."""
    signal, noise = _tables(schedule, x.device, x.dtype)
    return _expand(signal[t], x.ndim), _expand(noise[t], x.ndim)


def time_of(schedule: Schedule, t: Tensor, dtype: torch.dtype) -> Tensor:
    """What the network is told of levels t (B,): 1000·t/T, in this dtype."""
    return t.to(dtype) * (1000 / schedule.T)


def level_of(schedule: Schedule, time: Tensor) -> Tensor:
    """The levels, int64 (B,), that a network is told as these times; undoes `time_of`."""
    return (time * (schedule.T / 1000)).round().long()


@dataclass(frozen=True)
class _Levels:
    """What the levels of a batch mean, for tensors of one shape, dtype and device."""

    t: Tensor  # int64 (B,), at least 1
    signal: Tensor  # (B, 1, ...), as noise
    noise: Tensor
    time: Tensor  # (B,); see time_of
    clean: Tensor | None  # (B, 1, ...), whether an image is at level 0; None: none is

    def and_again(self, rows: Tensor) -> _Levels:
        """With some of the images a second time, after the others."""
        parts = (self.t, self.signal, self.noise, self.time)
        return _Levels(*(torch.cat([part, part[rows]]) for part in parts), clean=None)


def _levels(schedule: Schedule, t: Tensor, x: Tensor) -> _Levels:
    if t.device.type == x.device.type == "cpu":
        return _kept_levels(schedule, tuple(t.tolist()), x.ndim, x.dtype)
    clean = _expand(t == 0, x.ndim)  # asking a GPU whether there is any would wait for it
    return _looked_up(schedule, t, x, clean)


# After a network has run, torch's small operations are out of a CPU's caches, and the dozen of
# them takes longer than all arithmetic on the pictures; the levels of a sampler come again.
@lru_cache(maxsize=2048)
def _kept_levels(
    schedule: Schedule, levels: tuple[int, ...], ndim: int, dtype: torch.dtype
) -> _Levels:
    t, x = torch.tensor(levels), torch.empty([0] * ndim, dtype=dtype)
    return _looked_up(schedule, t, x, _expand(t == 0, ndim) if 0 in levels else None)


def _looked_up(schedule: Schedule, t: Tensor, x: Tensor, clean: Tensor | None) -> _Levels:
    t = t.clamp(min=1)
    return _Levels(t, *at_level(schedule, t, x), time_of(schedule, t, x.dtype), clean)


@lru_cache(maxsize=64)
def _tables(schedule: Schedule, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Cast before the move: some devices have no float64.
    return schedule.signal.to(dtype).to(device), schedule.noise.to(dtype).to(device)


def _expand(per_image: Tensor, ndim: int) -> Tensor:
    return per_image.reshape(-1, *[1] * (ndim - 1))
