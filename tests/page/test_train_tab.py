"""The Train tab in a real browser: it starts, shows, survives, and is its owner's."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from demo import estimate, trainings, wording_train
from demo.backend import LocalBackend
from demo.page import build, launch_options
from demo.space import answers, end, free_port
from demo.trainings import Rules, Trainings
from demo.uploads import MOST_BYTES, MOST_SENT
from diffusion import DiffusionModel, Schedule
from diffusion.runs import Run
from diffusion.slots import Capacity
from diffusion.train_config import PRESETS

pytestmark = [pytest.mark.page, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SMALLEST = {"size": 16, "widths": (16, 32), "batch": 4, "T": 50, "threads": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    yield (root := tmp_path_factory.mktemp("runs"))
    for path in folders(root):
        if Run(path).alive:
            os.kill(Run(path).status()["pid"], signal.SIGKILL)


def folders(root):
    return [path for path in root.iterdir() if path.name[0] != "."]


@pytest.fixture(scope="module")
def training(network, runs):
    """The address of a page whose trainings are very small, so that they are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", {"widths": (16, 32), "batch": 4, "lr": 1e-3})
        patch.setattr(trainings, "NICE", 0)
        patch.setattr(trainings, "THREADS", 1)
        patch.setattr(trainings, "PREVIEW_SECONDS", 2.0)
        patch.setattr(trainings, "CHECKPOINT_SECONDS", 1.0)
        patch.setattr(estimate.Speeds, "_measure", lambda self, options: 3000.0)
        capacity = Capacity(quick=8, full=32, images_per_second=1000.0, in_flight=256)
        backend = LocalBackend(DiffusionModel(network, Schedule.cosine()), capacity)
        page = build(backend, Trainings(runs, Rules()))
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        yield url
        page.close()
        backend.close()


class Tab:
    """The Train tab as somebody uses it, in a browser of their own."""

    def __init__(self, browser, url, **how):
        self.context = browser.new_context(viewport={"width": 1280, "height": 720}, **how)
        self.page = self.context.new_page()
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.open(url)

    def open(self, url):
        self.page.goto(url + "#train")
        self.page.wait_for_selector("#pill", state="attached")
        self.page.wait_for_selector(".train .start")

    def wait(self, script, timeout=120_000):
        self.page.wait_for_function(script, timeout=timeout)

    def sheet(self):
        """Images of the preview on show."""
        return int(self.page.get_attribute(".sheet canvas", "data-images") or -1)

    def text(self, selector):
        return self.page.inner_text(f".train {selector}")

    def seen(self):
        return int(self.text("dd.images").split("/")[0].replace(",", ""))

    def shows(self, selector):
        return self.page.is_visible(f".train {selector}")


@pytest.fixture
def tab(browser, training):
    tab = Tab(browser, training)
    yield tab
    tab.context.close()
    assert tab.errors == []


def pid_of(runs):
    return next(Run(path).status()["pid"] for path in folders(runs) if Run(path).alive)


def test_a_run_is_started_watched_reloaded_killed_continued_stopped_and_deleted(
    tab, browser, training, runs
):
    page = tab.page
    page.click(".train label:has([value=pixel-art])")
    tab.wait("document.querySelector('.estimate .words').textContent.includes('images/s here')")
    page.click(".train .start")
    tab.wait("Number(document.querySelector('.sheet canvas').dataset.images) >= 0")
    tab.wait("Number(document.querySelector('.sheet canvas').dataset.images) > 0")
    assert re.fullmatch(r"● \d+ %", page.inner_text("#pill"))
    assert tab.text(".facts .title") == "Pixel art, 32 px"
    assert tab.shows(".stop")
    assert not page.is_enabled(".train .start")
    tab.wait("document.querySelector('.loss path').getAttribute('d').length > 20")

    # After a reload everything is there, and on the other tab the pill still is.
    before = tab.seen()
    page.reload()
    page.wait_for_selector(".train article.run:not([hidden])", timeout=60_000)
    tab.wait("document.querySelector('dd.images').textContent.includes('/')")
    assert tab.seen() >= before
    assert tab.shows(".stop")
    page.click("#header [data-tab=compare]")
    page.wait_for_selector("#run")
    assert page.is_visible("#pill")
    page.click("#pill")
    assert page.is_visible(".train .lede")

    # Somebody else sees the same, and cannot stop it.
    other = Tab(browser, training)
    other.page.wait_for_selector(".train article.run:not([hidden])", timeout=60_000)
    other.wait("!document.querySelector('.train .foreign').hidden")
    assert not other.shows(".actions .stop")
    assert not other.shows(".actions .delete")
    assert other.text(".facts .title") == tab.text(".facts .title")
    assert other.text("dd.images").split("/")[1] == tab.text("dd.images").split("/")[1]

    # The trainer is killed: both are told within ten seconds, and it goes on from its checkpoint.
    os.kill(pid_of(runs), signal.SIGKILL)
    killed = time.monotonic()
    said = "document.querySelector('article .problem').textContent.includes('has gone')"
    tab.wait(said, 10_000)
    other.wait(said, 10_000)
    assert time.monotonic() - killed < 10
    assert page.inner_text(".facts .state") == wording_train.STATES["dead"]
    saved = int(
        re.search(r"up to ([\d,]+) images", tab.text("article .problem"))[1].replace(",", "")
    )
    assert saved > 0
    page.click(".actions .continue")
    tab.wait("!document.querySelector('.actions .stop').hidden")
    count = "document.querySelector('dd.images').textContent.split('/')[0].replace(/,/g, '')"
    tab.wait(f"Number({count}) > {saved}")
    other.context.close()

    page.click(".actions .stop")
    tab.wait("document.querySelector('.facts .state').textContent === 'stopped'")
    assert page.is_hidden("#pill")
    page.fill(".scrub", "0")
    tab.wait("document.querySelector('.sheet canvas').dataset.images === '0'")
    with page.expect_download() as film:
        page.click(".actions .film")
    assert Path(film.value.path()).read_bytes()[4:8] == b"ftyp"
    with page.expect_download() as model:
        page.click(".actions .model")
    assert Path(model.value.path()).read_bytes()[:2] == b"PK"

    # The panes draw with it.
    page.click(".actions .compare")
    page.wait_for_selector("#model-notice .notice:not([hidden])")
    assert page.inner_text("#model-notice .by") == "Drawn by your model: Pixel art, 32 px."
    page.wait_for_selector(".stage[data-state=finished]", timeout=120_000)
    page.click("#model-notice button")
    page.wait_for_selector("#model-notice .notice", state="hidden")

    page.click("#header [data-tab=train]")
    page.click(".actions .delete")
    assert page.inner_text(".actions .delete") == wording_train.TRAIN["really"]
    page.click(".actions .delete")
    tab.wait("document.querySelectorAll('.runs li').length === 0")
    assert not folders(runs)


