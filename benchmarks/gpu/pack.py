"""Packs what a bare machine with a GPU needs: vLLM for its torch, and a PostgreSQL with pg_bridge to enter with chroot.

In: this Debian machine, after `make setup`, and a Python of the bare machine's version. Out: folders of pieces, each
small enough to travel with the checkout in one call. Byte code is made here: without it each of vLLM's processes spends
half a minute on importing.

    engine.tar.xz   site/     vLLM, pruned, and what it imports      models/   shapes and a tokenizer
    root.tar.xz     a system of the few programs that PostgreSQL and the benchmark run

The benchmark and pg_bridge are not in it: run.py takes them from the checkout that it runs in.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.gpu.fatbin import MAGIC, keep_only
from benchmarks.gpu.models import write_models
from pg_bridge.cli.install import run as install
from pg_bridge.testing.binaries import find_binaries
from pg_bridge.testing.python_path import copy_python

CHECKOUT = Path(__file__).parents[2]
KIT = CHECKOUT / ".gpu-kit"
CALL_BYTES = 63 * 2**20
"""What travels in one call, the checkout and a piece together; a mebibyte less than is allowed."""

SUMS = "SHA256SUMS"
HOPPER = 90

# For other cards, other kinds of models and other uses than serving one Llama.
PRUNED = (
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
    "vllm/_moe_C_stable_libtorch.abi3.so",
    "vllm/_qutlass_C.abi3.so",
    "vllm/_flashmla*_C.abi3.so",
    "vllm/third_party/deep_gemm",
    "vllm/third_party/fmha_sm100",
    "vllm/third_party/tml_fa4",
    "vllm/entrypoints/serve/instrumentator/static",
    "mistral_common/data",
    "pycountry/locales",
    "**/*.jpg",
    "**/*.hpp",
    "**/*.h",
    "**/tests",
    "bin",
)
_NOT_OF_PYTHON = (
    "__pycache__",
    "test",
    "idlelib",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "config-3*",
    "turtledemo",
)
_PROGRAMS = ("bash", "cat", "env", "ls", "rm", "sh", "sleep")
_POSTGRESQL = ("initdb", "pg_config", "pg_ctl", "postgres", "psql")
_FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\npostgres:x:105:105::/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\npostgres:x:105:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


def main() -> int:
    """Pack."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pack", description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default="python3.12", help="of the bare machine's version (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="also leave the unpacked files there")
    parser.add_argument("--whole", action="store_true", help="leave CUDA code for all cards in the libraries")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="pg_bridge-gpu-") as name:
        made = arguments.keep or Path(name)
        write_models(made / "engine/models")
        fill_site(made / "engine/site", arguments.python, whole=arguments.whole)
        fill_root(made / "root", find_binaries())
        archives = [pack(made / "engine"), pack(made / "root")]
        for number, folder in enumerate(cut(archives, KIT, CALL_BYTES - travelling_bytes()), 1):
            size = sum(path.stat().st_size for path in folder.iterdir())
            print(f"call {number}: carry {folder.relative_to(CHECKOUT)}, {size / 1e6:.1f} MB")
    return 0


