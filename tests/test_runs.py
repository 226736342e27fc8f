"""Runs on disk: what they write, and that nothing is lost, whichever way they end."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from diffusion import (
    DiffusionModel,
    cartoons,
    previews,
    run_metrics,
    run_pictures,
    run_training,
    runs,
)
from diffusion.cartoons import Drawing, draw_into
from diffusion.cli import app
from diffusion.cli.train import NOTHING_HELD_OUT
from diffusion.data import load_images
from diffusion.device import MEMORY_FULL
from diffusion.files import replacing, write_json
from diffusion.image_files import DataError
from diffusion.pictures import read_settings
from diffusion.run_training import train_run
from diffusion.runs import Run, RunError
from diffusion.train_config import (
    AGAIN,
    TrainConfig,
    fewest_held_out,
    learned_from,
    learning_rate,
    marks_of,
)
from diffusion.training import Trainer

pytestmark = pytest.mark.usefixtures("drawn_cartoons")

ROOT = Path(__file__).parents[1]
TINY = TrainConfig(images=40, size=16, widths=(16, 32), batch=4, T=50)
LONG = dataclasses.replace(TINY, images=1600)  # long enough to be interrupted, again and again
ONE_SENTENCE = r"^[^\n]+$"


@pytest.fixture
def run(tmp_path, pictures) -> Run:
    return created(tmp_path / "run", pictures)


def created(folder: Path, pictures: Path, config: TrainConfig = TINY) -> Run:
    run = Run(folder)
    run.create(str(pictures), config)
    return run


def finish(run: Run, **how: object) -> list[runs.Pulse]:
    return list(train_run(run, progress=False, **how))


def lines(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


# One process: what a run writes


def test_a_finished_run_holds_all_that_its_folder_promises(run):
    last = finish(run)[-1]
    assert (last.step, last.images, last.lr) == (10, 40, pytest.approx(lines(run)[-1]["lr"]))
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "lock",
        "metrics.jsonl",
        "model",
        "previews",
        "status.json",
    ]
    assert set(lines(run)[-1]) == {
        *("step", "images", "loss", "images_per_second", "lr", "seconds", "seconds_left")
    }
    assert sorted(path.name for path in run.previews.folder.iterdir()) == [
        "0000000.png",
        "0000040.png",
    ]
    with Image.open(run.previews.folder / "0000040.png") as picture:
        assert picture.size == (4 * 18 + 2, 4 * 18 + 2)
    assert read_settings(run.previews.folder / "0000040.png")["images"] == 40
    model = DiffusionModel.from_pretrained(run.model_folder)
    assert (model.training["step"], model.training["images"]) == (10, 40)


def test_the_status_says_who_trains_and_how_it_ended(run):
    pulses = train_run(run, progress=False)
    next(pulses)
    status = run.status()
    assert (status["state"], status["pid"]) == ("running", os.getpid())
    assert abs(time.time() - status["heartbeat"]) < 10
    list(pulses)
    assert (run.status()["state"], run.status()["images"]) == ("finished", 40)


def test_leaving_in_the_middle_says_so_and_can_be_resumed(run, monkeypatch):
    monkeypatch.setattr(run_training, "PULSE_SECONDS", 0.0)
    pulses = train_run(run, progress=False)
    next(pulses)
    pulses.close()
    assert run.status()["state"] == "failed"
    assert "resume" in run.status()["message"]
    assert finish(run)[-1].step == 10


def test_a_resumed_run_cuts_its_metrics_back_to_the_checkpoint(run, monkeypatch):
    monkeypatch.setattr(run_training, "PULSE_SECONDS", 0.0)
    finish(run, stopped=iter([False, False, False, True]).__next__)
    assert [record["step"] for record in lines(run)] == [1, 2, 3, 4]
    lost = {**lines(run)[-1], "step": 5}
    with open(run.metrics_path, "a") as file:
        file.write(json.dumps(lost) + "\n" + json.dumps(lost)[:25])
    assert [record["step"] for record in run.metrics()] == [1, 2, 3, 4, 5]
    finish(run)
    assert [record["step"] for record in lines(run)] == list(range(1, 11))
    assert [record["seconds"] for record in lines(run)] == sorted(
        record["seconds"] for record in lines(run)
    )


def test_metrics_are_read_once_until_there_are_more(run, monkeypatch):
    read, parse = [], run_metrics._record
    monkeypatch.setattr(run_metrics, "_record", lambda line: read.append(line) or parse(line))
    assert run.metrics() == []
    run.metrics_path.write_text('{"step": 1}\n')
    assert [run.metrics() for _ in range(3)] == [[{"step": 1}]] * 3
    assert len(read) == 1
    for step in range(2, 200):
        with open(run.metrics_path, "a") as file:
            file.write(f'{{"step": {step}}}\n{{"st')
        assert [record["step"] for record in run.metrics()] == list(range(1, step + 1))
        os.truncate(run.metrics_path, run.metrics_path.stat().st_size - len('{"st'))
    assert len(read) == 199


def test_metrics_that_were_cut_back_are_read_anew(run):
    def write(*steps):
        run.metrics_path.write_text("".join(f'{{"step": {step}}}\n' for step in steps))

    for steps in ((1, 2, 3), (1, 2), (1, 2, 4), (1, 2, 5, 6), (7, 8, 9, 9, 9)):
        write(*steps)
        assert [record["step"] for record in run.metrics()] == list(steps)
    run.metrics_path.unlink()
    assert run.metrics() == []


def test_the_metrics_of_so_many_runs_are_remembered_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(run_metrics, "METRICS_KEPT", 3)
    monkeypatch.setattr(run_metrics, "_READ", {})
    for name in "abcd":
        run = Run(tmp_path / name)
        run.folder.mkdir()
        run.metrics_path.write_text('{"step": 1}\n')
        run.metrics()
        Run(tmp_path / "a").metrics()
    assert [path.parent.name for path in run_metrics._READ] == ["c", "d", "a"]


def test_a_run_that_crashed_before_its_first_checkpoint_begins_again(run):
    run.metrics_path.write_text('{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    finish(run)
    assert [record["step"] for record in lines(run)] == [10]


def test_a_finished_run_may_be_resumed_and_nothing_happens(run):
    finish(run)
    before = load_file(run.checkpoint_path)
    assert finish(run) == []
    assert (run.status()["state"], run.status()["images"]) == ("finished", 40)
    after = load_file(run.checkpoint_path)
    assert all(torch.equal(before[name], after[name]) for name in before if name != "seconds")


def test_stopping_between_two_steps_changes_nothing(run, tmp_path, pictures):
    other = created(tmp_path / "other", pictures)
    finish(run)
    while finish(other, stopped=iter([False, False, True]).__next__)[-1].step < 10:
        assert other.status()["state"] == "stopped"
    assert_same(run, other)


def test_the_stop_file_ends_the_run_and_does_not_end_the_next(run):
    pulses = train_run(run, progress=False)
    run.stop_path.touch()  # a left-over: the run starts all the same
    first = next(pulses)
    assert first.step == 10

    run = created(run.folder.with_name("again"), Path(run.config()[0]), LONG)
    pulses = train_run(run, progress=False)
    next(pulses)
    run.stop_path.touch()
    last = [*pulses][-1]
    assert last.step < LONG.steps
    assert run.status()["state"] == "stopped"
    assert load_file(run.checkpoint_path)["step"] == last.step


def test_a_run_can_be_stopped_as_soon_as_it_is_announced(run):
    run.write_status("starting", 0)
    run.stop_path.touch()
    assert finish(run)[-1].step == 1
    assert run.status()["state"] == "stopped"


# What must not be lost


def poison(monkeypatch, step: int, loss: float, weights: float) -> None:
    """Let the given step of every trainer answer with a bad loss, or leave bad weights."""
    update = Trainer.update

    def poisoned(self, batch, lr):
        found = update(self, batch, lr)
        if self.step != step:
            return found
        with torch.no_grad():
            self.ema.stem.weight[0] *= weights
        return found * loss

    monkeypatch.setattr(Trainer, "update", poisoned)


NAN = float("nan")


@pytest.mark.parametrize(
    ("loss", "weights", "pulse"),
    [(NAN, NAN, 0.0), (NAN, NAN, 1000.0), (NAN, 1.0, 0.0), (1.0, NAN, 0.0), (1.0, NAN, 1000.0)],
)
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_good_checkpoint(
    run, monkeypatch, loss, weights, pulse
):
    monkeypatch.setattr(run_training, "PULSE_SECONDS", pulse)
    poison(monkeypatch, 6, loss, weights)
    with pytest.raises(
        RunError, match=r"^the loss is not a number after \d+ images; start again with a smaller"
    ):
        finish(run, checkpoint_seconds=0.0)
    state = load_file(run.checkpoint_path)
    assert state["step"] == 6
    assert all(value.isfinite().all() for value in state.values())
    assert run.status()["state"] == "failed"
    assert run.status()["message"].startswith("the loss is not a number")


def test_a_run_whose_checkpoint_is_gone_keeps_its_model_and_does_not_begin_again(run, command):
    finish(run)
    model, checkpoint = run.model_folder / "model.safetensors", run.checkpoint_path.read_bytes()
    before, status = model.read_bytes(), run.status()
    run.checkpoint_path.unlink()
    answer = refused(command("--resume", "--out", run.folder))
    assert answer == (
        f"{run.folder} has a model and no checkpoint to go on from; put it back, or start a new "
        f"run with --from {run.model_folder} to begin with that model."
    )
    assert (model.read_bytes(), run.status()) == (before, status)
    run.checkpoint_path.write_bytes(checkpoint)
    assert finish(run) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), runs.DISK_FULL),
        (OSError(errno.EIO, "Input/output error"), ""),
        (runs.NotANumberError(8), runs.NOT_A_NUMBER),
    ],
)
def test_why_a_run_failed_is_said_for_programs_too(run, monkeypatch, error, reason):
    def refuse(*_):
        raise error

    monkeypatch.setattr(Run, "save", refuse)
    monkeypatch.setattr(runs, "HALVINGS", 0)
    with pytest.raises(type(error)):
        finish(run)
    status = run.status()
    assert (status["state"], status["message"], status["reason"]) == ("failed", str(error), reason)


def test_a_run_says_that_its_time_was_over_unless_it_was_asked_to_stop(run):
    finish(run, at_most=0)
    assert (run.status()["state"], run.status()["reason"]) == ("stopped", runs.TIME_OVER)
    finish(run, at_most=0, stopped=lambda: True)
    assert (run.status()["state"], run.status()["reason"]) == ("stopped", "")


def test_a_run_can_be_stopped_while_its_pictures_are_decoded(run, monkeypatch):
    monkeypatch.setattr("diffusion.data.LOOKS", 0.0)
    assert finish(run, stopped=lambda: True) == []
    assert (run.status()["state"], run.status()["message"]) == ("stopped", "")
    assert not run.checkpoint_path.exists()


def crash(*_, **__):
    raise OSError("no space left on device")


def half_a_file(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    crash()


@pytest.mark.parametrize(
    ("what", "how"),
    [("diffusion.files.os.replace", crash), ("pathlib.Path.write_bytes", half_a_file)],
)
def test_a_crash_while_saving_leaves_the_old_checkpoint(run, monkeypatch, what, how):
    finish(run, stopped=iter([False, False, True]).__next__)
    before = run.checkpoint_path.read_bytes()
    trainer = Trainer(TINY)
    with monkeypatch.context() as patch:
        patch.setattr(what, how)
        with pytest.raises(OSError, match="no space left"):
            run.save(trainer, 1.0)
    assert run.checkpoint_path.read_bytes() == before
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".")]
    assert finish(run)[-1].step == 10


def test_a_checkpoint_that_was_damaged_is_refused_in_one_sentence(run):
    finish(run, stopped=iter([True]).__next__)
    whole = run.checkpoint_path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x80\x04N."):
        run.checkpoint_path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"^[^\n]+ cannot be used \([^\n]+\); start a new run$"):
            finish(run)


def test_what_killed_processes_left_is_cleared_away_and_nothing_else(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, busy = (tmp_path / f".status.json.{pid}.1.partial" for pid in (gone.pid, os.getpid()))
    other = tmp_path / f".status.json.{gone.pid}"
    for path in (left, busy, other):
        path.write_text("half")
    write_json(tmp_path / "config.json", {})
    assert [path.exists() for path in (left, busy, other)] == [False, True, True]


def test_replacing_shows_either_the_old_or_the_new(tmp_path):
    path = tmp_path / "folder" / "file"
    with replacing(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with replacing(path) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


# Who is training


@pytest.fixture
def somebody():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def status(pid: int | None, state: str = "running", silent: float = 0.0) -> dict:
    return {"state": state, "pid": pid, "heartbeat": time.time() - silent, "images": 4}


@pytest.fixture
def holder(run):
    """A process that holds the run's lock, as whoever trains it does."""
    code = (
        "import sys, time; from filelock import FileLock;"
        "lock = FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(run.lock_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_run_is_alive_while_a_process_holds_its_lock_however_silent_it_is(run, holder):
    assert not run.alive
    for content, alive in (
        (status(holder.pid), True),
        (status(holder.pid, silent=3600), True),  # a laptop that slept
        (status(holder.pid, "preparing", silent=7200), True),
        (status(holder.pid, "starting", silent=7200), True),
        (status(holder.pid, "finished"), False),
        (status(os.getpid()), False),
        (status(None), False),
        ({}, False),
    ):
        write_json(run.status_path, content)
        assert run.alive == alive, content
    run.status_path.write_text('{"state": "run')
    assert not run.alive
    for state in ("running", "starting"):
        write_json(run.status_path, status(holder.pid, state))
        assert run.alive
    holder.kill()
    holder.wait()
    for state in ("running", "preparing", "starting"):
        write_json(run.status_path, status(holder.pid, state))
        assert not run.alive


def test_a_process_without_the_lock_is_another_program_unless_it_only_starts(run, somebody):
    for content, alive in (
        (status(somebody.pid), False),
        (status(somebody.pid, silent=3600), False),  # the pid belongs to another program now
        (status(somebody.pid, "preparing"), False),
        (status(somebody.pid, "starting"), True),
        (status(somebody.pid, "starting", silent=3600), False),
    ):
        write_json(run.status_path, content)
        assert run.alive == alive, content
    assert not run.lock_path.exists()


def test_who_asks_whether_a_run_is_alive_is_not_taken_for_its_trainer(run, somebody):
    finish(run)
    write_json(run.status_path, status(somebody.pid))
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: Run(run.folder).alive, range(400)))


