"""What an engine tells of itself without asking its model anything: tokens, its prefix cache, its endpoints.

In: an engine, its server, a sampling. Out: token ids, and an `EngineFacts`. An engine that does not tell is no error,
for estimates can do without; one that cannot be reached, or refuses the key, is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pg_bridge.engine.dialects import dialect_of_server
from pg_bridge.engine.engine import Engine
from pg_bridge.engine.failures import refused_run
from pg_bridge.engine.flight import pace_of
from pg_bridge.engine.payload import Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.refusal import DENIED_STATUSES, Refused
from pg_bridge.engine.untrusted import parse_json, token_count
from pg_bridge.options import Server
from pg_bridge.rows.media import without_media

BLOCK_SIZE = 16  # tokens: vLLM's own default
CACHE_BLOCKS = 65_536  # a million tokens, more than most GPUs have room for

_CONFIG = re.compile(r"^vllm:cache_config_info\{([^\n]*)\}", re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_BATCH_PATH = "/v1/chat/completions/batch"
_WRONG_METHOD = 405
_OF_MEDIUM = -1  # a token of a medium, which is none of the vocabulary's


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What decides about a run besides its prompts.

    Attributes:
        block_size: Tokens of a block of the prefix cache.
        cache_blocks: Blocks that it holds; 0 where there is no such cache.
        prompts_per_request: At most.
        tells: Whether the cache is as the engine says; else it is vLLM's usual one.
    """

    block_size: int = BLOCK_SIZE
    cache_blocks: int = CACHE_BLOCKS
    prompts_per_request: int = 1
    tells: bool = False


def survey(engine: Engine, server: Server) -> EngineFacts:
    """Look at an engine's pages.

    Raises:
        EngineError: It cannot be reached, or refuses the key.
    """
    block_size, blocks, tells = BLOCK_SIZE, CACHE_BLOCKS, False
    status, page = engine.fetch("/metrics")
    if status == 200 and (told := read_cache_config(page)) is not None:
        (block_size, blocks), tells = told, True
    per_request = pace_of(server, eager=True).largest_request if _takes_many(engine, server) else 1
    return EngineFacts(block_size, blocks, per_request, tells)


def _takes_many(engine: Engine, server: Server) -> bool:
    """Whether a request may have several prompts."""
    dialect = dialect_of_server(server)
    if server.api == "completions":
        return dialect is None or dialect.has_lists
    return (dialect is None or dialect.has_batches) and has_batches(engine)


def has_batches(engine: Engine) -> bool:
    """Whether an engine has vLLM's endpoint for many conversations at once."""
    return engine.fetch(_BATCH_PATH)[0] == _WRONG_METHOD  # it takes POST alone


def read_cache_config(page: str) -> tuple[int, int] | None:
    r"""Read what a `/metrics` page says of the prefix cache: tokens of a block, and blocks.

    Returns:
        None where it says nothing. Several engines behind one page have caches alike, and each sees a part of the
        prompts: the first one's is taken.

    >>> read_cache_config('vllm:cache_config_info{block_size="32",enable_prefix_caching="True",num_gpu_blocks="9"} 1.0')
    (32, 9)
    """
    found = _CONFIG.search(page)
    labels = dict(_LABEL.findall(found[1])) if found else {}
    size, blocks = labels.get("block_size", ""), labels.get("num_gpu_blocks", "")
    if not re.fullmatch("[1-9][0-9]{0,5}", size):
        return None
    if labels.get("enable_prefix_caching") == "False":
        return int(size), 0
    return int(size), int(blocks) if re.fullmatch("[0-9]{1,9}", blocks) else CACHE_BLOCKS


def count_ranks(page: str) -> int:
    r"""How many data-parallel ranks a `/metrics` page tells of; 0 where it does not tell.

    >>> count_ranks('vllm:cache_config_info{engine="0"} 1.0\nvllm:cache_config_info{engine="1"} 1.0')
    2
    """
    return len({dict(_LABEL.findall(labels)).get("engine") for labels in _CONFIG.findall(page)})


class EngineTokenizer:
    """How an engine cuts texts into tokens, where it tells.

    Args:
        engine: Open or not; the caller closes it.
        server: Where it is.
        sampling: How prompts are to be answered.
    """

    def __init__(self, engine: Engine, server: Server, sampling: Sampling) -> None:
        self._engine = engine
        self._server = server
        self._payload = Payload(server.api, server.model or "", sampling)

    def prompts(self, prompts: Sequence[str]) -> list[list[int]] | None:
        """The tokens of whole prompts: template, system prompt and all; None where the engine does not tell.

        Raises:
            EngineError: It cannot be reached, or refuses the key.
        """
        try:
            return self._ask(prompts, self._payload.tokenized)
        except UnicodeEncodeError:  # half of a surrogate pair, with which no engine answers
            return None

    def texts(self, texts: Sequence[str]) -> list[list[int]] | None:
        """The tokens of texts alone; as `prompts`."""
        model = {"model": self._server.model} if self._server.model else {}
        return self._ask(
            texts, lambda text: json.dumps({**model, "prompt": text, "add_special_tokens": False}).encode()
        )

    def _ask(self, texts: Sequence[str], body_of: Callable[[str], bytes]) -> list[list[int]] | None:
        """The tokens of some texts; of what stands for media as many as these are counted as."""
        plain = [without_media(text) for text in texts]
        bodies = [body_of(text) for text, _ in plain]
        found: list[list[int]] = []
        for part in (bodies[:1], bodies[1:]):  # one alone tells whether there is anything to be told
            for status, page in self._engine.fetch_each("/tokenize", part):
                if status in DENIED_STATUSES:
                    raise refused_run(self._server, Refused(status, page))
                tokens = read_tokens(page) if status == 200 else None
                if tokens is None:
                    return None
                found.append(tokens + [_OF_MEDIUM] * plain[len(found)][1])
        return found


def read_tokens(page: bytes) -> list[int] | None:
    """The token ids of an answer of `/tokenize`; None where it is none.

    >>> read_tokens(b'{"count": 2, "max_model_len": 8, "tokens": [7, 9]}')
    [7, 9]
    >>> [read_tokens(page) for page in (b'{"tokens": []}', b"<html>", b'{"count": 1, "tokens": ["a"]}')]
    [None, None, None]
    """
    try:
        answer = parse_json(page)
    except ValueError:
        return None
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(tokens, list) or answer.get("count") != len(tokens):
        return None
    return tokens if all(token_count(token) is not None for token in tokens) else None
