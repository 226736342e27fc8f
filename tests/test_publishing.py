"""A run made into a model folder to share."""

from dataclasses import replace
from pathlib import Path

import pytest
import stand_ins
from PIL import Image
from typer.testing import CliRunner

from diffusion import DiffusionModel, publishing, results
from diffusion.card import command
from diffusion.cli import app
from diffusion.files import write_json
from diffusion.model import ModelError, weights_hash
from diffusion.publishing import Source, _progress, publish
from diffusion.reader import AttributeReader, ReaderNetwork
from diffusion.run_training import train_run
from diffusion.runs import Run, RunError
from diffusion.sources import licence_id
from diffusion.toons import source_of
from diffusion.train_config import TrainConfig, learned_from

SOURCE = Source("Dots", "Nobody", "CC0 1.0", "https://example.org/dots", "Drawn by a test.")


@pytest.fixture(autouse=True)
def sketched(monkeypatch):
    """What is told about the pictures matters here, not how they look."""
    few = replace(publishing.SAMPLE_RECIPE, steps=2)
    monkeypatch.setattr(publishing, "SAMPLE_RECIPE", few)


def test_a_run_becomes_a_model_with_sheets_and_card(tmp_path, pictures):
    run = Run(tmp_path / "run")
    run.create(str(pictures), TrainConfig(images=8, size=16, widths=(16,), batch=4, held_out=2))
    for _ in train_run(run, progress=False):
        pass
    folder = publish(run, tmp_path / "model", "Dots", SOURCE, "a test machine", "It was short.")

    model = DiffusionModel.from_pretrained(folder)
    assert model.shape == (3, 16, 16)
    assert Image.open(folder / "samples.png").size == (8 * 18 + 2,) * 2
    assert Image.open(folder / "loss.png").size[0] > 400
    assert Image.open(folder / "progress.png").size == (2 * (4 * 18 + 2), 4 * 18 + 2)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc0-1.0\n")
    assert "\ntags: [diffusion, ddpm, ddim]\n---\n\n# Dots\n\nA diffusion model" in card
    for part in ("[Dots](https://example.org/dots) by Nobody", "| images seen | 8 |",
                 "Drawn by a test.\n2 of them", "a test machine", "\nIt was short.\n"):  # fmt: skip
        assert part in card


@pytest.fixture
def own(tmp_path, pictures) -> Run:
    """A run on somebody's own pictures that began with weights learned from CC BY drawings."""
    run = Run(tmp_path / "run")
    melin = source_of("toon-head")
    run.create(
        str(pictures),
        TrainConfig(images=8, size=16, widths=(16,), batch=4, learned_before=(melin,)),
    )
    for _ in train_run(run, progress=False):
        pass
    return run


def card_of(run: Run, folder: Path, licence: str) -> str:
    """The card of pictures under a licence."""
    source = Source("My cats", "Me", licence, "https://example.org", "")
    return (publish(run, folder, "My cats", source, "here") / "README.md").read_text()


@pytest.mark.parametrize("licence", ["CC BY-NC 4.0", "CC BY-SA 4.0", "All rights reserved"])
def test_the_card_promises_nothing_that_a_licence_forbids(own, tmp_path, licence):
    card = card_of(own, tmp_path / "model", licence)
    assert card.startswith("---\nlicense: other\n")
    assert "same attribution" not in card
    assert "Ask the owners named above" in card


def test_the_card_of_ones_own_pictures_claims_nothing_that_nobody_looked_at(own, tmp_path):
    card = card_of(own, tmp_path / "model", "CC BY 4.0")
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "The weights may be used with the same attribution" in card
    assert "No distance was measured." in card
    for claimed in ("heads", "by eye", "test suite", "as their authors drew", "attention at"):
        assert claimed not in card.split("\n## Limits")[1]
    assert "attention at 8×8" in card  # 16 px, folded once


def test_attention_is_told_only_of_networks_that_have_it(tmp_path, pictures):
    run = Run(tmp_path / "run")
    run.create(str(pictures), TrainConfig(images=4, size=20, widths=(16, 16), batch=4))
    for _ in train_run(run, progress=False):
        pass
    assert "attention" not in card_of(run, tmp_path / "model", "CC0 1.0")


