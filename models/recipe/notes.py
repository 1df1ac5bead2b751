"""Writes short texts about a topic, and neutral sentences, for the questions of the training recipe.

In: the word lists ``words/topics.txt`` and ``words/things.txt`` beside this file, and a random generator of the caller.
Out: ``note`` gives one to three sentences that are clearly about one topic and use no word of another one,
``sentence`` gives a neutral sentence that contains a given word, ``plain`` one that contains no particular word.
The texts depend on nothing but the generator's state, so the same seed gives the same texts.

A pattern is a sentence with slots in braces. Slots for the words of a topic: ``s`` a singular noun, ``p`` a plural
noun, ``n`` either, ``v`` a verb phrase, ``g`` the same with -ing, ``a`` a predicate adjective, ``label`` its name.
Other slots: ``name``, ``surname``, ``place``, ``company``, ``num``, ``day``, ``who`` and, in neutral sentences,
``noun``, ``verb``, ``adj``, ``colour``, ``material``, ``tech`` and ``w``, the word asked for.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

WORDS: Final = Path(__file__).resolve().parent / "words"
LEAST_WORDS: Final = 6
MOST_WORDS: Final = 40
LEAST_OWN: Final = 2
MOST_OWN: Final = 5
LABEL_SHARE: Final = 0.06

_T = TypeVar("_T")
Piece = tuple[str, str]  # text, then the slot that follows it ("" at the end)
Sections = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: the names a user may write for it, words that belong to it, and topics too near to it."""

    labels: tuple[str, ...]
    words: tuple[str, ...]
    close: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A sentence cut at its slots, with the number of topic words that it takes."""

    pieces: tuple[Piece, ...]
    own: int


_OWN_SLOTS: Final = frozenset({"s", "p", "n", "v", "a"})  # not "g", which changes the word
_KINDS: Final = ("one", "many", "do", "like")

_NEWS: Final = """
{place}: {num} {p} and one {s} make the headlines
{company} surprises experts with new {p}, {s} under scrutiny
{surname} on the {s}: "{p} were never the whole story"
Why {p} matter more than ever in {place}
{place} argues about {p} after the {s} affair
{num} {p} in {place}, and nobody knows why
After {num} years, {place} says goodbye to the {s}
What {name} {surname} thinks of {p} and the {s}
The {s} that everybody in {place} talks about, and the {p} behind it
Experts from {place} warn: {p} could soon replace the {s}
{place} looks for people who know how to {v}
More and more people in {place} {v}, a study by {company} says
A short guide to {p} and the {s}, by {name} {surname}
"""

_CHAT: Final = """
hey {name}, did you hear about the {s}? something with {p} again
lol, {name} tried to {v} on {day}, you should have seen the {s}
anyone here who knows how to {v}?
so... the {s} or the {p}, what do you think?
{name} says the {s} is {a}, I say it is not
ok, {day} then, and please think of the {s} and the {p}
I still cannot believe they wanted to {v} without the {s}
no way, {num} {p}??? and not even one {s}
do you {v} or do you just talk about {p}?
brb, {name} wants to show me the {s} and some {p}
have you ever tried to {v}? {name} does it every {day}
is it just me or is the {s} a bit {a}?
what is all this about {p} and the {s}?
honestly I prefer {p} to the {s}
"""

_SELF: Final = """
I have always liked {p}, but the {s} is something else.
On {day} I wanted to {v}, and then the {s} got in the way.
My uncle taught me to {v} when I was young, in {place}.
I am really disappointed by the {s}, and the {p} were no better.
For {num} weeks now I think of nothing but {g}.
Last {day} {name} and I tried to {v} in {place}.
I spent {num} minutes with the {s} and still do not like it.
We had {p} everywhere, and {name} just wanted to {v}.
{g} is harder than it looks, as I found out in {place}.
I would rather {v} than talk about {p} once more.
I asked {name} about the {s}, but all I heard was something about {p}.
Nobody told me that you need {p} to {v}.
It felt {a}, and the {s} made it even stranger.
I like the {s}, the {p} and, most of all, {g}.
"""

_REPORT: Final = """
This report looks at {p} in {place} and at the {s} in particular.
The number of {p} went up by {num} percent, while the {s} stayed the same.
{company} examined {num} {p} and found the {s} to be the main problem.
According to {surname}, the {s} and the {p} belong together.
The second part is on {g}, the third with {p}.
Of all the {p} that we looked at, {num} were {a}.
In {place} it is common to {v}, especially on {day}.
{surname} and {surname} describe how to {v} with few {p}.
The {s} plays a larger part than {p}, says {name} {surname} from {place}.
A survey in {place} asked {num} people whether they {v}.
Between the {s} and the {p} there is a long list of things in common.
The talk on {day} is about {p}, with an example of the {s}.
"""

_ADVERT: Final = """
Discover the {s} everyone wants, now with {num} {p}.
Perfect for {g}: the new set by {company}, made in {place}.
Whether you like {p} or want to {v}, {company} has something for you.
Everything about the {s}, from {p} to {g}.
The handy guide by {name} {surname} shows you how to {v} in {num} minutes.
Made for {p}, liked by everybody who knows the {s}.
Learn about {p} and {g} with {name} {surname}, every {day} in {place}.
Simply {v}: {company} takes care of the {s}.
Over {num} {p} to choose from, plus tips on {g}.
"""

_MAIL: Final = """
I am writing to you because of the {s} and the {p}.
Could you please tell me how to {v}?
since {day} we have had trouble with the {s}, and now with {p} too.
I wanted to {v}, but nothing happened with the {s}.
this is the third time that I write about the {s}.
please look into the {s} as soon as possible, {num} {p} are affected.
we at {company} have a question about {p} and the {s}.
my number is {num}, it concerns the {s} and several {p}.
is there any way to {v} before {day}?
why does it take {num} days to {v}?
{surname} told us to {v} first and ask about the {s} later.
the {s} is missing, and the {p} do not look right either.
I do not understand the {s}; what do {p} have to do with it?
nobody at {company} was able to {v}, which is annoying.
"""

_DOCS: Final = """
Sets the maximum number of {p} for each {s}.
Sets the {s} that applies to {p}.
Sets the minimum number of {p} needed to {v}.
Enables the {s} for all {p}.
Enables {g} without the {s}.
Shows whether the server can {v} with this {s}.
Shows whether {p} are on by default, as well as the {s}.
Shows the {s} and the {p} at server start.
Specifies how many {p} the server needs in order to {v}.
Number of {p} per {s}, or -1 for no limit.
Limits {p} to the given {s}.
Controls whether to {v} when the {s} is missing.
Allows the server to {v}, even with {num} {p}.
Chooses the {s} to use with {p}.
Turns on {g}, which is off by default because of the {s}.
How long the server may take to {v}, in units of the {s}.
Zero turns the {s} off and leaves the {p} alone.
The default of {num} {p} is right unless you often {v}.
Defines the {s} of this server; {p} are not affected.
Makes the server {v} whenever it meets {p}.
Gives the {s} in seconds, for {p} only.
If on, {p} are used to {v}.
"""

_TECH: Final = """
After the upgrade the {s} looks wrong, and we see {num} {p}.
The server tried to {v} and then ran into the {s}.
We raised the number of {p} to {num}, yet the {s} is the same.
Does version {num} still {v} when the {s} is set?
{name} found {num} {p} on the server in {place}; the {s} looks normal.
The {s} seems to be {a}, so please do not {v} today.
On {day} the server at {company} had {num} {p} and no {s}.
TODO: {v}, then look at the {s} again
{p} are {a}, see the {s}
We would like to {v} once per hour, with at most {num} {p}.
"""

_MORE: Final = """
The {s} was {a}.
It was all about {p}.
There were {p} too.
{name} enjoys {g}.
And then there is the {s}.
Some say it is {a}.
We had to {v}.
Nothing was said about the {s}.
{g} took {num} minutes.
Next came the {p}.
{name} likes the {s} best.
Any ideas?
More on {day}.
That is how it goes.
"""

_MORE_MAIL: Final = """
Please get back to me by {day}.
Thanks, {name}
Best wishes, {name} {surname}
It is about the {s}.
I also asked about {p}.
Is the {s} {a}?
I only want to {v}.
Kind regards, {surname}
This is not acceptable!
"""

_MORE_DOCS: Final = """
The default is {num}.
Also affects the {s}.
Needed to {v}.
Does not count {p}.
Zero means no limit.
See also the {s}.
Useful for {g}.
Can be changed at any moment.
"""

_LABELLED: Final = """
Here is my view on {label}: the {s} and the {p} come first.
{label}: {p}, {s} and more
Category {label}. The {s}, {num} {p}.
Everything to do with {label}, such as {p} or the {s}.
This is about {label}, mostly {p} and {g}.
"""

_GREETINGS: Final = ("Hello, ", "Hi, ", "Dear all, ", "Hi team, ", "Good morning, ", "To whom it may concern: ", "", "")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WHO: Final = ("the old man", "my aunt", "our guest", "a stranger", "the twins next door", "somebody", "everyone here")

_ANY_WORD: Final = """
Somebody had written {w} on the back of the {noun}.
In the middle of the page stood {w}, and below it {noun}.
{name} said {w} twice and then went to {place}.
The note from {surname} mentions {w} and {noun}.
We found {w}, {noun} and {noun} in the {adj} list.
The third word is {w}, the fourth is {noun}.
On {day} the code word was {w}, as {name} remembered.
Please put {w} next to {noun} in the {colour} {tech}.
They called it {w} because of the {adj} {noun}.
When {name} hears {w}, it brings a {adj} {noun} to mind.
{who} thought of {w} and began to {verb}.
Entry {num} of the {tech} reads {w}, nothing else.
{company} uses {w} as a name for its {tech}.
"""

_BY_SECTION: Final = {
    "nouns": """
