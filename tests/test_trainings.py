"""Trainings of several visitors: one at a time, each its owner's, all of them on disk."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stand_ins import wait
from torch import device

from demo import estimate, page, training_settings, wording_train
from demo import trainings as module
from demo.desk import FILM_FPS, Desk
from demo.trainings import Refused, Rules, Trainings, about
from diffusion import runs
from diffusion.files import write_json
from diffusion.previews import Previews
from diffusion.run_training import train_run
from diffusion.runs import Run
from diffusion.train_config import TrainConfig

pytestmark = pytest.mark.usefixtures("drawn_cartoons")

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


def begin(trainings, config=SMALL):
    run = trainings.start("Pixel art", "pixel-art", config, MINE)
    wait(lambda: run.metrics())
    return run


@pytest.mark.slow
def test_a_run_lives_in_a_process_of_its_own_and_only_its_owner_ends_it(trainings):
    run = begin(trainings)
    pid = run.status()["pid"]
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 1
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


def kept_records(run):
    """Those that a run which goes on where it saved has already."""
    return [record for record in run.metrics() if record["step"] <= run.saved_step()]


@pytest.mark.slow
def test_a_killed_trainer_is_noticed_at_once_and_goes_on_where_it_saved(trainings, desk):
    run = begin(trainings)
    wait(lambda: run.checkpoint_path.exists() and kept_records(run))
    os.kill(run.status()["pid"], signal.SIGKILL)
    killed = time.monotonic()
    wait(lambda: not run.alive, 10)
    assert time.monotonic() - killed < 10
    shown = desk.look({"owner": MINE, "run": run.folder.name})
    assert shown["run"]["state"] == "dead"
    saved = 4 * run.saved_step()
    assert saved > 0
    kept = kept_records(run)
    assert shown["run"]["problem"] == wording_train.ENDED.format(images=saved)
    assert shown["going"] is None
    assert desk.answer(desk.resume, {"run": run.folder.name, "owner": MINE}) == {}
    wait(
        lambda: run.alive and run.status()["state"] == "running" and len(run.metrics()) > len(kept)
    )
    assert run.metrics()[: len(kept)] == kept
    steps = [record["step"] for record in run.metrics()]
    assert steps == sorted(set(steps))


WRONG = {
    "style": ({"pictures": "../etc"}, "Pictures is ../etc; choose toon-head or "),
    "minutes": ({"minutes": "soon"}, "Minutes is soon; choose a number from 0.5 to 1440."),
    "long": ({"minutes": 1e9}, "choose a number from 0.5 to"),
    "nan": ({"minutes": "nan"}, "choose a number from 0.5 to"),
    "size": ({"size": 4096}, "Size is 4096; choose 32 or 64."),
    "no size": ({"size": "3e1"}, "Size is 3e1; choose 32 or 64."),
    "network": ({"network": "huge"}, "Network is huge; choose tiny or small."),
    "batch": ({"batch": "1e9"}, "Batch is 1e9; choose a whole number from 1 to 512."),
    "digits": ({"batch": "1e2"}, "Batch is 1e2; choose a whole number from 1 to 512."),
    "other digits": ({"minutes": "٣"}, "Minutes is ٣; choose a number from 0.5 to 1440."),
    "rate": ({"rate": "7"}, "Learning rate is 7; choose 0.000001 to 0.1."),
    "no rate": ({"rate": 0}, "Learning rate is 0; choose 0.000001 to 0.1."),
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
    assert answer["words"].startswith("50 images/s here: about 14,000 images in 5 minutes")
    known = estimate.milestone("toon-head", 32, images)
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

    def note(args, **how):
        commands.append(args)
        raise OSError("enough")

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(subprocess, "Popen", note)
    monkeypatch.setattr(
        training_settings, "pick_device", lambda name: asked.append(name) or device("cpu")
    )
    asked, trainings = [], Trainings(tmp_path / "runs", Rules(), device="mps")
    desk = Desk(trainings)
    with pytest.raises(OSError, match="enough"):
        desk.estimate(WISH)
    with pytest.raises(OSError, match="enough"):
        trainings.start("Pixel art", "pixel-art", SMALL, MINE)
    assert asked == ["mps"]
    assert [command[3] for command in commands] == ["probe", "train"]
    assert [command[command.index("--device") + 1] for command in commands] == ["mps", "mps"]


def test_probe_and_training_run_in_a_session_of_their_own_and_write_utf_8(trainings, monkeypatch):
    starts = []

    def note(**how):
        starts.append(how)
        raise OSError("enough")

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(subprocess, "Popen", note)
    with pytest.raises(OSError, match="enough"):
        Desk(trainings).estimate(WISH)
    with pytest.raises(OSError, match="enough"):
        trainings.start("Pixel art", "pixel-art", SMALL, MINE)
    for how in starts:
        assert how["args"][0] == sys.executable
        assert how["env"]["PYTHONUTF8"] == "1"
        assert how["start_new_session"]
    assert len(starts) == 2


def test_a_speed_measured_while_somebody_draws_is_measured_again_for_a_run(trainings, monkeypatch):
    speeds, busy = {True: 2.0, False: 50.0}, True
    monkeypatch.setattr(Trainings, "_spawn", lambda self, run, most_minutes: None)
    monkeypatch.setattr(estimate.Speeds, "_measure", lambda self, options: speeds[busy])
    desk = Desk(trainings, lambda: busy)
    assert "about 560 images" in desk.estimate(WISH)["words"]
    busy = False
    run = trainings.find(desk.start(WISH)["run"])
    assert run.config()[1].images == estimate.images_in(5, 50.0)
    busy = True
    measured = estimate.Speeds(0, busy=lambda: busy)
    monkeypatch.setattr(estimate, "KNOWN_FOR", 0)
    busy = False
    assert measured.get(()) == 50.0
    busy = True
    assert measured.get((), pressed=True) == 50.0  # it has been seen to do that


def a_run_goes(trainings):
    return mock.patch.object(Trainings, "going", lambda self: Run(self.root / "another"))


def pictures_are_read(trainings):
    return trainings.uploads._reading


@pytest.mark.parametrize("disturbed", [a_run_goes, pictures_are_read])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_speed_measured_beside_another_training_or_reading_is_measured_again_for_a_run(
    trainings, monkeypatch, disturbed, when
):
    numbers, desk = iter([2.0, 50.0]), Desk(trainings)
    with contextlib.ExitStack() as stack:

        def measure(self, options):
            if when == "meanwhile":
                stack.enter_context(disturbed(trainings))
            return next(numbers)

        if when == "before":
            stack.enter_context(disturbed(trainings))
        monkeypatch.setattr(estimate.Speeds, "_measure", measure)
        assert desk._speeds.get(()) == 2.0
    monkeypatch.setattr(estimate.Speeds, "_measure", lambda self, options: next(numbers))
    assert desk._speeds.get((), pressed=True) == 50.0
    assert desk._speeds.get((), pressed=True) == 50.0  # nothing disturbed it: it holds


def test_the_page_knows_whether_its_own_machine_draws():
    from demo.backend import LocalBackend

    backend = object.__new__(LocalBackend)
    for load, draws in {(0, 0): False, (1, 0): True, (0, 1): True}.items():
        backend.engine = Namespace(load=load)
        assert backend.busy == draws


def test_a_doubtful_speed_holds_for_seconds_only(monkeypatch):
    now, numbers = [1000.0], iter([2.0, 50.0])
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(estimate.Speeds, "_measure", lambda self, options: next(numbers))
    speeds = estimate.Speeds(0, busy=lambda: now[0] < 1010)
    assert speeds.get(()) == speeds.get(()) == 2.0
    now[0] += 11
    assert speeds.get(()) == 50.0
    now[0] += 500
    assert speeds.get((), pressed=True) == 50.0


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


HOLDER = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def silent(left):
    """The same run, as if its trainer lived and had not come to say so for an hour."""
    words = [sys.executable, "-c", HOLDER, str(left.lock_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        then = time.time() - 3600
        status = {"state": "running", "pid": holder.pid, "heartbeat": then, "images": 99}
        write_json(left.status_path, status)
        yield left
        holder.stdin.close()


def test_a_trainer_that_is_silent_but_lives_is_neither_doubled_nor_deleted_and_can_be_stopped(
    trainings, silent
):
    assert trainings.going().folder == silent.folder
    with pytest.raises(Refused, match=r"^A run is going"):
        trainings.start("Pixel art", "pixel-art", SMALL, MINE)
    with pytest.raises(Refused, match=r"^A run is going"):
        trainings.resume("left", MINE)
    with pytest.raises(Refused, match="stop it first"):
        trainings.delete("left", MINE)
    trainings.stop("left", MINE)
    assert silent.stop_path.exists()


def test_a_file_of_a_run_that_some_program_has_open_keeps_it(trainings, left, monkeypatch):
    def refuse(self, target):
        raise PermissionError(13, "as Windows says it")

    with monkeypatch.context() as patch:
        patch.setattr(type(left.folder), "rename", refuse)
        with pytest.raises(Refused, match="has a file of this run open; close it"):
            trainings.delete("left", MINE)
    assert left.exists


def test_a_folder_that_is_no_run_is_left_out_of_the_list(trainings, desk, left):
    stray = trainings.root / "toon-head-20260801"  # an unzipped model
    stray.mkdir()
    (stray / "config.json").write_text('{"format": 1, "network": {}}')
    shown = desk.answer(desk.look, {"run": "left"})
    assert [run["name"] for run in shown["runs"]] == ["left"]
    assert shown["run"]["name"] == "left"


@pytest.mark.parametrize("wrong", ["a folder of root", "a copy of a preview"])
def test_a_foreign_entry_under_the_runs_hides_nothing_but_itself(
    trainings, desk, long, monkeypatch, wrong
):
    is_file = Path.is_file

    def refuse(path):
        if path.parent.name == "lost+found":  # whoever runs the tests may look there
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    if wrong == "a folder of root":
        (trainings.root / "lost+found").mkdir(mode=0o700)
        monkeypatch.setattr(Path, "is_file", refuse)
    else:
        (long.previews.folder / "0000008 copy.png").write_bytes(b"")
    shown = desk.answer(desk.look, {"run": "long"})
    assert [(run["name"], run["preview"]) for run in shown["runs"]] == [("long", 8)]
    assert len(shown["run"]["previews"]) == 9
    assert trainings.going() is None


def test_a_run_that_nobody_can_make_sense_of_is_left_out(trainings, desk, long, left, monkeypatch):
    summary = Desk._summary

    def refuse(self, run):
        if run.folder.name == "left":
            raise ValueError("nonsense")
        return summary(self, run)

    monkeypatch.setattr(Desk, "_summary", refuse)
    assert [run["name"] for run in desk.look({})["runs"]] == ["long"]


def test_whose_a_run_is_is_read_once_for_all_who_ask_and_told_nobody(
    trainings, desk, hosted, monkeypatch
):
    read = []

    def noted(run):
        read.append(run)
        return about(run)

    monkeypatch.setattr(module, "about", noted)
    assert not any(run["mine"] for run in desk.look({"owner": YOURS})["runs"])
    before = len(read)
    for _ in range(3):
        answer = desk.look({"owner": MINE})
        assert all(run["mine"] for run in answer["runs"])
    assert len(read) == before
    assert module._hash(MINE) not in json.dumps(answer)


def test_of_many_who_look_at_once_one_makes_the_server_look(desk, long, monkeypatch):
    looks, summaries = [], Desk._summaries

    def slowly(self):
        looks.append(self)
        time.sleep(0.1)
        return summaries(self)

    monkeypatch.setattr(Desk, "_summaries", slowly)
    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(lambda _: desk.look({}), range(8))]
    assert len(looks) == 1
    assert all(answer == answers[0] for answer in answers)


def test_what_is_left_is_told_of_a_run_that_trains_and_not_of_its_former_end(left):
    def record(step, seconds_left):
        line = {"step": step, "seconds_left": seconds_left}
        left.metrics_path.write_text(json.dumps(line) + "\n")

    ended, whole = SMALL.steps // 2, SMALL.steps
    assert module.seconds_left(left) is None
    for step, seconds, told in ((ended, 40, 40), (ended, 0, None), (whole, 0, 0)):
        record(step, seconds)
        assert module.seconds_left(left) == told
    for state in ("starting", "preparing"):
        left.write_status(state, 99)
        assert module.seconds_left(left) is None


WHY = {
    runs.NOT_A_NUMBER: "Start another run with a smaller one, under Advanced.",
    runs.DISK_FULL: "Delete a run you can do without, then Continue.",
    runs.TIME_OVER: "Continue trains on.",
}


@pytest.mark.parametrize(("reason", "move"), WHY.items(), ids=WHY.keys())
def test_why_a_run_ended_early_is_said_in_the_pages_words(desk, left, reason, move):
    left.write_status("stopped", 99, "[Errno 28] add --lr", reason=reason)
    wish, told = {"run": "left"}, wording_train.REASONS[reason][0]
    assert desk.look({**wish, "owner": MINE})["run"]["problem"] == f"{told} {move}"
    assert desk.look({**wish, "owner": YOURS})["run"]["problem"] == told


def test_the_page_has_words_for_every_reason():
    assert set(wording_train.REASONS) == set(runs.REASONS)


def test_a_run_of_the_longest_budget_has_time_to_load_and_to_be_slower_than_estimated(
    trainings, left, monkeypatch
):
    given = []

    def note(args, **how):
        given.append(float(args[args.index("--at-most") + 1]))
        raise OSError("enough")

    monkeypatch.setattr(subprocess, "Popen", note)
    trainings.rules = Rules(most_minutes=10)
    with pytest.raises(OSError, match="enough"):
        trainings.start("Pixel art", "pixel-art", SMALL, MINE)
    with pytest.raises(OSError, match="enough"):
        trainings.resume("left", MINE)
    assert given == [16, 16]


def test_what_a_page_left_that_ended_while_it_deleted_goes_when_the_next_begins(trainings, left):
    gone = left.folder.rename(trainings.root / ".deleted-1234")
    Trainings(trainings.root, Rules())
    assert not gone.exists()


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
    run.previews.folder.mkdir()
    for images in range(sheets):
        Image.new("L", (34, 34), 25 * images).save(run.previews.folder / f"{images:07d}.png")
    monkeypatch.setattr("diffusion.film.KEPT", 4)
    _, film = desk.film({"run": "long"})["uri"].split(",")
    with av.open(io.BytesIO(base64.b64decode(film))) as container:
        seen = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    greys = [round(grey / 25) for grey in seen]
    assert greys == shown + shown[-1:] * FILM_FPS


def test_who_asks_for_a_film_while_another_is_packed_is_refused_at_once(desk, long, monkeypatch):
    with desk._filming:
        began = time.monotonic()
        assert desk.answer(desk.film, {"run": "long"}) == {"problem": wording_train.FILMS_BUSY}
        assert time.monotonic() - began < 1
    assert "uri" in desk.film({"run": "long"})


def test_previews_that_are_thinned_out_meanwhile_are_left_out_of_a_film(desk, long, monkeypatch):
    paths = long.previews.paths()
    for path in paths[1:-1:2]:
        path.unlink()
    monkeypatch.setattr(Previews, "paths", lambda _: paths)
    assert "uri" in desk.film({"run": "long"})
    assert desk.answer(desk.preview, {"run": "long", "images": 1}) == {
        "problem": wording_train.GONE
    }


@pytest.fixture
def long(trainings):
    """A run with a time-lapse of nine small sheets."""
    run = Run(trainings.root / "long")
    run.create("pixel-art", SMALL)
    run.previews.folder.mkdir()
    for images in range(9):
        Image.new("L", (34, 34), 25 * images).save(run.previews.folder / f"{images:07d}.png")
    return run


@pytest.fixture
def finished(trainings):
    """A run as a trainer leaves it, with a time-lapse of 100 sheets of 1,000 bytes."""
    run = Run(trainings.root / "finished")
    run.create("pixel-art", SMALL)
    for folder in (run.previews.folder, run.model_folder):
        folder.mkdir()
    for images in range(100):
        (run.previews.folder / f"{images:07d}.png").write_bytes(b"x" * 1000)
    (run.model_folder / "model.safetensors").write_bytes(b"x" * 50_000)
    run.write_status("finished", 99)
    return run


def images_of(run):
    return sorted(int(path.stem) for path in run.previews.folder.iterdir())


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


def test_a_press_of_train_that_is_refused_costs_nobody_a_preview(trainings, finished, hosted):
    for rules in (Rules(), Rules(forgets=True)):
        trainings.rules = dataclasses.replace(rules, most_bytes=50_000)
        for run in hosted if rules.forgets else ():
            (run.folder / module.PAGE).unlink()
        with pytest.raises(Refused, match="delete one first"):
            trainings.start("Pixel art", "pixel-art", SMALL, MINE)
        assert len(images_of(finished)) == 100
        assert kept(hosted) == ["all"] * 4


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


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """The page's folder of runs, with an operator's key in it, where nothing can be written."""
    folder, temporary = tmp_path / "project" / "runs", tempfile.TemporaryFile

    def refuse(*words, dir, **how):
        if dir == folder:
            raise OSError(errno.EROFS, "Read-only file system")
        return temporary(*words, dir=dir, **how)

    folder.mkdir(parents=True)
    (folder / ".operator").write_text("k" * 40)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(page, "RUNS", folder)
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CARTOON_RUNS")
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """The page's folder of runs, which cannot even be made."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(page, "RUNS", tmp_path / "file" / "runs")
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CARTOON_RUNS")
    return page.RUNS


