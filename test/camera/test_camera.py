"""Camera sources: what they send, and that it is what they say; `dfs simulate`."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfs_ros.camera.recorded import RecordedSource
from dfs_ros.camera.simulator import SimulatedSource, loop_of_shots
from dfs_ros.camera.source import SourceFrame, SweepCamera
from dfs_ros.cli.main import main
from dfs_ros.config import CameraConfig, LensConfig
from dfs_ros.io.stack_description import read_description
from dfs_ros.io.stack_folder import load_stack, read_reference_depth, save_stack
from dfs_ros.messages.compressed import image_from_compressed
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    FOCUS,
    IMAGE,
    camera_info_from_message,
    focus_from_message,
    image_from_message,
    stamp_ns,
)
from dfs_ros.messages.motion import TF
from dfs_ros.simulation.render import render_images
from dfs_ros.simulation.scenes import DEMO_FOCUS_DIOPTERS, DEMO_PERIOD_S, demo_camera, demo_scene
from dfs_ros.stacks.assembler import StackAssembler
from dfs_ros.transport.base import LATCHED, SENSOR_DATA
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import Camera, FocalStack, LensState

SMALL = CameraConfig(width=64, height=48)


@pytest.fixture
def recorded() -> FocalStack:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 255, (4, 40, 60, 3), np.uint8)
    camera = Camera(0.0043, 1.9, 5e-6)
    return FocalStack(
        images, np.array([0.2, 1.0, 3.0, 5.0]), camera, magnification=np.array([1.0, 1.01, 1.02, math.nan])
    )


def first(source: Any, count: int) -> list[SourceFrame]:
    return list(itertools.islice(source.frames(), count))


def stacks_of(frames: list[SourceFrame]) -> tuple[list[Any], StackAssembler]:
    assembler = StackAssembler()
    sweeps = []
    for i, frame in enumerate(frames):
        stamp = 10**18 + i * 33_000_000
        sweeps += assembler.add_image(stamp, frame.image)
        sweeps += assembler.add_focus(dataclasses.replace(frame.focus, stamp_ns=stamp))
    return sweeps, assembler


@pytest.mark.parametrize("sweep", ["triangular", "sawtooth"])
@pytest.mark.parametrize("moving_frames", [0, 2])
def test_simulated_sweeps_are_numbered_so_that_they_come_out_whole(
    sweep: str, moving_frames: int, rendered: Path
) -> None:
    config = dataclasses.replace(SMALL, sweep=sweep, moving_frames=moving_frames)
    source = SimulatedSource(config, cache=rendered)
    sweeps, assembler = stacks_of(first(source, 3 * source.frames_per_sweep))
    assert len(sweeps) == 3
    for i, each in enumerate(sweeps):
        focus = [frame.focus_diopters for frame in each.frames]
        forth = sweep == "sawtooth" or i % 2 == 0
        assert focus == pytest.approx(DEMO_FOCUS_DIOPTERS if forth else DEMO_FOCUS_DIOPTERS[::-1])
        assert each.sweep_id == i
    gaps = 4 * moving_frames if sweep == "triangular" else 5 * moving_frames
    assert assembler.counts["moving"] == 3 * gaps
    assert assembler.counts["dropped"] == 0


def test_simulated_images_are_kept_and_differ_by_noise_alone(tmp_path: Path) -> None:
    shares: list[float] = []
    source = SimulatedSource(SMALL, shares.append, cache=tmp_path)
    assert shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(shares)
    frames = first(source, 10)
    again = SimulatedSource(SMALL, lambda share: pytest.fail("rendered again"), cache=tmp_path)
    np.testing.assert_array_equal([f.image for f in first(again, 10)], [f.image for f in frames])
    difference = frames[0].image.astype(float) - frames[9].image  # both at 2.2 dioptres, there and back
    assert difference.std() == pytest.approx(math.sqrt(2) * 255 * SMALL.noise, rel=0.2)
    assert frames[0].focus.focal_length_m == demo_camera(64).focal_length_m
    assert math.isnan(frames[0].focus.magnification)  # it breathes, and the driver does not know how much


def test_damaged_cache_is_rendered_again(tmp_path: Path) -> None:
    good = first(SimulatedSource(SMALL, cache=tmp_path), 1)[0]
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:1000])
    np.testing.assert_array_equal(first(SimulatedSource(SMALL, cache=tmp_path), 1)[0].image, good.image)


def test_a_swaying_camera_goes_once_round_in_its_period() -> None:
    shots = loop_of_shots(dataclasses.replace(SMALL, moving=True))
    assert len(shots) == 360
    times = np.array([shot.time_s for shot in shots])
    np.testing.assert_allclose(np.diff(times), DEMO_PERIOD_S / 360)
    assert times[0] == 0.0


def test_a_swaying_camera_sees_the_scene_move(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, moving=True, rate_hz=20 / DEMO_PERIOD_S, noise=0.0, sweep="sawtooth")
    frames = first(SimulatedSource(config, cache=tmp_path), 25)
    assert [f.focus.index for f in frames] == [0, 1, 2, 3, 4] * 5
    assert (frames[0].image != frames[5].image).mean() > 0.3  # a quarter of a period later
    np.testing.assert_array_equal(frames[0].image, frames[20].image)


def test_a_swaying_camera_tells_where_it_is(tmp_path: Path) -> None:
    """At the stamp of each image: x forward, y left, z up of the body at rest; the image is the scene from there."""
    config = dataclasses.replace(SMALL, moving=True, sway_period_s=1.0, rate_hz=20.0, sweep="sawtooth", noise=0.0)
    bus = LocalBus(start_ns=10**18)
    camera, listener = LocalTransport("dfs_camera", bus), LocalTransport("listener", bus)
    received: dict[str, list[Any]] = {"image": [], "/tf": [], "/tf_static": []}
    for topic, kind, qos in (("image", IMAGE, SENSOR_DATA), ("/tf", TF, SENSOR_DATA), ("/tf_static", TF, LATCHED)):
        listener.create_subscription(topic, kind, received[topic].append, qos)
    SweepCamera(camera, SimulatedSource(config, cache=tmp_path), config).activate()
    for _ in range(11):
        bus.advance_to(bus.now_ns() + 50_000_000)
        while camera.spin_once(0) or listener.spin_once(0):
            pass
    (mount,) = received["/tf_static"][0].transforms
    assert (mount.header.frame_id, mount.child_frame_id) == ("camera_link", "camera_optical_frame")
    turn = mount.transform.rotation
    assert (turn.x, turn.y, turn.z, turn.w) == pytest.approx((-0.5, 0.5, -0.5, 0.5))
    moved = [msg.transforms[0] for msg in received["/tf"]]
    assert {(each.header.frame_id, each.child_frame_id) for each in moved} == {("odom", "camera_link")}
    assert [each.header.stamp for each in moved] == [msg.header.stamp for msg in received["image"]]
    places = [each.transform.translation for each in moved]
    np.testing.assert_allclose([p.x for p in places], 0.0, atol=1e-12)
    phases = 2 * math.pi * np.arange(len(places)) / 20
    np.testing.assert_allclose([p.y for p in places], -0.03 * np.sin(phases), atol=1e-9)  # to the left
    np.testing.assert_allclose([p.z for p in places], -0.012 * np.sin(2 * phases), atol=1e-9)
    height, width = SMALL.height, SMALL.width
    views = [image_from_message(received["image"][i]) for i in (0, 10, 5)]
    np.testing.assert_array_equal(views[0], views[1])
    seen = demo_scene(width, height, 0.25, period_s=1.0)
    optics = demo_camera(width)
    expected = render_images(
        seen.rgb, seen.depth_m, optics, [DEMO_FOCUS_DIOPTERS[0]], noise=0, breathing=True, layer_step_px=1
    )
    np.testing.assert_array_equal(views[2], expected[0])


def test_recorded_photos_are_sent_as_they_are(recorded: FocalStack, tmp_path: Path) -> None:
    source = RecordedSource(save_stack(recorded, tmp_path / "s"), CameraConfig())
    frames = first(source, 8)
    np.testing.assert_array_equal([f.image for f in frames[:4]], recorded.images)
    np.testing.assert_array_equal([f.image for f in frames[4:]], recorded.images[::-1])
    assert [f.focus.focus_diopters for f in frames[:4]] == recorded.focus_diopters.tolist()
    assert [(f.focus.sweep_id, f.focus.index, f.focus.count) for f in frames[3:6]] == [(0, 3, 4), (1, 0, 4), (1, 1, 4)]
    assert {f.focus.lens_state for f in frames} == {LensState.STATIONARY}
    np.testing.assert_array_equal([f.focus.magnification for f in frames[:4]], recorded.magnification)
    assert source.description == "recorded stack s: 4 images of 60 x 40, focus 0.2 to 5 dioptres"


def test_large_photos_are_reduced_and_say_so(recorded: FocalStack, tmp_path: Path) -> None:
    large = dataclasses.replace(recorded, images=recorded.images.repeat(4, axis=1).repeat(4, axis=2))  # 240 x 160
    source = RecordedSource(save_stack(large, tmp_path / "s"), CameraConfig(max_megapixels=0.01))
    (frame,) = first(source, 1)
    height, width = source.size
    assert frame.image.shape == (height, width, 3)
    assert height * width <= 10_200 and width / height == pytest.approx(1.5, rel=0.02)
    assert source.intrinsics.fx == pytest.approx(0.0043 / 5e-6 * width / 240)
    assert f"4 images of {width} x {height} (photos are 240 x 160)" in source.description


def test_enlarged_images_cannot_be_sent(recorded: FocalStack, tmp_path: Path) -> None:
    enlarged = dataclasses.replace(recorded, blur_scale=np.array([1.0, 1.0, 1.1, 1.0]))
    with pytest.raises(ValueError, match="enlarged by alignment"):
        RecordedSource(save_stack(enlarged, tmp_path / "s"), CameraConfig(), LensConfig())


def test_camera_on_a_transport(recorded: FocalStack, tmp_path: Path) -> None:
    source = RecordedSource(save_stack(recorded, tmp_path / "s"), CameraConfig())
    bus = LocalBus(start_ns=10**18)
    camera, listener = LocalTransport("dfs_camera", bus), LocalTransport("listener", bus)
    received: dict[str, list[Any]] = {"image": [], "camera_info": [], "focus": []}
    for topic, kind in (("image", IMAGE), ("camera_info", CAMERA_INFO), ("focus", FOCUS)):
        listener.create_subscription(topic, kind, received[topic].append)
    SweepCamera(camera, source, CameraConfig(rate_hz=20, frame_id="eye")).activate()
    for _ in range(10):
        bus.advance_to(bus.now_ns() + 25_000_000)
        while camera.spin_once(0) or listener.spin_once(0):
            pass
    assert [len(messages) for messages in received.values()] == [5, 5, 5]
    for messages in zip(*received.values(), strict=True):
        assert len({(stamp_ns(m.header.stamp), m.header.frame_id) for m in messages}) == 1
    stamps = [stamp_ns(m.header.stamp) for m in received["image"]]
    assert stamps == [10**18 + 50_000_000 * i for i in range(1, 6)]
    assert received["image"][0].header.frame_id == "eye"
    np.testing.assert_array_equal(image_from_message(received["image"][1]), recorded.images[1])
    focus = focus_from_message(received["focus"][1])
    assert (focus.focus_diopters, focus.index, focus.stamp_ns) == (1.0, 1, stamps[1])
    info = camera_info_from_message(received["camera_info"][0])
    assert info.size == (40, 60)
    assert info.intrinsics.fx == pytest.approx(0.0043 / 5e-6)


# -- dfs simulate ------------------------------------------------------------------------------------------------------


def test_camera_compresses_while_somebody_listens(recorded: FocalStack, tmp_path: Path) -> None:
    grey = dataclasses.replace(recorded, images=recorded.images[..., :1].repeat(3, axis=3))  # JPEG halves colours
    source = RecordedSource(save_stack(grey, tmp_path / "stack"), SMALL)
    bus = LocalBus()
    transport, listener = LocalTransport("camera", bus, namespace="/left"), LocalTransport("listener", bus)
    camera = SweepCamera(transport, source, SMALL)
    camera.send()
    published = {publisher.topic: publisher for publisher in transport.publishers}
    raw: list[Any] = []
    compressed: list[Any] = []
    listener.create_subscription("/left/image", IMAGE, raw.append)
    listener.create_subscription("/left/image/compressed", COMPRESSED, compressed.append)
    camera.send()
    while listener.spin_once(0):
        pass
    assert published["/left/image/compressed"].published == 1  # not the one before
    assert stamp_ns(compressed[0].header.stamp) == stamp_ns(raw[0].header.stamp)
    assert compressed[0].format == "rgb8; jpeg compressed bgr8"
    difference = image_from_compressed(compressed[0]).astype(int) - image_from_message(raw[0])
    assert np.abs(difference).mean() < 3
    silent = LocalTransport("other", bus)
    SweepCamera(silent, source, dataclasses.replace(SMALL, jpeg_quality=0))
    assert not any(publisher.topic.endswith("compressed") for publisher in silent.publishers)


def test_simulate_writes_a_stack_with_its_true_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stack"
    options = ["--scene", "plane", "--depth", "0.8", "--size", "64x48", "--focus", "2,1", "--noise", "0"]
    assert main(["simulate", "--output", str(out), *options]) == 0
    stack = load_stack(out)
    assert stack.size == (48, 64)
    assert stack.focus_diopters.tolist() == [2.0, 1.0]
    assert stack.camera.pixel_pitch_m == pytest.approx(12.8e-3 / 64)
    depth_m = np.load(out / "true_depth.npy")
    np.testing.assert_allclose(depth_m, 0.8, rtol=1e-6)
    reference = read_reference_depth(read_description(out))
    assert reference is not None
    np.testing.assert_array_equal(reference, depth_m)
    assert sorted(p.name for p in out.iterdir()) == [
        *("000.png", "001.png", "scene.png", "stack.yaml", "true_depth.npy", "true_depth.png")
    ]
    assert "2 images of 64 x 48, depth 0.8 to 0.8 m" in capsys.readouterr().out


def test_simulate_is_repeatable_and_its_seed_counts(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        options = ["--scene", "random", "--size", "48x32", "--focus", "2,1", "--seed", str(seed), "--breathing"]
        assert main(["simulate", "--output", str(folder), *options]) == 0
    one, same, other = (load_stack(folder).images for folder in folders)
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--focus", "2,x"], "--focus: expected dioptres such as"),
        (["--focus", "2"], "a focal stack needs at least 2 images"),
        (["--focus", "50,1"], "inside the focal length"),
        (["--size", "8x8"], "--size: expected at least 16x16"),
        (["--f-number", "0"], "camera.f_number: expected a finite number over 0"),
        (["--noise", "-1"], "simulation.noise: expected 0 to 0.5"),
        (["--scene", "plane", "--depth", "-1"], "--depth: expected metres over 0"),
        (["--scene", "random", "--near", "5"], "scene: expected 0 < near_m < far_m"),
    ],
)
def test_simulate_refuses_nonsense_and_writes_nothing(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--size", "32x24", "--output", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_simulate_leaves_a_folder_with_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert main(["simulate", "--output", str(tmp_path)]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
