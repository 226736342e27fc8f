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

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(f"{{name}} was imported")

sys.meta_path.insert(0, Blocker())
import diffusion
schedule = diffusion.Schedule.cosine(10)
network = diffusion.UNet(diffusion.UNetConfig(size=16, widths=(16,)))
model = diffusion.DiffusionModel(network, schedule)
noise = diffusion.Noise([0], model.shape)
*_, last = diffusion.sample(
    model.denoiser(), diffusion.ddim(schedule, schedule.levels(2)), noise(10), noise
)
print(tuple(last.x.shape))
"""


def test_the_library_samples_without_gradio_and_other_heavy_packages():
    blocked = {"gradio", "torchvision", "typer", "huggingface_hub", "tqdm", "av", "diffusers"}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(blocked=blocked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(1, 3, 16, 16)"), done.stderr


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
