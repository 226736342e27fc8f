"""Text is UTF-8 on every system, whatever the system's own code page is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = [ROOT / "app.py"]
OURS += sorted(path for folder in ("demo", "diffusion") for path in (ROOT / folder).rglob("*.py"))
TEXT = {"read_text": 0, "write_text": 1}  # of Path: the place of the encoding
SPEAKS = {"text", "universal_newlines"}  # of subprocess: what asks for text


def unnamed(path: Path) -> list[str]:
    """The calls in a file that read or write text without saying in which encoding."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    calls = [node for node in nodes if isinstance(node, ast.Call) and guesses(node)]
    return [f"line {call.lineno}: {ast.unparse(call)}" for call in calls]


def guesses(call: ast.Call) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    if isinstance(call.func, ast.Attribute) and call.func.attr in TEXT:
        return len(call.args) <= TEXT[call.func.attr]
    if isinstance(call.func, ast.Name) and call.func.id == "open":
        mode = given.get("mode", call.args[1] if len(call.args) > 1 else ast.Constant("r"))
        return "b" not in ast.literal_eval(mode)
    return bool(SPEAKS & set(given))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("read_text(path)", False),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(path)", True),
        ("open(path, 'a')", True),
        ("open(path, 'rb')", False),
        ("subprocess.run(words, text=True)", True),
        ("subprocess.run(words, text=True, encoding='utf-8')", False),
    ],
)
def test_a_guessed_encoding_is_found(line, found):
    assert guesses(ast.parse(line, mode="eval").body) == found


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_is_read_or_written_in_the_systems_own_code_page(path):
    assert unnamed(path) == []


TRAINS = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"(app|demo|diffusion)\\b")
from diffusion.run_training import train_run
from diffusion.runs import Run
from diffusion.train_config import TrainConfig
run = Run(sys.argv[2])
run.create(sys.argv[1], TrainConfig(images=8, size=16, widths=(16,), batch=4, T=50, threads=1))
list(train_run(run, progress=False))
print(run.status()["state"], len(run.metrics()))
"""
BUILDS = """
import warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"(app|demo|diffusion)\\b")
import app
from demo.backend import LocalBackend
from demo.page import build, launch_options
from demo.recorded import MODEL
from diffusion import DiffusionModel
backend = LocalBackend(DiffusionModel.from_pretrained(MODEL))
build(backend)
print(len(launch_options()["head"]) > 0)
backend.close()
"""


def said(script: str, *words: object) -> str:
    """What a Python prints that warns of every encoding which is the system's own."""
    command = [sys.executable, "-X", "warn_default_encoding", "-c", script, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_training_reads_and_writes_no_text_in_the_systems_own_code_page(pictures, tmp_path):
    assert said(TRAINS, pictures, tmp_path / "run") == "finished 1"


def test_the_page_is_built_of_no_text_in_the_systems_own_code_page():
    assert said(BUILDS) == "True"
