"""One property over many seeds as one test: `each_seed(20)` calls it with 0 to 19, and a failure names its seed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def each_seed(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Call a test with `seed` from 0 to `count` - 1, its fixtures and other parameters being the same every time."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**arguments: Any) -> None:
            for seed in range(count):
                try:
                    test(seed=seed, **arguments)
                except BaseException as error:
                    error.add_note(f"seed = {seed}")
                    raise

        # Or pytest would look for a fixture of that name.
        signature = inspect.signature(test)
        parameters = [each for each in signature.parameters.values() if each.name != "seed"]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate
