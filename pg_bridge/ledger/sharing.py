"""How sessions share a server's limits: numbers only, no clock, no file.

In: what each session holds and waits for, what a limit allows. Out: how much one of them may have now.

Places, of which there are `max_in_flight`, go to whoever asks while nobody has to wait. As soon as one waits who holds
less than its share, an equal part for each who holds or waits, whoever holds a share or more gets nothing, and places
that come free go to those who wait, the longest waiting first. Nobody is interrupted: shares become equal as answers
come in. What a minute may see goes to the longest waiting first, too, and who got some waits behind the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

BURST_SHARE = 20  # a bucket holds a twentieth of a minute's amount: three seconds
PART_OF_SHARE = 4  # less than this part of a share is not worth a request, for who has others in flight


class Claim(NamedTuple):
    """What a session holds, and since when it waits.

    Attributes:
        held: Its prompts in flight.
        waits_since_s: Since when it waits for more; None if it does not.
    """

    held: int
    waits_since_s: float | None = None


class Places(NamedTuple):
    """What a session may have of a server's places.

    Attributes:
        granted: So many more prompts.
        ahead: Those who wait and come before it.
    """

    granted: int
    ahead: int


def share_places(most: int, mine: Claim, others: Sequence[Claim], wanted: int) -> Places:
    """Tell how many places a session may take now.

    Args:
        most: How many there are.
        mine: The session.
        others: The others that hold something or wait.
        wanted: How many it wants.

    >>> share_places(8, Claim(8), [], 4), share_places(8, Claim(4), [], 8)
    (Places(granted=0, ahead=0), Places(granted=4, ahead=0))
    >>> share_places(8, Claim(6), [Claim(0, 17.0)], 2)  # two come free; another waits, and four are its share
    Places(granted=0, ahead=1)
    >>> share_places(8, Claim(0, 17.0), [Claim(6)], 4)
    Places(granted=2, ahead=0)
    """
    free = most - mine.held - sum(other.held for other in others)
    share = max(1, most // (1 + len(others)))
    needy = [other for other in others if other.waits_since_s is not None and other.held < share]
    before = [other for other in needy if _comes_before(other, mine)]
    least = 1
    if needy:
        free = min(free - sum(share - other.held for other in before), share - mine.held)
        least = min(wanted, max(1, share // PART_OF_SHARE)) if mine.held else 1
    granted = max(0, min(free, wanted))
    return Places(granted if granted >= least else 0, len(before))


def _comes_before(other: Claim, mine: Claim) -> bool:
    if other.waits_since_s is None:
        return False
    return mine.waits_since_s is None or other.waits_since_s < mine.waits_since_s


def fill(level: float, elapsed_s: float, per_minute: int) -> float:
    """What is in a bucket after so many seconds, so that no minute sees more than its limit.

    >>> fill(0, 1, 60), fill(0, 100, 60), fill(-58, 30, 60)
    (0.9666666666666667, 3.0, -29.0)
    """
    most = full(per_minute)
    return min(most, level + max(0.0, elapsed_s) * _per_second(per_minute))


def full(per_minute: int) -> float:
    """What a bucket holds at most."""
    return max(1.0, per_minute / BURST_SHARE)


def affordable(level: float, each: int, wanted: int, per_minute: int) -> int:
    """How many things of a size a bucket pays for; one that is larger than the bucket waits until it is full.

    >>> affordable(3, 1, 5, 60), affordable(5, 100, 2, 100), affordable(4.9, 100, 2, 100)
    (3, 1, 0)
    """
    if each <= 0:
        return wanted
    whole = max(0, int(level / each + 1e-9))
    return min(wanted, whole or int(level >= min(each, full(per_minute)) - 1e-9))


def seconds_until(level: float, each: float, per_minute: int) -> float:
    """How long until a bucket pays for one thing of a size.

    >>> seconds_until(0, 1, 1), seconds_until(1, 1, 1)
    (60.0, 0.0)
    """
    return max(0.0, (min(each, full(per_minute)) - level) / _per_second(per_minute))


def _per_second(per_minute: int) -> float:
    return (per_minute + 1 - full(per_minute)) / 60
