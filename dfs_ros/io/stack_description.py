"""`stack.yaml` of focal-stack/1: reading, validation, writing; see `stack_folder.py`."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dfs_ros.config import LensConfig, read_yaml, unknown_name
from dfs_ros.io.calibrated_description import calibrated_frames, check_size
from dfs_ros.lens_field import LensField
from dfs_ros.optics.pinhole import pixel_pitch_from_intrinsics
from dfs_ros.pose import Pose
from dfs_ros.types import Camera, FocalStack

FORMAT = "focal-stack/1"
DESCRIPTION_FILE = "stack.yaml"
MAX_DESCRIPTION_BYTES = 1_000_000
MOST_ERRORS = 10
"""Errors of one stack that are told."""

_TOP_KEYS = ("format", "note", "calibration", "camera", "frames", "reference_depth")
_LENS_KEYS = ("focal_length_m", "f_number", "pixel_pitch_m", "reference_focus_diopters")
_INTRINSIC_KEYS = ("fx_px", "fy_px", "cx_px", "cy_px")
_CAMERA_KEYS = (*_LENS_KEYS, *_INTRINSIC_KEYS, "aperture_sigma", "softness_px2", "aberration")
_FIELD = "field"
_FIELD_KEYS = ("curvature", "tilt_x", "tilt_y", "vignetting", "covariance")
_FRAME_KEYS = ("file", "focus_diopters", "focus_sigma_diopters", "stamp_ns", "magnification", "blur_scale", "pose")
_POSE_KEYS = ("translation_m", "rotation_xyzw", "sigma_m", "sigma_rad")

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = 60


@dataclass(frozen=True)
class FrameEntry:
    """Entry of one image in `stack.yaml`; unknown: `stamp_ns` 0, NaN or None."""

    file: str
    focus_diopters: float
    stamp_ns: int = 0
    magnification: float = math.nan
    blur_scale: float = 1.0
    focus_sigma_diopters: float = math.nan
    pose: Pose | None = None


@dataclass(frozen=True)
class StackDescription:
    """Content of a valid `stack.yaml`; every path in it lies inside `folder`."""

    folder: Path
    camera: Camera
    frames: tuple[FrameEntry, ...]
    note: str = ""
    reference_depth: str = ""

    def path(self, file: str) -> Path:
        """Path of a file of the stack."""
        return self.folder / file


def read_description(path: str | Path, lens: LensConfig | None = None) -> StackDescription:
    """Read and check `stack.yaml`, without the images. Arguments and errors as `load_stack`."""
    errors: list[Exception] = []
    description = collect_description(path, lens, errors)
    if description is None:
        raise combined(errors)
    return description


def collect_description(path: str | Path, lens: LensConfig | None, errors: list[Exception]) -> StackDescription | None:
    """Read as :func:`read_description`, but append errors to `errors`; None after any."""
    with collecting(errors):
        source = description_file(path)
        return check_document(source, _read_yaml(source), lens, errors)
    return None


def check_document(
    source: Path, document: Mapping[str, Any], lens: LensConfig | None, errors: list[Exception]
) -> StackDescription | None:
    """Check the content of `source`, existing or planned; images must exist, but stay closed.

    Errors are appended to `errors`; the result is None after any.
    """
    before = len(errors)
    folder = source.parent
    with collecting(errors):
        if document.get("format") != FORMAT:
            raise ValueError(f"{source}: format: expected '{FORMAT}', received {_show(document.get('format'))}")
        check_keys(document, _TOP_KEYS, str(source))
    note = document.get("note", "")
    if not isinstance(note, str):
        errors.append(ValueError(f"{source}: note: expected text, received {_show(note)}"))
    camera, entries, calibrated = None, document.get("frames"), None
    if "calibration" in document:
        with collecting(errors):
            file = check_file(folder, document["calibration"], f"{source}: calibration")
            entries, calibrated = calibrated_frames(entries, file, str(source), "camera" in document)
        if len(errors) > before:
            return None
    with collecting(errors):
        own = document.get("camera", {})
        camera = calibrated.camera if calibrated else _camera(own, lens or LensConfig(), source)
    frames = _frames(entries, source, errors)
    if calibrated is not None and frames:
        with collecting(errors):
            check_size(folder / frames[0].file, calibrated, str(document["calibration"]))
    reference = document.get("reference_depth", "")
    if reference != "":
        with collecting(errors):
            check_file(folder, reference, f"{source}: reference_depth")
    if camera is not None and frames and len(errors) == before:
        with collecting(errors):
            _check_stack(camera, frames, source)
    if camera is None or len(errors) > before:
        return None
    return StackDescription(folder, camera, tuple(frames), note, reference)


def stack_document(camera: Camera, frames: list[FrameEntry], note: str = "") -> dict[str, Any]:
    """Content of `stack.yaml` as plain values, without unknown and default ones."""
    document: dict[str, Any] = {"format": FORMAT}
    if note:
        document["note"] = note
    lens = {key: float(getattr(camera, key)) for key in _CAMERA_KEYS}
    for key in ("reference_focus_diopters", "aberration"):
        if lens[key] == 0:
            del lens[key]
    document["camera"] = {key: value for key, value in lens.items() if not math.isnan(value)}
    if camera.field is not None:
        document["camera"][_FIELD] = {key: _plain(getattr(camera.field, key)) for key in _FIELD_KEYS}
    document["frames"] = [_known(frame) for frame in frames]
    return document


def _known(entry: FrameEntry | Pose) -> dict[str, Any]:
    """Plain values of an entry, without unknown and default ones."""
    known: dict[str, Any] = {}
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        stated = value != field.default or field.name == "rotation_xyzw"  # without it a pose might say nothing
        if stated and not (isinstance(value, float) and math.isnan(value)):
            known[field.name] = _plain(_known(value) if isinstance(value, Pose) else value)
    return known


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def write_description(document: Mapping[str, Any], path: Path) -> None:
    """Write `stack.yaml`."""
    path.write_text(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")


def combined(errors: list[Exception]) -> Exception:
    """Combine errors: FileNotFoundError if all are, else ValueError; a single one stays."""
    if len(errors) == 1:
        return errors[0]
    kind = FileNotFoundError if all(isinstance(e, FileNotFoundError) for e in errors) else ValueError
    told = [f"- {e}" for e in errors[:MOST_ERRORS]]
    if len(errors) > MOST_ERRORS:
        told.append(f"- and {len(errors) - MOST_ERRORS} more")
    return kind(f"{len(errors)} problems:\n" + "\n".join(told))


@contextmanager
def collecting(errors: list[Exception]) -> Iterator[None]:
    """Collect an error of the block into `errors`, and continue after it."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        errors.append(error)


