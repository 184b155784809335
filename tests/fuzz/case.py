"""What a case is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

READ, REFUSED = "read", "refused"  # how a case may end: with a result, or with an error of ours


@dataclass(frozen=True)
class Case:
    """`attempt` is what is measured; `expected` is how it must end, None where either is right."""

    name: str
    attempt: Callable[[], Any]
    expected: str | None = None
