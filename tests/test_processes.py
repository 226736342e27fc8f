"""Other processes: how they are started, who goes first, and who is alive."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from diffusion.cli import app
from diffusion.processes import give_way, own_session, print_anything, process_exists, python

ROOT = Path(__file__).parents[1]


@pytest.fixture
def windows(monkeypatch):
    """What Python says of itself on Windows, and what it lacks there."""
    monkeypatch.setattr(sys, "platform", "win32")
    for name in ("nice", "getsid", "killpg"):
        monkeypatch.delattr(os, name)
    flags = {"CREATE_NEW_PROCESS_GROUP": 0x200, "CREATE_NO_WINDOW": 0x8000000}
    for name, flag in flags.items():
        monkeypatch.setattr(subprocess, name, flag, raising=False)
    for name, degree in {"IDLE": 0x40, "BELOW_NORMAL": 0x4000}.items():
        monkeypatch.setattr(psutil, f"{name}_PRIORITY_CLASS", degree, raising=False)


def test_a_python_that_is_started_calls_the_pid_its_own_and_speaks_utf_8(monkeypatch):
    for name, value in {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}.items():
        monkeypatch.setenv(name, value)  # here the system's code page is ASCII
    script = "import os, sys; print(os.getpid(), sys.argv[1:], '×')"
    with subprocess.Popen(**python("-c", script, "a b", 7), stdout=subprocess.PIPE) as process:
        said = process.stdout.read().decode("utf-8").strip()
    assert said == f"{process.pid} ['a b', '7'] ×"


def test_on_windows_a_virtual_environment_is_named_to_the_python_that_it_is_made_of(
    windows, monkeypatch
):
    monkeypatch.setattr(sys, "executable", r"C:\app\.venv\Scripts\python.exe")
    monkeypatch.setattr(sys, "_base_executable", r"C:\Python312\python.exe")
    started = python("-m", "diffusion")
    assert started["args"] == [r"C:\Python312\python.exe", "-m", "diffusion"]
    assert started["env"]["__PYVENV_LAUNCHER__"] == r"C:\app\.venv\Scripts\python.exe"
    assert started["env"].items() > {**os.environ, "PYTHONUTF8": "1"}.items()


def test_on_windows_the_pid_is_not_that_of_the_virtual_environments_launcher(
    windows, monkeypatch, tmp_path
):
    launcher = tmp_path / "python.exe"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(sys, "_base_executable", sys.executable)
    monkeypatch.setattr(sys, "executable", str(launcher))
    command = python("-c", "import os; print(os.getpid())")
    with subprocess.Popen(**command, stdout=subprocess.PIPE) as process:
        assert int(process.communicate()[0]) == process.pid


def test_on_windows_a_python_outside_a_virtual_environment_is_started_as_it_is(
    windows, monkeypatch
):
    monkeypatch.setattr(sys, "executable", r"C:\Python312\python.exe")
    monkeypatch.setattr(sys, "_base_executable", r"C:\Python312\python.exe")
    assert python("x.py")["args"] == [r"C:\Python312\python.exe", "x.py"]
    assert "__PYVENV_LAUNCHER__" not in python("x.py")["env"]


def test_ctrl_c_does_not_reach_a_session_of_its_own():
    script = "import os; print(os.getsid(0) == os.getpid())"
    done = subprocess.run(**python("-c", script), **own_session(), capture_output=True, check=True)
    assert done.stdout.strip() == b"True"


def test_on_windows_a_session_of_its_own_is_a_group_without_this_console(windows):
    assert own_session() == {"creationflags": 0x8000200}


@pytest.mark.parametrize(("nice", "degree"), [(19, 0x40), (10, 0x40), (5, 0x4000)])
def test_on_windows_giving_way_sets_the_priority_class(windows, monkeypatch, nice, degree):
    given = []
    monkeypatch.setattr(psutil.Process, "nice", lambda self, value: given.append((self.pid, value)))
    give_way(nice)
    assert given == [(os.getpid(), degree)]


def test_who_gives_way_is_nicer_than_before_and_nobody_gives_way_unasked():
    script = (
        "import os\n"
        "from diffusion.processes import give_way\n"
        "before = os.nice(0)\n"
        "give_way(0)\n"
        "give_way(3)\n"
        "print(os.nice(0) - before)"
    )
    done = subprocess.run(**python("-c", script), capture_output=True, check=True)
    assert int(done.stdout) == 3


def test_asking_whether_a_process_exists_sends_it_nothing(monkeypatch):
    """On Windows, os.kill(pid, 0) is Ctrl-C to everybody in the console."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    with subprocess.Popen(**python("-c", "input()"), stdin=subprocess.PIPE) as process:
        assert process_exists(process.pid)
        assert process_exists(os.getpid())
        process.stdin.close()
        until_it_is_over(process.pid)
        assert not process_exists(process.pid), "ended, though nobody asked how"
    assert not process_exists(process.pid)
    assert not process_exists(2**40)
    assert not process_exists(-1)


def until_it_is_over(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_process_that_one_may_not_look_at_exists(monkeypatch):
    def refuse(pid):
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", refuse)
    assert process_exists(1)


def test_what_a_console_cannot_write_is_no_error(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    print_anything()
    print("✓ 3 × 4", flush=True)
    assert console.buffer.getvalue().decode("cp1252") == f"? 3 × 4{os.linesep}"


def test_a_command_tells_of_a_file_whose_name_the_console_cannot_write(tmp_path):
    results = tmp_path / "η.json"
    shutil.copyfile(ROOT / "docs" / "results.json", results)
    command = python("-m", "diffusion", "report", results)
    command["env"] |= {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(**command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"Wrote ")
    assert b"?.md" in done.stdout


@pytest.mark.parametrize("nice", [-5, 20])
def test_a_degree_of_giving_way_that_is_none_is_refused(nice):
    before = os.nice(0)
    with pytest.raises(ValueError, match=rf"^a degree of {nice}; choose --nice 0, not at all, to"):
        give_way(nice)
    assert os.nice(0) == before


def test_a_batch_of_no_images_is_not_taken_for_none_given():
    done = CliRunner().invoke(app, ["probe", "--batch", "0", "--device", "cpu"])
    assert done.exit_code == 1
    assert "a batch of at least one" in done.stderr
