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
from models.recipe.notes import TOPICS, Topic, note, plain
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
_LONGEST_VALUE_CHARS = 40
_WORD = re.compile(r"[^\W\d_]{4,}")
_WORDS = re.compile(r"(?=(?<!\w)([^\W\d_]{3,} [^\W\d_]{4,}))")


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
class Subject:
    """A row to ask about, and what is known of it.

    Attributes:
        row: The row.
        column: The column with the text; None where the row has none.
        felt: The text's sentiment, if it is a review.
        topic: The text's topic, if it is a note.
    """

    row: Row
    column: str | None = None
    felt: Sentiment | None = None
    topic: Topic | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What can be asked about it."""
        by_task: dict[Task, bool] = {
            "sentiment": self.felt is not None,
            "label": self.topic is not None,
            "mention": True,
            "value": any(map(_is_short, self.row.values())),
        }
        return tuple(task for task, possible in by_task.items() if possible)


@dataclass(frozen=True, slots=True)
class Example:
    """A question about a row.

    Attributes:
        task: What is asked for.
        prompt: The question, with the column in braces, as `llm.map` takes it.
        row: The row, in the order in which it is to be sent.
        answer: The right answer.
        choices: The answers that are possible; empty where any is.
        about: What is known of the row.
        words: What is to be looked for in the row, or compared with its text.
    """

    task: Task
    prompt: str
    row: Row
    answer: str
    choices: tuple[str, ...]
    about: Subject
    words: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """The column asked about."""
        return self.prompt.partition("{")[2].partition("}")[0]

    @property
    def message(self) -> str:
        """The user message, as `pg_bridge.asking.prompt` writes it."""
        return f"{self.question}\n{dumped(self.row)}"

    @property
    def question(self) -> str:
        """The question alone, as it is sent."""
        return self.prompt.replace("{", "").replace("}", "")

    @property
    def checksum(self) -> int:
        """A number that two examples share if they ask the same."""
        return zlib.crc32(self.message.encode())


def dumped(value: Value | Row) -> str:
    """Write a value, or a row, as `pg_bridge.asking.prompt` sends it."""
    return json.dumps(value, ensure_ascii=False)


def examples(
    rng: random.Random, split: Split = SEEN, *, tasks: Sequence[Task] = TASKS, most_columns: int = 10
) -> Iterator[Example]:
    """Yield examples without end, of each of the tasks in turn, each about a row of its own."""
    for task in itertools.cycle(tasks):
        yield example(rng, task, split, most_columns=most_columns)


def example(rng: random.Random, task: Task, split: Split = SEEN, *, most_columns: int = 10) -> Example:
    """Make one example of a task."""
    return ask(rng, task, subject(rng, task, split, most_columns=most_columns), split)


def subject(rng: random.Random, task: Task, split: Split = SEEN, *, most_columns: int = 10) -> Subject:
    """Make a row that a task can be asked about."""
    kinds: dict[Task, tuple[Kind | None, ...]] = {
        "sentiment": ("review",),
        "label": ("note",),
        "mention": ("sentence", "sentence", "sentence", "note", "review", None),
        "value": ("sentence", None, None, None),
    }
    kind = rng.choice(kinds[task])
    felt = rng.choice(get_args(Sentiment)) if kind == "review" else None
    about = topic(rng) if kind == "note" else None
    if felt:
        text = review(rng, felt)
    elif about:
        text = note(rng, about) if rng.random() < 0.9 else _few_words(rng, about)
    else:
        text = plain(rng)
    while True:
        row, column = row_with(rng, kind, text, which=split.shapes, most_columns=most_columns)
        made = Subject(row, column if kind else None, felt, about)
        if task in made.tasks:
            return made


def ask(rng: random.Random, task: Task, about: Subject, split: Split = SEEN) -> Example:
    """Ask something about a row: one of its `tasks`."""
    return {"sentiment": _sentiment, "label": _label, "mention": _mention, "value": _value}[task](rng, about, split)


def system_prompt(rng: random.Random) -> str:
    """Return a system prompt: as a rule the product's own."""
    return rng.choices((DEFAULT_SYSTEM_PROMPT, "", "Answer briefly.", "You are helpful."), (0.8, 0.1, 0.05, 0.05))[0]


# -- the tasks


def _sentiment(rng: random.Random, about: Subject, split: Split) -> Example:
    felt = about.felt
    chance = rng.random()
    if chance < 0.1:
        return _example("sentiment", rng, wordings.OPINION, about, split, felt or "")
    if chance < 0.3 and felt in {"positive", "negative"}:
        praise = rng.random() < 0.6
        answer = "yes" if (felt == "positive") == praise else "no"
        texts = wordings.PRAISE if praise else wordings.BLAME
        return _example("sentiment", rng, texts, about, split, answer, ("yes", "no"))
    labels = rng.choice([labels for labels in _LABEL_SETS if felt in labels or len(labels) == 3])
    # Where there is only one word for neutral and mixed, it stands for both.
    place = labels.index(felt) if felt in labels else 2
    names: tuple[str, ...] = rng.choice(_PAIRS) if len(labels) == 2 and rng.random() < 0.3 else labels
    return _listed("sentiment", rng, wordings.SENTIMENT, about, split, names[place], names)


