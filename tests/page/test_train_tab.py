"""The Train tab in a real browser: it starts, shows, survives, and is its owner's."""

import json
import os
import re
import shutil
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
from diffusion.train_config import PRESETS, TrainConfig

pytestmark = [pytest.mark.page, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SMALLEST = {"size": 16, "widths": (16, 32), "batch": 4, "T": 50, "threads": 1}
UNANSWERED = json.dumps(wording_train.TRAIN["unanswered"])


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
    drawn_by = page.inner_text("#model-notice .by")
    assert drawn_by == "Drawn by a model trained here: Pixel art, 32 px."
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


CALLS = "**/component_server/**"  # of the page's scripts to their server


def put(runs, name, previews=(), model=False):
    """A run as one finds it after its trainer, of another browser, has ended."""
    run = Run(runs / name)
    run.create("pixel-art", TrainConfig(images=1000, **SMALLEST))
    run.previews.mkdir()
    for images in previews:
        Image.new("RGB", (68, 68), (0, images, 0)).save(run.previews / f"{images:07d}.png")
    if model:
        run.model_folder.mkdir()
        (run.model_folder / "config.json").write_text("{}")
    run.write_status("stopped", max(previews, default=0))
    return run


@pytest.fixture
def found(runs):
    """Two runs, the second without a preview."""
    both = [put(runs, "with", (0, 100, 200), model=True), put(runs, "without")]
    yield both
    for run in both:
        shutil.rmtree(run.folder, ignore_errors=True)


def watch(tab, name):
    tab.page.click(f".runs li[data-run={name}] button")
    tab.page.wait_for_selector(f".runs li[data-run={name}] [aria-current=true]")


def sheet_of(images):
    return f"document.querySelector('.sheet canvas').dataset.images === '{images}'"


def is_blank(tab):
    return tab.page.evaluate(
        """() => {
            const canvas = document.querySelector('.sheet canvas');
            const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return all.data.every((value) => value === 0);
        }"""
    )


class Held:
    """The first call of the server that says so is held until it may go on."""

    def __init__(self, page, words):
        self.page, self.words, self.routes = page, words, []
        page.route(CALLS, self.handle)

    def handle(self, route):
        if not self.routes and self.words in (route.request.post_data or ""):
            self.routes.append(route)
        else:
            route.continue_()

    def wait(self):
        end = time.monotonic() + 30
        while not self.routes and time.monotonic() < end:
            self.page.wait_for_timeout(20)

    def go_on(self):
        self.routes[0].continue_()


def drop(page, selector):
    """Drop a picture there; returns whether the browser was kept from opening it."""
    return page.evaluate(
        """(selector) => {
            const carried = new DataTransfer();
            carried.items.add(new File(['x'], 'face.png', {type: 'image/png'}));
            const how = {bubbles: true, cancelable: true, dataTransfer: carried};
            return ['dragover', 'drop'].every(
                (kind) => !document.querySelector(selector).dispatchEvent(new DragEvent(kind, how))
            );
        }""",
        selector,
    )


@pytest.mark.parametrize("lose", ["abort", "fulfill"])
def test_a_server_that_is_lost_is_told_of_and_no_button_stays_dead(tab, found, lose, tmp_path):
    page = tab.page
    watch(tab, "with")
    tab.wait(sheet_of(200))
    how = {"status": 500} if lose == "fulfill" else {}
    page.route(CALLS, lambda route: getattr(route, lose)(**how))
    for what in ("film", "model"):
        page.click(f".actions .{what}")
        page.wait_for_selector(".train .refusal:not(:empty)")
        assert tab.text(".refusal") == wording_train.TRAIN["unanswered"]
        assert page.is_enabled(f".actions .{what}")
    page.click(".train label:has([value=pixel-art])")
    page.wait_for_selector(".estimate .words.problem")
    assert tab.text(".estimate .words") == wording_train.TRAIN["lost"]
    page.click(".train .start")
    tab.wait(f"document.querySelector('.estimate .words').textContent === {UNANSWERED}")
    assert page.is_enabled(".train .start")
    page.click(".train label.own")
    Image.new("RGB", (20, 20)).save(tmp_path / "face.png")
    page.set_input_files(".train .files", str(tmp_path / "face.png"))
    tab.wait(f"document.querySelector('.taken').textContent === {UNANSWERED}")
    page.wait_for_selector(".train .lost:not([hidden])", timeout=15_000)
    page.unroute(CALLS)
    page.wait_for_selector(".train .lost", state="hidden", timeout=15_000)


def test_an_estimate_that_was_lost_comes_when_the_server_is_back(tab):
    page = tab.page
    page.route(CALLS, lambda route: route.abort())
    page.click(".train label:has([value=pixel-art])")
    page.wait_for_selector(".estimate .words.problem")
    page.unroute(CALLS)
    tab.wait("document.querySelector('.estimate .words').textContent.includes('images/s here')")


def test_a_link_with_an_operators_key_leaves_the_browsers_own_name_alone(tab, training):
    page, kept = tab.page, "localStorage.getItem('cartoon-owner')"
    before = page.evaluate(kept)
    assert len(before) == 48
    sent = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    tab.open(training + "?operator=" + "k" * 40)
    tab.wait("document.querySelector('.estimate .words').textContent.includes('images/s here')")
    assert page.evaluate(kept) == before
    looks = [json.loads(data)["data"] for data in sent if '"look"' in data and '"owner"' in data]
    assert looks[-1]["owner"] == before
    assert looks[-1]["operator"] == "k" * 40
    # A reload without the address still has the key, another visit has not.
    other = Tab(page.context.browser, training)
    assert other.page.evaluate("sessionStorage.getItem('cartoon-operator')") is None
    other.context.close()
    assert page.evaluate("sessionStorage.getItem('cartoon-operator')") == "k" * 40


def test_a_browser_that_may_keep_nothing_shows_one_screen_and_trains(browser, training):
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.add_init_script(
        """for (const name of ['localStorage', 'sessionStorage'])
            Object.defineProperty(window, name, {get() { throw new DOMException('denied'); }});"""
    )
    page = context.new_page()
    page.goto(training + "#train")
    page.wait_for_selector(".train .estimate .words:not(:empty)")
    screens = ("compare", "make", "train")
    assert [name for name in screens if page.is_visible(f"#{name}")] == ["train"]
    page.click("#header [data-tab=make]")
    assert [name for name in screens if page.is_visible(f"#{name}")] == ["make"]
    context.close()


def test_nothing_of_one_run_stays_beside_the_facts_of_another(tab, found):
    page = tab.page
    watch(tab, "with")
    tab.wait(sheet_of(200))
    assert tab.text(".position").startswith("after 200 images")
    assert not is_blank(tab)
    watch(tab, "without")
    tab.wait("document.querySelector('.scrub').disabled")
    assert is_blank(tab)
    assert page.text_content(".train .position") == ""
    watch(tab, "with")
    tab.wait(sheet_of(200))


def test_a_time_lapse_pauses_when_another_tab_is_opened(tab, found):
    page = tab.page
    watch(tab, "with")
    tab.wait(sheet_of(200))
    held = Held(page, '"images":100')
    page.click(".lapse .play")
    held.wait()
    with page.expect_response(lambda response: '"look"' in (response.request.post_data or "")):
        page.click("#header [data-tab=make]")
    assert page.locator(".lapse .play.playing").count() == 1
    held.go_on()
    page.wait_for_selector(".lapse .play:not(.playing)", state="attached", timeout=5_000)
    page.click("#header [data-tab=train]")
    page.click(".lapse .play")
    tab.wait(sheet_of(200))


def test_a_refusal_stays_until_the_next_action(tab, found):
    page = tab.page
    watch(tab, "with")
    tab.wait(sheet_of(200))
    shutil.rmtree(found[0].model_folder)
    page.click(".actions .model")
    page.wait_for_selector(".train .refusal:not(:empty)")
    assert tab.text(".refusal") == wording_train.NO_MODEL
    page.wait_for_selector(".actions .model", state="hidden")  # the next answer has come
    assert tab.text(".refusal") == wording_train.NO_MODEL
    watch(tab, "without")
    tab.wait("document.querySelector('.scrub').disabled")
    assert not tab.shows(".refusal")


def test_really_delete_is_asked_anew_for_every_run(browser, training, runs, found):
    tab = Tab(browser, f"{training}?operator={(runs / '.operator').read_text()}")
    page = tab.page
    watch(tab, "with")
    page.click(".actions .delete")
    assert tab.text(".actions .delete") == wording_train.TRAIN["really"]
    watch(tab, "without")
    assert tab.text(".actions .delete") == wording_train.TRAIN["delete"]
    tab.wait("document.querySelector('.scrub').disabled")
    # Until the server has told of the run, its buttons are still those of the other one.
    held = Held(page, '"run":"with"')
    page.click(".runs li[data-run=with] button")
    held.wait()
    page.click(".actions .delete")
    assert tab.text(".actions .delete") == wording_train.TRAIN["delete"]
    held.go_on()
    tab.wait(sheet_of(200))
    page.click(".actions .delete")
    page.click(".actions .delete")
    page.wait_for_selector(".runs li[data-run=with]", state="detached")
    assert tab.errors == []
    tab.context.close()
    assert [path.name for path in folders(runs)] == ["without"]


def test_a_refused_set_of_pictures_does_not_leave_an_earlier_one(tab, tmp_path):
    page, wishes = tab.page, []
    page.on("request", lambda request: wishes.append(request.post_data or ""))
    page.click(".train label.own")
    names = [str(tmp_path / f"face{i}.png") for i in range(16)]
    for i, name in enumerate(names):
        Image.new("RGB", (20, 20), (10 * i, 0, 0)).save(name)
    page.set_input_files(".train .files", names)
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")
    page.set_input_files(".train .files", names[:3])
    page.wait_for_selector(".taken.problem")
    page.click(".train .start")
    page.wait_for_selector(".estimate .words.problem")
    assert tab.text(".estimate .words") == wording_train.NO_PICTURES
    starts = [json.loads(data)["data"] for data in wishes if '"fn_name":"start"' in data]
    assert [wish["upload"] for wish in starts] == [None]


def test_only_the_latest_set_of_pictures_counts(tab, tmp_path):
    page = tab.page
    page.click(".train label.own")
    names = [str(tmp_path / f"face{i}.png") for i in range(17)]
    for i, name in enumerate(names):
        Image.new("RGB", (20, 20), (10 * i, 0, 0)).save(name)
    held = Held(page, '"take"')
    page.set_input_files(".train .files", names[:16])
    held.wait()
    page.set_input_files(".train .files", names)
    tab.wait("document.querySelector('.taken').textContent === '17 pictures are ready.'")
    with page.expect_response(lambda response: '"take"' in (response.request.post_data or "")):
        held.go_on()
    page.wait_for_timeout(200)
    assert tab.text(".taken") == "17 pictures are ready."


def test_pictures_that_are_dropped_are_estimated_as_ones_own(tab):
    page, wishes = tab.page, []
    tab.wait("document.querySelector('.estimate .words').textContent.includes('images/s here')")
    page.on("request", lambda request: wishes.append(request.post_data or ""))
    with page.expect_request(lambda request: '"estimate"' in (request.post_data or "")) as asked:
        assert drop(page, ".train .pictures")
    assert json.loads(asked.value.post_data)["data"]["pictures"] == "own"
    assert page.is_visible(".train .drop")


@pytest.mark.parametrize("name", ["compare", "make", "train"])
def test_a_file_that_is_dropped_anywhere_does_not_take_the_page_away(tab, name):
    tab.page.click(f"#header [data-tab={name}]")
    assert drop(tab.page, "#credits")


def test_only_pages_that_are_looked_at_measure_the_machine_when_a_run_ends(tab, runs, monkeypatch):
    page, asked = tab.page, []
    run = put(runs, "going")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "alive", property(lambda run: True))
        words = "document.querySelector('.estimate .words')"
        tab.wait(f"{words}.dataset.busy === 'yes'", 15_000)
        page.click("#header [data-tab=make]")
        page.on("request", lambda request: asked.append(request.post_data or ""))
    page.wait_for_selector("#pill", state="hidden", timeout=15_000)
    assert not [data for data in asked if '"estimate"' in data]
    page.click("#header [data-tab=train]")
    tab.wait(f"{words}.textContent.includes('images/s here')")
    shutil.rmtree(run.folder)


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
