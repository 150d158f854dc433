"""Save a picture of the viewer's page from headless Chromium: ``python -m tools.screenshot URL FILE``.

Chromium's ``--screenshot`` captures when the page has loaded, before a live page shows data. Here Playwright drives the
browser: load, wait for depth on the page, let it settle, capture. The browser is the system's; none is downloaded.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
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
    ready: str = "[data-depth-images]",
    browser: str | None = None,
) -> None:
    """Write a PNG of the page at `url`.

    Parameters
    ----------
    size
        Width and height of the window in pixels.
    settle_s
        Wait after an element of the selector `ready` is on the page: by default, when the page shows depth.
        (The scene fades in, and software rendering takes time.)
    timeout_s
        Time limit for `ready`.
    browser
        The Chromium to use; None = the first of BROWSERS on the path.

    Raises FileNotFoundError without a Chromium, TimeoutError where the page never becomes ready.
    """
    from playwright.sync_api import TimeoutError as NotReady
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=_find(browser), args=_FLAGS, chromium_sandbox=os.geteuid() != 0
        )
        try:
            page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
            try:
                page.goto(url, timeout=1e3 * timeout_s)
                page.wait_for_selector(ready, state="attached", timeout=1e3 * timeout_s)
            except NotReady as error:
                raise TimeoutError(f"{url}: not ready within {timeout_s:g} s (waiting for {ready})") from error
            page.evaluate(_DISMISS_NOTICES)
            page.wait_for_timeout(1e3 * settle_s)
            page.screenshot(path=path)
        finally:
            chromium.close()


def _find(browser: str | None) -> str:
    names = (browser,) if browser else BROWSERS
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise FileNotFoundError(f"no Chromium found, tried {', '.join(names)}; install one (Debian: apt install chromium)")


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
