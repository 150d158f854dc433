"""The depth node over the in-process transport: real messages, assembler and estimator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_rig import CAMERA, FAST, FOCUS_DIOPTERS, MS, OK, OUTPUTS, PLANE_M, SIZE, START_NS, Rig

from dfs_ros.camera.simulator import SimulatedSource
from dfs_ros.camera.source import SweepCamera
from dfs_ros.config import CameraConfig, Config
from dfs_ros.estimator import parallel
from dfs_ros.io.stack_folder import load_stack
from dfs_ros.messages.convert import (
    TRIGGER,
    Diagnostic,
    camera_info_from_message,
    camera_info_message,
    depth_from_message,
    diagnostics_message,
    image_from_message,
    image_message,
    message,
    stamp_ns,
)
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.optics.pinhole import Intrinsics, intrinsics
from dfs_ros.optics.thin_lens import magnification
from dfs_ros.simulation.scenes import demo_camera, demo_scene
from dfs_ros.transport.local import LocalBus, LocalTransport

# -- depth that is right ----------------------------------------------------------------------------------------------


def test_the_simulated_cameras_planes_come_out_at_their_depth(rendered: Path) -> None:
    camera_config = CameraConfig(width=240, height=180)
    config = Config.from_dict({**FAST, "hypotheses": {"count": 48, "min_depth_m": 0.4, "max_depth_m": 4.0}})
    config = config.updated({"alignment": {"mode": "refine"}, "lens": {"aperture": "fitted"}})
    bus = LocalBus(start_ns=START_NS)
    camera, transport, listener = (LocalTransport(name, bus, config=config) for name in ("camera", "dfs", "listener"))
    received: dict[str, list[Any]] = {topic: [] for topic in OUTPUTS}
    for topic, kind in OUTPUTS.items():
        listener.create_subscription(topic, kind, received[topic].append)
    SweepCamera(camera, SimulatedSource(camera_config, cache=rendered), camera_config).activate()
    with DepthNode(transport, inline=True):
        for _ in range(11):
            bus.advance_to(bus.now_ns() + 34 * MS)
            while camera.spin_once(0) or transport.spin_once(0) or listener.spin_once(0):
                pass

    assert [len(messages) for messages in received.values()] == [2] * len(received)
    headers = [messages[-1].header for messages in received.values()]
    assert {(stamp_ns(h.stamp), h.frame_id) for h in headers} == {(START_NS + 8 * 34 * MS, "camera_optical_frame")}
    depth_m = depth_from_message(received["depth/image"][-1])
    scene = demo_scene(240, 180)
    assert set(scene.plane_depth_m) == {"wall", "letter", "chart", "poster", "screen"}
    for name, expected_m in scene.plane_depth_m.items():
        seen = depth_m[scene.mask(name, margin_px=4)]
        assert np.isfinite(seen).mean() > 0.8, name
        # In dioptres, as blur tells depth: the rendered lens is sharper in focus than the estimator takes lenses for.
        assert np.nanmedian(1.0 / seen) == pytest.approx(1.0 / expected_m, rel=0.04, abs=0.015), name

    # The images breathe: the published intrinsics are those of the reference image, not those of the camera_info.
    info = camera_info_from_message(received["depth/camera_info"][-1])
    sharp_info = camera_info_from_message(received["all_in_focus/camera_info"][-1])
    lens = demo_camera(240)
    assert info.intrinsics == sharp_info.intrinsics
    assert info.size == (180, 240)
    grown = float(magnification(1.1, lens) / magnification(0.0, lens))
    assert info.intrinsics.fx == pytest.approx(intrinsics(lens, (180, 240)).fx * grown, rel=0.01)
    check_cloud(received["depth/points"][-1], depth_m, info.intrinsics, received["all_in_focus/image"][-1])
    sigma_m = depth_from_message(received["depth/sigma"][-1])
    np.testing.assert_array_equal(np.isnan(sigma_m), np.isnan(depth_m))
    assert np.nanmin(sigma_m) > 0
    confidence = depth_from_message(received["depth/confidence"][-1])
    assert confidence.shape == depth_m.shape and confidence.min() >= 0 and confidence.max() <= 1
    known = np.isfinite(depth_m)
    assert np.median(confidence[known]) > np.median(confidence[~known]) + 0.05


def check_cloud(cloud: Any, depth_m: np.ndarray, pinhole: Intrinsics, sharp: Any) -> None:
    """The organised cloud is the depth image, back-projected, with the colours of the all-in-focus image."""
    height, width = depth_m.shape
    assert (cloud.height, cloud.width, cloud.point_step, cloud.is_dense) == (height, width, 32, False)
    floats = np.asarray(cloud.data).view("<f4").reshape(height, width, 8)
    v, u = np.indices(depth_m.shape)
    np.testing.assert_allclose(floats[..., 0], (u - pinhole.cx) / pinhole.fx * depth_m, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(floats[..., 1], (v - pinhole.cy) / pinhole.fy * depth_m, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(floats[..., 2], depth_m)
    bgr = np.asarray(cloud.data).reshape(height, width, 32)[..., 16:19]
    np.testing.assert_array_equal(bgr[..., ::-1], image_from_message(sharp))


def test_two_runs_give_the_same_bytes(make_rig: Callable[..., Rig]) -> None:
    runs = []
    for _ in range(2):
        rig = make_rig()
        rig.listen("depth/image", "depth/points")
        for _ in range(2):
            rig.send_sweep()
        runs.append([bytes(np.asarray(m.data)) for topic in rig.received for m in rig.received[topic]])
    assert len(runs[0]) == 4
    assert runs[0] == runs[1]


def test_sliding_stacks_give_a_depth_with_a_stamp_of_its_own_for_each_image(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"stack": {"mode": "sliding"}})
    rig.listen("depth/image")
    stamps = rig.send_sweep() + rig.send_sweep()
    assert [stamp_ns(m.header.stamp) for m in rig.depths()] == stamps[2:]
    assert np.nanmedian(depth_from_message(rig.depths()[-1])) == pytest.approx(PLANE_M, rel=0.03)


# -- only what is asked for --------------------------------------------------------------------------------------------


def test_the_steps_of_an_estimate_are_told(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.listen("depth/image")
    assert not [key for key in rig.status()[2] if key.startswith("seconds")]
    rig.send_sweep()
    level, text, values = rig.status()
    assert (level, text, values["published"]) == (OK, "computing depth", "1")
    assert float(values["seconds cost volume"]) > 0
    assert values["share_with_depth"] == f"{np.isfinite(depth_from_message(rig.depths()[0])).mean():.3f}"
    assert float(values["sigma gain"]) == 0.05  # of a focus that states no doubt
    assert float(values["sigma local"]) > 0 and float(values["sigma offset"]) > 0


def test_the_rate_of_images_is_that_of_the_camera(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    for _ in range(11):
        rig.send_sweep()  # 33 images in 1.1 s, in which diagnostics come once
    (status,) = [s for s in rig.diagnostics[-1].status if s.name == "dfs: depth"]
    assert {pair.key: pair.value for pair in status.values}["images_hz"] == "30.00"


def test_the_all_in_focus_image_is_only_made_for_who_listens(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.listen("depth/points")
    rig.send_sweep()

    def colours() -> np.ndarray:
        data = np.asarray(rig.received["depth/points"][-1].data).reshape(*SIZE, 32)
        return data[..., [18, 17, 16]]

    np.testing.assert_array_equal(colours(), rig.stack.images[1])  # the reference, as it came
    rig.listen("all_in_focus/image")
    rig.send_sweep()
    sharp = image_from_message(rig.received["all_in_focus/image"][0])
    assert (sharp != rig.stack.images[1]).mean() > 0.1
    np.testing.assert_array_equal(colours(), sharp)


def test_settings_change_while_running(rig: Rig) -> None:
    rig.listen("depth/points")
    rig.transport.parameters.set({"node.depth_encoding": "16UC1", "node.cloud_skip": 5})
    rig.send_sweep()
    assert rig.depths()[0].encoding == "16UC1"
    depth_m = depth_from_message(rig.depths()[0])
    cloud = rig.received["depth/points"][0]
    assert (cloud.width, cloud.height) == (20, 15)
    floats = np.asarray(cloud.data).view("<f4").reshape(15, 20, 8)
    np.testing.assert_allclose(floats[..., 2], depth_m[::5, ::5], atol=6e-4)
    pinhole = intrinsics(CAMERA, SIZE)
    np.testing.assert_allclose(
        floats[7, :, 0], (np.arange(20) * 5 - pinhole.cx) / pinhole.fx * floats[7, :, 2], rtol=1e-5
    )

    rig.transport.parameters.set({"hypotheses.min_depth_m": 1.5})
    rig.send_sweep()
    assert np.nanmin(depth_from_message(rig.depths()[1]), initial=9.0) >= 1.5
    with pytest.raises(ValueError, match=r"network\.name: cannot change"):
        rig.transport.parameters.set({"network.name": "light"})


# -- threads, life cycle -----------------------------------------------------------------------------------------------


TWO_PROCESSES = {"threads": 2, "processes": 2}


@pytest.mark.parametrize("processing", [{}, TWO_PROCESSES], ids=["one thread", "two processes"])
def test_the_newest_stack_wins(
    make_rig: Callable[..., Rig], processing: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    all_sent = threading.Event()
    for kind in (parallel.DepthEstimator, parallel.ParallelEstimator):

        def when_all_are_sent(*arguments: Any, estimate: Any = kind.estimate, **options: Any) -> Any:
            assert all_sent.wait(240)
            return estimate(*arguments, **options)

        monkeypatch.setattr(kind, "estimate", when_all_are_sent)
    rig = make_rig({"processing": processing}, inline=False)
    rig.listen("depth/image")
    deadline = time.monotonic() + 240
    while rig.status()[2]["state"] != "computing depth":  # but loading still
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(12):
        stamps = rig.send_sweep()
    all_sent.set()
    while not (rig.depths() and stamp_ns(rig.depths()[-1].header.stamp) in stamps):
        rig.spin()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    published = [stamp_ns(m.header.stamp) for m in rig.depths()]
    assert published == sorted(published)
    assert np.nanmedian(depth_from_message(rig.depths()[-1])) == pytest.approx(PLANE_M, rel=0.03)
    values = rig.status()[2]
    assert int(values["superseded"]) > 0
    assert int(values["stacks"]) == 12 == int(values["superseded"]) + len(published)


@pytest.mark.parametrize("processing", [{}, TWO_PROCESSES], ids=["one thread", "two processes"])
def test_a_network_that_cannot_be_loaded_ends_the_spinning(
    make_rig: Callable[..., Rig], processing: dict[str, int]
) -> None:
    rig = make_rig({"network": {"name": "no_such_network"}, "processing": processing}, inline=False)
    with pytest.raises(FileNotFoundError, match="no_such_network"):
        rig.transport.spin_once(240)


def test_inactive_it_takes_nothing_and_active_again_it_works(rig: Rig) -> None:
    rig.send_sweep()
    rig.node.deactivate()
    rig.send_sweep()
    level, text, values = rig.status()
    assert (level, text, values["stacks"]) == (OK, "inactive", "1")
    rig.node.activate()
    rig.advance(2000)
    assert rig.status()[0] == OK  # silence is counted from now
    rig.send_sweep()
    assert len(rig.depths()) == 2


def test_configured_it_says_what_it_waits_for_and_is_ready_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As native nodes do, whose networks are loaded before they are active."""
    rig.node.close()
    may_load, load = threading.Event(), parallel.DepthEstimator

    def load_later(*arguments: Any, **options: Any) -> Any:
        assert may_load.wait(240)
        return load(*arguments, **options)

    monkeypatch.setattr(parallel, "DepthEstimator", load_later)
    configuring = threading.Thread(target=rig.node.configure)
    configuring.start()
    while (text := rig.status()[1]) != "loading the network":
        assert text == "inactive"
    may_load.set()
    configuring.join(240)
    assert rig.status()[1] == "inactive"
    rig.node.activate()
    rig.send_sweep()
    assert len(rig.depths()) == 1


