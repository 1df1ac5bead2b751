"""Clusters live in memory only where that holds them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests import memory_folder


def test_a_folder_that_is_not_open_to_all_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_folder, "NEEDED_BYTES", 1)
    tmp_path.chmod(0o1777)
    assert memory_folder.has_room(tmp_path)
    tmp_path.chmod(0o700)
    assert not memory_folder.has_room(tmp_path)
    assert not memory_folder.has_room(tmp_path / "none")


def test_a_folder_that_is_too_small_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(memory_folder, "NEEDED_BYTES", 1 << 60)
    assert not memory_folder.has_room(tmp_path)


def test_a_tmpdir_that_is_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_folder, "has_room", lambda _: True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", "before")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    memory_folder.use_memory()
    assert (os.environ["TMPDIR"], tempfile.gettempdir()) == (str(tmp_path), str(tmp_path))
    monkeypatch.delenv("TMPDIR")
    memory_folder.use_memory()
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(memory_folder.FOLDER)
    assert os.environ["PYTEST_DEBUG_TEMPROOT"] == str(tmp_path)
