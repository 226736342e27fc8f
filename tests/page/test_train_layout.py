"""The Train tab in a real browser: sizes, keyboard and fields."""

import io
import itertools
import re

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


def test_the_advanced_fields_fit_and_leave_the_choices_as_they_are(tab):
    page = tab.page
    places = """() => [...document.querySelectorAll('.choices fieldset')]
        .map(part => JSON.stringify(part.getBoundingClientRect()))"""
    narrow = """() => [...document.querySelectorAll('.options label')]
        .filter(part => part.scrollWidth > part.clientWidth).map(part => part.textContent)"""
    fields = """() => Math.max(...[...document.querySelectorAll('.fields label > *')]
        .map(part => part.getBoundingClientRect().right))"""
    for width in (1280, 768, 390):
        page.set_viewport_size({"width": width, "height": 1024})
        assert page.evaluate(narrow) == []
        before = page.evaluate(places)
        page.click(".advanced summary")
        assert page.evaluate(places) == before
        assert page.evaluate(fields) <= width
        page.click(".advanced summary")


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
        assert page.get_attribute(".scrub", "aria-valuetext") == tab.text(".position")
        assert tab.text(".position").startswith("after 0 images")
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
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        typed, empty, ground = (rgb(page, rate, what) for what in COLOURS)
        assert empty != typed
        assert contrast(empty, ground) >= 4.5


# What is typed into a field, what it shows while it is empty, and the ground of both.
COLOURS = (
    "getComputedStyle(field).color",
    "getComputedStyle(field, '::placeholder').color",
    "getComputedStyle(document.body).backgroundColor",
)


def rgb(page, field, what):
    colour = page.eval_on_selector(field, f"(field) => {what}")
    return [int(level) for level in re.findall(r"\d+", colour)]


def contrast(*colours):
    """WCAG's ratio of two colours."""

    def luminance(colour):
        parts = [level / 255 for level in colour]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return sum(
            weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
        )

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)


def test_a_long_name_of_a_run_pushes_nothing_off_the_screen(tab, found):
    page = tab.page
    tab.watch("with")
    tab.wait(sheet_of(200))
    names, widths = ("w" * 60, "a name of many words " * 3), (320, 390, 1280)
    for name, width in itertools.product(names, widths):
        page.set_viewport_size({"width": width, "height": 844})
        right = page.evaluate(
            """(name) => {
                for (const title of document.querySelectorAll('.train .title')) {
                    title.textContent = name;
                }
                const parts = document.querySelectorAll('.runs .state, .facts .title');
                return Math.max(...[...parts].map((part) => part.getBoundingClientRect().right));
            }""",
            name,
        )
        assert right <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
