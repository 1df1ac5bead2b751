"""What runs in a PostgreSQL backend, whichever host it is."""

import os

# PostgreSQL's signal handlers expect a process of one thread. When numpy is imported, its OpenBLAS starts another for
# each further core, with no signal blocked; and nothing here multiplies matrices. Both hosts import this first.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
