"""What is tried: a sample of rows, versions of a question, what each was answered, and which answers are right.

In: a sample, an engine. Out: answers as they land; SQL and a command that ask the same about all rows. What was tried,
and which answers are known to be right, can be kept in a file.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pg_bridge.errors import OptionError
from pg_bridge.jobs import mapping_async
from pg_bridge.jobs.mapping import RowAnswer
from pg_bridge.jobs.texts import encode
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Call, Option, Server, options_of
from pg_bridge.workbench.sample import Sample

_FIGURES = ("unique_prompts", "from_cache", "prompt_tokens", "cached_tokens", "completion_tokens")
_NOT_HERE = {"server", "on_error"}  # there is one engine, and a row's error is shown


@dataclass(slots=True)
class Version:
    """One question that was tried.

    Attributes:
        prompt: It.
        options: Those that were given, by name, as texts.
        answers: By the place of the row: the answer, and why there is none.
        figures: What it took.
        asked_by: How many ask it right now.
    """

    prompt: str
    options: dict[str, str]
    answers: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)
    figures: dict[str, object] = field(default_factory=dict)
    asked_by: int = 0


class Bench:
    """The sample, and what was tried.

    Args:
        sample: The rows.
        server: Who is asked.
        source: The query, or the file.
        is_file: Whether the source is a file.
        ledger: A folder where answers are kept, so that a version that was tried is not asked again.
        notes: The file that keeps versions and right answers; None for none.

    Attributes:
        sample: The rows.
        versions: What was tried, the oldest first.
        known: The right answers, by the place of the row.

    Raises:
        OptionError: The notes cannot be read.
    """

    def __init__(
        self,
        sample: Sample,
        server: Server,
        source: str,
        *,
        is_file: bool = False,
        ledger: Path | None = None,
        notes: Path | None = None,
    ) -> None:
        self.sample = sample
        self.versions: list[Version] = []
        self.known: dict[int, str] = {}
        self._server = server
        self._source = source
        self._is_file = is_file
        self._ledger = ledger
        self._ledger_in_use = asyncio.Lock()
        self._notes = notes
        self._texts = [json.dumps(self._cells(row), ensure_ascii=False, sort_keys=True) for row in sample.rows]
        self._elsewhere: dict[str, str] = {}  # right answers about rows that are not of this sample, by their text
        if notes is not None and notes.exists():
            self._read(notes)

    def state(self) -> dict[str, object]:
        """All of it, for JSON."""
        return {
            "columns": self.sample.columns,
            "rows": [self._cells(row) for row in self.sample.rows],
            "total": self.sample.total,
            "source": self._source,
            "known": self.known,
            "versions": [self._shown(version) for version in self.versions],
        }

    def add(self, prompt: str, options: Mapping[str, str]) -> int:
        """Add a version, to be asked next; gives its place.

        Raises:
            OptionError: There is no such option, or its value is not valid.
        """
        count = len(self.versions)
        number = self._add(prompt, options)
        if number == count:
            self._write()
        return number

    def _add(self, prompt: str, options: Mapping[str, str]) -> int:
        call_options(options)
        for number, version in enumerate(self.versions):
            if (version.prompt, version.options) == (prompt, dict(options)):
                return number
        self.versions.append(Version(prompt, dict(options)))
        return len(self.versions) - 1

    def ask(self, number: int) -> AsyncGenerator[RowAnswer, None]:
        """Ask a version about each row; stopped in the middle it keeps what has landed.

        Where there is a ledger, one after the other: a process has it in use once at a time.

        Raises:
            PgBridgeError: The prompt is not valid, or the engine failed as a whole.
        """
        return self._ask(self.versions[number])  # which has another place as soon as an earlier one is dropped

    async def _ask(self, version: Version) -> AsyncGenerator[RowAnswer, None]:
        def note(figures: Mapping[str, object]) -> None:
            version.figures = {name: figures[name] for name in _FIGURES} | {"cost": self._cost(figures)}

        given: Any = {**call_options(version.options), "on_error": "null", "ordered": False}
        given |= {"ledger": self._ledger, "on_run": note}
        version.asked_by += 1
        try:
            async with self._ledger_in_use if self._ledger else nullcontext():
                version.answers.clear()
                answers = mapping_async.map_rows_async(self.sample.rows, version.prompt, self._server, **given)
                async with aclosing(answers):
                    async for answer in answers:
                        version.answers[answer.row] = (answer.output, answer.error)
                        yield answer
        finally:
            version.asked_by -= 1
            if not version.answers and not version.asked_by and version in self.versions:  # as of a prompt of no sense
                self.drop(self.versions.index(version))

    def drop(self, number: int) -> None:
        """Take a version away.

        Raises:
            OptionError: There is none.
        """
        if not 0 <= number < len(self.versions):
            raise OptionError(f"there is no version {number + 1}")
        del self.versions[number]
        self._write()

    def learn(self, row: int, value: str | None) -> None:
        """Note the right answer about a row; None takes it back.

        Raises:
            OptionError: There is no such row.
        """
        if not 0 <= row < len(self.sample.rows):
            raise OptionError(f"there is no row {row}")
        if value is None:
            self.known.pop(row, None)
        else:
            self.known[row] = value
        self._write()

    def as_sql(self, number: int) -> str | None:
        """A statement that asks a version about all rows; None where they are in a file."""
        if self._is_file:
            return None
        version = self.versions[number]
        words = [_literal(self._source.rstrip().rstrip(";")), _literal(version.prompt)]
        words += [f"{name} => {_in_sql(name, text)}" for name, text in sorted(version.options.items())]
        arguments = ",\n    ".join(words)
        return f"SELECT input, output, error\nFROM llm.map(\n    {arguments}\n) ORDER BY row_id;"

    def as_command(self, number: int) -> str:
        """A command line that does."""
        version = self.versions[number]
        words = ["pg-bridge", "map", "--from" if self._is_file else "--query", self._source]
        words += ["--prompt", version.prompt, "--into", "answers.csv"]
        for name, text in sorted(version.options.items()):
            words += [f"--{name.replace('_', '-')}", text]
        return shlex.join(words)

    def _shown(self, version: Version) -> dict[str, object]:
        number = self.versions.index(version)
        return {
            "prompt": version.prompt,
            "options": version.options,
            "answers": version.answers,
            "figures": version.figures,
            "sql": self.as_sql(number),
            "command": self.as_command(number),
        }

    def _cells(self, row: Mapping[str, Any]) -> list[str | None]:
        """A row's cells as one reads them: texts without their quotes."""
        return [
            None if value is None else value if isinstance(value, str) else encode(value, name)
            for name, value in ((name, row.get(name)) for name in self.sample.columns)
        ]

    def _cost(self, figures: Mapping[str, object]) -> float | None:
        tokens = {name: figures[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
        return cost_of(_Tokens(**tokens), self._server)  # type: ignore[arg-type]

    def _read(self, notes: Path) -> None:
        try:
            kept = json.loads(notes.read_text(encoding="utf-8"))
            for version in kept["versions"]:
                self._add(str(version["prompt"]), {str(k): str(v) for k, v in version["options"].items()})
            known = {str(text): str(value) for text, value in kept["known"].items()}
        except OSError as error:
            raise OptionError(f"cannot read {notes}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise OptionError(f"{notes} holds no notes of a workbench") from None
        self._elsewhere = {text: value for text, value in known.items() if text not in self._texts}
        self.known = {row: known[text] for row, text in enumerate(self._texts) if text in known}

    def _write(self) -> None:
        if self._notes is None:
            return
        known = self._elsewhere | {self._texts[row]: value for row, value in self.known.items()}
        versions = [{"prompt": version.prompt, "options": version.options} for version in self.versions]
        text = json.dumps({"versions": versions, "known": known}, ensure_ascii=False, indent=1)
        beside = self._notes.with_name(f"{self._notes.name}.new")
        try:
            # Half of a surrogate pair, which a model may answer, is written as JSON escapes it.
            beside.write_text(text, encoding="utf-8", errors="backslashreplace")
            beside.replace(self._notes)
        except OSError as error:
            raise OptionError(f"cannot write {self._notes}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Tokens:
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None


def known_options() -> list[Option]:
    """The options that a version may have."""
    return [option for option in options_of(Call) if "map" in option.places and option.name not in _NOT_HERE]


def call_options(texts: Mapping[str, str]) -> dict[str, object]:
    """The options of a call, from texts.

    Raises:
        OptionError: There is none of that name, or its value is not valid.
    """
    options = {option.name: option for option in known_options()}
    given = {}
    for name, text in texts.items():
        option = options.get(name)
        if option is None:
            raise OptionError(f'there is no option "{name}"', hint=f"There are: {', '.join(sorted(options))}.")
        try:
            given[name] = option.value.of_text(text)
        except ValueError:
            raise OptionError(
                f'invalid value for option "{name}"', hint=f"It must be {option.value.expects}."
            ) from None
    return given


def _in_sql(name: str, text: str) -> str:
    """An option's value; a list is an array."""
    value = call_options({name: text})[name]
    return f"ARRAY[{', '.join(map(_literal, value))}]" if isinstance(value, tuple | list) else _literal(text)


def _literal(text: str) -> str:
    """A literal of SQL, in dollar quotes where it has quotes or lines."""
    if "'" not in text and "\\" not in text and "\n" not in text:
        return f"'{text}'"
    tag = "q"
    while f"${tag}$" in text or text.endswith(f"${tag}"):
        tag += "q"
    return f"${tag}${text}${tag}$"
