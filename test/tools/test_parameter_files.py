"""config/parameters.yaml is what the configuration says, and what ROS and the configuration read alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from places import ROOT

from dfs_ros.config import Config, sections
from tools import parameter_files
from tools.parameter_files import FILE_NAME, NOT_FOR_ROS, parameter_file

FILE = ROOT / "config" / FILE_NAME


def parameters_of(text: str) -> dict[str, dict[str, object]]:
    (node, content), *others = yaml.safe_load(text).items()
    assert node == "/**" and not others
    parameters: dict[str, dict[str, object]] = content["ros__parameters"]
    return parameters


def test_file_in_the_repository_is_up_to_date() -> None:
    assert FILE.read_text() == parameter_file(Config()), "run `python -m tools.parameter_files`"


def test_every_parameter_with_its_default() -> None:
    wanted = {name: dataclasses.asdict(section) for name, section in sections(Config()) if name not in NOT_FOR_ROS}
    written = parameters_of(parameter_file(Config()))
    assert written == wanted
    for name, settings in written.items():
        for key, value in settings.items():
            # ROS refuses an integer where a float is declared.
            assert type(value) is type(wanted[name][key]), f"{name}.{key}"


def test_every_parameter_is_described() -> None:
    lines = parameter_file(Config()).splitlines()
    for name, section in sections(Config()):
        if name in NOT_FOR_ROS:
            continue
        start = lines.index(f"    {name}:")
        for setting_field in dataclasses.fields(section):
            at = next(i for i in range(start, len(lines)) if lines[i].startswith(f"      {setting_field.name}: "))
            comment = []
            while lines[at - 1].startswith("      # "):
                at -= 1
                comment.insert(0, lines[at].removeprefix("      # "))
            assert setting_field.metadata["doc"] in " ".join(comment)
            assert ("dynamic" in comment[-1].rpartition("[")[2]) == setting_field.metadata["dynamic"]


def test_values_that_yaml_would_misread_survive() -> None:
    config = Config.from_dict(
        {"alignment": {"mode": "off"}, "regularization": {"guided_eps": 1e-8}, "camera": {"frame_id": "yes: # no"}}
    )
    parameters = parameters_of(parameter_file(config))
    assert parameters["alignment"]["mode"] == "off"
    assert parameters["regularization"]["guided_eps"] == 1e-8
    assert parameters["camera"]["frame_id"] == "yes: # no"
    # libyaml, which ROS reads with, wants a point in a float.
    assert "guided_eps: 1.0e-08\n" in parameter_file(config)


def test_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parameter_files.main([str(tmp_path)]) == 0
    assert (tmp_path / FILE_NAME).read_text() == parameter_file(Config())
    assert capsys.readouterr().out == f"{tmp_path / FILE_NAME}\n"
