"""The Dockerfile's steps, run without Docker in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath

import pytest

from demo.space import answers, end, free_port

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
LINES = re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
STEPS = [tuple(line.split(maxsplit=1)) for line in LINES if line]
HEALTH = re.search(r"CMD (\[.*\])$", dict(STEPS)["HEALTHCHECK"])[1]
UID = 1000


def every(instruction: str) -> list[str]:
    """What follows each use of an instruction, in order."""
    return [value for name, value in STEPS if name == instruction]


def ignored(path: PurePosixPath, patterns: list[str]) -> bool:
    """As Docker reads .dockerignore: the last pattern that fits the path or a folder decides."""
    out = False
    for pattern in patterns:
        wanted = re.escape(pattern.removeprefix("!").strip("/"))
        wanted = wanted.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        parents = [path, *path.parents[:-1]]
        if any(re.fullmatch(wanted, str(one)) for one in parents):
            out = not pattern.startswith("!")
    return out


def copy_steps(root: Path, folder: Path) -> None:
    """Do the COPY lines into an empty folder, honouring .dockerignore."""
    lines = (root / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]

    def skip(at: str, names: list[str]) -> list[str]:
        here = Path(at).relative_to(root)
        return [name for name in names if ignored(PurePosixPath(here / name), patterns)]

    for line in every("COPY"):
        *sources, target = [part for part in line.split() if not part.startswith("--")]
        for source in sources:
            assert not ignored(PurePosixPath(source), patterns), f"{source} is ignored"
            if (root / source).is_dir():
                shutil.copytree(root / source, folder / target, ignore=skip)
            else:
                shutil.copyfile(root / source, folder / target / source)


def unprivileged() -> dict:
    """What makes a subprocess the container's user, where this interpreter lets us."""
    user = {"user": UID, "group": UID, "extra_groups": []}
    if os.geteuid() != 0:
        return {}
    try:
        probe = [sys.executable, "-c", "import gradio_client"]
        subprocess.run(probe, check=True, capture_output=True, cwd="/", timeout=60, **user)
    except (OSError, subprocess.SubprocessError):
        return {}  # an interpreter of root's own
    return user


@pytest.fixture
def app():
    """The container's folder, owned by its user where that can be."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path: other users cannot look inside
        folder = Path(name) / "app"
        os.chmod(name, 0o755)
        folder.mkdir()
        copy_steps(ROOT, folder)
        if os.geteuid() == 0:
            os.chown(folder, UID, UID)
        yield folder


def test_the_pins_are_those_of_the_requirements():
    pins = (ROOT / "requirements.txt").read_text().split()
    shown = re.findall(r"[\w-]+==[\w.]+", TEXT)
    assert {pin.split("==")[0] for pin in shown} == {"torch", "torchvision"}
    assert set(shown) <= set(pins)


def test_the_requirements_are_installed_after_the_torch_for_the_cpu():
    torch, rest = [line for line in every("RUN") if line.startswith("pip install")]
    assert "--index-url https://download.pytorch.org/whl/cpu" in torch
    assert rest.endswith("-r requirements.txt")
    order = STEPS.index(("RUN", rest))
    copied = [i for i, (name, value) in enumerate(STEPS) if name == "COPY" and "req" in value]
    assert copied[0] < order


def test_the_page_runs_as_a_user_with_uid_1000():
    assert every("USER") == ["user"]
    assert any("useradd" in line and f"--uid {UID} user" in line for line in every("RUN"))
    assert [name for name, _ in STEPS].index("USER") < [name for name, _ in STEPS].index("CMD")


def test_the_container_listens_on_the_port_it_exposes():
    assert every("EXPOSE") == ["7860"]
    assert {"GRADIO_SERVER_NAME=0.0.0.0", "GRADIO_SERVER_PORT=7860"} <= set(every("ENV")[0].split())
    assert json.loads(every("CMD")[-1]) == ["python", "app.py"]


def test_only_the_app_is_copied(app):
    names = {path.name for path in app.iterdir()}
    assert names == {"app.py", "LICENSE", "requirements.txt", "checkpoints", "demo", "diffusion"}
    assert not [path for path in app.rglob("*") if path.name == "__pycache__"]
    assert (app / "checkpoints/cartoonset-64/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("app.py", False),
        ("demo/page.py", False),
        ("demo/__pycache__/page.pyc", True),
        ("demo/.cache", True),
        ("tests/test_a.py", True),
        (".git/config", True),
        ("runs/first/model/model.safetensors", True),
    ],
)
def test_the_builder_gets_nothing_but_the_app(path, out):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored(PurePosixPath(path), [x for x in lines if not x.startswith("#")]) == out


@pytest.mark.slow
def test_the_container_serves_is_healthy_and_stops(app):
    port, user = free_port(), unprivileged()
    _, *command = json.loads(every("CMD")[-1])
    _, *health = json.loads(HEALTH.replace("7860", str(port)))
    settings = dict(pair.split("=", 1) for pair in shlex.split(every("ENV")[0]))
    environment = {**os.environ, **settings, "GRADIO_SERVER_PORT": str(port), "HOME": str(app)}
    environment = {k: v for k, v in environment.items() if not k.lower().endswith("_proxy")}

    def healthy() -> bool:
        done = subprocess.run(
            [sys.executable, *health], env=environment, capture_output=True, check=False, timeout=30
        )
        return done.returncode == 0

    child = subprocess.Popen(
        [sys.executable, *command],
        cwd=app,
        env=environment,
        start_new_session=True,
        # A shell has its background jobs ignore it, and so would the container of such a test run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **user,
    )
    try:
        assert not healthy()
        until = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/") and child.poll() is None:
            assert time.monotonic() < until, "no page in a minute"
            time.sleep(0.1)
        assert healthy()
        child.send_signal(getattr(signal, every("STOPSIGNAL")[0]))
        child.wait(10)
        assert not healthy()
    finally:
        end(child)
