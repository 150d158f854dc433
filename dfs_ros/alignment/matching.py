"""Motion of each frame relative to a reference frame; rejection of foreign frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment import registration as on_host
from dfs_ros.alignment.exposure import overexposed
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.turns import turns
from dfs_ros.config import AlignmentConfig
from dfs_ros.optics import thin_lens
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]

_SMALLEST_PX = 320  # least size of reduced images: half of it doubles the errors at the corners
_CHECKED_PX = 128  # frames are compared at this size, where differences of blur are small
_LOCAL_PX = 320  # local motion is estimated at this size
_LOCAL_ITERATIONS = 4
# Differences of blur look like a small local motion. It is accepted if it leaves at most this share of the global
# motion's residual, and if it is at least that large (root mean square, pixels of the images it is found in).
_LOCAL_LEAVES, _LOCAL_LEAST_PX = 0.85, 0.2
_LOCAL_WITHIN, _LOCAL_WITHIN_BELIEVED = 0.01, 0.03  # its standard deviation before and after, half longer sides
_STILL_FITS_WITHIN = 0.05  # largest loss of correlation at which two motions count as equal
_NOTHING_LEFT = 0.01  # residuals below this need no further search
_REFERENCES_TRIED = 3
_BREATHING_WITHIN = 1.0  # standard deviation of a lens's breathing about the model's
_KNOWN_WITHIN = 0.02  # the same if the driver reports the magnification
_RADIAL_WITHIN = 0.5  # standard deviation of the radial term per unit of log magnification
SIGNIFICANT_PX = 0.1
"""Root mean square difference of motions that is worth another depth."""
_FRAME_WITHIN = 0.001  # standard deviation of one frame's log scale and radial term about a smooth lens


@dataclass(frozen=True, eq=False)
class FrameAlignment:
    """Estimated motion and exposure of one input frame.

    Parameters
    ----------
    motion
        From pixels of the reference to pixels of this frame.
    prior_scale
        Image scale of this frame relative to the reference, from the lens model or the driver; ``motion.scale`` is the
        estimate.
    gain
        Factor on the frame's linear intensity to match the reference.
    correlation
        Correlation with the reference, of locally normalised intensity, -1 to 1; NaN without texture or if it was not
        computed.
    source
        Source of the motion: ``reference`` (this is it), ``images``, ``poses``, ``prior`` (the lens model) or ``off``.
    dropped
        Reason for dropping the frame; empty if it is used.
    registered
        Motion that registration found before it was refined with a depth; None if it was not refined.
    known
        The motion was refined for an earlier stack, and registration finds the same as then, or nothing moved.
    detail
        Detail of the image that the motion was found with, see :mod:`dfs_ros.alignment.still`: float32 (h, w),
        an array, or a tensor on the device it was computed on; None if not kept.
    """

    motion: Motion
    prior_scale: float
    gain: float = 1.0
    correlation: float = math.nan
    source: str = "prior"
    dropped: str = ""
    registered: Motion | None = None
    known: bool = False
    detail: Any = None

    def report(self) -> dict[str, Any]:
        """Plain values: shift of the image centre and largest local motion in pixels, rotation in degrees."""
        local = self.motion.local
        return {
            "source": self.source,
            "dropped": self.dropped,
            "scale": self.motion.scale,
            "prior_scale": self.prior_scale,
            "shift_px": list(self.motion.shift_px),
            "rotation_deg": math.degrees(self.motion.rotation_rad),
            "radial": self.motion.radial,
            "local_px": 0.0 if local is None else float(np.linalg.norm(local, axis=-1).max()) * self.motion.unit_px,
            "gain": self.gain,
            "correlation": None if math.isnan(self.correlation) else self.correlation,
        }


def difference_px(before: Motion, after: Motion, shape: tuple[int, int]) -> float:
    """Root mean square difference of two motions in pixels, from samples of `shape`."""
    (bx, by), (ax, ay) = before.maps(shape), after.maps(shape)
    return float(np.sqrt(np.mean(np.square(ax - bx) + np.square(ay - by)))) * before.size[1] / shape[1]


@dataclass(frozen=True, eq=False)
class Match:
    """Motions of all frames relative to the reference, and the fitted lens breathing."""

    reference: int
    estimates: tuple[FrameAlignment, ...]
    breathing: Breathing

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(i for i, e in enumerate(self.estimates) if not e.dropped)


class Breathing:
    """Focus breathing: lens model, corrected by the frames matched so far.

    Log scale and radial term of a frame are modelled as proportional to the model's log magnification: real lenses
    breathe up to twice as much as a thin lens, and their distortion varies with focus.
    """

    def __init__(self, stack: FocalStack, config: AlignmentConfig) -> None:
        self._stack, self._config = stack, config
        model = np.array([self._log_model(float(d)) for d in stack.focus_diopters])
        known = np.isfinite(stack.magnification) & (stack.magnification > 0)
        self._of_model = 1.0  # breathing reported by the driver, in units of the model's
        if known.any():
            measured = np.log(np.where(known, stack.magnification, 1.0))
            if np.ptp(model[known]) > 0:
                self._of_model = float(np.polyfit(model[known], measured[known], 1)[0])
            model = self._of_model * model
            model = np.where(known, measured, model + np.median((measured - model)[known]))
        self.log_magnification = model
        self._hold = 1.0 / (_KNOWN_WITHIN if known.all() else _BREATHING_WITHIN) ** 2
        self._fitted, self._radial = 1.0, 0.0

    @property
    def factor(self) -> float:
        """Breathing in units of the thin-lens model's breathing."""
        return self._fitted * self._of_model

    def held(self, fitted: float) -> None:
        """Take breathing in units of the model's, or of the driver's, as known."""
        self._fitted = fitted

    def _log_model(self, focus_diopters: float) -> float:
        """Logarithm of the lens model's magnification."""
        if self._config.prior == "thin_lens":
            return float(np.log(thin_lens.magnification(focus_diopters, self._stack.camera)))
        magnification = self._config.zoom_intercept + self._config.zoom_slope_m * focus_diopters
        if magnification <= 0:
            raise ValueError(
                "alignment.zoom_slope_m: expected a magnification over 0 at every focus, received "
                f"{magnification:g} at {focus_diopters:g} dioptres; check slope and intercept"
            )
        return math.log(magnification)

    def growth(self, from_diopters: float, to_diopters: float) -> float:
        """Log ratio of image scales, second focus over first."""
        return self.factor * (self._log_model(to_diopters) - self._log_model(from_diopters))

    def motion(self, size: tuple[int, int], from_diopters: float, to_diopters: float) -> Motion:
        """Map pixels of an image at the first focus to pixels at the second."""
        grown = self._of_model * (self._log_model(to_diopters) - self._log_model(from_diopters))
        return Motion.from_parameters(size, (0.0, 0.0), self._fitted * grown, 0.0, self._radial * grown)

    def step(self, start: int, end: int) -> float:
        """Difference of expected log magnification between two frames."""
        return float(self.log_magnification[end] - self.log_magnification[start])

    def learn(self, reference: int, motions: dict[int, Motion]) -> None:
        """Fit factor and radial term to known motions, with the thin lens as prior."""
        model = np.array([self.step(reference, i) for i in motions])
        scales = np.array([m.log_scale for m in motions.values()])
        radials = np.array([m.radial for m in motions.values()])
        information = float(model @ model) / _FRAME_WITHIN**2
        self._fitted = (float(model @ scales) / _FRAME_WITHIN**2 + self._hold) / (information + self._hold)
        self._radial = float(model @ radials) / _FRAME_WITHIN**2 / (information + 1.0 / _RADIAL_WITHIN**2)

    def expected(self, frame: int, neighbour: int, neighbour_motion: Motion) -> Motion:
        """Motion of a frame that differs from its neighbour by nothing but the lens."""
        step = self.step(neighbour, frame)
        lens = Motion.from_parameters(neighbour_motion.size, (0.0, 0.0), self._fitted * step, 0.0, self._radial * step)
        return lens.after(neighbour_motion)