def test_a_second_trainer_of_a_live_run_is_refused(run, holder):
    write_json(run.status_path, status(holder.pid, silent=3600))
    with pytest.raises(RunError, match=rf"being trained by process {holder.pid}; stop it first$"):
        finish(run)
    assert run.status()["pid"] == holder.pid


def test_a_run_that_is_deleted_ends_and_does_not_come_back(run, monkeypatch):
    monkeypatch.setattr(run_training, "PULSE_SECONDS", 0.0)
    pulses = train_run(run, progress=False)
    next(pulses)
    run.folder.rename(run.folder.with_name("deleted"))
    with pytest.raises(RunError, match=r"run was deleted while it was being trained$"):
        list(pulses)
    assert not run.folder.exists()
    for write in (
        lambda: run.save(Trainer(TINY), 1.0),
        lambda: run.save_preview(Trainer(TINY).model(), 4),
    ):
        with pytest.raises(RunError, match="was deleted"):
            write()
    assert not run.folder.exists()


# Pictures that are still being drawn


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Twenty pictures of pixel art, and a run that waits for more."""
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cartoons, "COUNT", 60)
    monkeypatch.setattr(cartoons, "FIRST", 20)
    monkeypatch.setattr(cartoons, "CHUNK", 10)
    return created(tmp_path / "run", Path("pixel-art"), dataclasses.replace(TINY, pool=20))


def draw_some(drawing: Drawing, count: int) -> None:
    draw_into(drawing.folder, drawing.style, drawing.size, count)


def test_a_run_can_be_stopped_before_its_pictures_are_drawn(drawn, monkeypatch):
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: drawn.stop_path.touch())
    assert finish(drawn) == []
    assert (drawn.status()["state"], drawn.status()["message"]) == ("stopped", "")
    assert not drawn.checkpoint_path.exists()
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self, 60))
    assert finish(drawn)[-1].step == 10


def test_a_run_that_is_stopped_while_it_waits_for_pictures_is_saved(drawn, monkeypatch):
    def twenty(self):
        draw_some(self, 20)
        if len(self._pixels) == 20:  # all of them are read, and one more is waited for
            drawn.stop_path.touch()

    monkeypatch.setattr(Drawing, "_have_drawn", twenty)
    monkeypatch.setattr(run_training, "ROUGHNESS_OF", 10)
    finish(drawn)
    saved = drawn.saved_step()
    assert 0 < saved < 10
    assert (drawn.status()["state"], drawn.status()["images"]) == ("stopped", 4 * saved)
    monkeypatch.setattr(Drawing, "_have_drawn", lambda self: draw_some(self, 60))
    assert finish(drawn)[-1].step == 10


def test_a_run_whose_pictures_cannot_be_drawn_fails_and_says_why(drawn, monkeypatch):
    monkeypatch.setattr(cartoons, "python", lambda *_: {"args": [sys.executable, "-c", "1 / 0"]})
    with pytest.raises(DataError, match=r"^pictures of pixel-art cannot be drawn \(ZeroDivision"):
        finish(drawn)
    assert drawn.status()["state"] == "failed"
    assert "cannot be drawn" in drawn.status()["message"]


# The command


@pytest.fixture
def command(monkeypatch):
    """Run python -m diffusion train in this process; keep the signals as they were."""
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    module = importlib.import_module("diffusion.cli.train")
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.05)
    yield lambda *words: CliRunner().invoke(app, ["train", *map(str, words)])
    for name, handler in before.items():
        signal.signal(name, handler)


def refused(result) -> str:
    """The one sentence of a refusal: exit code 1, and no traceback."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    *progress, sentence = result.stderr.splitlines()  # progress bars may come before
    assert all(not line or "img" in line or "images" in line for line in progress)
    assert sentence.endswith(".")
    return sentence


