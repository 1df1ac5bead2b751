"""A foreign table: where its rows come from, which columns they have, and which of its columns a model answers.

In: the options of the table and of its columns. Out: a `Definition`, checked as a whole. What one option may be,
PostgreSQL checks when the table is created; what fits together is checked here, at the first use, because only then all
of it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.prompt import escape, parse_question, resolve_columns
from pg_bridge.errors import OptionError, PgBridgeError, SourceError, TableError
from pg_bridge.foreign.answers import AnswerType, ColumnType, answer_type
from pg_bridge.options import Call, ColumnOptions, TableOptions, parse_options, pick


@dataclass(frozen=True, slots=True)
class Column:
    """A column as its foreign table declares it."""

    name: str
    type: ColumnType
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class ModelColumn:
    """A column that a model answers.

    Attributes:
        name: The column's name.
        type: Its type.
        ask: The prompt and how it is asked.
        again: The same for a second attempt, after an answer that is no value of the type.
        answer: What an answer must be.
        columns: The source columns that are sent.
        on_error_null: Whether a row's own failure becomes NULL.
    """

    name: str
    type: ColumnType
    ask: Ask
    again: Ask
    answer: AnswerType
    columns: tuple[str, ...]
    on_error_null: bool


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A foreign table.

    Attributes:
        source: The name of a table or view; empty where there is `source_query`.
        source_query: One SELECT; empty where there is `source`.
        security_invoker: Whether the source is read with the rights of whoever reads the table, not its owner's.
        key: The column that tells rows apart; None where none is named.
        columns: All columns in the table's order.
        model: Those that a model answers, by name.
        window_rows: Most rows planned together.
    """

    source: str
    source_query: str
    security_invoker: bool
    key: str | None
    columns: tuple[Column, ...]
    model: Mapping[str, ModelColumn]
    window_rows: int

    @property
    def source_columns(self) -> tuple[Column, ...]:
        """The columns that come from the source."""
        return tuple(column for column in self.columns if column.name not in self.model)

    @classmethod
    def from_options(
        cls,
        options: Mapping[str, str],
        columns: Sequence[Column],
        enum_labels: Callable[[int], Sequence[str]],
        server: str | None = None,
    ) -> Definition:
        """Read and check a definition.

        Args:
            options: The table's own options.
            columns: Its columns.
            enum_labels: From a type's oid to its labels, empty where it is no enum.
            server: The name of the table's server, or another text that tells its questions from those to others.

        Raises:
            OptionError: An option is unknown or malformed.
            TableError: The parts do not fit together.
            UnknownColumn: A prompt names a column that the table does not have from its source.
        """
        values = parse_options(("table",), options)
        own = TableOptions(**pick(TableOptions, values))
        if bool(own.source) == bool(own.source_query):
            raise TableError(
                "a foreign table of pg_bridge needs one of the options source and source_query",
                hint="For example: OPTIONS (source 'public.reviews').",
            )
        rows = [column.name for column in columns if not column.options]
        if own.key is not None and own.key not in rows:
            raise TableError(
                f'the key "{own.key}" is no column that comes from the source',
                hint=f"These are: {', '.join(rows) or 'none'}.",
            )
        of_table = {"server": server} | pick(Call, values)  # they hold for all its model columns
        model = {
            column.name: _model_column(column, rows, of_table, enum_labels) for column in columns if column.options
        }
        window_rows = Call.from_arguments(of_table).window_rows
        return cls(
            own.source,
            own.source_query,
            own.security_invoker,
            own.key,
            tuple(columns),
            model,
            window_rows,
        )


def _model_column(
    column: Column, rows: Sequence[str], of_table: Mapping[str, object], enum_labels: Callable[[int], Sequence[str]]
) -> ModelColumn:
    try:
        values = parse_options(("column",), column.options)
        if "prompt" not in values:
            raise OptionError("there is no prompt", hint="A column that a model answers needs the option prompt.")
        own = ColumnOptions(**pick(ColumnOptions, values))
        answer = answer_type(column.type, own.labels, own.schema, enum_labels)
        form = {"kind": answer.kind, "choices": answer.choices, "schema": answer.schema}
        call = Call.from_arguments({**of_table, **pick(Call, values), **form})
        sent = resolve_columns(parse_question(own.prompt), rows)
    except SourceError:
        raise
    except PgBridgeError as error:
        error.message = f'column "{column.name}" of the foreign table: {error.message}'
        raise
    reminder = escape(answer.reminder)
    again = Ask(f"{own.prompt} {reminder}", call)
    return ModelColumn(column.name, column.type, Ask(own.prompt, call), again, answer, sent, call.on_error == "null")
