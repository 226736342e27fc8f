from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import OnDisk, randomised
from typer.testing import CliRunner

from diffusion import DiffusionModel, Schedule, UNet, UNetConfig, compiled, results
from diffusion.cli import app
from diffusion.data import load_images
from diffusion.evaluation import Faces, Setting, Subject, drawn, evaluate_row, floor_row, grid
from diffusion.features import features, haar
from diffusion.labels import load_labels
from diffusion.model import ModelError
from diffusion.reader import AttributeReader, reader_beside
from diffusion.recipe import Recipe, draw

LABELS = {"colour": ("red", "blue"), "spot": ("no", "yes")}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Sixty small pictures with labels beside them."""
    folder = tmp_path_factory.mktemp("data") / "faces"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["name,colour,spot"]
    for i in range(60):
        colour, spot = rng.integers(2, size=2)
        pixels = np.full((16, 16, 3), [(220, 30, 30), (30, 30, 220)][colour], dtype=np.uint8)
        pixels = np.clip(pixels + rng.normal(0, 12, (16, 16, 3)), 0, 255).astype(np.uint8)
        if spot:
            pixels[4:9, 4:9] = 255
        Image.fromarray(pixels).save(folder / f"face{i}.png")
        rows.append(f"face{i},{colour},{spot}")
    (folder.parent / "labels.csv").write_text("\n".join(rows))
    (folder.parent / "labels.json").write_text(
        json.dumps({"colour": {"red": "dc1e1e", "blue": "1e1edc"}, "spot": ["no", "yes"]})
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A random model that takes labels; it never saw 20 of the pictures."""
    network = randomised(UNetConfig(size=16, widths=(16, 32), labels=(2, 2)))
    model = DiffusionModel(network, Schedule.cosine(100), labels=LABELS, training={"held_out": 20})
    return model.save_pretrained(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def reader(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    options = ["--data", data, "--labels", data.parent / "labels.csv", "--out", folder]
    done = CliRunner().invoke(
        app, ["reader", *map(str, options), "--size", "16", "--epochs", "2", "--held-out", "20"]
    )
    assert done.exit_code == 0, done.output
    assert "held-out images read right" in done.stdout
    return folder


@pytest.fixture
def faces(data) -> Faces:
    images = load_images(data, 16, progress=False)
    return Faces(images, 20, 8, ("haar",))


@pytest.fixture
def labelled(data) -> Faces:
    from dataclasses import replace

    images = load_images(data, 16, progress=False)
    images = replace(images, labels=load_labels(data.parent / "labels.csv", images.names))
    return Faces(images, 20, 8, ("haar",))


@pytest.fixture
def subject(model) -> Subject:
    return Subject("random", DiffusionModel.from_pretrained(model), "hash")


def command(model: Path, data: Path, *options: object):
    usual = ["--model", model, "--data", data, "--count", 8, "--steps", 2, "--features", "haar"]
    return CliRunner().invoke(app, ["evaluate", *map(str, [*usual, "--device", "cpu", *options])])


def test_reference_floor_and_held_out_pictures_never_meet(faces):
    _, held_out = faces.images.split(20)
    assert set(faces.unseen) <= set(held_out)
    assert not set(faces.reference) & set(held_out)
    assert (len(faces.reference), len(faces.unseen)) == (40, 8)


def test_a_row_measures_the_pictures_that_draw_makes(faces, subject):
    setting = Setting(Recipe("ddim", 3))
    row = evaluate_row(subject, setting, faces, seed=5)
    pixels = draw(subject.model, range(5, 13), Recipe("ddim", 3))
    assert row | faces.measure(pixels) == row
    assert (row["calls"], row["sampler"], row["eta"]) == (3, "ddim", 0.0)
    assert row["seconds"] > 0
    assert floor_row(faces)["distances"]["haar"]["frechet"] < row["distances"]["haar"]["frechet"]


def test_the_floor_is_measured_like_a_model_whose_pictures_are_real(faces):
    pixels = faces.images.pixels[faces.unseen]
    assert floor_row(faces) == faces.measure(pixels)
    reference = features(faces.images.pixels[faces.reference], haar)
    np.testing.assert_array_equal(faces.reference_features["haar"], reference)


def test_training_pictures_given_out_as_drawn_are_found_to_be_copies(faces):
    chosen, _ = faces.images.split(20)
    assert faces.measure(faces.images.pixels[chosen[:8]])["copies"] == 1


def test_a_measurement_goes_on_where_it_was_stopped(faces, subject, monkeypatch):
    from diffusion import evaluation

    monkeypatch.setattr(evaluation, "CHUNK", 3)
    setting = Setting(Recipe("ddim", 2))
    seen, real = [], evaluation.draw

    def interrupted(model, seeds, *rest, **more):
        if seeds.start == 106:
            raise KeyboardInterrupt
        seen.append(seeds)
        return real(model, seeds, *rest, **more)

    monkeypatch.setattr(evaluation, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drawn(subject, setting, faces, 100)
    monkeypatch.setattr(evaluation, "draw", lambda *a, **k: (seen.append(a[1]), real(*a, **k))[1])
    pixels, _ = drawn(subject, setting, faces, 100)
    assert seen == [range(100, 103), range(103, 106), range(106, 108)]
    expected = draw(subject.model, range(100, 108), setting.recipe).astype(int)
    assert abs(pixels - expected).max() <= 2


def test_training_pictures_may_be_more_than_fit_into_memory(faces, monkeypatch):
    from diffusion import distances

    monkeypatch.setattr(distances, "READ", 16)
    chosen, _ = faces.images.split(20)
    pixels = faces.images.pixels[[*chosen[:4], *faces.unseen[:4]]]
    expected = faces.measure(pixels)  # and the features of the reference are in the cache
    mapped = replace(faces.images, pixels=OnDisk(faces.images.pixels, most=16))
    assert Faces(mapped, 20, 8, ("haar",)).measure(pixels) == expected
    assert expected["copies"] >= 0.5


def test_other_settings_weights_wishes_or_backend_are_other_rows(labelled, subject):
    faces = labelled
    keys = {
        subject.row_key(setting, faces, seed)
        for setting in (Setting(Recipe("ddim", 2)), Setting(Recipe("ddim", 2), 2.0))
        for seed in (0, 1)
    }
    keys.add(Subject("random", subject.model, "other").row_key(Setting(), faces, 0))
    keys.add(subject.row_key(Setting(), faces, 0))
    fewer = Faces(faces.images, 20, 6, ("haar",))
    keys.add(subject.row_key(Setting(Recipe("ddim", 2), 2.0), fewer, 0))
    other = replace(subject.model, backend="bfloat16")
    keys.add(Subject("random", other, subject.weights).row_key(Setting(), faces, 0))
    assert len(keys) == 8
    for changed in ({"schedule": Schedule.linear(100)}, {"prediction": "eps"}):
        other = Subject("random", replace(subject.model, **changed), subject.weights)
        keys.add(other.row_key(Setting(), faces, 0))
        assert other.pictures_key(Setting(), faces, 0) != subject.pictures_key(Setting(), faces, 0)
    twin = replace(subject, name="twin")
    keys.add(twin.row_key(Setting(), faces, 0))
    assert twin.pictures_key(Setting(), faces, 0) == subject.pictures_key(Setting(), faces, 0)
    assert len(keys) == 11


def test_guided_pictures_ask_for_what_the_unseen_ones_show(labelled, subject):
    setting = Setting(Recipe("ddim", 2), guidance=2.0)
    pixels, _ = drawn(subject, setting, labelled, 0)
    asked = labelled.images.labels.values[labelled.unseen]
    expected = draw(subject.model, range(8), setting.recipe, labels=asked, guidance=2.0)
    assert abs(pixels - expected.astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"colour": ("blue", "red")}, "the values of colour are red, blue in the pictures' labels"),
        ({"tail": ("no", "yes")}, "there is no attribute tail; choose from colour, spot"),
    ],
)
def test_wishes_that_mean_something_else_in_the_pictures_are_refused(labelled, asked, said):
    with pytest.raises(ValueError, match=said):
        labelled.labels(asked)


