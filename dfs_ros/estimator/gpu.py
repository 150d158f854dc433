"""Steps of pipeline.py on a GPU, on tensors.

Frames are uploaded once, registered and resampled here; aligned ones, inverse depth, sigma, confidence and the
all-in-focus image are downloaded. The judge is the host's.
The steps in between do not wait for the device and use the current stream. Volume, aggregation and optimisation are
each recorded as a CUDA graph and replayed for the same sizes. On a GPU the kernels are machine code; in tests `device`
is the CPU and the host build of the same source replaces them, with the same code around them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfs_ros.alignment import refinement_torch
from dfs_ros.alignment.align import AlignedStack
from dfs_ros.alignment.exposure_torch import exposure_gains
from dfs_ros.alignment.moving import MovingStack
from dfs_ros.alignment.operations import Operations, Shot
from dfs_ros.alignment.refinement import Fit
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.registration_torch import TorchRegistration, computed
from dfs_ros.alignment.resampling_torch import resampled_frames
from dfs_ros.alignment.still_torch import TorchStill
from dfs_ros.config import Config, CostConfig, RegularizationConfig
from dfs_ros.consistency.unexplained import unexplained
from dfs_ros.consistency.unexplained_torch import fine_variance
from dfs_ros.cost_volume import SpectraCache, cuda
from dfs_ros.cost_volume.cuda import moving
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.cuda.sharp import all_in_focus
from dfs_ros.cost_volume.energy import log_energy_tensor
from dfs_ros.cost_volume.halving import enlarged_tensor, enlarged_tensor_along, halved_tensor
from dfs_ros.cost_volume.hypotheses import subdivided_tensor, subdivision_for
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.cost_volume.vignetting import aperture_states
from dfs_ros.depth import texture_torch
from dfs_ros.depth.cuda import Aggregation, at_ends, at_index, confidence_of, least_of, minimum_with_offset
from dfs_ros.depth.energies import Energies
from dfs_ros.depth.energies_cuda import DeviceEnergies
from dfs_ros.depth.guide import colours_of, guide_of
from dfs_ros.estimator.camera_state import CameraState
from dfs_ros.estimator.host import HostSteps
from dfs_ros.network import Network
from dfs_ros.system.transfers import downloaded, uploaded
from dfs_ros.types import FocalStack

Depths = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

_UPLOADS = 5  # images as taken, aligned, aligned anew, and reduced ones of searches
_MOST_RECORDINGS = 32  # of registration: five levels of the pyramid, with and without local motion


class GpuSteps(HostSteps):
    """Steps on a GPU, see :class:`dfs_ros.pipeline.Steps`; one stack at a time.

    Parameters
    ----------
    kernels, device
        Launcher of the kernels, and device of the tensors. See :meth:`on_cuda`.
    graphs
        None: launch kernels one by one.
    network, threads, spectra, state
        As of :class:`.host.HostSteps`.
    """

    def __init__(
        self,
        kernels: Kernels,
        device: torch.device,
        network: Network | None,
        threads: int = 1,
        spectra: SpectraCache | None = None,
        state: CameraState | None = None,
        graphs: CudaGraphs | None = None,
    ) -> None:
        super().__init__(network, threads, spectra, state)
        self._kernels, self._device, self._graphs = kernels, device, graphs
        self._engines = Engines(kernels, device)
        self._aggregation = Aggregation(kernels)
        record = computed if graphs is None else graphs.like(_MOST_RECORDINGS)
        registration = TorchRegistration(device, self.upload, record)
        self._operations = Operations(registration, TorchStill(self.upload), self.resample, self.gains)
        self._energies = DeviceEnergies(kernels, device, self.upload)
        self._uploads: deque[tuple[NDArray[np.uint8], Tensor]] = deque(maxlen=_UPLOADS)

    @classmethod
    def on_cuda(cls, network: Network | None, threads: int, graphs: bool, **kept: Any) -> GpuSteps:
        """Steps on the current CUDA device. Raises dfs_ros.cost_volume.cuda.CudaUnavailable without one."""
        kernels = cuda.cuda_kernels(torch.cuda.current_device() if torch.cuda.is_available() else 0)
        device = torch.device("cuda", torch.cuda.current_device())
        return cls(kernels, device, network, threads, graphs=CudaGraphs() if graphs else None, **kept)

    @property
    def description(self) -> str:
        """Device of the cost volume, for reports."""
        if self._device.type != "cuda":
            return str(self._device)
        return f"{self._device}, {torch.cuda.get_device_name(self._device)}"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this device the current one; tensors made within cannot be differentiated."""
        with contextlib.ExitStack() as contexts:
            if self._device.type == "cuda":
                contexts.enter_context(torch.cuda.device(self._device))
            contexts.enter_context(torch.inference_mode())
            self._uploads.clear()  # those of another stack may lie in the same memory
            try:
                yield
            finally:
                self._uploads.clear()

    @property
    def operations(self) -> Operations:
        return self._operations

    @property
    def energies(self) -> Energies:
        return self._energies

    @property
    def fit_motions(self) -> Fit:
        return functools.partial(refinement_torch.fitted, upload=self.upload)

    def resample(self, images: NDArray[np.uint8], shots: Sequence[Shot]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """:func:`dfs_ros.alignment.operations.resampled_frames`; the frames stay on the device for later steps."""
        found, valid = resampled_frames(self.upload(images), shots)
        both = downloaded(torch.cat([found.flatten(), valid.flatten().byte()]))
        aligned = both[: found.numel()].reshape(found.shape)
        self._uploads.append((aligned, found))
        return aligned, both[found.numel() :].reshape(valid.shape) > 0

    def gains(
        self, images: NDArray[np.uint8], reference: int, motions: Mapping[int, Motion], transfer_curve: str
    ) -> dict[int, float]:
        """:func:`dfs_ros.alignment.exposure.exposure_gains`."""
        return exposure_gains(self.upload(images), reference, motions, transfer_curve)

    def upload(self, images: NDArray[np.uint8]) -> Tensor:
        for array, there in self._uploads:  # the images of a stack are used several times
            if array is images:
                return there
        self._uploads.append((images, uploaded(images, self._device)))
        return self._uploads[-1][1]

    def guide(self, images: Tensor) -> Tensor:
        return guide_of(images)

    def halve(self, guide: Tensor) -> Tensor:
        return halved_tensor(guide[None])[0]

    def cost_volume(self, aligned: AlignedStack, images: Tensor, depths_m: Depths, config: CostConfig) -> Tensor:
        states = aperture_states(aligned.stack, depths_m, half=True)
        if states is None:
            return self._volume(aligned, images, depths_m, config)
        weights = uploaded(states.weights, self._device)
        volume: Tensor = states.blended(lambda a: self._volume(aligned.opened(a), images, depths_m, config), weights)
        return volume

    def _volume(self, aligned: AlignedStack, images: Tensor, depths_m: Depths, config: CostConfig) -> Tensor:
        """Cost volume at half size, with one aperture for all pixels."""
        problem = make_problem(aligned.stack, depths_m, config)
        if isinstance(aligned.stack, MovingStack):
            return halved_tensor(moving.cost_volume(problem, self.upload(aligned.stack.source), self._engines))
        engine = self._engines.of(problem)
        keys = None if self.spectra is None else aligned.frame_keys
        spectra = engine.spectra(images, self.spectra, keys)
        return halved_tensor(engine.volume(spectra, problem.coc_px, self._graphs))

    def split(self, volume: Tensor, inner: slice) -> tuple[Tensor, Tensor]:
        return volume[inner], torch.cat([volume[: inner.start], volume[inner.stop :]])

    def interpolate(self, cost: Tensor, depths_m: Depths, config: Config) -> tuple[Tensor, Depths]:
        between = subdivision_for(config, depths_m)
        if between is None:
            return cost, depths_m
        weights = uploaded(between.weights, self._device)
        return subdivided_tensor(cost, weights, between.parts), between.depths_m

    def energy(self, cost: Tensor, method: str) -> Tensor:
        return log_energy_tensor(cost, method)

    def aggregate(self, energy: Tensor, guide: Tensor, config: RegularizationConfig) -> Tensor:
        return self._recorded("aggregate", self._aggregation.aggregated, config, energy, guide)

    def optimize(self, aggregated: Tensor, guide: Tensor, config: RegularizationConfig) -> Tensor:
        return self._recorded("optimize", self._aggregation.optimized, config, aggregated, guide)

    def decide(self, energy: Tensor, smoothed: Tensor, guide: Tensor, image: Tensor, sharpness: float) -> Tensor:
        if self.network is None:
            return torch.softmax(smoothed * -sharpness, dim=0)
        planes = torch.cat([guide[None], colours_of(image)])
        return self.network.probability_of_tensors(energy, smoothed, planes)

    def read_out(self, probability: Tensor, smoothed: Tensor, depths_m: Depths) -> tuple[Tensor, Tensor, Tensor]:
        diopters, spread = self._aggregation.read_out(probability, depths_m, self.sigma_scale)
        levels = uploaded((1.0 / depths_m).astype(np.float32), self._device)
        minimum = at_index(levels, minimum_with_offset(smoothed))
        if self.network is None:
            return minimum, spread, torch.zeros_like(spread)
        return diopters, spread, (minimum - diopters).abs()

    def confidence(self, aggregated: Tensor, outer: Tensor, outer_share: float) -> Tensor:
        return confidence_of(aggregated, outer, outer_share)

    def at_ends(self, aggregated: Tensor, outer: Tensor, nearer: int) -> Tensor:
        return at_ends(aggregated, outer, nearer)

    def least(self, aggregated: Tensor, outer: Tensor) -> Tensor:
        return least_of(aggregated, outer)

    def enlarge_along(self, plane: Tensor, guide: Tensor) -> Tensor:
        return enlarged_tensor_along(plane, guide)

    def enlarge(self, planes: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor, ...]:
        return tuple(enlarged_tensor(plane, size) for plane in planes)

    def download(self, planes: tuple[Tensor, ...]) -> tuple[Image, ...]:
        return tuple(torch.stack(planes).cpu().numpy())

    def texture(self, images: NDArray[np.uint8], reach_px: float) -> tuple[Mask, Mask]:
        textured, phantoms = torch.stack(texture_torch.texture_of(self.upload(images), reach_px)).cpu().numpy()
        return textured, phantoms

    def unexplained(self, least: Image, stack: FocalStack, config: CostConfig) -> Mask:
        def variance_of(images: NDArray[np.uint8], transfer_curve: str, channels: int) -> Image:
            return downloaded(fine_variance(self.upload(images), transfer_curve, channels))

        return unexplained(least, stack, config, variance_of)

    def all_in_focus(self, stack: FocalStack, depth_m: Image, config: CostConfig) -> NDArray[np.uint8]:
        if config.psf == "table":  # on the host, for want of a radial transfer function
            return super().all_in_focus(stack, depth_m, config)
        return all_in_focus(stack, self.upload(stack.images), depth_m, config, self._engines)

    def now(self) -> Any:
        """Time mark for :meth:`seconds_between`: an event of the device."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds_between(self, before: Any, after: Any) -> float:
        if self._device.type != "cuda":
            return float(after - before)
        after.synchronize()
        return float(before.elapsed_time(after)) * 1e-3

    def _recorded(
        self,
        name: str,
        compute: Callable[..., Tensor],
        config: RegularizationConfig,
        *inputs: Tensor,
    ) -> Tensor:
        if self._graphs is None:
            return compute(*inputs, config)
        return self._graphs((name, config), lambda *kept: (compute(*kept, config),), *inputs)[0]
