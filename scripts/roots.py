"""Throw-away Debian roots: made with debootstrap from the mirror that this machine's apt uses, entered with chroot.

In: a suite's name. Out: a folder that holds that Debian, into which commands can be sent. A base root is kept in the
user's cache, as debootstrap made it; what a command changes is in a copy that goes with the object. Each command has
mounts and processes of its own, which end with it, so nothing is left behind on any way out. It needs root.

A root reaches what this machine reaches: it gets the machine's resolver, proxies, certificates and settings of pip.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pg_bridge", "roots")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CERTIFICATES = "/etc/ssl/machine.crt"  # in a root
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Unreachable(Exception):
    """This machine cannot make roots: no root, no debootstrap, or no mirror that answers."""


class Failed(Exception):
    """A command in a root, or the making of one, failed; the text is the end of what it said."""


def mirrors() -> tuple[str, str]:
    """Return the mirror of Debian's main archive and that of its security archive, as apt on this machine has them."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    lines = [line for path in files if path.suffix in {".list", ".sources"} for line in _lines(path)]
    named = [uri.rstrip("/") for line in lines if line[:1] != "#" for uri in re.findall(r"\w+://[^\s\]]+", line)]
    main = [uri for uri in named if uri.endswith("/debian")]
    security = [uri for uri in named if uri.endswith("/debian-security")]
    if not main:
        raise Unreachable("apt on this machine has no mirror of Debian")
    return main[0], security[0] if security else ""


def check() -> None:
    """Look whether this machine can make roots.

    Raises:
        Unreachable: It cannot; the text says why.
    """
    if os.geteuid() != 0:
        raise Unreachable("debootstrap and chroot need root")
    if shutil.which("debootstrap") is None:
        raise Unreachable("debootstrap is not installed: apt-get install debootstrap")
    page = f"{main_mirror()}/dists/stable/Release"
    try:
        with urllib.request.urlopen(page, timeout=30):  # noqa: S310 - what apt has in its sources
            return
    except OSError as error:
        raise Unreachable(f"apt's mirror of Debian does not answer: {error}") from error


def base(suite: str) -> Path:
    """Return the base root of a suite, made at its first use.

    Raises:
        Failed: debootstrap failed.
    """
    folder = CACHE / suite
    if (folder / "etc/debian_version").exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{suite}-") as name:
        new = Path(name, "root")
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", suite, str(new), mirrors()[0]]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        if outcome.returncode:
            raise Failed((outcome.stdout + outcome.stderr)[-2000:])
        with contextlib.suppress(OSError):  # another process made it meanwhile
            new.rename(folder)
    return folder


def main_mirror() -> str:
    """The mirror of Debian's main archive."""
    return mirrors()[0]


