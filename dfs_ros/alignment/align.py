"""Alignment of a stack: corrects focus breathing, motion and exposure differences.

A lens images the scene larger the nearer it focuses (thin lens: ``1 / (1 - f D_f)``; phones up to twice as much, with a
distortion that varies with focus), the camera or the hand moves, and auto exposure reacts. All images are mapped to the
geometry of one of them, the reference, and to its exposure:

0. Where nothing moved since the stack before, its motions hold (:mod:`dfs_ros.alignment.still`).
1. Frames are taken in focus order, from the reference outwards. Each starts where the lens model expects it beside its
   neighbour and is registered to the reference (:mod:`dfs_ros.alignment.registration`), so that errors do not add up.
2. The breathing of the lens is estimated along with this, and used for frames without texture
   (:mod:`dfs_ros.alignment.matching`).
3. A frame that does not show the same scene is dropped, with a warning.
4. Exposure: the median ratio of linear intensities (:mod:`dfs_ros.alignment.exposure`). Then every image is resampled,
   once, and all are given one frequency response (:mod:`dfs_ros.alignment.resampling`). If no frame needs motion, no
   image is filtered.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.exposure import gain_table
from dfs_ros.alignment.matching import FrameAlignment, Match, match_frames
from dfs_ros.alignment.operations import Operations, Resample, Shot, rounded
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.still import unmoved, with_details
from dfs_ros.config import AlignmentConfig
from dfs_ros.optics.field import levelled
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.pose import stack_poses
from dfs_ros.types import Camera, FocalStack, check_focus, opened

__all__ = ["AlignedStack", "FrameAlignment", "align"]

_log = logging.getLogger(__name__)

_SAMPLES = 9  # each way, of a motion
_LEAST_MOTION_PX = 0.1  # smaller motions are not corrected: resampling costs sharpness


@dataclass(frozen=True, eq=False)
class AlignedStack:
    """Stack in one geometry and exposure.

    Parameters
    ----------
    stack
        The frames kept, in input order. `blur_scale` is multiplied by the enlargement of each frame; the camera's
        intrinsics are those of the aligned images, so that their magnification is 1.
    reference
        Index in `stack` of the reference frame.
    valid
        bool (H, W): pixels that every kept frame covers.
    kept
        Indices of the frames in the input stack.
    estimates
        One for each frame of the input stack; usable as `initial` for the next stack of the same sweep.
    breathing
        Breathing of the lens in units of the lens model's breathing (1 = as modelled).
    frame_keys
        One for each frame of `stack`: equal for images with the same pixels, of the same camera. The key of a frame
        without a stamp is unique.
    told_scales
        (F,) image scale of each frame of `stack` over the reference's, by its driver or a calibration; None = not told.
    """

    stack: FocalStack
    reference: int
    valid: NDArray[np.bool_]
    kept: tuple[int, ...]
    estimates: tuple[FrameAlignment, ...]
    breathing: float
    frame_keys: tuple[Hashable, ...]
    told_scales: NDArray[np.float64] | None = None

    @property
    def registered(self) -> bool:
        """Whether images lie elsewhere than as taken, or than a driver or a calibration tells by their scale.

        A tenth of a pixel, root mean square, is no difference: registration finds that of a lens that stands still.
        """
        if self.told_scales is None or not self.estimates:
            return self.moved
        motions = [self.estimates[i].motion for i in self.kept]
        beside = [
            _beside_scale_px(motion, float(scale), self.stack.camera)
            for motion, scale in zip(motions, self.told_scales, strict=True)
        ]
        return max(beside) >= _LEAST_MOTION_PX

    @property
    def moved(self) -> bool:
        """Whether an image was resampled to the reference."""
        motions = [self.estimates[i].motion for i in self.kept] if self.estimates else []
        return any(motion.largest_displacement_px() >= _LEAST_MOTION_PX for motion in motions)

    def opened(self, aperture_scale: float) -> AlignedStack:
        """Scale the described blur of the stack by `aperture_scale`."""
        return replace(self, stack=opened(self.stack, aperture_scale))

    def levelled(self) -> AlignedStack:
        """Take the focal surface as flat, see :mod:`dfs_ros.lens_field`."""
        return replace(self, stack=levelled(self.stack))

    def report(self) -> dict[str, Any]:
        """Plain values of the estimate, for a report."""
        return {
            "reference": self.kept[self.reference],
            "kept": list(self.kept),
            "breathing": self.breathing,
            "valid_share": float(self.valid.mean()),
            "frames": [e.report() for e in self.estimates],
        }


def align(
    stack: FocalStack,
    config: AlignmentConfig | None = None,
    *,
    reference: int | None = None,
    initial: Sequence[FrameAlignment] | None = None,
    operations: Operations | None = None,
) -> AlignedStack:
    """Bring the images of a stack into the geometry and the exposure of one of them.

    Parameters
    ----------
    stack
        Stack from the camera.
    config
        Settings, see :class:`dfs_ros.config.AlignmentConfig`; None = defaults.
    reference
        Index of the reference frame; None = the middle of the focus order, or the nearest frame that matches the
        others.
    initial
        `estimates` of an earlier stack with the same focus sequence, to shorten the search.
    operations
        Those of another device; None = the host's.

    Raises
    ------
    ValueError
        `reference` or `initial` do not fit the stack, or fewer than two frames show the same scene.
    """
    config, operations = config or AlignmentConfig(), operations or Operations()
    count = len(stack)
    if reference is not None and not 0 <= reference < count:
        raise ValueError(
            f"reference: expected the index of one of {count} frames, 0 to {count - 1}, received {reference}"
        )
    if initial is not None and len(initial) != count:
        raise ValueError(f"initial: expected estimates of {count} frames as in the stack, received {len(initial)}")
    if (same := unmoved(stack, config, reference, initial, operations.still)) is not None:
        return _resampled(stack, config, same, operations.resample)
    match = match_frames(stack, config, reference, initial, operations.registration)
    for i, estimate in enumerate(match.estimates):
        if estimate.dropped:
            _log.warning("frame %d (%.3g dioptres) dropped: %s", i, stack.focus_diopters[i], estimate.dropped)
    if len(match.kept) < 2:
        reasons = "; ".join(f"frame {i}: {e.dropped}" for i, e in enumerate(match.estimates) if e.dropped)
        raise ValueError(
            f"alignment: expected at least 2 of {count} frames to show the same scene, found {len(match.kept)} "
            f"({reasons}); check that the images belong to one stack, or set alignment.mode to off"
        )
    if config.mode == "off":
        as_is = aligned_as_is(stack, match.reference)
        return replace(as_is, estimates=match.estimates, breathing=match.breathing.factor)
    if config.normalize_exposure:
        others = {i: match.estimates[i].motion for i in match.kept if i != match.reference}
        gains = operations.gains(stack.images, match.reference, others, config.transfer_curve)
        estimates = [replace(e, gain=gains.get(i, e.gain)) for i, e in enumerate(match.estimates)]
        match = replace(match, estimates=tuple(estimates))
    if config.mode == "refine":
        match = with_details(stack, match, config.transfer_curve, operations.still)
    return _resampled(stack, config, match, operations.resample)


def aligned_as_is(stack: FocalStack, reference: int = 0) -> AlignedStack:
    """Wrap a stack that is already in one geometry and exposure."""
    keys = tuple(_frame_key(stamp_ns, None, 1.0) for stamp_ns in stack.stamp_ns)
    everywhere = np.ones(stack.size, np.bool_)
    return AlignedStack(stack, reference, everywhere, tuple(range(len(stack))), (), 1.0, keys)


def as_taken(stack: FocalStack, match: Match) -> AlignedStack:
    """Frames of a match as they were taken, where their images are brought to the reference otherwise."""
    kept, everywhere = list(match.kept), np.ones(stack.size, np.bool_)
    scales = [match.estimates[i].motion.scale for i in kept]
    focus = float(stack.focus_diopters[match.reference])
    keys = tuple(object() for _ in kept)
    return _assembled(stack, match, focus, scales, (stack.images[kept], everywhere, keys))


def _resampled(stack: FocalStack, config: AlignmentConfig, match: Match, resample: Resample) -> AlignedStack:
    kept, lens = list(match.kept), match.breathing
    # From the aligned images to the reference: identity, unless the magnification of another focus is required.
    to_reference = Motion.identity(stack.size)
    focus = focus_of_reference = float(stack.focus_diopters[match.reference])
    if config.target_focus_diopters >= 0:
        focus = config.target_focus_diopters
        check_focus(focus, stack.camera.focal_length_m, "alignment.target_focus_diopters")
        to_reference = lens.motion(stack.size, focus, focus_of_reference)
    motions = [
        replace(match.estimates[i].motion.after(to_reference), local=match.estimates[i].motion.local) for i in kept
    ]
    found = _images(stack, kept, motions, match.estimates, config.transfer_curve, resample)
    return _assembled(stack, match, focus, [motion.scale for motion in motions], found)


def _assembled(
    stack: FocalStack,
    match: Match,
    focus_diopters: float,
    scales: Sequence[float],
    found: tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[Hashable, ...]],
) -> AlignedStack:
    """Aligned stack of the images, valid pixels and keys `found`, with image scales of the kept frames."""
    kept, (images, valid, keys) = list(match.kept), found
    aligned = FocalStack(
        images=images,
        focus_diopters=stack.focus_diopters[kept],
        camera=_camera_at(stack, match, focus_diopters),
        stamp_ns=stack.stamp_ns[kept],
        blur_scale=stack.blur_scale[kept] / scales,
        magnification=np.ones(len(kept)),
        focus_sigma_diopters=stack.focus_sigma_diopters[kept],
        poses=stack_poses([stack.poses[i] for i in kept]) if stack.poses else (),
    )
    told = stack.magnification[kept] / stack.magnification[match.reference]
    reference, told_scales = kept.index(match.reference), told if np.isfinite(told).all() else None
    breathing = match.breathing.factor
    return AlignedStack(aligned, reference, valid, match.kept, match.estimates, breathing, keys, told_scales)


def realigned(
    aligned: AlignedStack,
    stack: FocalStack,
    motions: Mapping[int, Motion],
    transfer_curve: str,
    operations: Operations | None = None,
) -> AlignedStack:
    """Resample the images of `stack` anew, with better `motions` of its frames, by index; without any, keep them.

    `aligned`: alignment of `stack` in the geometry of its reference. Its frames count as known from now on.
    """
    estimates = tuple(
        replace(e, motion=motions.get(i, e.motion), registered=e.registered or e.motion)
        for i, e in enumerate(aligned.estimates)
    )
    if not motions:
        return replace(aligned, estimates=estimates)
    kept = list(aligned.kept)
    found = [estimates[i].motion for i in kept]
    resample = (operations or Operations()).resample
    images, valid, keys = _images(stack, kept, found, estimates, transfer_curve, resample)
    blur_scale = stack.blur_scale[kept] / [motion.scale for motion in found]
    moved = replace(aligned.stack, images=images, blur_scale=blur_scale)
    return replace(aligned, stack=moved, valid=valid, estimates=estimates, frame_keys=keys)


def _beside_scale_px(motion: Motion, scale: float, camera: Camera) -> float:
    """Displacement by a motion, root mean square over the pixels, beside a change of scale about the camera's axis."""
    middle = [(n - 1) / 2 for n in motion.size[::-1]]
    axis = [m if math.isnan(c) else c for c, m in zip((camera.cx_px, camera.cy_px), middle, strict=True)]
    about = np.diag([scale, scale, 1.0])
    about[:2, 2] = [(1.0 - scale) * (c - m) / motion.unit_px for c, m in zip(axis, middle, strict=True)]
    left = replace(motion, affine=motion.affine @ np.linalg.inv(about))
    x, y = left.maps((_SAMPLES, _SAMPLES))
    ends = np.arange(_SAMPLES)
    height, width = (n / _SAMPLES for n in motion.size)
    return float(np.sqrt(np.mean(((x - ends) * width) ** 2 + ((y - ends[:, None]) * height) ** 2)))


