"""The models that stay in memory; the one that was not asked for the longest leaves first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import torch

from diffusion.model import WEIGHTS, DiffusionModel

LIMIT = 2**30  # bytes of weights


@dataclass(frozen=True)
class Resident:
    """A model, and which version of its weights this is."""

    model: DiffusionModel
    version: Hashable

    @property
    def nbytes(self) -> int:
        """Memory held by the weights."""
        return sum(p.numel() * p.element_size() for p in self.model.network.parameters())


class Residents:
    """Models by name, loaded when first asked for, and again when their weights have changed."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        limit: int = LIMIT,
        load: Callable[..., DiffusionModel] = DiffusionModel.from_pretrained,
    ):
        self.device, self._limit, self._load = device, limit, load
        self._here: OrderedDict[str, Resident] = OrderedDict()
        self._kept: dict[str, Resident] = {}
        self._lock = threading.Lock()

    def keep(self, name: str, model: DiffusionModel, version: Hashable = "kept") -> None:
        """Hold a model under a name for good; it does not count against the limit."""
        self._kept[name] = Resident(model, version)

    def get(self, name: str) -> Resident:
        """The model of that name; raises ModelError when there is none.

        Loading takes a while, and others who ask wait for it: one copy is enough.
        """
        if name in self._kept:
            return self._kept[name]
        with self._lock:
            version = _version(name)
            resident = self._here.get(name)
            if resident is None or resident.version != version:
                resident = Resident(self._load(name, self.device), version)
                self._here[name] = resident
            self._here.move_to_end(name)
            while len(self._here) > 1 and self._held() > self._limit:
                self._here.popitem(last=False)
            return resident

    def __contains__(self, name: str) -> bool:
        return name in self._kept or name in self._here

    def _held(self) -> int:
        return sum(resident.nbytes for resident in self._here.values())


def _version(name: str) -> Hashable:
    """Changes when a training writes new weights into the folder; None for the Hub."""
    try:
        about = (Path(name) / WEIGHTS).stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size
