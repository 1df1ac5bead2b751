"""llm.evaluate, llm.tune and llm.tune_estimate: prompts and models compared on rows whose answers are known.

In: rows, which of their columns holds the known answers, candidates or a prompt, options, and a way to the servers that
the current role may use. Out: rows of these functions, each as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pg_bridge.asking.agreement import Known, Tally, all_of_kind, interval
from pg_bridge.asking.labelled import Labelled, Reading, columns_sent, columns_without, spread
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.prompt import parse_question
from pg_bridge.asking.run import Run
from pg_bridge.asking.several import parse_questions
from pg_bridge.asking.streamed import Fetch
from pg_bridge.asking.teaching import options_for_json, with_examples
from pg_bridge.asking.together import Round
from pg_bridge.asking.trials import Begin, Lessons, Tuner, evaluate
from pg_bridge.asking.tuning import SHOWN_MISTAKES, Plan, Tried
from pg_bridge.backend import postgres
from pg_bridge.backend.engines import begin_round
from pg_bridge.backend.session import SESSION
from pg_bridge.errors import OptionError
from pg_bridge.ledger.account import Account
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import DEFAULT_SYSTEM_PROMPT, Call, Server, Trial, pick

Access = Callable[[str], tuple[Server, Account]]
"""A server by its name, which the current role may use, and the statement's account with it."""

_FETCHED = 1000
_PER_ROWS = 1000
_CHARS_OF_TOKEN = 4
_NOT_THE_TEACHERS = ("choices", "max_tokens", "temperature", "system_prompt", "kind")
_OWN = ("server",)


def try_rows(
    fetch: Fetch, columns: Sequence[str | None], asked: str | None, options: object, access: Access
) -> list[str]:
    """Do what `options` says; the body of `llm._try`.

    Args:
        fetch: Fetches the rows.
        columns: Theirs.
        asked: The prompt, where one is tuned.
        options: Named arguments, and `truth`, the column of the known answers; `candidates`, where these are compared;
            `estimate`, if nothing is to be asked.
        access: A way to the servers.

    Returns:
        JSON objects.
    """
    if not isinstance(options, Mapping):
        raise OptionError("the options are not a JSON object")
    given = dict(options)
    truth, candidates = given.pop("truth", None), given.pop("candidates", None)
    is_estimate = given.pop("estimate", None) is True
    trial = Trial.from_arguments(pick(Trial, given))
    common = {name: value for name, value in given.items() if name not in pick(Trial, given)}
    if common.get("on_error") is None:
        common["on_error"] = "null"
    common["shares_limits"] = True
    others = columns_without(columns, truth)
    if "candidates" in options:
        return _evaluate(fetch, others, truth, candidates, common, trial, access)
    return _tune(fetch, others, truth, asked, common, trial, access, is_estimate=is_estimate)


def _read(fetch: Fetch, columns: Sequence[str], truth: str) -> Reading:
    rows = Reading(columns, truth)
    while some := fetch(_FETCHED):
        rows.add(some)
    return rows


def _by_truth(common: Mapping[str, Any], rows: Sequence[Labelled]) -> dict[str, Any]:
    """The options, with the form of answers that the known ones have, if none is said."""
    if common.get("choices") is not None:
        return dict(common)
    return {**common, "kind": all_of_kind(map(Known.of, {row.answer for row in rows}))}


def _begin_with(access: Access, memory: Memory) -> Begin:
    """What begins to ask; each server is looked up once."""
    known: dict[str, tuple[Server, Account]] = {}

    def begin(name: str, number: int) -> Round:
        if name not in known:
            known[name] = access(name)
        server, account = known[name]
        return begin_round(memory, server, account, number)

    return begin


def _evaluate(
    fetch: Fetch,
    columns: Sequence[str],
    truth: str,
    candidates: object,
    common: Mapping[str, Any],
    trial: Trial,
    access: Access,
) -> list[str]:
    asks = parse_questions(candidates, common, called="candidate", own=_OWN)
    for name, ask in asks.items():
        try:
            columns_sent(parse_question(ask.prompt), columns, truth)
        except Exception as error:
            error.message = f'candidate "{name}": {error.message}'  # type: ignore[attr-defined]
            raise
    servers = {name: access(name) for name in dict.fromkeys(ask.call.server for ask in asks.values())}
    rows = _read(fetch, columns, truth).sample(trial.sample, trial.seed)
    asks = parse_questions(candidates, _by_truth(common, rows), called="candidate", own=_OWN)
    memory = Memory()
    SESSION.begin_run(memory.run)
    begin = _begin_with(servers.__getitem__, memory)
    tallies = evaluate(list(asks.values()), rows, columns, trial.within, memory, begin)
    return [
        json.dumps(_result(name, tally, memory.nodes.get(number, Run()), servers[ask.call.server][0]))
        for number, ((name, ask), tally) in enumerate(zip(asks.items(), tallies, strict=True))
    ]


