"""Kernel launches through the CUDA driver; memory and streams belong to torch."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any, Protocol

from dfs_ros.cost_volume.cuda import build
from dfs_ros.cost_volume.cuda.build import CudaUnavailable

Grid = tuple[int, int, int]


class Kernels(Protocol):
    """Launcher of the kernels: a GPU or, in tests, their host build."""

    def launch(self, name: str, grid: Grid, threads: int, shared_bytes: int, job: ctypes.Structure) -> None:
        """Run a kernel on `grid` blocks of `threads` threads, after all earlier launches."""


class CudaKernels:
    """Kernels in this thread's device context, for one compute capability.

    `stream` returns the stream to launch on. Raises CudaUnavailable without loadable machine code.
    """

    def __init__(self, driver: Driver, architecture: int, stream: Callable[[], int]) -> None:
        self._driver, self._stream = driver, stream
        self._context = ctypes.c_void_p()
        driver.call("cuCtxGetCurrent", ctypes.byref(self._context))
        self._module, self.origin = self._load(architecture)
        self._functions: dict[str, ctypes.c_void_p] = {}

    def launch(self, name: str, grid: Grid, threads: int, shared_bytes: int, job: ctypes.Structure) -> None:
        # A thread that torch has not used yet has no context.
        self._driver.call("cuCtxSetCurrent", self._context)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(job))
        self._driver.call(
            "cuLaunchKernel",
            self._function(name),
            *(ctypes.c_uint(n) for n in (*grid, threads, 1, 1, shared_bytes)),
            ctypes.c_void_p(self._stream()),
            arguments,
            None,
        )

    def _function(self, name: str) -> ctypes.c_void_p:
        if name not in self._functions:
            function = ctypes.c_void_p()
            self._driver.call("cuModuleGetFunction", ctypes.byref(function), self._module, name.encode())
            self._functions[name] = function
        return self._functions[name]

    def _load(self, architecture: int) -> tuple[ctypes.c_void_p, str]:
        causes: list[str] = []
        for machine_code in build.codes(architecture, causes):
            module = ctypes.c_void_p()
            try:
                self._driver.call("cuModuleLoadData", ctypes.byref(module), machine_code.code)
            except RuntimeError as error:
                causes.append(f"{machine_code.origin}: {error}")
                continue
            return module, machine_code.origin
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
        return CudaKernels(_driver(), 10 * major + minor, lambda: torch.cuda.current_stream(device).cuda_stream)


@functools.cache
def why_not() -> str | None:
    """Reason why CUDA cannot be used; None if it can.

    Without a driver, torch is not imported."""
    try:
        driver = _driver()
        count = ctypes.c_int()
        driver.call("cuDeviceGetCount", ctypes.byref(count))
    except (OSError, RuntimeError) as error:
        return f"no NVIDIA driver ({error})"
    if count.value == 0:
        return "no CUDA device (the driver is there and counts none)"
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return f"PyTorch {torch.__version__} is built without CUDA; install a CUDA build of it"
        return f"PyTorch {torch.__version__} for CUDA {torch.version.cuda} sees no device: too new for the driver?"
    return None


class Driver:
    """Functions of libcuda; a failure raises RuntimeError."""

    def __init__(self, library: str = "libcuda.so.1") -> None:
        self._lib: Any = ctypes.CDLL(library)
        self.call("cuInit", ctypes.c_uint(0))

    def call(self, function: str, *arguments: object) -> None:
        """Call a function of the driver."""
        status = getattr(self._lib, function)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
            raise RuntimeError(f"{function}: {(text.value or b'unknown error').decode()} ({status})")


@functools.cache
def _driver() -> Driver:
    return Driver()
