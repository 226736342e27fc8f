"""Phones, keyboards, screen readers, light and dark: checked by script on every one."""

import pytest
from conftest import TWO_FRAMES, Screen
from stand_ins import hard_to_use

from demo import wording

pytestmark = pytest.mark.page

SCREENS = [(390, 844), (768, 1024), (1280, 720), (1920, 1080)]


@pytest.fixture(scope="module", params=SCREENS, ids=lambda size: f"{size[0]}x{size[1]}")
def opened(request, browser, address):
    """A visitor with that screen, after a short run, with every drawer open."""
    width, height = request.param
    context = browser.new_context(
        viewport={"width": width, "height": height}, reduced_motion="reduce"
    )
    visitor = Screen(context.new_page())
    visitor.open(address)
    visitor.page.click("#more-button")
    visitor.run(seed=51, left_steps=4, right_steps=2)
    visitor.wait("finished")
    visitor.page.click(".equation > summary")
    visitor.page.locator("#examples button").first.wait_for()
    yield visitor
    context.close()
    assert visitor.errors == []


@pytest.fixture(params=["light", "dark"])
def visitor(request, opened):
    """The visitor whose screen is that, in that scheme."""
    opened.page.emulate_media(color_scheme=request.param)
    # Gradio sets the class; colours that change in no time still take until the next frame.
    opened.page.wait_for_function(
        "(dark) => document.querySelector('.dark') !== null === dark", arg=request.param == "dark"
    )
    opened.page.evaluate(TWO_FRAMES)
    opened.page.wait_for_function(
        "!document.getAnimations().some((one) => one instanceof CSSTransition)"
    )
    return opened


def test_nothing_is_hard_to_read_or_without_a_name(visitor):
    # The document around the page is Gradio's.
    assert hard_to_use(visitor.page, "#compare", "#credits") == []


def test_no_part_leaves_the_screen_sideways_and_one_button_is_primary(visitor):
    width = visitor.page.viewport_size["width"]
    beyond = visitor.page.evaluate(
        """(width) => [...document.querySelectorAll('#compare *')]
            .filter(part => part.checkVisibility({visibilityProperty: true}))
            .filter(part => !part.closest('.formula, pre, [hidden], .progress, .head, .open input'))
            .filter(part => part.getBoundingClientRect().right > width + 0.5)
            .map(part => part.outerHTML.slice(0, 120))""",
        width,
    )
    assert beyond == []
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    primary = visitor.page.evaluate(
        """[...document.querySelectorAll('button.primary')]
            .filter(part => part.checkVisibility({visibilityProperty: true})).length"""
    )
    assert primary == 1


def test_the_end_of_the_page_names_whose_pictures_the_models_learned_from(visitor):
    visitor.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    assert "CartoonSet by Google LLC, CC BY 4.0" in visitor.page.inner_text("#credits")
    # Nothing lies over it, such as the bar with the button on a phone.
    assert visitor.page.evaluate(
        """() => [...document.querySelectorAll('#credits a')].every((link) => {
            const {left, top, width, height} = link.getBoundingClientRect();
            return document.elementFromPoint(left + width / 2, top + height / 2) === link;
        })"""
    )


@pytest.mark.parametrize("size", [(320, 568), (360, 740), (390, 844), (1280, 720)])
def test_the_tabs_can_be_pressed_while_a_recorded_run_is_shown_and_a_training_goes_on(
    page, address, size
):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    visitor = Screen(page)
    visitor.open(address)
    visitor.wait("recorded")
    assert visitor.page.is_visible(".stage .badge")
    covered = visitor.page.evaluate(
        """() => {
            const pill = document.querySelector('#pill');
            [pill.hidden, pill.textContent] = [false, '● 100 %'];
            return [...document.querySelectorAll('#header [role=tab], #pill')].filter((part) => {
                const {left, right, top, width, height} = part.getBoundingClientRect();
                const met = document.elementFromPoint(left + width / 2, top + height / 2);
                return met !== part || right > innerWidth || height > 48;
            }).map((part) => part.outerHTML);
        }"""
    )
    assert covered == []
    # Those who listen hear how far it is.
    assert page.get_by_role("button", name="100 %").is_visible()


def test_nothing_leaves_a_screen_of_320_pixels(page, address):
    page.set_viewport_size({"width": 320, "height": 568})
    visitor = Screen(page)
    visitor.open(address)
    visitor.wait("recorded")
    for name in ("compare", "make", "train"):
        page.click(f"[data-tab={name}]")
        beyond = page.evaluate(
            """(name) => [...document.querySelectorAll(`#${name} :is(button, input, label, .end)`)]
                .filter((part) => part.checkVisibility({visibilityProperty: true}))
                .filter((part) => part.getBoundingClientRect().right > 320.5)
                .map((part) => part.outerHTML.slice(0, 120))""",
            name,
        )
        assert beyond == [], name


