"""The chart under More: where on the measured curves the form is, before anything is run."""

import pytest
from conftest import Screen
from stand_ins import recordings_shown

pytestmark = pytest.mark.page

FLOOR = "Real faces: 37 (N = 1,000, Haar wavelets, ×1000)."


@pytest.fixture
def chart(screen):
    """The screen with the drawer open."""
    screen.page.click("#more-button")
    screen.page.wait_for_selector(".quality .curve")
    return screen


def says(screen, left, right):
    """Wait until the words under the chart are these."""
    screen.page.wait_for_function(
        """(words) => [...document.querySelectorAll('.quality p span')]
            .map((part) => part.textContent).join('|') === words.join('|')""",
        arg=[left, right, FLOOR],
        timeout=5000,
    )


def place(screen, selector):
    """The middle of a circle, in the chart's pixels."""
    return screen.page.eval_on_selector(
        f".quality {selector}", "part => [part.getAttribute('cx'), part.getAttribute('cy')]"
    )


def sides(screen):
    """Which panes have a mark."""
    return screen.page.eval_on_selector_all(
        ".quality .mark", "parts => parts.map((part) => part.dataset.side).sort()"
    )


def choose(screen, **choices):
    for name, value in choices.items():
        screen.page.check(f"#{name} input[value='{value}']", force=True)


def test_the_marks_follow_the_form_before_run(chart, network):
    network.calls = 0
    says(chart, "Left, DDPM, 100 calls: FD 62.", "Right, DDIM, 20 calls: FD 66.")
    assert place(chart, "[data-side=left] circle") == place(
        chart, ".curve[data-sampler=ddpm] circle:last-child"
    )
    chart.fill(left_steps=20, right_steps=5, right_eta="0,5")
    says(chart, "Left, DDPM, 20 calls: FD 98.", "Right, DDIM (η 0.5), 5 calls: FD 175.")
    assert place(chart, "[data-side=right] circle") == place(
        chart, ".curve[data-sampler=ddim][data-eta='0.5'] circle"
    )
    choose(chart, left_sampler="ddpm_large", right_sampler="dpmpp_2m")
    says(
        chart,
        "Left, DDPM (large variance), 20 calls: FD 330.",
        "Right, DPM-Solver++(2M), 5 calls: FD 101.",
    )
    assert network.calls == 0


def test_between_two_measured_numbers_of_calls_the_distance_is_told_as_about(chart):
    chart.fill(left_steps=10, right_steps=10)
    # Halfway between 5 and 20 on a logarithmic scale: √(290 × 98) and √(142 × 66).
    says(chart, "Left, DDPM, 10 calls: FD about 169.", "Right, DDIM, 10 calls: FD about 97.")
    assert sides(chart) == ["left", "right"]


def test_what_was_not_measured_has_no_mark_and_what_is_no_setting_no_words(chart):
    chart.fill(left_steps=1000, right_eta="0.3")
    says(
        chart,
        "Left, DDPM, 1,000 calls: not measured.",
        "Right, DDIM (η 0.3), 20 calls: not measured.",
    )
    assert sides(chart) == []
    chart.fill(left_steps=100, right_eta="0")
    choose(chart, right_spacing="quadratic")
    says(chart, "Left, DDPM, 100 calls: FD 62.", "Right, DDIM, 20 calls: not measured.")
    assert sides(chart) == ["left"]
    chart.fill(left_steps="many")
    says(chart, "", "Right, DDIM, 20 calls: not measured.")


def test_the_chart_is_not_there_while_another_model_draws(chart, address):
    chart.page.goto(f"{address}?model=mine")
    chart.page.wait_for_selector("#model-notice .notice:visible")
    chart.page.click("#more-button")
    chart.page.wait_for_selector("#setup", state="visible")
    chart.page.wait_for_selector("#quality", state="hidden")
    assert chart.page.input_value("#model :is(input, textarea)") == "mine"


def test_a_model_that_was_not_measured_has_no_chart(backend, page):
    from demo.page import build, launch_options

    with recordings_shown():
        blocks = build(backend)
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    screen = Screen(page)
    screen.open(url)
    page.click("#more-button")
    page.wait_for_selector("#setup", state="visible")
    assert page.locator("#quality").count() == 0
    assert screen.errors == []
    blocks.close()
