"""examples/register.launch.py: our depth in the view of another camera, turned and shifted, pixel by pixel."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
from ament_index_python.packages import get_package_share_directory
from geometry_msgs.msg import TransformStamped
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from listening import Listener, pixels, stamp_ns, wait_until
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from dfs_ros.simulation.scenes import Scene, demo_scene
from launch import LaunchDescription

EXAMPLE = Path(get_package_share_directory("dfs_ros")) / "examples" / "register.launch.py"
FRAME = "wrist_optical_frame"
WIDTH, HEIGHT, FX_PX = 400, 300, 500.0
CX, CY = 210.0, 140.0
# The other camera: 6 cm to the right, 2 cm up and 5 cm back, turned by 8 degrees to the left.
TURN_RAD = np.radians(-8.0)
PLACE_M = np.array([0.06, -0.02, -0.05])
WITHIN = 0.03


def generate_test_description() -> LaunchDescription:
    arguments = {"other_camera_info": "/wrist/camera_info", "network": "none"}
    example = IncludeLaunchDescription(str(EXAMPLE), launch_arguments=arguments.items())
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, example, launch_testing.actions.ReadyToTest()])


class OtherCamera:
    """Publisher of the intrinsics of another camera, and of its place in tf."""

    def __init__(self, node: Any) -> None:
        self._node = node
        k = [FX_PX, 0.0, CX, 0.0, FX_PX, CY, 0.0, 0.0, 1.0]
        p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
        self._info = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model="plumb_bob", d=[0.0] * 5, k=k, p=p)
        self._info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        self._info.header.frame_id = FRAME
        self._infos = node.create_publisher(CameraInfo, "/wrist/camera_info", QoSProfile(depth=5))
        place = TransformStamped()
        place.header.frame_id, place.child_frame_id = "camera_optical_frame", FRAME
        place.transform.translation.x, place.transform.translation.y, place.transform.translation.z = PLACE_M.tolist()
        place.transform.rotation.y = float(np.sin(TURN_RAD / 2))
        place.transform.rotation.w = float(np.cos(TURN_RAD / 2))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf = node.create_publisher(TFMessage, "/tf_static", latched)
        self._tf.publish(TFMessage(transforms=[place]))
        node.create_timer(0.1, self._publish)

    def _publish(self) -> None:
        self._info.header.stamp = self._node.get_clock().now().to_msg()
        self._infos.publish(self._info)


def seen_by_the_other(depth_m: NDArray[Any], k: Any) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.bool_]]:
    """(H, W, 2) column and row of every pixel in the other image, (H, W) depth there in metres, and whether within."""
    v, u = np.mgrid[: depth_m.shape[0], : depth_m.shape[1]]
    points = np.stack([(u - k[2]) / k[0] * depth_m, (v - k[5]) / k[4] * depth_m, depth_m], axis=-1)
    cos, sin = np.cos(TURN_RAD), np.sin(TURN_RAD)
    turned = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    x, y, z = np.moveaxis((points - PLACE_M) @ turned, -1, 0)  # the transposed turn, as rows
    column, row = FX_PX * x / z + CX, FX_PX * y / z + CY
    within = np.isfinite(z) & (column >= 1) & (column < WIDTH - 2) & (row >= 1) & (row < HEIGHT - 2)
    place = np.rint(np.where(within[..., None], np.stack([column, row], axis=-1), 0)).astype(np.int64)
    return place, z, within


class TestRegister(unittest.TestCase):
    def test_every_plane_at_its_depth_in_the_other_view(self) -> None:
        with Listener() as listener:
            listener.listen_to_results()
            registered = listener.listen("depth_registered/image_rect", Image)
            infos = listener.listen("depth_registered/camera_info", CameraInfo)
            OtherCamera(listener.node)

            def pair() -> tuple[Any, Any] | None:
                own = {stamp_ns(result["depth/image"]): result for result in listener.results()}
                return next(((own[stamp_ns(r)], r) for r in list(registered) if stamp_ns(r) in own), None)

            wait_until(lambda: pair() and infos, "registered depth of the stamp of ours")
            both, info = pair(), infos[-1]
        assert both is not None
        result, image = both
        self.assertEqual((image.header.frame_id, image.width, image.height), (FRAME, WIDTH, HEIGHT))
        np.testing.assert_array_equal(info.k, [FX_PX, 0, CX, 0, FX_PX, CY, 0, 0, 1])
        found_m, own_m, k = pixels(image), pixels(result["depth/image"]), result["depth/camera_info"].k
        self.check_geometry(found_m, own_m, k)
        self.check_truth(found_m, own_m, demo_scene(own_m.shape[1], own_m.shape[0]), k)

    def check_geometry(self, found_m: NDArray[Any], own_m: NDArray[Any], k: Any) -> None:
        """Each of our pixels is found there, or one before it."""
        place, z_m, within = seen_by_the_other(own_m, k)
        there_m = found_m[place[..., 1], place[..., 0]][within]
        ratio = there_m / z_m[within]
        share, hidden = float(np.isfinite(there_m).mean()), float((ratio < 0.98).mean())
        print(f"{within.sum()} pixels: {100 * share:.2f} % have depth there, {100 * hidden:.2f} % are hidden there")
        self.assertGreater(within.sum(), 20000)
        self.assertGreater(share, 0.99)
        self.assertLess(hidden, 0.15)
        self.assertLess(abs(float(np.nanmedian(ratio)) - 1), 0.001)

    def check_truth(self, found_m: NDArray[Any], own_m: NDArray[Any], scene: Scene, k: Any) -> None:
        place, z_m, within = seen_by_the_other(scene.depth_m.astype(np.float64), k)
        for name in scene.plane_depth_m:
            mask = scene.mask(name, margin_px=6) & within
            error = float(np.nanmedian(found_m[place[mask, 1], place[mask, 0]] / z_m[mask])) - 1
            # Of several pixels that meet in one the nearest counts: about a standard deviation nearer than their mean.
            low, high = np.nanpercentile(own_m[mask], [16, 84])
            spread = (high - low) / 2 / scene.plane_depth_m[name]
            print(f"{name}: {mask.sum()} pixels, {100 * error:+.2f} %, ours spread by {100 * spread:.2f} %")
            self.assertGreater(mask.sum(), 200, name)
            self.assertLess(abs(error), WITHIN + spread, name)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
