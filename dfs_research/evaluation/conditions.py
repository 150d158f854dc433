"""The conditions that methods are compared under: as described, with a wrong lens, with other hypotheses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dfs_research.evaluation.rendered import RenderedStack
from dfs_ros.config import Config

_OUTSIDE = 0.005  # the share of pixels whose depth may lie outside the hypotheses


@dataclass(frozen=True)
class Condition:
    """`f_number_error`: the f-number that the estimate is told is that share too large; `hypotheses`: settings."""

    name: str
    f_number_error: float = 0.0
    hypotheses: Mapping[str, float] = field(default_factory=dict, hash=False)

    def configured(self, config: Config) -> Config:
        """The configuration to estimate with."""
        return config.updated({"hypotheses": dict(self.hypotheses)}) if self.hypotheses else config

    def seen(self, rendered: RenderedStack) -> RenderedStack:
        """The stack as the estimate is told of it."""
        if not self.f_number_error:
            return rendered
        camera = rendered.stack.camera
        wrong = dataclasses.replace(camera, f_number=camera.f_number * (1.0 + self.f_number_error))
        return dataclasses.replace(rendered, stack=dataclasses.replace(rendered.stack, camera=wrong))

    def suits(self, rendered: RenderedStack) -> bool:
        """Whether the scene lies within the range but for half a percent of its pixels; any does without a range."""
        low, high = self.hypotheses.get("min_depth_m", 0.0), self.hypotheses.get("max_depth_m", np.inf)
        known = rendered.depth_m[np.isfinite(rendered.depth_m)]
        return bool(np.mean((known < low) | (known > high)) <= _OUTSIDE)


STANDARD = Condition("standard")
ROBUSTNESS = (
    Condition("f-number 10 % too large", f_number_error=0.1),
    Condition("f-number 10 % too small", f_number_error=-0.1),
    Condition("hypotheses from 0.2 to 3 m", hypotheses={"min_depth_m": 0.2, "max_depth_m": 3.0}),
    Condition("hypotheses from 0.5 to 20 m", hypotheses={"min_depth_m": 0.5, "max_depth_m": 20.0}),
    Condition("32 hypotheses", hypotheses={"count": 32}),
    Condition("96 hypotheses", hypotheses={"count": 96}),
)
"""What the report asks beside the standard condition. Each is compared with that on the same stacks."""
