"""Files and folders that appear whole or not at all, on the disk before they have their name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfs_ros.system.atomic import atomic_file, staged, write_atomically


def test_an_interrupted_file_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    write_atomically(file, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(file) as partial:
        partial.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [file] and file.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", b"content")
    write_atomically(file, b"new")
    assert list(tmp_path.iterdir()) == [file] and file.read_bytes() == b"new"


def test_content_is_on_the_disk_before_the_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((path.name, path.stat().st_size == 7 or path.is_dir()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    write_atomically(tmp_path / "file", b"content")
    assert flushed[0][0].startswith(".file.") and flushed[0][1]
    assert flushed[1:] == [(tmp_path.name, True)]
    flushed.clear()
    with staged(tmp_path / "folder", last="b") as staging:
        for name in ("a", "b"):
            (staging / name).write_bytes(b"content")
    assert {name for name, _ in flushed[:2]} == {"a", "b"} and all(whole for _, whole in flushed)
    assert flushed[2][0].startswith(".folder.") and flushed[3:] == [(tmp_path.name, True)]


def test_staged_files_replace_older_ones_and_the_mark_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "mark", "mine"):
        (folder / name).write_text("old")
    moved = []
    replace = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        assert not (folder / "mark").exists()
        moved.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    with staged(folder, last="mark") as staging:
        for name in ("mark", "z", "a"):
            (staging / name).write_text("new")
        assert {(folder / name).read_text() for name in ("a", "mark", "mine")} == {"old"}
    assert moved == ["a", "z", "mark"]
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": "new", "z": "new", "mark": "new", "mine": "old"}


def test_staged_refuses_to_put_a_file_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out" / "b").mkdir(parents=True)
    with (
        pytest.raises(ValueError, match=r"out/b: expected a file or nothing there, received a folder"),
        staged(tmp_path / "out", last="a") as staging,
    ):
        for name in ("a", "b"):
            (staging / name).write_text("new")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b"]
