"""Tickets of which it is known whether they are urgent, and an engine whose answers depend on the words of a prompt.

It calls a ticket urgent only where it is told what is: of outages, where the prompt says the word, and of money, where
it says that. As a teacher it is shown what was wrong, and adds one rule of the two; some of what it writes is of no
use, or cannot be asked.
"""

from __future__ import annotations

import json
from typing import Any

TABLE = """
CREATE TABLE tickets AS
SELECT i AS id, (ARRAY['The site is down', 'I was billed twice', 'How do I change my name?', 'Thanks'])[1 + i % 4]
       || ' (' || i || ')' AS ticket, i % 4 < 2 AS urgent
FROM generate_series(1, 120) AS i;
"""
KINDS = ("The site", "I was", "How do", "Thanks")
TASK = "A prompt asks a language model"
OUTAGES, MONEY = "An outage is urgent.", "So is money that was taken."


def parts(prompt: str) -> tuple[str, dict[str, Any]]:
    """The question in a prompt, and the row."""
    if prompt.startswith("{"):  # where the same row is asked about in several ways
        row, _, question = prompt.partition("\n")
        return question, json.loads(row)
    question, _, row = prompt.partition("\n{")
    return question, json.loads("{" + row) if row else {}


def embedding(text: str) -> list[float]:
    """Near that of tickets of its kind."""
    return [float(text.startswith(begins)) for begins in KINDS] + [len(text) / 1000]


def student(prompt: str) -> str:
    """Whether a ticket is urgent; with examples as they say of its kind."""
    question, row = parts(prompt)
    ticket = str(row.get("ticket"))
    for example in str(row.get("examples")).splitlines():
        if example.startswith(ticket[:8]):
            return "yes" if example.endswith("yes") else "no"
    is_outage, is_money = ticket.startswith("The site"), ticket.startswith("I was")
    return "yes" if (is_outage and "outage" in question) or (is_money and "money" in question) else "no"


def teacher(prompt: str) -> str:
    """Another prompt, as JSON."""
    _, row = parts(prompt)
    wrong = " ".join(str(each["row"]) for each in row["wrong"])
    rule = OUTAGES if "The site" in wrong else MONEY if "I was" in wrong else "Think."
    said = {
        "Keep": f"{row['prompt']} {rule}",
        "Write": f"{row['prompt']} Answer in French.",
        "Say for": "Is this urgent?",
        "Say what": "Is {ticket urgent?",
        "Make it": f"{row['prompt']} {rule}",
    }
    way = next(prompt for begins, prompt in said.items() if row["how"].startswith(begins))
    return json.dumps({"mistake": "it does not say what is urgent", "prompt": way})


def answer(prompt: str) -> str:
    """What the engine answers."""
    return teacher(prompt) if prompt.startswith(TASK) else student(prompt)