The {adj} {w} stood near the {noun} in {place}.
{name} wanted to {verb}, but the {w} was too {adj}.
Was it the {w} or the {noun} that made {who} {verb}?
No {w} is as {adj} as the one in {place}.
{who} told {name} about the {w} and the {colour} {noun}.
Between the {noun} and the {w} there was {num} feet of {material}.
""",
    "verbs": """
{name} and {surname} {w} every {day} near the {noun}.
We had to {w} before the {noun} became {adj}.
{who} did not {w}, in spite of the {adj} {noun}.
They can {w} or {verb}, said {name} from {place}.
How often do you {w} in {place}?
""",
    "adjectives": """
The {noun} was {w} and the {noun} was {adj}.
{name} has a very {w} {noun} from {place}.
It seemed {w} at first, but {who} wanted to {verb}.
There is nothing {w} about the {material} {noun}.
""",
    "first names": """
On {day} I met {w} and {name} in {place}.
We asked {w} to {verb} with the {colour} {noun}.
My friend {w} owns a {adj} {noun}.
""",
    "surnames": """
Mr {w} from {place} sold the {adj} {noun}.
The letter to {name} {w} lay under the {noun}.
Our neighbours, the family {w}, like the {colour} {noun}.
""",
    "places": """
{name} moved from {place} to {w} in the year {year}.
The {adj} {noun} was made in {w}.
It takes {num} hours from {w} to {place}.
""",
    "companies": """
