"""What decides a training run, as a value, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from diffusion.data import Images
from diffusion.denoiser import check_prediction, output_channels
from diffusion.model import DiffusionModel, ModelError, value_names
from diffusion.noise import check_seed
from diffusion.schedule import Schedule
from diffusion.sources import Source
from diffusion.unet import UNetConfig

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights, given the pictures, the machine and its threads."""

    images: int  # the budget: pictures seen, counting repeats
    size: int = 64  # pixels per side
    widths: tuple[int, ...] = (32, 64, 128, 256)  # of the UNet
    blocks: int = 1  # of the UNet, per resolution
    schedule: str = "cosine"  # or "linear"
    T: int = 1000  # levels
    prediction: str = "v"  # or "eps", "x0", "dual"
    min_snr: float | None = None  # gamma of min-SNR weighting (arXiv 2303.09556); None: off
    # The least SNR that weighs x0's error (truncated SNR, arXiv 2202.00512 section 4); None: off
    snr_floor: float | None = None
    batch: int = 32
    lr: float = 6e-4  # AdamW, betas (0.9, 0.99)
    weight_decay: float = 0.01
    warmup: int = 200  # steps; at most a tenth of the run
    clip_norm: float = 1.0  # gradient norm
    ema: float = 0.999  # decay of the weight average, less at the start
    more_emas: tuple[float, ...] = ()  # decays of further averages, kept beside it to compare
    flip: bool = False  # mirror half of the pictures
    held_out: int = 0  # pictures never trained on, by the order of their names' SHA-256
    precision: str = "float32"  # or "bfloat16", in which the weights are kept in float32
    threads: int = 1  # of the CPU
    seed: int = 0
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # values' names
    labels_file: str = ""  # where the pictures' labels are; built-in pictures bring their own
    pool: int | None = None  # pictures chosen from at first; each one seen adds one. None: all
    start: str = ""  # the model whose weights it begins with; none: from nothing
    seen_before: int = 0  # pictures that the model it begins with has seen
    learned_before: tuple[Source, ...] = ()  # where those came from, as far as it is known
    # The fewest held out of the same pictures by the models before, by the pictures' key.
    held_out_before: Mapping[str, int] = field(default_factory=dict)
    held_out_marks: tuple[str, ...] = ()  # what those held out, as far as they note it; see Images
    halved: tuple[int, ...] = ()  # steps from which on the learning rate is half of what it was
    # (step, images) of every extension that came while the rate was falling, or afterwards: the
    # step it came at, and the budget until then.
    extended: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "more_emas", tuple(self.more_emas))
        object.__setattr__(self, "halved", tuple(self.halved))
        object.__setattr__(self, "extended", tuple((step, old) for step, old in self.extended))
        object.__setattr__(self, "learned_before", _sources(self.learned_before))
        object.__setattr__(self, "held_out_before", _counts(self.held_out_before))
        object.__setattr__(self, "held_out_marks", tuple(self.held_out_marks))
        object.__setattr__(self, "labels", value_names(self.labels))
        check_prediction(self.prediction)
        _ = self.network  # refuses absurd sizes
        make_schedule(self.schedule, self.T)
        check_seed(self.seed)
        if self.images < 1 or self.batch < 1:
            raise ValueError("a run needs at least one image and a batch of at least one")
        if self.threads < 1:
            raise ValueError(f"{self.threads} threads cannot train; choose 1 or more")
        if self.held_out < 0:
            raise ValueError(f"{self.held_out} pictures held out; choose 0 or more")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; choose float32 or bfloat16")
        decays = (self.ema, *self.more_emas)
        if not 0 < self.lr < 1 or any(not 0 <= decay < 1 for decay in decays):
            raise ValueError("the learning rate lies in (0, 1) and the EMA decay in [0, 1)")
        if len(set(decays)) < len(decays):
            raise ValueError("two averages with the same decay; give each another")
        if self.pool is not None and self.pool < 1:
            raise ValueError("a run chooses from at least one picture")
        if self.min_snr is not None and self.min_snr <= 0:
            raise ValueError("min-SNR's gamma is positive; 5 is usual")
        if self.snr_floor is not None and not 0 < self.snr_floor <= (self.min_snr or math.inf):
            raise ValueError("the SNR's floor is positive, and at most min-SNR's gamma; 1 is usual")
        if self.snr_floor is not None and self.prediction == "eps":
            raise ValueError(
                "an SNR's floor outweighs everything when eps is predicted; leave it out, or "
                "predict v, x0 or dual"
            )

    @property
    def network(self) -> UNetConfig:
        """The shape of the network."""
        outputs = output_channels(self.prediction, 3)
        return UNetConfig(
            size=self.size,
            widths=self.widths,
            blocks=self.blocks,
            labels=tuple(len(names) for names in self.labels.values()),
            out_channels=None if outputs == 3 else outputs,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps in the budget."""
        return self.steps_of(self.images)

    def steps_of(self, images: int) -> int:
        """Optimizer steps that see so many images."""
        return math.ceil(images / self.batch)

    def images_after(self, steps: int) -> int:
        """Pictures that so many optimizer steps see; of the last one, the budget's rest counts."""
        return min(steps * self.batch, self.images)

    def extend(self, images: int, step: int) -> TrainConfig:
        """The same run, given so many images more when it has done so many steps."""
        extended = self.extended
        if _phase(self, step).falls(step):
            extended = (*extended, (step, self.images))
        return replace(self, images=self.images + images, extended=extended)

    def to_json(self) -> dict:
        """The settings as JSON types; `TrainConfig(**value)` is the way back."""
        return asdict(self)


PRESETS = {
    "tiny": {"size": 32, "widths": (48, 96, 192), "batch": 32, "lr": 1e-3, "ema": 0.998},
    "small": {"size": 64, "widths": (32, 64, 128, 256), "batch": 32},
    "base": {"size": 64, "widths": (64, 128, 192), "batch": 256, "lr": 1e-3, "ema": 0.9995},
}
AGAIN = 0.5  # of the learning rate, at the height of a phase that is added to a finished run
FINE_TUNING = {"lr": 5e-4, "ema": 0.995}  # what else differs when a run begins with a model


def settings_of(
    preset: str, start: str = "", shape: Mapping[str, Any] | None = None, **given: Any
) -> dict[str, Any]:
    """The settings of a run, as TrainConfig takes them: what is `given`, and a preset's.

    What is given as None counts as left out. Where a run begins with the model `start`, a folder or
    Hub name, that one decides its own shape, and FINE_TUNING comes before the preset; the model is
    loaded unless its `shape` is known (see `shape_of`). Raises ValueError for an unknown preset or
    for a shape that is another one's, and what `DiffusionModel.from_pretrained` raises.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose {', '.join(PRESETS)}")
    given = {key: value for key, value in given.items() if value is not None}
    if not start:
        return {**PRESETS[preset], **given}
    if shape is None:
        shape = shape_of(DiffusionModel.from_pretrained(start))
    differs = [key for key in shape if key in given and given[key] != shape[key]]
    if differs:
        raise ValueError(f"--from decides {', '.join(differs)}; leave it out")
    return {**PRESETS[preset], **FINE_TUNING, **given, **shape, "start": start}


def held_out_of(pictures: int) -> int:
    """How many of so many pictures a run keeps back where nobody says it."""
    return 1000 if pictures >= 5000 else 0


def make_schedule(kind: str, T: int) -> Schedule:
    """The schedule that a config names."""
    return Schedule.linear(T) if kind == "linear" else Schedule(kind, T)


def shape_of(model: DiffusionModel) -> dict:
    """The settings of a TrainConfig that begins with this model."""
    network = model.network.config
    return {
        "size": network.size,
        "widths": network.widths,
        "blocks": network.blocks,
        "prediction": model.prediction,
        "schedule": model.schedule.to_json()["kind"],
        "T": model.schedule.T,
        "seen_before": images_seen(model.training),
        "learned_before": learned_from(model.training),
        "held_out_before": fewest_held_out(model.training),
        "held_out_marks": marks_of(model.training),
    }


def images_seen(training: Mapping) -> int:
    """Pictures that a model has seen, counting repeats, by what it notes of its training.

    Those that the model it began with had seen are among them. Raises ModelError for notes that
    are none.
    """
    try:
        images = training.get("images", 0)
        if "step" in training:  # a model of a run that had not ended
            images = min(training["step"] * training["batch"], images)
        return int(images + training.get("seen_before", 0))
    except (KeyError, TypeError, ValueError):
        raise ModelError(
            "how many pictures the model has seen cannot be read; take another model"
        ) from None


def learned_from(training: Mapping) -> tuple[Source, ...]:
    """Where the pictures came from that a model learned from, by what it notes of its training.

    Those of the model it began with are among them, and come first.
    """
    own = training.get("source")
    before = _sources(training.get("learned_before", ()))
    return tuple(dict.fromkeys((*before, *_sources([own] if own else []))))


def fewest_held_out(training: Mapping) -> dict[str, int]:
    """The fewest pictures held out by a model and those before it, by the pictures' key.

    By what it notes of its training: the shipped models note no key, and nothing is known of them.
    """
    fewest = _counts(training.get("held_out_before", {}))
    if key := training.get("data_key"):
        own = training.get("held_out", 0)
        fewest[key] = min(own, fewest.get(key, own))
    return fewest


def marks_of(training: Mapping) -> tuple[str, ...]:
    """What a model and those before it held out, by what it notes of its training; see Images."""
    marks = [*_texts(training.get("held_out_marks", ())), training.get("held_out_mark", "")]
    return tuple(dict.fromkeys(filter(None, _texts(marks))))


def never_seen(training: Mapping, images: Images, usual: int = 0) -> int:
    """How many pictures, the last by their names' SHA-256, a model never saw.

    By what it notes of its training: how many it held out, `usual` where that is not told, and,
    from the first of them on, of which names. So it holds for a part of its pictures as well.
    """
    held_out = _counts({"": training.get("held_out", usual)})[""]
    (mark,) = _texts([training.get("held_out_mark", "")])
    return min(held_out, images.since(mark)) if mark else held_out


def check_held_out(config: TrainConfig, images: Images) -> None:
    """Raise ValueError when a model before has learned from pictures that a run holds out.

    Those are known by the key of all or, where that is another one, as of a folder that was packed
    or of which something was taken away, by the first that was held out. Models that note neither
    are let through.
    """
    fewest = min(
        config.held_out_before.get(images.key, config.held_out),
        *(images.since(mark) for mark in config.held_out_marks if images.has(mark)),
        config.held_out,
    )
    if fewest < config.held_out:
        raise ValueError(
            f"the model to begin with held out {fewest:,} of these pictures and has seen the "
            f"others, so {config.held_out:,} cannot be held out now; give --held-out {fewest}"
        )


def _counts(given: Mapping[str, int]) -> dict[str, int]:
    try:
        return {str(key): int(count) for key, count in given.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            "how many pictures the models before held out cannot be read; take another model"
        ) from None


def _texts(given: Sequence[str]) -> list[str]:
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
        raise ValueError("what the models before held out cannot be read; take another model")
    return list(given)


def _sources(given: Iterable[Source | Mapping]) -> tuple[Source, ...]:
    try:
        return tuple(one if isinstance(one, Source) else Source(**one) for one in given)
    except TypeError:
        raise ValueError(
            "where the model's pictures came from cannot be read; take another model"
        ) from None


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant to the half of the budget, then a half cosine down to zero.

    Images added before the rate falls count as if they had been there from the start. Those added
    later are a phase of their own, of the same shape: it goes on at the rate that was reached or,
    where that is less, rises to AGAIN of the full one.
    """
    halvings = sum(step >= since for since in config.halved)
    return config.lr * _phase(config, step).share(step) / 2**halvings


@dataclass(frozen=True)
class _Phase:
    """Steps in which the learning rate rises from low to high, stays, and falls to zero.

    low and high are shares of the full rate.
    """

    start: int
    steps: int
    warmup: int
    low: float = 0.0
    high: float = 1.0

    def share(self, step: int) -> float:
        """Of the full rate, at this step of the run."""
        done, warmup = step - self.start, max(min(self.warmup, self.steps // 10), 1)
        rise = self.low + (self.high - self.low) * min((done + 1) / warmup, 1.0)
        late = max(2 * done / self.steps - 1, 0.0)
        return rise * (1 + math.cos(math.pi * late)) / 2

    def falls(self, step: int) -> bool:
        """Whether the rate at this step of the run is less than the highest already."""
        return 2 * (step - self.start) > self.steps


def _phase(config: TrainConfig, step: int) -> _Phase:
    """The one that this step belongs to."""
    phase = _Phase(0, config.steps, config.warmup)
    for until, images in config.extended:
        ended = replace(phase, steps=config.steps_of(images) - phase.start)
        if step < until:
            return ended
        low = ended.share(until)
        phase = _Phase(until, config.steps - until, config.warmup, low, max(low, AGAIN))
    return phase
