"""The Train tab in a real browser: somebody's own pictures."""

import json
import threading

import pytest
from train_tab import CALLS, ESTIMATED, Held, Tab, calls, pictures

from demo import desk, wording_train
from demo.doors import MOST_ASKED
from demo.uploads import MOST, MOST_BYTES, MOST_SENT, ReadingOthersError, Uploads

pytest_plugins = ["train_fixtures"]
pytestmark = [pytest.mark.page, pytest.mark.slow]


def test_own_pictures_are_taken_and_bad_ones_are_refused_beside_the_button(tab, tmp_path):
    page = tab.page
    page.click(".train label.own")
    (tmp_path / "notes.png").write_text("no picture")
    page.set_input_files(".train .files", str(tmp_path / "notes.png"))
    page.wait_for_selector(".taken.problem")
    assert tab.text(".taken").startswith("notes.png is not a picture;")
    page.set_input_files(".train .files", pictures(tmp_path, 16))
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")


def test_files_that_are_too_large_are_refused_before_they_are_sent(tab, tmp_path):
    page, sent = tab.page, []
    page.on("request", lambda request: sent.append(request.url))
    page.click(".train label.own")
    with open(tmp_path / "faces.zip", "wb") as file:
        file.truncate(MOST_SENT + 1)
    page.set_input_files(".train .files", str(tmp_path / "faces.zip"))
    page.wait_for_selector(".taken.problem")
    assert tab.text(".taken") == wording_train.too_big("faces.zip", MOST_SENT)
    count = MOST_BYTES // MOST_SENT + 1
    for i in range(count):
        with open(tmp_path / f"{i}.zip", "wb") as file:
            file.truncate(MOST_SENT)
    page.set_input_files(".train .files", [str(tmp_path / f"{i}.zip") for i in range(count)])
    assert tab.text(".taken") == wording_train.too_much(MOST_BYTES)
    assert not [url for url in sent if "upload" in url]


def test_a_refused_set_of_pictures_does_not_leave_an_earlier_one(tab, tmp_path):
    page, started = tab.page, calls(tab.page, "start")
    page.click(".train label.own")
    names = pictures(tmp_path, 16)
    page.set_input_files(".train .files", names)
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")
    page.set_input_files(".train .files", names[:3])
    page.wait_for_selector(".taken.problem")
    page.click(".train .start")
    page.wait_for_selector(".estimate .words.problem")
    assert tab.text(".estimate .words") == wording_train.NO_PICTURES
    assert [json.loads(data)["data"]["upload"] for data in started] == [None]


def test_only_the_latest_set_of_pictures_counts(tab, tmp_path):
    page = tab.page
    page.click(".train label.own")
    names = pictures(tmp_path, 17)
    held = Held(page, '"take"')
    page.set_input_files(".train .files", names[:16])
    held.wait()
    page.set_input_files(".train .files", names)
    tab.wait("document.querySelector('.taken').textContent === '17 pictures are ready.'")
    with page.expect_response(lambda response: '"take"' in (response.request.post_data or "")):
        held.go_on()
    page.wait_for_timeout(200)
    assert tab.text(".taken") == "17 pictures are ready."


UPLOADS = "**/gradio_api/upload"


def test_a_picture_that_is_lost_on_its_way_is_sent_again(tab, tmp_path):
    page, answers = tab.page, [None, {"status": 502}, {"body": "no JSON"}]

    def lose(route):
        if not answers:
            route.continue_()
        elif answer := answers.pop():
            route.fulfill(**answer)
        else:
            route.abort()

    page.route(UPLOADS, lose)
    page.click(".train label.own")
    page.set_input_files(".train .files", pictures(tmp_path, 16))
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")
    assert not page.locator(".toast-body").count()
    assert not answers


@pytest.mark.parametrize(
    ("status", "said", "sendings"),
    [
        (507, wording_train.DISK_FULL, 1),
        (413, "More than 201 MB is too much at once.", 1),
        (500, wording_train.TRAIN["unanswered"], 4),
    ],
)
def test_pictures_that_cannot_be_sent_are_given_up_in_the_pages_own_words(
    tab, tmp_path, status, said, sendings
):
    page, sent = tab.page, []

    def refuse(route):
        sent.append(route.request)
        route.fulfill(status=status, body=said if sendings == 1 else "<html>Traceback")

    page.route(UPLOADS, refuse)
    page.click(".train label.own")
    page.set_input_files(".train .files", pictures(tmp_path, 1))
    page.wait_for_selector(".taken.problem")
    assert tab.text(".taken") == said
    assert len(sent) == sendings
    assert not page.locator(".toast-body").count()


