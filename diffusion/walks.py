"""One request on its way through its plan, image by image; and those that go in step."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion.ahead import Ahead, Drawers
from diffusion.denoiser import ANY
from diffusion.film import Film, first_still, still
from diffusion.finish import finished
from diffusion.noise import Noise, check_seed
from diffusion.recipe import Recipe, check_guidance
from diffusion.residents import Resident
from diffusion.samplers import Frame, Step, noise_levels
from diffusion.slots import Claim


@dataclass(frozen=True)
class Request:
    """Pictures asked for; equal requests have equal pictures, and are computed once.

    `labels` has one value per attribute of the model, -1 for "any", and holds for all images.
    A request with a name of its own in `alone` is computed anew, in batches without strangers.
    Raises ValueError for seeds and a guidance that cannot be used.
    """

    model: str
    seeds: tuple[int, ...]
    recipe: Recipe
    labels: tuple[int, ...] | None = None
    guidance: float = 1.0
    alone: str = ""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("no seeds given; give one for each picture")
        for seed in self.seeds:
            check_seed(seed)
        check_guidance(self.guidance)

    @property
    def rows(self) -> int:
        """Rows of a network's batch that one call takes for all images.

        Guidance needs two for each: what was asked for, and anything.
        """
        guided = self.asks and self.guidance not in (0, 1)
        return len(self.seeds) * (2 if guided else 1)

    @property
    def asks(self) -> bool:
        """Whether any attribute is asked for."""
        return bool(set(self.labels or ()) - {ANY})


class Walk:
    """The state of one request: x of all its images, and how far they have come."""

    def __init__(self, request: Request, resident: Resident, key: Hashable, drawers: Drawers):
        self.key = key
        self.request, self.model = request, resident.model
        self.plan = request.recipe.plan(self.model.schedule)
        self.film = Film(calls=len(self.plan))
        self.readers = 0
        self.calls = 0  # rows of the plan that all images have done
        self.labels = checked_labels(request.labels, self.model.labels)
        noise = Noise(request.seeds, self.model.shape, self.model.device)
        self._noise = Ahead(noise, noise_levels(self.plan), drawers)
        self._x: Tensor | None = None  # until the first call
        self._x0_previous: Tensor | None = None
        self._landed: list[tuple[Tensor, ...]] = []  # x, x0, eps of images that did this row
        self._begun = 0.0

    @property
    def images(self) -> int:
        """How many pictures are drawn."""
        return len(self.request.seeds)

    @property
    def done(self) -> bool:
        """Whether every row is done, or the walk has failed."""
        return self.calls == len(self.plan) or self.film.problem is not None

    @property
    def calls_left(self) -> int:
        """Rows that are still to do."""
        return 0 if self.done else len(self.plan) - self.calls

    @property
    def due(self) -> int:
        """Images that have the current row still before them."""
        return self.images - self._landed_images

    @property
    def _landed_images(self) -> int:
        return sum(len(x) for x, _, _ in self._landed)

    def begin(self) -> None:
        """Draw x_T, the first still."""
        self._x = self._noise(self.model.schedule.T)
        self.film.add(first_still(self.model.schedule.T, self._x))

    def take(self, images: int) -> Part:
        """The next images that have the current row before them."""
        first = self._landed_images
        if not (self.calls or first):
            self._begun = time.perf_counter()  # others may be served between `begin` and this
        rows = slice(first, first + images)
        previous = None if self._x0_previous is None else self._x0_previous[rows]
        return Part(self, self.plan[self.calls], rows, self._x[rows], previous)

    def noise(self, part: Part) -> Tensor:
        """z of the images of a part, for the level on which they land."""
        return self._noise(part.row.s)[part.rows]

    def land(self, x: Tensor, x0: Tensor, eps: Tensor) -> None:
        """The images that were taken have done their row."""
        self._landed.append((x, x0, eps))
        if self.due:
            return
        row = self.plan[self.calls]
        frame = self._frame(row)
        self._x, self._x0_previous = frame.x, frame.x0
        self._landed.clear()
        self.calls += 1
        if self.film.wants(self.calls):
            frame = finished(frame, self.request.recipe.finish)
            seconds = time.perf_counter() - self._begun
            self.film.add(still(self.calls, seconds, row, frame))

    def _frame(self, row: Step) -> Frame:
        x, x0, eps = (joined(tensors) for tensors in zip(*self._landed, strict=True))
        x0_previous = x0 if self._x0_previous is None else self._x0_previous
        return Frame(row.t, row.s, x, x0, eps, self._x, x0_previous)


@dataclass(frozen=True)
class Part:
    """Some images of a walk and the row that is next for them."""

    walk: Walk
    row: Step
    rows: slice
    x: Tensor
    x0_previous: Tensor | None  # None at the first row

    def __len__(self) -> int:
        return len(self.x)

    def cut(self, first: int, last: int) -> Part:
        """Images first to last of this part."""
        start = self.rows.start
        previous = None if self.x0_previous is None else self.x0_previous[first:last]
        rows = slice(start + first, start + last)
        return Part(self.walk, self.row, rows, self.x[first:last], previous)


@dataclass
class Group:
    """Walks of one visitor that keep step: none makes its next call before the others did."""

    walks: list[Walk]
    served: int = 0
    images: int = field(init=False)

    def __post_init__(self) -> None:
        self.images = sum(walk.images for walk in self.walks)

    @property
    def wanted(self) -> list[Walk]:
        """The walks that go on: not done, and somebody looks."""
        return [walk for walk in self.walks if not walk.done and walk.readers]

    @property
    def due(self) -> list[Walk]:
        """The walks that are not ahead of another."""
        fewest = min(walk.calls for walk in self.wanted)
        return [walk for walk in self.wanted if walk.calls == fewest]

    @property
    def alone(self) -> bool:
        """Whether nobody else's images may share a batch with these."""
        return any(walk.request.alone for walk in self.walks)

    @property
    def work(self) -> int:
        """Rows of the network's batches that are still to do."""
        return sum(walk.request.rows * walk.calls_left for walk in self.wanted)

    @property
    def calls_left(self) -> int:
        """Calls until the last of the walks is done."""
        return max(walk.calls_left for walk in self.wanted)

    def claim(self) -> Claim:
        """What the group would have computed next."""
        calls = max(len(walk.plan) for walk in self.wanted)
        rows = max(walk.request.rows // walk.images for walk in self.due)
        due = sum(walk.due for walk in self.due)
        return Claim(due, self.calls_left, self.served, calls, rows)

    def take(self, images: int) -> list[Part]:
        """That many of the images that are due."""
        parts = []
        for walk in self.due:
            count = min(images, walk.due)
            if count:
                parts.append(walk.take(count))
            images -= count
        return parts


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """The images of all of them; of a single one itself, without a copy."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def checked_labels(
    labels: tuple[int, ...] | None, known: Mapping[str, Sequence[str]]
) -> tuple[int, ...] | None:
    """The labels themselves; -1 for every attribute where there are none.

    `known` are a model's attributes and their values; of a model without any, the answer is None
    or (). Raises ValueError for labels that such a model does not know.
    """
    counts = [len(values) for values in known.values()]
    if labels is None:
        return (ANY,) * len(counts) or None
    fitting = len(labels) == len(counts) and all(
        ANY <= label < count for label, count in zip(labels, counts, strict=True)
    )
    if not fitting:
        raise ValueError(
            f"labels {labels} for attributes with {tuple(counts)} values; give one index for "
            "each, or -1 for any"
        )
    return labels
