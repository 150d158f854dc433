"""HTML parts of the page: titles, figures, colour bar, focus plot. Strings in and out."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from dfs_ros.messages.node_status import Account
from dfs_ros.viewer.status import FocusSample, ViewerStatus

STYLE = """<style>
.dfs{padding:0 .75em;font-size:12px;line-height:1.45;color:#c1c2c5;font-variant-numeric:tabular-nums}
.dfs-title{display:flex;align-items:baseline;justify-content:space-between;margin:.35em 0 -.1em}
.dfs-title b{font-size:11px;font-weight:600;letter-spacing:.07em;text-transform:uppercase;color:#e9ecef}
.dfs-title span{color:#909296;font-size:11.5px}
.dfs-tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:6px}
.dfs-tile{background:#2c2e33;border-radius:5px;padding:5px 8px 6px}
.dfs-tile i{display:block;font-style:normal;color:#909296;font-size:10.5px;white-space:nowrap}
.dfs-tile b{font-size:17px;font-weight:600;color:#f1f3f5;white-space:nowrap}
.dfs-tile b small{font-size:11px;font-weight:400;color:#909296;margin-left:3px}
.dfs-line{color:#909296;margin-top:6px;overflow-wrap:anywhere}
.dfs-line em{font-style:normal;color:#c1c2c5}
.dfs-good,.dfs-warn{border-radius:5px;padding:4px 9px;margin-top:7px;border-left:3px solid;overflow-wrap:anywhere}
.dfs-good{background:#1d2b22;border-color:#40c057;color:#8ce99a}
.dfs-warn{background:#332b16;border-color:#fab005;color:#ffe066}
.dfs-paused{background:#fab005;color:#1a1b1e;font-weight:700;letter-spacing:.12em;text-align:center;padding:3px}
.dfs svg{display:block;width:100%;height:auto}
img[src^="blob:"]{width:100%;border-radius:4px;background:#141517}
/* viser's bottom sheet is wider than what it scrolls on a phone. */
@media (max-width:640px){
.mantine-Paper-root[style*="20em"]{width:100%!important}
.mantine-ScrollArea-content>div[style*="20em"]{width:100%!important}
}
</style>"""
TITLE = "dfs_ros · depth from focus"
# viser's page has a title of its own and no setting for it; no <script> runs in HTML that it inserts.
TAB_TITLE = f"""<img alt="" hidden src="data:," onerror="document.title='{TITLE}'">"""

ColorsAt = Callable[[NDArray[np.float64]], NDArray[np.uint8]]
"""Function from depths in metres (N,) to colours (N, 3)."""

WIDTH_PX = 312
"""Width of drawings, at which their text has the size of other text."""
BAR_PX = 234.0
"""Length of a colour bar in such a drawing."""

NO_VALUE = "–"
_NOT_LOST = ("in stacks", "waiting")


def title(text: str, note: str = "") -> str:
    """Heading with a note on its right."""
    return f'<div class="dfs"><div class="dfs-title"><b>{escape(text)}</b><span>{escape(note)}</span></div></div>'


def line(text: str) -> str:
    """Line of text."""
    return f'<div class="dfs"><div class="dfs-line"><em>{escape(text)}</em></div></div>'


def warning(text: str) -> str:
    """Line of text that stands out; none for empty text."""
    return f'<div class="dfs"><div class="dfs-warn">{escape(text)}</div></div>' if text else ""


def depth_title(shown: str, width: int, height: int, points: int, stale: str = "", missing: bool = False) -> str:
    """Heading of the picture of `shown`; its attribute marks for scripts that depth is shown."""
    heading = title(shown, "not received" if missing else f"{width} × {height} · {points:,} points")
    return f"<div data-depth-images>{heading}{warning(stale)}</div>"


def status_tiles(status: ViewerStatus, coverage: float, paused: bool = False) -> str:
    """Tiles of rates, latency, coverage, images, lens and warnings; NaN is a dash."""
    images = status.images
    unused = sum(count for name, count in images.outcomes.items() if name not in _NOT_LOST)
    tiles = [
        ("Images in", number(status.input_hz, "{:.1f}"), "Hz"),
        ("Depth out", number(status.depth_hz, "{:.1f}"), "Hz"),
        ("Latency", number(status.latency_s * 1e3, "{:.0f}"), "ms"),
        ("Pixels with depth", number(coverage * 100, "{:.0f}"), "%"),
        ("Depth images", number(status.depth_count, "{:.0f}"), ""),
        ("Images unused", number(100 * unused / images.total if images.total else math.nan, "{:.1f}"), "%"),
    ]
    body = "".join(
        f"<div class=dfs-tile><i>{name}</i><b>{value}<small>{unit}</small></b></div>" for name, value, unit in tiles
    )
    text = '<div class="dfs dfs-paused">PAUSED</div>' if paused else ""
    text += warning("This page keeps what it shows; the node and other browsers go on" if paused else "")
    text += f'<div class="dfs"><div class="dfs-tiles">{body}</div>'
    text += _account("Images sent", images) + _account("Stacks", status.stacks)
    if status.unusable:
        text += f'<div class="dfs-line">Messages not used: {_counts(status.unusable)}</div>'
    if status.camera:
        text += f'<div class="dfs-line"><em>{escape(status.camera)}</em></div>'
    if status.error:
        text += f'<div class="dfs-line"><em>{escape(status.error)}</em></div>'
    if status.warnings:
        text += "".join(f'<div class="dfs-warn">{escape(line)}</div>' for line in status.warnings[:4])
    elif status.received:
        text += '<div class="dfs-good">No warnings</div>'
    return text + "</div>"


def _account(what: str, account: Account) -> str:
    """Line of text such as "Images sent 12 = in stacks 10 + late 2"."""
    if not account.total:
        return ""
    return f'<div class="dfs-line">{what} <em>{account.total:,}</em> = {_counts(account.outcomes, " + ")}</div>'


def _counts(counts: Mapping[str, int], between: str = " · ") -> str:
    return between.join(f"{escape(name)} <em>{count:,}</em>" for name, count in counts.items())


def color_bar(shades: NDArray[np.uint8], ticks: Sequence[tuple[float, str]], unit: str, no_depth_png: bytes) -> str:
    """Colour bar of evenly spaced `shades` (N, 3), ticks at shares of its length, and a "no depth" sample."""
    sample = base64.b64encode(no_depth_png).decode()
    stops = "".join(
        f'<stop offset="{i / (len(shades) - 1):.4f}" stop-color="rgb({r},{g},{b})"/>'
        for i, (r, g, b) in enumerate(shades)
    )
    marks = ""
    for share, text in ticks:
        x = BAR_PX * share
        anchor = "start" if x < 12 else "end" if x > BAR_PX - 12 else "middle"
        marks += (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="16" stroke="#909296"/>'
            f'<text x="{x:.1f}" y="27" text-anchor="{anchor}">{escape(text)}</text>'
        )
    width = float(WIDTH_PX)
    return (
        f'<div class="dfs"><svg viewBox="0 0 {width:g} 31" font-size="11" fill="#c1c2c5" font-family="inherit">'
        f'<defs><linearGradient id="dfs-shades">{stops}</linearGradient></defs>'
        f'<rect width="{BAR_PX:g}" height="12" rx="2" fill="url(#dfs-shades)"/>{marks}'
        f'<image x="{width - 54:g}" width="54" height="12" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{sample}"/>'
        f'<text x="{width - 27:g}" y="27" text-anchor="middle">no depth</text>'
        f'<text x="{BAR_PX + 2:g}" y="11" fill="#909296">{unit}</text></svg></div>'
    )


def focus_plot(samples: Sequence[FocusSample], colors_at: ColorsAt) -> str:
    """Plot of recent focus: dioptres left, metres right, dots in depth colours."""
    if not any(math.isfinite(sample.focus_diopters) for sample in samples):
        return '<div class="dfs dfs-line">No focus metadata</div>'
    width, height, left, right, top, bottom = float(WIDTH_PX), 116.0, 26.0, 48.0, 7.0, 19.0
    seconds = np.array([s.stamp_ns - samples[-1].stamp_ns for s in samples]) * 1e-9
    focus = np.array([s.focus_diopters for s in samples])
    step, highest = _axis(float(np.nanmax(focus, initial=0.1)))
    duration = max(-float(seconds[0]), 1e-3)

    def x_of(second: float) -> float:
        return left + (width - left - right - 6) * (1.0 + second / duration)

    def y_of(diopters: float) -> float:
        return top + (height - top - bottom) * (1.0 - diopters / highest)

    lines = ""
    for i in range(round(highest / step) + 1):
        d = i * step
        metres = "∞" if d == 0 else f"{1 / d:.2g} m"
        y = y_of(d)
        lines += (
            f'<line x1="{left:g}" x2="{width - right:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="#373a40"/>'
            f'<text x="{left - 6:g}" y="{y + 4:.1f}" text-anchor="end">{d:g}</text>'
            f'<text x="{width - right + 6:g}" y="{y + 4:.1f}" fill="#909296">{metres}</text>'
        )
    known = np.isfinite(focus)
    path = " ".join(f"{x_of(s):.1f},{y_of(d):.1f}" for s, d in zip(seconds[known], focus[known], strict=True))
    colors = colors_at(1.0 / np.maximum(focus[known], 1e-3))
    dots = "".join(
        f'<circle cx="{x_of(s):.1f}" cy="{y_of(d):.1f}" r="3" fill="rgb({r},{g},{b})"/>'
        for s, d, (r, g, b) in zip(seconds[known], focus[known], colors, strict=True)
    )
    if known[-1]:
        x, y = x_of(0.0), y_of(float(focus[-1]))
        dots += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="none" stroke="#f1f3f5" stroke-width="1.5"/>'
    return (
        f'<div class="dfs"><svg viewBox="0 0 {width:g} {height:g}" font-size="11" fill="#c1c2c5" font-family="inherit">'
        f'{lines}<polyline points="{path}" fill="none" stroke="#5c5f66" stroke-width="1.2"/>{dots}'
        f'<text x="{left:g}" y="{height - 4:g}" fill="#909296">{duration:.2g} s ago</text>'
        f'<text x="{width - right:g}" y="{height - 4:g}" text-anchor="end" fill="#909296">now</text></svg></div>'
    )


def number(value: float, form: str) -> str:
    """`value` formatted, or a dash for NaN."""
    return form.format(value) if math.isfinite(value) else NO_VALUE


def _axis(highest: float) -> tuple[float, float]:
    """(step, top) of an axis from 0 that holds `highest` in three to five round steps."""
    for exponent in range(-3, 4):
        for mantissa in (1, 2, 2.5, 5):
            step = mantissa * 10.0**exponent
            if highest <= 4 * step:
                return step, step * max(math.ceil(highest / step - 1e-9), 1)
    return highest, highest
