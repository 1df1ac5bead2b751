"""Every error that pg_bridge raises, and the SQLSTATE each becomes in PostgreSQL.

    PgBridgeError
     ├─ OptionError          22023  an option's value is not valid
     ├─ TemplateError        22023  a prompt's braces do not parse
     │   ├─ NullPrompt       22004  the prompt is NULL
     │   ├─ UnknownColumn    42703  a prompt names a column the rows lack
     │   └─ RepeatedColumn   42701  a column that is to be sent is there more than once
     ├─ QueryError           42601  the text is not one row-returning query
     ├─ UnknownServer        42704  no such foreign server, or not one of ours
     ├─ ServerDenied         42501  no USAGE on the server
     ├─ NotPermitted         42501  the role may not do that
     ├─ TableError           HV00A  a foreign table's definition does not hold together
     ├─ JobError             its own  a job beside the database cannot go on as it was described
     │   ├─ TargetError      42P16  the target lacks what answers are to be written into
     │   ├─ KeyFault         23505  the key does not tell the rows apart
     │   ├─ JobRunning       55006  another run is writing into the same target
     │   └─ DatabaseGone     08006  no connection to the database, for longer than patience lasts
     ├─ SourceError          its own  a foreign table's source failed, with PostgreSQL's own SQLSTATE
     │   └─ SourceDenied     28000  the user mapping does not lead to the source
     ├─ RowError             22000  one row's request failed on its own merits
     ├─ CallError            22000  the same of one call among many
     ├─ ComparisonError      22000  the same of a comparison of rows
     ├─ EmbeddingError       22000  the same of a text that rows are compared by
     ├─ AnswerError          22000  the same of a foreign table's column
     │                       54000  these five, where the prompt is too long for the model
     ├─ BudgetExceeded       53400  more would be asked than a budget allows
     ├─ RunEnded             55000  a savepoint was rolled back that a run began in
     ├─ VersionMismatch      55000  the extension is of another version than the package
     ├─ ModuleMismatch       55000  the native module is
     ├─ BrokenInstallation   58P01  the server's Python cannot import what pg_bridge needs
     ├─ Cancelled            57014  the statement was cancelled or timed out
     ├─ ClientGone           08006  the client closed its connection
     └─ EngineError          58000  the engine failed the run as a whole
         ├─ EngineUnreachable  08001
         ├─ EngineOverloaded   57P03  it asks to be asked later, for too long
         ├─ QuotaUsedUp        53000  the account may ask nothing more
         ├─ EngineTimeout      08006  reachable, but no answer came
         ├─ EngineDenied       28000  the engine refused the key
         │   └─ KeyExpired       28P01  it has expired
         ├─ UnknownModel       42704
         └─ WrongWay           58000  the server's options lead elsewhere, and no waiting helps
             ├─ Redirected       58000  the engine says that it is elsewhere
             ├─ WrongScheme      08P01  TLS is spoken where the endpoint has http, or not where it has https
             ├─ Untrusted        08001  its certificate is not one that the server trusts
             ├─ CertificateDenied  28000  it does not take the client's certificate, or the lack of one
             ├─ ProxyDenied      28000  the proxy does not take its user
             └─ FileFault        F0000  a file that an option names cannot be used

Each error carries its context as attributes, a message that says what happened and a hint that says
what to do. Neither a key nor a row's text may ever stand in any of them.
"""

from __future__ import annotations

import re


