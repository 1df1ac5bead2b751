"""Short reviews with a known sentiment, written from our own word lists.

Purpose: training text for a small language model that has to tell praise from blame in real reviews.

In: a random number generator and the sentiment wanted. The words, phrases and sentence patterns come from
``words/sentiment.txt`` beside this file, whose head explains its format.

Out: one review of one to four sentences as a string. "positive" and "negative" reviews hold a clear opinion
and at most a small concession, "mixed" ones praise and blame of equal weight, "neutral" ones facts alone or a
plainly lukewarm verdict. The same state of the generator always gives the same review.
"""

import random
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

Sentiment = Literal["positive", "negative", "neutral", "mixed"]

Entry = tuple[str, ...]
"""A pattern cut at its slots: even places hold text, odd places the names of slots."""
Table = dict[str, tuple[Entry, ...]]

WORDS_FILE: Final = Path(__file__).parent / "words" / "sentiment.txt"
POLARITIES: Final = ("pos", "neg", "neutral")
OPPOSITE: Final = {"pos": "neg", "neg": "pos", "neutral": "neutral"}
PRESENT: Final = {"is": "is", "are": "are", "has": "has", "does": "does"}
PAST: Final = {"is": "was", "are": "were", "has": "had", "does": "did"}
VERB_BASES: Final = ("vp", "avp")
PAST_FAMILIES: Final = frozenset({"stage", "venue", "help", "study"})
RETRIES: Final = 4
MOST_WORDS: Final = 45

OPINION_SHAPES: Final = (
    ("op",),
    ("op",),
    ("op",),
    ("op", "op"),
    ("op", "op"),
    ("op", "rec"),
    ("op", "op", "op"),
    ("op", "op", "rec"),
    ("fact", "op"),
    ("fact", "op"),
    ("op", "fact"),
    ("fact", "op", "op"),
    ("fact", "op", "rec"),
    ("fact", "fact", "op"),
    ("op", "fact", "op"),
    ("op", "fact", "rec"),
    ("exclaim", "op"),
    ("rec", "op"),
    ("fact", "op", "op", "rec"),
    ("fact", "fact", "op", "op"),
)
NEUTRAL_SHAPES: Final = (
    ("fact",),
    ("fact", "fact"),
    ("fact", "fact"),
    ("fact", "fact", "fact"),
    ("fact", "fact", "fact", "fact"),
    ("luke",),
    ("luke",),
    ("luke", "luke"),
    ("luke", "luke"),
    ("fact", "luke"),
    ("fact", "luke"),
    ("luke", "fact"),
    ("fact", "fact", "luke"),
)
MIXED_SHAPES: Final = (
    ("mix",),
    ("mix",),
    ("mix",),
    ("mix", "mixend"),
    ("fact", "mix"),
    ("fact", "mix"),
    ("fact", "mix", "mixend"),
    ("mix", "fact"),
    ("mixfull",),
    ("mixfull", "mix"),
    ("fact", "mixfull"),
    ("mix", "fact", "mixend"),
)

SLOT: Final = re.compile(r"\{([^}]*)\}")
ARTICLE: Final = re.compile(
    r"\b([Aa]) (?=[\"“]?(?:(?!one\b|one-|once|uni(?![mn])|use[dflr]?|usu|eu|ute)[aeiouéAEIOÉ]|Ul|hour|honest|EP\b))"
)
CONTRACTIONS: Final = (
    (re.compile(r"(?<!as )(?<!what )(?<!as)\b([Ii]t) is (?=\w)"), r"\1's "),
    (re.compile(r"\b([Dd]o|[Dd]oes|[Dd]id|[Ii]s|[Ww]as|[Ww]ere|[Cc]ould|[Ww]ould|[Hh]as) not (?!only)"), r"\1n't "),
    (re.compile(r"\b([Cc]an)not "), r"\1't "),
    (re.compile(r"\b([Ww])ill not "), r"\1on't "),
)
TOKEN_SPLITS: Final = (
    (re.compile(r"([.,;:!?…]+)(?=\s|$)"), r" \1"),
    (re.compile(r"n't\b"), " n't"),
    (re.compile(r"'s\b"), " 's"),
)


