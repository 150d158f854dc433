"""Poses from the transforms in a bag, as live: the swaying simulated camera, recorded and replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_rig import dfs_replay, messages_of
from node_rig import START_NS

from dfs_ros.camera.simulator import SimulatedSource
from dfs_ros.camera.source import SweepCamera
from dfs_ros.config import CameraConfig
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.bag.writer import BagWriter


@pytest.fixture(scope="module")
def swaying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a camera that sways once; bag of images and transforms."""
    folder = tmp_path_factory.mktemp("swaying")
    config = CameraConfig(width=96, height=72, moving=True, sway_period_s=1.0)
    with BagWriter(folder / "bag") as writer, BagTransport("camera", writer, START_NS) as camera:
        camera.manage(SweepCamera(camera, SimulatedSource(config, cache=folder), config))
        camera.advance_to(START_NS + 10**9)
    return folder / "bag"


def motion_of(bag: Path) -> tuple[int, str, dict[str, str]]:
    """Level, text and values of the last diagnostics."""
    status = next(s for s in messages_of(bag)["/diagnostics"][-1].status if s.name == "dfs: motion")
    return int(status.level), status.message, {pair.key: pair.value for pair in status.values}


def test_every_stack_of_a_bag_has_the_poses_of_its_transforms(swaying, tmp_path, capsys):
    assert dfs_replay(swaying, tmp_path / "out", "--copy", "none") == 0
    assert "from /image, /camera_info, /focus, /tf, /tf_static" in capsys.readouterr().out
    _, _, values = motion_of(tmp_path / "out")
    assert (values["tf"], values["images_alone"], values["frames"]) == ("6", "0", "2")
    assert 0.03 < float(values["speed_m_s"]) < 0.25


def test_a_replay_from_the_middle_has_the_static_transforms_too(swaying, tmp_path):
    assert dfs_replay(swaying, tmp_path / "out", "--start", "0.5") == 0
    values = motion_of(tmp_path / "out")[2]
    assert int(values["tf"]) >= 1 and values["tf_disconnected"] == "0"
    assert "/tf_static" in messages_of(tmp_path / "out")  # copied as well


def test_images_alone_where_the_settings_say_so(swaying, tmp_path):
    assert dfs_replay(swaying, tmp_path / "out", "--set", "motion.source=images") == 0
    assert motion_of(tmp_path / "out")[2]["images_alone"] == "6"
