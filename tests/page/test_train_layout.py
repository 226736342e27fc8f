"""The Train tab in a real browser: sizes, keyboard and fields."""

import io

import pytest
from PIL import Image
from train_tab import sheet_of

from diffusion.train_config import FINE_TUNING, PRESETS, TrainConfig

pytest_plugins = ["train_fixtures"]
pytestmark = [pytest.mark.page, pytest.mark.slow]


def test_the_choices_and_the_button_fit_without_scrolling(tab):
    for width, height in ((1280, 720), (390, 844), (768, 1024)):
        tab.page.set_viewport_size({"width": width, "height": height})
        box = tab.page.locator(".train .start").bounding_box()
        assert box["y"] + box["height"] <= height
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_tabs_are_reached_by_keyboard(tab):
    page = tab.page
    page.focus("#header [data-tab=train]")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#header [data-tab=make]", "aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#header [data-tab=compare]", "aria-selected") == "true"
    page.wait_for_selector("#run")
    assert not page.is_visible(".train .lede")


def test_the_time_lapse_is_dragged_by_more_than_its_line(tab, found):
    page = tab.page
    tab.watch("with")
    tab.wait(sheet_of(200))
    for width, thumb in ((1280, 4), (390, 12)):
        page.set_viewport_size({"width": width, "height": 844})
        page.locator(".scrub").scroll_into_view_if_needed()
        box = page.locator(".scrub").bounding_box()
        assert box["height"] >= 24
        middle = box["y"] + box["height"] / 2
        page.mouse.click(box["x"] + 1, middle - 8)
        tab.wait(sheet_of(0))
        page.mouse.click(box["x"] + box["width"] - 1, middle + 8)
        tab.wait(sheet_of(200))
        assert thumb_width(page) == thumb


def thumb_width(page):
    """Pixels of what is dragged, seen above the line that it moves on."""
    box = page.locator(".scrub").bounding_box()
    above = {**box, "y": box["y"] + box["height"] / 2 - 6, "height": 1}
    with Image.open(io.BytesIO(page.screenshot(clip=above))) as row:
        return sum(level < 128 for level in row.convert("L").getdata())


def test_the_fields_show_what_is_taken_where_they_are_left_empty(tab):
    page = tab.page
    page.click(".advanced summary")
    rate = ".train [name=rate]"
    assert page.get_attribute(rate, "placeholder") == f"{PRESETS['tiny']['lr']:g}"
    page.select_option(".train [name=network]", "small")
    assert page.get_attribute(rate, "placeholder") == f"{TrainConfig(images=1).lr:g}"
    page.click(".train label:has([value=shipped])")
    assert page.get_attribute(rate, "placeholder") == f"{FINE_TUNING['lr']:g}"
    page.click(".train label:has([value=nothing])")
    page.select_option(".train [name=network]", "tiny")
    assert page.get_attribute(rate, "placeholder") == f"{PRESETS['tiny']['lr']:g}"
    assert page.get_attribute(".train [name=batch]", "placeholder") == "4"
