"""depth_image_proc, fed as in examples/depth_image_proc.launch.py, makes the cloud that the depth node makes itself."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from launch_ros.actions import Node
from listening import Listener, points_of, stamp_ns, wait_until
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2

from launch import LaunchDescription

EXAMPLE = Path(get_package_share_directory("dfs_ros")) / "examples" / "depth_image_proc.launch.py"


def generate_test_description() -> LaunchDescription:
    plain = Node(
        package="depth_image_proc",
        executable="point_cloud_xyz_node",
        remappings=[("image_rect", "depth/image"), ("points", "plain/points")],
    )
    example = IncludeLaunchDescription(str(EXAMPLE))
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, example, plain, launch_testing.actions.ReadyToTest()])


def colours_of(cloud: Any) -> NDArray[np.uint8]:
    """(H, W, 3), blue, green, red."""
    offset = {field.name: field.offset for field in cloud.fields}["rgb"]
    data = np.frombuffer(bytes(cloud.data), np.uint8).reshape(cloud.height, cloud.width, cloud.point_step)
    return data[..., offset : offset + 3]


class TestDepthImageProc(unittest.TestCase):
    listener: Listener

    @classmethod
    def setUpClass(cls) -> None:
        cls.listener = Listener()
        cls.listener.listen_to_results()
        for topic in ("cloud/points", "plain/points"):
            cls.listener.listen(topic, PointCloud2, qos_profile_sensor_data)  # they send best effort

    @classmethod
    def tearDownClass(cls) -> None:
        cls.listener.close()

    def pair(self, topic: str) -> tuple[Any, Any]:
        """Our cloud and theirs, of one stamp."""

        def found() -> tuple[Any, Any] | None:
            own = {stamp_ns(cloud): cloud for cloud in list(self.listener.received["depth/points"])}
            theirs = list(self.listener.received[topic])
            return next(((own[stamp_ns(cloud)], cloud) for cloud in theirs if stamp_ns(cloud) in own), None)

        wait_until(found, f"clouds of one stamp on depth/points and {topic}")
        both = found()
        assert both is not None
        return both

    def check_same_points(self, own: Any, other: Any) -> None:
        self.assertEqual(own.header, other.header)
        own_m, other_m = points_of(own), points_of(other)
        self.assertEqual(own_m.shape, other_m.shape)
        known = np.isfinite(own_m).all(axis=-1)
        np.testing.assert_array_equal(known, np.isfinite(other_m).all(axis=-1))
        self.assertGreater(known.mean(), 0.5)
        difference_m = np.abs(own_m - other_m)[known].max()
        print(f"largest difference of {known.sum()} points: {1e3 * difference_m:.6f} mm")
        self.assertLess(difference_m, 1e-3)

    def test_coloured_points(self) -> None:
        own, other = self.pair("cloud/points")
        self.check_same_points(own, other)
        known = np.isfinite(points_of(own)).all(axis=-1)
        np.testing.assert_array_equal(colours_of(own)[known], colours_of(other)[known])

    def test_plain_points(self) -> None:
        self.check_same_points(*self.pair("plain/points"))


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
