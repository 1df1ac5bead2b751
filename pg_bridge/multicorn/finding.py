"""What a scan of `llm.result` finds out about a row set: which of the functions it is for, its options say.

In: a prompt, options, a way to the row set, the session's servers. Out: rows of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pg_bridge.asking.streamed import Fetch
from pg_bridge.backend.alike import Ways, find_alike, read_task
from pg_bridge.backend.estimates import foresee
from pg_bridge.backend.ledger import open_account
from pg_bridge.backend.ranked import foresee_ranking, rank_call, rank_rows
from pg_bridge.backend.sampled import sample_call, sample_rows
from pg_bridge.backend.session import SESSION, read_asked, start_run
from pg_bridge.backend.tuned import try_rows
from pg_bridge.errors import OptionError
from pg_bridge.ledger.account import Account
from pg_bridge.multicorn.errors import warn
from pg_bridge.options import Server

Found = tuple[int | None, str | None, str | None, str | None]
"""row_id, input, output, error."""

_account = partial(open_account, warn=warn)


@dataclass(frozen=True, slots=True)
class _Scan:
    """What a scan is told.

    Attributes:
        role: The current role's oid.
        prompt: The prompt, or the criterion.
        options: The options, without those below, and without what says what it is for.
        k: How many rows, or clusters, are wanted.
        task: Which of the functions about rows that are alike it is.
        is_estimate: Whether nothing is to be asked.
        rows: A way to the row set: what fetches its rows, and its columns.
    """

    role: int
    prompt: str
    options: dict[str, Any]
    k: int | None
    task: object
    is_estimate: bool
    rows: Callable[[], tuple[Fetch, Sequence[str | None]]]

    def server(self, name: str) -> Server:
        """A server that the role may use."""
        return SESSION.server(self.role, name)

    def access(self, name: str) -> tuple[Server, Account]:
        """The same, and the statement's account with it."""
        server = self.server(name)
        return server, _account(server)


def find(
    role: int, prompt: str, options: dict[str, Any], rows: Callable[[], tuple[Fetch, Sequence[str | None]]]
) -> Iterator[Found]:
    """Find out what is to be found out about a row set.

    Args:
        role: The current role's oid.
        prompt: The prompt, or the criterion.
        options: The options. With `estimate` the one answer is what a run would ask and take. With `rank` the rows are
            the best `k`, and their answers how they rank; with `try` answers are what comparing prompts has found, and
            with `sample` what the function of that name has, over a sample; with `task` what `llm.resolve` or
            `llm.clusters` find. Of several the first of `_KINDS` counts.
        rows: A way to the row set.
    """
    is_trial = bool(options.pop("try", False))
    is_estimate = not is_trial and bool(options.pop("estimate", False))
    is_ranking, k = bool(options.pop("rank", False)), _parse_k(options.pop("k", None))
    task = options.pop("task", None)
    is_given = {
        "task": task is not None,
        "try": is_trial,
        "sample": "sample" in options,
        "rank": is_ranking,
        "estimate": is_estimate,
    }
    find_kind = next((of_kind for name, of_kind in _KINDS.items() if is_given[name]), _answers)
    return find_kind(_Scan(role, prompt, options, k, task, is_estimate, rows))


def _answers(scan: _Scan) -> Iterator[Found]:
    call, asked = read_asked(scan.prompt, scan.options)
    fetch, columns = scan.rows()
    server, account = scan.access(call.server)
    return start_run(fetch, columns, asked, server, account=account)


def _estimate(scan: _Scan) -> Iterator[Found]:
    call, asked = read_asked(scan.prompt, scan.options)
    fetch, columns = scan.rows()
    server, account = scan.access(call.server)
    yield 1, None, foresee(fetch, columns, asked, server, every_row=False, account=account), None


def _ranks(scan: _Scan) -> Iterator[Found]:
    call = rank_call(scan.options)
    fetch, columns = scan.rows()
    server, account = scan.access(call.server)
    if scan.is_estimate:
        yield 1, None, foresee_ranking(fetch, columns, scan.prompt, scan.k, call, server), None
    else:
        yield from _without_errors(rank_rows(fetch, columns, scan.prompt, scan.k, call, server, account, warn))


def _trials(scan: _Scan) -> Iterator[Found]:
    fetch, columns = scan.rows()
    for found in try_rows(fetch, columns, scan.prompt, scan.options, scan.access):
        yield 1, None, found, None


def _sample(scan: _Scan) -> Iterator[Found]:
    function = scan.options.pop("sample")
    call = sample_call(function, scan.options)
    fetch, columns = scan.rows()
    yield from _without_errors(sample_rows(fetch, columns, scan.prompt, function, call, scan.server, _account))


def _alike(scan: _Scan) -> Iterator[Found]:
    fetch, columns = scan.rows()
    ways = Ways(scan.server, _account, warn)
    task = read_task(scan.task)
    yield from _without_errors(find_alike(fetch, columns, scan.prompt, scan.k, scan.options, task, ways))


def _without_errors(rows: Iterable[tuple[int | None, str | None, str]]) -> Iterator[Found]:
    return ((*row, None) for row in rows)


_KINDS = {"task": _alike, "try": _trials, "sample": _sample, "rank": _ranks, "estimate": _estimate}
"""The options that say what a scan is for."""


def _parse_k(k: object) -> int | None:
    if k is not None and type(k) is not int:
        raise OptionError("k is not a whole number", hint="0 gives no row, and null ranks all of them.")
    return k