def test_attributes_may_stand_in_another_order(labelled):
    columns = labelled.labels({name: LABELS[name] for name in ("spot", "colour")})
    np.testing.assert_array_equal(columns[:, ::-1], labelled.labels(LABELS))


@pytest.mark.parametrize(
    ("setting", "calls"),
    [
        (Setting(Recipe("ddim", 10)), 10),
        (Setting(Recipe("ddim", 10), 1.0), 10),
        (Setting(Recipe("ddim", 10), 2.0), 20),
        (Setting(Recipe("ddim", 10), 2.0, interval=(0.25, 0.65)), 14),  # 0.6, 0.5, 0.4, 0.3
        (Setting(Recipe("ddpm", 10), 2.0, rederive=False), 20),
    ],
)
def test_calls_are_the_rows_that_the_network_computes(subject, setting, calls):
    rows = []
    network = subject.model.network
    network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    asked = np.zeros((1, 2), dtype=np.int64)
    draw(
        subject.model,
        [0],
        setting.recipe,
        labels=asked,
        guidance=setting.guidance,
        interval=setting.interval,
        rederive=setting.rederive,
    )
    assert setting.calls(subject.model.schedule) == sum(rows) == calls


def test_the_grid_leaves_out_what_means_nothing():
    settings = grid(["ddpm", "ddim", "dpmpp_2m"], [10, 20], [0, 1], ["small", "large"], [0, 2])
    assert len(settings) == len(set(settings)) == 2 * 2 * (2 + 2 + 1)
    assert {s.recipe.eta for s in settings if s.recipe.sampler == "ddpm"} == {0.0}


