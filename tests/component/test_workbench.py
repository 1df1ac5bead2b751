"""The workbench: who may reach it, what it asks, what it keeps, and what it does with what makes no sense."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pg_bridge.cli import main
from pg_bridge.errors import OptionError
from pg_bridge.jobs.files import FileReading
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from pg_bridge.workbench import Bench, Sample, serve, take_sample

ROWS = [{"film": f"film {i % 3}", "review": f'"{i}" <b>é</b>'} for i in range(6)]
SAMPLE = Sample(("film", "review"), tuple(ROWS), 60)


def write_csv(path: Path, rows: int) -> Path:
    path.write_text("id\n" + "".join(f"{i}\n" for i in range(rows)), encoding="utf-8")
    return path


def sample_of(path: Path, count: int, seed: int) -> list[int]:
    reading = FileReading(path, ())
    reading.open()
    sample = take_sample(reading, count, seed)
    assert sample.columns == ("id",)
    return [int(row["id"]) for row in sample.rows]


def test_a_sample_is_some_of_the_rows_in_their_order(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", 50)
    drawn = [sample_of(path, 10, seed) for seed in range(200)]
    assert all(sorted(set(rows)) == rows and len(rows) == 10 for rows in drawn)
    assert drawn[3] == sample_of(path, 10, 3)
    seen = Counter(row for rows in drawn for row in rows)
    assert set(seen) == set(range(50))  # 40 times each on average
    assert max(seen.values()) < 80
    assert sample_of(path, 60, 1) == list(range(50))


def test_there_must_be_a_row(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no row"):
        sample_of(write_csv(tmp_path / "rows.csv", 0), 10, 1)


@asynccontextmanager
async def client_of(bench: Bench, *, token: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    runner, address = await serve(bench)
    url, _, own = address.partition("#")
    headers = {"Authorization": f"Bearer {own if token is None else token}"}
    try:
        async with aiohttp.ClientSession(url, headers=headers) as client:
            yield client
    finally:
        await runner.cleanup()


def with_client(bench: Bench, work: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]], **how: str) -> None:
    async def run() -> None:
        async with client_of(bench, **how) as client:
            await work(client)

    asyncio.run(run())


async def ask(client: aiohttp.ClientSession, prompt: str, **options: str) -> list[dict[str, Any]]:
    async with client.post("/ask", json={"prompt": prompt, "options": options}) as response:
        assert response.status == 200
        return [json.loads(line) for line in (await response.text()).splitlines()]


async def state_of(client: aiohttp.ClientSession) -> Any:
    async with client.get("/state") as response:
        return await response.json()


def test_versions_stand_beside_each_other(tmp_path: Path) -> None:
    with EngineDouble() as double:
        bench = Bench(SAMPLE, Server("engine", double.url, price_prompt=1.0), "TABLE r;", ledger=tmp_path / "ledger")

        async def work(client: aiohttp.ClientSession) -> None:
            lines = await ask(client, "Is {review} kind?", choices="yes,no")
            assert (lines[0], lines[-1]) == ({"version": 0}, {"done": True})
            assert sorted(line["row"] for line in lines[1:-1]) == list(range(6))
            await ask(client, "Is {film} good?")
            state = await state_of(client)
            assert state["rows"][0] == ["film 0", '"0" <b>é</b>']
            assert (state["total"], state["source"]) == (60, "TABLE r;")
            first, second = state["versions"]
            assert {answer[0] for answer in first["answers"].values()} <= {"yes", "no"}
            assert first["figures"]["unique_prompts"] == 6
            assert second["figures"]["unique_prompts"] == 3
            assert second["figures"]["cost"] > 0
            assert second["command"] == (
                "pg-bridge map --query 'TABLE r;' --prompt 'Is {film} good?' --into answers.csv"
            )
            double.reset()
            assert (await ask(client, "Is {review} kind?", choices="yes,no"))[0] == {"version": 0}  # the same one
            assert double.received.prompts == []  # it stands in the ledger
            assert (await state_of(client))["versions"][0]["answers"] == first["answers"]
            assert (await client.post("/drop", json={"version": 0})).status == 200
            assert [version["prompt"] for version in (await state_of(client))["versions"]] == ["Is {film} good?"]

        with_client(bench, work)


def test_a_row_without_an_answer_says_why() -> None:
    with EngineDouble() as double:
        double.behaviour.refuse_marked = {"film 1": "no such films"}

        async def work(client: aiohttp.ClientSession) -> None:
            lines = await ask(client, "{film}?")
            errors = {line["row"]: line["error"] for line in lines[1:-1]}
            assert {row for row, error in errors.items() if error} == {1, 4}
            assert all("no such films" in error for error in errors.values() if error)

        with_client(Bench(SAMPLE, Server("engine", double.url), "TABLE r"), work)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the request is no object of JSON"),
        (b"[1]", "the request is no object of JSON"),
        (b"[" * 100_000, "the request is no object of JSON"),
        (b'{"prompt": 1}', "the prompt is no text"),
        (b'{"prompt": "a", "options": []}', "the options are no object"),
        (b'{"prompt": "a", "options": {"colour": "red"}}', 'there is no option "colour"'),
        (b'{"prompt": "a", "options": {"server": "x"}}', 'there is no option "server"'),
        (b'{"prompt": "a", "options": {"max_tokens": "-1"}}', 'invalid value for option "max_tokens"'),
    ],
)
def test_what_makes_no_sense_is_not_asked(body: bytes, says: str) -> None:
    bench = Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r")

    async def work(client: aiohttp.ClientSession) -> None:
        async with client.post("/ask", data=body) as response:
            assert response.status == 400
            assert says in (await response.json())["message"]
        assert bench.versions == []

    with_client(bench, work)


def test_a_prompt_that_names_no_column_leaves_no_version() -> None:
    bench = Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r")

    async def work(client: aiohttp.ClientSession) -> None:
        for prompt, says in (("Is {nothing}?", 'column "nothing" does not exist'), ("Is {", "unbalanced")):
            lines = await ask(client, prompt)
            assert says in lines[1]["message"]
        assert bench.versions == []
        for body in ({"version": 0}, {"version": "x"}, {}):
            assert (await client.post("/drop", json=body)).status == 400
        for known in ({"row": 6, "value": "a"}, {"row": -1, "value": "a"}, {"row": "0"}, {"row": 0, "value": 1}):
            assert (await client.post("/known", json=known)).status == 400

    with_client(bench, work)


def test_nobody_else_reaches_it() -> None:
    bench = Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r")

    async def without(client: aiohttp.ClientSession) -> None:
        for path in ("/state", "/ask", "/known", "/drop", "/nothing"):
            assert (await client.get(path)).status == 401
            assert (await client.post(path, json={})).status == 401
        async with client.get("/") as page:  # nothing of the rows stands in it
            assert page.status == 200
            assert "film" not in await page.text()

    async def by_another_name(client: aiohttp.ClientSession) -> None:
        for path in ("/", "/state"):
            assert (await client.get(path, headers={"Host": "attacker.example:80"})).status == 403
        assert (await client.get("/state", headers={"Host": f"localhost:{client._base_url.port}"})).status == 200  # type: ignore[union-attr]

    for token in ("", "é"):
        with_client(bench, without, token=token)
    with_client(bench, by_another_name)


def test_the_page_runs_its_own_script_alone() -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        async with client.get("/") as response:
            page, policy = await response.text(), response.headers["Content-Security-Policy"]
            assert response.headers["X-Frame-Options"] == "DENY"
        (nonce,) = set(re.findall(r'nonce="([^"]+)"', page))
        assert f"script-src 'nonce-{nonce}'" in policy
        assert "default-src 'none'" in policy
        assert "innerHTML" not in page
        async with client.get("/") as again:
            assert nonce not in await again.text()

    with_client(Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r"), work)


def test_who_stops_reading_stops_the_engine() -> None:
    with EngineDouble(delay_s=0.05) as double:
        bench = Bench(
            Sample(("a",), tuple({"a": str(i)} for i in range(300)), 300),
            Server("engine", double.url, max_in_flight=2),
            "T",
        )

        async def work(client: aiohttp.ClientSession) -> None:
            async with client.post("/ask", json={"prompt": "{a}?"}) as response:
                await response.content.readline()
                await response.content.readline()
                response.close()
            while (before := len(double.received.prompts)) and await asyncio.sleep(0.5, before) != len(
                double.received.prompts
            ):
                assert before < 300
            assert 0 < len((await state_of(client))["versions"][0]["answers"]) <= before

        with_client(bench, work)


def test_notes_are_kept_and_found_by_their_rows(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    server = Server("engine", "http://127.0.0.1:9")
    bench = Bench(SAMPLE, server, "TABLE r", notes=notes)
    bench.add("Is {review} kind?", {"choices": "yes,no"})
    bench.learn(1, "yes")
    bench.learn(2, "no")
    bench.learn(2, None)
    other = Bench(Sample(SAMPLE.columns, tuple(ROWS[4:]), 60), server, "TABLE r", notes=notes)
    assert other.known == {}
    other.learn(0, "no")
    again = Bench(SAMPLE, server, "TABLE r", notes=notes)
    assert again.known == {1: "yes", 4: "no"}
    assert [(version.prompt, version.options) for version in again.versions] == [
        ("Is {review} kind?", {"choices": "yes,no"})
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"versions": [1], "known": {}}', "[" * 100_000])
def test_notes_that_are_none_are_left_alone(tmp_path: Path, text: str) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match="holds no notes of a workbench"):
        Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r", notes=notes)
    assert notes.read_text(encoding="utf-8") == text


def test_the_command_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PG_BRIDGE_ENDPOINT", raising=False)
    path = str(write_csv(tmp_path / "rows.csv", 3))
    engine = ["--endpoint", "http://127.0.0.1:9"]
    for words, says in (
        (["--from", path], "there is no engine"),
        (["--from", path, *engine, "--rows", "0"], "a sample has from 1 to 500 rows"),
        (["--from", "rows.txt", *engine], "rows.txt is no .csv, .jsonl or .parquet file"),
        (["--from", str(tmp_path / "none.csv"), *engine], "cannot read"),
        (["--query", "SELECT 1", "--dsn", "port=1 host=127.0.0.1", *engine], "no connection to PostgreSQL"),
    ):
        assert main(["workbench", *words]) in (1, 2)
        assert says in capsys.readouterr().err


def test_half_a_surrogate_pair_is_kept_and_keeps_nothing_else_from_being_kept(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    rows = ({"film": "\ud800"}, {"film": "é"})
    with EngineDouble(answer=lambda _: "\udc00") as double:

        def bench() -> Bench:
            return Bench(Sample(("film",), rows, 2), Server("engine", double.url), "x.jsonl", is_file=True, notes=notes)

        async def work(client: aiohttp.ClientSession) -> None:
            assert len(await ask(client, "{film} \ud800?")) == 4
            for row, value in ((0, "\udc00"), (1, "é")):
                async with client.post("/known", json={"row": row, "value": value}) as response:
                    assert response.status == 200

        with_client(bench(), work)
        assert bench().known == {0: "\udc00", 1: "é"}
        assert bench().versions[0].prompt == "{film} \ud800?"
        assert "é" in notes.read_text(encoding="utf-8")


def test_a_token_of_any_bytes_is_refused() -> None:
    bench = Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r")

    async def run() -> None:
        runner, _ = await serve(bench)
        try:
            reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
            writer.write(b"GET /state HTTP/1.1\r\nHost: 127.0.0.1:1\r\nAuthorization: Bearer \xff\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"401"
            writer.close()
            await writer.wait_closed()
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_reading_notes_does_not_write_them(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    bench = Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r", notes=notes)
    bench.add("Is {review} kind?", {})
    bench.add("Is {film} kind?", {})
    bench.learn(2, "yes")
    kept = notes.read_text(encoding="utf-8")
    Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r", notes=notes)
    assert notes.read_text(encoding="utf-8") == kept
    notes.write_text(kept.replace('"options": {}\n  }\n ]', '"options": {"gone": "1"}}]'), encoding="utf-8")
    changed = notes.read_text(encoding="utf-8")
    with pytest.raises(OptionError, match='no option "gone"'):
        Bench(SAMPLE, Server("engine", "http://127.0.0.1:9"), "TABLE r", notes=notes)
    assert notes.read_text(encoding="utf-8") == changed != kept


def test_two_may_ask_at_once_with_a_ledger(tmp_path: Path) -> None:
    with EngineDouble(delay_s=0.05) as double:

        async def work(client: aiohttp.ClientSession) -> None:
            both = await asyncio.gather(ask(client, "{film}?"), ask(client, "{review}?"))
            assert [len(lines) for lines in both] == [8, 8]

        with_client(Bench(SAMPLE, Server("engine", double.url), "TABLE r", ledger=tmp_path / "ledger"), work)


def test_who_stops_lets_go_though_the_engine_says_nothing(tmp_path: Path) -> None:
    with EngineDouble(hang_after=0) as double:
        bench = Bench(SAMPLE, Server("engine", double.url), "TABLE r", ledger=tmp_path / "ledger")

        async def run() -> None:
            async with asyncio.timeout(30), client_of(bench) as client:
                async with client.post("/ask", json={"prompt": "{film}?"}) as stopped:
                    await stopped.content.readline()
                    stopped.close()
                double.behaviour.hang_after, double.behaviour.hang = -1, False
                assert len(await ask(client, "{review}?")) == 8

        asyncio.run(run())
        assert [version.prompt for version in bench.versions] == ["{review}?"]


def test_the_end_waits_for_no_answer() -> None:
    with EngineDouble(hang=True) as double:
        bench = Bench(SAMPLE, Server("engine", double.url), "TABLE r")

        async def run() -> None:
            async with asyncio.timeout(30), aiohttp.ClientSession() as client:
                runner, address = await serve(bench)
                url, _, token = address.partition("#")
                headers = {"Authorization": f"Bearer {token}"}
                async with client.post(f"{url}ask", json={"prompt": "{film}?"}, headers=headers) as asked:
                    await asked.content.readline()
                    await runner.cleanup()

        asyncio.run(run())
