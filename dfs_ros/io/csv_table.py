"""CSV files with a line of column names, separated by comma, semicolon or tab."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from dfs_ros.config import unknown_name
from dfs_ros.io.stack_description import MAX_DESCRIPTION_BYTES, collecting, combined


def read_table(path: Path, known: tuple[str, ...]) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Columns, and each line as its name for errors and its values by column; empty lines are left out.

    Raises FileNotFoundError or ValueError, with file and line, also for a column that is not in `known` or stands
    twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected CSV with columns {', '.join(known)}")
    if path.stat().st_size > MAX_DESCRIPTION_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_DESCRIPTION_BYTES} bytes, received {path.stat().st_size}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected CSV text in UTF-8: {error}") from error
    first_line = text.partition("\n")[0]
    delimiter = next((d for d in "\t;" if d in first_line), ",")
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    lines, errors = [], list[Exception]()
    try:
        columns = [name.strip() for name in next(rows, [])]
        for name in columns:
            if name not in known:
                raise ValueError(f"{path}: {unknown_name(name or '(empty)', known, 'column')}")
        if len(set(columns)) < len(columns):
            raise ValueError(f"{path}: expected each column once, received {', '.join(columns)}")
        for row in rows:
            if any(cell.strip() for cell in row):
                with collecting(errors):
                    name = f"{path}: line {rows.line_num}"
                    if len(row) != len(columns):
                        raise ValueError(f"{name}: expected {len(columns)} values, received {len(row)}: {row}")
                    lines.append((name, dict(zip(columns, map(str.strip, row), strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path}: line {rows.line_num}: expected CSV: {error}") from error
    if errors:
        raise combined(errors)
    return columns, lines