def test_the_floor_needs_as_many_unseen_pictures_as_are_drawn(faces):
    with pytest.raises(ValueError, match=r"choose a smaller --count"):
        Faces(faces.images, 20, 21, ("haar",))
    with pytest.raises(ValueError, match="4 or more"):
        Faces(faces.images, 20, 3, ("haar",))
    with pytest.raises(ValueError, match=r"kept no pictures back, .* train one with --held-out 4"):
        Faces(faces.images, 0, 8, ("haar",))
    with pytest.raises(ValueError, match="no extractor vgg here"):
        _ = Faces(faces.images, 20, 8, ("vgg",)).extractors


def test_pictures_that_were_trained_on_are_not_unseen_in_a_part_of_the_folder(
    model, data, faces, tmp_path
):
    trained = DiffusionModel.from_pretrained(model)
    notes = dict(trained.training) | {"held_out_mark": faces.images.mark(20)}
    folder = replace(trained, training=notes).save_pretrained(tmp_path / "model")
    part = tmp_path / "part"
    part.mkdir()
    for path in sorted(data.iterdir())[::2]:
        shutil.copyfile(path, part / path.name)
    _, unseen = faces.images.split(20)
    left = {faces.images.names[i] for i in unseen} & {path.stem for path in part.iterdir()}
    assert 4 <= len(left) < 20
    done = command(folder, part, "--out", tmp_path / "a.json", "--count", len(left) + 1)
    assert f"there are {len(left)}, so choose a smaller --count" in done.stderr
    again = Faces(load_images(part, 16, progress=False), len(left), len(left), ("haar",))
    assert {again.images.names[i] for i in again.unseen} == left


def test_distances_may_be_to_all_pictures_that_were_never_trained_on(model, data, faces, tmp_path):
    _, held_out = faces.images.split(20)
    against = replace(faces, against="unseen")
    assert set(against.reference) == set(held_out)
    assert not set(against.floor) & set(held_out)
    assert len(against.floor) == faces.count
    out = tmp_path / "unseen.json"
    done = command(model, data, "--out", out, "--against", "unseen")
    assert done.exit_code == 0, done.output
    results = json.loads(out.read_text())
    assert (results["reference"], results["against"]) == (20, "unseen")
    assert "copies" not in results["floor"]
    (row,) = results["rows"].values()
    assert row["copies"] == 0
    page = (tmp_path / "unseen.md").read_text()
    assert "reference 20 pictures of faces that were never trained on; floor: 8 training" in page
    assert "| real, trained on |" in page
    refused = command(model, data, "--out", out)
    assert "against unseen pictures, not training ones; choose another --out" in refused.stderr
    refused = command(model, data, "--out", tmp_path / "b.json", "--against", "all")
    assert "--against is all; choose training or unseen" in refused.stderr


