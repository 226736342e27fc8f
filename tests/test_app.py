"""What the page's command line refuses."""

from __future__ import annotations

import sys

import pytest

import app


@pytest.mark.parametrize("port", ["99999999", "0", "-1", "http"])
def test_a_port_that_is_none_is_refused_in_one_sentence(port, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py", "--port", port])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert f"{port} is no port; choose 1 to 65535" in capsys.readouterr().err
