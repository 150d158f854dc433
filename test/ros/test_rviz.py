"""RViz with the shipped configuration on a display of its own: every display draws what our topics say, by pixels."""

from __future__ import annotations

import re
import time
import unittest
from pathlib import Path
from typing import Any

import cv2
import launch_testing
import numpy as np
import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from display import XVFB, start_display
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from listening import Listener, pixels, points_of, wait_until
from numpy.typing import NDArray
from PIL import ImageGrab
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("dfs_ros"))
CONFIG = yaml.safe_load((SHARE / "rviz" / "depth.rviz").read_text())
DISPLAYS = {display["Name"]: display for display in CONFIG["Visualization Manager"]["Displays"]}
WINDOW = CONFIG["Window Geometry"]
FIELD_OF_VIEW_RAD = np.pi / 4
"""Vertical; OGRE's default, which RViz keeps."""
SMALLEST_PANEL_PX = 300
try:
    get_package_prefix("rviz2")
    MISSING = "" if XVFB else "needs Xvfb (package xvfb)"
except PackageNotFoundError:
    MISSING = "needs the package rviz2"
_SCREEN = None if MISSING else start_display(WINDOW["Width"], WINDOW["Height"])

Picture = NDArray[np.float32]


def generate_test_description() -> LaunchDescription:
    ready = launch_testing.actions.ReadyToTest()
    if _SCREEN is None:
        return LaunchDescription([ready])
    arguments = {"rviz": "true", "network": "none"}
    depth = IncludeLaunchDescription(str(SHARE / "launch" / "depth.launch.py"), launch_arguments=arguments.items())
    patience = SetLaunchConfiguration("sigterm_timeout", "60")  # a busy machine takes over 5 s to end a node
    return LaunchDescription([patience, *_SCREEN.environment(), depth, ready])


