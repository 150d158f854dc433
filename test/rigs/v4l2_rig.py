"""A V4L2 camera that is plugged in, on linuxpy as it is, with only the kernel played."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from v4l2_kernel import FOCUS, FOCUS_AUTO, FakeCamera, plugged_in

from dfs_ros.camera.source import SourceFrame
from dfs_ros.camera.v4l2.source import V4l2Source
from dfs_ros.config import Config
from dfs_ros.types import LensState

LENS = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 3e-6}
TABLE = {
    "format": "lens-table/1",
    "unit": "focus_absolute",
    "points": [
        {"raw": 0, "focus_diopters": 0.0, "sigma_diopters": 0.1},
        {"raw": 250, "focus_diopters": 5.0, "sigma_diopters": 0.1},
    ],
}


class Bench:
    """A camera that is plugged in, and its settings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.table = folder / "lens.yaml"
        self.table.write_text(yaml.safe_dump(TABLE))
        self.plug_in()

    def plug_in(self, **options: Any) -> FakeCamera:
        self.camera = FakeCamera(self.folder / "video0", **options)
        plugged_in(self.monkeypatch, self.camera)
        return self.camera

    def config(self, v4l2: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Config:
        device = {"device": str(self.camera.path), "calibration": str(self.table), "settle_s": 0.03}
        values = {
            "v4l2": {**device, "pixel_format": "GREY", **(v4l2 or {})},
            "camera": {"source": "v4l2", "width": 64, "height": 48, "rate_hz": 100},
            "lens": LENS,
        }
        return Config.from_dict({**values, **sections})

    def source(self, v4l2: dict[str, Any] | None = None, **sections: dict[str, Any]) -> V4l2Source:
        config = self.config(v4l2, **sections)
        return V4l2Source(config.v4l2, config.camera, config.lens)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def first(source: V4l2Source, count: int) -> list[SourceFrame]:
    frames = source.frames()
    try:
        return list(itertools.islice(frames, count))
    finally:
        frames.close()


def taken(frames: list[SourceFrame]) -> list[SourceFrame]:
    return [f for f in frames if f.focus.lens_state == LensState.STATIONARY]


def no_focus(bench: Bench) -> None:
    camera = bench.plug_in()
    camera.controls = [c for c in camera.controls if c.id not in (FOCUS, FOCUS_AUTO)]
