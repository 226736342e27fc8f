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

import torch
from torch import Tensor

from diffusion import joint
from diffusion.ahead import Drawers
from diffusion.batching import measure
from diffusion.device import out_of_memory
from diffusion.film import Film, Place
from diffusion.model import DiffusionModel
from diffusion.residents import Resident, Residents
from diffusion.slots import Capacity, share
from diffusion.walks import Group, Part, Request, Walk

LINE = 64  # groups that may wait
FINISHED = 2**28  # bytes of finished films that are kept for whoever asks the same again
BEFORE_MEASURED = Capacity(quick=4, full=4, images_per_second=50.0, in_flight=100)
PLACES_EVERY = 1.0  # seconds between two looks at the waiting line
SHORT_FOR = 60.0  # seconds that memory counts as short after it ran out

# What a visitor is told.
NOT_A_NUMBER = "The network's answer was not a number; try other settings, or another model."
CLOSING = "The page is shutting down; open it again in a moment."

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
        self._ample: Capacity | None = None  # what it was before memory ran short
        self._short_until = 0.0
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
        # Once each: of a model that trains, every look may find other weights.
        models = {name: self.models.get(name) for name in {one.model for one in requests}}
        walks = [self._walk(request, models[request.model]) for request in requests]
        with self._changed:
            if self._closed:
                raise Full(CLOSING)
            unknown = {walk.key: walk for walk in walks if not self._knows(walk.key)}
            if unknown and len(self._line) >= self._longest_line:
                raise Full(self._full())
            if unknown:
                self._walks.update(unknown)
                self._line.append(Group(list(unknown.values()), served=self._tick))
            films = [self._join(walk.key) for walk in walks]
            if self._thread is None:
                self._start()
            self._changed.notify()
        return Showing(self, walks, films)

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

    def _walk(self, request: Request, resident: Resident) -> Walk:
        return Walk(request, resident, (request, resident.version), self._drawers)

    def _knows(self, key: Hashable) -> bool:
        # Nobody joins what has failed and is not yet put away.
        begun = self._walks.get(key)
        return key in self._finished or (begun is not None and begun.film.problem is None)

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
                    return self._end_all(CLOSING)
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
            self._ample = None
        except Exception:  # the requests themselves will say what is wrong
            log.exception("the speed of this machine could not be measured")

    def _turn(self) -> None:
        self._grow()
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
            f"{waiting} already; try again in about "
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
            computed = _computed(parts)
        except Exception as error:
            if out_of_memory(error):
                retry = self._advance_in_halves
            elif len({part.walk.key for part in parts}) == 1:
                self._fail(parts[0].walk, error)
                return
            else:
                retry = self._advance_each
        if retry is not None:
            # Not in the clause above: an error keeps alive what the failed call had computed.
            retry(parts)
            return
        self.network_calls += 1
        self._land(parts, *computed)

    def _land(
        self, parts: list[Part], finite: list[bool], x: Tensor, x0: Tensor, eps: Tensor
    ) -> None:
        for part, rows in zip(parts, joint.rows(parts), strict=True):
            if all(finite[rows]):
                self._guard(part.walk, part.walk.land, x[rows], x0[rows], eps[rows])
            else:
                part.walk.film.fail(NOT_A_NUMBER)

    def _advance_each(self, parts: list[Part]) -> None:
        for part in parts:
            self._advance([part])

    def _advance_in_halves(self, parts: list[Part]) -> None:
        kind = parts[0].x.device.type
        if kind != "cpu":
            getattr(torch, kind).empty_cache()
        images = sum(len(part) for part in parts)
        if images == 1:
            parts[0].walk.film.fail("The device has no memory left; try again later.")
            return
        smaller = max(images // 2, 1)
        self._shrink(smaller)
        log.warning("out of memory with %d images; going on with %d at once", images, smaller)
        for half in joint.halves(parts):
            self._advance(half)

    def _shrink(self, images: int) -> None:
        """Compute no more images at once, for a while: somebody else may need memory now."""
        self._ample = self._ample or self.capacity
        self._short_until = time.monotonic() + SHORT_FOR
        self.capacity = self.capacity.at_most(images)

    def _grow(self) -> None:
        """What did not fit a while ago is tried again."""
        if self._ample and time.monotonic() >= self._short_until:
            self.capacity, self._ample = self._ample, None

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
                # Added up anew: a film may take the place of one that was drawn beside it.
                held = sum(film.nbytes for film in self._finished.values())
                while held > self._finished_bytes:
                    held -= self._finished.popitem(last=False)[1].nbytes

    def _guard(self, walk: Walk, work: Callable[..., None], *arguments: Tensor) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self._fail(walk, error)

    def _fail(self, walk: Walk, error: Exception) -> None:
        log.error("a request failed", exc_info=error)
        walk.film.fail(f"The run ended early ({type(error).__name__}); try it again.")


def _computed(parts: list[Part]) -> tuple[list[bool], Tensor, Tensor, Tensor]:
    """Which images are made of numbers, and what `joint.compute` gives; waits for the device."""
    x, x0, eps = joint.compute(parts)
    return joint.finite(x), x, x0, eps


class Showing(AbstractContextManager):
    """What one visitor watches: for each request a film, and the model that draws it."""

    def __init__(self, engine: Engine, walks: Sequence[Walk], films: Sequence[Film]):
        self.films = tuple(films)
        self.models: tuple[DiffusionModel, ...] = tuple(walk.model for walk in walks)
        self._keys = tuple(walk.key for walk in walks)
        self._engine, self._open = engine, True

    def close(self) -> None:
        """Look no longer; a second time does nothing."""
        if self._open:
            self._open = False
            self._engine.leave(self._keys, self.films)

    def __exit__(self, *raised: object) -> None:
        self.close()