def test_what_is_measured_is_computed_with_all_threads_again(faces, monkeypatch):
    monkeypatch.setattr(compiled, "THREADS", 2)
    compiled.compute_without_torch()
    assert torch.get_num_threads() == 1
    floor_row(replace(faces, names=()))
    assert torch.get_num_threads() == 2


def test_the_command_writes_json_table_and_plot_and_adds_rows(model, data, tmp_path):
    out = tmp_path / "results.json"
    done = command(model, data, "--out", out, "--samplers", "ddim,ddpm", "--eta", "0,1")
    assert done.exit_code == 0, done.output
    first = json.loads(out.read_text())
    assert len(first["rows"]) == 3
    assert (first["count"], first["reference"], first["held_out"]) == (8, 40, 20)
    assert (tmp_path / "results.png").stat().st_size > 5000
    table = (tmp_path / "results.md").read_text()
    for said in ("8 pictures per row", "haar features", "real, unseen", "DDIM η 1", "DDPM small"):
        assert said in table
    done = command(model, data, "--out", out, "--samplers", "dpmpp_2m")
    assert done.exit_code == 0, done.output
    second = json.loads(out.read_text())
    assert len(second["rows"]) == 4
    assert {key: second["rows"][key] for key in first["rows"]} == first["rows"]


def test_what_was_asked_and_what_was_got_stand_side_by_side(model, data, reader, tmp_path):
    out = tmp_path / "results.json"
    labels = data.parent / "labels.csv"
    more = ("--labels", labels, "--reader", reader, "--guidance", "0,2")
    done = command(model, data, "--out", out, *more)
    assert done.exit_code == 0, done.output
    results = json.loads(out.read_text())
    at_random, guided = results["rows"].values()
    assert at_random["fidelity"].keys() == guided["fidelity"].keys() == {"colour", "spot"}
    assert guided["palette"].keys() == {"colour"}
    assert results["floor"]["palette"] == {"colour": 1.0}
    assert results["chance"]["colour"] > 0.4
    table = (tmp_path / "results.md").read_text()
    assert "By chance: colour" in table
    assert "At w = 0 nothing is asked" in table


def test_the_guidance_table_has_every_strength_in_three_ways(model, data, reader, tmp_path):
    out = tmp_path / "guidance.json"
    options = {
        "--model": model,
        "--data": data,
        "--labels": data.parent / "labels.csv",
        "--reader": reader,
        "--count": 4,
        "--features": "haar",
        "--ddpm-steps": 3,
        "--ddim-steps": 2,
        "--out": out,
    }
    words = [str(word) for option in options.items() for word in option]
    done = CliRunner().invoke(app, ["guidance", *words])
    assert done.exit_code == 0, done.output
    rows = list(json.loads(out.read_text())["rows"].values())
    for sampler in ("ddim", "ddpm"):
        mine = [row for row in rows if row["sampler"] == sampler]
        assert {row["guidance"] for row in mine} == {0, 1, 2, 3, 5}
        assert sum(not row["rederive"] for row in mine) == 3
        assert sum(row["interval"] != [0, 1] for row in mine) == 3
    table = out.with_suffix(".md").read_text()
    assert "raw eps" in table
    assert "t/T" in table


def test_as_many_threads_compute_as_are_asked_for(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "THREADS", compiled.THREADS)
    wanted, used = compiled.THREADS + 1, []
    plain = UNet.body
    monkeypatch.setattr(
        UNet, "body", lambda *args: (used.append(torch.get_num_threads()), plain(*args))[1]
    )
    options = ("--seed", 7000, "--threads", wanted)  # a seed that no other test has drawn
    done = command(model, data, "--out", tmp_path / "a.json", *options)
    assert done.exit_code == 0, done.output
    assert set(used) == {wanted}


def test_several_models_stand_in_one_table(model, data, tmp_path):
    other = DiffusionModel.from_pretrained(model)
    with torch.no_grad():
        other.network.stem.weight.mul_(0.5)
    second = other.save_pretrained(tmp_path / "second")
    out = tmp_path / "two.json"
    done = command(model, data, "--model", second, "--out", out)
    assert done.exit_code == 0, done.output
    results = json.loads(out.read_text())
    assert results["models"].keys() == {str(model), str(second)}
    assert f"| {second} |" in out.with_suffix(".md").read_text()


