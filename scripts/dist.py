"""`make dist`: all that one installs pg_bridge from, with checksums, in dist/.

In: this checkout, as git knows it and as it stands. Out: the sdist, the wheel that is built from it, PGXN's archive of
the same files, `debian-NN/*.deb` (scripts/debs.py), and SHA256SUMS. Made again of the same commit, all but the Debian
packages are the same to the byte. No name is taken on a registry and nothing is uploaded.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import gmtime

import debs
from roots import Failed, Unreachable, check

CHECKOUT = Path(__file__).parents[1]
_HOOKS = "import sys; from setuptools import build_meta; build_meta.{}(sys.argv[1])"


def make_python(into: Path) -> tuple[Path, Path]:
    """Build sdist and wheel; returns where they are. The wheel is built from the sdist, as pip would."""
    with _copy_of(CHECKOUT) as source:
        sdist = _same_each_time(_build(source, "build_sdist", into))
    with _unpacked(sdist) as source:
        return sdist, _build(source, "build_wheel", into)


def make_pgxn(sdist: Path, into: Path) -> Path:
    """Pack the sdist's files as PGXN wants them; returns where they are."""
    archive = into / f"{sdist.name.removesuffix('.tar.gz')}.zip"
    with tarfile.open(sdist) as tar, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                entry = zipfile.ZipInfo(member.name, gmtime(_epoch_s())[:6])
                entry.external_attr = (0o100000 | member.mode) << 16
                zipped.writestr(entry, content.read(), zipfile.ZIP_DEFLATED)
    return archive


def sum_up(folder: Path) -> Path:
    """Write the checksums of all that lies in a folder, as `sha256sum --check` reads them."""
    sums = folder / "SHA256SUMS"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != sums)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    sums.write_text("".join(lines))
    return sums


def _build(source: Path, hook: str, into: Path) -> Path:
    """Call a hook of the build backend of this Python, which has it in a locked version; no network is asked."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(_epoch_s())}
    command = [sys.executable, "-c", _HOOKS.format(hook), str(into)]
    before = set(into.iterdir())
    ended = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failed((ended.stdout + ended.stderr)[-3000:])
    (made,) = set(into.iterdir()) - before
    return made


def _same_each_time(sdist: Path) -> Path:
    """Write an archive anew: its members in order, of no user, of the commit's time."""
    with tempfile.TemporaryDirectory() as name:
        plain = Path(name, "sdist.tar")
        with tarfile.open(sdist) as old, tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as new:
            for member in sorted(old, key=lambda member: member.name):
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mtime, member.pax_headers = _epoch_s(), {}
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                new.addfile(member, old.extractfile(member))
        with sdist.open("wb") as file, gzip.GzipFile("", "wb", mtime=_epoch_s(), fileobj=file) as packed:
            packed.write(plain.read_bytes())
    return sdist


def _epoch_s() -> int:
    """The time of the last commit."""
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout)


@contextmanager
def _copy_of(checkout: Path) -> Iterator[Path]:
    """What git knows of a checkout; what is built lies beside it and is no part of a package."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="pg_bridge-dist-") as name:
        for path in filter(None, listed.decode().split("\0")):
            source, copy = checkout / path, Path(name, path)
            if source.is_symlink() or source.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy, follow_symlinks=False)
        yield Path(name)


@contextmanager
def _unpacked(sdist: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pg_bridge-dist-") as name:
        subprocess.run(["tar", "-xzf", sdist, "-C", name], check=True)
        yield Path(name, sdist.name.removesuffix(".tar.gz"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dist", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=("python", "debian"), help="a part of it (default: all)")
    parser.add_argument("--suite", action="append", choices=list(debs.SUITES), help="one Debian; may be given again")
    parser.add_argument("--into", type=Path, default=CHECKOUT / "dist", metavar="DIR", help="default: dist/")
    parser.add_argument(
        "--if-possible", action="store_true", help="no Debian packages where this machine can make no roots"
    )
    arguments = parser.parse_args(argv)
    suites = [] if arguments.only == "python" else arguments.suite or list(debs.SUITES)
    try:
        if suites:
            check()
    except Unreachable as reason:
        _say(f"no Debian packages: {reason}")
        if not arguments.if_possible:
            return 2
        suites = []
    into: Path = arguments.into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    _clear(into)
    try:
        sdist, _ = make_python(into)
        make_pgxn(sdist, into)
        for suite in suites:
            debs.make(suite, sdist, CHECKOUT / "debian", into / f"debian-{debs.SUITES[suite]}", _say)
    except Failed as failure:
        _say(f"failed: {failure}")
        return 1
    print(sum_up(into).read_text(), end="")
    return 0


def _clear(into: Path) -> None:
    """Remove what an earlier run made, and nothing else."""
    for path in (*into.glob("pg_bridge-*"), *into.glob("debian-*"), into / "SHA256SUMS"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _say(line: str) -> None:
    print(f"[dist] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
