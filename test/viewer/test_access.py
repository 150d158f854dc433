"""Access to the viewer: pages of other sites and names are refused, connections and messages are limited."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import pytest
from viewer_browser import Browser, scene, viewer
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dfs_ros.config import ViewerConfig
from dfs_ros.viewer.server import is_own_page
from dfs_ros.viewer.viewer import Viewer

__all__ = ["viewer"]  # fixtures


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null"])
def test_page_of_another_site_is_refused_within_the_handshake(viewer: Viewer, origin: str) -> None:
    viewer.show_depth(**scene())
    with pytest.raises(InvalidStatus) as refused:
        Browser(viewer, origin)
    assert refused.value.response.status_code == 403
    with Browser(viewer, viewer.url) as browser:  # its own page
        browser.until(lambda: len(browser.points))


@pytest.mark.parametrize(
    ("origin", "requested", "bound", "allowed"),
    [
        (None, "127.0.0.1:8080", "127.0.0.1", True),  # not a browser
        (None, "evil.example:8080", "127.0.0.1", False),
        (None, None, "127.0.0.1", False),
        ("http://localhost:8080", "localhost:8080", "127.0.0.1", True),
        ("http://[::1]:8080", "[::1]:8080", "::1", True),
        ("http://127.0.0.1:8080", None, "127.0.0.1", False),
        # The name of a site that was made to point at this machine (DNS rebinding).
        ("http://evil.example:8080", "evil.example:8080", "127.0.0.1", False),
        ("http://robot.local:8080", "robot.local:8080", "0.0.0.0", True),  # opened to the network on purpose
        ("http://evil.example", "robot.local:8080", "0.0.0.0", False),
    ],
)
def test_own_page(origin: str | None, requested: str | None, bound: str, allowed: bool) -> None:
    assert is_own_page(origin, requested, bound) is allowed


def test_a_page_under_another_name_of_this_machine_is_not_served(viewer: Viewer) -> None:
    def status(host: str) -> int:
        request = urllib.request.Request(viewer.url, headers={"Host": host})
        try:
            return int(urllib.request.urlopen(request, timeout=240).status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("localhost") == 200
    assert status("evil.example") == 403  # DNS rebinding


def test_pages_and_their_messages_are_limited() -> None:
    with Viewer(ViewerConfig(port=0, max_connections=2)) as viewer:
        with Browser(viewer) as first, Browser(viewer) as second:
            with pytest.raises(InvalidStatus) as refused:
                Browser(viewer)
            assert refused.value.response.status_code == 503
            second.send("GuiUpdateMessage", uuid="x" * 2**18, updates={})
            with pytest.raises(ConnectionClosed) as closed:
                second.drain(240)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
            viewer.show_depth(**scene())
            first.until(lambda: first.updates)
        deadline = time.monotonic() + 240
        while True:  # a place is free again as soon as the server knows of a page's end
            try:
                Browser(viewer).__exit__()
                break
            except InvalidStatus:
                assert time.monotonic() < deadline


def test_share_link_is_refused(viewer: Viewer) -> None:
    with Browser(viewer) as browser:
        browser.send("ShareUrlRequest")
        viewer.show_depth(**scene())
        browser.until(lambda: browser.updates)
    assert viewer._server._share_tunnel is None
