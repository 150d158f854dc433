"""ROS parameter files as settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import ROOT

from dfs_ros.config import Config

WANTED = Config.from_dict({"hypotheses": {"count": 12, "max_depth_m": 4.0}, "lens": {"f_number": 2.0}})


def load(folder: Path, text: str) -> Config:
    file = folder / "parameters.yaml"
    file.write_text(text)
    return Config.load(file)


@pytest.mark.parametrize("node", ["/**", "dfs", "/left/dfs", "my_depth_node", "/**/dfs"])
def test_any_node_name_or_wildcard(tmp_path: Path, node: str) -> None:
    parameters = "{hypotheses: {count: 12, max_depth_m: 4.0}, lens: {f_number: 2}}"
    assert load(tmp_path, f'"{node}":\n  ros__parameters: {parameters}\n') == WANTED


def test_namespaces_dots_and_parameters_of_ros(tmp_path: Path) -> None:
    text = """
left:
  dfs:
    ros__parameters:
      use_sim_time: true
      qos_overrides./image.subscription.depth: 3
      hypotheses.count: 12
      hypotheses: {max_depth_m: 4.0}
      lens.f_number: 2.0
"""
    assert load(tmp_path, text) == WANTED


def test_the_node_overrides_the_wildcard_and_others_stay_out(tmp_path: Path) -> None:
    text = """
dfs: {ros__parameters: {hypotheses: {count: 12}}}
/**: {ros__parameters: {hypotheses: {count: 99, max_depth_m: 4.0}, lens: {f_number: 2}}}
/front/camera_ros: {ros__parameters: {width: 640, format: XRGB8888}}
"""
    assert load(tmp_path, text) == WANTED


def test_the_packages_own_file_is_the_defaults() -> None:
    assert Config.load(ROOT / "config" / "parameters.yaml") == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/**: {ros__parameters: {hypotheses: {cuont: 3}}}", "hypotheses.cuont: unknown setting; did you mean 'count'"),
        ("dfs: {ros__parameters: {width: 640}}", "width: unknown section"),
        (
            "/a/dfs: {ros__parameters: {lens: {f_number: 2}}}\n/b/dfs: {ros__parameters: {lens: {f_number: 4}}}",
            "expected one node of each name, received /a/dfs, /b/dfs",
        ),
        ("dfs: {ros__parameters: {}}\nlens: 3", "lens: expected ros__parameters below a node name, received 3"),
        ("dfs: {ros__parameters: 7}", "ros__parameters: expected parameters, received 7"),
    ],
)
def test_faults_name_the_file(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"configuration \S+parameters.yaml: ") as caught:
        load(tmp_path, text)
    assert expected in str(caught.value)
