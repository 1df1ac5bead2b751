"""Training: examples without end go in, a decoder that answers them comes out.

Two things are learnt from each example: its answer, and `hints` about its tokens, which heads beside the decoder read
off the states between its layers. The heads are thrown away. Without them an answer of one token is all that a row of
eighty teaches, and to compare words, or to know a column's cells from others, is not found in the time there is.

It learns in stages: narrow rows first, then wider ones, with the system prompt of the product.
The loss is that of the answers plus that of the hints. Matrices are stepped by Muon, the rest by AdamW.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from models.recipe.decoder import Decoder, Size
from models.recipe.examples import TASKS, Example, Task, examples, system_prompt
from models.recipe.hints import CLASSES, KINDS, NOTHING, hints
from models.recipe.vocabulary import END, END_ID, USER, conversation

_SAVED_EVERY = 250  # steps
_RARE = (1.0, 4.0)  # weights of no and yes where yes is rare
_POOL = 1024  # examples made and sorted by length together


@dataclass(frozen=True, slots=True)
class Stage:
    """What is learnt until a point in time.

    Attributes:
        until: Share of the steps at which it ends.
        tasks: Tasks of its examples, each as often as it stands here.
        most_columns: Widest rows.
        batch_tokens: Most tokens of a batch, padding included.
        prompted: Share of the examples that may have a system prompt.
    """

    until: float
    tasks: tuple[Task, ...]
    most_columns: int
    batch_tokens: int
    prompted: float


_MATCHES: tuple[Task, ...] = ("value", "mention", "value", "mention", "label", "sentiment")
STAGES = (
    Stage(0.12, _MATCHES, 2, 4608, 0.0),
    Stage(0.24, ("label", "sentiment", "value", "mention", "label", "sentiment"), 4, 4608, 0.6),
    Stage(1.00, (*TASKS, "label"), 10, 4608, 1.0),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast it learns.

    Attributes:
        steps: Number of batches.
        matrix_rate: Muon's highest learning rate.
        embedding_rate: AdamW's, of the embeddings.
        norm_rate: AdamW's, of norms and heads.
        hint_weight: What hints count beside answers.
        bfloat16: Whether matrices are multiplied in half precision: three times as fast where the CPU knows it
            (AVX-512 BF16), slower elsewhere.
        compiled: Whether torch compiles the decoder: a quarter faster; needs a C++ compiler.
        seed: Of weights and examples.
        stages: What is learnt when.
    """

    steps: int = 6800
    matrix_rate: float = 0.01
    embedding_rate: float = 0.01
    norm_rate: float = 0.002
    hint_weight: float = 0.5
    bfloat16: bool = False
    compiled: bool = False
    seed: int = 0
    stages: tuple[Stage, ...] = STAGES


@dataclass(frozen=True, slots=True)
class Batch:
    """Equally long token rows.

    Attributes:
        tokens: (n, length) int64, padded with the end token.
        weights: (n, length - 1) float32; what the token after this one counts: 0 if it belongs to no answer; all sum
            to 1, those of each example to the same.
        hints: (n, length - 1, kinds) int64.
    """

    tokens: Tensor
    weights: Tensor
    hints: Tensor

    def to(self, device: str) -> Batch:
        """Return the same batch on a device."""
        return Batch(self.tokens.to(device), self.weights.to(device), self.hints.to(device))