def test_the_cards_commands_say_where_they_run_and_where_the_model_is(own, tmp_path):
    asked = "python -m diffusion sample --model {} --steps 50"
    card = card_of(own, tmp_path / "model", "CC0 1.0")
    assert asked.format("MODEL") in card
    where = "Commands run in the folder of Cartoon Diffusion; MODEL stands for this model's folder."
    assert where in card
    shipped = card_of(own, tmp_path / "checkpoints" / "cats-16", "CC0 1.0")
    assert asked.format("checkpoints/cats-16") in shipped
    assert "Commands run in the folder of Cartoon Diffusion." in shipped
    written = (own.model_folder / "README.md").read_text()
    assert "In that project's\nfolder, this draws with it; MODEL stands for" in written
    assert "--model MODEL --steps 20" in written


def test_a_value_with_a_blank_is_quoted_in_the_command_of_the_card(tmp_path, pictures):
    labels = {"hair": ("dark brown", "red")}
    (tmp_path / "labels.csv").write_text("name,hair\nface00,red\nface01,dark brown\n")
    config = TrainConfig(
        images=4, size=16, widths=(16,), batch=4, labels=labels,
        labels_file=str(tmp_path / "labels.csv"),
    )  # fmt: skip
    run = Run(tmp_path / "run")
    run.create(str(pictures), config)
    for _ in train_run(run, progress=False):
        pass
    card = card_of(run, tmp_path / "model", "CC0 1.0")
    assert "--label 'hair=dark brown' --guidance 2" in card


