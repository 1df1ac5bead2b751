"""Starts LiteLLM's proxy before the models of other providers, waits for it, and ends it.

In: models as LiteLLM names them; keys in the environment. Out: the endpoint of a proxy that speaks as OpenAI does. No
key is on a command line, in a file or in what is printed: LiteLLM reads them from its environment.

    with LitellmProxy(["openai/gpt-4o-mini"]) as proxy:
        print(proxy.endpoint)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pg_bridge.errors import OptionError
from pg_bridge.options import values
from pg_bridge.serving.environment import find_litellm
from pg_bridge.serving.program import Program

KEY_VARIABLE = "LITELLM_MASTER_KEY"
_MODEL = re.compile(r"[A-Za-z0-9_.-]+/[^\s'\"\\\x00-\x1f\x7f]+")
_CONFIG = "litellm.json"

# It would take the database of whoever serves for its own, and make its tables there.
_NOT_ITS_OWN = ("DATABASE_URL", "DIRECT_URL", "STORE_MODEL_IN_DB", "PYTHONPATH", "CONFIG_FILE_PATH")


class LitellmProxy(Program):
    """A LiteLLM proxy that lives as long as this object does; arguments besides those of `Program`.

    Args:
        models: As LiteLLM names them, `provider/model`; requests use the same names.
        api_base: Where all of them are, if not where the provider is; no secret.
        host: As for `Program`, like `port`, `log_path` and `progress`.
        port: As above.
        log_path: As above.
        progress: As above.

    Raises:
        OptionError: A model or the address is none, or there is no key for those who ask.
    """

    name = "LiteLLM"
    ready_page = "/health/liveliness"

    def __init__(
        self,
        models: Sequence[str],
        *,
        api_base: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        log_path: Path | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(host=host, port=port, log_path=log_path, progress=progress)
        self.models = list(dict.fromkeys(models))
        self._api_base = api_base
        for model in self.models:
            if not _MODEL.fullmatch(model):
                raise OptionError(
                    f"{model!r} is no model of LiteLLM's", hint="Name provider and model: openai/gpt-4o-mini."
                )
        if api_base is not None and not re.fullmatch(values.URL.pattern, api_base):
            raise OptionError("--api-base is no URL", hint=f"It must be {values.URL.expects}.")
        if not re.fullmatch(r"sk-\S+", os.environ.get(KEY_VARIABLE, "")):
            raise OptionError(
                f"${KEY_VARIABLE} is not set, or does not begin with sk-",
                hint=f"Without one anybody on this machine could ask at your cost: "
                f"export {KEY_VARIABLE}=sk-$(openssl rand -hex 16)",
            )

    @property
    def config(self) -> dict[str, object]:
        """What LiteLLM is told: the models, and to leave repeating to who asks, who has limits for it."""
        base = {} if self._api_base is None else {"api_base": self._api_base}
        return {
            "model_list": [{"model_name": each, "litellm_params": {"model": each, **base}} for each in self.models],
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
            "litellm_settings": {"num_retries": 0, "turn_off_message_logging": True, "telemetry": False},
        }

    @property
    def command(self) -> list[str]:
        """The command line of the proxy."""
        config = str(self.directory / _CONFIG)
        return [find_litellm(), "--config", config, "--host", self.host, "--port", str(self.port)]

    @property
    def statements(self) -> list[str]:
        """What to say in psql, which takes the key from its own environment: a server for each model."""
        lines = [rf"\getenv key {KEY_VARIABLE}"]
        for number, model in enumerate(self.models, 1):
            server = "litellm" if len(self.models) == 1 else f"litellm_{number}"
            lines.append(
                f"CREATE SERVER {server} FOREIGN DATA WRAPPER pg_bridge "
                f"OPTIONS (endpoint '{self.endpoint}', model '{model}');"
            )
            lines.append(f"CREATE USER MAPPING FOR CURRENT_USER SERVER {server} OPTIONS (api_key :'key');")
        return lines

    @property
    def files(self) -> Mapping[str, str]:
        """Its configuration; JSON is YAML, and has one way to quote."""
        return {_CONFIG: json.dumps(self.config)}

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_ITS_OWN}
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1", "LITELLM_LOG": "ERROR"}
        return environment | quiet | {"TMPDIR": str(self.directory)}

    def explain(self, log: str) -> tuple[str, str]:
        """What of a failed proxy's log tells most, and a hint."""
        hint = "The lines above are the end of LiteLLM's own log."
        if "No module named" in log:
            hint = "The installation has no proxy: pip install 'litellm[proxy]'."
        return "\n".join(log.splitlines()[-20:]), hint
