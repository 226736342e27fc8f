"""Many visitors on one page: they share work, places and patience."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Screen
from gradio_client import Client
from stand_ins import wait

from demo.backend import LocalBackend
from demo.page import build, launch_options
from diffusion import DiffusionModel, Schedule
from diffusion.engine import Engine
from diffusion.slots import Capacity

pytestmark = pytest.mark.page


@pytest.fixture(autouse=True)
def idle(backend, network):
    """No run of another test goes on."""
    wait(lambda: backend.engine.load == (0, 0))
    network.calls = 0


def test_visitors_with_one_link_cost_one_run(address, network):
    clients = [Client(address, verbose=False) for _ in range(6)]
    network.delay = 0.01

    def last(client):
        return list(client.submit("900", 4, "40", "30", "0", api_name="/compare"))[-1]

    with ThreadPoolExecutor(len(clients)) as visitors:
        messages = list(visitors.map(last, clients))
    assert network.calls == 40
    assert all(message["done"] for message in messages)
    faces = {message["stills"][0]["images"]["x"] for message in messages}
    assert len(faces) == 1


def test_a_closed_tab_frees_its_place(browser, address, backend, network):
    network.delay = 0.05
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#run")
    page.fill("#seed input", "901")
    page.fill("#left_steps input", "900")
    page.click("#run")
    page.wait_for_selector(".stage[data-state=running]")
    wait(lambda: network.calls > 5)
    context.close()
    wait(lambda: backend.engine.load == (0, 0))
    made = network.calls
    time.sleep(0.5)
    assert network.calls <= made + 2


def test_a_cancelled_call_frees_its_place(address, backend, network):
    network.delay = 0.05
    job = Client(address, verbose=False).submit("902", 4, "900", "20", "0", api_name="/compare")
    wait(lambda: network.calls > 5)
    job.cancel()
    wait(lambda: backend.engine.load == (0, 0))
    made = network.calls
    time.sleep(0.5)
    assert network.calls <= made + 2


@pytest.fixture
def narrow(network):
    """A page where one comparison goes on, one waits, and the next is refused."""
    backend = LocalBackend(
        DiffusionModel(network, Schedule.cosine()),
        Capacity(quick=2, full=2, images_per_second=20.0, in_flight=2),
    )
    backend.engine.close()
    backend.engine = Engine(backend.engine.models, backend.engine.capacity, line=1)
    page = build(backend)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url
    page.close()
    backend.close()


def test_the_line_tells_the_place_and_refuses_when_it_is_full(browser, narrow, network):
    network.delay = 0.02
    first = Client(narrow, verbose=False).submit("1", 1, "900", "900", "0", api_name="/compare")
    wait(lambda: network.calls > 2)
    context = browser.new_context()
    page = context.new_page()
    page.goto(narrow)
    page.wait_for_selector("#run")
    page.click("#run")
    page.wait_for_function(
        "document.querySelector('.stage .words').textContent.startsWith('Place 1 in line; ')"
    )
    assert "your turn comes in about" in page.inner_text(".stage .words")
    assert page.is_visible("#stop")
    third = Client(narrow, verbose=False)
    answer = third.predict("3", 1, "5", "5", "0", api_name="/compare")
    assert answer["type"] == "problem"
    assert answer["words"].startswith("1 visitor waits already; try again in about ")
    network.delay = 0.0
    first.cancel()
    page.wait_for_selector(".stage[data-state=finished]", timeout=60_000)
    assert "DDIM: 20 calls" in page.inner_text(".stage .words")
    context.close()


@pytest.fixture
def finished(browser, narrow):
    """A visitor of the narrow page whose run is done, with another sampler chosen for the next."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    screen = Screen(context.new_page())
    screen.open(narrow)
    screen.run(seed=904, left_steps=6, right_steps=3)
    screen.wait("finished")
    screen.page.wait_for_load_state("networkidle")
    screen.page.click("#more-button")
    screen.page.check("#left_sampler input[value='dpmpp_2m']", force=True)
    yield screen
    context.close()
    assert screen.errors == []


def on_show(screen):
    """What a finished run leaves on the page."""
    page = screen.page
    titles = page.locator(".pane .title, .pane .how").all_inner_texts()
    enabled = page.locator(".keep [data-kind]:enabled, .stage .play:enabled").count()
    disabled = page.get_attribute(".timeline", "aria-disabled")
    return titles, enabled, disabled, screen.pixels("left"), screen.pixels("right")


def test_a_run_that_is_refused_leaves_the_one_on_show(finished, narrow, network):
    before = on_show(finished)
    assert before[1:3] == (4, "false")
    network.delay = 0.02
    clients = [Client(narrow, verbose=False) for _ in range(2)]
    jobs = [
        client.submit(str(seed), 1, "900", "900", "0", api_name="/compare")
        for seed, client in enumerate(clients)
    ]
    wait(lambda: all(job.outputs() for job in jobs))
    finished.page.click("#run")
    finished.page.wait_for_selector(".words.problem")
    assert finished.words().startswith("1 visitor waits already")
    finished.wait("finished")
    assert on_show(finished) == before
    for job in jobs:
        job.cancel()


def test_a_run_that_is_stopped_in_line_leaves_the_one_on_show(finished, narrow, network):
    before = on_show(finished)
    network.delay = 0.02
    job = Client(narrow, verbose=False).submit("1", 1, "900", "900", "0", api_name="/compare")
    wait(lambda: job.outputs())
    finished.page.click("#run")
    finished.page.wait_for_function(
        "document.querySelector('.stage .words').textContent.startsWith('Place 1 in line; ')"
    )
    assert on_show(finished)[3:] == before[3:]
    finished.page.click("#stop")
    finished.wait("finished")
    assert finished.words() == "Stopped."
    assert on_show(finished) == before
    job.cancel()


@pytest.mark.slow
def test_a_slow_viewer_is_never_two_seconds_behind_and_sees_the_end(
    screen, monkeypatch, backend, network
):
    from demo import messages

    produced, original = {}, messages.frame

    def frame(run, number, tick, *others):
        produced[tick.calls[0]] = time.time()
        return original(run, number, tick, *others)

    monkeypatch.setattr(messages, "frame", frame)
    page = screen.page
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    slow = {"latency": 100, "downloadThroughput": 1_000_000, "uploadThroughput": 1_000_000}
    line.send("Network.emulateNetworkConditions", {"offline": False, **slow})
    page.evaluate(
        """() => {
            window.painted = {};
            const counter = document.querySelector('.pane.left .calls');
            const note = () => {
                const calls = parseInt(counter.textContent);
                if (counter.textContent.endsWith('/ 90')) window.painted[calls] ??= Date.now();
            };
            const changes = {childList: true, characterData: true, subtree: true};
            new MutationObserver(note).observe(counter, changes);
        }"""
    )
    page.check("#faces input[value='16']", force=True)
    screen.run(seed=903, left_steps=90, right_steps=45)
    screen.wait("finished", timeout=120_000)
    painted = {int(calls): at / 1000 for calls, at in page.evaluate("window.painted").items()}
    assert 90 in painted
    behind = [at - produced[calls] for calls, at in painted.items()]
    assert len(behind) > 20
    assert max(behind) <= 2.0
    print(f"{len(painted)} of 91 painted, at most {max(behind):.2f} s behind")
