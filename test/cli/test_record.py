"""`dfs record`: what is received goes into a bag, from which `dfs replay` gets the same depth."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bag_rig import FAST, messages_of
from dds_names import new_domain, new_namespace
from node_rig import PLANE_M, SIZE, START_NS

from dfs_ros.camera.recorded import RecordedSource
from dfs_ros.camera.source import SweepCamera
from dfs_ros.cli.main import main
from dfs_ros.cli.record import INPUTS, record
from dfs_ros.config import CameraConfig
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.messages.convert import depth_from_message, image_from_message, message, stamp_ns
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.transport.base import LATCHED
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import FocalStack

Capture = pytest.CaptureFixture[str]


def test_what_is_received_is_written_with_its_time(plane: FocalStack, tmp_path: Path) -> None:
    bus = LocalBus(START_NS)
    camera, recorder = LocalTransport("camera", bus), LocalTransport("recorder", bus)
    transforms = camera.create_publisher("/tf_static", "tf2_msgs/msg/TFMessage", LATCHED)
    transforms.publish(message("tf2_msgs/msg/TFMessage"))
    config = CameraConfig(rate_hz=20)
    camera.manage(SweepCamera(camera, RecordedSource(save_stack(plane, tmp_path / "stack"), config), config))
    with BagWriter(tmp_path / "bag") as writer:
        record(recorder, writer, INPUTS)
        for _ in range(12):
            bus.advance_to(bus.now_ns() + 25_000_000)
            while camera.spin_once(0) or recorder.spin_once(0):
                pass
    found = messages_of(tmp_path / "bag")
    assert {topic: len(messages) for topic, messages in found.items()} == {
        **{"/image": 6, "/camera_info": 6, "/focus": 6},
        **{"/tf": 0, "/tf_static": 1, "/imu": 0},  # it was published before
    }
    np.testing.assert_array_equal([image_from_message(m) for m in found["/image"][:3]], plane.images)
    with BagReader(tmp_path / "bag") as reader:
        topics = {t.name: t for t in reader.topics}
        times = [m.stamp_ns for m in reader.messages([topics["/image"]])]
        assert times == [stamp_ns(m.header.stamp) for m in found["/image"]]
        assert topics["/tf_static"].connection.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
    assert main(["replay", str(tmp_path / "bag"), "--output", str(tmp_path / "out"), *FAST]) == 0
    depth_m = depth_from_message(messages_of(tmp_path / "out")["/depth/image"][0])
    assert np.nanmedian(depth_m) == pytest.approx(PLANE_M, rel=0.03)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of nodes that hear each other and nobody else."""
    pytest.importorskip("cyclonedds", reason="cyclonedds, which has no package for this machine, carries this")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(new_domain()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    namespace = new_namespace()
    return ["--transport", "dds", "--namespace", namespace, "--set", "dds.interface=lo"]


def test_over_dds_until_ctrl_c(plane: FocalStack, tmp_path: Path, network: list[str]) -> None:
    folder = save_stack(plane, tmp_path / "stack")
    dfs = [sys.executable, "-m", "dfs_ros.cli.main"]
    output = tmp_path / "bag.mcap"
    options = ["--topics", "image", "camera_info", "focus"]
    recording = subprocess.Popen(
        [*dfs, "record", "--output", str(output), *options, *network], stdout=subprocess.PIPE, text=True
    )
    camera = subprocess.Popen([*dfs, "camera", "--source", "stack", str(folder), "--rate", "10", *network])
    try:
        assert recording.stdout is not None
        for line in recording.stdout:  # a line each five seconds
            if min(int(count) for count in re.findall(r"/\w+ (\d+)", line)) >= 9:
                break
        with BagReader(output) as reader:  # it can be read at any moment
            assert reader.damage.unfinished and reader.count >= 27
        recording.send_signal(signal.SIGINT)
        said, _ = recording.communicate(timeout=240)
    finally:
        for process in (camera, recording):
            process.kill()
            process.wait()
    assert recording.returncode == 0
    assert said.splitlines()[-1].startswith(f"{output}: ")
    namespace = network[3]
    with BagReader(output) as reader:
        counts = {t.name.removeprefix(namespace): t.messages for t in reader.topics}
        assert set(counts) == {"/image", "/camera_info", "/focus"}
        assert min(counts.values()) >= 9
    assert main(["replay", str(output), "--output", str(tmp_path / "out"), "--namespace", namespace, *FAST]) == 0
    depth = messages_of(tmp_path / "out")[f"{namespace}/depth/image"][0]
    assert (depth.height, depth.width) == SIZE
    assert np.nanmedian(depth_from_message(depth)) == pytest.approx(PLANE_M, rel=0.03)


def test_nothing_received_is_nothing_written(tmp_path: Path, network: list[str], capsys: Capture) -> None:
    assert main(["record", "--output", str(tmp_path / "bag"), "--duration", "0.3", *network]) == 2
    assert f"nothing was received on {network[3]}/image" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--topics", "img"], "--topics: expected some of image, image/compressed"),
        (["--duration", "0"], "--duration: expected seconds over 0"),
        (["--format", "sqlite3", "--output", "a.mcap"], "its suffix means mcap, received storage 'sqlite3'"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, capsys: Capture, options: list[str], words: str) -> None:
    assert main(["record", "--output", str(tmp_path / "bag"), *options]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