class Heads(nn.Module):
    """Read hints off the states after each layer but the last."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.classes = [CLASSES[kind] for kind in KINDS]
        self.weights = [torch.tensor(_RARE) if kind in {"match", "hit"} else None for kind in KINDS]
        self.readers = nn.ModuleList(nn.Linear(size.hidden, sum(self.classes)) for _ in range(size.layers - 1))

    def forward(self, states: list[Tensor], wanted: Tensor) -> Tensor:
        """Return (layers, kinds): the mean loss of each."""
        told = (wanted != NOTHING).any(-1)
        wanted = wanted[told]
        losses = []
        for reader, state in zip(self.readers, states, strict=False):
            chosen = state[told]
            read = reader(functional.rms_norm(chosen.float(), chosen.shape[-1:])).float().split(self.classes, -1)
            for scores, classes, weight in zip(read, wanted.T, self.weights, strict=True):
                weight = weight if weight is None else weight.to(scores.device)  # noqa: PLW2901 - the same, elsewhere
                loss = functional.cross_entropy(scores, classes, weight, ignore_index=NOTHING, reduction="sum")
                losses.append(loss / (classes != NOTHING).sum().clamp(1))
        return torch.stack(losses).view(-1, len(self.classes))


class Trainer:
    """A decoder in training.

    Args:
        decoder: On the device; it is changed. Its embeddings are `Spellings`.
        tokenizer: Its tokenizer.
        schedule: How long and how fast.
        device: What to compute on: `cpu` or `cuda`.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, schedule: Schedule, device: str = "cpu") -> None:
        self.decoder, self.tokenizer, self.schedule, self.device = decoder, tokenizer, schedule, device
        self.heads = Heads(decoder.size).to(device)
        self.done = 0
        matrices = [p for name, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in name]
        others = [
            {"params": list(decoder.embed_tokens.parameters()), "lr": schedule.embedding_rate},
            {"params": [p for p in decoder.parameters() if p.ndim == 1], "lr": schedule.norm_rate},
            {"params": list(self.heads.parameters()), "lr": schedule.norm_rate},
        ]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=schedule.matrix_rate, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98)),
        ]
        self._highest = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self._states = torch.compile(decoder.states, dynamic=True) if schedule.compiled else decoder.states

    def save(self, file: Path) -> None:
        """Write all that `load` needs to go on."""
        parts = [self.decoder, self.heads, *self.optimizers]
        torch.save({"done": self.done, "parts": [part.state_dict() for part in parts]}, file)

    def load(self, file: Path) -> None:
        """Go on where `save` was called."""
        saved = torch.load(file, map_location=self.device, weights_only=True)
        self.done = saved["done"]
        for part, state in zip([self.decoder, self.heads, *self.optimizers], saved["parts"], strict=True):
            part.load_state_dict(state)

    def step(self, batch: Batch) -> tuple[float, float, Tensor]:
        """Learn from a batch.

        Returns:
            The answers' loss, the share of their tokens that were right, and the hints' losses: (layers, kinds).
        """
        for optimizer, highest in zip(self.optimizers, self._highest, strict=True):
            for group, rate in zip(optimizer.param_groups, highest, strict=True):
                group["lr"] = rate * _pace(self.done, self.schedule)
            optimizer.zero_grad()
        batch = batch.to(self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.schedule.bfloat16):
            states = self._states(batch.tokens[:, :-1])
            counts = batch.weights > 0
            scores = self.decoder.scores(states[-1][counts])
            wanted = batch.tokens[:, 1:][counts]
            loss = (functional.cross_entropy(scores.float(), wanted, reduction="none") * batch.weights[counts]).sum()
            hinted = self.heads(states[:-1], batch.hints)
        (loss + self.schedule.hint_weight * hinted.sum(1).mean()).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.done += 1
        return loss.item(), float((scores.argmax(-1) == wanted).float().mean()), hinted.detach()


