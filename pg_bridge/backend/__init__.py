"""What runs in a PostgreSQL backend, whichever host it is."""
