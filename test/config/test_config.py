"""Settings: known names, types and ranges only; YAML and the command line mean what they say."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.config import Config, sections
from dfs_ros.config.commented import commented_yaml

Field = dataclasses.Field[Any]

SETTINGS: list[tuple[str, type, Field]] = [
    (f"{name}.{f.name}", typing.get_type_hints(type(section))[f.name], f)
    for name, section in sections(Config())
    for f in dataclasses.fields(section)
]
UNITS_BY_NAME = {
    "_m": "m",
    "_px": "px",
    "_s": "s",
    "_ns": "ns",
    "_hz": "Hz",
    "_diopters": "1/m",
    "_bytes": "B",
    "_deg": "deg",
    "_megapixels": "Mpx",
}


def each_setting(chosen: Callable[[type, Field], bool] = lambda kind, field: True) -> pytest.MarkDecorator:
    """A parametrisation by the settings that are chosen."""
    some = [(name, kind, field) for name, kind, field in SETTINGS if chosen(kind, field)]
    return pytest.mark.parametrize(("name", "kind", "field"), some, ids=[name for name, _, _ in some])


def changed(name: str, value: Any) -> Config:
    section, _, key = name.partition(".")
    return Config.from_dict({section: {key: value}})


def value_of(config: Config, name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


@each_setting()
def test_every_setting_is_described_and_bounded(name: str, kind: type, field: Field) -> None:
    meta = field.metadata
    assert len(meta["doc"]) >= 10 and "\n" not in meta["doc"]
    assert not meta["doc"].endswith(".")
    assert kind in (bool, int, float, str)
    if kind in (int, float):
        assert meta["low"] <= field.default <= meta["high"]
    if meta["choices"] is not None:
        assert kind is str and field.default in meta["choices"]


@each_setting()
def test_a_name_that_ends_in_a_unit_has_that_unit(name: str, kind: type, field: Field) -> None:
    for suffix, unit in UNITS_BY_NAME.items():
        if kind in (int, float) and name.endswith(suffix):
            assert field.metadata["unit"] == unit


@each_setting()
def test_values_of_another_type_are_refused(name: str, kind: type, field: Field) -> None:
    wrong: dict[type, list[Any]] = {
        bool: [1, 0, "true", 1.0, None],
        int: [True, 3.0, 3.5, "3", None, [3]],
        float: [True, "much", "", None, [0.5], 10**400],
        str: [True, 3, None, ["auto"]],
    }
    for value in wrong[kind]:
        with pytest.raises(ValueError, match=rf"^{name}: expected {kind.__name__}, received"):
            changed(name, value)


@each_setting(lambda kind, field: kind in (int, float))
def test_ranges_are_kept(name: str, kind: type, field: Field) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    step = 1 if kind is int else max(abs(high), 1) * 1e-6
    for value in (kind(low) - step, kind(high) + step):
        with pytest.raises(ValueError, match=rf"^{name}: expected {low} to {high}.*, received"):
            changed(name, value)
    for value in (kind(low), kind(high)):
        if not name.startswith("hypotheses."):  # their two ends depend on each other
            assert value_of(changed(name, value), name) == value
    if kind is float:
        for value in (float("nan"), float("inf"), -float("inf")):
            with pytest.raises(ValueError, match=rf"^{name}: expected"):
                changed(name, value)


@each_setting(lambda kind, field: field.metadata["choices"] is not None)
def test_choices_are_kept(name: str, kind: type, field: Field) -> None:
    for choice in field.metadata["choices"]:
        assert value_of(changed(name, choice), name) == choice
    with pytest.raises(ValueError, match=rf"^{name}: expected one of .*, received 'nothing'"):
        changed(name, "nothing")


def test_whole_numbers_do_for_floats() -> None:
    config = Config.from_dict({"hypotheses": {"max_depth_m": 5}})
    assert type(config.hypotheses.max_depth_m) is float and config.hypotheses.max_depth_m == 5.0


def test_what_yaml_misreads_is_understood() -> None:
    config = Config.from_dict(
        yaml.safe_load("{alignment: {mode: off}, dds: {discovery_range: off}, regularization: {guided_eps: 1e-4}}")
    )
    assert (config.alignment.mode, config.dds.discovery_range) == ("off", "off")
    assert config.regularization.guided_eps == 1e-4
    with pytest.raises(ValueError, match=r"^cost\.method: expected str, received False"):  # which has no "off"
        Config.from_dict({"cost": {"method": False}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hypotheses": {"cuont": 3}}, r"hypotheses\.cuont: unknown setting; did you mean 'count'\? known: count, "),
        ({"hypothesis": {"count": 3}}, r"hypothesis: unknown section; did you mean 'hypotheses'\? known: alignment, "),
        ({"cost": {"xyzzy": 3}}, r"cost\.xyzzy: unknown setting; known: channels, "),
        ({"cost": {3: 3}}, r"cost\.3: unknown setting; known: "),
        ({3: {}}, "3: unknown section; known: "),
        ({"cost": 3}, "cost: expected settings of the section, received 3"),
        ({"cost": ["eps"]}, "cost: expected settings of the section"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Config.from_dict(values)


def test_the_nearest_depth_lies_before_the_farthest() -> None:
    with pytest.raises(ValueError, match=r"expected min_depth_m < max_depth_m, received 5\.0 and 5\.0"):
        Config.from_dict({"hypotheses": {"min_depth_m": 5, "max_depth_m": 5}})


def test_changes_leave_the_rest_and_the_original() -> None:
    base = Config.from_dict({"cost": {"eps": 0.5}, "stack": {"size": 5}})
    other = base.updated({"cost": {"method": "paper"}})
    assert (other.cost.eps, other.cost.method, other.stack.size) == (0.5, "paper", 5)
    assert base.cost.method == Config().cost.method
    with pytest.raises(dataclasses.FrozenInstanceError):
        base.cost.eps = 1.0  # type: ignore[misc]
    assert Config.from_dict(other.to_dict()) == other


def test_methods_own_values_replace_only_what_is_left_open() -> None:
    cost = Config.from_dict({"cost": {"method": "released", "eps": 0.5, "channels": "luma"}}).cost.resolved()
    assert (cost.psf, cost.eps, cost.channels, cost.padding_px) == ("table", 0.5, "luma", 0)
    for method in ("released", "paper", "residual"):
        values = dataclasses.asdict(Config.from_dict({"cost": {"method": method}}).cost.resolved())
        assert "auto" not in values.values() and values["padding_px"] >= 0 and values["window_sigma_px"] > 0


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("\ufeffcost:\n  method: paper\nstack:\n  # size: 5\n", encoding="utf-8")
    assert Config.load(file) == Config.from_dict({"cost": {"method": "paper"}})
    file.write_text("")
    assert Config.load(file) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cost: {method: paper", "not readable as YAML: line 1: expected ',' or '}'"),
        (b"cost:\n  method: paper\n eps: 1", "not readable as YAML: line 3: "),
        (
            b"cost: !!python/object/apply:os.getcwd []",
            "not readable as YAML: line 1: could not determine a constructor",
        ),
        (b"a: !!bool x", "not readable as YAML: a value does not fit its tag"),
        (b"a: 2001-02-30", "not readable as YAML: day .*"),
        (b"\xff\xfe\x00", "not readable as YAML: 'utf-8' codec"),
        (b"[" * 2000, "not readable as YAML: "),
        (b"- cost", "expected sections with settings, received list"),
        (b"cost: {method: sharp}", r"cost\.method: expected one of .*, received 'sharp'"),
        (b"cots: {method: paper}", "cots: unknown section; did you mean 'cost'"),
    ],
)
def test_files_that_are_no_settings_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=message) as caught:
        Config.load(file)
    assert str(caught.value).startswith(f"configuration {file}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, float, int])
def test_numbers_of_numpy_are_numbers(kind: type) -> None:
    value = Config.from_dict({"hypotheses": {"min_depth_m": kind(2)}}).hypotheses.min_depth_m
    assert type(value) is float and value == 2.0


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64])
def test_counts_of_numpy_are_counts(kind: type) -> None:
    count = Config.from_dict({"hypotheses": {"count": kind(32)}}).hypotheses.count
    assert type(count) is int and count == 32
    with pytest.raises(ValueError, match=r"hypotheses.count: expected int, received 32\.0"):
        Config.from_dict({"hypotheses": {"count": np.float64(32)}})


def test_truth_of_numpy_is_no_number() -> None:
    assert Config.from_dict({"confidence": {"dense": np.True_}}).confidence.dense is True
    for setting in ("min_depth_m", "count"):
        with pytest.raises(ValueError, match=rf"hypotheses.{setting}: expected (float|int), received True"):
            Config.from_dict({"hypotheses": {setting: np.True_}})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "settings.yaml", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"configuration {path}: no such file"):
            Config.load(path)


def test_the_printed_settings_are_complete_and_load_to_the_defaults(tmp_path: Path) -> None:
    text = commented_yaml(Config())
    assert Config.from_dict(yaml.safe_load(text)) == Config()
    described = " ".join(line.removeprefix("  # ") for line in text.splitlines())
    for name, _, field in SETTINGS:
        assert f"{field.metadata['doc']} [" in described or f"{field.metadata['doc']}   " in described, name
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert Config.load(file) == Config()


@settings(max_examples=25)  # PyYAML reads a page in a tenth of a second
@given(st.data())
def test_any_settings_survive_being_printed(data: st.DataObject) -> None:
    values: dict[str, dict[str, Any]] = {}
    for name, kind, field in data.draw(st.lists(st.sampled_from(SETTINGS), max_size=8)):
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        section, _, key = name.partition(".")
        if section == "hypotheses":
            continue
        drawn: dict[type, st.SearchStrategy[Any]] = {
            bool: st.booleans(),
            int: st.integers(low, high) if kind is int else st.none(),
            float: st.floats(low, high) if kind is float else st.none(),
            str: st.sampled_from(choices) if choices else st.text("abc123: #'\"-~&*[]{}\\/ö", max_size=120),
        }
        values.setdefault(section, {})[key] = data.draw(drawn[kind])
    config = Config.from_dict(values)
    assert Config.from_dict(yaml.safe_load(commented_yaml(config))) == config


def parse(*argv: str) -> Config:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    return config_from_arguments(parser.parse_args(argv))


def test_options_come_over_set_over_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("cost: {method: paper, eps: 0.25}\nhypotheses: {count: 8, max_depth_m: 4}\n")
    config = parse("--config", str(file), "--set", "cost.eps=0.5", "--set", "hypotheses.count=16", "--hypotheses", "32")
    assert (config.cost.method, config.cost.eps) == ("paper", 0.5)
    assert (config.hypotheses.count, config.hypotheses.max_depth_m) == (32, 4.0)


def test_every_shorthand_is_its_setting() -> None:
    config = parse(
        *("--cost", "released", "--network", "none", "--runner", "torch", "--device", "cpu", "--dense"),
        *("--min-depth", "0.5", "--max-depth", "3", "--hypotheses", "20"),
    )
    assert config == Config.from_dict(
        {
            "cost": {"method": "released"},
            "network": {"name": "none", "runner": "torch"},
            "processing": {"device": "cpu"},
            "confidence": {"dense": True},
            "hypotheses": {"min_depth_m": 0.5, "max_depth_m": 3.0, "count": 20},
        }
    )
    assert parse() == Config()


def test_set_takes_values_as_yaml_reads_them() -> None:
    config = parse(
        *("--set", "alignment.mode=off", "--set", "confidence.dense=true", "--set", "dds.interface="),
        *("--set", "regularization.guided_eps=1e-4", "--set", "stack.size = 5", "--set", "dds.static_peers='a;b'"),
    )
    assert (config.alignment.mode, config.confidence.dense, config.dds.interface) == ("off", True, "")
    assert (config.regularization.guided_eps, config.stack.size, config.dds.static_peers) == (1e-4, 5, "a;b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cost.eps", r"--set cost\.eps: expected SECTION\.SETTING=VALUE"),
        ("eps=1", r"--set eps=1: expected SECTION\.SETTING=VALUE"),
        ("cost.eps={", r"--set cost\.eps=\{: expected a number, a word"),
        ("cost.eps=2001-02-30", "expected a number, a word"),
        ("cost.eps=big", r"cost\.eps: expected float, received 'big'"),
        ("cost.esp=1", r"cost\.esp: unknown setting; did you mean 'eps'"),
        ("stack.size=", r"stack\.size: expected int, received ''"),
    ],
)
def test_set_refuses_the_rest(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse("--set", text)
