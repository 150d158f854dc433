"""Text and drawings of the page: bars of colours, plot of the focus, tiles of the status."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from dfs_ros.io.pictures import colorize_confidence, colorize_depth, colorize_sigma
from dfs_ros.messages.node_status import Account
from dfs_ros.viewer import html
from dfs_ros.viewer.colours import Colours
from dfs_ros.viewer.status import FocusSample, ViewerStatus


def colors_at(depth_m: np.ndarray) -> np.ndarray:
    return colorize_depth(np.asarray(depth_m, np.float32)[None], 0.5, 2.0)[0]


def ticks_of(bar: str) -> dict[str, float]:
    return {text: float(x) for x, text in re.findall(r'<text x="([\d.]+)" y="27" text-anchor="\w+">([\d.]+)<', bar)}


def shade_at(bar: str, share: float) -> list[int]:
    stops = re.findall(r'stop offset="([\d.]+)" stop-color="rgb\((\d+),(\d+),(\d+)\)"', bar)
    return [int(v) for v in min(stops, key=lambda stop: abs(float(stop[0]) - share))[1:]]


def test_bar_of_depth_is_even_in_inverse_depth() -> None:
    bar = Colours(depth_m=(0.5, 2.0)).bar("Depth")
    ticks = ticks_of(bar)
    assert ticks["0.5"] == 0.0 and ">m<" in bar
    # 1 m lies 2/3 of the way from 2 to 0.5 dioptres.
    assert ticks["1"] == pytest.approx(2 / 3 * ticks["2"], abs=0.1)
    np.testing.assert_allclose(shade_at(bar, 2 / 3), colors_at(np.array([1.0]))[0], atol=12)


def test_bar_of_sigma_is_logarithmic_in_millimetres() -> None:
    bar = Colours(sigma_m=(0.001, 0.1)).bar("Sigma")
    ticks = ticks_of(bar)
    assert ticks["1"] == 0.0 and ticks["10"] == pytest.approx(ticks["100"] / 2, abs=0.1) and ">mm<" in bar
    dark, middle, bright = (sum(shade_at(bar, share)) for share in (0.0, 0.5, 1.0))
    assert dark < middle < bright
    np.testing.assert_allclose(shade_at(bar, 0.5), colorize_sigma(np.float32([[0.01]]), 0.001, 0.1)[0, 0], atol=12)


def test_bar_of_confidence_has_no_unit() -> None:
    bar = Colours().bar("Confidence")
    assert ticks_of(bar)["0.5"] == pytest.approx(html.BAR_PX / 2, abs=0.1) and ">m<" not in bar and ">mm<" not in bar
    np.testing.assert_array_equal(shade_at(bar, 1.0), colorize_confidence(np.float32([[1.0]]))[0, 0])


def test_focus_plot_marks_every_known_frame() -> None:
    focus = [0.0, 1.0, math.nan, 2.0]
    plot = html.focus_plot([FocusSample(i * 10**9, d) for i, d in enumerate(focus)], colors_at)
    dots = [(float(x), float(y)) for x, y in re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)" r="3"', plot)]
    (x0, y0), (x1, y1), (x3, y3) = dots
    assert x1 - x0 == pytest.approx((x3 - x0) / 3, abs=0.1)
    assert y0 - y1 == pytest.approx((y0 - y3) / 2, abs=0.1) and y3 < y1
    assert "∞" in plot and "0.5 m" in plot and "3 s ago" in plot


@pytest.mark.parametrize("focus", [[math.nan], [0.0], [0.0, 0.0], [math.nan, 1.0], [1.0, math.nan], [20.0], []])
def test_focus_plot_of_odd_histories(focus: list[float]) -> None:
    plot = html.focus_plot([FocusSample(7, d) for d in focus], colors_at)
    assert "nan" not in plot and "inf" not in plot
    assert plot.count('r="3"') == sum(math.isfinite(d) for d in focus)


def test_status_shows_unknown_as_dash_and_escapes_what_came_over_the_wire() -> None:
    tiles = html.status_tiles(ViewerStatus(), math.nan)
    assert tiles.count(f"<b>{html.NO_VALUE}<") == 6 and "No warnings" not in tiles
    status = ViewerStatus(
        29.94,
        5.0,
        0.1826,
        7,
        Account(100, {"in stacks": 84, "waiting": 1, "<late>": 3, "lens moving": 12}),
        camera="<script>x</script>",
        warnings=("<img src=x>",),
        received=True,
    )
    tiles = html.status_tiles(status, 0.634)
    for text in (">29.9<", ">5.0<", ">183<", ">63<", ">15.0<", "&lt;late&gt;", "&lt;script&gt;", "&lt;img src=x&gt;"):
        assert text in tiles
    assert "<script" not in tiles and "<img" not in tiles
    assert "No warnings" in html.status_tiles(ViewerStatus(received=True), 1.0)
