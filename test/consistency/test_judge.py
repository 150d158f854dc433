"""Judgement of stacks: each contradiction is named, honest stacks pass."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from consistency_rig import CAMERA, FOCUS, findings_of, honest_stack, showing, told

from dfs_ros.alignment.align import align
from dfs_ros.calibration.aperture import ApertureFit
from dfs_ros.config import ConfidenceConfig
from dfs_ros.consistency.breathing import Breathing
from dfs_ros.consistency.findings import Finding, trusted
from dfs_ros.consistency.focus import focus_finding
from dfs_ros.consistency.judge import MOST_STACKS_BETWEEN, Judge, judge, sweep_finding
from dfs_ros.consistency.stories import Comparison, Story
from dfs_ros.types import FocalStack

Change = Callable[[FocalStack], FocalStack]


def lens(**values: float) -> Change:
    return lambda stack: dataclasses.replace(stack, camera=dataclasses.replace(stack.camera, **values))


def jpeg(stack: FocalStack) -> FocalStack:
    coded = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])[1] for image in stack.images]
    return dataclasses.replace(stack, images=np.stack([cv2.imdecode(c, cv2.IMREAD_COLOR) for c in coded]))


def grey(stack: FocalStack) -> FocalStack:
    return dataclasses.replace(stack, images=np.stack([cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in stack.images]))


def shuffled_frames(stack: FocalStack) -> FocalStack:
    order = [3, 0, 4, 2, 1]
    arrays = ("images", "focus_diopters", "stamp_ns", "magnification", "blur_scale")
    return dataclasses.replace(stack, **{name: getattr(stack, name)[order] for name in arrays})


HONEST: dict[str, Change] = {
    "as it is": lambda stack: stack,
    "JPEG of quality 75": jpeg,
    "grey": grey,
    "in any order": shuffled_frames,
    "three images": lambda stack: FocalStack(stack.images[::2], stack.focus_diopters[::2], stack.camera),
    "two images": lambda stack: FocalStack(stack.images[::3], stack.focus_diopters[::3], stack.camera),
    "two neighbours": lambda stack: FocalStack(stack.images[1:3], stack.focus_diopters[1:3], stack.camera),
    "f-number 20 % off": lens(f_number=1.2 * CAMERA.f_number),
    "focus off by 0.1 dioptres": lambda stack: told(stack, stack.focus_diopters + 0.1),
}


@pytest.mark.parametrize("change", HONEST.values(), ids=HONEST)
def test_honest_stacks_pass(change: Change) -> None:
    assert findings_of(change(honest_stack())) == ()


FAULTS: dict[str, tuple[Change, str]] = {
    "still": (lambda stack: showing(stack, [2, 2, 2, 2, 2]), "still"),
    "reversed": (lambda stack: told(stack, FOCUS[::-1]), "reversed"),
    "swapped": (lambda stack: told(stack, np.take(FOCUS, [0, 3, 2, 1, 4])), "swapped"),
    "late": (lambda stack: showing(stack, [0, 0, 1, 2, 3]), "late"),
    "early": (lambda stack: showing(stack, [1, 2, 3, 4, 4]), "early"),
    "shifted": (lambda stack: told(stack, np.roll(FOCUS, 1)), "shifted"),
    "shown again": (lambda stack: showing(stack, [0, 1, 1, 3, 4]), "moved"),
    "metres": (lambda stack: told(stack, 1.0 / np.array(FOCUS)), "metres"),
    "f-number too small": (lens(f_number=CAMERA.f_number / 2.5), "aperture"),
    "f-number too large": (lens(f_number=CAMERA.f_number * 2.5), "aperture"),
    "focal length of another sensor": (lens(focal_length_m=1.6 * CAMERA.focal_length_m), "aperture"),
}


@pytest.mark.parametrize(("change", "cause"), FAULTS.values(), ids=FAULTS)
def test_contradictions_are_named(change: Change, cause: str) -> None:
    (finding,) = findings_of(change(honest_stack()))
    assert finding.cause == cause
    assert finding.contradiction


def test_findings_say_which_image_and_how_to_mend_it() -> None:
    stack = honest_stack()
    (swapped,) = findings_of(told(stack, np.take(FOCUS, [0, 3, 2, 1, 4])))
    assert swapped.text.startswith("images 1 and 3 show each other's focus (0.9 and 1.7 dioptres): swap the two values")
    (moved,) = findings_of(told(stack, [2.2, 1.7, 0.6, 0.9, 0.5]))
    assert moved.image == 2
    seen = re.match(r"image 2 is blurred as at ([\d.]+) dioptres, expected 0.6: correct its focus", moved.text)
    assert seen is not None and float(seen[1]) == pytest.approx(1.3, abs=0.1)
    (aperture,) = findings_of(lens(f_number=2.5 * CAMERA.f_number)(stack))
    assert "blur is about 2." in aperture.text and "lens.aperture_scale (2." in aperture.text


def test_the_same_pixels_again_are_a_repeated_image() -> None:
    stack = honest_stack()
    found = findings_of(dataclasses.replace(stack, images=stack.images[[0, 1, 1, 3, 4]]))
    assert found[0].cause == "repeated" and found[0].image == 2
    assert found[0].text.startswith("image 2 is image 1 again, at 1.3 instead of 1.7 dioptres")


def test_images_left_out_keep_the_numbers_of_the_others() -> None:
    stack = honest_stack()
    images = stack.images.copy()
    images[0] = images[0, ::-1, ::-1]
    (finding,) = findings_of(told(dataclasses.replace(stack, images=images), np.take(FOCUS, [0, 1, 3, 2, 4])))
    assert finding.cause == "swapped" and finding.text.startswith("images 2 and 3 show")


def comparison(reversal: float, moved_by: float, advantage: float) -> Comparison:
    focus = np.array([1.5, 1.0, 0.5])
    moved = Story("moved", focus + np.array([moved_by, 0.0, 0.0]), (0,), advantage)
    return Comparison(1.0, 0.0, 1.0, (Story("reversed", focus[::-1], (), reversal),), moved, reversal, 40)


@pytest.mark.parametrize(
    ("of_thin_lens", "edge_px", "reversal", "found"),
    [(-1.6, 1.4, -0.037, True), (-1.6, 0.5, -0.037, False), (-1.6, 1.4, -0.3, False), (1.6, 1.4, 0.1, False)],
)
def test_breathing_decides_where_blur_does_not_tell(
    of_thin_lens: float, edge_px: float, reversal: float, found: bool
) -> None:
    breathing, compared = Breathing(of_thin_lens, edge_px), comparison(reversal, 0.0, 0.0)
    finding = focus_finding(np.array([1.5, 1.0, 0.5]), 5.0, compared, breathing, (0, 1, 2))
    assert (finding is not None and finding.cause == "reversed") == found


@pytest.mark.parametrize(
    ("steps", "advantage", "found"), [(-1.0, 0.06, True), (-2.6, 0.06, False), (-2.6, 0.2, True), (-0.5, 0.06, False)]
)
def test_one_image_far_away_needs_more_evidence(steps: float, advantage: float, found: bool) -> None:
    compared = comparison(-1.0, 0.5 * steps, advantage)
    finding = focus_finding(np.array([1.5, 1.0, 0.5]), 5.0, compared, None, (0, 1, 2))
    assert (finding is not None and finding.cause == "moved") == found


def test_sweeps_that_cannot_blur_are_found_without_images() -> None:
    assert sweep_finding(FOCUS, CAMERA) is None
    finding = sweep_finding(np.array(FOCUS) / 1000.0, CAMERA)
    assert finding is not None and finding.cause == "sweep"
    assert "changes blur by 0.013 px" in finding.text
    assert "the nearest focus is 455 m away: millimetres read as metres?" in finding.text
    weak = sweep_finding([1.0, 1.01], CAMERA)
    assert weak is not None and "millimetres" not in weak.text


def test_images_without_texture_are_a_warning() -> None:
    stack = honest_stack()
    noise = np.random.default_rng(0).standard_normal(stack.images.shape)
    flat = np.clip(np.rint(128 + noise), 0, 255).astype(np.uint8)
    (finding,) = findings_of(dataclasses.replace(stack, images=flat))
    assert finding.cause == "texture" and not finding.contradiction


def test_clipped_images_are_a_warning() -> None:
    stack = honest_stack()
    bright = np.clip(stack.images.astype(np.float64) * 2.4, 0, 255).astype(np.uint8)
    assert (bright[..., 1] == 255).mean() > 0.4
    causes = {
        finding.cause for finding in findings_of(dataclasses.replace(stack, images=bright)) if not finding.contradiction
    }
    assert causes == {"exposure"}


def test_a_fit_at_its_limit_is_found() -> None:
    stack, nothing = honest_stack(), np.empty(0)
    aligned = align(stack)
    assert judge(stack, aligned, ApertureFit(1.3, 0.02, nothing, nothing, 0.5)) == ()
    (finding,) = judge(stack, aligned, ApertureFit(3.3, 10.0, nothing, nothing, 0.5, at_limit=True))
    assert finding.cause == "aperture" and "more than 3.30 times" in finding.text


def test_contradictions_take_depth_unless_the_configuration_says_warn() -> None:
    doubt, contradiction = Finding("texture", "", contradiction=False), Finding("reversed", "")
    assert trusted((), ConfidenceConfig()) and trusted((doubt,), ConfidenceConfig())
    assert not trusted((doubt, contradiction), ConfidenceConfig())
    assert trusted((contradiction,), ConfidenceConfig(on_contradiction="warn"))


def test_live_cameras_are_judged_seldom_and_changes_soon() -> None:
    stack, reversed_list = honest_stack(), (Finding("reversed", ""),)
    live, judged = Judge(one_camera=True), []

    def findings(number: int) -> tuple[Finding, ...]:
        judged.append(number)
        return reversed_list if 40 <= number < 75 else ()

    kept = [live.of(stack, lambda n=number: findings(n)) for number in range(1, 180)]
    assert judged == [1, 3, 7, 15, 31, 63, 64, 66, 70, 78, 79, 81, 85, 93, 109, 141, 173]
    assert max(np.diff(judged)) == MOST_STACKS_BETWEEN
    assert [i + 1 for i, found in enumerate(kept) if found] == list(range(63, 78))
    judged.clear()
    live.of(dataclasses.replace(stack, camera=CAMERA), lambda: findings(200))
    assert judged == [200]


def test_stacks_on_their_own_are_each_judged() -> None:
    alone, judged = Judge(), []
    for number in range(5):
        alone.of(honest_stack(), lambda n=number: judged.append(n) or ())
    assert judged == [0, 1, 2, 3, 4]
