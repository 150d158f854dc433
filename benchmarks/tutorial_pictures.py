"""Pictures of docs/tutorial.md, made by the tutorial's commands on a rendered lens and board.

    python -m benchmarks.tutorial_pictures

Writes docs/images/board.png, report.png and check.png: the page of `dfs calibrate board`, the figures of `dfs calibrate
lens --report` from three poses, and `dfs calibrate check --picture` at a fourth. docs/viewer.png is of
`tools.screenshot`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.lens_bench import BOARD, RAW_RANGE, poses_of_the_tutorial, random_lens
from benchmarks.lens_rendering import BenchLens, BoardPose, board_pose, rendered, sweeps
from dfs_ros.cli.main import main as dfs
from dfs_ros.io.images import write_png

_OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "images"
_SEED, _SIZE, _POSITIONS = 1, (360, 480), 11
_CHECKED_M = 0.5
_COLORS = 64  # of a picture: they are drawn


def write_images(folder: Path, lens: BenchLens, poses: Sequence[BoardPose], seed: int) -> Path:
    """Write sweeps up and down before every pose; return the CSV file."""
    folder.mkdir(parents=True)
    shots = sweeps(len(poses), np.linspace(*RAW_RANGE, _POSITIONS).tolist())
    lines = ["file,raw_position,sweep"]
    for i, (shot, image) in enumerate(zip(shots, rendered(lens, BOARD, poses, shots, seed), strict=True)):
        write_png(folder / f"{i:03d}.png", image)
        lines.append(f"{i:03d}.png,{shot.raw:g},{shot.pose}")
    csv = folder / "positions.csv"
    csv.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return csv


def save_small(source: Path, name: str, width: int) -> None:
    """Save a picture at a width in pixels, with few colours."""
    with Image.open(source) as picture:
        size = (width, round(picture.height * width / picture.width))
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(_COLORS)
    _OUTPUT.mkdir(exist_ok=True)
    small.save(_OUTPUT / name, optimize=True)


def main(arguments: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(
        prog="python -m benchmarks.tutorial_pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    import pypdfium2

    lens = random_lens(_SEED, _SIZE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        status = dfs(["calibrate", "board", "--output", str(folder / "board.pdf")])
        page = pypdfium2.PdfDocument(folder / "board.pdf")[0]
        page.render(scale=2).to_pil().save(folder / "board.png")
        save_small(folder / "board.png", "board.png", 480)

        csv = write_images(folder / "poses", lens, poses_of_the_tutorial(3, lens, _SEED), _SEED)
        calibration = str(folder / "lens.yaml")
        told = ["--board", BOARD.description, "--output", calibration, "--report", str(folder)]
        status = status or dfs(["calibrate", "lens", str(csv.parent), "--csv", str(csv), *told])
        save_small(folder / "report.png", "report.png", 1100)

        csv = write_images(
            folder / "check", lens, [board_pose(BOARD, _CHECKED_M, (15.0, -20.0), (0.0, 0.0))], _SEED + 1
        )
        head, *upwards = [
            line.rpartition(",")[0] for line in csv.read_text(encoding="utf-8").splitlines()[: _POSITIONS + 1]
        ]
        far = upwards[_POSITIONS // 2 :]  # across the distance of the board: this lens focuses farther upwards
        csv.write_text("\n".join([head, *far]) + "\n", encoding="utf-8")
        told = ["--calibration", calibration, "--picture", str(folder / "check.png")]
        status = status or dfs(["calibrate", "check", str(csv.parent), "--csv", str(csv), *told])
        save_small(folder / "check.png", "check.png", 1040)
    return status


if __name__ == "__main__":
    sys.exit(main())