class PgBridgeError(Exception):
    """The root of the tree.

    Args:
        message: What happened, in one sentence, without a full stop.
        detail: More about it; may be empty.
        hint: What to do about it; may be empty.
    """

    sqlstate: str = "XX000"

    def __init__(self, message: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint


class OptionError(PgBridgeError):
    """An option's value is not valid."""

    sqlstate = "22023"


class TemplateError(PgBridgeError):
    """A prompt's braces do not parse, or the prompt is NULL."""

    sqlstate = "22023"


class NullPrompt(TemplateError):
    """The prompt is NULL."""

    sqlstate = "22004"


class UnknownColumn(TemplateError):
    """A prompt names a column that the rows lack."""

    sqlstate = "42703"


class RepeatedColumn(TemplateError):
    """A column that is to be sent is there more than once."""

    sqlstate = "42701"


class QueryError(PgBridgeError):
    """The text handed over is not one row-returning query."""

    sqlstate = "42601"


class UnknownServer(PgBridgeError):
    """There is no such foreign server, or it is not one of pg_bridge's."""

    sqlstate = "42704"


class ServerDenied(PgBridgeError):
    """The user has no USAGE on the server.

    Args:
        server: The server's name.
    """

    sqlstate = "42501"

    def __init__(self, server: str) -> None:
        super().__init__(
            f'permission denied for foreign server "{server}"',
            hint=f'Ask its owner for: GRANT USAGE ON FOREIGN SERVER "{server}" TO your role.',
        )


class NotPermitted(PgBridgeError):
    """The role may not do what it asked for."""

    sqlstate = "42501"


class TableError(PgBridgeError):
    """A foreign table's definition does not hold together."""

    sqlstate = "HV00A"


class JobError(PgBridgeError):
    """A job beside the database failed at the database or a file; `sqlstate` is what PostgreSQL said."""

    sqlstate = "58000"

    def __init__(self, message: str, *, sqlstate: str | None = None, detail: str = "", hint: str = "") -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.sqlstate = sqlstate or self.sqlstate

    @property
    def is_refusal(self) -> bool:
        """Whether PostgreSQL does not take a row, for a value, a constraint or a trigger."""
        return self.sqlstate[:2] in ("22", "23", "P0")


class TargetError(JobError):
    """A job's target lacks a column or a key, or cannot hold the answers."""

    sqlstate = "42P16"


class KeyFault(JobError):
    """Two rows of a job have the same key, or one has none."""

    sqlstate = "23505"


class JobRunning(JobError):
    """Another run is writing into a job's target."""

    sqlstate = "55006"


class DatabaseGone(JobError):
    """A job's database could not be reached for longer than its patience lasts."""

    sqlstate = "08006"


class SourceError(PgBridgeError):
    """Reading a foreign table's source failed; `sqlstate` is what PostgreSQL said."""

    sqlstate = "58000"

    def __init__(self, message: str, *, sqlstate: str | None = None, detail: str = "", hint: str = "") -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.sqlstate = sqlstate or self.sqlstate


class SourceDenied(SourceError):
    """The user mapping does not lead to the source."""

    sqlstate = "28000"


class Reason(str):
    """Why a row has no answer, where more can be said than that.

    Attributes:
        hint: What to do about it.
        sqlstate: Of the error that it becomes.
    """

    __slots__ = ("hint", "sqlstate")
    hint: str
    sqlstate: str

    def __new__(cls, text: str, hint: str = "", sqlstate: str = "22000") -> Reason:
        """Make one."""
        reason = super().__new__(cls, text)
        reason.hint = hint
        reason.sqlstate = sqlstate
        return reason


class _Unanswered(PgBridgeError):
    """What has no answer, and why not."""

    sqlstate = "22000"

    def __init__(self, message: str, reason: str, or_null: str) -> None:
        known = reason if isinstance(reason, Reason) else Reason(reason)
        super().__init__(message, detail=str(reason), hint=f"{known.hint} {or_null}".strip())
        self.sqlstate = known.sqlstate


class RowError(_Unanswered):
    """One row's request failed on its own merits and `on_error` is `fail`.

    Attributes:
        row_id: The row's place in the query, from 1.
    """

    def __init__(self, row_id: int, reason: str, question: str | None = None) -> None:
        super().__init__(
            f"the engine could not answer row {row_id}"
            if question is None
            else f'the engine could not answer "{question}" about row {row_id}',
            reason,
            "Pass on_error => 'null' to get NULL and the reason for such rows instead.",
        )
        self.row_id = row_id


class CallError(_Unanswered):
    """One call's request failed on its own merits and `on_error` is `fail`."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "the engine could not answer one of the calls",
            reason,
            "Pass on_error => 'null' to get NULL for such calls instead.",
        )


class ComparisonError(_Unanswered):
    """Some rows could not be compared, and `on_error` is `fail`."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "the engine could not answer one of the comparisons",
            reason,
            "With on_error => 'null' its rows stand as if they had not been compared.",
        )


class EmbeddingError(_Unanswered):
    """A text has no embedding that rows are to be compared by, and `on_error` is `fail`."""

    def __init__(self, reason: str, server: str) -> None:
        super().__init__(
            f'server "{server}" could not embed what a row of the join holds',
            reason,
            "With on_error => 'null' such a row is asked about with all others.",
        )


