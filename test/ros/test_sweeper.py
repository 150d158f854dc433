"""sweeper:=camera_ros: the lens of another driver's camera is swept by its parameters, and its depth is right.

The driver has the parameters, topics and messages of camera_ros: AfMode and LensPosition, ~/image_raw, ~/camera_info,
and libcamera's metadata on /diagnostics. Its lens lags an image behind the report.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from launch.actions import IncludeLaunchDescription
from listening import Listener, pixels, wait_until
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera
from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
PLANE_M, RATE_HZ = 0.9, 20.0
WIDTH, HEIGHT = 160, 120
CAMERA = Camera(focal_length_m=0.025, f_number=1.4, pixel_pitch_m=12.8e-3 / WIDTH)
FX_PX = CAMERA.focal_length_m / CAMERA.pixel_pitch_m
POSITIONS = [2.2, 1.6, 1.1, 0.5]
_FOLDER = tempfile.TemporaryDirectory()


def generate_test_description() -> LaunchDescription:
    settings = {
        "sweeper": {"focus_diopters": ",".join(map(str, POSITIONS)), "settle_s": 0.15, "dwell_s": 0.15},
        "lens": {"focal_length_m": CAMERA.focal_length_m, "f_number": CAMERA.f_number},
    }
    file = Path(_FOLDER.name) / "parameters.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": settings}}))
    arguments = {
        "camera": "none",
        "image": "/camera/image_raw",
        "camera_info": "/camera/camera_info",
        "sweeper": "camera_ros",
        "network": "none",
        "publish_tf": "false",
        "params_file": str(file),
    }
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"), launch_arguments=arguments.items())
    return LaunchDescription([depth, launch_testing.actions.ReadyToTest()])


class Driver:
    """Node `camera`, in a context and a thread of its own."""

    def __init__(self) -> None:
        scene = plane_scene(PLANE_M, WIDTH, HEIGHT, seed=5, fx_px=FX_PX)
        self._stack = render_stack(scene.rgb, scene.depth_m, CAMERA, POSITIONS, breathing=True)
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = Node("camera", context=self._context)
        modes = [IntegerRange(from_value=0, to_value=2, step=1)]
        self.node.declare_parameter("AfMode", 2, ParameterDescriptor(integer_range=modes, dynamic_typing=True))
        lens = [FloatingPointRange(from_value=0.0, to_value=12.0)]
        self.node.declare_parameter("LensPosition", 1.0, ParameterDescriptor(floating_point_range=lens))
        self._image = self.node.create_publisher(Image, "~/image_raw", 1)
        self._info = self.node.create_publisher(CameraInfo, "~/camera_info", 1)
        self._diagnostics = self.node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self._lens = 1.0
        self.node.create_timer(1 / RATE_HZ, self._send)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _send(self) -> None:
        image = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
        image.header.stamp = self.node.get_clock().now().to_msg()
        image.header.frame_id = "camera"
        reported = float(self.node.get_parameter("LensPosition").value)
        shown = int(np.abs(self._stack.focus_diopters - self._lens).argmin())
        self._lens = reported
        image.data = self._stack.images[shown].tobytes()
        info = CameraInfo(header=image.header, height=HEIGHT, width=WIDTH, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k = [FX_PX, 0.0, (WIDTH - 1) / 2, 0.0, FX_PX, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0]
        values = {"AfState": "0", "ExposureTime": "9984", "LensPosition": f"{reported:.6f}"}
        status = DiagnosticStatus(hardware_id="/base/axi/i2c@80000/imx708@1a")
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        self._image.publish(image)
        self._info.publish(info)
        self._diagnostics.publish(DiagnosticArray(header=image.header, status=[status]))

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.try_shutdown()
        self._thread.join(60)


class TestSweeper(unittest.TestCase):
    def test_the_plane_stands_where_it_stood(self) -> None:
        with Driver() as driver, Listener() as listener:
            listener.listen_to_results()
            results = listener.wait_for_results(3)
            wait_until(lambda: driver.node.get_parameter("AfMode").value == 0, "autofocus off")
        depth_m = pixels(results[-1]["depth/image"])
        self.assertGreater(np.isfinite(depth_m).mean(), 0.5)
        self.assertLess(abs(np.nanmedian(depth_m) / PLANE_M - 1), 0.03, f"{np.nanmedian(depth_m)} m")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
