"""What the questions of one statement have been answered, so that nothing is asked twice.

In: prompts and options. Out: inquiries, each with what it has been answered so far; the oldest answers are forgotten
first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pg_bridge.asking.inquiry import Ask, Inquiry, question_of, sampling_of
from pg_bridge.asking.run import Run
from pg_bridge.engine import Sampling
from pg_bridge.options import Call
from pg_bridge.ordering import Sent


@dataclass(slots=True)
class Memory:
    """One statement's memory.

    Attributes:
        run: What all its questions did.
        nodes: What those of each plan node did.
        sent: What has been sent, by what prompts begin with: the questions' identities and the columns.
    """

    run: Run = field(default_factory=Run)
    nodes: dict[int, Run] = field(default_factory=dict)
    sent: dict[tuple[tuple[int, ...], tuple[str, ...]], Sent] = field(default_factory=dict)
    _inquiries: dict[Ask, Inquiry] = field(default_factory=dict)
    _samplings: dict[Call, Sampling] = field(default_factory=dict)

    def inquiry(self, ask: Ask) -> Inquiry:
        """What is known of a question.

        Raises:
            TemplateError: Its prompt does not parse.
        """
        if ask not in self._inquiries:
            # Prompts of one and the same sampling can share a request.
            sampling = self._samplings.setdefault(ask.call, sampling_of(ask.call))
            self._inquiries[ask] = Inquiry(question_of(ask), ask.call, sampling, dimensions=ask.call.dimensions)
        return self._inquiries[ask]
