"""Launching the kernels on a GPU, through the driver's own C interface; memory and streams are torch's."""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any, Protocol

from dfs_ros.cost_volume.cuda import build
from dfs_ros.cost_volume.cuda.build import CudaUnavailable

Grid = tuple[int, int, int]


class Kernels(Protocol):
    """What runs the kernels: a GPU, or, in tests, the host build of the same source."""

    def launch(self, name: str, grid: Grid, threads: int, shared_bytes: int, job: ctypes.Structure) -> None:
        """Run a kernel on `grid` blocks of `threads` threads, after all that was launched before."""


class CudaKernels:
    """The kernels on one device. Raises CudaUnavailable where they cannot be compiled or loaded."""

    def __init__(self, device_index: int) -> None:
        import torch

        cause = why_not()
        if cause is not None:
            raise CudaUnavailable(f"CUDA cannot be used: {cause}; use the device cpu or auto")
        if not 0 <= device_index < torch.cuda.device_count():
            raise CudaUnavailable(f"CUDA device {device_index}: this machine has {torch.cuda.device_count()} of them")
        self._driver = _driver()
        self._stream_of = torch.cuda.current_stream
        self._device = torch.device("cuda", device_index)
        with torch.cuda.device(self._device):
            torch.empty(1, device=self._device)  # makes the context that torch and these kernels share
            self._context = ctypes.c_void_p()
            self._driver.call("cuCtxGetCurrent", ctypes.byref(self._context))
            major, minor = torch.cuda.get_device_capability(self._device)
            self._module, self.origin = self._load(10 * major + minor)
        self._functions: dict[str, ctypes.c_void_p] = {}

    def launch(self, name: str, grid: Grid, threads: int, shared_bytes: int, job: ctypes.Structure) -> None:
        # A thread that torch has not used yet has no context.
        self._driver.call("cuCtxSetCurrent", self._context)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(job))
        self._driver.call(
            "cuLaunchKernel",
            self._function(name),
            *(ctypes.c_uint(n) for n in (*grid, threads, 1, 1, shared_bytes)),
            ctypes.c_void_p(self._stream_of(self._device).cuda_stream),
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
    """The kernels on a device, loaded once; a failure is remembered too, and raised again as CudaUnavailable."""
    with _loading:
        if device_index not in _loaded:
            try:
                _loaded[device_index] = CudaKernels(device_index)
            except CudaUnavailable as error:
                _loaded[device_index] = error
        outcome = _loaded[device_index]
    if isinstance(outcome, CudaUnavailable):
        raise CudaUnavailable(str(outcome))
    return outcome


@functools.cache
def why_not() -> str | None:
    """Why no CUDA device can be used here; None where one can. Where there is no driver, torch is not imported."""
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


class _Driver:
    """The functions of libcuda; every one that fails raises RuntimeError."""

    def __init__(self) -> None:
        self._lib: Any = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", ctypes.c_uint(0))

    def call(self, function: str, *arguments: object) -> None:
        """Call a function of the driver."""
        status = getattr(self._lib, function)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
            raise RuntimeError(f"{function}: {(text.value or b'unknown error').decode()} ({status})")


@functools.cache
def _driver() -> _Driver:
    return _Driver()
