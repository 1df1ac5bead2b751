"""What is sent to the engine and what is read from its answers, for its chat and its completions interface.

In: prompts and a `Sampling`; the bytes of an answer. Out: the bytes of a request body; answers in the order
of the prompts. Nothing here waits or knows HTTP beyond the path. All parts of a body that do not change
within a run are built once, so that one prompt costs one JSON string and one join.

With `api 'completions'` the text sent is the system prompt, an empty line, the prompt and a line break, for
there is no chat template to part them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring  # the stdlib's C string encoder; leaves non-ASCII as it is
from typing import Any

from pg_bridge.engine.checking import NOT_A_CHOICE, NOT_OF_THE_PATTERN, NOT_OF_THE_SCHEMA, Answer, Form
from pg_bridge.engine.confidence import Certainty
from pg_bridge.engine.dialects import VLLM, Dialect
from pg_bridge.engine.forms import WRAPPED_IN, Asked, ask_for
from pg_bridge.engine.further import OF_TEMPLATES, Further
from pg_bridge.engine.parts import blocks_of, openai_part
from pg_bridge.engine.records import Sampling, Stages, Sure
from pg_bridge.engine.refusal import FILTERED, TOO_LONG, Refused
from pg_bridge.engine.thoughts import without_thoughts
from pg_bridge.engine.untrusted import parse_json, seconds, token_count
from pg_bridge.errors import EngineError, Reason
from pg_bridge.options import Api, Server
from pg_bridge.rows.media import Illustrated, joined

NOT_UNICODE = "the prompt holds half of a surrogate pair, which no engine can read"
NO_TEXT = "the engine's answer holds no text"
CUT_OFF = Reason("the answer was cut off after max_tokens tokens", "Raise max_tokens.")
ASTRAY = Reason(CUT_OFF, CUT_OFF.hint)
"""The same to the user, of an answer that was of another form anyhow: a longer one would not be in form."""
CUT_IN_THOUGHTS = Reason(
    "the answer was cut off while the model still reasoned", "Raise max_reasoning_tokens, or say reasoning => 'off'."
)
ONLY_THOUGHTS = Reason(
    "the model reasoned and gave no answer", "Ask with reasoning => 'off', or leave it to the model: 'model'."
)
WITHHELD = Reason("the engine's content filter withheld the answer", FILTERED)
DECLINED = "the model declined to answer"
PAUSED = Reason(
    "the provider's own tools took so long that it gave no answer yet",
    "Have them do less: max_uses of the tool in request_options.",
)
NOT_RUN = Reason(
    "the model called a function that request_options tell it of, and nobody runs",
    "SQL functions are called by llm.map_with_tools; of request_options only tools that the provider runs itself.",
)
BROKEN_OFF = "the engine broke the answer off"
NOT_IN_FORM = frozenset((NOT_A_CHOICE, NOT_OF_THE_PATTERN, NOT_OF_THE_SCHEMA))
"""What an engine answers only that is not held to a form; asked once more, in words, its model may keep to it."""
UNFIT = NOT_IN_FORM | {CUT_OFF}
"""Why an answer of an engine that did not do as told is none; another attempt may be better."""

# What engines say of an answer's end besides "stop" and its like.
_CUT = frozenset(("length", "max_tokens"))
_NO_ANSWER = {
    "content_filter": WITHHELD,
    "refusal": DECLINED,
    "error": BROKEN_OFF,
    "abort": BROKEN_OFF,
    "pause_turn": PAUSED,
}
_CALLS = "tool_calls"
_FENCED = re.compile(r"```\w*\n?(.*?)\n?```", re.S)
_QUOTED = re.compile(r"(?:\"([^\"]*)\"|\*\*([^*]*)\*\*|`([^`]*)`)\.?", re.S)
_NO_NUMBER = re.compile(r"[^-+0-9\[]")  # nor a date, nor a list: what our patterns are of
_TO_BE_ANSWERED = '"add_generation_prompt": true'


def _content(prompt: str) -> str:
    """The content of a message, as JSON."""
    if isinstance(prompt, Illustrated):
        return f"[{', '.join(blocks_of(prompt, openai_part))}]"
    return encode_basestring(prompt)


def is_cut_off(reason: str | None) -> bool:
    """Whether there is no answer for no other reason than that it would be longer than it may be."""
    return reason is CUT_OFF


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one answered request says of itself; None where it does not.

    Attributes:
        prompt: Prompt tokens of all its prompts.
        completion: Tokens of all its answers.
        cached: Cached tokens; only a request of one prompt tells them rightly.
        stages: Where its prompt was; only a request of one prompt tells it.
        thoughts: Those of the tokens of its answers that are thoughts.
    """

    prompt: int | None
    completion: int | None
    cached: int | None
    stages: Stages | None = None
    thoughts: int | None = None


