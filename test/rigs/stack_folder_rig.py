"""Stack folders on disk, sound or with changes, for the tests of focal-stack/1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from places import DATA

from dfs_ros.io.images import ImageFile
from dfs_ros.io.stack_folder import load_stack

REAL_STACKS = DATA / "stacks"
CAMERA = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 4e-6}


def textured(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_folder(folder: Path, **changes: Any) -> Path:
    """A sound stack of two PNG images, with changes to its top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(2):
        Image.fromarray(textured(seed=i)).save(folder / f"{i}.png")
    document: dict[str, Any] = {
        "format": "focal-stack/1",
        "camera": CAMERA,
        "frames": [{"file": "0.png", "focus_diopters": 0.0}, {"file": "1.png", "focus_diopters": 2.0}],
    }
    document.update(changes)
    (folder / "stack.yaml").write_text(yaml.safe_dump(document))
    return folder


def frames(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    base = [{"file": "0.png", "focus_diopters": 0.0}, {"file": "1.png", "focus_diopters": 2.0}]
    return [{**entry, **change} for entry, change in zip(base, changes, strict=False)]


def pixels_of(path: Path, colour: bool = True) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with ImageFile(path) as file:
        return file.pixels(colour)


def assert_refused(folder: Path, kind: type[Exception], *texts: str) -> None:
    """`load_stack` raises that very kind with these texts."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_stack(folder)
    assert type(caught.value) is kind or isinstance(caught.value, kind)
    for text in texts:
        assert text in str(caught.value)
