"""What the page's command line refuses, and where it does not start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
