"""`pg-bridge serve`: start vLLM with the flags that pg_bridge needs, or LiteLLM's proxy, and stay in front of it.

In: a model's name or directory and a few sizes; or models of LiteLLM's. Out: `engine=http://…` once it answers; on
Ctrl-C or SIGTERM every process of it is ended. It knows nothing of PostgreSQL.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from pg_bridge.errors import OptionError
from pg_bridge.serving.children import interrupt_on_sigterm
from pg_bridge.serving.demo import demo_engine
from pg_bridge.serving.flags import BLOCK_SIZES
from pg_bridge.serving.launch import DEFAULT_CPU_CACHE_GIB, FASTOKENS, VllmEngine
from pg_bridge.serving.litellm import KEY_VARIABLE, LitellmProxy
from pg_bridge.serving.program import Program

_BLOCKS = " and ".join(f"{tokens} tokens on {device}" for device, tokens in BLOCK_SIZES.items())

_DESCRIPTION = f"""\
Start vLLM's OpenAI-compatible server with the flags that pg_bridge needs:

  prefix caching on     equal beginnings of prompts are computed once
  small blocks          {_BLOCKS}: only whole blocks are reused
  prompt-token details  so that llm.last_run() can tell cached tokens from computed ones

and, on a GPU, with as many API servers, places and tokens a step as fit the machine. It says which it took and why;
what stands after `--` wins.

It prints engine=http://… as soon as the engine answers, and runs until Ctrl-C.

Without --model it serves a demonstration model of 7.1 million parameters, from a checkout of pg_bridge. It can say
whether a short English review is positive, negative, neutral or mixed, pick a topic from a list, find a word in a
column and repeat a column's value. For real work, name a real model.

With --litellm it starts LiteLLM's proxy instead, before a provider's model, or before several: all that LiteLLM knows
can be asked then. Nothing is computed here. Keys come from the environment alone: the provider's from the variable
that LiteLLM reads (OPENAI_API_KEY, GEMINI_API_KEY, …), that of those who ask from {KEY_VARIABLE}. It prints what to
say in psql.
"""

_EPILOG = """\
examples:
  pg-bridge serve                                     the small model in the box, to try things out
  pg-bridge serve --model Qwen/Qwen3-0.6B --port 8000 a model from the hub
  pg-bridge serve --model ./llama --device cpu --kv-cache-gib 8
  pg-bridge serve --model ./llama -- --tensor-parallel-size 2
  pg-bridge serve --litellm gemini/gemini-2.0-flash   a provider's model, over LiteLLM
  pg-bridge serve --litellm openai/qwen --api-base http://10.0.0.7:8000/v1

then, in the database:
  CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint 'http://127.0.0.1:8000');

