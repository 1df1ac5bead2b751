"""Generated statements: whatever is asked, batching gives what PostgreSQL gives without it.

`python -m tests.generated --count 20000` makes statements from a seed, runs each with batching off and on, and compares
rows, tables, sequences, the number of calls, and which hidden values reached a function. From a seed comes a `Case`:

    schema.py       the tables, policies, views and functions that statements use
    choices.py      where chance comes from; what was chosen can be replayed and made smaller
    expressions.py  values and conditions, with calls in them
    sources.py      what a FROM clause can hold
    queries.py      SELECT in its many forms
    statements.py   what is done with a query: cursors, prepared statements, DML; the settings it runs under
    server.py       runs a case both ways and says how they differ
    shrinking.py    a smaller case that differs, too
    run.py          many cases: what came of them

Only `schema`, `server` and `run` know a database.
"""