def train(
    trainer: Trainer,
    *,
    progress: Callable[[str], None] = lambda line: None,
    save: Callable[[], None] = lambda: None,
    seen: set[int] | None = None,
) -> None:
    """Train to the schedule's end.

    Args:
        trainer: What to train, and how.
        progress: Called with a line now and then.
        save: Called now and then, so that a run which is cut off leaves something.
        seen: Gets the checksum of every user message that is trained on, if given.
    """
    schedule = trainer.schedule
    stream = itertools.islice(batches(trainer.tokenizer, schedule, seen), trainer.done, schedule.steps)
    started, tokens = time.monotonic(), 0
    answered, right, hinted, weight = 0.0, 0.0, torch.zeros(()), 0.0
    for batch in stream:
        loss, share, of_hints = trainer.step(batch)
        tokens += batch.tokens.numel()
        answered, right = 0.98 * answered + 0.02 * loss, 0.98 * right + 0.02 * share
        hinted, weight = 0.98 * hinted + 0.02 * of_hints, 0.98 * weight + 0.02
        if trainer.done % 50 == 0:
            rate = tokens / (time.monotonic() - started)
            of_kinds = " | ".join(
                " ".join(f"{float(value) / weight:.3f}" for value in of_layers) for of_layers in hinted.T
            )
            progress(
                f"step {trainer.done} of {schedule.steps}: loss {answered / weight:.3f}, "
                f"answer tokens right {100 * right / weight:.1f} %, hints {of_kinds}, "
                f"{tokens / 1e6:.1f}M tokens, {rate:.0f}/s"
            )
        if trainer.done % _SAVED_EVERY == 0:
            save()


def batches(tokenizer: Tokenizer, schedule: Schedule, seen: set[int] | None = None) -> Iterator[Batch]:
    """Yield batches without end, of examples about equally long."""
    rng = random.Random(schedule.seed)
    made = 0
    while True:
        stage = _stage(made, schedule)
        pool = list(itertools.islice(examples(rng, tasks=stage.tasks, most_columns=stage.most_columns), _POOL))
        if seen is not None:
            seen.update(each.checksum for each in pool)
        ready = list(_batched(_encoded(rng, tokenizer, pool, stage), stage.batch_tokens))
        rng.shuffle(ready)
        made += len(ready)
        yield from ready


Encoded = tuple[list[int], int, int, NDArray[np.int8]]  # tokens; where the answer begins; where the hints begin; hints


def _encoded(rng: random.Random, tokenizer: Tokenizer, pool: list[Example], stage: Stage) -> list[Encoded]:
    """Return the tokens of each conversation, where its answer begins, and its hints."""
    prompts = [system_prompt(rng) if rng.random() < stage.prompted else "" for _ in pool]
    texts = []
    for system, each in zip(prompts, pool, strict=True):
        texts += [conversation(system, each.message), each.answer + END]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    found: list[Encoded] = []
    for system, each, asked, answer in zip(prompts, pool, encoded[::2], encoded[1::2], strict=True):
        start = len(conversation(system, "").partition(USER)[0] + USER) + 1
        ends = [end - start for _, end in asked.offsets]
        first = next(i for i, end in enumerate(ends) if end > 0)
        found.append((asked.ids + answer.ids, len(asked.ids), first, hints(each, ends[first:])))
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
    longest = max(len(ids) for ids, _, _, _ in group)
    tokens = torch.full((len(group), longest), END_ID, dtype=torch.int64)
    weights = torch.zeros((len(group), longest - 1))
    told = torch.full((len(group), longest - 1, len(KINDS)), NOTHING, dtype=torch.int64)
    for i, (ids, start, first, of_tokens) in enumerate(group):
        tokens[i, : len(ids)] = torch.tensor(ids)
        weights[i, start - 1 : len(ids) - 1] = 1 / len(group) / (len(ids) - start)
        told[i, first : first + len(of_tokens)] = torch.from_numpy(of_tokens)
    return Batch(tokens, weights, told)


def _stage(step: int, schedule: Schedule) -> Stage:
    stages = schedule.stages
    return next(stage for stage in stages if step < stage.until * schedule.steps or stage is stages[-1])


def _pace(step: int, schedule: Schedule) -> float:
    """Return the share of the highest rate: level at first, then down to nothing."""
    return min(1.0, (step + 1) / 50, 1.6 * (1 - step / schedule.steps) + 1e-3)
