"""`pg-bridge install` where there is nothing to install into."""

from __future__ import annotations

from pathlib import Path

import pytest

from pg_bridge.cli import main, native


def pg_config_of(version: str, folder: Path) -> str:
    (folder / "extension").mkdir()
    program = folder / "pg_config"
    program.write_text(f'#!/bin/sh\ncase "$1" in --version) echo "PostgreSQL {version}";; *) echo "{folder}";; esac\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("version", ["13.23 (Debian 13.23-0+deb11u1)", "14.0"])
def test_a_server_that_is_too_old_is_left_alone(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--pg-config", pg_config_of(version, tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"PostgreSQL {version[:2]} is too old for the extension, which needs 15 or later" in said
    assert "hint: pg-bridge map" in said
    assert list((tmp_path / "extension").iterdir()) == []


@pytest.mark.parametrize(("version", "major"), [("15.18", 15), ("17.12 (Debian 17.12-0+deb13u1)", 17), ("19devel", 19)])
def test_versions_are_read_however_they_are_written(version: str, major: int, tmp_path: Path) -> None:
    assert native.server_version(pg_config_of(version, tmp_path)) == major
