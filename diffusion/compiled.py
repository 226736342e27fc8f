"""A model compiled for this CPU by OpenVINO, which is used where it is installed.

Converting takes some seconds and happens once for each content of the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version as installed
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from diffusion import denoiser, group_norms, unet
from diffusion.cache import cache_dir
from diffusion.cpus import cpus
from diffusion.denoiser import at_level, level_of, to_x0
from diffusion.schedule import Schedule

if TYPE_CHECKING:
    import openvino

    from diffusion.model import DiffusionModel

THREADS = min(torch.get_num_threads(), cpus())  # of the CPU, whoever computes; see use_threads
LARGEST = 16  # images of one call; more are computed in turn
KEPT = 8  # converted networks that stay in the cache


def version() -> str | None:
    """The version of OpenVINO; None where it is not installed."""
    return installed("openvino") if importlib.util.find_spec("openvino") else None


def ready(model: DiffusionModel) -> bool:
    """Whether OpenVINO is here and these very weights were converted before."""
    try:
        return version() is not None and _file(model).is_file()
    except OSError:  # no room for a cache
        return False


def convert(model: DiffusionModel) -> Path:
    """Convert the weights now, unless that was done before, and return the file.

    Raises ValueError where OpenVINO is not installed.
    """
    if version() is None:
        raise ValueError("OpenVINO is not installed; run `pip install openvino`, or choose auto")
    file = _file(model)
    if not file.is_file():
        openvino = _openvino()
        x = torch.zeros(2, *model.shape)
        films = model.network.films(torch.zeros(2))
        signal, noise = at_level(model.schedule, torch.ones(2, dtype=torch.int64), x)
        example = (x, films, signal, noise)
        with warnings.catch_warnings():  # about sizes, which do not change
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            graph = openvino.convert_model(_Clean(model), example_input=example)
        graph.reshape({i: [-1, *one.shape[1:]] for i, one in enumerate(example)})
        group_norms.rewrite(graph)
        # Two files; the one that is looked for comes last.
        with tempfile.TemporaryDirectory(dir=file.parent) as work:
            made = Path(work, file.name)
            openvino.save_model(graph, made, compress_to_fp16=True)
            made.with_suffix(".bin").replace(file.with_suffix(".bin"))
            made.replace(file)
        _forget_old()
    return file


class OpenVino:
    """The clean image x0 that a model predicts, in float32, computed by OpenVINO on the CPU.

    Where the processor multiplies bfloat16, the network computes in it; elsewhere in float32.
    Called like a UNet; to the samplers it is a network that predicts x0. Torch would take several
    times as long for the way from the network's answer to x0, its code being out of the caches.

    Batches are cut into powers of two, each compiled when it is first needed: a network of fixed
    size is a quarter faster than one for any size, and no image is computed for nothing.
    """

    def __init__(self, model: DiffusionModel, films: Callable[[Tensor, Tensor | None], Tensor]):
        self._films, self._schedule = films, model.schedule
        self._openvino = _openvino()
        self._core = self._openvino.Core()
        self._graph = self._core.read_model(convert(model))
        self._requests: dict[int, openvino.InferRequest] = {}
        self._lock = threading.Lock()

    def __call__(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """x0 like x (B, C, H, W); time and labels as a UNet has them."""
        compute_without_torch()
        films = self._films(time, labels).expand(len(x), -1)
        signal, noise = _at_times(self._schedule, tuple(time.tolist()))
        given = [np.ascontiguousarray(one) for one in (x.float(), films, signal, noise)]
        x0 = torch.empty(x.shape)
        with self._lock:
            for rows in parts(len(x)):
                self._infer([one[rows] for one in given], x0.numpy()[rows])
        return x0

    def _infer(self, given: list[np.ndarray], x0: np.ndarray) -> None:
        request = self._request(given)
        request.set_output_tensor(self._openvino.Tensor(x0, shared_memory=True))
        request.infer(given, share_inputs=True, share_outputs=True)

    def _request(self, given: list[np.ndarray]) -> openvino.InferRequest:
        images = len(given[0])
        if images not in self._requests:
            graph = self._graph.clone()
            graph.reshape({i: list(one.shape) for i, one in enumerate(given)})
            settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
            if "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                settings["INFERENCE_PRECISION_HINT"] = "bf16"
            compiled = self._core.compile_model(graph, "CPU", settings)
            self._requests[images] = compiled.create_infer_request()
        return self._requests[images]


def _openvino() -> ModuleType:
    """The package, kept from reporting to its makers how it is used, which it does unasked."""
    sys.modules.setdefault("openvino_telemetry", None)  # as if that part were not installed
    import openvino

    return openvino


class _Clean(nn.Module):
    """The part of a model that is converted, as a module: from x and its films to x0."""

    def __init__(self, model: DiffusionModel):
        super().__init__()
        self.network, self.prediction = model.network, model.prediction

    def forward(self, x: Tensor, films: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        return to_x0(self.prediction, self.network.body(x, films), x, signal, noise)


@lru_cache(maxsize=2048)  # the levels of a sampler come again
def _at_times(schedule: Schedule, times: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    like_x = torch.empty([0] * 4)
    return at_level(schedule, level_of(schedule, torch.tensor(times)), like_x)


def use_threads(count: int) -> None:
    """Compute with so many threads of the CPU from now on.

    `torch.set_num_threads` alone lasts until a network is computed, which sets THREADS.
    """
    global THREADS
    THREADS = count
    torch.set_num_threads(count)


def compute_without_torch() -> None:
    """Leave the cores to OpenVINO: torch's own threads would spin beside it after every sum."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def compute_with_torch() -> None:
    """Give torch its threads back, at a program's start no more than there are processors for."""
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)


def parts(images: int) -> list[slice]:
    """Rows 0 to `images` in as few parts as powers of two up to LARGEST make."""
    rows, first = [], 0
    while first < images:
        part = min(1 << ((images - first).bit_length() - 1), LARGEST)
        rows.append(slice(first, first + part))
        first += part
    return rows


def _file(model: DiffusionModel) -> Path:
    return cache_dir("openvino") / f"{_content(model)}.xml"


def _content(model: DiffusionModel) -> str:
    """A hash of the weights, of the code that makes a graph of them, and of OpenVINO."""
    modules = (unet, denoiser, group_norms, sys.modules[__name__])
    code = "".join(inspect.getsource(module) for module in modules)
    about = f"{code} {version()} {model.network.config} {model.prediction}"
    known = hashlib.sha256(about.encode())
    for name, weight in sorted(model.network.state_dict().items()):
        known.update(name.encode())
        known.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return known.hexdigest()[:16]


def _forget_old() -> None:
    files = sorted(cache_dir("openvino").glob("*.xml"), key=lambda file: file.stat().st_mtime)
    for file in files[:-KEPT]:
        with contextlib.suppress(OSError):  # on Windows, while some process computes with it
            file.with_suffix(".bin").unlink(missing_ok=True)
            file.unlink(missing_ok=True)
