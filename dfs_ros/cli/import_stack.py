"""Make a focal stack (stack.yaml) from a folder of photos with different focus.

Focus: from a CSV file with columns `file` and `focus_diopters`, `focus_distance_m` (inf: infinity) or `raw_position`
(with --calibration), from file names (--focus-from-name), otherwise from EXIF SubjectDistance, XMP
ApproximateFocusDistance or, with exiftool installed, the maker notes. Lens: from the options, otherwise from the
calibration, from EXIF. Without --output, stack.yaml is written next to the photos; with it, the photos are copied
unchanged.
"""

from __future__ import annotations

import argparse
import sys

from dfs_ros.config import LimitsConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="folder of the photos")
    parser.add_argument("--output", metavar="DIR", help="new folder for the stack (default: FOLDER)")
    parser.add_argument("--csv", metavar="FILE", help="table of the focus of each photo (default: EXIF)")
    parser.add_argument(
        "--calibration", metavar="FILE", help="calibration of the lens, of `dfs calibrate lens` or `dfs focus-table`"
    )
    parser.add_argument("--focal-length-mm", metavar="MM", type=float, help="focal length [mm] (default: EXIF)")
    parser.add_argument("--f-number", metavar="N", type=float, help="f-number (default: EXIF)")
    parser.add_argument(
        "--pixel-pitch-um",
        metavar="UM",
        type=float,
        help="pixel pitch of the photos on the sensor [um] (default: EXIF)",
    )
    parser.add_argument(
        "--focus-unit",
        choices=("metres", "diopters"),
        default="metres",
        help="unit of EXIF SubjectDistance: metres (standard, default) or dioptres (some devices)",
    )
    parser.add_argument(
        "--distance-from",
        choices=("lens", "sensor"),
        default="unknown",
        help="origin of distances in metres (default: lens, and refused where it matters)",
    )
    parser.add_argument(
        "--focus-from-name",
        metavar="PATTERN",
        default="",
        help="regular expression of the file names, with the focus as its group and mm, cm, m or D (dioptres) after "
        "it, such as '(\\d+)cm'",
    )
    parser.add_argument("--every", metavar="N", type=int, default=1, help="take every Nth photo only (default: 1)")
    parser.add_argument(
        "--max-input-megapixels",
        metavar="MPX",
        type=float,
        default=LimitsConfig.image_megapixels,
        help="maximum size of a photo; larger ones are refused (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    from dfs_ros.consistency.judge import sweep_finding
    from dfs_ros.io.importing import import_folder
    from dfs_ros.io.pictures import focus_text

    imported = import_folder(
        args.folder,
        args.output,
        args.csv,
        calibration=args.calibration,
        focal_length_m=None if args.focal_length_mm is None else args.focal_length_mm * 1e-3,
        f_number=args.f_number,
        pixel_pitch_m=None if args.pixel_pitch_um is None else args.pixel_pitch_um * 1e-6,
        focus_unit=args.focus_unit,
        distance_from=args.distance_from,
        focus_from_name=args.focus_from_name,
        every=args.every,
        max_megapixels=args.max_input_megapixels,
    )
    stack, origins = imported.description, imported.origins
    camera = stack.camera
    print(f"focal length {camera.focal_length_m * 1e3:.4g} mm (from {origins['focal length']})")
    print(f"f-number     {camera.f_number:.3g} (from {origins['f-number']})")
    print(f"pixel pitch  {camera.pixel_pitch_m * 1e6:.4g} um (from {origins['pixel pitch']})")
    print(f"focus        from {origins['focus']}:")
    for frame in stack.frames:
        print(f"  {frame.file:<24} {focus_text(frame.focus_diopters)}")
    weak = sweep_finding([frame.focus_diopters for frame in stack.frames], camera)
    for warning in (*imported.warnings, *([weak.text] if weak else [])):
        print(f"warning: {warning}", file=sys.stderr)
    if imported.left_out and args.every == 1:
        print(f"not listed in {args.csv}, left out: {', '.join(imported.left_out)}", file=sys.stderr)
    print(f"{stack.folder}: focal stack of {len(stack.frames)} images; next: dfs estimate {stack.folder} --output DIR")
    return 0
