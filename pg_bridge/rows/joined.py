"""A query and a document as one text, and back: what a question is to the others, of which each is one text too.

In: two texts, neither with a NUL, as PostgreSQL has them. Out: one.
"""

from __future__ import annotations

BETWEEN = "\0"
"""What stands between the two."""


def joined(query: str, document: str) -> str:
    """A query and a document as one text."""
    return f"{query}{BETWEEN}{document}"


def query_of(text: str) -> str:
    """The query of a text that `joined` made; all of a text that it did not.

    >>> query_of(joined("Who hides?", "I hid behind the sofa."))
    'Who hides?'
    """
    return text.partition(BETWEEN)[0]


def document_of(text: str) -> str:
    """The document of a text that `joined` made; all of a text that it did not.

    >>> document_of(joined("Who hides?", "I hid behind the sofa.")), document_of("a test")
    ('I hid behind the sofa.', 'a test')
    """
    return text[text.find(BETWEEN) + 1 :]
