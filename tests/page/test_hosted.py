"""The page as a Space: it can be duplicated there, and only there."""

import pytest
from stand_ins import CAPACITY

from demo import wording
from demo.backend import LocalBackend
from demo.page import build, launch_options
from diffusion import DiffusionModel, Schedule

pytestmark = pytest.mark.page
BUTTON = f"text={wording.DUPLICATE}"


@pytest.fixture
def hosted(network, monkeypatch):
    """The address of a page that believes to be the Space somebody/cartoons."""
    backend = LocalBackend(DiffusionModel(network, Schedule.cosine()), CAPACITY)
    with monkeypatch.context() as spaces:
        # While the page is built; Gradio launches a Space with the package of that name alone.
        spaces.setenv("SYSTEM", "spaces")
        spaces.setenv("SPACE_ID", "somebody/cartoons")
        page = build(backend)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url
    page.close()
    backend.close()


def test_a_space_has_a_quiet_button_in_its_header_to_duplicate_it(page, hosted):
    page.add_init_script("window.open = url => { window.opened = url; }")
    page.goto(hosted)
    page.wait_for_selector("#run")
    button, header = page.locator(BUTTON).bounding_box(), page.locator("header").bounding_box()
    assert header["y"] <= button["y"]
    assert button["y"] + button["height"] <= header["y"] + header["height"]
    assert button["x"] + button["width"] <= header["width"]
    page.click(BUTTON)
    assert page.evaluate("window.opened") == (
        "https://huggingface.co/spaces/somebody/cartoons?duplicate=true"
    )


def test_on_a_phone_the_badge_has_the_corner_to_itself(page, hosted):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(hosted)
    page.wait_for_selector("#run")
    assert page.is_hidden(BUTTON)


def test_a_page_at_home_has_none(screen):
    assert screen.page.locator(BUTTON).count() == 0
