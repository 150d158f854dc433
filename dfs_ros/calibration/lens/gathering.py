"""Images of a board gathered from a camera that sweeps its lens, in the folder that calibration reads.

The lens sweeps all the time, while the user shows the board, holds it still until its images suffice, and moves it.
The images tell which is which. Of each lens position the last settled image counts; the others before it tell how the
lens answers to commands (:mod:`dfs_ros.calibration.lens.response`). Whatever ends the gathering, the folder holds all
poses that suffice: `positions.csv`, `steps.csv` and the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.adjust import stated_prior
from dfs_ros.calibration.lens.detection import Markers, find_markers, moved
from dfs_ros.calibration.lens.fit import LEAST_POSITIONS
from dfs_ros.calibration.lens.response import StepImage, step_shares
from dfs_ros.io.csv_table import read_table
from dfs_ros.io.images import write_png
from dfs_ros.system.atomic import write_atomically

POSITIONS_FILE, STEPS_FILE = "positions.csv", "steps.csv"
COLUMNS = ("file", "raw_position", "stamp_ns", "sweep")
STEP_COLUMNS = ("step", "since_s", "share")
NEAR_M, FAR_RATIO = 0.3, 1.8
"""A calibration should have seen the board nearer than this, and at distances of this ratio."""

_TILTED_DEG = 12.0
_BOTH_WAYS = 1.4  # images of a pose over its lens positions: swept up and down
_UNSEEN = 60  # images without a board until a hint
_MOST_OF_RUN = 128  # images at one lens position; further ones replace the last


class LensImage(NamedTuple):
    """Grey image (H, W) with the raw lens position that was commanded or reported.

    `command_ns`: time of that command, or stamp of the first image that reports it; on the clock of `stamp_ns`, which
    is the start of the exposure. `moving`: the lens is said to move.
    """

    grey: NDArray[np.uint8]
    raw: float
    stamp_ns: int
    command_ns: int
    moving: bool = False


@dataclass(frozen=True)
class ShownPose:
    """Pose of the board as guessed while it is shown: distance of its middle, and tilt."""

    distance_m: float
    tilt_deg: float


class Gathering:
    """Gathering of images, see the head of this module.

    Parameters
    ----------
    folder
        Folder for the images; if it has some of an earlier gathering, more are added.
    poses
        Poses of the board that are wanted in all.
    tell
        Receiver of sentences for the user.

    Raises ValueError for a folder that holds anything else.
    """

    def __init__(self, folder: Path, board: Board, poses: int, tell: Callable[[str], None]) -> None:
        self._folder, self._board, self._wanted, self._tell = folder, board, poses, tell
        self._rows = _rows(folder / POSITIONS_FILE, COLUMNS)
        self._steps = _rows(folder / STEPS_FILE, STEP_COLUMNS)
        if not self._rows and folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder}: expected a new or empty folder, or one that was gathered; it has other files")
        self.poses = len({row[-1] for row in self._rows})
        self.shown: list[ShownPose] = []
        self._whole_poses = self.poses
        self._run: list[LensImage] = []
        self._settled: LensImage | None = None  # of the lens position before
        self._pose: list[_Taken] = []
        self._unsure: list[_Taken] = []  # without markers since the last image with them
        self._best: Markers | None = None  # most markers of the pose
        self._ends = (np.inf, -np.inf)  # of the lens positions so far
        self._done = False  # the pose suffices: the board is to be moved
        self._unseen = 0

    @property
    def whole(self) -> bool:
        """Whether all poses are there."""
        return self._whole_poses >= self._wanted

    def add(self, image: LensImage) -> None:
        """Take the next image of the camera."""
        if self._run and image.raw != self._run[-1].raw:
            self._end_run()
        if len(self._run) >= _MOST_OF_RUN:
            self._run.pop()
        self._run.append(image)

    def finish(self) -> None:
        """Take in what is there of the last pose."""
        self._end_run()
        self._end_pose()

    def advice(self) -> str:
        """Sentence on what to show next."""
        if not self.shown:
            return "show the board, wholly seen and tilted by 20 to 30 degrees, and hold it still"
        near, far = min(p.distance_m for p in self.shown), max(p.distance_m for p in self.shown)
        if far < FAR_RATIO * near:
            if near > NEAR_M:
                return f"move the board nearer, to about {min(near / 2, NEAR_M):.2f} m, tilted another way"
            return f"move the board away, to about {FAR_RATIO * near:.2f} m or farther, tilted another way"
        if near > NEAR_M:
            return f"nothing nearer than {NEAR_M:g} m yet: move the board there if the lens can focus so near"
        if max(p.tilt_deg for p in self.shown) < _TILTED_DEG:
            return "tilt the board more, by 20 to 30 degrees"
        return "move the board between these distances, and towards a corner of the image, tilted another way"

    def _end_run(self) -> None:
        run, self._run = self._run, []
        resting = [i for i, image in enumerate(run) if not image.moving]
        if not resting:
            return
        run = run[: resting[-1] + 1]
        before, self._settled = self._settled, run[-1]
        raw = run[-1].raw
        self._ends = min(self._ends[0], raw), max(self._ends[1], raw)
        answers: list[tuple[float, float]] = []
        if before is not None and before.grey.shape == run[-1].grey.shape:
            shares = step_shares(before.grey, [image.grey for image in run])
            since_s = [(image.stamp_ns - image.command_ns) * 1e-9 for image in run]
            answers = list(zip(since_s, shares, strict=False))  # no shares: the step tells nothing
        self._take(_Taken(run[-1], answers))

    def _take(self, taken: _Taken) -> None:
        found = find_markers(taken.image.grey, self._board)
        if not len(found):
            self._unseen += 1
            if self._unseen == _UNSEEN:
                self._tell("the board is not seen: is --board as printed, is it lit, without glare and near enough?")
            if self._best is not None and not self._done:
                self._unsure.append(taken)
            return
        self._unseen = 0
        if self._best is not None and moved(self._best, found, taken.image.grey.shape[:2]):
            self._end_pose()
            self._pose, self._done, self._best = [], False, None
        if self._done:
            return
        self._pose += [*self._unsure, taken] if self._best is not None else [taken]
        self._unsure = []
        self._best = max(filter(None, (self._best, found)), key=len)
        raws = {each.image.raw for each in self._pose}
        if {*self._ends} <= raws and len(raws) >= LEAST_POSITIONS and len(self._pose) >= _BOTH_WAYS * len(raws):
            self._whole_poses += 1
            self._write_pose(self._best)

    def _end_pose(self) -> None:
        """Write the pose under way if it has enough images."""
        self._unsure = []
        enough = len({each.image.raw for each in self._pose}) >= LEAST_POSITIONS
        if self._best is not None and enough and not self._done:
            self._write_pose(self._best)

    def _write_pose(self, found: Markers) -> None:
        """Write the images of the pose, then the tables that name them."""
        self._done = True
        self._folder.mkdir(parents=True, exist_ok=True)
        step = len({row[0] for row in self._steps})
        for i, (image, answers) in enumerate(self._pose):
            file = f"{len(self._rows):04d}.png"
            write_png(self._folder / file, image.grey)
            self._rows.append((file, f"{image.raw:g}", f"{image.stamp_ns}", f"{self.poses}"))
            if i and answers:  # before the first image the board may have moved
                self._steps += [(f"{step}", f"{since_s:.6f}", f"{share:.4f}") for since_s, share in answers]
                step += 1
        self.poses += 1
        for name, columns, rows in (
            (POSITIONS_FILE, COLUMNS, self._rows),
            (STEPS_FILE, STEP_COLUMNS, self._steps),
        ):
            write_atomically(self._folder / name, "\n".join(map(",".join, [columns, *rows])).encode() + b"\n")
        text = f"pose {self.poses}: {len(self._pose)} images"
        pose = shown_pose(found, self._pose[-1].image.grey.shape, self._board)
        if pose is not None:
            self.shown.append(pose)
            text += f", board at about {pose.distance_m:.2f} m, tilted by {pose.tilt_deg:.0f} degrees"
        self._tell(text if self.whole else f"{text}; next: {self.advice()}")


class _Taken(NamedTuple):
    """Settled image, with seconds since the command and share of the step of the images up to it."""

    image: LensImage
    answers: list[tuple[float, float]]


def shown_pose(found: Markers, shape: tuple[int, ...], board: Board) -> ShownPose | None:
    """Pose of the board for a camera as most are; None if the markers do not tell."""
    fx, cx, cy = stated_prior((shape[0], shape[1])).mean[:3]
    camera = np.array([[np.exp(fx), 0, cx], [0, np.exp(fx), cy], [0, 0, 1]])
    good, turn, move = cv2.solvePnP(
        np.c_[found.board_m, np.zeros(len(found))], found.image_px, camera, None, flags=cv2.SOLVEPNP_IPPE
    )
    if not good:
        return None
    rotation, _ = cv2.Rodrigues(turn)
    height, width = board.size_m
    middle = rotation @ np.array([width / 2, height / 2, 0.0]) + move.ravel()
    cosine = abs(float(rotation[:, 2] @ middle)) / float(np.linalg.norm(middle))
    return ShownPose(float(middle[2]), float(np.degrees(np.arccos(min(cosine, 1.0)))))


def read_steps(file: Path) -> list[StepImage]:
    """Step images of an earlier gathering; none without the file."""
    try:
        return [StepImage(int(step), float(since), float(share)) for step, since, share in _rows(file, STEP_COLUMNS)]
    except ValueError as error:
        raise ValueError(f"{file}: expected whole numbers of steps, then numbers: {error}") from error


def _rows(file: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not file.is_file():
        return []
    _, lines = read_table(file, columns)
    return [tuple(row[name] for name in columns) for _, row in lines]


def gather(images: Iterable[LensImage], gathering: Gathering) -> None:
    """Gather until all poses are there, the images end, or the user interrupts."""
    try:
        for image in images:
            gathering.add(image)
            if gathering.whole:
                return
    except KeyboardInterrupt:
        pass
    finally:
        gathering.finish()