def test_a_reader_of_another_size_is_not_published(own, tmp_path):
    AttributeReader(ReaderNetwork(2), {"hat": ("no", "yes")}, size=32).save(tmp_path)
    with pytest.raises(ModelError, match=r"reads pictures of 32 px, and these have 16 px"):
        publish(own, tmp_path / "model", "D", SOURCE, "here", reader=tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_drawn(own, tmp_path):
    (tmp_path / "file").touch()
    words = ["publish", "--run", own.folder, "--out", tmp_path / "file", "--title", "Dots"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 1
    assert "cannot write" in done.stderr


@pytest.mark.parametrize("name", ["run", "other", "old"])
def test_a_folder_that_is_a_run_is_left_alone(own, tmp_path, pictures, name):
    Run(tmp_path / "other").create(str(pictures), TrainConfig(images=8, size=16, widths=(16,)))
    old = Run(tmp_path / "old")
    write_json(old.config_path, {"written": "by another version"})
    old.metrics_path.touch()
    before = (tmp_path / name / "config.json").read_bytes()
    files = sorted(path.name for path in (tmp_path / name).iterdir())
    words = ["publish", "--run", own.folder, "--out", tmp_path / name, "--title", "Dots"]
    words += ["--data-name", "Dots", "--data-author", "Me", "--data-licence", "CC0 1.0"]
    done = CliRunner().invoke(app, [*map(str, words), "--data-url", "https://example.org"])
    assert done.exit_code == 1
    assert f"{tmp_path / name} is a run; choose another --out" in done.stderr
    assert (tmp_path / name / "config.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == files


def test_a_model_is_published_again_into_its_folder(own, tmp_path):
    first = card_of(own, tmp_path / "model", "CC0 1.0")
    assert card_of(own, tmp_path / "model", "CC0 1.0") == first


def test_a_card_says_whose_pictures_and_knows_the_built_in_ones(tmp_path, pictures):
    def published(run):
        words = ["publish", "--run", run.folder, "--out", tmp_path / "model", "--title", "Dots"]
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 1
        return done.stderr

    run = Run(tmp_path / "run")
    run.create(str(pictures), TrainConfig(images=8, size=16, widths=(16,)))
    assert "give --data-name, --data-author, --data-licence and --data-url" in published(run)
    drawn = Run(tmp_path / "drawn")
    drawn.create("toons", TrainConfig(images=8, labels={"style": ("dylan", "moods")}))
    assert "has no model yet" in published(drawn)
    source = source_of("toons")
    assert source.licence == "CC BY 4.0, CC0 1.0"
    assert licence_id([source]) == "cc-by-4.0"
    _, config = drawn.config()
    assert command(config, "toons").startswith(
        "python -m diffusion train --data toons --attributes style --images 8"
    )


def test_the_command_of_a_card_names_what_the_readers_own_would_choose_otherwise():
    config = TrainConfig(images=8, held_out=1000, precision="bfloat16", more_emas=(0.5, 0.9))
    more = "--more-ema 0.5 --more-ema 0.9"
    assert command(config, "toons").endswith(f"runs/NAME {more} --precision bfloat16")
    assert command(config).endswith(f"{more} --held-out 1000 --precision bfloat16")
    other = replace(config, held_out=0)
    assert command(other, "toons").endswith("--held-out 0 --precision bfloat16")


def test_previews_are_in_the_order_of_the_images_seen(tmp_path):
    run = Run(tmp_path)
    run.previews.folder.mkdir()
    for images in (0, 2_000_000, 10_000_000, 9_000_000):
        sheet = Image.new("RGB", (4, 4), (images // 40_000, 0, 0))
        sheet.save(run.previews.folder / f"{images:07d}.png")
    assert [int(path.stem) for path in run.previews.paths()] == [
        0,
        2_000_000,
        9_000_000,
        10_000_000,
    ]
    strip = _progress(run)
    assert strip.getpixel((strip.width - 1, 0)) == (250, 0, 0)


def test_a_model_that_can_be_asked_shows_it_and_its_measured_quality(tmp_path, pictures):
    labels = {"colour": ("blue", "red"), "spot": ("no", "yes")}
    (tmp_path / "labels.csv").write_text(
        "name,colour,spot\n" + "\n".join(f"face{i:02d},red,no\nx{i},blue,yes" for i in range(12))
    )
    config = TrainConfig(
        images=8, size=16, widths=(16,), batch=4, lr=1e-3, labels=labels,
        labels_file=str(tmp_path / "labels.csv"), held_out=4,
    )  # fmt: skip
    run = Run(tmp_path / "run")
    run.create(str(pictures), config)
    for _ in train_run(run, progress=False):
        pass
    accuracy = {"colour": 0.875, "spot": 1.0}
    AttributeReader(ReaderNetwork(4), labels, accuracy, held_out=4).save(tmp_path)
    measured = ["--model", run.model_folder, "--data", pictures, "--count", 4, "--steps", 2]
    measured += ["--features", "haar", "--out", tmp_path / "r.json"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, measured)])
    assert done.exit_code == 0, done.output

    folder = publish(
        run,
        tmp_path / "model",
        "Dots",
        SOURCE,
        "here",
        reader=tmp_path,
        results=tmp_path / "r.json",
    )
    assert AttributeReader.load(folder).accuracy == accuracy
    measured = results.read(folder / results.FILE)
    assert measured == results.read(tmp_path / "r.json")
    assert len(results.of_weights(measured, weights_hash(folder))) == 1
    assert Image.open(folder / "asked.png").size == (8 * 18 + 2, 4 * 18 + 2)
    card = (folder / "README.md").read_text()
    for part in (
        "| colour | blue, red |",
        "colour 87.5%, spot 100.0%",
        "--label colour=blue",
        "--attributes colour,spot --images 8",
        "--lr 0.001 --widths 16",
        "| real, unseen |",
    ):
        assert part in card
    assert "takes no wishes" not in card


def test_a_published_model_tells_whoever_begins_with_it_whom_to_name(tmp_path, pictures):
    melin = source_of("toon-head")
    run = Run(tmp_path / "run")
    config = TrainConfig(images=8, size=16, widths=(16,), batch=4, learned_before=(melin,))
    run.create(str(pictures), config)
    for _ in train_run(run, progress=False):
        pass
    folder = publish(run, tmp_path / "model", "Dots", SOURCE, "here")
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "had learned from [ToonHead](" in card
    assert '"trained on Dots, Nobody, CC0 1.0; ToonHead, Johan Melin, CC BY 4.0"' in card
    assert learned_from(DiffusionModel.from_pretrained(folder).training) == (melin, SOURCE)


def test_results_of_other_weights_are_refused_and_old_ones_go_away(tmp_path, pictures):
    config = TrainConfig(images=8, size=16, widths=(16,), batch=4)
    run = Run(tmp_path / "run")
    run.create(str(pictures), config)
    for _ in train_run(run, progress=False):
        pass
    (tmp_path / "model").mkdir()
    for path in (tmp_path / "old.json", tmp_path / "model" / results.FILE):
        write_json(path, stand_ins.results(stand_ins.measured("ddim", 10, 84.0)))
    with pytest.raises(RunError, match=r"old.json measured other weights; run `python -m diff"):
        publish(run, tmp_path / "model", "D", SOURCE, "here", results=tmp_path / "old.json")
    folder = publish(run, tmp_path / "model", "Dots", SOURCE, "here")
    assert not (folder / results.FILE).exists()


def test_a_run_without_a_model_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(RunError, match="has no model yet; let it train for a minute"):
        publish(Run(tmp_path), tmp_path / "model", "Nothing", SOURCE, "nowhere")
