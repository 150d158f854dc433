"""report.json, depth-report/1: one schema for all commands that write depth, documented field by field."""

from __future__ import annotations

import dataclasses
import math
import platform
from typing import Any, NamedTuple

import cv2
import numpy as np

from dfs_ros.io.markdown import markdown_table
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import DepthResult
from dfs_ros.version import __version__

FORMAT = "depth-report/1"


class Field(NamedTuple):
    """Field of the report: type, unit, meaning, reason for null, writing command.

    Type `number` is float or integer.
    """

    kind: str
    unit: str
    meaning: str
    null: str = ""
    command: str = ""


ESTIMATE, RUN = "dfs estimate", "dfs run"
_OVER_DEPTH = "median over pixels with depth of sigma / depth"
_NO_DEPTH, _UNKNOWN, _NONE = "no pixel has depth", "derived from the lens", "none was measured"
_NOMINAL = "not calibrated"

FIELDS: dict[str, Field] = {
    "format": Field("text", "", f"`{FORMAT}`"),
    "coverage": Field("number", "share", "pixels with depth"),
    "depth_m.min": Field("number", "m", "nearest depth", _NO_DEPTH),
    "depth_m.median": Field("number", "m", "median depth", _NO_DEPTH),
    "depth_m.max": Field("number", "m", "farthest depth", _NO_DEPTH),
    "pixels_beyond_depth_mm_png": Field("integer", "px", "pixels with depth that depth_mm.png cannot hold"),
    "size_px.width": Field("integer", "px", "width of the depth image"),
    "size_px.height": Field("integer", "px", "height of the depth image"),
    "stamp_ns": Field("integer", "ns", "stamp of the reference image; 0: none"),
    "camera.focal_length_m": Field("number", "m", "focal length"),
    "camera.f_number": Field("number", "", "f-number"),
    "camera.pixel_pitch_m": Field("number", "m", "size of a pixel of the depth image on the sensor"),
    "camera.fx_px": Field("number", "px", "calibrated focal length along x", _UNKNOWN),
    "camera.fy_px": Field("number", "px", "calibrated focal length along y", _UNKNOWN),
    "camera.cx_px": Field("number", "px", "calibrated principal point, x", _UNKNOWN),
    "camera.cy_px": Field("number", "px", "calibrated principal point, y", _UNKNOWN),
    "camera.reference_focus_diopters": Field("number", "1/m", "focus at which these intrinsics hold"),
    "camera.softness_px2": Field("number", "px2", "variance of the blur in focus, without the pixel's own", _NOMINAL),
    "camera.aberration": Field("number", "", "spherical aberration, -1 to 1; 0: none, or unknown"),
    "camera.aperture_sigma": Field("number", "", "relative standard deviation of a calibrated aperture", _NOMINAL),
    "camera.field": Field("object", "", "focal surface and vignetting, of a calibrated lens", _NOMINAL),
    "camera.field.curvature": Field("number", "1/m", "of the focal surface, half a diagonal off the axis"),
    "camera.field.tilt_x": Field("number", "1/m", "of the focal surface, half a diagonal to the right"),
    "camera.field.tilt_y": Field("number", "1/m", "of the focal surface, half a diagonal down"),
    "camera.field.vignetting": Field("number", "share", "of the aperture lost, half a diagonal off the axis"),
    "camera.field.covariance[]": Field("number", "", "lower triangle of the covariance, see lens_field.py"),
    "camera.field.level_diopters": Field("number", "1/m", "0; what focus values were raised by"),
    "intrinsics_px.fx": Field("number", "px", "focal length of the depth image along x"),
    "intrinsics_px.fy": Field("number", "px", "focal length of the depth image along y"),
    "intrinsics_px.cx": Field("number", "px", "principal point, x; the centre of the first pixel is 0"),
    "intrinsics_px.cy": Field("number", "px", "principal point, y"),
    "versions.*": Field("text", "", "versions of dfs_ros, python, numpy and opencv"),
    "configuration.*.*": Field("setting", "", "each setting, by section; see `--list-settings`"),
    "images": Field("integer", "", "images of the stack", command=ESTIMATE),
    "working_size_px.width": Field("integer", "px", "width of the images that were worked on", command=ESTIMATE),
    "working_size_px.height": Field("integer", "px", "height of the images that were worked on", command=ESTIMATE),
    "hypotheses": Field("integer", "", "number of depth hypotheses", command=ESTIMATE),
    "hypotheses_m.min": Field("number", "m", "nearest depth hypothesis", command=ESTIMATE),
    "hypotheses_m.max": Field("number", "m", "farthest depth hypothesis", command=ESTIMATE),
    "seconds.*": Field("number", "s", "duration of each step, and their sum `total`", command=ESTIMATE),
    "ran_on.cost volume": Field("text", "", "device of the cost volume", command=ESTIMATE),
    "ran_on.network": Field("text", "", "name, runner and device of the network; `none`", command=ESTIMATE),
    "alignment.reference": Field("integer", "", "index of the reference image in the stack", command=ESTIMATE),
    "alignment.kept[]": Field("integer", "", "index of each image used", command=ESTIMATE),
    "alignment.breathing": Field("number", "", "focus breathing over that of the lens model", command=ESTIMATE),
    "alignment.valid_share": Field("number", "share", "pixels that all images used show", command=ESTIMATE),
    "alignment.frames[].source": Field(
        "text", "", "source of the motion of each image: reference, images, poses, prior or off", command=ESTIMATE
    ),
    "alignment.frames[].dropped": Field("text", "", "reason for leaving the image out; empty: used", command=ESTIMATE),
    "alignment.frames[].scale": Field("number", "", "scale over the reference image", command=ESTIMATE),
    "alignment.frames[].prior_scale": Field("number", "", "the same by lens model or driver", command=ESTIMATE),
    "alignment.frames[].shift_px[]": Field("number", "px", "shift of the centre, x and y", command=ESTIMATE),
    "alignment.frames[].rotation_deg": Field("number", "deg", "rotation", command=ESTIMATE),
    "alignment.frames[].radial": Field("number", "", "radial distortion over the reference image", command=ESTIMATE),
    "alignment.frames[].local_px": Field("number", "px", "largest motion of a part on its own", command=ESTIMATE),
    "alignment.frames[].gain": Field("number", "", "factor on linear intensity for equal exposure", command=ESTIMATE),
    "alignment.frames[].correlation": Field(
        "number", "", "correlation with the reference image, -1 to 1", "no texture, or not computed", ESTIMATE
    ),
    "aperture": Field("object", "", "fit of the effective aperture", "none was fitted", ESTIMATE),
    "aperture.scale": Field("number", "", "factor on the described blur that was used", command=ESTIMATE),
    "aperture.scale_sigma": Field("number", "", "standard error of its natural logarithm", command=ESTIMATE),
    "aperture.measured": Field("number", "", "factor that explains the images best", command=ESTIMATE),
    "aperture.sigma": Field("number", "", "standard error of its natural logarithm, by the fit", command=ESTIMATE),
    "aperture.at_limit": Field("boolean", "", "the fit ended at the last factor tried", command=ESTIMATE),
    "aperture.share": Field("number", "share", "pixels with enough texture for the fit", command=ESTIMATE),
    "sigma": Field("object", "", "parts of sigma, independent of each other", command=ESTIMATE),
    "sigma.local": Field("number", "share", f"{_OVER_DEPTH} of the pixel alone", _NO_DEPTH, ESTIMATE),
    "sigma.aperture": Field("number", "share", f"{_OVER_DEPTH} by the aperture", _NO_DEPTH, ESTIMATE),
    "sigma.gain": Field("number", "share", f"{_OVER_DEPTH} by the gain of the focus scale", _NO_DEPTH, ESTIMATE),
    "sigma.offset": Field("number", "share", f"{_OVER_DEPTH} by the offset of the focus scale", _NO_DEPTH, ESTIMATE),
    "sigma.calibration": Field(
        "number", "share", f"{_OVER_DEPTH} by the calibration of the lens; 0: none", _NO_DEPTH, ESTIMATE
    ),
    "sigma.lens.aperture": Field(
        "number", "", "standard deviation of the logarithm of the blur factor, common to all pixels", command=ESTIMATE
    ),
    "sigma.lens.gain": Field("number", "", "the same of a factor on the focus", command=ESTIMATE),
    "sigma.lens.offset_diopters": Field("number", "1/m", "the same of an offset of the focus", command=ESTIMATE),
    "sigma.lens.focus_diopters": Field(
        "number", "1/m", "mean focus, at which the aperture does not matter", command=ESTIMATE
    ),
    "findings[].cause": Field("text", "", "name of each contradiction, see docs/consistency.md", command=ESTIMATE),
    "findings[].text": Field("text", "", "the finding, what was expected, and the remedy", command=ESTIMATE),
    "findings[].image": Field("integer", "", "index of the image concerned", "the whole stack", ESTIMATE),
    "findings[].contradiction": Field(
        "boolean", "", "depth of this stack is not reliable (confidence.on_contradiction)", command=ESTIMATE
    ),
    "motion.velocity_m_s[]": Field(
        "number", "m/s", "mean velocity right, down, forward; empty: none was found", command=ESTIMATE
    ),
    "motion.covariance_m2_s2[]": Field(
        "number", "m^2/s^2", "its covariance (3, 3) by rows; empty with it", command=ESTIMATE
    ),
    "warnings[]": Field("text", "", "each warning, the findings' texts among them", command=ESTIMATE),
    "reference.median_abs_rel": Field(
        "number", "share", "median of abs(depth - reference) / reference", _NO_DEPTH, f"{ESTIMATE}, with a reference"
    ),
    "reference.abs_rel": Field("number", "share", "mean of the same", _NO_DEPTH, f"{ESTIMATE}, with a reference"),
    "reference.coverage": Field(
        "number", "share", "pixels with reference depth that have depth", command=f"{ESTIMATE}, with a reference"
    ),
    "source": Field("text", "", "the camera", command=RUN),
    "transport": Field("text", "", "transport of the messages: ros, dds or local", command=RUN),
    "measured.depth_images": Field("integer", "", "depth images received", command=RUN),
    "measured.depth_hz": Field("number", "Hz", "depth images per second", command=RUN),
    "measured.images_hz": Field("number", "Hz", "images per second that reached the node", _NONE, RUN),
    "measured.latency_s.p50": Field("number", "s", "from the last image of a sweep to its depth, median", _NONE, RUN),
    "measured.latency_s.p99": Field("number", "s", "the same, 99th percentile", _NONE, RUN),
    "measured.latency_s.max": Field("number", "s", "the same, largest", _NONE, RUN),
    "measured.dropped.*": Field("integer", "", "images, messages and stacks not used, by cause; no zeros", command=RUN),
    "measured.stacks_superseded": Field("integer", "", "stacks given up for newer ones", _NONE, RUN),
}
"""Fields by dotted name: `[]` is each element of a list, `*` any name."""