The engine has no password unless you give it one (-- --api-key …; put the same key into the database with
CREATE USER MAPPING … OPTIONS (api_key …)). Keep it on 127.0.0.1 or behind a firewall.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `serve` to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="start a vLLM engine with the right flags, or LiteLLM's proxy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="a local directory or a name on the hub (default: the model in the box)")
    parser.add_argument(
        "--litellm",
        action="append",
        metavar="PROVIDER/MODEL",
        help="start LiteLLM's proxy before this model, as LiteLLM names it; may be given several times",
    )
    parser.add_argument(
        "--api-base", metavar="URL", help="with --litellm: where the models are, if not at the provider"
    )
    parser.add_argument("--served-name", metavar="NAME", help="the name requests use (default: the model's)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: %(default)s)")
    parser.add_argument("--no-prefix-caching", action="store_true", help="compute every prompt anew, to compare")
    parser.add_argument(
        "--kv-cache-gib",
        type=_positive,
        metavar="N",
        help=f"KV cache on a CPU, in GiB (default: $VLLM_CPU_KVCACHE_SPACE or {DEFAULT_CPU_CACHE_GIB})",
    )
    parser.add_argument("--max-model-len", type=_positive, metavar="N", help="longest prompt and answer, in tokens")
    parser.add_argument("--log", type=Path, metavar="FILE", help="where vLLM writes (default: a temporary file)")
    parser.add_argument("extra", nargs="*", metavar="-- ARGUMENT", help="more arguments for vLLM itself")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted.

    Raises:
        EngineUnreachable: The engine did not start, or ended by itself.
    """
    if arguments.litellm:
        return _serve_litellm(arguments)
    if arguments.api_base:
        raise OptionError("--api-base goes with --litellm")
    with interrupt_on_sigterm():
        engine = _engine(arguments)
        try:
            engine.start()
            for flag in engine.chosen:
                _say(f"{flag.name} {flag.value} ({flag.reason})")
            if engine.uses_fastokens:
                _say(f"{FASTOKENS}=1 (fastokens is installed: a prompt costs vLLM's API server a third less)")
            _say(f"starting vLLM (this takes half a minute or more); its log is {engine.log_path}")
            engine.wait()
            _say(f"model {engine.model} is ready; Ctrl-C ends it")
            _stay_before(engine)
        finally:
            _say("stopping")
            engine.stop()


def _stay_before(program: Program) -> NoReturn:
    """Tell where a program is, until it ends by itself."""
    print(f"engine={program.endpoint}", flush=True)
    while not program.has_ended():
        time.sleep(0.5)
    raise program.failure(f"{program.name} ended by itself")


def _serve_litellm(arguments: argparse.Namespace) -> int:
    """Stay before LiteLLM's proxy.

    Raises:
        OptionError: What is said does not go with it.
        EngineUnreachable: It did not start, or ended by itself.
    """
    of_vllm = ("model", "served_name", "no_prefix_caching", "kv_cache_gib", "max_model_len", "extra")
    for name in of_vllm:
        if getattr(arguments, name):
            said = "arguments after --" if name == "extra" else f"--{name.replace('_', '-')}"
            raise OptionError(f"{said} and --litellm do not go together", hint="vLLM is not started with --litellm.")
    with interrupt_on_sigterm():
        proxy = LitellmProxy(
            arguments.litellm,
            api_base=arguments.api_base,
            host=arguments.host,
            port=arguments.port,
            log_path=arguments.log,
            progress=_say,
        )
        try:
            proxy.start()
            _say(f"starting LiteLLM's proxy; its log is {proxy.log_path}")
            proxy.wait()
            _say(f"{', '.join(proxy.models)}: ready; Ctrl-C ends it. In psql, started with the same {KEY_VARIABLE}:")
            print("\n".join(proxy.statements), file=sys.stderr, flush=True)
            _stay_before(proxy)
        finally:
            _say("stopping")
            proxy.stop()


def _engine(arguments: argparse.Namespace) -> VllmEngine:
    options = {
        "host": arguments.host,
        "port": arguments.port,
        "device": arguments.device,
        "prefix_caching": not arguments.no_prefix_caching,
        "kv_cache_gib": arguments.kv_cache_gib,
        "max_model_len": arguments.max_model_len,
        "extra": arguments.extra,
        "log_path": arguments.log,
        "progress": _say,
    }
    engine = engine_for(arguments.model, arguments.served_name, **options)
    if not arguments.model:
        _say("no --model: serving the small model in the box. It answers simple questions about rows; see --help.")
    return engine


def engine_for(named: str | None, served_name: str | None = None, **options: Any) -> VllmEngine:  # noqa: ANN401 - handed on
    """A vLLM, not yet started, for a model's directory or its name on the hub; without one for the model in the box.

    Args:
        named: The model.
        served_name: What requests are to call it; None is how it was named.
        options: Of `VllmEngine`.

    Raises:
        OptionError: There is no such directory, or no model in the box.
    """
    if not named:
        return demo_engine(**options)
    return VllmEngine(_model_source(named), served_name=served_name or named, **options)


def _model_source(named: str) -> str:
    """Return what vLLM is told: the absolute path of a directory, or a name on the hub as it is.

    Raises:
        OptionError: It looks like a path, and nothing is there. (vLLM says so too, half a minute later.)
    """
    path = Path(named).expanduser()
    if path.is_dir():
        return str(path.absolute())
    if named.startswith(("/", ".", "~")):
        raise OptionError(f"there is no directory {named}", hint="--model takes a directory or a name on the hub.")
    return named


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _say(line: str) -> None:
    # To stderr, so that the one line on stdout can be read by a script.
    print(f"[serve] {line}", file=sys.stderr, flush=True)
