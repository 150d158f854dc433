"""Phantom surfaces around silhouettes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.depth.texture import texture_of
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera

REACH_PX = 12


def stack_of(texture: float, noise: float = 1.0, blur_px: float = 20.0) -> NDArray[np.uint8]:
    """Sharp and blurred image of a bright, textured square in the middle of a grey wall with `texture`."""
    rng = np.random.default_rng(5)
    image = 90.0 + texture * rng.standard_normal((96, 128))
    image[32:64, 48:80] = 200.0 + 20.0 * rng.standard_normal((32, 32))
    images = [image, cv2.GaussianBlur(image, (0, 0), blur_px)]
    return np.stack([np.clip(i + noise * rng.standard_normal(i.shape), 0, 255) for i in images]).astype(np.uint8)


def beside(distance_px: int) -> NDArray[np.bool_]:
    """Wall within `distance_px` of the square, but for the 9 px that its sharp edge reaches."""
    square = np.zeros((96, 128), np.uint8)
    square[32:64, 48:80] = 1
    near, at = (cv2.dilate(square, np.ones((2 * r + 1, 2 * r + 1), np.uint8)) for r in (distance_px, 10))
    return (near > at) > 0


def test_a_wall_without_texture_is_a_phantom_beside_an_edge_only() -> None:
    found = texture_of(stack_of(texture=0.0), REACH_PX)[1]
    assert found[beside(14)].mean() > 0.95
    assert not found[32:64, 48:80].any()
    assert not found[:10].any() and not found[:, :20].any()


@pytest.mark.parametrize("texture", [6.0, 12.0])
def test_textured_walls_are_none(texture: float) -> None:
    assert texture_of(stack_of(texture), REACH_PX)[1].mean() < 0.002


def test_noise_alone_and_even_texture_are_none() -> None:
    rng = np.random.default_rng(3)
    for deviation in (0.0, 1.0, 40.0):
        images = np.clip(120 + deviation * rng.standard_normal((3, 64, 80, 3)), 0, 255).astype(np.uint8)
        assert not texture_of(images, REACH_PX)[1].any()


def test_no_depth_is_invented_around_an_object() -> None:
    camera, focus = Camera(0.008, 1.4, 6e-6), (2.2, 1.7, 1.3, 0.9, 0.5)
    scene = plane_scene(1.0, 160, 128, seed=3)
    rgb, depth = np.full_like(scene.rgb, 60), np.full((128, 160), 2.0)
    square = (slice(44, 84), slice(60, 100))
    rgb[square], depth[square] = scene.rgb[square], 0.5
    stack = render_stack(rgb, depth, camera, focus, noise=0.004, rng=2)
    config = {"lens": {"aperture": "given"}, "alignment": {"mode": "off"}, "confidence": {"on_contradiction": "warn"}}
    found = np.isfinite(DepthEstimator(Config.from_dict(config)).estimate(stack, sharpen=False).depth_m)
    assert found[48:80, 64:96].mean() > 0.97
    wall = np.ones((128, 160), np.bool_)
    wall[32:96, 48:112] = False
    assert found[wall].mean() < 0.02
