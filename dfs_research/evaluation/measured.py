"""Section "Measured" of a model card: accuracy of the network."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from dfs_research.evaluation.conditions import Condition
from dfs_research.evaluation.provenance import markdown_lines, provenance
from dfs_research.evaluation.report import robustness_table, sigma_table
from dfs_research.evaluation.table import Score, markdown, summary

_HEADING = "## Measured"


def write_measured(
    card: str | Path,
    method: str,
    protocol: str,
    scores: Sequence[Score],
    robustness: Mapping[Condition, Sequence[Score]],
) -> None:
    """Write the tables of `method` into the card's section "Measured".

    The section is replaced, or added at the end. Raises ValueError if `scores` lack the method, FileNotFoundError
    without the card.
    """
    file = Path(card)
    of_method = [score for score in scores if score.method == method]
    if not of_method:
        methods = ", ".join(dict.fromkeys(score.method for score in scores))
        raise ValueError(f"{file.name}: is the card of {method}, which was not measured; measured were {methods}")
    rows = summary(of_method)
    parts = [textwrap.fill(protocol, width=120), markdown(rows), sigma_table(rows)]
    found = {condition: [s for s in of if s.method == method] for condition, of in robustness.items()}
    if any(found.values()):
        parts.append(robustness_table(of_method, found))
    parts.append("\n".join(markdown_lines(provenance())))
    section = "\n\n".join([_HEADING, *(part.strip("\n") for part in parts)])
    file.write_text(replaced(file.read_text(), section))


def replaced(text: str, section: str) -> str:
    """Replace the section of the same heading, or add it at the end.

    A section ends at the next heading of its level.
    """
    heading = section.splitlines()[0]
    level = heading.split()[0]
    pattern = rf"^{re.escape(heading)}[^\S\n]*\n.*?(?=^{level}[^\S\n]|\Z)"
    body = section.rstrip("\n") + "\n"
    if re.search(pattern, text, re.MULTILINE | re.DOTALL) is None:
        return f"{text.rstrip()}\n\n{body}"
    # A function: in a string, re.sub would expand backslashes.
    return re.sub(
        pattern, lambda found: body + ("\n" if found.end() < len(text) else ""), text, count=1, flags=re.M | re.S
    )
