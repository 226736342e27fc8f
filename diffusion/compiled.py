"""The network compiled for this CPU by OpenVINO, which is used where it is installed.

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
from importlib.metadata import version as installed
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from diffusion import unet
from diffusion.cache import cache_dir
from diffusion.unet import UNet

if TYPE_CHECKING:
    import openvino

THREADS = torch.get_num_threads()  # of the CPU, whoever computes; see use_threads
LARGEST = 16  # images of one call; more are computed in turn
KEPT = 8  # converted networks that stay in the cache


def version() -> str | None:
    """The version of OpenVINO; None where it is not installed."""
    return installed("openvino") if importlib.util.find_spec("openvino") else None


def ready(network: UNet) -> bool:
    """Whether OpenVINO is here and these very weights were converted before."""
    try:
        return version() is not None and _file(network).is_file()
    except OSError:  # no room for a cache
        return False


def convert(network: UNet) -> Path:
    """Convert the weights now, unless that was done before, and return the file.

    Raises ValueError where OpenVINO is not installed.
    """
    if version() is None:
        raise ValueError("OpenVINO is not installed; run `pip install openvino`, or choose auto")
    file = _file(network)
    if not file.is_file():
        openvino = _openvino()
        config = network.config
        x = torch.zeros(2, config.channels, config.size, config.size)
        films = network.films(torch.zeros(2))
        with warnings.catch_warnings():  # about sizes, which do not change
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            graph = openvino.convert_model(_Body(network), example_input=(x, films))
        # Two files; the one that is looked for comes last.
        with tempfile.TemporaryDirectory(dir=file.parent) as work:
            made = Path(work, file.name)
            openvino.save_model(graph, made, compress_to_fp16=True)
            made.with_suffix(".bin").replace(file.with_suffix(".bin"))
            made.replace(file)
        _forget_old()
    return file


class OpenVino:
    """A UNet whose body OpenVINO computes on the CPU; called like the UNet, in float32.

    Batches are cut into powers of two, each compiled when it is first needed: a network of fixed
    size is a quarter faster than one for any size, and no image is computed for nothing.
    """

    def __init__(self, network: UNet, films: Callable[[Tensor, Tensor | None], Tensor]):
        self._films = films
        self._openvino = _openvino()
        self._core = self._openvino.Core()
        self._graph = self._core.read_model(convert(network))
        config = network.config
        channels = config.out_channels or config.channels
        self._shape, self._answer = (
            (count, config.size, config.size) for count in (config.channels, channels)
        )
        self._requests: dict[int, openvino.InferRequest] = {}
        self._lock = threading.Lock()

    def __call__(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """See UNet."""
        compute_without_torch()
        films = self._films(time, labels).expand(len(x), -1).numpy()
        pictures = x.float().numpy()
        answer = torch.empty(len(x), *self._answer)
        with self._lock:
            for rows in parts(len(x)):
                self._infer(pictures[rows], films[rows], answer.numpy()[rows])
        return answer

    def _infer(self, x: np.ndarray, films: np.ndarray, answer: np.ndarray) -> None:
        request = self._request(len(x), films.shape[1])
        request.set_output_tensor(self._openvino.Tensor(answer, shared_memory=True))
        inputs = [np.ascontiguousarray(x), np.ascontiguousarray(films)]
        request.infer(inputs, share_inputs=True, share_outputs=True)

    def _request(self, images: int, film: int) -> openvino.InferRequest:
        if images not in self._requests:
            graph = self._graph.clone()
            graph.reshape({0: [images, *self._shape], 1: [images, film]})
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


class _Body(nn.Module):
    """The part of a UNet that is converted, as a module."""

    def __init__(self, network: UNet):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, films: Tensor) -> Tensor:
        return self.network.body(x, films)


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
    """Give torch its threads back."""
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


def _file(network: UNet) -> Path:
    return cache_dir("openvino") / f"{_content(network)}.xml"


def _content(network: UNet) -> str:
    """A hash of the weights, of the code that makes a network of them, and of OpenVINO."""
    known = hashlib.sha256(inspect.getsource(unet).encode())
    known.update(f"{version()} {network.config}".encode())
    for name, weight in sorted(network.state_dict().items()):
        known.update(name.encode())
        known.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return known.hexdigest()[:16]


def _forget_old() -> None:
    files = sorted(cache_dir("openvino").glob("*.xml"), key=lambda file: file.stat().st_mtime)
    for file in files[:-KEPT]:
        with contextlib.suppress(OSError):  # on Windows, while some process computes with it
            file.with_suffix(".bin").unlink(missing_ok=True)
            file.unlink(missing_ok=True)
