"""camera:=rgbd: topics of colour and depth, as of a simulator, through the virtual lens to depth of this truth."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from listening import Listener, pixels, stamp_ns
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from dfs_ros.simulation.scenes import plane_scene
from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
PLANE_M = 0.9
WIDTH, HEIGHT, FX_PX = 160, 120, 320.0
FRAME = "gazebo/camera_optical"
_FOLDER = tempfile.TemporaryDirectory()


def generate_test_description() -> LaunchDescription:
    parameters = Path(_FOLDER.name) / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    stack:\n      max_span_s: 60.0\n")  # of a busy machine
    arguments = {
        "camera": "rgbd",
        "rgbd_color": "/gazebo/image",
        "rgbd_depth": "/gazebo/depth_image",
        "rgbd_camera_info": "/gazebo/camera_info",
        "network": "none",
        "publish_tf": "false",
        "params_file": str(parameters),
    }
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"), launch_arguments=arguments.items())
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, depth, launch_testing.actions.ReadyToTest()])


class Simulator:
    """Publisher of one plane as rclpy's own messages, ten times a second."""

    def __init__(self, node: Any) -> None:
        scene = plane_scene(PLANE_M, WIDTH, HEIGHT, seed=5, fx_px=FX_PX)
        self._node = node
        self._color = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=scene.rgb.tobytes())
        depth = scene.depth_m.astype("<f4")
        self._depth = Image(height=HEIGHT, width=WIDTH, encoding="32FC1", step=4 * WIDTH, data=depth.tobytes())
        k = [FX_PX, 0.0, (WIDTH - 1) / 2, 0.0, FX_PX, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0]
        p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
        self._info = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model="plumb_bob", d=[0.0] * 5, k=k, p=p)
        self._publishers = [
            (node.create_publisher(type(msg), f"/gazebo/{topic}", QoSProfile(depth=5)), msg)
            for topic, msg in (("camera_info", self._info), ("depth_image", self._depth), ("image", self._color))
        ]
        node.create_timer(0.1, self._send)

    def _send(self) -> None:
        stamp = self._node.get_clock().now().to_msg()
        for publisher, msg in self._publishers:
            msg.header.stamp, msg.header.frame_id = stamp, FRAME
            publisher.publish(msg)


class TestVirtualLens(unittest.TestCase):
    def test_depth_is_the_truth_of_its_stamp(self) -> None:
        with Listener() as listener:
            listener.listen_to_results()
            truths = listener.listen("true_depth/image", Image, QoSProfile(depth=200))
            Simulator(listener.node)
            result = listener.wait_for_results(2)[-1]
        depth = result["depth/image"]
        self.assertEqual(depth.header.frame_id, FRAME)
        (truth,) = (msg for msg in truths if stamp_ns(msg) == stamp_ns(depth))
        true_m, depth_m = pixels(truth), pixels(depth)
        np.testing.assert_allclose(true_m, PLANE_M, rtol=1e-6)
        self.assertEqual(depth_m.shape, true_m.shape)
        self.assertGreater(np.isfinite(depth_m).mean(), 0.5)
        self.assertLess(abs(np.nanmedian(depth_m / true_m) - 1), 0.03)
        self.assertAlmostEqual(result["depth/camera_info"].k[0], FX_PX, places=3)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
        _FOLDER.cleanup()
