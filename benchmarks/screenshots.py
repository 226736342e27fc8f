"""The README's screenshots, from the page itself: `python -m benchmarks.screenshots`.

Needs Chromium (`apt-get install chromium`, or CHROMIUM=path).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer
from playwright.sync_api import Page, sync_playwright

from benchmarks.page import ARGUMENTS, chromium, served

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Shot:
    """One picture of the Compare screen after a finished run of the defaults."""

    name: str
    size: tuple[int, int]
    scheme: str
    back: int  # steps back from the end
    lens: str = "x"
    clock: str = "calls"
    equation: bool = False


SHOTS = (
    Shot("compare", (1280, 720), "light", back=64),
    Shot("compare-wide", (1920, 1080), "dark", back=64, lens="x0", clock="noise"),
    Shot("compare-tablet", (768, 1024), "light", back=40, equation=True),
    Shot("compare-phone", (390, 844), "light", back=64),
    Shot("compare-phone-dark", (390, 844), "dark", back=30),
)


MAKE = "make"  # the picture of the other screen
WISHES = ("tone 3 of 11", "black", "dark")  # clicked there


def main(folder: Path = DOCS, device: str = "cpu") -> None:
    """Take every one of SHOTS."""
    with served(device) as (_, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for shot in SHOTS:
            width, height = shot.size
            tab = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=shot.scheme
            )
            tab.goto(address)
            tab.wait_for_selector(".stage[data-state=recorded]")
            tab.locator("#examples button").first.wait_for()
            _prepare(tab, shot)
            tab.screenshot(path=folder / f"{shot.name}.png")
            tab.close()
        _make(browser.new_page(viewport={"width": 1280, "height": 720}), address, folder)
        browser.close()


def _make(tab: Page, address: str, folder: Path) -> None:
    """Sixteen faces to order."""
    tab.goto(f"{address}#make")
    tab.wait_for_selector(".make figure")  # the recorded ones
    for title in WISHES[:2]:
        tab.click(f".make .swatch[title='{title}']")
    tab.click(f".make label span:text-is('{WISHES[2]}')")
    tab.click(".make .go")
    tab.wait_for_selector(".make[data-state=finished]", timeout=120_000)
    tab.evaluate("document.activeElement.blur()")
    tab.wait_for_timeout(500)
    tab.screenshot(path=folder / f"{MAKE}.png")


def _prepare(tab: Page, shot: Shot) -> None:
    tab.click("#run")
    tab.wait_for_selector(".stage[data-state=finished]", timeout=120_000)
    tab.select_option("#lens", shot.lens)
    tab.check(f".clock input[value={shot.clock}]", force=True)
    tab.evaluate("document.activeElement.blur()")
    for _ in range(shot.back):
        tab.keyboard.press("ArrowLeft")
    if shot.equation:
        tab.click(".equation > summary")
        tab.evaluate("document.activeElement.blur()")
    tab.wait_for_timeout(500)


if __name__ == "__main__":
    typer.run(main)
