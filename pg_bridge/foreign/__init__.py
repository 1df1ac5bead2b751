"""Foreign tables whose columns are answered by a model.

    answers     what a column's type demands of an answer
    definition  a foreign table: its source, its columns, the questions
    quals       conditions: what the source can apply, what an answer surely fails
    source      the interface to the source, and the SQL sent through it
    learned     what questions cost, and how many rows their answers leave
    scan        source rows → predicates → answers → rows, window by window
    explain     what EXPLAIN shows, and what the planner is told
    importing   IMPORT FOREIGN SCHEMA

In: options, columns, quals and sort keys as a host hands them over, and a `Source`. Out: rows. Nothing here knows
Multicorn, PL/Python or HTTP.
"""
