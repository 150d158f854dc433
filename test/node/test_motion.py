"""Poses of the depth node from tf and a gyroscope, against the true motion; waiting, and what is missing, by cause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from motion_rig import FRAME, IMU_TURN, SPEED_M_S, TURN_RAD_S, Robot, camera_between, robot
from node_rig import MS, OK, START_NS, WARN, Rig, make_rig, plane  # noqa: F401

from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.stack_folder import load_stack
from dfs_ros.messages.convert import TRIGGER, message
from dfs_ros.messages.motion import ODOMETRY
from dfs_ros.node.motion import Motion, Poses
from dfs_ros.node.outputs import Outputs
from dfs_ros.transforms.rigid import Transform, rotation_of, vector_of
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import Camera, DepthResult

PERIOD_S = 1 / 30
STAMPS = [START_NS + round(i * PERIOD_S * 1e9) for i in range(5)]
END_S = 4 * PERIOD_S


class Asked:
    """The poses of one stack of five images, from a robot on the bus."""

    def __init__(self, **settings: Any) -> None:
        self.bus = LocalBus(start_ns=START_NS)
        self.transport = LocalTransport("dfs", self.bus, config=Config.from_dict({"motion": settings}))
        self.motion = Motion(self.transport)
        self.motion.subscribe()
        self.robot = Robot(LocalTransport("robot", self.bus), START_NS)
        self.delivered: list[Poses] = []

    def drive(self, until_s: float, rate_hz: float = 50.0, since_s: float = -0.1, **options: Any) -> None:
        for i in range(round((until_s - since_s) * rate_hz) + 1):
            self.robot.send_tf(since_s + i / rate_hz, **options)
        self.spin()

    def spin(self) -> None:
        while self.transport.spin_once(0):
            pass

    def ask(self, stamps: list[int] = STAMPS, frame_id: str = FRAME) -> None:
        self.motion.ask(stamps, stamps[2], frame_id, self.delivered.append)

    def wait(self, seconds: float) -> None:
        self.bus.advance_to(self.bus.now_ns() + round(seconds * 1e9))
        self.spin()

    def state(self) -> tuple[str, str, dict[str, Any]]:
        level, text, values = self.motion._diagnostic()
        return level, text, dict(values)


def check(poses: Poses, sigma: bool = True) -> None:
    """Five poses, of the true motion to the camera of the third image."""
    assert set(poses) == set(STAMPS)
    for i, stamp in enumerate(STAMPS):
        truth, pose = camera_between(2 * PERIOD_S, i * PERIOD_S), poses[stamp]
        np.testing.assert_allclose(pose.translation_m, truth.translation_m, atol=2e-6)
        np.testing.assert_allclose(pose.rotation, truth.rotation, atol=1e-6)
        assert pose.sigma_m == pytest.approx(0.05 * float(np.linalg.norm(truth.translation_m)), abs=1e-6)
        assert pose.sigma_rad == pytest.approx(0.02 * TURN_RAD_S * abs(i - 2) * PERIOD_S, abs=1e-6)


def test_poses_of_tf_at_the_stamps_of_the_images():
    asked = Asked()
    asked.robot.send_mount()
    asked.drive(END_S + 0.02)
    asked.ask()
    check(asked.delivered[0])
    level, text, values = asked.state()
    assert (level, text, values["tf"], values["images_alone"]) == ("OK", "poses from tf", 1, 0)
    arm_m = np.hypot(0.1, 0.0)  # of the camera about the robot's axis
    assert float(values["speed_m_s"]) == pytest.approx(np.hypot(SPEED_M_S, TURN_RAD_S * arm_m), abs=2e-3)
    assert float(values["turn_rad_s"]) == pytest.approx(TURN_RAD_S, abs=1e-3)


def test_a_stack_waits_for_transforms_and_no_longer_than_that():
    asked = Asked()
    asked.robot.send_mount()
    asked.drive(END_S - 0.02)
    asked.ask()
    asked.wait(0.06)
    assert asked.delivered == []
    asked.robot.send_tf(END_S + 0.005)
    asked.spin()
    check(asked.delivered[0])
    later = [stamp + 200 * MS for stamp in STAMPS]
    asked.ask(later)
    asked.ask([stamp + 33 * MS for stamp in later])
    asked.wait(0.09)
    assert len(asked.delivered) == 1
    asked.wait(0.03)
    assert asked.delivered[1:] == [{}, {}]
    level, text, values = asked.state()
    assert level == "WARN" and values["tf_late"] == values["images_alone"] == 2
    assert text.startswith(
        "2 stacks without poses: tf: the newest transform is older than the image: odom -> base_link"
    )


def test_nothing_is_waited_for_that_does_not_come():
    asked = Asked()
    asked.ask()  # no tf at all
    asked.robot.send_mount()
    asked.spin()
    asked.ask()  # none that moves
    assert asked.delivered == [{}, {}]
    assert asked.state()[:2] == ("OK", "motion from the images alone")
    asked.drive(-1.2, since_s=-2.0)  # a robot that went silent
    asked.ask()
    assert asked.delivered == [{}, {}, {}] and asked.state()[2]["tf_late"] == 1


def test_missing_transforms_are_counted_by_cause():
    asked = Asked(source="tf")
    asked.ask()
    asked.robot.send_mount()
    asked.spin()
    asked.ask(frame_id="other_lens")
    asked.ask(frame_id="base_link")
    asked.robot.send_tf(0.05)
    asked.robot.send_tf(0.1)
    asked.robot.send_tf(0.5)
    asked.spin()
    asked.ask()
    asked.ask([stamp + 100 * MS for stamp in STAMPS])
    assert asked.delivered == 5 * [{}]
    level, _, values = asked.state()
    assert level == "WARN" and values["tf_disconnected"] == 3
    assert values["tf_early"] == values["tf_gap"] == 1 and values["images_alone"] == 5
    assert asked.state()[0] == "OK"  # nothing new


def test_a_reset_of_odometry_within_a_sweep_gives_no_poses():
    asked = Asked()
    asked.robot.send_mount()
    asked.drive(0.06)
    home = robot(0.06).inverse()
    for i in range(1, 30):
        asked.robot.send_tf(0.06 + i / 50, home.after(robot(0.06 + i / 50)))
    asked.spin()
    asked.ask()
    after = [stamp + 200 * MS for stamp in STAMPS]
    asked.ask(after)
    assert asked.delivered[0] == {} and len(asked.delivered[1]) == 5
    assert asked.state()[2]["tf_jump"] == 1 and asked.state()[2]["tf"] == 1


def test_a_simulation_that_starts_again_gives_no_pose_of_two_runs():
    """The clock goes back; images and transforms come in any order."""
    later = [stamp + 5 * 10**9 for stamp in STAMPS]
    for images_first in (True, False):
        asked = Asked()
        asked.robot.send_mount()
        asked.drive(5 + END_S + 0.02)
        asked.ask(later)
        assert len(asked.delivered[0]) == 5
        if images_first:  # what the buffer holds at these stamps is of the first run
            asked.ask()
            assert asked.delivered[1] == {}
        for i in range(20):
            asked.robot.send_tf(-0.1 + i / 50, robot(20 - 0.1 + i / 50))
        asked.spin()
        asked.ask()
        asked.ask()
        if images_first:
            assert len(asked.delivered[-1]) == 5
        assert asked.state()[2]["resets"] == (0 if images_first else 1)
        for poses in asked.delivered[1:]:
            for i, stamp in enumerate(STAMPS if poses else ()):
                truth = camera_between(20 + 2 * PERIOD_S, 20 + i * PERIOD_S)
                np.testing.assert_allclose(poses[stamp].translation_m, truth.translation_m, atol=2e-6)


def test_rotation_from_a_gyroscope_in_the_frame_of_the_camera():
    asked = Asked()
    for i in range(60):
        asked.robot.send_imu(-0.1 + i / 200)
    asked.spin()
    asked.ask()
    assert asked.delivered == [{}] and asked.state()[0] == "OK"  # nobody says how it is mounted
    asked.robot.send_mount(imu=True)
    asked.spin()
    asked.ask()
    poses = asked.delivered[1]
    assert asked.state()[:2] == ("OK", "poses from imu")
    for i, stamp in enumerate(STAMPS):
        truth, pose = camera_between(2 * PERIOD_S, i * PERIOD_S), poses[stamp]
        assert pose.is_rotation_alone
        np.testing.assert_allclose(pose.rotation, truth.rotation, atol=1e-9)
        seconds = abs(i - 2) * PERIOD_S
        assert pose.sigma_rad == pytest.approx(seconds * np.hypot(0.02 * TURN_RAD_S, 0.02))
    assert vector_of(poses[STAMPS[4]].rotation)[1] == pytest.approx(-TURN_RAD_S * 2 * PERIOD_S)  # to the left
    asked.drive(END_S + 0.02)  # tf is better where there is both
    asked.ask()
    check(asked.delivered[2])


def test_a_gyroscope_that_may_move_against_the_camera_is_of_no_use():
    asked = Asked(source="imu")
    asked.robot.send_mount()
    asked.robot.send_tf(0.0, Transform(IMU_TURN, np.zeros(3)), parent="imu_link")  # a head that pans
    for i in range(60):
        asked.robot.send_imu(-0.1 + i / 200)
    asked.spin()
    asked.ask()
    assert asked.delivered == [{}]
    level, text, values = asked.state()
    assert level == "WARN" and values["imu_disconnected"] == 1
    assert "imu_link and lens, but for base_link, which moves" in text


def test_messages_that_are_no_transforms_and_no_rates_are_counted():
    asked = Asked()
    asked.robot.send_tf(0.0, Transform(2.0 * np.eye(3), np.full(3, np.nan)))
    asked.robot.send_tf(0.0, parent="base_link")
    asked.spin()
    assert asked.state()[2]["invalid"] == 2 and asked.state()[2]["frames"] == 0
    asked.robot.send_imu(0.0, bias_rad_s=np.nan)
    asked.spin()
    assert next(s for s in asked.transport.subscriptions if s.topic == "/imu").faults == {"refused": 1}


@pytest.mark.parametrize(
    ("source", "topics"),
    [("none", set()), ("images", set()), ("tf", {"/tf", "/tf_static"}), ("imu", {"/tf", "/tf_static", "/imu"})],
)
def test_only_what_the_source_needs_is_subscribed(source, topics):
    assert {subscription.topic for subscription in Asked(source=source).transport.subscriptions} == topics


def test_the_node_gives_its_estimator_the_poses(
    make_rig: Callable[..., Rig],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    stacks = []
    estimate = DepthEstimator.estimate

    def noted(self: DepthEstimator, stack: Any, **options: Any) -> Any:
        stacks.append(stack)
        return estimate(self, stack, **options)

    monkeypatch.setattr(DepthEstimator, "estimate", noted)
    rig = make_rig()
    rig.listen("depth/image")
    rig.spin()
    rig.send_sweep()
    assert stacks[0].poses == () and len(rig.depths()) == 1
    bot = Robot(rig.camera, rig.bus.now_ns())
    bot.send_mount()
    still = Transform(rotation_of(np.array([0.1, 0.2, 0.3])), np.array([1.0, 2.0, 3.0]))
    for i in range(-2, 10):
        bot.send_tf(i / 50, still)
    rig.spin()
    rig.send_sweep()
    assert len(rig.depths()) == 2
    assert [pose.translation_m for pose in stacks[1].poses] == 3 * [pytest.approx((0, 0, 0), abs=1e-9)]
    assert rig.status("dfs: motion")[:2] == (OK, "poses from tf")
    rig.send_sweep()
    assert len(rig.depths()) == 2  # waits
    rig.advance(100)
    assert len(rig.depths()) == 3 and stacks[2].poses == ()
    assert rig.status("dfs: motion")[0] == WARN


def test_a_captured_stack_has_the_poses(make_rig: Callable[..., Rig], tmp_path: Path):  # noqa: F811
    rig = make_rig({"node": {"capture_folder": str(tmp_path)}})
    bot = Robot(rig.camera, rig.bus.now_ns())
    bot.send_mount()
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(
            rig.listener.call_service("/dfs/capture", TRIGGER, message(f"{TRIGGER}_Request"), 240.0)
        )
    )
    asking.start()
    queue = rig.bus.services["/dfs/capture", TRIGGER]
    while not queue.received:
        time.sleep(0.001)
    rig.spin()
    for i in range(-2, 2):
        bot.send_tf(i / 50)
    stamps = rig.send_sweep()
    assert not answers  # the transform at the last image is still to come
    for i in range(2, 10):
        bot.send_tf(i / 50)
    while asking.is_alive():
        rig.transport.spin_once(0.01)
    assert answers[0].success, answers[0].message
    stack = load_stack(answers[0].message)
    first, last = ((stamps[i] - stamps[0]) * 1e-9 for i in (0, 2))
    for pose, at_s in zip((stack.poses[0], stack.poses[2]), (first, last), strict=True):
        truth = camera_between((stamps[1] - stamps[0]) * 1e-9, at_s)
        np.testing.assert_allclose(pose.translation_m, truth.translation_m, atol=2e-5)
        np.testing.assert_allclose(pose.rotation, truth.rotation, atol=1e-6)


def test_the_velocity_found_is_published_where_it_was_found():
    config = Config.from_dict({"motion": {"odometry": True, "frame": "world"}})
    bus = LocalBus(start_ns=START_NS)
    transport, listener = LocalTransport("dfs", bus, config=config), LocalTransport("listener", bus)
    outputs = Outputs(transport)
    received: list[Any] = []
    listener.create_subscription("/dfs/odometry", ODOMETRY, received.append)
    assert outputs.wanted() == {"~/odometry"}
    depth = np.ones((16, 20), np.float32)
    moving = {"velocity_m_s": [0.2, -0.01, 0.05], "covariance_m2_s2": np.diag([1e-4, 2e-4, 3e-4]).ravel().tolist()}
    for report in ({"motion": moving}, {"motion": {"velocity_m_s": [], "covariance_m2_s2": []}}):
        sharp = np.zeros((16, 20, 3), np.uint8)
        result = DepthResult(depth, depth, depth, sharp, Camera(0.004, 2.0, 4e-6), START_NS, report=report)
        outputs.publish(result, outputs.wanted(), "lens", config.node)
    while listener.spin_once(0):
        pass
    (odometry,) = received
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("world", "lens")
    assert odometry.header.stamp.sec == START_NS // 10**9
    assert odometry.twist.twist.linear.x == 0.2
    assert np.reshape(odometry.twist.covariance, (6, 6)).diagonal() == pytest.approx([1e-4, 2e-4, 3e-4] + 3 * [1e6])
    with LocalTransport("other", bus) as other:
        assert "~/odometry" not in Outputs(other).wanted()
        assert not any("odometry" in publisher.topic for publisher in other.publishers)
