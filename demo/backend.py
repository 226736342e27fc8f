"""Where the pictures are computed: the page sees a stream of ticks and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from demo.settings import Comparison
from demo.wishes import Labels
from diffusion import DiffusionModel, Schedule
from diffusion.backends import accelerated, prepare
from diffusion.engine import Engine, Showing
from diffusion.film import Film, Place, Still
from diffusion.residents import Residents
from diffusion.slots import Capacity
from diffusion.walks import Request

INTERVAL = 1 / 30  # seconds from one tick to the next at least: what is fast can still be seen
MODEL = "shipped"


@dataclass(frozen=True)
class Tick:
    """All panes after the same number of network calls; a pane that is done waits."""

    stills: tuple[Still, ...]  # one per pane
    done: bool

    @property
    def calls(self) -> tuple[int, ...]:
        """Network calls made by each pane."""
        return tuple(still.calls for still in self.stills)


@dataclass(frozen=True)
class Begun:
    """The run is accepted; what it draws comes into these films, one per pane."""

    films: tuple[Film, ...]
    weights: str  # which weights draw it: those of a training may be newer than the backend's
    schedule: Schedule  # of the model that draws it


@dataclass(frozen=True)
class Note:
    """Something the visitor should know while the run goes on."""

    words: str


class RunEnded(RuntimeError):
    """The run ended early; the message is a sentence for the visitor."""


class Backend(ABC):
    """What the page needs of a place where pictures are computed."""

    schedule: Schedule
    size: int  # side of a picture in pixels
    weights: str  # which weights draw: diffusion.model.weights_hash, or ""
    labels: Labels  # what the model can be asked for
    _model: str  # that draws
    _models: Residents

    def _tell_about(self, model: DiffusionModel) -> None:
        self.schedule, self.size = model.schedule, model.shape[1]
        self.weights, self.labels = model.version, model.labels

    @abstractmethod
    def stream(
        self, comparison: Comparison, alone: str = ""
    ) -> AsyncIterator[Begun | Tick | Place | Note]:
        """The ticks of one run, at a pace that can be watched; closing it ends the work.

        Before the first tick come the run's films, and places in the waiting line if there is
        one. With a name of its own in `alone`, the run is computed anew and without strangers.
        Raises ValueError or RuntimeError, with a sentence for the visitor, when the run cannot
        be done.
        """

    def of(self, model: str) -> Backend:
        """The same place, drawing with the model in another folder; "" is the shipped one.

        May take a while, as the model may have to be loaded; raises ModelError.
        """
        if not model:
            return self
        about, other = self._models.get(model).model, copy.copy(self)
        other._model = model
        other._tell_about(about)
        return other

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether this machine draws for somebody at this moment; a borrowed one does not count."""

    @abstractmethod
    def seconds(self, images: int, calls: int) -> float | None:
        """How long so many calls take, each with so many images; None until that is known."""

    @abstractmethod
    def close(self) -> None:
        """End all work."""


class LocalBackend(Backend):
    """An engine in this process: all visitors share one network, call by call."""

    def __init__(
        self, model: DiffusionModel, capacity: Capacity | None = None, backend: str = "auto"
    ):
        """`model` draws as it is; `backend` names how others are computed: see `accelerated`."""
        self._tell_about(model)
        self._loaded = model
        self._models = Residents(model.device, load=partial(_load, backend=backend))
        self._models.keep(MODEL, model)
        self._model = MODEL
        self.engine = Engine(self._models, capacity)
        self.engine.start(MODEL)

    def improve(self) -> None:
        """Have a faster way to compute the network made ready; runs that begin then take it."""
        prepare(self._loaded, self._switch)

    def _switch(self, model: DiffusionModel) -> None:
        self._loaded = model
        self._models.keep(MODEL, model, version=model.backend)
        self.engine.measure_again(MODEL)

    async def stream(
        self, comparison: Comparison, alone: str = ""
    ) -> AsyncIterator[Begun | Tick | Place]:
        """See Backend."""
        with await self._submitted(requests(comparison, self._model, alone)) as showing:
            model = showing.models[0]
            yield Begun(showing.films, model.version, model.schedule)
            async with contextlib.aclosing(follow(showing.films)) as ticks:
                async for tick in ticks:
                    yield tick

    async def _submitted(self, asked: list[Request]) -> Showing:
        # On another thread: a model may have to be loaded first. Whoever leaves meanwhile cannot
        # stop that thread, and nobody would close what it returns.
        submitting = asyncio.ensure_future(asyncio.to_thread(self.engine.submit, asked))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_close)
            raise

    @property
    def busy(self) -> bool:
        """See Backend."""
        return self.engine.load != (0, 0)

    def seconds(self, images: int, calls: int) -> float | None:
        """See Backend."""
        rate = self.engine.images_per_second
        return None if rate is None else images * calls / rate

    def close(self) -> None:
        """See Backend."""
        self.engine.close()


def _close(submitting: asyncio.Future[Showing]) -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        submitting.result().close()


def _load(name: str, device: torch.device | str, backend: str) -> DiffusionModel:
    return accelerated(DiffusionModel.from_pretrained(name, device), backend)


def requests(comparison: Comparison, model: str, alone: str = "") -> list[Request]:
    """One request for each pane."""
    seeds, asked = tuple(comparison.seeds), comparison.asked or None
    return [
        Request(model, seeds, recipe, asked, comparison.guidance, alone)
        for recipe in comparison.recipes
    ]


async def follow(films: Sequence[Film]) -> AsyncIterator[Tick | Place]:
    """Ticks as soon as every film has come so far, at least INTERVAL apart, to the last.

    Also films that are long finished are shown from the start. Raises RunEnded.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the page has shut down
            loop.call_soon_threadsafe(changed.set)

    for film in films:
        film.watch(tell)
    try:
        clock, due, place = 0, loop.time(), None
        while True:
            changed.clear()
            if problem := next((film.problem for film in films if film.problem), None):
                raise RunEnded(problem)
            if all(film.reached >= film.kept(clock) for film in films):
                await asyncio.sleep(due - loop.time())
                due = max(due + INTERVAL, loop.time())
                tick = _tick(films, clock)
                yield tick
                if tick.done:
                    return
                clock = _next(films, clock)
                continue
            waiting = max((film.place for film in films if film.place), key=_number, default=None)
            if waiting and waiting != place:
                yield (place := waiting)
                continue
            await changed.wait()
    finally:
        for film in films:
            film.unwatch(tell)


def shown_in(calls: Sequence[int]) -> float:
    """Seconds that `follow` takes at least to show films of so many calls, one each."""
    moments = {moment for count in calls for moment in Film(count).kept_calls}
    return (len(moments) - 1) * INTERVAL


def _tick(films: Sequence[Film], clock: int) -> Tick:
    stills = tuple(film.at(clock) for film in films)
    done = all(still.calls == film.calls for still, film in zip(stills, films, strict=True))
    return Tick(stills, done)


def _next(films: Sequence[Film], clock: int) -> int:
    """The next number of calls at which some film has a still."""
    while True:
        clock += 1
        if any(film.wants(clock) for film in films if clock <= film.calls):
            return clock


def _number(place: Place) -> int:
    return place.number
