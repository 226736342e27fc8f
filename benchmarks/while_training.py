"""What a training takes away from the page: `python -m benchmarks.while_training`.

The page runs in a process of its own, as `python app.py` starts it, and Chromium looks at it. By
turns, nothing else goes on, or a training does that was started with the Train tab's button. Runs
are kept in a folder of this measurement's own.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, count
from typing import Annotated

import typer
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.app import PATIENCE, started
from benchmarks.page import ARGUMENTS, chromium
from benchmarks.startup import SETTLED, click_run
from diffusion.cartoons import STYLES

STEADY = 10.0  # seconds of training, before what it takes away is measured
BETWEEN = 600  # milliseconds from one event to the next
# The Train tab's own question: how are the runs?
LOOK = """async ([count, between]) => {
    const { components } = window.gradio_config;
    const tab = components.find((one) => one.props.elem_id === "training");
    const body = JSON.stringify({
        data: { owner: "", run: null }, component_id: tab.id, fn_name: "look", session_hash: "look",
    });
    const times = [];
    for (let i = 0; i < count; i++) {
        const begun = performance.now();
        const answer = await fetch("gradio_api/component_server", {
            method: "POST", headers: { "Content-Type": "application/json" }, body,
        });
        if (!("runs" in (await answer.json()))) throw new Error("the Train tab does not answer");
        times.push(performance.now() - begun);
        await new Promise((resolve) => setTimeout(resolve, between));
    }
    return times;
}"""
# Another sampler on the right, until its label is there; the page does that by itself.
CHANGE = """async ([count, between]) => {
    const label = document.querySelector("#right_steps"), times = [];
    const choices = [...document.querySelectorAll("#right_sampler input[type=radio]")];
    for (let i = 0; i < count; i++) {
        const choice = choices.find((one) => one.value === ["dpmpp_2m", "ddim"][i % 2]);
        const before = label.textContent, begun = performance.now();
        choice.click();
        while (label.textContent === before) {
            if (performance.now() - begun > 10_000) throw new Error("the label stays as it was");
            await new Promise((resolve) => setTimeout(resolve));
        }
        times.push(performance.now() - begun);
        await new Promise((resolve) => setTimeout(resolve, between));
    }
    return times;
}"""
Seen = dict[str, list[float]]  # what: milliseconds, as the browser saw them


def main(
    rounds: Annotated[int, typer.Option(help="Of each, by turns.")] = 5,
    events: Annotated[int, typer.Option(help="Of each kind, in a turn.")] = 20,
    runs: Annotated[int, typer.Option(help="Default comparisons, in a turn.")] = 3,
    style: Annotated[str, typer.Option(help=", ".join(STYLES))] = "toon-head",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    backend: Annotated[str, typer.Option(help="How the CPU computes, as app.py has it.")] = "auto",
) -> None:
    """Print one table: medians over all turns, and the median of the ratios within rounds."""
    with (
        tempfile.TemporaryDirectory() as folder,
        started("--device", device, "--backend", backend, CARTOON_RUNS=folder) as app,
        sync_playwright() as playwright,
    ):
        time.sleep(SETTLED)
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        tab = browser.new_page(viewport={"width": 1280, "height": 720})
        tab.goto(app.address)
        tab.wait_for_selector(".stage[data-state=recorded]")
        seeds = count(1000)
        click_run(browser, app.address, next(seeds))  # the first of a page takes longer
        quiet, busy, speeds = [], [], []
        try:
            for _ in range(rounds):
                quiet.append(_measure(browser, tab, seeds, events, runs))
                _train(tab, style)
                busy.append(_measure(browser, tab, seeds, events, runs))
                speeds.append(_stop(tab))
        finally:
            _stop(tab)
        browser.close()
    print(f"{'':26}   alone  training  ratio")
    for what in quiet[0]:
        print(f"{what:26} {_row([turn[what] for turn in quiet], [turn[what] for turn in busy])}")
    print(f"while the page was at rest, the training saw {statistics.median(speeds):.0f} images/s")


def _measure(browser: Browser, tab: Page, seeds: Iterator[int], events: int, runs: int) -> Seen:
    seen = {
        "a look at the runs, ms": tab.evaluate(LOOK, [events, BETWEEN]),
        "a change of settings, ms": tab.evaluate(CHANGE, [2 * -(-events // 2), BETWEEN]),
    }
    clicks = [click_run(browser, tab.url, next(seeds)) for _ in range(runs)]
    seen["Run to first frame, ms"] = [1e3 * first for first, _ in clicks]
    seen["Run to last frame, ms"] = [1e3 * last for _, last in clicks]
    return seen


def _train(tab: Page, style: str) -> None:
    """Press Train or, from the second time on, Continue; back to Compare once it is under way."""
    tab.click("#header [data-tab=train]")
    if tab.is_visible(".train .actions .continue"):
        tab.click(".train .actions .continue")
    else:
        tab.check(f".train [name=pictures][value={style}]", force=True)
        tab.fill(".train [name=free]", "600")
        tab.click(".train .start")
    tab.wait_for_function(
        "document.querySelector('.facts .state').textContent === 'training'"
        " && document.querySelector('.loss path').getAttribute('d')",
        timeout=1e3 * PATIENCE,
    )
    time.sleep(STEADY)
    tab.click("#header [data-tab=compare]")


def _stop(tab: Page) -> float:
    """Press Stop, and wait for the training's end; returns its last images/s."""
    tab.click("#header [data-tab=train]")
    tab.wait_for_timeout(3000)
    speed = tab.inner_text(".train dd.speed")
    if tab.is_visible(".train .actions .stop"):
        tab.click(".train .actions .stop")
        tab.wait_for_selector(".train .actions .continue", timeout=1e3 * PATIENCE)
    tab.click("#header [data-tab=compare]")
    return float(speed.replace(",", "")) if speed[:1].isdigit() else 0.0


def _row(alone: list[list[float]], training: list[list[float]]) -> str:
    ratios = [
        statistics.median(busy) / statistics.median(quiet)
        for quiet, busy in zip(alone, training, strict=True)
    ]
    medians = [statistics.median(chain.from_iterable(turns)) for turns in (alone, training)]
    return f"{medians[0]:>7.0f}  {medians[1]:>8.0f}  {statistics.median(ratios):>5.2f}"


if __name__ == "__main__":
    typer.run(main)
