"""Range of a scene: planes anywhere, limits, and what leaves the range."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfs_ros.config import Config
from dfs_ros.depth.scene_range import (
    FARTHEST_M,
    SceneRange,
    at_ends,
    find_range,
    has_left,
    hypotheses_in,
    kept_range,
    search_range,
    shares_at_ends,
)
from dfs_ros.optics import thin_lens
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, FocalStack

CAMERA = Camera(0.008, 1.4, 6e-6)  # 7.7 px of blur a dioptre
FOCUS = (2.2, 1.7, 1.3, 0.9, 0.5)
NO_TEXTURE = np.full((5, 96, 128), 140, np.uint8)


def stack_of(depth_m: float) -> FocalStack:
    scene = plane_scene(depth_m, 128, 96, seed=3)
    return render_stack(scene.rgb, scene.depth_m, CAMERA, FOCUS, rng=1)


def config_of(**hypotheses: Any) -> Config:
    return Config.from_dict({"hypotheses": hypotheses})


def test_the_search_ends_where_the_sharpest_image_blurs_too_much() -> None:
    stack = FocalStack(NO_TEXTURE, np.array(FOCUS), CAMERA)
    search = search_range(stack, Config())
    assert search.far == 1.0 / FARTHEST_M
    # 96 px / 6
    assert thin_lens.coc_px(search.near, stack.focus_diopters, CAMERA).min() == pytest.approx(16.0, rel=0.01)
    macro = FocalStack(NO_TEXTURE, np.array([3.29, 3.31, 3.33, 3.35, 3.378]), Camera(0.1, 5.6, 41.6e-6))
    search = search_range(macro, Config())
    for end in (search.far, search.near):
        assert thin_lens.coc_px(end, macro.focus_diopters, macro.camera).min() == pytest.approx(16.0, rel=0.01)


def test_limits_clip_the_search() -> None:
    stack = FocalStack(NO_TEXTURE, np.array(FOCUS), CAMERA)
    assert search_range(stack, config_of(min_depth_m=0.5, max_depth_m=4.0)) == SceneRange(0.25, 2.0)
    with pytest.raises(ValueError, match=r"this sweep can tell depths of 0\.235 to 1e\+03 m; .* received 0 and 0\.2"):
        search_range(stack, config_of(max_depth_m=0.2))


@pytest.mark.parametrize("depth_m", [0.25, 0.5, 1.1, 3.0, 15.0])
def test_the_range_holds_the_plane_and_little_else(depth_m: float) -> None:
    stack, config = stack_of(depth_m), Config()
    found = find_range(stack, search_range(stack, config), config, threads=1)
    assert found.far <= 1.0 / depth_m <= found.near
    assert found.width < 1.5
    depths_m = hypotheses_in(found, stack, config)
    assert depths_m[0] == pytest.approx(1.0 / found.near) and depths_m[-1] == pytest.approx(1.0 / found.far)
    assert len(depths_m) == 16  # of 61, as interpolated


def test_without_texture_the_range_is_that_of_the_search() -> None:
    stack = FocalStack(NO_TEXTURE, np.array(FOCUS), CAMERA)
    search = search_range(stack, Config())
    assert find_range(stack, search, Config(), threads=1) == search


def test_steps_follow_the_blur() -> None:
    stack = FocalStack(NO_TEXTURE, np.array(FOCUS), CAMERA)
    px = float(thin_lens.coc_px_per_diopter(stack.focus_diopters, CAMERA).max())

    def count_of(across_px: float, **hypotheses: Any) -> int:
        return len(hypotheses_in(SceneRange(1.0, 1.0 + across_px / px), stack, config_of(**hypotheses)))

    assert [count_of(across_px) for across_px in (9.0, 17.9, 18.1, 23.9, 24.1, 35.9, 36.1, 119.0, 121.0)] == [
        *(16, 16, 21, 21, 31, 31, 61, 61, 121)
    ]
    assert count_of(9.0, interpolate_to=0) == 61
    stack = FocalStack(NO_TEXTURE[:4], np.array(FOCUS[:4]), CAMERA)
    px = float(thin_lens.coc_px_per_diopter(stack.focus_diopters, CAMERA).max())
    assert [count_of(across_px) for across_px in (8.9, 9.1, 11.9, 12.1, 17.9, 18.1)] == [16, 21, 21, 31, 31, 61]
    stack = FocalStack(NO_TEXTURE[:3], np.array(FOCUS[:3]), CAMERA)
    assert count_of(1.0) == 61
    assert count_of(9.0, count=20) == 20  # 20 make 77, 10 would make 64


@given(
    far=st.floats(-5, 30), width=st.floats(0, 20), least=st.floats(0, 20), low=st.floats(0, 5), across=st.floats(0.1, 9)
)
def test_fitted_ranges_lie_within_the_limits(far: float, width: float, least: float, low: float, across: float) -> None:
    limits = SceneRange(low, low + across)
    found = SceneRange(far, far + width).fitted(limits, least)
    assert limits.far - 1e-9 <= found.far and found.near <= limits.near + 1e-9
    assert found.width >= min(least, across) - 1e-9
    overlap = min(far + width, limits.near) - max(far, limits.far)
    assert found.width == pytest.approx(max(overlap, 0.0, min(least, across)), abs=1e-9)


def test_minima_at_the_ends() -> None:
    energy = np.array([[3, 1, 2, 1], [2, 2, 1, 1], [1, 3, 2, 1]], np.float32)[:, None, :]
    nothing, outer = energy[:0], np.array([[5, 5, 0, 5], [5, 5, 5, 0]], np.float32)[:, None, :]
    np.testing.assert_array_equal(at_ends(energy, nothing, 0), [[-1, 1, 0, 0]])
    np.testing.assert_array_equal(at_ends(energy, outer, 1), [[-1, 1, 1, -1]])
    np.testing.assert_array_equal(at_ends(energy, outer, 2), [[-1, 1, 1, 1]])
    np.testing.assert_array_equal(at_ends(energy[:2], nothing, 0), [[0, 0, 0, 0]])


def test_a_scene_that_leaves_its_range_is_noticed_where_the_search_goes_on() -> None:
    ends, confidence = np.zeros((10, 10), np.float32), np.ones((10, 10), np.float32)
    limits, used = SceneRange(0.001, 4.0), SceneRange(0.5, 2.0)
    ends[0, :3], ends[1] = 1.0, -1.0
    assert shares_at_ends(ends, confidence) == (0.03, 0.1)
    assert has_left(ends, confidence, used, limits)
    assert not has_left(ends, confidence, limits, limits)
    assert not has_left(np.where(ends < 0, 0, ends), confidence, dataclasses.replace(used, near=4.0), limits)
    assert not has_left(ends, 0.2 * confidence, used, limits)


def test_a_range_is_kept_while_the_scene_needs_half_of_it() -> None:
    stack = FocalStack(NO_TEXTURE, np.array(FOCUS), CAMERA)
    used = SceneRange(0.5, 4.5)
    for low, high, expected in ((0.8, 2.8, used), (1.2, 1.6, None)):
        assert kept_range(used, np.linspace(low, high, 100), stack, Config()) == expected
    assert kept_range(used, np.array([]), stack, Config()) is None
    narrow = SceneRange(1.0, 2.2)  # no range is made narrower
    assert kept_range(narrow, np.full(100, 1.6), stack, Config()) == narrow
