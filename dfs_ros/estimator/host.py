"""Steps of pipeline.py on the host: alignment, aperture, sigma, all-in-focus image."""

from __future__ import annotations

import dataclasses
import logging
import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.align import AlignedStack, FrameAlignment, align
from dfs_ros.alignment.moving import MovingStack
from dfs_ros.alignment.operations import Operations, resampled_frames
from dfs_ros.alignment.refinement import Fit, fitted, refined
from dfs_ros.calibration.aperture import ApertureFit, fit_aperture, nearest_searched, unfitted
from dfs_ros.config import AlignmentConfig, Config, CostConfig
from dfs_ros.consistency.findings import Findings
from dfs_ros.consistency.judge import Judge, judge
from dfs_ros.consistency.unexplained import unexplained
from dfs_ros.cost_volume import SpectraCache, all_in_focus
from dfs_ros.depth import extrapolation, regularization
from dfs_ros.depth.energies import Energies, HostEnergies
from dfs_ros.depth.readout import AS_TAKEN, FOLLOWED, REGISTERED, noise_of, sigma_in_use
from dfs_ros.depth.scene_range import SceneRange, coarse_diopters, find_range, rms_px_per_diopter
from dfs_ros.depth.texture import texture_of
from dfs_ros.estimator.camera_state import CameraState
from dfs_ros.motion.even import found_by_parallax
from dfs_ros.motion.explanation import Explanation
from dfs_ros.motion.prediction import predicted, with_gains_by
from dfs_ros.motion.refinement import corrected, log_scale_between
from dfs_ros.motion.tracking import MISFIT_WITHIN, SMALL_LOG_SCALE, WRONG_LOG_SCALE, MotionTracker
from dfs_ros.motion.turning import is_cut, turned
from dfs_ros.motion.views import (
    LEAST_PARALLAX_PX,
    brought,
    followed_stack,
    most_parallax_px,
    moving,
    parallax_px,
    scale_within,
    views_from_poses,
)
from dfs_ros.network import Network
from dfs_ros.types import FocalStack

_log = logging.getLogger(__name__)

Image = NDArray[np.float32]
Volume = NDArray[np.float32]
Depths = NDArray[np.float64]
Mask = NDArray[np.bool_]


