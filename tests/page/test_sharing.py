"""What visitors take with them, come back with, and send to others."""

import base64
import io
import re

import pytest
from conftest import Screen
from PIL import Image
from train_tab import calls

from demo import settings

pytestmark = pytest.mark.page
SERVER = re.compile("component_server")


def saved(screen, kind):
    """A file that the page makes, as (name, bytes)."""
    with screen.page.expect_download() as download:
        screen.page.click(f".keep [data-kind={kind}]")
    file = download.value
    return file.suggested_filename, open(file.path(), "rb").read()


def drop(screen, content, name="picture.png"):
    """Drop a file on the page."""
    screen.page.evaluate(
        """([body, name]) => {
            const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, {type: 'image/png'}));
            for (const type of ['dragenter', 'dragover', 'drop']) {
                const event = new DragEvent(type, {dataTransfer, bubbles: true, cancelable: true});
                document.querySelector('.stage').dispatchEvent(event);
            }
        }""",
        [base64.b64encode(content).decode(), name],
    )


def form(screen):
    """What the form says, by field."""
    page, values = screen.page, {}
    for name, default in settings.DEFAULTS.items():
        if page.locator(f"#{name} input[type=radio]").count():
            values[name] = page.locator(f"#{name} input:checked").input_value()
        else:
            values[name] = page.input_value(f"#{name} :is(input, textarea)")
        values[name] = type(default)(values[name])
    return values


def says(screen, words):
    screen.page.wait_for_function(
        "words => document.querySelector('.stage .words').textContent.startsWith(words)",
        arg=words,
    )


