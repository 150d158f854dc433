"""Expected outcome of each case of :mod:`benchmarks.cases`, and the judgement of its generator's output."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple


class Board(NamedTuple):
    """Score of one surface of known depth: relative error of the median, share of pixels with depth."""

    true_m: float
    error: float
    coverage: float


class Step(NamedTuple):
    """Command of a generator: arguments, exit status, printed lines, scores."""

    command: str
    status: int
    text: str
    boards: tuple[Board, ...]


class Verdict(NamedTuple):
    """Judgement of a case: RIGHT, REFUSED, WARNED or WRONG, figures, and the text that names the cause."""

    name: str
    verdict: str
    figures: str
    cause: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Want:
    """Requirement on the commands that match `commands`.

    Parameters
    ----------
    commands
        Regular expression on the arguments; all commands that match are judged together, the scores are the last ones.
    within, coverage
        Largest error of the median of each board, and least share of pixels with depth, of a right result; `within` 0:
        there are no scores.
    says
        Regular expression that the output of a right result matches.
    cause
        Regular expressions, all of which a refusal or a warning matches; none: only a right result is good.
    """

    commands: str
    within: float = 0.0
    coverage: float = 0.3
    says: str = ""
    cause: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """Expectation of a case: the figure in words, and a requirement for each part of its input."""

    figure: str
    wants: tuple[Want, ...]


_LENS = r"aperture|f-number|focal length|focus scale|dioptres"

EXPECTED: Mapping[str, Case] = MappingProxyType(
    {
        "aperture_fit_at_limit": Case(
            "warning as of `dfs calibrate`: the description of lens or focus is wrong",
            (Want(r"^estimate \S+/a ", cause=(_LENS,)), Want(r"/b_stack", within=0.03, cause=("focal length",))),
        ),
        "diagnostics_late": Case(
            "LensPosition found behind 250 messages of others",
            (
                Want(
                    r"^replay \S+/bag --output \S+ --set lens.focal_length_m=\S+ --set \S+$",
                    says=r"\b[2-9] depth images",
                ),
            ),
        ),
        "exif_of_uncropped_original": Case(
            "1.5 m within 3 %, or refusal: cropped, --pixel-pitch-um",
            (Want(r"^(import|estimate)", within=0.03, cause=("crop", "--pixel-pitch-um")),),
        ),
        "exif_stale_focal_plane": Case(
            "within 3 %, or both pitches named (36.5 and 93.1 um) with --pixel-pitch-um",
            (Want(r"^(import|estimate)", within=0.03, cause=(r"36\.\d", r"93\.\d", "--pixel-pitch-um")),),
        ),
        "film_plane_distances": Case(
            "0.25, 0.27, 0.29, 0.31 m within 3 %, or a warning that distances count from the sensor",
            (Want(r"^(import|estimate)", within=0.03, cause=("sensor",)),),
        ),
        "focus_stamp_1us": Case(
            "names 1000 ns and stack.match_tolerance_ns",
            (
                Want(r"^replay \S+ --output \S+$", says=r"\d depth images", cause=("1000 ns", "match_tolerance_ns")),
                Want(r"match_tolerance_ns", says=r"[1-9]\d* depth images"),
            ),
        ),
        "foreign_camera_info": Case(
            "refusal: names /other/color/camera_info, camera_info:= and lens.pixel_pitch_m",
            (Want("^replay", cause=("/other/color/camera_info", "camera_info:=", r"lens\.pixel_pitch_m")),),
        ),
        "hundred_photos": Case(
            "taken, or refusal with the limit and the way out",
            (Want("^import", says="focal stack of [0-9]+ images", cause=("64", "leave", "every second")),),
        ),
        "jpeg_zero_padding": Case("within 3 %, 16 and 600 zeros", (Want("pad16", 0.03), Want("pad600", 0.03))),
        "latched_before_start": Case(
            "messages latched before --start are played and copied",
            (
                Want("info_once .*--start", says=r"[1-9]\d* depth images"),
                Want("/tf .*--start", says=r"in the output: \[1\]"),
            ),
        ),
        "lens_lag_first_frame": Case("within 3 %", (Want("^replay", within=0.03),)),
        "macro_relief_lost": Case(
            "296.5, 299.0, 301.5, 303.5 mm: within 0.3 %, with and without the range",
            (Want(r"macro_out$", 0.003, cause=("hypothes",)), Want("--min-depth", 0.003)),
        ),
        "merged_photo_in_folder": Case(
            "within 3 %, or both photos of one focus named",
            (Want("^(import|estimate)", within=0.03, cause=(r"IMG_0002\.JPG", r"output\.jpg")),),
        ),
        "millimetres_as_metres": Case(
            "refusal or warning that names the unit", (Want("^(import|estimate)", cause=("millimet",)),)
        ),
        "mono16_low_bits": Case(
            "within 3 %, or the bits named, for each of three encodings",
            tuple(
                Want(rf"{name} ", 0.03, 0.8, cause=(r"\bbit|multipl",))
                for name in ("mono16_12bit", "mono16_10bit", "bayer_rggb16_10bit")
            ),
        ),
        "one_overexposed_frame": Case(
            "within 1.5 % with all five, or the image named as overexposed",
            (
                Want("all_five_out", 0.015, 0.8, cause=("image 2", "overexposed|clipped|saturated")),
                Want("without_it_out", 0.015),
            ),
        ),
        "rectified_uses_k": Case(
            "within 3 %, fx of P: 958.9",
            (
                Want(r"bag_1\.35 ", 0.03, says=r"expected fx 958\.9, received 958\.9"),
                Want(r"bag_2\.0 ", 0.03, says=r"expected fx 958\.9, received 958\.9"),
            ),
        ),
        "tiff_planar_16bit": Case(
            "within 1.5 %, uncompressed as with zlib",
            (Want("none_out", 0.015, 0.8, cause=("planar|PlanarConfiguration",)), Want("zlib_out", 0.015, 0.8)),
        ),
        "two_images_aperture": Case(
            "within 3 %, with both pairs, fitted and given; median |error| / sigma below 1.5",
            tuple(
                Want(rf"/{pair}_out{tail}$", 0.03, says=r"/ sigma: (0|1\.[0-4])")
                for pair in ("04", "01")
                for tail in ("", " --set lens.aperture=given")
            ),
        ),
        "unclear_errors": Case(
            "each error names the cause and the way out",
            (
                Want("estimate .*/float", cause=("float", "16-bit")),
                Want("import .*/pages", cause=("5 pages", "split")),
                Want("import .*/heic", cause=("3 HEIC", "heif-convert")),
                Want("/rgb ", says=r"[1-9]\d* depth images", cause=("8UC3", "bgr8")),
            ),
        ),
        "v4l2_eacces_after_autofocus": Case(
            "frames with the lens at its position", (Want("", says=r"STATIONARY (\d|\.)+ lens at \d+"),)
        ),
    }
)

_SCORE = re.compile(r"true +([\d.]+) m: median +\S+ m, error +([+-]?[\d.]+|[+-]?nan)%, .*coverage +(\d+)%")
_PLAIN_LINE = re.compile(r"[WE] |warning|error|.*(\bwarnings: \[.|nowhere do the images|no depth came)", re.IGNORECASE)
_INFO = re.compile(r"I |dfs_ros: ")
_ORDER = ("RIGHT", "REFUSED", "WARNED", "WRONG")


def judged(name: str, output: str) -> Verdict:
    """Judge the output of a generator by the table of expectations; the worst part of a case counts."""
    case = EXPECTED.get(name)
    if case is None:
        return Verdict(name, "WRONG", "no expectation in benchmarks/case_expectations.py", "")
    steps = steps_of(output)
    verdicts = [
        _judged(name, want, [step for step in steps if re.search(want.commands, step.command)], output)
        for want in case.wants
    ]
    worst = max(verdicts, key=lambda verdict: _ORDER.index(verdict.verdict))
    figures = "; ".join(dict.fromkeys(verdict.figures for verdict in verdicts if verdict.figures))
    return Verdict(name, worst.verdict, figures, worst.cause)


def steps_of(output: str) -> list[Step]:
    """Commands in the output of a generator, with the lines and scores that follow each."""
    steps: list[Step] = []
    before, *parts = re.split(r"^\$ dfs ", output, flags=re.MULTILINE)
    if before.strip():
        parts.insert(0, f"\n  rc 0 | {before}")
    for part in parts:
        command, _, rest = part.partition("\n")
        status = re.match(r" *rc (-?\d+) \| ?", rest)
        text = rest[status.end() :] if status else rest
        boards = tuple(Board(float(m[0]), float(m[1]) / 100, int(m[2]) / 100) for m in _SCORE.findall(text))
        steps.append(Step(command.strip(), int(status[1]) if status else 0, text, boards))
    return steps


def _judged(name: str, want: Want, steps: list[Step], output: str) -> Verdict:
    if not steps:
        last = output.strip().splitlines()[-1:] or ["nothing printed"]
        return Verdict(name, "WRONG", "", f"no command like {want.commands!r} ran: {last[0]}")
    boards = next((step.boards for step in reversed(steps) if step.boards), ())
    text = "\n".join(step.text for step in steps)
    figures = " ".join(f"{board.error:+.1%}" for board in boards)
    if boards and (least := min(board.coverage for board in boards)) < 1:
        figures += f" (coverage from {least:.0%})"
    refused = any(step.status for step in steps)
    depth = any(board.coverage > 0.02 for board in boards)
    measured = boards if want.within else ()
    good = all(abs(board.error) <= want.within and board.coverage >= want.coverage for board in measured)
    complete = (bool(measured) or not want.within) and (want.says != "" or want.within > 0)
    if good and complete and not refused and re.search(want.says, text):
        return Verdict(name, "RIGHT", figures, "")
    cause = _cause(steps)
    if want.cause and all(re.search(pattern, cause, re.IGNORECASE) for pattern in want.cause):
        return Verdict(name, "WARNED" if depth and not refused else "REFUSED", figures, cause)
    return Verdict(name, "WRONG", figures, cause or text.strip().splitlines()[-1] if text.strip() else "")


def _cause(steps: list[Step]) -> str:
    """Lines that state a cause: all of a refusal; else warnings and errors alone."""
    lines = []
    for step in steps:
        said = [line.strip() for line in step.text.splitlines() if line.strip() and not _INFO.match(line.strip())]
        lines += said if step.status else [line for line in said if _PLAIN_LINE.match(line)]
    return "\n".join(lines)
