"""Pictures of the viewer's page, by a real browser where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfs_ros.config import ViewerConfig
from dfs_ros.viewer.viewer import Viewer
from tools.screenshot import BROWSERS, take_screenshot


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    with Viewer(ViewerConfig(port=0)) as viewer:
        yield viewer


needs_chromium = pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium on this machine")


@needs_chromium
def test_a_page_that_never_shows_depth_is_given_up(viewer: Viewer, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"not ready within 1 s \(waiting for \[data-depth-images\]\)"):
        take_screenshot(viewer.url, tmp_path / "page.png", timeout_s=1)
    assert not list(tmp_path.iterdir())


def test_without_a_chromium_it_says_which_were_tried(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Chromium found, tried no-such-browser"):
        take_screenshot("http://127.0.0.1:1", tmp_path / "page.png", browser="no-such-browser")


@needs_chromium
def test_screenshot_shows_the_points(viewer: Viewer, tmp_path: Path) -> None:
    depth = np.full((60, 80), 2.0, np.float32)
    green = np.zeros((60, 80, 3), np.uint8)
    green[:, :, 1] = 255
    viewer.show_depth(depth, None, green, (80.0, 80.0, 39.5, 29.5), 0)
    path = tmp_path / "page.png"
    shown = 0.0
    for settle_s in (2, 10, 40):  # a busy machine draws slowly
        take_screenshot(viewer.url, path, size=(1200, 700), settle_s=settle_s, timeout_s=200)
        picture = cv2.imread(str(path))
        assert picture.shape == (700, 1200, 3)
        middle = picture[200:500, 500:700].astype(int)  # between the panels
        shown = float(((middle[:, :, 1] > 60) & (middle[:, :, 0] < 30) & (middle[:, :, 2] < 30)).mean())
        if shown > 0.3:
            break
    assert shown > 0.3
