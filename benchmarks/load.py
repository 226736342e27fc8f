"""How the page feels with 1, 8 and 30 visitors: `python -m benchmarks.load`.

The page runs in a process of its own, as `python app.py` starts it; the visitors, in another,
come over HTTP, ask for different things at the same moment and acknowledge frames as browsers do.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import typer
from gradio_client import Client

from benchmarks.app import started

ONE_RUN = 600.0  # seconds, after which the measurement is given up
MEASURING = 8.0  # seconds that the engine may take to time the machine


@dataclass(frozen=True)
class Visit:
    """What one visitor saw."""

    begun: float  # seconds of the clock when Run was pressed
    frames: tuple[float, ...]  # when each frame arrived
    calls: int  # images times calls that were asked for
    words: str  # the outcome

    @property
    def gaps(self) -> list[float]:
        """Seconds between frames."""
        return np.diff(self.frames).tolist()


def main(visitors: str = "1,8,30", device: str = "auto") -> None:
    """Print one table, a line for each number of visitors."""
    with started("--device", device) as app:
        time.sleep(MEASURING)
        rows = [_measure(app.address, app.pid, int(n), wave) for wave, n in _waves(visitors)]
    print(
        "visitors  images/s  first frame p50/p95 s  frame gap p50/p95 ms"
        "  last frame p50/max s  memory MB"
    )
    print("\n".join(rows))


def _waves(visitors: str) -> list[tuple[int, str]]:
    return list(enumerate(visitors.split(",")))


def _measure(address: str, pid: int, visitors: int, wave: int) -> str:
    clients = [Client(address, verbose=False) for _ in range(visitors)]
    asked = _requests(visitors, wave)
    together = threading.Barrier(visitors)
    memory, done = [_memory(pid)], threading.Event()
    watcher = threading.Thread(target=_watch_memory, args=(pid, memory, done))
    watcher.start()
    with ThreadPoolExecutor(visitors) as pool:
        visits = list(pool.map(_visit, clients, asked, [together] * visitors, timeout=ONE_RUN))
    done.set()
    watcher.join()
    return _row(visits, max(memory))


def _requests(visitors: int, wave: int) -> list[tuple[str, int, str, str, str]]:
    """Different seeds, steps and numbers of faces; the same every time this is run."""
    rng = random.Random(wave)
    return [
        (
            str(1000 * wave + 20 * i),
            rng.choice([1, 4]),
            str(rng.choice([20, 50, 100])),
            str(rng.choice([10, 20, 50])),
            rng.choice(["0", "0.5"]),
        )
        for i in range(visitors)
    ]


def _visit(client: Client, asked: tuple, together: threading.Barrier) -> Visit:
    acknowledge = _acknowledging(client)
    together.wait()
    begun, frames, words = time.monotonic(), [], ""
    for message in client.submit(*asked, api_name="/compare"):
        if message["type"] == "frame":
            frames.append(time.monotonic())
            if message["receipt"]:
                acknowledge({"run": message["run"], "number": message["number"]})
        words = message.get("words", words)
        if message["type"] == "problem":
            sys.exit(f"A visitor was refused: {words}")
    _, faces, ddpm_steps, ddim_steps, _ = asked
    return Visit(begun, tuple(frames), faces * (int(ddpm_steps) + int(ddim_steps)), words)


def _acknowledging(client: Client):
    """A function that tells the page, as stage.js does, that frames have arrived."""
    stage = next(
        part["id"]
        for part in client.config["components"]
        if part["props"].get("elem_id") == "stage"
    )
    http = httpx.Client(base_url=client.src, timeout=30)
    session = uuid.uuid4().hex

    def acknowledge(receipt: dict) -> None:
        body = {
            "data": receipt,
            "component_id": stage,
            "session_hash": session,
            "fn_name": "ack",
        }
        http.post("gradio_api/component_server", json=body).raise_for_status()

    return acknowledge


def _row(visits: list[Visit], memory: float) -> str:
    first = [visit.frames[0] - visit.begun for visit in visits]
    last = [visit.frames[-1] - visit.begun for visit in visits]
    gaps = [1000 * gap for visit in visits for gap in visit.gaps]
    seconds = max(v.frames[-1] for v in visits) - min(v.begun for v in visits)
    rate = sum(visit.calls for visit in visits) / seconds
    return (
        f"{len(visits):>8}  {rate:>8.0f}  "
        f"{np.percentile(first, 50):>11.2f} / {np.percentile(first, 95):<7.2f}  "
        f"{np.percentile(gaps, 50):>11.0f} / {np.percentile(gaps, 95):<8.0f}  "
        f"{statistics.median(last):>10.1f} / {max(last):<7.1f}  {memory:>9.0f}"
    )


def _watch_memory(pid: int, memory: list[float], done: threading.Event) -> None:
    while not done.wait(0.2):
        memory.append(_memory(pid))


def _memory(pid: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    typer.run(main)
