"""The project as a Hugging Face Space: what goes there, and whether it will run.

`python -m demo.space publish user/space` uploads it; `python -m demo.space check` tells
beforehand, without the network, what would go wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import httpx
import psutil
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from diffusion.processes import own_session, print_anything, python

ROOT = Path(__file__).parent.parent
# At the top; names that begin with a dot stay behind anywhere.
STAYS = {"tests", "benchmarks", "runs", "out", "venv", "build", "dist"}
STAYS |= {"requirements-dev.txt", "Dockerfile"}

# What the Hub accepts for the card of a Gradio Space.
REQUIRED = ("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version")
REQUIRED += ("app_file", "short_description")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
# What ZeroGPU runs: https://huggingface.co/docs/hub/spaces-zerogpu
ZEROGPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
ZEROGPU_PYTHON = ("3.10", "3.10.13", "3.12", "3.12.12")
# What the Hub keeps outside git, at any size.
LARGE_KINDS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npy", ".npz", ".parquet"}
LARGE_KINDS |= {".arrow", ".gz", ".tgz", ".zip", ".tar", ".zst"}
MB = 10**6
FILE_LIMIT, SPACE_LIMIT = 10 * MB, 1000 * MB
COLD_START, GIVE_UP = 20.0, 60.0  # seconds


class SpaceError(RuntimeError):
    """One sentence that says what to do next."""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    found: str
    to_do: str = ""  # a sentence; empty when all is well

    def __str__(self) -> str:
        return f"✗ {self.found}: {self.to_do}." if self.to_do else f"✓ {self.found}."


@dataclass(frozen=True)
class Start:
    """How a start of the page went."""

    seconds: float | None  # from the start of the process to the page; None when it never came
    said: str = ""  # the last line that the process printed; empty when the page came


def main() -> None:
    """Publish or check, as the command line says; exit status 1 when that fails."""
    parser = argparse.ArgumentParser(prog="python -m demo.space", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="find out offline whether the Space would run")
    publishing = commands.add_parser("publish", help="upload the project to a Space")
    publishing.add_argument("name", nargs="?", default="", help="user/space")
    options = parser.parse_args()
    print_anything()
    try:
        if options.command == "publish":
            print(publish(options.name))
        else:
            sys.exit(not report(checks(ROOT)))
    except SpaceError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def publish(name: str, root: Path = ROOT, api: HfApi | None = None) -> str:
    """Upload the project to the Space, made when there is none yet; return its address.

    Raises SpaceError when the Hub is out of reach or refuses.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
        raise SpaceError("Say which Space to upload to: make space NAME=user/space.")
    api = api or HfApi(token=True)
    with tempfile.TemporaryDirectory() as folder:
        copy(root, upload_set(root), Path(folder))
        try:
            url = api.create_repo(name, repo_type="space", space_sdk="gradio", exist_ok=True)
            api.upload_folder(
                repo_id=name,
                repo_type="space",
                folder_path=folder,
                delete_patterns="*",  # what the project has no longer
                commit_message="Upload Cartoon Diffusion",
            )
        except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
            raise SpaceError(_refusal(name, error)) from error
    return str(url)


def upload_set(root: Path) -> list[Path]:
    """The files of the Space, relative to `root`: what git tracks or, without git, all there is.

    Runs, tests, benchmarks, caches and whatever serves development alone are left out.
    """
    candidates = _tracked(root) if (root / ".git").exists() else _walked(root)
    return sorted(path for path in candidates if _goes(path) and (root / path).is_file())


def copy(root: Path, files: list[Path], folder: Path) -> None:
    """Copy the files to the same places under another folder."""
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / path)


def checks(root: Path) -> Iterator[Check]:
    """Every check of the project, the quick ones first."""
    files = upload_set(root)
    yield check_card(root)
    yield check_versions(root)
    yield check_sizes(root, files)
    with tempfile.TemporaryDirectory() as folder:
        copy(root, files, Path(folder))
        started = start(Path(folder))
    yield check_start(started)
    yield check_cold_start(started)


