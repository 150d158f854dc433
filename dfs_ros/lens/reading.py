"""Reading of a lens's calibration, whichever format it has: lens-calibration/1 or lens-table/1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dfs_ros.config import read_yaml
from dfs_ros.lens import calibration, table
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.table import LensTable


def load_lens(path: str | Path) -> LensTable | LensCalibration:
    """Read a calibration. Raises FileNotFoundError or ValueError, with file and entry."""
    document = read_yaml(Path(path), f"lens calibration {path}")
    found = document.get("format") if isinstance(document, Mapping) else type(document).__name__
    if found == calibration.FORMAT:
        return LensCalibration.load(path)
    if found == table.FORMAT:
        return LensTable.load(path)
    raise ValueError(
        f"lens calibration {path}: expected `format: {calibration.FORMAT}` or `{table.FORMAT}`, received {found!r}"
    )
