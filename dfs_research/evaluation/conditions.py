"""Conditions of the evaluation: standard, wrong f-number, other hypotheses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dfs_research.evaluation.rendered import RenderedStack
from dfs_ros.config import Config

_OUTSIDE = 0.005  # largest share of pixels with depth outside the hypotheses


@dataclass(frozen=True)
class Condition:
    """Condition of an evaluation.

    `f_number_error`: relative error of the f-number that the estimator gets; `hypotheses`: settings to change.
    """

    name: str
    f_number_error: float = 0.0
    hypotheses: Mapping[str, float] = field(default_factory=dict, hash=False)

    def configured(self, config: Config) -> Config:
        """Configuration of the estimator."""
        return config.updated({"hypotheses": dict(self.hypotheses)}) if self.hypotheses else config

    def seen(self, rendered: RenderedStack) -> RenderedStack:
        """Stack with the f-number that the estimator gets."""
        if not self.f_number_error:
            return rendered
        camera = rendered.stack.camera
        wrong = dataclasses.replace(camera, f_number=camera.f_number * (1.0 + self.f_number_error))
        return dataclasses.replace(rendered, stack=dataclasses.replace(rendered.stack, camera=wrong))

    def suits(self, rendered: RenderedStack) -> bool:
        """True if at most 0.5 % of the known depth lies outside the range.

        Without a range every scene suits.
        """
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
"""Further conditions of the report, each compared with the standard one on the same stacks."""