BUDGET = ("--images", 8)
WRONG = {
    "no data": ((*BUDGET,), "no --data given"),
    "missing data": (("--data", "nowhere", *BUDGET), "there is no nowhere"),
    "no budget": (("--data", "DATA"), "give a budget: either --minutes or --images"),
    "two budgets": (("--data", "DATA", "--minutes", 1, *BUDGET), "give a budget: either"),
    "zero images": (("--data", "DATA", "--images", 0), "at least one image"),
    "zero minutes": (("--data", "DATA", "--minutes", 0), "0 minutes is no budget"),
    "endless minutes": (("--data", "DATA", "--minutes", "inf"), "inf minutes is no budget"),
    "preset": (("--data", "DATA", "--preset", "huge", *BUDGET), "choose tiny, small, base"),
    "device": (("--data", "DATA", "--device", "tpu", *BUDGET), "unknown device 'tpu'"),
    "size": (("--data", "DATA", "--size", 63, *BUDGET), "size 63 px; choose a multiple"),
    "batch": (("--data", "DATA", "--batch", 0, *BUDGET), "a batch of at least one"),
    "rate": (("--data", "DATA", "--lr", 7, *BUDGET), "learning rate lies in"),
    "prediction": (("--data", "DATA", "--prediction", "score", *BUDGET), "unknown prediction"),
    "schedule": (("--data", "DATA", "--schedule", "sine", *BUDGET), "unknown schedule"),
    "precision": (("--data", "DATA", "--precision", "int8", *BUDGET), "unknown precision"),
    "seed": (("--data", "DATA", "--seed", -1, *BUDGET), "choose a whole number"),
    "held out": (("--data", "DATA", "--held-out", 12, *BUDGET), "12 of 12 pictures held out"),
    "no threads": (("--data", "DATA", "--threads", 0, *BUDGET), "0 threads cannot train"),
    "resume nothing": (("--resume",), "there is no run in"),
    "resume with budget": (("--resume", *BUDGET), "keeps the run's own budget"),
    "more of nothing": (("--data", "DATA", *BUDGET, "--more", 8), "--more adds images to a run"),
}


