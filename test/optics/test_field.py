"""Focal surface of a calibrated lens: blur of a levelled stack, depth through it, and its place in files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dfs_ros.alignment.refinement import blurred
from dfs_ros.config import Config
from dfs_ros.cost_volume.problem import aligned_coc_px
from dfs_ros.depth.scene_range import of_scene, search_range
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.stack_folder import load_stack, save_stack
from dfs_ros.lens_field import DOUBTS, LensField
from dfs_ros.optics.field import levelled, surface_of, unlevelled
from dfs_ros.optics.srgb import encode_linear
from dfs_ros.optics.thin_lens import coc_px_per_diopter
from dfs_ros.simulation.textures import fractal
from dfs_ros.types import Camera, FocalStack

FIELD = LensField(curvature=0.6, tilt_x=-0.3, tilt_y=0.2, vignetting=0.25)
SIZE = (30, 40)
CAMERA = Camera(0.004, 2.0, 4e-6, cx_px=21.0, cy_px=13.0, field=FIELD)


def stack(camera: Camera = CAMERA) -> FocalStack:
    images = np.random.default_rng(0).integers(0, 256, (4, *SIZE), np.uint8)
    return FocalStack(images, np.array([0.1, 1.2, 2.5, 4.0]), camera)


def test_a_levelled_stack_blurs_as_the_lens_does_at_every_pixel() -> None:
    taken = stack()
    flat = levelled(taken)
    surface = surface_of(flat.camera, SIZE)
    assert surface.max() == pytest.approx(0.0, abs=1e-6) and surface.min() < -0.5
    half = np.hypot(*SIZE) / 2
    v, u = np.indices(SIZE)
    x, y = (u - 21.0) / half, (v - 13.0) / half
    own = 0.6 * (x * x + y * y) - 0.3 * x + 0.2 * y
    for diopters in (0.001, 1.7, 5.0):
        seen = diopters - surface
        assert (seen > 0).all()
        off = own - own.mean() + taken.focus_diopters[:, None, None] - diopters
        expected = np.abs(off) * coc_px_per_diopter(taken.focus_diopters, CAMERA)[:, None, None]
        np.testing.assert_allclose(np.moveaxis(aligned_coc_px(seen[..., None], flat), -1, 0), expected, atol=1e-3)
    assert levelled(flat) is flat
    back = unlevelled(flat.camera, flat.focus_diopters)
    assert back.field is not None and back.field.level_diopters == pytest.approx(0.0)
    assert back.f_number == pytest.approx(CAMERA.f_number)
    plain = stack(dataclasses.replace(CAMERA, field=None))
    assert levelled(plain) is plain and unlevelled(plain.camera, plain.focus_diopters) is plain.camera


def test_limits_are_depths_of_the_scene() -> None:
    flat = levelled(stack())
    config = Config.from_dict({"hypotheses": {"min_depth_m": 0.5, "max_depth_m": 2.0}})
    surface = surface_of(flat.camera, SIZE)
    limits = search_range(flat, config)
    assert limits.far == pytest.approx(0.5) and limits.near == pytest.approx(2.0 - surface.min())
    by_blur = np.full(SIZE, 1.0, np.float32)
    ends = np.zeros(SIZE, np.float32)
    ends[0, 0] = 1.0
    diopters, ends = of_scene(by_blur, ends, flat, config)
    np.testing.assert_allclose(diopters, np.maximum(1.0 + surface, 1e-3), atol=1e-6)
    assert ends[0, 0] == 1.0
    np.testing.assert_array_equal(ends.ravel()[1:], -(diopters < 0.5).astype(np.float32).ravel()[1:])
    beyond, ends = of_scene(np.full(SIZE, 0.1, np.float32), np.zeros(SIZE, np.float32), flat, Config())
    assert beyond.min() == pytest.approx(1e-3) and (ends == -1).any() and (ends == 0).any()
    near, ends = of_scene(np.full(SIZE, 2.5, np.float32), np.zeros(SIZE, np.float32), flat, config)
    np.testing.assert_array_equal(ends, (near > 2.0).astype(np.float32))


def test_a_stack_is_saved_with_its_field(tmp_path: Path) -> None:
    numbers = tuple(np.random.default_rng(1).uniform(0.0, 1e-3, len(DOUBTS) * (len(DOUBTS) + 1) // 2).tolist())
    known = dataclasses.replace(CAMERA, field=dataclasses.replace(FIELD, covariance=numbers))
    again = load_stack(save_stack(stack(known), tmp_path / "stack"))
    assert again.camera == known
    assert again.camera.scaled(0.5).field == known.field
    file = tmp_path / "stack" / "stack.yaml"
    for before, after, error in (
        ("vignetting: 0.25", "vignetting: 1.5", "camera.field.vignetting: expected a share below 1, received 1.5"),
        ("vignetting: 0.25", "vigneting: 0.25", "camera.field: vigneting: unknown key; did you mean 'vignetting'"),
        ("tilt_x: -0.3", "tilt_x: .nan", "camera.field.tilt_x: expected a finite number"),
        ("tilt_y: 0.2", "tilt_y: 500", "wrong.yaml: camera.field.tilt_y: expected a number of at most 100"),
    ):
        text = file.read_text()
        assert before in text
        (tmp_path / "stack" / "wrong.yaml").write_text(text.replace(before, after))
        with pytest.raises(ValueError, match=error):
            load_stack(tmp_path / "stack" / "wrong.yaml")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"curvature": np.inf}, "curvature: expected a number of at most 100"),
        ({"covariance": (1.0, 2.0)}, "covariance: expected 36 finite numbers, the lower triangle of focus"),
        ({"covariance": (-1.0,) * 36}, "covariance: expected variances of 0 or more"),
    ],
)
def test_impossible_fields_are_refused(values: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        LensField(**values)  # type: ignore[arg-type]


def test_a_plane_through_a_curved_focal_surface_is_found_flat() -> None:
    """Each pixel blurred by the disk of its own focus and aperture, also of a scene beyond the mean infinity."""
    size, rng = (72, 96), np.random.default_rng(2)
    field = LensField(curvature=0.6, tilt_x=-0.25, tilt_y=0.1, vignetting=0.3)
    camera = Camera(0.006, 2.0, 6e-6, field=field, aperture_sigma=0.01)
    focus = np.array([0.0, 0.6, 1.2, 1.8, 2.4, 3.0])
    texture = np.clip(0.5 + 0.15 * fractal(rng, size[1])[: size[0]], 0.0, 1.0).astype(np.float32)
    surface, opened = (part(size, np.nan, np.nan) for part in (field.surface, field.openness))
    config = Config.from_dict(
        {"network": {"name": "none"}, "alignment": {"mode": "off"}, "processing": {"threads": 1, "device": "cpu"}}
    )

    def errors(depth_m: float, of: Camera) -> np.ndarray:
        off = np.abs(focus[:, None, None] + surface - 1.0 / depth_m)
        coc = np.asarray(off * opened * coc_px_per_diopter(focus, camera)[:, None, None], np.float32)
        images = np.stack([encode_linear(blurred(texture, c), "srgb") for c in coc])
        found = DepthEstimator(config).estimate(FocalStack(images, focus, of), sharpen=False)
        known = np.isfinite(found.depth_m)
        assert known.mean() > 0.7
        assert found.camera.field == of.field and found.camera.f_number == pytest.approx(2.0)
        return np.abs(1.0 / found.depth_m[known] - 1.0 / depth_m)

    near, far = errors(0.6, camera), errors(4.0, camera)
    for error in (near, far):
        assert np.median(error) < 0.03 and np.percentile(error, 90) < 0.1
    assert np.median(errors(0.6, dataclasses.replace(camera, field=None))) > 3 * np.median(near)
