"""How soon the page is there, and how soon it shows something: `python -m benchmarks.startup`.

The page runs in a process of its own, as `python app.py` starts it, and Chromium looks at it.
The first start may still have to choose how to compute; the later ones find that remembered.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import typer

from demo.space import answers, end, free_port

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0  # seconds, after which the measurement is given up
SETTLED = 10.0  # seconds after the start, when the engine has timed the machine
WATCH = """() => {
    const canvas = document.querySelector(".pane canvas");
    const stage = document.querySelector(".stage"), begun = performance.now();
    const blank = document.createElement("canvas");
    const before = canvas.toDataURL();
    window.seen = {};
    const painted = () => {
        [blank.width, blank.height] = [canvas.width, canvas.height];
        return ![before, blank.toDataURL()].includes(canvas.toDataURL());
    };
    const look = () => {
        const now = performance.now() - begun;
        if (!window.seen.first && stage.dataset.state === "running" && painted())
            window.seen.first = now;
        if (window.seen.first && stage.dataset.state === "finished") {
            window.seen.last = now;
            return;
        }
        requestAnimationFrame(look);
    };
    document.querySelector("#run").click();
    requestAnimationFrame(look);
}"""


@dataclass(frozen=True)
class Start:
    """Seconds of one start and of the runs after it."""

    answer: float  # from the start of the process to the first page
    first: list[float]  # per run: from the click to the first painted frame
    last: list[float]  # per run: from the click to the last frame


def main(starts: int = 3, runs: int = 3, backend: str = "auto") -> None:
    """Print one line per start, and the medians."""
    seen = [_start(runs, backend) for _ in range(starts)]
    print("process start to page s   click to first frame ms   click to last frame s")
    for start in seen:
        first = " ".join(f"{1e3 * seconds:5.0f}" for seconds in start.first)
        last = " ".join(f"{seconds:5.2f}" for seconds in start.last)
        print(f"{start.answer:23.1f}   {first:>24}   {last:>22}")
    medians = (
        statistics.median(start.answer for start in seen),
        1e3 * statistics.median(seconds for start in seen for seconds in start.first),
        statistics.median(seconds for start in seen for seconds in start.last),
    )
    print("median: {:.1f} s, {:.0f} ms, {:.2f} s".format(*medians))


def _start(runs: int, backend: str) -> Start:
    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port), "--backend", backend]
    begun = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as page:
        try:
            address = f"http://127.0.0.1:{port}/"
            while not answers(address):
                if page.poll() is not None or time.perf_counter() - begun > PATIENCE:
                    raise SystemExit("the page did not start; run `python app.py` to see why")
                time.sleep(0.02)
            answer = time.perf_counter() - begun
            time.sleep(SETTLED)
            return Start(answer, *_clicks(address, runs))
        finally:
            end(page)


def _clicks(address: str, runs: int) -> tuple[list[float], list[float]]:
    from playwright.sync_api import sync_playwright

    first, last = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for run in range(runs):
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.goto(address)
            page.wait_for_function("document.querySelector('.stage .timeline svg') !== null")
            page.fill("#seed input", str(1000 + run))  # a run that nobody computed before
            page.evaluate(WATCH)
            page.wait_for_function("window.seen && window.seen.last", timeout=1e3 * PATIENCE)
            seen = page.evaluate("window.seen")
            first.append(seen["first"] / 1e3)
            last.append(seen["last"] / 1e3)
            page.close()
        browser.close()
    return first, last


if __name__ == "__main__":
    typer.run(main)
