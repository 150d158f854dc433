"""Baseline networks: DDFS, DualFocus, and direct depth from images.

Importing this package registers them with :mod:`dfs_ros.network.weights`, which then reads their files.
"""

from __future__ import annotations

from pathlib import Path

from dfs_ros.network.weights import NetworkKind, known_models, load_module, model_file, register_network

__all__ = ["load_module", "network_file"]

_MODELS = Path(__file__).resolve().parent / "models"


def network_file(name: str) -> Path:
    """Weights file of a network.

    `name`: a model of the product, a baseline, or the path of a safetensors file.
    """
    baseline = _MODELS / f"{name}.safetensors"
    return baseline if name not in known_models() and baseline.is_file() else model_file(name)


def _ddfs() -> NetworkKind:
    from dfs_research.baselines.ddfs import DdfsArchitecture, DdfsNetwork

    return NetworkKind(DdfsArchitecture, DdfsNetwork)


def _dualfocus() -> NetworkKind:
    from dfs_research.baselines.dualfocus import DualFocusArchitecture, DualFocusNetwork

    return NetworkKind(DualFocusArchitecture, DualFocusNetwork)


def _direct() -> NetworkKind:
    from dfs_research.baselines.direct import DirectArchitecture, DirectNetwork

    return NetworkKind(DirectArchitecture, DirectNetwork)


register_network("ddfs", _ddfs)
register_network("dualfocus", _dualfocus)
register_network("direct", _direct)
