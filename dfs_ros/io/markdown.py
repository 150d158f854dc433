"""Tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]], decimals: int = 3) -> str:
    """Table of rows under headings; floats with `decimals`, NaN as `-`.

    >>> print(markdown_table(["step", "time [s]"], [["align", 0.1234], ["sharpen", math.nan]]))
    | step | time [s] |
    | --- | --- |
    | align | 0.123 |
    | sharpen | - |
    """

    def cell(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return "-" if math.isnan(value) else f"{value:.{decimals}f}"

    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)