class Root:
    """A copy of a base root, removed at the end.

    Args:
        suite: `bookworm`, `trixie`, `sid`.

    Attributes:
        folder: Where it is.
        path: `PATH` for commands in it.
    """

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.folder = Path()
        self.path = PATH
        self._binds: list[str] = []

    def __enter__(self) -> Root:
        """Make the copy."""
        made = base(self.suite)
        self.folder = Path(tempfile.mkdtemp(prefix=f"pg_bridge-{self.suite}-", dir="/var/tmp"))
        try:
            self.folder.chmod(0o755)
            subprocess.run(["cp", "-a", "--reflink=auto", f"{made}/.", self.folder], check=True)
            self._reach_out()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it. Nothing is mounted in it: mounts belong to commands."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(
        self, script: str, *, user: str = "root", cwd: str = "/", timeout_s: float = 3600, log: Path | None = None
    ) -> str:
        """Run a bash script in it and return what it printed, stderr included.

        Raises:
            Failed: Its exit status was not 0, or it took too long.
        """
        mounts = [
            f"mount -t proc proc {self.folder}/proc",
            f"mount --rbind /sys {self.folder}/sys",
            f"mount --rbind /dev {self.folder}/dev",
            f"mount -t tmpfs -o mode=1777 tmpfs {self.folder}/dev/shm",
            f"mount -t tmpfs -o mode=755 tmpfs {self.folder}/run",
            *(f"mkdir -p {self.folder}{path} && mount --bind -o ro {path} {self.folder}{path}" for path in self._binds),
        ]
        home = "/root" if user == "root" else f"/home/{user}"
        environment = {"HOME": home, "USER": user, "LOGNAME": user, "PATH": self.path, "LANG": "C.UTF-8"}
        environment |= {name: os.environ[name] for name in PROXIES if name in os.environ}
        environment |= {"SSL_CERT_FILE": CERTIFICATES}
        inside = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        inside += ["bash", "-c", f"cd {shlex.quote(cwd)} && {{\n{script}\n}}"]
        entered = ["chroot", str(self.folder), *(["runuser", "-u", user, "--"] if user != "root" else []), *inside]
        outer = "\n".join(["set -e", *mounts, f"exec {shlex.join(entered)}"])
        # The processes' namespace goes with its first process, and with it every process and mount in there.
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", outer]
        with log.open("w+") if log else tempfile.TemporaryFile("w+") as into:
            streams = {"stdin": subprocess.DEVNULL, "stdout": into, "stderr": subprocess.STDOUT}
            try:
                status = subprocess.run(command, timeout=timeout_s, check=False, **streams).returncode
            except subprocess.TimeoutExpired:
                status = 124
            into.seek(0)
            said = into.read()
        if status:
            raise Failed(f"exit status {status}: {said[-3000:]}")
        return said

    def write(self, path: str, text: str) -> None:
        """Write a file in it."""
        target = self.folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def copy_checkout(self, checkout: Path, target: str) -> None:
        """Copy what git knows of a checkout, as it stands in the working tree."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, capture_output=True, check=True).stdout
        names = [name.decode() for name in listed.split(b"\0") if name]
        for name in names:
            source, copy = checkout / name, self.folder / target.lstrip("/") / name
            if source.is_symlink() or source.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.unlink(missing_ok=True)
                shutil.copy2(source, copy, follow_symlinks=False)

    def _reach_out(self) -> None:
        main, security = mirrors()
        lines = [f"deb {main} {self.suite} main"]
        if self.suite != "sid":
            lines.append(f"deb {main} {self.suite}-updates main")
            if security:
                lines.append(f"deb {security} {self.suite}-security main")
        self.write("/etc/apt/sources.list", "\n".join(lines) + "\n")
        self.write("/etc/dpkg/dpkg.cfg.d/unsafe-io", "force-unsafe-io\n")  # it is thrown away: no fsync a file
        # As in a fresh image: no package lists.
        shutil.rmtree(self.folder / "var/lib/apt/lists", ignore_errors=True)
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            with contextlib.suppress(OSError):
                self.write(name, Path(name).read_text())
        for path in Path("/etc/apt/apt.conf.d").glob("*"):
            # The mirror's lists may be older than they say they are good for.
            if re.search(r"proxy|Check-(Valid-Until|Date)", path.read_text(), re.IGNORECASE):
                self.write(str(path), path.read_text())
        with contextlib.suppress(OSError):
            bundle = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
            self.write(CERTIFICATES, bundle.read_text())
        self.write("/etc/pip.conf", "[global]\n" + "\n".join(self._pip_settings()) + "\n")

    def _pip_settings(self) -> Iterator[str]:
        """This machine's settings of pip; what they name on its disk is shown to the root, read-only."""
        pip = [[found] for name in ("pip", "pip3") if (found := shutil.which(name))]
        command = [*(pip[0] if pip else [sys.executable, "-m", "pip"]), "config", "list"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for name, value in dict(_setting(line) for line in listed.splitlines() if "=" in line).items():
            if name == "cert":
                value = CERTIFICATES
            elif name == "constraint":
                self.write("/etc/pip-constraints.txt", "".join(f"{line}\n" for line in _lines(Path(value))))
                value = "/etc/pip-constraints.txt"
            for word in value.split():
                path = Path(word.removeprefix("file://"))
                if path.is_absolute() and path.is_dir():
                    self._binds.append(str(path.parent if word.startswith("file://") else path))
            yield f"{name} = {value}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _setting(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name.rpartition(".")[2], value.strip("'\"")


def main(argv: Sequence[str]) -> int:
    """For the hand: `roots.py SUITE SCRIPT` runs a script in a fresh root."""
    with Root(argv[0]) as root:
        print(root.run(argv[1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
