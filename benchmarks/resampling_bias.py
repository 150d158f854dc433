"""Bias of depth that alignment brings in: textured planes through four lenses with weak blur.

A dioptre is 1 to 2 px of blur, so the softness of a resampled image reads as defocus. Planes at two distances are seen
by a still camera, by one that breathes as a thin lens, and by one that is shifted by hand. Images are exact: a sum of
sine waves with the spectrum of a photo, each with the analytic transfer of defocus, softness and pixel, at exactly the
warped positions.

    python -m benchmarks.resampling_bias                    # table of median depth / true depth - 1
    python -m benchmarks.resampling_bias --calibrated       # softness of the lens stated, as by dfs calibrate lens
    python -m benchmarks.resampling_bias --limit 0.005      # exit status 1 if the rms of a kind of motion is over it
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.optics import thin_lens
from dfs_ros.optics.srgb import pixel_value
from dfs_ros.types import Camera, FocalStack

LENSES = {
    "phone, 1.7 px": (Camera(4.3e-3, 1.8, 6e-6), 0.35),
    "small camera, 1.3 px": (Camera(6.8e-3, 4.0, 9e-6), 0.45),
    "webcam, 1.0 px": (Camera(4.0e-3, 2.0, 8e-6), 0.65),
    "table camera, 2.0 px": (Camera(8.0e-3, 5.3, 6e-6), 0.55),
}
"""Camera and softness in pixels (Gaussian) of each lens; the name holds its blur per dioptre."""

DISTANCES_M = (0.95, 0.6)
MOTIONS = ("still", "breathing", "by hand")
FOCUS_DIOPTERS = np.array([2.5, 1.6, 1.0, 0.5, 0.2])
HAND_PX = np.array([[1.37, -0.71], [-2.24, 1.55], [0.0, 0.0], [0.43, 2.83], [-1.09, -1.66]])
SIZE = (192, 256)
_WAVES = 1000
_LONGEST_PX, _SHORTEST_PX = 200.0, 1.5
_LIGHT, _CONTRAST, _NOISE = 0.35, 0.09, 0.002
_BORDER_PX = 24


def plane_stack(camera: Camera, softness_px: float, depth_m: float, motion: str, seed: int = 0) -> FocalStack:
    """Render a plane; `motion` is one of MOTIONS. Grey images (5, 192, 256)."""
    rng = np.random.default_rng(seed)
    frequency = np.exp(rng.uniform(-np.log(_LONGEST_PX), -np.log(_SHORTEST_PX), _WAVES))
    angle, phase = rng.uniform(0.0, 2.0 * np.pi, (2, _WAVES))
    fx, fy = frequency * np.cos(angle), frequency * np.sin(angle)
    reference = len(FOCUS_DIOPTERS) // 2
    magnification = thin_lens.magnification(FOCUS_DIOPTERS, camera)
    scale = magnification / magnification[reference] if motion != "still" else np.ones(len(FOCUS_DIOPTERS))
    shift = HAND_PX if motion == "by hand" else np.zeros_like(HAND_PX)
    coc = thin_lens.coc_px(1.0 / depth_m, FOCUS_DIOPTERS, camera)
    x, y = (np.arange(n) - (n - 1) / 2 for n in SIZE[::-1])
    images = []
    for f in range(len(FOCUS_DIOPTERS)):
        u, v = fx / scale[f], fy / scale[f]  # cycles per pixel of this image
        seen = thin_lens.disk_transfer(coc[f], np.hypot(u, v)) * np.sinc(u) * np.sinc(v)
        seen *= np.exp(-2.0 * (np.pi * softness_px) ** 2 * (u * u + v * v))
        across = np.exp(2j * np.pi * u[:, None] * (x - shift[f, 0]))
        down = np.exp(2j * np.pi * v[:, None] * (y - shift[f, 1]))
        waves = ((seen * np.exp(1j * phase))[:, None] * down).T @ across
        light = _LIGHT + _CONTRAST * np.sqrt(2.0 / _WAVES) * waves.real + _NOISE * rng.standard_normal(SIZE)
        images.append(np.rint(pixel_value(np.clip(light, 0.0, 1.0), "srgb")).astype(np.uint8))
    return FocalStack(np.stack(images), FOCUS_DIOPTERS, camera)


def bias(estimator: DepthEstimator, stack: FocalStack, depth_m: float) -> float:
    """Median relative error of depth away from the border."""
    found_m = np.asarray(estimator.estimate(stack, sharpen=False).dense_depth_m)
    return float(np.median(found_m[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX]) / depth_m - 1.0)


def biases(config: Config, calibrated: bool = False) -> dict[str, NDArray[np.float64]]:
    """Bias of every lens and distance, (4, 2), for each kind of motion; `calibrated`: the softness is stated."""
    estimator = DepthEstimator(config)
    stated = [soft**2 if calibrated else math.nan for _, soft in LENSES.values()]
    lenses = [(replace(c, softness_px2=s), soft) for (c, soft), s in zip(LENSES.values(), stated, strict=True)]
    return {
        motion: np.array(
            [[bias(estimator, plane_stack(camera, soft, d, motion), d) for d in DISTANCES_M] for camera, soft in lenses]
        )
        for motion in MOTIONS
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resampling_bias", description=__doc__)
    parser.add_argument("--network", default="none", help="network of the estimator (default: none)")
    parser.add_argument("--limit", type=float, help="largest rms of the bias under breathing or shifts by hand")
    parser.add_argument("--calibrated", action="store_true", help="state the softness of each lens")
    args = parser.parse_args(arguments)
    config = {
        "network": {"name": args.network},
        "lens": {"aperture": "given"},
        "hypotheses": {
            "min_depth_m": 0.5,
            "max_depth_m": 1.2,
            "count": 48,
        },  # fine steps, for a bias of a few thousandths
        "processing": {"device": "cpu"},
    }
    found = biases(Config.from_dict(config), args.calibrated)
    print(f"{'bias of depth in %':<24}" + "".join(f"{m + f', {d} m':>20}" for m in MOTIONS for d in DISTANCES_M))
    for row, name in enumerate(LENSES):
        print(f"{name:<24}" + "".join(f"{100 * v:>+20.2f}" for m in MOTIONS for v in found[m][row]))
    rms = {motion: float(np.sqrt(np.mean(values**2))) for motion, values in found.items()}
    print(f"{'rms':<24}" + "".join(f"{100 * v:>40.2f}" for v in rms.values()))
    return int(args.limit is not None and max(rms[m] for m in MOTIONS[1:]) > args.limit)


if __name__ == "__main__":
    sys.exit(main())
