"""Pictures from a GPU that a Space borrows for one run at a time (Hugging Face ZeroGPU).

CUDA works only inside a function that `spaces.GPU` wraps: it runs in a process forked for the
call, or in one left over from an earlier call, whose globals are as old. So the engine's thread
cannot be used; the plain loop runs there and sends its pictures back, as fast as it can: the
seconds of a GPU are counted. The pace at which they are shown is set out here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path

import torch

from demo import wording
from demo.backend import Backend, Begun, LocalBackend, Note, RunEnded, Tick, follow, requests
from demo.settings import Comparison
from diffusion import Denoiser, DiffusionModel
from diffusion.backends import accelerated
from diffusion.device import pick_device
from diffusion.engine import CLOSING, NOT_A_NUMBER
from diffusion.film import Film, Place, Still, first_still, still
from diffusion.finish import finished
from diffusion.joint import finite
from diffusion.noise import Noise
from diffusion.pictures import to_uint8
from diffusion.residents import Residents
from diffusion.samplers import Frame, Step, sample
from diffusion.walks import Request, checked_labels

# A first guess, in seconds: some 400 kernels per call, each launched in up to 50 µs.
CALL = 0.02
START = 8.0  # seconds for CUDA to begin, and for the weights to be loaded
MARGIN = 1.5  # a run that outlives what it asked for may be killed
SHORTEST, LONGEST = 5, 120  # seconds that are asked for
LEAVING = 5.0  # seconds that closing waits for the runs to end

# What travels from the GPU's process: a pane, and its next still or why there is none.
Shot = tuple[int, Still | str]

log = logging.getLogger(__name__)


class ZeroGPUBackend(Backend):
    """Each run on a borrowed GPU; on this Space's own CPU when none is to be had."""

    def __init__(self, model: str | Path, backend: str = "auto"):
        """`backend` names how the CPU computes: see `diffusion.backends.accelerated`."""
        import spaces  # exists on Spaces alone

        self._shown = str(model)  # whose page this is
        self._space = Space(self._shown, backend)
        self._shots = spaces.GPU(duration=self._duration)(shots)
        self._model, self._models = self._shown, Residents("cpu")  # to know about them
        self._tell_about(self._models.get(self._model).model)

    async def stream(
        self, comparison: Comparison, alone: str = ""
    ) -> AsyncIterator[Begun | Tick | Place | Note]:
        """See Backend; every run on a borrowed GPU is alone."""
        feed = self._feed(comparison)
        try:
            yield Begun(feed.films, self.weights, self.schedule)
            async with contextlib.aclosing(follow(feed.films)) as ticks:
                async for tick in ticks:
                    yield tick
            return
        except RunEnded:
            if feed.begun or feed.stopped:
                raise
        finally:
            self._space.leave(feed)
        yield Note(wording.CPU_INSTEAD)
        local = await asyncio.to_thread(self._cpu)
        async with contextlib.aclosing(local.stream(comparison, alone)) as ticks:
            async for tick in ticks:
                yield tick

    @property
    def busy(self) -> bool:
        """See Backend."""
        return self._space.busy

    def seconds(self, images: int, calls: int) -> float:
        """See Backend."""
        return calls * self._space.pace.call(images)

    def close(self) -> None:
        """See Backend."""
        self._space.close()

    def _feed(self, comparison: Comparison) -> Feed:
        """Ask for a GPU and begin; raises ValueError for what the model cannot be asked for."""
        wanted = requests(comparison, self._model)
        for one in wanted:
            checked_labels(one.labels, self.labels)
        films = tuple(Film(calls=len(one.recipe.plan(self.schedule))) for one in wanted)
        feed = Feed(lambda: self._shots(wanted), films, wanted[0].rows)
        self._space.enter(feed)
        feed.start()
        return feed

    def _duration(self, wanted: Sequence[Request]) -> int:
        """The seconds to ask for; spaces passes what the wrapped function gets."""
        calls = sum(one.recipe.steps for one in wanted)
        return self._space.pace.duration(wanted[0].rows, calls)

    def _cpu(self) -> LocalBackend:
        return self._space.cpu().of("" if self._model == self._shown else self._model)


class Space:
    """What all models of a Space share: the runs that go on, their pace, and its own CPU."""

    def __init__(self, model: str, backend: str):
        self.pace = Pace()
        self._model, self._backend = model, backend
        self._feeds: set[Feed] = set()
        self._lock = threading.Lock()  # held for moments: the event loop waits for it
        self._local: LocalBackend | None = None
        self._making = threading.Lock()  # of _local, which takes seconds to make

    def enter(self, feed: Feed) -> None:
        """A run begins."""
        with self._lock:
            self._feeds.add(feed)

    def leave(self, feed: Feed) -> None:
        """Nobody looks at a run any more: it ends, and its pace counts."""
        feed.stop()
        with self._lock:
            self._feeds.discard(feed)
            if feed.calls:
                self.pace = self.pace.measured(feed.rows, feed.seconds / feed.calls)

    def cpu(self) -> LocalBackend:
        """The engine of this Space's own CPU, made when it is first needed."""
        with self._making:
            if self._local is None:
                model = DiffusionModel.from_pretrained(self._model, "cpu")
                model = accelerated(model, self._backend)
                self._local = LocalBackend(model, backend=self._backend)
            return self._local

    @property
    def busy(self) -> bool:
        """Whether its own CPU draws for somebody."""
        local = self._local  # without the lock, which is held while the engine is made
        return local is not None and local.busy

    def close(self) -> None:
        """End all runs."""
        with self._lock:
            feeds = tuple(self._feeds)
        for feed in feeds:
            feed.stop(CLOSING)
        end = time.monotonic() + LEAVING
        for feed in feeds:
            feed.join(max(end - time.monotonic(), 0.0))
        with self._making:
            if self._local:
                self._local.close()