def test_own_pictures_are_taken_and_bad_ones_are_refused_beside_the_button(tab, tmp_path):
    page = tab.page
    page.click(".train label.own")
    (tmp_path / "notes.png").write_text("no picture")
    page.set_input_files(".train .files", str(tmp_path / "notes.png"))
    page.wait_for_selector(".taken.problem")
    assert tab.text(".taken").startswith("notes.png is not a picture;")
    for i in range(16):
        Image.new("RGB", (20, 20), (10 * i, 0, 0)).save(tmp_path / f"face{i}.png")
    page.set_input_files(".train .files", [str(tmp_path / f"face{i}.png") for i in range(16)])
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")


def test_files_that_are_too_large_are_refused_before_they_are_sent(tab, tmp_path):
    page, sent = tab.page, []
    page.on("request", lambda request: sent.append(request.url))
    page.click(".train label.own")
    with open(tmp_path / "faces.zip", "wb") as file:
        file.truncate(MOST_SENT + 1)
    page.set_input_files(".train .files", str(tmp_path / "faces.zip"))
    page.wait_for_selector(".taken.problem")
    assert tab.text(".taken") == wording_train.too_big("faces.zip", MOST_SENT)
    for i in range(6):
        with open(tmp_path / f"{i}.zip", "wb") as file:
            file.truncate(MOST_SENT)
    page.set_input_files(".train .files", [str(tmp_path / f"{i}.zip") for i in range(6)])
    assert tab.text(".taken") == wording_train.too_much(MOST_BYTES)
    assert not [url for url in sent if "upload" in url]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844), (768, 1024)])
def test_the_choices_and_the_button_fit_without_scrolling(tab, width, height):
    tab.page.set_viewport_size({"width": width, "height": height})
    box = tab.page.locator(".train .start").bounding_box()
    assert box["y"] + box["height"] <= height
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_tabs_are_reached_by_keyboard(tab):
    page = tab.page
    page.focus("#header [data-tab=train]")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#header [data-tab=make]", "aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#header [data-tab=compare]", "aria-selected") == "true"
    page.wait_for_selector("#run")
    assert not page.is_visible(".train .lede")


def test_a_restarted_app_shows_the_run_of_the_one_that_was_killed(browser, tmp_path):
    run = Run(tmp_path / "runs" / "by-hand")
    from diffusion.train_config import TrainConfig

    (pictures := tmp_path / "faces").mkdir()
    for i in range(16):
        Image.new("RGB", (20, 20), (10 * i, 0, 0)).save(pictures / f"{i}.png")
    run.create(str(pictures), TrainConfig(images=10**7, **SMALLEST))
    (tmp_path / "runs" / ".operator").write_text("x" * 40)
    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "CARTOON_RUNS": str(tmp_path / "runs")}
    url = f"http://127.0.0.1:{port}/"

    def app():
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not answers(url) and time.monotonic() < deadline:
            time.sleep(0.2)
        return process

    first = app()
    try:
        operator = Tab(browser, url + "?operator=" + "x" * 40)
        operator.page.click(".runs li button")
        operator.page.click(".actions .continue")
        operator.wait("document.querySelector('.facts .state').textContent === 'training'")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    second = app()
    try:
        pid = run.status()["pid"]
        assert run.alive
        tab = Tab(browser, url)
        tab.wait("document.querySelector('.facts .state').textContent === 'training'")
        assert tab.text(".facts .title") == "faces, 16 px"
        os.kill(pid, signal.SIGKILL)
        tab.wait("document.querySelector('article .problem').textContent.length > 0", 15_000)
    finally:
        end(second)
        if run.alive:
            os.kill(run.status()["pid"], signal.SIGKILL)
