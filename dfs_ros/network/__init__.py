"""Networks between cost volume and depth, with their runners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import NetworkConfig
from dfs_ros.cost_volume.halving import half_size
from dfs_ros.depth.guide import image_channels
from dfs_ros.network.weights import known_models, load_weights, model_file, sigma_scale_of

if TYPE_CHECKING:
    from torch import Tensor

    from dfs_ros.network.runners.base import Runner, RunnerFault
    from dfs_ros.types import Progress

Volume = NDArray[np.float32]
Image = NDArray[np.float32]

__all__ = ["Network", "known_models", "load_network"]


class Network:
    """Trained network with its runners; made by :func:`load_network`."""

    def __init__(self, name: str, runner: Runner, sigma_scale: float = 1.0) -> None:
        self.name = name
        self.sigma_scale = sigma_scale
        """Calibration of sigma, for :func:`dfs_ros.depth.readout.read_out`."""
        self._runner = runner
        self._preparing = ""
        self.listener: Progress | None = None
        """Called, beside :attr:`preparing`, with progress of engine builds; its exceptions end the build."""

    @property
    def preparing(self) -> str:
        """Preparation under way and its progress; empty when the network can answer."""
        return self._preparing

    def note_progress(self, what: str, share: float) -> None:
        """Note progress, for runners: `share` of `what` is done."""
        self._preparing = f"{what}, {100 * share:.0f} %"
        if self.listener is not None:
            self.listener(what, share)

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of the runners, in the order of preference."""
        return getattr(self._runner, "names", (self._runner.description,))

    @property
    def description(self) -> str:
        """Name, runner and device, for reports."""
        return f"{self.name}, {self._runner.description}"

    @property
    def faults(self) -> list[RunnerFault]:
        """Faults of runners so far, for diagnostics; another runner works."""
        return self._runner.faults

    def probability(self, energy: Volume, smoothed: Volume, guide: Image, image: NDArray[np.uint8]) -> Volume:
        """Probability of every hypothesis, float32 (D, h, w), sum 1 over D.

        Parameters
        ----------
        energy
            float32 (D, h, w), logarithm of the `residual` volume at half size, rounded up. Any D of 2 or more, any
            range of depths, near to far or far to near.
        smoothed
            float32 (D, h, w), the same smoothed, see :func:`dfs_ros.depth.regularization.smoothed_energy`.
        guide
            float32 (H, W) in [0, 1], :func:`dfs_ros.depth.guide.guide_image` of the aligned stack.
        image
            uint8 (H, W, 3) or (H, W): any image of the aligned stack.

        Raises ValueError for inputs that do not match.
        """
        from dfs_ros.network.light import DOWNSAMPLING

        if energy.ndim != 3 or len(energy) < 2 or smoothed.shape != energy.shape:
            raise ValueError(
                f"energy and smoothed: expected (D, H, W) twice with D of 2 or more, "
                f"received {energy.shape} and {smoothed.shape}"
            )
        height, width = energy.shape[1:]
        if half_size(guide.shape) != (height, width) or image.shape[:2] != guide.shape:
            raise ValueError(
                f"guide and image: expected (H, W) and (H, W, 3) of twice the size of {energy.shape}, "
                f"received {guide.shape} and {image.shape}"
            )
        volumes = [_padded(volume, DOWNSAMPLING // 2) for volume in (energy, smoothed)]
        try:
            probability = self._runner.run(*volumes, _padded(image_channels(guide, image), DOWNSAMPLING))
        finally:
            self._preparing = ""
        return np.ascontiguousarray(probability[:, :height, :width])

    def probability_of_tensors(self, energy: Tensor, smoothed: Tensor, planes: Tensor) -> Tensor:
        """:meth:`probability` of float32 tensors, which stay on their device.

        `planes` (4, H, W) as of :func:`dfs_ros.depth.guide.image_channels`. On CUDA the next call may overwrite the
        result.
        """
        from torch.nn.functional import pad

        from dfs_ros.network.light import DOWNSAMPLING

        height, width = energy.shape[1:]

        def padded(tensor: Tensor, multiple: int) -> Tensor:
            below, right = -tensor.shape[1] % multiple, -tensor.shape[2] % multiple
            return pad(tensor[None], (0, right, 0, below), mode="replicate")[0] if below or right else tensor

        inputs = padded(energy, DOWNSAMPLING // 2), padded(smoothed, DOWNSAMPLING // 2), padded(planes, DOWNSAMPLING)
        try:
            return self._runner.run_tensors(*inputs)[:, :height, :width]
        finally:
            self._preparing = ""


def load_network(config: NetworkConfig, device: str = "auto", graphs: bool = True, threads: int = 0) -> Network:
    """Load the network of a configuration.

    `graphs`: on a GPU, use CUDA graphs. `threads`: on the CPU, 0 = all cores.

    Raises FileNotFoundError, with the known names, for an unknown one, ValueError for a file that is no network, an
    unavailable runner, or the name `none`.
    """
    if config.name == "none":
        raise ValueError(
            "network: none is the regularised argmin, which needs no network; see dfs_ros.depth.regularization"
        )
    file = model_file(config.name)
    module = load_weights(file)

    from dfs_ros.network.runners.choose import make_runner

    made: list[Network] = []

    def tell(what: str, share: float) -> None:
        if made:
            made[0].note_progress(what, share)

    runner = make_runner(module, config.runner, device, config.precision, tell, graphs, file, threads)
    made.append(Network(config.name, runner, sigma_scale_of(file)))
    return made[0]


def _padded(array: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
    """Pad (C, H, W) with its last row and column to multiples."""
    height, width = array.shape[1:]
    below, right = -height % multiple, -width % multiple
    return np.pad(array, ((0, 0), (0, below), (0, right)), mode="edge") if below or right else array
