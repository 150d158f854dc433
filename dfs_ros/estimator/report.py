"""Result of an estimate at the size of its images, with its report."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from dfs_ros.alignment.moving import MovingStack
from dfs_ros.config import Config
from dfs_ros.motion.velocity import velocity_of
from dfs_ros.motion.views import scale_within
from dfs_ros.optics.field import unlevelled
from dfs_ros.pipeline import Estimate
from dfs_ros.types import DepthResult, FocalStack


def result_of(
    stack: FocalStack,
    found: Estimate,
    config: Config,
    seconds: dict[str, float],
    ran_on: dict[str, str],
    warnings: list[str],
) -> DepthResult:
    """Enlarge an estimate to the output size of `stack`, and add the report of docs/formats.md."""
    height, width = stack.output_size
    worked_at = found.depth_m.shape
    aligned = found.aligned
    camera = unlevelled(aligned.stack.camera, aligned.stack.focus_diopters)
    local_m = found.local_sigma_diopters * found.depth_m * found.depth_m
    working = (found.depth_m, found.sigma_m, *found.dense, local_m, found.confidence)
    planes = [np.asarray(plane, np.float32) for plane in working]
    sharp = found.all_in_focus
    if sharp is None:  # the reference image replaces it
        image = stack.images[aligned.kept[aligned.reference]]
        sharp = np.broadcast_to(image[..., None], (*image.shape, 3)) if image.ndim == 2 else image
    if sharp.shape[:2] != (height, width):
        sharp = np.asarray(cv2.resize(sharp, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if worked_at != (height, width):
        # Nearest for depth: interpolation would invent a surface between two others.
        planes = [np.asarray(cv2.resize(x, (width, height), interpolation=cv2.INTER_NEAREST)) for x in planes]
        camera = camera.scaled(width / worked_at[1])
    dropped = [f"image {i} left out: {e.dropped}" for i, e in enumerate(aligned.estimates) if e.dropped]
    depths_m = found.depths_m
    report: dict[str, Any] = {
        "seconds": {**seconds, "total": sum(seconds.values())},
        "images": len(stack),
        "working_size_px": {"width": worked_at[1], "height": worked_at[0]},
        "hypotheses": len(depths_m),
        "hypotheses_m": {"min": float(depths_m.min()), "max": float(depths_m.max())},
        "alignment": aligned.report(),
        "aperture": found.aperture.report(),
        "findings": [finding.report() for finding in found.findings],
        "sigma": _sigma_report(found),
        "motion": _motion_report(found, config.motion.translation_sigma),
        "ran_on": ran_on,
        "configuration": config.to_dict(),
        "warnings": warnings + [finding.text for finding in found.findings] + dropped,
    }
    depth_m, sigma_m, dense_depth_m, dense_sigma_m, local_m, confidence = planes
    return DepthResult(
        depth_m=depth_m,
        sigma_m=sigma_m,
        confidence=confidence,
        all_in_focus=np.ascontiguousarray(sharp),
        camera=camera,
        stamp_ns=int(aligned.stack.stamp_ns[aligned.reference]),
        alignment=aligned.estimates,
        report=report,
        dense_depth_m=dense_depth_m,
        dense_sigma_m=dense_sigma_m,
        local_sigma_m=local_m,
    )


def _motion_report(found: Estimate, translation_sigma: float) -> dict[str, list[Any]]:
    """Velocity of a camera that moved within the sweep; empty where it did not, or its times are unknown."""
    stack = found.aligned.stack
    if not isinstance(stack, MovingStack) or not stack.positions_m.any() or not stack.stamp_ns.all():
        return {"velocity_m_s": [], "covariance_m2_s2": []}
    within = scale_within(stack, translation_sigma) if stack.poses else math.inf
    velocity, covariance = velocity_of(stack, 1.0 / found.dense[0], found.doubt, within)
    return {"velocity_m_s": velocity.tolist(), "covariance_m2_s2": covariance.ravel().tolist()}


def _sigma_report(found: Estimate) -> dict[str, Any]:
    """Medians of sigma / depth over the pixels with depth, in its parts, and the doubt about the lens."""
    known = np.isfinite(found.depth_m)
    depth_m = found.dense[0]
    parts = {"local": found.local_sigma_diopters, **found.doubt.terms(1.0 / depth_m)}
    shares = {
        name: float(np.median((part * depth_m)[known])) if known.any() else math.nan for name, part in parts.items()
    }
    lens = {name: getattr(found.doubt, name) for name in ("aperture", "gain", "offset_diopters", "focus_diopters")}
    return {**shares, "lens": lens}
