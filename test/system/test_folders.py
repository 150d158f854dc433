"""Caches are private, and not used where others could put code into them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfs_ros.system.folders import cache_folder


def test_a_cache_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder("engines")
    assert folder == tmp_path / "dfs_ros" / "engines"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert cache_folder("engines").stat().st_mode & 0o777 == 0o700


def test_a_cache_that_somebody_else_owns_or_can_replace_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "open"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    other = cache_folder("engines")
    assert tmp_path not in other.parents
    assert other.parent.stat().st_mode & 0o777 == 0o700
    assert "everybody may write in" in caplog.text
    (tmp_path / "open").chmod(0o1777)  # as /tmp: names of others cannot be replaced
    assert cache_folder("kernels") == tmp_path / "open" / "dfs_ros" / "kernels"
    caplog.clear()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert tmp_path not in cache_folder("kernels").parents
    assert "belongs to user" in caplog.text
