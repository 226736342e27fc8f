"""What the page's command line refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("port", ["99999999", "0", "-1", "http"])
def test_a_port_that_is_none_is_refused_in_one_sentence(port):
    command = [sys.executable, "app.py", "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{port} is no port; choose 1 to 65535" in done.stderr
    assert "Traceback" not in done.stderr
