"""One command: `python -m models.recipe DIRECTORY` learns the tokenizer, trains the decoder and prints its scores."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from models.recipe.decoder import Decoder, Size
from models.recipe.examples import examples
from models.recipe.notes import TOPICS
from models.recipe.scores import SPLITS, held_out, report
from models.recipe.spellings import Spellings
from models.recipe.training import Schedule, Trainer, train
from models.recipe.vocabulary import learn_tokenizer, write_tokenizer

_TOKENIZER_EXAMPLES = 40_000
_PIECES = 1024
_LEAST = 15  # times that a word stands in those examples, to be a token


def main() -> int:
    """Run the command line."""
    arguments = _parse()
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.0f} s] {line}", flush=True)

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tokenizer = _tokenizer(directory, arguments.seed)
    size = dataclasses.replace(Size(), vocabulary=tokenizer.get_vocab_size())
    say(f"tokenizer: {size.vocabulary} tokens")
    torch.manual_seed(arguments.seed)
    decoder = Decoder(size)
    decoder.embed_tokens = Spellings(tokenizer, size.hidden)
    decoder.to(arguments.device)
    schedule = Schedule(
        steps=arguments.steps, bfloat16=arguments.bfloat16, compiled=arguments.compile, seed=arguments.seed
    )
    trainer = Trainer(decoder, tokenizer, schedule, arguments.device)
    if _state(directory).exists():
        trainer.load(_state(directory))
        say(f"goes on after {trainer.done} steps")

    def save() -> None:
        decoder.save(directory)
        trainer.save(_state(directory))

    seen: set[int] = set()
    train(trainer, progress=say, save=save, seen=seen)
    save()
    decoder = Decoder(size)
    decoder.load(directory)  # in half precision, as it is served
    decoder.to(arguments.device)
    millions = sum(parameter.numel() for parameter in decoder.parameters()) / 1e6
    say(f"decoder: {millions:.1f}M parameters, {len(seen)} examples")
    for name, split in SPLITS.items():
        for task, given in held_out(split, arguments.scored, arguments.seed + 2, seen).items():
            say(f"{name:30} {task:10} {report(decoder, tokenizer, given, arguments.device)}")
    return 0


def _tokenizer(directory: Path, seed: int) -> Tokenizer:
    """Return the tokenizer that stands in a directory, or learn it."""
    file = directory / "tokenizer.json"
    if file.exists():
        return Tokenizer.from_file(str(file))
    stream = itertools.islice(examples(random.Random(seed + 1)), _TOKENIZER_EXAMPLES)
    texts = [each.message + "\n" + each.answer for each in stream]
    # However a label is written, its words are to be tokens.
    labels = [style(label) for topic in TOPICS for label in topic.labels for style in (str, str.upper, str.capitalize)]
    tokenizer = learn_tokenizer(texts + labels * _LEAST, _PIECES, _LEAST)
    write_tokenizer(tokenizer, directory)
    return tokenizer


def _state(directory: Path) -> Path:
    """Return where an interrupted run has left what it needs to go on: beside the model, not part of it."""
    return directory.with_name(directory.name + ".state")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="models.recipe", description=__doc__)
    parser.add_argument(
        "directory", type=Path, help="where the model's files are written; a run that was cut off goes on there"
    )
    parser.add_argument("--steps", type=int, default=Schedule().steps, help="batches (default: %(default)s)")
    parser.add_argument("--scored", type=int, default=500, help="examples of each score (default: %(default)s)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, help="threads to compute with (default: torch's)")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in half precision: faster on recent CPUs")
    parser.add_argument("--compile", action="store_true", help="compile the decoder: faster; needs a C++ compiler")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
