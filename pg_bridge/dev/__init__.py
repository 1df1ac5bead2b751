"""For who works on pg_bridge; not in the wheel."""
