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


def test_a_module_for_another_major_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "pg_bridge.so").write_bytes(f"\x7fELF…\0pg_bridge source {native.digest()} for 15\0…".encode())
    pg_config = pg_config_of("15.18", tmp_path)
    assert native.is_current(pg_config)
    Path(pg_config).write_text(Path(pg_config).read_text().replace("15.18", "17.12"))
    assert not native.is_current(pg_config)


def test_files_go_below_a_folder_that_is_named(tmp_path: Path) -> None:
    server, package = tmp_path / "server", tmp_path / "package"
    server.mkdir()
    assert (
        main(["install", "--no-native", "--destdir", str(package), "--pg-config", pg_config_of("17.12", server)]) == 0
    )
    assert list((server / "extension").iterdir()) == []
    assert (package / str(server)[1:] / "extension/pg_bridge.control").is_file()
