"""Scores of SLAM on places and maps that are known, and the plain visual odometry on the room with its true depth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.slam import dead_reckoned
from benchmarks.slam_pnp import View, odometry
from benchmarks.slam_room import FX_PX, HEIGHT, START_Z_M, WIDTH, place, room, view
from benchmarks.slam_score import distance_to_surfaces_m, scale_of, trajectory_error_m
from dfs_ros.optics.pinhole import Intrinsics, points_from_depth
from dfs_ros.transforms.rigid import Transform, rotation_of

PINHOLE = Intrinsics(FX_PX, FX_PX, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
TRAVEL_M, STEP_M = 1.0, 0.02


def path(scale: float = 1.0) -> dict[int, Transform]:
    return {i: Transform(np.eye(3), scale * np.array([0.1 * i, 0.02 * i * i, 0.0])) for i in range(10)}


@pytest.fixture(scope="module")
def views() -> list[tuple[np.ndarray, np.ndarray]]:
    return [view(i * STEP_M, TRAVEL_M) for i in range(3)]


def test_trajectory_error_ignores_where_it_starts_and_not_its_scale() -> None:
    turned = Transform(rotation_of(np.array([0.3, -0.8, 0.2])), np.array([5.0, -2.0, 1.0]))
    assert trajectory_error_m({i: turned.after(each) for i, each in path().items()}, path()) == pytest.approx(0)
    places = np.array([each.translation_m for each in path().values()])
    spread_m = np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert trajectory_error_m(path(1.02), path()) == pytest.approx(0.02 * spread_m)
    assert scale_of(path(1.02), path()) == pytest.approx(1.02)
    with pytest.raises(ValueError, match="three stamps"):
        trajectory_error_m({1: path()[1]}, path())


def test_points_of_true_depth_lie_on_the_surfaces_of_the_room(views: list[tuple[np.ndarray, np.ndarray]]) -> None:
    points = points_from_depth(views[1][1], PINHOLE).reshape(-1, 3)[::7] + place(STEP_M, TRAVEL_M)
    assert distance_to_surfaces_m(points, room()).max() < 1e-5
    before = points + np.array([0.0, 0.0, -0.1])
    assert 0.03 < np.median(distance_to_surfaces_m(before, room())) <= 0.1 + 1e-5
    assert views[1][1].min() > 0.6
    assert place(0.0, TRAVEL_M)[2] == START_Z_M


def test_odometry_on_true_depth_finds_the_way(views: list[tuple[np.ndarray, np.ndarray]]) -> None:
    grey = [np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8) for rgb, _ in views]
    places, lost = odometry((View(i, grey[i], depth) for i, (_, depth) in enumerate(views)), PINHOLE)
    assert lost == []
    for i, each in places.items():
        true_m = place(i * STEP_M, TRAVEL_M) - place(0.0, TRAVEL_M)
        assert np.linalg.norm(each.translation_m - true_m) < 0.003
    blank = np.zeros_like(grey[0])
    _, lost = odometry([View(0, grey[0], views[0][1]), View(1, blank, views[1][1])], PINHOLE)
    assert lost == [1]


def test_velocity_alone_gives_the_way_in_the_body_frame() -> None:
    stamps = [round(i * 0.5e9) for i in range(4)]
    velocities = {stamps[0]: np.array([0.2, 0.0, 0.1]), stamps[3]: np.array([0.2, 0.0, 0.1])}
    way = dead_reckoned(velocities, stamps)
    np.testing.assert_allclose(way[stamps[-1]].translation_m, [0.15, -0.3, 0.0], atol=1e-12)  # forward, left
    assert dead_reckoned({}, stamps) == {}
