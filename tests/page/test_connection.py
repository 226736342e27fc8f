"""Requests that are lost on their way, and streams that break: what was drawn is never lost."""

import time

import pytest
from conftest import Screen

pytestmark = pytest.mark.page

# Loses requests whose body holds `what`, until `window.losing` says otherwise.
LOSE = """(what) => {
    const { fetch } = window;
    window.losing = what;
    window.lost = 0;
    window.fetch = async (to, options) => {
        if (!losing || !String(options?.body).includes(losing)) return fetch(to, options);
        window.lost++;
        return Response.error();
    };
}"""
# A stream that breaks when the test wants it to.
BRITTLE = """(() => {
    const { fetch } = window;
    window.fetch = async (to, options) => {
        const answer = await fetch(to, options);
        if (!String(to.url).includes("/queue/data")) return answer;
        const reader = answer.body.getReader();
        const body = new ReadableStream({
            start(stream) {
                window.cut = () => stream.error(new TypeError("network error"));
            },
            async pull(stream) {
                const { value, done } = await reader.read();
                if (done) stream.close();
                else stream.enqueue(value);
            },
        });
        return new Response(body, answer);
    };
})()"""
BROKEN = "The connection to the server broke."


def lose(screen, what):
    screen.page.evaluate(LOSE, what)


def find_again(screen):
    screen.page.evaluate("window.losing = ''")


def mark(page):
    """Till it is loaded anew."""
    page.evaluate("window.same = true")


def is_same(page):
    return page.evaluate("window.same === true")


@pytest.fixture
def brittle(page, address):
    """A visitor whose stream can be cut; the browser may write to its console what it likes."""
    page.add_init_script(BRITTLE)
    screen = Screen(page)
    screen.open(address)
    mark(page)
    return screen


def test_a_press_of_run_that_is_lost_is_sent_again_and_the_page_stays(screen):
    page, losses = screen.page, []

    def lost_twice(route):
        losses.append(route)
        route.abort() if len(losses) < 3 else route.continue_()

    mark(page)
    page.route("**/queue/join*", lost_twice)
    screen.run(seed=81, left_steps=4, right_steps=2)
    screen.wait("finished")
    assert "DDPM: 4 calls" in screen.words()
    assert len(losses) == 3
    assert is_same(page)
    screen.errors.clear()  # the browser tells of every request that fails


def test_a_press_of_make_that_is_lost_is_sent_again(page, address):
    losses = []

    def lost_once(route):
        losses.append(route)
        route.abort() if len(losses) < 2 else route.continue_()

    page.goto(f"{address}#make")
    page.wait_for_selector(".make .go:visible")
    mark(page)
    page.route("**/queue/join*", lost_once)
    page.click(".make .go")
    page.wait_for_selector(".make[data-state=finished] .told:text('DDIM: 20 calls')")
    assert len(losses) == 2
    assert is_same(page)


def test_a_broken_stream_leaves_what_is_drawn_and_offers_to_reload(brittle, network):
    page = brittle.page
    network.delay = 0.02
    brittle.run(seed=82, left_steps=400, right_steps=200)
    brittle.wait_calls("left", 5, total=400, high=300)
    page.evaluate("window.cut()")
    page.wait_for_selector(".notice.broken:visible")
    assert page.inner_text(".notice.broken").startswith(BROKEN)
    brittle.wait("finished")
    assert brittle.words().startswith(BROKEN)
    assert page.locator(".toast-wrap:visible").count() == 0
    page.wait_for_timeout(2500)  # Gradio asks every two seconds whether it may reload the page
    reached = brittle.calls("left")
    page.focus(".timeline")
    page.keyboard.press("Home")
    brittle.wait_calls("left", 0, total=400)
    page.keyboard.press("End")
    brittle.wait_calls("left", reached, total=400)
    assert is_same(page)
    page.evaluate("document.querySelector('.words').textContent = ''")
    page.click("#run")
    page.wait_for_selector(f".words.problem:text('{BROKEN}')")
    page.click(".notice.broken button")
    page.wait_for_function("window.same !== true")
    brittle.wait("recorded")
    assert page.input_value("#seed input") == "82"


def test_lost_receipts_hold_the_pictures_back_for_a_moment_only(screen, network):
    network.delay = 0.02
    lose(screen, '"ack"')
    screen.run(seed=83, left_steps=700, right_steps=700)
    screen.page.wait_for_function("window.lost >= 4")  # all that are asked for in a window
    find_again(screen)
    held = screen.calls("left")
    screen.wait_calls("left", held + 100, total=700, high=690)
    assert screen.page.get_attribute(".stage", "data-state") == "running"
    screen.page.click("#stop")


def test_a_stop_that_is_lost_is_told_again(screen, network, backend):
    network.delay = 0.02
    screen.run(seed=84, left_steps=900, right_steps=900)
    screen.wait_calls("left", 5, total=900, high=800)
    lose(screen, '"halt"')
    screen.page.click("#stop")
    screen.page.wait_for_function("window.lost >= 1")
    find_again(screen)
    screen.wait("finished")
    end = time.monotonic() + 10  # the server tells soon that the run goes on
    while backend.engine.load != (0, 0) and time.monotonic() < end:
        screen.page.wait_for_timeout(100)
    assert backend.engine.load == (0, 0)
    assert screen.words() == "Stopped."


def test_stills_that_were_asked_for_in_vain_are_asked_for_again(screen):
    lose(screen, '"fill"')
    screen.run(seed=85, left_steps=12, right_steps=6)
    screen.wait("finished")
    screen.page.select_option("#lens", "x0")
    screen.page.wait_for_selector(".words.problem")
    assert screen.words() == "The server did not answer; try again."
    find_again(screen)
    screen.page.focus(".timeline")
    with screen.page.expect_response(lambda answer: "component_server" in answer.url):
        screen.page.keyboard.press("ArrowLeft")
    screen.page.wait_for_load_state("networkidle")
    screen.page.keyboard.press("End")
    for calls in range(11, 0, -1):
        screen.page.keyboard.press("ArrowLeft")
        screen.wait_calls("left", calls, total=12)
    assert screen.words().startswith("DDIM: 6 calls, ")