def description_file(path: str | Path) -> Path:
    """Find `stack.yaml` from its path or its folder; FileNotFoundError if missing."""
    path = Path(path)
    source = path / DESCRIPTION_FILE if path.is_dir() else path
    if not source.is_file():
        raise FileNotFoundError(
            f"{source}: no such file; expected a focal stack, a folder with {DESCRIPTION_FILE} "
            "(`dfs import FOLDER` makes one from photos)"
        )
    return source


def _read_yaml(source: Path) -> dict[str, Any]:
    size = source.stat().st_size
    if size > MAX_DESCRIPTION_BYTES:
        raise ValueError(
            f"{source}: expected at most {MAX_DESCRIPTION_BYTES} bytes, received {size}; is it a stack.yaml?"
        )
    document = read_yaml(source, str(source))
    if not isinstance(document, dict):
        raise ValueError(f"{source}: expected keys {', '.join(_TOP_KEYS)}, received {_show(document)}")
    return document


def _camera(values: Any, lens: LensConfig, source: Path) -> Camera:
    name = f"{source}: camera"
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected keys {', '.join(_CAMERA_KEYS)}, received {_show(values)}")
    check_keys(values, (*_CAMERA_KEYS, _FIELD), name)
    known: dict[str, Any] = {key: number(values[key], f"{name}.{key}") for key in values if key != _FIELD}
    for key in _LENS_KEYS:
        if key not in known and getattr(lens, key) > 0:
            known[key] = getattr(lens, key)
    for key in ("fx_px", "fy_px"):
        if known.get(key, 1.0) <= 0:
            raise ValueError(f"{name}.{key}: expected pixels over 0, received {known[key]}")
    for key in ("focal_length_m", "f_number"):
        if key not in known:
            raise ValueError(f"{name}.{key}: missing; add it to {source.name} or set lens.{key}")
    if "pixel_pitch_m" not in known:
        if "fx_px" not in known:
            raise ValueError(
                f"{name}.pixel_pitch_m: missing; add it (or fx_px) to {source.name} or set lens.pixel_pitch_m"
            )
        known["pixel_pitch_m"] = pixel_pitch_from_intrinsics(
            known["fx_px"], known["focal_length_m"], known.get("reference_focus_diopters", 0.0)
        )
    if _FIELD in values:
        known[_FIELD] = _lens_field(values[_FIELD], f"{name}.{_FIELD}", source)
    try:
        return Camera(**known)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _lens_field(values: Any, name: str, source: Path) -> LensField:
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected keys {', '.join(_FIELD_KEYS)}, received {_show(values)}")
    check_keys(values, _FIELD_KEYS, name)
    known = {key: number(value, f"{name}.{key}") for key, value in values.items() if key != "covariance"}
    covariance = values.get("covariance", [])
    if not isinstance(covariance, list):
        raise ValueError(f"{name}.covariance: expected a list of numbers, received {_show(covariance)}")
    numbers = tuple(number(value, f"{name}.covariance[{i}]") for i, value in enumerate(covariance))
    try:
        return LensField(**known, covariance=numbers)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _frames(entries: Any, source: Path, errors: list[Exception]) -> list[FrameEntry]:
    if not isinstance(entries, list) or not entries:
        errors.append(
            ValueError(f"{source}: frames: expected a list of images with their focus, received {_show(entries)}")
        )
        return []
    frames: list[FrameEntry] = []
    for i, entry in enumerate(entries):
        with collecting(errors):
            frame = _frame(entry, f"{source}: frames[{i}]", source.parent)
            if any(frame.file == other.file for other in frames):
                raise ValueError(
                    f"{source}: frames[{i}].file: '{frame.file}' is listed twice; every image has one focus"
                )
            frames.append(frame)
    return frames


