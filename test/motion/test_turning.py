"""Views of a turning camera are for frames that shift beyond the reference, not for breathing."""

from __future__ import annotations

from alignment_rig import lens, photograph, stack_of
from skimage import data

from dfs_ros.alignment.align import AlignedStack, align
from dfs_ros.motion.turning import is_cut


def aligned_frames(shift_px: float) -> AlignedStack:
    """Five frames that breathe by 2 % each, and shift."""
    motions = [lens(0.02 * k, shift_px=(shift_px * k, 0.0)) for k in (-2, -1, 0, 1, 2)]
    return align(stack_of([photograph(data.astronaut(), motion) for motion in motions]))


def test_breathing_of_a_camera_that_stands_still_is_no_turn() -> None:
    still, turning = aligned_frames(0.0), aligned_frames(4.0)
    assert still.valid.mean() < 0.96 and turning.valid.mean() < 0.96
    assert not is_cut(still)
    assert is_cut(turning)
