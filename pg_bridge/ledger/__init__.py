"""The ledger: what engines have answered, and what it took, kept outside of PostgreSQL's transactions.

    account → answers, usage → database → one SQLite file

In: digests of questions, and answers as they land. Out: the answers again, in whatever statement asks next, and
figures. It is pure: it knows neither PostgreSQL nor an engine. Whatever goes wrong with its files is a warning, and it
is done without; no statement fails for it.
"""