The {tech} was built by {w} in {place}.
{name} {surname} left {w} after {num} years.
Both {w} and {company} sell the {adj} {noun}.
""",
    "colours": """
{name} painted the {noun} {w} and the {noun} {colour}.
A {w} {noun} hung over the {adj} {noun}.
Do you want it in {w} or in {colour}?
""",
    "materials": """
The {noun} was made of {w} and a little {material}.
{company} sells {num} tons of {w} to {place}.
Instead of {material} they used {w} for the {noun}.
""",
    "technical": """
The word {w} appears in the text about the {tech}.
{company} explains the term {w} on page {num}.
Neither {w} nor {tech} is easy for {who} to explain.
""",
}

_PLAIN: Final = """
The {adj} {noun} belongs to {name} {surname}.
{who} saw a {colour} {noun} in {place}.
{name} will {verb} on {day}, with or without the {noun}.
{company} bought {num} pieces of {material} in {place}.
It was {adj}, {adj} and a little {adj}, like the {noun}.
"""


def _read_sections(path: Path) -> list[tuple[str, list[str]]]:
    """Splits a word list into its sections.

    Args:
        path: the file.

    Returns:
        The text between the square brackets of each header, with the lines below it.
    """
    sections: list[tuple[str, list[str]]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            sections.append((line.strip("[] "), []))
        elif line.strip() and not line.startswith("#"):
            sections[-1][1].append(line)
    return sections


def _listed(text: str) -> tuple[str, ...]:
    """Gives the parts of a comma separated text, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _fields(lines: Sequence[str]) -> dict[str, str]:
    """Joins the lines of a topic into its fields.

    Args:
        lines: ``name: text`` lines; a line that starts with a blank goes on with the field above.

    Returns:
        The text of each field.
    """
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith(" "):
            fields[name] += " " + line.strip()
        else:
            name, _, text = line.partition(":")
            fields[name] = text.strip()
    return fields


