"""Rigid motions: composition, inverse, slerp, quaternions; any rotation and distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.transforms.rigid import IDENTITY, Transform, rotation_of, transform, vector_of


def transforms(most_rad: float = 3.0) -> st.SearchStrategy[Transform]:
    metres = st.tuples(*[st.floats(-5, 5)] * 3)
    axis = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: math.hypot(*v) > 0.1)

    def made(position: tuple[float, ...], along: tuple[float, ...], angle: float) -> Transform:
        vector = np.array(along) / math.hypot(*along) * angle
        return Transform(rotation_of(vector), np.array(position))

    return st.builds(made, metres, axis, st.floats(-most_rad, most_rad))


def same(a: Transform, b: Transform, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(a.rotation, b.rotation, atol=atol)
    np.testing.assert_allclose(a.translation_m, b.translation_m, atol=atol)


@settings(max_examples=50, deadline=None)
@given(transforms(), transforms(), st.floats(0, 1))
def test_a_transform_after_its_inverse_is_none_and_the_way_between_two_is_even(a, b, share):
    same(a.inverse().after(a), IDENTITY)
    point = np.array([0.3, -0.2, 1.5])
    first = a.rotation @ point + a.translation_m
    both = b.after(a)
    np.testing.assert_allclose(both.rotation @ point + both.translation_m, b.rotation @ first + b.translation_m)
    between = a.towards(b, share)
    whole, part = (np.linalg.norm(vector_of(a.rotation.T @ end.rotation)) for end in (b, between))
    np.testing.assert_allclose(part, share * whole, atol=1e-6)
    along = share * (b.translation_m - a.translation_m)
    np.testing.assert_allclose(between.translation_m - a.translation_m, along, atol=1e-12)
    same(a.towards(b, 0.0), a)
    same(a.towards(b, 1.0), b, 1e-6)


@settings(max_examples=50, deadline=None)
@given(transforms(3.14))
def test_quaternions_come_back(a):
    same(transform(a.translation_m.tolist(), a.rotation_xyzw), a, 1e-6)


def test_a_quarter_turn_about_z_and_the_way_there():
    quarter = transform((1, 0, 0), (0, 0, math.sqrt(0.5), math.sqrt(0.5)))
    np.testing.assert_allclose(quarter.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    third = IDENTITY.towards(quarter, 1 / 3)
    assert third.rotation_xyzw == pytest.approx((0, 0, math.sin(math.pi / 12), math.cos(math.pi / 12)))
    assert third.translation_m.tolist() == pytest.approx([1 / 3, 0, 0])
    slightly_short = transform((0, 0, 0), (0, 0, 0.7035, 0.7035))  # of a driver that rounds
    np.testing.assert_allclose(slightly_short.rotation, quarter.rotation, atol=1e-12)


@pytest.mark.parametrize(
    ("translation_m", "rotation_xyzw", "message"),
    [
        ((0, 0, math.nan), (0, 0, 0, 1), "expected finite x, y, z"),
        ((0, 0, 0), (0, 0, 0, 0), "length 1 .* received length 0"),
        ((0, 0, 0), (0, 0, 1, 1), "received length 1.414"),
    ],
)
def test_what_is_no_transform_is_refused(translation_m, rotation_xyzw, message):
    with pytest.raises(ValueError, match=message):
        transform(translation_m, rotation_xyzw)
