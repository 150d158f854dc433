"""Buffer of tf: interpolation and chains against the true motion; gaps, jumps, resets and broken trees refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.transforms.buffer import BUFFER_S, NoTransform, TransformBuffer
from dfs_ros.transforms.rigid import IDENTITY, Transform, rotation_of, transform, vector_of

MS = 10**6
START_NS = 10**18
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # from the optical frame to a body frame that looks along x


def moved(seconds: float) -> Transform:
    """A body that accelerates along x and turns about z."""
    return Transform(rotation_of(np.array([0.0, 0.0, 0.3 * seconds])), np.array([0.2 * seconds**2, 0.1, 0.0]))


def moving(rate_hz: float = 50.0, seconds: float = 2.0) -> TransformBuffer:
    """odom -> base (moving) -> mast (static) -> camera (static, optical)."""
    buffer = TransformBuffer()
    for i in range(round(seconds * rate_hz) + 1):
        buffer.add("odom", "base", START_NS + round(i / rate_hz * 1e9), moved(i / rate_hz))
    buffer.add_static("base", "mast", transform((0.1, 0.0, 0.5)))
    buffer.add_static("mast", "/camera", transform((0.0, 0.05, 0.0), OPTICAL))
    return buffer


def at(buffer: TransformBuffer, seconds: float, source: str = "camera", target: str = "odom") -> Transform:
    return buffer.at(source, target, START_NS + round(seconds * 1e9), max_gap_s=0.2)


def cause_of(call) -> str:
    with pytest.raises(NoTransform) as caught:
        call()
    return caught.value.cause


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 2), st.sampled_from([20.0, 50.0, 200.0]))
def test_a_chain_at_any_time_is_the_true_motion(seconds, rate_hz):
    buffer = moving(rate_hz)
    mount = Transform(transform((0, 0, 0), OPTICAL).rotation, np.array([0.1, 0.05, 0.5]))
    truth, found = moved(seconds).after(mount), at(buffer, seconds)
    within_m = 0.4 / rate_hz**2 / 8 + 0.6 * 0.3**2 / rate_hz**2 / 8 + 1e-8  # acceleration, and turn at an arm of 0.6 m
    assert np.abs(found.translation_m - truth.translation_m).max() <= within_m
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-7)
    back = at(buffer, seconds, "odom", "camera")
    np.testing.assert_allclose(back.after(found).rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(back.after(found).translation_m, np.zeros(3), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(8)), st.floats(0, 0.14))
def test_the_order_of_arrival_does_not_matter(order, seconds):
    ordered, shuffled = TransformBuffer(), TransformBuffer()
    for buffer, numbers in ((ordered, range(8)), (shuffled, order)):
        for i in numbers:
            buffer.add("odom", "camera", START_NS + i * 20 * MS, moved(i * 0.02))
            buffer.add("odom", "camera", START_NS + i * 20 * MS, IDENTITY)  # a second one of a stamp is not taken
    np.testing.assert_array_equal(at(ordered, seconds).translation_m, at(shuffled, seconds).translation_m)


def test_nothing_is_extrapolated():
    buffer = moving(seconds=1.0)
    assert cause_of(lambda: at(buffer, 1.000001)) == "late"
    assert cause_of(lambda: at(buffer, -0.000001)) == "early"
    with pytest.raises(NoTransform, match=r"older than the image: odom -> base ends 0\.250 s before it") as caught:
        at(buffer, 1.25)
    assert caught.value.behind_s == pytest.approx(0.25)
    assert at(buffer, 1.0).translation_m[0] == pytest.approx(0.2 + 0.1 * math.cos(0.3) - 0.05 * math.sin(0.3))


def test_a_gap_is_not_bridged():
    buffer = TransformBuffer()
    for ms in (0, 100, 400, 500):
        buffer.add("odom", "camera", START_NS + ms * MS, moved(ms / 1000))
    assert cause_of(lambda: at(buffer, 0.25)) == "gap"
    np.testing.assert_allclose(at(buffer, 0.4).translation_m, moved(0.4).translation_m)
    assert at(buffer, 0.05).translation_m[0] == pytest.approx(0.001)


@pytest.mark.parametrize("rate_hz", [20.0, 50.0, 100.0])
@pytest.mark.parametrize(
    "step", [transform((0.0, 0.15, 0.0)), Transform(rotation_of(np.array([0, 0, 0.5])), np.zeros(3))]
)
def test_a_jump_is_found_and_the_true_motion_is_none(rate_hz, step):
    """Odometry that is reset midway; found in every span that reaches over it."""
    buffer, clean = TransformBuffer(), moving(rate_hz)
    for i in range(round(2 * rate_hz) + 1):
        pose = moved(i / rate_hz)
        buffer.add("odom", "camera", START_NS + round(i / rate_hz * 1e9), step.after(pose) if i > rate_hz else pose)

    def check(checked: TransformBuffer, first: float, last: float) -> None:
        first_ns, last_ns = (START_NS + round(s * 1e9) for s in (first, last))
        checked.check("camera", "odom", first_ns, last_ns, max_acceleration=30.0)

    for first in (0.9, 0.99, 1.0, 1.02 / rate_hz * rate_hz):
        if first < 1.0 + 1 / rate_hz:
            assert cause_of(lambda first=first: check(buffer, first, first + 0.17)) == "jump"
    check(buffer, 0.3, 0.5)
    check(buffer, 1.5, 1.7)
    check(clean, 0.0, 2.0)


def test_noise_of_odometry_and_samples_at_nearly_one_time_are_no_jumps():
    rng = np.random.default_rng(0)
    buffer = TransformBuffer()
    for i in range(100):
        for late_ns in (0, 1000):
            noisy = Transform(moved(i / 100).rotation, moved(i / 100).translation_m + rng.normal(0, 1e-4, 3))
            buffer.add("odom", "camera", START_NS + i * 10 * MS + late_ns, noisy)
    buffer.check("camera", "odom", START_NS, START_NS + 990 * MS, max_acceleration=30.0)


def test_frames_that_do_not_hang_together():
    buffer = moving()
    buffer.add_static("map2", "camera2", IDENTITY)
    assert cause_of(lambda: at(buffer, 1.0, "camera", "map2")) == "disconnected"
    assert cause_of(lambda: at(buffer, 1.0, "nobody", "odom")) == "disconnected"
    assert not buffer.connected("camera2", "odom") and buffer.connected("camera", "/odom")
    assert cause_of(lambda: buffer.fixed("camera", "odom")) == "disconnected"
    np.testing.assert_allclose(buffer.fixed("camera", "base").translation_m, [0.1, 0.05, 0.5])
    buffer.add("camera", "odom", START_NS, IDENTITY)  # a circle
    with pytest.raises(NoTransform, match="its own parent"):
        at(buffer, 1.0)
    for parent, child in (("", "camera"), ("odom", ""), ("odom", "/odom")):
        with pytest.raises(ValueError, match="expected two frames"):
            buffer.add(parent, child, START_NS, IDENTITY)


def test_a_static_chain_tells_of_no_motion():
    buffer = moving()
    assert cause_of(lambda: at(buffer, 1.0, "camera", "base")) == "static"
    assert cause_of(lambda: at(buffer, 1.0, "camera", "camera")) == "static"
    assert not buffer.connected("camera", "base")


def test_a_clock_set_back_empties_the_buffer_of_all_that_moves():
    """A simulation that starts again: no pose is made of two runs."""
    buffer = moving()
    buffer.add("base", "arm", START_NS + 1900 * MS, IDENTITY)
    buffer.add("odom", "base", START_NS + 1000 * MS, moved(1.0))
    assert buffer.resets == 1
    assert cause_of(lambda: at(buffer, 1.01)) == "late"
    assert cause_of(lambda: at(buffer, 1.9, "arm", "base")) == "disconnected"
    buffer.add("odom", "base", START_NS + 1020 * MS, moved(1.02))
    assert at(buffer, 1.01, "base").translation_m[0] == pytest.approx(0.2 * (1.0 + 1.02**2) / 2)
    buffer.add("odom", "base", START_NS + 900 * MS, moved(0.9))  # late by less than half a second: no reset
    assert buffer.resets == 1 and at(buffer, 0.95, "base").translation_m[0] == pytest.approx(0.2 * (0.81 + 1.0) / 2)


def test_two_publishers_of_one_frame_make_no_pose():
    buffer = TransformBuffer()
    for i in range(10):
        buffer.add("odom", "camera", START_NS + i * 20 * MS, moved(i * 0.02))
        buffer.add("map", "camera", START_NS + i * 20 * MS, IDENTITY)
    assert buffer.reparented == 19
    assert cause_of(lambda: at(buffer, 0.1)) == "disconnected"
    buffer.add("odom", "camera", START_NS + 200 * MS, moved(0.2))
    assert cause_of(lambda: at(buffer, 0.19)) == "early"


def test_memory_is_bounded():
    buffer = TransformBuffer()
    for i in range(1200):
        buffer.add("odom", "camera", START_NS + i * 20 * MS, IDENTITY)
    assert cause_of(lambda: at(buffer, 1199 * 0.02 - BUFFER_S - 0.1)) == "early"
    at(buffer, 1199 * 0.02 - BUFFER_S + 0.1)
    with pytest.raises(ValueError, match="at most 2000 frames"):
        for i in range(2000):
            buffer.add_static("odom", f"frame{i}", IDENTITY)
    assert len(buffer) == 2000


def test_a_frame_that_was_static_may_move_and_the_other_way_round():
    buffer = TransformBuffer()
    buffer.add_static("odom", "camera", IDENTITY)
    buffer.add("odom", "camera", START_NS, moved(0.0))
    buffer.add("odom", "camera", START_NS + 20 * MS, moved(0.02))
    assert np.linalg.norm(vector_of(at(buffer, 0.02).rotation)) == pytest.approx(0.006)
    buffer.add_static("odom", "camera", moved(1.0))
    assert buffer.fixed("camera", "odom").translation_m[0] == pytest.approx(0.2)
