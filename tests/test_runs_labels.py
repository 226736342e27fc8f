"""Runs that learn labels, from the command line to the model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from diffusion import DiffusionModel
from diffusion.cli import app
from diffusion.files import write_json
from diffusion.previews import SEEDS, preview_labels
from diffusion.run_training import train_run
from diffusion.runs import Run


@pytest.fixture(scope="module")
def labels(pictures, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    rows = [f"face{i:02d},{'red' if i % 2 else 'blue'},{i % 3}" for i in range(12)]
    path.write_text("name,colour,size\n" + "\n".join(rows))
    return path


def train(*options: object):
    words = ["train", "--size", 16, "--widths", "16,32", "--batch", 4, "--threads", 1, *options]
    return CliRunner().invoke(app, list(map(str, words)))


def resume(folder: Path, *options: object):
    words = ["train", "--resume", "--out", folder, *options]
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture
def moving(pictures, labels, tmp_path) -> Run:
    """A run that was stopped, and its own pictures and labels beside it."""
    shutil.copytree(pictures, tmp_path / "faces")
    shutil.copy(labels, tmp_path / "labels.csv")
    run = Run(tmp_path / "run")
    options = ("--labels", tmp_path / "labels.csv", "--images", 16, "--out", run.folder)
    done = train("--data", tmp_path / "faces", *options, "--at-most", 0)
    assert done.exit_code == 0, done.output
    assert run.status()["state"] == "stopped"
    return run


def test_a_run_with_labels_makes_a_model_that_can_be_asked(pictures, labels, tmp_path):
    folder = tmp_path / "run"
    more = ("--more-ema", 0.5, "--more-ema", 0.9)
    done = train("--data", pictures, "--labels", labels, "--images", 16, "--out", folder, *more)
    assert done.exit_code == 0, done.output
    model = DiffusionModel.from_pretrained(folder / "model")
    assert model.labels == {"colour": ("blue", "red"), "size": ("0", "1", "2")}
    assert model.network.config.labels == (2, 3)
    assert "labels_file" not in model.training
    for decay in (0.5, 0.9):
        average = DiffusionModel.from_pretrained(folder / f"model@{decay}")
        assert average.training["ema"] == decay
    out = tmp_path / "a.npz"
    options = ["--model", folder / "model", "--label", "colour=red", "--guidance", 2, "--steps", 2]
    done = CliRunner().invoke(app, ["sample", *map(str, options), "--out", str(out)])
    assert done.exit_code == 0, done.output


def test_the_command_says_how_many_pictures_the_file_knows(pictures, labels, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("\n".join(labels.read_text().splitlines()[:3]))
    done = train("--data", pictures, "--labels", few, "--images", 8, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "2 of 12 pictures have labels." in done.stdout


def test_attributes_choose_what_is_learned_and_a_resumed_run_remembers(pictures, labels, tmp_path):
    run = Run(tmp_path / "run")
    options = ("--labels", labels, "--attributes", "size", "--images", 8)
    done = train("--data", pictures, *options, "--out", run.folder)
    assert done.exit_code == 0, done.output
    _, config = run.config()
    assert config.labels == {"size": ("0", "1", "2")}
    done = resume(run.folder)
    assert done.exit_code == 0, done.output


def test_labels_that_changed_since_the_run_began_are_refused(pictures, labels, tmp_path):
    own = tmp_path / "labels.csv"
    own.write_text(labels.read_text())
    folder = tmp_path / "run"
    done = train("--data", pictures, "--labels", own, "--images", 8, "--out", folder)
    assert done.exit_code == 0, done.output
    own.write_text(labels.read_text().replace("red", "green"))
    done = resume(folder)
    assert done.exit_code == 1
    assert "the labels are not those that the run began with; start a new run" in done.stderr


def test_labels_of_other_pictures_are_refused_and_rows_in_another_order_are_not(moving, tmp_path):
    path, before = tmp_path / "labels.csv", moving.config_path.read_bytes()
    whole = path.read_text()
    header, first, second, *rest = whole.splitlines()
    swapped = [f"face00,{second.partition(',')[2]}", f"face01,{first.partition(',')[2]}"]
    path.write_text("\n".join([header, *swapped, *rest]))
    for options in ((), ("--more", 8), ("--labels", path)):
        done = resume(moving.folder, *options)
        assert done.exit_code == 1
        said = "the labels of this run have changed; put them back or start a new run."
        assert said in done.stderr
        assert moving.config_path.read_bytes() == before
    path.write_text("\n".join([header, *rest[::-1], second, first]))
    done = resume(moving.folder)
    assert done.exit_code == 0, done.output
    assert moving.status()["state"] == "finished"


def test_a_run_of_an_older_version_does_not_know_its_labels_and_goes_on(moving):
    settings = json.loads(moving.config_path.read_text())
    assert len(settings.pop("labels_key")) == 64
    write_json(moving.config_path, settings)
    done = resume(moving.folder)
    assert done.exit_code == 0, done.output


def test_a_run_whose_labels_were_moved_goes_on_exactly_when_it_is_told_where_they_are(
    moving, tmp_path
):
    straight = Run(shutil.copytree(moving.folder, tmp_path / "straight"))
    list(train_run(straight, progress=False))
    faces, labels = (
        (tmp_path / name).rename(tmp_path / f"moved {name}") for name in ("faces", "labels.csv")
    )
    before = moving.config_path.read_bytes()
    for options, missing in (
        (("--more", 8), "pictures"),
        (("--labels", labels), "pictures"),
        (("--data", faces, "--more", 8), "labels"),
    ):
        done = resume(moving.folder, *options)
        assert done.exit_code == 1
        assert f"where the run's {missing} are now" in " ".join(done.stderr.split())
        assert moving.config_path.read_bytes() == before
    done = resume(moving.folder, "--data", faces, "--labels", labels)
    assert done.exit_code == 0, done.output
    assert moving.config()[1].labels_file == str(labels)
    weights = [run.model_folder / "model.safetensors" for run in (straight, moving)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_without_a_file_of_labels_takes_none_when_it_goes_on(pictures, labels, tmp_path):
    folder = tmp_path / "run"
    assert train("--data", pictures, "--images", 4, "--out", folder).exit_code == 0
    done = resume(folder, "--labels", labels)
    assert done.exit_code == 1
    assert "learns no labels of a file; leave --labels out" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--labels nowhere.csv", "nowhere.csv cannot be read"),
        ("--attributes size", "add --labels FILE.csv"),
        ("--widths narrow", "widths 'narrow' are no numbers"),
        ("--more-ema 0.999", "two averages with the same decay"),
    ],
)
def test_bad_labels_start_no_run(pictures, tmp_path, options, said):
    out = tmp_path / "run"
    done = train("--data", pictures, "--images", 8, "--out", out, *options.split())
    assert done.exit_code == 1
    assert said in done.stderr
    assert not out.exists()


def test_previews_draw_at_random_and_to_order(tiny):
    from stand_ins import randomised

    from diffusion import Schedule, UNetConfig

    network = randomised(UNetConfig(size=16, widths=(16, 32), labels=(11, 2)))
    names = {"skin": tuple(map(str, range(11))), "glasses": ("no", "yes")}
    rows = preview_labels(DiffusionModel(network, Schedule.cosine(), labels=names))
    assert rows.shape == (len(SEEDS), 2)
    assert (rows[:8] == -1).all()
    assert rows[8:, 0].tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert np.bincount(rows[8:, 1]).tolist() == [4, 4]
