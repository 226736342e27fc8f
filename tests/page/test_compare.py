"""The Compare screen in a real browser: it runs, stops, scrubs and refuses."""

import time

import pytest
from conftest import Screen

from demo import wording

pytestmark = pytest.mark.page


def test_a_recorded_run_plays_before_the_first_click(screen, network):
    network.calls = 0
    screen.wait("recorded")
    assert screen.page.inner_text(".badge") == "Recorded · seed 7"
    screen.wait_calls("left", 2, total=100, high=60)
    earlier = screen.pixels("left")
    screen.page.focus(".timeline")
    screen.page.keyboard.press("End")
    screen.wait_calls("left", 100, total=100)
    assert screen.pixels("left") != earlier
    assert network.calls == 0
    screen.run(left_steps=2, right_steps=2)
    screen.wait("finished")
    assert not screen.page.is_visible(".badge")


def test_reduced_motion_opens_on_the_last_frame(page, address):
    page.emulate_media(reduced_motion="reduce")
    page.goto(address)
    page.wait_for_selector(".stage[data-state=recorded]")
    page.wait_for_timeout(500)
    assert page.text_content(".pane.left .calls") == "100 / 100"


def test_run_paints_while_sampling_goes_on(screen, network):
    network.delay = 0.2
    network.calls = 0
    screen.run(left_steps=12, right_steps=6)
    screen.wait_calls("left", 0, total=12, high=12)
    first = screen.pixels("left")
    # Both panes call once per step: six calls are three steps of each.
    assert network.calls < 6
    assert screen.calls("left") < 3
    screen.wait_calls("left", 4, total=12, high=11)
    assert screen.page.get_attribute(".stage", "data-state") == "running"
    assert screen.pixels("left") != first


def test_both_panes_open_on_the_same_noise(screen):
    screen.run(left_steps=5, right_steps=3)
    screen.wait("finished")
    screen.page.focus(".timeline")
    screen.page.keyboard.press("Home")
    screen.wait_calls("left", 0, total=5)
    assert screen.pixels("left") == screen.pixels("right")
    screen.page.keyboard.press("End")
    screen.wait_calls("left", 5, total=5)
    assert screen.pixels("left") != screen.pixels("right")


def test_the_result_is_told_in_measured_words(screen):
    screen.run(left_steps=5, right_steps=3)
    screen.wait("finished")
    assert "DDIM: 3 calls, " in screen.words()
    assert "DDPM: 5 calls, " in screen.words()


def test_stop_ends_a_run_and_keeps_its_frames(screen, network):
    network.delay = 0.1
    screen.run(left_steps=200, right_steps=100)
    screen.wait_calls("left", 3, total=200, high=200)
    screen.page.click("#stop")
    screen.wait("finished")
    assert screen.words() == "Stopped."
    made = network.calls
    screen.page.wait_for_timeout(1000)
    assert network.calls <= made + 2  # the step under way is finished
    shown = screen.calls("left")
    screen.page.focus(".timeline")
    screen.page.keyboard.press("ArrowLeft")
    screen.wait_calls("left", shown - 1, total=200)
    network.delay = 0.0
    screen.run(left_steps=4, right_steps=4)
    screen.wait_calls("left", 4, total=4)


def test_the_timeline_scrubs_without_the_server(screen):
    screen.run(left_steps=20, right_steps=10)
    screen.wait("finished")
    screen.page.context.set_offline(True)
    box = screen.page.locator(".timeline").bounding_box()
    seen = set()
    for share in (0.02, 0.3, 0.5, 0.8, 0.98):
        screen.page.mouse.click(box["x"] + share * box["width"], box["y"] + 20)
        screen.wait_calls("left", round(20 * share), total=20)
        seen.add(screen.pixels("left"))
    assert len(seen) == 5
    assert screen.calls("right") == 10
    screen.page.context.set_offline(False)
    screen.errors.clear()  # Gradio's heartbeat notices that the line was cut


def test_play_walks_from_noise_to_picture(screen):
    screen.run(left_steps=10, right_steps=5)
    screen.wait("finished")
    last = screen.pixels("left")
    screen.page.click(".play")
    screen.wait_calls("left", 1, total=10, high=5)
    screen.page.wait_for_selector(".play:not(.playing)")
    assert screen.calls("left") == 10
    assert screen.pixels("left") == last


def test_bad_input_is_one_sentence_and_the_last_result_stands(screen):
    screen.run(left_steps=3, right_steps=2)
    screen.wait("finished")
    before = screen.pixels("left"), screen.pixels("right")
    screen.run(left_steps="0")
    screen.page.wait_for_selector(".words.problem")
    assert screen.words() == "DDPM steps is 0; choose a whole number from 1 to 1000."
    assert (screen.pixels("left"), screen.pixels("right")) == before
    assert screen.page.locator(".toast-body").count() == 0


def test_the_same_refusal_is_told_again(screen):
    screen.run(right_eta="2")
    screen.page.wait_for_selector(".words.problem")
    screen.page.click(".keep .link")
    screen.page.wait_for_selector(".words:not(.problem)")
    screen.page.click("#run")
    screen.page.wait_for_selector(".words.problem")
    assert screen.words() == "η is 2; choose a number from 0 (DDIM) to 1 (DDPM)."


def test_a_server_that_never_answers_an_order_from_elsewhere_is_said_not_to(screen):
    screen.page.route("**/queue/join*", lambda route: None)
    screen.page.evaluate(
        """detail => document.dispatchEvent(new CustomEvent("compare", {detail}))""",
        {"seed": "63"},
    )
    screen.page.wait_for_selector(".words.problem")
    assert screen.words() == "The server did not answer; try again."