@unittest.skipIf(bool(MISSING), MISSING)
class TestRviz(unittest.TestCase):
    listener: Listener
    results: list[dict[str, Any]]
    frames: list[Any]
    screen: Picture

    @classmethod
    def setUpClass(cls) -> None:
        cls.listener = Listener()
        cls.listener.listen_to_results()
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        cls.frames = cls.listener.listen("/tf_static", TFMessage, latched)
        cls.listener.wait_for_results()
        wait_until(
            cls._drawn, "a picture of RViz with the all-in-focus image, and over a twentieth of the view covered"
        )
        cls.screen, cls.results = grab(), cls.listener.results()

    @classmethod
    def _drawn(cls) -> bool:
        time.sleep(1.0)
        sharp = pixels(cls.listener.results()[-1]["all_in_focus/image"]).astype(np.float32)
        screen = grab()
        if find(sharp, screen)[0] < 0.9:
            return False
        view = View(screen)
        return float((view.picture != view.background).any(axis=-1).mean()) > 0.05

    @classmethod
    def tearDownClass(cls) -> None:
        cls.listener.close()

    def test_rviz_subscribes_to_every_topic_of_its_configuration(self) -> None:
        topics = {name: display["Topic"]["Value"] for name, display in DISPLAYS.items() if "Topic" in display}
        self.assertEqual(set(topics.values()), {"/depth/points", "/depth/image", "/all_in_focus/image", "/depth/sigma"})
        self.assertEqual([name for name, display in DISPLAYS.items() if not display["Enabled"]], [])
        for name, topic in topics.items():
            nodes = {info.node_name for info in self.listener.node.get_subscriptions_info_by_topic(topic)}
            self.assertIn("rviz", nodes, f"{name}: {topic}")

    def test_image_panels_show_their_images(self) -> None:
        # The picture may be of a result before the last.
        images, found = max(
            ((images, {name: find(image, self.screen) for name, image in images.items()}) for images in self.images()),
            key=lambda pair: pair[1]["Standard deviation"][0],
        )
        for name, (likeness, (x, y, width, height)) in found.items():
            print(f"{name}: {width} x {height} pixels at {x}, {y}; correlation {likeness:.3f}")
            self.assertGreater(likeness, 0.9, name)
            self.assertGreaterEqual(width, SMALLEST_PANEL_PX, name)
            others = [likeness_at(images[other], self.screen, found[name][1]) for other in images if other != name]
            self.assertLess(max(others), likeness - 0.05, f"{name} shows what another panel should")

    def images(self) -> list[dict[str, Picture]]:
        """Image of each panel, for each of the last results before the picture was taken."""
        return [
            {
                "All in focus": pixels(result["all_in_focus/image"]).astype(np.float32),
                "Depth": self.as_grey("Depth", result["depth/image"]),
                "Standard deviation": self.as_grey("Standard deviation", result["depth/sigma"]),
            }
            for result in self.results[-2:]
        ]

    def as_grey(self, display: str, message: Any) -> Picture:
        """Image of floats as RViz draws it: from the least to the greatest value, and 0 where none is."""
        self.assertTrue(DISPLAYS[display]["Normalize Range"])
        values = pixels(message)
        least, greatest = np.nanmin(values), np.nanmax(values)
        grey = np.nan_to_num(255 * (values - least) / (greatest - least))
        return np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)

    def test_the_cloud_stands_where_it_is(self) -> None:
        def compared() -> bool:
            # A picture may be taken while RViz draws, or of another result.
            view, result = View(grab()), self.listener.results()[-1]
            forward = points_of(result["depth/points"]).reshape(-1, 3)[:, [2, 0, 1]] * [1, -1, -1]
            colours = pixels(result["all_in_focus/image"]).reshape(-1, 3)
            known = np.isfinite(forward).all(axis=-1)
            drawn = view.cloud(forward[known], colours[known], DISPLAYS["Cloud"]["Size (Pixels)"])
            likeness, elsewhere = view.likeness(drawn), view.likeness(np.roll(drawn, 25, axis=1))
            print(f"cloud: correlation {likeness:.3f}, {elsewhere:.3f} if moved to the right by 25 pixels")
            return likeness > 0.85 and elsewhere < likeness - 0.3

        wait_until(compared, "the cloud of depth/points at its place in RViz's view")

    def test_the_grid_lies_on_the_ground(self) -> None:
        view, grid = View(self.screen), DISPLAYS["Grid"]
        cells, size = grid["Plane Cell Count"], grid["Cell Size"]
        lines = (np.arange(cells + 1) - cells / 2) * size
        along = np.linspace(lines[0], lines[-1], 400)
        middles = lines[:-1] + size / 2
        on = view.on_ground(lines, along)
        between = view.on_ground(middles, middles)
        bright, dark = (float((view.brightest(p) > view.background.max() + 10).mean()) for p in (on, between))
        print(f"grid: {100 * bright:.0f} % of its lines are lit, {100 * dark:.0f} % of the middles of its cells")
        self.assertGreater(bright, 0.9)
        self.assertLess(dark, bright - 0.4)

    def test_frames_are_drawn_and_their_names_apart(self) -> None:
        hidden = re.compile(DISPLAYS["Frames"]["Filter (blacklist)"])
        wait_until(lambda: self.frames, "/tf_static")
        transforms = [transform for message in self.frames for transform in message.transforms]
        names = {t.header.frame_id for t in transforms} | {t.child_frame_id for t in transforms}
        self.assertEqual(names, {"camera_link", "camera_optical_frame"})  # of one origin
        self.assertEqual([name for name in names if not hidden.search(name)], ["camera_link"])
        view = View(self.screen)
        (x, y), _ = view.project(np.zeros((1, 3)))
        around = view.picture[int(y[0]) - 60 : int(y[0]) + 40, int(x[0]) - 80 : int(x[0]) + 80]
        red, green, blue = np.moveaxis(around, -1, 0)
        counts = {
            "left axis, green": (green > 150) & (red < 60) & (blue < 60),
            "upward axis, blue": (blue > 150) & (red < 60) & (green < 60),
            "name, white": around.min(axis=-1) > 200,
        }
        for name, mask in counts.items():
            print(f"{name}: {mask.sum()} pixels")
            self.assertGreater(mask.sum(), 40, name)


def grab() -> Picture:
    """The screen, float32 (H, W, 3)."""
    assert _SCREEN is not None
    return np.asarray(ImageGrab.grab(xdisplay=_SCREEN.name), np.float32)[..., :3]


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def likeness_at(image: Picture, screen: Picture, place: tuple[int, int, int, int]) -> float:
    """Correlation of an image with a rectangle (x, y, width, height) of the screen."""
    x, y, width, height = place
    sized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return correlation(sized, screen[y : y + height, x : x + width])


def find(image: Picture, screen: Picture) -> tuple[float, tuple[int, int, int, int]]:
    """Most similar rectangle of the screen, of any size: its correlation, and x, y, width, height.

    Sought at a quarter of the size, then around there.
    """
    best = (-1.0, (0, 0, 0, 0))
    coarse = cv2.resize(screen, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    for width in range(240, 480, 4):
        height = round(width * image.shape[0] / image.shape[1])
        small = cv2.resize(image, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
        _, likeness, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(coarse, small, cv2.TM_CCOEFF_NORMED))
        if likeness > best[0]:
            best = (likeness, (4 * x, 4 * y, width, height))
    _, (near_x, near_y, near_width, _) = best
    best = (-1.0, (0, 0, 0, 0))
    for width in range(near_width - 5, near_width + 6):
        height = round(width * image.shape[0] / image.shape[1])
        left, top = max(near_x - 8, 0), max(near_y - 8, 0)
        around = screen[top : top + height + 16, left : left + width + 16]
        sized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        _, likeness, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(around, sized, cv2.TM_CCOEFF_NORMED))
        if likeness > best[0]:
            best = (likeness, (left + x, top + y, width, height))
    return best