class HostSteps:
    """Steps that run on the host for every device, see :class:`dfs_ros.pipeline.Steps`.

    Parameters
    ----------
    network
        None: the minimum of the optimised energy, with a parabola through its neighbours.
    threads
        Cores to use.
    spectra
        Spectra of frames, kept between stacks that share them; None = not kept.
    state
        What earlier stacks of one camera have told; None = every stack is estimated on its own.
    """

    def __init__(
        self,
        network: Network | None,
        threads: int,
        spectra: SpectraCache | None = None,
        state: CameraState | None = None,
    ) -> None:
        self.network = network
        self.threads = threads
        self.spectra = spectra
        self.state = state

    @property
    def motion(self) -> MotionTracker | None:
        """Scale of the stated motion over the stacks of one camera."""
        return None if self.state is None else self.state.motion

    def align(
        self,
        stack: FocalStack,
        config: AlignmentConfig,
        reference: int | None,
        initial: tuple[FrameAlignment, ...] | None,
    ) -> AlignedStack:
        if self.state is not None and not (self.state.lens.due or self.state.findings.due(stack)):
            found = predicted(stack, config, reference, self.state.motion, self.operations.gains)
            if found is not None:
                return found
        return self._registered(stack, config, reference, initial)

    def _registered(
        self,
        stack: FocalStack,
        config: AlignmentConfig,
        reference: int | None,
        initial: tuple[FrameAlignment, ...] | None = None,
    ) -> AlignedStack:
        return _rounded(align(stack, config, reference=reference, initial=initial, operations=self.operations))

    @property
    def operations(self) -> Operations:
        """Operations of alignment on images."""
        return Operations(resample=partial(resampled_frames, threads=self.threads))

    @property
    def energies(self) -> Energies:
        """Maker of the energies of searches: range, aperture, motion."""
        return HostEnergies(self.threads)

    @property
    def fit_motions(self) -> Fit:
        """Fit of motions by a first inverse depth."""
        return fitted

    def follow(self, stack: FocalStack, aligned: AlignedStack, limits: SceneRange, config: Config) -> AlignedStack:
        """Aligned stack of a camera that moved by its poses; the same where it did not by much, or without poses."""
        alignment = config.alignment
        if isinstance(aligned.stack, MovingStack):
            held = self._as_before(aligned, config)
            if held is not None:
                return held
            camera, registered = aligned.stack.camera, self._registered(stack, alignment, aligned.reference).levelled()
            aligned = dataclasses.replace(registered, stack=dataclasses.replace(registered.stack, camera=camera))
        if config.cost.method != "residual" or alignment.mode != "refine" or alignment.target_focus_diopters >= 0:
            return aligned
        if not aligned.stack.poses:
            return aligned
        if most_parallax_px(aligned, limits.width) < LEAST_PARALLAX_PX:
            return aligned  # stands still: no need to look at the scene
        diopters, _ = coarse_diopters(aligned.stack, limits, config, self.threads, self.energies)
        if not diopters.size:
            return aligned
        typical, width = float(np.median(diopters)), float(np.ptp(np.percentile(diopters, [2.0, 98.0])))
        views = views_from_poses(aligned, typical)
        if views is None:
            return aligned
        if self.motion is not None:
            views = self.motion.scaled(views)
        found = moving(stack, aligned, views, typical, alignment.transfer_curve)
        if parallax_px(found, width) < LEAST_PARALLAX_PX:
            return aligned
        explanation = Explanation(aligned, diopters, config, self.energies)
        if self.motion is not None and self.motion.knows_lens:
            factor, radial = self.motion.breathing, self.motion.radial
        else:
            factor, radial = explanation.breathing(found), 0.0
        found = explanation.with_breathing(found, factor, radial)
        if explanation.contradicts(found, stack):
            _log.warning("poses not used: they explain the images worse than a camera that stands still")
            return aligned
        if self.motion is not None:
            self.motion.misfit, _ = explanation.of_sweep(found)
        return found

    def _as_before(self, aligned: AlignedStack, config: Config) -> AlignedStack | None:
        """Sweep that was not registered, with its gains; None if its images contradict its poses more than before."""
        if self.motion is None:
            return None
        explanation = Explanation(aligned, self.motion.diopters, config, self.energies)
        misfit, diopters = explanation.of_sweep(aligned)
        if misfit > self.motion.misfit + MISFIT_WITHIN:
            self.motion.forget()
            return None
        self.motion.misfit, alignment = misfit, config.alignment
        if not alignment.normalize_exposure:
            return aligned
        return with_gains_by(aligned, diopters, alignment.transfer_curve, self.operations.gains)

    def follow_closer(self, aligned: AlignedStack, diopters: Image, config: Config) -> tuple[AlignedStack, bool, bool]:
        """Correct motion, gains and the aperture of a single stack by a first inverse depth.

        And whether anything changed, and whether a better inverse depth is to correct them again: that of a single
        stack, or where the positions were so wrong that the inverse depth was, too. Else sweeps of one camera go on
        from each other.
        """
        stack = followed_stack(aligned)
        if not stack.positions_m.any():
            return aligned, False, False  # a camera that turns in its place, as registered
        tracker = self.motion if stack.poses else None
        if tracker is not None:
            tracker.saw(diopters)
        if tracker is not None and not tracker.due:
            tracker.skip()
            return aligned, False, False
        within = scale_within(stack, config.motion.translation_sigma)
        lens = config.lens.aperture == "fitted" and config.lens.aperture_scale == 1.0 and self.state is None
        lens = lens and math.isnan(stack.camera.aperture_sigma)
        better = corrected(stack, diopters, within, config, self.energies, fit_lens=lens)
        correction = log_scale_between(stack, better)
        if tracker is not None:
            tracker.note_lens([math.log(aligned.estimates[i].prior_scale) for i in aligned.kept], better.views)
            enough = tracker.settled and abs(correction) <= SMALL_LOG_SCALE
            tracker.note(correction)
            if enough:
                return aligned, False, False
        found = brought(dataclasses.replace(aligned, stack=better), diopters, config.alignment.transfer_curve)
        return found, True, tracker is None or abs(correction) > WRONG_LOG_SCALE

    def realign(
        self, stack: FocalStack, aligned: AlignedStack, diopters: Image, config: Config
    ) -> tuple[AlignedStack, bool]:
        """Align anew with a first inverse depth, which may tell a velocity; False if hardly anything changes."""
        alignment = config.alignment
        if alignment.mode != "refine" or alignment.target_focus_diopters >= 0:
            return aligned, False
        found, moved, parallax = refined(
            stack, aligned, diopters, alignment.transfer_curve, self.operations, self.fit_motions
        )
        if parallax is not None and config.motion.source != "none" and config.cost.method == "residual":
            followed = found_by_parallax(stack, aligned, parallax, diopters, alignment.transfer_curve)
            if followed is not None:
                return self.follow_closer(followed, diopters, config)[0], True
        if config.cost.method == "residual" and is_cut(found):
            return turned(stack, found, alignment.transfer_curve), True
        return (_rounded(found) if moved else found), moved

    def aperture(self, aligned: AlignedStack, described: FocalStack, depths_m: Depths, config: Config) -> ApertureFit:
        if config.lens.aperture == "given" or config.lens.aperture_scale != 1.0:
            return unfitted(sigma=config.lens.aperture_sigma)  # calibrated
        if not math.isnan(described.camera.aperture_sigma):
            return unfitted(sigma=described.camera.aperture_sigma)
        if config.cost.method != "residual":
            return unfitted()

        def fit(near_factor: float | None = None) -> ApertureFit | None:
            nearest_m = nearest_searched(aligned.stack, depths_m)
            return fit_aperture(aligned.stack, nearest_m, config.cost, near_factor=near_factor, energies=self.energies)

        return (fit() or unfitted()) if self.state is None else self.state.lens.fit(described.camera, fit)

    def judge(self, stack: FocalStack, aligned: AlignedStack, aperture: ApertureFit, config: Config) -> Findings:
        curve = config.cost.resolved().transfer_curve
        judged = Judge() if self.state is None else self.state.findings
        return judged.of(stack, lambda: judge(stack, aligned, aperture, curve))

    def find_range(self, aligned: AlignedStack, limits: SceneRange, config: Config) -> SceneRange:
        return find_range(aligned.stack, limits, config, self.threads, self.energies)

    def sigma(self, spread: Image, disagreement: Image, aligned: AlignedStack) -> Image:
        """Standard deviation of the inverse depth of each pixel of an aligned stack."""
        linear = REGISTERED if aligned.registered else AS_TAKEN
        if isinstance(aligned.stack, MovingStack):
            linear = FOLLOWED
        linear *= noise_of(len(aligned.stack))
        return sigma_in_use(spread, rms_px_per_diopter(aligned.stack), disagreement, linear)

    def texture(self, images: NDArray[np.uint8], reach_px: float) -> tuple[Mask, Mask]:
        return texture_of(images, reach_px)

    def unexplained(self, least: Image, stack: FocalStack, config: CostConfig) -> Mask:
        return unexplained(least, stack, config)

    def gain(self, beyond: Image, least: Image, confidence: Image, stack: FocalStack, config: Config) -> Image:
        return extrapolation.gain(beyond, least, confidence, stack, config, self.threads)

    def sharpen(self, stack: FocalStack, depth_m: Image, config: CostConfig) -> NDArray[np.uint8]:
        if isinstance(stack, MovingStack):
            stack, _ = stack.still(1.0 / depth_m, config.resolved().transfer_curve)
        return self.all_in_focus(stack, depth_m, config)

    def all_in_focus(self, stack: FocalStack, depth_m: Image, config: CostConfig) -> NDArray[np.uint8]:
        """All-in-focus image of images in one geometry."""
        return all_in_focus(stack, depth_m, config, threads=self.threads)

    @property
    def sigma_scale(self) -> float:
        """Calibration of sigma: of the network, or of the probability without one."""
        return regularization.SIGMA_SCALE if self.network is None else self.network.sigma_scale


def _rounded(aligned: AlignedStack) -> AlignedStack:
    """Round the blur scales, so that cached transfer functions fit the next stack of a still camera."""
    scale = np.round(aligned.stack.blur_scale, 3)
    return dataclasses.replace(aligned, stack=dataclasses.replace(aligned.stack, blur_scale=scale))