def report(results: Iterator[Check]) -> bool:
    """Print each check as soon as it is done; whether all is well."""
    well = True
    for check in results:
        print(check, flush=True)
        well = well and not check.to_do
    return well


def check_card(root: Path) -> Check:
    """README.md begins with the card of a Gradio Space."""
    to_do = "; ".join(_amend_card(root, _card(root)))
    return Check("README.md opens with the card of a Gradio Space" if not to_do else "Card", to_do)


def check_versions(root: Path) -> Check:
    """ZeroGPU has the pinned torch and the card's Python."""
    torch, python = _pins(root).get("torch"), str(_card(root).get("python_version"))
    to_do = []
    if torch not in ZEROGPU_TORCH:
        to_do.append(f"pin torch to one of {', '.join(ZEROGPU_TORCH)} in requirements.txt")
    if python not in ZEROGPU_PYTHON:
        to_do.append(f"set python_version to one of {', '.join(ZEROGPU_PYTHON)} in README.md")
    return Check(f"ZeroGPU with torch {torch} and Python {python}", "; ".join(to_do))


def check_sizes(root: Path, files: list[Path]) -> Check:
    """No file is too large for git, and all of them together for a Space."""
    sizes = {path: (root / path).stat().st_size for path in files}
    total = sum(sizes.values())
    to_do = [
        f"make {path} smaller than {FILE_LIMIT // MB} MB (it has {size / MB:.1f})"
        for path, size in sizes.items()
        if size >= FILE_LIMIT and path.suffix not in LARGE_KINDS
    ]
    if total >= SPACE_LIMIT:
        largest = max(files, key=lambda path: sizes[path])
        to_do.append(f"stay below {SPACE_LIMIT // MB} MB in all; the largest file is {largest}")
    return Check(f"{len(files)} files, {total / MB:.1f} MB", "; ".join(to_do))


def check_start(started: Start) -> Check:
    """The page came up in a clean folder without the network."""
    if started.seconds is not None:
        return Check("A clean copy serves the page without the network")
    return Check(
        "A clean copy without the network did not serve the page",
        f"run python app.py and mend it ({started.said})",
    )


def check_cold_start(started: Start) -> Check:
    """The page came up quickly enough."""
    if started.seconds is None:
        return Check("No cold start to measure", "mend the start first")
    slow = started.seconds >= COLD_START
    return Check(
        f"Cold start in {started.seconds:.1f} s",
        f"load less before the page is served, to stay below {COLD_START:.0f} s" if slow else "",
    )


