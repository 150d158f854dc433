"""DepthEstimator: the pipeline with one configuration, its device, its network, its clock and its report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from dfs_ros import pipeline
from dfs_ros.calibration.aperture import ApertureTracker
from dfs_ros.config import Config
from dfs_ros.cost_volume import SpectraCache, chosen_device
from dfs_ros.estimator.cpu import CpuSteps
from dfs_ros.estimator.observed import ObservedSteps, Progress
from dfs_ros.estimator.report import result_of
from dfs_ros.system.cores import usable_cores
from dfs_ros.system.memory import is_out_of_memory
from dfs_ros.types import DepthResult, FocalStack

if TYPE_CHECKING:
    from dfs_ros.estimator.gpu import GpuSteps
    from dfs_ros.network import Network
    from dfs_ros.network.runners.base import Problem

_log = logging.getLogger(__name__)


class DepthEstimator:
    """Depth of focal stacks with one configuration; the network is loaded once. One stack at a time.

    `live`: stacks come from one camera, one after the other, and the aperture fitted to them is kept. Else each stack
    is estimated on its own.

    >>> estimator = DepthEstimator(Config.from_dict({"network": {"name": "none"}}))
    """

    def __init__(self, config: Config | None = None, *, live: bool = False) -> None:
        self.config = config or Config()
        threads = self.config.processing.threads or usable_cores()
        # The stacks of a sliding window share all frames but one.
        spectra = SpectraCache() if self.config.stack.mode == "sliding" else None
        lens = ApertureTracker() if live else None
        self._network = network_for(self.config)
        self._cpu = CpuSteps(self._network, threads, lens, spectra)
        self._gpu = gpu_for(self.config, self._cpu, lens)

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
        initial_alignment: pipeline.Alignment | None = None,
        sharpen: bool = True,
        progress: Progress | None = None,
    ) -> DepthResult:
        """Depth of `stack`, in the geometry of frame `reference` (None: the middle one in focus, or near it).

        `initial_alignment`: the `alignment` of the result before, of the same focus sequence. `sharpen=False` leaves
        out the all-in-focus image: the reference image stands in.
        Raises ValueError where fewer than two frames show the same scene.
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
                sharpen=sharpen,
            )
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
            _log.debug("the error", exc_info=error)
        return run(self._cpu, [text])


def network_for(config: Config) -> Network | None:
    """The network of a configuration; None for `none`."""
    if config.network.name == "none":
        return None
    processing = config.processing
    from dfs_ros.network import load_network  # torch takes seconds to import, and none does without

    return load_network(config.network, processing.device, processing.cuda_graphs, processing.threads)


def gpu_for(config: Config, cpu: CpuSteps, lens: ApertureTracker | None) -> GpuSteps | None:
    """Steps on the GPU, where the configuration's device means one."""
    if chosen_device(config.processing.device) == "cpu":
        return None
    from dfs_ros.estimator.gpu import GpuSteps  # imports torch

    graphs = config.processing.cuda_graphs
    return GpuSteps.on_cuda(cpu.network, cpu.threads, graphs, lens=lens, spectra=cpu.spectra)
