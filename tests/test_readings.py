"""Pictures that take longer to read than a request may wait."""

from __future__ import annotations

import threading
import time

import pytest
from stand_ins import wait
from test_uploads import everything, faces, send

from demo import desk as module
from demo import readings, uploads, wording_train
from demo.desk import Desk
from demo.readings import Readings
from demo.trainings import Rules, Trainings

MINE, YOURS = "a" * 40, "b" * 40
READY = "20 pictures are ready."
BEING_READ = {"words": "Your pictures are being read.", "later": True}
OTHERS = {"problem": wording_train.READING_OTHERS, "later": True}
GONE = {"problem": "What you sent is not here any more; send your pictures again."}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return Desk(Trainings(tmp_path / "runs", Rules()))


@pytest.fixture
def slow(monkeypatch):
    """Nothing is read before this is set; requests wait for it a tenth of a second."""
    go_on, decode = threading.Event(), uploads._decode

    def slowly(given, work):
        assert go_on.wait(60)
        return decode(given, work)

    monkeypatch.setattr(uploads, "_decode", slowly)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    yield go_on
    go_on.set()


def asked(folder, files=None, owner=MINE):
    """What a visitor's script asks for after it sent these files."""
    files = faces() if files is None else files
    named = zip(send(folder, files), files, strict=True)
    return {"owner": owner, "files": [{"path": str(path), "name": name} for path, name in named]}


def ask(desk, wish):
    return desk.answer(desk.take, wish)


def finally_told(desk, wish):
    """The answer, when the same is asked for as long as it takes."""
    wait(lambda: "later" not in ask(desk, wish))
    return ask(desk, wish)


def test_a_request_does_not_wait_for_long_and_the_same_again_has_what_came_of_it(
    desk, tmp_path, slow
):
    wish, began = asked(tmp_path), time.monotonic()
    assert ask(desk, wish) == ask(desk, wish) == BEING_READ
    assert time.monotonic() - began < 5
    slow.set()
    answer = finally_told(desk, wish)
    assert answer["words"] == READY
    assert not everything(tmp_path / "sent")
    assert ask(desk, wish) == answer  # as when the first answer was lost on the way
    assert desk.trainings.uploads.move(answer["upload"], tmp_path / "run", 64) == 20


def test_no_proxy_cuts_a_request_off():
    assert module.PATIENCE <= 30


def test_pictures_are_read_once_however_often_they_are_asked_for(desk, tmp_path, slow):
    wish, before = asked(tmp_path), threading.active_count()
    for _ in range(3):
        assert ask(desk, wish) == BEING_READ
    assert threading.active_count() == before + 1
    slow.set()
    finally_told(desk, wish)
    assert len(desk.trainings.uploads._staged()) == 1


def test_why_pictures_are_refused_waits_for_whoever_asks_again_too(desk, tmp_path, slow):
    wish = asked(tmp_path, {"notes.png": b"no picture"})
    assert ask(desk, wish) == BEING_READ
    slow.set()
    assert finally_told(desk, wish) == {"problem": wording_train.not_a_picture("notes.png")}
    assert not everything(tmp_path / "sent")


def test_nobody_collects_what_is_anothers(desk, tmp_path, slow):
    wish = asked(tmp_path)
    assert ask(desk, wish) == BEING_READ
    assert ask(desk, {**wish, "owner": YOURS}) == OTHERS
    slow.set()
    assert finally_told(desk, wish)["words"] == READY
    for other in ({**wish, "owner": YOURS}, {"files": wish["files"]}):
        assert ask(desk, other) == GONE


def test_whoever_was_told_to_come_later_is_read_then(desk, tmp_path, slow):
    first, second = asked(tmp_path / "first"), asked(tmp_path / "second", owner=YOURS)
    assert ask(desk, first) == BEING_READ
    assert ask(desk, second) == OTHERS
    slow.set()
    finally_told(desk, first)
    assert finally_told(desk, second)["words"] == READY


def test_the_same_files_sent_again_are_read_again(desk, tmp_path):
    wish = asked(tmp_path)
    first = ask(desk, wish)
    for path in sorted((tmp_path / "sent").rglob("*"), reverse=True):
        path.rmdir()
    again = ask(desk, asked(tmp_path))
    assert again["words"] == first["words"] == READY
    assert again["upload"] != first["upload"]


def test_whoever_gives_no_name_waits_until_the_pictures_are_read(desk, tmp_path, slow):
    threading.Timer(0.5, slow.set).start()
    assert ask(desk, {"files": asked(tmp_path)["files"]})["words"] == READY


@pytest.mark.parametrize("swept", [0, 19])
def test_files_that_were_swept_away_are_to_be_sent_again(desk, tmp_path, swept):
    wish = asked(tmp_path)
    (tmp_path / "sent" / str(swept) / "blob").unlink()
    assert ask(desk, wish) == GONE


def test_the_end_of_a_path_is_enough_and_leads_nowhere_else(desk, tmp_path):
    wish = asked(tmp_path)
    for i, entry in enumerate(wish["files"]):
        entry["path"] = f"sent/{i}/blob"
    assert ask(desk, wish)["words"] == READY
    (tmp_path.parent / "secret.png").write_bytes(b"x")
    for path in ("../secret.png", "runs/../../secret.png", ".", "sent", "/etc/passwd", None, 7):
        answer = ask(desk, {"owner": MINE, "files": [{"path": path, "name": "face.png"}]})
        assert answer == {"problem": wording_train.NO_PICTURES}
    assert (tmp_path.parent / "secret.png").exists()


def kept(found, names):
    """For which of these something is kept."""
    return [name for name in names if found.find([name])]


def test_what_nobody_collects_is_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(readings, "KEPT", 2)
    found, go_on = Readings(), threading.Event()
    going = found.begin(["long"], lambda: {"words": go_on.wait(60)})
    for name in "abc":
        assert found.begin([name], dict).result(60) == {}
    assert kept(found, ["long", *"abc"]) == ["long", "b", "c"]
    monkeypatch.setattr(readings, "KEPT_SECONDS", 0.0)
    time.sleep(0.01)
    assert kept(found, ["long", *"abc"]) == ["long"]
    go_on.set()
    assert going.result(60)
    assert kept(found, ["long"]) == []


def test_paths_that_are_joined_otherwise_are_others():
    found = Readings()
    found.begin(["a", "b"], dict)
    assert found.find(["a", "b"])
    assert not any(found.find(names) for names in (["ab"], ["a,b"], ["b", "a"], ['a", "b']))