class Rule(NamedTuple):
    """One section of the word file: what it is called, whom it holds for, and its entries."""

    base: str
    polarity: str | None
    family: str | None
    entries: tuple[str, ...]


class Words(NamedTuple):
    """The parsed word file: families of each domain, past tenses of irregular verbs, and all rules."""

    families: dict[str, frozenset[str]]
    past: dict[str, str]
    rules: tuple[Rule, ...]


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the header and the entries of every section.

    Args:
        text: The whole word file.

    Yields:
        The header without its brackets and "; lines", and the entries in their order.
    """
    for block in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        header, _, body = block.partition("\n")
        name, _, mode = header.rstrip().rstrip("]").partition(";")
        lines = [line.strip() for line in body.splitlines() if line.strip() and not line.startswith("#")]
        if not mode:
            lines = [word.strip() for line in lines for word in line.split(",") if word.strip()]
        yield name, lines


def _rule(header: str, entries: list[str]) -> Rule:
    """Makes the rule of a section from its header, for instance "adj pos @art".

    Args:
        header: The header of the section.
        entries: The entries below it.

    Returns:
        The rule.
    """
    base, *marks = header.split()
    polarity = next((mark for mark in marks if mark in POLARITIES), None)
    family = next((mark[1:] for mark in marks if mark.startswith("@")), None)
    return Rule(base, polarity, family, tuple(entries))


@lru_cache(maxsize=1)
def _words() -> Words:
    """Reads the word file once.

    Returns:
        Its contents.
    """
    families: dict[str, frozenset[str]] = {}
    past: dict[str, str] = {}
    rules: list[Rule] = []
    for header, entries in _sections(WORDS_FILE.read_text(encoding="utf-8")):
        if header == "families":
            for line in entries:
                domain, _, names = line.partition("=")
                families[domain.strip()] = frozenset(names.split()) | {domain.strip()}
        elif header == "irregular":
            past.update((pair.split()[0], pair.split()[1]) for pair in entries)
        else:
            rules.append(_rule(header, entries))
    return Words(families, past, tuple(rules))


def _third_person(verb: str) -> str:
    """Inflects a verb for "it".

    Args:
        verb: The base form.

    Returns:
        The form of the third person singular, present tense.
    """
    if verb.endswith(("s", "sh", "ch", "x", "o", "zz")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def _past_tense(verb: str) -> str:
    """Inflects a verb for the past.

    Args:
        verb: The base form.

    Returns:
        The past tense.
    """
    irregular = _words().past.get(verb)
    if irregular is not None:
        return irregular
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"


def _inflect(phrase: str, tense: str, *, plural: bool) -> str:
    """Inflects a verb phrase, whose verbs carry a star or else stand first.

    Args:
        phrase: The phrase from the word file, such as "never *come alive".
        tense: "present" or "past".
        plural: Whether the subject is a plural.

    Returns:
        The phrase without stars.
    """
    words = phrase.split()
    if not any(word.startswith("*") for word in words):
        words[0] = "*" + words[0]
    for place, word in enumerate(words):
        if not word.startswith("*"):
            continue
        verb = word[1:]
        if tense == "past":
            verb = _past_tense(verb)
        elif not plural:
            verb = _third_person(verb)
        words[place] = verb
    return " ".join(words)


def _plural(noun: str) -> str:
    """Makes the plural of a noun.

    Args:
        noun: The singular.

    Returns:
        The plural.
    """
    if noun.endswith("series"):
        return noun
    if noun.endswith("knife"):
        return noun[:-2] + "ves"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _cut(entry: str) -> Entry:
    """Cuts a pattern at its slots.

    Args:
        entry: A pattern such as "the {asp} {is} {adj}".

    Returns:
        Text and slot names by turns.
    """
    return tuple(SLOT.split(entry))


def _holds(rule: Rule, entry: str, polarity: str, families: frozenset[str]) -> str | None:
    """Tells whether an entry may be used, by its rule's marks and its own.

    Args:
        rule: The rule that holds the entry.
        entry: The entry, perhaps with a mark such as " @goods" at its end.
        polarity: The polarity wanted.
        families: The families of the domain.

    Returns:
        The entry without its mark, or None where it does not hold.
    """
    if rule.polarity not in (None, polarity) or (rule.family is not None and rule.family not in families):
        return None
    text, _, mark = entry.partition(" @")
    return text if not mark or mark in families or mark == polarity else None


def _forms(base: str, text: str, tense: str) -> Iterator[tuple[str, str]]:
    """Yields the names and texts under which an entry enters the table.

    Args:
        base: The base of its rule.
        text: The entry.
        tense: "present" or "past".

    Yields:
        A name and a text: inflected for verbs, once more as "gadj" for gradable adjectives.
    """
    if base in VERB_BASES:
        yield base, _inflect(text, tense, plural=False)
        yield base + "p", _inflect(text, tense, plural=True)
        return
    if base == "adj" and text.endswith("*"):
        yield "gadj", text[:-1]
    yield base, text.rstrip("*")


@lru_cache(maxsize=256)
def _table(domain: str, polarity: str, tense: str) -> Table:
    """Collects everything that can be said in one domain with one polarity and tense.

    Args:
        domain: A domain such as "film".
        polarity: "pos", "neg" or "neutral".
        tense: "present" or "past".

    Returns:
        For every base its entries.
    """
    words = _words()
    found: dict[str, list[Entry]] = {}
    for rule in words.rules:
        for entry in rule.entries:
            text = _holds(rule, entry, polarity, words.families[domain])
            for base, form in _forms(rule.base, text, tense) if text else ():
                found.setdefault(base, []).append(_cut(form))
    return {base: tuple(entries) for base, entries in found.items()}


@lru_cache(maxsize=1)
def _domains() -> tuple[str, ...]:
    """Lists the domains, those of art twice because most reviews are about them.

    Returns:
        The names of the domains.
    """
    families = _words().families
    double = [domain for domain, names in families.items() if "art" in names]
    return (*families, *double, "film", "film", "film")


class _Writer:
    """Writes the sentences of one review: keeps to one thing, one name and one tense, and repeats no words."""

    def __init__(self, rng: random.Random) -> None:
        """Chooses what the review is about.

        Args:
            rng: The source of chance.
        """
        self._rng = rng
        self._domain = _domains()[int(rng.random() * len(_domains()))]
        mostly_past = bool(_words().families[self._domain] & PAST_FAMILIES)
        self._tense = "past" if rng.random() < (0.8 if mostly_past else 0.2) else "present"
        self._fixed: dict[str, str] = dict(PAST if self._tense == "past" else PRESENT)
        self._used: set[Entry] = set()
        self._fixed["thing"] = self.write("thing", "neutral")
        name = self.write("name", "neutral")
        self._fixed["name"] = f'"{name}"' if rng.random() < 0.1 and name[0].isupper() else name

    def write(self, base: str, polarity: str) -> str:
        """Draws an entry and fills its slots.

        Args:
            base: What to write.
            polarity: "pos", "neg" or "neutral".

        Returns:
            The text.
        """
        table = _table(self._domain, polarity, self._tense)
        entry = self._draw(table[base])
        if len(entry) == 1:
            return entry[0]
        return "".join(self._fill(part, polarity) if place % 2 else part for place, part in enumerate(entry))

    def _draw(self, entries: tuple[Entry, ...]) -> Entry:
        """Draws an entry, if possible one that this review has not used yet.

        Args:
            entries: The entries to choose from.

        Returns:
            The entry.
        """
        entry = entries[0]
        for _ in range(RETRIES):
            entry = entries[int(self._rng.random() * len(entries))]
            if entry not in self._used:
                break
        self._used.add(entry)
        return entry

    def _fill(self, slot: str, polarity: str) -> str:
        """Writes the text of one slot.

        Args:
            slot: The name of the slot with its marks.
            polarity: The polarity around it.

        Returns:
            The text.
        """
        if slot in self._fixed:
            return self._fixed[slot]
        if slot.endswith("~"):
            return _plural(self._fill(slot[:-1], polarity))
        if slot.startswith("-"):
            return self._fill(slot[1:], OPPOSITE[polarity])
        if slot[3:4] == ":":
            return self._fill(slot[4:], slot[:3])
        return self.write(slot, polarity)


def _sentence(text: str, rng: random.Random, *, excited: bool) -> str:
    """Turns a clause into a sentence: capital, article, final mark.

    Args:
        text: The clause.
        rng: The source of chance.
        excited: Whether an exclamation mark may end it.

    Returns:
        The sentence.
    """
    text = ARTICLE.sub(r"\1n ", text)
    text = re.sub(r"([.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    text = text[0].upper() + text[1:] if text[0] != '"' else text
    if text.endswith(("?", "!")):
        return text
    chance = rng.random()
    if excited and chance < 0.08:
        return text + "!"
    return text + (("..." if chance < 0.99 else "…") if chance > 0.975 else ".")


def _disguise(text: str, rng: random.Random) -> str:
    """Varies the spelling of a whole review as people do.

    Args:
        text: The review.
        rng: The source of chance.

    Returns:
        The review with contractions, in lower case, without its last stop, with dashes, or in loose tokens.
    """
    if rng.random() < 0.4:
        for pattern, short in CONTRACTIONS:
            text = pattern.sub(short, text)
    if rng.random() < 0.06:
        text = text.replace(", but ", rng.choice((" — but ", " - but ", "—but ")), 1)
    if rng.random() < 0.08:
        text = text.removesuffix(".")
    chance = rng.random()
    if chance < 0.08:
        return text.lower()
    if chance < 0.13:
        return _loose_tokens(text)
    if chance < 0.15 and '"' not in text:
        return f"“{text}”"
    return text


def _loose_tokens(text: str) -> str:
    """Writes a review as some collections keep them: lower case, a blank before every mark.

    Args:
        text: The review.

    Returns:
        The review in loose tokens.
    """
    for pattern, loose in TOKEN_SPLITS:
        text = pattern.sub(loose, text)
    return text.lower()


def _plan(rng: random.Random, sentiment: Sentiment) -> tuple[tuple[str, ...], str]:
    """Chooses the shape of a review and the polarity in which it is written.

    Args:
        rng: The source of chance.
        sentiment: The sentiment wanted.

    Returns:
        The bases of its sentences, and "pos", "neg" or "neutral" (for mixed reviews: what comes first).
    """
    if sentiment == "neutral":
        return rng.choice(NEUTRAL_SHAPES), "neutral"
    if sentiment == "mixed":
        return rng.choice(MIXED_SHAPES), "pos" if rng.random() < 0.5 else "neg"
    return rng.choice(OPINION_SHAPES), "pos" if sentiment == "positive" else "neg"


def review(rng: random.Random, sentiment: Sentiment) -> str:
    """Writes one review.

    Args:
        rng: The source of chance; the same state gives the same review.
        sentiment: The sentiment that the review shall have.

    Returns:
        The review, one to four sentences long.
    """
    shape, polarity = _plan(rng, sentiment)
    writer = _Writer(rng)
    excited = sentiment in ("positive", "negative")
    sentences: list[str] = []
    opinion_told = False
    for base in shape:
        text = writer.write("fact0", "neutral") if base == "fact" and sentences else writer.write(base, polarity)
        words = sum(sentence.count(" ") + 1 for sentence in sentences) + text.count(" ") + 1
        if opinion_told and words > MOST_WORDS:
            break
        opinion_told = opinion_told or base != "fact" or sentiment == "neutral"
        sentences.append(_sentence(text, rng, excited=excited and base != "fact"))
    return _disguise(" ".join(sentences), rng)
