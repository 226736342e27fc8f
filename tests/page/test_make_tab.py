"""The Make screen in a real browser: wishes, faces, ticks, and the way to Compare."""

import io
import json
import re
from dataclasses import replace

import pytest
from conftest import Screen
from PIL import Image
from stand_ins import CAPACITY, hard_to_use, randomised, recordings_shown, wait
from test_making import LABELS, always
from train_tab import Held

from demo.backend import MODEL, LocalBackend
from demo.markup import text
from demo.page import build, launch_options
from demo.trainings import Trainings
from demo.wording import kept_late
from demo.wording_make import FINISHED, SCREEN
from diffusion import DiffusionModel, Schedule, UNetConfig
from diffusion.engine import Full
from diffusion.model import ready
from diffusion.pictures import SETTINGS_KEY
from diffusion.recipe import Recipe
from diffusion.walks import Request

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def making(tmp_path_factory):
    """The address of a page whose model can be asked for LABELS, and its backend."""
    counts = tuple(map(len, LABELS.values()))
    network = randomised(UNetConfig(size=64, widths=(16, 32), labels=counts))
    model = DiffusionModel(ready(network), Schedule.cosine(), labels=LABELS)
    backend = LocalBackend(model, CAPACITY)
    with recordings_shown():
        page = build(backend, Trainings(tmp_path_factory.mktemp("runs")), always(0, 1, 2))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url, backend
    page.close()
    backend.close()


@pytest.fixture
def visitor(page, making):
    """Somebody on the Make screen at 1280×720."""
    screen = Screen(page)
    opened(screen, making[0])
    yield screen
    assert screen.errors == []


def opened(screen, url):
    """The screen's page, when Make can be pressed."""
    screen.page.goto(f"{url}#make")
    screen.page.wait_for_selector(".make .go:visible")
    screen.page.wait_for_function("document.querySelector('.stage .timeline svg') !== null")
    return screen.page


def make(page, faces=16):
    page.click(".make .go")
    page.wait_for_selector(".make[data-state=running]")
    page.wait_for_selector(".make[data-state=finished]")
    assert page.locator(".make figure").count() == faces


def faces(page):
    """What is drawn on every tile."""
    return page.eval_on_selector_all(
        ".make figure canvas", "all => all.map(canvas => canvas.toDataURL())"
    )


def orders(page):
    """Grows with every request that joins the queue."""
    sent = []
    page.on("request", lambda request: sent.append("/queue/join" in request.url))
    return lambda: sum(sent)


def idle(backend):
    """Until nothing is computed and nobody waits."""
    wait(lambda: backend.engine.load == (0, 0))


@pytest.fixture
def refusing(making, monkeypatch):
    """The line is full for a while, once this is called."""
    engine = making[1].engine

    def submit(requests):
        raise Full("1 visitor waits already; come again in about 1 minute.")

    return lambda: monkeypatch.setattr(engine, "submit", submit)


@pytest.fixture
def occupied(making):
    """Somebody else's long run is first, and everybody waits behind it, once this is called."""
    engine = making[1].engine
    capacity, runs = engine.capacity, []

    def occupy():
        engine.capacity = replace(capacity, in_flight=1)
        long = Request(MODEL, tuple(range(900, 916)), Recipe("ddpm", 1000))
        runs.append(engine.submit([long]))
        return runs[-1].films[0]

    yield occupy
    engine.capacity = capacity
    for run in runs:
        run.__exit__(None, None, None)
    idle(making[1])


def test_one_press_makes_sixteen_faces_and_more_are_others(visitor):
    page = visitor.page
    make(page)
    assert page.inner_text(".make .told").startswith("DDIM: 20 calls, ")
    page.click(".make .more")
    page.wait_for_function("document.querySelectorAll('.make figure').length === 32")
    page.wait_for_selector(".make[data-state=finished]")
    drawn = page.eval_on_selector_all(".make canvas", "all => all.map(c => c.toDataURL())")
    assert len(set(drawn[:32])) == 32


