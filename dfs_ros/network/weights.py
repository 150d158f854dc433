"""Networks on disk: one safetensors file, which says of itself what it is. No pickle is ever loaded."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfs_ros.paths import share_folder

if TYPE_CHECKING:
    from torch import Tensor

    from dfs_ros.network.light import LightNetwork

FORMAT = "dfs_ros network 1"
_SUFFIX = ".safetensors"


def model_file(name: str) -> Path:
    """The file of a model: a name in models/, or the path of a safetensors file.

    Raises FileNotFoundError that lists what there is.
    """
    if name.endswith(_SUFFIX):
        if not Path(name).is_file():
            raise FileNotFoundError(f"network {name}: no such file")
        return Path(name)
    known = known_models()
    if name not in known:
        raise FileNotFoundError(
            f"network {name!r}: unknown model; known: {', '.join(sorted({'none', *known}))}, "
            f"or give the path of a {_SUFFIX} file"
        )
    return share_folder("models") / f"{name}{_SUFFIX}"


def known_models() -> list[str]:
    """Names of the models that came with the package."""
    try:
        folder = share_folder("models")
    except FileNotFoundError:
        return []
    return sorted(path.stem for path in folder.glob(f"*{_SUFFIX}"))


def save_network(
    file: str | Path,
    weights: Mapping[str, Tensor],
    architecture: object,
    training: Mapping[str, Any],
    sigma_scale: float = 1.0,
) -> None:
    """Write weights with what they are for, whole or not at all. `training`: whatever is worth knowing, for people."""
    from safetensors.torch import save_file

    file = Path(file)
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(dataclasses.asdict(architecture)),  # type: ignore[call-overload]
        "training": json.dumps(dict(training)),
        "sigma_scale": repr(float(sigma_scale)),
    }
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    save_file(dict(weights), temporary, metadata)
    temporary.chmod(0o644)  # safetensors makes files private
    temporary.replace(file)


def sigma_scale_of(file: str | Path) -> float:
    """What calibrates the network's sigma, on data that it was not trained with; 1 where the file does not say.

    Raises ValueError where that is no positive number.
    """
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        text = (opened.metadata() or {}).get("sigma_scale", "1.0")
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"network {file}: expected a positive sigma_scale in its metadata, received {text!r}")
    return scale


def load_weights(file: str | Path) -> LightNetwork:
    """The network of a file. Raises ValueError where it is not one of ours, or damaged."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    from dfs_ros.network.light import LightArchitecture, LightNetwork

    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
        tensors = load_file(str(file))
    except SafetensorError as error:
        raise ValueError(f"network {file}: not readable as safetensors: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"network {file}: expected format {FORMAT!r}, received {metadata.get('format')!r}; "
            "`dfs train` writes such files"
        )
    try:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(metadata["architecture"]).items()
        }
        network = LightNetwork(LightArchitecture(**values))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"network {file}: weights and architecture do not fit this version: {error}") from error
    return network
