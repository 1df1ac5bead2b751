"""LLM calls over whole row sets inside PostgreSQL: deduplicated, ordered for prefix reuse, answered by vLLM.

`pg_bridge.asking.streamed` is the product in one function; `docs/design.md` says why each part is as it is.
"""

from pg_bridge.errors import PgBridgeError
from pg_bridge.options import Call, Server

__all__ = ["Call", "PgBridgeError", "Server", "__version__"]

__version__ = "0.1.0"
