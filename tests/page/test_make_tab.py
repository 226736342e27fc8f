"""The Make screen in a real browser: wishes, faces, ticks, and the way to Compare."""

import io
import json

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from conftest import CAPACITY, Screen
from PIL import Image
from stand_ins import recordings_shown
from test_making import LABELS, always

from demo.backend import LocalBackend
from demo.page import build, launch_options
from demo.trainings import Trainings
from demo.wording_make import FINISHED
from diffusion import DiffusionModel, Schedule, UNet, UNetConfig
from diffusion.model import ready
from diffusion.pictures import SETTINGS_KEY

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def making(tmp_path_factory):
    """The address of a page whose model can be asked for LABELS, and its backend."""
    torch.manual_seed(0)
    counts = tuple(map(len, LABELS.values()))
    network = UNet(UNetConfig(size=64, widths=(16, 32), labels=counts))
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    model = DiffusionModel(ready(network), Schedule.cosine(), labels=LABELS)
    backend = LocalBackend(model, CAPACITY)
    with recordings_shown():
        page = build(backend, Trainings(tmp_path_factory.mktemp("runs")), always(0, 1, 2))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url, backend
    page.close()
    backend.close()


@pytest.fixture
def visitor(browser, making):
    """Somebody on the Make screen at 1280×720."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    screen = Screen(context.new_page())
    opened(screen, making[0])
    yield screen
    context.close()
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


@pytest.mark.parametrize("size", [(390, 844), (1920, 1080)])
def test_nothing_moves_while_faces_come_and_nothing_is_wider_than_the_screen(browser, making, size):
    context = browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True)))
    screen = Screen(context.new_page())
    page = opened(screen, making[0])
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    page.click(".make .go")
    page.wait_for_selector(".make figure li")
    tops = "[...document.querySelectorAll('.make figure')].map(f => f.getBoundingClientRect().top)"
    before = page.evaluate(tops)
    page.wait_for_selector(".make[data-state=finished]")
    assert page.evaluate(tops) == before
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert screen.errors == []
    context.close()


@pytest.mark.parametrize(("scheme", "size"), [("light", (390, 844)), ("dark", (1280, 720))])
def test_nothing_is_hard_to_read_or_without_a_name(browser, making, scheme, size):
    context = browser.new_context(
        viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme
    )
    screen = Screen(context.new_page())
    page = opened(screen, making[0])
    page.click(".make .wishes:not([hidden]) fieldset >> nth=2 >> text=dark")
    make(page)
    for part in ("#make", ".make dialog"):
        found = Axe().run(page, context=part, options={"resultTypes": ["violations"]})
        problems = [
            (problem["id"], node["html"][:120], node.get("failureSummary", "")[:300])
            for problem in found.response["violations"]
            for node in problem["nodes"]
        ]
        assert problems == []
        page.evaluate("document.querySelector('.make figure button').click()")
    assert screen.errors == []
    context.close()
