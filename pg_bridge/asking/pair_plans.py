"""How the pairs of a condition are asked about: each by itself, in lists, in blocks, or whichever of them costs least.

In: a matter, how its call wants pairs to be asked, how long a prompt may be and what tokens cost. Out: questions about
several pairs, in the order in which to send them, and the places of what is asked pair by pair. Lengths are bytes of
UTF-8, and no token is counted: what is too long all the same is asked in halves.

A list is of the side whose texts are shorter in all: names, labels, titles. It stands in front, so that the engine
computes it once for all rows that it is asked with. Where each row is asked about with the nearest of the other side
only, it has a list of its own, and a block is of rows that are near to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pg_bridge.asking.joint import (
    ANSWER_TOKENS,
    FEWEST,
    LIST_ROWS,
    TOKENS_BESIDES,
    TOKENS_OF_NUMBER,
    TOKENS_OF_PAIR,
    Joint,
    Writer,
)
from pg_bridge.asking.nearest import LAST
from pg_bridge.asking.pairs import Matter
from pg_bridge.asking.prefix_cache import CHARS_PER_TOKEN
from pg_bridge.asking.reduction import BYTES_PER_TOKEN, DEFAULT_CONTEXT_TOKENS, TEMPLATE_TOKENS
from pg_bridge.options import Call, Server
from pg_bridge.options.values import Pairs

LIST_BYTES = 4_000
"""Of the rows of one list."""

BLOCK_ROWS = 20
BLOCK_FRONTS = 4
"""Rows beside the list of a block, and how many times as long as what stands in front they are together, at most: with
more of them a fifth of what is left could be saved, and they would be answered worse."""

_DENSITY = 2  # of so many pairs that a block can tell of, one is asked about
TASK_TOKENS = 80
"""Of what a question about several pairs says besides the prompt and the rows."""

_ANSWER_SHARE = 4  # of so many tokens of the context, one is left to a block's answer
_YES_TOKENS = 2  # of an answer about one pair
_CACHED, _COMPLETION = 0.1, 4.0  # what tokens cost beside those of prompts, where the server does not say


@dataclass(frozen=True, slots=True)
class Terms:
    """What an engine takes, and at what price.

    Attributes:
        context_tokens: What a prompt and its answer may have together; some where nobody tells.
        prompt: What a token of a prompt costs that is computed; in whatever currency.
        cached: What one costs that the prefix cache holds.
        completion: What one of an answer costs.
    """

    context_tokens: int = DEFAULT_CONTEXT_TOKENS
    prompt: float = 1.0
    cached: float = _CACHED
    completion: float = _COMPLETION

    @classmethod
    def of(cls, server: Server, context_tokens: int) -> Terms:
        """At a server's prices, where it has some."""
        if server.price_prompt is None or server.price_completion is None:
            return cls(context_tokens)
        cached = server.price_prompt if server.price_cached is None else server.price_cached
        return cls(context_tokens, server.price_prompt, cached, server.price_completion)

    @property
    def answer_tokens(self) -> int:
        """Of an answer about a block, at most."""
        return max(1, min(ANSWER_TOKENS, self.context_tokens // _ANSWER_SHARE))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a matter is asked about.

    Attributes:
        joints: Questions about several pairs, in the order in which to send them.
        alone: The places of what is asked pair by pair.
    """

    joints: Sequence[Joint]
    alone: Sequence[int]


def plan_pairs(matter: Matter, call: Call, terms: Terms, yes_share: float) -> Plan:
    """Arrange the pairs of a matter as its call says.

    Args:
        matter: The matter.
        call: Says how; with `auto` what costs least, and of equals that with the smallest questions.
        terms: Of the engine.
        yes_share: The share of pairs for which the answer is expected to be yes.
    """
    ways: dict[Pairs, Plan] = {}
    for way in ("each", "listed", "blocks") if call.pairs == "auto" else (call.pairs,):
        ways[way] = _plan(way, matter, call, terms, yes_share)
    if len(ways) == 1:
        return ways[call.pairs]
    return min(ways.values(), key=lambda plan: _cost(plan, matter, call, terms, yes_share))


def _plan(way: Pairs, matter: Matter, call: Call, terms: Terms, yes_share: float) -> Plan:
    if way == "each":
        return Plan((), [place for places in matter.places.values() for place in places])
    sizes = [[len(text.encode(errors="surrogatepass")) for text in side] for side in matter.sides]
    frame = Frame(matter.prompt, call, terms, way == "blocks")
    if call.nearest is None:
        listed = min((1, 0), key=lambda side: (len(sizes[side]) < FEWEST, sum(sizes[side])))
        lists = list(_cut(sizes[listed], frame.list_bytes))
        front = frame.said + max(sum(sizes[listed][candidate] for candidate in part) for part in lists)
        of_rows = _asked_with(matter, listed, lists)
    else:
        listed, front = LAST, frame.said + frame.list_bytes
        of_rows = _nearest_of(matter, sizes[listed], frame.list_bytes)
    joints: list[Joint] = []
    alone: list[int] = []
    for of_row in of_rows:
        several = {row: own for row, own in of_row.items() if len(own) >= FEWEST}
        for row in of_row.keys() - several.keys():
            alone += [place for candidate in of_row[row] for place in matter.of(listed, row, candidate)]
        if way == "listed":
            joints += [Joint(matter, listed, (row,), own) for row, own in several.items()]
        else:  # equally cut beside every list: rows may stand in front of all of them
            joints += _blocks(matter, listed, several, sizes, frame, front, yes_share)
    return Plan(joints, alone)


class Frame:
    """How much room there is in a prompt, in bytes.

    Args:
        prompt: The condition.
        call: How it is asked.
        terms: Of the engine.
        is_block: Whether it is asked about in blocks.

    Attributes:
        answer_tokens: Of an answer about a block, at most.
        said: What is said besides rows, by the user.
        room: What there is for rows.
        list_bytes: What there is of it for a list.
    """

    def __init__(self, prompt: str, call: Call, terms: Terms, is_block: bool) -> None:
        self.answer_tokens = max(call.max_tokens, terms.answer_tokens)
        answer = self.answer_tokens if is_block else max(call.max_tokens, TOKENS_BESIDES + TOKENS_OF_NUMBER * LIST_ROWS)
        self.said = len((call.system_prompt + prompt).encode(errors="surrogatepass"))
        room = (terms.context_tokens - answer - TEMPLATE_TOKENS - TASK_TOKENS) * BYTES_PER_TOKEN - self.said
        self.room = max(0, room)
        self.list_bytes = min(LIST_BYTES, self.room // 2)


def _asked_with(matter: Matter, listed: int, lists: Sequence[Sequence[int]]) -> list[dict[int, tuple[int, ...]]]:
    """For each list, and each row that is asked about with some of it, its candidates."""
    list_of = {candidate: number for number, part in enumerate(lists) for candidate in part}
    of_lists: list[dict[int, list[int]]] = [{} for _ in lists]
    for pair in matter.places:
        candidate, row = pair[listed], pair[1 - listed]
        of_lists[list_of[candidate]].setdefault(row, []).append(candidate)
    return [{row: tuple(sorted(of_row[row])) for row in sorted(of_row)} for of_row in of_lists]


def _nearest_of(matter: Matter, sizes: Sequence[int], most_bytes: int) -> list[dict[int, tuple[int, ...]]]:
    """For each row its candidates; of those that have more than a list holds first the nearest."""
    own: dict[int, list[int]] = {}
    for pair in matter.places:
        own.setdefault(pair[1 - LAST], []).append(pair[LAST])
    parts: list[dict[int, tuple[int, ...]]] = []
    for row in sorted(own):
        for number, part in enumerate(_cut([sizes[candidate] for candidate in own[row]], most_bytes)):
            if number == len(parts):
                parts.append({})
            parts[number][row] = tuple(sorted(own[row][place] for place in part))
    return parts


def _cut(sizes: Sequence[int], most_bytes: int) -> Iterator[list[int]]:
    """Lists of about as many rows each: questions of one form share requests."""
    most_rows = -(-len(sizes) // -(-len(sizes) // LIST_ROWS))
    part: list[int] = []
    length = 0
    for number, size in enumerate(sizes):
        if part and (len(part) == most_rows or length + size > most_bytes):
            yield part
            part, length = [], 0
        part.append(number)
        length += size
    yield part


def _blocks(
    matter: Matter,
    listed: int,
    of_row: dict[int, tuple[int, ...]],
    sizes: Sequence[Sequence[int]],
    frame: Frame,
    front: int,
    yes_share: float,
) -> Iterator[Joint]:
    """Put rows together that are asked about with the same candidates, or nearly so.

    Rows that other conditions have left alike come one after the other; so do those of `a.id < b.id`, and most of those
    that are near to the same.
    """
    of_list, of_rows = sizes[listed], sizes[1 - listed]
    most_bytes = min(frame.room + frame.said - front, BLOCK_FRONTS * front)
    most_pairs = (frame.answer_tokens - TOKENS_BESIDES) / (TOKENS_OF_PAIR * yes_share)
    rows: list[int] = []
    union: set[int] = set()
    pairs = length = 0
    for row, own in sorted(of_row.items(), key=lambda item: (item[1], item[0])):
        grown = union | set(own)
        if rows and (
            len(rows) == BLOCK_ROWS
            or length + of_rows[row] > most_bytes
            or (len(grown) > len(union) and _is_more_than_a_list(grown, of_list, frame))
            or pairs + len(own) > most_pairs
            or (pairs + len(own)) * _DENSITY < (len(rows) + 1) * len(grown)
        ):
            yield Joint(matter, listed, tuple(rows), tuple(sorted(union)))
            rows, grown, pairs, length = [], set(own), 0, 0
        rows.append(row)
        union, pairs, length = grown, pairs + len(own), length + of_rows[row]
    if rows:
        yield Joint(matter, listed, tuple(rows), tuple(sorted(union)))


def _is_more_than_a_list(candidates: set[int], sizes: Sequence[int], frame: Frame) -> bool:
    return len(candidates) > LIST_ROWS or sum(sizes[candidate] for candidate in candidates) > frame.list_bytes


def _cost(plan: Plan, matter: Matter, call: Call, terms: Terms, yes_share: float) -> float:
    """What a plan is expected to cost, going by lengths; what a prompt has in common with the one before is cached."""
    said = len(call.system_prompt) + len(matter.prompt) + TEMPLATE_TOKENS * CHARS_PER_TOKEN
    writer = Writer(matter)
    prompts = cached = completions = 0.0
    front = ""
    for joint in plan.joints:
        rows, candidates = joint.shape
        before, front = front, writer.prompt(joint)
        prompts += said + len(front) + len(writer.row(joint))
        cached += said + (len(front) if front == before else 0)
        yes = yes_share * rows * candidates
        completions += TOKENS_BESIDES / 2 + yes * (TOKENS_OF_PAIR if joint.is_block else TOKENS_OF_NUMBER)
    prompts_alone, cached_alone = _chars_alone(plan.alone, matter, said)
    completions += _YES_TOKENS * len({*plan.alone} & {places[0] for places in matter.places.values()})
    prompts, cached = (prompts + prompts_alone) / CHARS_PER_TOKEN, (cached + cached_alone) / CHARS_PER_TOKEN
    return (prompts - cached) * terms.prompt + cached * terms.cached + completions * terms.completion


def _chars_alone(alone: Iterable[int], matter: Matter, said: int) -> tuple[float, float]:
    """Characters of the prompts of what is asked pair by pair, and of what the cache holds of them."""
    asked = {*alone}
    sizes = [[len(text) for text in side] for side in matter.sides]
    first = max((0, 1), key=lambda side: sum(sizes[side]))
    prompts = cached = 0.0
    seen: set[int] = set()
    for pair, places in matter.places.items():
        if places[0] in asked:
            prompts += said + sizes[0][pair[0]] + sizes[1][pair[1]]
            cached += said + (sizes[first][pair[first]] if pair[first] in seen else 0)
            seen.add(pair[first])
    return prompts, cached