def match_frames(
    stack: FocalStack,
    config: AlignmentConfig,
    reference: int | None = None,
    initial: Sequence[FrameAlignment] | None = None,
    registration: Registration = on_host,
) -> Match:
    """Motion of every frame against `reference`, arguments as in :func:`dfs_ros.alignment.align.align`.

    Frames that do not match are marked with the reason.
    """
    order = [int(i) for i in np.argsort(stack.focus_diopters, kind="stable")]
    middle = len(order) // 2
    left_out = overexposed(stack.images) if config.mode == "refine" else [""] * len(order)
    if reference is None:
        candidates = sorted(order, key=lambda i: (bool(left_out[i]), abs(order.index(i) - middle)))
    else:
        candidates, left_out[reference] = [reference], ""
    if config.mode != "refine":
        return _without_images(stack, config, candidates[0])
    # A large image at half size gives a tenth of a pixel, faster; small images are needed at full size.
    longest_px = min(config.estimation_px, max(max(stack.size) // 2, _SMALLEST_PX))
    features = registration.features(stack.images, longest_px, config.transfer_curve)
    matches = []
    for candidate in candidates[:_REFERENCES_TRIED]:
        matches.append(_Matcher(stack, config, features, candidate, initial, left_out, registration).match(order))
        if len(matches[-1].kept) > len(order) / 2:
            break  # otherwise the candidate itself may be the foreign frame
    return max(matches, key=lambda match: len(match.kept))


def _without_images(stack: FocalStack, config: AlignmentConfig, reference: int) -> Match:
    breathing = Breathing(stack, config)
    identity = Motion.identity(stack.size)
    estimates = []
    for i in range(len(stack)):
        motion = identity if config.mode == "off" else breathing.expected(i, reference, identity)
        source = "reference" if i == reference else config.mode
        estimates.append(FrameAlignment(motion, math.exp(breathing.step(reference, i)), source=source))
    return Match(reference, tuple(estimates), breathing)


class Registration(Protocol):
    """Functions of :mod:`.registration`, on the host or a device."""

    def features(self, images: NDArray[np.uint8], longest_px: int, transfer_curve: str) -> Sequence[Any]: ...
    def template(self, features: Any) -> Any: ...
    def correlation(self, moving: Any, template: Any, motion: Motion, level: int) -> float: ...
    def shifted(self, moving: Any, template: Any, motion: Motion, level: int) -> Motion: ...
    def register(
        self, moving: Any, template: Any, start: Motion, expected: Motion, levels: range, iterations: int
    ) -> Motion: ...
    def register_local(
        self, moving: Any, template: Any, motion: Motion, level: int, iterations: int, within: float
    ) -> Motion: ...


class _Matcher:
    """Matcher of a stack's frames to one reference, in focus order from it outwards."""

    def __init__(
        self,
        stack: FocalStack,
        config: AlignmentConfig,
        features: Sequence[Any],
        reference: int,
        initial: Sequence[FrameAlignment] | None,
        left_out: Sequence[str],
        registration: Registration,
    ) -> None:
        self._stack, self._config, self._features = stack, config, features
        self._reference, self._initial, self._left_out = reference, initial, left_out
        self._breathing = Breathing(stack, config)
        self._checked = features[0].level_near(_CHECKED_PX)
        self._registration, self._template = registration, registration.template(features[reference])
        self._motions: dict[int, Motion] = {}  # of frames matched by their images
        self._turns = turns(stack, reference)

    def match(self, order: list[int]) -> Match:
        identity = Motion.identity(self._stack.size)
        found = {self._reference: FrameAlignment(identity, 1.0, correlation=1.0, source="reference")}
        rank = order.index(self._reference)
        for outwards in (order[rank + 1 :], order[:rank][::-1]):
            neighbour = self._reference
            for frame in outwards:
                found[frame] = self._match_frame(frame, neighbour, found[neighbour].motion)
                if not found[frame].dropped:
                    neighbour = frame
        return Match(self._reference, tuple(found[i] for i in range(len(order))), self._breathing)

    def _match_frame(self, frame: int, neighbour: int, neighbour_motion: Motion) -> FrameAlignment:
        turn = self._turns[frame].after(self._turns[neighbour].inverse())
        expected = turn.after(self._breathing.expected(frame, neighbour, neighbour_motion))
        estimate = FrameAlignment(expected, math.exp(self._breathing.step(self._reference, frame)))
        if not (self._textured(frame) and self._textured(self._reference)):
            return replace(estimate, dropped=self._untextured_reason(frame))
        if self._left_out[frame]:
            return replace(estimate, dropped=self._left_out[frame])
        start, levels = self._start(frame, expected)
        motion = self._registration.register(
            self._features[frame], self._template, start, expected, levels, self._config.iterations
        )
        likeness = self._likeness(frame, motion)
        reason = self._implausible(motion, likeness, estimate.prior_scale)
        if not reason:
            motion = self._bent(frame, motion)
            self._motions[frame] = motion
            self._breathing.learn(self._reference, self._motions)
            motion = self._with_local(frame, motion)
            return self._as_before(frame, replace(estimate, motion=motion, correlation=likeness, source="images"))
        # If the images were misleading, the lens model explains them as well as the motion found in them.
        by_model = self._likeness(frame, expected)
        if by_model >= max(self._config.min_correlation, likeness - _STILL_FITS_WITHIN):
            return replace(estimate, correlation=by_model)
        return replace(estimate, correlation=likeness, dropped=reason)

    def _bent(self, frame: int, motion: Motion) -> Motion:
        """Motion without its perspective terms, if the images contradict the rotation that these come from."""
        reach_px = math.hypot(*motion.perspective) * motion.unit_px
        if reach_px < SIGNIFICANT_PX:
            return motion
        finest, flat = len(self._template.features.levels) - 1, replace(motion, perspective=(0.0, 0.0))
        turned, plain = (
            self._registration.correlation(self._features[frame], self._template, m, finest) for m in (motion, flat)
        )
        return flat if plain > turned else motion

    def _start(self, frame: int, expected: Motion) -> tuple[Motion, range]:
        """Starting motion and pyramid levels; a valid earlier estimate needs fine levels only."""
        levels = len(self._template.features.levels)
        if self._initial is not None:
            before, reference = self._initial[frame], self._initial[self._reference]
            earlier = before.motion.after(reference.motion.inverse())
            if before.source == "images" and self._likeness(frame, earlier) > before.correlation - _STILL_FITS_WITHIN:
                return replace(earlier, perspective=expected.perspective), range(max(levels - 2, 0), levels)
        far = self._registration.shifted(self._features[frame], self._template, expected, self._checked)
        return max(expected, far, key=lambda motion: self._likeness(frame, motion)), range(levels)

    def _as_before(self, frame: int, estimate: FrameAlignment) -> FrameAlignment:
        """The refined motion of the earlier stack, if registration finds the same as it did then.

        Blur biases registration by the same amount while nothing moves.
        """
        if self._initial is None or self._initial[self._reference].source != "reference":
            return estimate
        before = self._initial[frame]
        if before.registered is None or before.source != "images":
            return estimate
        height, width = self._stack.size
        if difference_px(before.registered, estimate.motion, (height // 8, width // 8)) >= SIGNIFICANT_PX:
            return estimate
        return replace(estimate, motion=before.motion, registered=before.registered, known=True)

    def _likeness(self, frame: int, motion: Motion) -> float:
        value = self._registration.correlation(self._features[frame], self._template, motion, self._checked)
        return -1.0 if math.isnan(value) else value

    def _implausible(self, motion: Motion, likeness: float, prior_scale: float) -> str:
        """Reason to reject a motion; empty if it is plausible."""
        config = self._config
        longest_px = max(self._stack.size)
        shift = math.hypot(*motion.shift_px) / longest_px
        zoom = abs(motion.scale / prior_scale - 1.0)
        rotation = abs(math.degrees(motion.rotation_rad))
        if likeness < config.min_correlation:
            least = config.min_correlation
            return f"it does not show the same scene: correlation {likeness:.2f}, expected {least:g} or more"
        if shift > config.max_shift:
            return (
                f"it is shifted by {shift * longest_px:.0f} px, expected at most {config.max_shift * longest_px:.0f} px"
            )
        if zoom > config.max_zoom:
            return f"its scale is {motion.scale:.3f}, expected {prior_scale:.3f} within {config.max_zoom:.0%}"
        if rotation > config.max_rotation_deg:
            return f"it is rotated by {rotation:.1f} deg, expected at most {config.max_rotation_deg:g} deg"
        return ""

    def _textured(self, frame: int) -> bool:
        return bool(self._features[frame].contrast(self._checked) >= self._config.min_contrast)

    def _untextured_reason(self, frame: int) -> str:
        """Reason to drop a frame without enough texture; empty to keep it.

        The frame or the reference lacks texture. The frame is kept if blur explains the lack: with the largest possible
        difference in blur added to each, neither image has texture left.
        """
        pair = [frame, self._reference]
        focus = self._stack.focus_diopters[pair]
        blur_px = float(np.ptp(focus) * thin_lens.coc_px_per_diopter(focus, self._stack.camera).max())
        reduced = self._features[frame].levels[self._checked].shape[0] / self._stack.size[0]
        # Largest difference of blur at any depth. A disk has the width of a Gaussian with sigma of a quarter of its
        # diameter.
        left = [self._features[i].contrast(self._checked, blur_px * reduced / 4.0) for i in pair]
        if max(left) < 2.0 * self._config.min_contrast:
            return ""
        return f"it has no texture in common with the reference: contrast {left[0]:.1f} and {left[1]:.1f} grey levels"

    def _with_local(self, frame: int, motion: Motion) -> Motion:
        if not self._config.local_motion:
            return motion
        features, template, on = self._features[frame], self._template, self._registration
        level = features.level_near(_LOCAL_PX)
        unexplained = 1.0 - on.correlation(features, template, motion, level)
        if unexplained < _NOTHING_LEFT:
            return motion
        bent = on.register_local(features, template, motion, level, _LOCAL_ITERATIONS, _LOCAL_WITHIN)
        moved_px = bent.local_rms * max(features.levels[level].shape) / 2.0
        left = 1.0 - on.correlation(features, template, bent, level)
        if moved_px < _LOCAL_LEAST_PX or left > _LOCAL_LEAVES * unexplained:
            return motion
        return on.register_local(features, template, bent, level, _LOCAL_ITERATIONS, _LOCAL_WITHIN_BELIEVED)
