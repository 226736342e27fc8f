from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from stand_ins import randomised
from typer.testing import CliRunner

from diffusion import DiffusionModel, Schedule, UNetConfig
from diffusion.cli import app
from diffusion.cli.sample import MAX_FRAMES, Film
from diffusion.model import weights_hash
from diffusion.pictures import read_settings, sheet
from diffusion.recipe import Recipe, draw

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory) -> Path:
    """A folder with a small random model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return DiffusionModel(randomised(tiny), Schedule.cosine()).save_pretrained(folder)


@pytest.fixture
def run(model):
    """Run the command in this process; later options win over earlier ones."""

    def run(*options: object):
        # Bit for bit, pictures are the same only within one backend.
        usual = ["--model", model, "--steps", 3, "--count", 5, "--backend", "float32"]
        return CliRunner().invoke(app, ["sample", *map(str, [*usual, *options])])

    return run


def pixels(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["arr_0"]


def expected(model: Path, recipe: Recipe, seeds: range) -> np.ndarray:
    return draw(DiffusionModel.from_pretrained(model), seeds, recipe)


def test_the_documented_command_writes_an_npz_in_seed_order(model, tmp_path):
    out = tmp_path / "a.npz"
    options = f"--sampler ddim --steps 4 --eta 0 --count 3 --seed 7 --model {model} --out {out}"
    command = [sys.executable, "-m", "diffusion", "sample", *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Drawing: 100%" in done.stderr
    assert pixels(out).dtype == np.uint8
    assert pixels(out).shape == (3, 16, 16, 3)
    difference = pixels(out).astype(int) - expected(model, Recipe(steps=4), range(7, 10))
    assert abs(difference).max() <= 2


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
def test_the_batch_does_not_change_the_pictures(run, tmp_path, sampler):
    for batch in (1, 2, 5):
        options = ["--sampler", sampler, "--batch", batch, "--out", tmp_path / f"{batch}.npz"]
        assert run(*options).exit_code == 0
    together = pixels(tmp_path / "5.npz").astype(int)
    for batch in (1, 2):
        assert abs(pixels(tmp_path / f"{batch}.npz") - together).max() <= 2


def test_picture_i_is_the_picture_of_seed_plus_i(run, tmp_path):
    run("--seed", 10, "--out", tmp_path / "many.npz")
    run("--seed", 13, "--count", 1, "--out", tmp_path / "one.npz")
    alone = pixels(tmp_path / "one.npz")[0].astype(int)
    assert abs(pixels(tmp_path / "many.npz")[3] - alone).max() <= 2


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ("--sampler ddpm --variance large", Recipe("ddpm", 3, variance="large")),
        ("--eta 0.5 --spacing quadratic", Recipe("ddim", 3, 0.5, spacing="quadratic")),
        ("--no-clip", Recipe("ddim", 3, clip=False)),
    ],
)
def test_every_setting_reaches_the_sampler(run, model, tmp_path, options, recipe):
    assert run(*options.split(), "--out", tmp_path / "a.npz").exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "a.npz"), expected(model, recipe, range(5)))


def test_a_png_is_one_grid_with_its_settings(run, model, tmp_path):
    assert run("--seed", 2, "--out", tmp_path / "a.PNG").exit_code == 0
    grid = sheet(expected(model, Recipe(steps=3), range(2, 7)))
    with Image.open(tmp_path / "a.PNG") as picture:
        assert picture.size == grid.size == (3 * 18 + 2, 2 * 18 + 2)
        assert picture.tobytes() == grid.tobytes()
    settings = read_settings(tmp_path / "a.PNG")
    assert (settings["seed"], settings["count"]) == (2, 5)


def test_a_folder_gets_pngs_whose_settings_draw_them_again(run, model, tmp_path):
    assert run("--sampler", "ddpm", "--seed", 9, "--out", tmp_path / "new" / "out").exit_code == 0
    files = sorted((tmp_path / "new" / "out").iterdir())
    assert [file.name for file in files] == [f"{seed:06d}.png" for seed in range(9, 14)]
    settings = read_settings(files[2])
    assert settings["weights"] == weights_hash(settings["model"])
    again = expected(
        settings["model"],
        Recipe(**settings["recipe"]),
        range(settings["seed"], settings["seed"] + 1),
    )
    with Image.open(files[2]) as picture:
        assert abs(np.asarray(picture).astype(int) - again[0]).max() <= 2


@pytest.mark.parametrize("name", ["faces-0.5", "there.tiff"])
def test_a_folder_may_have_a_dot_in_its_name(run, tmp_path, name):
    (tmp_path / "there.tiff").mkdir()
    assert run("--count", 1, "--out", tmp_path / name).exit_code == 0
    assert [file.name for file in (tmp_path / name).iterdir()] == ["000000.png"]


@pytest.mark.parametrize(("value", "red"), [("1", False), ("", True)])
def test_errors_are_red_unless_the_terminals_owner_wants_no_colours(value, red):
    words, environment = ["sample", "--out", "a.gif"], {"NO_COLOR": value}
    done = CliRunner().invoke(app, words, color=True, env=environment)
    assert done.exit_code == 1
    assert done.stderr.startswith("\x1b[31m") == red


def test_a_gif_shows_the_noise_and_every_step(run, tmp_path):
    options = ["--out", tmp_path / "a.png", "--frames", tmp_path / "film" / "a.gif"]
    assert run(*options, "--batch", 2).exit_code == 0
    with Image.open(tmp_path / "film" / "a.gif") as gif:
        assert (gif.n_frames, gif.size) == (3 + 1, (56, 38))


def test_an_mp4_shows_at_most_250_moments_and_ends_with_the_pictures(run, tmp_path):
    options = ["--count", 1, "--steps", 300, "--out", tmp_path / "a.png"]
    assert run(*options, "--frames", tmp_path / "a.mp4").exit_code == 0
    with av.open(str(tmp_path / "a.mp4")) as film:
        shown = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
    assert len(shown) == 250 + 25
    with Image.open(tmp_path / "a.png") as picture:
        final = np.asarray(picture.convert("L"))
    likeness = [np.corrcoef(frame.ravel(), final.ravel())[0, 1] for frame in (shown[0], shown[-1])]
    assert likeness[0] < 0.98 < likeness[1], likeness


@pytest.mark.parametrize("steps", [1, 2, 248, 249, 250, 251, 999, 1000])
def test_a_film_keeps_evenly_spread_moments_with_both_ends(steps):
    moments = sorted(Film(steps, 1, (3, 16, 16))._slots)
    assert len(moments) == min(steps + 1, MAX_FRAMES)
    assert (moments[0], moments[-1]) == (0, steps)
    gaps = np.diff(moments)
    assert gaps.max() - gaps.min() <= 1


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    network = randomised(UNetConfig(size=16, widths=(16, 32), labels=(2, 3)))
    labels = {"glasses": ("no", "yes"), "hair": ("black", "red", "bald")}
    model = DiffusionModel(network, Schedule.cosine(), labels=labels)
    return model.save_pretrained(tmp_path_factory.mktemp("models") / "labelled")


def test_what_is_asked_for_decides_the_pictures_and_is_noted_in_them(run, labelled, tmp_path):
    options = ["--model", labelled, "--count", 2, "--guidance", 2]
    wishes = ["--label", "hair=red", "--label", "glasses=yes"]
    assert run(*options, *wishes, "--out", tmp_path / "a.npz").exit_code == 0
    assert run(*options, *wishes, "--out", tmp_path / "a.png").exit_code == 0
    expected = draw(
        DiffusionModel.from_pretrained(labelled),
        range(2),
        Recipe("ddim", 3),
        labels=(1, 1),
        guidance=2.0,
    )
    assert abs(pixels(tmp_path / "a.npz").astype(int) - expected).max() <= 2
    settings = read_settings(tmp_path / "a.png")
    assert (settings["labels"], settings["guidance"]) == (["hair=red", "glasses=yes"], 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--label hair", "'hair' is no label; write attribute=value"),
        ("--label hair=green", "hair cannot be 'green'; choose any, black, red, bald"),
        ("--label tail=long", "it has glasses, hair"),
        ("--guidance -1", "guidance -1; choose 0 to 20"),
        ("--guidance nan", "guidance nan; choose 0 to 20"),
    ],
)
def test_a_wish_that_the_model_does_not_know_is_one_sentence(
    run, labelled, tmp_path, options, message
):
    done = run("--model", labelled, "--out", tmp_path / "a.npz", *options.split())
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--steps 0", "0 steps asked for; choose"),
        ("--steps 1001", "1001 steps asked of a 1000-step schedule; choose 1 to 1000"),
        ("--steps many", "--steps"),
        ("--eta 2", "eta 2 is outside 0 to 1"),
        ("--eta nan", "eta nan is outside 0 to 1"),
        ("--seed abc", "--seed"),
        ("--seed -1", "seed -1 cannot be used; choose"),
        ("--seed 9223372036854775807", "cannot be used; choose"),
        ("--count 0", "0 pictures asked for; choose"),
        ("--count 1000000000000", "pictures asked for; choose"),
        ("--batch 0", "a batch of 0 pictures; choose"),
        ("--sampler euler", "unknown sampler 'euler'; choose"),
        ("--variance huge", "unknown variance 'huge'; choose"),
        ("--spacing odd", "unknown spacing 'odd'; choose"),
        ("--device tpu", "unknown device 'tpu'; choose"),
        ("--model nowhere", "no model in nowhere; give"),
        ("--out a.jpg", "--out cannot be a .jpg file; choose"),
        ("--out a.gif", "--out cannot be a .gif file; choose"),
        ("--out a.tiff", "--out cannot be a .tiff file; choose"),
        ("--out a.webm", "--out cannot be a .webm file; choose"),
        ("--out file", "file is a file; choose"),
        ("--out folder.png", "folder.png is a folder; give"),
        ("--out file/a.npz", "cannot write file"),
        ("--out /proc/nowhere/a.npz", "cannot write /proc/nowhere"),
        ("--frames a.webm", "a.webm is not an animation's name; end"),
        ("--frames file/a.gif", "cannot write file"),
        ("--frames a.gif --count 20000 --steps 999", "ask for at most"),
        ("--nonsense", "no such option: --nonsense"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder.png").mkdir()
    done = run("--out", "out.npz", *options.split())
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(".\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_missing_out_is_named():
    done = CliRunner().invoke(app, ["sample"])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("missing option '--out'; see python -m diffusion sample --help")


def test_a_model_that_does_not_draw_rgb_is_refused(tmp_path):
    grey = randomised(UNetConfig(size=16, channels=1, widths=(16, 32)))
    folder = DiffusionModel(grey, Schedule.cosine()).save_pretrained(tmp_path / "grey")
    out = tmp_path / "a.npz"
    done = CliRunner().invoke(app, ["sample", "--model", str(folder), "--out", str(out)])
    assert (done.exit_code, out.exists()) == (1, False)
    assert done.stderr == "the model draws 1 channels, not RGB; draw it from Python.\n"


def test_an_interruption_leaves_no_half_written_file(run, tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["diffusion.cli.sample"], "save_png", interrupted)
    for out in (tmp_path / "a.png", tmp_path / "folder"):
        assert run("--out", out).exit_code == 130
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
