from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
_, FRONT_MATTER, TEXT = README.split("---\n", 2)
SPACE = yaml.safe_load(FRONT_MATTER)
# What the Hub accepts for the card of a Space.
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
REQUIRED = {"title", "emoji", "colorFrom", "colorTo", "sdk", "app_file"}
OPTIONAL = {"sdk_version", "python_version", "short_description", "license", "pinned", "tags"}


def section(title: str) -> str:
    """The text under a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_front_matter_is_that_of_a_gradio_space():
    assert REQUIRED <= set(SPACE) <= REQUIRED | OPTIONAL
    assert {SPACE["colorFrom"], SPACE["colorTo"]} <= COLOURS
    assert SPACE["sdk"] == "gradio"
    assert SPACE["license"] == "mit"
    assert len(SPACE["short_description"]) <= 60
    assert (ROOT / SPACE["app_file"]).is_file()


def test_the_space_runs_the_pinned_gradio():
    assert f"gradio=={SPACE['sdk_version']}" in (ROOT / "requirements.txt").read_text().split()


def test_the_python_version_is_a_string():
    assert SPACE["python_version"] == "3.12"  # unquoted, 3.10 would read as 3.1


def test_the_quick_start_is_two_commands():
    commands = re.findall(r"^make \w+", "".join(blocks(section("Quick start"))), re.MULTILINE)
    assert commands == ["make run", "make test"]


def test_the_readme_installs_the_torch_that_is_pinned():
    pins = (ROOT / "requirements.txt").read_text().split()
    named = re.findall(r"\S+==\S+", section("Quick start"))
    assert named
    assert set(named) <= set(pins)


def commands(text: str) -> list[tuple[str, str]]:
    """Name and options of each `python -m diffusion ...`, its $VARIABLES written out."""
    variables = dict(re.findall(r'^([A-Z]+)="(.*)"$', text, re.MULTILINE))
    shown = re.findall(r"^python -m diffusion (\w+)(.*)$", text, re.MULTILINE)
    return [
        (name, re.sub(r"\$([A-Z]+)", lambda found: variables[found[1]], options))
        for name, options in shown
    ]


def check_options(name: str, options: str) -> None:
    from typer.testing import CliRunner

    from diffusion.cli import app

    known = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
    for option in re.findall(r"--[\w-]+", options):
        assert re.search(rf"{option}\b", known), f"{name} has no {option}"


def test_the_commands_shown_have_only_options_that_exist():
    titles = ("From the command line", "To order, and measured")
    shown = commands("".join(block for title in titles for block in blocks(section(title))))
    named = {name for name, _ in shown}
    assert named == {"train", "sample", "evaluate", "reader", "guidance", "publish"}
    for name, options in shown:
        check_options(name, options)


def test_the_commands_of_the_docs_have_only_options_and_models_that_exist():
    for page in (ROOT / "docs").glob("*.md"):
        for name, options in commands("".join(blocks(page.read_text()))):
            check_options(name, options)
            for model in re.findall(r"--model (checkpoints\S+)", options):
                assert (ROOT / model).is_dir()


def rows_of(options: str) -> set[tuple]:
    """What tells the rows apart that `evaluate` measures with these options."""

    def option(name: str, usual: str) -> str:
        found = re.search(rf"{name} (\S+)", options)
        return found[1] if found else usual

    how = option("--samplers", "ddim"), float(option("--eta", "0")), option("--variance", "small")
    how += option("--finish", "none"), float(option("--guidance", "0"))
    return {(*how, int(steps)) for steps in option("--steps", "50").split(",")}


@pytest.mark.parametrize("file", ["docs/results.json", "docs/toons.json"])
def test_the_docs_name_the_commands_of_every_measured_row(file):
    shown = commands("".join(blocks((ROOT / "docs" / "README.md").read_text())))
    told = [rows_of(options) for name, options in shown if name == "evaluate" and file in options]
    keys = ("sampler", "eta", "variance", "finish", "guidance", "steps")
    rows = json.loads((ROOT / file).read_text())["rows"].values()
    assert set().union(*told) == {
        tuple({"finish": "none", **row}[key] for key in keys) for row in rows
    }


def test_paths_and_files_named_in_the_readme_exist():
    layout = re.findall(r"^([\w./]+)  ", "".join(blocks(section("Layout"))), re.MULTILINE)
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert pictures
    for name in [*layout, *pictures, "LICENSE", ".ci/run"]:
        assert (ROOT / name).exists(), f"{name} is missing"


def test_the_library_example_runs(tmp_path):
    [example] = blocks(section("As a library"), "python")
    # As a reader would: beside the checkpoints, with the package at hand.
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    # With the packages that the library itself asks for, and no more.
    further = ("av", "filelock", "huggingface_hub", "psutil", "torchvision", "tqdm", "typer")
    without = f"sys.modules.update(dict.fromkeys({further}))"
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {without}\n{example}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("level ") == 20
    with Image.open(tmp_path / "faces.png") as picture:
        assert picture.size == (2 * 66 + 2, 2 * 66 + 2)
