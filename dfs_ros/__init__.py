"""Depth from focal stacks for robots: metric depth from a camera that sweeps its focus.

The algorithm on one page is :mod:`dfs_ros.pipeline`.

>>> from dfs_ros import DepthEstimator, load_stack
>>> result = DepthEstimator().estimate(load_stack("my_stack"))   # doctest: +SKIP
>>> result.depth_m                                                    # doctest: +SKIP
"""

from __future__ import annotations

import os
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

from dfs_ros.version import __version__

# Before any import of ONNX Runtime, which otherwise reports its use to a host of its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A colcon build generates `dfs_ros.msg` in another folder than this source; both form one package.
__path__ = extend_path(__path__, __name__)

if TYPE_CHECKING:
    from dfs_ros.config import Config
    from dfs_ros.estimator.estimator import DepthEstimator
    from dfs_ros.io.stack_folder import load_stack
    from dfs_ros.types import Camera, DepthResult, FocalStack, Frame

__all__ = ["Camera", "Config", "DepthEstimator", "DepthResult", "FocalStack", "Frame", "__version__", "load_stack"]

_HOMES = {
    "Camera": "types",
    "DepthResult": "types",
    "FocalStack": "types",
    "Frame": "types",
    "Config": "config",
    "DepthEstimator": "estimator.estimator",
    "load_stack": "io.stack_folder",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `dfs --help` and the transports start without importing scipy, OpenCV and torch.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"dfs_ros.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dfs_ros' has no attribute {name!r}")
