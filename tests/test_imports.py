"""Imports run one way: app -> demo -> diffusion -> torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "diffusion").rglob("*.py"))
PAGE = sorted((ROOT / "demo").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else node.module.split(".")[0])
    return names


def test_the_library_is_found():
    assert {"samplers.py", "runs.py", "train.py"} <= {path.name for path in LIBRARY}
    assert imported(ROOT / "diffusion" / "samplers.py") >= {"torch", "diffusion"}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_neither_the_page_nor_gradio(path):
    assert not imported(path) & {"app", "demo", "gradio", "benchmarks", "tests", "spaces"}


@pytest.mark.parametrize("path", PAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_page_does_not_know_the_app(path):
    assert not imported(path) & {"app", "tests"}


LIGHT = """
import sys
sys.modules["tqdm"] = None  # torch would bring it, and whether we need it would not be seen
import numpy.random, PIL.Image, safetensors.torch, torch

theirs = set(sys.modules)
import diffusion
schedule = diffusion.Schedule.cosine(10)
network = diffusion.UNet(diffusion.UNetConfig(size=16, widths=(16,)))
model = diffusion.DiffusionModel(network, schedule)
noise = diffusion.Noise([0], model.shape)
*_, last = diffusion.sample(
    model.denoiser(), diffusion.ddim(schedule, schedule.levels(2)), noise(10), noise
)
assert last.x.shape == (1, 3, 16, 16)
print(*set(sys.modules) - theirs)
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Modules that the library loads to draw a picture, beside those it says it needs."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_library_samples_with_torch_numpy_pillow_and_safetensors_alone(loaded):
    packages = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names
    assert packages <= {"diffusion", "torch", "numpy", "PIL", "safetensors"}


def test_evaluation_is_imported_only_when_asked_for(loaded):
    assert "diffusion.samplers" in loaded
    assert "diffusion.evaluation" not in loaded


def test_no_click_on_the_page_has_to_wait_for_matplotlib():
    script = "\n".join(
        (
            "import sys, app",
            "app.choose_backend = lambda options: sys.exit(loaded())",
            "def loaded():",
            "    from gradio.utils import MatplotlibBackendMananger",
            "    with MatplotlibBackendMananger():",
            "        return sum(name.startswith('matplotlib.') for name in sys.modules)",
            "sys.argv = ['app.py']",
            "app.main()",
        )
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == 0