def test_each_face_says_whether_it_came_as_asked(visitor):
    page = visitor.page
    page.click(".make .wishes:not([hidden]) fieldset >> nth=1 >> label[title='dark brown']")
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=none")
    make(page)
    first = page.locator(".make figure").first
    assert first.locator("li.yes").all_inner_texts() == ["Hair"]
    assert first.locator("li.no").all_inner_texts() == ["Glasses"]
    words = "Face: skin tone 1 of 2, dark brown hair, dark glasses."
    assert first.locator("button").get_attribute("aria-label") == words
    assert "0 of 16 faces came as asked" in page.inner_text(".make .told")


def test_a_browser_that_drops_the_words_of_a_tick_still_shows_its_sign():
    spoken = re.findall(r'(.*)\n  content: (".") / ".+";', text("make.css"))
    assert [sign for _, sign in spoken] == ['"✓"', '"✗"']
    assert [before.strip() for before, _ in spoken] == [f"content: {sign};" for _, sign in spoken]


def test_enter_in_a_field_makes_faces_and_leaves_compare_alone(visitor):
    page = visitor.page
    sent = orders(page)
    page.fill(".make [name=seed]", "360")
    page.press(".make [name=seed]", "Enter")
    page.wait_for_selector(".make .told:text('DDIM: 20 calls')")
    assert sent() == 1


def test_guidance_and_clear_wait_for_a_wish(visitor):
    page = visitor.page
    clear = page.locator(".make .clear")
    assert page.is_disabled(".make [name=guidance]")
    assert clear.is_disabled()
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    assert page.is_enabled(".make [name=guidance]")
    assert clear.is_enabled()
    clear.press("Enter")
    assert page.is_disabled(".make [name=guidance]")
    assert clear.is_disabled()
    assert page.evaluate("document.activeElement.className") == "clear"


def test_wishes_are_there_after_a_reload(visitor):
    page = visitor.page
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    page.fill(".make [name=seed]", "123")
    page.press(".make [name=seed]", "Tab")
    page.reload()
    page.wait_for_selector(".make .go:visible")
    assert page.is_checked(".make [name=glasses][value='2']")
    assert page.input_value(".make [name=seed]") == "123"
    page.click(".make .clear")
    assert page.is_checked(".make [name=glasses][value='']")


def test_another_kind_has_wishes_of_its_own(visitor):
    page = visitor.page
    page.click(".make label:has([name=model]) >> text=six styles")
    assert page.is_hidden(".make [name=glasses] >> nth=0")
    page.click(".make .wishes:not([hidden]) >> text=pixel art")
    page.reload()
    page.wait_for_selector(".make .go:visible")
    assert page.is_checked(".make [name=model][value=toons-64]")
    assert page.is_checked(".make [name='toons-64/style'][value='3']")
    page.click(".make label:has([name=model]) >> text=CartoonSet")
    assert page.is_visible(".make .wishes:not([hidden]) >> text=Glasses")


def test_a_face_is_looked_at_by_keyboard_saved_and_drawn_again_step_by_step(visitor):
    page = visitor.page
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    make(page)
    page.focus(".make figure button >> nth=1")
    page.keyboard.press("Enter")
    page.wait_for_selector(".make dialog[open]")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".make dialog .seed") == "seed 9"
    with page.expect_download() as download:
        page.click(".make dialog .png")
    image = Image.open(io.BytesIO(download.value.path().read_bytes()))
    assert image.size == (256, 256)
    assert json.loads(image.text[SETTINGS_KEY])["compare"]["asked"] == "-.-.2"
    large = page.evaluate("document.querySelector('.make dialog canvas').toDataURL()")

    page.click(".make dialog .how")
    page.wait_for_selector("#asked-notice .notice:not([hidden])")
    visitor.wait("finished")
    assert page.inner_text("#asked-notice .by") == "Asked for: dark glasses; guidance 2."
    assert page.inner_text("#finish-notice .by") == FINISHED
    assert visitor.calls("right") == 20
    assert page.input_value("#seed input, #seed textarea") == "9"
    same = page.evaluate(
        """async (made) => {
            const image = new Image(); image.src = made; await image.decode();
            const pane = document.querySelector('.pane.right canvas');
            const pixels = (source, side) => {
                const canvas = document.createElement('canvas');
                canvas.width = canvas.height = 64;
                const context = canvas.getContext('2d');
                context.imageSmoothingEnabled = false;
                context.drawImage(source, 0, 0, 64, 64);
                return context.getImageData(0, 0, 64, 64).data;
            };
            const [one, other] = [pixels(image), pixels(pane)];
            return Math.max(...one.map((value, i) => Math.abs(value - other[i])));
        }""",
        large,
    )
    assert same <= 2

    page.click("#asked-notice button")
    page.wait_for_selector("#asked-notice .notice", state="hidden")
    page.wait_for_url("**asked=&**")  # the address follows the form a moment later
    page.click("#finish-notice button")
    page.wait_for_selector("#finish-notice .notice", state="hidden")
    page.wait_for_url("**finish=")


