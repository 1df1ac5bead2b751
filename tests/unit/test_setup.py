"""What set-up chooses on machines that are not at hand; `make test-matrix` runs the whole of it in real ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.scripts import SCRIPTS, load_script

torch_source = load_script("torch_source")


# -- which PostgreSQL


def chosen(installed: Iterable[str], embeds: dict[str, str], offered: Iterable[str], system: str = "3.13") -> str:
    """Run the script's own function on a machine that is told of.

    Args:
        installed: The majors whose server is installed.
        embeds: Of those with PL/Python: the version of Python that it embeds.
        offered: The majors of which the repositories have all packages; the first is the distribution's own.
        system: The version of /usr/bin/python3.
    """
    offered = list(offered)
    pythons = " ".join(f"{major}) echo {python};;" for major, python in embeds.items())
    stubs = f"""
        source {SCRIPTS}/setup.sh
        installed_majors() {{ printf '%s\\n' {" ".join(installed)}; }}
        embedded_python() {{ case $1 in {pythons} esac; }}
        python_version() {{ echo {system}; }}
        is_installed() {{ false; }}
        offers() {{ case $1 in {" ".join(f"*-{major}) true;;" for major in offered)} *) false;; esac; }}
        offered_major() {{ echo {offered[0] if offered else ""}; }}
        choose_major && echo "$MAJOR: $WHY"
    """
    return subprocess.run(["bash", "-c", stubs], capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.parametrize(
    ("installed", "embeds", "offered", "expected"),
    [
        ([], {}, ["17"], "17: the distribution's own"),
        (["17"], {}, ["17"], "17: the newest that is installed"),
        (["17"], {"17": "3.13"}, ["17"], "17: the newest that is installed"),
        (["17", "15"], {}, ["17"], "17: the newest that is installed"),
        (["18", "17"], {}, ["17", "18"], "18: the newest that is installed"),
        # An upgraded machine: the old server is there, and its PL/Python is gone, or is for a Python that is gone.
        (["15"], {}, ["17"], "17: the distribution's own; 15 is installed too, but PL/Python for it is not to be had"),
        (
            ["15"],
            {"15": "3.11"},
            ["17"],
            "17: the distribution's own; 15 is installed too, but PL/Python for it is not to be had",
        ),
        (["15"], {}, [], ""),  # no package lists yet
    ],
)
def test_which_postgresql(installed: list[str], embeds: dict[str, str], offered: list[str], expected: str) -> None:
    assert chosen(installed, embeds, offered) == expected


# -- which Python and which torch

CPU, CUDA = torch_source.CPU_LOCK, torch_source.GPU_LOCK
INDEX = torch_source.CPU_INDEX


def choose(had: set[tuple[str, str, str]], versions: Iterable[str] = ("3.13", "3.11"), reached: bool = True) -> object:
    """Choose where pip can have these (version of Python, lock, index)."""
    report = [{"metadata": {"name": "torch", "version": "2"}, "download_info": {"url": "file:///t.whl"}}]
    found = {version: Path("/bin", f"python{version}") for version in versions}
    source = torch_source.choose(found, lambda *asked: report if asked in had else None, lambda _: reached)
    return (source.version, source.lock, source.index) if source else None


def test_a_build_for_cpus_comes_first_whichever_python_can_have_it() -> None:
    everything = {
        (version, lock, index) for version in ("3.11", "3.13") for lock in (CPU, CUDA) for index in ("", INDEX)
    }
    assert choose(everything) == ("3.13", CPU, "")
    assert choose(everything - {("3.13", CPU, "")}) == ("3.11", CPU, "")
    assert choose(everything - {(version, CPU, "") for version in ("3.11", "3.13")}) == ("3.13", CPU, INDEX)
    assert choose({("3.13", CPU, INDEX), ("3.13", CUDA, "")}, reached=False) == ("3.13", CUDA, "")
    assert choose(set()) is None
    assert choose(everything, versions=[]) is None


def test_interpreters_that_cannot_make_an_environment_are_left_out(tmp_path: Path) -> None:
    def program(name: str, body: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    shim = program("shim", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    bare = program("bare", "echo \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1")
    old = program("old", "echo 3.9 /usr/bin/python3.9")
    good, second = program("good", "echo 3.12 /opt/one"), program("second", "echo 3.12 /opt/two")
    found = torch_source.interpreters([tmp_path / "none", shim, bare, old, good, second])
    assert found == {"3.12": Path("/opt/one")}


def test_the_systems_python_is_tried_first_then_the_path_then_pyenv(tmp_path: Path) -> None:
    (tmp_path / ".pyenv/versions/3.11.7/bin").mkdir(parents=True)
    (tmp_path / ".pyenv/versions/3.11.7/bin/python3").touch()
    tried = [str(path) for path in torch_source.candidates(os.pathsep.join(["/a", "", "/b"]), tmp_path)]
    wanted = ["/usr/bin/python3", "/usr/bin/python3.11", "/a/python3", "/b/python3.13"]
    assert [path for path in tried if path in wanted] == wanted
    assert tried[-1].endswith("3.11.7/bin/python3")
