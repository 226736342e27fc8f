"""A network's weights in one piece of memory.

What an optimizer does, it does to each number alike: over one tensor it is one pass through
memory, over a hundred small ones a hundred calls that take longer to begin than to end.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def flatten(network: nn.Module) -> Tensor:
    """Move the parameters into one new tensor (n,), of which they become parts.

    They keep their values, shapes and memory formats. Moving the network to another device or
    number format afterwards would part them again.
    """
    parameters = list(network.parameters())
    flat = joined(parameter.data for parameter in parameters)
    for parameter, part in zip(parameters, parts(flat, parameters), strict=True):
        parameter.data = part
    return flat


def joined(tensors: Iterable[Tensor]) -> Tensor:
    """Copies of dense tensors one after the other (n,), each in the order of its memory."""
    return torch.cat([tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors])


def parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The way back: `flat` (n,) cut into views with the shapes and memory formats of `like`."""
    pieces = flat.split([tensor.numel() for tensor in like])
    return [
        piece.as_strided(tensor.shape, tensor.stride())
        for piece, tensor in zip(pieces, like, strict=True)
    ]


def take_gradients(parameters: Sequence[nn.Parameter], into: Sequence[Tensor]) -> None:
    """Move the parameters' gradients into parts of a flat one; where there is none, zeros."""
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in parameters
    ]
    torch._foreach_copy_(list(into), gradients)  # on a GPU, one call for all
    for parameter in parameters:
        parameter.grad = None


def clip_norm_(gradient: Tensor, most: float) -> None:
    """Scale a gradient in place so that its norm is at most that; one that is NaN stays NaN."""
    norm = torch.linalg.vector_norm(gradient)
    # On a CPU even a factor of 1 takes its time; a GPU would have to be waited for to know it.
    if gradient.device.type != "cpu" or not norm <= most:
        gradient.mul_((most / norm).clamp(max=1))


class NarrowCopy:
    """A network in a narrower number format that computes with another's flat weights.

    Those are the master weights, which small steps still move (arXiv 1710.03740 section 3.1).
    One copy per step takes less time than autocast, which copies each weight there and each
    gradient back.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        self.network = copy.deepcopy(network).to(dtype)
        self._weights = flatten(self.network)

    @classmethod
    def of(cls, network: nn.Module, dtype: torch.dtype) -> NarrowCopy | None:
        """None where the network is in that format itself."""
        same = all(parameter.dtype == dtype for parameter in network.parameters())
        return None if same else cls(network, dtype)

    def following(self, weights: Tensor) -> nn.Module:
        """The copy, with flat master weights (n,) as they are now."""
        self._weights.copy_(weights.detach())
        return self.network
