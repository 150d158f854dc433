"""`stack.yaml` whose frames have raw lens positions, and a calibration that turns them into focus.

::

    format: focal-stack/1
    calibration: lens.yaml             # lens-calibration/1 or lens-table/1, inside this folder
    frames:
    - {file: 000.png, raw_position: 120}

The camera is that of a lens-calibration/1, unless the file has a `camera` of its own. The order of the frames, by
stamps if all have one, tells from which side the lens reached a position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfs_ros.config import LimitsConfig
from dfs_ros.io.images import ImageFile
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.positions import focus_at
from dfs_ros.lens.reading import load_lens

RAW = "raw_position"


def calibrated_frames(
    entries: Any, calibration: Path, name: str, own_camera: bool
) -> tuple[Any, LensCalibration | None]:
    """Entries of `frames` with the focus of their raw positions, and the lens if it is a camera as well.

    Entries that are no mappings stay, for those who check them. Raises ValueError for a position without a focus.
    """
    lens = load_lens(calibration)
    camera = lens if isinstance(lens, LensCalibration) and not own_camera else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        return entries, camera
    raws, stamps = [], []
    for i, entry in enumerate(entries):
        raw = entry.get(RAW)
        if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
            raise ValueError(f"{name}: frames[{i}].{RAW}: expected a finite number, received {raw!r}")
        if "focus_diopters" in entry:
            raise ValueError(f"{name}: frames[{i}]: expected {RAW} or focus_diopters, received both")
        stamp = entry.get("stamp_ns", 0)
        raws.append(float(raw))
        stamps.append(stamp if type(stamp) is int else 0)
    described = []
    for i, (entry, found) in enumerate(zip(entries, focus_at(lens, raws, stamps, camera is not None), strict=True)):
        if math.isnan(found.diopters):
            raise ValueError(
                f"{name}: frames[{i}].{RAW}: {raws[i]:g} lies outside of {calibration.name}, or is focused beyond "
                "infinity; leave this frame out"
            )
        known = {"focus_diopters": found.diopters, "focus_sigma_diopters": found.sigma_diopters}
        if not math.isnan(found.magnification):
            known["magnification"] = found.magnification
        described.append({**known, **{key: value for key, value in entry.items() if key != RAW}})
    return described, camera


def check_size(
    photo: Path, lens: LensCalibration, calibration: str, max_megapixels: float = LimitsConfig.image_megapixels
) -> None:
    """Raise ValueError if an image has another size than those of a calibration."""
    with ImageFile(photo, max_megapixels) as file:
        size = file.upright_size()
    if size != lens.size:
        raise ValueError(
            f"{photo}: expected {lens.size[1]} x {lens.size[0]} pixels, as {calibration} is of, received {size[1]} x "
            f"{size[0]}: is the calibration of this camera, at this size?"
        )