def fill_site(site: Path, python: str, *, whole: bool) -> None:
    """Install vLLM and what it imports for another Python, drop what is not needed, and compile what is.

    Args:
        site: A folder that does not exist.
        python: Of the version that will import it.
        whole: Whether libraries keep the code of all cards.
    """
    options = ["--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    _do([python, "-m", "pip", "install", *options, "--target", site, "-r", Path(__file__).with_name("site.txt")])
    for pattern in PRUNED:
        for path in site.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for library in site.rglob("*.so"):
        content = library.read_bytes()
        if MAGIC in content and not whole:
            library.write_bytes(keep_only(content, HOPPER))
    _compile(python, site)


def fill_root(root: Path, binaries: Path) -> None:
    """Copy what PostgreSQL, its Python and the benchmark need of this machine.

    Args:
        root: A folder that does not exist.
        binaries: Of the PostgreSQL.
    """
    for folder in (
        "usr/bin",
        "usr/sbin",
        "usr/lib64",
        "etc",
        "proc",
        "dev/shm",
        "run",
        "root",
        "tmp",
        "var/tmp",
        "opt",
    ):
        (root / folder).mkdir(parents=True)
    for name in ("tmp", "var/tmp", "dev/shm"):
        (root / name).chmod(0o1777)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    for name, text in _FILES.items():
        (root / name).write_text(text)
    for name in _PROGRAMS:
        shutil.copy2(shutil.which(name) or "", root / "usr/bin" / name)
    for folder in ("/usr/lib/locale/C.utf8", "/usr/share/zoneinfo/Etc"):
        shutil.copytree(folder, root / folder[1:], symlinks=True)
    _copy_postgresql(root, binaries)
    python = _copy_interpreter(root)
    packages = root / "usr/lib/python3/dist-packages"
    copy_python(packages)
    shutil.rmtree(packages / "pg_bridge")
    _copy_metadata("pg-bridge", packages)
    _copy_libraries(root)
    _compile(python, root / "usr/lib")


def _copy_postgresql(root: Path, binaries: Path) -> None:
    pg_config = str(binaries / "pg_config")
    if install(argparse.Namespace(pg_config=pg_config, check=False, no_native=False)):
        raise SystemExit("pg-bridge install failed")
    told = {what: Path(_do([pg_config, f"--{what}"]).strip()) for what in ("pkglibdir", "sharedir")}
    home = root / "usr/lib/postgresql" / binaries.parent.name
    (home / "bin").mkdir(parents=True)
    for name in _POSTGRESQL:
        shutil.copy2(binaries / name, home / "bin")
    shutil.copytree(told["pkglibdir"], home / "lib", ignore=shutil.ignore_patterns("bitcode", "llvmjit*", "pgxs"))
    shutil.copytree(told["sharedir"], root / "usr/share/postgresql" / binaries.parent.name, symlinks=False)


def _copy_interpreter(root: Path) -> str:
    """Copy the Python that runs this, which is the one that PL/Python embeds; returns its name."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy2(Path(sys.base_prefix, "bin", name).resolve(), root / "usr/bin" / name)
    (root / "usr/bin/python3").symlink_to(name)
    library = Path(sys.base_prefix, "lib", name)
    shutil.copytree(library, root / "usr/lib" / name, ignore=shutil.ignore_patterns(*_NOT_OF_PYTHON), symlinks=True)
    return name


def _copy_metadata(distribution: str, packages: Path) -> None:
    found = metadata.distribution(distribution)
    for file in found.files or []:
        if file.parts[0].endswith(".dist-info"):
            target = packages / file
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(str(found.locate_file(file)), target)


def _copy_libraries(root: Path) -> None:
    """Copy the shared libraries that the programs and modules in a root load, and the loader."""
    known: set[str] = set()
    for path in [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        known.update(library_paths(_do(["ldd", path], check=False)))
    for name in known:
        target = root / name[1:]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(name).resolve(), target)


def library_paths(told: str) -> Iterator[str]:
    """The paths in what `ldd` said; those of a package's own libraries, which travel with it, are left out."""
    for path in re.findall(r"(?:=>\s+)?(/\S+) \(0x", told):
        if path.startswith(("/lib", "/usr/lib")):
            yield path


def pack(folder: Path) -> Path:
    """Pack a folder beside itself; blocks of some mebibytes, so that as many processors can unpack it."""
    archive = folder.with_suffix(".tar.xz")
    names = sorted(path.name for path in folder.iterdir())
    with archive.open("wb") as into:
        tar = subprocess.Popen(["tar", "-C", folder, "--owner=0", "--group=0", "-c", *names], stdout=subprocess.PIPE)
        subprocess.run(["xz", "-T0", "-6", "--block-size=32MiB", "-c"], stdin=tar.stdout, stdout=into, check=True)
    if tar.wait():
        raise SystemExit(f"tar failed for {folder}")
    return archive


def cut(archives: Sequence[Path], kit: Path, room_bytes: int) -> list[Path]:
    """Cut archives into pieces, as many to a folder as travel in one call, and write the sums of all into each.

    Args:
        archives: In the order in which they are cut.
        kit: The folder above; emptied first.
        room_bytes: Of each folder's pieces.
    """
    shutil.rmtree(kit, ignore_errors=True)
    folders: list[Path] = []
    sums, left = "", 0
    for archive in archives:
        with archive.open("rb") as file:
            number = 0
            while content := file.read(left or room_bytes):
                if left == 0:
                    folders.append(kit / f"call-{len(folders) + 1}")
                    folders[-1].mkdir(parents=True)
                    left = room_bytes
                piece = folders[-1] / f"{archive.name}.{number:04}"
                piece.write_bytes(content)
                sums += f"{hashlib.sha256(content).hexdigest()}  {piece.name}\n"
                number, left = number + 1, left - len(content)
    for folder in folders:
        (folder / SUMS).write_text(sums)
    return folders


def travelling_bytes() -> int:
    """Size of what git does not ignore in this checkout."""
    names = _do(["git", "-C", CHECKOUT, "ls-files", "-co", "--exclude-standard", "-z"]).split("\0")
    return sum((CHECKOUT / name).lstat().st_size for name in names if (CHECKOUT / name).is_file())


def _compile(python: str, folder: Path) -> None:
    """Compile modules; some, for other versions of Python, cannot be."""
    _do([python, "-m", "compileall", "-qq", "-j0", "--invalidation-mode", "unchecked-hash", folder], check=False)


def _do(command: Sequence[str | Path], *, check: bool = True) -> str:
    outcome = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if check and outcome.returncode:
        raise SystemExit(f"{command[0]} failed: {outcome.stderr[-2000:]}")
    return outcome.stdout


if __name__ == "__main__":
    raise SystemExit(main())
