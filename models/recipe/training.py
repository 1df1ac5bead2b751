"""Training: examples without end go in, a decoder that answers them comes out.

The loss is that of the answers, plus a little of that of everything else, from which the decoder learns words. Rows
grow wider during the first fifth. Matrices are stepped by Muon, embeddings and norms by AdamW.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from models.recipe.decoder import Decoder, Size
from models.recipe.examples import Example, examples, system_prompt
from models.recipe.vocabulary import END, conversation, encode

_POOL = 1024  # examples made and sorted by length together
_TEXT_WEIGHT = 0.1  # of the loss of what is not an answer
_TEXT_STRIDE = 4  # every fourth token of it counts: scoring all of them would take half of the time


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast it learns.

    Attributes:
        steps: Number of batches.
        batch_tokens: Most tokens of a batch, padding included.
        matrix_rate: Muon's highest learning rate.
        other_rate: AdamW's.
        warmup: Share of the steps during which the rates rise.
        seed: Of weights and examples.
    """

    steps: int = 6000
    batch_tokens: int = 6144
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    warmup: float = 0.02
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Equally long token rows.

    Attributes:
        tokens: (n, length) int64, padded with the end token.
        is_answer: (n, length - 1) bool; whether the token after this one belongs to the answer.
        is_text: (n, length - 1) bool; whether it belongs to what stands before, and counts.
    """

    tokens: Tensor
    is_answer: Tensor
    is_text: Tensor


def train(
    size: Size,
    tokenizer: Tokenizer,
    schedule: Schedule,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda line: None,
    seen: set[int] | None = None,
) -> Decoder:
    """Train a decoder from random weights.

    Args:
        size: How large.
        tokenizer: Its tokenizer.
        schedule: How long and how fast.
        device: What to compute on: `cpu` or `cuda`.
        progress: Called with a line now and then.
        seen: Gets the hash of every user message that is trained on, if given.
    """
    torch.manual_seed(schedule.seed)
    decoder: Decoder = Decoder(size).to(device)
    matrices = [p for name, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in decoder.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=schedule.matrix_rate, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=schedule.other_rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    paces = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: _pace(step, schedule)) for each in optimizers]
    started = time.monotonic()
    tokens, answered, right = 0, 0.0, 0.0
    for step, batch in enumerate(batches(tokenizer, schedule, seen)):
        if step == schedule.steps:
            break
        states = decoder(batch.tokens[:, :-1].to(device))
        following = batch.tokens[:, 1:].to(device)
        loss, share = _loss(decoder, states, following, batch.is_answer.to(device), batch.is_text.to(device))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer, pace in zip(optimizers, paces, strict=True):
            optimizer.step()
            pace.step()
        tokens += batch.tokens.numel()
        answered, right = 0.98 * answered + 0.02 * loss.item(), 0.98 * right + 0.02 * share
        if step % 50 == 49:
            rate = tokens / (time.monotonic() - started)
            weight = 1 - 0.98 ** (step + 1)
            progress(
                f"step {step + 1} of {schedule.steps}: loss {answered / weight:.3f}, "
                f"answer tokens right {100 * right / weight:.1f} %, {tokens / 1e6:.1f}M tokens, {rate:.0f}/s"
            )
    return decoder


def batches(tokenizer: Tokenizer, schedule: Schedule, seen: set[int] | None = None) -> Iterator[Batch]:
    """Yield batches without end, of examples about equally long."""
    rng = random.Random(schedule.seed)
    made = 0
    while True:
        progress = made / schedule.steps
        widest = 10 if progress > 0.2 else 2 + int(40 * progress)
        stream = examples(rng, most_columns=widest)
        pool = [next(stream) for _ in range(_POOL)]
        if seen is not None:
            seen.update(hash(each.message) for each in pool)
        ready = list(_batched(_encoded(rng, tokenizer, pool), schedule.batch_tokens))
        rng.shuffle(ready)
        made += len(ready)
        yield from ready


def _encoded(rng: random.Random, tokenizer: Tokenizer, pool: list[Example]) -> list[tuple[list[int], int]]:
    """Return the tokens of each example, and how many of them stand before the answer."""
    before = encode(tokenizer, [conversation(system_prompt(rng), each.message) for each in pool])
    answers = encode(tokenizer, [each.answer + END for each in pool])
    return [(head + tail, len(head)) for head, tail in zip(before, answers, strict=True)]


def _batched(encoded: list[tuple[list[int], int]], batch_tokens: int) -> Iterator[Batch]:
    encoded = sorted(encoded, key=lambda each: len(each[0]))
    group: list[tuple[list[int], int]] = []
    for each in encoded:
        if group and len(each[0]) * (len(group) + 1) > batch_tokens:
            yield _batch(group)
            group = []
        group.append(each)
    yield _batch(group)


def _batch(group: list[tuple[list[int], int]]) -> Batch:
    longest = max(len(ids) for ids, _ in group)
    tokens = torch.ones((len(group), longest), dtype=torch.int64)
    is_answer = torch.zeros((len(group), longest - 1), dtype=torch.bool)
    is_text = torch.zeros_like(is_answer)
    for i, (ids, start) in enumerate(group):
        tokens[i, : len(ids)] = torch.tensor(ids)
        is_answer[i, start - 1 : len(ids) - 1] = True
        is_text[i, i % _TEXT_STRIDE : start - 1 : _TEXT_STRIDE] = True
    return Batch(tokens, is_answer, is_text)


def _loss(
    decoder: Decoder, states: Tensor, following: Tensor, is_answer: Tensor, is_text: Tensor
) -> tuple[Tensor, float]:
    """Return the loss, and the share of the answers' tokens that were likeliest."""
    scores, wanted = decoder.scores(states[is_answer]), following[is_answer]
    answers = functional.cross_entropy(scores, wanted)
    texts = functional.cross_entropy(decoder.scores(states[is_text]), following[is_text])
    return answers + _TEXT_WEIGHT * texts, float((scores.argmax(-1) == wanted).float().mean())


def _pace(step: int, schedule: Schedule) -> float:
    """Return the share of the highest rate: up, level, and for the second half down to nothing."""
    done = step / schedule.steps
    return min(1.0, (done + 1e-4) / schedule.warmup, 2 * (1 - done) + 1e-3)
