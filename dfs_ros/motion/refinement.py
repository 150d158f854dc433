"""Views of a moving camera corrected by the images, with a first depth.

Parallax knows the product of velocity and inverse depth well, each alone hardly; nor does it tell a tilted scene from a
lens that breathes. Blur does:

by_blur         frames are brought to the reference by the depth found, which is right along the valley; a plain cost
                volume of these knows blur alone, and corrects scale, offset and tilt of the inverse depth
gauss_newton    velocity and breathing of each frame that go with this inverse depth, on images blurred alike
                (:mod:`dfs_ros.alignment.refinement`)
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.alignment.exposure import Exposure, exposure_gain
from dfs_ros.alignment.filters import detail, weighted
from dfs_ros.alignment.moving import MovingStack, View
from dfs_ros.alignment.refinement import beside_no_jump, blurred
from dfs_ros.alignment.registration import PIXELS_PER_MEASUREMENT, Motion
from dfs_ros.calibration.aperture import fit_aperture, nearest_searched
from dfs_ros.config import Config, CostConfig
from dfs_ros.cost_volume.problem import aligned_coc_px
from dfs_ros.depth.confidence import confidence_of
from dfs_ros.depth.energies import Energies
from dfs_ros.motion.views import elapsed_s
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import opened

Array = NDArray[np.float64]
Image = NDArray[np.float32]

_STEP = 2  # images compared are smaller by this
_ITERATIONS = 3
_SCALE_WITHIN, _RADIAL_WITHIN = 0.005, 0.0003  # standard deviations of a frame's log scale and radial term
_VELOCITY_WITHIN_M_S = 0.1  # standard deviation of its correction, without stated poses
_LEAST_SHARE = 0.05
_BLUR_WINDOW_PX = 2.5
_BLUR_HYPOTHESES = 32
_BLUR_EVERY = 4  # pixel counts: neighbours share their window
_BLUR_REACH = 1.35  # of the hypotheses beyond the depths found
_TEXTURED = 0.4  # least confidence
# Of 0.09 (twice that of the aperture's fit) to 0.5, that with the best depth of tuning stacks with odometry 5 % wrong:
# less follows the blur of a lens that is not quite known against the odometry, more corrects nothing.
_ERROR_PER_ROOT_CURVATURE = 0.25
_BREATHING_WITHIN = 0.003  # standard deviation of the log scale of the outermost frames
_LEAST_WITHIN, _MOST_WITHIN = 0.01, 0.2  # limits of that of b and g, as shares of the typical inverse depth
_FIRST_STEP = 0.03


def corrected(
    stack: MovingStack, diopters: Image, log_within: float, config: Config, energies: Energies, *, fit_lens: bool
) -> MovingStack:
    """Gains, views and, with `fit_lens`, aperture of a moving camera by a first inverse depth (H, W)."""
    curve = config.alignment.transfer_curve
    stack = gains_found(stack, diopters, curve) if config.alignment.normalize_exposure else stack
    if fit_lens:
        still, _ = stack.still(diopters, curve)
        nearest_m = nearest_searched(still, np.array([1.0 / np.percentile(diopters, 99.0)]))
        fit = fit_aperture(still, nearest_m, config.cost, energies=energies)
        stack = stack if fit is None else replace(stack, camera=opened(stack, fit.scale).camera)
    return gauss_newton(stack, by_blur(stack, diopters, log_within, config.cost, energies), curve, log_within)


def gauss_newton(stack: MovingStack, diopters: Image, transfer_curve: str, log_within: float) -> MovingStack:
    """Correct the positions by a common velocity, and the breathing of every frame.

    `diopters` (H, W): inverse depth of the reference, which sets the scale of the velocity. `log_within`: standard
    deviation of the logarithm of the scale of stated poses.
    """
    shape = stack.size[0] // _STEP, stack.size[1] // _STEP
    q = np.asarray(cv2.resize(diopters, shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    small = replace(stack, images=np.zeros((len(stack), *shape), np.uint8), camera=stack.camera.scaled(1.0 / _STEP))
    linear = small.linear(transfer_curve, 1)
    coc = np.moveaxis(aligned_coc_px(q[..., None], small), -1, 0).astype(np.float32)
    coc = np.minimum(coc, min(shape) / 4.0)
    counts = beside_no_jump(coc, np.ones(shape, np.bool_))
    if counts.mean() < _LEAST_SHARE:
        return stack
    lens, own = intrinsics(small.camera, shape), stack.reference
    x = np.broadcast_to((np.arange(shape[1]) - lens.cx)[None, :], shape)
    y = np.broadcast_to((np.arange(shape[0]) - lens.cy)[:, None], shape)
    zero = np.zeros(shape)
    outward = (x * x + y * y) * (2.0 / max(shape)) ** 2
    basis_x = np.stack([-lens.fx * q, zero, x * q, x, x * outward])
    basis_y = np.stack([zero, -lens.fy * q, y * q, y, y * outward])
    others = [i for i in range(len(stack)) if i != own]
    elapsed = elapsed_s(stack, stack.reference)
    fixed = {i: detail(blurred(linear[own, 0], coc[i])) for i in others}
    start, views = np.array([view.log_scale for view in stack.views]), stack.views
    change = np.zeros(3)
    velocity_within = _VELOCITY_WITHIN_M_S
    if stack.poses:
        velocity_within = log_within * float(np.linalg.norm(stack.positions_m, axis=1).max() / np.abs(elapsed).max())
    for _ in range(_ITERATIONS):
        doubt = np.array([velocity_within] * 3 + [_SCALE_WITHIN, _RADIAL_WITHIN] * len(others))
        normal = np.diag(doubt**-2.0)
        left = [(start[i] - views[i].log_scale, -views[i].radial) for i in others]
        pull = np.concatenate([-change, np.ravel(left)]) * np.diag(normal)
        seen, inside = small.with_views(views).seen(linear, q)
        for k, i in enumerate(others):
            moving = detail(blurred(seen[i, 0], coc[own]))
            near = counts & (cv2.erode(inside[i].astype(np.uint8), np.ones((9, 9), np.uint8)) > 0)
            residual = (moving - fixed[i])[near]
            if residual.size < _LEAST_SHARE * near.size:
                continue
            mean = (moving + fixed[i]) * np.float32(0.5)
            slope_x = cv2.Sobel(mean, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)[near]
            slope_y = cv2.Sobel(mean, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)[near]
            derivatives = slope_x * basis_x[:, near] + slope_y * basis_y[:, near]
            weight, misfit = weighted(residual)
            scaled = derivatives * (weight / (misfit * PIXELS_PER_MEASUREMENT))
            information, inner = scaled @ derivatives.T, scaled @ residual
            to_all = np.zeros((5, len(normal)))
            to_all[:3, :3] = np.eye(3) * elapsed[i]
            to_all[3:, 3 + 2 * k : 5 + 2 * k] = np.eye(2)
            normal += to_all.T @ information @ to_all
            pull -= to_all.T @ inner
        step = np.linalg.solve(normal, pull)
        change += step[:3]
        moved = list(views)
        for k, i in enumerate(others):
            view = views[i]
            moved[i] = View(
                view.position_m + step[:3] * elapsed[i],
                view.rotation,
                view.log_scale + float(step[3 + 2 * k]),
                view.radial + float(step[4 + 2 * k]),
            )
        views = tuple(moved)
    return stack.with_views(views)


def by_blur(stack: MovingStack, diopters: Image, log_within: float, cost: CostConfig, energies: Energies) -> Image:
    """Inverse depth (H, W) corrected in what parallax cannot tell, by blur alone.

    ``q' = exp(m) q + b + g x`` at the maximum of ``-mean ln c(x, q'(x)) / e^2 - sum (p / s_p)^2 / 2`` over the p (m, b
    and g), e the error per root of curvature. `log_within`: standard deviation of m, the scale of the positions,
    before; those of b and g follow from that of breathing.
    """
    from scipy import optimize  # a tenth of the start of a node, which a still camera does not need

    resolved = replace(cost, method="residual", channels="luma", window_sigma_px=_BLUR_WINDOW_PX).resolved()
    still, inside = stack.still(diopters, resolved.transfer_curve)
    far, near = np.percentile(diopters, [1.0, 99.0])
    levels = np.linspace(near * _BLUR_REACH, far / _BLUR_REACH, _BLUR_HYPOTHESES)
    log_cost = energies.volume(still, 1.0 / levels, resolved)
    coc = np.moveaxis(aligned_coc_px(diopters[..., None].astype(np.float64), stack), -1, 0).astype(np.float32)
    counts = (confidence_of(log_cost) > _TEXTURED) & beside_no_jump(coc, np.asarray(inside.all(axis=0)))
    if counts.mean() < _LEAST_SHARE:
        return diopters
    half = max(stack.size) / 2.0
    y, x = np.indices(stack.size, np.float32)
    x, y = x / np.float32(half) - np.float32(1.0), y / np.float32(half) - np.float32(stack.size[0] / max(stack.size))
    chosen = np.flatnonzero(counts)[::_BLUR_EVERY]
    place, across, down = (plane.ravel()[chosen] for plane in (diopters, x, y))
    rows = log_cost.reshape(len(log_cost), -1)[:, chosen]
    columns, step = np.arange(place.size), levels[0] - levels[1]

    def misfit(p: Array) -> float:
        q = place * math.exp(p[0]) + p[1] + p[2] * across + p[3] * down
        position = np.clip((levels[0] - q) / step, 0.0, _BLUR_HYPOTHESES - 1.001)
        below = position.astype(np.intp)
        share = position - below
        mean = float(((1.0 - share) * rows[below, columns] + share * rows[below + 1, columns]).mean())
        return mean / _ERROR_PER_ROOT_CURVATURE**2 + 0.5 * float(np.sum((p / within) ** 2))

    position_m, lens, typical = np.abs(stack.positions_m).max(axis=0), stack.lens, float(np.median(diopters))
    free = _BREATHING_WITHIN / np.maximum([position_m[2], *(position_m[:2] * lens.fx / half)], 1e-9)
    within = np.array([log_within, *np.clip(free, _LEAST_WITHIN * typical, _MOST_WITHIN * typical)])
    start = np.vstack([np.zeros(4), np.diag(np.minimum(within, _FIRST_STEP * np.array([1.0, *[typical] * 3])))])
    options = {"initial_simplex": start, "maxfev": 300, "xatol": 1e-4, "fatol": 1e-2}
    found = optimize.minimize(misfit, np.zeros(4), method="Nelder-Mead", options=options).x
    better = diopters * np.float32(math.exp(found[0])) + np.float32(found[1])
    better += np.float32(found[2]) * x + np.float32(found[3]) * y
    return np.asarray(np.maximum(better, np.float32(0.2 * far)), np.float32)


def log_scale_between(before: MovingStack, after: MovingStack) -> float:
    """Logarithm of the factor of the positions of a stack that leads to those after, by least squares."""
    old, new = before.positions_m, after.positions_m
    return math.log(max(float((old * new).sum() / (old * old).sum()), 1e-3))


def gains_found(stack: MovingStack, diopters: Image, transfer_curve: str) -> MovingStack:
    """Gains of the frames anew, with motion compensated by an inverse depth (H, W)."""
    still, _ = stack.still(diopters, transfer_curve)
    none, own = Motion.identity(stack.size), Exposure(still.images[stack.reference], transfer_curve)
    found = np.ones(len(stack))
    for i, image in enumerate(still.images):
        if i != stack.reference:
            found[i] = exposure_gain(own, Exposure(image, transfer_curve), none)
    return replace(stack, gains=stack.gains * found)
