"""What a screen that draws asks of the server: runs, their other lenses, files, and replays."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from demo import keep, messages, recorded, settings, wording
from demo.backend import Backend, Begun, Note, RunEnded, Tick, shown_in
from demo.reels import Reel, Reels
from demo.settings import Comparison
from demo.viewers import Viewer, Viewers
from diffusion import Schedule
from diffusion.engine import Full
from diffusion.film import LENSES, Place

# Streams cost next to nothing while they wait, and the engine has a line of its own that tells
# place and seconds: Gradio's should never be reached.
RUNS_AT_ONCE, WAITING = 256, 64
LIMITS = {"concurrency_limit": RUNS_AT_ONCE, "trigger_mode": "once"}  # of an event that draws
FILLED_AT_ONCE = 24  # stills
# Pictures that may be replayed, and their bytes: a file of a few kilobytes may hold four million
# pixels.
GIVEN, GIVEN_BYTES = 64, 2**27
MEASURED_WITHIN = 20.0  # seconds that the examples wait for the machine's speed
GUESS = 50.0  # images per second, where it is not known by then
SILENCE = 2.0  # seconds without a frame, after which the next tick tells that the run goes on
FILMS = 8  # that may be asked for at once; each takes a core for a second or more

log = logging.getLogger(__name__)
Event = TypeVar("Event")


class Service:
    """The state of the screens that draw, for all their visitors."""

    def __init__(self, backend: Backend, folder: Callable[[str], str] = str):
        self.backend = backend
        self._folder = folder  # of the model of a training, by the training's name
        self.viewers = Viewers()
        self.reels = Reels()
        self._given: OrderedDict[str, keep.Given] = OrderedDict()
        self._filming: asyncio.Semaphore | None = None  # made on the loop that uses it
        self._films = 0  # that are asked for and not made yet
        self._recorded = recorded.load(backend.weights)
        if reel := recorded.reel(backend.weights):
            self.reels.hold(recorded.RUN, reel)

    async def run(self, fields: Mapping[str, object]) -> AsyncIterator[dict]:
        """The messages of one press of Run, or a problem in one sentence: see `show`."""
        async with in_words() as problems:
            model = str(fields.get("model") or "")
            if model:  # which may have to be loaded first
                yield messages.heard()
            place = await self.place(model)
            comparison = settings.read_comparison(place.schedule.T, place.labels, **fields)
            async for message in self.show(place, comparison):
                yield message
        for problem in problems:
            yield problem

    async def replay(self, wish: object) -> AsyncIterator[dict]:
        """Draw a given picture again, alone; the last message tells how alike they are."""
        token = wish.get("token") if isinstance(wish, dict) else None
        given = self._given.get(token) if isinstance(token, str) else None
        if given is None:
            yield messages.problem(wording.REPLAY_GONE)
            return
        async with in_words() as problems:
            comparison = given.settings.comparison
            place = await self.place(comparison.model)
            async for message in self.show(place, comparison, given):
                yield message
        for problem in problems:
            yield problem

    async def place(self, model: str) -> Backend:
        """Where that model draws; raises ValueError, with a sentence, when there is none."""
        if not model:
            return self.backend
        return await asyncio.to_thread(lambda: self.backend.of(self._folder(model)))

    async def show(
        self, place: Backend, comparison: Comparison, given: keep.Given | None = None
    ) -> AsyncIterator[dict]:
        """The messages of one run; raises what `Backend.stream` raises.

        An aside once it is accepted, more while it waits, then a start and frames: what a page
        shows can stay until the start, which comes right before the first frame.
        """
        with self.viewers.watch() as viewer, self.reels.growing(viewer.run):
            alone = viewer.run if given else ""
            async with contextlib.aclosing(place.stream(comparison, alone)) as events:
                async for message in self._told(viewer, place, comparison, events, given):
                    yield message

    async def _told(
        self,
        viewer: Viewer,
        place: Backend,
        comparison: Comparison,
        events: AsyncIterator[Begun | Tick | Place | Note],
        given: keep.Given | None,
    ) -> AsyncIterator[dict]:
        before, lens, begun = None, viewer.lens, None
        loop = asyncio.get_running_loop()
        told = loop.time()
        async for event in until(viewer.halted, events):
            match event:
                case Begun(films, weights, schedule):
                    if begun is None:
                        words = wording.drawing(comparison.faces, comparison.seed)
                        yield messages.aside(viewer.run, words)
                    self.reels.keep(viewer.run, Reel(comparison, films, weights, schedule))
                    before, begun = None, event
                case Place(number, seconds):
                    yield messages.aside(viewer.run, wording.waiting(number, seconds))
                case Note(words):
                    yield messages.aside(viewer.run, words)
                case Tick() if event.done or not viewer.behind:
                    # Equations and pictures on another thread: this one serves everybody.
                    if not viewer.sent:
                        yield await asyncio.to_thread(
                            messages.start, viewer.run, comparison, begun.schedule, place.size
                        )
                    if viewer.lens != lens:
                        before, lens = None, viewer.lens
                    message = await asyncio.to_thread(
                        self._frame, viewer, begun.schedule, event, before, lens, comparison, given
                    )
                    due = viewer.send(messages.size(message))
                    yield {**message, "receipt": due}
                    before, told = event, loop.time()
                case Tick() if loop.time() - told > SILENCE:
                    # Gradio finds out that a browser has left when something is told to it.
                    yield messages.beat(viewer.run)
                    told = loop.time()
        if viewer.halted.is_set():
            yield messages.stopped(viewer.run)

    def _frame(
        self,
        viewer: Viewer,
        schedule: Schedule,
        tick: Tick,
        before: Tick | None,
        lens: str,
        comparison: Comparison,
        given: keep.Given | None,
    ) -> dict:
        words = ""
        if tick.done:
            words = messages.outcome(tick.stills, comparison)
            if given:
                words = keep.verdict(given, [still.x for still in tick.stills]) + " " + words
        number = viewer.sent + 1
        return messages.frame(viewer.run, number, tick, before, lens, words, schedule)

    # Calls of the stage's script; they bypass Gradio's queue, so each is bounded.

    async def opening(self) -> dict | None:
        """The recorded run, where this model drew it."""
        return self._recorded

    async def examples(self) -> list[dict]:
        """The example chips, once it is known how fast the machine is.

        Those with more steps than the model has levels are left out.
        """
        faces, calls = int(settings.DEFAULTS["faces"]), sum(wording.LONG)
        loop = asyncio.get_running_loop()
        end = loop.time() + MEASURED_WITHIN
        while (seconds := self.backend.seconds(faces, calls)) is None and loop.time() < end:
            await asyncio.sleep(0.2)
        if seconds is None:
            seconds = faces * calls / GUESS
        told = wording.examples(max(seconds, shown_in(wording.LONG)))
        return [example for example in told if _most_steps(example) <= self.backend.schedule.T]

    async def fill(self, wish: object) -> dict:
        """Stills that the browser lacks: {"run", "lens", "stills": [[pane, calls], ...]}."""
        run, lens, stills = _items(wish, "run", "lens", "stills")
        reel = self.reels.get(run)
        if reel is None or lens not in LENSES or not isinstance(stills, list):
            return messages.problem(wording.GONE)
        return {"stills": await asyncio.to_thread(self._filled, reel, lens, stills)}

    def _filled(self, reel: Reel, lens: str, stills: list) -> list[dict]:
        """Those of the stills that the run has, through this lens; a recorded one has not all."""
        filled, schedule = [], reel.schedule or self.backend.schedule
        for wanted in stills[:FILLED_AT_ONCE]:
            match wanted:
                case [int(pane), int(calls)] if _has(reel, pane, calls):
                    still = reel.films[pane].at(calls)
                    # Before the first call there is nothing to see through some lenses.
                    seen = not calls or still.seen(lens) is not None
                    if still.calls == calls and seen:
                        filled.append(messages.still_seen(pane, still, [lens], schedule))
        return filled

    async def keep(self, wish: object) -> dict:
        """A file to save: {"run", "kind": "png" | "mp4" | "gif", "face", "lens", "moments"}."""
        run, kind, face, lens, moments = _items(wish, "run", "kind", "face", "lens", "moments")
        reel = self.reels.get(run)
        if kind not in list(keep.TYPES) or reel is None:
            return messages.problem(wording.kept_late("picture" if kind == "png" else "film"))
        try:
            if kind == "png":
                content = await asyncio.to_thread(keep.png, reel, face)
            else:
                content = await self._film(reel, kind, moments, lens, face)
        except (LookupError, ValueError) as refusal:
            known = isinstance(refusal, ValueError)
            return messages.problem(str(refusal) if known else wording.NOTHING_YET)
        except Exception as error:
            log.exception("a file could not be made")
            return messages.problem(wording.not_made(error))
        name = keep.file_name(reel, kind, face)
        return {"name": name, "uri": messages.data_uri(keep.TYPES[kind], content)}

    async def _film(self, reel: Reel, kind: str, *wish: Any) -> bytes:
        """One film at a time, as packing takes a core; raises ValueError when many wait."""
        if self._films >= FILMS:
            raise ValueError(wording.FILMS_BUSY)
        self._filming = self._filming or asyncio.Semaphore(1)
        self._films += 1
        try:
            async with self._filming:
                return await asyncio.to_thread(keep.animation, reel, kind, *wish)
        finally:
            self._films -= 1

    async def read(self, wish: object) -> dict:
        """The settings inside a PNG, given as {"png": base64}, and a token to replay it."""
        (text,) = _items(wish, "png")
        if not isinstance(text, str) or len(text) > 4 * keep.MOST_BYTES / 3 + 4:
            return messages.problem(wording.STAGE["too_large"])
        try:
            content = _decoded(text)
            picture = await asyncio.to_thread(keep.read, content)
            place = await self.place(str(picture.fields.get("model") or ""))
            given = picture.given(place.schedule.T, place.labels)
        except ValueError as refusal:
            return messages.problem(str(refusal))
        token = self._remembered(given)
        weights = given.settings.weights
        ours = weights == place.weights
        return {
            "token": token,
            "fields": given.settings.comparison.fields(),
            "face": given.settings.face,
            "words": wording.RESTORED if ours else wording.other_weights(weights),
        }

    def _remembered(self, given: keep.Given) -> str:
        """The token of a picture that may be replayed; those that came first leave for it."""
        token = secrets.token_urlsafe(16)
        self._given[token] = given
        held = sum(other.pixels.nbytes for other in self._given.values())
        while len(self._given) > GIVEN or held > GIVEN_BYTES:
            held -= self._given.popitem(last=False)[1].pixels.nbytes
        return token


async def until(halted: asyncio.Event, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The events that come before `halted` is set, which also ends the wait for the next one."""
    halt, coming = asyncio.ensure_future(halted.wait()), None
    try:
        while not halted.is_set():
            coming = asyncio.ensure_future(anext(events))
            await asyncio.wait((halt, coming), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                return
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        tasks = [task for task in (halt, coming) if task]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def in_words() -> AsyncIterator[list[dict]]:
    """Turns what goes wrong inside into a message, put into the list."""
    problems: list[dict] = []
    try:
        yield problems
    except (ValueError, Full, RunEnded) as refusal:
        problems.append(messages.problem(str(refusal)))
    except Exception as error:
        log.exception("a comparison failed")
        problems.append(messages.problem(wording.failed(error)))


def _decoded(text: str) -> bytes:
    """What base64 stands for; raises ValueError with a sentence."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, and another one for letters beyond ASCII
        raise ValueError(wording.NOT_A_PNG) from None


def _has(reel: Reel, pane: int, calls: int) -> bool:
    return pane in range(len(reel.films)) and 0 <= calls <= reel.films[pane].reached


def _most_steps(example: dict) -> int:
    fields = example["fields"]
    return max(int(value) for name, value in fields.items() if name.endswith("_steps"))


def _items(message: object, *names: str) -> list:
    given = message if isinstance(message, dict) else {}
    return [given.get(name) for name in names]
