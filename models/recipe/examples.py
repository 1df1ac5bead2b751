"""Examples to learn from and to be scored on: a question about a row, and its right answer.

In: a random generator, and which wordings and table shapes may be used. Out: an `Example`. The right answer follows
from how the row was made, never from a model. It knows no tokens.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from models.recipe import wordings
from models.recipe.notes import TOPICS, Topic, note, plain, sentence
from models.recipe.reviews import Sentiment, review
from models.recipe.tables import Kind, Row, Shapes, Value, invented_word, row_with, thing, topic
from models.recipe.wordings import Wordings
from pg_bridge.options import DEFAULT_SYSTEM_PROMPT

Task = Literal["sentiment", "label", "mention", "value"]
TASKS: tuple[Task, ...] = get_args(Task)

_LABEL_SETS: tuple[tuple[Sentiment, ...], ...] = (
    ("positive", "negative"),
    ("positive", "negative", "mixed"),
    ("positive", "negative", "mixed"),
    ("positive", "negative", "neutral"),
    ("positive", "negative", "neutral"),
    ("positive", "negative", "neutral", "mixed"),
)
_PAIRS = (("good", "bad"), ("happy", "unhappy"), ("favourable", "unfavourable"), ("kind", "unkind"))
_LONGEST_VALUE_CHARS = 60
_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True, slots=True)
class Split:
    """What examples are made from.

    Attributes:
        shapes: Which tables.
        wordings: Which wordings.
    """

    shapes: Shapes = "seen"
    wordings: Shapes = "seen"


SEEN = Split()


@dataclass(frozen=True, slots=True)
class Example:
    """A question about a row.

    Attributes:
        task: What is asked for.
        prompt: The question, with the column in braces, as `llm.map` takes it.
        row: The row, in the order in which it is to be sent.
        answer: The right answer.
        choices: The answers that are possible; empty where any is.
    """

    task: Task
    prompt: str
    row: Row
    answer: str
    choices: tuple[str, ...]

    @property
    def message(self) -> str:
        """The user message, as `pg_bridge.prompt` writes it."""
        return f"{self.prompt.replace('{', '').replace('}', '')}\n{dumped(self.row)}"

    @property
    def checksum(self) -> int:
        """A number that two examples share if they ask the same."""
        return zlib.crc32(self.message.encode())


def dumped(value: Value | Row) -> str:
    """Write a value, or a row, as `pg_bridge.prompt` sends it."""
    return json.dumps(value, ensure_ascii=False)


def examples(
    rng: random.Random, split: Split = SEEN, *, tasks: Sequence[Task] = TASKS, most_columns: int = 10
) -> Iterator[Example]:
    """Yield examples without end, of each of the tasks in turn."""
    for task in itertools.cycle(tasks):
        yield example(rng, task, split, most_columns=most_columns)


def example(rng: random.Random, task: Task, split: Split = SEEN, *, most_columns: int = 10) -> Example:
    """Make one example of a task."""
    return {"sentiment": _sentiment, "label": _label, "mention": _mention, "value": _value}[task](
        rng, split, most_columns
    )


def system_prompt(rng: random.Random) -> str:
    """Return a system prompt: the product's own, none, or another. Short examples learn as much in less time."""
    return rng.choices((DEFAULT_SYSTEM_PROMPT, "", "Answer briefly.", "You are helpful."), (0.35, 0.55, 0.05, 0.05))[0]


# -- the tasks


def _sentiment(rng: random.Random, split: Split, most_columns: int) -> Example:
    chance = rng.random()
    if chance < 0.65:
        labels = rng.choice(_LABEL_SETS)
        right = rng.choice(labels)
        # Where there is only one word for both, it stands for both.
        felt = rng.choice(("neutral", "mixed")) if len(labels) == 3 and right in labels[2:] else right
        names: tuple[str, ...] = labels
        if len(labels) == 2 and rng.random() < 0.3:
            names = rng.choice(_PAIRS)
        answer = names[labels.index(right)]
        return _of_review(rng, split, most_columns, wordings.SENTIMENT, felt, answer, names, listed=True)
    if chance < 0.75:
        felt = rng.choice(("positive", "negative", "neutral", "mixed"))
        return _of_review(rng, split, most_columns, wordings.OPINION, felt, felt)
    felt = rng.choice(("positive", "negative"))
    praise = rng.random() < 0.6
    answer = "yes" if (felt == "positive") == praise else "no"
    texts = wordings.PRAISE if praise else wordings.BLAME
    return _of_review(rng, split, most_columns, texts, felt, answer, ("yes", "no"))


def _of_review(
    rng: random.Random,
    split: Split,
    most_columns: int,
    texts: Wordings,
    felt: Sentiment,
    answer: str,
    choices: tuple[str, ...] = (),
    *,
    listed: bool = False,
) -> Example:
    row, column = row_with(rng, "review", review(rng, felt), which=split.shapes, most_columns=most_columns)
    labels = ""
    if listed:
        choices = tuple(rng.sample(choices, len(choices)))
        labels = _list(rng, choices)
    return Example("sentiment", _wording(rng, split, texts, column, labels=labels), row, answer, choices)


