"""Which device and which number format the network runs in."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
DEVICES = ("auto", "cpu", "cuda", "mps")
MEMORY_FULL = "the device's memory is full; choose a smaller --batch"
# What errors say, in small letters, that are RuntimeErrors like any other: MPS's, the CPU's, and
# those of CUDA's libraries.
NO_MEMORY = ("out of memory", "defaultcpuallocator", "invalid buffer size", "alloc_failed")


def pick_device(name: str = "auto") -> torch.device:
    """The torch device for a name of DEVICES; "auto" takes the fastest that is present.

    Raises ValueError when the device asked for is not there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if name not in present:
        raise ValueError(f"unknown device {name!r}; choose one of {', '.join(DEVICES)}")
    if not present[name]:
        raise ValueError(f"no {name} device on this machine; choose auto or cpu")
    return torch.device(name)


def training_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # Without these instructions bfloat16 is emulated, ten times slower than float32.
        native = any(
            getattr(torch.cpu, probe, lambda: False)()
            for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def precision_name(device: torch.device) -> str:
    """`training_precision` as a TrainConfig names it: "bfloat16" or "float32"."""
    return str(training_precision(device)).removeprefix("torch.")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in NO_MEMORY)


def keep_memory() -> None:
    """Have this process keep the memory that it frees, for its next step; for programs' starts.

    A network frees and asks for the same megabytes at every step. glibc hands them back to the
    system each time, and getting them again costs a fault for every page.
    Elsewhere than on Linux with glibc nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest that it takes
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def apart(work: Callable[..., Result], *arguments: object) -> Result:
    """Do some torch work on a thread that ends with it, and return what it returns.

    OpenMP keeps a team of threads for every thread that ever computed. As soon as two such teams
    are more than the cores, their members sleep where they would have spun, and every small
    network runs at half its speed: a process should have one thread that computes.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *arguments).result()