def with_schedule(model: Path, folder: Path, schedule: Schedule) -> Path:
    """A model folder with the same weights and another schedule."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["schedule"] = schedule.to_json()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_models_of_equal_weights_have_a_row_each(model, data, tmp_path):
    linear = with_schedule(model, tmp_path / "linear", Schedule.linear(100))
    twin = with_schedule(model, tmp_path / "twin", Schedule.cosine(100))
    out = tmp_path / "three.json"
    done = command(model, data, "--model", linear, "--model", twin, "--out", out)
    assert done.exit_code == 0, done.output
    rows = {row["model"]: row for row in json.loads(out.read_text())["rows"].values()}
    assert rows.keys() == {str(model), str(linear), str(twin)}
    assert rows[str(twin)]["distances"] == rows[str(model)]["distances"]
    assert rows[str(linear)]["distances"] != rows[str(model)]["distances"]


def test_a_model_that_changed_its_schedule_is_not_mixed_with_what_it_was(model, data, tmp_path):
    folder, out = tmp_path / "model", tmp_path / "a.json"
    with_schedule(model, folder, Schedule.cosine(100))
    assert command(folder, data, "--out", out).exit_code == 0
    before = out.read_text()
    with_schedule(model, folder, Schedule.linear(100))
    done = command(folder, data, "--out", out)
    assert done.exit_code == 1
    assert f"has rows of {folder} with another schedule; choose another --out" in done.stderr
    assert out.read_text() == before


def test_rows_of_an_older_file_are_known_by_their_older_keys(model, data, faces, tmp_path):
    out = tmp_path / "results.json"
    assert command(model, data, "--out", out).exit_code == 0
    value = json.loads(out.read_text())
    (row,) = value["rows"].values()
    subject = Subject.load(str(model), torch.device("cpu"), "float32")
    old = subject.old_row_key(Setting(Recipe("ddim", 2)), faces, 0)
    value["rows"] = {old: row | {"seconds": 77.0}}
    out.write_text(json.dumps(value))
    done = command(model, data, "--out", out, "--eta", "0,1")
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text())["rows"]
    assert rows[old]["seconds"] == 77.0
    assert sorted(row["eta"] for row in rows.values()) == [0, 1]


def test_the_keys_of_the_results_that_come_with_the_project_are_still_known():
    value = results.read(Path(__file__).parents[1] / "docs" / "results.json")
    (about,) = value["models"].values()
    model = SimpleNamespace(backend=value["machine"].split(", ")[1])
    subject = Subject("checkpoints/cartoonset-64", model, about["weights"])
    key = subject.old_row_key(Setting(Recipe("ddim", 50)), None, value["seed"])
    assert value["rows"][key]["calls"] == 50


def test_a_reader_that_came_later_is_added_by_the_first_rows_that_ask(
    model, data, reader, tmp_path
):
    folder, out = with_schedule(model, tmp_path / "m", Schedule.cosine(100)), tmp_path / "r.json"
    assert command(folder, data, "--out", out).exit_code == 0
    floor = json.loads(out.read_text())["floor"]
    AttributeReader.load(reader).save(folder)
    done = command(folder, data, "--out", out, "--samplers", "ddpm")
    assert done.exit_code == 0, done.output
    assert "reader" not in json.loads(out.read_text())
    asking = ("--out", out, "--labels", data.parent / "labels.csv", "--guidance", 2)
    done = command(folder, data, *asking)
    assert done.exit_code == 0, done.output
    value = json.loads(out.read_text())
    assert len(value["rows"]) == 3
    assert value["reader"]["held_out"] == 20
    assert value["chance"]["colour"] > 0.4
    assert value["floor"] == floor | {
        "fidelity": value["floor"]["fidelity"],
        "palette": {"colour": 1.0},
    }

    replace(AttributeReader.load(reader), accuracy={"colour": 0.5}).save(folder)
    done = command(folder, data, *asking, "--samplers", "ddpm")
    assert done.exit_code == 1
    assert "was measured with another reader of attributes; choose another --out" in done.stderr
    assert "{" not in done.stderr
    done = command(folder, data, "--out", out, "--samplers", "dpmpp_2m")
    assert done.exit_code == 0, done.output
    assert len(json.loads(out.read_text())["rows"]) == 4


def test_labels_that_came_later_are_added_to_a_file_with_a_reader(model, data, reader, tmp_path):
    out, labels = tmp_path / "r.json", data.parent / "labels.csv"
    given = ("--out", out, "--reader", reader)
    assert command(model, data, *given).exit_code == 0
    done = command(model, data, *given, "--labels", labels, "--guidance", 1)
    assert done.exit_code == 0, done.output
    value = json.loads(out.read_text())
    assert {"reader", "chance"} < value.keys()
    assert "fidelity" in value["floor"]


def test_pictures_drawn_in_other_circumstances_tell_no_seconds(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "THREADS", compiled.THREADS)

    def row(name: str, *options: object) -> dict:
        out = tmp_path / name
        done = command(model, data, "--out", out, "--seed", 9000, *options)
        assert done.exit_code == 0, done.output
        (row,) = json.loads(out.read_text())["rows"].values()
        return row

    first = row("a.json", "--threads", 1)
    other = row("b.json", "--threads", 2)
    assert first.keys() - other.keys() == {"seconds"}
    assert "seconds" not in row("c.json", "--threads", 1, "--batch", 3)
    assert row("d.json", "--threads", 1)["seconds"] == first["seconds"]
    monkeypatch.setattr(torch, "__version__", "9.0.0")
    assert "seconds" not in row("e.json", "--threads", 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--batch -1", "a batch of -1 pictures; choose a --batch of 1 or more"),
        ("--batch 0", "a batch of 0 pictures; choose a --batch of 1 or more"),
        ("--seed -1", "seed -1 cannot be used; choose a whole number from 0 to"),
        (f"--seed {2**63 - 3}", f"seed {2**63 + 4} cannot be used"),
        ("--threads 0", "0 threads compute nothing; choose --threads 1 or more"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused_before_anything_is_loaded(
    data, tmp_path, options, said
):
    done = command("nowhere", data, "--out", tmp_path / "a.json", *options.split())
    assert done.exit_code == 1
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--out a.txt", "end --out in .json"),
        ("--out a.json --steps 101", "101 steps asked of a 100-step schedule"),
        ("--out a.json --steps few", "--steps 'few' are no numbers"),
        ("--out a.json --guidance 2", "add --labels"),
        ("--out a.json --guidance 99", "guidance 99; choose 0 to 20"),
        ("--out a.json --backend int8", "unknown backend 'int8'"),
        ("--out a.json --features vgg", "no extractor vgg here"),
        ("--out a.json --count 21", "choose a smaller --count"),
        ("--out a.json --reader .", "no reader.safetensors in ."),
        ("--out other.json", "holds no results of this version"),
    ],
)
def test_bad_input_is_one_sentence(model, data, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text("{}")
    done = command(model, data, *options.split())
    assert done.exit_code == 1
    assert said in done.stderr
    assert sum(line.endswith(".") for line in done.stderr.splitlines()) == 1
    assert not Path("a.json").exists()


def test_rows_of_weights_that_went_on_learning_are_not_mixed_with_older_ones(model, data, tmp_path):
    learning, out = DiffusionModel.from_pretrained(model), tmp_path / "results.json"
    folder = learning.save_pretrained(tmp_path / "model")
    assert command(folder, data, "--out", out).exit_code == 0
    before = out.read_text()
    with torch.no_grad():
        learning.network.stem.weight.mul_(0.5)
    learning.save_pretrained(folder)
    done = command(folder, data, "--out", out)
    assert done.exit_code == 1
    assert f"has rows of other weights of {folder}; choose another --out" in done.stderr
    assert out.read_text() == before


def test_a_reader_that_learned_from_pictures_of_the_floor_is_refused(model, data, tmp_path):
    labels = ["--labels", data.parent / "labels.csv"]
    read = ["--data", data, *labels, "--out", tmp_path, "--size", 16, "--epochs", 1]
    done = CliRunner().invoke(app, ["reader", *map(str, read), "--held-out", "19"])
    assert done.exit_code == 0, done.output
    more = ["--out", tmp_path / "a.json", *labels, "--reader", tmp_path]
    done = command(model, data, *more)
    assert done.exit_code == 1
    assert "kept 19 pictures back and the model 20" in done.stderr
    assert "train the reader again with --held-out 20" in done.stderr


def test_a_reader_keeps_back_what_its_model_kept_back(model, data, tmp_path):
    folder = DiffusionModel.from_pretrained(model).save_pretrained(tmp_path / "model")
    words = ["--data", data, "--labels", data.parent / "labels.csv", "--out"]
    more = ["--size", 16, "--epochs", 1]
    for out, kept in ((folder, 20), (tmp_path / "alone", 6)):
        done = CliRunner().invoke(app, ["reader", *map(str, [*words, out, *more])])
        assert done.exit_code == 0, done.output
        assert AttributeReader.load(out).held_out == kept


def test_a_reader_learns_from_pictures_of_the_size_that_its_model_draws(model, data, tmp_path):
    folder = DiffusionModel.from_pretrained(model).save_pretrained(tmp_path / "model")
    words = ["--data", data, "--labels", data.parent / "labels.csv", "--epochs", 1, "--out", folder]
    done = CliRunner().invoke(app, ["reader", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert AttributeReader.load(folder).size == 16
    assert "60 pictures. 60 have labels." in done.stdout
    done = CliRunner().invoke(app, ["reader", *map(str, words), "--size", "32"])
    assert done.exit_code == 1
    assert "draws 16 px, not 32; leave --size out" in done.stderr


def test_a_reader_of_another_size_is_refused_beside_a_model(model, data, reader, tmp_path):
    folder = DiffusionModel.from_pretrained(model).save_pretrained(tmp_path / "model")
    replace(AttributeReader.load(reader), size=32).save(folder)
    with pytest.raises(ModelError, match=r"pictures of 32 px, and these have 16 px; train one"):
        reader_beside(folder)
    more = ["--labels", data.parent / "labels.csv", "--reader", folder]
    done = command(model, data, "--out", tmp_path / "a.json", *more)
    assert done.exit_code == 1
    assert "python -m diffusion reader --size 16" in done.stderr
    replace(AttributeReader.load(reader), size=None).save(folder)  # as older ones are
    assert reader_beside(folder).size is None


@pytest.mark.parametrize("name", ["reader", "evaluate"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    model, data, tmp_path, monkeypatch, name
):
    monkeypatch.setattr("diffusion.data.load_images", lambda *a, **k: pytest.fail("work begun"))
    (tmp_path / "file").touch()
    words = ["--data", data, "--out", tmp_path / "file"]
    if name == "evaluate":
        words = ["--model", model, "--data", data, "--out", tmp_path / "file" / "results.json"]
    done = CliRunner().invoke(app, [name, *map(str, words)])
    assert done.exit_code == 1
    assert f"cannot write {tmp_path / 'file'} (" in done.stderr
    assert "choose another place" in done.stderr


def test_without_matplotlib_nothing_is_measured(model, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = command(model, data, "--out", tmp_path / "a.json")
    assert done.exit_code == 1
    assert "pip install matplotlib first" in done.stderr
    assert not (tmp_path / "a.json").exists()


def test_a_model_of_the_hub_is_measured_by_its_name(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion.model._download", lambda name: model)
    monkeypatch.chdir(tmp_path)
    done = command("user/name", data, "--out", "a.json")
    assert done.exit_code == 0, done.output
    about = json.loads(Path("a.json").read_text())["models"]["user/name"]
    assert about["weights"] == DiffusionModel.from_pretrained(model).version


def test_results_measured_otherwise_are_not_mixed(model, data, tmp_path):
    out = tmp_path / "results.json"
    assert command(model, data, "--out", out).exit_code == 0
    before = out.read_text()
    done = command(model, data, "--out", out, "--count", 9)
    assert done.exit_code == 1
    assert "was measured with count 8, not 9; choose another --out" in done.stderr
    assert out.read_text() == before


def test_a_file_measured_against_the_first_pictures_is_not_mixed_with_a_random_part(
    model, data, tmp_path
):
    out = tmp_path / "results.json"
    assert command(model, data, "--out", out).exit_code == 0
    measured = json.loads(out.read_text())
    del measured["precision_recall"]  # as before there was any
    out.write_text(json.dumps(measured))
    done = command(model, data, "--out", out, "--samplers", "ddpm")
    assert done.exit_code == 1
    assert "random part of the reference; choose another --out" in done.stderr