class MalformedAnswer(ValueError):  # a message between rooms of the engine, not for users
    """The bytes are not an answer to the request; the text says in what way."""


_NOTHING_FURTHER = Further()


class Payload:
    """Bodies of one run's requests and the reading of their answers.

    Args:
        api: Which interface is used.
        model: The model's name.
        sampling: How prompts are answered.
        dialect: What the engine understands.
        further: What a body says besides.
        asked: How the form of answers is asked for; None is as the dialect likes it best.

    Attributes:
        sampling: As given.
        further: As given.
        asked: How the form of answers is asked for.
        begins_in_thoughts: Whether the template ends within thoughts, so that every text begins within them; None
            where that is not known, and then nobody can tell of one that was cut off.
        is_in_doubt: Whether such a text was met.
        too_long: What can be done about a prompt that is longer than the model takes.
    """

    too_long = TOO_LONG

    def __init__(
        self,
        api: Api,
        model: str,
        sampling: Sampling,
        dialect: Dialect = VLLM,
        further: Further = _NOTHING_FURTHER,
        asked: Asked | None = None,
    ) -> None:
        self.sampling = sampling
        self.further = further
        self.asked = asked if asked is not None else ask_for(dialect.forms, sampling)
        self.begins_in_thoughts: bool | None = None if api == "chat" and dialect.thinks_aloud else False
        self.is_in_doubt = False
        self._chat = api == "chat"
        self._form = Form(sampling)
        self._is_typed = bool(sampling.choices or sampling.pattern or sampling.schema)
        self._certainty = Certainty(sampling, self.asked) if sampling.confidence else None
        constant: dict[str, Any] = {
            "model": model,
            further.limit or dialect.max_tokens: sampling.max_tokens + further.thought_tokens,
            **({"temperature": sampling.temperature} if further.has_temperature else {}),
            **self.asked.arguments,
        }
        if sampling.priority is not None:
            constant["priority"] = sampling.priority
        constant |= further.arguments
        self._named = f'{{"model": {json.dumps(model)}, ' if model else "{"
        system = "\n\n".join(part for part in (sampling.system_prompt, self.asked.words) if part)
        self._write(constant, system)

    def _write(self, constant: dict[str, Any], system: str) -> None:
        """Write what stands before prompts, and between them."""
        key = "messages" if self._chat else "prompt"
        self._head = f'{json.dumps(constant)[:-1]}, "{key}": '
        if self._chat:
            message = f'{{"role": "system", "content": {json.dumps(system)}}}, ' if system else ""
            self._before = f'[{message}{{"role": "user", "content": '
            self._after = "}]"
        else:
            self._before = json.dumps(system + "\n\n")[:-1] if system else '"'
            self._after = '\\n"'

    def path(self, prompt_count: int) -> str:
        """The path for a request of so many prompts."""
        if not self._chat:
            return "/v1/completions"
        return "/v1/chat/completions" if prompt_count == 1 else "/v1/chat/completions/batch"

    def missing(
        self, server: Server, refused: Refused | None = None, prompts: Sequence[str] = ()
    ) -> EngineError | None:
        """The error of an engine that does not do at all what is asked of it here; None where that is none of its own.

        Args:
            server: The server.
            refused: By what it was refused; None where its path does not exist.
            prompts: What was refused: words that stand in one of them tell nothing.
        """
        return None

    def body(self, prompts: Sequence[str]) -> bytes:
        """The request's body.

        Raises:
            UnicodeEncodeError: A prompt holds half of a surrogate pair.
        """
        before, after = self._before, self._after
        if self._chat:
            pieces = [f"{before}{_content(prompt)}{after}" for prompt in prompts]
        else:
            # The pieces' own quotes are dropped: the system prompt and the line break join the text.
            pieces = [f"{before}{encode_basestring(prompt)[1:-1]}{after}" for prompt in prompts]
        joined = pieces[0] if len(pieces) == 1 else f"[{', '.join(pieces)}]"
        return f"{self._head}{joined}}}".encode()

    def reminding(self, prompt: str) -> bytes:
        """The body that asks once more, and says behind the prompt of which form the answer must be."""
        return self.body([joined("", (prompt, f"\n\n{self.asked.words}"))])

    def tokenized(self, prompt: str) -> bytes:
        """The body that asks how the whole of a prompt, with all that is sent around it, is cut into tokens.

        Raises:
            UnicodeEncodeError: As for `body`.
        """
        before, after = self._before, self._after
        if self._chat:
            return f'{self._named}"messages": {before}{encode_basestring(prompt)}{after}, {_TO_BE_ANSWERED}}}'.encode()
        return f'{self._named}"prompt": {before}{encode_basestring(prompt)[1:-1]}{after}}}'.encode()

    def templated(self) -> bytes:
        """The body that asks what the template makes of a short conversation, for vLLM and llama.cpp alike."""
        kwargs = self.further.arguments.get(OF_TEMPLATES)
        said = f'"{OF_TEMPLATES}": {json.dumps(kwargs)}, ' if kwargs else ""
        return (
            f'{self._named}{said}"messages": {self._before}"?"{self._after}, '
            f'"return_token_strs": true, {_TO_BE_ANSWERED}}}'
        ).encode()

    def parse(self, body: bytes, prompt_count: int) -> tuple[list[Answer], Tokens]:
        """Read an answer.

        Returns:
            The answers in the request's order, and the tokens.

        Raises:
            MalformedAnswer: The body is not the answer to a request of so many prompts.
        """
        try:
            answer = self._opened(body)
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            if [choice["index"] for choice in choices] != list(range(prompt_count)):
                raise MalformedAnswer(f"{len(choices)} answers to {prompt_count} prompts")
            tokens = _tokens(answer, prompt_count)
            has_thought = bool(tokens.thoughts) and prompt_count == 1
            is_aloud = b"think" in body or b"THINK" in body  # however the rest of a tag is escaped
            answers = [self._read(choice, has_thought, is_aloud) for choice in choices]
            if self._certainty is not None:
                answers = [self._with_confidence(*read) for read in zip(choices, answers, strict=True)]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            if isinstance(error, MalformedAnswer):
                raise
            # The chained error may quote the body, which may repeat a prompt: it is cut off.
            raise MalformedAnswer("not the JSON of a completion") from None
        return answers, tokens

    def _opened(self, body: bytes) -> dict[str, Any]:
        """An answer's body as OpenAI writes it."""
        answer: dict[str, Any] = parse_json(body)
        return answer

    def _read(self, choice: dict[str, Any], has_thought: bool, is_aloud: bool) -> Answer:
        text = choice["message"]["content"] if self._chat else choice["text"]
        end = choice.get("finish_reason")
        if text and end == "stop" and not is_aloud:  # as good as always
            return self._check(text)
        if isinstance(end, str) and end in _NO_ANSWER:
            return None, _NO_ANSWER[end]
        if not text and (end == _CALLS or (self._chat and choice["message"].get("refusal"))):
            return None, NOT_RUN if end == _CALLS else DECLINED
        is_cut = isinstance(end, str) and end in _CUT
        if is_aloud and isinstance(text, str):
            text, has_thought_aloud = without_thoughts(text)
            has_thought = has_thought or has_thought_aloud
        if not text or is_cut:
            has_thought = has_thought or (self._chat and _has_thoughts(choice["message"]))
            reason = self._why_none(bool(text), has_thought, is_cut)
            if reason is CUT_OFF and text and self._is_of_another_form(text):
                return None, ASTRAY
            if reason is not None:
                return None, reason
        return self._check(text)

    def _with_confidence(self, choice: dict[str, Any], answer: Answer) -> Answer:
        text, error = answer
        if text is None or self._certainty is None:
            return answer
        content = choice["message"]["content"] if self._chat else choice["text"]
        confidence = self._certainty.of(choice, content, text)
        return (text if confidence is None else Sure(text, confidence)), error

    def _why_none(self, has_text: bool, has_thought: bool, is_cut: bool) -> Reason | None:
        """Why what has no text, or no end, is no answer; None if it is one for all that."""
        if not has_text and (has_thought or self.further.reasons):
            return CUT_IN_THOUGHTS if is_cut else ONLY_THOUGHTS
        if not is_cut:
            return None
        if not has_thought and self.begins_in_thoughts:
            return CUT_IN_THOUGHTS
        tells = has_thought or self.begins_in_thoughts is not None or (self._is_typed and not self.further.reasons)
        self.is_in_doubt |= not tells
        # Free text is worth having without its end; of a number or a label the beginning is another one.
        return CUT_OFF if self._is_typed or not has_text else None

    def _check(self, text: object) -> Answer:
        if not isinstance(text, str):
            return None, NO_TEXT
        if self.asked.is_wrapped:
            text = _unwrapped(text)
        choices = self._form.choices
        if self.asked.words and text.strip() not in choices:
            text = without_trimmings(text, has_full_stop=bool(choices))
        answer = self._form.check(text)
        if answer[0] is None and self.asked.words and choices:
            alike = [each for each in choices if _loosely(each) == _loosely(text.strip())]
            return (alike[0], None) if len(alike) == 1 else answer
        return answer

    def _is_of_another_form(self, text: str) -> bool:
        """Whether an answer that was cut off cannot have been about to be of the form that was asked for."""
        begun = text.lstrip()
        if self.asked.is_wrapped and begun.startswith("{"):
            return False
        if self._form.pattern:
            return _NO_NUMBER.match(begun) is not None
        if self._form.choices:
            return not any(choice.startswith(begun.rstrip()) for choice in self._form.choices)
        schema = self._form.schema
        return begun[:1] not in "{[" and schema is not None and schema.get("type") == "object"


