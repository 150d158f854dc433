"""focal-stack/1: the reference depth that goes with a stack; a stack is saved whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from stack_folder_rig import textured, write_folder

from dfs_ros.io.stack_description import read_description
from dfs_ros.io.stack_folder import read_reference_depth, save_stack
from dfs_ros.types import Camera, FocalStack

# ---- reference depth -------------------------------------------------------------------------------------------------


def reference_of(folder: Path) -> Any:
    return read_reference_depth(read_description(folder))


def test_reference_depth(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "s", reference_depth="d.npy")
    np.save(folder / "d.npy", np.array([[1.5, 0.0], [np.nan, np.inf]], np.float64))
    np.testing.assert_array_equal(reference_of(folder), np.array([[1.5, np.nan], [np.nan, np.nan]], np.float32))
    (folder / "d.npy").write_bytes((folder / "d.npy").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"d\.npy: expected a whole \.npy file"):
        reference_of(folder)
    np.save(folder / "d.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"d\.npy: expected a whole \.npy file"):
        reference_of(folder)
    np.save(folder / "d.npy", np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match=r"expected depth of shape \(height, width\), received \(2, 2, 2\)"):
        reference_of(folder)
    folder = write_folder(tmp_path / "p", reference_depth="d.png")
    (folder / "d.png").write_bytes(cv2.imencode(".png", np.array([[1500, 0]], np.uint16))[1].tobytes())
    np.testing.assert_array_equal(reference_of(folder), np.array([[1.5, np.nan]], np.float32))
    Image.fromarray(textured()).save(folder / "d.png")
    with pytest.raises(ValueError, match=r"16-bit PNG with millimetres"):
        reference_of(folder)


# ---- saving ----------------------------------------------------------------------------------------------------------


def small_stack() -> FocalStack:
    images = np.stack([textured(seed=i) for i in range(3)])
    return FocalStack(images, np.array([0.0, 1.0, 2.0]), Camera(0.004, 2.0, 4e-6))


def test_save_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"photos: expected a new or empty folder"):
        save_stack(small_stack(), folder)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    save_stack(small_stack(), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["000.png", "001.png", "002.png", "stack.yaml"]


def test_save_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/dfs_ros_test/stack")):
        with pytest.raises(ValueError, match=r"output .*: cannot be written \(.*\); choose a folder"):
            save_stack(small_stack(), target)


@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_save_leaves_nothing(tmp_path: Path, existing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stack"
    if existing:
        folder.mkdir()
    written = []
    write_bytes = Path.write_bytes

    def interrupted(self: Path, data: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            write_bytes(self, data[: len(data) // 2])
            raise KeyboardInterrupt
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_stack(small_stack(), folder)
    assert len(written) == 2
    assert list(tmp_path.rglob("*")) == ([folder] if existing else [])
