"""What measured rows say: whether they have the shape of Table 1 of the DDIM paper.

The paper's distances are those of other pictures and features; what carries over is which
setting is better than which. Every sentence here is computed from the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from diffusion.scales import scale_of

SAME = "KID is the same within its error"
FEW = 20  # steps: at so many or fewer, the large variance is by far the worst of the table
CORRECTS = (
    "Fresh noise also corrects what the network got wrong in earlier steps (arXiv 2206.00364 "
    "section 4), which can outweigh what it costs."
)
SHORT, LONG, WITHIN = 20, 100, 0.25  # DDIM keeps its quality from LONG steps down to SHORT


@dataclass(frozen=True)
class Cell:
    """One distance of the table."""

    sampler: str  # with what it was set to, as in the table
    eta: float | None  # of DDIM, and of DDPM small, which is DDIM with η 1
    steps: int
    distance: float  # squared Fréchet distance, as the table shows it
    kernel: float  # distance, which unlike Fréchet's has an error
    error: float  # of the kernel distance, one standard error

    def is_like(self, other: Cell) -> bool:
        """Whether the kernel distance sees no difference, its errors taken as independent.

        Both are to the same real pictures, so that the difference may be known better than that.
        """
        return abs(self.kernel - other.kernel) <= math.hypot(self.error, other.error)

    def like(self, other: Cell) -> str:
        """A remark where the kernel distance sees no difference."""
        return f" ({SAME})" if self.is_like(other) else ""

    def __str__(self) -> str:
        return f"{self.sampler} has {self.distance:.1f}"


@dataclass(frozen=True)
class Finding:
    """A claim, at which steps it was looked at, what contradicts it, and how that may come.

    Where it holds, it may be too close at some steps for the kernel distance to see it.
    """

    claim: str
    steps: Sequence[int]
    against: Sequence[str]
    why: str = ""
    close: Sequence[int] = ()  # steps

    def __str__(self) -> str:
        if not self.steps:
            return f"{self.claim}: not measured."
        if self.against:
            against = f"{self.claim}: does not hold. At {'; at '.join(self.against)}."
            return f"{against} {self.why}".rstrip()
        close = f"; at S = {_listed(self.close)} {SAME}" if self.close else ""
        return f"{self.claim}: holds (S = {_listed(self.steps)}){close}."


def table_one(rows: Iterable[Mapping], extractor: str) -> list[Finding]:
    """What DDIM's Table 1 shows, looked for in one model's rows of pictures drawn at random.

    Guided rows and those of other spacings or finishes are passed over; no findings when none is
    left.
    """
    scale = scale_of(extractor)
    cells = [
        Cell(
            sampler_of(row),
            _eta(row),
            row["steps"],
            scale.frechet(row["distances"][extractor]),
            *scale.kernel(row["distances"][extractor]),
        )
        for row in rows
        if not row["guidance"] and row["spacing"] == "uniform" and "finish" not in row
    ]
    if not cells:
        return []
    cells.sort(key=lambda cell: cell.steps)
    return [_falls(cells), _rises(cells), _large_is_worst(cells), _few_are_enough(cells)]


def _eta(row: Mapping) -> float | None:
    if row["sampler"] == "ddpm" and row["variance"] == "small":
        return 1.0  # arXiv 2010.02502 section 4.1
    return row["eta"] if row["sampler"] == "ddim" else None


def sampler_of(row: Mapping) -> str:
    """A row's sampler with what it was set to, in a few words."""
    names = {"ddim": f"DDIM η {row['eta']:g}", "ddpm": f"DDPM {row['variance']}"}
    name = names.get(row["sampler"], "DPM-Solver++(2M)")
    return f"{name}, {row['finish']}" if "finish" in row else name


def manner(row: Mapping) -> str:
    """How guidance acts in a row: where, and with which eps; "" where there is none."""
    if row["guidance"] in (0, 1):
        return ""
    low, high = row["interval"]
    where = "" if (low, high) == (0, 1) else f"t/T {low:g} to {high:g}"
    return ", ".join(filter(None, [where, "" if row["rederive"] else "raw eps"])) or "everywhere"


def _falls(cells: Sequence[Cell]) -> Finding:
    against, seen, samplers = [], set(), set()
    for sampler in dict.fromkeys(cell.sampler for cell in cells):
        for fewer, more in pairwise(cell for cell in cells if cell.sampler == sampler):
            seen |= {fewer.steps, more.steps}
            samplers.add(sampler)
            if more.distance >= fewer.distance:
                against.append(
                    f"S = {more.steps} {more}, at S = {fewer.steps} only {fewer.distance:.1f}"
                    f"{more.like(fewer)}"
                )
    whose = samplers.pop() if len(samplers) == 1 else "every sampler"
    return Finding(f"FD falls as S grows, for {whose}", sorted(seen), against)


def _rises(cells: Sequence[Cell]) -> Finding:
    against, seen = [], []
    for steps, row in _by_steps(cell for cell in cells if cell.eta is not None):
        ordered = sorted({cell.eta: cell for cell in row}.values(), key=lambda cell: cell.eta)
        if len(ordered) > 1:
            seen.append(steps)
        against += [
            f"S = {steps} {less} and {more}{more.like(less)}"
            for less, more in pairwise(ordered)
            if more.distance <= less.distance
        ]
    return Finding("FD rises with η at equal S", seen, against, CORRECTS)


def _large_is_worst(cells: Sequence[Cell]) -> Finding:
    against, seen, close = [], [], []
    for steps, row in _by_steps(cell for cell in cells if cell.steps <= FEW):
        large = next((cell for cell in row if cell.sampler == "DDPM large"), None)
        others = [cell for cell in row if cell is not large]
        if large and others:
            seen.append(steps)
            worst = max(others, key=lambda cell: cell.distance)
            if worst.distance >= large.distance:
                against.append(f"S = {steps} {large} and {worst}{large.like(worst)}")
            elif large.is_like(worst):
                close.append(steps)
    claim = f"The large variance is the worst at few steps (S ≤ {FEW})"
    return Finding(claim, seen, against, close=close)


def _few_are_enough(cells: Sequence[Cell]) -> Finding:
    claim = f"DDIM with {SHORT} steps is within {100 * WITHIN:g} % of DDIM with {LONG}"
    found = {cell.steps: cell.distance for cell in cells if cell.eta == 0}
    if not {SHORT, LONG} <= found.keys():
        return Finding(claim, (), ())
    excess = found[SHORT] / found[LONG] - 1
    told = f"S = {SHORT} it has {found[SHORT]:.1f}, at S = {LONG} {found[LONG]:.1f}"
    against = [told] if excess > WITHIN else []
    return Finding(f"{claim} ({100 * excess:+.0f} %)".replace("-", "−"), (SHORT, LONG), against)


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))


def _by_steps(cells: Iterable[Cell]) -> Iterable[tuple[int, list[Cell]]]:
    for steps, row in groupby(cells, key=lambda cell: cell.steps):
        yield steps, list(row)