# What has the keyboard: its words, its top and its bottom, and the top of the bar with the button;
# nothing where it is in that bar. A choice that is drawn by its label is where the label is.
FOCUSED = """() => {
    const part = document.activeElement;
    const bar = [...document.querySelectorAll('#action, .make .action')]
        .find((one) => one.checkVisibility());
    if (bar.contains(part)) return null;
    const drawn = getComputedStyle(part).opacity === '0' ? part.closest('label') : part;
    const {top, bottom} = drawn.getBoundingClientRect();
    return [part.outerHTML.slice(0, 120), top, bottom, bar.getBoundingClientRect().top];
}"""
IS_NEW = """() => {
    const reached = (window.reached ??= new Set([document.body]));
    const isNew = !reached.has(document.activeElement);
    reached.add(document.activeElement);
    return isNew;
}"""


# WCAG 2.2, 1.4.12: what a reader may do to the text.
WIDE = """* { line-height: 1.5 !important; letter-spacing: 0.12em !important;
        word-spacing: 0.16em !important; }
    p { margin-bottom: 2em !important; }"""
CUT = """[...document.querySelectorAll('body *')]
    .filter((part) => part.offsetParent && part.textContent.trim() && part.clientHeight)
    .filter((part) => getComputedStyle(part).position !== 'absolute')
    .filter((part) => {
        const { overflowX, overflowY } = getComputedStyle(part);
        const hides = (overflow) => ['hidden', 'clip'].includes(overflow);
        return (hides(overflowX) && part.scrollWidth > part.clientWidth + 2)
            || (hides(overflowY) && part.scrollHeight > part.clientHeight + 2);
    })
    .map((part) => part.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_letters_that_a_reader_sets_wider_apart_cut_no_words(page, address, width):
    screen = Screen(page)
    page.set_viewport_size({"width": width, "height": 720})
    screen.open(address)
    screen.wait("recorded")
    page.add_style_tag(content=WIDE)
    sentence = wording.other_weights("0123456789ab")
    page.evaluate("(words) => (document.querySelector('.words').textContent = words)", sentence)
    for name in ("compare", "make", "train"):
        page.click(f"[data-tab={name}]")
        page.wait_for_selector(f"#{name}:visible")
        assert page.evaluate(CUT) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("[data-tab=compare]")
    lines = page.locator(".outcome, .transport, .counter")
    inside = """(line) => [...line.children].every((part) =>
        part.getBoundingClientRect().bottom <= line.getBoundingClientRect().bottom + 1)"""
    assert all(line.evaluate(inside) for line in lines.all())


@pytest.mark.parametrize("name", ["compare", "make"])
def test_the_bar_does_not_hide_what_has_the_keyboard_on_a_page_that_is_enlarged(
    page, address, name
):
    page.set_viewport_size({"width": 320, "height": 256})  # 1280×1024 at 400 %
    visitor = Screen(page)
    visitor.open(address)
    visitor.wait("recorded")
    page.click("#more-button")
    page.click(f"[data-tab={name}]")
    page.locator(f"#{name} :is(figure, #examples) button").first.wait_for()
    hidden, reached = [], 0
    page.keyboard.press("Tab")
    while page.evaluate(IS_NEW):
        reached += 1
        place = page.evaluate(FOCUSED)
        if place and not (place[2] > 0 and place[1] < place[3]):
            hidden.append(place)
        page.keyboard.press("Tab")
    assert reached > 20
    assert hidden == []


@pytest.fixture(scope="module")
def contrast(browser, address):
    """A visitor whose system has a contrast theme."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 720}, forced_colors="active", reduced_motion="reduce"
    )
    visitor = Screen(context.new_page())
    visitor.open(address)
    visitor.wait("recorded")
    yield visitor
    context.close()
    assert visitor.errors == []


MARKED = """(part) => {
    const {borderBottomWidth, borderBottomColor, outlineStyle} = getComputedStyle(part);
    const isUnderlined = borderBottomWidth === '2px'
        && borderBottomColor !== getComputedStyle(document.body).backgroundColor;
    return isUnderlined || outlineStyle !== 'none';
}"""


@pytest.mark.parametrize(
    ("name", "chosen", "other"),
    [
        ("compare", "[role=tab][aria-selected=true]", "[role=tab][aria-selected=false]"),
        ("compare", ".clock :checked + span", ".clock :not(:checked) + span"),
        ("compare", "#faces label.selected", "#faces label:not(.selected)"),
        ("make", ".models :checked + span", ".models :not(:checked) + span"),
        ("train", ".minutes label:has(:checked)", ".minutes label:not(:has(:checked))"),
        ("train", ".begin label:has(:checked)", ".begin label:not(:has(:checked))"),
    ],
)
def test_a_contrast_theme_shows_what_is_chosen(contrast, name, chosen, other):
    contrast.page.click(f"[data-tab={name}]")
    contrast.page.mouse.move(0, 0)
    contrast.page.wait_for_timeout(200)
    pair = [contrast.page.eval_on_selector(one, MARKED) for one in (chosen, other)]
    assert pair == [True, False]


