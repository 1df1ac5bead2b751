"""The table of options: each is a field of the record that it is parsed into, with its default and its meaning.

In: option texts of PostgreSQL's catalogs, or a call's named arguments. Out: the records. An option is its default, its
value, the places where it may stand, and its meaning: what the reference page says, in the place of `Attributes:`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pg_bridge.errors import OptionError
from pg_bridge.options import forms, values
from pg_bridge.options.further import Headers, fill_headers, merge
from pg_bridge.options.option import (
    AGGREGATE,
    CASCADES,
    CLUSTERS,
    COLUMN,
    CONDITIONS,
    EACH_PROMPT,
    EACH_ROW,
    EMBEDS,
    EVERY_CALL,
    FREE_CALLS,
    LABELS,
    MAPPING,
    NOWHERE,
    POLLS,
    QUESTIONS,
    RANK,
    RESOLVE,
    SAMPLES,
    SCORES,
    SERVER,
    SURE_CALLS,
    TABLE,
    TOOLS,
    TRIALS,
    Needs,
    Option,
    Where,
    invalid_value,
    option,
    options_of,
    parse_texts,
    parse_values,
    required,
)
from pg_bridge.options.trial import Trial
from pg_bridge.options.values import (
    CACHES,
    PATTERNS,
    YES_OR_NO,
    Api,
    Cache,
    CacheSalt,
    CacheScope,
    DialectName,
    Gives,
    Kind,
    OnBudget,
    OnError,
    OnNull,
    Pairs,
    Place,
    Reasoning,
    Reorder,
)

IN_FLIGHT_OF_EACH = 1024
"""Prompts that may await an answer at an engine, or at one of its ranks, where the server does not say."""

EMBEDDED_ROWS = 10_000
"""The `window_rows` of embeddings, unless somebody says otherwise."""

MULTICORN_WRAPPER = "pg_bridge.multicorn.wrapper.Wrapper"

_SURE: frozenset[Kind] = frozenset({"boolean", "label", "number"})
"""What is one of a few answers, of which a model can be more or less sure."""

DEFAULT_SYSTEM_PROMPT = (
    "You answer a question about one row of a table. The row is a JSON object. Reply with the answer alone."
)


@dataclass(frozen=True, slots=True)
class Server:
    """Where an engine is and how to talk to it: the options of the server `name` and of one user mapping.

    `owner` is the oid of the role that the server belongs to, where PostgreSQL has told it; `salt` is what its
    `cache_salt` comes to for the role that asks, empty where nobody has made one.
    """

    name: str
    endpoint: str = field(
        metadata=required(
            values.ENDPOINT,
            SERVER,
            "the engine's base URL, http or https, with or without `/v1`; no user, no query; or those of "
            "[several engines](scaling.md#several-engines) that serve the same model, parted by commas or spaces",
        )
    )
    model: str | None = option(
        None, values.MODEL, SERVER, "the model's name; without it the first that the engine lists"
    )
    api: Api = option(
        "chat",
        values.API,
        SERVER,
        "`chat`: the batch chat endpoint, or one request a row where there is none; or `completions`",
    )
    dialect: DialectName = option(
        "auto",
        values.DIALECT,
        SERVER,
        "what the engine understands: [dialects](engines.md#dialects); `auto`: as it says of itself",
    )
    reasoning: Reasoning | None = option(
        None,
        values.REASONING,
        SERVER,
        "the `reasoning` of calls that say none: [models that reason](engines.md#models-that-reason)",
    )
    max_reasoning_tokens: int | None = option(
        None, values.TOKENS, SERVER, "the `max_reasoning_tokens` of calls that say none"
    )
    request_options: str | None = option(
        None,
        values.REQUEST_OPTIONS,
        SERVER,
        "a JSON object: [further keys](engines.md#whatever-else-an-engine-takes) of each request; those of a call go "
        "over them",
    )
    headers: Headers = option(
        (),
        values.HEADERS,
        SERVER,
        "a JSON object: [headers](engines.md#whatever-else-an-engine-takes) of each request; null for a value that "
        "stands in user mappings, for everybody may read the rest",
    )
    cache_salt: CacheSalt = option(
        "off",
        values.CACHE_SALT,
        SERVER,
        "`role`: no role's prompts find what those of [another](security.md#the-prefix-cache) left in the engine's "
        "prefix cache",
    )
    max_in_flight: int | None = option(
        None,
        values.PROMPTS,
        SERVER,
        "most prompts that may await an answer at one time, of [all sessions together](limits.md), at all engines "
        "together; of a slower engine fewer do; without it 1024 for each engine and each of its ranks",
    )
    ranks: int = option(
        1,
        values.RANKS,
        SERVER,
        "how many data-parallel ranks each engine has behind its one address; each is sent a run of the planned order: "
        "[ranks](scaling.md#ranks)",
    )
    requests_per_minute: int | None = option(
        None,
        values.PER_MINUTE,
        SERVER,
        "HTTP requests with prompts that may be sent in a minute, by all sessions together; without it no limit",
    )
    tokens_per_minute: int | None = option(
        None,
        values.PER_MINUTE,
        SERVER,
        "tokens of prompts and answers that may be used in a minute, by all sessions together; without it no limit",
    )
    connect_timeout_s: float = option(
        5.0, values.SECONDS, SERVER, "longest time to get one connection, and without one before the first answer"
    )
    request_timeout_s: float = option(
        300.0, values.SECONDS, SERVER, "longest silence of the engine while requests are in flight"
    )
    ca_file: str | None = option(
        None,
        values.FILE,
        SERVER,
        "a file of the machine that asks, in SQL of the database server: the authorities, or the engine's own "
        "certificate, that are trusted instead of those that the system trusts: [TLS](security.md#tls-and-proxies)",
        needs="pg_read_server_files",
    )
    cert_file: str | None = option(
        None,
        values.FILE,
        SERVER | MAPPING,
        "as `ca_file`: the certificate that is shown to an engine which wants one",
        needs="pg_read_server_files",
    )
    key_file: str | None = option(
        None,
        values.FILE,
        SERVER | MAPPING,
        "as `cert_file`: its key, not encrypted, where it is in a file of its own",
        needs="pg_read_server_files",
    )
    no_verify: bool = option(
        False,
        values.TRUTH,
        SERVER,
        "whether any certificate of the engine's is taken, anybody's; only a superuser may set `true`",
        needs="superuser",
    )
    proxy: str | None = option(
        None,
        values.PROXY,
        SERVER,
        "the HTTP proxy over which the engine is asked: [proxies](security.md#tls-and-proxies); only a superuser may "
        "set it",
        needs="superuser",
    )
    patience_s: float | None = option(
        None,
        values.PATIENCE,
        SERVER,
        "longest time for which an engine is waited for that is gone, is starting or asks to come again later: "
        "[patience](limits.md#patience); without it 300 once it has answered in the session, and before that "
        "`connect_timeout_s` and `max_retries`",
    )
    max_retries: int = option(
        4,
        values.RETRIES,
        SERVER,
        "how often one request is sent again after HTTP 500, 502 or 504, and after 429 or 503 where there is no "
        "patience; 0 for never",
    )
    max_answer_bytes: int = option(
        1 << 24,
        values.BYTES,
        SERVER,
        "most bytes that are read of the engine's answer to one request, of several prompts as a rule; more, or "
        "compressed ones, fail the statement",
    )
    max_media_bytes: int = option(
        20_000_000,
        values.BYTES,
        SERVER,
        "most bytes of one [picture, recording or document](media.md); a row with a larger one has no answer",
    )
    cache: Cache = option(
        "persistent",
        values.CACHE,
        SERVER,
        "the most that may be kept of answers: `off`, `transaction`, `persistent`: [the ledger](ledger.md)",
    )
    cache_scope: CacheScope = option(
        "server",
        values.CACHE_SCOPE,
        SERVER,
        "who shares answers that are kept: all who may use the server, or (`role`) each role its own",
    )
    cache_prompts: bool = option(
        False, values.TRUTH, SERVER, "whether prompts are kept beside their answers, and not their digests alone"
    )
    price_prompt: float | None = option(
        None,
        values.PRICE,
        SERVER,
        "price of a million prompt tokens, in whatever currency: [what it costs](estimate.md)",
    )
    price_cached: float | None = option(
        None, values.PRICE, SERVER, "the same of those that come from the prefix cache; without it they cost the same"
    )
    price_completion: float | None = option(None, values.PRICE, SERVER, "the same of answers")
    api_key: str | None = option(
        None,
        values.API_KEY,
        MAPPING,
        "the engine's API key; sent in the `Authorization` header and shown nowhere",
        is_secret=True,
    )
    proxy_user: str | None = option(None, values.PROXY_USER, MAPPING, "the name by which the server's `proxy` is used")
    proxy_password: str | None = option(
        None, values.PROXY_PASSWORD, MAPPING, "the password of `proxy_user`; shown nowhere", is_secret=True
    )
    secret_headers: Headers = option(
        (),
        values.SECRET_HEADERS,
        MAPPING,
        "a JSON object: values of the server's `headers` that are null there; shown nowhere",
        is_secret=True,
    )
    max_requests: int | None = option(
        None,
        values.COUNT,
        SERVER,
        "most prompts that one statement may send, whatever its calls say: [budgets](budgets.md); without it no limit",
    )
    max_prompt_tokens: int | None = option(None, values.COUNT, SERVER, "as `max_requests`: tokens of prompts")
    max_completion_tokens: int | None = option(None, values.COUNT, SERVER, "as `max_requests`: tokens of answers")
    max_seconds: float | None = option(
        None, values.DURATION, SERVER, "as `max_requests`: seconds since the statement's first prompt"
    )
    max_cost: float | None = option(None, values.AMOUNT, SERVER, "as `max_requests`: cost at the server's prices")
    daily_requests: int | None = option(
        None,
        values.COUNT,
        SERVER | MAPPING,
        "most prompts that a role may send on one day; in a user mapping for its role, instead of the server's: "
        "[budgets](budgets.md#a-role-and-a-day)",
    )
    daily_prompt_tokens: int | None = option(
        None, values.COUNT, SERVER | MAPPING, "as `daily_requests`: tokens of prompts"
    )
    daily_completion_tokens: int | None = option(
        None, values.COUNT, SERVER | MAPPING, "as `daily_requests`: tokens of answers"
    )
    daily_cost: float | None = option(
        None, values.AMOUNT, SERVER | MAPPING, "as `daily_requests`: cost at the server's prices"
    )

    owner: int = 0
    salt: str = field(default="", repr=False)

    @property
    def filled_headers(self) -> dict[str, str]:
        """The headers of each request, with the user mapping's values."""
        return fill_headers(self.name, self.headers, self.secret_headers)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str], owner: int = 0) -> Server:
        """Parse the options of a server and a user mapping.

        Args:
            name: The server's name.
            options: Option name to text, server and user mapping together.
            owner: The oid of its owner.

        Raises:
            OptionError: An option is unknown, malformed, or `endpoint` is missing; the headers of the two do not fit.
        """
        if "endpoint" not in options:
            raise OptionError(
                f'server "{name}" has no endpoint',
                hint=f"ALTER SERVER {name} OPTIONS (ADD endpoint 'http://host:8000');",
            )
        given = parse_options(("server", "user mapping"), options)
        _check_tls(name, given)
        server = cls(name=name, owner=owner, **pick(cls, given))
        fill_headers(name, server.headers, server.secret_headers)
        return server

    @property
    def most_in_flight(self) -> int:
        """Prompts that may await an answer at one time, at all of its engines."""
        return self.max_in_flight or IN_FLIGHT_OF_EACH * self.ranks * len(self.endpoints)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The base URL of each of its engines."""
        return tuple(self.endpoint.split(","))

    @property
    def engines(self) -> tuple[Server, ...]:
        """As if each of its engines were the only one."""
        if len(self.endpoints) == 1:
            return (self,)
        return tuple(replace(self, endpoint=endpoint) for endpoint in self.endpoints)

    @property
    def first_hop(self) -> str:
        """The URL of what is connected to: the engine, or the proxy before it."""
        return self.proxy or self.endpoint

    @property
    def uses_tls(self) -> bool:
        """Whether TLS is spoken to the engine, or to the proxy before it."""
        return any(url.startswith("https:") for url in self.endpoints) or self.first_hop.startswith("https:")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown, whoever says it."""
        of_headers = (value for _, value in self.secret_headers)
        return tuple(secret for secret in (self.api_key, self.proxy_password, *of_headers) if secret)