_DOUBLED: Final = frozenset({
    "quit", "commit", "emit", "begin", "cancel", "level", "kidnap", "debug", "reset", "format", "sublet", "repot",
    "transfer", "refuel", "worship",
})  # fmt: skip
_SHORT_VERB: Final = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")


def _with_ing(phrase: str) -> str:
    """Turns ``bake a cake`` into ``baking a cake``."""
    verb, blank, rest = phrase.partition(" ")
    if verb.endswith("ie"):
        verb = verb[:-2] + "y"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        verb = verb[:-1]
    elif verb in _DOUBLED or _SHORT_VERB.fullmatch(verb):
        verb += verb[-1]
    return verb + "ing" + blank + rest


def _tokens(text: str) -> tuple[str, ...]:
    """Gives the words of a text in lower case without a plural s, for the comparison of texts."""
    return tuple(re.sub(r"(?<=[a-z]{2})s$", "", word) for word in re.findall(r"\w+", text.lower()))


def _runs(text: str) -> set[tuple[str, ...]]:
    """Gives every run of one to five words in a text, made comparable by ``_tokens``."""
    words = _tokens(text)
    return {words[start : start + size] for start in range(len(words)) for size in range(1, 6)}


def _read_topics() -> tuple[tuple[Topic, str, Mapping[str, tuple[str, ...]]], ...]:
    """Reads the topics with the kind of each and its words by part of speech."""
    found = []
    for header, lines in _read_sections(WORDS / "topics.txt"):
        fields = _fields(lines)
        parts = {kind: _listed(fields[kind]) for kind in _KINDS}
        words = tuple(dict.fromkeys(word for kind in _KINDS for word in parts[kind]))
        topic = Topic(_listed(header), words, frozenset(_listed(fields.get("close", ""))))
        found.append((topic, fields.get("kind", "everyday"), parts))
    return tuple(found)


_READ: Final = _read_topics()
TOPICS: tuple[Topic, ...] = tuple(topic for topic, _, _ in _READ)
THINGS: Sections = {header: _listed(" ".join(lines)) for header, lines in _read_sections(WORDS / "things.txt")}
_TAKEN: Final = frozenset(_tokens(text) for topic in TOPICS for text in topic.words + topic.labels)


def _slots(parts: Mapping[str, tuple[str, ...]]) -> Sections:
    """Gives the words for each topic slot; the -ing forms leave out what is a label or another topic's word."""
    taken = _TAKEN - {_tokens(word) for word in parts["do"]}
    gerunds = tuple(form for form in map(_with_ing, parts["do"]) if not taken & _runs(form.split()[0]))
    return {
        "s": parts["one"],
        "p": parts["many"],
        "n": parts["one"] + parts["many"],
        "v": parts["do"],
        "g": gerunds or ("doing so",),
        "a": parts["like"],
    }


def _free(section: str) -> tuple[str, ...]:
    """Gives the words of a section of THINGS that belong to no topic."""
    return tuple(word for word in THINGS[section] if not _TAKEN & _runs(word))


