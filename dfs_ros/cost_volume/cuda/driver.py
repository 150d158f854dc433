"""Kernel launches through the CUDA driver, by cuda-bindings; memory and streams belong to torch."""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from dfs_ros.cost_volume.cuda import build
from dfs_ros.cost_volume.cuda.build import CudaUnavailable, call

Grid = tuple[int, int, int]

_log = logging.getLogger(__name__)


class Kernels(Protocol):
    """Launcher of the kernels: a GPU or, in tests, their host build."""

    def launch(self, name: str, grid: Grid, threads: int, shared_bytes: int, job: ctypes.Structure) -> None:
        """Run a kernel on `grid` blocks of `threads` threads, after all earlier launches."""


class CudaKernels:
    """Kernels in this thread's device context, for one compute capability.

    `stream` returns the stream to launch on. Raises CudaUnavailable without loadable machine code.
    """

    def __init__(self, architecture: int, stream: Callable[[], int]) -> None:
        from cuda.bindings import driver

        self._driver, self._stream = driver, stream
        self._context = call(driver.cuCtxGetCurrent)
        self._module, self.origin = self._load(architecture)
        self._functions: dict[str, Any] = {}

    def launch(self, name: str, grid: Grid, threads: int, shared_bytes: int, job: ctypes.Structure) -> None:
        if name not in self._functions:
            self._functions[name] = call(self._driver.cuModuleGetFunction, self._module, name.encode())
        # A thread that torch has not used yet has no context.
        call(self._driver.cuCtxSetCurrent, self._context)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(job))
        block, stream = (threads, 1, 1), self._stream()
        call(self._driver.cuLaunchKernel, self._functions[name], *grid, *block, shared_bytes, stream, arguments, 0)

    def _load(self, architecture: int) -> tuple[Any, str]:
        causes: list[str] = []
        for machine_code in build.codes(architecture, causes):
            try:
                return call(self._driver.cuModuleLoadData, machine_code.code), machine_code.origin
            except RuntimeError as error:
                causes.append(f"{machine_code.origin}: {error}")
        raise CudaUnavailable(
            "\n - ".join(
                [
                    f"the CUDA kernels cannot be had for sm_{architecture}. Tried:",
                    *causes,
                    "mend one of these, for example `pip install nvidia-cuda-nvrtc`, or use the device cpu",
                ]
            )
        )


_loaded: dict[int, CudaKernels | CudaUnavailable] = {}
_loading = threading.Lock()


def cuda_kernels(device_index: int = 0) -> CudaKernels:
    """Kernels of a device, loaded once; a failure is cached and raised again."""
    with _loading:
        if device_index not in _loaded:
            try:
                _loaded[device_index] = _kernels_of_torch(device_index)
            except CudaUnavailable as error:
                _loaded[device_index] = error
        outcome = _loaded[device_index]
    if isinstance(outcome, CudaUnavailable):
        raise CudaUnavailable(str(outcome))
    return outcome


def _kernels_of_torch(device_index: int) -> CudaKernels:
    """The kernels in torch's context of a device, on torch's streams."""
    cause = why_not()
    if cause is not None:
        raise CudaUnavailable(f"CUDA cannot be used: {cause}; use the device cpu or auto")
    import torch

    if not 0 <= device_index < torch.cuda.device_count():
        raise CudaUnavailable(f"CUDA device {device_index}: this machine has {torch.cuda.device_count()} of them")
    device = torch.device("cuda", device_index)
    with torch.cuda.device(device):
        torch.empty(1, device=device)  # makes the context
        major, minor = torch.cuda.get_device_capability(device)
        return CudaKernels(10 * major + minor, lambda: torch.cuda.current_stream(device).cuda_stream)


@functools.cache
def why_not() -> str | None:
    """Reason why CUDA cannot be used; None if it can.

    Without a driver, neither torch nor cuda-bindings is imported.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({error})"
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return f"PyTorch {torch.__version__} is built without CUDA; install a CUDA build of it"
        return f"PyTorch {torch.__version__} for CUDA {torch.version.cuda} sees no device: too new for the driver?"
    try:
        from cuda.bindings import driver  # noqa: F401
    except ImportError as error:
        extra = f"cuda{str(torch.version.cuda).partition('.')[0]}"
        cause = f"cuda-bindings cannot be imported ({error}); pip install 'dfs_ros[{extra}]'"
        _log.warning("the GPU is not used: %s", cause)
        return cause
    return None