def start(folder: Path, give_up: float = GIVE_UP) -> Start:
    """Run the app of a folder, cut off from the network, until its page answers."""
    with tempfile.TemporaryDirectory() as temporary:
        site, log = Path(temporary) / "site", Path(temporary) / "log"
        site.mkdir()
        shutil.copyfile(Path(__file__).with_name("offline.py"), site / "sitecustomize.py")
        port = free_port()
        began = time.monotonic()
        with log.open("wb") as output:
            command = python("app.py", "--port", port)
            command["env"] = _clean(command["env"], site, Path(temporary))
            child = subprocess.Popen(
                **command,
                **own_session(),  # to end what the app starts as well
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            while child.poll() is None and time.monotonic() - began < give_up:
                if answers(f"http://127.0.0.1:{port}/"):
                    return Start(time.monotonic() - began)
                time.sleep(0.05)
        finally:
            end(child)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return Start(None, lines[-1].strip() if lines else f"no answer in {give_up:.0f} s")


def _tracked(root: Path) -> Iterator[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", b"") or str(error).encode()).decode().splitlines()[0]
        raise SpaceError(f"Let git ls-files work in {root}, which says: {said}.") from error
    yield from (Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name)


def _walked(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if _goes(here / name)]
        yield from (here / name for name in files)


def _goes(path: PurePath) -> bool:
    made = {"__pycache__"} & set(path.parts) or path.suffix in (".pyc", ".egg-info")
    hidden = any(part.startswith(".") for part in path.parts)
    return path.parts[0] not in STAYS and not made and not hidden


def _card(root: Path) -> dict:
    readme = root / "README.md"
    parts = readme.read_text(encoding="utf-8").split("---\n", 2) if readme.is_file() else []
    try:
        card = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        card = None
    return card if isinstance(card, dict) else {}


def _pins(root: Path) -> dict[str, str]:
    pins = (root / "requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w-]+)==(\S+)", pins, re.M))


def _amend_card(root: Path, card: dict) -> Iterator[str]:
    missing = [key for key in REQUIRED if key not in card]
    if missing:
        yield f"add {', '.join(missing)} to the YAML between --- and --- that opens README.md"
    for key in ("colorFrom", "colorTo"):
        if card.get(key, "red") not in COLOURS:
            yield f"set {key} to one of {', '.join(COLOURS)}"
    if card.get("sdk", "gradio") != "gradio":
        yield "set sdk to gradio"
    gradio = _pins(root).get("gradio")
    if card.get("sdk_version", gradio) != gradio:
        yield f"set sdk_version to {gradio}, as in requirements.txt"
    if not isinstance(card.get("python_version", ""), str):
        yield "put python_version in quotes"
    if "app_file" in card and Path(str(card["app_file"])) not in upload_set(root):
        yield "set app_file to a file that is uploaded"
    if len(str(card.get("short_description", ""))) > 60:
        yield "shorten short_description to 60 characters"


def _refusal(name: str, error: Exception) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    said = " ".join((getattr(error, "server_message", None) or str(error)).split())
    said = said.split(". ")[0].rstrip(".")
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return "Log in to the Hub with hf auth login, or set HF_TOKEN, with a token that may write."
    if isinstance(error, HFValidationError):
        return f"Choose another NAME than {name}: {said}."
    if status in (402, 403):
        return (
            f"The Hub refuses {name} ({status}: {said}): use a token that may write there and, as"
            " new Gradio Spaces need PRO, create it first at https://huggingface.co/new-space as"
            " one of the two ZeroGPU Spaces of a free account."
        )
    if status == 404:
        return f"The Hub has no user or organisation {name.split('/')[0]}; correct NAME."
    if status == 429 or (status or 0) >= 500:
        return f"The Hub has trouble ({status}: {said}); try again in a few minutes."
    if status or isinstance(error, ValueError):
        return f"The Hub does not take {name}; mend this and try again: {said}."
    return f"The Hub is out of reach ({said}); check the connection and try again."


def free_port() -> int:
    """A port that nothing on this machine listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _clean(environment: dict[str, str], site: Path, empty: Path) -> dict[str, str]:
    # No proxy on this machine to slip through, and no cache that holds what the Space would miss:
    # neither what the Hub has sent nor what earlier starts have measured and converted.
    kept = {
        name: value
        for name, value in environment.items()
        if not name.lower().endswith("_proxy")
        and not name.startswith(("GRADIO_", "HF_", "CARTOON_"))
    }
    caches = {"HF_HOME": str(empty / "hub"), "CARTOON_CACHE": str(empty / "cache")}
    return {**kept, **caches, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}


def answers(url: str) -> bool:
    """Whether a GET is answered with 200, whatever proxy is set."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):
        return False


def end(child: subprocess.Popen) -> None:
    """End a process that leads its own session, and all that it started."""
    if sys.platform == "win32":
        _end_tree(child)
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)


def _end_tree(child: subprocess.Popen) -> None:
    tree = [child]
    with contextlib.suppress(psutil.NoSuchProcess):
        tree += psutil.Process(child.pid).children(recursive=True)
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(5)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the child ends on both
    main()
