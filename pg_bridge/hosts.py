"""What the SQL of version 0.1 imports: all that it finds here is what to do about it."""

from pg_bridge import EXTENSION_VERSION
from pg_bridge.errors import VersionMismatch

_found = VersionMismatch("0.1", EXTENSION_VERSION)
raise ImportError(f"{_found.message}: {_found.hint}")
