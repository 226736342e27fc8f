"""A real run of the shipped weights, shown before the first Run.

`python -m demo.recorded` makes it. Showing it needs neither the model nor the queue, and Run
computes the same faces live.
"""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path

from demo import messages, settings
from demo.backend import LocalBackend
from diffusion import DiffusionModel
from diffusion.files import replacing

MODEL = Path(__file__).parent.parent / "checkpoints" / "cartoonset-64"
FILE = Path(__file__).parent / "assets" / "recorded.json"
EVERY = 2  # calls from one kept frame to the next
QUALITY = 45  # of the noisy frames: noise is most of the bytes, and one noise looks like another


def record(model: DiffusionModel) -> list[dict]:
    """The messages of a run with the default settings, fewer and smaller than a live run's."""
    return asyncio.run(_record(model))


async def _record(model: DiffusionModel) -> list[dict]:
    backend = LocalBackend(model)
    comparison = settings.read_comparison(**settings.DEFAULTS, T=model.schedule.T)
    schedule, before = model.schedule, None
    kept = [messages.start("recorded", comparison, schedule, model.shape[1])]
    async for tick in backend.stream(comparison):
        if max(tick.calls) % EVERY == 0 or tick.done:
            number = len(kept)
            kept.append(
                messages.frame("recorded", number, tick, before, comparison, schedule, QUALITY)
            )
            before = tick
    backend.close()
    return kept


@cache
def load() -> list[dict]:
    """The recorded messages; empty when none was made."""
    return json.loads(FILE.read_text()) if FILE.is_file() else []


if __name__ == "__main__":
    with replacing(FILE) as temporary:
        temporary.write_text(json.dumps(record(DiffusionModel.from_pretrained(MODEL))))
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
