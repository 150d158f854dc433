"""camera:=none: a driver that something else starts, on topics of its own, all of it on the time of /clock."""

from __future__ import annotations

import threading
import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch_ros.actions import Node
from listening import Listener, pixels, stamp_ns
from rosgraph_msgs.msg import Clock

from dfs_ros.simulation.scenes import demo_scene
from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
WIDTH, HEIGHT = 320, 240
START_NS = 1000 * 10**9
"""The simulated time begins long ago, so that no stamp of the wall clock can pass for one of it."""
SPEED = 0.5


def generate_test_description() -> LaunchDescription:
    driver = Node(
        package="dfs_ros",
        executable="sweep_camera",
        name="driver",
        namespace="cam",
        parameters=[{"use_sim_time": True, "camera.width": WIDTH, "camera.height": HEIGHT}],
    )
    arguments = {
        "camera": "none",
        "image": "/cam/image",
        "camera_info": "/cam/camera_info",
        "focus": "/cam/focus",
        "namespace": "robot",
        "network": "none",
        "use_sim_time": "true",
        "publish_tf": "false",
    }
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"), launch_arguments=arguments.items())
    return LaunchDescription([driver, depth, launch_testing.actions.ReadyToTest()])


class SimulatedClock:
    """Publishes /clock a hundred times a second, at half the speed of the true time."""

    def __init__(self, node: Any) -> None:
        self.now_ns = START_NS
        self._publisher = node.create_publisher(Clock, "/clock", 10)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SimulatedClock:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(0.01):
            self.now_ns = START_NS + round(SPEED * (time.monotonic() - began) * 1e9)
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(self.now_ns, 10**9)
            self._publisher.publish(clock)


class TestOtherDriver(unittest.TestCase):
    def test_depth_on_simulated_time(self) -> None:
        with Listener("/robot") as listener, SimulatedClock(listener.node) as clock:
            listener.listen_to_results()
            results = listener.wait_for_results(3)
            now_ns = clock.now_ns
        stamps = [stamp_ns(result["depth/image"]) for result in results]
        self.assertTrue(all(START_NS <= stamp <= now_ns for stamp in stamps), f"{stamps}, now {now_ns}")
        depth_m = pixels(results[-1]["depth/image"])
        scene = demo_scene(WIDTH, HEIGHT)
        for name in ("wall", "poster", "chart"):
            found_m = np.nanmedian(depth_m[scene.mask(name, margin_px=4)])
            self.assertLess(abs(found_m / scene.plane_depth_m[name] - 1), 0.03, f"{name}: {found_m} m")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