def _compile(text: str) -> tuple[_Pattern, ...]:
    """Cuts the sentences of a block, one to a line, at their slots."""
    patterns = []
    for line in filter(None, text.splitlines()):
        parts = re.split(r"\{(\w+)\}", line)
        parts.append("")
        pieces = tuple(zip(parts[::2], parts[1::2], strict=True))
        patterns.append(_Pattern(pieces, sum(slot in _OWN_SLOTS for _, slot in pieces)))
    return tuple(patterns)


_MAILS: Final = _compile(_MAIL)
_STYLES: Final = {
    "news": (_compile(_NEWS), _compile(_MORE)),
    "chat": (_compile(_CHAT), _compile(_MORE)),
    "self": (_compile(_SELF), _compile(_MORE + _SELF)),
    "report": (_compile(_REPORT), _compile(_MORE + _REPORT)),
    "advert": (_compile(_ADVERT), _compile(_MORE)),
    "mail": (_MAILS, _compile(_MORE_MAIL) + _MAILS),
    "docs": (_compile(_DOCS), _compile(_MORE_DOCS)),
    "tech": (_compile(_TECH), _compile(_MORE_DOCS)),
    "labelled": (_compile(_LABELLED), _compile(_MORE)),
}
_MIXES: Final = {
    "everyday": ("news", "news", "chat", "chat", "self", "self", "self", "report", "report", "advert", "mail", "docs"),
    "business": ("mail", "mail", "mail", "mail", "chat", "self", "self", "report", "news", "advert", "docs"),
    "computing": ("docs", "docs", "docs", "docs", "docs", "docs", "tech", "tech", "mail", "chat", "report"),
}
_BY_LABEL: Final = {topic.labels[0]: (kind, _slots(parts)) for topic, kind, parts in _READ}
_OTHERS: Final[Sections] = {
    "name": _free("first names"),
    "surname": _free("surnames"),
    "place": _free("places"),
    "company": _free("companies"),
    "day": _DAYS,
}
_NEUTRAL: Final[Sections] = {
    "name": THINGS["first names"],
    "surname": THINGS["surnames"],
    "place": THINGS["places"],
    "company": THINGS["companies"],
    "day": _DAYS,
    "who": _WHO,
    "noun": THINGS["nouns"],
    "verb": THINGS["verbs"],
    "adj": THINGS["adjectives"],
    "colour": THINGS["colours"],
    "material": THINGS["materials"],
    "tech": THINGS["technical"],
}
_SENTENCES: Final = {section: _compile(_BY_SECTION[section]) for section in THINGS}
_MENTIONS: Final = _compile(_ANY_WORD)
_PLAINS: Final = _compile(_PLAIN)
_SECTION_OF: Final = {word: section for section, words in THINGS.items() for word in words}


def _pick(rng: random.Random, options: Sequence[_T]) -> _T:
    """Picks one of the options, faster than ``rng.choice``."""
    return options[int(rng.random() * len(options))]


def _number(rng: random.Random) -> str:
    """Gives a number from 3 up, mostly a small one."""
    return str(int(3 + rng.random() ** 2 * _pick(rng, (20, 100, 900))))


def _fill(rng: random.Random, pattern: _Pattern, word_for: Callable[[str], str]) -> str:
    """Fills the slots of a pattern.

    Args:
        rng: where chance comes from.
        pattern: the sentence.
        word_for: gives a word for a slot.

    Returns:
        The sentence, its first letter as the pattern and the first word have it.
    """
    text = ""
    for literal, slot in pattern.pieces:
        text += literal
        if slot == "num":
            text += _number(rng)
        elif slot == "year":
            text += str(1900 + int(rng.random() * 125))
        elif slot:
            word = word_for(slot)
            text = _article(text, word) + word
    return text


def _article(text: str, word: str) -> str:
    """Puts ``an`` for a final ``a`` in a text that goes on with a word that begins with a vowel."""
    if word[0] in "aeioAEIO" and (text.endswith(" a ") or text in {"A ", "a "}):
        return text[:-1] + "n "
    return text


def _chooser(
    rng: random.Random, lists: Mapping[str, tuple[str, ...]], fixed: Mapping[str, str]
) -> Callable[[str], str]:
    """Gives a function that picks a word for a slot, and none twice while it can be helped."""
    used: set[str] = set()

    def word_for(slot: str) -> str:
        if slot in fixed:
            return fixed[slot]
        word = _pick(rng, lists[slot])
        for _ in range(4):
            if word not in used:
                break
            word = _pick(rng, lists[slot])
        used.add(word)
        return word

    return word_for


