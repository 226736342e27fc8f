"""Other looks at one run: lenses, clocks, an enlarged face, the equation; none runs it again."""

import re
import time

import pytest

pytestmark = pytest.mark.page
LENSES = ("x", "x0", "eps")


def noise(screen, pane):
    """The percentage in a pane's counter."""
    text = screen.page.text_content(f".pane.{pane} .noise")
    return int(text.strip(" ·").split()[0])


def at(screen, calls, total, **fields):
    screen.run(left_steps=total, right_steps=total // 2, **fields)
    screen.wait("finished")
    go(screen, calls, total)


def go(screen, calls, total):
    screen.page.focus(".timeline")
    screen.page.keyboard.press("Home")
    for _ in range(calls):
        screen.page.keyboard.press("ArrowRight")
    screen.wait_calls("left", calls, total=total)


def through(screen, lens):
    """The left pane's pixels through a lens."""
    screen.page.select_option("#lens", lens)
    screen.page.wait_for_function(
        "lens => document.querySelector('.pane.left canvas').getAttribute('aria-label')"
        ".includes(document.querySelector(`#lens option[value=${lens}]`).textContent)",
        arg=lens,
    )
    return screen.pixels("left")


def test_every_lens_shows_every_step_without_running_again(screen, network):
    at(screen, 6, total=12, seed=31)
    screen.page.wait_for_load_state("networkidle")
    network.calls = 0
    screen.page.context.set_offline(True)
    seen = {}
    for calls in (6, 12):
        go(screen, calls, 12)
        for lens in LENSES:
            seen[calls, lens] = through(screen, lens)
            screen.wait_calls("left", calls, total=12)
    assert len(set(seen.values())) == 6
    assert through(screen, "x") == seen[12, "x"]
    assert network.calls == 0
    screen.page.context.set_offline(False)
    screen.errors.clear()  # Gradio's heartbeat notices that the line was cut


def test_a_lens_of_the_recorded_run_asks_for_what_is_there_and_then_no_more(screen):
    screen.wait("recorded")
    asked = []
    screen.page.on("request", lambda request: asked.append("component_server" in request.url))
    through(screen, "x0")
    screen.page.wait_for_timeout(1000)
    before = sum(asked)
    screen.page.wait_for_timeout(1000)
    assert sum(asked) == before <= 4


def test_a_lens_can_be_changed_while_the_run_goes_on(screen, network):
    network.delay = 0.05
    screen.run(seed=32, left_steps=40, right_steps=20)
    screen.wait_calls("left", 5, total=40, high=30)
    through(screen, "x0")
    screen.wait_calls("left", 32, total=40, high=40)
    assert screen.page.get_attribute(".stage", "data-state") == "running"
    network.delay = 0.0
    screen.wait("finished")
    screen.page.wait_for_load_state("networkidle")
    live = screen.pixels("left")
    go(screen, 2, 40)  # before the lens was chosen
    assert screen.pixels("left") != live
    through(screen, "x")
    screen.wait_calls("left", 2, total=40)


@pytest.fixture
def slow_to_fill(screen):
    """Pictures that the browser lacks come late."""

    def late(route):
        if '"fill"' in (route.request.post_data or ""):
            time.sleep(0.3)
        route.continue_()

    screen.page.route(re.compile("component_server"), late)


def test_another_lens_leaves_the_playhead_where_it_is(screen, slow_to_fill):
    screen.run(seed=36, left_steps=30, right_steps=15)
    screen.wait("finished")
    through(screen, "eps")
    screen.wait_calls("left", 30, total=30)
    through(screen, "x")
    go(screen, 12, 30)
    for lens in ("x0", "eps"):
        through(screen, lens)
        screen.wait_calls("left", 12, total=30)


def test_another_lens_leaves_the_playhead_of_a_run_that_goes_on(screen, slow_to_fill, network):
    network.delay = 0.05
    screen.run(seed=37, left_steps=60, right_steps=15)
    screen.wait_calls("left", 10, total=60, high=40)
    go(screen, 8, 60)
    through(screen, "x0")
    screen.wait_calls("left", 8, total=60)
    network.delay = 0.0
    screen.wait("finished")
    screen.page.wait_for_load_state("networkidle")
    screen.wait_calls("left", 8, total=60)


def test_a_lens_with_fewer_pictures_does_not_move_the_playhead_for_the_others(screen):
    screen.wait("recorded")
    screen.page.focus(".timeline")
    screen.page.keyboard.press("End")
    screen.page.keyboard.press("ArrowLeft")
    screen.page.keyboard.press("ArrowLeft")
    screen.page.wait_for_timeout(200)
    before = screen.calls("left")
    assert 90 < before < 100
    for lens in ("eps", "x0"):
        through(screen, lens)
        screen.page.wait_for_timeout(200)
    through(screen, "x")
    screen.wait_calls("left", before, total=100)


def test_a_film_of_a_lens_that_was_just_chosen_has_all_its_moments(screen, slow_to_fill):
    screen.run(seed=38, left_steps=30, right_steps=15)
    screen.wait("finished")
    with screen.page.expect_request(lambda request: '"keep"' in (request.post_data or "")) as kept:
        screen.page.select_option("#lens", "eps")
        screen.page.click(".keep [data-kind=gif]")
    assert "[30,15]]" in kept.value.post_data.replace(" ", "")
    assert kept.value.post_data.replace(" ", "").count("],[") == 30
    says_saved = "document.querySelector('.words').textContent.startsWith('Saved')"
    screen.page.wait_for_function(says_saved)


def test_playback_goes_on_through_another_lens(screen, slow_to_fill):
    screen.run(seed=39, left_steps=60, right_steps=30)
    screen.wait("finished")
    screen.page.click(".play")
    screen.wait_calls("left", 10, total=60, high=40)
    screen.page.select_option("#lens", "eps")
    screen.wait_calls("left", 41, total=60, high=60)
    screen.page.wait_for_selector(".play:not(.playing)")
    screen.wait_calls("left", 60, total=60)


def test_playback_goes_on_by_the_other_clock(screen):
    screen.run(seed=40, left_steps=100, right_steps=20)
    screen.wait("finished")
    screen.page.click(".play")
    screen.wait_calls("left", 50, total=100, high=70)
    for clock in ("noise", "calls"):
        screen.page.check(f".clock input[value={clock}]", force=True)
        screen.page.wait_for_timeout(300)
        assert screen.calls("left") >= 45
        assert screen.page.locator(".play.playing").count() == 1


def test_before_the_first_call_nothing_is_predicted_and_the_pane_says_so(screen):
    at(screen, 0, total=6)
    assert screen.page.is_hidden(".pane.left .nothing")
    through(screen, "x0")
    assert screen.page.is_visible(".pane.left .nothing")
    screen.page.keyboard.press("Tab")
    go(screen, 1, 6)
    assert screen.page.is_hidden(".pane.left .nothing")


def test_the_clock_counts_calls_or_noise(screen):
    at(screen, 10, total=20)
    assert screen.calls("right") == 10
    assert noise(screen, "right") == 0
    assert noise(screen, "left") > 30
    screen.page.check(".clock input[value=noise]", force=True)
    screen.page.wait_for_timeout(200)
    assert screen.calls("left") == 10
    assert screen.calls("right") == 5
    assert noise(screen, "left") == noise(screen, "right")
    screen.page.focus(".timeline")
    screen.page.keyboard.press("End")
    screen.wait_calls("left", 20, total=20)
    assert screen.calls("right") == 10
    screen.page.check(".clock input[value=calls]", force=True)
    screen.wait_calls("left", 20, total=20)


def test_a_click_enlarges_a_face_in_both_panes_and_escape_reduces_it(screen):
    at(screen, 8, total=8)
    whole = screen.pixels("left"), screen.pixels("right")
    screen.page.click(".pane.right .faces button:nth-child(2)")
    screen.page.wait_for_function(
        "document.querySelector('.pane.left canvas').getAttribute('aria-label')"
        ".startsWith('face 2 by DDPM')"
    )
    one = screen.pixels("left"), screen.pixels("right")
    assert one[0] != whole[0]
    assert one[1] != whole[1]
    assert screen.page.locator(".pane.left .faces button").count() == 1
    screen.page.keyboard.press("Escape")
    screen.page.wait_for_function(
        "document.querySelectorAll('.pane.left .faces button').length === 4"
    )
    screen.page.wait_for_timeout(100)
    assert (screen.pixels("left"), screen.pixels("right")) == whole


def test_one_face_alone_is_not_offered_larger(screen):
    screen.page.check("#faces input[value='1']", force=True)
    screen.run(seed=44, left_steps=2, right_steps=2)
    screen.wait("finished")
    assert screen.page.locator(".pane .faces button").count() == 0


def test_a_face_can_be_enlarged_by_keyboard(screen):
    at(screen, 8, total=8)
    screen.page.focus(".pane.left .faces button:nth-child(3)")
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_selector(".pane.left .faces button:only-child")
    assert screen.page.evaluate("document.activeElement.ariaLabel") == "Show all faces again"
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_function(
        "document.querySelectorAll('.pane.left .faces button').length === 4"
    )


def test_keys_move_the_film_from_anywhere_that_has_no_use_for_them(screen):
    at(screen, 8, total=8)
    screen.page.evaluate("document.activeElement.blur()")
    for key, calls in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        screen.page.keyboard.press(key)
        screen.wait_calls("left", calls, total=8)
    screen.page.keyboard.press("Space")
    screen.page.wait_for_selector(".play.playing")
    screen.wait_calls("left", 8, total=8)
    screen.page.focus("#seed input")
    screen.page.keyboard.press("Home")
    screen.page.wait_for_timeout(200)
    assert screen.calls("left") == 8


def choose(screen, **choices):
    if screen.page.get_attribute("#more-button", "aria-expanded") == "false":
        screen.page.click("#more-button")
    for name, value in choices.items():
        screen.page.check(f"#{name} input[value='{value}']", force=True)


def test_eta_one_on_the_same_noise_is_ddpm(screen):
    screen.run(seed=33, left_steps=9, right_steps=9, right_eta="1")
    screen.wait("finished")
    assert screen.pixels("left") == screen.pixels("right")
    assert screen.page.text_content(".pane.right .how") == "adds all of it (η 1)"


@pytest.mark.parametrize(
    ("sampler", "title", "how", "label"),
    [
        ("ddpm_large", "DDPM", "adds more fresh noise each step", "Left steps"),
        ("ddim", "DDIM", "adds a part of it (η 0.3)", "DDIM steps"),
        ("dpmpp_2m", "DPM-Solver++(2M)", "adds none, looks back once", "DPM-Solver++ steps"),
    ],
)
def test_each_side_can_be_any_sampler(screen, sampler, title, how, label):
    choose(screen, left_sampler=sampler, right_sampler="ddpm", left_spacing="quadratic")
    page = screen.page
    page.wait_for_function(
        "label => document.querySelector('#left_steps').textContent.includes(label)", arg=label
    )
    if sampler == "ddim":
        page.wait_for_selector("#left_eta input:enabled")
        screen.fill(left_eta="0.3")
    page.wait_for_selector("#right_eta input:disabled")
    screen.run(seed=34, left_steps=7, right_steps=7)
    screen.wait("finished")
    assert page.text_content(".pane.left .title") == title
    assert page.text_content(".pane.left .how") == how
    colours = page.evaluate(
        "['left', 'right'].map(side => getComputedStyle(document.querySelector("
        "`.pane.${side} .title`)).color)"
    )
    assert (colours[0] == colours[1]) == (title == "DDPM")  # a colour means a sampler
    assert screen.pixels("left") != screen.pixels("right")
    levels = page.get_attribute(".ticks.left.passed", "d").count("M")
    assert levels == 8


def test_the_words_over_the_steps_need_no_server(screen):
    page = screen.page
    page.context.set_offline(True)
    choose(screen, right_sampler="dpmpp_2m")
    page.wait_for_function(
        "document.querySelector('#right_steps').textContent.includes('DPM-Solver++ steps')"
    )
    page.wait_for_selector("#right_eta input:disabled")


def test_the_equation_follows_the_playhead(screen):
    page = screen.page
    screen.run(seed=35, left_steps=10, right_steps=5, right_eta="0.5")
    screen.wait("finished")
    assert page.get_attribute(".equation", "open") is None
    page.click(".equation > summary")
    go(screen, 4, 10)
    halves = page.locator(".equation .half")
    assert halves.nth(0).locator(".step").inner_text() == (
        "Step 4 of 10, from level t = 700 to s = 600"
    )
    assert halves.nth(1).locator(".step").inner_text() == (
        "Step 4 of 5, from level t = 400 to s = 200"
    )
    rows = halves.nth(1).locator("tbody tr").all_inner_texts()
    coefficients = [float(row.split()[-2].replace("−", "-")) for row in rows]
    assert len(coefficients) == 3
    assert coefficients[0] ** 2 + coefficients[1] ** 2 + coefficients[2] ** 2 == pytest.approx(
        1, abs=1e-3
    )  # x_s has the variance of its level: DDIM eq. 12
    assert all(float(row.split()[-1]) > 0 for row in rows)
    go(screen, 5, 10)
    assert halves.nth(0).locator(".step").inner_text().startswith("Step 5 of 10")
    page.click(".equation .sources summary >> nth=0")
    assert "def ddpm(" in page.inner_text(".equation pre >> nth=0")
