"""Hold a stack against its description before its pixels are believed: findings that name each contradiction.

    sweep        the described focus cannot change blur                                   no image is looked at
    images       clipped or repeated                                                      images.py
    focus        another story of it explains the images better, or nothing changes      stories.py, focus.py
    blur factor  far from what f-number, focal length and pixel size say                  stories.py, focus.py
    breathing    images shrink towards near focus                                         breathing.py

Blur cannot tell a constant offset of the focus, nor a gain of the focus from an aperture: these belong to sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dfs_ros.alignment.align import AlignedStack
from dfs_ros.calibration.aperture import ApertureFit
from dfs_ros.consistency.breathing import measured_breathing
from dfs_ros.consistency.evidence import TILE_PX, evidence_of
from dfs_ros.consistency.findings import Finding, Findings
from dfs_ros.consistency.focus import aperture_finding, factor_finding, focus_finding
from dfs_ros.consistency.images import exposure_findings, repeated_images
from dfs_ros.consistency.stories import compare
from dfs_ros.optics import thin_lens
from dfs_ros.types import Camera, FocalStack

LEAST_SWEEP_PX = 0.3
"""Change of blur over a sweep from which depth can come of it."""
_NEAREST_DIOPTERS = 0.02  # of a sweep in metres; one that focuses no nearer was probably given in other units
MOST_STACKS_BETWEEN = 32
"""Stacks of a live camera from one judgement to the next, at most."""


def judge(stack: FocalStack, aligned: AlignedStack, aperture: ApertureFit, transfer_curve: str = "srgb") -> Findings:
    """Findings about a stack, none for an honest one.

    `stack` as it came in, at the size it was aligned at; `aperture` as fitted to it; `transfer_curve` between pixel
    values and light. Takes about 40 ms of one core for 5 images of 320 x 240.
    """
    focus = aligned.stack.focus_diopters
    sweep = sweep_finding(focus, aligned.stack.camera)
    if sweep is not None:
        return (sweep,)
    found = list(exposure_findings(stack, aligned.kept))
    evidence = evidence_of(aligned.stack, aligned.valid, transfer_curve)
    if evidence is None and min(stack.size) < TILE_PX:
        return tuple(found)
    if evidence is None:
        text = "no part of the images has texture, by which blur could be seen: expected a scene with fine detail"
        return (*found, Finding("texture", text, contradiction=False))
    found += repeated_images(stack, aligned.kept)
    comparison = compare(evidence, np.argsort(aligned.stack.stamp_ns, kind="stable"))
    breathing = measured_breathing(stack, aligned.estimates)
    contradiction = focus_finding(focus, sweep_px(focus, aligned.stack.camera), comparison, breathing, aligned.kept)
    if contradiction is None:
        contradiction = factor_finding(focus, comparison, aperture)
    if contradiction is None and aperture.at_limit:
        over = "more" if aperture.measured > 1.0 else "less"
        contradiction = aperture_finding(f"{over} than {aperture.measured:.2f}", aperture.measured)
    return (*found, contradiction) if contradiction is not None else tuple(found)


def sweep_px(focus_diopters: ArrayLike, camera: Camera) -> float:
    """Largest change of the blur diameter, in pixels, from one end of the described focus to the other."""
    return float(np.ptp(focus_diopters) * thin_lens.coc_px_per_diopter(focus_diopters, camera).max())


def sweep_finding(focus_diopters: ArrayLike, camera: Camera) -> Finding | None:
    """The finding that a sweep, by its description alone, cannot change blur visibly; None where it can."""
    change_px = sweep_px(focus_diopters, camera)
    if change_px >= LEAST_SWEEP_PX:
        return None
    far, near = float(np.min(focus_diopters)), float(np.max(focus_diopters))
    unit = ""
    if near < _NEAREST_DIOPTERS:
        unit = f" (the nearest focus is {1.0 / near:.0f} m away: millimetres read as metres?)"
    return Finding(
        "sweep",
        f"focus from {far:.3g} to {near:.3g} dioptres changes blur by {change_px:.2g} px, expected "
        f"{LEAST_SWEEP_PX:g} px or more: check the unit of the focus{unit}, focal length and pixel size",
    )


class Judge:
    """The findings about a camera over many stacks: judged seldom, and kept until the next judgement.

    The wait for the next judgement doubles, up to 32 stacks, as long as the verdict stays; a new verdict is looked at
    again with the next stack. `one_camera` False: every stack is judged on its own.
    """

    def __init__(self, one_camera: bool = False) -> None:
        self._one_camera = one_camera
        self._sequence: Any = None
        self._findings: Findings = ()
        self._wait = self._due_in = 1
        self._held = False

    def hold(self) -> None:
        """From now on, judge and count no stack: return the newest findings."""
        self._held = True

    def due(self, stack: FocalStack) -> bool:
        """True if a stack would be judged."""
        if self._held:
            return False
        return not self._one_camera or self._due_in <= 1 or sequence_of(stack) != self._sequence

    def of(self, stack: FocalStack, judge_stack: Callable[[], Findings]) -> Findings:
        """Findings about the newest stack, by `judge_stack` where it is due."""
        if self._held:
            return self._findings
        sequence = sequence_of(stack)
        if not self._one_camera or sequence != self._sequence:
            self._sequence, self._findings, self._wait, self._due_in = sequence, (), 1, 1
        self._due_in -= 1
        if self._due_in > 0:
            return self._findings
        found = judge_stack()
        same = [f.cause for f in found] == [f.cause for f in self._findings]
        self._wait = min(2 * self._wait, MOST_STACKS_BETWEEN) if same else 1
        self._findings, self._due_in = found, self._wait
        return found


def sequence_of(stack: FocalStack) -> tuple[Camera, int, tuple[int, int]]:
    """Camera, number of images and their size: what is known of one stack holds for others of the same."""
    return stack.camera, len(stack), stack.size
