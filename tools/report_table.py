"""Write the table of report.json into docs/formats.md.

    python -m tools.report_table

It is made from :mod:`dfs_ros.io.report`; a test keeps the page in the repository equal.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dfs_ros.io.report import FORMAT, field_table
from dfs_ros.system.atomic import write_atomically

FILE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
HEADING = "## report.json\n"


def page(text: str) -> str:
    """The page with the section of report.json as the schema says."""
    before, heading, after = text.partition(HEADING)
    if not heading:
        raise ValueError(f"{FILE}: expected the heading {HEADING.strip()!r}")
    _, following, rest = after.partition("\n## ")
    intro = (
        f"`{FORMAT}`, written by `dfs estimate` and `dfs run --output`. In a name, `[]` is each element of a list and "
        "`*`\nany name. Unless stated, a field is always there. Numbers that are not finite are null."
    )
    return f"{before}{heading}\n{intro}\n\n{field_table()}\n{following}{rest}"


def main() -> int:
    write_atomically(FILE, page(FILE.read_text()).encode())
    print(FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
