"""Training: examples without end go in, a decoder that answers them comes out.

It learns in stages. First it only copies values out of narrow rows: nothing else is learnt for long without that. Then
come all tasks, several questions about each row, which is a conversation and shows it several columns of one row for
little more than the tokens of one. Then come single questions, mostly about texts, and about the narrowest rows, where
a text and what is asked about it stand close together; and last wider rows and system prompts, as in use. The loss is
that of the answers; those of one task about one row count together as one. Matrices are stepped by Muon, the rest by
AdamW.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from models.recipe.decoder import Decoder
from models.recipe.examples import TASKS, Example, Task, interviews, system_prompt
from models.recipe.vocabulary import END, END_ID, SPACE, asked_again, conversation, encode

_POOL = 512  # rows made and sorted by length together
_SAVED_EVERY = 500  # steps


@dataclass(frozen=True, slots=True)
class Stage:
    """What is learnt until a point in time.

    Attributes:
        until: Share of the steps at which it ends.
        tasks: Tasks of its examples, each as often as it stands here.
        most_columns: Widest rows.
        batch_tokens: Most tokens of a batch, padding included.
        questions: Most questions about each row.
        prompted: Whether some examples have a system prompt.
        embedding_pace: Share of the embeddings' rate. AdamW takes a long way with a word that it meets seldom; where
            words are what is learnt, that way is mostly noise.
    """

    until: float
    tasks: tuple[Task, ...]
    most_columns: int
    batch_tokens: int
    questions: int = 1
    prompted: bool = True
    embedding_pace: float = 1.0


_MOSTLY_TEXTS: tuple[Task, ...] = ("sentiment", "label", "sentiment", "label", "mention", "value")
STAGES = (
    Stage(0.16, ("value",), 5, 4608, questions=6, prompted=False),
    Stage(0.40, TASKS, 5, 4608, questions=5, prompted=False),
    Stage(0.80, _MOSTLY_TEXTS, 2, 4608, prompted=False, embedding_pace=0.1),
    Stage(1.00, ("sentiment", "sentiment", "sentiment", "value", "label"), 5, 6144, embedding_pace=0.1),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast it learns.

    Attributes:
        steps: Number of batches.
        matrix_rate: Muon's highest learning rate.
        embedding_rate: AdamW's, of the embeddings.
        norm_rate: AdamW's, of the norms.
        bfloat16: Whether matrices are multiplied in half precision: a quarter faster where the CPU knows it (AVX-512
            BF16), slower elsewhere.
        seed: Of weights and examples.
    """

    steps: int = 10000
    matrix_rate: float = 0.01
    embedding_rate: float = 0.02
    norm_rate: float = 0.002
    bfloat16: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Equally long token rows.

    Attributes:
        tokens: (n, length) int64, padded with the end token.
        weights: (n, length - 1) float32; what the token after this one counts: 0 if it belongs to no answer; those of
            an answer count alike; all sum to 1.
    """

    tokens: Tensor
    weights: Tensor

    def to(self, device: str) -> Batch:
        """Return the same batch on a device."""
        return Batch(self.tokens.to(device), self.weights.to(device))


def train(
    decoder: Decoder,
    tokenizer: Tokenizer,
    schedule: Schedule,
    *,
    done: int = 0,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda line: None,
    save: Callable[[], None] = lambda: None,
    seen: set[int] | None = None,
) -> None:
    """Train a decoder.

    Args:
        decoder: On the device; it is changed.
        tokenizer: Its tokenizer.
        schedule: How long and how fast.
        done: Number of steps that it has been trained for. What it goes on with is the same; the optimizers' moments
            begin anew.
        device: What to compute on: `cpu` or `cuda`.
        progress: Called with a line now and then.
        save: Called now and then, so that a run which is cut off leaves something to go on with.
        seen: Gets the checksum of every user message that is trained on, if given.
    """
    matrices = [p for name, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in name]
    norms = [p for p in decoder.parameters() if p.ndim == 1]
    others = [
        {"params": [decoder.embed_tokens.weight], "lr": schedule.embedding_rate},
        {"params": norms, "lr": schedule.norm_rate},
    ]
    optimizers = [
        torch.optim.Muon(matrices, lr=schedule.matrix_rate, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    paces = [
        torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda step: _pace(step, schedule)),
        torch.optim.lr_scheduler.LambdaLR(
            optimizers[1],
            [
                lambda step: _pace(step, schedule) * _stage(step, schedule).embedding_pace,
                lambda step: _pace(step, schedule),
            ],
        ),
    ]
    for pace in paces:
        pace.last_epoch = done
    stream = enumerate(itertools.islice(batches(tokenizer, schedule, seen), schedule.steps), start=1)
    started = time.monotonic()
    tokens, answered, right = 0, 0.0, 0.0
    for step, batch in itertools.islice(stream, done, None):
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
            weight = 1 - 0.98 ** (step - done)
            progress(
                f"step {step} of {schedule.steps}: loss {answered / weight:.3f}, "
                f"answer tokens right {100 * right / weight:.1f} %, {tokens / 1e6:.1f}M tokens, {rate:.0f}/s"
            )
        if step % _SAVED_EVERY == 0:
            save()


def relate_tokens(decoder: Decoder, tokenizer: Tokenizer) -> None:
    """Let a word's embedding begin alike with and without a capital letter, with and without a space before it."""
    ids = tokenizer.get_vocab()
    capitals = [
        (ids[token], ids[token.lower()])
        for token in ids
        if token[:1].isascii() and token[:1].isupper() and token.lower() in ids
    ]
    spaced = [(ids[token], ids[token[1:]]) for token in ids if token.startswith(SPACE) and token[1:] in ids]
    decoder.relate(sorted(capitals))
    decoder.relate(sorted(spaced))