def _capital(text: str) -> str:
    """Gives a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def _closed(text: str) -> str:
    """Gives a sentence with a full stop where it has no mark at its end."""
    return text if text[-1] in ".?!" else text + "."


def _shape(rng: random.Random, sentences: Sequence[str], style: str) -> str:
    """Joins sentences and varies how the result is written.

    Args:
        rng: where chance comes from.
        sentences: at least one sentence.
        style: the style of the first one.

    Returns:
        The text, now and then without the final full stop or with unusual capitals.
    """
    loose = style == "chat" and rng.random() < 0.7
    if style == "mail":
        greeting = _pick(rng, _GREETINGS)
        sentences = [greeting + (sentences[0] if greeting else _capital(sentences[0])), *sentences[1:]]
    keep = 0 if style == "mail" else -1  # the first sentence of a mail has its capital from the greeting
    parts = [part if loose or at == keep else _capital(part) for at, part in enumerate(sentences)]
    text = " ".join(map(_closed, parts))
    chance = rng.random()
    if chance < 0.04:
        text = text.lower()
    elif chance < 0.055:
        text = text.upper()
    elif chance < 0.08 or (style == "news" and chance < 0.2):
        text = re.sub(r"(?<![\w'])[a-z](?=\w{3})", lambda found: found.group().upper(), text)
    if text.endswith(".") and rng.random() < (0.6 if style in {"news", "chat"} else 0.25):
        text = text[:-1]
    return text


def _patterns(rng: random.Random, style: str) -> list[_Pattern]:
    """Picks one to three patterns of a style that take the right number of topic words together."""
    first, more = _STYLES[style]
    chosen = [_pick(rng, first), *(_pick(rng, more) for share in (0.55, 0.3) if rng.random() < share)]
    own = sum(pattern.own for pattern in chosen)
    distinct = len({pattern.pieces for pattern in chosen}) == len(chosen)
    return chosen if LEAST_OWN <= own <= MOST_OWN and distinct else _patterns(rng, style)


def note(rng: random.Random, topic: Topic) -> str:
    """Writes a short text about a topic.

    Args:
        rng: where chance comes from.
        topic: one of TOPICS.

    Returns:
        One to three sentences of 6 to 40 words with two to five words of the topic and none of another one.
    """
    kind, own = _BY_LABEL[topic.labels[0]]
    while True:
        style = "labelled" if rng.random() < LABEL_SHARE else _pick(rng, _MIXES[kind])
        chosen = _patterns(rng, style)
        word_for = _chooser(rng, {**_OTHERS, **own}, {"label": _pick(rng, topic.labels)})
        text = _shape(rng, [_fill(rng, pattern, word_for) for pattern in chosen], style)
        if LEAST_WORDS <= text.count(" ") + 1 <= MOST_WORDS:
            return text


def sentence(rng: random.Random, word: str) -> str:
    """Writes a neutral sentence that contains a word.

    Args:
        rng: where chance comes from.
        word: any word or short phrase; it stays as it is.

    Returns:
        A sentence of 5 to 25 words.
    """
    section = _SECTION_OF.get(word)
    patterns = _SENTENCES[section] if section and rng.random() < 0.7 else _MENTIONS
    text = _fill(rng, _pick(rng, patterns), _chooser(rng, _NEUTRAL, {"w": word}))
    if not text.startswith(word):
        text = _capital(text)
    return text[:-1] if text.endswith(".") and rng.random() < 0.15 else text


def plain(rng: random.Random) -> str:
    """Writes a neutral sentence about nothing in particular.

    Args:
        rng: where chance comes from.

    Returns:
        A sentence of 5 to 25 words.
    """
    if rng.random() < 0.3:
        text = _fill(rng, _pick(rng, _PLAINS), _chooser(rng, _NEUTRAL, {}))
        return _capital(text)
    return sentence(rng, _pick(rng, THINGS[_pick(rng, tuple(THINGS))]))
