"""camera:=stack: a recorded focal stack on disk, of a plane whose depth is known; with QoS as a user may want it."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from listening import Listener, pixels
from rclpy.qos import QoSProfile, ReliabilityPolicy

from dfs_ros.io.stack_folder import save_stack
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera
from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
PLANE_M = 0.9
WIDTH, HEIGHT = 160, 120
CAMERA = Camera(focal_length_m=0.025, f_number=1.4, pixel_pitch_m=12.8e-3 / WIDTH)
_FOLDER = tempfile.TemporaryDirectory()


def generate_test_description() -> LaunchDescription:
    scene = plane_scene(PLANE_M, WIDTH, HEIGHT, seed=5, fx_px=CAMERA.focal_length_m / CAMERA.pixel_pitch_m)
    rendered = render_stack(scene.rgb, scene.depth_m, CAMERA, [2.2, 1.6, 1.1, 0.5], breathing=True)
    stack = save_stack(rendered, Path(_FOLDER.name) / "plane")
    arguments = {
        "camera": "stack",
        "stack": str(stack),
        "network": "none",
        "publish_tf": "false",
        "params_file": str(parameters_with_other_qos()),
    }
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"), launch_arguments=arguments.items())
    return LaunchDescription([depth, launch_testing.actions.ReadyToTest()])


def parameters_with_other_qos() -> Path:
    """The parameter file with its example of QoS, which is commented out there."""
    text = (SHARE / "config" / "parameters.yaml").read_text()
    settings, mark, example = text.partition("    # qos_overrides:")
    assert mark
    file = Path(_FOLDER.name) / "parameters.yaml"
    file.write_text(settings + (mark + example).replace("    # ", "    "))
    return file


class TestRecorded(unittest.TestCase):
    def test_the_plane_stands_where_it_stood(self) -> None:
        with Listener() as listener:
            listener.listen_to_results(QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT))
            result = listener.wait_for_results(2)[-1]
            (points,) = listener.node.get_publishers_info_by_topic("/depth/points")
            (depth,) = listener.node.get_publishers_info_by_topic("/depth/image")
            readers = listener.node.get_subscriptions_info_by_topic("/image")
            (image,) = (reader for reader in readers if reader.node_name == "dfs")
        self.assertEqual(points.qos_profile.reliability, ReliabilityPolicy.BEST_EFFORT)
        self.assertEqual(depth.qos_profile.reliability, ReliabilityPolicy.RELIABLE)
        self.assertEqual(image.qos_profile.reliability, ReliabilityPolicy.RELIABLE)

        depth_m = pixels(result["depth/image"])
        self.assertEqual(depth_m.shape, (HEIGHT, WIDTH))
        self.assertGreater(np.isfinite(depth_m).mean(), 0.5)
        self.assertLess(abs(np.nanmedian(depth_m) / PLANE_M - 1), 0.03)
        points = np.frombuffer(bytes(result["depth/points"].data), "<f4").reshape(HEIGHT, WIDTH, 8)
        np.testing.assert_array_equal(points[..., 2], depth_m)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
        _FOLDER.cleanup()
