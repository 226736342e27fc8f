"""How smoothly the page paints, in a real browser: `python -m benchmarks.page`.

A run is computed once; pressed again, it comes from the engine's cache, faster than it can be
shown: what is measured then is the way from the server's yield to the paint, nothing else. Needs
Chromium (`apt-get install chromium`, or CHROMIUM=path).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import typer
from playwright.sync_api import Page, sync_playwright

from demo import messages, quality
from demo.backend import LocalBackend
from demo.page import build, launch_options
from demo.recorded import MODEL
from diffusion import DiffusionModel
from diffusion.reader import reader_beside

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SEEKS = 60
FILMED = 99  # steps of the run that is saved as a film
LONG = 1000  # steps of the run whose memory is measured
MEGA = 1_000_000
# Notes when each number of calls is painted, and how many bytes of pictures are kept.
WATCH = """
    window.painted = {};
    window.kept = 0;
    const Plain = window.Blob;
    window.Blob = class extends Plain {
        constructor(...given) { super(...given); window.kept += this.size; }
    };
    addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
        const counter = document.querySelector('.pane.left .calls');
        if (counter) window.painted[parseInt(counter.textContent)] ??= Date.now();
    }).observe(document.body, {subtree: true, childList: true, characterData: true}));
"""
# Clicks on the timeline, and the milliseconds until the counter beside the canvas has changed.
SEEK = """async (share) => {
    const line = document.querySelector('.timeline'), box = line.getBoundingClientRect();
    const counter = document.querySelector('.pane.left .calls'), before = counter.textContent;
    const point = {clientX: box.left + share * box.width, clientY: box.top + 9, pointerId: 1};
    const begun = performance.now();
    line.setPointerCapture = () => {};
    line.dispatchEvent(new PointerEvent('pointerdown', point));
    while (counter.textContent === before) {
        if (performance.now() - begun > 500) return null;
        await new Promise((resolve) => setTimeout(resolve));
    }
    return performance.now() - begun;
}"""


@dataclass(frozen=True)
class Watched:
    """What one run looked like in the browser."""

    gaps: list[float]  # seconds between paints
    delays: list[float]  # seconds from yield to paint
    frames: int  # that the server made

    @property
    def words(self) -> str:
        """One line."""
        rate = 1 / statistics.median(self.gaps)
        delay = 1000 * np.percentile(self.delays, (50, 95))
        return (
            f"{rate:.1f} painted frames/s (p50), {len(self.gaps) + 1} of {self.frames} painted, "
            f"yield to paint {delay[0]:.0f} / {delay[1]:.0f} ms (p50 / p95)"
        )


def main(steps: int = 250, device: str = "cpu") -> None:
    """Print one table."""
    yields = _note_yields()
    with served(device) as (_, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for faces in (4, 16):
            tab = browser.new_page(viewport={"width": 1280, "height": 720})
            tab.add_init_script(WATCH)
            tab.goto(address)
            tab.wait_for_selector(".stage[data-state=recorded]")
            tab.check(f"#faces input[value='{faces}']", force=True)
            _run(tab, steps)
            print(f"{faces:>2} faces: {_watched(tab, steps, yields).words}")
            if faces == 4:
                print(f"seek: {_seeks(tab)}")
                _run(tab, FILMED)
                for kind in ("mp4", "gif"):
                    print(f"{kind} of {FILMED + 1} moments: {_saving(tab, kind):.1f} s")
                _run(tab, LONG)
                print(f"a finished run of {LONG} steps: {_memory(tab)}")
            tab.close()
        browser.close()


def chromium() -> str:
    """The path of the browser; ends the program where there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not found:
        raise SystemExit("no chromium on this machine; apt-get install chromium, or set CHROMIUM")
    return found


@contextlib.contextmanager
def served(device: str) -> Iterator[tuple[LocalBackend, str]]:
    """The page with the shipped model, in this process, and its address."""
    backend = LocalBackend(DiffusionModel.from_pretrained(MODEL, device))
    measured = quality.load(MODEL, backend.weights)
    page = build(backend, reader=reader_beside(MODEL), quality=measured)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        yield backend, address
    finally:
        page.close()
        backend.close()


def _note_yields() -> dict[int, float]:
    """When the server last made the frame of each number of calls."""
    yields, original = {}, messages.frame

    def frame(run: str, number: int, tick: messages.Tick, *others: object) -> dict:
        message = original(run, number, tick, *others)
        yields[tick.calls[0]] = time.time()
        return message

    messages.frame = frame
    return yields


def _run(tab: Page, steps: int) -> None:
    for side in ("left", "right"):
        tab.fill(f"#{side}_steps input", str(steps))
    tab.click("#run")
    tab.wait_for_selector(".stage[data-state=running]")
    tab.wait_for_selector(".stage[data-state=finished]", timeout=600_000)
    _quiet(lambda: tab.evaluate("window.kept"))


def _quiet(value: Callable[[], object], seconds: float = 1.5) -> None:
    """Until a value has stayed the same for so long."""
    last = None
    while (now := value()) != last:
        last = now
        time.sleep(seconds)


def _watched(tab: Page, steps: int, yields: dict[int, float]) -> Watched:
    """The same run again, from the cache."""
    yields.clear()
    tab.evaluate("window.painted = {}")
    _run(tab, steps)
    painted = {int(calls): at / 1000 for calls, at in tab.evaluate("window.painted").items()}
    shown = sorted(painted[calls] for calls in yields if calls in painted)
    delays = [painted[calls] - at for calls, at in yields.items() if calls in painted]
    return Watched(np.diff(shown).tolist(), delays, len(yields))


def _seeks(tab: Page) -> str:
    shares = np.random.default_rng(0).uniform(0.02, 0.98, SEEKS)
    times = [took for share in shares if (took := tab.evaluate(SEEK, share)) is not None]
    p50, p95 = np.percentile(times, (50, 95))
    return f"{p50:.0f} / {p95:.0f} ms (p50 / p95 of {len(times)})"


def _saving(tab: Page, kind: str) -> float:
    """Seconds from the click until the browser has the file."""
    begun = time.perf_counter()
    with tab.expect_download() as download:
        tab.click(f".keep [data-kind={kind}]")
    download.value.path()
    return time.perf_counter() - begun


def _memory(tab: Page) -> str:
    line = tab.context.new_cdp_session(tab)
    line.send("HeapProfiler.collectGarbage")
    line.send("Performance.enable")
    metrics = {m["name"]: m["value"] for m in line.send("Performance.getMetrics")["metrics"]}
    heap, kept = metrics["JSHeapUsedSize"] / MEGA, tab.evaluate("window.kept") / MEGA
    return f"{heap:.0f} MB of JavaScript, at most {kept:.0f} MB of pictures (all runs of this tab)"


if __name__ == "__main__":
    typer.run(main)