@pytest.mark.parametrize(("words", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_gets_one_sentence_and_starts_no_run(
    command, pictures, tmp_path, words, sentence
):
    words = [pictures if word == "DATA" else word for word in words]
    out = tmp_path / "run"
    assert sentence in refused(command("--out", out, *words))
    assert not out.exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(command, run):
    before = run.config_path.read_bytes()
    answer = refused(command("--data", run.config()[0], "--out", run.folder, *BUDGET))
    assert "holds a run; add --resume, or choose another --out" in answer
    assert run.config_path.read_bytes() == before


def test_options_that_a_resumed_run_would_not_follow_are_refused_by_name(command, run):
    words = (
        "--resume",
        "--out",
        run.folder,
        "--device",
        "cpu",
        "--preview-every",
        9,
        "--at-most",
        0,
    )
    ignored = ("--from", "somewhere", "--seed", 0, "--flip", "--lr", 0.1)
    answer = refused(command(*words, *ignored))
    assert "leave --seed, --from, --lr, --flip out" in answer
    assert command(*words).exit_code == 0


@pytest.mark.parametrize("content", ["", "{}", '{"data": "x", "images": 4, "colour": 1}', "[1]"])
def test_a_config_that_is_none_is_refused(command, run, content):
    run.config_path.write_text(content)
    assert "cannot be read" in refused(command("--resume", "--out", run.folder))


def test_minutes_become_a_number_of_images(command, pictures, tmp_path):
    run = Run(tmp_path / "run")
    words = ("--data", pictures, "--preset", "tiny", "--size", 16, "--batch", 2, "--threads", 1)
    done = command(*words, "--minutes", 0.002, "--out", run.folder)
    assert done.exit_code == 0, done.output
    _, config = run.config()
    assert f"{config.images:,} images in 0.002 minutes" in done.stdout
    assert f"Trained; the model is in {run.model_folder}" in done.stdout
    assert (config.size, config.batch, config.threads, config.held_out) == (16, 2, 1, 0)
    assert run.status()["images"] == config.images


SMALL = ("--size", 16, "--widths", "16,32", "--batch", 4, "--threads", 1, *BUDGET)


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of pictures that a test may change."""
    folder = tmp_path / "own"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(np.full((16, 16, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    return folder


def test_the_command_says_what_it_read_and_that_nothing_is_held_back(command, own, tmp_path):
    (own / "broken.png").write_bytes(b"no picture")
    (own / "phone.heic").write_bytes(b"another kind")
    done = command("--data", own, "--out", tmp_path / "run", *SMALL)
    assert done.exit_code == 0, done.output
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("6 pictures; 1 broken and 1 of other kinds (.heic) left out")
    assert second == NOTHING_HELD_OUT
    held = command("--data", own, "--out", tmp_path / "held", "--held-out", 2, *SMALL)
    assert NOTHING_HELD_OUT not in held.stdout


def test_a_run_whose_pictures_were_moved_goes_on_when_it_is_told_where_they_are(
    command, own, tmp_path
):
    run = Run(tmp_path / "run")
    assert command("--data", own, "--out", run.folder, *SMALL).exit_code == 0
    moved = own.rename(tmp_path / "moved")
    resume = ("--resume", "--out", run.folder, "--more", 8)
    before = run.config_path.read_bytes()
    for _ in range(2):
        assert f"there is no {own}; say with --data where the run's pictures are now" in refused(
            command(*resume)
        )
        assert run.config_path.read_bytes() == before
    done = command(*resume, "--data", moved)
    assert done.exit_code == 0, done.output
    assert run.config()[0] == str(moved)
    assert (run.status()["state"], run.status()["images"]) == ("finished", 16)


def test_a_budget_does_not_grow_when_the_checkpoint_cannot_be_used(command, run):
    finish(run)
    before = run.config_path.read_bytes()
    run.checkpoint_path.write_bytes(b"")
    assert "cannot be used" in refused(command("--resume", "--out", run.folder, "--more", 8))
    assert run.config_path.read_bytes() == before


def decode_into(folder: Path) -> str:
    """Pictures as a page leaves them in a run's folder, and where they are."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "pixels.u8").write_bytes(rng.integers(0, 256, (6, 16, 16, 3), np.uint8).tobytes())
    about = {"names": [f"{number:05d}" for number in range(6)], "skipped": 0}
    (folder / "images.json").write_text(json.dumps(about))
    return str(folder)


def test_a_run_that_was_moved_with_its_own_pictures_goes_on_exactly(command, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    one, other = (Run(old / name) for name in ("one", "other"))
    for run in (one, other):
        run.create(decode_into(run.pictures), TINY)
        finish(run, stopped=iter([False, False, True]).__next__)
    finish(one)
    old.rename(new)
    one, other = (Run(new / run.folder.name) for run in (one, other))
    done = command("--resume", "--out", other.folder)
    assert done.exit_code == 0, done.output
    assert other.status()["state"] == "finished"
    assert_same(one, other)


def test_pictures_that_are_gone_are_not_replaced_by_others_in_the_runs_folder(
    command, own, tmp_path
):
    run = Run(tmp_path / "run")
    assert command("--data", own, "--out", run.folder, *SMALL).exit_code == 0
    own.rename(tmp_path / "moved")
    resume = ("--resume", "--out", run.folder)
    run.pictures.mkdir()
    assert "there is no" in refused(command(*resume))
    run.pictures.rmdir()
    decode_into(run.pictures)
    assert "the pictures of this run have changed" in refused(command(*resume))


def test_a_run_does_not_go_on_with_other_pictures_than_it_began_with(command, own, tmp_path):
    run = Run(tmp_path / "run")
    assert command("--data", own, "--out", run.folder, *SMALL).exit_code == 0
    (own / "5.png").unlink()
    said = "the pictures of this run have changed; put them back or start a new run"
    for more in ((), ("--data", own)):
        assert said in refused(command("--resume", "--out", run.folder, *more))
    assert run.config()[0] == str(own)


def test_a_run_does_not_go_on_with_cartoons_that_another_version_draws(tmp_path, monkeypatch):
    run = created(tmp_path / "run", Path("pixel-art"), dataclasses.replace(TINY, pool=4))
    finish(run, stopped=iter([False, True]).__next__)
    load = run_pictures.load_built_in

    def upgraded(*how):
        return dataclasses.replace(load(*how), key="another")

    with monkeypatch.context() as patch:
        patch.setattr(run_pictures, "load_built_in", upgraded)
        with pytest.raises(RunError, match=r"^the cartoons of this run were drawn by other"):
            finish(run)
    assert finish(run)[-1].step == 10


def test_a_run_of_an_older_version_that_does_not_know_its_pictures_goes_on(run):
    finish(run, stopped=iter([False, True]).__next__)
    settings = json.loads(run.config_path.read_text())
    assert settings.pop("key")
    write_json(run.config_path, settings)
    assert finish(run)[-1].step == 10
    assert run.key() == ""  # those of today need not be those it began with


def test_a_run_that_does_not_know_its_pictures_takes_no_others(command, run, own):
    before = run.config_path.read_bytes()
    answer = refused(command("--resume", "--out", run.folder, "--data", own))
    assert "does not know its pictures at another place; leave --data out" in answer
    assert run.config_path.read_bytes() == before


def test_a_finished_run_that_is_resumed_says_so_instead_of_training(command, run):
    finish(run)
    done = command("--resume", "--out", run.folder)
    assert done.stdout == f"{run.folder} is already trained; add --more IMAGES to train it on\n"
    assert "0%" not in done.stderr


def test_a_place_that_cannot_be_written_is_refused_before_a_picture_is_read(
    command, tmp_path, monkeypatch
):
    module = importlib.import_module("diffusion.cli.train")
    monkeypatch.setattr(module, "load_images", lambda *_, **__: pytest.fail("read"))
    (tmp_path / "file").touch()
    answer = refused(command("--data", tmp_path, "--out", tmp_path / "file" / "run", *BUDGET))
    assert answer.startswith(f"cannot write {tmp_path / 'file' / 'run'} (")
    assert answer.endswith("; choose another place.")


# Another process, ended in every way


def start(run: Run, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "diffusion", "train", "--resume", "--out", run.folder]
    return subprocess.Popen(
        [*map(str, command), *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_a_checkpoint(run: Run, process: subprocess.Popen) -> None:
    """Until this very process has written one."""
    before = run.checkpoint_path.stat().st_mtime_ns if run.checkpoint_path.exists() else 0
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if run.checkpoint_path.exists() and run.checkpoint_path.stat().st_mtime_ns > before:
            return
        time.sleep(0.02)
    pytest.fail(f"no checkpoint was written: {process.communicate()}")


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err
    return process.returncode, out, err


def assert_same(one: Run, other: Run) -> None:
    """The same model and the same training state, bit for bit."""
    weights = [run.model_folder / "model.safetensors" for run in (one, other)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    first, second = (load_file(run.checkpoint_path) for run in (one, other))
    assert first.keys() == second.keys()
    assert {"step", "seconds"} < first.keys()
    for name in first.keys() - {"seconds"}:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory, pictures) -> Run:
    """A run that nobody interrupts."""
    run = created(tmp_path_factory.mktemp("straight") / "run", pictures, LONG)
    finish(run)
    assert run.status()["state"] == "finished"
    return run


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_bit_for_bit_like_one_left_alone(
    straight, tmp_path, pictures
):
    seed = time.time_ns()
    print(f"the moments of the kills follow from seed {seed}")
    rng = random.Random(seed)
    run = created(tmp_path / "run", pictures, LONG)
    for _ in range(2):
        process = start(run, "--checkpoint-every", 0.1, "--preview-every", 0.3)
        wait_for_a_checkpoint(run, process)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert end(process)[0] == -signal.SIGKILL
        assert run.status()["state"] == "running"
        assert not run.alive
        assert load_file(run.checkpoint_path)["step"] > 0
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 399, "im')
    finish(run)
    assert_same(straight, run)
    steps = [record["step"] for record in lines(run)]
    assert steps == sorted(set(steps))
    assert steps[-1] == LONG.steps
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_run_stopped_politely_says_how_to_go_on_and_ends_bit_for_bit_the_same(
    straight, tmp_path, pictures, command
):
    run = created(tmp_path / "run", pictures, LONG)
    for how in (signal.SIGTERM, signal.SIGINT, "stop"):
        process = start(run, "--checkpoint-every", 0.1)
        wait_for_a_checkpoint(run, process)
        assert run.alive
        answer = refused(command("--resume", "--out", run.folder))
        assert f"is being trained by process {process.pid}; stop it first" in answer
        if how == "stop":
            run.stop_path.touch()
        else:
            process.send_signal(how)
        code, out, err = end(process)
        status = run.status()
        assert (code, status["state"]) == (0, "stopped"), err
        assert status["images"] < LONG.images
        assert out == (
            f"Stopped after {status['images']:,} images; go on with --resume --out {run.folder}\n"
        )
        assert load_file(run.checkpoint_path)["step"] == status["images"] // LONG.batch
    finish(run)
    assert_same(straight, run)


@pytest.mark.slow
def test_the_whole_command_trains_a_preset_from_a_folder(tmp_path, pictures):
    run = Run(tmp_path / "run")
    words = f"--data {pictures} --preset tiny --size 16 --batch 2 --images 4 --threads 1"
    done = subprocess.run(
        [sys.executable, "-m", "diffusion", "train", *words.split(), "--out", run.folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"12 pictures.\n{NOTHING_HELD_OUT}\nTrained; the model is in {run.model_folder}\n"
    )
    assert DiffusionModel.from_pretrained(run.model_folder).shape == (3, 16, 16)


# Growing, going back, and who holds the lock


def test_a_finished_run_goes_on_for_more_images_at_a_lower_rate(run):
    finish(run)
    run.extend(40)
    finish(run, stopped=iter([False] * 3 + [True]).__next__)
    finish(run)
    _, config = run.config()
    assert (config.images, config.extended) == (80, ((10, 40),))
    assert run.status() | {"state": "finished", "images": 80} == run.status()


def test_more_images_after_the_end_come_to_the_same_however_often_they_are_interrupted(
    run, tmp_path, pictures, monkeypatch
):
    monkeypatch.setattr(run_training, "PULSE_SECONDS", 0.0)
    other = created(tmp_path / "other", pictures)
    for one in (run, other):
        finish(one)
        one.extend(40)
    finish(run)
    while finish(other, stopped=iter([False, False, True]).__next__)[-1].step < 20:
        pass
    assert_same(run, other)
    rates = [record["lr"] for record in lines(run)]
    assert rates == [record["lr"] for record in lines(other)]
    assert max(rates[10:]) == AGAIN * max(rates[:10])


def test_more_images_before_the_rate_falls_are_as_good_as_given_at_the_start(tmp_path, pictures):
    config = dataclasses.replace(TINY, warmup=1)
    run = created(tmp_path / "run", pictures, config)
    other = created(tmp_path / "other", pictures, dataclasses.replace(config, images=100))
    finish(other)
    finish(run, stopped=iter([False] * 3 + [True]).__next__)
    run.extend(60)
    finish(run)
    assert_same(run, other)


def test_a_run_of_an_older_version_is_read(run):
    settings = json.loads(run.config_path.read_text())
    del settings["extended"]
    write_json(run.config_path, settings)
    assert run.config()[1] == TINY


def test_a_loss_that_is_no_number_once_is_repaired_and_said(run, monkeypatch):
    """The last good state is restored, the learning rate is half from there on."""
    monkeypatch.setattr(run_training, "PULSE_SECONDS", 0.0)
    update, poisoned = Trainer.update, []

    def once(self, batch, lr):
        found = update(self, batch, lr)
        if self.step == 6 and not poisoned:
            poisoned.append(lr)
            return found * NAN
        return found

    states, write = [], Run.write_status

    def note(run, state, *about, **more):
        states.append(state)
        write(run, state, *about, **more)

    monkeypatch.setattr(Run, "write_status", note)
    monkeypatch.setattr(Trainer, "update", once)
    last = finish(run, checkpoint_seconds=0.0)[-1]
    assert "failed" not in states  # whoever looks meanwhile sees a run that goes on
    assert last.step == 10
    _, config = run.config()
    assert config.halved == (6,)
    assert [record["step"] for record in lines(run)] == list(range(1, 11))
    assert run.status()["state"] == "finished"
    plain = dataclasses.replace(config, halved=())
    assert lines(run)[6]["lr"] == pytest.approx(learning_rate(plain, 6) / 2)
    assert lines(run)[5]["lr"] == pytest.approx(learning_rate(plain, 5))


def test_previews_of_what_came_after_the_checkpoint_are_not_kept(run):
    finish(run, stopped=iter([False, True]).__next__)
    step = run.saved_step()
    kept = [path.name for path in run.previews.paths()]
    for images in (4 * step + 4, 99999999):
        shutil.copyfile(run.previews.paths()[0], run.previews.folder / f"{images:07d}.png")
    run.load(Trainer(run.config()[1]))
    assert [path.name for path in run.previews.paths()] == kept
    run.checkpoint_path.unlink()
    run.load(Trainer(run.config()[1]))
    assert [path.name for path in run.previews.paths()] == ["0000000.png"]


def test_a_run_without_memory_ends_in_a_sentence_that_says_what_to_do(run, monkeypatch):
    def full(*_):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 17.95 GB)")

    monkeypatch.setattr(Trainer, "update", full)
    with pytest.raises(RunError, match=r"^the device's memory is full; choose a smaller --batch$"):
        finish(run)
    assert run.status() | {"state": "failed", "message": MEMORY_FULL} == run.status()


def test_a_stop_that_was_asked_for_outlives_a_loss_that_is_no_number(run, monkeypatch):
    monkeypatch.setattr(run_training, "PULSE_SECONDS", 0.0)
    update = Trainer.update

    def stopped_and_spoiled(self, batch, lr):
        found = update(self, batch, lr)
        if self.step == 6 and not run.stop_path.exists():
            run.stop_path.touch()
            return found * NAN
        return found

    monkeypatch.setattr(Trainer, "update", stopped_and_spoiled)
    assert finish(run, checkpoint_seconds=0.0)[-1].step == 7
    assert run.status()["state"] == "stopped"


def test_a_process_that_only_holds_the_lock_keeps_a_second_trainer_out(run, holder):
    with pytest.raises(RunError, match=r"being trained by process .*; stop it first$"):
        finish(run)
    holder.kill()
    holder.wait()
    assert finish(run)[-1].step == 10


def test_previews_are_thinned_and_the_first_and_the_last_stay(run, monkeypatch):
    finish(run)
    sheet = (run.previews.folder / "0000040.png").read_bytes()
    for images in range(1, 40):
        (run.previews.folder / f"{images:07d}.png").write_bytes(sheet)
    monkeypatch.setattr(previews, "MOST_BYTES", 12 * len(sheet))
    run.save_preview(DiffusionModel.from_pretrained(run.model_folder), 41)
    left = sorted(int(path.stem) for path in run.previews.folder.glob("*.png"))
    assert len(left) <= 12
    assert (left[0], left[-1]) == (0, 41)


@pytest.mark.parametrize(("few", "left"), [(2, 2), (16, 11), (40, 40)])
def test_what_thinning_could_free_is_what_it_frees(run, few, left):
    run.previews.folder.mkdir()
    for images in range(40):
        (run.previews.folder / f"{images:07d}.png").write_bytes(bytes(100 + images))
    before, told = run.bytes, run.previews.thinned_bytes(few)
    run.previews.thin(0, few)
    assert before - run.bytes == told
    assert len(run.previews.paths()) == left


def test_what_others_put_beside_the_previews_is_none(run):
    run.previews.folder.mkdir()
    for name in ("0039000", "0039000 copy", "._0039000", "first"):
        (run.previews.folder / f"{name}.png").write_bytes(bytes(100))
    assert [path.name for path in run.previews.paths()] == ["0039000.png"]
    run.previews.thin(0)
    assert len([*run.previews.folder.iterdir()]) == 4


@pytest.mark.parametrize(("opened", "stay"), [({1}, [0, 1, 2, 5]), (set(range(6)), list(range(6)))])
def test_previews_that_somebody_looks_at_on_windows_stay_a_while(run, monkeypatch, opened, stay):
    run.previews.folder.mkdir()
    for images in range(6):
        (run.previews.folder / f"{images:07d}.png").write_bytes(bytes(100))
    unlink = Path.unlink

    def refuse_opened(path, **how):
        if int(path.stem) in opened:
            raise PermissionError(13, "The process cannot access the file")
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", refuse_opened)
    run.previews.thin(0)
    assert [int(path.stem) for path in run.previews.paths()] == stay


def test_the_model_carries_a_card_with_where_its_pictures_came_from(tmp_path):
    run = created(tmp_path / "run", Path("pixel-art"), dataclasses.replace(TINY, pool=4))
    finish(run)
    card = (run.model_folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc0-1.0\n")
    assert "by DiceBear, CC0 1.0" in card
    assert "Begun from nothing; 40 images seen" in card


def test_a_run_may_begin_with_a_model_and_says_so(run, tmp_path, pictures):
    finish(run)
    config = dataclasses.replace(TINY, start=str(run.model_folder), lr=1e-9, warmup=1)
    second = created(tmp_path / "second", pictures, config)
    finish(second, stopped=iter([True]).__next__)
    before, after = (load_file(one.model_folder / "model.safetensors") for one in (run, second))
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    model = DiffusionModel.from_pretrained(second.model_folder)
    assert model.training["start"] == "/".join(run.model_folder.parts[-2:])
    card = (second.model_folder / "README.md").read_text()
    assert f"Begun from the weights of {model.training['start']}" in card


def test_a_model_names_whose_pictures_the_one_before_it_learned_from(tmp_path, command, pictures):
    first = created(tmp_path / "first", Path("toon-head"), dataclasses.replace(TINY, pool=4))
    finish(first)
    before = learned_from(DiffusionModel.from_pretrained(first.model_folder).training)
    assert [source.author for source in before] == ["Johan Melin"]
    folders = first.model_folder, *(tmp_path / name / "model" for name in ("second", "third"))
    for data, start, made in zip(("pixel-art", pictures), folders, folders[1:], strict=False):
        done = command(
            "--data", data, "--from", start, "--out", made.parent, "--images", 8,
            "--batch", 4, "--threads", 1,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    second, third = ((folder / "README.md").read_text() for folder in folders[1:])
    assert second.startswith("---\nlicense: cc-by-4.0\n")  # pixel art alone asks for nothing
    assert "by DiceBear, CC0 1.0" in second
    assert "had learned from [ToonHead](" in second
    assert third.startswith("---\nlicense: other\n")
    assert "Its owner's pictures" in third
    assert "by Johan Melin, CC BY 4.0; [Pixel Art](" in third


def test_the_command_takes_the_shape_of_the_model_it_begins_with(run, command, pictures, tmp_path):
    finish(run)
    out = tmp_path / "second"
    words = ("--data", pictures, "--from", run.model_folder, "--out", out, "--images", 8)
    assert "--from decides size" in refused(command(*words, "--size", 32))
    done = command(*words, "--batch", 4, "--threads", 1)
    assert done.exit_code == 0, done.output
    _, config = Run(out).config()
    assert (config.size, config.widths, config.T) == (16, (16, 32), 50)
    assert config.start == str(run.model_folder)
    _, before = run.config()
    assert config.seen_before == before.images
    card = (Run(out).model_folder / "README.md").read_text()
    assert f"which had seen {before.images} images; 8 images seen" in card


def test_what_a_model_before_has_seen_is_not_held_out_any_more(command, pictures, own, tmp_path):
    def begun(name, start, data, *words):
        begin = () if start is None else ("--from", tmp_path / start / "model")
        size = ("--size", 16, "--widths", "16,32") if start is None else ()
        short = ("--images", 4, "--batch", 4, "--threads", 1)
        return command("--data", data, *begin, *size, *short, "--out", tmp_path / name, *words)

    for name, start, data, held_out in (
        ("none", None, pictures, 0),
        ("two", None, pictures, 2),
        ("four", None, pictures, 4),
        ("four then four", "four", pictures, 4),
        ("two then others", "two", own, 0),
    ):
        done = begun(name, start, data, "--held-out", held_out)
        assert done.exit_code == 0, done.output
    for start, fewest in (("none", 0), ("two", 2), ("two then others", 2)):
        assert (
            f"the model to begin with held out {fewest} of these pictures and has seen the "
            f"others, so 4 cannot be held out now; give --held-out {fewest}."
        ) in begun("new", start, pictures, "--held-out", 4).stderr
        assert not (tmp_path / "new").exists()
    model = DiffusionModel.from_pretrained(tmp_path / "two then others" / "model")
    assert marks_of(model.training) == (load_images(pictures, 16).mark(2),)
    known = [Run(tmp_path / name).key() for name in ("two", "two then others")]
    assert fewest_held_out(model.training) == dict(zip(known, (2, 0), strict=True))


def test_a_run_stops_saved_when_its_time_is_up(run, command):
    done = command("--resume", "--out", run.folder, "--at-most", 0)
    assert done.exit_code == 0, done.output
    assert run.status()["state"] == "stopped"
    assert run.checkpoint_path.exists()
