"""Cache files: complete, validated when read, made again if damaged.

A file is named by the hash of its inputs, so that the two never disagree. Without a writable folder files are made at
every start, with a warning.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dfs_ros.system.atomic import atomic_file
from dfs_ros.system.tracebacks import keep_traceback

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 32
_MOST_KEPT_BYTES = 1 << 30


def read_kept(file: Path) -> bytes | None:
    """Read content of :func:`keep`; None if missing or damaged."""
    try:
        kept = read_file(file, _MOST_KEPT_BYTES)
    except OSError:
        return None
    except ValueError as error:
        keep_traceback(error)
        _log.warning("%s is damaged and is made again: %s", file, error)
        return None
    digest, content = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() == digest:
        return content
    _log.warning("%s is damaged and is made again", file)
    return None


def read_file(file: Path, most_bytes: int) -> bytes:
    """Read a file of at most `most_bytes`, which are checked before. Raises OSError, and ValueError if it is longer."""
    if (size := file.stat().st_size) > most_bytes:
        raise ValueError(f"{file}: expected at most {most_bytes} bytes, received {size}")
    return file.read_bytes()


def keep(file: Path, content: bytes) -> None:
    """Write content with its digest, atomically."""
    _write(file, lambda stream: stream.write(hashlib.sha256(content).digest() + content))


def read_array(file: Path, shape: tuple[int, ...], dtype: type) -> NDArray[Any] | None:
    """Map an array of :func:`keep_array` into memory; None if missing or damaged.

    Only length and form are checked, so that large arrays need not be read at once.
    """
    try:
        array = map_array(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        keep_traceback(error)
        _log.warning("%s is damaged and is made again: %s", file, error)
        return None
    return array if array.shape == shape and array.dtype == dtype else None


def map_array(file: Path) -> NDArray[Any]:
    """Map an array of numbers in a .npy file into memory: a header larger than the file is an error, no allocation.

    Raises OSError, and ValueError for a damaged file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers in other encodings
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"numbers, received {array.dtype}")
        return array
    except (OSError, MemoryError):
        raise
    except Exception as error:  # numpy parses the header as Python
        raise ValueError(f"{file}: expected a whole .npy file of numbers ({error})") from error


def keep_array(file: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, atomically."""
    _write(file, partial(_save, array))


def save_array(file: Path, array: NDArray[Any]) -> None:
    """Write numbers as .npy. Raises OSError, as on a full disk."""
    with file.open("wb") as stream:
        _save(array, stream)


def _save(array: NDArray[Any], stream: BinaryIO) -> None:
    # To a file, np.save writes by the C library, and nobody hears that its last 4096 bytes did not fit.
    plain: Any = SimpleNamespace(write=stream.write)
    np.save(plain, array, allow_pickle=False)


def _write(file: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # others cannot put code there
        with atomic_file(file) as made, made.open("wb") as stream:
            write(stream)
    except OSError as error:
        keep_traceback(error)
        _log.warning("made at every start, for %s cannot be written: %s", file, error)