@pytest.mark.parametrize("fixture", ["read_only", "nowhere"])
def test_where_the_runs_folder_cannot_be_written_trainings_are_kept_in_the_cache_and_told_of(
    request, tmp_path, capsys, fixture
):
    folder, cache = request.getfixturevalue(fixture), tmp_path / "cache" / "runs"
    assert page.open_trainings().root == cache
    said = capsys.readouterr().out
    assert said.startswith(f"* Trainings are kept in {cache}; {folder} cannot be written (")
    assert said.endswith(").\n")
    assert said.count("\n") == 1


def test_a_folder_that_somebody_chose_is_not_silently_another(read_only, tmp_path, monkeypatch):
    monkeypatch.setenv("CARTOON_RUNS", str(read_only))
    with pytest.raises(
        ValueError, match=r"^CARTOON_RUNS is .*/runs, which cannot be written \("
    ) as no:
        page.open_trainings()
    assert str(no.value).endswith("; let this user write there, or choose another folder.")
    assert not (tmp_path / "cache").exists()


def test_where_not_even_the_cache_can_be_written_that_is_one_sentence(nowhere, monkeypatch):
    monkeypatch.setenv("CARTOON_CACHE", str(nowhere))
    with pytest.raises(ValueError, match=r"^Neither .*/runs nor the cache can .* set CARTOON_RUNS"):
        page.open_trainings()


