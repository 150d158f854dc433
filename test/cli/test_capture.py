"""`dfs capture`: one focal stack from a camera, topics, a node or a bag; `dfs estimate` on a bag."""

from __future__ import annotations

import json
import threading
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from bag_rig import FAST, record_plane
from dds_names import new_domain, new_namespace
from node_rig import PLANE_M, START_NS
from v4l2_rig import TABLE, Bench, bench

from dfs_ros.camera.recorded import RecordedSource
from dfs_ros.camera.source import SweepCamera
from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.io.stack_folder import load_stack, save_stack
from dfs_ros.messages.convert import FOCUS, IMAGE, focus_message, image_message
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.node.taking import StackTaker
from dfs_ros.transport.dds.transport import DdsTransport
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import FocalStack, FocusMetadata

__all__ = ["bench"]  # a fixture
Capture = pytest.CaptureFixture[str]
PATIENCE_S = 40.0  # of the longest stack: a busy machine may keep an image waiting


def test_a_webcam_is_captured_by_its_calibration(bench: Bench, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "stack"
    settings = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 3e-6}
    command = ["capture", "--output", str(output), "--source", "v4l2", str(bench.camera.path)]
    command += ["--calibration", str(bench.table), "--rate", "100", "--size", "64x48"]
    for name, value in {"v4l2.pixel_format": "GREY", "v4l2.settle_s": 0.03}.items():
        command += ["--set", f"{name}={value}"]
    for name, value in settings.items():
        command += ["--set", f"lens.{name}={value}"]
    assert main(command) == 0
    assert f"{output}: next: dfs estimate" in capsys.readouterr().out
    stack = load_stack(output)
    points = TABLE["points"]
    assert isinstance(points, list) and len(stack) == 5
    assert sorted(stack.focus_diopters) == pytest.approx([0.0, 1.25, 2.5, 3.75, 5.0], abs=0.06)
    # The camera sees the raw position of its lens.
    assert stack.images[:, 0, 0].tolist() == pytest.approx((50 * stack.focus_diopters).tolist(), abs=3)
    assert not bench.camera.streaming
    assert main(command) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert main(["capture"]) == 2 and "expected either --output DIR" in capsys.readouterr().err


def test_a_bag_is_estimated(tmp_path: Path, capsys: Capture) -> None:
    bag = record_plane(tmp_path / "plane")
    output = tmp_path / "depth"
    assert main(["estimate", str(bag), "--output", str(output), "--json", *FAST]) == 0
    (done,) = json.loads(capsys.readouterr().out)["stacks"]
    assert done["stack"] == str(bag) and done["error"] is None
    assert np.nanmedian(np.load(output / "depth.npy")) == pytest.approx(PLANE_M, rel=0.03)
    short = record_plane(tmp_path / "short", sweeps=0)
    assert main(["estimate", str(short), "--output", str(tmp_path / "none"), *FAST]) == 2
    assert "no images" in capsys.readouterr().err


def test_topics_and_a_running_node_are_captured(plane: FocalStack, tmp_path: Path, capsys: Capture) -> None:
    """Over DDS: a camera and a depth node, which two calls of the command meet."""
    domain, namespace = new_domain(), new_namespace()
    sections = {"dds": {"domain_id": domain}, "node": {"capture_folder": str(tmp_path / "own")}}
    sections |= {"network": {"name": "none"}, "camera": {"rate_hz": 20.0}}
    config = Config.from_dict({**sections, "stack": {"max_span_s": PATIENCE_S}})
    folder = save_stack(plane, tmp_path / "plane")
    camera, node = (DdsTransport(name, namespace=namespace, config=config) for name in ("camera", "dfs"))
    camera.manage(SweepCamera(camera, RecordedSource(folder, config.camera, config.lens), config.camera))
    options = ["--transport", "dds", "--namespace", namespace, "--set", f"dds.domain_id={domain}"]
    options += ["--set", f"stack.max_span_s={PATIENCE_S}"]
    with camera, node, DepthNode(node):
        threads = [threading.Thread(target=transport.spin) for transport in (camera, node)]
        for thread in threads:
            thread.start()
        assert main(["capture", "--output", str(tmp_path / "taken"), *options]) == 0
        assert main(["capture", "--node", f"{namespace}/dfs", *options]) == 0
        for transport, thread in zip((camera, node), threads, strict=True):
            transport.shutdown()
            thread.join(240)
    (own,) = (tmp_path / "own").iterdir()
    assert f"{own}: next: dfs estimate {own}" in capsys.readouterr().out
    for found in (load_stack(tmp_path / "taken"), load_stack(own)):
        assert sorted(found.focus_diopters) == pytest.approx(sorted(plane.focus_diopters), abs=1e-6)
        order, own_order = np.argsort(found.focus_diopters), np.argsort(plane.focus_diopters)
        np.testing.assert_array_equal(found.images[order], plane.images[own_order])


@pytest.mark.parametrize(("midway", "taken"), [(False, [1.0, 1.5, 2.0, 2.5]), (True, [0.5, 1.0, 1.5, 2.0, 2.5])])
def test_a_sweep_under_way_is_not_a_whole_one(tmp_path: Path, midway: bool, taken: list[float]) -> None:
    bus = LocalBus(START_NS)
    lens = {"focal_length_m": 0.01, "f_number": 2.0, "pixel_pitch_m": 1e-5}
    node = LocalTransport("dfs_capture", bus, config=Config.from_dict({"lens": lens}))
    camera = LocalTransport("camera", bus)
    images, focus = camera.create_publisher("image", IMAGE), camera.create_publisher("focus", FOCUS)
    with StackTaker(node, tmp_path / "stack", midway) as taker:
        for each in (1.0, 1.0, 1.5, 2.0, 2.5, 2.0, 1.5, 1.0, 0.5, 1.0, 1.5):
            bus.advance_to(bus.now_ns() + 50_000_000)
            focus.publish(focus_message(FocusMetadata(bus.now_ns(), each), "camera"))
            images.publish(image_message(np.full((16, 16), round(40 * each), np.uint8), bus.now_ns(), "camera"))
            while node.spin_once(0):
                pass
        wait((taker.answer,), 240)
        assert sorted(load_stack(taker.path()).focus_diopters) == pytest.approx(taken)
