"""DepthEstimator: pipeline with its configuration, device, network, clock and report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import cv2

from dfs_ros import pipeline
from dfs_ros.config import Config
from dfs_ros.cost_volume import SpectraCache, chosen_device
from dfs_ros.estimator.camera_state import CameraState
from dfs_ros.estimator.cpu import CpuSteps
from dfs_ros.estimator.observed import ObservedSteps
from dfs_ros.estimator.report import result_of
from dfs_ros.system.cores import usable_cores
from dfs_ros.system.memory import is_out_of_memory
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.types import DepthResult, FocalStack, Progress

if TYPE_CHECKING:
    from dfs_ros.estimator.gpu import GpuSteps
    from dfs_ros.network import Network
    from dfs_ros.network.runners.base import RunnerFault

_log = logging.getLogger(__name__)


class DepthEstimator:
    """Estimator of depth from focal stacks, with one configuration; one stack at a time.

    The network is loaded once. `one_camera`: all stacks come from one camera, in sequence, and fits of its aperture are
    combined and the scene's range is kept until the scene leaves it; otherwise each stack is estimated on its own.

    >>> estimator = DepthEstimator(Config.from_dict({"network": {"name": "none"}}))
    """

    at_once = 1

    def __init__(self, config: Config | None = None, *, one_camera: bool = False) -> None:
        self.config = config or Config()
        threads = self.config.processing.threads or usable_cores()
        # Neighbouring stacks of a sliding window share all frames but one.
        spectra = SpectraCache() if self.config.stack.mode == "sliding" else None
        self._network = network_for(self.config)
        self._cpu = CpuSteps(self._network, threads, spectra)
        self._gpu = gpu_for(self.config, self._cpu)
        self.state = CameraState() if one_camera else None

    @property
    def state(self) -> CameraState | None:
        """What earlier stacks of one camera have told; None: each stack is estimated on its own."""
        return self._cpu.state

    @state.setter
    def state(self, state: CameraState | None) -> None:
        self._cpu.state = state
        if self._gpu is not None:
            self._gpu.state = state

    def alone(self, size: tuple[int, int]) -> bool:
        """True: stacks of images of any size are computed one by one."""
        return True

    def use_threads(self, threads: int) -> None:
        """Use so many threads from now on, those of OpenCV and PyTorch for all of this process."""
        cv2.setNumThreads(threads)
        self._cpu.threads = threads
        if self._network is not None:
            import torch

            torch.set_num_threads(threads)

    @property
    def network(self) -> str:
        """Name, runner and device of the network, or "none"."""
        return "none" if self._network is None else self._network.description

    @property
    def loaded_network(self) -> Network | None:
        """Network of the estimator; None without one."""
        return self._network

    @property
    def preparing(self) -> str:
        """Progress of an engine build that the network waits for; else empty."""
        return "" if self._network is None else self._network.preparing

    @property
    def network_faults(self) -> list[RunnerFault]:
        """Faults of network runners so far, although one works."""
        return [] if self._network is None else self._network.faults

    def estimate(
        self,
        stack: FocalStack,
        *,
        reference: int | None = None,
        initial_alignment: pipeline.Alignment | None = None,
        sharpen: bool = True,
        progress: Progress | None = None,
    ) -> DepthResult:
        """Estimate depth of `stack` in the geometry of frame `reference`.

        `reference` None: the frame in the middle of the focus order, or the nearest that matches the others.
        `initial_alignment`: `alignment` of the previous result, of the same focus sequence. `sharpen=False` omits the
        all-in-focus image; the reference image takes its place. Raises ValueError if fewer than two frames show the
        same scene.
        """

        def run(steps: CpuSteps | GpuSteps, warnings: list[str]) -> DepthResult:
            observed = ObservedSteps(steps, progress)
            if self._network is not None:
                self._network.listener = None if progress is None else observed.note
            found = pipeline.estimate(
                stack,
                self.config,
                cast(pipeline.Steps, observed),
                reference=reference,
                initial=initial_alignment,
                scene_range=None if self.state is None else self.state.scene_range,
                sharpen=sharpen,
            )
            if self.state is not None:
                self.state.scene_range = found.scene_range
            ran_on = {"cost volume": steps.description, "network": self.network}
            return result_of(stack, found, self.config, observed.seconds(), ran_on, warnings)

        if self._gpu is None:
            return run(self._cpu, [])
        try:
            with self._gpu.current():
                return run(self._gpu, [])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            text = f"computed on the CPU, as the GPU's memory does not suffice: {error}"
            _log.warning("%s", text)
            keep_traceback(error)
        return run(self._cpu, [text])


def network_for(config: Config) -> Network | None:
    """Load the network of a configuration; None for `none`."""
    if config.network.name == "none":
        return None
    processing = config.processing
    from dfs_ros.network import load_network  # imports torch, which takes seconds

    return load_network(config.network, processing.device, processing.cuda_graphs, processing.threads)


def gpu_for(config: Config, cpu: CpuSteps) -> GpuSteps | None:
    """Steps on the GPU; None if the configuration's device is the CPU."""
    if chosen_device(config.processing.device) == "cpu":
        return None
    from dfs_ros.estimator.gpu import GpuSteps  # imports torch

    return GpuSteps.on_cuda(cpu.network, cpu.threads, config.processing.cuda_graphs, spectra=cpu.spectra)
