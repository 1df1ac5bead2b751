"""What keeps a role's prompts apart in an engine's prefix cache: a salt that nobody else can guess.

In: the ledger's folder; who asks whom. Out: a text that is the same in all sessions of the cluster. It is a digest,
keyed with random bytes that stand in a file beside the ledger, which only the server's operating system user reads.
Without a folder the bytes are those of one process.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from functools import cache
from hashlib import blake2b
from pathlib import Path

_FILE = "salt"
_KEY_BYTES = 32
_OWN_KEY = secrets.token_bytes(_KEY_BYTES)


def salt_of(folder: Path | None, *who: object) -> str:
    """The salt of whoever is told apart by some values, each of which has one spelling."""
    key = _OWN_KEY if folder is None else _key(folder)
    return blake2b("\0".join(map(str, who)).encode(), digest_size=16, key=key).hexdigest()


@cache
def _key(folder: Path) -> bytes:
    """The bytes in a folder, made by whoever comes first; those of this process where there can be none."""
    path = folder / _FILE
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError:
        return _OWN_KEY
    return key if len(key) == _KEY_BYTES else _OWN_KEY


def _make(path: Path) -> None:
    """Write the file as a whole, unless another process has done so meanwhile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_FILE}.")  # for its user alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()