@pytest.mark.slow
def test_the_newcomers_path(browser, address, screen, network):
    page = screen.page
    screen.wait("recorded")
    page.click("#run")
    screen.wait("finished")
    page.focus(".timeline")
    page.keyboard.press("Home")
    screen.wait_calls("left", 0, total=100)
    assert screen.pixels("left") == screen.pixels("right")
    page.keyboard.press("End")
    screen.wait_calls("left", 100, total=100)
    page.select_option("#lens", "x0")
    page.select_option("#lens", "x")
    before = screen.pixels("right")
    # Both panes are new: were one in the cache, the other would be drawn in smaller batches than
    # by the replay, and on some processors sums depend on that.
    screen.run(seed=8, right_eta="0.5")
    says(screen, "Drawing 4 faces")
    screen.wait("finished")
    drawn = screen.pixels("left"), screen.pixels("right")
    assert drawn[1] != before
    name, film = saved(screen, "mp4")
    assert name == "cartoon-diffusion-seed-8.mp4"
    assert film[4:8] == b"ftyp"
    _, picture = saved(screen, "png")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(".keep .link")
    says(screen, "Link copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    network.calls = 0
    visitor = browser.new_context(viewport={"width": 1280, "height": 720})
    other = type(screen)(visitor.new_page())
    other.open(link)
    other.wait("recorded")
    assert network.calls == 0  # a link never runs by itself
    other.page.wait_for_function("document.querySelector('#right_eta input').value === '0.5'")
    other.page.click("#run")
    says(other, "Drawing 4 faces")
    other.wait("finished")
    assert (other.pixels("left"), other.pixels("right")) == drawn

    other.page.goto(address)
    other.wait("recorded")
    drop(other, picture)
    says(other, "The picture's settings are back.")
    assert form(other) == {**settings.DEFAULTS, "seed": "8", "right_eta": "0.5"}
    network.calls = 0
    other.page.click(".keep .replay")
    says(other, "Replay: identical.")
    assert network.calls == 100
    assert other.errors == []
    visitor.close()


def test_a_file_that_the_server_cannot_make_any_more_is_said_to_be_lost(screen):
    screen.run(seed=73, left_steps=6, right_steps=3)
    screen.wait("finished")
    screen.page.wait_for_load_state("networkidle")
    screen.page.route(SERVER, lambda route: route.abort())
    screen.page.click(".keep [data-kind=png]")
    says(screen, "The server did not answer; try again.")
    screen.page.unroute(SERVER)
    assert saved(screen, "png")[0] == "cartoon-diffusion-seed-73.png"
    screen.errors.clear()  # the browser's own, about the line that was cut


def test_a_picture_of_one_face_changes_nothing_on_show_until_it_is_drawn(screen):
    screen.run(seed=71, left_steps=6, right_steps=3)
    screen.wait("finished")
    screen.page.click(".pane.left .faces button >> nth=2")
    _, third = saved(screen, "png")
    screen.page.check("#faces input[value='1']", force=True)
    screen.run(seed=72, left_steps=6, right_steps=3)
    says(screen, "Drawing 1 face")
    screen.wait("finished")
    before = screen.pixels("left")
    drop(screen, third)
    says(screen, "The picture's settings are back.")
    screen.page.focus(".timeline")
    screen.page.keyboard.press("Home")
    screen.wait_calls("left", 0, total=6)
    screen.page.keyboard.press("End")
    screen.wait_calls("left", 6, total=6)
    assert screen.pixels("left") == before
    screen.page.click("#run")
    says(screen, "Drawing 4 faces")
    screen.wait("finished")
    assert screen.page.locator(".pane.left .faces button").count() == 1  # the third, enlarged


def test_what_a_picture_or_an_example_brought_goes_with_it(screen):
    page = screen.page
    screen.run(seed=74, left_steps=6, right_steps=3)
    screen.wait("finished")
    page.click(".pane.left .faces button >> nth=2")
    _, third = saved(screen, "png")
    page.keyboard.press("Escape")
    drop(screen, third)
    says(screen, "The picture's settings are back.")
    page.click("#more-button")
    page.click("#reset")
    page.wait_for_function("document.querySelector('#seed input').value === '7'")
    page.locator("#examples button").first.click()
    screen.wait_calls("left", 10, total=10)
    screen.wait("finished")
    assert page.locator(".pane.left .faces button").count() == 4
    assert page.inner_text("#examples .says").startswith("Ten calls each")
    screen.run(seed=75)
    screen.wait("running")
    screen.wait("finished")
    assert page.inner_text("#examples .says") == ""


def test_all_settings_are_in_the_address_and_come_back_from_it(browser, address, screen):
    page = screen.page
    page.click("#more-button")
    page.check("#left_sampler input[value='ddim']", force=True)
    page.check("#right_spacing input[value='quadratic']", force=True)
    page.check("#faces input[value='16']", force=True)
    page.wait_for_selector("#left_eta input:enabled")
    screen.fill(seed=2**62, left_steps=31, left_eta="0.25")
    page.wait_for_function("location.search.includes('left_eta=0.25')")
    expected = {
        **settings.DEFAULTS,
        "seed": str(2**62),
        "faces": 16,
        "left_sampler": "ddim",
        "left_steps": "31",
        "left_eta": "0.25",
        "right_spacing": "quadratic",
    }
    assert form(screen) == expected
    visitor = browser.new_context()
    other = type(screen)(visitor.new_page())
    other.open(page.url)
    other.page.wait_for_function("document.querySelector('#left_steps input').value === '31'")
    other.page.wait_for_timeout(300)
    assert form(other) == expected
    visitor.close()
    screen.open(address)  # no settings in the address: those of the last visit
    page.wait_for_function("document.querySelector('#left_steps input')?.value === '31'")
    page.wait_for_timeout(300)
    assert form(screen) == expected
    page.click("#more-button")
    page.click("#reset")
    page.wait_for_function("document.querySelector('#left_steps input').value === '100'")
    assert form(screen) == settings.DEFAULTS


def shown(page):
    """The screens that are to be seen."""
    return [name for name in ("compare", "make", "train") if page.is_visible(f"#{name}")]


def test_the_address_says_which_screen_is_shown(screen):
    page = screen.page
    page.click("#header [data-tab=make]")
    assert page.url.endswith("#make")
    page.reload()
    page.wait_for_selector("#make")
    assert shown(page) == ["make"]
    page.goto(f"{page.url.partition('#')[0]}#train")  # no load: another word in the same address
    page.wait_for_selector("#train")
    assert shown(page) == ["train"]
    page.click("#header [data-tab=compare]")
    assert "#" not in page.url
    assert shown(page) == ["compare"]


def test_settings_that_change_leave_the_screen_in_the_address(screen):
    page = screen.page
    page.click("#header [data-tab=make]")
    page.evaluate("cartoon.remember(...Object.values({ ...cartoon.now(), seed: '9' }))")
    assert "seed=9" in page.url
    assert page.url.endswith("#make")


def test_settings_that_change_leave_a_theme_in_the_address_and_take_a_key_out(screen, address):
    page = screen.page
    page.goto(f"{address}?__theme=dark&operator={'k' * 40}")
    page.wait_for_selector("#run")
    page.fill("#seed input", "9")
    page.wait_for_function("location.search.includes('seed=9')")
    assert "__theme=dark" in page.url
    assert "operator" not in page.url
    assert "__theme" not in page.evaluate("cartoon.link()")


def test_a_link_to_a_comparison_opens_it_whatever_was_open_before(screen, address):
    page = screen.page
    page.click("#header [data-tab=make]")
    page.goto(f"{address}?seed=12")
    page.wait_for_selector("#run")
    assert shown(page) == ["compare"]
    page.click("#header [data-tab=train]")
    page.goto(address)  # says nothing: the screen of before
    page.wait_for_selector("#train")
    assert shown(page) == ["train"]


def test_a_hostile_link_is_text_and_is_refused_in_one_sentence(screen, address):
    page = screen.page
    bad = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
    page.goto(f"{address}?seed={bad}&left_sampler={bad}&faces=1e9&left_steps=%00")
    page.wait_for_selector("#run")
    page.wait_for_function("document.querySelector('#seed input').value.includes('onerror')")
    page.click("#run")
    page.wait_for_selector(".words.problem")
    assert "choose" in screen.words()


def test_a_png_shows_both_panes_and_one_face_when_one_is_enlarged(screen):
    screen.run(seed=41, left_steps=4, right_steps=2)
    screen.wait("finished")
    name, content = saved(screen, "png")
    assert name == "cartoon-diffusion-seed-41.png"
    sheet = Image.open(io.BytesIO(content))
    screen.page.click(".pane.left .faces button:nth-child(4)")
    screen.page.wait_for_selector(".pane.left .faces button:only-child")
    name, content = saved(screen, "png")
    assert name == "cartoon-diffusion-seed-41-face-4.png"
    face = Image.open(io.BytesIO(content))
    assert face.height == 64 * 4 < sheet.height


def test_what_is_dropped_by_mistake_is_refused_and_costs_nothing(screen):
    screen.run(seed=42, left_steps=3, right_steps=2)
    screen.wait("finished")
    before, fields = screen.pixels("left"), form(screen)
    drop(screen, b"no picture at all")
    says(screen, "This is not a PNG")
    drop(screen, bytes(4_000_001))
    says(screen, "A picture made here has less than 4 MB")
    assert (screen.pixels("left"), form(screen)) == (before, fields)
    assert screen.page.is_hidden(".stage .drop")


def test_a_stopped_run_says_why_it_has_no_png_and_keeps_its_film(screen, network):
    network.delay = 0.05
    screen.run(seed=43, left_steps=90, right_steps=90)
    screen.wait_calls("left", 3, total=90, high=90)
    screen.page.click("#stop")
    screen.wait("finished")
    network.delay = 0.0
    screen.page.click(".keep [data-kind=png]")
    says(screen, "The run was stopped early")
    name, film = saved(screen, "gif")
    assert name.endswith(".gif")
    assert film[:6] == b"GIF89a"


def test_a_link_is_copied_where_there_is_no_clipboard_and_the_keyboard_stays(page, address):
    # As on every address in a local network, which has no certificate.
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.set_viewport_size({"width": 1280, "height": 400})
    screen = Screen(page)
    screen.open(address)
    page.focus(".keep .link")
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("Enter")
    says(screen, "Link copied.")
    assert page.evaluate("document.activeElement.className") == "link"
    assert page.evaluate("scrollY") == 0
    assert screen.errors == []


def test_one_file_is_made_at_a_time(screen):
    screen.run(seed=45, left_steps=40, right_steps=20)
    screen.wait("finished")
    asked = []
    screen.page.on("request", lambda one: asked.append('"keep"' in (one.post_data or "")))
    with screen.page.expect_download():
        screen.page.dblclick(".keep [data-kind=mp4]")
    says(screen, "Saved cartoon-diffusion-seed-45.mp4.")
    assert sum(asked) == 1
    assert screen.page.evaluate("document.activeElement.dataset.kind") == "mp4"
    assert saved(screen, "png")[0] == "cartoon-diffusion-seed-45.png"


def recorded_run(screen):
    """Whether one is shown, when the page has settled."""
    screen.page.wait_for_load_state("networkidle")
    screen.page.wait_for_timeout(300)
    return screen.page.is_visible(".stage .badge")


@pytest.mark.parametrize("query", ["model=toons-64", "finish=crisp", "asked=0.-.-.-"])
def test_the_recorded_run_is_not_shown_under_a_line_that_it_does_not_fit(screen, address, query):
    page = screen.page
    page.goto(f"{address}?{query}")
    page.wait_for_selector(".notice:visible")
    assert not recorded_run(screen)
    assert screen.words() == "Press Run, or change something first."


def test_the_recorded_faces_are_promised_only_while_run_would_draw_them(screen, address):
    assert recorded_run(screen)
    these = "Press Run to draw these faces live, or change something first."
    assert screen.words() == these
    screen.fill(seed=8)
    says(screen, "Press Run, or change something first.")
    screen.fill(seed=7)
    says(screen, these)
    screen.open(f"{address}?seed=9")
    assert recorded_run(screen)
    assert screen.words() == "Press Run, or change something first."


def test_a_line_over_the_panes_is_asked_for_when_it_changes_and_until_it_is_answered(
    screen, address
):
    page = screen.page
    asked = calls(page, "words")
    page.route(SERVER, lambda route: route.abort())
    page.goto(f"{address}?model=unknown")
    page.wait_for_selector("#model-notice .notice:visible")
    screen.fill(seed=8)
    page.wait_for_url("**seed=8&**")
    page.unroute(SERVER)
    screen.fill(seed=9)
    page.wait_for_selector("#model-notice .by:not(:empty)")
    before = len(asked)
    screen.fill(seed=10)
    page.wait_for_url("**seed=10&**")
    page.wait_for_timeout(300)
    assert len(asked) == before
    screen.errors.clear()  # the browser's own, about the line that was cut


def test_a_long_name_of_a_model_survives_a_reload(screen, address):
    name = "x" * 60
    for url in (f"{address}?model={name}", address):
        screen.open(url)
        screen.page.wait_for_selector("#model-notice .notice:visible")
        screen.page.wait_for_timeout(300)
        assert form(screen)["model"] == name


def test_pictures_that_have_left_are_missed_in_words_that_fit(screen, monkeypatch):
    screen.run(seed=46, left_steps=3, right_steps=2)
    screen.wait("finished")
    screen.page.wait_for_load_state("networkidle")
    monkeypatch.setattr("demo.reels.Reels.get", lambda self, run: None)
    for kind, what in (("png", "picture"), ("mp4", "film"), ("gif", "film")):
        screen.page.click(f".keep [data-kind={kind}]")
        says(screen, f"These pictures are no longer here; draw them again, then save the {what}.")


def test_an_example_is_one_click_and_one_sentence(screen):
    chips = screen.page.locator("#examples button")
    chips.first.wait_for()
    assert chips.count() == 4
    assert "about" in chips.last.inner_text()  # it says how long before it runs
    chips.first.click()
    screen.wait("running")
    screen.wait("finished")
    assert screen.page.inner_text("#examples .says").startswith("Ten calls each")
    assert form(screen) == {**settings.DEFAULTS, "left_steps": "10", "right_steps": "10"}
    assert screen.calls("left") == screen.calls("right") == 10
