"""How soon the page is there, and how soon it shows something: `python -m benchmarks.startup`.

The page runs in a process of its own, as `python app.py` starts it, and Chromium looks at it.
The first start may still have to choose how to compute; the later ones find that remembered.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import typer
from playwright.sync_api import Browser, sync_playwright

from benchmarks.app import PATIENCE, started
from benchmarks.page import ARGUMENTS, chromium

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
    const finished = new MutationObserver(() => {
        if (!window.seen.first || stage.dataset.state !== "finished") return;
        window.seen.last = performance.now() - begun;
        finished.disconnect();
    });
    finished.observe(stage, { attributeFilter: ["data-state"] });
    const look = () => {
        if (stage.dataset.state === "running" && painted())
            window.seen.first = performance.now() - begun;
        else requestAnimationFrame(look);
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
    with started("--backend", backend) as app, sync_playwright() as playwright:
        time.sleep(SETTLED)
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        clicks = [click_run(browser, app.address, seed=1000 + run) for run in range(runs)]
        browser.close()
    return Start(app.seconds, [first for first, _ in clicks], [last for _, last in clicks])


def click_run(browser: Browser, address: str, seed: int) -> tuple[float, float]:
    """Seconds from a click on Run to the first painted frame, and to the last.

    The seed is one that nobody has drawn yet, or it would come from the cache.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(address)
    page.wait_for_selector(".stage[data-state=recorded]")
    page.wait_for_selector("#run")
    page.fill("#seed input", str(seed))
    page.evaluate(WATCH)
    page.wait_for_function("window.seen && window.seen.last", timeout=1e3 * PATIENCE)
    seen = page.evaluate("window.seen")
    page.close()
    return seen["first"] / 1e3, seen["last"] / 1e3


if __name__ == "__main__":
    typer.run(main)