def drop(page, selector):
    """Drop a picture there; returns whether the browser was kept from opening it."""
    return page.evaluate(
        """(selector) => {
            const carried = new DataTransfer();
            carried.items.add(new File(['x'], 'face.png', {type: 'image/png'}));
            const how = {bubbles: true, cancelable: true, dataTransfer: carried};
            return ['dragover', 'drop'].every(
                (kind) => !document.querySelector(selector).dispatchEvent(new DragEvent(kind, how))
            );
        }""",
        selector,
    )


def test_pictures_that_are_dropped_are_estimated_as_ones_own(tab):
    page = tab.page
    tab.wait(ESTIMATED)
    with page.expect_request(lambda request: '"estimate"' in (request.post_data or "")) as asked:
        assert drop(page, ".train .pictures")
    assert json.loads(asked.value.post_data)["data"]["pictures"] == "own"
    assert page.is_visible(".train .drop")


def test_a_file_that_is_dropped_anywhere_does_not_take_the_page_away(tab):
    for name in ("compare", "make", "train"):
        tab.page.click(f"#header [data-tab={name}]")
        assert drop(tab.page, "#credits")


def test_train_pressed_while_pictures_are_read_says_so_and_asks_for_no_others(tab, tmp_path):
    page, started = tab.page, calls(tab.page, "start")
    page.click(".train label.own")
    tab.wait(ESTIMATED)
    held = Held(page, '"take"')
    page.set_input_files(".train .files", pictures(tmp_path, 16))
    held.wait()
    page.click(".train .start")
    page.wait_for_selector(".estimate .words.problem")
    assert tab.text(".estimate .words") == wording_train.TRAIN["still_reading"]
    assert not started
    held.go_on()
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")


def test_a_run_on_built_in_cartoons_leaves_uploaded_pictures_for_the_next(tab, tmp_path):
    page = tab.page
    page.click(".train label.own")
    page.set_input_files(".train .files", pictures(tmp_path, 16))
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")
    page.route(CALLS, lambda route: begun(route) if is_start(route) else route.continue_())
    page.click(".train label:has([value=pixel-art])")
    with page.expect_response(lambda response: '"start"' in (response.request.post_data or "")):
        page.click(".train .start")
    page.click(".train label.own")
    assert tab.text(".taken") == "16 pictures are ready."
    assert asked_to_start(page)["upload"]


def is_start(call):
    """Whether a route or a response is of that function."""
    return '"fn_name":"start"' in (call.request.post_data or "")


def begun(route):
    route.fulfill(json={"run": "somebody-was-quicker-to-delete-it"})


def asked_to_start(page):
    """What the page asks for when Train is pressed and its calls are routed."""
    # Answered, or the request of a page that closes would pass by its route and start a run.
    with page.expect_response(is_start) as answer:
        page.click(".train .start")
    return json.loads(answer.value.request.post_data)["data"]


def test_reading_is_shown_file_by_file_and_told_by_quarters_to_those_who_listen(tab, tmp_path):
    page = tab.page
    page.click(".train label.own")
    page.evaluate(
        """() => {
            const note = (list, ...selectors) => {
                const seen = new MutationObserver((records) => {
                    const nodes = records.flatMap(({addedNodes}) => [...addedNodes]);
                    list.push(...nodes.map((node) => node.textContent));
                });
                for (const selector of selectors)
                    seen.observe(document.querySelector(selector), {childList: true});
            };
            note((window.heard = []), '.drop .taken[role=status]', '.drop .sent[role=status]');
            note((window.shown = []), '.drop .reading[aria-hidden=true]');
        }"""
    )
    page.set_input_files(".train .files", pictures(tmp_path, 16))
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")
    assert page.evaluate("shown") == [f"Reading {i} of 16 …" for i in range(1, 17)]
    quarters = [f"{percent} percent sent" for percent in (25, 50, 75, 100)]
    assert page.evaluate("heard") == [*quarters, "16 pictures are ready."]
    assert page.text_content(".drop .reading") == ""


