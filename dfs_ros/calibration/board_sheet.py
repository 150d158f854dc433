"""Sheet of paper with a calibration board in true size, as PDF."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.board import Board

PAPERS_MM = {"a4": (297.0, 210.0), "letter": (279.4, 215.9), "a3": (420.0, 297.0)}
"""(long, short) side of each paper in millimetres."""

_SIDE_MM, _BELOW_MM = 8.0, 17.0  # white beside the pattern; the text stands below it
_TEXT_MM = (10.5, 6.5)  # baselines over the lower edge: printers leave about 5 mm white
_POINTS = 7.0


def board_pdf(board: Board, paper: str = "a4") -> bytes:
    """PDF of one page, upright or across as the board fits.

    The same bytes for the same board. Raises ValueError if the board is larger than the paper.
    """
    if paper not in PAPERS_MM:
        raise ValueError(f"paper: expected one of {', '.join(PAPERS_MM)}, received {paper!r}")
    height, width = (side * 1e3 for side in board.size_m)
    long, short = PAPERS_MM[paper]
    pages = ((long, short), (short, long))
    page = next((p for p in pages if width + 2 * _SIDE_MM <= p[0] and height + _SIDE_MM + _BELOW_MM <= p[1]), None)
    if page is None:
        raise ValueError(
            f"board: {width:.1f} x {height:.1f} mm is too large for {paper}, which holds {long - 2 * _SIDE_MM:.0f} x "
            f"{short - _SIDE_MM - _BELOW_MM:.0f} mm; choose fewer or smaller squares, or another paper"
        )

    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    figure = Figure(figsize=(page[0] / 25.4, page[1] / 25.4))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, page[0]), ylim=(0, page[1]))
    axes.set_axis_off()
    left = (page[0] - width) / 2
    top = page[1] - _SIDE_MM - (page[1] - height - _SIDE_MM - _BELOW_MM) / 2
    # All cells in one path: viewers show seams between paths that touch.
    cells = Path.make_compound_path(*(Path(corners, closed=True) for corners in _outlines(board, left, top)))
    axes.add_patch(PathPatch(cells, facecolor="black", edgecolor="none", linewidth=0))
    for baseline, text in zip(_TEXT_MM, sheet_text(board), strict=True):
        axes.text(page[0] / 2, baseline, text, fontsize=_POINTS, ha="center", va="baseline")
    buffer = io.BytesIO()
    FigureCanvasPdf(figure)
    figure.savefig(buffer, format="pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None})
    return buffer.getvalue()


def sheet_text(board: Board) -> tuple[str, str]:
    """Both lines of text on the sheet: how to check its size, and its description for `--board`."""
    height, width = (side * 1e3 for side in board.size_m)
    of = "each square" if board.kind == "charuco" else "each tag with its gap"
    return (
        f"Print at 100 % (actual size, not fitted to the page). By a ruler: the pattern is {width:.1f} mm wide and "
        f"{height:.1f} mm high, {of} {board.square_m * 1e3:.2f} mm.",
        f"If it measures otherwise, scale square_m and marker_m. Glue it to something flat.  "
        f"--board {board.description}",
    )


def _outlines(board: Board, left: float, top: float) -> Iterator[NDArray[np.float64]]:
    """(5, 2) outline in millimetres on the page, y upwards, of each dark cell."""
    for x, y, across, down in board.dark_cells_m * 1e3:
        x0, x1, y0, y1 = left + x, left + x + across, top - y, top - y - down
        yield np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