def batches(tokenizer: Tokenizer, schedule: Schedule, seen: set[int] | None = None) -> Iterator[Batch]:
    """Yield batches without end, of examples about equally long."""
    rng = random.Random(schedule.seed)
    made = 0
    while True:
        stage = _stage(made, schedule)
        stream = interviews(rng, tasks=stage.tasks, most_columns=stage.most_columns, questions=stage.questions)
        pool = list(itertools.islice(stream, _POOL))
        if seen is not None:
            seen.update(each.checksum for about_a_row in pool for each in about_a_row)
        ready = list(_batched(_encoded(rng, tokenizer, pool, stage), stage.batch_tokens))
        rng.shuffle(ready)
        made += len(ready)
        yield from ready


Encoded = tuple[list[int], list[tuple[int, int, float]]]  # tokens; beginning, end and weight of each answer


def _encoded(rng: random.Random, tokenizer: Tokenizer, pool: list[list[Example]], stage: Stage) -> list[Encoded]:
    """Return the tokens of each row's conversation, and its answers."""
    parts: list[str] = []
    for first, *others in pool:
        parts += [conversation(system_prompt(rng) if stage.prompted else "", first.message), first.answer + END]
        for each in others:
            parts += [asked_again(each.question), each.answer + END]
    tokens = iter(encode(tokenizer, parts))
    found = []
    for about_a_row in pool:
        ids: list[int] = []
        answers = []
        asked = Counter(each.task for each in about_a_row)
        for each in about_a_row:
            ids += next(tokens)
            start = len(ids)
            ids += next(tokens)
            answers.append((start, len(ids), 1 / asked[each.task]))
        found.append((ids, answers))
    return found


def _batched(encoded: list[Encoded], batch_tokens: int) -> Iterator[Batch]:
    encoded = sorted(encoded, key=lambda each: len(each[0]))
    group: list[Encoded] = []
    for each in encoded:
        if group and len(each[0]) * (len(group) + 1) > batch_tokens:
            yield _batch(group)
            group = []
        group.append(each)
    yield _batch(group)


def _batch(group: list[Encoded]) -> Batch:
    longest = max(len(ids) for ids, _ in group)
    tokens = torch.full((len(group), longest), END_ID, dtype=torch.int64)
    weights = torch.zeros((len(group), longest - 1))
    total = sum(weight for _, answers in group for _, _, weight in answers)
    for i, (ids, answers) in enumerate(group):
        tokens[i, : len(ids)] = torch.tensor(ids)
        for start, end, weight in answers:
            weights[i, start - 1 : end - 1] = weight / total / (end - start)
    return Batch(tokens, weights)


def _loss(decoder: Decoder, batch: Batch) -> tuple[Tensor, float]:
    """Return the loss, and the share of the answers' tokens that were likeliest."""
    counts = batch.weights > 0
    scores = decoder.scores(decoder(batch.tokens[:, :-1])[counts])
    wanted = batch.tokens[:, 1:][counts]
    loss = (functional.cross_entropy(scores, wanted, reduction="none") * batch.weights[counts]).sum()
    return loss, float((scores.argmax(-1) == wanted).float().mean())


def _stage(step: int, schedule: Schedule) -> Stage:
    return next(stage for stage in STAGES if step < stage.until * schedule.steps or stage is STAGES[-1])


def _pace(step: int, schedule: Schedule) -> float:
    """Return the share of the highest rate: level at first, then down to nothing."""
    return min(1.0, 1.6 * (1 - step / schedule.steps) + 1e-3)
