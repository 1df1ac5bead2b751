"""The tokenizer: byte-level BPE learnt from the generated text, and the chat template.

In: texts. Out: a `Tokenizer` of the library `tokenizers`, and the files that transformers and vLLM load. Digits stand
alone and every byte has a token, so that any value can be copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN, END, SYSTEM, USER, ASSISTANT = SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
BEGIN_ID, END_ID = 0, 1

# The Jinja of it writes what `conversation` does.
CHAT_TEMPLATE = (
    "<|begin|>{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

# A word with the space before it, one digit, one sign, or a run of blanks.
_PIECES = Regex(r"[ ]?\p{L}+|\p{N}|[ ]?[^\s\p{L}\p{N}]|\s+")
_WITHOUT_SPACE = Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]|\s+")
SPACE = "\u0120"  # how byte-level BPE writes it


def conversation(system: str, message: str) -> str:
    """Write what stands before an answer."""
    system = f"{SYSTEM}\n{system}{END}\n" if system else ""
    return f"{BEGIN}{system}{USER}\n{message}{END}\n{ASSISTANT}\n"


def asked_again(message: str) -> str:
    """Write what stands between an answer, its end included, and the next one."""
    return f"\n{USER}\n{message}{END}\n{ASSISTANT}\n"


def learn_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a vocabulary of `size` tokens, and for each that begins without a space one that begins with it.

    So a word has the same tokens wherever it stands, but for that space: a column's name in a question (after a space)
    and in a row (after a quotation mark), for example. Merges with a space come last, so that they change no others.
    """
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = _split(_WITHOUT_SPACE)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learnt.train_from_iterator(texts, trainer)
    model = json.loads(learnt.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        if token not in SPECIAL and not token.startswith(SPACE) and SPACE + token not in vocabulary:
            merges.append((SPACE, token))
            vocabulary[SPACE + token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = _split(_PIECES)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _split(pieces: Regex) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text."""
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
