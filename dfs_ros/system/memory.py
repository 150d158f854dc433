"""Keep freed host memory; detect GPU out-of-memory errors."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable

# Parameters of glibc's mallopt, and a size that no array of a stack reaches.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER_BYTES = 1 << 30
_PEAK_S = 60.0

_ALLOCATION_FAILED = (
    "CUFFT_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Failed to allocate memory for requested buffer",  # ONNX Runtime
    "CUDA failure 2: out of memory",
)


def keep_freed_memory() -> bool:
    """Keep freed memory in this process; False if the C library is not glibc.

    By default glibc returns large arrays to the system, which clears each page again at its next use. Depth allocates
    the same large arrays for each stack, in several threads: kept, in one arena for all of them, a stack of 8 images of
    1088 x 612 took 4.2 s of processor time instead of 5.0 s, of the system's 0.14 s instead of 1.04 s.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Arenas of single threads hold no large arrays, which would be returned after all.
        options = ((_MMAP_THRESHOLD, _NEVER_BYTES), (_TRIM_THRESHOLD, _NEVER_BYTES), (_ARENA_MAX, 1))
        return all(mallopt(option, value) == 1 for option, value in options)
    return False


def return_arrays_at_once() -> bool:
    """Return each freed array to the system, in this process; False if the C library is not glibc.

    By default glibc raises the size from which it does so with each large array that is freed, and fills a heap for
    each thread instead, with gaps: a viewer grew by 8 MiB an hour, for as long as it was watched.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        options = ((_MMAP_THRESHOLD, 1 << 16), (_TRIM_THRESHOLD, 1 << 17), (_ARENA_MAX, 2))
        return all([mallopt(option, value) == 1 for option, value in options])
    return False


def check_memory(wanted_bytes: int, what: str) -> None:
    """Raise ValueError, before allocating, for what does not fit into the free memory of this machine."""
    import psutil

    free_bytes = psutil.virtual_memory().available
    if wanted_bytes > free_bytes:
        raise ValueError(
            f"{what}: expected at most {free_bytes / 1e9:.3g} GB, which are free, received {wanted_bytes / 1e9:.3g} "
            "GB; use fewer or smaller images"
        )


def return_freed_memory() -> None:
    """Return freed memory of this process to the system (glibc only), after work that it does not do again."""
    gc.collect()
    _trim()


class Peaks:
    """Memory that freed arrays keep in this process; what only a rare peak needed goes back within a minute.

    Kept for ever, it would rise with each peak higher than those before: a node's by 15 MiB once in an hour.
    """

    def __init__(self, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._steady_s = steady_s
        self._returned_s = steady_s()

    def end(self) -> bool:
        """Return the memory if a minute has passed; call it when an item of work has ended."""
        if self._steady_s() - self._returned_s < _PEAK_S:
            return False
        self._returned_s = self._steady_s()
        _trim()
        return True


def _trim() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException | None) -> bool:
    """True for a device's out-of-memory error, raised through torch; imports no torch."""
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error)
    return any(status in text for status in _ALLOCATION_FAILED)
