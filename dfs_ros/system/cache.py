"""Files of a cache: whole, checked when they are read, made again where they are damaged.

A file is named by the hash of all that its content is made from, so that the two never disagree. A folder that cannot
be written is a warning: its files are made at every start.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dfs_ros.system.atomic import atomic_file

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 32


def read_kept(file: Path) -> bytes | None:
    """Content that :func:`keep` wrote; None where there is none or it is damaged."""
    try:
        kept = file.read_bytes()
    except OSError:
        return None
    digest, content = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() == digest:
        return content
    _log.warning("%s is damaged and is made again", file)
    return None


def keep(file: Path, content: bytes) -> None:
    """Write content with its digest, whole or not at all."""
    _write(file, lambda stream: stream.write(hashlib.sha256(content).digest() + content))


def read_array(file: Path, shape: tuple[int, ...], dtype: type) -> NDArray[Any] | None:
    """An array that :func:`keep_array` wrote, mapped into memory; None where there is none or it is damaged.

    Only its length and form are checked: large ones need not be read at once.
    """
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        _log.warning("%s is damaged and is made again: %s", file, error)
        return None
    return array if array.shape == shape and array.dtype == dtype else None


def keep_array(file: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, whole or not at all."""
    _write(file, lambda stream: np.save(stream, array, allow_pickle=False))


def _write(file: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else puts code there
        with atomic_file(file) as partial, partial.open("wb") as stream:
            write(stream)
    except OSError as error:
        _log.warning("made at every start, for %s cannot be written: %s", file, error)