def test_the_keyboard_goes_to_compare_with_a_face_that_is_drawn_there(visitor):
    page = visitor.page
    make(page)
    page.click(".make figure button >> nth=1")
    page.focus(".make dialog .how")
    page.keyboard.press("Enter")
    visitor.wait("running")
    assert page.evaluate("document.activeElement.matches('[role=tab][data-tab=compare]')")
    visitor.wait("finished")
    assert page.evaluate("document.activeElement.matches('[role=tab][data-tab=compare]')")


def test_the_way_back_to_this_pages_model_takes_what_was_asked_of_the_other_along(visitor, making):
    page = visitor.page
    page.goto(f"{making[0]}?model=toons-64&asked=3&left_steps=4&right_steps=2#compare")
    page.wait_for_selector("#model-notice .by:not(:empty)")
    page.focus("#model-notice button")
    page.keyboard.press("Enter")
    visitor.wait("finished")
    assert visitor.words().startswith("DDIM: 2 calls, ")
    assert page.locator(".notice:visible").count() == 0
    assert page.evaluate("document.activeElement.id") == "run"


def test_a_face_that_is_saved_is_told_of_while_it_is_the_one_on_show(visitor):
    page = visitor.page
    make(page)
    page.click(".make figure button >> nth=0")
    page.click(".make dialog .png")
    page.wait_for_selector(".make dialog [role=status]:text('Saved ')")
    assert page.inner_text(".make dialog .about").startswith("Face")
    page.click(".make dialog .after")
    assert page.inner_text(".make dialog [role=status]") == ""
    page.click(".make dialog .before")
    held = Held(page, '"keep"')
    page.click(".make dialog .png")
    held.wait()
    page.keyboard.press("ArrowRight")
    with page.expect_download():
        held.go_on()
    page.wait_for_timeout(300)
    second = page.get_attribute(".make figure button >> nth=1", "aria-label")
    assert page.inner_text(".make dialog .about") == second
    assert page.inner_text(".make dialog [role=status]") == ""


def test_a_save_that_fails_is_told_of_also_when_its_face_is_closed(visitor):
    page = visitor.page
    make(page)
    page.click(".make figure button >> nth=0")
    held = Held(page, '"keep"')
    page.click(".make dialog .png")
    held.wait()
    page.keyboard.press("Escape")
    held.lose()
    page.wait_for_selector(".make .told.problem")
    assert page.inner_text(".make .told") == "The server did not answer; try again."
    visitor.errors.clear()  # the browser's own, about the line that was cut


def test_faces_stay_as_the_sampler_leaves_them_when_crisp_is_off(visitor):
    page = visitor.page
    first = "document.querySelector('.make figure canvas').toDataURL()"
    make(page)
    crisp = page.evaluate(first)
    page.click(".make .tick")
    make(page)
    assert page.evaluate(first) != crisp
    page.reload()
    page.wait_for_selector(".make .go:visible")
    assert not page.is_checked(".make [name=finish]")
    page.click(".make .tick")
    make(page)
    assert page.evaluate(first) == crisp


