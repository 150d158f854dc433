"""Methods of the comparison, by name.

released, paper, residual   argmin of that cost volume, without regularisation
laplacian, ring             peak of a focus measure over the images, no optical model
none                        the estimator without a network
anything else               a network: a name in models/ or dfs_research/baselines/models/, or a .safetensors file
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfs_research.baselines import load_module, network_file
from dfs_research.evaluation.classical import laplacian_depth, ring_depth
from dfs_ros.config import Config
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.depth.scene_range import hypotheses_for
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.types import FocalStack

RAW_METHODS = ("released", "paper", "residual")
"""Methods that take the argmin of that cost volume."""
CLASSICAL_METHODS = {"laplacian": laplacian_depth, "ring": ring_depth}
"""Methods that take the peak of a focus measure."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """`depth_m` float32 (H, W), and its standard deviation `sigma_m` if the method has one."""

    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32] | None = None


Method = Callable[[FocalStack], Prediction]


def make_method(name: str, config: Config) -> Method:
    """Dense method of a name, for aligned stacks.

    Raises FileNotFoundError for an unknown network.
    """
    config = dense_config(name, config)
    if name in RAW_METHODS:
        return _argmin(config)
    if name in CLASSICAL_METHODS:
        return _classical(name, config)
    return _estimator(config) if name == "none" or _is_light(name) else _predictor(name, config)


def dense_config(name: str, config: Config) -> Config:
    """Configuration of a method: no alignment, depth at every pixel."""
    config = dataclasses.replace(
        config,
        alignment=dataclasses.replace(config.alignment, mode="off"),
        confidence=dataclasses.replace(config.confidence, dense=True),
    )
    if name in RAW_METHODS:
        return dataclasses.replace(config, cost=dataclasses.replace(config.cost, method=name))
    if name in CLASSICAL_METHODS:
        return config
    return dataclasses.replace(config, network=dataclasses.replace(config.network, name=name))


def weights_digest(name: str) -> str | None:
    """SHA-256 of a method's weights; None without weights."""
    if name in (*RAW_METHODS, *CLASSICAL_METHODS, "none"):
        return None
    return hashlib.sha256(Path(network_file(name)).read_bytes()).hexdigest()


def _is_light(name: str) -> bool:
    """True if the estimator itself runs this network."""
    from dfs_ros.network.light import LightNetwork

    return isinstance(load_module(network_file(name)), LightNetwork)


def _argmin(config: Config) -> Method:
    def predict(stack: FocalStack) -> Prediction:
        depths_m = hypotheses_for(stack, config)
        cost = cost_volume_from_config(stack, depths_m, config.cost, threads=config.processing.threads)
        return Prediction(depths_m[cost.argmin(axis=0)].astype(np.float32))

    return predict


def _classical(name: str, config: Config) -> Method:
    def predict(stack: FocalStack) -> Prediction:
        depths_m = hypotheses_for(stack, config)
        return Prediction(CLASSICAL_METHODS[name](stack, float(depths_m.min()), float(depths_m.max())))

    return predict


def _estimator(config: Config) -> Method:
    estimator = DepthEstimator(config)

    def predict(stack: FocalStack) -> Prediction:
        result = estimator.estimate(stack, sharpen=False)
        return Prediction(result.depth_m, result.sigma_m)

    return predict


def _predictor(name: str, config: Config) -> Method:
    from dfs_research.evaluation.predictors import predictor

    estimate = predictor(name)

    def predict(stack: FocalStack) -> Prediction:
        return Prediction(*estimate(stack, hypotheses_for(stack, config)))

    return predict
