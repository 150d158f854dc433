"""Calibration boards: the printed sheet measures true, and OpenCV finds on it what the description says."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pypdfium2
import pytest
from numpy.typing import NDArray

from dfs_ros.calibration.board import SOFT_CELLS, Board
from dfs_ros.calibration.board_sheet import PAPERS_MM, board_pdf
from dfs_ros.cli.main import main

PX_PER_MM = 4.0
BOARDS = {
    "charuco": "charuco",
    "odd": "charuco,rows=5,columns=7,square_m=0.025,marker_m=0.018",
    "upright": "charuco,rows=8,columns=6,square_m=0.028,marker_m=0.021,dictionary=DICT_5X5_50",
    "legacy": "charuco,rows=6,columns=8,square_m=0.03,marker_m=0.021,legacy=true",
    "apriltag": "apriltag,rows=4,columns=5,square_m=0.039,marker_m=0.03",
}


def printed(pdf: bytes) -> NDArray[np.uint8]:
    """Grey image of the only page of a PDF, 4 pixels per millimetre."""
    document = pypdfium2.PdfDocument(io.BytesIO(pdf))
    assert len(document) == 1
    bitmap = document[0].render(scale=PX_PER_MM * 25.4 / 72, grayscale=True)
    image = np.ascontiguousarray(bitmap.to_numpy()).squeeze().copy()
    bitmap.close()
    document.close()
    return image


@pytest.mark.parametrize(("name", "paper"), [("charuco", "letter"), *((name, "a4") for name in BOARDS)])
def test_the_sheet_is_true_to_size(name: str, paper: str) -> None:
    board = Board.parse(BOARDS[name])
    image = printed(board_pdf(board, paper))
    across, down = sorted(PAPERS_MM[paper], reverse=board.size_m[1] > board.size_m[0])
    assert image.shape == pytest.approx((down * PX_PER_MM, across * PX_PER_MM), abs=1.01)
    if board.kind == "charuco":
        found, ids, _, _ = cv2.aruco.CharucoDetector(board.pattern).detectBoard(image)
        assert len(ids) == len(board.corners_m)
        order = np.argsort(np.ravel(ids))
        found_px = found.reshape(-1, 2)[order]
    else:
        found, ids, _ = cv2.aruco.ArucoDetector(board.pattern.getDictionary()).detectMarkers(image)
        assert len(ids) == board.marker_count
        found_px = np.concatenate([np.squeeze(found[i]) for i in np.argsort(np.ravel(ids))])
    # OpenCV's corners are good to half a pixel, of 4 in a millimetre.
    distances_mm = np.linalg.norm(found_px - found_px[0], axis=1) / PX_PER_MM
    true_mm = 1e3 * np.linalg.norm(board.corners_m - board.corners_m[0], axis=1)
    assert np.abs(distances_mm - true_mm).max() < 0.5 / PX_PER_MM * 2


@pytest.mark.parametrize("name", BOARDS)
def test_the_raster_is_the_pattern_of_opencv(name: str) -> None:
    """Under the same Gaussian, with whole pixels for every cell, as OpenCV's has no others."""
    board = Board.parse(BOARDS[name])
    raster = board.raster(3000.0 if name == "charuco" else 4000.0, 0.0)
    theirs = board.pattern.generateImage(raster.shape[::-1], None, 0, 1)
    fine = np.kron(theirs, np.ones((4, 4), np.uint8)).astype(np.float32)
    fine = cv2.GaussianBlur(fine, (0, 0), 4 * SOFT_CELLS, borderType=cv2.BORDER_REPLICATE)
    soft = (fine[1::4, 1::4] + fine[2::4, 1::4] + fine[1::4, 2::4] + fine[2::4, 2::4]) / 4
    difference = np.abs(255 * raster - soft)
    assert difference[4:-4, 4:-4].max() < 2
    assert np.mean(difference > 8) < 0.01  # at the border, where our raster ends in white
    margin = board.raster(1000.0, 0.02)
    assert margin[:16].min() == margin[:, :16].min() == 1.0
    assert (1.0 - margin).sum() == pytest.approx(1e6 * board.dark_cells_m[:, 2:].prod(1).sum(), rel=1e-4)


def test_a_description_is_read_as_it_is_written() -> None:
    for text in BOARDS.values():
        assert Board.parse(Board.parse(text).description) == Board.parse(text)
    assert Board.parse("charuco") == Board()
    assert Board.parse("apriltag").dictionary == "DICT_APRILTAG_36h11"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chess", "chess: unknown kind; known: apriltag, charuco"),
        ("charuco,row=5", "row: unknown key; did you mean 'rows'?"),
        ("charuco,rows", "expected KEY=VALUE, such as rows=6, received 'rows'"),
        ("charuco,rows=5.5", "rows: expected a whole number, received '5.5'"),
        ("charuco,rows=1", "rows: expected 2 to 60, received 1"),
        ("charuco,square_m=30", "square_m: expected metres over 0, at most 1, received 30; millimetres are divided"),
        ("charuco,square_m=nan", "square_m: expected metres over 0"),
        ("charuco,marker_m=0.03", "marker_m: expected less than square_m of 0.03 m, received 0.03"),
        ("charuco,dictionary=DICT_4X4_5", "DICT_4X4_5: unknown dictionary; did you mean 'DICT_4X4_50'?"),
        ("charuco,rows=20,columns=20,square_m=0.01,marker_m=0.007", "has 50 markers, the board needs 200"),
        ("charuco,legacy=yes", "legacy: expected true or false"),
    ],
)
def test_descriptions_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Board.parse(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "board.pdf"
    assert main(["calibrate", "board", "--output", str(file), "--paper", "letter"]) == 0
    assert "240.0 mm wide and 180.0 mm high, each square 30.00 mm" in capsys.readouterr().out
    assert file.read_bytes() == board_pdf(Board(), "letter")
    assert main(["calibrate", "board", "--output", str(tmp_path / "board.png")]) == 2
    assert "expected a file that ends with .pdf" in capsys.readouterr().err
    large = "charuco,rows=6,columns=8,square_m=0.05,marker_m=0.03"
    assert main(["calibrate", "board", "--output", str(file), "--board", large]) == 2
    assert "400.0 x 300.0 mm is too large for a4" in capsys.readouterr().err
