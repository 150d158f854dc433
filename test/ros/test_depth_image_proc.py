"""depth_image_proc, fed as in examples/depth_image_proc.launch.py, makes the cloud that the depth node makes itself."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from listening import Listener, stamp_ns, wait_until
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from launch import LaunchDescription

EXAMPLE = Path(get_package_share_directory("dfs_ros")) / "examples" / "depth_image_proc.launch.py"


def generate_test_description() -> LaunchDescription:
    return LaunchDescription([IncludeLaunchDescription(str(EXAMPLE)), launch_testing.actions.ReadyToTest()])


def points_of(cloud: Any) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(H, W, 3) points in metres and (H, W, 3) blue, green, red, by the cloud's own fields."""
    offset = {field.name: field.offset for field in cloud.fields}
    data = np.frombuffer(bytes(cloud.data), np.uint8).reshape(cloud.height, cloud.width, cloud.point_step)
    xyz = [data[..., offset[axis] : offset[axis] + 4].copy().view("<f4")[..., 0] for axis in "xyz"]
    return np.stack(xyz, axis=-1), data[..., offset["rgb"] : offset["rgb"] + 3]


class TestDepthImageProc(unittest.TestCase):
    def test_same_cloud(self) -> None:
        with Listener() as listener:
            listener.listen_to_results()
            theirs = listener.listen("cloud/points", PointCloud2)

            def pair() -> tuple[Any, Any] | None:
                own = {stamp_ns(cloud): cloud for cloud in listener.received["depth/points"]}
                return next(((own[stamp_ns(c)], c) for c in reversed(theirs) if stamp_ns(c) in own), None)

            wait_until(pair, "clouds of one stamp from dfs_ros and from depth_image_proc")
            found = pair()
        assert found is not None
        own, other = found
        self.assertEqual(own.header, other.header)
        (own_m, own_bgr), (other_m, other_bgr) = points_of(own), points_of(other)
        self.assertEqual(own_m.shape, other_m.shape)
        known = np.isfinite(own_m).all(axis=-1)
        np.testing.assert_array_equal(known, np.isfinite(other_m).all(axis=-1))
        self.assertGreater(known.mean(), 0.5)
        difference_m = np.abs(own_m - other_m)[known].max()
        print(f"largest difference of {known.sum()} points: {1e3 * difference_m:.6f} mm")
        self.assertLess(difference_m, 1e-3)
        np.testing.assert_array_equal(own_bgr[known], other_bgr[known])


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