def test_a_run_can_be_stopped_and_bad_fields_are_a_sentence(visitor, making):
    page = visitor.page
    page.fill(".make [name=seed]", "much")
    page.click(".make .go")
    page.wait_for_selector(".make .told.problem")
    assert page.inner_text(".make .told").startswith("Seed is much; choose a whole number")
    page.fill(".make [name=seed]", "7")
    page.click(".make .go")
    page.click(".make .halt")
    page.wait_for_selector(".make:not([data-state=running])")
    assert page.inner_text(".make .told") == "Stopped."


@pytest.mark.parametrize("button", [".go", ".more"])
def test_a_refused_order_leaves_the_faces_as_they_are(visitor, refusing, button):
    page = visitor.page
    make(page)
    before = faces(page)
    refusing()
    page.fill(".make [name=seed]", "300")
    page.click(f".make {button}")
    page.wait_for_selector(".make .told.problem")
    assert page.get_attribute(".make", "data-state") == "finished"
    assert faces(page) == before
    assert page.is_visible(".make .more")
    page.click(".make figure button >> nth=2")
    assert page.inner_text(".make dialog .seed") == "seed 9"
    assert page.get_attribute(".make dialog .png", "aria-disabled") == "false"


def test_a_refused_order_leaves_the_recorded_faces_and_says_that_they_are(visitor, refusing):
    page = visitor.page
    refusing()
    page.click(".make .more")
    page.wait_for_selector(".make .told.problem")
    assert page.inner_text(".make .badge").startswith("Recorded")
    assert page.locator(".make figure").count() == 16


@pytest.mark.parametrize("button", [".go", ".more"])
def test_who_leaves_the_line_still_has_the_faces_from_before(visitor, occupied, button):
    page = visitor.page
    page.fill(".make [name=seed]", "400")
    make(page)
    before = faces(page)
    occupied()
    page.fill(".make [name=seed]", "310")
    page.click(f".make {button}")
    page.wait_for_selector(".make .told:text('Place 1 in line')")
    assert faces(page) == before
    page.click(".make .halt")
    page.wait_for_selector(".make[data-state=finished]")
    assert page.inner_text(".make .told") == "Stopped."
    assert faces(page) == before
    assert page.is_visible(".make .more")


def test_whoever_waited_in_line_gets_the_faces(visitor, making, occupied):
    page = visitor.page
    occupied()
    page.fill(".make [name=seed]", "320")
    page.click(".make .go")
    page.wait_for_selector(".make .told:text('Place 1 in line')")
    making[1].engine.capacity = CAPACITY
    page.wait_for_selector(".make[data-state=finished]")
    assert page.inner_text(".make .told").startswith("DDIM: 20 calls, ")
    page.click(".make figure button >> nth=0")
    assert page.inner_text(".make dialog .seed") == "seed 320"


def test_the_same_refusal_is_told_twice(visitor):
    page = visitor.page
    sent = orders(page)
    page.fill(".make [name=seed]", "much")
    for presses in (1, 2):
        page.click(".make .go")
        page.wait_for_selector(".make:not([data-state=running]) .told.problem")
        page.wait_for_timeout(1000)
        assert page.get_attribute(".make", "data-state") == "finished"
        assert page.inner_text(".make .told").startswith("Seed is much")
        assert sent() == presses


def test_a_server_that_does_not_answer_is_named_and_make_can_be_pressed_again(visitor):
    page = visitor.page
    make(page)
    before = faces(page)
    held = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.fill(".make [name=seed]", "420")
    page.click(".make .go")
    page.wait_for_selector(".make .told.problem", timeout=15_000)
    assert page.inner_text(".make .told") == "The server did not answer; try again."
    assert page.get_attribute(".make", "data-state") == "finished"
    assert page.is_visible(".make .go")
    assert faces(page) == before
    held[0].continue_()  # it answers after all
    page.wait_for_selector(".make .told:text('DDIM: 20 calls')")
    assert faces(page) != before


