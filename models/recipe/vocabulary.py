"""The tokenizer: byte-level BPE learnt from the generated text, and the chat template.

In: texts. Out: a `Tokenizer` of the library `tokenizers`, and the files that transformers and vLLM load. Digits stand
alone and every byte has a token, so that any value can be copied.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
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
_WORD = re.compile(r"[^\W\d_]+")
SPACE = "\u0120"  # how byte-level BPE writes it


def conversation(system: str, message: str) -> str:
    """Write what stands before an answer."""
    system = f"{SYSTEM}\n{system}{END}\n" if system else ""
    return f"{BEGIN}{system}{USER}\n{message}{END}\n{ASSISTANT}\n"


def learn_tokenizer(texts: Sequence[str], merged: int, least: int) -> Tokenizer:
    """Learn a vocabulary: pieces of words by byte-level BPE, and whole words.

    A piece or a word that begins without a space has a twin that begins with it, so that a word has the same tokens
    wherever it stands, but for that space: a column's name in a question (after a space) and in a row (after a
    quotation mark), for example.

    Args:
        texts: What to learn from.
        merged: How many pieces to learn.
        least: How often a word has to occur to become a token.
    """
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = _split(_WITHOUT_SPACE)
    trainer = trainers.BpeTrainer(
        vocab_size=merged,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learnt.train_from_iterator(texts, trainer)
    model = json.loads(learnt.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    # Merges with a space come last, so that they change no others.
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        if token not in SPECIAL and not token.startswith(SPACE) and SPACE + token not in vocabulary:
            merges.append((SPACE, token))
            vocabulary[SPACE + token] = len(vocabulary)
    for word in _words(texts, least):
        vocabulary.setdefault(word, len(vocabulary))
    # Whole words have no merges: what is in the vocabulary as it stands is not taken to pieces.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = _split(_PIECES)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _words(texts: Sequence[str], least: int) -> Iterator[str]:
    """Yield words as byte-level BPE writes them, in any spelling that is frequent, and before them their twins."""
    counts = Counter(itertools.chain.from_iterable(map(_WORD.findall, texts)))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count >= least:
            ((written, _),) = byte_level.pre_tokenize_str(word)
            yield written
            yield SPACE + written


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
