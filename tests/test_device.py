"""What devices say of themselves."""

from __future__ import annotations

import pytest
import torch
import typer

from diffusion.cli.problem import one_sentence
from diffusion.device import out_of_memory

MPS = (
    "MPS backend out of memory (MPS allocated: 17.95 GB, other allocations: 6.6 MB, max allowed: "
    "18.13 GB). Tried to allocate 256.00 MB on private pool."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError(MPS), True),
        (RuntimeError(CPU), True),
        (RuntimeError("Invalid buffer size: 29.80 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("a folder called out of memory"), False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_full_memory_is_known_whichever_device_it_is_of(error, full):
    assert out_of_memory(error) is full


def test_this_machines_own_allocator_is_understood():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**52)
    assert out_of_memory(error.value)


@pytest.mark.parametrize("error", [RuntimeError(MPS), MemoryError()], ids=["mps", "python"])
def test_a_command_without_memory_says_what_to_do_in_one_sentence(error, capsys):
    with pytest.raises(typer.Exit), one_sentence():
        raise error
    assert "the device's memory is full; choose a smaller --batch." in capsys.readouterr().err
