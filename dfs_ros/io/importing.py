"""Import of a focal stack from a folder of photos.

The CSV file has a line of names, separated by comma, semicolon or tab: `file`, one of `focus_diopters`,
`focus_distance_m` (`inf` = infinity) and `raw_position` (with a calibration of the lens), and optionally
`focus_sigma_diopters`, `stamp_ns` and `magnification`. The stack has the listed photos, in this order. Without the file
it has all photos of the folder by name, with the focus from their names or tags, see :mod:`dfs_ros.io.photo_focus`. The
lens is taken from the arguments, else from a lens-calibration/1, else from EXIF, see :mod:`dfs_ros.io.exif`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfs_ros.config import LensConfig, LimitsConfig
from dfs_ros.io.calibrated_description import check_size
from dfs_ros.io.exif import PhotoExif, read_exif
from dfs_ros.io.images import IMAGE_SUFFIXES
from dfs_ros.io.photo_focus import frames_from_names, frames_from_tags
from dfs_ros.io.photo_table import read_photo_table
from dfs_ros.io.stack_description import (
    DESCRIPTION_FILE,
    FrameEntry,
    StackDescription,
    check_document,
    combined,
    stack_document,
    write_description,
)
from dfs_ros.io.stack_folder import check_images
from dfs_ros.io.unreadable import listed
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.reading import load_lens
from dfs_ros.system.atomic import staged
from dfs_ros.types import MAX_FRAMES, Camera

FOCUS_UNITS = ("metres", "diopters")
ORIGINS = ("unknown", "lens", "sensor")

_SAME_FOCUS_DIOPTERS = 1e-3  # or a hundredth of the sweep, where that is less
_ORIGIN_MATTERS = (
    0.1  # relative difference of distances from the lens and from the sensor: the doubt of an EXIF distance
)


@dataclass(frozen=True)
class ImportedStack:
    """Result of :func:`import_folder`: stack, origin of each lens value, photos left out, warnings."""

    description: StackDescription
    origins: dict[str, str]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def import_folder(
    folder: str | Path,
    output: str | Path | None = None,
    csv: str | Path | None = None,
    *,
    calibration: str | Path | None = None,
    focal_length_m: float | None = None,
    f_number: float | None = None,
    pixel_pitch_m: float | None = None,
    focus_unit: str = "metres",
    distance_from: str = "unknown",
    focus_from_name: str = "",
    every: int = 1,
    note: str = "",
    max_megapixels: float = LimitsConfig.image_megapixels,
) -> ImportedStack:
    r"""Make a focal-stack/1 folder of photos.

    Parameters
    ----------
    folder
        Folder of the photos.
    output
        New or empty folder for `stack.yaml` and copies of the photos, byte for byte. None = `stack.yaml` is written
        beside the photos, and nothing is copied.
    csv
        File with the focus of each photo (see the module); None = from EXIF.
    calibration
        File of the lens (lens-calibration/1 or lens-table/1) for a column raw_position. The order of the photos, by
        `stamp_ns` or of the lines, tells from which side the lens reached a position. Photos at positions beyond the
        calibration, or focused beyond infinity, are left out with a warning.
    focal_length_m, f_number, pixel_pitch_m
        Lens, and size of an image pixel on the sensor; None = from EXIF.
    focus_unit
        Unit of EXIF SubjectDistance: 'metres' (the standard) or 'diopters' (some devices).
    distance_from
        Origin of distances in metres. 'lens': the front principal plane, as everywhere in this package; 'sensor': the
        film plane, ``L = u + f u / (u - f)``, as still cameras and their lenses count; 'unknown': taken as from the
        lens, and refused where the two differ by over 10 %.
    focus_from_name
        Regular expression of file names with one group, the focus, and its unit after it: ``(\d+)cm``.
    every
        Take every second, third, ... photo only.

    Raises
    ------
    FileNotFoundError, ValueError
        Nothing has been written then. Every image is decoded once, which finds damaged ones.
    """
    if focus_unit not in FOCUS_UNITS:
        raise ValueError(f"focus_unit: expected one of {', '.join(FOCUS_UNITS)}, received {focus_unit!r}")
    if distance_from not in ORIGINS:
        raise ValueError(f"distance_from: expected one of {', '.join(ORIGINS)}, received {distance_from!r}")
    if focus_from_name and csv is not None:
        raise ValueError("expected --csv or --focus-from-name, received both")
    if every < 1:
        raise ValueError(f"every: expected 1 or more, received {every}")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with photos")
    target = _target(folder, output)
    visible = [p for p in folder.iterdir() if p.name[0] != "."]
    photos = sorted(p.name for p in visible if p.suffix.lower() in IMAGE_SUFFIXES)
    unreadable = listed(visible)
    lens = None if calibration is None else load_lens(calibration)
    warnings: list[str] = []
    if csv is not None:
        own_camera = (focal_length_m, f_number, pixel_pitch_m) == (None, None, None)
        table = read_photo_table(Path(csv), folder, lens, own_camera)
        frames, in_metres = table.frames[::every], table.in_metres
        if table.unknown:
            warnings.append(
                f"left out: {', '.join(table.unknown)}; their lens positions lie outside of {calibration}, or are "
                "focused beyond infinity"
            )
        focus_origin = Path(csv).name
    elif lens is not None:
        raise ValueError("calibration: expected a CSV file with a column raw_position as well (--csv)")
    else:
        if not photos:
            received = unreadable or "a folder without any"
            raise ValueError(f"{folder}: expected photos ({', '.join(IMAGE_SUFFIXES)}), received {received}")
        frames, in_metres = [], focus_unit == "metres"
        focus_origin = ""
    files = photos[::every] if csv is None else [frame.file for frame in frames]
    if len(files) > MAX_FRAMES:
        least = math.ceil(len(files) / MAX_FRAMES)
        nth = {2: "second", 3: "third"}.get(least, f"{least}th")
        raise ValueError(
            f"{folder}: a focal stack holds at most {MAX_FRAMES} images, received {len(files)} photos: leave photos "
            f"out, such as all but every {nth} one (--every {least * every})"
        )
    exif = {file: read_exif(folder / file, max_megapixels) for file in files}
    if csv is None and focus_from_name:
        frames, in_metres = frames_from_names(files, folder, focus_from_name)
        focus_origin = f"file names by {focus_from_name}"
    elif csv is None:
        frames, focus_origin = frames_from_tags(exif, folder, focus_unit)
    if isinstance(lens, LensCalibration) and (focal_length_m, f_number, pixel_pitch_m) == (None, None, None):
        camera, origins = _calibrated(lens, folder / files[0], calibration, max_megapixels)
    else:
        camera, origins = _camera(exif, folder, focal_length_m, f_number, pixel_pitch_m)
    if in_metres:
        frames = _from_the_lens(frames, camera.focal_length_m, distance_from, folder)
    origins = {"focus": focus_origin, **origins}
    note = (
        note or "Imported from photos: " + ", ".join(f"{what} from {origin}" for what, origin in origins.items()) + "."
    )
    document = stack_document(camera, frames, note)
    errors: list[Exception] = []
    description = check_document(folder / DESCRIPTION_FILE, document, LensConfig(), errors)
    if description is not None:
        check_images(description, max_megapixels, errors)
    if description is None or errors:
        raise combined(errors)
    with staged(target, last=DESCRIPTION_FILE) as staging:
        if target != folder:
            for file in files:
                shutil.copyfile(folder / file, staging / file)
        write_description(document, staging / DESCRIPTION_FILE)
    made = StackDescription(target, camera, tuple(frames), note)
    warnings += _same_focus(frames)
    if unreadable and csv is None:
        warnings.append(f"left out: {unreadable}")
    return ImportedStack(made, origins, tuple(sorted(set(photos) - set(files))), tuple(warnings))


def _calibrated(
    lens: LensCalibration, photo: Path, calibration: str | Path | None, max_megapixels: float
) -> tuple[Camera, dict[str, str]]:
    """Camera of a calibration, and its origins. Raises ValueError if a photo has another size."""
    check_size(photo, lens, str(calibration), max_megapixels)
    return lens.camera, dict.fromkeys(("focal length", "f-number", "pixel pitch"), Path(str(calibration)).name)


def _from_the_lens(frames: list[FrameEntry], focal_length_m: float, origin: str, folder: Path) -> list[FrameEntry]:
    """Focus of distances that count from the lens or, by `origin`, from the sensor."""
    if origin == "lens":
        return frames
    from_lens = []
    for frame in frames:
        focus = frame.focus_diopters
        # L = u + f u / (u - f), u the larger of both solutions; with D = 1 / L.
        root = 1 - 4 * focal_length_m * focus
        if root <= 0 and origin == "sensor":
            raise ValueError(
                f"{folder / frame.file}: {1 / focus:.4g} m from the sensor is nearer than four focal lengths of "
                f"{focal_length_m:.4g} m, where no lens can focus; is it from the lens (--distance-from lens)?"
            )
        factor = 2 / (1 + math.sqrt(root)) if root > 0 else 1.0
        if origin == "unknown" and factor - 1 > _ORIGIN_MATTERS:
            raise ValueError(
                f"{folder / frame.file}: {1 / focus:.4g} m may count from the lens or, as of still cameras, from the "
                f"sensor, {1 / (factor * focus):.4g} m from the lens then: say which, --distance-from lens or sensor, "
                f"and check the focal length of {focal_length_m * 1e3:.4g} mm"
            )
        from_lens.append(frame if origin == "unknown" else dataclasses.replace(frame, focus_diopters=focus * factor))
    return from_lens


def _same_focus(frames: list[FrameEntry]) -> list[str]:
    """Warnings of photos at one focus: one may be merged of all, or a copy."""
    found = []
    ordered = sorted(frames, key=lambda frame: frame.focus_diopters)
    within = min(_SAME_FOCUS_DIOPTERS, 0.01 * (ordered[-1].focus_diopters - ordered[0].focus_diopters))
    for _, group in itertools.groupby(ordered, key=lambda frame: round(frame.focus_diopters / within)):
        names = [frame.file for frame in group]
        if len(names) > 1:
            found.append(f"same focus: {', '.join(names)}; if one is merged of all photos, or a copy, leave it out")
    return found


def _target(folder: Path, output: str | Path | None) -> Path:
    target = folder if output is None or Path(output).resolve() == folder.resolve() else Path(output)
    if target == folder and (folder / DESCRIPTION_FILE).exists():
        raise ValueError(f"{folder}: is a focal stack already; remove its {DESCRIPTION_FILE} or choose another output")
    if target != folder and target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target}: expected a new or empty folder, received one with files in it")
    return target


def _camera(
    exif: dict[str, PhotoExif],
    folder: Path,
    focal_length_m: float | None,
    f_number: float | None,
    pixel_pitch_m: float | None,
) -> tuple[Camera, dict[str, str]]:
    """Lens from the arguments, else from the photos, which must agree; and its origins."""
    origins = {}

    def value(given: float | None, what: str, option: str, tag: str, of: Callable[[PhotoExif], float]) -> float:
        if given is not None:
            origins[what] = "the value given"
            return given
        found = {file: of(tags) for file, tags in exif.items() if not math.isnan(of(tags))}
        if not found:
            file, doubt = next(((f, t.pixel_pitch_doubt) for f, t in exif.items() if t.pixel_pitch_doubt), ("", ""))
            if doubt and what == "pixel pitch":
                raise ValueError(f"{folder / file}: {what}: {doubt}; give {option}")
            raise ValueError(f"{folder}: {what}: the photos' EXIF does not say; give {option}")
        low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
        if found[high] > 1.01 * found[low]:
            raise ValueError(
                f"{folder}: {what}: expected one for all photos, received {found[low]:.4g} in {low} and "
                f"{found[high]:.4g} in {high}; leave photos out or give {option}"
            )
        origins[what] = f"EXIF {tag}"
        return next(iter(found.values()))

    pitch_tag = next((tags.pixel_pitch_tag for tags in exif.values() if tags.pixel_pitch_tag), "")
    return Camera(
        value(focal_length_m, "focal length", "--focal-length-mm", "FocalLength", lambda t: t.focal_length_m),
        value(f_number, "f-number", "--f-number", "FNumber or ApertureValue", lambda t: t.f_number),
        value(pixel_pitch_m, "pixel pitch", "--pixel-pitch-um", pitch_tag, lambda t: t.pixel_pitch_m),
    ), origins
