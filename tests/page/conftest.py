"""A page with a small random network in a real browser; slow enough to be watched if asked."""

import json
import os
import shutil
import time

import pytest
import torch
from stand_ins import CAPACITY, measured, randomised, recordings_shown, results

from demo.backend import LocalBackend
from demo.page import build, launch_options
from demo.quality import load
from diffusion import DiffusionModel, Schedule, UNetConfig
from diffusion.model import ready
from diffusion.results import FILE

SIZE = {"width": 1280, "height": 720}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")


class Slowed(torch.nn.Module):
    """A network whose calls are counted, and take a while when `delay` says so."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config = network, network.config
        self.delay, self.calls = 0.0, 0

    def forward(self, *inputs):
        self.calls += 1
        time.sleep(self.delay)
        return self.network(*inputs)


@pytest.fixture(scope="session")
def network():
    """A random network that looks at x and t, its zero-initialised layers filled."""
    return Slowed(ready(randomised(UNetConfig(size=64, widths=(16, 32)))))


@pytest.fixture(autouse=True)
def full_speed(network):
    """What a test slows down is at full speed again for the next one."""
    yield
    network.delay = 0.0


@pytest.fixture(scope="session")
def backend(network):
    """Where the page's pictures are computed."""
    backend = LocalBackend(DiffusionModel(network, Schedule.cosine()), CAPACITY)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def measured_quality(backend, tmp_path_factory):
    """What the model's folder tells of its quality: distances by sampler, η, variance and calls."""
    rows = [
        *(measured("ddpm", *point) for point in ((5, 0.290), (20, 0.098), (100, 0.062))),
        *(measured("ddpm", *point, variance="large") for point in ((5, 0.905), (20, 0.330))),
        *(measured("ddim", *point) for point in ((5, 0.142), (20, 0.066), (100, 0.060))),
        *(measured("ddim", *point, eta=0.5) for point in ((5, 0.175), (20, 0.071))),
        measured("dpmpp_2m", 5, 0.101),
    ]
    models, floor = {"faces": {"weights": backend.weights}}, measured("", 0, 0.037)
    folder = tmp_path_factory.mktemp("model")
    (folder / FILE).write_text(json.dumps(results(*rows, models=models, floor=floor)))
    return load(folder, backend.weights)


@pytest.fixture(scope="session")
def address(backend, measured_quality):
    """The running page's address; the recordings are shown as if its network had drawn them."""
    with recordings_shown():
        page = build(backend, quality=measured_quality)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url
    page.close()


@pytest.fixture(scope="session")
def profile(tmp_path_factory):
    """The browser's own context: from page to page it keeps files and scripts that are compiled."""
    if not CHROMIUM:
        message = "no chromium on this machine; apt-get install chromium, or set CHROMIUM"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("profile")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        profile = playwright.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=arguments, viewport=SIZE
        )
        yield profile
        profile.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def browser(profile):
    """Debian's Chromium, driven by Playwright; each of its new contexts knows nothing of others."""
    return profile.browser


@pytest.fixture
def page(profile):
    """A page at 1280×720 of a visitor who has never been here, though their browser has its files.

    It loads in half the time that a new context takes; who needs two visitors, or another kind of
    screen, makes one.
    """
    page, visited = profile.new_page(), set()
    page.on("framenavigated", lambda frame: visited.add(frame.url))
    yield page
    forget(profile, visited)


def forget(profile, visited):
    """Leave nothing of a test but files."""
    blank, *pages = profile.pages
    for page in pages:
        page.close()
    line = profile.new_cdp_session(blank)
    for url in visited:
        line.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    line.detach()
    profile.clear_permissions()
    profile.set_offline(False)


# What a message changes is painted in the frame that it asks for.
TWO_FRAMES = """new Promise((painted) => {
    requestAnimationFrame(() => requestAnimationFrame(painted));
})"""


class Screen:
    """The Compare screen as a visitor uses it."""

    def __init__(self, page):
        self.page = page
        self.errors = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, url):
        self.page.goto(url)
        self.page.wait_for_selector("#run")
        self.page.wait_for_function("document.querySelector('.stage .timeline svg') !== null")

    def fill(self, **fields):
        for name, value in fields.items():
            self.page.fill(f"#{name} input", str(value))

    def run(self, **fields):
        self.fill(**fields)
        self.page.click("#run")

    def wait(self, state, timeout=30_000):
        self.page.wait_for_selector(f".stage[data-state={state}]", timeout=timeout)
        self.page.evaluate(TWO_FRAMES)

    def wait_calls(self, pane, low, total, high=None):
        """Until the pane's counter says low (to high) of total."""
        self.page.wait_for_function(
            """([pane, low, high, total]) => {
                const text = document.querySelector(`.pane.${pane} .calls`).textContent;
                const [calls, all] = text.split("/").map(Number);
                return all === total && calls >= low && calls <= high;
            }""",
            arg=[pane, low, low if high is None else high, total],
        )

    def words(self):
        return self.page.inner_text(".stage .words")

    def calls(self, pane):
        text = self.page.text_content(f".pane.{pane} .calls")
        return int(text.split("/")[0]) if "/" in text else None

    def pixels(self, pane):
        """The canvas's content as a string: equal pictures give equal strings."""
        return self.page.evaluate(
            f"document.querySelector('.pane.{pane} canvas').toDataURL('image/png')"
        )


@pytest.fixture
def screen(page, address):
    """A fresh visitor at 1280×720."""
    screen = Screen(page)
    screen.open(address)
    yield screen
    assert screen.errors == []
