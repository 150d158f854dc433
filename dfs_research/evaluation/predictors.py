"""Predictors: one interface to all trained networks.

Inputs: a `residual` cost volume for `light`, the authors' volume for `ddfs`, the images alone for `dualfocus` and
`direct`. The weights file names the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_research.baselines import load_module, network_file
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume import bound_and_scale, cost_volume_from_config
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.types import FocalStack

if TYPE_CHECKING:
    from torch import Tensor

    from dfs_research.baselines.ddfs import DdfsNetwork
    from dfs_research.baselines.direct import DirectNetwork
    from dfs_research.baselines.dualfocus import DualFocusNetwork

Array = NDArray[np.float32]
Predictor = Callable[[FocalStack, ArrayLike], tuple[Array, Array | None]]
"""Function of an aligned stack and depths in metres -> depth and sigma (None without one).

Both are float32 (H, W) in metres, dense. The depths give the range: `ddfs` tries its own number of hypotheses over
it, `dualfocus` and `direct` ignore it.
"""

DDFS_COST = CostConfig(method="released", max_coc_px=20.0)
"""Cost volume of the DDFS authors' code, blur clamped as for their photos."""

LEAST_DIOPTERS = 1e-3
"""Lower limit of inverse depth: depth ends at one kilometre."""


def predictor(name: str, device: str = "cpu") -> Predictor:
    """Predictor of a network: name of a model or a baseline, or .safetensors file.

    Raises FileNotFoundError, which lists the known networks, for an unknown name, and ValueError for a file that is not
    a network.
    """
    from dfs_research.baselines.ddfs import DdfsNetwork
    from dfs_research.baselines.direct import DirectNetwork
    from dfs_research.baselines.dualfocus import DualFocusNetwork

    file = network_file(name)
    module = load_module(file).to(device).eval()
    if isinstance(module, DdfsNetwork):
        return _ddfs(module, device)
    if isinstance(module, DualFocusNetwork):
        return _dualfocus(module, device)
    if isinstance(module, DirectNetwork):
        return _direct(module, device)
    return _light(str(file), device)


def ddfs_inputs(stack: FocalStack, depths_m: ArrayLike, threads: int = 0) -> tuple[Array, Array]:
    """Inputs of DDFS: RGB image and cost volume.

    The image (3, H, W) in [0, 1] is the one with the farthest focus; the volume (D, H, W) is bounded and scaled.
    """
    volume = bound_and_scale(cost_volume_from_config(stack, depths_m, DDFS_COST, threads=threads))
    image, _ = image_inputs(stack)
    return image[-1], volume


def image_inputs(stack: FocalStack) -> tuple[Array, Array]:
    """Images (F, 3, H, W) in [0, 1] and focus (F,) in dioptres, near to far."""
    order = np.argsort(-stack.focus_diopters, kind="stable")
    images = stack.images if stack.images.ndim == 4 else np.repeat(stack.images[..., None], 3, axis=-1)
    planes = images[order].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0)
    return np.ascontiguousarray(planes), stack.focus_diopters[order].astype(np.float32)


def ddfs_hypotheses(depths_m: ArrayLike, count: int, spacing: str) -> NDArray[np.float64]:
    """Resample depths: `count` over their range, in metres, near to far."""
    depths = np.asarray(depths_m, np.float64)
    return depth_hypotheses(float(depths.min()), float(depths.max()), count, spacing)


def _ddfs(network: DdfsNetwork, device: str) -> Predictor:
    import torch

    from dfs_research.baselines.ddfs import expected_depth

    architecture = network.architecture

    def predict(stack: FocalStack, depths_m: ArrayLike) -> tuple[Array, Array]:
        hypotheses = ddfs_hypotheses(depths_m, architecture.hypotheses, architecture.spacing)
        image, cost = (torch.from_numpy(x)[None].to(device) for x in ddfs_inputs(stack, hypotheses))
        with torch.inference_mode():
            score = network(image, cost)[0]
            depths = torch.from_numpy(hypotheses).to(score)
            mean = expected_depth(score, depths)
            variance = expected_depth(score, depths.square()) - mean.square()
        return _array(mean), _array(variance.clamp(min=0.0).sqrt())

    return predict


def _dualfocus(network: DualFocusNetwork, device: str) -> Predictor:
    import torch

    from dfs_research.baselines.ddfs import expected_depth
    from dfs_research.baselines.dualfocus import DOWNSAMPLING

    def predict(stack: FocalStack, unused_depths_m: ArrayLike) -> tuple[Array, Array]:
        images, focus = image_inputs(stack)
        planes = torch.from_numpy(focus)[None].to(device)
        with torch.inference_mode():
            p = network(torch.from_numpy(padded(images, DOWNSAMPLING))[None].to(device), planes)
            p = p[..., : images.shape[2], : images.shape[3]]
            mean = expected_depth(p, planes)
            variance = expected_depth(p, planes.square()) - mean.square()
        depth = 1.0 / _array(mean.clamp(min=LEAST_DIOPTERS))
        return depth, _array(variance.clamp(min=0.0).sqrt()) * depth * depth

    return predict


def _direct(network: DirectNetwork, device: str) -> Predictor:
    import torch

    from dfs_research.baselines.dualfocus import DOWNSAMPLING

    def predict(stack: FocalStack, unused_depths_m: ArrayLike) -> tuple[Array, None]:
        images, focus = image_inputs(stack)
        with torch.inference_mode():
            x = torch.from_numpy(padded(images, DOWNSAMPLING))[None].to(device)
            log_depth = network(x, torch.from_numpy(focus)[None].to(device))
        return _array(log_depth[..., : images.shape[2], : images.shape[3]].exp()), None

    return predict


def _light(file: str, device: str) -> Predictor:
    from dfs_ros.estimator.estimator import DepthEstimator

    estimators: dict[tuple[float, ...], DepthEstimator] = {}

    def predict(stack: FocalStack, depths_m: ArrayLike) -> tuple[Array, Array]:
        config = _dense(file, device, np.asarray(depths_m, np.float64))
        key = dataclasses.astuple(config.hypotheses)
        if key not in estimators:
            estimators[key] = DepthEstimator(config)
        result = estimators[key].estimate(stack, sharpen=False)
        return result.depth_m, result.sigma_m

    return predict


def _dense(file: str, device: str, depths_m: NDArray[np.float64]) -> Config:
    """Configuration of the estimator: these depths, no alignment, depth at every pixel."""
    low, high, count = float(depths_m.min()), float(depths_m.max()), len(depths_m)
    for spacing in ("inverse", "linear"):
        if np.allclose(np.sort(depths_m), np.sort(depth_hypotheses(low, high, count, spacing)), rtol=1e-6):
            break
    else:
        raise ValueError("depths_m: expected even steps in inverse depth or in depth, which a configuration can say")
    changes = {
        "hypotheses": {"min_depth_m": low, "max_depth_m": high, "count": count, "spacing": spacing},
        "network": {"name": file},
        "processing": {"device": device},
        "alignment": {"mode": "off"},
        "confidence": {"dense": True},
    }
    return Config.from_dict(changes)


def padded(images: Array, multiple: int) -> Array:
    """Pad (..., H, W) with its last row and column to multiples."""
    height, width = images.shape[-2:]
    around = [(0, 0)] * (images.ndim - 2) + [(0, -height % multiple), (0, -width % multiple)]
    return np.pad(images, around, mode="edge")


def _array(x: Tensor) -> Array:
    return np.asarray(x[0].cpu().numpy(), np.float32)