def beyond_rights(options: Mapping[str, str], has_rights_of: Callable[[Needs], bool]) -> Option | None:
    """The first of a server's options that takes rights which its owner has not.

    Args:
        options: Option name to text.
        has_rights_of: Whether he has the rights of a role, or is a superuser.
    """
    for each in options_of(Server):
        is_set = options.get(each.name) not in (None, each.harmless)
        if each.needs is not None and is_set and not has_rights_of(each.needs):
            return each
    return None


def _check_tls(name: str, given: Mapping[str, Any]) -> None:
    """See that what is said of TLS has a meaning together: what is not looked at would be taken for a protection."""
    if "key_file" in given and "cert_file" not in given:
        raise OptionError(f'server "{name}" has a key_file and no cert_file', hint="Set cert_file, too.")
    if given.get("no_verify") and "ca_file" in given:
        raise OptionError(
            f'server "{name}" has a ca_file, and no_verify',
            hint="With no_verify any certificate is taken: drop one of the two.",
        )
    urls = (*given["endpoint"].split(","), given.get("proxy", ""))
    unused = [each for each in ("ca_file", "cert_file") if each in given]
    if unused and not any(url.startswith("https:") for url in urls):
        raise OptionError(
            f'server "{name}" has a {unused[0]}, and its endpoint is asked without TLS',
            hint=f"Set the endpoint to one of https://, or drop {unused[0]}.",
        )


