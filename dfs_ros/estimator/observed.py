"""Clock and progress around the steps of an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfs_ros.estimator.cpu import CpuSteps
from dfs_ros.types import Progress

if TYPE_CHECKING:
    from dfs_ros.estimator.gpu import GpuSteps

# Method of the steps: its name in reports, and the completed share of the whole when it begins.
_STEPS = {
    "align": ("align", 0.0),
    "find_range": ("range", 0.12),
    "aperture": ("aperture", 0.15),
    "judge": ("judge", 0.18),
    "follow": ("motion", 0.19),
    "upload": ("cost volume", 0.2),
    "guide": ("cost volume", 0.2),
    "halve": ("cost volume", 0.2),
    "cost_volume": ("cost volume", 0.2),
    "split": ("aggregate", 0.58),
    "interpolate": ("aggregate", 0.58),
    "energy": ("aggregate", 0.58),
    "aggregate": ("aggregate", 0.58),
    "confidence": ("aggregate", 0.58),
    "at_ends": ("aggregate", 0.58),
    "least": ("aggregate", 0.58),
    "optimize": ("optimize", 0.62),
    "decide": ("decide", 0.65),
    "read_out": ("read out", 0.8),
    "enlarge_along": ("read out", 0.8),
    "enlarge": ("read out", 0.8),
    "download": ("transfer", 0.83),
    "realign": ("realign", 0.84),
    "follow_closer": ("motion", 0.84),
    "sigma": ("sigma", 0.85),
    "gain": ("sigma", 0.85),
    "texture": ("select", 0.86),
    "unexplained": ("select", 0.86),
    "sharpen": ("sharpen", 0.87),
}


class ObservedSteps:
    """Wrapper of the steps that times them and reports progress.

    An exception of `progress` ends the estimate.
    """

    def __init__(self, steps: CpuSteps | GpuSteps, progress: Progress | None) -> None:
        self._steps, self._progress = steps, progress
        self._share_done, self._last = 0.0, ""
        self._marks: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._steps, name)
        if name not in _STEPS:
            return step
        label, share = _STEPS[name]

        def observed(*arguments: Any) -> Any:
            self._begin(label, share)
            before = self._steps.now()
            found = step(*arguments)
            self._marks.append((label, before, self._steps.now()))
            return found

        return observed

    def note(self, what: str, share: float) -> None:
        """Report, within the step under way, that `share` of something is done."""
        if self._progress is not None:
            self._progress(f"{what}, {100 * share:.0f} %", self._share_done)

    def seconds(self) -> dict[str, float]:
        """Seconds of every step, in the order of their starts. Waits for the device."""
        seconds: dict[str, float] = {}
        for label, before, after in self._marks:
            seconds[label] = seconds.get(label, 0.0) + self._steps.seconds_between(before, after)
        return seconds

    def _begin(self, label: str, share: float) -> None:
        share = self._share_done = max(share, self._share_done)  # steps that run again do not go back
        if self._progress is not None and label != self._last:
            self._progress(label, share)
        self._last = label
