"""Training: examples without end go in, a decoder that answers them comes out.

It learns in stages: first to copy a value out of the narrowest rows, without which nothing else is learnt for long,
then the other tasks and wider rows. The loss is that of the answers, each example's as heavy as another's, and in the
last stage a little of that of everything else, from which it learns words. Matrices are stepped by Muon, embeddings
and norms by AdamW.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from models.recipe.decoder import Decoder, Size
from models.recipe.examples import TASKS, Example, Task, examples, system_prompt
from models.recipe.vocabulary import END, END_ID, conversation, encode

_POOL = 1024  # examples made and sorted by length together
_TEXT_STRIDE = 4  # every fourth token of what is not an answer counts: scoring all would take half of the time
_SAVED_EVERY = 500  # steps


@dataclass(frozen=True, slots=True)
class Stage:
    """What is learnt until a point in time.

    Attributes:
        until: Share of the steps at which it ends.
        tasks: Tasks of its examples, each as often as it stands here.
        most_columns: Widest rows.
        batch_tokens: Most tokens of a batch, padding included.
        prompted: Whether some examples have a system prompt.
        text_weight: Weight of the loss of what is not an answer.
    """

    until: float
    tasks: tuple[Task, ...]
    most_columns: int
    batch_tokens: int
    prompted: bool = True
    text_weight: float = 0.0


STAGES = (
    Stage(0.15, ("value",), 2, 3072, prompted=False),
    Stage(0.25, ("value", "mention"), 4, 3072, prompted=False),
    Stage(1.00, TASKS, 10, 6144, text_weight=0.05),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast it learns.

    Attributes:
        steps: Number of batches.
        matrix_rate: Muon's highest learning rate.
        other_rate: AdamW's.
        bfloat16: Whether matrices are multiplied in half precision: a quarter faster where the CPU knows it (AVX-512
            BF16), slower elsewhere.
        seed: Of weights and examples.
    """

    steps: int = 5500
    matrix_rate: float = 0.01
    other_rate: float = 0.002
    bfloat16: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Equally long token rows.

    Attributes:
        tokens: (n, length) int64, padded with the end token.
        is_answer: (n, length - 1) bool; whether the token after this one belongs to the answer.
        weights: (n, length - 1) float32; what each answer token counts: those of an answer sum to 1 / n.
        is_text: (n, length - 1) bool; whether it belongs to what stands before, and counts.
        text_weight: Weight of the loss of that.
    """

    tokens: Tensor
    is_answer: Tensor
    weights: Tensor
    is_text: Tensor
    text_weight: float

    def to(self, device: str) -> Batch:
        """Return the same batch on a device."""
        return Batch(
            self.tokens.to(device),
            self.is_answer.to(device),
            self.weights.to(device),
            self.is_text.to(device),
            self.text_weight,
        )


def train(
    size: Size,
    tokenizer: Tokenizer,
    schedule: Schedule,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda line: None,
    save: Callable[[Decoder], None] = lambda decoder: None,
    seen: set[int] | None = None,
) -> Decoder:
    """Train a decoder from random weights.

    Args:
        size: How large.
        tokenizer: Its tokenizer.
        schedule: How long and how fast.
        device: What to compute on: `cpu` or `cuda`.
        progress: Called with a line now and then.
        save: Called with the decoder as it is, now and then, so that a run that is cut off leaves something.
        seen: Gets the checksum of every user message that is trained on, if given.
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
    for step, batch in enumerate(itertools.islice(batches(tokenizer, schedule, seen), schedule.steps), start=1):
        with torch.autocast(device, torch.bfloat16, enabled=schedule.bfloat16):
            loss, share = _loss(decoder, batch.to(device))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer, pace in zip(optimizers, paces, strict=True):
            optimizer.step()
            pace.step()
        tokens += batch.tokens.numel()
        answered, right = 0.98 * answered + 0.02 * loss.item(), 0.98 * right + 0.02 * share
        if step % 50 == 0:
            rate = tokens / (time.monotonic() - started)
            weight = 1 - 0.98**step
            progress(
                f"step {step} of {schedule.steps}: loss {answered / weight:.3f}, "
                f"answer tokens right {100 * right / weight:.1f} %, {tokens / 1e6:.1f}M tokens, {rate:.0f}/s"
            )
        if step % _SAVED_EVERY == 0:
            save(decoder)
    return decoder


def batches(tokenizer: Tokenizer, schedule: Schedule, seen: set[int] | None = None) -> Iterator[Batch]:
    """Yield batches without end, of examples about equally long."""
    rng = random.Random(schedule.seed)
    made = 0
    while True:
        stage = next(stage for stage in STAGES if made < stage.until * schedule.steps or stage is STAGES[-1])
        pool = list(itertools.islice(examples(rng, tasks=stage.tasks, most_columns=stage.most_columns), _POOL))
        if seen is not None:
            seen.update(each.checksum for each in pool)
        ready = list(_batched(_encoded(rng, tokenizer, pool, stage), stage))
        rng.shuffle(ready)
        made += len(ready)
        yield from ready


def _encoded(
    rng: random.Random, tokenizer: Tokenizer, pool: list[Example], stage: Stage
) -> list[tuple[list[int], int]]:
    """Return the tokens of each example, and how many of them stand before the answer."""
    before = [conversation(system_prompt(rng) if stage.prompted else "", each.message) for each in pool]
    heads = encode(tokenizer, before)
    answers = encode(tokenizer, [each.answer + END for each in pool])
    return [(head + tail, len(head)) for head, tail in zip(heads, answers, strict=True)]


def _batched(encoded: list[tuple[list[int], int]], stage: Stage) -> Iterator[Batch]:
    encoded = sorted(encoded, key=lambda each: len(each[0]))
    group: list[tuple[list[int], int]] = []
    for each in encoded:
        if group and len(each[0]) * (len(group) + 1) > stage.batch_tokens:
            yield _batch(group, stage.text_weight)
            group = []
        group.append(each)
    yield _batch(group, stage.text_weight)


def _batch(group: list[tuple[list[int], int]], text_weight: float) -> Batch:
    longest = max(len(ids) for ids, _ in group)
    tokens = torch.full((len(group), longest), END_ID, dtype=torch.int64)
    weights = torch.zeros((len(group), longest - 1))
    is_text = torch.zeros((len(group), longest - 1), dtype=torch.bool)
    for i, (ids, start) in enumerate(group):
        tokens[i, : len(ids)] = torch.tensor(ids)
        weights[i, start - 1 : len(ids) - 1] = 1 / (len(ids) - start) / len(group)
        is_text[i, i % _TEXT_STRIDE : start - 1 : _TEXT_STRIDE] = True
    return Batch(tokens, weights > 0, weights, is_text, text_weight)


def _loss(decoder: Decoder, batch: Batch) -> tuple[Tensor, float]:
    """Return the loss, and the share of the answers' tokens that were likeliest."""
    states, following = decoder(batch.tokens[:, :-1]), batch.tokens[:, 1:]
    scores, wanted = decoder.scores(states[batch.is_answer]), following[batch.is_answer]
    loss = (functional.cross_entropy(scores, wanted, reduction="none") * batch.weights[batch.is_answer]).sum()
    if batch.text_weight:
        texts = functional.cross_entropy(decoder.scores(states[batch.is_text]), following[batch.is_text])
        loss = loss + batch.text_weight * texts
    return loss, float((scores.argmax(-1) == wanted).float().mean())


def _pace(step: int, schedule: Schedule) -> float:
    """Return the share of the highest rate: level, and for the last half down to nothing."""
    return min(1.0, 2 * (1 - step / schedule.steps) + 1e-3)
