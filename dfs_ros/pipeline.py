"""READ FIRST: from a focal stack to depth, the algorithm on one page.

align        undo focus breathing, motion and exposure differences          alignment.py
aperture     how wide the lens really blurs, if other than it is said to    aperture.py
cost volume  how badly each depth explains the stack, around each pixel     cost_volume/
in between   the costs of depths between those, where these are few         cost_volume/between.py
aggregate    the logarithm of it, smoothed along the edges of the image     regularization.py
decide       a probability over the depths: of that alone, or by a network  regularization.py, network/
read out     probability -> depth and its standard deviation                network/readout.py
judge        NaN where the stack cannot tell
sharpen      the all-in-focus image: deblurred at the depth found           cost_volume/sharp.py

On a GPU, cost volume to read out is :mod:`dfs_ros.depth.on_device`: the same steps, and nothing in between on the host.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

import dfs_ros
from dfs_ros.alignment.align import AlignedStack, FrameAlignment, align
from dfs_ros.calibration.aperture import ApertureFit, ApertureTracker, fit_aperture
from dfs_ros.config import Config
from dfs_ros.cost_volume import SpectraCache, all_in_focus, chosen_device, cost_volume_from_config
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.cost_volume.hypotheses import hypotheses_for, subdivided, subdivision_for
from dfs_ros.depth import regularization
from dfs_ros.depth.guide import guide_image
from dfs_ros.depth.readout import at_index, beside_jumps, read_out
from dfs_ros.system.cores import usable_cores
from dfs_ros.system.memory import is_out_of_memory
from dfs_ros.types import Camera, DepthResult, FocalStack, opened, reduced

if TYPE_CHECKING:
    from dfs_ros.depth.on_device import DeviceEstimator
    from dfs_ros.network import Network
    from dfs_ros.network.runners.base import Problem

_log = logging.getLogger(__name__)

Image = NDArray[np.float32]
Planes = tuple[Image, Image, Image]
Progress = Callable[[str, float], None]
"""Called with the name of the step that begins and the share of the whole that is done."""


class DepthEstimator:
    """Depth of focal stacks with one configuration; the network is loaded once.

    `live`: stacks come from one camera, one after the other, and what they tell of its lens is kept. Else each stack
    is estimated on its own.

    >>> estimator = DepthEstimator(Config.from_dict({"network": {"name": "none"}}))
    """

    def __init__(self, config: Config | None = None, *, live: bool = False) -> None:
        self.config = config or Config()
        self._lens = ApertureTracker() if live else None
        self._threads = self.config.processing.threads or usable_cores()
        self._network = network_for(self.config)
        self._gpu = gpu_for(self.config, self._network)
        self._cpu = f"cpu, {self._threads} threads"
        # The stacks of a sliding window share all frames but one.
        self._spectra = SpectraCache() if self.config.stack.mode == "sliding" else None

    @property
    def network(self) -> str:
        """Name, runner and device of the network, or "none"."""
        return "none" if self._network is None else self._network.description

    @property
    def loaded_network(self) -> Network | None:
        """The network itself; None without one."""
        return self._network

    @property
    def preparing(self) -> str:
        """What the network waits for, an engine that is built, and how far that is; else empty."""
        return "" if self._network is None else self._network.preparing

    @property
    def problems(self) -> list[Problem]:
        """What went wrong with runners of the network so far though one works."""
        return [] if self._network is None else self._network.problems

    def estimate(
        self,
        stack: FocalStack,
        *,
        reference: int | None = None,
        initial_alignment: tuple[FrameAlignment, ...] | None = None,
        sharpen: bool = True,
        progress: Progress | None = None,
    ) -> DepthResult:
        """Depth of `stack`, in the geometry of frame `reference` (None: the middle one in focus, or near it).

        `initial_alignment`: the `alignment` of the result before, of the same focus sequence. `sharpen=False` leaves
        out the all-in-focus image: the reference image stands in.
        Raises ValueError where fewer than two frames show the same scene.
        """
        config, clock = self.config, StepClock(progress)
        if self._network is not None:
            self._network.listener = None if progress is None else clock.note
        clock.begin("align", 0.0)
        working = opened(reduced(stack, config.processing.max_megapixels), config.lens.aperture_scale)
        aligned = align(working, config.alignment, reference=reference, initial=initial_alignment)
        # To a thousandth: transfer functions are found again when a still camera is aligned a little differently.
        focal_stack = dataclasses.replace(aligned.stack, blur_scale=np.round(aligned.stack.blur_scale, 3))
        image = focal_stack.images[aligned.reference]
        depths_m = hypotheses_for(stack, config.hypotheses)

        clock.begin("aperture", 0.15)
        aperture = self._aperture(focal_stack, stack.camera, float(depths_m.min()))
        if aperture is not None:
            focal_stack = opened(focal_stack, aperture.scale)

        clock.begin("cost volume", 0.2)
        keys = None if self._spectra is None else [content_key(frame) for frame in focal_stack.images]
        warnings: list[str] = []
        found = self._on_gpu(focal_stack, aligned.reference, depths_m, keys, clock, warnings)
        ran_on = self._gpu.description if self._gpu is not None and found is not None else self._cpu
        if found is None:
            found = self._on_cpu(focal_stack, aligned.reference, depths_m, keys, clock)
        diopters, own_sigma, confidence = found
        sigma_diopters = own_sigma
        sigma_scale = regularization.SIGMA_SCALE
        if self._network is not None:
            sigma_scale = self._network.sigma_scale
            sigma_diopters = beside_jumps(own_sigma, diopters, sigma_scale)
        own_sigma = own_sigma / np.float32(sigma_scale)

        clock.begin("sharpen", 0.85)
        sharp = np.broadcast_to(image[..., None], (*image.shape, 3)) if image.ndim == 2 else image
        if sharpen:
            sharp = all_in_focus(focal_stack, 1.0 / diopters, config.cost, threads=self._threads)

        clock.begin("judge", 0.97)
        depth_m = 1.0 / diopters
        sigma_m = sigma_diopters * depth_m * depth_m
        if not config.confidence.dense:
            unknown = (confidence < config.confidence.min_confidence) | ~aligned.valid
            # By the pixel's own doubt, as the network gives it: depth beside a jump is worth having.
            unknown |= own_sigma * depth_m > config.confidence.max_relative_sigma
            depth_m, sigma_m = np.where(unknown, np.nan, depth_m), np.where(unknown, np.nan, sigma_m)
        clock.end()
        notes: dict[str, Any] = {
            "aperture": None if aperture is None else aperture.report(),
            "ran_on": {"cost volume": ran_on, "network": self.network},
            "warnings": warnings,
        }
        return self._result(stack, aligned, depths_m, depth_m, sigma_m, confidence, sharp, clock.seconds, notes)

    def _aperture(self, stack: FocalStack, camera: Camera, nearest_m: float) -> ApertureFit | None:
        """The blur factor of an aligned stack; None where it is given, or nothing can be said of it."""
        config = self.config
        if config.lens.aperture == "given" or config.cost.method != "residual":
            return None
        known = self._lens.known(camera) if self._lens is not None else None
        if known is not None:
            return known
        fit = fit_aperture(stack, nearest_m, config.cost, threads=self._threads)
        if self._lens is not None:
            return self._lens.add(fit)
        return fit

    def _on_cpu(
        self,
        stack: FocalStack,
        reference: int,
        depths_m: NDArray[np.float64],
        keys: list[bytes] | None,
        clock: StepClock,
    ) -> Planes:
        """Inverse depth, its standard deviation and the confidence."""
        config = self.config
        cost = cost_volume_from_config(
            stack, depths_m, config.cost, threads=self._threads, spectra_cache=self._spectra, frame_keys=keys
        )

        clock.begin("aggregate", 0.6)
        between = subdivision_for(config, depths_m)
        if between is not None:
            cost, depths_m = subdivided(cost, between), between.depths_m
        guide = guide_image(stack.images)
        energy = log_energy(cost, config.cost.method)
        aggregated, smoothed = regularization.smoothed_energy(
            energy, guide, config.regularization, threads=self._threads
        )
        confidence = regularization.confidence_of(aggregated)

        clock.begin("decide", 0.65)
        if self._network is None:
            return *self._regularized(smoothed, depths_m), confidence
        probability = self._network.probability(energy, smoothed, guide, stack.images[reference])
        return *read_out(probability, depths_m, self._network.sigma_scale), confidence

    def _on_gpu(
        self,
        stack: FocalStack,
        reference: int,
        depths_m: NDArray[np.float64],
        keys: list[bytes] | None,
        clock: StepClock,
        warnings: list[str],
    ) -> Planes | None:
        """The same from the GPU; None where there is none, or with a warning where its memory does not suffice."""
        if self._gpu is None:
            return None
        try:
            found, seconds = self._gpu.estimate(stack, reference, depths_m, self.config, self._spectra, keys)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            warnings.append(f"computed on the CPU, as the GPU's memory does not suffice: {error}")
            _log.warning("%s", warnings[-1])
            return None
        clock.split(seconds)
        return found[0], found[1], found[2]

    def _regularized(self, smoothed: NDArray[np.float32], depths_m: NDArray[np.float64]) -> tuple[Image, Image]:
        """Inverse depth and its standard deviation without a network."""
        index = regularization.minimum_with_offset(smoothed)
        probability = regularization.probability_of(smoothed, self.config.regularization.sharpness)
        _, sigma_diopters = read_out(probability, depths_m, regularization.SIGMA_SCALE)
        return at_index(1.0 / depths_m, index), sigma_diopters

    def _result(
        self,
        stack: FocalStack,
        aligned: AlignedStack,
        depths_m: NDArray[np.float64],
        depth_m: Image,
        sigma_m: Image,
        confidence: Image,
        sharp: NDArray[np.uint8],
        seconds: dict[str, float],
        notes: dict[str, Any],
    ) -> DepthResult:
        """The result at the size of the images that came in."""
        height, width = stack.size
        worked_at = depth_m.shape
        camera = aligned.stack.camera
        if worked_at != (height, width):
            # Nearest for depth: between two surfaces there is no third one.
            depth_m, sigma_m, confidence = (
                np.asarray(cv2.resize(x, (width, height), interpolation=cv2.INTER_NEAREST), np.float32)
                for x in (depth_m, sigma_m, confidence)
            )
            sharp = np.asarray(cv2.resize(sharp, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
            camera = camera.scaled(width / worked_at[1])
        known = depth_m[np.isfinite(depth_m)]
        low, high = (float(known.min()), float(known.max())) if known.size else (None, None)
        report: dict[str, Any] = {
            "seconds": {**seconds, "total": sum(seconds.values())},
            "share_with_depth": float(known.size / depth_m.size),
            "depth_range_m": [low, high],
            "images": len(stack),
            "size_px": [width, height],
            "worked_at_px": [worked_at[1], worked_at[0]],
            "hypotheses_m": [float(depths_m.min()), float(depths_m.max()), len(depths_m)],
            "alignment": aligned.report(),
            "aperture": notes["aperture"],
            "ran_on": notes["ran_on"],
            "configuration": self.config.to_dict(),
            "versions": {"dfs_ros": dfs_ros.__version__, "python": platform.python_version(), "numpy": np.__version__},
            "warnings": notes["warnings"]
            + [f"image {i} left out: {e.dropped}" for i, e in enumerate(aligned.estimates) if e.dropped],
        }
        return DepthResult(
            depth_m=np.asarray(depth_m, np.float32),
            sigma_m=np.asarray(sigma_m, np.float32),
            confidence=np.asarray(confidence, np.float32),
            all_in_focus=np.ascontiguousarray(sharp),
            camera=camera,
            stamp_ns=int(aligned.stack.stamp_ns[aligned.reference]),
            alignment=aligned.estimates,
            report=report,
        )


def network_for(config: Config) -> Network | None:
    """The network of a configuration; None for `none`."""
    if config.network.name == "none":
        return None
    processing = config.processing
    from dfs_ros.network import load_network  # torch takes seconds to import, and none does without

    return load_network(config.network, processing.device, processing.cuda_graphs, processing.threads)


def gpu_for(config: Config, network: Network | None) -> DeviceEstimator | None:
    """What computes on the GPU, where the configuration's device means one."""
    if chosen_device(config.processing.device) == "cpu":
        return None
    from dfs_ros.depth.on_device import DeviceEstimator  # imports torch

    return DeviceEstimator.on_cuda(network, config.processing.cuda_graphs)


def content_key(image: NDArray[np.uint8]) -> bytes:
    """The same for images with the same pixels, and no others: an aligned frame is known again by what it shows."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


class StepClock:
    """Seconds of each step, and progress reported as each begins."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._step, self._share_done, self._began = "", 0.0, 0.0

    def begin(self, step: str, share_done: float) -> None:
        """End the step before, and begin `step`."""
        self.end()
        self._step, self._share_done, self._began = step, share_done, time.perf_counter()
        if self._progress is not None:
            self._progress(step, share_done)

    def note(self, what: str, share: float) -> None:
        """Report, within the step under way, that `share` of something is done."""
        if self._progress is not None:
            self._progress(f"{what}, {100 * share:.0f} %", self._share_done)

    def split(self, seconds: dict[str, float]) -> None:
        """End the step, which consisted of these; what they leave of its time is `transfer`."""
        step = self._step
        self.end()
        whole = self.seconds.pop(step)
        self.seconds |= {**seconds, "transfer": max(0.0, whole - sum(seconds.values()))}

    def end(self) -> None:
        """End the last step."""
        if self._step:
            self.seconds[self._step] = time.perf_counter() - self._began
        self._step = ""
