"""The cache: what was kept is found again, what is damaged or cannot be written is made again."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from dfs_ros.system.cache import keep, keep_array, read_array, read_kept, save_array

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_content_is_found_again_and_a_single_bit_matters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "folder" / "file"
    assert read_kept(file) is None
    keep(file, b"content")
    assert read_kept(file) == b"content" and caplog.text == ""
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"u", whole[:20], b""):
        file.write_bytes(damaged)
        assert read_kept(file) is None
        assert "is damaged and is made again" in caplog.text
        caplog.clear()


def test_a_file_longer_than_what_is_kept_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    keep(file, b"content")
    os.truncate(file, 1 << 40)  # without blocks: as a damaged file system may show it
    assert read_kept(file) is None
    assert f"expected at most {1 << 30} bytes, received {1 << 40}" in caplog.text


def test_arrays_are_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "array.npy"
    assert read_array(file, (2, 3, 4), np.uint8) is None
    keep_array(file, ARRAY)
    np.testing.assert_array_equal(read_array(file, (2, 3, 4), np.uint8), ARRAY)
    assert read_array(file, (2, 4, 3), np.uint8) is None and read_array(file, (2, 3, 4), np.int8) is None
    assert caplog.text == ""
    file.write_bytes(file.read_bytes()[:-1])
    assert read_array(file, (2, 3, 4), np.uint8) is None
    assert "is damaged and is made again" in caplog.text


@pytest.mark.parametrize("missing_bytes", [1, 5000])
def test_an_array_that_does_not_fit_is_an_error(tmp_path: Path, missing_bytes: int) -> None:
    """A limit on the size of a file in the place of a full disk; np.save would keep the last 4096 bytes to itself."""
    file, array = tmp_path / "array.npy", np.ones(3000, np.float32)
    save_array(file, array)
    np.testing.assert_array_equal(np.load(file), array)
    whole, before = file.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole - missing_bytes, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_array(file, array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in the way").write_text("")
    keep(tmp_path / "in the way" / "file", b"content")
    keep_array(tmp_path / "in the way" / "array.npy", ARRAY)
    assert caplog.text.count("cannot be written") == 2
