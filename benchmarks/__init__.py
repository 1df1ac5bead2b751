"""Benchmarks of pg_bridge, each a script of its own: `python -m benchmarks.throughput --help`.

In: a throw-away PostgreSQL cluster and an engine, both started by the script. Out: printed text that begins with
the machine, the versions and the seed, and states results as ratios. `make bench` runs them all and keeps what they
print in `benchmarks/results/`. They are no tests: nothing fails because a machine is slow.
"""
