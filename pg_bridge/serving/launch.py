"""Starts vLLM's OpenAI-compatible server with the flags that pg_bridge needs, waits for it, and ends it.

In: a model and how to serve it. Out: the endpoint of a running engine, or an error with the end of its log.
vLLM is another program here: neither it nor torch is ever imported, and this module never runs inside
PostgreSQL.

    with VllmEngine("/path/to/model") as engine:
        print(engine.endpoint)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pg_bridge.serving.environment import Device, card_gib, find_device, find_vllm, has_fastokens
from pg_bridge.serving.flags import choose
from pg_bridge.serving.program import Program

DEFAULT_CPU_CACHE_GIB = 2

FASTOKENS = "VLLM_USE_FASTOKENS"


class VllmEngine(Program):
    """A vLLM server that lives as long as this object does; arguments and attributes besides those of `Program`.

    Args:
        model: A local directory or a name on the model hub.
        served_name: The name requests use; None is the model's own.
        host: As for `Program`, like `port`, `log_path`, `detached` and `progress`.
        port: As above.
        device: What to compute on.
        prefix_caching: Reuse the KV cache of equal prefixes.
        kv_cache_gib: Size of the KV cache on a CPU; on a GPU vLLM takes what is free.
        max_model_len: Longest prompt and answer together, in tokens; None is the model's own limit.
        extra: More arguments for `vllm serve`; they come last, so they win.
        log_path: As above.
        detached: As above.
        progress: As above.

    Attributes:
        model: The name that requests must use.
        chosen: The flags that the machine decided; `extra` overrules them.
        uses_fastokens: Whether that package cuts prompts into tokens: where it is installed, unless $VLLM_USE_FASTOKENS
            says otherwise.
    """

    name = "vLLM"

    def __init__(
        self,
        model: str | Path,
        *,
        served_name: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        device: Device = "auto",
        prefix_caching: bool = True,
        kv_cache_gib: int | None = None,
        max_model_len: int | None = None,
        extra: Sequence[str] = (),
        log_path: Path | None = None,
        detached: bool = False,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(host=host, port=port, log_path=log_path, detached=detached, progress=progress)
        self.model = served_name or str(model)
        self._source = str(model)
        self._device = find_device(device)
        card = card_gib() if self._device == "cuda" else None
        self.chosen = choose(self._device, extra, len(os.sched_getaffinity(0)), card)
        self.uses_fastokens = has_fastokens() and FASTOKENS not in os.environ
        self._prefix_caching = prefix_caching
        self._kv_cache_gib = kv_cache_gib
        self._max_model_len = max_model_len
        self._extra = list(extra)

    @property
    def command(self) -> list[str]:
        """The command line of the server."""
        words = [*find_vllm(), self._source, "--host", self.host, "--port", str(self.port)]
        words += ["--served-model-name", self.model]
        words += [word for flag in self.chosen for word in flag.words]
        words += ["--enable-prefix-caching" if self._prefix_caching else "--no-enable-prefix-caching"]
        words += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
        if self._device == "cpu":
            # Compilation costs minutes and a C++ compiler; on a CPU it gains little.
            words += ["--enforce-eager"]
        if self._max_model_len:
            words += ["--max-model-len", str(self._max_model_len)]
        return words + self._extra

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        # PostgreSQL's embedded Python and ours may differ; nothing of the one may reach the other.
        environment.pop("PYTHONPATH", None)
        # Nothing about a run leaves the machine.
        # vLLM and torch leave sockets and caches in the temporary directory; so they get one that goes with them.
        environment |= {"TMPDIR": str(self.directory)}
        if self.uses_fastokens:
            environment[FASTOKENS] = "1"
        environment |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1"}
        if Path(self._source).is_dir():
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if self._device == "cpu":
            # What the user set stands, unless the caller says otherwise.
            size = self._kv_cache_gib or environment.get("VLLM_CPU_KVCACHE_SPACE") or DEFAULT_CPU_CACHE_GIB
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(size)
        return environment

    def explain(self, log: str) -> tuple[str, str]:
        """What of a failed server's log tells most, and a hint."""
        return pick_reasons(log), diagnose(log)


def pick_reasons(log: str) -> str:
    """Return what of a failed server's log tells most: the errors that it names, then its last lines.

    vLLM is several processes. Each prints the failure of the one below it with its own traceback, so that the
    reason itself stands a hundred lines before the end. Its text may go on, or begin, on the lines below its name.
    """
    lines = [_LINE.fullmatch(line) for line in log.splitlines()]
    read = [(line["of"] or "", line["text"]) for line in lines if line]
    named = (number for number, (_, text) in enumerate(read) if _NAMED.match(text))
    reasons = dict.fromkeys("\n".join(_reason(read[number : number + _REASON_LINES])) for number in named)
    return "\n".join([*reasons, "...", *log.splitlines()[-10:]])


_LINE = re.compile(r"(?P<of>(?:\(\w+ pid=\d+\) )?(?:ERROR [\d-]+ [\d:]+ \[[^\]]*\] ?)?)(?P<text>.*)")
_NAMED = re.compile(r"[\w.]*(?:Error|Exception):(?: |$)")

# A long text tells little at its end.
_REASON_LINES = 6


def _reason(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The line that names an error, and its text below: the indented lines, and the next one if none stands beside."""
    of, name = lines[0]
    yield name
    alone = name.rstrip().endswith(":")
    for number, (other, text) in enumerate(lines[1:]):
        if other.rstrip() != of.rstrip() or not (text[:1].isspace() or (alone and number == 0)):
            return
        yield text


def diagnose(log: str) -> str:
    """Return a plain hint for the usual reasons why vLLM does not start."""
    for sign, hint in _SIGNS.items():
        if sign.lower() in log.lower():
            return hint
    return "The lines above are the end of vLLM's own log."


_SIGNS = {
    "is greater than the derived max_model_len": "The model has fewer positions: lower --max-model-len.",
    "out of memory": "The device has too little memory: use a smaller model or --max-model-len.",
    "MemoryError": "The machine has too little memory: use a smaller --kv-cache-gib or a smaller model.",
    "larger than the maximum number of tokens that can be stored": (
        "The KV cache holds less than one prompt of the longest length: lower --max-model-len, or raise --kv-cache-gib."
    ),
    "is larger than the available KV cache memory": (
        "The KV cache holds less than one prompt of the longest length: lower --max-model-len, or raise --kv-cache-gib."
    ),
    "Command 'lscpu": "vLLM asks lscpu for the processors, and that needs /sys: mount it.",
    **dict.fromkeys(
        ("pre-tokenizer error: unsupported", "normalizer error: unsupported", "post-processor error: unsupported"),
        f"fastokens does not know the model's kind of tokenizer: set {FASTOKENS}=0.",
    ),
    "address already in use": "The port is taken: choose another with --port, or 0 for a free one.",
    "is not a local folder and is not a valid model identifier": "There is no such model: check --model.",
    "OfflineModeIsEnabled": "The model is not on this machine, and Hugging Face is switched to offline.",
    "gated repo": "The model's owner asks for an account: set HF_TOKEN to a token that may read it.",
    "No module named": "The installation is incomplete: run `make setup` again.",
    "unrecognized arguments": "This vLLM does not know one of the arguments: check those after `--`.",
}
