"""Write a calibration board as PDF in true size.

Print it at 100 %, check it with a ruler and glue it to something flat. `dfs calibrate lens` takes the same `--board`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

_DEFAULT = "charuco,rows=6,columns=8,square_m=0.03,marker_m=0.022,dictionary=DICT_4X4_50"


def add_board_argument(parser: argparse.ArgumentParser, otherwise: str = _DEFAULT) -> None:
    """Add `--board`; `otherwise`: text of the help for a default that is None."""
    parser.add_argument(
        "--board",
        metavar="BOARD",
        default="charuco" if otherwise == _DEFAULT else None,
        help="charuco or apriltag, then KEY=VALUE with commas between: rows, columns (of squares or tags), square_m "
        f"(side of a square, or of a tag with its gap), marker_m, dictionary, legacy; default: {otherwise}",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", required=True, help="PDF to write")
    parser.add_argument("--paper", choices=("a4", "letter", "a3"), default="a4", help="paper (default: a4)")
    add_board_argument(parser)


def run(args: argparse.Namespace) -> int:
    from dfs_ros.calibration.board import Board
    from dfs_ros.calibration.board_sheet import board_pdf, sheet_text
    from dfs_ros.system.atomic import write_atomically

    if Path(args.output).suffix.lower() != ".pdf":
        raise ValueError(f"--output: expected a file that ends with .pdf, received {args.output}")
    board = Board.parse(args.board)
    write_atomically(Path(args.output), board_pdf(board, args.paper))
    print(f"{args.output}: {board.description}")
    print(sheet_text(board)[0])
    return 0
