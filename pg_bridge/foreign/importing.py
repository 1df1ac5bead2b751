"""IMPORT FOREIGN SCHEMA: foreign tables for the tables and views of a schema, with model columns from options.

In: a source, the schema's name, the statement's options and restriction. Out: tables with columns and options. Only
what the source's role may read is found. Model columns come as one option `model_columns`, a JSON array of objects:

    [{"name": "sentiment", "type": "text", "prompt": "What is the sentiment of {review}?", "labels": ["good", "bad"]}]

`type` may be left out for text; all other members are options of a model column. A table gets those columns whose
prompts fit it; a column that fits none of the tables is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pg_bridge.errors import OptionError, TableError, UnknownColumn
from pg_bridge.foreign.answers import ColumnType
from pg_bridge.foreign.definition import Column, Definition
from pg_bridge.foreign.source import Source, enum_labels, quote_name
from pg_bridge.options import parse_options

_EXAMPLE = (
    """For example: '[{"name": "sentiment", "type": "text", "prompt": "Is {review} kind?", "labels": ["yes", "no"]}]'"""
)


@dataclass(frozen=True, slots=True)
class TableToCreate:
    """A foreign table to create."""

    name: str
    columns: tuple[Column, ...]
    options: Mapping[str, str]


def find_tables(
    source: Source, schema: str, options: Mapping[str, str], restriction: str | None, names: Sequence[str]
) -> list[TableToCreate]:
    """Find the tables to create.

    Args:
        source: The database.
        schema: The schema to import from.
        options: Of the statement: `model_columns`, and options of foreign tables that all get.
        restriction: `limit` for those named, `except` for all but those named, None for all.
        names: The tables named.

    Raises:
        OptionError: An option is not valid.
        TableError: There is nothing to import, or a model column fits no table.
        SourceError: The source failed.
    """
    own = dict(options)
    model = _model_columns(own.pop("model_columns", "[]"), source)
    parse_options(("table",), own)
    rows = source.catalog(
        "SELECT c.relname, a.attname, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod), "
        "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_index AS i "
        "WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisprimary "
        "AND i.indnkeyatts OPERATOR(pg_catalog.=) 1 AND i.indkey[0] OPERATOR(pg_catalog.=) a.attnum) "
        "FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) c.oid "
        "WHERE c.relnamespace OPERATOR(pg_catalog.=) "
        "(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $1) "
        "AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v', 'm', 'p']::\"char\"[]) AND NOT c.relispartition "
        "AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped "
        "AND pg_catalog.has_table_privilege(c.oid, 'SELECT') ORDER BY c.relname, a.attnum",
        [schema],
    )
    columns: dict[str, list[Column]] = {}
    keys: dict[str, str] = {}
    for table, name, oid, typmod, type_, is_key in rows:
        columns.setdefault(str(table), []).append(
            Column(str(name), ColumnType(int(oid or 0), int(typmod or -1), str(type_)), {})
        )
        if is_key == "1":
            keys[str(table)] = str(name)
    wanted = {table: found for table, found in columns.items() if _is_wanted(table, restriction, names)}
    if not wanted:
        raise TableError(
            f'schema "{schema}" has no table to import',
            hint="Only tables and views are found that the role may read which reads the source.",
        )
    used: set[str] = set()
    tables = []
    for table, of_table in wanted.items():
        fitting = [column for column in model if _fits(column, of_table, source)]
        used |= {column.name for column in fitting}
        table_options = {"source": f"{quote_name(schema)}.{quote_name(table)}", **own}
        if table in keys:
            table_options.setdefault("key", keys[table])
        tables.append(TableToCreate(table, (*of_table, *fitting), table_options))
    for column in model:
        if column.name not in used:
            _fits(column, next(iter(wanted.values())), source, must=True)
    return tables


def _is_wanted(name: str, restriction: str | None, names: Sequence[str]) -> bool:
    return restriction is None or (name in names) == (restriction == "limit")


def _model_columns(text: str, source: Source) -> list[Column]:
    try:
        given: Any = json.loads(text)
        columns = []
        for each in given:
            options = {
                name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                for name, value in each.items()
                if name not in ("name", "type")
            }
            columns.append(Column(str(each["name"]), _type(str(each.get("type", "text")), source), options))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OptionError("model_columns is not a JSON array of objects that have a name", hint=_EXAMPLE) from None
    return columns


def _type(name: str, source: Source) -> ColumnType:
    """Look a type up by its name; a modifier such as that of numeric(5,2) is not among what to_regtype reads."""
    found = source.catalog(
        "SELECT t::pg_catalog.oid, pg_catalog.format_type(t::pg_catalog.oid, NULL) "
        "FROM pg_catalog.to_regtype($1) AS t WHERE t IS NOT NULL",
        [name],
    )
    if not found:
        raise TableError(f'type "{name}" of model_columns does not exist', hint="Name a type without a modifier.")
    return ColumnType(int(found[0][0] or 0), -1, str(found[0][1]))


def _fits(column: Column, of_table: Sequence[Column], source: Source, *, must: bool = False) -> bool:
    """Whether a table has what a model column asks about."""
    try:
        Definition.from_options({"source": "s"}, [*of_table, column], lambda oid: enum_labels(source, oid))
    except UnknownColumn:
        if must:
            raise
        return False
    return column.name not in {other.name for other in of_table}