def test_a_double_click_on_run_runs(screen, network):
    network.delay = 0.02
    screen.fill(seed=64, left_steps=30, right_steps=15)
    box = screen.page.locator("#run").bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    screen.page.mouse.click(*at)
    screen.wait("running")
    screen.page.mouse.down(click_count=2)
    screen.page.mouse.up(click_count=2)
    screen.wait("finished")
    assert "DDPM: 30 calls" in screen.words()


@pytest.mark.parametrize("faces", [1, 4, 16])
def test_each_number_of_faces_fills_the_pane(screen, faces):
    screen.page.check(f"#faces input[value='{faces}']", force=True)
    screen.run(left_steps=2, right_steps=2)
    screen.wait("finished")
    label = screen.page.get_attribute(".pane.right canvas", "aria-label")
    subject = "face 1" if faces == 1 else f"{faces} faces"
    assert label == f"{subject} by DDIM, picture so far: 0 % noise"
    blank = screen.page.evaluate(
        """(side) => {
            const canvas = document.querySelector('.pane.right canvas');
            const context = canvas.getContext('2d');
            const middle = (i) => ((i + 0.5) * canvas.width) / side;
            const alpha = (i, j) => context.getImageData(middle(i), middle(j), 1, 1).data[3];
            const indices = [...Array(side).keys()];
            return indices.flatMap((i) => indices.map((j) => alpha(i, j))).filter((a) => !a).length;
        }""",
        round(faces**0.5),
    )
    assert blank == 0


def test_enter_runs_and_the_dice_change_the_seed(screen):
    screen.page.click("#dice")
    screen.page.wait_for_function("document.querySelector('#seed input').value !== '7'")
    screen.fill(left_steps=2, right_steps=1)
    screen.page.press("#right_steps input", "Enter")
    screen.wait("finished")
    assert "DDIM: 1 call, " in screen.words()


def test_a_key_that_is_held_on_run_does_not_stop_what_it_started(screen, network):
    network.delay = 0.05
    page = screen.page
    screen.fill(left_steps=200, right_steps=100)
    page.focus("#run")
    page.keyboard.down("Enter")
    screen.wait("running")
    assert page.evaluate("document.activeElement.id") == "stop"
    page.keyboard.down("Enter")
    screen.wait_calls("left", 3, total=200, high=199)
    assert page.get_attribute(".stage", "data-state") == "running"
    page.keyboard.up("Enter")
    page.keyboard.press("Enter")
    screen.wait("finished")
    assert screen.words() == "Stopped."


def test_panes_timeline_and_run_fit_without_scrolling(screen):
    for width, height in ((1280, 720), (390, 844), (768, 1024), (1920, 1080)):
        screen.page.set_viewport_size({"width": width, "height": height})
        screen.run(left_steps=3, right_steps=2)
        screen.wait("finished")
        for part in (".pane.left canvas", ".pane.right canvas", ".timeline", "#run", "#right_eta"):
            box = screen.page.locator(part).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= height
        left, right = (screen.page.locator(f".pane.{name} canvas") for name in ("left", "right"))
        assert left.bounding_box()["x"] + left.bounding_box()["width"] < right.bounding_box()["x"]
        assert screen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("query", ["", "?model=toons-64"])
def test_a_low_screen_scrolls_rather_than_shrink_the_panes_to_nothing(page, address, query):
    screen = Screen(page)
    for width, height in ((844, 390), (960, 470), (1280, 400)):
        page.set_viewport_size({"width": width, "height": height})
        screen.open(address + query)
        assert page.locator(".pane.left canvas").bounding_box()["height"] >= 200
    assert screen.errors == []


# The longest that is told under the timeline.
SENTENCES = (
    wording.other_weights("0123456789ab"),
    wording.OTHER_SIZE,
    f"{wording.result('DPM-Solver++(2M)', 1000, 16.4)} {wording.verdict(2, True)}",
    wording.whole_number("DPM-Solver++ steps", 2**63, 1, 1000),
)


def test_all_of_a_sentence_is_seen_and_takes_no_more_room_than_none(screen):
    page = screen.page
    page.evaluate("document.querySelector('.replay').hidden = false")
    for width in (1280, 1024, 768, 390, 320):
        page.set_viewport_size({"width": width, "height": 720})
        told = page.evaluate(
            """(sentences) => sentences.map((sentence) => {
                const line = document.querySelector('.words');
                line.textContent = sentence;
                const {scrollWidth, clientWidth, scrollHeight, clientHeight} = line;
                const isWhole = scrollWidth <= clientWidth && scrollHeight <= clientHeight;
                return [isWhole, document.querySelector('#controls').getBoundingClientRect().top];
            })""",
            ["", *SENTENCES],
        )
        assert told == [[True, told[0][1]]] * len(told), width


def test_nothing_moves_during_a_run(screen):
    places = """() => [...document.querySelectorAll('.tiles, .timeline, .transport, #controls')]
        .map(part => JSON.stringify(part.getBoundingClientRect()))"""
    before = screen.page.evaluate(places)
    screen.run(left_steps=4, right_steps=2)
    screen.wait("finished")
    assert screen.page.evaluate(places) == before


def test_settings_from_elsewhere_are_drawn_although_a_run_goes_on_and_the_line_is_slow(
    screen, network
):
    def late(route):
        time.sleep(0.5)
        route.continue_()

    network.delay = 0.05
    screen.run(seed=61, left_steps=400, right_steps=20)
    screen.wait("running")
    screen.page.route("**/cancel", late)
    screen.page.evaluate(
        """detail => document.dispatchEvent(new CustomEvent("compare", {detail}))""",
        {"seed": "62", "left_steps": "6", "right_steps": "3"},
    )
    screen.wait_calls("left", 6, total=6)
    screen.wait("finished")
    assert screen.page.input_value("#seed input") == "62"
