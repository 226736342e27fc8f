"""The Train tab in a real browser: runs are started, watched, and survive."""

import contextlib
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
from train_tab import (
    CALLS,
    DETAILED,
    ESTIMATED,
    SMALLEST,
    Held,
    Tab,
    folders,
    pictures,
    put,
    sheet_of,
)

from demo import wording_train
from demo.space import answers, free_port
from diffusion.runs import Run
from diffusion.train_config import TrainConfig

pytest_plugins = ["train_fixtures"]
pytestmark = [pytest.mark.page, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
UNANSWERED = json.dumps(wording_train.TRAIN["unanswered"])


def pid_of(runs):
    return next(Run(path).status()["pid"] for path in folders(runs) if Run(path).alive)


def test_a_run_is_started_watched_reloaded_killed_continued_stopped_and_deleted(
    tab, browser, training, runs
):
    page = tab.page
    page.click(".train label:has([value=pixel-art])")
    tab.wait(ESTIMATED)
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
    other = Tab(browser.new_page(), training)
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
    other.page.close()

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


@pytest.mark.parametrize("lose", ["abort", "fulfill"])
def test_a_server_that_is_lost_is_told_of_and_no_button_stays_dead(tab, found, lose, tmp_path):
    page = tab.page
    tab.watch("with")
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
    page.set_input_files(".train .files", pictures(tmp_path, 1))
    tab.wait(f"document.querySelector('.taken').textContent === {UNANSWERED}")
    page.wait_for_selector(".train .lost:not([hidden])", timeout=15_000)
    page.unroute(CALLS)
    page.wait_for_selector(".train .lost", state="hidden", timeout=15_000)


def test_a_look_that_finds_nothing_new_writes_nothing(tab, found):
    page = tab.page
    tab.watch("with")
    tab.wait(sheet_of(200))
    page.evaluate(
        """() => {
            window.written = [];
            const watch = new MutationObserver((changes) => {
                window.written.push(...changes.map(({target}) => target.outerHTML ?? target.data));
            });
            const changes = {childList: true, characterData: true, subtree: true};
            for (const part of document.querySelectorAll('article.run, .runs, #pill')) {
                watch.observe(part, changes);
            }
        }"""
    )
    with page.expect_response(lambda response: '"look"' in (response.request.post_data or "")):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(200)
    assert page.evaluate("window.written") == []


def test_an_estimate_that_was_lost_comes_when_the_server_is_back(tab):
    page = tab.page
    page.route(CALLS, lambda route: route.abort())
    page.click(".train label:has([value=pixel-art])")
    page.wait_for_selector(".estimate .words.problem")
    page.unroute(CALLS)
    tab.wait(ESTIMATED)


def is_blank(tab):
    return tab.page.evaluate(
        """() => {
            const canvas = document.querySelector('.sheet canvas');
            const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return all.data.every((value) => value === 0);
        }"""
    )


def test_nothing_of_one_run_stays_beside_the_facts_of_another(tab, found):
    page = tab.page
    tab.watch("with")
    tab.wait(sheet_of(200))
    assert tab.text(".position").startswith("after 200 images")
    assert not is_blank(tab)
    tab.watch("without")
    tab.wait(DETAILED)
    assert is_blank(tab)
    assert page.text_content(".train .position") == ""
    tab.watch("with")
    tab.wait(sheet_of(200))


def test_a_time_lapse_pauses_when_another_tab_is_opened(tab, found):
    page = tab.page
    tab.watch("with")
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
    tab.watch("with")
    tab.wait(sheet_of(200))
    shutil.rmtree(found[0].model_folder)
    page.click(".actions .model")
    page.wait_for_selector(".train .refusal:not(:empty)")
    assert tab.text(".refusal") == wording_train.NO_MODEL
    page.wait_for_selector(".actions .model", state="hidden")  # the next answer has come
    assert tab.text(".refusal") == wording_train.NO_MODEL
    tab.watch("without")
    tab.wait(DETAILED)
    assert not tab.shows(".refusal")


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
    tab.wait(ESTIMATED)
    shutil.rmtree(run.folder)


@pytest.fixture
def by_hand(tmp_path):
    """A run that was begun and never trained, in a folder of its own."""
    (faces := tmp_path / "faces").mkdir()
    pictures(faces, 16)
    run = Run(tmp_path / "runs" / "by-hand")
    run.create(str(faces), TrainConfig(images=10**7, **SMALLEST))
    (tmp_path / "runs" / ".operator").write_text("x" * 40)
    yield run
    if run.alive:
        os.kill(run.status()["pid"], signal.SIGKILL)


# app.py, but its trainers do not give way: on a busy machine they would wait for very long.
APP = """
import runpy
from demo import trainings
trainings.NICE = 0
runpy.run_path("app.py", run_name="__main__")
"""


@contextlib.contextmanager
def app(runs):
    """The address of the app in a process of its own, which is killed in the end."""
    port = free_port()
    options = ["--port", str(port), "--device", "cpu", "--backend", "float32"]
    process = subprocess.Popen(
        [sys.executable, "-c", APP, *options],
        cwd=ROOT,
        env={**os.environ, "CARTOON_RUNS": str(runs)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 120
        while not answers(url):
            assert process.poll() is None, "the app has ended"
            assert time.monotonic() < deadline, "the app does not answer"
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_restarted_app_shows_the_run_of_the_one_that_was_killed(browser, by_hand):
    trains = "document.querySelector('.facts .state').textContent === 'training'"
    with app(by_hand.folder.parent) as url:
        operator = Tab(browser.new_page(), url + "?operator=" + "x" * 40)
        operator.page.click(".runs li button")
        operator.page.click(".actions .continue")
        operator.wait(trains)
        operator.page.close()
    pid = by_hand.status()["pid"]
    with app(by_hand.folder.parent) as url:
        assert by_hand.alive
        tab = Tab(browser.new_page(), url)
        tab.wait(trains)
        assert tab.text(".facts .title") == "faces, 16 px"
        os.kill(pid, signal.SIGKILL)
        tab.wait("document.querySelector('article .problem').textContent.length > 0", 15_000)
        tab.page.close()
