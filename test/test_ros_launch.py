"""The launch tests of test/ros, each run by launch_testing as `colcon test` does; skipped where ROS 2 is not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent / "ros"
TESTS = sorted(file.stem for file in FOLDER.glob("test_*.py"))
CONSUMERS = {
    "test_bond": "bondpy",
    "test_depth_image_proc": "depth_image_proc",
    "test_laserscan": "depthimage_to_laserscan",
    "test_moveit_octomap": "moveit_ros_perception",
    "test_nav2_lifecycle": "nav2_lifecycle_manager",
    "test_octomap": "octomap_server",
    "test_register": "depth_image_proc",
    "test_rviz": "rviz2",
}
"""Packages of others that single tests need."""


def missing(test: str) -> str:
    """Why a launch test cannot run here; empty where it can."""
    for module in ("rclpy", "launch_testing", "ament_index_python"):
        if importlib.util.find_spec(module) is None:
            return f"native ROS 2 is not here (no module {module}); source its setup file"
    from ament_index_python.packages import get_packages_with_prefixes

    for package in ("dfs_ros", *([CONSUMERS[test]] if test in CONSUMERS else [])):
        if package not in get_packages_with_prefixes():
            return f"ROS package {package} is not in a sourced workspace; `colcon build`, then source its setup file"
    return ""


def test_there_are_launch_tests() -> None:
    assert {"test_depth", "test_lifecycle", "test_namespaces", "test_refusals", "test_recorded"} <= set(TESTS)
    registered = (FOLDER.parents[1] / "CMakeLists.txt").read_text()
    for test in TESTS:
        assert test.removeprefix("test_") in registered, f"{test} is not in CMakeLists.txt"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("test", TESTS)
def test_launch(test: str) -> None:
    if problem := missing(test):
        pytest.skip(problem)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")]),
        "ROS_DOMAIN_ID": str(101 + TESTS.index(test)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    command = [sys.executable, "-m", "launch_testing.launch_test", str(FOLDER / f"{test}.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
