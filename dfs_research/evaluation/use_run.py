"""Evaluation in use: default estimator under all conditions, resumable, with tables.

Scores are cached under a digest of their inputs: code of the estimate, networks, configuration and stack. An
interrupted run continues; changed code starts a new one.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import dfs_research
import dfs_ros
from dfs_research.evaluation.faults import FAULTS, Fault
from dfs_research.evaluation.in_use import HONEST, InUse, UsedStack
from dfs_research.evaluation.shots import Shot
from dfs_research.evaluation.use_scores import WAYS, Values, scored
from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.strict_json import json_text
from dfs_ros.system import folders
from dfs_ros.system.atomic import write_atomically

_NO_PART_OF_AN_ESTIMATE = (
    *("camera", "cli", "doctor", "io", "messages", "msg", "node", "simulation", "stacks", "transport", "viewer"),
)
SCORES_VERSION = 2
"""Increment when the same stack and estimator give other scores."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "honest": ("ideal", "lens", "shake", "drive", "fast", "nominal"),
    "moving": (
        "ideal",
        "drive",
        "fast",
        "drive_poses",
        "fast_poses",
        "drive_odometry",
        "fast_odometry",
        "faster",
        "faster_odometry",
    ),
    "aberration": ("ideal", "lens", "lens_aberration", "drive", "drive_aberration"),
    "turning": ("ideal", "turn", "turn_imu", "swerve", "swerve_imu", "swerve_odometry"),
    "faults": tuple(FAULTS),
}
"""Groups of conditions for `--conditions`."""


@dataclass(frozen=True)
class UseScore:
    """Scores of one stack of a condition; `values` as of :func:`use_scores.scored`."""

    condition: str
    camera: str
    scene: str
    values: Values


def conditions_of(text: str) -> list[InUse | Fault]:
    """Conditions by names and groups separated by commas, each once. Raises ValueError for an unknown name."""
    known: dict[str, InUse | Fault] = {**HONEST, **FAULTS}
    groups = {**GROUPS, "all": tuple(known)}
    chosen: dict[str, InUse | Fault] = {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        for each in groups.get(name, (name,)):
            if each not in known:
                raise ValueError(
                    f"--conditions: unknown {each!r}; known: {', '.join(known)}, and for several {', '.join(groups)}"
                )
            chosen[each] = known[each]
    if not chosen:
        raise ValueError(f"--conditions: expected names separated by commas, received {text!r}")
    return list(chosen.values())


def spread(items: Sequence[Shot], count: int | None) -> list[Shot]:
    """Evenly spaced `count` of the items; all if there are no more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def run_in_use(
    shots: Iterable[Shot],
    conditions: Sequence[InUse | Fault],
    config: Config,
    progress: Callable[[str], None] = lambda what: None,
    cache: Path | None = None,
) -> list[UseScore]:
    """Score the estimator under all conditions, shot by shot, with the cache."""
    estimator: DepthEstimator | None = None
    folder = (cache or folders.cache_folder("scores")) / code_digest(config)
    scores = []
    for shot in shots:
        for condition in conditions:
            used = condition.taken(shot)
            file = folder / f"{condition.name}_{shot.camera_name}_{shot.scene.name}_{_stack_digest(used)}.json"
            values = _load(file)
            if values is None:
                estimator = estimator or DepthEstimator(config)
                values = scored(estimator, used)
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(file, json_text(values).encode())
            scores.append(UseScore(condition.name, shot.camera_name, shot.scene.name, values))
            progress(f"{shot.camera_name} {shot.scene.name} {condition.name}")
    return scores


def summary(scores: Sequence[UseScore]) -> list[dict[str, Any]]:
    """Rows of means over stacks and counts, one for each condition.

    `ratio`: dense Abs Rel over that of `ideal` on the same stacks, NaN without `ideal`; `unwarned`: mean share of
    pixels that are sure and wrong, with 0 for a stack with a warning. `sideways_error`, `forward_error`: median;
    `sideways_pull`, `forward_pull`: root of the mean square, of the stacks counted in `sideways_told`, `forward_told`.
    """
    ideal = {(s.camera, s.scene): _number(s, "dense_abs_rel") for s in scores if s.condition == "ideal"}
    rows = []
    for name in dict.fromkeys(s.condition for s in scores):
        chosen = [s for s in scores if s.condition == name]
        keys = [key for key, value in chosen[0].values.items() if not isinstance(value, str | list)]
        row: dict[str, Any] = {"condition": name, "stacks": len(chosen)}
        row |= {key: _mean([_number(s, key) for s in chosen]) for key in keys}
        row["warned"] = sum(_warned(s) for s in chosen)
        row["refused"] = sum(bool(s.values["refused"]) for s in chosen)
        row["no_depth"] = sum(_number(s, "coverage") == 0.0 for s in chosen)
        row["unwarned"] = _mean([0.0 if _warned(s) else _number(s, "sure_and_wrong") for s in chosen])
        row["unwarned_worst"] = max([0.0 if _warned(s) else _number(s, "sure_and_wrong") for s in chosen])
        paired = [(_number(s, "dense_abs_rel"), ideal.get((s.camera, s.scene), math.nan)) for s in chosen]
        paired = [pair for pair in paired if not (math.isnan(pair[0]) or math.isnan(pair[1]))]
        row["ratio"] = float(np.mean([p[0] for p in paired]) / np.mean([p[1] for p in paired])) if paired else math.nan
        for way in WAYS:
            errors, pulls = (
                [value for s in chosen if not math.isnan(value := _number(s, f"{way}_{what}"))]
                for what in ("error", "pull")
            )
            row[f"{way}_told"] = len(errors)
            row[f"{way}_error"] = float(np.median(errors)) if errors else math.nan
            row[f"{way}_pull"] = math.sqrt(np.mean(np.square(pulls))) if pulls else math.nan
        rows.append(row)
    return rows


def code_digest(config: Config) -> str:
    """Digest of code, networks and configuration; the stack has its own."""
    settings = json.dumps(config.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(f"{SCORES_VERSION} {_files_digest()} {settings}".encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _files_digest() -> str:
    package, research = Path(dfs_ros.__file__).parent, Path(dfs_research.__file__).parent / "evaluation"
    files = [file for file in package.rglob("*") if file.relative_to(package).parts[0] not in _NO_PART_OF_AN_ESTIMATE]
    files += [*folders.share_folder("models").iterdir(), research / "use_scores.py", research / "uncertainty.py"]
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.suffix == ".py":
            digest.update(f"{file.name} {_code(file)}".encode())
        elif file.suffix in (".cu", ".cuh", ".h", ".safetensors", ".onnx"):
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _code(file: Path) -> str:
    """What a Python file does: its syntax tree without docstrings and comments."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _stack_digest(used: UsedStack) -> str:
    stack = used.stack
    told = (used.reference, stack.focus_diopters.tolist(), stack.camera, used.focus_sigma_diopters.tolist())
    digest = hashlib.sha256(repr(told + (stack.poses if stack.poses else ())).encode())
    for array in (stack.images, stack.magnification, used.depth_m):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _load(file: Path) -> Values | None:
    try:
        values: Values = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return {key: math.nan if value is None else value for key, value in values.items()}


def _warned(score: UseScore) -> bool:
    return bool(score.values["warnings"]) or bool(score.values["refused"])


def _number(score: UseScore, key: str) -> float:
    return float(score.values[key])  # type: ignore[arg-type]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
