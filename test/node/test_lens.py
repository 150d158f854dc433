"""Each stack has the camera of its own frames: lens, pinhole, image size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_rig import CAMERA, FOCUS_DIOPTERS, PLANE_M, SIZE, Rig

from dfs_ros.config import LensConfig
from dfs_ros.messages.convert import (
    CameraInfo,
    camera_info_from_message,
    camera_info_message,
    depth_from_message,
)
from dfs_ros.node.lens import LensError, LensTracker
from dfs_ros.optics.pinhole import Intrinsics, intrinsics
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.types import Camera, FocusMetadata, Frame

IMAGE = np.zeros(SIZE, np.uint8)
ZOOMED = dataclasses.replace(CAMERA, focal_length_m=0.035, f_number=2.0)


def near_plane(depth: Any) -> Any:
    return np.nanmedian(depth_from_message(depth)) == pytest.approx(PLANE_M, rel=0.03)


def take_lens(rig: Rig, camera: Camera) -> None:
    """From now on the rig's camera is this one, before the same plane."""
    scene = plane_scene(PLANE_M, SIZE[1], SIZE[0], seed=3, fx_px=camera.focal_length_m / camera.pixel_pitch_m)
    rig.stack = render_stack(scene.rgb, scene.depth_m, camera, FOCUS_DIOPTERS)
    rig.lens = camera
    rig.info = camera_info_message(intrinsics(camera, SIZE), SIZE, rig.bus.now_ns(), "lens")


def test_a_lens_that_zooms_between_two_sweeps(make_rig: Callable[..., Rig]) -> None:
    """Without numbers a sweep is complete when the next one has begun, and so with the lens of the next one."""
    rig = make_rig({"lens": {"aperture": "given"}})
    rig.listen("depth/image", "depth/camera_info")
    for camera in (CAMERA, ZOOMED, CAMERA):
        take_lens(rig, camera)
        rig.send_sweep(count=0)
    rig.node.finish()
    rig.spin()
    assert [near_plane(depth) for depth in rig.depths()] == [True] * 3
    widths = [camera_info_from_message(info).intrinsics.fx for info in rig.received["depth/camera_info"]]
    assert widths == pytest.approx([intrinsics(c, SIZE).fx for c in (CAMERA, ZOOMED, CAMERA)], rel=0.01)
    values = rig.status()[2]
    assert (values["lens_changed"], values["used"], values["no_lens"]) == ("2", "9", "0")


def test_a_lens_that_zooms_within_a_sweep_makes_no_depth_of_it(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.listen("depth/image")
    for i in range(3):
        if i == 2:
            take_lens(rig, ZOOMED)
        rig.send_frame(i)
        rig.advance(33)
    assert rig.depths() == []
    assert rig.status()[2]["incomplete"] == "3"


def test_images_of_two_sizes_that_reduce_to_one_are_not_mixed(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """As 400 x 300 and 401 x 301 pixels are, in the midst of a sweep; each captured stack has its own camera."""
    rig = make_rig({"processing": {"max_megapixels": 0.01}, "node": {"capture_folder": str(tmp_path)}})
    rig.listen("depth/image")

    def send(i: int, size: tuple[int, int]) -> None:
        stamp = rig.bus.now_ns()
        camera = CAMERA.scaled(size[1] / SIZE[1])
        rig.info = camera_info_message(intrinsics(camera, size), size, stamp, "lens")
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, SIZE, strict=True))
        rig.stack = dataclasses.replace(plane, images=plane.images[:, rows][:, :, columns])
        rig.send_frame(i, stamp)
        rig.advance(33)

    plane = rig.stack
    for i in range(3):
        send(i, (300, 400) if i < 2 else (301, 401))
    assert rig.depths() == []
    rig.sweeps += 1
    for i in range(3):
        send(i, (301, 401))
    assert [(m.height, m.width) for m in rig.depths()] == [(87, 115)]
    values = rig.status()[2]
    assert (values["wrong_size"], values["wrong_camera_info"]) == ("1", "0")


