"""`ros2 launch dfs_ros depth.launch.py` as it is: the simulated camera, and depth that is right, as ROS wants it."""

from __future__ import annotations

import shutil
import struct
import tempfile
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import numpy as np
import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from listening import TOPICS, Listener, pixels, stamp_ns, wait_until
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import Image, PointCloud2, PointField
from tf2_msgs.msg import TFMessage

from dfs_ros.simulation.scenes import demo_scene
from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
WIDTH, HEIGHT = 320, 240
FRAME = "camera_optical_frame"
# What RViz offers for images and clouds, and what it had as its default in one version or the other.
RVIZ = {
    name: QoSProfile(
        depth=5,
        reliability=reliability,
        durability=DurabilityPolicy.VOLATILE,
        liveliness=LivelinessPolicy.AUTOMATIC,
    )
    for name, reliability in (("reliable", ReliabilityPolicy.RELIABLE), ("best effort", ReliabilityPolicy.BEST_EFFORT))
}


def generate_test_description() -> LaunchDescription:
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"))
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, depth, launch_testing.actions.ReadyToTest()])


class TestDepth(unittest.TestCase):
    listener: Listener
    result: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.listener = Listener()
        cls.listener.listen_to_results()
        cls.result = cls.listener.wait_for_results(2)[-1]

    @classmethod
    def tearDownClass(cls) -> None:
        cls.listener.close()

    def test_known_planes_stand_at_their_depth(self) -> None:
        depth = self.result["depth/image"]
        self.assertEqual((depth.width, depth.height, depth.encoding), (WIDTH, HEIGHT, "32FC1"))
        depth_m = pixels(depth)
        scene = demo_scene(WIDTH, HEIGHT)
        self.assertEqual(set(scene.plane_depth_m), {"wall", "letter", "chart", "poster", "screen"})
        for name, true_m in scene.plane_depth_m.items():
            seen = depth_m[scene.mask(name, margin_px=6)]
            self.assertGreater(np.isfinite(seen).mean(), 0.7, name)
            self.assertLess(
                abs(np.nanmedian(seen) / true_m - 1), 0.03, f"{name}: {np.nanmedian(seen)} m, true {true_m}"
            )

    def test_sigma_is_known_where_depth_is(self) -> None:
        depth_m, sigma = pixels(self.result["depth/image"]), self.result["depth/sigma"]
        self.assertEqual(sigma.encoding, "32FC1")
        np.testing.assert_array_equal(np.isnan(pixels(sigma)), np.isnan(depth_m))
        self.assertGreater(np.nanmin(pixels(sigma)), 0)

    def test_one_stamp_and_frame_which_are_those_of_an_image(self) -> None:
        images = {stamp_ns(image): image.header.frame_id for image in self.listener.received["image"]}
        for result in self.listener.results():
            stamps = {stamp_ns(message) for message in result.values()}
            self.assertEqual(len(stamps), 1)
            self.assertEqual({message.header.frame_id for message in result.values()}, {FRAME})
        stamp = stamp_ns(self.listener.results()[-1]["depth/image"])
        self.assertEqual(images.get(stamp), FRAME)

    def test_camera_info_is_the_geometry_of_the_depth(self) -> None:
        info, other = self.result["depth/camera_info"], self.result["all_in_focus/camera_info"]
        self.assertEqual((info.width, info.height), (WIDTH, HEIGHT))
        np.testing.assert_array_equal(info.k, other.k)
        np.testing.assert_array_equal(info.p, other.p)
        fx, cx, fy, cy = info.k[0], info.k[2], info.k[4], info.k[5]
        np.testing.assert_array_equal(info.k, [fx, 0, cx, 0, fy, cy, 0, 0, 1])
        np.testing.assert_array_equal(info.p, [fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0])
        np.testing.assert_array_equal(info.r, np.eye(3).reshape(-1))
        # 25 mm before 12.8 mm of sensor is 625 px at 320; focused nearer, the lens images a few per cent larger.
        self.assertGreater(fx, 620)
        self.assertLess(fx, 665)
        self.assertAlmostEqual(fx, fy, delta=1e-6 * fx)
        self.assertLess(abs(cx - (WIDTH - 1) / 2), 0.51)
        self.assertLess(abs(cy - (HEIGHT - 1) / 2), 0.51)

    def test_points_byte_by_byte(self) -> None:
        cloud, depth_m, sharp = (self.result[t] for t in ("depth/points", "depth/image", "all_in_focus/image"))
        depth_m, colours = pixels(depth_m), pixels(sharp)
        self.assertEqual((cloud.width, cloud.height), (WIDTH, HEIGHT))
        self.assertEqual((cloud.point_step, cloud.row_step), (32, 32 * WIDTH))
        self.assertEqual((cloud.is_bigendian, cloud.is_dense), (False, False))
        fields = [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields]
        float32 = PointField.FLOAT32
        self.assertEqual(
            fields, [("x", 0, float32, 1), ("y", 4, float32, 1), ("z", 8, float32, 1), ("rgb", 16, float32, 1)]
        )
        data = bytes(cloud.data)
        self.assertEqual(len(data), 32 * WIDTH * HEIGHT)
        self.assertEqual(sharp.encoding, "rgb8")

        fx, cx, fy, cy = (self.result["depth/camera_info"].k[i] for i in (0, 2, 4, 5))
        known = 0
        for v in range(0, HEIGHT, 7):
            for u in range(0, WIDTH, 5):
                point = data[(v * WIDTH + u) * 32 :][:32]
                x, y, z = struct.unpack_from("<3f", point)
                red, green, blue = (int(c) for c in colours[v, u])
                self.assertEqual(point[12:16], bytes(4))
                self.assertEqual(point[16:20], bytes([blue, green, red, 0]))
                self.assertEqual(point[20:], bytes(12))
                if np.isnan(depth_m[v, u]):
                    self.assertTrue(np.isnan([x, y, z]).all())
                    continue
                known += 1
                self.assertEqual(z, depth_m[v, u])
                self.assertAlmostEqual(x, (u - cx) / fx * z, delta=1e-5 * z)
                self.assertAlmostEqual(y, (v - cy) / fy * z, delta=1e-5 * z)
        self.assertGreater(known, 500)

    def test_rviz_shows_it_with_either_of_its_profiles(self) -> None:
        for name, profile in RVIZ.items():
            for topic in TOPICS:
                for publisher in self.listener.node.get_publishers_info_by_topic(f"/{topic}"):
                    compatibility, reason = qos_check_compatible(publisher.qos_profile, profile)
                    self.assertEqual(compatibility, QoSCompatibility.OK, f"{topic}, {name}: {reason}")
                    self.assertEqual(publisher.qos_profile.reliability, ReliabilityPolicy.RELIABLE)
            images = self.listener.listen("depth/image", Image, profile, key=f"image {name}")
            clouds = self.listener.listen("depth/points", PointCloud2, profile, key=f"points {name}")
            wait_until(lambda i=images, c=clouds: i and c, f"image and points for RViz, {name}")

    def test_who_comes_later_gets_depth_too(self) -> None:
        with Listener() as late:
            late.listen_to_results()
            result = late.wait_for_results()[0]
            self.assertGreater(stamp_ns(result["depth/image"]), stamp_ns(self.result["depth/image"]))

    def test_transform_to_the_optical_frame(self) -> None:
        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        messages = self.listener.listen("/tf_static", TFMessage, qos)
        wait_until(lambda: messages, "/tf_static")
        (transform,) = messages[0].transforms
        self.assertEqual((transform.header.frame_id, transform.child_frame_id), ("camera_link", FRAME))
        q, t = transform.transform.rotation, transform.transform.translation
        self.assertEqual((t.x, t.y, t.z), (0, 0, 0))
        # Where the optical axes point in the body's frame: z forward (x), x right (-y), y down (-z).
        axes = rotation_matrix(q.x, q.y, q.z, q.w)
        np.testing.assert_allclose(axes, np.transpose([(0, -1, 0), (0, 0, -1), (1, 0, 0)]), atol=1e-9)

    def test_diagnostics(self) -> None:
        def statuses() -> dict[str, Any]:
            return {s.name: s for array in self.listener.received["/diagnostics"] for s in array.status}

        wait_until(lambda: {"dfs: depth", "dfs_camera: camera"} <= set(statuses()), "/diagnostics of both nodes")
        depth = statuses()["dfs: depth"]
        self.assertEqual(depth.message, "computing depth")
        values = {pair.key: pair.value for pair in depth.values}
        self.assertIn("network", values)

    def test_capture_writes_the_newest_stack(self) -> None:
        with tempfile.TemporaryDirectory() as folder:  # the folder is that of the start
            self.assertFalse(self.listener.set_parameter("/dfs", "node.capture_folder", folder).successful)
        answer = self.listener.capture("/dfs")
        self.assertTrue(answer.success, answer.message)
        captured = Path(answer.message)
        self.addCleanup(shutil.rmtree, captured)
        stack = yaml.safe_load((captured / "stack.yaml").read_text())
        self.assertEqual(stack["format"], "focal-stack/1")
        self.assertGreaterEqual(len(list(captured.glob("*.png"))), 3)

    def test_parameters_say_what_they_are(self) -> None:
        descriptor = self.listener.describe_parameter("/dfs", "hypotheses.max_depth_m")
        self.assertIn("Farthest depth to search", descriptor.description)
        (limits,) = descriptor.floating_point_range
        self.assertEqual((limits.from_value, limits.to_value), (0.0, 10000.0))
        self.assertFalse(descriptor.read_only)
        (limits,) = self.listener.describe_parameter("/dfs", "hypotheses.count").integer_range
        self.assertEqual((limits.from_value, limits.to_value), (2, 512))

    def test_the_parameter_file_has_every_parameter_of_the_node(self) -> None:
        sections = yaml.safe_load((SHARE / "config" / "parameters.yaml").read_text())["/**"]["ros__parameters"]
        written = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
        declared = {name for name in self.listener.parameter_names("/dfs") if name.partition(".")[0] in sections}
        self.assertEqual(declared, set(written))
        changed = ("processing.device", "node.capture_folder", "node.depth_encoding")  # by these tests
        names = [name for name in written if name not in changed]
        self.assertEqual(
            dict(zip(names, self.listener.get_parameters("/dfs", *names), strict=True)), {n: written[n] for n in names}
        )

    def test_nonsense_is_refused_and_changes_nothing(self) -> None:
        before = self.listener.get_parameters("/dfs", "hypotheses.count", "hypotheses.max_depth_m", "stack.mode")
        for name, value in (
            ("hypotheses.count", 0),
            ("hypotheses.count", "many"),
            ("hypotheses.max_depth_m", -1.0),
            ("hypotheses.max_depth_m", float("nan")),
            ("hypotheses.min_depth_m", 5000.0),  # over its limit
            ("node.depth_encoding", "64FC1"),
            ("stack.mode", "sliding"),  # not while the node runs
            ("hypotheses.cuont", 32),
        ):
            result = self.listener.set_parameter("/dfs", name, value)
            self.assertFalse(result.successful, f"{name} := {value}")
            self.assertTrue(result.reason, f"{name} := {value}")
        after = self.listener.get_parameters("/dfs", "hypotheses.count", "hypotheses.max_depth_m", "stack.mode")
        self.assertEqual(after, before)

    def test_depth_in_millimetres_on_demand(self) -> None:
        depth_m = pixels(self.result["depth/image"])
        try:
            self.assertTrue(self.listener.set_parameter("/dfs", "node.depth_encoding", "16UC1").successful)
            messages = self.listener.received["depth/image"]
            wait_until(lambda: messages[-1].encoding == "16UC1", "depth in millimetres")
            depth_mm = pixels(messages[-1])
            wall = demo_scene(WIDTH, HEIGHT).mask("wall", margin_px=6) & np.isfinite(depth_m) & (depth_mm > 0)
            self.assertLess(abs(np.median(depth_mm[wall]) / (1000 * np.median(depth_m[wall])) - 1), 0.01)
            self.assertGreater((depth_mm == 0).sum(), 0)
        finally:
            self.assertTrue(self.listener.set_parameter("/dfs", "node.depth_encoding", "32FC1").successful)


def rotation_matrix(x: float, y: float, z: float, w: float) -> np.ndarray:
    """(3, 3) of a unit quaternion."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_process_ends_well(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
