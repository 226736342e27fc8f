"""What is uploaded to a Space, how refusals read, and what each check finds."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from demo import space
from demo.space import ROOT, SpaceError, Start, publish, upload_set

CARD = """\
---
title: Dots
emoji: 🎨
colorFrom: yellow
colorTo: green
sdk: gradio
sdk_version: 6.31.0
python_version: "3.12"
app_file: app.py
short_description: Dots
---
# Dots
"""
SERVES = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Page).serve_forever()
"""


@pytest.fixture
def project(tmp_path):
    """A small project without git that passes every check."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "README.md").write_text(CARD)
    (root / "requirements.txt").write_text("gradio==6.31.0\ntorch==2.11.0\n")
    (root / "app.py").write_text(SERVES)
    return root


class Hub:
    """An HfApi that writes down what it is asked, and refuses with a status if told to."""

    def __init__(self, refuse=None, said=None):
        self.refuse, self.said = refuse, said
        self.created, self.uploaded, self.files = None, None, set()

    def create_repo(self, repo_id, **arguments):
        if self.refuse:
            response = httpx.Response(self.refuse, request=httpx.Request("POST", "https://hub"))
            raise HfHubHTTPError("refused", response=response, server_message=self.said)
        self.created = (repo_id, arguments)
        return f"https://huggingface.co/spaces/{repo_id}"

    def upload_folder(self, *, folder_path, **arguments):
        self.uploaded = arguments
        paths = (path for path in Path(folder_path).rglob("*") if path.is_file())
        self.files = {path.relative_to(folder_path) for path in paths}


def test_the_upload_holds_what_the_page_needs_and_nothing_else():
    files = upload_set(ROOT)
    names = {path.as_posix() for path in files}
    assert names >= {"app.py", "requirements.txt", "README.md", "LICENSE", "demo/page.py"}
    assert names >= {"diffusion/model.py", "checkpoints/cartoonset-64/model.safetensors"}
    assert not {path.parts[0] for path in files} & {
        "runs", "tests", "benchmarks", ".ci", ".git", ".venv", "Dockerfile", "requirements-dev.txt"
    }  # fmt: skip
    assert not any(part[0] in "._" and part != "__init__.py" and part != "__main__.py"
                   for path in files for part in path.parts)  # fmt: skip


def test_a_checkout_uploads_only_what_git_tracks(project):
    for command in (["init", "-q"], ["add", "README.md", "app.py"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    assert [str(path) for path in upload_set(project)] == ["README.md", "app.py"]
    (project / "app.py").unlink()
    assert [str(path) for path in upload_set(project)] == ["README.md"]


def test_without_git_the_same_things_stay_behind(project):
    for name in ("tests/test_a.py", "runs/first/model.bin", ".venv/x.py", "demo/__pycache__/a.pyc",
                 "requirements-dev.txt", "Dockerfile", ".env", "demo/runs.py"):  # fmt: skip
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    names = [path.as_posix() for path in upload_set(project)]
    assert names == ["README.md", "app.py", "demo/runs.py", "requirements.txt"]


def test_a_checkout_that_git_cannot_read_is_not_uploaded(project):
    (project / ".git").write_text("gitdir: /nowhere")
    with pytest.raises(SpaceError, match=r"^Let git ls-files work in .*, which says: fatal.*\.$"):
        upload_set(project)


def test_publishing_makes_a_gradio_space_and_uploads_the_set(project):
    hub = Hub()
    assert publish("me/dots", project, hub) == "https://huggingface.co/spaces/me/dots"
    assert hub.created == (
        "me/dots",
        {"repo_type": "space", "space_sdk": "gradio", "exist_ok": True},
    )
    assert hub.uploaded["repo_id"] == "me/dots"
    assert hub.uploaded["repo_type"] == "space"
    assert hub.files == set(upload_set(project))


def test_what_the_project_has_no_longer_leaves_the_space_with_the_next_upload(project):
    hub = Hub()
    publish("me/dots", project, hub)
    assert hub.uploaded["delete_patterns"] == "*"


@pytest.mark.parametrize(
    ("status", "said", "next_move"),
    [
        (401, "Invalid username or password.", "hf auth login"),
        (402, "Payment required. See pricing.", "one of the two ZeroGPU Spaces"),
        (403, "You don't have the rights.", "a token that may write there"),
        (404, "Not found", "correct NAME"),
        (400, "Invalid\nmetadata.", "mend this and try again: Invalid metadata"),
        (503, None, "try again in a few minutes"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_next_move(project, status, said, next_move):
    with pytest.raises(SpaceError) as caught:
        publish("me/dots", project, Hub(status, said))
    sentence = str(caught.value)
    assert next_move in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert ". " not in sentence


@pytest.mark.parametrize("name", ["", "dots", "me/", "me/dots/more", "me/my dots"])
def test_a_name_has_two_parts(name):
    with pytest.raises(SpaceError, match="make space NAME=user/space"):
        publish(name, api=Hub())


def test_a_name_that_the_hub_forbids_is_refused(project):
    with pytest.raises(SpaceError, match=r"^Choose another NAME than me/--dots: .*\.$"):
        publish("me/--dots", project, HfApi(token="hf_none"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["publish"], "NAME=user/space"), (["publish", "me/dots"], "hf auth login")],
)
def test_the_command_ends_with_one_sentence_and_status_one(tmp_path, arguments, told):
    environment = {name: v for name, v in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-m", "demo.space", *arguments],
        cwd=ROOT,
        env={**environment, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_cards_versions_and_sizes_of_this_repository_are_well():
    for check in (
        space.check_card(ROOT),
        space.check_versions(ROOT),
        space.check_sizes(ROOT, upload_set(ROOT)),
    ):
        assert not check.to_do, check
        assert str(check).startswith("✓ ")


@pytest.mark.parametrize(
    ("old", "new", "to_do"),
    [
        ("sdk_version: 6.31.0", "sdk_version: 5.0.0", "set sdk_version to 6.31.0"),
        ("colorTo: green", "colorTo: teal", "set colorTo to one of red, yellow"),
        ("sdk: gradio", "sdk: docker", "set sdk to gradio"),
        ('"3.12"', "3.12", "put python_version in quotes"),
        ("app_file: app.py", "app_file: main.py", "set app_file to a file"),
        ("emoji: 🎨\n", "", "add emoji to"),
        ("short_description: Dots", f"short_description: {'D' * 61}", "to 60 characters"),
        ("title: Dots", "title: [", "add title, emoji"),
        ("---\ntitle", "title", "add title, emoji"),
    ],
)
def test_a_broken_card_is_found(project, old, new, to_do):
    assert not space.check_card(project).to_do
    assert old in CARD
    (project / "README.md").write_text(CARD.replace(old, new, 1))
    assert to_do in str(space.check_card(project))
    assert str(space.check_card(project)).startswith("✗ ")


def test_versions_that_zerogpu_lacks_are_found(project):
    assert not space.check_versions(project).to_do
    (project / "requirements.txt").write_text("torch==2.12.0\n")
    assert "pin torch to one of 2.8.0, 2.9.1" in space.check_versions(project).to_do
    (project / "README.md").write_text(CARD.replace("3.12", "3.11"))
    assert "set python_version to one of 3.10" in space.check_versions(project).to_do


def test_files_too_large_for_git_are_found(project, monkeypatch):
    for name in ("faces.json", "model.safetensors"):
        with (project / name).open("wb") as file:
            file.truncate(20 * space.MB)
    check = space.check_sizes(project, upload_set(project))
    assert check.to_do == "make faces.json smaller than 10 MB (it has 20.0)"
    monkeypatch.setattr(space, "SPACE_LIMIT", 30 * space.MB)
    assert "stay below 30 MB in all" in space.check_sizes(project, upload_set(project)).to_do


def test_a_page_that_comes_up_alone_is_well(project):
    started = space.start(project, give_up=20)
    assert started.seconds is not None, started
    assert not space.check_start(started).to_do
    assert f"{started.seconds:.1f} s" in str(space.check_cold_start(started))


def test_a_start_that_is_measured_finds_no_cache_and_no_settings_of_ours(project, monkeypatch):
    for name in ("CARTOON_CACHE", "CARTOON_RUNS", "CARTOON_HOSTS"):
        monkeypatch.setenv(name, str(project))
    seen = project / "seen"
    (project / "app.py").write_text(
        "import json, os; from pathlib import Path\n"
        "ours = {k: v for k, v in os.environ.items() if k.startswith('CARTOON_')}\n"
        "ours['empty'] = not Path(ours['CARTOON_CACHE']).exists()\n"
        f"Path({str(seen)!r}).write_text(json.dumps(ours))\n"
    )
    space.start(project, give_up=20)
    ours = json.loads(seen.read_text())
    assert ours.keys() == {"CARTOON_CACHE", "empty"}
    assert ours["empty"]
    assert not Path(ours["CARTOON_CACHE"]).is_relative_to(project)


def test_an_app_that_never_answers_is_found_and_ended(project):
    pid = project / "pid"
    (project / "app.py").write_text(
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    started = space.start(project, give_up=2)
    assert started == Start(None, "no answer in 2 s")
    assert "run python app.py and mend it" in str(space.check_start(started))
    assert space.check_cold_start(started).to_do == "mend the start first"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_on_windows_an_app_ends_with_all_that_it_started(project, monkeypatch):
    (project / "app.py").write_text(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    with subprocess.Popen([sys.executable, project / "app.py"], stdout=subprocess.PIPE) as app:
        started = psutil.Process(int(app.stdout.readline()))
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.delattr(os, "killpg")
        monkeypatch.setattr(space, "signal", SimpleNamespace(SIGTERM=signal.SIGTERM))
        space.end(app)
        assert app.poll() is not None
        assert psutil.wait_procs([started], timeout=5)[0] == [started]


@pytest.mark.parametrize(
    "call",
    [
        "urllib.request.urlopen('http://example.org', timeout=5)",
        "socket.create_connection(('192.0.2.1', 80), timeout=5)",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('192.0.2.1', 53))",
    ],
)
def test_an_app_that_goes_to_the_internet_is_found(project, call, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # would pass for this machine's own
    (project / "app.py").write_text(f"import socket, urllib.request\n{call}\n{SERVES}")
    started = space.start(project, give_up=20)
    assert started.seconds is None
    assert "the start needs no network, yet asked for" in space.check_start(started).to_do


def test_a_slow_start_is_found():
    assert "stay below 20 s" in space.check_cold_start(Start(20.0)).to_do
    assert not space.check_cold_start(Start(19.9)).to_do


def test_one_failure_fails_the_report(capsys):
    assert space.report(iter([space.Check("Fine")]))
    assert not space.report(iter([space.Check("Bad", "mend it"), space.Check("Fine")]))
    assert capsys.readouterr().out == "✓ Fine.\n✗ Bad: mend it.\n✓ Fine.\n"


def test_the_report_is_printed_on_a_console_without_its_signs(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "argv", ["space", "check"])
    monkeypatch.setattr(space, "checks", lambda root: iter([space.Check("Fine")]))
    with pytest.raises(SystemExit) as ended:
        space.main()
    assert ended.value.code == 0
    assert console.buffer.getvalue().decode("cp1252").strip() == "? Fine."


@pytest.mark.slow
def test_this_repository_passes_the_whole_check():
    done = subprocess.run(
        [sys.executable, "-m", "demo.space", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 5
