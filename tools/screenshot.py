"""Save a picture of the viewer's page from headless Chromium: ``python -m tools.screenshot URL FILE``.

Chromium's ``--screenshot`` captures when the page has loaded, before a live page shows data. Here its DevTools protocol
drives the browser: load, wait for depth on the page, let it settle, capture.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)

# The notice "WebGL runs in software", which is intended here.
_DISMISS_NOTICES = "document.querySelectorAll('.mantine-Notification-closeButton').forEach(button => button.click())"


def take_screenshot(
    url: str,
    path: str | Path,
    *,
    size: tuple[int, int] = (1600, 900),
    settle_s: float = 8.0,
    timeout_s: float = 60.0,
    ready: str = "document.querySelector('[data-depth-images]') !== null",
    browser: str | None = None,
    script: str | None = None,
) -> None:
    """Write a PNG of the page at `url`.

    Parameters
    ----------
    size
        Width and height of the window in pixels.
    settle_s
        Wait after `ready`, a JavaScript expression, becomes true: by default, when the page shows depth.
        (The scene fades in, and software rendering takes time.)
    timeout_s
        Time limit of the whole.
    browser
        The Chromium to use; None = the first of BROWSERS on the path.
    script
        JavaScript run once ready, before settling (to press a button, say).

    Raises FileNotFoundError without a Chromium, TimeoutError where the page never becomes ready.
    """
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix="dfs-chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            _find(browser),
            *_FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            "about:blank",
        ]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium refuses to run as root otherwise
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with _Tab(_tab_address(Path(profile), process, deadline), deadline) as tab:
                tab.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=size[0],
                    height=size[1],
                    deviceScaleFactor=1,
                    mobile=False,
                )
                tab.call("Page.navigate", url=url)
                while not tab.evaluate(ready):
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{url}: not ready within {timeout_s:g} s (waiting for {ready})")
                    time.sleep(0.2)
                tab.evaluate(_DISMISS_NOTICES)
                if script is not None:
                    tab.evaluate(script)
                time.sleep(settle_s)
                Path(path).write_bytes(base64.b64decode(tab.call("Page.captureScreenshot", format="png")["data"]))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Tab:
    """One browser tab, driven over its DevTools WebSocket."""

    def __init__(self, address: str, deadline: float) -> None:
        from websockets.sync.client import connect

        self._deadline = deadline
        self._socket = connect(address, max_size=None, compression=None, origin=None)
        self._ids = itertools.count(1)

    def __enter__(self) -> _Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:  # events come in between
            reply = json.loads(self._socket.recv(timeout=max(self._deadline - time.monotonic(), 1.0)))
            if reply.get("id") == number:
                if "error" in reply:
                    raise RuntimeError(f"Chromium, {method}: {reply['error'].get('message')}")
                return dict(reply["result"])

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")


def _find(browser: str | None) -> str:
    names = (browser,) if browser else BROWSERS
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise FileNotFoundError(f"no Chromium found, tried {', '.join(names)}; install one (Debian: apt install chromium)")


def _tab_address(profile: Path, process: subprocess.Popen[bytes], deadline: float) -> str:
    """WebSocket address of the first tab; waits until the browser has written its port."""
    import urllib.error
    import urllib.request

    port_file = profile / "DevToolsActivePort"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Chromium ended with status {process.returncode} before it could be used")
        try:
            port = int(port_file.read_text().split()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as reply:
                pages = [tab for tab in json.load(reply) if tab["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        except (FileNotFoundError, IndexError, ValueError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    raise TimeoutError("Chromium did not open its DevTools port in time")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="address of the viewer's page")
    parser.add_argument("file", help="PNG file to write")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(1600, 900),
        metavar=("W", "H"),
        help="size of the browser window in pixels (default: 1600 900)",
    )
    parser.add_argument(
        "--settle", type=float, default=8.0, metavar="S", help="wait after the first depth [s] (default: 8)"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="time limit for the first depth [s] (default: 60)"
    )
    args = parser.parse_args()
    take_screenshot(args.url, args.file, size=tuple(args.size), settle_s=args.settle, timeout_s=args.timeout)


if __name__ == "__main__":
    main()
