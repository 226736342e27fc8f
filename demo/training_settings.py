"""What a visitor asks of a training: read from the form of Train, or from the raw API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from demo import wording_train as wording
from demo.numbers import read_number, read_whole
from demo.recorded import MODEL
from demo.trainings import Refused, Rules
from demo.uploads import SIZE
from diffusion.cartoons import FIRST, STYLES
from diffusion.cpus import cpus
from diffusion.device import pick_device, precision_name
from diffusion.model import DiffusionModel, ModelError
from diffusion.train_config import FINE_TUNING, PRESETS, TrainConfig, settings_of, shape_of

OWN = "own"  # pictures, in place of a style
SHIPPED = "shipped"  # what a run may begin with
SIZES = (32, 64)
NETWORKS = ("tiny", "small")  # the first unless another is asked for
LEAST_MINUTES = 0.5
MOST_BATCH, MOST_SEED = 512, 2**31


@dataclass(frozen=True)
class Asked:
    """One press of Train, as far as the machine's speed does not decide it."""

    style: str  # of STYLES, or OWN
    config: TrainConfig  # with a budget of one image
    probe: tuple[str, ...]  # options of `python -m diffusion probe` that measure such a run
    minutes: float
    network: str  # of NETWORKS; "" where the run begins with the shipped model


def read_training(wish: Mapping, rules: Rules, device: str) -> Asked:
    """Check every field of the form; one that is left empty has its default.

    `device` is what will train, a name of `diffusion.device.DEVICES`. Raises Refused.
    """
    style = _one_of("Pictures", wish.get("pictures"), (*STYLES, OWN))
    minutes = read_minutes(wish, rules)
    network, settings, probe = _beginning(wish)
    settings["seed"] = _whole("Seed", wish.get("seed"), 0, MOST_SEED) or 0
    if batch := _whole("Batch", wish.get("batch"), 1, MOST_BATCH):
        settings["batch"] = batch
        probe += ("--batch", str(batch))
    if rate := _rate(wish.get("rate")):
        settings["lr"] = rate
    if style != OWN:
        settings["pool"] = FIRST
    config = TrainConfig(
        images=1,
        flip=wish.get("flip") is True,
        precision=precision_name(pick_device(device)),
        threads=cpus(),
        **settings,
    )
    if style == OWN and config.size > SIZE:
        raise _refused("Size", config.size, f"at most {SIZE}")
    return Asked(style, config, probe, minutes, network)


def read_minutes(wish: Mapping, rules: Rules) -> float:
    """For how long a run may train; raises Refused."""
    minutes = read_number(wish.get("minutes"))
    if minutes is None or not LEAST_MINUTES <= minutes <= rules.most_minutes:
        raise Refused(wording.minutes_refused(wish.get("minutes"), rules.most_minutes))
    return minutes


def read_owner(wish: Mapping) -> str:
    """What a browser calls itself; raises Refused when it is too short to be a secret."""
    owner = wish.get("owner")
    if not isinstance(owner, str) or not 16 <= len(owner) <= 200:
        raise Refused(wording.NOT_YOURS)
    return owner


def read_uploaded(path: object) -> Path:
    """A file that was uploaded here, by its path or only the end of it that is in the folder.

    Raises Refused for any other path, and for a file that has been swept away.
    """
    inside = Path(get_upload_folder()).resolve()
    found = inside / path if isinstance(path, str) else inside
    if found.is_symlink() or inside not in found.resolve().parents:
        raise Refused(wording.NO_PICTURES)
    if not found.exists():
        raise Refused(wording.SENT_GONE)
    if not found.is_file():
        raise Refused(wording.NO_PICTURES)
    return found.resolve()


def defaults(name: str) -> dict[str, Any]:
    """The setting of that name in a TrainConfig, of each of NETWORKS and of SHIPPED."""
    settings = {network: PRESETS[network] for network in NETWORKS}
    settings[SHIPPED] = {**settings[NETWORKS[0]], **FINE_TUNING}
    return {
        begin: getattr(TrainConfig(images=1, **given), name) for begin, given in settings.items()
    }


def _beginning(wish: Mapping) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """The network's name, the settings that come with it, and options of the probe."""
    if wish.get("begin") == SHIPPED:
        settings = settings_of(NETWORKS[0], str(MODEL), _shape_of_shipped())
        return "", settings, ("--from", str(MODEL))
    network = _one_of("Network", wish.get("network", NETWORKS[0]), NETWORKS)
    given = wish.get("size", SIZES[0])
    size = read_whole(given)
    if size not in SIZES:
        raise _refused("Size", given, _either(SIZES))
    settings = settings_of(network, size=size)
    return network, settings, ("--preset", network, "--size", str(size))


@cache
def _shape_of_shipped() -> Mapping[str, Any]:
    try:
        return shape_of(DiffusionModel.from_pretrained(MODEL))
    except ModelError:
        raise Refused(wording.SHIPPED_GONE) from None


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _refused(name, value, _either(choices))
    return str(value)


def _whole(name: str, value: object, low: int, high: int) -> int | None:
    """A whole number, None where nothing is filled in."""
    if _is_empty(value):
        return None
    number = read_whole(value)
    if number is None or not low <= number <= high:
        raise _refused(name, value, f"a whole number from {low} to {high}")
    return number


def _rate(value: object) -> float | None:
    """A learning rate, None where nothing is filled in."""
    if _is_empty(value):
        return None
    rate = read_number(value)
    if rate is None or not 1e-6 <= rate <= 0.1:
        raise _refused("Learning rate", value, "0.000001 to 0.1")
    return rate


def _is_empty(value: object) -> bool:
    return value is None or not str(value).strip()


def _either(choices: tuple) -> str:
    return " or ".join(map(str, choices))


def _refused(name: str, value: object, choices: str) -> Refused:
    return Refused(wording.setting_refused(name, value, choices))
