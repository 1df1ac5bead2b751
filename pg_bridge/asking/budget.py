"""Whether more may be asked, by what is allowed and what has been taken of it.

In: prompts before they are sent, and answers as they land. Out: yes or no, and an error or a reason in words. What is
in flight counts as the least that it can take, going by lengths and by what was answered before, so that what is
refused would have been too much. Nothing that was sent is taken back: at most what was in flight goes beyond a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pg_bridge.asking.ceilings import Kind, Limit, find_limits, reached
from pg_bridge.asking.run import Run
from pg_bridge.engine import Completion
from pg_bridge.errors import BudgetExceeded
from pg_bridge.ledger.account import Account
from pg_bridge.ledger.prices import cost_of, has_prices
from pg_bridge.ledger.spending import CHARS_PER_TOKEN, Spending, Spent
from pg_bridge.ledger.usage import Figures
from pg_bridge.options import Call, Server


class Asked(NamedTuple):
    """Prompts that are to be sent.

    Attributes:
        call: How they are asked.
        prompts: How many.
        chars: Their characters, instructions included.
    """

    call: Call
    prompts: int
    chars: int


class _Tokens(NamedTuple):
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int


@dataclass(slots=True, eq=False)
class _Purse:
    """What a call may take.

    Attributes:
        call: The call.
        spent: What it and its like have taken in this statement.
        limits: Each with what is measured by it.
        shut_by: The limit for which nothing more is sent of it; None while there is none.
        answered_chars: Of its prompts that were answered in this run.
    """

    call: Call
    spent: Spent
    limits: list[tuple[Limit, Spent]]
    shut_by: Limit | None = None
    answered_chars: int = 0

    @property
    def foresees(self) -> bool:
        return self.call.on_budget == "fail" and any(limit.kind != "seconds" for limit, _ in self.limits)


class Budget:
    """What the questions of one run may take.

    Args:
        account: Of the statement and its server; None for calls that have their own limits only.
        run: Whose usage is counted.
    """

    def __init__(self, account: Account | None, run: Run) -> None:
        self._account = account
        self._server: Server | None = account.server if account else None
        self._spending = account.spending if account else Spending()
        self._run = run
        self._purses: dict[int, _Purse] = {}  # by the call's identity: hashing it for every prompt would cost more
        self._is_limited = False
        self._sent: dict[int, tuple[_Purse, int]] = {}  # by the prompt's number: whose it is, and its characters
        self._told = (0, 0)  # prompt and completion tokens, by the engine
        self._counted = (0, 0)  # the same, where it does not tell by characters
        self._cost = 0.0
        self._failure: BudgetExceeded | None = None

    @property
    def is_over(self) -> bool:
        """Whether the statement is to end; then nothing more need be made."""
        return self._failure is not None

    def check(self) -> None:
        """End the statement, if it is to end.

        Raises:
            BudgetExceeded: It is.
        """
        if self._failure is not None:
            raise self._failure

    def expect(self, calls: Iterable[Call]) -> None:
        """Look up the limits of all calls that the run is going to ask.

        Raises:
            OptionError: One of them is a cost, and the server has no prices.
        """
        for call in calls:
            self._is_limited |= bool(self._purse(call).limits)

    def foresees(self, call: Call) -> bool:
        """Whether all that a call will ask is to be known before anything is sent."""
        return self._purse(call).foresees

    def allows(self, asked: Iterable[Asked]) -> bool:
        """Whether prompts that will all be sent can be afforded; if not, the statement is to end.

        Those of calls that make do with fewer answers are not looked at.
        """
        known = [(self._purse(each.call), each) for each in asked]
        for purse in dict.fromkeys(purse for purse, _ in known if purse.foresees):
            for limit, spent in purse.limits:
                own = [each for of, each in known if of.foresees and (limit.of != "call" or of.spent is spent)]
                prompts, chars = sum(each.prompts for each in own), sum(each.chars for each in own)
                if self._at_least(limit, spent, prompts, chars) > limit.most:
                    tokens = self._least_tokens(prompts, chars)
                    self._end(purse, limit, spent, Spent(prompts, *tokens, cost=self._least_cost(*tokens)))
                    return False
        return True

    def admits(self, call: Call, number: int, chars: int) -> bool:
        """Whether one more prompt may be sent; if so, it counts as sent.

        Args:
            call: How it is asked.
            number: The prompt's.
            chars: Its characters, without the instruction.
        """
        if not self._is_limited:
            return True
        purse, chars = self._purse(call), chars + len(call.system_prompt)
        if self._is_shut(purse, chars):
            return False
        for spent in (self._spending.total, purse.spent):
            spent.send(chars)
        self._sent[number] = purse, chars
        return True

    def is_shut(self, call: Call) -> bool:
        """Whether nothing more is sent of a call, however short a prompt is."""
        return self._is_limited and self._is_shut(self._purse(call), 0)

    def why_not(self, call: Call) -> str:
        """Why nothing more is sent of a call that is shut."""
        return f"not asked: the statement has reached its limit: {self._purse(call).shut_by}"

    def land(self, completions: Sequence[Completion]) -> None:
        """Count what answers took, as far as it is known."""
        usage, told = self._run.usage, self._told
        self._told = usage.prompt_tokens or 0, usage.completion_tokens or 0
        if not self._is_limited:
            return
        landed: dict[_Purse, int] = {}
        answer_chars = 0
        for completion in completions:
            if completion.index not in self._sent:  # sent before any limit was known
                continue
            purse, chars = self._sent.pop(completion.index)
            landed[purse] = landed.get(purse, 0) + chars
            answer_chars += len(completion.text or "")
            for spent in (self._spending.total, purse.spent):
                spent.settle(chars)
        for purse, chars in landed.items():
            purse.answered_chars += chars
        all_chars = sum(landed.values())
        tokens = (
            all_chars // CHARS_PER_TOKEN if usage.prompt_tokens is None else self._told[0] - told[0],
            answer_chars // CHARS_PER_TOKEN if usage.completion_tokens is None else self._told[1] - told[1],
        )
        self._spending.learn(len(completions), all_chars, *tokens)
        self._count(landed, *tokens)

    def close(self) -> None:
        """Count what is known at the end only, and what will not be answered any more."""
        for purse, chars in self._sent.values():
            for spent in (self._spending.total, purse.spent):
                spent.settle(chars)
        self._sent.clear()
        self._count({purse: purse.answered_chars for purse in self._purses.values() if purse.answered_chars}, 0, 0)

    def _purse(self, call: Call) -> _Purse:
        purse = self._purses.get(id(call))
        if purse is None:
            total, own = self._spending.total, self._spending.of(call)
            limits = [(limit, own if limit.of == "call" else total) for limit in find_limits(call, self._server)]
            purse = self._purses[id(call)] = _Purse(call, own, limits)
        return purse

    def _is_shut(self, purse: _Purse, chars: int) -> bool:
        """Whether one more prompt would be too much; from then on nothing more is sent of its call."""
        if purse.shut_by is not None or self.is_over:
            return True
        for limit, spent in purse.limits:
            if self._at_least(limit, spent, 1, chars) > limit.most:
                purse.shut_by = limit
                if purse.call.on_budget == "fail":
                    self._end(purse, limit, spent)
                return True
        return False

    def _end(self, purse: _Purse, limit: Limit, spent: Spent, to_come: Spent | None = None) -> None:
        """Note the error that ends the statement, when what is in flight has been answered."""
        if self._failure is None:
            account, server = self._account, self._server
            keeps = account is not None and account.keeps and purse.call.cache_at(account.server) == "persistent"
            self._failure = reached(limit, spent, to_come, keeps=keeps, has_prices=bool(server and has_prices(server)))

    def _at_least(self, limit: Limit, spent: Spent, prompts: int, chars: int) -> float:
        """What will have been taken of a limit, at the least, with some more prompts."""
        value = self._of_statement(limit.kind, spent, prompts, chars)
        return value + self._others_today(limit.kind) if limit.of == "day" else value

    def _of_statement(self, kind: Kind, spent: Spent, prompts: int, chars: int) -> float:
        if kind == "requests":
            return spent.requests + prompts
        if kind == "seconds":
            return spent.seconds
        tokens = self._least_tokens(spent.in_flight + prompts, spent.in_flight_chars + chars)
        if kind == "cost":
            return spent.cost + self._least_cost(*tokens)
        return spent.prompt_tokens + tokens[0] if kind == "prompt_tokens" else spent.completion_tokens + tokens[1]

    def _others_today(self, kind: Kind) -> float:
        others = self._account.others_today() if self._account else Figures()
        return float(others.questions if kind == "requests" else getattr(others, kind))

    def _least_tokens(self, prompts: int, chars: int) -> tuple[int, int]:
        """The least that some prompts and their answers take."""
        per_char = self._spending.tokens_per_char
        prompt_tokens = chars / CHARS_PER_TOKEN if per_char is None else chars * per_char
        return int(prompt_tokens), int(prompts * (self._spending.tokens_per_answer or 1))

    def _least_cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return self._cost_of(_Tokens(prompt_tokens, prompt_tokens, completion_tokens))

    def _cost_of(self, tokens: _Tokens) -> float:
        return (cost_of(tokens, self._server) if self._server else None) or 0.0

    def _count(self, chars_of: Mapping[_Purse, int], prompt_tokens: int, completion_tokens: int) -> None:
        """Count in tokens, and what all of them cost by now; several calls share them by their prompts' lengths."""
        self._counted = self._counted[0] + prompt_tokens, self._counted[1] + completion_tokens
        before = self._cost
        self._cost = self._cost_of(_Tokens(self._counted[0], self._run.usage.cached_tokens, self._counted[1]))
        whole = sum(chars_of.values())
        shares = [(purse.spent, chars / whole if whole else 0.0) for purse, chars in chars_of.items()]
        for spent, share in [(self._spending.total, 1.0), *shares]:
            spent.prompt_tokens += round(prompt_tokens * share)
            spent.completion_tokens += round(completion_tokens * share)
            spent.cost += (self._cost - before) * share
