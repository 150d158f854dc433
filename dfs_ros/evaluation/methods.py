"""The ways from a focal stack to depth that are compared: raw argmin of a cost volume, and the whole estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.pipeline import DepthEstimator, hypotheses_for
from dfs_ros.types import FocalStack

RAW_METHODS = ("released", "paper", "residual")
"""Names that mean the argmin of that cost volume; any other name is that of a network, or `none`."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """`depth_m` float32 (H, W), and where the method has one `sigma_m`, its standard deviation."""

    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32] | None = None


Method = Callable[[FocalStack], Prediction]


def make_method(name: str, config: Config) -> Method:
    """The method of a name, ready to use on stacks that are aligned already, dense.

    Raises FileNotFoundError for the name of a network that is not there.
    """
    config = dataclasses.replace(
        config,
        alignment=dataclasses.replace(config.alignment, mode="off"),
        confidence=dataclasses.replace(config.confidence, dense=True),
    )
    if name in RAW_METHODS:
        return _argmin(dataclasses.replace(config, cost=dataclasses.replace(config.cost, method=name)))
    return _estimator(dataclasses.replace(config, network=dataclasses.replace(config.network, name=name)))


def _argmin(config: Config) -> Method:
    def predict(stack: FocalStack) -> Prediction:
        depths_m = hypotheses_for(stack, config.hypotheses)
        cost = cost_volume_from_config(stack, depths_m, config.cost, threads=config.processing.threads)
        return Prediction(depths_m[cost.argmin(axis=0)].astype(np.float32))

    return predict


def _estimator(config: Config) -> Method:
    estimator = DepthEstimator(config)

    def predict(stack: FocalStack) -> Prediction:
        result = estimator.estimate(stack, sharpen=False)
        return Prediction(result.depth_m, result.sigma_m)

    return predict
