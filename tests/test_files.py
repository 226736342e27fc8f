"""Files that are replaced: flushed, and on Windows in spite of whoever reads them."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from diffusion import files
from diffusion.files import read_text, replacing, try_writing, write_json, write_text


@pytest.fixture
def windows(monkeypatch):
    """The name of the system; and no time passes while somebody waits."""
    slept = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files.time, "sleep", slept.append)
    return slept


def refusing(monkeypatch, where: object, name: str, times: float) -> list:
    """Have a function refuse as Windows does while a file is in use; the calls it got."""
    calls, do = [], getattr(where, name)

    def busy(*arguments, **how):
        calls.append(arguments)
        if len(calls) <= times:
            raise PermissionError(13, "The process cannot access the file")
        return do(*arguments, **how)

    monkeypatch.setattr(where, name, busy)
    return calls


def test_what_is_flushed_was_opened_for_writing(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def flush(descriptor):
        flushed.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    write_text(tmp_path / "file", "whole")
    assert len(flushed) == 1
    assert flushed[0] != os.O_RDONLY


def test_on_windows_a_file_that_is_read_is_replaced_a_little_later(tmp_path, monkeypatch, windows):
    write_text(tmp_path / "file", "first")
    calls = refusing(monkeypatch, os, "replace", 3)
    write_text(tmp_path / "file", "second")
    assert (tmp_path / "file").read_text() == "second"
    assert (len(calls), windows) == (4, [0.01, 0.02, 0.04])


def test_on_windows_a_file_that_is_being_replaced_is_read_a_little_later(
    tmp_path, monkeypatch, windows
):
    write_text(tmp_path / "file", "×")
    calls = refusing(monkeypatch, Path, "read_text", 3)
    assert read_text(tmp_path / "file") == "×"
    assert (len(calls), windows) == (4, [0.01, 0.02, 0.04])


def test_on_windows_a_file_that_stays_refused_is_given_up_after_two_seconds(
    tmp_path, monkeypatch, windows
):
    refusing(monkeypatch, os, "replace", float("inf"))
    with pytest.raises(PermissionError), replacing(tmp_path / "file"):
        pass
    assert sum(windows) == pytest.approx(2, abs=0.2)
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_refusal_is_final(tmp_path, monkeypatch):
    monkeypatch.setattr(files.time, "sleep", lambda seconds: pytest.fail("waited"))
    calls = refusing(monkeypatch, os, "replace", 1)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "file", "text")
    refusing(monkeypatch, Path, "read_text", 1)
    with pytest.raises(PermissionError):
        read_text(tmp_path / "other")
    assert len(calls) == 1


def test_text_is_the_same_bytes_on_every_system(tmp_path):
    write_text(tmp_path / "file", "„3 × η“\n")
    assert (tmp_path / "file").read_bytes() == "„3 × η“\n".encode()


def test_the_library_alone_writes_beside_what_a_killed_process_left(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)  # as if it were not installed
    left = tmp_path / ".config.json.123456.1.partial"
    left.touch()
    write_json(tmp_path / "config.json", {})
    assert (tmp_path / "config.json").read_text() == "{}\n"
    assert left.exists()


def test_whether_a_folder_can_be_written_is_tried_and_nothing_stays(tmp_path):
    try_writing(tmp_path)
    try_writing(tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        try_writing(tmp_path / "file" / "below")
