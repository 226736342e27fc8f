"""Many samplings on one network: every call is one batch of whatever is due, step by step.

A request joins at the next call and leaves after its last one, whoever else is there. Samplers,
levels, labels and guidance are mixed freely in a batch, because a sampler is a table: each image
brings its own row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffusion.ahead import Drawers
from diffusion.batching import measure
from diffusion.denoiser import ANY, Denoiser
from diffusion.film import Film, Place
from diffusion.model import DiffusionModel
from diffusion.residents import Residents
from diffusion.samplers import Frame, mix
from diffusion.slots import Capacity, share
from diffusion.walks import Group, Part, Request, Walk

LINE = 64  # groups that may wait
FINISHED = 2**28  # bytes of finished films that are kept for whoever asks the same again
BEFORE_MEASURED = Capacity(quick=4, full=4, images_per_second=50.0, in_flight=100)
PLACES_EVERY = 1.0  # seconds between two looks at the waiting line

log = logging.getLogger(__name__)


class Full(RuntimeError):
    """The waiting line has no place left; the message says so in a sentence."""


class Engine:
    """One thread that owns the device; `submit` and `close` may be called from any other.

    `capacity` is measured on the first model when it is not given.
    """

    def __init__(
        self,
        models: Residents,
        capacity: Capacity | None = None,
        line: int = LINE,
        finished: int = FINISHED,
    ):
        self.models = models
        self.capacity = capacity or BEFORE_MEASURED
        self.network_calls = 0
        self._given = self._measured = capacity is not None
        self._to_measure: str | None = None
        self._longest_line, self._finished_bytes = line, finished
        self._drawers = Drawers(models.device)
        self._walks: dict[Hashable, Walk] = {}  # begun or waiting
        self._active: list[Group] = []
        self._line: list[Group] = []
        self._finished: OrderedDict[Hashable, Film] = OrderedDict()
        self._changed = threading.Condition()
        self._tick = 0
        self._admitted = 0
        self._places_told = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, requests: Sequence[Request]) -> Showing:
        """Have requests computed in step with each other; equal ones are computed once.

        Raises ValueError (ModelError) for a request that cannot be computed and Full when too
        many wait, both before any call of the network.
        """
        walks = [self._walk(request) for request in requests]
        with self._changed:
            if self._closed:
                raise Full("The page is shutting down; open it again in a moment.")
            unknown = {
                walk.key: walk
                for walk in walks
                if walk.key not in self._walks and walk.key not in self._finished
            }
            if unknown and len(self._line) >= self._longest_line:
                raise Full(self._full())
            if unknown:
                self._walks.update(unknown)
                self._line.append(Group(list(unknown.values()), served=self._tick))
            films = [self._join(walk.key) for walk in walks]
            if self._thread is None:
                self._start()
            self._changed.notify()
        return Showing(self, [walk.key for walk in walks], films)

    def start(self, model: str) -> None:
        """Begin now: load the model and measure what the machine can do, in the background."""
        with self._changed:
            if self._thread is None and not self._closed:
                self._start(model)

    def measure_again(self, model: str) -> None:
        """Something has changed: measure what the machine can do when nobody waits."""
        with self._changed:
            self._to_measure = model
            self._changed.notify()

    def close(self) -> None:
        """End every request and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread:
            thread.join()
        self._drawers.close()

    @property
    def images_per_second(self) -> float | None:
        """What the machine makes of large batches; None until it is measured."""
        return None if self.capacity is BEFORE_MEASURED else self.capacity.images_per_second

    @property
    def load(self) -> tuple[int, int]:
        """How many requests are begun, and how many groups wait."""
        with self._changed:
            waiting = {walk.key for group in self._line for walk in group.walks}
            return len(self._walks.keys() - waiting), len(self._line)

    def leave(self, keys: Sequence[Hashable], films: Sequence[Film]) -> None:
        """A reader goes; what nobody reads is not computed."""
        with self._changed:
            for key, film in zip(keys, films, strict=True):
                walk = self._walks.get(key)
                if walk and walk.film is film:
                    walk.readers -= 1
            self._drop_unwanted()
            self._changed.notify()

    def _walk(self, request: Request) -> Walk:
        resident = self.models.get(request.model)
        return Walk(request, resident, (request, resident.version), self._drawers)

    def _join(self, key: Hashable) -> Film:
        if key in self._walks:
            self._walks[key].readers += 1
            return self._walks[key].film
        self._finished.move_to_end(key)
        return self._finished[key]

    def _start(self, model: str | None = None) -> None:
        self._thread = threading.Thread(target=self._run, args=(model,), name="engine", daemon=True)
        self._thread.start()

    def _run(self, first: str | None) -> None:
        if first is not None:
            self._measure(first)
        while True:
            with self._changed:
                self._drop_unwanted()
                while not (self._closed or self._active or self._line or self._to_measure):
                    self._changed.wait()
                if self._closed:
                    return self._end_all("The page is shutting down; open it again in a moment.")
                again = None if self._active or self._line else self._to_measure
                if again:
                    self._to_measure = None
                waiting = self._line[0].walks[0].request.model if self._line else None
            if again:
                self._measured = self._given
                self._measure(again)
            if waiting is not None:
                self._measure(waiting)
            try:
                self._turn()
            except Exception:  # a mistake of ours must not leave everybody waiting for ever
                log.exception("the engine stumbled")
                with self._changed:
                    self._end_all("The run ended early; try it again.")

    def _measure(self, name: str) -> None:
        if self._measured:
            return
        self._measured = True
        try:
            self.capacity = measure(self.models.get(name).model, given_up=lambda: self._closed)
        except Exception:  # the requests themselves will say what is wrong
            log.exception("the speed of this machine could not be measured")

    def _turn(self) -> None:
        with self._changed:
            self._drop_unwanted()
            self._admit()
            self._tell_places()
            parts = self._choose()
        if parts:
            self._advance(parts)
            self._settle({part.walk.key: part.walk for part in parts})

    # The waiting line; all of it under the lock.

    def _admit(self) -> None:
        while self._line:
            group = self._next_in_line()
            begun = sum(walk.images for other in self._active for walk in other.wanted)
            if self._active and begun + group.images > self.capacity.in_flight:
                return
            self._line.remove(group)
            self._active.append(group)
            self._admitted += 1
            group.served = self._tick
            for walk in group.wanted:
                self._guard(walk, walk.begin)

    def _next_in_line(self) -> Group:
        """In turn, the one with the fewest calls and the one who waits longest."""
        if self._admitted % 2:
            return self._line[0]
        return min(self._line, key=lambda group: group.calls_left)

    def _tell_places(self) -> None:
        now = time.perf_counter()
        if not self._line or now - self._places_told < PLACES_EVERY:
            return
        self._places_told = now
        ahead = sum(group.work for group in self._active)
        for number, group in enumerate(self._line, start=1):
            for walk in group.wanted:
                walk.film.move(Place(number, ahead / self.capacity.images_per_second))
            ahead += group.work

    def _full(self) -> str:
        work = sum(group.work for group in (*self._active, *self._line))
        count = len(self._line)
        waiting = "1 visitor waits" if count == 1 else f"{count} visitors wait"
        minutes = max(round(work / self.capacity.images_per_second / 60), 1)
        return (
            f"{waiting} already; press Run again in about "
            f"{minutes} {'minute' if minutes == 1 else 'minutes'}."
        )

    def _drop_unwanted(self) -> None:
        unwanted = [key for key, walk in self._walks.items() if walk.done or not walk.readers]
        for key in unwanted:
            del self._walks[key]
        self._active = [group for group in self._active if group.wanted]
        self._line = [group for group in self._line if group.wanted]

    def _end_all(self, problem: str) -> None:
        for walk in self._walks.values():
            walk.film.fail(problem)
        self._drop_unwanted()

    # One tick.

    def _choose(self) -> list[Part]:
        """The images of the next batch, all of one model; under the lock."""
        ready = [group for group in self._active if group.wanted]
        if not ready:
            return []
        # A group's walks may use different models; those of one go first, then the other's.
        longest_wait = min(ready, key=lambda group: group.served)
        model = longest_wait.due[0].model
        groups = [group for group in ready if group.due[0].model is model and not group.alone]
        if longest_wait.alone:
            groups = [longest_wait]
        claims = [group.claim() for group in groups]
        self._tick += 1
        counts = share(claims, self.capacity.slots(claims), self._tick)
        parts = []
        for group, count in zip(groups, counts, strict=True):
            if count:
                group.served = self._tick
                parts += [part for part in group.take(count) if part.walk.model is model]
        return parts

    def _advance(self, parts: list[Part]) -> None:
        """Compute a batch; on failure find out whose fault it was, and end that request alone."""
        retry: Callable[[list[Part]], None] | None = None
        try:
            x, x0, eps = self._compute(parts)
        except (torch.OutOfMemoryError, MemoryError):
            retry = self._advance_in_halves
        except Exception as error:
            if len({part.walk.key for part in parts}) == 1:
                self._fail(parts[0].walk, error)
                return
            retry = self._advance_each
        if retry is not None:
            # Not in the clause above: an error keeps alive what the failed call had computed.
            retry(parts)
            return
        self._land(parts, x, x0, eps)

    def _land(self, parts: list[Part], x: Tensor, x0: Tensor, eps: Tensor) -> None:
        finite = _finite(x)
        first = 0
        for part in parts:
            rows = slice(first, first + len(part))
            first = rows.stop
            if all(finite[rows]):
                frame = Frame(part.row.t, part.row.s, x[rows], x0[rows], eps[rows])
                self._guard(part.walk, part.walk.land, frame)
            else:
                part.walk.film.fail(
                    "The network's answer was not a number; try other settings, or another model."
                )

    def _advance_each(self, parts: list[Part]) -> None:
        for part in parts:
            self._advance([part])

    def _advance_in_halves(self, parts: list[Part]) -> None:
        if parts[0].x.device.type == "cuda":
            torch.cuda.empty_cache()
        images = sum(len(part) for part in parts)
        if images == 1:
            parts[0].walk.film.fail("The device has no memory left; press Run again later.")
            return
        smaller = max(images // 2, 1)
        self.capacity = replace(
            self.capacity,
            quick=min(self.capacity.quick, smaller),
            full=min(self.capacity.full, smaller),
        )
        log.warning("out of memory with %d images; going on with %d at once", images, smaller)
        for half in _halves(parts):
            self._advance(half)

    @torch.no_grad()
    def _compute(self, parts: list[Part]) -> tuple[Tensor, Tensor, Tensor]:
        """x after the row of each image; clean image and noise, predicted on the way."""
        model = parts[0].walk.model
        x = _joined([part.x for part in parts])
        t = _per_image([part.row.t for part in parts], parts).to(x.device)
        x0, eps = _denoiser(model, parts, x.device)(x, t)
        self.network_calls += 1
        A, B, C, D = (
            _coefficients([getattr(part.row, name) for part in parts], parts, x) for name in "ABCD"
        )
        previous = _previous(parts, x0) if any(part.row.C for part in parts) else x0
        z = None
        if any(part.row.D for part in parts):
            z = _joined([_noise(part) for part in parts])
        return mix(A, B, C, D, x0, eps, previous, z), x0, eps

    def _settle(self, walks: dict[Hashable, Walk]) -> None:
        """Keep the films of walks that are done."""
        finished = {
            key: walk.film
            for key, walk in walks.items()
            if walk.film.done and not walk.request.alone
        }
        if any(walk.done for walk in walks.values()):
            with self._changed:
                self._drop_unwanted()
                self._finished.update(finished)
                held = sum(film.nbytes for film in self._finished.values())
                while self._finished and held > self._finished_bytes:
                    held -= self._finished.popitem(last=False)[1].nbytes

    def _guard(self, walk: Walk, work: Callable[..., None], *arguments: Frame) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self._fail(walk, error)

    def _fail(self, walk: Walk, error: Exception) -> None:
        log.error("a request failed", exc_info=error)
        walk.film.fail(f"The run ended early ({type(error).__name__}); try it again.")


class Showing(AbstractContextManager):
    """What one visitor watches: a film for each request, until closed."""

    def __init__(self, engine: Engine, keys: Sequence[Hashable], films: Sequence[Film]):
        self.films = tuple(films)
        self._engine, self._keys, self._open = engine, tuple(keys), True

    def close(self) -> None:
        """Look no longer; a second time does nothing."""
        if self._open:
            self._open = False
            self._engine.leave(self._keys, self.films)

    def __exit__(self, *raised: object) -> None:
        self.close()


def _denoiser(model: DiffusionModel, parts: list[Part], device: torch.device) -> Denoiser:
    clips = {part.walk.request.recipe.clip for part in parts}
    guidances = {part.walk.request.guidance for part in parts}
    labels = None
    # Where nothing is asked there is no need to say so for every image.
    if any(set(part.walk.labels or ()) - {ANY} for part in parts):
        labels = _per_image([part.walk.labels for part in parts], parts).to(device)
    return model.denoiser(
        labels,
        guidances.pop()
        if len(guidances) == 1
        else _per_image([float(part.walk.request.guidance) for part in parts], parts),
        clips.pop()
        if len(clips) == 1
        else _per_image([part.walk.request.recipe.clip for part in parts], parts),
    )


def _previous(parts: list[Part], x0: Tensor) -> Tensor:
    """The clean image of each one's step before; at its first step, that of this one."""
    rows = zip(parts, _rows(parts), strict=True)
    return _joined(
        [x0[own] if part.x0_previous is None else part.x0_previous for part, own in rows]
    )


def _noise(part: Part) -> Tensor:
    return part.walk.noise(part) if part.row.D else torch.zeros_like(part.x)


def _per_image(values: Sequence, parts: list[Part]) -> Tensor:
    """One row per image from one value per part."""
    rows = zip(values, parts, strict=True)
    return torch.tensor([value for value, part in rows for _ in range(len(part))])


def _coefficients(values: list[float], parts: list[Part], x: Tensor) -> Tensor | float:
    if len(set(values)) == 1:
        return values[0]
    column = _per_image(values, parts).to(x.dtype).to(x.device)
    return column.reshape(-1, *[1] * (x.ndim - 1))


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _finite(x: Tensor) -> list[bool]:
    """Whether each image is made of numbers alone."""
    if x.device.type == "cpu":  # NumPy, as in `to_uint8`
        return np.isfinite(x.float().flatten(1).numpy().sum(1)).tolist()
    return x.flatten(1).sum(1).isfinite().tolist()


def _rows(parts: list[Part]) -> list[slice]:
    rows, first = [], 0
    for part in parts:
        rows.append(slice(first, first + len(part)))
        first += len(part)
    return rows


def _halves(parts: list[Part]) -> tuple[list[Part], list[Part]]:
    """The same images in two batches; a part in the middle is cut."""
    half = sum(len(part) for part in parts) // 2
    left, right = [], []
    for part, rows in zip(parts, _rows(parts), strict=True):
        cut = min(max(half - rows.start, 0), len(part))
        if cut:
            left.append(part.cut(0, cut))
        if cut < len(part):
            right.append(part.cut(cut, len(part)))
    return left, right
