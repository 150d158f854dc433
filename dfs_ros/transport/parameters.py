"""Parameters of a node: its :class:`~dfs_ros.config.Config`, with changes of dynamic settings."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from dfs_ros.config import Config, sections


class ParameterDescription(NamedTuple):
    """Description of a parameter for ROS tools.

    `kind` is bool, int, float or str; `bounds` is its range, if it has one.
    """

    kind: type
    text: str
    constraints: str
    read_only: bool
    bounds: tuple[float, float] | None


class Parameters:
    """Configuration with changes by name, such as `hypotheses.count`.

    Each configuration is frozen: :attr:`config` is a consistent whole at any time, from any thread.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._metadata = {
            f"{name}.{f.name}": f.metadata for name, section in sections(config) for f in dataclasses.fields(section)
        }

    @property
    def config(self) -> Config:
        """Current configuration."""
        return self._config

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return tuple(self._metadata)

    def metadata(self, name: str) -> Mapping[str, Any]:
        """`doc`, `unit`, `low`, `high`, `choices` and `dynamic` of a parameter; ValueError if unknown."""
        if name not in self._metadata:
            raise ValueError(f"parameter: no {name!r} here; see `dfs run --list-settings`")
        return self._metadata[name]

    def get(self, name: str) -> bool | int | float | str:
        """Value of a parameter; ValueError if unknown."""
        self.metadata(name)
        section, _, key = name.partition(".")
        value: bool | int | float | str = getattr(getattr(self._config, section), key)
        return value

    def describe(self, name: str) -> ParameterDescription:
        """Description of a parameter; ValueError if unknown."""
        meta, kind = self.metadata(name), type(self.get(name))
        low, high = meta["low"], meta["high"]
        return ParameterDescription(
            kind,
            meta["doc"] + (f" [{meta['unit']}]" if meta["unit"] else ""),
            "one of " + ", ".join(meta["choices"]) if meta["choices"] else "",
            not meta["dynamic"],
            None if low is None or high is None or kind not in (int, float) else (kind(low), kind(high)),
        )

    def set(self, values: Mapping[str, Any]) -> None:
        """Change dynamic parameters, all or none.

        Raises ValueError for unknown names, settings that cannot change while running, and values out of range.
        """
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if not self.metadata(name)["dynamic"]:
                raise ValueError(f"{name}: cannot change while the node runs; start it with the new value")
            section, _, key = name.partition(".")
            changes.setdefault(section, {})[key] = value
        with self._lock:
            self._config = self._config.updated(changes)
