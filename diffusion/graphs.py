"""The network on an NVIDIA GPU, recorded as CUDA graphs.

A small network spends its time in launching kernels; a graph launches all of them at once. It
holds for one number of images, so there are a few, and a batch is filled up to the next.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from diffusion.unet import UNet

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # images of a graph; larger batches run without one
WARM_UP = 3  # calls before recording, in which libraries choose their kernels


class Graphs:
    """A UNet on CUDA, called like the UNet; recorded when a size is first needed.

    The weights may have a lower number format, and should be channels-last.
    """

    def __init__(self, network: UNet):
        self._network = network
        self._graphs: dict[tuple[int, bool], _Recorded] = {}
        self._lock = threading.Lock()

    @torch.no_grad()
    def __call__(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """See UNet."""
        size = next((size for size in SIZES if size >= len(x)), None)
        if size is None:
            return self._network(x, time, labels)
        with self._lock:
            key = size, labels is not None
            if key not in self._graphs:
                self._graphs[key] = _Recorded(self._network, size, labels is not None)
            return self._graphs[key](x, time, labels)


class _Recorded:
    """One graph with the memory that it reads and writes."""

    def __init__(self, network: UNet, size: int, labelled: bool):
        device = next(network.parameters()).device
        with torch.cuda.device(device):  # graphs are recorded on the current one
            self._record(network, size, labelled, device)

    def _record(self, network: UNet, size: int, labelled: bool, device: torch.device) -> None:
        config = network.config
        self._x = torch.zeros(size, config.channels, config.size, config.size, device=device)
        self._time = torch.zeros(size, device=device)
        self._labels = None
        if labelled:
            self._labels = torch.full((size, len(config.labels)), -1, device=device)
        inputs = (self._x, self._time, self._labels)
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                network(*inputs)
        torch.cuda.current_stream(device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on using the device, so only this one's mistakes count.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._answer = network(*inputs)

    def __call__(self, x: Tensor, time: Tensor, labels: Tensor | None) -> Tensor:
        images = len(x)
        self._x[:images].copy_(x)
        self._time[:images].copy_(time)
        if self._labels is not None:
            self._labels[:images].copy_(labels)
        self._graph.replay()
        return self._answer[:images].clone()  # the next call writes over it
