"""Interface of the parts, and their table."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PARTS = ("kill", "power", "disk", "fuzz", "messages", "clock", "growth", "security")
NATIVE_PARTS = ("restart", "cycles")
"""Parts that need native ROS 2."""


@dataclass(frozen=True)
class Options:
    """Options of a part.

    `count`: cases to try, None = the part's own number; `seconds`: time after which no further case begins; `seed`: of
    all random choices; `duration_s`: length of one long run, `native`: on native ROS 2, `samples`: file of
    its samples; of the part `growth` alone.
    """

    count: int | None = None
    seconds: float = 600.0
    seed: int = 0
    duration_s: float | None = None
    native: bool = False
    samples: Path | None = None
    _began: float = field(default_factory=time.monotonic)

    @property
    def time_is_over(self) -> bool:
        """True when no further case may begin."""
        return time.monotonic() - self._began > self.seconds


class Row(NamedTuple):
    """Row of the table: what was done, how often, how often it broke something, and a note, such as the first break."""

    what: str
    tried: int
    broke: int
    note: str = ""


def table(rows: Sequence[Row]) -> str:
    """Rows as text.

    >>> print(table([Row("messages: Image", 3, 0), Row("clock: back", 1, 1, "no depth")]))
    fault            tried  broke
    messages: Image      3      0
    clock: back          1      1  no depth
    """
    width = max(len(row.what) for row in (*rows, Row("fault", 0, 0)))
    lines = [f"{'fault':<{width}}  {'tried':>5}  {'broke':>5}"]
    lines += [f"{row.what:<{width}}  {row.tried:>5}  {row.broke:>5}  {row.note}".rstrip() for row in rows]
    return "\n".join(lines)


def told(progress: str | Row) -> None:
    """Print progress on standard error."""
    text = progress if isinstance(progress, str) else table([progress]).splitlines()[-1]
    print(text, file=sys.stderr, flush=True)