def test_stop_holds_although_the_server_has_not_answered_yet(visitor, making, occupied):
    page = visitor.page
    make(page)
    before = faces(page)
    others, sent = occupied(), orders(page)
    page.evaluate(
        """() => {
            const { fetch } = window;
            window.fetch = async (to, ...rest) => {
                const late = String(to).includes("/queue/join") ? 1000 : 0;
                await new Promise((wait) => setTimeout(wait, late));
                return fetch(to, ...rest);
            };
        }"""
    )
    page.fill(".make [name=seed]", "330")
    with page.expect_request(lambda one: '"halt"' in (one.post_data or "")):
        page.click(".make .go")
        page.click(".make .halt")
        assert page.inner_text(".make .told") == "Stopped."
        assert sent() == 0
    page.wait_for_timeout(1000)
    assert sent() == 1
    assert making[1].engine.load == (1, 0)
    assert others.reached < others.calls
    assert page.get_attribute(".make", "data-state") == "finished"
    assert page.inner_text(".make .told") == "Stopped."
    assert faces(page) == before


def test_make_can_be_pressed_at_once_after_stop_and_stopped_again(visitor, making):
    page = visitor.page
    for _ in range(3):
        page.click(".make .go")
        page.click(".make .halt")
        assert page.inner_text(".make .told") == "Stopped."
    page.fill(".make [name=seed]", "340")
    make(page)
    assert page.inner_text(".make .told").startswith("DDIM: 20 calls, ")
    idle(making[1])


def test_a_double_click_on_make_makes_faces(visitor):
    page = visitor.page
    page.fill(".make [name=seed]", "350")
    page.dblclick(".make .go")
    page.wait_for_selector(".make .told:text('DDIM: 20 calls')")
    assert page.get_attribute(".make", "data-state") == "finished"


def test_arrow_keys_go_on_at_the_first_and_the_last_face_and_after_a_click(visitor):
    page = visitor.page
    make(page)
    seed = ".make dialog .seed"
    page.click(".make figure button >> nth=1")
    for key, at in (("ArrowLeft", 7), ("ArrowLeft", 7), ("ArrowRight", 8)):
        page.keyboard.press(key)
        assert page.inner_text(seed) == f"seed {at}"
    page.click(".make dialog .before")
    assert page.get_attribute(".make dialog .before", "aria-disabled") == "true"
    assert page.evaluate("document.activeElement.className") == "before"
    page.keyboard.press("Enter")
    assert page.inner_text(seed) == "seed 7"
    page.click(".make dialog canvas")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(seed) == "seed 8"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.closest('figure') !== null")


def test_only_a_press_that_begins_and_ends_beside_an_enlarged_face_closes_it(visitor):
    page = visitor.page
    page.click(".make figure button >> nth=1")
    box = page.locator(".make dialog").bounding_box()
    inside, beside = (box["x"] + 6, box["y"] + 6), (box["x"] - 40, box["y"] + 40)
    for start, end, is_open in (
        (inside, inside, True),  # the padding
        (inside, beside, True),  # words that are selected
        (beside, inside, True),
        (beside, beside, False),
    ):
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end)
        page.mouse.up()
        assert page.is_visible(".make dialog") == is_open


def test_the_keyboard_goes_to_stop_when_an_enlarged_face_has_gone_during_a_run(
    visitor, making, occupied
):
    page = visitor.page
    page.evaluate(
        """() => {
            const dialog = document.querySelector('.make dialog');
            const watch = new MutationObserver(() => {
                watch.disconnect();
                dialog.close();
            });
            watch.observe(document.querySelector('.make .faces'), {childList: true});
            dialog.addEventListener('close', () => {
                window.focused = document.activeElement.className;
            });
        }"""
    )
    occupied()
    page.fill(".make [name=seed]", "370")
    page.click(".make .go")
    page.wait_for_selector(".make .told:text('Place 1 in line')")
    page.click(".make figure button >> nth=0")
    page.wait_for_selector(".make dialog[open]")
    making[1].engine.capacity = CAPACITY
    page.wait_for_function("window.focused !== undefined")
    assert page.evaluate("window.focused") == "halt"


