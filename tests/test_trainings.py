"""Trainings of several visitors: one at a time, each its owner's, all of them on disk."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import av
import pytest
from PIL import Image
from torch import device

from demo import estimate, train, wording_train
from demo import trainings as module
from demo.train import Desk
from demo.trainings import Refused, Rules, Trainings, about
from diffusion.files import write_json
from diffusion.runs import Run
from diffusion.train_config import TrainConfig

SMALL = TrainConfig(images=10**7, size=16, widths=(16, 32), batch=4, T=50, pool=1000)
MINE, YOURS = "a" * 40, "b" * 40


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NICE", 1)  # on a busy machine, 19 would wait for very long
    trainings = Trainings(tmp_path / "runs", Rules())
    yield trainings
    for run in trainings.runs():
        if run.alive:
            os.kill(run.status()["pid"], signal.SIGKILL)


@pytest.fixture
def desk(trainings, monkeypatch):
    monkeypatch.setattr(estimate.Speeds, "_measure", lambda self, options: 50.0)
    return Desk(trainings)


def wait(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail("it did not come to that")


def begin(trainings, config=SMALL):
    run = trainings.start("Pixel art", "pixel-art", config, MINE)
    wait(lambda: run.metrics())
    return run


@pytest.mark.slow
def test_a_run_lives_in_a_process_of_its_own_and_only_its_owner_ends_it(trainings):
    run = begin(trainings)
    pid = run.status()["pid"]
    assert os.getpriority(os.PRIO_PROCESS, pid) == 1
    assert os.getsid(pid) == pid  # it outlives this process
    assert trainings.going().folder == run.folder
    with pytest.raises(Refused, match=r"^A run is going, .* left: watch it below\.$"):
        trainings.start("Pixel art", "pixel-art", SMALL, YOURS)
    for owner in (YOURS, "", None, 7, about(run)["owner"]):
        with pytest.raises(Refused, match="Only the browser that started this run"):
            trainings.stop(run.folder.name, owner)
    with pytest.raises(Refused, match="stop it first"):
        trainings.delete(run.folder.name, MINE)
    trainings.stop(run.folder.name, MINE)
    wait(lambda: not run.alive)
    assert run.status()["state"] == "stopped"
    # Another page, or the same after a restart, knows all that this one knows.
    again = Trainings(trainings.root, Rules())
    assert [one.folder.name for one in again.runs()] == [run.folder.name]
    assert again.operator == trainings.operator
    assert again.may(run, MINE)
    again.delete(run.folder.name, again.operator)
    assert not [path for path in trainings.root.iterdir() if path.name[0] != "."]


@pytest.mark.slow
def test_a_killed_trainer_is_noticed_at_once_and_goes_on_where_it_saved(trainings, desk):
    run = begin(trainings)
    wait(run.checkpoint_path.exists)
    os.kill(run.status()["pid"], signal.SIGKILL)
    killed = time.monotonic()
    wait(lambda: not run.alive, 10)
    assert time.monotonic() - killed < 10
    shown = desk.look({"owner": MINE, "run": run.folder.name})
    assert shown["run"]["state"] == "dead"
    saved = shown["run"]["saved"]
    assert saved > 0
    assert shown["run"]["problem"] == wording_train.ENDED.format(images=saved)
    assert shown["going"] is None
    assert desk.answer(desk.resume, {"run": run.folder.name, "owner": MINE}) == {}
    wait(lambda: run.alive and run.status()["state"] == "running" and run.metrics())
    assert run.metrics()[0]["images"] <= saved + 4
    steps = [record["step"] for record in run.metrics()]
    assert steps == sorted(set(steps))


WRONG = {
    "style": ({"pictures": "../etc"}, "Pictures is ../etc; choose toon-head or "),
    "minutes": ({"minutes": "soon"}, "Minutes is soon; choose a number from 0.5 to 1440."),
    "long": ({"minutes": 1e9}, "choose a number from 0.5 to"),
    "nan": ({"minutes": "nan"}, "choose a number from 0.5 to"),
    "size": ({"size": 4096}, "Size is 4096; choose 32 or 64."),
    "network": ({"network": "huge"}, "Network is huge; choose tiny or small."),
    "batch": ({"batch": "1e9"}, "Batch is 1e9; choose a whole number from 1 to 512."),
    "rate": ({"rate": "7"}, "Learning rate is 7; choose 0.000001 to 0.1."),
    "seed": ({"seed": "-1"}, "Seed is -1; choose a whole number"),
    "no pictures": ({"pictures": "own"}, "Choose your pictures first"),
    "no such upload": ({"pictures": "own", "upload": "../x"}, "choose them again"),
    "nobody": ({"owner": ""}, "Only the browser that started this run"),
}
WISH = {"pictures": "toon-head", "minutes": "5", "begin": "nothing", "owner": MINE}


@pytest.mark.parametrize(("changed", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_wish_gets_one_sentence_and_starts_nothing(trainings, desk, changed, sentence):
    answer = desk.answer(desk.start, {**WISH, **changed})
    assert sentence in answer["problem"]
    assert answer["problem"].endswith(".")
    assert not trainings.runs()
    assert [path.name for path in trainings.root.iterdir()] == [".operator"]


@pytest.mark.parametrize("wish", [None, 7, "run", {}, {"run": "../../etc"}, {"run": ["x"]}])
@pytest.mark.parametrize("name", ["preview", "stop", "resume", "remove", "film", "model", "take"])
def test_nonsense_is_answered_in_one_sentence(desk, name, wish):
    answer = desk.answer(getattr(desk, name), wish)
    assert set(answer) == {"problem"}
    assert "did not work" not in answer["problem"]


def test_only_files_that_were_uploaded_are_read(desk, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    for path in (str(secret), "/etc/passwd", "", None, "/etc/../etc/passwd"):
        answer = desk.answer(desk.take, {"files": [{"path": path, "name": "face.png"}]})
        assert answer == {"problem": wording_train.NO_PICTURES}
    assert secret.exists()


def test_the_estimate_says_speed_images_and_what_so_many_gave(desk):
    answer = desk.estimate(WISH)
    images = estimate.images_in(5, 50.0)
    assert answer["images"] == images
    assert answer["words"].startswith("50 images/s here: about 14,000 images in 5 minutes")
    known = estimate.milestone("toon-head", 32, images)
    if known:
        assert known.images <= images
        assert answer["picture"] == known.picture


def test_a_machine_that_is_too_busy_to_be_measured_is_told_of(trainings, monkeypatch):
    monkeypatch.setattr(estimate, "LONGEST", 0.01)
    desk = Desk(trainings)
    assert desk.answer(desk.start, WISH) == {"problem": wording_train.TOO_BUSY}
    assert not trainings.runs()


def test_of_those_who_ask_for_an_unknown_speed_one_waits_and_who_pressed_train_is_not_refused(
    trainings, monkeypatch
):
    measuring, measured = threading.Event(), threading.Event()

    def measure(self, options):
        measuring.set()
        assert measured.wait(60)
        return 50.0

    monkeypatch.setattr(estimate.Speeds, "_measure", measure)
    desk = Desk(trainings)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(desk.estimate, WISH)
        assert measuring.wait(60)
        second = threads.submit(desk.estimate, {**WISH, "batch": "64"})
        wait(lambda: desk._speeds._looking._value == 0)
        told = desk.estimate({**WISH, "batch": "128"})
        assert told == {"words": wording_train.BEING_MEASURED, "busy": True}  # it asks again
        pressed = threads.submit(desk.answer, desk.start, {**WISH, "batch": "128"})
        wait(lambda: desk._speeds._pressed._value == estimate.PRESSED - 1)
        assert not second.done()
        assert not pressed.done()
        measured.set()
        assert first.result()["words"] == second.result()["words"]
        assert "run" in pressed.result()
    trainings.stop(pressed.result()["run"], MINE)


def test_probe_and_training_run_on_the_device_that_the_page_was_given(tmp_path, monkeypatch):
    commands = []

    def note(command, **how):
        commands.append(command)
        raise OSError("enough")

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(subprocess, "Popen", note)
    monkeypatch.setattr(train, "pick_device", lambda name: asked.append(name) or device("cpu"))
    asked, trainings = [], Trainings(tmp_path / "runs", Rules(), device="mps")
    desk = Desk(trainings)
    with pytest.raises(OSError, match="enough"):
        desk.estimate(WISH)
    with pytest.raises(OSError, match="enough"):
        trainings.start("Pixel art", "pixel-art", SMALL, MINE)
    assert asked == ["mps"]
    assert [command[3] for command in commands] == ["probe", "train"]
    assert [command[command.index("--device") + 1] for command in commands] == ["mps", "mps"]


def test_the_app_trains_where_it_draws_and_on_the_cpu_where_spaces_lends_a_gpu(monkeypatch):
    # The app hides matplotlib from Gradio; other tests draw with it.
    monkeypatch.setitem(sys.modules, "matplotlib", sys.modules.get("matplotlib"))
    import app

    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert app.training_device(Namespace(device="cuda")) == "cuda"
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert app.training_device(Namespace(device="auto")) == "cpu"


@pytest.fixture
def left(trainings):
    """A run of MINE whose trainer is gone without a word."""
    run = Run(trainings.root / "left")
    run.create("pixel-art", SMALL)
    write_json(run.folder / module.PAGE, {"owner": module._hash(MINE)})
    run.write_status("running", 99, pid=2**22 + 1)
    return run


def test_the_operators_key_comes_beside_a_browsers_name_and_a_wrong_one_takes_nothing(
    trainings, desk, left
):
    run = {"run": left.folder.name}
    mine = {"owner": MINE, "operator": "k" * 40}
    assert desk.look({**run, **mine})["run"]["mine"]
    assert not desk.look({**run, "owner": YOURS, "operator": MINE})["run"]["mine"]
    for operator in (None, "", 7, "k" * 40):
        with pytest.raises(Refused, match="Only the browser that started this run"):
            desk.remove({**run, "owner": YOURS, "operator": operator})
    theirs = {"owner": YOURS, "operator": trainings.operator}
    assert desk.look({**run, **theirs})["run"]["mine"]
    desk.remove({**run, **theirs})
    assert not trainings.runs()


def test_only_who_may_continue_a_run_is_told_to(desk, left, monkeypatch):
    monkeypatch.setattr(Run, "saved_step", lambda run: 20)
    wish = {"run": left.folder.name}
    for owner, sentence in {MINE: wording_train.ENDED, YOURS: wording_train.ENDED_FOREIGN}.items():
        shown = desk.look({**wish, "owner": owner})["run"]
        assert shown["problem"] == sentence.format(images=80)


KNOWN = {
    "milestones": [
        {"style": "toon-head", "title": "Toon heads", "size": 32, "images": 100},
        {"style": "toon-head", "title": "Toon heads", "size": 32, "images": 200},
        {"style": "pixel-art", "title": "Pixel art", "size": 32, "images": 300, "preset": "small"},
        {"style": "pixel-art", "title": "Pixel art", "size": 64, "images": 50,
         "preset": "", "start": "shipped"},
    ],
    "needed": {"toon-head-32": 14_000},
}  # fmt: skip


@pytest.fixture
def measured_runs(monkeypatch):
    """What `python -m benchmarks.strip` left, with fields that some entries lack."""
    rest = {"measured": "2 cores", "picture": "data:"}
    entries = [{**entry, **rest} for entry in KNOWN["milestones"]]
    known = [estimate.Milestone(**entry) for entry in entries]
    monkeypatch.setattr(estimate, "_milestones", lambda: known)
    monkeypatch.setattr(estimate, "_file", lambda: KNOWN)


PROMISED = {
    "the last reached": (("toon-head", 32, 250), 200),
    "another style": (("pixel-art", 32, 150), 100),
    "not that many": (("toon-head", 32, 99), None),
    "another size": (("toon-head", 64, 1000), None),
    "another network": (("pixel-art", 32, 1000, "small"), 300),
    "a network that nobody measured": (("toon-head", 64, 1000, "small"), None),
    "from the shipped model": (("toon-head", 64, 1000, "", "shipped"), 50),
    "another size from it": (("toon-head", 32, 1000, "", "shipped"), None),
}


@pytest.mark.parametrize(("asked", "images"), PROMISED.values(), ids=PROMISED.keys())
def test_a_picture_is_promised_only_of_the_same_size_network_and_start(
    measured_runs, asked, images
):
    known = estimate.milestone(*asked)
    assert (known and known.images) == images


def test_the_estimate_names_the_style_that_its_picture_shows(desk, measured_runs):
    same = desk.estimate(WISH)["caption"]
    assert same == "Toon heads after 200 images, in a run measured on 2 cores."
    assert desk.estimate({**WISH, "pictures": "pixel-art"})["caption"] == f"Other pictures: {same}"
    shipped = desk.estimate({**WISH, "begin": "shipped"})["caption"]
    assert shipped == "Other pictures: Pixel art after 50 images, in a run measured on 2 cores."
    assert "picture" not in desk.estimate({**WISH, "size": "64"})


def test_where_nothing_was_measured_no_number_is_said_to_be_needed(measured_runs):
    assert estimate.images_needed("toon-head", 32) == 14_000
    assert estimate.images_needed("toon-head", 64) is None
    assert estimate.images_needed("pixel-art", 32) is None
    assert wording_train.still_noise(5000, None) == "Still noise after 5,000 images."
    assert "of about 14,000 images" in wording_train.still_noise(5000, 14_000)


def test_a_space_trains_for_ten_minutes_and_says_that_it_forgets(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/cartoons")
    rules = Rules.here()
    assert (rules.most_minutes, rules.forgets) == (10.0, True)
    monkeypatch.setattr(estimate.Speeds, "_measure", lambda self, options: 50.0)
    desk = Desk(Trainings(tmp_path / "runs"))
    answer = desk.answer(desk.start, {**WISH, "minutes": "11"})
    assert answer == {"problem": "Minutes is 11; choose a number from 0.5 to 10."}


def test_what_is_seen_of_a_run_is_what_its_folder_holds(trainings, desk, pictures):
    from diffusion.runs import train_run

    run = Run(trainings.root / "by-command")
    run.create(str(pictures), TrainConfig(images=40, size=16, widths=(16, 32), batch=4, T=50))
    list(train_run(run, progress=False))
    shown = desk.look({"owner": MINE, "run": "by-command"})
    details = shown["run"]
    assert (details["images"], details["total"], details["percent"]) == (40, 40, 100)
    assert [images for images, _ in details["previews"]] == [0, 40]
    assert details["loss"][-1][0] == 40
    assert (details["mine"], details["model"], details["state"]) == (False, True, "finished")
    assert desk.preview({"run": "by-command", "images": 40})["uri"].startswith("data:image/png")
    assert desk.film({"run": "by-command"})["name"] == "by-command.mp4"
    assert desk.model({"run": "by-command"})["name"] == "by-command.zip"
    # Whoever did not start it, and is not the operator, may only look.
    assert (
        "Only the browser"
        in desk.answer(desk.remove, {"run": "by-command", "owner": MINE})["problem"]
    )
    desk.remove({"run": "by-command", "owner": trainings.operator})
    assert not trainings.runs()


@pytest.mark.parametrize(("sheets", "shown"), [(1, [0]), (4, [0, 1, 2, 3]), (9, [0, 3, 6, 8])])
def test_a_film_of_a_long_run_has_its_first_and_last_sheet_and_some_between(
    trainings, desk, monkeypatch, sheets, shown
):
    run = Run(trainings.root / "long")
    run.create("pixel-art", SMALL)
    run.previews.mkdir()
    for images in range(sheets):
        Image.new("L", (34, 34), 25 * images).save(run.previews / f"{images:07d}.png")
    monkeypatch.setattr("diffusion.film.KEPT", 4)
    _, film = desk.film({"run": "long"})["uri"].split(",")
    with av.open(io.BytesIO(base64.b64decode(film))) as container:
        seen = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    greys = [round(grey / 25) for grey in seen]
    assert greys == shown + shown[-1:] * train.FILM_FPS


@pytest.fixture
def finished(trainings):
    """A run as a trainer leaves it, with a time-lapse of 100 sheets of 1,000 bytes."""
    run = Run(trainings.root / "finished")
    run.create("pixel-art", SMALL)
    for folder in (run.previews, run.model_folder):
        folder.mkdir()
    for images in range(100):
        (run.previews / f"{images:07d}.png").write_bytes(b"x" * 1000)
    (run.model_folder / "model.safetensors").write_bytes(b"x" * 50_000)
    run.write_status("finished", 99)
    return run


def images_of(run):
    return sorted(int(path.stem) for path in run.previews.iterdir())


def allow(trainings, most):
    trainings.rules = dataclasses.replace(trainings.rules, most_bytes=most)


def test_when_the_disk_is_full_a_new_run_is_refused_and_no_model_is_deleted(
    trainings, desk, finished
):
    allow(trainings, 50_000)
    answer = desk.answer(desk.start, WISH)
    assert answer == {"problem": "The runs take 0 MB of 0; delete one first."}
    assert wording_train.disk_refused(3_912_400_000, 4 * 10**9) == (
        "The runs take 3,912 MB of 4,000; delete one first."
    )
    assert (finished.model_folder / "model.safetensors").stat().st_size == 50_000
    assert [run.folder.name for run in trainings.runs()] == ["finished"]


def test_before_that_time_lapses_are_shortened_as_far_as_need_be(trainings, finished, monkeypatch):
    monkeypatch.setattr(Trainings, "_spawn", lambda self, run, most_minutes: None)
    allow(trainings, finished.bytes - 30_000)
    new = trainings.start("Pixel art", "pixel-art", SMALL, MINE)
    assert len(images_of(finished)) == 51
    assert (images_of(finished)[0], images_of(finished)[-1]) == (0, 99)
    assert new.exists


def test_the_time_lapse_of_a_run_that_is_going_is_left_alone(trainings, finished, monkeypatch):
    allow(trainings, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "alive", property(lambda run: True))
        assert trainings._make_room() == finished.bytes
    assert len(images_of(finished)) == 100


def test_a_space_has_less_room_and_the_environment_decides(monkeypatch):
    at_home = Rules.here().most_bytes
    monkeypatch.setenv("SPACE_ID", "somebody/cartoons")
    assert Rules.here().most_bytes < at_home
    monkeypatch.setenv("CARTOON_RUNS_MB", "250")
    assert Rules.here().most_bytes == 250 * 10**6
    for wrong in ("much", "-1", "0", "1.5"):
        monkeypatch.setenv("CARTOON_RUNS_MB", wrong)
        with pytest.raises(ValueError, match=rf"^CARTOON_RUNS_MB is {wrong}; give a whole number"):
            Rules.here()


def test_beside_the_list_is_what_all_runs_take(trainings, desk, finished):
    assert desk.look({})["total"] == "1 run, 0 MB of 4,000"
    assert wording_train.total(3, 212_300_000, 4 * 10**9) == "3 runs, 212 MB of 4,000"


def test_the_operators_key_is_for_this_user_alone(trainings):
    assert (trainings.root / ".operator").stat().st_mode & 0o077 == 0
    assert len(trainings.operator) >= 32