class SampleError(_Unanswered):
    """A row that was drawn, or that is in doubt, has no answer, and `on_error` is `fail`."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "the engine could not answer about one of the rows",
            reason,
            "With on_error => 'null' such rows count for the worse.",
        )


class AnswerError(_Unanswered):
    """A column of a foreign table has no answer for a row, and its `on_error` is `fail`.

    Attributes:
        column: The column's name.
    """

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(
            f'the engine could not answer column "{column}" for one of the rows',
            reason,
            f"ALTER FOREIGN TABLE … ALTER {column} OPTIONS (ADD on_error 'null') gives NULL for such rows.",
        )
        self.column = column


class BudgetExceeded(PgBridgeError):
    """More would have to be asked than a budget allows, and `on_budget` is `fail`.

    The SQLSTATE is that of other limits that somebody has set, such as temp_file_limit.
    """

    sqlstate = "53400"


class RunEnded(PgBridgeError):
    """A savepoint was rolled back that a run began in, and its cursor is read on."""

    sqlstate = "55000"

    def __init__(self) -> None:
        super().__init__(
            "the questions of this cursor ended with the savepoint that they began in",
            hint="The cursor began to read after a savepoint that has been rolled back; open it anew.",
        )


def is_older(version: str, other: str) -> bool:
    """Whether a version of the extension, such as `0.2`, came before another; by the numbers in it."""
    numbers, others = ([int(number) for number in re.findall(r"\d+", text)] for text in (version, other))
    return numbers < others


class VersionMismatch(PgBridgeError):
    """The extension in this database is of another version than the Python package.

    Args:
        extension: The extension's.
        package: The package's, of which version the extension should be.
    """

    sqlstate = "55000"

    def __init__(self, extension: str, package: str) -> None:
        super().__init__(
            f"the extension in this database is version {extension}, and the server's Python package is of {package}",
            hint="ALTER EXTENSION pg_bridge UPDATE; (or pg_bridge_multicorn), as a superuser."
            if is_older(extension, package)
            else f"Install the package of version {extension} where the server's Python finds it, and connect anew.",
        )


class ModuleMismatch(PgBridgeError):
    """This session has loaded a native module of another version than the Python package.

    Args:
        module: The module's.
        package: The package's.
    """

    sqlstate = "55000"

    def __init__(self, module: str, package: str) -> None:
        super().__init__(
            f"this session has loaded the native module of version {module}, and the server's Python package is of "
            f"{package}",
            hint="Connect anew. If that session says the same, run pg-bridge install on the server's machine first.",
        )


class BrokenInstallation(PgBridgeError):
    """The server's Python cannot import a module that pg_bridge needs."""

    sqlstate = "58P01"


class Cancelled(PgBridgeError):
    """The statement was cancelled or ran into statement_timeout."""

    sqlstate = "57014"


class ClientGone(PgBridgeError):
    """The client closed its connection while answers were awaited."""

    sqlstate = "08006"


class EngineError(PgBridgeError):
    """The engine failed the run as a whole."""

    sqlstate = "58000"


class EngineUnreachable(EngineError):
    """No connection to the engine within `connect_timeout_s`."""

    sqlstate = "08001"


class EngineOverloaded(EngineError):
    """The engine is starting or overloaded, and was waited for for long enough."""

    sqlstate = "57P03"


class QuotaUsedUp(EngineError):
    """The account at the engine may ask nothing more, now or later, until somebody pays."""

    sqlstate = "53000"


class EngineTimeout(EngineError):
    """The engine took the requests and then was silent for `request_timeout_s`."""

    sqlstate = "08006"


class EngineDenied(EngineError):
    """The engine refused the key, or the lack of one."""

    sqlstate = "28000"


class KeyExpired(EngineDenied):
    """The engine says that the key has expired."""

    sqlstate = "28P01"


class UnknownModel(EngineError):
    """The engine serves no model of that name."""

    sqlstate = "42704"


class WrongWay(EngineError):
    """The server's options lead elsewhere: waiting does not help, but somebody has to change them."""


class Redirected(WrongWay):
    """The engine answers that what is asked for is elsewhere, where nothing is sent to."""


class WrongScheme(WrongWay):
    """TLS is spoken where the endpoint begins with http, or is not where it begins with https."""

    sqlstate = "08P01"


class Untrusted(WrongWay):
    """The engine's certificate, or its proxy's, is not one that the server trusts."""

    sqlstate = "08001"


class CertificateDenied(WrongWay):
    """The engine does not take the client's certificate, or wants one."""

    sqlstate = "28000"


class ProxyDenied(WrongWay):
    """The proxy does not take its user, or wants one."""

    sqlstate = "28000"


class FileFault(WrongWay):
    """A file that an option names cannot be used."""

    sqlstate = "F0000"