# -- services and other sources ----------------------------------------------------------------------------------------


def ask(rig: Rig, name: str) -> Any:
    """Call a service of the node, which answers in this thread."""
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(rig.listener.call_service(name, TRIGGER, message(f"{TRIGGER}_Request"), 240))
    )
    asking.start()
    while not answers:
        rig.transport.spin_once(0.01)
    asking.join()
    return answers[0]


def test_capture_writes_the_newest_stack(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig({"node": {"capture_folder": str(tmp_path / "captures")}})
    rig.listen("depth/image")
    rig.send_sweep()
    stamps = rig.send_sweep()
    first, second = ask(rig, "/dfs/capture"), ask(rig, "/dfs/capture")
    assert first.success and second.success
    assert first.message != second.message
    assert Path(first.message).parent == tmp_path / "captures"
    captured = load_stack(first.message)
    np.testing.assert_array_equal(captured.images, rig.stack.images)
    np.testing.assert_allclose(captured.focus_diopters, FOCUS_DIOPTERS, rtol=1e-6)
    assert captured.stamp_ns.tolist() == stamps
    assert captured.camera.f_number == pytest.approx(1.4)
    assert captured.camera.pixel_pitch_m == pytest.approx(CAMERA.pixel_pitch_m)


def test_a_capture_that_cannot_be_written_is_answered(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    rig = make_rig({"node": {"capture_folder": str(tmp_path / "file")}})
    rig.listen("depth/image")
    rig.send_sweep()
    answer = ask(rig, "/dfs/capture")
    assert not answer.success
    assert "cannot be written" in answer.message


def test_the_lens_position_of_camera_ros_can_stand_for_focus_messages(make_rig: Callable[..., Rig]) -> None:
    lens = {"focal_length_m": CAMERA.focal_length_m, "f_number": CAMERA.f_number}
    rig = make_rig({"node": {"focus_source": "diagnostics"}, "lens": lens, "stack": {"size": 3}})
    rig.listen("depth/image")
    for sweep in range(2):
        for i in (0, 1, 2) if sweep == 0 else (2, 1, 0):
            stamp = rig.bus.now_ns()
            rig.send("camera_info", camera_info_message(intrinsics(CAMERA, SIZE), SIZE, stamp, "lens"))
            position = Diagnostic("OK", "", {"LensPosition": FOCUS_DIOPTERS[i], "ExposureTime": 10000})
            rig.send("/diagnostics", diagnostics_message({"camera": position}, stamp))
            rig.send("image", image_message(rig.stack.images[i], stamp, "lens"))
            rig.advance(33)
    assert len(rig.depths()) >= 1
    assert np.nanmedian(depth_from_message(rig.depths()[0])) == pytest.approx(PLANE_M, rel=0.04)
