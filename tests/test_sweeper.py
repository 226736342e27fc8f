"""The folder of uploads, and what clears it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import gradio as gr
import pytest
from gradio.routes import App
from stand_ins import awaited
from starlette.requests import ClientDisconnect

from demo.page import UPLOADS_KEPT, launch_options
from demo.sweeper import OWN, VARIABLE, sweep, sweeping, use_own_folder
from demo.uploads import MOST_BYTES

HOUR = 3600


def put(path: Path, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"pixels")
    grow_old(path, age)
    return path


def grow_old(path: Path, age: float) -> None:
    os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that a page of its own would have."""
    folder = tmp_path / OWN
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


def break_off(app):
    """Begin an upload, and go away after the first bytes of its file."""
    begun = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.zip"\r\n\r\npixels'
    messages = [
        {"type": "http.request", "body": begun, "more_body": True},
        {"type": "http.disconnect"},
    ]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/gradio_api/upload",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:7860"),
            (b"content-type", b"multipart/form-data; boundary=x"),
        ],
    }

    async def receive():
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(_):
        pass

    with pytest.raises(ClientDisconnect):
        awaited(app(scope, receive, send))


def test_an_upload_that_breaks_off_is_swept_away(folder):
    with gr.Blocks(analytics_enabled=False) as page:
        page.max_file_size = None
    app = App.create_app(page, app_kwargs=launch_options()["app_kwargs"])
    break_off(app)
    (left,) = (path for path in folder.rglob("*") if path.is_file())
    sweep(folder, UPLOADS_KEPT)
    assert left.is_file()
    for path in folder.rglob("*"):
        grow_old(path, UPLOADS_KEPT + 60)
    sweep(folder, UPLOADS_KEPT)
    assert not list(folder.iterdir())


def test_what_is_young_stays_and_so_does_its_folder(folder):
    old, young = (
        put(folder / "a" / "old.zip", HOUR + 60),
        put(folder / "b" / "young.zip", HOUR - 60),
    )
    arriving = put(folder / "tmp1234", 0)
    grow_old(young.parent, HOUR + 60)
    sweep(folder, HOUR)
    assert not old.exists()
    assert young.exists()
    assert arriving.exists()


def test_a_folder_that_is_not_there_is_clean(tmp_path):
    sweep(tmp_path / "nowhere", 0)


async def run_a_moment(kept, until=lambda: True):
    await run_a_moment_of(sweeping(None, kept), until)


async def run_a_moment_of(server, until):
    async with server:
        for _ in range(200):
            await asyncio.sleep(0.01)
            if until():
                break


def test_a_page_that_runs_sweeps_its_folder(folder):
    old = put(folder / "old.zip", HOUR + 60)
    awaited(run_a_moment(HOUR, until=lambda: not old.exists()))
    assert not old.exists()


def test_what_was_sent_waits_for_the_rest_of_an_upload_over_a_slow_line(folder):
    takes = 8 * MOST_BYTES / 2e6  # seconds, at 2 Mbit/s
    first, old = put(folder / "a" / "first.jpg", takes), put(folder / "b" / "old.jpg", 24 * HOUR)
    server = launch_options()["app_kwargs"]["lifespan"](None)
    awaited(run_a_moment_of(server, until=lambda: not old.exists()))
    assert not old.exists()
    assert first.exists()


def test_a_folder_that_the_user_named_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    old = put(tmp_path / "thesis.pdf", HOUR + 60)
    awaited(run_a_moment(HOUR))
    assert old.exists()


def test_a_folder_that_the_user_named_is_where_uploads_come(tmp_path, monkeypatch):
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "/mine")
    use_own_folder()
    assert os.environ[VARIABLE] == "/mine"


def test_a_cache_that_cannot_be_written_leaves_the_choice_to_gradio(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CARTOON_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv(VARIABLE, "")
    use_own_folder()
    assert os.environ[VARIABLE] == ""


def test_the_uploads_of_the_app_have_a_folder_of_their_own(tmp_path):
    script = (
        "from demo import quick; from gradio.utils import get_upload_folder;"
        "print(get_upload_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "CARTOON_CACHE": str(tmp_path), VARIABLE: ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / OWN)
