"""SemBench's ten questions about films, as SQL: what they ask, cost and answer here, beside published lines of others.

questions.py   the ten questions: their SQL, as docs/sembench.md shows it, and how good an answer is
gold.py        the tables with their gold labels, and a double that knows them and errs at a given rate
published.py   what the benchmark's paper tells of four other systems
__main__.py    asks all ten and prints the table
"""
