from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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
    for pin in re.findall(r"\S+==\S+", section("Quick start")):
        assert pin in pins


def test_the_commands_shown_have_only_options_that_exist():
    from typer.testing import CliRunner

    from diffusion.cli import app

    titles = ("From the command line", "To order, and measured")
    shown = "".join(block for title in titles for block in blocks(section(title)))
    commands = re.findall(r"^python -m diffusion (\w+)(.*)$", shown, re.MULTILINE)
    assert {name for name, _ in commands} == {"train", "sample", "evaluate", "reader", "guidance"}
    for name, options in commands:
        known = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
        for option in re.findall(r"--[\w-]+", options):
            assert re.search(rf"{option}\b", known), f"{name} has no {option}"


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
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{example}"
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
