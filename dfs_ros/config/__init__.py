"""All settings and their defaults, each written once.

Command line, YAML files and ROS parameters are generated from these dataclasses. Each setting carries its description,
unit, range, and whether it may change while a node runs. Unknown keys and values out of range are errors.

>>> Config.from_dict({"hypotheses": {"count": 32}}).hypotheses.count
32
>>> Config.from_dict({"hypotheses": {"cuont": 32}})
Traceback (most recent call last):
ValueError: hypotheses.cuont: unknown setting; did you mean 'count'? known: count, max_depth_m, min_depth_m, spacing
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfs_ros.config.camera import CameraConfig, ReportingConfig, SweeperConfig, SweptCameraConfig, V4l2Config
from dfs_ros.config.estimation import (
    AlignmentConfig,
    ConfidenceConfig,
    CostConfig,
    HypothesesConfig,
    LensConfig,
    RegularizationConfig,
)
from dfs_ros.config.limits import LimitsConfig
from dfs_ros.config.motion import MotionConfig
from dfs_ros.config.node import (
    DdsConfig,
    NodeConfig,
    ScheduleConfig,
    SimulationConfig,
    StackConfig,
    ViewerConfig,
)
from dfs_ros.config.processing import NetworkConfig, ProcessingConfig
from dfs_ros.config.rgbd import RgbdConfig
from dfs_ros.config.ros_file import is_parameter_file, settings_of
from dfs_ros.config.setting import checked, numbers, plain_yaml, read_yaml, setting, unknown_name

__all__ = [
    "AlignmentConfig",
    "CameraConfig",
    "ConfidenceConfig",
    "Config",
    "CostConfig",
    "DdsConfig",
    "HypothesesConfig",
    "LensConfig",
    "LimitsConfig",
    "MotionConfig",
    "NetworkConfig",
    "NodeConfig",
    "ProcessingConfig",
    "RegularizationConfig",
    "ReportingConfig",
    "RgbdConfig",
    "ScheduleConfig",
    "SimulationConfig",
    "StackConfig",
    "SweeperConfig",
    "SweptCameraConfig",
    "V4l2Config",
    "ViewerConfig",
    "numbers",
    "plain_yaml",
    "read_yaml",
    "sections",
    "setting",
    "unknown_name",
]


_RENAMED = {("processing", "max_input_megapixels"): ("limits", "image_megapixels")}
"""Earlier names of settings, which are still read."""


@dataclass(frozen=True)
class Config:
    """All settings, frozen; variants by :func:`dataclasses.replace`, :meth:`from_dict` or :meth:`updated`."""

    lens: LensConfig = field(default_factory=LensConfig)
    hypotheses: HypothesesConfig = field(default_factory=HypothesesConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    stack: StackConfig = field(default_factory=StackConfig)
    processing: ProcessingConfig = field(default_factory=ProcessingConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    v4l2: V4l2Config = field(default_factory=V4l2Config)
    reporting: ReportingConfig = field(default_factory=ReportingConfig)
    sweeper: SweeperConfig = field(default_factory=SweeperConfig)
    rgbd: RgbdConfig = field(default_factory=RgbdConfig)
    viewer: ViewerConfig = field(default_factory=ViewerConfig)
    dds: DdsConfig = field(default_factory=DdsConfig)

    def __post_init__(self) -> None:
        for name, section in sections(self):
            for setting_field in dataclasses.fields(section):
                value = checked(getattr(section, setting_field.name), setting_field, type(section), name)
                object.__setattr__(section, setting_field.name, value)
        if 0 < self.hypotheses.max_depth_m <= self.hypotheses.min_depth_m:
            raise ValueError(
                f"hypotheses: expected min_depth_m < max_depth_m, received {self.hypotheses.min_depth_m} and "
                f"{self.hypotheses.max_depth_m}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Configuration from ``{section: {setting: value}}`` over the defaults; ValueError for unknown keys."""
        return cls().updated(values)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Configuration from a YAML file of the same nesting, or a ROS parameter file.

        Raises FileNotFoundError or ValueError, naming the file.
        """
        values = read_yaml(Path(path), f"configuration {path}")
        if values is None:
            values = {}
        if not isinstance(values, Mapping):
            raise ValueError(f"configuration {path}: expected sections with settings, received {type(values).__name__}")
        try:
            if is_parameter_file(values):
                values = settings_of(values, {name for name, _ in sections(cls())})
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"configuration {path}: {error}") from error

    def updated(self, values: Mapping[str, Any]) -> Config:
        """Copy with a nested mapping of changes; ValueError for unknown keys and bad values."""
        values = _with_new_names(values)
        changed = {}
        known_sections = dict(sections(self))
        for name, settings in values.items():
            if name not in known_sections:
                raise ValueError(unknown_name(str(name), known_sections, "section"))
            settings = {} if settings is None else settings  # a section whose settings are all commented out
            if not isinstance(settings, Mapping):
                raise ValueError(f"{name}: expected settings of the section, received {settings!r}")
            known = {f.name for f in dataclasses.fields(known_sections[name])}
            for key in settings:
                if key not in known:
                    raise ValueError(unknown_name(f"{name}.{key}", known, "setting"))
            changed[name] = dataclasses.replace(known_sections[name], **settings)
        return dataclasses.replace(self, **changed)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values, the input of :meth:`from_dict`."""
        return dataclasses.asdict(self)


def _with_new_names(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Changes with earlier names of settings replaced; ValueError for a setting under both names."""
    renamed = dict(values)
    for (old_section, old), (section, name) in _RENAMED.items():
        given = renamed.get(old_section)
        if isinstance(given, Mapping) and old in given:
            target = renamed.get(section) or {}
            if not isinstance(target, Mapping) or name in target:
                raise ValueError(f"{old_section}.{old}: is now {section}.{name}, which is given too; remove the former")
            renamed[old_section] = {key: value for key, value in given.items() if key != old}
            renamed[section] = {**target, name: given[old]}
    return renamed


def sections(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield (name, section) of a configuration, in order."""
    for f in dataclasses.fields(config):
        yield f.name, getattr(config, f.name)
