"""Cost volumes: misfit between an aligned focal stack and each depth hypothesis, around every pixel.

One function has three methods, each as a readable float64 reference (:mod:`.reference`, read this for the formulas), a
fast CPU path (:mod:`.cpu`) and a CUDA path (:mod:`.cuda`), with one signature and the same goldens.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.alignment.moving import MovingStack
from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.bounding import bound_and_scale
from dfs_ros.cost_volume.problem import Problem, make_problem
from dfs_ros.cost_volume.sharp import all_in_focus
from dfs_ros.cost_volume.spectra import SpectraCache
from dfs_ros.cost_volume.vignetting import aperture_states
from dfs_ros.system.memory import is_out_of_memory
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.types import FocalStack, opened

__all__ = [
    "SpectraCache",
    "all_in_focus",
    "bound_and_scale",
    "chosen_device",
    "cost_volume",
    "cost_volume_from_config",
]

DEVICES = ("auto", "cpu", "cuda")
BACKENDS = (*DEVICES, "reference")

_log = logging.getLogger(__name__)


def cost_volume(
    stack: FocalStack,
    depths_m: ArrayLike,
    method: str = CostConfig.method,
    device: str = "cpu",
    max_coc_px: float = CostConfig.max_coc_px,
    **settings: Any,
) -> NDArray[np.float32]:
    """Cost of every depth hypothesis at every pixel; low = explains the images.

    Parameters
    ----------
    stack
        Aligned images: one pixel is one ray in all of them. The blur diameter of image f at depth d is
        ``optics.coc_px(1 / d, D_f, camera) * blur_scale[f]``, more for images enlarged more than others
        (:func:`.problem.aligned_coc_px`).
    depths_m
        (D,) metres, finite, over 0, strictly ascending or descending.
    method
        `residual`, `paper` or `released`.
    device
        `cpu`, `cuda`, or `auto` = CUDA if usable. With too little GPU memory the CPU takes over, with a warning.
    max_coc_px
        Largest blur diameter in pixels; larger ones are clamped.
    settings
        Any other of :class:`dfs_ros.config.CostConfig`: psf, eps, window_sigma_px, padding_px, transfer_curve,
        channels.

    Returns
    -------
    float32 (D, H, W). `released` and `paper` are before the authors' bounding (:func:`bound_and_scale`).

    Raises
    ------
    TypeError, ValueError
        For unknown names, values out of range, invalid depths, and an unusable `cuda`.
    """
    if device not in DEVICES:
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, received {device!r}")
    try:
        cost = CostConfig(method=method, max_coc_px=max_coc_px, **settings)
    except TypeError as error:
        raise ValueError(f"cost volume settings: {error}; see dfs_ros.config.CostConfig") from None
    return cost_volume_from_config(stack, depths_m, cost, backend=device)


def cost_volume_from_config(
    stack: FocalStack,
    depths_m: ArrayLike,
    cost: CostConfig,
    *,
    backend: str = "cpu",
    threads: int = 0,
    spectra_cache: SpectraCache | None = None,
    frame_keys: Sequence[Hashable] | None = None,
    half: bool = False,
) -> NDArray[np.float32]:
    """:func:`cost_volume` of a CostConfig.

    Parameters
    ----------
    backend
        `cpu` (float32), `cuda`, `auto` = CUDA if usable, or `reference` (slow, float64 inside).
        :func:`dfs_ros.cost_volume.cuda.cost_volume` leaves the volume on the device.
    threads
        Largest number of CPU threads, 0 = all usable cores; small images get one.
    spectra_cache, frame_keys
        Cache of spectra under the caller's key for each ALIGNED image (F,): stacks of a sliding window share frames.
        Not for `reference`.
    half
        On the CPU, at half size (:mod:`.halving`).
    """
    problem = make_problem(stack, depths_m, cost)
    states = aperture_states(stack, problem.depths_m, half and backend == "cpu")
    if states is not None:

        def volume_of(aperture: float) -> NDArray[np.float32]:
            less_open = make_problem(opened(stack, aperture), depths_m, cost)
            return _volume(less_open, backend, threads, spectra_cache, frame_keys, half)

        return np.asarray(states.blended(volume_of))
    return _volume(problem, backend, threads, spectra_cache, frame_keys, half)


def _volume(
    problem: Problem,
    backend: str,
    threads: int,
    spectra_cache: SpectraCache | None,
    frame_keys: Sequence[Hashable] | None,
    half: bool,
) -> NDArray[np.float32]:
    """Cost volume with one aperture for all pixels."""
    if isinstance(problem.stack, MovingStack):
        from dfs_ros.cost_volume import moving

        if backend == "reference":
            return moving.reference_volume(problem).astype(np.float32)
        return moving.cost_volume(problem, threads=threads, half=half)
    if backend == "reference":
        from dfs_ros.cost_volume import reference

        return reference.cost_volume(problem).astype(np.float32)
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, received {backend!r}")
    if backend != "cpu":
        volume = _on_gpu(problem, spectra_cache, frame_keys, required=backend == "cuda")
        if volume is not None:
            return volume
    from dfs_ros.cost_volume import cpu

    return cpu.cost_volume(problem, threads, spectra_cache, frame_keys, half)


def chosen_device(device: str) -> str:
    """Resolve a device to `cpu` or `cuda`; `auto` loads the kernels to find out.

    Raises ValueError for other names, and for an unusable `cuda`.
    """
    if device not in DEVICES:
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, received {device!r}")
    if device == "cpu":
        return "cpu"
    from dfs_ros.cost_volume import cuda

    cause = cuda.why_not()
    if cause is None:
        try:
            cuda.cuda_kernels()
            return "cuda"
        except cuda.CudaUnavailable as error:
            cause = str(error)
            _warn_once(f"cost volumes are computed on the CPU: {cause}")
    if device == "cuda":
        raise cuda.CudaUnavailable(f"device cuda: it cannot be used: {cause}; use the device cpu or auto")
    return "cpu"


def _on_gpu(
    problem: Problem, spectra_cache: SpectraCache | None, frame_keys: Sequence[Hashable] | None, required: bool
) -> NDArray[np.float32] | None:
    """Volume from a GPU; None without one (unless `required`) or without enough memory."""
    from dfs_ros.cost_volume import cuda

    if not required and cuda.why_not() is not None:
        return None
    try:
        volume = cuda.cost_volume(problem, spectra_cache=spectra_cache, frame_keys=frame_keys)
        return np.asarray(volume.cpu().numpy(), np.float32)
    except cuda.CudaUnavailable as error:
        if required:
            raise
        keep_traceback(error)
        _warn_once(f"cost volumes are computed on the CPU: {error}")
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        keep_traceback(error)
        _log.warning("cost volume computed on the CPU: the GPU's memory does not suffice (%s)", error)
    return None


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