def _images(
    stack: FocalStack,
    kept: Sequence[int],
    motions: Sequence[Motion],
    estimates: Sequence[FrameAlignment],
    transfer_curve: str,
    resample: Resample,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[Hashable, ...]]:
    """Aligned images of the kept frames, pixels that all cover, and keys of the images."""
    gains = [estimates[i].gain for i in kept]
    tables = [None if gain == 1.0 else gain_table(gain, transfer_curve) for gain in gains]
    moved = any(motion.largest_displacement_px() >= _LEAST_MOTION_PX for motion in motions)
    keys = [
        _frame_key(stack.stamp_ns[i], m if moved else None, g) for i, m, g in zip(kept, motions, gains, strict=True)
    ]
    if moved:
        still = [motion.largest_displacement_px() < _LEAST_MOTION_PX for motion in motions]
        shots = [Shot(*shot) for shot in zip(kept, motions, tables, still, strict=True)]
        return *resample(stack.images, shots), tuple(keys)
    images = np.empty((len(kept), *stack.images.shape[1:]), np.uint8)
    for image, i, table in zip(images, kept, tables, strict=True):
        image[:] = stack.images[i] if table is None else rounded(table.take(stack.images[i]), image.shape)
    return images, np.ones(stack.size, np.bool_), tuple(keys)


def _frame_key(stamp_ns: np.int64, motion: Motion | None, gain: float) -> Hashable:
    """Identity of an aligned frame's pixels: its stamp, gain and motion, if resampled."""
    if stamp_ns == 0:
        return object()
    if motion is None:
        return int(stamp_ns), gain
    local = b"" if motion.local is None else motion.local.tobytes()
    return int(stamp_ns), gain, motion.affine.tobytes(), motion.radial, motion.perspective, local


def _camera_at(stack: FocalStack, match: Match, focus_diopters: float) -> Camera:
    """Camera with the intrinsics of aligned images with the magnification of `focus_diopters`."""
    camera, lens, reference = stack.camera, match.breathing, match.reference
    focus_of_reference = float(stack.focus_diopters[reference])
    known = float(stack.magnification[reference])
    grown = math.log(known) if known > 0 else lens.growth(camera.reference_focus_diopters, focus_of_reference)
    scale = math.exp(grown + lens.growth(focus_of_reference, focus_diopters))
    fx, fy, cx, cy = intrinsics(camera, stack.size)
    return replace(
        camera,
        fx_px=fx * scale,
        fy_px=fy * scale,
        cx_px=cx,
        cy_px=cy,
        reference_focus_diopters=focus_diopters,
    )
