"""What computes a model's network when pictures are drawn: the fastest way this machine has.

A model carries its way with it (`DiffusionModel.compute`), so the loop, the engine, the command
line and the page compute one model in one way. Training never comes here: every way below is of
weights that do not change any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diffusion import compiled
from diffusion.cache import cache_dir
from diffusion.denoiser import Network
from diffusion.device import apart, training_precision
from diffusion.files import read_text, write_json
from diffusion.model import DiffusionModel
from diffusion.processes import give_way, python
from diffusion.unet import UNet

BACKENDS = ("auto", "openvino", "bfloat16", "float16", "float32")
LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}
TRIAL = 4  # images of the batch with which two ways are compared
# A near tie is OpenVINO's: when other programs use the cores too, its threads take over each
# other's work, and torch's wait for each other.
NEAR = 1.3
MEMO = 4096  # films that are kept
PATIENCE = 120.0  # seconds after which a conversion is given up

log = logging.getLogger(__name__)


def accelerated(model: DiffusionModel, backend: str = "auto") -> DiffusionModel:
    """The model, its network computed in the way that `backend` names.

    "auto" takes what measured fastest on this machine among what is ready: OpenVINO counts only
    when these weights were converted before (`compiled.convert`). Asked for by name, it converts
    them now, in some seconds. Raises ValueError when this machine cannot do what was asked.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    return apart(_accelerated, model, backend)


def _accelerated(model: DiffusionModel, backend: str) -> DiffusionModel:
    if backend != "auto":
        answers = "x0" if backend == "openvino" else None
        return replace(model, compute=_way(model, backend), answers=answers, backend=backend)
    try:
        return _accelerated(model, fastest(model))
    except Exception:
        log.warning("the fastest backend cannot be used; torch computes", exc_info=True)
        return _accelerated(model, [name for name in ways(model) if name != "openvino"][-1])


def prepare(model: DiffusionModel, done: Callable[[DiffusionModel], None]) -> None:
    """Convert the model for OpenVINO in a process of its own, if that is still to be done.

    `done` then gets the model, accelerated anew, on another thread. Where OpenVINO is missing or
    fails nothing happens, apart from a word in the log: torch goes on computing.
    """
    if model.device.type != "cpu" or not compiled.version() or apart(compiled.ready, model):
        return

    def work() -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                command = python("-m", "diffusion.backends", folder)
                home = Path(__file__).parents[1]
                subprocess.run(
                    **command, cwd=home, check=True, capture_output=True, timeout=PATIENCE
                )
            done(accelerated(model))
        except Exception:
            log.warning("OpenVINO could not be used; torch computes instead", exc_info=True)

    threading.Thread(target=work, name="prepare", daemon=True).start()


def ways(model: DiffusionModel) -> list[str]:
    """The backends that would work for this model here and now, the plainest first."""
    device = model.device
    names = ["float32"]  # the plainest, which is always there
    if training_precision(device) == torch.bfloat16:
        names.append("bfloat16")
    elif device.type in ("cuda", "mps"):
        names.append("float16")
    if device.type == "cpu" and compiled.ready(model):
        names.append("openvino")
    return names


def fastest(model: DiffusionModel) -> str:
    """The backend that computes a batch soonest; measured once per machine and network shape."""
    names = ways(model)
    if model.device.type != "cpu":
        return names[-1]  # on a GPU half the bytes are always faster
    if len(names) == 1:
        return names[0]
    name = f"{_machine(model, names)}.json"
    try:
        remembered = json.loads(read_text(cache_dir("backends") / name))["fastest"]
    except (OSError, ValueError, KeyError, TypeError):
        remembered = None
    if remembered not in names:
        seconds = trial(model, names)
        remembered = min(seconds, key=seconds.get)
        if seconds.get("openvino", math.inf) <= NEAR * seconds[remembered]:
            remembered = "openvino"
        with contextlib.suppress(OSError):  # no room for a cache: the next start measures again
            write_json(cache_dir("backends") / name, {"fastest": remembered, "seconds": seconds})
    return remembered


@torch.no_grad()
def trial(model: DiffusionModel, names: list[str], rounds: int = 8) -> dict[str, float]:
    """Seconds of one call with TRIAL images in each way, measured in turns; the best of each."""
    x = torch.zeros(TRIAL, *model.shape, device=model.device)
    t = torch.full((TRIAL,), 500.0, device=model.device)
    computes = {name: _way(model, name) or model.network for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(1 + rounds):
        for name, compute in computes.items():
            start = time.perf_counter()
            compute(x, t)[0, 0, 0, 0].item()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(tries[1:]) for name, tries in seconds.items()}


def _way(model: DiffusionModel, backend: str) -> Network:
    network, device = model.network, model.device
    if backend == "openvino":
        if device.type != "cpu":
            raise ValueError(f"OpenVINO runs on the CPU, not on {device.type}; choose auto")
        return compiled.OpenVino(model, Films(network))
    dtype = LOW.get(backend, torch.float32)
    if device.type == "cuda":
        from diffusion.graphs import Graphs

        return Graphs(_lowered(network, dtype))
    if device.type == "cpu":
        return Frozen(network, dtype)
    return _lowered(network, dtype)


class Frozen:
    """A network whose weights stay: its films are kept, its body computes in `dtype`."""

    def __init__(self, network: UNet, dtype: torch.dtype):
        self._films = Films(network)
        self._body = _lowered(network, dtype).body

    def __call__(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """See UNet."""
        compiled.compute_with_torch()
        return self._body(x, self._films(time, labels))


class Films:
    """What time and labels say to a network, computed once for each that is asked for.

    Row by row, so that the numbers do not depend on the company.
    """

    def __init__(self, network: UNet):
        self._network = network
        self._kept: OrderedDict[tuple, Tensor] = OrderedDict()

    def __call__(self, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """The `films` of a UNet, (B, F), or (1, F) where all images have the same."""
        asked = [None] * len(time) if labels is None else map(tuple, labels.tolist())
        keys = list(zip(time.tolist(), asked, strict=True))
        if len(set(keys)) == 1:
            return self._film(keys[0])
        return torch.cat([self._film(key) for key in keys])

    @torch.no_grad()
    def _film(self, key: tuple) -> Tensor:
        film = self._kept.get(key)
        if film is None:
            time, labels = key
            label_row = None if labels is None else torch.tensor([labels])
            film = self._network.films(torch.tensor([time]), label_row)
            self._kept[key] = film
            if len(self._kept) > MEMO:
                self._kept.popitem(last=False)
        return film


def _lowered(network: UNet, dtype: torch.dtype) -> UNet:
    return network if dtype == torch.float32 else deepcopy(network).to(dtype)


def _machine(model: DiffusionModel, names: list[str]) -> str:
    """Changes with whatever may change which way is fastest."""
    about = [
        _processor(),
        compiled.THREADS,
        torch.__version__,
        compiled.version(),
        model.network.config.to_json(),
        names,
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    parts = ("model name", "flags", "features")
    return "\n".join(sorted({line for line in lines if line.lower().startswith(parts)}))


if __name__ == "__main__":  # the process of `prepare`
    give_way(10)  # whoever waits for pictures goes first
    loaded = DiffusionModel.from_pretrained(sys.argv[1])
    compiled.convert(loaded)
    fastest(loaded)