def _result(name: str, tally: Tally, run: Run, server: Server) -> dict[str, object]:
    """A candidate's row. What a prompt takes is told of those that were sent, and by the engine."""

    def per_rows(amount: float | None) -> float | None:
        return None if amount is None or not run.unique_prompts else _PER_ROWS * amount / run.unique_prompts

    low, high = interval(tally.agree, tally.rows)
    return {
        "name": name,
        "rows": tally.rows,
        "agree": tally.agree,
        "errors": tally.errors,
        "accuracy": tally.accuracy,
        "low": low,
        "high": high,
        "precision": tally.precision,
        "recall": tally.recall,
        "prompt_tokens": per_rows(run.usage.prompt_tokens),
        "completion_tokens": per_rows(run.usage.completion_tokens),
        "cost": per_rows(cost_of(run.usage, server)),
        "seconds": run.usage.busy_s if run.unique_prompts else None,
    }


def _tune(
    fetch: Fetch,
    others: Sequence[str],
    truth: str,
    prompt: str | None,
    common: Mapping[str, Any],
    trial: Trial,
    access: Access,
    *,
    is_estimate: bool,
) -> list[str]:
    columns = columns_sent(parse_question(prompt), others, truth)
    call = Call.from_arguments(common)
    own = {name: value for name, value in common.items() if name not in _NOT_THE_TEACHERS}
    teacher = Call.from_arguments({**own, "server": trial.teacher or call.server, **options_for_json()})
    servers = {name: access(name) for name in dict.fromkeys((call.server, teacher.server))}
    rows = _read(fetch, columns, truth).distinct(trial.sample, trial.seed)
    call = Call.from_arguments(_by_truth(common, rows))
    plan = Plan.of(len(rows), trial.rounds, trial.proposals, trial.examples)
    examples = spread(rows[: len(rows) // 2], plan.examples)
    lessons = Lessons(plan, rows, columns, examples)
    if is_estimate:
        return [json.dumps(_foreseen(prompt or "", call, lessons))]
    memory = Memory()
    SESSION.begin_run(memory.run)
    begin = _begin_with(servers.__getitem__, memory)
    tuner = Tuner(prompt or "", call, teacher, lessons, trial.within, memory, begin)
    tried = tuner.tune()
    _say_what_was_chosen(tried)
    return [json.dumps(_row(number, each, tuner, common)) for number, each in enumerate(tried)]


def _say_what_was_chosen(tried: Sequence[Tried]) -> None:
    if tried[0].is_chosen and (last := next((each for each in tried if each.chance is not None), None)) is not None:
        postgres.tell(
            "no prompt is shown to be better than the first, which is kept",
            f"Candidate {tried.index(last)} did best on the rows to learn from; on those held out it is so much better "
            f"by chance with a probability of {last.chance:.2g}. More rows with known answers may tell.",
        )


def _row(number: int, each: Tried, tuner: Tuner, common: Mapping[str, Any]) -> dict[str, object]:
    wording = each.wording
    system_prompt = None if wording is None or each.error else tuner.system_prompt(wording)
    own = common.get("system_prompt")
    right = sum(judged.is_right for judged in each.held_out)
    low, high = interval(right, len(each.held_out))
    return {
        "candidate": number,
        "round": each.round,
        "parent": each.parent,
        "prompt": None if wording is None else wording.prompt,
        "system_prompt": None if own is None and system_prompt == DEFAULT_SYSTEM_PROMPT else system_prompt,
        "learning_rows": len(each.learnt),
        "learning_accuracy": each.right / len(each.learnt) if each.learnt else None,
        "held_out_rows": len(each.held_out),
        "accuracy": right / len(each.held_out) if each.held_out else None,
        "low": low,
        "high": high,
        "chance": each.chance,
        "chosen": each.is_chosen,
        "error": each.error,
    }


def _foreseen(prompt: str, call: Call, lessons: Lessons) -> dict[str, object]:
    """What tuning would ask at most. Prompts that are not written yet count as long as the first."""
    plan = lessons.plan
    chars = sum(len(row.row) for row in lessons.rows) / len(lessons.rows)
    example = len(with_examples("", lessons.shown)) if plan.examples else 0
    of_row = len(prompt) + chars + len(call.system_prompt) + example
    of_lesson = 2 * len(prompt) + 1000 + SHOWN_MISTAKES * (chars + 100)
    return {
        "rows": len(lessons.rows),
        "learning_rows": plan.learning,
        "held_out_rows": plan.held_out,
        "questions": plan.questions,
        "lessons": plan.lessons,
        "prompt_tokens": round((plan.questions * of_row + plan.lessons * of_lesson) / _CHARS_OF_TOKEN),
    }