def _loosely(label: str) -> str:
    """A label as it may be told from others."""
    return label.casefold().removesuffix(".")


def without_trimmings(text: str, *, has_full_stop: bool = False) -> str:
    r"""What models that are asked in words put around an answer, taken off: code fences, quotation marks, a full stop.

    Args:
        text: The answer.
        has_full_stop: Whether one at its end may be its own.

    >>> [without_trimmings(text) for text in ('"yes"', "**Yes.**", "```json\n{}\n```", '{"a": "b"}')]
    ['yes', 'Yes', '{}', '{"a": "b"}']
    """
    found = _FENCED.fullmatch(text.strip())
    bare = found[1].strip() if found else text.strip()
    while (found := _QUOTED.fullmatch(bare)) is not None:
        bare = (found[1] or found[2] or found[3] or "").strip()
    return bare if has_full_stop else bare.removesuffix(".")


def _has_thoughts(message: dict[str, Any]) -> bool:
    """Whether an engine has put thoughts beside the answer, under either name that engines have for them."""
    return bool(message.get("reasoning_content") or message.get("reasoning"))


def _unwrapped(text: str) -> str:
    """What an object of one key holds; the text itself where it is none, for it may be right as it is."""
    try:
        answer = parse_json(text.encode())
    except ValueError:
        return text
    held = answer.get(WRAPPED_IN) if isinstance(answer, dict) else None
    return held if isinstance(held, str) else text


