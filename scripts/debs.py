"""The Debian packages: built in a throw-away root of the Debian that they are for, linted, and tried in another.

In: the sdist, the folder debian/. Out: the packages, and beside them what was said while they were made and tried. The
first root has what building needs; in the second, which is fresh, `apt install ./*.deb` takes them as a user would, and
debian/tests/first-query asks. Nothing is installed on this machine.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from roots import Root

SUITES = {"bookworm": "12", "trixie": "13"}

_BUILD = """
set -eux
apt-get update -q
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y --no-install-recommends install build-essential lintian
apt-get -q -y --no-install-recommends build-dep ./
# Which versions of PostgreSQL there are packages for is Debian's matter.
pg_buildext updatecontrol
dpkg-buildpackage -us -uc -b
cd ..
lintian --version
# Overridden ones are not shown, for what is shown counts.
lintian --info --display-info --pedantic --fail-on error,warning --allow-root *.changes
"""

_TRY = """
set -eux
apt-get update -q
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y install ./*.deb
cd source
debian/tests/first-query
apt-get -q -y purge python3-pg-bridge
! find / -xdev '(' -name 'pg_bridge*' -o -name pg-bridge ')' -not -path '/packages/*' -not -path '/proc/*' | grep .
"""


def make(suite: str, sdist: Path, debian: Path, into: Path, say: Callable[[str], None]) -> Sequence[Path]:
    """Build, lint and try the packages for one Debian.

    Args:
        suite: Which, by its name.
        sdist: Of what.
        debian: The folder debian/.
        into: Where they go; it is made anew.
        say: Is told what is done.

    Raises:
        Failed: They do not build, lintian has a warning, or they do not work; the text is the end of what was said.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    with Root(suite) as root:
        say(f"Debian {SUITES[suite]}: building")
        _unpack(root, sdist, debian)
        root.run(_BUILD, cwd="/packages/source", log=into / "build.log")
        made = [Path(shutil.copy2(path, into)) for path in sorted((root.folder / "packages").glob("*.deb"))]
    with Root(suite) as root:
        for_users = [path for path in made if "dbgsym" not in path.name]
        say(f"Debian {SUITES[suite]}: installing {', '.join(path.name for path in for_users)}")
        _unpack(root, sdist, debian)
        for path in for_users:
            shutil.copy2(path, root.folder / "packages")
        root.run(_TRY, cwd="/packages", log=into / "try.log")
    return made


def _unpack(root: Root, sdist: Path, debian: Path) -> None:
    root.run("mkdir /packages")
    subprocess.run(["tar", "-xzf", sdist, "-C", root.folder / "packages"], check=True)
    source = root.folder / "packages/source"
    (root.folder / "packages" / sdist.name.removesuffix(".tar.gz")).rename(source)
    shutil.copytree(debian, source / "debian")