def test_depth_is_published_at_the_working_size_and_captured_as_it_came(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    # Pixels that are repeated are blurred otherwise than by a lens, which a fit of the aperture would see.
    rig = make_rig(
        {
            "processing": {"max_megapixels": 0.01},
            "lens": {"aperture": "given"},
            "node": {"capture_folder": str(tmp_path)},
        }
    )
    full = rig.stack.images.repeat(3, axis=1).repeat(3, axis=2)  # 288 x 216 = 0.062 Mpx
    rig.listen("depth/image", "depth/camera_info", "depth/sigma", "all_in_focus/image", "all_in_focus/camera_info")
    original = CAMERA.scaled(3.0)
    rig.info = camera_info_message(intrinsics(original, (216, 288)), (216, 288), 0, "lens")
    rig.stack = dataclasses.replace(rig.stack, images=full)
    rig.send_sweep()
    assert {(m[0].height, m[0].width) for m in rig.received.values()} == {(87, 115)}  # 0.0100 Mpx
    info = camera_info_from_message(rig.received["depth/camera_info"][0])
    assert info.intrinsics == pytest.approx(intrinsics(original.scaled(115 / 288), (87, 115)), rel=0.01)
    assert np.nanmedian(depth_from_message(rig.depths()[0])) == pytest.approx(PLANE_M, rel=0.03)


# -- what is known of a camera -----------------------------------------------------------------------------------------


def info(stamp: int, fx_px: float = 900.0, size: tuple[int, int] = SIZE) -> CameraInfo:
    return CameraInfo(stamp, "lens", size, Intrinsics(fx_px, fx_px, 47.5, 35.5))


def frames(*focal_lengths_m: float, f_number: float = 2.0) -> list[Frame]:
    return [
        Frame(IMAGE, 1.0 + i, stamp_ns=100 + i, focal_length_m=focal_length_m, f_number=f_number)
        for i, focal_length_m in enumerate(focal_lengths_m)
    ]


def test_the_camera_is_that_of_the_frames_that_know_it() -> None:
    lens = LensTracker(LensConfig())
    lens.add_info(info(0))
    camera = lens.camera_of(frames(np.nan, 0.025, 0.0251, 0.0249, np.nan))
    assert (camera.focal_length_m, camera.f_number, camera.fx_px) == (0.025, 2.0, 900.0)
    with pytest.raises(LensError, match="the focal length of the lens is unknown"):
        lens.camera_of(frames(np.nan, np.nan))
    with pytest.raises(LensError, match="the f-number of the lens is unknown"):
        lens.camera_of(frames(0.025, f_number=np.nan))


def test_settings_come_before_what_the_driver_says() -> None:
    said = FocusMetadata(0, 1.0, focal_length_m=0.025, f_number=2.0)
    assert LensTracker(LensConfig()).described(said) == said
    described = LensTracker(LensConfig(focal_length_m=0.05, f_number=4.0)).described(said)
    assert (described.focal_length_m, described.f_number, described.focus_diopters) == (0.05, 4.0, 1.0)


def test_the_camera_info_is_the_last_one_up_to_the_image() -> None:
    lens = LensTracker(LensConfig())
    assert lens.info_at(100) is None
    for stamp, fx_px in ((50, 900.0), (60, 900.0), (103, 1200.0), (104, 1200.0)):
        lens.add_info(info(stamp, fx_px))
    assert [getattr(lens.info_at(s), "intrinsics", None)[0] for s in (100, 102, 103, 10**18)] == [900, 900, 1200, 1200]
    assert lens.info_at(7) == info(103, 1200.0)  # of none so old is known: the newest
    lens.refuse_info("it makes no sense")
    with pytest.raises(LensError, match="the size of a pixel is unknown: it makes no sense"):
        lens.camera_of(frames(0.025))


def test_a_camera_info_of_another_size_is_told() -> None:
    lens = LensTracker(LensConfig())
    lens.add_info(info(0, size=(144, 192)))
    with pytest.raises(LensError, match="camera_info is of 192 x 144 pixels, the images have 96 x 72"):
        lens.camera_of(frames(0.025))
    small = [dataclasses.replace(frame, original_size_px=(144, 192)) for frame in frames(0.025)]
    assert lens.camera_of(small).fx_px == 900.0