def is_unicode(prompt: str) -> bool:
    """Whether a prompt can be sent at all."""
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tokens(answer: dict[str, Any], prompt_count: int) -> Tokens:
    usage, stages = answer.get("usage"), _stages(answer.get("metrics")) if prompt_count == 1 else None
    if not isinstance(usage, dict):
        return Tokens(None, None, None, stages)
    details = usage.get("prompt_tokens_details")
    cached = token_count(details.get("cached_tokens")) if prompt_count == 1 and isinstance(details, dict) else None
    prompt = token_count(usage.get("prompt_tokens"))
    if cached is not None and (prompt is None or cached > prompt):
        cached = None  # more than there are
    completion, details = token_count(usage.get("completion_tokens")), usage.get("completion_tokens_details")
    thoughts = token_count(details.get("reasoning_tokens")) if details and isinstance(details, dict) else None
    if thoughts is not None and (completion is None or thoughts > completion):
        thoughts = None  # as above
    return Tokens(prompt, completion, cached, stages, thoughts)


def _stages(metrics: object) -> Stages | None:
    """What vLLM tells with `--enable-per-request-metrics`; its "time to first token" begins when the queue is left."""
    if not isinstance(metrics, dict):
        return None
    queue_s, prefill_s, decode_s = (
        seconds(metrics.get(name)) for name in ("queue_time_ms", "time_to_first_token_ms", "generation_time_ms")
    )
    if queue_s is None or prefill_s is None or decode_s is None:
        return None
    return Stages(queue_s, prefill_s, decode_s)
