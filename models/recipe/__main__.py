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
from models.recipe.scores import SPLITS, held_out, report
from models.recipe.training import Schedule, relate_tokens, train
from models.recipe.vocabulary import learn_tokenizer, write_tokenizer

_TOKENIZER_EXAMPLES = 40_000
_LEARNT_TOKENS = 3072
_SCORED = 1000


def main() -> int:
    """Run the command line."""
    arguments = _parse()
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:6.0f} s] {line}", flush=True)

    size = Size(hidden=arguments.hidden, layers=arguments.layers, heads=arguments.hidden // 64)
    if arguments.done:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    else:
        stream = examples(random.Random(arguments.seed + 1))
        texts = (each.message + "\n" + each.answer for each in itertools.islice(stream, _TOKENIZER_EXAMPLES))
        tokenizer = learn_tokenizer(texts, _LEARNT_TOKENS)
        write_tokenizer(tokenizer, directory)
    size = dataclasses.replace(size, vocabulary=tokenizer.get_vocab_size())
    say(f"tokenizer: {size.vocabulary} tokens")
    torch.manual_seed(arguments.seed)
    decoder = Decoder(size)
    if arguments.done:
        decoder.load(directory)
    else:
        relate_tokens(decoder, tokenizer)
    decoder.to(arguments.device)

    def save() -> None:
        decoder.save(directory)

    seen: set[int] = set()
    schedule = Schedule(steps=arguments.steps, bfloat16=arguments.bfloat16, seed=arguments.seed)
    train(
        decoder,
        tokenizer,
        schedule,
        done=arguments.done,
        device=arguments.device,
        progress=say,
        save=save,
        seen=seen,
    )
    save()
    millions = sum(parameter.numel() for parameter in decoder.parameters()) / 1e6
    say(f"decoder: {millions:.1f}M parameters, {len(seen)} examples")
    for name, split in SPLITS.items():
        for task, given in held_out(split, _SCORED, arguments.seed + 2, seen).items():
            say(f"{name:30} {task:10} {report(decoder, tokenizer, given, arguments.device)}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="models.recipe", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the model's files are written")
    parser.add_argument("--steps", type=int, default=Schedule().steps, help="batches (default: %(default)s)")
    parser.add_argument(
        "--done", type=int, default=0, help="go on with the model in DIRECTORY, which has been trained so many steps"
    )
    parser.add_argument("--hidden", type=int, default=Size().hidden, help="width (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=Size().layers, help="(default: %(default)s)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)"
    )
    parser.add_argument("--bfloat16", action="store_true", help="multiply in half precision: faster on recent CPUs")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