def test_the_way_back_to_another_screen_closes_the_dialog(visitor):
    page = visitor.page
    page.click(".make figure button >> nth=0")
    page.wait_for_selector(".make dialog[open]")
    page.evaluate("location.hash = 'train'")  # as the browser's Back does
    page.wait_for_selector("#train")
    page.click("#header [data-tab=make]", timeout=5000)
    assert page.is_visible("#make")
    assert page.locator(".make dialog[open]").count() == 0


def test_make_works_in_a_browser_that_keeps_nothing(page, making):
    page.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) {
            Object.defineProperty(window, name, { get() { throw new Error("kept out"); } });
        }"""
    )
    screen = Screen(page)
    opened(screen, making[0])
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    make(page)
    assert screen.errors == []


@pytest.mark.parametrize("kept", ["{", "null", "5", '"x"', '{"asked": 7, "seed": [1]}'])
def test_what_somebody_else_kept_here_does_no_harm(page, making, kept):
    page.add_init_script(f"localStorage.setItem('cartoon-make', {json.dumps(kept)})")
    screen = Screen(page)
    opened(screen, making[0])
    assert page.is_checked(".make [name=glasses][value='']")
    assert screen.errors == []


@pytest.mark.parametrize("size", [(390, 844), (1920, 1080)])
def test_nothing_moves_while_faces_come_and_nothing_is_wider_than_the_screen(page, making, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    screen = Screen(page)
    opened(screen, making[0])
    page.wait_for_selector(".make figure")
    grid = "document.querySelector('.make .faces').getBoundingClientRect().top"
    recorded = page.evaluate(grid)
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    page.click(".make .go")
    page.wait_for_selector(".make figure li")
    assert page.evaluate(grid) == recorded
    tops = "[...document.querySelectorAll('.make figure')].map(f => f.getBoundingClientRect().top)"
    before = page.evaluate(tops)
    page.wait_for_selector(".make[data-state=finished]")
    assert page.evaluate(tops) == before
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert screen.errors == []


def test_the_buttons_stay_in_place_from_one_enlarged_face_to_the_next(visitor):
    page = visitor.page
    make(page)
    page.click(".make figure button >> nth=1")
    page.wait_for_selector(".make dialog[open]")
    at = "document.querySelector('.make dialog .after').getBoundingClientRect().top"
    two_lines = "Face: skin tone 4 of 11, dark brown hair, clear or tinted glasses, no beard."
    tops = []
    for words in ("Face.", two_lines):
        page.evaluate(
            "words => { document.querySelector('.make dialog .about').textContent = words; }", words
        )
        tops.append(page.evaluate(at))
    assert tops[0] == tops[1]


@pytest.mark.parametrize("size", [(320, 568), (390, 844), (1280, 720)])
def test_nothing_in_the_dialog_moves_when_a_face_was_saved_or_not(visitor, size):
    page = visitor.page
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.click(".make figure button >> nth=1")
    box = "JSON.stringify(document.querySelector('.make dialog').getBoundingClientRect())"
    scrolled = "document.querySelector('.make dialog').scrollHeight"
    before = page.evaluate(box), page.evaluate(scrolled)
    name = f"cartoon-diffusion-seed-{2**63 - 16}-face-16.png"
    for words in (SCREEN["saved"].replace("[name]", name), SCREEN["lost"], kept_late("picture")):
        page.evaluate(
            "words => { document.querySelector('.make dialog .kept').textContent = words; }", words
        )
        assert (page.evaluate(box), page.evaluate(scrolled)) == before


@pytest.mark.parametrize(("scheme", "size"), [("light", (390, 844)), ("dark", (1280, 720))])
def test_nothing_is_hard_to_read_or_without_a_name(page, making, scheme, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.emulate_media(color_scheme=scheme)
    screen = Screen(page)
    opened(screen, making[0])
    assert hard_to_use(page, "#make") == []
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    make(page)
    for part in ("#make", ".make dialog"):
        assert hard_to_use(page, part) == []
        page.evaluate("document.querySelector('.make figure button').click()")
    assert screen.errors == []
