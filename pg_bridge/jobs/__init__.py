"""Questions about many rows beside the database: in a process of its own, with nothing installed in the server.

    a reading side → what is not answered yet → asking → a writing side, in committed parts

`mapping` asks about rows of a Python program (`pg_bridge.map_rows`); `running` does a job, which is a record
(`record`), from one side to the other: rows of a query or a file, answers into a table or a file. All questions go the
road of `pg_bridge.asking`. Nothing here is imported by a server.
"""