def test_a_folder_that_can_be_written_is_taken_without_a_word(nowhere, monkeypatch, capsys):
    monkeypatch.setattr(page, "RUNS", nowhere.parent.with_name("runs"))
    assert page.open_trainings().root == page.RUNS
    assert capsys.readouterr().out == ""
    assert [path.name for path in page.RUNS.iterdir()] == [".operator"]


def sent(trainings, size):
    """The token of twelve pictures that somebody sent and that wait for their run."""
    rng = np.random.default_rng(0)
    folder = trainings.uploads.folder / "token"
    folder.mkdir(parents=True)
    pixels = rng.integers(0, 256, (12, size, size, 3), dtype=np.uint8)
    (folder / "pixels.u8").write_bytes(pixels.tobytes())
    names = [f"{number:05d}" for number in range(12)]
    (folder / "images.json").write_text(json.dumps({"names": names, "skipped": 0}))
    return folder.name


def test_a_run_on_own_pictures_goes_on_exactly_when_the_project_was_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainings, "_spawn", lambda *_: None)
    config, trainings = dataclasses.replace(SMALL, images=40), Trainings(tmp_path / "old", Rules())
    first, second = (trainings.start("", sent(trainings, 64), config, MINE) for _ in range(2))
    for run in (first, second):
        list(train_run(run, progress=False, stopped=iter([False, False, True]).__next__))
        assert run.saved_step() == 3
    list(train_run(first, progress=False))
    renamed = Trainings(trainings.root.rename(tmp_path / "new"), Rules())
    first, second = (renamed.find(run.folder.name) for run in (first, second))
    renamed.resume(second.folder.name, MINE)
    list(train_run(second, progress=False))
    assert second.status()["state"] == "finished"
    left_alone, interrupted = (load_file(run.checkpoint_path) for run in (first, second))
    assert left_alone.keys() == interrupted.keys()
    for name in left_alone.keys() - {"seconds"}:
        assert torch.equal(left_alone[name], interrupted[name]), name


