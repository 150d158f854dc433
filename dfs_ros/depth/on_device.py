"""From an aligned stack to depth on one device: the steps of pipeline.py, with nothing in between on the host.

    frames, uint8    -> device
    cost volume      its logarithm, aggregated and optimised       cost_volume/cuda: kernels and FFTs
                     before that costs in between, where there are few hypotheses
    decide           network (tensors in, tensors out), or the minimum
    read out         inverse depth, its standard deviation, confidence       -> host, in one copy

The stream is the current one and nothing waits for the device before the last copy. Where the same sizes come again,
cost volume and aggregation are one CUDA graph. On a GPU the kernels are machine code; in tests the host build of the
same source stands in for them and `device` is the CPU: all else is the same code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfs_ros.config import Config
from dfs_ros.cost_volume import cuda
from dfs_ros.cost_volume.cuda.driver import Kernels
from dfs_ros.cost_volume.cuda.graphs import CudaGraphs
from dfs_ros.cost_volume.cuda.job import uploaded
from dfs_ros.cost_volume.energy import COST_FLOOR
from dfs_ros.cost_volume.hypotheses import Subdivision, subdivided_tensor, subdivision_for
from dfs_ros.cost_volume.problem import Problem, make_problem
from dfs_ros.cost_volume.spectra import SpectraCache
from dfs_ros.depth.cuda import Aggregation, at_index, confidence_of, minimum_with_offset
from dfs_ros.depth.regularization import SIGMA_SCALE
from dfs_ros.types import FocalStack

if TYPE_CHECKING:
    from dfs_ros.network import Network

Planes = NDArray[np.float32]


class DeviceEstimator:
    """Depth of aligned stacks on one device, one stack at a time.

    Parameters
    ----------
    network
        None: the minimum of the optimised energy, with a parabola through its neighbours.
    kernels, device
        What runs the kernels, and where tensors lie. See :meth:`on_cuda`.
    graphs
        None: launch kernels one by one.
    """

    def __init__(
        self, network: Network | None, kernels: Kernels, device: torch.device, graphs: CudaGraphs | None = None
    ) -> None:
        self._network, self._kernels, self._device, self._graphs = network, kernels, device, graphs
        self._aggregation = Aggregation(kernels)

    @classmethod
    def on_cuda(cls, network: Network | None, graphs: bool) -> DeviceEstimator:
        """On the current CUDA device. Raises dfs_ros.cost_volume.cuda.CudaUnavailable where there is none."""
        kernels = cuda.cuda_kernels(torch.cuda.current_device() if torch.cuda.is_available() else 0)
        device = torch.device("cuda", torch.cuda.current_device())
        return cls(network, kernels, device, CudaGraphs() if graphs else None)

    @property
    def description(self) -> str:
        """The device in words."""
        if self._device.type != "cuda":
            return str(self._device)
        return f"{self._device}, {torch.cuda.get_device_name(self._device)}"

    def estimate(
        self,
        stack: FocalStack,
        reference: int,
        depths_m: NDArray[np.float64],
        config: Config,
        spectra_cache: SpectraCache | None = None,
        frame_keys: Sequence[Hashable] | None = None,
    ) -> tuple[Planes, dict[str, float]]:
        """Inverse depth, its standard deviation and the confidence at every pixel, and the seconds of each step.

        Returns float32 (3, H, W): dioptres, dioptres, share. Steps are measured on the device, by its own clock.
        Raises torch.cuda.OutOfMemoryError where blocks of single hypotheses are still too much.
        """
        with self._current():
            found, clock = self.compute(stack, reference, depths_m, config, spectra_cache, frame_keys)
            return found.cpu().numpy(), clock.seconds()

    def compute(
        self,
        stack: FocalStack,
        reference: int,
        depths_m: NDArray[np.float64],
        config: Config,
        spectra_cache: SpectraCache | None = None,
        frame_keys: Sequence[Hashable] | None = None,
    ) -> tuple[Tensor, DeviceClock]:
        """:meth:`estimate` up to the copy to the host: nothing here waits for the device."""
        with self._current():
            clock = DeviceClock(self._device)
            problem = make_problem(stack, depths_m, config.cost)
            images = uploaded(stack.images, self._device)
            guide = guide_of(images)
            between = subdivision_for(config, problem.depths_m)
            energy, smoothed, confidence = self._energies(
                problem, between, images, guide, config, spectra_cache, frame_keys
            )
            clock.mark("cost volume")
            depths_m = problem.depths_m if between is None else between.depths_m
            if self._network is None:
                diopters, sigma = self._minimum(smoothed, depths_m, config.regularization.sharpness)
            else:
                planes = torch.cat([guide[None], colours_of(images[reference])])
                probability = self._network.probability_of_tensors(energy, smoothed, planes)
                scale = self._network.sigma_scale
                diopters, sigma = self._aggregation.read_out(probability, depths_m, scale)
            found = torch.stack([diopters, sigma, confidence])
            clock.mark("decide")
            return found, clock

    def _energies(
        self,
        problem: Problem,
        between: Subdivision | None,
        images: Tensor,
        guide: Tensor,
        config: Config,
        spectra_cache: SpectraCache | None,
        frame_keys: Sequence[Hashable] | None,
    ) -> tuple[Tensor, ...]:
        """Logarithm of the volume, that optimised (D, H, W), and the confidence (H, W)."""
        output = "log_energy" if between is None else "cost"
        engine = cuda.volume_engine(problem, self._kernels, self._device, output)
        spectra = engine.spectra(images, spectra_cache, frame_keys)
        engine.set_blur(problem.coc_px)

        parts = 1 if between is None else between.parts
        inputs = [spectra, guide]
        if between is not None:
            inputs.append(uploaded(between.weights, self._device))

        def compute(spectra: Tensor, guide: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
            energy = engine.compute(spectra)
            if weights is not None:
                energy = subdivided_tensor(energy, weights, parts).add_(COST_FLOOR).log_()
            aggregated, smoothed = self._aggregation.smoothed_energy(energy, guide, config.regularization)
            return energy, smoothed, confidence_of(aggregated)

        def attempt() -> tuple[Tensor, ...]:
            if self._graphs is None:
                return compute(*inputs)
            return self._graphs((engine, engine.block, parts, config.regularization), compute, *inputs)

        return engine.retried(attempt)

    def _minimum(self, smoothed: Tensor, depths_m: NDArray[np.float64], sharpness: float) -> tuple[Tensor, Tensor]:
        """Inverse depth and its standard deviation without a network."""
        probability = torch.softmax(smoothed * -sharpness, dim=0)
        _, sigma = self._aggregation.read_out(probability, depths_m, SIGMA_SCALE)
        levels = uploaded((1.0 / depths_m).astype(np.float32), self._device)
        return at_index(levels, minimum_with_offset(smoothed)), sigma

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        with contextlib.ExitStack() as contexts:
            if self._device.type == "cuda":
                contexts.enter_context(torch.cuda.device(self._device))
            contexts.enter_context(torch.inference_mode())
            yield


def guide_of(images: Tensor) -> Tensor:
    """:func:`dfs_ros.depth.guide.guide_image` of uint8 tensors (F, H, W, 3) or (F, H, W)."""
    axes = (0, 3) if images.ndim == 4 else (0,)
    count = images.numel() // (images.shape[1] * images.shape[2])
    return torch.sum(images, dim=axes, dtype=torch.int32).float() * (1.0 / (255.0 * count))


def colours_of(image: Tensor) -> Tensor:
    """One image (H, W, 3) or (H, W) as float32 (3, H, W) in [0, 1]."""
    colour = image if image.ndim == 3 else image[..., None].expand(-1, -1, 3)
    return colour.permute(2, 0, 1).float() * (1.0 / 255.0)


class DeviceClock:
    """Seconds of each step on a device, told when all are done; nothing waits before."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = [("", self._now())]  # seconds of the host, or events of the device

    def mark(self, step: str) -> None:
        """A step ends here."""
        self._marks.append((step, self._now()))

    def seconds(self) -> dict[str, float]:
        """Of every step. Waits for the last on CUDA."""
        if self._cuda:
            torch.cuda.current_stream().synchronize()
        steps = zip(self._marks[:-1], self._marks[1:], strict=True)
        return {step: self._between(before, now) for (_, before), (step, now) in steps}

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between(self, before: Any, now: Any) -> float:
        return float(before.elapsed_time(now) * 1e-3 if self._cuda else now - before)
