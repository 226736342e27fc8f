"""What the page's command line refuses, and where it does not start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stand_ins import randomised

from diffusion import DiffusionModel, Schedule, UNetConfig

ROOT = Path(__file__).parents[1]
# In a process of its own: what the page keeps out of its own, other tests want.
STARTS = """
import sys, app
for port in sys.argv[1:]:
    sys.argv = ["app.py", "--port", port]
    try:
        app.main()
    except SystemExit as ended:
        print(ended.code)
"""
DRAWS = """
import sys, app
from argparse import Namespace
shipped, other = sys.argv[1:]
for name in ("float32", "bfloat16"):
    chosen = app.choose_backend(Namespace(model=shipped, device="cpu", backend=name))
    drawing = [chosen.engine.models.get(model).model for model in ("shipped", other)]
    print(*[model.backend for model in drawing])
    chosen.close()
"""
OPENS = """
import json, re, sys, app, gradio
def launched(page, head, **how):
    defaults = json.loads(re.search(r"const DEFAULTS = (.*);", head)[1])
    boxes = {block.elem_id: block for block in page.blocks.values() if block.elem_id}
    for name in ("left_steps", "right_steps"):
        print(name, defaults[name], boxes[name].value)
gradio.Blocks.launch = launched
sys.argv = ["app.py", "--device", "cpu", "--backend", "float32", "--model", sys.argv[1]]
app.main()
"""


def saved(folder, T=1000):
    """A small random model on T levels."""
    network = randomised(UNetConfig(size=16, widths=(16,)))
    return DiffusionModel(network, Schedule.cosine(T)).save_pretrained(folder)


def said(script, *words):
    """The lines that a Python prints which does this in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_backend_of_the_command_line_computes_every_model(tmp_path):
    lines = said(DRAWS, saved(tmp_path / "shipped"), saved(tmp_path / "other"))
    assert lines == ["float32 float32", "bfloat16 bfloat16"]


def test_a_model_with_few_levels_opens_with_no_more_steps_than_it_has(tmp_path):
    _, *lines = said(OPENS, saved(tmp_path / "few", T=50))
    assert lines == ["left_steps 50 50", "right_steps 20 20"]
    _, *lines = said(OPENS, saved(tmp_path / "fewer", T=12))
    assert lines == ["left_steps 12 12", "right_steps 12 12"]


def test_a_port_that_is_none_is_refused_in_one_sentence():
    ports = ["99999999", "0", "-1", "http"]
    command = [sys.executable, "-c", STARTS, *ports]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"] * len(ports), done.stderr
    for port in ports:
        assert f"{port} is no port; choose 1 to 65535" in done.stderr


def test_a_folder_of_runs_that_cannot_be_written_ends_the_app_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    runs = tmp_path / "file" / "runs"
    done = subprocess.run(
        [sys.executable, "app.py", "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "CARTOON_RUNS": str(runs)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"CARTOON_RUNS is {runs}, which cannot be written (not a directory); "
        "let this user write there, or choose another folder.\n"
    )