def _label(rng: random.Random, split: Split, most_columns: int) -> Example:
    chosen = topic(rng)
    text = note(rng, chosen) if rng.random() < 0.9 else _few_words(rng, chosen)
    row, column = row_with(rng, "note", text, which=split.shapes, most_columns=most_columns)
    far = [other for other in TOPICS if other is not chosen and not _are_close(chosen, other)]
    if rng.random() < 0.2:
        about = rng.random() < 0.5
        word = rng.choice((chosen if about else rng.choice(far)).labels)
        prompt = _wording(rng, split, wordings.TOPIC, column, word=word)
        return Example("label", prompt, row, "yes" if about else "no", ("yes", "no"))
    others = rng.sample(far, rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 5, 6)))
    names = [rng.choice(each.labels) for each in others]
    answer = rng.choice(chosen.labels)
    is_other = len(names) > 1 and rng.random() < 0.1
    if not is_other:
        names.append(answer)
    names = rng.sample(names, len(names))
    if rng.random() < 0.1 or is_other:
        names.append("other")
    if is_other:
        answer = "other"
    style = rng.choices((str, str.upper, str.capitalize), (0.8, 0.07, 0.13))[0]
    names, answer = [style(name) for name in names], style(answer)
    prompt = _wording(rng, split, wordings.LABEL, column, labels=_list(rng, names))
    return Example("label", prompt, row, answer, tuple(names))


def _mention(rng: random.Random, split: Split, most_columns: int) -> Example:
    if rng.random() < 0.15:
        return _equals(rng, split, most_columns)
    there = rng.random() < 0.5
    kind: Kind = rng.choice(("sentence", "sentence", "note", "review"))
    word = thing(rng) if rng.random() < 0.75 else rng.choice(topic(rng).words)
    if rng.random() < 0.12:
        word = invented_word(rng)
    if kind == "sentence":
        text = sentence(rng, word) if there else plain(rng)
    else:
        text = note(rng, topic(rng)) if kind == "note" else review(rng, rng.choice(get_args(Sentiment)))
        found = _WORD.findall(text)
        if there and found:
            word = rng.choice(found)
    row, column = row_with(rng, kind, text, which=split.shapes, most_columns=most_columns)
    if not there and len(row) > 1 and rng.random() < 0.35:
        # It stands in the row, but not in the column asked about.
        beside = rng.choice([name for name in row if name != column])
        row[beside] = word if rng.random() < 0.5 else sentence(rng, word)
    if rng.random() < 0.1:
        word = rng.choice((word.lower(), word.capitalize(), word.upper()))
    answer = "yes" if _mentions(text, word) else "no"
    return Example("mention", _wording(rng, split, wordings.MENTION, column, word=word), row, answer, ("yes", "no"))


def _equals(rng: random.Random, split: Split, most_columns: int) -> Example:
    row, column = row_with(rng, None, "", which=split.shapes, most_columns=most_columns)
    others = [value for name, value in row.items() if name != column] + [thing(rng), rng.randint(0, 999)]
    asked = row[column] if rng.random() < 0.5 else rng.choice(others)
    answer = "yes" if _spoken(asked) == _spoken(row[column]) else "no"
    return Example(
        "mention", _wording(rng, split, wordings.EQUALS, column, word=_spoken(asked)), row, answer, ("yes", "no")
    )


def _value(rng: random.Random, split: Split, most_columns: int) -> Example:
    while True:
        with_text = rng.random() < 0.2
        kind: Kind | None = "sentence" if with_text else None
        text = plain(rng) if with_text else ""
        row, _ = row_with(rng, kind, text, which=split.shapes, most_columns=most_columns)
        short = [name for name, value in row.items() if len(_spoken(value)) <= _LONGEST_VALUE_CHARS]
        if short:
            column = rng.choice(short)
            prompt = _wording(rng, split, wordings.VALUE, column)
            return Example("value", prompt, row, _spoken(row[column]), ())


# -- their parts


def _wording(
    rng: random.Random, split: Split, texts: Wordings, column: str, *, word: str = "", labels: str = ""
) -> str:
    pattern = rng.choice(texts.seen if split.wordings == "seen" else texts.held_out)
    # One pass, so that a word which looks like a placeholder stays one.
    parts = {"{c}": f"{{{column}}}", "{w}": word.replace("{", "").replace("}", ""), "{l}": labels}
    return re.sub(r"\{[cwl]\}", lambda match: parts[match[0]], pattern)


def _list(rng: random.Random, names: Sequence[str]) -> str:
    chance = rng.random()
    if chance < 0.6:
        joint = rng.choice((" or ", " or ", ", or " if len(names) > 2 else " or "))
        return ", ".join(names[:-1]) + joint + names[-1]
    if chance < 0.9:
        return rng.choice((", ", ", ", "/", " | ")).join(names)
    return ", ".join(f"'{name}'" for name in names)


def _are_close(one: Topic, other: Topic) -> bool:
    return other.labels[0] in one.close or one.labels[0] in other.close


def _few_words(rng: random.Random, chosen: Topic) -> str:
    return rng.choice((" / ", ", ", " ")).join(rng.sample(chosen.words, rng.randint(1, 3)))


def _mentions(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()) is not None


def _spoken(value: Value) -> str:
    return value if isinstance(value, str) else dumped(value)
