"""Parts with sockets, files and processes of their own, and no PostgreSQL: the engine room, its doubles, the ledger."""
