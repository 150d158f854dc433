"""The live viewer: what a browser is sent, over the real protocol."""

from __future__ import annotations

import math
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import psutil
import pytest
from viewer_browser import HEIGHT, INTRINSICS, RNG, WIDTH, Browser, scene, viewer

from dfs_ros.config import ViewerConfig
from dfs_ros.io.pictures import colorize_confidence, colorize_depth, colorize_sigma, depth_range, sigma_range
from dfs_ros.viewer.scene import FIELD_OF_VIEW, Extent
from dfs_ros.viewer.status import ViewerStatus
from dfs_ros.viewer.viewer import Viewer

__all__ = ["viewer"]  # fixtures


def test_page_is_served_on_loopback_only(viewer: Viewer) -> None:
    with urllib.request.urlopen(viewer.url, timeout=240) as reply:
        assert reply.status == 200
        assert b"<html" in reply.read()[:2000].lower()
    port = int(viewer.url.rpartition(":")[2])
    listening = {
        c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


def test_port_in_use_is_an_error_that_names_it(viewer: Viewer) -> None:
    port = int(viewer.url.rpartition(":")[2])
    with pytest.raises(OSError, match=rf"port {port} on 127\.0\.0\.1.*viewer\.port"):
        Viewer(ViewerConfig(port=port))


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_address_of_another_machine_is_an_error(host: str) -> None:
    with pytest.raises(OSError, match=rf"(?s){re.escape(host)}"):
        Viewer(ViewerConfig(host=host, port=0))


def test_close_frees_port_and_threads() -> None:
    before = set(threading.enumerate())
    viewer = Viewer(ViewerConfig(port=0))
    port = int(viewer.url.rpartition(":")[2])
    with Browser(viewer) as browser:
        viewer.show_depth(**scene())
        browser.until(lambda: browser.updates)
        browser.set("Panel", "Sigma")
    viewer.close()
    viewer.close()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    deadline = time.monotonic() + 240
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()
    with pytest.raises(RuntimeError, match="closed"):
        viewer.show_frame(np.zeros((4, 4), np.uint8), 1.0, 0)


# ---------------------------------------------------------------------- data


def test_browser_gets_the_points_that_have_depth(viewer: Viewer) -> None:
    data = scene(missing=30)
    with Browser(viewer) as browser:
        viewer.show_depth(**data)
        browser.until(lambda: browser.updates)
        v, u = np.nonzero(np.isfinite(data["depth_m"]))
        z = data["depth_m"][v, u]
        assert len(browser.points) == HEIGHT * WIDTH - 30
        fx, fy, cx, cy = INTRINSICS
        np.testing.assert_allclose(browser.points, np.stack(((u - cx) / fx * z, (v - cy) / fy * z, z), 1), rtol=1e-5)
        np.testing.assert_array_equal(browser.colors, data["all_in_focus"][v, u])
        assert f"{WIDTH} × {HEIGHT} · 210 points" in browser.text
        browser.until(lambda: ">88<" in browser.text)  # 210 of 240 pixels, in percent


def test_large_clouds_are_thinned_by_a_grid() -> None:
    with Viewer(ViewerConfig(port=0, max_points=100)) as viewer, Browser(viewer) as browser:
        data = scene()
        viewer.show_depth(**data)
        browser.until(lambda: browser.updates)
        np.testing.assert_array_equal(browser.points[:, 2], data["depth_m"][::2, ::2].ravel())


def test_a_click_measures_a_pixel_and_a_drag_an_area(viewer: Viewer) -> None:
    data = scene()
    depth_m, sigma_m = data["depth_m"], data["sigma_m"]
    fx, fy, cx, cy = INTRINSICS
    with Browser(viewer) as browser:
        viewer.show_depth(**data)
        browser.until(lambda: browser.updates)
        ray = ((13 - cx) / fx, (4 - cy) / fy, 1.0)
        pointer = {"ray_origin": (0, 0, 0), "modifier": None, "screen_pos": ((0.5, 0.5),)}
        browser.send("ScenePointerMessage", event_type="click", ray_direction=ray, **pointer)
        depth, sigma = 1e3 * float(depth_m[4, 13]), 1e3 * float(sigma_m[4, 13])
        browser.until(lambda: f"Pixel (13, 4): {depth:,.0f} ± {sigma:,.0f} mm" in browser.text)
        browser.send("ScenePointerMessage", event_type="click", ray_direction=(0, 0, -1), **pointer)
        browser.until(lambda: "No depth there" in browser.text)
        browser.look()  # again: at the first depth it was moved. A rectangle of its screen is one of the image.
        half, aspect = math.tan(0.8 / 2), 16 / 9
        corners = [
            (0.5 + (u - cx) / fx / (2 * half * aspect), 0.5 + (v - cy) / fy / (2 * half))
            for u, v in ((2.5, 3.5), (6.5, 9.5))
        ]
        browser.send(
            "ScenePointerMessage",
            event_type="rect-select",
            ray_origin=None,
            ray_direction=None,
            screen_pos=corners,
            modifier="shift",
        )
        part = np.s_[4:10, 3:7]
        median, doubt = 1e3 * np.median(depth_m[part]), 1e3 * np.median(sigma_m[part])
        browser.until(lambda: f"24 points: median {median:,.0f} ± {doubt:,.0f} mm" in browser.text)


def test_panel_shows_depth_sigma_or_confidence(viewer: Viewer) -> None:
    data = scene()
    confidence = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    sigma_m = 0.001 + 0.1 * confidence
    with Browser(viewer) as browser:
        viewer.show_depth(**{**data, "sigma_m": sigma_m}, confidence=confidence)
        browser.until(lambda: browser.updates)
        browser.set("Points", "As the panel")
        for shown, expected in (
            ("Sigma", colorize_sigma(sigma_m, *sigma_range(sigma_m))),
            ("Confidence", colorize_confidence(confidence)),
            ("Depth", colorize_depth(data["depth_m"], *depth_range(data["depth_m"]))),
        ):
            browser.set("Panel", shown)
            browser.until(lambda colors=expected: np.array_equal(browser.colors, colors.reshape(-1, 3)))
            browser.until(lambda title=f"<b>{shown}</b>": title in browser.text)
        viewer.show_depth(**{**data, "sigma_m": None})
        browser.set("Panel", "Confidence")
        browser.until(lambda: "<b>Confidence</b><span>not received" in browser.text)


def test_each_browser_has_its_own_controls(viewer: Viewer) -> None:
    data = scene()
    with Browser(viewer) as first, Browser(viewer) as second:
        viewer.show_depth(**data)
        for browser in (first, second):
            browser.until(lambda browser=browser: browser.updates)
        first.set("Pause", True)
        first.set("Panel", "Sigma")
        first.until(lambda: "PAUSED" in first.text and "<b>Sigma</b>" in first.text)
        pointer = {"ray_origin": (0, 0, 0), "modifier": None, "screen_pos": ((0.5, 0.5),)}
        first.send("ScenePointerMessage", event_type="click", ray_direction=(0, 0, -1), **pointer)
        first.until(lambda: "No depth there" in first.text)
        viewer.show_depth(**scene(2.0))
        second.until(lambda: second.points[:, 2].min() == 2.0)
        first.drain(0.3)
        assert first.points[:, 2].min() == 1.0
        assert not any(text in second.text for text in ("PAUSED", "<b>Sigma</b>", "No depth there"))
        with Browser(viewer) as third:  # a new one begins with its own, and the newest depth
            third.until(lambda: third.updates)
            assert third.points[:, 2].min() == 2.0 and "PAUSED" not in third.text
        first.set("Pause", False)
        first.until(lambda: first.points[:, 2].min() == 2.0)


def test_what_was_measured_follows_the_depth(viewer: Viewer) -> None:
    fx, fy, cx, cy = INTRINSICS
    pointer = {"ray_origin": (0, 0, 0), "modifier": None, "screen_pos": ((0.5, 0.5),)}
    with Browser(viewer) as browser:
        viewer.show_depth(**scene(1.0))
        browser.until(lambda: browser.updates)
        browser.send("ScenePointerMessage", event_type="click", ray_direction=(-cx / fx, -cy / fy, 1.0), **pointer)
        browser.until(lambda: "Pixel (0, 0): 1,000 ± 20 mm" in browser.text)
        viewer.show_depth(**scene(2.0))
        browser.until(lambda: "Pixel (0, 0): 2,000 ± 40 mm" in browser.text)


def test_nothing_is_drawn_without_a_browser(viewer: Viewer) -> None:
    viewer.show_depth(**scene(1.0))
    viewer.show_depth(**scene(2.0))
    time.sleep(0.2)
    assert viewer._pages == {}
    with Browser(viewer) as browser:
        browser.until(lambda: browser.updates)
        assert browser.points[:, 2].min() == 2.0  # the newest


def test_updates_are_limited_in_rate_and_the_newest_wins() -> None:
    with Viewer(ViewerConfig(port=0, rate_hz=0.1)) as viewer, Browser(viewer) as browser:
        viewer.show_depth(**scene(1.0))
        browser.until(lambda: browser.updates)
        viewer.show_depth(**scene(2.0))
        browser.drain(0.3)
        assert browser.updates == 1  # the next one is due ten seconds after
    with Viewer(ViewerConfig(port=0, rate_hz=2)) as viewer, Browser(viewer) as browser:
        began = time.monotonic()
        for i in range(100):
            viewer.show_depth(**scene(1.0 + 0.01 * i))
        browser.until(lambda: browser.updates and browser.points[0, 2] == np.float32(1.0 + 0.01 * 99))
        assert browser.updates <= 1 + 2 * (time.monotonic() - began)


def test_input_image_focus_and_status_reach_the_page(viewer: Viewer) -> None:
    with Browser(viewer) as browser:
        for i, focus in enumerate((0.5, 1.0, 2.0)):
            viewer.show_frame(RNG.integers(0, 255, (8, 10), dtype=np.uint8), focus, i * 10**8)
        viewer.show_status(ViewerStatus(input_hz=29.9, warnings=("latency over 1 s",), received=True))
        browser.until(lambda: ">29.9<" in browser.text)
        assert "2 dioptres = 0.5 m" in browser.text and "latency over 1 s" in browser.text
        assert browser.text.count('r="3"') == 3
        viewer.show_frame(np.zeros((8, 10, 3), np.uint8), math.nan, 0)  # the recording starts over
        # Title and plot come one after the other.
        browser.until(lambda: "focus unknown" in browser.text and browser.text.count('r="3"') == 0)


def test_controls(viewer: Viewer) -> None:
    data = scene()
    data["sigma_m"] = np.where(np.arange(WIDTH) < 5, 0.2, 0.01).astype(np.float32) * data["depth_m"]
    with Browser(viewer) as browser:
        viewer.show_depth(**data)
        browser.until(lambda: len(browser.points) == HEIGHT * WIDTH)
        size = browser.nodes["/cloud"]["point_size"]
        browser.set("Max. sigma %", 10.0)
        browser.until(lambda: len(browser.points) == HEIGHT * (WIDTH - 5))
        browser.set("Point size", 2.0)
        browser.until(lambda: browser.nodes["/cloud"]["point_size"] > 1.5 * size)
        browser.set("Points", "As the panel")
        browser.until(lambda: not np.array_equal(browser.colors, data["all_in_focus"][:, 5:].reshape(-1, 3)))
        browser.set("Auto range", False)
        browser.set("Range [m]", (4.0, 2.0))  # in the wrong order
        expected = colorize_depth(data["depth_m"], 2.0, 4.0)[:, 5:].reshape(-1, 3)
        browser.until(lambda: np.array_equal(browser.colors, expected))


def test_pause_keeps_what_is_shown(viewer: Viewer) -> None:
    with Browser(viewer) as browser:
        viewer.show_depth(**scene(1.0))
        browser.until(lambda: browser.updates)
        browser.set("Pause", True)
        browser.until(lambda: "PAUSED" in browser.text)
        viewer.show_depth(**scene(2.0))
        viewer.show_frame(np.zeros((8, 10), np.uint8), 1.5, 1)
        browser.drain(0.3)
        assert browser.points[:, 2].min() == 1.0 and "1.5 dioptres" not in browser.text
        browser.set("Pause", False)
        browser.until(lambda: browser.points[:, 2].min() == 2.0 and "1.5 dioptres" in browser.text)
        browser.until(lambda: "PAUSED" not in browser.text)


def test_depth_alone_is_enough_and_no_depth_is_no_error(viewer: Viewer) -> None:
    with Browser(viewer) as browser:
        empty = np.full((HEIGHT, WIDTH), np.nan, np.float32)
        viewer.show_depth(empty, None, None, INTRINSICS, 0)
        browser.until(lambda: "· 0 points" in browser.text)
        data = scene()
        viewer.show_depth(data["depth_m"], None, None, INTRINSICS, 1)
        browser.until(lambda: len(browser.points) == HEIGHT * WIDTH)
        assert np.ptp(browser.colors.astype(int), axis=0).max() > 100  # in the colours of depth


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"depth_m": np.zeros((4, 4), np.uint16)}, TypeError, "depth_m: expected a float32 array"),
        ({"depth_m": np.zeros((4, 4, 1), np.float32)}, ValueError, r"depth_m: expected shape \(H, W\)"),
        ({"sigma_m": np.zeros((4, 4), np.float32)}, ValueError, r"sigma_m: .*\(12, 20\), received \(4, 4\)"),
        ({"all_in_focus": np.zeros((4, 4, 3), np.uint8)}, ValueError, r"all_in_focus: .*received \(4, 4\)"),
        ({"all_in_focus": np.zeros((HEIGHT, WIDTH, 3))}, TypeError, "all_in_focus: expected a uint8 array"),
        ({"intrinsics": (0.0, 1.0, 2.0, 3.0)}, ValueError, "intrinsics: expected finite fx > 0"),
        ({"intrinsics": (1.0, math.nan, 2.0, 3.0)}, ValueError, "intrinsics: expected finite fx > 0"),
        ({"intrinsics": (1.0, 1.0)}, ValueError, "intrinsics: expected finite fx > 0"),
    ],
)
def test_wrong_input_is_refused(viewer: Viewer, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        viewer.show_depth(**{**scene(), **changes})
    with pytest.raises(TypeError, match="status: expected a ViewerStatus"):
        viewer.show_status({"input_hz": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "narrower"),
    [
        ((1600, 900), 1.0),
        ((1000, 700), (1000 - 2 * 336) / 700),  # between the panels
        ((390, 844), 0.4),  # above the sheet of a phone
    ],
)
def test_the_first_view_fits_into_what_the_panels_leave(
    viewer: Viewer, window: tuple[int, int], narrower: float
) -> None:
    data = scene()
    with Browser(viewer, window=window) as browser:
        viewer.show_depth(**data)
        browser.until(lambda: browser.updates and len(browser.camera) == 2)
        position, aim = np.array(browser.camera["position"]), np.array(browser.camera["look_at"])
        center, radius = Extent.of(browser.points).ball()
        tangent = math.tan(FIELD_OF_VIEW / 2)
        distance = float(np.linalg.norm(position - aim))
        assert distance == pytest.approx(0.75 * radius / math.sin(math.atan(narrower * tangent)), rel=1e-3)
        phone = window[0] < 640
        assert np.linalg.norm(aim - center) == pytest.approx(0.6 * distance * tangent if phone else 0.0, abs=1e-3)
        first, last = "Depth", "Input image"
        order = [props["content"] for props in browser.gui.values() if "content" in props]
        place = {word: next(i for i, text in enumerate(order) if f"<b>{word}</b>" in text) for word in (first, last)}
        assert (place[first] < place[last]) is phone
