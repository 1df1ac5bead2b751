"""Rows of invented tables of many shapes.

In: a random generator, and the kind of text that a question needs. Out: a row as a dict from column name to a value
that JSON can hold, its columns in random order, and the column that holds the text. The shapes are listed in
`words/shapes.txt`; half of all rows have an invented shape instead, with column names that mean nothing. It knows no
questions.
"""

from __future__ import annotations

import functools
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.recipe.notes import THINGS, TOPICS, Topic, note, plain
from models.recipe.reviews import review

Value = str | int | float | bool | None
Row = dict[str, Value]
Kind = Literal["review", "note", "sentence"]
Shapes = Literal["seen", "held out"]

_WORDS = Path(__file__).parent / "words"
_TEXT_NAMES: dict[Kind, tuple[str, ...]] = {
    "review": (
        "review", "comment", "opinion", "feedback", "text", "body", "reviewText", "review_text", "what_they_said",
        "verdict", "remarks", "testimonial", "quote", "rating_text", "answer", "post", "critique", "message",
    ),
    "note": (
        "text", "body", "message", "description", "short_desc", "note", "content", "abstract", "summary", "article",
        "comment", "details", "info", "extra_desc", "subject", "request", "email_body", "transcript", "title",
    ),
    "sentence": (
        "description", "text", "note", "remark", "details", "content", "short_desc", "comment", "line", "summary",
        "instructions", "caption", "entry", "info", "log", "message",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of an invented table: (name, kind and its arguments)."""

    name: str
    columns: tuple[tuple[str, str], ...]


@functools.cache
def shapes(which: Shapes) -> tuple[Shape, ...]:
    """Return the shapes that are trained on, or those that are held out."""
    found = []
    for block in (_WORDS / "shapes.txt").read_text().split("\n[")[1:]:
        head, *lines = block.splitlines()
        name = head.rstrip("]")
        columns = tuple(
            (left.strip(), right.strip()) for left, _, right in (line.partition(":") for line in lines) if right
        )
        if name.endswith("*") == (which == "held out"):
            found.append(Shape(name.rstrip("*"), columns))
    return tuple(found)


def row_with(
    rng: random.Random, kind: Kind | None, text: str, *, which: Shapes = "seen", most_columns: int = 10
) -> tuple[Row, str]:
    """Make a row that holds a text.

    Args:
        rng: Where chance comes from.
        kind: What sort of text it is; None puts no text in, and names some other column.
        text: The text itself.
        which: Shapes to choose from.
        most_columns: The row has from one to so many columns.

    Returns:
        The row, and the name of the column that holds the text.
    """
    columns = _columns(rng, which)
    wanted = min(most_columns, rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 10)))
    home = next((name for name, what in columns if what == kind), None)
    if kind and (home is None or (which == "seen" and rng.random() < 0.4)):
        home = rng.choice(_TEXT_NAMES[kind])
        columns = [(name, what) for name, what in columns if name != home]
    others = [(name, what) for name, what in columns if name != home]
    rng.shuffle(others)
    row: Row = {name: value_of(rng, what) for name, what in others[: wanted - (1 if home else 0)]}
    if home:
        row[home] = text
    elif not row:
        row = {name: value_of(rng, what) for name, what in others[:1]}
    row = _styled(rng, row) if which == "seen" else row
    target = list(row)[-1] if home else rng.choice(list(row))
    return shuffled(rng, row), target


def shuffled(rng: random.Random, row: Row) -> Row:
    """Return the row with its columns in another order."""
    names = list(row)
    rng.shuffle(names)
    return {name: row[name] for name in names}


def value_of(rng: random.Random, what: str) -> Value:
    """Make a value of a kind, with its arguments, as `shapes.txt` writes them."""
    if rng.random() < 0.03:
        return None
    kind, _, arguments = what.partition(" ")
    return _MAKERS[kind](rng, arguments)


def invented_word(rng: random.Random) -> str:
    """Return a string that is in no list: syllables, or letters and digits."""
    if rng.random() < 0.5:
        return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
    return "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randint(2, 8)))


def thing(rng: random.Random, section: str | None = None) -> str:
    """Return a word of one section of `things.txt`, or of any."""
    return rng.choice(THINGS[section or rng.choice(list(THINGS))])


def topic(rng: random.Random) -> Topic:
    """Return any topic."""
    return rng.choice(TOPICS)


def _columns(rng: random.Random, which: Shapes) -> list[tuple[str, str]]:
    if which == "seen" and rng.random() < 0.5:
        kinds = rng.sample(_ANY_KIND, 10)
        return list({_invented_name(rng): kind for kind in kinds}.items())
    return list(rng.choice(shapes(which)).columns)


def _invented_name(rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.1:
        return rng.choice(string.ascii_letters) + rng.choice(["", "1", "2", "_id"])
    if chance < 0.25:
        return invented_word(rng)
    words = [thing(rng, rng.choice(("nouns", "technical", "adjectives"))) for _ in range(rng.choice((1, 1, 2)))]
    return "_".join("_".join(words).split())


def _styled(rng: random.Random, row: Row) -> Row:
    """Write the names as other schemas do: camel case, upper case, capitals, spaces."""
    chance = rng.random()
    if chance < 0.8:
        return row
    if chance < 0.87:
        styled = {_camel(name): value for name, value in row.items()}
    elif chance < 0.92:
        styled = {name.upper(): value for name, value in row.items()}
    elif chance < 0.96:
        styled = {name.replace("_", " "): value for name, value in row.items()}
    else:
        styled = {name.replace("_", " ").title(): value for name, value in row.items()}
    return styled if len(styled) == len(row) else row


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


# -- values


def _code(rng: random.Random, _: str) -> str:
    letters = "".join(rng.choices(string.ascii_uppercase, k=rng.randint(1, 3)))
    return f"{letters}{rng.choice(('-', '', ' '))}{rng.randint(1, 9999)}"


def _title(rng: random.Random, _: str) -> str:
    words = [thing(rng, rng.choice(("nouns", "adjectives", "places"))) for _ in range(rng.randint(1, 3))]
    return rng.choice(("", "", "The ", "A ", "My ")) + " ".join(words).title()


def _phrase(rng: random.Random, _: str) -> str:
    chance = rng.random()
    if chance < 0.3:
        chosen = topic(rng)
        return rng.choice((" / ", ", ", " and ", " ")).join(rng.sample(chosen.words, rng.randint(1, 2))).capitalize()
    words = [thing(rng) for _ in range(rng.randint(1, 3))]
    return rng.choice((" ", " ", " / ", ", ")).join(words)


def _person(rng: random.Random, _: str) -> str:
    return f"{thing(rng, 'first names')} {thing(rng, 'surnames')}"


def _username(rng: random.Random, _: str) -> str:
    last = rng.choice((thing(rng, "nouns").replace(" ", ""), str(rng.randint(1, 99))))
    return f"{thing(rng, 'first names').lower()}{rng.choice(('', '_', '.'))}{last}"


def _product(rng: random.Random, _: str) -> str:
    name = rng.choice((invented_word(rng).capitalize(), thing(rng, "companies")))
    return f"{name} {thing(rng, 'nouns')}" + rng.choice(("", f" {rng.randint(1, 900)}", " Pro", " Mini"))


def _identifier(rng: random.Random, _: str) -> str:
    return "_".join(thing(rng, rng.choice(("nouns", "technical", "verbs"))) for _ in range(rng.randint(1, 3))).replace(
        " ", "_"
    )


def _date(rng: random.Random, _: str = "") -> str:
    return f"{rng.randint(1990, 2026)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _timestamp(rng: random.Random, _: str) -> str:
    joint = rng.choice((" ", "T"))
    return f"{_date(rng)}{joint}{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"


def _hash(rng: random.Random, _: str) -> str:
    return "".join(rng.choices("0123456789abcdef", k=rng.choice((6, 8, 12))))


def _url(rng: random.Random, _: str) -> str:
    return f"https://{_hostname(rng, '')}/{thing(rng, 'nouns').replace(' ', '-')}/{rng.randint(1, 999)}"


def _hostname(rng: random.Random, _: str) -> str:
    first, last = rng.choice(("www", "db1", "app", "mail", "n7")), rng.choice(("example", "org", "net"))
    return f"{first}.{invented_word(rng).lower()}.{last}"


def _street(rng: random.Random, _: str) -> str:
    name = f"{thing(rng, 'nouns').title()} {rng.choice(('Street', 'Road', 'Lane', 'Square'))}"
    return f"{rng.randint(1, 200)} {name}"


def _email(rng: random.Random, _: str) -> str:
    return f"{thing(rng, 'first names').lower()}@{invented_word(rng).lower()}.example"


def _integer(rng: random.Random, arguments: str) -> int:
    low, high = map(int, arguments.split()) if arguments else (0, rng.choice((9, 99, 9999, 999999)))
    return rng.randint(low, high)


def _scalar(rng: random.Random, _: str) -> str:
    return rng.choice(("on", "off", str(rng.randint(0, 9999)), thing(rng, "nouns"), _hash(rng, ""), ""))


_MAKERS: dict[str, Callable[[random.Random, str], Value]] = {
    "boolean": lambda rng, _: rng.random() < 0.5,
    "code": _code,
    "colour": lambda rng, _: thing(rng, "colours"),
    "company": lambda rng, _: thing(rng, "companies"),
    "date": _date,
    "email": _email,
    "enum": lambda rng, choices: rng.choice(choices.split("|")),
    "first_name": lambda rng, _: thing(rng, "first names"),
    "hash": _hash,
    "hostname": _hostname,
    "identifier": _identifier,
    "integer": _integer,
    "invented": lambda rng, _: " ".join(invented_word(rng) for _ in range(rng.randint(1, 2))),
    "isbn": lambda rng, _: f"978-{rng.randint(0, 9)}-{rng.randint(100, 999)}-{rng.randint(10000, 99999)}",
    "material": lambda rng, _: thing(rng, "materials"),
    "money": lambda rng, _: rng.choice((round(rng.uniform(0.5, 900), 2), float(rng.randint(1, 90000)))),
    "note": lambda rng, _: note(rng, topic(rng)),
    "person": _person,
    "phrase": _phrase,
    "place": lambda rng, _: thing(rng, "places"),
    "product": _product,
    "real": lambda rng, _: round(rng.uniform(-40, 400), rng.randint(1, 3)),
    "review": lambda rng, _: review(rng, rng.choice(("positive", "negative", "neutral", "mixed"))),
    "scalar": _scalar,
    "sentence": lambda rng, _: plain(rng),
    "street": _street,
    "surname": lambda rng, _: thing(rng, "surnames"),
    "timestamp": _timestamp,
    "title": _title,
    "url": _url,
    "username": _username,
    "version": lambda rng, _: ".".join(str(rng.randint(0, 20)) for _ in range(rng.randint(2, 3))),
    "word": lambda rng, _: thing(rng),
    "year": lambda rng, _: rng.randint(1890, 2026),
}  # fmt: skip

# Few of the long ones: a row of an invented shape draws ten of these.
_ANY_KIND = [
    "boolean", "code", "colour", "company", "date", "email", "enum red|amber|green", "enum A|B|C|D", "first_name",
    "hash", "identifier", "integer", "integer 0 1", "integer 1 10", "invented", "invented", "invented", "isbn",
    "material", "money", "person", "person", "phrase", "phrase", "place", "product", "real", "scalar", "sentence",
    "street", "surname", "timestamp", "title", "url", "username", "version", "word", "word", "word", "year",
]  # fmt: skip
