"""Every option of pg_bridge in one table, and the records that they are parsed into.

In: option texts as PostgreSQL's catalogs hold them, or a call's named arguments. Out: a `Server` (where the
engine is), a `Login` (how a foreign table's rows are reached), `TableOptions` and `ColumnOptions` (what a foreign table
is about), a `Call` (how one prompt is asked), and a `Trial` (how prompts are compared with known answers). The fields
of these records, in `records` and `trial`, are the table: a new option is one more field. The SQL functions' arguments,
the lists that their batch functions take and the validator are written from it when the extension is installed
(`pg_bridge.cli.option_sql`), and the tables of the reference pages by `scripts/option_tables.py`.
"""

from pg_bridge.options.option import (
    AGGREGATE,
    EVERY_CALL,
    QUESTIONS,
    REQUIRED,
    Catalog,
    Function,
    Needs,
    Option,
    Where,
    options_of,
)
from pg_bridge.options.records import (
    DEFAULT_SYSTEM_PROMPT,
    MULTICORN_WRAPPER,
    OPTIONS,
    Call,
    ColumnOptions,
    Login,
    Server,
    TableOptions,
    beyond_rights,
    parse_options,
    pick,
)
from pg_bridge.options.trial import Trial
from pg_bridge.options.values import REORDER, YES_OR_NO, Api, Kind, OnError, Place, Reasoning, Reorder, Value

__all__ = [
    "AGGREGATE",
    "DEFAULT_SYSTEM_PROMPT",
    "EVERY_CALL",
    "MULTICORN_WRAPPER",
    "OPTIONS",
    "QUESTIONS",
    "REORDER",
    "REQUIRED",
    "YES_OR_NO",
    "Api",
    "Call",
    "Catalog",
    "ColumnOptions",
    "Function",
    "Kind",
    "Login",
    "Needs",
    "OnError",
    "Option",
    "Place",
    "Reasoning",
    "Reorder",
    "Server",
    "TableOptions",
    "Trial",
    "Value",
    "Where",
    "beyond_rights",
    "options_of",
    "parse_options",
    "pick",
]
