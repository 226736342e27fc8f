"""How distances are written down: those of small features are shown larger, or all would be 0.0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """By what an extractor's distances are multiplied wherever they are shown."""

    column: str  # of its Fréchet distance, where it stands beside that of another extractor
    factor: int = 1  # of the Fréchet distance
    told: str = ""  # of that, after a comma
    kernel_factor: int = 1000
    kernel_told: str = "1000"

    def frechet(self, row: Mapping) -> float:
        """The Fréchet distance among an extractor's distances, as it is shown."""
        return self.factor * row["frechet"]

    def kernel(self, row: Mapping) -> tuple[float, float]:
        """The kernel distance among them and its standard error, as they are shown."""
        return self.kernel_factor * row["kid"], self.kernel_factor * row["kid_error"]


def scale_of(extractor: str) -> Scale:
    """The scale of an extractor's distances; wavelets are those of pictures in [0, 1]."""
    if extractor == "haar":
        return Scale("W-FD", 1000, ", ×1000", 10**6, "10⁶")
    return Scale(f"FD {extractor}")