@pytest.mark.slow
def test_a_run_that_cannot_go_on_gets_no_more_images_however_often_it_is_asked(
    trainings, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(Trainings, "_spawn", lambda *_: None)
        run = trainings.start("", sent(trainings, 64), dataclasses.replace(SMALL, images=8), MINE)
    list(train_run(run, progress=False))
    before = run.config_path.read_bytes()
    away = run.pictures.rename(run.folder / "away")
    for _ in range(2):
        trainings.resume(run.folder.name, MINE, more=8)
        wait(lambda: run.status()["state"] == "failed" and not run.alive)
        assert run.config_path.read_bytes() == before
    away.rename(run.pictures)
    trainings.resume(run.folder.name, MINE, more=8)
    wait(lambda: run.status()["state"] == "finished")
    assert (run.config()[1].images, run.status()["images"]) == (16, 16)


@pytest.fixture
def hosted(trainings):
    """Four runs of visitors on a Space, the oldest first: checkpoints of 80 kB, models of 10."""
    trainings.rules = Rules(forgets=True)
    return [visited(trainings, age) for age in (400, 300, 200, 100)]


def visited(trainings, age):
    run = Run(trainings.root / f"aged-{age}")
    run.create("pixel-art", SMALL)
    write_json(run.folder / module.PAGE, {"owner": module._hash(MINE)})
    run.model_folder.mkdir()
    (run.model_folder / "config.json").write_text("{}")
    (run.model_folder / "model.safetensors").write_bytes(b"x" * 10_000)
    run.checkpoint_path.write_bytes(b"x" * 80_000)
    run.write_status("finished", 99)
    os.utime(run.config_path, (time.time() - age,) * 2)
    return run


def kept(runs):
    """Which runs have a checkpoint, only a model, or nothing any more."""
    return ["all" if r.checkpoint_path.exists() else "model" if r.exists else "" for r in runs]


ROOM = {
    "for all": (400_000, ["all", "all", "all", "all"]),
    "for three": (300_000, ["model", "all", "all", "all"]),
    "for two": (210_000, ["model", "model", "all", "all"]),
    "for a run and three models": (130_000, ["model", "model", "model", "all"]),
    "for a run and two models": (117_000, ["", "model", "model", "all"]),
    "for one": (95_000, ["", "", "", "all"]),
}


@pytest.mark.parametrize(("most", "left"), ROOM.values(), ids=ROOM.keys())
def test_on_a_space_old_runs_lose_their_checkpoints_and_then_go_for_a_new_one(
    trainings, hosted, monkeypatch, most, left
):
    monkeypatch.setattr(Trainings, "_spawn", lambda self, run, most_minutes: None)
    allow(trainings, most)
    assert trainings.start("Pixel art", "pixel-art", SMALL, MINE).exists
    assert kept(hosted) == left


def test_on_a_space_the_run_that_is_going_and_the_newest_other_one_stay(
    trainings, hosted, monkeypatch
):
    allow(trainings, 1)
    going = hosted[1].folder
    with monkeypatch.context() as patch:
        patch.setattr(Run, "alive", property(lambda run: run.folder == going))
        trainings._make_room()
    assert kept(hosted) == ["", "all", "", "all"]


def test_on_a_space_what_somebody_put_beside_the_runs_stays(trainings, hosted):
    (hosted[0].folder / module.PAGE).unlink()
    allow(trainings, 1)
    trainings._make_room()
    assert kept(hosted) == ["all", "", "", "all"]


def test_on_a_space_many_runs_are_no_end_of_all_trainings(trainings, hosted, monkeypatch):
    monkeypatch.setattr(Trainings, "_spawn", lambda self, run, most_minutes: None)
    monkeypatch.setattr(module, "MOST_RUNS", 3)
    assert trainings.start("Pixel art", "pixel-art", SMALL, MINE).exists
    assert kept(hosted) == ["", "", "all", "all"]


def test_at_home_no_run_loses_anything_but_previews(trainings, hosted, monkeypatch):
    trainings.rules = Rules(most_bytes=1)
    trainings._make_room()
    assert kept(hosted) == ["all"] * 4
    monkeypatch.setattr(module, "MOST_RUNS", 3)
    with pytest.raises(Refused, match="There are 3 runs already; delete one first"):
        trainings.start("Pixel art", "pixel-art", SMALL, MINE)


def test_a_run_that_lost_its_checkpoint_says_so_and_is_not_continued_from_nothing(
    trainings, desk, hosted
):
    hosted[0].checkpoint_path.unlink()
    wish = {"run": hosted[0].folder.name, "owner": MINE, "minutes": 5}
    shown = desk.look(wish)["run"]
    assert (shown["goes_on"], shown["advice"]) == (False, wording_train.MADE_ROOM)
    assert desk.answer(desk.resume, wish) == {"problem": wording_train.MADE_ROOM}
    assert desk.look({**wish, "run": hosted[1].folder.name})["run"]["goes_on"]


def test_a_space_says_what_becomes_of_runs():
    words = wording_train.forgets(10, 10**9)
    assert "at most 10 minutes" in words
    assert "Over 1,000 MB, the oldest runs make room for the newer" in words