def _frame(entry: Any, name: str, folder: Path) -> FrameEntry:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{name}: expected keys {', '.join(_FRAME_KEYS)}, received {_show(entry)}")
    check_keys(entry, _FRAME_KEYS, name)
    for key in ("file", "focus_diopters"):
        if key not in entry:
            raise ValueError(f"{name}.{key}: missing")
    check_file(folder, entry["file"], f"{name}.file")
    stamp = entry.get("stamp_ns", 0)
    if type(stamp) is not int or not 0 <= stamp < 2**63:
        raise ValueError(f"{name}.stamp_ns: expected whole nanoseconds, 0 to 2^63 - 1, received {_show(stamp)}")
    scales = {}
    for key in ("magnification", "blur_scale"):
        if key in entry:
            scales[key] = number(entry[key], f"{name}.{key}")
            if scales[key] <= 0:
                raise ValueError(f"{name}.{key}: expected a number over 0, received {scales[key]}")
    key = "focus_sigma_diopters"
    sigma = number(entry[key], f"{name}.{key}") if key in entry else math.nan
    if sigma < 0:
        raise ValueError(f"{name}.{key}: expected a number of 0 (exact) or more, received {sigma}")
    focus = number(entry["focus_diopters"], f"{name}.focus_diopters")
    pose = _pose(entry["pose"], f"{name}.pose") if "pose" in entry else None
    return FrameEntry(entry["file"], focus, stamp, **scales, focus_sigma_diopters=sigma, pose=pose)


def _pose(values: Any, name: str) -> Pose:
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected keys {', '.join(_POSE_KEYS)}, received {_show(values)}")
    check_keys(values, _POSE_KEYS, name)
    if not {"translation_m", "rotation_xyzw"} & set(values):  # a gyroscope tells rotation alone
        raise ValueError(f"{name}.translation_m: missing")
    known: dict[str, Any] = {}
    for key, value in values.items():
        if key.startswith("sigma"):
            known[key] = number(value, f"{name}.{key}")
        elif isinstance(value, list):
            known[key] = tuple(number(part, f"{name}.{key}[{i}]") for i, part in enumerate(value))
        else:
            raise ValueError(f"{name}.{key}: expected a list of numbers, received {_show(value)}")
    try:
        return Pose(**known)
    except ValueError as error:
        raise ValueError(f"{name.removesuffix('pose')}{error}") from error


def _check_stack(camera: Camera, frames: list[FrameEntry], source: Path) -> None:
    # Finds errors of a FocalStack (too few images, focus inside the focal length, ...) before images are read.
    blank = np.zeros((len(frames), 16, 16), np.uint8)
    try:
        FocalStack(blank, np.array([frame.focus_diopters for frame in frames]), camera)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def check_keys(values: Mapping[Any, Any], known: tuple[str, ...], name: str) -> None:
    """Raise ValueError for an unknown key, with the nearest known one."""
    for key in values:
        if key not in known:
            raise ValueError(f"{name}: {unknown_name(str(key), known, 'key')}")


def check_file(folder: Path, file: Any, name: str) -> Path:
    """Path of a file inside `folder`, links resolved; else ValueError or FileNotFoundError."""
    if not isinstance(file, str) or not file.strip() or "\0" in file:
        raise ValueError(f"{name}: expected a file name (in quotes if it is a number), received {_show(file)}")
    path = folder / file
    if Path(file).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{name}: expected a file inside {folder}, received '{file}', which lies outside; copy it there"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{name}: {path}: no such file")
    return path


def number(value: Any, name: str) -> float:
    """Parse a finite number, also from text: YAML reads `5e-6`, without a point, as text."""
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise ValueError(f"{name}: expected a finite number, received {_show(value)}")
    return result


def _show(value: Any) -> str:
    # Shortened: YAML aliases can expand a small file into an endless text.
    return "nothing" if value is None else _SHORT.repr(value)