def test_two_visitors_who_send_the_same_files_both_have_them_read(tab, browser, training, tmp_path):
    other, names = Tab(browser.new_page(), training), pictures(tmp_path, 16)
    held = {one: Held(one.page, '"take"') for one in (tab, other)}
    for one, take in held.items():
        one.page.click(".train label.own")
        one.page.set_input_files(".train .files", names)
        take.wait()
    for one, take in held.items():
        take.go_on()
        one.page.wait_for_selector(".taken:not(:empty)")
        assert one.text(".taken") == "16 pictures are ready."
    other.page.close()


def test_pictures_that_wait_for_somebody_elses_are_read_when_train_is_pressed(
    tab, tmp_path, monkeypatch
):
    def refuse(self, files, names):
        raise ReadingOthersError(wording_train.READING_OTHERS)

    page = tab.page
    page.click(".train label.own")
    with monkeypatch.context() as patch:
        patch.setattr(Uploads, "take", refuse)
        page.set_input_files(".train .files", pictures(tmp_path, 16))
        page.wait_for_selector(".taken.problem")
        assert tab.text(".taken") == wording_train.READING_OTHERS
        started = calls(page, "start")
        with page.expect_response(lambda response: '"take"' in (response.request.post_data or "")):
            page.click(".train .start")  # too soon
        page.wait_for_selector(".taken.problem")
        assert not started
    page.route(CALLS, lambda route: begun(route) if is_start(route) else route.continue_())
    assert asked_to_start(page)["upload"]


def test_pictures_that_take_long_are_asked_for_until_they_are_read(tab, tmp_path, monkeypatch):
    go_on, take = threading.Event(), Uploads.take

    def slowly(self, files, names):
        assert go_on.wait(60)
        return take(self, files, names)

    monkeypatch.setattr(Uploads, "take", slowly)
    monkeypatch.setattr(desk, "PATIENCE", 0.2)
    page, asked = tab.page, calls(tab.page, "take")
    page.click(".train label.own")
    page.set_input_files(".train .files", pictures(tmp_path, 16))
    tab.wait(f"document.querySelector('.taken').textContent === '{wording_train.READING_YOURS}'")
    assert page.text_content(".drop .reading") == ""
    assert not page.is_visible(".taken.problem")
    while len(asked) < 3:
        page.wait_for_timeout(50)
    go_on.set()
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")


def test_an_answer_that_was_lost_is_asked_for_again_when_train_is_pressed(tab, tmp_path):
    page = tab.page
    page.click(".train label.own")
    tab.wait(ESTIMATED)
    held = Held(page, '"take"')
    page.set_input_files(".train .files", pictures(tmp_path, 16))
    held.wait()
    held.lose()
    page.wait_for_selector(".taken.problem")
    assert tab.text(".taken") == wording_train.TRAIN["unanswered"]
    page.route(CALLS, lambda route: begun(route) if is_start(route) else route.continue_())
    assert asked_to_start(page)["upload"]


def test_as_many_pictures_as_are_taken_fit_into_one_question_whatever_their_names(tab, tmp_path):
    page, asked = tab.page, calls(tab.page, "take")
    (name,) = pictures(tmp_path, 1)
    with open(name, "rb") as file:
        content = file.read()
    names = [f"{'夏' * 250}{i:02d}.png" for i in range(16)]
    page.click(".train label.own")
    page.set_input_files(
        ".train .files",
        [{"name": name, "mimeType": "image/png", "buffer": content} for name in names],
    )
    tab.wait("document.querySelector('.taken').textContent === '16 pictures are ready.'")
    files = json.loads(asked[0])["data"]["files"]
    longest = max(len(json.dumps(entry, ensure_ascii=False).encode()) for entry in files)
    assert MOST * longest + 1000 < MOST_ASKED
    assert all(name.endswith(entry["name"]) for name, entry in zip(names, files, strict=True))


def test_beside_ones_own_pictures_is_said_who_sees_what_comes_of_them(tab):
    page = tab.page
    assert not page.is_visible(".train .told")
    page.click(".train label.own")
    assert tab.text(".told") == wording_train.TRAIN["own_told"]
    for width, height in ((1280, 720), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        box = page.locator(".train .start").bounding_box()
        assert box["y"] + box["height"] <= height