@dataclass(frozen=True)
class Pace:
    """What earlier runs tell about how long the next will take.

    Sizes are rows of the network's batch: those of images, twice where guidance needs two.
    """

    seconds: Mapping[int, float] = field(default_factory=dict)  # of a call, by its size

    def measured(self, rows: int, seconds: float) -> Pace:
        """With one more run; the newest of each size counts."""
        return Pace({**self.seconds, rows: seconds})

    def duration(self, rows: int, calls: int) -> int:
        """Whole seconds to ask for, so that the run is done within them."""
        seconds = math.ceil(START + MARGIN * calls * self.call(rows))
        return min(max(seconds, SHORTEST), LONGEST)

    def call(self, rows: int) -> float:
        """The seconds of one call, at most.

        More rows make a call longer, but no more than in proportion: both ways, every size
        that was measured gives a bound, and the lowest is the closest.
        """
        bounds = (seconds * max(rows / n, 1) for n, seconds in self.seconds.items())
        return min(bounds, default=CALL)


class Feed:
    """A thread that draws one run's pictures from the GPU into films, as fast as they come."""

    def __init__(self, run: Callable[[], Iterator[Shot]], films: tuple[Film, ...], rows: int):
        """`rows` of the network's batch are computed in each call."""
        self.films, self.rows = films, rows
        self.seconds = 0.0
        self._run = run
        self._stopped = threading.Event()
        # In this context, spaces finds whose quota counts.
        drain = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=drain, args=(self._drain,), name="zerogpu", daemon=True
        )

    @property
    def stopped(self) -> bool:
        """Whether nobody wants any more of it."""
        return self._stopped.is_set()

    @property
    def begun(self) -> bool:
        """Whether any picture has come."""
        return any(film.reached >= 0 for film in self.films)

    @property
    def calls(self) -> int:
        """Network calls made, as far as is known."""
        return sum(max(film.reached, 0) for film in self.films)

    def start(self) -> None:
        """Ask for the GPU and take what it draws."""
        self._thread.start()

    def stop(self, problem: str = wording.GPU_LOST) -> None:
        """Let the GPU go after the picture that comes next; who still looks is told now."""
        self._stopped.set()
        self._end(problem)

    def join(self, seconds: float) -> None:
        """Wait, but no longer than that, until the GPU is let go."""
        self._thread.join(seconds)

    def _drain(self) -> None:
        try:
            with contextlib.closing(self._run()) as arriving:
                for pane, shot in arriving:
                    if self.stopped:
                        break
                    if isinstance(shot, str):
                        self._end(shot)
                        break
                    self.seconds = shot.seconds
                    self.films[pane].add(shot)
        except Exception as error:  # a visitor without quota, a worker that was killed, and more
            log.warning("a run on the GPU ended early: %s", error, exc_info=True)
        self._end(wording.GPU_LOST)

    def _end(self, problem: str) -> None:
        for film in self.films:
            if not film.done and not film.problem:
                film.fail(problem)


def shots(wanted: Sequence[Request]) -> Iterator[Shot]:
    """On the GPU: every pane's pictures in step, those that a film keeps."""
    model = _models().get(wanted[0].model).model
    _warm_up(model, wanted[0])
    panes = [_pane(model, one) for one in wanted]
    films = [Film(calls=len(one.recipe.plan(model.schedule))) for one in wanted]
    begun = time.perf_counter()
    for calls, step in enumerate(zip_longest(*panes)):
        for pane, (film, develop) in enumerate(zip(films, step, strict=True)):
            if develop and film.wants(calls):
                shot = develop()  # waits for the GPU, so it comes before the clock
                if isinstance(shot, str):
                    yield pane, shot
                    return
                yield pane, replace(shot, seconds=time.perf_counter() - begun)


@cache
def _models() -> Residents:
    """This process's models: one that outlives the call loads again only what has changed."""
    return Residents(pick_device())


@torch.no_grad()
def _warm_up(model: DiffusionModel, wanted: Request) -> None:
    """One call that nobody sees: the first takes long, and what is broken breaks here."""
    t = torch.full((len(wanted.seeds),), model.schedule.T, device=model.device)
    x = Noise(wanted.seeds, model.shape, model.device)(model.schedule.T)
    to_uint8(_denoiser(model, wanted)(x, t)[0])


def _denoiser(model: DiffusionModel, wanted: Request) -> Denoiser:
    labels = None
    if wanted.labels is not None:
        labels = torch.tensor(wanted.labels).expand(len(wanted.seeds), -1)
    return model.denoiser(labels, wanted.guidance, wanted.recipe.clip)


def _pane(model: DiffusionModel, wanted: Request) -> Iterator[Callable[[], Still | str]]:
    """What makes the still before the first call and after each, or tells why there is none."""
    noise = Noise(wanted.seeds, model.shape, model.device)
    x = noise(model.schedule.T)
    yield partial(first_still, model.schedule.T, x)
    plan, denoise = wanted.recipe.plan(model.schedule), _denoiser(model, wanted)
    for calls, frame in enumerate(sample(denoise, plan, x, noise), start=1):
        frame = finished(frame, wanted.recipe.finish)
        yield partial(_still, calls, plan[calls - 1], frame)


def _still(calls: int, row: Step, frame: Frame) -> Still | str:
    return still(calls, 0.0, row, frame) if all(finite(frame.x)) else NOT_A_NUMBER