@dataclass(frozen=True, slots=True)
class Login:
    """How a foreign table's rows are reached, from the options of its server and of the reader's user mapping."""

    wrapper: str | None = option(
        None,
        values.exactly(MULTICORN_WRAPPER, f"{MULTICORN_WRAPPER} (Multicorn only)"),
        SERVER,
        f"on Multicorn, for [foreign tables](foreign-tables.md): `{MULTICORN_WRAPPER}`",
        is_listed=False,  # on PL/Python it is of no use
    )
    host: str | None = option(
        None,
        values.HOST,
        SERVER,
        "on Multicorn: where foreign tables reach the database to read their source; without it this one",
    )
    port: int | None = option(None, values.PORT, SERVER, "as `host`: the port")
    user: str | None = option(
        None, values.ROLE, MAPPING, "on Multicorn: the role that reads the sources of foreign tables"
    )
    password: str | None = option(None, values.PASSWORD, MAPPING, "on Multicorn: that role's password", is_secret=True)
    password_required: bool = option(
        True,
        values.TRUTH,
        MAPPING,
        "whether that role must need a password; only a superuser may set `false`",
        needs="superuser",  # it lets a foreign table be read as a role whose password its user does not know
    )

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Login:
        """Parse the options of a server and a user mapping.

        Raises:
            OptionError: An option is unknown or malformed.
        """
        return cls(**pick(cls, parse_options(("server", "user mapping"), options)))


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What a foreign table says of its source; how its columns are asked about is said by the options of a `Call`."""

    source: str = option(
        "", values.RELATION, TABLE, 'a table or a view, as a name: `public.reviews`, `"My Schema"."Reviews"`'
    )
    source_query: str = option("", values.SELECT, TABLE, "instead of `source`: one SELECT")
    security_invoker: bool = option(
        False,
        values.TRUTH,
        TABLE,
        "whether the source is read with the rights of the role that asks, and not of the table's owner: "
        "[rights](foreign-tables-hosts.md#rights)",
    )
    key: str | None = option(
        None, values.KEY, TABLE, "a column that tells the source's rows apart: joins may hand it over, see below"
    )
    relation: str | None = option(
        None,
        values.OWN_RELATION,
        TABLE,
        "",
        is_listed=False,
        needs="superuser",  # of the extension's own tables: into its Python's memory, past the checks of llm._connect
    )


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """What a model column says of its question; how it is asked is said by the options of a `Call`."""

    prompt: str = field(metadata=required(values.QUESTION, COLUMN, "the question"))
    labels: tuple[str, ...] = option(
        (), values.LABELS, COLUMN, "the only answers: parted by commas, or a JSON array; for text, text[] and enums"
    )
    schema: Mapping[str, Any] | None = option(
        None, values.SCHEMA, COLUMN, "a JSON schema, for jsonb and json; without it any object"
    )


@dataclass(frozen=True, slots=True)
class Call:
    """How one prompt is asked about one row set: the named options of `llm.map` and its kin."""

    server: str = option("vllm", values.NAME, EVERY_CALL, "the foreign server to ask")
    max_tokens: int = option(
        128,
        values.TOKENS,
        QUESTIONS | COLUMN,
        "most tokens of one answer, 1 to 1,000,000; a longer text is cut off there and is no error, but a yes or no, a "
        "label, a number, a date or JSON that was cut off is",
        defaults=dict.fromkeys(("extract", "translate", "redact", "fix_grammar", "map_with_tools"), 1024),
    )
    temperature: float = option(
        0.0, values.TEMPERATURE, QUESTIONS | COLUMN, "0 to 2; 0 picks the likeliest token every time"
    )
    system_prompt: str = option(
        DEFAULT_SYSTEM_PROMPT,
        values.INSTRUCTION,
        QUESTIONS | COLUMN,
        "the instruction before each question; `''` is none, without it the built-in one is taken",
        is_built_in=True,
    )
    choices: tuple[str, ...] = option(
        (), values.CHOICES, FREE_CALLS, "the only answers allowed, distinct and not empty; NULL for free text"
    )
    low: int | None = option(
        None, values.WHOLE, SCORES, "with `high`: the answer is a whole number from `low` to `high`, both included"
    )
    high: int | None = option(None, values.WHOLE, SCORES, "see `low`; without both any decimal number is one")
    descriptions: tuple[tuple[str, str], ...] = option(
        (),
        values.DESCRIPTIONS,
        LABELS,
        "what labels mean: a JSON object, of all of them if `labels` is left out, else of some",
    )
    on_null: OnNull = option(
        "ask",
        values.ON_NULL,
        EACH_ROW,
        "a NULL `input` is asked about as a row of nulls, or (`null`) gets NULL without being asked",
        defaults=dict.fromkeys(("translate", "sentiment", "redact", "fix_grammar"), "null"),
    )
    on_error: OnError = option(
        "fail",
        values.ON_ERROR,
        EVERY_CALL | COLUMN,
        "a row that cannot be answered fails the statement, or (`null`) gets NULL, and from `llm.map` its `error`",
        defaults=dict.fromkeys(("evaluate", "tune"), "null"),
    )
    reorder: Reorder = option(
        "rows and columns",
        values.REORDERING,
        (EACH_PROMPT & QUESTIONS) | SAMPLES | TABLE,
        "what the planner may move: `rows and columns`, `rows`, `none`",
    )
    placement: Place = option(
        "planned",
        values.PLACEMENT,
        TABLE,
        "where the question stands, see below: `planned`, `question first`, `row first`",
    )
    dedup: bool = option(True, values.TRUTH, EACH_PROMPT | TABLE, "whether equal prompts are asked once")
    window_rows: int = option(
        1_000_000,
        values.ROWS,
        EACH_PROMPT | TABLE,
        "most rows planned and asked together, 1 to 1,000,000; long rows fewer",
        # Embeddings are long, and their order is nothing to an engine; so are what functions return.
        defaults={"embed": EMBEDDED_ROWS, "map_with_tools": 10_000},
    )
    cache: Cache | None = option(
        None,
        values.CACHE,
        EVERY_CALL | COLUMN,
        "for how long an answer is found again: `off` not at all, `transaction` in the same statement, `persistent` "
        "whenever it is asked for; without it `persistent` at temperature 0, else `transaction`; no more than the "
        "server's",
    )
    max_age: float | None = option(
        None, values.AGE, EVERY_CALL | COLUMN, "how old an answer that is found again may be, in seconds"
    )
    priority: int | None = option(
        None,
        values.PRIORITY,
        EVERY_CALL | COLUMN,
        "whose turn it is at an [engine that goes by it](limits.md#priority), the lowest first; NULL sends none",
    )
    reasoning: Reasoning | None = option(
        None,
        values.REASONING,
        QUESTIONS | COLUMN,
        "whether a model that can [reason](engines.md#models-that-reason) does so before it answers: `off`, `low`, "
        "`medium`, `high`, or `model` to leave it to the model; without it the server's, else `off`",
    )
    max_reasoning_tokens: int | None = option(
        None,
        values.TOKENS,
        QUESTIONS | COLUMN,
        "most tokens of thoughts before one answer, besides `max_tokens`; without it the server's, else 4096 where it "
        "reasons",
    )
    request_options: str | None = option(
        None,
        values.REQUEST_OPTIONS,
        EVERY_CALL | COLUMN,
        "a JSON object: [further keys](engines.md#whatever-else-an-engine-takes) of each request, `seed` for one",
    )
    dimensions: int | None = option(
        None,
        values.DIMENSIONS,
        EMBEDS | RESOLVE | CLUSTERS,
        "how many numbers an embedding shall have, of a model that can give fewer than it has; without it all",
    )
    pairs: Pairs = option(
        "each",
        values.PAIRS,
        CONDITIONS,
        "how a condition over two rows, `llm.row(a, b)`, is asked in a batch: `each` pair by itself, a row with a list "
        "(`listed`), several rows with a list (`blocks`), or (`auto`) what costs least: [joins](joins.md)",
    )
    nearest: int | None = option(
        None,
        values.ROWS,
        CONDITIONS,
        "in a batch, of a condition over `llm.row(a, b)`: with how many of `b` each of `a` is asked about, the nearest "
        "by embeddings; for all others the answer is no, and [what that loses](joins.md#ask-about-the-nearest) is told",
    )
    checked: int = option(
        200,
        values.CHECKED,
        CONDITIONS,
        "how many of the pairs that `nearest` leaves out are asked about all the same, to tell how many it loses; 0 "
        "for none, 10,000 at most",
    )
    rows_per_prompt: int = option(
        1,
        values.ROWS_PER_PROMPT,
        (QUESTIONS - RANK - TOOLS - TRIALS - SAMPLES - RESOLVE - CLUSTERS) | COLUMN,
        "most rows that one prompt of a batch asks about, 1 to 100: [fewer prompts, more wrong answers]"
        "(rows-per-prompt.md)",
    )
    list_rows: int = option(
        10,
        values.LIST_ROWS,
        RANK,
        "most rows that one question puts in order, 2 to 100: 2 is pair by pair; [rank](rank.md)",
    )
    embedder: str | None = option(
        None,
        values.NAME,
        CONDITIONS | RESOLVE | CLUSTERS,
        "the server whose embeddings tell which rows are near; without it, for `nearest` of `llm.is_true`, `server`'s "
        "do, and in `llm.resolve` their letters",
    )
    candidates: int | None = option(
        None,
        values.CANDIDATES,
        RESOLVE,
        "with how many of those nearest to it each row may be compared, 1 to 100; without it 5 with an `embedder`, and "
        "all without one",
    )
    min_similarity: float = option(
        -1.0,
        values.COSINE,
        RESOLVE,
        "the least cosine, -1 to 1, of rows that may be compared",
    )
    context_tokens: int | None = option(
        None,
        values.TOKENS,
        AGGREGATE | (QUESTIONS - TOOLS - TRIALS - SAMPLES - RESOLVE) | COLUMN,
        "most tokens that a prompt about several rows and its answer may have together; without it what the engine "
        "tells",
    )
    max_calls: int = option(
        5,
        values.CALLS,
        TOOLS,
        "most calls of functions for one row, 1 to 100; then it is asked a last time and has to answer: "
        "[tools](tools.md)",
    )
    max_result_bytes: int = option(
        4096,
        values.TOKENS,
        TOOLS,
        "most bytes of what one call returned that the model is shown, 1 to 1,000,000",
    )
    proxy: str | None = option(
        None,
        values.NAME,
        CASCADES,
        "the server of the small model, which is asked about every row; `server` is the large one's: "
        "[cascades](cascades.md)",
    )
    recall_target: float = option(
        0.9,
        values.PART,
        frozenset({"cascade"}),
        "the share of the large model's yes that is to be yes",
    )
    precision_target: float = option(
        0.9, values.PART, frozenset({"cascade"}), "the share of what is yes that is to be the large model's yes"
    )
    accuracy_target: float = option(
        0.9, values.PART, frozenset({"cascade_labels"}), "the share of rows that are to have the large model's label"
    )
    error: float | None = option(
        None,
        values.MARGIN,
        POLLS,
        "how far the estimate may be off, in both directions; without it a twentieth of what there is: 0.05 of a share",
    )
    probability: float = option(0.95, values.CHANCE, SAMPLES, "how likely it is to be that what was asked for is kept")
    seed: int = option(0, values.SEED, SAMPLES, "draws other rows: the same seed draws the same of the same rows")
    confidence: bool = option(
        False,
        values.TRUTH,
        SURE_CALLS,
        "whether the answer is asked for together with [how sure the model is of it](confidence.md), so that one "
        "question gives both; the native module says so where it finds both in a statement",
    )
    # Said by the function that is called, or by a column's type; dates and times are those of ISO 8601.
    kind: Kind = option("text", values.KIND, NOWHERE, "the form of an answer", is_listed=False)
    gives: Gives = option(
        "answer", values.GIVES, NOWHERE, "what the function returns: the answer, or how sure it is", is_listed=False
    )
    schema: str = option("", values.SCHEMA_TEXT, NOWHERE, "a JSON schema, if it is JSON", is_listed=False)
    ordered: int = option(0, values.LIST_ROWS, NOWHERE, "rows whose numbers the answer puts in order", is_listed=False)
    any_of: tuple[str, ...] = option(
        (), values.CHOICES, NOWHERE, "labels of which the answer lists those that fit", is_listed=False
    )
    shares_limits: bool = option(
        False, values.TRUTH, NOWHERE, "whether questions of other forms count for its limits, too", is_listed=False
    )
    max_requests: int | None = option(
        None,
        values.COUNT,
        EVERY_CALL | COLUMN,
        "most prompts that may be sent for it in one statement: [budgets](budgets.md); without it no limit",
    )
    max_prompt_tokens: int | None = option(
        None, values.COUNT, EVERY_CALL | COLUMN, "as `max_requests`: tokens of prompts"
    )
    max_completion_tokens: int | None = option(
        None, values.COUNT, QUESTIONS | COLUMN, "as `max_requests`: tokens of answers"
    )
    max_seconds: float | None = option(
        None, values.DURATION, EVERY_CALL | COLUMN, "as `max_requests`: seconds since its first prompt"
    )
    max_cost: float | None = option(
        None, values.AMOUNT, EVERY_CALL | COLUMN, "as `max_requests`: cost at the server's prices"
    )
    on_budget: OnBudget = option(
        "fail",
        values.ON_BUDGET,
        EVERY_CALL | COLUMN,
        "a budget that is used up fails the statement, or (`null`) the rows that are left get NULL",
    )

    def cache_at(self, server: Server) -> Cache:
        """For how long answers are found again, where a server answers."""
        own: Cache = self.cache or ("transaction" if self.temperature else "persistent")
        if own == "persistent" and not self.dedup:  # equal questions are to be asked, each on its own
            own = "transaction"
        return min(own, server.cache, key=CACHES.index)

    def reasoning_at(self, server: Server) -> Reasoning:
        """Whether the model reasons, where a server answers."""
        return self.reasoning or server.reasoning or "off"

    def further_at(self, server: Server) -> dict[str, Any]:
        """What answers depend on besides, where a server answers; only what differs from what always was."""
        reasoning, most = self.reasoning_at(server), self.max_reasoning_tokens or server.max_reasoning_tokens
        further = {
            "request_options": merge(server.request_options, self.request_options),
            "reasoning": "" if reasoning == "off" else reasoning,
            "max_reasoning_tokens": most,
        }
        return {name: value for name, value in further.items() if value}

    @property
    def embeds(self) -> bool:
        """Whether nothing is asked, and texts become embeddings."""
        return self.kind == "embedding"

    @property
    def reranks(self) -> bool:
        """Whether nothing is asked, and documents are compared with queries."""
        return self.kind == "relevance"

    @property
    def is_pooled(self) -> bool:
        """Whether there is no question, and answers are numbers."""
        return self.embeds or self.reranks

    @property
    def joins_pairs(self) -> bool:
        """Whether conditions over pairs are put together; not where equal ones are to be asked each by itself."""
        return (self.pairs != "each" or self.nearest is not None) and self.dedup and not self.confidence

    @property
    def embeds_for_nearest(self) -> Call:
        """How texts are embedded for it, as `llm.embed` would; limits hold for them as for the questions."""
        limits = ("max_requests", "max_prompt_tokens", "max_seconds", "max_cost")
        return self.embeds_at(self.server if self.embedder is None else self.embedder, *limits)

    def embeds_at(self, server: str, *names: str) -> Call:
        """How what it is asked about is embedded at a server, with some more of its options."""
        names = ("on_error", "cache", "max_age", "priority", "on_budget", *names)
        given = {name: getattr(self, name) for name in names}
        return Call.from_arguments(given | {"kind": "embedding", "server": server, "window_rows": EMBEDDED_ROWS})

    @property
    def packs(self) -> bool:
        """Whether several rows are put into one prompt; not where a question is about several already, or about one."""
        is_alone = self.embeds or self.confidence or not self.dedup
        return self.rows_per_prompt > 1 and self.pairs == "each" and not is_alone

    @property
    def asked(self) -> Call:
        """What is asked, whichever part of the answer is wanted: equal for calls that have one question."""
        return self if self.gives == "answer" else replace(self, gives="answer")

    @property
    def purse(self) -> Hashable:
        """What is equal for calls that share their limits: those about lists and about pairs of one condition do.

        So do the questions that `llm.map` asks together.
        """
        if self.pairs == "each" and not self.shares_limits:
            return self
        limits = (
            self.max_requests,
            self.max_prompt_tokens,
            self.max_completion_tokens,
            self.max_seconds,
            self.max_cost,
        )
        return (self.server, self.pairs, self.on_budget, *limits)

    @property
    def pattern(self) -> str:
        """A regular expression for the whole answer; empty for none."""
        if self.low is not None and self.high is not None:
            return forms.whole_numbers(self.low, self.high)
        if self.any_of:
            return forms.list_of(self.any_of)
        if self.ordered:
            return forms.order_of(self.ordered)
        return PATTERNS.get(self.kind, "")

    @property
    def told(self) -> str:
        """What the question says of its answers, behind what the prompt says; empty for nothing."""
        if self.low is not None and self.high is not None:
            return f"Answer with a whole number from {self.low} to {self.high}."
        if self.any_of:
            return forms.told(forms.MANY, self.any_of, self.descriptions)
        return forms.told(forms.ONE, self.choices, self.descriptions) if self.descriptions else ""

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], system_prompt: str | None = None) -> Call:
        """Check a call's named arguments; None stands for an option's default.

        Args:
            arguments: The arguments.
            system_prompt: The default of that option, where it is another than for a question about one row.

        Raises:
            OptionError: An argument is unknown or its value is not valid.
        """
        if not isinstance(arguments, Mapping):
            raise OptionError("the options are not a JSON object", hint="""For example: {"server": "vllm"}""")
        if system_prompt is not None and arguments.get("system_prompt") is None:
            arguments = {**arguments, "system_prompt": system_prompt}
        own = {option.name: option for option in options_of(cls)}
        given = parse_values(
            own.values(), arguments, {"choices": "labels"} if arguments.get("kind") == "label" else None
        )
        call = cls(**given)
        _check_bounds(call.low, call.high)
        if call.kind == "boolean":
            call = replace(call, choices=YES_OR_NO)
        if call.kind in ("label", "labels"):
            call = _with_labels(call)
        if call.is_pooled:  # with nothing around a text, nothing behind it; documents of one query together
            call = replace(call, system_prompt="", max_tokens=0, reorder="none" if call.embeds else "rows")
        if call.kind not in _SURE:
            call = replace(call, confidence=False, gives="answer")
        elif call.gives == "confidence":
            call = replace(call, confidence=True)
        if call.kind == "json" and not call.schema:
            raise invalid_value("schema", own["schema"].value.expects)
        return call


def _with_labels(call: Call) -> Call:
    """The call with its labels, which are those that are described if they are not given."""
    labels = call.choices or tuple(label for label, _ in call.descriptions)
    if not labels:
        raise OptionError(
            'invalid value for option "labels"',
            hint="It must be an array of at least one label. llm.classify may go without where its answer is compared "
            "by IN, or by = with a column: docs/operators.md.",
        )
    if any(label not in labels for label, _ in call.descriptions):
        raise OptionError(
            "a label is described that is none of the labels",
            hint="Leave labels out, and those that are described are all there are; or describe some of them.",
        )
    alike = [forms.fold(label) for label in labels]
    if "" in alike:
        raise OptionError("a label is blank", hint="Give each at least a letter, a digit or a sign.")
    if len(set(alike)) < len(alike):
        raise OptionError(
            "two labels are the same but for capitals and spaces", hint="A model could not tell them apart."
        )
    return replace(call, choices=(), any_of=labels) if call.kind == "labels" else replace(call, choices=labels)


def _check_bounds(low: int | None, high: int | None) -> None:
    if (low is None) != (high is None):
        missing = "low" if low is None else "high"
        raise OptionError(f'there is no option "{missing}"', hint="Give both low and high, or neither of them.")
    if low is not None and high is not None and low > high:
        raise OptionError(f"no number is from {low} to {high}", hint="low must not be greater than high.")


OPTIONS: tuple[Option, ...] = tuple(
    option for record in (Server, Login, TableOptions, ColumnOptions, Call, Trial) for option in options_of(record)
)


def parse_options(places: tuple[Where, ...], given: Mapping[str, str]) -> dict[str, Any]:
    """Parse option texts that stand in some places of a catalog.

    Args:
        places: The places; options of other places are not valid here.
        given: Option name to text.

    Raises:
        OptionError: An option is unknown or malformed.
    """
    return parse_texts([option for option in OPTIONS if option.places.intersection(places)], given)


def pick(record: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some options that are a record's own."""
    own = {option.name for option in options_of(record)}
    return {name: value for name, value in given.items() if name in own}