def field_table() -> str:
    """Markdown table of the fields."""
    rows = []
    for name, field in FIELDS.items():
        kind = f"{field.kind} [{field.unit}]" if field.unit else field.kind
        meaning = f"{field.meaning}; null: {field.null}" if field.null else field.meaning
        rows.append([f"`{name}`", kind, meaning, field.command or "all"])
    return markdown_table(["field", "type [unit]", "meaning", "written by"], rows)


def report_of(result: DepthResult, pixels_beyond_depth_mm_png: int) -> dict[str, Any]:
    """Report of a result: fields of every command, and those of `result.report`."""
    depth = result.depth_m[np.isfinite(result.depth_m)]
    quantiles = np.percentile(depth, [0, 50, 100]) if depth.size else [math.nan] * 3
    height, width = result.depth_m.shape
    return {
        "format": FORMAT,
        "coverage": result.coverage,
        "depth_m": dict(zip(("min", "median", "max"), map(float, quantiles), strict=True)),
        "pixels_beyond_depth_mm_png": pixels_beyond_depth_mm_png,
        "size_px": {"width": width, "height": height},
        "stamp_ns": result.stamp_ns,
        "camera": dataclasses.asdict(result.camera),
        "intrinsics_px": intrinsics(result.camera, (height, width))._asdict(),
        "versions": {
            "dfs_ros": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
        **result.report,
    }