def _label(rng: random.Random, about: Subject, split: Split) -> Example:
    chosen = about.topic
    assert chosen is not None  # noqa: S101 - `Subject.tasks` says so
    far = [other for other in TOPICS if other is not chosen and not _are_close(chosen, other)]
    chance = rng.random()
    if chance < 0.3:
        return _example("label", rng, wordings.ABOUT, about, split, chosen.labels[0])
    if chance < 0.45:
        is_it = rng.random() < 0.5
        word = rng.choice((chosen if is_it else rng.choice(far)).labels)
        return _example("label", rng, wordings.TOPIC, about, split, "yes" if is_it else "no", ("yes", "no"), word)
    others = rng.sample(far, rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 5, 6)))
    names = [rng.choice(each.labels) for each in others]
    answer = rng.choice(chosen.labels)
    if len(names) > 1 and rng.random() < 0.1:
        names, answer = [*names, "other"], "other"
    else:
        names += [answer, "other"] if rng.random() < 0.1 else [answer]
    style = rng.choices((str, str.upper, str.capitalize), (0.8, 0.07, 0.13))[0]
    return _listed("label", rng, wordings.LABEL, about, split, style(answer), tuple(map(style, names)))


def _mention(rng: random.Random, about: Subject, split: Split) -> Example:
    if about.column is None or rng.random() < 0.15:
        return _equals(rng, about, split)
    text = _spoken(about.row[about.column])
    beside = _words(" ".join(_spoken(value) for name, value in about.row.items() if name != about.column))
    found = _words(text)
    if found and rng.random() < 0.4:
        word = rng.choice(found)
        absent = {_absent(rng, beside) for _ in range(rng.choice((1, 2, 2, 3, 4)))}
        names = [word, *sorted(each for each in absent if not _mentions(text, each))]
        return _listed("mention", rng, wordings.WHICH, about, split, word, names)
    word = rng.choice(found) if found and rng.random() < 0.5 else _absent(rng, beside)
    if rng.random() < 0.1:
        word = rng.choice((word.lower(), word.capitalize(), word.upper()))
    answer = "yes" if _mentions(text, word) else "no"
    return _example("mention", rng, wordings.MENTION, about, split, answer, ("yes", "no"), word)


def _absent(rng: random.Random, beside: Sequence[str]) -> str:
    """Return a word that a text is not likely to have; now and then one that stands in another column."""
    chance = rng.random()
    if chance < 0.25 and beside:
        return rng.choice(beside)
    if chance < 0.35:
        return invented_word(rng)
    return thing(rng) if chance < 0.8 else rng.choice(topic(rng).words)


def _equals(rng: random.Random, about: Subject, split: Split) -> Example:
    column = rng.choice([name for name, value in about.row.items() if _is_short(value)] or list(about.row))
    spoken = _spoken(about.row[column])
    others = [value for name, value in about.row.items() if name != column and _is_short(value)]
    others += [thing(rng), rng.randint(0, 999)]
    asked = spoken if rng.random() < 0.5 else _spoken(rng.choice(others))
    answer = "yes" if asked == spoken else "no"
    return _example("mention", rng, wordings.EQUALS, about, split, answer, ("yes", "no"), asked, column)


def _value(rng: random.Random, about: Subject, split: Split, column: str = "") -> Example:
    column = column or rng.choice([name for name, value in about.row.items() if _is_short(value)])
    return _example("value", rng, wordings.VALUE, about, split, _spoken(about.row[column]), column=column)


# -- their parts


def _listed(
    task: Task,
    rng: random.Random,
    texts: Wordings,
    about: Subject,
    split: Split,
    answer: str,
    names: Sequence[str],
) -> Example:
    """Ask for one of several names, which the question lists in any order; `other` stands last."""
    order = rng.sample(names, len(names))
    order.sort(key=lambda name: name.casefold() == "other")
    return _example(task, rng, texts, about, split, answer, tuple(order), labels=_list(rng, order))


def _example(
    task: Task,
    rng: random.Random,
    texts: Wordings,
    about: Subject,
    split: Split,
    answer: str,
    choices: tuple[str, ...] = (),
    word: str = "",
    column: str | None = None,
    *,
    labels: str = "",
) -> Example:
    pattern = rng.choice(texts.seen if split.wordings == "seen" else texts.held_out)
    # One pass, so that a word which looks like a placeholder stays one.
    name = column or about.column or ""
    parts = {"{c}": f"{{{name}}}", "{w}": word.replace("{", "").replace("}", ""), "{l}": labels}
    prompt = re.sub(r"\{[cwl]\}", lambda match: parts[match[0]], pattern)
    return Example(task, prompt, about.row, answer, choices, about, (word,) if word else choices)


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


def _words(text: str) -> list[str]:
    """Return words of a text, and now and then two that follow each other."""
    return 3 * _WORD.findall(text) + _WORDS.findall(text)


def _mentions(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()) is not None


def _spoken(value: Value) -> str:
    return value if isinstance(value, str) else dumped(value)


def _is_short(value: Value) -> bool:
    return len(_spoken(value)) <= _LONGEST_VALUE_CHARS
