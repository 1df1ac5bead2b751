"""What the documentation names is there, and decisions that were replaced say so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "docker", "docs", "models", "native", "pg_bridge", "scripts", "sql", "tests")
TEXTS = [
    file
    for file in [*ROOT.glob("*.*"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.*"))]
    if file.suffix in {".c", ".h", ".md", ".py", ".sh", ".sql", ".toml", ".yaml"}
]
PAGES = [file for file in TEXTS if file.suffix == ".md"]
NOTES = {int(file.name[:4]): file for file in (ROOT / "docs/decisions").glob("0*.md")}
LINK = re.compile(r"\[note (\d+)\]\((0\d+-[\w-]+\.md)\)")
LATER_WORDS = r"(Replaces|Adds to|Changes)\b"
EARLIER_WORDS = r"\*(Replaced|Added to|Changed)\b"


def opening(note: Path, words: str) -> str:
    """The paragraph at the top of a note that begins with such a word; empty if there is none."""
    paragraphs = note.read_text().split("\n\n")[1:3]
    return next((paragraph for paragraph in paragraphs if re.match(words, paragraph)), "")


def test_pages_that_are_named_are_there() -> None:
    assert len(TEXTS) > 300
    missing = [
        f"{file.relative_to(ROOT)}: {named}"
        for file in TEXTS
        for named in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text())
        if not (ROOT / named).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_a_note_that_a_later_one_changes_says_so() -> None:
    pairs = set()
    for number, note in NOTES.items():
        for earlier, name in LINK.findall(opening(note, LATER_WORDS)):
            assert NOTES[int(earlier)].name == name
            assert int(earlier) < number
            pairs.add((int(earlier), number))
    assert len(pairs) > 10
    told = {
        (number, int(later))
        for number, note in NOTES.items()
        for later, _ in LINK.findall(opening(note, EARLIER_WORDS))
    }
    assert told == pairs


def test_a_note_that_was_changed_says_when() -> None:
    for note in NOTES.values():
        if changed := opening(note, EARLIER_WORDS):
            assert re.search(r"\b20\d\d-\d\d-\d\d\b", changed), note.name


def test_every_note_is_listed() -> None:
    listed = re.findall(r"^(\d+)\. \[.*\]\((0\d+-[\w-]+\.md)\)$", (ROOT / "docs/decisions/README.md").read_text(), re.M)
    assert {int(number): name for number, name in listed} == {number: note.name for number, note in NOTES.items()}
