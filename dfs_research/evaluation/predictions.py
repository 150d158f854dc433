"""Predictions on disk: depth and sigma of each method and stack, with provenance.

    FOLDER/CONDITION/METHOD/method.json          name, configuration, digest of the weights
    FOLDER/CONDITION/METHOD/CAMERA_SCENE/depth.npy, sigma.npy, made.json

Scores are computed from these files alone, so an interrupted run can continue and scoring needs no estimate. A folder
of another configuration or other weights is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dfs_ros
from dfs_research.evaluation.conditions import STANDARD, Condition
from dfs_research.evaluation.methods import Method, Prediction, dense_config, weights_digest
from dfs_research.evaluation.provenance import commit, machine
from dfs_research.evaluation.rendered import RenderedStack
from dfs_ros.config import Config
from dfs_ros.system.atomic import staged, write_atomically
from dfs_ros.system.cache import save_array

_MADE = "made.json"
_SECTIONS = ("lens", "hypotheses", "cost", "regularization", "network", "confidence", "alignment", "processing")
"""Sections of the configuration that an estimate depends on."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Stored prediction; `seconds` of the estimate, `commit` of the code."""

    prediction: Prediction
    seconds: float
    commit: str


class PredictionFolder:
    """Predictions of one method under one condition.

    Raises ValueError if the folder holds those of another configuration, other weights or another version.
    """

    def __init__(self, folder: str | Path, name: str, config: Config, condition: Condition = STANDARD) -> None:
        self.name = name
        self.folder = Path(folder) / _file_name(condition.name) / _file_name(name)
        settings = dense_config(name, condition.configured(config)).to_dict()
        self._identity: dict[str, Any] = {
            "method": name,
            "condition": condition.name,
            "f_number_error": condition.f_number_error,
            "dfs_ros": dfs_ros.__version__,
            "weights_sha256": weights_digest(name),
            "config": {section: settings[section] for section in _SECTIONS},
        }
        self._check()

    def load(self, rendered: RenderedStack) -> Stored | None:
        """Prediction of a stack; None if missing, or made from other images."""
        place = self._place(rendered)
        try:
            made = json.loads((place / _MADE).read_text())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place / _MADE}: not readable as JSON: {error}; remove the folder") from error
        if made["stack_sha256"] != stack_digest(rendered):
            return None
        depth_m = _load(place / "depth.npy", rendered.depth_m.shape)
        sigma_m = _load(place / "sigma.npy", rendered.depth_m.shape) if made["sigma"] else None
        return Stored(Prediction(depth_m, sigma_m), float(made["seconds"]), str(made["commit"]))

    def save(self, rendered: RenderedStack, prediction: Prediction, seconds: float) -> None:
        """Write a prediction atomically."""
        identity = self.folder / "method.json"
        if not identity.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(identity, json.dumps(self._identity, indent=1).encode())
        place = self._place(rendered)
        shutil.rmtree(place, ignore_errors=True)
        made = {
            "stack_sha256": stack_digest(rendered),
            "sigma": prediction.sigma_m is not None,
            "seconds": seconds,
            "commit": commit(),
            "machine": machine(),
        }
        with staged(place, last=_MADE) as folder:
            save_array(folder / "depth.npy", np.asarray(prediction.depth_m, np.float32))
            if prediction.sigma_m is not None:
                save_array(folder / "sigma.npy", np.asarray(prediction.sigma_m, np.float32))
            (folder / _MADE).write_text(json.dumps(made, indent=1))

    def _place(self, rendered: RenderedStack) -> Path:
        return self.folder / f"{_file_name(rendered.camera_name)}_{_file_name(rendered.name)}"

    def _check(self) -> None:
        file = self.folder / "method.json"
        if not file.is_file():
            return
        try:
            found = json.loads(file.read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not readable as JSON: {error}; remove the folder") from error
        expected = json.loads(json.dumps(self._identity))
        if found != expected:
            other = ", ".join(sorted(_differences(found, expected)))
            raise ValueError(
                f"{self.folder}: holds predictions of {self.name} made with another {other}; "
                "predictions of different configurations are not mixed: choose another folder, or remove this one"
            )


def predict(
    methods: Mapping[str, Method],
    folders: Mapping[str, PredictionFolder],
    stacks: Iterable[RenderedStack],
    condition: Condition = STANDARD,
    progress: Callable[[str], None] = lambda what: None,
) -> None:
    """Predict every suitable stack by every method, to files.

    Stored predictions are kept. `progress` gets one line for each method and stack.
    """
    for rendered in stacks:
        if not condition.suits(rendered):
            continue
        for name, method in methods.items():
            if folders[name].load(rendered) is None:
                seen = condition.seen(rendered)
                started = time.perf_counter()
                prediction = method(seen.stack)
                folders[name].save(rendered, prediction, time.perf_counter() - started)
            progress(f"{rendered.camera_name} {rendered.name} {name}")


def commits(folders: Iterable[PredictionFolder], stacks: Sequence[RenderedStack]) -> list[str]:
    """Commits of the predictions on disk, sorted."""
    stored = [folder.load(rendered) for folder in folders for rendered in stacks]
    return sorted({each.commit for each in stored if each is not None})


def stack_digest(rendered: RenderedStack) -> str:
    """SHA-256 of the images, the lens, its focus and the true depth."""
    stack = rendered.stack
    digest = hashlib.sha256(repr((stack.images.shape, stack.camera, stack.focus_diopters.tolist())).encode())
    for array in (stack.images, rendered.depth_m):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _load(file: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: not readable as a prediction: {error}; remove its folder") from error
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{file}: expected float32 of shape {shape}, received {array.dtype} {array.shape}")
    return np.asarray(array, np.float32)


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key in {*found, *expected}:
        mine, theirs = found.get(key), expected.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            names += _differences(mine, theirs, f"{prefix}{key}.")
        elif mine != theirs:
            names.append(f"{prefix}{key}".removeprefix("config."))
    return names


def _file_name(text: str) -> str:
    """Portable file name, unique for each text."""
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "_", Path(text).name).strip("._") or "unnamed"
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
