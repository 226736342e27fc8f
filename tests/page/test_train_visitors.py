"""The Train tab in a real browser: what is whose, and what a click of theirs does."""

import json

import pytest
from train_tab import CALLS, DETAILED, ESTIMATED, Held, Tab, calls, folders, sheet_of

from demo import wording_train
from diffusion.runs import Run

pytest_plugins = ["train_fixtures"]
pytestmark = [pytest.mark.page, pytest.mark.slow]


def test_a_link_with_an_operators_key_leaves_the_browsers_own_name_alone(tab, training):
    page, kept = tab.page, "localStorage.getItem('cartoon-owner')"
    before = page.evaluate(kept)
    assert len(before) == 48
    sent = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    tab.open(training + "?operator=" + "k" * 40)
    tab.wait(ESTIMATED)
    assert page.evaluate(kept) == before
    looks = [json.loads(data)["data"] for data in sent if '"look"' in data and '"owner"' in data]
    assert looks[-1]["owner"] == before
    assert looks[-1]["operator"] == "k" * 40
    # A reload without the address still has the key, another visit has not.
    other = Tab(page.context.browser.new_page(), training)
    assert other.page.evaluate("sessionStorage.getItem('cartoon-operator')") is None
    other.page.close()
    assert page.evaluate("sessionStorage.getItem('cartoon-operator')") == "k" * 40


def test_a_browser_that_may_keep_nothing_shows_one_screen_and_trains(page, training):
    page.add_init_script(
        """for (const name of ['localStorage', 'sessionStorage'])
            Object.defineProperty(window, name, {get() { throw new DOMException('denied'); }});"""
    )
    page.goto(training + "#train")
    page.wait_for_selector(".train .estimate .words:not(:empty)")
    screens = ("compare", "make", "train")
    assert [name for name in screens if page.is_visible(f"#{name}")] == ["train"]
    page.click("#header [data-tab=make]")
    assert [name for name in screens if page.is_visible(f"#{name}")] == ["make"]


def test_really_delete_is_asked_anew_for_every_run(operator, runs, found):
    page = operator.page
    operator.watch("with")
    page.click(".actions .delete")
    assert operator.text(".actions .delete") == wording_train.TRAIN["really"]
    operator.watch("without")
    assert operator.text(".actions .delete") == wording_train.TRAIN["delete"]
    operator.wait(DETAILED)
    # Until the server has told of the run, its buttons are still those of the other one.
    held = Held(page, '"run":"with"')
    page.click(".runs li[data-run=with] button")
    held.wait()
    page.click(".actions .delete")
    assert operator.text(".actions .delete") == wording_train.TRAIN["delete"]
    held.go_on()
    operator.wait(sheet_of(200))
    page.click(".actions .delete")
    page.click(".actions .delete")
    page.wait_for_selector(".runs li[data-run=with]", state="detached")
    assert [path.name for path in folders(runs)] == ["without"]


def test_a_double_click_on_delete_asks_and_deletes_nothing(operator, found):
    page, removed = operator.page, calls(operator.page, "remove")
    operator.watch("with")
    operator.wait(sheet_of(200))
    before = page.locator(".actions .delete").bounding_box()
    page.dblclick(".actions .delete")
    assert page.locator(".actions .delete").bounding_box() == before
    assert operator.text(".actions .delete") == wording_train.TRAIN["really"]
    page.wait_for_timeout(300)
    assert not removed
    assert found[0].exists


def test_a_key_that_is_held_on_delete_asks_and_deletes_nothing(operator, found):
    page, removed = operator.page, calls(operator.page, "remove")
    operator.watch("with")
    operator.wait(sheet_of(200))
    page.focus(".actions .delete")
    for _ in range(2):
        page.keyboard.down("Enter")
    assert operator.text(".actions .delete") == wording_train.TRAIN["really"]
    page.wait_for_timeout(300)
    assert not removed
    assert found[0].exists
    page.keyboard.up("Enter")


def test_a_double_click_on_continue_asks_once_and_while_it_is_asked_it_cannot_be_pressed(
    operator, found
):
    page, resumed = operator.page, calls(operator.page, "resume")
    operator.watch("with")
    operator.wait(sheet_of(200))
    held = Held(page, '"resume"')
    page.dblclick(".actions .continue")
    held.wait()
    assert not page.is_enabled(".actions .continue")
    page.click(".actions .continue", force=True)
    assert operator.focused() == ["primary", "continue"]
    held.lose()
    page.wait_for_selector(".train .refusal:not(:empty)")
    assert operator.text(".refusal") == wording_train.TRAIN["unanswered"]
    assert page.is_enabled(".actions .continue")
    assert len(resumed) == 1


def test_the_keyboard_stays_with_what_was_pressed_while_it_is_answered(operator, found):
    page = operator.page
    operator.wait(ESTIMATED)
    operator.watch("with")
    operator.wait(sheet_of(200))
    for what in ("start", "film", "model"):
        held = Held(page, f'"{what}"')
        page.focus(f".train .{what}")
        page.keyboard.press("Enter")
        held.wait()
        assert not page.is_enabled(f".train .{what}")
        assert what in operator.focused()
        held.lose()
        page.wait_for_selector(f".train .{what}:not([aria-disabled=true])")
        assert what in operator.focused()
        page.unroute(CALLS)


def test_the_keyboard_goes_from_continue_to_stop_and_after_deleting_to_the_list(
    operator, runs, found, monkeypatch
):
    page = operator.page
    operator.watch("with")
    operator.wait(sheet_of(200))
    page.focus(".actions .continue")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "alive", property(lambda run: run.folder.name == "with"))
        page.wait_for_selector(".actions .stop")
        assert operator.focused() == ["primary", "stop"]
    page.wait_for_selector(".actions .continue")
    assert operator.focused() == ["primary", "continue"]
    page.focus(".actions .delete")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector(".runs li[data-run=with]", state="detached")
    assert page.evaluate("document.activeElement.closest('li')?.dataset.run") == "without"


def test_the_keyboard_goes_to_compare_with_what_is_opened_there(tab, found):
    page = tab.page
    tab.watch("with")
    tab.wait(sheet_of(200))
    tab.wait("document.querySelector('.stage .timeline svg') !== null")  # the other screen is there
    page.focus("article .compare")
    page.keyboard.press("Enter")
    page.wait_for_selector("#model-notice .notice:visible")
    opened = "document.activeElement.matches('[role=tab][data-tab=compare]')"
    assert page.evaluate(opened)
    # The way back is on the same screen.
    page.focus("#model-notice button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#model-notice .notice", state="hidden")
    assert not page.evaluate(opened)


def test_a_run_that_lost_its_checkpoint_has_no_button_to_continue_it(operator, found):
    found[0].checkpoint_path.unlink()
    operator.watch("with")
    operator.page.wait_for_selector(".train .advice:not(:empty)")
    assert operator.text(".advice") == wording_train.MADE_ROOM
    assert operator.shows(".actions .delete")
    assert operator.shows(".actions .model")
    assert not operator.shows(".actions .continue")
