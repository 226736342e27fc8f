"""Run and Stop in quick succession, on a slow line: what was pressed last holds."""

import pytest

pytestmark = pytest.mark.page

# Everything that is sent to the server arrives a while later.
LATER = """(milliseconds) => {
    const { fetch } = window;
    window.fetch = async (to, options) => {
        const late = options?.method === "POST" ? milliseconds : 0;
        if (String(to).includes("/queue/join")) window.asked = true;
        await new Promise((wait) => setTimeout(wait, late));
        return fetch(to, options);
    };
}"""
TOTALS = """[...document.querySelectorAll('.pane .calls')]
    .map((counter) => counter.textContent.split('/')[1].trim())"""


@pytest.fixture
def slow_line(screen, network):
    network.delay = 0.02
    screen.run(seed=700, left_steps=900, right_steps=900)
    screen.wait("running")
    screen.page.evaluate(LATER, 300)
    return screen


def stop(screen):
    screen.page.click("#stop")
    screen.wait("finished")
    assert screen.words() == "Stopped."


def runs(screen):
    """The next run is on show, and its counters move."""
    screen.wait("running", timeout=5_000)
    screen.wait_calls("left", 1, total=900, high=400)


def test_a_press_of_run_right_after_stop_is_not_lost(slow_line):
    stop(slow_line)
    slow_line.fill(seed=701)
    slow_line.page.click("#run")
    runs(slow_line)
    stop(slow_line)


def test_every_stop_stops_however_quickly_one_follows_the_other(slow_line, network, backend):
    for seed in (701, 702, 703):
        stop(slow_line)
        slow_line.fill(seed=seed)
        slow_line.page.click("#run")
        runs(slow_line)
    stop(slow_line)
    slow_line.page.wait_for_timeout(600)
    made, shown = network.calls, slow_line.calls("left")
    slow_line.page.wait_for_timeout(1000)
    assert network.calls <= made + 1  # the step under way is finished
    assert slow_line.calls("left") == shown
    assert slow_line.words() == "Stopped."
    assert backend.engine.load == (0, 0)


def test_enter_in_a_field_right_after_stop_is_not_lost(slow_line):
    stop(slow_line)
    slow_line.fill(seed=704)
    slow_line.page.press("#seed input", "Enter")
    runs(slow_line)
    stop(slow_line)


def test_of_two_examples_in_a_row_form_and_panes_show_the_same(screen):
    page = screen.page
    page.wait_for_selector("#examples .chips button")
    page.evaluate(LATER, 600)
    page.click("#examples .chips button >> nth=0")
    page.wait_for_function("window.asked")  # and the server has not heard of it yet
    page.click("#examples .chips button >> nth=1")
    screen.wait("finished")
    fields = [page.input_value(f"#{side}_steps input") for side in ("left", "right")]
    assert page.evaluate(TOTALS) == fields
