"""What the tests of occupancy maps share: the planes of the demo scene, occupied, and nothing before them."""

from __future__ import annotations

import unittest
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dfs_ros.simulation.scenes import demo_scene

WITHIN = 0.03
"""Share of a plane's depth by which it may lie elsewhere."""


def check_planes(test: unittest.TestCase, occupied_m: NDArray[Any], info: Any, cell_m: float) -> None:
    """Check that occupied cells (N, 3), centres in the frame of the camera's body, are the planes that the camera sees.

    `info` is the camera_info of the depth, `cell_m` the side of a cell.
    """
    forward, left, up = occupied_m.T
    cells = np.stack([-left, -up, forward], axis=-1)  # optical axes
    fx, cx, cy = info.k[0], info.k[2], info.k[5]
    column = np.rint(fx * cells[:, 0] / cells[:, 2] + cx).astype(int)
    row = np.rint(fx * cells[:, 1] / cells[:, 2] + cy).astype(int)
    inside = (column >= 0) & (column < info.width) & (row >= 0) & (row < info.height)
    nearest, scene = cKDTree(cells), demo_scene(info.width, info.height)
    for name, true_m in scene.plane_depth_m.items():
        mask = scene.mask(name, margin_px=6)
        v, u = np.nonzero(mask)
        plane = np.stack([(u - cx) / fx * true_m, (v - cy) / fx * true_m, np.full(len(u), true_m)], axis=-1)
        # Half the diagonal of a cell lies between a point in it and its centre.
        tolerance_m = cell_m * np.sqrt(0.75) + WITHIN * true_m
        occupied_share = float((nearest.query(plane)[0] < tolerance_m).mean())
        # Over the plane as a whole: a cell of a nearer plane reaches over its edge.
        within_px = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
        over = np.zeros(len(cells), bool)
        over[inside] = within_px[row[inside], column[inside]] > fx * cell_m * np.sqrt(0.75) / cells[inside, 2]
        before = over & (cells[:, 2] < true_m - tolerance_m)
        print(f"{name} at {true_m} m: {100 * occupied_share:.0f} % occupied, {before.sum()} cells before it")
        test.assertGreater(occupied_share, 0.8, name)
        test.assertEqual(int(before.sum()), 0, f"{name}: occupied at {cells[before]} before {true_m} m")