class View:
    """The 3D panel of a picture of RViz, and what its orbiting camera sees."""

    def __init__(self, screen: Picture) -> None:
        manager = CONFIG["Visualization Manager"]
        self.background = np.array([int(v) for v in manager["Global Options"]["Background Color"].split(";")])
        rows, columns = np.nonzero((screen == self.background).all(axis=-1))
        # The panel is the one whose rows are mostly background; images may hold the colour here and there.
        top, bottom = _run(np.bincount(rows, minlength=screen.shape[0]))
        left, right = _run(np.bincount(columns, minlength=screen.shape[1]))
        self.picture = screen[top:bottom, left:right]
        orbit = manager["Views"]["Current"]
        self._focus = np.array([orbit["Focal Point"][axis] for axis in "XYZ"])
        yaw, pitch = orbit["Yaw"], orbit["Pitch"]
        towards_eye = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        self._eye = self._focus + orbit["Distance"] * towards_eye
        right_of = np.cross(-towards_eye, [0, 0, 1])
        right_of /= np.linalg.norm(right_of)
        self._axes = np.stack([right_of, np.cross(-towards_eye, right_of), -towards_eye])  # right, down, forward

    def project(self, points_m: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pixels (2, N) and distance along the axis (N,) of points (N, 3) in the fixed frame."""
        height, width = self.picture.shape[:2]
        x, y, z = self._axes @ (points_m - self._eye).T
        focal_px = height / 2 / np.tan(FIELD_OF_VIEW_RAD / 2)
        return np.stack([focal_px * x / z + width / 2, focal_px * y / z + height / 2]), z

    def cloud(self, points_m: NDArray[Any], colours: NDArray[Any], size_px: int) -> Picture:
        """The panel with nothing but a cloud of squares of `size_px`."""
        pixel, distance = self.project(points_m)
        picture = np.broadcast_to(self.background, self.picture.shape).astype(np.float32)
        for i in np.argsort(-distance):
            x, y = np.rint(pixel[:, i] - size_px / 2).astype(int)
            if x >= 0 and y >= 0:
                picture[y : y + size_px, x : x + size_px] = colours[i]
        return picture

    def likeness(self, drawn: Picture) -> float:
        """Correlation of the panel with a drawn one, where that is not background.

        Blurred by a pixel: which pixels a point of some size covers is the graphics driver's affair.
        """
        covered = (drawn != self.background).any(axis=-1)
        first, second = (cv2.GaussianBlur(picture, (0, 0), 1.0)[covered] for picture in (drawn, self.picture))
        return correlation(first, second)

    def on_ground(self, lines: NDArray[Any], along: NDArray[Any]) -> NDArray[np.int64]:
        """Pixels (N, 2) in the panel of points of the ground, on lines both ways."""
        a, b = (plane.ravel() for plane in np.meshgrid(lines, along))
        points = np.concatenate([np.stack([a, b], axis=-1), np.stack([b, a], axis=-1)])
        points_m = np.column_stack([points, np.zeros(len(points))])
        pixel, distance = self.project(points_m)
        height, width = self.picture.shape[:2]
        inside = (distance > 0.1) & (pixel >= 2).all(axis=0) & (pixel[0] < width - 2) & (pixel[1] < height - 2)
        return np.unique(np.rint(pixel[:, inside].T).astype(np.int64), axis=0)

    def brightest(self, place: NDArray[np.int64]) -> NDArray[Any]:
        """Greatest value within a pixel around each place."""
        around = cv2.dilate(self.picture, np.ones((3, 3), np.uint8))
        return around[place[:, 1], place[:, 0]].max(axis=-1)


def _run(counts: NDArray[np.int64]) -> tuple[int, int]:
    """First and last + 1 of the rows or columns with over a tenth of the most pixels of the background."""
    many = np.flatnonzero(counts > 0.1 * counts.max())
    return int(many[0]), int(many[-1]) + 1


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_our_processes_end_well(self, proc_info: Any) -> None:
        for process in proc_info.process_names():
            if not process.startswith("rviz2"):  # it may crash as it closes, drawn by the CPU
                launch_testing.asserts.assertExitCodes(proc_info, process=process)

    def test_rviz_had_nothing_to_complain_of(self, proc_output: Any) -> None:
        for process in proc_output.process_names():
            if process.startswith("rviz2"):
                said = "".join(line.text.decode() for line in proc_output[process])
                self.assertNotRegex(said, r"\[(ERROR|WARN|FATAL)\]")
