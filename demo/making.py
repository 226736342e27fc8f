"""What the Make screen asks of the server: faces on request, and whether they came as asked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from demo import recorded, settings, wording_make
from demo.models import OWN, Models
from demo.service import Service, in_words
from demo.settings import Comparison
from demo.verdicts import Verdict, verdicts
from demo.wishes import Labels
from diffusion.device import apart
from diffusion.palette import Palette, colours_of
from diffusion.reader import AttributeReader


@dataclass(frozen=True)
class Choice:
    """One value that can be chosen; `colour` is a swatch's, as "#1e1514"."""

    value: str  # in the form; of wishes, an index, or nothing for "any"
    words: str
    colour: str | None = None


def choices(labels: Labels, palette: Palette) -> dict[str, list[Choice]]:
    """For every attribute "any" and its values, with a colour where it is one."""
    found = {}
    for name, values in labels.items():
        colours = palette.get(name) or colours_of(values) or [None] * len(values)
        found[name] = [Choice("", wording_make.ANY)]
        for index, colour in enumerate(colours):
            words = wording_make.value(name, values, index)
            found[name].append(Choice(str(index), words, colour and f"#{colour}"))
    return found


class Maker:
    """Draws what is asked for, and reads what came; for all visitors."""

    def __init__(self, service: Service, models: Models):
        self.service, self.models = service, models
        self._recorded = recorded.load_made(service.backend.weights)
        if reel := recorded.made(service.backend.weights):
            service.reels.hold(recorded.MADE, reel)

    def opening(self) -> dict | None:
        """The recorded faces, where this model drew them."""
        return self._recorded

    async def answers(self, fields: Mapping[str, object]) -> AsyncIterator[dict]:
        """The messages of `run`, each with the order's `press`, its number on that page.

        The first comes at once, before a model is loaded or a place is free: the order is heard.
        """
        press = fields.get("press")
        press = press if isinstance(press, int) else 0
        yield {"type": "heard", "press": press}
        async for message in self.run(fields):
            yield {**message, "press": press}

    async def run(self, fields: Mapping[str, object]) -> AsyncIterator[dict]:
        """The messages of one press of Make: a start and frames, the last with `verdicts`.

        Or a problem in one sentence.
        """
        async with in_words() as problems:
            model = str(fields.get("model") or OWN)
            if model not in self.models.offers:
                raise ValueError(wording_make.model_refused(model, list(self.models.offers)))
            offer = self.models.offers[model]
            order = settings.read_order(offer.labels, fields)
            async for message in self.service.show(await self.service.place(model), order):
                yield await self._told(message, order, offer.reader)
        for problem in problems:
            yield problem

    async def _told(self, message: dict, order: Comparison, reader: AttributeReader | None) -> dict:
        if not message.get("done") or reader is None:
            return message
        reel = self.service.reels.get(message["run"])
        if reel is None:  # it had to leave for others: the faces are shown all the same
            return message
        found = await asyncio.to_thread(apart, verdicts, order.asked, reel.last[0].x, reader)
        words = message["words"]
        if order.asked:
            words = f"{words} {_count(found, reader)}"
        return {**message, "words": words, "verdicts": [verdict.to_json() for verdict in found]}


def _count(found: Sequence[Verdict], reader: AttributeReader) -> str:
    right = sum(all(verdict.granted.values()) for verdict in found)
    accuracy = [reader.accuracy.get(name) for name in found[0].granted]
    together = math.prod(accuracy) if all(accuracy) else None
    return wording_make.as_asked(right, len(found), together)
