"""The Multicorn host."""

import pg_bridge.backend  # noqa: F401 - before numpy is imported: see there