@pytest.mark.parametrize("part", ["#dice", ".stage .head", ".make .dice"])
def test_a_contrast_theme_shows_what_is_drawn_by_a_background(contrast, part):
    contrast.page.click(f"[data-tab={'make' if part.startswith('.make') else 'compare'}]")
    ground, drawn = contrast.page.eval_on_selector(
        part,
        """(part) => [
            getComputedStyle(document.body).backgroundColor,
            getComputedStyle(part, '::before').backgroundColor,
        ]""",
    )
    assert ground != drawn


def test_a_contrast_theme_keeps_the_colours_of_swatches_and_marks_the_chosen_one(contrast):
    contrast.page.click("[data-tab=make]")
    contrast.page.evaluate(
        """() => {
            const swatch = (colour, checked) => `<label class="swatch" style="--colour: ${colour}">
                <input type="radio" name="test" ${checked}><i>${colour}</i></label>`;
            document.querySelector('.make .wishes').innerHTML = `<fieldset class="swatches">
                ${swatch('#603d30', 'checked')}${swatch('#fbdbd1', '')}</fieldset>`;
        }"""
    )
    seen = contrast.page.eval_on_selector_all(
        ".make .swatch i",
        """(parts) => parts.map((part) => getComputedStyle(part))
            .map((style) => [style.backgroundColor, style.outlineStyle])""",
    )
    assert seen == [["rgb(96, 61, 48)", "solid"], ["rgb(251, 219, 209)", "none"]]


@pytest.mark.parametrize("size", [(390, 844), (1280, 720)])
def test_no_layout_shifts_from_the_first_paint_to_the_end_of_a_run(page, address, size):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    visitor = Screen(page)
    visitor.open(address)
    visitor.wait("recorded")
    visitor.page.evaluate(
        """() => {
            window.shifts = [];
            new PerformanceObserver((list) => {
                for (const shift of list.getEntries()) {
                    const moved = shift.sources.map((source) => [
                        source.node?.outerHTML ?? source.node?.textContent,
                        JSON.stringify([source.previousRect, source.currentRect]),
                    ]);
                    window.shifts.push([shift.value, ...moved]);
                }
            }).observe({type: 'layout-shift', buffered: false});
        }"""
    )
    visitor.run(seed=52, left_steps=110, right_steps=30)
    visitor.wait("finished")
    visitor.page.select_option("#lens", "eps")
    visitor.page.check(".clock input[value=noise]", force=True)
    visitor.run(seed="nonsense")
    visitor.page.wait_for_selector(".words.problem")
    assert visitor.page.evaluate("window.shifts") == []


def test_progress_is_told_to_those_who_do_not_see_it(screen, network):
    network.delay = 0.03
    screen.page.evaluate(
        """() => {
            window.told = [];
            const line = document.querySelector('.progress');
            const note = () => window.told.push(line.textContent);
            new MutationObserver(note).observe(line, {childList: true, characterData: true});
        }"""
    )
    screen.run(seed=53, left_steps=40, right_steps=20)
    screen.wait("finished")
    told = [words for words in screen.page.evaluate("window.told") if words]
    assert told == [f"{percent} percent drawn" for percent in (25, 50, 75, 100)]
    assert screen.page.get_attribute(".words", "aria-live") == "polite"


def test_the_keyboard_alone_runs_scrubs_and_saves(screen):
    page = screen.page
    page.evaluate("document.querySelector('#seed input').focus()")
    page.keyboard.press("Control+A")
    page.keyboard.type("54")
    page.keyboard.press("Enter")
    screen.wait("running")
    screen.wait("finished")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                """() => {
                    const part = document.activeElement;
                    return part.id || part.closest('[id]')?.id + ' ' + part.className;
                }"""
            )
        )
    for part in ("#left_steps", "#right_steps", "#right_eta", "lens", "more-button", "run"):
        assert any(part.strip("#") in name for name in reached), part
    for part in ("timeline", "play", "speed", "link"):
        assert any(part in name for name in reached), part


def test_a_button_that_has_come_to_its_end_keeps_the_focus(screen):
    page = screen.page
    screen.run(seed=55, left_steps=2, right_steps=2)
    screen.wait("finished")
    for name, calls in (("back", (1, 0, 0)), ("forward", (1, 2, 2))):
        page.focus(f".{name}")
        for there in calls:
            page.keyboard.press("Enter")
            screen.wait_calls("left", there, total=2)
            assert name in page.evaluate("document.activeElement.className")
        assert page.get_attribute(f".{name}", "aria-disabled") == "true"


def test_a_page_that_nothing_happens_on_draws_nothing(page, address):
    page.emulate_media(reduced_motion="reduce")  # the recorded run does not play
    page.add_init_script(
        """window.frames_asked = 0;
        const request = window.requestAnimationFrame;
        window.requestAnimationFrame = (draw) => {
            window.frames_asked++;
            return request.call(window, draw);
        };"""
    )
    visitor = Screen(page)
    visitor.open(address)
    visitor.page.wait_for_timeout(2000)
    before = visitor.page.evaluate("window.frames_asked")
    visitor.page.wait_for_timeout(1000)
    assert visitor.page.evaluate("window.frames_asked") == before
